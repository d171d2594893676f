//! A server that could not be reached, as a link: what is sent to it fails, and says why. Called by the gateway, so that a
//! call to such a server lives its life like any other and ends in the trail.

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::{Exchange, ForwardHeaders, Frame, Link, LinkError, Message, Prepared, Reach, link::Route, router::unfit};

/// A link to nowhere.
#[derive(Clone, Debug)]
pub struct Unreached {
    error: LinkError,
}

impl Unreached {
    /// To a server that could not be reached for this reason.
    #[must_use]
    pub fn new(error: LinkError) -> Self {
        // Whatever was said before the call, of the call itself nothing can have left.
        let error = match error {
            LinkError::Lost { cause, stderr } => LinkError::NotSent { cause, stderr },
            unsent => unsent,
        };
        debug_assert_eq!(error.reach(), Reach::NotSent);
        Self { error }
    }
}

#[async_trait]
impl Link for Unreached {
    fn prepare(&self, message: &Message, _headers: &ForwardHeaders) -> Result<Prepared, LinkError> {
        let id = message.id().cloned().ok_or_else(|| unfit("only a request can be forwarded"))?;
        let route = Route { id: Some(id.clone()), wire_id: Some(id), ..Route::default() };
        let method = message.method().map(str::to_owned);
        Ok(Prepared { bytes: message.bytes().clone(), method, route, headers: http::HeaderMap::new() })
    }

    async fn forward(&self, _prepared: Prepared) -> Result<Exchange, LinkError> {
        Err(self.error.clone())
    }

    async fn notify(&self, _message: &Message, _headers: &ForwardHeaders) -> Result<(), LinkError> {
        Err(self.error.clone())
    }

    fn unsolicited(&self) -> Option<mpsc::Receiver<Frame>> {
        None
    }

    async fn listen(&self, _headers: &ForwardHeaders) -> Result<Exchange, LinkError> {
        Err(self.error.clone())
    }

    fn is_open(&self) -> bool {
        false
    }

    async fn close(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LinkFault;

    #[tokio::test]
    async fn nothing_of_a_call_has_left_whatever_was_lost_before_it() {
        let link = Unreached::new(LinkError::lost(LinkFault::StreamEnded));
        let request = Message::request(&crate::RawId::integer(1), "ping", None).expect("a request");
        let prepared = link.prepare(&request, &ForwardHeaders::default()).expect("it can be prepared");
        assert_eq!(prepared.bytes, request.bytes());
        assert_eq!(link.forward(prepared).await.expect_err("nobody is there").reach(), Reach::NotSent);
    }
}
