//! One step of a rewriting, done on JSON as it was written: what is not changed keeps its bytes, numbers with all their
//! digits and members in their order.

use std::fmt;

use serde::{
    Deserialize,
    de::{Deserializer, MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// What is done to a value.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Action {
    /// It goes.
    Remove,
    /// It becomes this JSON, where it is.
    Replace(Box<str>),
    /// It becomes this JSON, whether it is or not.
    Set(Box<str>),
    /// What detectors find in it is masked.
    Redact,
}

impl Action {
    pub(super) const fn verb(&self) -> &'static str {
        match self {
            Self::Remove => "remove",
            Self::Replace(_) => "replace",
            Self::Set(_) => "set",
            Self::Redact => "redact",
        }
    }
}

/// Why a step cannot be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The document is none.
    #[error("the arguments are no JSON object")]
    NoObject,
    /// What the value should be set in is missing, or cannot hold it.
    #[error("what it should stand in is not there")]
    NoPlace,
}

type Redact<'r> = &'r dyn Fn(&[u8]) -> Option<Vec<u8>>;

/// The document with the step done; nothing where that changes nothing.
pub(super) fn rewritten(
    document: &[u8],
    place: &[String],
    action: &Action,
    redact: Redact<'_>,
) -> Result<Option<Vec<u8>>, Fault> {
    let whole: &RawValue = serde_json::from_slice(document).map_err(|_| Fault::NoObject)?;
    if !whole.get().starts_with('{') {
        return Err(Fault::NoObject);
    }
    Ok(changed(whole.get(), place, action, redact)?.map(String::into_bytes))
}

/// One value with the step done.
fn changed(raw: &str, place: &[String], action: &Action, redact: Redact<'_>) -> Result<Option<String>, Fault> {
    let Some((segment, rest)) = place.split_first() else {
        return Ok(match action {
            Action::Replace(value) | Action::Set(value) => (raw != &**value).then(|| value.to_string()),
            Action::Redact => redact(raw.as_bytes()).and_then(|masked| String::from_utf8(masked).ok()),
            Action::Remove => None, // done by what holds it
        });
    };
    let sets = matches!(action, Action::Set(_));
    let removes = rest.is_empty() && *action == Action::Remove;
    let mut is_changed = false;
    match raw.as_bytes().first() {
        Some(b'{') => {
            let Members(mut members) = serde_json::from_str(raw).map_err(|_| Fault::NoObject)?;
            let before = members.len();
            if removes {
                members.retain(|(name, _)| !fits(segment, name));
            }
            is_changed |= members.len() != before;
            let mut met = false;
            let mut out = String::with_capacity(raw.len());
            for (name, value) in &members {
                let fits = fits(segment, name);
                met |= fits;
                let next = if fits { changed(value.get(), rest, action, redact)? } else { None };
                is_changed |= next.is_some();
                member(&mut out, name, next.as_deref().unwrap_or(value.get()));
            }
            if sets && !met {
                let Action::Set(value) = action else { unreachable!("it sets") };
                if !rest.is_empty() {
                    return Err(Fault::NoPlace);
                }
                member(&mut out, segment, value);
                is_changed = true;
            }
            if out.is_empty() {
                out.push('{');
            }
            out.push('}');
            Ok(is_changed.then_some(out))
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(raw).map_err(|_| Fault::NoObject)?;
            let mut met = false;
            let mut out = Vec::with_capacity(items.len());
            for (at, item) in items.iter().enumerate() {
                if !fits(segment, &at.to_string()) {
                    out.push(item.get().to_owned());
                    continue;
                }
                met = true;
                if removes {
                    is_changed = true;
                    continue;
                }
                let next = changed(item.get(), rest, action, redact)?;
                is_changed |= next.is_some();
                out.push(next.unwrap_or_else(|| item.get().to_owned()));
            }
            if sets && !met {
                return Err(Fault::NoPlace);
            }
            Ok(is_changed.then(|| format!("[{}]", out.join(","))))
        }
        _ if sets => Err(Fault::NoPlace),
        _ => Ok(None),
    }
}

fn fits(segment: &str, name: &str) -> bool {
    segment == "*" || segment == name
}

fn member(out: &mut String, name: &str, value: &str) {
    out.push(if out.is_empty() { '{' } else { ',' });
    out.push_str(&serde_json::Value::from(name).to_string());
    out.push(':');
    out.push_str(value);
}

/// An object's members in the order in which they were written.
struct Members<'d>(Vec<(String, &'d RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut members = Vec::new();
                while let Some(entry) = map.next_entry::<String, &'de RawValue>()? {
                    members.push(entry);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Read)
    }
}
