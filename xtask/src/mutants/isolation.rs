//! The mutants of isolation: who reads old data must neither slow nor push out what others read, nor be starved. Written like those
//! of the table beside it.

use super::table::Mutant;

/// All of them.
pub(crate) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "replays ask the store as often at once as they like",
        file: "crates/log/src/fetch.rs",
        before: "turns: Semaphore::new(READS_MAX)",
        after: "turns: Semaphore::new(READS_MAX * 64)",
        test: "-p cairn-log --lib many_replays_hold",
    },
    Mutant {
        name: "a replay pushes out what others read again",
        file: "crates/log/src/fetch/cache.rs",
        before: "self.fresh_bytes > self.bytes_max / 2 || self.kept.is_empty()",
        after: "self.kept.is_empty()",
        test: "-p cairn-log --lib fetch::tests::a_replay_pushes_out",
    },
    Mutant {
        name: "what is read again and again is never kept",
        file: "crates/log/src/fetch/cache.rs",
        before: "let is_kept = self.remember(place);",
        after: "let is_kept = self.remember(place) && self.turns == 0;",
        test: "-p cairn-log --lib fetch::cache",
    },
    Mutant {
        name: "the cache grows without end",
        file: "crates/log/src/fetch/cache.rs",
        before: "while self.fresh_bytes + self.kept_bytes > self.bytes_max {",
        after: "while self.fresh_bytes + self.kept_bytes > 100 * self.bytes_max {",
        test: "-p cairn-log --lib many_replays_hold",
    },
    Mutant {
        name: "each reader fetches a block for itself",
        file: "crates/log/src/fetch.rs",
        before: "held.coming(place).unwrap_or_else(||",
        after: "held.coming(place).filter(|_| place.1 == u64::MAX).unwrap_or_else(||",
        test: "-p cairn-log --lib readers_of_one_block",
    },
    Mutant {
        name: "what is on its way is given up with its reader",
        file: "crates/log/src/fetch.rs",
        before: "            runtime.spawn(load.clone());",
        after: "            drop(runtime);",
        test: "-p cairn-log --lib readers_of_one_block",
    },
    Mutant {
        name: "what is read ahead takes the whole cache",
        file: "crates/log/src/fetch/cache.rs",
        before: "self.ahead_bytes + bytes <= self.bytes_max / 4",
        after: "self.ahead_bytes + bytes <= self.bytes_max",
        test: "-p cairn-log --lib fetch::cache",
    },
    Mutant {
        name: "a damaged block stays in the cache",
        file: "crates/log/src/fetch.rs",
        before: "Ok(Cached::Block(block)) if !block.is_whole() =>",
        after: "Ok(Cached::Block(block)) if !block.is_whole() && ahead > 0 =>",
        test: "-p cairn-log --lib a_block_that_is_damaged",
    },
    Mutant {
        name: "one record holds a block for as long as it is sent",
        file: "crates/log/src/fetch.rs",
        before: "if (bytes as u64) < block.bytes / HELD_PART {",
        after: "if (bytes as u64) > block.bytes {",
        test: "-p cairn-log --lib a_small_part_of_a_block",
    },
    Mutant {
        name: "the tail waits for who reads files",
        file: "crates/log/src/read.rs",
        before: "if sources.iter().all(|source| matches!(source, Source::Tail(_))) {",
        after: "if sources.is_empty() {",
        test: "-p cairn-log --lib a_disk_whose_reads_hang",
    },
    Mutant {
        name: "answers that wait for the store take the room of all others",
        file: "crates/broker/src/broker.rs",
        before: "Budget::new(limits.answers_bytes_max / 2, limits.bytes_wait_max)",
        after: "Budget::new(limits.answers_bytes_max, limits.bytes_wait_max)",
        test: "-p cairn-broker --test protocol a_store_that_hangs",
    },
    Mutant {
        name: "an answer that has something to tell waits for the store",
        file: "crates/broker/src/api/fetch.rs",
        before: "Stored::AtOnce => reading.now_or_never().unwrap_or_else(|| broker.read_nothing(stream, from)),",
        after: "Stored::AtOnce => reading.await,",
        test: "-p cairn-broker --test protocol a_store_that_hangs",
    },
    Mutant {
        name: "what comes while an answer waits for the store is not told",
        file: "crates/broker/src/api/fetch.rs",
        before: "if woken(others.iter_mut(), deadline).await {",
        after: "if woken(others.iter_mut().take(0), deadline).await {",
        test: "-p cairn-broker --test protocol a_store_that_hangs",
    },
    Mutant {
        name: "who reads the end never gets the beginning of another",
        file: "crates/broker/src/api/fetch.rs",
        before: "{ Stored::AtOnce } else { Stored::Left }",
        after: "{ Stored::Left } else { Stored::Left }",
        test: "-p cairn-broker --test protocol who_reads_the_end_of_one",
    },
];
