//! Whether a reader's Protobuf schema reads what a writer's wrote: the rules of "Updating A Message Type" in the language guide.
//!
//! Fields meet by their numbers. Their names do not count on the wire, and a removed field is skipped; a changed type counts
//! unless the guide says that both are encoded alike. A removed message is a difference, because a serialized value names
//! its message by its place among those of the file.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use prost_reflect::{Cardinality, FieldDescriptor, Kind, MessageDescriptor};

use super::{Schema, print::type_name};
use crate::{
    budget::{Budget, Exhausted},
    format::Difference,
};

const LISTED_MAX: usize = 100;

/// Why `reader` does not read what `writer` wrote; empty where it does.
pub(crate) fn differences(reader: &Schema, writer: &Schema, budget: &Budget) -> Result<Vec<Difference>, Exhausted> {
    let (to, from) = (reader.file(), writer.file());
    let mut pass = Pass { budget, compared: HashSet::new(), found: Vec::new() };
    if to.package_name() != from.package_name() {
        let words =
            format!("the reader's package is '{}' and the writer's '{}'", to.package_name(), from.package_name());
        pass.say("PACKAGE_CHANGED", "/", words);
        return Ok(pass.found);
    }
    let readers: BTreeMap<String, MessageDescriptor> = all(to.messages()).into_iter().collect();
    for (name, message) in all(from.messages()) {
        match readers.get(&name) {
            Some(reader) => pass.message(reader, &message)?,
            None => pass.say("MESSAGE_REMOVED", &format!("/{name}"), format!("the reader lacks the message {name}")),
        }
    }
    pass.found.truncate(LISTED_MAX);
    Ok(pass.found)
}

/// Every message with those within it, but for the entries of maps.
fn all(messages: impl Iterator<Item = MessageDescriptor>) -> Vec<(String, MessageDescriptor)> {
    let mut found = Vec::new();
    for message in messages.filter(|message| !message.is_map_entry()) {
        found.push((message.full_name().to_owned(), message.clone()));
        found.extend(all(message.child_messages()));
    }
    found
}

struct Pass<'b> {
    budget: &'b Budget,
    compared: HashSet<(String, String)>,
    found: Vec<Difference>,
}

/// How a scalar lies on the wire; those of one group are read as each other.
fn encoding(kind: &Kind) -> &'static str {
    match kind {
        Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64 | Kind::Bool | Kind::Enum(_) => "varint",
        Kind::Sint32 | Kind::Sint64 => "zigzag",
        Kind::Fixed32 | Kind::Sfixed32 => "fixed32",
        Kind::Fixed64 | Kind::Sfixed64 => "fixed64",
        Kind::Float => "float",
        Kind::Double => "double",
        Kind::String | Kind::Bytes => "bytes",
        Kind::Message(_) => "message",
    }
}

impl Pass<'_> {
    fn say(&mut self, kind: &'static str, path: &str, words: impl Into<String>) {
        self.found.push(Difference { kind, path: path.to_owned(), words: words.into() });
    }

    fn message(&mut self, reader: &MessageDescriptor, writer: &MessageDescriptor) -> Result<(), Exhausted> {
        let budget = self.budget;
        let _level = budget.deeper()?;
        if !self.compared.insert((reader.full_name().to_owned(), writer.full_name().to_owned())) {
            return Ok(());
        }
        let path = format!("/{}", writer.full_name());
        for field in writer.fields() {
            let path = format!("{path}/{}", field.number());
            match reader.get_field(field.number()) {
                Some(read) => self.field(&read, &field, &path)?,
                None if case_of(&field).is_some() => {
                    let words =
                        format!("the reader lacks {}, one of the cases of a oneof: it would see none", field.name());
                    self.say("ONEOF_FIELD_REMOVED", &path, words);
                }
                None => {}
            }
        }
        for field in reader.fields().filter(FieldDescriptor::is_required) {
            if !writer.get_field(field.number()).is_some_and(|written| written.is_required()) {
                let words = format!("the reader requires {}, which the writer may leave out", field.name());
                self.say("REQUIRED_FIELD_ADDED", &format!("{path}/{}", field.number()), words);
            }
        }
        self.cases(reader, writer, &path);
        Ok(())
    }

    fn field(&mut self, reader: &FieldDescriptor, writer: &FieldDescriptor, path: &str) -> Result<(), Exhausted> {
        let (to, from) = (reader.kind(), writer.kind());
        if encoding(&to) != encoding(&from) || reader.is_group() != writer.is_group() {
            let is_kind = matches!(to, Kind::Message(_)) != matches!(from, Kind::Message(_));
            let kind = if is_kind { "FIELD_KIND_CHANGED" } else { "FIELD_SCALAR_KIND_CHANGED" };
            let words = format!("the reader's type is {} and the writer's {}", type_name(&to), type_name(&from));
            self.say(kind, path, words);
            return Ok(());
        }
        let (many, was_many) = (reader.is_list() || reader.is_map(), writer.is_list() || writer.is_map());
        if many != was_many && !["bytes", "message"].contains(&encoding(&to)) {
            let words = "a number that is repeated for one side only is read wrongly where it is packed";
            self.say("FIELD_NUMERIC_LABEL_CHANGED", path, words);
        }
        if let (Kind::Message(to), Kind::Message(from)) = (&to, &from) {
            let entries = reader.is_map() || writer.is_map();
            if !entries && to.full_name() != from.full_name() {
                let words = format!("the reader's type is {} and the writer's {}", to.full_name(), from.full_name());
                self.say("FIELD_NAMED_TYPE_CHANGED", path, words);
                return Ok(());
            }
            self.message(to, from)?;
        }
        Ok(())
    }

    /// Fields that came into a `oneof`: one by itself may, and only into a new one.
    fn cases(&mut self, reader: &MessageDescriptor, writer: &MessageDescriptor, path: &str) {
        for one in reader.oneofs().filter(|one| !one.is_synthetic()) {
            let numbers: BTreeSet<u32> = one.fields().map(|field| field.number()).collect();
            let moved: Vec<u32> = numbers
                .iter()
                .copied()
                .filter(|number| writer.get_field(*number).is_some_and(|field| case_of(&field).is_none()))
                .collect();
            let was_there =
                numbers.iter().any(|number| writer.get_field(*number).is_some_and(|field| case_of(&field).is_some()));
            let path = format!("{path}/{}", one.name());
            match (moved.len(), was_there) {
                (0, _) | (1, false) => {}
                (1, true) => {
                    self.say("FIELD_MOVED_TO_EXISTING_ONEOF", &path, "a field came into a oneof that has cases already")
                }
                _ => self.say(
                    "MULTIPLE_FIELDS_MOVED_TO_ONEOF",
                    &path,
                    "several fields came into one oneof: of those written together only the last is read",
                ),
            }
        }
    }
}

/// The `oneof` that a field is a case of, as the file has it.
fn case_of(field: &FieldDescriptor) -> Option<String> {
    let one = field.containing_oneof().filter(|one| !one.is_synthetic())?;
    (field.cardinality() != Cardinality::Required).then(|| one.name().to_owned())
}
