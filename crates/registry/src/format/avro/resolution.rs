//! Whether a reader's Avro schema reads what a writer's wrote: the rules of "Schema Resolution" in Avro's specification.

use std::collections::HashSet;

use super::{
    Schema,
    node::{Decimal, Definition, Definitions, Field, Node, Shape},
};
use crate::{
    budget::{Budget, Exhausted},
    format::Difference,
};

/// Differences that are listed; more would not help anybody.
const LISTED_MAX: usize = 100;

/// Why `reader` does not read what `writer` wrote; empty where it does.
pub(crate) fn differences(reader: &Schema, writer: &Schema, budget: &Budget) -> Result<Vec<Difference>, Exhausted> {
    let mut pass = Pass {
        reader: &reader.definitions,
        writer: &writer.definitions,
        budget,
        assumed: HashSet::new(),
        found: Vec::new(),
    };
    pass.node(&reader.root, &writer.root, "/")?;
    pass.found.truncate(LISTED_MAX);
    Ok(pass.found)
}

struct Pass<'a> {
    reader: &'a Definitions,
    writer: &'a Definitions,
    budget: &'a Budget,
    /// Pairs of named types that are being compared, or were: a type may contain itself.
    assumed: HashSet<(String, String)>,
    found: Vec<Difference>,
}

/// What a writer's primitive may be read as.
fn promotes(reader: &str, writer: &str) -> bool {
    reader == writer
        || matches!(
            (writer, reader),
            ("int", "long" | "float" | "double")
                | ("long", "float" | "double")
                | ("float", "double")
                | ("string", "bytes")
                | ("bytes", "string")
        )
}

impl Pass<'_> {
    fn say(&mut self, kind: &'static str, path: &str, words: String) {
        self.found.push(Difference { kind, path: path.to_owned(), words });
    }

    fn node(&mut self, reader: &Node, writer: &Node, path: &str) -> Result<(), Exhausted> {
        let budget = self.budget;
        let _level = budget.deeper()?;
        match (reader, writer) {
            (Node::Union(_), Node::Union(branches)) => {
                for (at, branch) in branches.iter().enumerate() {
                    self.node(reader, branch, &format!("{path}{at}/"))?;
                }
            }
            (_, Node::Union(branches)) => {
                for (at, branch) in branches.iter().enumerate() {
                    self.node(reader, branch, &format!("{path}{at}/"))?;
                }
            }
            (Node::Union(branches), _) => {
                if !self.some_branch(branches, writer)? {
                    let words = format!("the reader's union has no branch that reads {}", self.name(writer));
                    self.say("MISSING_UNION_BRANCH", path, words);
                }
            }
            (Node::Primitive(to, its), Node::Primitive(from, theirs)) if promotes(to, from) => {
                self.decimals(*its, *theirs, path);
            }
            (Node::Array(to), Node::Array(from)) => self.node(to, from, &format!("{path}items/"))?,
            (Node::Map(to), Node::Map(from)) => self.node(to, from, &format!("{path}values/"))?,
            (Node::Named(to), Node::Named(from)) => self.definitions(to, from, path)?,
            _ => {
                let words =
                    format!("the reader wants {} where the writer wrote {}", self.name(reader), self.name(writer));
                self.say("TYPE_MISMATCH", path, words);
            }
        }
        Ok(())
    }

    /// Tries each branch by itself; what a branch that does not fit would say is not said.
    fn some_branch(&mut self, branches: &[Node], writer: &Node) -> Result<bool, Exhausted> {
        for branch in branches {
            let before = self.assumed.clone();
            let held = std::mem::take(&mut self.found);
            let tried = self.node(branch, writer, "/");
            let fits = self.found.is_empty();
            self.found = held;
            tried?;
            if fits {
                return Ok(true);
            }
            self.assumed = before;
        }
        Ok(false)
    }

    fn decimals(&mut self, reader: Option<Decimal>, writer: Option<Decimal>, path: &str) {
        if let (Some(to), Some(from)) = (reader, writer)
            && to != from
        {
            let words = format!(
                "a decimal of precision {} and scale {} is not read as one of precision {} and scale {}",
                from.precision, from.scale, to.precision, to.scale
            );
            self.say("DECIMAL_MISMATCH", path, words);
        }
    }

    fn definitions(&mut self, to: &str, from: &str, path: &str) -> Result<(), Exhausted> {
        if !self.assumed.insert((to.to_owned(), from.to_owned())) {
            return Ok(());
        }
        let (Some(reader), Some(writer)) = (self.reader.get(to), self.writer.get(from)) else {
            self.say("TYPE_MISMATCH", path, format!("{to} or {from} is not defined"));
            return Ok(());
        };
        let same_kind = std::mem::discriminant(&reader.shape) == std::mem::discriminant(&writer.shape);
        if !same_kind {
            self.say(
                "TYPE_MISMATCH",
                path,
                format!("{} and {} are types of different kinds", reader.name, writer.name),
            );
            return Ok(());
        }
        if !same_name(reader, writer) {
            let words = format!("the reader expects the name {} and the writer's is {}", reader.name, writer.name);
            self.say("NAME_MISMATCH", &format!("{path}name"), words);
        }
        match (&reader.shape, &writer.shape) {
            (Shape::Record(to), Shape::Record(from)) => self.fields(to, from, path)?,
            (Shape::Enum { symbols: to, default }, Shape::Enum { symbols: from, .. }) => {
                let missing: Vec<&str> =
                    from.iter().filter(|symbol| !to.contains(symbol)).map(String::as_str).collect();
                if default.is_none() && !missing.is_empty() {
                    let words = format!("the reader's enum lacks {} and has no default", missing.join(", "));
                    self.say("MISSING_ENUM_SYMBOLS", &format!("{path}symbols"), words);
                }
            }
            (Shape::Fixed { size: to, decimal: its }, Shape::Fixed { size: from, decimal: theirs }) => {
                if to != from {
                    let words = format!("the reader's size is {to} and the writer's {from}");
                    self.say("FIXED_SIZE_MISMATCH", &format!("{path}size"), words);
                }
                self.decimals(*its, *theirs, path);
            }
            _ => {}
        }
        Ok(())
    }

    fn fields(&mut self, reader: &[Field], writer: &[Field], path: &str) -> Result<(), Exhausted> {
        for (at, field) in reader.iter().enumerate() {
            let by_name = writer.iter().find(|written| written.name == field.name);
            let found = by_name.or_else(|| writer.iter().find(|written| field.aliases.contains(&written.name)));
            match found {
                Some(written) => self.node(&field.node, &written.node, &format!("{path}fields/{at}/type/"))?,
                None if field.has_default => {}
                None => {
                    let words =
                        format!("the reader's field {} has no default and the writer does not write it", field.name);
                    self.say("READER_FIELD_MISSING_DEFAULT_VALUE", &format!("{path}fields/{at}"), words);
                }
            }
        }
        Ok(())
    }

    fn name(&self, node: &Node) -> String {
        match node {
            Node::Primitive(name, _) | Node::Named(name) => name.clone(),
            Node::Array(_) => "an array".to_owned(),
            Node::Map(_) => "a map".to_owned(),
            Node::Union(_) => "a union".to_owned(),
        }
    }
}

/// The specification compares the names without their namespaces, or an alias of the reader's.
fn same_name(reader: &Definition, writer: &Definition) -> bool {
    reader.unqualified() == writer.unqualified() || reader.aliases.contains(&writer.name)
}
