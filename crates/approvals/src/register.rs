//! All approvals that have not ended: asked for once for one binding, voted on, claimed once.
//!
//! Every change is on disk before it counts. Bounded in all and for one principal; how the last ones ended is remembered
//! for those who wait, bounded too. Locks are held over small writes to disk: people are slow, and calls that need nobody
//! never come here.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    path::Path,
    sync::Arc,
};

use cairn_clock::{Entropy, Timestamp};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{Approval, KeepError, Request, Standing, Vote, sealed::Sealed};

/// Approvals that wait at once; a call past it is refused as busy.
pub const APPROVALS_MAX: usize = 1_024;
/// Approvals that one principal may have waiting.
pub const APPROVALS_OF_ONE_MAX: usize = 128;
/// What they may hold in all, in memory and on disk: arguments, and what the gateway keeps of a call.
pub const APPROVALS_BYTES_MAX: usize = 64 << 20;
/// Ends that are remembered.
const ENDED_MAX: usize = 4_096;

/// How an approval ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ended {
    /// A call has taken it.
    Claimed,
    /// Somebody said no.
    Denied {
        /// Who.
        approver: Option<String>,
        /// Why, in their words.
        reason: Option<String>,
    },
    /// Nobody answered in time.
    Expired,
    /// Nobody wants it any more.
    Withdrawn,
}

/// Where an approval stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Status {
    /// It needs more.
    Waiting,
    /// It may be claimed.
    Approved,
    /// It is over.
    Ended(Ended),
    /// Nobody remembers it.
    Unknown,
}

/// What asking led to.
#[derive(Debug)]
pub enum Asked {
    /// It waits from now on.
    New(Approval),
    /// The same was asked before.
    Before(Approval),
}

/// Why nothing more can wait.
#[derive(Debug, thiserror::Error)]
pub enum Full {
    /// There are too many.
    #[error("{limit} approvals wait already")]
    TooMany {
        /// Which bound: of all, or of one principal's.
        setting: &'static str,
        /// The bound.
        limit: usize,
    },
    /// It could not be kept.
    #[error(transparent)]
    NotKept(#[from] KeepError),
}

/// Why a vote does not count.
#[derive(Debug, thiserror::Error)]
pub enum VoteError {
    /// No such approval waits.
    #[error(
        "no call waits under {id}: it was settled, ran out of time, or its client has gone; list what waits with `cairn approve`"
    )]
    Unknown {
        /// The id as given.
        id: String,
    },
    /// It is the voter's own call.
    #[error("{identity} may not approve {id}: it is their own call; somebody else has to look at it")]
    OwnCall {
        /// The id as given.
        id: String,
        /// Who tried.
        identity: String,
    },
    /// The policies name others.
    #[error("{identity} is not among the approvers of {id}: {approvers}")]
    NotAsked {
        /// The id as given.
        id: String,
        /// Who tried.
        identity: String,
        /// Who may.
        approvers: String,
    },
    /// They have voted.
    #[error("{identity} has approved {id} before; it takes {wanted} different approvers and has {given}")]
    Again {
        /// The id as given.
        id: String,
        /// Who tried.
        identity: String,
        /// How many have said yes.
        given: u32,
        /// How many it takes.
        wanted: u32,
    },
    /// It could not be kept, so it does not count.
    #[error("the approval could not be kept, so it does not count: {0}")]
    NotKept(#[from] KeepError),
}

#[derive(Debug, Default)]
struct Inner {
    waiting: BTreeMap<String, Approval>,
    /// What each of them holds.
    weights: BTreeMap<String, usize>,
    ended: BTreeMap<String, Ended>,
    oldest_ended: VecDeque<String>,
    sealed: Option<Sealed>,
}

/// All approvals. Cheap to clone.
#[derive(Clone)]
pub struct Approvals {
    inner: Arc<Mutex<Inner>>,
    changes: Arc<watch::Sender<u64>>,
}

impl fmt::Debug for Approvals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Approvals").field("waiting", &self.len()).finish_non_exhaustive()
    }
}

impl Default for Approvals {
    /// Approvals that a restart forgets.
    fn default() -> Self {
        Self { inner: Arc::default(), changes: Arc::new(watch::Sender::new(0)) }
    }
}

impl Approvals {
    /// The approvals that lie in a folder, sealed under `key`.
    ///
    /// # Errors
    /// Where the folder cannot be made or read.
    pub fn open(folder: &Path, key: &[u8; 32], entropy: Entropy) -> Result<Self, KeepError> {
        let (sealed, waiting) = Sealed::open(folder, key, entropy)?;
        let this = Self::default();
        {
            let mut inner = this.inner.lock();
            inner.sealed = Some(sealed);
            let weighed = |approval: &Approval| (approval.request.id.clone(), weight(&approval.request));
            inner.weights = waiting.iter().map(weighed).collect();
            inner.waiting = waiting.into_iter().map(|approval| (approval.request.id.clone(), approval)).collect();
        }
        Ok(this)
    }

    /// Tells of every change from now on.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn changed(&self) {
        self.changes.send_modify(|version| *version += 1);
    }

    /// Waits for approval from now on, or finds what waits for the same already.
    ///
    /// # Errors
    /// Where too many wait, or it cannot be kept.
    pub fn ask(&self, request: Request, now: Timestamp) -> Result<Asked, Full> {
        let mut inner = self.inner.lock();
        if let Some(before) = inner.find(&request.binding, now) {
            return Ok(Asked::Before(before.clone()));
        }
        if inner.waiting.len() >= APPROVALS_MAX {
            return Err(Full::TooMany { setting: "approvals_max", limit: APPROVALS_MAX });
        }
        let own = |approval: &&Approval| {
            approval.request.principal == request.principal && approval.request.tenant == request.tenant
        };
        if inner.waiting.values().filter(own).count() >= APPROVALS_OF_ONE_MAX {
            return Err(Full::TooMany { setting: "approvals_of_one_max", limit: APPROVALS_OF_ONE_MAX });
        }
        let more = weight(&request);
        if inner.weights.values().sum::<usize>() + more > APPROVALS_BYTES_MAX {
            return Err(Full::TooMany { setting: "approvals_bytes_max", limit: APPROVALS_BYTES_MAX });
        }
        let approval = Approval { request, votes: Vec::new() };
        inner.put(&approval)?;
        inner.weights.insert(approval.request.id.clone(), more);
        inner.waiting.insert(approval.request.id.clone(), approval.clone());
        drop(inner);
        self.changed();
        Ok(Asked::New(approval))
    }

    /// What waits for exactly this.
    #[must_use]
    pub fn find(&self, binding: &str, now: Timestamp) -> Option<Approval> {
        self.inner.lock().find(binding, now).cloned()
    }

    /// Whether a yes would count, before it is recorded.
    ///
    /// # Errors
    /// [`VoteError`], which says why not.
    pub fn weigh(&self, id: &str, vote: &Vote) -> Result<Approval, VoteError> {
        let inner = self.inner.lock();
        let approval = inner.waiting.get(id).filter(|approval| approval.request.expires_at > vote.at);
        let approval = approval.ok_or_else(|| VoteError::Unknown { id: id.to_owned() })?;
        let (id, identity) = (id.to_owned(), vote.identity.clone());
        if is_own(&approval.request, vote) {
            return Err(VoteError::OwnCall { id, identity });
        }
        if !approval.wants(vote) {
            let named = approval.request.needs.iter().flat_map(|need| &need.approvers);
            let mut approvers: Vec<&str> = named.map(String::as_str).collect();
            approvers.sort_unstable();
            approvers.dedup();
            return Err(VoteError::NotAsked { id, identity, approvers: approvers.join(", ") });
        }
        if approval.standing() == Standing::Approved {
            return Err(VoteError::Unknown { id });
        }
        if approval.votes.iter().any(|given| given.identity == vote.identity) {
            let (given, wanted) = approval.counted();
            return Err(VoteError::Again { id, identity, given, wanted });
        }
        Ok(approval.clone())
    }

    /// Counts a yes.
    ///
    /// # Errors
    /// [`VoteError`], which says why it does not count.
    pub fn count(&self, id: &str, vote: Vote) -> Result<Approval, VoteError> {
        let mut approval = self.weigh(id, &vote)?;
        approval.votes.push(vote);
        {
            let mut inner = self.inner.lock();
            // What ended meanwhile stays ended.
            if !inner.waiting.contains_key(id) {
                return Err(VoteError::Unknown { id: id.to_owned() });
            }
            inner.put(&approval)?;
            inner.waiting.insert(id.to_owned(), approval.clone());
        }
        self.changed();
        Ok(approval)
    }

    /// Takes an approval for exactly this, where everybody has said yes: it counts no more.
    ///
    /// # Errors
    /// Where it cannot be taken from the disk: then it was not taken.
    pub fn claim(&self, binding: &str, now: Timestamp) -> Result<Option<Approval>, KeepError> {
        let mut inner = self.inner.lock();
        let ready = |approval: &&Approval| {
            approval.request.binding == binding
                && approval.request.expires_at > now
                && approval.standing() == Standing::Approved
        };
        let Some(id) = inner.waiting.values().find(ready).map(|approval| approval.request.id.clone()) else {
            return Ok(None);
        };
        let claimed = inner.end(&id, Ended::Claimed)?;
        drop(inner);
        self.changed();
        Ok(claimed)
    }

    /// Ends an approval; gives it where it had not ended.
    ///
    /// # Errors
    /// Where it cannot be taken from the disk: then it has not ended.
    pub fn end(&self, id: &str, how: Ended) -> Result<Option<Approval>, KeepError> {
        let ended = self.inner.lock().end(id, how)?;
        if ended.is_some() {
            self.changed();
        }
        Ok(ended)
    }

    /// Ends those whose time is over, and gives them.
    ///
    /// # Errors
    /// Where one cannot be taken from the disk.
    pub fn expire(&self, now: Timestamp) -> Result<Vec<Approval>, KeepError> {
        let mut over = Vec::new();
        {
            let mut inner = self.inner.lock();
            let late = |approval: &&Approval| approval.request.expires_at <= now;
            let ids: Vec<String> = inner.waiting.values().filter(late).map(|one| one.request.id.clone()).collect();
            for id in ids {
                over.extend(inner.end(&id, Ended::Expired)?);
            }
        }
        if !over.is_empty() {
            self.changed();
        }
        Ok(over)
    }

    /// Where an approval stands.
    #[must_use]
    pub fn status(&self, id: &str) -> Status {
        let inner = self.inner.lock();
        match (inner.waiting.get(id).map(Approval::standing), inner.ended.get(id)) {
            (Some(Standing::Waiting), _) => Status::Waiting,
            (Some(Standing::Approved), _) => Status::Approved,
            (None, Some(ended)) => Status::Ended(ended.clone()),
            (None, None) => Status::Unknown,
        }
    }

    /// One that has not ended.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Approval> {
        self.inner.lock().waiting.get(id).cloned()
    }

    /// What has not ended, oldest first.
    #[must_use]
    pub fn all(&self) -> Vec<Approval> {
        let mut all: Vec<_> = self.inner.lock().waiting.values().cloned().collect();
        all.sort_by(|a, b| (a.request.requested_at, &a.request.id).cmp(&(b.request.requested_at, &b.request.id)));
        all
    }

    /// How many have not ended.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.lock().waiting.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Inner {
    fn find(&self, binding: &str, now: Timestamp) -> Option<&Approval> {
        let mut waiting = self.waiting.values();
        waiting.find(|approval| approval.request.binding == binding && approval.request.expires_at > now)
    }

    fn put(&self, approval: &Approval) -> Result<(), KeepError> {
        self.sealed.as_ref().map_or(Ok(()), |sealed| sealed.put(approval))
    }

    fn end(&mut self, id: &str, how: Ended) -> Result<Option<Approval>, KeepError> {
        if !self.waiting.contains_key(id) {
            return Ok(None);
        }
        if let Some(sealed) = &self.sealed {
            sealed.remove(id)?;
        }
        if self.ended.insert(id.to_owned(), how).is_none() {
            self.oldest_ended.push_back(id.to_owned());
        }
        if self.oldest_ended.len() > ENDED_MAX
            && let Some(oldest) = self.oldest_ended.pop_front()
        {
            self.ended.remove(&oldest);
        }
        self.weights.remove(id);
        Ok(self.waiting.remove(id))
    }
}

/// What a request holds, in bytes; names are short beside it.
fn weight(request: &Request) -> usize {
    request.arguments.len() + request.about.to_string().len()
}

/// Whether it is the voter's own call. Names that were never verified are nobody's: the local user and whoever holds the
/// operator's token on the same machine may well be one person, and only the token tells an agent from them.
fn is_own(request: &Request, vote: &Vote) -> bool {
    // A principal may be written with what vouches for it before: `key/ada`.
    let last = |name: &str| name.rsplit('/').next().unwrap_or_default().to_owned();
    let same = |name: &str| {
        let own = [&vote.approver, &vote.identity];
        own.iter().any(|own| own.eq_ignore_ascii_case(name) || own.eq_ignore_ascii_case(&last(name)))
    };
    request.verified && (same(&request.principal) || request.agent.as_deref().is_some_and(same))
}

#[cfg(test)]
mod tests;
