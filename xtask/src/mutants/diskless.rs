//! The mutants of a log whose write-ahead log is the store: what is acknowledged, and who may write. Written like those of the table
//! beside it.

use super::table::Mutant;

/// All of them.
pub(crate) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "the fence is skipped",
        file: "crates/log/src/closing.rs",
        before: "            match persistently(async || self.store.put(&at.name(), bytes.clone()).await).await {\n                Ok(()) => return Ok(at.number),",
        after: "            match Ok::<(), StoreError>(drop(bytes)) {\n                Ok(()) => return Ok(at.number),",
        test: "-p cairn-log --lib sim::ack",
    },
    Mutant {
        name: "a name that is taken counts as landed",
        file: "crates/log/src/lander.rs",
        before: "    if there == *bytes {",
        after: "    if there == *bytes || !there.is_empty() {",
        test: "-p cairn-log --lib sim::ack",
    },
    Mutant {
        name: "a group is acknowledged before its object has landed",
        file: "crates/log/src/lander.rs",
        before: "        let error = match attempt(&shared, id, &bytes).await {",
        after: "        let error = match Ok::<(), StoreError>(drop((id, &bytes))) {",
        test: "-p cairn-log --lib sim::ack",
    },
    Mutant {
        name: "what was put before the fence is not read",
        file: "crates/log/src/closing.rs",
        before: "            into.push(wal_object::segment(at, position, bytes));",
        after: "            if position % 3 > 0 { into.push(wal_object::segment(at, position, bytes)) }",
        test: "-p cairn-log --lib sim::ack",
    },
    Mutant {
        name: "a fence is collected",
        file: "crates/log/src/upload.rs",
        before: "let is_kept = needed.contains(&id.number) || Some(id.number) == fence;",
        after: "let is_kept = needed.contains(&id.number);",
        test: "-p cairn-log --lib diskless",
    },
    Mutant {
        name: "a write-ahead object goes before the index has what is in it",
        file: "crates/log/src/upload.rs",
        before: "                Some((from, to)) => (*from..to.unwrap_or(u64::MAX), *to),",
        after: "                Some((from, to)) => (*from + 1..to.unwrap_or(u64::MAX), *to),",
        test: "-p cairn-log --lib sim::ack",
    },
    Mutant {
        name: "an opener goes on without what the epochs before left",
        file: "crates/log/src/open.rs",
        before: "                let closed = closing::close(store, &taken.index, taken.index.epoch).await?;",
        after: "                let closed = Closed { changes: vec![Change::WriteAhead { epoch: taken.index.epoch, from: 0, to: Some(0) }], ..Closed::default() };",
        test: "-p cairn-log --lib sim::ack",
    },
    Mutant {
        name: "an owner that others stand by for is silent",
        file: "crates/log/src/upload.rs",
        before: "        Some(due) => tokio::time::sleep_until(due).await,",
        after: "        Some(_) => std::future::pending().await,",
        test: "-p cairn-log --lib diskless",
    },
];
