//! A question to policy, and the Cedar request that it becomes.
//!
//! | part | Cedar |
//! | --- | --- |
//! | principal | `User::"<principal>"` |
//! | action | `Action::"<method>"` |
//! | resource | `Tool::"<server>/<tool>"`, `Prompt::"<server>/<prompt>"`, `Resource::"<server>/<uri>"`, each with `name` and `server`, in `Server::"<server>"`; the server itself where the call names none of them |
//! | context | `direction`, `method`, `server`, `arguments` where there are any, `unmapped` where something is, and what the gateway adds |
//!
//! The same mapped JSON makes the Cedar request and `inputs`, so that what is recorded is what was decided on.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use cairn_contract::{Direction, Target, canonical_value, write_canonical};
use cedar_policy::{Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, Request, RestrictedExpression};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use crate::arguments::{map, to_cedar};

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
    /// What else policies may look at. `direction`, `method`, `server`, `arguments` and `unmapped` are this crate's own.
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
    pub(crate) entities: Entities,
    principal: EntityUid,
    resource: EntityUid,
    /// `"entities":[…],"principal":{…},"resource":{…}`, the end of the canonical inputs.
    inputs: String,
}

/// The subjects that were asked about of late, each made once.
#[derive(Debug, Default)]
pub(crate) struct Subjects(Mutex<HashMap<String, Arc<Known>>>);

/// So many subjects are kept; where more come, all are forgotten and made again.
const SUBJECTS_MAX: usize = 1_024;
/// A subject with longer names than this is made each time, so that what is kept is bounded in bytes.
const SUBJECT_BYTES_MAX: usize = 512;

impl Subjects {
    fn of(&self, question: &Question) -> Arc<Known> {
        let key = question.subject();
        if key.len() > SUBJECT_BYTES_MAX {
            return Arc::new(question.known());
        }
        if let Some(known) = self.0.lock().get(&key) {
            return Arc::clone(known);
        }
        let known = Arc::new(question.known());
        let mut kept = self.0.lock();
        if kept.len() >= SUBJECTS_MAX {
            kept.clear();
        }
        kept.insert(key, Arc::clone(&known));
        known
    }
}

static USER: LazyLock<EntityTypeName> = LazyLock::new(|| type_name("User"));
static ACTION: LazyLock<EntityTypeName> = LazyLock::new(|| type_name("Action"));
static SERVER: LazyLock<EntityTypeName> = LazyLock::new(|| type_name("Server"));
static TOOL: LazyLock<EntityTypeName> = LazyLock::new(|| type_name("Tool"));
static PROMPT: LazyLock<EntityTypeName> = LazyLock::new(|| type_name("Prompt"));
static RESOURCE: LazyLock<EntityTypeName> = LazyLock::new(|| type_name("Resource"));

fn type_name(name: &str) -> EntityTypeName {
    name.parse().expect("a plain identifier is the name of an entity type")
}

fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}

impl Question {
    /// The Cedar request, its entities and the record of both.
    pub(crate) fn ask(&self, subjects: &Subjects) -> Asked {
        let known = subjects.of(self);
        let (context, hides) = self.cedar_context();
        let action = canonical_value(&json!({"type": "Action", "id": self.action}));
        let context = Value::Object(context);
        // In the order that canonical JSON wants: what `known` holds sorts behind these two.
        let mut inputs = format!("{{\"action\":{action},\"context\":");
        write_canonical(&mut inputs, &context);
        inputs.push(',');
        inputs.push_str(&known.inputs);
        inputs.push('}');
        let Value::Object(context) = context else { unreachable!("it was made an object above") };
        let pairs = context.into_iter().map(|(name, value)| (name, to_cedar(value)));
        let context = Context::from_pairs(pairs).expect("literal values, each name once, always make a context");
        let action = uid(&ACTION, &self.action);
        let request = Request::new(known.principal.clone(), action, known.resource.clone(), context, None)
            .expect("a request without a schema has nothing to disagree with");
        Asked { request, known, inputs: Bytes::from(inputs), hides }
    }

    /// What [`Question::known`] depends on, and nothing else. Lengths stand before names, so that no two are alike.
    fn subject(&self) -> String {
        let kind = match &self.target {
            Target::Tool { .. } => 't',
            Target::Prompt { .. } => 'p',
            Target::Resource { .. } => 'r',
            Target::None => '-',
        };
        let target = self.target.name().unwrap_or_default();
        format!("{kind}{}:{}{}:{}{target}", self.principal.len(), self.principal, self.server.len(), self.server)
    }

    fn known(&self) -> Known {
        let (kind, resource_id) = self.resource();
        let server = json!({"type": "Server", "id": self.server});
        let principal = json!({"type": "User", "id": self.principal});
        let resource = json!({"type": kind.to_string(), "id": resource_id});
        let mut entities = vec![
            json!({"uid": principal, "attrs": {"name": self.principal}, "parents": []}),
            json!({"uid": server, "attrs": {"name": self.server}, "parents": []}),
        ];
        if let Some(name) = self.target.name() {
            entities
                .push(json!({"uid": resource, "attrs": {"name": name, "server": self.server}, "parents": [server]}));
        }
        let inputs = canonical_value(&json!({ "principal": principal, "resource": resource, "entities": entities }));
        Known {
            entities: self.entities(kind, &resource_id),
            principal: uid(&USER, &self.principal),
            resource: uid(kind, &resource_id),
            inputs: inputs[1..inputs.len() - 1].to_owned(),
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

    fn cedar_context(&self) -> (Map<String, Value>, bool) {
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

    fn entities(&self, kind: &EntityTypeName, resource_id: &str) -> Entities {
        let text = |value: &str| RestrictedExpression::new_string(value.to_owned());
        let named = |uid, name: &str| {
            Entity::new(uid, HashMap::from([("name".to_owned(), text(name))]), HashSet::new())
                .expect("literal attributes always evaluate")
        };
        let mut entities =
            vec![named(uid(&USER, &self.principal), &self.principal), named(uid(&SERVER, &self.server), &self.server)];
        if let Some(name) = self.target.name() {
            let attributes =
                HashMap::from([("name".to_owned(), text(name)), ("server".to_owned(), text(&self.server))]);
            let parents = HashSet::from([uid(&SERVER, &self.server)]);
            let entity = Entity::new(uid(kind, resource_id), attributes, parents);
            entities.push(entity.expect("literal attributes always evaluate"));
        }
        Entities::from_entities(entities, None).expect("three entities of different types, one below another, agree")
    }
}

#[cfg(test)]
mod tests {
    use cairn_contract::{Direction, Target, canonical_value};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::{Question, SUBJECTS_MAX, Subjects};

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
        /// What is kept of others never gets into a question, and the inputs are canonical as a whole.
        #[test]
        fn what_is_kept_changes_nothing(
            asked in proptest::collection::vec(("[a-c:1]{0,3}", "[a-c:1]{0,3}", target(), "[a-z\"é]{0,5}"), 1..40),
        ) {
            let shared = Subjects::default();
            for (principal, server, target, text) in asked {
                let question = question(&principal, &server, target, json!({ "z": text, "a": [text] }));
                let (kept, alone) = (question.ask(&shared), question.ask(&Subjects::default()));
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
        let subjects = Subjects::default();
        for i in 0..SUBJECTS_MAX + 2 {
            question("p", "s", Target::tool(i.to_string()), json!({})).ask(&subjects);
            question("p", "s", Target::tool("x".repeat(1_000) + &i.to_string()), json!({})).ask(&subjects);
            assert!(subjects.0.lock().len() <= SUBJECTS_MAX);
        }
        assert!(subjects.0.lock().keys().all(|key| key.len() < 1_000));
    }
}
