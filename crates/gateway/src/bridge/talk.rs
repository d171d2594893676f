//! One call of a modern client at a legacy server, while it runs there: longer than the client's request where the
//! server asks something and the client answers with a retry.
//!
//! A talk that is dropped before its final response cancels the call at the server and answers what the server still
//! waits for, so that nothing is left hanging whatever ended it: the client, time, or a retry that never came.

use std::{collections::VecDeque, sync::Arc};

use cairn_contract::Transport;

use cairn_mcp::{Content, Exchange, Frame, Kind, LinkError, Message, Prepared, RawId, bridge::ModernCall};
use futures::FutureExt;
use serde_json::json;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use super::Upstream;
use crate::{
    Gateway, Refusal,
    call::Call,
    forward::{Ending, broken},
    notices::Done,
    reply::Reply,
    steps::Step,
};

/// The name under which the server's request stands in `inputRequests`.
const KEY: &str = "request";

/// A call that runs at a legacy server.
#[derive(Debug)]
pub(crate) struct Talk {
    upstream: Arc<Upstream>,
    wire: RawId,
    voice: Voice,
    /// What the server says beside the call's own stream.
    beside: mpsc::Receiver<Frame>,
    /// Requests of the server that came behind something of the call's own stream.
    behind: VecDeque<Frame>,
    /// The server's request that waits for the client's answer.
    asked: Option<Question>,
    is_over: bool,
}

#[derive(Debug)]
struct Question {
    id: RawId,
    /// Ends the call in the other direction: with an answer, or by being dropped.
    answered: oneshot::Sender<Message>,
}

/// Where the answer comes from.
#[derive(Debug)]
enum Voice {
    Sending(JoinHandle<Result<Exchange, LinkError>>),
    Stream(mpsc::Receiver<Result<Frame, LinkError>>),
}

enum Heard {
    Frame(Frame),
    Opened,
    /// The server answered that Cairn may not come in.
    NotLetIn {
        status: u16,
        said: Option<Frame>,
    },
    Ending(Ending),
}

impl Voice {
    async fn next(&mut self, upstream: &Upstream) -> Heard {
        match self {
            Self::Sending(sending) => {
                let exchange = match sending.await {
                    Ok(Ok(exchange)) => exchange,
                    Ok(Err(error)) => return Heard::Ending(broken(&error)),
                    Err(_) => return Heard::Ending(Ending::Lost { reason: "sending was given up".to_owned() }),
                };
                if matches!(exchange.status, 400 | 404) {
                    upstream.lose(); // how a server says that it does not know the session
                }
                if matches!(exchange.status, 401 | 403) {
                    let said = match exchange.content {
                        Content::Json(message) => Some(Frame::from(message)),
                        _ => None,
                    };
                    return Heard::NotLetIn { status: exchange.status, said };
                }
                match exchange.content {
                    Content::Stream(frames) => {
                        *self = Self::Stream(frames);
                        Heard::Opened
                    }
                    Content::Json(message) => Heard::Frame(Frame::from(message)),
                    Content::Empty => Heard::Ending(other(exchange.status)),
                    Content::Other { .. } => Heard::Ending(other(exchange.status)),
                }
            }
            Self::Stream(frames) => match frames.recv().await {
                Some(Ok(frame)) => Heard::Frame(frame),
                Some(Err(error)) => Heard::Ending(broken(&error)),
                None => {
                    let reason = "the stream ended before the final response".to_owned();
                    Heard::Ending(Ending::Lost { reason })
                }
            },
        }
    }
}

fn other(status: u16) -> Ending {
    Ending::Other { status, content_type: None, body: bytes::Bytes::new() }
}

impl Talk {
    /// Sends a call.
    pub(crate) fn begin(upstream: &Arc<Upstream>, prepared: Prepared, queue: usize) -> Self {
        let wire = prepared.wire_id().cloned().unwrap_or_else(RawId::null);
        let beside = upstream.run(wire.clone(), queue);
        let link = upstream.link.clone();
        // Apart from who listens, because some servers answer with nothing before what they ask elsewhere is answered.
        let sending = tokio::spawn(async move { link.forward(prepared).await });
        let (upstream, voice) = (upstream.clone(), Voice::Sending(sending));
        Self { upstream, wire, voice, beside, behind: VecDeque::new(), asked: None, is_over: false }
    }

    /// What the server asked is answered so: the bytes for it, and the client's call in the other direction ends.
    /// None where the retry does not hold the answer.
    pub(crate) fn response(&self, retry: &Message) -> Option<Message> {
        cairn_mcp::bridge::response(retry, KEY, &self.asked.as_ref()?.id)
    }

    /// Ends the call in the other direction with the client's answer.
    pub(crate) fn answered(&mut self, response: &Message) {
        if let Some(question) = self.asked.take() {
            // The task that records it may have run out of time in the same moment.
            let _ = question.answered.send(response.clone());
        }
        self.upstream.set_waits(&self.wire, false);
    }

    /// Whether nobody waits for the client's answer any more.
    pub(crate) fn is_given_up(&self) -> bool {
        self.asked.as_ref().is_none_or(|question| question.answered.is_closed())
    }

    /// Sends the answer to what the server asked, in a call that was armed for it.
    pub(crate) async fn resume(&self, response: &Message) -> Result<(), LinkError> {
        self.upstream.link.notify(response, &self.upstream.headers()).await
    }

    async fn next(&mut self) -> Heard {
        if let Some(frame) = self.behind.pop_front() {
            return Heard::Frame(frame);
        }
        tokio::select! {
            biased;
            Some(frame) = self.beside.recv() => Heard::Frame(frame),
            heard = self.voice.next(&self.upstream) => heard,
        }
    }

    /// What the call's own stream holds already. A request that a server makes behind its answer is not part of the call,
    /// and on a pipe, where one reader brings both, the answer is here by then.
    async fn ahead(&mut self, on_pipe: bool) -> Option<Heard> {
        if on_pipe && matches!(self.voice, Voice::Sending(_)) {
            return Some(self.voice.next(&self.upstream).await); // no longer than the writing takes
        }
        self.voice.next(&self.upstream).now_or_never()
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.upstream.forget(&self.wire);
        if let Voice::Sending(sending) = &self.voice {
            sending.abort();
        }
        if self.is_over {
            return;
        }
        let (upstream, wire, question) = (self.upstream.clone(), self.wire.clone(), self.asked.take());
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            if let Some(question) = question {
                upstream.answer_server(&Refusal::Cancelled.response(Some(&question.id))).await;
            }
            let params = format!("{{\"requestId\":{},\"reason\":\"nobody waits for it any more\"}}", wire.as_str());
            let notice = Message::notification("notifications/cancelled", Some(params.as_bytes()))
                .expect("a notification of ours is a message");
            upstream.answer_server(&notice).await;
        });
    }
}

impl Gateway {
    /// Step 8 for a modern client of a legacy server: passes on what comes, until the final response or a request of the
    /// server, which ends the client's request but not the call.
    pub(crate) async fn talk(&self, call: &Call, mut talk: Box<Talk>, reply: &mut Reply) -> Ending {
        let modern = ModernCall::of(&call.message);
        let on_pipe = call.session.server.transport() == Transport::Pipe;
        let mut held = None;
        loop {
            let heard = match held.take() {
                Some(heard) => heard,
                None => talk.next().await,
            };
            let frame = match heard {
                Heard::Frame(frame) => frame,
                Heard::Opened => {
                    self.reached(Step::Forwarded, call);
                    continue;
                }
                Heard::NotLetIn { status, said } => {
                    if call.session.server.refuses_token(&call.session.caller, status) {
                        talk.is_over = true;
                        return Ending::Unproven { status };
                    }
                    held = Some(said.map_or_else(|| Heard::Ending(other(status)), Heard::Frame));
                    continue;
                }
                Heard::Ending(ending) => {
                    talk.is_over = true;
                    call.session.server.eras.forget();
                    return ending;
                }
            };
            let Some(message) = frame.message.clone() else { continue };
            match message.kind() {
                Kind::Response | Kind::Error => {
                    // Beside its stream nothing but this call's own answer comes here.
                    talk.is_over = true;
                    talk.upstream.settle().await;
                    talk.upstream.forget(&talk.wire); // what the server asks from here on belongs to no call
                    while let Some(frame) = talk.behind.pop_front().or_else(|| talk.beside.try_recv().ok()) {
                        match frame.message {
                            Some(notice) if notice.kind() == Kind::Notification => {
                                self.pass_notice(call, &modern, &notice, reply).await;
                            }
                            // It came too late to be part of the call, and the server waits for an answer.
                            Some(asked) if asked.kind() == Kind::Request => talk.upstream.heard(asked).await,
                            _ => {}
                        }
                    }
                    return Ending::Final { status: 200, session_id: None, event_id: None, message };
                }
                Kind::Notification => {
                    let own = matches!(message.method(), Some("notifications/progress" | "notifications/message"));
                    if !own {
                        talk.upstream.heard(message).await; // changes belong to listen streams
                    } else if !self.pass_notice(call, &modern, &message, reply).await {
                        return Ending::Cancelled;
                    }
                }
                Kind::Request => {
                    held = talk.ahead(on_pipe).await;
                    if held.is_some() {
                        talk.behind.push_back(frame);
                        continue;
                    }
                    match self.question(call, &modern, talk, message).await {
                        Ok(ending) => return ending,
                        Err(same) => talk = same,
                    }
                }
            }
        }
    }

    /// False where the client has gone.
    async fn pass_notice(&self, call: &Call, modern: &ModernCall, notice: &Message, reply: &mut Reply) -> bool {
        let Ok(Some(notice)) = modern.notification(notice, self.wire_limits()) else { return true };
        let Some(frame) = self.from_server(&call.session, Frame::from(notice), Some(call)).await else { return true };
        reply.frame(frame).await.is_ok()
    }

    /// A request that the server makes within a call: `input_required`, with the call waiting behind a sealed state. What
    /// cannot be asked is answered with an error, and the talk goes on.
    async fn question(
        &self,
        call: &Call,
        modern: &ModernCall,
        mut talk: Box<Talk>,
        message: Message,
    ) -> Result<Ending, Box<Talk>> {
        let id = message.id().cloned().unwrap_or_else(RawId::null);
        let method = message.method().unwrap_or_default().to_owned();
        if method == "ping" {
            let pong = Message::result(&id, b"{}").expect("an empty result is a message");
            talk.upstream.answer_server(&pong).await;
            return Err(talk);
        }
        let refusal = if !talk.upstream.server.may_ask(&method) {
            Some(cairn_mcp::bridge::NotBridged::Undeclared { method }.into())
        } else if self.waiting().is_full() {
            Some(Refusal::Busy { setting: "waiting_calls_max", limit: self.waiting().limit() as u64 })
        } else {
            None
        };
        if let Some(refusal) = refusal {
            talk.upstream.answer_server(&refusal.response(Some(&id))).await;
            return Err(talk);
        }
        let (answered, answer) = oneshot::channel();
        let asking = self.begin_ask(&call.session, message.clone(), Some(call), answer, self.limits().input_wait_max);
        // Held by the talk, so that a client that goes away now ends the question too.
        talk.asked = Some(Question { id: id.clone(), answered });
        let opened = asking.opened.await.unwrap_or(Err(Refusal::Cancelled));
        if let Err(refusal) = opened {
            talk.asked = None;
            talk.upstream.answer_server(&refusal.response(Some(&id))).await;
            return Err(talk);
        }
        talk.upstream.set_waits(&talk.wire, true);
        let (handle, state) = self.waiting().keep(self, call, talk);
        let gateway = self.clone();
        tokio::spawn(async move {
            match asking.done.await {
                Ok(Done::Answered(_)) => {}
                // Dropping it ends the call at the server.
                Ok(Done::TimedOut | Done::Gone) | Err(_) => drop(gateway.waiting().take(&handle)),
            }
        });
        let result = modern.input_required(KEY, &message, &state).unwrap_or_else(|error| {
            let what = format!("the server's request ({error})");
            Refusal::NotBridged { what }.response(Some(&call.id))
        });
        Ok(Ending::Final { status: 200, session_id: None, event_id: None, message: result })
    }
}

/// Words for what a retry lacks.
pub(crate) fn lacks_answer() -> String {
    format!("inputResponses must hold an object under {}; send the request again with it", json!(KEY))
}
