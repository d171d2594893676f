//! Which calls a data set holds, and how much of each. It stands in the manifest, so that the same can be chosen again.

use serde::{Deserialize, Serialize};

use crate::{Prices, Row};

/// Calls that one data set may hold unless more is asked for: about half a gibibyte of memory.
pub const CALLS_MAX: usize = 200_000;

/// Which calls are chosen; what is absent chooses all.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filters {
    /// Decided at this time or later, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<i64>,
    /// Decided before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<i64>,
    /// Of this tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Of this workflow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// Of this server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Of this tool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// Decided so: `permit` or `deny`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<String>,
    /// Ended so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// Only calls that a model is known to have chosen.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub chosen: bool,
}

/// What a data set is made by.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Which calls.
    #[serde(default)]
    pub filters: Filters,
    /// Whether masked texts that stand in events stand in the rows too; otherwise only digests and sizes do.
    pub inline: bool,
    /// Whether calls that have not ended yet are in it.
    pub open: bool,
    /// What models cost.
    #[serde(default)]
    pub prices: Prices,
    /// More calls than this are refused.
    pub calls_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { filters: Filters::default(), inline: true, open: false, prices: Prices::default(), calls_max: CALLS_MAX }
    }
}

impl Filters {
    /// Whether a call may be chosen, as far as its first event says: what is let go here is never held.
    pub(crate) fn may_take(&self, row: &Row, at_ms: i64) -> bool {
        let is = |wanted: &Option<String>, found: Option<&str>| wanted.is_none() || wanted.as_deref() == found;
        self.since_ms.is_none_or(|since| at_ms >= since)
            && self.until_ms.is_none_or(|until| at_ms < until)
            && is(&self.tenant, row.tenant.as_deref())
            && is(&self.workflow, Some(&row.workflow_id))
            && is(&self.server, Some(&row.server))
            && is(&self.tool, row.tool.as_deref())
    }

    /// Whether a call is chosen, when all of it is known.
    pub(crate) fn takes(&self, row: &Row) -> bool {
        self.decision.as_ref().is_none_or(|wanted| *wanted == row.decision)
            && (self.outcome.is_none() || self.outcome == row.outcome)
            && (!self.chosen || row.model.is_some())
    }
}
