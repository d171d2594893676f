//! What a counter is found by: the rule, and the values of what it counts apart.
//!
//! A key is one text, the same in memory and on disk. Lengths stand before names, so that no two keys are alike whatever
//! is in the names. Tools and workflows are named by whoever calls: past a bound theirs are counted together.

use std::{fmt::Write, sync::Arc};

use crate::{Bound, Part, Rule, Source, Subject};

/// Longest name that is told apart from others, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// A counter's key, and the one that stands for it where there are too many.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Key {
    pub(crate) own: Arc<str>,
    /// Where the caller chooses a part of the name: the key with that part left open.
    pub(crate) shared: Option<Arc<str>>,
}

impl Key {
    pub(crate) fn of(rule: &Rule, subject: &Subject<'_>) -> Self {
        let chosen = rule.per.iter().any(|part| matches!(part, Part::Tool | Part::Workflow));
        let text = |open: bool| Arc::from(written(rule, subject, open));
        Self { own: text(false), shared: chosen.then(|| text(true)) }
    }
}

fn written(rule: &Rule, subject: &Subject<'_>, open: bool) -> String {
    let mut text = String::with_capacity(64);
    text.push(if rule.source == Source::Configuration { 'c' } else { 'p' });
    text.push(match rule.bound {
        Bound::Rate(_) => 'r',
        Bound::Concurrency(_) => 'c',
        Bound::Budget(_) => 'b',
    });
    put(&mut text, Some(&rule.name));
    for part in &rule.per {
        let (tenant, principal) = (subject.tenant, Some(subject.principal));
        let (letter, values) = match part {
            Part::Tenant => ('t', vec![tenant]),
            Part::Principal => ('p', vec![tenant, principal]),
            Part::Agent => ('a', vec![subject.agent]),
            Part::Server => ('s', vec![Some(subject.server)]),
            Part::Tool => ('o', vec![Some(subject.server), if open { Some("*") } else { subject.tool }]),
            Part::Workflow => ('w', vec![tenant, principal, Some(if open { "*" } else { subject.workflow })]),
        };
        text.push(letter);
        values.into_iter().for_each(|value| put(&mut text, value));
    }
    text
}

fn put(text: &mut String, value: Option<&str>) {
    match value {
        Some(value) if value.len() <= NAME_BYTES_MAX => {
            write!(text, "{}:{value}", value.len()).expect("a text takes everything");
        }
        Some(_) => text.push_str("1:*"),
        None => text.push('-'),
    }
}

/// What a key says: source, kind of bound, the rule's name, and the values of its parts.
pub(crate) type Told<'a> = (Source, char, &'a str, Vec<(Part, Vec<Option<&'a str>>)>);

/// Reads a key; nothing where it is none.
pub(crate) fn told(key: &str) -> Option<Told<'_>> {
    let mut letters = key.chars();
    let source = match letters.next()? {
        'c' => Source::Configuration,
        'p' => Source::Policy,
        _ => return None,
    };
    let bound = letters.next()?;
    let (name, mut rest) = take(letters.as_str())?;
    let mut parts = Vec::new();
    while let Some(letter) = rest.chars().next() {
        let (part, count) = match letter {
            't' => (Part::Tenant, 1),
            'p' => (Part::Principal, 2),
            'a' => (Part::Agent, 1),
            's' => (Part::Server, 1),
            'o' => (Part::Tool, 2),
            'w' => (Part::Workflow, 3),
            _ => return None,
        };
        rest = &rest[1..];
        let mut values = Vec::new();
        for _ in 0..count {
            let (value, after) = take(rest)?;
            values.push(value);
            rest = after;
        }
        parts.push((part, values));
    }
    Some((source, bound, name?, parts))
}

fn take(text: &str) -> Option<(Option<&str>, &str)> {
    if let Some(rest) = text.strip_prefix('-') {
        return Some((None, rest));
    }
    let (length, rest) = text.split_once(':')?;
    let length: usize = length.parse().ok()?;
    Some((Some(rest.get(..length)?), rest.get(length..)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Applies, Rate};

    fn rule(per: &[Part]) -> Rule {
        Rule {
            name: "r".into(),
            source: Source::Configuration,
            applies: Applies::default(),
            per: per.to_vec(),
            bound: Bound::Rate(Rate::parse("1/1m", None).expect("a rate")),
        }
    }

    proptest! {
        #[test]
        fn keys_are_alike_only_where_all_that_is_counted_apart_is(
            names in proptest::collection::vec("[ab:1*-]{0,3}", 12),
            none in any::<[bool; 4]>(),
            per in proptest::sample::subsequence(Part::ALL.to_vec(), 0..=6),
        ) {
            let subject = |at: usize, none: (bool, bool)| Subject {
                tenant: (!none.0).then_some(names[at].as_str()),
                principal: &names[at + 1],
                agent: (!none.1).then_some(names[at + 2].as_str()),
                server: &names[at + 3],
                tool: Some(&names[at + 4]),
                method: "tools/call",
                workflow: &names[at + 5],
            };
            let (one, two) = (subject(0, (none[0], none[1])), subject(6, (none[2], none[3])));
            let rule = rule(&per);
            let value = |s: &Subject<'_>, part: &Part| match part {
                Part::Tenant => format!("{:?}", s.tenant),
                Part::Principal => format!("{:?}", (s.tenant, s.principal)),
                Part::Agent => format!("{:?}", s.agent),
                Part::Server => s.server.to_owned(),
                Part::Tool => format!("{:?}", (s.server, s.tool)),
                Part::Workflow => format!("{:?}", (s.tenant, s.principal, s.workflow)),
            };
            let alike = per.iter().all(|part| value(&one, part) == value(&two, part));
            let (one_key, two_key) = (Key::of(&rule, &one), Key::of(&rule, &two));
            prop_assert_eq!(one_key.own == two_key.own, alike);
            let (source, bound, name, parts) = told(&one_key.own).expect("a key is read again");
            prop_assert_eq!((source, bound, name), (Source::Configuration, 'r', "r"));
            prop_assert_eq!(parts.iter().map(|(part, _)| *part).collect::<Vec<_>>(), per);
        }

        #[test]
        fn what_is_no_key_breaks_nothing(text in ".{0,30}") {
            let _ = told(&text);
        }
    }

    #[test]
    fn a_name_without_end_has_a_key_with_one() {
        let long = "x".repeat(1 << 20);
        let subject = Subject {
            tenant: None,
            principal: "p",
            agent: None,
            server: "s",
            tool: Some(&long),
            method: "tools/call",
            workflow: &long,
        };
        let key = Key::of(&rule(&[Part::Tool, Part::Workflow]), &subject);
        assert!(key.own.len() < 100 && key.shared == Some(key.own.clone()));
    }
}
