//! Who is at the other end of a connection, and SASL PLAIN (RFC 4616). Called by the server and the request table.
//!
//! A connection is anonymous until it proves a secret; it never becomes [`Principal::Internal`].

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    error::ResponseError,
    messages::{SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse},
};

use super::{Request, RequestError, reason, text};
use crate::{
    broker::Broker,
    options::HostPort,
    principal::{Principal, Users},
};

const MECHANISM: &str = "PLAIN";

/// What is known of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) principal: Principal,
    pub(crate) client_id: String,
    pub(crate) host: String,
    pub(crate) advertised: HostPort,
    handshaken: bool,
    raw_token: bool,
    /// Who may come in by this port, where that is not anybody.
    only: Option<Users>,
}

impl Session {
    pub(crate) fn new(host: String, advertised: HostPort, only: Option<Users>) -> Self {
        let (client_id, principal) = (String::new(), Principal::Anonymous);
        Self { principal, client_id, host, advertised, handshaken: false, raw_token: false, only }
    }

    /// Whether this may be asked now: where only some may come in, nothing but how to prove it before they have.
    pub(crate) const fn may_ask(&self, request: &Request) -> bool {
        self.only.is_none() || matches!(self.principal, Principal::User(_)) || request.is_login()
    }

    /// Whether the next frame is a bare token: after a handshake of version 0.
    pub(crate) const fn awaits_raw_token(&self) -> bool {
        self.raw_token
    }

    pub(super) fn handshake(&mut self, request: &SaslHandshakeRequest, version: i16) -> SaslHandshakeResponse {
        let right = &*request.mechanism == MECHANISM;
        self.handshaken = right;
        self.raw_token = right && version == 0;
        let code = if right { 0 } else { ResponseError::UnsupportedSaslMechanism.code() };
        SaslHandshakeResponse::default().with_error_code(code).with_mechanisms(vec![text(MECHANISM)])
    }

    pub(super) fn authenticate(
        &mut self,
        broker: &Broker,
        request: &SaslAuthenticateRequest,
    ) -> SaslAuthenticateResponse {
        let refuse = |code: ResponseError, why: &str| {
            SaslAuthenticateResponse::default().with_error_code(code.code()).with_error_message(Some(reason(why)))
        };
        if !std::mem::take(&mut self.handshaken) {
            return refuse(ResponseError::IllegalSaslState, "send SaslHandshake first");
        }
        match self.user(broker, &request.auth_bytes) {
            Some(user) => {
                self.principal = Principal::User(user);
                SaslAuthenticateResponse::default()
            }
            None => refuse(ResponseError::SaslAuthenticationFailed, "user or secret is wrong"),
        }
    }

    /// A bare token: the answer is an empty frame, or the end of the connection.
    pub(crate) fn raw_token(&mut self, broker: &Broker, token: &[u8]) -> Result<Bytes, RequestError> {
        self.raw_token = false;
        self.handshaken = false;
        self.principal = Principal::User(self.user(broker, token).ok_or(RequestError::Token)?);
        let mut out = BytesMut::new();
        out.put_i32(0);
        Ok(out.freeze())
    }

    /// The user of a PLAIN message (`authzid NUL user NUL secret`) if its secret is right. To act for another is refused.
    fn user(&self, broker: &Broker, token: &[u8]) -> Option<String> {
        let mut parts = token.split(|byte| *byte == 0);
        let (acts_for, user, secret) = (parts.next()?, parts.next()?, parts.next()?);
        let user = std::str::from_utf8(user).ok()?;
        let right_form = parts.next().is_none() && (acts_for.is_empty() || acts_for == user.as_bytes());
        let users = self.only.as_ref().unwrap_or(&broker.inner.options.users);
        (users.admit(user, secret) && right_form).then(|| user.to_owned())
    }
}
