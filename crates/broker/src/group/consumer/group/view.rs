//! A consumer group as ConsumerGroupDescribe and ListGroups show it. Part of a consumer group; read by the requests.

use super::{About, Group, Partitions, State};

/// Where a group is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConsumerState {
    Empty,
    Assigning,
    Reconciling,
    Stable,
}

impl ConsumerState {
    /// Kafka's name of it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Assigning => "Assigning",
            Self::Reconciling => "Reconciling",
            Self::Stable => "Stable",
        }
    }
}

/// A group as it is now.
#[derive(Debug, Clone)]
pub(crate) struct ConsumerView {
    pub(crate) state: ConsumerState,
    pub(crate) epoch: i32,
    pub(crate) target_epoch: i32,
    pub(crate) assignor: &'static str,
    pub(crate) members: Vec<MemberView>,
}

/// A member as it is now.
#[derive(Debug, Clone)]
pub(crate) struct MemberView {
    pub(crate) id: String,
    pub(crate) about: About,
    pub(crate) epoch: i32,
    pub(crate) assigned: Partitions,
    pub(crate) target: Partitions,
}

impl Group {
    pub(in super::super) fn state(&self) -> ConsumerState {
        let arrived =
            |member: &super::Member| member.current.state == State::Stable && member.current.epoch == self.target_epoch;
        if self.members.is_empty() {
            ConsumerState::Empty
        } else if self.epoch > self.target_epoch {
            ConsumerState::Assigning
        } else if self.members.values().all(arrived) {
            ConsumerState::Stable
        } else {
            ConsumerState::Reconciling
        }
    }

    pub(in super::super) fn view(&self) -> ConsumerView {
        let members = self.members.iter().map(|(id, member)| MemberView {
            id: id.to_string(),
            about: member.about.clone(),
            epoch: member.current.epoch,
            assigned: member.current.assigned.clone(),
            target: self.target.get(id).cloned().unwrap_or_default(),
        });
        ConsumerView {
            state: self.state(),
            epoch: self.epoch,
            target_epoch: self.target_epoch,
            assignor: self.assignor().name(),
            members: members.collect(),
        }
    }
}
