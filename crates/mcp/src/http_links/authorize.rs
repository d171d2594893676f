//! What an HTTP link proves itself with. Asked by the links for each request that they send, and told what the server
//! answered; made by the gateway. What sends a call must not wait for a token: the gateway got it before the intent.

use std::fmt;

use async_trait::async_trait;
use http::{HeaderMap, HeaderValue, StatusCode};

/// Gives the `Authorization` header of each request.
#[async_trait]
pub trait Authorize: fmt::Debug + Send + Sync {
    /// Sees to it that there is a token, as far as that can be: before what is no call, such as a notification or a stream
    /// that is opened.
    async fn ready(&self);

    /// The header for a request that is about to leave; none where there is no token. Marked as sensitive.
    fn authorization(&self) -> Option<HeaderValue>;

    /// What the server answered to a request that carried `sent`.
    fn answered(&self, sent: Option<&HeaderValue>, status: StatusCode, headers: &HeaderMap);
}
