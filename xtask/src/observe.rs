//! Other people's code over what `observe` gives: OpenTelemetry's Python package decodes the spans and metrics, Prometheus scrapes the page,
//! and each query of the dashboard runs there.
//!
//! What it is: the driver of `clients/observe/`. Who calls it: `cargo xtask test` and `cargo xtask observe`. Everything is on loopback and ends
//! with it. Without a Prometheus the queries are skipped, and that is said.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::json;

use crate::cairn::{self, Cairn};
use crate::process::{Running, quiet};
use crate::tally::Tally;
use crate::{places, toolchain};

/// How long one step may take.
const LIMIT: Duration = Duration::from_secs(180);
/// How long the agent calls: Prometheus needs a few scrapes of what it does.
const SECONDS: &str = "12";
/// Refuses refunds; everything else may be.
const POLICIES: &str = r#"@id("all") permit(principal, action, resource);
@id("no-refunds") forbid(principal, action == Action::"tools/call", resource == Tool::"orders/refund_order");
"#;

/// Sets up OpenTelemetry's package; gives the folder of programs.
pub(crate) fn python() -> anyhow::Result<PathBuf> {
    toolchain::python_with("clients-observe", "observe/requirements.txt")
}

/// Runs all of it.
pub(crate) fn run() -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let python = match python() {
        Ok(python) => python.join("python"),
        Err(error) => {
            tally.skip("OTLP read by opentelemetry-proto (Python)", &format!("{error:#}").replace('\n', " "));
            return Ok(tally);
        }
    };
    let program = cairn::build("dev")?;
    let folder = places::cache("run")?.join(format!("observe-out-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder)?;
    let stage = Stage::set(&python, &program, &folder)?;
    let prometheus =
        toolchain::prometheus().and_then(|program| Prometheus::start(&program, &folder, stage.cairn.admin()));
    tally.check("an agent calls", stage.drive());
    match &prometheus {
        Ok(prometheus) => {
            tally.check("each query of the dashboard on Prometheus", stage.panels(prometheus));
        }
        Err(error) => {
            tally.skip("each query of the dashboard on Prometheus", &format!("{error:#}").replace('\n', " "));
        }
    }
    tally.check("OTLP read by opentelemetry-proto (Python)", stage.spans());
    stage.cairn.end()?;
    std::fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    Ok(tally)
}

/// A Cairn before a collector.
struct Stage {
    python: PathBuf,
    cairn: Cairn,
    ingest: String,
    out: PathBuf,
    _collector: Running,
}

impl Stage {
    fn set(python: &Path, program: &Path, folder: &Path) -> anyhow::Result<Self> {
        let (port, out) = (folder.join("port"), folder.join("collected"));
        let mut collect = script(python, "collect");
        collect.arg("--port-file").arg(&port).arg("--out").arg(&out);
        let collector = Running::start_into(&mut collect, &folder.join("collector.log"))?;
        let port = waited("the collector", || std::fs::read_to_string(&port).ok())?;
        let mut cairn = Cairn::new(program, "observe", None)?;
        let server = json!([program, ["sample-server", "--journal", folder.join("journal.txt")]]);
        cairn.configure(&format!(
            "[servers.orders]\ncommand = {}\nargs = {}\n[consumers.observe]\nendpoint = \"http://127.0.0.1:{port}\"\n\
             compression = \"gzip\"\nmetrics_interval_ms = 1000\n",
            server[0], server[1]
        ))?;
        cairn.policies(POLICIES)?;
        let ingest = cairn.with_ingest()?;
        cairn.start()?;
        Ok(Self { python: python.to_owned(), cairn, ingest, out, _collector: collector })
    }

    fn drive(&self) -> anyhow::Result<()> {
        let mut drive = script(&self.python, "drive");
        drive.args(["--gateway", &format!("http://{}/mcp/orders", self.cairn.gateway), "--seconds", SECONDS]);
        drive.args(["--ingest", &format!("http://{}", self.ingest)]);
        said(&quiet(&mut drive, LIMIT)?)
    }

    fn spans(&self) -> anyhow::Result<()> {
        let mut spans = script(&self.python, "spans");
        said(&quiet(spans.arg(&self.out), LIMIT)?)
    }

    fn panels(&self, prometheus: &Prometheus) -> anyhow::Result<()> {
        let mut panels = script(&self.python, "panels");
        panels.arg(places::root().join("examples/grafana/cairn.json"));
        said(&quiet(panels.args(["--prometheus", &prometheus.url]), LIMIT)?)
    }
}

fn said(output: &str) -> anyhow::Result<()> {
    let line = output.lines().rfind(|line| line.starts_with("ok")).context("it did not say ok")?;
    say!("          {line}");
    Ok(())
}

fn script(python: &Path, what: &str) -> Command {
    let mut command = Command::new(python);
    command.arg("-B").arg(places::root().join("clients/observe/prove.py")).arg(what);
    command
}

/// A Prometheus that scrapes one address.
struct Prometheus {
    url: String,
    _running: Running,
}

impl Prometheus {
    fn start(program: &Path, folder: &Path, target: &str) -> anyhow::Result<Self> {
        let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let config = folder.join("prometheus.yml");
        let text = format!(
            "global: {{ scrape_interval: 1s }}\nscrape_configs:\n  - job_name: cairn\n    static_configs: [{{ targets: [\"{target}\"] }}]\n"
        );
        std::fs::write(&config, text)?;
        let mut command = Command::new(program);
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.join("tsdb").display()));
        command.args([&format!("--web.listen-address={address}"), "--enable-feature=exemplar-storage"]);
        let log = folder.join("prometheus.log");
        let mut running = Running::start_into(&mut command, &log)?;
        waited("Prometheus", || {
            let is_ready = std::fs::read_to_string(&log).unwrap_or_default().contains("Server is ready");
            is_ready.then_some(())
        })
        .with_context(|| std::fs::read_to_string(&log).unwrap_or_default())?;
        if running.has_ended() {
            bail!("Prometheus ended: {}", std::fs::read_to_string(&log).unwrap_or_default());
        }
        Ok(Self { url: format!("http://{address}"), _running: running })
    }
}

fn waited<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        if let Some(found) = look() {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("waited in vain for {what}")
}
