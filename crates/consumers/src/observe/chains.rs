//! Whether events are missing between those that come: the producers' chains, as far as this process has followed them.
//!
//! Each event names its producer, epoch and place in the chain of its partition. A place that is left out is a gap: in a strict topic
//! somebody removed something, in a relaxed one something was lost before it was written. Only what is signed proves more (`cairn verify`).
//! Bounded: the producers that were heard of last are followed.

use std::collections::{BTreeMap, HashMap};

use cairn_backbone::group::Place;
use serde::Deserialize;

use crate::{Advance, Batch};

/// Chains that are followed.
const CHAINS_MAX: usize = 20_000;

/// Events that are missing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Gap {
    pub(super) place: Place,
    pub(super) producer: String,
    /// How many, where that can be told.
    pub(super) events: u64,
    /// Before which offset.
    pub(super) offset: u64,
}

#[derive(Deserialize)]
struct Linked {
    producer: Producer,
}

#[derive(Deserialize)]
struct Producer {
    id: String,
    epoch: u64,
    sequence: u64,
}

/// The newest link of each chain.
#[derive(Debug, Default)]
pub(super) struct Chains {
    links: HashMap<(Place, String), (u64, u64)>,
    /// Where each partition was followed to.
    stands: BTreeMap<Place, (String, u64)>,
}

impl Chains {
    /// Follows what a batch holds; what is missing in it.
    pub(super) fn follow(&mut self, batch: &Batch) -> Vec<Gap> {
        for Advance { place, topic_id, from, next } in &batch.advances {
            let stood = self.stands.insert(place.clone(), (topic_id.clone(), *next));
            let goes_on = stood.is_some_and(|(id, at)| id == *topic_id && Some(at) == *from);
            if !goes_on {
                // It begins elsewhere: what was before says nothing of what comes.
                self.links.retain(|(of, _), _| of != place);
            }
        }
        if self.links.len() > CHAINS_MAX {
            self.links.clear();
        }
        let mut gaps = Vec::new();
        for event in &batch.events {
            let Ok(Linked { producer: Producer { id, epoch, sequence } }) = serde_json::from_str(&event.value) else {
                continue;
            };
            let place = Place { topic: event.topic.clone(), partition: event.partition };
            let key = (place, id);
            let missing = match self.links.get(&key) {
                Some((last, at)) if *last == epoch => sequence.saturating_sub(at + 1),
                Some((last, _)) if *last < epoch => sequence,
                _ => 0,
            };
            if missing > 0 {
                let (place, producer) = key.clone();
                gaps.push(Gap { place, producer, events: missing, offset: event.offset });
            }
            let link = self.links.entry(key).or_insert((epoch, sequence));
            // An event that came again changes nothing.
            *link = (*link).max((epoch, sequence));
        }
        gaps
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixture::{NOW_US, batch, record};

    fn told(from: Option<u64>, links: &[(u64, u64, u64)]) -> Batch {
        let of = |(offset, epoch, sequence): &(u64, u64, u64)| {
            let data = json!({ "producer": { "id": "gw-1", "epoch": epoch, "sequence": sequence } });
            record("mcp.calls", (u128::from(*offset), *offset), "call.intent", &data, NOW_US)
        };
        batch(from, links.iter().map(of))
    }

    #[test]
    fn what_is_left_out_of_a_chain_is_a_gap_and_a_new_epoch_or_a_repetition_is_none() {
        let mut chains = Chains::default();
        assert!(
            chains.follow(&told(None, &[(5, 1, 40), (6, 1, 41), (7, 1, 41)])).is_empty(),
            "where it begins is no gap"
        );
        let gaps = chains.follow(&told(Some(8), &[(8, 1, 45), (9, 1, 46)]));
        assert_eq!(gaps.iter().map(|gap| (gap.events, gap.offset)).collect::<Vec<_>>(), [(3, 8)]);
        assert!(chains.follow(&told(Some(10), &[(10, 2, 0), (11, 1, 46), (12, 2, 1)])).is_empty());
        assert_eq!(chains.follow(&told(Some(13), &[(13, 3, 2)]))[0].events, 2, "a new epoch begins at 0");
        // An operator moved it on, and back.
        assert!(chains.follow(&told(Some(99), &[(99, 3, 90)])).is_empty());
        assert!(chains.follow(&told(Some(5), &[(5, 1, 40)])).is_empty());
    }
}
