//! The collector at work: keys that rotate under load, trouble that stops no call, a cluster that others write to, a history
//! that forks, a witness.

use std::{
    collections::BTreeSet,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use rdkafka::{
    ClientConfig, Message,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    producer::{BaseProducer, BaseRecord, Producer},
    types::RDKafkaErrorCode,
};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::evidence::{
    Cluster, configured, configured_with, evidence, headers_of, kinds, make_calls, records, settle, started, verify,
};
use crate::support::{Agent, LONG, Up, cairn, http, text, wait_for};

fn key_of(data: &Path) -> String {
    text(&evidence(data, &["key"]).stdout).trim().to_owned()
}

fn written(path: PathBuf, bytes: &[u8]) -> String {
    std::fs::write(&path, bytes).expect("written");
    path.display().to_string()
}

fn metric(up: &Up, name: &str) -> u64 {
    let page = http(&up.admin, "GET /metrics", &[], "").body;
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name}: {page}")).parse().expect("a number")
}

/// The place of a covered record of `mcp.calls`.
fn covered_call(data: &Path) -> [String; 2] {
    let (_, report) = verify(&["--data", &data.display().to_string(), "--topic", "mcp.calls"]);
    let place = report["partitions"].as_array().expect("partitions").iter().find(|place| place["proven"] != 0);
    let place = place.unwrap_or_else(|| panic!("nothing is covered: {report}"));
    [place["partition"].to_string(), place["proven_to"].to_string()]
}

/// Says stop however a test ends.
struct Stops<'s>(&'s AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn keys_rotate_under_load_without_losing_a_call_and_every_earlier_proof_verifies() {
    let folder = tempfile::tempdir().expect("a folder");
    let (config, data) = (configured(folder.path()), folder.path().join("data"));
    let up = started(&data, &config);
    make_calls(&up, &data);
    let first = key_of(&data);
    let stop = AtomicBool::new(false);
    let (mut proofs, mut bundles, mut rotations) = (vec![], vec![], String::new());
    let made: usize = std::thread::scope(|scope| {
        let load = |caller: usize| {
            let agent = Agent::connect_in(&format!("load-{caller}"), &up.gateway, "orders");
            let mut made = 0;
            while !stop.load(Ordering::SeqCst) {
                let answer = agent.call("create_ticket", &json!({ "title": format!("{caller}-{made}") }));
                assert!(answer.get("result").is_some(), "{answer}");
                made += 1;
            }
            made
        };
        let callers: Vec<_> = (0..3).map(|caller| scope.spawn(move || load(caller))).collect();
        let _stops = Stops(&stop);
        for round in 0..3 {
            let [partition, offset] = covered_call(&data);
            let place = ["proof", "--topic", "mcp.calls", "--partition", &partition, "--offset", &offset];
            let output = evidence(&data, &place);
            assert!(output.status.success(), "{}", text(&output.stderr));
            proofs.push(written(folder.path().join(format!("{round}.tlog-proof")), &output.stdout));
            let bundle = folder.path().join(format!("{round}.bundle")).display().to_string();
            let output = evidence(&data, &["export", "--workflow", "first", "-o", &bundle]);
            assert!(output.status.success(), "{}", text(&output.stderr));
            bundles.push(bundle);
            let note = text(&evidence(&data, &["rotate"]).stdout);
            let new = note.lines().nth(2).expect("the new key").to_owned();
            rotations.push_str(&format!("{note}\n"));
            // The running collector goes over to it: its id stands in front of each signature.
            let id = new.split('+').nth(1).expect("an id").to_owned();
            wait_for("a checkpoint by the new key", || {
                let notes = text(&evidence(&data, &["checkpoint", "--topic", "mcp.calls"]).stdout);
                let ids = notes.lines().filter_map(|line| {
                    let signature = STANDARD.decode(line.strip_prefix("\u{2014} ")?.split(' ').nth(1)?).ok()?;
                    Some(hex::encode(&signature[..4]))
                });
                ids.into_iter().any(|signer| signer == id).then_some(())
            });
        }
        stop.store(true, Ordering::SeqCst);
        callers.into_iter().map(|caller| caller.join().expect("no call fails")).sum()
    });
    assert!(made > 3, "there was load");
    settle(&data);
    let journal = std::fs::read_to_string(folder.path().join("journal.txt")).expect("a journal");
    assert_eq!(journal.lines().filter(|line| line.starts_with("create_ticket ")).count(), made);
    let mut completed = 0;
    for record in records(&up.kafka).iter().filter(|record| record.topic() == "mcp.calls") {
        let event: Value = serde_json::from_slice(record.payload().expect("a value")).expect("JSON");
        let is_load = event["workflow_id"].as_str().is_some_and(|id| id.starts_with("load-"));
        completed +=
            usize::from(is_load && event["mcp_method_name"] == "tools/call" && event["outcome"] == "completed");
    }
    assert_eq!(completed, made, "each call has its outcome");
    let (code, report) = verify(&["--data", &data.display().to_string(), "--key", &first]);
    assert_eq!(code, 0, "{report}");
    up.end();

    // Offline, by whoever trusts the first key alone.
    let rotations = written(folder.path().join("rotations.notes"), rotations.as_bytes());
    for (proof, bundle) in proofs.iter().zip(&bundles) {
        for file in [proof, bundle] {
            let (code, report) = verify(&[file, "--key", &first, "--rotation", &rotations]);
            assert_eq!((code, &report["findings"]), (0, &json!([])), "{file}: {report}");
        }
        let (code, report) = verify(&[bundle, "--key", &first]);
        assert_eq!(code, 0, "a bundle brings its rotations along: {report}");
    }
    let (code, report) = verify(&[&proofs[2], "--key", &first]);
    assert!(code == 5 && kinds(&report).contains("untrusted"), "{report}");
    let spoiled = std::fs::read_to_string(&proofs[0]).expect("a proof").replacen("index ", "index 1", 1);
    let spoiled = written(folder.path().join("spoiled.tlog-proof"), spoiled.as_bytes());
    let (code, report) = verify(&[&spoiled, "--key", &first]);
    assert!(code == 5 && kinds(&report).contains("changed"), "{report}");
}

#[test]
fn a_collector_that_cannot_work_stops_no_call_is_shown_and_catches_up() {
    let folder = tempfile::tempdir().expect("a folder");
    // A witness that takes connections and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("bound");
    let (witness, _) = witness("witness.example/silent");
    let more = format!("[[evidence.witnesses]]\nkey = \"{witness}\"\nurl = \"http://{address}/w\"\n");
    let (config, data) = (configured_with(folder.path(), &more), folder.path().join("data"));
    let up = started(&data, &config);
    make_calls(&up, &data);
    wait_for("a witness that fails", || (metric(&up, "cairn_evidence_witness_failures_total") > 0).then_some(()));
    up.end();
    // The folder of the evidence is no folder any more.
    let (own, away) = (data.join("evidence"), folder.path().join("away"));
    std::fs::rename(&own, &away).expect("moved");
    std::fs::write(&own, "in the way").expect("written");
    let up = started(&data, &config);
    let agent = Agent::connect_in("first", &up.gateway, "orders");
    let call = || assert!(agent.call("get_order", &json!({ "order_id": "order-1" })).get("result").is_some());
    call();
    wait_for("the failure", || (metric(&up, "cairn_evidence_failing") == 1).then_some(()));
    assert!(up.errors().contains("no evidence is made yet") && up.errors().contains("calls go on"), "{}", up.errors());
    wait_for("a lag that grows", || {
        call();
        (metric(&up, "cairn_evidence_lag_seconds") >= 2).then_some(())
    });
    std::fs::remove_file(&own).expect("removed");
    std::fs::rename(&away, &own).expect("moved back");
    wait_for("evidence again", || (metric(&up, "cairn_evidence_failing") == 0).then_some(()));
    settle(&data);
    wait_for("no lag", || {
        let lags = ["cairn_evidence_lag_seconds", "cairn_evidence_lag_records", "cairn_evidence_waiting_records"];
        lags.iter().all(|name| metric(&up, name) == 0).then_some(())
    });
    assert_eq!(metric(&up, "cairn_evidence_findings_total"), 0, "{}", up.errors());
    up.end();
}

#[test]
fn what_an_outsider_writes_on_a_cluster_is_foreign_though_it_was_signed_with_the_rest() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(folder.path(), "cluster");
    let properties: Vec<_> = cluster.properties.iter().map(|(name, value)| format!("{name:?} = {value:?}")).collect();
    let backbone = format!(
        "[backbone]\nkind = \"kafka\"\nbootstrap = \"{}\"\nproperties = {{ {} }}\n",
        cluster.kafka,
        properties.join(", ")
    );
    let (config, data) = (configured_with(folder.path(), &backbone), folder.path().join("data"));
    let mut command = cairn();
    command.args(["gateway", "--gateway", "127.0.0.1:0", "--admin", "127.0.0.1:0"]).arg("--config").arg(&config);
    let up = Up::spawn(command.arg("--data").arg(&data), &data);
    make_calls(&up, &data);

    // Somebody who cannot write as Cairn does cannot write at all here, and with Cairn's own name is found.
    let all = records(&cluster.kafka);
    let event = all.iter().find(|record| record.topic() == "mcp.calls").expect("a call");
    let mut forged: Value = serde_json::from_slice(event.payload().expect("a value")).expect("JSON");
    forged["producer"] = json!({ "id": "01996b5e-7c00-7000-8000-000000000001", "epoch": 1, "sequence": 0 });
    let forged = forged.to_string();
    let mut open = ClientConfig::new();
    open.set("bootstrap.servers", &cluster.kafka).set("message.timeout.ms", "3000");
    let nobody: BaseProducer = open.create().expect("a producer");
    assert!(nobody.send(BaseRecord::to("mcp.calls").partition(event.partition()).key("k").payload("x")).is_ok());
    nobody.flush(LONG).expect("it gives up");
    let producer: BaseProducer = cluster.config().create().expect("a producer");
    for value in ["x", forged.as_str()] {
        let record = BaseRecord::to("mcp.calls").partition(event.partition()).key("k").payload(value);
        assert!(producer.send(record.headers(headers_of(event))).is_ok());
    }
    producer.flush(LONG).expect("both are taken");
    let end =
        all.iter().filter(|record| (record.topic(), record.partition()) == ("mcp.calls", event.partition())).count();
    let data_path = data.display().to_string();
    let findings = wait_for("signed checkpoints over them", || {
        let (code, report) = verify(&["--data", &data_path, "--topic", "mcp.calls"]);
        assert_eq!(code, 5, "{report}");
        let is_covered = |place: &Value| place["proven"] == place["records"];
        report["partitions"].as_array()?.iter().all(is_covered).then(|| report["findings"].clone())
    });
    // That they were signed with the rest makes nobody's of them Cairn's.
    let findings = findings.as_array().expect("findings");
    assert!(findings.iter().all(|finding| finding["kind"] == "foreign"), "{findings:?}");
    let offsets: BTreeSet<_> = findings.iter().map(|finding| finding["offset"].as_u64().expect("an offset")).collect();
    assert_eq!(offsets, BTreeSet::from([end as u64, end as u64 + 1]), "{findings:?}");

    // Nor can a topic be made anew by whoever may write to it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let admin: AdminClient<DefaultClientContext> = cluster.config().create().expect("a client");
    let done = runtime.block_on(admin.delete_topics(&["mcp.sessions"], &AdminOptions::new())).expect("an answer");
    assert!(matches!(&done[..], [Err((_, RDKafkaErrorCode::TopicAuthorizationFailed))]), "{done:?}");
    up.end();
}

#[test]
fn two_histories_that_one_key_signed_are_a_fork() {
    let folder = tempfile::tempdir().expect("a folder");
    let (config, data) = (configured(folder.path()), folder.path().join("data"));
    let up = started(&data, &config);
    make_calls(&up, &data);
    let key = key_of(&data);
    up.end();
    let other = folder.path().join("other");
    assert!(Command::new("cp").arg("-a").arg(&data).arg(&other).status().expect("cp runs").success());
    let up = started(&other, &config);
    let agent = Agent::connect_in("first", &up.gateway, "orders");
    assert!(agent.call("get_order", &json!({ "order_id": "order-2" })).get("result").is_some());
    settle(&other);
    let kept = written(folder.path().join("kept.note"), &evidence(&other, &["checkpoint"]).stdout);
    let (code, report) = verify(&["--data", &other.display().to_string(), "--checkpoint", &kept]);
    assert_eq!(code, 0, "the history that it is of: {report}");
    up.end();
    // The other history is whole by itself, and longer.
    let up = started(&data, &config);
    make_calls(&up, &data);
    let (code, report) = verify(&["--data", &data.display().to_string(), "--key", &key, "--checkpoint", &kept]);
    assert!(code == 5 && kinds(&report).contains("forked"), "{report}");
    up.end();
    // The log of the one under the evidence of the other: the collector has signed something else, and signs no more of it.
    for part in ["log", "objects"] {
        std::fs::remove_dir_all(data.join(part)).expect("removed");
        assert!(Command::new("cp").arg("-a").arg(other.join(part)).arg(&data).status().expect("cp runs").success());
    }
    let up = started(&data, &config);
    let agent = Agent::connect_in("first", &up.gateway, "orders");
    assert!(agent.call("get_order", &json!({ "order_id": "order-2" })).get("result").is_some());
    wait_for("the finding", || (metric(&up, "cairn_evidence_findings_total") > 0).then_some(()));
    assert!(up.errors().contains("nothing more of it is signed"), "{}", up.errors());
    // Past what was signed, too.
    for _ in 0..40 {
        assert!(agent.call("get_order", &json!({ "order_id": "order-1" })).get("result").is_some());
    }
    let before = text(&evidence(&data, &["checkpoint", "--topic", "mcp.calls"]).stdout);
    up.end();
    assert_eq!(text(&evidence(&data, &["checkpoint", "--topic", "mcp.calls"]).stdout), before);
}

/// A witness's verifier key, and what signs.
fn witness(name: &str) -> (String, Ed25519KeyPair) {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[9; 32]).expect("a seed");
    let key = [&[4], pair.public_key().as_ref()].concat();
    let id = Sha256::digest([name.as_bytes(), b"\n", &key].concat());
    (format!("{name}+{}+{}", hex::encode(&id[..4]), STANDARD.encode(key)), pair)
}

#[test]
fn a_witness_cosigns_by_hand_and_the_trail_shows_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let name = "witness.example/w1";
    let (key, pair) = witness(name);
    let more = format!("[[evidence.witnesses]]\nkey = \"{key}\"\n");
    let (config, data) = (configured_with(folder.path(), &more), folder.path().join("data"));
    let up = started(&data, &config);
    make_calls(&up, &data);
    let path = data.display().to_string();
    let (code, report) = verify(&["--data", &path, "--witness", &key]);
    assert!(code == 5 && kinds(&report) == BTreeSet::from(["unwitnessed".to_owned()]), "{report}");
    let notes = text(&evidence(&data, &["checkpoint"]).stdout);
    let parts: Vec<_> = notes.trim_end().split("\n\n").collect();
    let id = hex::decode(key.split('+').nth(1).expect("an id")).expect("hexadecimal");
    for (number, note) in parts.chunks(2).enumerate() {
        let time = 1_795_521_600_u64;
        let signature = pair.sign(format!("cosignature/v1\ntime {time}\n{}\n", note[0]).as_bytes());
        let line = STANDARD.encode([&id, time.to_be_bytes().as_slice(), signature.as_ref()].concat());
        let cosigned = format!("{}\n\n{}\n\u{2014} {name} {line}\n", note[0], note[1]);
        let file = written(folder.path().join(format!("{number}.note")), cosigned.as_bytes());
        let output = run_cosigned(&data, &config, &file);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    wait_for("the cosignatures", || {
        let (code, report) = verify(&["--data", &path, "--witness", &key]);
        let all = report["partitions"].as_array()?.clone();
        let is_witnessed = |place: &Value| place["topic"] == "mcp.checkpoints" || place["witnessed_to"].is_u64();
        (code == 0 && all.iter().filter(|place| place["records"] != 0).all(is_witnessed)).then_some(())
    });
    assert!(metric(&up, "cairn_evidence_cosignatures_total") > 0);
    up.end();
}

fn run_cosigned(data: &Path, config: &Path, file: &str) -> std::process::Output {
    evidence(data, &["cosigned", file, "--config", &config.display().to_string()])
}
