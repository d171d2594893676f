//! The freshness guard: what a call stands on, reads and writes, as its tool declares, and what the views say of it.
//!
//! Beside the life of a call: `stage.rs` asks before it decides and says when a write begins; `life.rs` says how the call
//! ended. Whether a call may go on is policy's to say: here is only what it looks at. Must never guess a dependence, and must
//! never call fresh what it cannot name.

use std::collections::HashMap;

use cairn_backbone::RecordError;
use cairn_clock::Timestamp;
use cairn_contract::{
    Body, CallOutcome, ChangeCause, Common, ContextChanged, ContextRead, Draft, Effect, Freshness, Outcome, StoodOn,
    VersionSource,
};
use cairn_freshness::{Declared, Mention, Named, Resource, Roots, Standing, State, Viewer, Writing};
use cairn_mcp::Message;
use cairn_policy::FreshnessDemand;
use serde_json::{Value, json};

use crate::{Gateway, call::Call};

/// Resources that one call may depend on, or write to, and have all of them in its events: what depends on more stands on
/// what nobody can say.
const RESOURCES_MAX: usize = 100;

/// How what a call stands on stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outlook(Vec<Standing>);

impl Outlook {
    /// The worst of all; nothing where the tool declares no dependence.
    pub(crate) fn state(&self) -> Option<State> {
        self.0.iter().map(|standing| standing.state).max()
    }

    /// What policy sees as `context.freshness`.
    pub(crate) fn context(&self) -> Option<Value> {
        let state = self.state()?;
        let of = |wanted: State| -> Vec<&str> {
            self.0.iter().filter(|one| one.state == wanted).map(|one| one.uri.as_str()).collect()
        };
        let oldest = self.0.iter().filter_map(|standing| standing.age).max();
        let mut context = json!({
            "state": state.name(),
            "stale": of(State::Stale),
            "changing": of(State::Changing),
            "unknown": of(State::Unknown),
        });
        if let Some(age) = oldest {
            context["age_ms"] = json!(millis(age));
        }
        Some(context)
    }

    /// What the decision's event holds.
    pub(crate) fn record(&self, gateway: &Gateway) -> Vec<StoodOn> {
        let shown = |one: StoodOn| StoodOn { mcp_resource_uri: gateway.screen_uri(&one.mcp_resource_uri), ..one };
        self.all().map(shown).collect()
    }

    fn all(&self) -> impl Iterator<Item = StoodOn> {
        self.0.iter().map(|standing| StoodOn {
            mcp_resource_uri: standing.uri.clone(),
            state: match standing.state {
                State::Fresh => Freshness::Fresh,
                State::Behind => Freshness::Behind,
                State::Unknown => Freshness::Unknown,
                State::Changing => Freshness::Changing,
                State::Stale => Freshness::Stale,
            },
            seen: standing.seen.clone(),
            known: standing.known.clone(),
            age_ms: standing.age.map(millis),
        })
    }

    /// What does not meet a demand of policy's; nothing where all of it does. What declares no dependence meets none: of
    /// what a call stands on that nobody has declared, nobody can say that it is fresh.
    pub(crate) fn unmet(&self, demand: FreshnessDemand) -> Option<Vec<StoodOn>> {
        if self.0.is_empty() {
            let (mcp_resource_uri, state) = (String::new(), Freshness::Unknown);
            return Some(vec![StoodOn { mcp_resource_uri, state, seen: None, known: None, age_ms: None }]);
        }
        let too_old = |age: Option<u64>| demand.age_max.is_some_and(|most| age.is_none_or(|age| age > millis(most)));
        let unmet: Vec<StoodOn> =
            self.all().filter(|one| one.state != Freshness::Fresh || too_old(one.age_ms)).collect();
        (!unmet.is_empty()).then_some(unmet)
    }

    /// What a refused caller must know to recover.
    pub(crate) fn not_fresh(&self) -> Vec<StoodOn> {
        self.all().filter(|one| one.state != Freshness::Fresh).collect()
    }
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Why a change that somebody told of was not taken.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// There is no such server.
    #[error("no server is called {server:?}: name one of the configuration")]
    NoServer {
        /// The name as given.
        server: String,
    },
    /// The event could not be recorded. The change counts here all the same.
    #[error("the change counts from now on, but it is not recorded: {0}")]
    NotRecorded(#[from] RecordError),
}

/// A call's result as declarations look at it.
struct Taught {
    arguments: Value,
    result: Value,
    text: Option<Value>,
}

impl Taught {
    fn by(call: &Call, message: Option<&Message>) -> Self {
        let parsed = |bytes: Option<bytes::Bytes>| {
            bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or(Value::Null)
        };
        let result = parsed(message.and_then(Message::result_raw));
        let text = result.pointer("/content/0/text").and_then(Value::as_str).and_then(|t| serde_json::from_str(t).ok());
        Self { arguments: call.arguments_value().unwrap_or(Value::Null), result, text }
    }

    fn roots(&self) -> Roots<'_> {
        Roots { arguments: Some(&self.arguments), result: Some(&self.result), text: self.text.as_ref() }
    }

    fn named(&self, mentions: &[Mention]) -> Vec<Named> {
        mentions.iter().filter_map(|mention| mention.named(self.roots())).flatten().collect()
    }
}

impl Gateway {
    fn declared<'c>(&self, call: &'c Call) -> Option<&'c Declared> {
        let tool = call.target.name().filter(|_| call.method == "tools/call")?;
        call.session.server.declared.get(tool)
    }

    fn viewer(&self, call: &Call) -> Viewer {
        Viewer {
            tenant: call.common.tenant.clone(),
            principal: call.session.caller.principal.clone(),
            agent: call.session.caller.agent.clone().or_else(|| call.common.agent_name.clone()),
        }
    }

    /// A resource as the views know it: by its URI as it stands in events, so that the stream names the same one.
    fn resource(&self, call: &Call, uri: &str) -> Resource {
        let (tenant, server) = (call.common.tenant.clone(), call.session.server.name.clone());
        Resource { tenant, server, uri: uri.to_owned() }
    }

    /// How what the call stands on stands at this moment.
    pub(crate) fn outlook(&self, call: &Call) -> Outlook {
        let Some(declared) = self.declared(call).filter(|declared| !declared.depends.is_empty()) else {
            return Outlook::default();
        };
        let arguments = call.arguments_value().unwrap_or(Value::Null);
        let roots = Roots { arguments: Some(&arguments), ..Roots::default() };
        let (viewer, now) = (self.viewer(call), self.clock().now());
        let mut all = Vec::new();
        for mention in &declared.depends {
            match mention.named(roots) {
                Some(named) => all.extend(named.into_iter().map(|(uri, version)| {
                    let (shown, version) = self.screen_named((uri.clone(), version));
                    let standing = self.views().standing(&viewer, &self.resource(call, &shown), version, now);
                    // Policy and the client must be able to name it.
                    Standing { uri, ..standing }
                })),
                // Which resource that would be, nobody can say.
                None => {
                    all.push(Standing { uri: String::new(), state: State::Unknown, seen: None, known: None, age: None })
                }
            }
        }
        if all.len() > RESOURCES_MAX {
            all = vec![Standing { uri: String::new(), state: State::Unknown, seen: None, known: None, age: None }];
        }
        Outlook(all)
    }

    /// The writes that begin with this call.
    pub(crate) fn begin_writes(&self, call: &Call) -> Option<Writing> {
        let declared = self.declared(call).filter(|declared| !declared.writes.is_empty())?;
        let before = Taught::by(call, None);
        let known: Vec<_> = declared.writes.iter().filter(|mention| !mention.needs_result()).cloned().collect();
        let named = before.named(&known).into_iter().map(|named| self.screen_named(named));
        let resources = named.map(|(uri, _)| self.resource(call, &uri)).collect();
        Some(self.views().writing(&self.viewer(call), resources, &call.call_id.to_string()))
    }

    /// The writes that other gateways hear of.
    pub(crate) fn told_writes(&self, writing: Option<&Writing>) -> Vec<String> {
        writing.into_iter().flat_map(Writing::uris).take(RESOURCES_MAX).map(str::to_owned).collect()
    }

    /// The call has its outcome: what it taught counts from here on, before the client hears of it.
    pub(crate) fn end_call(&self, call: &mut Call, outcome: &CallOutcome, message: Option<&Message>) {
        let Some(declared) = self.declared(call).cloned() else { return };
        let now = self.clock().now();
        let is_done = (outcome.outcome, outcome.effect) == (Outcome::Completed, Effect::Answered);
        let taught = is_done.then(|| Taught::by(call, message));
        match (call.writing.take(), &taught) {
            (None, _) => {}
            (Some(writing), Some(taught)) => {
                let named = taught.named(&declared.writes).into_iter().map(|named| self.screen_named(named)).collect();
                self.wrote(call, writing, named, now);
            }
            // The work goes on where nobody sees it, or nobody knows how far it went.
            (Some(writing), None) if outcome.outcome == Outcome::Accepted || outcome.effect == Effect::Unknown => {
                self.may_have_written(call, writing, now);
            }
            (Some(writing), None) => writing.undone(),
        }
        if let Some(taught) = taught {
            self.told(call, taught.named(&declared.reads));
        }
    }

    fn wrote(&self, call: &mut Call, writing: Writing, named: Vec<Named>, now: Timestamp) {
        let versions: HashMap<_, _> =
            named.iter().filter_map(|(uri, version)| Some((uri.clone(), version.clone()?))).collect();
        let began: Vec<String> = writing.uris().map(str::to_owned).collect();
        writing.done(&versions, now);
        let viewer = self.viewer(call);
        for uri in named.iter().map(|(uri, _)| uri).filter(|uri| !began.contains(uri)) {
            // Known by the result alone, as what a call creates.
            self.views().changed(&self.resource(call, uri), versions.get(uri).cloned(), now, Some(&viewer));
        }
        let uris: std::collections::BTreeSet<String> =
            began.into_iter().chain(named.into_iter().map(|(uri, _)| uri)).collect();
        for mcp_resource_uri in uris {
            let version = versions.get(&mcp_resource_uri).cloned();
            self.changed(call, ContextChanged { mcp_resource_uri, version, cause: ChangeCause::Write });
        }
    }

    fn may_have_written(&self, call: &mut Call, writing: Writing, now: Timestamp) {
        let uris: Vec<String> = writing.uris().map(str::to_owned).collect();
        writing.unknown(now);
        for mcp_resource_uri in uris {
            self.changed(call, ContextChanged { mcp_resource_uri, version: None, cause: ChangeCause::InDoubt });
        }
    }

    /// What a tool's result tells of resources, as declared.
    fn told(&self, call: &mut Call, named: Vec<Named>) {
        for (uri, version) in named.into_iter().map(|named| self.screen_named(named)) {
            let version_source = version.is_some().then_some(VersionSource::Declared);
            let body = ContextRead {
                mcp_resource_uri: uri,
                version,
                version_source,
                content: None,
                ttl_ms: None,
                cache_scope: None,
                asked_at: None,
            };
            self.has_read(call, body);
        }
    }

    /// A read for the record and for the views; a change that it shows is one for both too.
    pub(crate) fn has_read(&self, call: &mut Call, mut body: ContextRead) {
        let asked = call.asked.unwrap_or_else(|| self.clock().now());
        body.asked_at = Some(asked.to_string());
        let (uri, version) = (body.mcp_resource_uri.clone(), body.version.clone());
        let draft = call.draft(self, Body::ContextRead(body));
        self.recorder().relaxed(draft);
        let shows_change = self.views().read(&self.viewer(call), &self.resource(call, &uri), version.clone(), asked);
        if shows_change {
            self.changed(call, ContextChanged { mcp_resource_uri: uri, version, cause: ChangeCause::Read });
        }
    }

    /// The server says that a resource has changed.
    pub(crate) fn was_told_of_change(&self, about: &mut Call, uri: &str) {
        let uri = self.screen_uri(uri);
        self.views().changed(&self.resource(about, &uri), None, self.clock().now(), None);
        self.changed(about, ContextChanged { mcp_resource_uri: uri, version: None, cause: ChangeCause::Notification });
    }

    /// A system says that it changed a resource past Cairn. Returns when that is recorded; it counts before.
    ///
    /// # Errors
    /// Where no server has that name, or the event is not recorded.
    pub async fn ingest_change(
        &self,
        tenant: Option<String>,
        server: &str,
        uri: &str,
        version: Option<String>,
    ) -> Result<(), IngestError> {
        if self.server(server).is_none() {
            return Err(IngestError::NoServer { server: server.to_owned() });
        }
        let (uri, version) = self.screen_named((uri.to_owned(), version));
        let resource = Resource { tenant: tenant.clone(), server: server.to_owned(), uri: uri.clone() };
        self.views().changed(&resource, version.clone(), self.clock().now(), None);
        let body = ContextChanged { mcp_resource_uri: uri.clone(), version, cause: ChangeCause::Ingested };
        let common = Common { tenant, server: Some(server.to_owned()), ..Common::default() };
        let (key, subject) = (uri, Some(server.to_owned()));
        let draft = Draft { key, subject, traceparent: None, tracestate: None, common, body: body.into() };
        let planned = self.recorder().plan(draft);
        self.recorder().strict(planned).await?;
        Ok(())
    }

    /// How far the guard is behind the stream; nothing where it follows none.
    #[must_use]
    pub fn guard_lag(&self) -> Option<std::time::Duration> {
        self.views().lag(self.clock().now())
    }

    fn changed(&self, call: &mut Call, body: ContextChanged) {
        let draft = call.draft(self, Body::ContextChanged(body));
        self.recorder().relaxed(draft);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_does_not_meet_a_demand_is_named() {
        let one = |uri: &str, state: State, age: Option<u64>| Standing {
            uri: uri.to_owned(),
            state,
            seen: None,
            known: None,
            age: age.map(Duration::from_secs),
        };
        let outlook = Outlook(vec![
            one("fresh", State::Fresh, Some(10)),
            one("old", State::Fresh, Some(90)),
            one("told", State::Fresh, None),
        ]);
        let unmet = |outlook: &Outlook, age_max: Option<u64>| {
            let unmet = outlook.unmet(FreshnessDemand { age_max: age_max.map(Duration::from_secs) });
            unmet.map(|all| all.into_iter().map(|one| one.mcp_resource_uri).collect::<Vec<_>>())
        };
        assert_eq!(unmet(&outlook, None), None);
        let expected = vec!["old".to_owned(), "told".to_owned()];
        assert_eq!(unmet(&outlook, Some(30)), Some(expected), "of what has no age nobody can say that it is young");
        for state in [State::Behind, State::Unknown, State::Changing, State::Stale] {
            assert_eq!(unmet(&Outlook(vec![one("x", state, Some(1))]), None), Some(vec!["x".to_owned()]));
        }
        assert_eq!(unmet(&Outlook::default(), None), Some(vec![String::new()]), "what declares nothing is not fresh");
    }
}
