//! A question to policy, and the Cedar request that it becomes.
//!
//! | part | Cedar |
//! | --- | --- |
//! | principal | `User::"<principal>"`, or `Agent`, `Workload` where `context.identity.kind` says so |
//! | action | `Action::"<method>"` |
//! | resource | `Tool::"<server>/<tool>"`, `Prompt::"<server>/<prompt>"`, `Resource::"<server>/<uri>"`, each with `name` and `server`, in `Server::"<server>"`; the server itself where the call names none of them |
//! | context | `direction`, `method`, `server`, `arguments` where there are any, `unmapped` where something is, and what the gateway adds |
//!
//! The same mapped JSON makes the Cedar request and `inputs`, so that what is recorded is what was decided on.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use cairn_clock::Timestamp;
use cairn_contract::{Direction, Target, canonical_value, write_canonical};
use cedar_policy::{Context, Entities, EntityTypeName, EntityUid, PolicySet, Request};
use serde_json::{Map, Value, json};

use crate::arguments::{map, to_cedar};
use crate::names::{ACTION, AGENT, PROMPT, RESOURCE, SERVER, TOOL, USER, WORKLOAD, datetime, uid};
use crate::nearest::Near;
use crate::subjects::Subjects;

/// What the gateway asks.
#[derive(Clone, PartialEq, Debug)]
pub struct Question {
    /// Who calls, as Cairn verified it.
    pub principal: String,
    /// The JSON-RPC method.
    pub action: String,
    /// Who asks whom.
    pub direction: Direction,
    /// The server's name in the configuration.
    pub server: String,
    /// What the call is about.
    pub target: Target,
    /// The call's arguments, whatever JSON they are.
    pub arguments: Option<Value>,
    /// What else policies may look at. `direction`, `method`, `server`, `arguments` and `unmapped` are this crate's own;
    /// `now` is too, unless it is given as a time in RFC 3339 to the millisecond.
    pub context: Map<String, Value>,
}

/// A question as Cedar takes it.
pub(crate) struct Asked {
    pub(crate) request: Request,
    pub(crate) known: Arc<Known>,
    pub(crate) inputs: Bytes,
    /// Whether policies cannot see something of the arguments that is not null.
    pub(crate) hides: bool,
}

/// Who asks for what at which server, as Cedar takes it: the part of a question that comes again and again.
#[derive(Debug)]
pub(crate) struct Known {
    /// What a decision can come to, and no more.
    pub(crate) entities: Entities,
    /// The policies whose scope holds.
    pub(crate) slice: Arc<PolicySet>,
    /// The permits whose scopes come nearest, looked for when a call is first denied by default.
    pub(crate) near: OnceLock<Vec<Near>>,
    principal: EntityUid,
    action: EntityUid,
    resource: EntityUid,
    /// `{"action":{…},"context":`, the beginning of the canonical inputs.
    begin: String,
    /// `,"entities":[…],"principal":{…},"resource":{…}}`, their end.
    end: String,
}

/// The entities that a question is about.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) principal: EntityUid,
    pub(crate) action: EntityUid,
    pub(crate) resource: EntityUid,
    pub(crate) server: EntityUid,
}

impl Named {
    /// Principal, server, resource: the server only once, where it is the resource.
    pub(crate) fn roots(&self) -> Vec<EntityUid> {
        let mut roots = vec![self.principal.clone(), self.server.clone()];
        if self.resource != self.server {
            roots.push(self.resource.clone());
        }
        roots
    }
}

impl Known {
    pub(crate) const fn principal(&self) -> &EntityUid {
        &self.principal
    }

    pub(crate) const fn action(&self) -> &EntityUid {
        &self.action
    }

    pub(crate) const fn resource(&self) -> &EntityUid {
        &self.resource
    }

    /// Of the entities as Cedar's JSON has them, the first ones being those that the question names.
    pub(crate) fn new(named: Named, entities: &[Value], slice: Arc<PolicySet>) -> Self {
        let reference = |uid: &EntityUid| json!({ "type": uid.type_name().to_string(), "id": uid.id().unescaped() });
        let begin = format!("{{\"action\":{},\"context\":", canonical_value(&reference(&named.action)));
        // In the order that canonical JSON wants: all of this sorts behind the context.
        let end = canonical_value(&json!({
            "entities": entities, "principal": reference(&named.principal), "resource": reference(&named.resource),
        }));
        let end = format!(",{}", &end[1..]);
        let entities = Entities::from_json_value(Value::Array(entities.to_vec()), None)
            .expect("entities that were read once are read again");
        let Named { principal, action, resource, .. } = named;
        Self { entities, slice, near: OnceLock::new(), principal, action, resource, begin, end }
    }
}

impl Known {
    /// The request with a context as `inputs` hold it; nothing where that is none.
    pub(crate) fn request(&self, context: Map<String, Value>) -> Option<Request> {
        let pairs = context.into_iter().map(|(name, value)| match value["__extn"]["arg"].as_str() {
            Some(time) if name == "now" => (name, datetime(time)),
            _ => (name, to_cedar(value)),
        });
        let context = Context::from_pairs(pairs).ok()?;
        let (principal, action, resource) = (self.principal.clone(), self.action.clone(), self.resource.clone());
        // Without a schema there is nothing that a request could disagree with.
        Request::new(principal, action, resource, context, None).ok()
    }
}

impl Question {
    /// The Cedar request, its entities and the record of both; `make` makes what is not kept.
    pub(crate) fn ask(&self, subjects: &Subjects, now: Timestamp, make: impl FnOnce(Named) -> Known) -> Asked {
        let known = subjects.of(&self.subject(), || make(self.uids()));
        let (context, hides) = self.cedar_context(now);
        let context = Value::Object(context);
        let mut inputs = String::with_capacity(known.begin.len() + known.end.len() + 256);
        inputs.push_str(&known.begin);
        write_canonical(&mut inputs, &context);
        inputs.push_str(&known.end);
        let Value::Object(context) = context else { unreachable!("it was made an object above") };
        let request = known.request(context).expect("literal values, each name once, always make a context");
        Asked { request, known, inputs: Bytes::from(inputs), hides }
    }

    /// What the kept part depends on, and nothing else. Lengths stand before names, so that no two are alike.
    fn subject(&self) -> String {
        let kind = match &self.target {
            Target::Tool { .. } => 't',
            Target::Prompt { .. } => 'p',
            Target::Resource { .. } => 'r',
            Target::None => '-',
        };
        let target = self.target.name().unwrap_or_default();
        let mut key = String::with_capacity(self.principal.len() + self.server.len() + self.action.len() + 40);
        key.push(kind);
        key.push_str(&self.kind().to_string()[..1]);
        for name in [&self.principal, &self.server, &self.action] {
            key.push_str(&name.len().to_string());
            key.push(':');
            key.push_str(name);
        }
        key.push_str(target);
        key
    }

    /// What the principal is, as far as its identity was verified.
    fn kind(&self) -> &'static EntityTypeName {
        match self.context.get("identity").and_then(|identity| identity.get("kind")?.as_str()) {
            Some("agent") => &AGENT,
            Some("workload") => &WORKLOAD,
            _ => &USER,
        }
    }

    fn uids(&self) -> Named {
        let (kind, id) = self.resource();
        Named {
            principal: uid(self.kind(), &self.principal),
            action: uid(&ACTION, &self.action),
            resource: uid(kind, &id),
            server: uid(&SERVER, &self.server),
        }
    }

    fn resource(&self) -> (&'static EntityTypeName, String) {
        let within = |name: &str| format!("{}/{name}", self.server);
        match &self.target {
            Target::Tool { gen_ai_tool_name: name } => (&TOOL, within(name)),
            Target::Prompt { prompt_name: name } => (&PROMPT, within(name)),
            Target::Resource { mcp_resource_uri: uri } => (&RESOURCE, within(uri)),
            Target::None => (&SERVER, self.server.clone()),
        }
    }

    fn cedar_context(&self, now: Timestamp) -> (Map<String, Value>, bool) {
        let mut context = Map::new();
        let mut unmapped = Vec::new();
        let mut hides = false;
        let mut show = |name: &str, value: &Value, at: &str, context: &mut Map<String, Value>| {
            let mapped = map(value, at);
            hides |= mapped.hides;
            unmapped.extend(mapped.unmapped);
            if let Some(value) = mapped.value {
                context.insert(name.to_owned(), value);
            }
        };
        for (name, value) in &self.context {
            show(name, value, &format!("context:/{name}"), &mut context);
        }
        // Cairn's own names come last, so that nothing that a caller adds can stand in their place.
        for own in ["arguments", "unmapped"] {
            context.remove(own);
        }
        let given = context.remove("now").and_then(|now| now.as_str().map(ToOwned::to_owned));
        let now = given.filter(|given| is_time(given)).unwrap_or_else(|| to_millis(now));
        context.insert("now".to_owned(), json!({ "__extn": { "fn": "datetime", "arg": now } }));
        if let Some(arguments) = &self.arguments {
            show("arguments", arguments, "", &mut context);
        }
        if !unmapped.is_empty() {
            context.insert("unmapped".to_owned(), Value::from(unmapped));
        }
        context.insert("direction".to_owned(), Value::from(self.direction.name()));
        context.insert("method".to_owned(), Value::from(self.action.as_str()));
        context.insert("server".to_owned(), Value::from(self.server.as_str()));
        (context, hides)
    }
}

/// Whether Cedar reads it as a time.
pub(crate) fn is_time(text: &str) -> bool {
    Context::from_pairs([("now".to_owned(), datetime(text))]).is_ok()
}

/// As Cedar reads a time: to the millisecond, in UTC.
fn to_millis(time: Timestamp) -> String {
    let text = time.to_string();
    match text.split_once('.') {
        Some((seconds, fraction)) if fraction.len() > 3 => format!("{seconds}.{}Z", &fraction[..3]),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use cairn_clock::Timestamp;
    use cairn_contract::{Direction, Target, canonical_value};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::Question;
    use crate::{set::ActiveSet, subjects::SUBJECTS_MAX};

    const NOW: Timestamp = Timestamp::from_micros(1_795_521_600_123_456);

    fn question(principal: &str, server: &str, target: Target, arguments: Value) -> Question {
        Question {
            principal: principal.to_owned(),
            action: "tools/call".to_owned(),
            direction: Direction::ToServer,
            server: server.to_owned(),
            target,
            arguments: Some(arguments),
            context: serde_json::Map::new(),
        }
    }

    fn target() -> impl Strategy<Value = Target> {
        let name = "[a-c:/\"0-9é]{0,4}";
        prop_oneof![
            name.prop_map(Target::tool),
            name.prop_map(Target::resource),
            name.prop_map(|prompt_name| Target::Prompt { prompt_name }),
            Just(Target::None),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// What is kept of others never gets into a question, and the inputs are canonical as a whole.
        #[test]
        fn what_is_kept_changes_nothing(
            asked in proptest::collection::vec(("[a-c:1]{0,3}", "[a-c:1]{0,3}", target(), "[a-z\"é]{0,5}"), 1..24),
        ) {
            let shared = ActiveSet::observe();
            for (principal, server, target, text) in asked {
                let question = question(&principal, &server, target, json!({ "z": text, "a": [text] }));
                let (kept, alone) = (shared.ask(&question, NOW), ActiveSet::observe().ask(&question, NOW));
                prop_assert_eq!(&kept.inputs, &alone.inputs);
                prop_assert_eq!(&kept.known.entities, &alone.known.entities);
                prop_assert_eq!(kept.request.principal(), alone.request.principal());
                prop_assert_eq!(kept.request.resource(), alone.request.resource());
                let whole: Value = serde_json::from_slice(&kept.inputs).expect("JSON");
                let canonical = canonical_value(&whole);
                prop_assert_eq!(canonical.as_bytes(), &kept.inputs[..]);
                prop_assert_eq!(&whole["principal"]["id"], &Value::from(principal.as_str()));
            }
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let set = ActiveSet::observe();
        for i in 0..SUBJECTS_MAX + 2 {
            set.ask(&question("p", "s", Target::tool(i.to_string()), json!({})), NOW);
            if i % 64 == 0 {
                set.ask(&question("p", "s", Target::tool("x".repeat(1_000) + &i.to_string()), json!({})), NOW);
            }
        }
        let kept = set.subjects().keys();
        assert!(kept.len() <= SUBJECTS_MAX && kept.iter().all(|key| key.len() < 1_000), "{}", kept.len());
    }
}
