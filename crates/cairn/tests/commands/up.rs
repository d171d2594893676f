//! `cairn up`: how it starts, what it shows, how it ends, and what it says when it cannot.

use std::{collections::BTreeMap, fs, net::TcpListener, path::Path, time::Duration};

use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};
use serde_json::{Value, json};

use crate::support::{Agent, TOKEN, Up, answer, cairn, http, open, orders, run, text, wait_for};

/// Families by name: the type, and samples.
pub(crate) type Page = BTreeMap<String, (String, Vec<(String, f64)>)>;

/// One family of the text format 0.0.4, read strictly: help, then type, then samples of that name, and no name twice.
fn families(page: &str) -> Page {
    let mut found: Page = BTreeMap::new();
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        let (name, help) = line
            .strip_prefix("# HELP ")
            .and_then(|rest| rest.split_once(' '))
            .unwrap_or_else(|| panic!("help: {line}"));
        assert!(help.len() > 5, "a help that says nothing: {line}");
        let kind = lines.next().and_then(|line| line.strip_prefix("# TYPE ")?.strip_prefix(name)?.strip_prefix(' '));
        let kind = kind.unwrap_or_else(|| panic!("no type behind {line}")).to_owned();
        assert!(["counter", "gauge", "histogram"].contains(&kind.as_str()), "{name} {kind}");
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
        let mut samples = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("a sample: {line}"));
            let base = series.split('{').next().unwrap_or_default();
            let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.iter().any(|suffix| base == format!("{name}{suffix}")), "{series} in {name}");
            let value =
                if value == "+Inf" { f64::INFINITY } else { value.parse().unwrap_or_else(|_| panic!("{line}")) };
            samples.push((series.to_owned(), value));
        }
        assert!(found.insert(name.to_owned(), (kind, samples)).is_none(), "{name} stands twice");
    }
    found
}

pub(crate) fn value(page: &Page, series: &str) -> f64 {
    let name = series.split('{').next().unwrap_or_default();
    let samples = &page.get(name).unwrap_or_else(|| panic!("no {name}")).1;
    samples.iter().find(|(found, _)| found == series).unwrap_or_else(|| panic!("no {series} in {samples:?}")).1
}

pub(crate) fn metrics(admin: &str) -> Page {
    let answer = http(admin, "GET /metrics", &[], "");
    assert_eq!(answer.header("content-type").as_deref(), Some("text/plain; version=0.0.4; charset=utf-8"));
    families(&answer.body)
}

const POLICY: &str = r#"@id("all") permit(principal, action, resource);
@id("ask") @obligation("approval")
permit(principal, action, resource == Tool::"orders/refund_order");
@id("never") forbid(principal, action, resource == Tool::"orders/delete_order");
"#;

#[test]
fn back_pressure_and_refusals_are_visible_and_every_line_parses() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = orders(folder.path());
    fs::create_dir(folder.path().join("policies")).expect("a folder");
    fs::write(folder.path().join("policies/p.cedar"), POLICY).expect("written");
    let data = folder.path().join("data");
    let up = Up::start(&data, &["--config", &config.display().to_string()]);
    assert!(up.lines.last().expect("a line").starts_with("ready kafka 127.0.0.1:"));
    assert_eq!(http(&up.admin, "GET /healthz", &[], "").status, 200);
    let before = metrics(&up.admin);
    assert_eq!(value(&before, "cairn_refusals_total{reason=\"denied\"}"), 0.0, "a reason is there before it happens");

    let agent = Agent::connect(&up.gateway, "orders");
    let denied = agent.call("delete_order", &json!({ "order_id": "order-1" }));
    let words = denied["error"]["message"].as_str().expect("an error");
    let version = denied["error"]["data"]["policy_version"].as_str().expect("a version");
    assert!(words.contains("never") && words.contains(version), "it names policy and version: {words}");
    let held = agent.ask("refund_order", &json!({ "order_id": "order-1", "amount_cents": 1 }));
    wait_for("the hold", || (value(&metrics(&up.admin), "cairn_holds_waiting") == 1.0).then_some(()));

    let page = metrics(&up.admin);
    assert_eq!(value(&page, "cairn_refusals_total{reason=\"denied\"}"), 1.0);
    assert_eq!(value(&page, "cairn_calls_total{server=\"orders\",outcome=\"denied\"}"), 1.0);
    assert_eq!(value(&page, "cairn_sessions_open"), 1.0);
    assert_eq!(value(&page, &format!("cairn_policy_set_info{{version=\"{version}\"}}")), 1.0);
    for positive in [
        "cairn_log_fsyncs_total",
        "cairn_log_appended_bytes_total",
        "cairn_log_wal_depth_bytes",
        "cairn_log_streams",
        "cairn_broker_topics",
        "cairn_broker_batches_total",
        "cairn_recorder_events_total",
        "cairn_calls_in_flight",
        "process_resident_memory_bytes",
    ] {
        assert!(value(&page, positive) > 0.0, "{positive} is {}", value(&page, positive));
    }
    for there in [
        "cairn_recorder_queue_events",
        "cairn_recorder_throttle_seconds_total",
        "cairn_recorder_events_refused_total",
        "cairn_broker_throttle_seconds_total",
        "cairn_log_queue_calls",
        "cairn_log_upload_backlog_batches",
        "cairn_spool_events",
        "cairn_spool_bytes",
        "cairn_backbone_away",
    ] {
        assert!(value(&page, there) >= 0.0, "{there}");
    }
    // Prometheus itself asks for OpenMetrics.
    let open_metrics = http(&up.admin, "GET /metrics", &[("accept", "application/openmetrics-text;version=1.0.0")], "");
    assert!(open_metrics.header("content-type").expect("a type").starts_with("application/openmetrics-text"));
    assert!(open_metrics.body.ends_with("# EOF\n") && open_metrics.body.contains("# TYPE cairn_refusals counter\n"));
    up.end();
    let answered = answer(held).json();
    assert_eq!(answered["error"]["data"]["cairn"], "cancelled", "whoever waits is told: {answered}");
}

#[test]
fn it_ends_in_time_with_streams_long_polls_held_calls_and_servers_that_do_not_want_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = orders(folder.path());
    let mut servers: Value = serde_json::from_slice(&fs::read(&config).expect("there")).expect("JSON");
    for name in ["stalled", "stalled-too", "stalled-three"] {
        // It reads nothing, answers nothing, and ends for nothing but SIGKILL.
        let script = "trap '' TERM HUP INT; while :; do sleep 1; done";
        servers["mcpServers"][name] = json!({ "command": "sh", "args": ["-c", script] });
    }
    fs::write(&config, servers.to_string()).expect("written");
    let policies = folder.path().join("elsewhere");
    fs::create_dir(&policies).expect("a folder");
    fs::write(policies.join("p.cedar"), POLICY).expect("written");
    let data = folder.path().join("data");
    let arguments = ["--config", &config.display().to_string(), "--policies", &policies.display().to_string()];
    let up = Up::start(&data, &arguments);

    let agent = Agent::connect(&up.gateway, "orders");
    let headers = [("accept", "text/event-stream"), ("mcp-session-id", agent.session.as_str())];
    let _stream = open(&up.gateway, "GET /mcp/orders", &headers, "");
    let held = agent.ask("refund_order", &json!({ "order_id": "order-1", "amount_cents": 1 }));
    let export = agent.ask("export_orders", &json!({ "seconds": 60 }));
    let hello = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": { "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } } });
    let stalled = ["stalled", "stalled-too", "stalled-three"].map(|name| {
        let nobody = Agent { gateway: up.gateway.clone(), server: name.to_owned(), ..Agent::default() };
        nobody.post(&hello)
    });
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &up.kafka)
        .set("group.id", "long-poll")
        .set("fetch.wait.max.ms", "60000")
        .set("fetch.min.bytes", "1000000")
        .create()
        .expect("a consumer");
    consumer.subscribe(&["mcp.calls", "mcp.sessions"]).expect("subscribed");
    wait_for("the group's partitions", || {
        let _ = consumer.poll(Duration::from_millis(50));
        (consumer.assignment().expect("asked").count() > 0).then_some(())
    });
    wait_for("the calls", || (value(&metrics(&up.admin), "cairn_calls_in_flight") >= 5.0).then_some(()));
    wait_for("the hold", || (value(&metrics(&up.admin), "cairn_holds_waiting") == 1.0).then_some(()));

    up.end();
    assert_eq!(answer(held).json()["error"]["data"]["cairn"], "cancelled");
    assert!(answer(export).body.contains("\"cairn\":\"upstream_lost\""));
    for stream in stalled {
        assert!(answer(stream).body.contains("\"error\""));
    }
    // What was in flight has its outcome already: the next start has nothing to close.
    let again = Up::start(&data, &arguments);
    let outcomes = crate::support::outcomes(&data);
    assert!(outcomes.len() >= 6 && outcomes.iter().all(|outcome| outcome["recovered"].is_null()), "{outcomes:?}");
    again.end();
}

#[test]
fn what_cannot_be_is_said_with_where_and_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let up = Up::start(&data, &[]);
    let file = folder.path().join("file");
    fs::write(&file, "x").expect("written");
    let bad_policies = folder.path().join("bad");
    fs::create_dir(&bad_policies).expect("a folder");
    fs::write(bad_policies.join("p.cedar"), "permit(principal, action, resource)").expect("written");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("bound").to_string();
    let other = folder.path().join("other");
    let text_of = |path: &Path| path.display().to_string();
    let cases: Vec<(Vec<String>, &[&str])> = vec![
        (vec!["--data".into(), text_of(&data)], &["is held by another cairn", "--data"]),
        (vec!["--data".into(), text_of(&file)], &["is a file", "--data"]),
        (vec!["--data".into(), "/proc/cairn".into()], &["/proc/cairn", "--data"]),
        (vec!["--data".into(), text_of(&other), "--kafka".into(), taken.clone()], &["kafka", "--kafka HOST:PORT"]),
        (vec!["--data".into(), text_of(&other), "--admin".into(), taken.clone()], &["admin", "--admin HOST:PORT"]),
        (
            vec!["--data".into(), text_of(&other), "--gateway".into(), taken.clone()],
            &["gateway", "--gateway HOST:PORT"],
        ),
        (vec!["--data".into(), text_of(&other), "--kafka".into(), "nonsense".into()], &["nonsense", "HOST:PORT"]),
        (
            vec!["--data".into(), text_of(&other), "--config".into(), text_of(folder.path())],
            &["cannot read the configuration"],
        ),
        (vec!["--data".into(), text_of(&other), "--config".into(), "/no/such/file".into()], &["/no/such/file"]),
        (vec!["--data".into(), text_of(&other), "--policies".into(), text_of(&file)], &["cannot read", "file"]),
        (
            vec!["--data".into(), text_of(&other), "--policies".into(), text_of(&bad_policies)],
            &["p.cedar:1", "do not compile"],
        ),
    ];
    for (arguments, says) in cases {
        let mut command = cairn();
        command.arg("up").args(&arguments);
        for (flag, free) in [("--kafka", "127.0.0.1:0"), ("--gateway", "127.0.0.1:0"), ("--admin", "127.0.0.1:0")] {
            if !arguments.iter().any(|argument| argument == flag) {
                command.args([flag, free]);
            }
        }
        let output = run(&mut command);
        let words = text(&output.stderr);
        assert!(!output.status.success(), "{arguments:?} started");
        assert!(says.iter().all(|word| words.contains(word)), "{arguments:?}: {words}");
        assert!(!text(&output.stdout).contains("ready"), "{arguments:?}");
    }
    drop(taken);
    up.end();
}

#[test]
fn policies_are_taken_up_when_they_change_and_bad_ones_change_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = orders(folder.path());
    let policy = folder.path().join("policies/p.cedar");
    fs::create_dir(folder.path().join("policies")).expect("a folder");
    fs::write(&policy, POLICY).expect("written");
    let data = folder.path().join("data");
    let up = Up::start(&data, &["--config", &config.display().to_string()]);
    let agent = Agent::connect(&up.gateway, "orders");
    let delete = || agent.call("delete_order", &json!({ "order_id": "order-2" }));
    let first = delete()["error"]["data"]["policy_version"].clone();

    fs::write(&policy, "permit(principal, action, resource").expect("written");
    wait_for("the refusal", || (value(&metrics(&up.admin), "cairn_policy_files_refused") == 1.0).then_some(()));
    assert!(up.errors().contains("the old ones stay") && up.errors().contains("p.cedar:1"), "{}", up.errors());
    assert_eq!(delete()["error"]["data"]["policy_version"], first, "the last good set decides");

    fs::write(&policy, "@id(\"all\") permit(principal, action, resource);").expect("written");
    wait_for("the new set", || (value(&metrics(&up.admin), "cairn_policy_files_refused") == 0.0).then_some(()));
    assert!(delete().get("error").is_none(), "the new set permits it");
    let events = crate::support::events(&data);
    let of = |kind: &str| events.iter().filter(|event| event["type"] == kind).cloned().collect::<Vec<_>>();
    let rejected = of("policy.rejected");
    assert_eq!(rejected.len(), 1, "{events:?}");
    assert_eq!(rejected[0]["data"]["version"], first, "it names the version that stays");
    assert!(rejected[0]["data"]["errors"][0].as_str().expect("words").contains("p.cedar:1"));
    assert_eq!(of("policy.activated").len(), 2);
    up.end();
}

#[test]
fn the_operators_token_is_neither_in_a_file_nor_in_an_environment() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = "tr '\\0' '\\n' < /proc/$PPID/environ > parent.txt 2>&1; env > own.txt; exec cat > /dev/null";
    let config = folder.path().join("mcp.json");
    let servers = json!({ "mcpServers": { "spy": { "command": "sh", "args": ["-c", script], "cwd": folder.path() } } });
    fs::write(&config, servers.to_string()).expect("written");
    let data = folder.path().join("data");
    let up = Up::start(&data, &["--config", &config.display().to_string()]);
    let spy = Agent { gateway: up.gateway.clone(), server: "spy".to_owned(), ..Agent::default() };
    let asked = spy.post(&json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {} }));
    wait_for("the spy", || fs::read_to_string(folder.path().join("own.txt")).ok().filter(|own| own.contains("PATH=")));
    for file in ["own.txt", "parent.txt"] {
        let seen = fs::read_to_string(folder.path().join(file)).expect("written");
        assert!(!seen.contains(TOKEN) && !seen.contains("CAIRN_OPERATOR"), "{file} shows the token");
    }
    let environ = fs::read(format!("/proc/{}/environ", up.process.pid())).unwrap_or_default();
    assert!(!text(&environ).contains(TOKEN), "the token stays where every process of this user can read it");
    // It opens the operators' door all the same.
    let bearer = format!("Bearer {TOKEN}");
    assert_eq!(http(&up.admin, "GET /approvals", &[("authorization", &bearer)], "").status, 200);
    assert_eq!(http(&up.admin, "GET /approvals", &[], "").status, 401);
    up.end();
    drop(asked);
    for file in crate::support::files(&data) {
        assert!(!text(&fs::read(&file).expect("readable")).contains(TOKEN), "{} holds the token", file.display());
    }

    // Where the output is a file, a new token is not written into it.
    let log = folder.path().join("log.txt");
    let mut command = cairn();
    let fresh = folder.path().join("fresh");
    command.args(["broker", "--kafka", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"]).arg(&fresh);
    let out = fs::File::create(&log).expect("a file");
    command.stderr(out.try_clone().expect("a handle")).stdout(out);
    let process = crate::support::Process { child: command.spawn().expect("it starts") };
    wait_for("ready", || fs::read_to_string(&log).ok().filter(|said| said.contains("ready")));
    process.signal("-TERM");
    let said = fs::read_to_string(&log).expect("there");
    assert!(!said.contains("cairn-op-") && said.contains("cairn operator new"), "{said}");
}

/// A topic that clients ask for is made, as by Kafka, unless the configuration says that none is.
#[test]
fn a_topic_is_made_when_it_is_asked_for_unless_the_configuration_says_no() {
    for makes in [true, false] {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("cairn.toml");
        fs::write(&config, format!("[kafka]\nauto_create_topics = {makes}\n")).expect("written");
        let up = Up::start(&folder.path().join("data"), &["--config", config.to_str().expect("text")]);
        let mut asking = ClientConfig::new();
        asking.set("bootstrap.servers", &up.kafka).set("allow.auto.create.topics", "true");
        let consumer: BaseConsumer = asking.create().expect("a consumer");
        let told = || consumer.fetch_metadata(Some("asked-for"), Duration::from_secs(30)).expect("an answer");
        let partitions = if makes {
            wait_for("the topic", || Some(told().topics()[0].partitions().len()).filter(|count| *count > 0))
        } else {
            told().topics()[0].partitions().len()
        };
        assert_eq!(partitions > 0, makes);
        up.end();
    }
}
