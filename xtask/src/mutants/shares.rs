//! The mutants of share groups: a record is with one member at a time, and what became of it counts once and for good. Written like those of
//! the table beside it.

use super::table::Mutant;

/// All of them.
pub(crate) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "a record is with two members at a time",
        file: "crates/broker/src/share/window.rs",
        before: "let (is_free, count) = (span.state == State::Available, span.count.saturating_add(1));",
        after: "let (is_free, count) = (!matches!(span.state, State::Accepted | State::Archived), span.count.saturating_add(1));",
        test: "-p cairn-broker --lib share::window",
    },
    Mutant {
        name: "a member says what became of another's records",
        file: "crates/broker/src/share/window.rs",
        before: "matches!(&span.state, State::Acquired { by, .. } if **by == *member)",
        after: "matches!(&span.state, State::Acquired { by, .. } if !by.is_empty() || member.is_empty())",
        test: "-p cairn-broker --lib share::window",
    },
    Mutant {
        name: "half of an acknowledgement counts",
        file: "crates/broker/src/share/window.rs",
        before: "            next.judge_one(member, judged, rules, now_ms)?;",
        after: "            if let Err(error) = next.judge_one(member, judged, rules, now_ms) {\n                *self = next;\n                return Err(error);\n            }",
        test: "-p cairn-broker --lib share::window",
    },
    Mutant {
        name: "what nobody can do is handed out for ever",
        file: "crates/broker/src/share/window.rs",
        before: "if count >= rules.deliveries_max { State::Archived }",
        after: "if count > 100 * rules.deliveries_max { State::Archived }",
        test: "-p cairn-broker --test protocol shares::who_takes_too_long",
    },
    Mutant {
        name: "what was passed over hides what lies before it",
        file: "crates/broker/src/share/window.rs",
        before: "        self.extend(last + 1);\n",
        after: "        self.end = self.end.max(first);\n        self.extend(last + 1);\n",
        test: "-p cairn-broker --lib share::window",
    },
    Mutant {
        name: "an acknowledgement is answered before it is durable",
        file: "crates/broker/src/share/keeper.rs",
        before: "        if !only_renews {",
        after: "        if only_renews {",
        test: "-p cairn-broker --test protocol shares::what_was_acknowledged",
    },
    Mutant {
        name: "what a member had stays with it when its connection is lost",
        file: "crates/broker/src/share/keeper.rs",
        before: "        if gone.is_empty() {",
        after: "        if gone.len() < usize::MAX {",
        test: "-p cairn-broker --test protocol shares::what_a_member_had",
    },
    Mutant {
        name: "what was given back wakes nobody",
        file: "crates/broker/src/share/keeper.rs",
        before: "        slot.freed.send_modify(|count| *count += 1);\n        Ok(())",
        after: "        Ok(())",
        test: "-p cairn-broker --test protocol shares::a_waiting_member",
    },
    Mutant {
        name: "a marker is handed out as a record",
        file: "crates/broker/src/share/keeper.rs",
        before: "if header.is_control() || is_aborted {",
        after: "if is_aborted {",
        test: "-p cairn-broker --test protocol shares::markers",
    },
    Mutant {
        name: "what was aborted is handed out",
        file: "crates/broker/src/share/keeper.rs",
        before: "if header.is_control() || is_aborted {",
        after: "if header.is_control() || is_aborted && batch.is_empty() {",
        test: "-p cairn-broker --test protocol shares::markers",
    },
    Mutant {
        name: "a request of a share session counts twice",
        file: "crates/broker/src/share/sessions.rs",
        before: "if session.next != epoch {",
        after: "if session.next < epoch {",
        test: "-p cairn-broker --lib share::sessions",
    },
    Mutant {
        name: "who may no longer read a topic goes on in its share session",
        file: "crates/broker/src/api/share_fetch.rs",
        before: "gate.readable(name, stream,",
        after: "gate.readable(&name[name.len()..], stream,",
        test: "-p cairn-broker --test protocol who_may_no_longer_read",
    },
    Mutant {
        name: "a share group takes over a group of another kind",
        file: "crates/broker/src/api/share_groups.rs",
        before: "let is_other = !broker.inner.shares.has(&group) &&",
        after: "let is_other = group.is_empty() && !broker.inner.shares.has(&group) &&",
        test: "-p cairn-broker --test protocol shares::members_share",
    },
];
