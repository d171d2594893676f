//! An Avro schema as what resolution needs: types by kind, and named types by their full names.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// How deep types may be nested within a text.
const DEPTH_MAX: usize = 120;

/// Avro's primitive types.
pub(super) const PRIMITIVES: [&str; 8] = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"];

/// A type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Node {
    Primitive(String, Option<Decimal>),
    Array(Box<Node>),
    Map(Box<Node>),
    Union(Vec<Node>),
    Named(String),
}

/// Precision and scale of the logical type `decimal`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Decimal {
    pub(super) precision: u64,
    pub(super) scale: u64,
}

/// A named type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Definition {
    pub(super) name: String,
    pub(super) aliases: Vec<String>,
    pub(super) shape: Shape,
}

/// What a named type is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    Record(Vec<Field>),
    Enum { symbols: Vec<String>, default: Option<String> },
    Fixed { size: u64, decimal: Option<Decimal> },
}

/// A field of a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) aliases: Vec<String>,
    pub(super) node: Node,
    pub(super) has_default: bool,
}

/// Named types by full name.
#[derive(Default, Debug)]
pub(super) struct Definitions {
    by_name: BTreeMap<String, Definition>,
    mentioned: Vec<String>,
}

impl Definition {
    /// The name without its namespace.
    pub(super) fn unqualified(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }
}

/// A name in full: with its namespace, unless it is a primitive type or has none.
pub(super) fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() || PRIMITIVES.contains(&name) {
        return name.trim_start_matches('.').to_owned();
    }
    format!("{namespace}.{name}")
}

/// The full name of a definition, and the namespace that holds within it.
pub(super) fn named(object: &Map<String, Value>, namespace: &str) -> Option<(String, String)> {
    let name = object.get("name")?.as_str()?;
    let own = object.get("namespace").and_then(Value::as_str).unwrap_or(namespace);
    let full = full_name(name, own);
    let within = full.rsplit_once('.').map_or("", |(space, _)| space).to_owned();
    Some((full, within))
}

impl Definitions {
    /// Reads a schema that stands by itself, with the definitions in it.
    pub(super) fn read(&mut self, value: &Value) -> Result<Node, String> {
        self.node(value, "", 0)
    }

    /// The named type.
    pub(super) fn get(&self, name: &str) -> Option<&Definition> {
        self.by_name.get(name)
    }

    /// Whether everything that is mentioned is defined.
    pub(super) fn check(&self) -> Result<(), String> {
        match self.mentioned.iter().find(|name| !self.by_name.contains_key(*name)) {
            Some(name) => Err(format!("the type {name} is not defined: define it, or refer to the schema that does")),
            None => Ok(()),
        }
    }

    fn node(&mut self, value: &Value, namespace: &str, depth: usize) -> Result<Node, String> {
        if depth > DEPTH_MAX {
            return Err(format!("types are nested deeper than {DEPTH_MAX} levels"));
        }
        match value {
            Value::String(name) if PRIMITIVES.contains(&name.as_str()) => Ok(Node::Primitive(name.clone(), None)),
            Value::String(name) => {
                // Java's library looks within the namespace first, and then without one.
                let full = full_name(name, namespace);
                let found = if !self.by_name.contains_key(&full) && self.by_name.contains_key(name) {
                    name.clone()
                } else {
                    full
                };
                self.mentioned.push(found.clone());
                Ok(Node::Named(found))
            }
            Value::Array(branches) => branches
                .iter()
                .map(|branch| self.node(branch, namespace, depth + 1))
                .collect::<Result<_, _>>()
                .map(Node::Union),
            Value::Object(object) => self.object(object, namespace, depth),
            _ => Err(format!("a type is a name, a union or an object, not {value}")),
        }
    }

    fn object(&mut self, object: &Map<String, Value>, namespace: &str, depth: usize) -> Result<Node, String> {
        let kind = match object.get("type") {
            Some(Value::String(kind)) => kind.as_str(),
            Some(inner) => return self.node(inner, namespace, depth + 1),
            None => return Err("an object without \"type\" is no type".to_owned()),
        };
        let part = |name: &str| object.get(name).ok_or_else(|| format!("{kind} lacks {name:?}"));
        match kind {
            "array" => Ok(Node::Array(Box::new(self.node(part("items")?, namespace, depth + 1)?))),
            "map" => Ok(Node::Map(Box::new(self.node(part("values")?, namespace, depth + 1)?))),
            "record" | "error" | "enum" | "fixed" => self.define(kind, object, namespace, depth),
            _ if PRIMITIVES.contains(&kind) => Ok(Node::Primitive(kind.to_owned(), decimal(object))),
            _ => self.node(&object["type"], namespace, depth + 1),
        }
    }

    fn define(
        &mut self,
        kind: &str,
        object: &Map<String, Value>,
        namespace: &str,
        depth: usize,
    ) -> Result<Node, String> {
        let (name, within) = named(object, namespace).ok_or_else(|| format!("{kind} lacks a name"))?;
        let aliases = texts(object.get("aliases")).iter().map(|alias| full_name(alias, &within)).collect();
        let placeholder = Definition { name: name.clone(), aliases, shape: Shape::Record(Vec::new()) };
        if self.by_name.insert(name.clone(), placeholder).is_some() {
            return Err(format!("the type {name} is defined twice"));
        }
        let shape = match kind {
            "enum" => Shape::Enum {
                symbols: texts(object.get("symbols")),
                default: object.get("default").and_then(Value::as_str).map(ToOwned::to_owned),
            },
            "fixed" => Shape::Fixed {
                size: object.get("size").and_then(Value::as_u64).ok_or_else(|| format!("{name} lacks a size"))?,
                decimal: decimal(object),
            },
            _ => {
                let fields =
                    object.get("fields").and_then(Value::as_array).ok_or_else(|| format!("{name} lacks fields"))?;
                Shape::Record(fields.iter().map(|field| self.field(field, &within, depth)).collect::<Result<_, _>>()?)
            }
        };
        self.by_name.get_mut(&name).expect("it was put in").shape = shape;
        Ok(Node::Named(name))
    }

    fn field(&mut self, field: &Value, namespace: &str, depth: usize) -> Result<Field, String> {
        let name = field.get("name").and_then(Value::as_str).ok_or("a field lacks a name")?;
        let kind = field.get("type").ok_or_else(|| format!("the field {name} lacks a type"))?;
        Ok(Field {
            name: name.to_owned(),
            aliases: texts(field.get("aliases")),
            node: self.node(kind, namespace, depth + 1)?,
            has_default: field.get("default").is_some(),
        })
    }
}

fn texts(value: Option<&Value>) -> Vec<String> {
    let items = value.and_then(Value::as_array).into_iter().flatten();
    items.filter_map(|item| item.as_str().map(ToOwned::to_owned)).collect()
}

fn decimal(object: &Map<String, Value>) -> Option<Decimal> {
    if object.get("logicalType")?.as_str()? != "decimal" {
        return None;
    }
    let precision = object.get("precision")?.as_u64()?;
    Some(Decimal { precision, scale: object.get("scale").and_then(Value::as_u64).unwrap_or(0) })
}
