//! Small objects, which come whole: one request for all that any reader needs of one, where each stream in it would take two. Used by
//! `fetch`.
//!
//! An index and a block of a few kilobytes take as long to come as all of such an object does, and cost as much each; and the streams that
//! were written together are mostly read together.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;

use super::{
    block::{Block, Part},
    cache::{ENTRY_BYTES, Place},
};
use crate::{
    StoreError, StreamId, index,
    object::{self, ObjectId},
};

/// All of an object, checked.
#[derive(Debug)]
pub(crate) struct Whole {
    /// What each stream has there, by where its part begins.
    sections: HashMap<u64, (StreamId, Arc<Section>)>,
    weight: u64,
}

/// What one stream has in it.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) part: Arc<Part>,
    pub(super) blocks: Vec<Arc<Block>>,
}

impl Whole {
    /// Where it lies: nothing else begins at an object's first byte.
    pub(super) const fn place(object: ObjectId) -> Place {
        (object, 0)
    }

    /// Bytes that the object of a range has at least: its batches, and its index up to that of this stream. Behind that come those of other
    /// streams, which are little.
    pub(super) fn bytes_min(range: &index::Range) -> u64 {
        range.part.at + u64::from(range.part.bytes)
    }

    pub(super) fn read(object: ObjectId, bytes: &Bytes) -> Result<Self, StoreError> {
        let bad = || StoreError::Damaged { name: object.name(), what: "its index is bad".to_owned() };
        let mut weight = bytes.len() as u64;
        let mut sections = HashMap::new();
        for (id, place, chunks) in object::inspect(bytes, None).ok_or_else(bad)? {
            let Some(part) = Part::new(object, chunks) else { continue };
            let block = |block| Arc::new(Block::of_whole(&part, block, bytes));
            let blocks: Vec<_> = (0..part.blocks()).map(block).collect();
            weight +=
                ENTRY_BYTES + part.weight() + blocks.iter().map(|block| block.weight() - block.bytes).sum::<u64>();
            sections.insert(place.at, (id, Arc::new(Section { part: Arc::new(part), blocks })));
        }
        Ok(Self { sections, weight })
    }

    pub(super) fn section(&self, id: StreamId, range: &index::Range) -> Option<Arc<Section>> {
        let (of, section) = self.sections.get(&range.part.at)?;
        (*of == id).then(|| section.clone())
    }

    pub(super) fn is_whole(&self) -> bool {
        self.sections.values().flat_map(|(_, section)| &section.blocks).all(|block| block.is_whole())
    }

    pub(super) const fn weight(&self) -> u64 {
        self.weight
    }
}
