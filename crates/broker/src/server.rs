//! The listener: connections, frames, order and bounds. Called by [`Broker::serve`].
//!
//! A frame is a four-byte length, a request header and a body. Answers leave in the order of their requests. Produce
//! requests of one connection wait for the disk together (they enter the log in their order); any other request waits
//! for those before it and holds those behind it, as in Kafka. A connection whose client has used up its quota is answered, told
//! so, and not read for a while (KIP-219).
//!
//! It guarantees: memory is claimed only for bytes that arrived, and from one budget for all connections, answers from
//! another; a peer that sends what is not a request is disconnected with the reason in the log; a peer that does not read
//! its answers is disconnected. It must never know what a request means.

mod intake;
mod places;
mod standby;

use std::{io, sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use cairn_log::{Readers, step_aside};
use cairn_tls::HandshakeError;
use futures::{StreamExt, future::BoxFuture, stream::FuturesOrdered};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    access::of_certificate,
    api::{self, Request, Session},
    broker::Broker,
    budget::{Claim, Overloaded},
    options::{HostPort, Port},
    quotas,
    turn::Turns,
    wire::Pieces,
};
pub use standby::Standby;

use intake::{Frame, Intake};
use places::{Place, Places};

/// How long the listener pauses when it cannot accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Bytes that one call carries to the kernel for who reads what lies behind. A kernel that is built without preemption takes no
/// processor from a thread in the middle of a call, whatever its priority: those at the end wait for all that one call carries.
const BEHIND_BYTES: usize = 64 << 10;

/// Why a connection ends early.
#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("a request of {bytes} bytes is larger than {most}")]
    TooLarge { bytes: i64, most: usize },
    #[error("a request did not arrive within its time")]
    Slow,
    #[error("the peer does not read its answers")]
    Stalled,
    #[error("it was quiet, and another connection needed its place")]
    Replaced,
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
    #[error("the TLS handshake failed: {0}")]
    Handshake(#[from] HandshakeError),
    #[error("it asked before it had logged in, or after its login had ended")]
    NotLoggedIn,
    #[error("it failed to log in too often")]
    LoginFailed,
    #[error("{0}")]
    Request(#[from] api::RequestError),
}

/// Counts a connection among those that read what lies behind.
struct Behind(Broker);

impl Behind {
    fn count(broker: &Broker) -> Self {
        broker.inner.counters.connections_behind.fetch_add(1, Ordering::Relaxed);
        Self(broker.clone())
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        self.0.inner.counters.connections_behind.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer that is being worked on, and what its request holds.
type Answer = BoxFuture<'static, (Result<(Option<Bytes>, Duration), api::RequestError>, Claim)>;

impl Broker {
    /// Serves Kafka clients on `listener` until `stop`, in the clear; returns when every connection has ended.
    ///
    /// # Errors
    /// None at present.
    pub async fn serve(&self, listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
        self.serve_port(listener, Port::default(), stop).await
    }

    /// The same by a port of that kind.
    ///
    /// # Errors
    /// None at present.
    pub async fn serve_port(&self, listener: TcpListener, port: Port, stop: CancellationToken) -> io::Result<()> {
        let places = Places::new(self.inner.options.limits.connections_max);
        let tasks = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: others must be able to end first.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(place) = places.take().await else {
                self.inner.counters.connections_refused.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%peer, "too many connections: this one is closed");
                continue;
            };
            let (broker, port, stop) = (self.clone(), port.clone(), stop.clone());
            tasks.spawn(async move {
                broker.inner.counters.connections.fetch_add(1, Ordering::Relaxed);
                let leave = place.leave();
                let served = tokio::select! {
                    () = stop.cancelled() => Ok(()),
                    () = leave.cancelled() => Err(ConnectionError::Replaced),
                    served = Box::pin(connect(&broker, &port, stream, place)) => served,
                };
                match served {
                    Ok(()) => {}
                    // Our own mistake, unlike all others.
                    Err(error @ ConnectionError::Request(api::RequestError::Answer { .. })) => {
                        tracing::error!(%peer, %error, "connection ended");
                    }
                    Err(error) => tracing::debug!(%peer, %error, "connection ended"),
                }
                broker.inner.counters.connections.fetch_sub(1, Ordering::Relaxed);
            });
        }
        tasks.close();
        tasks.wait().await;
        Ok(())
    }
}

/// Serves one connection to its end.
async fn connect(broker: &Broker, port: &Port, stream: TcpStream, place: Place) -> Result<(), ConnectionError> {
    stream.set_nodelay(true)?;
    let (peer, local) = (stream.peer_addr()?, stream.local_addr()?);
    let bound = HostPort { host: local.ip().to_canonical().to_string(), port: local.port() };
    let advertised = broker.inner.options.advertised.clone().filter(|_| !port.is_inner).unwrap_or(bound);
    let session = Session::new(peer, advertised, port.only.clone());
    let intake = Intake::new(&broker.inner.requests_budget);
    let broker = broker.clone();
    match &port.tls {
        None => Connection::new(broker, stream, intake, session, place).serve().await,
        Some(handshakes) => {
            let stream = handshakes.of(stream).await?;
            // Verified in the handshake, where one was shown.
            let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let name = shown.and_then(|shown| of_certificate(shown, &broker.inner.options.certificate_names));
            let session = session.certified(name);
            Connection::new(broker, stream, intake, session, place).serve().await
        }
    }
}

struct Connection<S> {
    broker: Broker,
    /// There, but while an answer is written on other threads.
    stream: Option<S>,
    intake: Intake,
    session: Session,
    place: Place,
    /// Until when nothing is read.
    muted: Option<Instant>,
    turns: Turns,
    behind: Option<Behind>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Connection<S> {
    fn new(broker: Broker, stream: S, intake: Intake, session: Session, place: Place) -> Self {
        let (stream, muted, turns, behind) = (Some(stream), None, Turns::default(), None);
        Self { broker, stream, intake, session, place, muted, turns, behind }
    }

    async fn serve(&mut self) -> Result<(), ConnectionError> {
        let limits = self.broker.inner.options.limits.clone();
        let in_flight_max = limits.in_flight_max.max(1);
        let mut answers: FuturesOrdered<Answer> = FuturesOrdered::new();
        loop {
            let alone = answers.is_empty();
            let muted = self.muted;
            if alone && muted.is_none() {
                self.place.rest();
            }
            // Reading stops while enough waits for the disk; whole frames stay in the socket and slow the peer.
            let stream = self.stream.as_mut().ok_or_else(gone)?;
            tokio::select! {
                biased;
                Some((answer, claim)) = answers.next(), if !answers.is_empty() => {
                    self.finish(answer?).await?;
                    drop(claim);
                }
                () = sleep_until(muted.unwrap_or_else(Instant::now)), if muted.is_some() => self.muted = None,
                frame = self.intake.frame(stream, &limits, alone),
                    if muted.is_none() && answers.len() < in_flight_max =>
                {
                    let Some(frame) = frame? else {
                        // The peer is done writing, perhaps not reading.
                        while let Some((answer, _)) = answers.next().await {
                            self.finish(answer?).await?;
                        }
                        return Ok(());
                    };
                    self.place.work();
                    self.take(frame, &mut answers).await?;
                }
            }
        }
    }

    async fn take(&mut self, frame: Frame, answers: &mut FuturesOrdered<Answer>) -> Result<(), ConnectionError> {
        self.broker.inner.counters.requests.fetch_add(1, Ordering::Relaxed);
        let Frame { bytes, mut claim } = frame;
        if self.session.awaits_raw_token() {
            let answer = self.session.raw_token(&self.broker, &bytes).await?;
            return self.write(answer.into()).await;
        }
        let sent = bytes.len();
        let request = Request::parse(bytes, &self.broker.inner.options.limits)?;
        if !self.session.may_ask(&request, self.broker.inner.clock.moment()) {
            return Err(ConnectionError::NotLoggedIn);
        }
        claim.cover(claim.bytes() + request.decoded_bytes()).await?;
        if request.is_produce() {
            let (broker, mut session) = (self.broker.clone(), self.session.clone());
            let quota = broker.inner.quotas.charge(quotas::SENT, &session.principal, &request.client_id, sent);
            session.throttled = quota.max(broker.inner.pressure.wait(&broker.inner.log, &session.principal));
            self.mute(session.throttled);
            let turn = self.turns.next();
            let mut answer: Answer = Box::pin(async move {
                let answer = api::produce(&broker, &session, request, turn).await;
                (answer, claim)
            });
            // The first poll puts the batches into the log's queue, unless they must wait for something; others wait for their turn.
            match futures::poll!(&mut answer) {
                std::task::Poll::Ready(done) => answers.push_back(Box::pin(std::future::ready(done))),
                std::task::Poll::Pending => answers.push_back(answer),
            }
            return Ok(());
        }
        while let Some((answer, _)) = answers.next().await {
            self.finish(answer?).await?;
        }
        let (answer, held) = api::answer(&self.broker, &mut self.session, request).await?;
        drop(claim);
        self.behind =
            self.session.reads_behind.then(|| self.behind.take().unwrap_or_else(|| Behind::count(&self.broker)));
        if self.behind.is_some() {
            self.write_apart(answer).await?;
        } else {
            self.write(answer).await?;
        }
        drop(held);
        let throttled = std::mem::take(&mut self.session.throttled);
        self.mute(throttled);
        if self.session.is_over() { Err(ConnectionError::LoginFailed) } else { Ok(()) }
    }

    /// Writes the answer to a Produce, and rests for as long as that says.
    async fn finish(&mut self, (answer, waits): (Option<Bytes>, Duration)) -> Result<(), ConnectionError> {
        if let Some(answer) = answer {
            self.write(answer.into()).await?;
        }
        self.mute(waits);
        Ok(())
    }

    /// Reads nothing for so long, or until later where that is said already.
    fn mute(&mut self, throttled: Duration) {
        if !throttled.is_zero() {
            self.muted = self.muted.max(Some(Instant::now() + throttled));
        }
    }

    async fn write(&mut self, answer: Pieces) -> Result<(), ConnectionError> {
        let limit = self.broker.inner.options.limits.answer_stall_timeout;
        write(self.stream.as_mut().ok_or_else(gone)?, answer, limit, || {}).await
    }

    /// The same on the log's threads for readers, so that encrypting it and carrying it to the kernel give way to others, a
    /// little at a time.
    async fn write_apart(&mut self, answer: Pieces) -> Result<(), ConnectionError> {
        let limit = self.broker.inner.options.limits.answer_stall_timeout;
        let stream = self.stream.take().ok_or_else(gone)?;
        let (written, stream) = write_behind(self.broker.inner.log.readers(), stream, answer, limit).await?;
        self.stream = Some(stream);
        written
    }
}

/// What is said of a connection whose answer was given up on the way; nobody goes on with it.
fn gone() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

/// Writes for who is behind, and gives the connection back.
async fn write_behind<S: AsyncWrite + Unpin + Send + 'static>(
    readers: &Readers,
    mut stream: S,
    answer: Pieces,
    limit: Duration,
) -> io::Result<(Result<(), ConnectionError>, S)> {
    readers.run(async move { (write(&mut stream, answer.by(BEHIND_BYTES), limit, step_aside).await, stream) }).await
}

async fn write<S: AsyncWrite + Unpin>(
    stream: &mut S,
    mut answer: Pieces,
    limit: Duration,
    before_each: impl Fn() + Send,
) -> Result<(), ConnectionError> {
    while !answer.is_empty() {
        before_each();
        timeout(limit, stream.write_buf(&mut answer)).await.map_err(|_| ConnectionError::Stalled)??;
    }
    // With TLS, what was taken may not have been sent.
    Ok(timeout(limit, stream.flush()).await.map_err(|_| ConnectionError::Stalled)??)
}

#[cfg(test)]
mod tests {
    use std::{
        io::IoSlice,
        pin::Pin,
        task::{Context, Poll},
    };

    use super::*;

    /// A peer that takes all it is given, and notes how much that was, whose thread brought it and how often that had stepped aside.
    #[derive(Default)]
    struct Taker(Vec<(usize, Option<String>, u64)>);

    impl AsyncWrite for Taker {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let thread = std::thread::current().name().map(str::to_owned);
            self.get_mut().0.push((bytes.len(), thread, cairn_log::asked()));
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bytes: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let whole: Vec<u8> = bytes.iter().flat_map(|slice| slice.iter().copied()).collect();
            self.poll_write(context, &whole)
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn who_is_behind_is_written_to_a_little_at_a_time_by_threads_that_give_way() {
        let mut answer = Pieces::default();
        for piece in [100, 2 * BEHIND_BYTES, 1, BEHIND_BYTES / 2] {
            answer.push(vec![7; piece].into());
        }
        let bytes = answer.len();
        let limit = Duration::from_secs(60);
        let readers = Readers::apart().expect("threads");
        let (written, taker) = write_behind(&readers, Taker::default(), answer, limit).await.expect("it is done");
        written.expect("written");
        assert_eq!(taker.0.iter().map(|(taken, ..)| taken).sum::<usize>(), bytes, "all of it");
        for (n, (taken, thread, asked)) in (1..).zip(taker.0) {
            assert!(taken <= BEHIND_BYTES, "{taken} bytes are one call");
            assert_eq!(thread.as_deref(), Some("cairn-readers"));
            assert_eq!(asked, n, "it steps aside before each");
        }
    }
}
