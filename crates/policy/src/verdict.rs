//! What a decision says, and the permit that proves it.
//!
//! The gateway takes a [`Verdict`] apart: a [`Ruling::Permit`] holds the only thing that lets it forward. The event
//! `call.decision` is built from the same verdict, so that a decision and its record cannot disagree.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;

use cairn_limits::Rule;

use crate::{FreshnessDemand, Masking, Nearest, OutputMode, Rewriting, Shadowed};
use crate::{
    annotations::{Demands, demands_elsewhere},
    rules::combined,
};

/// The answer to a question.
#[derive(Debug)]
pub struct Verdict {
    /// Whether the call may go on.
    pub outcome: Ruling,
    /// The policy set that decided: `sha256:<hex>`, or `observe` without policy files.
    pub policy_version: String,
    /// The policies that made the decision, by id, sorted. Empty where none matched: then the default denies.
    pub determining: Vec<String>,
    /// What the decision demands besides yes or no. On a deny nothing but how much the record holds.
    pub obligations: Vec<Obligation>,
    /// The same as each policy says it.
    pub demands: Vec<PolicyDemand>,
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

/// What one policy demands, in its own words: names and values of annotations.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PolicyDemand {
    /// The policy, by id.
    pub policy: String,
    /// Its annotations that demand something.
    pub annotations: Vec<(String, String)>,
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
    demands: Vec<(String, Demands)>,
}

impl Permit {
    pub(crate) const fn grant(
        version: Arc<str>,
        obligations: Vec<Obligation>,
        inputs_digest: String,
        demands: Vec<(String, Demands)>,
    ) -> Self {
        Self { version, obligations, inputs_digest, demands }
    }

    /// The same permit with what somebody elsewhere demands besides, for a call of that method. All of it holds, as where
    /// several policies permit.
    ///
    /// # Errors
    /// Something is demanded that is not known or cannot be carried out, or that contradicts something else: then there is
    /// no permit any more.
    pub fn join(mut self, elsewhere: Vec<PolicyDemand>, method: &str) -> Result<Self, String> {
        for PolicyDemand { policy, annotations } in elsewhere {
            let demands =
                demands_elsewhere(&annotations, method).map_err(|what| format!("what {policy} demands: {what}"))?;
            self.demands.push((policy, demands));
        }
        self.demands.sort_by(|(one, _), (other, _)| one.cmp(other));
        self.obligations =
            combined(&self.demands).map_err(|[one, other]| format!("{other}: @rewrite contradicts that of {one}"))?;
        Ok(self)
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
            _ => None,
        })
    }

    /// What is rewritten before the call goes on.
    #[must_use]
    pub fn rewriting(&self) -> Option<&Rewriting> {
        self.obligations.iter().find_map(|obligation| match obligation {
            Obligation::Rewrite { rewriting } => Some(rewriting),
            _ => None,
        })
    }

    /// The limits that come with it.
    #[must_use]
    pub fn limits(&self) -> &[Rule] {
        self.obligations
            .iter()
            .find_map(|obligation| match obligation {
                Obligation::Limits { rules } => Some(&rules[..]),
                _ => None,
            })
            .unwrap_or_default()
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
    /// The record holds less of the call than is configured.
    Mask {
        /// The policies that demand it, by id, sorted.
        policies: Vec<String>,
        /// Everything that one of them hides.
        masking: Masking,
    },
    /// The arguments are changed, and then decided on once more.
    Rewrite {
        /// What all policies want changed.
        rewriting: Rewriting,
    },
    /// What the call depends on must be fresh.
    Freshness {
        /// The policies that demand it, by id, sorted.
        policies: Vec<String>,
        /// How fresh: the strictest of them.
        demand: FreshnessDemand,
    },
    /// The result is looked at before the client gets it.
    ScreenOutput {
        /// The policies that demand it, by id, sorted.
        policies: Vec<String>,
        /// What is done with what is found: the strictest of them.
        mode: OutputMode,
    },
    /// The call takes of these limits, each named after its policy.
    Limits {
        /// In the order of the policies' ids.
        rules: Vec<Rule>,
    },
}

impl Obligation {
    /// The name in annotations and events.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Approval { .. } => APPROVAL,
            Self::Durability { .. } => DURABILITY,
            Self::Mask { .. } => MASK,
            Self::Rewrite { .. } => REWRITE,
            Self::Freshness { .. } => FRESHNESS,
            Self::ScreenOutput { .. } => SCREEN_OUTPUT,
            Self::Limits { .. } => LIMITS,
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
/// `@rate`, `@concurrency`, `@budget`
pub(crate) const LIMITS: &str = "limits";
/// `@durability("strict")`
pub(crate) const DURABILITY: &str = "durability";
/// `@mask("…")`
pub(crate) const MASK: &str = "mask";
/// `@rewrite("…")`
pub(crate) const REWRITE: &str = "rewrite";
/// `@freshness("…")`
pub(crate) const FRESHNESS: &str = "freshness";
/// `@screen_output("…")`
pub(crate) const SCREEN_OUTPUT: &str = "screen_output";
