//! Two brokers on one bucket that is their write-ahead log: one is active, the other stands by. What happens to the active one is what
//! happens to machines: it is killed, it stalls and wakes up again, it is stopped. A producer that was never told goes on, and
//! everything that was acknowledged is there once.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use rdkafka::{
    ClientConfig,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, Producer, ThreadedProducer},
};

use crate::{
    store::{Acknowledged, PARTITIONS, agree, moto, pause, read},
    support::{Process, cairn, create_topic, run, text, wait_for},
};

/// What the code says of who was replaced.
const REPLACED: i32 = 6;

/// Brokers that take over from each other.
struct Pair {
    folder: tempfile::TempDir,
    addresses: [String; 2],
}

impl Pair {
    fn new(endpoint: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        // Addresses of loopback that no other test has, so that a port that is free stays free.
        let pid = std::process::id();
        let free = |last: u32| {
            let host = format!("127.{}.{}.{last}", 1 + (pid >> 8) % 250, pid % 250);
            TcpListener::bind((host.as_str(), 0)).expect("loopback").local_addr().expect("bound").to_string()
        };
        let addresses = [free(2), free(3)];
        for (n, address) in addresses.iter().enumerate() {
            let text = format!(
                "[store]\nkind = \"s3\"\nbucket = \"pair\"\nendpoint = \"{endpoint}\"\nregion = \"us-east-1\"\n\
                 access_key_id = \"test\"\nsecret_access_key = \"test\"\nwal = \"object\"\nwal_interval_ms = 10\n\
                 upload_bytes = 20000\nupload_interval_ms = 500\n[kafka]\nlisten = \"{address}\"\nnode_id = {}\n\
                 brokers = [\"1@{}\", \"2@{}\"]\n",
                n + 1,
                addresses[0],
                addresses[1],
            );
            fs::write(folder.path().join(format!("{}.toml", n + 1)), text).expect("written");
        }
        Self { folder, addresses }
    }

    fn bootstrap(&self) -> String {
        self.addresses.join(",")
    }

    fn start(&self, id: usize) -> Broker {
        let data = self.folder.path().join(format!("data-{id}"));
        let said = data.with_extension(format!("out-{}", fs::read_dir(self.folder.path()).expect("there").count()));
        let output = fs::File::create(&said).expect("a file");
        let mut command = cairn();
        command.args(["broker", "--admin", "127.0.0.1:0", "--data"]).arg(&data);
        command.arg("--config").arg(self.folder.path().join(format!("{id}.toml")));
        command.stdin(Stdio::null()).stdout(output.try_clone().expect("a file")).stderr(output);
        Broker { process: Process { child: command.spawn().expect("it starts") }, said }
    }
}

struct Broker {
    process: Process,
    said: PathBuf,
}

impl Broker {
    fn says(&self, what: &str) {
        wait_for(what, || fs::read_to_string(&self.said).ok().filter(|said| said.contains(what)).map(drop));
    }
}

/// Sends numbers to three partitions until it is told to stop; a request that nobody answers is given up after some seconds.
fn load(bootstrap: &str, numbers: &AtomicU64, acknowledged: &Acknowledged, stop: &AtomicBool) {
    let producer: ThreadedProducer<Acknowledged> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("enable.idempotence", "true")
        .set("linger.ms", "5")
        .set("queue.buffering.max.messages", "500")
        .set("socket.timeout.ms", "4000")
        .set("socket.connection.setup.timeout.ms", "3000")
        .set("reconnect.backoff.max.ms", "500")
        .create_with_context(acknowledged.clone())
        .expect("a producer");
    while !stop.load(Ordering::SeqCst) {
        let number = numbers.fetch_add(1, Ordering::SeqCst);
        let value = format!("{number} {}", "x".repeat((number % 97) as usize * 10));
        let partition = (number / 7) as i32 % PARTITIONS;
        let mut record =
            BaseRecord::<(), _, _>::with_opaque_to("kept", Box::new(number)).payload(&value).partition(partition);
        while let Err((error, back)) = producer.send(record) {
            assert!(matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)), "{error}");
            record = back;
            pause(5);
        }
        pause(1);
    }
    producer.flush(crate::support::LONG).expect("all of it is acknowledged");
}

/// Waits until more is acknowledged than was when something happened.
fn goes_on(acknowledged: &Acknowledged) {
    let count = || acknowledged.0.lock().expect("whole").len();
    // What the client has in its queue by now may have been answered before.
    let enough = count() + 1_000;
    wait_for("acknowledgements", || (count() >= enough).then_some(()));
}

#[test]
fn who_stands_by_takes_over_from_a_broker_that_is_killed_stalls_or_ends_and_nothing_is_lost_or_twice() {
    let Some(moto) = moto::moto_or_skip(&[]) else { return };
    moto.make_bucket("pair");
    let pair = Pair::new(&moto.endpoint());
    let mut one = pair.start(1);
    one.says("ready kafka");
    create_topic(&pair.addresses[0], "kept", PARTITIONS, &[]);
    let mut two = pair.start(2);
    two.says("standing by: broker 1 is active");
    two.process.signal("-TERM");
    assert!(two.process.wait().success(), "who stands by ends as anybody does");
    two = pair.start(2);
    two.says("standing by: broker 1 is active");
    let (acknowledged, numbers, stop) = (Acknowledged::default(), Arc::<AtomicU64>::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| load(&pair.bootstrap(), &numbers, &acknowledged, &stop));
        goes_on(&acknowledged);

        one.process.signal("-KILL");
        one.process.wait();
        two.says("ready kafka");
        goes_on(&acknowledged);

        one = pair.start(1);
        one.says("standing by: broker 2 is active");
        two.process.signal("-STOP");
        one.says("ready kafka");
        goes_on(&acknowledged);
        // It wakes up in the middle of what it did, and finds that it is over.
        two.process.signal("-CONT");
        assert_eq!(two.process.wait().code(), Some(REPLACED), "{}", fs::read_to_string(&two.said).expect("there"));
        goes_on(&acknowledged);

        two = pair.start(2);
        two.says("standing by: broker 1 is active");
        one.process.signal("-TERM");
        assert!(one.process.wait().success());
        two.says("ready kafka");
        goes_on(&acknowledged);
        stop.store(true, Ordering::SeqCst);
    });
    let said = fs::read_to_string(&two.said).expect("there");
    assert!(!said.contains("is silent"), "who ends well hands over at once: {said}");
    // A client that is told of both may choose the one that ended, and tells its reader that it cannot be reached.
    one = pair.start(1);
    one.says("standing by: broker 2 is active");
    let known = acknowledged.0.lock().expect("whole").clone();
    let found = read(&pair.addresses[1], "kept", &std::collections::BTreeMap::new());
    agree(&found, &known, "kept");
    assert_eq!(found.len(), known.len(), "everything was acknowledged, and nothing is there twice");
}

#[test]
fn brokers_that_cannot_take_over_from_each_other_are_refused_with_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let refused = |name: &str, configuration: &str| {
        let config = folder.path().join(name);
        fs::write(&config, configuration).expect("written");
        let mut command = cairn();
        command.args(["broker", "--kafka", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"]);
        let output = run(command.arg(folder.path().join("data")).arg("--config").arg(config));
        assert!(!output.status.success());
        text(&output.stderr)
    };
    let bucket = "[store]\nkind = \"s3\"\nbucket = \"b\"\naccess_key_id = \"a\"\nsecret_access_key = \"b\"\n";
    let pair = "[kafka]\nbrokers = [\"1@127.0.0.1:1\", \"2@127.0.0.1:2\"]\n";
    assert!(refused("a", &format!("{pair}node_id = 1\n")).contains("wal = \"object\""));
    let shared = format!("{bucket}wal = \"object\"\n{pair}");
    assert!(refused("b", &shared).contains("kafka.node_id is not"));
    assert!(refused("c", &format!("{shared}node_id = 3\n")).contains("add 3@HOST:PORT"));
    let twice = shared.replace("\"2@", "\"1@");
    assert!(refused("d", &format!("{twice}node_id = 1\n")).contains("two brokers with id 1"));
}

#[test]
fn a_log_without_a_disk_comes_up_on_a_fresh_machine_with_all_that_was_acknowledged() {
    let Some(moto) = moto::moto_or_skip(&[]) else { return };
    moto.make_bucket("alone");
    let folder = tempfile::tempdir().expect("a folder");
    let store = format!(
        "[store]\nkind = \"s3\"\nbucket = \"alone\"\nendpoint = \"{}\"\nregion = \"us-east-1\"\naccess_key_id = \"test\"\n\
         secret_access_key = \"test\"\nwal = \"object\"\nwal_interval_ms = 5\n",
        moto.endpoint()
    );
    let config = folder.path().join("cairn.toml");
    fs::write(&config, store).expect("written");
    let start = |machine: &str| crate::store::start("broker", &folder.path().join(machine), Path::new(&config));
    let mut up = start("first");
    create_topic(&up.kafka, "kept", PARTITIONS, &[]);
    let acknowledged = Acknowledged::default();
    crate::store::some_load(&up.kafka, &acknowledged, 500);
    up.process.signal("-KILL");
    up.process.wait();
    fs::remove_dir_all(folder.path().join("first")).expect("the machine is gone");
    let up = start("second");
    assert!(!up.errors().contains("lost"), "{}", up.errors());
    let known = acknowledged.0.lock().expect("whole").clone();
    agree(&read(&up.kafka, "kept", &std::collections::BTreeMap::new()), &known, "kept");
    assert!(crate::support::files(&folder.path().join("second/log/wal")).is_empty(), "it has no log of its own");
    up.end();
}
