//! Which policies of a set can bear on a question at all: an index over their scopes.
//!
//! Cedar evaluates every policy that it is given. A policy whose scope does not hold is neither satisfied nor in error, so
//! leaving it out changes nothing; what is left is the slice that a decision evaluates. Policies are found by the
//! resource and the action that their scope names, then each one's whole scope is compared. Must never leave out a
//! policy whose scope holds: a property test compares slice and whole.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use cedar_policy::{ActionConstraint, EntityUid, Policy, PolicySet, PrincipalConstraint, ResourceConstraint};

use crate::nearest::Clause;

/// A slice with more policies than this is not copied: the whole set is evaluated in its place.
const SLICE_POLICIES_MAX: usize = 4_096;

/// A part of a question: who, what or on what, with everything that it is in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Within<'a> {
    pub(crate) uid: &'a EntityUid,
    pub(crate) ancestors: &'a HashSet<EntityUid>,
}

impl Within<'_> {
    fn is_in(&self, other: &EntityUid) -> bool {
        self.uid == other || self.ancestors.contains(other)
    }
}

/// The policies of a set, found by what their scopes name.
#[derive(Debug, Default)]
pub(crate) struct Index {
    whole: Arc<PolicySet>,
    entries: Vec<Entry>,
    /// By resource, then action; `None` is a scope that names no one entity there.
    places: HashMap<Option<EntityUid>, HashMap<Option<EntityUid>, Vec<u32>>>,
}

/// A policy and its scope.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) policy: Policy,
    /// Made when a person first wants to know why it did not permit.
    pub(crate) clauses: OnceLock<Arc<Vec<Clause>>>,
    principal: PrincipalConstraint,
    action: ActionConstraint,
    resource: ResourceConstraint,
}

impl Index {
    /// Indexes every policy of `set`.
    pub(crate) fn new(set: PolicySet) -> Self {
        let mut index = Self::default();
        for policy in set.policies() {
            let at = u32::try_from(index.entries.len()).expect("files within their bounds hold fewer policies");
            let entry = Entry {
                policy: policy.clone(),
                clauses: OnceLock::new(),
                principal: policy.principal_constraint(),
                action: policy.action_constraint(),
                resource: policy.resource_constraint(),
            };
            let resource = match &entry.resource {
                ResourceConstraint::Eq(uid) | ResourceConstraint::In(uid) | ResourceConstraint::IsIn(_, uid) => {
                    Some(uid.clone())
                }
                ResourceConstraint::Any | ResourceConstraint::Is(_) => None,
            };
            let by_action = index.places.entry(resource).or_default();
            match &entry.action {
                ActionConstraint::Any => by_action.entry(None).or_default().push(at),
                ActionConstraint::Eq(uid) => by_action.entry(Some(uid.clone())).or_default().push(at),
                ActionConstraint::In(uids) => {
                    for uid in uids.iter().collect::<HashSet<_>>() {
                        by_action.entry(Some(uid.clone())).or_default().push(at);
                    }
                }
            }
            index.entries.push(entry);
        }
        index.whole = Arc::new(set);
        index
    }

    /// Every policy with its scope.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// All policies.
    pub(crate) const fn whole(&self) -> &Arc<PolicySet> {
        &self.whole
    }

    /// The places of the policies whose scope holds, in order and each once.
    pub(crate) fn find(&self, principal: Within<'_>, action: Within<'_>, resource: Within<'_>) -> Vec<u32> {
        let mut found = Vec::new();
        let names = |part: Within<'_>| {
            let named = part.ancestors.iter().chain(std::iter::once(part.uid)).cloned().map(Some);
            named.chain(std::iter::once(None)).collect::<HashSet<Option<EntityUid>>>()
        };
        let actions = names(action);
        for by_action in names(resource).iter().filter_map(|name| self.places.get(name)) {
            found.extend(actions.iter().filter_map(|name| by_action.get(name)).flatten());
        }
        found.retain(|at| self.entries[*at as usize].holds(principal, action, resource));
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The policies at those places as a set.
    pub(crate) fn slice(&self, places: &[u32]) -> Arc<PolicySet> {
        if places.len() == self.entries.len() || places.len() > SLICE_POLICIES_MAX {
            return Arc::clone(&self.whole);
        }
        let policies = places.iter().map(|at| self.entries[*at as usize].policy.clone());
        Arc::new(PolicySet::from_policies(policies).expect("policies of one set have different ids"))
    }
}

impl Entry {
    fn holds(&self, principal: Within<'_>, action: Within<'_>, resource: Within<'_>) -> bool {
        self.principal_holds(principal) && self.action_holds(action) && self.resource_holds(resource)
    }

    pub(crate) fn principal_holds(&self, principal: Within<'_>) -> bool {
        match &self.principal {
            PrincipalConstraint::Any => true,
            PrincipalConstraint::Eq(uid) => principal.uid == uid,
            PrincipalConstraint::In(uid) => principal.is_in(uid),
            PrincipalConstraint::Is(kind) => principal.uid.type_name() == kind,
            PrincipalConstraint::IsIn(kind, uid) => principal.uid.type_name() == kind && principal.is_in(uid),
        }
    }

    pub(crate) fn action_holds(&self, action: Within<'_>) -> bool {
        match &self.action {
            ActionConstraint::Any => true,
            ActionConstraint::Eq(uid) => action.uid == uid,
            ActionConstraint::In(uids) => uids.iter().any(|uid| action.is_in(uid)),
        }
    }

    pub(crate) fn resource_holds(&self, resource: Within<'_>) -> bool {
        match &self.resource {
            ResourceConstraint::Any => true,
            ResourceConstraint::Eq(uid) => resource.uid == uid,
            ResourceConstraint::In(uid) => resource.is_in(uid),
            ResourceConstraint::Is(kind) => resource.uid.type_name() == kind,
            ResourceConstraint::IsIn(kind, uid) => resource.uid.type_name() == kind && resource.is_in(uid),
        }
    }

    /// How many parts of the scope ask for something: a policy that says more is about less.
    pub(crate) fn constrained(&self) -> usize {
        usize::from(!matches!(self.principal, PrincipalConstraint::Any))
            + usize::from(!matches!(self.action, ActionConstraint::Any))
            + usize::from(!matches!(self.resource, ResourceConstraint::Any))
    }

    /// The parts of the scope that do not hold, as a policy says them.
    pub(crate) fn failed(&self, principal: Within<'_>, action: Within<'_>, resource: Within<'_>) -> Vec<String> {
        let mut failed = Vec::new();
        if !self.principal_holds(principal) {
            failed.push(match &self.principal {
                PrincipalConstraint::Any => "principal".to_owned(),
                PrincipalConstraint::Eq(uid) => format!("principal == {uid}"),
                PrincipalConstraint::In(uid) => format!("principal in {uid}"),
                PrincipalConstraint::Is(kind) => format!("principal is {kind}"),
                PrincipalConstraint::IsIn(kind, uid) => format!("principal is {kind} in {uid}"),
            });
        }
        if !self.action_holds(action) {
            failed.push(match &self.action {
                ActionConstraint::Any => "action".to_owned(),
                ActionConstraint::Eq(uid) => format!("action == {uid}"),
                ActionConstraint::In(uids) => {
                    let uids: Vec<String> = uids.iter().map(ToString::to_string).collect();
                    format!("action in [{}]", uids.join(", "))
                }
            });
        }
        if !self.resource_holds(resource) {
            failed.push(match &self.resource {
                ResourceConstraint::Any => "resource".to_owned(),
                ResourceConstraint::Eq(uid) => format!("resource == {uid}"),
                ResourceConstraint::In(uid) => format!("resource in {uid}"),
                ResourceConstraint::Is(kind) => format!("resource is {kind}"),
                ResourceConstraint::IsIn(kind, uid) => format!("resource is {kind} in {uid}"),
            });
        }
        failed
    }
}
