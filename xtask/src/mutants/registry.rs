//! The mutants of the schema registry: what it hands out, and what it calls compatible. Written like those of the table
//! beside it.

use super::table::Mutant;

/// All of them.
pub(crate) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "a registry that was replaced still counts",
        file: "crates/registry/src/store/state.rs",
        before: "                return Applied::Void;\n            }\n            (Some(_), None) => {}",
        after: "                return Applied::Effective;\n            }\n            (Some(_), None) => {}",
        test: "-p cairn-registry --lib store",
    },
    Mutant {
        name: "a registry's claim may be as high as the last one",
        file: "crates/registry/src/store/state.rs",
        before: "if claim <= self.claim && !same {",
        after: "if claim < self.claim && !same {",
        test: "-p cairn-registry --lib store",
    },
    Mutant {
        name: "a registry hands an id out again once its schema is gone",
        file: "crates/registry/src/store/state.rs",
        before: "let highest = self.contexts.get(context).map_or(0, |ids| ids.highest);",
        after: "let highest = self.contexts.get(context).and_then(|ids| ids.held.keys().max().copied()).unwrap_or(0);",
        test: "-p cairn-registry --lib store",
    },
    Mutant {
        name: "metadata is no part of a schema's digest",
        file: "crates/registry/src/digest.rs",
        before: "if let Some(metadata) = &content.metadata {",
        after: "if let Some(metadata) = content.metadata.as_ref().filter(|_| false) {",
        test: "-p cairn-registry --lib digest",
    },
    Mutant {
        name: "an Avro reader needs no default",
        file: "crates/registry/src/format/avro/resolution.rs",
        before: "None if field.has_default => {}",
        after: "None if field.has_default || !field.name.is_empty() => {}",
        test: "-p cairn-registry --lib avro",
    },
    Mutant {
        name: "a branch of an Avro union that is not read is passed over",
        file: "crates/registry/src/format/avro/resolution.rs",
        before: "                if !self.some_branch(branches, writer)? {",
        after: "                if self.some_branch(branches, writer)? && branches.is_empty() {",
        test: "-p cairn-registry --lib avro",
    },
    Mutant {
        name: "what a JSON Schema shows on the way to a difference stays shown",
        file: "crates/registry/src/format/json/containment.rs",
        before: "if self.found.len() == so_far {\n            return Ok(());\n        }\n        // What was shown",
        after: "if self.found.len() >= so_far {\n            return Ok(());\n        }\n        // What was shown",
        test: "-p cairn-registry --lib json",
    },
    Mutant {
        name: "an open JSON Schema may gain a property",
        file: "crates/registry/src/format/json/parts.rs",
        before: "} else if !self.is_lenient && !self.holds(&wanted, &written, &path)? {",
        after: "} else if self.is_lenient && !self.holds(&wanted, &written, &path)? {",
        test: "-p cairn-registry --lib json",
    },
    Mutant {
        name: "comparing schemas has no end",
        file: "crates/registry/src/budget.rs",
        before: "let left = self.steps.get().checked_sub(1).ok_or(Exhausted::Time)?;",
        after: "let left = self.steps.get().max(2) - 1;",
        test: "-p cairn-registry --lib budget",
    },
    Mutant {
        name: "a repeated number is read as a single one",
        file: "crates/registry/src/format/protobuf/wire.rs",
        before: "if many != was_many && ![\"bytes\", \"message\"]",
        after: "if many != was_many && ![\"bytes\", \"message\", \"varint\"]",
        test: "-p cairn-registry --lib protobuf",
    },
    Mutant {
        name: "a registry acknowledges what it did not read back",
        file: "crates/registry/src/store/topic.rs",
        before: "        self.read_to(offset + 1, WRITE_WITHIN).await?;\n        self.shared.unsure",
        after: "        self.shared.unsure",
        test: "-p cairn-registry --test registry what_is_registered",
    },
    Mutant {
        name: "a registry answers under every name",
        file: "crates/registry/src/api/guard.rs",
        before: "if let Err(fault) = (guard.names)(request.headers(), authority.as_deref()) {",
        after: "if let Some(fault) = (guard.names)(request.headers(), authority.as_deref()).err().filter(|_| false) {",
        test: "-p cairn-registry --test registry refusals",
    },
    Mutant {
        name: "a registry drops members that it does not know",
        file: "crates/registry/src/api/bodies.rs",
        before: "            _ => return Err(Refusal::malformed(format_args!(\"Unrecognized field: {name}\"))),\n        }\n    }\n    if !has_text",
        after: "            _ => {}\n        }\n    }\n    if !has_text",
        test: "-p cairn-registry --lib bodies",
    },
    Mutant {
        name: "what others refer to is deleted",
        file: "crates/registry/src/registry.rs",
        before: "if by.iter().any(|value| value.subject != subject && (permanent || !value.deleted)) {",
        after: "if by.iter().any(|value| value.subject == subject && (permanent || !value.deleted)) {",
        test: "-p cairn-registry --test registry deleting",
    },
];
