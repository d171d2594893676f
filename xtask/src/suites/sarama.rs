//! Sarama's functional tests, from the Go module that it publishes, through Toxiproxy as they want it.
//!
//! Who calls it: the list of suites. The tests expect five brokers behind five proxies on fixed ports of this machine; here all
//! five lead to one broker, which names the first as its address. Where a port is taken the suite says so.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;

use super::outcome::{Case, of_go};
use super::{Run, Setting, Suite, franz};
use crate::apache::{free_address, listening};
use crate::cairn::Cairn;
use crate::places;
use crate::process::{Running, quiet};

pub(super) const SUITE: Suite = Suite {
    name: "Sarama, functional tests",
    version: "1.61.1",
    command: "TOXIPROXY_ADDR=PROXY KAFKA_VERSION=4.1.0 go test -v -tags functional -run FUNCTIONAL .",
    in_slice: false,
    install,
};

const MODULE: &str = "github.com/IBM/sarama@v1.61.1";
const TOXIPROXY: &str = "github.com/Shopify/toxiproxy/v2/cmd/server@v2.5.0";
/// The ports that the tests connect to, the first of which the broker advertises.
const PORTS: std::ops::RangeInclusive<u16> = 29091..=29095;
const SET_UP_LIMIT: Duration = Duration::from_secs(900);
/// How long its tests may take.
const TESTS_LIMIT: &str = "1500s";
/// Past the limit that the tests keep themselves.
const RUN_LIMIT: Duration = Duration::from_secs(1600);

fn install() -> anyhow::Result<Run> {
    let folder = franz::module(MODULE)?;
    let cache = places::cache("suites")?;
    let program = cache.join("sarama.test");
    let mut build = Command::new("go");
    build.args(["test", "-c", "-tags", "functional", "-o"]).arg(&program).arg(".").current_dir(&folder);
    quiet(&mut build, SET_UP_LIMIT)?;
    let proxy = cache.join("bin/toxiproxy");
    if !proxy.is_file() {
        quiet(Command::new("go").args(["install", TOXIPROXY]).env("GOBIN", cache.join("bin")), SET_UP_LIMIT)?;
        std::fs::rename(cache.join("bin/server"), &proxy)?;
    }
    Ok(Box::new(move |setting| run(setting, &program, &folder, &proxy)))
}

fn run(setting: &Setting, program: &Path, folder: &Path, proxy: &Path) -> anyhow::Result<Vec<Case>> {
    for port in PORTS {
        TcpListener::bind(("127.0.0.1", port)).with_context(|| format!("port {port} is what its tests connect to"))?;
    }
    let mut broker = Cairn::new(&setting.program, "suite-sarama", None)?;
    broker.broker_alone();
    broker.configure(&format!("[kafka]\nadvertised = \"127.0.0.1:{}\"\n{}", PORTS.start(), super::RULES))?;
    broker.start()?;
    let (_proxy, address) = proxies(proxy, &broker.kafka)?;
    let mut tests = Command::new(program);
    tests.current_dir(folder).args(["-test.v", "-test.timeout", TESTS_LIMIT, "-test.run", &functional(folder)?]);
    tests.env("TOXIPROXY_ADDR", format!("http://{address}")).env("KAFKA_VERSION", super::KAFKA).env_remove("CI");
    let ended = Running::start(&mut tests)?.follow(RUN_LIMIT, |_| ())?;
    super::keep("sarama", &ended.output)?;
    broker.end()?;
    Ok(of_go(&ended.output))
}

/// Starts Toxiproxy with its five proxies; gives the address of its own port.
fn proxies(program: &Path, broker: &str) -> anyhow::Result<(Running, String)> {
    let proxies: Vec<_> = PORTS
        .zip(1..)
        .map(|(port, number)| {
            let (name, listen) = (format!("kafka{number}"), format!("127.0.0.1:{port}"));
            json!({ "name": name, "listen": listen, "upstream": broker, "enabled": true })
        })
        .collect();
    let folder = places::cache("suites")?;
    let (configuration, log): (PathBuf, PathBuf) = (folder.join("toxiproxy.json"), folder.join("toxiproxy.log"));
    std::fs::write(&configuration, serde_json::to_vec(&proxies)?)?;
    let address = free_address()?;
    let (host, port) = address.split_once(':').context("an address without a port")?;
    let mut server = Command::new(program);
    server.args(["-host", host, "-port", port, "-config"]).arg(&configuration);
    listening(Running::start_into(&mut server, &log)?, &address, &log)
}

/// A pattern of the tests in its files of functional tests, and of no others.
fn functional(folder: &Path) -> anyhow::Result<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("functional")) {
            let text = std::fs::read_to_string(&path)?;
            let tests = text.lines().filter_map(|line| line.strip_prefix("func Test")?.split('(').next());
            names.extend(tests.filter(|name| *name != "Main").map(str::to_owned));
        }
    }
    Ok(format!("^Test({})$", names.join("|")))
}
