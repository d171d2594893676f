//! Fields of Kafka's records as bytes, for those whose layout is Kafka's own. Used by the records of groups, transactions and share groups.
//!
//! Reading trusts nothing: what is not there is `None`.

use bytes::{BufMut, BytesMut};

/// Appends a length as flexible versions write it.
pub(crate) fn put_varint(out: &mut BytesMut, value: usize) {
    let mut left = value;
    while left >= 0x80 {
        out.put_u8((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    out.put_u8(left as u8);
}

/// Appends a text as older versions write it.
pub(crate) fn put_string(out: &mut BytesMut, text: &str) {
    out.put_i16(i16::try_from(text.len()).expect("strings of the Kafka protocol are at most 32767 bytes long"));
    out.extend_from_slice(text.as_bytes());
}

/// What is left of some bytes.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    pub(crate) fn i8(&mut self) -> Option<i8> {
        self.take().map(i8::from_be_bytes)
    }

    pub(crate) fn i16(&mut self) -> Option<i16> {
        self.take().map(i16::from_be_bytes)
    }

    pub(crate) fn i32(&mut self) -> Option<i32> {
        self.take().map(i32::from_be_bytes)
    }

    pub(crate) fn i64(&mut self) -> Option<i64> {
        self.take().map(i64::from_be_bytes)
    }

    pub(crate) fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(length)?;
        self.0 = tail;
        Some(head)
    }

    pub(crate) fn varint(&mut self) -> Option<usize> {
        let mut value = 0;
        for at in 0..5 {
            let byte = self.take::<1>()?[0];
            value |= usize::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// A text, or that there is none, as older versions write it.
    pub(crate) fn nullable(&mut self) -> Option<Option<String>> {
        let length = self.i16()?;
        if length == -1 {
            return Some(None);
        }
        let text = self.slice(usize::try_from(length).ok()?)?;
        String::from_utf8(text.to_vec()).ok().map(Some)
    }

    pub(crate) fn string(&mut self) -> Option<String> {
        self.nullable()?
    }

    pub(crate) fn blob(&mut self) -> Option<&'a [u8]> {
        let length = self.i32()?;
        self.slice(usize::try_from(length).ok()?)
    }
}
