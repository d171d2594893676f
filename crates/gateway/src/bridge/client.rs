//! A legacy client of a modern server: the session that Cairn keeps for it, rounds of input, subscriptions.
//!
//! A round is a retry of the whole request and a call of its own. What the server asks between two rounds goes to the
//! client as the requests that it knows, each a call of its own in the other direction. Subscriptions and list changes
//! are `subscriptions/listen` calls that live as long as the session needs them, and are made again when they end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use cairn_contract::{Direction, LinkedBy};
use cairn_mcp::{
    EditError, Frame, Limits as WireLimits, Message, RawId,
    bridge::{FromLegacy, Input, LegacyClient, Offer, ROUNDS_MAX, SUBSCRIPTIONS_MAX},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{Mutex as AsyncMutex, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Bridge, Here, Within};
use crate::{
    Gateway, Refusal,
    arrival::Arrival,
    call::Call,
    life::Answer,
    notices::Done,
    pump::pass,
    reply::{Part, Reply},
    session::{Asked, Session},
};

/// The pause before a subscription that ended is made again; it doubles each time.
const LISTEN_PAUSE_MIN: Duration = Duration::from_millis(500);
/// The longest such pause.
const LISTEN_PAUSE_MAX: Duration = Duration::from_secs(60);

/// What Cairn keeps for one legacy client of a modern server.
#[derive(Debug)]
pub(crate) struct ToModern {
    pub(crate) offer: Arc<Offer>,
    client: Mutex<LegacyClient>,
    next: AtomicU64,
    /// Whether the client was seen to be ready for notifications.
    ready: AtomicBool,
    subscribed: AsyncMutex<Subscribed>,
}

#[derive(Debug, Default)]
struct Subscribed {
    uris: Vec<String>,
    /// Ends the listening that covers them.
    listening: Option<CancellationToken>,
}

/// What follows a round.
pub(crate) enum Next {
    /// Another one.
    Round(Box<Call>),
    /// The answer.
    Answer(Answer),
}

impl ToModern {
    pub(crate) fn new(offer: Arc<Offer>) -> Self {
        Self {
            offer,
            client: Mutex::default(),
            next: AtomicU64::new(1),
            ready: AtomicBool::new(false),
            subscribed: AsyncMutex::default(),
        }
    }

    fn next_id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn outbound(&self, message: &Message, limits: &WireLimits) -> Result<Message, EditError> {
        let id = RawId::integer(self.next_id());
        self.client.lock().outbound(message, &id, &self.offer, limits)
    }

    pub(super) fn answer(&self, call: &Call, message: &Message, limits: &WireLimits) -> Result<Message, EditError> {
        self.client.lock().answer(&call.method, message, &call.id, limits)
    }
}

impl Gateway {
    /// What Cairn answers to a legacy client by itself.
    pub(super) async fn serve_legacy(&self, call: &mut Call, client: &Arc<ToModern>) -> Here {
        let empty = Here::Result(b"{}"[..].into());
        let taken = client.client.lock().take(&call.message, &client.offer);
        match taken {
            FromLegacy::Open => Here::Result(client.client.lock().open(&call.message, &client.offer)),
            FromLegacy::Empty => empty,
            FromLegacy::SetLevel(level) => {
                client.client.lock().set_level(level);
                empty
            }
            FromLegacy::Subscribe(uri) => match self.subscribe(call, client, uri).await {
                Ok(()) => empty,
                Err(here) => here,
            },
            FromLegacy::Unsubscribe(uri) => match self.unsubscribe(call, client, &uri).await {
                Ok(()) => empty,
                Err(here) => here,
            },
            FromLegacy::Forward => Here::Forward,
            FromLegacy::Refuse(what) => Here::Refuse(what.into()),
        }
    }

    /// What a notification of a legacy client means to Cairn; none of them has an equal in the modern era.
    pub(crate) fn noticed_by_bridge(&self, session: &Arc<Session>, client: &Arc<ToModern>, message: &Message) {
        if message.method() != Some("notifications/initialized") || client.ready.swap(true, Ordering::AcqRel) {
            return;
        }
        let Some(filter) = client.offer.list_changes() else { return };
        let (gateway, session) = (self.clone(), session.clone());
        tokio::spawn(async move {
            if let Err(refused) = gateway.listen(&session, filter, None).await {
                tracing::debug!(error = ?refused.error_message(), "list changes are not listened to");
            }
        });
    }

    /// After a round: its answer, or another round where the server needs input that the client gives.
    pub(crate) async fn next_round(
        &self,
        call: &mut Call,
        answer: Answer,
        reply: &mut Reply,
        cancelled: &CancellationToken,
    ) -> Next {
        let (Bridge::ToModern(client), Answer::Message { message, .. }) = (call.session.bridge.clone(), &answer) else {
            return Next::Answer(self.for_client(call, answer));
        };
        if call.method == "subscriptions/listen" {
            return Next::Answer(self.for_client(call, answer));
        }
        let read = client.client.lock().input(message);
        let input = match read {
            Ok(None) => return Next::Answer(self.for_client(call, answer)),
            Ok(Some(input)) => input,
            Err(what) => return Next::Answer(own(call, &what.into())),
        };
        let round = call.common.round.unwrap_or(1);
        if round >= ROUNDS_MAX {
            return Next::Answer(own(call, &Refusal::TooManyRounds { limit: ROUNDS_MAX }));
        }
        let retried = tokio::select! {
            retried = self.gather(call, &client, input, reply) => retried,
            () = cancelled.cancelled() => return Next::Answer(Answer::Nothing),
        };
        let retry = match retried {
            Ok(retry) => retry,
            Err(refusal) => return Next::Answer(own(call, &refusal)),
        };
        let arrival = Arrival { within: Some(Within::of(call)), ..call.arrival.clone() };
        match Call::accept(self, &call.session, retry, arrival, Direction::ToServer) {
            Ok(mut next) => {
                next.common.round = Some(round + 1);
                next.common.linked_by = Some(LinkedBy::RequestState);
                Next::Round(Box::new(next))
            }
            Err((_, refusal)) => Next::Answer(own(call, &refusal)),
        }
    }

    /// Asks the client for everything that the server needs, and builds the retry.
    async fn gather(
        &self,
        call: &Call,
        client: &Arc<ToModern>,
        input: Input,
        reply: &mut Reply,
    ) -> Result<Message, Refusal> {
        let mut answers = Vec::with_capacity(input.requests.len());
        let unfit = |error: EditError| Refusal::TooLarge { reason: error.to_string() };
        for request in &input.requests {
            let id = RawId::text(&format!("cairn-{}", client.next_id()));
            let asked = client.client.lock().ask(request, &id, self.wire_limits()).map_err(unfit)?;
            let answer = self.ask_client(call, asked, reply).await?;
            let Some(result) = answer.result_raw() else {
                return Err(Refusal::InputRefused { reason: answer.error_message().unwrap_or_default() });
            };
            answers.push((request.key.clone(), result));
        }
        let retry = client.client.lock().retry(&call.message, &answers, input.state.as_ref(), self.wire_limits());
        retry.map_err(unfit)
    }

    /// One request to the client, as a call of its own, and the client's answer.
    async fn ask_client(&self, call: &Call, asked: Message, reply: &mut Reply) -> Result<Message, Refusal> {
        let session = &call.session;
        let (answered, answer) = oneshot::channel();
        let id = asked.id().cloned().unwrap_or_else(RawId::null);
        session.asked.lock().insert(id.clone(), Asked { answered });
        let limit = self.limits().call_timeout;
        let _forgotten = Forgotten { session, id: &id };
        let asking = self.begin_ask(session, asked.clone(), Some(call), answer, limit);
        let gone = || Refusal::InputRefused { reason: "the client is gone".to_owned() };
        asking.opened.await.unwrap_or_else(|_| Err(gone()))?;
        if reply.can_stream() {
            let _ = reply.frame(Frame::from(asked)).await;
        } else {
            pass(session, Frame::from(asked)).await;
        }
        match asking.done.await {
            Ok(Done::Answered(message)) => Ok(message),
            Ok(Done::TimedOut) => Err(Refusal::InputRefused {
                reason: format!("it did not answer within {} ms (call_timeout_ms)", limit.as_millis()),
            }),
            Ok(Done::Gone) | Err(_) => Err(gone()),
        }
    }

    async fn subscribe(&self, call: &Call, client: &Arc<ToModern>, uri: String) -> Result<(), Here> {
        let mut subscribed = client.subscribed.lock().await;
        if subscribed.uris.contains(&uri) {
            return Ok(());
        }
        if subscribed.uris.len() >= SUBSCRIPTIONS_MAX {
            let limit = SUBSCRIPTIONS_MAX as u64;
            return Err(Here::Refuse(Refusal::Busy { setting: "subscriptions_max", limit }));
        }
        let mut uris = subscribed.uris.clone();
        uris.push(uri);
        self.resubscribe(call, &mut subscribed, uris).await
    }

    async fn unsubscribe(&self, call: &Call, client: &Arc<ToModern>, uri: &str) -> Result<(), Here> {
        let mut subscribed = client.subscribed.lock().await;
        let uris: Vec<String> = subscribed.uris.iter().filter(|known| *known != uri).cloned().collect();
        if uris.len() == subscribed.uris.len() {
            return Ok(());
        }
        self.resubscribe(call, &mut subscribed, uris).await
    }

    /// Listens to these resources instead. The new listening begins before the old one ends, so that nothing is missed.
    async fn resubscribe(&self, call: &Call, subscribed: &mut Subscribed, uris: Vec<String>) -> Result<(), Here> {
        let listening = if uris.is_empty() {
            None
        } else {
            let filter = json!({ "resourceSubscriptions": uris });
            let listening = self.listen(&call.session, filter, Some(Within::of(call))).await;
            Some(listening.map_err(|refused| Here::Error(*refused))?)
        };
        if let Some(before) = std::mem::replace(&mut subscribed.listening, listening) {
            before.cancel();
        }
        subscribed.uris = uris;
        Ok(())
    }

    /// Listens at the server for as long as the session lasts or the token lets it, and passes on what comes. Returns
    /// once the server has acknowledged it.
    async fn listen(
        &self,
        session: &Arc<Session>,
        filter: Value,
        within: Option<Within>,
    ) -> Result<CancellationToken, Box<Message>> {
        let stop = session.ended.child_token();
        let (ready, acknowledged) = oneshot::channel();
        let listening =
            Listening { gateway: self.clone(), session: session.clone(), filter, within, stop: stop.clone() };
        tokio::spawn(listening.run(ready));
        match acknowledged.await {
            Ok(Ok(())) => Ok(stop),
            Ok(Err(refused)) => Err(refused),
            Err(_) => Err(Box::new(Refusal::Cancelled.response(None))),
        }
    }
}

/// Forgets a request to the client when nobody waits for it any more, which ends it.
struct Forgotten<'a> {
    session: &'a Session,
    id: &'a RawId,
}

impl Drop for Forgotten<'_> {
    fn drop(&mut self) {
        self.session.asked.lock().remove(self.id);
    }
}

type Ready = oneshot::Sender<Result<(), Box<Message>>>;

/// One subscription on behalf of a client.
struct Listening {
    gateway: Gateway,
    session: Arc<Session>,
    filter: Value,
    within: Option<Within>,
    stop: CancellationToken,
}

impl Listening {
    async fn run(self, ready: Ready) {
        let mut ready = Some(ready);
        let mut pause = LISTEN_PAUSE_MIN;
        loop {
            let was_acknowledged = self.once(&mut ready).await;
            if self.stop.is_cancelled() || ready.is_none() && !was_acknowledged && pause >= LISTEN_PAUSE_MAX {
                return;
            }
            if ready.is_some() {
                return; // it never began: whoever asked for it has been told
            }
            pause = if was_acknowledged { LISTEN_PAUSE_MIN } else { pause.saturating_mul(2).min(LISTEN_PAUSE_MAX) };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// One listen request, to its end. Says whether the server acknowledged it.
    async fn once(&self, ready: &mut Option<Ready>) -> bool {
        let id = RawId::text(&format!("cairn-{}", self.gateway.new_secret()));
        let params = json!({ "notifications": self.filter }).to_string();
        let message = Message::request(&id, "subscriptions/listen", Some(params.as_bytes()))
            .expect("a request of ours is a message");
        let (reply, mut parts) = Reply::channel(self.gateway.limits().client_queue_max, true);
        let arrival = Arrival { within: self.within.clone(), ..Arrival::default() };
        self.gateway.start(self.session.clone(), message, arrival, reply);
        let mut was_acknowledged = false;
        loop {
            let part = tokio::select! {
                part = parts.recv() => part,
                // Dropping the parts is how this client of its own goes away: the call is cancelled.
                () = self.stop.cancelled() => return was_acknowledged,
            };
            match part {
                Some(Part::Frame(Frame { message: Some(message), .. })) => {
                    if message.method() == Some("notifications/subscriptions/acknowledged") {
                        was_acknowledged = true;
                        let refused = self.refused(&message);
                        if let Some(ready) = ready.take() {
                            let _ = ready.send(refused.map_or(Ok(()), |refused| Err(Box::new(refused))));
                        }
                        continue;
                    }
                    let Bridge::ToModern(client) = &self.session.bridge else { return false };
                    let told = client.client.lock().notification(&message, self.gateway.wire_limits());
                    if let Ok(Some(message)) = told {
                        pass(&self.session, Frame::from(message)).await;
                    }
                }
                Some(Part::Final { message, written, .. }) => {
                    let _ = written.send(());
                    if let Some(ready) = ready.take().filter(|_| message.error_raw().is_some()) {
                        let _ = ready.send(Err(Box::new(message)));
                    }
                    return was_acknowledged;
                }
                Some(_) => {}
                None => return was_acknowledged,
            }
        }
    }

    /// The error for a resource that the server does not honour a subscription to.
    fn refused(&self, acknowledged: &Message) -> Option<Message> {
        let wanted = self.filter.get("resourceSubscriptions").and_then(Value::as_array)?.last()?;
        let honoured: Value = serde_json::from_slice(&acknowledged.param_raw("notifications")?).ok()?;
        let listed = honoured.get("resourceSubscriptions").and_then(Value::as_array);
        if listed.is_some_and(|listed| listed.contains(wanted)) {
            return None;
        }
        self.stop.cancel();
        let what = "a subscription that the server does not honour".to_owned();
        Some(Refusal::NotBridged { what }.response(None))
    }
}

fn own(call: &Call, refusal: &Refusal) -> Answer {
    Answer::Message { status: 200, session_id: None, event_id: None, message: refusal.response(Some(&call.id)) }
}
