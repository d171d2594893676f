//! A recording from the events of the trail, in whatever order they are read.
//!
//! Fed by whoever reads the topics: the running `up` for `cairn play`, the command itself for `cairn compare`. Payloads are
//! not touched: the recording says where each lies. Bounded: a workflow that is too large is refused, not cut.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cairn_contract::{
    Body, CatalogKind, Direction, Effect, Era, EventType, ListKind, Outcome, StoredEvent, Target, Topic,
};
use serde_json::Value;

use crate::recording::{
    Approved, Decided, Ended, Payload, Place, RecordedCall, RecordedItem, RecordedList, RecordedServer, Recording,
};

/// Events of one workflow that are taken.
const EVENTS_MAX: usize = 100_000;
/// Definitions of the catalogue that are taken.
const DEFINITIONS_MAX: usize = 200_000;

/// What a client asks of every server, whatever it is about to do: answered from what the server said of itself.
const HOUSEKEEPING: [&str; 11] = [
    "initialize",
    "server/discover",
    "ping",
    "logging/setLevel",
    "tools/list",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
    "resources/subscribe",
    "resources/unsubscribe",
    "subscriptions/listen",
];

/// Topics that a recording is made from.
pub const RECORDED_TOPICS: [Topic; 4] = [Topic::Calls, Topic::Context, Topic::Sessions, Topic::Catalog];

/// Why there is no recording.
#[derive(Debug, thiserror::Error)]
pub enum GatherError {
    /// No event is of that workflow.
    #[error("no event of workflow {workflow} is in the trail: `cairn trail` lists recent workflows")]
    NoSuch {
        /// Which.
        workflow: String,
    },
    /// Several tenants have a workflow of that name.
    #[error("several tenants have a workflow {workflow}: say whose with --tenant ({})", tenants.join(", "))]
    Tenants {
        /// Which.
        workflow: String,
        /// Whose.
        tenants: Vec<String>,
    },
    /// There is more than is taken.
    #[error(
        "workflow {workflow} is too large to be recorded: more than {EVENTS_MAX} events, or {DEFINITIONS_MAX} definitions in the catalogue"
    )]
    TooLarge {
        /// Which.
        workflow: String,
    },
}

/// Events of one workflow on their way into a recording.
#[derive(Debug)]
pub struct Gathering {
    workflow: String,
    tenant: Option<String>,
    events: Vec<(Place, StoredEvent)>,
    definitions: Vec<Defined>,
    is_too_large: bool,
}

/// A definition as the catalogue was told of it.
#[derive(Debug)]
struct Defined {
    hlc: String,
    server: String,
    kind: CatalogKind,
    name: String,
    digest: String,
    /// Nothing where it is gone.
    definition: Option<Value>,
}

/// A call while its events are read.
struct Growing {
    call: RecordedCall,
    operation: Option<String>,
    round: Option<u32>,
}

impl Gathering {
    /// For one workflow, of one tenant where that is said.
    #[must_use]
    pub fn new(workflow: impl Into<String>, tenant: Option<String>) -> Self {
        let (events, definitions) = (Vec::new(), Vec::new());
        Self { workflow: workflow.into(), tenant, events, definitions, is_too_large: false }
    }

    /// Takes an event, where it is one of the workflow's or the catalogue's.
    pub fn take(&mut self, at: Place, event: StoredEvent) {
        match event.event_type() {
            Some(EventType::CatalogDefined | EventType::CatalogChanged) => self.define(&event),
            Some(
                EventType::CallDecision
                | EventType::CallApproval
                | EventType::CallIntent
                | EventType::CallOutcome
                | EventType::ContextListed
                | EventType::SessionOpened,
            ) if event.common.workflow_id == self.workflow
                && (self.tenant.is_none() || event.common.tenant == self.tenant) =>
            {
                if self.events.len() < EVENTS_MAX {
                    self.events.push((at, event));
                } else {
                    self.is_too_large = true;
                }
            }
            _ => {}
        }
    }

    fn define(&mut self, event: &StoredEvent) {
        let Some(server) = event.common.server.clone() else { return };
        let hlc = event.hlc.clone();
        let (kind, name, digest, definition) = match event.body() {
            Ok(Some(Body::CatalogDefined(body))) => (body.kind, body.name, body.digest, Some(body.definition)),
            Ok(Some(Body::CatalogChanged(body))) => (body.kind, body.name, body.digest, body.definition),
            _ => return,
        };
        if self.definitions.len() < DEFINITIONS_MAX {
            self.definitions.push(Defined { hlc, server, kind, name, digest, definition });
        } else {
            self.is_too_large = true;
        }
    }

    /// The recording, without the texts of payloads that lie in a vault.
    ///
    /// # Errors
    /// There is no such workflow, several have its name, or it is too large.
    pub fn finish(mut self) -> Result<Recording, GatherError> {
        let workflow = self.workflow.clone();
        if self.is_too_large {
            return Err(GatherError::TooLarge { workflow });
        }
        let tenants: BTreeSet<&str> =
            self.events.iter().map(|(_, event)| event.common.tenant.as_deref().unwrap_or("(none)")).collect();
        if tenants.len() > 1 {
            let tenants = tenants.into_iter().map(ToOwned::to_owned).collect();
            return Err(GatherError::Tenants { workflow, tenants });
        }
        self.events.sort_by(|a, b| a.1.hlc.cmp(&b.1.hlc));
        let Some((_, last)) = self.events.last() else { return Err(GatherError::NoSuch { workflow }) };
        let (tenant, until) = (last.common.tenant.clone(), last.hlc.clone());
        let (mut servers, mut calls) = (BTreeMap::new(), Vec::new());
        let mut at: HashMap<String, usize> = HashMap::new();
        let known: Known<'_> = self
            .definitions
            .iter()
            .filter_map(|one| Some(((&*one.server, one.kind, &*one.digest), one.definition.as_ref()?)))
            .collect();
        for (place, event) in &self.events {
            if event.common.direction == Some(Direction::ToClient) {
                continue;
            }
            let Some(name) = event.common.server.clone() else { continue };
            let server: &mut RecordedServer = servers.entry(name.clone()).or_default();
            let Ok(Some(body)) = event.body() else { continue };
            match body {
                Body::ContextListed(listed) => list(server, &listed, &name, &known),
                Body::SessionOpened(opened) => {
                    if let Some(info) = opened.server_info {
                        (server.name, server.version) = (Some(info.name), info.version);
                    }
                    server.capabilities = opened.server_capabilities.or(server.capabilities.take());
                }
                body => grow(&mut calls, &mut at, (place, event), body),
            }
        }
        for (name, server) in &mut servers {
            complete(server, name, &self.definitions, &until);
        }
        let mut recorded = Vec::new();
        for growing in fold(calls) {
            let server = servers.entry(growing.server.clone()).or_default();
            if !HOUSEKEEPING.contains(&growing.method.as_str()) {
                recorded.push(growing);
            } else if matches!(growing.method.as_str(), "initialize" | "server/discover") {
                let ended = growing.outcome.filter(|ended| ended.outcome == Outcome::Completed);
                server.greeting = ended.and_then(|ended| ended.result).or(server.greeting.take());
            }
        }
        Ok(Recording::new(workflow, tenant, servers, recorded))
    }
}

/// A call's event.
fn grow(calls: &mut Vec<Growing>, at: &mut HashMap<String, usize>, (place, event): (&Place, &StoredEvent), body: Body) {
    let common = &event.common;
    let (Some(id), Some(server), Some(method)) = (common.call_id, &common.server, &common.mcp_method_name) else {
        return;
    };
    let id = id.to_string();
    let index = *at.entry(id.clone()).or_insert_with(|| {
        let call = RecordedCall {
            call_id: id,
            at: place.clone(),
            time: event.time.clone(),
            server: server.clone(),
            method: method.clone(),
            target: None,
            principal: common.principal.clone(),
            era: common.era,
            arguments: None,
            decision: None,
            approval: None,
            outcome: None,
        };
        calls.push(Growing { call, operation: common.operation_id.clone(), round: common.round });
        calls.len() - 1
    });
    let growing = &mut calls[index];
    growing.operation = growing.operation.take().or_else(|| common.operation_id.clone());
    growing.round = growing.round.or(common.round);
    let call = &mut growing.call;
    let named = |target: &Target| target.name().map(ToOwned::to_owned);
    match body {
        Body::CallDecision(body) => {
            call.target = call.target.take().or_else(|| named(&body.target));
            // What policies had changed stands in the later ones: the client sent the first.
            call.arguments = call.arguments.take().or_else(|| body.arguments.as_ref().map(Payload::of));
            call.decision = Some(Decided {
                decision: body.decision,
                policy_version: body.policy_version,
                policies: body.determining_policies,
                obligations: body.obligations,
            });
        }
        Body::CallIntent(body) => {
            call.target = call.target.take().or_else(|| named(&body.target));
            call.arguments = call.arguments.take().or_else(|| body.arguments.as_ref().map(Payload::of));
        }
        Body::CallApproval(body) => {
            let approval_id = body.approval_id;
            call.approval = Some(Approved { state: body.state, approval_id, reason: body.reason });
        }
        // The first one counts.
        Body::CallOutcome(body) if call.outcome.is_none() => {
            call.outcome = Some(Ended {
                outcome: body.outcome,
                effect: body.effect,
                error_type: body.error_type,
                code: body.rpc_response_status_code,
                http_status: body.http_response_status_code,
                is_error: body.is_error,
                result: body.result.as_ref().map(Payload::of),
                screened: body.screened.map(|screened| screened.action),
            });
        }
        _ => {}
    }
}

/// Rounds that Cairn itself made of one request of the client are one call: the first one's question, the last one's answer.
/// Those are the rounds of a legacy client, which knows none, and another try after a server had not taken Cairn's token.
fn fold(calls: Vec<Growing>) -> Vec<RecordedCall> {
    let mut folded: Vec<RecordedCall> = Vec::with_capacity(calls.len());
    let mut last_of: HashMap<String, (usize, u32)> = HashMap::new();
    for Growing { call, operation, round } in calls {
        let Some((operation, round)) = operation.zip(round) else {
            folded.push(call);
            continue;
        };
        let before = last_of.get(&operation).copied().filter(|(_, before)| before + 1 == round);
        let is_own = |index: &usize| {
            let before = &folded[*index];
            let was_not_let_in = before.outcome.as_ref().is_some_and(|ended| {
                ended.effect == Effect::Answered && matches!(ended.error_type.as_deref(), Some("http_401" | "http_403"))
            });
            before.method == call.method && (call.era == Some(Era::Legacy) || was_not_let_in)
        };
        match before.map(|(index, _)| index).filter(is_own) {
            Some(index) => {
                last_of.insert(operation, (index, round));
                let first = &mut folded[index];
                (first.outcome, first.decision) = (call.outcome, call.decision.or(first.decision.take()));
                first.approval = call.approval.or(first.approval.take());
            }
            None => {
                last_of.insert(operation, (folded.len(), round));
                folded.push(call);
            }
        }
    }
    folded
}

const fn catalog_kind(kind: ListKind) -> Option<CatalogKind> {
    Some(match kind {
        ListKind::Tools => CatalogKind::Tool,
        ListKind::Prompts => CatalogKind::Prompt,
        ListKind::Resources => CatalogKind::Resource,
        ListKind::ResourceTemplates => CatalogKind::ResourceTemplate,
        ListKind::Roots => return None,
    })
}

/// Definitions by server, kind and digest.
type Known<'d> = HashMap<(&'d str, CatalogKind, &'d str), &'d Value>;

/// A page that was fetched.
fn list(server: &mut RecordedServer, listed: &cairn_contract::ContextListed, name: &str, known: &Known<'_>) {
    let Some(kind) = catalog_kind(listed.list_kind) else { return };
    let of = |item: &cairn_contract::ListedItem| {
        let definition = known.get(&(name, kind, item.digest.as_str())).map(|found| (*found).clone());
        RecordedItem { name: item.name.clone(), digest: item.digest.clone(), definition }
    };
    let items = listed.digests.iter().map(of);
    let page = listed.content.as_ref().map(Payload::of);
    // A page follows the one before it where that said so; what it said is in its text, or here while it is read.
    let goes_on = server.goes_on.remove(&(listed.list_kind as u8));
    match server.lists.iter_mut().rfind(|list| goes_on && list.kind == listed.list_kind) {
        Some(list) => {
            list.items.extend(items);
            list.pages.extend(page);
        }
        None => {
            let (pages, items) = (page.into_iter().collect(), items.collect());
            server.lists.push(RecordedList { kind: listed.list_kind, pages, items });
        }
    }
    if listed.more == Some(true) {
        server.goes_on.insert(listed.list_kind as u8);
    }
}

/// Where the workflow fetched no list of a kind: what the catalogue held when it ended.
fn complete(server: &mut RecordedServer, name: &str, definitions: &[Defined], until: &str) {
    for kind in [ListKind::Tools, ListKind::Prompts, ListKind::Resources, ListKind::ResourceTemplates] {
        if server.lists.iter().any(|list| list.kind == kind) {
            continue;
        }
        let mut newest: BTreeMap<&str, &Defined> = BTreeMap::new();
        let of_kind = |known: &&Defined| {
            known.server == name && Some(known.kind) == catalog_kind(kind) && known.hlc.as_str() <= until
        };
        for known in definitions.iter().filter(of_kind) {
            let held = newest.entry(&known.name).or_insert(known);
            if held.hlc < known.hlc {
                *held = known;
            }
        }
        let items: Vec<RecordedItem> = newest
            .into_values()
            .filter(|known| known.definition.is_some())
            .map(|known| RecordedItem {
                name: known.name.clone(),
                digest: known.digest.clone(),
                definition: known.definition.clone(),
            })
            .collect();
        if !items.is_empty() {
            server.lists.push(RecordedList { kind, pages: Vec::new(), items });
        }
    }
}

#[cfg(test)]
mod tests;
