//! The demonstration, run as a user runs it: real processes, a real kill, the trail read back by a Kafka consumer.

use std::process::Command;

#[test]
fn the_demo_shows_one_call_allowed_one_approved_one_denied_and_one_in_doubt() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let output =
        Command::new(env!("CARGO_BIN_EXE_cairn")).arg("demo").arg("--data").arg(&data).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    for expected in [
        "approved by",
        "deny by nobody-deletes-orders",
        "denied, effect none",
        "in_doubt, effect unknown",
        "[mcp.calls/",
    ] {
        assert!(text.contains(expected), "{expected:?} is missing:\n{text}");
    }
    // What the server executed is what the trail says was forwarded: the deletion never reached it.
    let journal = std::fs::read_to_string(data.join("server-journal.txt")).expect("the server's own journal");
    assert_eq!(journal, "get_order order-1\nrefund_order order-1 700\nexport_orders\n");
    // Nothing in the folder opens the operators' door or holds an argument of a call.
    let operator = std::fs::read_to_string(data.join("operator.json")).expect("a credential");
    assert!(operator.contains("sha256") && !operator.contains("cairn-op-"));
}
