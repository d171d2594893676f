//! Torture: real brokers that are killed, stalled and stopped in a loop, under real clients (librdkafka) with idempotent producers,
//! transactions, groups whose members join and leave all the time, and readers of both kinds; also where a kill takes what was not
//! synced, or the machine. What the clients saw is held against what lies in the log at the end.
//!
//! A slice of seconds runs with the long tests, `cargo xtask torture` for as long as somebody likes. A seed says what is done to whom; a failure
//! names it and keeps the folder. To add something that must hold, add it to [`judge`]; to add somebody who uses the log, to
//! [`load`] or [`groups`].
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "who tortures wants to know how it goes")]

mod brokers;
mod groups;
mod history;
mod judge;
mod load;
#[path = "../../../../../clients/moto/moto.rs"]
mod moto;

use std::{
    path::Path,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use cairn_clock::Entropy;
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    producer::{BaseProducer, BaseRecord, Producer},
};

use self::{
    brokers::{Brokers, Deeds, Ground},
    history::{Fate, History, Isolation, Topic},
    load::Load,
};

/// How long anything may take on a machine that does much else.
const LONG: Duration = Duration::from_secs(180);
/// Things that are done to the brokers of one site of the long version.
const DEEDS: usize = 8;
/// How long the long version goes on where nobody says.
const SECONDS: u64 = 75;
const TRANSFORMERS: [u32; 3] = [20, 21, 22];
const LEDGERS: [u32; 2] = [10, 11];

#[allow(clippy::disallowed_methods)] // real processes in real time
fn pause(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// Waits until `condition` gives something.
#[allow(clippy::disallowed_methods)] // real processes in real time
fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LONG;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        pause(20);
    }
}

/// Sends everybody home when it goes, however it goes.
struct Over<'a>(&'a Load);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.producing.store(false, Ordering::SeqCst);
        self.0.done.store(true, Ordering::SeqCst);
    }
}

/// A folder that stays where something was found in it, and says how to come back to it.
struct Folder(tempfile::TempDir, u64, Ground);

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.disable_cleanup(true);
            let (folder, Self(_, seed, ground)) = (self.0.path().display(), &*self);
            eprintln!("{ground:?}, folder kept: {folder}\npaste: cargo xtask torture --seed {seed} --minutes 1");
        }
    }
}

/// What came of one site.
#[derive(Debug)]
struct Summary {
    ground: Ground,
    deeds: Deeds,
    rebalances: u64,
    history: History,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { ground, deeds: Deeds { kills, stalls, ends, early }, rebalances, history } = self;
        let fated = |wanted: Fate| history.transactions.iter().filter(|fate| **fate == wanted).count();
        let of = |topic: Topic| history.committed.keys().filter(|((place, _), _)| *place == topic).count();
        write!(
            f,
            "{ground:?}: {kills} kills ({early} within a start), {stalls} stalls, {ends} ends; {} records acknowledged, {} in \
             transactions that were committed ({}), aborted ({}) or nobody knows of ({}); {} transformed, {rebalances} changes in groups",
            history.acknowledged.len(),
            history.sent.values().filter(|sent| sent.transaction.is_some()).count(),
            fated(Fate::Committed),
            fated(Fate::Aborted),
            fated(Fate::Unknown),
            of(Topic::Out),
        )
    }
}

/// Lives through one site. `None` where there is no S3 for it.
fn site(seed: u64, ground: Ground, deeds: usize) -> Option<Summary> {
    let folder = tempfile::Builder::new().prefix("cairn-torture-").tempdir().expect("a folder");
    let folder = Folder(folder, seed, ground);
    let mut brokers = Brokers::new(ground, folder.0.path(), seed)?;
    brokers.start();
    let load = Load::new(brokers.bootstrap(), seed, deeds > 1);
    create(&load);
    std::thread::scope(|scope| {
        let over = Over(&load);
        let mut writers = vec![
            scope.spawn(|| load::write(&load, 1, Topic::Plain)),
            scope.spawn(|| load::write(&load, 2, Topic::Plain)),
            scope.spawn(|| load::write(&load, 3, Topic::In)),
        ];
        let load = &load;
        writers.extend(LEDGERS.map(|producer| scope.spawn(move || load::transact(load, producer))));
        for worker in TRANSFORMERS {
            scope.spawn(move || groups::transform(load, worker));
        }
        for worker in [30, 31] {
            scope.spawn(move || groups::follow(load, worker));
        }
        for isolation in [Isolation::Committed, Isolation::Uncommitted] {
            scope.spawn(move || groups::read(load, isolation));
        }
        scope.spawn(|| groups::watch(load));
        let entropy = Entropy::seeded(seed ^ 0x6d6f_6d65_6e74);
        for _ in 0..deeds {
            go_on(load, &entropy);
            brokers.torture();
        }
        go_on(load, &entropy);
        load.producing.store(false, Ordering::SeqCst);
        writers.into_iter().for_each(|writer| writer.join().expect("it ends well"));
        groups::caught_up(load);
        drop(over);
    });
    // What somebody left open is over when its id is taken again.
    std::thread::scope(|scope| {
        let ids = LEDGERS.map(|producer| format!("ledger-{producer}")).into_iter();
        for id in ids.chain(TRANSFORMERS.map(|worker| format!("transform-{worker}"))) {
            let load = &load;
            scope.spawn(move || drop(load.transactional(&id)));
        }
    });
    let (all, ends) = groups::everything(&load, Isolation::Uncommitted);
    let (committed, _) = groups::everything(&load, Isolation::Committed);
    let rebalances = load.rebalances.load(Ordering::SeqCst);
    let mut history = std::mem::take(&mut *load.history.lock());
    history = History { all, committed, ends, ..history };
    brokers.finish();
    verdict(&history, folder.0.path());
    Some(Summary { ground, deeds: brokers.deeds, rebalances, history })
}

/// Panics where something does not hold, and leaves what was found beside the data.
fn verdict(history: &History, folder: &Path) {
    let findings = judge::judge(history);
    if findings.is_empty() {
        return;
    }
    let words: Vec<String> = findings.iter().map(ToString::to_string).collect();
    let _ = std::fs::write(folder.join("findings.txt"), words.join("\n"));
    let _ = std::fs::write(folder.join("history.txt"), format!("{history:#?}"));
    panic!("{} findings:\n{}", words.len(), words.join("\n"));
}

/// Waits until the clients have got some way, so that what is done next meets them at work.
fn go_on(load: &Load, entropy: &Entropy) {
    let now = |load: &Load| (load.acknowledged.load(Ordering::SeqCst), load.commits.load(Ordering::SeqCst));
    let (acknowledged, commits) = now(load);
    let (more, ends) = (50 + entropy.next_u64() % 400, 2 + entropy.next_u64() % 10);
    until("records and transactions", || {
        let (by_now, ended) = now(load);
        (by_now >= acknowledged + more && ended >= commits + ends).then_some(())
    });
    pause(entropy.next_u64() % 300);
}

fn create(load: &Load) {
    let admin: AdminClient<DefaultClientContext> = load.config().create().expect("a client");
    let topics = Topic::ALL.map(|topic| NewTopic::new(topic.name(), topic.partitions(), TopicReplication::Fixed(1)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let made = runtime.block_on(admin.create_topics(&topics, &AdminOptions::new())).expect("an answer");
    assert!(made.iter().all(Result::is_ok), "{made:?}");
}

/// A few seconds of it, over the disk that forgets: the rest is in the long version.
#[test]
#[ignore = "long: some seconds of torture, and more where the machine does much else"]
fn clients_of_brokers_that_are_killed_lose_nothing_and_get_nothing_twice() {
    let summary = site(4, Ground::Forgetful, 1).expect("no S3 is needed");
    println!("proof: torture, a slice: {summary}");
}

/// A broker alone whose syncs fail ends and says why: only a start can tell what the disk has. One whose disk is full refuses, and goes on
/// when there is room. Producers lose nothing by either.
#[test]
fn a_broker_whose_disk_fails_ends_and_one_whose_disk_is_full_goes_on_when_there_is_room() {
    let folder = tempfile::Builder::new().prefix("cairn-torture-").tempdir().expect("a folder");
    let folder = Folder(folder, 0, Ground::Forgetful);
    let mut brokers = Brokers::new(Ground::Forgetful, folder.0.path(), 0).expect("no S3 is needed");
    brokers.start();
    let load = Load::new(brokers.bootstrap(), 0, false);
    create(&load);
    let filler: BaseProducer = load.config().create().expect("a producer");
    let acknowledged = || load.acknowledged.load(Ordering::SeqCst);
    let goes_on = || {
        let enough = acknowledged() + 100;
        until("acknowledgements", || (acknowledged() >= enough).then_some(()));
    };
    std::thread::scope(|scope| {
        let _over = Over(&load);
        scope.spawn(|| load::write(&load, 1, Topic::Plain));
        goes_on();
        filler
            .send(BaseRecord::<(), [u8]>::to("filler").payload(b"its topic is made"))
            .map_err(|(error, _)| error)
            .expect("queued");
        filler.flush(LONG).expect("it is made");
        brokers.fault("broken", true);
        let (code, said) = brokers.ended();
        assert_eq!(code, Some(7), "{said}");
        assert!(said.contains("the write-ahead log failed") && said.contains("restart cairn"), "{said}");
        brokers.fault("broken", false);
        brokers.go_on();
        goes_on();
        brokers.fault("full", true);
        // The file that it has is filled, then nothing is acknowledged any more.
        scope.spawn(|| load::write(&load, 2, Topic::Plain));
        until("a word about the full disk", || {
            let record = BaseRecord::<(), [u8]>::to("filler").payload(&[b'x'; 50_000]);
            let _ = filler.send(record);
            filler.poll(Duration::ZERO);
            brokers.said().contains("make room").then_some(())
        });
        brokers.fault("full", false);
        goes_on();
    });
    let (all, ends) = groups::everything(&load, Isolation::Uncommitted);
    let mut history = std::mem::take(&mut *load.history.lock());
    history = History { committed: all.clone(), followed: all.keys().copied().collect(), all, ends, ..history };
    brokers.finish();
    verdict(&history, folder.0.path());
}

/// Site after site, of all four grounds in turn, until the time is over.
#[test]
#[ignore = "long: brokers are tortured for a minute and more, or for as long as CAIRN_TORTURE_SECONDS says"]
#[allow(clippy::disallowed_methods)] // real processes in real time
fn rounds() {
    let asked = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let (mut seed, seconds) =
        (asked("CAIRN_TORTURE_SEED").unwrap_or(1), asked("CAIRN_TORTURE_SECONDS").unwrap_or(SECONDS));
    let until = Instant::now() + Duration::from_secs(seconds);
    loop {
        let ground = [Ground::Forgetful, Ground::Bucket, Ground::Pair, Ground::Disk][seed as usize % 4];
        if let Some(summary) = site(seed, ground, DEEDS) {
            println!("proof: torture, seed {seed}: {summary}");
        }
        seed += 1;
        if Instant::now() >= until {
            return;
        }
    }
}
