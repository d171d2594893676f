//! Rounds of a crash: load, a kill at one place, a new start, and the three witnesses held against each other.
//!
//! One site lives through many rounds, so that chains, epochs and recoveries pile up as they do in life. The start that
//! closes one round opens the next. Every round's plan comes from a seed that a failure names.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use cairn_clock::Entropy;
use tokio_util::sync::CancellationToken;

use crate::{
    agent::{Agent, Door, Era, Habit},
    book::Book,
    cairn::{How, PATIENCE, Site, Started, Up, approve_all},
    forgetful::{Forgetful, Loss},
    pipe::Behind,
    trail::{Follower, Trail},
    upstream::{Upstream, lines},
    verdict::{Counts, judge},
};

/// Where a process is stopped.
#[derive(Clone, Debug)]
pub(crate) enum Stop {
    /// By itself, at the nth time that a call reaches a step of its life.
    Step(&'static str),
    /// From outside, `kill -9` at any moment.
    AnyMoment,
    /// By the layer below, around the nth operation of a kind on the disk, such as `sync-before`, on files whose path has
    /// a part.
    Disk(&'static str, &'static str),
    /// By the layer below, within the first operations of a start: in recovery, or soon after.
    Starting,
}

/// What is done to one site.
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) stops: Vec<Stop>,
    pub(crate) agents: u64,
    /// Whether each kill also takes the power away.
    pub(crate) power: Power,
    pub(crate) through: Through,
    /// `[store]` of the configuration, where it is not the default.
    pub(crate) store: Option<&'static str>,
}

/// The way that the agents take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Through {
    /// HTTP to an upstream over HTTP, both eras.
    Http,
    /// `cairn wrap`, half of them before a child that `up` runs, half before an upstream over HTTP.
    Wraps,
}

/// What the disk does at a kill.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Power {
    /// It keeps everything that was written.
    Stays,
    /// It forgets what was not synced, all of it and an arbitrary part in turn.
    Fails,
}

/// What came of it.
#[derive(Default, Debug)]
pub(crate) struct Tally {
    pub(crate) kills: usize,
    pub(crate) records: usize,
    pub(crate) counts: Counts,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.kills += other.kills;
        self.records += other.records;
        self.counts.asked += other.counts.asked;
        self.counts.reached += other.counts.reached;
        self.counts.answered += other.counts.answered;
        self.counts.in_doubt += other.counts.in_doubt;
        self.counts.closed_without_effect += other.counts.closed_without_effect;
    }
}

/// Sites of each suite where `CAIRN_PROOF=crash` asks for the long version and `CAIRN_PROOF_SITES` for no other number.
const PROOF_SITES: u64 = 200;

/// How many sites of each suite the long version has; `None` in the default run.
pub(crate) fn proof_sites() -> Option<u64> {
    std::env::var("CAIRN_PROOF").ok().filter(|value| value == "crash")?;
    let sites = std::env::var("CAIRN_PROOF_SITES").ok();
    Some(sites.map_or(PROOF_SITES, |sites| sites.parse().expect("CAIRN_PROOF_SITES is a number")))
}

/// Lives through a plan; panics with everything that does not agree.
pub(crate) async fn live(plan: &Plan) -> Tally {
    let entropy = Entropy::seeded(plan.seed);
    let outside = tempfile::tempdir().expect("a folder");
    let upstream = Upstream::start(outside.path()).await;
    let mut site = Site::new(&upstream.url);
    if let Some(store) = plan.store {
        site.store(&upstream.url, store);
    }
    let sample = outside.path().join("sample-journal.txt");
    let layer = Forgetful::new(&site.data(), &outside_of(&site));
    let (book, mut trail, mut tally) = (Arc::new(Book::default()), Trail::default(), Tally::default());
    for (round, stop) in plan.stops.iter().enumerate() {
        let started = site.start(&how(stop, plan, &layer, &entropy)).await;
        tally.kills += 1;
        let mut up = match (started, stop) {
            (Started::Ready(up), _) => up,
            (Started::Ended(_), Stop::Disk(..) | Stop::Starting) => {
                lose(plan, &layer, round);
                continue;
            }
            (Started::Ended(said), _) => {
                let kept = site.keep().display().to_string();
                panic!("seed {}, round {round}: cairn up did not start over {kept}: {said}", plan.seed)
            }
        };
        // A process that the layer kills early may be gone before it was looked at; then its successor is.
        if !matches!(stop, Stop::Disk(..) | Stop::Starting) {
            check(&up, &mut trail, &reached(&upstream, &sample), &book, &mut tally, &mut site, plan, round).await;
        }
        let seen = load(&mut up, stop, plan, round, &book, &entropy, &doors(&site, &upstream, &sample)).await;
        let mut findings = Vec::new();
        match seen {
            Ok(seen) => trail.merge(seen, &mut findings),
            Err(error) => findings.push(error),
        }
        assert!(findings.is_empty(), "seed {}, round {round}: {findings:#?}", plan.seed);
        lose(plan, &layer, round);
    }
    let mut up = site.up(&How::default()).await;
    check(&up, &mut trail, &reached(&upstream, &sample), &book, &mut tally, &mut site, plan, plan.stops.len()).await;
    up.terminate();
    let status = up.ended(PATIENCE).await;
    assert!(status.is_some_and(|status| status.success()), "a clean end, not {status:?}");
    tally.records = trail.len();
    tally
}

/// Both journals: the sample server notes its tool before the id.
fn reached(upstream: &Upstream, sample: &Path) -> Vec<String> {
    let tickets = lines(sample).into_iter().map(|line| line.trim_start_matches("create_ticket ").to_owned());
    upstream.reached().into_iter().chain(tickets).collect()
}

/// Gives each agent its door.
fn doors(site: &Site, upstream: &Upstream, sample: &Path) -> impl Fn(&Up, Through, u64) -> (Door, Era) {
    let (data, url, sample) = (site.data(), upstream.url.clone(), sample.to_owned());
    move |up, through, number| match (through, number % 4) {
        (Through::Http, 0 | 2) => (Door::Http(up.url()), Era::Legacy),
        (Through::Http, _) => (Door::Http(up.url()), Era::Modern),
        (Through::Wraps, 0 | 2) => (Door::Pipe(data.clone(), Behind::Sample(sample.clone())), Era::Legacy),
        (Through::Wraps, 1) => (Door::Pipe(data.clone(), Behind::Url(url.clone())), Era::Legacy),
        (Through::Wraps, _) => (Door::Pipe(data.clone(), Behind::Url(url.clone())), Era::Modern),
    }
}

/// Where a site's layer keeps its journal: on the same file system, and not below the data folder.
fn outside_of(site: &Site) -> PathBuf {
    site.path("layer")
}

fn how(stop: &Stop, plan: &Plan, layer: &Forgetful, entropy: &Entropy) -> How {
    let nth = |most: u64| 1 + entropy.next_u64() % most;
    let needs_layer = plan.power == Power::Fails || matches!(stop, Stop::Disk(..) | Stop::Starting);
    let mut env = if needs_layer { layer.env() } else { Vec::new() };
    let crash_at = match stop {
        // Steps that few calls reach come early, others anywhere in the load.
        Stop::Step("held") => Some(format!("held:{}", nth(3))),
        Stop::Step(step) => Some(format!("{step}:{}", nth(30))),
        Stop::AnyMoment => None,
        Stop::Disk(op, part) => {
            // A start has some dozens of them; most of these fall into the load behind it.
            env.push(("FORGETFUL_KILL", format!("{op}:{}:{part}", 30 + nth(150))));
            None
        }
        Stop::Starting => {
            env.push(("FORGETFUL_KILL", format!("any:{}", nth(50))));
            None
        }
    };
    How { crash_at, env, ..How::default() }
}

fn lose(plan: &Plan, layer: &Forgetful, round: usize) {
    if plan.power == Power::Fails {
        layer.lose(if round.is_multiple_of(2) { Loss::All } else { Loss::Some(plan.seed ^ round as u64) });
    }
}

/// The new process is ready: whatever the last one left must be settled now.
#[allow(clippy::too_many_arguments, reason = "a check looks at everything there is")]
async fn check(
    up: &Up,
    trail: &mut Trail,
    reached: &[String],
    book: &Book,
    tally: &mut Tally,
    site: &mut Site,
    plan: &Plan,
    round: usize,
) {
    let mut findings = trail.reread(&up.kafka).await;
    if up.admin_get("/healthz").await.map(|(status, _)| status) != Some(200) {
        findings.push("it said ready, and /healthz does not say 200".to_owned());
    }
    let (counts, found) = judge(trail, reached, &book.entries());
    findings.extend(found);
    tally.counts = counts;
    if !findings.is_empty() {
        let kept = site.keep().display().to_string();
        findings.truncate(12);
        panic!("seed {}, after round {round} ({:?}), folder {kept}: {findings:#?}", plan.seed, plan.stops);
    }
}

/// Lets all of them come in, then all of them ask.
pub(crate) async fn begin(agents: Vec<Agent>) -> Vec<tokio::task::JoinHandle<()>> {
    let opening = agents.into_iter().map(|agent| async move { agent.open().await.map(|wire| (agent, wire)) });
    let opened = futures::future::join_all(opening).await;
    opened.into_iter().flatten().map(|(agent, wire)| tokio::spawn(agent.run(wire))).collect()
}

/// Agents ask until the process is dead. Gives what a consumer saw meanwhile.
async fn load(
    up: &mut Up,
    stop: &Stop,
    plan: &Plan,
    round: usize,
    book: &Arc<Book>,
    entropy: &Entropy,
    doors: &impl Fn(&Up, Through, u64) -> (Door, Era),
) -> Result<Trail, String> {
    let follower = Follower::start(&up.kafka).await;
    let quiet = CancellationToken::new();
    let held_every = if matches!(stop, Stop::Step("held")) { 4 } else { 40 };
    let agents: Vec<_> = (0..plan.agents)
        .map(|number| {
            let (door, era) = doors(up, plan.through, number);
            Agent {
                door,
                era,
                workflow: format!("w{}-{round}-{number}", plan.seed),
                book: book.clone(),
                entropy: Entropy::seeded(entropy.next_u64()),
                habit: Habit::Mixed(held_every),
                stop: quiet.clone(),
            }
        })
        .collect();
    let agents = begin(agents).await;
    let approver = tokio::spawn(approve_all(up.admin.clone()));
    match stop {
        Stop::AnyMoment => {
            // Wherever a clock and a loaded machine put it: the place is not what this stop is about.
            let asked = book.entries().len() + 1 + (entropy.next_u64() % 40) as usize;
            while book.entries().len() < asked {
                tokio::time::sleep(Duration::from_millis(1 + entropy.next_u64() % 10)).await;
            }
            up.kill().await;
        }
        Stop::Step(_) | Stop::Disk(..) | Stop::Starting => {
            let status = up.ended(PATIENCE).await;
            assert!(status.is_some(), "seed {}, round {round}: {stop:?} was never reached", plan.seed);
        }
    }
    for agent in agents {
        agent.await.expect("an agent does not panic");
    }
    approver.abort();
    follower.end().await
}
