//! The only hand that writes to a child's stdin. Called by the link and by the reader, which answers requests that
//! nobody takes. Guarantees that lines never mix, that a caller who gives up cannot cut one short, and that the caller
//! learns whether any byte was written.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::{mpsc, oneshot},
};
use tokio_util::sync::CancellationToken;

use crate::{Limits, LinkError, LinkFault, link::queue};

/// Whether a line was begun is decided once, by whoever is first: the writer or the caller who gives up.
const WAITING: u8 = 0;
const BEGUN: u8 = 1;
const WITHDRAWN: u8 = 2;

pub(super) struct Line {
    bytes: Bytes,
    state: Arc<AtomicU8>,
    done: oneshot::Sender<Result<(), LinkError>>,
}

#[derive(Clone, Debug)]
pub(super) struct Writer(mpsc::Sender<Line>);

/// Withdraws a line whose caller has gone, unless it was begun.
struct Withdrawal<F: FnOnce()> {
    state: Arc<AtomicU8>,
    unbegun: Option<F>,
}

impl<F: FnOnce()> Withdrawal<F> {
    /// True where the line was never begun and never will be.
    fn withdraw(&mut self) -> bool {
        let before = self.state.compare_exchange(WAITING, WITHDRAWN, Ordering::SeqCst, Ordering::SeqCst);
        let unbegun = before != Err(BEGUN);
        if let Some(tell) = self.unbegun.take().filter(|_| unbegun) {
            tell();
        }
        unbegun
    }
}

impl<F: FnOnce()> Drop for Withdrawal<F> {
    fn drop(&mut self) {
        self.withdraw();
    }
}

impl Writer {
    pub(super) fn new(limits: &Limits) -> (Self, mpsc::Receiver<Line>) {
        let (sender, receiver) = mpsc::channel(queue(limits));
        (Self(sender), receiver)
    }

    /// Writes one line. `unbegun` runs where no byte of it was written or will be, also if this future is dropped.
    pub(super) async fn write<F: FnOnce()>(&self, bytes: Bytes, unbegun: F) -> Result<(), LinkError> {
        let state = Arc::new(AtomicU8::new(WAITING));
        let mut withdrawal = Withdrawal { state: Arc::clone(&state), unbegun: Some(unbegun) };
        let (done, written) = oneshot::channel();
        let sent = self.0.send(Line { bytes, state, done }).await;
        let outcome = match sent {
            Ok(()) => written.await,
            Err(_) => return Err(LinkError::not_sent(LinkFault::Closed)),
        };
        match outcome {
            Ok(Ok(())) => {
                withdrawal.unbegun = None;
                Ok(())
            }
            Ok(Err(error)) => Err(error),
            // The writer is gone and has dropped the line.
            Err(_) if withdrawal.withdraw() => Err(LinkError::not_sent(LinkFault::Closed)),
            Err(_) => Err(LinkError::lost(LinkFault::Closed)),
        }
    }

    /// Writes a line that nobody waits for; where the queue is full it is dropped, because whoever reads the child's
    /// output must never wait for its input.
    pub(super) fn write_unheeded(&self, bytes: Bytes) -> bool {
        let (done, _) = oneshot::channel();
        self.0.try_send(Line { bytes, state: Arc::new(AtomicU8::new(WAITING)), done }).is_ok()
    }
}

/// Writes lines until `ending`; then the pipe closes, which tells the server to end.
pub(super) async fn write_lines(
    mut stdin: impl AsyncWrite + Unpin,
    mut lines: mpsc::Receiver<Line>,
    ending: CancellationToken,
) {
    loop {
        let line = tokio::select! {
            biased;
            () = ending.cancelled() => break,
            line = lines.recv() => line,
        };
        let Some(line) = line else { break };
        if line.state.compare_exchange(WAITING, BEGUN, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            continue;
        }
        let outcome = write_line(&mut stdin, &line.bytes, &line.state, &ending).await;
        let failed = outcome.is_err();
        // The caller may have gone; the line is written all the same.
        let _ = line.done.send(outcome);
        if failed {
            // A child that reads no more can be told nothing: it ends, and the next call gets another.
            ending.cancel();
            break;
        }
    }
}

async fn write_line(
    stdin: &mut (impl AsyncWrite + Unpin),
    bytes: &Bytes,
    state: &AtomicU8,
    ending: &CancellationToken,
) -> Result<(), LinkError> {
    let mut framed = Vec::with_capacity(bytes.len() + 1);
    framed.extend_from_slice(bytes);
    framed.push(b'\n');
    let mut written = 0;
    let cause = loop {
        if written == framed.len() {
            break match stdin.flush().await {
                Ok(()) => return Ok(()),
                Err(error) => LinkFault::Broken { reason: error.to_string() },
            };
        }
        tokio::select! {
            wrote = stdin.write(&framed[written..]) => match wrote {
                Ok(0) => break LinkFault::Closed,
                Ok(count) => written += count,
                Err(error) => break LinkFault::Broken { reason: error.to_string() },
            },
            () = ending.cancelled() => break LinkFault::Closed,
        }
    };
    if written == 0 {
        // Nothing left this process, so the caller takes the line back.
        state.store(WITHDRAWN, Ordering::SeqCst);
        return Err(LinkError::not_sent(cause));
    }
    Err(LinkError::lost(cause))
}
