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
    Mutant {
        name: "adopt shows the values of variables and headers",
        file: "crates/cairn/src/adopt/shown.rs",
        before: "\"env\" | \"headers\" =>",
        after: "\"no-env\" | \"no-headers\" =>",
        test: "-p cairn --test commands adopt",
    },
    Mutant {
        name: "undo loses what was written since",
        file: "crates/cairn/src/adopt/copies.rs",
        before: "if changed && !force {",
        after: "if changed && force {",
        test: "-p cairn --test commands adopt",
    },
    Mutant {
        name: "a new operator's token is printed into a file",
        file: "crates/cairn/src/token.rs",
        before: "if output_is_a_file() {",
        after: "if !output_is_a_file() {",
        test: "-p cairn --test commands token",
    },
    Mutant {
        name: "a wrap of another version is served",
        file: "crates/cairn/src/wrap/serve.rs",
        before: "if version != VERSION {",
        after: "if version.is_empty() {",
        test: "-p cairn --test commands another_version",
    },
    Mutant {
        name: "a workflow of wraps ends with every message that is no request",
        file: "crates/gateway/src/shared_workflow.rs",
        before: "|current: &Current| !is_request || now",
        after: "|current: &Current| is_request && now",
        test: "-p cairn-gateway --lib shared_workflow",
    },
    Mutant {
        name: "a server that cannot start leaves the client waiting",
        file: "crates/gateway/src/door/unserved.rs",
        before: "if message.kind() != Kind::Request {",
        after: "if message.kind() == Kind::Request {",
        test: "-p cairn-gateway --lib unserved",
    },
    Mutant {
        name: "an error shows the value that was wrong",
        file: "crates/cairn/src/faults.rs",
        before: "with_nearest(&without_values(error.message()))",
        after: "with_nearest(error.message())",
        test: "-p cairn --bin cairn config",
    },
];
