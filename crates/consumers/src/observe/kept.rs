//! What `observe` keeps: the events of calls that have no outcome yet, and where the spans of the newest calls are.
//!
//! | table | content |
//! | --- | --- |
//! | `events` | decisions, approvals and intents of calls that are open: they are gone when the call's span is with the collector |
//! | `calls` | the ids of the spans of calls that ended, or that went out as open: for what comes later and for the rounds of an operation |
//!
//! The database's sink adds and removes rows in the transaction that moves the positions. Spans went out before that: a kill in between
//! sends them again, and they are the same.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, Row, Statement, Transaction, params};
use serde_json::Value as Json;
use uuid::Uuid;

use super::{
    calls::Told,
    span::{SpanId, TraceId, bytes_of, text_of},
};
use crate::{
    Event,
    database::{
        Results,
        bind::{maybe, number, text},
        integer,
    },
};

/// Calls of which is remembered where their spans are.
const CALLS_MAX: i64 = 200_000;
/// Calls of an operation that one is linked to.
const ROUNDS_MAX: i64 = 8;
/// Events of one call that are looked at.
const EVENTS_OF_CALL_MAX: i64 = 256;

/// The results of `observe`, as the database wants them.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    /// Calls whose spans are with the collector: what the next commit remembers, and lets go of.
    pub(super) due: Arc<Mutex<Vec<Sent>>>,
    /// From when on the trail is looked at, in microseconds since 1970.
    pub(super) begin_us: Arc<AtomicU64>,
}

impl Results for Kept {
    const NAME: &'static str = super::NAME;
    const VERSION: i64 = 1;
    const COLUMNS: &'static [&'static str] =
        &["id", "type", "time_us", "tenant", "principal", "subject", "call_id", "data"];
    const CREATE: &'static str = r"
CREATE TABLE events (
    seq       INTEGER PRIMARY KEY,
    id        TEXT NOT NULL UNIQUE,
    type      TEXT NOT NULL,
    time_us   INTEGER NOT NULL,
    tenant    TEXT,
    principal TEXT,
    subject   TEXT,
    call_id   TEXT NOT NULL,
    data      TEXT NOT NULL
) STRICT;
CREATE INDEX events_call ON events (call_id);

CREATE TABLE calls (
    call_id      TEXT PRIMARY KEY,
    trace_id     TEXT NOT NULL,
    span_id      TEXT NOT NULL,
    operation_id TEXT,
    has_ended    INTEGER NOT NULL,
    at_us        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX calls_operation ON calls (operation_id) WHERE operation_id IS NOT NULL;
CREATE INDEX calls_age ON calls (at_us);
";

    fn keeps(&self, event: &Event) -> bool {
        is_of_call(event)
            && event.type_name != "call.outcome"
            && event.at.as_micros() >= self.begin_us.load(Ordering::Relaxed)
    }

    fn put(&self, insert: &mut Statement<'_>, at: i64, event: &Event) -> rusqlite::Result<()> {
        let id = event.id.hyphenated().to_string();
        let call_id = event.fields.call_id.as_deref().unwrap_or_default();
        // Whose it is does not matter: a row stays for as long as its call is open.
        let none = maybe(None);
        let row = [
            number(at),
            text(&id),
            text(&event.type_name),
            number(integer(event.at.as_micros())),
            none.clone(),
            none.clone(),
            none,
            text(call_id),
            text(&event.value),
        ];
        insert.execute(rusqlite::params_from_iter(row)).map(drop)
    }

    fn settle(&self, begun: &Transaction<'_>) -> rusqlite::Result<()> {
        settle(begun, &self.due.lock())
    }
}

/// Whether an event is a call's, from its decision to its outcome.
pub(super) fn is_of_call(event: &Event) -> bool {
    matches!(event.type_name.as_str(), "call.decision" | "call.approval" | "call.intent" | "call.outcome")
        && event.fields.call_id.is_some()
}

/// Where a call's span is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Sent {
    pub(super) call_id: String,
    pub(super) trace_id: TraceId,
    pub(super) span_id: SpanId,
    pub(super) operation_id: Option<String>,
    pub(super) has_ended: bool,
    pub(super) at_us: u64,
}

/// The events of an open call.
pub(super) fn events_of(connection: &Connection, call_id: &str) -> rusqlite::Result<Vec<Told>> {
    let mut select = connection
        .prepare_cached("SELECT id, type, time_us, data FROM events WHERE call_id = ?1 ORDER BY seq LIMIT ?2")?;
    select.query_map(params![call_id, EVENTS_OF_CALL_MAX], told)?.collect()
}

fn told(row: &Row<'_>) -> rusqlite::Result<Told> {
    let (id, data): (String, String) = (row.get(0)?, row.get(3)?);
    Ok(Told {
        id: Uuid::parse_str(&id).unwrap_or_default(),
        type_name: row.get(1)?,
        at_us: row.get::<_, i64>(2)?.unsigned_abs(),
        data: serde_json::from_str(&data).unwrap_or(Json::Null),
    })
}

/// A call that has no outcome yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct OpenCall {
    pub(super) since_us: u64,
    /// The approval that it waits for, and since when.
    pub(super) waits: Option<(String, u64)>,
}

/// Every open call by its id.
pub(super) fn open_calls(connection: &Connection) -> rusqlite::Result<Vec<(String, OpenCall)>> {
    let mut select = connection.prepare(
        "SELECT call_id, min(time_us),
            (SELECT json_extract(a.data, '$.state') || ' ' || a.time_us || ' ' || coalesce(json_extract(a.data, '$.approval_id'), '')
             FROM events a WHERE a.call_id = e.call_id AND a.type = 'call.approval' ORDER BY a.seq DESC LIMIT 1)
         FROM events e GROUP BY call_id",
    )?;
    let read = |row: &Row<'_>| {
        let approval: Option<String> = row.get(2)?;
        let approval = approval.and_then(|text| {
            let mut parts = text.splitn(3, ' ');
            let (state, at, id) = (parts.next()?, parts.next()?, parts.next()?);
            Some((id.to_owned(), at.parse().ok()?)).filter(|_| state == "requested")
        });
        let since_us = row.get::<_, i64>(1)?.unsigned_abs();
        Ok((row.get(0)?, OpenCall { since_us, waits: approval }))
    };
    select.query_map([], read)?.collect()
}

/// Where the span of a call is, as far as that is known.
pub(super) fn sent(connection: &Connection, call_id: &str) -> rusqlite::Result<Option<Sent>> {
    let mut select = connection.prepare_cached(
        "SELECT call_id, trace_id, span_id, operation_id, has_ended, at_us FROM calls WHERE call_id = ?1",
    )?;
    select.query_row([call_id], read_sent).optional()
}

/// The newest calls of an operation, but for one; the operation is named after its first call.
pub(super) fn rounds(connection: &Connection, operation_id: &str, but: &str) -> rusqlite::Result<Vec<Sent>> {
    let mut select = connection.prepare_cached(
        "SELECT call_id, trace_id, span_id, operation_id, has_ended, at_us FROM calls
         WHERE (operation_id = ?1 OR call_id = ?1) AND call_id <> ?2 ORDER BY at_us DESC, call_id LIMIT ?3",
    )?;
    select.query_map(params![operation_id, but, ROUNDS_MAX], read_sent)?.collect()
}

fn read_sent(row: &Row<'_>) -> rusqlite::Result<Sent> {
    let (trace_id, span_id): (String, String) = (row.get(1)?, row.get(2)?);
    Ok(Sent {
        call_id: row.get(0)?,
        trace_id: bytes_of(&trace_id).unwrap_or_default(),
        span_id: bytes_of(&span_id).unwrap_or_default(),
        operation_id: row.get(3)?,
        has_ended: row.get(4)?,
        at_us: row.get::<_, i64>(5)?.unsigned_abs(),
    })
}

/// Remembers where spans are that are with the collector now, and lets go of their events.
fn settle(begun: &Transaction<'_>, all: &[Sent]) -> rusqlite::Result<()> {
    let mut put = begun.prepare_cached("INSERT OR REPLACE INTO calls VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
    let mut remove = begun.prepare_cached("DELETE FROM events WHERE call_id = ?1")?;
    for Sent { call_id, trace_id, span_id, operation_id, has_ended, at_us } in all {
        let at_us = integer(*at_us);
        put.execute(params![call_id, text_of(trace_id), text_of(span_id), operation_id, has_ended, at_us])?;
        remove.execute([call_id])?;
    }
    Ok(())
}

/// From when on the trail is looked at: what was said when the database was made.
pub(super) fn begins(begun: &Transaction<'_>, begin_us: u64) -> rusqlite::Result<u64> {
    begun.execute("INSERT OR IGNORE INTO state (key, value) VALUES ('begins', ?1)", [begin_us.to_string()])?;
    let text: String = begun.query_row("SELECT value FROM state WHERE key = 'begins'", [], |row| row.get(0))?;
    Ok(text.parse().unwrap_or_default())
}

/// All of the trail is looked at, from where an operator moves the consumer to.
pub(super) fn begin_anew(begun: &Transaction<'_>) -> rusqlite::Result<()> {
    begun.execute("UPDATE state SET value = '0' WHERE key = 'begins'", []).map(drop)
}

/// Forgets where the spans of the oldest calls are, a bounded piece of them; whether there are more.
pub(super) fn forget(begun: &Transaction<'_>) -> rusqlite::Result<bool> {
    const PIECE: i64 = 10_000;
    let held: i64 = begun.query_row("SELECT count(*) FROM calls", [], |row| row.get(0))?;
    let surplus = (held - CALLS_MAX).clamp(0, PIECE);
    if surplus > 0 {
        let oldest = "DELETE FROM calls WHERE call_id IN (SELECT call_id FROM calls ORDER BY at_us LIMIT ?1)";
        begun.execute(oldest, [surplus])?;
    }
    Ok(surplus == PIECE)
}
