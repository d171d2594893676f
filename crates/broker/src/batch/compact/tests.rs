//! What is rebuilt against the records that it was made of, with every codec; and bytes that are no batch.

use proptest::prelude::*;

use super::*;
use crate::batch::{BatchBuilder, Compression, Record, decode};

const CODECS: [Compression; 5] =
    [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

/// A record to be: timestamp, key, value.
type Made = (i64, Option<u8>, Option<Vec<u8>>);

/// A batch at offset 100, packed.
fn batch(records: &[Made], codec: Compression, xerial: bool, attributes: i16) -> Vec<u8> {
    let mut builder = BatchBuilder::new().producer(77, 3, 12);
    for (timestamp, key, value) in records {
        let headers = [("h".to_owned(), Bytes::from_static(b"x"))];
        builder.push(*timestamp, key.map(|key| [b'k', key]).as_ref().map(|key| &key[..]), value.as_deref(), &headers);
    }
    let plain = builder.build().expect("there is a record");
    let packed = codec.pack(Bytes::copy_from_slice(&plain[HEADER_BYTES..]), xerial, None).expect("it packs");
    let mut out = plain[..HEADER_BYTES].to_vec();
    out.extend_from_slice(&packed);
    out[..8].copy_from_slice(&100_i64.to_be_bytes());
    let length = (out.len() - LENGTH_OVERHEAD_BYTES) as i32;
    out[8..12].copy_from_slice(&length.to_be_bytes());
    let code = CODECS.iter().position(|known| *known == codec).unwrap() as i16;
    out[21..23].copy_from_slice(&(code | attributes).to_be_bytes());
    seal(&mut out);
    out
}

fn seal(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

fn records(bytes: &[u8]) -> Vec<Record> {
    decode(bytes, 1 << 20).expect("it reads back")
}

fn rule(now_ms: i64) -> Rule {
    Rule { now_ms, horizon_ms: now_ms + 1_000 }
}

fn made() -> impl Strategy<Value = Vec<Made>> {
    let value = proptest::option::weighted(0.7, proptest::collection::vec(any::<u8>(), 0..200));
    proptest::collection::vec((0i64..1 << 42, proptest::option::weighted(0.9, 0u8..6), value), 1..30)
}

proptest! {
    #[test]
    fn what_stays_is_what_it_was_whatever_the_codec(
        made in made(), codec in 0usize..5, xerial in any::<bool>(), mask in any::<u32>(), append_time in any::<bool>(),
    ) {
        let codec = CODECS[codec];
        let bytes = batch(&made, codec, xerial, if append_time { 8 } else { 0 });
        let before = records(&bytes);
        let stays = |offset: u64| mask >> ((offset - 100) % 32) & 1 == 1;
        let rebuilt = RecordKeys.rebuild(&bytes, rule(5_000), Keep::Newest(&|offset, _| stays(offset.get())));
        let kept: Vec<Record> =
            before.iter().filter(|record| record.key.is_none() || stays(record.offset)).cloned().collect();
        prop_assert_eq!(rebuilt.records as usize, kept.len());
        let tombstones = kept.iter().any(|record| record.key.is_some() && record.value.is_none());
        prop_assert_eq!(rebuilt.horizon_ms, tombstones.then_some(6_000));
        prop_assert_eq!(rebuilt.bytes.is_none(), kept.len() == before.len() && !tombstones);
        let Some(now) = rebuilt.bytes else { return Ok(()) };
        prop_assert_eq!(records(&now), kept.clone());
        let (was, is) = (BatchHeader::parse(&bytes).unwrap(), BatchHeader::parse(&now).unwrap());
        prop_assert_eq!((is.base_offset, is.last_offset_delta), (was.base_offset, was.last_offset_delta), "offsets stay");
        prop_assert_eq!((is.producer_id, is.producer_epoch, is.base_sequence), (77, 3, 12));
        if !kept.is_empty() {
            prop_assert_eq!(is.compression().unwrap(), codec);
            prop_assert_eq!(rebuilt.max_timestamp, kept.iter().map(|record| record.timestamp).max().unwrap());
            prop_assert_eq!(is.max_timestamp, rebuilt.max_timestamp);
            let packed = |bytes: &[u8]| compression::is_xerial(codec, &bytes[HEADER_BYTES..]);
            prop_assert_eq!(packed(&now), packed(&bytes));
        }
        // Before its horizon a tombstone stays, from then on it goes.
        let again = RecordKeys.rebuild(&now, rule(5_999), Keep::Newest(&|_, _| true));
        prop_assert_eq!((again.bytes, again.horizon_ms), (None, rebuilt.horizon_ms));
        let later = RecordKeys.rebuild(&now, rule(6_000), Keep::Newest(&|_, _| true));
        let values = kept.iter().filter(|record| !tombstones || record.key.is_none() || record.value.is_some());
        let values: Vec<Record> = values.cloned().collect();
        prop_assert_eq!(later.records as usize, values.len());
        prop_assert_eq!(records(&later.bytes.unwrap_or(now)), values);
    }

    #[test]
    fn keys_are_known_by_their_hash_and_offset(made in made(), codec in 0usize..5) {
        let bytes = batch(&made, CODECS[codec], false, 0);
        let mut found = Vec::new();
        RecordKeys.each_key(&bytes, &mut |offset, hash| found.push((offset.get(), hash)));
        let expected: Vec<_> = (100..).zip(&made).filter_map(|(at, (_, key, _))| Some((at, hash(&[b'k', (*key)?])))).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn what_is_damaged_or_hostile_stays_as_it_is(made in made(), codec in 0usize..5, at in any::<usize>(), mend in any::<bool>()) {
        let mut bytes = batch(&made, CODECS[codec], false, 0);
        let at = 21 + at % (bytes.len() - 21);
        bytes[at] ^= 0x55;
        if mend {
            seal(&mut bytes); // whoever stored it made its checksum
        }
        let mut keys = 0;
        RecordKeys.each_key(&bytes, &mut |_, _| keys += 1);
        let rebuilt = RecordKeys.rebuild(&bytes, rule(0), Keep::Newest(&|_, _| false));
        if decode(&bytes, DECOMPRESSED_BYTES_MAX).is_err() {
            prop_assert_eq!((keys, rebuilt.bytes), (0, None));
            prop_assert!(rebuilt.records > 0, "it counts as something");
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        RecordKeys.each_key(&bytes, &mut |_, _| {});
        prop_assert!(RecordKeys.rebuild(&bytes, rule(0), Keep::Newest(&|_, _| false)).bytes.is_none());
    }
}

#[test]
fn a_batch_that_lost_everything_says_where_it_was_and_can_be_compacted_again() {
    let bytes = batch(&[(9, Some(1), None), (8, Some(2), Some(vec![1]))], Compression::Zstd, false, 0);
    let rebuilt = RecordKeys.rebuild(&bytes, rule(0), Keep::Newest(&|_, _| false));
    let empty = rebuilt.bytes.expect("it changed");
    assert_eq!((rebuilt.records, rebuilt.max_timestamp, empty.len()), (0, -1, HEADER_BYTES));
    let header = BatchHeader::parse(&empty).unwrap();
    assert_eq!((header.base_offset, header.last_offset_delta, header.record_count), (100, 1, 0));
    assert_eq!((header.producer_id, header.base_sequence), (77, 12));
    assert!(records(&empty).is_empty());
    assert_eq!(
        RecordKeys.rebuild(&empty, rule(9), Keep::Newest(&|_, _| true)),
        Rebuilt { max_timestamp: 9, ..Rebuilt::default() }
    );
}

#[test]
fn of_an_aborted_transaction_nothing_stays_but_its_marker() {
    let made = [(9, Some(1), None), (8, None, Some(vec![1]))];
    let inside = batch(&made, Compression::None, false, 0x10);
    assert_eq!(RecordKeys.transaction(&inside), Some(ProducerId::new(77)));
    let aborted = RecordKeys.rebuild(&inside, rule(0), Keep::Nothing);
    assert_eq!(aborted.records, 0);
    let header = BatchHeader::parse(&aborted.bytes.expect("it changed")).unwrap();
    assert!(header.is_transactional() && header.producer_id == 77);
    let committed = RecordKeys.rebuild(&inside, rule(0), Keep::Newest(&|_, _| false));
    assert!(BatchHeader::parse(&committed.bytes.expect("it changed")).unwrap().is_transactional());
    assert_eq!((committed.records, committed.horizon_ms), (1, None), "one without a key stays");
    let marker = batch(&made[..1], Compression::None, false, 0x30);
    assert_eq!(RecordKeys.transaction(&marker), None);
    RecordKeys.each_key(&marker, &mut |_, _| panic!("a marker has no key"));
    assert_eq!(RecordKeys.rebuild(&marker, rule(0), Keep::Nothing), Rebuilt { records: 1, ..Rebuilt::default() });
}
