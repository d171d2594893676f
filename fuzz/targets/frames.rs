//! Kafka's requests and record batches: no frame makes the broker panic, and none takes more memory than was claimed for it.
//!
//! The first byte says what the rest is: a request behind its length, a batch, a batch whose checksum and length are put
//! right first, or metrics that a client pushes.
#![no_main]

use bytes::Bytes;
use cairn_broker::{
    batch::{BatchHeader, HEADER_BYTES, LENGTH_OVERHEAD_BYTES, check, decode, stamp, stamp_max_timestamp},
    fuzzing,
};
use cairn_fuzz::memory::within;
use cairn_log::{LeaderEpoch, Offset};
use libfuzzer_sys::fuzz_target;

/// What a batch may grow to here.
const UNPACKED_BYTES_MAX: usize = 256 << 10;
/// What reading a batch may take: what is unpacked twice, each record of the smallest size as a record in memory, and what
/// decompressors need of their own.
const BATCH_BYTES_MAX: usize = 64 * UNPACKED_BYTES_MAX;

/// What reading metrics of clients may take.
const METRICS_BYTES_MAX: usize = 8 << 20;

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    match kind % 4 {
        0 => request(Bytes::copy_from_slice(rest)),
        1 => batch(rest),
        3 => {
            // A thousand points at most, each of some short texts.
            let _ = within(METRICS_BYTES_MAX + rest.len(), || fuzzing::metrics(rest));
        }
        _ => {
            let mut bytes = rest.to_vec();
            if bytes.len() >= HEADER_BYTES {
                let length = u32::try_from(bytes.len() - LENGTH_OVERHEAD_BYTES).expect("inputs are short");
                bytes[8..12].copy_from_slice(&length.to_be_bytes());
                bytes[16] = 2;
                // The checksum is renewed on the way.
                if let Ok(header) = BatchHeader::parse(&bytes) {
                    stamp_max_timestamp(&mut bytes, &header, header.max_timestamp);
                }
            }
            batch(&bytes);
        }
    }
});

fn request(frame: Bytes) {
    let claimed = within(fuzzing::FREE_BYTES, || fuzzing::claimed(&frame));
    if let Some(claimed) = claimed {
        let _ = within(claimed, || fuzzing::decode(frame));
    }
}

fn batch(bytes: &[u8]) {
    within(BATCH_BYTES_MAX, || {
        let _ = decode(bytes, UNPACKED_BYTES_MAX);
        let Ok(checked) = check(bytes, false, UNPACKED_BYTES_MAX) else { return };
        let mut stored = bytes.to_vec();
        stamp(&mut stored, Offset::new(5), LeaderEpoch::new(1));
        let records = decode(&stored, UNPACKED_BYTES_MAX).expect("what is stored can be read");
        assert_eq!(i64::try_from(records.len()).ok(), Some(i64::from(checked.header.record_count)));
        for (at, record) in (5..).zip(&records) {
            assert_eq!(record.offset, at);
        }
    });
}
