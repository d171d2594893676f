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
use std::sync::LazyLock;

use bytes::Bytes;
use cairn_contract::{Direction, Target, canonical_value};
use cedar_policy::{Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, Request, RestrictedExpression};
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
    pub(crate) entities: Entities,
    pub(crate) inputs: Bytes,
    /// Whether policies cannot see something of the arguments that is not null.
    pub(crate) hides: bool,
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

impl Question {
    /// The Cedar request, its entities and the record of both.
    pub(crate) fn ask(&self) -> Asked {
        let (kind, resource_id) = self.resource();
        let (context, hides) = self.cedar_context();
        let server = json!({"type": "Server", "id": self.server});
        let principal = json!({"type": "User", "id": self.principal});
        let action = json!({"type": "Action", "id": self.action});
        let resource = json!({"type": kind.to_string(), "id": resource_id});
        let mut entities = vec![
            json!({"uid": principal, "attrs": {"name": self.principal}, "parents": []}),
            json!({"uid": server, "attrs": {"name": self.server}, "parents": []}),
        ];
        if let Some(name) = self.target.name() {
            entities
                .push(json!({"uid": resource, "attrs": {"name": name, "server": self.server}, "parents": [server]}));
        }
        let inputs = canonical_value(&json!({
            "principal": principal,
            "action": action,
            "resource": resource,
            "context": context,
            "entities": entities,
        }));
        let pairs = context.into_iter().map(|(name, value)| (name, to_cedar(value)));
        let context = Context::from_pairs(pairs).expect("literal values, each name once, always make a context");
        let uid = |kind: &EntityTypeName, id: &str| EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id));
        let request = Request::new(
            uid(&USER, &self.principal),
            uid(&ACTION, &self.action),
            uid(kind, &resource_id),
            context,
            None,
        )
        .expect("a request without a schema has nothing to disagree with");
        Asked { request, entities: self.entities(kind, &resource_id), inputs: Bytes::from(inputs), hides }
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
        let uid = |kind: &EntityTypeName, id: &str| EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id));
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
