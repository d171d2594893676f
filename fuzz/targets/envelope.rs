//! The JSON-RPC envelope: what is accepted means the same to another parser, and nothing makes the reader panic.
//!
//! The input is one message, or a batch. Held against serde_json: no duplicate at any depth, no key that differs from one of
//! the protocol's in case alone, no deeper than the bound, the same method, id, target and `_meta`. An edited message
//! differs in what was edited and in nothing else.
#![no_main]

use bytes::Bytes;
use cairn_fuzz::reference::Tree;
use cairn_mcp::{Kind, Limits, Message, RawId, is_batch, parse_batch};
use libfuzzer_sys::fuzz_target;

const DEPTH_MAX: usize = 24;
/// Keys of the protocol by the object that they stand in.
const ROOT: [&str; 6] = ["jsonrpc", "id", "method", "params", "result", "error"];
const PARAMS: [&str; 6] = ["_meta", "name", "uri", "arguments", "requestState", "taskId"];
const META: [&str; 3] = ["io.modelcontextprotocol/protocolVersion", "progressToken", "io.cairn/workflow"];

fuzz_target!(|data: &[u8]| {
    let limits = Limits { depth_max: DEPTH_MAX, batch_members_max: 8, ..Limits::default() };
    let bytes = Bytes::copy_from_slice(data);
    if is_batch(data) {
        assert!(Message::parse(bytes.clone(), &limits).is_err(), "an array is no message");
        if let Ok(members) = parse_batch(&bytes, &limits) {
            assert!(members.len() <= 8);
            for message in members.into_iter().flatten() {
                held(&message, &limits);
            }
        }
        return;
    }
    match Message::parse(bytes, &limits) {
        Ok(message) => held(&message, &limits),
        Err(refusal) => {
            let _ = (refusal.to_string(), refusal.code());
            if let Some(id) = refusal.id {
                assert!(!id.is_null() && RawId::parse(id.raw().clone()) == Some(id));
            }
        }
    }
});

fn held(message: &Message, limits: &Limits) {
    let tree = Tree::read(message.bytes()).expect("what Cairn accepts, others can read");
    assert!(!tree.has_duplicates() && tree.depth() <= DEPTH_MAX);
    assert_eq!(tree.get("jsonrpc").and_then(Tree::text), Some("2.0"));
    assert_eq!(tree.get("method").and_then(Tree::text), message.method());
    let has = |name| tree.get(name).is_some();
    let kind = match (has("method"), has("result"), has("error")) {
        (true, false, false) if has("id") => Kind::Request,
        (true, false, false) => Kind::Notification,
        (false, true, false) => Kind::Response,
        (false, false, true) => Kind::Error,
        other => panic!("neither fish nor flesh: {other:?}"),
    };
    assert_eq!(message.kind(), kind);
    let id = message.id().map(|id| Tree::read(id.raw()).expect("an id is JSON"));
    assert_eq!(id.as_ref(), tree.get("id"));
    let own = if has("method") { "params" } else { "result" };
    let holder = tree.get(own);
    let meta = holder.and_then(|holder| holder.get("_meta"));
    let names: Vec<_> = meta.into_iter().flat_map(Tree::names).collect();
    assert_eq!(message.meta_keys(), names);
    for name in META {
        let raw = message.meta_raw(name).map(|raw| Tree::read(&raw).expect("a value is JSON"));
        assert_eq!(raw.as_ref(), meta.and_then(|meta| meta.get(name)), "{name}");
    }
    if let Some(params) = tree.get("params") {
        for name in PARAMS {
            let raw = message.param_raw(name).map(|raw| Tree::read(&raw).expect("a value is JSON"));
            assert_eq!(raw.as_ref(), params.get(name), "{name}");
            assert_eq!(message.param_str(name).as_deref(), params.get(name).and_then(Tree::text), "{name}");
        }
    }
    look_alikes(&tree, &ROOT);
    meta.into_iter().for_each(|meta| look_alikes(meta, &META));
    if let (Some(params), Some("tools/call" | "resources/read" | "prompts/get")) =
        (tree.get("params"), message.method())
    {
        look_alikes(params, &PARAMS);
    }
    // Read by all of it, for what panics.
    let _ = (message.target(), message.protocol_version(), message.error_code(), message.error_message());
    let _ = (message.progress_token(), message.cancelled_id(), message.subscription_id(), message.result_type());
    edited(message, &tree, limits);
}

/// No key is one of these but for case or a NUL.
fn look_alikes(object: &Tree, names: &[&str]) {
    for key in object.names().filter(|key| !names.contains(key)) {
        let plain = key.replace('\0', "").to_lowercase();
        assert!(names.iter().all(|name| name.to_lowercase() != plain), "{key:?} looks like the protocol's");
    }
}

/// What is edited is changed, and nothing else.
fn edited(message: &Message, tree: &Tree, limits: &Limits) {
    let same = message.edit().into_bytes(limits).expect("nothing is changed");
    assert_eq!(&same, message.bytes());
    if message.kind() == Kind::Request {
        let other = message.edit().set_id(&RawId::integer(4_242)).finish(limits).expect("an id can be replaced");
        let expected = replaced(tree, "id", &Tree::Number("4242".to_owned()));
        assert_eq!(Tree::read(other.bytes()), Ok(expected));
    }
    if message.method().is_none() {
        return;
    }
    let text = "a \"new\" \u{2028}value";
    let Ok(other) = message.edit().set_meta_str("io.cairn/workflow", text).remove_param("name").finish(limits) else {
        return;
    };
    assert_eq!(other.meta_str("io.cairn/workflow").as_deref(), Some(text));
    assert_eq!(other.param_raw("name"), None);
    let after = Tree::read(other.bytes()).expect("an edited message is JSON");
    let (before, after) = (stripped(tree), stripped(&after));
    assert_eq!(before, after, "only what was edited differs");
}

fn replaced(tree: &Tree, name: &str, value: &Tree) -> Tree {
    let Tree::Object(members) = tree else { return tree.clone() };
    let one = |(own, old): &(String, Tree)| (own.clone(), if own == name { value } else { old }.clone());
    Tree::Object(members.iter().map(one).collect())
}

/// Without what [`edited`] changes, and without the objects that it may add.
fn stripped(tree: &Tree) -> Tree {
    let Tree::Object(members) = tree else { return tree.clone() };
    let without = |tree: &Tree, name: &str| match tree {
        Tree::Object(members) => Tree::Object(members.iter().filter(|(own, _)| own != name).cloned().collect()),
        other => other.clone(),
    };
    let params = |params: &Tree| {
        let params = without(params, "name");
        let meta = params.get("_meta").map(|meta| without(meta, "io.cairn/workflow"));
        let params = without(&params, "_meta");
        match (params, meta) {
            (Tree::Object(mut members), Some(meta)) if meta != Tree::Object(Vec::new()) => {
                members.push(("_meta".to_owned(), meta));
                Tree::Object(members)
            }
            (params, _) => params,
        }
    };
    let strip = |(name, value): &(String, Tree)| match name.as_str() {
        "params" => (name.clone(), params(value)),
        _ => (name.clone(), value.clone()),
    };
    let members = members.iter().map(strip);
    Tree::Object(members.filter(|(name, value)| name != "params" || *value != Tree::Object(Vec::new())).collect())
}
