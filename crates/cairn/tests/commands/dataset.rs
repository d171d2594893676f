//! `cairn dataset`: what agents did as rows for evaluating models, made again to the byte, and what is said where that cannot be.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde_json::{Value, json};

use crate::{
    evidence::Cluster,
    support::{Agent, LONG, Orders, TOKEN, cairn, run, text, wait_for},
};

const POLICIES: &str =
    "@id(\"reads\") permit(principal, action, resource) unless { resource == Tool::\"orders/refund_order\" };\n";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Makes a data set; how many rows it has.
fn make(out: &Path, more: &[&str]) -> Value {
    let output = run(cairn().args(["dataset", "make", "--json", "--out"]).arg(out).args(more));
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn rows(folder: &Path) -> Vec<Value> {
    let lines = std::fs::read_to_string(folder.join("calls.jsonl")).expect("rows");
    lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Makes it again: the exit code, and what differs.
fn rebuild(manifest: &Path, more: &[&str]) -> (i32, Value) {
    let output = run(cairn().args(["dataset", "rebuild", "--json"]).arg(manifest).args(more));
    let code = output.status.code().expect("it exits");
    let told = serde_json::from_slice(&output.stdout);
    (code, told.unwrap_or_else(|_| panic!("{code}: {} {}", text(&output.stdout), text(&output.stderr))))
}

fn differs_in(rebuilt: &Value) -> BTreeSet<&str> {
    let list = rebuilt["differences"].as_array().expect("a list");
    list.iter().map(|one| one["what"].as_str().expect("a word")).collect()
}

#[test]
fn a_data_set_of_what_agents_did_is_made_again_to_the_byte_until_somebody_is_erased() {
    let orders = Orders::new(POLICIES, "");
    let up = orders.up();
    let data = orders.data().display().to_string();
    let agent = Agent::connect_in("refund-4711", &up.gateway, "orders");
    assert!(agent.call("get_order", &json!({ "order_id": "order-1" })).get("result").is_some());
    assert!(agent.call("refund_order", &json!({ "order_id": "order-1" })).get("result").is_none());
    let others = Agent::connect_in("another", &up.gateway, "orders");
    assert!(others.call("get_order", &json!({ "order_id": "order-2" })).get("result").is_some());

    // What is recorded without waiting comes a moment later.
    let attempt = std::cell::Cell::new(0);
    let chosen = ["--workflow", "refund-4711", "--data", &data];
    let folder: PathBuf = wait_for("both calls", || {
        attempt.set(attempt.get() + 1);
        let folder = orders.folder.path().join(format!("set-{}", attempt.get()));
        (make(&folder, &chosen)["counts"]["rows"] == 2).then_some(folder)
    });
    let found = rows(&folder);
    let of = |row: usize, key: &str| found[row][key].as_str().unwrap_or_default().to_owned();
    assert_eq!([of(0, "tool"), of(0, "decision"), of(0, "outcome")], ["get_order", "permit", "completed"]);
    assert_eq!([of(1, "tool"), of(1, "decision"), of(1, "outcome")], ["refund_order", "deny", "denied"]);
    assert!(found[0]["arguments"]["digest"].is_string() && found[0]["elapsed_us"].is_u64(), "{}", found[0]);

    let manifest = folder.join("manifest.json");
    let (code, again) = rebuild(&manifest, &["--data", &data]);
    assert_eq!((code, &again["is_identical"], &again["rows"]), (0, &json!(true), &json!(2)), "{again}");
    // What happened since is not in it.
    assert!(agent.call("get_order", &json!({ "order_id": "order-2" })).get("result").is_some());
    let (code, again) = rebuild(&manifest, &["--data", &data]);
    assert_eq!((code, &again["is_identical"]), (0, &json!(true)), "{again}");

    let twice = run(cairn().args(["dataset", "make", "--data", &data, "--out"]).arg(&folder));
    assert!(!twice.status.success() && text(&twice.stderr).contains("already"), "{}", text(&twice.stderr));

    let principal = of(0, "principal");
    let mut erase = cairn();
    erase.args(["erase", "--subject", &principal, "--yes", "--data", &data]).env("CAIRN_OPERATOR_TOKEN", TOKEN);
    let erased = run(&mut erase);
    assert!(erased.status.success(), "{}", text(&erased.stderr));
    let (code, again) = rebuild(&manifest, &["--data", &data]);
    assert_eq!((code, &again["is_identical"]), (5, &json!(false)), "{again}");
    assert_eq!(differs_in(&again), BTreeSet::from(["erased", "file", "rows"]), "{again}");
    up.end();
}

/// A log with the topics of calls and model calls, and who may write it.
struct Stream {
    cluster: Cluster,
    producer: BaseProducer,
}

impl Stream {
    fn start(folder: &Path, name: &str) -> Self {
        let cluster = Cluster::start(folder, name);
        let admin: AdminClient<DefaultClientContext> = cluster.config().create().expect("a client");
        let topics = ["mcp.calls", "mcp.models"].map(|name| NewTopic::new(name, 8, TopicReplication::Fixed(1)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let made = runtime.block_on(admin.create_topics(&topics, &AdminOptions::new())).expect("an answer");
        assert!(made.iter().all(Result::is_ok), "{made:?}");
        let producer = cluster.config().set("acks", "all").create().expect("a producer");
        Self { cluster, producer }
    }

    fn tell(&self, topic: &str, kind: &str, id: u128, data: &Value) {
        let mut data = data.clone();
        data["contract"] = json!({ "name": kind, "version": 1 });
        data["hlc"] = json!(format!("1795521600000000-{id:05}"));
        data["producer"] = json!({ "id": "gw-1", "epoch": 1, "sequence": id });
        let (id, kind) = (uuid::Uuid::from_u128(id).to_string(), format!("io.cairn.{kind}"));
        let all = [
            ("ce_id", id.as_str()),
            ("ce_type", &kind),
            ("ce_source", "cairn://gateway/gw-1"),
            ("ce_time", "2026-11-24T09:00:00.000000Z"),
        ];
        let headers = all.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value.as_bytes()) })
        });
        let text = data.to_string();
        let record = BaseRecord::to(topic).partition(3).headers(headers).key("w").payload(&text);
        self.producer.send(record).map_err(|(error, _)| error).expect("it is taken");
        self.producer.flush(LONG).expect("it is written");
    }

    fn tell_a_call(&self) {
        let mut call = json!({
            "workflow_id": "w", "call_id": "01996b5e-7c00-7000-8000-000000000001", "trace_id": TRACE, "principal": "ann",
            "server": "orders", "mcp_method_name": "tools/call", "gen_ai_tool_name": "refund_order", "decision": "permit",
            "policy_version": "sha256:aa", "outcome": "completed", "effect": "answered",
        });
        self.tell("mcp.calls", "call.decision", 1, &call);
        // Twice, as a producer may that had to send again.
        self.tell("mcp.calls", "call.outcome", 2, &call);
        self.tell("mcp.calls", "call.outcome", 2, &call);
        call["span_id"] = json!("00f067aa0ba902b7");
        call["gen_ai_request_model"] = json!("gpt-5-mini");
        call["gen_ai_usage_input_tokens"] = json!(1_200);
        call["gen_ai_usage_output_tokens"] = json!(40);
        call["tools_offered"] = json!([{ "name": "get_order" }, { "name": "refund_order" }]);
        call["tools_chosen"] = json!([{ "name": "orders_refund_order" }]);
        self.tell("mcp.models", "model.called", 3, &call);
    }
}

#[test]
fn a_row_says_which_model_chose_the_call_and_what_that_cost_and_another_log_is_not_taken_for_the_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let stream = Stream::start(folder.path(), "one");
    stream.tell_a_call();
    let config = folder.path().join("prices.toml");
    let prices = "[evaluate]\ncurrency = \"USD\"\n[evaluate.prices.gpt-5-mini]\ninput = \"0.25\"\noutput = \"2\"\n";
    std::fs::write(&config, prices).expect("written");
    let set = folder.path().join("set");
    let config = config.display().to_string();
    let counts = make(&set, &["--bootstrap", &stream.cluster.kafka, "--config", &config, "--chosen"])["counts"].clone();
    assert_eq!((&counts["rows"], &counts["duplicates"]), (&json!(1), &json!(1)), "{counts}");
    let row = rows(&set).remove(0);
    let model = &row["model"];
    assert_eq!((&model["cost"], &model["currency"]), (&json!("0.00038"), &json!("USD")), "{row}");
    assert_eq!((&row["offered_by"], &row["tools_offered"][1]["name"]), (&json!("model"), &json!("refund_order")));
    let manifest = set.join("manifest.json");
    let (code, again) = rebuild(&manifest, &["--bootstrap", &stream.cluster.kafka]);
    assert_eq!((code, &again["is_identical"]), (0, &json!(true)), "prices stand in the manifest: {again}");

    // The same events at the same offsets of a log that is not the same.
    let other = Stream::start(folder.path(), "two");
    other.tell_a_call();
    let kept = folder.path().join("again");
    let (code, again) =
        rebuild(&manifest, &["--bootstrap", &other.cluster.kafka, "--out", &kept.display().to_string()]);
    assert_eq!((code, &again["rows"]), (5, &json!(0)), "{again}");
    assert_eq!(differs_in(&again), BTreeSet::from(["file", "rows", "topic_gone"]), "{again}");
    assert_eq!(std::fs::read(kept.join("calls.jsonl")).expect("kept"), b"");
}
