//! DescribeLogDirs: how much each partition holds. There is one place, the folder of the log; what counts is all that is kept of
//! a partition, in the write-ahead log and in the object store, because that is what tools ask this request for.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::{
    DescribeLogDirsRequest, DescribeLogDirsResponse,
    describe_log_dirs_response::{DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic},
};

use super::text;
use crate::{broker::Broker, topics::Topic};

pub(super) async fn answer(broker: &Broker, request: DescribeLogDirsRequest) -> DescribeLogDirsResponse {
    let topics = match request.topics {
        None => broker.inner.topics.all().iter().map(|topic| describe(broker, topic, |_| true)).collect(),
        Some(asked) => {
            // Each is told once, so that a request cannot multiply its answer.
            let mut wanted: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
            for topic in asked {
                wanted.entry(topic.topic.to_string()).or_default().extend(topic.partitions);
            }
            let known = wanted.into_iter().filter_map(|(name, partitions)| {
                let topic = broker.inner.topics.get(&name)?;
                Some(describe(broker, &topic, |index| partitions.contains(&index)))
            });
            known.collect()
        }
    };
    let (total, usable) = broker.inner.log.space().unwrap_or((-1, -1));
    let place = DescribeLogDirsResult::default()
        .with_log_dir(text(broker.inner.log.folder().display().to_string()))
        .with_topics(topics)
        .with_total_bytes(total)
        .with_usable_bytes(usable);
    DescribeLogDirsResponse::default().with_results(vec![place])
}

fn describe(broker: &Broker, topic: &Topic, wanted: impl Fn(i32) -> bool) -> DescribeLogDirsTopic {
    let partitions = topic.streams().filter_map(|stream| {
        let index = i32::try_from(stream.partition.get()).ok().filter(|index| wanted(*index))?;
        let bytes = broker.inner.log.bounds(stream).ok()?.bytes;
        let partition = DescribeLogDirsPartition::default().with_partition_index(index);
        Some(partition.with_partition_size(i64::try_from(bytes).unwrap_or(i64::MAX)))
    });
    DescribeLogDirsTopic::default().with_name(text(topic.name.clone()).into()).with_partitions(partitions.collect())
}
