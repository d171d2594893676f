//! Whether a payload is durable: what a strict call waits for.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::VaultError;

const PENDING: u8 = 0;
const DURABLE: u8 = 1;
const FAILED: u8 = 2;

#[derive(Debug, Default)]
struct Inner {
    state: AtomicU8,
    reason: Mutex<String>,
    notify: Notify,
}

/// A payload on its way to the disk. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Ticket(Arc<Inner>);

impl Ticket {
    /// Waits until the payload is on stable storage.
    ///
    /// # Errors
    /// It could not be written.
    pub async fn durable(&self) -> Result<(), VaultError> {
        loop {
            let notified = self.0.notify.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            match self.0.state.load(Ordering::Acquire) {
                PENDING => notified.await,
                DURABLE => return Ok(()),
                _ => return Err(VaultError::NotWritten { reason: self.0.reason.lock().clone() }),
            }
        }
    }

    pub(crate) fn is_pending(&self) -> bool {
        self.0.state.load(Ordering::Acquire) == PENDING
    }

    pub(crate) fn is_failed(&self) -> bool {
        self.0.state.load(Ordering::Acquire) == FAILED
    }

    pub(crate) fn done(&self) {
        self.0.state.store(DURABLE, Ordering::Release);
        self.0.notify.notify_waiters();
    }

    pub(crate) fn fail(&self, reason: &str) {
        reason.clone_into(&mut self.0.reason.lock());
        self.0.state.store(FAILED, Ordering::Release);
        self.0.notify.notify_waiters();
    }
}
