//! `[store]` as a user runs it: kill -9 in the middle of uploads, a bucket of S3, a store that goes away and comes back.
#![allow(clippy::print_stdout, reason = "the counts of a proof are printed where somebody asks for them")]

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use cairn_clock::Entropy;
use rdkafka::{
    ClientConfig, ClientContext, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::{BaseProducer, BaseRecord, Producer, ProducerContext, ThreadedProducer},
};
use serde_json::json;

use crate::{
    support::{Agent, LONG, Up, cairn, files, http, outcomes, run, text, wait_for},
    up::{metrics, value},
};

#[path = "../../../../clients/buckets/buckets.rs"]
mod buckets;
#[path = "../../../../clients/moto/moto.rs"]
pub(crate) mod moto;

/// Kills of the default run, and of a proof.
const KILLS: u64 = 16;
const KILLS_PROOF: u64 = 300;
/// Small and hasty, so that every kill finds an upload on its way.
pub(crate) const HASTY: &str = "upload_bytes = 20000\nupload_interval_ms = 15\nwal_segment_bytes = 262144\n\
                     retention_interval_ms = 50\ncache_bytes_max = 100000\n";
pub(crate) const PARTITIONS: i32 = 3;

pub(crate) fn configured(folder: &Path, store: &str) -> PathBuf {
    let path = folder.join("cairn.toml");
    fs::write(&path, format!("[store]\n{store}")).expect("written");
    path
}

pub(crate) fn start(program: &str, data: &Path, config: &Path) -> Up {
    start_with(program, data, config, &[])
}

pub(crate) fn start_with(program: &str, data: &Path, config: &Path, more: &[&str]) -> Up {
    let mut command = cairn();
    command.args([program, "--kafka", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"]).arg(data);
    command.arg("--config").arg(config).env("CAIRN_OPERATOR_TOKEN", crate::support::TOKEN).args(more);
    if program == "up" {
        command.args(["--gateway", "127.0.0.1:0"]);
    }
    Up::spawn(&mut command, data)
}

// ── kill -9 ───────────────────────────────────────────────────────────────────────────────────────────────────────────

/// Numbers by topic, partition and offset.
pub(crate) type Records = BTreeMap<(String, i32, i64), u64>;

/// What was acknowledged.
#[derive(Clone, Default)]
pub(crate) struct Acknowledged(pub(crate) Arc<Mutex<Records>>, Arc<AtomicU64>);

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = Box<u64>;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Self::DeliveryOpaque) {
        let Ok(message) = result else { return };
        let place = (message.topic().to_owned(), message.partition(), message.offset());
        assert!(self.0.lock().expect("whole").insert(place, *number).is_none(), "an offset was given twice");
        self.1.fetch_add(1, Ordering::SeqCst);
    }
}

/// Sends numbers in order, to a topic that keeps all and to one that keeps little, until it is told to stop.
fn load(kafka: &str, numbers: &AtomicU64, acknowledged: &Acknowledged, stop: &AtomicBool) {
    let producer: ThreadedProducer<Acknowledged> = ClientConfig::new()
        .set("bootstrap.servers", kafka)
        .set("enable.idempotence", "true")
        .set("batch.size", "20000")
        .set("linger.ms", "2")
        .set("queue.buffering.max.messages", "1000")
        .create_with_context(acknowledged.clone())
        .expect("a producer");
    while !stop.load(Ordering::SeqCst) {
        let number = numbers.fetch_add(1, Ordering::SeqCst);
        let value = format!("{number} {}", "x".repeat((number % 97) as usize * 10));
        let topic = if number % 5 < 2 { "kept" } else { "passing" };
        let partition = (number / 7) as i32 % PARTITIONS;
        let mut record =
            BaseRecord::<(), _, _>::with_opaque_to(topic, Box::new(number)).payload(&value).partition(partition);
        while let Err((error, back)) = producer.send(record) {
            assert!(matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)), "{error}");
            if stop.load(Ordering::SeqCst) {
                return producer.purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
            }
            record = back;
            pause(2);
        }
    }
    producer.purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
}

#[allow(clippy::disallowed_methods)] // real processes in real time
pub(crate) fn pause(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// Reads a topic from `from` on, or from where it begins by now.
pub(crate) fn read(kafka: &str, topic: &str, from: &BTreeMap<i32, i64>) -> Records {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka)
        .set("group.id", "store-tests")
        .set("auto.offset.reset", "earliest")
        // A commit that is due ends a poll with nothing.
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "20")
        .set("check.crcs", "true")
        .create()
        .expect("a consumer");
    let (mut list, mut ends) = (TopicPartitionList::new(), BTreeMap::new());
    for partition in 0..PARTITIONS {
        let (low, high) = consumer.fetch_watermarks(topic, partition, LONG).expect("it answers");
        let first = from.get(&partition).copied().unwrap_or(0).max(low);
        if first < high {
            list.add_partition_offset(topic, partition, Offset::Offset(first)).expect("added");
            ends.insert(partition, high);
        }
    }
    consumer.assign(&list).expect("assigned");
    let mut found = Records::new();
    while !ends.is_empty() {
        let message = consumer.poll(LONG).expect("a record").expect("no error");
        let (partition, offset) = (message.partition(), message.offset());
        let payload = text(message.payload().expect("a value"));
        let number: u64 = payload.split(' ').next().and_then(|number| number.parse().ok()).expect("a number");
        assert_eq!(payload.len() as u64, number.to_string().len() as u64 + 1 + number % 97 * 10, "its bytes");
        let last = found.range(..(topic.to_owned(), partition + 1, 0)).next_back();
        let next = last.filter(|(place, _)| place.1 == partition).map(|(place, _)| place.2 + 1);
        if next.is_some_and(|next| next < offset) {
            // Only retention may take what comes next from a reader, and it takes all before it too.
            let (low, _) = consumer.fetch_watermarks(topic, partition, LONG).expect("it answers");
            assert!(low >= offset, "{topic}-{partition}: a gap from {next:?} to {offset}, and the start is {low}");
            found.retain(|place, _| place.1 != partition);
        }
        assert!(found.insert((topic.to_owned(), partition, offset), number).is_none(), "it came twice");
        if ends.get(&partition).is_some_and(|end| offset + 1 >= *end) {
            ends.remove(&partition);
        }
    }
    found
}

/// The first so many records of a topic, whatever lies between them.
pub(crate) fn first_records(kafka: &str, topic: &str, count: usize) -> Records {
    records_until(kafka, topic, |found| found.len() >= count)
}

/// Records of a topic from its beginning, until there is enough of them.
pub(crate) fn records_until(kafka: &str, topic: &str, is_enough: impl Fn(&Records) -> bool) -> Records {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka)
        .set("group.id", "store-tests")
        .set("enable.auto.commit", "false")
        .create()
        .expect("a consumer");
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(topic, partition, Offset::Beginning).expect("added");
    }
    consumer.assign(&list).expect("assigned");
    let mut found = Records::new();
    while !is_enough(&found) {
        let message = consumer.poll(LONG).expect("a record").expect("no error");
        let payload = text(message.payload().expect("a value"));
        let number = payload.split(' ').next().and_then(|number| number.parse().ok()).expect("a number");
        found.insert((topic.to_owned(), message.partition(), message.offset()), number);
    }
    found
}

/// The write-ahead log that was set aside in a data folder, if one was.
pub(crate) fn first_aside(data: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(data.join("log")).expect("a log").map(|entry| entry.expect("an entry").path());
    entries.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("wal-aside-"))).min()
}

/// What was read, and what must be there: each number once and in order in its partition, what was acknowledged at its
/// offset.
pub(crate) fn agree(read: &Records, acknowledged: &Records, topic: &str) {
    let mut last: BTreeMap<i32, (i64, u64)> = BTreeMap::new();
    for ((_, partition, offset), number) in read {
        if let Some((before, earlier)) = last.insert(*partition, (*offset, *number)) {
            assert!(number > &earlier, "{topic}-{partition}: {number} at {offset} comes behind {earlier} at {before}");
            assert_eq!(before + 1, *offset, "{topic}-{partition}: there is a gap");
        }
    }
    let mut firsts: BTreeMap<i32, i64> = BTreeMap::new();
    for (_, partition, offset) in read.keys() {
        let first = firsts.entry(*partition).or_insert(*offset);
        *first = (*first).min(*offset);
    }
    for (place, number) in acknowledged.iter().filter(|(place, _)| place.0 == topic) {
        if firsts.get(&place.1).is_some_and(|first| place.2 < *first) {
            continue; // before what was looked at: compared earlier, or dropped by retention
        }
        assert_eq!(read.get(place), Some(number), "what was acknowledged at {place:?} is not there");
    }
}

/// Nothing lies in the store that the index does not name, and nothing is lacking.
fn is_tidy(data: &Path, admin: &str) {
    wait_for("a tidy store", || {
        let page = metrics(admin);
        let objects = files(&data.join("objects/data")).len() as f64;
        let uploaded = value(&page, "cairn_log_wal_depth_bytes") == 0.0;
        // One snapshot, the deltas behind it, and what the last step replaced: the rest is removed behind the objects.
        let index = files(&data.join("objects/index")).len();
        (uploaded && objects == value(&page, "cairn_store_objects") && index <= 70).then_some(())
    });
    assert_eq!(files(&data.join("objects/making")).len(), 0, "what was half made stays");
    let wal = files(&data.join("log/wal")).len();
    assert!(wal <= 8, "{wal} write-ahead files");
}

fn ends(records: &Records) -> BTreeMap<i32, i64> {
    let mut ends = BTreeMap::new();
    for (_, partition, offset) in records.keys() {
        let end = ends.entry(*partition).or_insert(0);
        *end = (offset + 1).max(*end);
    }
    ends
}

#[test]
fn kills_in_the_middle_of_uploads_lose_nothing_and_leave_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, config) = (folder.path().join("data"), configured(folder.path(), HASTY));
    let proof = std::env::var("CAIRN_PROOF").is_ok_and(|what| what == "crash");
    let entropy = Entropy::seeded(7);
    let (numbers, acknowledged) = (AtomicU64::new(0), Acknowledged::default());
    let (mut kept, mut uploads) = (Records::new(), 0.0);
    for round in 0..if proof { KILLS_PROOF } else { KILLS } {
        let mut up = start("broker", &data, &config);
        if round == 0 {
            crate::support::create_topic(&up.kafka, "kept", PARTITIONS, &[("retention.ms", "-1")]);
            crate::support::create_topic(&up.kafka, "passing", PARTITIONS, &[("retention.bytes", "60000")]);
        }
        let known = acknowledged.0.lock().expect("whole").clone();
        let from = ends(&kept);
        kept.extend(read(&up.kafka, "kept", &from));
        agree(&kept, &known, "kept");
        agree(&read(&up.kafka, "passing", &BTreeMap::new()), &known, "passing");
        let (before, stop) = (acknowledged.1.load(Ordering::SeqCst), AtomicBool::new(false));
        let enough = before + 1 + entropy.next_u64() % 1_500;
        std::thread::scope(|scope| {
            scope.spawn(|| load(&up.kafka, &numbers, &acknowledged, &stop));
            wait_for("acknowledgements", || (acknowledged.1.load(Ordering::SeqCst) >= enough).then_some(()));
            uploads += value(&metrics(&up.admin), "cairn_log_uploads_total");
            pause(entropy.next_u64() % 20);
            up.process.signal("-KILL");
            up.process.wait();
            stop.store(true, Ordering::SeqCst);
        });
    }
    assert!(uploads > KILLS as f64, "{uploads} uploads: hardly a kill met one");
    let (kills, sure) = (if proof { KILLS_PROOF } else { KILLS }, acknowledged.1.load(Ordering::SeqCst));
    println!("proof: kill -9 while the log uploads: {kills} kills, {sure} records acknowledged, {uploads} uploads");

    // What no crash of ours may have left, so that the collection has something to find.
    for orphan in ["data/00000001/00000000ffffffff", "index/00000001/00000000000000aa-00000000000000bb"] {
        let path = data.join("objects").join(orphan);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, "an orphan").expect("written");
    }
    fs::write(data.join("objects/making/left"), "half").expect("written");
    let known = acknowledged.0.lock().expect("whole").clone();
    let up = start("broker", &data, &config);
    kept = read(&up.kafka, "kept", &BTreeMap::new());
    agree(&kept, &known, "kept");
    let passing = read(&up.kafka, "passing", &BTreeMap::new());
    agree(&passing, &known, "passing");
    assert!(passing.len() < known.len() / 4 && kept.len() > 200, "{} of {}", passing.len(), known.len());
    is_tidy(&data, &up.admin);
    assert!(!data.join("objects/data/00000001/00000000ffffffff").exists());
    up.end();

    // All that is left of it has to be in the objects: none that was needed was removed.
    fs::remove_dir_all(data.join("log/wal")).expect("lost");
    let up = start("broker", &data, &config);
    assert_eq!(read(&up.kafka, "kept", &BTreeMap::new()), kept, "who ended well is gone on from without a word");
    up.end();
}

// ── two owners ────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn who_takes_a_store_stops_its_former_owner_within_moments_and_keeps_what_was_uploaded() {
    let folder = tempfile::tempdir().expect("a folder");
    let objects = folder.path().join("shared-objects");
    let config = configured(folder.path(), &format!("path = {:?}\nupload_interval_ms = 3600000\n", objects));
    let hasty = folder.path().join("hasty.toml");
    fs::write(&hasty, format!("[store]\npath = {objects:?}\n{HASTY}")).expect("written");
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    // What is uploaded comes along, by whatever hand.
    let first = start("broker", &one, &hasty);
    crate::support::create_topic(&first.kafka, "kept", PARTITIONS, &[]);
    let acknowledged = Acknowledged::default();
    some_load(&first.kafka, &acknowledged, 300);
    wait_for("the uploads", || (value(&metrics(&first.admin), "cairn_log_wal_depth_bytes") == 0.0).then_some(()));
    let uploaded = read(&first.kafka, "kept", &BTreeMap::new());
    first.end();
    // From here on its next upload is an hour away.
    let first = start("broker", &one, &config);
    let second = start_with("broker", &two, &hasty, &["--recover"]);
    assert_eq!(first_records(&second.kafka, "kept", uploaded.len()), uploaded);
    wait_for("a refusal", || {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &first.kafka)
            .set("message.timeout.ms", "2000")
            .create()
            .expect("a producer");
        producer.send(BaseRecord::<(), _>::to("kept").payload("0 ").partition(0)).expect("queued");
        let _ = producer.flush(LONG);
        (value(&metrics(&first.admin), "cairn_log_fenced") == 1.0).then_some(())
    });
    assert!(first.errors().contains("another broker has taken over"), "{}", first.errors());
    some_load(&second.kafka, &acknowledged, 50);
    let kept = first_records(&second.kafka, "kept", uploaded.len() + 10);
    // What was sent to the former owner meanwhile has the number 0.
    let is_its = |(place, number): (&(String, i32, i64), &u64)| !uploaded.contains_key(place) && *number == 0;
    assert!(!kept.iter().any(is_its), "nothing of the former owner comes into the log of the new one");
    first.end();
    // Its folder held records that the new owner went on without: they are not passed over.
    let said = first_aside(&one);
    assert!(said.is_some(), "its write-ahead log was set aside");
    let mut again = cairn();
    again.args(["broker", "--kafka", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"]).arg(&one);
    let output = run(again.arg("--config").arg(&config));
    let words = text(&output.stderr);
    assert!(!output.status.success() && words.contains("--recover") && words.contains("may still run"), "{words}");
    // A start that is refused takes nothing.
    let more = Acknowledged::default();
    some_load(&second.kafka, &more, 50);
    second.end();
}

/// Stops what goes on until then.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Sends numbers until some more are acknowledged.
pub(crate) fn some_load(kafka: &str, acknowledged: &Acknowledged, count: u64) {
    let (before, stop) = (acknowledged.1.load(Ordering::SeqCst), AtomicBool::new(false));
    let numbers = AtomicU64::new(before * 1_000);
    std::thread::scope(|scope| {
        scope.spawn(|| load(kafka, &numbers, acknowledged, &stop));
        let enough = || acknowledged.1.load(Ordering::SeqCst) >= before + count;
        // Also where they do not come: the test fails then, and does not hang.
        let _stop = Stop(&stop);
        wait_for("acknowledgements", || enough().then_some(()));
    });
}

// ── S3 ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

const SECRET: &str = "s3cret-of-the-commands-test";

/// A way to a service that can be cut: while it is, connections are taken and closed.
struct Way {
    address: String,
    is_cut: Arc<AtomicBool>,
}

impl Way {
    fn to(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let is_cut = Arc::new(AtomicBool::new(false));
        let cut = is_cut.clone();
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                if cut.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(far) = TcpStream::connect(&target) else { continue };
                let pair = |one: &TcpStream, other: &TcpStream| {
                    (one.try_clone().expect("a handle"), other.try_clone().expect("a handle"))
                };
                for (mut from, mut to) in [pair(&near, &far), pair(&far, &near)] {
                    let cut = cut.clone();
                    std::thread::spawn(move || {
                        let mut bytes = [0; 16_384];
                        while let Ok(count @ 1..) = from.read(&mut bytes) {
                            if cut.load(Ordering::SeqCst) || to.write_all(&bytes[..count]).is_err() {
                                break;
                            }
                        }
                        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
                    });
                }
            }
        });
        Self { address, is_cut }
    }
}

fn s3(bucket: &str, endpoint: &str) -> String {
    format!(
        "kind = \"s3\"\nbucket = \"{bucket}\"\nprefix = \"some/where\"\nendpoint = \"{endpoint}\"\nregion = \"us-east-1\"\n\
         access_key_id = \"test\"\nsecret_access_key = \"${{file:SECRET_FILE}}\"\n"
    )
}

/// A configuration with the sample server behind it.
fn with_server(folder: &Path, store: &str) -> PathBuf {
    let secret = folder.join("secret.txt");
    fs::write(&secret, format!("{SECRET}\n")).expect("written");
    let config = configured(folder, &store.replace("SECRET_FILE", &secret.display().to_string()));
    let words = crate::support::sample(&folder.join("journal.txt"));
    let text = fs::read_to_string(&config).expect("there");
    let server = format!("\n[servers.orders]\ncommand = {:?}\nargs = {:?}\n", words[0], &words[1..]);
    fs::write(&config, text + &server).expect("written");
    config
}

fn ticket(agent: &Agent, number: u64) -> serde_json::Value {
    agent.call("create_ticket", &json!({ "title": format!("ticket {number}") }))
}

fn shows_no_secret(up: &Up) {
    assert!(!up.errors().contains(SECRET), "{}", up.errors());
    assert!(!http(&up.admin, "GET /metrics", &[], "").body.contains(SECRET));
}

#[test]
fn a_trail_lies_in_a_bucket_and_is_there_after_a_kill_and_without_the_local_log() {
    let Some(moto) = moto::moto_or_skip(&[]) else { return };
    moto.make_bucket("trail");
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let hasty = "upload_bytes = 4000\nupload_interval_ms = 100\nwal_segment_bytes = 1048576\n";
    let config = with_server(folder.path(), &(s3("trail", &moto.endpoint()) + hasty));
    let mut up = start("up", &data, &config);
    let agent = Agent::connect(&up.gateway, "orders");
    for number in 0..20 {
        assert!(ticket(&agent, number).get("result").is_some());
    }
    wait_for("objects in the bucket", || {
        let listed = moto.request("GET", "/trail?list-type=2&prefix=some/where/data/").expect("moto answers");
        (listed.matches("<Key>some/where/data/").count() >= 2).then_some(())
    });
    assert_eq!(files(&data.join("objects")).len(), 0, "the folder has none");
    shows_no_secret(&up);
    for number in 20..30 {
        assert!(ticket(&agent, number).get("result").is_some());
    }
    up.process.signal("-KILL");
    up.process.wait();
    let up = start("up", &data, &config);
    let completed = |data: &Path| outcomes(data).iter().filter(|outcome| outcome["outcome"] == "completed").count();
    let first = completed(&data);
    assert!(first >= 30, "{first} outcomes after the kill");
    wait_for("all of it in the bucket", || {
        (value(&metrics(&up.admin), "cairn_log_wal_depth_bytes") == 0.0).then_some(())
    });
    shows_no_secret(&up);
    up.end();
    fs::remove_dir_all(data.join("log")).expect("lost");
    let up = start("up", &data, &config);
    assert_eq!(completed(&data), first);
    let agent = Agent::connect(&up.gateway, "orders");
    assert!(ticket(&agent, 99).get("result").is_some());
    shows_no_secret(&up);
    up.end();
}

#[test]
fn a_folder_of_objects_goes_on_in_a_bucket_once_it_is_copied_there() {
    let Some(moto) = moto::moto_or_skip(&[]) else { return };
    moto.make_bucket("moved");
    let folder = tempfile::tempdir().expect("a folder");
    let (data, in_folder) = (folder.path().join("data"), configured(folder.path(), HASTY));
    let up = start("broker", &data, &in_folder);
    crate::support::create_topic(&up.kafka, "kept", PARTITIONS, &[]);
    let acknowledged = Acknowledged::default();
    some_load(&up.kafka, &acknowledged, 2_000);
    let before = read(&up.kafka, "kept", &BTreeMap::new());
    up.end();

    let in_bucket = with_server(folder.path(), &(s3("moved", &moto.endpoint()) + HASTY));
    let mut forgotten = cairn();
    forgotten.args(["broker", "--kafka", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"]).arg(&data);
    let output = run(forgotten.arg("--config").arg(&in_bucket));
    let words = text(&output.stderr);
    assert!(!output.status.success() && words.contains("copy its objects over"), "{words}");

    let objects = data.join("objects");
    let put = |name: &str, path: &Path| {
        let bytes = fs::read(path).expect("an object");
        let said = moto.send("PUT", &format!("/moved/some/where/{name}"), &bytes).expect("moto answers");
        assert!(said.lines().next().is_some_and(|line| line.contains(" 200 ")), "{said}");
    };
    for part in ["data", "index"] {
        for path in files(&objects.join(part)) {
            put(path.strip_prefix(&objects).expect("below").to_str().expect("text"), &path);
        }
    }
    let mut heads = files(&objects.join("head"));
    heads.sort();
    put("head", heads.last().expect("a head"));
    fs::remove_dir_all(&objects).expect("removed");
    let up = start("broker", &data, &in_bucket);
    assert_eq!(read(&up.kafka, "kept", &BTreeMap::new()), before);
    some_load(&up.kafka, &acknowledged, 100);
    shows_no_secret(&up);
    up.end();
}

/// A broker on a bucket: after a kill on the same machine, then from the bucket alone; with the write-ahead log there too, after a kill
/// on another machine. `store` says for a name where that bucket is.
fn comes_back_from_a_bucket_alone(store: impl Fn(&str) -> String) {
    let folder = tempfile::tempdir().expect("a folder");
    let data = |name: &str| folder.path().join(name);
    let acknowledged = Acknowledged::default();
    let all = |up: &Up, acknowledged: &Acknowledged| {
        let found = read(&up.kafka, "kept", &BTreeMap::new());
        agree(&found, &acknowledged.0.lock().expect("whole"), "kept");
        found.len()
    };
    let config = configured(folder.path(), &(store("files") + HASTY));
    let mut up = start("broker", &data("one"), &config);
    crate::support::create_topic(&up.kafka, "kept", PARTITIONS, &[]);
    some_load(&up.kafka, &acknowledged, 500);
    up.process.signal("-KILL");
    up.process.wait();
    let up = start("broker", &data("one"), &config);
    let found = all(&up, &acknowledged);
    assert!(value(&metrics(&up.admin), "cairn_store_objects") >= 1.0 && files(&data("one/objects")).is_empty());
    up.end();
    let up = start("broker", &data("two"), &config);
    assert_eq!(all(&up, &acknowledged), found, "it ended well: another machine has all of it");
    up.end();

    let acknowledged = Acknowledged::default();
    let config = configured(folder.path(), &(store("objects") + HASTY + "wal = \"object\"\nwal_interval_ms = 10\n"));
    let mut up = start("broker", &data("three"), &config);
    crate::support::create_topic(&up.kafka, "kept", PARTITIONS, &[]);
    for machine in ["four", "five"] {
        some_load(&up.kafka, &acknowledged, 300);
        up.process.signal("-KILL");
        up.process.wait();
        up = start("broker", &data(machine), &config);
        assert!(all(&up, &acknowledged) >= 300);
    }
    up.end();
}

#[test]
#[ignore = "long: sets up fake-gcs-server"]
fn a_broker_comes_back_from_a_bucket_of_gcs_alone() {
    use buckets::{FakeGcs, or_skip};
    let Some(gcs) = or_skip("Google Cloud Storage", FakeGcs::start()) else { return };
    comes_back_from_a_bucket_alone(|name| {
        gcs.make_bucket(name);
        let (endpoint, key) = (gcs.endpoint(), FakeGcs::KEY);
        format!("kind = \"gcs\"\nbucket = \"{name}\"\nendpoint = \"{endpoint}\"\nservice_account_key = '{key}'\n")
    });
}

#[test]
#[ignore = "long: sets up Azurite"]
fn a_broker_comes_back_from_a_container_of_azure_alone() {
    use buckets::{Azurite, or_skip};
    let Some(azurite) = or_skip("Azure Blob Storage", Azurite::start()) else { return };
    comes_back_from_a_bucket_alone(|name| {
        azurite.make_container(name);
        let (endpoint, account, key) = (azurite.endpoint(), Azurite::ACCOUNT, Azurite::KEY);
        format!(
            "kind = \"azure\"\ncontainer = \"{name}\"\nprefix = \"some/where\"\nendpoint = \"{endpoint}\"\n\
             account = \"{account}\"\naccount_key = \"{key}\"\n"
        )
    });
}

#[test]
fn a_bucket_that_cannot_be_used_is_said_at_the_start_with_what_to_do() {
    // Bucket and key are made by the first two requests; from then on moto asks who it is.
    let Some(strict) = moto::moto_or_skip(&[("INITIAL_NO_AUTH_ACTION_COUNT", "1")]) else { return };
    strict.make_bucket("closed");
    let Some(open) = moto::moto_or_skip(&[]) else { return };
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|bound| bound.local_addr()).expect("a free port");
    let folder = tempfile::tempdir().expect("a folder");
    let keyless = |text: String| {
        text.lines().filter(|line| !line.contains("access_key")).map(|line| format!("{line}\n")).collect::<String>()
    };
    let cases: Vec<(String, &[&str])> = vec![
        (s3("none", &open.endpoint()), &["s3://none/some/where", "does not exist", "create it"]),
        (s3("closed", &strict.endpoint()), &["refuses these credentials", "InvalidAccessKeyId", "access_key_id"]),
        (s3("any", &format!("http://{nobody}")), &["s3://any/some/where", "endpoint", "reached from here"]),
        (keyless(s3("any", &open.endpoint())), &["there are no credentials", "AWS_ACCESS_KEY_ID"]),
        (s3("any", "minio:9000"), &["[store]", "endpoint is no URL", "https://"]),
        (s3("", &open.endpoint()), &["name the bucket"]),
        ("upload_bytes = 0\n".to_owned(), &["upload_bytes", "at least 1"]),
        ("wal_segment_bytes = 1000\n".to_owned(), &["wal_segment_bytes", "multiple of 8"]),
        ("path = \"/proc/cairn-objects\"\n".to_owned(), &["/proc/cairn-objects", "path in [store]"]),
    ];
    for (store, says) in cases {
        let config = with_server(folder.path(), &store);
        let mut command = cairn();
        command.args(["broker", "--kafka", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"]);
        command.arg(folder.path().join("data")).arg("--config").arg(&config);
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"] {
            command.env_remove(name);
        }
        let output = run(&mut command);
        let words = text(&output.stderr);
        assert!(!output.status.success(), "it started: {store}");
        assert!(says.iter().all(|word| words.contains(word)), "{store}: {words}");
        assert!(!words.contains(SECRET) && !words.contains("<?xml"), "{words}");
    }
}

#[test]
fn while_a_bucket_is_away_calls_go_on_to_a_bound_and_again_when_it_is_back() {
    let Some(moto) = moto::moto_or_skip(&[]) else { return };
    moto.make_bucket("away");
    let way = Way::to(moto.endpoint().trim_start_matches("http://").to_owned());
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let small = "upload_bytes = 20000\nupload_interval_ms = 100\nwal_segment_bytes = 1048576\nwal_bytes_max = 200000\n";
    let config = with_server(folder.path(), &(s3("away", &format!("http://{}", way.address)) + small));
    let up = start("up", &data, &config);
    let agent = Agent::connect(&up.gateway, "orders");
    assert!(ticket(&agent, 0).get("result").is_some());
    way.is_cut.store(true, Ordering::SeqCst);
    let mut done = 1;
    let refused = loop {
        let answer = ticket(&agent, done);
        if answer.get("result").is_none() {
            break answer;
        }
        done += 1;
        assert!(done < 2_000, "far more is accepted than may wait");
    };
    // Before the server acts, never after: there was room for the outcome of every call that went through.
    assert!(done > 5 && refused["error"]["data"]["cairn"] == "not_recorded", "{done}: {refused}");
    wait_for("the metric", || (value(&metrics(&up.admin), "cairn_store_away") == 1.0).then_some(()));
    let refused = ticket(&agent, done);
    let words = refused["error"]["message"].as_str().expect("an error");
    assert!(words.contains("wal_bytes_max") && words.contains("s3://away/some/where"), "{words}");
    let page = metrics(&up.admin);
    for positive in ["cairn_log_upload_failures_total", "cairn_recorder_events_refused_total"] {
        assert!(value(&page, positive) > 0.0, "{positive}");
    }
    let depth = value(&page, "cairn_log_wal_depth_bytes") / value(&page, "cairn_log_wal_limit_bytes");
    assert!((0.5..=1.0).contains(&depth), "{depth}");
    shows_no_secret(&up);
    way.is_cut.store(false, Ordering::SeqCst);
    wait_for("room", || ticket(&agent, done).get("result").is_some().then_some(()));
    wait_for("the uploads", || (value(&metrics(&up.admin), "cairn_log_wal_depth_bytes") == 0.0).then_some(()));
    assert_eq!(value(&metrics(&up.admin), "cairn_store_away"), 0.0);
    let completed = outcomes(&data).iter().filter(|outcome| outcome["outcome"] == "completed").count() as u64;
    assert!(completed > done, "{completed} outcomes of {done} calls and the handshake");
    // Whatever was refused never reached the server.
    let journal = fs::read_to_string(folder.path().join("journal.txt")).expect("a journal");
    assert_eq!(journal.lines().filter(|line| line.contains("create_ticket")).count() as u64, done + 1, "{journal}");
    up.end();
}
