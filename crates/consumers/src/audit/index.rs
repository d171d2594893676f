//! Where the events of a workflow lie: the audit database as an index of the trail.
//!
//! It tells places and never contents: whoever shows events reads them from the trail, so nothing that happened to this file can
//! change what is shown. What the database does not cover (what came since, what it was moved past, what its retention removed)
//! it says, partition by partition; the caller reads that as if there were no index.

use std::{ops::Range, path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use tokio::time::Instant;

use super::{query::QueryError, schema::VERSION};
use crate::database::{REFUSED, place_of};

/// How long the writer may keep it waiting.
const BUSY_MAX: Duration = Duration::from_secs(2);
/// How long it may take.
const TIME_MAX: Duration = Duration::from_secs(10);
/// Steps of SQLite's machine between two looks at the time.
const STEPS: i32 = 10_000;

/// A partition that the database knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Covered {
    /// The topic.
    pub topic: String,
    /// Its id; empty where the cluster has none.
    pub topic_id: String,
    /// The partition.
    pub partition: u32,
    /// The offsets of which the index lacks none.
    pub whole: Range<u64>,
    /// Where events that were asked for lie, in order.
    pub offsets: Vec<u64>,
}

/// Where the events of these workflows lie.
///
/// # Errors
/// There is no database, or it cannot be read in time.
pub fn find(path: &Path, workflows: &[&str]) -> Result<Vec<Covered>, QueryError> {
    if !path.exists() {
        return Err(QueryError::Missing { path: path.display().to_string() });
    }
    let deadline = Instant::now() + TIME_MAX;
    let found = look(path, workflows, move || Instant::now() >= deadline);
    found.map_err(|error| QueryError::Away { reason: error.to_string() })
}

fn look(
    path: &Path,
    workflows: &[&str],
    is_late: impl FnMut() -> bool + Send + 'static,
) -> rusqlite::Result<Vec<Covered>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_MAX)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.progress_handler(STEPS, Some(is_late))?;
    // One view of both tables: the writer goes on meanwhile.
    let begun = connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
    if begun.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))? != VERSION {
        return Ok(Vec::new());
    }
    let mut covered = places(&begun)?;
    let mut select = begun.prepare("SELECT seq FROM events WHERE workflow_id = ?1")?;
    for workflow in workflows {
        let mut rows = select.query([workflow])?;
        while let Some(row) = rows.next()? {
            note(&mut covered, row.get(0)?);
        }
    }
    // Events that a table did not take stand in no row of it.
    let mut select = begun.prepare("SELECT seq FROM dead_letters WHERE reason = ?1")?;
    let mut rows = select.query([REFUSED])?;
    while let Some(row) = rows.next()? {
        note(&mut covered, row.get(0)?);
    }
    drop(rows);
    let mut covered: Vec<Covered> = covered.into_values().collect();
    covered.iter_mut().for_each(|place| {
        place.offsets.sort_unstable();
        place.offsets.dedup();
    });
    Ok(covered)
}

type Places = std::collections::BTreeMap<i64, Covered>;

fn places(connection: &Connection) -> rusqlite::Result<Places> {
    let mut select = connection.prepare("SELECT place, topic, topic_id, partition, whole, next FROM places")?;
    let read = |row: &rusqlite::Row<'_>| {
        let whole = row.get::<_, i64>(4)?.unsigned_abs()..row.get::<_, i64>(5)?.unsigned_abs();
        let (topic, topic_id, partition) = (row.get(1)?, row.get(2)?, row.get(3)?);
        Ok((row.get(0)?, Covered { topic, topic_id, partition, whole, offsets: Vec::new() }))
    };
    select.query_map([], read)?.collect()
}

fn note(places: &mut Places, seq: i64) {
    let (place, offset) = place_of(seq);
    if let Some(covered) = places.get_mut(&place) {
        covered.offsets.push(offset);
    }
}
