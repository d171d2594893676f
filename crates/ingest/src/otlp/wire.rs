//! Protocol Buffers on the wire: one message's fields, one after the other.
//!
//! Called by [`protobuf`](super::protobuf). Reads what it is given and copies nothing, so that a hostile body costs no memory before it is
//! counted. Source: protobuf.dev, Encoding. Groups, which no message of OTLP has, are malformed.

/// A field's value.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Field<'b> {
    /// Whole numbers and booleans.
    Varint(u64),
    /// Eight bytes, little endian.
    Fixed64(u64),
    /// Texts, bytes and messages.
    Bytes(&'b [u8]),
    /// Four bytes, little endian.
    Fixed32(u32),
}

/// What is no message of Protocol Buffers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("it is no message of Protocol Buffers")]
pub(super) struct Unreadable;

/// A message's fields, with their numbers, in the order in which they stand.
#[derive(Clone, Debug)]
pub(super) struct Fields<'b> {
    rest: &'b [u8],
}

impl<'b> Fields<'b> {
    pub(super) const fn of(message: &'b [u8]) -> Self {
        Self { rest: message }
    }

    fn varint(&mut self) -> Result<u64, Unreadable> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or(Unreadable)?;
            self.rest = rest;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if shift == 63 && bits > 1 {
                return Err(Unreadable);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Unreadable)
    }

    fn take(&mut self, count: usize) -> Result<&'b [u8], Unreadable> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Unreadable)?;
        self.rest = rest;
        Ok(taken)
    }

    fn field(&mut self) -> Result<(u32, Field<'b>), Unreadable> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).ok().filter(|number| *number > 0).ok_or(Unreadable)?;
        let field = match key & 7 {
            0 => Field::Varint(self.varint()?),
            1 => Field::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().map_err(|_| Unreadable)?)),
            2 => {
                let count = usize::try_from(self.varint()?).map_err(|_| Unreadable)?;
                Field::Bytes(self.take(count)?)
            }
            5 => Field::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().map_err(|_| Unreadable)?)),
            _ => return Err(Unreadable),
        };
        Ok((number, field))
    }
}

impl<'b> Iterator for Fields<'b> {
    type Item = Result<(u32, Field<'b>), Unreadable>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// Appends a field of bytes.
pub(crate) fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a whole number.
pub(crate) fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number) << 3);
    put_varint(out, value);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_are_read_as_they_were_written() {
        let mut message = Vec::new();
        put_number(&mut message, 1, 300);
        put_bytes(&mut message, 16, b"text");
        message.extend([0x19, 1, 0, 0, 0, 0, 0, 0, 0, 0x25, 2, 0, 0, 0]);
        let read: Vec<_> = Fields::of(&message).collect::<Result<_, _>>().expect("it was written so");
        assert_eq!(
            read,
            [(1, Field::Varint(300)), (16, Field::Bytes(b"text")), (3, Field::Fixed64(1)), (4, Field::Fixed32(2))]
        );
    }

    #[test]
    fn what_ends_early_or_has_no_end_is_unreadable() {
        for bad in [
            &[0x0a, 5, 1][..],
            &[0x08],
            &[0x09, 1, 2, 3],
            &[0x0b],
            &[0x00, 1],
            &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
        ] {
            assert!(Fields::of(bad).any(|field| field.is_err()), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            prop_assert!(Fields::of(&bytes).count() <= bytes.len());
        }

        #[test]
        fn numbers_come_back(value in any::<u64>()) {
            let mut message = Vec::new();
            put_number(&mut message, 7, value);
            prop_assert_eq!(Fields::of(&message).next(), Some(Ok((7, Field::Varint(value)))));
        }
    }
}
