//! What members of the classic protocol say of themselves inside its requests: Kafka's consumer protocol, subscriptions (versions 0
//! to 3) and assignments. Used where such a member is in a group of the new protocol.
//!
//! | text | layout |
//! | --- | --- |
//! | subscription | i16 version, topics, user data?, from 1 on owned: topics with i32 partitions, from 2 on i32 generation, from 3 on rack? |
//! | assignment | i16 version, topics with i32 partitions, user data? |
//!
//! Lists have an i32 length, strings an i16 one, user data an i32 one; -1 stands for null. It never reserves memory for a length
//! that it was only told.

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes, BytesMut};

use crate::fields::{Reader, put_string};

/// The newest version of an assignment.
const VERSION_MAX: i16 = 3;
/// The first version that says what a member has.
const OWNED_FIRST: i16 = 1;
const RACK_FIRST: i16 = 3;

/// Topics by name, each with partitions.
pub(super) type ByName = Vec<(String, Vec<u32>)>;

/// What a member wants, and what it has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Subscription {
    pub(super) version: i16,
    pub(super) topics: BTreeSet<String>,
    pub(super) owned: ByName,
    pub(super) rack: Option<String>,
}

pub(super) fn subscription(bytes: &[u8]) -> Option<Subscription> {
    let mut reader = Reader(bytes);
    let version = reader.i16().filter(|version| *version >= 0)?;
    let mut topics = BTreeSet::new();
    for _ in 0..reader.i32()? {
        topics.insert(reader.string()?);
    }
    user_data(&mut reader)?;
    let owned = if version >= OWNED_FIRST { by_name(&mut reader)? } else { ByName::new() };
    let rack = if version >= RACK_FIRST {
        reader.i32()?; // the generation in which it had that
        reader.nullable()?
    } else {
        None
    };
    Some(Subscription { version, topics, owned, rack })
}

pub(super) fn assignment(bytes: &[u8]) -> Option<ByName> {
    if bytes.is_empty() {
        return Some(ByName::new());
    }
    let mut reader = Reader(bytes);
    reader.i16().filter(|version| *version >= 0)?;
    by_name(&mut reader)
}

pub(super) fn encode_assignment(version: i16, assigned: &ByName) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(version.clamp(0, VERSION_MAX));
    out.put_i32(assigned.len() as i32);
    for (topic, partitions) in assigned {
        put_string(&mut out, topic);
        out.put_i32(partitions.len() as i32);
        partitions.iter().for_each(|partition| out.put_i32(i32::try_from(*partition).unwrap_or(i32::MAX)));
    }
    out.put_i32(-1);
    out.freeze()
}

fn by_name(reader: &mut Reader<'_>) -> Option<ByName> {
    let mut all = ByName::new();
    for _ in 0..reader.i32()? {
        let topic = reader.string()?;
        let mut partitions = Vec::new();
        for _ in 0..reader.i32()? {
            partitions.push(u32::try_from(reader.i32()?).ok()?);
        }
        all.push((topic, partitions));
    }
    Some(all)
}

fn user_data(reader: &mut Reader<'_>) -> Option<()> {
    match reader.i32()? {
        -1 => Some(()),
        length => reader.slice(usize::try_from(length).ok()?).map(drop),
    }
}

/// A subscription as clients write it.
#[cfg(test)]
pub(in crate::group) fn encode_subscription(topics: &[&str], owned: &[(&str, &[u32])]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(1);
    out.put_i32(topics.len() as i32);
    topics.iter().for_each(|topic| put_string(&mut out, topic));
    out.put_i32(-1);
    out.put_i32(owned.len() as i32);
    for (topic, partitions) in owned {
        put_string(&mut out, topic);
        out.put_i32(partitions.len() as i32);
        partitions.iter().for_each(|partition| out.put_i32(*partition as i32));
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_cut_short_is_nothing() {
        let assigned = vec![("a".to_owned(), vec![0, 7]), ("b".to_owned(), vec![])];
        let bytes = encode_assignment(1, &assigned);
        assert_eq!(assignment(&bytes), Some(assigned));
        assert_eq!(assignment(&bytes[..9]), None);
        let bytes = encode_subscription(&["a"], &[("a", &[1])]);
        let read = subscription(&bytes).expect("readable");
        assert_eq!((read.version, read.topics.len(), read.owned), (1, 1, vec![("a".to_owned(), vec![1])]));
        for end in 0..bytes.len() {
            assert_eq!(subscription(&bytes[..end]), None);
        }
    }
}
