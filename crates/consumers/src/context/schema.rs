//! The layout of the context database, for its sink and for those who ask it.
//!
//! | table | content |
//! | --- | --- |
//! | `events` | one row for each event of `mcp.calls` and `mcp.context`, and for each legal hold; `seq` as in `database` |
//! | `resources` | each resource, and its freshest known version |
//! | `views` | what each principal's agents have seen of each resource last |
//! | `touched_resources`, `touched_views` | what must be made again before the next commit; empty outside of one |
//!
//! `resources` and `views` follow from `events` alone, whatever the order in which those came: triggers note what an added or
//! removed row is about, and the sink makes that anew. A tenant or an agent that there is none of is the empty text there.
//! `PRAGMA user_version` is [`VERSION`].

/// The layout's version.
pub(super) const VERSION: i64 = 2;

/// Columns of `events` behind `seq`, in the order in which the sink binds them.
pub(super) const COLUMNS: [&str; 25] = [
    "id",
    "type",
    "contract_version",
    "topic",
    "partition",
    "offset",
    "time",
    "time_us",
    "source",
    "about",
    "workflow_id",
    "call_id",
    "tenant",
    "principal",
    "agent",
    "server",
    "method",
    "resource",
    "version",
    "cause",
    "at_us",
    "sees",
    "subject",
    "known",
    "data",
];

/// What makes the layout.
pub(super) const CREATE: &str = r"
CREATE TABLE events (
    seq              INTEGER PRIMARY KEY,
    id               TEXT NOT NULL UNIQUE,   -- ce_id
    type             TEXT NOT NULL,
    contract_version INTEGER NOT NULL,
    topic            TEXT NOT NULL,
    partition        INTEGER NOT NULL,
    offset           INTEGER NOT NULL,
    time             TEXT NOT NULL,
    time_us          INTEGER NOT NULL,
    source           TEXT NOT NULL,
    about            TEXT,
    workflow_id      TEXT,
    call_id          TEXT,
    tenant           TEXT,
    principal        TEXT,
    agent            TEXT,                   -- as it was verified, else as it calls itself
    server           TEXT,
    method           TEXT,
    resource         TEXT,
    version          TEXT,
    cause            TEXT,                   -- of a change
    at_us            INTEGER,                -- of what a read or a change counts as of; NULL for all other events
    sees             INTEGER NOT NULL,       -- 1 where its principal knows the resource by it
    subject          TEXT,
    known            INTEGER NOT NULL,
    data             TEXT NOT NULL
) STRICT;

CREATE INDEX events_workflow ON events (workflow_id) WHERE workflow_id IS NOT NULL;
CREATE INDEX events_decided ON events (call_id) WHERE type = 'call.decision';
CREATE INDEX events_resource ON events (tenant, server, resource, type, at_us, id) WHERE at_us IS NOT NULL;
CREATE INDEX events_viewer ON events (principal, tenant, server, resource, agent, at_us, id) WHERE sees = 1;
CREATE INDEX events_changes ON events (time_us, id) WHERE cause IS NOT NULL;
CREATE INDEX events_holds ON events (type, subject) WHERE type IN ('subject.held', 'subject.released');

CREATE TABLE resources (
    tenant     TEXT NOT NULL,
    server     TEXT NOT NULL,
    uri        TEXT NOT NULL,
    version    TEXT,                         -- NULL: it changed, and nobody has said to what
    at_us      INTEGER NOT NULL,
    how        TEXT NOT NULL,                -- read, changed
    id         TEXT NOT NULL,                -- the event by which that is known
    topic      TEXT NOT NULL,
    partition  INTEGER NOT NULL,
    offset     INTEGER NOT NULL,
    changed_us INTEGER,                      -- the last change
    cause      TEXT,
    read_us    INTEGER,                      -- the newest read that gave a version
    PRIMARY KEY (tenant, server, uri)
) STRICT, WITHOUT ROWID;

CREATE TABLE views (
    tenant      TEXT NOT NULL,
    principal   TEXT NOT NULL,
    server      TEXT NOT NULL,
    uri         TEXT NOT NULL,
    agent       TEXT NOT NULL,
    version     TEXT,
    at_us       INTEGER NOT NULL,
    how         TEXT NOT NULL,               -- read, wrote
    id          TEXT NOT NULL,
    topic       TEXT NOT NULL,
    partition   INTEGER NOT NULL,
    offset      INTEGER NOT NULL,
    workflow_id TEXT,
    call_id     TEXT,
    PRIMARY KEY (tenant, principal, server, uri, agent)
) STRICT, WITHOUT ROWID;

CREATE TABLE touched_resources (
    tenant TEXT NOT NULL, server TEXT NOT NULL, uri TEXT NOT NULL,
    PRIMARY KEY (tenant, server, uri)
) STRICT, WITHOUT ROWID;

CREATE TABLE touched_views (
    tenant TEXT NOT NULL, principal TEXT NOT NULL, server TEXT NOT NULL, uri TEXT NOT NULL, agent TEXT NOT NULL,
    PRIMARY KEY (tenant, principal, server, uri, agent)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER events_come AFTER INSERT ON events WHEN new.at_us IS NOT NULL BEGIN
    INSERT OR IGNORE INTO touched_resources VALUES (coalesce(new.tenant, ''), new.server, new.resource);
    INSERT OR IGNORE INTO touched_views
    SELECT coalesce(new.tenant, ''), new.principal, new.server, new.resource, coalesce(new.agent, '') WHERE new.sees = 1;
END;

CREATE TRIGGER events_go AFTER DELETE ON events WHEN old.at_us IS NOT NULL BEGIN
    INSERT OR IGNORE INTO touched_resources VALUES (coalesce(old.tenant, ''), old.server, old.resource);
    INSERT OR IGNORE INTO touched_views
    SELECT coalesce(old.tenant, ''), old.principal, old.server, old.resource, coalesce(old.agent, '') WHERE old.sees = 1;
END;
";
