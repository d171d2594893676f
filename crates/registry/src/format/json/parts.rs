//! Objects and arrays: properties and items by the content models of reader and writer.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    containment::Pass,
    view::{Part, is_nothing, members, of_type},
};
use crate::budget::Exhausted;

impl Pass<'_> {
    pub(super) fn objects(
        &mut self,
        part: &Part<'_>,
        reader: &[Part<'_>],
        writer: &[Part<'_>],
        path: &str,
    ) -> Result<(), Exhausted> {
        self.declared(part, writer, path)?;
        self.undeclared(part, writer, path)?;
        self.patterns(part, writer, path)?;
        self.unevaluated(part, reader, writer, path)?;
        self.required(part, writer, path);
        self.dependent(part, writer, path)?;
        self.counts(part, writer, path, ("maxProperties", "MAX_PROPERTIES"), ("minProperties", "MIN_PROPERTIES"));
        if part.get("propertyNames").is_some() {
            let wanted = part.below(&["propertyNames"], self.budget)?;
            let mut names = vec![of_type(part.documents, "string")];
            for written in writer.iter().filter(|written| written.get("propertyNames").is_some()) {
                names.extend(written.below(&["propertyNames"], self.budget)?);
            }
            self.contains(&wanted, &names, &format!("{path}/propertyNames"))?;
        }
        Ok(())
    }

    /// What the writer says of a property, all parts together, and whether some part names it.
    fn written<'a>(&self, name: &str, writer: &[Part<'a>]) -> Result<(Vec<Part<'a>>, bool), Exhausted> {
        let mut parts = Vec::new();
        for written in writer {
            parts.extend(written.property(name, false, self.budget)?);
        }
        Ok((parts, writer.iter().any(|written| written.has_property(name))))
    }

    /// Properties that the reader names.
    fn declared(&mut self, part: &Part<'_>, writer: &[Part<'_>], path: &str) -> Result<(), Exhausted> {
        for name in part.properties() {
            let wanted = part.below(&["properties", name], self.budget)?;
            let (written, is_named) = self.written(name, writer)?;
            let path = format!("{path}/properties/{name}");
            if is_named || is_nothing(&written) {
                self.contains(&wanted, &written, &path)?;
            } else if !self.is_lenient && !self.holds(&wanted, &written, &path)? {
                let kind = if written.is_empty() {
                    "PROPERTY_ADDED_TO_OPEN_CONTENT_MODEL"
                } else {
                    "PROPERTY_ADDED_NOT_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL"
                };
                let words = "the reader names a property that the writer's open content model lets be anything";
                self.say(kind, &path, words);
            }
        }
        Ok(())
    }

    /// Properties that only the writer names, and those that nobody does.
    fn undeclared(&mut self, part: &Part<'_>, writer: &[Part<'_>], path: &str) -> Result<(), Exhausted> {
        let names: BTreeSet<&str> = writer.iter().flat_map(Part::properties).collect();
        for name in names.into_iter().filter(|name| !part.has_property(name)) {
            let wanted = part.property(name, true, self.budget)?;
            let (written, _) = self.written(name, writer)?;
            let path = format!("{path}/properties/{name}");
            if self.holds(&wanted, &written, &path)? {
                continue;
            }
            let is_closed = is_nothing(&wanted);
            if self.is_lenient && is_closed {
                continue;
            }
            let kind = if is_closed {
                "PROPERTY_REMOVED_FROM_CLOSED_CONTENT_MODEL"
            } else {
                "PROPERTY_REMOVED_NOT_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL"
            };
            self.say(kind, &path, "the writer may write a property that the reader does not let in");
        }
        if self.is_lenient || part.get("additionalProperties").is_none() {
            return Ok(());
        }
        let wanted = part.below(&["additionalProperties"], self.budget)?;
        let mut rest = Vec::new();
        for written in writer.iter().filter(|written| written.get("additionalProperties").is_some()) {
            rest.extend(written.below(&["additionalProperties"], self.budget)?);
        }
        if closed_otherwise(writer) || self.holds(&wanted, &rest, path)? {
            return Ok(());
        }
        let kind = if is_nothing(&wanted) { "ADDITIONAL_PROPERTIES_REMOVED" } else { "ADDITIONAL_PROPERTIES_NARROWED" };
        let words = "the writer may write properties that neither names, and the reader does not let them all in";
        self.say(kind, &format!("{path}/additionalProperties"), words);
        Ok(())
    }

    fn patterns(&mut self, part: &Part<'_>, writer: &[Part<'_>], path: &str) -> Result<(), Exhausted> {
        let patterns = part.get("patternProperties").and_then(Value::as_object).filter(|_| !self.is_lenient);
        for (pattern, _) in patterns.into_iter().flatten() {
            let wanted = part.below(&["patternProperties", pattern], self.budget)?;
            let mut written = Vec::new();
            for other in writer {
                let alike = other.get("patternProperties").is_some_and(|patterns| patterns.get(pattern).is_some());
                if alike {
                    written.extend(other.below(&["patternProperties", pattern], self.budget)?);
                } else if other.get("additionalProperties").is_some() && other.get("patternProperties").is_none() {
                    written.extend(other.below(&["additionalProperties"], self.budget)?);
                }
            }
            let path = format!("{path}/patternProperties/{pattern}");
            if !self.holds(&wanted, &written, &path)? {
                self.say(
                    "PATTERN_PROPERTY_ADDED",
                    &path,
                    "the writer may write properties of such names that the reader does not let in",
                );
            }
        }
        Ok(())
    }

    /// `unevaluatedProperties` and `unevaluatedItems` count what every part of the reader names.
    fn unevaluated(
        &mut self,
        part: &Part<'_>,
        reader: &[Part<'_>],
        writer: &[Part<'_>],
        path: &str,
    ) -> Result<(), Exhausted> {
        if part.get("unevaluatedProperties").is_none() || self.is_lenient {
            return Ok(());
        }
        let wanted = part.below(&["unevaluatedProperties"], self.budget)?;
        for name in writer.iter().flat_map(Part::properties).collect::<BTreeSet<_>>() {
            let (written, _) = self.written(name, writer)?;
            let is_known = reader.iter().any(|part| part.has_property(name));
            if !is_known && !self.holds(&wanted, &written, path)? {
                let words = "the writer may write a property that the reader does not let in";
                self.say("PROPERTY_REMOVED_FROM_CLOSED_CONTENT_MODEL", &format!("{path}/properties/{name}"), words);
            }
        }
        let mut rest = Vec::new();
        for written in writer {
            for keyword in ["additionalProperties", "unevaluatedProperties"] {
                if written.get(keyword).is_some() {
                    rest.extend(written.below(&[keyword], self.budget)?);
                }
            }
        }
        if !self.holds(&wanted, &rest, path)? {
            let words = "the writer may write properties that neither names, and the reader does not let them in";
            self.say("UNEVALUATED_PROPERTIES_REMOVED", &format!("{path}/unevaluatedProperties"), words);
        }
        Ok(())
    }

    fn required(&mut self, part: &Part<'_>, writer: &[Part<'_>], path: &str) {
        let written: BTreeSet<&str> = writer.iter().flat_map(Part::required).collect();
        for name in part.required().difference(&written) {
            let has_default = part.get("properties").and_then(|all| all.get(*name)?.get("default")).is_some();
            if !has_default {
                let words = "the reader requires a property that the writer may leave out";
                self.say("REQUIRED_ATTRIBUTE_ADDED", &format!("{path}/required/{name}"), words);
            }
        }
    }

    /// `dependentRequired`, `dependentSchemas`, and draft-07's `dependencies`, which is both.
    fn dependent(&mut self, part: &Part<'_>, writer: &[Part<'_>], path: &str) -> Result<(), Exhausted> {
        let always: BTreeSet<&str> = writer.iter().flat_map(Part::required).collect();
        for keyword in ["dependentRequired", "dependentSchemas", "dependencies"] {
            let Some(wanted) = part.get(keyword).and_then(Value::as_object) else { continue };
            for (name, needs) in wanted {
                let path = format!("{path}/{keyword}/{name}");
                if let Some(needs) = needs.as_array() {
                    let theirs =
                        writer.iter().filter_map(|written| written.get(keyword)?.get(name)?.as_array()).flatten();
                    let theirs: BTreeSet<&str> = theirs.filter_map(Value::as_str).collect();
                    let missing = |need: &&str| !theirs.contains(need) && !always.contains(need);
                    if needs.iter().filter_map(Value::as_str).any(|need| missing(&need)) {
                        self.say("DEPENDENCY_ARRAY_EXTENDED", &path, "the reader asks for more beside this property");
                    }
                    continue;
                }
                let wanted = part.below(&[keyword, name], self.budget)?;
                let mut given = writer.to_vec();
                for written in
                    writer.iter().filter(|written| written.get(keyword).is_some_and(|all| all.get(name).is_some()))
                {
                    given.extend(written.below(&[keyword, name], self.budget)?);
                }
                if !self.holds(&wanted, &given, &path)? {
                    self.say("DEPENDENCY_SCHEMA_ADDED", &path, "the reader asks for more beside this property");
                }
            }
        }
        Ok(())
    }

    pub(super) fn arrays(&mut self, part: &Part<'_>, writer: &[Part<'_>], path: &str) -> Result<(), Exhausted> {
        let (own, _, rest) = part.tuple();
        let theirs = writer.iter().map(|written| written.tuple().0).max().unwrap_or(0);
        let most = writer.iter().filter_map(|written| written.get("maxItems")?.as_u64()).min();
        let says = own > 0 || part.get(rest).is_some();
        // One more than there are first items: the rest.
        for at in (0..=own.max(theirs)).filter(|_| says) {
            if most.is_some_and(|most| at as u64 >= most) {
                break;
            }
            let wanted = part.item(at, self.budget)?;
            let mut written = Vec::new();
            for other in writer {
                written.extend(other.item(at, self.budget)?);
            }
            let path = if at < own.max(theirs) { format!("{path}/items/{at}") } else { format!("{path}/items") };
            if written.is_empty() && !wanted.is_empty() {
                if !self.holds(&wanted, &written, &path)? {
                    let words = "the reader says of items what the writer's open content model does not";
                    self.say("ITEM_ADDED_TO_OPEN_CONTENT_MODEL", &path, words);
                }
            } else if is_nothing(&wanted) && !is_nothing(&written) {
                let kind =
                    if at < theirs { "ITEM_REMOVED_FROM_CLOSED_CONTENT_MODEL" } else { "ADDITIONAL_ITEMS_REMOVED" };
                self.say(kind, &path, "the writer may write an item that the reader does not let in");
            } else {
                self.contains(&wanted, &written, &path)?;
            }
        }
        self.counts(part, writer, path, ("maxItems", "MAX_ITEMS"), ("minItems", "MIN_ITEMS"));
        let unique = |part: &Part<'_>| part.get("uniqueItems") == Some(&Value::Bool(true));
        if unique(part) && !writer.iter().any(unique) && most.is_none_or(|most| most > 1) {
            self.say(
                "UNIQUE_ITEMS_ADDED",
                &format!("{path}/uniqueItems"),
                "the reader wants items to differ and the writer does not",
            );
        }
        self.unevaluated_items(part, writer, path)?;
        self.containing(part, writer, path)
    }

    fn unevaluated_items(&mut self, part: &Part<'_>, writer: &[Part<'_>], path: &str) -> Result<(), Exhausted> {
        let Some(wanted) = part.get("unevaluatedItems") else { return Ok(()) };
        let alike =
            |written: &Part<'_>| written.get("unevaluatedItems") == Some(wanted) && written.tuple().0 == part.tuple().0;
        let open = part.below(&["unevaluatedItems"], self.budget)?.is_empty();
        if !open && part.get("items").is_none() && !writer.iter().any(alike) {
            let words = "the reader says of further items what the writer does not";
            self.say("UNEVALUATED_ITEMS_REMOVED", &format!("{path}/unevaluatedItems"), words);
        }
        Ok(())
    }

    fn containing(&mut self, part: &Part<'_>, writer: &[Part<'_>], path: &str) -> Result<(), Exhausted> {
        if part.get("contains").is_none() {
            return Ok(());
        }
        let wanted = part.below(&["contains"], self.budget)?;
        let number = |part: &Part<'_>, name: &str| part.get(name).and_then(Value::as_u64);
        let (least, most) = (number(part, "minContains").unwrap_or(1), number(part, "maxContains"));
        for written in writer.iter().filter(|written| written.get("contains").is_some()) {
            let theirs = written.below(&["contains"], self.budget)?;
            let enough = number(written, "minContains").unwrap_or(1) >= least;
            let same_kind = most.is_none()
                || (written.get("contains") == part.get("contains") && number(written, "maxContains") <= most);
            if enough && same_kind && self.holds(&wanted, &theirs, path)? {
                return Ok(());
            }
        }
        if least > 0 || most.is_some() {
            self.say(
                "CONTAINS_ADDED",
                &format!("{path}/contains"),
                "the reader asks for an item that the writer need not write",
            );
        }
        Ok(())
    }
}

/// Whether no property that nobody names can be written, by another keyword than `additionalProperties`.
fn closed_otherwise(writer: &[Part<'_>]) -> bool {
    writer
        .iter()
        .any(|part| members(part).any(|(name, value)| name == "unevaluatedProperties" && *value == Value::Bool(false)))
}
