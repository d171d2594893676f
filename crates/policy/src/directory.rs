//! The entities that a file describes: groups, and attributes of users, servers, tools and so on.
//!
//! `entities.json` in the policies folder is Cedar's own JSON form of entities. However many it holds, a decision is given
//! only those that it can come to: principal, action and resource, what they are in, what their attributes refer to, and
//! what conditions name. Must never leave out one of those, and must never let the file say what Cairn says itself.

use std::collections::{BTreeSet, HashMap, HashSet};

use cedar_policy::{Entities, EntityId, EntityUid};
use serde_json::{Map, Value, json};

use crate::{names::own, uri_template::UriTemplates};

/// The file's name.
pub(crate) const ENTITIES_FILE: &str = "entities.json";
/// Most entities that the file may hold.
pub const ENTITIES_MAX: usize = 100_000;

/// What the file describes.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    entities: Entities,
    /// What attributes refer to, of the entities that have such.
    refers: HashMap<EntityUid, Vec<EntityUid>>,
    /// Resource templates that the file or a policy names.
    templates: UriTemplates,
    /// The file as it counts, for the version.
    pub(crate) canonical: Vec<Value>,
}

impl Directory {
    /// Reads the file.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let said: Vec<Value> =
            serde_json::from_slice(bytes).map_err(|error| format!("is no JSON array of entities: {error}"))?;
        if said.len() > ENTITIES_MAX {
            return Err(format!("holds {} entities, more than {ENTITIES_MAX}", said.len()));
        }
        let mut canonical = Vec::with_capacity(said.len());
        for (at, entity) in said.into_iter().enumerate() {
            canonical.push(with_own(entity).map_err(|what| format!("entity {at}: {what}"))?);
        }
        canonical.sort_by_cached_key(|entity| (entity["uid"]["type"].to_string(), entity["uid"]["id"].to_string()));
        let entities = Entities::from_json_value(Value::Array(canonical.clone()), None)
            .map_err(|error| format!("{error}{}", cause(&error)))?;
        let mut refers = HashMap::new();
        let mut templates = UriTemplates::default();
        for entity in &canonical {
            let mut found = BTreeSet::new();
            references(&entity["attrs"], &mut found);
            references(&entity["tags"], &mut found);
            let parents = entity["parents"].as_array().into_iter().flatten();
            let attributes = found.iter().filter_map(|(kind, id)| named(kind, id));
            for uid in parents.chain([&entity["uid"]]).filter_map(uid_of).chain(attributes) {
                templates.add(&uid)?;
            }
            if !found.is_empty() {
                let found = found.iter().filter_map(|(kind, id)| named(kind, id)).collect();
                refers.extend(uid_of(&entity["uid"]).map(|uid| (uid, found)));
            }
        }
        Ok(Self { entities, refers, templates, canonical })
    }

    /// A policy names that: where it is a resource template, resources that fit it are in it.
    pub(crate) fn names(&mut self, uid: &EntityUid) -> Result<(), String> {
        self.templates.add(uid)
    }

    /// What an entity is in, as far as the file or Cairn itself says.
    pub(crate) fn ancestors(&self, uid: &EntityUid) -> HashSet<EntityUid> {
        let mut all = HashSet::new();
        let mut within = |parent: EntityUid| {
            all.extend(self.ancestors(&parent));
            all.insert(parent);
        };
        self.templates.of(uid).into_iter().cloned().for_each(&mut within);
        match self.entities.ancestors(uid) {
            Some(ancestors) => all.extend(ancestors.cloned()),
            None => {
                let (_, parents) = own(&uid.type_name().to_string(), uid.id().unescaped());
                parents.iter().filter_map(uid_of).for_each(within);
            }
        }
        all
    }

    /// Everything that evaluation can come to from `roots`, as the entities' JSON: the roots first, the rest in order.
    pub(crate) fn reach(&self, roots: &[EntityUid], mentioned: impl IntoIterator<Item = EntityUid>) -> Vec<Value> {
        let mut seen: HashSet<EntityUid> = roots.iter().cloned().collect();
        let mut out: Vec<Value> = roots.iter().map(|root| self.described(root)).collect();
        let mut rest = Vec::new();
        let mut waiting: Vec<EntityUid> = roots.to_vec();
        waiting.extend(mentioned);
        while let Some(next) = waiting.pop() {
            waiting.extend(self.ancestors(&next).into_iter().filter(|uid| !seen.contains(uid)));
            waiting.extend(self.refers.get(&next).into_iter().flatten().filter(|uid| !seen.contains(uid)).cloned());
            if seen.insert(next.clone()) && self.entities.get(&next).is_some() {
                rest.push(self.described(&next));
            }
        }
        rest.sort_by_cached_key(|entity| (entity["uid"]["type"].to_string(), entity["uid"]["id"].to_string()));
        out.append(&mut rest);
        out
    }

    fn described(&self, uid: &EntityUid) -> Value {
        let (kind, id) = (uid.type_name().to_string(), uid.id().unescaped().to_owned());
        let found = self.entities.get(uid).and_then(|entity| entity.to_json_value().ok());
        let mut entity = found.unwrap_or_else(|| {
            let (attributes, parents) = own(&kind, &id);
            json!({ "uid": { "type": kind, "id": id }, "attrs": attributes, "parents": parents })
        });
        for template in self.templates.of(uid) {
            let parent = json!({ "type": template.type_name().to_string(), "id": template.id().unescaped() });
            if let Some(parents) = entity["parents"].as_array_mut().filter(|parents| !parents.contains(&parent)) {
                parents.push(parent);
            }
        }
        sorted(entity)
    }

    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.entities.is_empty()
    }

    /// The whole, for whoever compares.
    #[cfg(any(test, fuzzing))]
    pub(crate) const fn entities(&self) -> &Entities {
        &self.entities
    }
}

/// An entity's JSON in the one order that it is recorded in.
pub(crate) fn sorted(mut entity: Value) -> Value {
    if let Some(parents) = entity["parents"].as_array_mut() {
        parents.sort_by_cached_key(ToString::to_string);
    }
    if entity["tags"].as_object().is_some_and(Map::is_empty) {
        entity.as_object_mut().map(|entity| entity.remove("tags"));
    }
    entity
}

/// One entity of the file with what Cairn says of it.
fn with_own(mut entity: Value) -> Result<Value, String> {
    let (kind, id) = type_and_id(&entity["uid"])
        .ok_or("has no uid: write {\"uid\": {\"type\": \"User\", \"id\": \"ada\"}, \"attrs\": {}, \"parents\": []}")?;
    let shown = format!("{kind}::{id:?}");
    let Value::Object(members) = &mut entity else { return Err("is no object".to_owned()) };
    if let Some(other) = members.keys().find(|key| !["uid", "attrs", "parents", "tags"].contains(&key.as_str())) {
        return Err(format!("{shown} has the member {other:?}: an entity has uid, attrs, parents and tags"));
    }
    if kind == "Action" {
        return Err(format!("{shown} is an action, and actions are in the schema"));
    }
    members.insert("uid".to_owned(), json!({ "type": kind, "id": id }));
    let (own_attributes, own_parents) = own(&kind, &id);
    let attributes = members.entry("attrs").or_insert_with(|| json!({}));
    let attributes = attributes.as_object_mut().ok_or_else(|| format!("{shown}: attrs is an object"))?;
    for (name, value) in own_attributes {
        if attributes.get(&name).is_some_and(|said| *said != value) {
            return Err(format!("{shown}: the attribute {name:?} is Cairn's own ({value}); leave it out"));
        }
        attributes.insert(name, value);
    }
    let parents = members.entry("parents").or_insert_with(|| json!([]));
    let parents = parents.as_array_mut().ok_or_else(|| format!("{shown}: parents is an array"))?;
    for parent in own_parents {
        if !parents.iter().any(|said| type_and_id(said) == type_and_id(&parent)) {
            parents.push(parent);
        }
    }
    Ok(entity)
}

/// Type and id, as Cedar's JSON writes them: plain or behind `__entity`.
fn type_and_id(value: &Value) -> Option<(String, String)> {
    let value = value.get("__entity").unwrap_or(value);
    Some((value.get("type")?.as_str()?.to_owned(), value.get("id")?.as_str()?.to_owned()))
}

fn uid_of(value: &Value) -> Option<EntityUid> {
    type_and_id(value).and_then(|(kind, id)| named(&kind, &id))
}

fn named(kind: &str, id: &str) -> Option<EntityUid> {
    Some(EntityUid::from_type_name_and_id(kind.parse().ok()?, EntityId::new(id)))
}

/// The entities that some JSON of Cedar's refers to: attributes, or a policy's conditions.
pub(crate) fn references(value: &Value, found: &mut BTreeSet<(String, String)>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        Value::Object(members) => {
            if let Some(named) = members.get("__entity").and_then(type_and_id) {
                found.insert(named);
            }
            members.values().for_each(|member| references(member, found));
        }
        _ => {}
    }
}

/// The entities that a policy's conditions name.
pub(crate) fn mentioned(policy: &Value) -> Vec<EntityUid> {
    let mut found = BTreeSet::new();
    references(&policy["conditions"], &mut found);
    found.iter().filter_map(|(kind, id)| named(kind, id)).collect()
}

fn cause(error: &dyn std::error::Error) -> String {
    let mut words = String::new();
    let mut next = error.source();
    while let Some(error) = next {
        words.push_str(": ");
        words.push_str(&error.to_string());
        next = error.source();
    }
    words
}
