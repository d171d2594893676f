//! The three languages of schemas: parsing, normal forms, and whether what one writes another reads.
//!
//! Each language has a module with the same parts: reading a text with what it refers to, its kept and its normal form, and a
//! comparison of a reader's schema with a writer's. Comparing is pure and bounded by a [`Budget`]; it is conservative, which
//! means that what cannot be shown to be compatible is said to be incompatible.

mod avro;
mod json;
mod protobuf;

use std::{fmt, sync::Arc};

use crate::{
    Refusal,
    budget::{Budget, Exhausted},
    model::{Content, Policy, SchemaType},
};

/// A schema that another refers to, with its own references before it in the list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resolved {
    /// As what it is referred to.
    pub name: String,
    /// Its text.
    pub text: String,
    /// Its language.
    pub kind: SchemaType,
}

/// A parsed schema.
#[derive(Clone, Debug)]
pub enum Parsed {
    /// Avro.
    Avro(Arc<avro::Schema>),
    /// JSON Schema.
    Json(Arc<json::Schema>),
    /// Protobuf.
    Protobuf(Arc<protobuf::Schema>),
}

/// One way in which a reader does not understand a writer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// What kind of change it is.
    pub kind: &'static str,
    /// Where, as a path into the schema.
    pub path: String,
    /// In words.
    pub words: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{errorType:\"{}\", description:\"{}\", path:\"{}\"}}", self.kind, self.words, self.path)
    }
}

/// A text in another form than the one that is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// As it is kept.
    Kept,
    /// With what it refers to, in one text: Avro and JSON.
    Resolved,
    /// A file descriptor in Base64: Protobuf.
    Serialized,
}

impl Form {
    /// Reads the parameter `format`; one that is not known is as if it were absent, as Confluent's registry has it.
    #[must_use]
    pub fn named(text: &str) -> Self {
        match text {
            "resolved" => Self::Resolved,
            "serialized" => Self::Serialized,
            _ => Self::Kept,
        }
    }
}

impl Parsed {
    /// Reads a text and what it refers to.
    ///
    /// # Errors
    /// 42201, with what is wrong with it.
    pub fn parse(kind: SchemaType, text: &str, references: &[Resolved]) -> Result<Self, Refusal> {
        if let Some(other) = references.iter().find(|reference| reference.kind != kind) {
            return Err(Refusal::invalid_schema(format_args!(
                "Invalid schema: the reference {} is {} and the schema {}",
                other.name,
                other.kind.name(),
                kind.name()
            )));
        }
        let parsed = match kind {
            SchemaType::Avro => avro::Schema::parse(text, references).map(|schema| Self::Avro(Arc::new(schema))),
            SchemaType::Json => json::Schema::parse(text, references).map(|schema| Self::Json(Arc::new(schema))),
            SchemaType::Protobuf => {
                protobuf::Schema::parse(text, references).map(|schema| Self::Protobuf(Arc::new(schema)))
            }
        };
        parsed.map_err(|why| Refusal::invalid_schema(format_args!("Invalid schema of type {}: {why}", kind.name())))
    }

    /// The text that is kept.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Avro(schema) => schema.text(),
            Self::Json(schema) => schema.text(),
            Self::Protobuf(schema) => schema.text(),
        }
    }

    /// The text that says whether two schemas are the same: equal for those that differ in layout only.
    #[must_use]
    pub fn identity(&self) -> String {
        match self {
            Self::Avro(schema) => schema.text(),
            Self::Json(schema) => schema.text(),
            Self::Protobuf(schema) => schema.printed(),
        }
    }

    /// The normal form: equal for schemas that differ in what has no meaning, such as the order of members.
    #[must_use]
    pub fn normal(&self) -> String {
        match self {
            Self::Avro(schema) => schema.normal(),
            Self::Json(schema) => schema.normal(),
            Self::Protobuf(schema) => schema.normal(),
        }
    }

    /// The text in that form; none where the language has no such form.
    ///
    /// # Errors
    /// Too deep, or too much.
    pub fn formed(&self, form: Form, budget: &Budget) -> Result<Option<String>, Exhausted> {
        match (self, form) {
            (Self::Avro(schema), Form::Resolved) => schema.resolved(budget).map(Some),
            (Self::Json(schema), Form::Resolved) => Ok(Some(schema.resolved())),
            (Self::Protobuf(schema), Form::Serialized) => Ok(Some(schema.serialized())),
            _ => Ok(None),
        }
    }
}

/// Why what `writer` writes is not understood by `reader`; empty where it is.
///
/// # Errors
/// The budget is used up.
pub fn differences(
    reader: &Parsed,
    writer: &Parsed,
    policy: Policy,
    budget: &Budget,
) -> Result<Vec<Difference>, Exhausted> {
    match (reader, writer) {
        (Parsed::Avro(reader), Parsed::Avro(writer)) => avro::differences(reader, writer, budget),
        (Parsed::Json(reader), Parsed::Json(writer)) => json::differences(reader, writer, policy, budget),
        (Parsed::Protobuf(reader), Parsed::Protobuf(writer)) => protobuf::differences(reader, writer, budget),
        _ => Ok(vec![Difference {
            kind: "SCHEMA_TYPE_CHANGED",
            path: "/".to_owned(),
            words: "the two schemas are written in different languages".to_owned(),
        }]),
    }
}

/// The text of a content as it was kept, parsed.
pub(crate) fn parse_content(content: &Content, references: &[Resolved]) -> Result<Parsed, Refusal> {
    Parsed::parse(content.schema_type, &content.schema, references)
}
