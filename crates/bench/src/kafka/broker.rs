//! The brokers that are measured, and topics on them.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::Context;
use rdkafka::{
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
};
use tokio::time::Instant;

use super::{
    process::{self, Used},
    wire::{self, Wire},
};
use crate::{
    children::Alone,
    produce::{config, create_topic},
};

/// What Cairn is called in the tables.
pub(super) const CAIRN: &str = "Cairn";

/// One broker on this machine.
#[derive(Clone, Debug)]
pub(crate) struct Broker {
    pub(crate) name: String,
    pub(crate) at: String,
    /// Its process, where that is known.
    pub(crate) pid: Option<u32>,
    /// Where its data lies, where that is known.
    pub(crate) folder: Option<PathBuf>,
}

/// Others, by what the command line says of them: `NAME=HOST:PORT`, `NAME=PID`, `NAME=FOLDER`.
pub(crate) fn peers(
    at: &[(&str, &str)],
    pids: &[(&str, &str)],
    folders: &[(&str, &str)],
) -> anyhow::Result<Vec<Broker>> {
    let of =
        |list: &[(&str, &str)], name: &str| list.iter().find(|(of, _)| *of == name).map(|(_, said)| (*said).to_owned());
    let peers = at.iter().map(|(name, at)| {
        let pid = of(pids, name).map(|pid| pid.parse().with_context(|| format!("{pid} is no process id")));
        Ok(Broker {
            name: (*name).to_owned(),
            at: (*at).to_owned(),
            pid: pid.transpose()?,
            folder: of(folders, name).map(PathBuf::from),
        })
    });
    peers.collect()
}

impl Broker {
    /// A Cairn that was started for a part.
    pub(super) fn own(alone: &Alone) -> Self {
        Self {
            name: CAIRN.to_owned(),
            at: alone.kafka_at.clone(),
            pid: Some(alone.pid()),
            folder: Some(alone.data().join("objects")),
        }
    }

    pub(super) fn used(&self) -> anyhow::Result<Used> {
        self.pid.map_or_else(|| Ok(Used::default()), process::used)
    }

    /// Makes a topic, and waits until it takes a record in each partition.
    pub(super) async fn create(&self, topic: &str, partitions: i32) -> anyhow::Result<()> {
        create_topic(&self.at, topic, partitions).await?;
        let (at, topic) = (self.at.clone(), topic.to_owned());
        let ready = tokio::task::spawn_blocking(move || await_leaders(&at, &topic, partitions));
        ready.await?.with_context(|| format!("write the first records to {}", self.name))
    }

    pub(super) async fn delete(&self, topic: &str) -> anyhow::Result<()> {
        let admin: AdminClient<DefaultClientContext> = config(&self.at).create()?;
        for gone in admin.delete_topics(&[topic], &AdminOptions::new()).await.context("delete a topic")? {
            gone.map_err(|(name, code)| anyhow::anyhow!("topic {name} cannot be deleted at {}: {code}", self.name))?;
        }
        Ok(())
    }

    /// Lets the kernel forget what it holds of this broker's files in memory, so that reading them is reading the disk.
    pub(super) fn make_cold(&self) -> anyhow::Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        files(folder)?.iter().try_for_each(|path| forget(path))
    }

    /// Megabytes a second of this broker's files, read one after the other from the disk: what there is without a broker.
    pub(super) fn read_files(&self) -> anyhow::Result<f64> {
        let folder = self.folder.as_ref().context("its files are not known")?;
        let files = files(folder)?;
        files.iter().try_for_each(|path| forget(path))?;
        let (mut bytes, mut total, began) = (vec![0; FILE_PIECE_BYTES], 0, Instant::now());
        for path in &files {
            let mut file = std::fs::File::open(path)?;
            while let some @ 1.. = file.read(&mut bytes)? {
                total += some;
            }
        }
        Ok(total as f64 / 1e6 / began.elapsed().as_secs_f64())
    }
}

/// Those of the peers that can do `what`; the others are named with what they said.
pub(super) async fn able<F>(peers: &[Broker], what: &str, mut trial: impl FnMut(Broker) -> F) -> Vec<Broker>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let mut able = Vec::new();
    for peer in peers {
        match trial(peer.clone()).await {
            Ok(()) => able.push(peer.clone()),
            Err(error) => eprintln!("  left out of {what}: {}: {error:#}", peer.name),
        }
    }
    able
}

/// Bytes of a file that are read at once.
const FILE_PIECE_BYTES: usize = 1 << 20;
/// How often a topic is tried before it counts as one that does not come.
const TRIES_MAX: usize = 200;

/// A topic that was just made may have no leader yet.
fn await_leaders(at: &str, topic: &str, partitions: i32) -> anyhow::Result<()> {
    let mut wire = Wire::connect(at)?;
    let (batch, _) = wire::batch(1, b"first");
    let batches: Vec<_> = (0..partitions).map(|partition| (partition, batch.as_slice())).collect();
    let request = wire::produce(topic, &batches);
    let mut tries = 0;
    loop {
        wire.send(&request)?;
        let stored = wire::produced(wire.receive()?.0);
        tries += 1;
        if stored.is_ok() || tries == TRIES_MAX {
            return stored;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(50));
    }
}

/// All files below a folder.
fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

fn forget(path: &Path) -> anyhow::Result<()> {
    // It may have been removed since it was found.
    let Ok(file) = std::fs::File::open(path) else { return Ok(()) };
    // What is not on the disk yet cannot be forgotten.
    file.sync_data()?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_peer_is_known_by_its_name() {
        let found = super::peers(&[("a", "h:1"), ("b", "h:2")], &[("b", "7")], &[("a", "/x")]).expect("peers");
        assert_eq!((found[0].pid, found[1].pid), (None, Some(7)));
        assert!(found[0].folder.is_some() && found[1].folder.is_none());
        assert!(super::peers(&[("a", "h:1")], &[("a", "x")], &[]).is_err());
    }
}
