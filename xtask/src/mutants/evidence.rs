//! The mutants of evidence: what signs the trail and what verifies it. Written like those of the table beside it.

use super::table::Mutant;

/// All of them.
pub(crate) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "a tree is signed before its leaves are kept",
        file: "crates/evidence/src/store.rs",
        before: "        self.flush()?;\n        let root",
        after: "        let root",
        test: "-p cairn-evidence --lib store",
    },
    Mutant {
        name: "the verifier believes a tree of another root",
        file: "crates/verify/src/partition.rs",
        before: "edge.size() == size && edge.root() == checkpoint.signed.root",
        after: "edge.size() == size",
        test: "-p cairn-verify --lib every_way_to_spoil_a_trail",
    },
    Mutant {
        name: "the verifier follows a chain without looking at its links",
        file: "crates/verify/src/chain.rs",
        before: "is_some_and(|text| is_hex_of(text, &last.link))",
        after: "is_some()",
        test: "-p cairn-verify --lib chain_alone",
    },
    Mutant {
        name: "the verifier leaves out what it gathered last",
        file: "crates/verify/src/partition.rs",
        before: "        self.judge();\n        // Nothing more comes",
        after: "        // Nothing more comes",
        test: "-p cairn-verify --lib a_good_trail",
    },
    Mutant {
        name: "the verifier compares a checkpoint before its last leaves are in the tree",
        file: "crates/verify/src/partition.rs",
        before: "        self.grown();\n        let known",
        after: "        let known",
        test: "-p cairn-verify --lib a_good_trail",
    },
    Mutant {
        name: "a bundle is believed without its last proof",
        file: "crates/verify/src/bundle.rs",
        before: "self.is_proven = before.as_ref() == Some(edge);",
        after: "self.is_proven = before.is_none() || before.is_some();",
        test: "-p cairn-verify --lib every_way_to_spoil_a_bundle",
    },
    Mutant {
        name: "a rotation is followed without the old key",
        file: "crates/verify/src/note.rs",
        before: "let Some(line) = self.keys.iter().find(|(key, _)| *key == old).map(|(_, line)| *line) else {",
        after: "let Some(line) = Some(0) else {",
        test: "-p cairn-verify --lib rotation",
    },
    Mutant {
        name: "a checkpoint that does not extend the one before is taken",
        file: "crates/verify/src/checkpoint.rs",
        before: "if size < last.signed.size || !holds ||",
        after: "if size < last.signed.size ||",
        test: "-p cairn-verify --lib fork",
    },
    Mutant {
        name: "whoever writes belongs to the trail",
        file: "crates/verify/src/checkpoint.rs",
        before: "if !self.vouched.allows(&sighting.id, sighting.epoch) {",
        after: "if !self.vouched.allows(&sighting.id, sighting.epoch) && sighting.epoch > 9 {",
        test: "-p cairn-verify --lib nobody_vouches_for",
    },
    Mutant {
        name: "a proof is believed without its path",
        file: "crates/verify/src/proof.rs",
        before: "if !is_proven {",
        after: "if !is_proven && proof.path.is_empty() {",
        test: "-p cairn-verify --lib a_proof_says",
    },
    Mutant {
        name: "a running collector never goes over to the next key",
        file: "crates/evidence/src/collector.rs",
        before: "if now.rotations.len() > keys.rotations.len() {",
        after: "if now.rotations.len() > keys.rotations.len() + 9 {",
        test: "-p cairn --test commands keys_rotate_under_load",
    },
    Mutant {
        name: "a log that is not the signed one is signed on",
        file: "crates/evidence/src/collector.rs",
        before: "        log.is_halted = true;",
        after: "        log.again = None;",
        test: "-p cairn --test commands evidence_live::two_histories",
    },
];
