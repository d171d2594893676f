//! The operator's credential, before the eyes of an agent: npm's filesystem server behind Cairn, over the data folder and the
//! home around it.
//!
//! Who calls it: `cargo xtask test --only secrets`. It guarantees that the agent's own approvals are tried with everything
//! that it could read.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;

use crate::cairn::{self, Cairn};
use crate::process::quiet;
use crate::tally::Tally;
use crate::toolchain::{self, Node};

/// How long the agent may look around.
const LIMIT: Duration = Duration::from_secs(180);

/// Runs the agent.
pub(crate) fn run() -> anyhow::Result<Tally> {
    const CHECK: &str = "an agent with a filesystem server over data folder and home cannot approve";
    let mut tally = Tally::default();
    match toolchain::node() {
        Ok(node) => {
            let program = cairn::build("dev")?;
            tally.check(CHECK, look_around(&node, &program));
        }
        Err(error) => tally.skip(CHECK, &format!("{error:#}").replace('\n', " ")),
    }
    Ok(tally)
}

fn look_around(node: &Node, program: &Path) -> anyhow::Result<()> {
    let script = node.folder.join("node_modules/@modelcontextprotocol/server-filesystem/dist/index.js");
    let mut cairn = Cairn::with(program, "secrets", |folder| {
        let folders = [folder.to_owned(), folder.join("data")];
        let args: Vec<_> = [script.clone()].into_iter().chain(folders).collect();
        Some(json!({ "mcpServers": { "files": { "command": node.program, "args": args } } }))
    })?;
    cairn.start()?;
    let new = quiet(Command::new(program).args(["operator", "new", "--data"]).arg(cairn.data()), LIMIT)?;
    let token = new.lines().last().context("it prints a token")?.trim().to_owned();
    let mut agent = node.script("mcp/secrets.mjs");
    agent.args(["--url", &format!("http://{}/mcp/files", cairn.gateway), "--admin", cairn.admin(), "--token", &token]);
    agent.arg(cairn.data().parent().context("the data folder lies in a folder")?);
    let said = quiet(&mut agent, LIMIT)?;
    say!("          {}", said.lines().rfind(|line| line.starts_with("ok")).context("it says ok at its end")?);
    cairn.end()
}
