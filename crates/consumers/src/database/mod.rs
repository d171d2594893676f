//! A SQLite file that holds what one consumer makes of events, whichever consumer it is.
//!
//! [`Database`] is the [`crate::Sink`]; a consumer says by [`Results`] which tables it has and which row comes of an event. What
//! all have in common is done here, once: positions, dead letters, pauses and moves, replacing, retention, legal holds, and who may
//! apply at a time. Each file can be made again from the trail as far back as that is kept.

pub(crate) mod bind;
pub(crate) mod retention;
mod sink;

use std::{
    fmt,
    fs::File,
    io,
    path::{Path, PathBuf},
};

use rusqlite::{Statement, Transaction};

pub use sink::Database;
#[cfg(feature = "postgres")]
pub(crate) use sink::{DEAD_LETTERS_MAX, seq};
pub(crate) use sink::{REFUSED, integer, place_of};

use crate::Event;

/// What one consumer makes of events.
///
/// It MUST have a table `events` with one row for each event that it keeps, and in it `seq` (the primary key, which it is
/// given), `id` (the event's, unique), `type`, `time_us`, `tenant`, `principal` and `subject`. Whatever else it holds MUST follow from
/// those rows alone, whichever way they came to be there.
pub trait Results: Default + fmt::Debug + Send + 'static {
    /// The consumer's name, and the file's.
    const NAME: &'static str;
    /// The version of its tables.
    const VERSION: i64;
    /// Makes its tables.
    const CREATE: &'static str;
    /// The columns of `events` behind `seq`, in the order in which [`Results::put`] binds them.
    const COLUMNS: &'static [&'static str];

    /// Whether an event has a row.
    fn keeps(&self, _event: &Event) -> bool {
        true
    }

    /// Adds the row of an event, `at` being its `seq`, by the statement that takes `seq` and [`Results::COLUMNS`].
    ///
    /// # Errors
    /// SQLite refuses it.
    fn put(&self, insert: &mut Statement<'_>, at: i64, event: &Event) -> rusqlite::Result<()>;

    /// Lets follow whatever follows from rows that came, changed or went; called before each commit.
    ///
    /// # Errors
    /// SQLite refuses.
    fn settle(&self, _begun: &Transaction<'_>) -> rusqlite::Result<()> {
        Ok(())
    }

    /// How many events it keeps at most; the oldest go first.
    fn events_max(&self) -> Option<u64> {
        None
    }
}

/// What all databases have beside their own tables: [`Results::CREATE`] comes behind it.
///
/// | table | content |
/// | --- | --- |
/// | `dead_letters` | records that are no events, or were refused; `seq` as in `events` |
/// | `places` | each partition of each topic that was seen: its number, its topic's id, the offset that is read next, and the one since which nothing was left out or removed |
/// | `state` | `instance` (who this database is in its group), `paused`, `moves` |
const CREATE: &str = r"
CREATE TABLE places (
    place     INTEGER PRIMARY KEY,
    topic     TEXT NOT NULL,
    partition INTEGER NOT NULL,
    topic_id  TEXT NOT NULL,
    next      INTEGER NOT NULL,
    whole     INTEGER NOT NULL,
    UNIQUE (topic, partition, topic_id)
) STRICT;

CREATE TABLE state (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE dead_letters (
    seq       INTEGER PRIMARY KEY,
    topic     TEXT NOT NULL,
    partition INTEGER NOT NULL,
    offset    INTEGER NOT NULL,
    time_us   INTEGER NOT NULL,
    bytes     INTEGER NOT NULL,
    reason    TEXT NOT NULL
) STRICT;
";

/// Where the database of that consumer lies in a data folder.
#[must_use]
pub fn path(data: &Path, name: &str) -> PathBuf {
    data.join("consumers").join(name).with_extension("sqlite")
}

/// Held by the process that applies events to a database, until it ends.
#[derive(Debug)]
pub struct Holder(#[allow(dead_code, reason = "the lock lasts as long as it is open")] File);

impl Holder {
    /// Takes the database for this process; makes its folder where it lacks.
    ///
    /// # Errors
    /// Another process has it (`WouldBlock`), or the folder cannot be made.
    pub fn take(database: &Path) -> io::Result<Self> {
        if let Some(folder) = database.parent() {
            make_private(folder)?;
        }
        let lock = open_private(&database.with_extension("lock"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self(lock)),
            Err(std::fs::TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

fn make_private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// A file that only its owner reads.
fn open_private(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().create(true).write(true).truncate(false).mode(0o600).open(path)
}
