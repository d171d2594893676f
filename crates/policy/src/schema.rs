//! The schema that policies are held to: the published one, with what the folder adds to it.
//!
//! Added are the attributes that `entities.json` gives to entities, and the methods of `actions.json`. Must never be
//! looser than the published schema where that one says something.

use std::collections::BTreeMap;

use cedar_policy::{Schema, SchemaFragment};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The published schema, as `cairn policy schema` prints it.
pub const SCHEMA: &str = include_str!("../../../contracts/policy/cairn.cedarschema");
/// The file that names methods which MCP does not know.
pub(crate) const ACTIONS_FILE: &str = "actions.json";
/// Most methods that the file may name.
const ACTIONS_MAX: usize = 1_024;

const PRINCIPALS: [&str; 3] = ["User", "Agent", "Workload"];
const RESOURCES: [&str; 5] = ["Server", "Tool", "Prompt", "Resource", "ResourceTemplate"];
const OTHERS: [&str; 2] = ["Group", "Tenant"];

/// Methods that MCP does not know, as the file names them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Actions {
    /// What clients ask of servers.
    pub(crate) to_server: Vec<String>,
    /// What servers ask of clients.
    pub(crate) to_client: Vec<String>,
}

impl Actions {
    /// Reads the file.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, (usize, String)> {
        let actions: Self = serde_json::from_slice(bytes).map_err(|error| {
            (error.line(), format!("{error}; write {{\"to_server\": [\"acme/run\"], \"to_client\": []}}"))
        })?;
        if actions.to_server.len() + actions.to_client.len() > ACTIONS_MAX {
            return Err((0, format!("names more than {ACTIONS_MAX} methods")));
        }
        Ok(actions)
    }
}

/// The schema with what a folder adds, or what is wrong with the addition.
pub(crate) fn extended(actions: &Actions, entities: &[Value]) -> Result<Schema, String> {
    let (fragment, _) = SchemaFragment::from_cedarschema_str(SCHEMA).expect("the published schema is tested");
    let mut schema = fragment.to_json_value().expect("the published schema is tested");
    let attributes = attributes(entities)?;
    for (kinds, own) in [(&PRINCIPALS[..], 1), (&RESOURCES[..], 2), (&OTHERS[..], 0)] {
        let group: Map<String, Value> = kinds
            .iter()
            .filter_map(|kind| attributes.get(*kind))
            .flatten()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        for kind in kinds {
            let shape = &mut schema[""]["entityTypes"][*kind]["shape"];
            if shape.is_null() {
                *shape = json!({ "type": "Record", "attributes": {} });
            }
            let known = shape["attributes"].as_object_mut().expect("a shape is a record");
            debug_assert_eq!(known.len(), own, "{kind}");
            for (name, kind) in &group {
                let mut optional = kind.clone();
                optional["required"] = json!(false);
                known.entry(name.clone()).or_insert(optional);
            }
        }
    }
    let known = schema[""]["actions"].as_object_mut().expect("the published schema has actions");
    let template = known["roots/list"].clone();
    for (direction, names) in [("to_server", &actions.to_server), ("to_client", &actions.to_client)] {
        for name in names {
            let action = known.entry(name.clone()).or_insert_with(|| {
                let mut action = template.clone();
                action["memberOf"] = json!([]);
                action
            });
            let groups = action["memberOf"].as_array_mut();
            let group = json!({ "id": direction });
            match groups {
                Some(groups) if !groups.iter().any(|said| said["id"] == group["id"]) => groups.push(group),
                _ => {}
            }
        }
    }
    Schema::from_json_value(schema).map_err(|error| error.to_string())
}

type Kinds = BTreeMap<String, BTreeMap<String, Value>>;

/// The attributes of each entity type with the type of each, which must be one for all principals and one for all resources.
fn attributes(entities: &[Value]) -> Result<Kinds, String> {
    let mut kinds = Kinds::new();
    for entity in entities {
        let kind = entity["uid"]["type"].as_str().unwrap_or_default();
        let shown = || format!("{kind}::{}", entity["uid"]["id"]);
        let group = match kind {
            _ if PRINCIPALS.contains(&kind) => "User",
            _ if RESOURCES.contains(&kind) => "Tool",
            _ if OTHERS.contains(&kind) => kind,
            _ => {
                let known = [&PRINCIPALS[..], &RESOURCES, &OTHERS].concat();
                let near = crate::near::nearest(kind, known.iter().copied());
                return Err(format!("{}: there is no entity type {kind:?}{near}", shown()));
            }
        };
        for (name, value) in entity["attrs"].as_object().into_iter().flatten() {
            if name == "name" || name == "server" {
                continue;
            }
            let found = type_of(value).map_err(|what| format!("{}: the attribute {name:?} {what}", shown()))?;
            let Some(found) = found else { continue };
            let known = kinds.entry(group.to_owned()).or_default();
            let before = known.entry(name.clone()).or_insert_with(|| found.clone());
            if *before != found {
                return Err(format!(
                    "{}: the attribute {name:?} has another type than in an entity before ({found}, {before}); give it one",
                    shown()
                ));
            }
        }
    }
    Ok(kinds)
}

/// The type of an attribute's value; `None` where it says none (an empty set).
fn type_of(value: &Value) -> Result<Option<Value>, String> {
    Ok(Some(match value {
        Value::Bool(_) => json!({ "type": "Boolean" }),
        Value::Number(_) => json!({ "type": "Long" }),
        Value::String(_) => json!({ "type": "String" }),
        Value::Array(items) => {
            let mut element = None;
            for item in items {
                let Some(found) = type_of(item)? else { continue };
                if element.as_ref().is_some_and(|before| *before != found) {
                    return Err("is a set of values of different types: give them one".to_owned());
                }
                element = Some(found);
            }
            let Some(element) = element else { return Ok(None) };
            json!({ "type": "Set", "element": element })
        }
        Value::Object(members) => {
            if let Some(entity) = members.get("__entity") {
                return Ok(Some(json!({ "type": "Entity", "name": entity["type"] })));
            }
            if let Some(function) = members.get("__extn") {
                let kind = if function["fn"] == "ip" { json!("ipaddr") } else { function["fn"].clone() };
                return Ok(Some(json!({ "type": "Extension", "name": kind })));
            }
            let mut attributes = Map::new();
            for (name, member) in members {
                if let Some(found) = type_of(member)? {
                    attributes.insert(name.clone(), found);
                }
            }
            json!({ "type": "Record", "attributes": attributes })
        }
        Value::Null => return Err("is null: leave it out".to_owned()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_schema_is_one_and_knows_every_method() {
        let schema = extended(&Actions::default(), &[]).expect("it is one");
        let known: Vec<String> = schema.actions().map(|action| action.id().unescaped().to_owned()).collect();
        for method in [
            "initialize",
            "ping",
            "server/discover",
            "tools/call",
            "tools/list",
            "prompts/get",
            "prompts/list",
            "resources/list",
            "resources/read",
            "resources/subscribe",
            "resources/templates/list",
            "resources/unsubscribe",
            "completion/complete",
            "logging/setLevel",
            "subscriptions/listen",
            "tasks/get",
            "tasks/list",
            "tasks/result",
            "tasks/cancel",
            "tasks/update",
            "sampling/createMessage",
            "elicitation/create",
            "roots/list",
        ] {
            assert!(known.iter().any(|name| name == method), "{method}");
        }
    }

    #[test]
    fn an_attribute_has_one_type() {
        let user = |id: &str, level: Value| json!({ "uid": { "type": "User", "id": id }, "attrs": { "level": level } });
        assert!(extended(&Actions::default(), &[user("a", json!(1)), user("b", json!(2))]).is_ok());
        let error =
            extended(&Actions::default(), &[user("a", json!(1)), user("b", json!("2"))]).expect_err("two types");
        assert!(error.contains("\"level\""), "{error}");
        let error = extended(&Actions::default(), &[json!({ "uid": { "type": "Usr", "id": "a" }, "attrs": {} })]);
        assert!(error.expect_err("no such type").contains("did you mean User?"));
    }
}
