//! The connections of the admin address: with TLS where it has certificates, and within bounds. Called by `cairn up`.
//!
//! So many connections at once, and one more waits; a request's head must come in its time, and whoever asks nothing for
//! as long is disconnected. It must never know what a request means.

use std::{io, sync::Arc, time::Duration};

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

use crate::Admin;

/// Connections at once.
const CONNECTIONS_MAX: usize = 256;
/// How long a request's head may take to come.
const HEAD_WITHIN: Duration = Duration::from_secs(30);
/// How long an answer that is being written may take to end when the address closes.
const CONNECTION_END_MAX: Duration = Duration::from_secs(3);
/// How long the listener pauses when it cannot accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

impl Admin {
    /// Serves until `stop`, with TLS where there are handshakes to make; returns when every connection has ended.
    pub async fn serve(self, listener: TcpListener, handshakes: Option<Handshakes>, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let (connections, router) = (TaskTracker::new(), self.router());
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
                    tracing::warn!(%error, "a connection to the admin address could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (router, handshakes, stop) = (router.clone(), handshakes.clone(), stop.clone());
            connections.spawn(async move {
                let _place = place;
                if let Err(error) = connection(stream, handshakes, router, stop).await {
                    tracing::debug!(%error, "a connection to the admin address ended");
                }
            });
        }
        connections.close();
        connections.wait().await;
    }
}

async fn connection(
    stream: TcpStream,
    handshakes: Option<Handshakes>,
    router: axum::Router,
    stop: CancellationToken,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let Some(handshakes) = handshakes else { return serve(stream, router, stop).await };
    let made = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        made = handshakes.of(stream) => made,
    };
    match made {
        Ok(stream) => serve(stream, router, stop).await,
        Err(HandshakeError::Plaintext(stream)) => {
            refuse_http(stream).await;
            Err(io::Error::other("the peer does not speak TLS").into())
        }
        Err(error) => Err(error.into()),
    }
}

async fn serve<S>(
    stream: S,
    router: axum::Router,
    stop: CancellationToken,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::select! {
        ended = &mut connection => Ok(ended?),
        () = stop.cancelled() => {
            Pin::new(&mut connection).graceful_shutdown();
            let _ = tokio::time::timeout(CONNECTION_END_MAX, connection).await;
            Ok(())
        }
    }
}
