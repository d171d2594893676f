//! The mutants of consumer groups (KIP-848): who has a partition, whose epoch is good, what is bounded and what is kept. Written like
//! those of the table beside it.

use super::table::Mutant;

/// All of them.
pub(crate) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "a partition has two owners",
        file: "crates/broker/src/group/consumer/group/change.rs",
        before: ".is_none_or(|owner| owner == id)",
        after: ".is_none_or(|_| true)",
        test: "-p cairn-broker --lib group::consumer::model",
    },
    Mutant {
        name: "a partition goes on before its owner gave it up",
        file: "crates/broker/src/group/consumer/member.rs",
        before: "Owned::Unsaid => false,",
        after: "Owned::Unsaid => true,",
        test: "-p cairn-broker --lib group::consumer::model",
    },
    Mutant {
        name: "what a member has not yet begun with goes on without its word",
        file: "crates/broker/src/group/consumer/member.rs",
        before: "Owned::Unsaid | Owned::Said(_) => true,",
        after: "Owned::Unsaid => true,\n            Owned::Said(_) => false,",
        test: "-p cairn-broker --lib group::consumer::model",
    },
    Mutant {
        name: "a wrong member epoch is good",
        file: "crates/broker/src/group/consumer/group.rs",
        before: "if missed_one && has_no_more { Ok(()) }",
        after: "if missed_one || !has_no_more { Ok(()) }",
        test: "-p cairn-broker --lib group::consumer::tests::a_silent_member",
    },
    Mutant {
        name: "a commit with a stale member epoch is taken",
        file: "crates/broker/src/group/consumer/group/change.rs",
        before: "if found.current.epoch == epoch { Ok(found) }",
        after: "if found.current.epoch >= epoch { Ok(found) }",
        test: "-p cairn-broker --lib group::consumer::tests::commits",
    },
    Mutant {
        name: "a silent member keeps its partitions",
        file: "crates/broker/src/group/consumer/core.rs",
        before: "late.entry(name).or_default().push(id);",
        after: "drop((name, id));",
        test: "-p cairn-broker --lib group::consumer::tests::a_silent_member",
    },
    Mutant {
        name: "a topic that grows is not noticed",
        file: "crates/broker/src/group/consumer/group.rs",
        before: "        let changed = self.update(&id, beat, changes);\n        let grown = self.look(around, changed || is_new, changes);",
        after: "        let changed = self.update(&id, beat, changes);\n        let grown = self.look(around, changed || is_new, changes) && is_new;",
        test: "-p cairn-broker --lib group::consumer::tests::topics_that_come",
    },
    Mutant {
        name: "an assignment moves more than it must",
        file: "crates/broker/src/group/consumer/assign/uniform.rs",
        before: "order.sort_by(|a, b| b.2.cmp(&a.2)",
        after: "order.sort_by(|a, b| a.2.cmp(&b.2)",
        test: "-p cairn-broker --lib group::consumer::assign",
    },
    Mutant {
        name: "a regular expression may compile to anything",
        file: "crates/broker/src/group/consumer/topics.rs",
        before: "const REGEX_SIZE_MAX: usize = 512 << 10;",
        after: "const REGEX_SIZE_MAX: usize = 64 << 20;",
        test: "-p cairn-broker --lib group::consumer::topics",
    },
    Mutant {
        name: "a group may take any memory",
        file: "crates/broker/src/group/consumer/group.rs",
        before: "if asked <= around.room { Ok(()) }",
        after: "if asked <= around.room.max(1 << 30) { Ok(()) }",
        test: "-p cairn-broker --lib group::consumer::tests::members_bytes",
    },
    Mutant {
        name: "consumer groups are lost when the broker ends",
        file: "crates/broker/src/group/driver.rs",
        before: "core.consumer.restore(0, name, group);",
        after: "drop((name, group));",
        test: "-p cairn-broker --test protocol members_and_their_epochs_outlive",
    },
    Mutant {
        name: "what a classic member has goes on before it joined again",
        file: "crates/broker/src/group/consumer/member.rs",
        before: "Owned::Sworn(owned) => owned.meets(&revoking),",
        after: "Owned::Sworn(owned) => owned.is_empty(),",
        test: "-p cairn-broker --lib group::table",
    },
    Mutant {
        name: "a group that goes over does not know what its members have",
        file: "crates/broker/src/group/consumer/classic.rs",
        before: "stored.currents.insert(id.clone(), current);",
        after: "drop(current);",
        test: "-p cairn-broker --lib group::table",
    },
    Mutant {
        name: "a member's change is not written",
        file: "crates/broker/src/group/consumer/group/change.rs",
        before: "changes.push(Change::Current(id.to_string(), Some(next.clone())));",
        after: "",
        test: "-p cairn-broker --lib group::consumer::model",
    },
    Mutant {
        name: "a static member's new process makes all of its group rebalance",
        file: "crates/broker/src/group/core/rebalance.rs",
        before: "self.state == GroupState::Stable && self.elect_protocol() == self.protocol",
        after: "self.state == GroupState::Stable && self.elect_protocol() != self.protocol",
        test: "-p cairn-broker --lib a_static_member_that_comes_back",
    },
];
