//! `cargo xtask torture`: real brokers that are killed, stalled and stopped in a loop under real clients, until it is told to stop or finds
//! something.
//!
//! Who calls it: people, for hours, and `cargo xtask proof` for a minute and more. It guarantees that what it found can be looked into: a
//! failure prints the seed and the folder, which stays. What is done and what must hold is in `crates/cairn/tests/crash/torture`.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::places;
use crate::process::shown;
use crate::tally::Tally;

/// Minutes of one portion, where nobody says how many there are in all.
const PORTION_MINUTES: u64 = 10;
/// How long building, and ending what was begun, may take beside that.
const LIMIT: Duration = Duration::from_secs(3600);
/// Seeds of one portion at most: the next one begins behind them.
const PORTION_SEEDS: u64 = 1_000;

/// What is run.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// For how long; until it is stopped where absent. What was begun is brought to its end.
    #[arg(long)]
    minutes: Option<u64>,
    /// The first seed; by default one that depends on the time, so that each run tries others.
    #[arg(long)]
    seed: Option<u64>,
}

impl Options {
    /// A slice for the proof: one site on each ground.
    pub(crate) const fn proof() -> Self {
        Self { minutes: Some(1), seed: None }
    }
}

/// Runs portion after portion.
pub(crate) fn run(options: &Options) -> anyhow::Result<Tally> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    // Four grounds in turn: a run of a minute begins with the first.
    let mut seed = options.seed.unwrap_or(since * 4);
    let (begun, mut tally) = (Instant::now(), Tally::default());
    loop {
        let minutes = options.minutes.unwrap_or(PORTION_MINUTES);
        let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
        command.args(["test", "-p", "cairn", "--test", "crash", "--"]).current_dir(places::root());
        command.args(["torture::rounds", "--exact", "--ignored", "--nocapture"]).env("CARGO_TERM_COLOR", "never");
        command.env("CAIRN_TORTURE_SEED", seed.to_string()).env("CAIRN_TORTURE_SECONDS", (minutes * 60).to_string());
        let ended = shown(&mut command, LIMIT + Duration::from_secs(minutes * 60))?;
        tally.add_cargo_output(&ended.output);
        if !ended.success && tally.failed == 0 {
            tally.fail("torture", &ended.how);
        }
        println!("{} s of torture from seed {seed} on", begun.elapsed().as_secs());
        if options.minutes.is_some() || !tally.is_green() {
            return Ok(tally);
        }
        seed += PORTION_SEEDS;
    }
}
