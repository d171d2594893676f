//! `@mask`: what of a call the record holds less of. The traffic stays as it is.
//!
//! | item | means |
//! | --- | --- |
//! | `none`, `digest` | of arguments and result nothing is kept, or a digest |
//! | `arguments=none`, `result=digest`, … | the same for one of them |
//! | `arguments/card/number`, `result/structuredContent/*/iban` | the value there is masked in what is kept |
//! | `detected` | what detectors find in arguments and result is masked in what is kept |
//!
//! Items have commas between them. Several masks make one that hides whatever one of them hides.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::pointer;
use crate::near::nearest;

/// Most fields that one policy masks.
const FIELDS_MAX: usize = 64;
/// The words that an item may be or begin with.
const WORDS: [&str; 5] = ["none", "digest", "detected", "arguments", "result"];

/// What the record holds of a payload; the first is the strictest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeptAs {
    /// Nothing, where the event can do without; else a digest.
    None,
    /// A keyed digest.
    Digest,
    /// Whatever the configuration says.
    #[default]
    Configured,
}

/// How much stricter than configured the record of one call is.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize, Deserialize)]
pub struct Masking {
    /// What is kept of the arguments.
    pub arguments: KeptAs,
    /// What is kept of the result.
    pub result: KeptAs,
    /// Whether what detectors find in either is masked.
    pub detected: bool,
    /// Pointers into the arguments whose values are masked; `*` stands for any name or index.
    pub argument_fields: BTreeSet<String>,
    /// The same into the result.
    pub result_fields: BTreeSet<String>,
}

impl Masking {
    /// Whether nothing is masked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Hides what `other` hides, too. Says whether that is more than before.
    pub fn join(&mut self, other: &Self) -> bool {
        let before = self.clone();
        self.arguments = self.arguments.min(other.arguments);
        self.result = self.result.min(other.result);
        self.detected |= other.detected;
        self.argument_fields.extend(other.argument_fields.iter().cloned());
        self.result_fields.extend(other.result_fields.iter().cloned());
        *self != before
    }

    /// Reads the annotation.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut masking = Self::default();
        for item in text.split(',').map(str::trim) {
            masking.item(item).map_err(|what| format!("@mask({text:?}): {what}"))?;
        }
        if masking.argument_fields.len() + masking.result_fields.len() > FIELDS_MAX {
            return Err(format!("@mask names more than {FIELDS_MAX} fields: mask what they are in"));
        }
        Ok(masking)
    }

    fn item(&mut self, item: &str) -> Result<(), String> {
        if let Some(pointer) = item.strip_prefix("arguments").filter(|rest| rest.starts_with('/')) {
            pointer::segments(pointer)?;
            self.argument_fields.insert(pointer.to_owned());
            return Ok(());
        }
        if let Some(pointer) = item.strip_prefix("result").filter(|rest| rest.starts_with('/')) {
            pointer::segments(pointer)?;
            self.result_fields.insert(pointer.to_owned());
            return Ok(());
        }
        let kept = |word: &str| match word.trim() {
            "none" => Ok(KeptAs::None),
            "digest" => Ok(KeptAs::Digest),
            other => Err(format!("{other:?} is neither none nor digest")),
        };
        match item.split_once('=').map(|(what, how)| (what.trim(), how)) {
            Some(("arguments", how)) => self.arguments = self.arguments.min(kept(how)?),
            Some(("result", how)) => self.result = self.result.min(kept(how)?),
            None if item == "detected" => self.detected = true,
            None if item == "none" || item == "digest" => {
                let kept = kept(item)?;
                (self.arguments, self.result) = (self.arguments.min(kept), self.result.min(kept));
            }
            _ => {
                let near = nearest(item.split(['/', '=']).next().unwrap_or(item), WORDS);
                return Err(format!(
                    "{item:?} says nothing that can be masked{near}: write none, digest, detected, arguments=digest, arguments/pointer or result/pointer"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_say_what_is_hidden() {
        let masking =
            Masking::parse("arguments/card/number, result=digest ,detected,result/content/*/text").expect("read");
        assert_eq!((masking.arguments, masking.result, masking.detected), (KeptAs::Configured, KeptAs::Digest, true));
        assert_eq!(masking.argument_fields, BTreeSet::from(["/card/number".to_owned()]));
        assert_eq!(masking.result_fields, BTreeSet::from(["/content/*/text".to_owned()]));
        let whole = Masking::parse("digest, arguments=none").expect("read");
        assert_eq!((whole.arguments, whole.result), (KeptAs::None, KeptAs::Digest));
    }

    #[test]
    fn what_joins_hides_what_either_hides() {
        let (one, other) =
            (Masking::parse("arguments/a, result=none"), Masking::parse("digest, arguments/b, detected"));
        let (one, other) = (one.expect("read"), other.expect("read"));
        let (mut left, mut right) = (one.clone(), other.clone());
        assert!(left.join(&other) && right.join(&one));
        assert_eq!(left, right);
        assert_eq!((left.arguments, left.result, left.detected), (KeptAs::Digest, KeptAs::None, true));
        assert_eq!(left.argument_fields.len(), 2);
        assert!(!left.join(&one) && !left.join(&Masking::default()));
    }

    #[test]
    fn what_hides_nothing_is_refused() {
        for (text, said) in [
            ("", "says nothing"),
            ("reference", "says nothing"),
            ("arguments", "arguments/pointer"),
            ("argument/a", "did you mean arguments?"),
            ("arguments=reference", "neither none nor digest"),
            ("inputs=none", "says nothing"),
            ("arguments/a~", "~0"),
            ("none,,digest", "says nothing"),
        ] {
            let error = Masking::parse(text).expect_err(text);
            assert!(error.contains(said), "{text}: {error}");
        }
        let many: Vec<String> = (0..=FIELDS_MAX).map(|at| format!("arguments/{at}")).collect();
        assert!(Masking::parse(&many.join(",")).is_err());
    }
}
