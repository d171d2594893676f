//! Whether a reader's JSON Schema lets in whatever a writer's lets in.
//!
//! The content models decide: what a writer's schema leaves open, a reader's must leave open too. A part of the reader's
//! schema holds where it follows from the writer's parts together; where it does not follow at once, the writer's alternatives
//! are tried one by one. What cannot be shown is a difference. `oneOf` is compared as `anyOf`: that alternatives exclude each
//! other is not looked at.
//!
//! With [`Policy::Lenient`] readers are taken to pass over properties that they do not know, and nobody to have written a
//! property of that name before it was declared: adding and removing optional properties is no difference then.

use indexmap::IndexSet;
use serde_json::Value;

use super::{
    Schema,
    view::{self, Part, PartKey, TYPES, expanded, is_nothing, of_type, refers, same},
};
use crate::{
    budget::{Budget, Exhausted},
    format::Difference,
    model::Policy,
};

/// Differences that are listed.
const LISTED_MAX: usize = 100;

/// Why `reader` refuses something that `writer` lets in; empty where it does not.
pub(crate) fn differences(
    reader: &Schema,
    writer: &Schema,
    policy: Policy,
    budget: &Budget,
) -> Result<Vec<Difference>, Exhausted> {
    let (reader, writer) = (&reader.documents, &writer.documents);
    let mut pass = Pass { budget, is_lenient: policy == Policy::Lenient, assumed: IndexSet::new(), found: Vec::new() };
    let (wide, narrow) = (expanded(reader, &reader.start(), budget)?, expanded(writer, &writer.start(), budget)?);
    pass.contains(&wide, &narrow, "#")?;
    let mut found = pass.found;
    found.dedup();
    found.truncate(LISTED_MAX);
    Ok(found)
}

pub(super) struct Pass<'b> {
    pub(super) budget: &'b Budget,
    pub(super) is_lenient: bool,
    /// What is being shown, or was: a schema may contain itself.
    assumed: IndexSet<(PartKey, Vec<PartKey>)>,
    pub(super) found: Vec<Difference>,
}

impl<'b> Pass<'b> {
    pub(super) fn say(&mut self, kind: &'static str, path: &str, words: impl Into<String>) {
        self.found.push(Difference { kind, path: path.to_owned(), words: words.into() });
    }

    /// Every part of the reader's must follow from the writer's.
    pub(super) fn contains(&mut self, reader: &[Part<'_>], writer: &[Part<'_>], path: &str) -> Result<(), Exhausted> {
        if is_nothing(writer) {
            return Ok(());
        }
        for part in reader {
            self.follows(part, reader, writer, path)?;
        }
        Ok(())
    }

    /// Whether all of it holds, without saying why it does not.
    pub(super) fn holds(&mut self, reader: &[Part<'_>], writer: &[Part<'_>], path: &str) -> Result<bool, Exhausted> {
        let held = std::mem::take(&mut self.found);
        let tried = self.contains(reader, writer, path);
        let holds = std::mem::replace(&mut self.found, held).is_empty();
        tried.map(|()| holds)
    }

    fn follows(
        &mut self,
        part: &Part<'_>,
        reader: &[Part<'_>],
        writer: &[Part<'_>],
        path: &str,
    ) -> Result<(), Exhausted> {
        let budget = self.budget;
        let _level = budget.deeper()?;
        if writer.iter().any(|written| written.value == part.value && !refers(part.value)) {
            return Ok(());
        }
        let pair = (part.key(), writer.iter().map(Part::key).collect());
        let before = self.assumed.len();
        if !self.assumed.insert(pair) {
            return Ok(());
        }
        let so_far = self.found.len();
        self.keywords(part, reader, writer, path)?;
        self.alternatives(part, writer, path)?;
        if self.found.len() == so_far {
            return Ok(());
        }
        // What was shown on the way may stand on what turned out wrong.
        self.assumed.truncate(before);
        let direct = self.found.split_off(so_far);
        match self.split(part, reader, writer, path)? {
            true => Ok(()),
            false => {
                if self.found.len() == so_far {
                    self.found.extend(direct);
                }
                Ok(())
            }
        }
    }

    /// Tries the writer's alternatives one by one. False where there are none, or where one of them does not do; then it is
    /// said why.
    fn split(
        &mut self,
        part: &Part<'_>,
        reader: &[Part<'_>],
        writer: &[Part<'_>],
        path: &str,
    ) -> Result<bool, Exhausted> {
        let so_far = self.found.len();
        for (at, written) in writer.iter().enumerate().filter(|(_, written)| !written.is_split) {
            for keyword in ["anyOf", "oneOf"] {
                let Some(branches) = written.get(keyword).and_then(Value::as_array) else { continue };
                for branch in 0..branches.len() {
                    let mut narrowed = writer.to_vec();
                    narrowed[at].is_split = true;
                    narrowed.extend(written.below(&[keyword, &branch.to_string()], self.budget)?);
                    if !is_nothing(&narrowed) {
                        self.follows(part, reader, &narrowed, path)?;
                    }
                }
                return Ok(self.found.len() == so_far);
            }
        }
        Ok(false)
    }

    /// `anyOf` and `oneOf` of the reader's: one of them must do for all that is written, or for each type of it one.
    fn alternatives(&mut self, part: &Part<'_>, writer: &[Part<'_>], path: &str) -> Result<(), Exhausted> {
        for keyword in ["anyOf", "oneOf"] {
            let Some(branches) = part.get(keyword).and_then(Value::as_array) else { continue };
            if self.some_branch(part, keyword, branches.len(), writer, path)? {
                continue;
            }
            let types = view::types(writer);
            let mut fits = types.len() > 1 && types.len() < TYPES.len();
            for name in types.iter().take_while(|_| types.len() > 1) {
                let mut narrowed = writer.to_vec();
                narrowed.push(of_type(part.documents, name));
                fits = fits && self.some_branch(part, keyword, branches.len(), &narrowed, path)?;
            }
            if !fits {
                let words = "none of the reader's alternatives lets in all that the writer's schema does";
                self.say("SUM_TYPE_NARROWED", &format!("{path}/{keyword}"), words);
            }
        }
        Ok(())
    }

    fn some_branch(
        &mut self,
        part: &Part<'_>,
        keyword: &str,
        branches: usize,
        writer: &[Part<'_>],
        path: &str,
    ) -> Result<bool, Exhausted> {
        for branch in 0..branches {
            let branch = part.below(&[keyword, &branch.to_string()], self.budget)?;
            if self.holds(&branch, writer, path)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn keywords(
        &mut self,
        part: &Part<'_>,
        reader: &[Part<'_>],
        writer: &[Part<'_>],
        path: &str,
    ) -> Result<(), Exhausted> {
        if *part.value == Value::Bool(false) {
            self.say("SCHEMA_REMOVED", path, "the reader's schema lets nothing in");
            return Ok(());
        }
        self.types(part, writer, path);
        self.values(part, writer, path);
        let types = view::types(writer);
        if types.contains("number") || types.contains("integer") {
            self.numbers(part, writer, path);
        }
        if types.contains("string") {
            self.strings(part, writer, path);
        }
        if types.contains("array") {
            self.arrays(part, writer, path)?;
        }
        if types.contains("object") {
            self.objects(part, reader, writer, path)?;
        }
        self.negation(part, writer, path)?;
        self.condition(part, writer, path)
    }

    fn types(&mut self, part: &Part<'_>, writer: &[Part<'_>], path: &str) {
        if part.get("type").is_none() {
            return;
        }
        let wanted = view::types(std::slice::from_ref(part));
        let taken = |name: &&&str| wanted.contains(**name) || (**name == "integer" && wanted.contains("number"));
        let written = view::types(writer);
        let missing: Vec<&str> = written.iter().filter(|name| !taken(name)).copied().collect();
        if missing.len() == written.len() {
            self.say(
                "TYPE_CHANGED",
                path,
                format!("the writer writes {}, which the reader does not take", missing.join(", ")),
            );
        } else if !missing.is_empty() {
            let words = format!("the writer may write {}, which the reader does not take", missing.join(", "));
            self.say("TYPE_NARROWED", path, words);
        }
    }

    fn values(&mut self, part: &Part<'_>, writer: &[Part<'_>], path: &str) {
        let wanted = match (part.get("const"), part.get("enum")) {
            (Some(value), _) => vec![value],
            (None, Some(Value::Array(values))) => values.iter().collect(),
            _ => return,
        };
        let Some(written) = view::values(writer) else {
            self.say(
                "ENUM_ARRAY_CHANGED",
                &format!("{path}/enum"),
                "the reader takes listed values only and the writer writes others",
            );
            return;
        };
        let missing = written.iter().filter(|value| !wanted.iter().any(|wanted| same(value, wanted)));
        let missing: Vec<String> = missing.take(10).map(ToString::to_string).collect();
        if !missing.is_empty() {
            let words = format!("the reader's values lack {}", missing.join(", ").replace('"', "'"));
            self.say("ENUM_ARRAY_NARROWED", &format!("{path}/enum"), words);
        }
    }

    fn numbers(&mut self, part: &Part<'_>, writer: &[Part<'_>], path: &str) {
        let own = std::slice::from_ref(part);
        if let Some((limit, open)) = bound(own, "maximum", "exclusiveMaximum", f64::min) {
            let within = bound(writer, "maximum", "exclusiveMaximum", f64::min);
            if within.is_none_or(|(other, other_open)| other > limit || (other == limit && open && !other_open)) {
                self.limit("MAXIMUM", within.is_some(), "DECREASED", &format!("{path}/maximum"));
            }
        }
        if let Some((limit, open)) = bound(own, "minimum", "exclusiveMinimum", f64::max) {
            let within = bound(writer, "minimum", "exclusiveMinimum", f64::max);
            if within.is_none_or(|(other, other_open)| other < limit || (other == limit && open && !other_open)) {
                self.limit("MINIMUM", within.is_some(), "INCREASED", &format!("{path}/minimum"));
            }
        }
        if let Some(step) = part.get("multipleOf").and_then(Value::as_f64) {
            let is_multiple = |other: f64| step != 0.0 && (other / step).fract() == 0.0;
            let steps = writer.iter().filter_map(|written| written.get("multipleOf")?.as_f64());
            let whole = !view::types(writer).contains("number");
            if !(steps.clone().any(is_multiple) || whole && is_multiple(1.0)) {
                self.limit("MULTIPLE_OF", steps.count() > 0, "CHANGED", &format!("{path}/multipleOf"));
            }
        }
    }

    fn strings(&mut self, part: &Part<'_>, writer: &[Part<'_>], path: &str) {
        self.counts(part, writer, path, ("maxLength", "MAX_LENGTH"), ("minLength", "MIN_LENGTH"));
        if let Some(pattern) = part.get("pattern") {
            let written = || writer.iter().filter_map(|written| written.get("pattern"));
            let listed = view::values(writer);
            let all_match = listed.is_some_and(|values| {
                let text = pattern.as_str().unwrap_or_default();
                values.iter().filter_map(|value| value.as_str()).all(|value| view::matches(text, value) == Some(true))
            });
            if !all_match && !written().any(|other| other == pattern) {
                let kind = if written().count() > 0 { "PATTERN_CHANGED" } else { "PATTERN_ADDED" };
                self.say(kind, &format!("{path}/pattern"), "the reader's pattern is not the writer's");
            }
        }
    }

    /// An upper and a lower bound of a count.
    pub(super) fn counts(
        &mut self,
        part: &Part<'_>,
        writer: &[Part<'_>],
        path: &str,
        (most, most_kind): (&str, &str),
        (least, least_kind): (&str, &str),
    ) {
        let number = |part: &Part<'_>, name: &str| part.get(name).and_then(Value::as_f64);
        if let Some(bound) = number(part, most) {
            let within = writer.iter().filter_map(|written| number(written, most)).reduce(f64::min);
            if within.is_none_or(|within| within > bound) {
                self.limit(most_kind, within.is_some(), "DECREASED", &format!("{path}/{most}"));
            }
        }
        if let Some(bound) = number(part, least).filter(|bound| *bound > 0.0) {
            let within = writer.iter().filter_map(|written| number(written, least)).reduce(f64::max);
            if within.is_none_or(|within| within < bound) {
                self.limit(least_kind, within.is_some(), "INCREASED", &format!("{path}/{least}"));
            }
        }
    }

    /// A bound that is new, or tighter.
    fn limit(&mut self, keyword: &str, was_there: bool, how: &str, path: &str) {
        let how = if was_there { how } else { "ADDED" };
        let kind = LIMITS.iter().find(|kind| **kind == format!("{keyword}_{how}")).copied().unwrap_or("LIMIT_CHANGED");
        let words = if was_there {
            "the reader's bound is tighter than the writer's"
        } else {
            "the reader has a bound and the writer has none"
        };
        self.say(kind, path, words);
    }

    fn negation(&mut self, part: &Part<'_>, writer: &[Part<'_>], path: &str) -> Result<(), Exhausted> {
        if part.get("not").is_none() {
            return Ok(());
        }
        let excluded = part.below(&["not"], self.budget)?;
        let both: Vec<Part<'_>> = writer.iter().cloned().chain(excluded.iter().cloned()).collect();
        if is_nothing(&both) && !excluded.is_empty() {
            return Ok(());
        }
        for written in writer.iter().filter(|written| written.get("not").is_some()) {
            let theirs = written.below(&["not"], self.budget)?;
            if self.holds(&theirs, &excluded, path)? {
                return Ok(());
            }
        }
        self.say("NOT_TYPE_EXTENDED", &format!("{path}/not"), "the reader excludes what the writer does not");
        Ok(())
    }

    fn condition(&mut self, part: &Part<'_>, writer: &[Part<'_>], path: &str) -> Result<(), Exhausted> {
        if part.get("if").is_none() {
            return Ok(());
        }
        let keywords = ["if", "then", "else"];
        let alike = |written: &Part<'_>| {
            keywords.iter().all(|name| part.get(name) == written.get(name) && !part.get(name).is_some_and(refers))
        };
        if writer.iter().any(alike) {
            return Ok(());
        }
        for keyword in keywords.into_iter().skip(1).filter(|name| part.get(name).is_some()) {
            let branch = part.below(&[keyword], self.budget)?;
            if !self.holds(&branch, writer, path)? {
                let words = "the reader's condition is not the writer's";
                self.say("COMBINED_TYPE_CHANGED", &format!("{path}/if"), words);
                return Ok(());
            }
        }
        Ok(())
    }
}

/// The kinds of bounds that are tighter.
const LIMITS: [&str; 23] = [
    "MAXIMUM_ADDED",
    "MAXIMUM_DECREASED",
    "MINIMUM_ADDED",
    "MINIMUM_INCREASED",
    "MULTIPLE_OF_ADDED",
    "MULTIPLE_OF_CHANGED",
    "MAX_LENGTH_ADDED",
    "MAX_LENGTH_DECREASED",
    "MIN_LENGTH_ADDED",
    "MIN_LENGTH_INCREASED",
    "MAX_ITEMS_ADDED",
    "MAX_ITEMS_DECREASED",
    "MIN_ITEMS_ADDED",
    "MIN_ITEMS_INCREASED",
    "MAX_PROPERTIES_ADDED",
    "MAX_PROPERTIES_DECREASED",
    "MIN_PROPERTIES_ADDED",
    "MIN_PROPERTIES_INCREASED",
    "MAX_CONTAINS_ADDED",
    "MAX_CONTAINS_DECREASED",
    "MIN_CONTAINS_ADDED",
    "MIN_CONTAINS_INCREASED",
    "LIMIT_CHANGED",
];

/// The tightest bound of all parts, and whether the bound itself is excluded.
fn bound(
    parts: &[Part<'_>],
    closed: &str,
    open: &str,
    tighter: impl Fn(f64, f64) -> f64 + Copy,
) -> Option<(f64, bool)> {
    let mut found: Option<(f64, bool)> = None;
    for part in parts {
        let limit = part.get(closed).and_then(Value::as_f64);
        let strict = part.get(open);
        // Draft-04 says by true or false whether the bound is excluded.
        let flagged = strict.and_then(Value::as_bool).unwrap_or(false);
        let candidates =
            [limit.map(|limit| (limit, flagged)), strict.and_then(Value::as_f64).map(|limit| (limit, true))];
        for (limit, is_open) in candidates.into_iter().flatten() {
            found = Some(match found {
                Some((old, was_open)) if old == limit => (old, was_open || is_open),
                Some((old, was_open)) if tighter(old, limit) == old => (old, was_open),
                _ => (limit, is_open),
            });
        }
    }
    found
}
