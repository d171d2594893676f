//! An answer to Fetch on the wire, its batches as they lie in memory: none is copied between the log and the socket. Called by `api`.
//!
//! The codec writes all but the records. The lists and records that it is given empty end what it writes; they are cut off and written
//! here. What is cut off is looked at: another codec cannot change an answer unseen.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{FetchResponse, fetch_response::PartitionData},
    protocol::Encodable,
};

use crate::wire::Pieces;

/// The first version with short lengths and with tags.
const FLEXIBLE_FIRST: i16 = 12;
/// The first version whose list of topics stands behind an error and a session.
const SESSIONS_FIRST: i16 = 7;
/// Batches that are shorter are copied: naming them to the socket would cost more.
const COPIED_BYTES_MAX: usize = 2 << 10;

/// An answer, and the batches of each of its partitions, in their order.
#[derive(Debug, Default)]
pub(in crate::api) struct FetchAnswer {
    /// All but the records.
    pub(in crate::api) response: FetchResponse,
    pub(super) records: Vec<Vec<Bytes>>,
    /// Whether all of them came from the object store.
    pub(in crate::api) is_behind: bool,
}

impl From<FetchResponse> for FetchAnswer {
    fn from(response: FetchResponse) -> Self {
        Self { response, records: Vec::new(), is_behind: false }
    }
}

impl FetchAnswer {
    /// The body, or why it cannot be written.
    pub(in crate::api) fn encode(self, version: i16) -> Result<Pieces, String> {
        let Self { mut response, records, .. } = self;
        let (mut records, topics) = (records.into_iter(), std::mem::take(&mut response.responses));
        let mut writer = Writer { done: Pieces::default(), now: BytesMut::new(), version };
        let head = if version < SESSIONS_FIRST { 4 } else { 10 };
        let whole = writer.coded(&response)?;
        let tags = whole.get(head..).and_then(|rest| rest.strip_prefix(writer.nothing())).ok_or_else(misfit)?;
        writer.now.extend_from_slice(&whole[..head]);
        writer.length(topics.len())?;
        for mut topic in topics {
            let partitions = std::mem::take(&mut topic.partitions);
            writer.up_to_list(&topic)?;
            writer.length(partitions.len())?;
            for data in partitions {
                writer.partition(data, records.next().unwrap_or_default())?;
            }
            writer.no_tags();
        }
        writer.now.extend_from_slice(tags);
        Ok(writer.end())
    }
}

/// What is written so far.
struct Writer {
    done: Pieces,
    /// What comes behind that, in bytes of its own.
    now: BytesMut,
    version: i16,
}

impl Writer {
    const fn is_flexible(&self) -> bool {
        self.version >= FLEXIBLE_FIRST
    }

    /// The codec's words for a thing.
    fn coded(&self, thing: &impl Encodable) -> Result<BytesMut, String> {
        let mut out = BytesMut::new();
        thing.encode(&mut out, self.version).map_err(|error| error.to_string())?;
        Ok(out)
    }

    /// How the codec writes a list or records of length zero.
    const fn nothing(&self) -> &'static [u8] {
        if self.is_flexible() { &[1] } else { &[0; 4] }
    }

    /// The same, and that no tag follows.
    const fn nothing_more(&self) -> &'static [u8] {
        if self.is_flexible() { &[1, 0] } else { &[0; 4] }
    }

    /// Writes a thing up to the length of what it ends with, which is empty.
    fn up_to_list(&mut self, thing: &impl Encodable) -> Result<(), String> {
        let whole = self.coded(thing)?;
        self.now.extend_from_slice(whole.strip_suffix(self.nothing_more()).ok_or_else(misfit)?);
        Ok(())
    }

    fn length(&mut self, length: usize) -> Result<(), String> {
        let length = i32::try_from(length).map_err(|error| error.to_string())?;
        if !self.is_flexible() {
            self.now.put_i32(length);
            return Ok(());
        }
        // One more than it is, as an unsigned varint: seven bits a byte, the lowest first (KIP-482).
        let mut left = length.unsigned_abs() + 1;
        while left > 0x7f {
            self.now.put_u8((left & 0x7f) as u8 | 0x80);
            left >>= 7;
        }
        self.now.put_u8(left as u8);
        Ok(())
    }

    fn no_tags(&mut self) {
        if self.is_flexible() {
            self.now.put_u8(0);
        }
    }

    fn partition(&mut self, data: PartitionData, batches: Vec<Bytes>) -> Result<(), String> {
        if batches.is_empty() {
            let whole = self.coded(&data)?;
            self.now.extend_from_slice(&whole);
            return Ok(());
        }
        self.up_to_list(&data.with_records(Some(Bytes::new())))?;
        self.length(batches.iter().map(Bytes::len).sum())?;
        for batch in batches {
            if batch.len() <= COPIED_BYTES_MAX {
                self.now.extend_from_slice(&batch);
            } else {
                self.done.push(self.now.split().freeze());
                self.done.push(batch);
            }
        }
        self.no_tags();
        Ok(())
    }

    fn end(mut self) -> Pieces {
        self.done.push(self.now.freeze());
        self.done
    }
}

fn misfit() -> String {
    "the codec writes it otherwise than it did".to_owned()
}

#[cfg(test)]
mod tests {
    use bytes::Buf;
    use kafka_protocol::{
        messages::fetch_response::{AbortedTransaction, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint},
        protocol::StrBytes,
    };
    use uuid::Uuid;

    use super::*;

    fn partition(index: i32, records: &[Bytes]) -> PartitionData {
        let aborted = AbortedTransaction::default().with_producer_id(7.into()).with_first_offset(3);
        PartitionData::default()
            .with_partition_index(index)
            .with_high_watermark(1 << 40)
            .with_last_stable_offset(9)
            .with_log_start_offset(2)
            .with_aborted_transactions((index > 0).then(|| vec![aborted]))
            .with_records(Some(records.concat().into()))
    }

    fn topic(version: i16, name: &str, partitions: Vec<PartitionData>) -> FetchableTopicResponse {
        let topic = FetchableTopicResponse::default().with_partitions(partitions);
        if version < 13 {
            topic.with_topic(StrBytes::from_string(name.to_owned()).into())
        } else {
            topic.with_topic_id(Uuid::from_u128(9 << 99))
        }
    }

    #[test]
    fn it_is_byte_for_byte_what_the_codec_writes_of_records_in_one_piece() {
        let batch = |byte: u8, length: usize| Bytes::from(vec![byte; length]);
        let records = vec![
            vec![batch(1, 10), batch(2, 5_000), batch(3, 3_000), batch(4, 2_048)],
            Vec::new(),
            vec![batch(5, 1)],
            vec![batch(6, 200_000)],
        ];
        for version in 4..=18 {
            let of = |n: usize| partition(i32::try_from(n).expect("few"), &records[n]);
            let mut failed = of(1).with_error_code(74);
            if version >= FLEXIBLE_FIRST {
                failed.current_leader = LeaderIdAndEpoch::default().with_leader_id(3.into()).with_leader_epoch(8);
            }
            let topics = vec![
                topic(version, "one", vec![of(0), failed]),
                topic(version, &"long".repeat(99), vec![of(2), of(3)]),
            ];
            let mut response = FetchResponse::default().with_throttle_time_ms(70_000).with_responses(topics);
            if version >= SESSIONS_FIRST {
                response = response.with_session_id(77);
            }
            if version >= 16 {
                response.node_endpoints = vec![NodeEndpoint::default().with_node_id(3.into()).with_port(9)];
            }
            let mut expected = BytesMut::new();
            response.encode(&mut expected, version).expect("the codec writes it");
            let mut answer = FetchAnswer::from(response);
            for partition in answer.response.responses.iter_mut().flat_map(|topic| &mut topic.partitions) {
                partition.records = Some(Bytes::new());
            }
            answer.records.clone_from(&records);
            let pieces = answer.encode(version).expect("written");
            assert_eq!(pieces.len(), expected.len());
            assert_eq!(pieces.chunk().len() + 5_000 + 3_000 + 200_000, expected.len() - rest(&pieces), "{version}");
            let mut pieces = pieces;
            assert_eq!(pieces.copy_to_bytes(pieces.remaining()), expected.freeze(), "version {version}");
        }
    }

    /// Bytes that are neither in the first piece nor in a batch of their own.
    fn rest(pieces: &Pieces) -> usize {
        let mut slices = [std::io::IoSlice::new(&[]); 16];
        let filled = pieces.chunks_vectored(&mut slices);
        slices[1..filled]
            .iter()
            .map(|slice| slice.len())
            .filter(|length| ![5_000, 3_000, 200_000].contains(length))
            .sum()
    }

    #[test]
    fn an_answer_without_topics_is_the_codecs_too() {
        for version in 4..=18 {
            let response = FetchResponse::default().with_throttle_time_ms(5);
            let mut expected = BytesMut::new();
            response.encode(&mut expected, version).expect("the codec writes it");
            let mut pieces = FetchAnswer::from(response).encode(version).expect("written");
            assert_eq!(pieces.copy_to_bytes(pieces.remaining()), expected.freeze(), "version {version}");
        }
    }
}
