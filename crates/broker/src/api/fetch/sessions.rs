//! Fetch sessions (KIP-227): what a client fetches again and again is kept here, so that it names only what changes in it and is
//! told only of the partitions that have something new. Called by Fetch, before it reads and before it answers.
//!
//! It guarantees: sessions, and the partitions of all of them, are bounded; one that is used is not taken from its client for
//! two minutes, and who finds no room works without; an epoch that is not the next is refused, so that an answer that was lost
//! is noticed. It must never decide what may be read: each partition of a session is looked up anew for each answer.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use cairn_clock::Entropy;
use kafka_protocol::{
    error::ResponseError,
    messages::{
        FetchRequest, TopicName,
        fetch_request::{FetchPartition, FetchTopic},
    },
    protocol::StrBytes,
};
use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use super::Part;

/// What a request says that opens a session, and one that wants none (or ends the one that it names).
const FIRST: i32 = 0;
const NONE: i32 = -1;
/// How long a session is its client's, used or new, before another may have its room (`min.incremental.fetch.session.eviction.ms`).
const KEPT: Duration = Duration::from_secs(120);
/// The longest name of a topic; there is none of a longer one, and so it is not remembered.
const NAME_BYTES_MAX: usize = 249;

/// A partition that is fetched.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) topic: TopicName,
    pub(super) topic_id: Uuid,
    pub(super) partition: FetchPartition,
}

impl Asked {
    fn key(&self) -> Key {
        (self.topic.clone(), self.topic_id, self.partition.partition)
    }
}

/// A partition as requests name it: by topic name or topic id.
type Key = (TopicName, Uuid, i32);

/// What becomes of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It is whole, and nothing is kept.
    Alone,
    /// It is whole, and opens a session if there is room.
    Opens,
    /// It tells what is new in this session.
    Continues(i32),
}

/// The sessions of a broker.
#[derive(Debug)]
pub(crate) struct FetchSessions {
    sessions_max: usize,
    partitions_max: usize,
    entropy: Entropy,
    all: Mutex<All>,
}

/// How many there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FetchSessionStats {
    pub(crate) sessions: usize,
    pub(crate) partitions: usize,
    pub(crate) evicted: u64,
}

#[derive(Debug, Default)]
struct All {
    by_id: HashMap<i32, Session>,
    partitions: usize,
    evicted: u64,
}

#[derive(Debug)]
struct Session {
    /// What the next request must say.
    epoch: i32,
    /// Whether its client names topics by id.
    by_id: bool,
    opened: Instant,
    used: Instant,
    next_place: u64,
    /// In the order in which they are read: who was told something goes to the end.
    order: BTreeMap<u64, Cached>,
    places: HashMap<Key, u64>,
}

/// A partition, and what its client was last told of it.
#[derive(Debug)]
struct Cached {
    asked: Asked,
    high_watermark: i64,
    log_start: i64,
}

impl FetchSessions {
    pub(crate) fn new(sessions_max: usize, partitions_max: usize, entropy: Entropy) -> Self {
        Self { sessions_max, partitions_max, entropy, all: Mutex::default() }
    }

    pub(crate) fn stats(&self) -> FetchSessionStats {
        let all = self.all.lock();
        FetchSessionStats { sessions: all.by_id.len(), partitions: all.partitions, evicted: all.evicted }
    }

    /// What a request fetches, with that of its session, and what the answer is for.
    pub(super) fn begin(
        &self,
        request: &mut FetchRequest,
        by_id: bool,
        now: Instant,
    ) -> Result<(Purpose, Vec<Asked>), ResponseError> {
        let (id, epoch) = (request.session_id, request.session_epoch);
        let topics = std::mem::take(&mut request.topics);
        if epoch == FIRST || epoch == NONE {
            // A whole request takes the place of the session that it names.
            self.all.lock().remove(id);
            let may_open = epoch == FIRST && topics.iter().all(|topic| topic.topic.len() <= NAME_BYTES_MAX);
            return Ok((if may_open { Purpose::Opens } else { Purpose::Alone }, asked(topics)));
        }
        let mut all = self.all.lock();
        let session = all.by_id.get_mut(&id).ok_or(ResponseError::FetchSessionIdNotFound)?;
        if session.by_id != by_id {
            return Err(ResponseError::FetchSessionTopicIdError);
        }
        if session.epoch != epoch {
            return Err(ResponseError::InvalidFetchSessionEpoch);
        }
        let before = session.order.len();
        let too_long = topics.iter().any(|topic| topic.topic.len() > NAME_BYTES_MAX);
        for asked in asked(topics) {
            session.ask(asked);
        }
        for topic in &request.forgotten_topics_data {
            for partition in &topic.partitions {
                session.forget(&(topic.topic.clone(), topic.topic_id, *partition));
            }
        }
        (session.epoch, session.used) = (next(epoch), now);
        let after = session.order.len();
        let fetched = session.order.values().map(|cached| cached.asked.clone()).collect();
        all.partitions = all.partitions + after - before;
        if too_long || all.partitions > self.partitions_max {
            // Its client then opens another with all that it wants, and is told that there is no room.
            all.remove(id);
            return Err(ResponseError::FetchSessionIdNotFound);
        }
        if after == 0 {
            all.remove(id);
            return Ok((Purpose::Alone, Vec::new()));
        }
        Ok((Purpose::Continues(id), fetched))
    }

    /// Drops from an answer what its client need not be told again. Returns the id of the session; 0 where there is none.
    pub(super) fn finish(
        &self,
        purpose: Purpose,
        by_id: bool,
        asked: &[Asked],
        answers: &mut Vec<Part>,
        now: Instant,
    ) -> i32 {
        match purpose {
            Purpose::Alone => 0,
            Purpose::Opens => self.open(by_id, asked, answers, now),
            Purpose::Continues(id) => {
                if let Some(session) = self.all.lock().by_id.get_mut(&id) {
                    let mut each = asked.iter();
                    answers.retain(|part| each.next().is_none_or(|asked| session.tell(asked, part)));
                }
                id
            }
        }
    }

    fn open(&self, by_id: bool, asked: &[Asked], answers: &[Part], now: Instant) -> i32 {
        let mut session = Session {
            epoch: next(FIRST),
            by_id,
            opened: now,
            used: now,
            next_place: 0,
            order: BTreeMap::new(),
            places: HashMap::new(),
        };
        for (asked, part) in asked.iter().zip(answers) {
            session.ask(asked.clone());
            session.tell(asked, part);
        }
        let wanted = session.order.len();
        let mut all = self.all.lock();
        if wanted == 0 || !all.make_room(wanted, self.sessions_max, self.partitions_max, now) {
            return 0;
        }
        let id = loop {
            // Nobody guesses the session of another.
            let id = (self.entropy.next_u64() >> 33) as i32;
            if id != 0 && !all.by_id.contains_key(&id) {
                break id;
            }
        };
        all.partitions += wanted;
        all.by_id.insert(id, session);
        id
    }
}

impl All {
    fn remove(&mut self, id: i32) {
        if let Some(session) = self.by_id.remove(&id) {
            self.partitions -= session.order.len();
        }
    }

    /// Makes room for one more session, if nobody's must be taken that is still his: first that which was not used for longest,
    /// then that which has the fewest partitions, where it has fewer.
    fn make_room(&mut self, wanted: usize, sessions_max: usize, partitions_max: usize, now: Instant) -> bool {
        if wanted > partitions_max || sessions_max == 0 {
            return false;
        }
        while self.by_id.len() >= sessions_max || self.partitions + wanted > partitions_max {
            let idle = self.by_id.iter().filter(|(_, session)| now.duration_since(session.used) >= KEPT);
            let idle = idle.min_by_key(|(_, session)| session.used).map(|(id, _)| *id);
            let smaller = || {
                let old = self.by_id.iter().filter(|(_, session)| now.duration_since(session.opened) >= KEPT);
                let smaller = old.filter(|(_, session)| session.order.len() < wanted);
                smaller.min_by_key(|(_, session)| session.order.len()).map(|(id, _)| *id)
            };
            let Some(id) = idle.or_else(smaller) else { return false };
            self.remove(id);
            self.evicted += 1;
        }
        true
    }
}

impl Session {
    /// Takes in a partition, or what is now asked of it.
    fn ask(&mut self, asked: Asked) {
        let key = asked.key();
        if let Some(cached) = self.places.get(&key).and_then(|place| self.order.get_mut(place)) {
            cached.asked = asked;
            return;
        }
        let place = self.take_place();
        self.places.insert(key, place);
        // Nothing was told of it yet.
        self.order.insert(place, Cached { asked, high_watermark: -1, log_start: -1 });
    }

    fn forget(&mut self, key: &Key) {
        if let Some(place) = self.places.remove(key) {
            self.order.remove(&place);
        }
    }

    /// Whether the client must be told this of a partition; if so, it is remembered as told.
    fn tell(&mut self, asked: &Asked, part: &Part) -> bool {
        let data = &part.data;
        let key = asked.key();
        let Some(place) = self.places.get(&key).copied() else { return false };
        let Some(cached) = self.order.get_mut(&place) else { return false };
        let has_records = part.has_records();
        let failed = data.error_code != 0;
        let told = (cached.high_watermark, cached.log_start) == (data.high_watermark, data.log_start_offset);
        // After an error everything is told again.
        cached.high_watermark = if failed { -1 } else { data.high_watermark };
        cached.log_start = data.log_start_offset;
        if has_records {
            // The others come first next time, so that none starves.
            let cached = self.order.remove(&place).expect("it was just looked at");
            let place = self.take_place();
            self.places.insert(key, place);
            self.order.insert(place, cached);
        }
        has_records || failed || !told
    }

    const fn take_place(&mut self) -> u64 {
        self.next_place += 1;
        self.next_place
    }
}

/// The epoch after this; past the greatest comes the first that is not the opening one.
const fn next(epoch: i32) -> i32 {
    if epoch == i32::MAX { 1 } else { epoch + 1 }
}

/// Each partition by itself. Names are copied once for each topic: a name out of a request would keep all of the request.
fn asked(topics: Vec<FetchTopic>) -> Vec<Asked> {
    let of_topic = |topic: FetchTopic| {
        let (name, id) = (TopicName(StrBytes::from_string(topic.topic.to_string())), topic.topic_id);
        topic.partitions.into_iter().map(move |mut partition| {
            partition.unknown_tagged_fields.clear();
            Asked { topic: name.clone(), topic_id: id, partition }
        })
    };
    topics.into_iter().flat_map(of_topic).collect()
}

#[cfg(test)]
mod tests;
