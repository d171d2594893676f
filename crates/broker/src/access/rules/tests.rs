//! The rules against a model that looks at all of them, and each of Kafka's rules by itself.

use proptest::prelude::*;

use super::*;

const KINDS: [Kind; 3] = [Kind::Topic, Kind::Group, Kind::Cluster];
const NAMES: [&str; 6] = ["*", "a", "ab", "abc", "b", "ä"];
const ASKED: [&str; 7] = ["a", "ab", "abc", "abcd", "b", "ä", "äb"];
const PRINCIPALS: [&str; 3] = ["User:*", "User:ada", "User:bob"];
const HOSTS: [&str; 3] = ["*", "10.0.0.1", "10.0.0.2"];
const OPERATIONS: [Operation; 9] = [
    Operation::All,
    Operation::Read,
    Operation::Write,
    Operation::Create,
    Operation::Delete,
    Operation::Alter,
    Operation::Describe,
    Operation::DescribeConfigs,
    Operation::AlterConfigs,
];

fn acl() -> impl Strategy<Value = Acl> {
    let of_what = (0..KINDS.len(), any::<bool>(), 0..NAMES.len());
    let rest = (0..PRINCIPALS.len(), 0..HOSTS.len(), 0..OPERATIONS.len(), prop::bool::weighted(0.3));
    (of_what, rest).prop_map(|((kind, literal, name), (principal, host, operation, deny))| Acl {
        kind: KINDS[kind],
        pattern: if literal { Pattern::Literal } else { Pattern::Prefixed },
        name: NAMES[name].to_owned(),
        principal: PRINCIPALS[principal].to_owned(),
        host: HOSTS[host].to_owned(),
        operation: OPERATIONS[operation],
        effect: if deny { Effect::Deny } else { Effect::Allow },
    })
}

/// What Kafka's documentation says, word by word.
fn model(all: &BTreeSet<Acl>, otherwise: bool, who: Asker<'_>, operation: Operation, kind: Kind, name: &str) -> bool {
    use Operation::{All, Alter, AlterConfigs, Delete, Describe, DescribeConfigs, Read, Write};
    let about: Vec<&Acl> = all
        .iter()
        .filter(|acl| acl.kind == kind)
        .filter(|acl| match acl.pattern {
            Pattern::Literal => acl.name == "*" || acl.name == name,
            Pattern::Prefixed => name.starts_with(acl.name.as_str()),
        })
        .collect();
    if about.is_empty() {
        return otherwise;
    }
    let mine = about.iter().filter(|acl| {
        (acl.principal == "User:*" || acl.principal == who.principal) && (acl.host == "*" || acl.host == who.host)
    });
    let (deny, allow): (Vec<&Acl>, Vec<&Acl>) = mine.partition(|acl| acl.effect == Effect::Deny);
    if deny.iter().any(|acl| acl.operation == operation || acl.operation == All) {
        return false;
    }
    let enough: Vec<Operation> = match operation {
        Describe => vec![Describe, Read, Write, Delete, Alter, All],
        DescribeConfigs => vec![DescribeConfigs, AlterConfigs, All],
        other => vec![other, All],
    };
    allow.iter().any(|acl| enough.contains(&acl.operation))
}

fn asker(principal: usize, host: usize) -> Asker<'static> {
    Asker { principal: ["User:ada", "User:bob", "User:ANONYMOUS"][principal], host: ["10.0.0.1", "10.0.0.3"][host] }
}

proptest! {
    #[test]
    fn what_the_rules_say_is_what_the_model_says(
        all in prop::collection::btree_set(acl(), 0..12),
        otherwise in any::<bool>(),
        principal in 0..3_usize,
        host in 0..2_usize,
    ) {
        let rules = Rules::new(all.clone(), otherwise);
        let who = asker(principal, host);
        for kind in KINDS {
            for operation in OPERATIONS.into_iter().skip(1) {
                for name in ASKED {
                    let said = rules.may(who, operation, kind, name);
                    prop_assert_eq!(said, model(&all, otherwise, who, operation, kind, name), "{:?} {:?} {}", operation, kind, name);
                    // Who may do it to one may do it to some.
                    prop_assert!(!said || rules.may_any(who, operation, kind));
                }
                let bits = rules.operations(who, kind, "ab");
                if kind.operations().contains(&operation) {
                    let said = bits & (1 << operation.code()) != 0;
                    prop_assert_eq!(said, rules.may(who, operation, kind, "ab"));
                }
            }
        }
    }
}

fn rule(effect: Effect, operation: Operation, pattern: Pattern, name: &str) -> Acl {
    let (principal, host) = ("User:ada".to_owned(), "*".to_owned());
    Acl { kind: Kind::Topic, pattern, name: name.to_owned(), principal, host, operation, effect }
}

fn ada() -> Asker<'static> {
    asker(0, 0)
}

#[test]
fn what_is_denied_is_denied_whatever_is_allowed_and_implies_nothing() {
    let allow = rule(Effect::Allow, Operation::All, Pattern::Literal, "*");
    let deny = rule(Effect::Deny, Operation::Read, Pattern::Prefixed, "secret.");
    let rules = Rules::new([allow, deny].into(), true);
    assert!(!rules.may(ada(), Operation::Read, Kind::Topic, "secret.one"));
    assert!(rules.may(ada(), Operation::Describe, Kind::Topic, "secret.one"), "to deny reading denies no describing");
    assert!(rules.may(ada(), Operation::Read, Kind::Topic, "secret"));
}

#[test]
fn what_no_rule_covers_is_as_the_configuration_says_and_what_one_covers_is_not() {
    let allow = rule(Effect::Allow, Operation::Read, Pattern::Literal, "t");
    for otherwise in [true, false] {
        let rules = Rules::new([allow.clone()].into(), otherwise);
        assert_eq!(rules.may(ada(), Operation::Write, Kind::Topic, "other"), otherwise);
        assert!(!rules.may(asker(1, 0), Operation::Read, Kind::Topic, "t"), "a rule for others covers it too");
        assert_eq!(rules.may_any(ada(), Operation::Write, Kind::Topic), otherwise);
    }
}

#[test]
fn something_may_be_written_where_not_all_that_is_allowed_is_denied() {
    let any =
        |rules: Vec<Acl>| Rules::new(rules.into_iter().collect(), false).may_any(ada(), Operation::Write, Kind::Topic);
    let allow = |pattern, name| rule(Effect::Allow, Operation::Write, pattern, name);
    let deny = |pattern, name| rule(Effect::Deny, Operation::All, pattern, name);
    use Pattern::{Literal, Prefixed};
    assert!(!any(vec![]));
    assert!(any(vec![allow(Literal, "t")]) && any(vec![allow(Prefixed, "t")]) && any(vec![allow(Literal, "*")]));
    assert!(!any(vec![allow(Literal, "t"), deny(Literal, "t")]));
    assert!(!any(vec![allow(Literal, "t"), deny(Literal, "*")]));
    assert!(!any(vec![allow(Prefixed, "tt"), deny(Prefixed, "t")]));
    assert!(any(vec![allow(Prefixed, "t"), deny(Prefixed, "tt")]));
    assert!(any(vec![allow(Prefixed, "t"), deny(Literal, "t")]));
}

#[test]
fn a_filter_selects_by_exact_name_or_by_what_covers_it() {
    let names: Vec<Acl> =
        [(Pattern::Literal, "ab"), (Pattern::Literal, "*"), (Pattern::Prefixed, "a"), (Pattern::Prefixed, "ab")]
            .map(|(pattern, name)| rule(Effect::Allow, Operation::Read, pattern, name))
            .to_vec();
    let rules = Rules::new(names.into_iter().collect(), false);
    let none = Filter {
        kind: None,
        names: super::super::acl::Names::Covering,
        name: None,
        principal: None,
        host: None,
        operation: None,
        effect: None,
    };
    use super::super::acl::Names;
    let count = |names, name: Option<&str>| {
        rules.selected(&Filter { names, name: name.map(str::to_owned), ..none.clone() }).count()
    };
    assert_eq!(count(Names::Covering, None), 4);
    assert_eq!(count(Names::Covering, Some("ab")), 4);
    assert_eq!(count(Names::Covering, Some("a")), 2, "`*` and the prefix `a`");
    assert_eq!(count(Names::Exactly(None), Some("ab")), 2);
    assert_eq!(count(Names::Exactly(Some(Pattern::Prefixed)), Some("ab")), 1);
    assert_eq!(count(Names::Exactly(Some(Pattern::Literal)), None), 2);
    for other in [
        Filter { kind: Some(Kind::Group), ..none.clone() },
        Filter { principal: Some("User:*".to_owned()), ..none.clone() },
        Filter { host: Some("10.0.0.1".to_owned()), ..none.clone() },
        Filter { operation: Some(Operation::All), ..none.clone() },
        Filter { effect: Some(Effect::Deny), ..none.clone() },
    ] {
        assert_eq!(rules.selected(&other).count(), 0, "{other:?}");
    }
}
