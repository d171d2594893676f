//! Calls that wait for a person (step 6 of the life of a call).
//!
//! A hold is asked for by the life of a call and settled from outside: approved, denied, or not at all in time. The
//! settlement is handed to the waiting call, which records it and only then says that it counts; so an approval that
//! comes after the client has gone, or after the time ran out, is answered as such and forwards nothing.

use std::{collections::BTreeMap, fmt, sync::Arc};

use cairn_clock::Timestamp;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Holds that wait at once; a call past it is refused as busy.
pub const HOLDS_MAX: usize = 1_024;

/// What an approver sees. The arguments are exactly what will be forwarded, and never leave memory this way.
#[derive(Clone)]
pub struct HoldView {
    /// The hold's id: what `cairn approve` takes.
    pub id: String,
    /// Who asks.
    pub principal: String,
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
    /// The call.
    pub call_id: String,
    /// The policy version that asks for approval.
    pub policy_version: String,
    /// Digest over everything that the approval binds.
    pub binding: String,
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// When it ends by itself.
    pub expires_at: Timestamp,
}

impl fmt::Debug for HoldView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HoldView").field("id", &self.id).field("target", &self.target).finish_non_exhaustive()
    }
}

/// What an approver decided.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// Yes or no.
    pub approve: bool,
    /// Who.
    pub approver: String,
    /// Why, in the approver's words.
    pub reason: Option<String>,
}

/// Why a settlement did not count.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SettleError {
    /// No such hold waits: never did, ended, or was settled before.
    #[error(
        "no call waits under {id}: it was settled, ran out of time, or its client has gone; list what waits with `cairn approve`"
    )]
    Unknown {
        /// The id as given.
        id: String,
    },
    /// The settlement could not be recorded, so the call was not forwarded.
    #[error("the approval could not be recorded, so nothing was forwarded: {reason}")]
    NotRecorded {
        /// Why.
        reason: String,
    },
}

/// A settlement on its way to the waiting call, which must say whether it counts.
#[derive(Debug)]
pub(crate) struct Settled {
    pub(crate) settlement: Settlement,
    answer: oneshot::Sender<Result<(), SettleError>>,
}

impl Settled {
    /// Tells the approver that the settlement is recorded, or why not.
    pub(crate) fn answer(self, result: Result<(), SettleError>) {
        // An approver that went away has nothing left to hear.
        let _ = self.answer.send(result);
    }
}

#[derive(Debug)]
struct Waiting {
    view: HoldView,
    settle: oneshot::Sender<Settled>,
}

/// All calls that wait for approval. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Holds(Arc<Mutex<BTreeMap<String, Waiting>>>);

/// One call's place among the holds; dropping it ends the hold.
#[derive(Debug)]
pub(crate) struct Held {
    id: String,
    holds: Holds,
    settled: oneshot::Receiver<Settled>,
}

impl Held {
    /// Waits for a settlement. Never ends by itself: the caller races it against time and the client.
    pub(crate) async fn settled(&mut self) -> Settled {
        match (&mut self.settled).await {
            Ok(settled) => settled,
            // The sender lives in the map until it is used or this value is dropped.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.holds.0.lock().remove(&self.id);
    }
}

impl Holds {
    /// Places a hold, or refuses because [`HOLDS_MAX`] wait.
    pub(crate) fn place(&self, view: HoldView) -> Option<Held> {
        let (settle, settled) = oneshot::channel();
        let id = view.id.clone();
        let mut waiting = self.0.lock();
        if waiting.len() >= HOLDS_MAX {
            return None;
        }
        waiting.insert(id.clone(), Waiting { view, settle });
        Some(Held { id, holds: self.clone(), settled })
    }

    /// What waits, oldest first.
    #[must_use]
    pub fn waiting(&self) -> Vec<HoldView> {
        let mut views: Vec<_> = self.0.lock().values().map(|waiting| waiting.view.clone()).collect();
        views.sort_by_key(|view| view.requested_at);
        views
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Settles a hold; returns when the settlement is recorded.
    ///
    /// # Errors
    /// [`SettleError`] where the hold is no more or the settlement could not be recorded.
    pub async fn settle(&self, id: &str, settlement: Settlement) -> Result<(), SettleError> {
        let unknown = || SettleError::Unknown { id: id.to_owned() };
        let waiting = self.0.lock().remove(id).ok_or_else(unknown)?;
        let (answer, answered) = oneshot::channel();
        waiting.settle.send(Settled { settlement, answer }).map_err(|_| unknown())?;
        answered.await.map_err(|_| unknown())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(id: &str) -> HoldView {
        HoldView {
            id: id.to_owned(),
            principal: "ada".to_owned(),
            server: "orders".to_owned(),
            method: "tools/call".to_owned(),
            target: "refund_order".to_owned(),
            arguments: "{}".to_owned(),
            workflow_id: "w".to_owned(),
            call_id: "c".to_owned(),
            policy_version: "v".to_owned(),
            binding: "b".to_owned(),
            requested_at: Timestamp::from_micros(1),
            expires_at: Timestamp::from_micros(2),
        }
    }

    fn yes() -> Settlement {
        Settlement { approve: true, approver: "grace".to_owned(), reason: None }
    }

    #[tokio::test]
    async fn a_settlement_counts_once() {
        let holds = Holds::default();
        let mut held = holds.place(view("a")).expect("room");
        let settling = tokio::spawn({
            let holds = holds.clone();
            async move { holds.settle("a", yes()).await }
        });
        let settled = held.settled().await;
        assert!(settled.settlement.approve);
        settled.answer(Ok(()));
        assert_eq!(settling.await.expect("no panic"), Ok(()));
        assert!(matches!(holds.settle("a", yes()).await, Err(SettleError::Unknown { .. })));
    }

    #[tokio::test]
    async fn a_hold_that_ended_cannot_be_approved() {
        let holds = Holds::default();
        drop(holds.place(view("a")).expect("room"));
        assert!(matches!(holds.settle("a", yes()).await, Err(SettleError::Unknown { .. })));
        assert!(holds.is_empty());
    }

    #[tokio::test]
    async fn a_settlement_that_the_call_never_took_does_not_count() {
        let holds = Holds::default();
        let held = holds.place(view("a")).expect("room");
        let settling = tokio::spawn({
            let holds = holds.clone();
            async move { holds.settle("a", yes()).await }
        });
        tokio::task::yield_now().await;
        drop(held); // the client went away between the settlement and its record
        assert!(matches!(settling.await.expect("no panic"), Err(SettleError::Unknown { .. })));
    }
}
