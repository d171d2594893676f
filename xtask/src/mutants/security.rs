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
        file: "crates/broker/src/api/scram.rs",
        before: "    if !session.is_super(broker) {\n        let mut users",
        after: "    if session.is_over() {\n        let mut users",
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
];
