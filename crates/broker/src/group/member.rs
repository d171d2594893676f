//! The values of the group protocol: what comes in, what goes out, what is kept. Used by core, records and driver.

use bytes::Bytes;

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
    GroupNotFound,
    /// Committed offsets take as much memory as they may.
    OffsetsFull,
    /// Too many groups, or what was decided could not be made durable: try again.
    Unavailable,
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
