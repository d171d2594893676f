//! The mutants of operations on a log: what a check finds, what a start without a write-ahead log does, what becomes of one that comes
//! back. Written like those of the table beside it.

use super::table::Mutant;

/// All of them.
pub(crate) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "a recovery gives offsets again",
        file: "crates/log/src/succession.rs",
        before: "let next = end.checked_add(reserved)",
        after: "let next = end.checked_add(reserved.min(0))",
        test: "-p cairn-log --lib sim::ack",
    },
    Mutant {
        name: "a stream runs further ahead of the store than a recovery passes over",
        file: "crates/log/src/writer.rs",
        before: "if next.get() - indexed.get() > self.shared.options.offsets_reserved {",
        after: "if next.get() - indexed.get() == u64::MAX {",
        test: "-p cairn-log --lib no_stream_runs_further",
    },
    Mutant {
        name: "a start whose write-ahead log is lost goes on by itself",
        file: "crates/log/src/succession.rs",
        before: "if !head.is_closed && !options.recover {",
        after: "if head.is_closed && options.recover && false {",
        test: "-p cairn-log --lib sim::ack",
    },
    Mutant {
        name: "any write-ahead log is taken for that of the last owner",
        file: "crates/log/src/succession.rs",
        before: "is_some_and(|words| words.contains(&taken.by))",
        after: "is_some_and(|words| words.contains(&taken.by) || true)",
        test: "-p cairn-log --lib recovery_tests::who_ended_well",
    },
    Mutant {
        name: "the head says that all is uploaded while something waits",
        file: "crates/log/src/upload.rs",
        before: "shared.has_ended.load(Ordering::Acquire) && shared.state.read().depth() == 0;",
        after: "shared.has_ended.load(Ordering::Acquire) || shared.state.read().depth() == 0;",
        test: "-p cairn-log --lib ends_well_only",
    },
    Mutant {
        name: "what comes back is told by where the store ends now",
        file: "crates/log/src/succession.rs",
        before: "if let Some((at, by)) = held.superseded {",
        after: "if let Some((at, by)) = held.superseded.filter(|(at, _)| *at >= index.covered) {",
        test: "-p cairn-log --lib a_log_that_comes_back",
    },
    Mutant {
        name: "who is fenced leaves its log where it is",
        file: "crates/log/src/upload.rs",
        before: "            shared.set_aside();",
        after: "",
        test: "-p cairn-log --lib who_is_fenced_while",
    },
    Mutant {
        name: "readers stay in what a recovery has passed over",
        file: "crates/log/src/read.rs",
        before: "if is_local || stream.ranges_from(from).next().is_none() {",
        after: "if is_local {",
        test: "-p cairn-log --lib sim::ack",
    },
    Mutant {
        name: "salvage shows what the store has",
        file: "crates/log/src/salvage.rs",
        before: "let is_lacking = superseded.is_none_or(|by| by.is_some());",
        after: "let is_lacking = superseded.is_none_or(|by| by.is_some() || header.epoch > 0);",
        test: "-p cairn-log --lib a_log_that_comes_back",
    },
    Mutant {
        name: "a check believes the checksums of chunks",
        file: "crates/log/src/check/objects.rs",
        before: "let wrong = match judge(stream, &stored.bytes) {\n                    Err(what) => Some(what),",
        after: "let wrong = match judge(stream, &stored.bytes) {\n                    Err(_) => None,",
        test: "-p cairn-log --lib check::tests::what_a_batch_says",
    },
    Mutant {
        name: "a check passes over a gap",
        file: "crates/log/src/check/ranges.rs",
        before: "if range.base > next {",
        after: "if range.base.get() > u64::MAX - 1 {",
        test: "-p cairn-log --lib check::tests::a_gap",
    },
    Mutant {
        name: "a check does not look for objects that are missing",
        file: "crates/log/src/check.rs",
        before: "        missing.iter().filter(is_gone).for_each(|id| tell_missing(*id, &newer, &mut checked));",
        after: "        let _ = (is_gone, tell_missing);",
        test: "-p cairn-log --lib check::tests::a_missing_object",
    },
    Mutant {
        name: "where an epoch ended is not told behind a recovery",
        file: "crates/broker/src/api/epochs.rs",
        before: "            high = middle;\n            continue;",
        after: "            break;",
        test: "-p cairn-broker --test clients what_was_not_uploaded",
    },
    Mutant {
        name: "producers are refused without having been slowed down",
        file: "crates/broker/src/server.rs",
        before: "session.throttled = quota.max(broker.inner.pressure.wait(&broker.inner.log, &session.principal));",
        after: "session.throttled = quota;",
        test: "-p cairn-broker --test clients while_the_store_cannot_be_written",
    },
];
