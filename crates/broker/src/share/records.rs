//! The records of `__share_group_state`, in Kafka's own layout (4.1), so that other people's tools can read the topic. Called by the keeper
//! of share groups. Each change is a snapshot of its own; Kafka's updates between two snapshots are not written, and not read.
//!
//! | record | key | value |
//! | --- | --- | --- |
//! | snapshot | i16 0, group, 16 topic id, i32 partition | i16 0, i32 epoch of the snapshot, i32 state epoch, i32 leader epoch, i64 start offset, i64 made ms, i64 written ms, batches (i64 first, i64 last, i8 state, i16 count, tags), tags |
//!
//! The group is i16 length and UTF-8. The number of batches is an unsigned varint of one more, tags are a varint 0. States are 0 available,
//! 2 acknowledged, 4 archived. A missing value deletes the key.

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use super::{
    Key,
    window::{Kept, Window},
};
use crate::fields::{Reader, put_string, put_varint};

/// Bytes of a batch without its tags.
const BATCH_BYTES: usize = 19;

pub(super) fn key(of: &Key) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_i16(0);
    put_string(&mut out, &of.group);
    out.put_slice(of.topic.as_bytes());
    out.put_u32(of.partition);
    out
}

pub(super) fn value(of: &Window, leader_epoch: u32, now_ms: i64) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_i16(0);
    out.put_i32(0);
    out.put_i32(0);
    out.put_i32(i32::try_from(leader_epoch).unwrap_or(i32::MAX));
    out.put_i64(wire(of.start()));
    out.put_i64(now_ms);
    out.put_i64(now_ms);
    let kept = of.kept();
    put_varint(&mut out, kept.len() + 1);
    for kept in kept {
        out.put_i64(wire(kept.first));
        out.put_i64(wire(kept.last));
        out.put_i8(kept.state);
        out.put_i16(i16::try_from(kept.count).unwrap_or(i16::MAX));
        out.put_u8(0);
    }
    out.put_u8(0);
    out
}

fn wire(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}

/// Whose record it is and what it says; `None` where its bytes are not what its version promises, or of a kind that is not known.
pub(super) fn decode(key: &[u8], value: Option<&Bytes>) -> Option<(Key, Option<Window>)> {
    let mut key = Reader(key);
    if key.i16()? != 0 {
        return None;
    }
    let group = key.string()?.into();
    let (topic, partition) = (Uuid::from_bytes(key.take()?), u32::try_from(key.i32()?).ok()?);
    let of = Key { group, topic, partition };
    let Some(value) = value else { return Some((of, None)) };
    let mut value = Reader(value);
    if value.i16()? != 0 {
        return None;
    }
    let _epochs = (value.i32()?, value.i32()?, value.i32()?);
    let start = u64::try_from(value.i64()?).ok()?;
    let _times = (value.i64()?, value.i64()?);
    let count = value.varint()?.checked_sub(1)?;
    if count > value.0.len() / BATCH_BYTES {
        return None;
    }
    let mut kept = Vec::with_capacity(count);
    for _ in 0..count {
        let (first, last) = (u64::try_from(value.i64()?).ok()?, u64::try_from(value.i64()?).ok()?);
        let (state, count) = (value.i8()?, u16::try_from(value.i16()?).ok()?);
        kept.push(Kept { first, last, state, count });
        for _ in 0..value.varint()? {
            let (_tag, length) = (value.varint()?, value.varint()?);
            value.slice(length)?;
        }
    }
    Some((of, Some(Window::restore(start, &kept))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(group: &str) -> Key {
        Key { group: group.into(), topic: Uuid::from_u128(7), partition: 300 }
    }

    #[test]
    fn the_bytes_are_those_of_kafka() {
        let kept = [Kept { first: 5, last: 9, state: 0, count: 2 }, Kept { first: 10, last: 10, state: 2, count: 1 }];
        let window = Window::restore(5, &kept);
        assert_eq!(key(&of("g"))[..], [&b"\0\0\0\x01g"[..], Uuid::from_u128(7).as_bytes(), b"\0\0\x01\x2c"].concat());
        let expected = [
            &b"\0\0\0\0\0\0\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\x09\x03"[..],
            b"\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x09\0\0\x02\0",
            b"\0\0\0\0\0\0\0\x0a\0\0\0\0\0\0\0\x0a\x02\0\x01\0",
            b"\0",
        ];
        assert_eq!(value(&window, 3, 9)[..], expected.concat());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            start in 0..1_000_u64, kept in proptest::collection::vec((1..9_u64, 1..9_u64, 0..3_usize, 1..5_u16), 0..20),
        ) {
            let mut at = start;
            let kept: Vec<Kept> = kept.into_iter().map(|(gap, length, state, count)| {
                let (first, last) = (at + gap, at + gap + length - 1);
                at = last + 1;
                Kept { first, last, state: [0, 2, 4][state], count }
            }).collect();
            let window = Window::restore(start, &kept);
            let written = value(&window, 1, 2).freeze();
            prop_assert_eq!(decode(&key(&of("group")), Some(&written)), Some((of("group"), Some(window))));
            prop_assert_eq!(decode(&key(&of("group")), None), Some((of("group"), None)));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), prefix in any::<bool>(),
        ) {
            let _ = decode(&bytes, Some(&Bytes::from(bytes.clone())));
            let bytes = if prefix { [&[0, 0][..], &bytes].concat() } else { bytes };
            let _ = decode(&key(&of("x")), Some(&bytes.into()));
        }
    }
}
