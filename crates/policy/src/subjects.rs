//! What is kept of questions: for who asks what of what, the entities and the policies that bear on it.
//!
//! Belongs to one policy set and is thrown away with it. Bounded in number, names, entities and policies; past a bound
//! everything is forgotten and made again. Must never change a decision: what is kept is what would be made.

use std::collections::HashMap;
use std::sync::Arc;

use cedar_policy::PolicySet;
use parking_lot::Mutex;

use crate::{index::Index, question::Known};

/// So many subjects are kept.
pub(crate) const SUBJECTS_MAX: usize = 4_096;
/// A subject with longer names than this is made each time, so that what is kept is bounded in bytes.
const SUBJECT_BYTES_MAX: usize = 512;
/// So many policies, in all different slices that are kept.
const POLICIES_MAX: usize = 65_536;
/// So many entities, in all subjects that are kept.
const ENTITIES_MAX: usize = 65_536;

/// The subjects that were asked about of late, each made once.
#[derive(Debug, Default)]
pub(crate) struct Subjects {
    kept: Mutex<Kept>,
    slices: Mutex<Slices>,
}

#[derive(Debug, Default)]
struct Kept {
    known: HashMap<String, Arc<Known>>,
    entities: usize,
}

/// Many subjects have the same slice: each is copied once.
#[derive(Debug, Default)]
struct Slices {
    sets: HashMap<Vec<u32>, Arc<PolicySet>>,
    policies: usize,
}

impl Subjects {
    /// What is kept under `key`, or what `make` makes.
    pub(crate) fn of(&self, key: &str, make: impl FnOnce() -> Known) -> Arc<Known> {
        if key.len() > SUBJECT_BYTES_MAX {
            return Arc::new(make());
        }
        if let Some(known) = self.kept.lock().known.get(key) {
            return Arc::clone(known);
        }
        let known = Arc::new(make());
        let entities = known.entities.len();
        let mut kept = self.kept.lock();
        if kept.known.len() >= SUBJECTS_MAX || kept.entities + entities > ENTITIES_MAX {
            *kept = Kept::default();
        }
        // One that is larger than everything that may be kept is made each time.
        if entities <= ENTITIES_MAX && kept.known.insert(key.to_owned(), Arc::clone(&known)).is_none() {
            kept.entities += entities;
        }
        known
    }

    /// The policies at those places, made once for all subjects that have the same.
    pub(crate) fn slice(&self, index: &Index, places: Vec<u32>) -> Arc<PolicySet> {
        if let Some(set) = self.slices.lock().sets.get(&places) {
            return Arc::clone(set);
        }
        let set = index.slice(&places);
        if Arc::ptr_eq(&set, index.whole()) {
            return set;
        }
        let forget = {
            let mut slices = self.slices.lock();
            let forget = slices.policies + places.len() > POLICIES_MAX;
            if forget {
                *slices = Slices::default();
            }
            slices.policies += places.len();
            slices.sets.insert(places, Arc::clone(&set));
            forget
        };
        if forget {
            // Subjects hold slices too.
            *self.kept.lock() = Kept::default();
        }
        set
    }

    #[cfg(test)]
    pub(crate) fn keys(&self) -> Vec<String> {
        self.kept.lock().known.keys().cloned().collect()
    }
}
