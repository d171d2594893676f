//! Puts write-ahead objects, shows them, and acknowledges them, in the order in which the writer made them. Runs where the store is
//! the write-ahead log (`wal = "object"`); called by `log`, fed by `writer`.
//!
//! Several objects are on their way at once, and one is shown only when all before it have landed. The name of each is given, so
//! a put that is refused is settled by reading: the very bytes are there (an answer was lost), or a fence is (another owns the log,
//! and nothing is acknowledged any more). Any other failure is tried again for ever: the queue before it fills, and
//! its senders are told why.

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream::FuturesOrdered};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    StoreError,
    open::Shared,
    wal::HEAD_BYTES,
    wal_object::{self, Found, WalId},
    writer::{self, Landed, Ordered, Visible},
};

/// Objects that are put beside each other.
const PUTS_MAX: usize = 4;
/// Objects that wait behind them.
pub(crate) const FLIGHTS_MAX: usize = 1;
/// Waits between attempts while the store is away.
const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_LAST: Duration = Duration::from_secs(1);

/// A group on its way to the store.
#[derive(Debug)]
pub(crate) struct Flight {
    /// The object: its name, its position in the log and its bytes. Nothing where the group has nothing to keep.
    pub(crate) object: Option<(WalId, u64, Bytes)>,
    pub(crate) visible: Vec<Visible>,
    pub(crate) ordered: Vec<Ordered>,
    pub(crate) closing: Option<oneshot::Sender<()>>,
}

/// The lander's own state.
#[derive(Debug)]
pub(crate) struct Lander {
    pub(crate) shared: Arc<Shared>,
    pub(crate) flights: mpsc::Receiver<Flight>,
}

type Put = Pin<Box<dyn Future<Output = (Flight, Result<(), StoreError>)> + Send>>;

impl Lander {
    /// Lands what comes, until the writer has ended and all has landed, or `stop` says that there is nobody to answer to.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) {
        let stopped = async {
            let _ = stop.wait_for(|stop| *stop).await;
        };
        tokio::select! {
            biased;
            () = self.land() => {}
            () = stopped => {}
        }
    }

    /// Lands what comes, until the writer has ended.
    pub(crate) async fn land(mut self) {
        let (mut puts, mut has_ended) = (FuturesOrdered::<Put>::new(), false);
        while !has_ended || !puts.is_empty() {
            tokio::select! {
                biased;
                Some((flight, put)) = puts.next(), if !puts.is_empty() => {
                    // What is on its way behind one that failed may land beyond the fence, and is not acknowledged either.
                    if put.is_ok() { self.landed(flight) } else { self.refuse(flight) }
                }
                flight = self.flights.recv(), if !has_ended && puts.len() < PUTS_MAX => match flight {
                    Some(flight) => puts.push_back(Box::pin(put(self.shared.clone(), flight))),
                    None => has_ended = true,
                },
            }
        }
    }

    /// Shows a group whose object is durable, and all before it, and acknowledges it.
    fn landed(&self, flight: Flight) {
        if self.shared.fenced().is_some() {
            self.refuse(flight);
            return;
        }
        let landed = flight.object.map(|(id, position, bytes)| {
            self.shared.is_ours_now();
            let end = position + bytes.len() as u64;
            let frames = bytes.slice(HEAD_BYTES..);
            let segment = wal_object::segment(id, position, bytes);
            Landed { groups: vec![(position + HEAD_BYTES as u64, frames)], segment: Some(segment), end }
        });
        writer::show(&self.shared, landed, flight.visible);
        for Ordered { results, reply } in flight.ordered {
            let _ = reply.send(Ok(results));
        }
        if let Some(closing) = flight.closing {
            let _ = closing.send(());
        }
    }

    fn refuse(&self, flight: Flight) {
        if let Some(fenced) = self.shared.fenced() {
            for Ordered { reply, .. } in flight.ordered {
                let _ = reply.send(Err(fenced.clone()));
            }
        }
        if let Some(closing) = flight.closing {
            let _ = closing.send(());
        }
    }
}

/// Puts a flight's object; returns when it is durable, or when it never will be.
async fn put(shared: Arc<Shared>, flight: Flight) -> (Flight, Result<(), StoreError>) {
    let Some((id, _, bytes)) = &flight.object else { return (flight, Ok(())) };
    let (id, bytes) = (*id, bytes.clone());
    let mut wait = RETRY_FIRST;
    let mut failed = false;
    loop {
        if let Some(crate::AppendError::Fenced { epoch }) = shared.fenced() {
            return (flight, Err(StoreError::Fenced { epoch }));
        }
        let error = match attempt(&shared, id, &bytes).await {
            Ok(()) => {
                if failed {
                    *shared.trouble.lock() = None;
                }
                return (flight, Ok(()));
            }
            Err(error @ StoreError::Fenced { epoch }) => {
                shared.fence(epoch);
                return (flight, Err(error));
            }
            Err(error) => error,
        };
        failed = true;
        if shared.trouble.lock().replace(error.to_string()).is_none() {
            tracing::warn!(%error, object = %id, "an append did not reach the object store and is tried again");
        }
        shared.pause(wait).await;
        wait = (wait * 2).min(RETRY_LAST);
    }
}

async fn attempt(shared: &Shared, id: WalId, bytes: &Bytes) -> Result<(), StoreError> {
    let store = shared.options.store.as_ref();
    let Err(error) = store.put(&id.name(), bytes.clone()).await else { return Ok(()) };
    let StoreError::Exists { .. } = error else { return Err(error) };
    let there = store.get_all(&id.name()).await?;
    if there == *bytes {
        return Ok(()); // it had landed, and its answer was lost
    }
    match wal_object::inspect(&there, shared.log, id) {
        Some(Found::Fence(epoch)) => Err(StoreError::Fenced { epoch }),
        // Nobody else has this epoch, unless the store gave its head away twice.
        _ => Err(StoreError::Fenced { epoch: shared.epoch }),
    }
}
