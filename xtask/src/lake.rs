//! The trail as an Iceberg table, read by other people's engines.
//!
//! What it is: the driver of `clients/lake/`. Who calls it: `cargo xtask test` and `cargo xtask lake`. A real `cairn-lake` writes what a real
//! gateway records; it is killed while it writes, stalled until another has taken over, and made to write what is wrong and mended by a replay.
//! Each time PyIceberg and DuckDB must find every event of the trail once, as it is. It leaves no process behind.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::json;

use crate::cairn::{self, Cairn};
use crate::process::{Running, quiet};
use crate::tally::Tally;
use crate::{places, toolchain};

/// How long one command may take.
const LIMIT: Duration = Duration::from_secs(120);
/// How long it may take until what happened is in the table.
const SEEN_LIMIT: Duration = Duration::from_secs(120);
/// How often a writer is killed.
const KILLS: u32 = 4;
/// Calls of one round.
const CALLS: &str = "12";

/// Sets up the engines; gives the folder of programs.
pub(crate) fn python() -> anyhow::Result<PathBuf> {
    toolchain::python_with("clients-lake", "lake/requirements.txt")
}

/// Runs all of it.
pub(crate) fn run() -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let python = match python() {
        Ok(python) => python,
        Err(error) => {
            tally.skip("the trail as a table", &format!("{error:#}").replace('\n', " "));
            return Ok(tally);
        }
    };
    let (program, lake) = (cairn::build("dev")?, cairn::build_other("cairn-lake", "dev")?);
    let mut scene = Scene::start(&python, &program, &lake)?;
    tally.check("a writer that is killed while it writes misses nothing and has nothing twice", scene.killed());
    tally.check("a writer that was stalled commits nothing when it wakes up, and ends", scene.stalled());
    tally.check("a replay puts right what a fault made wrong, in one step", scene.mended());
    tally.check("small files are put together beside what is written", scene.joined());
    tally.check("a data set is the same again as Parquet", scene.rebuilt());
    tally.check("cairn up ends cleanly beside it", scene.end());
    Ok(tally)
}

/// A gateway, and where its trail becomes a table.
struct Scene {
    python: PathBuf,
    program: PathBuf,
    lake: PathBuf,
    cairn: Cairn,
    folder: PathBuf,
}

/// A running `cairn-lake`.
struct Writer {
    running: Running,
    catalog: String,
    log: PathBuf,
}

impl Scene {
    fn start(python: &Path, program: &Path, lake: &Path) -> anyhow::Result<Self> {
        let mut cairn = Cairn::with(program, "lake", |folder| {
            let journal = folder.join("journal.txt");
            Some(
                json!({ "mcpServers": { "orders": { "command": program, "args": ["sample-server", "--journal", journal] } } }),
            )
        })?;
        cairn.start()?;
        let folder = places::cache("run")?.join(format!("lake-table-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("lake.toml"), "[lake]\ncommit_interval_ms = 200\ntidy_interval_ms = 500\n")?;
        let (python, program, lake) = (python.to_owned(), program.to_owned(), lake.to_owned());
        Ok(Self { python, program, lake, cairn, folder })
    }

    fn python(&self, script: &str) -> Command {
        let mut command = Command::new(self.python.join("python"));
        command.arg("-B").arg(places::root().join("clients/lake").join(script));
        command
    }

    fn call(&self) -> anyhow::Result<()> {
        quiet(self.python("calls.py").arg(format!("http://{}", self.cairn.gateway)).arg(CALLS), LIMIT).map(drop)
    }

    /// A command of `cairn-lake` on the table.
    fn lake(&self, what: &str) -> Command {
        let mut command = Command::new(&self.lake);
        command
            .arg(what)
            .arg("--folder")
            .arg(self.folder.join("table"))
            .arg("--config")
            .arg(self.folder.join("lake.toml"));
        command.args(["--bootstrap", &self.cairn.kafka]);
        command
    }

    /// Starts a writer; `name` is its log's.
    fn writer(&self, name: &str, fault: Option<&str>) -> anyhow::Result<Writer> {
        let log = self.folder.join(name).with_extension("log");
        let _ = std::fs::remove_file(&log);
        let mut command = self.lake("run");
        command.args(["--catalog", "127.0.0.1:0"]).envs(fault.map(|fault| ("CAIRN_LAKE_FAULT", fault)));
        let mut running = Running::start_into(&mut command, &log)?;
        let deadline = Instant::now() + LIMIT;
        loop {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            if let Some(line) = said.lines().find(|line| line.starts_with("ready")) {
                let catalog = line.rsplit(' ').next().context("it says where its catalog is")?.to_owned();
                return Ok(Writer { running, catalog, log });
            }
            if running.has_ended() || Instant::now() > deadline {
                bail!("`cairn-lake run` is not ready; it said:\n{said}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What is in the trail now, as a file of lines.
    fn trail(&self) -> anyhow::Result<PathBuf> {
        let mut tail = Command::new(&self.program);
        tail.args(["tail", "--from-start", "--no-follow", "--json", "--bootstrap", &self.cairn.kafka]);
        let path = self.folder.join("events.jsonl");
        std::fs::write(&path, quiet(&mut tail, LIMIT)?)?;
        Ok(path)
    }

    /// Asks both engines until they find what is in the trail now.
    fn seen(&self, catalog: &str) -> anyhow::Result<()> {
        let events = self.trail()?;
        let deadline = Instant::now() + SEEN_LIMIT;
        loop {
            let said = quiet(self.python("table.py").arg(catalog).arg(&events), LIMIT);
            match said {
                Ok(said) => {
                    say!("          {}", said.trim_end());
                    return Ok(());
                }
                // Not yet; what is there twice or other never comes right by waiting.
                Err(error) if format!("{error:#}").contains("missing") && Instant::now() < deadline => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn killed(&mut self) -> anyhow::Result<()> {
        for round in 0..KILLS {
            let mut writer = self.writer("killed", None)?;
            self.call()?;
            // Another moment each time: while it joins, while it commits, in between.
            std::thread::sleep(Duration::from_millis(u64::from(round) * 900));
            writer.running.kill();
        }
        let mut writer = self.writer("after", None)?;
        self.seen(&writer.catalog)?;
        ended(&mut writer)
    }

    fn stalled(&mut self) -> anyhow::Result<()> {
        let mut stalled = self.writer("stalled", None)?;
        self.call()?;
        self.seen(&stalled.catalog)?;
        self.call()?;
        stalled.running.signal("STOP");
        self.call()?;
        let mut other = self.writer("other", None)?;
        self.seen(&other.catalog)?;
        stalled.running.signal("CONT");
        let deadline = Instant::now() + LIMIT;
        while !stalled.running.has_ended() {
            if Instant::now() > deadline {
                bail!("it goes on beside the other one; it said:\n{}", std::fs::read_to_string(&stalled.log)?);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let said = std::fs::read_to_string(&stalled.log)?;
        if !said.contains("not kept any more") {
            bail!("it does not say why it has ended:\n{said}");
        }
        self.call()?;
        self.seen(&other.catalog)?;
        ended(&mut other)
    }

    fn mended(&mut self) -> anyhow::Result<()> {
        let mut wrong = self.writer("wrong", Some("outcomes"))?;
        self.call()?;
        let error = format!("{:#}", self.seen(&wrong.catalog).err().context("the fault was not noticed")?);
        if !error.contains("is other") {
            bail!("the fault was not noticed: {error}");
        }
        // Until all that is wrong has been committed.
        ended(&mut wrong)?;
        let mut writer = self.writer("right", None)?;
        let said = quiet(self.lake("replay").args(["--topic", "mcp.calls"]), LIMIT)?;
        say!("          {}", said.trim_end());
        // The writer goes on beside it.
        self.call()?;
        self.seen(&writer.catalog)?;
        ended(&mut writer)
    }

    fn joined(&mut self) -> anyhow::Result<()> {
        let mut writer = self.writer("joining", None)?;
        let has_joined = || -> anyhow::Result<bool> {
            let metadata = std::fs::read_dir(self.folder.join("table/metadata"))?.filter_map(Result::ok);
            let mut texts = metadata.filter_map(|entry| std::fs::read_to_string(entry.path()).ok());
            Ok(texts.any(|text| text.contains("small files")))
        };
        let deadline = Instant::now() + SEEN_LIMIT;
        while !has_joined()? {
            if Instant::now() > deadline {
                bail!("no files were put together; it said:\n{}", std::fs::read_to_string(&writer.log)?);
            }
            self.call()?;
        }
        self.seen(&writer.catalog)?;
        ended(&mut writer)
    }

    fn rebuilt(&mut self) -> anyhow::Result<()> {
        let set = self.folder.join("set");
        let mut make = Command::new(&self.program);
        make.args(["dataset", "make", "--bootstrap", &self.cairn.kafka, "--out"]).arg(&set);
        quiet(&mut make, LIMIT)?;
        let manifest = set.join("manifest.json");
        quiet(Command::new(&self.lake).args(["dataset", "parquet"]).arg(&manifest), LIMIT)?;
        let mut rebuild = Command::new(&self.lake);
        rebuild.args(["dataset", "rebuild"]).arg(&manifest).args(["--bootstrap", &self.cairn.kafka]);
        let said = quiet(&mut rebuild, LIMIT)?;
        if !said.contains("\"is_identical\":true") || said.contains("not_made") {
            bail!("it is not the same again: {said}");
        }
        let lines = std::fs::read_to_string(set.join("calls.jsonl"))?.lines().count();
        let count = "import sys, duckdb; print(duckdb.execute(f\"SELECT count(*) FROM '{sys.argv[1]}' WHERE tool = 'get_order'\").fetchone()[0])";
        let mut ask = Command::new(self.python.join("python"));
        let found = quiet(ask.args(["-c", count]).arg(set.join("calls.parquet")), LIMIT)?;
        if lines == 0 || found.trim() != lines.to_string() {
            bail!("DuckDB finds {} rows of {lines}", found.trim());
        }
        Ok(())
    }

    fn end(self) -> anyhow::Result<()> {
        self.cairn.end()?;
        std::fs::remove_dir_all(&self.folder).with_context(|| format!("remove {}", self.folder.display()))
    }
}

/// Asks a writer to end: it commits what waits.
fn ended(writer: &mut Writer) -> anyhow::Result<()> {
    if writer.running.end(LIMIT) {
        return Ok(());
    }
    bail!("it did not end cleanly; it said:\n{}", std::fs::read_to_string(&writer.log)?)
}
