//! `cargo xtask proof`: the long version of every suite, and what it came to, in docs/proof.md.
//!
//! Who calls it: people, before a release. It guarantees that every failure, skip and exclusion is in the file, with
//! its reason. Long tests are marked `#[ignore = "long: …"]`, or read `CAIRN_PROOF` and do more; what they count they
//! print in lines that begin with `proof: `.

use std::fmt::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::process::{quiet, shown};
use crate::tally::Tally;
use crate::{
    bridging, conformance, fuzz, kafka, lake, models, mutants, observe, pilot, places, registry, secrets, suites,
    take_over, tidy, torture,
};

/// How long the rounds of crashes may take.
const CRASH_LIMIT: Duration = Duration::from_secs(12 * 3600);
/// How long the workspace's long tests may take.
const RUST_LIMIT: Duration = Duration::from_secs(4 * 3600);
/// What no suite here covers, and why.
const EXCLUSIONS: &[(&str, &str)] = &[
    ("the suite's scenarios about tasks", "the suite runs them unscored"),
    ("the suite's scenarios about DPoP", "the suite does not score them; Cairn uses Bearer tokens towards servers"),
    (
        "power loss of the machine itself",
        "a layer below the process stands for it: it forgets what no fsync covered, and cannot show a disk that lies to the kernel",
    ),
    (
        "kills at each operation on the disk through `cairn wrap`",
        "what is recorded does not depend on the door; the steps of a call are killed through both doors",
    ),
    ("header and committed offset with kcat", "its output is lines, and it shows no committed offsets"),
];

/// What runs a suite.
type Run = fn() -> anyhow::Result<Tally>;
/// One suite of the proof.
type Suite = (String, Box<dyn Fn() -> anyhow::Result<Tally>>);

/// In this order they stand in the file. The mutants are a suite for each crate or, of a large one, for each table: all of them take hours.
fn suites() -> Vec<Suite> {
    let plain: [(&str, Run); 16] = [
        ("tidy", tidy::run),
        ("Rust tests, long ones included", rust),
        ("crash and power loss, long rounds", crash),
        ("torture: brokers killed under real clients", || torture::run(&torture::Options::proof())),
        ("fuzzing, five minutes each", || fuzz::run(&fuzz::Options::proof())),
        ("MCP conformance", || conformance::run(conformance::Scale::Full)),
        ("bridging both ways", bridging::run),
        ("the operator's credential", secrets::run),
        ("agents and servers that report", models::run),
        ("traces, metrics and the dashboard", observe::run),
        ("the trail as an Iceberg table", lake::run),
        ("the pilot", pilot::run),
        ("serializers against the schema registry", || registry::run(&registry::Options::proof())),
        ("other people's test suites", || suites::run(&suites::Options::proof())),
        ("brokers that take over, 120 rounds", || take_over::run(&take_over::Options::proof())),
        ("Kafka clients, 100,000 records each", || kafka::run(&kafka::Options::proof())),
    ];
    let plain = plain.into_iter().map(|(name, suite)| -> Suite { (name.to_owned(), Box::new(suite)) });
    let mutants = mutants::parts()
        .into_iter()
        .map(|part| -> Suite { (format!("mutants in {part}"), Box::new(move || mutants::run("", part))) });
    plain.chain(mutants).collect()
}

/// Runs everything, or what is named, and writes the file. What is not named keeps what it came to when it last ran.
pub(crate) fn run(only: &[String]) -> anyhow::Result<Tally> {
    let path = places::root().join("docs/proof.md");
    let before = std::fs::read_to_string(&path).unwrap_or_default();
    let suites = suites();
    let kept = |(name, _): &Suite| section(&before, name).unwrap_or_else(|| format!("## {name}\n\nNot run yet.\n"));
    let mut sections: Vec<String> = suites.iter().map(kept).collect();
    let mut tally = Tally::default();
    for ((name, suite), section) in suites.iter().zip(0..) {
        if !only.is_empty() && !only.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        // Read before the suite: what it ran is what was there when it began.
        let ran = Ran::now()?;
        let started = Instant::now();
        let counted = suite().unwrap_or_else(|error| {
            let mut failed = Tally::default();
            failed.fail(name, &format!("{error:#}"));
            failed
        });
        sections[section] = ran.told(name, &counted, started.elapsed())?;
        tally.add(counted);
        // Each as it ends: all of them take hours, and who is stopped keeps what there is.
        std::fs::write(&path, document(&sections)?).with_context(|| format!("write {}", path.display()))?;
    }
    println!("  wrote {}", path.display());
    Ok(tally)
}

/// What a suite was run on, and when.
pub(crate) struct Ran {
    pub(crate) commit: String,
    pub(crate) date: String,
}

impl Ran {
    /// As the checkout is now.
    pub(crate) fn now() -> anyhow::Result<Self> {
        let limit = Duration::from_secs(30);
        let git = |arguments: &[&str]| quiet(Command::new("git").args(arguments).current_dir(places::root()), limit);
        // What a suite writes down of its own results is no change of what it ran on.
        let written = ["proof", "mcp-conformance", "kafka-compatibility", "kafka-suites", "take-over"];
        let written = written.map(|name| format!(":!docs/{name}.md"));
        let written: Vec<&str> = written.iter().map(String::as_str).collect();
        let changed = git(&[&["status", "--porcelain", "--", "."][..], &written].concat())?;
        let note = if changed.trim().is_empty() { "" } else { " with changes that are not committed" };
        let commit = format!("{}{note}", git(&["rev-parse", "--short=12", "HEAD"])?.trim());
        Ok(Self { commit, date: quiet(Command::new("date").args(["-u", "+%Y-%m-%d"]), limit)?.trim().to_owned() })
    }

    fn told(&self, name: &str, counted: &Tally, took: Duration) -> anyhow::Result<String> {
        let Tally { passed, failed, skipped, .. } = counted;
        let Self { commit, date } = self;
        let mut text =
            format!("## {name}\n\n{passed} passed, {failed} failed, {skipped} skipped, in {} s; ", took.as_secs());
        writeln!(text, "on {date}, commit {commit}.")?;
        if !(counted.counts.is_empty() && counted.remarks.is_empty()) {
            writeln!(text)?;
        }
        for line in counted.counts.iter().chain(&counted.remarks) {
            writeln!(text, "- {line}")?;
        }
        Ok(text)
    }
}

/// The part of the file under a heading, its end of line included.
fn section(document: &str, name: &str) -> Option<String> {
    let mut lines = document.lines().skip_while(|line| line.strip_prefix("## ") != Some(name));
    let heading = lines.next()?;
    let rest: Vec<_> = lines.take_while(|line| !line.starts_with("## ")).collect();
    Some(format!("{heading}\n{}\n", rest.join("\n").trim_end()))
}

fn document(sections: &[String]) -> anyhow::Result<String> {
    let mut text = String::from(
        "# Proof\n\nThe long version of every suite, each with the commit that it ran on. Generated by `cargo xtask proof`, which\n\
         runs all of them (hours) or those that are named; do not edit.\n",
    );
    for section in sections {
        write!(text, "\n{section}")?;
    }
    writeln!(text, "\n## Not covered\n")?;
    for (what, why) in EXCLUSIONS {
        writeln!(text, "- {what}: {why}.")?;
    }
    Ok(text)
}

fn rust() -> anyhow::Result<Tally> {
    let arguments = ["test", "--workspace", "--no-fail-fast", "--", "--include-ignored", "--show-output"];
    cargo(&arguments, "1", RUST_LIMIT)
}

fn crash() -> anyhow::Result<Tally> {
    // One after another: they share the machine's disk, and each brings its own load.
    let of = |test: &[&str]| {
        let arguments = [&["test", "-p", "cairn", "--test"], test, &["--test-threads=1", "--nocapture"]].concat();
        cargo(&arguments, "crash", CRASH_LIMIT)
    };
    let mut tally = of(&["crash", "--"])?;
    tally.add(of(&["commands", "--", "kills_in_the_middle"])?);
    Ok(tally)
}

fn cargo(arguments: &[&str], proof: &str, limit: Duration) -> anyhow::Result<Tally> {
    let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    command.args(arguments).current_dir(places::root()).env("CAIRN_PROOF", proof).env("CARGO_TERM_COLOR", "never");
    let ended = shown(&mut command, limit)?;
    let mut tally = Tally::default();
    tally.add_cargo_output(&ended.output);
    if !ended.success && tally.failed == 0 {
        tally.fail("cargo test", &ended.how);
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::{Ran, document, section};
    use crate::tally::Tally;

    #[test]
    fn a_suite_that_is_not_run_keeps_its_section_whole() {
        let ran = Ran { commit: "abc".to_owned(), date: "2026-01-01".to_owned() };
        let mut counted = Tally { passed: 2, ..Tally::default() };
        counted.counts.push("7 kills".to_owned());
        let sections = ["one", "two", "three"]
            .map(|name| ran.told(name, &counted, std::time::Duration::from_secs(3)).expect("told"));
        let whole = document(&sections).expect("written");
        for (at, name) in ["one", "two", "three"].into_iter().enumerate() {
            assert_eq!(section(&whole, name).as_ref(), Some(&sections[at]));
        }
        assert!(sections[0].contains("2 passed, 0 failed, 0 skipped, in 3 s; on 2026-01-01, commit abc."));
        assert_eq!(section(&whole, "four"), None);
    }
}
