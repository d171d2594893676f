//! Write-ahead objects: what lies in the store in the place of the write-ahead log's files, where the store itself makes
//! appends durable. Used by `lander` (writes), `closing` (fences and reads) and `upload` (removes).
//!
//! | at | bytes | an object, little-endian |
//! | --- | --- | --- |
//! | 0 | 8 | magic and format version: `CWOB0001`, of a fence `CWOF0001` |
//! | 8 | 16 | log id |
//! | 24 | 8 | position of the object's first byte in the log; in a fence the epoch of who put it |
//! | 32 | 4 | epoch of the writer |
//! | 36 | 8 | number |
//! | 44 | 4 | CRC32C over bytes 0 to 44 |
//! | 48 | 16 | zeros |
//! | 64 | | frames as in a file, up to the end of the object; a fence has none |
//!
//! An object is named `wal/<epoch>/<number>`, hexadecimal, and is created or not: nothing ever replaces one. A fence takes the
//! name that its epoch would have written next, and is never removed: whoever still holds that epoch, however long it
//! slept, gets no further.

use std::{fmt, io, path::PathBuf, sync::Arc};

use bytes::{BufMut, Bytes};
use uuid::Uuid;

use crate::{
    DiskFile,
    fields::Fields,
    wal::{HEAD_BYTES, Segment},
};

const MAGIC: [u8; 8] = *b"CWOB0001";
const MAGIC_FENCE: [u8; 8] = *b"CWOF0001";
/// The folder of all of them.
pub(crate) const FOLDER: &str = "wal/";

/// Which object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct WalId {
    pub(crate) epoch: u32,
    pub(crate) number: u64,
}

impl WalId {
    /// The folder of an epoch's objects.
    pub(crate) fn folder(epoch: u32) -> String {
        format!("{FOLDER}{epoch:08x}/")
    }

    pub(crate) fn name(self) -> String {
        format!("{}{:016x}", Self::folder(self.epoch), self.number)
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (epoch, number) = name.strip_prefix(FOLDER)?.split_once('/')?;
        let id = Self { epoch: u32::from_str_radix(epoch, 16).ok()?, number: u64::from_str_radix(number, 16).ok()? };
        (id.name() == name).then_some(id)
    }

    pub(crate) const fn next(self) -> Self {
        Self { epoch: self.epoch, number: self.number + 1 }
    }
}

impl fmt::Display for WalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// What stands under a name.
#[derive(Debug)]
pub(crate) enum Found {
    /// Frames, from this position on.
    Frames(u64),
    /// The end of its epoch, put by that one.
    Fence(u32),
}

fn put_head(into: &mut Vec<u8>, magic: [u8; 8], log: Uuid, position: u64, id: WalId) {
    let start = into.len();
    into.put_slice(&magic);
    into.put_slice(log.as_bytes());
    into.put_u64_le(position);
    into.put_u32_le(id.epoch);
    into.put_u64_le(id.number);
    let crc = crc32c::crc32c(&into[start..]);
    into.put_u32_le(crc);
    into.resize(start + HEAD_BYTES, 0);
}

/// An object of these frames.
pub(crate) fn object(log: Uuid, position: u64, id: WalId, frames: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + frames.len());
    put_head(&mut bytes, MAGIC, log, position, id);
    bytes.put_slice(frames);
    bytes.into()
}

/// The fence that `by` puts under a name.
pub(crate) fn fence(log: Uuid, id: WalId, by: u32) -> Bytes {
    let mut bytes = Vec::with_capacity(HEAD_BYTES);
    put_head(&mut bytes, MAGIC_FENCE, log, u64::from(by), id);
    bytes.into()
}

/// What the bytes under a name are, if they are what this version writes there. Frames are not looked at.
pub(crate) fn inspect(bytes: &[u8], log: Uuid, id: WalId) -> Option<Found> {
    let mut fields = Fields(bytes.get(..HEAD_BYTES)?);
    let magic = fields.take(8)?;
    let (of, position, epoch, number) = (fields.uuid()?, fields.u64()?, fields.u32()?, fields.u64()?);
    let right = fields.u32()? == crc32c::crc32c(&bytes[..44]) && of == log && id == WalId { epoch, number };
    if !right {
        return None;
    }
    if magic == MAGIC {
        let whole = position.is_multiple_of(8)
            && bytes.len().is_multiple_of(8)
            && position.checked_add(bytes.len() as u64).is_some();
        return whole.then_some(Found::Frames(position));
    }
    (magic == MAGIC_FENCE && bytes.len() == HEAD_BYTES)
        .then(|| Found::Fence(u32::try_from(position).unwrap_or(u32::MAX)))
}

/// The object as a piece of the write-ahead log. Its bytes stay in memory until they are uploaded.
pub(crate) fn segment(id: WalId, position: u64, bytes: Bytes) -> Segment {
    Segment {
        path: PathBuf::from(id.name()),
        base: position,
        bytes: bytes.len() as u64,
        file: Arc::new(InMemory(bytes)),
        seal: None,
        object: Some(id),
    }
}

/// The bytes of an object, where a file would be.
#[derive(Debug)]
struct InMemory(Bytes);

impl DiskFile for InMemory {
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(at).ok();
        let there = from.and_then(|from| self.0.get(from..from.checked_add(into.len())?));
        into.copy_from_slice(there.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "an object is never written again"))
    }

    fn sync(&self) -> io::Result<()> {
        Ok(()) // it was durable before anybody knew of it
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LOG: Uuid = Uuid::from_u128(5);

    proptest! {
        #[test]
        fn an_object_is_what_was_put_under_that_name_and_nothing_else(
            epoch in any::<u32>(), number in any::<u64>(), position in 0u64..1 << 40, frames in 0usize..20, flip in 0usize..48,
        ) {
            let id = WalId { epoch, number };
            prop_assert_eq!(WalId::parse(&id.name()), Some(id));
            let bytes = object(LOG, position * 8, id, &vec![7; frames * 8]);
            prop_assert!(matches!(inspect(&bytes, LOG, id), Some(Found::Frames(at)) if at == position * 8));
            prop_assert!(inspect(&bytes, Uuid::nil(), id).is_none());
            let other = WalId { epoch: epoch ^ 1, number };
            prop_assert!(inspect(&bytes, LOG, other).is_none());
            let fence = fence(LOG, id, 9);
            prop_assert!(matches!(inspect(&fence, LOG, id), Some(Found::Fence(9))));
            for whole in [bytes, fence] {
                let mut damaged = whole.to_vec();
                damaged[flip] ^= 4;
                prop_assert!(inspect(&damaged, LOG, id).is_none());
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = inspect(&bytes, LOG, WalId { epoch: 0, number: 0 });
        }
    }

    #[test]
    fn the_bytes_of_an_object_are_these() {
        let id = WalId { epoch: 2, number: 3 };
        assert_eq!(id.name(), "wal/00000002/0000000000000003");
        let bytes = object(LOG, 8, id, b"abcdefgh");
        let (magic, log) = ("43574f4230303031", "00000000000000000000000000000005");
        let text = format!("{magic}{log}080000000000000002000000{:016x}", 3u64.swap_bytes());
        assert_eq!(hex::encode(&bytes[..44]), text);
        assert_eq!(&bytes[48..], [&[0; 16][..], b"abcdefgh"].concat());
        for other in ["wal/2/3", "data/00000002/0000000000000003", "wal/00000002/000000000000000G"] {
            assert_eq!(WalId::parse(other), None, "{other}");
        }
    }
}
