//! Words that speak to a model, as data: `rules/instructions.txt`.

use std::sync::LazyLock;

use aho_corasick::AhoCorasick;
use sha2::{Digest, Sha256};
use unicode_normalization::UnicodeNormalization;

use crate::alerts::is_hidden;

const RULES: &str = include_str!("../rules/instructions.txt");

struct Rules {
    phrases: Vec<&'static str>,
    finder: AhoCorasick,
    version: String,
}

static COMPILED: LazyLock<Rules> = LazyLock::new(|| {
    let phrases: Vec<_> =
        RULES.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let finder = AhoCorasick::new(&phrases).expect("a few dozen phrases make a small automaton");
    let digest = Sha256::digest(RULES.as_bytes());
    let version = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    Rules { phrases, finder, version }
});

/// Which rules are in force: the beginning of SHA-256 over their file.
#[must_use]
pub fn rules_version() -> &'static str {
    &COMPILED.version
}

/// The phrases that a text holds, each once.
pub(crate) fn found(text: &str) -> Vec<&'static str> {
    let plain = plain(text);
    let mut seen: Vec<_> = COMPILED
        .finder
        .find_overlapping_iter(&plain)
        .map(|found| COMPILED.phrases[found.pattern().as_usize()])
        .collect();
    seen.sort_unstable();
    seen.dedup();
    seen
}

/// As a reader would take it: compatibility forms resolved, lower case, white space as one space, nothing invisible.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.nfkc().filter(|c| !is_hidden(*c)).flat_map(char::to_lowercase) {
        if !c.is_whitespace() {
            out.push(if c == '\u{2019}' { '\'' } else { c });
        } else if !out.ends_with(' ') {
            out.push(' ');
        }
    }
    out
}
