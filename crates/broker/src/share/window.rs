//! What a share group has done with one partition: which records are with whom, and which are done with. Pure; called by the keeper of
//! all of them.
//!
//! Everything before `start` is done with, everything from `end` on has never been handed out. Between the two each offset is in one
//! state:
//!
//! ```text
//!             acquire                accept
//! available ───────────▶ acquired ───────────▶ accepted
//!     ▲                     │  reject, gap, or handed out too often
//!     └─────────────────────┴──────────────────▶ archived
//!       release, or time over
//! ```
//!
//! It guarantees: an offset is acquired by one member at a time; only that member, in time, can say what became of it; what is accepted
//! or archived is never handed out again; an acknowledgement counts whole or not at all.

use std::{collections::BTreeMap, sync::Arc};

/// What became of an offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    Available,
    Acquired { by: Arc<str>, until_ms: u64 },
    Accepted,
    Archived,
}

/// Offsets side by side that are in one state.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Span {
    last: u64,
    state: State,
    /// How often they were handed out.
    count: u16,
}

/// What a member says of records that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// There is no record: its topic was compacted, or it is a marker.
    Gap,
    Accept,
    Release,
    Reject,
    /// It needs more time.
    Renew,
}

impl Verdict {
    pub(crate) const fn of_code(code: i8) -> Option<Self> {
        match code {
            0 => Some(Self::Gap),
            1 => Some(Self::Accept),
            2 => Some(Self::Release),
            3 => Some(Self::Reject),
            4 => Some(Self::Renew),
            _ => None,
        }
    }
}

/// Offsets, and one verdict for all or one for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Judged {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) verdicts: Vec<Verdict>,
}

/// Offsets that a member has from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Acquired {
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// How often they were handed out, this time included.
    pub(crate) count: u16,
}

/// What holds for all of a group's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    /// How long a member has them.
    pub(crate) lock_ms: u64,
    /// How often a record is handed out at most.
    pub(crate) deliveries_max: u16,
    /// Offsets between the first that is not done with and the last that was handed out.
    pub(crate) locks_max: u64,
}

/// How what a member had comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Returned {
    /// It gave it back without having looked at it.
    Unseen,
    /// It is gone, maybe because of what it had.
    Lost,
}

/// Why an acknowledgement does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JudgeError {
    #[error("the member does not have these records: their time was over, or it said already what became of them")]
    NotAcquired,
    #[error("there is one verdict for all offsets from the first to the last, or one for each")]
    Malformed,
}

/// One partition as one group sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Window {
    start: u64,
    end: u64,
    /// By their first offset; from `start` to `end` without a hole.
    spans: BTreeMap<u64, Span>,
}

/// What is written of offsets side by side: their state without who has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) state: i8,
    pub(super) count: u16,
}

/// Numbers of states in Kafka's records.
const AVAILABLE: i8 = 0;
const ACCEPTED: i8 = 2;
const ARCHIVED: i8 = 4;

impl Window {
    /// Begins at an offset.
    pub(crate) const fn new(start: u64) -> Self {
        Self { start, end: start, spans: BTreeMap::new() }
    }

    /// As it was written; what cannot be is left out, and is handed out again.
    pub(super) fn restore(start: u64, kept: &[Kept]) -> Self {
        let mut window = Self::new(start);
        for kept in kept {
            let first = kept.first.max(window.end);
            if first > kept.last || kept.last == u64::MAX {
                continue;
            }
            let state = match kept.state {
                ACCEPTED => State::Accepted,
                ARCHIVED => State::Archived,
                _ => State::Available,
            };
            window.extend(first);
            window.spans.insert(first, Span { last: kept.last, state, count: kept.count });
            window.end = kept.last + 1;
        }
        window.tidy();
        window
    }

    /// What there is to write: whoever has something is taken not to have had it.
    pub(super) fn kept(&self) -> Vec<Kept> {
        let mut all: Vec<Kept> = Vec::new();
        for (first, span) in &self.spans {
            let (state, count) = match span.state {
                State::Available => (AVAILABLE, span.count),
                State::Acquired { .. } => (AVAILABLE, span.count.saturating_sub(1)),
                State::Accepted => (ACCEPTED, span.count),
                State::Archived => (ARCHIVED, span.count),
            };
            match all.last_mut() {
                Some(before) if (before.state, before.count) == (state, count) => before.last = span.last,
                _ => all.push(Kept { first: *first, last: span.last, state, count }),
            }
        }
        // What was never handed out needs no word.
        all.retain(|kept| (kept.state, kept.count) != (AVAILABLE, 0));
        all
    }

    /// The first offset that is not done with.
    pub(crate) const fn start(&self) -> u64 {
        self.start
    }

    /// Spans that it holds in memory.
    pub(crate) fn weight(&self) -> usize {
        self.spans.len()
    }

    /// Where a record can be acquired next, if anywhere below `log_end`.
    pub(crate) fn next(&self, log_end: u64, rules: &Rules) -> Option<u64> {
        let free = self.spans.iter().find(|(_, span)| span.state == State::Available).map(|(first, _)| *first);
        Some(free.unwrap_or(self.end)).filter(|at| *at < log_end.min(self.room(rules)))
    }

    /// Where what may be under way ends.
    const fn room(&self, rules: &Rules) -> u64 {
        self.start.saturating_add(rules.locks_max)
    }

    /// Gives a member what is free of these offsets, which lie side by side in batches; `records_max` of them, or all of the batch in
    /// which that is reached where it need not be `exact`.
    pub(crate) fn acquire(
        &mut self,
        member: &Arc<str>,
        batches: &[(u64, u64)],
        (records_max, exact): (u64, bool),
        rules: &Rules,
        now_ms: u64,
    ) -> Vec<Acquired> {
        let until_ms = now_ms.saturating_add(rules.lock_ms);
        let (mut all, mut left) = (Vec::<Acquired>::new(), records_max);
        for (first, last) in batches {
            if left == 0 {
                break;
            }
            let most = if exact { left } else { u64::MAX };
            let taken = self.acquire_of(member, (*first).max(self.start), *last, most, until_ms, rules);
            for taken in taken {
                left = left.saturating_sub(taken.last - taken.first + 1);
                match all.last_mut() {
                    Some(before) if before.last + 1 == taken.first && before.count == taken.count => {
                        before.last = taken.last;
                    }
                    _ => all.push(taken),
                }
            }
        }
        self.tidy();
        all
    }

    fn acquire_of(
        &mut self,
        member: &Arc<str>,
        first: u64,
        last: u64,
        mut most: u64,
        until_ms: u64,
        rules: &Rules,
    ) -> Vec<Acquired> {
        let room = self.room(rules);
        self.extend(last.saturating_add(1).min(room));
        let mut taken = Vec::new();
        let mut at = first;
        while at <= last && at < self.end.min(room) && most > 0 {
            let Some((_, span)) = self.spans.range(..=at).next_back() else { break };
            let until = span.last.min(last).min(room - 1).min(at.saturating_add(most - 1));
            let (is_free, count) = (span.state == State::Available, span.count.saturating_add(1));
            if is_free {
                self.set(at, until, State::Acquired { by: Arc::clone(member), until_ms }, count);
                taken.push(Acquired { first: at, last: until, count });
                most -= until - at + 1;
                at = until + 1;
            } else {
                at = span.last + 1;
            }
        }
        // What was not handed out after all is as if it had never been looked at.
        if let Some((first, span)) = self.spans.last_key_value()
            && (&span.state, span.count) == (&State::Available, 0)
        {
            self.end = *first;
            self.spans.pop_last();
        }
        taken
    }

    /// Says of offsets that they hold nothing that is to be handed out.
    pub(crate) fn archive(&mut self, first: u64, last: u64) {
        let first = first.max(self.start);
        if first > last {
            return;
        }
        self.extend(last + 1);
        let mut at = first;
        while at <= last {
            let Some((_, span)) = self.spans.range(..=at).next_back() else { break };
            let (until, is_free, count) = (span.last.min(last), span.state == State::Available, span.count);
            if is_free {
                self.set(at, until, State::Archived, count);
            }
            at = until + 1;
        }
        self.tidy();
    }

    /// Takes in what a member says of what it has.
    pub(crate) fn judge(&mut self, member: &str, all: &[Judged], rules: &Rules, now_ms: u64) -> Result<(), JudgeError> {
        let mut next = self.clone();
        for judged in all {
            next.judge_one(member, judged, rules, now_ms)?;
        }
        next.tidy();
        *self = next;
        Ok(())
    }

    fn judge_one(&mut self, member: &str, judged: &Judged, rules: &Rules, now_ms: u64) -> Result<(), JudgeError> {
        let count = judged.last.checked_sub(judged.first).ok_or(JudgeError::Malformed)?;
        let is_each = count < u64::MAX && judged.verdicts.len() as u64 == count + 1;
        if !is_each && judged.verdicts.len() != 1 {
            return Err(JudgeError::Malformed);
        }
        if judged.first < self.start || judged.last >= self.end {
            return Err(JudgeError::NotAcquired);
        }
        let mut at = judged.first;
        while at <= judged.last {
            let (_, span) = self.spans.range(..=at).next_back().ok_or(JudgeError::NotAcquired)?;
            let is_its = matches!(&span.state, State::Acquired { by, .. } if **by == *member);
            if !is_its {
                return Err(JudgeError::NotAcquired);
            }
            let (end, count, state) = (span.last.min(judged.last), span.count, span.state.clone());
            let verdict = |at: u64| judged.verdicts[if is_each { (at - judged.first) as usize } else { 0 }];
            // Those side by side with one verdict are one span.
            let said = verdict(at);
            let until =
                if is_each { (at..=end).take_while(|at| verdict(*at) == said).last().unwrap_or(at) } else { end };
            let state = match (said, state) {
                (Verdict::Gap | Verdict::Reject, _) => State::Archived,
                (Verdict::Accept, _) => State::Accepted,
                (Verdict::Release, _) => freed(count, rules),
                (Verdict::Renew, State::Acquired { by, .. }) => {
                    State::Acquired { by, until_ms: now_ms.saturating_add(rules.lock_ms) }
                }
                (Verdict::Renew, state) => state,
            };
            self.set(at, until, state, count);
            at = until + 1;
        }
        Ok(())
    }

    /// Takes back what a member has; whether that was anything.
    pub(crate) fn take_back(&mut self, member: &str, returned: Returned, rules: &Rules) -> bool {
        let is_its = |state: &State| matches!(state, State::Acquired { by, .. } if **by == *member);
        self.free_those(is_its, |count| match returned {
            Returned::Unseen => (State::Available, count.saturating_sub(1)),
            Returned::Lost => (freed(count, rules), count),
        })
    }

    /// Takes back what was not said anything of in time; whether that was anything.
    pub(crate) fn expire(&mut self, now_ms: u64, rules: &Rules) -> bool {
        let is_over = |state: &State| matches!(state, State::Acquired { until_ms, .. } if *until_ms <= now_ms);
        self.free_those(is_over, |count| (freed(count, rules), count))
    }

    fn free_those(&mut self, which: impl Fn(&State) -> bool, freed: impl Fn(u16) -> (State, u16)) -> bool {
        let mut any = false;
        for span in self.spans.values_mut().filter(|span| which(&span.state)) {
            (span.state, span.count) = freed(span.count);
            any = true;
        }
        if any {
            self.tidy();
        }
        any
    }

    /// When the first of those who have something runs out of time.
    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        let until = |span: &Span| match span.state {
            State::Acquired { until_ms, .. } => Some(until_ms),
            _ => None,
        };
        self.spans.values().filter_map(until).min()
    }

    /// Passes over what the log no longer has; whether that was anything.
    pub(crate) fn begin_at(&mut self, log_start: u64) -> bool {
        if log_start <= self.start {
            return false;
        }
        self.split(log_start);
        self.spans = self.spans.split_off(&log_start);
        self.start = log_start;
        self.end = self.end.max(log_start);
        self.tidy();
        true
    }

    fn extend(&mut self, end: u64) {
        if end > self.end {
            self.spans.insert(self.end, Span { last: end - 1, state: State::Available, count: 0 });
            self.end = end;
        }
    }

    /// Makes a span begin at an offset.
    fn split(&mut self, at: u64) {
        if at <= self.start || at >= self.end {
            return;
        }
        let Some((first, span)) = self.spans.range_mut(..at).next_back() else { return };
        if span.last >= at && *first < at {
            let rest = span.clone();
            span.last = at - 1;
            self.spans.insert(at, rest);
        }
    }

    /// Sets all offsets of one span or a part of it.
    fn set(&mut self, first: u64, last: u64, state: State, count: u16) {
        self.split(first);
        self.split(last + 1);
        if let Some(span) = self.spans.get_mut(&first) {
            debug_assert_eq!(span.last, last, "it lies within one span");
            (span.state, span.count) = (state, count);
        }
    }

    /// Puts together what is alike, and passes over what is done with.
    fn tidy(&mut self) {
        while let Some((_, span)) = self.spans.first_key_value()
            && matches!(span.state, State::Accepted | State::Archived)
        {
            self.start = span.last + 1;
            self.spans.pop_first();
        }
        let mut merged: BTreeMap<u64, Span> = BTreeMap::new();
        for (first, span) in std::mem::take(&mut self.spans) {
            match merged.last_entry() {
                Some(mut before) if (&before.get().state, before.get().count) == (&span.state, span.count) => {
                    before.get_mut().last = span.last;
                }
                _ => drop(merged.insert(first, span)),
            }
        }
        self.spans = merged;
    }
}

/// What becomes of records that come back: what was handed out too often is not again.
fn freed(count: u16, rules: &Rules) -> State {
    if count >= rules.deliveries_max { State::Archived } else { State::Available }
}

#[cfg(test)]
mod tests;
