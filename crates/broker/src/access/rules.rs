//! Who may do what: a pure function over rules that do not change. Called by the gate, the one place that decides, and by [`Access`].
//!
//! Kafka's rules (`StandardAuthorizer`): what is denied is denied whatever else is allowed; what some rule covers and none allows is
//! not allowed; what no rule covers is as the configuration says. To write, read, delete or alter is to describe, to alter configs is to
//! describe them; a denial implies nothing.
//!
//! [`Access`]: super::Access

use std::collections::{BTreeSet, HashMap};

use super::acl::{ANY, ANYBODY, Acl, Effect, Filter, Kind, Operation, Pattern};

/// Who asks, and from where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker<'a> {
    /// `User:` and a name.
    pub(crate) principal: &'a str,
    /// An address.
    pub(crate) host: &'a str,
}

impl Asker<'_> {
    fn is_meant(&self, acl: &Acl) -> bool {
        (acl.principal == self.principal || acl.principal == ANYBODY) && (acl.host == self.host || acl.host == ANY)
    }
}

/// All rules.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    all: BTreeSet<Acl>,
    literal: HashMap<Kind, HashMap<String, Vec<Acl>>>,
    prefixed: HashMap<Kind, HashMap<String, Vec<Acl>>>,
    /// Whether everybody may do what no rule is about.
    otherwise: bool,
}

impl Rules {
    pub(crate) fn new(all: BTreeSet<Acl>, otherwise: bool) -> Self {
        let mut rules = Self { otherwise, ..Self::default() };
        for acl in &all {
            let by_pattern = match acl.pattern {
                Pattern::Literal => &mut rules.literal,
                Pattern::Prefixed => &mut rules.prefixed,
            };
            by_pattern.entry(acl.kind).or_default().entry(acl.name.clone()).or_default().push(acl.clone());
        }
        Self { all, ..rules }
    }

    pub(crate) const fn all(&self) -> &BTreeSet<Acl> {
        &self.all
    }

    /// The same with other rules.
    pub(super) fn with(&self, all: BTreeSet<Acl>) -> Self {
        Self::new(all, self.otherwise)
    }

    pub(crate) fn selected<'a>(&'a self, filter: &'a Filter) -> impl Iterator<Item = &'a Acl> {
        self.all.iter().filter(|acl| filter.selects(acl))
    }

    /// Whether that may be done.
    pub(crate) fn may(&self, who: Asker<'_>, operation: Operation, kind: Kind, name: &str) -> bool {
        let (mut is_covered, mut is_allowed) = (false, false);
        for acl in self.covering(kind, name) {
            is_covered = true;
            if !who.is_meant(acl) {
                continue;
            }
            match acl.effect {
                Effect::Deny if acl.operation == operation || acl.operation == Operation::All => return false,
                Effect::Allow if acl.operation.implies(operation) => is_allowed = true,
                Effect::Deny | Effect::Allow => {}
            }
        }
        if is_covered { is_allowed } else { self.otherwise }
    }

    /// Whether that may be done to any resource of the kind, whatever its name.
    pub(crate) fn may_any(&self, who: Asker<'_>, operation: Operation, kind: Kind) -> bool {
        let meant = |effect| {
            let of_kind = self.all.iter().filter(move |acl| acl.kind == kind && acl.effect == effect);
            of_kind.filter(move |acl| who.is_meant(acl))
        };
        let denied: Vec<&Acl> = meant(Effect::Deny).filter(|acl| acl.operation.is_or_all(operation)).collect();
        if denied.iter().any(|acl| acl.is_for_all()) {
            return false;
        }
        let mut allowed = meant(Effect::Allow).filter(|acl| acl.operation.implies(operation));
        let is_free = |acl: &Acl| match acl.pattern {
            _ if acl.is_for_all() => true,
            Pattern::Literal => self.may(who, operation, kind, &acl.name),
            Pattern::Prefixed => {
                !denied.iter().any(|deny| deny.pattern == Pattern::Prefixed && acl.name.starts_with(&deny.name))
            }
        };
        let all_are_covered = self.literal.get(&kind).is_some_and(|names| names.contains_key(ANY));
        allowed.any(is_free) || (self.otherwise && !all_are_covered)
    }

    /// What may be done to it, as the bits of Kafka's authorized operations.
    pub(crate) fn operations(&self, who: Asker<'_>, kind: Kind, name: &str) -> i32 {
        let operations = kind.operations().iter().filter(|operation| self.may(who, **operation, kind, name));
        operations.fold(0, |bits, operation| bits | 1 << operation.code())
    }

    fn covering<'a>(&'a self, kind: Kind, name: &'a str) -> impl Iterator<Item = &'a Acl> {
        let literal = self.literal.get(&kind);
        let of = move |name: &str| literal.and_then(|names| names.get(name)).into_iter().flatten();
        let also_any = (name != ANY).then_some(ANY).into_iter().flat_map(of);
        let prefixed = self.prefixed.get(&kind).into_iter().flat_map(move |names| {
            let prefixes = (0..=name.len()).filter_map(move |end| name.get(..end));
            prefixes.filter_map(|prefix| names.get(prefix)).flatten()
        });
        of(name).chain(also_any).chain(prefixed)
    }
}

impl Operation {
    fn is_or_all(self, other: Self) -> bool {
        self == other || self == Self::All
    }
}

impl Acl {
    fn is_for_all(&self) -> bool {
        self.pattern == Pattern::Literal && self.name == ANY
    }
}

#[cfg(test)]
#[path = "rules/tests.rs"]
mod tests;
