//! Streamable HTTP, both eras: each message is a POST, answered by one JSON object or a stream of events (MCP, transports,
//! Streamable HTTP; 2025-03-26 to 2026-07-28). Called by the gateway through [`Link`].
//!
//! Guarantees: bodies are what `prepare` gave, byte for byte; headers that mirror the body are computed from it; a session
//! id that the server gave at `initialize` is sent from then on. Must never pass a client's credentials on.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{ACCEPT, CONTENT_TYPE},
};
use http_body_util::Full;
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{
    HttpClient, HttpTarget,
    body::{Media, collect, media, stream},
};
use crate::{
    Canceller, Content, Exchange, ForwardHeaders, Frame, Kind, Limits, Link, LinkError, LinkFault, Message, Prepared,
    RawId, headers,
    link::{OnItsWay, Route},
    router::{cancellation, unfit},
};

const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");
const JSON_AND_EVENTS: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");

/// A Streamable HTTP server, for one session or principal.
#[derive(Debug)]
pub struct HttpLink {
    client: HttpClient,
    target: Arc<HttpTarget>,
    limits: Limits,
    /// How long a server that refuses connections is waited for.
    connect_wait_max: Duration,
    session: Mutex<Option<HeaderValue>>,
}

impl HttpLink {
    /// A link; nothing is sent before the first message.
    #[must_use]
    pub const fn new(client: HttpClient, target: Arc<HttpTarget>, limits: Limits) -> Self {
        Self { client, target, limits, connect_wait_max: limits.connect_wait_max, session: Mutex::new(None) }
    }

    /// The same, for whoever does not wait for a server that refuses connections.
    #[must_use]
    pub const fn impatient(client: HttpClient, target: Arc<HttpTarget>, limits: Limits) -> Self {
        Self { client, target, limits, connect_wait_max: Duration::ZERO, session: Mutex::new(None) }
    }

    /// The session id that the server gave at `initialize`.
    #[must_use]
    pub fn session_id(&self) -> Option<String> {
        self.session.lock().as_ref().and_then(|value| value.to_str().ok()).map(str::to_owned)
    }

    /// The headers of one request, weakest first.
    fn headers(&self, given: &ForwardHeaders, mirrored: &HeaderMap) -> Result<HeaderMap, LinkError> {
        let mut all = HeaderMap::new();
        for (name, value) in given.passed.iter().filter(|(name, _)| headers::may_pass(name)) {
            all.append(name, value.clone());
        }
        let session = match &given.session_id {
            Some(id) => Some(HeaderValue::from_str(id).map_err(|_| unfit("the session id is no header value"))?),
            None => self.session.lock().clone(),
        };
        all.extend(session.map(|mut id| {
            id.set_sensitive(true);
            (SESSION, id)
        }));
        if let Some(version) = &given.protocol_version {
            let version = HeaderValue::from_str(version);
            all.insert(
                headers::PROTOCOL_VERSION,
                version.map_err(|_| unfit("the protocol version is no header value"))?,
            );
        }
        for (name, value) in mirrored.iter().chain(&self.target.headers) {
            all.insert(name, value.clone());
        }
        Ok(all)
    }

    fn request(&self, method: Method, headers: HeaderMap, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = self.target.uri.clone();
        *request.headers_mut() = headers;
        request
    }

    async fn post(&self, body: Bytes, mut headers: HeaderMap) -> Result<Response<Incoming>, LinkError> {
        headers.insert(ACCEPT, JSON_AND_EVENTS);
        headers.insert(CONTENT_TYPE, JSON);
        self.client.send(self.request(Method::POST, headers, body), &self.target, self.connect_wait_max).await
    }

    /// In the modern era a closed stream cancels; in the legacy era it does not, so the server is told.
    fn canceller(&self, prepared: &Prepared) -> Canceller {
        let Some(id) = prepared.route.id.clone() else { return Canceller::none() };
        if prepared.headers.contains_key(headers::METHOD) || !prepared.may_be_cancelled() {
            return Canceller::none();
        }
        let (client, target, limits) = (self.client.clone(), self.target.clone(), self.limits);
        let link = Self::impatient(client, target, limits);
        let (link, headers) = (Arc::new(link), prepared.headers.clone());
        Canceller::new(move |reason| {
            let (link, headers) = (link.clone(), headers.clone());
            let notice = cancellation(&id, reason.as_deref());
            Box::pin(async move {
                let posted = link.post(notice.bytes().clone(), headers);
                if !matches!(tokio::time::timeout(link.limits.exit_wait_max, posted).await, Ok(Ok(_))) {
                    tracing::debug!("could not cancel a call at the server");
                }
            })
        })
    }

    /// Turns a response into an exchange; `id` is that of the request whose answer it is.
    async fn exchange(&self, response: Response<Incoming>, id: Option<RawId>) -> Result<Exchange, LinkError> {
        let (head, body) = response.into_parts();
        let session_id = head.headers.get(SESSION).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let is_success = head.status.is_success();
        let content = match media(&head.headers) {
            Media::Events if is_success => Content::Stream(stream(body, id, self.limits)),
            kind => {
                let bytes = collect(body, &self.limits).await?;
                let parsed =
                    (kind == Media::Json && !bytes.is_empty()).then(|| Message::parse(bytes.clone(), &self.limits));
                match parsed {
                    _ if bytes.is_empty() => Content::Empty,
                    Some(Ok(message)) => Content::Json(message),
                    Some(Err(refusal)) if is_success => return Err(LinkError::lost(LinkFault::BadAnswer(refusal))),
                    _ => {
                        let value = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
                        Content::Other { content_type: value.map(str::to_owned), body: bytes }
                    }
                }
            }
        };
        let canceller = Canceller::none();
        Ok(Exchange { status: head.status.as_u16(), session_id, headers: head.headers, content, canceller })
    }
}

#[async_trait]
impl Link for HttpLink {
    fn prepare(&self, message: &Message, given: &ForwardHeaders) -> Result<Prepared, LinkError> {
        if message.kind() != Kind::Request {
            return Err(unfit("only a request can be forwarded; send this one with notify"));
        }
        let mirrored = headers::compute(message, &given.annotations).map_err(|fault| unfit(&fault.to_string()))?;
        let headers = self.headers(given, &mirrored)?;
        let route = Route { id: message.id().cloned(), wire_id: message.id().cloned(), ..Route::default() };
        let method = message.method().map(str::to_owned);
        Ok(Prepared { bytes: message.bytes().clone(), method, route, headers })
    }

    async fn forward(&self, prepared: Prepared) -> Result<Exchange, LinkError> {
        let begins = prepared.method.as_deref() == Some("initialize");
        // A server that answers with JSON sends no header before its answer: all of its work is within this wait.
        let on_its_way = OnItsWay::new(self.canceller(&prepared));
        let answered = async {
            let response = self.post(prepared.bytes, prepared.headers).await?;
            if let Some(session) = response.headers().get(SESSION).filter(|_| begins && response.status().is_success())
            {
                *self.session.lock() = Some(session.clone());
            }
            self.exchange(response, prepared.route.id).await
        };
        let answered = answered.await;
        let canceller = on_its_way.arrived();
        Ok(Exchange { canceller, ..answered? })
    }

    async fn notify(&self, message: &Message, given: &ForwardHeaders) -> Result<(), LinkError> {
        if message.kind() == Kind::Request {
            return Err(unfit("a request is forwarded, not notified, because it has an answer"));
        }
        let mirrored = headers::compute(message, &[]).map_err(|fault| unfit(&fault.to_string()))?;
        self.target.ready().await;
        let response = self.post(message.bytes().clone(), self.headers(given, &mirrored)?).await?;
        let status = response.status();
        if status.is_success() {
            // Read to the end, so that the connection can be used again.
            let _ = collect(response.into_body(), &self.limits).await;
            return Ok(());
        }
        Err(LinkError::lost(LinkFault::Status { status: status.as_u16() }))
    }

    fn unsolicited(&self) -> Option<mpsc::Receiver<Frame>> {
        None
    }

    async fn listen(&self, given: &ForwardHeaders) -> Result<Exchange, LinkError> {
        let mut headers = self.headers(given, &HeaderMap::new())?;
        headers.insert(ACCEPT, EVENTS);
        if let Some(id) = &given.last_event_id {
            let id = HeaderValue::from_str(id).map_err(|_| unfit("Last-Event-ID is no header value"))?;
            headers.insert(LAST_EVENT, id);
        }
        self.target.ready().await;
        let before = self.target.authorization();
        let request = self.request(Method::GET, headers, Bytes::new());
        let mut response = self.client.send(request.clone(), &self.target, self.connect_wait_max).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            // Opening a stream changes nothing, so it can be asked for again where there is another token now.
            self.target.ready().await;
            if self.target.authorization() != before {
                response = self.client.send(request, &self.target, self.connect_wait_max).await?;
            }
        }
        self.exchange(response, None).await
    }

    async fn close(&self) {
        let Some(session) = self.session.lock().take() else { return };
        let mut headers = self.target.headers.clone();
        headers.insert(SESSION, session);
        let request = self.request(Method::DELETE, headers, Bytes::new());
        let asked = tokio::time::timeout(self.limits.exit_wait_max, self.client.send_now(request, &self.target)).await;
        if !matches!(asked, Ok(Ok(_))) {
            tracing::debug!(target_origin = self.target.origin(), "could not end the session at the server");
        }
    }
}

#[cfg(test)]
mod tests;
