//! The connections of what Cairn serves by HTTP beside MCP, the admin address and the registry: with TLS where it has certificates,
//! and within bounds.
//!
//! So many connections at once, and one more waits; a request's head must come in its time, and whoever asks nothing for
//! as long is disconnected. It must never know what a request means.

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use cairn_tls::{HandshakeError, Handshakes, refuse_http};
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
}

/// Operators and those who look at health and metrics.
pub(crate) const ADMIN: Door =
    Door { name: "the admin address", connections_max: 256, head_within: Duration::from_secs(30) };
/// Serializers, which keep their connections.
#[cfg(feature = "registry")]
pub(crate) const REGISTRY: Door =
    Door { name: "the registry", connections_max: 512, head_within: Duration::from_secs(60) };

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
                Ok((stream, _)) => stream,
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
        stream: TcpStream,
        handshakes: Option<Handshakes>,
        router: Router,
        stop: CancellationToken,
    ) -> Ended {
        stream.set_nodelay(true)?;
        let Some(handshakes) = handshakes else { return self.exchange(stream, router, stop).await };
        let made = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            made = handshakes.of(stream) => made,
        };
        match made {
            Ok(stream) => self.exchange(stream, router, stop).await,
            Err(HandshakeError::Plaintext(stream)) => {
                refuse_http(stream).await;
                Err(io::Error::other("the peer does not speak TLS").into())
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn exchange<S>(self, stream: S, router: Router, stop: CancellationToken) -> Ended
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.head_within)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
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
