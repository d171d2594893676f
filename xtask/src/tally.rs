//! Counting: what passed, what failed, what was skipped and why.
//!
//! Who calls it: every recipe. It guarantees that in CI a skip counts as a failure.

use std::fmt;

use crate::places;

/// Counts of one run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
    /// One line for each failure and each skip, for the end of the run.
    pub(crate) remarks: Vec<String>,
    /// What suites counted besides, one line each (`proof: …` in a test's output).
    pub(crate) counts: Vec<String>,
}

impl Tally {
    /// Counts one check, and says how it went.
    pub(crate) fn check(&mut self, name: &str, result: anyhow::Result<()>) {
        match result {
            Ok(()) => {
                say!("  ok      {name}");
                self.passed += 1;
            }
            Err(error) => self.fail(name, &format!("{error:#}")),
        }
    }

    /// Counts one failure.
    pub(crate) fn fail(&mut self, name: &str, why: &str) {
        say!("  FAILED  {name}: {why}");
        self.failed += 1;
        self.remarks.push(format!("FAILED  {name}: {}", why.lines().next().unwrap_or_default()));
    }

    /// Counts what could not be run here.
    pub(crate) fn skip(&mut self, name: &str, why: &str) {
        if places::in_ci() {
            return self.fail(name, &format!("not run ({why}), and in CI nothing may be skipped"));
        }
        say!("  SKIPPED {name}: {why}");
        self.skipped += 1;
        self.remarks.push(format!("SKIPPED {name}: {why}"));
    }

    /// Adds another run's counts.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.remarks.extend(other.remarks);
        self.counts.extend(other.counts);
    }

    /// Whether something ran and nothing failed.
    pub(crate) fn is_green(&self) -> bool {
        self.failed == 0 && self.passed > 0
    }

    /// Adds the counts of cargo's own closing lines (`test result: ok. 3 passed; 0 failed; 1 ignored; …`).
    pub(crate) fn add_cargo_output(&mut self, output: &str) {
        for line in output.lines().filter(|line| line.starts_with("test result:")) {
            let count = |word: &str| {
                let before = line.split(word).next().unwrap_or_default();
                before.split_whitespace().last().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0)
            };
            self.passed += count(" passed;");
            self.failed += count(" failed;");
            self.skipped += count(" ignored;");
        }
        self.counts
            .extend(output.lines().filter_map(|line| line.split_once("proof: ")).map(|(_, count)| count.to_owned()));
        let failures = output.lines().filter(|line| line.starts_with("test ") && line.ends_with("... FAILED"));
        self.remarks.extend(failures.map(|line| format!("FAILED  {line}")));
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for remark in &self.remarks {
            writeln!(formatter, "{remark}")?;
        }
        write!(formatter, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 { write!(formatter, ", {} skipped", self.skipped) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn cargo_closing_lines_are_added_up() {
        let mut tally = Tally::default();
        tally.add_cargo_output(
            "running 2 tests\ntest result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n\
             test broken ... FAILED\ntest result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n",
        );
        assert_eq!((tally.passed, tally.failed, tally.skipped), (3, 1, 1));
        assert_eq!(tally.remarks, ["FAILED  test broken ... FAILED"]);
        assert!(tally.to_string().ends_with("3 passed, 1 failed, 1 skipped"));
    }

    #[test]
    fn a_run_of_nothing_is_not_green() {
        assert!(!Tally::default().is_green());
    }
}
