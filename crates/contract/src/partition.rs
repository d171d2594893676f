//! Which partition a key belongs to: murmur2, as Kafka's default partitioner computes it.
//!
//! Every writer of events uses it on every backbone, so that a workflow lies in one partition wherever it is written.
//! It must never change: I5 (order within a workflow) hangs on it.

/// The partition of `key` among `partitions`, which is at least 1.
///
/// # Panics
/// If `partitions` is 0: a topic without partitions does not exist.
#[must_use]
pub fn partition_for(key: &[u8], partitions: u32) -> u32 {
    assert!(partitions > 0, "a topic has at least one partition");
    // Kafka's `Utils.toPositive`: the sign bit cleared, not the absolute value.
    (murmur2(key) as u32 & 0x7fff_ffff) % partitions
}

/// Murmur2 with Kafka's seed (`org.apache.kafka.common.utils.Utils.murmur2`).
#[must_use]
pub fn murmur2(data: &[u8]) -> i32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    let mut h = SEED ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in words.by_ref() {
        let mut k = u32::from_le_bytes(word.try_into().expect("chunks_exact gives four bytes"));
        k = k.wrapping_mul(M);
        k ^= k >> R;
        k = k.wrapping_mul(M);
        h = h.wrapping_mul(M) ^ k;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        h = (h ^ u32::from_le_bytes(last)).wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    (h ^ (h >> 15)) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From Apache Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn keys_hash_as_in_kafka() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()), hash, "{key}");
        }
    }

    #[test]
    fn a_negative_hash_still_names_a_partition() {
        assert_eq!(partition_for(b"21", 8), ((-973_932_308_i32) & i32::MAX) as u32 % 8);
        for n in 1..50 {
            assert!(partition_for(b"foobar", n) < n);
        }
    }
}
