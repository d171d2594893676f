//! One object against its checksums and against what the index says of it. Called by `check`.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use uuid::Uuid;

use super::{Checked, Finding, FindingKind, Judge};
use crate::{
    Offset, StreamId,
    index::{Index, Range},
    object::{self, Chunk, ObjectId, PartPlace},
};

/// What to do about an object.
pub(super) const RESTORE: &str =
    "restore it from a copy of the store; without one these records are lost, and all others are read";

/// Ranges of one object.
pub(super) type Ranges = Vec<(StreamId, Arc<Range>)>;

pub(super) fn by_object(index: &Index) -> BTreeMap<ObjectId, Ranges> {
    let mut within: BTreeMap<ObjectId, Ranges> = BTreeMap::new();
    for (id, stream) in &index.streams {
        for range in &stream.ranges {
            within.entry(range.object).or_default().push((*id, range.clone()));
        }
    }
    within
}

/// An object's bytes, and what they should be.
pub(super) struct InObject<'o> {
    pub(super) id: ObjectId,
    /// The log, where that is known.
    pub(super) log: Option<Uuid>,
    pub(super) ranges: &'o [(StreamId, Arc<Range>)],
    pub(super) bytes: &'o Bytes,
}

/// What a part holds.
#[derive(Default)]
struct Held {
    batches: u64,
    bytes: u64,
    first: Option<Offset>,
    next: Offset,
    max_timestamp: Option<i64>,
    is_whole: bool,
}

impl InObject<'_> {
    pub(super) fn check(&self, checked: &mut Checked, judge: &mut Judge<'_>) {
        checked.objects += 1;
        checked.object_bytes += self.bytes.len() as u64;
        let mut held: BTreeMap<(u64, StreamId), Held> = BTreeMap::new();
        match object::inspect(self.bytes, self.log) {
            Some(parts) => {
                for (stream, place, chunks) in parts {
                    held.insert((place.at, stream), self.part(stream, &chunks, checked, judge));
                }
            }
            None => {
                let what = "its footer does not match its checksum, or it is of another log";
                checked.found(Finding::new(FindingKind::ObjectDamaged, self.id.name(), what, RESTORE));
                // What the index knows of it may be whole all the same.
                for (stream, range) in self.ranges {
                    if let Some(chunks) = self.chunks(*stream, range.part) {
                        held.insert((range.part.at, *stream), self.part(*stream, &chunks, checked, judge));
                    }
                }
            }
        }
        for (stream, range) in self.ranges {
            match held.get(&(range.part.at, *stream)) {
                None => {
                    let what = format!("the part at byte {} is bad or is not there", range.part.at);
                    self.tell(FindingKind::ObjectDamaged, what, (*stream, range.base, range.next), checked);
                }
                Some(held) => self.compare(*stream, range, held, checked),
            }
        }
    }

    fn tell(&self, kind: FindingKind, what: String, place: (StreamId, Offset, Offset), checked: &mut Checked) {
        let (stream, from, to) = place;
        checked.found(Finding::new(kind, self.id.name(), what, RESTORE).about(stream, from, to));
    }

    fn slice(&self, at: u64, length: u64) -> Option<Bytes> {
        let (from, to) = (usize::try_from(at).ok()?, usize::try_from(at.checked_add(length)?).ok()?);
        (from <= to && to <= self.bytes.len()).then(|| self.bytes.slice(from..to))
    }

    fn chunks(&self, stream: StreamId, place: PartPlace) -> Option<Vec<Chunk>> {
        object::part(&self.slice(place.at, u64::from(place.bytes))?, stream)
    }

    /// Goes through all chunks and batches of a part.
    fn part(&self, stream: StreamId, chunks: &[Chunk], checked: &mut Checked, judge: &mut Judge<'_>) -> Held {
        let mut held = Held { is_whole: true, ..Held::default() };
        for (n, chunk) in chunks.iter().enumerate() {
            let bytes = self.slice(chunk.at, u64::from(chunk.length));
            let Some(batches) = bytes.and_then(|bytes| object::batches(chunk, &bytes)) else {
                held.is_whole = false;
                let what = format!(
                    "the bytes from {} to {} do not match their checksum",
                    chunk.at,
                    chunk.at + u64::from(chunk.length)
                );
                let to = chunks.get(n + 1).map(|chunk| chunk.base).or_else(|| self.end_of(stream, chunk.base));
                let to = to.unwrap_or(chunk.base);
                self.tell(FindingKind::ObjectDamaged, what, (stream, chunk.base, to), checked);
                continue;
            };
            for stored in batches {
                checked.batches += 1;
                let (base, next) = (stored.base, stored.next());
                let wrong = match judge(stream, &stored.bytes) {
                    Err(what) => Some(what),
                    Ok(span) => {
                        checked.records += span.records;
                        let fits = span.base == base && span.next <= next && span.base < span.next;
                        (!fits).then(|| format!("it says that it holds offsets {} to {}", span.base, span.next))
                    }
                };
                if let Some(what) = wrong {
                    let what = format!("the batch at offset {base}: {what}");
                    self.tell(FindingKind::BatchDamaged, what, (stream, base, next), checked);
                }
                if held.first.is_some() && base < held.next {
                    let what = format!("the batch at offset {base} comes again, or out of order");
                    self.tell(FindingKind::Overlap, what, (stream, base, next), checked);
                }
                held.first.get_or_insert(base);
                held.next = held.next.max(next);
                held.batches += 1;
                held.bytes += stored.bytes.len() as u64;
                held.max_timestamp = held.max_timestamp.max(Some(stored.max_timestamp));
            }
        }
        held
    }

    fn end_of(&self, stream: StreamId, offset: Offset) -> Option<Offset> {
        let holds = |range: &Range| range.base <= offset && offset < range.next;
        self.ranges.iter().find(|(of, range)| *of == stream && holds(range)).map(|(_, range)| range.next)
    }

    fn compare(&self, stream: StreamId, range: &Range, held: &Held, checked: &mut Checked) {
        if !held.is_whole {
            return; // it was told where
        }
        let within = held.first.is_some_and(|first| first >= range.base) && held.next <= range.next;
        let counts = (held.batches, held.bytes) == (u64::from(range.batches), range.bytes);
        if within && counts && held.max_timestamp == Some(range.max_timestamp) {
            return;
        }
        let what = format!(
            "the index says offsets {} to {} in {} batches of {} bytes, it holds {} to {} in {} of {}",
            range.base,
            range.next,
            range.batches,
            range.bytes,
            held.first.unwrap_or_default(),
            held.next,
            held.batches,
            held.bytes
        );
        self.tell(FindingKind::RangeWrong, what, (stream, range.base, range.next), checked);
    }
}
