//! `@rewrite`: what is changed in the arguments of a `tools/call` before it goes on. Nothing else of a call is ever rewritten.
//!
//! | step | means |
//! | --- | --- |
//! | `remove /debug` | the value goes, where it is |
//! | `replace /limit = 100` | the value is another, where it is |
//! | `set /limit = 100` | the value is that, whether it was there or not; what it stands in must be there |
//! | `redact /comment`, `redact` | what detectors find in the value, or anywhere, is masked |
//!
//! Steps have semicolons between them and are done in order; those that redact come last. `*` stands for any name or
//! index, but not in `set`. A pointer with blanks or semicolons in it is written as a JSON string.
//!
//! Steps of several policies are all done. Where two of them do different things to one place, or to one that is in the
//! other, nobody can say which is meant: then the call is denied.

use std::fmt;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::{
    pointer,
    rewritten::{Action, Fault, rewritten},
};

/// Most steps of one policy.
const STEPS_MAX: usize = 32;
/// Longest value that is put in, in bytes.
const VALUE_BYTES_MAX: usize = 4_096;

/// The steps of one policy.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Steps(Vec<Step>);

/// One step, of whichever policy.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Step {
    place: Vec<String>,
    action: Action,
}

/// What several policies together want rewritten.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Rewriting {
    steps: Vec<(String, Step)>,
}

/// Why arguments could not be rewritten. Shows nothing of them.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("policy {policy} cannot {step}: {why}")]
pub struct RewriteFault {
    /// The policy.
    pub policy: String,
    step: String,
    why: Fault,
}

impl Steps {
    /// Reads the annotation.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let within = |what: String| format!("@rewrite({text:?}): {what}");
        let mut steps = Vec::new();
        let mut left = text.trim();
        loop {
            let (step, rest) = step(left).map_err(within)?;
            steps.push(step);
            left = rest.trim_start();
            match left.strip_prefix(';').map(str::trim_start) {
                Some("") => break,
                Some(rest) => left = rest,
                None if left.is_empty() => break,
                None => return Err(within(format!("{left:?} is too much: put a ; between steps"))),
            }
        }
        if steps.len() > STEPS_MAX {
            return Err(format!("@rewrite has more than {STEPS_MAX} steps"));
        }
        Ok(Self(steps))
    }
}

impl Rewriting {
    /// The steps of all policies as one, or which two of them contradict each other.
    pub(crate) fn joined(all: &[(&String, &Steps)]) -> Result<Self, [String; 2]> {
        let mut steps: Vec<(String, Step)> = Vec::new();
        for (policy, own) in all {
            for step in &own.0 {
                let against = steps.iter().find(|(other, known)| other != *policy && step.contradicts(known));
                if let Some((other, _)) = against {
                    return Err([other.clone(), (*policy).clone()]);
                }
                steps.push(((*policy).clone(), step.clone()));
            }
        }
        // What is put in is masked too.
        steps.sort_by_key(|(_, step)| step.action == Action::Redact);
        Ok(Self { steps })
    }

    /// The policies that want it, sorted, each once.
    #[must_use]
    pub fn policies(&self) -> Vec<String> {
        let mut policies: Vec<String> = self.steps.iter().map(|(policy, _)| policy.clone()).collect();
        policies.sort_unstable();
        policies.dedup();
        policies
    }

    /// The arguments rewritten, or nothing where that changes nothing. `redact` masks a JSON value, or gives nothing where
    /// there is nothing to mask. What is not rewritten stays byte for byte.
    ///
    /// # Errors
    /// [`RewriteFault`]: a step cannot be done, and none is.
    pub fn apply(
        &self,
        arguments: &[u8],
        redact: &dyn Fn(&[u8]) -> Option<Vec<u8>>,
    ) -> Result<Option<Bytes>, RewriteFault> {
        let mut current: Option<Vec<u8>> = None;
        for (policy, step) in &self.steps {
            let now = current.as_deref().unwrap_or(arguments);
            let fault = |why| RewriteFault { policy: policy.clone(), step: step.to_string(), why };
            if let Some(next) = rewritten(now, &step.place, &step.action, redact).map_err(fault)? {
                current = Some(next);
            }
        }
        Ok(current.map(Bytes::from).filter(|changed| changed != arguments))
    }
}

impl Step {
    /// Whether both cannot be meant: they do different things to one place, or one changes what the other's place is in.
    fn contradicts(&self, other: &Self) -> bool {
        if self.action == Action::Redact || other.action == Action::Redact {
            return false;
        }
        let overlap =
            self.place.iter().zip(&other.place).all(|(one, other)| one == other || one == "*" || other == "*");
        overlap && (self.place.len() != other.place.len() || self.action != other.action)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.action.verb())?;
        let escaped = self.place.iter().map(|segment| segment.replace('~', "~0").replace('/', "~1"));
        let place: String = escaped.map(|segment| format!("/{segment}")).collect();
        if place.is_empty() { Ok(()) } else { write!(f, " {place}") }
    }
}

/// The first step of a text, and what is left of it.
fn step(text: &str) -> Result<(Step, &str), String> {
    let end = text.find([' ', ';', '\t', '\n']).unwrap_or(text.len());
    let (verb, rest) = text.split_at(end);
    let (place, rest) = place(rest.trim_start())?;
    let needs_place = |place: &Vec<String>| match place.is_empty() {
        true => Err(format!("{verb} wants a JSON pointer, such as {verb} /limit")),
        false => Ok(()),
    };
    let (action, rest) = match verb {
        "redact" => (Action::Redact, rest),
        "remove" => {
            needs_place(&place)?;
            (Action::Remove, rest)
        }
        "replace" | "set" => {
            needs_place(&place)?;
            let (value, rest) = value(verb, rest)?;
            (if verb == "set" { Action::Set(value) } else { Action::Replace(value) }, rest)
        }
        other => {
            let near = crate::near::nearest(other, ["remove", "replace", "set", "redact"]);
            return Err(format!("{other:?} is no step{near}: write remove, replace, set or redact"));
        }
    };
    if matches!(action, Action::Set(_)) && place.iter().any(|segment| segment == "*") {
        return Err("set wants one place, without *: write replace".to_owned());
    }
    Ok((Step { place, action }, rest))
}

/// The pointer at the beginning of a text: bare, or as a JSON string; the whole where there is none.
fn place(text: &str) -> Result<(Vec<String>, &str), String> {
    if text.starts_with('"') {
        let (pointer, rest) = json::<String>(text).ok_or_else(|| format!("{text:?} begins with no JSON string"))?;
        return Ok((pointer::segments(&pointer)?, rest));
    }
    let end = text.find([' ', ';', '=', '\t', '\n']).unwrap_or(text.len());
    Ok((pointer::segments(&text[..end])?, &text[end..]))
}

/// `= <JSON>`
fn value<'t>(verb: &str, text: &'t str) -> Result<(Box<str>, &'t str), String> {
    let text = text.trim_start();
    let text = text.strip_prefix('=').ok_or_else(|| format!("{verb} wants a value: write {verb} /limit = 100"))?;
    // It goes to the first semicolon behind which there is a whole value: one may be within a string.
    let ends = text.match_indices(';').map(|(at, _)| at).chain([text.len()]);
    let read = |end: usize| Some((serde_json::from_str::<Box<RawValue>>(text[..end].trim()).ok()?, &text[end..]));
    let (value, rest) =
        ends.filter_map(read).next().ok_or_else(|| format!("{:?} begins with no JSON value", text.trim()))?;
    if value.get().len() > VALUE_BYTES_MAX {
        return Err(format!("the value has more than {VALUE_BYTES_MAX} bytes"));
    }
    Ok((value.get().into(), rest))
}

/// A JSON value at the beginning of a text, and what is left of that.
fn json<T: serde::de::DeserializeOwned>(text: &str) -> Option<(T, &str)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<T>();
    let value = values.next()?.ok()?;
    Some((value, &text[values.byte_offset()..]))
}

#[cfg(test)]
mod tests;
