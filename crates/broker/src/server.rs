//! The listener: connections, frames, order and bounds. Called by [`Broker::serve`].
//!
//! A frame is a four-byte length, a request header and a body. Answers leave in the order of their requests. Produce
//! requests of one connection wait for the disk together (they enter the log in their order); any other request waits
//! for those before it and holds those behind it, as in Kafka.
//!
//! It guarantees: memory is claimed only for bytes that arrived, and from one budget for all connections; a peer that
//! sends what is not a request is disconnected with the reason in the log. It must never know what a request means.

use std::{io, sync::Arc, sync::atomic::Ordering};

use bytes::{Buf, Bytes, BytesMut};
use futures::{StreamExt, future::BoxFuture, stream::FuturesOrdered};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    api::{self, Request, Session},
    broker::Broker,
    options::HostPort,
};

const LENGTH_BYTES: usize = 4;
const READ_BYTES: usize = 64 << 10;
/// One permit of the budget.
const PERMIT_BYTES: usize = 1 << 10;

/// Why a connection ends early.
#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("a request of {bytes} bytes is larger than {most}")]
    TooLarge { bytes: i64, most: usize },
    #[error("a request did not arrive within its time")]
    Slow,
    #[error("{0}")]
    Request(#[from] api::RequestError),
}

/// A whole request, and its share of the budget.
struct Frame {
    bytes: Bytes,
    permit: OwnedSemaphorePermit,
}

type Answer = BoxFuture<'static, (Result<Option<Bytes>, api::RequestError>, OwnedSemaphorePermit)>;

impl Broker {
    /// Serves Kafka clients on `listener` until `stop`; returns when every connection has ended.
    pub async fn serve(&self, listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
        let limits = &self.inner.options.limits;
        let connections = Arc::new(Semaphore::new(limits.connections_max));
        let budget =
            Arc::new(Semaphore::new(permits(limits.requests_bytes_max.max(limits.request_bytes_max)) as usize));
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
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&connections).try_acquire_owned() else {
                self.inner.counters.connections_refused.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%peer, "too many connections: this one is closed");
                continue;
            };
            let (broker, stop, budget) = (self.clone(), stop.clone(), Arc::clone(&budget));
            tasks.spawn(async move {
                broker.inner.counters.connections.fetch_add(1, Ordering::Relaxed);
                let served = match Connection::new(broker.clone(), stream, peer.ip().to_string(), budget) {
                    Ok(mut connection) => tokio::select! {
                        () = stop.cancelled() => Ok(()),
                        served = connection.serve() => served,
                    },
                    Err(error) => Err(error.into()),
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
                drop(place);
            });
        }
        tasks.close();
        tasks.wait().await;
        Ok(())
    }
}

fn permits(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX).min(Semaphore::MAX_PERMITS as u32)
}

struct Connection {
    broker: Broker,
    stream: TcpStream,
    buffer: BytesMut,
    budget: Arc<Semaphore>,
    session: Session,
}

impl Connection {
    fn new(broker: Broker, stream: TcpStream, host: String, budget: Arc<Semaphore>) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let local = stream.local_addr()?;
        let bound = HostPort { host: local.ip().to_canonical().to_string(), port: local.port() };
        let advertised = broker.inner.options.advertised.clone().unwrap_or(bound);
        Ok(Self { broker, stream, buffer: BytesMut::new(), budget, session: Session::new(host, advertised) })
    }

    async fn serve(&mut self) -> Result<(), ConnectionError> {
        let in_flight_max = self.broker.inner.options.limits.in_flight_max.max(1);
        let mut answers: FuturesOrdered<Answer> = FuturesOrdered::new();
        loop {
            // Reading stops while enough waits for the disk; whole frames stay in the socket and slow the peer.
            tokio::select! {
                biased;
                Some((answer, permit)) = answers.next(), if !answers.is_empty() => {
                    self.write(answer?).await?;
                    drop(permit);
                }
                frame = read_frame(&mut self.stream, &mut self.buffer, &self.broker, &self.budget), if answers.len() < in_flight_max => {
                    let Some(frame) = frame? else {
                        // The peer is done writing, perhaps not reading.
                        while let Some((answer, _)) = answers.next().await {
                            self.write(answer?).await?;
                        }
                        return Ok(());
                    };
                    self.take(frame, &mut answers).await?;
                }
            }
        }
    }

    async fn take(&mut self, frame: Frame, answers: &mut FuturesOrdered<Answer>) -> Result<(), ConnectionError> {
        self.broker.inner.counters.requests.fetch_add(1, Ordering::Relaxed);
        let Frame { bytes, permit } = frame;
        if self.session.awaits_raw_token() {
            let answer = self.session.raw_token(&self.broker, &bytes)?;
            return self.write(Some(answer)).await;
        }
        let request = Request::parse(bytes, &self.broker.inner.options.limits)?;
        if request.is_produce() {
            let (broker, session) = (self.broker.clone(), self.session.clone());
            let mut answer: Answer = Box::pin(async move {
                let answer = api::produce(&broker, &session, request).await;
                (answer, permit)
            });
            // The first poll puts the batches into the log's queue: done here, the log sees them in this order.
            match futures::poll!(&mut answer) {
                std::task::Poll::Ready(done) => answers.push_back(Box::pin(std::future::ready(done))),
                std::task::Poll::Pending => answers.push_back(answer),
            }
            return Ok(());
        }
        while let Some((answer, _)) = answers.next().await {
            self.write(answer?).await?;
        }
        let answer = api::answer(&self.broker, &mut self.session, request).await?;
        self.write(Some(answer)).await?;
        drop(permit);
        Ok(())
    }

    async fn write(&mut self, answer: Option<Bytes>) -> Result<(), ConnectionError> {
        let Some(answer) = answer else { return Ok(()) };
        let limit = self.broker.inner.options.limits.idle_timeout;
        timeout(limit, self.stream.write_all(&answer)).await.map_err(|_| ConnectionError::Slow)??;
        Ok(())
    }
}

/// Reads one frame; `None` at the end of the stream. Safe to cancel: what arrived stays in `buffer`.
async fn read_frame(
    stream: &mut TcpStream,
    buffer: &mut BytesMut,
    broker: &Broker,
    budget: &Arc<Semaphore>,
) -> Result<Option<Frame>, ConnectionError> {
    let limits = &broker.inner.options.limits;
    while buffer.len() < LENGTH_BYTES {
        let read =
            timeout(limits.idle_timeout, read_some(stream, buffer)).await.map_err(|_| ConnectionError::Slow)??;
        if read == 0 {
            return Ok(None);
        }
    }
    let length = i32::from_be_bytes(buffer[..LENGTH_BYTES].try_into().expect("four bytes are there"));
    let too_large = ConnectionError::TooLarge { bytes: i64::from(length), most: limits.request_bytes_max };
    let length = usize::try_from(length).ok().filter(|length| *length <= limits.request_bytes_max).ok_or(too_large)?;
    let permit = match Arc::clone(budget).try_acquire_many_owned(permits(length)) {
        Ok(permit) => permit,
        Err(_) => {
            let began = Instant::now();
            let share = Arc::clone(budget).acquire_many_owned(permits(length));
            let permit = share.await.expect("the budget is never closed");
            let waited_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            broker.inner.counters.throttled_us.fetch_add(waited_us, Ordering::Relaxed);
            permit
        }
    };
    let rest = async {
        while buffer.len() < LENGTH_BYTES + length {
            if read_some(stream, buffer).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
        }
        Ok(())
    };
    timeout(limits.request_read_timeout, rest).await.map_err(|_| ConnectionError::Slow)??;
    buffer.advance(LENGTH_BYTES);
    Ok(Some(Frame { bytes: buffer.split_to(length).freeze(), permit }))
}

async fn read_some(stream: &mut TcpStream, buffer: &mut BytesMut) -> io::Result<usize> {
    buffer.reserve(READ_BYTES);
    stream.read_buf(buffer).await
}
