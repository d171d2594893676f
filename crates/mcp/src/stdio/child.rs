//! The child's life: how it is started, and how it ends. Called by [`StdioLink`](super::StdioLink). Must never signal a
//! process that it has not started, nor one that was already waited for: its number may be somebody else's by then.

use std::{process::ExitStatus, process::Stdio, sync::Arc, time::Duration};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Limits, LinkError, LinkFault,
    router::Router,
    stdio::{StdioCommand, lines::Tail},
};

/// How long a child may take to heed a signal, and its pipes to run dry once it has ended.
pub(super) const SIGNAL_WAIT: Duration = Duration::from_millis(500);

/// The prefix of variables that are Cairn's own: approval credentials and data folders are among them.
const OWN_PREFIX: &str = "CAIRN_";

/// Starts the child, in a process group of its own, so that a terminal's interrupt reaches Cairn alone and Cairn can
/// end the server in order, with whatever the server has started.
pub(super) fn spawn(command: &StdioCommand) -> Result<Child, LinkError> {
    let is_own = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(OWN_PREFIX.as_bytes());
    let mut starting = Command::new(&command.command);
    starting.args(&command.args);
    if command.env_clear {
        starting.env_clear();
    }
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_own(name)) {
        starting.env_remove(name);
    }
    starting.envs(command.env.iter().filter(|(name, _)| !is_own(name)));
    if let Some(folder) = &command.cwd {
        starting.current_dir(folder);
    }
    starting.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    starting.process_group(0).kill_on_drop(true);
    starting.spawn().map_err(|error| {
        let command = command.command.to_string_lossy().into_owned();
        LinkError::not_sent(LinkFault::Spawn { command, reason: error.to_string() })
    })
}

pub(super) struct Pipes {
    pub(super) stdin: ChildStdin,
    pub(super) stdout: ChildStdout,
    pub(super) stderr: ChildStderr,
}

impl Pipes {
    pub(super) fn take(child: &mut Child) -> Self {
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let piped = "all three were piped when the child was started";
        Self { stdin: stdin.expect(piped), stdout: stdout.expect(piped), stderr: stderr.expect(piped) }
    }
}

/// What has to be told of the child's end.
pub(super) struct Keeper {
    /// Ends with the reason for which nothing more can be read.
    pub(super) reader: JoinHandle<Option<LinkFault>>,
    pub(super) stderr: JoinHandle<()>,
    pub(super) router: Arc<Router>,
    pub(super) tail: Tail,
    /// Cancelling it makes the writer close stdin.
    pub(super) ending: CancellationToken,
    /// Cancelled where it is this side that ends the link.
    pub(super) stop: CancellationToken,
    pub(super) limits: Limits,
}

/// Waits for the child's end, or brings it about; then ends the calls that wait.
pub(super) async fn keep(mut child: Child, mut keeper: Keeper, gone: watch::Sender<bool>) {
    let mut read_fault = None;
    let asked = keeper.ending.clone();
    let status = tokio::select! {
        status = child.wait() => status.ok(),
        fault = &mut keeper.reader => {
            read_fault = fault.ok().flatten();
            keeper.ending.cancel();
            finish(&mut child, keeper.limits.exit_wait_max).await
        }
        () = asked.cancelled() => {
            read_fault = keeper.stop.is_cancelled().then_some(LinkFault::Closed);
            finish(&mut child, keeper.limits.exit_wait_max).await
        }
    };
    keeper.ending.cancel();
    // What the child wrote before its end counts; a grandchild that holds the pipes open may not hold this up.
    if !keeper.reader.is_finished() && timeout(SIGNAL_WAIT, &mut keeper.reader).await.is_err() {
        keeper.reader.abort();
    }
    if timeout(SIGNAL_WAIT, &mut keeper.stderr).await.is_err() {
        keeper.stderr.abort();
    }
    let status = status.map_or_else(|| "how is unknown".to_owned(), |status| status.to_string());
    let cause = read_fault.unwrap_or(LinkFault::Exited { status });
    keeper.router.end(&cause, Some(&keeper.tail.text()));
    gone.send_replace(true);
}

/// Ends a child whose stdin is being closed: first by waiting, then by asking, then by force.
async fn finish(child: &mut Child, grace: Duration) -> Option<ExitStatus> {
    for (signal, wait) in [(None, grace), (Some(Signal::TERM), SIGNAL_WAIT), (Some(Signal::KILL), SIGNAL_WAIT)] {
        if let Some(signal) = signal {
            // `id` is none once the child was waited for, so the number cannot be another process's.
            let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
            if let Some(Err(error)) = pid.map(|pid| kill_process_group(pid, signal)) {
                tracing::debug!(%error, "could not signal the server's process group");
            }
        }
        if let Ok(status) = timeout(wait, child.wait()).await {
            return status.ok();
        }
    }
    None
}
