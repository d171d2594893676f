//! `up`'s side of wraps: listens on the socket of the data folder and serves each as a pipe of the gateway.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use cairn_clock::Clock;
use cairn_gateway::{Gateway, PipeClient, Reach, ServerSpec, SharedWorkflow};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{FIRST_LINE_BYTES_MAX, Hello, VERSION, Welcome, is_ours};

/// Wraps of one client process share a workflow until so long without a request.
const WORKFLOW_IDLE_MAX: Duration = Duration::from_secs(30 * 60);
/// How long a wrap may take to introduce itself.
const HELLO_MAX: Duration = Duration::from_secs(10);
/// How long wraps may take to end when `up` does.
const WRAPS_END_MAX: Duration = Duration::from_secs(2);

/// The socket, from its making to its removal.
#[derive(Debug)]
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Makes the socket. The data folder is held, so one that is there belongs to nobody any more.
pub(crate) fn listen(path: &Path) -> anyhow::Result<Socket> {
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path).with_context(|| format!("cannot make the socket {}", path.display()))?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(Socket { listener, path: path.to_owned() })
}

/// Workflows of client processes: wraps of one share one.
#[derive(Clone, Debug, Default)]
struct Workflows(Arc<Mutex<HashMap<String, SharedWorkflow>>>);

impl Workflows {
    fn of(&self, client: &str, clock: &Clock) -> SharedWorkflow {
        let mut known = self.0.lock();
        known.retain(|_, workflow| !workflow.is_over(clock));
        known.entry(client.to_owned()).or_insert_with(|| SharedWorkflow::new(WORKFLOW_IDLE_MAX)).clone()
    }
}

/// Serves wraps until `stop`, or until none was there for `idle_seconds`.
pub(crate) async fn serve(gateway: Gateway, socket: Socket, idle_seconds: Option<u64>, stop: CancellationToken) {
    let workflows = Workflows::default();
    let wraps = TaskTracker::new();
    let last_end = Arc::new(Mutex::new(Instant::now()));
    loop {
        let idle_at = idle_seconds.map(|seconds| *last_end.lock() + Duration::from_secs(seconds));
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = socket.listener.accept() => accepted,
            () = idle(idle_at, &wraps) => {
                if wraps.is_empty() && idle_at.is_some_and(|at| at <= Instant::now()) {
                    stop.cancel();
                    break;
                }
                continue;
            }
        };
        let stream = match accepted {
            Ok((stream, _)) if is_ours(&stream) => stream,
            Ok(_) => continue,
            Err(error) => {
                tracing::warn!(%error, "a wrap could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (gateway, workflows, last_end) = (gateway.clone(), workflows.clone(), last_end.clone());
        wraps.spawn(async move {
            if let Err(error) = one(gateway, workflows, stream).await {
                eprintln!("cairn: a wrapped server could not be served: {error:#}");
            }
            *last_end.lock() = Instant::now();
        });
    }
    drop(socket);
    wraps.close();
    let _ = tokio::time::timeout(WRAPS_END_MAX, wraps.wait()).await;
}

/// Ends when it is worth looking whether nobody has been here for long.
async fn idle(at: Option<Instant>, wraps: &TaskTracker) {
    match at {
        Some(at) if wraps.is_empty() => tokio::time::sleep_until(at).await,
        Some(_) => tokio::time::sleep(Duration::from_secs(1)).await,
        None => std::future::pending().await,
    }
}

async fn one(gateway: Gateway, workflows: Workflows, stream: UnixStream) -> anyhow::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut line = Vec::new();
    let reading = async { (&mut read).take(FIRST_LINE_BYTES_MAX).read_until(b'\n', &mut line).await };
    tokio::time::timeout(HELLO_MAX, reading).await.context("a wrap did not introduce itself")??;
    if line.is_empty() {
        return Ok(()); // somebody looked whether we are here
    }
    let hello = match understood(&line) {
        Ok(hello) => {
            welcome(&mut write, None).await?;
            hello
        }
        Err(error) => {
            welcome(&mut write, Some(format!("{error:#}"))).await?;
            return Err(error);
        }
    };
    let reach = match (hello.command.split_first(), hello.url) {
        (_, Some(url)) if hello.sse => Reach::Sse { url, headers: hello.headers },
        (_, Some(url)) => Reach::Http { url, headers: hello.headers },
        (Some((command, args)), None) => Reach::Stdio {
            command: command.clone(),
            args: args.to_vec(),
            env: hello.env,
            cwd: Some(hello.cwd),
            env_clear: true,
        },
        (None, None) => bail!("a wrap named no server"),
    };
    let workflow = workflows.of(&hello.client, &Clock::system());
    let client = PipeClient { workflow: Some(workflow), principal: None };
    gateway
        .serve_pipe(
            ServerSpec { name: hello.name, reach, declared: std::collections::BTreeMap::new(), reports: false },
            client,
            read,
            write,
        )
        .await?;
    Ok(())
}

/// The hello of a wrap of this very version. Another version's may mean something else.
fn understood(line: &[u8]) -> anyhow::Result<Hello> {
    #[derive(serde::Deserialize)]
    struct Version {
        version: Option<String>,
    }
    let Version { version } = serde_json::from_slice(line).context("the first line of a wrap is not understood")?;
    let version = version.unwrap_or_else(|| "of an older version".to_owned());
    if version != VERSION {
        let pid = std::process::id();
        bail!(
            "the cairn up of this data folder is {VERSION} (process {pid}) and this cairn wrap is {version}: end that process, \
             so that the next wrap starts its own, or use one cairn for both"
        );
    }
    serde_json::from_slice(line).context("the first line of a wrap is not understood")
}

async fn welcome(write: &mut (impl AsyncWriteExt + Unpin), error: Option<String>) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(&Welcome { version: VERSION.to_owned(), pid: std::process::id(), error })?;
    line.push(b'\n');
    write.write_all(&line).await.context("a wrap went away at once")
}
