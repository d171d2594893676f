//! What `observe` counted since this process began: calls by how they ended, with the trace of one in each bucket, and what else the trail told.
//!
//! Written by the consumer's thread, read by `/metrics`, by what pushes to the collector and by what raises alerts; nobody waits. What came
//! again because somebody moved the consumer back is counted again, what a replay gives is not. Bounded: names that clients and servers
//! choose become `_other` past a bound.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use cairn_clock::{Clock, Timestamp};
use parking_lot::Mutex;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;

use super::{
    alerts,
    chains::Gap,
    kept::OpenCall,
    observed::Observed,
    span::{SpanId, TraceId, text_of},
};

/// Upper bounds of calls' durations in seconds: those of OpenTelemetry's conventions for MCP.
pub(super) const BOUNDS: [f64; 14] = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];
/// What stands for names past the bound.
pub(super) const OTHER: &str = "_other";
/// Names of each kind (tools, models, reasons) that are told apart.
const NAMES_MAX: usize = 200;
/// Sets of labels of calls; past them all are one.
const SETS_MAX: usize = 2_000;
/// Seconds that alerts look back.
const RECENT_SECONDS_MAX: usize = 3_600;
/// Gaps that alerts are told of.
const GAPS_MAX: usize = 64;
/// Methods that MCP has; any other is `_other`, because clients may send what they like.
const METHODS: [&str; 21] = [
    "completion/complete",
    "elicitation/create",
    "initialize",
    "logging/setLevel",
    "ping",
    "prompts/get",
    "prompts/list",
    "resources/list",
    "resources/read",
    "resources/subscribe",
    "resources/templates/list",
    "resources/unsubscribe",
    "roots/list",
    "sampling/createMessage",
    "server/discover",
    "subscriptions/listen",
    "tasks/cancel",
    "tasks/get",
    "tasks/list",
    "tasks/result",
    "tools/call",
];

/// Labels by name.
pub(super) type Labels = Vec<(&'static str, String)>;

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Counter {
    Decisions,
    Refusals,
    Approvals,
    InDoubt,
    Stale,
    Tokens,
    Alerts,
    Missing,
    Spans,
    SpansRefused,
    Failures,
    GivenUp,
}

/// Every counter: its name in Prometheus, in OTLP, its unit there, and what it is.
pub(super) const COUNTERS: [(Counter, &str, &str, &str, &str); 12] = [
    (
        Counter::Decisions,
        "cairn_trail_decisions",
        "cairn.decisions",
        "{decision}",
        "Decisions in the trail, by server, method and decision.",
    ),
    (
        Counter::Refusals,
        "cairn_trail_refusals",
        "cairn.refusals",
        "{call}",
        "Calls that ended as denied, by server and reason.",
    ),
    (
        Counter::Approvals,
        "cairn_trail_approvals",
        "cairn.approvals",
        "{approval}",
        "Approvals, by where they came to stand.",
    ),
    (
        Counter::InDoubt,
        "cairn_trail_in_doubt",
        "cairn.calls.in_doubt",
        "{call}",
        "Calls of which nobody can know whether they had an effect, by server.",
    ),
    (
        Counter::Stale,
        "cairn_trail_stale_decisions",
        "cairn.decisions.stale",
        "{decision}",
        "Decisions on calls that stood on something stale, by server and decision.",
    ),
    (
        Counter::Tokens,
        "cairn_model_tokens",
        "cairn.model.tokens",
        "{token}",
        "Tokens that agents report of their models, by provider, model and type.",
    ),
    (Counter::Alerts, "cairn_alerts", "cairn.alerts", "{alert}", "Alerts in the trail, by what they are about."),
    (
        Counter::Missing,
        "cairn_trail_missing_events",
        "cairn.trail.missing",
        "{event}",
        "Events that are missing in producers' chains, by topic.",
    ),
    (Counter::Spans, "cairn_export_spans", "cairn.export.spans", "{span}", "Spans that the collector took."),
    (
        Counter::SpansRefused,
        "cairn_export_spans_refused",
        "cairn.export.spans.refused",
        "{span}",
        "Spans that the collector will never take.",
    ),
    (
        Counter::Failures,
        "cairn_export_failures",
        "cairn.export.failures",
        "{request}",
        "Requests that the collector did not take, and that are sent again.",
    ),
    (
        Counter::GivenUp,
        "cairn_trail_calls_given_up",
        "cairn.calls.given_up",
        "{call}",
        "Calls that went out as open, because too many were or for too long.",
    ),
];

/// Every gauge, as above.
pub(super) const GAUGES: [(&str, &str, &str, &str); 4] = [
    ("cairn_trail_calls_open", "cairn.calls.open", "{call}", "Calls in the trail that have no outcome yet."),
    (
        "cairn_trail_approvals_waiting",
        "cairn.approvals.waiting",
        "{approval}",
        "Approvals in the trail that nobody has settled yet.",
    ),
    (
        "cairn_trail_approval_wait_seconds",
        "cairn.approvals.wait",
        "s",
        "How long the oldest of them has waited; 0 where there is none.",
    ),
    ("cairn_export_away", "cairn.export.away", "1", "1 while the collector does not take anything."),
];

/// Durations of calls: in Prometheus, in OTLP, unit, and what they are.
pub(super) const DURATIONS: (&str, &str, &str, &str) = (
    "cairn_call_duration_seconds",
    "mcp.server.operation.duration",
    "s",
    "Time from acceptance to outcome, by server, tool, method, decision and outcome.",
);

/// How one call ended.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct CallLabels {
    pub(super) server: String,
    pub(super) tool: String,
    pub(super) method: String,
    pub(super) decision: String,
    pub(super) outcome: String,
}

/// A call that stands for a bucket.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Exemplar {
    pub(super) trace_id: TraceId,
    pub(super) span_id: SpanId,
    pub(super) seconds: f64,
    pub(super) at_us: u64,
}

/// Durations of one set of labels.
#[derive(Clone, Debug)]
pub(super) struct Durations {
    /// One more than there are bounds.
    pub(super) buckets: [u64; BOUNDS.len() + 1],
    pub(super) sum: f64,
    pub(super) exemplars: [Option<Exemplar>; BOUNDS.len() + 1],
    /// The same for Prometheus.
    pub(super) shown: HistogramWithExemplars<[(&'static str, String); 1]>,
}

impl Durations {
    fn new() -> Self {
        let shown = HistogramWithExemplars::new(BOUNDS.into_iter());
        Self { buckets: Default::default(), sum: 0.0, exemplars: Default::default(), shown }
    }

    fn add(&mut self, one: Exemplar) {
        let bucket = BOUNDS.iter().position(|bound| one.seconds <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[bucket] += 1;
        self.sum += one.seconds;
        self.exemplars[bucket] = Some(one);
        let at = std::time::UNIX_EPOCH + Duration::from_micros(one.at_us);
        self.shown.observe(one.seconds, Some([("trace_id", text_of(&one.trace_id))]), Some(at));
    }

    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// A handle to the figures. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Figures(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    since: Timestamp,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) calls: BTreeMap<CallLabels, Durations>,
    pub(super) counters: BTreeMap<(Counter, Labels), u64>,
    open: u64,
    /// Approvals that wait, the oldest first: since when, and which.
    waiting: Vec<(u64, String)>,
    names: BTreeMap<&'static str, BTreeSet<String>>,
    /// Of each second of the trail: refusals, and calls in doubt.
    recent: VecDeque<(u64, u64, u64)>,
    gaps: VecDeque<(u64, Gap)>,
    /// Since when the collector does not take anything, and why.
    away: Option<(u64, String)>,
}

impl State {
    /// A name as it is, as long as there are few; the same one always comes out the same.
    fn name(&mut self, kind: &'static str, name: String) -> String {
        let known = self.names.entry(kind).or_default();
        if known.contains(&name) {
            return name;
        }
        if known.len() >= NAMES_MAX {
            return OTHER.to_owned();
        }
        known.insert(name.clone());
        name
    }

    fn count(&mut self, counter: Counter, labels: Labels, by: u64) {
        *self.counters.entry((counter, labels)).or_default() += by;
    }

    fn second(&mut self, at_us: u64, refused: bool, in_doubt: bool) {
        let at = at_us / 1_000_000;
        match self.recent.iter_mut().rev().take(120).find(|(second, ..)| *second == at) {
            Some((_, refusals, doubts)) => {
                *refusals += u64::from(refused);
                *doubts += u64::from(in_doubt);
            }
            None => self.recent.push_back((at, refused.into(), in_doubt.into())),
        }
        while self.recent.len() > RECENT_SECONDS_MAX {
            self.recent.pop_front();
        }
    }

    fn ended(&mut self, labels: CallLabels, reason: Option<String>, call: Exemplar) {
        let server = self.name("server", labels.server);
        let tool = if labels.tool.is_empty() { labels.tool } else { self.name("tool", labels.tool) };
        let method = method(labels.method);
        let mut labels = CallLabels { server: server.clone(), tool, method, ..labels };
        if !self.calls.contains_key(&labels) && self.calls.len() >= SETS_MAX {
            let other = || OTHER.to_owned();
            labels =
                CallLabels { server: other(), tool: other(), method: other(), decision: other(), outcome: other() };
        }
        let (is_refused, is_in_doubt) = (labels.outcome == "denied", labels.outcome == "in_doubt");
        self.calls.entry(labels).or_insert_with(Durations::new).add(call);
        // Visible before it first happens, so that its first time is an increase.
        self.count(Counter::InDoubt, vec![("server", server.clone())], is_in_doubt.into());
        for decision in ["permit", "deny"] {
            self.count(Counter::Stale, vec![("server", server.clone()), ("decision", decision.to_owned())], 0);
        }
        if is_refused {
            let reason = self.name("reason", reason.unwrap_or_else(|| "denied".to_owned()));
            self.count(Counter::Refusals, vec![("server", server), ("reason", reason)], 1);
        }
        if is_refused || is_in_doubt {
            self.second(call.at_us, is_refused, is_in_doubt);
        }
    }

    fn observe(&mut self, observed: Observed) {
        match observed {
            Observed::Decision { server, method: of, decision, is_stale } => {
                let server = self.name("server", server);
                if is_stale {
                    let labels = vec![("server", server.clone()), ("decision", decision.clone())];
                    self.count(Counter::Stale, labels, 1);
                }
                let labels = vec![("server", server), ("method", method(of)), ("decision", decision)];
                self.count(Counter::Decisions, labels, 1);
            }
            Observed::Approval { state } => self.count(Counter::Approvals, vec![("state", state)], 1),
            Observed::Ended { labels, reason, call } => self.ended(labels, reason, call),
            Observed::Tokens { provider, model, input, output } => {
                let (provider, model) = (self.name("provider", provider), self.name("model", model));
                for (kind, tokens) in [("input", input), ("output", output)] {
                    let labels =
                        vec![("provider", provider.clone()), ("model", model.clone()), ("type", kind.to_owned())];
                    self.count(Counter::Tokens, labels, tokens);
                }
            }
            Observed::Alert { alert } => {
                let alert = self.name("alert", alert);
                self.count(Counter::Alerts, vec![("alert", alert)], 1);
            }
            Observed::GivenUp => self.count(Counter::GivenUp, Vec::new(), 1),
        }
    }
}

fn method(method: String) -> String {
    if METHODS.contains(&method.as_str()) { method } else { OTHER.to_owned() }
}

impl Figures {
    /// Nothing counted yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let mut state = State::default();
        for state_of in ["requested", "approved", "denied", "expired"] {
            state.count(Counter::Approvals, vec![("state", state_of.to_owned())], 0);
        }
        for alert in alerts::NAMES {
            let alert = state.name("alert", alert.to_owned());
            state.count(Counter::Alerts, vec![("alert", alert)], 0);
        }
        for counter in [Counter::Spans, Counter::SpansRefused, Counter::Failures, Counter::GivenUp] {
            state.count(counter, Vec::new(), 0);
        }
        Self(Arc::new(Inner { since: clock.now(), clock, state: Mutex::new(state) }))
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Since when is counted.
    pub(super) fn since(&self) -> Timestamp {
        self.0.since
    }

    pub(super) fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.0.state.lock())
    }

    /// The gauges, in the order of [`GAUGES`].
    pub(super) fn gauges(&self) -> [f64; GAUGES.len()] {
        let now = self.0.clock.now();
        self.read(|state| {
            let oldest =
                state.waiting.first().map_or(Duration::ZERO, |(since, _)| now.since(Timestamp::from_micros(*since)));
            let away = f64::from(u8::from(state.away.is_some()));
            [state.open as f64, state.waiting.len() as f64, oldest.as_secs_f64(), away]
        })
    }

    pub(super) fn observe(&self, all: Vec<Observed>) {
        let mut state = self.0.state.lock();
        all.into_iter().for_each(|observed| state.observe(observed));
    }

    /// Which calls are open now.
    pub(super) fn stand(&self, open: &BTreeMap<String, OpenCall>) {
        let mut waiting: Vec<(u64, String)> =
            open.values().filter_map(|call| call.waits.clone()).map(|(id, since_us)| (since_us, id)).collect();
        waiting.sort_unstable();
        let mut state = self.0.state.lock();
        (state.open, state.waiting) = (open.len() as u64, waiting);
    }

    pub(super) fn missing(&self, gaps: &[Gap]) {
        let now_us = self.0.clock.now().as_micros();
        let mut state = self.0.state.lock();
        for gap in gaps {
            let topic = state.name("topic", gap.place.topic.clone());
            state.count(Counter::Missing, vec![("topic", topic)], gap.events);
            state.gaps.push_back((now_us, gap.clone()));
            if state.gaps.len() > GAPS_MAX {
                state.gaps.pop_front();
            }
        }
    }

    pub(super) fn sent(&self, spans: u64) {
        self.0.state.lock().count(Counter::Spans, Vec::new(), spans);
    }

    pub(super) fn refused(&self, spans: u64) {
        self.0.state.lock().count(Counter::SpansRefused, Vec::new(), spans);
    }

    pub(super) fn failed(&self) {
        self.0.state.lock().count(Counter::Failures, Vec::new(), 1);
    }

    /// Whether the collector takes anything.
    pub(super) fn collector(&self, away: Option<String>) {
        let now_us = self.0.clock.now().as_micros();
        let mut state = self.0.state.lock();
        state.away = away.map(|reason| (state.away.as_ref().map_or(now_us, |(since, _)| *since), reason));
    }

    /// What alerts look at: the last `window`, and how things stand.
    pub(super) fn seen(&self, window: Duration) -> alerts::Seen {
        let now = self.0.clock.now();
        let from_us = now.as_micros().saturating_sub(u64::try_from(window.as_micros()).unwrap_or(u64::MAX));
        self.read(|state| {
            let recent = state.recent.iter().filter(|(second, ..)| second * 1_000_000 >= from_us);
            let (refusals, in_doubt) =
                recent.fold((0, 0), |(refused, doubts), (_, more, of)| (refused + more, doubts + of));
            let gaps = state.gaps.iter().filter(|(at, _)| *at >= from_us);
            let age = |since_us: u64| now.since(Timestamp::from_micros(since_us));
            alerts::Seen {
                now,
                refusals,
                in_doubt,
                gaps: gaps.map(|(_, gap)| gap.clone()).collect(),
                waiting: state.waiting.iter().map(|(since, id)| (id.clone(), age(*since))).collect(),
                away: state.away.as_ref().map(|(since, reason)| (age(*since), reason.clone())),
                lags: Vec::new(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(server: &str, tool: &str, method: &str, outcome: &str) -> Observed {
        let of = |text: &str| text.to_owned();
        let labels = CallLabels {
            server: of(server),
            tool: of(tool),
            method: of(method),
            decision: of("permit"),
            outcome: of(outcome),
        };
        let call = Exemplar { trace_id: [1; 16], span_id: [2; 8], seconds: 0.015, at_us: 1_000_000 };
        Observed::Ended { labels, reason: None, call }
    }

    #[test]
    fn names_that_others_choose_are_bounded_and_every_call_is_counted() {
        let figures = Figures::new(Clock::system());
        for tool in 0..1_000 {
            figures.observe(vec![ended("orders", &format!("tool-{tool}"), "tools/call", "completed")]);
            figures.observe(vec![ended("orders", "", &format!("made/up-{tool}"), "completed")]);
        }
        for server in 0..3_000 {
            figures.observe(vec![ended(
                &format!("s-{server}"),
                &format!("t-{server}"),
                "ping",
                &format!("o-{server}"),
            )]);
        }
        figures.read(|state| {
            assert!(state.calls.len() <= SETS_MAX + 1, "{}", state.calls.len());
            assert_eq!(state.calls.values().map(Durations::count).sum::<u64>(), 5_000);
            let tools: BTreeSet<&str> = state.calls.keys().map(|labels| labels.tool.as_str()).collect();
            assert!(tools.contains(OTHER) && tools.contains("tool-0") && tools.len() <= NAMES_MAX + 2);
            assert!(!state.calls.keys().any(|labels| labels.method.starts_with("made")));
        });
    }

    #[test]
    fn a_call_stands_for_its_bucket() {
        let figures = Figures::new(Clock::system());
        figures.observe(vec![ended("orders", "refund", "tools/call", "in_doubt")]);
        figures.read(|state| {
            let durations = state.calls.values().next().expect("one set");
            assert_eq!((durations.buckets[1], durations.exemplars[1].map(|one| one.trace_id)), (1, Some([1; 16])));
            let doubts = state.counters[&(Counter::InDoubt, vec![("server", "orders".to_owned())])];
            assert_eq!(doubts, 1);
        });
    }
}
