//! What a gateway is told at start: servers, limits, defaults. Filled by the command line, read everywhere here.
//!
//! Every bound of the live path stands in [`Limits`], with its unit last in its name and a default that is safe.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use crate::{Access, DecisionPoint};
use cairn_freshness::Declared;
use cairn_mcp::serving::Served;

/// One upstream MCP server as the configuration names it.
#[derive(Clone, Debug)]
pub struct ServerSpec {
    /// The name: the path segment of `/mcp/<name>` and `server` in every event.
    pub name: String,
    /// How it is reached.
    pub reach: Reach,
    /// What its tools read, write and depend on, by the tool's name.
    pub declared: BTreeMap<String, Declared>,
    /// Whether it reports what it did downstream: then each call of a tool brings it a handle.
    pub reports: bool,
}

/// How an upstream is reached.
#[derive(Clone)]
pub enum Reach {
    /// A child process that speaks MCP on its standard input and output.
    Stdio {
        /// The program.
        command: String,
        /// Its arguments.
        args: Vec<String>,
        /// Variables added to its environment; they may hold secrets.
        env: BTreeMap<String, String>,
        /// Where it runs; the gateway's own folder where absent.
        cwd: Option<PathBuf>,
        /// Whether `env` is the whole environment (a wrapped server brings its client's).
        env_clear: bool,
    },
    /// Streamable HTTP.
    Http {
        /// The endpoint.
        url: String,
        /// Headers added to every request; they may hold secrets.
        headers: BTreeMap<String, String>,
    },
    /// HTTP+SSE, the transport of 2024-11-05.
    Sse {
        /// The address of the event stream.
        url: String,
        /// Headers added to every request; they may hold secrets.
        headers: BTreeMap<String, String>,
    },
    /// A server of Cairn's own, in this process.
    Inside(Arc<dyn Inside>),
}

/// A server of Cairn's own. Who asks decides what it may show, so each caller has one to themselves.
pub trait Inside: std::fmt::Debug + Send + Sync {
    /// What that caller is served.
    fn serve(&self, who: &Asker) -> Arc<dyn Served>;
}

/// Who asks, as the gateway verified it. What a client says of itself is not in here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asker {
    /// The tenant, where there are any.
    pub tenant: Option<String>,
    /// Who.
    pub principal: String,
    /// Through which agent of theirs.
    pub agent: Option<String>,
}

impl Reach {
    /// Everything that makes this server another one than the next. Holds secrets: only its digest may be kept.
    pub(crate) fn description(&self) -> Vec<u8> {
        match self {
            Self::Stdio { command, args, env, cwd, env_clear } => {
                let cwd = cwd.as_ref().map(|cwd| cwd.to_string_lossy());
                serde_json::json!([command, args, env, cwd, env_clear]).to_string().into_bytes()
            }
            Self::Http { url, headers } => serde_json::json!([url, headers]).to_string().into_bytes(),
            Self::Sse { url, headers } => serde_json::json!([url, headers, "sse"]).to_string().into_bytes(),
            Self::Inside(_) => b"inside".to_vec(),
        }
    }
}

impl std::fmt::Debug for Reach {
    /// Names and addresses only: arguments, variables and headers may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdio { command, .. } => f.debug_struct("Stdio").field("command", command).finish_non_exhaustive(),
            Self::Http { .. } => f.debug_struct("Http").finish_non_exhaustive(),
            Self::Sse { .. } => f.debug_struct("Sse").finish_non_exhaustive(),
            Self::Inside(_) => f.write_str("Inside"),
        }
    }
}

/// The bounds of the live path. Each refusal names the setting that refused.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Longest message, either way, in bytes.
    pub message_bytes_max: usize,
    /// Largest HTTP request head, in bytes.
    pub header_bytes_max: usize,
    /// How long a client may take to send a request's head, and as long again for its body.
    pub request_read_max: Duration,
    /// What request bodies that are still being read may hold in all, in bytes.
    pub bodies_bytes_max: usize,
    /// How long a client may leave what it was sent untaken before its connection is closed.
    pub client_stall_max: Duration,
    /// Connections open at once; one more waits in the listener's queue.
    pub connections_max: usize,
    /// Deepest nesting of a message.
    pub nesting_depth_max: usize,
    /// Calls in flight for one client session, or one principal where there are no sessions; and as many that its server
    /// makes of the client.
    pub calls_per_client_max: usize,
    /// Calls in flight in all.
    pub calls_max: usize,
    /// Sessions open at once.
    pub sessions_max: usize,
    /// How long a forwarded call may take before it ends `timed_out`.
    pub call_timeout: Duration,
    /// How long a call waits for an HTTP server that refuses connections, as one does that is still starting.
    pub server_connect_max: Duration,
    /// How long a call waits for a server's process that ended and is started again, pauses included.
    pub server_restart_max: Duration,
    /// How long a call is held for approval. Clients give up at 60 s.
    pub hold_max: Duration,
    /// How long a legacy server's call waits for a modern client's answer to what the server asked.
    pub input_wait_max: Duration,
    /// How often a held call that gave a progress token hears of it.
    pub hold_progress_every: Duration,
    /// Messages waiting to be written to one client before its server is slowed down.
    pub client_queue_max: usize,
    /// How long a session without traffic is kept.
    pub session_idle_max: Duration,
    /// How often an open event stream gets a comment, so that nothing between closes it.
    pub keep_alive_every: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: 4 << 20,
            header_bytes_max: 64 << 10,
            request_read_max: Duration::from_secs(30),
            bodies_bytes_max: 256 << 20,
            client_stall_max: Duration::from_secs(60),
            connections_max: 2_048,
            nesting_depth_max: 128,
            calls_per_client_max: 64,
            calls_max: 1024,
            sessions_max: 1024,
            call_timeout: Duration::from_secs(300),
            server_connect_max: Duration::from_secs(10),
            server_restart_max: Duration::from_secs(30),
            hold_max: Duration::from_secs(50),
            input_wait_max: Duration::from_secs(300),
            hold_progress_every: Duration::from_secs(5),
            client_queue_max: 256,
            session_idle_max: Duration::from_secs(30 * 60),
            keep_alive_every: Duration::from_secs(15),
        }
    }
}

/// Everything a gateway is told at start.
#[derive(Clone, Debug)]
pub struct GatewayOptions {
    /// The upstreams by name.
    pub servers: Vec<ServerSpec>,
    /// The bounds.
    pub limits: Limits,
    /// `Origin` values accepted besides loopback ones.
    pub origins: Vec<String>,
    /// `Host` values accepted besides loopback ones.
    pub hosts: Vec<String>,
    /// The principal of whoever connects by a pipe: the local user's name.
    pub local_principal: String,
    /// Who may come in over HTTP.
    pub access: Access,
    /// Who is asked besides the policies, where anybody is.
    pub decision_point: Option<DecisionPoint>,
}
