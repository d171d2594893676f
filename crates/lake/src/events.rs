//! The table of events: one row for each, with the columns of the audit database and the whole event beside them.
//!
//! Numbers of columns are Iceberg's field ids: one that was used is never used again for another. What changes here is added at the end.

use cairn_consumers::{Event, Standing};

use crate::columns::{Field, Kind, Table};

const fn need(id: i32, name: &'static str, kind: Kind, doc: &'static str) -> Field {
    Field { id, name, kind, required: true, doc }
}

const fn may(id: i32, name: &'static str, kind: Kind, doc: &'static str) -> Field {
    Field { id, name, kind, required: false, doc }
}

/// The field id of `topic`, by which the table is partitioned.
pub const TOPIC: i32 = 5;
/// The field id of `partition`.
pub const PARTITION: i32 = 7;
/// The field id of `offset`.
pub const OFFSET: i32 = 8;
/// The field id of `time`.
pub const TIME: i32 = 9;

/// The columns, in the order in which [`add`] fills them.
pub const FIELDS: &[Field] = &[
    need(1, "id", Kind::LongText, "The event's id."),
    need(2, "type", Kind::Text, "The event's type."),
    need(3, "contract_version", Kind::Long, "The version of its contract."),
    need(4, "known", Kind::Flag, "Whether the program that wrote the row knew that version."),
    need(TOPIC, "topic", Kind::Text, "The topic that it lies in."),
    need(6, "topic_id", Kind::Text, "Which topic of that name; empty where the cluster has no ids."),
    need(PARTITION, "partition", Kind::Int, "The partition."),
    need(OFFSET, "offset", Kind::Long, "The offset."),
    need(TIME, "time", Kind::Time, "When it happened."),
    need(10, "source", Kind::Text, "Who wrote it."),
    may(11, "about", Kind::Text, "The event's subject, such as server/tool."),
    may(12, "workflow_id", Kind::Text, ""),
    may(13, "call_id", Kind::Text, ""),
    may(14, "causation_id", Kind::LongText, ""),
    may(15, "operation_id", Kind::Text, ""),
    may(16, "task", Kind::Text, ""),
    may(17, "direction", Kind::Text, ""),
    may(18, "trace_id", Kind::Text, ""),
    may(19, "tenant", Kind::Text, ""),
    may(20, "principal", Kind::Text, ""),
    may(21, "agent", Kind::Text, ""),
    may(22, "agent_name", Kind::Text, ""),
    may(23, "server", Kind::Text, ""),
    may(24, "method", Kind::Text, ""),
    may(25, "tool", Kind::Text, ""),
    may(26, "resource", Kind::Text, ""),
    may(27, "prompt", Kind::Text, ""),
    may(28, "decision", Kind::Text, ""),
    may(29, "policy_version", Kind::Text, ""),
    may(30, "outcome", Kind::Text, ""),
    may(31, "effect", Kind::Text, ""),
    may(32, "error_type", Kind::Text, ""),
    may(33, "elapsed_us", Kind::Long, ""),
    may(34, "state", Kind::Text, ""),
    may(35, "approval_id", Kind::Text, ""),
    may(36, "approver", Kind::Text, ""),
    may(37, "operator", Kind::Text, ""),
    may(38, "act", Kind::Text, ""),
    may(39, "reason", Kind::Text, ""),
    may(40, "subject", Kind::Text, ""),
    may(41, "hlc", Kind::LongText, ""),
    need(42, "data", Kind::LongText, "The whole event, as JSON."),
];

/// Numbers with a sign.
fn long(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Adds the row of an event.
pub fn add(table: &mut Table, event: &Event, topic_id: &str) {
    let fields = &event.fields;
    table
        .add()
        .text(Some(event.id.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer())))
        .text(Some(&event.type_name))
        .long(Some(event.contract.version.into()))
        .flag(Some(matches!(event.standing, Standing::Current | Standing::Prior)))
        .text(Some(&event.topic))
        .text(Some(topic_id))
        .int(Some(i32::try_from(event.partition).unwrap_or(i32::MAX)))
        .long(Some(long(event.offset)))
        .long(Some(long(event.at.as_micros())))
        .text(Some(&event.source))
        .text(event.subject.as_deref())
        .text(fields.workflow_id.as_deref())
        .text(fields.call_id.as_deref())
        .text(fields.causation_id.as_deref())
        .text(fields.operation_id.as_deref())
        .text(fields.task.as_deref())
        .text(fields.direction.as_deref())
        .text(fields.trace_id.as_deref())
        .text(fields.tenant.as_deref())
        .text(fields.principal.as_deref())
        .text(fields.agent.as_deref())
        .text(fields.agent_name.as_deref())
        .text(fields.server.as_deref())
        .text(fields.mcp_method_name.as_deref())
        .text(fields.gen_ai_tool_name.as_deref())
        .text(fields.mcp_resource_uri.as_deref())
        .text(fields.prompt_name.as_deref())
        .text(fields.decision.as_deref())
        .text(fields.policy_version.as_deref())
        .text(fields.outcome.as_deref())
        .text(fields.effect.as_deref())
        .text(fields.error_type.as_deref())
        .long(fields.elapsed_us.map(long))
        .text(fields.state.as_deref())
        .text(fields.approval_id.as_deref())
        .text(fields.approver.as_deref())
        .text(fields.operator.as_deref())
        .text(fields.act.as_deref())
        .text(fields.reason.as_deref())
        .text(fields.subject.as_deref())
        .text(fields.hlc.as_deref())
        .text(Some(&event.value))
        .end();
}
