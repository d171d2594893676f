//! One approval: what was asked, who has voted, and whether that is enough.
//!
//! Read by operators, stored by `sealed`. A person counts once, whatever they call themselves: votes are told apart by the
//! identity that the credential gave, never by a name in a request.

use std::{collections::BTreeSet, fmt};

use cairn_clock::Timestamp;
use serde::{Deserialize, Serialize};

/// Who must approve, as one policy says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Need {
    /// The policy, by id.
    pub policy: String,
    /// Who may approve, by the operator's name; anybody where empty.
    pub approvers: Vec<String>,
    /// How many different approvers it takes.
    pub quorum: u32,
}

/// What a call asks for. The arguments are exactly what will be forwarded.
#[derive(Clone, Serialize, Deserialize)]
pub struct Request {
    /// The approval's id: what `cairn approve` takes.
    pub id: String,
    /// The caller's tenant.
    pub tenant: Option<String>,
    /// Who asks.
    pub principal: String,
    /// Through which agent, as its credential says.
    pub agent: Option<String>,
    /// Whether principal and agent were verified: a local user is not.
    pub verified: bool,
    /// The upstream.
    pub server: String,
    /// The method.
    pub method: String,
    /// The tool, prompt or resource.
    pub target: String,
    /// The exact arguments, as JSON text.
    pub arguments: String,
    /// The workflow.
    pub workflow_id: String,
    /// The call that asked first.
    pub call_id: String,
    /// The policy set that wants it.
    pub policy_version: String,
    /// The definition of the tool, as the catalogue holds it.
    pub tool_digest: Option<String>,
    /// Digest over everything that the approval binds.
    pub binding: String,
    /// What each policy wants; all of it must be met.
    pub needs: Vec<Need>,
    /// When it was asked for.
    #[serde(with = "micros")]
    pub requested_at: Timestamp,
    /// When it ends by itself.
    #[serde(with = "micros")]
    pub expires_at: Timestamp,
    /// Whether it waits on when the call that asked has ended.
    pub outlives: bool,
    /// What the gateway needs to go on; nothing here reads it.
    pub about: serde_json::Value,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("id", &self.id).field("target", &self.target).finish_non_exhaustive()
    }
}

/// A yes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Vote {
    /// Who, for the record.
    pub approver: String,
    /// Who, as the credential says it: one operator has one, whatever name they give.
    pub identity: String,
    /// When.
    #[serde(with = "micros")]
    pub at: Timestamp,
    /// Why, in their words.
    pub reason: Option<String>,
    /// The event that records it.
    pub event: Option<uuid::Uuid>,
}

/// How an approval stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It needs more.
    Waiting,
    /// It may be claimed.
    Approved,
}

/// An approval that has not ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Approval {
    /// What was asked.
    pub request: Request,
    /// Who has said yes, in that order.
    pub votes: Vec<Vote>,
}

impl Approval {
    /// Whether everybody has said yes who must.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let met = |need: &Need| {
            let counted: BTreeSet<&str> =
                self.votes.iter().filter(|vote| may(need, vote)).map(|v| &*v.identity).collect();
            counted.len() >= need.quorum as usize
        };
        if self.request.needs.iter().all(met) { Standing::Approved } else { Standing::Waiting }
    }

    /// How many different people have said yes, and how many it takes at least.
    #[must_use]
    pub fn counted(&self) -> (u32, u32) {
        let given: BTreeSet<&str> = self.votes.iter().map(|vote| vote.identity.as_str()).collect();
        let wanted = self.request.needs.iter().map(|need| need.quorum).max().unwrap_or(1);
        (given.len() as u32, wanted)
    }

    /// Whether a yes of that operator's would count for anything.
    #[must_use]
    pub fn wants(&self, vote: &Vote) -> bool {
        self.request.needs.iter().any(|need| may(need, vote))
    }
}

fn may(need: &Need, vote: &Vote) -> bool {
    need.approvers.is_empty() || need.approvers.contains(&vote.identity)
}

/// Times on disk: microseconds of the Unix epoch.
mod micros {
    use cairn_clock::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(at.as_micros())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        u64::deserialize(from).map(Timestamp::from_micros)
    }
}
