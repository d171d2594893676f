//! Walks a request's body by its shape and counts, before it is decoded. Called by the server for every request.
//!
//! The codec reserves memory for an array from the count that the peer sends, so a request of fifty bytes could ask for
//! hundreds of gigabytes. After this walk every count is known to be backed by bytes, and the sum of all is bounded.

use bytes::Bytes;
use kafka_protocol::messages::ApiKey;

use super::shapes;

/// The longest text of Kafka's protocol; flexible versions could carry more, answers of older ones could not.
const TEXT_BYTES_MAX: usize = i16::MAX as usize;

/// What a field looks like on the wire.
#[derive(Debug)]
pub(super) enum Shape {
    /// So many bytes.
    Fixed(usize),
    /// A string, or null.
    Text,
    /// Bytes, or null.
    Blob,
    /// An array of one shape, or null.
    List(&'static Shape),
    /// An array of structures, or null.
    Each(&'static [Field]),
    /// A structure.
    Structure(&'static [Field]),
    /// A structure behind a byte that says whether it is there.
    Maybe(&'static [Field]),
}

/// A field: first and last version that has it, and its shape.
#[derive(Debug)]
pub(super) struct Field(pub(super) i16, pub(super) i16, pub(super) Shape);

/// Why a body is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ShapeError {
    #[error("request is cut short, or promises more than it holds")]
    Short,
    #[error("request has more than {most} array elements")]
    Elements { most: usize },
    #[error("request has a text of {bytes} bytes, Kafka allows {TEXT_BYTES_MAX}")]
    Text { bytes: usize },
    #[error("request has no known shape")]
    Unknown,
}

/// Checks `body` (behind the header) of a request, and counts its array elements.
pub(crate) fn check(key: ApiKey, version: i16, body: &[u8], elements_max: usize) -> Result<usize, ShapeError> {
    walked(key, version, body, elements_max).map(|(elements, _)| elements)
}

/// The same, and how many bytes are left behind it.
pub(super) fn walked(
    key: ApiKey,
    version: i16,
    body: &[u8],
    elements_max: usize,
) -> Result<(usize, usize), ShapeError> {
    let fields = shapes::of(key).ok_or(ShapeError::Unknown)?;
    let flexible = key.request_header_version(version) >= 2;
    let mut walk = Walk { rest: body, version, flexible, left: elements_max, most: elements_max, copy: None };
    walk.structure(fields)?;
    // Bytes that are left are nobody's. librdkafka 2.12 leaves three behind when it asks Metadata 9 and newer for all topics, and one
    // when it sets a SCRAM password, kafka-go one behind each filter of access rules; Kafka's brokers ignore what is left of any
    // request, and so it must be here.
    Ok((elements_max - walk.left, walk.rest.len()))
}

/// Writes a body that has one version as another, of which both are flexible. What only the first has comes out in `dropped`, what
/// only the other has is taken from `added`, where nothing is left there it is empty.
pub(super) fn rewrite(
    fields: &[Field],
    (from, to): (i16, i16),
    body: &[u8],
    added: &[u8],
) -> Result<Rewritten, ShapeError> {
    let copy = Rewritten { to, added: added.to_vec().into(), ..Rewritten::default() };
    let (left, most) = (usize::MAX, usize::MAX);
    let mut walk = Walk { rest: body, version: from, flexible: true, left, most, copy: Some(copy) };
    walk.structure(fields)?;
    Ok(walk.copy.expect("it was put there"))
}

/// A body on its way from one version to another.
#[derive(Debug, Default)]
pub(super) struct Rewritten {
    to: i16,
    added: Bytes,
    /// Whether what is read now goes nowhere but into `dropped`.
    is_dropping: bool,
    pub(super) body: Vec<u8>,
    pub(super) dropped: Vec<u8>,
}

impl Rewritten {
    fn take(&mut self, bytes: &[u8]) {
        if self.is_dropping { &mut self.dropped } else { &mut self.body }.extend_from_slice(bytes);
    }

    /// Writes what is only in the version that is made.
    fn add(&mut self, shape: &Shape) -> Result<(), ShapeError> {
        if self.added.is_empty() {
            match shape {
                Shape::Fixed(bytes) => self.body.resize(self.body.len() + bytes, 0),
                // A length of one more than none.
                Shape::Text | Shape::Blob | Shape::List(_) | Shape::Each(_) => self.body.push(1),
                Shape::Maybe(_) => self.body.push(0xff),
                // Its fields come one by one.
                Shape::Structure(fields) => {
                    for Field(_, _, shape) in *fields {
                        self.add(shape)?;
                    }
                    self.body.push(0);
                }
            }
            return Ok(());
        }
        let (left, most) = (usize::MAX, usize::MAX);
        let copy = Some(Self { to: self.to, ..Self::default() });
        let mut walk = Walk { rest: &self.added, version: self.to, flexible: true, left, most, copy };
        walk.shape(shape)?;
        let (rest, made) = (walk.rest.len(), walk.copy.expect("it was put there").body);
        self.body.extend_from_slice(&made);
        drop(self.added.split_to(self.added.len() - rest));
        Ok(())
    }
}

struct Walk<'a> {
    rest: &'a [u8],
    version: i16,
    flexible: bool,
    left: usize,
    most: usize,
    /// Where what is read is written as another version.
    copy: Option<Rewritten>,
}

impl Walk<'_> {
    fn structure(&mut self, fields: &[Field]) -> Result<(), ShapeError> {
        for Field(first, last, shape) in fields {
            let is_here = (*first..=*last).contains(&self.version);
            let is_there = self.copy.as_ref().map(|copy| (*first..=*last).contains(&copy.to));
            match (is_here, is_there, &mut self.copy) {
                (true, Some(false), Some(copy)) if !copy.is_dropping => {
                    copy.is_dropping = true;
                    self.shape(shape)?;
                    self.copy.iter_mut().for_each(|copy| copy.is_dropping = false);
                }
                (false, Some(true), Some(copy)) if !copy.is_dropping => copy.add(shape)?,
                (true, ..) => self.shape(shape)?,
                (false, ..) => {}
            }
        }
        if self.flexible { self.tags() } else { Ok(()) }
    }

    fn shape(&mut self, shape: &Shape) -> Result<(), ShapeError> {
        match shape {
            Shape::Fixed(bytes) => self.skip(*bytes),
            Shape::Text => {
                let length = self.length(2)?;
                if length > TEXT_BYTES_MAX {
                    return Err(ShapeError::Text { bytes: length });
                }
                self.skip(length)
            }
            Shape::Blob => {
                let length = self.length(4)?;
                self.skip(length)
            }
            Shape::List(element) => {
                for _ in 0..self.count()? {
                    self.shape(element)?;
                }
                Ok(())
            }
            Shape::Structure(fields) => self.structure(fields),
            Shape::Maybe(fields) => {
                let there = self.byte()?;
                // Negative says that it is not.
                if there < 0x80 { self.structure(fields) } else { Ok(()) }
            }
            Shape::Each(fields) => {
                for _ in 0..self.count()? {
                    self.structure(fields)?;
                }
                Ok(())
            }
        }
    }

    fn count(&mut self) -> Result<usize, ShapeError> {
        let count = self.length(4)?;
        // Every element has at least one byte in every shape there is.
        if count > self.rest.len() {
            return Err(ShapeError::Short);
        }
        self.left = self.left.checked_sub(count).ok_or(ShapeError::Elements { most: self.most })?;
        Ok(count)
    }

    /// A length: a number of `bytes` bytes where -1 is null, or in flexible versions a varint of one more.
    fn length(&mut self, bytes: usize) -> Result<usize, ShapeError> {
        if self.flexible {
            return Ok((self.varint()? as usize).saturating_sub(1));
        }
        let head = self.take(bytes)?;
        let raw = head.iter().fold(0_i64, |sum, byte| sum << 8 | i64::from(*byte));
        let bits = 8 * bytes as u32;
        let value = if raw >> (bits - 1) == 1 { raw - (1_i64 << bits) } else { raw };
        match value {
            -1 => Ok(0),
            value => usize::try_from(value).map_err(|_| ShapeError::Short),
        }
    }

    fn varint(&mut self) -> Result<u32, ShapeError> {
        let mut value = 0_u64;
        for at in 0..5 {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| ShapeError::Short);
            }
        }
        Err(ShapeError::Short)
    }

    fn tags(&mut self) -> Result<(), ShapeError> {
        let count = self.varint()? as usize;
        if count > self.rest.len() {
            return Err(ShapeError::Short);
        }
        self.left = self.left.checked_sub(count).ok_or(ShapeError::Elements { most: self.most })?;
        for _ in 0..count {
            self.varint()?;
            let length = self.varint()? as usize;
            self.skip(length)?;
        }
        Ok(())
    }

    fn skip(&mut self, bytes: usize) -> Result<(), ShapeError> {
        self.take(bytes).map(|_| ())
    }

    fn byte(&mut self) -> Result<u8, ShapeError> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn take(&mut self, bytes: usize) -> Result<&[u8], ShapeError> {
        let (head, tail) = self.rest.split_at_checked(bytes).ok_or(ShapeError::Short)?;
        self.rest = tail;
        self.copy.iter_mut().for_each(|copy| copy.take(head));
        Ok(head)
    }
}
