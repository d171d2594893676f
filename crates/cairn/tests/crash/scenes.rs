//! Single scenes that the rounds cannot play: a disk that lies, is full or stalls, a recovery that takes its time, policies
//! that change under traffic, a clean end in the middle of it.
//!
//! Each starts the real process, and ends with the verdict over trail, journal and book.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use cairn_clock::Entropy;
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;

use crate::{
    agent::{Agent, Door, Era, Habit},
    book::{Book, Saw},
    cairn::{How, PATIENCE, Site, Up, admin_request},
    forgetful::{Forgetful, Loss},
    rounds::begin,
    trail::{Follower, Trail},
    upstream::Upstream,
    verdict::{Counts, judge},
};

/// A site, what stands behind it, and what was seen so far.
struct Stage {
    site: Site,
    upstream: Upstream,
    layer: Forgetful,
    book: Arc<Book>,
    trail: Trail,
    stop: CancellationToken,
    _outside: tempfile::TempDir,
}

impl Stage {
    async fn new() -> Self {
        let outside = tempfile::tempdir().expect("a folder");
        let upstream = Upstream::start(outside.path()).await;
        let site = Site::new(&upstream.url);
        let layer = Forgetful::new(&site.data(), &site.path("layer"));
        let (book, trail, stop) = (Arc::default(), Trail::default(), CancellationToken::new());
        Self { site, upstream, layer, book, trail, stop, _outside: outside }
    }

    fn layered(&self, more: &[(&'static str, &str)]) -> How {
        let mut env = self.layer.env();
        env.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
        How { env, ..How::default() }
    }

    /// Agents of both eras, all of them inside.
    async fn agents(&self, up: &Up, name: &str, count: u64, habit: Habit) -> Vec<tokio::task::JoinHandle<()>> {
        let agent = |number: u64| Agent {
            door: Door::Http(up.url()),
            era: if number.is_multiple_of(2) { Era::Legacy } else { Era::Modern },
            workflow: format!("{name}-{number}"),
            book: self.book.clone(),
            entropy: Entropy::seeded(number),
            habit,
            stop: self.stop.clone(),
        };
        begin((0..count).map(agent).collect()).await
    }

    /// Until so many requests are at the upstream.
    async fn reached(&self, count: usize) {
        until("requests at the upstream", || self.upstream.reached().len() >= count).await;
    }

    /// Until the book holds so many answers that are as wanted.
    async fn saw(&self, what: &str, count: usize, wanted: impl Fn(&Saw) -> bool) {
        until(what, || self.book.entries().iter().filter(|entry| wanted(&entry.saw)).count() >= count).await;
    }

    async fn findings(&mut self, kafka: &str) -> (Counts, Vec<String>) {
        let mut findings = self.trail.reread(kafka).await;
        let (counts, found) = judge(&self.trail, &self.upstream.reached(), &self.book.entries());
        findings.extend(found);
        (counts, findings)
    }

    async fn is_one_story(&mut self, kafka: &str) -> Counts {
        let (counts, findings) = self.findings(kafka).await;
        if !findings.is_empty() {
            panic!("folder {}: {findings:#?}", self.site.keep().display());
        }
        counts
    }
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}: not within {PATIENCE:?}");
}

async fn all(agents: Vec<tokio::task::JoinHandle<()>>) {
    for agent in agents {
        agent.await.expect("an agent does not panic");
    }
}

fn is_refusal(saw: &Saw, code: i64) -> bool {
    matches!(saw, Saw::Error { code: found, .. } if *found == code)
}

const NOT_RECORDED: i64 = -31_005;
const EXECUTED_NOT_RECORDED: i64 = -31_006;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_lies_about_syncs_is_found_out() {
    let mut stage = Stage::new().await;
    // The first start may make its files; from the second on, syncs of the log are lies.
    let mut up = stage.site.up(&stage.layered(&[])).await;
    up.terminate();
    up.ended(PATIENCE).await.expect("a clean end");
    let mut up = stage.site.up(&stage.layered(&[("FORGETFUL_LIES", ".wal")])).await;
    let agents = stage.agents(&up, "lied-to", 4, Habit::Mixed(0)).await;
    stage.saw("results", 8, |saw| *saw == Saw::Result).await;
    up.kill().await;
    all(agents).await;
    stage.layer.lose(Loss::All);
    let up = stage.site.up(&stage.layered(&[])).await;
    let (_, findings) = stage.findings(&up.kafka).await;
    let finds = |words: &str| findings.iter().any(|finding| finding.contains(words));
    assert!(finds("reached the upstream and has no intent"), "I1 is not seen to be broken: {findings:#?}");
    assert!(finds("the trail knows nothing of it"), "I3 is not seen to be broken: {findings:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_shown_forwarded_or_answered_before_it_is_durable() {
    let mut stage = Stage::new().await;
    let entropy = Entropy::seeded(7);
    let mut up = stage.site.up(&stage.layered(&[])).await;
    for round in 0..4 {
        up.kill().await;
        stage.layer.lose(Loss::All);
        // Each sync takes its time, so that whatever does not wait for it is far ahead of it when the power goes.
        up = stage.site.up(&stage.layered(&[("FORGETFUL_SYNC_MS", "80")])).await;
        stage.is_one_story(&up.kafka).await;
        let follower = Follower::start(&up.kafka).await;
        let before = stage.book.entries().iter().filter(|entry| entry.saw == Saw::Result).count();
        let agents = stage.agents(&up, &format!("slow-{round}"), 4, Habit::Mixed(0)).await;
        stage.saw("results", before + 6, |saw| *saw == Saw::Result).await;
        tokio::time::sleep(Duration::from_millis(entropy.next_u64() % 200)).await;
        up.kill().await;
        all(agents).await;
        let (seen, mut findings) = (follower.end().await.expect("a trail"), Vec::new());
        stage.trail.merge(seen, &mut findings);
        assert!(findings.is_empty(), "{findings:#?}");
    }
    stage.layer.lose(Loss::All);
    let up = stage.site.up(&stage.layered(&[])).await;
    stage.is_one_story(&up.kafka).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_process_left_open_is_closed_before_its_successor_says_that_it_serves() {
    const OPEN: usize = 10;
    let mut stage = Stage::new().await;
    let mut up = stage.site.up(&stage.layered(&[])).await;
    let agents = stage.agents(&up, "cut-off", OPEN as u64, Habit::Act(600_000)).await;
    stage.reached(OPEN).await;
    up.kill().await;
    all(agents).await;
    // Each sync takes its time now, so that a process that serves too early is seen doing so.
    let (kafka, admin) = (free_address(), free_address());
    let how = How { addresses: Some((kafka.clone(), admin.clone())), ..stage.layered(&[("FORGETFUL_SYNC_MS", "60")]) };
    let healthy = tokio::spawn(async move {
        loop {
            match admin_request(&admin, "GET", "/healthz").await {
                Some((200, _)) => break,
                _ => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
        let mut trail = Trail::default();
        let findings = trail.reread(&kafka).await;
        (trail, findings)
    });
    let mut up = stage.site.up(&how).await;
    let counts = stage.is_one_story(&up.kafka).await;
    assert_eq!(counts.in_doubt, OPEN, "each was forwarded, and nobody can know");
    let (trail, findings) = tokio::time::timeout(PATIENCE, healthy).await.expect("healthy in time").expect("no panic");
    assert!(findings.is_empty(), "{findings:#?}");
    let (counts, findings) = judge(&trail, &stage.upstream.reached(), &stage.book.entries());
    assert!(findings.is_empty() && counts.in_doubt == OPEN, "when /healthz said 200: {findings:#?}");
    up.kill().await;
}

/// An address that is free now.
fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_stalls_stops_strict_calls_and_nothing_is_forwarded_until_it_works_again() {
    let mut stage = Stage::new().await;
    let mut up = stage.site.up(&stage.layered(&[])).await;
    // Some calls are at the server when the disk stalls: they have been executed, and cannot be recorded.
    let executed = stage.agents(&up, "executed", 2, Habit::Act(3_000)).await;
    stage.reached(2).await;
    // Others are anywhere, some with an intent that is accepted and will not become durable in time.
    let refused = stage.agents(&up, "refused", 4, Habit::Act(0)).await;
    stage.saw("results", 8, |saw| *saw == Saw::Result).await;
    stage.layer.fault("stall", true);
    stage.saw("executed, not recorded", 2, |saw| is_refusal(saw, EXECUTED_NOT_RECORDED)).await;
    let reached = stage.upstream.reached().len();
    stage.saw("not recorded", 8, |saw| is_refusal(saw, NOT_RECORDED)).await;
    assert_eq!(stage.upstream.reached().len(), reached, "nothing is forwarded while nothing can be recorded");
    stage.layer.fault("stall", false);
    let results = stage.book.entries().iter().filter(|entry| entry.saw == Saw::Result).count();
    stage.saw("results, once the disk works again", results + 8, |saw| *saw == Saw::Result).await;
    stage.stop.cancel();
    all(executed).await;
    all(refused).await;
    // Without a restart: what was refused while the disk stalled has its outcome, and nobody is in doubt.
    let counts = stage.is_one_story(&up.kafka).await;
    assert_eq!(counts.in_doubt, 0);
    up.kill().await;
    stage.layer.lose(Loss::All);
    let up = stage.site.up(&stage.layered(&[])).await;
    assert_eq!(stage.is_one_story(&up.kafka).await.in_doubt, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_whose_syncs_fail_stops_the_log_and_a_restart_brings_it_back() {
    let mut stage = Stage::new().await;
    let mut up = stage.site.up(&stage.layered(&[])).await;
    let agents = stage.agents(&up, "broken", 4, Habit::Mixed(0)).await;
    stage.saw("results", 8, |saw| *saw == Saw::Result).await;
    stage.layer.fault("broken", true);
    stage.saw("not recorded", 8, |saw| is_refusal(saw, NOT_RECORDED)).await;
    // A page whose sync failed cannot be trusted, so the log stays stopped though the disk works again.
    stage.layer.fault("broken", false);
    let reached = stage.upstream.reached().len();
    let refused = |entries: &[crate::book::Entry]| entries.iter().filter(|e| is_refusal(&e.saw, NOT_RECORDED)).count();
    let before = refused(&stage.book.entries());
    stage.saw("not recorded", before + 4, |saw| is_refusal(saw, NOT_RECORDED)).await;
    let strict = |id: &&String| stage.book.entries().iter().any(|entry| entry.id == **id && entry.kind.is_strict());
    assert_eq!(stage.upstream.reached()[reached..].iter().filter(strict).count(), 0);
    up.kill().await;
    all(agents).await;
    stage.layer.lose(Loss::All);
    let up = stage.site.up(&stage.layered(&[])).await;
    let (_, findings) = stage.findings(&up.kafka).await;
    // The client was told of each refusal that it could not be recorded, or heard of a denial that is lost with it.
    let real: Vec<_> = findings.iter().filter(|finding| !finding.contains("I3: the client has an answer")).collect();
    assert!(real.is_empty(), "{real:#?}");
    stage.stop = CancellationToken::new();
    let agents = stage.agents(&up, "again", 2, Habit::Act(0)).await;
    let results = stage.book.entries().iter().filter(|entry| entry.saw == Saw::Result).count();
    stage.saw("results after the restart", results + 4, |saw| *saw == Saw::Result).await;
    stage.stop.cancel();
    all(agents).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_strict_calls_with_words_that_help_and_with_room_it_serves_again_by_itself() {
    let mut stage = Stage::new().await;
    let mut up = stage.site.up(&stage.layered(&[])).await;
    let agents = stage.agents(&up, "full", 4, Habit::Act(0)).await;
    stage.saw("results", 8, |saw| *saw == Saw::Result).await;
    stage.layer.fault("full", true);
    // The file that is being written has its blocks; the next one does not get any.
    let (kafka, stop) = (up.kafka.clone(), stage.stop.child_token());
    let filling = tokio::task::spawn_blocking({
        let stop = stop.clone();
        move || fill(&kafka, &stop)
    });
    let says_what_to_do =
        |saw: &Saw| matches!(saw, Saw::Error { code: NOT_RECORDED, message } if message.contains("make room"));
    stage.saw("refusals that say what to do", 8, says_what_to_do).await;
    stop.cancel();
    filling.await.expect("filling does not panic");
    let entries = stage.book.entries();
    let reached = stage.upstream.reached().len();
    let refused = entries.iter().filter(|entry| is_refusal(&entry.saw, NOT_RECORDED)).count();
    stage.saw("more refusals", refused + 8, |saw| is_refusal(saw, NOT_RECORDED)).await;
    assert_eq!(stage.upstream.reached().len(), reached, "nothing is forwarded while nothing can be recorded");
    stage.layer.fault("full", false);
    let results = stage.book.entries().iter().filter(|entry| entry.saw == Saw::Result).count();
    stage.saw("results with room again", results + 8, |saw| *saw == Saw::Result).await;
    stage.stop.cancel();
    all(agents).await;
    up.terminate();
    up.ended(PATIENCE).await.expect("it ends well");
    let up = stage.site.up(&stage.layered(&[])).await;
    stage.is_one_story(&up.kafka).await;
}

/// Bytes of one record that fills.
const FILLING_BYTES: usize = 900_000;

/// Writes to a topic of its own until it is stopped.
fn fill(kafka: &str, stop: &CancellationToken) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", kafka)
        .set("message.timeout.ms", "5000")
        .set("log_level", "0")
        .create()
        .expect("a producer");
    let bytes = vec![b'x'; FILLING_BYTES];
    while !stop.is_cancelled() {
        // A full queue is waited for below; a refusal is what this is about.
        let _ = producer.send(BaseRecord::<(), [u8]>::to("filler").payload(&bytes));
        producer.poll(Duration::from_millis(5));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_server_and_huge_messages_get_clear_errors_and_memory_stays_bounded() {
    const HUGE_BYTES: usize = 96 << 20;
    const GROWTH_BYTES_MAX: u64 = 256 << 20;
    let mut stage = Stage::new().await;
    stage.site.limits(&stage.upstream.url, "call_timeout_ms = 1500");
    let mut up = stage.site.up(&How::default()).await;
    let before = up.resident_bytes();
    let stalled = stage.agents(&up, "stalled", 6, Habit::Act(600_000)).await;
    stage.reached(6).await;
    let huge = (0..4).map(|_| post(up.url(), vec![b' '; HUGE_BYTES]));
    for answer in futures::future::join_all(huge).await.into_iter().flatten() {
        assert!(answer.contains("message_bytes_max"), "the refusal names the setting: {answer}");
    }
    let growth = up.resident_bytes().saturating_sub(before);
    assert!(growth < GROWTH_BYTES_MAX, "grew by {growth} bytes");
    let quick = stage.agents(&up, "quick", 4, Habit::Mixed(0)).await;
    stage.saw("results beside a stalled server", 8, |saw| *saw == Saw::Result).await;
    stage.saw("calls that ran out of time", 6, |saw| is_refusal(saw, -31_009)).await;
    stage.stop.cancel();
    all(stalled).await;
    all(quick).await;
    assert_eq!(stage.is_one_story(&up.kafka).await.in_doubt, 0);
    up.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kafka_consumer_that_asks_and_does_not_read_costs_a_bounded_amount_of_memory() {
    const CONSUMERS: usize = 12;
    /// What one asks for, all of it at once, and none of it read: many times what may be kept.
    const ASKED: usize = 64;
    /// What one answer brings at least: all of them together, one for each, are about twice what may be kept.
    const ANSWER_BYTES_MIN: usize = 40 << 20;
    const GROWTH_BYTES_MAX: u64 = 256 << 20;
    let mut stage = Stage::new().await;
    let mut up = stage.site.up(&How::default()).await;
    let (kafka, full) = (up.kafka.clone(), stage.stop.child_token());
    // Also where the test fails: the runtime waits for what fills.
    let _full = full.clone().drop_guard();
    let filling = tokio::task::spawn_blocking({
        let full = full.clone();
        move || fill(&kafka, &full)
    });
    let filled = tokio::time::timeout(PATIENCE, async {
        let mut from = 0;
        loop {
            // The answers show how much is there: more than is kept in memory of what came last. One answer ends where the
            // pieces that the log looks at for it end, so a large one is looked for further on where they are small.
            let (bytes, end) = fetched(&up.kafka, from).await;
            if bytes >= ANSWER_BYTES_MIN {
                return from;
            }
            if end > from + 2 * (ANSWER_BYTES_MIN / FILLING_BYTES) as i64 {
                from += 1 + (bytes / FILLING_BYTES) as i64;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let from = filled.await.expect("a topic with something in it");
    full.cancel();
    filling.await.expect("filling does not panic");
    let before = up.resident_bytes();
    let mut consumers = Vec::new();
    for _ in 0..CONSUMERS {
        let mut consumer = TcpStream::connect(&up.kafka).await.expect("connected");
        // The broker may stop taking requests before all are written: that is what a bound looks like from here.
        let asking = consumer.write_all(&fetch_request(from).repeat(ASKED)).await;
        asking.expect("requests are small and go into the socket's buffer");
        consumers.push(consumer);
    }
    let agents = stage.agents(&up, "beside", 4, Habit::Mixed(0)).await;
    stage.saw("results beside slow consumers", 40, |saw| *saw == Saw::Result).await;
    let growth = up.resident_bytes().saturating_sub(before);
    assert!(growth < GROWTH_BYTES_MAX, "grew by {growth} bytes for {CONSUMERS} consumers");
    stage.stop.cancel();
    all(agents).await;
    drop(consumers);
    // Relaxed events come a moment after their answers.
    let settled = async {
        while !stage.findings(&up.kafka).await.1.is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let _ = tokio::time::timeout(PATIENCE, settled).await;
    stage.is_one_story(&up.kafka).await;
    up.kill().await;
}

/// A Fetch of version 4 for all of `filler`'s first partition from an offset on (Kafka protocol guide, Fetch API).
fn fetch_request(from: i64) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(1_i16.to_be_bytes()); // Fetch
    body.extend(4_i16.to_be_bytes());
    body.extend(7_i32.to_be_bytes()); // correlation
    body.extend((-1_i16).to_be_bytes()); // no client id
    body.extend((-1_i32).to_be_bytes()); // a consumer
    body.extend(0_i32.to_be_bytes()); // no wait
    body.extend(1_i32.to_be_bytes());
    body.extend((64_i32 << 20).to_be_bytes());
    body.push(0);
    body.extend(1_i32.to_be_bytes());
    body.extend(6_i16.to_be_bytes());
    body.extend(b"filler");
    body.extend(1_i32.to_be_bytes());
    body.extend(0_i32.to_be_bytes()); // the partition
    body.extend(from.to_be_bytes());
    body.extend((64_i32 << 20).to_be_bytes());
    let mut frame = u32::try_from(body.len()).expect("short").to_be_bytes().to_vec();
    frame.extend(body);
    frame
}

/// How long the answer to that is, and where the partition ends by it.
async fn fetched(kafka: &str, from: i64) -> (usize, i64) {
    // Correlation, throttling, one topic, its name, one partition, its index, its error.
    const BEFORE_END: usize = 4 + 4 + 4 + 2 + 6 + 4 + 4 + 2;
    let mut consumer = TcpStream::connect(kafka).await.expect("connected");
    consumer.write_all(&fetch_request(from)).await.expect("asked");
    let bytes = consumer.read_u32().await.expect("an answer") as usize;
    consumer.read_exact(&mut [0; BEFORE_END]).await.expect("its beginning");
    (bytes, consumer.read_i64().await.expect("the end of the partition"))
}

/// The body of the answer to a POST; `None` where the connection was closed before all was sent.
async fn post(url: String, body: Vec<u8>) -> Option<String> {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let request = http::Request::post(url).header("content-type", "application/json");
    let response = client.request(request.body(Full::new(body.into())).expect("a request")).await.ok()?;
    let body = response.into_body().collect().await.ok()?.to_bytes();
    Some(String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_that_change_under_traffic_decide_whole_calls_and_broken_ones_change_nothing() {
    let mut stage = Stage::new().await;
    let mut up = stage.site.up(&How::default()).await;
    let agents = stage.agents(&up, "reload", 6, Habit::Mixed(0)).await;
    stage.saw("results", 10, |saw| *saw == Saw::Result).await;
    let denied = |entries: &[crate::book::Entry]| {
        let act = |entry: &&crate::book::Entry| entry.kind == crate::book::Kind::Act;
        entries.iter().filter(act).filter(|entry| is_refusal(&entry.saw, -31_001)).count()
    };
    stage.site.more_policies(
        "@id(\"not-now\")\nforbid(principal, action == Action::\"tools/call\", resource == Tool::\"up/act\");\n",
    );
    until("denials by the new set", || denied(&stage.book.entries()) >= 10).await;
    // A set that does not compile: the last good one goes on deciding.
    stage.site.more_policies("permit(principal, action, resource) when { nonsense };\n");
    // The folder is looked at every second: the set is certainly seen while so much more is asked.
    until("the refused set in the log of policies", || {
        let policies = std::fs::metadata(stage.site.path("policies/crash.cedar")).and_then(|found| found.modified());
        policies.is_ok_and(|at| at.elapsed().is_ok_and(|since| since > Duration::from_secs(3)))
    })
    .await;
    let reached = |stage: &Stage| {
        let acts: std::collections::BTreeSet<_> = stage
            .book
            .entries()
            .into_iter()
            .filter(|entry| entry.kind == crate::book::Kind::Act)
            .map(|entry| entry.id)
            .collect();
        stage.upstream.reached().iter().filter(|id| acts.contains(*id)).count()
    };
    let (before, more) = (reached(&stage), denied(&stage.book.entries()) + 20);
    until("denials under the broken set", || denied(&stage.book.entries()) >= more).await;
    assert_eq!(reached(&stage), before, "I9: something denied reached the server under a set that does not compile");
    // And in the middle of the change back, a kill.
    stage.site.more_policies("");
    let results = stage.book.entries().iter().filter(|entry| entry.saw == Saw::Result).count();
    stage.saw("results under the first set again", results + 10, |saw| *saw == Saw::Result).await;
    up.kill().await;
    all(agents).await;
    let up = stage.site.up(&How::default()).await;
    stage.is_one_story(&up.kafka).await;
    let rejected = stage
        .trail
        .events("mcp.policies")
        .expect("events")
        .iter()
        .flatten()
        .any(|event| event.type_name == "policy.rejected");
    assert!(rejected, "the set that did not compile is in the trail");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_by_sigterm_in_the_middle_of_traffic_gives_every_call_its_outcome() {
    let mut stage = Stage::new().await;
    let mut up = stage.site.up(&How::default()).await;
    let slow = stage.agents(&up, "slow", 4, Habit::Act(600_000)).await;
    let quick = stage.agents(&up, "quick", 4, Habit::Mixed(0)).await;
    stage.reached(4).await;
    stage.saw("results", 10, |saw| *saw == Saw::Result).await;
    up.terminate();
    let status = up.ended(PATIENCE).await.expect("it ends");
    assert!(status.success(), "{status}");
    all(slow).await;
    all(quick).await;
    let up = stage.site.up(&How::default()).await;
    let counts = stage.is_one_story(&up.kafka).await;
    assert_eq!((counts.in_doubt, counts.closed_without_effect), (0, 0), "nothing was left for the next start to close");
}
