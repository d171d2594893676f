//! Reading: the hot tail first, then the write-ahead log, then the store. Called by `log`.
//!
//! Where a batch lies is decided under the lock, its bytes are read outside it. A file of the write-ahead log that a reader
//! holds is not used again, an object that it holds is not removed. One that is gone all the same was removed because
//! nothing needs it: the place is looked up again, and retention answers.
//!
//! Only what is in the tail is given out at once. Files are read on threads where that holds up nobody, within a bound of their own,
//! so that a slow disk or store never keeps a thread that the tail or a sync needs.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use uuid::Uuid;

use crate::{
    Aborted, ErrorKind, Isolation, Offset, Read, ReadError, StoreError, StreamId,
    fetch::{Pinned, Pins},
    frame::{self, HEADER_BYTES},
    index::Range,
    lent,
    open::Shared,
    state::{InTail, Placed, State, Stream},
    wal::Segment,
};

/// How often a place is looked up again when what lay there is gone.
const LOOKUPS_MAX: usize = 8;
/// Ranges that one read goes through: many small ones must not hold up an answer.
const RANGES_MAX: usize = 8;
/// Ranges behind these that are looked at to read ahead.
const RANGES_AHEAD: usize = 16;
/// Reads of files that are under way at once; the others wait for their turn.
pub(crate) const FILE_READS_MAX: usize = 16;
/// What is taken of what was written together is copied where it is less than this part of it.
const HELD_PART: usize = 4;
/// Batches of a file are read together up to so many bytes, where no more than so many of others lie between two.
const SPAN_BYTES: u64 = 1 << 20;
const GAP_BYTES_MAX: u64 = 4 << 10;

/// Where a batch's bytes are.
enum Source {
    Tail(InTail),
    File(Segment, Placed),
}

/// Where to read.
enum Plan {
    /// And one past the last offset in them.
    Local(Vec<Source>, Offset),
    Ranges(Vec<Arc<Range>>, Pinned),
}

impl Shared {
    /// Whole batches from the one that holds `from` on. What is missing or damaged is said where an operator looks: a
    /// consumer only gets a code.
    pub(crate) async fn read(
        &self,
        id: StreamId,
        from: Offset,
        max_bytes: usize,
        isolation: Isolation,
    ) -> Result<Read, ReadError> {
        let read = self.read_now(id, from, max_bytes, isolation).await;
        if let Err(error) = &read
            && matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Retry)
        {
            self.counters.read_failures.fetch_add(1, Ordering::Relaxed);
            self.fetcher.tell(id, error);
        }
        read
    }

    async fn read_now(
        &self,
        id: StreamId,
        from: Offset,
        max_bytes: usize,
        isolation: Isolation,
    ) -> Result<Read, ReadError> {
        let mut missing = None;
        for _ in 0..LOOKUPS_MAX {
            let (plan, log_start, durable_end, stable_end) = {
                let state = self.state.read();
                let stream = state.streams.get(&id).ok_or(ReadError::UnknownStream { stream: id })?;
                let (start, end) = (stream.start, stream.durable_end());
                if from < start || from > end {
                    return Err(ReadError::OutOfRange { offset: from, start, end });
                }
                let stable = stream.stable_end();
                let until = if isolation == Isolation::Committed { stable } else { end };
                (plan(&state, stream, from..until, max_bytes, &self.fetcher.pins), start, end, stable)
            };
            let until = if isolation == Isolation::Committed { stable_end } else { durable_end };
            let (batches, to) = match plan {
                Plan::Local(sources, to) => (self.read_local(sources).await?, to),
                Plan::Ranges(ranges, _pinned) => match self.read_ranges(id, &ranges, from..until, max_bytes).await {
                    Ok(read) => read,
                    Err(error @ StoreError::Missing { .. }) => {
                        missing = Some(error);
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                },
            };
            let aborted = match isolation {
                Isolation::Durable => Vec::new(),
                // What ended since the plan was made began behind its stable end, which none of these batches reaches past.
                Isolation::Committed => self.aborted(id, from, to)?,
            };
            return Ok(Read { batches, log_start, durable_end, stable_end, aborted });
        }
        Err(missing.expect("only a missing object is looked up again").into())
    }

    /// Whether a read from there on asks the store.
    pub(crate) fn is_in_store(&self, id: StreamId, from: Offset) -> bool {
        let state = self.state.read();
        state.streams.get(&id).is_some_and(|stream| {
            let is_local = stream.batches.front().is_some_and(|first| first.base <= from);
            !is_local && from < stream.uploaded && stream.ranges_from(from).next().is_some()
        })
    }

    async fn read_local(&self, sources: Vec<Source>) -> Result<Vec<Bytes>, ReadError> {
        let log = self.log;
        if sources.iter().all(|source| matches!(source, Source::Tail(_))) {
            return local(sources, log);
        }
        let _turn = self.file_reads.acquire().await.expect("nobody closes it");
        self.options.readers.block(move || local(sources, log)).await?
    }

    async fn read_ranges(
        &self,
        id: StreamId,
        ranges: &[Arc<Range>],
        offsets: std::ops::Range<Offset>,
        max_bytes: usize,
    ) -> Result<(Vec<Bytes>, Offset), StoreError> {
        let from = offsets.start;
        let now = &ranges[..ranges.len().min(RANGES_MAX)];
        self.fetcher.expect(now, max_bytes);
        let (batches, to) = self.read_blocks(id, now, offsets, max_bytes).await?;
        self.fetcher.follow(id, ranges, from, to);
        Ok((batches, to))
    }

    async fn read_blocks(
        &self,
        id: StreamId,
        ranges: &[Arc<Range>],
        offsets: std::ops::Range<Offset>,
        max_bytes: usize,
    ) -> Result<(Vec<Bytes>, Offset), StoreError> {
        let (from, until) = (offsets.start, offsets.end);
        let (mut batches, mut bytes, mut at) = (Vec::new(), 0, from);
        for range in ranges {
            let left = max_bytes.saturating_sub(bytes);
            if left == 0 && !batches.is_empty() {
                break;
            }
            let read = match self.fetcher.read(id, range, from, left).await {
                // What lies before it is given out; who goes on from there hears of it.
                Err(_) if !batches.is_empty() => break,
                read => read?,
            };
            for stored in read {
                if stored.base >= until || (!batches.is_empty() && bytes + stored.bytes.len() > max_bytes) {
                    return Ok((batches, at));
                }
                bytes += stored.bytes.len();
                at = stored.next();
                batches.push(stored.bytes);
            }
            if at < range.next {
                break; // the rest of this range comes before the next
            }
        }
        Ok((batches, at))
    }

    fn aborted(&self, id: StreamId, from: Offset, to: Offset) -> Result<Vec<Aborted>, ReadError> {
        let state = self.state.read();
        let stream = state.streams.get(&id).ok_or(ReadError::UnknownStream { stream: id })?;
        Ok(stream.aborted(from, to))
    }

    /// The first batch that holds `from` or lies behind it and reaches a time: its base offset, or `from` where that is later.
    pub(crate) async fn find_time(
        &self,
        id: StreamId,
        from: Offset,
        timestamp: i64,
    ) -> Result<Option<Offset>, ReadError> {
        let mut missing = None;
        for _ in 0..LOOKUPS_MAX {
            let (ranges, local, start) = self.extent(id, from)?;
            let local = local.iter().find(|batch| batch.max_timestamp >= timestamp);
            let local = local.map(|batch| batch.base.max(start));
            let mut found = Ok(None);
            for range in ranges.iter().filter(|range| range.max_timestamp >= timestamp) {
                found = self.fetcher.find(id, range, start, |max| max >= timestamp).await;
                if !matches!(found, Ok(None)) {
                    break;
                }
            }
            match found {
                Ok(found) => return Ok(found.or(local)),
                Err(error @ StoreError::Missing { .. }) => missing = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        Err(missing.expect("only a missing object is looked up again").into())
    }

    /// Greatest timestamp from `from` on, and the first batch that has it as above.
    pub(crate) async fn latest_time(&self, id: StreamId, from: Offset) -> Result<Option<(i64, Offset)>, ReadError> {
        let mut missing = None;
        for _ in 0..LOOKUPS_MAX {
            let (ranges, local, start) = self.extent(id, from)?;
            match self.latest_in(id, &ranges, &local, start).await {
                Ok(found) => return Ok(found),
                Err(error @ StoreError::Missing { .. }) => missing = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        Err(missing.expect("only a missing object is looked up again").into())
    }

    async fn latest_in(
        &self,
        id: StreamId,
        ranges: &[Arc<Range>],
        local: &[Placed],
        start: Offset,
    ) -> Result<Option<(i64, Offset)>, StoreError> {
        let mut best: Option<(i64, Offset)> = None;
        let mut take = |timestamp: i64, base: Offset| {
            let base = base.max(start);
            if best.is_none_or(|(most, first)| timestamp > most || (timestamp == most && base < first)) {
                best = Some((timestamp, base));
            }
        };
        local.iter().for_each(|batch| take(batch.max_timestamp, batch.base));
        // The one range that begins before the start may have its greatest timestamp there.
        for range in ranges.iter().filter(|range| range.base < start) {
            if let Some((most, base)) = self.fetcher.latest(id, range, start).await? {
                take(most, base);
            }
        }
        let whole = ranges.iter().filter(|range| range.base >= start);
        let latest = whole.max_by_key(|range| (range.max_timestamp, std::cmp::Reverse(range.base)));
        if let Some(range) = latest {
            let most = range.max_timestamp;
            if let Some(base) = self.fetcher.find(id, range, start, |max| max >= most).await? {
                take(most, base);
            }
        }
        Ok(best)
    }

    fn extent(&self, id: StreamId, from: Offset) -> Result<Extent, ReadError> {
        let state = self.state.read();
        let stream = state.streams.get(&id).ok_or(ReadError::UnknownStream { stream: id })?;
        let start = stream.start.max(from);
        let ranges = stream.ranges.iter().filter(|range| range.next > start).cloned().collect();
        let local = stream.waiting().filter(|batch| batch.next() > start).copied().collect();
        Ok((ranges, local, start))
    }
}

/// Ranges, batches that the store does not have, and where they begin to count.
type Extent = (Vec<Arc<Range>>, Vec<Placed>, Offset);

fn plan(state: &State, stream: &Stream, offsets: std::ops::Range<Offset>, max_bytes: usize, pins: &Pins) -> Plan {
    let (from, until) = (offsets.start, offsets.end);
    let (mut sources, mut bytes, mut to) = (Vec::new(), 0, from);
    if from >= until {
        return Plan::Local(sources, to);
    }
    // What a recovery has passed over lies nowhere: the next is what comes behind it.
    let is_local = stream.batches.front().is_some_and(|first| first.base <= from);
    if is_local || stream.ranges_from(from).next().is_none() {
        for batch in stream.batches.range(stream.find(from)..) {
            bytes += batch.length as usize;
            if batch.base >= until || (!sources.is_empty() && bytes > max_bytes) {
                break;
            }
            let source = match state.tail.find(batch.position, batch.length) {
                Some(found) => Source::Tail(found),
                None => match state.segment(batch.position) {
                    Some(segment) => Source::File(segment.clone(), *batch),
                    // Uploaded, and gone from the tail since: the store has it.
                    None => break,
                },
            };
            sources.push(source);
            to = batch.next();
        }
    }
    let in_store = sources.is_empty() && from < stream.uploaded;
    if in_store {
        let ranges: Vec<_> = stream.ranges_from(from).take(RANGES_MAX + RANGES_AHEAD).cloned().collect();
        let pinned = pins.hold(&ranges[..ranges.len().min(RANGES_MAX)]);
        Plan::Ranges(ranges, pinned)
    } else {
        Plan::Local(sources, to)
    }
}

/// The bytes of batches that are in memory or in files of the write-ahead log. What lies close together in one file is read at once.
fn local(sources: Vec<Source>, log: Uuid) -> Result<Vec<Bytes>, ReadError> {
    let mut found = Vec::with_capacity(sources.len());
    let mut span = (u64::MAX, Bytes::new());
    // What was written together with it, and whether it is so little of that that it is copied.
    let mut part = (u64::MAX, false);
    for (n, source) in sources.iter().enumerate() {
        let (segment, place) = match source {
            Source::Tail(InTail { bytes, group, .. }) => {
                if part.0 != *group {
                    part = (*group, is_little(&sources[n..]));
                }
                found.push(if part.1 { Bytes::copy_from_slice(bytes) } else { bytes.clone() });
                continue;
            }
            Source::File(segment, place) if segment.seal.is_some() => {
                found.push(sealed(segment, place, log)?);
                continue;
            }
            Source::File(segment, place) => (segment, place),
        };
        let length = place.length as usize;
        let (start, bytes) = &span;
        let from = place.position.checked_sub(*start).and_then(|from| usize::try_from(from).ok());
        let within =
            from.and_then(|from| bytes.get(from..from.checked_add(length)?)).map(|batch| bytes.slice_ref(batch));
        if let Some(batch) = within {
            found.push(batch);
            continue;
        }
        let bytes = read(segment, place.position, reach(&sources[n..]))?;
        found.push(bytes.slice(..length));
        span = (place.position, bytes);
    }
    Ok(found)
}

/// Whether what is taken of the first batch's group is little of it: who sends it would hold all of that for as long as it takes.
fn is_little(sources: &[Source]) -> bool {
    let in_tail = |source: &Source| match source {
        Source::Tail(InTail { bytes, group, group_bytes }) => Some((*group, *group_bytes, bytes.len())),
        Source::File(..) => None,
    };
    let Some((first, group_bytes, _)) = sources.first().and_then(in_tail) else { return false };
    let taken = sources.iter().map_while(in_tail).take_while(|(group, ..)| *group == first);
    taken.map(|(.., bytes)| bytes).sum::<usize>() < group_bytes / HELD_PART
}

/// Bytes from the first batch on that are worth reading at once: as long as little of others lies between.
fn reach(sources: &[Source]) -> usize {
    let (mut start, mut end, mut base) = (0, 0, None);
    for source in sources {
        let Source::File(segment, place) = source else { break };
        let is_first = base.is_none();
        let is_near = base == Some(segment.base) && (end..=end + GAP_BYTES_MAX).contains(&place.position);
        if !is_first && (!is_near || end - start >= SPAN_BYTES) {
            break;
        }
        if is_first {
            (start, base) = (place.position, Some(segment.base));
        }
        end = place.position + u64::from(place.length);
    }
    usize::try_from(end - start).expect("a span fits into memory")
}

fn read(segment: &Segment, position: u64, length: usize) -> Result<Bytes, ReadError> {
    let read = lent::filled(length, |bytes| segment.file.read_at(position - segment.base, bytes));
    read.map_err(|error| ReadError::Failed { reason: error.to_string() })
}

/// What is encrypted is read and checked by whole frames.
fn sealed(segment: &Segment, place: &Placed, log: Uuid) -> Result<Bytes, ReadError> {
    let read = |position: u64, length: usize| read(segment, position, length);
    let damaged = || ReadError::Damaged { place: format!("{} at position {}", segment.path.display(), place.frame) };
    let length = segment.shape().frame_length(&read(place.frame, HEADER_BYTES)?).ok_or_else(damaged)?;
    if place.frame + length as u64 > segment.end() {
        return Err(damaged());
    }
    let frame = read(place.frame, length)?;
    let header = frame::check(&frame, log, segment.shape(), place.frame).ok_or_else(damaged)?;
    let body = frame::body(&frame, &header, log, segment.seal.as_deref()).ok_or_else(damaged)?;
    let from = usize::try_from(place.position - place.frame).map_err(|_| damaged())?.saturating_sub(HEADER_BYTES);
    let batch = body.get(from..from + place.length as usize).ok_or_else(damaged)?;
    Ok(Bytes::copy_from_slice(batch))
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        match error {
            // Nobody dropped what lay in it, or its place would not have been found again.
            StoreError::Missing { name } => Self::Missing { name },
            StoreError::Damaged { name, what } => Self::Damaged { place: format!("object {name} ({what})") },
            other => Self::Failed { reason: other.to_string() },
        }
    }
}
