//! `cairn wrap`: a stdio server behind Cairn, for any client's configuration.
//!
//! The wrap itself is a thin relay (`relay.rs`): it joins the `up` of its data folder over a Unix socket, starting one if
//! none runs (`join.rs`), says in one line which server it wants, and then passes bytes. The server is a child of `up`
//! (`serve.rs`), so that all wraps share one gateway, one log and one trail, and one that ends harms no other.
//!
//! On the socket: one line of JSON from the wrap ([`Hello`]), one from `up` ([`Welcome`]), then MCP both ways, a message a
//! line. Standard output carries MCP only: whatever goes wrong is told on standard error, and to the client as the error of
//! its own requests.

mod join;
mod relay;
mod serve;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub(crate) use relay::run;
pub(crate) use serve::{listen, serve};

/// A Unix socket's path has at most 107 bytes.
const SOCKET_PATH_MAX: usize = 100;
/// Longest first line either way, in bytes: an environment fits.
const FIRST_LINE_BYTES_MAX: u64 = 4 << 20;
/// This program's version; both ends must have the same.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a wrap says first. It may hold secrets, and is never shown.
#[derive(Serialize, Deserialize)]
struct Hello {
    version: String,
    name: String,
    command: Vec<String>,
    url: Option<String>,
    /// Whether the URL is that of an HTTP+SSE stream.
    sse: bool,
    headers: BTreeMap<String, String>,
    env: BTreeMap<String, String>,
    cwd: PathBuf,
    /// The process that started the wrap, and when that was started: together they name it.
    client: String,
}

/// What `up` answers.
#[derive(Serialize, Deserialize)]
struct Welcome {
    version: String,
    pid: u32,
    /// Why this wrap is not served.
    error: Option<String>,
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

/// Where an `up` that a wrap started keeps its words.
fn log_file(data: &Path) -> PathBuf {
    data.join("up.log")
}

/// Whether the process at the other end runs as the same user. Anybody may make a socket in a folder for temporary files.
fn is_ours(stream: &tokio::net::UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == rustix::process::geteuid().as_raw())
}
