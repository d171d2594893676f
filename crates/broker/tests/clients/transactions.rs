//! librdkafka's transactional producer: commit, abort, consume-transform-produce, fencing, and what survives a restart.

use super::*;

fn transactional(served: &Served, id: &str) -> FutureProducer {
    let producer: FutureProducer = config(served)
        .set("transactional.id", id)
        .set("transaction.timeout.ms", "60000")
        .set("linger.ms", "1")
        .create()
        .unwrap();
    tokio::task::block_in_place(|| producer.init_transactions(PATIENCE)).unwrap();
    producer
}

fn reader(served: &Served, group: &str, isolation: &str) -> StreamConsumer {
    let consumer: StreamConsumer = config(served)
        .set("group.id", group)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("isolation.level", isolation)
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    consumer
}

/// All that a reader gets of a topic of one partition, up to its end.
async fn all(served: &Served, topic: &str, isolation: &str) -> Vec<String> {
    let consumer = reader(served, "reader", isolation);
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let mut values = Vec::new();
    loop {
        match tokio::time::timeout(PATIENCE, consumer.recv()).await.expect("a record or the end") {
            Ok(message) => values.push(std::str::from_utf8(message.payload().unwrap()).unwrap().to_owned()),
            Err(KafkaError::PartitionEOF(_)) => return values,
            Err(error) => panic!("{error}"),
        }
    }
}

async fn send(producer: &FutureProducer, topic: &str, values: &[&str]) {
    for value in values {
        let sent = producer.send(FutureRecord::<(), _>::to(topic).partition(0).payload(*value), PATIENCE).await;
        sent.map_err(|(error, _)| error).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_committed_is_read_and_what_is_aborted_is_not_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path(), quick()).await;
    create(&served, "t", 1).await;
    let producer = transactional(&served, "tx");
    for (round, commits) in [true, false, true, false].into_iter().enumerate() {
        producer.begin_transaction().unwrap();
        let (one, two) = (format!("{commits} {round} one"), format!("{commits} {round} two"));
        send(&producer, "t", &[&one, &two]).await;
        let ended = tokio::task::block_in_place(|| match commits {
            true => producer.commit_transaction(PATIENCE),
            false => producer.abort_transaction(PATIENCE),
        });
        ended.unwrap();
    }
    producer.begin_transaction().unwrap();
    send(&producer, "t", &["open"]).await;
    let committed = ["true 0 one", "true 0 two", "true 2 one", "true 2 two"];
    assert_eq!(all(&served, "t", "read_committed").await, committed);
    assert_eq!(all(&served, "t", "read_uncommitted").await.len(), 9);
    drop(producer);
    served.end().await;
    let served = Served::start(folder.path(), quick()).await;
    assert_eq!(all(&served, "t", "read_committed").await, committed);
    // Whoever comes with the same id aborts what was left open.
    let producer = transactional(&served, "tx");
    producer.begin_transaction().unwrap();
    send(&producer, "t", &["last"]).await;
    tokio::task::block_in_place(|| producer.commit_transaction(PATIENCE)).unwrap();
    assert_eq!(all(&served, "t", "read_committed").await, [&committed[..], &["last"]].concat());
    drop(producer);
    served.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_go_through_a_transform_exactly_once() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path(), quick()).await;
    create(&served, "in", 1).await;
    create(&served, "out", 1).await;
    let plain: FutureProducer = config(&served).create().unwrap();
    let values: Vec<String> = (0..60).map(|at| at.to_string()).collect();
    send(&plain, "in", &values.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let producer = transactional(&served, "transform");
    let mut aborts = 0;
    for round in 0.. {
        let consumer = reader(&served, "transform", "read_committed");
        consumer.subscribe(&["in"]).unwrap();
        producer.begin_transaction().unwrap();
        let (mut taken, mut next, mut ended) = (0, 0, false);
        while taken < 20 && !ended {
            match tokio::time::timeout(PATIENCE, consumer.recv()).await.expect("a record or the end") {
                Ok(message) => {
                    next = message.offset() + 1;
                    taken += 1;
                    let value = std::str::from_utf8(message.payload().unwrap()).unwrap();
                    send(&producer, "out", &[value]).await;
                }
                Err(KafkaError::PartitionEOF(_)) => ended = true,
                Err(error) => panic!("{error}"),
            }
        }
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset("in", 0, Offset::Offset(next)).unwrap();
        let aborts_now = round % 3 == 1;
        tokio::task::block_in_place(|| {
            let group = consumer.group_metadata().unwrap();
            if taken > 0 {
                producer.send_offsets_to_transaction(&offsets, &group, PATIENCE).unwrap();
            }
            match aborts_now {
                true => producer.abort_transaction(PATIENCE).unwrap(),
                false => producer.commit_transaction(PATIENCE).unwrap(),
            }
        });
        aborts += usize::from(aborts_now && taken > 0);
        if taken == 0 {
            break;
        }
    }
    assert!(aborts > 0, "nothing was aborted");
    assert_eq!(all(&served, "out", "read_committed").await, values);
    assert!(all(&served, "out", "read_uncommitted").await.len() > values.len());
    drop((producer, plain));
    served.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_whose_id_was_taken_cannot_commit() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path(), quick()).await;
    create(&served, "t", 1).await;
    let old = transactional(&served, "tx");
    old.begin_transaction().unwrap();
    send(&old, "t", &["zombie"]).await;
    let new = transactional(&served, "tx");
    let refused = tokio::task::block_in_place(|| old.commit_transaction(PATIENCE)).unwrap_err();
    let fatal = matches!(&refused, KafkaError::Transaction(error) if error.is_fatal());
    assert!(fatal, "{refused:?}");
    new.begin_transaction().unwrap();
    send(&new, "t", &["new"]).await;
    tokio::task::block_in_place(|| new.commit_transaction(PATIENCE)).unwrap();
    assert_eq!(all(&served, "t", "read_committed").await, ["new"]);
    drop((old, new));
    served.end().await;
}
