//! The events of `mcp.checkpoints`: what the trees over the other topics come to.
//!
//! The evidence consumer makes them. Everything that is signed is in the note; the other keys spare a reader the parsing, or
//! let it go on from here, and whoever verifies checks them against the note.

use serde::{Deserialize, Serialize};

/// `evidence.checkpoint`: a signed root of one partition's tree.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EvidenceCheckpoint {
    /// The checkpoint as a C2SP signed note, with cosignatures where there are any.
    pub note: String,
    /// The topic.
    pub topic: String,
    /// Which topic of that name: a topic that is made anew has another id.
    pub topic_id: String,
    /// The partition.
    pub partition: u32,
    /// How many records the tree holds.
    pub size: u64,
    /// The tree's root, in base64 as in the note.
    pub root: String,
    /// The offset behind the last record of the tree.
    pub offset_next: u64,
    /// The roots of the complete subtrees, the largest first, in base64: they hash to the root, and the tree grows from them.
    pub frontier: Vec<String>,
    /// The size of the checkpoint before, where there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_size: Option<u64>,
    /// The proof of RFC 6962 that this tree extends that one, in base64.
    #[serde(default)]
    pub consistency: Vec<String>,
}

/// `evidence.producer`: a producer of events, by the word of whoever signs the checkpoints.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EvidenceProducer {
    /// The statement as a signed note.
    pub note: String,
    /// The producer.
    pub producer_id: String,
    /// The first epoch that is vouched for.
    pub epoch_first: u64,
    /// The last one.
    pub epoch_last: u64,
}

/// `evidence.rotated`: another key signs from here on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EvidenceRotated {
    /// The rotation as a signed note, by the old and the new key.
    pub note: String,
    /// The old verifier key.
    pub old_key: String,
    /// The new verifier key.
    pub new_key: String,
}
