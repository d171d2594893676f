//! The mutants of data sets and of the lake: what belongs to a row, what may stand in it, and what makes it the same again. Written like
//! those of the table beside it.

use super::table::Mutant;

/// All of them.
pub(crate) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "a model call of another tenant chose it",
        file: "crates/evaluate/src/gather.rs",
        before: "if !self.traces.contains(&(said.tenant.clone(), trace.clone())) || !self.is_new(event) {",
        after: "if !self.traces.iter().any(|(_, of)| *of == trace) || !self.is_new(event) {",
        test: "-p cairn-evaluate --lib across_tenants",
    },
    Mutant {
        name: "whoever names a call has acted for it",
        file: "crates/evaluate/src/gather.rs",
        before: "if self.calls[index].row.tenant != said.tenant || !self.is_new(event) {",
        after: "if !self.is_new(event) {",
        test: "-p cairn-evaluate --lib across_tenants",
    },
    Mutant {
        name: "a choice leads to every call after it",
        file: "crates/evaluate/src/choosing.rs",
        before: "!choice.is_led && choice.chosen.call_id.is_none()",
        after: "choice.chosen.call_id.is_none()",
        test: "-p cairn-evaluate --lib newest_choice",
    },
    Mutant {
        name: "the erased keep their texts in data sets",
        file: "crates/evaluate/src/gather.rs",
        before: "if row.erased || !self.options.inline {",
        after: "if !self.options.inline {",
        test: "-p cairn-evaluate --lib never_of_the_erased",
    },
    Mutant {
        name: "erased of one tenant, erased of all",
        file: "crates/evaluate/src/gather.rs",
        before: "self.erased.get(&(row.tenant.clone(), row.principal.clone()));",
        after: "self.erased.iter().find(|((_, who), _)| *who == row.principal).map(|(_, at)| at);",
        test: "-p cairn-evaluate --lib never_of_the_erased",
    },
    Mutant {
        name: "an event that lies twice counts twice in data sets",
        file: "crates/evaluate/src/gather.rs",
        before: "        is_new\n    }",
        after: "        is_new || self.counts.duplicates > 0\n    }",
        test: "-p cairn-evaluate --lib lies_twice",
    },
    Mutant {
        name: "the last outcome of a call counts in data sets",
        file: "crates/evaluate/src/gather.rs",
        before: "\"call.outcome\" if row.outcome.is_none() => ended(row, said),",
        after: "\"call.outcome\" => ended(row, said),",
        test: "-p cairn-evaluate --lib lies_twice",
    },
    Mutant {
        name: "a topic that was made anew is taken for the old one",
        file: "crates/evaluate/src/reading.rs",
        before: "let is_another = !range.topic_id.is_empty() && !id.is_empty() && range.topic_id != id;",
        after: "let is_another = range.topic_id.is_empty() && !id.is_empty();",
        test: "-p cairn-evaluate --lib told_apart",
    },
    Mutant {
        name: "erasures since a data set was made are not looked for",
        file: "crates/evaluate/src/reading.rs",
        before: "let to = if is_of_operators(&range.topic) { now.end } else { range.to.min(now.end) };",
        after: "let to = range.to.min(now.end);",
        test: "-p cairn-evaluate --lib told_apart",
    },
    Mutant {
        name: "costs are rounded",
        file: "crates/evaluate/src/prices.rs",
        before: "Some(Parts(of(read, input)?.checked_add(of(written, output)?)?).to_string())",
        after: "Some(Parts((of(read, input)?.checked_add(of(written, output)?)?) / 10_000_000_000 * 10_000_000_000).to_string())",
        test: "-p cairn-evaluate --lib exact",
    },
];
