//! Handshakes within bounds: how long one may take, and how many there are at once. Called by each listener.
//!
//! When there are too many, the one that began first gives way: a handshake takes milliseconds where somebody means it, so
//! a flood of connections that say nothing locks nobody out. What is not TLS is told apart by its first byte, before
//! anything else is read of it.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use crate::ServerTls;

/// Handshakes of one listener at once.
pub const PENDING_MAX: usize = 256;
/// The first byte of a handshake record (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;
/// How long somebody who speaks HTTP in the clear is told so.
const TOLD_WITHIN: Duration = Duration::from_secs(2);
/// How much of what they send meanwhile is read, and thrown away.
const THROWN_AWAY_MAX: u64 = 64 << 10;

/// Why a connection has no TLS.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// It did not end in time.
    #[error("it did not end in time")]
    Late,
    /// Too many began after it.
    #[error("it was the oldest of too many that had not ended")]
    GaveWay,
    /// The peer does not speak TLS. The stream is given back with nothing read of it.
    #[error("the peer does not speak TLS")]
    Plaintext(TcpStream),
    /// The peer is gone, or what it sent was refused.
    #[error(transparent)]
    Failed(#[from] io::Error),
}

/// The handshakes of one listener. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handshakes {
    tls: ServerTls,
    within: Duration,
    pending: Arc<Pending>,
}

impl Handshakes {
    /// Handshakes with these certificates, each within that time, and at most so many at once.
    #[must_use]
    pub fn new(tls: ServerTls, within: Duration, most: usize) -> Self {
        Self { tls, within, pending: Arc::new(Pending { most: most.max(1), ..Pending::default() }) }
    }

    /// Makes the handshake of a connection, with the certificates that are good now.
    ///
    /// # Errors
    /// [`HandshakeError`]: the connection is of no use.
    pub async fn of(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, HandshakeError> {
        let begun = self.pending.begin();
        let made = async {
            let mut first = [0];
            if stream.peek(&mut first).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            if first[0] != HANDSHAKE {
                return Err(HandshakeError::Plaintext(stream));
            }
            Ok(TlsAcceptor::from(self.tls.current()).accept(stream).await?)
        };
        tokio::select! {
            () = begun.give_way.cancelled() => Err(HandshakeError::GaveWay),
            made = tokio::time::timeout(self.within, made) => made.unwrap_or(Err(HandshakeError::Late)),
        }
    }
}

/// Those that have begun and not ended, oldest first.
#[derive(Debug, Default)]
struct Pending {
    most: usize,
    next: AtomicU64,
    all: Mutex<VecDeque<(u64, CancellationToken)>>,
}

/// One of them; it has ended when this is dropped.
struct Begun<'a> {
    pending: &'a Pending,
    number: u64,
    give_way: CancellationToken,
}

impl Pending {
    fn begin(&self) -> Begun<'_> {
        let (number, give_way) = (self.next.fetch_add(1, Ordering::Relaxed), CancellationToken::new());
        let mut all = self.all.lock();
        while all.len() >= self.most
            && let Some((_, oldest)) = all.pop_front()
        {
            oldest.cancel();
        }
        all.push_back((number, give_way.clone()));
        Begun { pending: self, number, give_way }
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.pending.all.lock().retain(|(number, _)| *number != self.number);
    }
}

/// Tells a client that speaks HTTP in the clear that this address wants HTTPS, and closes.
pub async fn refuse_http(mut stream: TcpStream) {
    let body = r#"{"error":"this address speaks TLS: use https://"}"#;
    let head = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: application/json";
    let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let told = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        // What is closed over unread bytes is reset, and the answer is lost.
        tokio::io::copy(&mut stream.take(THROWN_AWAY_MAX), &mut tokio::io::sink()).await
    };
    // Whoever is gone need not hear it.
    let _ = tokio::time::timeout(TOLD_WITHIN, told).await;
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use tokio::net::TcpListener;

    use super::*;
    use crate::TlsFiles;

    async fn pair(listener: &TcpListener) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("connected");
        (client, listener.accept().await.expect("accepted").0)
    }

    fn tls(folder: &std::path::Path) -> ServerTls {
        let key = KeyPair::generate().expect("a key");
        let made = CertificateParams::new(vec!["localhost".to_owned()]).expect("names").self_signed(&key);
        std::fs::write(folder.join("c.pem"), made.expect("a certificate").pem()).expect("written");
        std::fs::write(folder.join("k.pem"), key.serialize_pem()).expect("written");
        let (certificate, key) = (folder.join("c.pem"), folder.join("k.pem"));
        let files = TlsFiles { certificate, key, client_authorities: None, clients_required: false };
        ServerTls::open(files, &[b"http/1.1"]).expect("they fit")
    }

    #[tokio::test]
    async fn the_silent_are_ended_in_time_and_the_oldest_give_way() {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let late = Handshakes::new(tls(folder.path()), Duration::from_millis(20), 9);
        let (_client, server) = pair(&listener).await;
        assert!(matches!(late.of(server).await, Err(HandshakeError::Late)));

        let patient = Handshakes::new(tls(folder.path()), Duration::from_secs(600), 1);
        let (_first, server) = pair(&listener).await;
        let first = tokio::spawn({
            let patient = patient.clone();
            async move { patient.of(server).await }
        });
        while patient.pending.all.lock().is_empty() {
            tokio::task::yield_now().await;
        }
        let (mut second, server) = pair(&listener).await;
        let refused = tokio::spawn(async move { patient.of(server).await });
        assert!(matches!(first.await.expect("no panic"), Err(HandshakeError::GaveWay)));
        second.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("written");
        let Err(HandshakeError::Plaintext(stream)) = refused.await.expect("no panic") else {
            panic!("it does not speak TLS")
        };
        refuse_http(stream).await;
        let mut said = String::new();
        second.read_to_string(&mut said).await.expect("read");
        assert!(said.starts_with("HTTP/1.1 400 ") && said.contains("https://"), "{said}");
    }

    #[tokio::test]
    async fn who_believes_its_authority_comes_in() {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let all = Handshakes::new(tls(folder.path()), Duration::from_secs(60), PENDING_MAX);
        for (authorities, comes_in) in [(Some(folder.path().join("c.pem")), true), (None, false)] {
            let (client, server) = pair(&listener).await;
            let config = crate::ClientTls { authorities, own: None }.config().expect("readable");
            let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
            let name = "localhost".try_into().expect("a name");
            let (met, made) = tokio::join!(connector.connect(name, client), all.of(server));
            assert_eq!((met.is_ok(), made.is_ok()), (comes_in, comes_in));
        }
        assert!(all.pending.all.lock().is_empty());
    }
}
