//! The disk as the log sees it: the seam where a simulation puts one that forgets, tears and reorders.
//! Called by `wal` and `recover`. [`SystemDisk`] goes through `std::fs`, so that a test layer below libc sees it all.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

mod reading;
mod syncs;

pub(crate) use self::reading::read_file;
pub(crate) use self::syncs::SYNCED_BYTES;
use self::{reading::read_in_turn, syncs::Syncs};
use crate::step_aside;

/// A file of the write-ahead log.
pub trait DiskFile: std::fmt::Debug + Send + Sync {
    /// Fills `into` from byte `at`; an error if the file ends before.
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes` from byte `at`. Nothing is promised before [`sync`](Self::sync).
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// What was written survives power loss when this returns. After an error nothing may be assumed.
    fn sync(&self) -> io::Result<()>;
    /// Bytes.
    fn length(&self) -> io::Result<u64>;
}

/// Asked before each piece of a file that is made, with how many bytes are.
pub type Pace<'a> = &'a dyn Fn(u64) -> io::Result<()>;

/// A disk.
pub trait Disk: std::fmt::Debug + Send + Sync {
    /// Makes a folder and those above it, durably.
    fn create_folder(&self, path: &Path) -> io::Result<()>;
    /// Files in a folder, sorted.
    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>>;
    /// Opens a file that is there.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Creates a file of zeros with its blocks allocated, beginning with `head`, all of it durable, name included.
    fn create(&self, path: &Path, bytes: u64, head: &[u8]) -> io::Result<Arc<dyn DiskFile>>;
    /// The same piece by piece: `pace` is told before each how many bytes are made, and may take its time, or end it with an error. A disk
    /// that makes files at once does not ask it.
    fn create_paced(&self, path: &Path, bytes: u64, head: &[u8], _pace: Pace<'_>) -> io::Result<Arc<dyn DiskFile>> {
        self.create(path, bytes, head)
    }
    /// Gives a file another name in the same folder, durably; a file that had it is gone.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file; it may come back after power loss.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Takes the folder for this process alone; dropping the guard gives it back.
    fn lock(&self, folder: &Path) -> io::Result<Box<dyn std::any::Any + Send + Sync>>;
}

/// The machine's disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemDisk;

#[derive(Debug)]
struct SystemFile(fs::File);

/// Bytes that are read from a file at once, or written to it.
const PIECE_BYTES: usize = 128 << 10;
/// The syncs of write-ahead logs that are under way.
static SYNCS: Syncs = Syncs::new();

impl DiskFile for SystemFile {
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        read_in_turn(&self.0, at, into)
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        SYNCS.wrote(bytes.len());
        self.0.write_all_at(bytes, at)
    }

    fn sync(&self) -> io::Result<()> {
        SYNCS.during(|| self.0.sync_data())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

/// Makes a file of zeros that begins with `head`, its blocks and bytes durable.
fn zeros(path: &Path, bytes: u64, head: &[u8], pace: Pace<'_>) -> io::Result<fs::File> {
    let file = fs::File::options().read(true).write(true).create(true).truncate(true).open(path)?;
    let zeros = vec![0_u8; SYNCED_BYTES];
    let mut at = 0;
    while at < bytes {
        pace(at)?;
        let most = SYNCS.piece();
        let some = usize::try_from(bytes - at).map_or(most, |left| left.min(most));
        for (some, at) in zeros[..some].chunks(PIECE_BYTES).zip((at..).step_by(PIECE_BYTES)) {
            step_aside();
            file.write_all_at(some, at)?;
        }
        file.sync_data()?;
        at += some as u64;
    }
    file.write_all_at(head, 0)?;
    file.sync_all()?;
    Ok(file)
}

/// Writes much to a file, and syncs it piece by piece: what is written at once, a sync of the write-ahead log waits for in the device.
pub(crate) fn write_evenly(file: &mut fs::File, bytes: &[u8]) -> io::Result<()> {
    let mut left = bytes;
    while !left.is_empty() {
        let (piece, rest) = left.split_at(left.len().min(SYNCS.piece()));
        for some in piece.chunks(PIECE_BYTES) {
            step_aside();
            file.write_all(some)?;
        }
        if !rest.is_empty() {
            file.sync_data()?;
        }
        left = rest;
    }
    Ok(())
}

pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

impl Disk for SystemDisk {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            if !parent.is_dir() {
                self.create_folder(parent)?;
            }
            // One that is there may have been made a moment before a crash, so its name is synced too.
            match fs::create_dir(path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other?,
            }
            return sync_folder(parent);
        }
        fs::create_dir_all(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                found.push(entry.path());
            }
        }
        found.sort();
        Ok(found)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(SystemFile(fs::File::options().read(true).write(true).open(path)?)))
    }

    fn create(&self, path: &Path, bytes: u64, head: &[u8]) -> io::Result<Arc<dyn DiskFile>> {
        self.create_paced(path, bytes, head, &|_| Ok(()))
    }

    fn create_paced(&self, path: &Path, bytes: u64, head: &[u8], pace: Pace<'_>) -> io::Result<Arc<dyn DiskFile>> {
        let making = path.with_extension("new");
        let made = zeros(&making, bytes, head, pace).and_then(|file| fs::rename(&making, path).map(|()| file));
        // Half a file would keep what little room there is.
        let file = made.inspect_err(|_| drop(fs::remove_file(&making)))?;
        if let Some(folder) = path.parent() {
            sync_folder(folder)?;
        }
        Ok(Arc::new(SystemFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)?;
        to.parent().map_or(Ok(()), sync_folder)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn lock(&self, folder: &Path) -> io::Result<Box<dyn std::any::Any + Send + Sync>> {
        let file = fs::File::options().create(true).truncate(false).write(true).open(folder.join("lock"))?;
        file.try_lock().map_err(|_| {
            io::Error::new(io::ErrorKind::WouldBlock, "another process uses this folder: stop it, or give each its own")
        })?;
        Ok(Box::new(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asked;

    /// How often this thread steps aside in there.
    fn asks(work: impl FnOnce()) -> usize {
        let before = asked();
        work();
        usize::try_from(asked() - before).expect("a few times")
    }

    #[test]
    fn who_reads_or_writes_much_steps_aside_at_each_piece() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        let mut file = fs::File::options().create_new(true).read(true).write(true).open(&path).expect("made");
        let mut bytes = vec![7; SYNCED_BYTES + 3 * PIECE_BYTES];
        let pieces = bytes.len() / PIECE_BYTES;
        assert_eq!(asks(|| write_evenly(&mut file, &bytes).expect("written")), pieces);
        assert_eq!(asks(|| read_in_turn(&file, 0, &mut bytes).expect("read")), pieces);
        let make = || drop(zeros(&folder.path().join("zeros"), bytes.len() as u64, b"head", &|_| Ok(())));
        assert_eq!(asks(make), pieces);
    }
}
