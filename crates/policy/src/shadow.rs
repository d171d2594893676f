//! Policies that are tried on live traffic and decide nothing.
//!
//! The `*.cedar` files in `shadow/` below the policies folder make a set of their own, with the live entities and actions. It
//! is asked what the live set was asked, after it, and the difference is told. Bounded: a question on which too many of its
//! policies bear is passed over. Must never change a decision, and a shadow that does not compile must never stop a live
//! set from being taken.

use std::sync::Arc;

use crate::{
    Question,
    set::{ActiveSet, Said},
};
use cairn_clock::Timestamp;

/// The folder below the policies folder.
pub(crate) const SHADOW_FOLDER: &str = "shadow";
/// A question on which more of the shadow's policies bear than this is not asked of it.
const SLICE_POLICIES_MAX: usize = 1_024;

/// What the shadow set would have decided.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shadowed {
    /// The shadow set's version.
    pub policy_version: String,
    /// Whether it would have permitted.
    pub permit: bool,
    /// Whether it would have decided otherwise, or demanded something else.
    pub differs: bool,
}

/// Asks `shadow` what the live set answered with `said`.
pub(crate) fn ask(shadow: &Arc<ActiveSet>, question: &Question, now: Timestamp, said: &Said) -> Option<Shadowed> {
    let asked = shadow.ask(question, now);
    if asked.known.slice.num_of_policies() > SLICE_POLICIES_MAX {
        return None;
    }
    let would = shadow.decide(&asked);
    let demands = |said: &Said| said.obligations.iter().map(|obligation| obligation.name()).collect::<Vec<_>>();
    Some(Shadowed {
        policy_version: shadow.version.to_string(),
        permit: would.permit,
        differs: would.permit != said.permit || demands(&would) != demands(said),
    })
}
