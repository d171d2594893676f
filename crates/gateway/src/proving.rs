//! How Cairn proves itself to a server on behalf of a caller: before an intent is recorded, before its own probes and
//! handshakes, and what follows when the server does not take it.
//!
//! A server that answers 401, or 403 with a challenge for more scopes, has not applied the request. So Cairn may get
//! another token and play the request again: as a call of its own, with its own decision, intent and outcome, a bounded
//! number of times.
//!
//! Where a server's token is exchanged for the caller's, that one is noted as each request comes in, and held by its session
//! alone: with the session it is gone. Must never pass on a client's own token.

use std::sync::Arc;

use cairn_contract::Direction;
use cairn_credentials::{Asker, CallerToken, Credential, CredentialError, Proof};
use cairn_identity::{Credential as Shown, Identity};
use cairn_mcp::HttpTarget;
use http::HeaderMap;

use crate::{
    Gateway, Refusal,
    arrival::Arrival,
    bridge::{Next, Within},
    call::Call,
    life::Answer,
    session::{Caller, Session},
    upstream::Server,
};

/// How often one request of a client is played again with another token.
const AGAIN_MAX: u8 = 2;

impl Caller {
    /// This caller, to the credential of a server.
    pub(crate) fn asker(&self) -> Asker {
        Asker::new(self.text())
    }
}

impl From<CredentialError> for Refusal {
    fn from(error: CredentialError) -> Self {
        let reason = error.to_string();
        if error.wants_login() { Self::LoginRequired { reason } } else { Self::Unproven { reason } }
    }
}

/// A server, with what a link of this caller proves itself with.
pub(crate) fn target(target: &Arc<HttpTarget>, credential: Option<&Credential>, caller: &Caller) -> Arc<HttpTarget> {
    match credential {
        Some(credential) => Arc::new(target.authorized_by(Arc::new(Proof::new(credential.clone(), caller.asker())))),
        None => target.clone(),
    }
}

impl Server {
    /// Notes the token that somebody came in with, where it is exchanged for one of this server: verified, and of an issuer.
    /// It can be used as long as what is given back is held.
    pub(crate) fn bring(&self, who: &Identity, head: &HeaderMap) -> Option<Arc<CallerToken>> {
        let credential = self.credential.as_ref().filter(|credential| credential.wants_callers())?;
        if who.credential != Shown::Token {
            return None; // an API key is Cairn's own affair
        }
        let token = cairn_identity::shown_token(head)?;
        let brought = Arc::new(CallerToken::new(token, who.scopes.as_deref().unwrap_or_default()));
        credential.bring(&Caller::from(who).asker(), &brought);
        Some(brought)
    }

    /// Sees to it that what is sent next for this caller carries a token, where the server wants one.
    pub(crate) async fn prove(&self, caller: &Caller) -> Result<(), CredentialError> {
        match &self.credential {
            Some(credential) => credential.ready(&caller.asker()).await,
            None => Ok(()),
        }
    }

    /// Whether an answer means that the server did not take the token, and so did nothing.
    pub(crate) fn refuses_token(&self, caller: &Caller, status: u16) -> bool {
        let Some(credential) = &self.credential else { return false };
        status == 401 || (status == 403 && credential.is_refused(&caller.asker()))
    }
}

impl Gateway {
    /// The token for a call, before its intent is recorded.
    pub(crate) async fn prove(&self, session: &Session) -> Result<(), Refusal> {
        session.server.prove(&session.caller).await.map_err(Refusal::from)
    }

    /// After a round whose token the server did not take: another round with another token, or the reason why not.
    pub(crate) async fn prove_again(&self, call: &Call) -> Next {
        let refused = |refusal: Refusal| {
            self.metrics().refused(refusal.word());
            let message = refusal.response(Some(&call.id));
            Next::Answer(Answer::Message { status: 200, session_id: None, event_id: None, message })
        };
        if let Err(refusal) = self.prove(&call.session).await {
            return refused(refusal);
        }
        if call.proven_again >= AGAIN_MAX {
            let reason = format!("the server took none of {} tokens for this call", AGAIN_MAX + 1);
            return refused(Refusal::Unproven { reason });
        }
        let arrival = Arrival { within: Some(Within::of(call)), ..call.arrival.clone() };
        match Call::accept(self, &call.session, call.message.clone(), arrival, Direction::ToServer) {
            Ok(mut next) => {
                next.common.round = Some(call.common.round.unwrap_or(1) + 1);
                next.proven_again = call.proven_again + 1;
                // Nobody acted on the approval yet: it is for the same call.
                next.approved.clone_from(&call.approved);
                next.cover.clone_from(&call.cover);
                Next::Round(Box::new(next))
            }
            Err((_, refusal)) => refused(refusal),
        }
    }
}
