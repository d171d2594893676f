//! The database's layout, for whoever queries it and for the sink.
//!
//! | table | content |
//! | --- | --- |
//! | `events` | one row for each event; `seq` is the place's number × 2^48 plus the offset, so a partition's rows lie together in order |
//! | `dead_letters`, `places`, `state` | what every consumer's database has: see `database` |
//!
//! `calls`, `decisions` and `approvals` are views. `PRAGMA user_version` is [`VERSION`].

/// The layout's version.
pub(crate) const VERSION: i64 = 2;

/// Columns of `events` behind `seq`, in the order in which the sink binds them.
pub(crate) const COLUMNS: [&str; 42] = [
    "id",
    "type",
    "contract_version",
    "topic",
    "partition",
    "offset",
    "time",
    "source",
    "about",
    "workflow_id",
    "call_id",
    "causation_id",
    "operation_id",
    "task",
    "direction",
    "trace_id",
    "tenant",
    "principal",
    "agent",
    "agent_name",
    "server",
    "method",
    "tool",
    "resource",
    "prompt",
    "decision",
    "policy_version",
    "outcome",
    "effect",
    "error_type",
    "elapsed_us",
    "state",
    "approval_id",
    "approver",
    "operator",
    "act",
    "reason",
    "subject",
    "hlc",
    "known",
    "time_us",
    "data",
];

/// What makes the layout.
pub(super) const CREATE: &str = r"
CREATE TABLE events (
    seq              INTEGER PRIMARY KEY,
    id               TEXT NOT NULL UNIQUE,   -- ce_id
    type             TEXT NOT NULL,          -- such as call.outcome
    contract_version INTEGER NOT NULL,
    topic            TEXT NOT NULL,
    partition        INTEGER NOT NULL,
    offset           INTEGER NOT NULL,
    time             TEXT NOT NULL,          -- RFC 3339, UTC, microseconds
    source           TEXT NOT NULL,          -- ce_source
    about            TEXT,                   -- ce_subject: server/tool
    workflow_id      TEXT,
    call_id          TEXT,
    causation_id     TEXT,
    operation_id     TEXT,
    task             TEXT,
    direction        TEXT,
    trace_id         TEXT,
    tenant           TEXT,
    principal        TEXT,
    agent            TEXT,                   -- as it was verified
    agent_name       TEXT,                   -- as the client says
    server           TEXT,
    method           TEXT,                   -- mcp_method_name
    tool             TEXT,                   -- gen_ai_tool_name
    resource         TEXT,                   -- mcp_resource_uri
    prompt           TEXT,
    decision         TEXT,
    policy_version   TEXT,
    outcome          TEXT,
    effect           TEXT,
    error_type       TEXT,
    elapsed_us       INTEGER,
    state            TEXT,                   -- of an approval, a task, a shadow
    approval_id      TEXT,
    approver         TEXT,
    operator         TEXT,
    act              TEXT,
    reason           TEXT,
    subject          TEXT,
    hlc              TEXT,
    known            INTEGER NOT NULL,       -- 0 where the contract is newer than the program that read it
    time_us          INTEGER NOT NULL,       -- time, in microseconds since 1970
    data             TEXT NOT NULL           -- the whole event, JSON
) STRICT;

CREATE INDEX events_workflow ON events (workflow_id) WHERE workflow_id IS NOT NULL;
CREATE INDEX events_call ON events (call_id) WHERE call_id IS NOT NULL;
CREATE INDEX events_time ON events (time_us);
CREATE INDEX events_holds ON events (type, subject) WHERE type IN ('subject.held', 'subject.released');

CREATE VIEW decisions AS
SELECT time, workflow_id, call_id, tenant, principal, agent, agent_name, server, method, tool, resource, prompt,
       decision, policy_version, json_extract(data, '$.determining_policies') AS determining_policies,
       json_extract(data, '$.obligations') AS obligations, topic, partition, offset
FROM events WHERE type = 'call.decision';

CREATE VIEW approvals AS
SELECT time, workflow_id, call_id, tenant, principal, server, approval_id, state, approver, reason, topic, partition, offset
FROM events WHERE type = 'call.approval';

-- One row for each decided call: its last decision, which is the one that counts, its intent and its first outcome.
CREATE VIEW calls AS
SELECT d.workflow_id, d.call_id, d.time AS decided, d.tenant, d.principal, d.agent, d.agent_name, d.server, d.method,
       coalesce(d.tool, i.tool) AS tool, coalesce(d.resource, i.resource) AS resource, coalesce(d.prompt, i.prompt) AS prompt,
       d.decision, d.policy_version, i.time AS forwarded, o.time AS ended, o.outcome, o.effect, o.error_type, o.elapsed_us,
       d.topic, d.partition, d.offset
FROM events d
LEFT JOIN events i ON i.call_id = d.call_id AND i.type = 'call.intent'
     AND NOT EXISTS (SELECT 1 FROM events e WHERE e.call_id = d.call_id AND e.type = 'call.intent' AND e.seq > i.seq)
LEFT JOIN events o ON o.call_id = d.call_id AND o.type = 'call.outcome'
     AND NOT EXISTS (SELECT 1 FROM events e WHERE e.call_id = d.call_id AND e.type = 'call.outcome' AND e.seq < o.seq)
WHERE d.type = 'call.decision'
  AND NOT EXISTS (SELECT 1 FROM events n WHERE n.call_id = d.call_id AND n.type = 'call.decision' AND n.seq > d.seq);
";
