//! `cairn wrap`: many of them share one `up`, none harms another, and standard output carries MCP only.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
};

use serde_json::{Value, json};

use crate::support::{Client, Up, cairn, events, files, sample, text, trail, wait_for};

fn wrap(data: &Path, name: &str, command: &[String]) -> Client {
    let mut wrap = cairn();
    wrap.arg("wrap").arg("--data").arg(data).args(["--name", name, "--"]).args(command);
    Client::start(&mut wrap)
}

/// The `up` that wraps started, ended with the test by its own pid, and never another process that has got this pid since.
struct Started(u32, String);

impl Started {
    fn of(data: &Path) -> Self {
        let read = || serde_json::from_slice::<Value>(&fs::read(data.join("endpoints.json")).ok()?).ok();
        let endpoints = wait_for("the announcement", read);
        let pid = u32::try_from(endpoints["pid"].as_u64().expect("a pid")).expect("a pid");
        Self(pid, begun(pid).expect("it runs"))
    }

    fn signal(&self, signal: &str) {
        let _ = std::process::Command::new("kill").args([signal, &self.0.to_string()]).status();
        wait_for("its end", || (!self.is_running()).then_some(()));
    }

    fn is_running(&self) -> bool {
        begun(self.0).as_ref() == Some(&self.1)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if self.is_running() {
            let _ = std::process::Command::new("kill").args(["-9", &self.0.to_string()]).status();
        }
    }
}

/// When a process began, in the kernel's words. One that has ended and was not waited for is a zombie; it runs no more.
fn begun(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    // The state is the third field, `starttime` the 22nd (proc_pid_stat(5)).
    rest.split(' ').nth(22 - 3).filter(|_| !rest.starts_with('Z')).map(str::to_owned)
}

fn workflows(data: &Path) -> Vec<String> {
    let mut found: Vec<String> = events(data)
        .iter()
        .filter(|event| event["topic"] == "mcp.calls")
        .map(|event| event["data"]["workflow_id"].as_str().expect("an id").to_owned())
        .collect();
    found.sort();
    found.dedup();
    found
}

#[test]
fn twenty_wraps_started_together_share_one_up_one_gateway_and_one_workflow() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let journal = folder.path().join("journal.txt");
    let mut clients: Vec<Client> =
        (0..20).map(|number| wrap(&data, &format!("orders-{number}"), &sample(&journal))).collect();
    for client in &mut clients {
        let answer = client.initialize();
        assert_eq!(answer["result"]["protocolVersion"], "2025-11-25", "{answer}");
    }
    let up = Started::of(&data);
    for client in &mut clients {
        let answer = client.call("get_order", json!({ "order_id": "order-1" }));
        assert!(answer.get("result").is_some(), "{answer}");
    }
    // One ends, one is killed; the others do not notice.
    let (status, errors) = clients.pop().expect("one").close();
    assert!(status.success() && errors.is_empty(), "{status}: {errors}");
    let mut killed = clients.pop().expect("one");
    killed.process.signal("-9");
    killed.end();
    for client in &mut clients {
        assert!(client.call("get_order", json!({ "order_id": "order-2" })).get("result").is_some());
    }
    assert_eq!(fs::read_to_string(&journal).expect("a journal").lines().count(), 20 + 18);
    let all = events(&data);
    let mut producers: Vec<_> = all.iter().map(|event| event["data"]["producer"]["id"].to_string()).collect();
    producers.sort();
    producers.dedup();
    assert_eq!(producers.len(), 1, "one gateway wrote everything");
    let shared = workflows(&data);
    assert_eq!(shared.len(), 1, "one client process, one workflow: {shared:?}");
    let path = trail(&data, Some(&shared[0]));
    let calls = path["calls"].as_array().expect("calls");
    let servers: std::collections::BTreeSet<_> =
        calls.iter().filter_map(|call| call["events"][0]["data"]["server"].as_str()).collect();
    assert_eq!(servers.len(), 20, "the workflow spans servers: {servers:?}");
    for file in files(&data) {
        let content = text(&fs::read(&file).expect("readable"));
        assert!(!content.contains("cairn-op-"), "{} holds an operator's token", file.display());
    }
    drop(clients);
    up.signal("-TERM");
    assert!(!data.join("wrap.sock").exists() && !data.join("endpoints.json").exists());
}

#[test]
fn wraps_of_two_client_processes_have_two_workflows() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let journal = folder.path().join("journal.txt");
    let up = Up::start(&data, &[]);
    // Each shell is a client process of its own; it stays because another command follows.
    let script = format!("{} wrap --data {} -- \"$@\"; true", env!("CARGO_BIN_EXE_cairn"), data.display());
    for _ in 0..2 {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &script, "sh"]).args(sample(&journal)).env_remove("CAIRN_DATA");
        let mut client = Client::start(&mut shell);
        client.initialize();
        client.call("get_order", json!({ "order_id": "order-1" }));
        client.close();
    }
    assert_eq!(workflows(&data).len(), 2);
    up.end();
}

#[test]
fn a_server_that_cannot_be_had_is_an_error_of_the_clients_requests() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let config = folder.path().join("cairn.toml");
    fs::write(&config, "[gateway.limits]\nserver_connect_ms_max = 200\n").expect("written");
    let up = Up::start(&data, &["--config", &config.display().to_string()]);
    let mut none = wrap(&data, "none", &["no-such-program-anywhere".to_owned()]);
    let answer = none.initialize();
    assert_eq!(answer["error"]["code"], -31_007, "{answer}");
    assert!(answer["error"]["message"].as_str().expect("words").contains("no-such-program-anywhere"), "{answer}");
    none.close();
    // One that ends at once says why in its last words.
    let dies = ["sh", "-c", "echo the licence has run out >&2; exit 3"].map(ToOwned::to_owned);
    let mut dies = wrap(&data, "dies", &dies);
    let answer = dies.initialize();
    assert!(answer["error"]["message"].as_str().expect("words").contains("the licence has run out"), "{answer}");
    dies.close();
    let mut web = cairn();
    web.arg("wrap").arg("--data").arg(&data).args(["--url", "http://127.0.0.1:9/mcp?key=s3cret"]);
    let mut web = Client::start(&mut web);
    let answer = web.initialize();
    assert!(answer["error"]["message"].is_string() && !answer.to_string().contains("s3cret"), "{answer}");
    web.close();
    up.end();

    // And where no `up` can be had at all.
    let file = folder.path().join("file");
    fs::write(&file, "x").expect("written");
    let mut nowhere = wrap(&file, "x", &["cat".to_owned()]);
    let answer = nowhere.initialize();
    assert!(answer["error"]["message"].as_str().expect("words").contains("is a file"), "{answer}");
    let (status, errors) = nowhere.close();
    assert_eq!(status.code(), Some(1));
    assert!(errors.contains("is a file"), "{errors}");
}

#[test]
fn when_up_is_killed_the_client_sees_an_end_and_the_next_wrap_starts_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let journal = folder.path().join("journal.txt");
    let mut client = wrap(&data, "orders", &sample(&journal));
    client.initialize();
    let up = Started::of(&data);
    client.ask("tools/call", json!({ "name": "export_orders", "arguments": { "seconds": 60 } }));
    wait_for("the export", || fs::read_to_string(&journal).ok().filter(|said| said.contains("export_orders")));
    up.signal("-9");
    assert!(client.line().is_none(), "standard output ends");
    let (status, errors) = client.end();
    assert!(!status.success() && errors.contains("cairn up"), "{status}: {errors}");

    let mut next = wrap(&data, "orders", &sample(&journal));
    next.initialize();
    let second = Started::of(&data);
    assert_ne!(second.0, up.0);
    assert!(next.call("get_order", json!({ "order_id": "order-1" })).get("result").is_some());
    let doubted = events(&data).into_iter().filter(|event| event["data"]["outcome"] == "in_doubt").count();
    assert_eq!(doubted, 1, "what the dead one left open is closed by the next");
    next.close();
    second.signal("-TERM");
}

#[test]
fn another_version_is_told_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let up = Up::start(&data, &[]);
    for hello in [r#"{"version":"0.0.0","name":"x","command":["cat"]}"#, r#"{"name":"x","command":["cat"],"url":null}"#]
    {
        let mut stream = UnixStream::connect(data.join("wrap.sock")).expect("it listens");
        writeln!(stream, "{hello}").expect("written");
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("an answer");
        let answer: Value = serde_json::from_str(&line).expect("JSON");
        let words = answer["error"].as_str().expect("an error");
        assert!(words.contains(env!("CARGO_PKG_VERSION")) && words.contains("end that process"), "{words}");
    }
    up.end();
}

#[test]
fn the_server_gets_its_clients_environment_and_nothing_of_ups() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let mut command = cairn();
    command
        .args(["up", "--kafka", "127.0.0.1:0", "--gateway", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"])
        .arg(&data);
    command.env("ONLY_UPS", "secret of another server");
    let up = Up::spawn(&mut command, &data);
    let out = folder.path().join("env.txt");
    let mut wrap = cairn();
    wrap.arg("wrap").arg("--data").arg(&data).args(["--", "sh", "-c", "pwd > where.txt; env > env.txt; cat"]);
    wrap.env("ONLY_CLIENTS", "yes").env("CAIRN_OPERATOR_TOKEN", "never-for-a-server").current_dir(folder.path());
    let client = Client::start(&mut wrap);
    let seen = wait_for("the environment", || fs::read_to_string(&out).ok().filter(|seen| seen.contains("PATH=")));
    assert!(seen.contains("ONLY_CLIENTS=yes") && !seen.contains("ONLY_UPS") && !seen.contains("CAIRN_"), "{seen}");
    let place = fs::read_to_string(folder.path().join("where.txt")).expect("written");
    assert_eq!(Path::new(place.trim()), folder.path().canonicalize().expect("there"), "it runs where its client does");
    client.close();
    up.end();
}

#[test]
fn an_up_of_wraps_takes_policies_from_its_data_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    fs::create_dir_all(data.join("policies")).expect("a folder");
    fs::write(data.join("policies/p.cedar"), "@id(\"not-this\") forbid(principal, action, resource == Tool::\"orders/delete_order\");\npermit(principal, action, resource);").expect("written");
    // A policy in the working directory is nobody's.
    let elsewhere = folder.path().join("work");
    fs::create_dir_all(elsewhere.join("policies")).expect("a folder");
    fs::write(elsewhere.join("policies/p.cedar"), "permit(principal, action, resource);").expect("written");
    let mut command = cairn();
    let journal = folder.path().join("journal.txt");
    command
        .arg("wrap")
        .arg("--data")
        .arg(&data)
        .args(["--name", "orders", "--"])
        .args(sample(&journal))
        .current_dir(elsewhere);
    let mut client = Client::start(&mut command);
    client.initialize();
    let up = Started::of(&data);
    let answer = client.call("delete_order", json!({ "order_id": "order-1" }));
    assert_eq!(answer["error"]["data"]["determining_policies"], json!(["not-this"]), "{answer}");
    client.close();
    up.signal("-TERM");
}

#[test]
fn what_adopt_wrote_works_as_a_client_starts_it() {
    let folder = tempfile::tempdir().expect("a folder");
    // The HTTP server that is wrapped is itself a Cairn: its trail shows which headers came.
    let far_data = folder.path().join("far");
    let far = Up::start(&far_data, &["--config", &crate::support::orders(folder.path()).display().to_string()]);
    let near_data = folder.path().join("near");
    let near = Up::start(&near_data, &[]);
    let local = sample(&folder.path().join("local.txt"));
    let servers = json!({ "mcpServers": {
        "local": { "command": local[0], "args": local[1..], "env": { "FOR_THE_SERVER": "1" } },
        "far": { "type": "http", "url": format!("http://{}/mcp/orders", far.gateway), "headers": { "Cairn-Workflow-Id": "by-a-header" } },
    } });
    let file = folder.path().join("client.json");
    fs::write(&file, servers.to_string()).expect("written");
    let adopted = crate::support::run(cairn().args(["adopt", "--yes", "--data"]).arg(&near_data).arg(&file));
    assert!(adopted.status.success(), "{}", text(&adopted.stderr));
    let written: Value = serde_json::from_slice(&fs::read(&file).expect("there")).expect("JSON");
    for name in ["local", "far"] {
        let server = &written["mcpServers"][name];
        let mut command = std::process::Command::new(server["command"].as_str().expect("a command"));
        command.args(server["args"].as_array().expect("args").iter().filter_map(Value::as_str));
        for (key, value) in server["env"].as_object().expect("variables") {
            command.env(key, value.as_str().expect("text"));
        }
        let mut client = Client::start(&mut command);
        client.initialize();
        let answer = client.call("get_order", json!({ "order_id": "order-1" }));
        assert!(answer.get("result").is_some(), "{name}: {answer}");
        client.close();
    }
    let near_events = events(&near_data);
    let of =
        |name: &str| near_events.iter().filter(|e| e["type"] == "call.outcome" && e["data"]["server"] == name).count();
    assert_eq!((of("local"), of("far")), (2, 2), "both went through");
    assert_eq!(workflows(&far_data), ["by-a-header"], "the headers arrived");
    near.end();
    far.end();
}

#[allow(clippy::disallowed_methods)] // the idle time of another process is the machine's own
#[test]
fn an_up_of_wraps_ends_by_itself_once_none_is_left_for_long() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let mut up = Up::start(&data, &["--idle-seconds", "1"]);
    let mut client = wrap(&data, "orders", &sample(&folder.path().join("journal.txt")));
    client.initialize();
    // Longer than the idle time: a wrap that is there, silent or not, keeps it.
    std::thread::sleep(std::time::Duration::from_millis(2_500));
    assert!(client.call("get_order", json!({ "order_id": "order-1" })).get("result").is_some());
    client.close();
    assert!(up.process.wait().success());
    assert!(!data.join("wrap.sock").exists());
}
