//! The names of Cairn's entities, and what every entity of a type has whether a file describes it or not.
//!
//! `User::"<principal>"`, `Server::"<server>"`, `Tool::"<server>/<tool>"` and so on: each has `name`, and what belongs to
//! a server has `server` and is in it. The question and the file of entities both ask here, so that they cannot differ.

use std::sync::LazyLock;

use cedar_policy::{EntityId, EntityTypeName, EntityUid, RestrictedExpression};
use cedar_policy_core::ast::{Name, RestrictedExpr};
use serde_json::{Map, Value, json};

/// A person, and whoever is not known to be anything else.
pub(crate) static USER: LazyLock<EntityTypeName> = LazyLock::new(|| type_name("User"));
/// An agent that acts in its own name.
pub(crate) static AGENT: LazyLock<EntityTypeName> = LazyLock::new(|| type_name("Agent"));
/// A machine.
pub(crate) static WORKLOAD: LazyLock<EntityTypeName> = LazyLock::new(|| type_name("Workload"));
/// What is asked.
pub(crate) static ACTION: LazyLock<EntityTypeName> = LazyLock::new(|| type_name("Action"));
/// A server of the configuration.
pub(crate) static SERVER: LazyLock<EntityTypeName> = LazyLock::new(|| type_name("Server"));
/// A server's tool.
pub(crate) static TOOL: LazyLock<EntityTypeName> = LazyLock::new(|| type_name("Tool"));
/// A server's prompt.
pub(crate) static PROMPT: LazyLock<EntityTypeName> = LazyLock::new(|| type_name("Prompt"));
/// A server's resource.
pub(crate) static RESOURCE: LazyLock<EntityTypeName> = LazyLock::new(|| type_name("Resource"));

/// A URI template that policies name; a resource is in each that it fits.
pub(crate) static RESOURCE_TEMPLATE: LazyLock<EntityTypeName> = LazyLock::new(|| type_name("ResourceTemplate"));

/// The constructor of times. Cedar's own way to make one parses this name each time, which takes as long as all the rest of a
/// decision.
static DATETIME: LazyLock<Name> =
    LazyLock::new(|| Name::parse_unqualified_name("datetime").expect("a plain identifier is a name"));

/// A time, for Cedar to read.
pub(crate) fn datetime(text: &str) -> RestrictedExpression {
    RestrictedExpr::call_extension_fn(DATETIME.clone(), [RestrictedExpr::val(text)]).into()
}

/// The type of that name; those of Cairn's own without parsing it.
pub(crate) fn kind(name: &str) -> Option<EntityTypeName> {
    let own = match name {
        "User" => &USER,
        "Agent" => &AGENT,
        "Workload" => &WORKLOAD,
        "Action" => &ACTION,
        "Server" => &SERVER,
        "Tool" => &TOOL,
        "Prompt" => &PROMPT,
        "Resource" => &RESOURCE,
        _ => return name.parse().ok(),
    };
    Some(EntityTypeName::clone(own))
}

fn type_name(name: &str) -> EntityTypeName {
    name.parse().expect("a plain identifier is the name of an entity type")
}

/// The entity of that type and id.
pub(crate) fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}

/// The attributes and parents that Cairn gives an entity of that type and id.
pub(crate) fn own(kind: &str, id: &str) -> (Map<String, Value>, Vec<Value>) {
    let mut attributes = Map::new();
    let mut parents = Vec::new();
    let mut name = id;
    match kind {
        "Tool" | "Prompt" | "Resource" | "ResourceTemplate" => {
            // A server's name holds no slash; a resource's name may.
            let (server, within) = id.split_once('/').unwrap_or((id, ""));
            name = within;
            attributes.insert("server".to_owned(), json!(server));
            parents.push(json!({ "type": "Server", "id": server }));
        }
        "Server" => drop(attributes.insert("server".to_owned(), json!(id))),
        _ => {}
    }
    attributes.insert("name".to_owned(), json!(name));
    (attributes, parents)
}
