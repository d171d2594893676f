//! What a decision says, and the permit that proves it.
//!
//! The gateway takes a [`Verdict`] apart: a [`Ruling::Permit`] holds the only thing that lets it forward. The event
//! `call.decision` is built from the same verdict, so that a decision and its record cannot disagree.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{Nearest, Shadowed};

/// The answer to a question.
#[derive(Debug)]
pub struct Verdict {
    /// Whether the call may go on.
    pub outcome: Ruling,
    /// The policy set that decided: `sha256:<hex>`, or `observe` without policy files.
    pub policy_version: String,
    /// The policies that made the decision, by id, sorted. Empty where none matched: then the default denies.
    pub determining: Vec<String>,
    /// What the decision demands besides yes or no. Empty on a deny.
    pub obligations: Vec<Obligation>,
    /// What went wrong in evaluating policies, one text each, sorted.
    pub errors: Vec<String>,
    /// Where nothing permits and nothing forbids: the permit that came nearest.
    pub nearest: Option<Nearest>,
    /// Where policies are tried: what they would have decided.
    pub shadow: Option<Shadowed>,
    /// The exact request and entities, as canonical JSON:
    /// `{"action", "context", "entities", "principal", "resource"}`.
    pub inputs: Bytes,
    /// Time spent deciding, in microseconds.
    pub elapsed_us: u64,
}

impl Verdict {
    /// Whether the call may go on.
    #[must_use]
    pub const fn is_permit(&self) -> bool {
        matches!(self.outcome, Ruling::Permit(_))
    }
}

/// Yes, with the proof, or no.
#[derive(Debug)]
pub enum Ruling {
    /// The call may go on, if its obligations are met.
    Permit(Permit),
    /// The call may not.
    Deny,
}

/// Proof that policy permits one call. Only this crate makes one, and it cannot be copied.
#[derive(Debug)]
pub struct Permit {
    version: Arc<str>,
    obligations: Vec<Obligation>,
    inputs_digest: String,
}

impl Permit {
    pub(crate) const fn grant(version: Arc<str>, obligations: Vec<Obligation>, inputs_digest: String) -> Self {
        Self { version, obligations, inputs_digest }
    }

    /// The policy set that permits it.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What must be met before the call goes on.
    #[must_use]
    pub fn obligations(&self) -> &[Obligation] {
        &self.obligations
    }

    /// The approvals that are demanded, where any are.
    #[must_use]
    pub fn approval(&self) -> Option<ApprovalDemand<'_>> {
        self.obligations.iter().find_map(|obligation| match obligation {
            Obligation::Approval { needs, expires } => Some(ApprovalDemand { needs, expires: *expires }),
            Obligation::Durability { .. } => None,
        })
    }

    /// `sha256:<hex>` over the inputs that were decided on: an approval is bound to it.
    #[must_use]
    pub fn inputs_digest(&self) -> &str {
        &self.inputs_digest
    }
}

/// Who must approve, as one policy says.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ApprovalNeed {
    /// The policy, by id.
    pub policy: String,
    /// Who may approve, by the operator's name, sorted; anybody where empty.
    pub approvers: Vec<String>,
    /// How many different approvers it takes.
    pub quorum: u32,
}

/// All approvals that a permit demands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ApprovalDemand<'a> {
    /// What each policy wants.
    pub needs: &'a [ApprovalNeed],
    /// How long it may take, where a policy says so.
    pub expires: Option<Duration>,
}

/// What a decision demands besides yes or no.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Obligation {
    /// The call waits until somebody approves it.
    Approval {
        /// What each policy that demands it wants, sorted by the policy's id: all of it must be met.
        needs: Vec<ApprovalNeed>,
        /// How long the approval may take, where a policy says so: the shortest of them.
        expires: Option<Duration>,
    },
    /// Each step's record must be durable before the next one, whatever the method.
    Durability {
        /// The policies that demand it, by id, sorted.
        policies: Vec<String>,
    },
}

impl Obligation {
    /// The name in annotations and events.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Approval { .. } => APPROVAL,
            Self::Durability { .. } => DURABILITY,
        }
    }
}

impl fmt::Display for Obligation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `@obligation("approval")`
pub(crate) const APPROVAL: &str = "approval";
/// `@durability("strict")`
pub(crate) const DURABILITY: &str = "durability";
