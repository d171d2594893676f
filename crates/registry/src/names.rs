//! Names of subjects, and the contexts in which they lie.
//!
//! `:.context:subject` is a subject in a context; one without that prefix is in the default context, which is `.`. What is
//! kept and answered is the qualified name, in which the default context is left out, as Confluent's registry does.

use std::fmt;

use crate::Refusal;

/// The context of subjects that name none.
pub const DEFAULT_CONTEXT: &str = ".";
/// The context whose configuration stands behind every other's.
pub(crate) const GLOBAL_CONTEXT: &str = ".__GLOBAL";
/// Longest qualified name of a subject, in bytes.
const NAME_BYTES_MAX: usize = 512;

/// A subject in its context. An empty subject stands for the context itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Subject {
    context: String,
    name: String,
}

impl Subject {
    /// Reads a name as it stands in a path or a record.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        if let Some(rest) = text.strip_prefix(":.") {
            let (context, name) = rest.split_once(':').unwrap_or((rest, ""));
            return Self { context: format!(".{context}"), name: name.to_owned() };
        }
        Self { context: DEFAULT_CONTEXT.to_owned(), name: text.to_owned() }
    }

    /// A context without a subject.
    #[must_use]
    pub fn context_only(context: &str) -> Self {
        Self { context: context.to_owned(), name: String::new() }
    }

    /// The same name in another context.
    #[must_use]
    pub fn within(&self, context: &str) -> Self {
        Self { context: context.to_owned(), name: self.name.clone() }
    }

    /// A name that schemas can be registered under.
    ///
    /// # Errors
    /// An empty or reserved name, one with control characters, and one that is too long.
    pub fn checked(text: &str) -> Result<Self, Refusal> {
        let subject = Self::parse(text);
        let reserved = ["__GLOBAL", "__EMPTY"].contains(&subject.name.as_str());
        let long = text.len() > NAME_BYTES_MAX;
        if subject.name.is_empty() || reserved || long || text.chars().any(char::is_control) {
            return Err(Refusal::invalid_subject(&text.chars().take(64).collect::<String>()));
        }
        Ok(subject)
    }

    /// The context, with its dot.
    #[must_use]
    pub fn context(&self) -> &str {
        &self.context
    }

    /// The name within the context.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it lies in the default context.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.context == DEFAULT_CONTEXT
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_default() { f.write_str(&self.name) } else { write!(f, ":{}:{}", self.context, self.name) }
    }
}

/// What a listing is asked for: subjects whose names begin so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Prefix {
    /// The context; `None` is every one.
    context: Option<String>,
    name: String,
}

impl Prefix {
    /// Reads `subjectPrefix`: `:*:` is every context.
    pub(crate) fn parse(text: &str) -> Self {
        if let Some(rest) = text.strip_prefix(":*:") {
            return Self { context: None, name: rest.to_owned() };
        }
        let Subject { context, name } = Subject::parse(text);
        Self { context: Some(context), name }
    }

    /// Whether a subject is meant.
    pub(crate) fn takes(&self, subject: &Subject) -> bool {
        self.context.as_ref().is_none_or(|context| *context == subject.context) && subject.name.starts_with(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_read_and_written_and_the_default_one_is_left_out() {
        for (text, context, name, shown) in [
            ("orders-value", ".", "orders-value", "orders-value"),
            (":.:orders-value", ".", "orders-value", "orders-value"),
            (":.eu:orders-value", ".eu", "orders-value", ":.eu:orders-value"),
            (":.eu:a:b", ".eu", "a:b", ":.eu:a:b"),
            (":.eu:", ".eu", "", ":.eu:"),
            (":odd:x", ".", ":odd:x", ":odd:x"),
        ] {
            let subject = Subject::parse(text);
            assert_eq!((subject.context(), subject.name(), subject.to_string().as_str()), (context, name, shown));
        }
    }

    #[test]
    fn names_that_cannot_be_subjects_are_refused() {
        for text in ["", ":.eu:", "__GLOBAL", "__EMPTY", "a\u{0}b", &"x".repeat(513)] {
            assert_eq!(Subject::checked(text).map_err(|refusal| refusal.code), Err(42208), "{text:?}");
        }
        assert!(Subject::checked("a/b c").is_ok());
    }

    #[test]
    fn a_prefix_is_of_one_context_or_of_all() {
        let (here, there) = (Subject::parse("orders"), Subject::parse(":.eu:orders"));
        let takes = |text: &str| (Prefix::parse(text).takes(&here), Prefix::parse(text).takes(&there));
        assert_eq!(takes(":*:"), (true, true));
        assert_eq!(takes(":*:x"), (false, false));
        assert_eq!(takes(""), (true, false));
        assert_eq!(takes(":.eu:ord"), (false, true));
    }
}
