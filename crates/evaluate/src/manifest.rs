//! What a data set was made of and what it is, so that it can be made again exactly: `manifest.json` beside its files.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Options;

/// The manifest's file name.
pub const MANIFEST: &str = "manifest.json";
/// The version of the rows' layout, and of the manifest's.
pub const LAYOUT: u32 = 1;

/// Offsets of one partition that were read: `from..to`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// The topic.
    pub topic: String,
    /// Its id: a topic that is made anew has another; empty where the cluster has none.
    pub topic_id: String,
    /// The partition.
    pub partition: u32,
    /// The first offset.
    pub from: u64,
    /// The offset behind the last one.
    pub to: u64,
}

/// One file of a data set.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileOf {
    /// Its name, beside the manifest.
    pub name: String,
    /// `jsonl` or `parquet`.
    pub format: String,
    /// Its bytes.
    pub bytes: u64,
    /// `sha256:` and the digest of all of it.
    pub digest: String,
}

/// What was found on the way.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Counts {
    /// Records that were read.
    pub records: u64,
    /// Records that are no events.
    pub no_events: u64,
    /// Events that have a key in a form that this program does not know.
    pub unreadable: u64,
    /// Events that lie twice, and counted once.
    pub duplicates: u64,
    /// Calls of tools that were not chosen.
    pub left_out: u64,
    /// Chosen calls that have not ended yet, and are not in it.
    pub open: u64,
    /// Rows whose principal was erased.
    pub erased: u64,
    /// Rows.
    pub rows: u64,
}

/// What was masked how.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Masking {
    /// `as recorded`: texts stand as they were masked when they were recorded; `no texts`: none stands in the rows.
    pub texts: String,
    /// The digests of the detectors that looked at results, as the events name them.
    pub detectors: Vec<String>,
}

/// How a data set came to be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of this layout and of the rows'.
    pub layout: u32,
    /// The program that made it.
    pub program: String,
    /// Its version.
    pub program_version: String,
    /// When; nothing follows from it.
    pub made_at: String,
    /// The cluster, as it names itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// What it was made by.
    pub options: Options,
    /// What was read, by partition.
    pub ranges: Vec<Range>,
    /// What was masked how.
    pub masking: Masking,
    /// The versions of the contracts of the events in it, by type.
    pub contracts: BTreeMap<String, Vec<u32>>,
    /// What was found on the way.
    pub counts: Counts,
    /// The files.
    pub files: Vec<FileOf>,
}
