//! Questions to the context database: read-only, within limits, and within what whoever asks may see.
//!
//! Every question takes a [`Scope`]. Within that of a principal a resource is only what that principal's agents have seen, and an
//! event only one of that principal's. It must never change anything, and never answer without end: a page is bounded, and a
//! question that takes too long is cut off.

use std::{path::Path, time::Duration};

use cairn_clock::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row, ToSql, named_params};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::schema::VERSION;

/// How long one question may take.
const TIME_MAX: Duration = Duration::from_secs(5);
/// How long the writer may keep a question waiting.
const BUSY_MAX: Duration = Duration::from_secs(2);
/// Steps of SQLite's machine between two looks at the time.
const STEPS: i32 = 10_000;
/// Events of one workflow that are read.
pub const WORKFLOW_EVENTS_MAX: usize = 1_000;
/// And about their bytes.
const WORKFLOW_BYTES_MAX: usize = 2 << 20;
/// About the bytes of one page.
const PAGE_BYTES_MAX: usize = 128 << 10;
/// Newest events among which recent workflows are looked for.
const RECENT_MAX: i64 = 20_000;

/// What of the trail may be looked at.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Scope {
    /// One tenant; the empty text is what belongs to none, and `None` all of them.
    pub tenant: Option<String>,
    /// One principal; `None` is all of them.
    pub principal: Option<String>,
}

impl Scope {
    /// What a principal may look at: their own, in their own tenant.
    #[must_use]
    pub fn of(tenant: Option<&str>, principal: &str) -> Self {
        Self { tenant: Some(tenant.unwrap_or_default().to_owned()), principal: Some(principal.to_owned()) }
    }
}

/// Some of the answers to a question.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Page {
    /// The answers.
    pub items: Vec<Value>,
    /// Where the next page begins, where there is one.
    pub next: Option<String>,
}

/// Which resources are asked about.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Resources {
    /// Of that server.
    pub server: Option<String>,
    /// Of that URI, as it stands in events.
    pub uri: Option<String>,
    /// Whose URI begins so.
    pub prefix: Option<String>,
}

/// Which changes are asked about.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    /// Since then.
    pub since: Timestamp,
    /// Of these resources.
    pub of: Resources,
}

/// Whose views are asked about.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Seen {
    /// Of that agent.
    pub agent: Option<String>,
    /// Of these resources.
    pub of: Resources,
}

/// An event as it was kept.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs, reason = "each is the event's part of that name")]
pub struct Kept {
    pub topic: String,
    pub partition: u32,
    pub offset: u64,
    pub id: String,
    pub type_name: String,
    pub time: String,
    pub source: String,
    pub about: Option<String>,
    pub workflow_id: Option<String>,
    pub call_id: Option<String>,
    pub value: String,
}

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AskError {
    /// Nothing was ever applied here.
    #[error(
        "there is no context at {path}: its consumer makes it, run `cairn up` with [consumers.context] or `cairn consume context`"
    )]
    Missing {
        /// Where it would lie.
        path: String,
    },
    /// What is asked makes no sense.
    #[error("{reason}")]
    Refused {
        /// Why, and what to write.
        reason: String,
    },
    /// It took too long.
    #[error("it takes longer than {} s: ask about one server, or a shorter time", TIME_MAX.as_secs())]
    Slow,
    /// The database cannot be read at the moment.
    #[error("the context cannot be read: {reason}")]
    Away {
        /// What SQLite said.
        reason: String,
    },
}

impl From<rusqlite::Error> for AskError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => Self::Slow,
            _ => Self::Away { reason: error.to_string() },
        }
    }
}

/// Conditions on a resource's tenant, server and URI, under these names of the columns; those of a table, so that within the
/// inner question they stay the outer one's.
fn within(tenant: &str, server: &str, uri: &str) -> String {
    format!(
        "(:tenant IS NULL OR {tenant} = :tenant) AND (:server IS NULL OR {server} = :server)
         AND (:uri IS NULL OR {uri} = :uri) AND (:prefix IS NULL OR substr({uri}, 1, length(:prefix)) = :prefix)
         AND (:principal IS NULL OR EXISTS (SELECT 1 FROM views v WHERE v.tenant = {tenant} AND v.principal = :principal
              AND v.server = {server} AND v.uri = {uri}))"
    )
}

/// Answers questions; opened for each.
#[derive(Debug)]
pub struct Reader(Connection);

impl Reader {
    /// Opens the database.
    ///
    /// # Errors
    /// There is none, or it is of another layout.
    pub fn open(path: &Path) -> Result<Self, AskError> {
        if !path.exists() {
            return Err(AskError::Missing { path: path.display().to_string() });
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_MAX)?;
        connection.pragma_update(None, "query_only", true)?;
        connection.pragma_update(None, "cache_size", -8_192)?;
        match connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))? {
            VERSION => {}
            // Made a moment ago, and nothing is in it yet.
            0 => return Err(AskError::Missing { path: path.display().to_string() }),
            other => {
                let reason = format!("{} has layout {other}, and this Cairn knows {VERSION}", path.display());
                return Err(AskError::Away { reason });
            }
        }
        let deadline = Instant::now() + TIME_MAX;
        connection.progress_handler(STEPS, Some(move || Instant::now() >= deadline))?;
        Ok(Self(connection))
    }

    /// When the newest event was made that the answers stand on.
    ///
    /// # Errors
    /// As [`AskError`] says.
    pub fn as_of(&self) -> Result<Option<String>, AskError> {
        let newest = self.0.query_row("SELECT time FROM events ORDER BY id DESC LIMIT 1", [], |row| row.get(0));
        Ok(newest.optional()?)
    }

    /// Resources with their freshest known version, by tenant, server and URI.
    ///
    /// # Errors
    /// As [`AskError`] says.
    pub fn resources(
        &self,
        scope: &Scope,
        asked: &Resources,
        (after, most): (Option<&str>, usize),
    ) -> Result<Page, AskError> {
        let [tenant, server, uri] = cursor(after)?;
        let of = within("r.tenant", "r.server", "r.uri");
        let sql = format!(
            "SELECT tenant, server, uri, version, at_us, how, id, topic, partition, offset, changed_us, cause, read_us
             FROM resources r WHERE (tenant, server, uri) > (:from_tenant, :from_server, :from_uri) AND {of}
             ORDER BY tenant, server, uri LIMIT :most"
        );
        let from: [(&str, &dyn ToSql); 3] = [(":from_tenant", &tenant), (":from_server", &server), (":from_uri", &uri)];
        self.paged(&sql, (scope, asked), &from, most, |row| {
            let key: [String; 3] = [row.get(0)?, row.get(1)?, row.get(2)?];
            let mut item = json!({
                "server": key[1], "uri": key[2], "version": text(row, 3)?, "at": time(row, 4)?,
                "how": text(row, 5)?, "event": event(row, 6)?,
            });
            optional(&mut item, "tenant", given(&key[0]));
            optional(&mut item, "changed_at", time(row, 10)?);
            optional(&mut item, "cause", text(row, 11)?);
            optional(&mut item, "read_at", time(row, 12)?);
            Ok((json!(key), item))
        })
    }

    /// What changed since then, oldest first.
    ///
    /// # Errors
    /// As [`AskError`] says.
    pub fn changes(
        &self,
        scope: &Scope,
        asked: &Changes,
        (after, most): (Option<&str>, usize),
    ) -> Result<Page, AskError> {
        let (since_us, id): (i64, String) = match after {
            Some(text) => serde_json::from_str(text).map_err(|_| no_cursor())?,
            None => (asked.since.as_micros().try_into().unwrap_or(i64::MAX), String::new()),
        };
        let of = within("coalesce(e.tenant, '')", "e.server", "e.resource");
        let sql = format!(
            "SELECT time_us, id, topic, partition, offset, tenant, server, resource, version, cause, principal, workflow_id, call_id
             FROM events e WHERE cause IS NOT NULL AND (time_us, id) > (:from_us, :from_id) AND {of}
             ORDER BY time_us, id LIMIT :most"
        );
        let from: [(&str, &dyn ToSql); 2] = [(":from_us", &since_us), (":from_id", &id)];
        self.paged(&sql, (scope, &asked.of), &from, most, |row| {
            let mut item = json!({
                "at": time(row, 0)?, "server": text(row, 6)?, "uri": text(row, 7)?, "version": text(row, 8)?,
                "cause": text(row, 9)?, "event": event(row, 1)?,
            });
            optional(&mut item, "tenant", text(row, 5)?);
            let principal: Option<String> = row.get(10)?;
            // Who else did it is not for everybody to know.
            if scope.principal.is_none() || scope.principal == principal {
                optional(&mut item, "principal", json!(principal));
                optional(&mut item, "workflow_id", text(row, 11)?);
                optional(&mut item, "call_id", text(row, 12)?);
            }
            Ok((json!((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)), item))
        })
    }

    /// What each principal's agents have seen last of each resource, and whether something newer is known.
    ///
    /// # Errors
    /// As [`AskError`] says.
    pub fn seen(&self, scope: &Scope, asked: &Seen, (after, most): (Option<&str>, usize)) -> Result<Page, AskError> {
        let [tenant, principal, server, uri, agent] = cursor(after)?;
        let sql = "SELECT s.tenant, s.principal, s.server, s.uri, s.agent, s.version, s.at_us, s.how, s.id, s.topic, s.partition, s.offset,
                    s.workflow_id, s.call_id, r.version, r.changed_us, r.read_us
             FROM views s LEFT JOIN resources r ON r.tenant = s.tenant AND r.server = s.server AND r.uri = s.uri
             WHERE (s.tenant, s.principal, s.server, s.uri, s.agent) > (:from_tenant, :from_principal, :from_server, :from_uri, :from_agent)
               AND (:tenant IS NULL OR s.tenant = :tenant) AND (:principal IS NULL OR s.principal = :principal)
               AND (:agent IS NULL OR s.agent = :agent) AND (:server IS NULL OR s.server = :server)
               AND (:uri IS NULL OR s.uri = :uri) AND (:prefix IS NULL OR substr(s.uri, 1, length(:prefix)) = :prefix)
             ORDER BY s.tenant, s.principal, s.server, s.uri, s.agent LIMIT :most";
        let from: [(&str, &dyn ToSql); 6] = [
            (":from_tenant", &tenant),
            (":from_principal", &principal),
            (":from_server", &server),
            (":from_uri", &uri),
            (":from_agent", &agent),
            (":agent", &asked.agent),
        ];
        self.paged(sql, (scope, &asked.of), &from, most, |row| {
            let key: [String; 5] = [row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?];
            let (version, at_us): (Option<String>, i64) = (row.get(5)?, row.get(6)?);
            let known: (Option<String>, Option<i64>, Option<i64>) = (row.get(14)?, row.get(15)?, row.get(16)?);
            let mut item = json!({
                "principal": key[1], "server": key[2], "uri": key[3], "version": version, "at": time(row, 6)?,
                "how": text(row, 7)?, "event": event(row, 8)?, "freshest": known.0,
                "is_stale": is_stale((&version, at_us), &known),
            });
            optional(&mut item, "tenant", given(&key[0]));
            optional(&mut item, "agent", given(&key[4]));
            optional(&mut item, "workflow_id", text(row, 12)?);
            optional(&mut item, "call_id", text(row, 13)?);
            Ok((json!(key), item))
        })
    }

    /// One workflow's events, oldest first, and whether there are more than is read.
    ///
    /// # Errors
    /// As [`AskError`] says.
    pub fn workflow(&self, scope: &Scope, id: &str) -> Result<(Vec<Kept>, bool), AskError> {
        self.events("workflow_id = :id", scope, id)
    }

    /// One call's events, likewise.
    ///
    /// # Errors
    /// As [`AskError`] says.
    pub fn call(&self, scope: &Scope, id: &str) -> Result<(Vec<Kept>, bool), AskError> {
        // Its workflow has an index, and so has where it was decided.
        let within =
            "workflow_id IN (SELECT d.workflow_id FROM events d WHERE d.type = 'call.decision' AND d.call_id = :id)
                      AND call_id = :id";
        self.events(within, scope, id)
    }

    fn events(&self, which: &str, scope: &Scope, id: &str) -> Result<(Vec<Kept>, bool), AskError> {
        let sql = format!(
            "SELECT topic, partition, offset, id, type, time, source, about, workflow_id, call_id, data FROM events
             WHERE {which} AND (:tenant IS NULL OR coalesce(tenant, '') = :tenant)
               AND (:principal IS NULL OR principal = :principal)
             ORDER BY time_us, id LIMIT :most"
        );
        let mut select = self.0.prepare_cached(&sql)?;
        let named = named_params! {
            ":id": id, ":tenant": scope.tenant, ":principal": scope.principal, ":most": WORKFLOW_EVENTS_MAX as i64 + 1,
        };
        let (mut rows, mut events, mut bytes) = (select.query(named)?, Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let event = Kept {
                topic: row.get(0)?,
                partition: row.get(1)?,
                offset: row.get::<_, i64>(2)?.unsigned_abs(),
                id: row.get(3)?,
                type_name: row.get(4)?,
                time: row.get(5)?,
                source: row.get(6)?,
                about: row.get(7)?,
                workflow_id: row.get(8)?,
                call_id: row.get(9)?,
                value: row.get(10)?,
            };
            bytes += event.value.len();
            if events.len() == WORKFLOW_EVENTS_MAX || bytes > WORKFLOW_BYTES_MAX {
                return Ok((events, true));
            }
            events.push(event);
        }
        Ok((events, false))
    }

    /// The workflows that were decided about last, the newest first.
    ///
    /// # Errors
    /// As [`AskError`] says.
    pub fn recent_workflows(&self, scope: &Scope, most: usize) -> Result<Vec<Value>, AskError> {
        let sql = "SELECT workflow_id, principal, time, about FROM (SELECT * FROM events ORDER BY id DESC LIMIT :recent)
                   WHERE type = 'call.decision' AND workflow_id IS NOT NULL
                     AND (:tenant IS NULL OR coalesce(tenant, '') = :tenant) AND (:principal IS NULL OR principal = :principal)";
        let mut select = self.0.prepare_cached(sql)?;
        let named = named_params! { ":recent": RECENT_MAX, ":tenant": scope.tenant, ":principal": scope.principal };
        let (mut rows, mut seen, mut found) = (select.query(named)?, std::collections::HashSet::new(), Vec::new());
        while let Some(row) = rows.next()?.filter(|_| found.len() < most) {
            let id: String = row.get(0)?;
            if seen.insert(id.clone()) {
                found.push(json!({ "workflow_id": id, "principal": text(row, 1)?, "at": text(row, 2)?, "last": text(row, 3)? }));
            }
        }
        Ok(found)
    }

    /// Rows of a question that has a place for where its page begins; each gives where the next would begin, and itself.
    fn paged(
        &self,
        sql: &str,
        (scope, of): (&Scope, &Resources),
        from: &[(&str, &dyn ToSql)],
        most: usize,
        read: impl Fn(&Row<'_>) -> rusqlite::Result<(Value, Value)>,
    ) -> Result<Page, AskError> {
        let mut select = self.0.prepare_cached(sql)?;
        // One more shows whether there is another page.
        let limit = most as i64 + 1;
        let mut named: Vec<(&str, &dyn ToSql)> = vec![
            (":tenant", &scope.tenant),
            (":principal", &scope.principal),
            (":server", &of.server),
            (":uri", &of.uri),
            (":prefix", &of.prefix),
            (":most", &limit),
        ];
        named.extend_from_slice(from);
        let mut rows = select.query(named.as_slice())?;
        let (mut page, mut last, mut bytes) = (Page::default(), Value::Null, 0);
        while let Some(row) = rows.next()? {
            if page.items.len() == most || bytes > PAGE_BYTES_MAX {
                page.next = Some(last.to_string());
                break;
            }
            let (key, item) = read(row)?;
            bytes += item.to_string().len();
            last = key;
            page.items.push(item);
        }
        Ok(page)
    }
}

/// Where a page begins, as the one before said; before everything where there is none.
fn cursor<const N: usize>(after: Option<&str>) -> Result<[String; N], AskError> {
    let Some(text) = after else { return Ok(std::array::from_fn(|_| String::new())) };
    let parts: Vec<String> = serde_json::from_str(text).map_err(|_| no_cursor())?;
    parts.try_into().map_err(|_| no_cursor())
}

fn no_cursor() -> AskError {
    AskError::Refused { reason: "the cursor is not one that this question gave: leave it out to begin".to_owned() }
}

/// Whether something newer than a view is known, as the freshness guard has it.
fn is_stale((seen, at_us): (&Option<String>, i64), known: &(Option<String>, Option<i64>, Option<i64>)) -> bool {
    let (version, changed_us, read_us) = known;
    match (version, seen) {
        (Some(known), Some(seen)) if known == seen => false,
        (Some(_), Some(_)) => (*changed_us).max(*read_us).is_some_and(|newest| newest >= at_us),
        _ => changed_us.is_some_and(|changed| changed > at_us),
    }
}

fn text(row: &Row<'_>, index: usize) -> rusqlite::Result<Value> {
    Ok(json!(row.get::<_, Option<String>>(index)?))
}

fn time(row: &Row<'_>, index: usize) -> rusqlite::Result<Value> {
    let micros: Option<i64> = row.get(index)?;
    Ok(json!(micros.map(|micros| Timestamp::from_micros(micros.unsigned_abs()).to_string())))
}

/// The place of an event whose id is at `index`, with topic, partition and offset behind it.
fn event(row: &Row<'_>, index: usize) -> rusqlite::Result<Value> {
    Ok(json!({
        "id": text(row, index)?, "topic": text(row, index + 1)?,
        "partition": row.get::<_, i64>(index + 2)?, "offset": row.get::<_, i64>(index + 3)?,
    }))
}

/// What the empty text stands for: nothing.
fn given(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { json!(text) }
}

/// Keys that do not apply are absent.
fn optional(item: &mut Value, key: &str, value: Value) {
    if !value.is_null() {
        item[key] = value;
    }
}
