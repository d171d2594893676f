//! What a leaf of the tree commits to, byte for byte: where a record lies and what it holds, never a payload.
//!
//! `contracts/evidence.md` has the same layout with test vectors; a test holds this file to them, and `cairn-verify` is held
//! to them by its own. The layout can never change: another one would have another domain.
//!
//! | part | bytes |
//! | --- | --- |
//! | log | 32: SHA-256 over the 18 bytes `cairn.evidence.v1` and LF, then the log's origin in UTF-8 |
//! | offset | 8, unsigned, big-endian |
//! | timestamp | 8, signed, big-endian, milliseconds since 1970 |
//! | presence | 1: bit 0 the record has a key, bit 1 it has a value |
//! | key | 32: SHA-256 over the key's bytes |
//! | content | 32: the record's link, as `contracts/chain.md` says: over key, value and headers |

use cairn_backbone::records::RawRecord;
use cairn_contract::link_parts;

use crate::tree::{Hash, leaf_hash, sha256};

/// Bytes of an entry.
pub const ENTRY_BYTES: usize = 113;
const DOMAIN: &[u8] = b"cairn.evidence.v1\n";

/// What stands for a log in each of its leaves.
#[must_use]
pub fn log_hash(origin: &str) -> Hash {
    sha256(&[DOMAIN, origin.as_bytes()].concat())
}

/// A record as its leaf commits to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Commitment {
    /// Where the record lies.
    pub offset: u64,
    /// Its timestamp, in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Bit 0: it has a key; bit 1: it has a value.
    pub presence: u8,
    /// SHA-256 of its key.
    pub key: Hash,
    /// Its link.
    pub content: Hash,
}

impl Commitment {
    /// The commitment to a record.
    #[must_use]
    pub fn of(record: &RawRecord) -> Self {
        let key = record.key.as_deref().unwrap_or_default();
        let value = record.value.as_deref().unwrap_or_default();
        let headers = record.headers.iter().map(|(name, value)| (name.as_str(), value.as_ref()));
        Self {
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            presence: u8::from(record.key.is_some()) | u8::from(record.value.is_some()) << 1,
            key: sha256(key),
            content: link_parts(key, value, headers),
        }
    }

    /// The entry of the leaf in the log that `log` stands for.
    #[must_use]
    pub fn entry(&self, log: &Hash) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..32].copy_from_slice(log);
        bytes[32..40].copy_from_slice(&self.offset.to_be_bytes());
        bytes[40..48].copy_from_slice(&self.timestamp_ms.to_be_bytes());
        bytes[48] = self.presence;
        bytes[49..81].copy_from_slice(&self.key);
        bytes[81..].copy_from_slice(&self.content);
        bytes
    }

    /// The leaf's hash in the log that `log` stands for.
    #[must_use]
    pub fn leaf(&self, log: &Hash) -> Hash {
        leaf_hash(&self.entry(log))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const PAGE: &str = include_str!("../../../contracts/evidence.md");

    #[test]
    fn leaves_are_those_of_the_published_vectors() {
        let mut seen = 0;
        for block in PAGE.split("```vector\n").skip(1) {
            let block = block.split("```").next().expect("split gives one at least");
            let mut record = RawRecord {
                topic: "mcp.calls".to_owned(),
                partition: 0,
                offset: 0,
                timestamp_ms: 0,
                key: None,
                headers: vec![],
                value: None,
            };
            let (mut origin, mut entry, mut leaf) = ("", "", "");
            for line in block.lines() {
                let (name, rest) = line.split_once(':').expect("a name and a value");
                let rest = rest.trim();
                let bytes = |text: &str| Bytes::from(hex::decode(text).expect("hexadecimal"));
                match name {
                    "origin" => origin = rest,
                    "offset" => record.offset = rest.parse().expect("a number"),
                    "timestamp" => record.timestamp_ms = rest.parse().expect("a number"),
                    "key" => record.key = Some(bytes(rest)),
                    "value" => record.value = Some(bytes(rest)),
                    "header" => {
                        let (name, value) = rest.split_once(' ').unwrap_or((rest, ""));
                        record.headers.push((name.to_owned(), bytes(value)));
                    }
                    "entry" => entry = rest,
                    "leaf" => leaf = rest,
                    other => panic!("the page knows no {other}"),
                }
            }
            let (log, commitment) = (log_hash(origin), Commitment::of(&record));
            assert_eq!(hex::encode(commitment.entry(&log)), entry);
            assert_eq!(hex::encode(commitment.leaf(&log)), leaf);
            seen += 1;
        }
        assert!(seen >= 3, "the page has vectors");
    }

    #[test]
    fn each_part_changes_the_leaf() {
        let base = Commitment { offset: 1, timestamp_ms: 2, presence: 3, key: [4; 32], content: [5; 32] };
        let log = log_hash("a");
        let others = [
            Commitment { offset: 2, ..base },
            Commitment { timestamp_ms: -2, ..base },
            Commitment { presence: 2, ..base },
            Commitment { key: [5; 32], ..base },
            Commitment { content: [4; 32], ..base },
        ];
        assert!(others.iter().all(|other| other.leaf(&log) != base.leaf(&log)));
        assert_ne!(base.leaf(&log_hash("b")), base.leaf(&log));
    }
}
