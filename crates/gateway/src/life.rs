//! The life of a call: the one function that every request from a client goes through, in the order of its steps.
//!
//! Accept, identify, correlate, screen ([`Call::accept`]) · decide · hold · record the intent · forward · record the
//! outcome · answer. A step hands the next one what it needs and nothing else: without a permit there is no armed
//! call, and only an armed call can be forwarded, once. Called by the doors through [`Gateway::start`]; must never
//! forward, answer or retry anything outside these steps.

use std::sync::Arc;

use bytes::Bytes;
use cairn_contract::{Body, CallAnswered, CallOutcome, Direction, Durability, Effect, EventType, Outcome};
use cairn_mcp::Message;
use tokio_util::sync::CancellationToken;

use crate::{
    Gateway, Refusal,
    approval::NotNow,
    arrival::Arrival,
    bridge::Next,
    call::{Accepted, Call, outcome_of},
    forward::{Answered, Ending},
    masking::Part,
    reply::Reply,
    session::{Door, Session},
    steps::Step,
};

/// What goes back to the client.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A JSON-RPC message.
    Message { status: u16, session_id: Option<String>, event_id: Option<String>, message: Message },
    /// Something of the server's that is not JSON-RPC.
    Other { status: u16, content_type: Option<String>, body: Bytes },
    /// Nothing: the client cancelled and expects no answer.
    Nothing,
}

impl Gateway {
    /// Begins the life of a request; the answer comes through `reply`.
    pub(crate) fn start(&self, session: Arc<Session>, message: Message, arrival: Arrival, reply: Reply) {
        let gateway = self.clone();
        tokio::spawn(async move { gateway.live(session, message, arrival, reply).await });
    }

    async fn live(self, session: Arc<Session>, message: Message, arrival: Arrival, mut reply: Reply) {
        session.touch(self.clock().now());
        let mut places = match self.admit(&session) {
            Ok(places) => places,
            Err(refusal) => return self.turn_away(reply, &message, &refusal).await,
        };
        let mut call = match Call::accept(&self, &session, message, arrival, Direction::ToServer) {
            Ok(call) => call,
            Err((message, refusal)) => return self.turn_away(reply, &message, &refusal).await,
        };
        self.reached(Step::Accepted, &call);
        self.answered_inside(&call);
        // For as long as the call goes on, whatever rounds that takes.
        let entered = call.entered.take();
        let cancelled = self.follow(&call);
        let client = reply.watch();
        let ends_with_client = call.ends_with_client();
        let watched = async {
            client.closed().await;
            if ends_with_client {
                cancelled.cancel();
            }
            std::future::pending::<Answer>().await
        };
        let answer = tokio::select! {
            answer = self.until_answer(&mut call, &mut reply, &cancelled) => answer,
            answer = watched => answer,
        };
        drop(client);
        session.in_flight.lock().remove(&call.id);
        // A client that has its answer may call again at once: what counts calls must not count this one then.
        drop(entered);
        places.ended();
        self.answer(&mut call, reply, answer).await;
        // A handshake that opened nothing leaves nothing behind: no child, no place among the sessions.
        if call.method == "initialize" && session.door == Door::Http && !call.message.is_modern() {
            let opened = session.secret.lock().is_some();
            if !opened && !session.relays_http() {
                self.end_session(&session, "the handshake failed").await;
            }
        }
    }

    /// One round for most calls; more where a server of the other era needs input of the client in between, or did not take
    /// Cairn's token. Each round is a call of its own.
    async fn until_answer(&self, call: &mut Call, reply: &mut Reply, cancelled: &CancellationToken) -> Answer {
        loop {
            let answer = self.round(call, reply, cancelled).await;
            if call.token_refused && !cancelled.is_cancelled() {
                match self.prove_again(call).await {
                    Next::Round(next) => {
                        *call = *next;
                        continue;
                    }
                    Next::Answer(answer) => return answer,
                }
            }
            match self.next_round(call, answer, reply, cancelled).await {
                Next::Round(next) => *call = *next,
                Next::Answer(answer) => return answer,
            }
        }
    }

    /// Steps 5 to 9. Every path ends in exactly one recorded outcome.
    async fn round(&self, call: &mut Call, reply: &mut Reply, cancelled: &CancellationToken) -> Answer {
        let permit = match self.decide(call).await {
            Ok(permit) => permit,
            Err(refusal) => return self.refuse(call, Outcome::Denied, refusal).await,
        };
        if let Some(answer) = self.answer_own_task(call).await {
            return answer;
        }
        if let Err(refusal) = self.affords(call, &permit) {
            return self.refuse(call, Outcome::Denied, refusal).await;
        }
        let permit = match self.hold(call, permit, reply, cancelled).await {
            Ok(permit) => permit,
            Err(NotNow::Refused(outcome, refusal)) => return self.refuse(call, outcome, refusal).await,
            Err(NotNow::Told(outcome, message)) => return self.conclude_here(call, outcome, message).await,
        };
        if let Some(answer) = self.answer_here(call, reply, cancelled).await {
            return answer;
        }
        if let Err(refusal) = self.charge(call, &permit) {
            return self.refuse(call, Outcome::Denied, refusal).await;
        }
        let armed = match self.arm(call, permit).await {
            Ok(armed) => armed,
            Err(refusal) => {
                self.uncharge(call);
                return self.refuse(call, Outcome::Failed, refusal).await;
            }
        };
        let answered = self.forward(call, armed, reply, cancelled).await;
        self.conclude(call, answered).await
    }

    /// Step 10.
    async fn answer(&self, call: &mut Call, reply: Reply, answer: Answer) {
        let written = match answer {
            Answer::Message { status, session_id, event_id, message } => {
                match reply.end(status, session_id, event_id, message).await {
                    Ok(written) => written.await.is_ok(),
                    Err(_) => false,
                }
            }
            Answer::Other { status, content_type, body } => reply.other(status, content_type, body).await.is_ok(),
            Answer::Nothing => false,
        };
        self.reached(Step::Replied, call);
        let elapsed_us = call.accepted.elapsed().as_micros() as u64;
        self.metrics().call_seconds.observe(elapsed_us as f64 / 1e6);
        if call.accepted_by_recorder != Accepted::Outcome {
            return; // the trail knows nothing of this call, and must not begin with its end
        }
        let draft = call
            .draft(self, Body::CallAnswered(CallAnswered { written, error_type: None, elapsed_us: Some(elapsed_us) }));
        self.recorder().relaxed(draft);
    }

    /// A call that ends without having been forwarded: its outcome, then its error.
    pub(crate) async fn refuse(&self, call: &mut Call, outcome: Outcome, refusal: Refusal) -> Answer {
        self.count(call, outcome);
        self.metrics().refused(refusal.word());
        let draft = call.draft(
            self,
            Body::CallOutcome(CallOutcome {
                rpc_response_status_code: Some(refusal.code()),
                error_type: Some(refusal.word().to_owned()),
                elapsed_us: Some(call.accepted.elapsed().as_micros() as u64),
                ..outcome_of(outcome, Effect::None)
            }),
        );
        // Nothing was forwarded, so the client may hear of it even where the record has to wait.
        if let Err(error) = self.record_end(call, draft).await {
            tracing::warn!(%error, call_id = %call.call_id, "the outcome of a call that was not forwarded is not recorded");
        }
        // A client that took the call back expects no answer; one that is cut off by our own end does.
        if refusal == Refusal::Cancelled && !self.stop().is_cancelled() {
            return Answer::Nothing;
        }
        Answer::Message { status: 200, session_id: None, event_id: None, message: refusal.response(Some(&call.id)) }
    }

    /// Step 9: the outcome, durable before the answer where the call is strict.
    async fn conclude(&self, call: &mut Call, answered: Answered) -> Answer {
        self.reached(Step::Answered, call);
        let Answered { room, ending, upstream_elapsed_us } = answered;
        call.token_refused = matches!(ending, Ending::Unproven { .. });
        let (mut outcome, mut answer) = self.judge(call, ending);
        outcome.elapsed_us = Some(call.accepted.elapsed().as_micros() as u64);
        outcome.upstream_elapsed_us = Some(upstream_elapsed_us);
        self.metrics().upstream_seconds.observe(upstream_elapsed_us as f64 / 1e6);
        let message = match &answer {
            Answer::Message { message, .. } => Some(message),
            _ => None,
        };
        // What the server did it did, whatever of its answer the client gets.
        self.end_call(call, &outcome, message);
        self.settle_charge(call, &outcome, message);
        self.note_effect(call, outcome.effect);
        self.see_tasks(call, &outcome, message);
        let became = self.task_began(call, outcome.outcome, message);
        self.screen_answer(call, &mut outcome, &mut answer);
        self.ask_inside(call, &mut outcome, &mut answer).await;
        self.count(call, outcome.outcome);
        if let (Outcome::InputRequired, Answer::Message { message, .. }) = (outcome.outcome, &answer) {
            self.operations().goes_on(self, call, message);
            self.covered().goes_on(call);
        }
        let body = Body::CallOutcome(outcome);
        let draft = call.draft(self, body);
        if let Some(task) = became {
            self.remember_task(call, task);
        }
        call.accepted_by_recorder = Accepted::Outcome;
        let recorded = match (call.durability, room) {
            (Durability::Strict, Some(room)) => {
                let kept = self.payloads_durable(std::mem::take(&mut call.pending));
                let (recorded, kept) = futures::future::join(self.recorder().outcome(room, draft), kept).await;
                recorded.map(|_| ()).and(kept)
            }
            _ => {
                self.recorder().relaxed(draft);
                Ok(())
            }
        };
        self.reached(Step::AfterOutcome, call);
        match recorded {
            Ok(()) => {
                // A stream that is resumed may replay the server's answer: not one that the client got otherwise.
                if self.is_resumable(call) && !call.is_altered {
                    call.session.note_answered(&call.id);
                }
                self.observe(call, &mut answer);
                answer
            }
            Err(error) => {
                let refusal = Refusal::ExecutedNotRecorded { reason: error.to_string() };
                self.metrics().refused(refusal.word());
                Answer::Message {
                    status: 200,
                    session_id: None,
                    event_id: None,
                    message: refusal.response(Some(&call.id)),
                }
            }
        }
    }

    /// What an ending means: the outcome for the record and the answer for the client.
    fn judge(&self, call: &mut Call, ending: Ending) -> (CallOutcome, Answer) {
        let id = call.id.clone();
        let failed = |outcome, refusal: Refusal| {
            let record = CallOutcome {
                rpc_response_status_code: Some(refusal.code()),
                error_type: Some(refusal.word().to_owned()),
                ..outcome_of(outcome, Effect::Unknown)
            };
            let message = refusal.response(Some(&id));
            (record, Answer::Message { status: 200, session_id: None, event_id: None, message })
        };
        match ending {
            Ending::Final { status, session_id, event_id, message } => {
                let record = self.read_outcome(call, &message, status);
                // In front of a child it is the gateway that gives HTTP its status.
                let is_http = call.session.server.is_http();
                let status = if is_http { status } else { cairn_mcp::headers::status(&call.message, &message) };
                (record, Answer::Message { status, session_id, event_id, message })
            }
            Ending::Other { status, content_type, body } => {
                let record = CallOutcome {
                    http_response_status_code: Some(status),
                    error_type: Some(format!("http_{status}")),
                    ..outcome_of(Outcome::Failed, Effect::Answered)
                };
                (record, Answer::Other { status, content_type, body })
            }
            Ending::Unproven { status } => {
                let reason = "the server did not take Cairn's token".to_owned();
                let (mut record, answer) = failed(Outcome::Failed, Refusal::Unproven { reason });
                record.effect = Effect::Answered;
                record.rpc_response_status_code = None;
                record.http_response_status_code = Some(status);
                record.error_type = Some(format!("http_{status}"));
                (record, answer)
            }
            Ending::NotSent { reason } => {
                let (mut record, answer) = failed(Outcome::Failed, Refusal::Unavailable { reason });
                record.effect = Effect::None;
                (record, answer)
            }
            Ending::Lost { reason } => failed(Outcome::Failed, Refusal::Lost { reason }),
            Ending::TimedOut { after_ms } => failed(Outcome::TimedOut, Refusal::TimedOut { after_ms }),
            Ending::Cancelled if self.stop().is_cancelled() => {
                let (record, _) = failed(Outcome::Cancelled, Refusal::Cancelled);
                let (_, answer) = failed(Outcome::Cancelled, Refusal::Lost { reason: "the gateway stops".to_owned() });
                (record, answer)
            }
            Ending::Cancelled => {
                let (record, _) = failed(Outcome::Cancelled, Refusal::Cancelled);
                (record, Answer::Nothing)
            }
        }
    }

    /// The three layers of a response, apart: HTTP, JSON-RPC, and the tool's own word.
    fn read_outcome(&self, call: &mut Call, message: &Message, status: u16) -> CallOutcome {
        let mut record = CallOutcome {
            http_response_status_code: (status != 200).then_some(status),
            ..outcome_of(Outcome::Completed, Effect::Answered)
        };
        if let Some(error) = message.error_raw() {
            record.outcome = Outcome::Failed;
            record.rpc_response_status_code = message.error_code();
            record.error_type = message.error_code().map(|code| code.to_string());
            record.result = self.kept(call, EventType::CallOutcome, Part::Error, &error);
            return record;
        }
        if let Some(result) = message.result_raw() {
            record.result = self.kept(call, EventType::CallOutcome, Part::Result, &result);
        }
        if message.is_error() {
            record.outcome = Outcome::Failed;
            record.is_error = Some(true);
            record.error_type = Some("tool_error".to_owned());
        }
        match message.result_type().as_deref() {
            Some("input_required") => record.outcome = Outcome::InputRequired,
            Some("task") => record.outcome = Outcome::Accepted,
            _ if message.result_member_raw("task").is_some() => record.outcome = Outcome::Accepted,
            _ => {}
        }
        record
    }

    /// An error for a message that never became a call.
    async fn turn_away(&self, reply: Reply, message: &Message, refusal: &Refusal) {
        self.metrics().refused(refusal.word());
        // A client that has gone needs no answer.
        let _ = reply.end(200, None, None, refusal.response(message.id())).await;
    }
}
