//! Holds a history against what was promised. Called when a site's clients are done; its own tests feed it histories that no
//! log may give, one for each thing that it must find.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::history::{Fate, Found, History, Isolation, Place, Topic, places};

/// Findings of one kind that are told; the rest would say the same.
const TOLD_MAX: usize = 5;

/// What was promised and does not hold.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Kind {
    /// An acknowledged record is not where it was said to be.
    Lost,
    /// A record is there twice.
    Twice,
    /// Records of one producer are not in the order in which it sent them.
    Reordered,
    /// Offsets are lacking that no marker explains.
    Gap,
    /// A reader of committed records got one of an aborted transaction.
    Aborted,
    /// A part of a transaction is committed, and a part is not.
    Torn,
    /// A reader got a record that is not there in the end.
    Dirty,
    /// A reader was led past a record, or back.
    Skipped,
    /// An input was not transformed.
    Untransformed,
    /// An input was transformed more than once.
    TransformedTwice,
    /// What a group has committed went back.
    WentBack,
    /// A record was passed over by a group that commits what it has read.
    Unfollowed,
    /// Somebody was told what no client should be told.
    Trouble,
}

/// One of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Finding {
    pub(crate) kind: Kind,
    pub(crate) words: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.words)
    }
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn tell(&mut self, kind: Kind, words: impl FnOnce() -> String) {
        if self.0.iter().filter(|finding| finding.kind == kind).count() < TOLD_MAX {
            self.0.push(Finding { kind, words: words() });
        }
    }
}

/// Everything that does not hold, a few of each kind.
pub(crate) fn judge(history: &History) -> Vec<Finding> {
    let mut out = Findings::default();
    acknowledged(history, &mut out);
    order(history, &mut out);
    offsets(history, &mut out);
    transactions(history, &mut out);
    polls(history, &mut out);
    transformed(history, &mut out);
    groups(history, &mut out);
    for trouble in &history.troubles {
        out.tell(Kind::Trouble, || trouble.clone());
    }
    out.0
}

fn at((topic, partition): Place, offset: i64) -> String {
    format!("{}-{partition} at {offset}", topic.name())
}

/// What was acknowledged is there, at its offset, once.
fn acknowledged(history: &History, out: &mut Findings) {
    for (number, (place, offset)) in &history.acknowledged {
        let there = history.all.get(&(*place, *offset));
        if there != Some(number) {
            let found =
                history.all.iter().find(|(_, found)| *found == number).map(|((place, offset), _)| (place, offset));
            out.tell(Kind::Lost, || {
                let place = at(*place, *offset);
                format!("{number} was acknowledged in {place}, where {there:?} is; it is in {found:?}")
            });
        }
    }
    let mut first: BTreeMap<u64, (Place, i64)> = BTreeMap::new();
    for ((place, offset), number) in &history.all {
        if let Some((before, earlier)) = first.insert(*number, (*place, *offset)) {
            out.tell(Kind::Twice, || format!("{number} is in {} and in {}", at(before, earlier), at(*place, *offset)));
        }
    }
}

/// What one producer sent to one partition is there in the order in which it was sent.
fn order(history: &History, out: &mut Findings) {
    let mut last: BTreeMap<(Place, u32), (i64, u64)> = BTreeMap::new();
    for ((place, offset), number) in &history.all {
        let Some(sent) = history.sent.get(number).filter(|sent| sent.place == *place) else {
            out.tell(Kind::Dirty, || format!("{number} in {} was never sent there", at(*place, *offset)));
            continue;
        };
        if let Some((before, earlier)) = last.insert((*place, sent.producer), (*offset, *number))
            && earlier > *number
        {
            let producer = sent.producer;
            out.tell(Kind::Reordered, || {
                format!("producer {producer}: {number} in {} comes behind {earlier} at {before}", at(*place, *offset))
            });
        }
    }
}

/// Offsets begin at zero and have no gap that markers do not explain: each transaction has one in each of its partitions at most.
fn offsets(history: &History, out: &mut Findings) {
    let mut markers: BTreeMap<Place, BTreeSet<usize>> = BTreeMap::new();
    for sent in history.sent.values() {
        markers.entry(sent.place).or_default().extend(sent.transaction);
    }
    for place in places() {
        let end = history.ends.get(&place).copied().unwrap_or_default();
        let there = history.all.range((place, 0)..(place, end)).count() as i64;
        let explained = if place.0.has_markers() { markers.get(&place).map_or(0, BTreeSet::len) as i64 } else { 0 };
        if end - there > explained {
            out.tell(Kind::Gap, || {
                let words = format!("{end} offsets hold {there} records, and {explained} markers at most");
                format!("{}-{}: {words}", place.0.name(), place.1)
            });
        }
        if let Some(((_, offset), _)) =
            history.all.range((place, end)..).next().filter(|((other, _), _)| *other == place)
        {
            out.tell(Kind::Gap, || format!("{} is past the end, {end}", at(place, *offset)));
        }
    }
}

/// Of a transaction all is committed, or nothing.
fn transactions(history: &History, out: &mut Findings) {
    let there: BTreeSet<u64> = history.all.values().copied().collect();
    let shown: BTreeSet<u64> = history.committed.values().copied().collect();
    let mut of: BTreeMap<usize, (Vec<u64>, Vec<u64>)> = BTreeMap::new();
    for (number, sent) in &history.sent {
        let Some(transaction) = sent.transaction else {
            if there.contains(number) && !shown.contains(number) {
                out.tell(Kind::Skipped, || format!("{number} is no part of a transaction, and is not shown"));
            }
            continue;
        };
        let (inside, outside) = of.entry(transaction).or_default();
        if shown.contains(number) {
            inside.push(*number);
        } else if history.transactions[transaction] == Fate::Committed || there.contains(number) {
            outside.push(*number);
        }
    }
    for (transaction, (inside, outside)) in of {
        match history.transactions[transaction] {
            Fate::Aborted if !inside.is_empty() => {
                out.tell(Kind::Aborted, || format!("transaction {transaction} was aborted, and {inside:?} are shown"));
            }
            Fate::Committed if !outside.is_empty() => {
                out.tell(Kind::Torn, || format!("transaction {transaction} was committed, without {outside:?}"));
            }
            Fate::Unknown if !inside.is_empty() && !outside.is_empty() => {
                out.tell(Kind::Torn, || {
                    format!("of transaction {transaction} {inside:?} are shown, {outside:?} are not")
                });
            }
            _ => {}
        }
    }
}

/// What readers got while it happened is what is there in the end, each of it once, in order, with nothing left out.
fn polls(history: &History, out: &mut Findings) {
    let mut last: BTreeMap<(Isolation, Place), i64> = BTreeMap::new();
    for poll in &history.polled {
        let truth = truth(history, poll.isolation);
        if history.all.get(&(poll.place, poll.offset)) != Some(&poll.number) {
            let words = format!("{} read {} in {}", poll.isolation.name(), poll.number, at(poll.place, poll.offset));
            out.tell(Kind::Dirty, || format!("{words}, which is not there"));
        } else if !truth.contains_key(&(poll.place, poll.offset)) {
            let words = format!("{} in {}", poll.number, at(poll.place, poll.offset));
            out.tell(Kind::Aborted, || format!("a reader of committed records got {words}"));
        }
        let from = last.insert((poll.isolation, poll.place), poll.offset).map_or(0, |before| before + 1);
        let passed = truth.range((poll.place, from)..(poll.place, poll.offset.max(from))).next();
        if poll.offset < from || passed.is_some() {
            out.tell(Kind::Skipped, || {
                format!(
                    "{} came to {} from {from}, past {passed:?}",
                    poll.isolation.name(),
                    at(poll.place, poll.offset)
                )
            });
        }
    }
}

const fn truth(history: &History, isolation: Isolation) -> &Found {
    match isolation {
        Isolation::Committed => &history.committed,
        Isolation::Uncommitted => &history.all,
    }
}

/// Each input came out once.
fn transformed(history: &History, out: &mut Findings) {
    let of = |topic: Topic| history.committed.iter().filter(move |((place, _), _)| place.0 == topic);
    let mut outputs: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for (_, number) in of(Topic::Out) {
        if let Some(source) = history.sent.get(number).and_then(|sent| sent.source) {
            outputs.entry(source).or_default().push(*number);
        }
    }
    for ((place, offset), number) in of(Topic::In) {
        match outputs.get(number).map_or(0, Vec::len) {
            1 => {}
            0 => out.tell(Kind::Untransformed, || format!("{number} in {}", at(*place, *offset))),
            _ => out.tell(Kind::TransformedTwice, || {
                format!("{number} in {}: {:?}", at(*place, *offset), outputs.get(number))
            }),
        }
    }
}

/// Groups go forward, and who commits what it has read has read all of it.
fn groups(history: &History, out: &mut Findings) {
    let mut last = BTreeMap::new();
    for (group, place, offset) in &history.positions {
        let before = last.insert((*group, *place), *offset);
        if before.is_some_and(|before| before > *offset) {
            out.tell(Kind::WentBack, || format!("{}: {before:?}, then {}", group.name(), at(*place, *offset)));
        }
    }
    for ((place, offset), number) in history.all.iter().filter(|((place, _), _)| place.0 == Topic::Plain) {
        if !history.followed.contains(&(*place, *offset)) {
            out.tell(Kind::Unfollowed, || format!("{number} in {}", at(*place, *offset)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::history::{Group, Polled, Sent},
        *,
    };

    const PLAIN: Place = (Topic::Plain, 0);
    const LEDGER: Place = (Topic::Ledger, 0);
    const IN: Place = (Topic::In, 0);
    const OUT: Place = (Topic::Out, 0);

    fn sent(history: &mut History, number: u64, place: Place, transaction: Option<usize>, source: Option<u64>) {
        history.sent.insert(number, Sent { place, producer: place.0 as u32, transaction, source });
    }

    /// A history in which all holds: two plain records, a transaction that was committed, one that was aborted, and one of which
    /// nobody knows that lies there whole, an input with its output.
    fn good() -> History {
        let mut history =
            History { transactions: vec![Fate::Committed, Fate::Aborted, Fate::Unknown], ..History::default() };
        for (number, place, offset, transaction, source) in [
            (1, PLAIN, 0, None, None),
            (2, PLAIN, 1, None, None),
            (3, LEDGER, 0, Some(0), None),
            (4, LEDGER, 1, Some(0), None),
            (5, LEDGER, 3, Some(1), None),
            (6, LEDGER, 5, Some(2), None),
            (7, LEDGER, 6, Some(2), None),
            (8, IN, 0, None, None),
            (9, OUT, 0, Some(0), Some(8)),
        ] {
            sent(&mut history, number, place, transaction, source);
            history.acknowledged.insert(number, (place, offset));
            history.all.insert((place, offset), number);
            let polled = |isolation| Polled { isolation, place, offset, number };
            history.polled.push(polled(Isolation::Uncommitted));
            if transaction != Some(1) {
                history.committed.insert((place, offset), number);
                history.polled.push(polled(Isolation::Committed));
            }
        }
        history.ends = BTreeMap::from([(PLAIN, 2), (LEDGER, 8), (IN, 1), (OUT, 2)]);
        history.followed = BTreeSet::from([(PLAIN, 0), (PLAIN, 1)]);
        history.positions =
            vec![(Group::Followers, PLAIN, 0), (Group::Followers, PLAIN, 2), (Group::Transformers, IN, 1)];
        history
    }

    /// What is found once a history was spoiled.
    fn found(spoil: impl FnOnce(&mut History)) -> BTreeSet<Kind> {
        let mut history = good();
        spoil(&mut history);
        judge(&history).iter().map(|finding| finding.kind).collect()
    }

    fn finds(kind: Kind, spoil: impl FnOnce(&mut History)) {
        let kinds = found(spoil);
        assert!(kinds.contains(&kind), "{kind:?} is not seen, but {kinds:?}");
    }

    #[test]
    fn nothing_is_found_where_all_holds() {
        assert_eq!(judge(&good()), []);
    }

    #[test]
    fn an_acknowledged_record_that_is_lost_elsewhere_or_twice_is_found() {
        finds(Kind::Lost, |history| {
            history.all.remove(&(PLAIN, 1));
        });
        finds(Kind::Lost, |history| {
            history.acknowledged.insert(2, (PLAIN, 0));
        });
        finds(Kind::Twice, |history| {
            history.all.insert((PLAIN, 2), 2);
            history.ends.insert(PLAIN, 3);
        });
        // At another place, too.
        finds(Kind::Twice, |history| {
            history.all.insert(((Topic::Plain, 1), 0), 2);
        });
    }

    #[test]
    fn records_in_another_order_and_records_that_nobody_sent_are_found() {
        finds(Kind::Reordered, |history| {
            history.all.insert((PLAIN, 0), 2);
            history.all.insert((PLAIN, 1), 1);
        });
        finds(Kind::Dirty, |history| {
            history.all.insert((PLAIN, 2), 77);
        });
    }

    #[test]
    fn offsets_that_nothing_explains_are_found() {
        finds(Kind::Gap, |history| {
            history.ends.insert(PLAIN, 3);
        });
        // Three transactions have one marker each: eight offsets hold five records and those.
        assert!(
            found(|history| {
                history.ends.insert(LEDGER, 8);
            })
            .is_empty()
        );
        finds(Kind::Gap, |history| {
            history.ends.insert(LEDGER, 9);
        });
        finds(Kind::Gap, |history| {
            history.ends.insert(LEDGER, 6);
        });
    }

    #[test]
    fn what_is_shown_of_an_aborted_transaction_and_what_is_not_of_a_committed_one_is_found() {
        finds(Kind::Aborted, |history| {
            history.committed.insert((LEDGER, 3), 5);
        });
        finds(Kind::Torn, |history| {
            history.committed.remove(&(LEDGER, 1));
        });
        finds(Kind::Torn, |history| {
            // A record that was never stored is lacking as well.
            sent(history, 10, LEDGER, Some(0), None);
        });
        finds(Kind::Torn, |history| {
            history.committed.remove(&(LEDGER, 6));
        });
        let whole = found(|history| {
            history.committed.remove(&(LEDGER, 5));
            history.committed.remove(&(LEDGER, 6));
            history.polled.retain(|poll| poll.isolation == Isolation::Uncommitted || poll.offset < 5);
        });
        assert!(whole.is_empty(), "nobody knows of it, and none of it is shown: {whole:?}");
        finds(Kind::Skipped, |history| {
            history.committed.remove(&(PLAIN, 1));
        });
    }

    #[test]
    fn what_readers_got_and_is_not_there_or_was_aborted_or_left_out_is_found() {
        let poll = |isolation, offset, number| Polled { isolation, place: LEDGER, offset, number };
        finds(Kind::Aborted, |history| history.polled.push(poll(Isolation::Committed, 3, 5)));
        finds(Kind::Dirty, |history| history.polled.push(poll(Isolation::Uncommitted, 9, 5)));
        finds(Kind::Dirty, |history| history.polled.push(poll(Isolation::Committed, 0, 4)));
        // Back, and past something.
        finds(Kind::Skipped, |history| history.polled.push(poll(Isolation::Uncommitted, 0, 3)));
        finds(Kind::Skipped, |history| {
            history.polled.retain(|poll| poll.isolation == Isolation::Committed || poll.number != 4);
        });
        // A reader of committed records is not led past what it may not see.
        finds(Kind::Skipped, |history| history.polled.retain(|poll| poll.number != 6));
    }

    #[test]
    fn an_input_that_came_out_twice_or_not_at_all_is_found() {
        finds(Kind::Untransformed, |history| {
            history.committed.remove(&(OUT, 0));
        });
        finds(Kind::TransformedTwice, |history| {
            sent(history, 11, OUT, Some(0), Some(8));
            history.all.insert((OUT, 1), 11);
            history.committed.insert((OUT, 1), 11);
        });
    }

    #[test]
    fn a_group_that_goes_back_or_passes_over_a_record_and_a_refusal_are_found() {
        finds(Kind::WentBack, |history| history.positions.push((Group::Followers, PLAIN, 1)));
        finds(Kind::Unfollowed, |history| {
            history.followed.remove(&(PLAIN, 0));
        });
        finds(Kind::Trouble, |history| history.troubles.push("a producer was refused for good".to_owned()));
    }
}
