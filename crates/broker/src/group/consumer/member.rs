//! A member of a consumer group and how it comes to what it is meant to have. Used by the group.
//!
//! The rule that everything rests on: a partition is in `assigned` or `revoking` of one member at a time, and leaves `revoking`
//! only when the member says that it no longer has it, or is no member any more.

use std::collections::BTreeSet;

use bytes::Bytes;
use uuid::Uuid;

use super::Partitions;

/// The epoch that says: this static member is away and will be back.
pub(crate) const AWAY: i32 = -2;
/// The epoch that says: this member leaves.
pub(crate) const LEAVES: i32 = -1;

/// Where a member is on its way to the target assignment. The numbers are those of Kafka's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It has what it was meant to have at its epoch.
    Stable = 1,
    /// It must first give up partitions.
    Unrevoked = 2,
    /// It waits for partitions that others still have.
    Unreleased = 3,
}

impl State {
    pub(super) const fn numbered(number: i8) -> Option<Self> {
        match number {
            1 => Some(Self::Stable),
            2 => Some(Self::Unrevoked),
            3 => Some(Self::Unreleased),
            _ => None,
        }
    }
}

/// What a member said of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) instance: Option<String>,
    pub(crate) rack: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) names: BTreeSet<String>,
    pub(crate) regex: Option<String>,
    pub(crate) rebalance_timeout_ms: u64,
    pub(crate) assignor: Option<String>,
    /// Of a member that speaks the classic protocol.
    pub(crate) classic: Option<Classic>,
}

/// What a member of the classic protocol said besides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Classic {
    pub(crate) session_timeout_ms: u64,
    pub(crate) protocols: Vec<(String, Bytes)>,
}

impl About {
    /// What it takes in memory, about.
    pub(super) fn bytes(&self) -> usize {
        let optional = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let names: usize = self.names.iter().map(|name| NAME_BYTES + name.len()).sum();
        let protocols = self.classic.iter().flat_map(|classic| &classic.protocols);
        let protocols: usize = protocols.map(|(name, metadata)| NAME_BYTES + name.len() + metadata.len()).sum();
        let texts = optional(&self.instance) + optional(&self.rack) + optional(&self.regex) + optional(&self.assignor);
        MEMBER_BYTES + self.client_id.len() + self.client_host.len() + texts + names + protocols
    }
}

/// What a member takes besides its texts, about.
const MEMBER_BYTES: usize = 1_024;
/// What a text in a set takes besides itself, about.
pub(super) const NAME_BYTES: usize = 48;

/// What a member has and at which epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Current {
    pub(crate) epoch: i32,
    /// The epoch before: a member to which the last answer was lost comes with it again.
    pub(crate) previous_epoch: i32,
    pub(crate) state: State,
    /// What it was told that it has.
    pub(crate) assigned: Partitions,
    /// What it was told to give up, and has not said that it did.
    pub(crate) revoking: Partitions,
}

impl Default for Current {
    fn default() -> Self {
        let nothing = Partitions::default;
        Self { epoch: 0, previous_epoch: 0, state: State::Stable, assigned: nothing(), revoking: nothing() }
    }
}

/// What a group means a member to have.
pub(super) struct Aim<'a> {
    pub(super) epoch: i32,
    pub(super) partitions: &'a Partitions,
}

/// What a member says that it has.
#[derive(Debug, Clone, Copy)]
pub(super) enum Owned<'a> {
    /// It begins anew, and so has nothing.
    Nothing,
    /// It did not say.
    Unsaid,
    Said(&'a Partitions),
    /// It said so in a JoinGroup, and is about to begin with nothing else.
    Sworn(&'a Partitions),
}

impl Current {
    /// The next step towards the aim, if there is one. `is_free` tells whether nobody else has a partition.
    pub(super) fn next(&self, owned: Owned<'_>, aim: &Aim<'_>, is_free: impl Fn(Uuid, u32) -> bool) -> Option<Self> {
        let gave_up = match owned {
            Owned::Nothing => true,
            Owned::Unsaid => false,
            Owned::Said(owned) | Owned::Sworn(owned) => !owned.meets(&self.revoking),
        };
        match self.state {
            State::Stable if self.epoch == aim.epoch => None,
            State::Stable | State::Unreleased => Some(self.towards(self.epoch, owned, aim, is_free)),
            State::Unrevoked if !gave_up => None,
            // It gave up what it had to: that is an epoch further, also where it must give up more.
            State::Unrevoked => Some(self.towards(self.epoch.saturating_add(1), owned, aim, is_free)),
        }
    }

    fn towards(&self, epoch: i32, owned: Owned<'_>, aim: &Aim<'_>, is_free: impl Fn(Uuid, u32) -> bool) -> Self {
        let kept = self.assigned.shared_with(aim.partitions);
        let revoking = self.assigned.without(&kept);
        // Who was told of a partition may be about to begin with it, whatever it says it has now: it is told first, and gives
        // it up in a later request. (Kafka takes its word at once.)
        let may_have = match owned {
            Owned::Nothing => false,
            Owned::Unsaid | Owned::Said(_) => true,
            Owned::Sworn(owned) => owned.meets(&revoking),
        };
        if !revoking.is_empty() && may_have {
            return self.step(epoch, State::Unrevoked, kept, revoking);
        }
        let missing = aim.partitions.without(&kept);
        let free: Partitions = missing.iter().filter(|(topic, partition)| is_free(*topic, *partition)).collect();
        let state = if missing == free { State::Stable } else { State::Unreleased };
        let mut assigned = kept;
        assigned.extend(free.iter());
        self.step(aim.epoch, state, assigned, Partitions::default())
    }

    fn step(&self, epoch: i32, state: State, assigned: Partitions, revoking: Partitions) -> Self {
        let previous_epoch = if epoch == self.epoch { self.previous_epoch } else { self.epoch };
        Self { epoch, previous_epoch, state, assigned, revoking }
    }
}
