//! The HTTP+SSE transport of 2024-11-05, towards servers only: one GET stream brings everything that the server says,
//! beginning with the address to POST messages to. Called by the gateway through [`Link`].
//!
//! Guarantees: messages go to the origin that was configured and to no other, whatever address the server names; a stream
//! that ends ends every call that waits with `Lost`. Must never resume: this revision has no event ids.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Uri,
    header::{ACCEPT, CONTENT_TYPE},
};
use http_body_util::Full;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    HttpClient, HttpTarget, Patience,
    body::{Events, Media, collect, frame, media},
};
use crate::{
    Canceller, Content, Exchange, ForwardHeaders, Frame, Limits, Link, LinkError, LinkFault, Message, Prepared,
    headers,
    link::OnItsWay,
    router::{Routed, Router, cancellation},
};

/// A server of 2024-11-05, for one session.
#[derive(Debug)]
pub struct SseLink {
    sender: Sender,
    router: Arc<Router>,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

/// Posts messages to the address that the server named.
#[derive(Clone, Debug)]
struct Sender {
    client: HttpClient,
    target: Arc<HttpTarget>,
    endpoint: Uri,
    limits: Limits,
}

impl SseLink {
    /// Opens the stream and waits for the server's `endpoint` event.
    ///
    /// # Errors
    /// `NotSent`: no message was sent yet. [`LinkFault::Status`] where the server has no such stream.
    pub async fn connect(client: HttpClient, target: Arc<HttpTarget>, limits: Limits) -> Result<Self, LinkError> {
        let waited_ms = u64::try_from(limits.connect_wait_max.as_millis()).unwrap_or(u64::MAX);
        let mut patience = Patience::new(limits.connect_wait_max);
        target.ready().await;
        let mut before = target.authorization();
        let (events, endpoint) = loop {
            let timed = tokio::time::timeout(limits.connect_wait_max, open(&client, &target, &limits)).await;
            let opened = timed.map_err(|_| LinkFault::TimedOut { waited_ms }).and_then(|opened| opened);
            match opened.map_err(LinkError::not_sent) {
                // Opening a stream changes nothing, so it can be asked for again where there is another token now.
                Err(error) if matches!(error.cause(), LinkFault::Status { status: 401 }) => {
                    target.ready().await;
                    let now = target.authorization();
                    if now.is_none() || now == before {
                        return Err(error);
                    }
                    before = now;
                }
                Err(error) => patience.again(error).await?,
                Ok(opened) => break opened,
            }
        };
        let router = Arc::new(Router::new(limits, false));
        let stop = CancellationToken::new();
        let sender = Sender { client, target, endpoint, limits };
        tokio::spawn(read(events, Arc::clone(&router), sender.clone(), stop.clone()));
        let guard = stop.clone().drop_guard();
        Ok(Self { sender, router, stop, _stop_on_drop: guard })
    }
}

async fn open(client: &HttpClient, target: &Arc<HttpTarget>, limits: &Limits) -> Result<(Events, Uri), LinkFault> {
    let mut request = Request::new(Full::new(Bytes::new()));
    *request.uri_mut() = target.uri.clone();
    *request.headers_mut() = target.headers.clone();
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
    let response = client.send_now(request, target).await.map_err(|error| error.cause().clone())?;
    if !response.status().is_success() || media(response.headers()) != Media::Events {
        return Err(LinkFault::Status { status: response.status().as_u16() });
    }
    let mut events = Events::new(response.into_body(), limits);
    while let Some(event) = events.next().await? {
        if event.event.as_deref() == Some("endpoint") {
            let named = event.data.unwrap_or_default();
            let endpoint = std::str::from_utf8(&named).ok().and_then(|text| resolve(&target.uri, text.trim()));
            let reason = "the server named an address of another origin to send messages to".to_owned();
            return Ok((events, endpoint.ok_or(LinkFault::Unfit { reason })?));
        }
    }
    Err(LinkFault::StreamEnded)
}

/// The address that a reference names, if it is of the same origin: credentials are sent there.
fn resolve(base: &Uri, reference: &str) -> Option<Uri> {
    let (scheme, authority) = (base.scheme()?.clone(), base.authority()?.clone());
    if reference.contains("://") {
        let uri: Uri = reference.parse().ok()?;
        return (uri.scheme() == Some(&scheme) && uri.authority() == Some(&authority)).then_some(uri);
    }
    let path = match reference {
        _ if reference.starts_with("//") || reference.is_empty() => return None,
        _ if reference.starts_with('/') => reference.to_owned(),
        _ if reference.starts_with('?') => format!("{}{reference}", base.path()),
        _ => format!("{}/{reference}", base.path().rsplit_once('/').map_or("", |(folder, _)| folder)),
    };
    Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build().ok()
}

/// Routes what the server says until its stream ends.
async fn read(mut events: Events, router: Arc<Router>, sender: Sender, stop: CancellationToken) {
    let cause = loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = stop.cancelled() => break LinkFault::Closed,
        };
        let event = match event {
            Ok(Some(event)) => event,
            Ok(None) => break LinkFault::StreamEnded,
            Err(fault) => break fault,
        };
        if event.event.as_deref().is_some_and(|name| name != "message") {
            continue;
        }
        match frame(event, &sender.limits) {
            Ok(frame) => {
                if let Routed::Answer(answer) = router.route(frame) {
                    let sender = sender.clone();
                    tokio::spawn(async move { sender.post(answer.bytes().clone(), HeaderMap::new()).await });
                }
            }
            Err(fault) => {
                // What is wrong with it may name what stands in it.
                tracing::warn!("ignored an event of the server that is no message");
                if let LinkFault::BadAnswer(refusal) = &fault
                    && let Some(id) = &refusal.id
                {
                    router.fail(id, fault.clone());
                }
            }
        }
    };
    router.end(&cause, None);
}

impl Sender {
    async fn post(&self, bytes: Bytes, passed: HeaderMap) -> Result<(), LinkError> {
        let mut request = Request::new(Full::new(bytes));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.endpoint.clone();
        *request.headers_mut() = passed;
        for (name, value) in &self.target.headers {
            request.headers_mut().insert(name, value.clone());
        }
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let response = self.client.send(request, &self.target, self.limits.connect_wait_max).await?;
        let status = response.status();
        let _ = collect(response.into_body(), &self.limits).await;
        if status.is_success() {
            return Ok(());
        }
        Err(LinkError::lost(LinkFault::Status { status: status.as_u16() }))
    }
}

fn passed(given: &ForwardHeaders) -> HeaderMap {
    let kept = given.passed.iter().filter(|(name, _)| headers::may_pass(name));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

#[async_trait]
impl Link for SseLink {
    fn prepare(&self, message: &Message, given: &ForwardHeaders) -> Result<Prepared, LinkError> {
        let prepared = self.router.prepare(message)?;
        Ok(Prepared { headers: passed(given), ..prepared })
    }

    async fn forward(&self, prepared: Prepared) -> Result<Exchange, LinkError> {
        let frames = self.router.register(&prepared)?;
        let wire = prepared.route.wire_id.clone().expect("a registered call has an id on the wire");
        let (sender, named) = (self.sender.clone(), wire.clone());
        let canceller = Canceller::new(move |reason| {
            let (sender, notice) = (sender.clone(), cancellation(&named, reason.as_deref()));
            Box::pin(async move {
                let posted = sender.post(notice.bytes().clone(), HeaderMap::new());
                if !matches!(tokio::time::timeout(sender.limits.exit_wait_max, posted).await, Ok(Ok(()))) {
                    tracing::debug!("could not cancel a call at the server");
                }
            })
        });
        let on_its_way = OnItsWay::new(if prepared.may_be_cancelled() { canceller } else { Canceller::none() });
        let posted = self.sender.post(prepared.bytes, prepared.headers).await;
        let canceller = on_its_way.arrived();
        match posted {
            Ok(()) => {}
            // Whoever is not let in has done nothing there: an answer, not a loss.
            Err(LinkError::Lost { cause: LinkFault::Status { status: status @ (401 | 403) }, .. }) => {
                self.router.unregister(&wire);
                return Ok(Exchange {
                    status,
                    session_id: None,
                    headers: HeaderMap::new(),
                    content: Content::Empty,
                    canceller: Canceller::none(),
                });
            }
            Err(error) => {
                self.router.unregister(&wire);
                return Err(error);
            }
        }
        let content = Content::Stream(frames);
        Ok(Exchange { status: 200, session_id: None, headers: HeaderMap::new(), content, canceller })
    }

    async fn notify(&self, message: &Message, given: &ForwardHeaders) -> Result<(), LinkError> {
        let bytes = self.router.prepare_notice(message)?;
        if let Some(ended) = self.router.ended() {
            return Err(ended);
        }
        self.sender.target.ready().await;
        self.sender.post(bytes, passed(given)).await
    }

    fn unsolicited(&self) -> Option<mpsc::Receiver<Frame>> {
        self.router.unsolicited()
    }

    fn is_open(&self) -> bool {
        self.router.ended().is_none()
    }

    async fn close(&self) {
        self.stop.cancel();
        self.router.end(&LinkFault::Closed, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_go_to_the_configured_origin_only() {
        let base: Uri = "http://host:1/a/sse?x=1".parse().expect("a URL");
        let to = |reference: &str| resolve(&base, reference).map(|uri| uri.to_string());
        assert_eq!(to("/messages?s=1").as_deref(), Some("http://host:1/messages?s=1"));
        assert_eq!(to("messages").as_deref(), Some("http://host:1/a/messages"));
        assert_eq!(to("?s=1").as_deref(), Some("http://host:1/a/sse?s=1"));
        assert_eq!(to("http://host:1/m").as_deref(), Some("http://host:1/m"));
        for wrong in ["http://evil/m", "https://host:1/m", "//evil/m", "http://host:2/m", ""] {
            assert_eq!(to(wrong), None, "{wrong}");
        }
    }
}
