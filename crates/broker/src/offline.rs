//! What can be told of stored batches without a running broker: their offsets and checksums, and topics' names. Called by `cairn broker`
//! where it checks a store or salvages what a former owner wrote; changes nothing.

use std::collections::BTreeMap;

use cairn_log::{BatchSpan, Offset, StreamId};
use uuid::Uuid;

use crate::{
    batch::{self, BatchError, BatchHeader},
    topics,
};

/// Names of topics, as the catalogue's own records tell them.
#[derive(Debug, Clone, Default)]
pub struct Names(BTreeMap<Uuid, String>);

impl Names {
    /// Judges one batch, and keeps what it says of topics.
    ///
    /// # Errors
    /// What is wrong with the batch, in words.
    pub fn judge(&mut self, stream: StreamId, bytes: &[u8]) -> Result<BatchSpan, String> {
        let span = span(bytes).map_err(|error| error.to_string())?;
        if stream == topics::own_stream() {
            let records = batch::decode(bytes, batch::DECOMPRESSED_BYTES_MAX).map_err(|error| error.to_string())?;
            for record in records {
                let named = topics::named(record.key.as_deref().unwrap_or_default(), record.value.as_deref());
                // What was deleted keeps its name: ids are never given again.
                self.0.extend(named);
            }
        }
        Ok(span)
    }

    /// The stream whose batches name topics.
    #[must_use]
    pub fn stream() -> StreamId {
        topics::own_stream()
    }

    /// A topic's name.
    #[must_use]
    pub fn topic(&self, id: Uuid) -> Option<&str> {
        self.0.get(&id).map(String::as_str)
    }

    /// A stream for people: `orders-0`, or its id where no record names it.
    #[must_use]
    pub fn partition(&self, stream: StreamId) -> String {
        if stream == topics::own_stream() {
            return "the catalogue of topics".to_owned();
        }
        match self.topic(stream.topic) {
            Some(name) => format!("{name}-{}", stream.partition),
            None => stream.to_string(),
        }
    }

    /// Whether the broker alone writes it.
    #[must_use]
    pub fn is_own(&self, stream: StreamId) -> bool {
        stream == topics::own_stream() || self.topic(stream.topic).is_some_and(|name| name.starts_with("__"))
    }
}

/// The offsets of the one batch that `bytes` are, after its checksum.
fn span(bytes: &[u8]) -> Result<BatchSpan, BatchError> {
    let header = BatchHeader::parse(bytes)?;
    if bytes.len() > header.total_bytes {
        return Err(BatchError::Trailing { extra: bytes.len() - header.total_bytes });
    }
    batch::check_crc(bytes, &header)?;
    let number = |value: i64, what| u64::try_from(value).map_err(|_| BatchError::Header { what });
    let base = number(header.base_offset, "base offset")?;
    let next = number(i64::from(header.last_offset_delta) + 1, "last offset delta")?;
    let records = number(i64::from(header.record_count), "record count")?;
    let next = base.checked_add(next).ok_or(BatchError::Header { what: "last offset delta" })?;
    Ok(BatchSpan { base: Offset::new(base), next: Offset::new(next), records })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, stamp};
    use cairn_log::{LeaderEpoch, PartitionIndex};

    #[test]
    fn a_batch_tells_its_offsets_and_a_flipped_bit_is_heard_of() {
        let mut batch = BatchBuilder::new();
        batch.push(5, Some(b"k"), Some(b"v"), &[]);
        batch.push(6, None, Some(b"w"), &[]);
        let mut bytes = batch.build().expect("a batch");
        stamp(&mut bytes, Offset::new(40), LeaderEpoch::new(3));
        let stream = StreamId::new(Uuid::from_u128(4), PartitionIndex::new(1));
        let mut names = Names::default();
        let span = names.judge(stream, &bytes);
        assert_eq!(span, Ok(BatchSpan { base: Offset::new(40), next: Offset::new(42), records: 2 }));
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        assert!(names.judge(stream, &bytes).is_err_and(|words| words.contains("checksum")));
        assert!(names.judge(stream, &bytes[..20]).is_err());
    }

    #[test]
    fn topics_are_named_by_the_records_of_the_catalogue_also_after_they_are_gone() {
        let id = Uuid::from_u128(9);
        let mut names = Names::default();
        for value in [Some(&br#"{"name":"orders","partitions":2,"configs":{}}"#[..]), None] {
            let mut batch = BatchBuilder::new();
            batch.push(5, Some(format!("topic/{id}").as_bytes()), value, &[]);
            batch.push(5, Some(b"epoch"), Some(br#"{"epoch":3}"#), &[]);
            names.judge(topics::own_stream(), &batch.build().expect("a batch")).expect("it is whole");
        }
        assert_eq!(names.topic(id), Some("orders"));
        assert_eq!(names.partition(StreamId::new(id, PartitionIndex::new(1))), "orders-1");
        assert!(names.is_own(topics::own_stream()) && !names.is_own(StreamId::new(id, PartitionIndex::new(0))));
    }
}
