//! Calls through the gateway, beside the same calls made directly, through a byte relay, and through peers.
//!
//! What is compared takes turns within each round, so that a slow moment of the machine falls on all of them; a ratio is taken
//! round by round, and the median of the rounds is shown.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use http::{HeaderName, HeaderValue, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::{
    Effort,
    children::Stage,
    load::{self, Method, Round, Target},
    report::{Report, Row},
    samples::{Samples, median},
};

const RELAXED: &str = "Gateway, relaxed call (resources/read)";
const STRICT: &str = "Gateway, strict call (tools/call)";
/// Cairn before a server that is a child, for peers that know no other.
const OVER_STDIO: &str = "Cairn, stdio server";
const MANY: usize = 32;
/// Of the byte relay's calls, at 32 clients.
const RELAXED_RATIO_MIN: f64 = 0.6;
/// Added at the median, one client.
const RELAXED_ADDED_US_MAX: f64 = 150.0;
/// A strict call waits for two syncs; half a sync is left for what happens meanwhile.
const STRICT_SYNCS: f64 = 2.5;
/// And so much for all else.
const STRICT_ADDED_US: f64 = 200.0;
/// What is said of every peer.
const PEER_NOTE: &str = "records nothing durably before the call";
/// Time for syncs of the disk alone in a round.
const SYNCS_WITHIN: Duration = Duration::from_millis(500);

/// What is special with some peers, by their names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Named<'a> {
    pub(crate) headers: Vec<(&'a str, &'a str)>,
    pub(crate) tools: Vec<(&'a str, &'a str)>,
    pub(crate) resources: Vec<(&'a str, &'a str)>,
}

/// Other gateways before the same upstream.
pub(crate) fn peers(urls: &[(&str, &str)], named: &Named<'_>) -> anyhow::Result<Vec<Target>> {
    let of =
        |list: &[(&str, &str)], name: &str| list.iter().find(|(of, _)| *of == name).map(|(_, at)| (*at).to_owned());
    let mut targets = Vec::new();
    for (name, url) in urls {
        let uri: Uri = url.parse().with_context(|| format!("{url} is no URL"))?;
        let authority = uri.authority().with_context(|| format!("{url} names no host"))?;
        let address: SocketAddr = authority
            .as_str()
            .parse()
            .with_context(|| format!("{url}: name an address and a port, such as 127.0.0.1:8000"))?;
        anyhow::ensure!(address.ip().is_loopback(), "{url}: load goes to loopback only");
        let mut target = Target::new(name, address, uri.path_and_query().map_or("/", |path| path.as_str()));
        for (_, header) in named.headers.iter().filter(|(of, _)| of == name) {
            let (key, value) = header.split_once(": ").with_context(|| format!("{header} is not `HEADER: VALUE`"))?;
            target.headers.insert(HeaderName::try_from(key)?, HeaderValue::try_from(value)?);
        }
        target.tool = of(&named.tools, name).unwrap_or(target.tool);
        target.resource = of(&named.resources, name).unwrap_or(target.resource);
        targets.push(target);
    }
    Ok(targets)
}

/// Measures both kinds of call with one client and with many.
pub(crate) async fn measure(
    stage: &Stage,
    peers: &[Target],
    effort: Effort,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut targets = vec![
        Target::new("direct", stage.upstream_at, "/mcp"),
        Target::new("byte relay", stage.relay_at, "/mcp"),
        Target::new("Cairn", stage.gateway_at, "/mcp/canned"),
    ];
    if !peers.is_empty() {
        // Peers that only start servers as children are to be held to the same.
        targets.push(Target::new(OVER_STDIO, stage.gateway_at, "/mcp/child"));
        targets.extend_from_slice(peers);
    }
    let readers: Vec<_> = targets.iter().filter(|target| !target.resource.is_empty()).cloned().collect();
    for clients in [1, MANY] {
        let turns = take_turns(stage, &readers, Method::Read, clients, effort).await?;
        relaxed(&turns, clients, report);
    }
    for clients in [1, MANY] {
        let before = counters(stage).await?;
        let turns = take_turns(stage, &targets, Method::Tool, clients, effort).await?;
        let after = counters(stage).await?;
        strict(&turns, clients, report);
        let cairn = |round: &BTreeMap<String, Round>| {
            ["Cairn", OVER_STDIO]
                .into_iter()
                .filter_map(|name| round.get(name))
                .map(|round| round.latencies.len())
                .sum::<usize>()
        };
        let calls = turns.rounds.iter().map(cairn).sum();
        group_commit(&before, &after, clients, calls, report);
    }
    Ok(())
}

/// Every round of every target, and of the disk.
pub(crate) struct Turns {
    names: Vec<String>,
    pub(crate) rounds: Vec<BTreeMap<String, Round>>,
    syncs: Vec<Samples>,
}

impl Turns {
    pub(crate) fn each(&self, of: impl Fn(&BTreeMap<String, Round>) -> f64) -> f64 {
        median(self.rounds.iter().map(of))
    }

    fn calls(&self, name: &str) -> f64 {
        self.each(|round| round[name].calls_per_second)
    }

    pub(crate) fn at(&self, name: &str, share: f64) -> f64 {
        self.each(|round| round[name].latencies.percentile(share))
    }

    fn added(&self, share: f64) -> f64 {
        self.each(|round| round["Cairn"].latencies.percentile(share) - round["direct"].latencies.percentile(share))
    }

    fn sync(&self, share: f64) -> f64 {
        median(self.syncs.iter().map(|samples| samples.percentile(share)))
    }
}

pub(crate) async fn take_turns(
    stage: &Stage,
    targets: &[Target],
    method: Method,
    clients: usize,
    effort: Effort,
) -> anyhow::Result<Turns> {
    let scratch = Arc::new(stage.scratch()?);
    let names = targets.iter().map(|target| target.name.clone()).collect();
    let mut turns = Turns { names, rounds: Vec::new(), syncs: Vec::new() };
    for at in 1..=effort.rounds {
        eprintln!("{method:?}, {clients} clients: round {at} of {}", effort.rounds);
        let disk = scratch.clone();
        turns.syncs.push(tokio::task::spawn_blocking(move || disk.syncs(SYNCS_WITHIN)).await??);
        let mut round = BTreeMap::new();
        for target in targets {
            if !turns.names.contains(&target.name) {
                continue;
            }
            match load::round(target, method, clients, effort.slice).await {
                Ok(took) => drop(round.insert(target.name.clone(), took)),
                // What somebody else's program does not bear is said, and left out; the run goes on.
                Err(error) if is_peer(&target.name) => {
                    eprintln!("{} is left out with {clients} clients: {error:#}", target.name);
                    turns.names.retain(|name| *name != target.name);
                }
                Err(error) => return Err(error),
            }
        }
        turns.rounds.push(round);
    }
    Ok(turns)
}

fn is_peer(name: &str) -> bool {
    !(name == "direct" || name == "byte relay" || name.starts_with("Cairn"))
}

fn clients_word(clients: usize) -> String {
    if clients == 1 { "1 client".to_owned() } else { format!("{clients} clients") }
}

/// Rows that every kind of call has: calls a second and percentiles of each target.
fn common(section: &'static str, turns: &Turns, clients: usize, report: &mut Report) {
    let who = clients_word(clients);
    for name in &turns.names {
        let noted = |row: Row| if is_peer(name) { row.note(PEER_NOTE) } else { row };
        let mut row = noted(Row::new(section, format!("{who}: {name}"), turns.calls(name), "calls/s"));
        if name != "byte relay" {
            let ratio = turns.each(|round| round[name].calls_per_second / round["byte relay"].calls_per_second);
            row = row.against_by_round("byte relay", turns.calls("byte relay"), ratio);
            if name == "Cairn" && clients == MANY && section == RELAXED {
                row = row.aim(format!("at least {RELAXED_RATIO_MIN}"), ratio >= RELAXED_RATIO_MIN);
            }
        }
        report.add(row);
        for (word, share) in [("p50", 0.5), ("p99", 0.99)] {
            let mut row = noted(Row::new(section, format!("{who}: {name}, {word}"), turns.at(name, share), "µs"));
            if name != "direct" {
                let of = |round: &BTreeMap<String, Round>| {
                    round[name].latencies.percentile(share) / round["direct"].latencies.percentile(share)
                };
                row = row.against_by_round("direct", turns.at("direct", share), turns.each(of));
            }
            report.add(row);
        }
    }
}

fn relaxed(turns: &Turns, clients: usize, report: &mut Report) {
    common(RELAXED, turns, clients, report);
    let added = turns.added(0.5);
    let row = Row::new(RELAXED, format!("{}: added by Cairn, p50", clients_word(clients)), added, "µs");
    let row = row.against("direct", turns.at("direct", 0.5));
    report.add(match clients {
        1 => row.aim(format!("at most {RELAXED_ADDED_US_MAX} µs"), added <= RELAXED_ADDED_US_MAX),
        _ => row,
    });
}

fn strict(turns: &Turns, clients: usize, report: &mut Report) {
    common(STRICT, turns, clients, report);
    for (word, share) in [("p50", 0.5), ("p99", 0.99)] {
        let (added, sync) = (turns.added(share), turns.sync(share));
        let row = Row::new(STRICT, format!("{}: added by Cairn, {word}", clients_word(clients)), added, "µs");
        let row = row.against(format!("one fdatasync of 4 KiB, {word}"), sync);
        let most = STRICT_SYNCS * sync + STRICT_ADDED_US;
        report.add(match clients {
            1 => row.aim(format!("at most {STRICT_SYNCS} syncs + {STRICT_ADDED_US} µs = {most:.0} µs"), added <= most),
            _ => row,
        });
    }
}

/// How many events rode on how many syncs.
fn group_commit(before: &Counters, after: &Counters, clients: usize, calls: usize, report: &mut Report) {
    let (syncs, events) = (after.syncs - before.syncs, after.events - before.events);
    if syncs <= 0.0 || events <= 0.0 {
        return;
    }
    let who = clients_word(clients);
    let row = Row::new(STRICT, format!("{who}: fsyncs for {calls} calls"), syncs, "");
    let row = row.against("events", events);
    report.add(match clients {
        1 => row,
        _ => row.aim("far fewer fsyncs than events (below a quarter)", syncs < events / 4.0),
    });
}

/// What Cairn's own metrics count.
#[derive(Debug, Default)]
struct Counters {
    syncs: f64,
    events: f64,
}

async fn counters(stage: &Stage) -> anyhow::Result<Counters> {
    let text = metrics(stage.admin_at).await?;
    Ok(Counters {
        syncs: value(&text, "cairn_log_fsyncs").unwrap_or_default(),
        events: value(&text, "cairn_recorder_events").unwrap_or_default(),
    })
}

/// The text of `/metrics`.
pub(crate) async fn metrics(admin: SocketAddr) -> anyhow::Result<String> {
    let (mut sender, connection) = handshake(TokioIo::new(TcpStream::connect(admin).await?)).await?;
    tokio::spawn(connection);
    let request = http::Request::get("/metrics").header("host", admin.to_string()).body(Empty::<bytes::Bytes>::new())?;
    let body = sender.send_request(request).await?.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// The value of a metric without labels, whatever suffix its kind gives it.
pub(crate) fn value(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?;
        rest.strip_prefix("_total").unwrap_or(rest).strip_prefix(' ')?.trim().parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::{Named, peers, value};

    #[test]
    fn a_counter_is_found_by_its_name_and_no_other() {
        let text = "# HELP cairn_log_fsyncs Syncs.\ncairn_log_fsyncs_others 9\ncairn_log_fsyncs_total 12\n";
        assert_eq!(value(text, "cairn_log_fsyncs"), Some(12.0));
        assert_eq!(value(text, "cairn_log"), None);
    }

    #[test]
    fn load_goes_to_loopback_only() {
        assert!(peers(&[("far", "http://192.0.2.1:80/mcp")], &Named::default()).is_err());
        let named = Named {
            headers: vec![("near", "authorization: Bearer x")],
            tools: vec![("near", "canned/echo"), ("else", "echo")],
            resources: Vec::new(),
        };
        let near = peers(&[("near", "http://127.0.0.1:81/mcp?x=1")], &named).expect("an address of this machine");
        assert_eq!((near[0].path.as_str(), near[0].headers.len()), ("/mcp?x=1", 1));
        assert_eq!((near[0].tool.as_str(), near[0].resource.as_str()), ("canned/echo", "bench://text"));
    }
}
