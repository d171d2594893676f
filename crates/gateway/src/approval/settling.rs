//! The people's side: a yes or a no, recorded before it counts.
//!
//! Called by the operators' API, which says who it is. One at a time, so that what is recorded and what counts agree;
//! people are slow. Must never let a caller approve its own call, or one person count twice.

use cairn_approvals::{Approval, Ended, Standing, Vote, VoteError};
use cairn_contract::ApprovalState;
use cairn_identity::{Credential as CredentialKind, Identity, Kind, Reason, Rejection};

use crate::Gateway;

/// What an operator decided.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// Yes or no.
    pub approve: bool,
    /// Who, for the record.
    pub approver: String,
    /// Who, as the credential says it.
    pub identity: String,
    /// Why, in the operator's words.
    pub reason: Option<String>,
}

/// What became of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Settled {
    /// Everybody has said yes who must.
    Approved,
    /// More have to say yes.
    Counted {
        /// How many have.
        given: u32,
        /// How many it takes at least.
        wanted: u32,
    },
    /// Somebody said no.
    Denied,
}

/// Why a settlement did not count.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// The vote does not count.
    #[error(transparent)]
    Vote(#[from] VoteError),
    /// The settlement could not be recorded, so the call was not forwarded.
    #[error("the approval could not be recorded, so nothing was forwarded: {reason}")]
    NotRecorded {
        /// Why.
        reason: String,
    },
}

impl Gateway {
    /// Settles an approval; returns when that is recorded and counts.
    ///
    /// # Errors
    /// [`SettleError`] where it does not count.
    pub async fn settle(&self, id: &str, settlement: Settlement) -> Result<Settled, SettleError> {
        let _settling = self.settling().lock().await;
        self.expire_approvals()?;
        let Settlement { approve, approver, identity, reason } = settlement;
        let mut vote = Vote { approver, identity, at: self.clock().now(), reason, event: None };
        if !approve {
            return self.deny(id, vote).await;
        }
        let approval =
            self.approvals().weigh(id, &vote).inspect_err(|error| self.note_refused_vote(error, id, &vote))?;
        vote.event = Some(self.record_vote(&approval, ApprovalState::Approved, &vote).await?);
        let approval = self.approvals().count(id, vote)?;
        if approval.standing() == Standing::Approved {
            self.tell_completed(id).await;
            return Ok(Settled::Approved);
        }
        let (given, wanted) = approval.counted();
        Ok(Settled::Counted { given, wanted })
    }

    async fn deny(&self, id: &str, vote: Vote) -> Result<Settled, SettleError> {
        let unknown = || VoteError::Unknown { id: id.to_owned() };
        let approval = self.approvals().get(id).filter(|approval| approval.standing() == Standing::Waiting);
        let approval = approval.ok_or_else(unknown)?;
        self.record_vote(&approval, ApprovalState::Denied, &vote).await?;
        let how = Ended::Denied { approver: Some(vote.approver), reason: vote.reason };
        let ended = self.approvals().end(id, how).map_err(VoteError::from)?;
        ended.map(|_| Settled::Denied).ok_or_else(|| unknown().into())
    }

    async fn record_vote(
        &self,
        approval: &Approval,
        state: ApprovalState,
        vote: &Vote,
    ) -> Result<uuid::Uuid, SettleError> {
        let body = self.approval_body(approval, state, Some(vote.approver.clone()), vote.reason.clone());
        let planned = self.draft_about(approval, body);
        let id = planned.id;
        let recorded = self.recorder().strict(planned).await;
        recorded.map_err(|error| SettleError::NotRecorded { reason: error.to_string() })?;
        Ok(id)
    }

    /// Ends what nobody answered in time, and records that.
    ///
    /// # Errors
    /// Where the disk does not let it end.
    pub(crate) fn expire_approvals(&self) -> Result<(), VoteError> {
        for approval in self.approvals().expire(self.clock().now())? {
            self.record_about(&approval, ApprovalState::Expired, None, None);
        }
        Ok(())
    }

    /// A vote of somebody who must not vote is an access that was refused.
    fn note_refused_vote(&self, error: &VoteError, id: &str, vote: &Vote) {
        let reason = match error {
            VoteError::OwnCall { .. } => Reason::OwnApproval,
            VoteError::NotAsked { .. } => Reason::NotApprover,
            VoteError::Unknown { .. } | VoteError::Again { .. } | VoteError::NotKept(_) => return,
        };
        let Some(approval) = self.approvals().get(id) else { return };
        self.note_trespass(reason, &operator(&vote.identity), &approval.request.server);
    }

    /// Somebody came to the operators' address whom it does not let in: nobody it knows, or one without the role.
    /// For these the name and the role are given, which stands where scopes stand elsewhere.
    pub fn note_refused_operator(&self, lacks: Option<(&str, &str)>) {
        match lacks {
            Some((name, role)) => {
                let mut rejection = Rejection::of(Reason::RoleMissing, &operator(name));
                rejection.scopes_missing = vec![role.to_owned()];
                self.note_refusal(&rejection, OPERATORS, None);
            }
            None => self.note_refusal(&Rejection::new(Reason::OperatorUnknown, CredentialKind::Token), OPERATORS, None),
        }
    }
}

/// What stands for a server where the operators' own address refused.
const OPERATORS: &str = "cairn:operators";

fn operator(name: &str) -> Identity {
    Identity {
        tenant: None,
        principal: name.to_owned(),
        kind: Kind::User,
        agent: None,
        scopes: None,
        credential: CredentialKind::Token,
    }
}
