//! What answers say beyond themselves: sessions opened, definitions seen, resources read, prompts fetched.
//!
//! Runs after the outcome is recorded and looks at successful answers only. Everything it leaves is relaxed, and no
//! payload leaves it: references for contents, definitions inline because they are public metadata.

use std::sync::Arc;

use bytes::Bytes;
use cairn_contract::{
    Body, CacheScope, CatalogChanged, CatalogDefined, CatalogKind, ContextListed, ContextPrompt, ContextRead,
    Implementation, ListKind, ListedItem, SessionOpened, VersionSource,
};
use cairn_mcp::Message;
use serde_json::{Map, Value};

use crate::{Gateway, call::Call, life::Answer, session::Door};

/// Definitions of one list that become events; a longer list is cut, and says so in the log.
const DEFINITIONS_MAX: usize = 4_096;
/// Longest title of a tool that policies see.
const HINT_BYTES_MAX: usize = 256;

impl Gateway {
    /// Learns from a successful answer.
    pub(crate) fn observe(&self, call: &mut Call, answer: &mut Answer) {
        let Answer::Message { session_id, message, .. } = answer else { return };
        let Some(result) = message.result_raw() else { return };
        match call.method.as_str() {
            "initialize" => {
                self.opened(call, message, session_id);
            }
            "tools/list" => self.listed(call, &result, ListKind::Tools, CatalogKind::Tool, "tools", "name"),
            "prompts/list" => self.listed(call, &result, ListKind::Prompts, CatalogKind::Prompt, "prompts", "name"),
            "resources/list" => {
                self.listed(call, &result, ListKind::Resources, CatalogKind::Resource, "resources", "uri");
            }
            "resources/templates/list" => {
                let (list, kind) = (ListKind::ResourceTemplates, CatalogKind::ResourceTemplate);
                self.listed(call, &result, list, kind, "resourceTemplates", "uriTemplate");
            }
            "resources/read" => self.read(call, message, &result),
            "prompts/get" => {
                let Some(prompt_name) = call.target.name().map(ToOwned::to_owned) else { return };
                let messages = message.result_member_raw("messages").map(|bytes| self.reference(&bytes));
                let body = ContextPrompt { prompt_name, arguments: call.arguments.clone(), messages };
                let draft = call.draft(self, Body::ContextPrompt(body));
                self.recorder().relaxed(draft);
            }
            _ => {}
        }
    }

    fn reference(&self, bytes: &Bytes) -> cairn_contract::Reference {
        self.keys().payload.reference(bytes, "application/json")
    }

    /// A legacy handshake succeeded: the session has a name, and the client gets it.
    fn opened(&self, call: &mut Call, message: &Message, session_id: &mut Option<String>) {
        let session = call.session.clone();
        let result = parsed(&message.result_raw().unwrap_or_default());
        let client = parsed(&call.message.params_raw().unwrap_or_default());
        let client_info = implementation(client.get("clientInfo"));
        let server_info = implementation(result.get("serverInfo"));
        let negotiated = result.get("protocolVersion").and_then(Value::as_str).map(ToOwned::to_owned);
        {
            let mut claims = session.claims.lock();
            claims.agent_name = client_info.as_ref().map(|info| info.name.clone());
            claims.agent_version = client_info.as_ref().and_then(|info| info.version.clone());
            claims.protocol_version.clone_from(&negotiated);
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
            client_capabilities: client.get("capabilities").and_then(Value::as_object).cloned(),
            server_capabilities: result.get("capabilities").and_then(Value::as_object).cloned(),
            requested_version: client.get("protocolVersion").and_then(Value::as_str).map(ToOwned::to_owned),
            negotiated_version: negotiated,
            reason: None,
        };
        let draft = call.draft(self, Body::SessionOpened(body));
        self.recorder().relaxed(draft);
    }

    /// A list passed: its digests, and an event for each definition that is new or changed.
    fn listed(
        &self,
        call: &mut Call,
        result: &Bytes,
        list_kind: ListKind,
        kind: CatalogKind,
        key: &str,
        name_key: &str,
    ) {
        let result_value = parsed(result);
        let Some(items) = result_value.get(key).and_then(Value::as_array) else { return };
        if items.len() > DEFINITIONS_MAX {
            tracing::warn!(server = %call.session.server.name, key, "a list is longer than {DEFINITIONS_MAX}: the rest is not in the catalogue");
        }
        let server = call.session.server.clone();
        let mut digests = Vec::new();
        for item in items.iter().take(DEFINITIONS_MAX) {
            let Some(name) = item.get(name_key).and_then(Value::as_str) else { continue };
            let canonical = cairn_contract::canonical_value(item);
            let digest = cairn_contract::sha256_text(canonical.as_bytes());
            digests.push(ListedItem { name: name.to_owned(), digest: digest.clone() });
            let previous = server.catalogue.see(kind, name, &digest, item);
            let draft = match previous {
                Some(previous) if previous == digest => continue,
                Some(previous_digest) => Body::CatalogChanged(CatalogChanged {
                    kind,
                    name: name.to_owned(),
                    digest,
                    previous_digest,
                    definition: Some(item.clone()),
                    annotations: item.get("annotations").cloned(),
                    alerts: vec!["definition_changed".to_owned()],
                }),
                None => Body::CatalogDefined(CatalogDefined {
                    kind,
                    name: name.to_owned(),
                    digest,
                    definition: item.clone(),
                    annotations: item.get("annotations").cloned(),
                    alerts: Vec::new(),
                }),
            };
            let mut draft = call.draft(self, draft);
            draft.draft.key = format!("{}/{}/{name}", server.name, kind.name());
            self.recorder().relaxed(draft);
        }
        let count = digests.len() as u64;
        let more = result_value.get("nextCursor").is_some().then_some(true);
        let body = ContextListed { list_kind, digests, count, more, content: Some(self.reference(result)) };
        let draft = call.draft(self, Body::ContextListed(body));
        self.recorder().relaxed(draft);
    }

    /// A resource was read: which version, as the server says it or as its content shows.
    fn read(&self, call: &mut Call, message: &Message, result: &Bytes) {
        let Some(uri) = call.target.name().map(ToOwned::to_owned) else { return };
        let contents = message.result_member_raw("contents").unwrap_or_else(|| result.clone());
        let value = parsed(result);
        let first = value.get("contents").and_then(|contents| contents.get(0));
        let stamp = |key: &str| {
            let item = first?;
            let found = item.get("_meta").and_then(|meta| meta.get(key));
            let found = found.or_else(|| item.get("annotations").and_then(|annotations| annotations.get(key)));
            found.and_then(Value::as_str).map(ToOwned::to_owned)
        };
        let (version, version_source) = match (stamp("etag"), stamp("lastModified")) {
            (Some(etag), _) => (etag, VersionSource::Etag),
            (None, Some(modified)) => (modified, VersionSource::LastModified),
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
            content: Some(self.reference(&contents)),
            ttl_ms: value.get("ttlMs").and_then(Value::as_u64),
            cache_scope,
        };
        let draft = call.draft(self, Body::ContextRead(body));
        self.recorder().relaxed(draft);
    }
}

fn parsed(bytes: &[u8]) -> Map<String, Value> {
    serde_json::from_slice(bytes).unwrap_or_default()
}

fn implementation(value: Option<&Value>) -> Option<Implementation> {
    let value = value?;
    let text =
        |key: &str| value.get(key).and_then(Value::as_str).map(|text| text.chars().take(128).collect::<String>());
    Some(Implementation { name: text("name")?, version: text("version") })
}

/// Definitions of one server, by kind and name: the newest digest and what it stands for.
#[derive(Debug, Default)]
pub(crate) struct Catalogue(parking_lot::Mutex<std::collections::HashMap<(CatalogKind, String), Seen>>);

#[derive(Debug)]
struct Seen {
    digest: String,
    annotations: Arc<[cairn_mcp::headers::ParamAnnotation]>,
    /// What the server says of a tool, as policies may look at it.
    hints: Option<Value>,
}

/// A server's words of a tool: only the hints that MCP names, each only with the type that it has there. They are
/// untrusted, and a policy must be able to rely on their type at least.
fn hints(item: &Value) -> Option<Value> {
    let said = item.get("annotations")?.as_object()?;
    let known = |name: &str, value: &Value| match name {
        "title" => value.as_str().is_some_and(|title| title.len() <= HINT_BYTES_MAX),
        "readOnlyHint" | "destructiveHint" | "idempotentHint" | "openWorldHint" => value.is_boolean(),
        _ => false,
    };
    let hints = said.iter().filter(|(name, value)| known(name, value));
    Some(Value::Object(hints.map(|(name, value)| (name.clone(), value.clone())).collect()))
}

impl Catalogue {
    /// Notes a definition; returns the digest that stood there before. Bounded: past the bound new names are forgotten.
    fn see(&self, kind: CatalogKind, name: &str, digest: &str, item: &Value) -> Option<String> {
        let mut seen = self.0.lock();
        let key = (kind, name.to_owned());
        if !seen.contains_key(&key) && seen.len() >= DEFINITIONS_MAX * 4 {
            return None;
        }
        let annotations = item
            .get("inputSchema")
            .and_then(|schema| cairn_mcp::headers::annotations(schema).ok())
            .unwrap_or_default()
            .into();
        let hints = if kind == CatalogKind::Tool { hints(item) } else { None };
        seen.insert(key, Seen { digest: digest.to_owned(), annotations, hints }).map(|seen| seen.digest)
    }

    /// The digest of a tool's newest definition.
    pub(crate) fn tool_digest(&self, name: &str) -> Option<String> {
        self.0.lock().get(&(CatalogKind::Tool, name.to_owned())).map(|seen| seen.digest.clone())
    }

    /// What the server says of a tool: untrusted.
    pub(crate) fn hints(&self, name: &str) -> Option<Value> {
        self.0.lock().get(&(CatalogKind::Tool, name.to_owned())).and_then(|seen| seen.hints.clone())
    }

    /// The `x-mcp-header` annotations of a tool.
    pub(crate) fn annotations(&self, name: &str) -> Arc<[cairn_mcp::headers::ParamAnnotation]> {
        let seen = self.0.lock();
        seen.get(&(CatalogKind::Tool, name.to_owned())).map(|seen| seen.annotations.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::hints;

    #[test]
    fn hints_have_the_names_and_types_that_policies_may_rely_on() {
        let said = json!({ "annotations": {
            "title": "Refund", "readOnlyHint": true, "destructiveHint": "no", "openWorldHint": null, "acme": true,
        } });
        assert_eq!(hints(&said), Some(json!({ "title": "Refund", "readOnlyHint": true })));
        assert_eq!(hints(&json!({ "annotations": { "title": "x".repeat(10_000) } })), Some(json!({})));
        assert_eq!(hints(&json!({ "annotations": 7 })), None);
        assert_eq!(hints(&json!({})), None);
    }
}
