//! Tasks that servers make of calls: whoever looks at one goes on with its call's operation, and its end is told once, by whichever way it
//! is seen first.

use std::{collections::BTreeMap, net::TcpStream, path::Path};

use serde_json::{Value, json};

use crate::{
    played::{Asked, GoesOn, Played, respond, well_with_sessions},
    support::{Agent, Up, answer, events, wait_for},
};

/// A server whose tool becomes the task that the arguments name; a task ends as its name says.
fn serve(asked: &Asked, stream: &mut TcpStream) -> GoesOn {
    let params = &asked.body["params"];
    let task = |id: &str, status: &str| json!({ "taskId": id, "status": status, "ttl": if id == "unseen" { 1 } else { 600_000 } });
    let id = params["taskId"].as_str().unwrap_or_default();
    let result = match (asked.rpc(), id) {
        ("tools/call", _) => json!({ "task": task(params["arguments"]["task"].as_str().expect("a name"), "working") }),
        ("tasks/get", "noticed") => {
            // Told before the answer, in the same stream.
            let notice =
                json!({ "jsonrpc": "2.0", "method": "notifications/tasks/status", "params": task(id, "failed") });
            let last = json!({ "jsonrpc": "2.0", "id": asked.body["id"], "result": task(id, "failed") });
            let body = format!("data: {notice}\n\ndata: {last}\n\n");
            return respond(stream, 200, "text/event-stream", body.as_bytes());
        }
        ("tasks/get", "looked-at") => task(id, "completed"),
        ("tasks/get", _) => task(id, "working"),
        ("tasks/cancel", _) => task(id, "cancelled"),
        ("tasks/list", _) => {
            json!({ "tasks": [task("listed", "completed"), task("others", "completed"), task("early", "working")] })
        }
        ("tasks/result", "failed") => {
            let error = json!({ "code": 4711, "message": "it went wrong" });
            return said(asked, stream, &json!({ "error": error }));
        }
        ("tasks/result", "early") => {
            return said(asked, stream, &json!({ "error": { "code": -32602, "message": "no such task" } }));
        }
        ("tasks/result", _) => json!({ "content": [], "isError": true }),
        _ => return well_with_sessions(asked, stream),
    };
    said(asked, stream, &json!({ "result": result }))
}

fn said(asked: &Asked, stream: &mut TcpStream, what: &Value) -> GoesOn {
    let mut message = json!({ "jsonrpc": "2.0", "id": asked.body["id"] });
    message.as_object_mut().expect("an object").extend(what.as_object().expect("an object").clone());
    respond(stream, 200, "application/json", message.to_string().as_bytes())
}

fn start(folder: &Path, server: &Played, more: &str) -> Up {
    let config = folder.join("cairn.toml");
    std::fs::write(&config, format!("{more}[servers.played]\nurl = \"{}\"\n", server.url())).expect("written");
    Up::start(&folder.join("data"), &["--config", &config.display().to_string()])
}

/// Each call that became a task, by the task's name in its arguments' order, and the ends that are told of it.
fn ends(data: &Path) -> BTreeMap<String, Vec<Value>> {
    let mut ends: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for event in events(data).into_iter().filter(|event| event["type"] == "call.settled") {
        ends.entry(event["data"]["call_id"].as_str().expect("a call").to_owned())
            .or_default()
            .push(event["data"].clone());
    }
    ends
}

#[test]
fn the_end_of_a_task_is_told_once_by_whichever_way_it_is_seen_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let server = Played::start(serve);
    let up = start(folder.path(), &server, "");
    let agent = Agent::connect(&up.gateway, "played");
    let mut number = 100;
    let mut ask = |method: &str, params: Value| {
        number += 1;
        drop(answer(agent.post(&json!({ "jsonrpc": "2.0", "id": number, "method": method, "params": params }))));
        number
    };
    let mut begun = BTreeMap::new();
    for task in ["looked-at", "noticed", "listed", "cancelled", "failed", "early", "working"] {
        let params = json!({ "name": "echo", "arguments": { "task": task }, "task": { "ttl": 600_000 } });
        begun.insert(task, ask("tools/call", params));
    }
    let mut looks = Vec::new();
    for (method, task) in [
        ("tasks/get", "working"),
        ("tasks/result", "early"),
        ("tasks/get", "looked-at"),
        ("tasks/get", "looked-at"),
        ("tasks/result", "looked-at"),
        ("tasks/get", "noticed"),
        ("tasks/list", ""),
        ("tasks/list", ""),
        ("tasks/cancel", "cancelled"),
        ("tasks/result", "failed"),
    ] {
        looks.push((task, ask(method, json!({ "taskId": task }))));
    }
    let all = wait_for("the last look", || {
        let all = events(&data);
        let last = looks.last().expect("a look").1.to_string();
        all.iter()
            .any(|event| event["type"] == "call.answered" && event["data"]["jsonrpc_request_id"] == *last)
            .then_some(all)
    });
    let call = |id: i64| {
        let of =
            |event: &&Value| event["type"] == "call.outcome" && event["data"]["jsonrpc_request_id"] == *id.to_string();
        all.iter().find(of).unwrap_or_else(|| panic!("no outcome of {id}"))["data"].clone()
    };
    // Whoever looks at a task belongs to the operation of its call; a list and somebody else's task to none.
    for (task, id) in &looks {
        let (look, operation) = (call(*id), begun.get(task).map(|begun| call(*begun)["call_id"].clone()));
        assert_eq!(look.get("operation_id"), operation.as_ref(), "{task}: {look}");
        assert_eq!(look["linked_by"].as_str(), operation.is_some().then_some("task_id"), "{look}");
    }
    let seen_in = |at: usize| call(looks[at].1)["call_id"].clone();
    let expected = [
        ("looked-at", "completed", Some(seen_in(2)), None),
        ("noticed", "failed", None, None),
        ("listed", "completed", Some(seen_in(6)), None),
        ("cancelled", "cancelled", Some(seen_in(8)), None),
        ("failed", "failed", Some(seen_in(9)), Some(4_711)),
    ];
    let told = wait_for("the ends", || Some(ends(&data)).filter(|ends| ends.len() >= expected.len()));
    assert_eq!(
        told.len(),
        expected.len(),
        "a task that works, and one whose server knows it no more, have no end: {told:#?}"
    );
    for (task, state, seen, code) in expected {
        let ends = &told[call(begun[task])["call_id"].as_str().expect("an id")];
        let [end] = ends.as_slice() else { panic!("{task} ended {} times", ends.len()) };
        assert_eq!((&end["state"], end.get("observed_in")), (&json!(state), seen.as_ref()), "{task}: {end}");
        assert_eq!(end["rpc_response_status_code"].as_i64(), code, "{end}");
        assert!(
            end["task_id"].as_str().is_some_and(|id| id.starts_with("hmac-sha256:") && !id.contains(task)),
            "{end}"
        );
    }
    up.end();
}

#[test]
fn a_task_of_which_nobody_sees_the_end_in_time_ends_unknown() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let server = Played::start(serve);
    // How often it is looked after what is idle.
    let up = start(folder.path(), &server, "[gateway.limits]\nsession_idle_ms_max = 1000\n");
    let agent = Agent::connect(&up.gateway, "played");
    agent.call("echo", &json!({ "task": "unseen" }));
    let told = wait_for("its end", || Some(ends(&data)).filter(|ends| !ends.is_empty()));
    let ends = told.values().next().expect("one");
    assert_eq!((told.len(), ends.len(), &ends[0]["state"]), (1, 1, &json!("unknown")), "{told:#?}");
    up.end();
}
