//! `compression.type`: how the batches of a topic are packed, whatever their producers do.

use cairn_broker::{Principal, TopicSpec, batch, batch::BatchBuilder};
use cairn_log::PartitionIndex;
use kafka_protocol::messages::{
    ApiKey, ProduceRequest, RequestKind, ResponseKind,
    produce_request::{PartitionProduceData, TopicProduceData},
};
use uuid::Uuid;

use super::{name, produce, produced};
use crate::support::{Served, Wire, everything, quick};

async fn create(served: &Served, topic: &str, configs: &[(&str, &str)]) -> Uuid {
    let configs = configs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let spec = TopicSpec { name: topic.into(), partitions: Some(3), configs };
    served.broker.create_topic(&Principal::Internal, spec).await.unwrap().id
}

/// One record of so many equal bytes, from a producer that counts, packed as a topic packed it.
async fn packed(served: &Served, codec: &str, bytes: usize, sequence: i32) -> bytes::Bytes {
    let topic = format!("source-{}", served.broker.topics().len());
    create(served, &topic, &[("compression.type", codec), ("max.message.bytes", "10000000")]).await;
    let mut builder = BatchBuilder::new();
    builder.push(1_000, Some(b"k"), Some(&vec![b'a'; bytes]), &[]);
    let zero = PartitionIndex::new(0);
    served.broker.produce(&Principal::Anonymous, &topic, zero, builder.build().unwrap()).await.unwrap();
    let mut batch = bytes::BytesMut::from(&everything(&served.broker, &topic, 0, 1).await[0][..]);
    batch[43..51].copy_from_slice(&77_i64.to_be_bytes());
    batch[51..53].copy_from_slice(&0_i16.to_be_bytes());
    batch[53..57].copy_from_slice(&sequence.to_be_bytes());
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch.freeze()
}

#[tokio::test]
async fn a_topic_packs_what_its_producers_packed_otherwise_and_knows_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path(), quick()).await;
    let mut wire = Wire::connect(&served).await;
    for (code, wanted) in [(0, "uncompressed"), (1, "gzip"), (2, "snappy"), (3, "lz4"), (4, "zstd")] {
        let id = create(&served, wanted, &[("compression.type", wanted)]).await;
        for (at, came) in ["uncompressed", "gzip", "snappy", "lz4", "zstd"].into_iter().enumerate() {
            let batch = packed(&served, came, 5_000, at as i32).await;
            let asked = produce(wanted, id, 9, -1, batch);
            assert_eq!(produced(wire.ask(ApiKey::Produce, 9, &asked).await), (0, at as i64), "{came} for {wanted}");
            let again = produced(wire.ask(ApiKey::Produce, 9, &asked).await);
            assert_eq!(again, (0, at as i64), "{came} for {wanted}: what comes twice is stored once");
        }
        let all = everything(&served.broker, wanted, 0, 5).await;
        for (at, bytes) in all.iter().enumerate() {
            let header = batch::BatchHeader::parse(bytes).unwrap();
            assert_eq!((header.attributes & 7, header.base_offset, header.producer_id), (code, at as i64, 77));
            let records = batch::decode(bytes, 1 << 20).unwrap();
            assert_eq!(records[0].value.as_deref(), Some(&vec![b'a'; 5_000][..]));
        }
    }
    served.end().await;
}

#[tokio::test]
async fn what_a_batch_becomes_is_limited_as_what_comes() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = quick();
    options.limits.request_bytes_max = 50_000;
    let served = Served::start(folder.path(), options).await;
    let mut wire = Wire::connect(&served).await;
    let plain = [("compression.type", "uncompressed"), ("max.message.bytes", "30000")];
    let id = create(&served, "plain", &plain).await;
    let as_came = create(&served, "as-came", &[("max.message.bytes", "30000")]).await;
    let large = packed(&served, "zstd", 40_000, 0).await;
    assert!(large.len() < 1_000);
    let first = packed(&served, "zstd", 20_000, 0).await;
    let mut send = async |topic: &str, id, batch| {
        produced(wire.ask(ApiKey::Produce, 9, &produce(topic, id, 9, -1, batch)).await).0
    };
    assert_eq!(send("as-came", as_came, large.clone()).await, 0, "small as it is");
    assert_eq!(send("plain", id, large).await, 10, "too large for the topic once it is unpacked");
    assert_eq!(send("plain", id, first.clone()).await, 0);
    let last = packed(&served, "zstd", 20_000, 1).await;
    let partitions = [0, 1, 2].map(|index| {
        let batch = if index == 0 { last.clone() } else { first.clone() };
        PartitionProduceData::default().with_index(index).with_records(Some(batch))
    });
    let data = TopicProduceData::default().with_name(name("plain")).with_partition_data(partitions.to_vec());
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(1_000).with_topic_data(vec![data]);
    let ResponseKind::Produce(answer) = wire.ask(ApiKey::Produce, 9, &RequestKind::Produce(request)).await else {
        panic!()
    };
    let codes: Vec<i16> =
        answer.responses[0].partition_responses.iter().map(|partition| partition.error_code).collect();
    assert_eq!(codes, [0, 0, 10], "one by one each would fit, together they are more than a request may bring");
    served.end().await;
}
