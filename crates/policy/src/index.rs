//! Which policies of a set can bear on a question at all: an index over their scopes.
//!
//! Cedar evaluates every policy that it is given. A policy whose scope does not hold is neither satisfied nor in error, so
//! leaving it out changes nothing; what is left is the slice that a decision evaluates. Policies are found by the
//! resource and the action that their scope names, then each one's whole scope is compared. Must never leave out a
//! policy whose scope holds: a property test compares slice and whole.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use cedar_policy::{ActionConstraint, EntityUid, Policy, PolicySet, PrincipalConstraint, ResourceConstraint};

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

#[derive(Debug)]
struct Entry {
    policy: Policy,
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
        let principal = match &self.principal {
            PrincipalConstraint::Any => true,
            PrincipalConstraint::Eq(uid) => principal.uid == uid,
            PrincipalConstraint::In(uid) => principal.is_in(uid),
            PrincipalConstraint::Is(kind) => principal.uid.type_name() == kind,
            PrincipalConstraint::IsIn(kind, uid) => principal.uid.type_name() == kind && principal.is_in(uid),
        };
        let action = match &self.action {
            ActionConstraint::Any => true,
            ActionConstraint::Eq(uid) => action.uid == uid,
            ActionConstraint::In(uids) => uids.iter().any(|uid| action.is_in(uid)),
        };
        let resource = match &self.resource {
            ResourceConstraint::Any => true,
            ResourceConstraint::Eq(uid) => resource.uid == uid,
            ResourceConstraint::In(uid) => resource.is_in(uid),
            ResourceConstraint::Is(kind) => resource.uid.type_name() == kind,
            ResourceConstraint::IsIn(kind, uid) => resource.uid.type_name() == kind && resource.is_in(uid),
        };
        principal && action && resource
    }
}
