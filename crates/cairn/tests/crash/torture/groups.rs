//! The clients that read: members of groups that join and leave all the time, who transform exactly once or commit what they have
//! read; readers of everything; and who looks at what groups have committed.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use cairn_clock::Entropy;
use parking_lot::Mutex;
use rdkafka::{
    ClientContext, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, ConsumerGroupMetadata, Rebalance},
    error::{KafkaError, RDKafkaErrorCode},
    producer::Producer,
};

use super::{
    history::{Fate, Found, Group, Isolation, Place, Polled, Sent, Topic, places},
    load::{CALL, Client, Load, PATIENCE, is_retriable, must_abort, number},
    pause, until,
};

/// Stalls of a member are longer than this, so that others take what it has in hand.
const POLL_MAX_MS: u64 = 6_000;

/// What a member knows of its place in the group.
#[derive(Default)]
struct Seat {
    /// Who it was when it was last given partitions.
    member: Mutex<Option<ConsumerGroupMetadata>>,
    /// How often that changed.
    changes: Mutex<u64>,
}

impl ClientContext for Seat {}

impl ConsumerContext for Seat {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, _: &Rebalance<'_>) {
        *self.changes.lock() += 1;
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(_) = rebalance {
            *self.member.lock() = consumer.group_metadata();
        }
    }
}

type Member = BaseConsumer<Seat>;

fn join(load: &Load, group: Group, isolation: Isolation) -> Member {
    let mut config = load.config();
    config
        .set("group.id", group.name())
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("isolation.level", isolation.name())
        .set("max.poll.interval.ms", POLL_MAX_MS.to_string())
        .set("fetch.wait.max.ms", "50")
        .set("check.crcs", "true");
    if load.is_new_protocol && group == Group::Followers {
        config.set("group.protocol", "consumer");
    } else {
        config.set("partition.assignment.strategy", load.strategy);
        config.set("session.timeout.ms", "6000").set("heartbeat.interval.ms", "500");
    }
    let member: Member = config.create_with_context(Seat::default()).expect("a consumer");
    member.subscribe(&[group.topic().name()]).expect("subscribed");
    member
}

/// A record that a member has in hand.
struct Held {
    partition: i32,
    offset: i64,
    number: u64,
}

/// Records of one moment: polled while the member's partitions stayed the same.
fn collect(member: &Member, most: usize) -> Vec<Held> {
    let (mut held, before) = (Vec::new(), *member.context().changes.lock());
    for _ in 0..most + 5 {
        if let Some(Ok(message)) = member.poll(std::time::Duration::from_millis(40)) {
            let (partition, offset) = (message.partition(), message.offset());
            held.push(Held { partition, offset, number: number(message.payload()) });
        }
        if *member.context().changes.lock() != before {
            // What was in hand may be another's by now.
            rewind(member);
            return Vec::new();
        }
        if held.len() >= most {
            break;
        }
    }
    held
}

/// Goes back to what the group has committed.
fn rewind(member: &Member) {
    let Ok(committed) = until("what the group has committed", || match member.committed(CALL) {
        Ok(committed) => Some(Ok(committed)),
        Err(error) if member.assignment_lost() => Some(Err(error)),
        Err(_) => None,
    }) else {
        return;
    };
    for one in committed.elements() {
        let offset = match one.offset() {
            Offset::Offset(offset) => Offset::Offset(offset),
            _ => Offset::Beginning,
        };
        // What is not its own any more cannot be sought in, and need not be.
        let _ = member.seek(one.topic(), one.partition(), offset, CALL);
    }
}

/// Transforms, one life after another, until everything is done.
pub(super) fn transform(load: &Load, worker: u32) {
    let entropy = load.entropy(u64::from(worker));
    while !load.is_done() {
        let client = load.transactional(&format!("transform-{worker}"));
        let member = join(load, Group::Transformers, Isolation::Committed);
        let mut left = 4 + entropy.next_u64() % 30;
        // Once nothing new comes it stays, so that there is an end.
        while !load.is_done() && (left > 0 || !load.is_producing()) {
            left = left.saturating_sub(1);
            let held = collect(&member, 1 + entropy.next_u64() as usize % 25);
            if held.is_empty() {
                continue;
            }
            match turn(load, &client, &member, worker, &held, &entropy) {
                Ok(Fate::Committed) => {}
                Ok(_) => rewind(&member),
                // Its id is taken over by its next life, which ends what this one left.
                Err(error) if !load.is_done() => {
                    load.trouble(format!("transformer {worker} was refused for good: {error}"));
                    break;
                }
                Err(_) => break,
            }
        }
        load.rebalances.fetch_add(*member.context().changes.lock(), Ordering::SeqCst);
    }
}

/// One transaction: what is in hand comes out, and that it was read, or neither.
fn turn(
    load: &Load,
    client: &Client,
    member: &Member,
    worker: u32,
    held: &[Held],
    entropy: &Entropy,
) -> Result<Fate, KafkaError> {
    client.begin_transaction()?;
    let transaction = load.begin();
    let mut next = BTreeMap::new();
    let mut is_whole = true;
    for one in held {
        let place = (Topic::Out, (one.number % Topic::Out.partitions() as u64) as i32);
        let sent = Sent { place, producer: worker, transaction: Some(transaction), source: Some(one.number) };
        is_whole &= load.send(client, sent).is_ok();
        next.insert(one.partition, one.offset + 1);
    }
    if load.stalls && load.is_producing() && entropy.next_u64().is_multiple_of(40) {
        pause(POLL_MAX_MS + 1_000 + entropy.next_u64() % 1_500);
    }
    // As in other transactions.
    let _ = client.flush(PATIENCE);
    if is_whole {
        is_whole = hand_over(load, client, member, &next)?;
    }
    load.end(client, transaction, is_whole && !entropy.next_u64().is_multiple_of(8))
}

/// Puts what was read into the transaction, as the member that it was when it read it; whether that was taken.
fn hand_over(load: &Load, client: &Client, member: &Member, next: &BTreeMap<i32, i64>) -> Result<bool, KafkaError> {
    let who = member.context().member.lock();
    let Some(who) = who.as_ref() else { return Ok(false) };
    let offsets = list(Topic::In, next);
    loop {
        match client.send_offsets_to_transaction(&offsets, who, CALL) {
            Ok(()) => return Ok(true),
            Err(error) if is_retriable(&error) && !load.is_done() => pause(20),
            Err(error) if must_abort(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

fn list(topic: Topic, next: &BTreeMap<i32, i64>) -> TopicPartitionList {
    let mut offsets = TopicPartitionList::new();
    for (partition, offset) in next {
        offsets.add_partition_offset(topic.name(), *partition, Offset::Offset(*offset)).expect("an offset");
    }
    offsets
}

/// Reads and then commits what it has read, one life after another.
pub(super) fn follow(load: &Load, worker: u32) {
    let entropy = load.entropy(u64::from(worker));
    while !load.is_done() {
        let member = join(load, Group::Followers, Isolation::Uncommitted);
        let (mut left, mut next, mut changes) = (10 + entropy.next_u64() % 60, BTreeMap::new(), 0);
        while !load.is_done() && (left > 0 || !load.is_producing()) {
            left = left.saturating_sub(1);
            let held = collect(&member, 1 + entropy.next_u64() as usize % 60);
            let by_now = *member.context().changes.lock();
            if std::mem::replace(&mut changes, by_now) != by_now {
                // Where it was is where the group has committed by now.
                next.clear();
            }
            let places = held.iter().map(|one| ((Topic::Plain, one.partition), one.offset));
            load.history.lock().followed.extend(places);
            next.extend(held.iter().map(|one| (one.partition, one.offset + 1)));
            let is_due = !load.is_producing() || !entropy.next_u64().is_multiple_of(6);
            // Where it is not taken it is read again, or committed with what comes.
            if is_due && !next.is_empty() && !member.assignment_lost() {
                let _ = member.commit(&list(Topic::Plain, &next), CommitMode::Sync);
            }
        }
        load.rebalances.fetch_add(*member.context().changes.lock(), Ordering::SeqCst);
    }
}

fn reader(load: &Load, isolation: Isolation, more: &[(&str, &str)]) -> BaseConsumer {
    let mut config = load.config();
    config
        .set("group.id", "readers")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", isolation.name())
        .set("fetch.wait.max.ms", "50")
        .set("check.crcs", "true");
    more.iter().for_each(|(key, value)| {
        config.set(*key, *value);
    });
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let mut all = TopicPartitionList::new();
    for (topic, partition) in places() {
        all.add_partition_offset(topic.name(), partition, Offset::Offset(0)).expect("added");
    }
    consumer.assign(&all).expect("assigned");
    consumer
}

fn place(message: &impl Message) -> Place {
    (Topic::named(message.topic()).expect("a topic of ours"), message.partition())
}

/// Reads everything from the beginning, and goes on reading whatever happens to brokers.
pub(super) fn read(load: &Load, isolation: Isolation) {
    let consumer = reader(load, isolation, &[]);
    while !load.is_done() {
        match consumer.poll(std::time::Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let (place, offset, number) = (place(&message), message.offset(), number(message.payload()));
                load.history.lock().polled.push(Polled { isolation, place, offset, number });
            }
            Some(Err(KafkaError::MessageConsumption(
                code @ (RDKafkaErrorCode::AutoOffsetReset
                | RDKafkaErrorCode::OffsetOutOfRange
                | RDKafkaErrorCode::BadMessage
                | RDKafkaErrorCode::UnknownTopicOrPartition),
            ))) => load.trouble(format!("a reader was told {code}")),
            _ => {}
        }
    }
}

/// Looks at what the groups have committed, again and again.
pub(super) fn watch(load: &Load) {
    let both = [Group::Followers, Group::Transformers].map(|group| (group, onlooker(load, group)));
    while !load.is_done() {
        for (group, consumer) in &both {
            let committed = committed(consumer, *group);
            let mut history = load.history.lock();
            for (partition, offset) in committed.into_iter().flatten() {
                history.positions.push((*group, (group.topic(), partition), offset));
            }
        }
        pause(100);
    }
}

fn onlooker(load: &Load, group: Group) -> BaseConsumer {
    load.config().set("group.id", group.name()).set("isolation.level", "read_committed").create().expect("a consumer")
}

fn committed(consumer: &BaseConsumer, group: Group) -> Option<Vec<(i32, i64)>> {
    let mut asked = TopicPartitionList::new();
    asked.add_partition_range(group.topic().name(), 0, group.topic().partitions() - 1);
    let answered = consumer.committed_offsets(asked, CALL).ok()?;
    let of = |one: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| match (one.error(), one.offset()) {
        (Ok(()), Offset::Offset(offset)) => Some((one.partition(), offset)),
        _ => None,
    };
    Some(answered.elements().iter().filter_map(of).collect())
}

/// Waits until both groups have committed everything.
pub(super) fn caught_up(load: &Load) {
    for group in [Group::Followers, Group::Transformers] {
        let consumer = onlooker(load, group);
        until(&format!("{} to have read everything", group.name()), || {
            let at: BTreeMap<i32, i64> = committed(&consumer, group)?.into_iter().collect();
            let is_at_end = |partition: i32| {
                let (_, end) = consumer.fetch_watermarks(group.topic().name(), partition, CALL).ok()?;
                Some(end == 0 || at.get(&partition) == Some(&end))
            };
            (0..group.topic().partitions()).all(|partition| is_at_end(partition) == Some(true)).then_some(())
        });
    }
}

/// Everything that there is to read, and where each partition ends.
pub(super) fn everything(load: &Load, isolation: Isolation) -> (Found, BTreeMap<Place, i64>) {
    let consumer = reader(load, isolation, &[("enable.partition.eof", "true")]);
    let mut ends = BTreeMap::new();
    for place in places() {
        let (low, end) = consumer.fetch_watermarks(place.0.name(), place.1, PATIENCE).expect("it answers");
        assert_eq!(low, 0, "nothing was to be forgotten");
        ends.insert(place, end);
    }
    let (mut found, mut left) = (Found::new(), ends.len());
    while left > 0 {
        match consumer.poll(PATIENCE).expect("a record, or the end of a partition") {
            Ok(message) => {
                let before = found.insert((place(&message), message.offset()), number(message.payload()));
                assert!(before.is_none(), "an offset came twice");
            }
            Err(KafkaError::PartitionEOF(_)) => left -= 1,
            Err(_) => {}
        }
    }
    (found, ends)
}
