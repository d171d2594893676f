//! What must hold of the batch codec, hostile bytes included.

use std::io::Write;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::*;

const LIMIT: usize = 1 << 20;

fn batch() -> BytesMut {
    let mut builder = BatchBuilder::new().producer(7, 1, 40);
    builder.push(1_000, Some(b"k"), Some(b"v"), &[("h".into(), Bytes::from_static(b"x"))]);
    builder.push(900, None, None, &[]);
    builder.build().expect("two records")
}

fn seal(batch: &mut BytesMut) {
    let length = (batch.len() - LENGTH_OVERHEAD_BYTES) as i32;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c::crc32c(&batch[ATTRIBUTES_AT..]);
    batch[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
}

fn packed(codec: i16, data: &[u8], count: i32) -> BytesMut {
    let mut out = BytesMut::from(&batch()[..HEADER_BYTES]);
    out[ATTRIBUTES_AT..ATTRIBUTES_AT + 2].copy_from_slice(&codec.to_be_bytes());
    out[23..27].copy_from_slice(&(count - 1).to_be_bytes());
    out[57..61].copy_from_slice(&count.to_be_bytes());
    out.extend_from_slice(data);
    seal(&mut out);
    out
}

#[test]
fn the_layout_is_kafkas() {
    let mut builder = BatchBuilder::new();
    builder.push(0, None, Some(b"a"), &[]);
    let bytes = builder.build().expect("a record");
    assert_eq!(bytes.len(), 61 + 8);
    assert_eq!(&bytes[8..12], &57_i32.to_be_bytes());
    assert_eq!(&bytes[61..], &[14, 0, 0, 0, 1, 2, b'a', 0]);
}

#[test]
fn a_stamped_batch_still_passes_its_checksum() {
    let mut bytes = batch();
    let Checked { header, oldest_ms, newest_ms } = check(&bytes, false, LIMIT).expect("valid");
    assert_eq!((oldest_ms, newest_ms), (Some(900), 1_000));
    stamp(&mut bytes, Offset::new(99), LeaderEpoch::new(3));
    let stamped = BatchHeader::parse(&bytes).expect("valid");
    assert_eq!((stamped.base_offset, stamped.leader_epoch, stamped.max_timestamp), (99, 3, 1_000));
    check_crc(&bytes, &stamped).expect("valid");
    assert!(check(&bytes, false, LIMIT).is_err(), "a producer gives no offsets");
    stamp_append_time(&mut bytes, &header, 5_000);
    check_crc(&bytes, &BatchHeader::parse(&bytes).expect("valid")).expect("valid");
    assert!(decode(&bytes, LIMIT).expect("valid").iter().all(|record| record.timestamp == 5_000));
}

#[test]
fn sixty_one_bytes_that_ask_for_two_billion_records_are_refused_without_reserving_for_them() {
    let bytes = packed(0, &[], i32::MAX);
    assert_eq!(bytes.len(), 61);
    assert!(matches!(check(&bytes, false, LIMIT), Err(BatchError::Header { .. })));
    assert!(matches!(decode(&bytes, LIMIT), Err(BatchError::Header { .. })));
}

#[test]
fn a_header_count_beyond_the_bytes_is_refused() {
    let mut record = BytesMut::new();
    for value in [0, 0, 0, -1, -1, i64::from(i32::MAX)] {
        varint::put(&mut record, value);
    }
    let mut data = BytesMut::new();
    varint::put(&mut data, record.len() as i64);
    data.extend_from_slice(&record);
    assert!(matches!(check(&packed(0, &data, 1), false, LIMIT), Err(BatchError::Record { index: 0, .. })));
}

#[test]
fn a_compressed_batch_cannot_grow_past_the_limit() {
    let zeros = vec![0; 8 << 20];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&zeros).expect("memory");
    let zstd = zstd::encode_all(zeros.as_slice(), 1).expect("memory");
    let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
    lz4.write_all(&zeros).expect("memory");
    let snappy = snap::raw::Encoder::new().compress_vec(&zeros).expect("memory");
    let all = [(1, gzip.finish().expect("memory")), (2, snappy), (3, lz4.finish().expect("memory")), (4, zstd)];
    for (codec, data) in all {
        let error = check(&packed(codec, &data, 1), false, LIMIT).expect_err("too large");
        assert_eq!(error, BatchError::TooLarge { limit: LIMIT }, "codec {codec}");
    }
}

#[test]
fn a_snappy_block_that_lies_about_its_length_is_refused() {
    let lie = [0xff, 0xff, 0x3f, 0]; // a length of one mebibyte, then one byte
    assert!(matches!(check(&packed(2, &lie, 1), false, 1 << 30), Err(BatchError::Compressed { .. })));
}

#[test]
fn a_compressed_batch_with_a_false_count_is_refused() {
    let plain = batch();
    let data = zstd::encode_all(&plain[HEADER_BYTES..], 1).expect("memory");
    check(&packed(4, &data, 2), false, LIMIT).expect("true count");
    assert!(check(&packed(4, &data, 3), false, LIMIT).is_err());
    assert!(check(&packed(4, &data, 1), false, LIMIT).is_err());
}

#[test]
fn old_formats_and_damage_are_named() {
    let mut old = batch();
    old[16] = 1;
    assert_eq!(check(&old, false, LIMIT), Err(BatchError::OldFormat { magic: 1 }));
    let mut damaged = batch();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    assert!(matches!(check(&damaged, false, LIMIT), Err(BatchError::Checksum { .. })));
    let mut two = batch();
    let one = two.clone();
    two.extend_from_slice(&one);
    assert!(matches!(check(&two, false, LIMIT), Err(BatchError::Trailing { .. })));
}

#[test]
fn a_compacted_topic_wants_keys() {
    assert!(matches!(check(&batch(), true, LIMIT), Err(BatchError::Keyless { records }) if records == [1]));
}

proptest! {
    #[test]
    fn what_is_built_is_decoded(
        records in prop::collection::vec(
            (0..i64::MAX / 2, prop::option::of(prop::collection::vec(any::<u8>(), 0..40)), prop::option::of(prop::collection::vec(any::<u8>(), 0..200)), 0..3_usize),
            1..20,
        )
    ) {
        let mut builder = BatchBuilder::new();
        for (timestamp, key, value, headers) in &records {
            let headers: Vec<_> = (0..*headers).map(|n| (format!("h{n}"), Bytes::from(vec![n as u8]))).collect();
            builder.push(*timestamp, key.as_deref(), value.as_deref(), &headers);
        }
        let size = builder.bytes();
        let bytes = builder.build().expect("records");
        prop_assert_eq!(bytes.len(), size);
        check(&bytes, false, LIMIT).expect("valid");
        let decoded = decode(&bytes, LIMIT).expect("valid");
        prop_assert_eq!(decoded.len(), records.len());
        for (at, (record, (timestamp, key, value, headers))) in decoded.iter().zip(&records).enumerate() {
            prop_assert_eq!(record.offset, at as u64);
            prop_assert_eq!(record.timestamp, *timestamp);
            prop_assert_eq!(record.key.as_deref(), key.as_deref());
            prop_assert_eq!(record.value.as_deref(), value.as_deref());
            prop_assert_eq!(record.headers.len(), *headers);
        }
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300), codec in 0..5_u8) {
        if bytes.len() > HEADER_BYTES {
            bytes[16] = 2;
            bytes[22] = codec;
            let mut whole = BytesMut::from(&bytes[..]);
            seal(&mut whole);
            let _ = check(&whole, true, LIMIT);
            let _ = decode(&whole, LIMIT);
        } else {
            let _ = check(&bytes, true, LIMIT);
        }
    }
}
