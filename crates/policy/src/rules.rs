//! The policies of a set at work: the slice that bears on a question, and what Cedar's answer means.
//!
//! Asked by the set for each question. What Cedar leaves open is decided here: a forbid that cannot be evaluated forbids.
//! Must never evaluate less than what can change the decision.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cedar_policy::{AuthorizationError, Authorizer, Decision, EntityUid, EvaluationError, PolicySet, Response};

use crate::{
    Obligation,
    directory::Directory,
    index::{Index, Within},
    question::{Asked, Known, Named},
    set::Said,
    subjects::Subjects,
};

/// Policies that compile, with everything that was read beside them.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) index: Index,
    pub(crate) directory: Directory,
    pub(crate) obliged: BTreeSet<String>,
    pub(crate) forbids: BTreeSet<String>,
    /// What conditions name, by policy.
    pub(crate) mentions: BTreeMap<String, Vec<EntityUid>>,
    pub(crate) authorizer: Authorizer,
}

impl Rules {
    /// The entities and the slice for what a question names.
    pub(crate) fn known(&self, subjects: &Subjects, named: Named) -> Known {
        let [who, what, on] =
            [&named.principal, &named.action, &named.resource].map(|uid| self.directory.ancestors(uid));
        let places = self.index.find(
            Within { uid: &named.principal, ancestors: &who },
            Within { uid: &named.action, ancestors: &what },
            Within { uid: &named.resource, ancestors: &on },
        );
        let slice = subjects.slice(&self.index, places);
        let entities = self.entities(&named, &slice);
        Known::new(named, &entities, slice)
    }

    /// What the slice's evaluation can come to.
    fn entities(&self, named: &Named, slice: &PolicySet) -> Vec<serde_json::Value> {
        let mentioned: Vec<EntityUid> = if self.mentions.is_empty() || self.directory.is_empty() {
            Vec::new()
        } else {
            let of = |policy: &cedar_policy::Policy| self.mentions.get::<str>(policy.id().as_ref()).cloned();
            slice.policies().filter_map(of).flatten().collect()
        };
        self.directory.reach(&named.roots(), mentioned)
    }

    /// What the policies say.
    pub(crate) fn decide(&self, asked: &Asked) -> Said {
        let known: &Arc<Known> = &asked.known;
        self.judge(&self.authorizer.is_authorized(&asked.request, &known.slice, &known.entities), asked.hides)
    }

    /// What all policies say in the light of all entities, for whoever compares.
    #[cfg(test)]
    pub(crate) fn decide_whole(&self, asked: &Asked, entities: &cedar_policy::Entities) -> Said {
        self.judge(&self.authorizer.is_authorized(&asked.request, self.index.whole(), entities), asked.hides)
    }

    fn judge(&self, response: &Response, hides: bool) -> Said {
        let mut determining: Vec<String> = response.diagnostics().reason().map(ToString::to_string).collect();
        determining.sort();
        let mut errors = Vec::new();
        let mut broken = Vec::new();
        for error in response.diagnostics().errors() {
            let AuthorizationError::PolicyEvaluationError(error) = error;
            let id = error.policy_id().to_string();
            errors.push(format!("{id}: {}", error.inner()));
            if self.forbids.contains(&id) && (hides || !is_absence(error.inner())) {
                broken.push(id);
            }
        }
        errors.sort();
        let permit = response.decision() == Decision::Allow && broken.is_empty();
        if permit {
            let policies: Vec<String> = determining.iter().filter(|id| self.obliged.contains(*id)).cloned().collect();
            let obligations = if policies.is_empty() { Vec::new() } else { vec![Obligation::Approval { policies }] };
            return Said { permit, determining, obligations, errors };
        }
        // A forbid that cannot be evaluated forbids: else an argument of another type would be a way around it.
        if response.decision() == Decision::Allow {
            determining = broken;
            determining.sort();
        }
        Said { permit, determining, obligations: Vec::new(), errors }
    }
}

/// Whether a policy could not be evaluated only because the call has not what it looks at.
const fn is_absence(error: &EvaluationError) -> bool {
    matches!(
        error,
        EvaluationError::RecordAttrDoesNotExist(_)
            | EvaluationError::EntityAttrDoesNotExist(_)
            | EvaluationError::EntityDoesNotExist(_)
    )
}
