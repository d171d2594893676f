//! The connections of HTTP clients: how many at once, how long a request's head may take, and how a connection ends.
//!
//! Called by the command line through [`Gateway::serve_http`]; requests go to [`http`](super::http). A connection that is
//! closed while its client still sends (a body that is too long, say) is read on for a bounded while before, because a
//! system resets what is closed over unread bytes, and most clients then show a broken pipe in place of the answer.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use cairn_identity::PeerCertificate;
use cairn_tls::{HandshakeError, Handshakes, PENDING_MAX, refuse_http};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::Sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{admission::Client, http::answer};
use crate::{Gateway, Limits, flood};

/// A connection on which nothing comes is asked after so long whether its other end is still there.
const KEEP_ALIVE_AFTER: Duration = Duration::from_secs(60);
/// How long an answer that is being written may take to end when the door closes.
const CONNECTION_END_MAX: Duration = Duration::from_secs(3);
/// How long a client is read on that still sends when its answer is out and the connection ends.
const LINGER_MAX: Duration = Duration::from_secs(5);
/// How much is read of it, and thrown away.
const LINGER_BYTES_MAX: usize = 64 << 20;
/// A head may be so many times `header_bytes_max` and still get an answer that says why; a longer one gets the status alone.
const HEAD_ROOM: usize = 2;

impl Gateway {
    /// Serves `/mcp/<server>` until `stop`; then lets open answers end for a short while, and returns when they have.
    ///
    /// # Errors
    /// Where the listener fails for good.
    pub async fn serve_http(&self, listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
        let places = Arc::new(Semaphore::new(self.limits().connections_max));
        let tls = self.access().tls.clone();
        let handshakes = tls.map(|tls| Handshakes::new(tls, self.limits().request_read_max, PENDING_MAX));
        let connections = TaskTracker::new();
        connections.spawn({
            let (gateway, stop) = (self.clone(), stop.clone());
            async move {
                while tokio::time::timeout(flood::EVERY, stop.cancelled()).await.is_err() {
                    gateway.record_refusals().await;
                    if let Err(error) = gateway.expire_approvals() {
                        tracing::warn!(%error, "approvals that are over could not be ended yet");
                    }
                }
            }
        });
        connections.close();
        loop {
            let place = tokio::select! {
                () = stop.cancelled() => break,
                place = places.clone().acquire_owned() => place.expect("nobody closes this semaphore"),
            };
            let (stream, peer) = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    // One connection's failure (too many files, reset) is not the listener's.
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
            };
            let (gateway, handshakes, stop) = (self.clone(), handshakes.clone(), stop.clone());
            connections.spawn(async move {
                let _place = place;
                secure(gateway, handshakes, (stream, peer.ip()), stop).await;
            });
        }
        connections.wait().await;
        Ok(())
    }
}

/// Makes the handshake where the listener has certificates, then serves.
async fn secure(
    gateway: Gateway,
    handshakes: Option<Handshakes>,
    (stream, peer): (TcpStream, IpAddr),
    stop: CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    bound_silence(&stream, gateway.limits().client_stall_max);
    let name: Arc<str> = gateway.entropy().uuid_v7(gateway.clock().now()).to_string().into();
    let mut client = Client { name, peer, certificate: None };
    let Some(handshakes) = handshakes else { return serve(gateway, stream, client, stop).await };
    let made = tokio::select! {
        () = stop.cancelled() => return,
        made = handshakes.of(stream) => made,
    };
    let stream = match made {
        Ok(stream) => stream,
        Err(error) => {
            gateway.metrics().not_let_in("handshake_failed");
            tracing::debug!(%error, "a TLS handshake failed");
            if let HandshakeError::Plaintext(stream) = error {
                refuse_http(stream).await;
            }
            return;
        }
    };
    let chain = stream.get_ref().1.peer_certificates();
    client.certificate = chain.and_then(|chain| PeerCertificate::read(chain.first()?));
    Box::pin(serve(gateway, stream, client, stop)).await;
}

/// Serves one connection to its end.
async fn serve<S>(gateway: Gateway, stream: S, client: Client, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = gateway.limits().clone();
    let service = hyper::service::service_fn(move |request| {
        let (gateway, client) = (gateway.clone(), client.clone());
        async move { Ok::<_, Infallible>(answer(&gateway, &client, request).await) }
    });
    let mut connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.request_read_max)
        .max_buf_size(limits.header_bytes_max.saturating_mul(HEAD_ROOM))
        .serve_connection(TokioIo::new(Lingering::new(stream, stop.clone())), service);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            Pin::new(&mut connection).graceful_shutdown();
            let _ = tokio::time::timeout(CONNECTION_END_MAX, connection).await;
            return;
        }
    };
    match ended {
        Err(error) if error.is_parse_too_large() => {
            tracing::warn!(
                limit = limits.header_bytes_max,
                "refused a request whose head is too long (header_bytes_max) or has over 100 fields"
            );
        }
        Err(error) if error.is_timeout() => {
            let parts = connection.into_parts();
            // A client that is between two requests has asked nothing that could be answered.
            if !parts.read_buf.is_empty() {
                late(parts.io.into_inner(), &limits).await;
            }
        }
        _ => {}
    }
}

/// Tells a client that its request's head did not come in time.
async fn late<S: AsyncRead + AsyncWrite + Unpin>(mut stream: Lingering<S>, limits: &Limits) {
    let waited = limits.request_read_max.as_millis();
    let words = format!("the request's head did not come within {waited} ms (request_read_ms_max)");
    let body = json!({ "error": words }).to_string();
    let head = "HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-type: application/json";
    let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let told = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    };
    // Whoever is gone need not hear it.
    let _ = tokio::time::timeout(LINGER_MAX, told).await;
}

/// Lets the system give up a connection whose other end is gone, or takes nothing, though it never says so.
fn bound_silence(stream: &TcpStream, stall: Duration) {
    use rustix::net::sockopt;
    let stall_ms = u32::try_from(stall.as_millis()).unwrap_or(u32::MAX);
    let set = sockopt::set_socket_keepalive(stream, true)
        .and_then(|()| sockopt::set_tcp_keepidle(stream, KEEP_ALIVE_AFTER))
        .and_then(|()| sockopt::set_tcp_user_timeout(stream, stall_ms));
    if let Err(error) = set {
        tracing::debug!(%error, "a connection cannot be bound in its silence");
    }
}

/// A client's stream. Its shutdown says that nothing more will be written, and ends when the client has heard it: once
/// the client closes its side too, or within bounds of time and bytes.
#[derive(Debug)]
struct Lingering<S> {
    stream: S,
    /// Once it fires there is no time for clients that go on sending.
    stop: CancellationToken,
    /// Set once nothing more can be written.
    until: Option<Pin<Box<Sleep>>>,
    left: usize,
}

impl<S> Lingering<S> {
    const fn new(stream: S, stop: CancellationToken) -> Self {
        Self { stream, stop, until: None, left: LINGER_BYTES_MAX }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.until.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        }
        let until = this.until.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER_MAX)));
        let mut thrown_away = [0; 16 * 1024];
        while this.left > 0 && !this.stop.is_cancelled() && until.as_mut().poll(cx).is_pending() {
            let mut buffer = ReadBuf::new(&mut thrown_away);
            match ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => this.left = this.left.saturating_sub(buffer.filled().len()),
                // It has closed its side, or is gone.
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}
