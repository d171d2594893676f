//! How far partitions and groups are, for metrics and reports. Reads what is in memory and nothing else, so that a scrape waits for
//! nobody; what it gives is bounded, and it says how much it left out.

use cairn_clock::Clock;
use cairn_log::Offset;

use crate::broker::Broker;

/// Partitions that are given, and committed offsets: a scrape of more would be of use to nobody.
pub const STANDINGS_MAX: usize = 5_000;

/// How far one partition is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionStanding {
    /// Its topic.
    pub topic: String,
    /// Which.
    pub partition: u32,
    /// First offset kept.
    pub oldest: u64,
    /// One past the last.
    pub current: u64,
}

/// How far a group is in one partition.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupStanding {
    /// The group.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The offset that it reads next, as it has committed it.
    pub offset: u64,
    /// Records that it has not read.
    pub lag: u64,
    /// Age of the oldest of them; 0 where there is none.
    pub lag_seconds: f64,
}

/// How far everything is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Standings {
    /// Partitions by name.
    pub partitions: Vec<PartitionStanding>,
    /// Groups: those that are furthest behind, where there are too many; by name.
    pub groups: Vec<GroupStanding>,
    /// Partitions and groups' partitions that were left out.
    pub left_out: u64,
}

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The group.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// When it was committed, ms.
    pub committed_ms: i64,
}

impl Broker {
    /// Every committed offset, by group, topic and partition.
    #[must_use]
    pub fn committed(&self) -> Vec<Committed> {
        let mut all = self.inner.groups.committed_everywhere();
        all.sort_by(|one, other| {
            (&one.group, &one.topic, one.partition).cmp(&(&other.group, &other.topic, other.partition))
        });
        all
    }

    /// How far partitions and groups are.
    #[must_use]
    pub fn standings(&self, clock: &Clock) -> Standings {
        let (log, mut standings) = (&self.inner.log, Standings::default());
        for topic in self.inner.topics.all().iter().filter(|topic| !topic.is_internal()) {
            for stream in topic.streams() {
                if standings.partitions.len() >= STANDINGS_MAX {
                    standings.left_out += 1;
                } else if let Ok(bounds) = log.bounds(stream) {
                    standings.partitions.push(PartitionStanding {
                        topic: topic.name.clone(),
                        partition: stream.partition.get(),
                        oldest: bounds.log_start.get(),
                        current: bounds.durable_end.get(),
                    });
                }
            }
        }
        let now_ms = clock.now().as_millis();
        let mut groups: Vec<_> =
            self.committed().into_iter().filter_map(|one| self.group_standing(one, now_ms)).collect();
        if groups.len() > STANDINGS_MAX {
            groups.sort_by_key(|one| std::cmp::Reverse(one.lag));
            standings.left_out += (groups.len() - STANDINGS_MAX) as u64;
            groups.truncate(STANDINGS_MAX);
            groups.sort_by(|one, other| {
                (&one.group, &one.topic, one.partition).cmp(&(&other.group, &other.topic, other.partition))
            });
        }
        standings.groups = groups;
        standings
    }

    /// Nothing where the topic is gone, or is the broker's own.
    fn group_standing(&self, one: Committed, now_ms: i64) -> Option<GroupStanding> {
        let topic = self.inner.topics.get(&one.topic).filter(|topic| !topic.is_internal())?;
        let stream = topic.stream(one.partition)?;
        let bounds = self.inner.log.bounds(stream).ok()?;
        let offset = u64::try_from(one.offset).ok()?;
        // What retention took needs no reading.
        let from = offset.max(bounds.log_start.get());
        let lag = bounds.durable_end.get().saturating_sub(from);
        let written = (lag > 0).then(|| self.inner.log.time_of(stream, Offset::new(from))).flatten();
        let age_ms = written.map_or(0, |written| now_ms.saturating_sub(written).max(0));
        let (group, topic, partition) = (one.group, one.topic, stream.partition.get());
        Some(GroupStanding { group, topic, partition, offset, lag, lag_seconds: age_ms as f64 / 1_000.0 })
    }
}
