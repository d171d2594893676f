//! A modern client in front of a legacy server.
//!
//! The handshake was held by Cairn; requests lose the `_meta` that only the modern era has, answers gain what it demands,
//! `server/discover` and `subscriptions/listen` are answered from what the handshake said, and a request that the server
//! makes within a call becomes an `input_required` result.
//! Source: 2026-07-28, basic/index (General fields), basic/patterns (mrtr, subscriptions), server/discover, and the
//! schemas of the older revisions.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{NotBridged, SUBSCRIPTIONS_MAX, allows, canonical, object, without_tasks};
use crate::{
    EditError, Kind, Limits, Message, RawId,
    era::{LATEST_LEGACY, LEGACY, MODERN},
    message::meta,
};

/// The results that may be cached, and must say for how long.
const CACHEABLE: [&str; 6] =
    ["prompts/list", "resources/list", "resources/read", "resources/templates/list", "server/discover", "tools/list"];

/// The code of 2025-11-25 and before for a resource that does not exist; modern peers must not send it.
const RESOURCE_NOT_FOUND: i64 = -32002;

/// The `initialize` of a session in which a client with these capabilities is played, and those capabilities as the key
/// of that session.
///
/// # Errors
/// Where what the client says of itself cannot stand in a message.
pub fn initialize(id: &RawId, request: &Message) -> Result<(Message, String), EditError> {
    let mut capabilities = object(request.client_capabilities_raw().as_deref());
    without_tasks(&mut capabilities);
    let key = canonical(&Value::Object(capabilities.clone()));
    let info = object(request.client_info_raw().as_deref());
    let named = info.get("name").is_some_and(Value::is_string) && info.get("version").is_some_and(Value::is_string);
    let info = if named { Value::Object(info) } else { json!({"name": "unknown", "version": "unknown"}) };
    let params = json!({"protocolVersion": LATEST_LEGACY, "capabilities": capabilities, "clientInfo": info});
    Ok((Message::request(id, "initialize", Some(params.to_string().as_bytes()))?, key))
}

/// What to do with a request of a modern client.
#[derive(Clone, Debug, PartialEq)]
pub enum FromModern {
    /// Answer with this result, raw.
    Answer(Bytes),
    /// Acknowledge the filter and send what it lets through, until the client has enough.
    Listen(Filter),
    /// Send it on as [`LegacyServer::outbound`] gives it.
    Forward,
    /// Refuse it.
    Refuse(NotBridged),
}

/// A legacy server, as its answer to `initialize` describes it.
#[derive(Clone, Debug)]
pub struct LegacyServer {
    version: String,
    capabilities: Map<String, Value>,
    info: Option<Value>,
    instructions: Option<Value>,
    /// What the client declared in the handshake.
    client: Map<String, Value>,
}

impl LegacyServer {
    /// Reads the answer to `request`, an `initialize`.
    ///
    /// # Errors
    /// Where it is none, or names a version that this crate does not know.
    pub fn of(request: &Message, answer: &Message) -> Result<Self, NotBridged> {
        let Some(raw) = answer.result_raw() else {
            let words = answer.error_message().unwrap_or_default();
            let reason = format!("error {}: {words}", answer.error_code().unwrap_or_default());
            return Err(NotBridged::Handshake { reason });
        };
        let mut result = object(Some(&raw));
        let version = result.get("protocolVersion").and_then(Value::as_str).unwrap_or_default().to_owned();
        if !LEGACY.contains(&version.as_str()) {
            return Err(NotBridged::Handshake { reason: format!("protocol version {version:?}") });
        }
        let mut capabilities = match result.shift_remove("capabilities") {
            Some(Value::Object(capabilities)) => capabilities,
            _ => Map::new(),
        };
        without_tasks(&mut capabilities);
        let info = result.shift_remove("serverInfo").filter(Value::is_object);
        let instructions = result.shift_remove("instructions").filter(Value::is_string);
        let client = object(request.client_capabilities_raw().as_deref());
        Ok(Self { version, capabilities, info, instructions, client })
    }

    /// The revision that was agreed on with it.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Its name and version, as it says itself.
    #[must_use]
    pub const fn info(&self) -> Option<&Value> {
        self.info.as_ref()
    }

    /// What it can do, as it says itself, without what is not bridged.
    #[must_use]
    pub const fn capabilities(&self) -> &Map<String, Value> {
        &self.capabilities
    }

    /// Whether it sends log messages.
    #[must_use]
    pub fn logs(&self) -> bool {
        self.capabilities.contains_key("logging")
    }

    /// Whether the client that it was shown can be asked for this.
    #[must_use]
    pub fn may_ask(&self, method: &str) -> bool {
        allows(&self.client, method)
    }

    /// What to do with a request.
    #[must_use]
    pub fn take(&self, request: &Message) -> FromModern {
        match request.method().unwrap_or_default() {
            "server/discover" => FromModern::Answer(self.discovered()),
            "subscriptions/listen" => match Filter::of(request) {
                Ok(filter) => FromModern::Listen(filter.honoured(self)),
                Err(refused) => FromModern::Refuse(refused),
            },
            method if method.starts_with("tasks/") => FromModern::Refuse(NotBridged::Tasks),
            _ if request.param_raw("task").is_some() => FromModern::Refuse(NotBridged::Tasks),
            _ => FromModern::Forward,
        }
    }

    fn discovered(&self) -> Bytes {
        let mut result = json!({
            "resultType": "complete",
            "supportedVersions": MODERN,
            "capabilities": self.capabilities,
            "ttlMs": 0,
            "cacheScope": "private",
        });
        if let Some(info) = &self.info {
            result["_meta"] = json!({ meta::SERVER_INFO: info });
        }
        if let Some(instructions) = &self.instructions {
            result["instructions"] = instructions.clone();
        }
        result.to_string().into()
    }

    /// The request as the legacy server gets it, under the id (and progress token) that it has there.
    ///
    /// # Errors
    /// Where the change would break a bound.
    pub fn outbound(&self, request: &Message, wire: &RawId, limits: &Limits) -> Result<Message, EditError> {
        let mut edit = request.edit().set_id(wire);
        for key in [meta::PROTOCOL_VERSION, meta::CLIENT_INFO, meta::CLIENT_CAPABILITIES, meta::LOG_LEVEL] {
            edit = edit.remove_meta(key);
        }
        if request.progress_token().is_some() {
            edit = edit.set_meta(meta::PROGRESS_TOKEN, wire.raw().clone());
        }
        edit.remove_param("inputResponses").remove_param("requestState").finish(limits)
    }

    /// The server's answer as the client gets it.
    ///
    /// # Errors
    /// Where the answer cannot be changed as it must be.
    pub fn answer(&self, call: &ModernCall, answer: &Message, limits: &Limits) -> Result<Message, EditError> {
        let edit = answer.edit().set_id(&call.id);
        if answer.kind() == Kind::Error {
            if answer.error_code() == Some(RESOURCE_NOT_FOUND) {
                let words = answer.error_message().unwrap_or_default();
                let data = answer.error_data_raw();
                return Message::error(Some(&call.id), crate::code::INVALID_PARAMS, &words, data.as_deref());
            }
            return edit.finish(limits);
        }
        let lacks = |key: &str| answer.result_member_raw(key).is_none();
        let mut edit = edit;
        if lacks("resultType") {
            edit = edit.set_result_member("resultType", &b"\"complete\""[..]);
        }
        if CACHEABLE.contains(&call.method.as_str()) {
            if lacks("ttlMs") {
                edit = edit.set_result_member("ttlMs", &b"0"[..]);
            }
            if lacks("cacheScope") {
                edit = edit.set_result_member("cacheScope", &b"\"private\""[..]);
            }
        }
        if let Some(info) = self.info.as_ref().filter(|_| answer.meta_raw(meta::SERVER_INFO).is_none()) {
            edit = edit.set_meta(meta::SERVER_INFO, info.to_string());
        }
        edit.finish(limits)
    }

    /// Whether an answer is the handle of a task, which nobody asked for.
    #[must_use]
    pub fn is_task(answer: &Message) -> bool {
        answer.result_member_raw("task").is_some()
    }
}

/// One request of a modern client, as its answers and notifications need it.
#[derive(Clone, Debug)]
pub struct ModernCall {
    /// The client's id.
    pub id: RawId,
    /// The method.
    pub method: String,
    /// The client's progress token.
    pub token: Option<RawId>,
    /// The least level of log messages that the client wants.
    pub level: Option<Level>,
}

impl ModernCall {
    /// What a request says.
    #[must_use]
    pub fn of(request: &Message) -> Self {
        Self {
            id: request.id().cloned().unwrap_or_else(RawId::null),
            method: request.method().unwrap_or_default().to_owned(),
            token: request.progress_token(),
            level: request.meta_str(meta::LOG_LEVEL).and_then(|level| Level::named(&level)),
        }
    }

    /// A notification of the server that belongs to this call, as the client gets it; none where it wants none.
    ///
    /// # Errors
    /// Where it cannot be changed as it must be.
    pub fn notification(&self, notice: &Message, limits: &Limits) -> Result<Option<Message>, EditError> {
        match notice.method().unwrap_or_default() {
            "notifications/progress" => {
                let Some(token) = &self.token else { return Ok(None) };
                notice.edit().set_param("progressToken", token.raw().clone()).finish(limits).map(Some)
            }
            "notifications/message" => {
                let level = notice.param_str("level").and_then(|level| Level::named(&level));
                let wanted = self.level.is_some_and(|least| level.is_none_or(|level| level >= least));
                Ok(wanted.then(|| notice.clone()))
            }
            // These belong to listen streams, and the rest to no era that this client speaks.
            _ => Ok(None),
        }
    }

    /// The result that asks the client for what the server asks for, under Cairn's own state.
    ///
    /// # Errors
    /// Where the server's request cannot stand in a result.
    pub fn input_required(&self, key: &str, asked: &Message, state: &str) -> Result<Message, EditError> {
        let method = json!(asked.method().unwrap_or_default()).to_string();
        let params = asked.params_raw().map(|raw| String::from_utf8_lossy(&raw).into_owned());
        // An elicitation's name is of 2025-11-25 alone.
        let params = if asked.param_raw("elicitationId").is_some() {
            let mut params = object(asked.params_raw().as_deref());
            params.shift_remove("elicitationId");
            Some(Value::Object(params).to_string())
        } else {
            params
        };
        let params = params.map(|params| format!(",\"params\":{params}")).unwrap_or_default();
        let (key, state) = (json!(key), json!(state));
        let result = format!(
            "{{\"resultType\":\"input_required\",\"inputRequests\":{{{key}:{{\"method\":{method}{params}}}}},\"requestState\":{state}}}"
        );
        Message::result(&self.id, result.as_bytes())
    }
}

/// The client's answer to what was asked under a key, as the server gets it: a response to its request. None where the
/// retry does not hold it.
#[must_use]
pub fn response(retry: &Message, key: &str, asked: &RawId) -> Option<Message> {
    let raw = retry.input_responses_raw()?;
    let answers: std::collections::BTreeMap<String, Box<serde_json::value::RawValue>> =
        serde_json::from_slice(&raw).ok()?;
    let answer = answers.get(key)?.get();
    if !answer.starts_with('{') {
        return None;
    }
    Message::result(asked, answer.as_bytes()).ok()
}

/// The levels of log messages (RFC 5424), least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// `debug`
    Debug,
    /// `info`
    Info,
    /// `notice`
    Notice,
    /// `warning`
    Warning,
    /// `error`
    Error,
    /// `critical`
    Critical,
    /// `alert`
    Alert,
    /// `emergency`
    Emergency,
}

impl Level {
    const NAMES: [(&'static str, Self); 8] = [
        ("debug", Self::Debug),
        ("info", Self::Info),
        ("notice", Self::Notice),
        ("warning", Self::Warning),
        ("error", Self::Error),
        ("critical", Self::Critical),
        ("alert", Self::Alert),
        ("emergency", Self::Emergency),
    ];

    /// The level of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.into_iter().find(|(known, _)| *known == name).map(|(_, level)| level)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.into_iter().find(|(_, level)| *level == self).map_or("debug", |(name, _)| name)
    }
}

/// What a modern client wants to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// `notifications/tools/list_changed`.
    pub tools: bool,
    /// `notifications/prompts/list_changed`.
    pub prompts: bool,
    /// `notifications/resources/list_changed`.
    pub resources: bool,
    /// `notifications/resources/updated` of these.
    pub uris: Vec<String>,
}

impl Filter {
    /// Reads a listen request.
    ///
    /// # Errors
    /// Where its filter cannot be read or names too many resources.
    pub fn of(request: &Message) -> Result<Self, NotBridged> {
        let wanted: Value = request
            .param_raw("notifications")
            .and_then(|raw| serde_json::from_slice(&raw).ok())
            .filter(Value::is_object)
            .ok_or(NotBridged::BadFilter { reason: "is no object" })?;
        let flag = |key: &str| wanted.get(key).and_then(Value::as_bool).unwrap_or(false);
        let listed = wanted.get("resourceSubscriptions").and_then(Value::as_array).cloned().unwrap_or_default();
        if listed.len() > SUBSCRIPTIONS_MAX {
            return Err(NotBridged::BadFilter { reason: "names too many resources" });
        }
        let mut uris: Vec<String> = Vec::with_capacity(listed.len());
        for uri in listed.iter().filter_map(Value::as_str) {
            if !uris.iter().any(|known| known == uri) {
                uris.push(uri.to_owned());
            }
        }
        Ok(Self {
            tools: flag("toolsListChanged"),
            prompts: flag("promptsListChanged"),
            resources: flag("resourcesListChanged"),
            uris,
        })
    }

    /// The part of it that the server supports.
    #[must_use]
    fn honoured(self, server: &LegacyServer) -> Self {
        let has = |kind: &str, part: &str| {
            server.capabilities.get(kind).and_then(|found| found.get(part)).and_then(Value::as_bool).unwrap_or(false)
        };
        Self {
            tools: self.tools && has("tools", "listChanged"),
            prompts: self.prompts && has("prompts", "listChanged"),
            resources: self.resources && has("resources", "listChanged"),
            uris: if has("resources", "subscribe") { self.uris } else { Vec::new() },
        }
    }

    /// The first message of the stream: what is honoured.
    #[must_use]
    pub fn acknowledgement(&self, id: &RawId) -> Message {
        let mut honoured = Map::new();
        for (key, is_on) in [
            ("toolsListChanged", self.tools),
            ("promptsListChanged", self.prompts),
            ("resourcesListChanged", self.resources),
        ] {
            if is_on {
                honoured.insert(key.to_owned(), json!(true));
            }
        }
        if !self.uris.is_empty() {
            honoured.insert("resourceSubscriptions".to_owned(), json!(self.uris));
        }
        let params = json!({ "notifications": honoured }).to_string();
        Message::notification("notifications/subscriptions/acknowledged", Some(params.as_bytes()))
            .and_then(|notice| tagged(&notice, id, &Limits::default()))
            .expect("it is made of checked parts")
    }

    /// The notification as this listener gets it; none where it is not wanted.
    ///
    /// # Errors
    /// Where it cannot be changed as it must be.
    pub fn notification(&self, notice: &Message, id: &RawId, limits: &Limits) -> Result<Option<Message>, EditError> {
        let wanted = match notice.method().unwrap_or_default() {
            "notifications/tools/list_changed" => self.tools,
            "notifications/prompts/list_changed" => self.prompts,
            "notifications/resources/list_changed" => self.resources,
            // The resource may lie below the one that was subscribed to.
            "notifications/resources/updated" => {
                let uri = notice.param_str("uri").unwrap_or_default();
                self.uris.iter().any(|known| uri.starts_with(known.as_str()))
            }
            _ => false,
        };
        if wanted { tagged(notice, id, limits).map(Some) } else { Ok(None) }
    }

    /// The result that ends the stream in good order.
    #[must_use]
    pub fn end(id: &RawId) -> Message {
        Message::result(id, br#"{"resultType":"complete"}"#)
            .and_then(|end| tagged(&end, id, &Limits::default()))
            .expect("it is made of checked parts")
    }
}

fn tagged(message: &Message, id: &RawId, limits: &Limits) -> Result<Message, EditError> {
    message.edit().set_meta(meta::SUBSCRIPTION_ID, id.raw().clone()).finish(limits)
}
