//! A JSON Schema with what it refers to: which text a `$ref` means, and under which base a text lies.
//!
//! References of a registry are documents by name; `$id` and `$anchor` name parts of documents (JSON Schema 2020-12, section
//! 8.2; draft-07 the same without `$anchor`). What leads nowhere is an error when the schema is read.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

/// Largest number of schemas with an `$id` or an anchor in one document with its references.
const NAMES_MAX: usize = 10_000;
const DRAFT_07: &str = "http://json-schema.org/draft-07/schema";

/// Drafts that are read; without `$schema` a document is draft-07, as Confluent's registry has it.
const DRAFTS: [(&str, jsonschema::Draft); 5] = [
    ("https://json-schema.org/draft/2020-12/schema", jsonschema::Draft::Draft202012),
    ("https://json-schema.org/draft/2019-09/schema", jsonschema::Draft::Draft201909),
    (DRAFT_07, jsonschema::Draft::Draft7),
    ("http://json-schema.org/draft-06/schema", jsonschema::Draft::Draft6),
    ("http://json-schema.org/draft-04/schema", jsonschema::Draft::Draft4),
];

/// Where a part of the documents lies: which document, and the JSON Pointer in it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Place {
    document: usize,
    pointer: String,
}

/// A schema, and what it refers to.
#[derive(Debug)]
pub(super) struct Documents {
    all: Vec<(String, Value)>,
    /// URIs without their fragments, and with anchors.
    names: HashMap<String, Place>,
    draft: jsonschema::Draft,
}

/// A document that cannot be fetched: nothing is, but what is registered.
struct Registered(HashMap<String, Value>);

impl jsonschema::Retrieve for Registered {
    fn retrieve(&self, uri: &jsonschema::Uri<String>) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        let asked = uri.as_str();
        let found = self.0.iter().find(|(name, _)| *name == asked || asked == absolute(BASE, name));
        found.map(|(_, value)| value.clone()).ok_or_else(|| format!("{asked} is not among the references").into())
    }
}

/// The base of documents that name none.
const BASE: &str = "json-schema:///";

impl Documents {
    pub(super) fn new(root: Value, references: Vec<(String, Value)>) -> Result<Self, String> {
        let draft = draft_of(&root)?;
        let mut documents = Self { all: Vec::new(), names: HashMap::new(), draft };
        documents.all.push((String::new(), root));
        documents.all.extend(references);
        for at in 0..documents.all.len() {
            let (name, value) = documents.all[at].clone();
            let place = Place { document: at, pointer: String::new() };
            if at > 0 {
                documents.names.insert(name.clone(), place.clone());
                documents.names.insert(absolute(BASE, &name), place);
            }
            documents.index(&value, &absolute(BASE, &name), &Place { document: at, pointer: String::new() })?;
        }
        Ok(documents)
    }

    /// Whether it is a schema by its own draft, and every reference leads somewhere.
    pub(super) fn check(&self) -> Result<(), String> {
        let others = self.all.iter().skip(1).map(|(name, value)| (name.clone(), value.clone())).collect();
        let mut options = jsonschema::options().with_draft(self.draft).with_retriever(Registered(others));
        if id_of(self.root()).is_none() {
            options = options.with_base_uri(BASE);
        }
        options.build(self.root()).map(drop).map_err(|error| {
            let words = error.to_string();
            let at = error.instance_path().to_string();
            if at.is_empty() { words } else { format!("{words} at {at}") }
        })
    }

    pub(super) fn root(&self) -> &Value {
        &self.all[0].1
    }

    /// Where the root lies.
    pub(super) fn start(&self) -> Place {
        Place { document: 0, pointer: String::new() }
    }

    /// Before 2019-09 everything beside a `$ref` is passed over.
    pub(super) fn passes_over_siblings(&self) -> bool {
        use jsonschema::Draft;
        matches!(self.draft, Draft::Draft4 | Draft::Draft6 | Draft::Draft7)
    }

    fn index(&mut self, value: &Value, base: &str, place: &Place) -> Result<(), String> {
        let base = id_of(value).map_or_else(|| base.to_owned(), |id| absolute(base, id));
        if id_of(value).is_some() {
            self.names.insert(without_fragment(&base).to_owned(), place.clone());
        }
        for anchor in ["$anchor", "$dynamicAnchor"].iter().filter_map(|name| value.get(*name)?.as_str()) {
            self.names.insert(format!("{}#{anchor}", without_fragment(&base)), place.clone());
        }
        if self.names.len() > NAMES_MAX {
            return Err(format!("more than {NAMES_MAX} schemas have an $id or an anchor"));
        }
        let deeper = |part: String| Place { document: place.document, pointer: format!("{}/{part}", place.pointer) };
        match value {
            Value::Object(members) => {
                let schemas = members
                    .iter()
                    .filter(|(name, _)| !["const", "enum", "default", "examples"].contains(&name.as_str()));
                for (name, member) in schemas.map(|(name, member)| (name.clone(), member.clone())).collect::<Vec<_>>() {
                    self.index(&member, &base, &deeper(escaped(&name)))?;
                }
                Ok(())
            }
            Value::Array(items) => {
                items.iter().enumerate().try_for_each(|(at, item)| self.index(item, &base, &deeper(at.to_string())))
            }
            _ => Ok(()),
        }
    }

    /// The schema at a place.
    pub(super) fn at(&self, place: &Place) -> Option<&Value> {
        self.all.get(place.document)?.1.pointer(&place.pointer)
    }

    /// What `$ref` at a place means.
    pub(super) fn referred(&self, from: &Place, reference: &str) -> Option<Place> {
        let base = self.base_of(from);
        let target = absolute(&base, reference);
        let (uri, fragment) = target.split_once('#').unwrap_or((&target, ""));
        if !fragment.is_empty() && !fragment.starts_with('/') {
            return self.names.get(&target).cloned();
        }
        let document = match self.names.get(uri) {
            Some(place) => place.clone(),
            None if uri == without_fragment(&base) => self.start_of(from),
            None => self.names.get(reference.split('#').next().unwrap_or_default())?.clone(),
        };
        let pointer = percent_encoding::percent_decode_str(fragment).decode_utf8().ok()?.into_owned();
        let place = Place { document: document.document, pointer: document.pointer + &pointer };
        self.at(&place).is_some().then_some(place)
    }

    /// The nearest `$id` above a place, which pointers begin at.
    fn start_of(&self, place: &Place) -> Place {
        let mut pointer = place.pointer.as_str();
        loop {
            let here = Place { document: place.document, pointer: pointer.to_owned() };
            if pointer.is_empty() || self.at(&here).is_some_and(|value| id_of(value).is_some()) {
                return here;
            }
            pointer = pointer.rsplit_once('/').map_or("", |(above, _)| above);
        }
    }

    fn base_of(&self, place: &Place) -> String {
        let mut base = absolute(BASE, &self.all[place.document].0);
        let mut value = &self.all[place.document].1;
        if let Some(id) = id_of(value) {
            base = absolute(&base, id);
        }
        for part in place.pointer.split('/').skip(1) {
            let part = part.replace("~1", "/").replace("~0", "~");
            let next = match value {
                Value::Array(items) => part.parse::<usize>().ok().and_then(|at| items.get(at)),
                other => other.get(&part),
            };
            let Some(next) = next else { break };
            value = next;
            if let Some(id) = id_of(value) {
                base = absolute(&base, id);
            }
        }
        base
    }

    /// The root with the other documents among its definitions, each under its name as `$id`.
    pub(super) fn bundled(&self) -> Value {
        let mut root = self.root().clone();
        let place = if self.passes_over_siblings() { "definitions" } else { "$defs" };
        if let Some(members) = root.as_object_mut().filter(|_| self.all.len() > 1) {
            let defined = members.entry(place).or_insert_with(|| json!({}));
            if let Some(defined) = defined.as_object_mut() {
                for (name, value) in &self.all[1..] {
                    let mut value = value.clone();
                    if let Some(members) = value.as_object_mut() {
                        members.entry("$id").or_insert_with(|| json!(name));
                    }
                    defined.entry(name.clone()).or_insert(value);
                }
            }
        }
        root
    }
}

impl Place {
    /// A part of it.
    pub(super) fn part(&self, path: &[&str]) -> Self {
        let mut pointer = self.pointer.clone();
        for part in path {
            pointer.push('/');
            pointer.push_str(&escaped(part));
        }
        Self { document: self.document, pointer }
    }
}

fn escaped(part: &str) -> String {
    part.replace('~', "~0").replace('/', "~1")
}

fn without_fragment(uri: &str) -> &str {
    uri.split('#').next().unwrap_or(uri)
}

fn id_of(value: &Value) -> Option<&str> {
    let members: &Map<String, Value> = value.as_object()?;
    let id = members.get("$id").or_else(|| members.get("id").filter(|_| members.contains_key("$schema")))?;
    id.as_str().filter(|id| !id.starts_with('#'))
}

/// A reference against a base: enough of RFC 3986 for what names schemas.
fn absolute(base: &str, reference: &str) -> String {
    let has_scheme = reference.split_once(':').is_some_and(|(scheme, _)| {
        !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    });
    if has_scheme || base.is_empty() {
        return reference.to_owned();
    }
    let base = without_fragment(base);
    if reference.is_empty() || reference.starts_with('#') {
        return format!("{base}{reference}");
    }
    let (scheme, rest) = base.split_once(':').unwrap_or(("", base));
    let (authority, path) = match rest.strip_prefix("//") {
        Some(rest) => rest.find('/').map_or((rest, ""), |at| rest.split_at(at)),
        None => ("", rest),
    };
    let slashes = if rest.starts_with("//") { "//" } else { "" };
    let mut path = if reference.starts_with('/') {
        reference.to_owned()
    } else {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{folder}/{reference}")
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            other => parts.push(other),
        }
    }
    path = parts.join("/");
    format!("{scheme}:{slashes}{authority}{path}")
}

fn draft_of(root: &Value) -> Result<jsonschema::Draft, String> {
    let Some(named) = root.get("$schema") else { return Ok(jsonschema::Draft::Draft7) };
    let uri = named
        .as_str()
        .ok_or("$schema is no URI")?
        .trim_end_matches('#')
        .replace("https://json-schema.org/draft-0", "http://json-schema.org/draft-0");
    let found = DRAFTS.iter().find(|(known, _)| *known == uri);
    found
        .map(|(_, draft)| *draft)
        .ok_or_else(|| format!("the dialect {uri} is not read: name draft 2020-12, 2019-09, 07, 06 or 04 in $schema"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_read_against_its_base() {
        for (base, reference, whole) in [
            ("https://e.org/a/b.json", "c.json#/x", "https://e.org/a/c.json#/x"),
            ("https://e.org/a/b.json", "/c", "https://e.org/c"),
            ("https://e.org/a/b.json", "../c", "https://e.org/c"),
            ("https://e.org/a/b.json#old", "#new", "https://e.org/a/b.json#new"),
            ("https://e.org/a", "urn:x:y", "urn:x:y"),
            (BASE, "other.json", "json-schema:///other.json"),
        ] {
            assert_eq!(absolute(base, reference), whole, "{reference} in {base}");
        }
    }

    #[test]
    fn references_lead_to_documents_identifiers_anchors_and_pointers() {
        let root = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": "https://e.org/root.json",
            "$defs": { "a": { "$anchor": "here", "type": "string" }, "b": { "$id": "b.json", "$defs": { "c": { "type": "null" } } } }
        });
        let documents =
            Documents::new(root, vec![("other.json".to_owned(), json!({ "type": "integer" }))]).expect("documents");
        let start = documents.start();
        for (reference, found) in [
            ("#here", json!("string")),
            ("#/$defs/a", json!("string")),
            ("root.json#/$defs/a", json!("string")),
            ("b.json#/$defs/c", json!("null")),
            ("other.json", json!("integer")),
        ] {
            let place = documents.referred(&start, reference).unwrap_or_else(|| panic!("{reference} leads nowhere"));
            assert_eq!(documents.at(&place).expect("a schema")["type"], found, "{reference}");
        }
        let within = start.part(&["$defs", "b"]);
        assert!(documents.referred(&within, "#/$defs/c").is_some(), "a pointer begins at the nearest $id");
        assert!(documents.referred(&start, "#/nowhere").is_none());
    }
}
