//! What governing costs: the same relaxed call through a Cairn that only records, and through one that also asks who calls, decides among
//! a thousand policies, counts against limits and notes what was read. And how soon the freshness guard hears of a change by way of
//! the stream.
//!
//! A budget is on disk before the call that spends it, so it costs a sync; it is set on tools, as its default is, and not on reads.

use std::{fmt::Write, net::SocketAddr, time::Duration};

use anyhow::Context;
use http::{HeaderValue, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::{
    Effort,
    children::{Stage, TOKEN},
    gateway::{metrics, take_turns, value},
    load::{Method, Target},
    report::{Report, Row},
    upstream::LONG,
};

const SECTION: &str = "Governance, relaxed call of 2 KiB (resources/read)";
const GUARD: &str = "Freshness guard";
const BARE: &str = "Cairn, recording alone";
const GOVERNED: &str = "Cairn, governed";
const ADDED_US_MAX: f64 = 150.0;
const POLICIES: usize = 1_000;
/// Changes that the guard is told of, and the time between two.
const CHANGES: usize = 500;
const EVERY: Duration = Duration::from_millis(10);
const GUARD_SECONDS_MAX: f64 = 0.050;
/// It looks four times a second whether it has everything.
const CAUGHT_UP_SECONDS: f64 = 0.5;
/// How long the guard may take to have heard of all of them.
const HEARD_MAX: Duration = Duration::from_secs(30);

/// Measures both.
pub(crate) async fn measure(stage: &Stage, effort: Effort, report: &mut Report) -> anyhow::Result<()> {
    let server = format!("[servers.canned]\ntype = \"http\"\nurl = \"http://{}/mcp\"\n", stage.upstream_at);
    let bare = stage.beside("bare", &server, None).await?;
    let key = stage.said("governed", &["key", "new", "--principal", "bench"]).await.context("make an API key")?;
    let governed = stage.beside("governed", &(server + GOVERNANCE), Some(&policies())).await?;
    let mut targets = Vec::new();
    for (name, at) in [(BARE, bare.gateway_at), (GOVERNED, governed.gateway_at)] {
        let mut target = Target::new(name, at, "/mcp/canned");
        LONG.clone_into(&mut target.resource);
        targets.push(target);
    }
    let bearer = HeaderValue::try_from(format!("Bearer {key}"))?;
    targets[1].headers.insert(header::AUTHORIZATION, bearer);
    for clients in [1, 32] {
        let turns = take_turns(stage, &targets, Method::Read, clients, effort).await?;
        let who = if clients == 1 { "1 client".to_owned() } else { format!("{clients} clients") };
        for (word, share) in [("p50", 0.5), ("p99", 0.99)] {
            let at = |name: &str| turns.at(name, share);
            report.add(Row::new(SECTION, format!("{who}: {BARE}, {word}"), at(BARE), "µs"));
            let added = turns
                .each(|round| round[GOVERNED].latencies.percentile(share) - round[BARE].latencies.percentile(share));
            report.add(
                Row::new(SECTION, format!("{who}: {GOVERNED}, {word}"), at(GOVERNED), "µs").against(BARE, at(BARE)),
            );
            let row = Row::new(SECTION, format!("{who}: added by all governance, {word}"), added, "µs");
            report.add(match (clients, word) {
                (1, "p50") => row.aim(format!("at most {ADDED_US_MAX} µs"), added <= ADDED_US_MAX),
                _ => row,
            });
        }
    }
    guard(governed.admin_at, report).await?;
    bare.end().await?;
    governed.end().await
}

/// Who calls, how much, and what the tool has to do with which resource.
const GOVERNANCE: &str = r#"
[servers.canned.tools.echo]
reads = [{ uri = "bench://text" }]
depends = ["bench://text"]

[identity]
api_keys = true

[[limits]]
name = "calls"
methods = ["*"]
per = ["tenant", "principal"]
rate = "1000000/1s"
concurrency = 1000

[[limits]]
name = "spend"
per = ["tenant", "principal"]
budget = "1000000000/1d"
"#;

/// A permit for reads, and many that are about something else.
fn policies() -> String {
    let mut text = String::from("@id(\"reads\")\npermit(principal, action == Action::\"resources/read\", resource);\n");
    text.push_str("@id(\"rest\")\npermit(principal, action, resource) when { action != Action::\"tools/call\" };\n");
    for number in 0..POLICIES - 2 {
        let _ = writeln!(
            text,
            "@id(\"tool-{number}\")\nforbid(principal, action == Action::\"tools/call\", resource == Tool::\"canned/tool-{number}\");"
        );
    }
    text
}

/// Tells of changes one after the other, and reads from Cairn's own histogram how long they took to the guard.
async fn guard(admin: SocketAddr, report: &mut Report) -> anyhow::Result<()> {
    caught_up(admin).await?;
    let before = Delays::read(&metrics(admin).await?);
    let (mut sender, connection) = handshake(TokioIo::new(TcpStream::connect(admin).await?)).await?;
    tokio::spawn(connection);
    for number in 0..CHANGES {
        let body = serde_json::json!({ "server": "canned", "uri": format!("bench://{number}"), "version": "2" });
        let request = http::Request::post("/changes")
            .header(header::HOST, admin.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {TOKEN}"))
            .body(Full::new(bytes::Bytes::from(body.to_string())))?;
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let said = response.into_body().collect().await?.to_bytes();
        anyhow::ensure!(status.is_success(), "POST /changes: {status}: {}", String::from_utf8_lossy(&said));
        tokio::time::sleep(EVERY).await;
    }
    let heard = tokio::time::timeout(HEARD_MAX, async {
        loop {
            let delays = Delays::read(&metrics(admin).await?).since(&before);
            if delays.count() >= CHANGES as f64 {
                return anyhow::Ok(delays);
            }
            tokio::time::sleep(EVERY).await;
        }
    });
    let delays = heard.await.context("the guard did not hear of all changes")??;
    for (word, share) in [("p50", 0.5), ("p99", 0.99)] {
        let below = delays.below(share);
        let row = Row::new(GUARD, format!("from {CHANGES} changes to the guard, {word} below"), below * 1e3, "ms");
        let row = row.note("the bound of a bucket of cairn_guard_delay_seconds".to_owned());
        report.add(match word {
            "p99" => row.aim("below 50 ms", below <= GUARD_SECONDS_MAX),
            _ => row,
        });
    }
    Ok(())
}

/// Waits until the guard has read what the load before left in the stream.
async fn caught_up(admin: SocketAddr) -> anyhow::Result<()> {
    let caught_up = tokio::time::timeout(HEARD_MAX, async {
        loop {
            let lag = value(&metrics(admin).await?, "cairn_guard_lag_seconds");
            if lag.is_some_and(|lag| lag < CAUGHT_UP_SECONDS) {
                return anyhow::Ok(());
            }
            tokio::time::sleep(EVERY).await;
        }
    });
    caught_up.await.context("the guard did not catch up with the stream")?
}

/// The buckets of `cairn_guard_delay_seconds`: bound, and how many are at most that.
#[derive(Debug, Default)]
struct Delays(Vec<(f64, f64)>);

impl Delays {
    fn read(text: &str) -> Self {
        let bucket = |line: &str| {
            let rest = line.strip_prefix("cairn_guard_delay_seconds_bucket{le=\"")?;
            let (bound, count) = rest.split_once("\"} ")?;
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
            Some((bound, count.split(' ').next()?.parse().ok()?))
        };
        Self(text.lines().filter_map(bucket).collect())
    }

    fn since(&self, before: &Self) -> Self {
        let then = |bound: f64| before.0.iter().find(|(known, _)| *known == bound).map_or(0.0, |(_, count)| *count);
        Self(self.0.iter().map(|(bound, count)| (*bound, count - then(*bound))).collect())
    }

    fn count(&self) -> f64 {
        self.0.last().map_or(0.0, |(_, count)| *count)
    }

    /// The bound below which that share of them lies.
    fn below(&self, share: f64) -> f64 {
        let wanted = self.count() * share;
        self.0.iter().find(|(_, count)| *count >= wanted).map_or(f64::INFINITY, |(bound, _)| *bound)
    }
}

#[cfg(test)]
mod tests {
    use super::Delays;

    #[test]
    fn buckets_are_read_and_told_by_their_bounds() {
        let text = |counts: [u32; 3]| {
            let [low, middle, all] = counts;
            format!(
                "# TYPE cairn_guard_delay_seconds histogram\ncairn_guard_delay_seconds_sum 1.5\n\
                 cairn_guard_delay_seconds_bucket{{le=\"0.0008\"}} {low}\n\
                 cairn_guard_delay_seconds_bucket{{le=\"0.0064\"}} {middle}\n\
                 cairn_guard_delay_seconds_bucket{{le=\"+Inf\"}} {all}\n"
            )
        };
        let delays = Delays::read(&text([60, 109, 110])).since(&Delays::read(&text([10, 10, 10])));
        assert_eq!((delays.count(), delays.below(0.5), delays.below(0.99)), (100.0, 0.0008, 0.0064));
        assert_eq!(delays.below(1.0), f64::INFINITY);
    }
}
