//! A broker that stands by: it has no log, and tells clients who has. Called by the wiring until its turn comes.
//!
//! What only the active broker knows, which topics there are, it asks that one, by the very bytes of its client. Where it gets no answer, the
//! client waits a little: another broker may be taking over, and some clients do not ask again for seconds. A client that gets no such
//! answer for long is sent away: another broker may know more.
//!
//! Everything is bounded as on a broker: connections, bytes of a request, time. When it stops, all its connections have
//! ended, so that the same listener can serve the broker that begins.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
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
        standby::{self, Active, Told},
    },
    options::{BrokerLimits, HostPort, Peer, Port},
};

/// Connections at once.
const CONNECTIONS_MAX: usize = 256;
/// Bytes of a request: what may be asked here is short.
const REQUEST_BYTES_MAX: usize = 1 << 20;
/// How long a connection may be quiet.
const QUIET_MAX: Duration = Duration::from_secs(60);
/// Questions to the active broker at once.
const ASKING_MAX: usize = 16;
/// How long the active broker may take to answer one.
const ASK_LIMIT: Duration = Duration::from_secs(1);
/// Bytes of its answer.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// How long a client waits until there is one that does, and how often it is tried.
const HOLD_MAX: Duration = Duration::from_secs(2);
const ASK_INTERVAL: Duration = Duration::from_millis(250);
/// So many questions in a row without an answer, and the client is sent away.
const UNANSWERED_MAX: u32 = 5;
/// How long a connection is waited for that was not answered anything yet: some clients give up for good where a first answer does not come.
const FIRST_ANSWER_MAX: Duration = Duration::from_millis(300);

/// A broker that stands by.
#[derive(Debug, Clone)]
pub struct Standby {
    peers: Vec<Peer>,
    active: watch::Receiver<Option<Active>>,
    may_ask: bool,
    hold_max: Duration,
}

impl Standby {
    /// `peers` are all brokers that may become active, this one included; `active` is that of them, as far as is known; `may_ask` says
    /// whether it answers whoever asks: it has neither TLS nor rules.
    #[must_use]
    pub const fn new(peers: Vec<Peer>, active: watch::Receiver<Option<Active>>, may_ask: bool) -> Self {
        Self { peers, active, may_ask, hold_max: HOLD_MAX }
    }

    /// Answers on `listener` until `stop`.
    pub async fn serve(&self, listener: &TcpListener, port: &Port, stop: CancellationToken) {
        let (places, tasks) = (Arc::new(Semaphore::new(CONNECTIONS_MAX)), TaskTracker::new());
        let asking = Arc::new(Semaphore::new(ASKING_MAX));
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
            let (standby, port, stop, asking) = (self.clone(), port.clone(), stop.clone(), asking.clone());
            tasks.spawn(async move {
                let _place = place;
                let (answered, is_answered) = watch::channel(false);
                let served = tokio::select! {
                    () = over(&stop, is_answered) => Ok(()),
                    served = standby.connect(stream, &port, (&asking, &answered)) => served,
                };
                if let Err(error) = served {
                    tracing::debug!(%error, "connection ended");
                }
            });
        }
        tasks.close();
        tasks.wait().await;
    }

    async fn connect(
        &self,
        stream: TcpStream,
        port: &Port,
        beside: (&Semaphore, &watch::Sender<bool>),
    ) -> Result<(), ConnectionError> {
        stream.set_nodelay(true)?;
        match &port.tls {
            None => self.talk(stream, beside).await,
            Some(handshakes) => self.talk(handshakes.of(stream).await?, beside).await,
        }
    }

    async fn talk(
        &self,
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
        (asking, answered): (&Semaphore, &watch::Sender<bool>),
    ) -> Result<(), ConnectionError> {
        let (limits, mut unanswered) = (BrokerLimits::default(), 0);
        loop {
            let length = timeout(QUIET_MAX, stream.read_i32()).await.map_err(|_| ConnectionError::Slow)??;
            let bytes = usize::try_from(length).ok().filter(|bytes| *bytes <= REQUEST_BYTES_MAX);
            let bytes = bytes.ok_or(ConnectionError::TooLarge { bytes: length.into(), most: REQUEST_BYTES_MAX })?;
            let mut frame = vec![0; bytes];
            timeout(limits.request_read_timeout, stream.read_exact(&mut frame))
                .await
                .map_err(|_| ConnectionError::Slow)??;
            let frame = Bytes::from(frame);
            let request = Request::parse(frame.clone(), &limits)?;
            let active = *self.active.borrow();
            let (answer, leaves) = match standby::answer(&self.peers, active, &request)? {
                Told::Answer(answer) => (answer, false),
                Told::Asks(otherwise) => match (self.ask(&frame, asking).await, otherwise) {
                    (Some(answer), _) => {
                        unanswered = 0;
                        (answer, false)
                    }
                    (None, Some(answer)) => {
                        unanswered += 1;
                        (answer, !self.may_ask || unanswered >= UNANSWERED_MAX)
                    }
                    (None, None) => return Ok(()),
                },
                Told::Nothing => return Ok(()),
            };
            let written = async {
                stream.write_all(&answer).await?;
                stream.flush().await
            };
            timeout(limits.answer_stall_timeout, written).await.map_err(|_| ConnectionError::Stalled)??;
            answered.send_replace(true);
            if leaves {
                // It would not look elsewhere while it has a connection here.
                stream.shutdown().await?;
                return Ok(());
            }
        }
    }

    /// What the active broker answers, length and all; nothing, where none does for a while.
    async fn ask(&self, frame: &Bytes, asking: &Semaphore) -> Option<Bytes> {
        if !self.may_ask {
            return None;
        }
        let mut active = self.active.clone();
        let answered = async {
            loop {
                let now = *active.borrow_and_update();
                let tried = async {
                    if let Some(answer) = self.ask_once(now, frame, asking).await {
                        return Some(answer);
                    }
                    tokio::time::sleep(ASK_INTERVAL).await;
                    None
                };
                tokio::select! {
                    answer = tried => if let Some(answer) = answer { return answer },
                    Ok(()) = active.changed() => {}
                }
            }
        };
        timeout(self.hold_max, answered).await.ok()
    }

    async fn ask_once(&self, active: Option<Active>, frame: &Bytes, asking: &Semaphore) -> Option<Bytes> {
        let peer = self.peers.iter().find(|peer| active.is_some_and(|active| peer.id == active.id))?;
        let _place = asking.try_acquire().ok()?;
        timeout(ASK_LIMIT, ask(&peer.address, frame)).await.ok()?.ok()
    }
}

/// Ends when a connection has to.
async fn over(stop: &CancellationToken, mut answered: watch::Receiver<bool>) {
    stop.cancelled().await;
    let _ = timeout(FIRST_ANSWER_MAX, answered.wait_for(|answered| *answered)).await;
}

async fn ask(address: &HostPort, frame: &Bytes) -> std::io::Result<Bytes> {
    let mut stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
    stream.set_nodelay(true)?;
    let length = i32::try_from(frame.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], frame].concat()).await?;
    let length = stream.read_i32().await?;
    let bytes = usize::try_from(length).ok().filter(|bytes| (4..=ANSWER_BYTES_MAX).contains(bytes));
    let bytes = bytes.ok_or_else(|| std::io::Error::other("its answer is of no length that is possible"))?;
    let mut answer = length.to_be_bytes().to_vec();
    // Memory for what arrives.
    (&mut stream).take(bytes as u64).read_to_end(&mut answer).await?;
    if answer.len() == bytes + 4 { Ok(answer.into()) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        error::ResponseError,
        messages::{
            ApiKey, MetadataRequest, MetadataResponse, RequestHeader, ResponseHeader, TopicName,
            metadata_request::MetadataRequestTopic, metadata_response::MetadataResponseTopic,
        },
        protocol::{Decodable, Encodable, StrBytes},
    };

    use super::*;

    const VERSION: i16 = 12;

    fn framed(header: impl FnOnce(&mut Vec<u8>), body: &impl Encodable) -> Vec<u8> {
        let mut bytes = Vec::new();
        header(&mut bytes);
        body.encode(&mut bytes, VERSION).expect("encoded");
        [&(bytes.len() as i32).to_be_bytes()[..], &bytes].concat()
    }

    /// Asks for a topic, or for all; the code that it has in the answer, or nothing where the connection ended instead.
    async fn code(stream: &mut TcpStream, topic: Option<&'static str>) -> Option<i16> {
        let key = ApiKey::Metadata;
        let topics = topic.map(|topic| {
            let name = Some(TopicName(StrBytes::from_static_str(topic)));
            vec![MetadataRequestTopic::default().with_name(name)]
        });
        let header = RequestHeader::default().with_request_api_key(key as i16).with_request_api_version(VERSION);
        let header = |bytes: &mut Vec<u8>| {
            header.with_correlation_id(5).encode(bytes, key.request_header_version(VERSION)).expect("encoded");
        };
        stream.write_all(&framed(header, &MetadataRequest::default().with_topics(topics))).await.ok()?;
        let length = stream.read_i32().await.ok()?;
        let mut answer = vec![0; length as usize];
        stream.read_exact(&mut answer).await.ok()?;
        let mut answer = Bytes::from(answer);
        let header = ResponseHeader::decode(&mut answer, key.response_header_version(VERSION)).expect("a header");
        assert_eq!(header.correlation_id, 5);
        Some(MetadataResponse::decode(&mut answer, VERSION).expect("an answer").topics[0].error_code)
    }

    /// An active broker that knows one topic, and answers so many questions, each on a connection of its own.
    async fn active(listener: TcpListener, questions: usize) {
        for _ in 0..questions {
            let (mut stream, _) = listener.accept().await.expect("asked");
            let length = stream.read_i32().await.expect("a request");
            let mut frame = vec![0; length as usize];
            stream.read_exact(&mut frame).await.expect("a request");
            let key = ApiKey::Metadata;
            let header = |bytes: &mut Vec<u8>| {
                let header = ResponseHeader::default()
                    .with_correlation_id(i32::from_be_bytes([frame[4], frame[5], frame[6], frame[7]]));
                header.encode(bytes, key.response_header_version(VERSION)).expect("encoded");
            };
            let topic = MetadataResponseTopic::default().with_name(Some(TopicName(StrBytes::from_static_str("t"))));
            let answer = framed(header, &MetadataResponse::default().with_topics(vec![topic]));
            stream.write_all(&answer).await.expect("taken");
        }
    }

    #[tokio::test]
    async fn what_the_active_one_knows_is_asked_there_and_who_gets_no_answer_for_long_is_sent_away() {
        let bind = async || TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let (leads, listener) = (bind().await, bind().await);
        let peers = vec![format!("1@{}", leads.local_addr().expect("bound")).parse().expect("a peer")];
        let address = listener.local_addr().expect("bound");
        let (say, told) = watch::channel(Some(Active { id: 1, epoch: 3 }));
        let (stop, port) = (CancellationToken::new(), Port::default());
        let standby = |may_ask, hold_max| Standby { hold_max, ..Standby::new(peers.clone(), told.clone(), may_ask) };
        let unknown = Some(ResponseError::LeaderNotAvailable.code());
        let asks = async {
            let mut stream = TcpStream::connect(address).await.expect("it listens");
            let answers = async {
                assert_eq!(code(&mut stream, Some("t")).await, Some(0), "as the active one says");
                assert_eq!(code(&mut stream, None).await, Some(0), "of all topics too");
            };
            tokio::join!(active(leads, 2), answers);
            stop.cancel();
        };
        let stands = standby(true, Duration::from_secs(60));
        tokio::join!(stands.serve(&listener, &port, stop.clone()), asks);
        // It is gone, or nobody knows who is.
        let stop = CancellationToken::new();
        let asks = async {
            let mut stream = TcpStream::connect(address).await.expect("it listens");
            assert_eq!(code(&mut stream, Some("t")).await, unknown);
            say.send_replace(None);
            for _ in 1..UNANSWERED_MAX {
                assert_eq!(code(&mut stream, Some("t")).await, unknown, "it may come to know");
            }
            assert_eq!(code(&mut stream, Some("t")).await, None, "somebody else may know more");
            stop.cancel();
        };
        let stands = standby(true, Duration::from_millis(20));
        tokio::join!(stands.serve(&listener, &port, stop.clone()), asks);
        // Where it has rules or TLS it is not asked: who asks here goes there.
        let stop = CancellationToken::new();
        let asks = async {
            let mut stream = TcpStream::connect(address).await.expect("it listens");
            assert_eq!(code(&mut stream, Some("t")).await, unknown);
            assert_eq!(code(&mut stream, Some("t")).await, None);
            stop.cancel();
        };
        let stands = standby(false, Duration::from_secs(60));
        tokio::join!(stands.serve(&listener, &port, stop.clone()), asks);
    }

    #[tokio::test]
    async fn a_connection_gets_its_first_answer_though_its_broker_stops_standing_by() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let (stop, port) = (CancellationToken::new(), Port::default());
        let standby = Standby::new(Vec::new(), watch::channel(None).1, false);
        let asks = async {
            let mut stream = TcpStream::connect(address).await.expect("it listens");
            // They are accepted in their order.
            let mut later = TcpStream::connect(address).await.expect("it listens");
            assert!(code(&mut later, Some("t")).await.is_some());
            let (said, ()) = tokio::join!(code(&mut stream, Some("t")), async { stop.cancel() });
            assert_eq!(said, Some(ResponseError::LeaderNotAvailable.code()));
            assert_eq!(code(&mut stream, Some("t")).await, None, "and then it ends");
        };
        tokio::join!(standby.serve(&listener, &port, stop.clone()), asks);
    }

    #[tokio::test]
    async fn who_asks_while_nobody_is_active_waits_for_who_takes_over() {
        let bind = async || TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let (next, listener) = (bind().await, bind().await);
        let peers = vec![format!("2@{}", next.local_addr().expect("bound")).parse().expect("a peer")];
        let address = listener.local_addr().expect("bound");
        let (say, told) = watch::channel(None);
        let (stop, port) = (CancellationToken::new(), Port::default());
        let standby = Standby { hold_max: Duration::from_secs(60), ..Standby::new(peers, told, true) };
        let asks = async {
            let mut stream = TcpStream::connect(address).await.expect("it listens");
            let takes_over = async {
                tokio::time::sleep(ASK_INTERVAL).await;
                say.send_replace(Some(Active { id: 2, epoch: 4 }));
                active(next, 1).await;
            };
            let (said, ()) = tokio::join!(code(&mut stream, Some("t")), takes_over);
            assert_eq!(said, Some(0), "as the next one says");
            stop.cancel();
        };
        tokio::join!(standby.serve(&listener, &port, stop.clone()), asks);
    }
}
