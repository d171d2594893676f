//! Brokers on one bucket, each behind wires that can be cut: one to the store, one to its clients.
//!
//! Who calls it: the rounds of `take_over`. A broker that ends is started again, as a service manager would, when its round says so. None
//! outlives the run.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::wire::Wire;
use crate::process::Running;

/// How long anything may take that a broker does by itself.
const LIMIT: Duration = Duration::from_secs(60);

/// One of them.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) id: usize,
    program: PathBuf,
    folder: PathBuf,
    /// Between it and its clients.
    pub(crate) front: Wire,
    /// Between it and the store.
    pub(crate) back: Wire,
    pub(crate) running: Option<Running>,
    /// Where what it said began when it was last started.
    from: usize,
}

/// Prepares so many, and starts none.
pub(crate) fn prepare(program: &Path, folder: &Path, store: &str, count: usize) -> anyhow::Result<Vec<Broker>> {
    let pid = std::process::id();
    let mut brokers = Vec::new();
    let mut listens = Vec::new();
    for id in 1..=count {
        // An address of loopback that nobody else has, so that a port that is free stays free.
        let host = format!("127.{}.{}.{}", 1 + (pid >> 8) % 250, pid % 250, id + 1);
        let listen = TcpListener::bind((host.as_str(), 0))?.local_addr()?.to_string();
        let folder = folder.join(id.to_string());
        std::fs::create_dir_all(&folder)?;
        let (front, back) = (Wire::start(&listen)?, Wire::start(store)?);
        brokers.push(Broker { id, program: program.to_owned(), folder, front, back, running: None, from: 0 });
        listens.push(listen);
    }
    let all: Vec<_> = brokers.iter().map(|broker| format!("\"{}@{}\"", broker.id, broker.front.address)).collect();
    for (broker, listen) in brokers.iter().zip(listens) {
        let text = format!(
            "[store]\nkind = \"s3\"\nbucket = \"pair\"\nendpoint = \"http://{}\"\nregion = \"us-east-1\"\n\
             access_key_id = \"test\"\nsecret_access_key = \"test\"\nwal = \"object\"\nupload_bytes = 100000\n\
             upload_interval_ms = 1000\n[kafka]\nlisten = \"{listen}\"\nnode_id = {}\nbrokers = [{}]\n",
            broker.back.address,
            broker.id,
            all.join(", "),
        );
        std::fs::write(broker.folder.join("cairn.toml"), text)?;
    }
    Ok(brokers)
}

/// Looks until something is so.
pub(crate) fn wait<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("{what}: not within {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Broker {
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        let log = self.folder.join("said");
        self.from = std::fs::read(&log).map_or(0, |text| text.len());
        let mut command = Command::new(&self.program);
        command.args(["broker", "--admin", "127.0.0.1:0", "--data"]).arg(self.folder.join("data"));
        command.arg("--config").arg(self.folder.join("cairn.toml")).env_remove("CAIRN_DATA");
        self.running = Some(Running::start_into(&mut command, &log)?);
        Ok(())
    }

    /// Starts it, and waits until it stands by; or is active, where nobody was.
    pub(crate) fn stand_by(&mut self) -> anyhow::Result<()> {
        self.start()?;
        wait(&format!("broker {} stands by", self.id), LIMIT, || {
            (self.says("standing by: broker") || self.is_active()).then_some(())
        })
    }

    /// What it has said since it was last started.
    pub(crate) fn said(&self) -> String {
        let text = std::fs::read(self.folder.join("said")).unwrap_or_default();
        String::from_utf8_lossy(&text[self.from.min(text.len())..]).into_owned()
    }

    pub(crate) fn says(&self, what: &str) -> bool {
        self.said().contains(what)
    }

    /// Whether it has the log; it may have lost it since.
    pub(crate) fn is_active(&self) -> bool {
        self.running.is_some() && self.says("ready kafka")
    }

    pub(crate) fn signal(&self, name: &str) {
        if let Some(running) = &self.running {
            running.signal(name);
        }
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill();
        }
    }

    /// Waits until it has ended by itself, with that code.
    pub(crate) fn ends(&mut self, code: i32) -> anyhow::Result<()> {
        let mut running = self.running.take().context("it runs")?;
        let ended = wait(&format!("broker {} ends", self.id), LIMIT, || running.code())?;
        if ended != Some(code) {
            bail!("broker {} ended with {ended:?} and not with {code}; it said:\n{}", self.id, self.said());
        }
        Ok(())
    }

    /// Its machine is another one: it has nothing.
    pub(crate) fn forget(&self) -> anyhow::Result<()> {
        std::fs::remove_dir_all(self.folder.join("data")).context("remove its data")
    }
}
