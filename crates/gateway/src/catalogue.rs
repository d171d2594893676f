//! What servers list: an event for each definition that is new or changed, what is suspicious in it, and which definition the
//! client gets to see.
//!
//! Called when a list has passed (`observe.rs`) and when policy is asked about a call. Where definitions are pinned the
//! client sees the approved one, and a tool whose definition is not approved cannot be called. Must never hide that the
//! server said something else: the events hold what the server said.

use std::sync::Arc;

use bytes::Bytes;
use cairn_catalogue::{Alert, Place, Seen, Standing};
use cairn_contract::{
    AlertRaised, Body, CatalogApproved, CatalogChanged, CatalogDefined, CatalogKind, Common, ContextListed, Draft,
    EventType, ListKind, ListedItem,
};
use cairn_mcp::{Limits as WireLimits, Message};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use crate::{Gateway, call::Call, inline::FieldClasses, masking::Part};

/// Definitions of one list that become events; a longer list is cut, and says so in the log.
const DEFINITIONS_MAX: usize = 4_096;

/// Most that the schemas of one server's tools may take, in bytes of JSON.
const SCHEMAS_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Longest title of a tool that policies see.
const HINT_BYTES_MAX: usize = 256;

/// Where a list holds its definitions, and what names each.
struct List {
    kind: ListKind,
    of: CatalogKind,
    member: &'static str,
    name: &'static str,
}

fn list_of(method: &str) -> Option<List> {
    let list = |kind, of, member, name| Some(List { kind, of, member, name });
    match method {
        "tools/list" => list(ListKind::Tools, CatalogKind::Tool, "tools", "name"),
        "prompts/list" => list(ListKind::Prompts, CatalogKind::Prompt, "prompts", "name"),
        "resources/list" => list(ListKind::Resources, CatalogKind::Resource, "resources", "uri"),
        "resources/templates/list" => {
            list(ListKind::ResourceTemplates, CatalogKind::ResourceTemplate, "resourceTemplates", "uriTemplate")
        }
        _ => None,
    }
}

/// The definitions that a client sees in place of those that the server gave.
pub(crate) struct Shown {
    member: &'static str,
    items: Vec<String>,
}

/// The list as the client gets it.
pub(crate) fn shown_instead(message: &Message, shown: &Shown, limits: &WireLimits) -> Message {
    let items = format!("[{}]", shown.items.join(","));
    message.edit().set_result_member(shown.member, items).finish(limits).unwrap_or_else(|error| {
        // It cannot be longer than the bound by much; an empty list shows nothing that is not approved.
        tracing::warn!(%error, "the approved definitions do not fit: the list is shown empty");
        message.edit().set_result_member(shown.member, "[]").finish(limits).expect("a shorter list fits")
    })
}

/// What an operator sees of a definition.
#[derive(Clone, Debug)]
pub struct DefinitionView {
    /// The server.
    pub server: String,
    /// What kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its digest.
    pub digest: String,
    /// How it stands.
    pub standing: &'static str,
    /// What is suspicious in it.
    pub alerts: Vec<String>,
}

/// What an operator approves.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// The server.
    pub server: String,
    /// What kind.
    pub kind: CatalogKind,
    /// Its name.
    pub name: String,
    /// The digest that was looked at; absent approves what is offered now.
    pub digest: Option<String>,
    /// Who approves.
    pub approver: Option<String>,
}

/// Why a definition was not approved.
#[derive(Debug, thiserror::Error)]
pub enum ApproveError {
    /// It is not there, or another one by now, or cannot be kept.
    #[error(transparent)]
    Book(#[from] cairn_catalogue::BookError),
    /// It is approved, and the event is not recorded.
    #[error("it is approved, but that is not recorded: {0}")]
    NotRecorded(#[from] cairn_backbone::RecordError),
}

impl Gateway {
    /// A list passed: its digests, and an event for each definition that is new or changed. Gives what the client sees
    /// instead, where that differs.
    pub(crate) fn listed(&self, call: &mut Call, result: &Bytes) -> Option<Shown> {
        let List { kind: list_kind, of: kind, member, name: name_key } = list_of(&call.method)?;
        let items: Vec<&RawValue> = serde_json::from_slice::<std::collections::HashMap<&str, &RawValue>>(result)
            .ok()?
            .get(member)
            .and_then(|items| serde_json::from_str(items.get()).ok())?;
        if items.len() > DEFINITIONS_MAX {
            tracing::warn!(server = %call.session.server.name, member, "a list is longer than {DEFINITIONS_MAX}: the rest is not in the catalogue");
        }
        let server = call.session.server.clone();
        let count = items.len() as u64;
        let parsed: Vec<Value> = items.iter().map(|raw| serde_json::from_str(raw.get()).unwrap_or_default()).collect();
        // What has no name, or no place in the catalogue, cannot be approved.
        let named = parsed.iter().map(|item| item.get(name_key).and_then(Value::as_str)).take(DEFINITIONS_MAX);
        let listed: Vec<Option<(Place, String, &Value)>> = named
            .zip(&parsed)
            .map(|(name, item)| {
                let digest = cairn_contract::sha256_text(cairn_contract::canonical_value(item).as_bytes());
                let (server, kind) = (server.name.clone(), kind.name().to_owned());
                Some((Place { server, kind, name: name?.to_owned() }, digest, item))
            })
            .collect();
        let known: Vec<_> = listed.iter().flatten().cloned().collect();
        let mut digests = Vec::with_capacity(known.len());
        for (place, digest, item) in &known {
            digests.push(ListedItem { name: self.screen_listed(kind, &place.name), digest: digest.clone() });
            server.catalogue.see(kind, &place.name, digest, item);
        }
        match self.book().see(&known, &self.clock().now().to_string()) {
            Ok(seen) => known.iter().zip(seen).for_each(|(listed, seen)| self.defined(call, kind, listed, seen)),
            Err(error) => tracing::error!(%error, "definitions could not be approved at first sight"),
        }
        let observes = self.book().mode() == cairn_catalogue::Mode::Observe;
        let (mut shown, mut differs) = (Vec::new(), false);
        for (raw, listed) in items.iter().zip(listed.iter().map(Option::as_ref).chain(std::iter::repeat(None))) {
            let pinned = listed.and_then(|(place, digest, _)| self.book().pinned(place, digest));
            let is_hidden = listed.map_or(!observes, |(place, ..)| self.book().hides(place));
            differs |= pinned.is_some() || is_hidden;
            match pinned {
                Some(pinned) => shown.push(pinned.to_string()),
                None if is_hidden => {}
                None => shown.push(raw.get().to_owned()),
            }
        }
        let more = message_has_more(result).then_some(true);
        let content = self.kept(call, EventType::ContextListed, Part::Result, result);
        let body = ContextListed { list_kind, digests, count, more, content };
        let draft = call.draft(self, Body::ContextListed(body));
        self.recorder().relaxed(draft);
        differs.then_some(Shown { member, items: shown })
    }

    /// A definition was seen: an event where it is new, or not what it was.
    fn defined(&self, call: &mut Call, kind: CatalogKind, listed: &(Place, String, &Value), seen: Seen) {
        let (place, digest, item) = (&listed.0, listed.1.clone(), listed.2);
        if seen.previous.as_ref() == Some(&digest) {
            return;
        }
        let alerts: Vec<String> = seen.alerts.iter().map(|alert| alert.name.name().to_owned()).collect();
        let name = self.screen_listed(kind, &place.name);
        let about = format!("{}/{}/{name}", place.server, place.kind);
        for alert in &seen.alerts {
            self.metrics().alerted(alert.name.name());
            let found = self.screen(&alert.found);
            tracing::warn!(server = %place.server, kind = %place.kind, %name, alert = alert.name.name(), %found, "a definition wants looking at");
            let body = AlertRaised { alert: alert.name.name().to_owned(), about: about.clone(), found: Some(found) };
            let mut draft = call.draft(self, Body::AlertRaised(body));
            draft.draft.key.clone_from(&about);
            self.recorder().relaxed(draft);
        }
        let annotations = item.get("annotations").map(|found| self.screen_value(found));
        let standing = Some(seen.standing.name().to_owned());
        let body = match seen.previous {
            Some(previous_digest) => Body::CatalogChanged(CatalogChanged {
                kind,
                name,
                digest,
                previous_digest,
                definition: Some(self.screen_value(item)),
                annotations,
                alerts,
                standing,
            }),
            None => Body::CatalogDefined(CatalogDefined {
                kind,
                name,
                digest,
                definition: self.screen_value(item),
                annotations,
                alerts,
                standing,
            }),
        };
        let mut draft = call.draft(self, body);
        draft.draft.key = about;
        self.recorder().relaxed(draft);
    }

    /// How the definition stands that a call relies on; nothing where it relies on none.
    pub(crate) fn relies_on(&self, call: &Call) -> Option<(Standing, Vec<Alert>)> {
        let kind = match call.method.as_str() {
            "tools/call" => CatalogKind::Tool,
            "prompts/get" => CatalogKind::Prompt,
            _ => return None,
        };
        let name = call.target.name()?.to_owned();
        Some(self.book().standing(&Place {
            server: call.session.server.name.clone(),
            kind: kind.name().to_owned(),
            name,
        }))
    }

    /// What policy sees as `context.catalogue`.
    pub(crate) fn catalogue_context(standing: &(Standing, Vec<Alert>)) -> Value {
        let alerts: std::collections::BTreeSet<_> = standing.1.iter().map(|alert| alert.name.name()).collect();
        json!({ "standing": standing.0.name(), "alerts": alerts })
    }

    /// Everything that servers have listed since the start.
    #[must_use]
    pub fn definitions(&self) -> Vec<DefinitionView> {
        let view = |(place, digest, standing, alerts): (Place, String, Standing, Vec<Alert>)| DefinitionView {
            server: place.server,
            kind: place.kind,
            name: place.name,
            digest,
            standing: standing.name(),
            alerts: alerts.iter().map(ToString::to_string).collect(),
        };
        self.book().all().into_iter().map(view).collect()
    }

    /// Approves what a server offers now; returns the digest once that is recorded.
    ///
    /// # Errors
    /// [`ApproveError`]
    pub async fn approve_definition(&self, approval: Approval) -> Result<String, ApproveError> {
        let Approval { server, kind, name, digest, approver } = approval;
        let approver = approver.unwrap_or_else(|| "operator".to_owned());
        let place = Place { server: server.clone(), kind: kind.name().to_owned(), name: name.clone() };
        let now = self.clock().now().to_string();
        let digest = self.book().approve(&place, digest.as_deref(), &approver, &now)?;
        let name = self.screen_listed(kind, &name);
        let key = format!("{server}/{}/{name}", kind.name());
        let body = CatalogApproved { kind, name, digest: digest.clone(), approver: self.screen(&approver) };
        let common = Common { server: Some(server.clone()), ..Common::default() };
        let draft =
            Draft { key, subject: Some(server), traceparent: None, tracestate: None, common, body: body.into() };
        let planned = self.recorder().plan(draft);
        self.recorder().strict(planned).await?;
        Ok(digest)
    }
}

fn message_has_more(result: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Map<String, Value>>(result).is_ok_and(|map| map.contains_key("nextCursor"))
}

/// Definitions of one server, by kind and name: the newest digest and what stands in headers.
#[derive(Debug, Default)]
pub(crate) struct Catalogue(parking_lot::Mutex<AllKnown>);

#[derive(Debug, Default)]
struct AllKnown {
    known: std::collections::HashMap<(CatalogKind, String), Known>,
    /// What all schemas that are kept take.
    schema_bytes: usize,
}

#[derive(Debug)]
struct Known {
    digest: String,
    annotations: Arc<[cairn_mcp::headers::ParamAnnotation]>,
    /// What the server says of a tool, as policies may look at it.
    hints: Option<Value>,
    output: OutputSchema,
    /// What the server says of a tool's fields; nothing where there was no room for it.
    classes: Option<Arc<FieldClasses>>,
    schema_bytes: usize,
}

/// What a tool declares of its structured content.
#[derive(Clone, Debug)]
pub(crate) enum OutputSchema {
    /// Nothing.
    None,
    /// This JSON Schema.
    Is(Arc<Value>),
    /// Nobody has listed the tool, or its schema is too large to keep.
    Unknown,
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
    /// Notes a definition. Bounded: past the bound new names are forgotten.
    fn see(&self, kind: CatalogKind, name: &str, digest: &str, item: &Value) {
        let mut seen = self.0.lock();
        let key = (kind, name.to_owned());
        if !seen.known.contains_key(&key) && seen.known.len() >= DEFINITIONS_MAX * 4 {
            return;
        }
        if let Some(before) = seen.known.remove(&key) {
            seen.schema_bytes -= before.schema_bytes;
        }
        let schema = item.get("outputSchema").filter(|_| kind == CatalogKind::Tool);
        let classes = (kind == CatalogKind::Tool).then(|| FieldClasses::of(item));
        let classes_bytes = classes.as_ref().map_or(0, FieldClasses::bytes);
        let schema_bytes = schema.map_or(0, |schema| schema.to_string().len()) + classes_bytes;
        let has_room = seen.schema_bytes + schema_bytes <= SCHEMAS_BYTES_MAX;
        let schema_bytes = if has_room { schema_bytes } else { 0 };
        let output = match schema {
            None => OutputSchema::None,
            Some(schema) if has_room => OutputSchema::Is(Arc::new(schema.clone())),
            Some(_) => OutputSchema::Unknown,
        };
        seen.schema_bytes += schema_bytes;
        let classes = classes.filter(|_| has_room).map(Arc::new);
        let annotations = item
            .get("inputSchema")
            .and_then(|schema| cairn_mcp::headers::annotations(schema).ok())
            .unwrap_or_default()
            .into();
        let hints = if kind == CatalogKind::Tool { hints(item) } else { None };
        seen.known.insert(key, Known { digest: digest.to_owned(), annotations, hints, output, classes, schema_bytes });
    }

    /// What a tool declares of its structured content.
    pub(crate) fn output_schema(&self, name: &str) -> OutputSchema {
        let seen = self.0.lock();
        seen.known
            .get(&(CatalogKind::Tool, name.to_owned()))
            .map_or(OutputSchema::Unknown, |known| known.output.clone())
    }

    /// What the server says of the tool's fields; nothing where that is not known.
    pub(crate) fn classes(&self, name: &str) -> Option<Arc<FieldClasses>> {
        self.0.lock().known.get(&(CatalogKind::Tool, name.to_owned()))?.classes.clone()
    }

    /// The digest of a tool's newest definition.
    pub(crate) fn tool_digest(&self, name: &str) -> Option<String> {
        self.0.lock().known.get(&(CatalogKind::Tool, name.to_owned())).map(|known| known.digest.clone())
    }

    /// What the server says of a tool: untrusted.
    pub(crate) fn hints(&self, name: &str) -> Option<Value> {
        self.0.lock().known.get(&(CatalogKind::Tool, name.to_owned())).and_then(|known| known.hints.clone())
    }

    /// The `x-mcp-header` annotations of a tool.
    pub(crate) fn annotations(&self, name: &str) -> Arc<[cairn_mcp::headers::ParamAnnotation]> {
        let seen = self.0.lock();
        seen.known.get(&(CatalogKind::Tool, name.to_owned())).map(|known| known.annotations.clone()).unwrap_or_default()
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
