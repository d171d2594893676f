//! Who has the log now, where this broker was replaced. Called by the hints to clients.
//!
//! The store says so, and is asked seldom: a client that hears nothing finds out by itself.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::{broker::Broker, options::Peer};

/// How long the store may take to say it, and how long it is left alone when it did not.
const LOOK_LIMIT: Duration = Duration::from_secs(1);

/// What is known of it.
#[derive(Debug, Default)]
pub(crate) struct Successor(tokio::sync::Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    found: Option<(Peer, i32)>,
    tried: Option<Instant>,
}

impl Broker {
    /// The broker that has the log now, with its leader epoch; none where this one has it, or where that is not known.
    pub(crate) async fn successor(&self) -> Option<(Peer, i32)> {
        if !self.inner.log.is_fenced() {
            return None;
        }
        let mut known = self.inner.successor.0.lock().await;
        let is_due = known.tried.is_none_or(|tried| tried.elapsed() >= LOOK_LIMIT);
        if known.found.is_none() && is_due {
            let owner = timeout(LOOK_LIMIT, self.inner.log.successor()).await.ok().flatten();
            known.tried = Some(Instant::now());
            known.found = owner.and_then(|owner| {
                let id = i32::try_from(owner.owner).ok()?;
                let peer = self.inner.options.peers.iter().find(|peer| peer.id == id)?;
                Some((peer.clone(), i32::try_from(owner.epoch).ok()?))
            });
        }
        known.found.clone()
    }
}
