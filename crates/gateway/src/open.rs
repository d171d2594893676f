//! How a message finds its session: which link, which era, whose.
//!
//! Modern requests of one principal share a scope; a legacy `initialize` over HTTP opens a session of its own; every
//! other legacy request names one. A pipe has one session for all its life.

use std::sync::Arc;

use cairn_contract::{Body, SessionClosed};
use cairn_identity::{Identity, Reason};
use cairn_mcp::{
    Content, Link, LinkError, Message, Unreached,
    bridge::{NotBridged, Offer},
    era::Era,
    headers,
};
use http::HeaderMap;
use tokio::sync::{Semaphore, mpsc};

use crate::{
    Gateway, Refusal,
    arrival::Arrival,
    bridge::{Bridge, ToModern, Upstream},
    call::Call,
    door::http::{Early, session_header},
    eras::Plan,
    reply::{Part, Reply},
    resume::is_answer,
    session::{Caller, Door, Session, SessionStart},
    upstream::Server,
};

impl Gateway {
    /// Whoever comes by a pipe is the local user.
    pub(crate) fn local(&self) -> Caller {
        Caller::from(&Identity::local(&self.options().local_principal))
    }

    /// Holds the headers of a modern request to its body.
    pub(crate) fn agree(
        &self,
        server: &Server,
        head: &HeaderMap,
        message: &Message,
    ) -> Result<(), headers::HeaderFault> {
        let annotations = match message.target() {
            Some(cairn_mcp::Target::Tool(name)) => server.catalogue.annotations(&name),
            _ => Arc::default(),
        };
        headers::check(head, message, &annotations)
    }

    /// The session of a message that came over HTTP.
    pub(crate) async fn session_for(
        &self,
        server: &Arc<Server>,
        who: &Identity,
        head: &HeaderMap,
        message: &Message,
    ) -> Result<Arc<Session>, Early> {
        let caller = Caller::from(who);
        if message.is_modern() {
            let shared = match server.plan(Era::Modern, &caller).await {
                Plan::ToLegacy => return self.bridged_session(server, caller, message).await,
                Plan::Unreachable(error) => Err(error),
                _ => server.shared_link(&caller, self.entropy()).await,
            };
            let (link, places) = shared.unwrap_or_else(|error| (unreached(error), server.places(&caller)));
            let session = Session::new(SessionStart { places, ..self.session_start(server, caller, Door::Http, link) });
            self.pump(&session);
            return Ok(session);
        }
        if let Some(id) = session_header(head)
            && let Some(session) = self.session_of(server, who, id)
        {
            // The stream of a 2024-11-05 server is its session: once it has ended, only a new handshake opens another.
            if server.is_legacy_by_transport() && !session.link.is_open() {
                self.end_session(&session, "the server's stream ended").await;
                return Err(Early::NoSession("the server ended this session; send initialize again"));
            }
            return Ok(session);
        }
        let plan = server.plan(Era::Legacy, &caller).await;
        // Whether the server keeps the session, not we: then it outlives a restart of the gateway.
        let relays = server.is_http() && !matches!(plan, Plan::ToModern(_));
        let known = if relays { session_header(head) } else { None };
        if let Plan::Unreachable(error) = plan {
            let session = Session::new(self.session_start(server, caller, Door::Http, unreached(error)));
            *session.secret.lock() = known.map(ToOwned::to_owned);
            return Ok(session);
        }
        if let Some(id) = session_header(head) {
            // A session that only its server knows could be anybody's, so where there are several somebodies it is nobody's.
            if !relays || self.sessions().holds(server, id) || !self.access().verifier.is_local_only() {
                return Err(Early::NoSession("no such session: it ended or never was; send initialize again"));
            }
            let place = self.admit_session().map_err(Early::Refused)?;
            let link = server.own_link(&caller, self.entropy()).await.unwrap_or_else(unreached);
            let start = self.session_start(server, caller, Door::Http, link);
            let session = Session::new(SessionStart { place: Some(place), ..start });
            *session.secret.lock() = Some(id.to_owned());
            self.sessions().keep(&session, id);
            return Ok(session);
        }
        if message.method() != Some("initialize") && !relays {
            return Err(Early::NoSession(
                "a legacy request names its session in Mcp-Session-Id; send initialize first",
            ));
        }
        let place = self.admit_session().map_err(Early::Refused)?;
        let start = match plan {
            Plan::ToModern(offer) => {
                self.start_from_legacy(server, caller, Door::Http, offer).await.map_err(unavailable)?
            }
            Plan::Impossible(why) => return Err(Early::Refused(why.into())),
            Plan::Relay | Plan::ToLegacy | Plan::Unreachable(_) => {
                let link = server.own_link(&caller, self.entropy()).await.unwrap_or_else(unreached);
                self.session_start(server, caller, Door::Http, link)
            }
        };
        let session = Session::new(SessionStart { place: Some(place), ..start });
        self.pump(&session);
        Ok(session)
    }

    /// The sender's session of that id. To whom it does not belong it is not there.
    pub(crate) fn session_of(&self, server: &Server, who: &Identity, id: &str) -> Option<Arc<Session>> {
        let found = self.sessions().find(server, &Caller::from(who), id);
        if found.is_none() && self.sessions().holds(server, id) {
            self.note_trespass(Reason::SessionOther, who, &server.name);
        }
        found
    }

    /// How a legacy client's session with a modern server starts, which Cairn keeps itself.
    pub(crate) async fn start_from_legacy(
        &self,
        server: &Arc<Server>,
        caller: Caller,
        door: Door,
        offer: Arc<Offer>,
    ) -> Result<SessionStart, LinkError> {
        let (link, _) = server.shared_link(&caller, self.entropy()).await?;
        let bridge = Bridge::ToModern(Arc::new(ToModern::new(offer)));
        Ok(SessionStart { bridge, ..self.session_start(server, caller, door, link) })
    }

    /// How a modern client's way through a legacy session starts that Cairn holds for it.
    pub(crate) fn start_towards(
        &self,
        server: &Arc<Server>,
        caller: Caller,
        door: Door,
        upstream: Arc<Upstream>,
    ) -> SessionStart {
        let places = server.places(&caller);
        let (link, ended) = (upstream.link.clone(), upstream.ended.child_token());
        let bridge = Bridge::ToLegacy(upstream);
        SessionStart { bridge, places, ended, ..self.session_start(server, caller, door, link) }
    }

    /// How a session starts whose client and server speak the same era.
    pub(crate) fn session_start(
        &self,
        server: &Arc<Server>,
        caller: Caller,
        door: Door,
        link: Arc<dyn Link>,
    ) -> SessionStart {
        SessionStart {
            server: server.clone(),
            caller,
            door,
            link,
            connection: self.entropy().uuid_v7(self.clock().now()).to_string(),
            shared_workflow: None,
            queue: self.limits().client_queue_max,
            places: self.client_places(),
            place: None,
            now: self.clock().now(),
            bridge: Bridge::None,
            ended: self.calls_end().child_token(),
            outward: None,
        }
    }

    pub(crate) fn client_places(&self) -> Arc<Semaphore> {
        Arc::new(Semaphore::new(self.limits().calls_per_client_max))
    }

    /// The legacy GET stream of a session: the server's own where it speaks HTTP, else what its child says unasked.
    pub(crate) async fn open_stream(
        &self,
        session: &Arc<Session>,
        head: &HeaderMap,
    ) -> Result<mpsc::Receiver<Part>, Early> {
        let (mut reply, parts) = Reply::channel(self.limits().client_queue_max, true);
        if !session.relays_http() {
            if head.contains_key("last-event-id") && !session.owns_link() {
                return Err(Early::Refused(NotBridged::Resumption.into()));
            }
            let Some(mut frames) = session.outward_reader.lock().take() else {
                return Err(Early::Status(409));
            };
            let (gateway, session) = (self.clone(), session.clone());
            tokio::spawn(async move {
                if reply.stream(None).await.is_ok() {
                    loop {
                        let frame = tokio::select! {
                            frame = frames.recv() => frame,
                            () = reply.gone() => None,
                            () = session.ended.cancelled() => None,
                            () = gateway.stop().cancelled() => None,
                        };
                        let Some(frame) = frame else { break };
                        if reply.frame(frame).await.is_err() {
                            break;
                        }
                    }
                }
                // The next GET of this session goes on where this one stopped.
                *session.outward_reader.lock() = Some(frames);
            });
            return Ok(parts);
        }
        let negotiated = session.claims.lock().protocol_version.clone();
        let headers = Arrival::http(head).forward(negotiated);
        let exchange = session.link.listen(&headers).await.map_err(unavailable)?;
        let Content::Stream(mut frames) = exchange.content else { return Err(Early::Status(exchange.status)) };
        let (gateway, session) = (self.clone(), session.clone());
        let onward = reply.watch();
        tokio::spawn(async move {
            if reply.stream(None).await.is_err() {
                return;
            }
            loop {
                let frame = tokio::select! {
                    frame = frames.recv() => frame,
                    () = reply.gone() => None,
                    () = session.ended.cancelled() => None,
                    () = gateway.stop().cancelled() => None,
                };
                let Some(Ok(frame)) = frame else { break };
                let frame = match frame {
                    // A resumed stream carries the answers of calls whose own stream ended early.
                    frame if is_answer(&frame) => session.join(frame, &onward),
                    frame => gateway.from_server(&session, frame, None).await,
                };
                let Some(frame) = frame else { continue };
                if reply.frame(frame).await.is_err() {
                    break;
                }
            }
        });
        Ok(parts)
    }

    /// Ends a session: its calls are cancelled, its server is told.
    pub(crate) async fn end_session(&self, session: &Arc<Session>, reason: &str) {
        self.sessions().forget(session);
        if session.ended.is_cancelled() {
            return;
        }
        session.ended.cancel();
        if session.owns_link() {
            session.link.close().await;
        }
        let message = Message::notification("session/closed", None).expect("a notification of ours is a message");
        if let Ok(mut about) =
            Call::accept(self, session, message, Arrival::pipe(), cairn_contract::Direction::ToServer)
        {
            about.common.call_id = None;
            about.common.mcp_method_name = None;
            let body = SessionClosed { reason: reason.to_owned(), ..SessionClosed::default() };
            let draft = about.draft(self, Body::SessionClosed(body));
            self.recorder().relaxed(draft);
        }
    }

    /// Closes sessions without traffic, until the gateway stops. Run once.
    pub async fn tend_sessions(&self) {
        let every = self.limits().session_idle_max.min(std::time::Duration::from_secs(30));
        loop {
            tokio::select! {
                () = self.stop().cancelled() => return,
                () = tokio::time::sleep(every) => {}
            }
            for session in self.sessions().idle(self.clock().now(), self.limits().session_idle_max) {
                self.end_session(&session, "idle").await;
            }
            for server in self.servers() {
                server.bridges.end_idle(self.clock().now(), self.limits().session_idle_max).await;
            }
            self.credentials().tend();
            self.tend_tasks();
        }
    }
}

fn unavailable(error: LinkError) -> Early {
    Early::Refused(Refusal::unavailable(&error))
}

/// The link of a call to a server that could not be reached: the call lives, and ends with that.
pub(crate) fn unreached(error: LinkError) -> Arc<dyn Link> {
    Arc::new(Unreached::new(error))
}
