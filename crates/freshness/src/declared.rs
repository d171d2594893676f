//! What a tool reads, writes and depends on, as somebody declared it.

use serde::Deserialize;

use crate::{Roots, Template, TemplateError};

/// A tool's declared dependence.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Declared {
    /// What its result tells the agent.
    pub reads: Vec<Mention>,
    /// What it changes.
    pub writes: Vec<Mention>,
    /// What must be fresh for it to be sensible.
    pub depends: Vec<Mention>,
}

/// A resource that a tool mentions, and where its version stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mention {
    uri: Template,
    version: Option<Template>,
}

/// As it is written: `"order://{arguments/id}"`, or `{ uri = "…", version = "{result/…}" }`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(untagged)]
pub enum Dependence {
    /// The URI alone.
    Uri(String),
    /// The URI with a version.
    Full {
        /// The URI.
        uri: String,
        /// The version.
        version: Option<String>,
    },
}

impl Dependence {
    /// Reads the templates.
    ///
    /// # Errors
    /// Where one is none, or where a `*` of the version has none in the URI to go with.
    pub fn mention(&self) -> Result<Mention, TemplateError> {
        let (uri, version) = match self {
            Self::Uri(uri) => (uri, None),
            Self::Full { uri, version } => (uri, version.as_ref()),
        };
        Ok(Mention { uri: uri.parse()?, version: version.map(|text| text.parse()).transpose()? })
    }
}

/// A mention in one call: which resource, at which version where that is said.
pub type Named = (String, Option<String>);

impl Mention {
    /// Whether it can only be known from the result.
    #[must_use]
    pub fn needs_result(&self) -> bool {
        self.uri.needs_result()
    }

    /// The resources that it stands for in a call. `None` where the URI cannot be filled in: what it would be is unknown.
    #[must_use]
    pub fn named(&self, roots: Roots<'_>) -> Option<Vec<Named>> {
        let count = if self.uri.has_each() { self.uri.each(roots)? } else { 1 };
        (0..count)
            .map(|index| {
                let uri = self.uri.fill(roots, index, true)?;
                let version = self.version.as_ref().and_then(|version| version.fill(roots, index, false));
                Some((uri, version))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn mention(value: Value) -> Mention {
        serde_json::from_value::<Dependence>(value).expect("a dependence").mention().expect("templates")
    }

    #[test]
    fn a_star_stands_for_each_element_and_the_version_goes_with_it() {
        let found = mention(json!({"uri": "o://{result/orders/*/id}", "version": "{result/orders/*/etag}"}));
        let result = json!({"orders": [{"id": "a", "etag": "1"}, {"id": "b"}, {"id": "c/", "etag": "3 x"}]});
        let named = found.named(Roots { result: Some(&result), ..Roots::default() }).expect("three");
        let expected = [("o://a", Some("1")), ("o://b", None), ("o://c%2F", Some("3 x"))];
        let expected: Vec<Named> =
            expected.into_iter().map(|(uri, version)| (uri.to_owned(), version.map(str::to_owned))).collect();
        assert_eq!(named, expected);
        assert!(found.needs_result());
        assert_eq!(found.named(Roots::default()), None);
    }

    #[test]
    fn one_that_cannot_be_named_makes_the_whole_unknown() {
        let found = mention(json!("o://{arguments/ids/*}"));
        let named = |arguments: Value| found.named(Roots { arguments: Some(&arguments), ..Roots::default() });
        assert_eq!(named(json!({"ids": ["1", 2]})).map(|all| all.len()), Some(2));
        assert_eq!(named(json!({"ids": ["1", null]})), None);
        assert_eq!(named(json!({"ids": []})), Some(Vec::new()));
        assert_eq!(named(json!({})), None);
    }
}
