//! A record as it was read, its link in the producer chain, and its leaf in the tree.
//!
//! Written from `contracts/chain.md` and `contracts/evidence.md`, whose test vectors the tests here read. Must never depend on
//! the code that writes the trail.

use ring::digest::{SHA256, digest};

/// A SHA-256 hash.
pub type Hash = [u8; 32];

const LINK_DOMAIN: &[u8] = b"cairn.chain.v1\n";
const LOG_DOMAIN: &[u8] = b"cairn.evidence.v1\n";

/// SHA-256 of some bytes.
#[must_use]
pub(crate) fn sha256(bytes: &[u8]) -> Hash {
    digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// A record of one partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'r> {
    /// Its offset.
    pub offset: u64,
    /// Its timestamp, in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Its key, where it has one.
    pub key: Option<&'r [u8]>,
    /// Its headers, in order.
    pub headers: &'r [(&'r str, &'r [u8])],
    /// Its value, where it has one.
    pub value: Option<&'r [u8]>,
}

/// What a leaf commits to besides its log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Commitment {
    /// The record's offset.
    pub offset: u64,
    /// Its timestamp, in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Bit 0: it has a key; bit 1: it has a value.
    pub presence: u8,
    /// SHA-256 of its key.
    pub key: Hash,
    /// Its link.
    pub link: Hash,
}

impl Commitment {
    /// The commitment to a record; `scratch` is memory to work in.
    #[must_use]
    pub fn of(record: &Record<'_>, scratch: &mut Vec<u8>) -> Self {
        let presence = u8::from(record.key.is_some()) + 2 * u8::from(record.value.is_some());
        let (offset, timestamp_ms) = (record.offset, record.timestamp_ms);
        let key = sha256(record.key.unwrap_or_default());
        Self { offset, timestamp_ms, presence, key, link: link(record, scratch) }
    }

    /// Reads an entry of a log back; nothing where it is none of that log.
    #[must_use]
    pub(crate) fn of_entry(entry: &[u8], log: &Hash) -> Option<Self> {
        let (head, tail) = entry.split_at_checked(49)?;
        let (own, place) = head.split_first_chunk::<32>()?;
        let (key, link) = tail.split_first_chunk::<32>()?;
        Some(Self {
            offset: u64::from_be_bytes(place[..8].try_into().ok()?),
            timestamp_ms: i64::from_be_bytes(place[8..16].try_into().ok()?),
            presence: place[16],
            key: *key,
            link: link.try_into().ok()?,
        })
        .filter(|_| own == log)
    }

    /// The leaf's hash in the log that `log` stands for.
    #[must_use]
    pub fn leaf(&self, log: &Hash) -> Hash {
        sha256(&self.leaf_bytes(log))
    }

    /// What the leaf's hash is over.
    pub(crate) fn leaf_bytes(&self, log: &Hash) -> [u8; 114] {
        let mut bytes = [0_u8; 114];
        let (head, tail) = bytes[1..].split_at_mut(49);
        head[..32].copy_from_slice(log);
        head[32..40].copy_from_slice(&self.offset.to_be_bytes());
        head[40..48].copy_from_slice(&self.timestamp_ms.to_be_bytes());
        head[48] = self.presence;
        tail[..32].copy_from_slice(&self.key);
        tail[32..].copy_from_slice(&self.link);
        bytes
    }
}

/// What stands for a log in its leaves.
#[must_use]
pub fn log_hash(origin: &str) -> Hash {
    let mut bytes = LOG_DOMAIN.to_vec();
    bytes.extend_from_slice(origin.as_bytes());
    sha256(&bytes)
}

/// The link of a record in its producer's chain.
#[must_use]
pub fn link(record: &Record<'_>, scratch: &mut Vec<u8>) -> Hash {
    scratch.clear();
    linked(record, |part| scratch.extend_from_slice(part));
    sha256(scratch)
}

/// What the link of a record is the hash of, part by part.
pub(crate) fn linked(record: &Record<'_>, mut put: impl FnMut(&[u8])) {
    fn sized(bytes: &[u8], put: &mut impl FnMut(&[u8])) {
        put(&(bytes.len() as u64).to_be_bytes());
        put(bytes);
    }
    put(LINK_DOMAIN);
    sized(record.key.unwrap_or_default(), &mut put);
    sized(record.value.unwrap_or_default(), &mut put);
    put(&(record.headers.len() as u64).to_be_bytes());
    for (name, value) in record.headers {
        sized(name.as_bytes(), &mut put);
        sized(value, &mut put);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Vec<u8> {
        (0..text.len() / 2).map(|n| u8::from_str_radix(&text[2 * n..2 * n + 2], 16).expect("hexadecimal")).collect()
    }

    /// Every vector of a page: its lines as names and values.
    fn vectors(page: &str) -> Vec<Vec<(&str, &str)>> {
        let blocks = page.split("```vector\n").skip(1).map(|block| block.split("```").next().expect("one at least"));
        blocks.map(|block| block.lines().map(|line| line.split_once(':').expect("a name")).collect()).collect()
    }

    #[test]
    fn links_and_leaves_are_those_of_the_published_vectors() {
        let pages = [include_str!("../../../contracts/chain.md"), include_str!("../../../contracts/evidence.md")];
        let (mut links, mut leaves) = (0, 0);
        for lines in pages.iter().flat_map(|page| vectors(page)) {
            let get = |wanted: &str| lines.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.trim());
            let (key, value) = (get("key").map(bytes), get("value").map(bytes));
            let headers = lines.iter().filter(|(name, _)| *name == "header").map(|(_, rest)| {
                let (name, value) = rest.trim().split_once(' ').unwrap_or((rest.trim(), ""));
                (name, bytes(value))
            });
            let headers: Vec<_> = headers.collect();
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_slice())).collect();
            let number = |name| get(name).map_or(0, |text| text.parse::<i64>().expect("a number"));
            let record = Record {
                offset: number("offset") as u64,
                timestamp_ms: number("timestamp"),
                key: key.as_deref(),
                headers: &headers,
                value: value.as_deref(),
            };
            if let Some(expected) = get("link") {
                assert_eq!(link(&record, &mut Vec::new()).to_vec(), bytes(expected));
                links += 1;
            }
            if let Some(expected) = get("leaf") {
                let commitment = Commitment::of(&record, &mut vec![1, 2, 3]);
                assert_eq!(commitment.leaf(&log_hash(get("origin").expect("an origin"))).to_vec(), bytes(expected));
                leaves += 1;
            }
        }
        assert!(links >= 4 && leaves >= 3, "both pages have vectors");
    }
}
