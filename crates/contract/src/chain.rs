//! The producer chain: what `producer.previous` is computed over, byte for byte.
//!
//! The recorder computes it for each event that it writes, readers and `cairn verify` for each that they check.
//! `contracts/chain.md` holds the same layout with test vectors; a test holds this file to them. The layout can never
//! change: another one would be another `domain`.
//!
//! | part | bytes |
//! | --- | --- |
//! | domain | the 15 bytes `cairn.chain.v1` and LF |
//! | key | length as `u64` big-endian, then the bytes |
//! | value | length as `u64` big-endian, then the bytes |
//! | header count | `u64` big-endian |
//! | each header, in the record's order | name as length (`u64` big-endian) and bytes, then value likewise |
//!
//! The link is the SHA-256 of all that. Topic, partition, offset and timestamp are not part of it: they are the
//! backbone's, and an event keeps its link when it is copied.

use sha2::{Digest, Sha256};

use crate::EventRecord;

/// The SHA-256 that stands for a record in the chain.
pub type Link = [u8; 32];

const DOMAIN: &[u8] = b"cairn.chain.v1\n";

/// The link of a record.
#[must_use]
pub fn link(record: &EventRecord) -> Link {
    link_parts(&record.key, &record.value, record.headers.iter().map(|(name, value)| (name.as_str(), value.as_ref())))
}

/// The link of a record that is given in parts, as a reader of any Kafka client has it.
pub fn link_parts<'a, H>(key: &[u8], value: &[u8], headers: H) -> Link
where
    H: IntoIterator<Item = (&'a str, &'a [u8])>,
    H::IntoIter: ExactSizeIterator,
{
    let headers = headers.into_iter();
    let mut hash = Sha256::new();
    let part = |bytes: &[u8], hash: &mut Sha256| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    hash.update(DOMAIN);
    part(key, &mut hash);
    part(value, &mut hash);
    hash.update((headers.len() as u64).to_be_bytes());
    for (name, value) in headers {
        part(name.as_bytes(), &mut hash);
        part(value, &mut hash);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests;
