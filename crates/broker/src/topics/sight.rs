//! What consumer groups see of the topics: which there are, and that they changed. Given to the group coordinator, which holds
//! nothing else of the catalogue.

use std::sync::Arc;

use parking_lot::RwLock;
use uuid::Uuid;

use super::Known;
use crate::group::consumer::Topics;

/// A look at the catalogue; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Sight {
    known: Arc<RwLock<Known>>,
}

impl Sight {
    pub(super) fn of(known: &Arc<RwLock<Known>>) -> Self {
        Self { known: Arc::clone(known) }
    }

    /// The names that an expression may name: those of internal topics are not among them.
    pub(crate) fn names(&self) -> Vec<String> {
        let known = self.known.read();
        known.by_name.values().filter(|topic| !topic.is_internal()).map(|topic| topic.name.clone()).collect()
    }
}

impl Topics for Sight {
    fn version(&self) -> u64 {
        self.known.read().version
    }

    fn find(&self, name: &str) -> Option<(Uuid, u32)> {
        self.known.read().by_name.get(name).map(|topic| (topic.id, topic.partitions))
    }
}
