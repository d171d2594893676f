//! Questions to the database in SQL: read-only, and within limits of time, rows and memory.
//!
//! Each has a connection of its own, which is given up behind it, and a transaction that may only read and is taken back. That would not
//! stop what has effects beside a transaction, so it is not relied on alone: the question must be what a cursor can be made of, which
//! PostgreSQL itself decides (one SELECT, VALUES or TABLE that changes nothing); it calls functions of PostgreSQL's own alone, and none
//! that is volatile, as PostgreSQL's catalogue says; and when it is planned, and nothing of it was run yet, it must hold nothing but
//! Cairn's own tables. A user of its own, who may only read, is a third wall.

use std::{pin::pin, time::Duration};

use futures::StreamExt;
use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::Value;
use tokio::time::Instant;
use tokio_postgres::{Client, Transaction, error::SqlState, types::Oid};

use super::{
    link::{self, Fault},
    options::Options,
    schema,
    statement::{self, Called},
};
use crate::{
    SinkError,
    audit::query::{Answer, Limits, QueryError},
};

/// A row larger than this is refused, before it leaves the server.
const ROW_BYTES_MAX: usize = 4 << 20;
const SQL_BYTES_MAX: usize = 64 << 10;
/// How long behind its limit a server may still take to say so.
const GRACE: Duration = Duration::from_secs(5);
/// Volatile functions that change nothing.
const HARMLESS: [&str; 3] = ["random", "clock_timestamp", "timeofday"];
/// Functions that are not volatile, and run a text as a statement or tell of other things than tables; and what may name an operator of
/// somebody else's.
const DENIED: [&str; 4] = ["current_setting", "ts_stat", "ts_rewrite", "operator"];
/// How those begin that tell of the server or manage it.
const SERVERS_OWN: &str = "pg_";
const HARMLESS_OF_THOSE: [&str; 2] = ["pg_typeof", "pg_column_size"];
/// What those are called that make XML of whatever a text names.
const XML: &str = "_to_xml";

/// Asks the database.
///
/// # Errors
/// It changes something, is no SQL, takes too long, or there is no database.
pub fn ask(options: &Options, sql: &str, limits: &Limits) -> Result<Answer, QueryError> {
    let begun = Instant::now();
    let answered = link::alone(link::within(limits.time_max + GRACE, answered(options, sql, limits)));
    let (columns, rows, is_cut) = answered.map_err(|stopped| match stopped {
        Stopped::Refused(error) => error,
        Stopped::Failed(Fault::Late) => QueryError::Slow { time_max: limits.time_max },
        Stopped::Failed(error) => fault(&error, options, limits),
    })?;
    Ok(Answer { columns, rows, is_cut, elapsed: begun.elapsed() })
}

/// Why there is no answer.
enum Stopped {
    Refused(QueryError),
    Failed(Fault),
}

impl From<QueryError> for Stopped {
    fn from(error: QueryError) -> Self {
        Self::Refused(error)
    }
}

impl From<Fault> for Stopped {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault)
    }
}

impl From<tokio_postgres::Error> for Stopped {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Failed(error.into())
    }
}

fn refused(reason: impl Into<String>) -> QueryError {
    QueryError::Refused { reason: reason.into() }
}

/// Columns, rows, and whether there is more.
type Found = (Vec<String>, Vec<Vec<Value>>, bool);

async fn answered(options: &Options, sql: &str, limits: &Limits) -> Result<Found, Stopped> {
    let deadline = Instant::now() + limits.time_max;
    if sql.len() > SQL_BYTES_MAX {
        return Err(QueryError::Sql { reason: format!("the question is longer than {SQL_BYTES_MAX} bytes") }.into());
    }
    let (sql, called) = statement::read(sql).map_err(refused)?;
    let session =
        format!("SET default_transaction_read_only = on; SET statement_timeout = {};", milliseconds(deadline));
    let mut connected = link::connect(options, options.asks(), &session).await?;
    match schema::layout(&connected.client).await? {
        Some(layout) => schema::check(layout, options)?,
        None => return Err(QueryError::Missing { path: options.shown().to_owned() }.into()),
    }
    permit_functions(&connected.client, options, called).await?;
    let tables = tables(&connected.client, options).await?;
    // As it stands it is one statement, whole: nothing of it can reach out of what is put around it.
    let asked = connected.client.prepare(sql).await?;
    if asked.columns().is_empty() {
        return Err(refused("it asks for nothing").into());
    }
    if !asked.params().is_empty() {
        return Err(refused("it has parameters").into());
    }
    let columns: Vec<String> = asked.columns().iter().map(|column| column.name().to_owned()).collect();
    let begun = connected.client.build_transaction().read_only(true).start().await?;
    declare(&begun, sql).await?;
    permit_tables(&begun, &tables).await?;
    let (rows, is_cut) = fetched(&begun, columns.len(), limits, deadline).await?;
    // Never kept, whatever it did.
    begun.rollback().await?;
    Ok((columns, rows, is_cut))
}

fn milliseconds(deadline: Instant) -> u128 {
    deadline.saturating_duration_since(Instant::now()).as_millis().max(1)
}

/// Refuses functions that are not PostgreSQL's own, and those that do more than compute.
async fn permit_functions(client: &Client, options: &Options, called: Vec<Called>) -> Result<(), Stopped> {
    let is_elsewhere =
        |one: &&Called| one.schema.as_ref().is_some_and(|schema| *schema != options.schema && schema != "pg_catalog");
    if let Some(one) = called.iter().find(is_elsewhere) {
        return Err(refused(format!("the function {} is of another schema", one.name)).into());
    }
    let names: Vec<String> = called.into_iter().map(|one| one.name).collect();
    let is_denied = |name: &&String| {
        let is_servers = name.starts_with(SERVERS_OWN) && !HARMLESS_OF_THOSE.contains(&name.as_str());
        is_servers || name.contains(XML) || DENIED.contains(&name.as_str())
    };
    if let Some(name) = names.iter().find(is_denied) {
        return Err(refused(format!("the function {name} does more than compute")).into());
    }
    let select =
        "SELECT p.proname::text FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
        WHERE p.proname::text = ANY($1) AND (n.nspname = 'pg_catalog' AND (p.provolatile = 'v' OR p.prokind = 'p')
              OR n.nspname = $2::text AND p.proname <> 'json_extract') AND p.proname::text <> ALL($3) LIMIT 1";
    let harmless: Vec<&str> = HARMLESS.to_vec();
    match client.query_opt(select, &[&names, &options.schema, &harmless]).await? {
        Some(row) => Err(refused(format!("the function {} does more than compute", row.get::<_, &str>(0))).into()),
        None => Ok(()),
    }
}

/// What a question may read: Cairn's own tables, their indices, and the list of locks that tells what it reads.
async fn tables(client: &Client, options: &Options) -> Result<Vec<Oid>, Stopped> {
    let select = "SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = $1::text OR c.oid = 'pg_catalog.pg_locks'::pg_catalog.regclass";
    let rows = client.query(select, &[&options.schema]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Plans the question, and runs nothing of it.
async fn declare(begun: &Transaction<'_>, sql: &str) -> Result<(), Stopped> {
    let around = format!(
        "DECLARE question NO SCROLL CURSOR FOR
         SELECT CASE WHEN pg_catalog.octet_length(cairn_row.line) <= {ROW_BYTES_MAX} THEN cairn_row.line END
         FROM (SELECT pg_catalog.row_to_json(cairn_question)::pg_catalog.text AS line FROM (\n{sql}\n) AS cairn_question) AS cairn_row"
    );
    begun.execute(around.as_str(), &[]).await.map(drop).map_err(|error| match error.code() {
        // By itself it was a statement that can be run.
        Some(code) if *code == SqlState::SYNTAX_ERROR || *code == SqlState::FEATURE_NOT_SUPPORTED => {
            refused(format!("it is no SELECT: {}", link::words(&error))).into()
        }
        _ => error.into(),
    })
}

/// Refuses a question whose plan holds other tables than Cairn's.
async fn permit_tables(begun: &Transaction<'_>, tables: &[Oid]) -> Result<(), Stopped> {
    let select = "SELECT l.relation::pg_catalog.regclass::pg_catalog.text FROM pg_catalog.pg_locks l
        WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation' AND l.relation <> ALL($1) LIMIT 1";
    match begun.query_opt(select, &[&tables]).await? {
        Some(row) => Err(refused(format!("{} is none of Cairn's tables", row.get::<_, &str>(0))).into()),
        None => Ok(()),
    }
}

async fn fetched(
    begun: &Transaction<'_>,
    columns: usize,
    limits: &Limits,
    deadline: Instant,
) -> Result<(Vec<Vec<Value>>, bool), Stopped> {
    begun.batch_execute(&format!("SET LOCAL statement_timeout = {}", milliseconds(deadline))).await?;
    let fetch = format!("FETCH FORWARD {} FROM question", limits.rows_max.saturating_add(1).min(i32::MAX as usize));
    let fetch = begun.prepare(&fetch).await?;
    let none: [&str; 0] = [];
    let mut found = pin!(begun.query_raw(&fetch, none).await?);
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while let Some(row) = found.next().await {
        let row = row?;
        let line: Option<&str> = row.get(0);
        let large =
            || QueryError::Sql { reason: format!("a row is larger than {ROW_BYTES_MAX} bytes: ask for less of it") };
        let cells = cells(line.ok_or_else(large)?, columns)?;
        bytes += cells.iter().map(|cell| 16 + cell.as_str().map_or(0, str::len)).sum::<usize>();
        if rows.len() >= limits.rows_max || bytes > limits.bytes_max {
            return Ok((rows, true));
        }
        rows.push(cells);
    }
    Ok((rows, false))
}

/// The values of a row, in order: two columns may have the same name.
fn cells(line: &str, columns: usize) -> Result<Vec<Value>, QueryError> {
    struct InOrder(usize);
    impl<'de> Visitor<'de> for InOrder {
        type Value = Vec<Value>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a row")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<Value>, A::Error> {
            let mut cells = Vec::with_capacity(self.0);
            while map.next_key::<serde::de::IgnoredAny>()?.is_some() {
                cells.push(map.next_value()?);
            }
            Ok(cells)
        }
    }
    let read = serde_json::Deserializer::from_str(line).deserialize_map(InOrder(columns));
    let cells = read.map_err(|error| QueryError::Sql { reason: format!("a row cannot be read: {error}") })?;
    if cells.len() == columns {
        Ok(cells)
    } else {
        Err(QueryError::Sql { reason: "a row has another number of columns than the question".to_owned() })
    }
}

/// What an error means for whoever asked.
pub(super) fn fault(fault: &Fault, options: &Options, limits: &Limits) -> QueryError {
    let away = || match fault.means(options) {
        SinkError::Away { reason } | SinkError::Broken { reason } | SinkError::Taken { reason } => {
            QueryError::Away { reason }
        }
        other => QueryError::Away { reason: other.to_string() },
    };
    let Fault::Postgres(error) = fault else { return away() };
    let Some(code) = error.code() else { return away() };
    let words = link::words(error);
    match code {
        code if *code == SqlState::QUERY_CANCELED => QueryError::Slow { time_max: limits.time_max },
        code if *code == SqlState::READ_ONLY_SQL_TRANSACTION || *code == SqlState::INSUFFICIENT_PRIVILEGE => {
            refused(words)
        }
        code if ["08", "28", "3D", "53", "55", "57", "58"].iter().any(|class| code.code().starts_with(class)) => away(),
        _ => QueryError::Sql { reason: words },
    }
}
