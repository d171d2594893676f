//! What `context` makes of events: their rows, and from those the freshest versions and who has seen which.
//!
//! Two orders meet, as in the freshness guard: a read counts as of the moment when it was asked for, because the answer may be as
//! old as that; a change counts as of the moment when it was seen. What is newest is the newest by these, whichever came first.

use cairn_clock::Timestamp;
use cairn_contract::Topic;
use rusqlite::{OptionalExtension, Row, Statement, Transaction, params, params_from_iter, types::ToSqlOutput};

use super::schema::{COLUMNS, CREATE, VERSION};
use crate::{
    Event, Standing,
    database::{
        Results,
        bind::{NULL, maybe, number, text},
        integer,
    },
};

/// Events that are kept where nothing else is said: about a gigabyte.
pub const EVENTS_MAX: u64 = 500_000;

/// The results of `context`.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// Events that are kept; the oldest go first.
    pub events_max: u64,
}

impl Default for Context {
    fn default() -> Self {
        Self { events_max: EVENTS_MAX }
    }
}

/// What an event says of a resource.
struct Told<'e> {
    version: Option<&'e str>,
    cause: Option<&'e str>,
    at: Timestamp,
    sees: bool,
}

fn told(event: &Event) -> Option<Told<'_>> {
    let fields = &event.fields;
    if fields.server.is_none() || fields.mcp_resource_uri.is_none() {
        return None;
    }
    let version = fields.version.as_deref();
    match event.type_name.as_str() {
        "context.read" => {
            let asked = fields.asked_at.as_deref().and_then(|text| text.parse().ok());
            Some(Told { version, cause: None, at: asked.unwrap_or(event.at), sees: fields.principal.is_some() })
        }
        "context.changed" => {
            let cause = fields.cause.as_deref().unwrap_or("unknown");
            // Whoever wrote it knows what they wrote.
            let sees = cause == "write" && fields.principal.is_some();
            Some(Told { version, cause: Some(cause), at: event.at, sees })
        }
        _ => None,
    }
}

impl Results for Context {
    const NAME: &'static str = super::NAME;
    const VERSION: i64 = VERSION;
    const CREATE: &'static str = CREATE;
    const COLUMNS: &'static [&'static str] = &COLUMNS;

    fn keeps(&self, event: &Event) -> bool {
        matches!(Topic::of_anybody(&event.topic), Some(Topic::Calls | Topic::Context))
            || matches!(event.type_name.as_str(), "subject.held" | "subject.released")
    }

    fn put(&self, insert: &mut Statement<'_>, at: i64, event: &Event) -> rusqlite::Result<()> {
        let (fields, told) = (&event.fields, told(event));
        let id = event.id.hyphenated().to_string();
        let row: [ToSqlOutput<'_>; COLUMNS.len() + 1] = [
            number(at),
            text(&id),
            text(&event.type_name),
            number(event.contract.version.into()),
            text(&event.topic),
            number(event.partition.into()),
            number(integer(event.offset)),
            text(&event.time),
            number(integer(event.at.as_micros())),
            text(&event.source),
            maybe(event.subject.as_deref()),
            maybe(fields.workflow_id.as_deref()),
            maybe(fields.call_id.as_deref()),
            maybe(fields.tenant.as_deref()),
            maybe(fields.principal.as_deref()),
            maybe(fields.agent.as_deref().or(fields.agent_name.as_deref())),
            maybe(fields.server.as_deref()),
            maybe(fields.mcp_method_name.as_deref()),
            maybe(fields.mcp_resource_uri.as_deref()),
            maybe(told.as_ref().and_then(|told| told.version)),
            maybe(told.as_ref().and_then(|told| told.cause)),
            told.as_ref().map_or(NULL, |told| number(integer(told.at.as_micros()))),
            number(told.as_ref().is_some_and(|told| told.sees).into()),
            maybe(fields.subject.as_deref()),
            number(i64::from(matches!(event.standing, Standing::Current | Standing::Prior))),
            text(&event.value),
        ];
        insert.execute(params_from_iter(row)).map(drop)
    }

    fn settle(&self, begun: &Transaction<'_>) -> rusqlite::Result<()> {
        settle_resources(begun)?;
        settle_views(begun)
    }

    fn events_max(&self) -> Option<u64> {
        Some(self.events_max)
    }
}

/// An event by which something of a resource is known.
struct Known {
    version: Option<String>,
    at_us: i64,
    id: String,
    topic: String,
    partition: i64,
    offset: i64,
    cause: Option<String>,
}

const KNOWN: &str = "version, at_us, id, topic, partition, offset, cause";

fn known(row: &Row<'_>) -> rusqlite::Result<Known> {
    Ok(Known {
        version: row.get(0)?,
        at_us: row.get(1)?,
        id: row.get(2)?,
        topic: row.get(3)?,
        partition: row.get(4)?,
        offset: row.get(5)?,
        cause: row.get(6)?,
    })
}

/// Makes the freshest version anew of each resource that a row came or went of.
fn settle_resources(begun: &Transaction<'_>) -> rusqlite::Result<()> {
    let touched: Vec<[String; 3]> = begun
        .prepare_cached("SELECT tenant, server, uri FROM touched_resources")?
        .query_map([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]))?
        .collect::<Result<_, _>>()?;
    if touched.is_empty() {
        return Ok(());
    }
    let newest = |which: &str| {
        let of = "tenant IS nullif(?1, '') AND server = ?2 AND resource = ?3 AND at_us >= 0";
        begun.prepare_cached(&format!(
            "SELECT {KNOWN} FROM events WHERE {of} AND {which} ORDER BY at_us DESC, id DESC LIMIT 1"
        ))
    };
    let mut change = newest("type = 'context.changed'")?;
    let mut read = newest("type = 'context.read' AND version IS NOT NULL")?;
    let mut unread = newest("type = 'context.read'")?;
    let mut remove = begun.prepare_cached("DELETE FROM resources WHERE tenant = ?1 AND server = ?2 AND uri = ?3")?;
    let mut put = begun.prepare_cached(
        "INSERT INTO resources (tenant, server, uri, version, at_us, how, id, topic, partition, offset, changed_us, cause, read_us)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
    )?;
    for of in &touched {
        remove.execute(params_from_iter(of))?;
        let changed = change.query_row(params_from_iter(of), known).optional()?;
        let read = read.query_row(params_from_iter(of), known).optional()?;
        let (changed_us, read_us) = (changed.as_ref().map(|one| one.at_us), read.as_ref().map(|one| one.at_us));
        let cause = changed.as_ref().and_then(|one| one.cause.clone());
        let (how, freshest) = match (changed, read) {
            (Some(changed), Some(read)) if read.at_us < changed.at_us => ("changed", changed),
            (Some(changed), None) => ("changed", changed),
            (_, Some(read)) => ("read", read),
            // Read, and its server gives no versions.
            (None, None) => match unread.query_row(params_from_iter(of), known).optional()? {
                Some(read) => ("read", read),
                None => continue,
            },
        };
        let [tenant, server, uri] = of;
        let Known { version, at_us, id, topic, partition, offset, .. } = freshest;
        put.execute(params![
            tenant, server, uri, version, at_us, how, id, topic, partition, offset, changed_us, cause, read_us
        ])?;
    }
    begun.execute("DELETE FROM touched_resources", []).map(drop)
}

/// Makes anew what each viewer has seen last of each resource that a row of theirs came or went of.
fn settle_views(begun: &Transaction<'_>) -> rusqlite::Result<()> {
    let touched: Vec<[String; 5]> = begun
        .prepare_cached("SELECT tenant, principal, server, uri, agent FROM touched_views")?
        .query_map([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?]))?
        .collect::<Result<_, _>>()?;
    if touched.is_empty() {
        return Ok(());
    }
    let mut remove = begun.prepare_cached(
        "DELETE FROM views WHERE tenant = ?1 AND principal = ?2 AND server = ?3 AND uri = ?4 AND agent = ?5",
    )?;
    let mut put = begun.prepare_cached(
        "INSERT INTO views
         SELECT ?1, ?2, ?3, ?4, ?5, version, at_us, iif(cause IS NULL, 'read', 'wrote'), id, topic, partition, offset, workflow_id, call_id
         FROM events
         WHERE sees = 1 AND principal = ?2 AND tenant IS nullif(?1, '') AND server = ?3 AND resource = ?4 AND agent IS nullif(?5, '')
         ORDER BY at_us DESC, id DESC LIMIT 1",
    )?;
    for of in &touched {
        remove.execute(params_from_iter(of))?;
        put.execute(params_from_iter(of))?;
    }
    begun.execute("DELETE FROM touched_views", []).map(drop)
}
