//! Messages that are no client requests: notifications either way, requests of the server, and answers to those.
//!
//! A request of the server is a call of its own in the other direction: decision, intent, outcome. What policy denies is
//! answered to the server with an error and never reaches the client. Notifications leave `notice.passed`; progress is
//! counted, not recorded one by one. Called by the doors and by the step that forwards.

use std::{sync::Arc, time::Duration};

use cairn_backbone::Planned;
use cairn_contract::{Body, CallIntent, CallOutcome, Direction, Effect, NoticePassed, Outcome};
use cairn_mcp::{Frame, Kind, Message, RawId};
use tokio::sync::oneshot;

use crate::{
    Gateway, Refusal,
    arrival::Arrival,
    bridge::{Bridge, Within},
    call::{Call, outcome_of},
    session::{Asked, Door, Session},
};

/// A request to the client, under way.
#[derive(Debug)]
pub(crate) struct Asking {
    /// Whether the client may see it.
    pub(crate) opened: oneshot::Receiver<Result<(), Refusal>>,
    /// How it ended, once its outcome is recorded.
    pub(crate) done: oneshot::Receiver<Done>,
}

/// How a request to the client ended.
#[derive(Debug)]
pub(crate) enum Done {
    /// With the client's answer, which may be an error.
    Answered(Message),
    /// The client took too long.
    TimedOut,
    /// Nobody waits for the answer any more.
    Gone,
}

impl Gateway {
    /// A notification of the client, or its answer to a request of the server.
    ///
    /// # Errors
    /// Where the server cannot be reached.
    #[allow(clippy::wrong_self_convention, reason = "a direction, not a conversion")]
    pub(crate) async fn from_client(
        &self,
        session: &Arc<Session>,
        message: Message,
        arrival: &Arrival,
    ) -> Result<(), Refusal> {
        session.touch(self.clock().now());
        if matches!(message.kind(), Kind::Response | Kind::Error) {
            let asked = message.id().and_then(|id| session.asked.lock().remove(id));
            match asked {
                // The task that asked may have given up in the same moment.
                Some(asked) => drop(asked.answered.send(message)),
                None => tracing::debug!("an answer to no open request of the server was not passed on"),
            }
            return Ok(());
        }
        if message.method() == Some("notifications/cancelled") {
            let token = message.cancelled_id().and_then(|id| session.in_flight.lock().get(&id).cloned());
            if let Some(token) = token {
                self.notice(session, &message, Direction::ToServer, None);
                token.cancel(); // the call itself tells the server, under the id that it has there
                return Ok(());
            }
        }
        match &session.bridge {
            Bridge::None => {}
            // Neither era has a notification of the client's, besides the cancellation above, that the other would read.
            Bridge::ToModern(client) => {
                self.noticed_by_bridge(session, client, &message);
                return Ok(());
            }
            Bridge::ToLegacy(_) => return Ok(()),
        }
        let negotiated = session.claims.lock().protocol_version.clone();
        self.notice(session, &message, Direction::ToServer, None);
        session
            .link
            .notify(&message, &arrival.forward(negotiated))
            .await
            .map_err(|error| Refusal::unavailable(&error))?;
        let listens = session.door == Door::Pipe && session.server.is_http();
        if listens && message.method() == Some("notifications/initialized") {
            self.listen_for_pipe(session);
        }
        Ok(())
    }

    /// A message of the server that is no final response. Returns what the client gets.
    #[allow(clippy::wrong_self_convention, reason = "a direction, not a conversion")]
    pub(crate) async fn from_server(&self, session: &Arc<Session>, frame: Frame, call: Option<&Call>) -> Option<Frame> {
        let Some(message) = &frame.message else { return Some(frame) };
        match message.kind() {
            Kind::Notification => {
                self.notice(session, message, Direction::ToClient, call);
                self.task_noticed(session, message);
                Some(frame)
            }
            Kind::Request => {
                let message = message.clone();
                self.ask(session, message, call).await.then_some(frame)
            }
            // A response that no call waits for: it came after its outcome.
            Kind::Response | Kind::Error => {
                tracing::debug!(server = %session.server.name, "a late response was not passed on");
                None
            }
        }
    }

    /// Records that a notification passed.
    fn notice(&self, session: &Arc<Session>, message: &Message, direction: Direction, call: Option<&Call>) {
        let method = message.method().unwrap_or_default();
        if method == "notifications/progress" {
            self.metrics().progress_notices.inc();
            return;
        }
        let Ok(mut about) = Call::accept(self, session, message.clone(), Arrival::pipe(), direction) else { return };
        let belongs_to = call.map(|call| call.call_id.to_string());
        if let Some(call) = call {
            about.common.workflow_id.clone_from(&call.common.workflow_id);
            about.common.trace_id.clone_from(&call.common.trace_id);
            about.common.span_id.clone_from(&call.common.span_id);
            about.trace = call.trace.clone();
        }
        about.common.call_id = call.map(|call| call.call_id);
        self.keep_arguments(&mut about);
        let notice = about.arguments.take();
        let changed = (method == "notifications/resources/updated").then(|| message.param_str("uri")).flatten();
        let draft = about.draft(self, Body::NoticePassed(NoticePassed { belongs_to, notice }));
        self.recorder().relaxed(draft);
        if let Some(uri) = changed {
            self.was_told_of_change(&mut about, &uri);
        }
    }

    /// A request of the server, passed on as it came: its call begins, and the client's answer goes back in the background.
    /// False where the client must not see it.
    async fn ask(&self, session: &Arc<Session>, message: Message, within: Option<&Call>) -> bool {
        let id = message.id().cloned().unwrap_or_else(RawId::null);
        let limit = self.limits().call_timeout;
        let most = self.limits().calls_per_client_max;
        if session.asked.lock().len() >= most {
            let refusal = Refusal::Busy { setting: "calls_per_client_max", limit: most as u64 };
            self.metrics().refused(refusal.word());
            self.answer_server(session, &refusal.response(Some(&id))).await;
            return false;
        }
        let (answered, answer) = oneshot::channel();
        let asking = self.begin_ask(session, message, within, answer, limit);
        match asking.opened.await {
            Ok(Ok(())) => {}
            Ok(Err(refusal)) => {
                self.answer_server(session, &refusal.response(Some(&id))).await;
                return false;
            }
            Err(_) => return false,
        }
        session.asked.lock().insert(id.clone(), Asked { answered });
        let (gateway, session) = (self.clone(), session.clone());
        tokio::spawn(async move {
            let done = asking.done.await;
            session.asked.lock().remove(&id);
            match done {
                Ok(Done::Answered(message)) => gateway.answer_server(&session, &message).await,
                Ok(Done::TimedOut) => {
                    let refusal = Refusal::TimedOut { after_ms: limit.as_millis() as u64 };
                    gateway.answer_server(&session, &refusal.response(Some(&id))).await;
                }
                Ok(Done::Gone) | Err(_) => {}
            }
        });
        true
    }

    /// Begins the call of a request to the client: decides and records the intent; then the client may see it, and what
    /// comes through `answer` ends it, or time, or `answer` being dropped. A task of its own, so that the call gets its
    /// outcome whatever becomes of who began it.
    pub(crate) fn begin_ask(
        &self,
        session: &Arc<Session>,
        message: Message,
        within: Option<&Call>,
        answer: oneshot::Receiver<Message>,
        limit: Duration,
    ) -> Asking {
        let (open, opened) = oneshot::channel();
        let (end, done) = oneshot::channel();
        let within = within.map(Within::of);
        let (gateway, session) = (self.clone(), session.clone());
        tokio::spawn(async move {
            match gateway.open_ask(&session, message, within).await {
                Ok(call) => {
                    let _ = open.send(Ok(()));
                    let _ = end.send(gateway.await_client(call, answer, limit).await);
                }
                Err(refusal) => {
                    let _ = open.send(Err(refusal));
                }
            }
        });
        Asking { opened, done }
    }

    pub(crate) async fn open_ask(
        &self,
        session: &Arc<Session>,
        message: Message,
        within: Option<Within>,
    ) -> Result<Call, Refusal> {
        let forwarded = self.payload_digest(&session.caller, message.bytes());
        let arrival = Arrival { within, ..Arrival::default() };
        let accepted = Call::accept(self, session, message, arrival, Direction::ToClient);
        let mut call = accepted.map_err(|(_, refusal)| refusal)?;
        let refusal = match self.decide(&mut call).await {
            Err(refusal) => (Outcome::Denied, refusal),
            // Nothing holds a request of a server's, so one that must be approved goes nowhere.
            Ok(permit) if permit.approval().is_some() => (Outcome::Denied, Refusal::unheld(&permit)),
            Ok(permit) => {
                let intent = CallIntent {
                    target: call.shown.clone(),
                    arguments: call.arguments.clone(),
                    durability: call.durability,
                    forwarded,
                    policy_version: permit.version().to_owned(),
                    upstream: None,
                    upstream_protocol_version: None,
                    upstream_network_transport: None,
                    repeats: None,
                    writes: Vec::new(),
                    invocation: None,
                    rewritten: None,
                };
                let draft = call.draft(self, Body::CallIntent(intent));
                match self.record(&mut call, draft).await {
                    Ok(()) => return Ok(call),
                    Err(error) => (Outcome::Failed, Refusal::NotRecorded { reason: error.to_string() }),
                }
            }
        };
        let (outcome, refusal) = refusal;
        let draft = self.asked_outcome(&mut call, outcome, Effect::None, None);
        if let Err(error) = self.record(&mut call, draft).await {
            tracing::warn!(%error, "the outcome of a refused request of the server is not recorded");
        }
        Err(refusal)
    }

    /// Waits for the client's answer to a request of the server, and records the outcome.
    async fn await_client(&self, mut call: Call, answer: oneshot::Receiver<Message>, limit: Duration) -> Done {
        let session = call.session.clone();
        let (outcome, effect, message) = tokio::select! {
            answered = answer => match answered {
                Ok(message) if message.kind() == Kind::Error => (Outcome::Failed, Effect::Answered, Some(message)),
                Ok(message) => (Outcome::Completed, Effect::Answered, Some(message)),
                Err(_) => (Outcome::Cancelled, Effect::Unknown, None),
            },
            () = session.ended.cancelled() => (Outcome::Cancelled, Effect::Unknown, None),
            () = tokio::time::sleep(limit) => (Outcome::TimedOut, Effect::Unknown, None),
        };
        let draft = self.asked_outcome(&mut call, outcome, effect, message.as_ref());
        if let Err(error) = self.record(&mut call, draft).await {
            tracing::warn!(%error, call_id = %call.call_id, "the outcome of a request of the server is not recorded");
        }
        match message {
            Some(message) => Done::Answered(message),
            None if outcome == Outcome::TimedOut => Done::TimedOut,
            None => Done::Gone,
        }
    }

    pub(crate) fn asked_outcome(
        &self,
        call: &mut Call,
        outcome: Outcome,
        effect: Effect,
        message: Option<&Message>,
    ) -> Planned {
        self.count(call, outcome);
        let result = message.and_then(|message| self.kept_answer(call, message));
        let body = CallOutcome {
            rpc_response_status_code: message.and_then(Message::error_code),
            result,
            elapsed_us: Some(call.accepted.elapsed().as_micros() as u64),
            ..outcome_of(outcome, effect)
        };
        call.draft(self, Body::CallOutcome(body))
    }

    async fn answer_server(&self, session: &Session, message: &Message) {
        let headers = Arrival::pipe().forward(session.claims.lock().protocol_version.clone());
        let headers = cairn_mcp::ForwardHeaders { session_id: session.secret.lock().clone(), ..headers };
        if let Err(error) = session.link.notify(message, &headers).await {
            tracing::debug!(%error, "an answer to the server could not be delivered");
        }
    }
}
