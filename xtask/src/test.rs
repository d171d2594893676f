//! `cargo xtask test`: the one command that sets up everything and passes the tests.
//!
//! Who calls it: the README, `.ci/run`, people. It guarantees one closing line, `N passed, N failed`, and an end:
//! each step has a limit.

mod whole;

use std::process::Command;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::process::{Running, quiet};
use crate::tally::Tally;
use crate::{
    bridging, conformance, identity, kafka, lake, models, observe, pilot, places, registry, secrets, suites, tidy,
};

/// How long the compiler may take for one step from an empty cache, giving way to the tests.
const COMPILE_LIMIT: Duration = Duration::from_secs(2100);
/// How long the workspace's own tests may take, compiled from an empty cache.
const RUST_LIMIT: Duration = Duration::from_secs(2300);

/// One part of the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Step {
    /// Headers, names, dependencies.
    Tidy,
    /// rustfmt.
    Fmt,
    /// The workspace's own tests.
    Rust,
    /// Lints, warnings as errors.
    Clippy,
    /// The MCP conformance suite, directly and through Cairn, and reference servers both ways.
    Conformance,
    /// Clients of one MCP era, servers of the other.
    Bridging,
    /// A real OpenID provider, rotation under load, and attempts to cheat.
    Identity,
    /// An agent that looks for the operator's credential.
    Secrets,
    /// Other people's Kafka clients.
    Kafka,
    /// Other people's serializers against the schema registry.
    Registry,
    /// A named slice of other people's test suites.
    Suites,
    /// An instrumented agent, and servers that report.
    Models,
    /// Spans, metrics and the dashboard, read by other people's code.
    Observe,
    /// Other people's engines at the trail as an Iceberg table.
    Lake,
    /// The pilot of the examples.
    Pilot,
}

/// The order: what is quick to fail goes first.
const ALL: [Step; 15] = [
    Step::Tidy,
    Step::Fmt,
    Step::Rust,
    Step::Clippy,
    Step::Conformance,
    Step::Bridging,
    Step::Identity,
    Step::Secrets,
    Step::Kafka,
    Step::Registry,
    Step::Suites,
    Step::Models,
    Step::Observe,
    Step::Lake,
    Step::Pilot,
];

/// Runs the steps that are named one after the other; all of them, side by side where that costs nothing, where none is.
pub(crate) fn run(only: &[Step]) -> anyhow::Result<Tally> {
    if only.is_empty() {
        return Ok(whole::run());
    }
    let mut tally = Tally::default();
    for step in ALL.into_iter().filter(|step| only.contains(step)) {
        println!("── {step:?}");
        tally.add(told(step));
    }
    Ok(tally)
}

/// Runs one step, and says how long it took.
fn told(step: Step) -> Tally {
    counted(step, || run_step(step))
}

fn counted(step: Step, run: impl FnOnce() -> anyhow::Result<Tally>) -> Tally {
    let started = Instant::now();
    let tally = run().unwrap_or_else(|error| {
        let mut failed = Tally::default();
        failed.fail(&format!("{step:?}").to_lowercase(), &format!("{error:#}"));
        failed
    });
    say!("── {step:?} took {} s", started.elapsed().as_secs());
    tally
}

fn run_step(step: Step) -> anyhow::Result<Tally> {
    match step {
        Step::Tidy => tidy::run(),
        Step::Fmt => one("rustfmt", cargo(&["fmt", "--all", "--check"])),
        Step::Clippy => lints(),
        Step::Rust => rust(|_| ()),
        Step::Conformance => conformance::run(conformance::Scale::Slice),
        Step::Bridging => bridging::run(),
        Step::Identity => identity::run(),
        Step::Secrets => secrets::run(),
        Step::Kafka => kafka::run(&kafka::Options::slice()),
        Step::Registry => registry::run(&registry::Options::quick()),
        Step::Suites => suites::run(&suites::Options::slice()),
        Step::Models => models::run(),
        Step::Observe => observe::run(),
        Step::Lake => lake::run(),
        Step::Pilot => pilot::run(),
    }
}

fn one(name: &str, mut command: Command) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    tally.check(name, quiet(&mut command, COMPILE_LIMIT).map(drop));
    Ok(tally)
}

/// Lints of everything, and whether what people build by itself is whole by itself: beside the others a package may use what only
/// they ask for.
fn lints() -> anyhow::Result<Tally> {
    let mut tally = one("clippy", cargo(&["clippy", "-q", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    for package in ["cairn", "cairn-lake"] {
        tally.add(one(&format!("{package} by itself"), cargo(&["check", "-q", "-p", package]))?);
    }
    Ok(tally)
}

/// The workspace's own tests; each of their lines goes to `on_line` too.
fn rust(mut on_line: impl FnMut(&str)) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let mut tests = cargo(&["test", "--workspace", "--no-fail-fast"]);
    // They start processes and wait for them: with one for each core, half of the machine stands idle.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    tests.env("RUST_TEST_THREADS", (cores + 1).to_string());
    let ended = Running::start(&mut tests)?.follow(RUST_LIMIT, |line| {
        println!("{line}");
        on_line(line);
    })?;
    tally.add_cargo_output(&ended.output);
    if !ended.success && tally.failed == 0 {
        tally.fail("cargo test", &ended.how);
    }
    Ok(tally)
}

/// The cargo that runs this recipe.
fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    command.args(arguments).current_dir(places::root()).env("CARGO_TERM_COLOR", "never");
    command
}
