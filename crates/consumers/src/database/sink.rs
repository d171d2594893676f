//! The sink: batches and positions into SQLite, in one transaction.
//!
//! The file is in WAL mode and synced at checkpoints only: after a power loss it is as after some earlier batch, positions
//! included, so the rest is read again. Opened by the process that holds it, by the admin API for pauses and moves, and by
//! `cairn replay`; each transaction says by itself where it must begin, so they do not get in each other's way.

use std::{collections::HashMap, path::Path, time::Duration};

use cairn_backbone::group::Place;
use cairn_clock::{Entropy, Timestamp};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, params, types::ValueRef};

use super::{CREATE, Results, open_private, retention::Retention};
use crate::{Advance, Batch, Control, DeadLetter, Position, Replayed, Sink, SinkError};

/// How long another process may hold the file before that counts as away.
const BUSY_MAX: Duration = Duration::from_secs(10);
/// Pages in memory, in KiB.
const CACHE_KIB: i64 = 32 * 1_024;
/// Pages in the write-ahead log before they are moved into the file.
const WAL_PAGES: i64 = 8_192;
/// Dead letters that are kept.
pub(crate) const DEAD_LETTERS_MAX: i64 = 100_000;
/// Events past the bound that are removed at once.
const SURPLUS_MAX: u64 = 2_000;
/// Why an event that the database did not take is a dead letter.
pub(crate) const REFUSED: &str = "the database refuses what it holds";
/// Bits of the offset in `seq`.
const OFFSET_BITS: u32 = 48;

/// A consumer's database, for writing.
#[derive(Debug)]
pub struct Database<R: Results> {
    connection: Connection,
    instance: String,
    retention: Retention,
    results: R,
    /// The statement that adds a row of `events`.
    insert: String,
}

impl<R: Results> Database<R> {
    /// Opens the database, and makes it where there is none.
    ///
    /// # Errors
    /// It cannot be opened, or was made by a newer Cairn.
    pub fn open(path: &Path, entropy: &Entropy) -> Result<Self, SinkError> {
        Self::open_for(path, entropy, R::default())
    }

    /// The same, with results that are set up in some way.
    ///
    /// # Errors
    /// As [`Database::open`].
    pub fn open_for(path: &Path, entropy: &Entropy, results: R) -> Result<Self, SinkError> {
        // Made here, so that nobody else reads it.
        open_private(path).map_err(|error| SinkError::Away { reason: format!("{}: {error}", path.display()) })?;
        let said = |error: rusqlite::Error| of(&error, path);
        let connection = Connection::open(path).map_err(said)?;
        connection.busy_timeout(BUSY_MAX).map_err(said)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(said)?;
        connection.pragma_update(None, "synchronous", "NORMAL").map_err(said)?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB).map_err(said)?;
        connection.pragma_update(None, "wal_autocheckpoint", WAL_PAGES).map_err(said)?;
        connection.pragma_update(None, "journal_size_limit", 64 << 20).map_err(said)?;
        let (instance, retention, insert) = (String::new(), Retention::default(), insert(R::COLUMNS));
        let mut sink = Self { connection, instance, retention, results, insert };
        sink.prepare(path, entropy)?;
        Ok(sink)
    }

    fn prepare(&mut self, path: &Path, entropy: &Entropy) -> Result<(), SinkError> {
        let said = |error: rusqlite::Error| of(&error, path);
        let begun = begin(&mut self.connection).map_err(said)?;
        let version: i64 = begun.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(said)?;
        match version {
            version if version == R::VERSION => {}
            0 => {
                begun.execute_batch(CREATE).map_err(said)?;
                begun.execute_batch(R::CREATE).map_err(said)?;
                let mut random = [0; 8];
                entropy.fill(&mut random);
                let instance: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
                let put = "INSERT INTO state (key, value) VALUES ('instance', ?1), ('paused', '0'), ('moves', '0')";
                begun.execute(put, [format!("{}-{instance}", R::NAME)]).map_err(said)?;
                begun.pragma_update(None, "user_version", R::VERSION).map_err(said)?;
            }
            other => {
                let (path, known) = (path.display(), R::VERSION);
                let reason = format!(
                    "{path} has layout {other}, and this Cairn knows {known}: run the newer Cairn, or move the file away and have it made again from the trail"
                );
                return Err(SinkError::Broken { reason });
            }
        }
        let instance = begun.query_row("SELECT value FROM state WHERE key = 'instance'", [], |row| row.get(0));
        let instance = instance.map_err(said)?;
        begun.commit().map_err(said)?;
        self.instance = instance;
        Ok(())
    }

    /// Who this database is in its group.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Looks something up.
    #[cfg(feature = "observe")]
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, SinkError> {
        look(&self.connection).map_err(|error| plain(&error))
    }

    /// Does something in a transaction of its own.
    #[cfg(feature = "observe")]
    pub(crate) fn within<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, SinkError> {
        let worked = || {
            let begun = begin(&mut self.connection)?;
            let done = work(&begun)?;
            begun.commit()?;
            Ok(done)
        };
        worked().map_err(|error| plain(&error))
    }

    /// Writes a batch over whatever came of its offsets before. Where `moves`, the positions must be as it says and move on.
    fn write(&mut self, batch: &Batch, moves: bool) -> Result<Replayed, SinkError> {
        let Self { connection, results, insert, .. } = self;
        let begun = begin(connection).map_err(|error| plain(&error))?;
        let mut done = Replayed::default();
        let mut numbers = HashMap::new();
        let mut before = HashMap::new();
        for advance in &batch.advances {
            let number = place(&begun, advance, moves)?;
            let range = [seq(number, advance.from.unwrap_or_default()), seq(number, advance.next)];
            if !moves {
                before.extend(rows(&begun, range).map_err(|error| plain(&error))?);
            }
            let removed = begun.prepare_cached("DELETE FROM events WHERE seq >= ?1 AND seq < ?2");
            removed.and_then(|mut remove| remove.execute(range)).map_err(|error| plain(&error))?;
            let removed = begun.prepare_cached("DELETE FROM dead_letters WHERE seq >= ?1 AND seq < ?2");
            removed.and_then(|mut remove| remove.execute(range)).map_err(|error| plain(&error))?;
            numbers.insert((advance.place.topic.as_str(), advance.place.partition), number);
        }
        let number = |topic: &str, partition: u32| numbers.get(&(topic, partition)).copied().unwrap_or_default();
        {
            let mut insert = begun.prepare_cached(insert).map_err(|error| plain(&error))?;
            for (index, event) in batch.events.iter().enumerate().filter(|(_, event)| results.keeps(event)) {
                let at = seq(number(&event.topic, event.partition), event.offset);
                results.put(&mut insert, at, event).map_err(|error| refused(&error, index))?;
            }
            let mut insert = begun
                .prepare_cached("INSERT OR REPLACE INTO dead_letters VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")
                .map_err(|error| plain(&error))?;
            for dead in &batch.dead {
                let DeadLetter { topic, partition, offset, timestamp_ms, bytes, reason } = dead;
                let row = params![
                    seq(number(topic, *partition), *offset),
                    topic,
                    partition,
                    integer(*offset),
                    timestamp_ms.saturating_mul(1_000),
                    integer(*bytes),
                    reason
                ];
                insert.execute(row).map_err(|error| plain(&error))?;
            }
        }
        results.settle(&begun).map_err(|error| plain(&error))?;
        if !moves {
            done.records = batch.len() as u64;
            done.dead_letters = batch.dead.len() as u64;
            done.replaced = before.len() as u64;
            done.changed = compared(&begun, batch, &numbers, before).map_err(|error| plain(&error))?;
        }
        begun.commit().map_err(|error| plain(&error))?;
        Ok(done)
    }
}

/// An event that came before at another offset counts once.
fn insert(columns: &[&str]) -> String {
    let marks: Vec<String> = (1..=columns.len() + 1).map(|index| format!("?{index}")).collect();
    let (columns, marks) = (columns.join(", "), marks.join(", "));
    format!("INSERT INTO events (seq, {columns}) VALUES ({marks}) ON CONFLICT (id) DO NOTHING")
}

fn begin(connection: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    // At once, so that two writers never wait for each other in the middle.
    connection.transaction_with_behavior(TransactionBehavior::Immediate)
}

/// How many rows of a batch's offsets are other than before, new, or gone.
fn compared(
    begun: &Transaction<'_>,
    batch: &Batch,
    numbers: &HashMap<(&str, u32), i64>,
    mut before: HashMap<i64, u64>,
) -> rusqlite::Result<u64> {
    let mut changed = 0;
    for advance in &batch.advances {
        let number = numbers.get(&(advance.place.topic.as_str(), advance.place.partition)).copied().unwrap_or_default();
        let range = [seq(number, advance.from.unwrap_or_default()), seq(number, advance.next)];
        for (at, digest) in rows(begun, range)? {
            changed += u64::from(before.remove(&at) != Some(digest));
        }
    }
    Ok(changed + before.len() as u64)
}

/// A digest of each row of `events` in that range, by its `seq`.
fn rows(begun: &Transaction<'_>, range: [i64; 2]) -> rusqlite::Result<Vec<(i64, u64)>> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut select = begun.prepare_cached("SELECT * FROM events WHERE seq >= ?1 AND seq < ?2")?;
    let width = select.column_count();
    let digest = |row: &rusqlite::Row<'_>| {
        let mut hasher = DefaultHasher::new();
        for column in 0..width {
            match row.get_ref(column)? {
                ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.hash(&mut hasher),
                ValueRef::Integer(number) => number.hash(&mut hasher),
                ValueRef::Real(number) => number.to_bits().hash(&mut hasher),
                ValueRef::Null => 0_u8.hash(&mut hasher),
            }
        }
        Ok((row.get(0)?, hasher.finish()))
    };
    select.query_map(range, digest)?.collect()
}

/// The place's number. Where the sink moves, it must stand where the batch begins, and stands at its end then.
fn place(begun: &Transaction<'_>, advance: &Advance, moves: bool) -> Result<i64, SinkError> {
    let Advance { place, topic_id, from, next } = advance;
    let select = "SELECT place, next FROM places WHERE topic = ?1 AND partition = ?2 AND topic_id = ?3";
    let found = begun
        .prepare_cached(select)
        .and_then(|mut select| {
            let key = params![place.topic, place.partition, topic_id];
            select.query_row(key, |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))).optional()
        })
        .map_err(|error| plain(&error))?;
    if moves && found.map(|(_, stands)| stands) != from.map(integer) {
        return Err(SinkError::Moved);
    }
    match found {
        Some((number, _)) if moves => {
            let moved = begun.prepare_cached("UPDATE places SET next = ?1 WHERE place = ?2");
            moved.and_then(|mut moved| moved.execute([integer(*next), number])).map_err(|error| plain(&error))?;
            Ok(number)
        }
        Some((number, _)) => Ok(number),
        None if moves => {
            // It begins with the first record that is kept, so nothing is left out.
            let put = "INSERT INTO places (topic, partition, topic_id, next, whole) VALUES (?1, ?2, ?3, ?4, 0)";
            let row = params![place.topic, place.partition, topic_id, integer(*next)];
            begun.execute(put, row).map_err(|error| plain(&error))?;
            Ok(begun.last_insert_rowid())
        }
        // Nothing came of a partition that the sink never saw.
        None => Err(SinkError::Moved),
    }
}

impl<R: Results> Sink for Database<R> {
    fn positions(&mut self) -> Result<Vec<Position>, SinkError> {
        let read = |row: &rusqlite::Row<'_>| {
            let place = Place { topic: row.get(0)?, partition: row.get(1)? };
            Ok(Position { place, topic_id: row.get(2)?, next: row.get::<_, i64>(3)?.unsigned_abs() })
        };
        let select = self.connection.prepare_cached("SELECT topic, partition, topic_id, next FROM places");
        let found = select.and_then(|mut select| select.query_map([], read)?.collect());
        found.map_err(|error| plain(&error))
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), SinkError> {
        self.write(batch, true).map(drop)
    }

    fn replace(&mut self, batch: &Batch) -> Result<Replayed, SinkError> {
        self.write(batch, false)
    }

    fn move_to(&mut self, positions: &[Position]) -> Result<(), SinkError> {
        let mut moved = || {
            let begun = begin(&mut self.connection)?;
            for Position { place, topic_id, next } in positions {
                // Forward leaves out what lies between; back, and all from there on comes anew.
                let put = "INSERT INTO places (topic, partition, topic_id, next, whole) VALUES (?1, ?2, ?3, ?4, ?4)
                           ON CONFLICT (topic, partition, topic_id) DO UPDATE SET next = excluded.next,
                           whole = CASE WHEN excluded.next > next THEN excluded.next ELSE min(whole, excluded.next) END";
                begun.execute(put, params![place.topic, place.partition, topic_id, integer(*next)])?;
            }
            begun.execute("UPDATE state SET value = CAST(value AS INTEGER) + 1 WHERE key = 'moves'", [])?;
            begun.commit()
        };
        moved().map_err(|error| plain(&error))
    }

    fn control(&mut self) -> Result<Control, SinkError> {
        let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?));
        let select = self.connection.prepare_cached("SELECT key, value FROM state WHERE key IN ('paused', 'moves')");
        let found: rusqlite::Result<Vec<_>> = select.and_then(|mut select| select.query_map([], read)?.collect());
        let found = found.map_err(|error| plain(&error))?;
        let of = |key: &str| found.iter().find(|(found, _)| found == key).map(|(_, value)| value.as_str());
        Ok(Control {
            is_paused: of("paused") == Some("1"),
            moves: of("moves").and_then(|moves| moves.parse().ok()).unwrap_or_default(),
        })
    }

    fn pause(&mut self, is_paused: bool) -> Result<(), SinkError> {
        let value = if is_paused { "1" } else { "0" };
        let done = self.connection.execute("UPDATE state SET value = ?1 WHERE key = 'paused'", [value]);
        done.map(drop).map_err(|error| plain(&error))
    }

    fn tend(&mut self, now: Timestamp) -> Result<bool, SinkError> {
        let Self { connection, results, retention, .. } = self;
        let mut tended = || {
            let begun = begin(connection)?;
            let bound = "DELETE FROM dead_letters WHERE seq IN
                         (SELECT seq FROM dead_letters ORDER BY time_us DESC LIMIT 1000 OFFSET ?1)";
            begun.execute(bound, [DEAD_LETTERS_MAX])?;
            let is_more = retention.expire(&begun, now)? | cut(&begun, results.events_max())?;
            results.settle(&begun)?;
            begun.commit()?;
            Ok(is_more)
        };
        tended().map_err(|error| plain(&error))
    }
}

/// Removes some of the oldest events past a bound; whether there are more. Ids begin with their time.
fn cut(begun: &Transaction<'_>, events_max: Option<u64>) -> rusqlite::Result<bool> {
    let Some(most) = events_max else { return Ok(false) };
    let held: i64 = begun.query_row("SELECT count(*) FROM events", [], |row| row.get(0))?;
    let surplus = held.unsigned_abs().saturating_sub(most);
    if surplus > 0 {
        // Who is held must not be forgotten.
        let oldest = "DELETE FROM events WHERE seq IN (SELECT seq FROM events
                      WHERE type NOT IN ('subject.held', 'subject.released') ORDER BY id LIMIT ?1)";
        begun.execute(oldest, [integer(surplus.min(SURPLUS_MAX))])?;
        begun.execute("UPDATE places SET whole = next", [])?;
    }
    Ok(surplus > SURPLUS_MAX)
}

pub(crate) const fn seq(place: i64, offset: u64) -> i64 {
    (place << OFFSET_BITS) | integer(offset)
}

/// The place's number and the offset that a `seq` stands for.
pub(crate) const fn place_of(seq: i64) -> (i64, u64) {
    (seq >> OFFSET_BITS, (seq & ((1 << OFFSET_BITS) - 1)).unsigned_abs())
}

/// SQLite's integers have a sign; no offset comes near to it.
pub(crate) const fn integer(number: u64) -> i64 {
    if number > i64::MAX as u64 { i64::MAX } else { number as i64 }
}

fn of(error: &rusqlite::Error, path: &Path) -> SinkError {
    match plain(error) {
        SinkError::Away { reason } => SinkError::Away { reason: format!("{}: {reason}", path.display()) },
        SinkError::Broken { reason } => SinkError::Broken { reason: format!("{}: {reason}", path.display()) },
        other => other,
    }
}

/// An error that no event is to blame for.
fn plain(error: &rusqlite::Error) -> SinkError {
    let reason = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => SinkError::Away { reason: format!("{reason}: make room on its disk") },
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::CannotOpen
            | ErrorCode::PermissionDenied
            | ErrorCode::ReadOnly
            | ErrorCode::SystemIoFailure
            | ErrorCode::OperationInterrupted
            | ErrorCode::OutOfMemory,
        ) => SinkError::Away { reason },
        _ => SinkError::Broken {
            reason: format!("{reason}: move the database away, and it is made again from the trail"),
        },
    }
}

/// An error of one event's row.
fn refused(error: &rusqlite::Error, index: usize) -> SinkError {
    match error.sqlite_error_code() {
        Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch) => {
            // Its words may hold what the row holds.
            SinkError::Refused { index, reason: REFUSED.to_owned() }
        }
        _ => plain(error),
    }
}
