//! The mutants of consumers: what keeps results and positions together, and what replaces. Written like those of the table beside it.

use super::table::Mutant;

/// All of them.
pub(crate) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "a sink applies a batch wherever it stands",
        file: "crates/consumers/src/database/sink.rs",
        before: "    if moves && found.map(|(_, stands)| stands) != from.map(integer) {",
        after: "    if false && found.map(|(_, stands)| stands) != from.map(integer) {",
        test: "-p cairn-consumers --lib events_and_positions",
    },
    Mutant {
        name: "a replay keeps what came of the offsets before",
        file: "crates/consumers/src/database/sink.rs",
        before: "            let removed = begun.prepare_cached(\"DELETE FROM events WHERE seq >= ?1 AND seq < ?2\");",
        after: "            let removed = begun.prepare_cached(\"DELETE FROM events WHERE seq >= ?1 AND seq < ?1 + 0 * ?2\");",
        test: "-p cairn-consumers --lib a_replay_replaces",
    },
    Mutant {
        name: "an event of a newer contract with another form is dropped",
        file: "crates/consumers/src/event.rs",
        before: "                Fields::lenient(&parsed)",
        after: "                return Err(\"it is newer\".to_owned())",
        test: "-p cairn-consumers --lib what_is_newer",
    },
    Mutant {
        name: "a question may do what it wants",
        file: "crates/consumers/src/audit/query.rs",
        before: "    if is_good { Authorization::Allow }",
        after: "    if is_good || true { Authorization::Allow }",
        test: "-p cairn-consumers --lib questions_read",
    },
    Mutant {
        name: "a question takes as long as it likes",
        file: "crates/consumers/src/audit/query.rs",
        before: "Some(move || Instant::now() >= deadline)",
        after: "Some(move || Instant::now() >= deadline + Duration::from_secs(20))",
        test: "-p cairn-consumers --lib questions_are_bounded",
    },
    Mutant {
        name: "retention does not know of legal holds",
        file: "crates/consumers/src/database/retention.rs",
        before: "            if !is_hold && !whose",
        after: "            if !is_hold || !whose",
        test: "-p cairn-consumers --lib retention_is",
    },
    Mutant {
        name: "what a consumer cannot take says what it holds",
        file: "crates/consumers/src/event.rs",
        before: "format!(\"its value is no JSON: line {} column {}\", error.line(), error.column())",
        after: "format!(\"its value is no JSON: {error} {value}\")",
        test: "-p cairn-consumers --lib what_is_no_event",
    },
    Mutant {
        name: "a consumer begins where its group says, not where its sink stands",
        file: "crates/consumers/src/consumer.rs",
        before: "at.held.iter().map(|(place, held)| (place, held.next))",
        after: "at.held.iter().map(|(place, held)| (place, held.next.map(|next| next + 1)))",
        test: "-p cairn --test commands killed_anywhere",
    },
    Mutant {
        name: "an index of another log counts for this one",
        file: "crates/cairn/src/trail/places.rs",
        before: "is_some_and(|id| id.to_string() == covered.topic_id)",
        after: "is_some_and(|id| !id.is_nil() || id.to_string() == covered.topic_id)",
        test: "-p cairn --test commands a_trail_reads",
    },
    Mutant {
        name: "what came since an index was written is not read",
        file: "crates/cairn/src/trail/places.rs",
        before: "                    reads.push(covered.end..*high);",
        after: "                    reads.push(covered.end..covered.end);",
        test: "-p cairn --test commands a_trail_reads",
    },
    Mutant {
        name: "a consumer that was moved forward left nothing out",
        file: "crates/consumers/src/database/sink.rs",
        before: "CASE WHEN excluded.next > next THEN excluded.next ELSE",
        after: "CASE WHEN excluded.next > next THEN whole ELSE",
        test: "-p cairn-consumers --lib the_index_tells",
    },
    Mutant {
        name: "the index covers what retention removed",
        file: "crates/consumers/src/database/retention.rs",
        before: "            lacks.execute([last + 1 - seq(place, 0), place])?;",
        after: "            lacks.execute([0 * last - 0 * seq(place, 0), place])?;",
        test: "-p cairn-consumers --lib the_index_does_not",
    },
];
