//! librdkafka against a served broker: every codec, groups that rebalance, offsets that survive.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "clients/compacting.rs"]
mod compacting;
#[path = "clients/logins.rs"]
mod logins;
#[path = "clients/store.rs"]
mod store;
mod support;
#[path = "clients/transactions.rs"]
mod transactions;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, CommitMode, Consumer, StreamConsumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, Headers, OwnedHeaders},
    producer::{FutureProducer, FutureRecord, Producer},
};
use support::{Served, quick};
use tokio::net::{TcpListener, TcpStream};

const PATIENCE: Duration = Duration::from_secs(60);

fn config(served: &Served) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", served.bootstrap());
    config
}

fn consumer(served: &Served, group: &str) -> StreamConsumer {
    config(served)
        .set("group.id", group)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "200")
        .set("topic.metadata.refresh.interval.ms", "500")
        .create()
        .unwrap()
}

async fn create(served: &Served, topic: &str, partitions: i32) {
    let admin: AdminClient<DefaultClientContext> = config(served).create().unwrap();
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(3));
    let made = admin.create_topics(&[new], &AdminOptions::new()).await.unwrap();
    assert_eq!(made, [Ok(topic.to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_produced_with_any_codec_is_consumed_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path(), quick()).await;
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = format!("codec-{codec}");
        create(&served, &topic, 3).await;
        let producer: FutureProducer = config(&served)
            .set("compression.type", codec)
            .set("enable.idempotence", "true")
            .set("linger.ms", "20")
            .create()
            .unwrap();
        let mut sent = BTreeMap::new();
        let mut waiting = Vec::new();
        for at in 0..300 {
            let key = format!("key-{at}");
            let value = format!("value-{at}-").repeat(1 + at % 20);
            let headers = OwnedHeaders::new().insert(Header { key: "at", value: Some(&at.to_string()) });
            let record = FutureRecord::to(&topic).key(&key).payload(&value).headers(headers);
            waiting.push((key.clone(), value.clone(), producer.send_result(record).unwrap()));
        }
        for (key, value, delivery) in waiting {
            let delivery = delivery.await.unwrap().unwrap();
            sent.insert((delivery.partition, delivery.offset), (key, value));
        }
        assert_eq!(sent.len(), 300, "{codec}: every offset is given once");
        let consumer = consumer(&served, &topic);
        consumer.subscribe(&[&topic]).unwrap();
        let mut got = BTreeMap::new();
        while got.len() < 300 {
            let message = tokio::time::timeout(PATIENCE, consumer.recv()).await.unwrap().unwrap();
            assert!(message.headers().unwrap().get(0).value.is_some());
            let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
            let record = (text(message.key()), text(message.payload()));
            assert!(got.insert((message.partition(), message.offset()), record).is_none());
        }
        assert_eq!(got, sent, "{codec}");
    }
    served.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_come_and_go_read_everything_between_them() {
    for strategy in ["range", "cooperative-sticky"] {
        members_come_and_go(strategy).await;
    }
}

async fn members_come_and_go(strategy: &str) {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path(), quick()).await;
    create(&served, "t", 4).await;
    let producer: FutureProducer = config(&served).set("linger.ms", "5").create().unwrap();
    let send = async |from: u32, to: u32| {
        for at in from..to {
            let (key, value) = (format!("{at}"), format!("{at}"));
            producer.send(FutureRecord::to("t").key(&key).payload(&value), PATIENCE).await.unwrap();
        }
    };
    let member = || {
        let consumer: StreamConsumer = config(&served)
            .set("group.id", "g")
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false")
            .set("session.timeout.ms", "6000")
            .set("heartbeat.interval.ms", "200")
            .set("partition.assignment.strategy", strategy)
            .create()
            .unwrap();
        consumer.subscribe(&["t"]).unwrap();
        consumer
    };
    let mut seen = BTreeSet::new();
    let first = member();
    send(0, 100).await;
    while seen.len() < 100 {
        take(&first, &mut seen).await;
    }
    let second = member();
    // Until both hold partitions, both must poll.
    let held = |consumer: &StreamConsumer| consumer.assignment().unwrap().count();
    let both = async {
        let mut dropped = BTreeSet::new();
        while !(held(&first) == 2 && held(&second) == 2) {
            tokio::select! {
                () = take(&first, &mut dropped) => {}
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
            }
            tokio::select! {
                () = take(&second, &mut dropped) => {}
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
            }
        }
        dropped
    };
    seen.extend(tokio::time::timeout(PATIENCE, both).await.expect("both get partitions"));
    send(100, 200).await;
    let mut other = BTreeSet::new();
    while seen.union(&other).count() < 200 {
        tokio::select! {
            () = take(&first, &mut seen) => {}
            () = take(&second, &mut other) => {}
        }
    }
    assert!(!other.is_empty() && seen.len() < 200, "both read");
    drop(first);
    send(200, 300).await;
    seen.extend(other);
    while seen.len() < 300 {
        take(&second, &mut seen).await;
    }
    drop(second);
    served.end().await;
}

async fn take(consumer: &StreamConsumer, seen: &mut BTreeSet<u32>) {
    let message = tokio::time::timeout(PATIENCE, consumer.recv()).await.expect("a record").unwrap();
    let value = std::str::from_utf8(message.payload().unwrap()).unwrap();
    seen.insert(value.parse().unwrap());
    // A rebalance may refuse it, and then somebody reads the record again.
    let _ = consumer.commit_message(&message, CommitMode::Sync);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn committed_offsets_and_their_metadata_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path(), quick()).await;
    create(&served, "t", 2).await;
    let producer: FutureProducer = config(&served).create().unwrap();
    for _ in 0..5 {
        producer.send(FutureRecord::<(), _>::to("t").partition(1).payload("v"), PATIENCE).await.unwrap();
    }
    let commit = |served: &Served| {
        let consumer: BaseConsumer = config(served).set("group.id", "alone").create().unwrap();
        let mut list = TopicPartitionList::new();
        let mut place = list.add_partition("t", 1);
        place.set_offset(Offset::Offset(3)).unwrap();
        place.set_metadata("where I was");
        consumer.commit(&list, CommitMode::Sync).unwrap();
    };
    tokio::task::block_in_place(|| commit(&served));
    drop(producer);
    served.end().await;
    let served = Served::start(folder.path(), quick()).await;
    tokio::task::block_in_place(|| {
        let consumer: BaseConsumer = config(&served).set("group.id", "alone").create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition("t", 1);
        let read = consumer.committed_offsets(list, PATIENCE).unwrap();
        let place = read.find_partition("t", 1).unwrap();
        assert_eq!(place.offset(), Offset::Offset(3));
        assert_eq!(place.metadata(), "where I was");
        assert_eq!(consumer.fetch_watermarks("t", 1, PATIENCE).unwrap(), (0, 5));
    });
    served.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outsider_cannot_write_what_is_protected_and_a_named_writer_can() {
    let folder = tempfile::tempdir().unwrap();
    let options = quick();
    let secret = cairn_broker::SecretHash::of([1; 16], b"s3cret");
    let users = options.users.clone();
    users.replace([("gateway".to_owned(), cairn_broker::User { secret, writes_protected: true })].into());
    let served = Served::start(folder.path(), options).await;
    let outsider: FutureProducer = config(&served).set("message.timeout.ms", "20000").create().unwrap();
    let record = || FutureRecord::<(), _>::to("mcp.calls").payload("v");
    let (error, _) = outsider.send(record(), PATIENCE).await.unwrap_err();
    let denied =
        |error: &KafkaError| matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::TopicAuthorizationFailed));
    assert!(denied(&error), "{error}");
    assert_eq!(served.broker.topic("mcp.calls"), None);
    let gateway: FutureProducer = config(&served)
        .set("security.protocol", "sasl_plaintext")
        .set("sasl.mechanism", "PLAIN")
        .set("sasl.username", "gateway")
        .set("sasl.password", "s3cret")
        .create()
        .unwrap();
    gateway.send(record(), PATIENCE).await.unwrap();
    let (error, _) = outsider.send(record(), PATIENCE).await.unwrap_err();
    assert!(denied(&error), "{error}");
    // Taken back, the right ends for the connection that is open.
    users.replace(std::collections::BTreeMap::new());
    let (error, _) = gateway.send(record(), PATIENCE).await.unwrap_err();
    assert!(denied(&error), "{error}");
    served.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_administrator_sees_configs_and_deletes_topics() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path(), quick()).await;
    let admin: AdminClient<DefaultClientContext> = config(&served).create().unwrap();
    let new = NewTopic::new("t", 2, TopicReplication::Fixed(-1)).set("retention.ms", "1234");
    admin.create_topics(&[new], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    let configs = admin.describe_configs(&[ResourceSpecifier::Topic("t")], &AdminOptions::new()).await.unwrap();
    let configs = configs[0].as_ref().unwrap();
    assert_eq!(configs.get("retention.ms").unwrap().value.as_deref(), Some("1234"));
    assert_eq!(configs.get("cleanup.policy").unwrap().value.as_deref(), Some("delete"));
    let metadata = admin.inner().fetch_metadata(Some("t"), PATIENCE).unwrap();
    assert_eq!(metadata.topics()[0].partitions().len(), 2);
    assert_eq!(metadata.topics()[0].partitions()[0].replicas(), [1]);
    let gone = admin.delete_topics(&["t", "never"], &AdminOptions::new()).await.unwrap();
    assert_eq!(gone[0], Ok("t".to_owned()));
    assert_eq!(gone[1], Err(("never".to_owned(), RDKafkaErrorCode::UnknownTopicOrPartition)));
    served.end().await;
}

/// A port mapping: what arrives at the address goes to `target`; counts its connections.
async fn forward(target: std::net::SocketAddr, listener: TcpListener, taken: Arc<AtomicUsize>) {
    while let Ok((mut near, _)) = listener.accept().await {
        taken.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(async move {
            let Ok(mut far) = TcpStream::connect(target).await else { return };
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_go_on_through_the_advertised_address() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mapped = listener.local_addr().unwrap();
    let mut options = quick();
    options.advertised = Some(format!("localhost:{}", mapped.port()).parse().unwrap());
    let served = Served::start(folder.path(), options).await;
    let taken = Arc::new(AtomicUsize::new(0));
    let mapping = tokio::spawn(forward(served.address, listener, Arc::clone(&taken)));
    // They are told the broker's own address, or the mapped one: either way the rest goes through the mapping.
    for (at, bootstrap) in [served.bootstrap(), mapped.to_string()].into_iter().enumerate() {
        let before = taken.load(Ordering::SeqCst);
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &bootstrap).set("broker.address.family", "v4");
        let producer: FutureProducer = config.clone().set("enable.idempotence", "true").create().unwrap();
        let (partition, value) = (0, format!("v{at}"));
        let record = FutureRecord::<(), _>::to("mapped").partition(partition).payload(&value);
        let delivery = producer.send(record, PATIENCE).await.unwrap();
        assert_eq!(delivery.offset, at as i64);
        let consumer: StreamConsumer =
            config.set("group.id", format!("g{at}")).set("auto.offset.reset", "earliest").create().unwrap();
        consumer.subscribe(&["mapped"]).unwrap();
        let message = tokio::time::timeout(PATIENCE, consumer.recv()).await.unwrap().unwrap();
        assert_eq!(message.payload(), Some(&b"v0"[..]));
        let metadata =
            tokio::task::block_in_place(|| producer.client().fetch_metadata(Some("mapped"), PATIENCE)).unwrap();
        let told: Vec<_> = metadata.brokers().iter().map(|b| (b.host().to_owned(), b.port())).collect();
        assert_eq!(told, [("localhost".to_owned(), i32::from(mapped.port()))]);
        assert!(taken.load(Ordering::SeqCst) > before, "through the mapping");
    }
    mapping.abort();
    served.end().await;
}
