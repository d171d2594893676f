//! What `/metrics` shows besides the gateway's own counters: depths, queues and back-pressure of every part below it.
//!
//! Asked at each scrape, so that a depth is never older than the question. `up` registers one; a part that does not run
//! shows nothing. Names end in their unit. Must never wait for anything.

use std::{
    collections::HashSet,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use cairn_backbone::Recorder;
use cairn_broker::{Broker, ClientMetrics, GroupStanding, Standings};
use cairn_clock::Clock;
use cairn_gateway::Gateway;
use cairn_log::Log;
use cairn_operators::Custody;
use cairn_policy::PolicyStore;
use cairn_vault::Vault;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge, info::Info},
};

use crate::consumers::Shown;

/// The parts that are measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measures {
    pub(crate) log: Option<Log>,
    pub(crate) broker: Option<Broker>,
    pub(crate) recorder: Option<Recorder>,
    pub(crate) gateway: Option<Gateway>,
    pub(crate) policy: Option<Policies>,
    pub(crate) evidence: Option<(cairn_evidence::Status, Clock)>,
    pub(crate) vault: Option<Vault>,
    pub(crate) custody: Option<Custody>,
    pub(crate) consumers: Vec<Shown>,
}

/// The policies in force, and whether newer files were refused.
#[derive(Clone, Debug)]
pub(crate) struct Policies {
    pub(crate) store: Arc<PolicyStore>,
    pub(crate) refused: Arc<AtomicBool>,
}

impl Collector for Measures {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut page = Page(encoder);
        page.build()?;
        if let Some(gateway) = &self.gateway {
            page.gateway(gateway)?;
        }
        if let Some(policy) = &self.policy {
            page.policy(policy)?;
        }
        if let Some(recorder) = &self.recorder {
            page.recorder(recorder)?;
        }
        if let Some((evidence, clock)) = &self.evidence {
            page.evidence(&evidence.snapshot(), clock)?;
        }
        if let Some(vault) = &self.vault {
            page.vault(vault)?;
        }
        let standings = self.broker.as_ref().map(|broker| broker.standings(&Clock::system())).unwrap_or_default();
        page.consumers(&self.consumers, &standings)?;
        if self.broker.is_some() {
            page.partitions(&standings)?;
        }
        #[cfg(feature = "observe")]
        for observed in self.consumers.iter().filter_map(|one| one.observed.as_ref()) {
            observed.figures.show(&mut page.0)?;
        }
        if let Some(broker) = &self.broker {
            page.broker(broker)?;
            page.clients(broker.client_metrics())?;
        }
        if let Some(log) = &self.log {
            page.log(log)?;
        }
        Ok(())
    }
}

struct Page<'p>(DescriptorEncoder<'p>);

/// A label's name as a page can have it.
fn label_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let name: String = name.chars().map(plain).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}

impl Page<'_> {
    fn show(&mut self, name: &str, help: &str, metric: &impl EncodeMetric) -> fmt::Result {
        metric.encode(self.0.encode_descriptor(name, help, None, metric.metric_type())?)
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.show(name, help, &ConstGauge::new(value))
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.show(name, help, &ConstCounter::new(value))
    }

    fn seconds(&mut self, name: &str, help: &str, micros: u64) -> fmt::Result {
        self.show(name, help, &ConstCounter::new(micros as f64 / 1e6))
    }

    fn build(&mut self) -> fmt::Result {
        let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        self.show("cairn_build", "The program that runs.", &version)?;
        match resident_bytes() {
            Some(bytes) => self.gauge("process_resident_memory_bytes", "Memory of this process in use.", bytes),
            None => Ok(()),
        }
    }

    fn gateway(&mut self, gateway: &Gateway) -> fmt::Result {
        let sessions = gateway.sessions_open() as u64;
        self.gauge("cairn_sessions_open", "Legacy client sessions that are open over HTTP.", sessions)?;
        self.gauge("cairn_wraps_open", "Wrapped clients that are connected.", gateway.pipes_open() as u64)?;
        if let Some(lag) = gateway.guard_lag() {
            let help = "How long ago the freshness guard had everything that the stream held.";
            self.show("cairn_guard_lag_seconds", help, &ConstGauge::new(lag.as_secs_f64()))?;
        }
        self.gauge("cairn_holds_waiting", "Calls that wait for an approval.", gateway.approvals().len() as u64)
    }

    fn policy(&mut self, policy: &Policies) -> fmt::Result {
        let version = Info::new(vec![("version", policy.store.current_version())]);
        self.show("cairn_policy_set", "The policy set that decides.", &version)?;
        let refused = u64::from(policy.refused.load(Ordering::Relaxed));
        self.gauge(
            "cairn_policy_files_refused",
            "1 while the policy files do not compile and an older set decides.",
            refused,
        )
    }

    /// Where groups are: Cairn's own consumers by what they have applied, all others by what they have committed.
    fn groups(&mut self, own: &[Shown], standings: &Standings) -> fmt::Result {
        let mut rows = Vec::new();
        for one in own {
            for (place, lag) in one.status.snapshot().partitions {
                rows.push((
                    place.partition.to_string(),
                    (one.group.to_string(), place.topic),
                    lag.next,
                    lag.behind,
                    None,
                ));
            }
        }
        let is_own = |one: &&GroupStanding| own.iter().any(|own| *own.group == *one.group);
        for one in standings.groups.iter().filter(|one| !is_own(one)) {
            let place = (one.group.clone(), one.topic.clone());
            rows.push((one.partition.to_string(), place, one.offset, one.lag, Some(one.lag_seconds)));
        }
        if rows.is_empty() {
            return Ok(());
        }
        let labels = |partition: &str, (group, topic): &(String, String)| {
            [("consumergroup", group.clone()), ("topic", topic.clone()), ("partition", partition.to_owned())]
        };
        let help = "Records of the partition that the group has not read, or not applied.";
        let mut family = self.0.encode_descriptor("kafka_consumergroup_lag", help, None, MetricType::Gauge)?;
        for (partition, place, _, lag, _) in &rows {
            ConstGauge::new(*lag).encode(family.encode_family(&labels(partition, place))?)?;
        }
        let help = "The offset that the group reads or applies next.";
        let mut family =
            self.0.encode_descriptor("kafka_consumergroup_current_offset", help, None, MetricType::Gauge)?;
        for (partition, place, next, ..) in &rows {
            ConstGauge::new(*next).encode(family.encode_family(&labels(partition, place))?)?;
        }
        let help = "Age of the oldest record of the partition that the group has not read; 0 where there is none.";
        let mut family = self.0.encode_descriptor("kafka_consumergroup_lag_seconds", help, None, MetricType::Gauge)?;
        for (partition, place, .., seconds) in rows.iter().filter(|(.., seconds)| seconds.is_some()) {
            ConstGauge::new(seconds.unwrap_or_default()).encode(family.encode_family(&labels(partition, place))?)?;
        }
        let mut sums = std::collections::BTreeMap::<_, u64>::new();
        for (_, place, _, lag, _) in &rows {
            *sums.entry(place).or_default() += *lag;
        }
        let help = "Records of the topic that the group has not read, or not applied.";
        let mut family = self.0.encode_descriptor("kafka_consumergroup_lag_sum", help, None, MetricType::Gauge)?;
        for ((group, topic), lag) in sums {
            let labels = [("consumergroup", group.clone()), ("topic", topic.clone())];
            ConstGauge::new(lag).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// Where partitions are, by the names of other people's exporters.
    fn partitions(&mut self, standings: &Standings) -> fmt::Result {
        let figures = [
            ("kafka_topic_partition_current_offset", "One past the partition's last offset."),
            ("kafka_topic_partition_oldest_offset", "The first offset that the partition keeps."),
        ];
        for (which, (name, help)) in figures.into_iter().enumerate() {
            let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for one in &standings.partitions {
                let labels = [("topic", one.topic.clone()), ("partition", one.partition.to_string())];
                ConstGauge::new(if which == 0 { one.current } else { one.oldest })
                    .encode(family.encode_family(&labels)?)?;
            }
        }
        let mut counts = std::collections::BTreeMap::<&str, u64>::new();
        standings.partitions.iter().for_each(|one| *counts.entry(&one.topic).or_default() += 1);
        let help = "Partitions of the topic.";
        let mut family = self.0.encode_descriptor("kafka_topic_partitions", help, None, MetricType::Gauge)?;
        for (topic, count) in counts {
            ConstGauge::new(count).encode(family.encode_family(&[("topic", topic.to_owned())])?)?;
        }
        self.gauge("kafka_brokers", "Brokers that serve the log.", 1)?;
        let help = "Partitions, and partitions of groups, that are not shown because there are too many.";
        self.gauge("cairn_broker_standings_left_out", help, standings.left_out)
    }

    fn consumers(&mut self, all: &[Shown], standings: &Standings) -> fmt::Result {
        self.groups(all, standings)?;
        if all.is_empty() {
            return Ok(());
        }
        let gauge = |snapshot: &cairn_consumers::Snapshot, which: usize| match which {
            0 => snapshot.lag.as_secs_f64(),
            1 => f64::from(u8::from(snapshot.is_paused)),
            _ => f64::from(u8::from(snapshot.failing.is_some())),
        };
        let gauges = [
            (
                "cairn_consumer_lag_seconds",
                "Age of the oldest record that the consumer has not applied; 0 where there is none.",
            ),
            ("cairn_consumer_paused", "1 while an operator lets the consumer rest."),
            ("cairn_consumer_failing", "1 while the consumer does not apply anything."),
        ];
        for (which, (name, help)) in gauges.into_iter().enumerate() {
            let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for one in all {
                let value = gauge(&one.status.snapshot(), which);
                ConstGauge::new(value).encode(family.encode_family(&[("consumer", one.name)])?)?;
            }
        }
        let counter = |snapshot: &cairn_consumers::Snapshot, which: usize| match which {
            0 => snapshot.events,
            1 => snapshot.dead_letters,
            _ => snapshot.newer,
        };
        let counters = [
            ("cairn_consumer_events", "Events that the consumer applied."),
            ("cairn_consumer_dead_letters", "Records that the consumer could not take."),
            ("cairn_consumer_newer_events", "Events of contracts newer than this program, which were kept."),
        ];
        for (which, (name, help)) in counters.into_iter().enumerate() {
            let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
            for one in all {
                let value = counter(&one.status.snapshot(), which);
                ConstCounter::new(value).encode(family.encode_family(&[("consumer", one.name)])?)?;
            }
        }
        let help = "Time from an event until it was applied, of the newest events: the middle, and what one in a hundred exceeds.";
        let mut family =
            self.0.encode_descriptor("cairn_consumer_freshness_recent_seconds", help, None, MetricType::Gauge)?;
        for one in all {
            let fresh = one.status.freshness();
            for (quantile, time) in [("0.5", fresh.p50), ("0.99", fresh.p99)].into_iter().filter(|_| fresh.events > 0) {
                let labels = [("consumer", one.name), ("consumergroup", &*one.group), ("quantile", quantile)];
                ConstGauge::new(time.as_secs_f64()).encode(family.encode_family(&labels)?)?;
            }
        }
        let help = "Time from an event until it was applied.";
        let mut family =
            self.0.encode_descriptor("cairn_consumer_freshness_seconds", help, None, MetricType::Histogram)?;
        for one in all {
            one.status.delays().encode(family.encode_family(&[("consumer", one.name)])?)?;
        }
        Ok(())
    }

    fn vault(&mut self, vault: &Vault) -> fmt::Result {
        let stats = vault.stats();
        self.gauge("cairn_vault_subjects", "Subjects whose payloads are kept.", stats.subjects)?;
        self.gauge("cairn_vault_queue_bytes", "Payloads that wait for the disk.", stats.waiting_bytes)?;
        self.gauge("cairn_vault_failing", "1 while the vault cannot write.", u64::from(stats.failing))?;
        self.counter("cairn_vault_objects", "Payloads written.", stats.objects)?;
        self.counter("cairn_vault_written_bytes", "Their bytes, encrypted.", stats.bytes)?;
        self.counter("cairn_vault_failures", "Payloads whose writing failed.", stats.failed)?;
        self.counter("cairn_vault_not_kept", "Payloads of which a digest alone is left.", stats.not_kept)
    }

    fn recorder(&mut self, recorder: &Recorder) -> fmt::Result {
        let stats = recorder.stats();
        self.gauge("cairn_recorder_queue_events", "Events that wait to be recorded.", stats.queued as u64)?;
        self.gauge("cairn_recorder_queue_bytes", "Their relaxed part, in bytes.", stats.relaxed_bytes as u64)?;
        self.gauge(
            "cairn_recorder_outcomes_reserved",
            "Calls in flight that room for an outcome is kept for.",
            stats.outcomes_reserved as u64,
        )?;
        self.gauge("cairn_recorder_failing", "1 while recording does not work.", u64::from(stats.failing.is_some()))?;
        self.counter("cairn_recorder_events", "Events recorded.", stats.recorded)?;
        self.counter("cairn_recorder_appends", "Appends that recorded them.", stats.appends)?;
        self.counter(
            "cairn_recorder_append_failures",
            "Appends that failed and are tried again.",
            stats.failed_appends,
        )?;
        self.counter("cairn_recorder_events_dropped", "Relaxed events dropped for want of room.", stats.dropped)?;
        self.counter("cairn_recorder_events_invalid", "Events that could not be written.", stats.invalid)?;
        self.counter("cairn_recorder_events_rejected", "Events that broke their contract.", stats.rejected)?;
        self.counter(
            "cairn_recorder_events_refused",
            "Strict events refused: their calls were not forwarded.",
            stats.refused,
        )?;
        self.seconds(
            "cairn_recorder_throttle_seconds",
            "Time that calls waited for room in the queues.",
            stats.throttled_us,
        )?;
        let backbone = stats.backbone;
        self.gauge(
            "cairn_spool_events",
            "Events in the local spool that the cluster has not acknowledged.",
            backbone.spool_events,
        )?;
        self.gauge("cairn_spool_bytes", "Their bytes on disk.", backbone.spool_bytes)?;
        self.gauge("cairn_spool_limit_bytes", "The spool's bound; 0 without a spool.", backbone.spool_bytes_max)?;
        self.gauge("cairn_backbone_away", "1 while the cluster does not answer.", u64::from(backbone.away))
    }

    fn evidence(&mut self, now: &cairn_evidence::Snapshot, clock: &Clock) -> fmt::Result {
        let since = clock.now().as_micros() / 1_000;
        let until = u64::try_from(now.read_until_ms).unwrap_or_default();
        self.gauge(
            "cairn_evidence_lag_seconds",
            "Age of the newest record that the collector read; 0 where it has read all.",
            since.saturating_sub(until) / 1_000,
        )?;
        self.gauge(
            "cairn_evidence_lag_records",
            "Records that the collector had not read when it looked last.",
            now.behind,
        )?;
        self.gauge("cairn_evidence_failing", "1 while no evidence is made.", u64::from(now.failing.is_some()))?;
        self.counter("cairn_evidence_findings", "What was found wrong with the trail since the start.", now.findings)?;
        self.gauge("cairn_evidence_logs", "Partitions that have a Merkle tree.", now.logs)?;
        self.counter("cairn_evidence_records", "Records taken into the trees.", now.records)?;
        self.gauge("cairn_evidence_waiting_records", "Records that no checkpoint covers yet.", now.waiting)?;
        self.counter("cairn_evidence_checkpoints", "Signed checkpoints published.", now.checkpoints)?;
        self.counter("cairn_evidence_cosignatures", "Cosignatures of witnesses.", now.cosignatures)?;
        self.counter("cairn_evidence_witness_failures", "Times that a witness did not cosign.", now.witness_failures)
    }

    fn broker(&mut self, broker: &Broker) -> fmt::Result {
        let stats = broker.stats();
        self.gauge("cairn_broker_topics", "Topics of the embedded log.", stats.topics as u64)?;
        self.gauge("cairn_broker_connections", "Kafka connections that are open.", stats.connections)?;
        let behind =
            "Of these, those that read what only the object store has, on threads that give way to all others.";
        self.gauge("cairn_broker_connections_behind", behind, stats.connections_behind)?;
        self.counter("cairn_broker_connections_refused", "Kafka connections turned away.", stats.connections_refused)?;
        self.counter("cairn_broker_requests", "Kafka requests answered.", stats.requests)?;
        self.counter("cairn_broker_batches", "Batches appended.", stats.batches)?;
        self.counter("cairn_broker_batches_refused", "Batches refused.", stats.batches_refused)?;
        self.seconds(
            "cairn_broker_quota_throttle_seconds",
            "Time that clients were told to wait because they had used up their quota.",
            stats.quota_throttled_us,
        )?;
        self.seconds(
            "cairn_broker_pressure_throttle_seconds",
            "Time that producers were told to wait because much waits for the object store.",
            stats.pressure_throttled_us,
        )?;
        self.seconds(
            "cairn_broker_throttle_seconds",
            "Time that Kafka connections were not read for want of memory.",
            stats.throttled_us,
        )
    }

    /// What Kafka clients tell of themselves (KIP-714): each value under the name that its client gives it.
    fn clients(&mut self, told: ClientMetrics) -> fmt::Result {
        self.gauge("cairn_broker_telemetry_clients", "Kafka clients that push metrics.", told.clients)?;
        self.counter("cairn_broker_telemetry_pushes", "Pushes of clients' metrics taken.", told.pushes)?;
        self.counter("cairn_broker_telemetry_pushes_refused", "Pushes of clients' metrics refused.", told.refused)?;
        let help = "Values of clients that are not shown: of a kind that is not taken, or too many.";
        self.counter("cairn_broker_telemetry_values_left_out", help, told.left_out)?;
        if told.points.is_empty() {
            return Ok(());
        }
        let help = "What a Kafka client pushed last, by its own name of the metric.";
        let mut family = self.0.encode_descriptor("kafka_client_metric", help, None, MetricType::Gauge)?;
        let mut shown = HashSet::new();
        for point in told.points {
            let own = [
                ("metric", point.metric),
                ("client_instance_id", point.instance.to_string()),
                ("client_id", point.client_id),
                ("client_software", point.software),
            ];
            let mut labels: Vec<(String, String)> = own.map(|(name, value)| (name.to_owned(), value)).to_vec();
            for (name, value) in point.labels {
                let name = label_name(&name);
                if !labels.iter().any(|(known, _)| *known == name) {
                    labels.push((name, value));
                }
            }
            // A client that says something twice is taken at its first word: a page may not.
            if shown.insert(labels.clone()) {
                ConstGauge::new(point.value).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn log(&mut self, log: &Log) -> fmt::Result {
        let stats = log.stats();
        self.gauge("cairn_log_queue_calls", "Append calls that wait for the writer.", stats.queue_calls)?;
        self.gauge(
            "cairn_log_wal_depth_bytes",
            "Bytes in the write-ahead log that the store lacks.",
            stats.wal_depth_bytes,
        )?;
        self.gauge("cairn_log_streams", "Streams of the log.", stats.streams)?;
        self.gauge("cairn_log_upload_backlog_batches", "Batches that wait for upload.", stats.upload_backlog)?;
        self.counter("cairn_log_fsyncs", "Syncs of the write-ahead log.", stats.fsyncs)?;
        self.counter("cairn_log_appends", "Batches appended to the log.", stats.appends)?;
        self.counter("cairn_log_appended_bytes", "Their bytes.", stats.appended_bytes)?;
        self.gauge(
            "cairn_log_wal_limit_bytes",
            "The bound of that depth; past it appends are refused.",
            stats.wal_limit_bytes,
        )?;
        self.counter("cairn_log_appends_refused", "Append calls refused for want of room.", stats.appends_refused)?;
        self.counter(
            "cairn_log_read_failures",
            "Reads that failed: no answer, or something is missing or damaged.",
            stats.read_failures,
        )?;
        self.gauge("cairn_log_fenced", "1 once another process has taken the store.", u64::from(stats.is_fenced))?;
        self.counter("cairn_log_uploads", "Objects put into the store.", stats.uploads)?;
        self.counter("cairn_log_uploaded_bytes", "Bytes of those objects.", stats.uploaded_bytes)?;
        self.counter("cairn_log_index_bytes", "Bytes of the index's files put into the store.", stats.index_bytes)?;
        self.counter("cairn_log_merges", "Objects put in the place of several.", stats.merges)?;
        self.counter(
            "cairn_log_merged_bytes",
            "Bytes of the objects put in the place of several.",
            stats.merged_bytes,
        )?;
        self.counter("cairn_log_compactions", "Pieces of work of compaction by key.", stats.compactions)?;
        self.counter("cairn_log_compacted_bytes", "Bytes of the objects that they put.", stats.compacted_bytes)?;
        self.counter(
            "cairn_log_compaction_freed_bytes",
            "Bytes of batches that they left out.",
            stats.compaction_freed_bytes,
        )?;
        self.counter("cairn_log_upload_failures", "Uploads that failed and are tried again.", stats.upload_failures)?;
        self.gauge("cairn_store_away", "1 while uploads to the store fail.", u64::from(stats.store_away))?;
        self.gauge("cairn_store_objects", "Objects in the store that streams need.", stats.objects)?;
        self.gauge("cairn_store_object_bytes", "Bytes of batches in them.", stats.object_bytes)?;
        self.counter(
            "cairn_store_objects_removed",
            "Objects removed by retention or as left over.",
            stats.objects_removed,
        )?;
        self.counter("cairn_store_puts", "Puts of objects and heads asked of the store.", stats.store_puts)?;
        self.counter("cairn_store_gets", "Gets of objects, ranges and heads asked of it.", stats.store_gets)?;
        self.counter("cairn_store_lists", "Lists asked of it.", stats.store_lists)?;
        self.counter("cairn_store_deletes", "Removals asked of it.", stats.store_deletes)?;
        self.counter("cairn_store_batches_read", "Batches read from objects or their cache.", stats.object_reads)
    }
}

/// Resident memory as the kernel counts it; `None` where there is no such file.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
