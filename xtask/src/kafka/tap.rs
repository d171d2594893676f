//! What passes between a Kafka client and Cairn: which requests, in which versions. Must never wait for more than a header.

use std::collections::BTreeMap;

use crate::tap::{Look, Notes};

/// Bytes of a request's length, kind and version.
const HEAD_BYTES: usize = 8;

/// How often each kind and version of request was sent.
pub(crate) type Seen = BTreeMap<(i16, i16), u64>;

/// Notes the requests of one connection.
pub(crate) fn looks(notes: &Notes<Seen>) -> (Look, Look) {
    let (notes, mut heads) = (notes.clone(), Heads::default());
    let requests = move |bytes: &[u8]| {
        heads.take(bytes, |key, version| notes.add(|seen| *seen.entry((key, version)).or_default() += 1));
    };
    (Box::new(requests), Box::new(|_| ()))
}

/// Finds the heads of requests in a stream of bytes.
#[derive(Debug, Default)]
struct Heads {
    head: Vec<u8>,
    /// Bytes of the current request that are still to come behind its head.
    left: usize,
}

impl Heads {
    fn take(&mut self, mut bytes: &[u8], mut found: impl FnMut(i16, i16)) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let skipped = self.left.min(bytes.len());
                self.left -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let wanted = (HEAD_BYTES - self.head.len()).min(bytes.len());
            self.head.extend_from_slice(&bytes[..wanted]);
            bytes = &bytes[wanted..];
            if let [a, b, c, d, k, l, x, y] = self.head[..] {
                let length = usize::try_from(i32::from_be_bytes([a, b, c, d])).unwrap_or(0);
                found(i16::from_be_bytes([k, l]), i16::from_be_bytes([x, y]));
                self.left = length.saturating_sub(HEAD_BYTES - 4);
                self.head.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Heads;

    #[test]
    fn heads_are_found_however_the_bytes_are_cut() {
        let stream =
            [&[0, 0, 0, 6, 0, 3, 0, 9, 7, 7][..], &[0, 0, 0, 4, 0, 1, 0, 12], &[0, 0, 0, 5, 0, 18, 0, 3, 1]].concat();
        for size in 1..=stream.len() {
            let (mut heads, mut found) = (Heads::default(), Vec::new());
            stream.chunks(size).for_each(|bytes| heads.take(bytes, |key, version| found.push((key, version))));
            assert_eq!(found, [(3, 9), (1, 12), (18, 3)], "in pieces of {size}");
        }
    }
}
