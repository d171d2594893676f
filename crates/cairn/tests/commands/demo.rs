//! The demonstration, run as a user runs it: real processes, a real kill, the trail read back by a Kafka consumer.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use crate::support::{Up, cairn, text, wait_for};

#[test]
fn the_demo_shows_one_call_allowed_one_approved_one_denied_and_one_in_doubt() {
    let folder = tempfile::tempdir().expect("a folder");
    // A blank in the path must not break the lines that it prints.
    let data = folder.path().join("the demo");
    let output = cairn().arg("demo").arg("--data").arg(&data).output().expect("it runs");
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", text(&output.stderr));
    for expected in [
        "approved by",
        "deny by nobody-deletes-orders",
        "denied, effect none",
        "in_doubt, effect unknown",
        "[mcp.calls/",
    ] {
        assert!(said.contains(expected), "{expected:?} is missing:\n{said}");
    }
    // What the server executed is what the trail says was forwarded: the deletion never reached it.
    let journal = std::fs::read_to_string(data.join("server-journal.txt")).expect("the server's own journal");
    assert_eq!(journal, "get_order order-1\nrefund_order order-1 700\nexport_orders\n");
    // Nothing in the folder opens the operators' door or holds an argument of a call.
    let operator = std::fs::read_to_string(data.join("operator.json")).expect("a credential");
    assert!(operator.contains("sha256") && !operator.contains("cairn-op-"));
    the_lines_that_it_prints_work(&said, &data);
}

fn the_lines_that_it_prints_work(said: &str, data: &Path) {
    let line = |what: &str| {
        let line = said.lines().find(|line| line.starts_with("  ") && line.contains(what));
        line.unwrap_or_else(|| panic!("no line for{what}: {said}")).trim().to_owned()
    };
    // Free ports, because others may use the usual ones on this machine.
    let up = line(" up --data ").replace("127.0.0.1:9092", "127.0.0.1:0");
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &format!("exec {up} --gateway 127.0.0.1:0 --admin 127.0.0.1:0")])
        .env_remove("CAIRN_OPERATOR_TOKEN");
    let up = Up::spawn(&mut shell, data);
    let run = |line: &str| {
        let output = Command::new("sh").args(["-c", line]).stdin(Stdio::null()).output().expect("it runs");
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let tree = run(&line(" trail demo-"));
    // What is signed by now need not have been when the demo showed it.
    let unsigned = |text: &str| text.replace(" signed]", "]");
    assert!(unsigned(said).contains(unsigned(&tree).trim_end()), "the same path as the demo showed: {tree}");
    assert!(run(&line(" tail --from-start")).lines().count() > 25);
    assert!(run(&line(" operator new ")).starts_with("cairn-op-"));
    if Command::new("kcat").arg("-V").output().is_ok() {
        let records = run(&line("kcat -b").replace("127.0.0.1:9092", &up.kafka));
        assert!(records.lines().count() > 20 && records.starts_with("mcp.calls/"), "{records}");
    }
    up.end();
    wait_for("its withdrawal", || (!data.join("endpoints.json").exists()).then_some(()));
}
