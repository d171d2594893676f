//! The Kafka backbone over a real Apache Kafka broker: the seam's suite, reading back, away and back, kill -9 in delivery.
//!
//! Each test has a broker of its own, two at a time. `CAIRN_TEST_KAFKA_BOOTSTRAP` names a fresh cluster to run the suite
//! against besides.

#![allow(clippy::print_stderr, clippy::unwrap_used)]

mod broker;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, OpenOptions},
    io::Write,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use broker::Broker;
use cairn_backbone::{
    Backbone, KafkaBackbone, KafkaOptions, Planned, RecordError, Recorder, RecorderOptions, next_epoch,
    reader::{Reader, ReaderOptions},
    testing::conformance,
};
use cairn_clock::{Clock, Entropy};
use cairn_contract::{
    Body, CallLate, Common, Draft, Era, StoredEvent,
    invariants::{Start, chain_unbroken, clock_rises},
    topics,
};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
};
use tokio::sync::Semaphore;

/// A machine of two cores starts two at a time, and hardly a third.
static BROKERS: Semaphore = Semaphore::const_new(2);

async fn backbone(bootstrap: &str, folder: &Path, spool_bytes_max: u64) -> Arc<KafkaBackbone> {
    let options = KafkaOptions { spool_bytes_max, ..KafkaOptions::new(bootstrap, folder.join("spool")) };
    Arc::new(KafkaBackbone::open(options).await.expect("a backbone"))
}

async fn recorder(backbone: Arc<KafkaBackbone>, folder: &Path) -> Recorder {
    let options = RecorderOptions::new("gw", next_epoch(folder).expect("an epoch"), folder);
    Recorder::open(options, backbone, Clock::system(), Entropy::system()).await.expect("a recorder").0
}

/// An event of `mcp.calls` that is small and about nothing.
fn event(recorder: &Recorder, workflow: &str) -> Planned {
    let common = Common {
        workflow_id: workflow.to_owned(),
        call_id: Some(uuid::Uuid::from_u128(1)),
        trace_id: Some("0".repeat(32)),
        principal: Some("local".to_owned()),
        server: Some("orders".to_owned()),
        era: Some(Era::Modern),
        mcp_method_name: Some("tools/call".to_owned()),
        ..Common::default()
    };
    let body = Body::CallLate(CallLate::default());
    let draft = Draft { key: workflow.to_owned(), subject: None, traceparent: None, tracestate: None, common, body };
    recorder.plan(draft)
}

/// Reads the whole trail as a consumer does, partition by partition.
async fn trail(bootstrap: &str) -> BTreeMap<(String, u32), Vec<StoredEvent>> {
    let mut reader = Reader::open(ReaderOptions::all(bootstrap)).await.expect("a reader");
    let mut trail: BTreeMap<_, Vec<_>> = BTreeMap::new();
    while let Some(entry) = reader.next().await {
        let entry = entry.expect("readable");
        trail.entry((entry.topic, entry.partition)).or_default().push(entry.event.expect("an event"));
    }
    reader.close().await;
    trail
}

/// Holds each partition to I5 and I8: clocks rise, the chain is unbroken from its beginning.
fn check_chains(trail: &BTreeMap<(String, u32), Vec<StoredEvent>>) -> usize {
    for (place, events) in trail {
        chain_unbroken(events, Start::Beginning).unwrap_or_else(|finding| panic!("{place:?}: {finding:?}"));
        clock_rises(events).unwrap_or_else(|finding| panic!("{place:?}: {finding:?}"));
    }
    trail.values().map(Vec::len).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kafka_cluster_is_a_backbone() {
    let _place = BROKERS.acquire().await.expect("nobody closes it");
    if let Ok(bootstrap) = std::env::var("CAIRN_TEST_KAFKA_BOOTSTRAP") {
        let folder = tempfile::tempdir().expect("a folder");
        conformance::run(backbone(&bootstrap, folder.path(), 64 << 20).await).await;
    }
    let Some(broker) = Broker::start().await else { return };
    let folder = tempfile::tempdir().expect("a folder");
    conformance::run(backbone(&broker.bootstrap(), folder.path(), 64 << 20).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_joins_the_chain_that_the_topic_holds() {
    let _place = BROKERS.acquire().await.expect("nobody closes it");
    let Some(broker) = Broker::start().await else { return };
    let folder = tempfile::tempdir().expect("a folder");
    for _ in 0..3 {
        let backbone = backbone(&broker.bootstrap(), folder.path(), 64 << 20).await;
        let recorder = recorder(backbone.clone(), folder.path()).await;
        for n in 0..40 {
            let planned = event(&recorder, &format!("w{}", n % 5));
            recorder.strict(planned).await.expect("recorded");
        }
        assert_eq!(recorder.close(Duration::from_secs(5)).await, 0);
        backbone.close().await;
    }
    assert_eq!(check_chains(&trail(&broker.bootstrap()).await), 120);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_cluster_is_away_the_spool_carries_strict_events_up_to_its_bound() {
    let _place = BROKERS.acquire().await.expect("nobody closes it");
    let Some(mut broker) = Broker::start().await else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let backbone = backbone(&broker.bootstrap(), folder.path(), 1 << 20).await;
    let recorder = recorder(backbone.clone(), folder.path()).await;
    recorder.strict(event(&recorder, "w")).await.expect("recorded");
    backbone.drained(Duration::from_secs(20)).await.expect("delivered");
    broker.stop();
    let mut recorded = 1;
    let refused = loop {
        match recorder.strict(event(&recorder, &format!("w{}", recorded % 7))).await {
            Ok(_) => recorded += 1,
            Err(error) => break error,
        }
    };
    assert!(recorded > 300, "{recorded} events fitted");
    assert!(matches!(&refused, RecordError::Full { reason } if reason.contains("cluster")), "{refused}");
    assert!(backbone.stats().spool_bytes <= 1 << 20);
    broker.resume().await;
    backbone.drained(Duration::from_secs(60)).await.expect("delivered after the cluster came back");
    assert_eq!(backbone.stats().spool_events, 0);
    recorder.strict(event(&recorder, "w")).await.expect("strict calls go on");
    backbone.drained(Duration::from_secs(20)).await.expect("delivered");
    assert_eq!(check_chains(&trail(&broker.bootstrap()).await), recorded + 1);
    recorder.close(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_while_the_cluster_is_away_goes_on_from_the_spool_and_joins_the_chain() {
    let _place = BROKERS.acquire().await.expect("nobody closes it");
    let Some(mut broker) = Broker::start().await else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let mut recorded = 0;
    {
        // So small a spool that delivered parts of it are removed: what they held is known from the history only.
        let backbone = backbone(&broker.bootstrap(), folder.path(), 1 << 20).await;
        let recorder = recorder(backbone.clone(), folder.path()).await;
        for n in 0..600 {
            recorder.strict(event(&recorder, &format!("w{}", n % 5))).await.expect("recorded");
            recorded += 1;
            if n % 100 == 0 {
                backbone.drained(Duration::from_secs(20)).await.expect("delivered");
            }
        }
        recorder.close(Duration::from_secs(5)).await;
        backbone.close().await;
    }
    assert!(!folder.path().join("spool").join("0000000000000001.spool").exists(), "its first file is gone");
    broker.stop();
    let stranger = tempfile::tempdir().expect("a folder");
    let mut options = KafkaOptions::new(broker.bootstrap(), stranger.path().join("spool"));
    options.ready_within = Duration::from_secs(2);
    let words = KafkaBackbone::open(options).await.expect_err("nothing stands in for it").to_string();
    assert!(words.contains("does not answer") && words.contains("has not seen its topics"), "{words}");
    for _ in 0..2 {
        let backbone = backbone(&broker.bootstrap(), folder.path(), 1 << 20).await;
        assert!(backbone.opened_without_cluster() && backbone.stats().away);
        let recorder = recorder(backbone.clone(), folder.path()).await;
        for n in 0..20 {
            recorder.strict(event(&recorder, &format!("w{}", n % 7))).await.expect("recorded in the spool");
            recorded += 1;
        }
        recorder.close(Duration::from_secs(5)).await;
        backbone.close().await;
    }
    {
        let backbone = backbone(&broker.bootstrap(), folder.path(), 1 << 20).await;
        let recorder = recorder(backbone.clone(), folder.path()).await;
        recorder.strict(event(&recorder, "w")).await.expect("recorded in the spool");
        broker.resume().await;
        recorder.strict(event(&recorder, "w")).await.expect("recorded");
        recorded += 2;
        backbone.drained(Duration::from_secs(60)).await.expect("delivered after the cluster came back");
        assert!(!backbone.stats().away);
        recorder.close(Duration::from_secs(5)).await;
        backbone.close().await;
    }
    assert_eq!(check_chains(&trail(&broker.bootstrap()).await), recorded);
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_created_as_planned_and_wrong_ones_are_refused() {
    let _place = BROKERS.acquire().await.expect("nobody closes it");
    let Some(broker) = Broker::start().await else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", broker.bootstrap()).create().expect("an admin");
    let make = async |partitions, settings: &[(&str, &str)]| {
        let mut topic = NewTopic::new("mcp.calls", partitions, TopicReplication::Fixed(1));
        for (name, value) in settings {
            topic = topic.set(name, value);
        }
        admin.create_topics(&[topic], &AdminOptions::new()).await.expect("asked")[0].as_ref().expect("created");
    };
    let backbone = backbone(&broker.bootstrap(), folder.path(), 1 << 20).await;
    for (partitions, settings, words) in [
        (3, &[][..], "3 partitions"),
        (8, &[("retention.ms", "604800000")][..], "retention.ms=604800000"),
        (8, &[("retention.ms", "-1"), ("cleanup.policy", "compact")][..], "cleanup.policy=compact"),
        (8, &[("retention.ms", "-1"), ("max.message.bytes", "1000")][..], "max.message.bytes=1000"),
        (8, &[("retention.ms", "-1"), ("min.insync.replicas", "2")][..], "min.insync.replicas=2"),
    ] {
        make(partitions, settings).await;
        let mut refused = backbone.ensure_topics(&topics()).await;
        // The metadata and the settings of a topic that was just made follow after a moment.
        for _ in 0..100 {
            if refused.as_ref().is_err_and(|error| error.to_string().contains(words)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            refused = backbone.ensure_topics(&topics()).await;
        }
        let error = refused.expect_err(words).to_string();
        assert!(error.contains(words) && error.contains("mcp.calls"), "{error}");
        admin.delete_topics(&["mcp.calls"], &AdminOptions::new()).await.expect("asked")[0].as_ref().expect("deleted");
    }
    for _ in 0..100 {
        if backbone.ensure_topics(&topics()).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    backbone.ensure_topics(&topics()).await.expect("all are as they must be");
    let found = admin
        .describe_configs(&[ResourceSpecifier::Topic("mcp.calls")], &AdminOptions::new())
        .await
        .expect("asked")
        .pop()
        .expect("one")
        .expect("described");
    let days_400 = (400_u64 * 24 * 60 * 60 * 1000).to_string();
    for (name, value) in [("retention.ms", days_400.as_str()), ("cleanup.policy", "delete"), ("retention.bytes", "-1")]
    {
        assert_eq!(found.get(name).and_then(|entry| entry.value.as_deref()), Some(value), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_and_sasl_reach_the_cluster_and_a_wrong_secret_is_said_and_not_shown() {
    let _place = BROKERS.acquire().await.expect("nobody closes it");
    let Some(broker) = Broker::start_secured().await else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("secret");
    fs::write(&secret, format!("{}\n", broker::SECRET)).expect("written");
    let properties = |certificate: &Path, secret: &str| -> BTreeMap<String, String> {
        let pairs = [
            ("security.protocol", "sasl_ssl"),
            ("ssl.ca.location", certificate.to_str().expect("text")),
            ("sasl.mechanism", "PLAIN"),
            ("sasl.username", "cairn"),
            ("sasl.password", secret),
        ];
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    let right = properties(&broker.certificate(), &format!("file:{}", secret.display()));
    let open = async |properties: BTreeMap<String, String>, name: &str, ready_within| {
        let options = KafkaOptions::new(broker.bootstrap(), folder.path().join(name));
        KafkaBackbone::open(KafkaOptions { properties, ready_within, ..options }).await
    };
    let backbone = Arc::new(open(right.clone(), "spool", Duration::from_secs(60)).await.expect("a backbone"));
    let recorder = recorder(backbone.clone(), folder.path()).await;
    for n in 0..20 {
        recorder.strict(event(&recorder, &format!("w{n}"))).await.expect("recorded");
    }
    recorder.close(Duration::from_secs(5)).await;
    backbone.drained(Duration::from_secs(30)).await.expect("delivered");
    let options = ReaderOptions { properties: right, ..ReaderOptions::all(broker.bootstrap()) };
    let mut reader = Reader::open(options).await.expect("a reader");
    let mut read = 0;
    while let Some(entry) = reader.next().await {
        entry.expect("readable").event.expect("an event");
        read += 1;
    }
    assert_eq!(read, 20);
    let wrong = properties(&broker.certificate(), "a wrong secret");
    let words = open(wrong, "wrong", Duration::from_secs(10)).await.expect_err("refused").to_string();
    assert!(words.contains("uthentication failed") && !words.contains("a wrong secret"), "{words}");
    let unsigned = properties(&folder.path().join("nowhere.pem"), "x");
    let words = open(unsigned, "unsigned", Duration::from_secs(2)).await.expect_err("no such file").to_string();
    assert!(words.contains("ssl.ca.location"), "{words}");
}

/// The process that the next test kills: it records and notes what was acknowledged.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the test below, as a process of its own"]
async fn a_process_that_records_until_it_is_killed() {
    let Ok(folder) = std::env::var("CAIRN_TEST_FOLDER") else { return };
    let folder = Path::new(&folder);
    let bootstrap = std::env::var("CAIRN_TEST_BOOTSTRAP").expect("set by the parent");
    let recorder = recorder(backbone(&bootstrap, folder, 64 << 20).await, folder).await;
    let mut ledger = OpenOptions::new().create(true).append(true).open(folder.join("ledger")).expect("a ledger");
    for n in 0.. {
        let planned: Vec<_> = (0..10).map(|m| event(&recorder, &format!("w{}", (n + m) % 5))).collect();
        for recorded in recorder.strict_all(planned).await.expect("recorded") {
            writeln!(ledger, "{}", recorded.event_id).expect("written");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_nine_in_the_middle_of_delivery_leaves_neither_gap_nor_duplicate() {
    let _place = BROKERS.acquire().await.expect("nobody closes it");
    let Some(broker) = Broker::start().await else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = || fs::read_to_string(folder.path().join("ledger")).unwrap_or_default();
    for round in 1..=6 {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["a_process_that_records_until_it_is_killed", "--exact", "--ignored"])
            .env("CAIRN_TEST_FOLDER", folder.path())
            .env("CAIRN_TEST_BOOTSTRAP", broker.bootstrap())
            .stdout(Stdio::null())
            .spawn()
            .expect("a child");
        let before = ledger().lines().count();
        for _ in 0..6_000 {
            if ledger().lines().count() >= before + 200 * round {
                break;
            }
            assert!(child.try_wait().expect("a child of ours").is_none(), "the child ended by itself");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        child.kill().expect("killed");
        child.wait().expect("ended");
    }
    let text = ledger();
    let acknowledged: BTreeSet<&str> = text.lines().filter(|line| line.len() == 36).collect();
    let backbone = backbone(&broker.bootstrap(), folder.path(), 64 << 20).await;
    backbone.drained(Duration::from_secs(30)).await.expect("delivered");
    let trail = trail(&broker.bootstrap()).await;
    let total = check_chains(&trail);
    let ids: BTreeSet<String> = trail.values().flatten().map(|event| event.id.to_string()).collect();
    assert_eq!(ids.len(), total, "each event once");
    let lost = acknowledged.iter().filter(|id| !ids.contains(**id)).count();
    assert_eq!(lost, 0, "of {} acknowledged events", acknowledged.len());
    assert!(acknowledged.len() > 1000, "{} events were acknowledged", acknowledged.len());
}
