//! `cairn verify` and `cairn evidence`: a real trail verifies; every spoiled bundle and every doctored copy of it does not.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    message::{Header, Headers, OwnedHeaders, OwnedMessage},
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde_json::{Value, json};

use crate::support::{Agent, LONG, Process, Up, cairn, http, run, sample, text, wait_for};

pub(crate) fn configured(folder: &Path) -> PathBuf {
    configured_with(folder, "")
}

/// The same with more tables behind `[evidence]`.
pub(crate) fn configured_with(folder: &Path, more: &str) -> PathBuf {
    let words = sample(&folder.join("journal.txt"));
    let args = serde_json::to_string(&words[1..]).expect("strings");
    let path = folder.join("cairn.toml");
    let toml = format!(
        "[evidence]\ninterval_ms = 200\nname = \"example.com/audit\"\n{more}[servers.orders]\ncommand = {:?}\nargs = {args}\n",
        words[0]
    );
    std::fs::write(&path, toml).expect("written");
    path
}

pub(crate) fn started(data: &Path, config: &Path) -> Up {
    Up::start(data, &["--config", &config.display().to_string()])
}

pub(crate) fn evidence(data: &Path, arguments: &[&str]) -> Output {
    run(cairn().arg("evidence").args(arguments).arg("--data").arg(data))
}

pub(crate) fn verify(arguments: &[&str]) -> (i32, Value) {
    let output = run(cairn().arg("verify").arg("--json").args(arguments));
    let code = output.status.code().expect("it exits");
    let report = serde_json::from_slice(&output.stdout);
    (code, report.unwrap_or_else(|_| panic!("{code}: {} {}", text(&output.stdout), text(&output.stderr))))
}

pub(crate) fn kinds(report: &Value) -> BTreeSet<String> {
    let findings = report["findings"].as_array().expect("findings");
    findings.iter().map(|finding| finding["kind"].as_str().expect("a kind").to_owned()).collect()
}

/// Calls in two workflows, and then nothing that no checkpoint covers.
pub(crate) fn make_calls(up: &Up, data: &Path) {
    for workflow in ["first", "second", "first"] {
        let agent = Agent::connect_in(workflow, &up.gateway, "orders");
        for order in ["order-1", "order-2"] {
            assert!(agent.call("get_order", &json!({ "order_id": order })).get("result").is_some());
        }
    }
    settle(data);
}

pub(crate) fn settle(data: &Path) {
    let data = data.display().to_string();
    wait_for("checkpoints over all", || {
        let (code, report) = verify(&["--data", &data]);
        let partitions = report["partitions"].as_array()?.clone();
        let is_covered = |place: &Value| place["topic"] == "mcp.checkpoints" || place["proven"] == place["records"];
        assert_eq!(code, 0, "{report}");
        (partitions.len() > 20 && partitions.iter().all(is_covered)).then_some(())
    });
}

#[test]
fn a_bundle_verifies_offline_and_a_spoiled_one_does_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let (config, data) = (configured(folder.path()), folder.path().join("data"));
    let up = started(&data, &config);
    make_calls(&up, &data);
    let key = text(&evidence(&data, &["key"]).stdout).trim().to_owned();
    assert!(key.starts_with("example.com/audit+"), "{key}");
    let bundle = folder.path().join("first.bundle");
    let path = bundle.display().to_string();
    let output = evidence(&data, &["export", "--workflow", "first", "-o", &path]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let metrics = http(&up.admin, "GET /metrics", &[], "").body;
    assert!(
        metrics.contains("cairn_evidence_failing 0") && metrics.contains("cairn_evidence_findings_total 0"),
        "{metrics}"
    );

    // The old key vouches for the new one, while calls go on.
    let before = text(&evidence(&data, &["key"]).stdout);
    assert!(evidence(&data, &["rotate"]).status.success());
    make_calls(&up, &data);
    assert_eq!(text(&evidence(&data, &["key"]).stdout), before, "whoever trusts the first key need not be told");
    let (code, report) = verify(&["--data", &data.display().to_string(), "--key", &key]);
    assert_eq!(code, 0, "{report}");
    up.end();

    let (code, report) = verify(&[&path, "--key", &key]);
    assert_eq!((code, kinds(&report).len()), (0, 0), "{report}");
    assert!(
        report["partitions"].as_array().expect("some").iter().any(|place| place["topic"] == "mcp.calls"),
        "{report}"
    );
    let stranger = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    let (code, report) = verify(&[&path, "--key", stranger]);
    assert!(code == 5 && kinds(&report).contains("untrusted"), "{report}");

    let good: Vec<String> =
        std::fs::read_to_string(&bundle).expect("a bundle").lines().map(ToOwned::to_owned).collect();
    // The second record of a stretch that has three or more.
    let at =
        good.windows(3).position(|lines| lines.iter().all(|line| line.starts_with("{\"record\""))).expect("events") + 1;
    let spoil = |what: &str| {
        let mut lines = good.clone();
        match what {
            "changed" => {
                let mut line: Value = serde_json::from_str(&lines[at]).expect("a line");
                let value = line["record"]["value"].as_str().expect("a value").to_owned();
                let other = if value.as_bytes()[40] == b'A' { "B" } else { "A" };
                line["record"]["value"] = format!("{}{other}{}", &value[..40], &value[41..]).into();
                lines[at] = line.to_string();
            }
            "removed" => drop(lines.remove(at)),
            "inserted" => {
                let timed = good[at].find("\"timestamp_ms\":").expect("a time") + 15;
                lines.insert(at, format!("{}1{}", &good[at][..timed], &good[at][timed..]));
            }
            "swapped" => lines.swap(at, at + 1),
            "replayed" => lines.insert(at + 1, good[at].clone()),
            _ => lines.truncate(at),
        }
        lines.join("\n") + "\n"
    };
    for what in ["changed", "removed", "inserted", "swapped", "replayed", "truncated"] {
        std::fs::write(&bundle, spoil(what)).expect("written");
        let (code, report) = verify(&[&path, "--key", &key]);
        let found = kinds(&report);
        assert!(code == 5 && found.contains(what), "{what}: {report}");
    }
}

/// Every record of the trail's topics.
pub(crate) fn records(bootstrap: &str) -> Vec<OwnedMessage> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "copy")
        .set("enable.auto.commit", "false")
        .create()
        .expect("a consumer");
    let metadata = consumer.fetch_metadata(None, LONG).expect("it answers");
    let (mut assignment, mut left) = (TopicPartitionList::new(), 0);
    for topic in metadata.topics().iter().filter(|topic| topic.name().starts_with("mcp.")) {
        for partition in topic.partitions() {
            let (low, high) = consumer.fetch_watermarks(topic.name(), partition.id(), LONG).expect("it answers");
            assignment.add_partition_offset(topic.name(), partition.id(), Offset::Offset(low)).expect("added");
            left += high - low;
        }
    }
    consumer.assign(&assignment).expect("assigned");
    (0..left).map(|_| consumer.poll(LONG).expect("a record").expect("no error").detach()).collect()
}

/// A log in a process of its own, and what its one writer proves.
pub(crate) struct Cluster {
    _process: Process,
    pub(crate) kafka: String,
    pub(crate) properties: [(&'static str, String); 4],
}

impl Cluster {
    pub(crate) fn start(folder: &Path, name: &str) -> Self {
        let data = folder.join(name);
        let secret = run(cairn().args(["writer", "new", "copier", "--data"]).arg(&data));
        let secret = text(&secret.stdout).trim().to_owned();
        let mut command = cairn();
        command.args(["broker", "--kafka", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"]).arg(&data);
        let Up { process, kafka, .. } = Up::spawn(&mut command, &data);
        let properties = [
            ("security.protocol", "sasl_plaintext".to_owned()),
            ("sasl.mechanism", "PLAIN".to_owned()),
            ("sasl.username", "copier".to_owned()),
            ("sasl.password", secret),
        ];
        Self { _process: process, kafka, properties }
    }

    /// A client that may write.
    pub(crate) fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.kafka);
        for (name, value) in &self.properties {
            config.set(*name, value);
        }
        config
    }
}

pub(crate) fn headers_of(record: &OwnedMessage) -> OwnedHeaders {
    let all = record.headers().into_iter().flat_map(Headers::iter);
    all.fold(OwnedHeaders::new(), |all, header| all.insert(Header { key: header.key, value: header.value }))
}

/// A log of its own with those records: what somebody could show who has the operator's rights.
fn copy_of(folder: &Path, name: &str, records: &[OwnedMessage]) -> Cluster {
    let cluster = Cluster::start(folder, name);
    let mut config = cluster.config();
    let admin: AdminClient<DefaultClientContext> = config.create().expect("a client");
    let topics: BTreeSet<_> = records.iter().map(|record| record.topic().to_owned()).collect();
    let count = |topic: &str| {
        if ["mcp.calls", "mcp.context", "mcp.sessions", "mcp.models", "mcp.actions"].contains(&topic) { 8 } else { 1 }
    };
    let topics: Vec<_> =
        topics.iter().map(|topic| NewTopic::new(topic, count(topic), TopicReplication::Fixed(1))).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let made = runtime.block_on(admin.create_topics(&topics, &AdminOptions::new())).expect("an answer");
    assert!(made.iter().all(Result::is_ok), "{made:?}");
    let producer: BaseProducer = config.set("acks", "all").set("max.in.flight", "1").create().expect("a producer");
    for record in records {
        let mut sent =
            BaseRecord::<[u8], [u8]>::to(record.topic()).partition(record.partition()).headers(headers_of(record));
        sent = sent.timestamp(record.timestamp().to_millis().expect("a time"));
        sent.key = record.key();
        sent.payload = record.payload();
        assert!(producer.send(sent).is_ok());
        producer.poll(Duration::ZERO);
    }
    producer.flush(LONG).expect("all are taken");
    cluster
}

fn with_value(record: &OwnedMessage, value: Vec<u8>) -> OwnedMessage {
    OwnedMessage::new(
        Some(value),
        record.key().map(ToOwned::to_owned),
        record.topic().to_owned(),
        record.timestamp(),
        record.partition(),
        record.offset(),
        record.headers().map(rdkafka::message::OwnedHeaders::to_owned),
    )
}

#[test]
fn a_doctored_copy_of_a_trail_is_found_by_the_real_command() {
    let folder = tempfile::tempdir().expect("a folder");
    let (config, data) = (configured(folder.path()), folder.path().join("data"));
    let up = started(&data, &config);
    make_calls(&up, &data);
    let key = text(&evidence(&data, &["key"]).stdout).trim().to_owned();
    let kept = folder.path().join("kept.note");
    std::fs::write(&kept, evidence(&data, &["checkpoint"]).stdout).expect("written");
    let kept = kept.display().to_string();
    let all = records(&up.kafka);
    let (code, report) = verify(&["--bootstrap", &up.kafka, "--key", &key, "--checkpoint", &kept]);
    assert_eq!(code, 0, "{report}");
    up.end();
    let calls: Vec<usize> = (0..all.len()).filter(|n| all[*n].topic() == "mcp.calls").collect();
    let partition = all[calls[1]].partition();
    let own: Vec<usize> = calls.iter().copied().filter(|n| all[*n].partition() == partition).collect();
    assert!(own.len() > 8, "a partition has events to spoil");
    for what in ["nothing", "changed", "removed", "inserted", "swapped", "replayed", "cut", "truncated", "skipped"] {
        let mut records = all.clone();
        let (at, next) = (own[3], own[4]);
        match what {
            "changed" => {
                let mut value = all[at].payload().expect("a value").to_vec();
                let place = value.windows(7).position(|part| part == b"orders\"").expect("a server");
                value[place] = b'O';
                records[at] = with_value(&all[at], value);
            }
            "removed" => drop(records.remove(at)),
            // Another event in the name of the same producer.
            "inserted" => {
                let other = text(all[at].payload().expect("a value")).replace("orders\"", "Orders\"");
                records.insert(next, with_value(&all[at], other.into_bytes()));
            }
            "swapped" => records.swap(at, next),
            "replayed" => records.push(all[at].clone()),
            // The checkpoints that cover the tail stay.
            "cut" => {
                let mut n = 0;
                records.retain(|_| {
                    n += 1;
                    !(own.contains(&(n - 1)) && n > next)
                });
            }
            // With the tail go the checkpoints that cover it; what the auditor kept stays.
            "truncated" => {
                let mut n = 0;
                records.retain(|record| {
                    n += 1;
                    record.topic() != "mcp.checkpoints" && !(own.contains(&(n - 1)) && n > next)
                });
            }
            // The producer itself leaves a number out: only its own word changes, so the last event names the right one before.
            "skipped" => {
                let last = *own.last().expect("events");
                let value = text(all[last].payload().expect("a value"));
                let (head, rest) = value.split_once("\"sequence\":").expect("a sequence");
                let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
                let later = digits.parse::<u64>().expect("a number") + 3;
                let value = format!("{head}\"sequence\":{later}{}", &rest[digits.len()..]);
                records[last] = with_value(&all[last], value.into_bytes());
            }
            _ => {}
        }
        let cluster = copy_of(folder.path(), what, &records);
        let mut arguments = vec!["--bootstrap", &cluster.kafka, "--key", &key];
        if what == "truncated" {
            arguments.extend(["--checkpoint", &kept]);
        }
        let (code, report) = verify(&arguments);
        let found = kinds(&report);
        drop(cluster);
        assert_eq!(code, 5, "{what}: {report}");
        // A copy is another topic under the same name, and that is always said.
        assert!(found.contains("recreated"), "{what}: {report}");
        if what == "nothing" {
            assert_eq!(found.len(), 1, "{report}");
        } else {
            let named = if what == "cut" { "truncated" } else { what };
            assert!(found.contains(named), "{what}: {report}");
        }
    }
}

#[test]
fn a_log_that_was_made_anew_is_an_alert_and_stops_no_call() {
    let folder = tempfile::tempdir().expect("a folder");
    let (config, data) = (configured(folder.path()), folder.path().join("data"));
    let up = started(&data, &config);
    make_calls(&up, &data);
    up.end();
    for part in ["log", "objects"] {
        std::fs::remove_dir_all(data.join(part)).expect("removed");
    }
    let up = started(&data, &config);
    let agent = Agent::connect_in("first", &up.gateway, "orders");
    assert!(agent.call("get_order", &json!({ "order_id": "order-1" })).get("result").is_some());
    wait_for("the alert", || {
        let metrics = http(&up.admin, "GET /metrics", &[], "").body;
        let line = metrics.lines().find(|line| line.starts_with("cairn_evidence_findings_total "))?;
        (line != "cairn_evidence_findings_total 0").then_some(())
    });
    assert!(up.errors().contains("was made anew"), "{}", up.errors());
    up.end();
}
