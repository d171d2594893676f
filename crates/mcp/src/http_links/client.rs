//! The HTTP client under the links. Guarantees that a request is sent at most once, and that an error says whether any
//! byte of it can have left. Must never repeat a request, follow a redirect, or use a proxy that nobody configured.

use std::{error::Error, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, header::AUTHORIZATION};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

use crate::{
    Limits, LinkError, LinkFault,
    http_links::{HttpTarget, Patience},
};

/// Idle connections are dropped early: a request on one that the server is just closing is lost, and nothing repeats it. Node's and
/// uvicorn's servers close theirs after 5 s.
const IDLE_MAX: Duration = Duration::from_secs(4);

/// An HTTP client with a pool of connections; cheap to clone, one for a process.
#[derive(Clone, Debug)]
pub struct HttpClient(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl HttpClient {
    /// A client that trusts the certificate authorities of Mozilla's list (`webpki-roots`).
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(limits.connect_wait_max));
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
            .expect("ring offers the default protocol versions")
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let mut builder = Client::builder(TokioExecutor::new());
        builder.retry_canceled_requests(false).pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE_MAX);
        Self(builder.build(connector))
    }

    /// Sends a request, once, and waits for the head of its answer. A server that refuses connections is
    /// waited for so long.
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
        target: &Arc<HttpTarget>,
        wait: Duration,
    ) -> Result<Response<Incoming>, LinkError> {
        let mut patience = Patience::new(wait);
        loop {
            match self.send_now(request.clone(), target).await {
                Err(error) => patience.again(error).await?,
                answered => return answered,
            }
        }
    }

    /// The same, but for the waiting.
    pub(crate) async fn send_now(
        &self,
        mut request: Request<Full<Bytes>>,
        target: &Arc<HttpTarget>,
    ) -> Result<Response<Incoming>, LinkError> {
        let authorization = target.authorization();
        if let Some(authorization) = &authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        let answered = self.request(request, target).await?;
        if let Some(authorize) = &target.authorize {
            authorize.answered(authorization.as_ref(), answered.status(), answered.headers());
        }
        Ok(answered)
    }

    async fn request(
        &self,
        request: Request<Full<Bytes>>,
        target: &Arc<HttpTarget>,
    ) -> Result<Response<Incoming>, LinkError> {
        self.0.request(request).await.map_err(|error| {
            let reason = innermost(&error);
            if error.is_connect() && is_refused(&error) {
                return LinkError::not_sent(LinkFault::Refused { target: target.origin(), reason, waited_ms: 0 });
            }
            if error.is_connect() {
                return LinkError::not_sent(LinkFault::Connect { target: target.origin(), reason });
            }
            if never_begun(&error) {
                return LinkError::not_sent(LinkFault::Broken { reason });
            }
            LinkError::lost(LinkFault::Broken { reason })
        })
    }
}

/// Whether nobody listens there.
fn is_refused(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(at) = next {
        if let Some(error) = at.downcast_ref::<std::io::Error>() {
            return error.kind() == std::io::ErrorKind::ConnectionRefused;
        }
        next = at.source();
    }
    false
}

/// Whether a connection was closed before it took the request: hyper calls a request cancelled only while it still
/// waits in the queue before the connection.
fn never_begun(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(at) = next {
        if let Some(error) = at.downcast_ref::<hyper::Error>() {
            return error.is_canceled();
        }
        next = at.source();
    }
    false
}

/// The words of the first cause, which alone say something ("connection refused").
pub(crate) fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut at = error;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}
