//! The mutants of the Kafka port's security: logins, and who may do what. Written like those of the table beside it.

use super::table::Mutant;

/// All of them.
pub(crate) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "a SCRAM proof counts for any nonce",
        file: "crates/broker/src/access/scram.rs",
        before: "self.header.as_bytes() || nonce != self.nonce {",
        after: "self.header.as_bytes() || nonce.is_empty() {",
        test: "-p cairn-broker --lib scram",
    },
    Mutant {
        name: "a SCRAM proof counts for any channel binding",
        file: "crates/broker/src/access/scram.rs",
        before: "if STANDARD.decode(binding).ok()? != self.header.as_bytes() || ",
        after: "if STANDARD.decode(binding).ok()?.is_empty() || ",
        test: "-p cairn-broker --lib scram",
    },
    Mutant {
        name: "the likeness of a user lets somebody in",
        file: "crates/broker/src/access/scram.rs",
        before: "(is_right && self.is_known)",
        after: "(is_right || self.is_known)",
        test: "-p cairn-broker --lib scram",
    },
    Mutant {
        name: "an old password is still good",
        file: "crates/broker/src/access/credentials.rs",
        before: "self.all.insert((user.clone(), mechanism), Arc::new(credential));",
        after: "self.all.entry((user.clone(), mechanism)).or_insert(Arc::new(credential));",
        test: "-p cairn-broker --test protocol a_password_opens",
    },
    Mutant {
        name: "who there is not is told so by its salt",
        file: "crates/broker/src/access/credentials.rs",
        before: "&part.to_be_bytes(), user.as_bytes()]",
        after: "&part.to_be_bytes(), &[user.len() as u8]]",
        test: "-p cairn-broker --test protocol who_there_is_not",
    },
    Mutant {
        name: "anybody makes users",
        file: "crates/broker/src/api/guard/mod.rs",
        before: "else { self.session.is_super(self.broker) }",
        after: "else { self.is_open() }",
        test: "-p cairn-broker --test protocol only_a_super_user",
    },
    Mutant {
        name: "a login counts for ever",
        file: "crates/broker/src/api/session.rs",
        before: "let is_over = ends_at.is_some_and(|at| now >= at);",
        after: "let is_over = ends_at.is_some_and(|at| now < at && self.failures > 9);",
        test: "-p cairn-broker --test protocol a_login_counts_for_its_time",
    },
    Mutant {
        name: "a connection becomes somebody else's",
        file: "crates/broker/src/api/session.rs",
        before: "before.way != now.way || before.principal != now.principal",
        after: "before.way != now.way && before.principal == now.principal",
        test: "-p cairn-broker --test protocol a_login_that_is_not_one",
    },
    Mutant {
        name: "a denial is passed over",
        file: "crates/broker/src/access/rules.rs",
        before: "Effect::Deny if acl.operation == operation || acl.operation == Operation::All => return false,",
        after: "Effect::Deny if acl.operation == operation && acl.operation == Operation::All => return false,",
        test: "-p cairn-broker --lib rules",
    },
    Mutant {
        name: "a prefix matches the other way round",
        file: "crates/broker/src/access/acl.rs",
        before: "Pattern::Prefixed => name.starts_with(&self.name),",
        after: "Pattern::Prefixed => self.name.starts_with(name),",
        test: "-p cairn-broker --lib rules",
    },
    Mutant {
        name: "a prefixed rule is about its own name alone",
        file: "crates/broker/src/access/rules.rs",
        before: "let prefixes = (0..=name.len()).filter_map",
        after: "let prefixes = (name.len()..=name.len()).filter_map",
        test: "-p cairn-broker --lib rules",
    },
    Mutant {
        name: "a rule's host is passed over",
        file: "crates/broker/src/access/rules.rs",
        before: "&& (acl.host == self.host || acl.host == ANY)",
        after: "&& (acl.host == self.host || !acl.host.is_empty())",
        test: "-p cairn-broker --lib rules",
    },
    Mutant {
        name: "who may not describe a topic is told that it is not there",
        file: "crates/broker/src/api/guard/topics.rs",
        before: "gate.topic(Operation::Describe, name) && (!is_made || is_there() || gate.may_create(name))",
        after: "(gate.topic(Operation::Describe, name) || !is_there()) && (!is_made || is_there() || gate.may_create(name))",
        test: "-p cairn-broker --test protocol who_may_not_describe",
    },
    Mutant {
        name: "what a fetch session keeps is not judged",
        file: "crates/broker/src/api/guard/topics.rs",
        before: "if !topic.is_empty() && !self.topic(Operation::Read, topic) {",
        after: "if topic.is_empty() && !self.topic(Operation::Read, topic) {",
        test: "-p cairn-broker --test protocol acls",
    },
    Mutant {
        name: "all topics are told to whoever asks for all",
        file: "crates/broker/src/api/guard/topics.rs",
        before: "        let seen = |name: &str| gate.topic(Operation::Describe, name);\n        answer.topics.retain(|topic| topic.name.as_ref().is_none_or(|name| topic.error_code != 0 || seen(name)));\n        if kept.",
        after: "        let seen = |name: &str| gate.topic(Operation::Describe, name) || !name.is_empty();\n        answer.topics.retain(|topic| topic.name.as_ref().is_none_or(|name| topic.error_code != 0 || seen(name)));\n        if kept.",
        test: "-p cairn-broker --test protocol everybody_sees",
    },
    Mutant {
        name: "a super user by name alone writes what is Cairn's",
        file: "crates/broker/src/broker.rs",
        before: "            Principal::Guest(_) | Principal::Anonymous => false,",
        after: "            Principal::Guest(user) => options.users.writes_protected(user),\n            Principal::Anonymous => false,",
        test: "-p cairn-broker --test protocol only_a_super_user",
    },
];
