//! The mutants of what befalls a broker from outside: kills under real clients, disks that are full or fail, clocks that are set. Written
//! like those of the table beside it.

use super::table::Mutant;

/// All of them.
pub(crate) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "a record is acknowledged to real clients before it is synced",
        file: "crates/log/src/writer.rs",
        before: "            segment.file.sync()?;\n            self.shared.counters.fsyncs",
        after: "            self.shared.counters.fsyncs",
        test: "-p cairn --test crash torture::clients_of_brokers -- --ignored",
    },
    Mutant {
        name: "the judge of a torture passes over what is lost",
        file: "crates/cairn/tests/crash/torture/judge.rs",
        before: "        if there != Some(number) {",
        after: "        if there.is_some_and(|there| there > number) {",
        test: "-p cairn --test crash torture::judge",
    },
    Mutant {
        name: "the judge of a torture passes over an input that came out twice",
        file: "crates/cairn/tests/crash/torture/judge.rs",
        before: "        match outputs.get(number).map_or(0, Vec::len) {",
        after: "        match outputs.get(number).map_or(0, |found| found.len().min(1)) {",
        test: "-p cairn --test crash torture::judge",
    },
    Mutant {
        name: "a jump of the clock is believed at once",
        file: "crates/clock/src/settled.rs",
        before: "if at.since(since) >= Self::AFTER {",
        after: "if at.since(since) >= Duration::ZERO {",
        test: "-p cairn-clock --lib settled",
    },
    Mutant {
        name: "a second jump of the clock counts from the first",
        file: "crates/clock/src/settled.rs",
        before: "let first = belief.doubted.filter(|(doubted, since)| hour <= doubted.plus(at.since(*since)).plus(SLACK));",
        after: "let first = belief.doubted;",
        test: "-p cairn-clock --lib settled",
    },
    Mutant {
        name: "retention goes by an hour that was just set",
        file: "crates/log/src/retain.rs",
        before: "self.settled.now()",
        after: "self.clock.now()",
        test: "-p cairn-log --lib a_clock_that_is_set",
    },
    Mutant {
        name: "how long the store was not seen is told by the hour",
        file: "crates/log/src/open.rs",
        before: "        self.clock.moment().since(Moment::from_micros(self.seen",
        after: "        Moment::from_micros(self.clock.now().as_micros()).since(Moment::from_micros(self.seen",
        test: "-p cairn-log --lib how_long_the_store",
    },
    Mutant {
        name: "a transaction's time is told by the hour",
        file: "crates/broker/src/txn/state.rs",
        before: "if self.status != Status::Ongoing || now.at < self.ends {",
        after: "if self.status != Status::Ongoing || now.ms < self.started_ms.saturating_add(i64::from(self.timeout_ms)) {",
        test: "-p cairn-broker --lib whatever_the_hour",
    },
    Mutant {
        name: "a transaction that is read back has more time than it may have",
        file: "crates/broker/src/txn/state.rs",
        before: "Duration::from_millis(left).min(self.lasts())",
        after: "Duration::from_millis(left)",
        test: "-p cairn-broker --lib whatever_the_hour",
    },
    Mutant {
        name: "offsets are forgotten by an hour that was just set",
        file: "crates/broker/src/group/driver/forgetting.rs",
        before: "self.settled.now()",
        after: "self.store.clock.now()",
        test: "-p cairn-broker --test protocol clocks",
    },
    Mutant {
        name: "a login's time is told by the hour",
        file: "crates/broker/src/server.rs",
        before: "self.broker.inner.clock.moment())",
        after: "cairn_clock::Moment::from_micros(self.broker.inner.clock.now().as_micros()))",
        test: "-p cairn-broker --test protocol clocks",
    },
    Mutant {
        name: "a full disk is taken for one that failed",
        file: "crates/log/src/writer.rs",
        before: "io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded",
        after: "io::ErrorKind::WriteZero",
        test: "-p cairn-log --lib a_full_disk",
    },
    Mutant {
        name: "what follows a batch that found no room is taken before it",
        file: "crates/log/src/writer.rs",
        before: "Call::Append { .. } if pausing.is_some() => return Ok(pausing),",
        after: "Call::Append { .. } if pausing.is_some() && self.full.is_none() => return Ok(pausing),",
        test: "-p cairn-log --lib a_full_disk",
    },
    Mutant {
        name: "after a failed sync the log goes on",
        file: "crates/log/src/writer.rs",
        before: "failed = Some(AppendError::Failed { reason });",
        after: "let _ = (&mut failed, AppendError::Failed { reason });",
        test: "-p cairn-log --lib a_sync_that_failed",
    },
    Mutant {
        name: "a broker whose disk failed stays",
        file: "crates/cairn/src/up.rs",
        before: "why = engine.broken(), if role == Role::Broker",
        after: "why = engine.broken(), if role == Role::Gateway",
        test: "-p cairn --test crash a_broker_whose_disk",
    },
    Mutant {
        name: "who stands by waits for the silence of an owner that ended well",
        file: "crates/log/src/standby.rs",
        before: "if owner.is_closed || owner.owner == own {",
        after: "if owner.owner == own {",
        test: "-p cairn --test commands who_stands_by",
    },
    Mutant {
        name: "a certificate that was replaced under load is still shown",
        file: "crates/tls/src/certificates.rs",
        before: "if self.0.current.lock().1 == digest {",
        after: "if self.0.current.lock().1.len() == digest.len() {",
        test: "-p cairn --test commands a_certificate_and_a_password",
    },
];
