//! `cairn wrap`: a stdio server behind Cairn, for any client's configuration.
//!
//! The wrap itself is a thin relay: it joins the `up` of its data folder over a Unix socket, starting one if none runs, says
//! in one line which server it wants, and then passes bytes. The server is a child of `up`, so that all wraps share one
//! gateway, one log and one trail, and one that ends harms no other. Standard output carries MCP only.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use cairn_gateway::{Gateway, PipeClient, Reach, ServerSpec};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{WrapArguments, folder, up};

/// Longest first line of a wrap, in bytes.
const HELLO_BYTES_MAX: u64 = 1 << 20;
/// How long a started `up` may take to serve.
const START_MAX: Duration = Duration::from_secs(60);
/// Wraps of one client process share a workflow until so long without one.
const WORKFLOW_IDLE: Duration = Duration::from_secs(30 * 60);
/// A Unix socket's path has at most 107 bytes.
const SOCKET_PATH_MAX: usize = 100;
/// An `up` that a wrap started ends after so long without wraps.
const UP_IDLE_SECONDS: u64 = 600;

/// What a wrap says first.
#[derive(Serialize, Deserialize)]
struct Hello {
    name: String,
    command: Vec<String>,
    url: Option<String>,
    headers: BTreeMap<String, String>,
    env: BTreeMap<String, String>,
    cwd: PathBuf,
    /// The process that started the wrap, and when that was started: together they name it.
    client: String,
}

/// The socket of a data folder; in the system's folder for temporary files where the path would be too long.
pub(crate) fn socket_path(data: &Path) -> PathBuf {
    let path = data.join("wrap.sock");
    if path.as_os_str().len() <= SOCKET_PATH_MAX {
        return path;
    }
    let digest = cairn_contract::sha256_text(data.as_os_str().as_encoded_bytes());
    std::env::temp_dir().join(format!("cairn-{}.sock", &digest[7..31]))
}

/// The wrap's side.
pub(crate) async fn run(arguments: WrapArguments) -> anyhow::Result<()> {
    let data = match arguments.data.clone() {
        Some(data) => data,
        None => folder::default_path()?,
    };
    std::fs::create_dir_all(&data).with_context(|| format!("cannot make the data folder {}", data.display()))?;
    let data = data.canonicalize()?;
    let hello = hello(arguments)?;
    let stream = join(&data).await?;
    let (mut from_up, mut to_up) = stream.into_split();
    let mut line = serde_json::to_vec(&hello)?;
    line.push(b'\n');
    to_up.write_all(&line).await.context("cairn up closed the connection")?;
    let inward = tokio::spawn(async move {
        let _ = tokio::io::copy(&mut tokio::io::stdin(), &mut to_up).await;
        let _ = to_up.shutdown().await;
    });
    let mut stdout = tokio::io::stdout();
    let copied = tokio::io::copy(&mut from_up, &mut stdout).await;
    stdout.flush().await?;
    if !inward.is_finished() {
        // Reading standard input blocks a thread that cannot be stopped; the exit ends it.
        eprintln!("cairn wrap: cairn up closed the connection: see {}", up::log_file(&data).display());
        std::process::exit(i32::from(copied.is_err() || !inward.is_finished()));
    }
    Ok(())
}

fn hello(arguments: WrapArguments) -> anyhow::Result<Hello> {
    let first = arguments.command.first().cloned();
    if first.is_none() && arguments.url.is_none() {
        bail!("name a server: cairn wrap -- COMMAND ARGS…, or cairn wrap --url URL");
    }
    let mut headers = BTreeMap::new();
    for header in &arguments.header {
        let (name, value) = header.split_once(':').context("a --header is written as name: value")?;
        headers.insert(name.trim().to_owned(), value.trim().to_owned());
    }
    let base = first
        .as_deref()
        .and_then(|command| Path::new(command).file_name())
        .map(|name| name.to_string_lossy().into_owned());
    let name = arguments.name.or(base).unwrap_or_else(|| "server".to_owned());
    let clean =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }).take(64).collect();
    let env = std::env::vars().filter(|(key, _)| !key.starts_with("CAIRN_")).collect();
    Ok(Hello {
        name: clean,
        command: arguments.command,
        url: arguments.url,
        headers,
        env,
        cwd: std::env::current_dir()?,
        client: client()?,
    })
}

/// The parent process and its start time, by which wraps of one client know each other.
fn client() -> anyhow::Result<String> {
    let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    let stat = std::fs::read_to_string(format!("/proc/{parent}/stat")).unwrap_or_default();
    // Field 22 is the start time; the name in field 2 may hold anything, so count behind its last bracket.
    let started = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(19)).unwrap_or("0");
    Ok(format!("{parent}-{started}"))
}

/// Connects to the `up` of the folder. Where none runs, exactly one of any number of wraps starts it.
async fn join(data: &Path) -> anyhow::Result<UnixStream> {
    let socket = socket_path(data);
    if let Ok(stream) = UnixStream::connect(&socket).await {
        return Ok(stream);
    }
    let starting = File::options().create(true).write(true).truncate(false).open(data.join("starting"))?;
    let starting = tokio::task::spawn_blocking(move || starting.lock().map(|()| starting)).await??;
    let deadline = Instant::now() + START_MAX;
    let mut child = None;
    loop {
        if let Ok(stream) = UnixStream::connect(&socket).await {
            drop(starting);
            return Ok(stream);
        }
        match &mut child {
            None => child = Some(start(data)?),
            Some(child) => {
                if let Some(status) = std::process::Child::try_wait(child)? {
                    bail!("cairn up ended at once ({status}): see {}", up::log_file(data).display());
                }
            }
        }
        if Instant::now() > deadline {
            bail!("cairn up did not serve within {} s: see {}", START_MAX.as_secs(), up::log_file(data).display());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn start(data: &Path) -> anyhow::Result<std::process::Child> {
    let log = File::options().create(true).append(true).open(up::log_file(data))?;
    std::process::Command::new(std::env::current_exe()?)
        .args(["up", "--kafka", "127.0.0.1:0", "--gateway", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .arg("--idle-seconds")
        .arg(UP_IDLE_SECONDS.to_string())
        .arg("--data")
        .arg(data)
        .stdin(std::process::Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .context("cannot start cairn up")
}

/// Workflows of client processes: wraps of one share one.
#[derive(Clone, Default)]
struct Workflows(Arc<Mutex<HashMap<String, (String, Instant)>>>);

impl Workflows {
    fn of(&self, client: &str, fresh: impl FnOnce() -> String) -> String {
        let mut known = self.0.lock();
        let now = Instant::now();
        known.retain(|_, (_, used)| now - *used < WORKFLOW_IDLE);
        let entry = known.entry(client.to_owned()).or_insert_with(|| (fresh(), now));
        entry.1 = now;
        entry.0.clone()
    }
}

/// `up`'s side: serves wraps until `stop`, or until none came for `idle_seconds`.
pub(crate) async fn serve(gateway: Gateway, socket: PathBuf, idle_seconds: Option<u64>, stop: CancellationToken) {
    // The folder is held, so a socket that is there belongs to nobody.
    let _ = std::fs::remove_file(&socket);
    let listener = match UnixListener::bind(&socket) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "wraps cannot be served"),
    };
    let _ = std::fs::set_permissions(&socket, std::os::unix::fs::PermissionsExt::from_mode(0o600));
    let workflows = Workflows::default();
    let open = Arc::new(());
    let idle = idle_seconds.map(Duration::from_secs);
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
            () = tokio::time::sleep(idle.unwrap_or(Duration::MAX / 4)) => {
                if Arc::strong_count(&open) == 1 {
                    stop.cancel();
                    break;
                }
                continue;
            }
        };
        let Ok((stream, _)) = accepted else { continue };
        let (gateway, workflows, open) = (gateway.clone(), workflows.clone(), open.clone());
        tokio::spawn(async move {
            let _open = open;
            if let Err(error) = one(gateway, workflows, stream).await {
                eprintln!("cairn: a wrapped server could not be served: {error:#}");
            }
        });
    }
    let _ = std::fs::remove_file(&socket);
}

async fn one(gateway: Gateway, workflows: Workflows, stream: UnixStream) -> anyhow::Result<()> {
    let (read, write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut line = Vec::new();
    (&mut read).take(HELLO_BYTES_MAX).read_until(b'\n', &mut line).await?;
    let hello: Hello =
        serde_json::from_slice(&line).context("the first line of a wrap is not understood: is it the same version?")?;
    let reach = match (hello.command.split_first(), hello.url) {
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
    let workflow = workflows.of(&hello.client, || {
        format!("wrap-{}", cairn_clock::Entropy::system().uuid_v7(cairn_clock::Clock::system().now()))
    });
    let client = PipeClient { workflow: Some(workflow), principal: None };
    gateway.serve_pipe(ServerSpec { name: hello.name, reach }, client, read, write).await?;
    Ok(())
}
