//! Reading the trail by the Kafka protocol, on any backbone: what `cairn tail`, `cairn trail` and others stand on.
//!
//! Partitions are assigned by hand, without a group, so that reading leaves nothing behind on the cluster.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, HashMap},
    io::Write,
    iter::once,
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use bytes::Bytes;
use cairn_contract::{StoredEvent, Topic};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::Headers,
};

use crate::{
    config::{BackboneKind, Config},
    ending::Ending,
    folder::{self, KafkaProtocol},
    path, say,
    trust::{TrustArguments, kafka_properties},
};

/// Where the embedded log listens by default.
const DEFAULT_ADDRESS: &str = "127.0.0.1:9092";
/// How long a cluster may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long it is waited for a record before it is looked whether there is one.
const LOOK_AFTER: Duration = Duration::from_millis(200);
/// Stretches of more records than this are read ahead.
const AHEAD_FROM: i64 = 5_000;

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
    /// The data folder whose audit database may know where events lie.
    #[cfg_attr(not(feature = "audit"), allow(dead_code, reason = "without a database nothing knows"))]
    pub(crate) data: Option<PathBuf>,
}

impl Source {
    /// An address that wants no properties, such as the embedded log's.
    pub(crate) fn plain(bootstrap: impl Into<String>) -> Self {
        Self { bootstrap: bootstrap.into(), properties: BTreeMap::new(), data: None }
    }

    /// The bootstrap address: given, else the configuration's, else that of the running `up`, else the default. Properties
    /// are those of the configuration that is named, else of the one that the running `up` was started with.
    pub(crate) fn find(
        bootstrap: Option<String>,
        config: Option<&Path>,
        data: Option<PathBuf>,
        trust: &TrustArguments,
    ) -> anyhow::Result<Self> {
        let folder = data.map_or_else(|| folder::default_path().ok(), Some);
        if let Some(path) = config {
            let section = Config::read_backbone(path)?;
            if section.kind == BackboneKind::Kafka {
                let bootstrap = bootstrap.or_else(|| section.bootstrap.clone()).with_context(|| {
                    format!("{}: backbone.kind = \"kafka\" wants backbone.bootstrap", path.display())
                })?;
                return Ok(Self { bootstrap, properties: section.properties(), data: folder });
            }
        }
        // Whoever names an authority means TLS.
        let given = if trust.ca.is_some() { kafka_properties(&trust.with(None)) } else { BTreeMap::new() };
        if let Some(bootstrap) = bootstrap {
            return Ok(Self { bootstrap, properties: given, data: folder });
        }
        let Some(running) = folder.as_deref().and_then(folder::endpoints) else {
            return Ok(Self { bootstrap: DEFAULT_ADDRESS.to_owned(), properties: given, data: folder });
        };
        let properties = match &running.cluster_config {
            Some(path) => Config::read_backbone(path)?.properties(),
            None if running.kafka_protocol == Some(KafkaProtocol::Ssl) => {
                kafka_properties(&trust.with(Some(&running.commands)))
            }
            None => BTreeMap::new(),
        };
        Ok(Self { bootstrap: running.kafka, properties, data: folder })
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

/// A consumer without a group; where much is read it fetches ahead.
fn consumer(source: &Source, is_much: bool) -> anyhow::Result<BaseConsumer> {
    let mut config = cairn_backbone::kafka::client_config(&source.bootstrap, &source.properties)?;
    config
        .set("group.id", "cairn-read")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "false")
        .set("fetch.wait.max.ms", if is_much { "100" } else { "5" })
        .set("topic.metadata.refresh.fast.interval.ms", "5")
        .set("log_level", "3");
    if !is_much {
        config
            .set("queued.min.messages", "1")
            .set("fetch.queue.backoff.ms", "1")
            .set("fetch.message.max.bytes", "131072");
    }
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
    let mut all = TopicPartitionList::new();
    for topic in metadata.topics().iter().filter(|topic| Topic::of_anybody(topic.name()).is_some()) {
        for partition in topic.partitions() {
            all.add_partition(topic.name(), partition.id());
        }
    }
    if all.count() == 0 {
        bail!("the broker at {bootstrap} has none of Cairn's topics: has a gateway written to it yet?");
    }
    // One question for all of them: a trail has dozens.
    let at = |offset| -> anyhow::Result<HashMap<(String, i32), i64>> {
        let mut list = all.clone();
        list.set_all_offsets(offset)?;
        let found = consumer.offsets_for_times(list, ANSWER_MAX).context("cannot ask for the offsets of the trail")?;
        let mut offsets = HashMap::new();
        for element in found.elements() {
            element.error().with_context(|| format!("cannot ask for the offsets of {}", element.topic()))?;
            let offset = element.offset().to_raw().unwrap_or_default();
            offsets.insert((element.topic().to_owned(), element.partition()), offset);
        }
        Ok(offsets)
    };
    let (lows, highs) = (at(Offset::Beginning)?, at(Offset::End)?);
    let mut found: Vec<_> = lows
        .into_iter()
        .filter_map(|(place, low)| highs.get(&place).map(|high| (place.0.clone(), place.1, low, *high)))
        .collect();
    found.sort();
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
pub(crate) fn class(topic: &str) -> &str {
    match Topic::of_anybody(topic) {
        Some(class) => class.name(),
        None => topic,
    }
}

/// Reads what is in the topics that are wanted now, in the order of each partition.
pub(crate) fn all_in(source: &Source, wanted: impl Fn(&str) -> bool) -> anyhow::Result<Vec<Placed>> {
    Reading::open(source)?.all_in(wanted)
}

/// A partition with its first and next offset.
pub(crate) type Bounds = (String, i32, i64, i64);

/// What is read of each partition: stretches of offsets, in order.
pub(crate) type Stretches = BTreeMap<(String, i32), Vec<Range<i64>>>;

/// The trail as it was when it was opened, for reading one part of it after another.
pub(crate) struct Reading<'s> {
    pub(crate) source: &'s Source,
    /// Every partition of the trail's topics.
    pub(crate) bounds: Vec<Bounds>,
    /// Fetches little at a time.
    few: BaseConsumer,
    /// Fetches ahead; made where it is needed.
    many: OnceCell<BaseConsumer>,
}

impl<'s> Reading<'s> {
    pub(crate) fn open(source: &'s Source) -> anyhow::Result<Self> {
        let few = consumer(source, false)?;
        let bounds = partitions(&few, source)?;
        Ok(Self { source, bounds, few, many: OnceCell::new() })
    }

    /// All of the topics that are wanted.
    pub(crate) fn all_in(&self, wanted: impl Fn(&str) -> bool) -> anyhow::Result<Vec<Placed>> {
        self.newest_in(wanted, i64::MAX)
    }

    /// The newest events of the topics that are wanted, at most so many of each partition.
    pub(crate) fn newest_in(&self, wanted: impl Fn(&str) -> bool, newest: i64) -> anyhow::Result<Vec<Placed>> {
        let last = |(topic, partition, low, high): &Bounds| {
            let from = high.saturating_sub(newest).max(*low);
            ((topic.clone(), *partition), once(from..*high).collect())
        };
        self.stretches(self.bounds.iter().filter(|(topic, ..)| wanted(topic)).map(last).collect())
    }

    /// Reads these stretches, those of one partition one after another, those of several at once.
    pub(crate) fn stretches(&self, mut wanted: Stretches) -> anyhow::Result<Vec<Placed>> {
        let length = |stretch: &Range<i64>| stretch.end - stretch.start;
        wanted.values_mut().for_each(|stretches| stretches.retain(|stretch| length(stretch) > 0));
        let most = wanted.values().flatten().map(length).max().unwrap_or_default();
        let consumer = if most > AHEAD_FROM {
            match self.many.get() {
                Some(consumer) => consumer,
                None => {
                    let made = consumer(self.source, true)?;
                    self.many.get_or_init(|| made)
                }
            }
        } else {
            &self.few
        };
        let rounds = wanted.values().map(Vec::len).max().unwrap_or_default();
        let mut events = Vec::new();
        for round in 0..rounds {
            let mut left: HashMap<(String, i32), i64> = HashMap::new();
            let mut assignment = TopicPartitionList::new();
            for (place, stretches) in &wanted {
                let Some(stretch) = stretches.get(round) else { continue };
                assignment.add_partition_offset(&place.0, place.1, Offset::Offset(stretch.start))?;
                left.insert(place.clone(), stretch.end);
            }
            consumer.assign(&assignment)?;
            read_to_ends(consumer, self.source, left, &mut events)?;
        }
        consumer.unassign()?;
        Ok(events)
    }
}

/// Reads what is assigned until each partition has come to its end.
fn read_to_ends(
    consumer: &BaseConsumer,
    source: &Source,
    mut left: HashMap<(String, i32), i64>,
    events: &mut Vec<Placed>,
) -> anyhow::Result<()> {
    let mut waited = Duration::ZERO;
    while !left.is_empty() {
        let Some(message) = consumer.poll(LOOK_AFTER) else {
            // What lies last may be no record: the end of a transaction, or compacted.
            let stands = consumer.position()?;
            let at = |place: &(String, i32)| stands.find_partition(&place.0, place.1)?.offset().to_raw();
            left.retain(|place, end| at(place).is_none_or(|at| at < *end));
            waited += LOOK_AFTER;
            if waited >= ANSWER_MAX && !left.is_empty() {
                bail!("the broker at {} stopped answering in the middle of the trail", source.bootstrap);
            }
            continue;
        };
        waited = Duration::ZERO;
        let message = message.map_err(|error| unanswered(source, error))?;
        let key = (message.topic().to_owned(), message.partition());
        let Some(end) = left.get(&key).copied() else { continue };
        if message.offset() < end {
            events.extend(placed(&message));
        }
        if message.offset() + 1 >= end {
            left.remove(&key);
        }
    }
    Ok(())
}

/// Prints events, until interrupted, or the end where that is wanted, or `count` are printed.
pub(crate) fn tail(source: &Source, wanted: &Wanted) -> anyhow::Result<()> {
    let consumer = consumer(source, true)?;
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
