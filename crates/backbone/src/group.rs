//! An ordinary Kafka consumer group, on the embedded log and on any cluster: what every consumer of Cairn's reads through.
//!
//! Where a consumer stands is its sink's to say: the group hands out partitions, the caller begins each where its sink is, and
//! what it commits is for lag tools alone. It blocks, and is called on threads that may. Memory is bounded by librdkafka's queue:
//! who is not asked for more does not fetch more. It must never commit what its caller did not ask it to, and never create a topic.

use std::{collections::BTreeMap, time::Duration};

use cairn_contract::Topic;
use parking_lot::Mutex;
use rdkafka::{
    ClientConfig, ClientContext, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext},
    error::KafkaError,
    types::{RDKafkaErrorCode, RDKafkaRespErr},
};
use uuid::Uuid;

use crate::{
    kafka::{client_config, reading},
    reader::{ReaderError, is_transient},
    records::{RawRecord, raw, topic_ids, topic_ids::Way},
};

const ASK_WITHIN: Duration = Duration::from_secs(10);
/// A look at the ends must not keep records waiting.
const LOOK_WITHIN: Duration = Duration::from_millis(500);
/// Records that wait in memory, in KiB.
const QUEUE_KIB_MAX: u32 = 8_192;
/// Every topic of Cairn's, common or a tenant's own.
const TOPICS: &str = r"^([A-Za-z0-9_-]+\.)?mcp\..*";

/// Which group, and where.
#[derive(Clone)]
pub struct GroupOptions {
    /// `host:port`, several with commas.
    pub bootstrap: String,
    /// librdkafka properties, as in [`crate::KafkaOptions`].
    pub properties: BTreeMap<String, String>,
    /// The group.
    pub group: String,
    /// Who this member is, at each start the same: it comes back to its partitions at once, and shuts a forerunner out.
    pub instance: String,
}

impl std::fmt::Debug for GroupOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupOptions")
            .field("bootstrap", &self.bootstrap)
            .field("group", &self.group)
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

/// A partition of a topic.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Place {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
}

/// What a group says.
#[derive(Debug)]
pub enum Heard {
    /// The next record.
    Record(RawRecord),
    /// These partitions are this member's from here on; nothing of them is read before [`Group::begin`].
    Assigned(Vec<Place>),
    /// No partition is this member's any more; what was read and not applied is somebody else's.
    Revoked,
    /// Nothing came in time.
    Nothing,
}

/// What the group's coordinator said since it was asked last.
#[derive(Default)]
struct Said {
    assigned: Option<Vec<Place>>,
    is_revoked: bool,
}

#[derive(Default)]
struct Watch(Mutex<Said>);

impl ClientContext for Watch {}

impl ConsumerContext for Watch {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let mut said = self.0.lock();
        if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            // The caller assigns them, where its sink stands.
            let place = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| Place {
                topic: element.topic().to_owned(),
                partition: element.partition().unsigned_abs(),
            };
            said.assigned = Some(list.elements().iter().map(place).collect());
        } else {
            said.assigned = None;
            said.is_revoked = true;
            if let Err(error) = consumer.unassign() {
                tracing::warn!(%error, "partitions could not be given back");
            }
        }
    }
}

/// A member of a group.
pub struct Group {
    consumer: BaseConsumer<Watch>,
    bootstrap: String,
    way: Option<Way>,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group").field("bootstrap", &self.bootstrap).finish_non_exhaustive()
    }
}

impl Group {
    /// Joins; partitions are told by [`Group::poll`].
    ///
    /// # Errors
    /// Properties that are wrong.
    pub fn join(options: &GroupOptions) -> Result<Self, ReaderError> {
        let mut config = grouped(&options.bootstrap, &options.properties, &options.group)?;
        config
            .set("group.instance.id", &options.instance)
            .set("session.timeout.ms", "30000")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "false")
            .set("queued.max.messages.kbytes", QUEUE_KIB_MAX.to_string())
            .set("queued.min.messages", "10000")
            .set("fetch.queue.backoff.ms", "10")
            .set("topic.metadata.refresh.interval.ms", "10000");
        let way = Way::of(&config);
        let failed = |source| ReaderError::Kafka { bootstrap: options.bootstrap.clone(), source };
        let consumer: BaseConsumer<Watch> = config.create_with_context(Watch::default()).map_err(failed)?;
        consumer.subscribe(&[TOPICS]).map_err(failed)?;
        Ok(Self { consumer, bootstrap: options.bootstrap.clone(), way })
    }

    /// What comes next; [`Heard::Nothing`] where nothing came within `wait`.
    ///
    /// # Errors
    /// A cluster that refuses, or another member of the same instance. A cluster that is away for a while is waited for.
    pub fn poll(&self, wait: Duration) -> Result<Heard, ReaderError> {
        if let Some(said) = self.said() {
            return Ok(said);
        }
        match self.consumer.poll(wait) {
            Some(Ok(message)) => return Ok(Heard::Record(raw(&message))),
            None | Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Err(source)) if source.rdkafka_error_code().is_some_and(passes) => {}
            Some(Err(source)) => return Err(self.failed(source)),
        }
        Ok(self.said().unwrap_or(Heard::Nothing))
    }

    fn said(&self) -> Option<Heard> {
        let mut said = self.consumer.context().0.lock();
        if std::mem::take(&mut said.is_revoked) {
            return Some(Heard::Revoked);
        }
        // A topic that only looks like one of Cairn's is nobody's.
        let ours = |places: Vec<Place>| places.into_iter().filter(|place| Topic::of_anybody(&place.topic).is_some());
        said.assigned.take().map(|places| Heard::Assigned(ours(places).collect()))
    }

    /// Reads these partitions from there on, and no others; where no offset is given, from the first record that is kept.
    ///
    /// # Errors
    /// librdkafka refuses the list.
    pub fn begin<'p>(&self, from: impl IntoIterator<Item = (&'p Place, Option<u64>)>) -> Result<(), ReaderError> {
        let mut list = TopicPartitionList::new();
        for (place, offset) in from {
            let offset = offset.map_or(Offset::Beginning, |at| Offset::Offset(i64::try_from(at).unwrap_or(i64::MAX)));
            list.add_partition_offset(&place.topic, place.partition as i32, offset)
                .map_err(|source| self.failed(source))?;
        }
        self.consumer.assign(&list).map_err(|source| self.failed(source))
    }

    /// Reads nothing of any partition until the next [`Group::begin`]; stays a member.
    ///
    /// # Errors
    /// librdkafka refuses.
    pub fn rest(&self) -> Result<(), ReaderError> {
        let assigned = self.consumer.assignment().map_err(|source| self.failed(source))?;
        self.consumer.pause(&assigned).map_err(|source| self.failed(source))
    }

    /// Undoes [`Group::rest`] for what [`Group::begin`] then assigns.
    ///
    /// # Errors
    /// librdkafka refuses.
    pub fn wake(&self) -> Result<(), ReaderError> {
        let assigned = self.consumer.assignment().map_err(|source| self.failed(source))?;
        self.consumer.resume(&assigned).map_err(|source| self.failed(source))
    }

    /// Tells the coordinator where this member stands; nobody waits for it, and nothing hangs on it.
    pub fn commit<'p>(&self, next: impl IntoIterator<Item = (&'p Place, u64)>, is_last: bool) {
        let mut list = TopicPartitionList::new();
        for (place, offset) in next {
            let offset = Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX));
            let _ = list.add_partition_offset(&place.topic, place.partition as i32, offset);
        }
        if list.count() == 0 {
            return;
        }
        let mode = if is_last { CommitMode::Sync } else { CommitMode::Async };
        if let Err(error) = self.consumer.commit(&list, mode) {
            tracing::debug!(%error, "the group's offsets could not be committed; the sink's count");
        }
    }

    /// Where the assigned partitions end now; `None` where the cluster does not say at once.
    #[must_use]
    pub fn ends(&self) -> Option<BTreeMap<Place, u64>> {
        let list = self.consumer.assignment().ok()?;
        ends(&self.consumer, list, LOOK_WITHIN).ok()
    }

    /// The first record of a partition that is kept, and the offset after its last.
    ///
    /// # Errors
    /// A cluster that does not answer.
    pub fn bounds(&self, place: &Place) -> Result<(u64, u64), ReaderError> {
        let bounds = self.consumer.fetch_watermarks(&place.topic, place.partition as i32, ASK_WITHIN);
        let (start, end) = bounds.map_err(|source| self.failed(source))?;
        Ok((start.unsigned_abs(), end.unsigned_abs()))
    }

    /// Each topic's id, as [`crate::records::Records::topic_ids`].
    #[must_use]
    pub fn topic_ids(&self) -> BTreeMap<String, Uuid> {
        topic_ids::ask_any(&self.bootstrap, self.way.as_ref())
    }

    fn failed(&self, source: KafkaError) -> ReaderError {
        ReaderError::Kafka { bootstrap: self.bootstrap.clone(), source }
    }
}

/// Whether another member of the same instance has taken over, or the client cannot go on for another reason.
#[must_use]
pub fn is_fenced(error: &ReaderError) -> bool {
    matches!(error, ReaderError::Kafka { source: KafkaError::MessageConsumptionFatal(_), .. })
}

/// What goes by itself: no broker, no coordinator yet, no topic yet.
fn passes(code: RDKafkaErrorCode) -> bool {
    is_transient(code)
        || matches!(
            code,
            RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::CoordinatorNotAvailable
                | RDKafkaErrorCode::CoordinatorLoadInProgress
                | RDKafkaErrorCode::NotCoordinator
                | RDKafkaErrorCode::PollExceeded
        )
}

fn grouped(bootstrap: &str, properties: &BTreeMap<String, String>, group: &str) -> Result<ClientConfig, ReaderError> {
    let mut config = reading(&client_config(bootstrap, properties)?);
    config.set("group.id", group).set("log_level", "3");
    Ok(config)
}

fn ends<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    mut list: TopicPartitionList,
    within: Duration,
) -> Result<BTreeMap<Place, u64>, KafkaError> {
    list.set_all_offsets(Offset::End)?;
    let found = consumer.offsets_for_times(list, within)?;
    let end = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
        element.error().ok()?;
        let place = Place { topic: element.topic().to_owned(), partition: element.partition().unsigned_abs() };
        Some((place, u64::try_from(element.offset().to_raw()?).ok()?))
    };
    Ok(found.elements().iter().filter_map(end).collect())
}

/// How far a group is in one partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standing {
    /// The partition.
    pub place: Place,
    /// What it committed to read next.
    pub next: u64,
    /// The offset after the partition's last record.
    pub end: u64,
    /// When the oldest record that it has not read was written, in milliseconds since 1970; `None` where it has read all, or
    /// where that record could not be read in time.
    pub unread_since_ms: Option<i64>,
}

/// A group that has committed offsets in Cairn's topics.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupStanding {
    /// The group.
    pub group: String,
    /// What the coordinator says of it, such as `Stable` or `Empty`.
    pub state: String,
    /// Its members at the moment.
    pub members: usize,
    /// Its partitions.
    pub partitions: Vec<Standing>,
}

/// How far every group is that reads Cairn's topics. Nobody is disturbed: no group is joined.
///
/// # Errors
/// A cluster that does not answer.
pub fn standings(bootstrap: &str, properties: &BTreeMap<String, String>) -> Result<Vec<GroupStanding>, ReaderError> {
    let failed = |source| ReaderError::Kafka { bootstrap: bootstrap.to_owned(), source };
    let consumer: BaseConsumer = grouped(bootstrap, properties, "cairn-reader")?.create().map_err(failed)?;
    let metadata = consumer.fetch_metadata(None, ASK_WITHIN).map_err(failed)?;
    let mut all = TopicPartitionList::new();
    for topic in metadata.topics().iter().filter(|topic| Topic::of_anybody(topic.name()).is_some()) {
        for partition in topic.partitions() {
            all.add_partition(topic.name(), partition.id());
        }
    }
    let ends = ends(&consumer, all.clone(), ASK_WITHIN).map_err(failed)?;
    let groups = consumer.fetch_group_list(None, ASK_WITHIN).map_err(failed)?;
    let mut found = Vec::new();
    for group in groups.groups() {
        let asking: BaseConsumer = grouped(bootstrap, properties, group.name())?.create().map_err(failed)?;
        let Ok(committed) = asking.committed_offsets(all.clone(), ASK_WITHIN) else { continue };
        let mut partitions = Vec::new();
        for element in committed.elements() {
            let place = Place { topic: element.topic().to_owned(), partition: element.partition().unsigned_abs() };
            let next = element.offset().to_raw().and_then(|at| u64::try_from(at).ok());
            let (Some(next), Some(end)) = (next, ends.get(&place)) else { continue };
            partitions.push(Standing { place, next, end: (*end).max(next), unread_since_ms: None });
        }
        if partitions.is_empty() {
            continue;
        }
        date_unread(&consumer, &mut partitions).map_err(failed)?;
        let (group, state, members) = (group.name().to_owned(), group.state().to_owned(), group.members().len());
        found.push(GroupStanding { group, state, members, partitions });
    }
    found.sort_by(|a, b| a.group.cmp(&b.group));
    Ok(found)
}

/// Reads the first unread record of each partition, for its time.
fn date_unread(consumer: &BaseConsumer, partitions: &mut [Standing]) -> Result<(), KafkaError> {
    let mut list = TopicPartitionList::new();
    for standing in partitions.iter().filter(|standing| standing.next < standing.end) {
        let at = Offset::Offset(i64::try_from(standing.next).unwrap_or(i64::MAX));
        list.add_partition_offset(&standing.place.topic, standing.place.partition as i32, at)?;
    }
    let mut left = list.count();
    if left == 0 {
        return Ok(());
    }
    consumer.assign(&list)?;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(3);
    while left > 0 && tokio::time::Instant::now() < deadline {
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
        let of = |standing: &&mut Standing| {
            standing.place.topic == message.topic() && standing.place.partition == message.partition().unsigned_abs()
        };
        if let Some(standing) = partitions.iter_mut().find(of)
            && standing.unread_since_ms.is_none()
        {
            standing.unread_since_ms = message.timestamp().to_millis();
            left -= 1;
            let mut done = TopicPartitionList::new();
            done.add_partition(message.topic(), message.partition());
            consumer.pause(&done)?;
        }
    }
    consumer.unassign()
}
