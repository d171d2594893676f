//! The mutants of transactions: what was aborted is seen by nobody, who was shut out stays out, and nothing is half ended. Written like
//! those of the table beside it.

use super::table::Mutant;

/// All of them.
pub(crate) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "who reads what is committed is not told what was aborted",
        file: "crates/log/src/state.rs",
        before: "if aborted.first < to {",
        after: "if aborted.first > to {",
        test: "-p cairn-log --lib sim::ack",
    },
    Mutant {
        name: "who reads what is committed is not stopped by an open transaction",
        file: "crates/log/src/read.rs",
        before: "let until = if isolation == Isolation::Committed { stable } else { end };",
        after: "let until = end;",
        test: "-p cairn-log --lib sim::ack",
    },
    Mutant {
        name: "the search for aborted transactions ends too early",
        file: "crates/log/src/state.rs",
        before: "if aborted.stable >= to {",
        after: "if aborted.last >= to {",
        test: "-p cairn-log --lib state::tests",
    },
    Mutant {
        name: "a restart forgets which transactions are open",
        file: "crates/log/src/state.rs",
        before: "stream.open = indexed.ledger.open.clone();",
        after: "",
        test: "-p cairn-log --lib sim::ack",
    },
    Mutant {
        name: "the index forgets which transactions are open",
        file: "crates/log/src/upload/gather.rs",
        before: "            if transactions {",
        after: "            if transactions && id.topic.is_nil() {",
        test: "-p cairn-log --lib sim::ack",
    },
    Mutant {
        name: "the index forgets what was aborted",
        file: "crates/log/src/upload/gather.rs",
        before: "range.aborted.extend(aborted);",
        after: "let _ = aborted;",
        test: "-p cairn-log --lib sim::ack",
    },
    Mutant {
        name: "the write-ahead log forgets that a batch belongs to a transaction",
        file: "crates/log/src/recover.rs",
        before: "stream.follow(mark.id, batch.transaction, batch.base);",
        after: "let _ = mark;",
        test: "-p cairn-log --lib sim::ack",
    },
    Mutant {
        name: "the state of a transaction and its markers are two frames",
        file: "crates/broker/src/txn/coordinator.rs",
        before: "        entries.extend(more);",
        after: "        self.append_own(std::mem::take(&mut entries)).await?;\n        entries.extend(more);",
        test: "-p cairn-broker --test protocol no_crash_leaves",
    },
    Mutant {
        name: "who was shut out may still end a transaction",
        file: "crates/broker/src/txn/state.rs",
        before: "if epoch == self.epoch { Ok(()) }",
        after: "if epoch <= self.epoch { Ok(()) }",
        test: "-p cairn-broker --test protocol who_comes_later",
    },
    Mutant {
        name: "who comes with a transactional id leaves the transaction of its predecessor open",
        file: "crates/broker/src/txn/state.rs",
        before: "let marker = (self.status == Status::Ongoing).then(|| self.shut_out());",
        after: "let marker = (self.status == Status::Empty).then(|| self.shut_out());",
        test: "-p cairn-broker --test protocol who_comes_later",
    },
    Mutant {
        name: "an end that is asked for again is done again",
        file: "crates/broker/src/txn/state.rs",
        before: "if bumps && self.was_ended_by(producer, epoch) {",
        after: "if bumps && producer < 0 && self.was_ended_by(producer, epoch) {",
        test: "-p cairn-broker --test protocol no_crash_leaves",
    },
    Mutant {
        name: "offsets of a transaction are seen before it is committed",
        file: "crates/broker/src/group/driver/pending.rs",
        before: "            pending.put(producer, (group.clone(), topic, partition), entry);",
        after: "            self.offsets.write().put(&group, topic.clone(), partition, entry.clone());\n            pending.put(producer, (group.clone(), topic, partition), entry);",
        test: "-p cairn-broker --test protocol offsets_of_a_transaction",
    },
    Mutant {
        name: "offsets of an aborted transaction are committed at the next start",
        file: "crates/broker/src/group/driver/pending.rs",
        before: "is_some_and(|key| key == [0, 0, 0, 1]);",
        after: "is_some_and(|key| key.len() == 4);",
        test: "-p cairn-broker --test protocol offsets_of_a_transaction",
    },
    Mutant {
        name: "who wants stable offsets gets those that may change",
        file: "crates/broker/src/api/offsets.rs",
        before: "    if require && broker",
        after: "    if !require && broker",
        test: "-p cairn-broker --test protocol offsets_of_a_transaction",
    },
    Mutant {
        name: "a transaction that takes too long stays open",
        file: "crates/broker/src/txn/state.rs",
        before: "|| now.at < self.ends {",
        after: "|| now.at < self.ends || now.ms > 0 {",
        test: "-p cairn-broker --test protocol takes_too_long",
    },
    Mutant {
        name: "a batch follows the markers of its own transaction",
        file: "crates/broker/src/txn/produce.rs",
        before: "if known.has(place) { Ok(()) } else { Err(TxnError::NotInTransaction) }",
        after: "if known.has(place) || place.1 >= 0 { Ok(()) } else { Err(TxnError::NotInTransaction) }",
        test: "-p cairn-broker --test protocol a_batch_is_taken_only",
    },
    Mutant {
        name: "a batch overtakes those of its connection that wait",
        file: "crates/broker/src/turn.rs",
        before: "            let _ = before.await; // dropped is passed on",
        after: "            drop(before);",
        test: "-p cairn-broker --lib turn",
    },
    Mutant {
        name: "a second batch of a new incarnation comes before its first",
        file: "crates/log/src/ledger.rs",
        before: "known.last.back().map_or(Sequence::new(0), |seen|",
        after: "known.last.back().map_or(found, |seen|",
        test: "-p cairn-log --lib a_marker_of_a_newer",
    },
];
