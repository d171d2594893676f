//! What one test of a suite came to, and what is common in how suites say it.
//!
//! Who calls it: the suites. It must never judge: whether a failure is known is for `known`.

use std::time::{Duration, Instant};

use anyhow::bail;

/// How one test ended; with what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

/// One test of a suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) outcome: Outcome,
}

impl Case {
    pub(super) fn new(name: impl Into<String>, outcome: Outcome) -> Self {
        Self { name: name.into(), outcome }
    }

    /// Runs one of our own steps of a suite.
    pub(super) fn of(name: &str, result: anyhow::Result<()>) -> Self {
        let outcome = match result {
            Ok(()) => Outcome::Passed,
            Err(error) => Outcome::Failed(first_line(&format!("{error:#}"))),
        };
        Self::new(name, outcome)
    }
}

/// The line of an error that goes into a list.
pub(super) fn first_line(text: &str) -> String {
    text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it said nothing").to_owned()
}

/// Looks again until there is something, or the limit is over.
pub(super) fn waited<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if let Some(found) = look() {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    bail!("waited {} s in vain for {what}", limit.as_secs())
}

/// Reads what `go test -v` prints. A test with parts counts by its parts, unless it failed although they passed; one that
/// began and never ended failed.
pub(super) fn of_go(output: &str) -> Vec<Case> {
    let mut begun: Vec<&str> = Vec::new();
    let mut ended: Vec<(&str, Outcome)> = Vec::new();
    let mut said = String::new();
    for line in output.lines() {
        let text = line.trim_start();
        if let Some(name) = text.strip_prefix("=== RUN ") {
            begun.push(name.trim());
        } else if let Some((outcome, name)) = go_verdict(text) {
            let why = first_line(&said);
            said.clear();
            ended.push((name, outcome(why)));
        } else if text.contains("_test.go:") {
            said = text.to_owned();
        }
    }
    let outcome_of = |name: &str| {
        let outcome = ended.iter().find(|(other, _)| *other == name).map(|(_, outcome)| outcome.clone());
        outcome.unwrap_or_else(|| Outcome::Failed("it did not end within the limit".to_owned()))
    };
    let parts = |name: &str| {
        let is_part = |other: &&&str| other.strip_prefix(name).is_some_and(|rest| rest.starts_with('/'));
        begun.iter().filter(is_part).map(|part| outcome_of(part)).collect::<Vec<_>>()
    };
    let case = |name: &&str| {
        let (outcome, parts) = (outcome_of(name), parts(name));
        let has_failed = |outcome: &Outcome| matches!(outcome, Outcome::Failed(_));
        let counts = parts.is_empty() || (has_failed(&outcome) && !parts.iter().any(has_failed));
        counts.then(|| Case::new(*name, outcome))
    };
    begun.iter().filter_map(case).collect()
}

/// Makes an outcome of what the test said.
type Verdict = fn(String) -> Outcome;

/// What a line `--- FAIL: TestName (0.01s)` says.
fn go_verdict(line: &str) -> Option<(Verdict, &str)> {
    let rest = line.strip_prefix("--- ")?;
    let (verdict, rest) = rest.split_once(": ")?;
    let name = rest.split(' ').next()?;
    let outcome: Verdict = match verdict {
        "PASS" => |_| Outcome::Passed,
        "FAIL" => Outcome::Failed,
        "SKIP" => Outcome::Skipped,
        _ => return None,
    };
    Some((outcome, name))
}

#[cfg(test)]
mod tests {
    use super::{Outcome, of_go};

    #[test]
    fn a_go_test_counts_by_its_parts_and_one_that_never_ends_failed() {
        let cases = of_go(
            "=== RUN   TestA\n=== RUN   TestA/one\n=== RUN   TestA/two\n    a_test.go:7: lost 3 records\n\
             === RUN   TestB\n    --- PASS: TestA/one (0.10s)\n    --- FAIL: TestA/two (0.20s)\n--- FAIL: TestA (0.30s)\n\
             === RUN   TestC\n--- SKIP: TestB (0.00s)\npanic: test timed out after 1s\n",
        );
        let names: Vec<_> = cases.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(names, ["TestA/one", "TestA/two", "TestB", "TestC"]);
        assert_eq!(cases[0].outcome, Outcome::Passed);
        assert!(matches!(cases[1].outcome, Outcome::Failed(_)));
        assert!(matches!(cases[2].outcome, Outcome::Skipped(_)));
        assert_eq!(cases[3].outcome, Outcome::Failed("it did not end within the limit".to_owned()));
    }

    #[test]
    fn a_go_test_that_fails_although_its_parts_pass_counts() {
        let cases = of_go("=== RUN   TestA\n=== RUN   TestA/one\n--- PASS: TestA/one (0s)\n--- FAIL: TestA (0s)\n");
        assert_eq!(cases.len(), 2);
        assert!(matches!(cases[0].outcome, Outcome::Failed(_)));
    }
}
