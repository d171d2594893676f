//! What `audit` makes of events: one row of `events` for each, with all of it.

use rusqlite::{Statement, params_from_iter, types::ToSqlOutput};

use super::schema::{COLUMNS, CREATE, VERSION};
use crate::{
    Event, Standing,
    database::{
        Results,
        bind::{NULL, maybe, number, text},
        integer,
    },
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
    const COLUMNS: &'static [&'static str] = &COLUMNS;

    fn put(&self, insert: &mut Statement<'_>, at: i64, event: &Event) -> rusqlite::Result<()> {
        put(insert, at, event, self.fault)
    }
}

fn put(insert: &mut Statement<'_>, at: i64, event: &Event, fault: Option<Fault>) -> rusqlite::Result<()> {
    let fields = &event.fields;
    let mut outcome = maybe(fields.outcome.as_deref());
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
        maybe(event.subject.as_deref()),
        maybe(fields.workflow_id.as_deref()),
        maybe(fields.call_id.as_deref()),
        maybe(fields.causation_id.as_deref()),
        maybe(fields.operation_id.as_deref()),
        maybe(fields.task.as_deref()),
        maybe(fields.direction.as_deref()),
        maybe(fields.trace_id.as_deref()),
        maybe(fields.tenant.as_deref()),
        maybe(fields.principal.as_deref()),
        maybe(fields.agent.as_deref()),
        maybe(fields.agent_name.as_deref()),
        maybe(fields.server.as_deref()),
        maybe(fields.mcp_method_name.as_deref()),
        maybe(fields.gen_ai_tool_name.as_deref()),
        maybe(fields.mcp_resource_uri.as_deref()),
        maybe(fields.prompt_name.as_deref()),
        maybe(fields.decision.as_deref()),
        maybe(fields.policy_version.as_deref()),
        outcome,
        maybe(fields.effect.as_deref()),
        maybe(fields.error_type.as_deref()),
        fields.elapsed_us.map_or(NULL, |us| number(integer(us))),
        maybe(fields.state.as_deref()),
        maybe(fields.approval_id.as_deref()),
        maybe(fields.approver.as_deref()),
        maybe(fields.operator.as_deref()),
        maybe(fields.act.as_deref()),
        maybe(fields.reason.as_deref()),
        maybe(fields.subject.as_deref()),
        maybe(fields.hlc.as_deref()),
        number(i64::from(matches!(event.standing, Standing::Current | Standing::Prior))),
        number(integer(event.at.as_micros())),
        text(&event.value),
    ];
    insert.execute(params_from_iter(row)).map(drop)
}
