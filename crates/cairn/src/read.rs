//! Reading the trail by the Kafka protocol: `cairn tail` and `cairn trail`, on any backbone.
//!
//! Partitions are assigned by hand, without a group, so that reading leaves nothing behind on the cluster.

use std::{
    collections::{BTreeMap, HashMap},
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use bytes::Bytes;
use cairn_contract::{StoredEvent, Topic, partition_for};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::Headers,
};
use serde_json::{Value, json};

use crate::{
    config::{BackboneKind, Config},
    ending::Ending,
    folder::{self, KafkaProtocol},
    path, say,
    trust::{TrustArguments, kafka_properties},
};

/// Where the embedded log listens by default.
/// Checkpoints that are looked at, from the newest back.
const CHECKPOINTS_MAX: i64 = 2_000;
const DEFAULT_ADDRESS: &str = "127.0.0.1:9092";
/// How long a cluster may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Workflows that `cairn trail` lists.
const WORKFLOWS_MAX: usize = 20;

/// One event with its place on the backbone.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) event: StoredEvent,
}

/// The cluster that is read, with what is needed to reach it.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) bootstrap: String,
    properties: BTreeMap<String, String>,
}

impl Source {
    /// An address that wants no properties, such as the embedded log's.
    pub(crate) fn plain(bootstrap: impl Into<String>) -> Self {
        Self { bootstrap: bootstrap.into(), properties: BTreeMap::new() }
    }

    /// The bootstrap address: given, else the configuration's, else that of the running `up`, else the default. Properties
    /// are those of the configuration that is named, else of the one that the running `up` was started with.
    pub(crate) fn find(
        bootstrap: Option<String>,
        config: Option<&Path>,
        data: Option<PathBuf>,
        trust: &TrustArguments,
    ) -> anyhow::Result<Self> {
        let running = || data.map_or_else(folder::default_path, Ok).map(|data| folder::endpoints(&data));
        if let Some(path) = config {
            let section = Config::read_backbone(path)?;
            if section.kind == BackboneKind::Kafka {
                let bootstrap = bootstrap.or_else(|| section.bootstrap.clone()).with_context(|| {
                    format!("{}: backbone.kind = \"kafka\" wants backbone.bootstrap", path.display())
                })?;
                return Ok(Self { bootstrap, properties: section.properties() });
            }
        }
        // Whoever names an authority means TLS.
        let given = if trust.ca.is_some() { kafka_properties(&trust.with(None)) } else { BTreeMap::new() };
        if let Some(bootstrap) = bootstrap {
            return Ok(Self { bootstrap, properties: given });
        }
        let Some(running) = running()? else {
            return Ok(Self { bootstrap: DEFAULT_ADDRESS.to_owned(), properties: given });
        };
        let properties = match &running.cluster_config {
            Some(path) => Config::read_backbone(path)?.properties(),
            None if running.kafka_protocol == Some(KafkaProtocol::Ssl) => {
                kafka_properties(&trust.with(Some(&running.commands)))
            }
            None => BTreeMap::new(),
        };
        Ok(Self { bootstrap: running.kafka, properties })
    }

    /// librdkafka's properties.
    pub(crate) const fn properties(&self) -> &BTreeMap<String, String> {
        &self.properties
    }

    /// A reader of raw records there.
    pub(crate) fn records(&self) -> anyhow::Result<cairn_backbone::records::Records> {
        Ok(cairn_backbone::records::Records::open(&self.bootstrap, &self.properties)?)
    }
}

fn consumer(source: &Source) -> anyhow::Result<BaseConsumer> {
    let mut config = cairn_backbone::kafka::client_config(&source.bootstrap, &source.properties)?;
    config
        .set("group.id", "cairn-read")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "false")
        .set("fetch.wait.max.ms", "100")
        .set("log_level", "3");
    config.create().context("cannot make a Kafka consumer")
}

/// Every partition of the trail's topics with its first and next offset.
fn partitions(consumer: &BaseConsumer, source: &Source) -> anyhow::Result<Vec<(String, i32, i64, i64)>> {
    let bootstrap = &source.bootstrap;
    let nobody = |error| {
        Ending::NobodyThere(format!(
            "no Kafka broker answers at {bootstrap}: start `cairn up`, or name another with --bootstrap ({error})"
        ))
    };
    let metadata = consumer.fetch_metadata(None, ANSWER_MAX).map_err(nobody)?;
    let mut found = Vec::new();
    for topic in metadata.topics().iter().filter(|topic| Topic::of_anybody(topic.name()).is_some()) {
        for partition in topic.partitions() {
            let (low, high) = consumer
                .fetch_watermarks(topic.name(), partition.id(), ANSWER_MAX)
                .with_context(|| format!("cannot ask for the offsets of {}", topic.name()))?;
            found.push((topic.name().to_owned(), partition.id(), low, high));
        }
    }
    if found.is_empty() {
        bail!("the broker at {bootstrap} has none of Cairn's topics: has a gateway written to it yet?");
    }
    Ok(found)
}

/// Whether only the connection failed.
fn is_transport(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, OperationTimedOut};
    matches!(error.rdkafka_error_code(), Some(BrokerTransportFailure | AllBrokersDown | OperationTimedOut))
}

/// An error of reading, in the words of whoever asked.
fn unanswered(source: &Source, error: KafkaError) -> anyhow::Error {
    if is_transport(&error) {
        let words = format!("the broker at {} does not answer any more: is `cairn up` still there?", source.bootstrap);
        return Ending::NobodyThere(words).into();
    }
    anyhow::Error::from(error).context(format!("cannot read from the broker at {}", source.bootstrap))
}

fn placed(message: &rdkafka::message::BorrowedMessage<'_>) -> Option<Placed> {
    let headers: Vec<(String, Bytes)> = message.headers().map(|headers| {
        headers.iter().map(|h| (h.key.to_owned(), Bytes::copy_from_slice(h.value.unwrap_or_default()))).collect()
    })?;
    let key = Bytes::copy_from_slice(message.key().unwrap_or_default());
    match StoredEvent::parse(key, &headers, message.payload().unwrap_or_default()) {
        Ok(event) => Some(Placed {
            topic: message.topic().to_owned(),
            partition: message.partition(),
            offset: message.offset(),
            event,
        }),
        Err(error) => {
            tracing::warn!(topic = message.topic(), offset = message.offset(), %error, "a record is no event of ours");
            None
        }
    }
}

/// The name of a topic without the tenant's.
fn class(topic: &str) -> &str {
    match Topic::of_anybody(topic) {
        Some(class) => class.name(),
        None => topic,
    }
}

/// Topics whose key is the workflow: all events of one workflow lie in one partition of each.
const BY_WORKFLOW: [&str; 5] = ["mcp.calls", "mcp.context", "mcp.sessions", "mcp.models", "mcp.actions"];

/// Reads what is in the trail now, in the order of each partition: all of it, or the partitions that may hold `workflow`.
pub(crate) fn all(source: &Source, workflow: Option<&str>) -> anyhow::Result<Vec<Placed>> {
    all_in(source, workflow, |_| true)
}

/// The same of the topics that are wanted.
pub(crate) fn all_in(
    source: &Source,
    workflow: Option<&str>,
    wanted: impl Fn(&str) -> bool,
) -> anyhow::Result<Vec<Placed>> {
    read_in(source, workflow, wanted, None)
}

/// The newest events of the topics that are wanted, at most so many of each partition.
fn newest_in(source: &Source, wanted: impl Fn(&str) -> bool, newest: i64) -> anyhow::Result<Vec<Placed>> {
    read_in(source, None, wanted, Some(newest))
}

fn read_in(
    source: &Source,
    workflow: Option<&str>,
    wanted: impl Fn(&str) -> bool,
    newest: Option<i64>,
) -> anyhow::Result<Vec<Placed>> {
    let consumer = consumer(source)?;
    let mut found = partitions(&consumer, source)?;
    found.retain(|(topic, ..)| wanted(topic));
    if let Some(newest) = newest {
        found.iter_mut().for_each(|(_, _, low, high)| *low = (*high - newest).max(*low));
    }
    if let Some(workflow) = workflow {
        let mut counts: HashMap<String, u32> = HashMap::new();
        found.iter().for_each(|(topic, ..)| *counts.entry(topic.clone()).or_default() += 1);
        found.retain(|(topic, partition, ..)| {
            let holds = || partition_for(workflow.as_bytes(), counts[topic]);
            !BY_WORKFLOW.contains(&class(topic)) || u32::try_from(*partition) == Ok(holds())
        });
    }
    let mut assignment = TopicPartitionList::new();
    let mut left: HashMap<(String, i32), i64> = HashMap::new();
    for (topic, partition, low, high) in found {
        if high > low {
            assignment.add_partition_offset(&topic, partition, Offset::Offset(low))?;
            left.insert((topic, partition), high);
        }
    }
    let mut events = Vec::new();
    if left.is_empty() {
        return Ok(events);
    }
    consumer.assign(&assignment)?;
    while !left.is_empty() {
        let polled = consumer.poll(ANSWER_MAX).context("the broker stopped answering in the middle of the trail")?;
        let message = polled.map_err(|error| unanswered(source, error))?;
        let key = (message.topic().to_owned(), message.partition());
        let done = left.get(&key).is_some_and(|end| message.offset() + 1 >= *end);
        events.extend(placed(&message));
        if done {
            left.remove(&key);
        }
    }
    consumer.unassign()?;
    Ok(events)
}

/// Prints events, until interrupted, or the end where that is wanted, or `count` are printed.
pub(crate) fn tail(source: &Source, wanted: &Wanted) -> anyhow::Result<()> {
    let consumer = consumer(source)?;
    let found = partitions(&consumer, source)?;
    let mut left: HashMap<(String, i32), i64> = HashMap::new();
    let mut assignment = TopicPartitionList::new();
    let begins = wanted.begins(&consumer, &found)?;
    for ((topic, partition, _, high), begin) in found.into_iter().zip(begins) {
        assignment.add_partition_offset(&topic, partition, Offset::Offset(begin))?;
        if begin < high {
            left.insert((topic, partition), high);
        }
    }
    consumer.assign(&assignment)?;
    let (mut printed, mut is_away) = (0, false);
    let mut out = std::io::stdout().lock();
    while wanted.count.is_none_or(|count| printed < count) && (wanted.follow || !left.is_empty()) {
        let Some(message) = consumer.poll(Duration::from_millis(500)) else { continue };
        let message = match message {
            // It comes back, and the reading goes on where it was.
            Err(error) if wanted.follow && is_transport(&error) => {
                if !std::mem::replace(&mut is_away, true) {
                    eprintln!("cairn: the broker at {} is away; waiting for it", source.bootstrap);
                }
                continue;
            }
            other => other.map_err(|error| unanswered(source, error))?,
        };
        is_away = false;
        let place = (message.topic().to_owned(), message.partition());
        let is_past = left.get(&place).is_none_or(|end| message.offset() >= *end);
        if left.get(&place).is_some_and(|end| message.offset() + 1 >= *end) {
            left.remove(&place);
        }
        let Some(placed) = placed(&message).filter(|placed| (wanted.follow || !is_past) && wanted.takes(placed)) else {
            continue;
        };
        let line = if wanted.json { path::json_of(&placed).to_string() } else { line_of(&placed) };
        // A closed pipe ends the reading, quietly.
        if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
            break;
        }
        printed += 1;
    }
    Ok(())
}

/// Which events `cairn tail` prints, and from where on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) from_start: bool,
    pub(crate) since_ms: Option<i64>,
    pub(crate) follow: bool,
    pub(crate) count: Option<u64>,
    pub(crate) server: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) workflow: Option<String>,
    pub(crate) json: bool,
}

impl Wanted {
    /// The offset that each partition is read from.
    fn begins(&self, consumer: &BaseConsumer, found: &[(String, i32, i64, i64)]) -> anyhow::Result<Vec<i64>> {
        let Some(since_ms) = self.since_ms.filter(|_| !self.from_start) else {
            let begin = |low: i64, high: i64| if self.from_start { low } else { high };
            return Ok(found.iter().map(|(_, _, low, high)| begin(*low, *high)).collect());
        };
        let mut times = TopicPartitionList::new();
        for (topic, partition, ..) in found {
            times.add_partition_offset(topic, *partition, Offset::Offset(since_ms))?;
        }
        let begins = consumer.offsets_for_times(times, ANSWER_MAX).context("cannot ask for the offsets of a time")?;
        let of = |topic: &str, partition| begins.find_partition(topic, partition).and_then(|at| at.offset().to_raw());
        // No record is that new: then only what comes from now on.
        Ok(found
            .iter()
            .map(|(topic, partition, _, high)| of(topic, *partition).filter(|at| *at >= 0).unwrap_or(*high))
            .collect())
    }

    fn takes(&self, placed: &Placed) -> bool {
        let is = |wanted: &Option<String>, key: &str| {
            wanted.as_deref().is_none_or(|wanted| path::text(placed, key) == Some(wanted))
        };
        // A word before the dot stands for all types that begin with it.
        let name = placed.event.type_name.as_str();
        let kind = self
            .kind
            .as_deref()
            .is_none_or(|kind| name == kind || name.strip_prefix(kind).is_some_and(|rest| rest.starts_with('.')));
        kind && is(&self.server, "server") && is(&self.workflow, "workflow_id")
    }
}

fn line_of(placed: &Placed) -> String {
    let subject = placed.event.subject.as_deref().unwrap_or_default();
    format!(
        "{}  {:<17} {:<28} {}  [{}]",
        placed.event.time,
        placed.event.type_name,
        say::plain(subject),
        say::plain(&path::words(placed, None)),
        path::place(placed)
    )
}

/// The newest workflows, one a line.
pub(crate) fn workflows(source: &Source, as_json: bool) -> anyhow::Result<String> {
    let mut found: BTreeMap<String, (String, usize, usize)> = BTreeMap::new();
    for placed in all(source, None)? {
        if class(&placed.topic) != "mcp.calls" {
            continue;
        }
        let entry = found.entry(placed.event.common.workflow_id.clone()).or_default();
        let time = placed.event.time.clone();
        if time > entry.0 {
            entry.0 = time;
        }
        entry.1 += usize::from(placed.event.type_name == "call.outcome");
        entry.2 += 1;
    }
    let mut newest: Vec<_> = found.into_iter().collect();
    newest.sort_by(|a, b| b.1.0.cmp(&a.1.0));
    newest.truncate(WORKFLOWS_MAX);
    if as_json {
        let list = newest.iter().map(
            |(id, (time, calls, events))| json!({ "workflow_id": id, "last": time, "calls": calls, "events": events }),
        );
        return Ok(Value::from(list.collect::<Vec<_>>()).to_string());
    }
    if newest.is_empty() {
        eprintln!("cairn: no workflows yet: nothing has been called through Cairn");
    }
    let many = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let lines = newest.iter().map(|(id, (time, calls, events))| {
        format!("{time}  {id}  {}, {}", many(*calls, "call"), many(*events, "event"))
    });
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// One workflow's decision path.
pub(crate) fn workflow(source: &Source, id: &str, shape: Shape) -> anyhow::Result<String> {
    let mut events: Vec<_> =
        all(source, Some(id))?.into_iter().filter(|placed| placed.event.common.workflow_id == id).collect();
    events.extend(models_of(source, id, &events)?);
    if events.is_empty() {
        let words = format!(
            "no event of workflow {id} is in the trail at {}: `cairn trail` lists recent workflows",
            source.bootstrap
        );
        return Err(Ending::NoSuch(words).into());
    }
    let signed = signed(source)?;
    Ok(match shape {
        Shape::Tree => path::tree(id, &events, &signed),
        Shape::Json => path::json(id, &events, &signed).to_string(),
        Shape::Page => path::page(id, &events, &signed),
    })
}

/// The model calls of a workflow's traces that were reported under the trace's own id, because nobody told the workflow's.
fn models_of(source: &Source, id: &str, events: &[Placed]) -> anyhow::Result<Vec<Placed>> {
    let traces = path::traces(events);
    if traces.iter().all(|(_, trace)| *trace == id) {
        return Ok(Vec::new());
    }
    let reports = all_in(source, None, |topic| class(topic) == "mcp.models")?;
    let is_of = |placed: &Placed| {
        let trace = path::text(placed, "trace_id").map(|trace| (path::text(placed, "tenant"), trace));
        placed.event.common.workflow_id != id
            && trace.is_some_and(|(tenant, trace)| {
                placed.event.common.workflow_id == trace && traces.contains(&(tenant, trace))
            })
    };
    Ok(reports.into_iter().filter(is_of).collect())
}

/// How far the partitions are covered, as the newest published checkpoints say.
fn signed(source: &Source) -> anyhow::Result<path::Signed> {
    let mut signed = path::Signed::default();
    for placed in newest_in(source, |topic| class(topic) == "mcp.checkpoints", CHECKPOINTS_MAX)? {
        let value = &placed.event.value;
        let of = |key: &str| value.get(key).and_then(Value::as_i64);
        if let (Some(topic), Some(partition), Some(next)) =
            (path::text(&placed, "topic"), of("partition"), of("offset_next"))
        {
            let place = (topic.to_owned(), i32::try_from(partition).unwrap_or(-1));
            let known = signed.0.entry(place).or_default();
            *known = next.max(*known);
        }
    }
    Ok(signed)
}

/// How a decision path is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    /// For people at a terminal.
    Tree,
    /// For machines.
    Json,
    /// As a page of its own.
    Page,
}
