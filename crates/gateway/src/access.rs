//! Who may come in over HTTP, and the record of who may not.
//!
//! `cairn-identity` says who sent a request; the wiring says which scopes a server and its methods need. What is refused
//! is counted and recorded as `access.refused`: the first of a kind at once, further ones as a number every
//! [`EVERY`], so that no outsider can fill the trail. Bounded in kinds too: past [`KINDS_MAX`] only the reason is told apart.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use cairn_clock::{Clock, Timestamp};
use cairn_contract::{AccessRefused, Body, Common, CredentialKind, Draft, Transport};
use cairn_identity::{Credential, Identity, Options, OptionsError, Reason, Rejection, Verifier};
use cairn_tls::ServerTls;
use parking_lot::Mutex;

use crate::{
    Gateway,
    session::{Caller, Session},
};

/// How often refusals that repeat are recorded.
pub(crate) const EVERY: Duration = Duration::from_secs(10);
/// Kinds of refusals that are told apart at a time.
const KINDS_MAX: usize = 64;

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
}

/// Refusals of one kind.
#[derive(Clone, Debug)]
struct Counted {
    credential: Credential,
    scopes_missing: Vec<String>,
    peer: Option<IpAddr>,
    since: Timestamp,
    /// Those that no event stands for yet.
    waiting: u64,
}

/// The refusals of late.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<HashMap<RefusalKind, Counted>>);

impl Refusals {
    /// Notes a refusal; gives the event where it is the first of its kind for a while.
    fn note(
        &self,
        rejection: &Rejection,
        server: &str,
        peer: Option<IpAddr>,
        now: Timestamp,
    ) -> Option<(RefusalKind, AccessRefused)> {
        let mut kind = RefusalKind {
            reason: rejection.reason,
            server: Some(server.to_owned()),
            issuer: rejection.issuer.clone(),
            who: rejection.who.as_deref().map(Caller::from),
        };
        let mut kinds = self.0.lock();
        if kinds.len() >= KINDS_MAX && !kinds.contains_key(&kind) {
            kind = RefusalKind { server: None, issuer: None, who: None, ..kind };
        }
        if let Some(counted) = kinds.get_mut(&kind) {
            counted.waiting += 1;
            counted.peer = peer;
            return None;
        }
        let Rejection { credential, ref scopes_missing, .. } = *rejection;
        let counted = Counted { credential, scopes_missing: scopes_missing.clone(), peer, since: now, waiting: 0 };
        let event = counted.event(&kind, 1, 0);
        kinds.insert(kind.clone(), counted);
        Some((kind, event))
    }

    /// The events of what has come since, and the end of kinds of which nothing has.
    fn due(&self, now: Timestamp) -> Vec<(RefusalKind, AccessRefused)> {
        let mut due = Vec::new();
        self.0.lock().retain(|kind, counted| {
            let waiting = std::mem::take(&mut counted.waiting);
            if waiting > 0 {
                let within_ms = u64::try_from(now.since(counted.since).as_millis()).unwrap_or(u64::MAX);
                due.push((kind.clone(), counted.event(kind, waiting, within_ms)));
                counted.since = now;
            }
            waiting > 0
        });
        due
    }

    /// What could not be recorded waits on.
    fn put_back(&self, kind: RefusalKind, event: &AccessRefused, now: Timestamp) {
        let mut kinds = self.0.lock();
        if let Some(counted) = kinds.get_mut(&kind) {
            counted.waiting += event.count;
        } else if kinds.len() < KINDS_MAX {
            let credential = match event.credential {
                CredentialKind::None => Credential::None,
                CredentialKind::Token => Credential::Token,
                CredentialKind::ApiKey => Credential::ApiKey,
                CredentialKind::Certificate => Credential::Certificate,
            };
            let peer = event.peer.as_deref().and_then(|peer| peer.parse().ok());
            let scopes_missing = event.scopes_missing.clone();
            kinds.insert(kind, Counted { credential, scopes_missing, peer, since: now, waiting: event.count });
        }
    }
}

impl Counted {
    fn event(&self, kind: &RefusalKind, count: u64, within_ms: u64) -> AccessRefused {
        AccessRefused {
            reason: kind.reason.word().to_owned(),
            http_response_status_code: kind.reason.status(),
            credential: match self.credential {
                Credential::None => CredentialKind::None,
                Credential::Token => CredentialKind::Token,
                Credential::ApiKey => CredentialKind::ApiKey,
                Credential::Certificate => CredentialKind::Certificate,
            },
            issuer: kind.issuer.clone(),
            peer: self.peer.map(|peer| peer.to_canonical().to_string()),
            scopes_missing: self.scopes_missing.clone(),
            count,
            within_ms,
        }
    }
}

impl Gateway {
    pub(crate) fn access(&self) -> &Access {
        &self.options().access
    }

    /// Counts a refusal and has it recorded.
    pub(crate) fn note_refusal(&self, rejection: &Rejection, server: &str, peer: Option<IpAddr>) {
        self.metrics().not_let_in(rejection.reason.word());
        let Some((kind, event)) = self.refusals().note(rejection, server, peer, self.clock().now()) else { return };
        let gateway = self.clone();
        tokio::spawn(async move { gateway.record_refusal(kind, event).await });
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

    /// Records what has been counted since.
    pub(crate) async fn record_refusals(&self) {
        for (kind, event) in self.refusals().due(self.clock().now()) {
            self.record_refusal(kind, event).await;
        }
    }

    async fn record_refusal(&self, kind: RefusalKind, event: AccessRefused) {
        let who = kind.who.as_ref();
        let common = Common {
            tenant: who.and_then(|who| who.tenant.clone()),
            principal: who.map(|who| who.principal.clone()),
            agent: who.and_then(|who| who.agent.clone()),
            server: kind.server.clone(),
            network_transport: Some(Transport::Tcp),
            ..Common::default()
        };
        let draft = Draft {
            key: common.principal.clone().unwrap_or_else(|| "nobody".to_owned()),
            subject: kind.server.clone(),
            traceparent: None,
            tracestate: None,
            common,
            body: Body::AccessRefused(event.clone()),
        };
        let planned = self.recorder().plan(draft);
        if let Err(error) = self.recorder().strict(planned).await {
            tracing::warn!(%error, "a refused access is not recorded yet");
            self.refusals().put_back(kind, &event, self.clock().now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_a_handful_of_events_that_count_all_of_it() {
        let refusals = Refusals::default();
        let start = Timestamp::from_micros(1_000_000_000);
        let mut counted = 0;
        let mut events = 0;
        for round in 0..6_u64 {
            let now = start.plus(EVERY * u32::try_from(round).expect("small"));
            for number in 0..1_000_u64 {
                let mut rejection = Rejection::new(Reason::ALL[(number % 5) as usize], Credential::Token);
                // An outsider names what it likes; only configured issuers and servers get here, but for a mistake.
                rejection.issuer = Some(format!("{number}"));
                let event = refusals.note(&rejection, "orders", None, now);
                events += u64::from(event.is_some());
                counted += event.map_or(0, |(_, event)| event.count);
            }
            for (_, event) in refusals.due(now) {
                events += 1;
                counted += event.count;
            }
        }
        assert_eq!(counted, 6_000, "none is lost");
        assert!(events < 6 * 150, "{events} events");
        assert!(refusals.0.lock().len() <= KINDS_MAX + Reason::ALL.len());
    }

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
