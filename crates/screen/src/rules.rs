//! Rules as data: the file that says what detectors look for, with a version and a digest.
//!
//! The built-in file is `rules/default.toml`; a user puts a changed copy in its place. Rules that cannot be used are
//! refused at load, with what to do.

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::patterns::Patterns;

/// Longest rules file, in bytes.
const FILE_BYTES_MAX: usize = 1 << 20;
/// Most rules of a file.
const RULES_MAX: usize = 2_048;
/// Longest id of a rule.
const ID_BYTES_MAX: usize = 40;
/// The rules that come with Cairn.
const DEFAULT: &str = include_str!("../rules/default.toml");

/// Why a rules file was refused.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// It is longer than is read.
    #[error(
        "the rules file has {bytes} bytes, and {FILE_BYTES_MAX} are the most: split what it looks for, or shorten it"
    )]
    Long {
        /// Its length.
        bytes: usize,
    },
    /// It is no rules file.
    #[error("the rules file cannot be read: {0}")]
    Form(#[from] toml::de::Error),
    /// There are too many.
    #[error("the rules file has {count} rules, and {RULES_MAX} are the most")]
    Many {
        /// How many.
        count: usize,
    },
    /// A rule says something that cannot be.
    #[error("rule {id:?}: {what}")]
    Rule {
        /// Its id.
        id: String,
        /// What is wrong, and what to do.
        what: String,
    },
}

/// A rules file, ready for use.
#[derive(Clone, Debug)]
pub struct Rules {
    version: String,
    digest: String,
    pub(crate) patterns: Patterns,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: String,
    #[serde(default)]
    names: NamesSection,
    #[serde(default)]
    rules: Vec<RuleSection>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct NamesSection {
    pub(crate) always: Vec<String>,
    pub(crate) entropy: Vec<String>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RuleClass {
    Secret,
    Personal,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ShapeName {
    At,
    Plus,
    Digits,
    Colons,
    Country,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CheckName {
    Luhn,
    Iban,
    Ipv4,
    Ipv6,
    Ssn,
    Entropy,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RuleSection {
    pub(crate) id: String,
    #[allow(dead_code, reason = "for the people and tools that read the file; a rule without it is refused")]
    pub(crate) class: RuleClass,
    pub(crate) regex: String,
    #[serde(default)]
    pub(crate) keywords: Vec<String>,
    pub(crate) shape: Option<ShapeName>,
    pub(crate) digits: Option<u8>,
    pub(crate) dots: Option<u8>,
    pub(crate) leads: Option<String>,
    #[serde(default)]
    pub(crate) apart: bool,
    pub(crate) check: Option<CheckName>,
    pub(crate) entropy: Option<f64>,
    pub(crate) before: Option<usize>,
    pub(crate) after: Option<usize>,
}

impl Rules {
    /// The rules that come with Cairn.
    #[must_use]
    pub fn embedded() -> Self {
        Self::read(DEFAULT).expect("a test reads the embedded rules")
    }

    /// Rules from the text of a file.
    ///
    /// # Errors
    /// The file is no rules file, or a rule cannot be used.
    pub fn read(text: &str) -> Result<Self, RulesError> {
        if text.len() > FILE_BYTES_MAX {
            return Err(RulesError::Long { bytes: text.len() });
        }
        let file: File = toml::from_str(text)?;
        if file.rules.len() > RULES_MAX {
            return Err(RulesError::Many { count: file.rules.len() });
        }
        let mut ids = std::collections::HashSet::new();
        for rule in &file.rules {
            let refused = |what: &str| RulesError::Rule { id: rule.id.clone(), what: what.to_owned() };
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            if rule.id.is_empty() || rule.id.len() > ID_BYTES_MAX || !rule.id.bytes().all(plain) {
                return Err(refused("an id is 1 to 40 lower-case letters, digits and '-'"));
            }
            if !ids.insert(rule.id.as_str()) {
                return Err(refused("another rule has this id: choose one that is free"));
            }
            if rule.keywords.is_empty() && rule.shape.is_none() {
                return Err(refused("give it keywords or a shape, so that not every text has to be searched"));
            }
            if !rule.keywords.is_empty() && rule.shape.is_some() {
                return Err(refused("keywords and a shape are two rules: split it"));
            }
            if rule.keywords.iter().any(|keyword| keyword.len() < 3 || !keyword.is_ascii()) {
                return Err(refused("a keyword has three or more characters, all of them ASCII"));
            }
            if (rule.check == Some(CheckName::Entropy)) != rule.entropy.is_some() {
                return Err(refused("check = \"entropy\" and entropy = <bits> go together"));
            }
            let of_digits = rule.digits.is_some() || rule.dots.is_some() || rule.leads.is_some() || rule.apart;
            if of_digits && rule.shape != Some(ShapeName::Digits) {
                return Err(refused("digits, dots, leads and apart are for shape = \"digits\""));
            }
        }
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(text.as_bytes())));
        Ok(Self { version: file.version, digest, patterns: Patterns::compile(&file.names, &file.rules)? })
    }

    /// The file's own version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// `sha256:<hex>` over the file.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        Rules::read(text).expect_err("it must not be accepted").to_string()
    }

    #[test]
    fn the_embedded_rules_are_usable_and_have_a_name() {
        let rules = Rules::embedded();
        assert_eq!(rules.version(), "1");
        assert!(rules.digest().starts_with("sha256:"));
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_what_to_do() {
        let rule = |text: &str| format!("version = \"1\"\n[[rules]]\nclass = \"secret\"\n{text}");
        assert!(fault("rules = 1").contains("cannot be read"));
        assert!(fault(&rule("id = \"A\"\nregex = 'x'\nkeywords = [\"xxx\"]")).contains("lower-case"));
        assert!(fault(&rule("id = \"a\"\nregex = 'x'")).contains("keywords or a shape"));
        assert!(fault(&rule("id = \"a\"\nregex = '('\nkeywords = [\"xxx\"]")).contains("regex"));
        assert!(fault(&rule("id = \"a\"\nregex = 'x'\nkeywords = [\"xx\"]")).contains("three or more"));
        assert!(
            fault(&rule("id = \"a\"\nregex = 'x'\nkeywords = [\"xxx\"]\ncheck = \"entropy\"")).contains("go together")
        );
        assert!(fault(&rule("id = \"a\"\nregex = 'x*'\nkeywords = [\"xxx\"]")).contains("nothing"));
        let twice = "id = \"a\"\nregex = 'xx'\nkeywords = [\"xxx\"]\n";
        assert!(fault(&(rule(twice) + "[[rules]]\nclass = \"secret\"\n" + twice)).contains("another rule"));
    }
}
