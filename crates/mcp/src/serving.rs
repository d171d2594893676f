//! A server of Cairn's own, as MCP clients of both eras meet it: `cairn mcp`, and what `cairn play` plays.
//!
//! One message in, at most one out; transports are the caller's. A server says what it is and what it answers in the legacy form, and
//! here that becomes what each era wants: a handshake, or requests that describe themselves. Nothing is ever asked of a client,
//! and nothing is sent unasked. It must know nothing of what is served.

use std::fmt;

use serde_json::{Value, json};

use crate::{
    Kind, Limits, Message, RawId,
    bridge::{FromModern, LegacyClient, LegacyServer, ModernCall},
    code,
    era::{LATEST_LEGACY, LEGACY, MODERN},
    meta,
};

/// Longest part of a client's word that an error repeats.
const SHOWN_CHARS_MAX: usize = 64;

/// Why a request has no result.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The JSON-RPC code.
    pub code: i64,
    /// In words.
    pub message: String,
    /// The error's data: JSON.
    pub data: Option<String>,
}

impl Fault {
    /// A fault without data.
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None }
    }
}

/// What a server is, and what it answers.
pub trait Served: fmt::Debug + Send + Sync {
    /// `serverInfo`, `capabilities` and maybe `instructions` of the answer to `initialize`.
    fn welcome(&self) -> Value;

    /// The result of a request as JSON, in the legacy form; none where there is no such method. It may block.
    fn given(&self, method: &str, request: &Message) -> Option<Result<String, Fault>>;

    /// What is said of a method that there is not.
    fn unknown(&self, method: &str) -> String {
        format!("there is no method {method:?} here")
    }
}

/// The answer to a message; none to what wants none.
pub fn answer(served: &dyn Served, message: &Message, limits: &Limits) -> Option<Message> {
    if message.kind() != Kind::Request {
        return None;
    }
    let id = message.id()?;
    let answer =
        if message.is_modern() { modern(served, message, id, limits) } else { legacy(served, message, id, limits) };
    Some(answer.unwrap_or_else(|words| error(id, &Fault::new(code::INTERNAL_ERROR, words))))
}

fn legacy(served: &dyn Served, message: &Message, id: &RawId, limits: &Limits) -> Result<Message, String> {
    let method = message.method().unwrap_or_default();
    let result = match method {
        "initialize" => return Ok(welcome(served, message, id)),
        "ping" | "logging/setLevel" | "resources/subscribe" | "resources/unsubscribe" => json!({}).to_string(),
        _ => match served.given(method, message) {
            Some(Ok(result)) => result,
            Some(Err(fault)) => return Ok(error(id, &fault)),
            None => return Ok(no_method(served, id, method)),
        },
    };
    let answer = made(id, &result)?;
    LegacyClient::default().answer(method, &answer, id, limits).map_err(|error| error.to_string())
}

fn modern(served: &dyn Served, message: &Message, id: &RawId, limits: &Limits) -> Result<Message, String> {
    let requested = message.protocol_version().unwrap_or_default();
    if !MODERN.contains(&requested.as_str()) {
        let shown: String = requested.chars().take(SHOWN_CHARS_MAX).collect();
        let data = json!({ "supported": MODERN, "requested": shown });
        let words = format!("unsupported protocol version {shown:?}: it is served in {}", MODERN.join(", "));
        let fault = Fault::new(code::UNSUPPORTED_PROTOCOL_VERSION, words);
        return Ok(error(id, &Fault { data: Some(data.to_string()), ..fault }));
    }
    if message.client_capabilities_raw().is_none_or(|raw| !raw.starts_with(b"{")) {
        let words =
            format!("params._meta lacks {}: every request says what its client can do", meta::CLIENT_CAPABILITIES);
        return Ok(error(id, &Fault::new(code::INVALID_PARAMS, words)));
    }
    let method = message.method().unwrap_or_default();
    let hello =
        json!({ "protocolVersion": LATEST_LEGACY, "capabilities": {}, "clientInfo": { "name": "-", "version": "-" } });
    let hello = Message::request(&RawId::integer(0), "initialize", Some(hello.to_string().as_bytes()))
        .map_err(|error| error.to_string())?;
    let greeted = welcome(served, &hello, &RawId::integer(0));
    let server = LegacyServer::of(&hello, &greeted).map_err(|error| error.to_string())?;
    if method == "server/discover" {
        return match server.take(message) {
            FromModern::Answer(raw) => Message::result(id, &raw).map_err(|error| error.to_string()),
            _ => Err("the server cannot be described".to_owned()),
        };
    }
    let answer = match served.given(method, message) {
        Some(Ok(result)) => made(id, &result)?,
        Some(Err(fault)) => error(id, &fault),
        None => return Ok(no_method(served, id, method)),
    };
    server.answer(&ModernCall::of(message), &answer, limits).map_err(|error| error.to_string())
}

/// The answer to `initialize`.
fn welcome(served: &dyn Served, message: &Message, id: &RawId) -> Message {
    let asked = message.param_str("protocolVersion").unwrap_or_default();
    let version = LEGACY.iter().find(|known| **known == asked).unwrap_or(&LATEST_LEGACY);
    let mut result = served.welcome();
    result["protocolVersion"] = json!(version);
    Message::result(id, result.to_string().as_bytes()).expect("an answer of ours is a message")
}

fn no_method(served: &dyn Served, id: &RawId, method: &str) -> Message {
    let shown: String = method.chars().take(SHOWN_CHARS_MAX).collect();
    error(id, &Fault::new(code::METHOD_NOT_FOUND, served.unknown(&shown)))
}

fn made(id: &RawId, result: &str) -> Result<Message, String> {
    Message::result(id, result.as_bytes()).map_err(|error| format!("what is served is no result: {error}"))
}

fn error(id: &RawId, fault: &Fault) -> Message {
    let data = fault.data.as_deref().map(str::as_bytes);
    let plain = || Message::error(Some(id), fault.code, &fault.message, None).expect("an error of ours is a message");
    Message::error(Some(id), fault.code, &fault.message, data).unwrap_or_else(|_| plain())
}
