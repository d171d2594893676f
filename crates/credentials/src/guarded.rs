//! The HTTP client for metadata, registrations and tokens. Used by `rmcp`'s OAuth client and by `grant.rs`.
//!
//! Guarantees: no connection to an address that [`Hosts`] does not admit, whatever a name resolves to at that moment; no
//! redirect is followed; a body, a head and the time for both are bounded; TLS is checked against Mozilla's list. Must
//! never repeat a request: an authorization code and a refresh token are good for one.

use std::{
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{HttpConnector, dns::Name},
    },
    rt::{TokioExecutor, TokioTimer},
};
use rmcp::transport::auth::{OAuthHttpClient, OAuthHttpClientFuture, OAuthHttpRequest};
use tower_service::Service;
use url::Url;

use crate::{CredentialError, Hosts};

/// Longest answer that is read.
const BODY_BYTES_MAX: usize = 256 << 10;
/// How long one request may take in all.
const REQUEST_MAX: Duration = Duration::from_secs(15);
/// How long a connection may take to open.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Idle connections are dropped early: a request on one that is just being closed would be lost.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// A client for the authorization servers of one upstream.
#[derive(Clone)]
pub struct GuardedClient {
    hosts: Arc<Hosts>,
    client: Inner,
    /// For the server's own door alone, which is wherever its name leads.
    home: Inner,
}

type Inner = Client<HttpsConnector<HttpConnector<Guard>>, Full<Bytes>>;

impl fmt::Debug for GuardedClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardedClient").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

/// Why a request has no answer, in words of Cairn's own.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(
        "its address is not allowed for this server: where it is meant, name the host in servers.<name>.auth.hosts"
    )]
    Address,
    #[error("it did not answer in time")]
    Slow,
    #[error("its answer is longer than {BODY_BYTES_MAX} bytes, or broke off")]
    Body,
    #[error("it cannot be reached")]
    Unreached,
}

impl GuardedClient {
    /// A client that reaches those hosts.
    #[must_use]
    pub fn new(hosts: Hosts) -> Self {
        let hosts = Arc::new(hosts);
        let client = build(Guard { hosts: hosts.clone(), any: false });
        let home = build(Guard { hosts: hosts.clone(), any: true });
        Self { hosts, client, home }
    }

    /// Whether a URL that somebody named may be asked.
    pub(crate) fn admits(&self, url: &Url) -> bool {
        self.hosts.admits_url(url)
    }

    /// Sends a request, once.
    ///
    /// # Errors
    /// [`CredentialError::Unavailable`], with words of Cairn's own.
    pub(crate) async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, CredentialError> {
        self.ask(request).await.map_err(|fault| CredentialError::unavailable(fault.to_string()))
    }

    async fn ask(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Fault> {
        let url = Url::parse(&request.uri().to_string()).map_err(|_| Fault::Address)?;
        if !self.hosts.admits_url(&url) {
            return Err(Fault::Address);
        }
        let client = if self.hosts.is_home(&url) { &self.home } else { &self.client };
        let answered = async {
            let response = client.request(request.map(Full::new)).await.map_err(|error| fault_of(&error))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|_| Fault::Body)?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        tokio::time::timeout(REQUEST_MAX, answered).await.map_err(|_| Fault::Slow)?
    }
}

fn build(guard: Guard) -> Inner {
    let mut tcp = HttpConnector::new_with_resolver(guard);
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_MAX));
    let connector = HttpsConnectorBuilder::new()
        .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
        .expect("ring offers the default protocol versions")
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    let mut builder = Client::builder(TokioExecutor::new());
    builder.retry_canceled_requests(false).pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE_MAX);
    builder.build(connector)
}

/// Whether a name led to where it must not, or nobody was there. The system's words may hold what a server chose.
fn fault_of(error: &(dyn std::error::Error + 'static)) -> Fault {
    let mut next = Some(error);
    while let Some(at) = next {
        let io = at.downcast_ref::<io::Error>();
        if io.is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
            return Fault::Address;
        }
        if at.is::<Forbidden>() {
            return Fault::Address;
        }
        next = at.source();
    }
    Fault::Unreached
}

/// The words of a failure of ours, which alone may be shown.
pub(crate) fn own_words(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    error.downcast_ref::<Fault>().map(ToString::to_string)
}

impl OAuthHttpClient for GuardedClient {
    /// Redirects are given back and not followed, whatever is asked: `rmcp` follows those of discovery by itself, within
    /// one origin.
    fn execute(&self, request: OAuthHttpRequest) -> OAuthHttpClientFuture<'_> {
        Box::pin(async move {
            let answer = self.ask(request.request.map(Bytes::from)).await?;
            Ok(answer.map(|body| body.to_vec()))
        })
    }
}

/// Resolves a name and keeps the addresses that may be connected to.
#[derive(Clone, Debug)]
struct Guard {
    hosts: Arc<Hosts>,
    any: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("no address of this host may be connected to")]
struct Forbidden;

type Resolved = std::vec::IntoIter<SocketAddr>;

impl Service<Name> for Guard {
    type Response = Resolved;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Resolved, io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (hosts, any) = (self.hosts.clone(), self.any);
        Box::pin(async move {
            let found: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let known = found.len();
            let admitted: Vec<_> =
                found.into_iter().filter(|at| any || hosts.admits_address(name.as_str(), at.ip())).collect();
            if admitted.is_empty() && known > 0 {
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, Forbidden));
            }
            Ok(admitted.into_iter())
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    fn client(server: &str, named: &[&str]) -> GuardedClient {
        let server = Url::parse(server).expect("a URL");
        GuardedClient::new(Hosts::new(&server, named.iter().map(|&host| host.to_owned())))
    }

    fn get(url: &str) -> Request<Bytes> {
        Request::get(url).body(Bytes::new()).expect("a request")
    }

    /// Answers every connection with these bytes, and counts them.
    async fn door(answer: &'static str) -> (u16, Arc<std::sync::atomic::AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let knocks = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = knocks.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let _ = stream.read(&mut [0; 4_096]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        (port, knocks)
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_is_not_connected_to() {
        let (port, knocks) = door("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
        // To a public server's credential `localhost` is a name like any other that resolves to an address inside.
        let hosts = Hosts::new(&Url::parse("https://mcp.example.com").expect("a URL"), []);
        let mut guard = Guard { hosts: Arc::new(hosts), any: false };
        let name = "localhost".parse().expect("a name");
        let refused = guard.call(name).await.expect_err("it resolves to loopback");
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        let outside = client("https://mcp.example.com", &[]);
        for url in [format!("http://127.0.0.1:{port}/"), format!("https://localhost:{port}/")] {
            let refused = outside.send(get(&url)).await.expect_err("it is inside");
            assert!(refused.to_string().contains("auth.hosts"), "{refused}");
        }
        assert_eq!(knocks.load(std::sync::atomic::Ordering::SeqCst), 0, "nobody was asked");
        let local = client("http://127.0.0.1:1/mcp", &[]);
        assert!(local.send(get(&format!("http://localhost:{port}/"))).await.is_ok());
    }

    #[tokio::test]
    async fn a_redirect_is_given_back_and_not_followed() {
        let (inside, knocks) = door("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
        let answer = format!("HTTP/1.1 307 Go\r\nlocation: http://127.0.0.1:{inside}/\r\ncontent-length: 0\r\n\r\n");
        let (port, _) = door(answer.leak()).await;
        let local = client("http://127.0.0.1:1/mcp", &[]);
        let answer = local.send(get(&format!("http://127.0.0.1:{port}/"))).await.expect("an answer");
        assert_eq!(answer.status(), 307);
        assert_eq!(knocks.load(std::sync::atomic::Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn a_long_answer_is_not_read() {
        let body = "x".repeat(BODY_BYTES_MAX + 1);
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let (port, _) = door(answer.leak()).await;
        let local = client("http://127.0.0.1:1/mcp", &[]);
        assert!(local.send(get(&format!("http://127.0.0.1:{port}/"))).await.is_err());
    }
}
