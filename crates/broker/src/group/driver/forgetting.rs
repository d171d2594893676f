//! What groups committed, forgotten: when an administrator says so (OffsetDelete, KIP-496), and when nobody has used it for long
//! (`offsets.retention.minutes`, KIP-211). Part of the coordinator's task, so that no member joins between the look and the deed.
//!
//! It guarantees: what the members of a group read is not forgotten; an offset that is committed meanwhile stays.

use std::collections::{BTreeSet, HashMap};

use regex::bytes::Regex;

use super::{
    super::{
        GroupError, GroupSnapshot, GroupState, Input, Ticket,
        consumer::{self, ConsumerState, ConsumerView},
        records,
    },
    Records, Task,
};
use crate::{batch::BatchBuilder, fields::Reader};

/// The protocol type of groups whose members say which topics they read.
const CONSUMER: &str = "consumer";
/// Offsets that one batch forgets.
const FORGOTTEN_MAX: usize = 1_000;

/// One offset that was committed: topic and partition.
pub(crate) type Place = (String, i32);

/// What a group's members read, as far as that is known.
#[derive(Debug)]
enum Use {
    /// It has no members.
    Nobody,
    Topics(Topics),
    /// Its members do not say.
    Unknown,
}

#[derive(Debug, Default)]
struct Topics {
    names: BTreeSet<String>,
    expressions: Vec<Regex>,
}

impl Topics {
    fn has(&self, topic: &str) -> bool {
        self.names.contains(topic) || self.expressions.iter().any(|one| one.is_match(topic.as_bytes()))
    }
}

impl Task {
    /// Forgets offsets of a group, as OffsetDelete does; one result each.
    pub(super) async fn delete_offsets(
        &self,
        group: &str,
        wanted: Vec<Place>,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        let usage = match self.core.consumer.describe(group) {
            Some(view) => of_consumer(&view),
            None => match self.core.classic.describe(group) {
                Some((state, snapshot)) => of_classic(state, &snapshot),
                None if self.offsets.read().of_group(group).is_none() => return Err(GroupError::GroupNotFound),
                None => Use::Nobody,
            },
        };
        let read = match &usage {
            Use::Nobody => &Topics::default(),
            Use::Topics(topics) => topics,
            // Consumers that do not say what they read may read all of it.
            Use::Unknown if self.is_of_consumers(group) => {
                return Ok(wanted.iter().map(|_| Err(GroupError::Subscribed)).collect());
            }
            Use::Unknown => return Err(GroupError::NotEmpty),
        };
        let results =
            wanted.iter().map(|(topic, _)| if read.has(topic) { Err(GroupError::Subscribed) } else { Ok(()) });
        let results: Vec<_> = results.collect();
        let free = wanted.into_iter().zip(&results).filter(|(_, result)| result.is_ok()).map(|(place, _)| place);
        self.forget(group, free.collect()).await?;
        Ok(results)
    }

    fn is_of_consumers(&self, group: &str) -> bool {
        let classic = self.core.classic.describe(group);
        classic.is_some_and(|(_, snapshot)| snapshot.protocol_type == CONSUMER)
    }

    /// Forgets what was not used for as long as offsets are kept, and groups of which nothing is left.
    pub(super) async fn expire(&mut self) {
        let Some(kept_ms) = self.kept_ms else { return };
        let before_ms = self.settled.now().as_millis().saturating_sub(i64::try_from(kept_ms).unwrap_or(i64::MAX));
        for (group, places) in self.unused(before_ms) {
            tracing::info!(group, offsets = places.len(), "committed offsets that nobody used for long are forgotten");
            if self.forget(&group, places).await.is_err() {
                return; // it was told already; they are looked at again
            }
        }
        self.end_idle().await;
    }

    /// By group, offsets that nobody has used since.
    fn unused(&self, before_ms: i64) -> HashMap<String, Vec<Place>> {
        // In this order, as whoever ends a transaction.
        let (pending, offsets) = (self.pending.read(), self.offsets.read());
        let mut old: HashMap<String, Vec<Place>> = HashMap::new();
        for (group, of_group) in offsets.groups() {
            let (usage, since_ms) = match self.core.consumer.describe(group) {
                Some(view) => (of_consumer(&view), None),
                None => match self.core.classic.describe(group) {
                    // Only a group that is at rest says what it reads.
                    Some((GroupState::PreparingRebalance | GroupState::CompletingRebalance, _)) => continue,
                    Some((state, snapshot)) => (of_classic(state, &snapshot), self.empty_since.get(group).copied()),
                    // One that never had members: each offset counts from its own commit.
                    None => (Use::Nobody, None),
                },
            };
            let is_used = |topic: &str| match &usage {
                Use::Nobody => false,
                Use::Topics(topics) => topics.has(topic),
                Use::Unknown => true,
            };
            let is_old = |committed_ms: i64| since_ms.unwrap_or(committed_ms).max(committed_ms) <= before_ms;
            let places = of_group.iter().filter(|((topic, partition), entry)| {
                is_old(entry.value.committed_ms) && !is_used(topic) && !pending.has(group, topic, *partition)
            });
            let places: Vec<Place> = places.map(|(place, _)| place.clone()).collect();
            if !places.is_empty() {
                old.insert(group.clone(), places);
            }
        }
        old
    }

    /// Ends groups without members of which nothing is committed.
    async fn end_idle(&mut self) {
        let has_offsets = |offsets: &super::Offsets, group: &str| offsets.of_group(group).is_some();
        let (classic, consumers): (Vec<_>, Vec<_>) = {
            let offsets = self.offsets.read();
            let idle = self.core.classic.idle().filter(|group| !has_offsets(&offsets, group)).collect();
            let all = self.core.consumer.list();
            let empty = all.filter(|(_, state)| *state == ConsumerState::Empty).map(|(group, _)| group.clone());
            (idle, empty.filter(|group| !has_offsets(&offsets, group)).collect())
        };
        for group in classic {
            // Nobody waits for this ticket.
            self.put(Input::Delete { ticket: Ticket(u64::MAX), group: group.clone() }.into()).await;
            let gone: Records = [(records::group_key(&group).freeze(), None)].into();
            self.write(&group, gone).await;
            self.empty_since.remove(&group);
        }
        for group in consumers {
            self.put(consumer::Input::Delete { ticket: Ticket(u64::MAX), group }.into()).await;
        }
    }

    /// Makes it durable that these are forgotten, then forgets them.
    async fn forget(&self, group: &str, places: Vec<Place>) -> Result<(), GroupError> {
        for places in places.chunks(FORGOTTEN_MAX) {
            let now_ms = self.store.clock.now().as_millis();
            let mut batch = BatchBuilder::new();
            for (topic, partition) in places {
                batch.push(now_ms, Some(&records::offset_key(group, topic, *partition)), None, &[]);
            }
            let Some(base) = self.store.append(group, batch).await? else { continue };
            let mut pending = self.pending.write();
            let mut offsets = self.offsets.write();
            places.iter().for_each(|(topic, partition)| {
                pending.forget_before(group, topic, *partition, base);
                offsets.remove_before(group, topic, *partition, base);
            });
        }
        Ok(())
    }
}

fn of_classic(state: GroupState, snapshot: &GroupSnapshot) -> Use {
    if state == GroupState::Empty {
        return Use::Nobody;
    }
    if snapshot.protocol_type != CONSUMER {
        return Use::Unknown;
    }
    let mut topics = Topics::default();
    for member in &snapshot.members {
        match subscribed(&member.subscription) {
            Some(names) => topics.names.extend(names),
            None => return Use::Unknown,
        }
    }
    Use::Topics(topics)
}

fn of_consumer(view: &ConsumerView) -> Use {
    if view.state == ConsumerState::Empty {
        return Use::Nobody;
    }
    let mut topics = Topics::default();
    for member in &view.members {
        topics.names.extend(member.about.names.iter().cloned());
        match member.about.regex.as_deref().map(consumer::compile) {
            None => {}
            Some(Ok(expression)) => topics.expressions.push(expression),
            Some(Err(_)) => return Use::Unknown,
        }
        // A member of the classic protocol says it in that protocol's way.
        for (_, subscription) in member.about.classic.iter().flat_map(|classic| &classic.protocols) {
            match subscribed(subscription) {
                Some(names) => topics.names.extend(names),
                None => return Use::Unknown,
            }
        }
    }
    Use::Topics(topics)
}

/// The topics of a member of the classic protocol: a version, then their names (`ConsumerProtocolSubscription`).
fn subscribed(subscription: &[u8]) -> Option<Vec<String>> {
    let mut subscription = Reader(subscription);
    subscription.i16()?;
    let mut names = Vec::new();
    for _ in 0..subscription.i32()?.max(0) {
        names.push(subscription.string()?);
    }
    Some(names)
}
