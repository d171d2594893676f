//! A server as a child process: one message a line on stdin and stdout (MCP, transports, stdio). Called by the gateway
//! through [`Link`], for a legacy session within a [`KeptLink`] that starts it again.
//!
//! Guarantees: a line is written once and whole or the error says that it may have been; a child that ends, closes its
//! stdout or breaks the framing ends the link, and every call that waits then ends with `Lost` and the end of its
//! stderr; a child whose link is dropped ends, by its own pid, after its stdin was closed and a grace period. Answers that
//! were written before the end are delivered before it. Variables named `CAIRN_*` never reach the child.

mod child;
mod kept;
mod lines;
mod writer;

pub use kept::{KeptLink, Start, Starting};

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    Canceller, Content, Exchange, ForwardHeaders, Frame, Limits, Link, LinkError, LinkFault, Message, Prepared,
    link::OnItsWay,
    router::{Router, cancellation},
    stdio::{
        child::{Pipes, keep, spawn},
        lines::{Tail, keep_tail, read_messages},
        writer::{Writer, write_lines},
    },
};

/// How to start a server.
#[derive(Clone, Default)]
pub struct StdioCommand {
    /// The program, looked up on `PATH`.
    pub command: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Variables set beside those that this process has; none named `CAIRN_*` is passed on.
    pub env: BTreeMap<OsString, OsString>,
    /// Whether those are all that it gets: then nothing of this process's own environment reaches it.
    pub env_clear: bool,
    /// Its working directory; this process's own where absent.
    pub cwd: Option<PathBuf>,
}

/// Arguments and variables often hold secrets, so neither is shown.
impl std::fmt::Debug for StdioCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("StdioCommand");
        out.field("command", &self.command).field("args", &self.args.len()).field("env", &self.env.len());
        out.field("cwd", &self.cwd).finish()
    }
}

/// A child process that speaks MCP on its standard streams.
#[derive(Debug)]
pub struct StdioLink {
    router: Arc<Router>,
    writer: Writer,
    limits: Limits,
    pid: u32,
    /// True once the child is gone and its calls were ended.
    gone: watch::Receiver<bool>,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

impl StdioLink {
    /// Starts the child. A `shared` link serves several callers whose ids and tokens may collide, and maps them; an
    /// unshared one leaves every byte as it came. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// `NotSent` with [`LinkFault::Spawn`].
    pub fn spawn(command: &StdioCommand, limits: Limits, shared: bool) -> Result<Self, LinkError> {
        let mut child = spawn(command)?;
        let pid = child.id().expect("a child that was not waited for has a pid");
        let Pipes { stdin, stdout, stderr } = Pipes::take(&mut child);
        let router = Arc::new(Router::new(limits, shared));
        let stop = CancellationToken::new();
        let tail = Tail::new(limits.stderr_bytes_max);
        let (writer, lines) = Writer::new(&limits);
        let (gone_sender, gone) = watch::channel(false);
        // Cancelled when the child's end begins, whoever began it.
        let ending = stop.child_token();
        tokio::spawn(write_lines(stdin, lines, ending.clone()));
        let stderr = tokio::spawn(keep_tail(stderr, tail.clone()));
        let reader = tokio::spawn(read_messages(stdout, Arc::clone(&router), writer.clone(), limits));
        tokio::spawn(keep(
            child,
            child::Keeper { reader, stderr, router: Arc::clone(&router), tail, ending, stop: stop.clone(), limits },
            gone_sender,
        ));
        let guard = stop.clone().drop_guard();
        Ok(Self { router, writer, limits, pid, gone, stop, _stop_on_drop: guard })
    }

    /// The child's process id, as it was; the child may have ended.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// How many calls wait for an answer.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.router.pending()
    }

    /// Why nothing can be sent any more, if so.
    #[must_use]
    pub fn ended(&self) -> Option<LinkError> {
        self.router.ended()
    }

    /// Waits until the child has ended, and says how.
    pub async fn wait(&self) -> LinkError {
        let mut gone = self.gone.clone();
        // An error means that the keeper is gone, which it is only after the child.
        let _ = gone.wait_for(|gone| *gone).await;
        self.router.ended().unwrap_or(LinkError::not_sent(LinkFault::Closed))
    }

    fn canceller(&self, prepared: &Prepared) -> Canceller {
        let Some(wire) = prepared.route.wire_id.clone() else { return Canceller::none() };
        if !prepared.may_be_cancelled() {
            return Canceller::none();
        }
        let writer = self.writer.clone();
        Canceller::new(move |reason| {
            let (writer, line) = (writer.clone(), cancellation(&wire, reason.as_deref()).bytes().clone());
            Box::pin(async move {
                if let Err(error) = writer.write(line, || {}).await {
                    tracing::debug!(%error, "could not cancel a call at the server");
                }
            })
        })
    }
}

#[async_trait]
impl Link for StdioLink {
    fn prepare(&self, message: &Message, _headers: &ForwardHeaders) -> Result<Prepared, LinkError> {
        self.router.prepare(message)
    }

    async fn forward(&self, prepared: Prepared) -> Result<Exchange, LinkError> {
        let frames = self.router.register(&prepared)?;
        let on_its_way = OnItsWay::new(self.canceller(&prepared));
        let wire = prepared.route.wire_id.expect("a registered call has an id on the wire");
        // Runs where the line was not begun, also when this future is dropped: then the call never was.
        let (router, never_left) = (Arc::clone(&self.router), on_its_way.never_left());
        let unbegun = move || {
            router.unregister(&wire);
            never_left.store(true, Ordering::SeqCst);
        };
        let written = self.writer.write(prepared.bytes, unbegun).await;
        let canceller = on_its_way.arrived();
        if let Err(error) = written {
            return Err(self.explain(error).await);
        }
        let content = Content::Stream(frames);
        Ok(Exchange { status: 200, session_id: None, headers: http::HeaderMap::new(), content, canceller })
    }

    async fn notify(&self, message: &Message, _headers: &ForwardHeaders) -> Result<(), LinkError> {
        let line = self.router.prepare_notice(message)?;
        if let Some(ended) = self.router.ended() {
            return Err(ended);
        }
        match self.writer.write(line, || {}).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.explain(error).await),
        }
    }

    fn unsolicited(&self) -> Option<mpsc::Receiver<Frame>> {
        self.router.unsolicited()
    }

    fn is_open(&self) -> bool {
        self.router.ended().is_none()
    }

    async fn close(&self) {
        self.stop.cancel();
        let _ = tokio::time::timeout(self.end_max(), self.wait()).await;
    }
}

impl StdioLink {
    /// How long the end of a child may take: past the grace period come two signals, each of which is given a moment.
    fn end_max(&self) -> Duration {
        self.limits.exit_wait_max + 4 * child::SIGNAL_WAIT + Duration::from_secs(1)
    }

    /// A broken pipe is what a child's end looks like from here: waits for the end, which says how it came and what the
    /// child's last words were.
    async fn explain(&self, error: LinkError) -> LinkError {
        let _ = tokio::time::timeout(self.end_max(), self.wait()).await;
        match (error, self.router.ended()) {
            (LinkError::NotSent { .. }, Some(ended)) => ended,
            (LinkError::Lost { .. }, Some(LinkError::NotSent { cause, stderr })) => LinkError::Lost { cause, stderr },
            (error, _) => error,
        }
    }
}

#[cfg(test)]
mod tests;
