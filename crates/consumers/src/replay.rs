//! Giving a part of the trail to a consumer once more, so that what came of it is put right.
//!
//! [`plan`] says what would be done again and changes nothing. [`Replay::run`] reads those offsets by the Kafka protocol, outside
//! of the consumer's group, and has the sink replace what came of them, a batch at a time: nobody ever sees a gap, nothing counts
//! as seen already, and the consumer goes on beside it. A replay that is cut off left each batch either as it was or as it is
//! now; it is run again.

use std::{collections::BTreeMap, time::Duration};

use cairn_backbone::{
    group::Place,
    reader::ReaderError,
    records::{Bounded, Records},
};
use cairn_contract::{OffsetRange, Topic};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{Advance, Batch, Position, Sink, SinkError};

const POLL: Duration = Duration::from_millis(100);
/// After so long without a record the backbone counts as away.
const SILENT_MAX: Duration = Duration::from_secs(60);
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Offsets of one partition that are given again: `from..to`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Span {
    /// The partition.
    pub place: Place,
    /// The topic's id; empty where the cluster has none.
    pub topic_id: String,
    /// The first offset.
    pub from: u64,
    /// The offset behind the last one.
    pub to: u64,
}

impl From<&Span> for OffsetRange {
    fn from(span: &Span) -> Self {
        Self { topic: span.place.topic.clone(), partition: span.place.partition, from: span.from, to: span.to }
    }
}

/// What a replay would do.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Planned {
    /// What is given again, by partition.
    pub spans: Vec<Span>,
    /// Offsets that were asked for and that the consumer has not come to yet: it takes them anyhow.
    pub ahead: u64,
    /// Partitions of which records that were asked for are not kept any more.
    pub cut: u64,
}

impl Planned {
    /// How many offsets are given again.
    #[must_use]
    pub fn offsets(&self) -> u64 {
        self.spans.iter().map(|span| span.to - span.from).sum()
    }
}

/// What a replay did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Replayed {
    /// Records that were given.
    pub records: u64,
    /// Results that were there before.
    pub replaced: u64,
    /// Those that are not what they were: other, new, or gone.
    pub changed: u64,
    /// Records that could not be taken.
    pub dead_letters: u64,
}

impl Replayed {
    fn add(&mut self, more: Self) {
        self.records += more.records;
        self.replaced += more.replaced;
        self.changed += more.changed;
        self.dead_letters += more.dead_letters;
    }
}

/// How fast a replay goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pace {
    /// At most so many records a second; `None` is as fast as it can.
    pub records_a_second_max: Option<u64>,
}

/// Why a replay did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The backbone.
    #[error(transparent)]
    Read(#[from] ReaderError),
    /// The sink.
    #[error("{0}")]
    Sink(#[from] SinkError),
    /// No record came.
    #[error("the backbone has given nothing for {} s: see that it runs, and run the replay again", SILENT_MAX.as_secs())]
    Silent,
    /// It was asked to stop.
    #[error("the replay was stopped before its end: what it had come to is replaced, the rest is as it was")]
    Stopped,
}

/// Which offsets lie between two times, as far as the consumer has come. No topic is every topic.
///
/// # Errors
/// A cluster that does not answer.
pub fn plan(
    records: &Records,
    stands: &[Position],
    (from_ms, to_ms): (Option<i64>, Option<i64>),
    topics: &[String],
) -> Result<Planned, ReaderError> {
    let wanted = |name: &str| {
        Topic::of_anybody(name).is_some() && (topics.is_empty() || topics.iter().any(|topic| topic == name))
    };
    let bounded = records.partitions(wanted)?;
    let ids = records.topic_ids();
    let at = |time: Option<i64>| time.map(|time| records.offsets_at(&bounded, time)).transpose();
    let (begins, ends) = (at(from_ms)?, at(to_ms)?);
    let mut planned = Planned::default();
    for (index, Bounded { topic, partition, start, end }) in bounded.iter().enumerate() {
        let from = begins.as_ref().map_or(*start, |begins| begins[index]).max(*start);
        let until = ends.as_ref().map_or(*end, |ends| ends[index]).min(*end);
        let place = Place { topic: topic.clone(), partition: *partition };
        let topic_id = ids.get(topic).map(ToString::to_string).unwrap_or_default();
        let stand = stands.iter().find(|stand| stand.place == place && stand.topic_id == topic_id);
        let to = until.min(stand.map_or(0, |stand| stand.next));
        planned.ahead += until.saturating_sub(to.max(from));
        // Whoever asks for all of it, or for a time before the first record that is kept, asks for what is gone.
        planned.cut += u64::from(*start > 0 && from == *start);
        if from < to {
            planned.spans.push(Span { place, topic_id, from, to });
        }
    }
    Ok(planned)
}

/// A replay on its way.
#[derive(Debug)]
pub struct Replay<'r> {
    records: &'r Records,
    spans: Vec<Span>,
    pace: Pace,
    stop: CancellationToken,
}

impl<'r> Replay<'r> {
    /// A replay of what was planned.
    #[must_use]
    pub const fn new(records: &'r Records, spans: Vec<Span>, pace: Pace, stop: CancellationToken) -> Self {
        Self { records, spans, pace, stop }
    }

    /// Gives all of it, and says after each batch how far it has come.
    ///
    /// # Errors
    /// The backbone or the sink fails, or it is stopped; what was done is told in `progress`.
    pub fn run(&self, sink: &mut dyn Sink, progress: &mut dyn FnMut(u64, Replayed)) -> Result<Replayed, ReplayError> {
        let mut left: BTreeMap<Place, Span> =
            self.spans.iter().map(|span| (span.place.clone(), span.clone())).collect();
        self.records.assign(left.values().map(|span| (span.place.topic.as_str(), span.place.partition, span.from)))?;
        let (mut done, mut batch, mut offsets) = (Replayed::default(), Batch::default(), 0);
        let (begun, mut heard) = (Instant::now(), Instant::now());
        while !left.is_empty() {
            if self.stop.is_cancelled() {
                return Err(ReplayError::Stopped);
            }
            let polled = self.records.poll(POLL)?;
            let is_quiet = polled.is_none();
            if let Some(record) = polled {
                heard = Instant::now();
                let place = Place { topic: record.topic.clone(), partition: record.partition };
                match left.get(&place) {
                    Some(span) if record.offset < span.to => {
                        batch.push(record, || (span.topic_id.clone(), Some(span.from)));
                    }
                    // The span ended before it, maybe with offsets that have no record.
                    Some(span) => reach(&mut batch, span),
                    None => {}
                }
            }
            let most = self.pace.records_a_second_max.map_or(usize::MAX, |rate| (rate as usize / 4).max(1));
            if !(batch.is_full() || batch.len() >= most || is_quiet || self.has_come_to_an_end(&left, &batch)) {
                continue;
            }
            self.reach_ends(&mut batch, &left, is_quiet);
            if batch.advances.is_empty() {
                if heard.elapsed() > SILENT_MAX {
                    return Err(ReplayError::Silent);
                }
                continue;
            }
            let batch = std::mem::take(&mut batch);
            offsets +=
                batch.advances.iter().map(|advance| advance.next - advance.from.unwrap_or_default()).sum::<u64>();
            done.add(replace(sink, batch.clone(), &self.stop)?);
            for Advance { place, next, .. } in batch.advances {
                match left.get_mut(&place) {
                    Some(span) if next < span.to => span.from = next,
                    _ => drop(left.remove(&place)),
                }
            }
            progress(offsets, done);
            self.keep_pace(begun, done.records);
        }
        Ok(done)
    }

    fn has_come_to_an_end(&self, left: &BTreeMap<Place, Span>, batch: &Batch) -> bool {
        batch
            .advances
            .last()
            .is_some_and(|advance| left.get(&advance.place).is_some_and(|span| advance.next >= span.to))
    }

    /// Behind a span's last record there may be offsets without one, which nobody hears of but by the reader's position.
    fn reach_ends(&self, batch: &mut Batch, left: &BTreeMap<Place, Span>, is_quiet: bool) {
        if !is_quiet {
            return;
        }
        for span in left.values() {
            let at = self.records.position(&span.place.topic, span.place.partition);
            if at.is_none_or(|at| at < span.to) {
                continue;
            }
            reach(batch, span);
        }
    }

    #[allow(clippy::disallowed_methods, reason = "it blocks a thread that may, and holds back on purpose")]
    fn keep_pace(&self, begun: Instant, records: u64) {
        let Some(rate) = self.pace.records_a_second_max else { return };
        let due = Duration::from_secs_f64(records as f64 / rate.max(1) as f64);
        while begun.elapsed() < due && !self.stop.is_cancelled() {
            std::thread::sleep((due - begun.elapsed().min(due)).min(POLL));
        }
    }
}

/// Lets the batch hold all of the span.
fn reach(batch: &mut Batch, span: &Span) {
    match batch.advances.iter_mut().find(|advance| advance.place == span.place) {
        Some(advance) => advance.next = span.to,
        None => batch.advances.push(Advance {
            place: span.place.clone(),
            topic_id: span.topic_id.clone(),
            from: Some(span.from),
            next: span.to,
        }),
    }
}

/// Has the sink replace a batch; waits where the sink is away.
#[allow(clippy::disallowed_methods, reason = "it blocks a thread that may, until the sink is back")]
fn replace(sink: &mut dyn Sink, mut batch: Batch, stop: &CancellationToken) -> Result<Replayed, ReplayError> {
    loop {
        match sink.replace(&batch) {
            Ok(replayed) => return Ok(replayed),
            Err(SinkError::Refused { index, reason }) if index < batch.events.len() => batch.bury(index, reason),
            Err(SinkError::Away { reason }) => {
                tracing::warn!("the replay waits: {reason}");
                std::thread::sleep(AGAIN_AFTER);
            }
            Err(error) => return Err(error.into()),
        }
        if stop.is_cancelled() {
            return Err(ReplayError::Stopped);
        }
    }
}
