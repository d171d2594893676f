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
//! An encrypted file has the magic `CWALE001`, and a head of 1024 bytes that goes on with
//!
//! | at | bytes | |
//! | --- | --- | --- |
//! | 44 | 2 | length of the envelope |
//! | 46 | | envelope: which key the file is encrypted under (`cairn-keys`); then zeros |
//! | 1020 | 4 | CRC32C over bytes 44 to 1020 |
//! | 1024 | | encrypted frames |
//!
//! A file is named by its position, sixteen hexadecimal digits and `.wal`. Positions rise without gaps from file to file.
//! Once the object store has all of a file it becomes a spare, `.free`, and later the log's next file: its blocks are
//! allocated, so writing it again moves no metadata. What it held cannot be taken for new: a frame's checksum covers its
//! position, and no position comes twice. One that lay in the clear is not used again while new files are encrypted: what it held
//! would stay in it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Buf;
use cairn_keys::{AtRest, ENVELOPE_BYTES_MAX, FileSeal};
use uuid::Uuid;

use crate::{Disk, DiskFile, OpenError, disk::Pace, frame::Shape, wal_object::WalId};

/// Bytes of the head of a file in the clear.
pub(crate) const HEAD_BYTES: usize = 64;
/// Bytes of the head of an encrypted file.
pub(crate) const SEALED_HEAD_BYTES: usize = 1_024;
const _: () = assert!(ENVELOPE_BYTES_MAX + 46 <= SEALED_HEAD_BYTES - 4, "an envelope fits into the head");
const MAGIC: [u8; 8] = *b"CWAL0001";
const MAGIC_SEALED: [u8; 8] = *b"CWALE001";

/// A file that waits to be used again.
#[derive(Debug)]
pub(crate) struct Spare {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    pub(crate) file: Arc<dyn DiskFile>,
    /// Whether what it holds is encrypted.
    pub(crate) is_sealed: bool,
}

impl Spare {
    /// Makes one that was never used, for the file at `base`: its blocks are allocated when this returns.
    pub(crate) fn create(disk: &dyn Disk, folder: &Path, base: u64, bytes: u64, pace: Pace<'_>) -> io::Result<Self> {
        // No used file has this name: theirs is that of the place where they were used.
        let path = folder.join(format!("{base:016x}.made.free"));
        let file = disk.create_paced(&path, bytes, &[], pace)?;
        // It holds nothing, so nothing in the clear.
        Ok(Self { path, bytes, file, is_sealed: true })
    }

    /// Opens a file that was left to be used again.
    pub(crate) fn open(disk: &dyn Disk, path: PathBuf) -> io::Result<Self> {
        let file = disk.open(&path)?;
        let bytes = file.length()?;
        let mut magic = [0; 8];
        let is_sealed = file.read_at(0, &mut magic).is_ok() && magic == MAGIC_SEALED;
        Ok(Self { path, bytes, file, is_sealed })
    }
}

pub(crate) fn head(log: Uuid, base: u64, bytes: u64, at_rest: &AtRest) -> (Vec<u8>, Option<Arc<FileSeal>>) {
    let sealed = at_rest.new_file();
    let mut head = Vec::with_capacity(SEALED_HEAD_BYTES);
    head.extend_from_slice(if sealed.is_some() { &MAGIC_SEALED } else { &MAGIC });
    head.extend_from_slice(log.as_bytes());
    head.extend_from_slice(&base.to_le_bytes());
    head.extend_from_slice(&bytes.to_le_bytes());
    let crc = crc32c::crc32c(&head);
    head.extend_from_slice(&crc.to_le_bytes());
    let Some((seal, envelope)) = sealed else {
        head.resize(HEAD_BYTES, 0);
        return (head, None);
    };
    let length = u16::try_from(envelope.len()).expect("an envelope is shorter than a head");
    head.extend_from_slice(&length.to_le_bytes());
    head.extend_from_slice(&envelope);
    head.resize(SEALED_HEAD_BYTES - 4, 0);
    let crc = crc32c::crc32c(&head[44..]);
    head.extend_from_slice(&crc.to_le_bytes());
    (head, Some(Arc::new(seal)))
}

/// One file.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    pub(crate) base: u64,
    pub(crate) bytes: u64,
    pub(crate) file: Arc<dyn DiskFile>,
    /// What it is encrypted with.
    pub(crate) seal: Option<Arc<FileSeal>>,
    /// Which object of the store it is, where it is no file.
    pub(crate) object: Option<WalId>,
}

impl Segment {
    /// Makes a file of zeros with its head; durable when this returns.
    pub(crate) fn create(
        disk: &dyn Disk,
        folder: &Path,
        log: Uuid,
        base: u64,
        bytes: u64,
        at_rest: &AtRest,
    ) -> io::Result<Self> {
        let path = folder.join(format!("{base:016x}.wal"));
        let (head, seal) = head(log, base, bytes, at_rest);
        let file = disk.create(&path, bytes, &head)?;
        Ok(Self { path, base, bytes, file, seal, object: None })
    }

    /// Makes the next file of a spare; durable when this returns. It has its new head before it has its name.
    pub(crate) fn reuse(
        disk: &dyn Disk,
        folder: &Path,
        log: Uuid,
        base: u64,
        spare: Spare,
        at_rest: &AtRest,
    ) -> io::Result<Self> {
        let (head, seal) = head(log, base, spare.bytes, at_rest);
        spare.file.write_at(0, &head)?;
        spare.file.sync()?;
        let path = folder.join(format!("{base:016x}.wal"));
        disk.rename(&spare.path, &path)?;
        Ok(Self { path, base, bytes: spare.bytes, file: spare.file, seal, object: None })
    }

    /// Opens a file; `None` where its head is not one that this version writes.
    pub(crate) fn open(disk: &dyn Disk, path: &Path, at_rest: &AtRest) -> Result<Option<(Self, Uuid)>, OpenError> {
        let failed = |source| OpenError::Disk { path: path.to_owned(), source };
        let file = disk.open(path).map_err(failed)?;
        let length = file.length().map_err(failed)?;
        if length < HEAD_BYTES as u64 {
            return Ok(None);
        }
        let mut head = [0; HEAD_BYTES];
        file.read_at(0, &mut head).map_err(failed)?;
        let mut fields = &head[8..];
        let log = Uuid::from_slice(&fields[..16]).expect("sixteen bytes are a UUID");
        fields.advance(16);
        let (base, bytes, crc) = (fields.get_u64_le(), fields.get_u64_le(), fields.get_u32_le());
        let is_sealed = head[..8] == MAGIC_SEALED;
        if !is_sealed && head[..8] != MAGIC || crc32c::crc32c(&head[..40]) != crc || length < bytes {
            return Ok(None);
        }
        let mut segment = Self { path: path.to_owned(), base, bytes, file, seal: None, object: None };
        if is_sealed {
            let mut head = vec![0; SEALED_HEAD_BYTES];
            segment.file.read_at(0, &mut head).map_err(failed)?;
            let (covered, crc) = head[44..].split_at(SEALED_HEAD_BYTES - 4 - 44);
            let envelope = covered.split_first_chunk().map(|(length, rest)| (u16::from_le_bytes(*length), rest));
            let envelope = envelope.and_then(|(length, rest)| rest.get(..usize::from(length)));
            let Some(envelope) = envelope.filter(|_| crc32c::crc32c(covered).to_le_bytes() == *crc) else {
                return Ok(None);
            };
            let seal = at_rest.file(envelope);
            let seal = seal.map_err(|source| OpenError::Sealed { path: path.to_owned(), source })?;
            segment.seal = Some(Arc::new(seal));
        }
        Ok(Some((segment, log)))
    }

    /// How its frames lie in it.
    pub(crate) const fn shape(&self) -> Shape {
        if self.seal.is_some() { Shape::Sealed } else { Shape::Plain }
    }

    /// Bytes of its head.
    pub(crate) const fn head_bytes(&self) -> usize {
        if self.seal.is_some() { SEALED_HEAD_BYTES } else { HEAD_BYTES }
    }

    /// Position of its first frame.
    pub(crate) const fn first(&self) -> u64 {
        self.base + self.head_bytes() as u64
    }

    /// Whether new files are written in the same way, under the same key.
    pub(crate) fn is_as_new(&self, at_rest: &AtRest) -> bool {
        self.seal.as_ref().map(|seal| seal.key_id()) == at_rest.current()
    }

    /// One past the last position in the file.
    pub(crate) const fn end(&self) -> u64 {
        self.base + self.bytes
    }
}
