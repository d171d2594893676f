//! Fetch: batches out, as soon as there are enough, else when the wait is over.
//!
//! What is read is claimed first from the budget of all answers: at least one batch, at most what the client asks for, as
//! much of that as there is room for now. Where no room comes free in time, the answer is empty and the client asks again.
//!
//! What only the object store has may be long in coming. It is claimed from a part of that budget, so that whoever waits for it leaves
//! room for those who read at the end; an answer that has something else to tell does not wait for it, and takes what of it has come;
//! and an answer that waits for it is given as soon as there is something else to tell.
//!
//! What is kept of clients that fetch the same again and again is in [`sessions`] (KIP-227).

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use cairn_log::{Isolation, Offset, StreamId};
use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use kafka_protocol::{
    error::ResponseError,
    messages::{
        FetchRequest, FetchResponse,
        fetch_request::FetchPartition,
        fetch_response::{AbortedTransaction, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData},
    },
};
use tokio::{sync::watch, time::Instant};

use super::{
    Session, codes,
    guard::{Gate, Readable},
    leaders, text,
};
use crate::{
    broker::{Broker, Fetched},
    budget::Claim,
    quotas,
};

mod pieces;
pub(super) mod sessions;

pub(super) use pieces::FetchAnswer;
use sessions::{Asked, Purpose};

const BY_ID_FIRST: i16 = 13;
/// In place of a leader epoch: the client knows none.
const NO_EPOCH: i32 = -1;
/// The first version whose answer may say where the leader is now (KIP-951).
const LEADER_FIRST: i16 = 16;

/// One partition that is asked for.
struct Wanted {
    topic: usize,
    asked: FetchPartition,
    /// What may be read, or why nothing.
    stream: Result<Readable, i16>,
    end: Option<watch::Receiver<Offset>>,
    /// Bytes of its largest batch.
    batch_bytes_max: usize,
    isolation: Isolation,
}

/// Where what a partition is asked for lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lies {
    /// There is nothing.
    Nowhere,
    Here,
    InStore,
}

/// What is done about what only the store has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stored {
    Awaited,
    /// What of it has come is taken; the rest comes meanwhile.
    AtOnce,
    /// There is no room for it.
    Left,
}

impl Wanted {
    fn lies(&self, broker: &Broker) -> Lies {
        let Ok(readable) = self.stream else { return Lies::Nowhere };
        let (log, stream) = (&broker.inner.log, readable.stream());
        let end = log.bounds(stream).map_or(0, |bounds| match self.isolation {
            Isolation::Durable => bounds.durable_end.get(),
            Isolation::Committed => bounds.stable_end.get(),
        });
        match u64::try_from(self.asked.fetch_offset) {
            Ok(from) if from < end && log.is_in_store(stream, Offset::new(from)) => Lies::InStore,
            Ok(from) if from < end => Lies::Here,
            _ => Lies::Nowhere,
        }
    }
}

/// What is told of one partition.
#[derive(Debug)]
struct Part {
    topic: usize,
    /// All but the records.
    data: PartitionData,
    batches: Vec<Bytes>,
}

impl Part {
    fn has_records(&self) -> bool {
        self.batches.iter().any(|batch| !batch.is_empty())
    }
}

/// What was read.
#[derive(Default)]
struct Gathered {
    partitions: Vec<Part>,
    bytes: usize,
    failed: bool,
    /// Something of it came from the store.
    has_stored: bool,
    /// All of it did.
    is_behind: bool,
    /// What it could have taken.
    room: usize,
}

/// The answer, and for how long its client is to be quiet after it.
pub(super) async fn answer(
    broker: &Broker,
    gate: &Gate<'_>,
    mut request: FetchRequest,
    version: i16,
    claim: &mut Claim,
) -> (FetchAnswer, Duration) {
    let by_id = version >= BY_ID_FIRST;
    let begun = broker.inner.fetch_sessions.begin(&mut request, by_id, Instant::now());
    let (purpose, asked) = match begun {
        Ok(begun) => begun,
        Err(error) => return (FetchResponse::default().with_error_code(error.code()).into(), Duration::ZERO),
    };
    let of_replica = request.replica_id.0 >= 0 || request.replica_state.replica_id.0 >= 0;
    let isolation = isolation(request.isolation_level);
    let (heads, mut wanted) = resolve(broker, gate, &asked, by_id, of_replica, isolation);
    let session = gate.session();
    // So that an answer can be made good in one window.
    let bytes_max = broker.inner.quotas.answer_bytes_max(&session.principal, &session.client_id);
    let bytes_max = usize::try_from(request.max_bytes).unwrap_or(0).min(bytes_max);
    let Gathered { partitions, is_behind, .. } = gather(broker, &request, bytes_max, &mut wanted, claim).await;
    let told = partitions.iter().flat_map(|part| &part.batches).map(Bytes::len).sum();
    let throttled = broker.inner.quotas.charge(quotas::RECEIVED, &session.principal, &session.client_id, told);
    let mut answer = Answer { broker, session, version, purpose, asked }.assemble(heads, partitions);
    answer.is_behind = is_behind;
    answer.response.throttle_time_ms = i32::try_from(throttled.as_millis()).unwrap_or(i32::MAX);
    leaders::of_fetch(broker, &mut answer.response, version).await;
    (answer, throttled)
}

/// Reads until there is enough or the wait is over.
async fn gather(
    broker: &Broker,
    request: &FetchRequest,
    bytes_max: usize,
    wanted: &mut [Wanted],
    claim: &mut Claim,
) -> Gathered {
    let limits = &broker.inner.options.limits;
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(limits.fetch_wait_max);
    let deadline = Instant::now() + wait;
    let bytes_max = bytes_max.min(limits.fetch_bytes_max);
    let bytes_min = usize::try_from(request.min_bytes).unwrap_or(0).min(bytes_max);
    let batch_bytes = wanted.iter().map(|wanted| wanted.batch_bytes_max).max().unwrap_or(0);
    let mut room = Room { answers: claim, stored: broker.inner.stored_budget.claim(), batch_bytes };
    let gathered = loop {
        // Ends are marked as seen before the read, so that an advance after it wakes us.
        for end in wanted.iter_mut().filter_map(|wanted| wanted.end.as_mut()) {
            end.borrow_and_update();
        }
        let lies: Vec<Lies> = wanted.iter().map(|wanted| wanted.lies(broker)).collect();
        let most = bytes_max.min(asked_bytes(wanted, &lies));
        let has_stored = lies.contains(&Lies::InStore);
        let gathered = if lies.contains(&Lies::Here) {
            let bytes = room.here(most).await;
            read_all(broker, wanted, bytes, room.beside(has_stored, bytes)).await
        } else if has_stored {
            let Some(gathered) = read_stored(broker, wanted, &lies, most, &mut room).await else { continue };
            Gathered { is_behind: gathered.has_stored, ..gathered }
        } else {
            read_all(broker, wanted, 0, Stored::Left).await
        };
        let least = bytes_min.min(gathered.room).max(1);
        let enough = gathered.bytes >= least || bytes_min == 0 || gathered.failed;
        // What came from the store was long in coming: it is not left to come once more.
        let enough = enough || gathered.has_stored;
        if enough || Instant::now() >= deadline {
            break gathered;
        }
        // Nothing is held while nothing is answered.
        drop(gathered);
        room.shrink(0);
        if !woken(wanted.iter_mut().filter_map(|wanted| wanted.end.as_mut()), deadline).await {
            let bytes = room.here_now(most);
            break read_all(broker, wanted, bytes, room.beside(has_stored, bytes)).await;
        }
    };
    room.shrink(gathered.bytes);
    let Room { answers, stored, .. } = room;
    answers.join(stored);
    gathered
}

/// Reads what only the store has. Nothing where meanwhile another of the partitions has something to tell: that waits for no store.
async fn read_stored(
    broker: &Broker,
    wanted: &[Wanted],
    lies: &[Lies],
    most: usize,
    room: &mut Room<'_>,
) -> Option<Gathered> {
    let others = wanted.iter().zip(lies).filter(|(_, lies)| **lies == Lies::Nowhere);
    let mut others: Vec<_> = others.filter_map(|(wanted, _)| wanted.end.clone()).collect();
    let reading = async {
        let bytes = room.stored(most).await;
        read_all(broker, wanted, bytes, Stored::Awaited).await
    };
    let deadline = Instant::now() + broker.inner.options.limits.store_wait_max;
    let otherwise = async {
        if woken(others.iter_mut(), deadline).await {
            return None;
        }
        Some(read_all(broker, wanted, 0, Stored::Left).await)
    };
    tokio::select! {
        biased;
        gathered = reading => Some(gathered),
        gathered = otherwise => gathered,
    }
}

/// What those partitions that have something may give.
fn asked_bytes(wanted: &[Wanted], lies: &[Lies]) -> usize {
    let asked = wanted.iter().zip(lies).filter(|(_, lies)| **lies != Lies::Nowhere);
    let bytes = asked.map(|(wanted, _)| usize::try_from(wanted.asked.partition_max_bytes).unwrap_or(0));
    bytes.fold(0, usize::saturating_add)
}

/// What one answer has claimed.
struct Room<'a> {
    answers: &'a mut Claim,
    stored: Claim,
    /// A whole batch must fit.
    batch_bytes: usize,
}

impl Room<'_> {
    /// Claims what one answer may take: `most`, or less where that is not free, but a whole batch. Zero when even that
    /// did not come free in time.
    async fn here(&mut self, most: usize) -> usize {
        if self.answers.cover(self.batch_bytes).await.is_err() {
            return 0;
        }
        self.here_now(most)
    }

    /// The same without waiting.
    fn here_now(&mut self, most: usize) -> usize {
        grow(self.answers, self.batch_bytes, most)
    }

    /// The same, of the part that may wait for the store.
    async fn stored(&mut self, most: usize) -> usize {
        if self.stored.cover(self.batch_bytes).await.is_err() {
            return 0;
        }
        let most = grow(&mut self.stored, self.batch_bytes, most);
        self.here(most).await
    }

    /// What is done about what only the store has, beside what is here.
    fn beside(&mut self, has_stored: bool, bytes: usize) -> Stored {
        if has_stored && bytes > 0 && self.stored.try_cover(bytes) { Stored::AtOnce } else { Stored::Left }
    }

    fn shrink(&mut self, bytes: usize) {
        self.answers.shrink(bytes);
        self.stored.shrink(bytes);
    }
}

/// Claims `most`, or less where that is not free, but a whole batch; zero where even that is not.
pub(super) fn grow(claim: &mut Claim, batch_bytes: usize, bytes_max: usize) -> usize {
    if !claim.try_cover(batch_bytes) {
        return 0;
    }
    let mut most = bytes_max;
    while most > batch_bytes && !claim.try_cover(most) {
        most /= 2;
    }
    bytes_max.min(claim.bytes()).max(1)
}

/// Finds what is asked for, and lets through what of it may be read: also of what a session keeps, whoever began it.
fn resolve(
    broker: &Broker,
    gate: &Gate<'_>,
    asked: &[Asked],
    by_id: bool,
    of_replica: bool,
    isolation: Isolation,
) -> (Vec<FetchableTopicResponse>, Vec<Wanted>) {
    let mut heads = Vec::new();
    let mut places = HashMap::new();
    let mut wanted = Vec::with_capacity(asked.len());
    for Asked { topic: name, topic_id, partition } in asked {
        let (at, found) = places.entry((name, topic_id)).or_insert_with(|| {
            heads.push(FetchableTopicResponse::default().with_topic(name.clone()).with_topic_id(*topic_id));
            let topics = &broker.inner.topics;
            (heads.len() - 1, if by_id { topics.get_by_id(*topic_id) } else { topics.get(name) })
        });
        let unknown = if by_id { ResponseError::UnknownTopicId } else { ResponseError::UnknownTopicOrPartition };
        let stream = match found {
            None => Err(unknown.code()),
            Some(topic) => topic.stream(partition.partition).ok_or(ResponseError::UnknownTopicOrPartition.code()),
        };
        // Who may not read a topic is told so before anything else, and whether it is there or not.
        let known = found.as_ref().filter(|_| by_id).map_or(&***name, |topic| topic.name.as_str());
        let stream = gate.readable(known, stream, |stream| {
            let stream = check_epoch(broker, stream, partition.current_leader_epoch.max(NO_EPOCH))?;
            // There are no replicas, so nobody who calls itself one is.
            if of_replica { Err(ResponseError::NotLeaderOrFollower.code()) } else { Ok(stream) }
        });
        let end = stream.ok().and_then(|readable| broker.inner.log.watch(readable.stream()).ok());
        let otherwise = broker.inner.options.limits.message_bytes_max;
        let batch_bytes_max = found.as_ref().map_or(0, |topic| topic.configs.message_bytes_max(otherwise));
        wanted.push(Wanted { topic: *at, asked: partition.clone(), stream, end, batch_bytes_max, isolation });
    }
    (heads, wanted)
}

/// A client that names a leader epoch must name ours (KIP-320). Who was replaced leads nothing, and does not know where things end now.
pub(super) fn check_epoch(broker: &Broker, stream: StreamId, asked: i32) -> Result<StreamId, i16> {
    if broker.inner.log.is_fenced() {
        return Err(ResponseError::NotLeaderOrFollower.code());
    }
    let ours = broker.inner.log.bounds(stream).map_err(|error| codes::of_read(&error))?.leader_epoch.get();
    match u32::try_from(asked) {
        Err(_) if asked != NO_EPOCH => Err(ResponseError::FencedLeaderEpoch.code()),
        Ok(asked) if asked < ours => Err(ResponseError::FencedLeaderEpoch.code()),
        Ok(asked) if asked > ours => Err(ResponseError::UnknownLeaderEpoch.code()),
        _ => Ok(stream),
    }
}

/// Reads every partition once; the first that has data may exceed the limit by one batch, so that readers always get on,
/// unless there is no room at all.
async fn read_all(broker: &Broker, wanted: &[Wanted], room: usize, stored: Stored) -> Gathered {
    let mut all = Gathered { room, partitions: Vec::with_capacity(wanted.len()), ..Gathered::default() };
    for one in wanted {
        let left = room.saturating_sub(all.bytes);
        let data = PartitionData::default().with_partition_index(one.asked.partition).with_records(Some(Bytes::new()));
        let mut batches = Vec::new();
        let is_stored = one.lies(broker) == Lies::InStore;
        let how = if is_stored { stored } else { Stored::Awaited };
        let data = match read_one(broker, one, left, all.bytes == 0 && room > 0, how).await {
            Ok((mut fetched, bytes)) => {
                all.bytes += bytes;
                all.has_stored |= is_stored && bytes > 0;
                batches = std::mem::take(&mut fetched.batches);
                data.with_high_watermark(wire(fetched.high_watermark))
                    .with_last_stable_offset(wire(fetched.stable_end))
                    .with_aborted_transactions(aborted(one.isolation, &fetched))
                    .with_log_start_offset(wire(fetched.log_start))
            }
            Err(code) => {
                all.failed = true;
                data.with_error_code(code)
                    .with_aborted_transactions(is_of_topic(code).then(Vec::new))
                    .with_high_watermark(-1)
                    .with_last_stable_offset(-1)
                    .with_log_start_offset(-1)
            }
        };
        all.partitions.push(Part { topic: one.topic, data, batches });
    }
    all
}

/// Whether a refusal is not about what is read, but about whether it is there: it comes with an empty list of what was aborted.
fn is_of_topic(code: i16) -> bool {
    [ResponseError::UnknownTopicOrPartition, ResponseError::UnknownTopicId, ResponseError::TopicAuthorizationFailed]
        .iter()
        .any(|error| error.code() == code)
}

async fn read_one(
    broker: &Broker,
    one: &Wanted,
    left: usize,
    first: bool,
    how: Stored,
) -> Result<(Fetched, usize), i16> {
    let stream = one.stream?.stream();
    let from = u64::try_from(one.asked.fetch_offset).map_err(|_| ResponseError::OffsetOutOfRange.code())?;
    let most = usize::try_from(one.asked.partition_max_bytes).unwrap_or(0).min(left);
    let from = Offset::new(from);
    let reading = broker.read(stream, from, most, one.isolation);
    let fetched = match how {
        _ if left == 0 && !first => broker.read_nothing(stream, from),
        Stored::Awaited => reading.await,
        Stored::AtOnce => reading.now_or_never().unwrap_or_else(|| broker.read_nothing(stream, from)),
        Stored::Left => broker.read_nothing(stream, from),
    };
    let mut fetched = fetched.map_err(|error| codes::of_fetch(&error))?;
    let bytes = fetched.batches.iter().map(Bytes::len).sum();
    if bytes > left && !first {
        // The log gives one batch however large: only the first partition of an answer may have it.
        fetched.batches.clear();
        return Ok((fetched, 0));
    }
    Ok((fetched, bytes))
}

/// Waits until any durable end moves; false when the time is over.
async fn woken<'a>(ends: impl Iterator<Item = &'a mut watch::Receiver<Offset>>, deadline: Instant) -> bool {
    let mut ends: FuturesUnordered<_> = ends.map(|end| end.changed()).collect();
    if ends.is_empty() {
        tokio::time::sleep_until(deadline).await;
        return false;
    }
    matches!(tokio::time::timeout_at(deadline, ends.next()).await, Ok(Some(Ok(()))))
}

/// What an answer is made for.
struct Answer<'a> {
    broker: &'a Broker,
    session: &'a Session,
    version: i16,
    purpose: Purpose,
    asked: Vec<Asked>,
}

impl Answer<'_> {
    fn assemble(self, mut heads: Vec<FetchableTopicResponse>, mut partitions: Vec<Part>) -> FetchAnswer {
        let (sessions, by_id) = (&self.broker.inner.fetch_sessions, self.version >= BY_ID_FIRST);
        let id = sessions.finish(self.purpose, by_id, &self.asked, &mut partitions, Instant::now());
        // As they will stand in the answer: topic by topic.
        partitions.sort_by_key(|part| part.topic);
        let (mut leads, mut records) = (false, Vec::with_capacity(partitions.len()));
        for Part { topic, data, batches } in partitions {
            records.push(batches);
            let (data, hinted) = self.hint(&heads[topic], data);
            leads |= hinted;
            heads[topic].partitions.push(data);
        }
        if matches!(self.purpose, Purpose::Continues(_)) {
            heads.retain(|head| !head.partitions.is_empty());
        }
        let mut response = FetchResponse::default().with_session_id(id).with_responses(heads);
        if leads {
            let me = NodeEndpoint::default()
                .with_node_id(self.broker.inner.options.node_id.into())
                .with_host(text(self.session.advertised.host.clone()))
                .with_port(i32::from(self.session.advertised.port));
            response.node_endpoints = vec![me];
        }
        FetchAnswer { response, records, is_behind: false }
    }

    /// A client whose leader epoch is old is told the one that there is, and so need not ask for it (KIP-951).
    fn hint(&self, head: &FetchableTopicResponse, data: PartitionData) -> (PartitionData, bool) {
        if self.version < LEADER_FIRST || data.error_code != ResponseError::FencedLeaderEpoch.code() {
            return (data, false);
        }
        let topic = self.broker.inner.topics.get_by_id(head.topic_id);
        let stream = topic.and_then(|topic| topic.stream(data.partition_index));
        let Some(bounds) = stream.and_then(|stream| self.broker.inner.log.bounds(stream).ok()) else {
            return (data, false);
        };
        let leader = LeaderIdAndEpoch::default()
            .with_leader_id(self.broker.inner.options.node_id.into())
            .with_leader_epoch(i32::try_from(bounds.leader_epoch.get()).unwrap_or(i32::MAX));
        (data.with_current_leader(leader), true)
    }
}

/// What a reader of committed records must leave out; nobody else is told.
fn aborted(isolation: Isolation, fetched: &Fetched) -> Option<Vec<AbortedTransaction>> {
    let told = fetched.aborted.iter().map(|aborted| {
        let told = AbortedTransaction::default().with_producer_id(aborted.producer.get().into());
        told.with_first_offset(wire(aborted.first))
    });
    (isolation == Isolation::Committed).then(|| told.collect())
}

/// What a request's isolation level means.
pub(super) const fn isolation(level: i8) -> Isolation {
    if level == 1 { Isolation::Committed } else { Isolation::Durable }
}

fn wire(offset: Offset) -> i64 {
    i64::try_from(offset.get()).unwrap_or(i64::MAX)
}
