//! The mutants of contracts: what may change in them, and what breaks one. Written like those of the table beside it.

use super::table::Mutant;

/// All of them.
pub(crate) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "an event that breaks its contract is written",
        file: "crates/contract/src/draft.rs",
        before: "if faults.is_empty() {",
        after: "if faults.is_empty() || !value.is_null() {",
        test: "-p cairn --test commands contracts",
    },
    Mutant {
        name: "a refused event leaves a gap",
        file: "crates/backbone/src/recorder/lane.rs",
        before: "Err(error @ SealError::Contract { .. }) => Err((self.id, error, self.reply)),",
        after: "Err(error @ SealError::Contract { version: 0, .. }) => Err((self.id, error, self.reply)),",
        test: "-p cairn --test commands contracts",
    },
    Mutant {
        name: "a fault tells the value",
        file: "crates/contract/src/validator.rs",
        before: "self.fault(|| \"is none of the values that it may be\".to_owned());",
        after: "self.fault(|| format!(\"is {value}\"));",
        test: "-p cairn-contract --lib validator",
    },
    Mutant {
        name: "a pattern is not enforced",
        file: "crates/contract/src/validator.rs",
        before: "filter(|pattern| !pattern.is_match(text))",
        after: "filter(|pattern| !pattern.is_match(text) && text.is_empty())",
        test: "-p cairn-contract --lib validator",
    },
    Mutant {
        name: "a value that is allowed no more breaks nobody",
        file: "crates/contract/src/compatibility.rs",
        before: "self.say(at, format!(\"may be {value:?} no more\"), true);",
        after: "self.say(at, format!(\"may be {value:?} no more\"), false);",
        test: "-p cairn-contract --lib compatibility",
    },
    Mutant {
        name: "an intent of what was not sent is put back",
        file: "crates/operators/src/custody.rs",
        before: "if event_type == EventType::CallIntent {",
        after: "if event_type == EventType::CallIntent && whole.is_null() {",
        test: "-p cairn --test commands contracts",
    },
    Mutant {
        name: "a published contract may be another text",
        file: "crates/cairn/src/contracts.rs",
        before: "Some(known) if is_same(known, &text) => {}",
        after: "Some(known) if is_same(known, &text) || version > 1 => {}",
        test: "-p cairn --test commands published_contract",
    },
];
