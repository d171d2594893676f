//! Logins by SASL, step by step: PLAIN (RFC 4616), SCRAM and OAUTHBEARER. Called by the session.
//!
//! It guarantees: what a client sends is bounded; a login that failed begins anew with a handshake, and only some may fail on one
//! connection; a client that proves again who it is (KIP-368) is still the same.

use bytes::Bytes;
use cairn_clock::Moment;

use crate::{
    access::{Exchange, Mechanism, NONCE_BYTES, REFUSAL, read_bearer},
    broker::Broker,
    principal::{Principal, Users},
};

/// Logins that may fail on one connection.
pub(super) const FAILURES_MAX: u32 = 3;
/// Longest message of a client.
const MESSAGE_BYTES_MAX: usize = 32 << 10;

/// How a client proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Plain,
    Scram(Mechanism),
    Token,
}

impl Way {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Scram(mechanism) => mechanism.name(),
            Self::Token => "OAUTHBEARER",
        }
    }

    /// Those that are offered; by a port for some, whose secrets only the configuration has, it is PLAIN alone.
    pub(super) fn offered(broker: &Broker, is_for_some: bool) -> Vec<Self> {
        if is_for_some {
            return vec![Self::Plain];
        }
        let tokens = broker.inner.options.tokens.as_ref().map(|_| Self::Token);
        let scram = Mechanism::ALL.into_iter().map(Self::Scram);
        std::iter::once(Self::Plain).chain(scram).chain(tokens).collect()
    }
}

/// Where a login stands.
#[derive(Debug, Clone, Default)]
pub(super) enum Login {
    /// None is in progress.
    #[default]
    None,
    /// The handshake named the way.
    Begun(Way),
    /// SCRAM's first messages were exchanged.
    Scram(Mechanism, Box<Exchange>),
    /// A token was refused, and the client has yet to say that it has understood.
    Denied,
}

/// What a message leads to.
#[derive(Debug)]
pub(super) enum Step {
    /// Another message is needed; this is said.
    Next(Login, Bytes),
    /// It is proven who it is; this is said.
    Done(Proven, Bytes),
}

/// Who somebody proved to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proven {
    pub(super) way: Way,
    pub(super) principal: Principal,
    /// When what they showed is no longer good.
    pub(super) ends_at: Option<Moment>,
}

/// Why a message leads to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum LoginError {
    #[error("send SaslHandshake first")]
    NotBegun,
    #[error("user or secret is wrong")]
    Refused,
    #[error("this connection is another user's, or in another way: open one of your own")]
    Other,
}

impl Login {
    /// Whether a message is awaited.
    pub(super) const fn is_begun(&self) -> bool {
        !matches!(self, Self::None)
    }

    /// Takes the client's next message. `only` are those that may come in by this port, where not anybody may.
    pub(super) async fn step(self, broker: &Broker, only: Option<&Users>, message: &[u8]) -> Result<Step, LoginError> {
        if message.len() > MESSAGE_BYTES_MAX {
            return Err(LoginError::Refused);
        }
        match self {
            Self::None => Err(LoginError::NotBegun),
            Self::Denied => Err(LoginError::Refused),
            Self::Begun(Way::Token) => Ok(match bearer(broker, message).await {
                Some(proven) => Step::Done(proven, Bytes::new()),
                None => Step::Next(Self::Denied, Bytes::from_static(REFUSAL)),
            }),
            Self::Begun(Way::Plain) => {
                let users = only.unwrap_or(&broker.inner.options.users);
                let user = plain(users, message).ok_or(LoginError::Refused)?;
                let (way, principal) = (Way::Plain, Principal::User(user));
                Ok(Step::Done(Proven { way, principal, ends_at: None }, Bytes::new()))
            }
            Self::Begun(Way::Scram(mechanism)) => {
                let mut random = [0; NONCE_BYTES];
                broker.inner.entropy.fill(&mut random);
                let credentials = broker.inner.access.credentials();
                let begun = Exchange::begin(mechanism, message, random, |user| credentials.of(user, mechanism));
                let (exchange, answer) = begun.ok_or(LoginError::Refused)?;
                Ok(Step::Next(Self::Scram(mechanism, Box::new(exchange)), answer.into()))
            }
            Self::Scram(mechanism, exchange) => {
                let (user, answer) = exchange.finish(message).ok_or(LoginError::Refused)?;
                let (way, principal) = (Way::Scram(mechanism), Principal::Guest(user));
                Ok(Step::Done(Proven { way, principal, ends_at: None }, answer.into()))
            }
        }
    }
}

/// Who shows a token in an OAUTHBEARER message. To act for another is refused.
async fn bearer(broker: &Broker, message: &[u8]) -> Option<Proven> {
    let (token, acts_for) = read_bearer(message)?;
    let bearer = broker.inner.options.tokens.as_ref()?.bearer(token).await?;
    let is_right = !bearer.name.is_empty() && acts_for.is_none_or(|named| named == bearer.name);
    // From here on its time passes whatever the hour is set to.
    let clock = &broker.inner.clock;
    let ends_at = Some(clock.moment().plus(bearer.ends_at.since(clock.now())));
    let (way, principal) = (Way::Token, Principal::Guest(bearer.name));
    is_right.then_some(Proven { way, principal, ends_at })
}

/// The user of a PLAIN message (`authzid NUL user NUL secret`) if its secret is right. To act for another is refused.
fn plain(users: &Users, message: &[u8]) -> Option<String> {
    let mut parts = message.split(|byte| *byte == 0);
    let (acts_for, user, secret) = (parts.next()?, parts.next()?, parts.next()?);
    let user = std::str::from_utf8(user).ok()?;
    let right_form = parts.next().is_none() && (acts_for.is_empty() || acts_for == user.as_bytes());
    (users.admit(user, secret) && right_form).then(|| user.to_owned())
}
