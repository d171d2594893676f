//! The annotations that give limits with a permit: `@rate`, `@burst`, `@concurrency`, `@budget`, `@cost`, `@per`.
//!
//! Read while a set is loaded. The limit is named after its policy, so that what was spent stays spent when the set
//! changes around it.

use std::sync::Arc;

use cairn_limits::{Amount, Applies, Bound, Budget, Cost, Part, Rate, Rule, Source};

/// The annotations.
pub(crate) const NAMES: [&str; 6] = ["rate", "burst", "concurrency", "budget", "cost", "per"];

/// What one policy allows to whoever it permits.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Allowance {
    bounds: Vec<Bound>,
    per: Vec<Part>,
}

impl Allowance {
    /// Whether it says nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.bounds.is_empty()
    }

    /// The limits, of the policy with that id.
    pub(crate) fn rules(&self, policy: &str) -> impl Iterator<Item = Rule> {
        let (name, per): (Arc<str>, _) = (policy.into(), self.per.clone());
        let (source, applies) = (Source::Policy, Applies::default());
        self.bounds.iter().map(move |bound| Rule {
            name: name.clone(),
            source,
            applies: applies.clone(),
            per: per.clone(),
            bound: bound.clone(),
        })
    }
}

/// The annotations as they are found, one after the other.
#[derive(Default)]
pub(crate) struct Found<'a>([Option<&'a str>; NAMES.len()]);

impl<'a> Found<'a> {
    /// Keeps one; false where it is none of them.
    pub(crate) fn take(&mut self, name: &str, value: &'a str) -> bool {
        let Some(at) = NAMES.iter().position(|known| *known == name) else { return false };
        self.0[at] = Some(value);
        true
    }

    /// What they say together.
    pub(crate) fn read(self) -> Result<Allowance, String> {
        let [rate, burst, concurrency, budget, cost, per] = self.0;
        for (name, value, of, whole) in [("burst", burst, "rate", rate), ("cost", cost, "budget", budget)] {
            if value.is_some() && whole.is_none() {
                return Err(format!("@{name} belongs to a {of}: write @{of} beside it"));
            }
        }
        let at = |name: &'static str| move |error: String| format!("@{name}: {error}");
        let mut bounds = Vec::new();
        if let Some(rate) = rate {
            let burst =
                burst.map(|burst| burst.parse().map_err(|_| format!("@burst({burst:?}) is no number of calls")));
            bounds.push(Bound::Rate(Rate::parse(rate, burst.transpose()?).map_err(at("rate"))?));
        }
        if let Some(calls) = concurrency {
            match calls.parse() {
                Ok(calls) if calls > 0 => bounds.push(Bound::Concurrency(calls)),
                _ => return Err(format!("@concurrency({calls:?}) is no number of calls: write 1 or more")),
            }
        }
        if let Some(budget) = budget {
            let cost = cost.map_or(Ok(Cost::Fixed(Amount::ONE)), Cost::parse).map_err(at("cost"))?;
            bounds.push(Bound::Budget(Budget::parse(budget, cost).map_err(at("budget"))?));
        }
        match per {
            Some(_) if bounds.is_empty() => {
                Err("@per belongs to a limit: write @rate, @concurrency or @budget beside it".to_owned())
            }
            Some(per) => Ok(Allowance { bounds, per: Part::list(per.split(',')).map_err(at("per"))? }),
            None => Ok(Allowance { bounds, per: vec![Part::Principal] })
                .map(|allowance: Allowance| if allowance.is_empty() { Allowance::default() } else { allowance }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(annotations: &[(&str, &'static str)]) -> Result<Allowance, String> {
        let mut found = Found::default();
        for (name, value) in annotations {
            assert!(found.take(name, value), "{name}");
        }
        found.read()
    }

    #[test]
    fn limits_are_named_after_their_policy_and_counted_by_principal_unless_it_says_otherwise() {
        let allowance = read(&[("rate", "30/1m"), ("burst", "5"), ("concurrency", "2")]).expect("limits");
        let rules: Vec<_> = allowance.rules("refunds").collect();
        assert_eq!(rules.iter().map(|rule| rule.bound.to_string()).collect::<Vec<_>>(), ["30/1m", "2"]);
        assert!(rules.iter().all(|rule| &*rule.name == "refunds" && rule.per == [Part::Principal]));
        let allowance = read(&[("budget", "500/1d"), ("cost", "arguments:/amount"), ("per", "tenant, tool")]);
        let rules: Vec<_> = allowance.expect("limits").rules("refunds").collect();
        assert_eq!(rules[0].per, [Part::Tenant, Part::Tool]);
        assert_eq!(read(&[]), Ok(Allowance::default()));
    }

    #[test]
    fn what_belongs_to_nothing_or_says_nothing_is_told() {
        for (annotations, said) in [
            (vec![("burst", "5")], "@rate"),
            (vec![("cost", "5")], "@budget"),
            (vec![("per", "tool")], "@budget"),
            (vec![("rate", "5")], "100/1m"),
            (vec![("rate", "5/1m"), ("burst", "many")], "@burst"),
            (vec![("concurrency", "0")], "1 or more"),
            (vec![("budget", "much")], "5000/1d"),
            (vec![("budget", "5"), ("cost", "amount")], "JSON pointer"),
            (vec![("budget", "5"), ("per", "user")], "principal"),
        ] {
            let error = read(&annotations).expect_err("it means nothing");
            assert!(error.contains(said), "{annotations:?}: {error}");
        }
    }
}
