//! Which objects running reads need: what is needed is not removed from under them. Taken by `read`, looked at by `upload`.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

use crate::{index::Range, object::ObjectId};

/// How many running reads need which objects.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pins(Arc<Mutex<BTreeMap<ObjectId, usize>>>);

impl Pins {
    /// Holds the objects of some ranges until the guard is dropped. Taken under the lock of the state that names the
    /// ranges: whoever removes an object looked first that no state names it, and then at the pins.
    pub(crate) fn hold(&self, ranges: &[Arc<Range>]) -> Pinned {
        let mut held = self.0.lock();
        let objects: Vec<_> = ranges.iter().map(|range| range.object).collect();
        for object in &objects {
            *held.entry(*object).or_default() += 1;
        }
        Pinned { pins: self.clone(), objects }
    }

    /// Whether somebody reads it.
    pub(crate) fn holds(&self, object: ObjectId) -> bool {
        self.0.lock().contains_key(&object)
    }
}

/// Objects that a running read needs.
#[derive(Debug)]
pub(crate) struct Pinned {
    pins: Pins,
    objects: Vec<ObjectId>,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let mut held = self.pins.0.lock();
        for object in &self.objects {
            match held.get_mut(object) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(held.remove(object)),
            }
        }
    }
}
