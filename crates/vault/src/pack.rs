//! One object in a pack, byte for byte.
//!
//! | bytes | what |
//! | --- | --- |
//! | 4 | length of what follows the checksum, little-endian |
//! | 4 | CRC-32C of it, little-endian |
//! | 8 | the subject's id |
//! | 8 | the period of the data key, little-endian |
//! | 8 | when it was put, microseconds since 1970, little-endian |
//! | 32 | the digest, HMAC-SHA-256 under the subject's digest key |
//! | the rest | the payload, sealed under the data key, bound to the four fields before it |

use std::io::{self, Read};

/// Bytes before the checked part.
const LEAD_BYTES: usize = 8;
/// Bytes of the checked part before the sealed payload.
const HEAD_BYTES: usize = 8 + 8 + 8 + 32;
/// Longest frame that is read; a longer one is damage.
const FRAME_BYTES_MAX: usize = 256 << 20;

/// What stands before a payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Head {
    pub(crate) subject: [u8; 8],
    pub(crate) period: u64,
    pub(crate) put_us: u64,
    pub(crate) digest: [u8; 32],
}

impl Head {
    pub(crate) fn bytes(&self) -> [u8; HEAD_BYTES] {
        let mut out = [0; HEAD_BYTES];
        out[..8].copy_from_slice(&self.subject);
        out[8..16].copy_from_slice(&self.period.to_le_bytes());
        out[16..24].copy_from_slice(&self.put_us.to_le_bytes());
        out[24..].copy_from_slice(&self.digest);
        out
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            subject: bytes.get(..8)?.try_into().ok()?,
            period: u64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?),
            put_us: u64::from_le_bytes(bytes.get(16..24)?.try_into().ok()?),
            digest: bytes.get(24..HEAD_BYTES)?.try_into().ok()?,
        })
    }
}

/// A frame's bytes.
pub(crate) fn frame(head: &Head, sealed: &[u8]) -> Vec<u8> {
    let len = HEAD_BYTES + sealed.len();
    let mut out = Vec::with_capacity(LEAD_BYTES + len);
    out.extend_from_slice(&u32::try_from(len).expect("a payload is below 4 GiB").to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&head.bytes());
    out.extend_from_slice(sealed);
    let crc = crc32c::crc32c(&out[LEAD_BYTES..]);
    out[4..8].copy_from_slice(&crc.to_le_bytes());
    out
}

/// What stands at one place of a pack.
#[derive(Debug)]
pub(crate) enum Next {
    /// A frame, all its bytes.
    Frame(Head, Vec<u8>),
    /// Nothing more.
    End,
    /// Bytes that are no frame: a write that a crash cut off, or damage.
    Broken,
}

/// Reads the next frame.
pub(crate) fn next(from: &mut impl Read) -> io::Result<Next> {
    let mut lead = [0; LEAD_BYTES];
    match read_whole(from, &mut lead)? {
        0 => return Ok(Next::End),
        LEAD_BYTES => {}
        _ => return Ok(Next::Broken),
    }
    let len = u32::from_le_bytes(lead[..4].try_into().expect("four bytes")) as usize;
    if !(HEAD_BYTES..=FRAME_BYTES_MAX).contains(&len) {
        return Ok(Next::Broken);
    }
    let mut bytes = Vec::new();
    from.take(len as u64).read_to_end(&mut bytes)?;
    let crc = u32::from_le_bytes(lead[4..].try_into().expect("four bytes"));
    if bytes.len() < len || crc32c::crc32c(&bytes) != crc {
        return Ok(Next::Broken);
    }
    let head = Head::read(&bytes).expect("the length was checked");
    let mut whole = lead.to_vec();
    whole.append(&mut bytes);
    Ok(Next::Frame(head, whole))
}

/// The sealed payload of a frame.
pub(crate) fn sealed(frame: &[u8]) -> &[u8] {
    &frame[LEAD_BYTES + HEAD_BYTES..]
}

fn read_whole(from: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < into.len() {
        match from.read(&mut into[done..]) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head() -> Head {
        Head { subject: [1; 8], period: 2, put_us: 3, digest: [4; 32] }
    }

    #[test]
    fn a_frame_is_this_byte_for_byte() {
        let golden = "3b0000001e0f3e6d0101010101010101020000000000000003000000000000000404040404040404040404040404040404040404040404040404040404040404616263";
        let mut bytes = frame(&head(), b"abc");
        assert_eq!(hex::encode(&bytes).len(), golden.len());
        bytes[4..8].fill(0);
        assert_eq!(hex::encode(&bytes[..4]), "3b000000");
        assert_eq!(hex::encode(&bytes[8..]), golden[16..]);
    }

    proptest! {
        #[test]
        fn frames_come_back_as_they_were(sealed_text in prop::collection::vec(any::<u8>(), 0..200), cut in 0_usize..300) {
            let bytes = frame(&head(), &sealed_text);
            let twice = [bytes.clone(), bytes.clone()].concat();
            let mut from = &twice[..];
            for _ in 0..2 {
                let Next::Frame(read, whole) = next(&mut from).unwrap() else { panic!("no frame") };
                prop_assert_eq!(read, head());
                prop_assert_eq!(sealed(&whole), &sealed_text[..]);
            }
            prop_assert!(matches!(next(&mut from).unwrap(), Next::End));
            if cut < bytes.len() && cut > 0 {
                prop_assert!(matches!(next(&mut &bytes[..cut]).unwrap(), Next::Broken));
                let mut bad = bytes.clone();
                bad[cut] ^= 1;
                prop_assert!(!matches!(next(&mut &bad[..]).unwrap(), Next::Frame(..)));
            }
        }
    }
}
