//! What commands do to files of the data folder that a running `up` follows: operators, API keys, writers, the signing key.
//!
//! Each is kept in `acts/` before it is done, for `mcp.operators`; where it cannot be kept it is not done. Called by the
//! commands, and by `up`, which records what waits.

use std::{fmt::Display, path::Path, time::Duration};

use cairn_clock::{Clock, Entropy};
use cairn_gateway::Gateway;
use cairn_operators::Journal;
use tokio_util::sync::CancellationToken;

/// How often a running `up` looks for what was done beside it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Does it, after it is kept that it is done.
pub(crate) fn kept<T, E>(
    data: &Path,
    act: &str,
    about: impl Into<Option<String>>,
    work: impl FnOnce() -> Result<T, E>,
) -> anyhow::Result<T>
where
    E: Display + Into<anyhow::Error>,
{
    let journal = Journal::of(data);
    let kept = journal.keep(&who(), act, about.into(), (&Clock::system(), &Entropy::system()))?;
    work().map_err(|error| {
        kept.failed(&error);
        error.into()
    })
}

/// Who runs the command, as the system has it, and as the surroundings say.
fn who() -> String {
    let uid = rustix::process::getuid().as_raw();
    std::env::var("USER").map_or_else(|_| format!("uid {uid}"), |name| format!("{name} (uid {uid})"))
}

/// Records what waits, until `stop`.
pub(crate) async fn follow(data: std::path::PathBuf, gateway: Gateway, stop: CancellationToken) {
    let journal = Journal::of(&data);
    let mut said = None;
    loop {
        match journal.record(&gateway).await {
            Ok(()) => said = None,
            Err(error) => {
                if said.as_ref() != Some(&error) {
                    tracing::warn!(%error, "what was done on this machine is not recorded yet");
                    said = Some(error);
                }
            }
        }
        if tokio::time::timeout(LOOK_EVERY, stop.cancelled()).await.is_ok() {
            return;
        }
    }
}
