//! The mutants of the audit database on a server: who holds it, what is committed, and what a question may do. Written like those of the
//! table beside it.

use super::table::Mutant;

/// All of them.
pub(crate) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "a zombie commits to a server that another holds",
        file: "crates/consumers/src/postgres/holder.rs",
        before: "UPDATE holder SET seen = clock_timestamp() WHERE epoch = $1\";",
        after: "UPDATE holder SET seen = clock_timestamp() WHERE epoch >= $1\";",
        test: "-p cairn-consumers --lib a_zombie_commits",
    },
    Mutant {
        name: "whoever comes takes a server from a holder that lives",
        file: "crates/consumers/src/postgres/holder.rs",
        before: "        if lives {",
        after: "        if lives && token.is_empty() {",
        test: "-p cairn-consumers --lib a_zombie_commits",
    },
    Mutant {
        name: "a sink on a server applies a batch wherever it stands",
        file: "crates/consumers/src/postgres/sink.rs",
        before: "        if moves && found.map(|(_, next)| next) != advance.from.map(integer) {",
        after: "        if false && found.map(|(_, next)| next) != advance.from.map(integer) {",
        test: "-p cairn-consumers --lib a_commit_whose_answer",
    },
    Mutant {
        name: "a sink on a server moves less far than its batch",
        file: "crates/consumers/src/postgres/sink.rs",
        before: "begun.execute(&statements.moved, &[next, place]).await",
        after: "begun.execute(&statements.moved, &[&(next - 1), place]).await",
        test: "-p cairn-consumers --lib an_event_that_comes_twice",
    },
    Mutant {
        name: "an event that lies twice is not looked for on a server",
        file: "crates/consumers/src/postgres/sink.rs",
        before: "                link.wary = WARY_BATCHES;",
        after: "                link.wary = WARY_BATCHES - WARY_BATCHES;",
        test: "-p cairn-consumers --lib an_event_that_comes_twice",
    },
    Mutant {
        name: "a replay on a server keeps what came of the offsets before",
        file: "crates/consumers/src/postgres/sink.rs",
        before: "        let remove = \"DELETE FROM events WHERE seq >= $1 AND seq < $2\";",
        after: "        let remove = \"DELETE FROM events WHERE seq >= $1 AND seq < $1 + 0 * $2::bigint\";",
        test: "-p cairn-consumers --lib a_replay_replaces",
    },
    Mutant {
        name: "retention on a server does not know of legal holds",
        file: "crates/consumers/src/postgres/retention.rs",
        before: "retention.due((place, topic), rows, held, now)?",
        after: "retention.due((place, topic), rows, &HashSet::from_iter(held.iter().take(0).cloned()), now)?",
        test: "-p cairn-consumers --lib retention_is",
    },
    Mutant {
        name: "a server does not know how much it holds",
        file: "crates/consumers/src/postgres/sink.rs",
        before: "    if *added < COUNTED_FROM {",
        after: "    if *added < COUNTED_FROM * 1_000 {",
        test: "-p cairn-consumers --lib one_workflow_is_found_by_its_index_once",
    },
    Mutant {
        name: "a question to a server may call what it likes",
        file: "crates/consumers/src/postgres/query.rs",
        before: "(p.provolatile = 'v' OR",
        after: "(p.provolatile = 'x' OR",
        test: "-p cairn-consumers --lib questions_read_cairns",
    },
    Mutant {
        name: "a question to a server may manage it",
        file: "crates/consumers/src/postgres/query.rs",
        before: "const XML: &str = \"_to_xml\";",
        after: "const XML: &str = \"_to_no_xml\";",
        test: "-p cairn-consumers --lib questions_read_cairns",
    },
    Mutant {
        name: "a question to a server reads every table",
        file: "crates/consumers/src/postgres/query.rs",
        before: "l.relation <> ALL($1) LIMIT 1",
        after: "l.relation <> ALL($1) LIMIT 0",
        test: "-p cairn-consumers --lib questions_read_cairns",
    },
    Mutant {
        name: "a question to a server has a transaction that may write",
        file: "crates/consumers/src/postgres/query.rs",
        before: "connected.client.build_transaction().read_only(true)",
        after: "connected.client.build_transaction().read_only(false)",
        test: "-p cairn-consumers --lib questions_read_cairns",
    },
    Mutant {
        name: "a row of any size leaves a server",
        file: "crates/consumers/src/postgres/query.rs",
        before: "(cairn_row.line) <= {ROW_BYTES_MAX} THEN",
        after: "(cairn_row.line) <= 99{ROW_BYTES_MAX} THEN",
        test: "-p cairn-consumers --lib postgres::tests::questions_are_bounded",
    },
    Mutant {
        name: "questions are asked as whoever writes",
        file: "crates/consumers/src/postgres/options.rs",
        before: "                asks.user(user);",
        after: "                asks.user(user.get(..0).unwrap_or_default());",
        test: "-p cairn-consumers --lib tables_may_be_made",
    },
    Mutant {
        name: "a server on another machine is reached without TLS",
        file: "crates/consumers/src/postgres/options.rs",
        before: "writes.get_hosts().iter().any(is_far)",
        after: "writes.get_hosts().iter().all(|host| !is_far(host))",
        test: "-p cairn-consumers --lib a_url_says",
    },
];
