//! The records of `__consumer_offsets`, in Kafka's own layout, so that other people's tools can read the topic.
//! Called by the group driver. Unknown versions are skipped, never guessed.
//!
//! | record | key | value |
//! | --- | --- | --- |
//! | offset | i16 1, group, topic, i32 partition | i16 3, i64 offset, i32 leader epoch, metadata, i64 commit time ms |
//! | group | i16 2, group | i16 3, protocol type, i32 generation, protocol?, leader?, i64 time ms, i32 members, each: id, instance?, client id, client host, i32 rebalance ms, i32 session ms, subscription, assignment |
//!
//! Those of consumer groups are in `consumer/records.rs`.
//!
//! Strings are i16 length and UTF-8 (`?`: -1 for null), blobs i32 length and bytes. A missing value deletes the key.

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    consumer::{self, Change},
    member::{GroupSnapshot, MemberSnapshot},
};
use crate::fields::{Reader, put_string};

/// A decoded record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum GroupRecord {
    Offset {
        group: String,
        topic: String,
        partition: i32,
        value: Option<OffsetValue>,
    },
    Group {
        group: String,
        value: Option<GroupSnapshot>,
    },
    /// Of a group of the new protocol.
    Consumer {
        group: String,
        change: Change,
    },
    /// Of a version that this broker does not know.
    Unknown,
}

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OffsetValue {
    pub(crate) offset: i64,
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: String,
    pub(crate) committed_ms: i64,
}

pub(crate) fn offset_key(group: &str, topic: &str, partition: i32) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_i16(1);
    put_string(&mut out, group);
    put_string(&mut out, topic);
    out.put_i32(partition);
    out
}

pub(crate) fn offset_value(value: &OffsetValue) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_i16(3);
    out.put_i64(value.offset);
    out.put_i32(value.leader_epoch);
    put_string(&mut out, &value.metadata);
    out.put_i64(value.committed_ms);
    out
}

pub(crate) fn group_key(group: &str) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_i16(2);
    put_string(&mut out, group);
    out
}

pub(crate) fn group_value(group: &GroupSnapshot, now_ms: i64) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_i16(3);
    put_string(&mut out, &group.protocol_type);
    out.put_i32(group.generation);
    put_nullable(&mut out, group.protocol.as_deref());
    put_nullable(&mut out, group.leader.as_deref());
    out.put_i64(now_ms);
    out.put_i32(group.members.len() as i32);
    for member in &group.members {
        put_string(&mut out, &member.id);
        put_nullable(&mut out, member.instance.as_deref());
        put_string(&mut out, &member.client_id);
        put_string(&mut out, &member.client_host);
        out.put_i32(i32::try_from(member.rebalance_timeout_ms).unwrap_or(i32::MAX));
        out.put_i32(i32::try_from(member.session_timeout_ms).unwrap_or(i32::MAX));
        put_blob(&mut out, &member.subscription);
        put_blob(&mut out, &member.assignment);
    }
    out
}

/// Decodes one record; `None` where its bytes are not what its version promises.
pub(crate) fn decode(key: &[u8], value: Option<&Bytes>) -> Option<GroupRecord> {
    let mut key = Reader(key);
    match key.i16()? {
        0 | 1 => {
            let (group, topic, partition) = (key.string()?, key.string()?, key.i32()?);
            let value = match value {
                None => None,
                Some(value) => match decode_offset(value)? {
                    Some(value) => Some(value),
                    None => return Some(GroupRecord::Unknown),
                },
            };
            Some(GroupRecord::Offset { group, topic, partition, value })
        }
        2 => {
            let group = key.string()?;
            let value = match value {
                None => None,
                Some(value) => match decode_group(&group, value)? {
                    Some(value) => Some(value),
                    None => return Some(GroupRecord::Unknown),
                },
            };
            Some(GroupRecord::Group { group, value })
        }
        kind => Some(match consumer::records::decode(kind, key, value)? {
            Some((group, change)) => GroupRecord::Consumer { group, change },
            None => GroupRecord::Unknown,
        }),
    }
}

fn decode_offset(value: &[u8]) -> Option<Option<OffsetValue>> {
    let mut value = Reader(value);
    if value.i16()? != 3 {
        return Some(None);
    }
    let (offset, leader_epoch) = (value.i64()?, value.i32()?);
    Some(Some(OffsetValue { offset, leader_epoch, metadata: value.string()?, committed_ms: value.i64()? }))
}

fn decode_group(group: &str, value: &[u8]) -> Option<Option<GroupSnapshot>> {
    let mut value = Reader(value);
    if value.i16()? != 3 {
        return Some(None);
    }
    let mut out = GroupSnapshot {
        group: group.to_owned(),
        protocol_type: value.string()?,
        generation: value.i32()?,
        protocol: value.nullable()?,
        leader: value.nullable()?,
        members: Vec::new(),
    };
    value.i64()?;
    for _ in 0..value.i32()? {
        out.members.push(MemberSnapshot {
            id: value.string()?,
            instance: value.nullable()?,
            client_id: value.string()?,
            client_host: value.string()?,
            rebalance_timeout_ms: u64::try_from(value.i32()?).ok()?,
            session_timeout_ms: u64::try_from(value.i32()?).ok()?,
            subscription: Bytes::copy_from_slice(value.blob()?),
            assignment: Bytes::copy_from_slice(value.blob()?),
        });
    }
    Some(Some(out))
}

fn put_nullable(out: &mut BytesMut, text: Option<&str>) {
    match text {
        None => out.put_i16(-1),
        Some(text) => put_string(out, text),
    }
}

fn put_blob(out: &mut BytesMut, blob: &[u8]) {
    out.put_i32(blob.len() as i32);
    out.extend_from_slice(blob);
}
