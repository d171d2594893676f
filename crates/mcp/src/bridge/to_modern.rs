//! A legacy client in front of a modern server.
//!
//! The handshake and `ping` are answered here, from what `server/discover` said; every request gains the `_meta` that
//! the modern era demands; an `input_required` result becomes requests to the client, and their answers a retry.
//! Source: 2026-07-28, basic/index (General fields), basic/patterns/mrtr, and the schemas of the older revisions.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Map, Value, json, value::RawValue};

use super::{INPUTS_MAX, NotBridged, allows, object, without_tasks};
use crate::{
    EditError, Kind, Limits, Message, RawId,
    era::{ASSUMED_LEGACY, LATEST_LEGACY, LEGACY, Probe},
    message::meta,
};

/// What a modern server offers, as it says in answer to `server/discover`.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    /// The version to speak to it.
    pub version: &'static str,
    capabilities: Map<String, Value>,
    server_info: Value,
    instructions: Option<Value>,
}

impl Offer {
    /// What a probe found; `name` stands in where the server does not name itself.
    ///
    /// # Errors
    /// Where no modern version is known to both sides, or the server did not say what it offers.
    pub fn of(probe: &Probe, name: &str) -> Result<Self, NotBridged> {
        let Probe::Modern { versions, discovered } = probe else {
            return Err(NotBridged::Version { listed: "older revisions".to_owned() });
        };
        let (Some(version), Some(result)) = (probe.common_version(), discovered.as_ref()) else {
            return Err(NotBridged::Version { listed: versions.join(", ") });
        };
        let mut result = object(Some(result));
        let mut capabilities = match result.shift_remove("capabilities") {
            Some(Value::Object(capabilities)) => capabilities,
            _ => Map::new(),
        };
        without_tasks(&mut capabilities);
        let info =
            result.get("_meta").and_then(|meta| meta.get(meta::SERVER_INFO)).or_else(|| result.get("serverInfo"));
        let named = info.filter(|info| info.get("name").is_some_and(Value::is_string)).cloned();
        let mut server_info = named.unwrap_or_else(|| json!({"name": name}));
        if !server_info["version"].is_string() {
            server_info["version"] = json!("unknown");
        }
        let instructions = result.shift_remove("instructions").filter(Value::is_string);
        Ok(Self { version, capabilities, server_info, instructions })
    }

    /// Whether the server offers to send something that a legacy client would be told unasked.
    #[must_use]
    pub fn list_changes(&self) -> Option<Value> {
        let mut wanted = Map::new();
        for (kind, filter) in
            [("tools", "toolsListChanged"), ("prompts", "promptsListChanged"), ("resources", "resourcesListChanged")]
        {
            if self.has(kind, Some("listChanged")) {
                wanted.insert(filter.to_owned(), json!(true));
            }
        }
        (!wanted.is_empty()).then_some(Value::Object(wanted))
    }

    fn has(&self, capability: &str, part: Option<&str>) -> bool {
        match (self.capabilities.get(capability), part) {
            (Some(found), Some(part)) => found.get(part).and_then(Value::as_bool).unwrap_or(false),
            (found, None) => found.is_some(),
            (None, _) => false,
        }
    }
}

/// What to do with a request of a legacy client.
#[derive(Clone, Debug, PartialEq)]
pub enum FromLegacy {
    /// Answer the handshake with [`LegacyClient::open`].
    Open,
    /// Answer with an empty result.
    Empty,
    /// Remember the level, then answer with an empty result.
    SetLevel(Bytes),
    /// Listen to one resource more, then answer with an empty result.
    Subscribe(String),
    /// Listen to one resource less, then answer with an empty result.
    Unsubscribe(String),
    /// Send it on as [`LegacyClient::outbound`] gives it.
    Forward,
    /// Refuse it.
    Refuse(NotBridged),
}

/// What the server needs before it can go on.
#[derive(Clone, Debug)]
pub struct Input {
    /// What it asks of the client; may be empty.
    pub requests: Vec<InputRequest>,
    /// Its state, raw, to be given back as it is.
    pub state: Option<Bytes>,
}

/// One thing that a modern server asks for.
#[derive(Clone, Debug)]
pub struct InputRequest {
    /// The server's name for it.
    pub key: String,
    /// `elicitation/create`, `sampling/createMessage` or `roots/list`.
    pub method: String,
    params: Option<Bytes>,
}

/// A legacy client: what it said when it opened its session, and what it asked for since.
#[derive(Clone, Debug)]
pub struct LegacyClient {
    version: String,
    info: Option<Bytes>,
    capabilities: Map<String, Value>,
    level: Option<Bytes>,
}

/// One that has not said anything yet.
impl Default for LegacyClient {
    fn default() -> Self {
        Self { version: ASSUMED_LEGACY.to_owned(), info: None, capabilities: Map::new(), level: None }
    }
}

impl LegacyClient {
    /// The revision that was agreed on.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Reads `initialize` and gives the result that answers it, raw.
    pub fn open(&mut self, request: &Message, offer: &Offer) -> Bytes {
        let asked = request.param_str("protocolVersion").unwrap_or_default();
        let known = LEGACY.iter().find(|version| **version == asked);
        self.version = (*known.unwrap_or(&LATEST_LEGACY)).to_owned();
        self.info = request.param_raw("clientInfo").filter(|info| info.starts_with(b"{"));
        self.capabilities = object(request.param_raw("capabilities").as_deref());
        without_tasks(&mut self.capabilities);
        let mut result = json!({
            "protocolVersion": self.version,
            "capabilities": offer.capabilities,
            "serverInfo": offer.server_info,
        });
        if let Some(instructions) = &offer.instructions {
            result["instructions"] = instructions.clone();
        }
        result.to_string().into()
    }

    /// What to do with a request.
    #[must_use]
    pub fn take(&self, request: &Message, offer: &Offer) -> FromLegacy {
        let uri = || request.param_str("uri").filter(|_| offer.has("resources", Some("subscribe")));
        match request.method().unwrap_or_default() {
            "initialize" => FromLegacy::Open,
            "ping" => FromLegacy::Empty,
            method if method.starts_with("tasks/") => FromLegacy::Refuse(NotBridged::Tasks),
            _ if request.param_raw("task").is_some() => FromLegacy::Refuse(NotBridged::Tasks),
            "logging/setLevel" if offer.has("logging", None) => match request.param_raw("level") {
                Some(level) if level.starts_with(b"\"") => FromLegacy::SetLevel(level),
                _ => FromLegacy::Forward,
            },
            "resources/subscribe" => uri().map_or(FromLegacy::Forward, FromLegacy::Subscribe),
            "resources/unsubscribe" => uri().map_or(FromLegacy::Forward, FromLegacy::Unsubscribe),
            _ => FromLegacy::Forward,
        }
    }

    /// Log messages of this level and above are wanted from now on.
    pub fn set_level(&mut self, level: Bytes) {
        self.level = Some(level);
    }

    /// The request as the modern server gets it, under the id that it has there.
    ///
    /// # Errors
    /// Where the change would break a bound.
    pub fn outbound(
        &self,
        request: &Message,
        id: &RawId,
        offer: &Offer,
        limits: &Limits,
    ) -> Result<Message, EditError> {
        let capabilities = Value::Object(self.capabilities.clone()).to_string();
        let mut edit = request
            .edit()
            .set_id(id)
            .set_meta_str(meta::PROTOCOL_VERSION, offer.version)
            .set_meta(meta::CLIENT_CAPABILITIES, capabilities);
        if let Some(info) = &self.info {
            edit = edit.set_meta(meta::CLIENT_INFO, info.clone());
        }
        if let Some(level) = &self.level {
            edit = edit.set_meta(meta::LOG_LEVEL, level.clone());
        }
        edit.finish(limits)
    }

    /// The server's answer as the client gets it, under the id that the client gave.
    ///
    /// # Errors
    /// Where the answer cannot be changed as it must be.
    pub fn answer(&self, method: &str, answer: &Message, id: &RawId, limits: &Limits) -> Result<Message, EditError> {
        let mut edit = answer.edit().set_id(id);
        if answer.kind() == Kind::Response {
            edit = edit.remove_result_member("resultType");
            if answer.result_member_raw("structuredContent").is_some_and(|value| !value.starts_with(b"{")) {
                edit = edit.remove_result_member("structuredContent"); // any JSON value since 2026-07-28, before an object
            }
            if let Some(tools) = (method == "tools/list").then(|| legacy_tools(answer)).flatten() {
                edit = edit.set_result_member("tools", tools);
            }
        }
        edit.finish(limits)
    }

    /// A notification of the server as the client gets it; none where this era has no such thing.
    ///
    /// # Errors
    /// Where it cannot be changed as it must be.
    pub fn notification(&self, notice: &Message, limits: &Limits) -> Result<Option<Message>, EditError> {
        if notice.method() == Some("notifications/subscriptions/acknowledged") {
            return Ok(None);
        }
        notice.edit().remove_meta(meta::SUBSCRIPTION_ID).finish(limits).map(Some)
    }

    /// What an answer asks for, where it is `input_required`.
    ///
    /// # Errors
    /// Where it cannot be played to this client.
    pub fn input(&self, answer: &Message) -> Result<Option<Input>, NotBridged> {
        match answer.result_type().as_deref() {
            None | Some("complete") => return Ok(None),
            Some("input_required") => {}
            Some(_) => return Err(NotBridged::Tasks),
        }
        let state = answer.request_state_raw();
        let asked = match answer.input_requests_raw() {
            None => BTreeMap::new(),
            Some(raw) => serde_json::from_slice::<BTreeMap<String, Box<RawValue>>>(&raw)
                .map_err(|_| NotBridged::BadInput { reason: "holds no object of requests" })?,
        };
        if asked.len() > INPUTS_MAX {
            return Err(NotBridged::BadInput { reason: "asks for too many things at once" });
        }
        if asked.is_empty() && state.is_none() {
            return Err(NotBridged::BadInput { reason: "names neither requests nor a state" });
        }
        let requests = asked.into_iter().map(|(key, raw)| self.input_request(key, &raw)).collect::<Result<_, _>>()?;
        Ok(Some(Input { requests, state }))
    }

    fn input_request(&self, key: String, raw: &RawValue) -> Result<InputRequest, NotBridged> {
        let members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(raw.get())
            .map_err(|_| NotBridged::BadInput { reason: "holds something that is no request" })?;
        let method = members.get("method").and_then(|method| serde_json::from_str::<String>(method.get()).ok());
        let method = method.ok_or(NotBridged::BadInput { reason: "holds a request without a method" })?;
        if !allows(&self.capabilities, &method) {
            return Err(NotBridged::Undeclared { method });
        }
        let params = members.get("params").map(|params| Bytes::from(params.get().to_owned()));
        Ok(InputRequest { key, method, params })
    }

    /// A request of the server as this client gets it.
    ///
    /// # Errors
    /// Where its parameters are no object.
    pub fn ask(&self, request: &InputRequest, id: &RawId, limits: &Limits) -> Result<Message, EditError> {
        let message = Message::request(id, &request.method, request.params.as_deref())?;
        if request.method != "elicitation/create" {
            return Ok(message);
        }
        let mode = message.param_str("mode");
        let edit = message.edit();
        match mode.as_deref() {
            // That revision alone names elicitations; nothing refers to the name afterwards.
            Some("url") if message.param_raw("elicitationId").is_none() => {
                edit.set_param("elicitationId", id.raw().clone()).finish(limits)
            }
            // Before modes there was this one.
            Some("form") if self.version != LATEST_LEGACY => edit.remove_param("mode").finish(limits),
            _ => Ok(message),
        }
    }

    /// The request once more, with the client's answers by the server's names for them, raw, and the server's state.
    ///
    /// # Errors
    /// Where the change would break a bound.
    pub fn retry(
        &self,
        original: &Message,
        answers: &[(String, Bytes)],
        state: Option<&Bytes>,
        limits: &Limits,
    ) -> Result<Message, EditError> {
        let mut edit = original.edit();
        edit = if answers.is_empty() {
            edit.remove_param("inputResponses")
        } else {
            let mut raw = vec![b'{'];
            for (at, (key, answer)) in answers.iter().enumerate() {
                raw.extend_from_slice(if at == 0 { b"" } else { b"," });
                raw.extend_from_slice(json!(key).to_string().as_bytes());
                raw.push(b':');
                raw.extend_from_slice(answer);
            }
            raw.push(b'}');
            edit.set_param("inputResponses", raw)
        };
        edit = match state {
            Some(state) => edit.set_param("requestState", state.clone()),
            None => edit.remove_param("requestState"),
        };
        edit.finish(limits)
    }
}

/// Tools without the output schemas that older revisions cannot read; none where all can stay as they are.
fn legacy_tools(answer: &Message) -> Option<Bytes> {
    let raw = answer.result_member_raw("tools")?;
    let mut tools: Vec<Value> = serde_json::from_slice(&raw).ok()?;
    let mut changed = false;
    for tool in tools.iter_mut().filter_map(Value::as_object_mut) {
        let unreadable = tool.get("outputSchema").is_some_and(|schema| schema.get("type") != Some(&json!("object")));
        changed |= unreadable && tool.shift_remove("outputSchema").is_some();
    }
    changed.then(|| Value::Array(tools).to_string().into())
}
