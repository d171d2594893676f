//! One recorded decision beside what the policies on trial say of the same inputs.

use cairn_contract::{CallDecision, Decision};
use cairn_policy::Tried;

use crate::report::FlipKind;

/// Policies of Cairn's own begin with it: what they deny no policy set can permit.
const OWN: &str = "cairn:";
/// The demand that a decision was denied for, where it stands beside a denial.
const FRESHNESS: &str = "freshness";

/// How the two compare.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Compared {
    Agree,
    Flip(FlipKind),
    /// Something besides policies denied, and still would.
    DeniedElsewhere,
}

/// Compares a recorded decision with what would be decided.
pub(crate) fn compare(was: &CallDecision, would: &Tried) -> Compared {
    let permitted = was.decision == Decision::Permit;
    match (permitted, would.permit) {
        (true, true) => {
            let mut demands = was.obligations.clone();
            demands.sort();
            if demands == would.obligations { Compared::Agree } else { Compared::Flip(FlipKind::OtherDemands) }
        }
        (true, false) => Compared::Flip(FlipKind::ToDeny),
        (false, false) => Compared::Agree,
        (false, true) if was.determining_policies.iter().any(|id| id.starts_with(OWN)) => Compared::DeniedElsewhere,
        // A permit whose demand was not met: where it is demanded again, it is not met again.
        (false, true) if demands_freshness(&was.obligations) && demands_freshness(&would.obligations) => {
            Compared::Agree
        }
        (false, true) => Compared::Flip(FlipKind::ToPermit),
    }
}

fn demands_freshness(obligations: &[String]) -> bool {
    obligations.iter().any(|name| name == FRESHNESS)
}
