//! Other people's agents and servers that report: the OpenTelemetry SDK of Python with an instrumentation of OpenAI, and servers on both
//! official SDKs with the packages of `packages/`.
//!
//! What it is: the driver of `clients/models/`. Who calls it: `cargo xtask test` and `cargo xtask models`. The agent asks a model, calls the
//! tools that it chooses through a Cairn of its own and exports its spans there, once over HTTP and once over gRPC; then `cairn trail` must
//! show which model call chose each tool, from which offer, and what the server did downstream.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::cairn::{self, Cairn};
use crate::process::quiet;
use crate::tally::Tally;
use crate::{places, toolchain};

/// How long one run may take.
const LIMIT: Duration = Duration::from_secs(180);

/// Sets up the agent and its SDKs; gives the folder of programs.
pub(crate) fn python() -> anyhow::Result<PathBuf> {
    toolchain::python_with("clients-models", "models/requirements.txt")
}

/// Runs the packages' own tests, and the agent before each server.
pub(crate) fn run() -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let python = python();
    let node = toolchain::node();
    let program = cairn::build("dev")?;
    match &python {
        Ok(python) => tally.check("cairn-actions (Python): its own tests", python_tests(python)),
        Err(error) => tally.skip("cairn-actions (Python)", &format!("{error:#}").replace('\n', " ")),
    }
    match &node {
        Ok(node) => tally.check("cairn-actions (TypeScript): its own tests", node_tests(&node.runs())),
        Err(error) => tally.skip("cairn-actions (TypeScript)", &format!("{error:#}").replace('\n', " ")),
    }
    let Ok(python) = python else { return Ok(tally) };
    let server = json!([python.join("python"), [places::root().join("clients/models/server.py")], {}]);
    for protocol in ["http", "grpc"] {
        let check = format!("OpenTelemetry SDK (Python) over {protocol}, MCP SDK (Python)");
        timed(&mut tally, &check, || agent(&python, &program, protocol, &server));
    }
    if let Ok(node) = node {
        let actions = places::root().join("packages/typescript/src/index.ts");
        let server = json!([node.runs(), [node.folder.join("models/server.mjs")], { "ACTIONS_PACKAGE": actions }]);
        let check = "OpenTelemetry SDK (Python) over http, MCP SDK (TypeScript)";
        timed(&mut tally, check, || agent(&python, &program, "http", &server));
    }
    Ok(tally)
}

fn timed(tally: &mut Tally, check: &str, run: impl FnOnce() -> anyhow::Result<()>) {
    let started = Instant::now();
    tally.check(check, run());
    say!("          in {:.1} s", started.elapsed().as_secs_f32());
}

fn python_tests(python: &Path) -> anyhow::Result<()> {
    let mut tests = Command::new(python.join("python"));
    tests.args(["-B", "-m", "unittest", "-q", "tests.test_actions"]);
    quiet(tests.current_dir(places::root().join("packages/python")), LIMIT).map(drop)
}

fn node_tests(node: &Path) -> anyhow::Result<()> {
    let mut tests = Command::new(node);
    tests.args(["--test", "test/actions.test.ts"]);
    quiet(tests.current_dir(places::root().join("packages/typescript")), LIMIT).map(drop)
}

/// Runs the agent against a Cairn of its own before a server: program, arguments and environment.
fn agent(python: &Path, program: &Path, protocol: &str, server: &serde_json::Value) -> anyhow::Result<()> {
    let mut cairn = Cairn::new(program, &format!("models-{protocol}"), None)?;
    let environment = server[2].as_object().into_iter().flatten();
    let environment: Vec<String> = environment.map(|(name, value)| format!("{name} = {value}")).collect();
    cairn.configure(&format!(
        "[servers.orders]\ncommand = {}\nargs = {}\nenv = {{ {} }}\nactions = true\n",
        server[0],
        server[1],
        environment.join(", ")
    ))?;
    let ingest = cairn.with_ingest()?;
    cairn.start()?;
    let mut agent = Command::new(python.join("python"));
    agent.arg("-B").arg(places::root().join("clients/models/agent.py"));
    agent.args(["--protocol", protocol, "--server", "orders", "--ingest", &format!("http://{ingest}")]);
    agent.args(["--gateway", &format!("http://{}", cairn.gateway)]).arg("--cairn").arg(program);
    agent.arg("--data").arg(cairn.data()).env("TRACELOOP_TRACE_CONTENT", "true").env("OTEL_METRICS_EXPORTER", "none");
    let said = quiet(&mut agent, LIMIT)?;
    say!("          {}", said.lines().rfind(|line| line.starts_with("ok")).unwrap_or("ok"));
    cairn.end()
}
