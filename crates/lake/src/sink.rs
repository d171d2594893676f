//! The sink of the consumer `lake`: events become rows that wait in memory, and from time to time a commit of the table.
//!
//! Where it stands is what waits and what is committed together; after a crash it is what is committed, and the rest is read again. An event
//! that lies twice near to itself counts once, by its id ([`Near`]). Called by the consumer's thread; the store is
//! reached through the runtime.

use std::{
    collections::{BTreeMap, HashMap},
    sync::LazyLock,
    time::Duration,
};

use bytes::Bytes;
use cairn_backbone::group::Place;
use cairn_clock::Timestamp;
use cairn_consumers::{Batch, Control, DeadLetter, Event, Position, Replayed, Sink, SinkError};
use serde::{Deserialize, Serialize};
use tokio::{runtime::Handle, time::Instant};

use crate::{
    columns, events,
    iceberg::{
        manifest::{Bound, DataFile},
        metadata::{Operation, Stand},
    },
    joining,
    near::{self, Near},
    retention,
    table::{Change, Moved, Table, TableError},
};

/// What a file's footer calls the offsets that it holds.
pub const RANGES: &str = "cairn.ranges";
/// Bytes of rows that may wait, of all topics.
const WAITING_BYTES_MAX: usize = 256 << 20;
/// Dead letters of one commit that are written down; more are counted.
const DEAD_MAX: usize = 10_000;
/// Commits of one round of work on the table itself, at most.
const TIDIES_MAX: usize = 16;

/// When a commit is due.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// After so long, where anything waits.
    pub every: Duration,
    /// Or when so many bytes of rows wait.
    pub bytes: usize,
    /// How often it is looked what is due by retention, and which files are small.
    pub tidies: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { every: Duration::from_secs(60), bytes: 128 << 20, tidies: Duration::from_secs(600) }
    }
}

/// Which partition of which topic.
type Key = (String, String, u32);

/// How far the rows that wait reach.
#[derive(Clone, Copy, Debug)]
struct Reach {
    from: Option<u64>,
    next: u64,
}

/// Offsets of one partition that a file holds all rows of; in its footer, under [`RANGES`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Covered {
    /// The topic.
    pub topic: String,
    /// Its id.
    pub topic_id: String,
    /// The partition.
    pub partition: u32,
    /// The first offset.
    pub from: u64,
    /// The offset behind the last one.
    pub to: u64,
}

/// Rows of one topic, and the bounds that engines prune by.
#[derive(Debug)]
pub struct Rows {
    table: columns::Table,
    partitions: (u32, u32),
    offsets: (u64, u64),
    times: (u64, u64),
}

impl Rows {
    /// Rows, the first one of them.
    fn new(first: &Event) -> Self {
        let at = first.at.as_micros();
        let (partition, offset) = (first.partition, first.offset);
        Self {
            table: columns::Table::new(events::FIELDS),
            partitions: (partition, partition),
            offsets: (offset, offset),
            times: (at, at),
        }
    }

    fn add(&mut self, event: &Event, topic_id: &str) {
        fn widen<T: Ord + Copy>(bounds: &mut (T, T), with: T) {
            *bounds = (bounds.0.min(with), bounds.1.max(with));
        }
        widen(&mut self.partitions, event.partition);
        widen(&mut self.offsets, event.offset);
        widen(&mut self.times, event.at.as_micros());
        match wrong(event) {
            Some(event) => events::add(&mut self.table, &event, topic_id),
            None => events::add(&mut self.table, event, topic_id),
        }
    }

    fn bounds(&self) -> Vec<Bound> {
        let long = |field: i32, (lower, upper): (u64, u64)| {
            let bytes = |number: u64| i64::try_from(number).unwrap_or(i64::MAX).to_le_bytes().to_vec();
            Bound { field, lower: bytes(lower), upper: bytes(upper) }
        };
        let int = |number: u32| i32::try_from(number).unwrap_or(i32::MAX).to_le_bytes().to_vec();
        let (first, last) = self.partitions;
        vec![
            Bound { field: events::PARTITION, lower: int(first), upper: int(last) },
            long(events::OFFSET, self.offsets),
            long(events::TIME, self.times),
        ]
    }
}

/// An event with another outcome than it has, where `CAIRN_LAKE_FAULT=outcomes` asks for that: for a test that mends it by a replay.
fn wrong(event: &Event) -> Option<Event> {
    static IS_FAULTY: LazyLock<bool> =
        LazyLock::new(|| std::env::var_os("CAIRN_LAKE_FAULT").is_some_and(|fault| fault == "outcomes"));
    let is_spoiled = *IS_FAULTY && event.fields.outcome.is_some();
    is_spoiled.then(|| {
        let mut wrong = event.clone();
        wrong.fields.outcome = Some("failed".to_owned());
        wrong
    })
}

/// Rows by topic, on their way to files.
#[derive(Debug, Default)]
pub struct Gathered {
    topics: BTreeMap<String, Rows>,
    bytes: usize,
    rows: usize,
}

impl Gathered {
    /// Adds the row of an event.
    pub fn add(&mut self, event: &Event, topic_id: &str) {
        let rows = self.topics.entry(event.topic.clone()).or_insert_with(|| Rows::new(event));
        let before = rows.table.bytes();
        rows.add(event, topic_id);
        self.bytes += rows.table.bytes() - before;
        self.rows += 1;
    }

    /// How many rows there are.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// The bytes that they take in memory, about.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// A file for each topic, to be put where it says: numbered from `number` on. `ranges` are the offsets that they hold all rows of.
    ///
    /// # Errors
    /// Parquet refuses.
    pub fn files(
        self,
        ranges: &[Covered],
        path_of: impl Fn(usize) -> String,
        number: usize,
    ) -> Result<Vec<(DataFile, Bytes)>, TableError> {
        let mut files = Vec::new();
        for (topic, rows) in self.topics {
            let (bounds, count) = (rows.bounds(), rows.table.rows() as i64);
            let of_topic: Vec<&Covered> = ranges.iter().filter(|range| range.topic == topic).collect();
            let about = serde_json::to_string(&of_topic).unwrap_or_default();
            let mut bytes = Vec::new();
            let written = rows.table.write(&mut bytes, vec![(RANGES.to_owned(), about)]);
            written.map_err(|error| TableError::Broken { reason: format!("rows cannot be written: {error}") })?;
            let (path, length) = (path_of(number + files.len()), bytes.len() as i64);
            files.push((DataFile { path, topic, rows: count, bytes: length, bounds }, bytes.into()));
        }
        Ok(files)
    }
}

/// A commit of which it is not known yet whether it happened, with what it puts beside the table first.
#[derive(Debug)]
struct Open {
    change: Change,
    files: Vec<Bytes>,
    dead: Option<Bytes>,
    is_put: bool,
}

/// The table as a consumer's sink.
#[derive(Debug)]
pub struct LakeSink {
    table: Table,
    handle: Handle,
    pace: Pace,
    /// Where it stands, with what waits.
    stands: HashMap<Key, u64>,
    waiting: Gathered,
    reach: BTreeMap<Key, Reach>,
    dead: Vec<DeadLetter>,
    dead_more: u64,
    near: HashMap<Key, Near>,
    since: Option<Instant>,
    open: Option<Open>,
    looked: Option<Instant>,
}

impl LakeSink {
    /// A sink into a table that was taken for writing.
    ///
    /// # Errors
    /// What was written last cannot be read.
    pub fn new(table: Table, handle: Handle, pace: Pace) -> Result<Self, SinkError> {
        let mut sink = Self {
            table,
            handle,
            pace,
            stands: HashMap::new(),
            waiting: Gathered::default(),
            reach: BTreeMap::new(),
            dead: Vec::new(),
            dead_more: 0,
            near: HashMap::new(),
            since: None,
            open: None,
            looked: None,
        };
        sink.stand()?;
        Ok(sink)
    }

    /// Who the table is in its group.
    #[must_use]
    pub fn instance(&self) -> String {
        self.table.head().instance.clone()
    }

    /// Stands where the table does, and forgets what waits.
    fn stand(&mut self) -> Result<(), SinkError> {
        let stands = self.table.stands();
        self.near = self.handle.block_on(near::read(&mut self.table)).map_err(sunk)?;
        let stands = stands.into_iter();
        self.stands =
            stands.map(|Stand { topic, topic_id, partition, next }| ((topic, topic_id, partition), next)).collect();
        (self.waiting, self.since, self.open) = (Gathered::default(), None, None);
        self.reach.clear();
        self.dead.clear();
        self.dead_more = 0;
        Ok(())
    }

    fn is_due(&self) -> bool {
        let is_full = self.waiting.bytes >= self.pace.bytes.min(WAITING_BYTES_MAX) || self.dead.len() >= DEAD_MAX;
        is_full || self.since.is_some_and(|since| since.elapsed() >= self.pace.every)
    }

    /// Commits what waits; where that cannot be done now, the same is committed later.
    fn flush(&mut self) -> Result<(), SinkError> {
        if self.open.is_none() && !self.reach.is_empty() {
            let open = self.written().map_err(sunk)?;
            self.open = Some(open);
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        let table = &mut self.table;
        let committed = self.handle.block_on(async {
            if !open.is_put {
                if let Some(dead) = &open.dead {
                    let name = format!("dead/{:08x}-{}.jsonl", table.head().epoch, open.change.id);
                    table.put_beside(&name, dead.clone()).await?;
                }
                for (file, bytes) in open.change.added.iter().zip(&open.files) {
                    table.put_rows(&file.path, bytes.clone()).await?;
                }
                (open.is_put, open.files) = (true, Vec::new());
            }
            table.commit(&open.change).await
        });
        match committed {
            Ok(()) => {
                self.open = None;
                Ok(())
            }
            Err(TableError::Elsewhere { .. }) => {
                self.stand()?;
                Err(SinkError::Moved)
            }
            Err(error) => Err(sunk(error)),
        }
    }

    /// What waits, as a change and the bytes that it puts beside the table.
    fn written(&mut self) -> Result<Open, TableError> {
        let id = self.table.nonce();
        let (waiting, reach) = (std::mem::take(&mut self.waiting), std::mem::take(&mut self.reach));
        let (dead, more) = (std::mem::take(&mut self.dead), std::mem::take(&mut self.dead_more));
        self.since = None;
        let covered = |((topic, topic_id, partition), Reach { from, next }): (&Key, &Reach)| Covered {
            topic: topic.clone(),
            topic_id: topic_id.clone(),
            partition: *partition,
            from: from.unwrap_or_default(),
            to: *next,
        };
        let ranges: Vec<Covered> = reach.iter().map(covered).collect();
        let (added, files) = waiting.files(&ranges, |number| self.table.path_of(&id, number), 0)?.into_iter().unzip();
        let about =
            (!dead.is_empty()).then(|| ("cairn.dead-letters".to_owned(), (dead.len() as u64 + more).to_string()));
        let moved = reach.into_iter().map(|((topic, topic_id, partition), Reach { from, next })| Moved {
            topic,
            topic_id,
            partition,
            from,
            next,
        });
        let change = Change {
            id,
            operation: Operation::Append,
            moved: moved.collect(),
            added,
            removed: [].into(),
            about: about.into_iter().collect(),
        };
        Ok(Open { change, files, dead: (!dead.is_empty()).then(|| lines(&dead)), is_put: false })
    }

    /// Looks after the table itself. What waits is not touched, because none of it moves.
    fn tidy(&mut self, now: Timestamp) -> Result<(), TableError> {
        let table = &mut self.table;
        self.handle.block_on(async {
            retention::expire(table, now).await?;
            for _ in 0..TIDIES_MAX {
                if !joining::join(table).await? {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Takes the batch among what waits.
    fn wait(&mut self, batch: &Batch) {
        let mut ids: HashMap<(&str, u32), &str> = HashMap::new();
        for advance in &batch.advances {
            let Place { topic, partition } = &advance.place;
            ids.insert((topic, *partition), &advance.topic_id);
            let key = (topic.clone(), advance.topic_id.clone(), *partition);
            self.stands.insert(key.clone(), advance.next);
            self.reach.entry(key).or_insert(Reach { from: advance.from, next: advance.next }).next = advance.next;
        }
        for event in &batch.events {
            let topic_id = ids.get(&(event.topic.as_str(), event.partition)).copied().unwrap_or_default();
            let key = (event.topic.clone(), topic_id.to_owned(), event.partition);
            if self.near.entry(key).or_default().is_new(event.offset, event.id) {
                self.waiting.add(event, topic_id);
            }
        }
        for dead in &batch.dead {
            if self.dead.len() < DEAD_MAX { self.dead.push(dead.clone()) } else { self.dead_more += 1 }
        }
        self.since.get_or_insert_with(Instant::now);
    }
}

/// Dead letters as lines of JSON.
fn lines(dead: &[DeadLetter]) -> Bytes {
    let line = |one: &DeadLetter| {
        let told = serde_json::json!({
            "topic": one.topic, "partition": one.partition, "offset": one.offset, "timestamp_ms": one.timestamp_ms,
            "bytes": one.bytes, "reason": one.reason,
        });
        format!("{told}\n")
    };
    dead.iter().map(line).collect::<String>().into()
}

fn sunk(error: TableError) -> SinkError {
    match error {
        TableError::Away { reason } => SinkError::Away { reason },
        TableError::Elsewhere { .. } => SinkError::Moved,
        TableError::Fenced { .. } => SinkError::Taken { reason: error.to_string() },
        TableError::Broken { reason } => SinkError::Broken { reason },
    }
}

impl Sink for LakeSink {
    fn positions(&mut self) -> Result<Vec<Position>, SinkError> {
        let position = |((topic, topic_id, partition), next): (&Key, &u64)| Position {
            place: Place { topic: topic.clone(), partition: *partition },
            topic_id: topic_id.clone(),
            next: *next,
        };
        Ok(self.stands.iter().map(position).collect())
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), SinkError> {
        if self.open.is_some() {
            self.flush()?;
        }
        for advance in &batch.advances {
            let key = (advance.place.topic.clone(), advance.topic_id.clone(), advance.place.partition);
            if self.stands.get(&key).copied() != advance.from {
                return Err(SinkError::Moved);
            }
        }
        if self.is_due() {
            self.flush()?;
        }
        self.wait(batch);
        Ok(())
    }

    fn replace(&mut self, _: &Batch) -> Result<Replayed, SinkError> {
        Err(SinkError::Broken { reason: "the table is put right by `cairn-lake replay`".to_owned() })
    }

    fn move_to(&mut self, _: &[Position]) -> Result<(), SinkError> {
        let reason = "the log ends before what the table holds, and its topics have no ids: make the table anew";
        Err(SinkError::Broken { reason: reason.to_owned() })
    }

    fn control(&mut self) -> Result<Control, SinkError> {
        Ok(Control::default())
    }

    fn pause(&mut self, _: bool) -> Result<(), SinkError> {
        Err(SinkError::Broken { reason: "stop the process: it goes on where the table ends".to_owned() })
    }

    fn tend(&mut self, now: Timestamp) -> Result<bool, SinkError> {
        if self.open.is_some() || self.is_due() {
            self.flush()?;
        }
        if self.looked.is_none_or(|looked| looked.elapsed() >= self.pace.tidies) && self.open.is_none() {
            self.looked = Some(Instant::now());
            self.tidy(now).map_err(sunk)?;
        }
        // Something waits: it is asked again soon.
        Ok(!self.reach.is_empty())
    }

    fn end(&mut self) -> Result<(), SinkError> {
        self.flush()
    }
}

#[cfg(test)]
mod tests;
