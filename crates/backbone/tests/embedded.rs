//! The embedded log as backbone: the seam's suite, the chain over restarts, and readers that come by the Kafka protocol.

use std::{path::Path, sync::Arc, time::Duration};

use cairn_backbone::{
    Backbone, EmbeddedBackbone, KafkaBackbone, KafkaOptions, Planned, Recorder, RecorderOptions, next_epoch,
    reader::{From, Reader, ReaderOptions},
    testing::conformance,
};
use cairn_broker::{Broker, BrokerOptions, SecretHash, User, batch};
use cairn_clock::{Clock, Entropy};
use cairn_contract::{
    Body, CallLate, Common, Draft, Era, StoredEvent,
    invariants::{Start, chain_unbroken, clock_rises},
};
use cairn_log::{Log, LogOptions};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const SECRET: &str = "a secret of a gateway elsewhere";

async fn broker(folder: &Path) -> (Log, Broker) {
    let options = LogOptions::new(folder.join("log"), batch::stamp);
    // The broker's own tasks of the run before let go of the folder a moment after it was dropped.
    let mut tries = 0;
    let log = loop {
        match Log::open(options.clone(), Clock::system(), Entropy::system()).await {
            Ok(log) => break log,
            Err(error) => assert!(tries < 100, "the log does not open: {error}"),
        }
        tries += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let user = User { secret: SecretHash::of([7; 16], SECRET.as_bytes()), writes_protected: true };
    let options = BrokerOptions { users: [("gateway", user)].into_iter().collect(), ..BrokerOptions::default() };
    let broker = Broker::open(options, log.clone(), Clock::system(), Entropy::system()).await;
    (log, broker.expect("a broker"))
}

async fn recorder(broker: &Broker, folder: &Path) -> Recorder {
    let options = RecorderOptions::new("gw", next_epoch(folder).expect("an epoch"), folder);
    let backbone = Arc::new(EmbeddedBackbone::new(broker.clone()));
    Recorder::open(options, backbone, Clock::system(), Entropy::system()).await.expect("a recorder").0
}

fn event(recorder: &Recorder) -> Planned {
    let common = Common {
        workflow_id: "w".to_owned(),
        call_id: Some(uuid::Uuid::from_u128(1)),
        trace_id: Some("0".repeat(32)),
        principal: Some("local".to_owned()),
        server: Some("orders".to_owned()),
        era: Some(Era::Modern),
        mcp_method_name: Some("tools/call".to_owned()),
        ..Common::default()
    };
    let body = Body::CallLate(CallLate::default());
    recorder.plan(Draft { key: "w".to_owned(), subject: None, traceparent: None, tracestate: None, common, body })
}

async fn read_all(options: ReaderOptions, most: usize) -> Vec<StoredEvent> {
    let mut reader = Reader::open(options).await.expect("a reader");
    let mut events = Vec::new();
    while events.len() < most
        && let Some(entry) = reader.next().await
    {
        events.push(entry.expect("readable").event.expect("an event"));
    }
    reader.close().await;
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_log_is_a_backbone() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_log, broker) = broker(folder.path()).await;
    conformance::run(Arc::new(EmbeddedBackbone::new(broker))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_joins_the_chain_and_kafka_readers_see_it() {
    let folder = tempfile::tempdir().expect("a folder");
    for _ in 0..2 {
        let (log, broker) = broker(folder.path()).await;
        let recorder = recorder(&broker, folder.path()).await;
        for _ in 0..50 {
            recorder.strict(event(&recorder)).await.expect("recorded");
        }
        assert_eq!(recorder.close(Duration::from_secs(5)).await, 0);
        log.close().await;
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let bootstrap = listener.local_addr().expect("a bound listener has an address").to_string();
    let (_log, broker) = broker(folder.path()).await;
    let stop = CancellationToken::new();
    let serving = tokio::spawn({
        let (broker, stop) = (broker.clone(), stop.clone());
        async move { broker.serve(listener, stop).await }
    });
    let events = read_all(ReaderOptions::all(&bootstrap), usize::MAX).await;
    assert_eq!(events.len(), 100);
    chain_unbroken(&events, Start::Beginning).expect("one chain over both runs");
    clock_rises(&events).expect("clock readings rise");
    let last = read_all(ReaderOptions { from: From::Last(3), ..ReaderOptions::all(&bootstrap) }, usize::MAX).await;
    assert_eq!(last, events[97..]);

    let recorder = recorder(&broker, folder.path()).await;
    let tail = ReaderOptions { from: From::Tail, until_end: false, ..ReaderOptions::all(&bootstrap) };
    let mut reader = Reader::open(tail).await.expect("a reader");
    let planned = event(&recorder);
    let id = planned.id;
    recorder.strict(planned).await.expect("recorded");
    let entry = tokio::time::timeout(Duration::from_secs(30), reader.next()).await.expect("it comes");
    assert_eq!(entry.expect("no end").expect("readable").event.expect("an event").id, id, "only what is new");
    reader.close().await;
    stop.cancel();
    let _ = serving.await.expect("serving does not panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_log_of_another_process_is_a_backbone_for_a_named_writer_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let (log, broker) = broker(folder.path()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let bootstrap = listener.local_addr().expect("bound").to_string();
    let stop = CancellationToken::new();
    let served = tokio::spawn({
        let (broker, stop) = (broker.clone(), stop.clone());
        async move { broker.serve(listener, stop).await }
    });
    let options = |name: &str, secret: Option<&str>| {
        let mut options = KafkaOptions::new(&bootstrap, folder.path().join(name));
        if let Some(secret) = secret {
            for (property, value) in [
                ("security.protocol", "sasl_plaintext"),
                ("sasl.mechanism", "PLAIN"),
                ("sasl.username", "gateway"),
                ("sasl.password", secret),
            ] {
                options.properties.insert(property.to_owned(), value.to_owned());
            }
        }
        options.ready_within = Duration::from_secs(5);
        options
    };
    let outsider = KafkaBackbone::open(options("outsider", None)).await.expect("anybody may connect");
    let refused = outsider.ensure_topics(&cairn_contract::topics()).await.expect_err("but not make topics").to_string();
    assert!(refused.contains("does not let Cairn") && refused.contains("topics plan"), "{refused}");
    let wrong = KafkaBackbone::open(options("wrong", Some("a wrong secret of a gateway"))).await;
    let refused = wrong.expect_err("the secret is wrong").to_string();
    assert!(refused.contains("user or secret is wrong") && !refused.contains("wrong secret of"), "{refused}");
    let gateway = KafkaBackbone::open(options("gateway", Some(SECRET))).await.expect("a named writer");
    conformance::run(Arc::new(gateway)).await;
    a_copy_of_the_folder_is_fenced(options("original", Some(SECRET)), options("copy", Some(SECRET)), folder.path())
        .await;
    stop.cancel();
    served.await.expect("ended").expect("served");
    drop(log);
}

/// Two gateways with one id: the second finds the first one's epoch in the topics, and does not begin.
async fn a_copy_of_the_folder_is_fenced(original: KafkaOptions, copy: KafkaOptions, folder: &Path) {
    let open = async |options: KafkaOptions, name: &str, epoch| {
        let backbone = Arc::new(KafkaBackbone::open(options).await.expect("a backbone"));
        let options = RecorderOptions::new("gw", epoch, folder.join(name));
        let opened = Recorder::open(options, backbone.clone(), Clock::system(), Entropy::system()).await;
        (opened.map(|(recorder, _)| recorder), backbone)
    };
    let (recorder, backbone) = open(original, "original", 7).await;
    let recorder = recorder.expect("the first");
    recorder.strict(event(&recorder)).await.expect("recorded");
    backbone.drained(Duration::from_secs(30)).await.expect("delivered");
    for (epoch, fenced) in [(6, true), (7, true), (8, false)] {
        let (opened, backbone) = open(copy.clone(), "copy", epoch).await;
        let fault = opened.as_ref().err().map(ToString::to_string).unwrap_or_default();
        assert_eq!(fault.contains("used twice"), fenced, "epoch {epoch}: {fault}");
        backbone.close().await;
    }
}
