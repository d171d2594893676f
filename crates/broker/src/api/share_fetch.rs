//! ShareFetch and ShareAcknowledge (KIP-932): records out to one member of a share group at a time, and what became of them.
//!
//! What a request says of records is taken in before it is given others. It waits for records until somebody writes some, gives some
//! back, or runs out of time with them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use cairn_log::Offset;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use kafka_protocol::{
    error::ResponseError,
    messages::{
        ShareAcknowledgeRequest, ShareAcknowledgeResponse, ShareFetchRequest, ShareFetchResponse,
        share_acknowledge_response::{
            LeaderIdAndEpoch as LeaderOfAcknowledged, PartitionData as Acknowledged, ShareAcknowledgeTopicResponse,
        },
        share_fetch_response::{AcquiredRecords, LeaderIdAndEpoch, PartitionData, ShareFetchableTopicResponse},
    },
};
use tokio::{sync::watch, time::Instant};

use super::{
    codes,
    fetch::{check_epoch, grow},
    guard::{Gate, Readable},
    reason,
};
use crate::{
    broker::Broker,
    budget::Claim,
    quotas,
    share::{
        Ask, Judged, Key, Portion, Settings, ShareError, ShareLink, Verdict,
        sessions::{CLOSES, OPENS, Place, SessionError, Who},
    },
};

/// In place of a leader: it did not change.
const NO_LEADER: i32 = -1;

/// What version 2 says besides: whether a batch may not be handed out whole where it has too many records, and whether the request only
/// asks for more time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Newer {
    exact: bool,
    renews: bool,
}

impl Newer {
    pub(super) fn of_fetch(rest: &[u8]) -> Self {
        Self { exact: rest.first() == Some(&1), renews: rest.get(1) == Some(&1) }
    }

    pub(super) fn of_acknowledge(rest: &[u8]) -> Self {
        Self { exact: false, renews: rest.first() == Some(&1) }
    }
}

/// What is said of records, by partition; as it came.
type Said = Vec<(Place, Vec<(i64, i64, Vec<i8>)>)>;

/// Answers ShareFetch: the answer, and for how long its client is to be quiet after it.
pub(super) async fn fetch(
    broker: &Broker,
    gate: &Gate<'_>,
    link: &mut Option<Arc<ShareLink>>,
    request: ShareFetchRequest,
    newer: Newer,
    claim: &mut Claim,
) -> (ShareFetchResponse, Duration) {
    let refuse = |error: ResponseError| {
        let told = ShareFetchResponse::default().with_error_code(error.code());
        (told.with_error_message(Some(reason(error.to_string()))), Duration::ZERO)
    };
    let Some(who) = who(request.group_id.as_ref().map(|group| group.as_str()), request.member_id.as_deref()) else {
        return refuse(ResponseError::InvalidRequest);
    };
    let settings = Settings::of(broker, &who.0);
    let (mut places, mut said) = (Vec::new(), Said::new());
    for topic in &request.topics {
        for partition in &topic.partitions {
            let place = (topic.topic_id, partition.partition_index);
            places.push(place);
            let batches = &partition.acknowledgement_batches;
            let of = batches.iter().map(|of| (of.first_offset, of.last_offset, of.acknowledge_types.clone()));
            if !batches.is_empty() {
                said.push((place, of.collect()));
            }
        }
    }
    let forgotten = request.forgotten_topics_data.iter();
    let forgotten = forgotten.flat_map(|topic| topic.partitions.iter().map(|partition| (topic.topic_id, *partition)));
    let forgotten: Vec<Place> = forgotten.collect();
    let sessions = &broker.inner.shares.sessions;
    let begun = match request.share_session_epoch {
        OPENS if !said.is_empty() => return refuse(ResponseError::InvalidRequest),
        OPENS => {
            let link = link.get_or_insert_with(|| Arc::new(ShareLink::new(broker)));
            sessions.open(who.clone(), &places, link.connection())
        }
        CLOSES => sessions.close(&who).map(|_| Vec::new()),
        epoch => sessions.go_on(&who, epoch, &places, &forgotten),
    };
    let wanted = match begun {
        Ok(wanted) => wanted,
        Err(error) => return refuse(of_session(error)),
    };
    let mut told: BTreeMap<Place, PartitionData> = BTreeMap::new();
    for (place, of) in said {
        let code = judge(broker, gate, &who, place, &of, newer, &settings).await;
        let why = ResponseError::try_from_code(code).map(|error| reason(error.to_string()));
        told.insert(place, fresh(place).with_acknowledge_error_code(code).with_acknowledge_error_message(why));
    }
    if request.share_session_epoch == CLOSES {
        broker.share_take_back(&who, false).await;
    } else if !newer.renews {
        Gathering { broker, gate, who: &who, settings: &settings, exact: newer.exact }
            .gather(&request, wanted, &mut told, claim)
            .await;
    }
    let bytes = told.values().filter_map(|data| data.records.as_ref()).map(Bytes::len).sum();
    let session = gate.session();
    let throttled = broker.inner.quotas.charge(quotas::RECEIVED, &session.principal, &session.client_id, bytes);
    let mut topics: Vec<ShareFetchableTopicResponse> = Vec::new();
    for ((topic, _), data) in told {
        if topics.last().is_none_or(|last| last.topic_id != topic) {
            topics.push(ShareFetchableTopicResponse::default().with_topic_id(topic));
        }
        topics.last_mut().expect("one was just made").partitions.push(data);
    }
    let response = ShareFetchResponse::default()
        .with_acquisition_lock_timeout_ms(lock_ms(&settings))
        .with_throttle_time_ms(super::told_ms(throttled))
        .with_responses(topics);
    (response, throttled)
}

/// Answers ShareAcknowledge: the answer, and what a newer version of it has besides.
pub(super) async fn acknowledge(
    broker: &Broker,
    gate: &Gate<'_>,
    request: ShareAcknowledgeRequest,
    newer: Newer,
) -> (ShareAcknowledgeResponse, i32) {
    let refuse = |error: ResponseError| {
        let told = ShareAcknowledgeResponse::default().with_error_code(error.code());
        (told.with_error_message(Some(reason(error.to_string()))), 0)
    };
    let Some(who) = who(request.group_id.as_ref().map(|group| group.as_str()), request.member_id.as_deref()) else {
        return refuse(ResponseError::InvalidRequest);
    };
    let settings = Settings::of(broker, &who.0);
    let sessions = &broker.inner.shares.sessions;
    let begun = match request.share_session_epoch {
        // Nothing was handed out before a session was opened.
        OPENS => Err(SessionError::Epoch),
        CLOSES => sessions.close(&who),
        epoch => sessions.go_on(&who, epoch, &[], &[]),
    };
    if let Err(error) = begun {
        return refuse(of_session(error));
    }
    let mut topics = Vec::new();
    for topic in request.topics {
        let mut partitions = Vec::new();
        for partition in topic.partitions {
            let of = partition.acknowledgement_batches.into_iter();
            let of: Vec<_> = of.map(|of| (of.first_offset, of.last_offset, of.acknowledge_types)).collect();
            let place = (topic.topic_id, partition.partition_index);
            let code = judge(broker, gate, &who, place, &of, newer, &settings).await;
            let why = ResponseError::try_from_code(code).map(|error| reason(error.to_string()));
            let leader = LeaderOfAcknowledged::default().with_leader_id(NO_LEADER).with_leader_epoch(NO_LEADER);
            let told = Acknowledged::default().with_partition_index(partition.partition_index);
            partitions.push(told.with_error_code(code).with_error_message(why).with_current_leader(leader));
        }
        topics.push(ShareAcknowledgeTopicResponse::default().with_topic_id(topic.topic_id).with_partitions(partitions));
    }
    if request.share_session_epoch == CLOSES {
        broker.share_take_back(&who, false).await;
    }
    (ShareAcknowledgeResponse::default().with_responses(topics), lock_ms(&settings))
}

fn who(group: Option<&str>, member: Option<&str>) -> Option<Who> {
    let (group, member) = group.zip(member).filter(|(group, member)| !group.is_empty() && !member.is_empty())?;
    Some((group.into(), member.into()))
}

fn lock_ms(settings: &Settings) -> i32 {
    i32::try_from(settings.lock_ms()).unwrap_or(i32::MAX)
}

const fn of_session(error: SessionError) -> ResponseError {
    match error {
        SessionError::NotFound => ResponseError::ShareSessionNotFound,
        SessionError::Epoch => ResponseError::InvalidShareSessionEpoch,
        SessionError::Full => ResponseError::ShareSessionLimitReached,
    }
}

fn of_share(error: &ShareError) -> i16 {
    use crate::share::JudgeError;
    match error {
        ShareError::Judge(JudgeError::NotAcquired) => ResponseError::InvalidRecordState.code(),
        ShareError::Judge(JudgeError::Malformed) => ResponseError::InvalidRequest.code(),
        ShareError::Fetch(error) => codes::of_fetch(error),
        ShareError::Storage => ResponseError::KafkaStorageError.code(),
        ShareError::Full => ResponseError::CoordinatorNotAvailable.code(),
    }
}

fn fresh((_, partition): Place) -> PartitionData {
    let leader = LeaderIdAndEpoch::default().with_leader_id(NO_LEADER).with_leader_epoch(NO_LEADER);
    PartitionData::default()
        .with_partition_index(partition)
        .with_error_message(None)
        .with_acknowledge_error_message(None)
        .with_current_leader(leader)
        .with_records(Some(Bytes::new()))
}

/// The partition of a group, and what of it may be read.
fn resolve(broker: &Broker, gate: &Gate<'_>, who: &Who, (topic, partition): Place) -> Result<(Key, Readable), i16> {
    let found = broker.inner.topics.get_by_id(topic);
    let unknown = if found.is_none() { ResponseError::UnknownTopicId } else { ResponseError::UnknownTopicOrPartition };
    let stream = found.as_ref().and_then(|found| found.stream(partition)).ok_or(unknown.code());
    let name = found.as_ref().map_or("", |found| found.name.as_str());
    let readable = gate.readable(name, stream, |stream| check_epoch(broker, stream, NO_LEADER))?;
    Ok((Key { group: Arc::clone(&who.0), topic, partition: partition.unsigned_abs() }, readable))
}

/// Takes in what is said of records of one partition; what is told of that.
async fn judge(
    broker: &Broker,
    gate: &Gate<'_>,
    who: &Who,
    place: Place,
    said: &[(i64, i64, Vec<i8>)],
    newer: Newer,
    settings: &Settings,
) -> i16 {
    let (key, _) = match resolve(broker, gate, who, place) {
        Ok(found) => found,
        Err(code) => return code,
    };
    let judged = said.iter().map(|(first, last, codes)| {
        let verdicts =
            codes.iter().map(|code| Verdict::of_code(*code).filter(|said| *said != Verdict::Renew || newer.renews));
        let verdicts = verdicts.collect::<Option<Vec<_>>>()?;
        Some(Judged { first: u64::try_from(*first).ok()?, last: u64::try_from(*last).ok()?, verdicts })
    });
    let Some(judged) = judged.collect::<Option<Vec<_>>>() else {
        return ResponseError::InvalidRequest.code();
    };
    broker.share_judge(&key, &who.1, &judged, settings).await.map_or_else(|error| of_share(&error), |()| 0)
}

/// Handing out records to one request.
struct Gathering<'a> {
    broker: &'a Broker,
    gate: &'a Gate<'a>,
    who: &'a Who,
    settings: &'a Settings,
    exact: bool,
}

impl Gathering<'_> {
    /// Hands out what is free in these partitions, or waits until something is.
    async fn gather(
        &self,
        request: &ShareFetchRequest,
        wanted: Vec<Place>,
        told: &mut BTreeMap<Place, PartitionData>,
        claim: &mut Claim,
    ) {
        let (broker, limits) = (self.broker, &self.broker.inner.options.limits);
        let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(limits.fetch_wait_max);
        let deadline = Instant::now() + wait;
        let session = self.gate.session();
        let bytes_max = broker.inner.quotas.answer_bytes_max(&session.principal, &session.client_id);
        let bytes_max = usize::try_from(request.max_bytes).unwrap_or(0).min(bytes_max).min(limits.fetch_bytes_max);
        let records_max = u64::try_from(request.max_records).ok().filter(|most| *most > 0).unwrap_or(u64::MAX);
        let mut streams = HashMap::new();
        for place in &wanted {
            match resolve(broker, self.gate, self.who, *place) {
                Ok((key, readable)) => drop(streams.insert(*place, (key, readable))),
                Err(code) => told.entry(*place).or_insert_with(|| fresh(*place)).error_code = code,
            }
        }
        // Who is told of a mistake, or what became of its word, is told at once.
        let has_news = !told.is_empty();
        loop {
            let mut ends: Vec<_> =
                streams.values().filter_map(|(_, at)| broker.inner.log.watch(at.stream()).ok()).collect();
            ends.iter_mut().for_each(|end| drop(end.borrow_and_update()));
            let mut freed: Vec<_> = streams.values().filter_map(|(key, _)| broker.inner.shares.watch(key)).collect();
            freed.iter_mut().for_each(|freed| drop(freed.borrow_and_update()));
            let has_records = self.take_all(&wanted, &streams, (bytes_max, records_max), told, claim).await;
            if has_records || has_news || Instant::now() >= deadline {
                return;
            }
            claim.shrink(0);
            let mut look_at = deadline;
            for (key, _) in streams.values() {
                look_at = look_at.min(broker.share_deadline(key).await.unwrap_or(look_at));
            }
            woken(&mut ends, &mut freed, look_at).await;
        }
    }

    /// Hands out what is free now; whether that was anything, or an error.
    async fn take_all(
        &self,
        wanted: &[Place],
        streams: &HashMap<Place, (Key, Readable)>,
        (bytes_max, records_max): (usize, u64),
        told: &mut BTreeMap<Place, PartitionData>,
        claim: &mut Claim,
    ) -> bool {
        let limits = &self.broker.inner.options.limits;
        // What is read is copied into the answer.
        if claim.cover(2 * limits.message_bytes_max).await.is_err() {
            return false;
        }
        let room = grow(claim, 2 * limits.message_bytes_max, 2 * bytes_max) / 2;
        let (mut bytes_left, mut records_left, mut any) = (room, records_max, false);
        for place in wanted {
            let Some((key, readable)) = streams.get(place) else { continue };
            if bytes_left == 0 || records_left == 0 {
                break;
            }
            let ask = Ask { bytes_max: bytes_left, records_max: records_left, exact: self.exact };
            match self.broker.share_take(key, readable.stream(), &self.who.1, ask, self.settings).await {
                Ok(Portion { acquired, .. }) if acquired.is_empty() => {}
                Ok(Portion { batches, acquired }) => {
                    let taken: u64 = acquired.iter().map(|of| of.last - of.first + 1).sum();
                    let records = join(batches);
                    bytes_left = bytes_left.saturating_sub(records.len());
                    records_left = records_left.saturating_sub(taken);
                    any = true;
                    let data = told.entry(*place).or_insert_with(|| fresh(*place));
                    data.records = Some(records);
                    data.acquired_records = acquired.into_iter().map(acquired_records).collect();
                }
                Err(error) => {
                    any = true;
                    told.entry(*place).or_insert_with(|| fresh(*place)).error_code = of_share(&error);
                }
            }
        }
        any
    }
}

fn acquired_records(of: crate::share::Acquired) -> AcquiredRecords {
    let wire = |offset: u64| i64::try_from(offset).unwrap_or(i64::MAX);
    let told = AcquiredRecords::default().with_first_offset(wire(of.first)).with_last_offset(wire(of.last));
    told.with_delivery_count(i16::try_from(of.count).unwrap_or(i16::MAX))
}

fn join(batches: Vec<Bytes>) -> Bytes {
    let mut batches = batches.into_iter();
    match (batches.next(), batches.len()) {
        (None, _) => Bytes::new(),
        (Some(first), 0) => first,
        (Some(first), _) => {
            let mut all = BytesMut::from(&first[..]);
            batches.for_each(|batch| all.extend_from_slice(&batch));
            all.freeze()
        }
    }
}

/// Waits until somebody writes, or something comes free.
async fn woken(ends: &mut [watch::Receiver<Offset>], freed: &mut [watch::Receiver<u64>], until: Instant) {
    let ends = ends.iter_mut().map(|end| end.changed().map(drop).boxed());
    let freed = freed.iter_mut().map(|freed| freed.changed().map(drop).boxed());
    let mut all: FuturesUnordered<BoxFuture<'_, ()>> = ends.chain(freed).collect();
    if all.is_empty() {
        tokio::time::sleep_until(until).await;
        return;
    }
    let _ = tokio::time::timeout_at(until, all.next()).await;
}
