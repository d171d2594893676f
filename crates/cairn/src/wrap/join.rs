//! How a wrap finds the `up` of its data folder, or starts it. Called by the relay.
//!
//! Of any number of wraps that come together exactly one starts an `up`; the others wait for it. An `up` that is just
//! ending, or just starting, is waited for too. The `up` outlives the wrap that started it.

use std::{
    fs::File,
    io::Write,
    os::unix::{fs::OpenOptionsExt, process::CommandExt},
    path::Path,
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::Instant,
};

use super::{FIRST_LINE_BYTES_MAX, Hello, VERSION, Welcome, is_ours, log_file, socket_path};
use crate::folder;

/// How long an `up` may take to serve.
const START_MAX: Duration = Duration::from_secs(60);
/// How often it is looked for meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// An `up` that a wrap started ends after so long without wraps.
const UP_IDLE_SECONDS: u64 = 600;
/// Past this size the file of an `up`'s words is put aside.
const LOG_BYTES_MAX: u64 = 4 << 20;

/// The connection to `up`, once it has said that it serves this wrap.
pub(super) struct Joined {
    pub(super) from_up: BufReader<OwnedReadHalf>,
    pub(super) to_up: OwnedWriteHalf,
}

/// Connects and introduces the wrap.
pub(super) async fn join(data: &Path, hello: &Hello) -> anyhow::Result<Joined> {
    let deadline = Instant::now() + START_MAX;
    loop {
        let stream = connect(data, deadline).await?;
        if !is_ours(&stream) {
            bail!("the socket {} belongs to another user: remove it", socket_path(data).display());
        }
        if let Some(joined) = introduce(data, stream, hello).await? {
            return Ok(joined);
        }
        if Instant::now() > deadline {
            bail!("cairn up closes every connection: see {}", log_file(data).display());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Says hello; `None` where this `up` was just ending.
async fn introduce(data: &Path, stream: UnixStream, hello: &Hello) -> anyhow::Result<Option<Joined>> {
    let (from_up, mut to_up) = stream.into_split();
    let mut from_up = BufReader::new(from_up);
    let mut line = serde_json::to_vec(hello)?;
    line.push(b'\n');
    let mut answer = Vec::new();
    if to_up.write_all(&line).await.is_err()
        || (&mut from_up).take(FIRST_LINE_BYTES_MAX).read_until(b'\n', &mut answer).await.is_err()
        || answer.is_empty()
    {
        return Ok(None);
    }
    let welcome: Welcome = serde_json::from_slice(&answer).with_context(|| {
        format!("the cairn up of {} is of another version than this cairn {VERSION}: end it first", data.display())
    })?;
    match welcome.error {
        Some(error) => bail!("{error}"),
        None => Ok(Some(Joined { from_up, to_up })),
    }
}

async fn connect(data: &Path, deadline: Instant) -> anyhow::Result<UnixStream> {
    let socket = socket_path(data);
    if let Ok(stream) = UnixStream::connect(&socket).await {
        return Ok(stream);
    }
    let starting = File::options().create(true).write(true).truncate(false).mode(0o600).open(data.join("starting"));
    let starting = starting.with_context(|| format!("cannot write to the data folder {}", data.display()))?;
    let starting = tokio::task::spawn_blocking(move || starting.lock().map(|()| starting)).await??;
    let mut child = None;
    loop {
        if let Ok(stream) = UnixStream::connect(&socket).await {
            drop(starting);
            return Ok(stream);
        }
        match &mut child {
            // One that holds the folder is about to serve, or about to end.
            None if folder::is_held(data) => {
                if folder::endpoints(data).is_some_and(|endpoints| endpoints.gateway.is_empty()) {
                    bail!("the cairn broker of {} runs no gateway: end it, or name another --data", data.display());
                }
            }
            None => child = Some(start(data)?),
            Some(started) => {
                if let Some(status) = std::process::Child::try_wait(started)? {
                    let said = last_words(data);
                    bail!("cairn up ended at once ({status}): {said} (see {})", log_file(data).display());
                }
            }
        }
        if Instant::now() > deadline {
            bail!("cairn up did not serve within {} s: see {}", START_MAX.as_secs(), log_file(data).display());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn start(data: &Path) -> anyhow::Result<std::process::Child> {
    let path = log_file(data);
    if std::fs::metadata(&path).is_ok_and(|found| found.len() > LOG_BYTES_MAX) {
        std::fs::rename(&path, path.with_extension("log.1"))?;
    }
    let mut log = File::options().create(true).append(true).mode(0o600).open(&path)?;
    writeln!(log, "cairn {VERSION}, started by a wrap")?;
    std::process::Command::new(std::env::current_exe()?)
        .args(["up", "--any-port", "--idle-seconds", &UP_IDLE_SECONDS.to_string(), "--data"])
        .arg(data)
        .env_remove(crate::token::VARIABLE)
        // It outlives the client, so it must not keep the client's folder busy.
        .current_dir(data)
        .stdin(std::process::Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .context("cannot start cairn up")
}

fn last_words(data: &Path) -> String {
    let text = std::fs::read(log_file(data)).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing").to_owned()
}
