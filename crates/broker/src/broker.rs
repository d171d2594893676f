//! The broker in process: topics, produce, fetch. Called by Cairn itself and, after decoding, by every request of the wire.
//!
//! One way in for every writer: [`Broker::admit`] checks rights, topic, size, batch; only what it admits can be appended.

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{Arc, atomic::AtomicU64, atomic::Ordering},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use cairn_clock::{Clock, Entropy, Settled};
use cairn_log::{
    Aborted, Append, Appended, InTransaction, Isolation, Log, Offset, PartitionIndex, ProducerEpoch, ProducerId,
    ProducerMark, Room, Sequence, StreamId,
};
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    access::Access,
    api::FetchSessions,
    batch::{self, BatchError},
    budget::Budget,
    group::{Coordinator, GroupLimits, Paces},
    options::BrokerOptions,
    pressure::Pressure,
    principal::Principal,
    quotas::Quotas,
    resources::Resources,
    share::{self, Shares},
    successor::Successor,
    telemetry::{ClientMetrics, Telemetry},
    topics::{Catalogue, OFFSETS_TOPIC, Topic, configs::TopicConfigs, is_topic_name},
    turn::Turn,
    txn::{Place, STATE_TOPIC, Transactions},
};

mod errors;

pub use errors::{FetchError, OpenError, ProduceError, TopicError};

/// A topic that somebody wants.
#[derive(Debug, Clone, Default)]
pub struct TopicSpec {
    /// Name: letters, digits, `.`, `_`, `-`; at most 249.
    pub name: String,
    /// Partitions; none takes the broker's default.
    pub partitions: Option<u32>,
    /// Kafka's topic configs.
    pub configs: BTreeMap<String, String>,
}

/// A topic that there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDescription {
    /// Name.
    pub name: String,
    /// Topic id; a topic that is created again has another.
    pub id: Uuid,
    /// Partitions, counted from zero.
    pub partitions: u32,
    /// The configs that were given.
    pub configs: BTreeMap<String, String>,
}

/// What a fetch gives.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Whole batches as they are stored; the first may begin before the offset asked for.
    pub batches: Vec<Bytes>,
    /// The durable end: one more than the last offset that can be read.
    pub high_watermark: Offset,
    /// One more than the last offset before which every transaction has ended.
    pub stable_end: Offset,
    /// For who reads what is committed: the aborted transactions among the batches.
    pub aborted: Vec<Aborted>,
    /// The first offset that is kept.
    pub log_start: Offset,
}

/// Counters since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BrokerStats {
    /// Topics there are.
    pub topics: usize,
    /// Connections that are open.
    pub connections: u64,
    /// Of these, those that read what only the object store has, and give way to others.
    pub connections_behind: u64,
    /// Connections turned away because there were too many.
    pub connections_refused: u64,
    /// Requests answered.
    pub requests: u64,
    /// Batches appended.
    pub batches: u64,
    /// Batches refused.
    pub batches_refused: u64,
    /// Time that clients were told to wait because they had used up their quota, in microseconds.
    pub quota_throttled_us: u64,
    /// Time that producers were told to wait because the log waits for its object store, in microseconds.
    pub pressure_throttled_us: u64,
    /// Fetch sessions that are open.
    pub fetch_sessions: usize,
    /// Partitions in them.
    pub fetch_session_partitions: usize,
    /// Fetch sessions whose room was needed for others.
    pub fetch_sessions_evicted: u64,
    /// Time that connections were not read because too many bytes of requests were in memory, in microseconds.
    pub throttled_us: u64,
}

/// The broker; cheap to clone.
#[derive(Debug, Clone)]
pub struct Broker {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) options: BrokerOptions,
    pub(crate) log: Log,
    pub(crate) clock: Clock,
    /// The hour, for what forgets by age.
    pub(crate) settled: Settled,
    pub(crate) entropy: Entropy,
    pub(crate) topics: Catalogue,
    pub(crate) access: Access,
    pub(crate) quotas: Quotas,
    pub(crate) resources: Resources,
    pub(crate) telemetry: Telemetry,
    pub(crate) successor: Successor,
    pub(crate) pressure: Pressure,
    pub(crate) groups: Coordinator,
    pub(crate) fetch_sessions: FetchSessions,
    pub(crate) transactions: Transactions,
    pub(crate) shares: Shares,
    pub(crate) counters: Counters,
    /// Bytes of requests that are being read or answered.
    pub(crate) requests_budget: Budget,
    /// Bytes of answers that are being made or written.
    pub(crate) answers_budget: Budget,
    /// Of these, what may wait for the store: the rest is for those who read at the end.
    pub(crate) stored_budget: Budget,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections: AtomicU64,
    pub(crate) connections_behind: AtomicU64,
    pub(crate) connections_refused: AtomicU64,
    pub(crate) requests: AtomicU64,
    batches: AtomicU64,
    batches_refused: AtomicU64,
}

/// A batch that passed every check: the only thing that [`Broker::append`] takes.
#[derive(Debug)]
pub(crate) struct Admitted {
    entry: Append,
    /// The broker's time, where the topic wants that in place of the producer's.
    append_time_ms: Option<i64>,
    /// Where it goes, if it belongs to a transaction.
    place: Option<Place>,
    /// Bytes that it has more than what came, because its topic wants it packed otherwise.
    grown: usize,
}

impl Admitted {
    pub(crate) const fn grown(&self) -> usize {
        self.grown
    }

    pub(crate) const fn append_time_ms(&self) -> Option<i64> {
        self.append_time_ms
    }

    /// Where it goes, if it belongs to a transaction.
    pub(crate) const fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    /// Producer id and epoch.
    pub(crate) fn producer(&self) -> (i64, i16) {
        self.entry.producer.map_or((-1, -1), |mark| (mark.id.get(), mark.epoch.get()))
    }
}

impl Broker {
    /// Reads topics, groups and offsets back from the log. The log's `stamp` option must be [`batch::stamp`].
    pub async fn open(options: BrokerOptions, log: Log, clock: Clock, entropy: Entropy) -> Result<Self, OpenError> {
        let failed = |error: &dyn std::fmt::Display| OpenError { reason: error.to_string() };
        log.compact_with(Arc::new(batch::RecordKeys));
        let topics =
            Catalogue::open(log.clone(), &options, clock.clone(), entropy.clone()).await.map_err(|e| failed(&e))?;
        let access = Access::open(&topics, options.authorization, &entropy).await.map_err(|e| failed(&e))?;
        let quotas = Quotas::open(topics.take_quotas()).map_err(|e| failed(&e))?;
        let paces = Paces::default();
        let resources = Resources::open(topics.take_resources(), paces.clone()).map_err(|e| failed(&e))?;
        let offsets = match topics.get(OFFSETS_TOPIC) {
            Some(topic) => topic,
            None => {
                let given = [("cleanup.policy".to_owned(), "compact".to_owned())].into();
                let configs = TopicConfigs::new(given).map_err(|e| failed(&e))?;
                let created = topics.create(OFFSETS_TOPIC, options.offsets_partitions.max(1), configs).await;
                created.map_err(|e| failed(&e))?
            }
        };
        let limits = &options.limits;
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let limits = GroupLimits {
            session_timeout_ms_min: millis(limits.session_timeout_min),
            session_timeout_ms_max: millis(limits.session_timeout_max),
            initial_delay_ms: millis(limits.initial_rebalance_delay),
            groups_max: limits.groups_max,
            members_max: limits.members_max,
            group_bytes_max: limits.group_bytes_max,
            groups_bytes_max: limits.groups_bytes_max,
            offsets_bytes_max: limits.offsets_bytes_max,
            offsets_kept_ms: options.offsets_retention.map(millis),
            offsets_look_ms: millis(options.offsets_look_interval),
            consumer_session_ms: millis(limits.consumer_session_timeout),
            consumer_interval_ms: millis(limits.consumer_heartbeat_interval),
            paces: paces.clone(),
        };
        let settled = Settled::new(clock.clone());
        let (sight, time) = (topics.sight(), (clock.clone(), settled.clone()));
        let opened = Coordinator::open(log.clone(), offsets.id, offsets.partitions, limits, time, sight).await;
        let groups = opened.map_err(|e| failed(&e))?;
        // A crash may have come between the end of a topic and that of its offsets.
        let gone = groups.forget_topics(|topic| topics.get(topic).is_none()).await;
        gone.map_err(|_| failed(&"offsets of deleted topics cannot be forgotten"))?;
        let transactions = Transactions::open(&log, &clock, topics.get(STATE_TOPIC).as_deref()).await;
        let transactions = transactions.map_err(|e| failed(&e))?;
        let shares = Shares::open(&log, topics.get(share::STATE_TOPIC).as_deref()).await.map_err(|e| failed(&e))?;
        let counters = Counters::default();
        let limits = &options.limits;
        let requests_bytes = limits.requests_bytes_max.max(limits.request_bytes_max);
        let requests_budget = Budget::new(requests_bytes, limits.bytes_wait_max);
        let answers_budget = Budget::new(limits.answers_bytes_max, limits.bytes_wait_max);
        let stored_budget = Budget::new(limits.answers_bytes_max / 2, limits.bytes_wait_max);
        let (sessions, partitions) = (limits.fetch_sessions_max, limits.fetch_session_partitions_max);
        let fetch_sessions = FetchSessions::new(sessions, partitions, entropy.clone());
        let inner = Inner {
            options,
            log,
            clock,
            settled,
            entropy,
            topics,
            access,
            quotas,
            resources,
            telemetry: Telemetry::default(),
            successor: Successor::default(),
            pressure: Pressure::default(),
            groups,
            transactions,
            shares,
            fetch_sessions,
            counters,
            requests_budget,
            answers_budget,
            stored_budget,
        };
        let broker = Self { inner: Arc::new(inner) };
        let gone = broker.share_forget_topics().await;
        gone.map_err(|_| failed(&"what share groups did with deleted topics cannot be forgotten"))?;
        broker.watch_transactions();
        Ok(broker)
    }

    /// Creates a topic, as CreateTopics does.
    pub async fn create_topic(&self, who: &Principal, spec: TopicSpec) -> Result<TopicDescription, TopicError> {
        let (partitions, configs) = self.check_topic(who, &spec)?;
        let created = self.inner.topics.create(&spec.name, partitions, configs).await;
        created.map(|topic| describe(&topic)).map_err(TopicError::from)
    }

    /// What [`create_topic`](Self::create_topic) would refuse, without creating.
    pub(crate) fn check_topic(&self, who: &Principal, spec: &TopicSpec) -> Result<(u32, TopicConfigs), TopicError> {
        let limits = &self.inner.options.limits;
        let name = &spec.name;
        if !is_topic_name(name) {
            return Err(TopicError::Name { name: name.clone() });
        }
        self.may_change(who, name)?;
        if [STATE_TOPIC, share::STATE_TOPIC].contains(&name.as_str()) && *who != Principal::Internal {
            return Err(TopicError::Denied { prefix: name.clone() });
        }
        if self.inner.topics.get(name).is_some() {
            return Err(TopicError::Exists { name: name.clone() });
        }
        // What Cairn itself makes must not fail because a guest was quicker.
        if *who != Principal::Internal
            && let Some(other) = self.inner.topics.colliding(name)
        {
            return Err(TopicError::Collides { name: name.clone(), other });
        }
        if self.inner.topics.len() >= limits.topics_max {
            return Err(TopicError::TooMany { most: limits.topics_max });
        }
        let partitions = spec.partitions.unwrap_or(self.inner.options.default_partitions);
        if partitions < 1 || partitions > limits.partitions_max {
            return Err(TopicError::Partitions { partitions, most: limits.partitions_max });
        }
        if self.inner.topics.partitions() + partitions as usize > limits.all_partitions_max {
            return Err(TopicError::TooManyPartitions { asked: partitions, most: limits.all_partitions_max });
        }
        let configs = TopicConfigs::new(spec.configs.clone()).map_err(|reason| TopicError::Config { reason })?;
        Ok((partitions, configs.over(self.inner.topics.defaults_of(&spec.name))))
    }

    /// Deletes a topic and all it holds, as DeleteTopics does.
    pub async fn delete_topic(&self, who: &Principal, name: &str) -> Result<(), TopicError> {
        let topic = self.may_alter(who, name)?;
        self.inner.topics.delete(&topic).await.map_err(TopicError::from)?;
        let forgotten = self.inner.groups.forget_topics(|topic| topic == name).await;
        let of_shares = self.share_forget_topics().await;
        forgotten
            .and(of_shares)
            .map_err(|_| TopicError::Storage { reason: "its committed offsets stay until the next start".to_owned() })
    }

    /// The topic of that name.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<TopicDescription> {
        self.inner.topics.get(name).map(|topic| describe(&topic))
    }

    /// All topics, in order of name.
    #[must_use]
    pub fn topics(&self) -> Vec<TopicDescription> {
        self.inner.topics.all().iter().map(|topic| describe(topic)).collect()
    }

    /// Ends the coordinator and closes the log. The log's folder may be opened again once every clone is dropped too.
    pub async fn close(self) {
        self.inner.groups.close().await;
        self.inner.log.close().await;
    }

    /// What clients told of themselves last (KIP-714).
    #[must_use]
    pub fn client_metrics(&self) -> ClientMetrics {
        self.inner.telemetry.metrics(Instant::now())
    }

    /// The log below, for its bounds and statistics.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.inner.log
    }

    /// Appends one batch; returns the offset of its first record once it is durable. A batch that a producer sends
    /// twice is stored once, and the first offset is returned again.
    pub async fn produce(
        &self,
        who: &Principal,
        topic: &str,
        partition: PartitionIndex,
        batch: BytesMut,
    ) -> Result<Offset, ProduceError> {
        let index = i32::try_from(partition.get()).unwrap_or(i32::MAX);
        let unknown = || ProduceError::UnknownPartition { topic: topic.to_owned(), partition: index };
        let found = self.inner.topics.get(topic).ok_or_else(unknown)?;
        let admitted = self.admit(who, &found, index, batch)?;
        if admitted.place.is_some() {
            return Err(ProduceError::Transactional);
        }
        let room = if *who == Principal::Internal { Room::Own } else { Room::Guest };
        let mut results = self.append(vec![admitted], room).await;
        results.pop().expect("one result for one batch").map(|appended| appended.base_offset)
    }

    /// Checks everything that can be checked before the log orders the batch.
    pub(crate) fn admit(
        &self,
        who: &Principal,
        topic: &Topic,
        partition: i32,
        mut bytes: BytesMut,
    ) -> Result<Admitted, ProduceError> {
        let count_refused = |_: &ProduceError| {
            self.inner.counters.batches_refused.fetch_add(1, Ordering::Relaxed);
        };
        let checked = self.check_batch(who, topic, partition, &bytes);
        let (stream, checked) = checked.inspect_err(count_refused)?;
        let mut header = checked.header;
        let mut grown = 0;
        if let Some(packed) = self.repack(topic, &bytes, &header).inspect_err(count_refused)? {
            header = batch::BatchHeader::parse(&packed)?;
            grown = packed.len().saturating_sub(bytes.len());
            bytes = packed;
        }
        let append_time_ms = topic.configs.is_append_time().then(|| self.inner.clock.now().as_millis());
        if let Some(now_ms) = append_time_ms {
            batch::stamp_append_time(&mut bytes, &header, now_ms);
        } else if checked.newest_ms != header.max_timestamp {
            // Retention and the search by time go by this field: it says what the records say, as with Kafka.
            batch::stamp_max_timestamp(&mut bytes, &header, checked.newest_ms);
        }
        let max_timestamp = append_time_ms.unwrap_or(checked.newest_ms);
        let producer = (header.producer_id >= 0).then(|| ProducerMark {
            id: ProducerId::new(header.producer_id),
            epoch: ProducerEpoch::new(header.producer_epoch),
            first_sequence: Sequence::new(header.base_sequence),
        });
        let records = u32::try_from(header.record_count).ok().and_then(NonZeroU32::new);
        let records = records.expect("the batch was checked to hold at least one record");
        let place = header.is_transactional().then(|| (topic.name.clone(), partition));
        let transaction = if place.is_some() { InTransaction::Yes } else { InTransaction::No };
        let entry = Append { stream, records, max_timestamp, producer, transaction, bytes };
        Ok(Admitted { entry, append_time_ms, place, grown })
    }

    fn check_batch(
        &self,
        who: &Principal,
        topic: &Topic,
        partition: i32,
        bytes: &[u8],
    ) -> Result<(StreamId, batch::Checked), ProduceError> {
        let limits = &self.inner.options.limits;
        if !self.may_write(who, &topic.name) || (topic.is_internal() && *who != Principal::Internal) {
            return Err(ProduceError::Denied { topic: topic.name.clone() });
        }
        let unknown = || ProduceError::UnknownPartition { topic: topic.name.clone(), partition };
        let stream = topic.stream(partition).ok_or_else(unknown)?;
        let most = topic.configs.message_bytes_max(limits.message_bytes_max);
        if bytes.len() > most {
            return Err(ProduceError::TooLarge { bytes: bytes.len(), most });
        }
        let checked = batch::check(bytes, topic.configs.is_compacted(), limits.unpacked_bytes_max)?;
        let header = &checked.header;
        if header.is_append_time() {
            return Err(BatchError::Header { what: "only brokers set the append time" }.into());
        }
        if header.is_control() {
            return Err(ProduceError::Control);
        }
        // Who reads these within the process reads all that there is.
        if header.is_transactional() && (self.is_protected(&topic.name) || header.producer_id < 0) {
            return Err(ProduceError::Transactional);
        }
        if !topic.configs.is_append_time() {
            self.check_time(topic, &checked, bytes)?;
        }
        Ok((stream, checked))
    }

    /// The batch as its topic wants it packed, unless it is so already. What it comes to is limited as what came.
    fn repack(
        &self,
        topic: &Topic,
        bytes: &[u8],
        header: &batch::BatchHeader,
    ) -> Result<Option<BytesMut>, ProduceError> {
        let Some(packing) = topic.configs.packing() else { return Ok(None) };
        let limits = &self.inner.options.limits;
        let packed = batch::repack(bytes, header, packing, limits.unpacked_bytes_max)?;
        let most = topic.configs.message_bytes_max(limits.message_bytes_max);
        match &packed {
            Some(packed) if packed.len() > most => Err(ProduceError::TooLarge { bytes: packed.len(), most }),
            _ => Ok(packed),
        }
    }

    fn check_time(&self, topic: &Topic, checked: &batch::Checked, bytes: &[u8]) -> Result<(), ProduceError> {
        let now_ms = self.inner.clock.now().as_millis();
        let (before, after) = topic.configs.timestamp_limits();
        let span = (now_ms.saturating_sub(before), now_ms.saturating_add(after));
        // -1 says that a record has none.
        let oldest = checked.oldest_ms.filter(|oldest| *oldest < span.0);
        let newest = Some(checked.newest_ms).filter(|newest| *newest > span.1);
        let (timestamp, config) = match (oldest, newest) {
            (Some(oldest), _) => (oldest, "message.timestamp.before.max.ms"),
            (None, Some(newest)) => (newest, "message.timestamp.after.max.ms"),
            (None, None) => return Ok(()),
        };
        let records = batch::out_of_time(bytes, span, self.inner.options.limits.unpacked_bytes_max);
        Err(ProduceError::Timestamp { timestamp, config, records })
    }

    /// Appends what was admitted, in order, in one group; one result each.
    pub(crate) async fn append(&self, admitted: Vec<Admitted>, room: Room) -> Vec<Result<Appended, ProduceError>> {
        self.append_behind(None, admitted, room, &mut Turn::none()).await
    }

    /// The same behind an entry of the broker's own, all in one frame. Where that entry is not stored, nothing is.
    pub(crate) async fn append_behind(
        &self,
        own: Option<Append>,
        admitted: Vec<Admitted>,
        room: Room,
        turn: &mut Turn,
    ) -> Vec<Result<Appended, ProduceError>> {
        let (count, has_own) = (admitted.len(), own.is_some());
        if count == 0 && !has_own {
            return Vec::new();
        }
        let entries = own.into_iter().chain(admitted.into_iter().map(|admitted| admitted.entry)).collect();
        let queued = self.inner.log.enqueue(entries, room).await;
        turn.pass();
        let appended = match queued {
            Ok(queued) => queued.durable().await,
            Err(error) => Err(error),
        };
        match appended {
            Ok(mut results) => {
                if has_own {
                    drop(results.remove(0)); // the broker's own streams take what they are given
                }
                let stored = results.iter().filter(|result| result.is_ok()).count() as u64;
                self.inner.counters.batches.fetch_add(stored, Ordering::Relaxed);
                self.inner.counters.batches_refused.fetch_add(count as u64 - stored, Ordering::Relaxed);
                results.into_iter().map(|result| result.map_err(ProduceError::Append)).collect()
            }
            Err(error) => {
                self.inner.counters.batches_refused.fetch_add(count as u64, Ordering::Relaxed);
                (0..count).map(|_| Err(ProduceError::Append(error.clone()))).collect()
            }
        }
    }

    /// Reads whole batches from `from` on: at least one if there is any, else waits up to `wait` for one.
    pub async fn fetch(
        &self,
        topic: &str,
        partition: PartitionIndex,
        from: Offset,
        max_bytes: usize,
        wait: Duration,
    ) -> Result<Fetched, FetchError> {
        let index = i32::try_from(partition.get()).unwrap_or(i32::MAX);
        let unknown = || FetchError::UnknownPartition { topic: topic.to_owned(), partition: index };
        let stream = self.inner.topics.get(topic).and_then(|topic| topic.stream(index)).ok_or_else(unknown)?;
        let deadline = Instant::now() + wait;
        let mut ends = self.inner.log.watch(stream)?;
        loop {
            // Marked as seen before the read, so that an advance between the two still wakes us.
            ends.borrow_and_update();
            let fetched = self.read(stream, from, max_bytes, Isolation::Durable).await?;
            if !fetched.batches.is_empty() || Instant::now() >= deadline {
                return Ok(fetched);
            }
            if !matches!(tokio::time::timeout_at(deadline, ends.changed()).await, Ok(Ok(()))) {
                return self.read(stream, from, max_bytes, Isolation::Durable).await;
            }
        }
    }

    /// Reads what there is now.
    pub(crate) async fn read(
        &self,
        stream: StreamId,
        from: Offset,
        max_bytes: usize,
        isolation: Isolation,
    ) -> Result<Fetched, FetchError> {
        let nothing = self.read_nothing(stream, from)?;
        if from == nothing.high_watermark {
            return Ok(nothing);
        }
        let read = self.inner.log.read_isolated(stream, from, max_bytes, isolation).await?;
        Ok(Fetched {
            batches: read.batches,
            high_watermark: read.durable_end,
            stable_end: read.stable_end,
            aborted: read.aborted,
            log_start: read.log_start,
        })
    }

    /// Checks that `from` is an offset of the partition, and says where it begins and ends.
    pub(crate) fn read_nothing(&self, stream: StreamId, from: Offset) -> Result<Fetched, FetchError> {
        let bounds = self.inner.log.bounds(stream)?;
        if from < bounds.log_start || from > bounds.durable_end {
            let (log_start, end) = (bounds.log_start.get(), bounds.durable_end.get());
            return Err(FetchError::OutOfRange { asked: from.get(), log_start, end });
        }
        Ok(Fetched {
            batches: Vec::new(),
            high_watermark: bounds.durable_end,
            stable_end: bounds.stable_end,
            aborted: Vec::new(),
            log_start: bounds.log_start,
        })
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> BrokerStats {
        let counters = &self.inner.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let fetch_sessions = self.inner.fetch_sessions.stats();
        BrokerStats {
            topics: self.inner.topics.len(),
            connections: read(&counters.connections),
            connections_behind: read(&counters.connections_behind),
            connections_refused: read(&counters.connections_refused),
            requests: read(&counters.requests),
            batches: read(&counters.batches),
            batches_refused: read(&counters.batches_refused),
            quota_throttled_us: self.inner.quotas.throttled_us(),
            pressure_throttled_us: self.inner.pressure.waited_us(),
            fetch_sessions: fetch_sessions.sessions,
            fetch_session_partitions: fetch_sessions.partitions,
            fetch_sessions_evicted: fetch_sessions.evicted,
            throttled_us: self.inner.requests_budget.waited_us(),
        }
    }

    /// Whether `who` may write, create, alter or delete a topic of this name.
    pub(crate) fn may_write(&self, who: &Principal, topic: &str) -> bool {
        let options = &self.inner.options;
        match who {
            Principal::Internal => true,
            _ if !self.is_protected(topic) => true,
            Principal::User(user) => options.users.writes_protected(user),
            Principal::Guest(_) | Principal::Anonymous => false,
        }
    }

    /// Whether a topic is one of those that only some may write: by its own name, or a tenant's behind the tenant's name.
    pub(crate) fn is_protected(&self, topic: &str) -> bool {
        crate::topics::is_protected(topic, &self.inner.options.protected_prefix)
    }

    pub(crate) fn may_change(&self, who: &Principal, topic: &str) -> Result<(), TopicError> {
        let prefix = self.inner.options.protected_prefix.clone();
        if self.may_write(who, topic) { Ok(()) } else { Err(TopicError::Denied { prefix }) }
    }
}

fn describe(topic: &Topic) -> TopicDescription {
    TopicDescription {
        name: topic.name.clone(),
        id: topic.id,
        partitions: topic.partitions,
        configs: topic.configs.given().clone(),
    }
}
