//! What a run found: rows, each with its baseline, as tables for people and as JSON for machines.

use std::fmt;

use serde::Serialize;
use serde_json::{Value, json};

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// What it belongs to.
    section: &'static str,
    /// What was measured.
    what: String,
    /// How much.
    value: f64,
    /// Of what.
    unit: &'static str,
    /// What it is compared with.
    baseline: Option<Baseline>,
    /// What it should be.
    aim: Option<Aim>,
    /// What the reader must know beside it.
    note: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
struct Baseline {
    what: String,
    value: f64,
    /// Of the figure to this baseline: the median over rounds where both took turns.
    ratio: f64,
}

#[derive(Clone, Debug, Serialize)]
struct Aim {
    what: String,
    met: bool,
}

impl Row {
    pub(crate) fn new(section: &'static str, what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { section, what: what.into(), value, unit, baseline: None, aim: None, note: None }
    }

    /// Compares with a baseline; the ratio is that of the two numbers.
    pub(crate) fn against(self, what: impl Into<String>, value: f64) -> Self {
        let ratio = if value > 0.0 { self.value / value } else { 0.0 };
        self.against_by_round(what, value, ratio)
    }

    /// Compares with a baseline whose ratio was taken round by round.
    pub(crate) fn against_by_round(mut self, what: impl Into<String>, value: f64, ratio: f64) -> Self {
        self.baseline = Some(Baseline { what: what.into(), value, ratio });
        self
    }

    pub(crate) fn aim(mut self, what: impl Into<String>, met: bool) -> Self {
        self.aim = Some(Aim { what: what.into(), met });
        self
    }

    pub(crate) fn note(mut self, words: impl Into<String>) -> Self {
        self.note = Some(words.into());
        self
    }
}

/// All figures of a run.
#[derive(Debug)]
pub(crate) struct Report {
    facts: Vec<(&'static str, String)>,
    rows: Vec<Row>,
}

impl Report {
    pub(crate) const fn new(facts: Vec<(&'static str, String)>) -> Self {
        Self { facts, rows: Vec::new() }
    }

    pub(crate) fn add(&mut self, row: Row) {
        eprintln!("  {} · {}: {} {}", row.section, row.what, number(row.value), row.unit);
        self.rows.push(row);
    }

    pub(crate) fn json(&self) -> serde_json::Result<String> {
        let facts: serde_json::Map<String, Value> =
            self.facts.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        serde_json::to_string_pretty(&json!({ "facts": facts, "rows": self.rows }))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.facts {
            writeln!(f, "- {name}: {value}")?;
        }
        let mut section = "";
        for row in &self.rows {
            if row.section != section {
                section = row.section;
                writeln!(f, "\n**{section}**\n")?;
                writeln!(f, "| what | value | baseline | ratio | aim |\n| --- | ---: | --- | ---: | --- |")?;
            }
            let what = match &row.note {
                Some(note) => format!("{} ({note})", row.what),
                None => row.what.clone(),
            };
            write!(f, "| {what} | {} {} |", number(row.value), row.unit)?;
            match &row.baseline {
                Some(Baseline { what, value, ratio }) => {
                    write!(f, " {what}: {} {} | {ratio:.2} |", number(*value), row.unit)?;
                }
                None => write!(f, " | |")?,
            }
            match &row.aim {
                Some(Aim { what, met }) => writeln!(f, " {what}: {} |", if *met { "met" } else { "**missed**" })?,
                None => writeln!(f, " |")?,
            }
        }
        Ok(())
    }
}

/// Three figures that mean something.
fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Report, Row};

    #[test]
    fn a_row_says_figure_baseline_ratio_and_aim() {
        let mut report = Report::new(vec![("cores", "2".to_owned())]);
        report.add(Row::new("log", "1 partition", 50.0, "MB/s").against("disk", 100.0).aim("at least 0.4", true));
        report.add(Row::new("log", "8 partitions", 1234.5, "MB/s").note("steady"));
        let text = report.to_string();
        assert!(text.contains("- cores: 2\n"), "{text}");
        assert!(text.contains("| 1 partition | 50.0 MB/s | disk: 100 MB/s | 0.50 | at least 0.4: met |"), "{text}");
        assert!(text.contains("| 8 partitions (steady) | 1234 MB/s | | | |"), "{text}");
        assert!(report.json().expect("JSON").contains("\"ratio\": 0.5"));
    }
}
