//! Who may come in over HTTP, and the record of who may not.
//!
//! `cairn-identity` says who sent a request; the wiring says which scopes a server and its methods need. What is refused
//! is counted and recorded as `access.refused`, as `flood` says, so that no outsider can fill the trail: where there are too
//! many kinds only the reason is told apart.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use cairn_backbone::RecordError;
use cairn_clock::Clock;
use cairn_contract::{AccessRefused, Body, Common, CredentialKind, Draft, Transport};
use cairn_identity::{Credential, Identity, Options, OptionsError, Reason, Rejection, Verifier};
use cairn_mcp::{ParseFault, ScanFault};
use cairn_tls::ServerTls;

use crate::{
    Gateway,
    flood::{Due, Flood},
    session::{Caller, Session},
};

/// The scopes that a server needs, and those that a method needs besides.
#[derive(Clone, Debug, Default)]
pub struct ScopeRules {
    /// For every request.
    pub server: Vec<String>,
    /// For requests of a method.
    pub methods: BTreeMap<String, Vec<String>>,
}

impl ScopeRules {
    /// Everything that a request of these methods needs, each once.
    pub(crate) fn needed<'a>(&self, methods: impl IntoIterator<Item = &'a str>) -> Vec<String> {
        let of_methods = methods.into_iter().filter_map(|method| self.methods.get(method)).flatten();
        let mut needed: Vec<String> = Vec::new();
        for scope in self.server.iter().chain(of_methods) {
            if !needed.contains(scope) {
                needed.push(scope.clone());
            }
        }
        needed
    }

    /// Every scope that some request needs.
    pub(crate) fn all(&self) -> Vec<String> {
        self.needed(self.methods.keys().map(String::as_str))
    }
}

/// Who may come in over HTTP.
#[derive(Clone, Debug)]
pub struct Access {
    /// Says who sent a request.
    pub verifier: Arc<Verifier>,
    /// The scopes that each server needs; none where a server is not in here.
    pub scopes: BTreeMap<String, ScopeRules>,
    /// The listener's certificates; without them it speaks HTTP in the clear.
    pub tls: Option<ServerTls>,
}

impl Access {
    /// Whoever comes is the local user of that name, as on one's own machine.
    ///
    /// # Errors
    /// Never for options that say nothing else.
    pub fn local_only(name: &str, clock: &Clock) -> Result<Self, OptionsError> {
        let verifier = Verifier::new(Options::local_only(name), clock.clone())?;
        Ok(Self { verifier: Arc::new(verifier), scopes: BTreeMap::new(), tls: None })
    }

    /// The scopes of a server.
    pub(crate) fn rules(&self, server: &str) -> ScopeRules {
        self.scopes.get(server).cloned().unwrap_or_default()
    }
}

/// What refusals are told apart by.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct RefusalKind {
    reason: Reason,
    server: Option<String>,
    issuer: Option<String>,
    who: Option<Caller>,
    transport: Transport,
}

/// The last refusal of a kind.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    credential: Credential,
    scopes_missing: Vec<String>,
    peer: Option<IpAddr>,
}

/// The refusals of late.
pub(crate) type Refusals = Flood<RefusalKind, Refused>;

fn kind_of(rejection: &Rejection, (server, transport): (&str, Transport)) -> RefusalKind {
    RefusalKind {
        reason: rejection.reason,
        server: Some(server.to_owned()),
        issuer: rejection.issuer.clone(),
        who: rejection.who.as_deref().map(Caller::from),
        transport,
    }
}

fn coarse(kind: RefusalKind) -> RefusalKind {
    RefusalKind { server: None, issuer: None, who: None, ..kind }
}

fn event(due: &Due<RefusalKind, Refused>) -> AccessRefused {
    let Due { kind, about, count, within_ms } = due;
    AccessRefused {
        reason: kind.reason.word().to_owned(),
        http_response_status_code: kind.reason.status(),
        credential: match about.credential {
            Credential::None => CredentialKind::None,
            Credential::Token => CredentialKind::Token,
            Credential::ApiKey => CredentialKind::ApiKey,
            Credential::Certificate => CredentialKind::Certificate,
        },
        issuer: kind.issuer.clone(),
        peer: about.peer.map(|peer| peer.to_canonical().to_string()),
        scopes_missing: about.scopes_missing.clone(),
        count: *count,
        within_ms: *within_ms,
    }
}

impl Gateway {
    pub(crate) fn access(&self) -> &Access {
        &self.options().access
    }

    /// Counts a refusal and has it recorded.
    pub(crate) fn note_refusal(&self, rejection: &Rejection, server: &str, peer: Option<IpAddr>) {
        self.note_refusal_over((server, Transport::Tcp), rejection, peer);
    }

    fn note_refusal_over(&self, over: (&str, Transport), rejection: &Rejection, peer: Option<IpAddr>) {
        self.metrics().not_let_in(rejection.reason.word());
        let Rejection { credential, ref scopes_missing, .. } = *rejection;
        let about = Refused { credential, scopes_missing: scopes_missing.clone(), peer };
        let first = self.refusals().note(kind_of(rejection, over), coarse, about, self.clock().now());
        let Some(first) = first else { return };
        let gateway = self.clone();
        tokio::spawn(async move { gateway.record_refusal(first).await });
    }

    /// The same, of whoever a session belongs to.
    pub(crate) fn note_refusal_of(&self, reason: Reason, session: &Session) {
        let Caller { tenant, principal, agent, kind } = session.caller.clone();
        let who = Identity { tenant, principal, kind, agent, scopes: None, credential: Credential::None };
        self.note_trespass(reason, &who, &session.server.name);
    }

    /// Somebody asked for what belongs to somebody else.
    pub(crate) fn note_trespass(&self, reason: Reason, who: &Identity, server: &str) {
        self.note_refusal(&Rejection::of(reason, who), server, None);
    }

    /// Somebody sent what two readers could read differently, or what nests too deeply; what is no message at all is nobody's
    /// attack.
    pub(crate) fn note_unread(&self, fault: &ParseFault, caller: Caller, over: (&str, Transport)) {
        let reason = match fault {
            ParseFault::LookAlike { .. }
            | ParseFault::Scan(ScanFault::DuplicateKey { .. } | ScanFault::Surrogate { .. } | ScanFault::Utf8 { .. }) => {
                Reason::MessageAmbiguous
            }
            ParseFault::Scan(ScanFault::TooDeep { .. }) => Reason::MessageTooDeep,
            _ => return,
        };
        let Caller { tenant, principal, agent, kind } = caller;
        let who = Identity { tenant, principal, kind, agent, scopes: None, credential: Credential::None };
        self.note_refusal_over(over, &Rejection::of(reason, &who), None);
    }

    /// Records what has been counted since.
    pub(crate) async fn record_refusals(&self) {
        for due in self.refusals().due(self.clock().now()) {
            self.record_refusal(due).await;
        }
        self.record_exceeded().await;
    }

    async fn record_refusal(&self, due: Due<RefusalKind, Refused>) {
        let who = due.kind.who.as_ref();
        let common = Common {
            tenant: who.and_then(|who| who.tenant.clone()),
            principal: who.map(|who| who.principal.clone()),
            agent: who.and_then(|who| who.agent.clone()),
            server: due.kind.server.clone(),
            network_transport: Some(due.kind.transport),
            ..Common::default()
        };
        let body = Body::AccessRefused(event(&due));
        if let Err(error) = self.record_turned_away(due.kind.server.clone(), common, body).await {
            tracing::warn!(%error, "a refused access is not recorded yet");
            self.refusals().put_back(due, self.clock().now());
        }
    }

    /// Records that somebody was turned away, under their name where one is known.
    pub(crate) async fn record_turned_away(
        &self,
        server: Option<String>,
        common: Common,
        body: Body,
    ) -> Result<(), RecordError> {
        let key = common.principal.clone().unwrap_or_else(|| "nobody".to_owned());
        let draft = Draft { key, subject: server, traceparent: None, tracestate: None, common, body };
        self.recorder().strict(self.recorder().plan(draft)).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scope_that_is_needed_is_named_once() {
        let rules = ScopeRules {
            server: vec!["read".into()],
            methods: BTreeMap::from([("tools/call".into(), vec!["write".into(), "read".into()])]),
        };
        assert_eq!(rules.needed(["tools/list"]), ["read"]);
        assert_eq!(rules.needed(["tools/call", "tools/call"]), ["read", "write"]);
        assert_eq!(rules.all(), ["read", "write"]);
    }
}
