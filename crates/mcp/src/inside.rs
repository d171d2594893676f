//! A server in the same process: no bytes leave it, and no child is started. Called by the gateway through [`Link`].
//!
//! Guarantees: each request is answered once, on a thread that may block; an answer is that of [`crate::serving`].

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use http::HeaderMap;
use tokio::sync::mpsc;

use crate::{
    Canceller, Content, Exchange, ForwardHeaders, Frame, Kind, Limits, Link, LinkError, LinkFault, Message, Prepared,
    link::Route,
    serving::{Served, answer},
};

/// A connection to a server in this process.
#[derive(Debug)]
pub struct InsideLink {
    served: Arc<dyn Served>,
    limits: Limits,
    is_closed: AtomicBool,
}

impl InsideLink {
    /// A connection for one scope: what is served knows whose it is.
    #[must_use]
    pub fn new(served: Arc<dyn Served>, limits: Limits) -> Self {
        Self { served, limits, is_closed: AtomicBool::new(false) }
    }

    fn check(&self) -> Result<(), LinkError> {
        if self.is_open() { Ok(()) } else { Err(LinkError::not_sent(LinkFault::Closed)) }
    }
}

#[async_trait]
impl Link for InsideLink {
    fn prepare(&self, message: &Message, _headers: &ForwardHeaders) -> Result<Prepared, LinkError> {
        let Some(id) = message.id().filter(|_| message.kind() == Kind::Request).cloned() else {
            let reason = "only a request can be forwarded; send this one with notify".to_owned();
            return Err(LinkError::not_sent(LinkFault::Unfit { reason }));
        };
        let route = Route { id: Some(id.clone()), wire_id: Some(id), ..Route::default() };
        let method = message.method().map(ToOwned::to_owned);
        Ok(Prepared { bytes: message.bytes().clone(), method, route, headers: HeaderMap::new() })
    }

    async fn forward(&self, prepared: Prepared) -> Result<Exchange, LinkError> {
        self.check()?;
        let unfit = |reason: String| LinkError::not_sent(LinkFault::Unfit { reason });
        let message = Message::parse(prepared.bytes, &self.limits).map_err(|error| unfit(error.to_string()))?;
        let (served, limits) = (self.served.clone(), self.limits);
        let answered = tokio::task::spawn_blocking(move || answer(&*served, &message, &limits)).await;
        let lost = |reason: &str| LinkError::lost(LinkFault::Broken { reason: reason.to_owned() });
        let answered = answered.map_err(|_| lost("it broke off"))?.ok_or_else(|| lost("it has no answer"))?;
        Ok(Exchange {
            status: 200,
            session_id: None,
            headers: HeaderMap::new(),
            content: Content::Json(answered),
            canceller: Canceller::none(),
        })
    }

    async fn notify(&self, _message: &Message, _headers: &ForwardHeaders) -> Result<(), LinkError> {
        self.check()
    }

    fn unsolicited(&self) -> Option<mpsc::Receiver<Frame>> {
        None
    }

    fn is_open(&self) -> bool {
        !self.is_closed.load(Ordering::Acquire)
    }

    async fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{RawId, serving::Fault};

    #[derive(Debug)]
    struct Echo;

    impl Served for Echo {
        fn welcome(&self) -> Value {
            json!({ "capabilities": { "tools": {} }, "serverInfo": { "name": "echo", "version": "1" } })
        }

        fn given(&self, method: &str, request: &Message) -> Option<Result<String, Fault>> {
            match method {
                "tools/call" => Some(Ok(json!({ "content": [], "said": request.param_str("name") }).to_string())),
                "resources/read" => Some(Err(Fault::new(-32_002, "no such resource"))),
                _ => None,
            }
        }
    }

    async fn ask(link: &InsideLink, method: &str, params: Value) -> Value {
        let request = Message::request(&RawId::integer(7), method, Some(params.to_string().as_bytes()));
        let prepared = link.prepare(&request.expect("a request"), &ForwardHeaders::default()).expect("it fits");
        let Content::Json(message) = link.forward(prepared).await.expect("an answer").content else {
            panic!("one message")
        };
        let said: Value = serde_json::from_slice(message.bytes()).expect("JSON");
        assert_eq!(said["id"], 7);
        said
    }

    fn modern(mut params: Value) -> Value {
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        params
    }

    #[tokio::test]
    async fn clients_of_both_eras_are_answered_in_their_own() {
        let link = InsideLink::new(Arc::new(Echo), Limits::default());
        let hello = json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
        let welcome = ask(&link, "initialize", hello).await;
        assert_eq!(welcome["result"]["protocolVersion"], "2025-06-18");
        assert_eq!(ask(&link, "tools/call", json!({ "name": "a" })).await["result"]["said"], "a");
        assert_eq!(ask(&link, "resources/read", json!({ "uri": "x:y" })).await["error"]["code"], -32_002);
        assert_eq!(ask(&link, "tools/list", json!({})).await["error"]["code"], -32_601);
        let found = ask(&link, "server/discover", modern(json!({}))).await;
        assert_eq!(found["result"]["supportedVersions"], json!(["2026-07-28"]));
        let called = ask(&link, "tools/call", modern(json!({ "name": "a" }))).await;
        assert_eq!((&called["result"]["said"], &called["result"]["resultType"]), (&json!("a"), &json!("complete")));
        let none = ask(&link, "resources/read", modern(json!({ "uri": "x:y" }))).await;
        assert_eq!(none["error"]["code"], -32_602, "a code that this era does not have");
        link.close().await;
        let request = Message::request(&RawId::integer(1), "ping", None).expect("a request");
        let prepared = link.prepare(&request, &ForwardHeaders::default()).expect("it fits");
        assert!(link.forward(prepared).await.is_err_and(|error| error.reach() == crate::Reach::NotSent));
    }
}
