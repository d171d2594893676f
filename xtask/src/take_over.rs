//! Brokers that take over from each other, under clients of other people: how long each waits, and what it is left with.
//!
//! Who calls it: `cargo xtask take-over` and `cargo xtask proof`. An S3 server, brokers with their write-ahead log in one bucket, and for each
//! client library a program that writes numbered records to several partitions, several requests in flight, while a group of the same
//! library reads on. In each round something happens to the active broker. It guarantees that at the end everything that was acknowledged
//! or read is compared with everything that is there, and that a broker that was replaced has ended as such.

mod brokers;
mod clients;
mod document;
mod ledger;
#[path = "../../clients/moto/moto.rs"]
mod moto;
mod wire;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;

use self::brokers::{Broker, wait};
use self::clients::{Client, LIBRARIES, Settings, Task};
use self::wire::State;
use crate::tally::Tally;
use crate::{cairn, places};

/// Partitions of each client's topic.
const PARTITIONS: u32 = 4;
/// What the time until the next acknowledgement must stay below, 99 times of 100.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// After so long a client that does not go on is a failure.
const LIMIT: Duration = Duration::from_secs(120);
/// How long all is left alone before a round, and after it has come to its end.
const CALM: Duration = Duration::from_millis(1500);
/// How long a client may take to write the last, and to read all.
const FINISH_LIMIT: Duration = Duration::from_secs(1_200);

/// What happens to the active broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    Kill,
    Stall,
    /// Part of some rounds of `Stall`.
    #[value(skip)]
    Second,
    Term,
    StoreCut,
    ClientsCut,
    BothCut,
}

impl Kind {
    const ALL: [Self; 7] =
        [Self::Kill, Self::Stall, Self::Second, Self::Term, Self::StoreCut, Self::ClientsCut, Self::BothCut];

    /// In the document's words.
    fn words(self) -> &'static str {
        match self {
            Self::Kill => "kill -9",
            Self::Stall => "SIGSTOP, and SIGCONT after the take-over",
            Self::Second => "kill -9, while the one before it still sleeps",
            Self::Term => "SIGTERM",
            Self::StoreCut => "cut off from the store",
            Self::ClientsCut => "cut off from its clients, after the end of that",
            Self::BothCut => "cut off from both",
        }
    }

    /// Whether a client learns from the network that its broker is gone, and not only from its own time-outs.
    fn is_told(self) -> bool {
        matches!(self, Self::Kill | Self::Term | Self::StoreCut)
    }
}

/// What to run.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// How many rounds; the kinds take turns.
    #[arg(long, default_value_t = 12)]
    rounds: usize,
    /// What the order and the variants of the rounds follow from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many brokers there are.
    #[arg(long, default_value_t = 3)]
    brokers: usize,
    /// Milliseconds between two records of a client.
    #[arg(long, default_value_t = 20)]
    pace_ms: u32,
    /// Only these kinds.
    #[arg(long, value_delimiter = ',')]
    kinds: Vec<Kind>,
    /// Only these libraries.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// The cargo profile that Cairn is built with.
    #[arg(long, default_value = "quick")]
    profile: String,
    /// Leave docs/take-over.md as it is.
    #[arg(long)]
    keep_document: bool,
}

impl Options {
    /// The long version.
    pub(crate) fn proof() -> Self {
        Self {
            rounds: 120,
            seed: 1,
            brokers: 3,
            pace_ms: 20,
            kinds: Vec::new(),
            only: Vec::new(),
            profile: "quick".to_owned(),
            keep_document: false,
        }
    }

    fn is_whole(&self) -> bool {
        self.kinds.is_empty() && self.only.is_empty() && !self.keep_document
    }

    /// What somebody types to run it again.
    fn command(&self) -> String {
        format!("cargo xtask take-over --rounds {} --seed {}", self.rounds, self.seed)
    }
}

/// How long one client waited in one round.
#[derive(Clone, Copy, Debug)]
struct Sample {
    kind: Kind,
    /// Nothing where it is the brokers themselves, until one was ready.
    client: Option<usize>,
    pause: Duration,
}

/// Numbers that follow from a seed (xorshift).
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % most
    }
}

/// A run.
struct Course {
    brokers: Vec<Broker>,
    /// The place of the active one.
    active: usize,
    clients: Vec<Client>,
    samples: Vec<Sample>,
    chance: Chance,
}

/// Runs the rounds, and writes the document where all kinds and clients were there.
pub(crate) fn run(options: &Options) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let program = cairn::build(&options.profile)?;
    let store = match moto::Moto::start() {
        Ok(store) => store,
        Err(why) => {
            tally.skip("brokers that take over", &why);
            return Ok(tally);
        }
    };
    store.make_bucket("pair");
    let folder = places::cache("run")?.join(format!("take-over-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder)?;
    let address = store.endpoint().replace("http://", "");
    let mut brokers = brokers::prepare(&program, &folder, &address, options.brokers.max(2))?;
    for broker in &mut brokers {
        broker.stand_by()?;
    }
    let bootstrap: Vec<_> = brokers.iter().map(|broker| broker.front.address.clone()).collect();
    let stop = folder.join("stop");
    let task = Task { bootstrap: bootstrap.join(","), partitions: PARTITIONS, pace_ms: options.pace_ms, stop: &stop };
    let chance = Chance(options.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut course = Course { brokers, active: 0, clients: Vec::new(), samples: Vec::new(), chance };
    for library in LIBRARIES {
        if !options.only.is_empty() && !options.only.iter().any(|only| only == library.0) {
            continue;
        }
        for settings in [Settings::Quick, Settings::Plain] {
            match Client::start(*library, settings, &task) {
                Ok(client) => course.clients.push(client),
                Err(error) => tally.skip(library.0, &format!("{error:#}").replace('\n', " ")),
            }
        }
    }
    tally.check("every client writes to all its partitions", course.go_on(|_| true, Instant::now()));
    course.play(options, &mut tally);
    std::fs::write(&stop, "")?;
    conclude(options, course, &folder, &mut tally)?;
    drop(store);
    Ok(tally)
}

/// Waits for the clients, judges, prints, and writes.
fn conclude(options: &Options, mut course: Course, folder: &PathBuf, tally: &mut Tally) -> anyhow::Result<()> {
    let mut verdicts = Vec::new();
    for client in &mut course.clients {
        client.finish(FINISH_LIMIT);
        let verdict = client.with(|ledger| ledger.judge(PARTITIONS));
        let words = client.with(|ledger| ledger.words.clone());
        let whole = (verdict.lost, verdict.twice, verdict.wrong) == (0, 0, 0) && verdict.acknowledged > 0;
        let said = format!("{:?}; it said {:?}", verdict, &words[words.len().saturating_sub(5)..]);
        let result = if whole { Ok(()) } else { Err(anyhow::anyhow!(said)) };
        tally.check(&format!("{}: {} acknowledged, all there once", client.name(), verdict.acknowledged), result);
        verdicts.push(verdict);
    }
    let table = document::table(&course, &verdicts);
    say!("\n{table}");
    // What was slow is told; what is wrong is not worth a table.
    if options.is_whole() && tally.failed == 0 {
        document::write(&table, &options.command())?;
    }
    for (at, client) in course.clients.iter().enumerate() {
        for kind in Kind::ALL {
            let pauses = course.pauses(kind, Some(at));
            let Some(worst) = document::quantile(&pauses, 99) else { continue };
            let is_bound = client.settings == Settings::Quick || kind.is_told();
            let late = is_bound && worst >= PAUSE_MAX;
            let result = if late { Err(anyhow::anyhow!("p99 is {worst:?}")) } else { Ok(()) };
            tally.check(&format!("{}, {}: p99 below {PAUSE_MAX:?}", client.name(), kind.words()), result);
        }
    }
    drop(course);
    if tally.failed == 0 {
        std::fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    } else {
        say!("  what the brokers said is in {}", folder.display());
    }
    Ok(())
}

impl Course {
    fn play(&mut self, options: &Options, tally: &mut Tally) {
        let mut kinds = if options.kinds.is_empty() { Kind::ALL.to_vec() } else { options.kinds.clone() };
        kinds.retain(|kind| *kind != Kind::Second);
        let mut order = Vec::new();
        for round in 0..options.rounds {
            if order.is_empty() {
                order = kinds.clone();
                for at in (1..order.len()).rev() {
                    let other = self.chance.below(at as u64 + 1) as usize;
                    order.swap(at, other);
                }
            }
            let kind = order.pop().expect("there are kinds");
            std::thread::sleep(CALM + Duration::from_millis(self.chance.below(2_000)));
            let before = self.samples.len();
            let result = self.round(kind);
            let is_over = result.is_err();
            tally.check(&format!("round {}: {}", round + 1, kind.words()), result);
            let told = self.samples[before..].iter().map(|sample| {
                let who = sample.client.map_or("ready".to_owned(), |at| self.clients[at].name());
                format!("{who} {:.1}", sample.pause.as_secs_f32())
            });
            say!("          {}", told.collect::<Vec<_>>().join(", "));
            if is_over {
                return; // nobody knows any more who is active
            }
        }
    }

    fn round(&mut self, kind: Kind) -> anyhow::Result<()> {
        let old = self.active;
        let broker = &mut self.brokers[old];
        let begun = Instant::now();
        let cut = if self.chance.below(2) == 0 { State::Silent } else { State::Refuses };
        match kind {
            Kind::Kill => {
                broker.kill();
                if self.chance.below(2) == 0 {
                    broker.forget()?;
                }
            }
            Kind::Stall | Kind::Second => broker.signal("STOP"),
            Kind::Term => broker.signal("TERM"),
            Kind::StoreCut => broker.back.set(cut),
            Kind::BothCut => {
                broker.back.set(cut);
                broker.front.set(State::Silent);
            }
            Kind::ClientsCut => {
                broker.front.set(cut);
                std::thread::sleep(Duration::from_millis(500 + self.chance.below(9_500)));
                self.brokers[old].front.set(State::Open);
                return self.settle(kind, Instant::now());
            }
        }
        self.take_over(kind, begun, old)?;
        if kind == Kind::Stall && self.brokers.len() > 2 && self.chance.below(2) == 0 {
            // It sleeps through another one's time, and through what that one removed.
            let second = self.active;
            std::thread::sleep(CALM);
            let begun = Instant::now();
            self.brokers[second].kill();
            self.take_over(Kind::Second, begun, old)?;
            self.brokers[second].stand_by()?;
        }
        let broker = &mut self.brokers[old];
        broker.signal("CONT");
        match kind {
            Kind::Kill => {}
            Kind::Term => broker.ends(0)?,
            _ => broker.ends(REPLACED)?,
        }
        broker.front.set(State::Open);
        broker.back.set(State::Open);
        broker.stand_by()?;
        self.settle_rest()
    }

    /// Waits until another one is active, which is not the one that sleeps, and all go on there.
    fn take_over(&mut self, kind: Kind, begun: Instant, sleeps: usize) -> anyhow::Result<()> {
        let (brokers, old) = (&self.brokers, self.active);
        let next = wait("another broker takes over", LIMIT, || {
            (0..brokers.len()).find(|at| ![old, sleeps].contains(at) && brokers[*at].is_active())
        })?;
        let ready = Instant::now();
        self.samples.push(Sample { kind, client: None, pause: ready - begun });
        self.active = next;
        let quick = |client: &Client| client.settings == Settings::Quick || kind.is_told();
        self.go_on(quick, ready)?;
        self.note(kind, begun, quick);
        Ok(())
    }

    /// Waits until all go on with the broker that was active before.
    fn settle(&mut self, kind: Kind, since: Instant) -> anyhow::Result<()> {
        self.go_on(|client| client.settings == Settings::Quick, since)?;
        self.note(kind, since, |client| client.settings == Settings::Quick);
        self.settle_rest()
    }

    fn settle_rest(&self) -> anyhow::Result<()> {
        self.go_on(|_| true, Instant::now())
    }

    fn go_on(&self, whose: impl Fn(&Client) -> bool, since: Instant) -> anyhow::Result<()> {
        for client in self.clients.iter().filter(|client| whose(client)) {
            wait(&format!("{} goes on", client.name()), LIMIT, || {
                client.with(|ledger| ledger.goes_on(PARTITIONS, since)).then_some(())
            })?;
        }
        Ok(())
    }

    /// Keeps how long each waited, once it is calm again: one that stops a second time is found too.
    fn note(&mut self, kind: Kind, since: Instant, whose: impl Fn(&Client) -> bool) {
        std::thread::sleep(CALM);
        let until = Instant::now();
        for (at, client) in self.clients.iter().enumerate().filter(|(_, client)| whose(client)) {
            let pause = client.with(|ledger| ledger.pause(PARTITIONS, since, until));
            self.samples.push(Sample { kind, client: Some(at), pause });
        }
    }

    /// In order.
    fn pauses(&self, kind: Kind, client: Option<usize>) -> Vec<Duration> {
        let of = self.samples.iter().filter(|sample| sample.kind == kind && sample.client == client);
        let mut pauses: Vec<_> = of.map(|sample| sample.pause).collect();
        pauses.sort();
        pauses
    }
}

/// What the code says of who was replaced.
const REPLACED: i32 = 6;
