//! One JSON-RPC message: its bytes as they came, and where in them the parts lie that the protocol gives a meaning to.
//! Called by the gateway and the links for everything that crosses the wire.
//!
//! Guarantees: a [`Message`] has passed the strict scanner and has one kind; its bytes are never changed, only spliced
//! into new ones by [`Editor`](crate::Editor). It must never read a payload: `arguments` and results are spans.

use bytes::Bytes;

use crate::{
    Editor, Limits, RawId,
    names::look_alike,
    refusal::{ParseFault, Refusal},
    scan::{Object, Shape, Slot, Span, begins_array, scan_envelope},
    scan_text::string_of,
};

/// `_meta` keys that the specification reserves, and Cairn's own.
pub mod meta {
    /// The protocol version of a modern request.
    pub const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
    /// What the client says of itself.
    pub const CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
    /// What the client can do.
    pub const CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
    /// What the server says of itself.
    pub const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
    /// The least level of log messages that the client wants for a request.
    pub const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
    /// The listen request that a notification belongs to.
    pub const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";
    /// The token under which progress is reported.
    pub const PROGRESS_TOKEN: &str = "progressToken";
    /// W3C trace context.
    pub const TRACEPARENT: &str = "traceparent";
    /// W3C trace context, the vendors' part.
    pub const TRACESTATE: &str = "tracestate";
    /// The workflow that a call belongs to.
    pub const WORKFLOW: &str = "io.cairn/workflow";
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A method with an id.
    Request,
    /// A method without one.
    Notification,
    /// A result.
    Response,
    /// An error response.
    Error,
}

/// What a request is about, as its parameters name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// `params.name` of `tools/call`.
    Tool(String),
    /// `params.name` of `prompts/get`.
    Prompt(String),
    /// `params.uri` of `resources/…`.
    Resource(String),
    /// `params.taskId` of `tasks/…`.
    Task(String),
}

impl Target {
    /// The name, URI or id alone.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Tool(text) | Self::Prompt(text) | Self::Resource(text) | Self::Task(text) => text,
        }
    }
}

/// A JSON-RPC message that has passed the strict scanner. Cheap to clone.
#[derive(Clone)]
pub struct Message {
    bytes: Bytes,
    shape: std::sync::Arc<Shape>,
    kind: Kind,
    id: Option<RawId>,
    method: Option<Box<str>>,
}

impl Message {
    /// Reads one message.
    ///
    /// # Errors
    /// A [`Refusal`] with the reason, and with the id where it could be read without doubt.
    pub fn parse(bytes: Bytes, limits: &Limits) -> Result<Self, Refusal> {
        if bytes.len() > limits.message_bytes_max {
            return Err(ParseFault::TooLong { limit: limits.message_bytes_max }.into());
        }
        if begins_array(&bytes) {
            return Err(ParseFault::UnexpectedArray.into());
        }
        let shape = scan_envelope(&bytes, limits.depth_max).map_err(ParseFault::Scan)?;
        let Some(root) = shape.object(Slot::Root) else {
            return Err(ParseFault::NotAnObject.into());
        };
        let raw = |key: &str| root.find(&bytes, key).map(|member| bytes.slice(member.value.start..member.value.end));
        let id_raw = raw("id");
        let id = id_raw.clone().and_then(RawId::parse);
        let ids = root.members.iter().filter(|member| member.name(&bytes) == b"id").count();
        let named = if ids == 1 { id.clone().filter(|id| !id.is_null()) } else { None };
        let refuse = |fault: ParseFault| Refusal { fault, id: named.clone() };
        if let Some(fault) = &shape.ambiguity {
            return Err(refuse(ParseFault::Scan(fault.clone())));
        }
        if raw("jsonrpc").as_deref() != Some(b"\"2.0\"") {
            return Err(refuse(ParseFault::Version));
        }
        if id_raw.is_some() && id.is_none() {
            return Err(refuse(ParseFault::Id));
        }
        let method = match raw("method") {
            Some(method) => Some(string_of(&method).ok_or_else(|| refuse(ParseFault::Method))?.into()),
            None => None,
        };
        let has = (method.is_some(), root.find(&bytes, "result").is_some(), root.find(&bytes, "error").is_some());
        let kind = match (has, &id) {
            ((true, false, false), Some(id)) if !id.is_null() => Kind::Request,
            ((true, false, false), None) => Kind::Notification,
            ((false, true, false), Some(id)) if !id.is_null() => Kind::Response,
            ((false, false, true), _) => Kind::Error,
            ((true, false, false) | (false, true, false), _) => return Err(refuse(ParseFault::Id)),
            _ => return Err(refuse(ParseFault::Kind)),
        };
        if let Some((key, like)) = look_alike(&shape, &bytes, method.as_deref()) {
            return Err(refuse(ParseFault::LookAlike { key, like }));
        }
        Ok(Self { shape: std::sync::Arc::new(shape), kind, id, method, bytes })
    }

    /// The bytes as they came.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// What this is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The id; an error response may lack one or have `null`.
    #[must_use]
    pub const fn id(&self) -> Option<&RawId> {
        self.id.as_ref()
    }

    /// The method of a request or notification.
    #[must_use]
    pub fn method(&self) -> Option<&str> {
        self.method.as_deref()
    }

    /// `params`, raw.
    #[must_use]
    pub fn params_raw(&self) -> Option<Bytes> {
        self.member(Slot::Root, "params")
    }

    /// One member of `params`, raw.
    #[must_use]
    pub fn param_raw(&self, key: &str) -> Option<Bytes> {
        self.member(Slot::Params, key)
    }

    /// One member of `params`, where it is a string.
    #[must_use]
    pub fn param_str(&self, key: &str) -> Option<String> {
        text(&self.param_raw(key)?)
    }

    /// `params.arguments`, raw.
    #[must_use]
    pub fn arguments_raw(&self) -> Option<Bytes> {
        self.param_raw("arguments")
    }

    /// One member of `params._meta`, raw; of `result._meta` in a response.
    #[must_use]
    pub fn meta_raw(&self, key: &str) -> Option<Bytes> {
        self.member(self.meta_slot(), key)
    }

    /// One member of `_meta`, where it is a string.
    #[must_use]
    pub fn meta_str(&self, key: &str) -> Option<String> {
        text(&self.meta_raw(key)?)
    }

    /// The keys of `_meta` after unescaping, in their order.
    #[must_use]
    pub fn meta_keys(&self) -> Vec<String> {
        let members = self.shape.object(self.meta_slot()).map_or(&[][..], |object| &object.members);
        members.iter().map(|member| String::from_utf8_lossy(member.name(&self.bytes)).into_owned()).collect()
    }

    /// `result`, raw.
    #[must_use]
    pub fn result_raw(&self) -> Option<Bytes> {
        self.member(Slot::Root, "result")
    }

    /// One member of `result`, raw.
    #[must_use]
    pub fn result_member_raw(&self, key: &str) -> Option<Bytes> {
        self.member(Slot::Result, key)
    }

    /// `error`, raw.
    #[must_use]
    pub fn error_raw(&self) -> Option<Bytes> {
        self.member(Slot::Root, "error")
    }

    /// `error.code`, where it is an integer.
    #[must_use]
    pub fn error_code(&self) -> Option<i64> {
        std::str::from_utf8(&self.member(Slot::Error, "code")?).ok()?.parse().ok()
    }

    /// `error.message`.
    #[must_use]
    pub fn error_message(&self) -> Option<String> {
        text(&self.member(Slot::Error, "message")?)
    }

    /// `error.data`, raw.
    #[must_use]
    pub fn error_data_raw(&self) -> Option<Bytes> {
        self.member(Slot::Error, "data")
    }

    /// Whether a tool's result says that the tool failed.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.result_member_raw("isError").as_deref() == Some(b"true")
    }

    /// `result.resultType`: `complete`, `input_required`, or what an extension adds.
    #[must_use]
    pub fn result_type(&self) -> Option<String> {
        text(&self.result_member_raw("resultType")?)
    }

    /// `requestState`, raw: of a retried request, or of an `input_required` result.
    #[must_use]
    pub fn request_state_raw(&self) -> Option<Bytes> {
        self.member(if self.method.is_some() { Slot::Params } else { Slot::Result }, "requestState")
    }

    /// `params.inputResponses`, raw.
    #[must_use]
    pub fn input_responses_raw(&self) -> Option<Bytes> {
        self.param_raw("inputResponses")
    }

    /// `result.inputRequests`, raw.
    #[must_use]
    pub fn input_requests_raw(&self) -> Option<Bytes> {
        self.result_member_raw("inputRequests")
    }

    /// What the request is about.
    #[must_use]
    pub fn target(&self) -> Option<Target> {
        let method = self.method()?;
        match method {
            "tools/call" => self.param_str("name").map(Target::Tool),
            "prompts/get" => self.param_str("name").map(Target::Prompt),
            _ if method.starts_with("resources/") => self.param_str("uri").map(Target::Resource),
            _ if method.starts_with("tasks/") => self.param_str("taskId").map(Target::Task),
            _ => None,
        }
    }

    /// Whether the message is of the modern era: its `_meta` names a protocol version, whatever its method.
    #[must_use]
    pub fn is_modern(&self) -> bool {
        self.method.is_some() && self.meta_raw(meta::PROTOCOL_VERSION).is_some()
    }

    /// The protocol version: from `_meta`, or from the parameters or the result of `initialize`.
    #[must_use]
    pub fn protocol_version(&self) -> Option<String> {
        self.meta_str(meta::PROTOCOL_VERSION).or_else(|| match self.kind {
            Kind::Response => text(&self.result_member_raw("protocolVersion")?),
            _ if self.method() == Some("initialize") => self.param_str("protocolVersion"),
            _ => None,
        })
    }

    /// What the client says of itself, raw: from `_meta`, or from `initialize`.
    #[must_use]
    pub fn client_info_raw(&self) -> Option<Bytes> {
        self.meta_raw(meta::CLIENT_INFO).or_else(|| self.initialize_param("clientInfo"))
    }

    /// What the client can do, raw: from `_meta`, or from `initialize`.
    #[must_use]
    pub fn client_capabilities_raw(&self) -> Option<Bytes> {
        self.meta_raw(meta::CLIENT_CAPABILITIES).or_else(|| self.initialize_param("capabilities"))
    }

    /// The token under which the sender wants progress, or under which a progress notification reports it.
    #[must_use]
    pub fn progress_token(&self) -> Option<RawId> {
        if self.method() == Some("notifications/progress") {
            return RawId::parse(self.param_raw("progressToken")?);
        }
        self.method.as_ref()?;
        RawId::parse(self.meta_raw(meta::PROGRESS_TOKEN)?)
    }

    /// The request that `notifications/cancelled` names.
    #[must_use]
    pub fn cancelled_id(&self) -> Option<RawId> {
        if self.method() != Some("notifications/cancelled") {
            return None;
        }
        RawId::parse(self.param_raw("requestId")?)
    }

    /// The listen request that this message belongs to.
    #[must_use]
    pub fn subscription_id(&self) -> Option<RawId> {
        RawId::parse(self.meta_raw(meta::SUBSCRIPTION_ID)?)
    }

    /// Begins a copy in which chosen values are replaced and every other byte stays.
    #[must_use]
    pub fn edit(&self) -> Editor<'_> {
        Editor::new(self)
    }

    fn initialize_param(&self, key: &str) -> Option<Bytes> {
        if self.method() == Some("initialize") { self.param_raw(key) } else { None }
    }

    fn meta_slot(&self) -> Slot {
        if self.method.is_some() { Slot::ParamsMeta } else { Slot::ResultMeta }
    }

    fn member(&self, slot: Slot, key: &str) -> Option<Bytes> {
        let Span { start, end } = self.shape.object(slot)?.find(&self.bytes, key)?.value;
        Some(self.bytes.slice(start..end))
    }

    pub(crate) fn object(&self, slot: Slot) -> Option<&Object> {
        self.shape.object(slot)
    }
}

fn text(raw: &[u8]) -> Option<String> {
    string_of(raw).map(std::borrow::Cow::into_owned)
}

/// Payloads never reach a log by way of `Debug`.
impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("Message");
        out.field("kind", &self.kind).field("method", &self.method).field("id", &self.id);
        out.field("bytes", &self.bytes.len()).finish()
    }
}

#[cfg(test)]
mod tests;
