//! A disk that does not answer a read, and who must not notice: who reads the tail, and who appends.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

use super::{
    tests::{batch, open_with, options, put, stream, until},
    *,
};
use crate::{Disk, SystemDisk, disk::DiskFile, read::FILE_READS_MAX};

/// How long a read hangs at most, so that a failed test ends.
const HANGS_MAX: Duration = Duration::from_secs(90);
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether reads hang, and how many do.
#[derive(Debug, Default)]
struct Gate {
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock();
        if state.0 {
            state.1 += 1;
            self.changed.wait_while_for(&mut state, |(shut, _)| *shut, HANGS_MAX);
            state.1 -= 1;
        }
    }

    fn set(&self, shut: bool) {
        self.state.lock().0 = shut;
        self.changed.notify_all();
    }
}

#[derive(Debug, Clone, Default)]
struct GatedDisk(Arc<Gate>);

#[derive(Debug)]
struct GatedFile(Arc<dyn DiskFile>, Arc<Gate>);

impl DiskFile for GatedFile {
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.1.pass();
        self.0.read_at(at, into)
    }
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(at, bytes)
    }
    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }
}

impl GatedDisk {
    fn file(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(GatedFile(file, self.0.clone()))
    }
}

impl Disk for GatedDisk {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        SystemDisk.create_folder(path)
    }
    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        SystemDisk.list(folder)
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(SystemDisk.open(path)?))
    }
    fn create(&self, path: &Path, bytes: u64, head: &[u8]) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(SystemDisk.create(path, bytes, head)?))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        SystemDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        SystemDisk.remove(path)
    }
    fn lock(&self, folder: &Path) -> io::Result<Box<dyn std::any::Any + Send + Sync>> {
        SystemDisk.lock(folder)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_whose_reads_hang_holds_up_neither_the_tail_nor_appends() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = GatedDisk::default();
    let unhurried = LogOptions {
        tail_bytes_max: 20_000,
        upload_interval: Duration::from_secs(3_600),
        wal_segment_bytes: 1 << 20,
        disk: Arc::new(disk.clone()),
        ..options(folder.path())
    };
    let log = open_with(unhurried).await;
    for n in 0..100 {
        put(&log, batch(n, None)).await;
    }
    disk.0.set(true);
    let old = |log: Log| async move { log.read(stream(), Offset::default(), 1 << 20).await.expect("readable").batches };
    let readers: Vec<_> = (0..FILE_READS_MAX + 8).map(|_| tokio::spawn(old(log.clone()))).collect();
    until(|| disk.0.state.lock().1 == FILE_READS_MAX).await;
    for n in 100..120 {
        let appended =
            tokio::time::timeout(PATIENCE, put(&log, batch(n, None))).await.expect("an append reads nothing");
        let newest = tokio::time::timeout(PATIENCE, log.read(stream(), appended.base_offset, 1));
        let newest = newest.await.expect("the tail waits for no disk").expect("readable").batches;
        assert_eq!(newest[0][8..], [n; 892]);
    }
    assert_eq!(disk.0.state.lock().1, FILE_READS_MAX, "no more than so many are under way");
    disk.0.set(false);
    for reader in readers {
        let batches = reader.await.expect("no panic");
        assert!(batches.len() >= 100 && (0_u8..).zip(&batches).all(|(n, batch)| batch[8..] == [n; 892]));
    }
    log.close().await;
}
