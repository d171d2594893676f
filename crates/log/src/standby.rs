//! Standing by: whose the store is, and when it is somebody else's turn. Called by whoever runs several openers on one bucket, of
//! which one at a time has it.
//!
//! The owner changes the head at least every `beat_interval`. One that stands still for [`TAKE_OVER_AFTER`], by the clock of who
//! looks, is taken for gone; sooner, where the owner does not answer any more either, or nobody listens where it did ([`Sight`]). That is
//! a guess, and safe all the same: who opens takes the head and fences, and an owner that was only slow is refused from then on. Clocks
//! give speed here, never safety.

use std::time::Duration;

use tokio::{sync::watch, time::Instant};

use crate::{StoreError, index::HeadRecord, store::Store};

/// How often the owner beats where others stand by.
pub const BEAT_INTERVAL: Duration = Duration::from_secs(2);
/// A head that has not changed for so long has lost its owner.
pub const TAKE_OVER_AFTER: Duration = Duration::from_secs(6);
/// The same where its owner was asked and does not answer any more: it is silent in two places.
pub const TAKE_OVER_AFTER_MUTE: Duration = Duration::from_secs(4);
/// The same where nobody listens any more where its owner did: a beat is overdue.
pub const TAKE_OVER_AFTER_GONE: Duration = Duration::from_secs(3);
/// How often it is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// The same, for a while, once nobody listens: an owner that ends says so soon.
const LOOK_INTERVAL_GONE: Duration = Duration::from_millis(50);
const GONE_LOOKS_MAX: u32 = 100;

/// What somebody who looks at the owner itself, and not at the store, sees of it. None of it decides who has the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Sight {
    /// It answers, or nothing can be said.
    #[default]
    Open,
    /// It took what it was asked, and has not answered for some seconds: it sleeps, or its machine or the network between is gone.
    Mute,
    /// Nobody listens where it did.
    Gone,
}

/// Who has a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ownership {
    /// The owner's epoch.
    pub epoch: u32,
    /// Who it is, in its own words ([`crate::LogOptions::owner`]).
    pub owner: u32,
    /// It ended, and the store has all that it acknowledged.
    pub is_closed: bool,
}

/// Whose a store is; nobody's, where it is new.
///
/// # Errors
/// Where the store does not answer, or its head is damaged.
pub async fn ownership(store: &dyn Store) -> Result<Option<Ownership>, StoreError> {
    Ok(look(store).await?.map(|head| head.0))
}

async fn look(store: &dyn Store) -> Result<Option<(Ownership, HeadRecord)>, StoreError> {
    let Some(head) = store.head().await? else { return Ok(None) };
    let head = HeadRecord::decode(&head.bytes).ok_or_else(|| StoreError::Damaged {
        name: "head".to_owned(),
        what: "it is not one that this version writes".to_owned(),
    })?;
    let HeadRecord { epoch, owner, is_closed, .. } = head;
    Ok(Some((Ownership { epoch, owner, is_closed }, head)))
}

/// Waits until the store has no owner, as far as can be told: it is new, its owner ended, is `own` itself (an earlier life of it), or
/// is silent. Tells `seen` who has it whenever that changes. `sight` is what can be seen of the owner itself: that alone
/// proves nothing, and shortens the wait. A store that does not answer says nothing: it is asked again.
pub async fn await_turn(
    store: &dyn Store,
    own: u32,
    sight: watch::Receiver<Sight>,
    mut seen: impl FnMut(Ownership),
) -> Option<Ownership> {
    let mut last: Option<(HeadRecord, Instant)> = None;
    let mut looks = Looks { sight, hurried: 0 };
    let mut is_away = false;
    loop {
        match tokio::time::timeout(TAKE_OVER_AFTER, look(store)).await {
            Ok(Ok(None)) => return None,
            Ok(Ok(Some((owner, head)))) => {
                is_away = false;
                if owner.is_closed || owner.owner == own {
                    return Some(owner);
                }
                let now = Instant::now();
                match &last {
                    Some((before, since)) if *before == head => {
                        if now - *since >= looks.silence_max() {
                            return Some(owner);
                        }
                    }
                    before => {
                        let known = before.as_ref().map(|(head, _)| (head.epoch, head.owner));
                        if known != Some((head.epoch, head.owner)) {
                            seen(owner);
                        }
                        last = Some((head, now));
                    }
                }
            }
            Ok(Err(error)) => {
                if !std::mem::replace(&mut is_away, true) {
                    tracing::warn!(%error, "the object store does not say who has it, and is asked again");
                }
                last = None; // silence of the store is not the owner's
            }
            Err(_) => last = None,
        }
        looks.pause(last.as_ref().map(|(_, since)| *since)).await;
    }
}

/// When the head is looked at.
struct Looks {
    sight: watch::Receiver<Sight>,
    /// Looks in a hurry since the owner's place was found empty.
    hurried: u32,
}

impl Looks {
    /// How long a head may stand still.
    fn silence_max(&self) -> Duration {
        match *self.sight.borrow() {
            Sight::Open => TAKE_OVER_AFTER,
            Sight::Mute => TAKE_OVER_AFTER_MUTE,
            Sight::Gone => TAKE_OVER_AFTER_GONE,
        }
    }

    /// Waits until it is to be looked at again: at the latest when a head that has not changed since then has stood still for too long.
    async fn pause(&mut self, since: Option<Instant>) {
        let now = Instant::now();
        let is_gone = *self.sight.borrow_and_update() == Sight::Gone;
        self.hurried = if is_gone { (self.hurried + 1).min(GONE_LOOKS_MAX) } else { 0 };
        let hurries = is_gone && self.hurried < GONE_LOOKS_MAX;
        let next = now + if hurries { LOOK_INTERVAL_GONE } else { LOOK_INTERVAL };
        let over = since.map(|since| since + self.silence_max()).filter(|over| *over > now);
        let changed = async {
            if self.sight.changed().await.is_err() {
                std::future::pending::<()>().await; // nobody is left to say so
            }
        };
        tokio::select! {
            () = changed => {}
            () = tokio::time::sleep_until(over.map_or(next, |over| over.min(next))) => {}
        }
    }
}
