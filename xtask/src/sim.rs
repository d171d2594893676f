//! `cargo xtask sim`: the log's simulation on seeds that nobody has run yet, until it is told to stop or finds something.
//!
//! Who calls it: people, for hours. It guarantees that what it found can be pasted: a failure prints the seed and what led to it.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::places;
use crate::process::quiet;
use crate::tally::Tally;

/// How long building and one portion may take.
const LIMIT: Duration = Duration::from_secs(3600);

/// What is run.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// The first seed; by default one that depends on the time, so that each run tries others.
    #[arg(long)]
    from: Option<u64>,
    /// How many; until it is stopped where absent.
    #[arg(long)]
    seeds: Option<u64>,
    /// Seeds of one portion.
    #[arg(long, default_value_t = 500)]
    portion: u64,
}

/// Runs portion after portion.
pub(crate) fn run(options: &Options) -> anyhow::Result<Tally> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let first = options.from.unwrap_or(since * 1_000);
    let portion = options.portion.max(1);
    let (begun, mut done, mut tally) = (Instant::now(), 0, Tally::default());
    while options.seeds.is_none_or(|seeds| done < seeds) {
        let some = options.seeds.map_or(portion, |seeds| portion.min(seeds - done));
        let (from, to) = (first + done, first + done + some);
        let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
        command.args(["test", "-q", "-p", "cairn-log", "--lib", "sim::ack"]).current_dir(places::root());
        command.env("CAIRN_SIM_SEEDS", format!("{from}..{to}")).env("CARGO_TERM_COLOR", "never");
        match quiet(&mut command, LIMIT) {
            Ok(_) => done += some,
            Err(error) => {
                tally.check(&format!("seeds {from} to {to}"), Err(error));
                println!(
                    "paste: CAIRN_SIM_SEEDS=SEED..SEED+1 cargo test -p cairn-log --lib sim::ack, with the seed that it names"
                );
                return Ok(tally);
            }
        }
        println!("{done} seeds, {} s: nothing found (next {to})", begun.elapsed().as_secs());
    }
    tally.check(&format!("{done} seeds from {first} on"), Ok(()));
    Ok(tally)
}
