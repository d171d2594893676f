//! The policies of a set at work: the slice that bears on a question, and what Cedar's answer means.
//!
//! Asked by the set for each question. What Cedar leaves open is decided here: a forbid that cannot be evaluated forbids.
//! Must never evaluate less than what can change the decision.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use cedar_policy::{
    AuthorizationError, Authorizer, Decision, Entities, EntityUid, EvaluationError, PolicySet, Response,
};

use crate::{
    ApprovalNeed, FreshnessDemand, Masking, Nearest, Obligation, Rewriting,
    annotations::Demands,
    directory::{Directory, sorted},
    index::{Index, Within},
    nearest,
    question::{Asked, Known, Named},
    set::Said,
    subjects::Subjects,
};

/// Policies that compile, with everything that was read beside them.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) index: Index,
    pub(crate) directory: Directory,
    /// The actions of the schema with their groups.
    pub(crate) actions: Entities,
    /// What policies demand, of those that demand something.
    pub(crate) demands: BTreeMap<String, Demands>,
    pub(crate) forbids: BTreeSet<String>,
    /// What conditions name, by policy.
    pub(crate) mentions: BTreeMap<String, Vec<EntityUid>>,
    pub(crate) authorizer: Authorizer,
}

impl Rules {
    /// The entities and the slice for what a question names.
    pub(crate) fn known(&self, subjects: &Subjects, named: Named) -> Known {
        let [who, what, on] = [&named.principal, &named.action, &named.resource].map(|uid| self.ancestors(uid));
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
        let mut entities = self.directory.reach(&named.roots(), mentioned);
        if let Some(action) = self.actions.get(&named.action).and_then(|action| action.to_json_value().ok()) {
            entities.push(sorted(action));
        }
        entities
    }

    /// What the policies say.
    pub(crate) fn decide(&self, asked: &Asked) -> Said {
        let known: &Arc<Known> = &asked.known;
        self.judge(&self.authorizer.is_authorized(&asked.request, &known.slice, &known.entities), asked.hides)
    }

    /// What all policies say in the light of all entities, for whoever compares.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn decide_whole(&self, asked: &Asked, entities: &cedar_policy::Entities) -> Said {
        self.judge(&self.authorizer.is_authorized(&asked.request, self.index.whole(), entities), asked.hides)
    }

    /// The permit that came nearest, where nothing determined the decision.
    pub(crate) fn nearest(&self, asked: &Asked) -> Option<Nearest> {
        let known: &Known = &asked.known;
        let near = known.near.get_or_init(|| {
            let uids = [known.principal(), known.action(), known.resource()];
            let [who, what, on] = uids.map(|uid| self.ancestors(uid));
            let part = |at: usize, ancestors| Within { uid: uids[at], ancestors };
            nearest::candidates(&self.index, [part(0, &who), part(1, &what), part(2, &on)])
        });
        nearest::among(near, &self.index, &asked.request, &known.entities)
    }

    /// What each of the policies demands, of those that demand something.
    fn demanded(&self, determining: &[String]) -> Vec<(String, Demands)> {
        determining.iter().filter_map(|id| Some((id.clone(), self.demands.get(id)?.clone()))).collect()
    }

    /// What an entity is in: groups of actions are the schema's, everything else the file's.
    fn ancestors(&self, uid: &EntityUid) -> HashSet<EntityUid> {
        match self.actions.ancestors(uid) {
            Some(groups) => groups.cloned().collect(),
            None => self.directory.ancestors(uid),
        }
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
            let demands = self.demanded(&determining);
            match combined(&demands) {
                Ok(obligations) => return Said { permit, determining, obligations, demands, errors },
                // Nobody can say which of them is meant, so neither is done.
                Err([one, other]) => {
                    errors.push(format!("{other}: @rewrite contradicts that of {one}, so the call is denied"));
                    determining = vec![one, other];
                    let demands = self.demanded(&determining);
                    let obligations = combined_mask(&demands).into_iter().collect();
                    return Said { permit: false, determining, obligations, demands, errors };
                }
            }
        }
        // A forbid that cannot be evaluated forbids: else an argument of another type would be a way around it.
        if response.decision() == Decision::Allow {
            determining = broken;
            determining.sort();
        }
        let demands = self.demanded(&determining);
        let obligations = combined_mask(&demands).into_iter().collect();
        Said { permit, determining, obligations, demands, errors }
    }
}

/// What policies demand together, each named by its id, or which two of them contradict each other.
pub(crate) fn combined(demands: &[(String, Demands)]) -> Result<Vec<Obligation>, [String; 2]> {
    let of = |wanted: fn(&Demands) -> bool| {
        let ids = demands.iter().filter(|(_, demands)| wanted(demands)).map(|(id, _)| id.clone());
        ids.collect::<Vec<String>>()
    };
    let mut obligations = Vec::new();
    let wanted = || demands.iter().filter_map(|(id, demands)| Some((id, demands.approval.as_ref()?)));
    let needs = wanted().map(|(id, approval)| ApprovalNeed {
        policy: id.clone(),
        approvers: approval.approvers.clone(),
        quorum: approval.quorum,
    });
    let needs: Vec<ApprovalNeed> = needs.collect();
    if !needs.is_empty() {
        let expires = wanted().filter_map(|(_, approval)| approval.expires).min();
        obligations.push(Obligation::Approval { needs, expires });
    }
    let policies = of(|demands| demands.strict);
    if !policies.is_empty() {
        obligations.push(Obligation::Durability { policies });
    }
    let policies = of(|demands| demands.freshness.is_some());
    let fresh = demands.iter().filter_map(|(_, demands)| demands.freshness).reduce(FreshnessDemand::joined);
    obligations.extend(fresh.map(|demand| Obligation::Freshness { policies, demand }));
    obligations.extend(combined_mask(demands));
    let steps: Vec<_> = demands.iter().filter_map(|(id, demands)| Some((id, demands.rewrite.as_ref()?))).collect();
    if !steps.is_empty() {
        obligations.push(Obligation::Rewrite { rewriting: Rewriting::joined(&steps)? });
    }
    let policies = of(|demands| demands.output.is_some());
    let mode = demands.iter().filter_map(|(_, demands)| demands.output).max();
    obligations.extend(mode.map(|mode| Obligation::ScreenOutput { policies, mode }));
    let rules: Vec<_> = demands.iter().flat_map(|(id, demands)| demands.allowance.rules(id)).collect();
    if !rules.is_empty() {
        obligations.push(Obligation::Limits { rules });
    }
    Ok(obligations)
}

/// How much less the record holds, of what is permitted and of what is denied.
fn combined_mask(demands: &[(String, Demands)]) -> Option<Obligation> {
    let mut masking = Masking::default();
    let mut policies = Vec::new();
    for (id, demands) in demands {
        if let Some(mask) = &demands.mask {
            masking.join(mask);
            policies.push(id.clone());
        }
    }
    (!policies.is_empty()).then_some(Obligation::Mask { policies, masking })
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
