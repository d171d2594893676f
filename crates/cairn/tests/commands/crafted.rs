//! Messages that are made to be read in two ways: each is refused, reaches no server, and leaves an event.

use crate::support::{Up, events, http, orders, wait_for};

const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"t","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}"#;

#[test]
fn a_message_that_can_be_read_in_two_ways_is_refused_and_leaves_an_event() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let up = Up::start(&data, &["--config", &orders(folder.path()).display().to_string()]);
    let sent = |headers: &[(&str, &str)], body: &str| {
        let mut all = vec![("content-type", "application/json"), ("accept", "application/json, text/event-stream")];
        all.extend([("mcp-protocol-version", "2026-07-28")]);
        all.extend(headers);
        http(&up.gateway, "POST /mcp/orders", &all, body)
    };
    let call = |params: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{{params},"arguments":{{"order_id":"order-1","cents":1}},{META}}}}}"#
        )
    };
    let refund = call(r#""name":"refund_order""#);
    let named = [("mcp-method", "tools/call"), ("mcp-name", "refund_order")];

    // A header that names another tool than the body, another method, or stands there twice; a URI that is not the one in the header.
    let read = format!(
        r#"{{"jsonrpc":"2.0","id":7,"method":"resources/read","params":{{"name":"orders://public","uri":"orders://secret",{META}}}}}"#
    );
    let disagree: [(&[(&str, &str)], &str); 4] = [
        (&[("mcp-method", "tools/call"), ("mcp-name", "get_order")], &refund),
        (&[("mcp-method", "tools/list"), ("mcp-name", "refund_order")], &refund),
        (&[("mcp-method", "tools/call"), ("mcp-name", "refund_order"), ("mcp-name", "get_order")], &refund),
        (&[("mcp-method", "resources/read"), ("mcp-name", "orders://public")], &read),
    ];
    for (headers, body) in disagree {
        let answer = sent(headers, body);
        assert_eq!(
            (answer.status, answer.json()["error"]["code"].as_i64()),
            (400, Some(-32020)),
            "{headers:?}: {answer:?}"
        );
    }

    // A key twice, also by an escape, at the root and in the arguments; one that is the protocol's but for case, width or a NUL.
    let ambiguous = [
        refund.replace(r#""id":7"#, r#""id":7,"id":8"#),
        call(r#""name":"get_order","n\u0061me":"refund_order""#),
        refund.replace(r#""cents":1"#, r#""cents":1,"cents":900000"#),
        call(r#""name":"get_order","Name":"refund_order""#),
        call("\"name\":\"get_order\",\"\u{ff4e}ame\":\"refund_order\""),
        call(r#""name":"get_order","name\u0000":"refund_order""#),
        call(r#""name":"refund_order","x":"\ud800""#),
    ];
    for body in &ambiguous {
        let answer = sent(&named, body);
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
    }
    let deep = call(&format!(r#""name":"refund_order","x":{}{}"#, "[".repeat(500), "]".repeat(500)));
    let answer = sent(&named, &deep);
    assert!(answer.json()["error"]["code"].is_i64(), "{answer:?}");

    let expected = ["headers_disagree", "message_ambiguous", "message_too_deep"];
    let all = wait_for("an event for each kind", || {
        let all = events(&data);
        let of = |reason: &str| {
            all.iter().find(|event| event["type"] == "access.refused" && event["data"]["reason"] == reason).cloned()
        };
        expected.iter().map(|reason| of(reason)).collect::<Option<Vec<_>>>()
    });
    for event in &all {
        assert_eq!((&event["data"]["server"], &event["topic"]), (&"orders".into(), &"mcp.operators".into()), "{event}");
        assert!(event["data"]["principal"].is_string(), "{event}");
    }
    let calls = events(&data).into_iter().filter(|event| event["type"] == "call.intent").count();
    let journal = std::fs::read_to_string(folder.path().join("journal.txt")).unwrap_or_default();
    assert!(calls == 0 && !journal.contains("refund_order"), "nothing of it was forwarded: {journal}");
    up.end();
}
