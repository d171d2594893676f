//! The records of consumer groups in `__consumer_offsets`, in Kafka's own layout (4.0). Called by the group driver.
//!
//! | record | key | value, always i16 0 first |
//! | --- | --- | --- |
//! | group | i16 3, group | i32 epoch |
//! | topics subscribed to | i16 4, group | topics: id, name, i32 partitions, no racks |
//! | member | i16 5, group, member | instance?, rack?, client id, client host, names, regex?, i32 rebalance ms, assignor?, tag 0: of a classic member, i32 session ms and protocols (name, metadata) |
//! | target of all | i16 6, group | i32 epoch |
//! | target of a member | i16 7, group, member | partitions |
//! | what a member has | i16 8, group, member | i32 epoch, i32 previous epoch, i8 state, assigned partitions, partitions to give up |
//! | regular expression | i16 16, group, regex | names, i64 version, i64 time ms |
//!
//! Keys have strings of i16 length. Values are in Kafka's compact form: a length is a varint of one more, 0 stands for null, and
//! each structure ends with its tagged fields. Partitions are topics, each an id and its i32 numbers. No value deletes the key.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use super::{
    Partitions,
    member::{About, Classic, Current, State},
};
use crate::{
    fields::{Reader, put_string, put_varint},
    group::{GroupSnapshot, records as classic},
};

/// Name, id and partitions of the topics that a group subscribes to.
pub(crate) type TopicTable = BTreeMap<String, (Uuid, u32)>;

/// A change of a group that must be durable before anybody hears of it. Absent values delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// The group's epoch.
    Group(Option<i32>),
    Topics(Option<TopicTable>),
    Member(String, Option<About>),
    TargetEpoch(Option<i32>),
    Target(String, Option<Partitions>),
    Current(String, Option<Current>),
    Regex(String, Option<BTreeSet<String>>),
    /// The same group in the classic protocol.
    Classic(Option<GroupSnapshot>),
}

impl Change {
    fn is_deletion(&self) -> bool {
        match self {
            Self::Group(value) | Self::TargetEpoch(value) => value.is_none(),
            Self::Topics(value) => value.is_none(),
            Self::Member(_, value) => value.is_none(),
            Self::Target(_, value) => value.is_none(),
            Self::Current(_, value) => value.is_none(),
            Self::Regex(_, value) => value.is_none(),
            Self::Classic(_) => true,
        }
    }
}

/// A group as its records tell it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) epoch: i32,
    pub(crate) topics: TopicTable,
    pub(crate) members: BTreeMap<String, About>,
    pub(crate) target_epoch: i32,
    pub(crate) targets: BTreeMap<String, Partitions>,
    pub(crate) currents: BTreeMap<String, Current>,
    pub(crate) regexes: BTreeMap<String, BTreeSet<String>>,
}

impl Stored {
    /// Takes in the next record; the group is gone when its own is.
    pub(crate) fn take(groups: &mut std::collections::HashMap<String, Self>, group: String, change: Change) {
        if change == Change::Group(None) {
            groups.remove(&group);
            return;
        }
        // Compaction may leave any of a group's records first. What only deletes makes no group.
        let stored = if change.is_deletion() { groups.get_mut(&group) } else { Some(groups.entry(group).or_default()) };
        let Some(stored) = stored else { return };
        match change {
            Change::Group(epoch) => stored.epoch = epoch.unwrap_or_default(),
            Change::Topics(topics) => stored.topics = topics.unwrap_or_default(),
            Change::TargetEpoch(epoch) => stored.target_epoch = epoch.unwrap_or_default(),
            Change::Member(id, value) => put(&mut stored.members, id, value),
            Change::Target(id, value) => put(&mut stored.targets, id, value),
            Change::Current(id, value) => put(&mut stored.currents, id, value),
            Change::Regex(regex, value) => put(&mut stored.regexes, regex, value),
            Change::Classic(_) => {}
        }
    }

    /// Everything once more.
    pub(crate) fn changes(&self) -> Vec<Change> {
        let mut all = vec![Change::Group(Some(self.epoch)), Change::Topics(Some(self.topics.clone()))];
        all.extend(self.regexes.iter().map(|(regex, names)| Change::Regex(regex.clone(), Some(names.clone()))));
        all.extend(self.members.iter().map(|(id, about)| Change::Member(id.clone(), Some(about.clone()))));
        all.extend(self.targets.iter().map(|(id, target)| Change::Target(id.clone(), Some(target.clone()))));
        all.push(Change::TargetEpoch(Some(self.target_epoch)));
        all.extend(self.currents.iter().map(|(id, current)| Change::Current(id.clone(), Some(current.clone()))));
        all
    }
}

fn put<V>(map: &mut BTreeMap<String, V>, key: String, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}

/// Key and value of a change.
pub(crate) fn encode(group: &str, change: &Change, now_ms: i64, version: u64) -> (BytesMut, Option<BytesMut>) {
    match change {
        Change::Group(epoch) => (key(3, group, None), epoch.map(epoch_value)),
        Change::Topics(topics) => (key(4, group, None), topics.as_ref().map(topics_value)),
        Change::Member(id, about) => (key(5, group, Some(id)), about.as_ref().map(member_value)),
        Change::TargetEpoch(epoch) => (key(6, group, None), epoch.map(epoch_value)),
        Change::Target(id, target) => (key(7, group, Some(id)), target.as_ref().map(target_value)),
        Change::Current(id, current) => (key(8, group, Some(id)), current.as_ref().map(current_value)),
        Change::Regex(regex, names) => {
            (key(16, group, Some(regex)), names.as_ref().map(|names| regex_value(names, now_ms, version)))
        }
        Change::Classic(group_now) => {
            let value = group_now.as_ref().map(|snapshot| classic::group_value(snapshot, now_ms));
            (classic::group_key(group), value)
        }
    }
}

fn key(kind: i16, group: &str, of: Option<&str>) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_i16(kind);
    put_string(&mut out, group);
    if let Some(of) = of {
        put_string(&mut out, of);
    }
    out
}

fn begin() -> BytesMut {
    let mut out = BytesMut::new();
    out.put_i16(0);
    out
}

fn end(mut out: BytesMut) -> BytesMut {
    out.put_u8(0);
    out
}

fn epoch_value(epoch: i32) -> BytesMut {
    let mut out = begin();
    out.put_i32(epoch);
    end(out)
}

fn topics_value(topics: &TopicTable) -> BytesMut {
    let mut out = begin();
    put_count(&mut out, topics.len());
    for (name, (id, partitions)) in topics {
        out.put_slice(id.as_bytes());
        put_text(&mut out, name);
        out.put_i32(i32::try_from(*partitions).unwrap_or(i32::MAX));
        put_count(&mut out, 0);
        out.put_u8(0);
    }
    end(out)
}

fn member_value(about: &About) -> BytesMut {
    let mut out = begin();
    put_nullable(&mut out, about.instance.as_deref());
    put_nullable(&mut out, about.rack.as_deref());
    put_text(&mut out, &about.client_id);
    put_text(&mut out, &about.client_host);
    put_texts(&mut out, &about.names);
    put_nullable(&mut out, about.regex.as_deref());
    out.put_i32(i32::try_from(about.rebalance_timeout_ms).unwrap_or(i32::MAX));
    put_nullable(&mut out, about.assignor.as_deref());
    let Some(classic) = &about.classic else { return end(out) };
    let mut tagged = BytesMut::new();
    // A structure that may be null begins with a byte that says that it is not.
    tagged.put_i8(1);
    tagged.put_i32(i32::try_from(classic.session_timeout_ms).unwrap_or(i32::MAX));
    put_count(&mut tagged, classic.protocols.len());
    for (name, metadata) in &classic.protocols {
        put_text(&mut tagged, name);
        put_count(&mut tagged, metadata.len());
        tagged.put_slice(metadata);
        tagged.put_u8(0);
    }
    tagged.put_u8(0);
    put_varint(&mut out, 1);
    put_varint(&mut out, 0);
    put_varint(&mut out, tagged.len());
    out.put_slice(&tagged);
    out
}

fn target_value(target: &Partitions) -> BytesMut {
    let mut out = begin();
    put_partitions(&mut out, target);
    end(out)
}

fn current_value(current: &Current) -> BytesMut {
    let mut out = begin();
    out.put_i32(current.epoch);
    out.put_i32(current.previous_epoch);
    out.put_i8(current.state as i8);
    put_partitions(&mut out, &current.assigned);
    put_partitions(&mut out, &current.revoking);
    end(out)
}

fn regex_value(names: &BTreeSet<String>, now_ms: i64, version: u64) -> BytesMut {
    let mut out = begin();
    put_texts(&mut out, names);
    out.put_i64(i64::try_from(version).unwrap_or(i64::MAX));
    out.put_i64(now_ms);
    end(out)
}

fn put_count(out: &mut BytesMut, count: usize) {
    put_varint(out, count + 1);
}

fn put_text(out: &mut BytesMut, text: &str) {
    put_count(out, text.len());
    out.put_slice(text.as_bytes());
}

fn put_nullable(out: &mut BytesMut, text: Option<&str>) {
    match text {
        None => out.put_u8(0),
        Some(text) => put_text(out, text),
    }
}

fn put_texts(out: &mut BytesMut, texts: &BTreeSet<String>) {
    put_count(out, texts.len());
    texts.iter().for_each(|text| put_text(out, text));
}

fn put_partitions(out: &mut BytesMut, partitions: &Partitions) {
    put_count(out, partitions.topics().len());
    for (topic, of_topic) in partitions.topics() {
        out.put_slice(topic.as_bytes());
        put_count(out, of_topic.len());
        of_topic.iter().for_each(|partition| out.put_i32(i32::try_from(*partition).unwrap_or(i32::MAX)));
        out.put_u8(0);
    }
}

/// Group and change of a record behind its kind; `None` where its bytes are not what its version promises, `Some(None)` for a
/// kind or version that this broker does not know.
pub(in crate::group) fn decode(
    kind: i16,
    mut key: Reader<'_>,
    value: Option<&Bytes>,
) -> Option<Option<(String, Change)>> {
    if !matches!(kind, 3..=8 | 16) {
        return Some(None);
    }
    let group = key.string()?;
    let mut of = || key.string();
    let mut value = value.map(|value| Compact(Reader(value)));
    if let Some(value) = &mut value
        && value.0.i16()? != 0
    {
        return Some(None);
    }
    let change = match kind {
        3 => Change::Group(read(value, Compact::epoch)?),
        4 => Change::Topics(read(value, Compact::table)?),
        5 => Change::Member(of()?, read(value, Compact::about)?),
        6 => Change::TargetEpoch(read(value, Compact::epoch)?),
        7 => Change::Target(of()?, read(value, Compact::partitions)?),
        8 => Change::Current(of()?, read(value, Compact::current)?),
        _ => Change::Regex(of()?, read(value, Compact::named)?),
    };
    Some(Some((group, change)))
}

/// Reads a value where there is one.
fn read<'a, V>(value: Option<Compact<'a>>, reads: impl Fn(&mut Compact<'a>) -> Option<V>) -> Option<Option<V>> {
    match value {
        None => Some(None),
        Some(mut value) => reads(&mut value).map(Some),
    }
}

/// Kafka's compact form.
struct Compact<'a>(Reader<'a>);

impl<'a> Compact<'a> {
    /// A length that may be null.
    fn length(&mut self) -> Option<Option<usize>> {
        Some(self.0.varint()?.checked_sub(1))
    }

    fn count(&mut self) -> Option<usize> {
        self.length()?
    }

    fn nullable(&mut self) -> Option<Option<String>> {
        let Some(length) = self.length()? else { return Some(None) };
        String::from_utf8(self.0.slice(length)?.to_vec()).ok().map(Some)
    }

    fn text(&mut self) -> Option<String> {
        self.nullable()?
    }

    fn texts(&mut self) -> Option<BTreeSet<String>> {
        (0..self.count()?).map(|_| self.text()).collect()
    }

    fn named(&mut self) -> Option<BTreeSet<String>> {
        let names = self.texts()?;
        self.0.take::<16>()?; // which version of the topics, and when
        Some(names)
    }

    fn uuid(&mut self) -> Option<Uuid> {
        self.0.take::<16>().map(Uuid::from_bytes)
    }

    /// Steps over tagged fields that this broker does not know.
    fn tags(&mut self) -> Option<()> {
        for _ in 0..self.0.varint()? {
            self.0.varint()?;
            let length = self.0.varint()?;
            self.0.slice(length)?;
        }
        Some(())
    }

    fn epoch(&mut self) -> Option<i32> {
        self.0.i32()
    }

    fn table(&mut self) -> Option<TopicTable> {
        let mut table = TopicTable::new();
        for _ in 0..self.count()? {
            let (id, name) = (self.uuid()?, self.text()?);
            table.insert(name, (id, u32::try_from(self.0.i32()?).ok()?));
            for _ in 0..self.count()? {
                self.0.i32()?;
                self.texts()?;
                self.tags()?;
            }
            self.tags()?;
        }
        Some(table)
    }

    fn about(&mut self) -> Option<About> {
        let mut about = About {
            instance: self.nullable()?,
            rack: self.nullable()?,
            client_id: self.text()?,
            client_host: self.text()?,
            names: self.texts()?,
            regex: self.nullable()?,
            rebalance_timeout_ms: u64::try_from(self.0.i32()?).unwrap_or(0),
            assignor: self.nullable()?,
            classic: None,
        };
        for _ in 0..self.0.varint()? {
            let (tag, length) = (self.0.varint()?, self.0.varint()?);
            let mut field = Compact(Reader(self.0.slice(length)?));
            if tag == 0 {
                about.classic = field.classic()?;
            }
        }
        Some(about)
    }

    fn classic(&mut self) -> Option<Option<Classic>> {
        let [there] = self.0.take::<1>()?;
        if there.cast_signed() < 0 {
            return Some(None);
        }
        let session_timeout_ms = u64::try_from(self.0.i32()?).unwrap_or(0);
        let mut protocols = Vec::new();
        for _ in 0..self.count()? {
            let (name, length) = (self.text()?, self.count()?);
            protocols.push((name, Bytes::copy_from_slice(self.0.slice(length)?)));
            self.tags()?;
        }
        Some(Some(Classic { session_timeout_ms, protocols }))
    }

    fn partitions(&mut self) -> Option<Partitions> {
        let mut partitions = Partitions::default();
        for _ in 0..self.count()? {
            let topic = self.uuid()?;
            for _ in 0..self.count()? {
                partitions.insert(topic, u32::try_from(self.0.i32()?).ok()?);
            }
            self.tags()?;
        }
        Some(partitions)
    }

    fn current(&mut self) -> Option<Current> {
        let (epoch, previous_epoch) = (self.0.i32()?, self.0.i32()?);
        let [state] = self.0.take::<1>()?;
        let (assigned, revoking) = (self.partitions()?, self.partitions()?);
        // A state of a newer version: nothing is taken from the member before it says that it has nothing.
        let state = State::numbered(state.cast_signed()).unwrap_or(State::Stable);
        Some(Current { epoch, previous_epoch, state, assigned, revoking })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn partitions(all: &[(u128, u32)]) -> Partitions {
        all.iter().map(|(topic, partition)| (Uuid::from_u128(*topic), *partition)).collect()
    }

    fn every_kind() -> Vec<Change> {
        let classic =
            Classic { session_timeout_ms: 45_000, protocols: vec![("range".into(), Bytes::from_static(b"x"))] };
        let about = About {
            instance: Some("one".into()),
            client_id: "c".into(),
            client_host: "/h".into(),
            names: ["a".to_owned(), "b".to_owned()].into(),
            regex: Some("o.*".into()),
            rebalance_timeout_ms: 300_000,
            assignor: Some("range".into()),
            classic: Some(classic),
            rack: None,
        };
        let assigned = partitions(&[(1, 0), (1, 300), (2, 7)]);
        let current = Current {
            epoch: 4,
            previous_epoch: 3,
            state: State::Unrevoked,
            assigned: assigned.clone(),
            revoking: partitions(&[(2, 1)]),
        };
        vec![
            Change::Group(Some(5)),
            Change::Topics(Some([("a".to_owned(), (Uuid::from_u128(1), 301))].into())),
            Change::Regex("o.*".into(), Some(["orders".to_owned()].into())),
            Change::Member("m".into(), Some(about.clone())),
            Change::Member("n".into(), Some(About { classic: None, ..about })),
            Change::Target("m".into(), Some(assigned)),
            Change::TargetEpoch(Some(5)),
            Change::Current("m".into(), Some(current)),
        ]
    }

    fn round_trip(change: &Change) -> Option<(String, Change)> {
        let (key, value) = encode("g", change, 9, 3);
        let value = value.map(BytesMut::freeze);
        let mut key = Reader(&key);
        let kind = key.i16().expect("a kind");
        decode(kind, key, value.as_ref()).expect("readable")
    }

    #[test]
    fn every_record_reads_as_it_was_written() {
        for change in every_kind() {
            assert_eq!(round_trip(&change), Some(("g".to_owned(), change)));
        }
        assert_eq!(
            round_trip(&Change::Current("m".into(), None)),
            Some(("g".into(), Change::Current("m".into(), None)))
        );
    }

    #[test]
    fn the_bytes_are_those_of_kafka() {
        let (key, value) = encode("g", &Change::Current("m".into(), Some(Current::default())), 0, 0);
        assert_eq!(key[..], *b"\0\x08\0\x01g\0\x01m");
        assert_eq!(value.expect("a value")[..], *b"\0\0\0\0\0\0\0\0\0\0\x01\x01\x01\0");
        let target = partitions(&[(1, 2)]);
        let (key, value) = encode("g", &Change::Target("m".into(), Some(target)), 0, 0);
        assert_eq!(key[..], *b"\0\x07\0\x01g\0\x01m");
        let id = Uuid::from_u128(1);
        let expected = [b"\0\0\x02".as_slice(), id.as_bytes(), b"\x02\0\0\0\x02\0\0"].concat();
        assert_eq!(value.expect("a value")[..], expected);
    }

    #[test]
    fn a_record_that_is_cut_short_is_no_record() {
        for change in every_kind() {
            let (key, value) = encode("g", &change, 9, 3);
            let value = value.expect("a value").freeze();
            let mut reader = Reader(&key);
            let kind = reader.i16().expect("a kind");
            let cut = value.slice(..value.len().saturating_sub(2));
            let read = decode(kind, reader, Some(&cut));
            assert!(read.is_none_or(|read| read.is_none_or(|(_, read)| read != change)), "{change:?}");
        }
    }

    #[test]
    fn what_is_stored_is_what_was_changed_and_ends_with_the_group() {
        let mut groups = HashMap::new();
        every_kind().into_iter().for_each(|change| Stored::take(&mut groups, "g".into(), change));
        // Whatever compaction leaves first.
        let mut again = HashMap::new();
        every_kind().into_iter().rev().for_each(|change| Stored::take(&mut again, "g".into(), change));
        assert_eq!(again["g"], groups["g"]);
        Stored::take(&mut groups, "g".into(), Change::Group(None));
        Stored::take(&mut groups, "g".into(), Change::TargetEpoch(None));
        assert!(groups.is_empty());
    }
}
