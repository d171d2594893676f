//! What time says of offsets: across objects and the write-ahead log, in whatever order timestamps come, after records went.

use std::time::Duration;

use bytes::BytesMut;
use cairn_broker::{Principal, TopicSpec, batch::BatchBuilder};
use cairn_log::{Offset, PartitionIndex};
use kafka_protocol::messages::{
    ApiKey, ListOffsetsRequest, RequestKind, ResponseKind,
    list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
};

use super::{TOPIC, admin::delete_records, name};
use crate::support::{Served, Wire, eager, open_log, quick, until};

const ZERO: PartitionIndex = PartitionIndex::new(0);
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const GREATEST: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_STORED: i64 = -5;
const EARLIEST_NOT_STORED: i64 = -6;
const BATCHES: usize = 120;

/// Timestamps that jump about, the same in each run.
struct Times(u64);

impl Times {
    fn next(&mut self) -> i64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        1_000 + (self.0 >> 33) as i64 % 5_000
    }
}

fn batch_at(times: &[i64]) -> BytesMut {
    let mut builder = BatchBuilder::new();
    let bulk = [b'x'; 200];
    times.iter().for_each(|time| builder.push(*time, Some(b"k"), Some(&bulk), &[]));
    builder.build().unwrap()
}

/// Timestamp and offset for each of these questions; one request names a partition once.
async fn find(wire: &mut Wire, asked: &[i64]) -> Vec<(i64, i64)> {
    let mut found = Vec::new();
    for at in asked {
        let partition = ListOffsetsPartition::default().with_timestamp(*at);
        let topic = ListOffsetsTopic::default().with_name(name(TOPIC)).with_partitions(vec![partition]);
        let request = RequestKind::ListOffsets(ListOffsetsRequest::default().with_topics(vec![topic]));
        let ResponseKind::ListOffsets(answer) = wire.ask(ApiKey::ListOffsets, 11, &request).await else { panic!() };
        let one = &answer.topics[0].partitions[0];
        assert_eq!(one.error_code, 0);
        found.push((one.timestamp, one.offset));
    }
    found
}

/// Every question of which the answer could differ, against what the records say. `gone` is how many are no more.
async fn compare(wire: &mut Wire, times: &[i64], gone: usize) {
    let kept = || times.iter().enumerate().skip(gone);
    let mut asked: Vec<i64> = times.iter().flat_map(|time| [*time, *time + 1]).collect();
    asked.sort_unstable();
    asked.dedup();
    for some in asked.chunks(100) {
        let expected: Vec<_> = some
            .iter()
            .map(|at| kept().find(|(_, time)| *time >= at).map_or((-1, -1), |(offset, time)| (*time, offset as i64)))
            .collect();
        assert_eq!(find(wire, some).await, expected, "{gone} records are gone");
    }
    let greatest = kept().max_by_key(|(offset, time)| (*time, std::cmp::Reverse(*offset))).unwrap();
    let ends = find(wire, &[EARLIEST, LATEST, GREATEST]).await;
    assert_eq!(
        ends,
        [(-1, gone as i64), (-1, times.len() as i64), (*greatest.1, greatest.0 as i64)],
        "{gone} are gone"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_gives_the_first_record_that_reaches_it_wherever_that_lies() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::serve(open_log(eager(folder.path()), quick()).await).await;
    let configs = [("retention.ms".to_owned(), "-1".to_owned())].into();
    let spec = TopicSpec { name: TOPIC.into(), partitions: Some(1), configs };
    served.broker.create_topic(&Principal::Internal, spec).await.unwrap();
    let (mut source, mut times) = (Times(7), Vec::new());
    // The record with the greatest timestamp of all lies in the middle of a batch that is later cut in two.
    for at in 0..BATCHES {
        let mut of_batch = [source.next(), source.next(), source.next()];
        of_batch[1] += if at == BATCHES / 2 { 10_000 } else { 0 };
        served.broker.produce(&Principal::Anonymous, TOPIC, ZERO, batch_at(&of_batch)).await.unwrap();
        times.extend(of_batch);
    }
    until(|| served.broker.log().stats().wal_depth_bytes == 0).await;
    assert!(served.broker.log().stats().uploads > 1, "in several objects");
    let mut wire = Wire::connect(&served).await;
    let [stored, next] = find(&mut wire, &[LATEST_STORED, EARLIEST_NOT_STORED]).await[..] else { panic!() };
    assert_eq!(stored, (-1, times.len() as i64 - 1), "the last offset that the store has");
    assert_eq!(next, (-1, times.len() as i64), "the first that it has not");
    compare(&mut wire, &times, 0).await;
    let cut = BATCHES / 2 * 3 + 2;
    for gone in [1, 3, 100, cut] {
        let answer = wire.ask(ApiKey::DeleteRecords, 2, &delete_records(TOPIC, 0, gone as i64)).await;
        let ResponseKind::DeleteRecords(answer) = answer else { panic!() };
        assert_eq!(answer.topics[0].partitions[0].error_code, 0);
        compare(&mut wire, &times, gone).await;
    }
    served.end().await;
    let served = Served::serve(open_log(eager(folder.path()), quick()).await).await;
    let mut wire = Wire::connect(&served).await;
    for _ in 0..3 {
        let of_batch = [source.next(), source.next(), source.next()];
        served.broker.produce(&Principal::Anonymous, TOPIC, ZERO, batch_at(&of_batch)).await.unwrap();
        times.extend(of_batch);
    }
    compare(&mut wire, &times, cut).await;
    served.end().await;
}

#[tokio::test]
async fn what_is_not_stored_yet_is_local_and_a_cut_batch_answers_with_what_is_left_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let (served, _) = super::start(folder.path()).await;
    let mut wire = Wire::connect(&served).await;
    assert_eq!(
        find(&mut wire, &[GREATEST, EARLIEST_LOCAL, LATEST_STORED, EARLIEST_NOT_STORED, 0]).await,
        [(-1, -1), (-1, 0), (-1, -1), (-1, 0), (-1, -1)]
    );
    served.broker.produce(&Principal::Anonymous, TOPIC, ZERO, batch_at(&[9_000, 2_000, 3_000, 3_000])).await.unwrap();
    wire.ask(ApiKey::DeleteRecords, 2, &delete_records(TOPIC, 0, 1)).await;
    let asked = [GREATEST, EARLIEST_LOCAL, LATEST_STORED, EARLIEST_NOT_STORED, 2_500, 3_001];
    let found = find(&mut wire, &asked).await;
    assert_eq!(found, [(3_000, 2), (-1, 1), (-1, -1), (-1, 1), (3_000, 2), (-1, -1)]);
    served.broker.produce(&Principal::Anonymous, TOPIC, ZERO, batch_at(&[4_000, 8_000])).await.unwrap();
    assert_eq!(find(&mut wire, &[GREATEST, 3_001, 8_500]).await, [(8_000, 5), (4_000, 4), (-1, -1)]);
    let fetched = served.broker.fetch(TOPIC, ZERO, Offset::new(1), 1 << 20, Duration::ZERO).await.unwrap();
    assert_eq!(fetched.log_start.get(), 1);
    served.end().await;
}
