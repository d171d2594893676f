//! `cairn query SQL`: questions to the audit database, read-only and within limits.
//!
//! Whoever may read the data folder asks its database; with `--admin` a running `up` is asked, with an operator's token of the
//! role `view`, and the question stands in the trail.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};

use crate::{ask, say};

/// What `cairn query` is told.
#[derive(Args)]
pub(crate) struct QueryArguments {
    /// One SELECT on events, calls, decisions, approvals, dead_letters, places.
    sql: String,
    /// One JSON object for each row.
    #[arg(long)]
    json: bool,
    /// Comma-separated values with a head line.
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// Rows at most.
    #[arg(long, default_value_t = 1_000)]
    rows_max: usize,
    /// Seconds at most, where the database of the data folder is asked.
    #[arg(long, default_value_t = 30)]
    seconds_max: u64,
    /// The configuration that names the database; that of whoever applies to the data folder where absent.
    #[arg(long)]
    config: Option<std::path::PathBuf>,
    #[command(flatten)]
    admin: ask::AdminArguments,
}

/// Rows that one answer may have.
const ROWS_MAX: usize = 1_000_000;

/// Asks, and prints the answer.
pub(crate) async fn run(arguments: QueryArguments) -> anyhow::Result<()> {
    let QueryArguments { sql, json, csv, rows_max, seconds_max, config, admin } = arguments;
    if rows_max == 0 || rows_max > ROWS_MAX || seconds_max == 0 {
        bail!("--rows-max is between 1 and {ROWS_MAX}, --seconds-max at least 1");
    }
    let answer = if admin.is_named() {
        let body = json!({ "sql": sql, "rows_max": rows_max });
        admin.find()?.send("POST", "/query", Some(body)).await?
    } else {
        let data = admin.data()?;
        let limit = Duration::from_secs(seconds_max);
        tokio::task::spawn_blocking(move || local((&data, config.as_deref()), &sql, rows_max, limit)).await??
    };
    let texts = |of: &Value| -> Vec<String> {
        of.as_array().into_iter().flatten().filter_map(Value::as_str).map(ToOwned::to_owned).collect()
    };
    let columns = texts(answer.get("columns").unwrap_or(&Value::Null));
    let rows = answer.get("rows").and_then(Value::as_array).cloned().unwrap_or_default();
    let rows: Vec<Vec<Value>> = rows.into_iter().filter_map(|row| row.as_array().cloned()).collect();
    if json {
        for row in rows {
            let object: serde_json::Map<String, Value> = columns.iter().cloned().zip(row).collect();
            say::line(format_args!("{}", Value::Object(object)));
        }
    } else if csv {
        say::line(format_args!("{}", columns.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(",")));
        for row in rows {
            let row: Vec<String> = row.iter().map(|value| quoted(&text(value))).collect();
            say::line(format_args!("{}", row.join(",")));
        }
    } else {
        say::line(format_args!("{}", table(&columns, &rows)));
    }
    if answer.get("is_cut") == Some(&Value::Bool(true)) {
        eprintln!("cairn: there is more: --rows-max shows more rows, a WHERE fewer");
    }
    Ok(())
}

/// A data folder, and a configuration if one is named.
type Where<'a> = (&'a std::path::Path, Option<&'a std::path::Path>);

#[cfg(feature = "audit")]
fn local((data, config): Where<'_>, sql: &str, rows_max: usize, time_max: Duration) -> anyhow::Result<Value> {
    use cairn_consumers::audit::query::{Limits, QueryError};

    let limits = Limits { rows_max, bytes_max: 256 << 20, time_max };
    let store = crate::audit::store(&crate::audit::section(data, config)?, data)?;
    match store.ask(sql, &limits) {
        Ok(answer) => Ok(crate::consumers::shown(&answer)),
        Err(error @ QueryError::Missing { .. }) => Err(crate::ending::Ending::NoSuch(error.to_string()).into()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(feature = "audit"))]
fn local(_: Where<'_>, _: &str, _: usize, _: Duration) -> anyhow::Result<Value> {
    bail!("{}", crate::consumers::NO_DATABASE)
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A field as RFC 4180 has it. What a spreadsheet would compute gets an apostrophe before it: names in the trail are others' choice.
fn quoted(text: &str) -> String {
    let text = if text.starts_with(['=', '+', '@', '\t', '\r']) || text.starts_with('-') && text.parse::<f64>().is_err()
    {
        format!("'{text}")
    } else {
        text.to_owned()
    };
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

/// Columns under each other, for a terminal.
fn table(columns: &[String], rows: &[Vec<Value>]) -> String {
    const WIDTH_MAX: usize = 60;
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let cell = |value: &Value| {
                let plain = say::plain(&text(value));
                let is_long = plain.chars().count() > WIDTH_MAX;
                if is_long { plain.chars().take(WIDTH_MAX - 1).chain(['…']).collect() } else { plain }
            };
            row.iter().map(cell).collect()
        })
        .collect();
    let width = |index: usize| {
        let of = |row: &Vec<String>| row.get(index).map_or(0, |cell| cell.chars().count());
        cells.iter().map(of).max().unwrap_or_default().max(columns[index].chars().count())
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let line = |row: &[String]| {
        let padded = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let heads: Vec<String> = columns.iter().map(|name| say::plain(name)).collect();
    std::iter::once(line(&heads)).chain(cells.iter().map(|row| line(row))).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_spreadsheet_would_compute_is_text() {
        assert_eq!(quoted("=1+1"), "'=1+1");
        assert_eq!(quoted("-3.5"), "-3.5");
        assert_eq!(quoted("-cmd"), "'-cmd");
        assert_eq!(quoted("a,\"b\""), "\"a,\"\"b\"\"\"");
    }

    #[test]
    fn a_table_has_its_columns_under_each_other() {
        let rows = [vec![json!("a"), json!(10)], vec![json!("long\u{1b}[2K"), Value::Null]];
        let gap = " ".repeat(16);
        let shown = format!("x{gap}y\na{gap}10\nlong\\u{{001b}}[2K");
        assert_eq!(table(&["x".to_owned(), "y".to_owned()], &rows), shown);
    }
}
