//! A broker that stands by: it has no log, and tells clients who has. Called by the wiring until its turn comes.
//!
//! Everything is bounded as on a broker: connections, bytes of a request, time. When it stops, all its connections have
//! ended, so that the same listener can serve the broker that begins.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{ACCEPT_PAUSE, ConnectionError};
use crate::{
    api::{
        Request,
        standby::{self, Told},
    },
    options::{BrokerLimits, Peer, Port},
};

/// Connections at once.
const CONNECTIONS_MAX: usize = 256;
/// Bytes of a request: what may be asked here is short.
const REQUEST_BYTES_MAX: usize = 1 << 20;
/// How long a connection may be quiet.
const QUIET_MAX: Duration = Duration::from_secs(60);

/// A broker that stands by.
#[derive(Debug, Clone)]
pub struct Standby {
    /// Every broker that may become active, this one included.
    pub peers: Vec<Peer>,
    /// Which of them is active, as far as is known.
    pub active: watch::Receiver<Option<i32>>,
}

impl Standby {
    /// Answers on `listener` until `stop`.
    pub async fn serve(&self, listener: &TcpListener, port: &Port, stop: CancellationToken) {
        let (places, tasks) = (Arc::new(Semaphore::new(CONNECTIONS_MAX)), TaskTracker::new());
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let Ok(place) = places.clone().try_acquire_owned() else { continue };
            let (standby, port, stop) = (self.clone(), port.clone(), stop.clone());
            tasks.spawn(async move {
                let _place = place;
                let served = tokio::select! {
                    () = stop.cancelled() => Ok(()),
                    served = standby.connect(stream, &port) => served,
                };
                if let Err(error) = served {
                    tracing::debug!(%error, "connection ended");
                }
            });
        }
        tasks.close();
        tasks.wait().await;
    }

    async fn connect(&self, stream: TcpStream, port: &Port) -> Result<(), ConnectionError> {
        stream.set_nodelay(true)?;
        match &port.tls {
            None => self.talk(stream).await,
            Some(handshakes) => self.talk(handshakes.of(stream).await?).await,
        }
    }

    async fn talk(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<(), ConnectionError> {
        let limits = BrokerLimits::default();
        loop {
            let length = timeout(QUIET_MAX, stream.read_i32()).await.map_err(|_| ConnectionError::Slow)??;
            let bytes = usize::try_from(length).ok().filter(|bytes| *bytes <= REQUEST_BYTES_MAX);
            let bytes = bytes.ok_or(ConnectionError::TooLarge { bytes: length.into(), most: REQUEST_BYTES_MAX })?;
            let mut frame = vec![0; bytes];
            timeout(limits.request_read_timeout, stream.read_exact(&mut frame))
                .await
                .map_err(|_| ConnectionError::Slow)??;
            let request = Request::parse(frame.into(), &limits)?;
            let active = *self.active.borrow();
            let (answer, leaves) = match standby::answer(&self.peers, active, &request)? {
                Told::Stays(answer) => (answer, false),
                Told::Leaves(answer) => (answer, true),
                Told::Nothing => return Ok(()),
            };
            let written = async {
                stream.write_all(&answer).await?;
                stream.flush().await
            };
            timeout(limits.answer_stall_timeout, written).await.map_err(|_| ConnectionError::Stalled)??;
            if leaves {
                stream.shutdown().await?;
                return Ok(());
            }
        }
    }
}
