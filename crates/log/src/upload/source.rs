//! Reads objects from front to back in few requests. Used by merging and compaction, whose reads must push nothing out of the cache
//! of those who consume.

use bytes::Bytes;

use super::Range;
use crate::{
    StoreError, StreamId,
    object::{self, Chunk, ObjectId, Stored},
    store::Store,
};

/// Bytes of parts that are read at once, at least.
const PARTS_BYTES: u64 = 64 << 10;

/// How far behind what is asked for it is read ahead.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ahead {
    /// Where what may be read ends.
    pub(super) end: u64,
    /// How much is read at once where it does not end before.
    pub(super) bytes: u64,
}

/// One object.
#[derive(Debug)]
pub(super) struct Source {
    name: String,
    batches: Window,
    parts: Window,
    parts_end: u64,
}

impl Source {
    /// `parts_end` is one past the last part that may be asked for.
    pub(super) fn new(object: ObjectId, parts_end: u64) -> Self {
        Self { name: object.name(), batches: Window::default(), parts: Window::default(), parts_end }
    }

    /// The chunks of a range.
    pub(super) async fn chunks(
        &mut self,
        store: &dyn Store,
        id: StreamId,
        range: &Range,
    ) -> Result<Vec<Chunk>, StoreError> {
        let ahead = Ahead { end: self.parts_end, bytes: PARTS_BYTES };
        let bytes = self.parts.get(store, &self.name, range.part.at, u64::from(range.part.bytes), ahead).await?;
        let chunks = object::part(&bytes, id).filter(|chunks| !chunks.is_empty());
        chunks.ok_or_else(|| self.damaged(id, range))
    }

    /// The batches of one of them.
    pub(super) async fn batches(
        &mut self,
        store: &dyn Store,
        id: StreamId,
        range: &Range,
        chunk: &Chunk,
        ahead: Ahead,
    ) -> Result<Vec<Stored>, StoreError> {
        let bytes = self.batches.get(store, &self.name, chunk.at, u64::from(chunk.length), ahead).await?;
        object::batches(chunk, &bytes).ok_or_else(|| self.damaged(id, range))
    }

    fn damaged(&self, id: StreamId, range: &Range) -> StoreError {
        StoreError::Damaged {
            name: self.name.clone(),
            what: format!("what it holds of stream {id} from offset {} on is bad", range.base),
        }
    }
}

/// What was read last.
#[derive(Debug, Default)]
struct Window {
    at: u64,
    bytes: Bytes,
}

impl Window {
    async fn get(
        &mut self,
        store: &dyn Store,
        name: &str,
        at: u64,
        length: u64,
        ahead: Ahead,
    ) -> Result<Bytes, StoreError> {
        let end = at + length;
        if at < self.at || end > self.at + self.bytes.len() as u64 {
            let to = end.max(ahead.end.min(at + ahead.bytes));
            // What was held goes first: never two windows at once.
            self.bytes = Bytes::new();
            self.bytes = store.get(name, at..to).await?;
            self.at = at;
        }
        let from = usize::try_from(at - self.at).expect("a window fits into memory");
        Ok(self.bytes.slice(from..from + usize::try_from(length).expect("a chunk fits into memory")))
    }
}
