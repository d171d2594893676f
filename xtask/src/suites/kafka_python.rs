//! kafka-python's integration tests, from the source archive that it publishes.
//!
//! Who calls it: the list of suites. The archive lacks two files of its folder `test`: the empty one that makes it a package, and
//! the module of its fixtures that starts and stops brokers. A broker that already runs needs nothing of the latter, so
//! `clients/suites/kafka-python/service.py` stands in for it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;

use super::outcome::{Case, Outcome, first_line};
use super::{Run, Setting, Suite};
use crate::process::{Running, quiet};
use crate::{places, toolchain};

pub(super) const SUITE: Suite = Suite {
    name: "kafka-python, integration tests",
    version: "3.0.12",
    command: "KAFKA_URI=kafka://BROKER KAFKA_VERSION=4.3.0 pytest test/integration",
    in_slice: false,
    install,
};

const ARCHIVE: &str = "kafka_python-3.0.12";
/// The version of Kafka for which it takes a broker with these requests.
const INFERRED: &str = "4.3.0";
const SET_UP_LIMIT: Duration = Duration::from_secs(600);
/// How long one test may take, in seconds.
const TEST_LIMIT: &str = "--timeout=90";
const RUN_LIMIT: Duration = Duration::from_secs(1200);

fn install() -> anyhow::Result<Run> {
    let bin = toolchain::python_with("suites-kafka-python", "suites/kafka-python/requirements.txt")?;
    let folder = bin.parent().context("no folder above the programs")?.join("source");
    let tests = folder.join(ARCHIVE);
    if !tests.join("test/integration").is_dir() {
        std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let mut fetch = Command::new(bin.join("pip"));
        fetch.args(["download", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-binary", ":all:"]);
        quiet(fetch.arg("kafka-python==3.0.12").current_dir(&folder), SET_UP_LIMIT)?;
        let archive = format!("{ARCHIVE}.tar.gz");
        quiet(Command::new("tar").args(["-xzf", &archive]).current_dir(&folder), SET_UP_LIMIT)?;
    }
    let service = places::root().join("clients/suites/kafka-python/service.py");
    std::fs::copy(&service, tests.join("test/service.py")).with_context(|| format!("copy {}", service.display()))?;
    std::fs::write(tests.join("test/__init__.py"), "")?;
    Ok(Box::new(move |setting| run(setting, &bin, &tests)))
}

fn run(setting: &Setting, bin: &Path, tests: &PathBuf) -> anyhow::Result<Vec<Case>> {
    let broker = setting.broker("kafka-python")?;
    let mut pytest = Command::new(bin.join("python"));
    pytest.args(["-B", "-m", "pytest", "-p", "no:cacheprovider", "-v", "--color=no", "--tb=line", TEST_LIMIT]);
    pytest.arg("test/integration").current_dir(tests).env("COLUMNS", "300");
    pytest.env("KAFKA_URI", format!("kafka://{}", broker.kafka)).env("KAFKA_VERSION", INFERRED);
    // It only must be there: nothing of it is run.
    pytest.env("KAFKA_ROOT", tests).env_remove("CI");
    let ended = Running::start(&mut pytest)?.follow(RUN_LIMIT, |_| ())?;
    super::keep("kafka-python", &ended.output)?;
    broker.end()?;
    Ok(of_pytest(&ended.output))
}

/// Reads what `pytest -v` prints: a name, a verdict, and behind a skip its reason.
fn of_pytest(output: &str) -> Vec<Case> {
    let said = |name: &str| {
        let short = name.rsplit("::").next().unwrap_or(name);
        let line = output.lines().find(|line| line.starts_with("FAILED") && line.contains(short));
        first_line(line.and_then(|line| line.split_once(" - ")).map_or("", |(_, why)| why))
    };
    let mut cases: Vec<Case> = Vec::new();
    for line in output.lines() {
        let Some((name, rest)) = line.split_once(' ').filter(|(name, _)| name.contains("::")) else { continue };
        let word = rest.split([' ', '(']).next().unwrap_or_default();
        let outcome = match word {
            "PASSED" => Outcome::Passed,
            "FAILED" | "ERROR" => Outcome::Failed(said(name)),
            "SKIPPED" => Outcome::Skipped(rest.split(['(', ')']).nth(1).unwrap_or_default().to_owned()),
            _ => continue,
        };
        let name = name.trim_start_matches("test/integration/").to_owned();
        // An error while a fixture is put away comes in a line of its own: the test has failed then.
        match cases.iter_mut().find(|case| case.name == name) {
            Some(case) if outcome != Outcome::Passed => case.outcome = outcome,
            Some(_) => {}
            None => cases.push(Case::new(name, outcome)),
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::{Outcome, of_pytest};

    #[test]
    fn a_line_of_pytest_is_a_test_and_an_error_after_it_fails_it() {
        let cases = of_pytest(
            "test/integration/test_a.py::test_one PASSED            [ 25%]\n\
             test/integration/test_a.py::test_two[gzip] FAILED      [ 50%]\n\
             test/integration/test_a.py::test_three SKIPPED (needs an old broker) [ 75%]\n\
             test/integration/test_a.py::test_four PASSED           [100%]\n\
             test/integration/test_a.py::test_four ERROR            [100%]\n\
             FAILED test/integration/test_a.py::test_two[gzip] - AssertionError: 3 records\n",
        );
        let names: Vec<_> = cases.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(
            names,
            ["test_a.py::test_one", "test_a.py::test_two[gzip]", "test_a.py::test_three", "test_a.py::test_four"]
        );
        assert_eq!(cases[0].outcome, Outcome::Passed);
        assert_eq!(cases[1].outcome, Outcome::Failed("AssertionError: 3 records".to_owned()));
        assert_eq!(cases[2].outcome, Outcome::Skipped("needs an old broker".to_owned()));
        assert!(matches!(cases[3].outcome, Outcome::Failed(_)));
    }
}
