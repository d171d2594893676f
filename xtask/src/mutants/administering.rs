//! The mutants of what Kafka clients read of the broker and administer: offsets by time, sizes, configs. Written like those of the
//! table beside it.

use super::table::Mutant;

/// All of them.
pub(crate) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "a time is answered from a record that is gone",
        file: "crates/broker/src/api/offset_list.rs",
        before: "let kept = records.iter().filter(|record| record.offset >= fetched.log_start.get());",
        after: "let kept = records.iter();",
        test: "-p cairn-broker --test protocol times",
    },
    Mutant {
        name: "the greatest timestamp is that of a record that is gone",
        file: "crates/broker/src/api/offset_list.rs",
        before: "        // Less than the log knows of: the record that had it lay before the start of the partition.\n        from = next;",
        after: "        let _ = (next, &mut from);\n        break;",
        test: "-p cairn-broker --test protocol times",
    },
    Mutant {
        name: "a time is looked up in the first object alone",
        file: "crates/log/src/read.rs",
        before: "                if !matches!(found, Ok(None)) {\n                    break;\n                }",
        after: "                break;",
        test: "-p cairn-broker --test protocol times",
    },
    Mutant {
        name: "a topic takes batches of any size",
        file: "crates/broker/src/broker.rs",
        before: "if bytes.len() > most {",
        after: "if bytes.len() > most.max(1 << 20) {",
        test: "-p cairn-broker --test protocol keeping",
    },
    Mutant {
        name: "the note of a commit is lost",
        file: "crates/broker/src/group/records.rs",
        before: "    put_string(&mut out, &value.metadata);",
        after: "    put_string(&mut out, \"\");",
        test: "-p cairn-broker --test protocol keeping",
    },
    Mutant {
        name: "four batches of a producer are remembered",
        file: "crates/log/src/ledger.rs",
        before: "const BATCHES_KEPT: usize = 5;",
        after: "const BATCHES_KEPT: usize = 4;",
        test: "-p cairn-broker --test protocol keeping",
    },
    Mutant {
        name: "a count of headers is believed",
        file: "crates/broker/src/batch/decode.rs",
        before: "if header_count > body.len() / 2 {",
        after: "if header_count > body.len() / 2 && body.len() > 1 << 20 {",
        test: "-p cairn-broker --test protocol keeping",
    },
    Mutant {
        name: "the size that is told is not the one in force",
        file: "crates/broker/src/api/configs.rs",
        before: "if shown.name == \"max.message.bytes\" && limit != shown.default {",
        after: "if shown.name == \"max.message.bytes\" && limit.is_empty() {",
        test: "-p cairn-broker --test protocol configs",
    },
    Mutant {
        name: "the configs of a broker that there is not are told",
        file: "crates/broker/src/api/configs.rs",
        before: "BROKER if name.parse() == Ok(broker.inner.options.node_id) => Ok(of_broker(broker)),",
        after: "BROKER if !name.is_empty() => Ok(of_broker(broker)),",
        test: "-p cairn-broker --test protocol configs",
    },
    Mutant {
        name: "an epoch of a fetch session counts twice",
        file: "crates/broker/src/api/fetch/sessions.rs",
        before: "if session.epoch != epoch {",
        after: "if session.epoch < epoch {",
        test: "-p cairn-broker --lib sessions",
    },
    Mutant {
        name: "fetch sessions are without number",
        file: "crates/broker/src/api/fetch/sessions.rs",
        before: "while self.by_id.len() >= sessions_max || self.partitions",
        after: "while self.partitions",
        test: "-p cairn-broker --lib sessions",
    },
    Mutant {
        name: "a fetch session is taken from who uses it",
        file: "crates/broker/src/api/fetch/sessions.rs",
        before: "now.duration_since(session.used) >= KEPT",
        after: "now >= session.used",
        test: "-p cairn-broker --lib sessions",
    },
    Mutant {
        name: "a partition with records keeps the others of its session waiting",
        file: "crates/broker/src/api/fetch/sessions.rs",
        before: "        if has_records {",
        after: "        if has_records && failed {",
        test: "-p cairn-broker --lib sessions",
    },
    Mutant {
        name: "what a fetch session forgets is read on",
        file: "crates/broker/src/api/fetch/sessions.rs",
        before: "session.forget(&(topic.topic.clone(), topic.topic_id, *partition));",
        after: "let _ = (topic, partition);",
        test: "-p cairn-broker --test protocol sessions",
    },
    Mutant {
        name: "who is fenced is not told the leader that there is",
        file: "crates/broker/src/api/fetch.rs",
        before: "(data.with_current_leader(leader), true)",
        after: "(data, leader.leader_epoch < 0)",
        test: "-p cairn-broker --test protocol sessions",
    },
];
