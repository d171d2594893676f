//! For a call that nothing permits: the permit that came nearest, and the part of it that failed.
//!
//! Asked after a default deny, so that a person need not guess. Scopes are compared first; of the permits with the fewest
//! failing parts each condition's clauses are then evaluated alone. Of two that are as near, the one of which more holds is
//! nearer: it was written for calls like this one. Bounded in policies and clauses. Changes no decision.

use std::{cmp::Reverse, sync::Arc};

use cedar_policy::{Authorizer, Decision, Effect, Entities, Policy, PolicyId, PolicySet, Request};
use serde_json::{Value, json};

use crate::index::{Index, Within};

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

/// A permit whose scope comes near to what a question names.
#[derive(Debug)]
pub(crate) struct Near {
    /// Where the index has it.
    at: usize,
    /// The parts of its scope that do not hold, as a policy says them.
    failed: Vec<String>,
}

/// The permits whose scopes come nearest: the same for every question that names these.
pub(crate) fn candidates(index: &Index, of: [Within<'_>; 3]) -> Vec<Near> {
    let [principal, action, resource] = of;
    let permits = index.entries().iter().enumerate().filter(|(_, entry)| entry.policy.effect() == Effect::Permit);
    let mut ranked: Vec<(usize, Reverse<usize>, &PolicyId, usize)> = permits
        .take(PERMITS_MAX)
        .map(|(at, entry)| {
            let holding =
                [entry.principal_holds(principal), entry.action_holds(action), entry.resource_holds(resource)];
            let failing = holding.iter().filter(|holds| !**holds).count();
            (failing, Reverse(entry.constrained()), entry.policy.id(), at)
        })
        .collect();
    if ranked.len() > CANDIDATES_MAX {
        ranked.select_nth_unstable(CANDIDATES_MAX);
        ranked.truncate(CANDIDATES_MAX);
    }
    ranked.sort_unstable();
    let near = ranked.into_iter();
    near.map(|(.., at)| Near { at, failed: index.entries()[at].failed(principal, action, resource) }).collect()
}

/// The one of them that comes nearest to permitting the request.
pub(crate) fn among(near: &[Near], index: &Index, request: &Request, entities: &Entities) -> Option<Nearest> {
    let authorizer = Authorizer::new();
    let judged = near.iter().filter_map(|Near { at, failed }| {
        let entry = &index.entries()[*at];
        let clauses = entry.clauses.get_or_init(|| Arc::new(Clause::of(&entry.policy)));
        let holds =
            |clause: &Clause| authorizer.is_authorized(request, &clause.set, entities).decision() == Decision::Allow;
        let held: Vec<bool> = clauses.iter().map(holds).collect();
        // Behind the first clause that fails the others may only fail with it, as `a.b > 1` does without `a has b`.
        let first = held.iter().take_while(|held| **held).count();
        let holding = entry.constrained().saturating_sub(failed.len()) + first;
        let rank = (failed.len() + usize::from(first < clauses.len()), Reverse(holding));
        let failing = failed.len() + held.iter().filter(|held| !**held).count();
        let told = failed.first().or_else(|| clauses.get(first).map(|clause| &clause.text))?;
        Some((rank, entry.policy.id().to_string(), told, failing))
    });
    let nearest = judged.min_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    nearest.map(|(_, policy, told, failing)| Nearest {
        policy,
        failed: told.chars().take(CLAUSE_CHARS_MAX).collect(),
        failing,
    })
}
