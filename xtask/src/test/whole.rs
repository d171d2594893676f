//! All steps, side by side where that costs nothing.
//!
//! Who calls it: `cargo xtask test` without names, which is what CI runs. The compiler wants the whole machine, set-up waits for
//! other people's registries, and most suites wait for answers, kills and the ends of sessions. So set-up runs beside the
//! compiler, the lints beside the workspace's tests, which they give way to, and the suites in a few lanes. It guarantees that
//! no step is left out, that the suites run on the binaries that the tests have built, and that what a step says stands together.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::{Step, counted, rust, told};
use crate::process::give_way;
use crate::tally::Tally;
use crate::{apache, cairn, conformance, kafka, lake, models, observe, suites, toolchain, voice};

/// What goes first, one after the other: it takes seconds.
const FIRST: [Step; 2] = [Step::Tidy, Step::Fmt];
/// What runs in lanes once everything is built, what takes longest first. The registry's clients take long to build from nothing:
/// they run where they are named.
const SUITES: [Step; 10] = [
    Step::Conformance,
    Step::Lake,
    Step::Kafka,
    Step::Secrets,
    Step::Suites,
    Step::Models,
    Step::Identity,
    Step::Bridging,
    Step::Observe,
    Step::Pilot,
];
/// How many of them at once: one more than the cores of a small machine, because they mostly wait.
const LANES: usize = 3;

/// Runs everything.
pub(super) fn run() -> Tally {
    let mut tally = Tally::default();
    for step in FIRST {
        println!("── {step:?}");
        tally.add(told(step));
    }
    std::thread::scope(|scope| {
        let (compiled, is_compiled) = sync_channel(1);
        let set_up = scope.spawn(set_up);
        let linted = scope.spawn(move || lint(&is_compiled));
        println!("── {:?}", Step::Rust);
        tally.add(counted(Step::Rust, || compile_and_test(compiled)));
        // Steps that set up the same thing at once wait for each other, but not for what is none of theirs.
        set_up.join().expect("set-up does not panic");
        tally.add(in_lanes());
        tally.add(linted.join().expect("lints do not panic"));
    });
    tally
}

/// Runs the workspace's tests, and tells when everything is built.
fn compile_and_test(compiled: SyncSender<()>) -> anyhow::Result<Tally> {
    let mut compiled = Some(compiled);
    rust(|line| {
        if line.trim_start().starts_with("Running ")
            && let Some(compiled) = compiled.take()
        {
            cairn::built_with_tests();
            // Nobody waits for it any more where the lints have ended.
            let _ = compiled.send(());
        }
    })
}

/// Lints, beside the tests: not before everything is built, because two compilers at once only wait for each other.
fn lint(is_compiled: &Receiver<()>) -> Tally {
    // Where nothing was built, the lints say why.
    let _ = is_compiled.recv();
    give_way();
    voice::apart(|| {
        // The step that needs it says what is wrong with it.
        let _ = conformance::build_rmcp();
        told(Step::Clippy)
    })
}

/// Fetches what the suites need from other people's registries. The step that needs it says what is wrong with it.
fn set_up() {
    give_way();
    // Maven first: the workspace's tests use its repository too, and it is not made for two at once.
    let _ = apache::fetch("apache-kafka");
    suites::set_up();
    kafka::set_up();
    let _ = toolchain::node();
    for python in [lake::python, models::python, observe::python] {
        let _ = python();
    }
    let _ = toolchain::prometheus();
}

/// Runs the suites, a few at a time.
fn in_lanes() -> Tally {
    let waiting = Mutex::new(VecDeque::from(SUITES));
    let lane = || {
        let mut tally = Tally::default();
        loop {
            // Let go of before the step runs.
            let next = waiting.lock().expect("nobody panics with it").pop_front();
            let Some(step) = next else { return tally };
            println!("── {step:?} begins");
            tally.add(voice::apart(|| {
                say!("── {step:?}");
                told(step)
            }));
        }
    };
    std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES).map(|_| scope.spawn(lane)).collect();
        let mut tally = Tally::default();
        for lane in lanes {
            tally.add(lane.join().expect("a step does not panic"));
        }
        tally
    })
}

#[cfg(test)]
mod tests {
    use super::{FIRST, SUITES};
    use crate::test::{ALL, Step};

    #[test]
    fn every_step_runs_once_but_the_one_that_takes_too_long() {
        let apart = [Step::Rust, Step::Clippy, Step::Registry];
        for step in ALL {
            let times = FIRST.iter().chain(&SUITES).chain(&apart).filter(|other| **other == step).count();
            assert_eq!(times, 1, "{step:?}");
        }
    }
}
