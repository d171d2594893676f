//! Events into calls: what each event adds to the row of its call.
//!
//! [`Gathering`] is given the events of `mcp.calls` first and those of the other topics after them, each partition in order, one partition
//! after the other, so that the same events give the same rows. Of the other topics it keeps only what may belong to a call that it holds.
//! An event that lies twice counts once, by its id. Called by `make`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use cairn_consumers::Event;

use crate::{
    Action, Approval, Counts, EventOf, MakeError, Offered, Options, Row, Settled,
    choosing::{Model, Span, join},
    said::{Said, without_text},
};

/// Reports of one model call, steps of one approval and actions of one call that are kept.
const EACH_MAX: usize = 256;
const TOOLS_CALL: &str = "tools/call";

/// A call on its way to a row.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) row: Row,
    /// The clock's reading at its first decision.
    pub(crate) hlc: String,
    /// The client's session, by its digest.
    session: Option<String>,
}

/// Whose list it was: tenant, principal, server, and the session, or the workflow where there are no sessions.
type Told = (Option<String>, String, String, String);

/// One page of a list of tools that a client was told.
#[derive(Debug)]
struct Page {
    hlc: String,
    tools: Vec<Offered>,
    /// Whether another page follows.
    more: bool,
}

/// What has been gathered so far.
#[derive(Debug)]
pub(crate) struct Gathering<'o> {
    options: &'o Options,
    calls: Vec<Call>,
    at: HashMap<String, usize>,
    seen: HashSet<[u8; 16]>,
    /// Traces of calls, by tenant.
    traces: HashSet<(Option<String>, String)>,
    models: BTreeMap<Span, Model>,
    told: HashMap<Told, Vec<Page>>,
    pages: usize,
    /// When somebody was erased last, by tenant and subject.
    erased: HashMap<(Option<String>, String), String>,
    /// What of the events was read, by type: versions of contracts.
    pub(crate) contracts: BTreeMap<String, BTreeSet<u32>>,
    /// The digests of detectors that looked at results.
    pub(crate) detectors: BTreeSet<String>,
    pub(crate) counts: Counts,
}

impl<'o> Gathering<'o> {
    pub(crate) fn new(options: &'o Options) -> Self {
        Self {
            options,
            calls: Vec::new(),
            at: HashMap::new(),
            seen: HashSet::new(),
            traces: HashSet::new(),
            models: BTreeMap::new(),
            told: HashMap::new(),
            pages: 0,
            erased: HashMap::new(),
            contracts: BTreeMap::new(),
            detectors: BTreeSet::new(),
            counts: Counts::default(),
        }
    }

    /// Takes one event.
    ///
    /// # Errors
    /// More calls than there may be.
    pub(crate) fn take(&mut self, event: &Event) -> Result<(), MakeError> {
        let is_wanted = matches!(
            event.type_name.as_str(),
            "call.decision"
                | "call.approval"
                | "call.intent"
                | "call.outcome"
                | "call.settled"
                | "model.called"
                | "context.listed"
                | "action.reported"
                | "subject.erased"
        );
        if !is_wanted {
            return Ok(());
        }
        let Some(said) = Said::of(event) else {
            self.counts.unreadable += 1;
            return Ok(());
        };
        let is_taken = match event.type_name.as_str() {
            "model.called" => self.model(event, said)?,
            "context.listed" => self.listed(said)?,
            "subject.erased" => self.erasure(event, said),
            "action.reported" => self.action(event, said),
            _ => self.call(event, said)?,
        };
        if is_taken {
            self.contracts.entry(event.type_name.clone()).or_default().insert(event.contract.version);
        }
        Ok(())
    }

    /// Whether it is an event that was not there before.
    fn is_new(&mut self, event: &Event) -> bool {
        let is_new = self.seen.insert(*event.id.as_bytes());
        self.counts.duplicates += u64::from(!is_new);
        is_new
    }

    /// An event of a call; whether it belongs to one that is held.
    fn call(&mut self, event: &Event, said: Said) -> Result<bool, MakeError> {
        let Some(call_id) = said.call_id.clone() else { return Ok(false) };
        let index = match self.at.get(&call_id) {
            Some(index) => *index,
            None if event.type_name == "call.decision" => match self.begin(event, &said, call_id)? {
                Some(index) => index,
                None => return Ok(false),
            },
            // Its decision lies before what is read, or it is not chosen.
            None => return Ok(false),
        };
        if !self.is_new(event) {
            return Ok(false);
        }
        if let Some(detectors) = said.screened.as_ref().and_then(|screened| screened.detectors.clone()) {
            self.detectors.insert(detectors);
        }
        let row = &mut self.calls[index].row;
        row.events.push(placed(event));
        match event.type_name.as_str() {
            "call.decision" => decided(row, said),
            "call.approval" if row.approvals.len() < EACH_MAX => row.approvals.push(Approval {
                state: said.state.unwrap_or_default(),
                approval_id: said.approval_id.unwrap_or_default(),
                time: event.time.clone(),
                approver: said.approver,
                reason: said.reason,
            }),
            // The first one counts.
            "call.outcome" if row.outcome.is_none() => ended(row, said),
            "call.settled" if row.settled.is_none() => {
                let state = said.state.unwrap_or_default();
                row.settled = Some(Settled { state, is_error: said.is_error, result: said.result });
            }
            _ => {}
        }
        Ok(true)
    }

    /// The row of a call that is decided for the first time, where it may be chosen.
    fn begin(&mut self, event: &Event, said: &Said, call_id: String) -> Result<Option<usize>, MakeError> {
        let is_of_tool = said.mcp_method_name.as_deref() == Some(TOOLS_CALL);
        if !is_of_tool || said.direction.as_deref().is_some_and(|direction| direction != "to_server") {
            return Ok(None);
        }
        let said = said.clone();
        let row = Row {
            call_id: call_id.clone(),
            workflow_id: said.workflow_id.unwrap_or_default(),
            task: said.task,
            trace_id: said.trace_id.unwrap_or_default(),
            operation_id: said.operation_id,
            round: said.round,
            tenant: said.tenant,
            principal: said.principal.unwrap_or_default(),
            agent: said.agent,
            agent_name: said.agent_name,
            agent_version: said.agent_version,
            server: said.server.unwrap_or_default(),
            server_version: said.server_version,
            time: event.time.clone(),
            tool: said.gen_ai_tool_name,
            ..Row::default()
        };
        if !self.options.filters.may_take(&row, event.at.as_millis()) {
            self.counts.left_out += 1;
            return Ok(None);
        }
        if self.calls.len() >= self.options.calls_max {
            return Err(MakeError::TooMany { what: "calls", most: self.options.calls_max });
        }
        self.traces.insert((row.tenant.clone(), row.trace_id.clone()));
        let hlc = said.hlc.unwrap_or_default();
        self.calls.push(Call { row, hlc, session: said.mcp_session_id });
        self.at.insert(call_id, self.calls.len() - 1);
        Ok(Some(self.calls.len() - 1))
    }

    fn model(&mut self, event: &Event, said: Said) -> Result<bool, MakeError> {
        let Some(trace) = said.trace_id.clone() else { return Ok(false) };
        if !self.traces.contains(&(said.tenant.clone(), trace.clone())) || !self.is_new(event) {
            return Ok(false);
        }
        if self.models.len() >= self.options.calls_max {
            return Err(MakeError::TooMany { what: "model calls", most: self.options.calls_max });
        }
        let span =
            Span { tenant: said.tenant.clone(), trace, principal: said.principal.clone(), span: said.span_id.clone() };
        let model = self.models.entry(span).or_default();
        if model.reports.len() < EACH_MAX {
            model.reports.push((placed(event), event.time.clone(), said));
        }
        Ok(true)
    }

    /// A list of tools that a client was told, where it made a call that is held.
    fn listed(&mut self, said: Said) -> Result<bool, MakeError> {
        if said.list_kind.as_deref() != Some("tools") {
            return Ok(false);
        }
        if self.told.is_empty() {
            // Once all calls are known: whose lists may matter.
            self.told = self.calls.iter().map(|call| (told(call), Vec::new())).collect();
        }
        let (Some(principal), Some(server)) = (said.principal, said.server) else { return Ok(false) };
        let within = said.mcp_session_id.or(said.workflow_id).unwrap_or_default();
        let Some(pages) = self.told.get_mut(&(said.tenant, principal, server, within)) else { return Ok(false) };
        self.pages += 1;
        if self.pages > self.options.calls_max {
            return Err(MakeError::TooMany { what: "lists of tools", most: self.options.calls_max });
        }
        pages.push(Page { hlc: said.hlc.unwrap_or_default(), tools: said.digests, more: said.more });
        Ok(true)
    }

    fn action(&mut self, event: &Event, said: Said) -> bool {
        let Some(index) = said.call_id.as_ref().and_then(|call| self.at.get(call)).copied() else { return false };
        // A report counts in its sender's tenant alone.
        if self.calls[index].row.tenant != said.tenant || !self.is_new(event) {
            return false;
        }
        let row = &mut self.calls[index].row;
        if row.actions.len() < EACH_MAX {
            row.events.push(placed(event));
            row.actions.push(Action {
                system: said.system.unwrap_or_default(),
                kind: said.kind.unwrap_or_default(),
                id: said.id.unwrap_or_default(),
                state: said.state.unwrap_or_default(),
            });
        }
        true
    }

    fn erasure(&mut self, event: &Event, said: Said) -> bool {
        let Some(subject) = said.subject else { return false };
        let last = self.erased.entry((said.tenant, subject)).or_default();
        if event.time > *last {
            last.clone_from(&event.time);
        }
        true
    }

    /// The rows, in the order in which their calls were decided.
    pub(crate) fn rows(&mut self) -> Vec<Row> {
        let mut calls = std::mem::take(&mut self.calls);
        calls.sort_by(|a, b| (&a.hlc, &a.row.call_id).cmp(&(&b.hlc, &b.row.call_id)));
        join(&mut self.models, &mut calls, &self.options.prices);
        for pages in self.told.values_mut() {
            pages.sort_by(|a, b| a.hlc.cmp(&b.hlc));
        }
        let mut rows = Vec::with_capacity(calls.len());
        for mut call in calls {
            if call.row.tools_offered.is_none()
                && let Some(offered) = self.told.get(&told(&call)).and_then(|pages| offer(pages, &call.hlc))
            {
                call.row.tools_offered = Some(offered);
                call.row.offered_by = Some("list".to_owned());
            }
            let mut row = call.row;
            if !self.options.filters.takes(&row) {
                self.counts.left_out += 1;
            } else if row.outcome.is_none() && !self.options.open {
                self.counts.open += 1;
            } else {
                let erased = self.erased.get(&(row.tenant.clone(), row.principal.clone()));
                row.erased = erased.is_some_and(|last| row.time <= *last);
                self.counts.erased += u64::from(row.erased);
                if row.erased || !self.options.inline {
                    leave_texts_out(&mut row);
                }
                rows.push(row);
            }
        }
        self.counts.rows = rows.len() as u64;
        rows
    }
}

fn placed(event: &Event) -> EventOf {
    EventOf {
        type_name: event.type_name.clone(),
        topic: event.topic.clone(),
        partition: event.partition,
        offset: event.offset,
    }
}

fn told(call: &Call) -> Told {
    let row = &call.row;
    let within = call.session.clone().unwrap_or_else(|| row.workflow_id.clone());
    (row.tenant.clone(), row.principal.clone(), row.server.clone(), within)
}

/// The list that was told last before a call, with the pages before it that belong to it.
fn offer(pages: &[Page], before: &str) -> Option<Vec<Offered>> {
    let mut last = pages.iter().rposition(|page| page.hlc.as_str() < before)?;
    // The rest of a list may not have come yet.
    let end = last + 1;
    while last > 0 && pages[last - 1].more {
        last -= 1;
    }
    Some(pages[last..end].iter().flat_map(|page| page.tools.iter().cloned()).collect())
}

/// The last decision is the one that counts.
fn decided(row: &mut Row, said: Said) {
    row.decision = said.decision.unwrap_or_default();
    row.policy_version = said.policy_version.unwrap_or_default();
    row.determining_policies = said.determining_policies;
    row.obligations = said.obligations;
    row.policy_errors = said.errors;
    row.arguments = said.arguments.or(row.arguments.take());
    row.tool_digest = said.tool_digest.or(row.tool_digest.take());
    row.rewritten = said.rewritten.or(row.rewritten.take());
}

fn ended(row: &mut Row, said: Said) {
    row.outcome = said.outcome;
    row.effect = said.effect;
    row.error_type = said.error_type;
    row.is_error = said.is_error;
    row.rpc_response_status_code = said.rpc_response_status_code;
    row.http_response_status_code = said.http_response_status_code;
    row.result = said.result;
    row.elapsed_us = said.elapsed_us;
    row.upstream_elapsed_us = said.upstream_elapsed_us;
    row.recovered = said.recovered;
}

/// Keeps of references what is no text; of an erased subject what is said freely goes too.
fn leave_texts_out(row: &mut Row) {
    row.arguments = without_text(row.arguments.take());
    row.result = without_text(row.result.take());
    if let Some(settled) = &mut row.settled {
        settled.result = without_text(settled.result.take());
    }
    if let Some(model) = &mut row.model {
        model.prompt = without_text(model.prompt.take());
        model.output = without_text(model.output.take());
        model.tools = without_text(model.tools.take());
    }
    if row.erased {
        row.task = None;
        row.approvals.iter_mut().for_each(|approval| approval.reason = None);
    }
}

#[cfg(test)]
mod tests;
