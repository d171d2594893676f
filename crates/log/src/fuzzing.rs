//! What the fuzz targets ask of the log: every decoder over any bytes behind a good checksum, and a whole recovery.
//!
//! Built for `cargo xtask fuzz` alone; nothing of it is in Cairn. A checksum keeps accidents out, not whoever can write to the
//! folder or the store: what lies behind it must not make the log panic either.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use cairn_keys::AtRest;
use uuid::Uuid;

use crate::{
    Disk, DiskFile, PartitionIndex, StreamId,
    frame::{self, Entry, Hand, Shape},
    index::{Delta, HeadRecord, Index},
    object,
    recover::recover,
    wal,
};

const LOG: Uuid = Uuid::from_u128(7);
/// Bytes of the one file that is recovered from.
const FILE_BYTES: usize = 64 << 10;

/// A frame's body: what is read is written back to the same meaning.
pub fn body(bytes: &[u8]) {
    let Some(entries) = frame::entries(bytes) else { return };
    let mut again = Vec::new();
    for entry in &entries {
        match entry {
            Entry::Batch(batch) => {
                let at = batch.at as usize;
                frame::put_batch(&mut again, 0, &mut batch.clone(), &bytes[at..at + batch.length as usize]);
            }
            other => frame::put_change(&mut again, other),
        }
    }
    assert_eq!(frame::entries(&again), Some(entries));
}

/// A file of the index, its checksum put right: what is read is written back byte for byte, and can be applied.
pub fn index_file(bytes: &[u8]) {
    let sealed = sealed(bytes);
    if let Some(delta) = Delta::decode(&sealed) {
        assert_eq!(delta.encode()[..], sealed[..]);
        let mut index = Index { log: delta.log, ..Index::default() };
        let _ = index.apply(&delta);
        let snapshot = index.snapshot();
        assert_eq!(Delta::decode(&snapshot.encode()).as_ref(), Some(&snapshot));
    }
    if let Some(head) = HeadRecord::decode(&sealed) {
        assert_eq!(head.encode()[..], sealed[..]);
    }
}

/// A part of an object and what it leads to, their checksums put right.
pub fn part(bytes: &[u8]) {
    let stream = StreamId::new(LOG, PartitionIndex::new(0));
    let mut part = LOG.as_bytes().to_vec();
    part.extend_from_slice(&0_u32.to_le_bytes());
    part.extend_from_slice(bytes);
    let _ = object::part(bytes, stream);
    if let Some(chunks) = object::part(&sealed(&part), stream) {
        for chunk in chunks {
            let _ = object::batches(&chunk, &Bytes::copy_from_slice(bytes));
        }
    }
    let _ = object::batches_unchecked(&Bytes::copy_from_slice(bytes));
}

/// Recovers from one file that holds a frame for each body; `flip` names a byte behind the head that was damaged since. A
/// second recovery finds what the first one left.
pub fn recovery(bodies: &[&[u8]], synced: u64, flip: Option<usize>) {
    let mut bytes = wal::head(LOG, 0, FILE_BYTES as u64, &AtRest::default()).0;
    for body in bodies {
        if bytes.len() + Shape::Plain.frame_bytes(body.len()) > FILE_BYTES {
            break;
        }
        let position = bytes.len() as u64;
        let hand = Hand { log: LOG, epoch: 1 };
        frame::put_frame(&mut bytes, hand, Shape::Plain, position, synced.min(position), body);
    }
    let used = bytes.len() - wal::HEAD_BYTES;
    bytes.resize(FILE_BYTES, 0);
    if let Some(at) = flip.filter(|_| used > 0) {
        bytes[wal::HEAD_BYTES + at % used] ^= 0x55;
    }
    let disk = Memory(Arc::new(MemoryFile(Mutex::new(bytes))));
    let run = || {
        recover(&disk, Path::new("wal"), &AtRest::default(), None, LOG, Vec::new())
            .ok()
            .map(|found| (found.next, found.state.streams.len()))
    };
    if let Some(found) = run() {
        assert_eq!(run(), Some(found), "a second recovery finds something else");
    }
}

fn sealed(bytes: &[u8]) -> Vec<u8> {
    [bytes, &crc32c::crc32c(bytes).to_le_bytes()].concat()
}

/// A disk with one file.
#[derive(Debug)]
struct Memory(Arc<MemoryFile>);

#[derive(Debug)]
struct MemoryFile(Mutex<Vec<u8>>);

impl MemoryFile {
    fn with<T>(&self, at: u64, length: usize, work: impl FnOnce(&mut [u8]) -> T) -> io::Result<T> {
        let mut bytes = self.0.lock().expect("nobody panicked");
        let at = usize::try_from(at).map_err(io::Error::other)?;
        let range = at..at.saturating_add(length);
        bytes.get_mut(range).map(work).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

impl DiskFile for MemoryFile {
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.with(at, into.len(), |bytes| into.copy_from_slice(bytes))
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.with(at, bytes.len(), |old| old.copy_from_slice(bytes))
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(FILE_BYTES as u64)
    }
}

impl Disk for Memory {
    fn create_folder(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(vec![folder.join("0000000000000000.wal")])
    }

    fn open(&self, _: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.0.clone())
    }

    fn create(&self, _: &Path, _: u64, _: &[u8]) -> io::Result<Arc<dyn DiskFile>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, _: &Path) -> io::Result<Box<dyn std::any::Any + Send + Sync>> {
        Ok(Box::new(()))
    }
}
