//! What `audit` makes of events: one row of `events` for each, with all of it.

use rusqlite::{
    Statement, params_from_iter,
    types::{ToSqlOutput, Value, ValueRef},
};

use super::schema::{COLUMNS, CREATE, VERSION};
use crate::{
    Event, Standing,
    database::{Results, integer},
};

/// The results of `audit`.
#[derive(Debug)]
pub struct Audit {
    /// Spoils what it writes, for a test that mends it by a replay.
    fault: Option<Fault>,
}

/// A fault that `CAIRN_AUDIT_FAULT` asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// Every outcome is written as completed.
    Outcomes,
    /// Outcomes are left out.
    Missing,
}

impl Default for Audit {
    fn default() -> Self {
        let fault = match std::env::var("CAIRN_AUDIT_FAULT").unwrap_or_default().as_str() {
            "outcomes" => Some(Fault::Outcomes),
            "missing" => Some(Fault::Missing),
            _ => None,
        };
        Self { fault }
    }
}

impl Results for Audit {
    const NAME: &'static str = super::NAME;
    const VERSION: i64 = VERSION;
    const CREATE: &'static str = CREATE;

    fn insert(&self) -> String {
        let marks: Vec<String> = (1..=COLUMNS.len() + 1).map(|index| format!("?{index}")).collect();
        // An event that came before at another offset counts once.
        format!(
            "INSERT INTO events (seq, {}) VALUES ({}) ON CONFLICT (id) DO NOTHING",
            COLUMNS.join(", "),
            marks.join(", ")
        )
    }

    fn put(&self, insert: &mut Statement<'_>, at: i64, event: &Event) -> rusqlite::Result<()> {
        put(insert, at, event, self.fault)
    }
}

fn put(insert: &mut Statement<'_>, at: i64, event: &Event, fault: Option<Fault>) -> rusqlite::Result<()> {
    let fields = &event.fields;
    fn text(text: &str) -> ToSqlOutput<'_> {
        ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes()))
    }
    fn maybe(found: &Option<String>) -> ToSqlOutput<'_> {
        found.as_deref().map_or(ToSqlOutput::Owned(Value::Null), text)
    }
    let number = |number: i64| ToSqlOutput::Owned(Value::Integer(number));
    let mut outcome = maybe(&fields.outcome);
    match fault {
        Some(Fault::Outcomes) if fields.outcome.is_some() => outcome = text("completed"),
        Some(Fault::Missing) if fields.outcome.is_some() => return Ok(()),
        _ => {}
    }
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
        text(&event.source),
        maybe(&event.subject),
        maybe(&fields.workflow_id),
        maybe(&fields.call_id),
        maybe(&fields.causation_id),
        maybe(&fields.operation_id),
        maybe(&fields.task),
        maybe(&fields.direction),
        maybe(&fields.trace_id),
        maybe(&fields.tenant),
        maybe(&fields.principal),
        maybe(&fields.agent),
        maybe(&fields.agent_name),
        maybe(&fields.server),
        maybe(&fields.mcp_method_name),
        maybe(&fields.gen_ai_tool_name),
        maybe(&fields.mcp_resource_uri),
        maybe(&fields.prompt_name),
        maybe(&fields.decision),
        maybe(&fields.policy_version),
        outcome,
        maybe(&fields.effect),
        maybe(&fields.error_type),
        fields.elapsed_us.map_or(ToSqlOutput::Owned(Value::Null), |us| number(integer(us))),
        maybe(&fields.state),
        maybe(&fields.approval_id),
        maybe(&fields.approver),
        maybe(&fields.operator),
        maybe(&fields.act),
        maybe(&fields.reason),
        maybe(&fields.subject),
        maybe(&fields.hlc),
        number(i64::from(matches!(event.standing, Standing::Current | Standing::Prior))),
        number(integer(event.at.as_micros())),
        text(&event.value),
    ];
    insert.execute(params_from_iter(row)).map(drop)
}
