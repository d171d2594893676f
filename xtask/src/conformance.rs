//! The MCP conformance suite, directly and through Cairn.
//!
//! What it is: the driver of `clients/mcp/`. Who calls it: `cargo xtask conformance` (which writes
//! docs/mcp-conformance.md), `cargo xtask test`. It guarantees that a scored scenario counts as a failure when it
//! fails through Cairn, and that one that fails directly is shown as the fixture's own.

mod auth;
mod report;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::json;

use self::report::{Report, Row};
use crate::cairn::{self, Cairn};
use crate::process::{Running, quiet};
use crate::tally::Tally;
use crate::toolchain::{self, Node};
use crate::{places, process};

/// The revisions whose requirements are run.
const REVISIONS: [&str; 2] = ["2025-11-25", "2026-07-28"];
/// The suite's client scenarios that are not about authorization, by revision.
const CLIENT_SCENARIOS: [(&str, &[&str]); 2] = [
    (
        "2025-11-25",
        &[
            "initialize",
            "tools_call",
            "elicitation-sep1034-client-defaults",
            "sse-retry",
            "json-schema-2020-12-preservation",
        ],
    ),
    (
        "2026-07-28",
        &[
            "tools_call",
            "request-metadata",
            "sep-2322-client-request-state",
            "http-standard-headers",
            "http-custom-headers",
            "http-invalid-tool-headers",
            "json-schema-ref-no-deref",
            "json-schema-2020-12-preservation",
        ],
    ),
];
/// How long one run of all server scenarios may take.
const SUITE_LIMIT: Duration = Duration::from_secs(600);
/// How long one client scenario may take, with a Cairn of its own.
const CLIENT_LIMIT: Duration = Duration::from_secs(90);
/// How many of them run at once.
const CLIENTS_AT_ONCE: usize = 4;
/// How long a server may take until it listens.
const LISTEN_LIMIT: Duration = Duration::from_secs(30);
/// How long the second fixture may take to build from nothing.
const BUILD_LIMIT: Duration = Duration::from_secs(1200);

/// How much is run, and what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// All of it, and the table is written into the docs.
    Full,
    /// All scenarios, and no file is written.
    Slice,
}

/// Runs everything.
pub(crate) fn run(scale: Scale) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let node = match toolchain::node() {
        Ok(node) => node,
        Err(error) => {
            tally.skip("MCP conformance suite", &format!("{error:#}").replace('\n', " "));
            return Ok(tally);
        }
    };
    let program = cairn::build("dev")?;
    let rmcp = build_rmcp()?;
    let mut report = Report::new(suite_version(&node)?);
    server_legs(&node, &rmcp, &program, &mut report, &mut tally)?;
    client_leg(&node, &program, &mut report, &mut tally)?;
    auth::leg(&node, &program, &mut report, &mut tally);
    compare(&node, &program, &mut report, &mut tally)?;
    if scale == Scale::Full {
        let path = places::root().join("docs/mcp-conformance.md");
        std::fs::write(&path, report.to_string()).with_context(|| format!("write {}", path.display()))?;
        say!("  wrote {}", path.display());
    }
    Ok(tally)
}

fn suite_version(node: &Node) -> anyhow::Result<String> {
    let manifest = node.folder.join("node_modules/@modelcontextprotocol/conformance/package.json");
    let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(manifest)?)?;
    Ok(manifest["version"].as_str().unwrap_or("unknown").to_owned())
}

/// Builds the second fixture. What it shares with the workspace is built once, in the workspace's folder.
pub(crate) fn build_rmcp() -> anyhow::Result<PathBuf> {
    let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    command.args(["build", "-q", "--locked", "--target-dir"]).arg(places::target());
    quiet(command.current_dir(places::root().join("clients/mcp/conformance-rmcp")), BUILD_LIMIT)?;
    Ok(places::target().join("debug/conformance-rmcp"))
}

/// One server under test: how it is reached directly and what Cairn is told about it.
struct Fixture {
    name: &'static str,
    /// The key of this server in Cairn's configuration.
    key: &'static str,
    direct: Option<String>,
}

fn server_legs(node: &Node, rmcp: &Path, program: &Path, report: &mut Report, tally: &mut Tally) -> anyhow::Result<()> {
    let mut ts = node.script("mcp/conformance-ts/server.mjs");
    let (_ts, ts_url) = listen(ts.args(["--port", "0"]))?;
    // Another process of the same server stands behind Cairn, and writes down what reaches it.
    let journal = places::cache("run")?.join(format!("journal-{}", std::process::id()));
    std::fs::write(&journal, "")?;
    let mut journaled = node.script("mcp/conformance-ts/server.mjs");
    let (_journaled, journaled_url) = listen(journaled.args(["--port", "0", "--journal"]).arg(&journal))?;
    let (_rs, rs_url) = listen(Command::new(rmcp).args(["--port", "0"]))?;
    let (_rs_behind, rs_behind_url) = listen(Command::new(rmcp).args(["--port", "0"]))?;
    let script = node.folder.join("mcp/conformance-ts/server.mjs");
    let servers = json!({ "mcpServers": {
        "ts-http": { "type": "http", "url": journaled_url },
        "ts-stdio": { "command": node.program, "args": [script, "--stdio"] },
        "rmcp-http": { "type": "http", "url": rs_behind_url },
        "rmcp-stdio": { "command": rmcp, "args": ["--stdio"] },
    } });
    let mut cairn = Cairn::new(program, "conformance", Some(&servers))?;
    let started = cairn.start();
    let fixtures = [
        Fixture { name: "TypeScript SDK, HTTP", key: "ts-http", direct: Some(ts_url) },
        Fixture { name: "TypeScript SDK, stdio", key: "ts-stdio", direct: None },
        Fixture { name: "rmcp, HTTP", key: "rmcp-http", direct: Some(rs_url) },
        Fixture { name: "rmcp, stdio", key: "rmcp-stdio", direct: None },
    ];
    for revision in REVISIONS {
        let mut runs = Vec::new();
        for fixture in &fixtures {
            if let Some(direct) = &fixture.direct {
                runs.push((fixture.name, "direct", direct.clone()));
            }
            match &started {
                Ok(()) => runs.push((fixture.name, "Cairn", format!("http://{}/mcp/{}", cairn.gateway, fixture.key))),
                Err(error) => {
                    tally.fail(
                        &format!("conformance {revision}: {}, through Cairn", fixture.name),
                        &format!("{error:#}"),
                    );
                }
            }
        }
        // Each run has a server of its own, or a session, and mostly waits: they run side by side.
        let ran: Vec<_> = std::thread::scope(|scope| {
            let begun: Vec<_> = runs.iter().map(|(_, _, url)| scope.spawn(|| suite(node, url, revision))).collect();
            begun.into_iter().map(|run| run.join().expect("a run does not panic")).collect()
        });
        for ((fixture, way, _), rows) in runs.into_iter().zip(ran) {
            let rows = rows?;
            judge(&format!("conformance {revision}: {fixture}, {way}"), &rows, tally);
            report.server(revision, fixture, way, rows);
        }
    }
    if started.is_ok() {
        trail(&cairn.kafka, &journal, tally);
    }
    std::fs::remove_file(&journal)?;
    tally.check("conformance: `cairn up` ends cleanly", cairn.end());
    Ok(())
}

/// Holds the trail of all these runs to the invariants, by a Kafka client.
fn trail(kafka: &str, journal: &Path, tally: &mut Tally) {
    let name = "conformance: the trail holds every call, decided, meant and ended once";
    match toolchain::python() {
        Ok(python) => {
            let mut command = Command::new(python.join("python"));
            command.arg("-B").arg(places::root().join("clients/mcp/trail.py")).args(["--bootstrap", kafka]);
            command.args(["--server", "ts-http", "--journal"]).arg(journal);
            tally.check(name, quiet(&mut command, CLIENT_LIMIT).map(drop));
        }
        Err(error) => tally.skip(name, &format!("{error:#}").replace('\n', " ")),
    }
}

/// Starts a server and waits for the line in which it says where it listens.
fn listen(command: &mut Command) -> anyhow::Result<(Running, String)> {
    let mut running = Running::start(command)?;
    let url = running.wait_for(LISTEN_LIMIT, |line| line.strip_prefix("listening ").map(str::to_owned))?;
    Ok((running, url))
}

/// Runs all scenarios of a revision against a URL and reads the suite's summary.
fn suite(node: &Node, url: &str, revision: &str) -> anyhow::Result<BTreeMap<String, Row>> {
    let mut command = Command::new(&node.program);
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let results = places::cache("run")?.join(format!("conformance-checks-{}-{run}", std::process::id()));
    let _ = std::fs::remove_dir_all(&results);
    command.arg(conformance_program(node)).args(["server", "--url", url, "--requirements", revision, "-o"]);
    let ended =
        Running::start(command.arg(&results).current_dir(places::cache("run")?))?.follow(SUITE_LIMIT, |_| ())?;
    let mut rows = report::parse(&ended.output);
    if rows.is_empty() {
        bail!("the suite printed no summary: {}", ended.output.lines().last().unwrap_or_default());
    }
    for (scenario, row) in rows.iter_mut().filter(|(_, row)| !row.passed) {
        row.why = why(&results, scenario);
    }
    let _ = std::fs::remove_dir_all(&results);
    Ok(rows)
}

/// The messages of a scenario's failed checks, from the folder in which the suite leaves its results.
fn why(results: &Path, scenario: &str) -> String {
    let prefix = format!("server-{scenario}-2");
    let folders = std::fs::read_dir(results).into_iter().flatten().flatten();
    let mut found =
        folders.filter(|folder| folder.file_name().to_string_lossy().starts_with(&prefix)).map(|folder| folder.path());
    let checks = found.next().and_then(|folder| std::fs::read(folder.join("checks.json")).ok()).unwrap_or_default();
    let checks: Vec<serde_json::Value> = serde_json::from_slice(&checks).unwrap_or_default();
    let failed = checks.iter().filter(|check| check["status"] == "FAILURE");
    let message = |check: &serde_json::Value| format!("{}: {}", check["id"], check["errorMessage"]);
    failed.map(message).collect::<Vec<_>>().join("; ")
}

fn conformance_program(node: &Node) -> PathBuf {
    node.folder.join("node_modules/@modelcontextprotocol/conformance/dist/index.js")
}

/// Counts each scored scenario.
fn judge(name: &str, rows: &BTreeMap<String, Row>, tally: &mut Tally) {
    let failed: Vec<_> = rows.iter().filter(|(_, row)| row.scored && !row.passed).collect();
    let scored = rows.values().filter(|row| row.scored).count();
    for (scenario, row) in &failed {
        tally.fail(name, &format!("{scenario}: {}", row.why));
    }
    tally.passed += u64::try_from(scored - failed.len()).unwrap_or_default();
    say!("  {} of {scored} scored  {name}", scored - failed.len());
}

/// Runs the client scenarios, a few at a time: directly, through Cairn by HTTP, and through `cairn wrap`.
fn client_leg(node: &Node, program: &Path, report: &mut Report, tally: &mut Tally) -> anyhow::Result<()> {
    let client = node.folder.join("mcp/conformance-ts/client.mjs");
    let direct = format!("{} {}", node.program.display(), client.display());
    let through = format!("{direct} --cairn {}", program.display());
    let ways = [("direct", direct), ("Cairn, HTTP", through.clone()), ("cairn wrap", format!("{through} --wrap"))];
    let mut runs = Vec::new();
    for (revision, scenarios) in CLIENT_SCENARIOS {
        for scenario in scenarios {
            runs.extend(ways.iter().map(|(way, command)| (revision, *scenario, *way, command)));
        }
    }
    for some in runs.chunks(CLIENTS_AT_ONCE) {
        let ended: Vec<_> = std::thread::scope(|scope| {
            let run = |(revision, scenario, _, command): &(&'static str, &'static str, &'static str, &String)| {
                client_scenario(node, command, scenario, revision)
            };
            let begun: Vec<_> = some.iter().map(|one| scope.spawn(move || run(one))).collect();
            begun.into_iter().map(|run| run.join().expect("a run does not panic")).collect()
        });
        for ((revision, scenario, way, _), result) in some.iter().zip(ended) {
            report.client(revision, scenario, way, result.is_ok());
            tally.check(&format!("conformance {revision}: client {scenario}, {way}"), result);
        }
    }
    Ok(())
}

fn client_scenario(node: &Node, client: &str, scenario: &str, revision: &str) -> anyhow::Result<()> {
    let mut command = Command::new(&node.program);
    command.arg(conformance_program(node)).args(["client", "--command", client, "--scenario", scenario]);
    // Extensions belong to no revision, and are run only where that is said.
    command.args(["--spec-version", revision, "--force", "--timeout", "60000"]).current_dir(places::cache("run")?);
    let said = process::quiet(&mut command, CLIENT_LIMIT)?;
    // A single check that does not apply is skipped inside of a scenario, and that is no matter.
    if said.lines().any(|line| line.starts_with("SKIPPED: scenario")) {
        bail!("the suite did not run it");
    }
    Ok(())
}

/// Reference servers both ways.
fn compare(node: &Node, program: &Path, report: &mut Report, tally: &mut Tally) -> anyhow::Result<()> {
    let mut command = node.script("mcp/conformance-ts/compare.mjs");
    command.arg("--cairn").arg(program);
    match toolchain::python() {
        Ok(python) => drop(command.arg("--python").arg(python)),
        Err(error) => tally.skip("reference servers from PyPI", &format!("{error:#}").replace('\n', " ")),
    }
    let ended = Running::start(&mut command)?.follow(SUITE_LIMIT, |_| ())?;
    let mut found = 0;
    for line in ended.output.lines() {
        let (equal, rest) = match (line.strip_prefix("ok "), line.strip_prefix("FAILED ")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => continue,
        };
        found += 1;
        report.compared(rest, equal);
        let result = if equal { Ok(()) } else { Err(anyhow::anyhow!("what Cairn passed on differs: {rest}")) };
        tally.check(&format!("same through Cairn: {}", rest.chars().take(90).collect::<String>()), result);
    }
    if found == 0 {
        tally.fail("reference servers", &ended.ok().err().map_or_else(String::new, |error| format!("{error:#}")));
    }
    Ok(())
}
