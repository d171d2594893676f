//! A client's connection as the gateway sees it: who, through which door, towards which server, and what is in flight.
//!
//! One [`Session`] for one legacy session or one pipe; a modern HTTP request borrows one that lives as long as the
//! principal's scope. Session ids are bearer secrets: they stand in events as keyed digests only.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use cairn_clock::Timestamp;
use cairn_credentials::CallerToken;
use cairn_identity::{Identity, Kind as ActorKind};
use cairn_mcp::{Frame, Link, RawId};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{SharedWorkflow, bridge::Bridge, pump::Listener, resume::Resumption, upstream::Server};

/// The door that a client came through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Door {
    /// Standard input and output of a wrapped server.
    Pipe,
    /// Streamable HTTP.
    Http,
}

/// Who calls. What a client says of itself is never in here.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Caller {
    pub(crate) tenant: Option<String>,
    pub(crate) principal: String,
    /// Through which OAuth client, as the credential says.
    pub(crate) agent: Option<String>,
    pub(crate) kind: ActorKind,
}

impl Caller {
    /// One text for one caller, whatever is in the names.
    pub(crate) fn text(&self) -> String {
        let part = |text: Option<&str>| text.map_or_else(|| "-".to_owned(), |text| format!("{}:{text}", text.len()));
        [part(self.tenant.as_deref()), part(Some(&self.principal)), part(self.agent.as_deref())].concat()
    }
}

impl From<&Identity> for Caller {
    fn from(who: &Identity) -> Self {
        let Identity { tenant, principal, agent, kind, .. } = who;
        Self { tenant: tenant.clone(), principal: principal.clone(), agent: agent.clone(), kind: *kind }
    }
}

/// What a client said of itself and what was negotiated; claims, for the record.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claims {
    pub(crate) agent_name: Option<String>,
    pub(crate) agent_version: Option<String>,
    pub(crate) protocol_version: Option<String>,
    pub(crate) server_name: Option<String>,
    pub(crate) server_version: Option<String>,
    /// Whether it lets its user open addresses (elicitation by URL).
    pub(crate) opens_addresses: bool,
}

/// A request from the server that waits for the client's answer.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) answered: oneshot::Sender<cairn_mcp::Message>,
}

/// A client's connection.
pub(crate) struct Session {
    pub(crate) server: Arc<Server>,
    pub(crate) caller: Caller,
    pub(crate) door: Door,
    pub(crate) link: Arc<dyn Link>,
    /// The legacy session id, which is a secret.
    pub(crate) secret: Mutex<Option<String>>,
    /// Names this connection where nothing else names the workflow.
    pub(crate) connection: String,
    /// The workflow that a wrap shares with its siblings.
    pub(crate) shared_workflow: Option<SharedWorkflow>,
    pub(crate) claims: Mutex<Claims>,
    /// Calls in flight by the client's id, so that a cancellation finds them.
    pub(crate) in_flight: Mutex<HashMap<RawId, CancellationToken>>,
    /// Requests of the server that wait for the client.
    pub(crate) asked: Mutex<HashMap<RawId, Asked>>,
    /// Where the answers of a legacy HTTP server find their calls when they come on a resumed stream.
    pub(crate) resumption: Resumption,
    /// The token of the latest request, where one of the server's is exchanged for it. Must never leave by a link.
    pub(crate) brought: Mutex<Option<Arc<CallerToken>>>,
    /// A legacy session's place among all, given back when the session is dropped.
    pub(crate) _place: Option<OwnedSemaphorePermit>,
    /// Messages that belong to no request: the pipe's output, or the legacy GET stream.
    pub(crate) outward: mpsc::Sender<Frame>,
    pub(crate) outward_reader: Mutex<Option<mpsc::Receiver<Frame>>>,
    /// Requests over HTTP that take events while they wait, oldest first.
    pub(crate) listeners: Mutex<Vec<Listener>>,
    /// Asks the pump to say when it has caught up.
    pub(crate) barriers: mpsc::Sender<oneshot::Sender<()>>,
    pub(crate) barriers_reader: Mutex<Option<mpsc::Receiver<oneshot::Sender<()>>>>,
    /// Whether a pump runs.
    pub(crate) pumped: AtomicBool,
    /// Places for concurrent calls.
    pub(crate) places: Arc<Semaphore>,
    pub(crate) last_used_us: AtomicU64,
    pub(crate) ended: CancellationToken,
    /// What stands between client and server where they speak different eras.
    pub(crate) bridge: Bridge,
}

/// What a session starts with.
pub(crate) struct SessionStart {
    pub(crate) server: Arc<Server>,
    pub(crate) caller: Caller,
    pub(crate) door: Door,
    pub(crate) link: Arc<dyn Link>,
    pub(crate) connection: String,
    pub(crate) shared_workflow: Option<SharedWorkflow>,
    pub(crate) queue: usize,
    pub(crate) places: Arc<Semaphore>,
    pub(crate) place: Option<OwnedSemaphorePermit>,
    pub(crate) now: Timestamp,
    /// Fires when the session ends, and when the gateway does.
    pub(crate) ended: CancellationToken,
    pub(crate) bridge: Bridge,
    /// Where messages go that belong to no request; a queue of the session's own where none is given.
    pub(crate) outward: Option<mpsc::Sender<Frame>>,
}

impl Session {
    /// Opens a session; nothing is sent.
    pub(crate) fn new(start: SessionStart) -> Arc<Self> {
        let (outward, reader) = match start.outward {
            Some(outward) => (outward, None),
            None => {
                let (outward, reader) = mpsc::channel(start.queue.max(1));
                (outward, Some(reader))
            }
        };
        let (barriers, barriers_reader) = mpsc::channel(16);
        let claims = Claims { server_version: start.bridge.server_version(), ..Claims::default() };
        Arc::new(Self {
            listeners: Mutex::default(),
            barriers,
            pumped: AtomicBool::new(false),
            barriers_reader: Mutex::new(Some(barriers_reader)),
            server: start.server,
            caller: start.caller,
            door: start.door,
            link: start.link,
            secret: Mutex::default(),
            connection: start.connection,
            shared_workflow: start.shared_workflow,
            claims: Mutex::new(claims),
            in_flight: Mutex::default(),
            asked: Mutex::default(),
            resumption: Resumption::default(),
            brought: Mutex::default(),
            _place: start.place,
            outward,
            outward_reader: Mutex::new(reader),
            places: start.places,
            last_used_us: AtomicU64::new(start.now.as_micros()),
            ended: start.ended,
            bridge: start.bridge,
        })
    }

    /// Holds the token that a request came with, in place of the one before.
    pub(crate) fn bring(&self, brought: Option<Arc<CallerToken>>) {
        if brought.is_some() {
            *self.brought.lock() = brought;
        }
    }

    /// Notes that the session is in use.
    pub(crate) fn touch(&self, now: Timestamp) {
        self.last_used_us.store(now.as_micros(), Ordering::Relaxed);
    }

    /// When the session was last used.
    pub(crate) fn last_used(&self) -> Timestamp {
        Timestamp::from_micros(self.last_used_us.load(Ordering::Relaxed))
    }

    /// Whether the server itself keeps the session and chooses how it answers: an HTTP server of the client's own era.
    pub(crate) fn relays_http(&self) -> bool {
        self.server.is_http() && matches!(self.bridge, Bridge::None)
    }

    /// Whether the link is the session's own, to be closed with it.
    pub(crate) const fn owns_link(&self) -> bool {
        matches!(self.bridge, Bridge::None)
    }

    /// Whether calls are in flight.
    pub(crate) fn is_busy(&self) -> bool {
        !self.in_flight.lock().is_empty()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("server", &self.server.name).field("door", &self.door).finish_non_exhaustive()
    }
}
