//! What answers say beyond themselves: sessions opened, definitions seen, resources read, prompts fetched.
//!
//! Runs after the outcome is recorded and looks at successful answers only. Everything it leaves is relaxed, and no
//! payload leaves it: references for contents, definitions inline because they are public metadata.

use bytes::Bytes;
use cairn_contract::{
    Body, CacheScope, ContextPrompt, ContextRead, EventType, Implementation, SessionOpened, VersionSource,
};
use cairn_mcp::Message;
use serde_json::{Map, Value};

use crate::{Gateway, call::Call, catalogue::shown_instead, life::Answer, masking::Part, session::Door};

impl Gateway {
    /// Learns from a successful answer.
    pub(crate) fn observe(&self, call: &mut Call, answer: &mut Answer) {
        let Answer::Message { session_id, message, .. } = answer else { return };
        // What is learnt is what the server said, also where the client is shown less of it.
        let served = call.as_served.take().unwrap_or_else(|| message.clone());
        let Some(result) = served.result_raw() else { return };
        match call.method.as_str() {
            "initialize" => {
                self.opened(call, message, session_id);
            }
            "tools/list" | "prompts/list" | "resources/list" | "resources/templates/list" => {
                if let Some(shown) = self.listed(call, &result) {
                    *message = shown_instead(message, &shown, self.wire_limits());
                }
            }
            "resources/read" => self.read(call, &served, &result),
            "prompts/get" => {
                let Some(prompt_name) = call.shown.name().map(ToOwned::to_owned) else { return };
                let messages = served.result_member_raw("messages");
                let messages = messages
                    .and_then(|bytes| self.kept(call, EventType::ContextPrompt, Part::Member("messages"), &bytes));
                let body = ContextPrompt { prompt_name, arguments: call.arguments.clone(), messages };
                let draft = call.draft(self, Body::ContextPrompt(body));
                self.recorder().relaxed(draft);
            }
            _ => {}
        }
    }

    /// What a peer says of itself, as it may stand in an event.
    pub(crate) fn implementation(&self, value: Option<&Value>) -> Option<Implementation> {
        let text = |key: &str| Some(self.screen(value?.get(key)?.as_str()?));
        Some(Implementation { name: text("name")?, version: text("version") })
    }

    /// A legacy handshake succeeded: the session has a name, and the client gets it.
    fn opened(&self, call: &mut Call, message: &Message, session_id: &mut Option<String>) {
        let session = call.session.clone();
        let result = parsed(&message.result_raw().unwrap_or_default());
        let client = parsed(&call.message.params_raw().unwrap_or_default());
        let client_info = self.implementation(client.get("clientInfo"));
        let server_info = self.implementation(result.get("serverInfo"));
        let negotiated = result.get("protocolVersion").and_then(Value::as_str).map(ToOwned::to_owned);
        {
            let mut claims = session.claims.lock();
            claims.agent_name = client_info.as_ref().map(|info| info.name.clone());
            claims.agent_version = client_info.as_ref().and_then(|info| info.version.clone());
            claims.protocol_version.clone_from(&negotiated);
            claims.opens_addresses = client["capabilities"]["elicitation"]["url"].is_object();
            claims.server_name = server_info.as_ref().map(|info| info.name.clone());
            claims.server_version = server_info.as_ref().and_then(|info| info.version.clone());
        }
        if session.door == Door::Http {
            if session_id.is_none() && !session.relays_http() {
                *session_id = Some(self.new_secret());
            }
            if let Some(id) = session_id {
                *session.secret.lock() = Some(id.clone());
                self.sessions().keep(&session, id);
                call.common.mcp_session_id = Some(self.keys().secret.digest(id.as_bytes()));
            }
        }
        let body = SessionOpened {
            client_info,
            server_info,
            client_capabilities: client
                .get("capabilities")
                .and_then(Value::as_object)
                .map(|found| self.screen_object(found)),
            server_capabilities: result
                .get("capabilities")
                .and_then(Value::as_object)
                .map(|found| self.screen_object(found)),
            requested_version: client
                .get("protocolVersion")
                .and_then(Value::as_str)
                .map(|version| self.screen(version)),
            negotiated_version: negotiated.as_deref().map(|version| self.screen(version)),
            reason: None,
        };
        let draft = call.draft(self, Body::SessionOpened(body));
        self.recorder().relaxed(draft);
    }

    /// A resource was read: which version, as the server says it or as its content shows.
    fn read(&self, call: &mut Call, message: &Message, result: &Bytes) {
        let Some(uri) = call.shown.name().map(ToOwned::to_owned) else { return };
        let (contents, part) = match message.result_member_raw("contents") {
            Some(contents) => (contents, Part::Member("contents")),
            None => (result.clone(), Part::Result),
        };
        let value = parsed(result);
        let first = value.get("contents").and_then(|contents| contents.get(0));
        let stamp = |key: &str| {
            let item = first?;
            let found = item.get("_meta").and_then(|meta| meta.get(key));
            let found = found.or_else(|| item.get("annotations").and_then(|annotations| annotations.get(key)));
            found.and_then(Value::as_str).map(ToOwned::to_owned)
        };
        let (version, version_source) = match (stamp("etag"), stamp("lastModified")) {
            (Some(etag), _) => (self.screen_version(etag), VersionSource::Etag),
            (None, Some(modified)) => (self.screen_version(modified), VersionSource::LastModified),
            (None, None) => (self.keys().version.digest(&contents), VersionSource::Digest),
        };
        let cache_scope = match value.get("cacheScope").and_then(Value::as_str) {
            Some("public") => Some(CacheScope::Public),
            Some("private") => Some(CacheScope::Private),
            _ => None,
        };
        let body = ContextRead {
            mcp_resource_uri: uri,
            version: Some(version),
            version_source: Some(version_source),
            content: self.kept(call, EventType::ContextRead, part, &contents),
            ttl_ms: value.get("ttlMs").and_then(Value::as_u64),
            cache_scope,
            asked_at: None,
        };
        self.has_read(call, body);
    }
}

fn parsed(bytes: &[u8]) -> Map<String, Value> {
    serde_json::from_slice(bytes).unwrap_or_default()
}
