//! Share groups (KIP-932): members take records of one partition side by side, each record for a while, and say what became of it.
//!
//! [`window`] is one partition of one group without sockets, storage or clocks; [`group`] is who is in a group and who gets which
//! partitions, built alike. [`sessions`] is which partitions a member fetches. [`records`] is the byte layout of `__share_group_state`.
//! [`Shares`] keeps all of them: it reads back what was written, makes durable what a member said of its records before it is answered,
//! and wakes those who wait for records.
//!
//! What is handed out is not written, only what became of it: after a crash what members had is handed out again. A record is handed out
//! at least once, and once it is acknowledged never again.

mod group;
mod keeper;
mod records;
pub(crate) mod sessions;
mod settings;
mod window;

use std::sync::Arc;

use uuid::Uuid;

pub(crate) use group::{ASSIGNOR, Beat, MemberView, Told};
pub(crate) use keeper::{Ask, Portion, ShareError, ShareLink, Shares};
pub(crate) use settings::{Settings, check_reset};
pub(crate) use window::{Acquired, JudgeError, Judged, Verdict};

/// The topic that holds what became of records, by Kafka's name of it.
pub(crate) const STATE_TOPIC: &str = "__share_group_state";

/// One partition as one group sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) group: Arc<str>,
    pub(crate) topic: Uuid,
    pub(crate) partition: u32,
}
