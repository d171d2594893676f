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
mod torture;
mod trail;
mod truth;
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

/// So small and hasty that objects, heads and used files of the write-ahead log come and go all the time.
const HASTY: &str = "upload_bytes = 6000\nupload_interval_ms = 10\nwal_segment_bytes = 131072\n";

/// The operations that an upload is made of: the object, the index that names it, the head, and the file that is free then.
const UPLOAD: [Stop; 8] = [
    Stop::Disk("link-before", "objects/data"),
    Stop::Disk("link-after", "objects/data"),
    Stop::Disk("link-before", "objects/head"),
    Stop::Disk("link-after", "objects/head"),
    Stop::Disk("sync-before", "objects"),
    Stop::Disk("sync-after", "objects"),
    Stop::Disk("any", "objects"),
    Stop::Disk("any", ""),
];

fn every_step() -> Vec<Stop> {
    STEPS.iter().map(|step| Stop::Step(step)).chain([Stop::AnyMoment]).collect()
}

/// Lives through the stops once for each seed: one in the default run, many in a proof.
async fn suite(name: &str, stops: fn() -> Vec<Stop>, power: Power, through: Through) {
    over(name, stops, power, through, None).await;
}

async fn over(name: &str, stops: fn() -> Vec<Stop>, power: Power, through: Through, store: Option<&'static str>) {
    let mut all = Tally::default();
    for seed in 0..proof_sites().unwrap_or(1) {
        all.add(&live(&Plan { seed, stops: stops(), agents: 8, power, through, store }).await);
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_loss_between_an_upload_and_the_reuse_of_its_files_leaves_one_story() {
    let stops = || UPLOAD.into_iter().collect();
    over("power loss around each operation of an upload", stops, Power::Fails, Through::Http, Some(HASTY)).await;
}
