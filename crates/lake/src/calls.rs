//! Data sets as Parquet: the rows of `cairn-evaluate`, one column for each key.
//!
//! Lists and references are JSON in text columns, the model call is flattened. The same rows give the same bytes.

use std::io::{self, Write};

use cairn_evaluate::{Format, LAYOUT, Row};
use serde::Serialize;

use crate::columns::{Field, Kind, Table};

const fn field(id: i32, name: &'static str, kind: Kind, required: bool) -> Field {
    Field { id, name, kind, required, doc: "" }
}

/// The columns, in the order in which [`Parquet`] fills them.
const FIELDS: &[Field] = &[
    field(1, "call_id", Kind::LongText, true),
    field(2, "workflow_id", Kind::Text, true),
    field(3, "task", Kind::Text, false),
    field(4, "trace_id", Kind::Text, true),
    field(5, "operation_id", Kind::Text, false),
    field(6, "round", Kind::Long, false),
    field(7, "tenant", Kind::Text, false),
    field(8, "principal", Kind::Text, true),
    field(9, "agent", Kind::Text, false),
    field(10, "agent_name", Kind::Text, false),
    field(11, "agent_version", Kind::Text, false),
    field(12, "server", Kind::Text, true),
    field(13, "server_version", Kind::Text, false),
    field(14, "time", Kind::Time, false),
    field(15, "model_joined_by", Kind::Text, false),
    field(16, "model_span_id", Kind::Text, false),
    field(17, "model_reported_by", Kind::Text, false),
    field(18, "model_provider", Kind::Text, false),
    field(19, "model_request_model", Kind::Text, false),
    field(20, "model_response_model", Kind::Text, false),
    field(21, "model_prompt", Kind::LongText, false),
    field(22, "model_output", Kind::LongText, false),
    field(23, "model_tools", Kind::Text, false),
    field(24, "model_choice_id", Kind::Text, false),
    field(25, "model_input_tokens", Kind::Long, false),
    field(26, "model_output_tokens", Kind::Long, false),
    field(27, "model_cost", Kind::Text, false),
    field(28, "model_currency", Kind::Text, false),
    field(29, "model_tools_chosen", Kind::Long, false),
    field(30, "model_started_at", Kind::Text, false),
    field(31, "model_elapsed_us", Kind::Long, false),
    field(32, "offered_by", Kind::Text, false),
    field(33, "tools_offered", Kind::Text, false),
    field(34, "tools_offered_more", Kind::Long, false),
    field(35, "tool", Kind::Text, false),
    field(36, "tool_digest", Kind::Text, false),
    field(37, "arguments", Kind::LongText, false),
    field(38, "rewritten", Kind::LongText, false),
    field(39, "decision", Kind::Text, true),
    field(40, "policy_version", Kind::Text, true),
    field(41, "determining_policies", Kind::Text, true),
    field(42, "obligations", Kind::Text, true),
    field(43, "policy_errors", Kind::Text, false),
    field(44, "approvals", Kind::Text, false),
    field(45, "outcome", Kind::Text, false),
    field(46, "effect", Kind::Text, false),
    field(47, "error_type", Kind::Text, false),
    field(48, "is_error", Kind::Flag, false),
    field(49, "rpc_response_status_code", Kind::Long, false),
    field(50, "http_response_status_code", Kind::Long, false),
    field(51, "result", Kind::LongText, false),
    field(52, "elapsed_us", Kind::Long, false),
    field(53, "upstream_elapsed_us", Kind::Long, false),
    field(54, "recovered", Kind::Flag, true),
    field(55, "settled", Kind::LongText, false),
    field(56, "actions", Kind::LongText, false),
    field(57, "erased", Kind::Flag, true),
    field(58, "events", Kind::LongText, true),
];

/// Parquet with Zstandard.
#[derive(Clone, Copy, Debug)]
pub struct Parquet;

impl Format for Parquet {
    fn name(&self) -> &'static str {
        "parquet"
    }

    fn write(&self, rows: &[Row], to: &mut dyn Write) -> io::Result<()> {
        let mut table = Table::new(FIELDS);
        for row in rows {
            add(&mut table, row)?;
        }
        // Parquet wants to own what it writes to on any thread.
        let mut bytes = Vec::new();
        table.write(&mut bytes, vec![("cairn.layout".to_owned(), LAYOUT.to_string())])?;
        to.write_all(&bytes)
    }
}

/// JSON of what is there.
fn json<T: Serialize>(value: Option<&T>) -> io::Result<Option<String>> {
    Ok(value.map(serde_json::to_string).transpose()?)
}

/// JSON of a list that has something.
fn list<T: Serialize>(list: &[T]) -> io::Result<Option<String>> {
    json((!list.is_empty()).then_some(&list))
}

/// Parquet's numbers have a sign.
fn long(number: Option<u64>) -> Option<i64> {
    number.map(|number| i64::try_from(number).unwrap_or(i64::MAX))
}

fn add(table: &mut Table, row: &Row) -> io::Result<()> {
    let time = row.time.parse::<cairn_clock::Timestamp>().ok().map(|at| at.as_micros());
    let model = row.model.as_ref();
    let word = |of: fn(&cairn_evaluate::ModelCall) -> Option<&str>| model.and_then(of);
    let mut adding = table.add();
    adding
        .text(Some(&row.call_id))
        .text(Some(&row.workflow_id))
        .text(row.task.as_deref())
        .text(Some(&row.trace_id))
        .text(row.operation_id.as_deref())
        .long(long(row.round))
        .text(row.tenant.as_deref())
        .text(Some(&row.principal))
        .text(row.agent.as_deref())
        .text(row.agent_name.as_deref())
        .text(row.agent_version.as_deref())
        .text(Some(&row.server))
        .text(row.server_version.as_deref())
        .long(long(time))
        .text(word(|model| Some(&model.joined_by)))
        .text(word(|model| model.span_id.as_deref()))
        .text(word(|model| model.reported_by.as_deref()))
        .text(word(|model| model.provider.as_deref()))
        .text(word(|model| model.request_model.as_deref()))
        .text(word(|model| model.response_model.as_deref()))
        .text(json(model.and_then(|model| model.prompt.as_ref()))?.as_deref())
        .text(json(model.and_then(|model| model.output.as_ref()))?.as_deref())
        .text(json(model.and_then(|model| model.tools.as_ref()))?.as_deref())
        .text(word(|model| model.choice_id.as_deref()))
        .long(long(model.and_then(|model| model.input_tokens)))
        .long(long(model.and_then(|model| model.output_tokens)))
        .text(word(|model| model.cost.as_deref()))
        .text(word(|model| model.currency.as_deref()))
        .long(long(model.map(|model| model.tools_chosen)))
        .text(word(|model| model.started_at.as_deref()))
        .long(long(model.and_then(|model| model.elapsed_us)))
        .text(row.offered_by.as_deref())
        .text(json(row.tools_offered.as_ref())?.as_deref())
        .long(long(row.tools_offered_more))
        .text(row.tool.as_deref())
        .text(row.tool_digest.as_deref())
        .text(json(row.arguments.as_ref())?.as_deref())
        .text(json(row.rewritten.as_ref())?.as_deref())
        .text(Some(&row.decision))
        .text(Some(&row.policy_version))
        .text(json(Some(&row.determining_policies))?.as_deref())
        .text(json(Some(&row.obligations))?.as_deref())
        .text(list(&row.policy_errors)?.as_deref())
        .text(list(&row.approvals)?.as_deref())
        .text(row.outcome.as_deref())
        .text(row.effect.as_deref())
        .text(row.error_type.as_deref())
        .flag(row.is_error)
        .long(row.rpc_response_status_code)
        .long(row.http_response_status_code)
        .text(json(row.result.as_ref())?.as_deref())
        .long(long(row.elapsed_us))
        .long(long(row.upstream_elapsed_us))
        .flag(Some(row.recovered))
        .text(json(row.settled.as_ref())?.as_deref())
        .text(list(&row.actions)?.as_deref())
        .flag(Some(row.erased))
        .text(json(Some(&row.events))?.as_deref())
        .end();
    Ok(())
}

#[cfg(test)]
mod tests {
    use parquet::record::Field;
    use serde_json::json;

    use super::*;
    use crate::rows;

    fn rows_of(count: u32) -> Vec<Row> {
        let row = |number: u32| Row {
            call_id: format!("c{number}"),
            time: "2026-11-24T09:00:00.000001Z".to_owned(),
            tool: number.is_multiple_of(2).then(|| "refund_order".to_owned()),
            arguments: Some(json!({ "digest": format!("hmac-sha256:k1:{number}") })),
            elapsed_us: Some(number.into()),
            ..Row::default()
        };
        (0..count).map(row).collect()
    }

    fn written(rows: &[Row]) -> bytes::Bytes {
        let mut bytes = Vec::new();
        Parquet.write(rows, &mut bytes).expect("written");
        bytes.into()
    }

    #[test]
    fn every_row_is_read_as_it_was_written_and_the_same_rows_are_the_same_bytes() {
        let rows = rows_of(250);
        let bytes = written(&rows);
        assert_eq!(bytes, written(&rows));
        let text = |text: Option<String>| text.map_or(Field::Null, Field::Str);
        let mut left = rows.iter();
        let columns = ["call_id", "tool", "arguments", "elapsed_us", "erased", "time"];
        rows::each(bytes, &columns, |found| {
            let row = left.next().expect("no more rows than were written");
            let expected = [
                Field::Str(row.call_id.clone()),
                text(row.tool.clone()),
                text(row.arguments.as_ref().map(ToString::to_string)),
                Field::Long(row.elapsed_us.unwrap_or_default() as i64),
                Field::Bool(false),
                Field::TimestampMicros(1_795_510_800_000_001),
            ];
            assert_eq!(found, expected);
        })
        .expect("a file of rows");
        assert!(left.next().is_none(), "every row was read");
        assert_eq!(written(&[]), written(&[]));
    }
}
