//! What the gateway counts, for Prometheus: calls by outcome, refusals by reason, what waits, how long things took.
//!
//! Registered once by the wiring; the life of a call only adds. No label holds free text that a client chose.

use std::time::Duration;

use cairn_contract::Outcome;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::Refusal;

/// Labels of a finished call.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct CallLabels {
    pub(crate) server: String,
    pub(crate) outcome: String,
}

/// Labels of a refusal.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct RefusalLabels {
    pub(crate) reason: String,
}

/// Labels of a limit that was reached.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct LimitLabels {
    pub(crate) dimension: &'static str,
}

/// Labels of an alert.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct AlertLabels {
    pub(crate) alert: &'static str,
}

/// Labels of a call that stands on something, and of what was asked elsewhere.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct StateLabels {
    pub(crate) state: &'static str,
}

/// Labels of a decision of policies that are tried.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct ShadowLabels {
    pub(crate) differs: String,
}

/// The gateway's own metrics. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(crate) calls: Family<CallLabels, Counter>,
    pub(crate) refusals: Family<RefusalLabels, Counter>,
    pub(crate) access_refused: Family<RefusalLabels, Counter>,
    pub(crate) limits_exceeded: Family<LimitLabels, Counter>,
    pub(crate) shadow: Family<ShadowLabels, Counter>,
    pub(crate) calls_in_flight: Gauge,
    pub(crate) progress_notices: Counter,
    pub(crate) alerts: Family<AlertLabels, Counter>,
    pub(crate) freshness: Family<StateLabels, Counter>,
    pub(crate) outside: Family<StateLabels, Counter>,
    pub(crate) outside_seconds: Histogram,
    pub(crate) guard_delay_seconds: Histogram,
    pub(crate) decide_seconds: Histogram,
    pub(crate) intent_seconds: Histogram,
    pub(crate) upstream_seconds: Histogram,
    pub(crate) call_seconds: Histogram,
}

/// Seconds from 50 µs to 80 s, by doubling.
fn latency() -> Histogram {
    Histogram::new((0..21).map(|power| 50e-6 * f64::from(1_u32 << power)))
}

impl Default for Metrics {
    fn default() -> Self {
        let refusals = Family::<RefusalLabels, Counter>::default();
        for reason in Refusal::WORDS {
            // A reason is visible before it first happens, so that its first time is an increase.
            drop(refusals.get_or_create(&RefusalLabels { reason: reason.to_owned() }));
        }
        let access_refused = Family::<RefusalLabels, Counter>::default();
        for reason in cairn_identity::Reason::ALL {
            drop(access_refused.get_or_create(&RefusalLabels { reason: reason.word().to_owned() }));
        }
        let limits_exceeded = Family::<LimitLabels, Counter>::default();
        for dimension in ["rate", "concurrency", "budget"] {
            drop(limits_exceeded.get_or_create(&LimitLabels { dimension }));
        }
        let shadow = Family::<ShadowLabels, Counter>::default();
        for differs in [false, true] {
            drop(shadow.get_or_create(&ShadowLabels { differs: differs.to_string() }));
        }
        Self {
            calls: Family::default(),
            access_refused,
            refusals,
            limits_exceeded,
            shadow,
            calls_in_flight: Gauge::default(),
            progress_notices: Counter::default(),
            alerts: Family::default(),
            freshness: Family::default(),
            outside: Family::default(),
            outside_seconds: latency(),
            guard_delay_seconds: latency(),
            decide_seconds: latency(),
            intent_seconds: latency(),
            upstream_seconds: latency(),
            call_seconds: latency(),
        }
    }
}

impl Metrics {
    /// A call ended.
    pub(crate) fn ended(&self, server: &str, outcome: Outcome) {
        // The same words as in the trail.
        let outcome = match outcome {
            Outcome::Completed => "completed",
            Outcome::Failed => "failed",
            Outcome::Denied => "denied",
            Outcome::Cancelled => "cancelled",
            Outcome::TimedOut => "timed_out",
            Outcome::InputRequired => "input_required",
            Outcome::Accepted => "accepted",
            Outcome::InDoubt => "in_doubt",
        };
        let outcome = outcome.to_owned();
        self.calls.get_or_create(&CallLabels { server: server.to_owned(), outcome }).inc();
    }

    /// Policies that are tried were asked.
    pub(crate) fn shadowed(&self, differs: bool) {
        self.shadow.get_or_create(&ShadowLabels { differs: differs.to_string() }).inc();
    }

    /// Cairn itself answered with an error.
    pub(crate) fn refused(&self, reason: &str) {
        self.refusals.get_or_create(&RefusalLabels { reason: reason.to_owned() }).inc();
    }

    /// A definition wants looking at.
    pub(crate) fn alerted(&self, alert: &'static str) {
        self.alerts.get_or_create(&AlertLabels { alert }).inc();
    }

    /// A change came through the stream, that long after it happened.
    pub fn guard_delayed(&self, delay: Duration) {
        self.guard_delay_seconds.observe(delay.as_secs_f64());
    }

    /// Somebody was not let in.
    pub(crate) fn not_let_in(&self, reason: &str) {
        self.access_refused.get_or_create(&RefusalLabels { reason: reason.to_owned() }).inc();
    }

    /// A limit was reached.
    pub(crate) fn limited(&self, dimension: &'static str) {
        self.limits_exceeded.get_or_create(&LimitLabels { dimension }).inc();
    }

    /// Makes the metrics visible under their names.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("cairn_calls", "Calls that ended, by server and outcome", self.calls.clone());
        registry.register(
            "cairn_refusals",
            "Calls that Cairn itself answered with an error, by reason",
            self.refusals.clone(),
        );
        registry.register(
            "cairn_access_refused",
            "Requests that were refused for who sent them, by reason",
            self.access_refused.clone(),
        );
        registry.register(
            "cairn_limits_exceeded",
            "Calls that were refused for a limit, by what it counts",
            self.limits_exceeded.clone(),
        );
        registry.register("cairn_calls_in_flight", "Calls between acceptance and answer", self.calls_in_flight.clone());
        registry.register("cairn_progress_notices", "Progress notifications passed on", self.progress_notices.clone());
        registry.register("cairn_catalogue_alerts", "Definitions that want looking at, by why", self.alerts.clone());
        registry.register(
            "cairn_freshness",
            "Decisions on calls whose tools declare what they stand on, by how that stood",
            self.freshness.clone(),
        );
        registry.register(
            "cairn_guard_delay_seconds",
            "Time from a change to the freshness guard, by way of the stream",
            self.guard_delay_seconds.clone(),
        );
        let words = "Questions to the decision point, by what it said";
        registry.register("cairn_decision_point", words, self.outside.clone());
        let words = "Time until the decision point had answered";
        registry.register("cairn_decision_point_seconds", words, self.outside_seconds.clone());
        let words = "Decisions of the policies that are tried, by whether they differ from what was decided";
        registry.register("cairn_policy_shadow_decisions", words, self.shadow.clone());
        registry.register("cairn_decide_seconds", "Time to evaluate policy for one call", self.decide_seconds.clone());
        registry.register("cairn_intent_seconds", "Time until an intent is durable", self.intent_seconds.clone());
        registry.register(
            "cairn_upstream_seconds",
            "Time from forward to final response",
            self.upstream_seconds.clone(),
        );
        registry.register("cairn_call_seconds", "Time from acceptance to answer", self.call_seconds.clone());
    }
}
