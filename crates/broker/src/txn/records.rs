//! The records of `__transaction_state`, in Kafka's own layout, so that other people's tools can read the topic. Called by the
//! coordinator. Unknown versions are skipped, never guessed.
//!
//! | record | key | value |
//! | --- | --- | --- |
//! | transactional id | i16 0, id | i16 1, i64 producer id, i16 epoch, i32 timeout ms, i8 status, partitions?, i64 updated ms, i64 started ms, tags |
//!
//! The id is i16 length and UTF-8. Within the value, lengths are unsigned varints one above the number (0 for none): partitions are
//! topics, each name, partitions of i32, and its tags (a varint 0). The tags at the end: 0 the producer id before this one (i64), 2 the
//! version of transactions that the client speaks (i16). A missing value deletes the key. Version 0 of the value has i32 and i16
//! lengths and no tags; it is read.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};

use super::state::{Place, Status, Transaction};
use crate::fields::{Reader, put_string, put_varint};

/// Kafka's states of preparation: here what they would be followed by is one step with them, so that none is ever written.
const PREPARE_COMMIT: i8 = 2;
const PREPARE_ABORT: i8 = 3;

pub(super) fn key(id: &str) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_i16(0);
    put_string(&mut out, id);
    out
}

pub(super) fn value(of: &Transaction) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_i16(1);
    out.put_i64(of.producer);
    out.put_i16(of.epoch);
    out.put_i32(of.timeout_ms);
    out.put_i8(match of.status {
        Status::Empty => 0,
        Status::Ongoing => 1,
        Status::CompleteCommit => 4,
        Status::CompleteAbort => 5,
    });
    if of.status == Status::Empty {
        put_varint(&mut out, 0);
    } else {
        let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in &of.partitions {
            topics.entry(topic).or_default().push(*partition);
        }
        put_varint(&mut out, topics.len() + 1);
        for (topic, partitions) in topics {
            put_varint(&mut out, topic.len() + 1);
            out.extend_from_slice(topic.as_bytes());
            put_varint(&mut out, partitions.len() + 1);
            partitions.into_iter().for_each(|partition| out.put_i32(partition));
            put_varint(&mut out, 0);
        }
    }
    out.put_i64(of.updated_ms);
    out.put_i64(of.started_ms);
    let previous = (of.previous >= 0).then(|| of.previous.to_be_bytes());
    let version = (of.version > 0).then(|| of.version.to_be_bytes());
    put_varint(&mut out, usize::from(previous.is_some()) + usize::from(version.is_some()));
    let tags = [(0, previous.as_ref().map(<[u8; 8]>::as_slice)), (2, version.as_ref().map(<[u8; 2]>::as_slice))];
    for (tag, bytes) in tags {
        let Some(bytes) = bytes else { continue };
        put_varint(&mut out, tag);
        put_varint(&mut out, bytes.len());
        out.extend_from_slice(bytes);
    }
    out
}

/// The id of a record, and what is known of it; the outer `None` where its bytes are not what its version promises, or of a version
/// that this broker does not know.
pub(super) fn decode(key: &[u8], value: Option<&Bytes>) -> Option<(String, Option<Transaction>)> {
    let mut key = Reader(key);
    if key.i16()? != 0 {
        return None;
    }
    let id = key.string()?;
    let Some(value) = value else { return Some((id, None)) };
    Some((id, Some(decode_value(value)?)))
}

fn decode_value(value: &[u8]) -> Option<Transaction> {
    let mut value = Reader(value);
    let flexible = match value.i16()? {
        0 => false,
        1 => true,
        _ => return None,
    };
    let mut found = Transaction::fresh(value.i64()?, 0, 0);
    found.epoch = value.i16()?;
    found.timeout_ms = value.i32()?;
    found.status = match value.i8()? {
        0 => Status::Empty,
        1 => Status::Ongoing,
        PREPARE_COMMIT | 4 => Status::CompleteCommit,
        PREPARE_ABORT | 5 => Status::CompleteAbort,
        _ => return None,
    };
    found.partitions = value.places(flexible)?;
    found.updated_ms = value.i64()?;
    found.started_ms = value.i64()?;
    if !flexible {
        return Some(found);
    }
    for _ in 0..value.varint()? {
        let (tag, length) = (value.varint()?, value.varint()?);
        let mut tagged = Reader(value.slice(length)?);
        match tag {
            0 => found.previous = tagged.i64()?,
            2 => found.version = tagged.i16()?,
            _ => {}
        }
    }
    Some(found)
}

impl Reader<'_> {
    /// A length in the layout of the version; none counts as zero.
    fn length(&mut self, flexible: bool, long: bool) -> Option<usize> {
        match (flexible, long) {
            (true, _) => Some(self.varint()?.saturating_sub(1)),
            (false, true) => Some(usize::try_from(self.i32()?).unwrap_or(0)),
            (false, false) => Some(usize::try_from(self.i16()?).unwrap_or(0)),
        }
    }

    fn places(&mut self, flexible: bool) -> Option<BTreeSet<Place>> {
        let mut places = BTreeSet::new();
        for _ in 0..self.length(flexible, true)? {
            let length = self.length(flexible, false)?;
            let topic = String::from_utf8(self.slice(length)?.to_vec()).ok()?;
            for _ in 0..self.length(flexible, true)? {
                places.insert((topic.clone(), self.i32()?));
            }
            if flexible {
                for _ in 0..self.varint()? {
                    self.varint()?;
                    let length = self.varint()?;
                    self.slice(length)?;
                }
            }
        }
        Some(places)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn transaction() -> impl Strategy<Value = Transaction> {
        let places = proptest::collection::btree_set(("[a-z]{1,200}", 0..500_i32), 0..40);
        (any::<(i64, i16, i64, i64)>(), -1..i64::MAX, 0..4_usize, places, 0..3_i16).prop_map(
            |((producer, epoch, updated_ms, started_ms), previous, status, places, version)| {
                let status = Status::ALL[status];
                let partitions = if status == Status::Ongoing { places } else { BTreeSet::new() };
                let fresh = Transaction::fresh(producer, 7, updated_ms);
                Transaction { epoch, previous, status, partitions, started_ms, version, ..fresh }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(of in transaction(), id in "[a-z]{1,300}") {
            let value = value(&of).freeze();
            prop_assert_eq!(decode(&key(&id), Some(&value)), Some((id.clone(), Some(of))));
            prop_assert_eq!(decode(&key(&id), None), Some((id, None)));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(
            key in proptest::collection::vec(any::<u8>(), 0..40), value in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = decode(&key, Some(&Bytes::from(value.clone())));
            for version in [0, 1] {
                let value = [&[0, version][..], &value].concat();
                let _ = decode(b"\0\0\0\x01x", Some(&value.into()));
            }
        }
    }

    #[test]
    fn the_bytes_are_those_of_kafka() {
        let of = Transaction {
            epoch: 3,
            status: Status::Ongoing,
            partitions: [("t".to_owned(), 0), ("t".to_owned(), 2), ("uv".to_owned(), 1)].into(),
            started_ms: 8,
            previous: 6,
            version: 2,
            ..Transaction::fresh(5, 60_000, 9)
        };
        let text = "0001 0000000000000005 0003 0000ea60 01 \
                    03 0274 03 00000000 00000002 00 037576 02 00000001 00 \
                    0000000000000009 0000000000000008 02 0008 0000000000000006 0202 0002";
        assert_eq!(hex::encode(value(&of)), text.replace(' ', ""));
        assert_eq!(hex::encode(key("tx")), "000000027478");
        // As a broker of before Kafka 4 writes it.
        let old = hex::decode(
            "0000000000000000000500030000ea6001000000010001740000000100000002".to_owned()
                + "00000000000000090000000000000008",
        )
        .expect("hex");
        let (_, found) = decode(&key("tx"), Some(&old.into())).expect("version 0");
        assert_eq!(found.map(|found| (found.producer, found.partitions.len(), found.started_ms)), Some((5, 1, 8)));
    }
}
