//! The tests that the crate `rdkafka` brings, which talk to a broker by librdkafka.
//!
//! Who calls it: the list of suites. The crate is the one that this workspace uses. Its makers run the tests against one broker
//! on a port that the tests know, whose id is 0 and whose topics have three partitions where nobody says how many; so does this.
//! Where the port is taken the suite says so.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;

use super::librdkafka;
use super::outcome::{Case, Outcome, first_line};
use super::{Run, Setting, Suite};
use crate::cairn::Cairn;
use crate::places;
use crate::process::{Running, quiet};

pub(super) const SUITE: Suite = Suite {
    name: "rdkafka (Rust), tests against a broker",
    version: "0.39.0",
    command: "KAFKA_HOST=BROKER KAFKA_VERSION=4.1.0 cargo test --test NAME, one after the other",
    in_slice: false,
    install,
};

/// Where its tests expect the broker.
const AT: &str = "127.0.0.1:9092";
const SET_UP_LIMIT: Duration = Duration::from_secs(1800);
/// How long the tests of one file may take.
const RUN_LIMIT: Duration = Duration::from_secs(300);

fn install() -> anyhow::Result<Run> {
    let folder = places::cache("suites")?.join(format!("rdkafka-{}", SUITE.version));
    if !folder.is_dir() {
        // Under its name only once it is whole.
        let copying = folder.with_extension("new");
        places::copy_tree(&librdkafka::package("rdkafka", SUITE.version)?, &copying)?;
        std::fs::rename(&copying, &folder)?;
    }
    quiet(cargo(&folder).args(["test", "--quiet", "--tests", "--no-run"]), SET_UP_LIMIT)?;
    Ok(Box::new(move |setting| run(setting, &folder)))
}

fn cargo(folder: &Path) -> Command {
    let mut cargo = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    cargo.current_dir(folder).env("CARGO_TARGET_DIR", folder.join("target")).env("CARGO_PROFILE_DEV_DEBUG", "0");
    cargo
}

fn run(setting: &Setting, folder: &Path) -> anyhow::Result<Vec<Case>> {
    TcpListener::bind(AT).with_context(|| format!("{AT} is where its tests expect the broker"))?;
    let mut broker = Cairn::new(&setting.program, "suite-rdkafka", None)?;
    AT.clone_into(&mut broker.kafka);
    broker.broker_alone();
    broker.configure(&format!("[kafka]\nnode_id = 0\npartitions = 3\n{}", super::RULES))?;
    broker.start()?;
    let (mut cases, mut log) = (Vec::new(), String::new());
    for file in files(folder)? {
        let mut tests = cargo(folder);
        tests.args(["test", "--test", &file]).env("KAFKA_HOST", &broker.kafka).env("KAFKA_VERSION", super::KAFKA);
        let ended = Running::start(tests.env_remove("CI"))?.follow(RUN_LIMIT, |_| ())?;
        log.push_str(&format!("== {file}\n{}\n{}\n", ended.output, ended.how));
        let found = of_cargo(&file, &ended.output);
        if !ended.success && found.iter().all(|case| case.outcome == Outcome::Passed) {
            cases.push(Case::new(file, Outcome::Failed(ended.how)));
        }
        cases.extend(found);
    }
    super::keep("rdkafka", &log)?;
    broker.end()?;
    Ok(cases)
}

/// The names of its files of tests.
fn files(folder: &Path) -> anyhow::Result<Vec<String>> {
    let tests = folder.join("tests");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&tests).with_context(|| format!("list {}", tests.display()))? {
        let path: PathBuf = entry?.path();
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        if stem.starts_with("test_") {
            names.push(stem);
        }
    }
    names.sort();
    Ok(names)
}

/// Reads what Rust's test harness prints: a line for each test, and after them what those that failed said.
fn of_cargo(file: &str, output: &str) -> Vec<Case> {
    let case = |line: &str| {
        let (name, verdict) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
        let outcome = match verdict.split(',').next()? {
            "ok" => Outcome::Passed,
            "FAILED" => Outcome::Failed(why(name, output)),
            "ignored" => Outcome::Skipped("its makers leave it out".to_owned()),
            _ => return None,
        };
        Some(Case::new(format!("{file}: {name}"), outcome))
    };
    output.lines().filter_map(case).collect()
}

/// What a test said when it failed.
fn why(name: &str, output: &str) -> String {
    let said = output.split_once(&format!("thread '{name}'")).and_then(|(_, rest)| rest.split_once('\n'));
    said.map_or_else(|| "it said nothing".to_owned(), |(_, rest)| first_line(rest))
}

#[cfg(test)]
mod tests {
    use super::{Outcome, of_cargo};

    #[test]
    fn tests_count_by_their_lines_and_say_why_they_failed() {
        let output = "running 3 tests\ntest one ... ok\ntest two has been running for over 60 seconds\n\
                      test two ... FAILED\ntest three ... ignored, slow\n\nfailures:\n\n---- two stdout ----\n\
                      thread 'two' (77) panicked at tests/a.rs:5:6:\nassertion failed: 1 is not 2\n";
        let cases = of_cargo("a", output);
        let names: Vec<_> = cases.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(names, ["a: one", "a: two", "a: three"]);
        assert_eq!(cases[0].outcome, Outcome::Passed);
        assert_eq!(cases[1].outcome, Outcome::Failed("assertion failed: 1 is not 2".to_owned()));
        assert!(matches!(cases[2].outcome, Outcome::Skipped(_)));
    }
}
