//! Reconstruction held against the truth: random workflows over crashes, and `cairn trail` must tell of each what its generator knows.
//!
//! The generator draws workflows (parallel calls, approvals, rounds, tasks, calls sent again), walks them through the real `cairn up` while
//! that is killed and started again, and keeps its own account; the server keeps a journal. A writer of a newer Cairn adds events of contracts
//! that this one does not know. In the end the command tells each workflow, by the index and without it.

mod account;
mod equal;
mod flow;

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use cairn_clock::Entropy;
use cairn_contract::{Topic, partition_for};
use rdkafka::{
    ClientConfig,
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    cairn::{How, PATIENCE, Site, Up, approve_all},
    rounds::proof_sites,
    upstream::Upstream,
};
use account::{Account, Asked};
use equal::Told;
use flow::{Flow, Way};

/// How much of it there is.
struct Size {
    /// Starts of Cairn that are killed; one more follows.
    lives: usize,
    /// Workflows that begin with each of them.
    workflows: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trail_tells_of_random_workflows_what_their_generator_knows() {
    let (seeds, size) = match proof_sites() {
        None => (1, Size { lives: 5, workflows: 16 }),
        Some(sites) => (sites, Size { lives: 6, workflows: 24 }),
    };
    let (mut workflows, mut requests) = (0, 0);
    for seed in 0..seeds {
        let (walked, asked) = one(seed, &size).await;
        workflows += walked;
        requests += asked;
    }
    println!(
        "proof: trails of random workflows equal their generator's account: {workflows} workflows, {requests} requests"
    );
}

/// One site from its first start to the comparison.
async fn one(seed: u64, size: &Size) -> (usize, usize) {
    let entropy = Entropy::seeded(seed ^ 0x7275_7468);
    let outside = tempfile::tempdir().expect("a folder");
    let upstream = Upstream::start(outside.path()).await;
    let mut site = Site::new(&upstream.url);
    // Few enough that calls are turned away now and then.
    site.with_consumers(&upstream.url, 24);
    let secret = cairn(&site, &["writer", "new", "newer"]).await.0;
    let account = Arc::new(Account::default());
    let mut flows: Vec<Flow> = Vec::new();
    let mut others: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut killed = BTreeSet::new();
    for life in 0..=size.lives {
        let is_last = life == size.lives;
        let mut up = site.up(&how(is_last, &entropy)).await;
        if !is_last {
            killed.insert(life);
            let fresh = (0..size.workflows).map(|number| format!("t{seed}-{life}-{number}"));
            flows.extend(fresh.map(|workflow| Flow::drawn(workflow, Entropy::seeded(entropy.next_u64()))));
        }
        let approver = tokio::spawn(approve_all(up.admin.clone()));
        let walking: Vec<_> = std::mem::take(&mut flows)
            .into_iter()
            .map(|flow| {
                let (account, url) = (account.clone(), up.url());
                tokio::spawn(async move { flow.walk(Way { url: &url, account: &account, life }).await })
            })
            .collect();
        if !is_last {
            interrupt(&mut up, &account, &entropy).await;
        }
        for walked in walking {
            let flow = walked.await.expect("a flow does not panic");
            if !flow.is_done() {
                flows.push(flow);
            }
        }
        approver.abort();
        if is_last {
            assert!(flows.is_empty(), "seed {seed}: {} workflows did not come to their end", flows.len());
            write_newer(&up, secret.trim(), &account, &mut others).await;
            let findings = compare(&site, &upstream, &account, &others, &killed).await;
            if !findings.is_empty() {
                let kept = site.keep().display().to_string();
                panic!(
                    "seed {seed}, folder {kept}, {} findings: {:#?}",
                    findings.len(),
                    &findings[..findings.len().min(6)]
                );
            }
            up.terminate();
            let status = up.ended(PATIENCE).await;
            assert!(status.is_some_and(|status| status.success()), "a clean end, not {status:?}");
        }
    }
    let all = account.all();
    let workflows: BTreeSet<&str> = all.iter().map(|asked| asked.workflow.as_str()).collect();
    (workflows.len(), all.len())
}

/// Half of the starts end by themselves within the life of a call.
fn how(is_last: bool, entropy: &Entropy) -> How {
    let step = crate::STEPS[(entropy.next_u64() % crate::STEPS.len() as u64) as usize];
    let nth = if step == "held" { 1 + entropy.next_u64() % 2 } else { 10 + entropy.next_u64() % 30 };
    let crash_at = (!is_last && entropy.next_u64().is_multiple_of(2)).then(|| format!("{step}:{nth}"));
    How { crash_at, ..How::default() }
}

/// Until it has ended, by itself or by a kill from outside after some requests.
async fn interrupt(up: &mut Up, account: &Account, entropy: &Entropy) {
    let asked = account.len() + 20 + (entropy.next_u64() % 40) as usize;
    let mut quiet = 0;
    while account.len() < asked && quiet < 400 {
        let before = account.len();
        if up.ended(Duration::from_millis(5)).await.is_some() {
            return;
        }
        // All of them may have come to their end before.
        quiet = if account.len() == before { quiet + 1 } else { 0 };
    }
    up.kill().await;
}

/// Events that a newer Cairn may write into these workflows: a newer version of a contract, and a type that is not known here.
async fn write_newer(up: &Up, secret: &str, account: &Account, others: &mut BTreeMap<String, Vec<String>>) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &up.kafka).set("security.protocol", "sasl_plaintext");
    config.set("sasl.mechanisms", "PLAIN").set("sasl.username", "newer").set("sasl.password", secret);
    let producer: BaseProducer = config.create().expect("a producer");
    let workflows: BTreeSet<String> = account.all().into_iter().map(|asked| asked.workflow).collect();
    let partitions = Topic::Calls.spec().partitions;
    for (number, workflow) in workflows.into_iter().step_by(3).enumerate() {
        for (at, kind) in ["call.intent", "call.pondered"].into_iter().enumerate() {
            let id = uuid::Uuid::from_u128(0x7000_0000_0000_0000_0000 + (number * 2 + at) as u128).to_string();
            let value = json!({ "workflow_id": workflow, "call_id": id, "principal": "somebody", "server": "up", "era": "modern",
                "mcp_method_name": "tools/call", "direction": "to_server", "hlc": "9999999999999999-00000",
                "producer": { "id": "newer", "epoch": 1, "sequence": number }, "contract": { "name": kind, "version": 99 },
                "of_the_future": { "is": "kept" } });
            let name = format!("io.cairn.{kind}");
            let all = [
                ("ce_id", id.as_str()),
                ("ce_type", &name),
                ("ce_source", "cairn://gateway/newer"),
                ("ce_time", "2026-11-24T09:00:00.000000Z"),
            ];
            let headers = all.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header { key, value: Some(value.as_bytes()) })
            });
            let partition = i32::try_from(partition_for(workflow.as_bytes(), partitions)).expect("small");
            let text = value.to_string();
            let record =
                BaseRecord::to("mcp.calls").partition(partition).key(&workflow).payload(&text).headers(headers);
            producer.send(record).map_err(|(error, _)| error).expect("it is taken");
            others.entry(workflow.clone()).or_default().push(id);
        }
    }
    tokio::task::spawn_blocking(move || producer.flush(PATIENCE).expect("all are taken")).await.expect("no panic");
}

/// Runs a command on the site; what it says, and on standard error.
async fn cairn(site: &Site, arguments: &[&str]) -> (String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cairn"));
    command.args(arguments).arg("--data").arg(site.data()).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.expect("it runs");
    let [said, fault] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{arguments:?}: {fault}");
    (said, fault)
}

/// Every workflow as the command tells it, against the account.
async fn compare(
    site: &Site,
    upstream: &Upstream,
    account: &Account,
    others: &BTreeMap<String, Vec<String>>,
    killed: &BTreeSet<usize>,
) -> Vec<String> {
    let reached: BTreeSet<String> = upstream.reached().into_iter().collect();
    let all = account.all();
    let mut by_workflow: BTreeMap<&str, Vec<&Asked>> = BTreeMap::new();
    all.iter().for_each(|asked| by_workflow.entry(&asked.workflow).or_default().push(asked));
    let mut findings = Vec::new();
    for (number, (workflow, asked)) in by_workflow.into_iter().enumerate() {
        let none = Vec::new();
        let others = others.get(workflow).unwrap_or(&none);
        let last: Vec<&Asked> = asked.iter().copied().filter(|asked| !killed.contains(&asked.life)).collect();
        let path = settled(site, workflow, &last).await;
        findings.extend(Told { path: &path, asked: &asked, reached: &reached, others, killed }.findings());
        if number % 8 == 0 {
            // Checkpoints come in their own time, and with them what is signed.
            let [whole, path] =
                [told(site, workflow, &["--whole"]).await, told(site, workflow, &[]).await].map(unsigned);
            if whole != path {
                findings.push(format!("{workflow} is told otherwise without the index"));
            }
        }
    }
    findings
}

/// What is told of a workflow, once what nothing waits for has come too, of requests whose gateway lives.
async fn settled(site: &Site, workflow: &str, asked: &[&Asked]) -> Value {
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            let path = told(site, workflow, &[]).await;
            if is_whole(&path, asked) {
                return path;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    match waited.await {
        Ok(path) => path,
        // What lacks is found when it is compared.
        Err(_) => told(site, workflow, &[]).await,
    }
}

/// Whether relaxed events are there: those of reads, and the ends of tasks.
fn is_whole(path: &Value, asked: &[&Asked]) -> bool {
    let calls = path["calls"].as_array().map(Vec::as_slice).unwrap_or_default();
    let of = |id: &str| {
        calls.iter().find(|call| {
            call["events"][0]["data"]["jsonrpc_request_id"].as_str().is_some_and(|told| told.trim_matches('"') == id)
        })
    };
    asked.iter().filter(|asked| asked.answer.is_some() && !asked.is_turned_away()).all(|asked| {
        let is_settled = || {
            let began = asked.operation.as_deref().and_then(of);
            !asked.shows_end() || began.is_none_or(|call| !call["settled"].is_null())
        };
        of(&asked.id).is_some_and(|call| !call["outcome"].is_null()) && is_settled()
    })
}

async fn told(site: &Site, workflow: &str, more: &[&str]) -> Value {
    let arguments = [&["trail", workflow, "--json"], more].concat();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cairn"));
    command.args(&arguments).arg("--data").arg(site.data()).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.expect("it runs");
    match output.status.code() {
        Some(0) => serde_json::from_slice(&output.stdout).expect("JSON"),
        // Nothing of it was ever recorded.
        Some(3) => json!({ "calls": [], "events": [] }),
        _ => panic!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr)),
    }
}

fn unsigned(mut path: Value) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(members) => {
                members.remove("proof");
                members.values_mut().for_each(strip);
            }
            Value::Array(list) => list.iter_mut().for_each(strip),
            _ => {}
        }
    }
    strip(&mut path);
    path
}
