//! The connections of what Cairn serves by HTTP beside MCP: the admin address, the registry, and where reports come in. With TLS where
//! it has certificates, and within bounds.
//!
//! So many connections at once, and one more waits; a request's head must come in its time, and whoever asks nothing for
//! as long is disconnected. Each request is told whose connection it came by. It must never know what a request means.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use axum::Router;
use cairn_identity::PeerCertificate;
use cairn_ingest::Peer;
use cairn_tls::{HandshakeError, Handshakes, refuse_http};
use http::Request;
use hyper::{body::Incoming, service::Service as _};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long an answer that is being written may take to end when the address closes.
const CONNECTION_END_MAX: Duration = Duration::from_secs(3);
/// How long the listener pauses when it cannot accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What is served by HTTP, and within which bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Door {
    /// Whose connections they are, for the log.
    name: &'static str,
    /// Connections at once.
    connections_max: usize,
    /// How long a request's head may take to come.
    head_within: Duration,
    /// Whether HTTP/2 is spoken to whoever begins with it.
    #[cfg_attr(not(feature = "grpc"), allow(dead_code))]
    http2: bool,
}

/// Operators and those who look at health and metrics.
pub(crate) const ADMIN: Door =
    Door { name: "the admin address", connections_max: 256, head_within: Duration::from_secs(30), http2: false };
/// Serializers, which keep their connections.
#[cfg(feature = "registry")]
pub(crate) const REGISTRY: Door =
    Door { name: "the registry", connections_max: 512, head_within: Duration::from_secs(60), http2: false };
/// Exporters and servers, which keep their connections.
pub(crate) const INGEST: Door =
    Door { name: "the ingest address", connections_max: 512, head_within: Duration::from_secs(60), http2: true };

/// Requests of one connection of HTTP/2 at once.
#[cfg(feature = "grpc")]
const STREAMS_MAX: u32 = 32;
/// How often a silent connection of HTTP/2 is asked whether its other end is still there.
#[cfg(feature = "grpc")]
const ASK_EVERY: Duration = Duration::from_secs(60);

type Ended = Result<(), Box<dyn std::error::Error + Send + Sync>>;

impl Door {
    /// Serves until `stop`, with TLS where there are handshakes to make; returns when every connection has ended.
    pub(crate) async fn serve(
        self,
        router: Router,
        listener: TcpListener,
        handshakes: Option<Handshakes>,
        stop: CancellationToken,
    ) {
        let Self { name, connections_max, .. } = self;
        let places = Arc::new(Semaphore::new(connections_max));
        let connections = TaskTracker::new();
        loop {
            let place = tokio::select! {
                () = stop.cancelled() => break,
                place = places.clone().acquire_owned() => place.expect("nobody closes this semaphore"),
            };
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, peer)) => (stream, peer.ip()),
                Err(error) => {
                    tracing::warn!(%error, "a connection to {name} could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (router, handshakes, stop) = (router.clone(), handshakes.clone(), stop.clone());
            connections.spawn(async move {
                let _place = place;
                if let Err(error) = self.connection(stream, handshakes, router, stop).await {
                    tracing::debug!(%error, "a connection to {name} ended");
                }
            });
        }
        connections.close();
        connections.wait().await;
    }

    async fn connection(
        self,
        (stream, ip): (TcpStream, IpAddr),
        handshakes: Option<Handshakes>,
        router: Router,
        stop: CancellationToken,
    ) -> Ended {
        stream.set_nodelay(true)?;
        let Some(handshakes) = handshakes else {
            let is_http2 = self.begins_http2(&stream, &stop).await?;
            return self.exchange((stream, is_http2), router, Peer { ip, certificate: None }, stop).await;
        };
        let made = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            made = handshakes.of(stream) => made,
        };
        match made {
            Ok(stream) => {
                let (_, session) = stream.get_ref();
                let certificate = session.peer_certificates().and_then(|chain| PeerCertificate::read(chain.first()?));
                let is_http2 = self.http2 && session.alpn_protocol() == Some(b"h2");
                self.exchange((stream, is_http2), router, Peer { ip, certificate }, stop).await
            }
            Err(HandshakeError::Plaintext(stream)) => {
                refuse_http(stream).await;
                Err(io::Error::other("the peer does not speak TLS").into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether what comes in the clear begins as HTTP/2 does that was agreed on before.
    #[cfg(feature = "grpc")]
    async fn begins_http2(self, stream: &TcpStream, stop: &CancellationToken) -> io::Result<bool> {
        const BEGINS: &[u8] = b"PRI";
        if !self.http2 {
            return Ok(false);
        }
        let looking = async {
            let mut seen = [0; BEGINS.len()];
            loop {
                let count = stream.peek(&mut seen).await?;
                if count == 0 || !BEGINS.starts_with(&seen[..count]) || count == BEGINS.len() {
                    return Ok(count == BEGINS.len() && seen == *BEGINS);
                }
                // So little came that nobody can say; what is looked at stays, so that looking again costs nothing to wait for.
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => Ok(false),
            looked = tokio::time::timeout(self.head_within, looking) => looked.unwrap_or(Ok(false)),
        }
    }

    #[cfg(not(feature = "grpc"))]
    #[allow(clippy::unused_async, reason = "with HTTP/2 there is something to wait for")]
    async fn begins_http2(self, _: &TcpStream, _: &CancellationToken) -> io::Result<bool> {
        Ok(false)
    }

    async fn exchange<S>(
        self,
        (stream, is_http2): (S, bool),
        router: Router,
        peer: Peer,
        stop: CancellationToken,
    ) -> Ended
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            TowerToHyperService::new(router.clone()).call(request)
        });
        #[cfg(feature = "grpc")]
        if is_http2 {
            let mut connection = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(STREAMS_MAX)
                .keep_alive_interval(Some(ASK_EVERY))
                .serve_connection(TokioIo::new(stream), service);
            return tokio::select! {
                ended = &mut connection => Ok(ended?),
                () = stop.cancelled() => {
                    std::pin::Pin::new(&mut connection).graceful_shutdown();
                    let _ = tokio::time::timeout(CONNECTION_END_MAX, connection).await;
                    Ok(())
                }
            };
        }
        #[cfg(not(feature = "grpc"))]
        debug_assert!(!is_http2, "nobody agreed on it");
        let mut connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.head_within)
            .serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            ended = &mut connection => Ok(ended?),
            () = stop.cancelled() => {
                std::pin::Pin::new(&mut connection).graceful_shutdown();
                let _ = tokio::time::timeout(CONNECTION_END_MAX, connection).await;
                Ok(())
            }
        }
    }
}
