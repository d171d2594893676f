//! Other people's test suites and tools against a real `cairn broker`, and the scoreboard that they make.
//!
//! Who calls it: `cargo xtask suites` and `cargo xtask proof` with all of them, `cargo xtask test` with a slice. Each suite
//! is installed from the registry that its makers publish to, runs against a broker of its own, and has a limit. It
//! guarantees that every test that failed or was skipped is in docs/kafka-suites.md with its reason from
//! `suites/known.md`, and that one which is not in that list fails the command.

mod board;
mod connect;
mod differential;
mod franz;
mod kafka_python;
mod kminion;
mod known;
mod librdkafka;
mod mirror;
mod outcome;
mod rdkafka;
mod sarama;
mod streams;
mod tools;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::cairn::{self, Cairn};
use crate::places;
use crate::proof::Ran;
use crate::tally::Tally;

use board::Score;
use known::Known;
use outcome::{Case, Outcome};

/// The version of Apache Kafka whose programs run; `clients/suites/java/pom.xml` fetches it.
const KAFKA: &str = "4.1.0";

/// Every broker judges by access rules, and lets everybody do what no rule is about, as the suites' makers set theirs up.
const RULES: &str = "authorization = \"acl\"\nallow_everyone_if_no_acl = true\n";

/// How much of a suite runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scale {
    /// What CI has time for.
    Slice,
    /// All of it.
    Full,
}

/// What the suites run against.
#[derive(Clone, Debug)]
struct Setting {
    /// The broker's binary.
    program: PathBuf,
    scale: Scale,
}

impl Setting {
    /// A broker with nothing in it, for one suite.
    fn broker(&self, suite: &str) -> anyhow::Result<Cairn> {
        let mut broker = Cairn::new(&self.program, &format!("suite-{suite}"), None)?;
        broker.broker_alone();
        broker.configure(&format!("[kafka]\n{RULES}"))?;
        broker.start()?;
        Ok(broker)
    }
}

/// Runs a suite that is installed.
type Run = Box<dyn FnOnce(&Setting) -> anyhow::Result<Vec<Case>>>;

/// One suite.
struct Suite {
    /// Its name in the scoreboard.
    name: &'static str,
    /// The version that is run.
    version: &'static str,
    /// How its makers run it; what is in capitals is set here.
    command: &'static str,
    /// Whether a part of it runs in CI.
    in_slice: bool,
    /// Installs it; an error says what the machine lacks.
    install: fn() -> anyhow::Result<Run>,
}

/// All of them, in the scoreboard's order.
const SUITES: [Suite; 11] = [
    franz::SUITE,
    kafka_python::SUITE,
    tools::SUITE,
    connect::SUITE,
    mirror::SUITE,
    streams::SUITE,
    kminion::SUITE,
    sarama::SUITE,
    librdkafka::SUITE,
    rdkafka::SUITE,
    differential::SUITE,
];

/// What to run.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Only suites whose name contains one of these; the others keep what they came to.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// The cargo profile that Cairn is built with.
    #[arg(long, default_value = "dev")]
    profile: String,
    /// Only the part that CI runs.
    #[arg(long)]
    slice: bool,
    /// Leave docs/kafka-suites.md as it is.
    #[arg(long)]
    keep_document: bool,
}

impl Options {
    /// What CI runs.
    pub(crate) fn slice() -> Self {
        Self { only: Vec::new(), profile: "dev".to_owned(), slice: true, keep_document: true }
    }

    /// The long version.
    pub(crate) fn proof() -> Self {
        Self { profile: "quick".to_owned(), slice: false, keep_document: false, ..Self::slice() }
    }
}

/// Installs what CI's slice needs. Whoever runs it says what is wrong with it.
pub(crate) fn set_up() {
    for suite in SUITES.iter().filter(|suite| suite.in_slice) {
        let _ = (suite.install)();
    }
}

/// Runs them one after the other, and writes the scoreboard.
pub(crate) fn run(options: &Options) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let scale = if options.slice { Scale::Slice } else { Scale::Full };
    let known = known::read()?;
    let program = cairn::build(&options.profile)?;
    let setting = Setting { program, scale };
    let mut scores = Vec::new();
    for suite in &SUITES {
        let is_named = options.only.is_empty() || options.only.iter().any(|only| suite.name.contains(only.as_str()));
        if !is_named || (scale == Scale::Slice && !suite.in_slice) {
            continue;
        }
        let ran = Ran::now()?;
        let started = Instant::now();
        match (suite.install)() {
            Err(error) => tally.skip(suite.name, &format!("{error:#}").replace('\n', " ")),
            Ok(run) => match run(&setting) {
                Err(error) => tally.fail(suite.name, &format!("{error:#}")),
                Ok(cases) => scores.push(count(suite, cases, &known, (ran, started.elapsed()), &mut tally)),
            },
        }
        say!("          {} in {:.0} s", suite.name, started.elapsed().as_secs_f32());
    }
    if scale == Scale::Full && !options.keep_document {
        board::write(&scores)?;
    }
    Ok(tally)
}

/// Compares what a suite came to with what is known of it.
fn count(
    suite: &'static Suite,
    cases: Vec<Case>,
    known: &[Known],
    (ran, took): (Ran, Duration),
    tally: &mut Tally,
) -> Score {
    let mut score = Score { suite, ran, took, passed: 0, failed: Vec::new(), skipped: Vec::new() };
    for case in cases {
        let reason = known::reason(known, suite.name, &case.name);
        let (list, word, why) = match &case.outcome {
            Outcome::Passed => {
                score.passed += 1;
                tally.passed += 1;
                continue;
            }
            Outcome::Failed(why) => (&mut score.failed, "fails", why),
            Outcome::Skipped(why) => (&mut score.skipped, "is skipped", why),
        };
        match reason {
            Some(reason) => say!("  known   {}: {} {word}: {reason}", suite.name, case.name),
            None => tally.fail(
                &format!("{}: {}", suite.name, case.name),
                &format!("{word}, and suites/known.md does not say why: {why}"),
            ),
        }
        list.push((case.name, reason.unwrap_or("not known yet").to_owned()));
    }
    let came_out =
        |line: &&Known| line.suite == suite.name && !line.covers_any(score.failed.iter().chain(&score.skipped));
    for line in known.iter().filter(came_out) {
        say!("  passes  {}: suites/known.md names `{}` for nothing", suite.name, line.test);
    }
    if score.passed + score.failed.len() == 0 {
        tally.fail(suite.name, "it ran no test");
    }
    let count = format!(
        "{}: {} passed, {} failed, {} skipped",
        suite.name,
        score.passed,
        score.failed.len(),
        score.skipped.len()
    );
    say!("  ok      {count}");
    tally.counts.push(count);
    score
}

/// Keeps what a suite said, so that a failure can be looked into.
fn keep(suite: &str, output: &str) -> anyhow::Result<()> {
    let path = places::cache("suites")?.join(format!("{suite}.log"));
    std::fs::write(&path, output).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests;
