//! Other Kafkas on this machine, each over an empty folder in the cache.
//!
//! `cargo xtask bench -- kafka` starts them. Apache Kafka twice: with its defaults it acknowledges what the page cache holds; told to
//! flush each message it syncs each batch before it acknowledges it, as Cairn does. Both remove deleted topics after a second instead of
//! a minute, so that the disk does not fill up, which changes nothing that is measured.

use std::path::PathBuf;
use std::process::Command;

use super::SET_UP_LIMIT;
use crate::apache::{self, free_address, listening};
use crate::places;
use crate::process::{Running, quiet};

/// It wants rustc 1.96 or newer.
/// The newest that rustc 1.95 builds.
const CRATE_NISSHI: &str = "nisshi@0.6.0";
/// What Nisshi is called in the tables.
pub(super) const NISSHI: &str = "Nisshi";

/// One that runs.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) running: Running,
    address: String,
    /// Where its data lies as files, if it does.
    folder: Option<PathBuf>,
}

impl Peer {
    /// What `cairn bench` is told of it.
    pub(super) fn arguments(&self, name: &str) -> Vec<String> {
        let mut arguments = vec!["--kafka-peer".to_owned(), format!("{name}={}", self.address)];
        arguments.extend(["--kafka-peer-pid".to_owned(), format!("{name}={}", self.running.id())]);
        if let Some(folder) = &self.folder {
            arguments.extend(["--kafka-peer-folder".to_owned(), format!("{name}={}", folder.display())]);
        }
        arguments
    }
}

type Start = fn() -> anyhow::Result<Peer>;

/// All of them: a name, and how it is started.
pub(super) const ALL: [(&str, Start); 3] = [
    ("Apache Kafka", || apache_kafka("bench-kafka", "")),
    ("Apache Kafka with fsync", || apache_kafka("bench-kafka-fsync", "log.flush.interval.messages=1\n")),
    (NISSHI, nisshi),
];

fn apache_kafka(name: &str, more: &str) -> anyhow::Result<Peer> {
    let more = format!("log.segment.delete.delay.ms=1000\n{more}");
    let (running, address) = apache::kafka_with(name, "1g", &more)?;
    Ok(Peer { running, address, folder: Some(apache::data(name)?) })
}

/// The crate, built with what it needs to keep its records in an SQLite file: of its stores the one that is durable without a server
/// beside it.
fn nisshi() -> anyhow::Result<Peer> {
    let folder = places::cache("bench-nisshi")?;
    let program = folder.join("bin/nisshi");
    if !program.is_file() {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let mut install = Command::new(cargo);
        install.args(["install", "--quiet", "--locked", "--no-default-features", "--features", "libsql", CRATE_NISSHI]);
        install.arg("--root").arg(&folder).env("CARGO_TARGET_DIR", folder.join("target"));
        quiet(&mut install, SET_UP_LIMIT)?;
    }
    let data = folder.join("data");
    let _ = std::fs::remove_dir_all(&data);
    std::fs::create_dir_all(&data)?;
    let address = free_address()?;
    let mut command = Command::new(&program);
    command.arg("broker").current_dir(&data);
    command.env("LISTENER_URL", format!("tcp://{address}"));
    command.env("ADVERTISED_LISTENER_URL", format!("tcp://{address}"));
    command.env("STORAGE_ENGINE", "sqlite://nisshi.db");
    let log = folder.join("peer.log");
    let (running, address) = listening(Running::start_into(&mut command, &log)?, &address, &log)?;
    Ok(Peer { running, address, folder: None })
}
