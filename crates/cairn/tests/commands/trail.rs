//! `cairn trail` and `cairn tail`: what they print is what a Kafka consumer of somebody else's reads, and a closed pipe ends
//! them quietly.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    path::Path,
    process::Stdio,
};

use serde_json::{Value, json};

use crate::support::{Agent, Process, Up, cairn, events, orders, run, text, trail, wait_for};

fn tail(data: &Path, arguments: &[&str]) -> Vec<Value> {
    let output = run(cairn().args(["tail", "--no-follow", "--json", "--data"]).arg(data).args(arguments));
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
}

fn places<'v>(values: impl IntoIterator<Item = &'v Value>) -> BTreeSet<(String, i64, i64)> {
    let place = |value: &Value| {
        let number = |key: &str| value[key].as_i64().expect("a number");
        (value["topic"].as_str().expect("a topic").to_owned(), number("partition"), number("offset"))
    };
    // Checkpoints come in their own time.
    values.into_iter().filter(|value| value["topic"] != "mcp.checkpoints").map(place).collect()
}

#[test]
fn what_is_printed_is_what_a_consumer_reads() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = orders(folder.path());
    let data = folder.path().join("data");
    let up = Up::start(&data, &["--config", &config.display().to_string()]);
    let agents = ["first", "second"].map(|workflow| Agent::connect_in(workflow, &up.gateway, "orders"));
    for agent in &agents {
        assert!(agent.call("get_order", &json!({ "order_id": "order-1" })).get("result").is_some());
    }
    assert!(agents[1].call("get_order", &json!({ "order_id": "order-2" })).get("result").is_some());
    // Relaxed events follow within 50 ms.
    let all = wait_for("the last event", || {
        let found = events(&data);
        (found.iter().filter(|event| event["type"] == "call.answered").count() >= 5).then_some(found)
    });
    let recent = trail(&data, None);
    assert_eq!(recent.as_array().expect("a list").len(), 2, "{recent}");
    let newest = recent[0]["workflow_id"].as_str().expect("an id");
    assert_eq!((newest, recent[0]["calls"].as_u64()), ("second", Some(3)), "the newest workflow comes first: {recent}");

    let path = trail(&data, Some(newest));
    let calls = path["calls"].as_array().expect("calls");
    assert_eq!(calls.len(), 3);
    for call in calls {
        assert_eq!(call["decision"]["policy_version"], "observe");
        for step in ["decision", "intent", "outcome"] {
            assert!(places([&call[step]]).is_subset(&places(&all)), "{step} of {call}");
        }
        assert!(call["durations"]["call_us"].as_u64().expect("a duration") > 0);
    }
    let printed = calls.iter().flat_map(|call| call["events"].as_array().expect("events"));
    let printed = places(printed.chain(path["events"].as_array().expect("events")));
    let expected = places(all.iter().filter(|event| event["data"]["workflow_id"] == newest));
    assert_eq!(printed, expected, "every event of the workflow, and no other");

    assert_eq!(places(&tail(&data, &["--from-start"])), places(&all));
    assert_eq!(places(&tail(&data, &["--since", "1h"])), places(&all));
    assert!(tail(&data, &[]).is_empty() && tail(&data, &["--since", "2999-01-01T00:00:00Z"]).is_empty());
    let outcomes = tail(&data, &["--from-start", "--type", "call.outcome", "--server", "orders"]);
    assert_eq!(outcomes.len(), 5, "{outcomes:?}");
    assert!(tail(&data, &["--from-start", "--type", "call", "--server", "nobody"]).is_empty());
    assert_eq!(tail(&data, &["--from-start", "--workflow", newest, "--type", "call.intent"]).len(), 3);

    // Whoever follows sees what comes.
    let mut following = cairn();
    following.args(["tail", "--json", "--count", "1", "--type", "call.intent", "--data"]).arg(&data);
    let mut following = crate::support::Process {
        child: following.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("it starts"),
    };
    let mut out = BufReader::new(following.child.stdout.take().expect("piped"));
    let (sender, received) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = out.read_line(&mut line);
        let _ = sender.send(line);
    });
    let line = wait_for("an event to follow", || {
        agents[0].call("get_order", &json!({ "order_id": "order-3" }));
        received.try_recv().ok()
    });
    assert_eq!(serde_json::from_str::<Value>(&line).expect("an object")["type"], "call.intent");
    assert!(following.wait().success());

    for arguments in [vec!["tail", "--from-start"], vec!["trail", newest], vec!["tail", "--from-start", "--json"]] {
        let mut command = cairn();
        command.args(&arguments).arg("--data").arg(&data).stdin(Stdio::null());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut process = crate::support::Process { child };
        drop(process.child.stdout.take()); // nobody reads, as behind `head` once it has enough
        let status = process.wait();
        let mut said = String::new();
        let stderr = process.child.stderr.take().expect("piped");
        BufReader::new(stderr).read_line(&mut said).expect("read");
        assert!(status.success() && !said.contains("panicked"), "{arguments:?}: {status} {said}");
    }
    let nothing = run(cairn().args(["trail", "no-such-workflow", "--data"]).arg(&data));
    assert_eq!(nothing.status.code(), Some(3), "{}", text(&nothing.stderr));
    up.end();
    let nobody = run(cairn().args(["trail", "--bootstrap", "127.0.0.1:9", "--data"]).arg(&data));
    assert_eq!(nobody.status.code(), Some(4), "{}", text(&nobody.stderr));
}

/// Reads on until the outcome of a call of `tool`.
fn until(lines: &mut impl Iterator<Item = String>, tool: &str) {
    lines.find(|line| line.contains("call.outcome") && line.contains(tool)).expect("the outcome is printed");
}

#[test]
fn a_tail_that_follows_outlives_the_broker_and_a_trail_without_events_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = orders(folder.path());
    let data = folder.path().join("data");
    let start = |kafka: &str| {
        let mut command = cairn();
        command.args(["up", "--gateway", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--kafka", kafka, "--data"]);
        command.arg(&data).arg("--config").arg(&config).env("CAIRN_OPERATOR_TOKEN", crate::support::TOKEN);
        Up::spawn(&mut command, &data)
    };
    let mut up = start("127.0.0.1:0");
    let kafka = up.kafka.clone();
    let output = run(cairn().args(["trail", "--data"]).arg(&data));
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    assert!(text(&output.stderr).contains("no workflows yet"), "{}", text(&output.stderr));

    let mut command = cairn();
    command.args(["tail", "--from-start", "--json", "--workflow", "followed", "--data"]).arg(&data);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let (lines, errors) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let tail = Process { child };
    let mut lines = BufReader::new(lines).lines().map(|line| line.expect("text"));
    let call = |up: &Up, tool: &str| Agent::connect_in("followed", &up.gateway, "orders").call(tool, &json!({}));
    call(&up, "list_orders");
    until(&mut lines, "list_orders");

    up.process.signal("-KILL");
    up.process.wait();
    let mut errors = BufReader::new(errors).lines().map(|line| line.expect("text"));
    assert!(errors.any(|line| line.contains(&kafka) && line.contains("waiting for it")), "it says what it waits for");
    let up = start(&kafka);
    call(&up, "get_order");
    until(&mut lines, "get_order");
    up.end();
    drop(tail);

    // Without following there is an end to it, and a code that says which.
    let output = run(cairn().args(["tail", "--no-follow", "--bootstrap", &kafka]));
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
}
