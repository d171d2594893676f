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
        name: "the spool acknowledges before it has synced",
        file: "crates/backbone/src/kafka/spool.rs",
        before: "try_for_each(|frame| self.file.write(frame)).and_then(|()| self.file.sync());",
        after: "try_for_each(|frame| self.file.write(frame));",
        test: "-p cairn-backbone --lib spool",
    },
    Mutant {
        name: "a delivered part of the spool goes before its history is written",
        file: "crates/backbone/src/kafka/mod.rs",
        before: "if trims && let Err(error) = self.history.lock().save(&self.folder) {",
        after: "if trims && false && let Err(error) = self.history.lock().save(&self.folder) {",
        test: "-p cairn-backbone --test kafka goes_on_from_the_spool",
    },
    Mutant {
        name: "the history forgets a call that is open",
        file: "crates/backbone/src/kafka/history.rs",
        before: "None => entries.push(entry),",
        after: "None => {}",
        test: "-p cairn-backbone --lib spool_kept",
    },
    Mutant {
        name: "delivery resumes one event too early",
        file: "crates/backbone/src/kafka/deliver.rs",
        before: "if !already.is_empty() && already.remove(&link(record)) {",
        after: "if already.len() > 1 && already.remove(&link(record)) {",
        test: "-p cairn-backbone --test kafka kill_nine",
    },
    Mutant {
        name: "delivery resumes behind an event that the topic lacks",
        file: "crates/backbone/src/kafka/deliver.rs",
        before: "if !already.is_empty() && already.remove(&link(record)) {",
        after: "if already.remove(&link(record)) || !already.is_empty() {",
        test: "-p cairn-backbone --test kafka kill_nine",
    },
    Mutant {
        name: "a topic that compacts events away is taken",
        file: "crates/backbone/src/kafka/cluster.rs",
        before: "policy.contains(\"compact\")",
        after: "policy == \"compact\"",
        test: "-p cairn-backbone --lib cluster",
    },
    Mutant {
        name: "a writer that was removed still writes",
        file: "crates/broker/src/broker.rs",
        before: "Principal::User(user) => options.users.writes_protected(user),",
        after: "Principal::User(_) => true,",
        test: "-p cairn-broker --test clients named_writer",
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
    Mutant {
        name: "an append is acknowledged before its sync",
        file: "crates/log/src/writer.rs",
        before: "segment.file.sync()?;",
        after: "",
        test: "-p cairn --test crash power_loss_at_any_step",
    },
    Mutant {
        name: "a group is shown before it is durable",
        file: "crates/log/src/writer.rs",
        before: "self.persist(start, &mut buffer, false)?;",
        after: "self.show(std::mem::take(&mut visible)); self.persist(start, &mut buffer, false)?;",
        test: "-p cairn --test crash nothing_is_shown",
    },
    Mutant {
        name: "a call is forwarded before its intent is durable",
        file: "crates/gateway/src/stage.rs",
        before: "submitted.durable().await.map(|_| ())",
        after: "drop(submitted); Ok(())",
        test: "-p cairn --test crash nothing_is_shown",
    },
    Mutant {
        name: "a client is answered before the outcome is durable",
        file: "crates/gateway/src/life.rs",
        before: "self.recorder().outcome(room, draft).await.map(|_| ())",
        after: "{ let all = self.recorder().clone(); tokio::spawn(async move { all.outcome(room, draft).await }); Ok(()) }",
        test: "-p cairn --test crash nothing_is_shown",
    },
    Mutant {
        name: "a recovery skips a call",
        file: "crates/gateway/src/recovery.rs",
        before: "for call in open {",
        after: "for call in open.into_iter().skip(1) {",
        test: "-p cairn --test crash what_a_dead_process",
    },
    Mutant {
        name: "a recovery goes on after ready",
        file: "crates/cairn/src/up.rs",
        before: "let closed = gateway.close_predecessor(open).await.context(\"cannot close what the last run left open\")?;",
        after: "let closed = 0; tokio::spawn({ let late = gateway.clone(); async move { late.close_predecessor(open).await } });",
        test: "-p cairn --test crash what_a_dead_process",
    },
    Mutant {
        name: "an epoch is not raised",
        file: "crates/backbone/src/identity.rs",
        before: "let next = last.checked_add(1).ok_or_else(",
        after: "let next = Some(last.max(1)).ok_or_else(",
        test: "-p cairn --test crash what_a_dead_process",
    },
    Mutant {
        name: "a forward is sent twice",
        file: "crates/mcp/src/http_links/client.rs",
        before: "self.0.request(request).await.map_err(|error| {",
        after: "async { let _ = self.0.request(request.clone()).await; self.0.request(request).await }.await.map_err(|error| {",
        test: "-p cairn --test crash what_a_dead_process",
    },
    Mutant {
        name: "the name of a new data folder is not synced",
        file: "crates/cairn/src/folder.rs",
        before: "match File::open(parent).and_then(|parent| parent.sync_all()) {",
        after: "match std::io::Result::Ok(()) {",
        test: "-p cairn --test crash power_loss_at_any_step",
    },
    Mutant {
        name: "an intent that could not be made durable in time never gets an outcome",
        file: "crates/gateway/src/stage.rs",
        before: "Some(room) if call.accepted_by_recorder == Accepted::Beginning => {",
        after: "Some(room) if call.accepted_by_recorder == Accepted::Outcome => {",
        test: "-p cairn --test crash a_disk_that_stalls",
    },
    Mutant {
        name: "a call of which nothing is recorded is said to be answered",
        file: "crates/gateway/src/life.rs",
        before: "if call.accepted_by_recorder != Accepted::Outcome {",
        after: "if call.accepted_by_recorder != Accepted::Outcome && call.method.is_empty() {",
        test: "-p cairn --test crash a_disk_that_stalls",
    },
    Mutant {
        name: "policies that change are not noticed",
        file: "crates/cairn/src/up.rs",
        before: "if !store.changed() {",
        after: "if store.changed() {",
        test: "-p cairn --test crash policies_that_change",
    },
];
