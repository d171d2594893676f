//! Who is at the other end of a connection. Called by the server and the request table.
//!
//! A connection is anonymous until it proves who it is; it never becomes [`Principal::Internal`]. What was proven counts for as long as
//! it is good: after that nothing is answered until it is proven again.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use cairn_clock::Moment;
use kafka_protocol::{
    error::ResponseError,
    messages::{SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse},
};

use super::{
    Request, RequestError,
    clients::Software,
    login::{FAILURES_MAX, Login, LoginError, Proven, Step, Way},
    reason, text,
};
use crate::{
    broker::Broker,
    options::{HostPort, Peer},
    principal::{Principal, Users},
    share::ShareLink,
};

/// The first version of SaslAuthenticate that tells how long a login counts.
const LIFETIME_FIRST: i16 = 1;

/// What is known of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) principal: Principal,
    pub(crate) client_id: String,
    pub(crate) software: Software,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) advertised: HostPort,
    /// How long nothing more is read, because a quota is used up: told in the answer that is being made.
    pub(crate) throttled: Duration,
    /// Whether it was last answered from the object store alone, and so will be again.
    pub(crate) reads_behind: bool,
    /// There once it opened a share session.
    pub(crate) share_link: Option<Arc<ShareLink>>,
    /// Who may come in by this port, where that is not anybody.
    only: Option<Users>,
    login: Login,
    /// Whether messages of the login come bare, after a handshake of version 0.
    raw: bool,
    proven: Option<Proven>,
    failures: u32,
}

impl Session {
    /// The same, as answers tell it.
    pub(super) fn throttle_ms(&self) -> i32 {
        i32::try_from(self.throttled.as_millis()).unwrap_or(i32::MAX)
    }

    /// For a peer, by the address that it comes from.
    pub(crate) fn new(peer: SocketAddr, advertised: HostPort, only: Option<Users>) -> Self {
        let (host, port) = (peer.ip().to_canonical().to_string(), peer.port());
        Self {
            principal: Principal::Anonymous,
            client_id: String::new(),
            software: Software::default(),
            host,
            port,
            advertised,
            throttled: Duration::ZERO,
            reads_behind: false,
            share_link: None,
            only,
            login: Login::None,
            raw: false,
            proven: None,
            failures: 0,
        }
    }

    /// The same for a client whose certificate was verified, and calls it that. A login counts for more.
    pub(crate) fn certified(self, name: Option<String>) -> Self {
        match name {
            Some(name) if self.only.is_none() => Self { principal: Principal::Guest(name), ..self },
            _ => self,
        }
    }

    /// Whether this may be asked now: nothing but how to prove who one is, where that is not known and must be, or is known no longer.
    pub(crate) fn may_ask(&self, request: &Request, now: Moment) -> bool {
        let ends_at = self.proven.as_ref().and_then(|proven| proven.ends_at);
        let is_missing = self.only.is_some() && !matches!(self.principal, Principal::User(_));
        let is_over = ends_at.is_some_and(|at| now >= at);
        request.is_login() || !(is_missing || is_over)
    }

    /// Whether it failed to log in so often that the connection must end.
    pub(crate) const fn is_over(&self) -> bool {
        self.failures >= FAILURES_MAX
    }

    /// Whether everything is allowed but what only Cairn does: a super user, or Cairn's own port.
    pub(crate) fn is_super(&self, broker: &Broker) -> bool {
        match &self.principal {
            Principal::Internal => true,
            Principal::User(_) if self.only.is_some() => true,
            Principal::User(name) | Principal::Guest(name) => broker.inner.options.super_users.contains(name),
            Principal::Anonymous => false,
        }
    }

    /// The brokers that this client is told of: this one by the address that it came by, and those that may take over.
    pub(super) fn nodes(&self, broker: &Broker) -> Vec<Peer> {
        let options = &broker.inner.options;
        let me = Peer { id: options.node_id, address: self.advertised.clone() };
        let others = options.peers.iter().filter(|peer| peer.id != options.node_id);
        // Who came by an inner port reaches nobody else.
        let others = others.filter(|_| options.advertised.as_ref() == Some(&self.advertised)).cloned();
        std::iter::once(me).chain(others).collect()
    }

    /// Whether the next frame is a bare message of a login.
    pub(crate) const fn awaits_raw_token(&self) -> bool {
        self.raw && self.login.is_begun()
    }

    pub(super) fn handshake(
        &mut self,
        broker: &Broker,
        request: &SaslHandshakeRequest,
        version: i16,
    ) -> SaslHandshakeResponse {
        let offered = Way::offered(broker, self.only.is_some());
        let way = offered.iter().copied().find(|way| *way.name() == *request.mechanism);
        self.login = way.map_or(Login::None, Login::Begun);
        self.raw = version == 0;
        let code = if way.is_some() { 0 } else { ResponseError::UnsupportedSaslMechanism.code() };
        let names = offered.iter().map(|way| text(way.name())).collect();
        SaslHandshakeResponse::default().with_error_code(code).with_mechanisms(names)
    }

    pub(super) async fn authenticate(
        &mut self,
        broker: &Broker,
        request: &SaslAuthenticateRequest,
        version: i16,
    ) -> SaslAuthenticateResponse {
        let response = SaslAuthenticateResponse::default().with_error_message(None);
        match self.step(broker, &request.auth_bytes).await {
            Ok((bytes, ends_at)) => {
                let lifetime_ms = ends_at.filter(|_| version >= LIFETIME_FIRST).map_or(0, |at| {
                    i64::try_from(at.since(broker.inner.clock.moment()).as_millis()).unwrap_or(i64::MAX)
                });
                response.with_auth_bytes(bytes).with_session_lifetime_ms(lifetime_ms)
            }
            Err(error) => {
                let code = match error {
                    LoginError::NotBegun => ResponseError::IllegalSaslState,
                    LoginError::Refused | LoginError::Other => ResponseError::SaslAuthenticationFailed,
                };
                response.with_error_code(code.code()).with_error_message(Some(reason(error.to_string())))
            }
        }
    }

    /// A bare message: the answer is a bare message, or the end of the connection.
    pub(crate) async fn raw_token(&mut self, broker: &Broker, token: &[u8]) -> Result<Bytes, RequestError> {
        let (bytes, _) = self.step(broker, token).await.map_err(|_| RequestError::Token)?;
        let mut out = BytesMut::new();
        out.put_i32(i32::try_from(bytes.len()).expect("messages of a login are short"));
        out.put(bytes);
        Ok(out.freeze())
    }

    /// Takes the next message of a login; what is answered, and when that ends which was proven.
    async fn step(&mut self, broker: &Broker, message: &[u8]) -> Result<(Bytes, Option<Moment>), LoginError> {
        let login = std::mem::take(&mut self.login);
        let step = login.step(broker, self.only.as_ref(), message).await.and_then(|step| match step {
            Step::Done(proven, _) if self.is_another(&proven) => Err(LoginError::Other),
            step => Ok(step),
        });
        match step {
            Ok(Step::Next(login, bytes)) => {
                self.login = login;
                Ok((bytes, None))
            }
            Ok(Step::Done(mut proven, bytes)) => {
                let now = broker.inner.clock.moment();
                let latest = broker.inner.options.login_age_max.map(|age| now.plus(age));
                proven.ends_at = proven.ends_at.into_iter().chain(latest).min();
                let ends_at = proven.ends_at;
                self.principal = proven.principal.clone();
                self.proven = Some(proven);
                Ok((bytes, ends_at))
            }
            Err(error) => {
                self.failures += 1;
                Err(error)
            }
        }
    }

    /// Whether somebody else, or in another way, proves to be what this connection is.
    fn is_another(&self, now: &Proven) -> bool {
        let before = self.proven.as_ref();
        before.is_some_and(|before| before.way != now.way || before.principal != now.principal)
    }
}
