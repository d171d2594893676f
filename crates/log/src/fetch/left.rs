//! What came when its readers had given up, so that they find it when they ask again, however small the cache is and whatever else
//! came through it meanwhile. Used by `fetch` alone.
//!
//! A client that asks for the end and for old records at once is not kept waiting for the store: it gives up at once, and asks again. A read
//! needs an index and a block, which are fetched one after the other, so that what was found here stays until others push it out.

use std::collections::VecDeque;

use super::cache::{Cached, Place};

/// Things that are kept, each of a block at most.
const LEFT_MAX: usize = 16;

/// The last ones; what was asked for last at the end.
#[derive(Debug, Default)]
pub(super) struct Left(VecDeque<(Place, Cached)>);

impl Left {
    pub(super) fn get(&mut self, place: Place) -> Option<Cached> {
        let at = self.0.iter().position(|(other, _)| *other == place)?;
        let found = self.0.remove(at)?;
        let cached = found.1.clone();
        self.0.push_back(found);
        Some(cached)
    }

    pub(super) fn put(&mut self, place: Place, cached: Cached) {
        self.0.retain(|(other, _)| *other != place);
        if self.0.len() >= LEFT_MAX {
            self.0.pop_front();
        }
        self.0.push_back((place, cached));
    }
}
