//! The write-ahead guarantees, proven by breaking the process: the real `cairn up` is stopped everywhere, started again,
//! and its trail is compared with what reached an upstream that outlived it and with what its clients saw.
//!
//! One test binary; a bounded slice of each suite runs by default, all of it with
//! `CAIRN_PROOF=crash` (`cargo xtask proof`; fewer with `CAIRN_PROOF_SITES=N`).
//! To add a place to crash at, add a [`rounds::Stop`]; to add something that must hold, add it to [`verdict`].
#![allow(clippy::print_stdout, reason = "the counts of a proof are printed where somebody asks for them")]

mod agent;
mod book;
mod cairn;
mod forgetful;
mod pipe;
mod rounds;
mod scenes;
mod trail;
mod upstream;
mod verdict;

use rounds::{Plan, Power, Stop, Tally, Through, live, proof_sites};

/// Every step of the life of a call, as `CAIRN_CRASH_AT` names them.
const STEPS: [&str; 9] = [
    "accepted",
    "decided",
    "held",
    "before-intent",
    "after-intent",
    "forwarded",
    "answered",
    "after-outcome",
    "replied",
];

/// Prints what a suite came to, for `cargo xtask proof`.
fn report(suite: &str, tally: &Tally) {
    let Tally { kills, records, counts } = tally;
    println!(
        "proof: {suite}: {kills} kills, {} requests, {} reached the upstream, {} answered, {} in doubt, {} closed without effect, {records} records",
        counts.asked, counts.reached, counts.answered, counts.in_doubt, counts.closed_without_effect
    );
}

/// The operations on the disk that a recording is made of, and the files that they are made on.
const DISK: [Stop; 6] = [
    Stop::Disk("write-before", ".wal"),
    Stop::Disk("write-torn", ".wal"),
    Stop::Disk("sync-before", ".wal"),
    Stop::Disk("sync-after", ".wal"),
    Stop::Disk("any", ""),
    Stop::Starting,
];

fn every_step() -> Vec<Stop> {
    STEPS.iter().map(|step| Stop::Step(step)).chain([Stop::AnyMoment]).collect()
}

/// Lives through the stops once for each seed: one in the default run, many in a proof.
async fn suite(name: &str, stops: fn() -> Vec<Stop>, power: Power, through: Through) {
    let mut all = Tally::default();
    for seed in 0..proof_sites().unwrap_or(1) {
        all.add(&live(&Plan { seed, stops: stops(), agents: 8, power, through }).await);
    }
    report(name, &all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_step_of_a_call_leaves_one_story_over_http() {
    suite("kill -9 at each step of a call, HTTP", every_step, Power::Stays, Through::Http).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_step_of_a_call_leaves_one_story_over_wraps() {
    let some = || ["after-intent", "forwarded", "answered"].map(Stop::Step).into();
    let all = || STEPS.iter().filter(|step| **step != "held").map(|step| Stop::Step(step)).collect();
    let stops = if proof_sites().is_some() { all } else { some as fn() -> Vec<Stop> };
    suite("kill -9 at each step of a call, cairn wrap", stops, Power::Stays, Through::Wraps).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_within_recording_or_recovery_leaves_one_story() {
    let stops = || DISK.into_iter().flat_map(|stop| [stop, Stop::Starting]).collect();
    suite("kill -9 around each operation on the disk, in recovery too", stops, Power::Stays, Through::Http).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_loss_at_any_step_of_a_call_leaves_one_story() {
    suite("power loss at each step of a call", every_step, Power::Fails, Through::Http).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_loss_within_recording_or_recovery_leaves_one_story() {
    let stops = || DISK.into_iter().flat_map(|stop| [stop, Stop::Starting]).collect();
    suite("power loss around each operation on the disk, in recovery too", stops, Power::Fails, Through::Http).await;
}
