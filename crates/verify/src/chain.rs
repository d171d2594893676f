//! The producer chains of one partition: each event names the one before it of its producer.
//!
//! Records are given in the order of their offsets. The chain alone finds a change, a removal, a swap or a replay between two
//! events of one producer, whoever runs the backbone; what nobody follows yet only a checkpoint can vouch for. Memory is bounded:
//! a number of producers, of gaps, and of links that are remembered.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet, VecDeque},
};

use serde::Deserialize;

use crate::{
    finding::{Kind, Sighting},
    record::Hash,
};

/// Producers of one partition that are followed.
const PRODUCERS_MAX: usize = 10_000;
/// First events of a producer and epoch that are remembered.
const SEEN_MAX: usize = 20_000;
/// Gaps that may still be filled by events that come too late.
const GAPS_MAX: usize = 1_024;
/// Links that are remembered, to tell a replay from an insertion.
const RECENT_MAX: usize = 4_096;
/// Hidden links that are remembered.
const HIDDEN_MAX: usize = 262_144;

/// A place in a producer's chain, as an event says it.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub(crate) struct Place<'e> {
    /// The producer.
    #[serde(borrow)]
    pub(crate) id: Cow<'e, str>,
    /// Its epoch.
    pub(crate) epoch: u64,
    /// The number within the epoch.
    pub(crate) sequence: u64,
    /// The link of the event before, in hexadecimal.
    #[serde(borrow, default)]
    pub(crate) previous: Option<Cow<'e, str>>,
}

impl<'e> Place<'e> {
    /// The place that an event's value says; nothing where it is no event.
    #[must_use]
    pub(crate) fn of(value: &'e [u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Event<'e> {
            #[serde(borrow)]
            producer: Place<'e>,
        }
        serde_json::from_slice(value).ok().map(|event: Event<'e>| event.producer)
    }
}

#[derive(Debug)]
struct Producer {
    epoch: u64,
    sequence: u64,
    link: Hash,
    offset: u64,
}

/// Numbers of a producer that did not come, with what that means if they never do.
#[derive(Debug)]
struct Gap {
    producer: String,
    epoch: u64,
    from: u64,
    to: u64,
    offset: u64,
}

/// Follows the chains of one partition.
#[derive(Debug)]
pub(crate) struct Chains {
    is_strict: bool,
    /// The first record that is given is the first of all.
    is_whole: bool,
    producers: HashMap<String, Producer>,
    gaps: VecDeque<Gap>,
    recent: VecDeque<Hash>,
    /// Links of records that are only shown by their digests, whose producers nobody knows.
    hidden: HashSet<Hash>,
    /// Events that a relaxed producer dropped or lost.
    pub(crate) lost: u64,
    /// The first event of each producer and epoch: id, epoch, offset.
    seen: Vec<(String, u64, u64)>,
}

/// What is said of an offset.
pub(crate) type Say<'s> = &'s mut dyn FnMut(Kind, u64, String);

impl Chains {
    pub(crate) fn new(is_strict: bool, is_whole: bool) -> Self {
        Self {
            is_strict,
            is_whole,
            producers: HashMap::new(),
            gaps: VecDeque::new(),
            recent: VecDeque::new(),
            hidden: HashSet::new(),
            lost: 0,
            seen: Vec::new(),
        }
    }

    /// A record lies here that is only shown by its digests: a chain may go through it.
    pub(crate) fn hidden(&mut self, link: &Hash) {
        if self.hidden.len() == HIDDEN_MAX {
            // Too many to remember: chains begin anew behind them.
            self.hidden.clear();
            self.producers.clear();
            self.is_whole = false;
        }
        self.hidden.insert(*link);
    }

    /// Follows one record by its value, with its link.
    pub(crate) fn follow(&mut self, value: Option<&[u8]>, offset: u64, link: &Hash, say: Say<'_>) {
        let Some(place) = value.and_then(Place::of) else {
            say(Kind::Foreign, offset, "this record is no event of Cairn's".to_owned());
            return;
        };
        self.place(&place, offset, link, say);
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(*link);
    }

    fn place(&mut self, place: &Place<'_>, offset: u64, link: &Hash, say: Say<'_>) {
        let Place { id, epoch, sequence, previous } = place;
        let (epoch, sequence) = (*epoch, *sequence);
        let is_known = previous.as_deref().is_none_or(|text| text.len() == 64);
        if !is_known {
            say(Kind::Foreign, offset, "the event names no link of SHA-256 as the one before".to_owned());
        }
        let Some(last) = self.producers.get_mut(id.as_ref()) else {
            // The one before may be shown by its digests alone.
            let is_hidden = || previous.as_deref().and_then(unhex).is_some_and(|link| self.hidden.contains(&link));
            if self.is_whole && (sequence > 0 || previous.is_some()) && !is_hidden() {
                let text = format!(
                    "the first event of producer {id} here is number {sequence} of epoch {epoch}, and names one before it that is not there"
                );
                say(Kind::Removed, offset, text);
            }
            if self.seen.len() < SEEN_MAX {
                self.seen.push((id.to_string(), epoch, offset));
            }
            if self.producers.len() < PRODUCERS_MAX {
                self.producers.insert(id.to_string(), Producer { epoch, sequence, link: *link, offset });
            }
            return;
        };
        if (epoch, sequence) <= (last.epoch, last.sequence) {
            self.late(place, offset, link, say);
            return;
        }
        let follows = previous.as_deref().is_some_and(|text| is_hex_of(text, &last.link));
        // The first number that could come: within the epoch the next one, in another epoch its first.
        let first = if epoch == last.epoch { last.sequence + 1 } else { 0 };
        if epoch != last.epoch && self.seen.len() < SEEN_MAX {
            self.seen.push((id.to_string(), epoch, offset));
        }
        let before = last.offset;
        *last = Producer { epoch, sequence, link: *link, offset };
        if follows && sequence == first {
            return;
        }
        if !follows
            && sequence > 0
            && previous.as_deref().and_then(unhex).is_some_and(|link| self.hidden.contains(&link))
        {
            return;
        }
        if follows {
            // It named the last one that is there: the producer itself left numbers out.
            if self.is_strict {
                let text = format!("producer {id} left numbers {first} to {} of epoch {epoch} out", sequence - 1);
                say(Kind::Skipped, offset, text);
            } else {
                self.lost = self.lost.saturating_add(sequence - first);
            }
        } else if sequence == first && first > 0 {
            let text = format!(
                "the event at offset {before} of producer {id} is not the one that its successor at {offset} names"
            );
            say(Kind::Changed, before, text);
        } else if sequence == first {
            let text = format!(
                "epoch {epoch} of producer {id} begins behind another event than the one at offset {before}: that one was changed, or events behind it are missing"
            );
            say(Kind::Removed, offset, text);
        } else {
            if self.gaps.len() == GAPS_MAX
                && let Some(gap) = self.gaps.pop_front()
            {
                gap.say(say);
            }
            self.gaps.push_back(Gap { producer: id.to_string(), epoch, from: first, to: sequence, offset });
        }
    }

    /// An event whose number is not above the last one's.
    fn late(&mut self, place: &Place<'_>, offset: u64, link: &Hash, say: Say<'_>) {
        let Place { id, epoch, sequence, .. } = place;
        let fills = |gap: &Gap| gap.producer == *id && gap.epoch == *epoch && (gap.from..gap.to).contains(sequence);
        if let Some(at) = self.gaps.iter().position(fills) {
            let text = format!("number {sequence} of epoch {epoch} of producer {id} lies behind its successors");
            say(Kind::Swapped, offset, text);
            if let Some(Gap { producer, epoch, from, to, offset }) = self.gaps.remove(at) {
                let parts = [(from, *sequence), (sequence + 1, to)];
                for (from, to) in parts.into_iter().filter(|(from, to)| from < to) {
                    self.gaps.push_back(Gap { producer: producer.clone(), epoch, from, to, offset });
                }
            }
            return;
        }
        let is_again = self.recent.contains(link);
        let text = format!("number {sequence} of epoch {epoch} of producer {id} was there before");
        if is_again {
            say(Kind::Replayed, offset, format!("{text}, the same event"));
        } else {
            say(Kind::Inserted, offset, format!("{text}, or its producer never wrote this one"));
        }
    }

    /// Who wrote.
    pub(crate) fn sightings(&mut self, topic: &str, partition: u32) -> Vec<Sighting> {
        let topic = topic.to_owned();
        let seen = self.seen.drain(..);
        seen.map(|(id, epoch, offset)| Sighting { topic: topic.clone(), partition, offset, id, epoch }).collect()
    }

    /// Says what nobody filled.
    pub(crate) fn finish(&mut self, say: Say<'_>) {
        self.gaps.drain(..).for_each(|gap| gap.say(say));
    }
}

impl Gap {
    fn say(self, say: Say<'_>) {
        let Self { producer, epoch, from, to, offset } = self;
        let text =
            format!("numbers {from} to {} of epoch {epoch} of producer {producer} are missing before it", to - 1);
        say(Kind::Removed, offset, text);
    }
}

fn is_hex_of(text: &str, hash: &Hash) -> bool {
    let digit = |byte: u8| b"0123456789abcdef"[usize::from(byte)];
    text.len() == 64
        && text.as_bytes().chunks(2).zip(hash).all(|(pair, byte)| pair == [digit(byte >> 4), digit(byte & 15)])
}

fn unhex(text: &str) -> Option<Hash> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let bytes = text.as_bytes().chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?));
    bytes.collect::<Option<Vec<_>>>()?.try_into().ok()
}
