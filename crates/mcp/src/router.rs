//! Who waits for what on a channel that carries many calls at once: a child's stdio, or the event stream of a 2024-11-05
//! server. Called by the links; it has no sockets, so that its rules can be tested without any.
//!
//! Guarantees: an answer reaches the call that it belongs to, under the names that the caller gave; on a shared channel
//! ids, progress tokens, cancellation ids and subscription ids are mapped both ways and restored exactly; room for the
//! final answer is taken before a call is sent, so that a slow reader can never lose it. Must never block: one slow
//! reader must not stall the others.

use std::collections::HashMap;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::{
    EditError, Frame, Kind, Limits, LinkError, LinkFault, Message, Prepared, RawId, code,
    link::{Route, queue},
    message::meta,
    scan::has_line_break,
};

pub(crate) type Frames = mpsc::Receiver<Result<Frame, LinkError>>;

/// What the channel's reader has to do after a message was routed.
#[derive(Debug)]
pub(crate) enum Routed {
    Done,
    /// Nobody took a request of the server; this is the answer to write.
    Answer(Message),
}

#[derive(Debug)]
pub(crate) struct Router {
    table: Mutex<Table>,
    unsolicited: mpsc::Sender<Frame>,
    taken: Mutex<Option<mpsc::Receiver<Frame>>>,
    limits: Limits,
    /// Whether several callers, whose names may collide, use this channel.
    shared: bool,
}

#[derive(Debug, Default)]
struct Table {
    pending: HashMap<RawId, Pending>,
    /// From a progress token on the wire to the id on the wire.
    tokens: HashMap<RawId, RawId>,
    /// Why nothing can be sent any more.
    ended: Option<(LinkFault, Option<String>)>,
    next: u64,
    dropped: u64,
}

#[derive(Debug)]
struct Pending {
    route: Route,
    frames: mpsc::Sender<Result<Frame, LinkError>>,
    /// The room for the final answer.
    last: mpsc::OwnedPermit<Result<Frame, LinkError>>,
    listens: bool,
}

impl Router {
    pub(crate) fn new(limits: Limits, shared: bool) -> Self {
        let (unsolicited, receiver) = mpsc::channel(queue(&limits));
        let table = Mutex::new(Table { next: 1, ..Table::default() });
        Self { table, unsolicited, taken: Mutex::new(Some(receiver)), limits, shared }
    }

    pub(crate) fn unsolicited(&self) -> Option<mpsc::Receiver<Frame>> {
        self.taken.lock().take()
    }

    /// The wire form of a request.
    pub(crate) fn prepare(&self, message: &Message) -> Result<Prepared, LinkError> {
        let id = message.id().filter(|_| message.kind() == Kind::Request).cloned();
        let id = id.ok_or_else(|| unfit("only a request can be forwarded; send this one with notify"))?;
        let token = message.progress_token();
        let (bytes, wire_id, wire_token) = if self.shared {
            let wire = self.next_id();
            let mut edit = message.edit().set_id(&wire);
            if token.is_some() {
                edit = edit.set_meta(meta::PROGRESS_TOKEN, wire.raw().clone());
            }
            let bytes = edit.into_bytes(&self.limits).map_err(|error| unfit(&error.to_string()))?;
            (bytes, wire.clone(), token.is_some().then_some(wire))
        } else {
            (message.bytes().clone(), id.clone(), token.clone())
        };
        let route = Route { id: Some(id), wire_id: Some(wire_id), token, wire_token };
        let method = message.method().map(str::to_owned);
        Ok(Prepared { bytes: one_line(bytes), method, route, headers: http::HeaderMap::new() })
    }

    /// The wire form of a notification or a response.
    pub(crate) fn prepare_notice(&self, message: &Message) -> Result<Bytes, LinkError> {
        if message.kind() == Kind::Request {
            return Err(unfit("a request is forwarded, not notified, because it has an answer"));
        }
        let Some(id) = message.cancelled_id().filter(|_| self.shared) else {
            return Ok(one_line(message.bytes().clone()));
        };
        let wire = {
            let table = self.table.lock();
            let mut named = table.pending.iter().filter(|(_, call)| call.route.id.as_ref() == Some(&id));
            match (named.next(), named.count()) {
                (Some((wire, _)), 0) => wire.clone(),
                (first, more) => {
                    let matches = usize::from(first.is_some()) + more;
                    return Err(LinkError::not_sent(LinkFault::NoSuchCall { matches }));
                }
            }
        };
        let edit = message.edit().set_param("requestId", wire.raw().clone());
        Ok(one_line(edit.into_bytes(&self.limits).map_err(|error| unfit(&error.to_string()))?))
    }

    /// Takes a place for a call and for its final answer. Must happen before anything is sent.
    pub(crate) fn register(&self, prepared: &Prepared) -> Result<Frames, LinkError> {
        let wire = prepared.route.wire_id.clone().ok_or_else(|| unfit("it was not prepared by this link"))?;
        let mut table = self.table.lock();
        if let Some((cause, stderr)) = &table.ended {
            return Err(LinkError::NotSent { cause: cause.clone(), stderr: stderr.clone() });
        }
        if table.pending.contains_key(&wire) {
            return Err(LinkError::not_sent(LinkFault::IdInUse { id: wire.to_string() }));
        }
        if table.pending.len() >= self.limits.calls_pending_max {
            table.forget_abandoned();
        }
        if table.pending.len() >= self.limits.calls_pending_max {
            return Err(LinkError::not_sent(LinkFault::TooManyCalls { limit: self.limits.calls_pending_max }));
        }
        let (frames, receiver) = mpsc::channel(queue(&self.limits) + 1);
        let last = frames.clone().try_reserve_owned().expect("a new channel has room for one");
        if let Some(token) = &prepared.route.wire_token {
            table.tokens.insert(token.clone(), wire.clone());
        }
        let listens = prepared.method.as_deref() == Some("subscriptions/listen");
        table.pending.insert(wire, Pending { route: prepared.route.clone(), frames, last, listens });
        Ok(receiver)
    }

    /// Gives a place back, because nothing was sent.
    pub(crate) fn unregister(&self, wire: &RawId) {
        self.table.lock().remove(wire);
    }

    /// Hands a message of the server to whoever waits for it.
    pub(crate) fn route(&self, frame: Frame) -> Routed {
        let Some(message) = frame.message.clone() else { return Routed::Done };
        let routed = match message.kind() {
            Kind::Response | Kind::Error => self.route_answer(&message, frame),
            Kind::Notification => self.route_notification(&message, frame),
            Kind::Request => Some(frame),
        };
        let Some(frame) = routed else { return Routed::Done };
        match self.unsolicited.try_send(frame) {
            Ok(()) => Routed::Done,
            Err(_) if message.kind() == Kind::Request => {
                let text = "nobody takes requests of the server now";
                Message::error(message.id(), code::INTERNAL_ERROR, text, None).map_or(Routed::Done, Routed::Answer)
            }
            Err(_) => {
                self.table.lock().dropped += 1;
                tracing::debug!(method = message.method(), "dropped a message of the server that nobody waits for");
                Routed::Done
            }
        }
    }

    /// Ends one call whose answer could be recognised but not read.
    pub(crate) fn fail(&self, wire: &RawId, cause: LinkFault) -> bool {
        let call = self.table.lock().remove(wire);
        call.map(|call| call.last.send(Err(LinkError::lost(cause)))).is_some()
    }

    /// Ends everything: calls that wait end with `Lost`, later ones with `NotSent`.
    pub(crate) fn end(&self, cause: &LinkFault, stderr: Option<&str>) {
        let calls = {
            let mut table = self.table.lock();
            table.ended.get_or_insert_with(|| (cause.clone(), stderr.map(str::to_owned)));
            table.tokens.clear();
            std::mem::take(&mut table.pending)
        };
        for call in calls.into_values() {
            call.last.send(Err(LinkError::Lost { cause: cause.clone(), stderr: stderr.map(str::to_owned) }));
        }
    }

    /// Why nothing can be sent any more.
    pub(crate) fn ended(&self) -> Option<LinkError> {
        let table = self.table.lock();
        table.ended.as_ref().map(|(cause, stderr)| LinkError::NotSent { cause: cause.clone(), stderr: stderr.clone() })
    }

    /// How many calls wait for an answer.
    pub(crate) fn pending(&self) -> usize {
        self.table.lock().pending.len()
    }

    fn next_id(&self) -> RawId {
        let mut table = self.table.lock();
        let id = table.next;
        table.next += 1;
        RawId::integer(id)
    }

    /// The frame comes back where its call is unknown or gone: then it is a late answer.
    fn route_answer(&self, message: &Message, frame: Frame) -> Option<Frame> {
        let call = message.id().and_then(|id| self.table.lock().remove(id));
        let Some(call) = call else { return Some(frame) };
        let restored = self.restore(message, |edit| {
            let edit = edit.set_id(call.route.id.as_ref().expect("a registered call has an id"));
            match (message.subscription_id(), &call.route.id) {
                (Some(at), Some(id)) if Some(&at) == call.route.wire_id.as_ref() => {
                    edit.set_meta(meta::SUBSCRIPTION_ID, id.raw().clone())
                }
                _ => edit,
            }
        });
        let frame = match restored {
            Ok(message) => Frame { message: Some(message), ..frame },
            Err(error) => {
                call.last.send(Err(LinkError::lost(unfit_fault(&error.to_string()))));
                return None;
            }
        };
        if call.frames.is_closed() {
            return Some(frame);
        }
        call.last.send(Ok(frame));
        None
    }

    fn route_notification(&self, message: &Message, frame: Frame) -> Option<Frame> {
        let mut table = self.table.lock();
        let progress = message.progress_token().filter(|_| message.method() == Some("notifications/progress"));
        let cancelled = message.cancelled_id();
        let wire = if let Some(token) = &progress {
            table.tokens.get(token).cloned()
        } else if let Some(id) = &cancelled {
            table.pending.get(id).filter(|call| call.listens).map(|_| id.clone())
        } else {
            message.subscription_id().filter(|id| table.pending.contains_key(id))
        };
        let Some((wire, call)) = wire.and_then(|wire| Some((wire.clone(), table.pending.get(&wire)?))) else {
            return Some(frame);
        };
        let id = call.route.id.as_ref().expect("a registered call has an id").raw().clone();
        let token = call.route.token.as_ref().map(|token| token.raw().clone());
        let restored = self.restore(message, |mut edit| {
            if let Some(token) = token.filter(|_| progress.is_some()) {
                edit = edit.set_param("progressToken", token);
            }
            if cancelled.is_some() {
                edit = edit.set_param("requestId", id.clone());
            }
            if message.subscription_id().as_ref() == Some(&wire) {
                edit = edit.set_meta(meta::SUBSCRIPTION_ID, id);
            }
            edit
        });
        let Ok(message) = restored else { return None };
        let sent = call.frames.try_send(Ok(Frame { message: Some(message), ..frame }));
        let full = matches!(sent, Err(mpsc::error::TrySendError::Full(_)));
        if full && progress.is_some() {
            // Progress is a running value: the next notification replaces this one.
            table.dropped += 1;
        } else if full {
            let limit = self.limits.frames_queued_max;
            table.remove(&wire).map(|call| call.last.send(Err(LinkError::lost(LinkFault::SlowReader { limit }))));
        } else if cancelled.is_some() {
            // The server ends this subscription; no response will come.
            table.remove(&wire);
        }
        None
    }

    /// Puts the caller's names back; on a channel of one caller they never changed.
    fn restore<'m>(
        &self,
        message: &'m Message,
        edit: impl FnOnce(crate::Editor<'m>) -> crate::Editor<'m>,
    ) -> Result<Message, EditError> {
        if !self.shared {
            return Ok(message.clone());
        }
        // A name may be longer than what stood for it; the bound is for what the server sends.
        let limits = Limits { message_bytes_max: usize::MAX, ..self.limits };
        edit(message.edit()).finish(&limits)
    }
}

impl Table {
    fn remove(&mut self, wire: &RawId) -> Option<Pending> {
        let call = self.pending.remove(wire)?;
        if let Some(token) = &call.route.wire_token {
            // The same token may meanwhile stand for a later call.
            if self.tokens.get(token) == Some(wire) {
                self.tokens.remove(token);
            }
        }
        Some(call)
    }

    /// Drops the calls that nobody waits for and that the server has not answered.
    fn forget_abandoned(&mut self) {
        let gone: Vec<RawId> =
            self.pending.iter().filter(|(_, call)| call.frames.is_closed()).map(|(wire, _)| wire.clone()).collect();
        for wire in gone {
            self.remove(&wire);
        }
    }
}

/// The notification that cancels a call under its name on the wire.
pub(crate) fn cancellation(wire: &RawId, reason: Option<&str>) -> Message {
    let mut params = serde_json::Map::new();
    if let Some(reason) = reason {
        params.insert("reason".to_owned(), reason.into());
    }
    let params = serde_json::to_vec(&params).expect("a map of strings always has a JSON form");
    Message::notification("notifications/cancelled", Some(&params))
        .and_then(|notice| notice.edit().set_param("requestId", wire.raw().clone()).finish(&Limits::default()))
        .expect("it is made of checked parts")
}

pub(crate) fn unfit(reason: &str) -> LinkError {
    LinkError::not_sent(unfit_fault(reason))
}

fn unfit_fault(reason: &str) -> LinkFault {
    LinkFault::Unfit { reason: reason.to_owned() }
}

/// A message without line breaks. The scanner refuses them in strings, so all that are left are space between tokens.
fn one_line(bytes: Bytes) -> Bytes {
    if !has_line_break(&bytes) {
        return bytes;
    }
    bytes.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect()
}

#[cfg(test)]
mod tests;
