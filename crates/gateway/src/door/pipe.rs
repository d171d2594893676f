//! Standard input and output of a wrapped server, as one pipe: newline-delimited JSON-RPC, one message a line.
//!
//! Whoever relays the pipe (the socket that `cairn wrap` connects to) hands over both ends. One session for the pipe's
//! whole life; when the client closes its end, its calls are cancelled and its server is stopped. Only MCP is written.
//! Source: MCP, basic/transports, stdio.

use std::{collections::HashMap, sync::Arc};

use bytes::{Bytes, BytesMut};
use cairn_contract::Transport;
use cairn_mcp::{Frame, Kind, LinkError, Message, era::Era};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{Semaphore, mpsc},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Gateway, Refusal, ServerError, SharedWorkflow,
    arrival::Arrival,
    bridge::Bridge,
    door::unserved::refuse_pipe,
    eras::Plan,
    open::unreached,
    options::ServerSpec,
    reply::{Part, Reply},
    session::{Caller, Door, Session, SessionStart},
    upstream::Server,
};

/// Who is at the other end of a pipe, as the relay knows it.
#[derive(Clone, Debug, Default)]
pub struct PipeClient {
    /// The workflow that all pipes of one client process share.
    pub workflow: Option<SharedWorkflow>,
    /// The local user, where the relay knows it better than the gateway.
    pub principal: Option<String>,
}

impl Gateway {
    /// Serves one pipe until its client closes it or the gateway stops.
    ///
    /// # Errors
    /// Where the server cannot be described: then every request was answered with that. One that cannot be started is an
    /// error of each request.
    pub async fn serve_pipe<R, W>(
        &self,
        spec: ServerSpec,
        client: PipeClient,
        read: R,
        write: W,
    ) -> Result<(), ServerError>
    where
        R: AsyncRead + Unpin + Send,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let _open = self.pipes().token();
        let places = self.limits().calls_per_client_max;
        let eras = self.eras().of(&spec, |description| self.keys().secret.digest(description));
        let server = match Server::new(&spec, *self.wire_limits(), self.http_client(), places, eras, None) {
            Ok(server) => Arc::new(server),
            Err(error) => {
                let refusal = Refusal::Unavailable { reason: error.reason.clone() };
                self.metrics().refused(refusal.word());
                tokio::select! {
                    () = refuse_pipe(read, write, &refusal) => {}
                    () = self.stop().cancelled() => {}
                }
                return Err(error);
            }
        };
        let caller = Caller { principal: client.principal.unwrap_or_else(|| self.local().principal), ..self.local() };
        let (parts, parts_reader) = mpsc::channel(self.limits().client_queue_max);
        let (outward, outward_reader) = mpsc::channel(self.limits().client_queue_max);
        let ended = self.calls_end().child_token();
        let writer = tokio::spawn(write_out(write, outward_reader, parts_reader, ended.clone()));
        let mut pipe = Pipe {
            gateway: self.clone(),
            server: server.clone(),
            caller,
            workflow: client.workflow,
            connection: self.entropy().uuid_v7(self.clock().now()).to_string(),
            outward,
            parts,
            places: self.client_places(),
            ended,
            legacy: None,
            modern: None,
            bridged: HashMap::new(),
        };
        // The era is found out while the client still starts.
        let early = tokio::spawn({
            let (server, caller) = (server.clone(), pipe.caller.clone());
            async move { server.plan(Era::Modern, &caller).await }
        });
        pipe.read_in(read).await;
        early.abort();
        pipe.ended.cancel();
        for session in pipe.sessions() {
            self.end_session(&session, "the client closed the pipe").await;
        }
        drop(pipe);
        server.close().await;
        // Calls in flight still record their outcomes; what they answer goes nowhere.
        let _ = writer.await;
        Ok(())
    }
}

/// One client at the other end: a session for each era that it speaks and, where the server speaks another, for each set
/// of capabilities that it declares.
struct Pipe {
    gateway: Gateway,
    server: Arc<Server>,
    caller: Caller,
    workflow: Option<SharedWorkflow>,
    connection: String,
    outward: mpsc::Sender<Frame>,
    parts: mpsc::Sender<Part>,
    places: Arc<Semaphore>,
    ended: CancellationToken,
    legacy: Option<Arc<Session>>,
    modern: Option<Arc<Session>>,
    bridged: HashMap<String, Arc<Session>>,
}

impl Pipe {
    fn sessions(&self) -> Vec<Arc<Session>> {
        let all = self.legacy.iter().chain(&self.modern).chain(self.bridged.values());
        let mut sessions: Vec<Arc<Session>> = Vec::new();
        for session in all {
            if !sessions.iter().any(|known| Arc::ptr_eq(known, session)) {
                sessions.push(session.clone());
            }
        }
        sessions
    }

    fn begin(&self, start: SessionStart) -> Arc<Session> {
        let ended = match &start.bridge {
            Bridge::ToLegacy(_) => start.ended,
            Bridge::None | Bridge::ToModern(_) => self.ended.child_token(),
        };

        Session::new(SessionStart {
            connection: self.connection.clone(),
            shared_workflow: self.workflow.clone(),
            places: self.places.clone(),
            outward: Some(self.outward.clone()),
            ended,
            ..start
        })
    }

    /// The session of a request; opened where it is the first of its kind.
    async fn session_for(&mut self, message: &Message) -> Result<Arc<Session>, Refusal> {
        let era = Era::of(message);
        let known = if era == Era::Legacy { &self.legacy } else { &self.modern };
        if let Some(session) = known {
            return Ok(session.clone());
        }
        let unavailable = |error: LinkError| Refusal::unavailable(&error);
        let (gateway, server) = (self.gateway.clone(), self.server.clone());
        let unreachable = |error: LinkError| {
            // Kept by nothing: the next request tries again.
            self.begin(gateway.session_start(&server, self.caller.clone(), Door::Pipe, unreached(error)))
        };
        // Finding out may take as long as a server may take to start.
        let plan = tokio::select! {
            biased;
            plan = server.plan(era, &self.caller) => plan,
            () = self.ended.cancelled() => return Err(Refusal::Cancelled),
            () = gateway.stop().cancelled() => return Err(Refusal::stopping()),
        };
        let session = match plan {
            Plan::Unreachable(error) => return Ok(unreachable(error)),
            Plan::Relay => {
                // One child for both eras, as without Cairn.
                let other = if era == Era::Legacy { &self.modern } else { &self.legacy };
                match other.clone().filter(|other| matches!(other.bridge, Bridge::None)) {
                    Some(session) => session,
                    None => {
                        let link = match server.own_link(&self.caller, gateway.entropy()).await {
                            Ok(link) => link,
                            Err(error) => return Ok(unreachable(error)),
                        };
                        self.begin(gateway.session_start(&server, self.caller.clone(), Door::Pipe, link))
                    }
                }
            }
            Plan::ToModern(offer) => {
                let start = gateway.start_from_legacy(&server, self.caller.clone(), Door::Pipe, offer);
                self.begin(start.await.map_err(unavailable)?)
            }
            Plan::ToLegacy => return self.towards_legacy(message).await,
            Plan::Impossible(why) => return Err(why.into()),
        };
        let slot = if era == Era::Legacy { &mut self.legacy } else { &mut self.modern };
        let session = slot.insert(session).clone();
        self.gateway.pump(&session);
        Ok(session)
    }

    async fn towards_legacy(&mut self, message: &Message) -> Result<Arc<Session>, Refusal> {
        let upstream = self.gateway.upstream_for(&self.server, &self.caller, message).await?;
        let key = format!("{:p}", Arc::as_ptr(&upstream));
        if let Some(session) = self.bridged.get(&key).filter(|session| !session.ended.is_cancelled()) {
            return Ok(session.clone());
        }
        self.bridged.retain(|_, session| !session.ended.is_cancelled() || session.is_busy());
        let start = self.gateway.start_towards(&self.server, self.caller.clone(), Door::Pipe, upstream);
        let session = self.begin(start);
        self.bridged.insert(key, session.clone());
        Ok(session)
    }

    /// The session that a notification or an answer is for: the one where the call is that it names, else the first.
    fn session_of(&self, message: &Message) -> Option<Arc<Session>> {
        let sessions = self.sessions();
        let named = |session: &&Arc<Session>| match message.cancelled_id() {
            Some(id) => session.in_flight.lock().contains_key(&id),
            None => message.id().is_some_and(|id| session.asked.lock().contains_key(id)),
        };
        sessions.iter().find(named).or_else(|| sessions.first()).cloned()
    }

    async fn read_in<R: AsyncRead + Unpin>(&mut self, mut read: R) {
        let max = self.gateway.limits().message_bytes_max;
        let (ended, stop) = (self.ended.clone(), self.gateway.stop().clone());
        let mut buffer = BytesMut::with_capacity(16 * 1024);
        let mut skipping = false;
        loop {
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line = buffer.split_to(end + 1).freeze();
                if std::mem::take(&mut skipping) {
                    continue; // the rest of a line that was refused
                }
                let line = line.slice(..end);
                if !line.iter().all(u8::is_ascii_whitespace) {
                    self.line(line).await;
                }
            }
            if buffer.len() > max {
                buffer.clear();
                if !std::mem::replace(&mut skipping, true) {
                    let reason = format!(
                        "a message is longer than {max} bytes (message_bytes_max); send less or raise the setting"
                    );
                    let message = Refusal::TooLarge { reason }.response(None);
                    let _ = Reply::onto(self.parts.clone()).end(200, None, None, message).await;
                }
            }
            let read = tokio::select! {
                read = read.read_buf(&mut buffer) => read,
                () = ended.cancelled() => return,
                () = stop.cancelled() => return,
            };
            if !matches!(read, Ok(1..)) {
                return;
            }
        }
    }

    async fn line(&mut self, line: Bytes) {
        let reply = Reply::onto(self.parts.clone());
        let message = match Message::parse(line, self.gateway.wire_limits()) {
            Ok(message) => message,
            Err(refusal) => {
                let over = (self.server.name.as_str(), Transport::Pipe);
                self.gateway.note_unread(&refusal.fault, self.caller.clone(), over);
                let answer = match refusal.code() {
                    Some(code) => Message::error(refusal.id.as_ref(), code, &refusal.to_string(), None)
                        .expect("an error of ours is a message"),
                    None => Refusal::too_large(&refusal).response(refusal.id.as_ref()),
                };
                let _ = reply.end(200, None, None, answer).await;
                return;
            }
        };
        if message.kind() == Kind::Request {
            match self.session_for(&message).await {
                Ok(session) => self.gateway.start(session, message, Arrival::pipe(), reply),
                Err(refusal) => {
                    let _ = reply.end(200, None, None, refusal.response(message.id())).await;
                }
            }
            return;
        }
        let Some(session) = self.session_of(&message) else {
            return tracing::debug!("a message of the client came before any request and was not passed on");
        };
        if let Err(refusal) = self.gateway.from_client(&session, message, &Arrival::pipe()).await {
            tracing::debug!(reason = refusal.word(), "a message of the client was not passed on");
        }
    }
}

/// The only writer of a pipe's output. What the server said before an answer goes out before it.
async fn write_out<W: AsyncWrite + Unpin>(
    mut write: W,
    mut outward: mpsc::Receiver<Frame>,
    mut parts: mpsc::Receiver<Part>,
    ended: CancellationToken,
) {
    loop {
        let (message, written) = tokio::select! {
            biased;
            Some(frame) = outward.recv() => (frame.message, None),
            part = parts.recv() => match part {
                None => return,
                Some(Part::Frame(frame)) => (frame.message, None),
                Some(Part::Final { message, written, .. }) => (Some(message), Some(written)),
                Some(Part::Other { .. } | Part::Streaming { .. } | Part::Interrupted) => (None, None),
            },
        };
        let Some(message) = message else { continue };
        let mut line = BytesMut::from(message.bytes().as_ref());
        // A line break inside a message is white space between tokens: within strings JSON has it escaped.
        line.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
        line.extend_from_slice(b"\n");
        if write.write_all(&line).await.is_err() || write.flush().await.is_err() {
            ended.cancel();
            return;
        }
        if let Some(written) = written {
            let _ = written.send(());
        }
    }
}
