//! The list of tests of others that are known not to pass, `known.md`.
//!
//! Who calls it: the count of each suite. It guarantees that a line without a reason is refused. A `*` in a name stands for any
//! characters.

use anyhow::bail;

/// One line of the list.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) suite: String,
    pub(super) test: String,
    pub(super) reason: String,
}

impl Known {
    /// Whether it stands for one of these.
    pub(super) fn covers_any<'t>(&self, mut tests: impl Iterator<Item = &'t (String, String)>) -> bool {
        tests.any(|(test, _)| fits(&self.test, test))
    }
}

/// The list.
pub(super) fn read() -> anyhow::Result<Vec<Known>> {
    parse(include_str!("known.md"))
}

fn parse(text: &str) -> anyhow::Result<Vec<Known>> {
    let rows = text.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        match cells[..] {
            [suite, test, reason] if !suite.is_empty() && !test.is_empty() && !reason.is_empty() => Ok(Known {
                suite: suite.to_owned(),
                test: test.trim_matches('`').to_owned(),
                reason: reason.to_owned(),
            }),
            _ => bail!("suites/known.md: `{line}` is not suite, test, reason"),
        }
    })
    .collect()
}

/// Why a test is known not to pass.
pub(super) fn reason<'k>(known: &'k [Known], suite: &str, test: &str) -> Option<&'k str> {
    known.iter().find(|line| line.suite == suite && fits(&line.test, test)).map(|line| line.reason.as_str())
}

/// Whether a name is what a pattern says: what stands between its `*` must come in that order, its ends at the ends.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((begin, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut left) = name.strip_prefix(begin) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = left.find(part) else { return false };
        left = &left[at + part.len()..];
    }
    left.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::{fits, parse, read, reason};

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, name, is_one) in [
            ("TestA", "TestA", true),
            ("TestA", "TestAB", false),
            ("TestA*", "TestA", true),
            ("TestA/*/848", "TestA/range/848", true),
            ("TestA/*/848", "TestA/range/848/static", false),
            ("TestA/*/848*", "TestA/range/848/static", true),
            ("*", "anything", true),
            ("a*b*c", "a-c-b", false),
        ] {
            assert_eq!(fits(pattern, name), is_one, "{pattern} {name}");
        }
    }

    #[test]
    fn a_line_without_a_reason_is_refused() {
        let head = "| suite | test | reason |\n| --- | --- | --- |\n";
        assert!(parse(&format!("{head}| franz-go | `TestA` | |\n")).is_err());
        let known = parse(&format!("{head}| franz-go | `TestA/*` | no share groups |\n")).expect("read");
        assert_eq!(reason(&known, "franz-go", "TestA/one"), Some("no share groups"));
        assert_eq!(reason(&known, "franz-go", "TestB"), None);
        assert_eq!(reason(&known, "sarama", "TestA/one"), None);
    }

    #[test]
    fn each_line_of_the_list_names_a_suite_that_there_is() {
        for line in read().expect("suites/known.md") {
            let is_there = super::super::SUITES.iter().any(|suite| suite.name == line.suite);
            assert!(is_there, "suites/known.md: there is no suite `{}`", line.suite);
        }
    }
}
