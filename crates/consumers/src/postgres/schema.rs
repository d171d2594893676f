//! The tables on a PostgreSQL server: those of the SQLite file, with the same names and columns.
//!
//! | difference | why |
//! | --- | --- |
//! | integers are `bigint`, texts are `text COLLATE "C"` | the same values in the same order |
//! | `offset` must be quoted (`"offset"`, or `events.offset`) | PostgreSQL reserves the word |
//! | `json_extract` is a function of the schema, and gives text | PostgreSQL has none of that name; a value that is no JSON for it is NULL |
//! | a NUL in a text is the sign U+2400 | PostgreSQL's texts hold none; `data` has what came, where it is escaped |
//! | `holder` | who applies, see there |
//!
//! `state.layout` is the layout's version. Made within one transaction, once, whoever comes first; or by an operator beforehand.

use tokio_postgres::Client;

use super::{
    link::{self, Fault},
    options::Options,
};
use crate::{
    SinkError,
    audit::{LAYOUT, NAME},
};

/// Two processes that make the tables at once do it one after the other.
const MAKING: i64 = 0x6361_6972_6e00;

/// What makes the tables in the schema that the session looks at first.
const CREATE: &str = r#"
CREATE TABLE places (
    place     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic     text COLLATE "C" NOT NULL,
    partition bigint NOT NULL,
    topic_id  text COLLATE "C" NOT NULL,
    next      bigint NOT NULL,
    whole     bigint NOT NULL,
    UNIQUE (topic, partition, topic_id)
);

CREATE TABLE state (key text COLLATE "C" PRIMARY KEY, value text NOT NULL);

CREATE TABLE holder (
    epoch   bigint NOT NULL,
    token   text NOT NULL,
    who     text NOT NULL,
    backend integer NOT NULL,
    since   timestamptz,
    seen    timestamptz NOT NULL
);
CREATE UNIQUE INDEX holder_one ON holder ((true));

CREATE TABLE dead_letters (
    seq       bigint PRIMARY KEY,
    topic     text COLLATE "C" NOT NULL,
    partition bigint NOT NULL,
    "offset"  bigint NOT NULL,
    time_us   bigint NOT NULL,
    bytes     bigint NOT NULL,
    reason    text NOT NULL
);

CREATE TABLE events (
    seq              bigint PRIMARY KEY,
    id               text COLLATE "C" NOT NULL UNIQUE,
    type             text COLLATE "C" NOT NULL,
    contract_version bigint NOT NULL,
    topic            text COLLATE "C" NOT NULL,
    partition        bigint NOT NULL,
    "offset"         bigint NOT NULL,
    time             text COLLATE "C" NOT NULL,
    source           text COLLATE "C" NOT NULL,
    about            text COLLATE "C",
    workflow_id      text COLLATE "C",
    call_id          text COLLATE "C",
    causation_id     text COLLATE "C",
    operation_id     text COLLATE "C",
    task             text COLLATE "C",
    direction        text COLLATE "C",
    trace_id         text COLLATE "C",
    tenant           text COLLATE "C",
    principal        text COLLATE "C",
    agent            text COLLATE "C",
    agent_name       text COLLATE "C",
    server           text COLLATE "C",
    method           text COLLATE "C",
    tool             text COLLATE "C",
    resource         text COLLATE "C",
    prompt           text COLLATE "C",
    decision         text COLLATE "C",
    policy_version   text COLLATE "C",
    outcome          text COLLATE "C",
    effect           text COLLATE "C",
    error_type       text COLLATE "C",
    elapsed_us       bigint,
    state            text COLLATE "C",
    approval_id      text COLLATE "C",
    approver         text COLLATE "C",
    operator         text COLLATE "C",
    act              text COLLATE "C",
    reason           text COLLATE "C",
    subject          text COLLATE "C",
    hlc              text COLLATE "C",
    known            bigint NOT NULL,
    time_us          bigint NOT NULL,
    data             text COLLATE "C" NOT NULL
);

CREATE INDEX events_workflow ON events (workflow_id) WHERE workflow_id IS NOT NULL;
CREATE INDEX events_call ON events (call_id) WHERE call_id IS NOT NULL;
CREATE INDEX events_time ON events (time_us);
CREATE INDEX events_holds ON events (type, subject) WHERE type IN ('subject.held', 'subject.released');

CREATE FUNCTION json_extract(data text, path text) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT AS $function$
BEGIN
    RETURN pg_catalog.jsonb_path_query_first(
        pg_catalog.replace(data, '\u0000', '\ufffd')::pg_catalog.jsonb, path::pg_catalog.jsonpath) OPERATOR(pg_catalog.#>>) '{}';
EXCEPTION WHEN data_exception THEN
    RETURN NULL;
END
$function$;

CREATE VIEW decisions AS
SELECT time, workflow_id, call_id, tenant, principal, agent, agent_name, server, method, tool, resource, prompt,
       decision, policy_version, json_extract(data, '$.determining_policies') AS determining_policies,
       json_extract(data, '$.obligations') AS obligations, topic, partition, "offset"
FROM events WHERE type = 'call.decision';

CREATE VIEW approvals AS
SELECT time, workflow_id, call_id, tenant, principal, server, approval_id, state, approver, reason, topic, partition, "offset"
FROM events WHERE type = 'call.approval';

CREATE VIEW calls AS
SELECT d.workflow_id, d.call_id, d.time AS decided, d.tenant, d.principal, d.agent, d.agent_name, d.server, d.method,
       coalesce(d.tool, i.tool) AS tool, coalesce(d.resource, i.resource) AS resource, coalesce(d.prompt, i.prompt) AS prompt,
       d.decision, d.policy_version, i.time AS forwarded, o.time AS ended, o.outcome, o.effect, o.error_type, o.elapsed_us,
       d.topic, d.partition, d."offset"
FROM events d
LEFT JOIN events i ON i.call_id = d.call_id AND i.type = 'call.intent'
     AND NOT EXISTS (SELECT 1 FROM events e WHERE e.call_id = d.call_id AND e.type = 'call.intent' AND e.seq > i.seq)
LEFT JOIN events o ON o.call_id = d.call_id AND o.type = 'call.outcome'
     AND NOT EXISTS (SELECT 1 FROM events e WHERE e.call_id = d.call_id AND e.type = 'call.outcome' AND e.seq < o.seq)
WHERE d.type = 'call.decision'
  AND NOT EXISTS (SELECT 1 FROM events n WHERE n.call_id = d.call_id AND n.type = 'call.decision' AND n.seq > d.seq);

INSERT INTO holder (epoch, token, who, backend, seen) VALUES (0, '', '', 0, '-infinity');
"#;

fn filled() -> String {
    format!("{CREATE}INSERT INTO state (key, value) VALUES ('layout', '{LAYOUT}'), ('paused', '0'), ('moves', '0');\n")
}

/// What an operator runs who makes the tables beforehand; `writer` is who applies, `reader` who asks.
#[must_use]
pub fn script(schema: &str, writer: Option<&str>, reader: Option<&str>) -> String {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let mut out = format!(
        "-- Cairn's consumer {NAME}, layout {LAYOUT}.\nBEGIN;\nCREATE SCHEMA IF NOT EXISTS {0};\nSET LOCAL search_path TO {0};\n{1}",
        quoted(schema),
        filled()
    );
    let mut grant = |to: &str, tables: &str| {
        out += &format!("GRANT USAGE ON SCHEMA {} TO {to};\nGRANT {tables} TO {to};\n", quoted(schema));
    };
    if let Some(writer) = writer {
        let tables = "SELECT, INSERT, UPDATE, DELETE ON events, dead_letters, places, state, holder, calls, decisions, approvals";
        grant(&quoted(writer), tables);
    }
    if let Some(reader) = reader {
        grant(&quoted(reader), "SELECT ON events, dead_letters, places, state, calls, decisions, approvals");
    }
    out + "COMMIT;\n"
}

/// Removes the schema with all that is in it.
///
/// # Errors
/// The server does not answer, or does not permit it.
pub fn remove(options: &Options) -> Result<(), SinkError> {
    let work = async {
        let connected = link::connect(options, options.writes(), "").await?;
        connected.client.batch_execute(&format!("DROP SCHEMA IF EXISTS \"{}\" CASCADE", options.schema)).await?;
        Ok::<(), Fault>(())
    };
    super::link::alone(work).map_err(|fault: Fault| fault.means(options))
}

/// The layout that is there; none where there are no tables.
pub(super) async fn layout(client: &Client) -> Result<Option<i64>, Fault> {
    let is_there: bool = client.query_one("SELECT to_regclass('state') IS NOT NULL", &[]).await?.get(0);
    if !is_there {
        return Ok(None);
    }
    let found = client.query_opt("SELECT value::bigint FROM state WHERE key = 'layout'", &[]).await?;
    Ok(Some(found.map_or(0, |row| row.get(0))))
}

/// Makes the tables where there are none, and refuses those of another layout.
pub(super) async fn prepare(client: &mut Client, options: &Options) -> Result<(), Fault> {
    if let Some(found) = layout(client).await? {
        return check(found, options);
    }
    let begun = client.transaction().await?;
    begun.execute("SELECT pg_advisory_xact_lock($1)", &[&MAKING]).await?;
    let is_there: bool = begun.query_one("SELECT to_regclass('state') IS NOT NULL", &[]).await?.get(0);
    if !is_there {
        // Whoever may not make schemas may have been given one.
        let has_schema = "SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = $1::text)";
        if !begun.query_one(has_schema, &[&options.schema]).await?.get::<_, bool>(0) {
            begun.batch_execute(&format!("CREATE SCHEMA \"{}\"", options.schema)).await?;
        }
        begun.batch_execute(&filled()).await?;
    }
    begun.commit().await?;
    Ok(())
}

pub(super) fn check(found: i64, options: &Options) -> Result<(), Fault> {
    if found == LAYOUT {
        return Ok(());
    }
    let at = options.shown();
    let reason = format!(
        "{at} has layout {found}, and this Cairn knows {LAYOUT}: run the newer Cairn, or name another schema (consumers.audit.schema) and have it made from the trail"
    );
    Err(Fault::Said(SinkError::Broken { reason }))
}
