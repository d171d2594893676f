//! Reading little-endian fields out of bytes that may be anything. Used by `object` and `index`.
//! Every read is checked against what is there; nothing panics, nothing is allocated for a count that cannot be true.

use bytes::Buf;
use uuid::Uuid;

use crate::{Offset, PartitionIndex, StreamId};

/// What is left to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, left) = self.0.split_at_checked(bytes)?;
        self.0 = left;
        Some(taken)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    /// A byte that is 0 or 1.
    pub(crate) fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take(4).map(|mut bytes| bytes.get_u32_le())
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.take(8).map(|mut bytes| bytes.get_u64_le())
    }

    pub(crate) fn i16(&mut self) -> Option<i16> {
        self.take(2).map(|mut bytes| bytes.get_i16_le())
    }

    pub(crate) fn i32(&mut self) -> Option<i32> {
        self.take(4).map(|mut bytes| bytes.get_i32_le())
    }

    pub(crate) fn i64(&mut self) -> Option<i64> {
        self.take(8).map(|mut bytes| bytes.get_i64_le())
    }

    pub(crate) fn offset(&mut self) -> Option<Offset> {
        self.u64().filter(|value| i64::try_from(*value).is_ok()).map(Offset::new)
    }

    pub(crate) fn uuid(&mut self) -> Option<Uuid> {
        Uuid::from_slice(self.take(16)?).ok()
    }

    pub(crate) fn stream(&mut self) -> Option<StreamId> {
        Some(StreamId::new(self.uuid()?, PartitionIndex::new(self.u32()?)))
    }

    /// A count of things that take at least `least` bytes each.
    pub(crate) fn count(&mut self, least: usize) -> Option<usize> {
        let count = usize::try_from(self.u32()?).ok()?;
        (count.checked_mul(least)? <= self.0.len()).then_some(count)
    }
}
