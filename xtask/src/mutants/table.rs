//! The mutants: one line each, and the test that must fail.
//!
//! To add one: name what a reviewer would fear, quote a piece of the line that is in its file exactly once, and name
//! the narrowest `cargo test` arguments that must notice.

/// One way to break the code.
#[derive(Debug)]
pub(crate) struct Mutant {
    /// What it does wrong, in words.
    pub(crate) name: &'static str,
    /// The file, from the root.
    pub(crate) file: &'static str,
    /// A piece of text that is in the file exactly once.
    pub(crate) before: &'static str,
    /// What stands there instead.
    pub(crate) after: &'static str,
    /// Arguments of `cargo test`; this must fail.
    pub(crate) test: &'static str,
}

/// All of them.
pub(crate) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "a run of nothing is green",
        file: "xtask/src/tally.rs",
        before: "self.failed == 0 && self.passed > 0",
        after: "self.failed == 0",
        test: "-p xtask tally",
    },
    Mutant {
        name: "the log may use the broker",
        file: "xtask/src/tidy.rs",
        before: "(\"log\", &[\"clock\"]),",
        after: "(\"log\", &[\"clock\", \"broker\"]),",
        test: "-p xtask tidy",
    },
    Mutant {
        name: "a duplicate key goes through",
        file: "crates/mcp/src/scan.rs",
        before: "if let Some(key) = duplicate(keys) {",
        after: "if let Some(key) = duplicate(&mut keys[..0]) {",
        test: "-p cairn-mcp --lib scan",
    },
    Mutant {
        name: "what policy denies is permitted",
        file: "crates/policy/src/store.rs",
        before: "let outcome = if said.permit {",
        after: "let outcome = if said.permit || said.obligations.is_empty() {",
        test: "-p cairn-policy",
    },
    Mutant {
        name: "a forbid that cannot be evaluated is forgotten",
        file: "crates/policy/src/set.rs",
        before: "response.decision() == Decision::Allow && broken.is_empty();",
        after: "response.decision() == Decision::Allow;",
        test: "-p cairn-policy",
    },
];
