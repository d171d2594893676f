//! The values of the group protocol: what comes in, what goes out, what is kept. Used by core, records and driver.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use parking_lot::RwLock;

/// Limits of the coordinator; times in milliseconds.
#[derive(Debug, Clone)]
pub(crate) struct GroupLimits {
    pub(crate) session_timeout_ms_min: u64,
    pub(crate) session_timeout_ms_max: u64,
    pub(crate) initial_delay_ms: u64,
    pub(crate) groups_max: usize,
    pub(crate) members_max: usize,
    /// Bytes of one group.
    pub(crate) group_bytes_max: usize,
    /// Bytes of all groups.
    pub(crate) groups_bytes_max: usize,
    /// Bytes of all committed offsets.
    pub(crate) offsets_bytes_max: usize,
    /// How long offsets are kept that nobody uses; for ever where absent.
    pub(crate) offsets_kept_ms: Option<u64>,
    /// How often they are looked at.
    pub(crate) offsets_look_ms: u64,
    /// How long a member of a consumer group may be silent.
    pub(crate) consumer_session_ms: u64,
    /// How often it is to be heard of.
    pub(crate) consumer_interval_ms: u64,
    /// What groups have of their own of these two.
    pub(crate) paces: Paces,
}

impl GroupLimits {
    /// How long a member of a consumer group may be silent, and how often it is to be heard of.
    pub(crate) fn pace(&self, group: &str) -> (u64, u64) {
        let own = self.paces.0.read().get(group).copied().unwrap_or_default();
        (own.session_ms.unwrap_or(self.consumer_session_ms), own.interval_ms.unwrap_or(self.consumer_interval_ms))
    }
}

/// What one group has of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pace {
    pub(crate) session_ms: Option<u64>,
    pub(crate) interval_ms: Option<u64>,
}

/// The same of all groups, as configs say that were given to them; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Paces(Arc<RwLock<HashMap<String, Pace>>>);

impl Paces {
    pub(crate) fn set(&self, group: &str, pace: Pace) {
        let mut all = self.0.write();
        if pace == Pace::default() {
            all.remove(group);
        } else {
            all.insert(group.to_owned(), pace);
        }
    }
}

/// Why a member's request is refused. One wire code each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GroupError {
    InvalidGroupId,
    InvalidSessionTimeout,
    InconsistentProtocol,
    UnknownMember,
    FencedInstance,
    IllegalGeneration,
    RebalanceInProgress,
    GroupFull,
    NotEmpty,
    /// Its members read the topic whose offsets are to be forgotten.
    Subscribed,
    GroupNotFound,
    /// Fields of a heartbeat of the new protocol are missing, or contradict each other.
    InvalidRequest,
    FencedEpoch,
    StaleEpoch,
    UnreleasedInstance,
    UnsupportedAssignor,
    InvalidRegex,
    /// Members of the new protocol commit with version 9 or newer.
    UnsupportedVersion,
    /// Committed offsets take as much memory as they may.
    OffsetsFull,
    /// Too many groups, or what was decided could not be made durable: try again.
    Unavailable,
}

impl GroupError {
    /// In words, for answers that have room for them.
    pub(crate) const fn says(self) -> &'static str {
        match self {
            Self::InvalidGroupId => "the group needs a name",
            Self::InvalidSessionTimeout => "the session timeout is outside of what this broker allows",
            Self::InconsistentProtocol => "the group speaks another protocol",
            Self::UnknownMember => "the group has no such member: join it again",
            Self::FencedInstance => "another member with the same group.instance.id has taken this one's place",
            Self::IllegalGeneration => "the generation is not the group's",
            Self::RebalanceInProgress => "the group is rebalancing: join again",
            Self::GroupFull => "the group has as many members, or takes as much memory, as it may",
            Self::NotEmpty => "the group has members",
            Self::Subscribed => "members of the group read that topic",
            Self::GroupNotFound => "there is no such group of this protocol",
            Self::InvalidRequest => "fields of the request are missing, or contradict each other",
            Self::FencedEpoch => {
                "the member epoch is not the member's: give up all partitions and join again with epoch 0"
            }
            Self::StaleEpoch => "the member epoch is not the member's: try again after the next heartbeat",
            Self::UnreleasedInstance => "the group.instance.id is still in use by another member: it must leave first",
            Self::UnsupportedAssignor => "there is no such assignor: the broker has `uniform` and `range`",
            Self::InvalidRegex => "the regular expression is not one of RE2's, or is too large",
            Self::UnsupportedVersion => "members of the consumer protocol commit with OffsetCommit 9 or newer",
            Self::OffsetsFull => "committed offsets take as much memory as they may: delete groups, or raise the limit",
            Self::Unavailable => "the coordinator is not available: try again",
        }
    }
}

/// Who speaks: the ids of a request that names a member.
#[derive(Debug, Clone, Default)]
pub(crate) struct Identity {
    pub(crate) member: String,
    pub(crate) instance: Option<String>,
}

/// A JoinGroup request.
#[derive(Debug, Clone)]
pub(crate) struct Join {
    pub(crate) who: Identity,
    /// The id that a new member gets: made by the caller, because the core knows no chance.
    pub(crate) fresh_member_id: String,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) session_timeout_ms: u64,
    pub(crate) rebalance_timeout_ms: u64,
    pub(crate) protocol_type: String,
    pub(crate) protocols: Vec<(String, Bytes)>,
    /// From version 4 a new dynamic member first learns its id and joins again with it (KIP-394).
    pub(crate) id_required: bool,
    /// From version 9 a static leader that comes back is told to keep the assignment (KIP-814).
    pub(crate) may_skip_assignment: bool,
}

impl Join {
    /// What a member that joins with this takes, about.
    pub(super) fn bytes(&self) -> usize {
        let protocols: usize = self.protocols.iter().map(|(name, data)| name.len() + data.len()).sum();
        protocols
            + self.client_id.len()
            + self.fresh_member_id.len()
            + self.who.instance.as_ref().map_or(0, String::len)
    }
}

/// A JoinGroup answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) generation: i32,
    pub(crate) protocol_type: String,
    pub(crate) protocol: String,
    pub(crate) leader: String,
    pub(crate) member: String,
    pub(crate) skip_assignment: bool,
    /// For the leader: member id, instance id, metadata of the chosen protocol.
    pub(crate) members: Vec<(String, Option<String>, Bytes)>,
}

/// A SyncGroup answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Synced {
    pub(crate) protocol_type: String,
    pub(crate) protocol: String,
    pub(crate) assignment: Bytes,
}

/// A group as it is stored and described.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct GroupSnapshot {
    pub(crate) group: String,
    pub(crate) protocol_type: String,
    pub(crate) generation: i32,
    pub(crate) protocol: Option<String>,
    pub(crate) leader: Option<String>,
    pub(crate) members: Vec<MemberSnapshot>,
}

/// A member as it is stored and described.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct MemberSnapshot {
    pub(crate) id: String,
    pub(crate) instance: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) rebalance_timeout_ms: u64,
    pub(crate) session_timeout_ms: u64,
    pub(crate) subscription: Bytes,
    pub(crate) assignment: Bytes,
}
