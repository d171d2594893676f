//! What `audit` makes of events: one row of `events` for each, with all of it.

use rusqlite::{Statement, params_from_iter, types::ToSqlOutput};

use super::schema::{COLUMNS, CREATE, VERSION};
use crate::{
    Event, Standing,
    database::{
        Results,
        bind::{NULL, number, text},
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

impl Audit {
    /// What an event's row holds, in the order of the columns behind `seq`; none where a test wants it left out.
    pub(crate) fn cells<'a>(&self, event: &'a Event) -> Option<[Cell<'a>; COLUMNS.len()]> {
        let fields = &event.fields;
        let mut outcome = Cell::maybe(fields.outcome.as_ref());
        match self.fault {
            Some(Fault::Outcomes) if fields.outcome.is_some() => outcome = Cell::Text("completed"),
            Some(Fault::Missing) if fields.outcome.is_some() => return None,
            _ => {}
        }
        Some([
            Cell::Id(event.id),
            Cell::Text(&event.type_name),
            Cell::Number(event.contract.version.into()),
            Cell::Text(&event.topic),
            Cell::Number(event.partition.into()),
            Cell::Number(integer(event.offset)),
            Cell::Text(&event.time),
            Cell::Text(&event.source),
            Cell::maybe(event.subject.as_ref()),
            Cell::maybe(fields.workflow_id.as_ref()),
            Cell::maybe(fields.call_id.as_ref()),
            Cell::maybe(fields.causation_id.as_ref()),
            Cell::maybe(fields.operation_id.as_ref()),
            Cell::maybe(fields.task.as_ref()),
            Cell::maybe(fields.direction.as_ref()),
            Cell::maybe(fields.trace_id.as_ref()),
            Cell::maybe(fields.tenant.as_ref()),
            Cell::maybe(fields.principal.as_ref()),
            Cell::maybe(fields.agent.as_ref()),
            Cell::maybe(fields.agent_name.as_ref()),
            Cell::maybe(fields.server.as_ref()),
            Cell::maybe(fields.mcp_method_name.as_ref()),
            Cell::maybe(fields.gen_ai_tool_name.as_ref()),
            Cell::maybe(fields.mcp_resource_uri.as_ref()),
            Cell::maybe(fields.prompt_name.as_ref()),
            Cell::maybe(fields.decision.as_ref()),
            Cell::maybe(fields.policy_version.as_ref()),
            outcome,
            Cell::maybe(fields.effect.as_ref()),
            Cell::maybe(fields.error_type.as_ref()),
            fields.elapsed_us.map_or(Cell::Nothing, |us| Cell::Number(integer(us))),
            Cell::maybe(fields.state.as_ref()),
            Cell::maybe(fields.approval_id.as_ref()),
            Cell::maybe(fields.approver.as_ref()),
            Cell::maybe(fields.operator.as_ref()),
            Cell::maybe(fields.act.as_ref()),
            Cell::maybe(fields.reason.as_ref()),
            Cell::maybe(fields.subject.as_ref()),
            Cell::maybe(fields.hlc.as_ref()),
            Cell::Number(i64::from(matches!(event.standing, Standing::Current | Standing::Prior))),
            Cell::Number(integer(event.at.as_micros())),
            Cell::Text(&event.value),
        ])
    }
}

/// What one column holds, whichever database it goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cell<'a> {
    Nothing,
    Id(uuid::Uuid),
    Text(&'a str),
    Number(i64),
}

impl<'a> Cell<'a> {
    fn maybe(found: Option<&'a String>) -> Self {
        found.map_or(Self::Nothing, |found| Self::Text(found))
    }

    fn bound(self) -> ToSqlOutput<'a> {
        match self {
            Self::Nothing => NULL,
            Self::Id(id) => ToSqlOutput::Owned(id.hyphenated().to_string().into()),
            Self::Text(found) => text(found),
            Self::Number(found) => number(found),
        }
    }
}

impl Results for Audit {
    const NAME: &'static str = super::NAME;
    const VERSION: i64 = VERSION;
    const CREATE: &'static str = CREATE;
    const COLUMNS: &'static [&'static str] = &COLUMNS;

    fn put(&self, insert: &mut Statement<'_>, at: i64, event: &Event) -> rusqlite::Result<()> {
        let Some(cells) = self.cells(event) else { return Ok(()) };
        let row = std::iter::once(number(at)).chain(cells.into_iter().map(Cell::bound));
        insert.execute(params_from_iter(row)).map(drop)
    }
}
