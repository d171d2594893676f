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
    Mutant {
        name: "who stands by takes the store from whoever was quicker",
        file: "crates/log/src/open.rs",
        before: "        if !options.takes.allows(owner) {",
        after: "        if options.takes.allows(owner) && owner == Some(0) {",
        test: "-p cairn-log --lib diskless",
    },
    Mutant {
        name: "a port that is closed to one who stands by is enough to take over",
        file: "crates/log/src/standby.rs",
        before: "        if *self.gone.borrow() { TAKE_OVER_AFTER_GONE } else { TAKE_OVER_AFTER }",
        after: "        if *self.gone.borrow() { LOOK_INTERVAL_GONE } else { TAKE_OVER_AFTER }",
        test: "-p cairn-log --lib diskless",
    },
    Mutant {
        name: "who stands by does not look at once when its owner's port closes",
        file: "crates/log/src/standby.rs",
        before: "        let next = now + if hurries { LOOK_INTERVAL_GONE } else { LOOK_INTERVAL };",
        after: "        let next = now + if hurries { LOOK_INTERVAL } else { LOOK_INTERVAL };",
        test: "-p cairn-log --lib diskless",
    },
    Mutant {
        name: "a connection that ends means that nobody listens, though another one stands",
        file: "crates/cairn/src/take_over/sight.rs",
        before: "                    let _ = ends.await;",
        after: "                    let _ = ends.await;\n                    gone.send_replace(true);",
        test: "-p cairn --bin cairn sight",
    },
    Mutant {
        name: "who stands by names nobody to who writes there",
        file: "crates/broker/src/api/standby.rs",
        before: "    let leader = leader.filter(|_| version >= PRODUCE_HINTS_FIRST);",
        after: "    let leader = leader.filter(|_| version > 99 && version >= PRODUCE_HINTS_FIRST);",
        test: "-p cairn-broker --lib standby",
    },
    Mutant {
        name: "who stands by says in no version of Fetch where the leader is",
        file: "crates/broker/src/api/standby.rs",
        before: "    let endpoints = leader.filter(|_| version >= FETCH_ENDPOINTS_FIRST).map(|leader| {",
        after: "    let endpoints = leader.filter(|_| version > 99 && version >= FETCH_ENDPOINTS_FIRST).map(|leader| {",
        test: "-p cairn-broker --lib standby",
    },
    Mutant {
        name: "who asks while nobody is active is told so at once, and does not ask again for seconds",
        file: "crates/broker/src/server/standby.rs",
        before: "        timeout(self.hold_max, answered).await.ok()",
        after: "        timeout(self.hold_max * 0, answered).await.ok()",
        test: "-p cairn-broker --lib standby",
    },
    Mutant {
        name: "a broker that stops standing by drops who has no answer yet",
        file: "crates/broker/src/server/standby.rs",
        before: "    let _ = timeout(FIRST_ANSWER_MAX, answered.wait_for(|answered| *answered)).await;",
        after: "    let _ = timeout(FIRST_ANSWER_MAX * 0, answered.wait_for(|answered| *answered)).await;",
        test: "-p cairn-broker --lib standby",
    },
];
