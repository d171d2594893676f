//! What is known of one transactional id, and what becomes of it: pure steps from what is to what is then. Called by the coordinator,
//! which makes each step durable before anybody is told.
//!
//! It guarantees: an epoch that was bumped past is never let in again; the same question asked again gets the same answer. The rules
//! are those of Kafka's coordinator, without its states of preparation: here an end is one step.

use std::{collections::BTreeSet, time::Duration};

use cairn_clock::{Clock, Moment};

use super::VERSION_BUMPS;

/// From this epoch on a producer gets another id in place of a higher epoch: one epoch is left for whoever shuts it out.
const EPOCH_LAST: i16 = i16::MAX - 1;
/// What an id takes in memory besides its texts, about.
const ID_BYTES: usize = 512;
/// What a partition takes besides its topic's name, about.
const PARTITION_BYTES: usize = 96;

/// Where a transactional id stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// Its producer has begun nothing yet.
    Empty,
    Ongoing,
    CompleteCommit,
    CompleteAbort,
}

impl Status {
    pub(crate) const ALL: [Self; 4] = [Self::Empty, Self::Ongoing, Self::CompleteCommit, Self::CompleteAbort];

    /// Kafka's name of it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
        }
    }

    const fn ended(commits: bool) -> Self {
        if commits { Self::CompleteCommit } else { Self::CompleteAbort }
    }
}

/// Why something is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TxnError {
    /// No transactional id, or a longer one than is taken.
    #[error("a transactional id has 1 to 1024 bytes")]
    Id,
    /// `transaction.timeout.ms` is out of range.
    #[error("transaction.timeout.ms must be above 0 and no more than the broker takes")]
    Timeout,
    /// Producer id without epoch, or the other way round.
    #[error("name both producer id and epoch, or none of them")]
    HalfNamed,
    /// The id is unknown, or has another producer id.
    #[error("the transactional id does not have this producer id: initialise the producer")]
    Mapping,
    /// A newer producer has the id.
    #[error("a newer producer has taken this transactional id, or its transaction took too long")]
    Fenced,
    /// Nothing is open that could be ended, or it ended in another way.
    #[error("the transactional id is in no state for this")]
    State,
    /// The partition was not added.
    #[error("the partition is not part of an open transaction: abort, and add it first")]
    NotInTransaction,
    /// A bound of the broker.
    #[error("there are as many transactional ids, or partitions in transactions, as may be")]
    Full,
    /// What was decided could not be made durable.
    #[error("what was asked could not be made durable: try again")]
    Unavailable,
}

/// A topic's name and a partition.
pub(crate) type Place = (String, i32);

/// One transactional id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transaction {
    pub(crate) producer: i64,
    pub(crate) epoch: i16,
    /// The producer id before this one, where that ran out of epochs; -1 for none.
    pub(crate) previous: i64,
    /// The epoch before the last initialisation, as long as this process remembers.
    pub(crate) epoch_before: Option<i16>,
    pub(crate) timeout_ms: i32,
    pub(crate) status: Status,
    /// Of the open transaction.
    pub(crate) partitions: BTreeSet<Place>,
    /// When the open transaction, or the last one, began; -1 for never.
    pub(crate) started_ms: i64,
    /// When the open transaction has taken too long, by a clock that nobody sets; it is not stored.
    pub(crate) ends: Moment,
    pub(crate) updated_ms: i64,
    /// The version of transactions that the producer speaks, as its last step showed.
    pub(crate) version: i16,
}

/// Markers to write into every partition of the transaction that ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marker {
    pub(crate) producer: i64,
    pub(crate) epoch: i16,
    pub(crate) commits: bool,
}

/// The hour, which is stored and shown, and the moment, by which is measured how long something lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Now {
    pub(crate) ms: i64,
    pub(crate) at: Moment,
}

impl Now {
    pub(crate) fn by(clock: &Clock) -> Self {
        Self { ms: clock.now().as_millis(), at: clock.moment() }
    }
}

/// What follows from a question.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It was done before: the answer is what there is.
    Known,
    /// This is to be made durable, together with the markers.
    Next(Transaction, Option<Marker>),
}

impl Transaction {
    /// A new transactional id.
    pub(crate) const fn fresh(producer: i64, timeout_ms: i32, now_ms: i64) -> Self {
        Self {
            producer,
            epoch: 0,
            previous: -1,
            epoch_before: None,
            timeout_ms,
            status: Status::Empty,
            partitions: BTreeSet::new(),
            started_ms: -1,
            ends: Moment::from_micros(0),
            updated_ms: now_ms,
            version: 0,
        }
    }

    /// What it takes in memory, about.
    pub(crate) fn bytes(&self) -> usize {
        ID_BYTES + self.partitions.iter().map(|(topic, _)| PARTITION_BYTES + topic.len()).sum::<usize>()
    }

    /// Whether this producer may speak for the id.
    pub(crate) fn check(&self, producer: i64, epoch: i16) -> Result<(), TxnError> {
        if producer != self.producer {
            return Err(TxnError::Mapping);
        }
        if epoch == self.epoch { Ok(()) } else { Err(TxnError::Fenced) }
    }

    /// Whether the partition is part of the open transaction.
    pub(crate) fn has(&self, place: &Place) -> bool {
        self.status == Status::Ongoing && self.partitions.contains(place)
    }

    /// The producer and epoch that come next; `fresh` gives an id where the epochs of this one are used up.
    fn bumped(&self, fresh: impl FnOnce() -> Option<i64>) -> Result<(i64, i16, i64), TxnError> {
        if self.epoch < EPOCH_LAST {
            return Ok((self.producer, self.epoch + 1, self.previous));
        }
        Ok((fresh().ok_or(TxnError::Unavailable)?, 0, self.producer))
    }

    /// What its partitions are told at its end by somebody else than its producer: nobody of this epoch writes after it.
    const fn shut_out(&self) -> Marker {
        Marker { producer: self.producer, epoch: self.epoch.saturating_add(1), commits: false }
    }

    /// A producer is initialised: whoever was before is shut out, and what it had open is aborted. `named` is what a producer that
    /// goes on says that it was.
    pub(crate) fn initialise(
        &self,
        named: Option<(i64, i16)>,
        timeout_ms: i32,
        now_ms: i64,
        fresh: impl FnOnce() -> Option<i64>,
    ) -> Result<Step, TxnError> {
        if let Some((producer, epoch)) = named {
            let is_current = (producer, epoch) == (self.producer, self.epoch);
            // Its answer was lost: nothing was begun since.
            let same = producer == self.producer && self.epoch_before == Some(epoch);
            let ran_out = producer == self.previous && epoch >= EPOCH_LAST && self.epoch == 0;
            if !is_current && (same || ran_out) && self.status == Status::Empty {
                return Ok(Step::Known);
            }
            if !is_current {
                return Err(TxnError::Fenced);
            }
        }
        let marker = (self.status == Status::Ongoing).then(|| self.shut_out());
        let (producer, epoch, previous) = self.bumped(fresh)?;
        let epoch_before = (producer == self.producer).then_some(self.epoch);
        let fresh = Self { epoch, previous, epoch_before, ..Self::fresh(producer, timeout_ms, now_ms) };
        Ok(Step::Next(fresh, marker))
    }

    /// More partitions are part of its transaction, which begins with the first of them.
    pub(crate) fn with(&self, places: impl IntoIterator<Item = Place>, version: i16, now: Now) -> Self {
        let (mut next, Now { ms: now_ms, at }) = (self.clone(), now);
        if next.status != Status::Ongoing {
            next.status = Status::Ongoing;
            next.started_ms = now_ms;
            next.ends = at.plus(self.lasts());
        }
        next.partitions.extend(places);
        next.updated_ms = now_ms;
        next.version = version;
        next.epoch_before = None;
        next
    }

    /// Its producer ends the transaction. `version` is that of the request.
    pub(crate) fn end(
        &self,
        producer: i64,
        epoch: i16,
        commits: bool,
        version: i16,
        now_ms: i64,
        fresh: impl FnOnce() -> Option<i64>,
    ) -> Result<Step, TxnError> {
        let bumps = version >= VERSION_BUMPS;
        if bumps && self.was_ended_by(producer, epoch) {
            let same = self.status == Status::ended(commits);
            return if same { Ok(Step::Known) } else { Err(TxnError::State) };
        }
        self.check(producer, epoch)?;
        match self.status {
            Status::Ongoing => {}
            // Without a bump, the same again cannot be told from the first time.
            Status::CompleteCommit | Status::CompleteAbort if !bumps => {
                let same = self.status == Status::ended(commits);
                return if same { Ok(Step::Known) } else { Err(TxnError::State) };
            }
            // Nothing was written: its producer wants a new epoch all the same, and there is nothing to commit.
            Status::Empty | Status::CompleteCommit | Status::CompleteAbort if bumps && !commits => {}
            _ => return Err(TxnError::State),
        }
        let (next_producer, next_epoch, previous) =
            if bumps { self.bumped(fresh)? } else { (self.producer, self.epoch, self.previous) };
        let marker_epoch = if bumps { self.epoch + 1 } else { self.epoch };
        let marker = Marker { producer: self.producer, epoch: marker_epoch, commits };
        let next = Self {
            producer: next_producer,
            epoch: next_epoch,
            previous,
            epoch_before: None,
            status: Status::ended(commits),
            partitions: BTreeSet::new(),
            updated_ms: now_ms,
            version,
            timeout_ms: self.timeout_ms,
            started_ms: self.started_ms,
            ends: self.ends,
        };
        Ok(Step::Next(next, (self.status == Status::Ongoing).then_some(marker)))
    }

    /// Whether the last end was that of this producer and epoch, which it bumped.
    fn was_ended_by(&self, producer: i64, epoch: i16) -> bool {
        let complete = matches!(self.status, Status::CompleteCommit | Status::CompleteAbort);
        let bumped = producer == self.producer && epoch.checked_add(1) == Some(self.epoch);
        let ran_out = producer == self.previous && epoch >= EPOCH_LAST && self.epoch == 0;
        complete && self.version >= VERSION_BUMPS && (bumped || ran_out)
    }

    const fn lasts(&self) -> Duration {
        Duration::from_millis(self.timeout_ms.unsigned_abs() as u64)
    }

    /// Read back by a process that did not see it begin: what is left of its time is what the hours say, within what it may have.
    pub(crate) fn resume(&mut self, now: Now) {
        let ends_ms = self.started_ms.saturating_add(i64::from(self.timeout_ms));
        let left = u64::try_from(ends_ms.saturating_sub(now.ms)).unwrap_or_default();
        self.ends = now.at.plus(Duration::from_millis(left).min(self.lasts()));
    }

    /// Its time is over: aborted, and its producer shut out.
    pub(crate) fn expire(&self, now: Now) -> Option<(Self, Marker)> {
        if self.status != Status::Ongoing || now.at < self.ends {
            return None;
        }
        let now_ms = now.ms;
        let marker = self.shut_out();
        let next = Self {
            epoch: marker.epoch,
            status: Status::CompleteAbort,
            partitions: BTreeSet::new(),
            updated_ms: now_ms,
            // Who asks to end it is not who ended it.
            version: 0,
            ..self.clone()
        };
        Some((next, marker))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000;

    fn id() -> Option<i64> {
        Some(9)
    }

    fn at(ms: u64) -> Now {
        Now { ms: NOW, at: Moment::from_micros(ms * 1_000) }
    }

    fn begun(version: i16) -> Transaction {
        Transaction::fresh(5, 60_000, NOW).with([("t".to_owned(), 0)], version, at(0))
    }

    fn next(step: Result<Step, TxnError>) -> (Transaction, Option<Marker>) {
        match step {
            Ok(Step::Next(next, marker)) => (next, marker),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_end_bumps_the_epoch_for_who_speaks_version_two_and_the_same_question_gets_the_same_answer() {
        for commits in [true, false] {
            let (ended, marker) = next(begun(2).end(5, 0, commits, 2, NOW, id));
            assert_eq!(marker, Some(Marker { producer: 5, epoch: 1, commits }));
            assert_eq!((ended.producer, ended.epoch, ended.partitions.len()), (5, 1, 0));
            assert_eq!(ended.end(5, 0, commits, 2, NOW, id), Ok(Step::Known));
            assert_eq!(ended.end(5, 0, !commits, 2, NOW, id), Err(TxnError::State));
            let (old, marker) = next(begun(0).end(5, 0, commits, 1, NOW, id));
            assert_eq!(marker, Some(Marker { producer: 5, epoch: 0, commits }));
            assert_eq!(old.epoch, 0);
            assert_eq!(old.end(5, 0, commits, 1, NOW, id), Ok(Step::Known));
            assert_eq!(old.end(5, 0, !commits, 1, NOW, id), Err(TxnError::State));
        }
    }

    #[test]
    fn who_was_before_is_shut_out_by_who_comes_and_what_it_had_open_is_aborted() {
        let (new, marker) = next(begun(2).initialise(None, 60_000, NOW, id));
        assert_eq!(marker, Some(Marker { producer: 5, epoch: 1, commits: false }));
        assert_eq!((new.producer, new.epoch, new.status), (5, 1, Status::Empty));
        assert_eq!(new.check(5, 0), Err(TxnError::Fenced));
        assert_eq!(new.check(4, 1), Err(TxnError::Mapping));
        assert_eq!(new.end(5, 0, true, 2, NOW, id), Err(TxnError::Fenced));
        assert_eq!(new.initialise(Some((5, 7)), 60_000, NOW, id), Err(TxnError::Fenced));
        // Its answer was lost, and it asks again as who it was.
        assert_eq!(new.initialise(Some((5, 0)), 60_000, NOW, id), Ok(Step::Known));
        let begun = new.with([("t".to_owned(), 0)], 2, at(0));
        assert_eq!(begun.initialise(Some((5, 0)), 60_000, NOW, id), Err(TxnError::Fenced));
        let (newer, _) = next(begun.initialise(Some((5, 1)), 60_000, NOW, id));
        assert_eq!(newer.epoch, 2);
    }

    #[test]
    fn a_producer_whose_epochs_are_used_up_gets_another_id() {
        let last = Transaction { epoch: i16::MAX - 1, ..begun(2) };
        let (ended, marker) = next(last.end(5, i16::MAX - 1, true, 2, NOW, id));
        assert_eq!(marker, Some(Marker { producer: 5, epoch: i16::MAX, commits: true }));
        assert_eq!((ended.producer, ended.epoch, ended.previous), (9, 0, 5));
        assert_eq!(ended.end(5, i16::MAX - 1, true, 2, NOW, id), Ok(Step::Known));
        let (new, marker) = next(last.initialise(None, 60_000, NOW, id));
        assert_eq!((new.producer, new.epoch, marker.map(|marker| marker.epoch)), (9, 0, Some(i16::MAX)));
        assert_eq!(new.initialise(Some((5, i16::MAX - 1)), 60_000, NOW, id), Ok(Step::Known));
        let (out, _) = last.expire(at(60_000)).expect("its time is over");
        assert_eq!(next(out.initialise(None, 60_000, NOW, id)).0.producer, 9);
    }

    #[test]
    fn a_transaction_whose_time_is_over_is_aborted_and_its_producer_is_not_told_that_all_went_well() {
        for version in [0, 2] {
            let begun = begun(version);
            assert_eq!(begun.expire(at(59_999)), None);
            let (out, marker) = begun.expire(at(60_000)).expect("its time is over");
            assert_eq!((marker.epoch, marker.commits, out.epoch, out.status), (1, false, 1, Status::CompleteAbort));
            assert_eq!(out.expire(at(u64::MAX >> 10)), None);
            for commits in [true, false] {
                assert_eq!(out.end(5, 0, commits, version, NOW, id), Err(TxnError::Fenced));
            }
        }
    }

    #[test]
    fn whatever_the_hour_is_set_to_a_transaction_has_its_time_and_after_a_restart_no_more_than_that() {
        let begun = begun(2);
        for ms in [0, NOW - 86_400_000, NOW + 86_400_000, i64::MAX] {
            assert_eq!(begun.expire(Now { ms, ..at(59_999) }), None);
            assert!(begun.expire(Now { ms, ..at(60_000) }).is_some());
        }
        // Another process, whose moments begin anew: what is left of its time by the hour, never more than it had.
        for (ms, left) in [(NOW, 60_000), (NOW + 20_000, 40_000), (NOW - 86_400_000, 60_000), (NOW + 86_400_000, 0)] {
            let mut found = Transaction { ends: Moment::default(), ..begun.clone() };
            found.resume(Now { ms, ..at(500) });
            assert_eq!(found.ends, at(500 + left).at);
        }
    }

    #[test]
    fn where_nothing_was_begun_there_is_nothing_to_commit_and_an_abort_gives_a_new_epoch() {
        let empty = Transaction::fresh(5, 60_000, NOW);
        for version in [1, 2] {
            assert_eq!(empty.end(5, 0, true, version, NOW, id), Err(TxnError::State));
        }
        assert_eq!(empty.end(5, 0, false, 1, NOW, id), Err(TxnError::State));
        let (aborted, marker) = next(empty.end(5, 0, false, 2, NOW, id));
        assert_eq!((aborted.epoch, marker), (1, None));
        let (again, _) = next(aborted.end(5, 1, false, 2, NOW, id));
        assert_eq!(again.epoch, 2);
    }
}
