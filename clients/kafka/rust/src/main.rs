//! Confluent's client for Rust (crate `confluent-kafka`): see ../../README.md.

use std::{
    collections::{HashMap, HashSet},
    process::exit,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use confluent_kafka::{
    admin::{AdminClient, AdminClientConfig, NewTopic},
    common::{
        TopicPartition,
        header::{Header, Headers, RecordHeaders},
        serialization::{ByteArrayDeserializer, ByteArraySerializer},
    },
    consumer::{Consumer, ConsumerConfig, ConsumerRecord, KafkaConsumer, SubscriptionPattern},
    producer::{KafkaProducer, Producer, ProducerConfig, ProducerRecord},
};
use tokio::{task::JoinHandle, time::sleep};

type Bytes = Vec<u8>;

struct Options {
    bootstrap: String,
    topic: String,
    partitions: usize,
    records: usize,
}

impl Options {
    fn given() -> Self {
        let given: Vec<String> = std::env::args().skip(1).collect();
        let of =
            |name: &str| given.chunks(2).find(|pair| pair[0] == name).map(|pair| pair[1].clone()).unwrap_or_default();
        let number = |name: &str| of(name).parse().unwrap_or_else(|_| fail(&format!("{name} must be a number")));
        Self {
            bootstrap: of("--bootstrap"),
            topic: of("--topic"),
            partitions: number("--partitions"),
            records: number("--records"),
        }
    }

    fn properties(&self, more: &[(&str, &str)]) -> HashMap<String, String> {
        let given = [("bootstrap.servers", self.bootstrap.as_str())];
        given.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn length(&self, partition: usize) -> i64 {
        ((self.records - partition + self.partitions - 1) / self.partitions) as i64
    }

    fn places(&self) -> Vec<TopicPartition> {
        (0..self.partitions).map(|partition| TopicPartition::new(self.topic.as_str(), partition as i32)).collect()
    }
}

fn fail(text: &str) -> ! {
    println!("FAILED {text}");
    exit(1)
}

fn need(holds: bool, text: impl FnOnce() -> String) {
    if !holds {
        fail(&text());
    }
}

fn key(i: usize) -> Bytes {
    format!("key-{i}").into_bytes()
}

fn value(i: usize) -> Bytes {
    (0..50 + i % 200).map(|j| ((31 * i + 7 * j) & 255) as u8).collect()
}

/// What came back, and on which occasions the broker was killed.
#[derive(Default)]
struct Book {
    delivered: HashSet<usize>,
    again: usize,
    killed: HashSet<&'static str>,
}

impl Book {
    /// Asks the driver, once for each occasion, to kill the broker.
    fn kill_once(&mut self, when: &'static str) {
        if self.killed.insert(when) {
            println!("kill");
        }
    }

    fn deliver(&mut self, options: &Options, record: &ConsumerRecord<Bytes, Bytes>) {
        let (offset, partition) = (record.offset() as usize, record.partition() as usize);
        let i = offset * options.partitions + partition;
        need(i < options.records, || format!("partition {partition} offset {offset} was never written"));
        need(record.key() == Some(&key(i)), || format!("record {i}: its key differs"));
        need(record.value() == Some(&value(i)), || format!("record {i}: its value differs"));
        let headers = record.headers().to_array();
        let right =
            headers.len() == 1 && headers[0].key() == "n" && headers[0].value() == Some(i.to_string().as_bytes());
        need(right, || format!("record {i}: its headers differ"));
        if !self.delivered.insert(i) {
            self.again += 1;
        }
    }
}

async fn write(options: &Options, book: &Mutex<Book>) {
    let settings = [
        ("acks", "all"),
        ("enable.idempotence", "true"),
        ("compression.type", "lz4"),
        ("linger.ms", "5"),
        ("delivery.timeout.ms", "120000"),
        ("max.block.ms", "60000"),
    ];
    let config = ProducerConfig::new(&options.properties(&settings)).unwrap_or_else(|error| fail(&error.to_string()));
    let producer =
        KafkaProducer::<Bytes, Bytes>::new(config, ByteArraySerializer::default(), ByteArraySerializer::default());
    let producer = producer.unwrap_or_else(|error| fail(&format!("producer: {error}")));
    let mut sent = Vec::new();
    for i in 0..options.records {
        let mut headers = RecordHeaders::new();
        headers
            .add_with_key_value("n", Some(i.to_string().as_bytes()))
            .unwrap_or_else(|error| fail(&error.to_string()));
        let partition = Some((i % options.partitions) as i32);
        let record = ProducerRecord::with_partition_key_headers(
            options.topic.clone(),
            partition,
            Some(key(i)),
            Some(value(i)),
            headers,
        );
        let record = record.unwrap_or_else(|error| fail(&error.to_string()));
        let future = Producer::send(&producer, record).await;
        sent.push((i, future.unwrap_or_else(|error| fail(&format!("record {i}: {error}")))));
        if sent.len() < 500 && i + 1 < options.records {
            continue;
        }
        for (i, future) in sent.drain(..) {
            let done = future.get_with_timeout(Duration::from_secs(120)).await;
            let done = done.unwrap_or_else(|error| fail(&format!("record {i}: {error}")));
            let expected = (i / options.partitions) as i64;
            need(done.offset() == expected, || format!("record {i} was acknowledged at offset {}", done.offset()));
        }
        if i * 2 >= options.records {
            book.lock().expect("the book").kill_once("written");
        }
    }
    producer.close().await.unwrap_or_else(|error| fail(&format!("close: {error}")));
}

fn consumer(options: &Options, group: &str) -> KafkaConsumer<Bytes, Bytes> {
    let settings = [
        ("group.id", group),
        ("group.protocol", "consumer"),
        ("auto.offset.reset", "earliest"),
        ("enable.auto.commit", "false"),
        ("max.poll.records", "300"),
        ("default.api.timeout.ms", "20000"),
    ];
    let config = ConsumerConfig::new(&options.properties(&settings)).unwrap_or_else(|error| fail(&error.to_string()));
    let made = KafkaConsumer::new(config, ByteArrayDeserializer::default(), ByteArrayDeserializer::default());
    made.unwrap_or_else(|error| fail(&format!("consumer: {error}")))
}

/// A consumer of the group, from its first poll to its leaving.
struct Member {
    leaving: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Member {
    fn start(options: &Arc<Options>, group: &str, by_pattern: bool, book: &Arc<Mutex<Book>>) -> Self {
        let leaving = Arc::new(AtomicBool::new(false));
        let (ends, options, book) = (Arc::clone(&leaving), Arc::clone(options), Arc::clone(book));
        let mut consumer = consumer(&options, group);
        let task = tokio::spawn(async move {
            let subscribed = if by_pattern {
                // Dots of a name match themselves too.
                consumer.subscribe_with_pattern(SubscriptionPattern::new(options.topic.clone())).await
            } else {
                consumer.subscribe_with_topics(vec![options.topic.clone()]).await
            };
            subscribed.unwrap_or_else(|error| fail(&format!("subscribe: {error}")));
            while !ends.load(Ordering::Relaxed) {
                let waits = {
                    let book = book.lock().expect("the book");
                    book.delivered.len() * 2 >= options.records && !book.killed.contains("read")
                };
                if waits {
                    sleep(Duration::from_millis(5)).await;
                    continue;
                }
                let found = match consumer.poll(Duration::from_millis(200)).await {
                    Ok(found) => found,
                    Err(error) => fail(&format!("poll: {error}")),
                };
                if found.is_empty() {
                    continue;
                }
                {
                    let mut book = book.lock().expect("the book");
                    found.into_iter().for_each(|record| book.deliver(&options, &record));
                }
                // What could not be committed is delivered again.
                let _ = consumer.commit_sync().await;
            }
            consumer.close().await.unwrap_or_else(|error| fail(&format!("leave: {error}")));
        });
        Self { leaving, task }
    }
}

async fn read(options: &Arc<Options>, group: &str, book: &Arc<Mutex<Book>>) -> Vec<Member> {
    let join = |by_pattern| Member::start(options, group, by_pattern, book);
    let mut members = vec![join(false), join(false)];
    let mut third = false;
    let patience = Duration::from_secs(300) + Duration::from_millis(10 * options.records as u64);
    let begun = Instant::now();
    loop {
        let delivered = book.lock().expect("the book").delivered.len();
        if delivered >= options.records {
            return members;
        }
        need(begun.elapsed() < patience, || format!("only {delivered} records came back"));
        if !third && delivered * 4 >= options.records {
            members.push(join(true));
            third = true;
        }
        if delivered * 2 >= options.records {
            book.lock().expect("the book").kill_once("read");
            if members.len() == 3 {
                members.remove(0).leaving.store(true, Ordering::Relaxed);
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// The group's committed offsets and the partitions' ends are what was written.
async fn check_ends(options: &Options, group: &str) {
    let mut consumer = consumer(options, group);
    let places = options.places();
    let begun = Instant::now();
    loop {
        let committed = consumer.committed(&places).await.unwrap_or_else(|error| fail(&format!("committed: {error}")));
        let done = places.iter().all(|place| {
            let offset = committed.get(place).and_then(Option::as_ref).map(|found| found.offset());
            offset == Some(options.length(place.partition() as usize))
        });
        if done {
            break;
        }
        need(begun.elapsed() < Duration::from_secs(60), || "not everything is committed".to_owned());
        sleep(Duration::from_millis(200)).await;
    }
    let ends = consumer.end_offsets(&places).await.unwrap_or_else(|error| fail(&format!("end offsets: {error}")));
    for place in &places {
        let (end, expected) = (ends.get(place).copied(), options.length(place.partition() as usize));
        need(end == Some(expected), || format!("partition {} ends at {end:?}", place.partition()));
    }
    consumer.close().await.unwrap_or_else(|error| fail(&format!("close: {error}")));
}

#[tokio::main]
async fn main() {
    let options = Arc::new(Options::given());
    let book = Arc::new(Mutex::new(Book::default()));
    let group = format!("{}.group", options.topic);
    let config = AdminClientConfig::new(&options.properties(&[])).unwrap_or_else(|error| fail(&error.to_string()));
    let admin = AdminClient::create(config).unwrap_or_else(|error| fail(&format!("admin: {error}")));
    let topic = NewTopic::with_num_partitions_replication_factor(
        options.topic.as_str(),
        Some(options.partitions as i32),
        Some(1),
    );
    admin.create_topics(&[topic]).all().get().await.unwrap_or_else(|error| fail(&format!("create topic: {error}")));
    write(&options, &book).await;
    let members = read(&options, &group, &book).await;
    check_ends(&options, &group).await;
    for member in &members {
        member.leaving.store(true, Ordering::Relaxed);
    }
    for member in members {
        let _ = tokio::time::timeout(Duration::from_secs(20), member.task).await;
    }
    let again = book.lock().expect("the book").again;
    println!("ok {} records, {} partitions, 3 members, {again} delivered again", options.records, options.partitions);
    exit(0)
}
