//! What the tests share: a broker on a port of its own, and a client that speaks frames. Holds no assertion of its own.
#![allow(dead_code, clippy::unwrap_used, missing_docs, unreachable_pub)]

pub mod newer;
pub mod tokens;

use std::{net::SocketAddr, path::Path, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use cairn_broker::{Broker, BrokerOptions, Port, batch};
use cairn_clock::{Clock, Entropy};
use cairn_log::{Log, LogOptions, Offset, PartitionIndex};
use kafka_protocol::{
    messages::{ApiKey, RequestHeader, RequestKind, ResponseHeader, ResponseKind},
    protocol::{Decodable, Encodable, StrBytes},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

pub async fn open(folder: &Path, options: BrokerOptions) -> Broker {
    open_log(LogOptions::new(folder.join("log"), batch::stamp), options).await
}

/// With a clock that the test holds.
pub async fn open_at(folder: &Path, options: BrokerOptions, clock: Clock) -> Broker {
    let log = LogOptions::new(folder.join("log"), batch::stamp);
    let log = Log::open(log, clock.clone(), Entropy::system()).await.unwrap();
    Broker::open(options, log, clock, Entropy::system()).await.unwrap()
}

pub async fn open_log(log: LogOptions, options: BrokerOptions) -> Broker {
    let log = Log::open(log, Clock::system(), Entropy::system()).await.unwrap();
    Broker::open(options, log, Clock::system(), Entropy::system()).await.unwrap()
}

pub fn quick() -> BrokerOptions {
    let mut options = BrokerOptions::default();
    options.limits.initial_rebalance_delay = std::time::Duration::from_millis(50);
    options
}

/// Uploads at once, keeps nothing warm, and looks at retention all the time.
pub fn eager(folder: &Path) -> LogOptions {
    LogOptions {
        wal_segment_bytes: 1 << 17,
        upload_bytes: 20_000,
        upload_interval: Duration::from_millis(20),
        tail_bytes_max: 0,
        cache_bytes_max: 10_000,
        retention_interval: Duration::from_millis(20),
        ..LogOptions::new(folder.to_owned(), batch::stamp)
    }
}

/// Waits for what must come to pass, however slow the machine.
pub async fn until(mut come: impl FnMut() -> bool) {
    for _ in 0..6_000 {
        if come() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came to pass");
}

/// All batches of a partition as they are stored.
pub async fn everything(broker: &Broker, topic: &str, partition: u32, end: u64) -> Vec<Bytes> {
    let (mut at, mut found) = (Offset::new(0), Vec::new());
    while at.get() < end {
        let index = PartitionIndex::new(partition);
        let fetched = broker.fetch(topic, index, at, 50_000, Duration::ZERO).await.unwrap();
        for bytes in fetched.batches {
            let header = batch::BatchHeader::parse(&bytes).unwrap();
            at = Offset::new(u64::try_from(header.base_offset).unwrap() + u64::try_from(header.record_count).unwrap());
            found.push(bytes);
        }
    }
    found
}

/// Bytes of every file below a folder.
pub fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(about) if about.is_dir() => bytes_below(&entry.path()),
        Ok(about) => about.len(),
        Err(_) => 0, // it went while we looked
    };
    entries.map(|entry| size(entry.unwrap())).sum()
}

pub struct Served {
    pub broker: Broker,
    pub address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

impl Served {
    pub async fn start(folder: &Path, options: BrokerOptions) -> Self {
        Self::serve(open(folder, options).await).await
    }

    pub async fn serve(broker: Broker) -> Self {
        Self::serve_port(broker, Port::default()).await
    }

    pub async fn serve_port(broker: Broker, port: Port) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let (served, token) = (broker.clone(), stop.clone());
        let task = tokio::spawn(async move { served.serve_port(listener, port, token).await });
        Self { broker, address, stop, task }
    }

    pub fn bootstrap(&self) -> String {
        self.address.to_string()
    }

    pub async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
        self.broker.close().await;
    }

    /// Ends the port, and not the broker.
    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

/// A client of TLS that believes an authority, and may show a certificate with its key.
pub fn tls_client(authority: &Path, own: Option<(&Path, &Path)>) -> tokio_rustls::TlsConnector {
    let own = own.map(|(certificate, key)| (certificate.to_owned(), key.to_owned()));
    let client = cairn_tls::ClientTls { authorities: Some(authority.to_owned()), own };
    std::sync::Arc::new(client.config().unwrap()).into()
}

/// A request as it goes over the wire, with its length.
pub fn frame(key: ApiKey, version: i16, request: &RequestKind) -> BytesMut {
    let header = RequestHeader::default().with_request_api_key(key as i16).with_request_api_version(version);
    let mut body = BytesMut::new();
    header.encode(&mut body, key.request_header_version(version)).unwrap();
    newer::encode(key, version, request, &mut body);
    let mut frame = BytesMut::new();
    frame.put_i32(body.len() as i32);
    frame.extend_from_slice(&body);
    frame
}

/// What is in an answer without its length.
pub fn answer(key: ApiKey, version: i16, mut frame: Bytes) -> ResponseKind {
    ResponseHeader::decode(&mut frame, key.response_header_version(version)).unwrap();
    newer::decode(key, version, &mut frame)
}

/// A connection that sends one request at a time.
pub struct Wire {
    pub stream: TcpStream,
    next: i32,
}

impl Wire {
    pub async fn connect(served: &Served) -> Self {
        Self { stream: TcpStream::connect(served.address).await.unwrap(), next: 7 }
    }

    pub async fn ask(&mut self, key: ApiKey, version: i16, request: &RequestKind) -> ResponseKind {
        self.send(key, version, request).await;
        self.receive(key, version).await.expect("an answer")
    }

    pub async fn send(&mut self, key: ApiKey, version: i16, request: &RequestKind) {
        self.next += 1;
        let header = RequestHeader::default()
            .with_request_api_key(key as i16)
            .with_request_api_version(version)
            .with_correlation_id(self.next)
            .with_client_id(Some(StrBytes::from_static_str("wire")));
        let mut body = BytesMut::new();
        header.encode(&mut body, key.request_header_version(version)).unwrap();
        newer::encode(key, version, request, &mut body);
        self.send_raw(&body).await;
    }

    pub async fn send_raw(&mut self, body: &[u8]) {
        let mut frame = BytesMut::new();
        frame.put_i32(body.len() as i32);
        frame.extend_from_slice(body);
        self.stream.write_all(&frame).await.unwrap();
    }

    /// The next frame; `None` at the end of the connection.
    pub async fn receive_raw(&mut self) -> Option<Bytes> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).await.ok()?;
        let mut frame = vec![0; i32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut frame).await.ok()?;
        Some(Bytes::from(frame))
    }

    pub async fn receive(&mut self, key: ApiKey, version: i16) -> Option<ResponseKind> {
        let mut frame = self.receive_raw().await?;
        let header = ResponseHeader::decode(&mut frame, key.response_header_version(version)).unwrap();
        assert_eq!(header.correlation_id, self.next);
        let response = newer::decode(key, version, &mut frame);
        assert_eq!(frame.remaining(), 0);
        Some(response)
    }
}
