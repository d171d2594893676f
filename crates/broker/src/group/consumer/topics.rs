//! What a group sees of the topics there are, and which of them a regular expression names. Used by the group and the driver.
//!
//! An expression is a stranger's: its length, what it compiles to, and the time that it takes are bounded. The engine has no
//! backtracking, so none of them can be made to run for ever.

use std::collections::BTreeSet;

use regex::bytes::{Regex, RegexBuilder};
use uuid::Uuid;

use super::super::GroupError;

/// Bytes of an expression.
pub(crate) const REGEX_BYTES_MAX: usize = 4_096;
/// Bytes that it may compile to, and that its search may keep.
const REGEX_SIZE_MAX: usize = 512 << 10;
/// Brackets in brackets.
const REGEX_DEPTH_MAX: u32 = 64;

/// The topics there are.
pub(crate) trait Topics: Send + Sync {
    /// Changes with every topic that comes, goes or grows.
    fn version(&self) -> u64;

    /// Id and partitions of a topic.
    fn find(&self, name: &str) -> Option<(Uuid, u32)>;
}

/// Compiles an expression that must match a whole name, in the syntax of RE2 as far as Rust's `regex` has it. Names of topics are
/// ASCII, and so are the classes.
pub(crate) fn compile(expression: &str) -> Result<Regex, GroupError> {
    if expression.len() > REGEX_BYTES_MAX {
        return Err(GroupError::InvalidRegex);
    }
    // The expression stands alone first, so that it cannot close our bracket.
    let build = |text: &str| {
        let mut builder = RegexBuilder::new(text);
        builder.unicode(false).size_limit(REGEX_SIZE_MAX).dfa_size_limit(REGEX_SIZE_MAX).nest_limit(REGEX_DEPTH_MAX);
        builder.build().map_err(|_| GroupError::InvalidRegex)
    };
    let plain = literal(expression);
    build(&plain)?;
    build(&format!(r"\A(?:{plain})\z"))
}

/// RE2 has `\Q…\E` for what is to be taken as it stands (Java's `Pattern.quote` makes it); Rust's engine has not.
fn literal(expression: &str) -> String {
    let mut out = String::with_capacity(expression.len());
    let mut rest = expression;
    while let Some((before, quoted)) = rest.split_once(r"\Q") {
        // A backslash that is itself escaped begins nothing.
        let escaped = before.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1;
        out.push_str(before);
        if escaped {
            out.push_str(r"\Q");
            rest = quoted;
            continue;
        }
        let (text, after) = quoted.split_once(r"\E").unwrap_or((quoted, ""));
        out.push_str(&regex::escape(text));
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Topics that a group's expressions name.
pub(crate) type Named = BTreeSet<String>;

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(expression: &str, name: &str) -> bool {
        compile(expression).expect("valid").is_match(name.as_bytes())
    }

    #[test]
    fn an_expression_matches_whole_names() {
        assert!(matches("orders", "orders") && !matches("orders", "orders2") && !matches("orders", "all-orders"));
        assert!(matches("a|b", "b") && !matches("a|b", "ab"));
        assert!(matches("^orders-.*", "orders-7") && matches("orders-.*$", "orders-7"));
        assert!(matches(r"\Qa.b\E-\d+", "a.b-12") && !matches(r"\Qa.b\E-\d+", "axb-12"));
    }

    #[test]
    fn what_is_no_expression_or_too_large_a_one_is_refused() {
        let wide = "a".repeat(REGEX_BYTES_MAX + 1);
        let deep = "(".repeat(100) + &")".repeat(100);
        for bad in ["(", "a)(b", "[z-a]", "(?=a)", r"(a)\1", "((a{1000}){1000}){1000}", r"[a-z]{100000}", &wide, &deep]
        {
            assert!(matches!(compile(bad), Err(GroupError::InvalidRegex)), "{bad}");
        }
    }
}
