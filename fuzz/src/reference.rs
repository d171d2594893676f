//! JSON as somebody else reads it: serde_json finds where things are, and nothing of Cairn's takes part.
//!
//! What Cairn's own readers accept is held against this. Numbers are kept as they were written, and members in their
//! order with duplicates, because these are what two readers could differ in.

use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Deeper documents are not read: nothing of Cairn's reads deeper either.
pub const DEPTH_MAX: usize = 200;

/// A JSON value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Tree {
    /// `null`, `true` or `false`.
    Word(String),
    /// A number as it was written.
    Number(String),
    /// A string, unescaped.
    Text(String),
    /// An array.
    List(Vec<Tree>),
    /// An object: every member in its order.
    Object(Vec<(String, Tree)>),
}

/// Why there is no tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoTree {
    /// It is no JSON.
    Syntax,
    /// It is nested deeper than [`DEPTH_MAX`].
    Depth,
}

impl Tree {
    /// Reads a document.
    ///
    /// # Errors
    /// It is none, or it is too deep.
    pub fn read(document: &[u8]) -> Result<Self, NoTree> {
        let raw: &RawValue = serde_json::from_slice(document).map_err(|_| NoTree::Syntax)?;
        Self::of(raw.get().trim(), 0)
    }

    fn of(text: &str, depth: usize) -> Result<Self, NoTree> {
        let syntax = |_| NoTree::Syntax;
        match text.as_bytes().first() {
            Some(b'{' | b'[') if depth == DEPTH_MAX => Err(NoTree::Depth),
            Some(b'{') => {
                let Members(members) =
                    serde_json::Deserializer::from_str(text).deserialize_map(Read).map_err(syntax)?;
                let read = |(name, raw): (String, &RawValue)| Ok((name, Self::of(raw.get(), depth + 1)?));
                Ok(Self::Object(members.into_iter().map(read).collect::<Result<_, _>>()?))
            }
            Some(b'[') => {
                let items: Vec<&RawValue> = serde_json::from_str(text).map_err(syntax)?;
                Ok(Self::List(items.into_iter().map(|raw| Self::of(raw.get(), depth + 1)).collect::<Result<_, _>>()?))
            }
            Some(b'"') => serde_json::from_str(text).map(Self::Text).map_err(syntax),
            Some(b'-' | b'0'..=b'9') => Ok(Self::Number(text.to_owned())),
            _ => Ok(Self::Word(text.to_owned())),
        }
    }

    /// The value of a member, where this is an object that has it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Self> {
        let Self::Object(members) = self else { return None };
        members.iter().find(|(own, _)| own == name).map(|(_, value)| value)
    }

    /// The text of a string.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The names of the members, in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let members = if let Self::Object(members) = self { members.as_slice() } else { &[] };
        members.iter().map(|(name, _)| name.as_str())
    }

    /// Whether an object anywhere in it has two members of one name.
    #[must_use]
    pub fn has_duplicates(&self) -> bool {
        match self {
            Self::Object(members) => {
                let mut names: Vec<_> = self.names().collect();
                names.sort_unstable();
                names.windows(2).any(|pair| pair[0] == pair[1])
                    || members.iter().any(|(_, value)| value.has_duplicates())
            }
            Self::List(items) => items.iter().any(Self::has_duplicates),
            _ => false,
        }
    }

    /// How deeply arrays and objects nest; 0 for anything else.
    #[must_use]
    pub fn depth(&self) -> usize {
        match self {
            Self::Object(members) => 1 + members.iter().map(|(_, value)| value.depth()).max().unwrap_or_default(),
            Self::List(items) => 1 + items.iter().map(Self::depth).max().unwrap_or_default(),
            _ => 0,
        }
    }

    /// The same with members in one order: two trees without duplicates mean the same where these are equal.
    #[must_use]
    pub fn sorted(self) -> Self {
        match self {
            Self::Object(members) => {
                let mut members: Vec<_> = members.into_iter().map(|(name, value)| (name, value.sorted())).collect();
                members.sort_by(|a, b| a.0.cmp(&b.0));
                Self::Object(members)
            }
            Self::List(items) => Self::List(items.into_iter().map(Self::sorted).collect()),
            other => other,
        }
    }
}

struct Members<'de>(Vec<(String, &'de RawValue)>);

struct Read;

impl<'de> Visitor<'de> for Read {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Members(members))
    }
}
