//! The range assignor: the partitions of a topic in contiguous ranges, one for each subscriber. Called by the assignment only.
//!
//! It guarantees: topics with as many partitions and the same subscribers are cut alike, so that equal keys of both meet in one
//! member. It does not look at what members had.

use std::{collections::BTreeMap, sync::Arc};

use uuid::Uuid;

use super::{Subscribers, Target};

pub(super) fn assign(members: &Subscribers<'_>, topics: &BTreeMap<Uuid, u32>) -> Target {
    let mut target: Target = members.keys().map(|id| (Arc::clone(id), super::Partitions::default())).collect();
    let mut order: Vec<&Arc<str>> = members.keys().collect();
    // Static members first, by the name that outlives their process.
    order.sort_by_key(|id| {
        let instance = members[*id].instance;
        (instance.is_none(), instance, Arc::clone(id))
    });
    for (topic, partitions) in topics {
        let subscribers: Vec<&Arc<str>> =
            order.iter().copied().filter(|id| members[*id].topics.contains(topic)).collect();
        let count = u32::try_from(subscribers.len()).unwrap_or(u32::MAX);
        if count == 0 {
            continue;
        }
        let (each, one_more) = (partitions / count, partitions % count);
        let mut next = 0;
        for (at, id) in (0..count).zip(subscribers) {
            let end = next + each + u32::from(at < one_more);
            let Some(set) = target.get_mut(id) else { continue };
            set.extend((next..end).map(|partition| (*topic, partition)));
            next = end;
        }
    }
    target
}
