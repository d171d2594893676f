//! Spool files that do not lie in the clear: their heads, and their frames. Called by `spool` and `history`.
//!
//! | bytes | an encrypted file, big-endian |
//! | --- | --- |
//! | 8 | `CRNSPE01` |
//! | 2 | length of the envelope |
//! | … | envelope: which key the file is encrypted under (`cairn-keys`) |
//! | 4 | CRC32C of all before it |
//! | … | frames as in the clear, but that each payload is encrypted, with nonce and tag (28 bytes) behind it |
//!
//! A payload is bound to the number of its file and its place in it. The checksum covers what is on the disk: a torn frame
//! is told from a whole one without the key, and whoever changes one and mends its checksum is found by the tag.

use bytes::{Buf, Bytes, BytesMut};
use cairn_clock::Entropy;
use cairn_keys::{AtRest, AtRestError, ENVELOPE_BYTES_MAX, FileSeal, TRAILER_BYTES};

use super::frame::{FRAME_HEADER_BYTES, Frame, PAYLOAD_BYTES_MAX, Parsed};

/// How a file in the clear begins; its frames follow.
pub(super) const MAGIC: &[u8; 8] = b"CRNSPL01";
const MAGIC_SEALED: &[u8; 8] = b"CRNSPE01";
/// The longest head.
pub(super) const HEAD_BYTES_MAX: usize = ENVELOPE_BYTES_MAX + 14;

/// A file's head.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) bytes: u64,
    pub(super) seal: Option<FileSeal>,
}

/// Why a head cannot be read.
#[derive(Debug)]
pub(super) enum HeadError {
    /// It is not whole, or changed.
    Bad,
    Key(AtRestError),
}

impl Head {
    /// The head of a new file, and its bytes.
    pub(super) fn new(at_rest: &AtRest) -> (Self, Vec<u8>) {
        let Some((seal, envelope)) = at_rest.new_file() else {
            return (Self { bytes: MAGIC.len() as u64, seal: None }, MAGIC.to_vec());
        };
        let mut out = MAGIC_SEALED.to_vec();
        out.extend_from_slice(&u16::try_from(envelope.len()).expect("an envelope is short").to_be_bytes());
        out.extend_from_slice(&envelope);
        out.extend_from_slice(&crc32c::crc32c(&out).to_be_bytes());
        (Self { bytes: out.len() as u64, seal: Some(seal) }, out)
    }

    /// The head of what a file begins with. May ask a service, and blocks.
    pub(super) fn read(bytes: &[u8], at_rest: &AtRest) -> Result<Self, HeadError> {
        if bytes.starts_with(MAGIC) {
            return Ok(Self { bytes: MAGIC.len() as u64, seal: None });
        }
        let envelope = bytes.strip_prefix(MAGIC_SEALED).and_then(<[u8]>::split_first_chunk).ok_or(HeadError::Bad)?;
        let length = usize::from(u16::from_be_bytes(*envelope.0));
        let (envelope, rest) = envelope.1.split_at_checked(length).ok_or(HeadError::Bad)?;
        let crc = rest.first_chunk().map(|crc| u32::from_be_bytes(*crc));
        if crc != Some(crc32c::crc32c(&bytes[..MAGIC.len() + 2 + length])) {
            return Err(HeadError::Bad);
        }
        let seal = at_rest.file(envelope).map_err(HeadError::Key)?;
        Ok(Self { bytes: (MAGIC.len() + 2 + length + 4) as u64, seal: Some(seal) })
    }

    /// A frame that was encoded in the clear, as it lies in this file: `number` is the file's, `at` its place in it.
    pub(super) fn put(&self, frame: &Bytes, number: u64, at: u64) -> Bytes {
        let Some(seal) = &self.seal else { return frame.clone() };
        let mut out = BytesMut::from(&frame[..]);
        let trailer = seal.seal(&Entropy::system(), &about(number, at), &mut out[FRAME_HEADER_BYTES..]);
        out.extend_from_slice(&trailer);
        let crc = crc32c::crc32c(&out[FRAME_HEADER_BYTES..]);
        let payload = u32::try_from(out.len() - FRAME_HEADER_BYTES).expect("a payload is bounded");
        out[0..4].copy_from_slice(&payload.to_be_bytes());
        out[4..8].copy_from_slice(&crc.to_be_bytes());
        out.freeze()
    }

    /// How long a frame is once [`put`](Self::put) has made it.
    pub(super) fn length_of(&self, frame: &Bytes) -> u64 {
        let more = if self.seal.is_some() { TRAILER_BYTES } else { 0 };
        (frame.len() + more) as u64
    }

    /// The frame at the start of `bytes`.
    pub(super) fn parse(&self, bytes: &[u8], number: u64, at: u64) -> Parsed {
        let Some(seal) = &self.seal else { return Frame::parse(bytes) };
        let Some(mut header) = bytes.get(..FRAME_HEADER_BYTES) else { return Parsed::Short };
        let (payload, crc) = (header.get_u32() as usize, header.get_u32());
        if payload <= TRAILER_BYTES || payload > PAYLOAD_BYTES_MAX + TRAILER_BYTES {
            return Parsed::Bad;
        }
        let end = FRAME_HEADER_BYTES + payload;
        let Some(sealed) = bytes.get(FRAME_HEADER_BYTES..end) else { return Parsed::Short };
        if crc32c::crc32c(sealed) != crc {
            return Parsed::Bad;
        }
        let (text, trailer) = sealed.split_at(payload - TRAILER_BYTES);
        let opened = seal.open(&about(number, at), text, trailer);
        let frame = opened.and_then(|payload| Frame::decode(&mut Bytes::from(payload)));
        // Its checksum is right, so it was not torn.
        frame.map_or(Parsed::Changed, |frame| Parsed::Frame(frame, end))
    }
}

fn about(number: u64, at: u64) -> [u8; 16] {
    let mut about = [0; 16];
    about[..8].copy_from_slice(&number.to_be_bytes());
    about[8..].copy_from_slice(&at.to_be_bytes());
    about
}
