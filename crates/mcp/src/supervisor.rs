//! Keeps a child process server running: starts it again, later each time, when it ends. Called by the gateway, which
//! asks for the link before each call.
//!
//! Guarantees: a call to a server that is still starting waits, for a bounded time and with a bounded number of others;
//! nothing is ever sent twice, because a call that was lost with the child is lost. Restarts back off exponentially, with
//! jitter, so that many servers that fail together do not start together. Must never hide that a child has ended: state
//! that it held, such as a session, is the greeter's to build anew.

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use cairn_clock::Entropy;
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{Limits, Link, LinkError, LinkFault, StdioCommand, StdioLink};

/// How a server is kept running.
#[derive(Clone, Debug)]
pub struct SupervisorOptions {
    /// How to start it.
    pub command: StdioCommand,
    /// Bounds on what it may send.
    pub limits: Limits,
    /// Whether several callers use it; see [`StdioLink::spawn`].
    pub shared: bool,
    /// How long a call waits for a server that is starting, and how long greeting it may take.
    pub start_wait_max: Duration,
    /// How many calls may wait so.
    pub waiting_calls_max: usize,
    /// The pause before the first restart; it doubles each time.
    pub pause_min: Duration,
    /// The longest pause.
    pub pause_max: Duration,
    /// A server that ran this long has its failures forgotten.
    pub healthy_after: Duration,
}

impl SupervisorOptions {
    /// The defaults for a command.
    #[must_use]
    pub fn new(command: StdioCommand, limits: Limits, shared: bool) -> Self {
        Self {
            command,
            limits,
            shared,
            start_wait_max: Duration::from_secs(30),
            waiting_calls_max: 256,
            pause_min: Duration::from_millis(250),
            pause_max: Duration::from_secs(30),
            healthy_after: Duration::from_secs(30),
        }
    }
}

/// What must happen on a new link before calls may use it: a probe, or the handshake of a legacy session.
pub type Greeter = Arc<dyn Fn(Arc<StdioLink>) -> Greeting + Send + Sync>;

/// A greeting under way.
pub type Greeting = Pin<Box<dyn Future<Output = Result<(), LinkError>> + Send>>;

/// What is known of the server now.
#[derive(Clone, Debug)]
pub enum ServerState {
    /// It is being started, or waits to be started again.
    Starting {
        /// Why it does not run, where it has run or been tried.
        last: Option<LinkError>,
        /// How often it was started.
        starts: u64,
    },
    /// It runs and was greeted.
    Ready {
        /// The connection to it.
        link: Arc<StdioLink>,
        /// How often it was started.
        starts: u64,
    },
    /// It was ended on purpose.
    Closed,
}

/// Keeps one server running. Dropping it ends the server.
pub struct Supervisor {
    state: watch::Receiver<ServerState>,
    waiting: Semaphore,
    options: Arc<SupervisorOptions>,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor").field("options", &self.options).field("state", &*self.state.borrow()).finish()
    }
}

impl Supervisor {
    /// Starts the server and keeps it running. Must be called within a tokio runtime.
    #[must_use]
    pub fn start(options: SupervisorOptions, entropy: Entropy, greeter: Option<Greeter>) -> Self {
        let options = Arc::new(options);
        let stop = CancellationToken::new();
        let (sender, state) = watch::channel(ServerState::Starting { last: None, starts: 0 });
        let keeper = Keeper { options: Arc::clone(&options), entropy, greeter, state: sender, stop: stop.clone() };
        tokio::spawn(keeper.run());
        let waiting = Semaphore::new(options.waiting_calls_max);
        Self { state, waiting, options, stop: stop.clone(), _stop_on_drop: stop.drop_guard() }
    }

    /// The connection to the running server; waits where it is being started.
    ///
    /// # Errors
    /// `NotSent` with [`LinkFault::NotReady`] after the longest wait, [`LinkFault::TooManyCalls`] where too many wait, and
    /// [`LinkFault::Closed`].
    pub async fn link(&self) -> Result<Arc<StdioLink>, LinkError> {
        if let Some(link) = running(&self.state.borrow()) {
            return Ok(link);
        }
        let limit = self.options.waiting_calls_max;
        let _place = self.waiting.try_acquire().map_err(|_| LinkError::not_sent(LinkFault::TooManyCalls { limit }))?;
        let mut state = self.state.clone();
        let decided = |state: &ServerState| matches!(state, ServerState::Closed) || running(state).is_some();
        match timeout(self.options.start_wait_max, state.wait_for(decided)).await {
            Ok(Ok(state)) => running(&state).ok_or(LinkError::not_sent(LinkFault::Closed)),
            Ok(Err(_)) => Err(LinkError::not_sent(LinkFault::Closed)),
            Err(_) => Err(self.not_ready()),
        }
    }

    /// What is known of the server now.
    #[must_use]
    pub fn state(&self) -> ServerState {
        self.state.borrow().clone()
    }

    /// Told of every change of state.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<ServerState> {
        self.state.clone()
    }

    /// Ends the server and waits until it has ended.
    pub async fn close(&self) {
        self.stop.cancel();
        let mut state = self.state.clone();
        // An error means that the keeper is gone, which it is only after the server.
        let _ = state.wait_for(|state| matches!(state, ServerState::Closed)).await;
    }

    fn not_ready(&self) -> LinkError {
        let waited_ms = u64::try_from(self.options.start_wait_max.as_millis()).unwrap_or(u64::MAX);
        let last = match &*self.state.borrow() {
            ServerState::Starting { last: Some(error), .. } => error.to_string(),
            _ => "it is still starting".to_owned(),
        };
        LinkError::not_sent(LinkFault::NotReady { waited_ms, last })
    }
}

fn running(state: &ServerState) -> Option<Arc<StdioLink>> {
    match state {
        ServerState::Ready { link, .. } if link.ended().is_none() => Some(Arc::clone(link)),
        _ => None,
    }
}

struct Keeper {
    options: Arc<SupervisorOptions>,
    entropy: Entropy,
    greeter: Option<Greeter>,
    state: watch::Sender<ServerState>,
    stop: CancellationToken,
}

impl Keeper {
    async fn run(self) {
        let (mut starts, mut failures) = (0, 0);
        loop {
            starts += 1;
            let began = Instant::now();
            let Some(last) = self.run_once(starts).await else { break };
            failures = if began.elapsed() >= self.options.healthy_after { 0 } else { failures };
            let pause = pause(&self.options, failures, self.entropy.next_u64());
            failures = failures.saturating_add(1);
            tracing::warn!(error = %last, pause_ms = pause.as_millis(), "the server ended; it is started again");
            self.state.send_replace(ServerState::Starting { last: Some(last), starts });
            tokio::select! {
                () = sleep(pause) => {}
                () = self.stop.cancelled() => break,
            }
        }
        self.state.send_replace(ServerState::Closed);
    }

    /// Runs the server until it ends, and says why; none where it was ended on purpose.
    async fn run_once(&self, starts: u64) -> Option<LinkError> {
        let link = match StdioLink::spawn(&self.options.command, self.options.limits, self.options.shared) {
            Ok(link) => Arc::new(link),
            Err(error) => return Some(error),
        };
        let life = async {
            if let Some(error) = self.greet(&link).await {
                link.close().await;
                return error;
            }
            self.state.send_replace(ServerState::Ready { link: Arc::clone(&link), starts });
            link.wait().await
        };
        tokio::select! {
            error = life => Some(error),
            () = self.stop.cancelled() => {
                link.close().await;
                None
            }
        }
    }

    /// Why the greeting failed, if so.
    async fn greet(&self, link: &Arc<StdioLink>) -> Option<LinkError> {
        let greeter = self.greeter.as_ref()?;
        let wait = self.options.start_wait_max;
        match timeout(wait, greeter(Arc::clone(link))).await {
            Ok(greeted) => greeted.err(),
            Err(_) => {
                let waited_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                Some(LinkError::not_sent(LinkFault::TimedOut { waited_ms }))
            }
        }
    }
}

/// Half of the pause is fixed, half is chance.
fn pause(options: &SupervisorOptions, failures: u32, chance: u64) -> Duration {
    let doubled = options.pause_min.saturating_mul(2_u32.saturating_pow(failures)).min(options.pause_max);
    let half = doubled / 2;
    let micros = u64::try_from(half.as_micros()).unwrap_or(u64::MAX).max(1);
    half + Duration::from_micros(chance % micros)
}

#[cfg(test)]
mod tests;
