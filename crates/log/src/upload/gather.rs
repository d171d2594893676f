//! Reads a range of the write-ahead log and makes of it an object and the changes that the index needs. Called by `upload`.
//!
//! It must give what recovery would have made of the same frames: the index and the write-ahead log tell one story.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;

use super::{Change, Index, Past, Range, Shared};
use crate::{
    InTransaction, Offset, Retention, StoreError, StreamId,
    frame::{self, BatchEntry, Entry, HEADER_BYTES},
    ledger::{Entered, Ledger},
    object::{ObjectBuilder, ObjectId, PartPlace},
    wal::Segment,
};

/// A range of the write-ahead log, ready for the store.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) object: Option<Bytes>,
    pub(super) changes: Vec<Change>,
    /// Position behind it.
    pub(super) end: u64,
}

/// A stream that something happened to.
#[derive(Debug, Default)]
struct Touched {
    /// Whether the index has it and must forget what it had.
    deleted: bool,
    alive: bool,
    retention: Retention,
    start: Offset,
    ledger: Ledger,
    producers: BTreeSet<i64>,
    /// Whether transactions were opened or ended.
    transactions: bool,
    range: Option<Range>,
}

/// Reads from `position` on: whole frames of one file, or of some write-ahead objects, up to `upload_bytes`. Nothing where nothing is durable there.
pub(super) fn gather(
    shared: &Shared,
    index: &Index,
    position: u64,
    id: ObjectId,
) -> Result<Option<Gathered>, StoreError> {
    let (segment, from, to) = match place(shared, position) {
        None => return Ok(None),
        Some(Place::Left(end)) => return Ok(Some(Gathered { object: None, changes: Vec::new(), end })),
        Some(Place::Frames(segment, from, to)) => (segment, from, to),
    };
    let mut gathering =
        Gathering { shared, index, id, touched: BTreeMap::new(), object: ObjectBuilder::default(), position: from };
    let most = shared.options.upload_bytes;
    let mut end = gathering.piece(&segment, from, to, most)?;
    let mut is_object = segment.object.is_some();
    // Objects of the write-ahead log are many and small: as many as make one go together.
    while is_object && end - from < most {
        let Some(Place::Frames(segment, next, to)) = place(shared, end) else { break };
        is_object = segment.object.is_some();
        end = gathering.piece(&segment, next, to, most - (end - from))?;
    }
    Ok(Some(gathering.finish(end)))
}

enum Place {
    /// The file that holds the next frame, where it begins, and up to where it may be read.
    Frames(Segment, u64, u64),
    /// The file's frames ended: the log goes on here.
    Left(u64),
}

fn place(shared: &Shared, position: u64) -> Option<Place> {
    let state = shared.state.read();
    let (_, segment) = state.segments.range(..=position).next_back()?;
    let from = position.max(segment.first());
    let to = segment.end().min(state.durable);
    if from + HEADER_BYTES as u64 <= to && !is_sealed_at(segment, from, to) {
        return Some(Place::Frames(segment.clone(), from, to));
    }
    // Over the end of one file, then over the head of the next.
    let behind = if segment.end() <= state.durable { segment.end() } else { from.min(state.durable) };
    (position < behind).then_some(Place::Left(behind))
}

/// Whether the file's frames ended before `from`: then zeros, or what the file held in an earlier life, follow.
fn is_sealed_at(segment: &Segment, from: u64, to: u64) -> bool {
    // A durable position past the file's end says that the log went on in the next one.
    if to < segment.end() {
        return false;
    }
    let mut header = [0; HEADER_BYTES];
    let read = segment.file.read_at(from - segment.base, &mut header).is_ok();
    read && !frame::begins(&header, segment.shape(), from)
}

/// Bytes from `from` on: about `most`, or the one frame that is longer.
fn read(segment: &Segment, from: u64, to: u64, most: u64) -> std::io::Result<Vec<u8>> {
    let mut header = [0; HEADER_BYTES];
    segment.file.read_at(from - segment.base, &mut header)?;
    let first = segment.shape().frame_length(&header).unwrap_or(HEADER_BYTES) as u64;
    let length = (to - from).min(most.max(first));
    let mut bytes = vec![0; usize::try_from(length).expect("a file of the log is below 4 GiB")];
    segment.file.read_at(from - segment.base, &mut bytes)?;
    Ok(bytes)
}

struct Gathering<'a> {
    shared: &'a Shared,
    index: &'a Index,
    id: ObjectId,
    touched: BTreeMap<StreamId, Touched>,
    object: ObjectBuilder,
    /// Where what is gathered begins.
    position: u64,
}

impl Gathering<'_> {
    /// Takes the whole frames from `from` on: about `most` bytes of them, one at least. Returns where it ended.
    fn piece(&mut self, segment: &Segment, from: u64, to: u64, most: u64) -> Result<u64, StoreError> {
        let bytes = read(segment, from, to, most).map_err(|error| StoreError::Failed {
            reason: format!("cannot read {} for upload: {error}", segment.path.display()),
        })?;
        let (shape, log) = (segment.shape(), self.shared.log);
        let damaged = |position: u64| StoreError::Damaged {
            name: segment.path.display().to_string(),
            what: format!("what was written at position {position} does not read back"),
        };
        let mut at = 0;
        while at < bytes.len() && at + HEADER_BYTES <= bytes.len() {
            let position = from + at as u64;
            let Some(header) = frame::check(&bytes[at..], log, shape, position) else {
                let whole = shape.frame_length(&bytes[at..]).is_some_and(|length| at + length <= bytes.len());
                if at > 0 && !whole {
                    break; // the read ended within this frame
                }
                return Err(damaged(position));
            };
            let body = frame::body(&bytes[at..], &header, log, segment.seal.as_deref());
            let body = body.ok_or_else(|| damaged(position))?;
            for entry in frame::entries(&body).unwrap_or_default() {
                self.take(entry, header.epoch, &body);
            }
            at += header.frame_bytes();
            if header.body_bytes == 0 {
                break; // the log goes on in the next file
            }
        }
        Ok(from + at as u64)
    }

    fn touched(&mut self, id: StreamId) -> &mut Touched {
        self.touched.entry(id).or_insert_with(|| {
            self.index.streams.get(&id).map_or_else(Touched::default, |indexed| Touched {
                alive: true,
                retention: indexed.retention,
                start: indexed.start,
                ledger: indexed.ledger.clone(),
                ..Touched::default()
            })
        })
    }

    fn take(&mut self, entry: Entry, epoch: u32, body: &[u8]) {
        match entry {
            Entry::Create(id, retention) => {
                let stream = self.touched(id);
                if !stream.alive {
                    *stream = Touched { alive: true, retention, deleted: stream.deleted, ..Touched::default() };
                }
            }
            Entry::SetRetention(id, retention) => self.touched(id).retention = retention,
            Entry::Delete(id) => {
                let deleted = self.index.streams.contains_key(&id);
                *self.touched(id) = Touched { deleted, ..Touched::default() };
                self.object.forget(id);
            }
            Entry::DeleteBefore(id, offset) => {
                let stream = self.touched(id);
                stream.start = stream.start.max(offset.min(stream.ledger.next));
            }
            Entry::Batch(batch) => self.batch(&batch, epoch, body),
        }
    }

    fn batch(&mut self, batch: &BatchEntry, epoch: u32, body: &[u8]) {
        // What retention has dropped since is durable news: it is not uploaded only to be removed.
        let dropped = self.shared.state.read().streams.get(&batch.stream).map_or(Offset::default(), |s| s.start);
        let (object, position) = (self.id, self.position);
        let stream = self.touched(batch.stream);
        if !stream.alive {
            return;
        }
        let aborted = stream.ledger.record(batch.base, Entered::of(batch));
        stream.transactions |= batch.transaction != InTransaction::No;
        stream.producers.extend(batch.producer.map(|producer| producer.id.get()));
        let next = stream.ledger.next;
        if next <= dropped {
            stream.start = stream.start.max(next);
            return;
        }
        let range = stream.range.get_or_insert_with(|| Range {
            object,
            part: PartPlace { at: 0, bytes: 0 },
            base: batch.base,
            next,
            bytes: 0,
            batches: 0,
            max_timestamp: batch.max_timestamp,
            epochs: Vec::new(),
            position,
            aborted: Vec::new(),
            past: Past::default(),
        });
        range.next = next;
        range.bytes += u64::from(batch.length);
        range.batches += 1;
        range.max_timestamp = range.max_timestamp.max(batch.max_timestamp);
        range.aborted.extend(aborted);
        if range.epochs.last().is_none_or(|(last, _)| *last != epoch) {
            range.epochs.push((epoch, batch.base));
        }
        let at = batch.at as usize;
        let bytes = &body[at..at + batch.length as usize];
        self.object.push((batch.stream, 0), batch.base, batch.records, batch.max_timestamp, bytes);
    }

    fn finish(self, end: u64) -> Gathered {
        let (object, places) = if self.object.is_empty() {
            (None, BTreeMap::new())
        } else {
            let (object, places) = self.object.finish(self.shared.log);
            (Some(object), places)
        };
        let mut changes = Vec::new();
        for (id, stream) in self.touched {
            let Touched { deleted, alive, retention, start, ledger, producers, transactions, range } = stream;
            if deleted {
                changes.push(Change::Deleted { id });
            }
            if !alive {
                continue;
            }
            changes.push(Change::Stream { id, retention, start, next: ledger.next });
            if let (Some(range), Some(part)) = (range, places.get(&(id, 0))) {
                changes.push(Change::Range { id, range: Arc::new(Range { part: *part, ..range }) });
            }
            let of = |id: i64| ledger.producers.get(&id).map(|producer| (id, producer.clone()));
            let producers: Vec<_> = producers.into_iter().filter_map(of).collect();
            if !producers.is_empty() {
                changes.push(Change::Producers { id, producers });
            }
            if transactions {
                changes.push(Change::Open { id, open: ledger.open.all() });
            }
        }
        Gathered { object, changes, end }
    }
}
