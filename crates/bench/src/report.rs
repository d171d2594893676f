//! What a run found: rows, each with its baseline, as tables for people and as JSON for machines.
//!
//! Parts that are measured in runs of their own are kept in a file, which each run changes in what it measured anew.

use std::{fmt, path::Path};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// One figure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    /// What it belongs to.
    pub(crate) section: String,
    /// What was measured.
    pub(crate) what: String,
    /// How much.
    pub(crate) value: f64,
    /// Of what.
    pub(crate) unit: String,
    /// What it is compared with.
    baseline: Option<Baseline>,
    /// What it should be.
    aim: Option<Aim>,
    /// What the reader must know beside it.
    note: Option<String>,
    /// Whether it is a bar of the plot.
    #[serde(default)]
    pub(crate) is_plotted: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Baseline {
    what: String,
    value: f64,
    /// Of the figure to this baseline: the median over rounds where both took turns.
    ratio: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Aim {
    what: String,
    met: bool,
}

impl Row {
    pub(crate) fn new(section: &str, what: impl Into<String>, value: f64, unit: &str) -> Self {
        let (section, unit) = (section.to_owned(), unit.to_owned());
        Self { section, what: what.into(), value, unit, baseline: None, aim: None, note: None, is_plotted: false }
    }

    /// Makes it a bar of the plot.
    pub(crate) const fn plotted(mut self) -> Self {
        self.is_plotted = true;
        self
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

    /// Takes in what earlier runs found of what this one did not measure, and keeps all of it in that file.
    pub(crate) fn keep(&mut self, file: &Path) -> anyhow::Result<()> {
        let kept: Vec<Row> = match std::fs::read(file) {
            Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| format!("read {}", file.display()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error).with_context(|| format!("read {}", file.display())),
        };
        let mut rows: Vec<Row> =
            kept.into_iter().filter(|kept| self.rows.iter().all(|row| row.section != kept.section)).collect();
        rows.append(&mut self.rows);
        self.rows = rows;
        let bytes = serde_json::to_vec_pretty(&self.rows)?;
        std::fs::write(file, bytes).with_context(|| format!("write {}", file.display()))
    }

    /// The bars of the plot.
    pub(crate) fn plotted(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.is_plotted)
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
                section = &row.section;
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
pub(crate) fn number(value: f64) -> String {
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
    fn what_was_measured_anew_takes_the_place_of_what_was_kept_and_the_rest_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("kept.json");
        let run = |rows: &[(&str, f64)]| {
            let mut report = Report::new(Vec::new());
            rows.iter().for_each(|(section, value)| report.add(Row::new(section, "rate", *value, "MB/s").plotted()));
            report.keep(&file).expect("kept");
            report.plotted().map(|row| (row.section.clone(), row.value)).collect::<Vec<_>>()
        };
        assert_eq!(run(&[("log", 1.0), ("read", 2.0)]).len(), 2);
        assert_eq!(run(&[("log", 3.0)]), [("read".to_owned(), 2.0), ("log".to_owned(), 3.0)]);
    }

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
