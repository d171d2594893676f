//! Headers against bodies, both ways.
use http::HeaderMap;

use super::*;
use crate::{Message, code, testing::message};

fn call() -> Message {
    message(
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"größe","arguments":{"n":42.0,"s":" x","z":null},
        "_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#,
    )
}

fn noted() -> Vec<ParamAnnotation> {
    ["n", "s", "z", "absent"]
        .map(|name| ParamAnnotation {
            header: format!("{PARAM_PREFIX}{name}").parse().expect("a name"),
            path: vec![name.to_owned()],
        })
        .to_vec()
}

#[test]
fn what_is_computed_agrees() {
    let headers = compute(&call(), &noted()).expect("mirrored");
    assert_eq!(headers[NAME], "=?base64?Z3LDtsOfZQ==?=");
    assert_eq!((headers["mcp-param-n"].to_str().ok(), headers.get("mcp-param-z")), (Some("42"), None));
    assert_eq!(check(&headers, &call(), &noted()), Ok(()));
}

#[test]
fn each_header_must_be_there_once_and_agree() {
    let good = compute(&call(), &noted()).expect("mirrored");
    for name in ["mcp-protocol-version", "mcp-method", "mcp-name", "mcp-param-n", "mcp-param-s"] {
        let mut headers: HeaderMap = good.clone();
        headers.remove(name);
        assert!(matches!(check(&headers, &call(), &noted()), Err(HeaderFault::Missing { .. })), "{name}");
        headers.insert(name, "other".parse().expect("a value"));
        assert!(matches!(check(&headers, &call(), &noted()), Err(HeaderFault::Differs { .. })), "{name}");
        let mut headers: HeaderMap = good.clone();
        headers.append(name, good[name].clone());
        assert!(matches!(check(&headers, &call(), &noted()), Err(HeaderFault::Repeated { .. })), "{name}");
    }
    let mut headers = good;
    headers.insert("mcp-param-z", "null".parse().expect("a value"));
    let fault = check(&headers, &call(), &noted()).expect_err("null has no header");
    assert_eq!(fault.code(), code::HEADER_MISMATCH);
}

#[test]
fn the_name_in_the_header_is_the_one_that_is_acted_on() {
    let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;
    let of = |method: &str, params: &str| {
        message(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{params},{meta}}}}}"#))
    };
    let both = r#""name":"public","uri":"file:///secret","taskId":"t""#;
    let cases =
        [("resources/read", "file:///secret"), ("tools/call", "public"), ("prompts/get", "public"), ("tasks/get", "t")];
    for (method, acted_on) in cases {
        let message = of(method, both);
        let own = compute(&message, &[]).expect("mirrored");
        assert_eq!(own[NAME], acted_on, "{method}");
        for said in ["public", "file:///secret", "t"] {
            let mut headers = own.clone();
            headers.insert(NAME, said.parse().expect("a value"));
            assert_eq!(check(&headers, &message, &[]).is_ok(), said == acted_on, "{method} said to be about {said}");
        }
    }
    // The body names nothing that this method is about.
    let nothing = of("resources/read", r#""name":"public""#);
    let mut headers = compute(&nothing, &[]).expect("mirrored");
    assert_eq!(headers.get(NAME), None);
    headers.insert(NAME, "public".parse().expect("a value"));
    assert_eq!(check(&headers, &nothing, &[]), Err(HeaderFault::Differs { header: NAME }));
}

#[test]
fn integers_are_compared_as_numbers_and_values_case_sensitively() {
    let mut headers = compute(&call(), &noted()).expect("mirrored");
    headers.insert("mcp-param-n", "42.0".parse().expect("a value"));
    assert_eq!(check(&headers, &call(), &noted()), Ok(()));
    headers.insert(METHOD, "Tools/Call".parse().expect("a value"));
    assert!(check(&headers, &call(), &noted()).is_err());
}

#[test]
fn legacy_messages_are_decided_by_no_header() {
    let legacy = message(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}}"#);
    let mut headers = HeaderMap::new();
    headers.insert(NAME, "other".parse().expect("a value"));
    headers.insert(PROTOCOL_VERSION, "2025-11-25".parse().expect("a value"));
    assert_eq!(check(&headers, &legacy, &[]), Ok(()));
    assert!(compute(&legacy, &[]).expect("none").is_empty());
    headers.insert(PROTOCOL_VERSION, "2026-07-28".parse().expect("a value"));
    let fault = check(&headers, &legacy, &[]).expect_err("a modern header over a legacy body");
    assert_eq!((fault.clone(), fault.code()), (HeaderFault::VersionNotInBody, code::INVALID_PARAMS));
}

#[test]
fn credentials_and_connection_headers_do_not_pass() {
    let passes = |name: &str| may_pass(&name.parse().expect("a name"));
    assert!(passes("traceparent") && passes("mcp-param-x") && passes("x-request-id"));
    for name in
        ["authorization", "cookie", "host", "connection", "mcp-session-id", "sec-fetch-site", "cairn-workflow-id"]
    {
        assert!(!passes(name), "{name}");
    }
}
