//! Standard input and output of a wrapped server, as one pipe: newline-delimited JSON-RPC, one message a line.
//!
//! Whoever relays the pipe (the socket that `cairn wrap` connects to) hands over both ends. One session for the pipe's
//! whole life; when the client closes its end, its calls are cancelled and its server is stopped. Only MCP is written.
//! Source: MCP, basic/transports, stdio.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use cairn_mcp::{Frame, Kind, Message};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
};

use crate::{
    Gateway, Refusal, ServerError, SharedWorkflow,
    arrival::Arrival,
    door::unserved::refuse_pipe,
    options::ServerSpec,
    reply::{Part, Reply},
    session::{Caller, Door, Session},
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
    /// Where the server cannot be described or started: then every request was answered with that.
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
        let opened = match Server::new(&spec, *self.wire_limits(), self.http_client(), places) {
            Ok(server) => match server.own_link(self.entropy()).await {
                Ok(link) => Ok((Arc::new(server), link)),
                Err(error) => Err(ServerError { name: spec.name.clone(), reason: error.to_string() }),
            },
            Err(error) => Err(error),
        };
        let (server, link) = match opened {
            Ok(opened) => opened,
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
        let session = self.new_session(&server, caller, Door::Pipe, link, client.workflow, self.client_places(), None);
        self.pump(&session);
        let (parts, parts_reader) = mpsc::channel(self.limits().client_queue_max);
        let outward = session.outward_reader.lock().take().expect("a new session's reader is there");
        let writer = tokio::spawn(write_out(write, outward, parts_reader, session.clone()));
        self.read_in(&session, read, &parts).await;
        drop(parts);
        self.end_session(&session, "the client closed the pipe").await;
        // Calls in flight still record their outcomes; what they answer goes nowhere.
        let _ = writer.await;
        Ok(())
    }

    async fn read_in<R: AsyncRead + Unpin>(&self, session: &Arc<Session>, mut read: R, parts: &mpsc::Sender<Part>) {
        let max = self.limits().message_bytes_max;
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
                    self.line(session, line, parts).await;
                }
            }
            if buffer.len() > max {
                buffer.clear();
                if !std::mem::replace(&mut skipping, true) {
                    let reason = format!(
                        "a message is longer than {max} bytes (message_bytes_max); send less or raise the setting"
                    );
                    let message = Refusal::TooLarge { reason }.response(None);
                    let (reply, _) = (Reply::onto(parts.clone()), ());
                    let _ = reply.end(200, None, None, message).await;
                }
            }
            let read = tokio::select! {
                read = read.read_buf(&mut buffer) => read,
                () = session.ended.cancelled() => return,
                () = self.stop().cancelled() => return,
            };
            if !matches!(read, Ok(1..)) {
                return;
            }
        }
    }

    async fn line(&self, session: &Arc<Session>, line: Bytes, parts: &mpsc::Sender<Part>) {
        let reply = Reply::onto(parts.clone());
        let message = match Message::parse(line, self.wire_limits()) {
            Ok(message) => message,
            Err(refusal) => {
                let answer = match refusal.code() {
                    Some(code) => Message::error(refusal.id.as_ref(), code, &refusal.to_string(), None)
                        .expect("an error of ours is a message"),
                    None => Refusal::TooLarge { reason: refusal.to_string() }.response(refusal.id.as_ref()),
                };
                let _ = reply.end(200, None, None, answer).await;
                return;
            }
        };
        if message.kind() == Kind::Request {
            self.start(session.clone(), message, Arrival::pipe(), reply);
        } else if let Err(refusal) = self.from_client(session, message, &Arrival::pipe()).await {
            tracing::debug!(reason = refusal.word(), "a message of the client was not passed on");
        }
    }
}

/// The only writer of a pipe's output. What the server said before an answer goes out before it.
async fn write_out<W: AsyncWrite + Unpin>(
    mut write: W,
    mut outward: mpsc::Receiver<Frame>,
    mut parts: mpsc::Receiver<Part>,
    session: Arc<Session>,
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
            session.ended.cancel();
            return;
        }
        if let Some(written) = written {
            let _ = written.send(());
        }
    }
}
