//! A disk that forgets what was not synced, tears it at sectors and reorders it, as a seed decides. Used by the simulation.
//!
//! A killed process leaves its pages: they are read back, and are still not durable. Power loss takes what was not synced,
//! sector by sector. A failed sync loses its pages though they read back. A removed file may come back.

use std::{
    any::Any,
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use cairn_clock::Entropy;
use parking_lot::Mutex;

use crate::{Disk, DiskFile};

/// What a disk writes at once or not at all.
const SECTOR_BYTES: usize = 512;

#[derive(Debug, Default)]
struct Inode {
    /// What reads see.
    now: Vec<u8>,
    /// What survives.
    durable: Vec<u8>,
    /// Written since the last sync.
    pending: Vec<(usize, Vec<u8>)>,
}

type Node = Arc<Mutex<Inode>>;

#[derive(Debug, Default)]
struct Held {
    files: BTreeMap<PathBuf, Node>,
    removed: Vec<(PathBuf, Node)>,
}

/// The disk; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct SimDisk {
    held: Arc<Mutex<Held>>,
    locked: Arc<AtomicBool>,
    entropy: Entropy,
    /// Operations until everything fails; below zero nothing does.
    left: Arc<AtomicI64>,
}

impl SimDisk {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            held: Arc::default(),
            locked: Arc::default(),
            entropy: Entropy::seeded(seed),
            left: Arc::new(AtomicI64::new(-1)),
        }
    }

    /// After so many more operations the process is dead to the disk.
    pub(crate) fn die_after(&self, operations: i64) {
        self.left.store(operations, Ordering::SeqCst);
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }

    /// The process died. Its pages stay.
    pub(crate) fn revive(&self) {
        self.left.store(-1, Ordering::SeqCst);
    }

    /// The power failed: of what was not synced, some sectors were written, in any order.
    pub(crate) fn lose_power(&self) {
        self.revive();
        let mut held = self.held.lock();
        let mut back = Vec::new();
        for (path, node) in std::mem::take(&mut held.removed) {
            if self.chance(50) && !held.files.contains_key(&path) {
                back.push((path, node));
            }
        }
        held.files.extend(back);
        for node in held.files.values() {
            let mut node = node.lock();
            let survives = [0, 50, 90, 100][(self.entropy.next_u64() % 4) as usize];
            for (at, bytes) in std::mem::take(&mut node.pending) {
                for (n, sector) in sectors(at, &bytes) {
                    if self.chance(survives) {
                        node.durable[n..n + sector.len()].copy_from_slice(sector);
                    }
                }
            }
            node.now = node.durable.clone();
        }
    }

    fn chance(&self, percent: u64) -> bool {
        self.entropy.next_u64() % 100 < percent
    }

    /// Counts an operation; fails once the process is dead.
    fn step(&self) -> io::Result<()> {
        let left = self.left.load(Ordering::SeqCst);
        if left > 1 {
            self.left.store(left - 1, Ordering::SeqCst);
        } else if left >= 0 {
            self.left.store(0, Ordering::SeqCst);
            return Err(io::Error::other("the disk is gone"));
        }
        Ok(())
    }
}

/// The parts of a write that lie in one sector each.
fn sectors(at: usize, bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let length = (SECTOR_BYTES - (at + from) % SECTOR_BYTES).min(bytes.len() - from);
        let piece = (length > 0).then(|| (at + from, &bytes[from..from + length]));
        from += length;
        piece
    })
}

#[derive(Debug)]
struct SimFile {
    node: Node,
    disk: SimDisk,
}

impl DiskFile for SimFile {
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let node = self.node.lock();
        let bytes = node.now.get(at as usize..at as usize + into.len());
        into.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let was_dead = self.disk.is_dead();
        let died = self.disk.step();
        if was_dead {
            return died;
        }
        // A process that dies while it writes may have written some of it.
        let written =
            if died.is_ok() { bytes.len() } else { (self.disk.entropy.next_u64() % (bytes.len() as u64 + 1)) as usize };
        let mut node = self.node.lock();
        node.now[at as usize..at as usize + written].copy_from_slice(&bytes[..written]);
        node.pending.push((at as usize, bytes[..written].to_vec()));
        died
    }

    fn sync(&self) -> io::Result<()> {
        let died = self.disk.step();
        let mut node = self.node.lock();
        let node = &mut *node;
        let pending = std::mem::take(&mut node.pending);
        died?; // the pages are marked clean and are not on the disk
        for (at, bytes) in pending {
            node.durable[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.node.lock().now.len() as u64)
    }
}

impl Disk for SimDisk {
    fn create_folder(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let held = self.held.lock();
        Ok(held.files.keys().filter(|path| path.parent() == Some(folder)).cloned().collect())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let node = self.held.lock().files.get(path).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile { node, disk: self.clone() }))
    }

    fn create(&self, path: &Path, bytes: u64, head: &[u8]) -> io::Result<Arc<dyn DiskFile>> {
        self.step()?;
        let mut now = vec![0; bytes as usize];
        now[..head.len()].copy_from_slice(head);
        let node = Arc::new(Mutex::new(Inode { durable: now.clone(), now, pending: Vec::new() }));
        self.held.lock().files.insert(path.to_owned(), node.clone());
        Ok(Arc::new(SimFile { node, disk: self.clone() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        let mut held = self.held.lock();
        let node = held.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        held.files.insert(to.to_owned(), node);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        let mut held = self.held.lock();
        let node = held.files.remove(path).ok_or(io::ErrorKind::NotFound)?;
        held.removed.push((path.to_owned(), node));
        Ok(())
    }

    fn lock(&self, _: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        if self.locked.swap(true, Ordering::SeqCst) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Unlock(self.locked.clone())))
    }
}

struct Unlock(Arc<AtomicBool>);

impl Drop for Unlock {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}
