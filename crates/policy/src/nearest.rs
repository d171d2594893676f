//! For a call that nothing permits: the permit that came nearest, and the part of it that failed.
//!
//! Asked after a default deny, so that a person need not guess. Scopes are compared first; of the permits with the fewest
//! failing parts each condition's clauses are then evaluated alone. Of two that are as near, the one of which more holds is
//! nearer: it was written for calls like this one. Bounded in policies and clauses. Changes no decision.

use std::{cmp::Reverse, sync::Arc};

use cedar_policy::{Authorizer, Decision, Effect, Entities, Policy, PolicyId, PolicySet, Request};
use serde_json::{Value, json};

use crate::index::{Entry, Index, Within};

/// Permits whose scopes are compared.
const PERMITS_MAX: usize = 4_096;
/// Permits whose conditions are evaluated.
const CANDIDATES_MAX: usize = 8;
/// Clauses of one policy that are evaluated.
const CLAUSES_MAX: usize = 32;
/// Longest clause that is told, in characters.
const CLAUSE_CHARS_MAX: usize = 256;

/// The permit that came nearest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Nearest {
    /// Its id.
    pub policy: String,
    /// Its first part that does not hold, as a policy would say it.
    pub failed: String,
    /// How many of its parts do not hold.
    pub failing: usize,
}

/// A clause of a condition, as a policy of its own.
#[derive(Debug)]
pub(crate) struct Clause {
    text: String,
    set: PolicySet,
}

impl Clause {
    /// The clauses of a policy: what must hold (`when a && b`) or must not (`unless a || b`), one by one.
    pub(crate) fn of(policy: &Policy) -> Vec<Self> {
        let Ok(whole) = policy.to_json() else { return Vec::new() };
        let mut clauses = Vec::new();
        for condition in whole["conditions"].as_array().into_iter().flatten() {
            let kind = condition["kind"].as_str().unwrap_or("when");
            let mut parts = Vec::new();
            split(&condition["body"], if kind == "when" { "&&" } else { "||" }, &mut parts);
            for body in parts.into_iter().take(CLAUSES_MAX - clauses.len()) {
                clauses.extend(Self::new(kind, body));
            }
        }
        clauses
    }

    fn new(kind: &str, body: &Value) -> Option<Self> {
        let any = json!({ "op": "All" });
        let alone = json!({
            "effect": "permit", "principal": any, "action": any, "resource": any,
            "conditions": [{ "kind": kind, "body": body }],
        });
        let policy = Policy::from_json(Some(PolicyId::new("clause")), alone).ok()?;
        let text = policy.to_cedar()?;
        let text = text.split_once(kind).map_or(text.as_str(), |(_, rest)| rest);
        let text = text.trim().trim_end_matches(';').trim_start_matches('{').trim_end_matches('}');
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        Some(Self { text: format!("{kind} {{ {text} }}"), set: PolicySet::from_policies([policy]).ok()? })
    }
}

fn split<'a>(body: &'a Value, operator: &str, parts: &mut Vec<&'a Value>) {
    match body.get(operator) {
        Some(both) if parts.len() < CLAUSES_MAX => {
            split(&both["left"], operator, parts);
            split(&both["right"], operator, parts);
        }
        _ => parts.push(body),
    }
}

/// The permit of `index` that comes nearest to permitting the request.
pub(crate) fn nearest(
    index: &Index,
    (principal, action, resource): (Within<'_>, Within<'_>, Within<'_>),
    request: &Request,
    entities: &Entities,
) -> Option<Nearest> {
    let permits = index.entries().iter().filter(|entry| entry.policy.effect() == Effect::Permit).take(PERMITS_MAX);
    let mut ranked: Vec<(usize, &Entry, Vec<String>)> = permits
        .map(|entry| {
            let failed = entry.failed(principal, action, resource);
            (failed.len(), entry, failed)
        })
        .collect();
    ranked.sort_by_key(|(failing, entry, _)| (*failing, Reverse(entry.constrained()), entry.policy.id().clone()));
    ranked.truncate(CANDIDATES_MAX);
    let authorizer = Authorizer::new();
    let judged = ranked.into_iter().filter_map(|(scope, entry, mut failed)| {
        let clauses = entry.clauses.get_or_init(|| Arc::new(Clause::of(&entry.policy)));
        let fails =
            |clause: &&Clause| authorizer.is_authorized(request, &clause.set, entities).decision() != Decision::Allow;
        // Behind the first clause that fails the others may only fail with it, as `a.b > 1` does without `a has b`.
        let held = clauses.iter().take_while(|clause| !fails(clause)).count();
        let holding = entry.constrained().saturating_sub(scope) + held;
        let rank = (scope + usize::from(held < clauses.len()), Reverse(holding));
        failed.extend(clauses.iter().filter(fails).map(|clause| clause.text.clone()));
        let first: String = failed.first()?.chars().take(CLAUSE_CHARS_MAX).collect();
        Some((rank, Nearest { policy: entry.policy.id().to_string(), failed: first, failing: failed.len() }))
    });
    let nearest = judged.min_by(|a, b| (a.0, &a.1.policy).cmp(&(b.0, &b.1.policy)));
    nearest.map(|(_, nearest)| nearest)
}
