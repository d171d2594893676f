//! A note beside the spool that a cluster's topics were as they must be, so that a start can do without the cluster.
//!
//! `checked.json`: `{"bootstrap": …, "partitions": {topic: number, …}}`, replaced as a whole. A note that is missing, damaged
//! or about another cluster is as good as none. It must never be written before the topics were seen.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::Path,
};

use cairn_contract::Topic;
use serde::{Deserialize, Serialize};

use crate::identity::replace_file;

const FILE: &str = "checked.json";

#[derive(Serialize, Deserialize)]
pub(super) struct Checked {
    pub(super) bootstrap: String,
    partitions: BTreeMap<String, u32>,
}

impl Checked {
    pub(super) fn new(bootstrap: &str, partitions: &HashMap<Topic, u32>) -> Self {
        let partitions = partitions.iter().map(|(topic, count)| (topic.name().to_owned(), *count)).collect();
        Self { bootstrap: bootstrap.to_owned(), partitions }
    }

    pub(super) fn load(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(folder.join(FILE)).ok()?).ok()
    }

    pub(super) fn save(&self, folder: &Path) -> io::Result<()> {
        replace_file(&folder.join(FILE), &serde_json::to_vec(self).map_err(io::Error::other)?)
    }

    pub(super) fn partitions(&self) -> HashMap<Topic, u32> {
        let known = self.partitions.iter().filter_map(|(name, count)| Some((Topic::named(name)?, *count)));
        known.collect()
    }
}
