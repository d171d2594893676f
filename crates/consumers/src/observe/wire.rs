//! Protocol Buffers, as far as OTLP is written and its answers are read.
//!
//! Called by [`otlp`](super::otlp). Written by hand: it is little, and generated types of all of OTLP take longer to build than the rest of
//! this crate. Nothing is left out of a message but fields that are empty or zero, as the format wants it.

/// A message as its bytes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Message(Vec<u8>);

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

impl Message {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn key(&mut self, field: u32, form: u64) {
        self.varint(u64::from(field) << 3 | form);
    }

    /// A whole number.
    pub(super) fn number(mut self, field: u32, value: u64) -> Self {
        if value != 0 {
            self.key(field, VARINT);
            self.varint(value);
        }
        self
    }

    /// The same, also where it is zero: one of several forms that a value may have.
    pub(super) fn number_always(mut self, field: u32, value: u64) -> Self {
        self.key(field, VARINT);
        self.varint(value);
        self
    }

    /// A number of eight bytes, also where it is zero.
    pub(super) fn fixed64(mut self, field: u32, value: u64) -> Self {
        self.key(field, FIXED64);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// A number with a fraction.
    pub(super) fn double(self, field: u32, value: f64) -> Self {
        self.fixed64(field, value.to_bits())
    }

    /// Many numbers of eight bytes in one field.
    pub(super) fn packed(mut self, field: u32, values: impl ExactSizeIterator<Item = u64>) -> Self {
        self.key(field, BYTES);
        self.varint(values.len() as u64 * 8);
        values.for_each(|value| self.0.extend(value.to_le_bytes()));
        self
    }

    /// Bytes, also where there are none.
    pub(super) fn bytes(mut self, field: u32, bytes: &[u8]) -> Self {
        self.key(field, BYTES);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
        self
    }

    /// A text.
    pub(super) fn text(self, field: u32, text: &str) -> Self {
        if text.is_empty() { self } else { self.bytes(field, text.as_bytes()) }
    }

    /// A message within.
    pub(super) fn within(self, field: u32, message: &Self) -> Self {
        self.bytes(field, &message.0)
    }

    /// One message within for each.
    pub(super) fn each<T>(self, field: u32, all: impl IntoIterator<Item = T>, of: impl Fn(T) -> Self) -> Self {
        all.into_iter().fold(self, |message, one| message.within(field, &of(one)))
    }

    /// How many bytes it has.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The bytes.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// A field of a message that is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Read<'m> {
    /// A whole number, of whatever form.
    Number(u64),
    /// Bytes, a text or a message.
    Bytes(&'m [u8]),
}

/// The fields of a message, up to where it is none.
pub(super) fn fields(mut rest: &[u8]) -> impl Iterator<Item = (u32, Read<'_>)> {
    std::iter::from_fn(move || {
        let key = varint(&mut rest)?;
        let read = match key & 7 {
            VARINT => Read::Number(varint(&mut rest)?),
            FIXED64 => Read::Number(u64::from_le_bytes(taken(&mut rest, 8)?.try_into().ok()?)),
            FIXED32 => Read::Number(u32::from_le_bytes(taken(&mut rest, 4)?.try_into().ok()?).into()),
            BYTES => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                Read::Bytes(taken(&mut rest, length)?)
            }
            _ => return None,
        };
        Some((u32::try_from(key >> 3).ok()?, read))
    })
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = taken(rest, 1)?[0];
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn taken<'m>(rest: &mut &'m [u8], length: usize) -> Option<&'m [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_texts_are_written_as_the_format_says() {
        // The two examples of the encoding's documentation.
        assert_eq!(Message::default().number(1, 150).into_bytes(), [0x08, 0x96, 0x01]);
        assert_eq!(Message::default().text(2, "testing").into_bytes(), b"\x12\x07testing");
        assert!(Message::default().number(1, 0).text(2, "").into_bytes().is_empty());
        let packed = Message::default().packed(4, [1, 2].into_iter()).into_bytes();
        assert_eq!(packed, [0x22, 16, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn what_was_written_is_read_and_what_is_cut_is_not() {
        let within = Message::default().number_always(1, u64::MAX);
        let bytes = Message::default().fixed64(9, 7).within(300, &within).into_bytes();
        let read: Vec<_> = fields(&bytes).collect();
        assert_eq!(read[0], (9, Read::Number(7)));
        let (300, Read::Bytes(inner)) = read[1] else { panic!("{read:?}") };
        assert_eq!(fields(inner).collect::<Vec<_>>(), [(1, Read::Number(u64::MAX))]);
        for end in 0..bytes.len() {
            assert!(fields(&bytes[..end]).count() < 2);
        }
        assert_eq!(fields(&[0xff; 40]).count(), 0);
    }
}
