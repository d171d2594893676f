//! Who may come in: a real OpenID provider whose keys rotate under load, and attempts to cheat.
//!
//! What it is: the driver of `clients/mcp/identity/`. Who calls it: `cargo xtask test`. It guarantees that each expectation
//! of that script counts, and that a script that expected nothing is a failure.

use std::time::Duration;

use crate::process::Running;
use crate::tally::Tally;
use crate::{cairn, toolchain};

/// How long all of it may take on a loaded machine.
const LIMIT: Duration = Duration::from_secs(600);

/// Runs everything.
pub(crate) fn run() -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let node = match toolchain::node() {
        Ok(node) => node,
        Err(error) => {
            tally.skip("identity with an OpenID provider", &format!("{error:#}").replace('\n', " "));
            return Ok(tally);
        }
    };
    let program = cairn::build("dev")?;
    let mut command = node.script("mcp/identity/attack.mjs");
    command.arg("--cairn").arg(&program);
    let ended = Running::start(&mut command)?.follow(LIMIT, |_| ())?;
    let mut found = 0;
    for line in ended.output.lines() {
        let result = match (line.strip_prefix("ok "), line.strip_prefix("FAILED ")) {
            (Some(rest), _) => (rest, Ok(())),
            (_, Some(rest)) => (rest, Err(anyhow::anyhow!("{rest}"))),
            _ => continue,
        };
        found += 1;
        tally.check(&format!("identity: {}", result.0.chars().take(120).collect::<String>()), result.1);
    }
    if found == 0 {
        tally.fail("identity", &ended.ok().err().map_or_else(String::new, |error| format!("{error:#}")));
    }
    Ok(tally)
}
