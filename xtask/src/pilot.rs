//! The pilot of `examples/pilot/`, as its reader runs it: its agents, its consumers, its breaks, its proofs.
//!
//! What it is: the driver of `examples/pilot/check.py`. Who calls it: `cargo xtask test` and `cargo xtask pilot`. What the script finds is
//! what is counted.

use std::process::Command;
use std::time::Duration;

use crate::process::{Ended, Running};
use crate::tally::Tally;
use crate::{cairn, places, process};

/// How long all of it may take.
const LIMIT: Duration = Duration::from_secs(600);
/// What the script shows.
const PARTS: usize = 6;

/// Runs the script where there is a Python.
pub(crate) fn run() -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    if process::version("python3", "--version").is_none() {
        tally.skip("the pilot", "there is no python3 on the PATH");
        return Ok(tally);
    }
    let program = cairn::build("dev")?;
    let mut check = Command::new("python3");
    check.args(["-B", "check.py", "--cairn"]).arg(program).current_dir(places::root().join("examples/pilot"));
    let Ended { output, how, .. } = Running::start(&mut check)?.follow(LIMIT, |_| ())?;
    let mut lines = output.lines().peekable();
    let mut told = 0;
    while let Some(line) = lines.next() {
        let (is_ok, name) = match (line.strip_prefix("ok    "), line.strip_prefix("FAIL  ")) {
            (Some(name), _) => (true, name),
            (_, Some(name)) => (false, name),
            _ => continue,
        };
        told += 1;
        let name = format!("pilot: {name}");
        if is_ok {
            tally.check(&name, Ok(()));
        } else {
            tally.fail(&name, lines.peek().unwrap_or(&"").trim());
        }
    }
    if told < PARTS {
        tally.fail("the pilot", &format!("{told} of {PARTS} parts were run: {how}\n{output}"));
    }
    Ok(tally)
}
