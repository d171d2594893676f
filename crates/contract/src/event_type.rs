//! The types of events: each one's name, topic and contract.
//!
//! `ce_type` is `io.cairn.` plus the name and carries no version; the version is the contract's.

use std::fmt;

use crate::{Contract, Topic, contract};

/// The type of an event.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum EventType {
    /// `call.decision`
    CallDecision,
    /// `call.approval`
    CallApproval,
    /// `call.intent`
    CallIntent,
    /// `call.outcome`
    CallOutcome,
    /// `call.answered`
    CallAnswered,
    /// `call.late`
    CallLate,
    /// `call.settled`
    CallSettled,
    /// `notice.passed`
    NoticePassed,
    /// `context.read`
    ContextRead,
    /// `context.changed`
    ContextChanged,
    /// `context.listed`
    ContextListed,
    /// `context.prompt`
    ContextPrompt,
    /// `session.opened`
    SessionOpened,
    /// `session.closed`
    SessionClosed,
    /// `catalog.defined`
    CatalogDefined,
    /// `catalog.changed`
    CatalogChanged,
    /// `catalog.approved`
    CatalogApproved,
    /// `policy.loaded`
    PolicyLoaded,
    /// `policy.activated`
    PolicyActivated,
    /// `policy.rejected`
    PolicyRejected,
    /// `access.refused`
    AccessRefused,
    /// `alert.raised`
    AlertRaised,
    /// `limit.exceeded`
    LimitExceeded,
    /// `policy.shadowed`
    PolicyShadowed,
    /// `evidence.checkpoint`
    EvidenceCheckpoint,
    /// `evidence.rotated`
    EvidenceRotated,
    /// `evidence.producer`
    EvidenceProducer,
    /// `vault.read`
    VaultRead,
    /// `subject.erased`
    SubjectErased,
    /// `subject.held`
    SubjectHeld,
    /// `subject.released`
    SubjectReleased,
    /// `operator.acted`
    OperatorActed,
    /// `event.rejected`
    EventRejected,
    /// `consumer.moved`
    ConsumerMoved,
    /// `replay.started`
    ReplayStarted,
    /// `replay.ended`
    ReplayEnded,
    /// `model.called`
    ModelCalled,
    /// `action.reported`
    ActionReported,
}

/// What stands before the name in `ce_type`.
pub(crate) const CE_TYPE_PREFIX: &str = "io.cairn.";

impl EventType {
    /// Every type.
    pub const ALL: [Self; 38] = [
        Self::CallDecision,
        Self::CallApproval,
        Self::CallIntent,
        Self::CallOutcome,
        Self::CallAnswered,
        Self::CallLate,
        Self::CallSettled,
        Self::NoticePassed,
        Self::ContextRead,
        Self::ContextChanged,
        Self::ContextListed,
        Self::ContextPrompt,
        Self::SessionOpened,
        Self::SessionClosed,
        Self::CatalogDefined,
        Self::CatalogChanged,
        Self::CatalogApproved,
        Self::PolicyLoaded,
        Self::PolicyActivated,
        Self::PolicyRejected,
        Self::AccessRefused,
        Self::AlertRaised,
        Self::LimitExceeded,
        Self::PolicyShadowed,
        Self::EvidenceCheckpoint,
        Self::EvidenceRotated,
        Self::EvidenceProducer,
        Self::VaultRead,
        Self::SubjectErased,
        Self::SubjectHeld,
        Self::SubjectReleased,
        Self::OperatorActed,
        Self::EventRejected,
        Self::ConsumerMoved,
        Self::ReplayStarted,
        Self::ReplayEnded,
        Self::ModelCalled,
        Self::ActionReported,
    ];

    /// The name, such as `call.intent`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CallDecision => "call.decision",
            Self::CallApproval => "call.approval",
            Self::CallIntent => "call.intent",
            Self::CallOutcome => "call.outcome",
            Self::CallAnswered => "call.answered",
            Self::CallLate => "call.late",
            Self::CallSettled => "call.settled",
            Self::NoticePassed => "notice.passed",
            Self::ContextRead => "context.read",
            Self::ContextChanged => "context.changed",
            Self::ContextListed => "context.listed",
            Self::ContextPrompt => "context.prompt",
            Self::SessionOpened => "session.opened",
            Self::SessionClosed => "session.closed",
            Self::CatalogDefined => "catalog.defined",
            Self::CatalogChanged => "catalog.changed",
            Self::CatalogApproved => "catalog.approved",
            Self::PolicyLoaded => "policy.loaded",
            Self::PolicyActivated => "policy.activated",
            Self::PolicyRejected => "policy.rejected",
            Self::AccessRefused => "access.refused",
            Self::AlertRaised => "alert.raised",
            Self::LimitExceeded => "limit.exceeded",
            Self::PolicyShadowed => "policy.shadowed",
            Self::EvidenceCheckpoint => "evidence.checkpoint",
            Self::EvidenceRotated => "evidence.rotated",
            Self::EvidenceProducer => "evidence.producer",
            Self::VaultRead => "vault.read",
            Self::SubjectErased => "subject.erased",
            Self::SubjectHeld => "subject.held",
            Self::SubjectReleased => "subject.released",
            Self::OperatorActed => "operator.acted",
            Self::EventRejected => "event.rejected",
            Self::ConsumerMoved => "consumer.moved",
            Self::ReplayStarted => "replay.started",
            Self::ReplayEnded => "replay.ended",
            Self::ModelCalled => "model.called",
            Self::ActionReported => "action.reported",
        }
    }

    /// The type of that name, with or without `io.cairn.` before it.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let name = name.strip_prefix(CE_TYPE_PREFIX).unwrap_or(name);
        Self::ALL.into_iter().find(|event_type| event_type.name() == name)
    }

    /// The topic that holds events of this type.
    #[must_use]
    pub const fn topic(self) -> Topic {
        match self {
            Self::CallDecision
            | Self::CallApproval
            | Self::CallIntent
            | Self::CallOutcome
            | Self::CallAnswered
            | Self::CallLate
            | Self::CallSettled => Topic::Calls,
            Self::NoticePassed | Self::SessionOpened | Self::SessionClosed => Topic::Sessions,
            Self::ContextRead | Self::ContextChanged | Self::ContextListed | Self::ContextPrompt => Topic::Context,
            Self::CatalogDefined | Self::CatalogChanged | Self::CatalogApproved => Topic::Catalog,
            Self::PolicyLoaded | Self::PolicyActivated | Self::PolicyRejected | Self::PolicyShadowed => Topic::Policies,
            Self::AccessRefused
            | Self::AlertRaised
            | Self::LimitExceeded
            | Self::VaultRead
            | Self::SubjectErased
            | Self::SubjectHeld
            | Self::SubjectReleased
            | Self::OperatorActed
            | Self::ConsumerMoved
            | Self::ReplayStarted
            | Self::ReplayEnded => Topic::Operators,
            Self::EvidenceCheckpoint | Self::EvidenceRotated | Self::EvidenceProducer => Topic::Checkpoints,
            Self::EventRejected => Topic::Rejected,
            Self::ModelCalled => Topic::Models,
            Self::ActionReported => Topic::Actions,
        }
    }

    /// The newest contract of this type: its schema, version and GUID.
    #[must_use]
    pub fn contract(self) -> &'static Contract {
        contract(self)
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
