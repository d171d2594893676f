//! Versions that the codec does not know, by hand: what a client of Kafka 4.4 sends, and how it reads the answer.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        ApiKey, DeleteGroupsResponse, DescribeLogDirsResponse, OffsetCommitRequest, OffsetFetchRequest, RequestKind,
        ResponseKind, TxnOffsetCommitRequest, TxnOffsetCommitResponse, WriteTxnMarkersRequest,
        delete_groups_response::DeletableGroupResult,
        describe_log_dirs_response::{DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic},
        txn_offset_commit_response::{TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic},
    },
    protocol::{Encodable, StrBytes},
};
use uuid::Uuid;

/// Under this tag a request carries here what only a newer version has; it is not sent as a tag.
pub const NEWER: i32 = -2;

/// The versions of what is newer here than in the codec, and what they look like to it.
fn coded(key: ApiKey, version: i16) -> i16 {
    match key {
        ApiKey::ListOffsets => version.min(10),
        ApiKey::DescribeLogDirs | ApiKey::ApiVersions => version.min(4),
        ApiKey::DeleteGroups => version.min(2),
        ApiKey::ShareFetch | ApiKey::ShareAcknowledge => 1,
        _ => version,
    }
}

pub fn encode(key: ApiKey, version: i16, request: &RequestKind, out: &mut BytesMut) {
    match (request, version) {
        (RequestKind::OffsetCommit(request), 10..) => commit(request, out),
        (RequestKind::OffsetFetch(request), 10..) => fetch(request, out),
        (RequestKind::TxnOffsetCommit(request), 6..) => commit_in_transaction(request, out),
        (RequestKind::WriteTxnMarkers(request), 2..) => markers(request, out),
        (RequestKind::ShareFetch(request), 2..) => {
            let (mut request, mut body) = (request.clone(), BytesMut::new());
            let added = request.unknown_tagged_fields.remove(&NEWER).unwrap_or_else(|| Bytes::from_static(&[0, 0]));
            request.encode(&mut body, 1).unwrap();
            let head = texts(request.group_id.as_ref().map(|id| id.as_str()), request.member_id.as_deref()) + 24;
            out.put_slice(&[&body[..head], &added, &body[head..]].concat());
        }
        (RequestKind::ShareAcknowledge(request), 2..) => {
            let (mut request, mut body) = (request.clone(), BytesMut::new());
            let added = request.unknown_tagged_fields.remove(&NEWER).unwrap_or_else(|| Bytes::from_static(&[0]));
            request.encode(&mut body, 1).unwrap();
            let head = texts(request.group_id.as_ref().map(|id| id.as_str()), request.member_id.as_deref()) + 4;
            out.put_slice(&[&body[..head], &added, &body[head..]].concat());
        }
        (RequestKind::ApiVersions(request), 5..) => {
            request.encode(out, 4).unwrap();
            out.truncate(out.len() - 1);
            out.put_slice(&[0, 0xff, 0xff, 0xff, 0xff, 0]);
        }
        _ => request.encode(out, coded(key, version)).unwrap(),
    }
}

pub fn decode(key: ApiKey, version: i16, frame: &mut Bytes) -> ResponseKind {
    match (key, version) {
        (ApiKey::TxnOffsetCommit, 6..) => ResponseKind::TxnOffsetCommit(committed(frame)),
        (ApiKey::DescribeLogDirs, 5..) => ResponseKind::DescribeLogDirs(described(frame)),
        (ApiKey::DeleteGroups, 3..) => ResponseKind::DeleteGroups(deleted(frame)),
        (ApiKey::ShareAcknowledge, 2..) => {
            let mut rest = frame.slice(6..);
            let before = rest.len();
            read_text(&mut rest);
            let head = 6 + before - rest.len();
            assert!(rest.get_i32() >= 0, "how long a member has its records");
            let mut body = Bytes::from([&frame[..head], &rest].concat());
            frame.clear();
            let answer = ResponseKind::decode(key, &mut body, 1).unwrap();
            assert!(body.is_empty());
            answer
        }
        (ApiKey::WriteTxnMarkers, 2..) => ResponseKind::decode(key, frame, 1).unwrap(),
        _ => ResponseKind::decode(key, frame, coded(key, version)).unwrap(),
    }
}

fn text(out: &mut BytesMut, text: Option<&str>) {
    length(out, text.map(str::len));
    out.put_slice(text.unwrap_or_default().as_bytes());
}

fn length(out: &mut BytesMut, length: Option<usize>) {
    let mut value = length.map_or(0, |length| length + 1);
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Bytes of two texts.
fn texts(one: Option<&str>, other: Option<&str>) -> usize {
    let mut out = BytesMut::new();
    text(&mut out, one);
    text(&mut out, other);
    out.len()
}

fn commit(request: &OffsetCommitRequest, out: &mut BytesMut) {
    text(out, Some(&request.group_id));
    out.put_i32(request.generation_id_or_member_epoch);
    text(out, Some(&request.member_id));
    text(out, request.group_instance_id.as_deref());
    length(out, Some(request.topics.len()));
    for topic in &request.topics {
        out.put_slice(topic.topic_id.as_bytes());
        length(out, Some(topic.partitions.len()));
        topic.partitions.iter().for_each(|partition| partition.encode(out, 9).unwrap());
        out.put_u8(0);
    }
    out.put_u8(0);
}

fn fetch(request: &OffsetFetchRequest, out: &mut BytesMut) {
    length(out, Some(request.groups.len()));
    for group in &request.groups {
        text(out, Some(&group.group_id));
        text(out, group.member_id.as_deref());
        out.put_i32(group.member_epoch);
        length(out, group.topics.as_ref().map(Vec::len));
        for topic in group.topics.iter().flatten() {
            out.put_slice(topic.topic_id.as_bytes());
            length(out, Some(topic.partition_indexes.len()));
            topic.partition_indexes.iter().for_each(|index| out.put_i32(*index));
            out.put_u8(0);
        }
        out.put_u8(0);
    }
    out.put_slice(&[u8::from(request.require_stable), 0]);
}

/// Whose topics are named by their ids as text.
fn commit_in_transaction(request: &TxnOffsetCommitRequest, out: &mut BytesMut) {
    text(out, Some(&request.transactional_id));
    text(out, Some(&request.group_id));
    out.put_i64(request.producer_id.0);
    out.put_i16(request.producer_epoch);
    out.put_i32(request.generation_id);
    text(out, Some(&request.member_id));
    text(out, request.group_instance_id.as_deref());
    length(out, Some(request.topics.len()));
    for topic in &request.topics {
        out.put_slice(topic.name.parse::<Uuid>().unwrap_or_default().as_bytes());
        length(out, Some(topic.partitions.len()));
        topic.partitions.iter().for_each(|partition| partition.encode(out, 5).unwrap());
        out.put_u8(0);
    }
    out.put_u8(0);
}

fn markers(request: &WriteTxnMarkersRequest, out: &mut BytesMut) {
    length(out, Some(request.markers.len()));
    for marker in &request.markers {
        let head = out.len();
        marker.encode(out, 1).unwrap();
        assert!(out.len() > head);
        out.truncate(out.len() - 1);
        // The version of the transaction, and no tags.
        out.put_slice(&[2, 0]);
    }
    out.put_u8(0);
}

fn read_length(frame: &mut Bytes) -> Option<usize> {
    let mut value = 0;
    for at in 0.. {
        let byte = frame.get_u8();
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            break;
        }
    }
    value.checked_sub(1)
}

fn read_text(frame: &mut Bytes) -> Option<StrBytes> {
    let length = read_length(frame)?;
    Some(StrBytes::from_utf8(frame.split_to(length)).unwrap())
}

fn each<T>(frame: &mut Bytes, mut read: impl FnMut(&mut Bytes) -> T) -> Vec<T> {
    let count = read_length(frame).unwrap();
    let mut one = |_| {
        let read = read(frame);
        assert_eq!(frame.get_u8(), 0, "no tags");
        read
    };
    (0..count).map(&mut one).collect()
}

fn committed(frame: &mut Bytes) -> TxnOffsetCommitResponse {
    let response = TxnOffsetCommitResponse::default().with_throttle_time_ms(frame.get_i32());
    let topics = each(frame, |frame| {
        let id = Uuid::from_u128(frame.get_u128()).to_string();
        let partitions = each(frame, |frame| {
            let told = TxnOffsetCommitResponsePartition::default().with_partition_index(frame.get_i32());
            told.with_error_code(frame.get_i16())
        });
        TxnOffsetCommitResponseTopic::default().with_name(StrBytes::from_string(id).into()).with_partitions(partitions)
    });
    assert_eq!(frame.get_u8(), 0, "no tags");
    response.with_topics(topics)
}

fn described(frame: &mut Bytes) -> DescribeLogDirsResponse {
    let response = DescribeLogDirsResponse::default().with_throttle_time_ms(frame.get_i32());
    let response = response.with_error_code(frame.get_i16());
    let places = each(frame, |frame| {
        let place = DescribeLogDirsResult::default().with_error_code(frame.get_i16());
        let place = place.with_log_dir(read_text(frame).unwrap());
        let topics = each(frame, |frame| {
            let topic = DescribeLogDirsTopic::default().with_name(read_text(frame).unwrap().into());
            topic.with_partitions(each(frame, |frame| {
                let mut fields = frame.split_to(21);
                let partition = DescribeLogDirsPartition::default().with_partition_index(fields.get_i32());
                partition.with_partition_size(fields.get_i64())
            }))
        });
        let place = place.with_topics(topics).with_total_bytes(frame.get_i64()).with_usable_bytes(frame.get_i64());
        assert_eq!(frame.get_u8(), 0, "it is not closed to new partitions");
        place
    });
    assert_eq!(frame.get_u8(), 0, "no tags");
    response.with_results(places)
}

fn deleted(frame: &mut Bytes) -> DeleteGroupsResponse {
    let response = DeleteGroupsResponse::default().with_throttle_time_ms(frame.get_i32());
    let results = each(frame, |frame| {
        let result = DeletableGroupResult::default().with_group_id(read_text(frame).unwrap().into());
        let result = result.with_error_code(frame.get_i16());
        let why = read_text(frame);
        assert_eq!(why.is_some_and(|why| why.len() > 10), result.error_code != 0, "it is said why");
        result
    });
    assert_eq!(frame.get_u8(), 0, "no tags");
    response.with_results(results)
}
