//! Headers against body: what passes names the same thing to whoever reads the headers and to whoever reads the body.
//!
//! The input is lines `Name: value`, an empty line, and a message. The headers that Cairn computes for a message pass, too.
#![no_main]

use bytes::Bytes;
use cairn_fuzz::reference::Tree;
use cairn_mcp::{Kind, Limits, Message, headers};
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;

const VERSION: &str = "io.modelcontextprotocol/protocolVersion";

fuzz_target!(|data: &[u8]| {
    let at = data.windows(2).position(|pair| pair == b"\n\n");
    let (head, body) = at.map_or((&b""[..], data), |at| (&data[..at], &data[at + 2..]));
    let mut given = HeaderMap::new();
    for line in head.split(|byte| *byte == b'\n').take(32) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            let _ = headers::may_pass(&name);
            given.append(name, value);
        }
    }
    let tree = Tree::read(body);
    // The tool's own schema, as a server may send it.
    let schema = serde_json::from_slice::<serde_json::Value>(body).ok();
    let schema = schema.as_ref().and_then(|body| body.pointer("/params/arguments"));
    let annotations = schema.and_then(|schema| headers::annotations(schema).ok()).unwrap_or_default();
    let Ok(message) = Message::parse(Bytes::copy_from_slice(body), &Limits::default()) else { return };
    let tree = tree.expect("what Cairn accepts, others can read");
    let passed = headers::check(&given, &message, &annotations);
    if message.is_modern()
        && let Ok(own) = headers::compute(&message, &annotations)
    {
        assert_eq!(headers::check(&own, &message, &annotations), Ok(()), "what Cairn computes, Cairn accepts");
    }
    let version = tree.get("params").and_then(|params| params.get("_meta")).and_then(|meta| meta.get(VERSION));
    if passed.is_err() || version.is_none() || message.kind() != Kind::Request {
        return;
    }
    // Modern and accepted: each header stands there once and says what the body says.
    let one = |name: &HeaderName| {
        let all: Vec<_> = given.get_all(name).iter().collect();
        assert!(all.len() <= 1, "{name} stands there twice");
        all.first().map(|value| headers::decode(value.as_bytes()).expect("what is accepted can be read"))
    };
    let body = |name| tree.get("params").and_then(|params| params.get(name)).and_then(Tree::text).map(str::to_owned);
    assert_eq!(one(&headers::PROTOCOL_VERSION).as_deref(), version.and_then(Tree::text));
    assert_eq!(one(&headers::METHOD).as_deref(), tree.get("method").and_then(Tree::text));
    let method = message.method().unwrap_or_default();
    let target = match method {
        "tools/call" | "prompts/get" => body("name"),
        _ if method.starts_with("resources/") => body("uri"),
        _ if method.starts_with("tasks/") => body("taskId"),
        _ => body("name").or_else(|| body("uri")),
    };
    if let (Some(said), Some(target)) = (one(&headers::NAME), &target) {
        assert_eq!(&said, target, "the name that a proxy on the way reads is the one that is called");
    }
    if matches!(method, "tools/call" | "resources/read" | "prompts/get") {
        assert_eq!(one(&headers::NAME), target);
    }
});
