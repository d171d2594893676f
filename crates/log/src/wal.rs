//! The files of the write-ahead log: preallocated, zero-filled, written in order. Used by `writer` and `recover`.
//!
//! | at | bytes | head of a file, little-endian |
//! | --- | --- | --- |
//! | 0 | 8 | magic and format version `CWAL0001` |
//! | 8 | 16 | log id |
//! | 24 | 8 | position of the file's first byte in the log |
//! | 32 | 8 | bytes of the file |
//! | 40 | 4 | CRC32C over bytes 0 to 40 |
//! | 44 | 20 | zeros |
//! | 64 | | frames; an empty frame says that the log goes on in the next file |
//!
//! A file is named by its position, sixteen hexadecimal digits and `.wal`. Positions rise without gaps from file to file.
//! Once the object store has all of a file it becomes a spare, `.free`, and later the log's next file: its blocks are
//! allocated, so writing it again moves no metadata. What it held cannot be taken for new: a frame's checksum covers its
//! position, and no position comes twice.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Buf;
use uuid::Uuid;

use crate::{Disk, DiskFile};

pub(crate) const HEAD_BYTES: usize = 64;
const MAGIC: [u8; 8] = *b"CWAL0001";

/// A file that waits to be used again.
#[derive(Debug)]
pub(crate) struct Spare {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    pub(crate) file: Arc<dyn DiskFile>,
}

fn head(log: Uuid, base: u64, bytes: u64) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    head.extend_from_slice(&MAGIC);
    head.extend_from_slice(log.as_bytes());
    head.extend_from_slice(&base.to_le_bytes());
    head.extend_from_slice(&bytes.to_le_bytes());
    let crc = crc32c::crc32c(&head);
    head.extend_from_slice(&crc.to_le_bytes());
    head.resize(HEAD_BYTES, 0);
    head
}

/// One file.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    pub(crate) base: u64,
    pub(crate) bytes: u64,
    pub(crate) file: Arc<dyn DiskFile>,
}

impl Segment {
    /// Makes a file of zeros with its head; durable when this returns.
    pub(crate) fn create(disk: &dyn Disk, folder: &Path, log: Uuid, base: u64, bytes: u64) -> io::Result<Self> {
        let path = folder.join(format!("{base:016x}.wal"));
        let file = disk.create(&path, bytes, &head(log, base, bytes))?;
        Ok(Self { path, base, bytes, file })
    }

    /// Makes the next file of a spare; durable when this returns. It has its new head before it has its name.
    pub(crate) fn reuse(disk: &dyn Disk, folder: &Path, log: Uuid, base: u64, spare: Spare) -> io::Result<Self> {
        spare.file.write_at(0, &head(log, base, spare.bytes))?;
        spare.file.sync()?;
        let path = folder.join(format!("{base:016x}.wal"));
        disk.rename(&spare.path, &path)?;
        Ok(Self { path, base, bytes: spare.bytes, file: spare.file })
    }

    /// Opens a file; `None` where its head is not one that this version writes.
    pub(crate) fn open(disk: &dyn Disk, path: &Path) -> io::Result<Option<(Self, Uuid)>> {
        let file = disk.open(path)?;
        if file.length()? < HEAD_BYTES as u64 {
            return Ok(None);
        }
        let mut head = [0; HEAD_BYTES];
        file.read_at(0, &mut head)?;
        let mut fields = &head[8..];
        let log = Uuid::from_slice(&fields[..16]).expect("sixteen bytes are a UUID");
        fields.advance(16);
        let (base, bytes, crc) = (fields.get_u64_le(), fields.get_u64_le(), fields.get_u32_le());
        if head[..8] != MAGIC || crc32c::crc32c(&head[..40]) != crc || file.length()? < bytes {
            return Ok(None);
        }
        Ok(Some((Self { path: path.to_owned(), base, bytes, file }, log)))
    }

    /// One past the last position in the file.
    pub(crate) const fn end(&self) -> u64 {
        self.base + self.bytes
    }
}
