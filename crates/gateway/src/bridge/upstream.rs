//! The sessions that Cairn holds with legacy servers for modern clients: one for each principal and set of client
//! capabilities, opened by Cairn's own handshake, ended when idle.
//!
//! Requests of several clients share a session, so each has an id of its own there. What the server says unasked finds
//! its way here: progress by its token, a request by the one call that runs, changes by who listens. A request that
//! belongs to no single call is answered with an error, because a modern client can be asked only within a call.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use cairn_clock::Timestamp;
use cairn_contract::{Body, Direction, SessionOpened};
use cairn_mcp::{
    Content, EditError, ForwardHeaders, Frame, Kind, Limits as WireLimits, Link, LinkError, Message, RawId,
    bridge::{self, Filter, FromModern, LegacyServer, Level, ModernCall, NotBridged},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{Mutex as AsyncMutex, OnceCell, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Here, Within};
use crate::{
    Gateway, Refusal,
    arrival::Arrival,
    call::{Accepted, Call},
    door::http::Early,
    reply::Reply,
    session::{Caller, Door, Session},
    upstream::Server,
};

/// Sessions with one server at once; the one that was idle longest makes room.
const SESSIONS_MAX: usize = 64;
/// How long a server may take to answer the handshake, its start included.
const HANDSHAKE_MAX: Duration = Duration::from_secs(30);
/// The pause before the stream of a server that ended is opened again.
const STREAM_PAUSE: Duration = Duration::from_secs(1);

/// All such sessions of one server.
#[derive(Debug, Default)]
pub(crate) struct Bridges(Mutex<HashMap<(Caller, String), Opening>>);

/// A session that is opened once, however many requests wait for it.
type Opening = Arc<OnceCell<Arc<Upstream>>>;

/// One legacy session with a server.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) server: LegacyServer,
    pub(crate) link: Arc<dyn Link>,
    next: AtomicU64,
    running: Mutex<Vec<Running>>,
    listeners: Mutex<Vec<Listener>>,
    /// How many listeners want each resource.
    subscribed: AsyncMutex<HashMap<String, usize>>,
    level: AsyncMutex<Option<Level>>,
    /// Asks whoever reads what the server says to say when it has caught up.
    barriers: mpsc::Sender<oneshot::Sender<()>>,
    last_used_us: AtomicU64,
    /// Whether the server was seen to have forgotten the session.
    lost: AtomicBool,
    pub(crate) ended: CancellationToken,
}

/// A call that the server works on.
#[derive(Debug)]
struct Running {
    wire: RawId,
    /// Whether it waits for its client's retry, so that the server is unlikely to ask anything new within it.
    waits: bool,
    said: mpsc::Sender<Frame>,
}

#[derive(Debug)]
struct Listener {
    call_id: Uuid,
    told: mpsc::Sender<Message>,
}

impl Bridges {
    fn cell(&self, caller: &Caller, key: &str) -> Option<Opening> {
        let mut sessions = self.0.lock();
        let at = (caller.clone(), key.to_owned());
        if sessions.get(&at).is_some_and(|cell| cell.get().is_some_and(|upstream| !upstream.is_usable()))
            && let Some(upstream) = sessions.remove(&at).and_then(|cell| cell.get().cloned())
        {
            tokio::spawn(async move {
                while upstream.is_busy() && upstream.link.is_open() {
                    tokio::time::sleep(STREAM_PAUSE).await;
                }
                upstream.end().await;
            });
        }
        if sessions.len() >= SESSIONS_MAX && !sessions.contains_key(&at) {
            let idle = sessions.iter().filter_map(|(at, cell)| Some((at, cell.get()?)));
            let idle = idle.filter(|(_, upstream)| !upstream.is_busy());
            let oldest = idle.min_by_key(|(_, upstream)| upstream.last_used()).map(|(at, _)| at.clone())?;
            if let Some(upstream) = sessions.remove(&oldest).and_then(|cell| cell.get().cloned()) {
                tokio::spawn(async move { upstream.end().await });
            }
        }
        Some(sessions.entry(at).or_default().clone())
    }

    /// Ends the sessions without traffic.
    pub(crate) async fn end_idle(&self, now: Timestamp, idle: Duration) {
        let ended: Vec<_> = {
            let mut sessions = self.0.lock();
            let is_idle = |upstream: &Arc<Upstream>| !upstream.is_busy() && now.since(upstream.last_used()) > idle;
            let at: Vec<_> =
                sessions.iter().filter(|(_, cell)| cell.get().is_some_and(is_idle)).map(|(at, _)| at.clone()).collect();
            at.iter().filter_map(|at| sessions.remove(at)?.get().cloned()).collect()
        };
        for upstream in ended {
            upstream.end().await;
        }
    }

    /// Ends all of them.
    pub(crate) async fn close(&self) {
        let all: Vec<_> = self.0.lock().drain().filter_map(|(_, cell)| cell.get().cloned()).collect();
        for upstream in all {
            upstream.end().await;
        }
    }
}

impl Upstream {
    fn is_usable(&self) -> bool {
        !self.ended.is_cancelled() && !self.lost.load(Ordering::Acquire) && self.link.is_open()
    }

    /// The server does not know this session any more: the next request opens another.
    pub(super) fn lose(&self) {
        self.lost.store(true, Ordering::Release);
    }

    fn is_busy(&self) -> bool {
        !self.running.lock().is_empty() || !self.listeners.lock().is_empty()
    }

    fn last_used(&self) -> Timestamp {
        Timestamp::from_micros(self.last_used_us.load(Ordering::Relaxed))
    }

    async fn end(&self) {
        self.ended.cancel();
        self.link.close().await;
    }

    /// An id that no other request of this session has.
    pub(crate) fn next_id(&self) -> RawId {
        RawId::integer(self.next.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn headers(&self) -> ForwardHeaders {
        ForwardHeaders { protocol_version: Some(self.server.version().to_owned()), ..ForwardHeaders::default() }
    }

    pub(super) fn answer(&self, call: &Call, message: &Message, limits: &WireLimits) -> Result<Message, EditError> {
        if LegacyServer::is_task(message) {
            return Ok(Refusal::from(NotBridged::Tasks).response(Some(&call.id)));
        }
        self.server.answer(&ModernCall::of(&call.message), message, limits)
    }

    /// Registers a call; what the server says beside its answer comes through the receiver.
    pub(super) fn run(&self, wire: RawId, queue: usize) -> mpsc::Receiver<Frame> {
        let (said, heard) = mpsc::channel(queue.max(1));
        self.running.lock().push(Running { wire, waits: false, said });
        heard
    }

    pub(super) fn set_waits(&self, wire: &RawId, waits: bool) {
        if let Some(call) = self.running.lock().iter_mut().find(|call| call.wire == *wire) {
            call.waits = waits;
        }
    }

    pub(super) fn forget(&self, wire: &RawId) {
        self.running.lock().retain(|call| call.wire != *wire);
    }

    /// Waits until everything that the server said before now has found its way.
    pub(super) async fn settle(&self) {
        let (barrier, passed) = oneshot::channel();
        if self.barriers.try_send(barrier).is_ok() {
            let _ = passed.await;
        }
    }

    /// The one call that a message without a name belongs to.
    fn owner(&self) -> Option<mpsc::Sender<Frame>> {
        let running = self.running.lock();
        let mut active = running.iter().filter(|call| !call.waits);
        match (active.next(), active.next(), running.len()) {
            (Some(only), None, _) => Some(only.said.clone()),
            (None, None, 1) => Some(running[0].said.clone()),
            _ => None,
        }
    }

    fn by_token(&self, token: &RawId) -> Option<mpsc::Sender<Frame>> {
        self.running.lock().iter().find(|call| call.wire == *token).map(|call| call.said.clone())
    }

    /// Answers a request of the server.
    pub(super) async fn answer_server(&self, message: &Message) {
        if let Err(error) = self.link.notify(message, &self.headers()).await {
            tracing::debug!(%error, "an answer to the server could not be delivered");
        }
    }

    /// Something that the server says and that no call's own stream brought.
    pub(super) async fn heard(&self, message: Message) {
        match message.kind() {
            Kind::Request => self.asked(message).await,
            Kind::Notification => self.noticed(message),
            Kind::Response | Kind::Error => tracing::debug!("a late response was not passed on"),
        }
    }

    async fn asked(&self, message: Message) {
        let id = message.id().cloned().unwrap_or_else(RawId::null);
        if message.method() == Some("ping") {
            let pong = Message::result(&id, b"{}").expect("an empty result is a message");
            return self.answer_server(&pong).await;
        }
        let passed = self.owner().is_some_and(|owner| owner.try_send(Frame::from(message)).is_ok());
        if !passed {
            let what = "a request of the server that belongs to no single call".to_owned();
            self.answer_server(&Refusal::NotBridged { what }.response(Some(&id))).await;
        }
    }

    fn noticed(&self, message: Message) {
        let method = message.method().unwrap_or_default();
        let to_call = match method {
            "notifications/progress" => message.progress_token().and_then(|token| self.by_token(&token)),
            "notifications/message" => self.owner(),
            _ => None,
        };
        if let Some(call) = to_call {
            // A slow client loses a notification, as the specification allows.
            let _ = call.try_send(Frame::from(message));
            return;
        }
        for listener in self.listeners.lock().iter() {
            let _ = listener.told.try_send(message.clone());
        }
    }
}

/// Takes a listener off the list when its client has gone.
struct Leaves<'a> {
    upstream: &'a Upstream,
    call_id: Uuid,
}

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.upstream.listeners.lock().retain(|listener| listener.call_id != self.call_id);
    }
}

impl Gateway {
    /// A session for one request of a modern client of a legacy server; everything of the same principal and
    /// capabilities shares what lies behind it.
    pub(crate) async fn bridged_session(
        &self,
        server: &Arc<Server>,
        caller: Caller,
        message: &Message,
    ) -> Result<Arc<Session>, Early> {
        let upstream = self.upstream_for(server, &caller, message).await.map_err(Early::Refused)?;
        Ok(Session::new(self.start_towards(server, caller, Door::Http, upstream)))
    }

    /// The legacy session with a server for this principal and what its client can do.
    pub(crate) async fn upstream_for(
        &self,
        server: &Arc<Server>,
        caller: &Caller,
        message: &Message,
    ) -> Result<Arc<Upstream>, Refusal> {
        let unfit = |error: EditError| Refusal::TooLarge { reason: error.to_string() };
        let (request, key) = bridge::initialize(&RawId::integer(0), message).map_err(unfit)?;
        let busy = Refusal::Busy { setting: "bridged_sessions_max", limit: SESSIONS_MAX as u64 };
        let cell = server.bridges.cell(caller, &key).ok_or(busy)?;
        let opened = cell.get_or_try_init(|| self.open_upstream(server, caller, &request)).await;
        let upstream = opened.inspect_err(|_| server.eras.forget())?.clone();
        upstream.last_used_us.store(self.clock().now().as_micros(), Ordering::Relaxed);
        Ok(upstream)
    }

    async fn open_upstream(
        &self,
        server: &Arc<Server>,
        caller: &Caller,
        request: &Message,
    ) -> Result<Arc<Upstream>, Refusal> {
        let unavailable = |error: LinkError| Refusal::unavailable(&error);
        let mut tries = 0;
        let (link, answered) = loop {
            server.prove(caller).await.map_err(Refusal::from)?;
            let link = server.single_link(caller, self.entropy()).await.map_err(unavailable)?;
            let answered = tokio::time::timeout(HANDSHAKE_MAX, handshake(&*link, request)).await;
            tries += 1;
            // A handshake of Cairn's own can be made again with another token.
            if !matches!(&answered, Ok(Err(Refusal::Unproven { .. }))) || server.credential.is_none() || tries > 1 {
                break (link, answered);
            }
        };
        let answer = match answered {
            Ok(Ok(answer)) => answer,
            Ok(Err(refusal)) => return Err(refusal),
            Err(_) => {
                let reason = format!("it did not answer the handshake within {} s", HANDSHAKE_MAX.as_secs());
                return Err(Refusal::Unavailable { reason });
            }
        };
        let legacy = LegacyServer::of(request, &answer)?;
        let (barriers, barriers_reader) = mpsc::channel(16);
        let upstream = Arc::new(Upstream {
            server: legacy,
            link,
            next: AtomicU64::new(1),
            running: Mutex::default(),
            listeners: Mutex::default(),
            subscribed: AsyncMutex::default(),
            level: AsyncMutex::default(),
            barriers,
            last_used_us: AtomicU64::new(0),
            lost: AtomicBool::new(false),
            ended: self.calls_end().child_token(),
        });
        let ready = Message::notification("notifications/initialized", None).expect("a notification of ours");
        upstream.link.notify(&ready, &upstream.headers()).await.map_err(unavailable)?;
        // Taken before anybody else can.
        let unsolicited = upstream.link.unsolicited();
        tokio::spawn(hear(upstream.clone(), unsolicited, barriers_reader));
        self.opened_upstream(server, caller, &upstream, request);
        Ok(upstream)
    }

    /// The record of a session that Cairn opened itself.
    fn opened_upstream(&self, server: &Arc<Server>, caller: &Caller, upstream: &Arc<Upstream>, request: &Message) {
        let session = Session::new(self.start_towards(server, caller.clone(), Door::Http, upstream.clone()));
        let Ok(mut about) = Call::accept(self, &session, request.clone(), Arrival::pipe(), Direction::ToServer) else {
            return;
        };
        about.common.call_id = None;
        let object = |raw: Option<bytes::Bytes>| raw.and_then(|raw| serde_json::from_slice::<Value>(&raw).ok());
        let client = object(request.client_info_raw());
        let capabilities = object(request.client_capabilities_raw());
        let body = SessionOpened {
            client_info: self.implementation(client.as_ref()),
            server_info: self.implementation(upstream.server.info()),
            client_capabilities: capabilities
                .and_then(|found| found.as_object().map(|found| self.screen_object(found))),
            server_capabilities: Some(self.screen_object(upstream.server.capabilities())),
            requested_version: request.protocol_version().map(|version| self.screen(&version)),
            negotiated_version: Some(upstream.server.version().to_owned()),
            reason: Some("bridge".to_owned()),
        };
        let draft = about.draft(self, Body::SessionOpened(body));
        self.recorder().relaxed(draft);
    }

    /// What Cairn answers to a modern client by itself.
    pub(super) async fn serve_modern(
        &self,
        call: &mut Call,
        upstream: &Arc<Upstream>,
        reply: &mut Reply,
        cancelled: &CancellationToken,
    ) -> Here {
        match upstream.server.take(&call.message) {
            FromModern::Answer(raw) => Here::Result(raw),
            FromModern::Refuse(what) => Here::Refuse(what.into()),
            FromModern::Listen(filter) => self.serve_listen(call, upstream, filter, reply, cancelled).await,
            FromModern::Forward => {
                self.raise_level(call, upstream).await;
                Here::Forward
            }
        }
    }

    /// Legacy log levels are of a session, modern ones of a request: the session's becomes what the most curious request
    /// wanted, and each request gets no more than it asked for.
    async fn raise_level(&self, call: &Call, upstream: &Arc<Upstream>) {
        let Some(wanted) = ModernCall::of(&call.message).level.filter(|_| upstream.server.logs()) else { return };
        if call.method == "logging/setLevel" {
            return;
        }
        let mut level = upstream.level.lock().await;
        if level.is_some_and(|level| level <= wanted) {
            return;
        }
        let params = json!({ "level": wanted.name() });
        let said = self.call_within(&call.session, "logging/setLevel", params, Within::of(call)).await;
        if said.error_raw().is_none() {
            *level = Some(wanted);
        }
    }

    /// A listen stream that Cairn serves itself, from what the legacy server says unasked.
    async fn serve_listen(
        &self,
        call: &mut Call,
        upstream: &Arc<Upstream>,
        filter: Filter,
        reply: &mut Reply,
        cancelled: &CancellationToken,
    ) -> Here {
        // It may last for hours: what was decided is recorded now.
        for earlier in call.backlog.drain(..) {
            self.recorder().relaxed(earlier);
        }
        call.accepted_by_recorder = Accepted::Beginning;
        let (told, mut heard) = mpsc::channel(self.limits().client_queue_max);
        let _leaves = Leaves { upstream, call_id: call.call_id };
        upstream.listeners.lock().push(Listener { call_id: call.call_id, told });
        let mut subscriptions =
            Subscriptions { gateway: self.clone(), upstream: upstream.clone(), call: None, uris: vec![] };
        subscriptions.call = Some((call.session.clone(), Within::of(call)));
        for uri in &filter.uris {
            if let Err(refused) = subscriptions.add(uri).await {
                return Here::Error(refused);
            }
        }
        if reply.frame(Frame::from(filter.acknowledgement(&call.id))).await.is_err() {
            return Here::Cancelled;
        }
        loop {
            let message = tokio::select! {
                message = heard.recv() => message,
                () = cancelled.cancelled() => return Here::Cancelled,
                () = reply.gone() => return Here::Cancelled,
                () = upstream.ended.cancelled() => None,
                () = self.stop().cancelled() => None,
            };
            let Some(message) = message else {
                return Here::Result(Filter::end(&call.id).result_raw().unwrap_or_default());
            };
            let Ok(Some(message)) = filter.notification(&message, &call.id, self.wire_limits()) else { continue };
            let Some(frame) = self.from_server(&call.session, Frame::from(message), Some(call)).await else { continue };
            if reply.frame(frame).await.is_err() {
                return Here::Cancelled;
            }
        }
    }
}

/// The resources that one listener subscribed to; dropped, it unsubscribes those that nobody else wants.
struct Subscriptions {
    gateway: Gateway,
    upstream: Arc<Upstream>,
    call: Option<(Arc<Session>, Within)>,
    uris: Vec<String>,
}

impl Subscriptions {
    async fn add(&mut self, uri: &str) -> Result<(), Message> {
        let Some((session, within)) = self.call.clone() else { return Ok(()) };
        let mut subscribed = self.upstream.subscribed.lock().await;
        let wanted = subscribed.entry(uri.to_owned()).or_insert(0);
        if *wanted == 0 {
            let said = self.gateway.call_within(&session, "resources/subscribe", json!({ "uri": uri }), within).await;
            if said.error_raw().is_some() {
                subscribed.remove(uri);
                return Err(said);
            }
        }
        *subscribed.entry(uri.to_owned()).or_insert(0) += 1;
        self.uris.push(uri.to_owned());
        Ok(())
    }
}

impl Drop for Subscriptions {
    fn drop(&mut self) {
        let Some((session, within)) = self.call.take() else { return };
        let (gateway, upstream, uris) = (self.gateway.clone(), self.upstream.clone(), std::mem::take(&mut self.uris));
        tokio::spawn(async move {
            for uri in uris {
                let mut subscribed = upstream.subscribed.lock().await;
                let left = subscribed.get(&uri).copied().unwrap_or(0).saturating_sub(1);
                if left > 0 {
                    subscribed.insert(uri, left);
                    continue;
                }
                subscribed.remove(&uri);
                if !upstream.ended.is_cancelled() && upstream.is_usable() {
                    let params = json!({ "uri": uri });
                    gateway.call_within(&session, "resources/unsubscribe", params, within.clone()).await;
                }
            }
        });
    }
}

/// The handshake, on a link that nothing else was sent on.
async fn handshake(link: &dyn Link, request: &Message) -> Result<Message, Refusal> {
    let unavailable = |error: LinkError| Refusal::unavailable(&error);
    let prepared = link.prepare(request, &ForwardHeaders::default()).map_err(unavailable)?;
    let exchange = link.forward(prepared).await.map_err(unavailable)?;
    if matches!(exchange.status, 401 | 403) {
        return Err(Refusal::Unproven { reason: format!("it answered the handshake with HTTP {}", exchange.status) });
    }
    match exchange.content {
        Content::Json(message) => Ok(message),
        Content::Stream(mut frames) => loop {
            match frames.recv().await {
                Some(Ok(frame)) => {
                    if let Some(message) = frame.message.filter(|message| message.method().is_none()) {
                        return Ok(message);
                    }
                }
                Some(Err(error)) => return Err(unavailable(error)),
                None => return Err(NotBridged::Handshake { reason: "nothing".to_owned() }.into()),
            }
        },
        Content::Empty | Content::Other { .. } => {
            Err(NotBridged::Handshake { reason: format!("HTTP status {}", exchange.status) }.into())
        }
    }
}

/// Reads what the server says beside its answers, until the session ends.
async fn hear(
    upstream: Arc<Upstream>,
    unsolicited: Option<mpsc::Receiver<Frame>>,
    mut barriers: mpsc::Receiver<oneshot::Sender<()>>,
) {
    if let Some(mut frames) = unsolicited {
        loop {
            tokio::select! {
                // Frames first: when a barrier is answered, everything that came before it has found its way.
                biased;
                frame = frames.recv() => match frame {
                    Some(frame) => if let Some(message) = frame.message { upstream.heard(message).await },
                    None => break,
                },
                Some(barrier) = barriers.recv() => { let _ = oneshot::Sender::send(barrier, ()); }
                () = upstream.ended.cancelled() => return,
            }
        }
        upstream.ended.cancel();
        return;
    }
    let listening = async {
        // A server without such a stream says so, and nothing is missed.
        while let Ok(exchange) = upstream.link.listen(&upstream.headers()).await {
            let Content::Stream(mut frames) = exchange.content else { break };
            while let Some(Ok(frame)) = frames.recv().await {
                if let Some(message) = frame.message {
                    upstream.heard(message).await;
                }
            }
            tokio::time::sleep(STREAM_PAUSE).await;
        }
        std::future::pending::<()>().await;
    };
    let caught_up = async {
        // Streams of HTTP have no order among them.
        while let Some(barrier) = barriers.recv().await {
            let _ = oneshot::Sender::send(barrier, ());
        }
    };
    tokio::select! {
        () = listening => {}
        () = caught_up => {}
        () = upstream.ended.cancelled() => {}
    }
}
