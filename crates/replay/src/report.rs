//! What came of it: counts, by whom and what, and the flips themselves as far as there is room.

use std::collections::BTreeMap;

use serde::Serialize;

/// Names that are counted apart, of each kind; all others are counted together.
const PARTS_MAX: usize = 1_000;
/// The name under which the others are counted.
const OTHERS: &str = "(others)";

/// Decisions that were made again.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub struct Counts {
    /// Decisions of the range.
    pub decisions: u64,
    /// Made again.
    pub fresh: u64,
    /// The same inputs as one before: not made again.
    pub repeated: u64,
    /// As they were.
    pub agree: u64,
    /// Otherwise than they were.
    pub flips: u64,
    /// Denied by something besides policies (the catalogue, a decision point elsewhere), and permitted by these policies:
    /// that would still deny.
    pub denied_elsewhere: u64,
    /// Not made again.
    pub undecidable: Undecidable,
}

/// Why decisions could not be made again. None of them counts as agreement.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub struct Undecidable {
    /// Their subject was erased.
    pub erased: u64,
    /// Their inputs were not kept: by configuration, by a policy's mask, or because the vault had no room.
    pub not_kept: u64,
    /// Their inputs are not in this vault.
    pub missing: u64,
    /// Their inputs are damaged.
    pub damaged: u64,
    /// They hang on arguments that no policy can see.
    pub hidden: u64,
    /// The event is of a contract that this version does not know.
    pub unknown: u64,
}

impl Undecidable {
    /// All of them.
    #[must_use]
    pub const fn all(&self) -> u64 {
        self.erased + self.not_kept + self.missing + self.damaged + self.hidden + self.unknown
    }
}

/// Counts of one tool, agent or tenant.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// Its decisions.
    pub decisions: u64,
    /// Permitted, and would be denied.
    pub to_deny: u64,
    /// Denied, and would be permitted.
    pub to_permit: u64,
    /// Permitted both ways, with other demands.
    pub other_demands: u64,
    /// Not made again.
    pub undecidable: u64,
}

/// How a decision would flip.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FlipKind {
    /// Permitted, and would be denied.
    ToDeny,
    /// Denied, and would be permitted.
    ToPermit,
    /// Permitted both ways, with other demands.
    OtherDemands,
}

/// A decision that would be another one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Flip {
    /// How.
    pub kind: FlipKind,
    /// Where its event is.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
    /// When it was decided, RFC 3339.
    pub time: String,
    /// The workflow.
    pub workflow_id: String,
    /// The call.
    pub call_id: Option<String>,
    /// Who called.
    pub principal: Option<String>,
    /// Through which agent.
    pub agent: Option<String>,
    /// The tenant.
    pub tenant: Option<String>,
    /// What was called: `server/name`, or server and method.
    pub target: String,
    /// The policies that decided.
    pub was: Vec<String>,
    /// The policies that would decide.
    pub would: Vec<String>,
    /// What was demanded.
    pub demands_were: Vec<String>,
    /// What would be demanded.
    pub demands_would: Vec<String>,
    /// What would go wrong in evaluating policies.
    pub errors: Vec<String>,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
pub struct Report {
    /// The policies that were tried.
    pub policy_version: String,
    /// All counts.
    #[serde(flatten)]
    pub counts: Counts,
    /// By what was called.
    pub by_tool: Vec<Part>,
    /// By agent.
    pub by_agent: Vec<Part>,
    /// By tenant.
    pub by_tenant: Vec<Part>,
    /// The first flips, in the order in which they were read.
    pub listed: Vec<Flip>,
    /// Time spent deciding, in microseconds, over all processors.
    pub deciding_us: u64,
}

/// The names of what is counted.
#[derive(Default, Debug)]
pub(crate) struct Parts(BTreeMap<String, Part>);

impl Parts {
    pub(crate) fn of(&mut self, name: &str) -> &mut Part {
        let name = if self.0.len() < PARTS_MAX || self.0.contains_key(name) { name } else { OTHERS };
        self.0.entry(name.to_owned()).or_insert_with(|| Part { name: name.to_owned(), ..Part::default() })
    }

    /// Those with the most flips first.
    pub(crate) fn sorted(self) -> Vec<Part> {
        let mut parts: Vec<_> = self.0.into_values().collect();
        let flips = |part: &Part| part.to_deny + part.to_permit + part.other_demands;
        parts.sort_by(|a, b| (flips(b), b.decisions, &a.name).cmp(&(flips(a), a.decisions, &b.name)));
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_room_is_counted_with_the_others() {
        let mut parts = Parts::default();
        for at in 0..PARTS_MAX + 10 {
            parts.of(&at.to_string()).decisions += 1;
        }
        parts.of("7").to_deny += 1;
        let sorted = parts.sorted();
        assert_eq!((sorted[0].name.as_str(), sorted.len()), ("7", PARTS_MAX + 1));
        assert_eq!((sorted[1].name.as_str(), sorted[1].decisions), (OTHERS, 10));
    }
}
