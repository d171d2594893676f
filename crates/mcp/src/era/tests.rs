//! What answers to a probe mean.
use super::*;
use crate::testing::message;

fn is_modern(answer: &str) -> bool {
    matches!(judge(&message(answer)), Probe::Modern { .. })
}

#[test]
fn only_an_answer_that_lists_modern_versions_means_modern() {
    assert!(is_modern(r#"{"jsonrpc":"2.0","id":1,"result":{"supportedVersions":["2025-11-25","2026-07-28"]}}"#));
    assert!(is_modern(
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32022,"message":"","data":{"supported":["2027-01-01"]}}}"#
    ));
    for legacy in [
        r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"supportedVersions":["2025-11-25"]}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"supportedVersions":"2026-07-28"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"no such method"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":""}}"#,
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":0,"message":"not initialized"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32022,"message":"","data":{"supported":["2025-06-18"]}}}"#,
    ] {
        assert!(!is_modern(legacy), "{legacy}");
    }
}

#[test]
fn a_message_is_modern_by_its_meta_whatever_its_name() {
    let named = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
    assert_eq!(Era::of(&message(named)), Era::Modern);
    let plain = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2026-07-28"}}"#;
    assert_eq!(Era::of(&message(plain)), Era::Legacy);
    assert_eq!(Era::of(&discover_request(&RawId::integer(1), "cairn", "0")), Era::Modern);
    assert!(MODERN.iter().all(|version| Era::of_version(version) == Era::Modern));
    assert!(LEGACY.iter().all(|version| Era::of_version(version) == Era::Legacy));
}

#[tokio::test]
async fn a_silent_server_is_legacy() {
    let command = crate::testing::server("echo");
    let link = crate::StdioLink::spawn(&command, crate::Limits::default(), false).expect("the test binary starts");
    let request = discover_request(&RawId::text("probe"), "cairn", "0");
    let found = probe(&link, &request, &ForwardHeaders::default(), Duration::from_millis(20)).await;
    assert!(matches!(found, Ok(Probe::Legacy { answered: false })));
    link.close().await;
}
