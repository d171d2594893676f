//! What is fetched from an object at once, and checked. Used by `fetch`.
//!
//! A part's chunks fall into blocks, the same for every reader: so two of them fetch a block once, and find what the other fetched.

use std::ops::Range;

use bytes::Bytes;

use super::cache::Place;
use crate::{
    Offset, StoreError, StreamId, index,
    object::{self, Chunk, ObjectId, Stored},
};

/// A block is closed once it has so many bytes: a replay asks the store once a mebibyte, not once a chunk.
pub(super) const BLOCK_BYTES: u64 = 1 << 20;
/// What a batch weighs besides its bytes.
const BATCH_BYTES: u64 = size_of::<Stored>() as u64;

/// The chunks of a stream in an object, and where its blocks begin.
#[derive(Debug)]
pub(crate) struct Part {
    pub(super) object: ObjectId,
    pub(super) chunks: Vec<Chunk>,
    /// The first chunk of each block.
    starts: Vec<usize>,
}

impl Part {
    /// Reads what an object holds of a stream's footer.
    pub(super) fn read(object: ObjectId, at: u64, bytes: &[u8], id: StreamId) -> Result<Self, StoreError> {
        let bad = || StoreError::Damaged { name: object.name(), what: format!("the part at byte {at} is bad") };
        object::part(bytes, id).and_then(|chunks| Self::new(object, chunks)).ok_or_else(bad)
    }

    /// Of at least one chunk.
    pub(super) fn new(object: ObjectId, chunks: Vec<Chunk>) -> Option<Self> {
        let (mut starts, mut bytes, mut end) = (Vec::new(), 0, 0);
        for (n, chunk) in chunks.iter().enumerate() {
            if starts.is_empty() || bytes >= BLOCK_BYTES || chunk.at != end {
                starts.push(n);
                bytes = 0;
            }
            bytes += u64::from(chunk.length);
            end = chunk.at + u64::from(chunk.length);
        }
        (!chunks.is_empty()).then_some(Self { object, chunks, starts })
    }

    /// Where a range's part lies.
    pub(super) fn place(range: &index::Range) -> (Place, Range<u64>) {
        let bytes = range.part.at..(range.part.at + u64::from(range.part.bytes));
        ((range.object, range.part.at), bytes)
    }

    /// The chunk that holds an offset, or the first one.
    pub(super) fn chunk_of(&self, offset: Offset) -> usize {
        self.chunks.partition_point(|chunk| chunk.base <= offset).saturating_sub(1)
    }

    pub(super) fn blocks(&self) -> usize {
        self.starts.len()
    }

    pub(super) fn block_of(&self, chunk: usize) -> usize {
        self.starts.partition_point(|start| *start <= chunk).saturating_sub(1)
    }

    /// The chunks of a block.
    pub(super) fn chunks_of(&self, block: usize) -> Range<usize> {
        self.starts[block]..self.starts.get(block + 1).copied().unwrap_or(self.chunks.len())
    }

    /// The bytes of the object that a block is.
    pub(super) fn bytes_of(&self, block: usize) -> Range<u64> {
        let chunks = &self.chunks[self.chunks_of(block)];
        let (first, last) = (&chunks[0], &chunks[chunks.len() - 1]);
        first.at..last.at + u64::from(last.length)
    }

    pub(super) fn damaged(&self, chunk: usize) -> StoreError {
        let (name, Chunk { at, length, .. }) = (self.object.name(), &self.chunks[chunk]);
        let what = format!("the bytes from {at} to {} are bad", at + u64::from(*length));
        StoreError::Damaged { name, what }
    }

    pub(super) const fn weight(&self) -> u64 {
        (self.chunks.len() * size_of::<Chunk>() + self.starts.len() * size_of::<usize>()) as u64
    }
}

/// Batches whose checksums are right, in the bytes that came from the store.
#[derive(Debug)]
pub(crate) struct Block {
    /// Those of each chunk; nothing where it is damaged.
    pub(super) chunks: Vec<Option<Vec<Stored>>>,
    /// The part's chunk that is the first of them.
    pub(super) first: usize,
    /// Bytes that stay in memory as long as one of its batches does.
    pub(super) bytes: u64,
    pub(super) weight: u64,
}

impl Block {
    pub(super) fn read(part: &Part, block: usize, bytes: &Bytes) -> Self {
        Self::within(part, block, bytes, part.bytes_of(block).start)
    }

    /// In the bytes of all of its object.
    pub(super) fn of_whole(part: &Part, block: usize, bytes: &Bytes) -> Self {
        Self::within(part, block, bytes, 0)
    }

    /// In bytes that begin at `start`.
    fn within(part: &Part, block: usize, bytes: &Bytes, start: u64) -> Self {
        let chunks = part.chunks_of(block);
        let first = chunks.start;
        let read = |chunk: &Chunk| {
            let from = usize::try_from(chunk.at.checked_sub(start)?).ok()?;
            let piece = bytes.get(from..from.checked_add(chunk.length as usize)?)?;
            object::batches(chunk, &bytes.slice_ref(piece))
        };
        let chunks: Vec<_> = part.chunks[chunks].iter().map(read).collect();
        let batches: usize = chunks.iter().flatten().map(Vec::len).sum();
        let bytes = bytes.len() as u64;
        Self { chunks, first, bytes, weight: bytes + batches as u64 * BATCH_BYTES }
    }

    /// The batches of a chunk.
    pub(super) fn chunk(&self, part: &Part, chunk: usize) -> Result<&[Stored], StoreError> {
        let found = self.chunks.get(chunk - self.first).and_then(Option::as_deref);
        found.ok_or_else(|| part.damaged(chunk))
    }

    pub(super) fn is_whole(&self) -> bool {
        self.chunks.iter().all(Option::is_some)
    }

    pub(super) const fn weight(&self) -> u64 {
        self.weight
    }
}
