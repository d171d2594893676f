//! Gateways of others before the same canned server, each as its makers publish it.
//!
//! `cargo xtask bench --peers` starts them. Each keeps its defaults, but for where it listens and what it must be told to
//! reach a server on this machine; what that is stands with each. None of them makes its record durable before the call.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use super::SET_UP_LIMIT;
use crate::apache::{free_address, listening};
use crate::places;
use crate::process::{Running, quiet, version};

const CRATE_MCP_PROXY: &str = "mcp-proxy@0.6.0";
const CONTEXTFORGE: &str = "mcp-contextforge-gateway==1.0.7.post20260921";
const NPM_MCP_PROXY: &str = "mcp-proxy@6.7.19";

/// A gateway that runs, and how it is called.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) running: Running,
    url: String,
    /// What it calls the tool `echo`.
    tool: Option<&'static str>,
    /// What it calls the resource `bench://text`; empty where it does not pass it on.
    resource: Option<&'static str>,
    header: Option<String>,
}

impl Peer {
    /// What `cairn bench` is told of it.
    pub(super) fn arguments(&self, name: &str) -> Vec<String> {
        let mut arguments = vec!["--peer".to_owned(), format!("{name}={}", self.url)];
        let told =
            [("--peer-tool", self.tool), ("--peer-resource", self.resource), ("--peer-header", self.header.as_deref())];
        for (flag, value) in told {
            arguments.extend(value.into_iter().flat_map(|value| [flag.to_owned(), format!("{name}={value}")]));
        }
        arguments
    }
}

type Start = fn(&Path, &str) -> anyhow::Result<Peer>;

/// All of them: a name, and how it is started before the server at an address.
pub(super) const ALL: [(&str, Start); 3] = [
    ("crate mcp-proxy", crate_mcp_proxy),
    ("ContextForge", contextforge),
    ("npm mcp-proxy, stdio server", npm_mcp_proxy),
];

/// The crate, built with its release profile and without its optional parts; one backend, no middleware.
fn crate_mcp_proxy(_: &Path, upstream: &str) -> anyhow::Result<Peer> {
    let folder = places::cache("bench-mcp-proxy-crate")?;
    let program = folder.join("bin/mcp-proxy");
    if !program.is_file() {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let mut install = Command::new(cargo);
        install.args(["install", "--quiet", "--locked", "--no-default-features", CRATE_MCP_PROXY, "--root"]);
        install.arg(&folder).env("CARGO_TARGET_DIR", folder.join("target"));
        quiet(&mut install, SET_UP_LIMIT)?;
    }
    let address = free_address()?;
    let (host, port) = address.split_once(':').context("an address has a port")?;
    let configuration = folder.join("proxy.toml");
    let text = format!(
        "[proxy]\nname = \"bench\"\n[proxy.listen]\nhost = \"{host}\"\nport = {port}\n\n\
         [[backends]]\nname = \"canned\"\ntransport = \"http\"\nurl = \"http://{upstream}/mcp\"\n"
    );
    std::fs::write(&configuration, text)?;
    let log = folder.join("peer.log");
    let running = Running::start_into(Command::new(&program).arg("--config").arg(&configuration), &log)?;
    let (running, address) = listening(running, &address, &log)?;
    Ok(Peer {
        running,
        url: format!("http://{address}/"),
        tool: Some("canned/echo"),
        resource: Some("canned/bench://text"),
        header: None,
    })
}

/// Registers the server and waits for its tools. `ContextForge` takes no configuration file for them.
const REGISTER: &str = r#"
import sys, time, httpx
base, upstream, token = sys.argv[1:]
client = httpx.Client(base_url=base, headers={"authorization": f"Bearer {token}"}, timeout=60)
client.post("/gateways", json={"name": "canned", "url": f"http://{upstream}/mcp", "transport": "STREAMABLEHTTP", "visibility": "public"}).raise_for_status()
for _ in range(60):
    if any(tool["name"] == "canned-echo" for tool in client.get("/tools").raise_for_status().json()):
        sys.exit(0)
    time.sleep(1)
sys.exit("the tools of the server do not appear")
"#;

/// `ContextForge` with its defaults (SQLite, tokens asked for), told that servers may be on this machine, and without its
/// limit of calls a minute. It answers `resources/read` from what it registered itself, and takes no resource with the
/// canned server's scheme.
fn contextforge(_: &Path, upstream: &str) -> anyhow::Result<Peer> {
    version("python3", "--version").context("python3 is not installed")?;
    let folder = places::cache("bench-contextforge")?;
    let bin = folder.join("venv/bin");
    if !bin.join("mcpgateway").is_file() {
        quiet(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder.join("venv")), SET_UP_LIMIT)?;
        let mut install = Command::new(bin.join("pip"));
        quiet(install.args(["install", "--quiet", "--disable-pip-version-check", CONTEXTFORGE]), SET_UP_LIMIT)?;
    }
    let data = folder.join("data");
    let _ = std::fs::remove_dir_all(&data);
    std::fs::create_dir_all(&data)?;
    let settings = [
        ("JWT_SECRET_KEY", "a signing key of a benchmark on one machine 0123456789".to_owned()),
        ("AUTH_ENCRYPTION_SECRET", "an encryption key of a benchmark on one machine 0123".to_owned()),
        ("PLATFORM_ADMIN_PASSWORD", "Bench-Admin-Passw0rd-1".to_owned()),
        ("BASIC_AUTH_PASSWORD", "Bench-Basic-Passw0rd-1".to_owned()),
        ("DATABASE_URL", format!("sqlite:///{}/mcp.db", data.display())),
        ("SSRF_ALLOW_LOCALHOST", "true".to_owned()),
        ("SSRF_ALLOW_PRIVATE_NETWORKS", "true".to_owned()),
        // It answers a hundred calls a minute by default.
        ("RATE_LIMITING_ENABLED", "false".to_owned()),
        ("TOOL_RATE_LIMIT", "1000000000".to_owned()),
        ("LOG_LEVEL", "ERROR".to_owned()),
        ("HOME", data.display().to_string()),
    ];
    let told = |program: PathBuf| {
        let mut command = Command::new(program);
        command.envs(settings.iter().map(|(name, value)| (*name, value.as_str()))).current_dir(&data);
        command
    };
    let mut token = told(bin.join("python"));
    token.args([
        "-m",
        "mcpgateway.utils.create_jwt_token",
        "--username",
        "admin@example.com",
        "--exp",
        "1440",
        "--admin",
    ]);
    let token = quiet(&mut token, SET_UP_LIMIT)?;
    let token =
        token.split_whitespace().find(|word| word.starts_with("eyJ")).context("it printed no token")?.to_owned();
    let address = free_address()?;
    let (host, port) = address.split_once(':').context("an address has a port")?;
    let log = folder.join("peer.log");
    let running = Running::start_into(told(bin.join("mcpgateway")).args(["--host", host, "--port", port]), &log)?;
    let (running, address) = listening(running, &address, &log)?;
    let mut register = told(bin.join("python"));
    quiet(register.args(["-c", REGISTER, &format!("http://{address}"), upstream, &token]), SET_UP_LIMIT)?;
    Ok(Peer {
        running,
        url: format!("http://{address}/mcp/"),
        tool: Some("canned-echo"),
        resource: Some(""),
        header: Some(format!("authorization: Bearer {token}")),
    })
}

/// npm's `mcp-proxy` before the canned server as its child: it knows no servers over HTTP.
fn npm_mcp_proxy(program: &Path, _: &str) -> anyhow::Result<Peer> {
    version("npm", "--version").context("npm is not installed")?;
    let folder = places::cache(&format!("bench-{}", NPM_MCP_PROXY.replace('@', "-")))?;
    if !folder.join("node_modules").is_dir() {
        let mut install = Command::new("npm");
        install.args(["install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix"]);
        quiet(install.arg(&folder).arg(NPM_MCP_PROXY), SET_UP_LIMIT)?;
    }
    let address = free_address()?;
    let (host, port) = address.split_once(':').context("an address has a port")?;
    let mut command = Command::new("node");
    command.arg(folder.join("node_modules/mcp-proxy/dist/bin/mcp-proxy.mjs"));
    command.args(["--host", host, "--port", port, "--server", "stream", "--"]);
    command.arg(program).args(["bench-part", "stdio"]);
    let log = folder.join("peer.log");
    let (running, address) = listening(Running::start_into(&mut command, &log)?, &address, &log)?;
    Ok(Peer { running, url: format!("http://{address}/mcp"), tool: None, resource: None, header: None })
}
