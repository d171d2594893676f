//! Replaces chosen values of a message by splicing bytes; every other byte stays as it came. Called wherever Cairn must
//! add or map something: trace context, ids on a shared channel, bridging. Must never reformat what it does not change.

use bytes::Bytes;

use crate::{
    Limits, Message, RawId, Refusal,
    refusal::ParseFault,
    scan::{Slot, Span, scan_value},
    scan_text::quote_into,
};

/// Why an edit cannot be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// A replacement is no JSON value.
    #[error("the new value of {key:?} is not JSON")]
    BadValue {
        /// The key whose value it would be.
        key: String,
    },
    /// The value that should hold the key is no object.
    #[error("{key:?} cannot be set because what should hold it is not an object")]
    NotAnObject {
        /// The key.
        key: String,
    },
    /// `_meta` is replaced as a whole and in parts at once.
    #[error("params, result or _meta is replaced as a whole and in parts at once")]
    Overlap,
    /// The edited message would be refused.
    #[error("the edited message is refused: {0}")]
    Refused(#[from] Refusal),
}

/// A copy of a message in the making.
#[derive(Debug)]
pub struct Editor<'m> {
    message: &'m Message,
    changes: Vec<Change>,
}

#[derive(Debug)]
struct Change {
    slot: Slot,
    key: String,
    /// None removes the member.
    value: Option<Bytes>,
}

impl<'m> Editor<'m> {
    pub(crate) const fn new(message: &'m Message) -> Self {
        Self { message, changes: Vec::new() }
    }

    /// Replaces the id.
    #[must_use]
    pub fn set_id(self, id: &RawId) -> Self {
        self.change(Slot::Root, "id", Some(id.raw().clone()))
    }

    /// Sets a member of `params` to a raw JSON value.
    #[must_use]
    pub fn set_param(self, key: &str, raw: impl Into<Bytes>) -> Self {
        self.change(Slot::Params, key, Some(raw.into()))
    }

    /// Removes a member of `params`, where it is.
    #[must_use]
    pub fn remove_param(self, key: &str) -> Self {
        self.change(Slot::Params, key, None)
    }

    /// Sets a member of `_meta` (of `params`, or of `result` in a response) to a raw JSON value.
    #[must_use]
    pub fn set_meta(self, key: &str, raw: impl Into<Bytes>) -> Self {
        let slot = self.meta_slot();
        self.change(slot, key, Some(raw.into()))
    }

    /// Sets a member of `_meta` to a string.
    #[must_use]
    pub fn set_meta_str(self, key: &str, text: &str) -> Self {
        let mut raw = Vec::with_capacity(text.len() + 2);
        quote_into(&mut raw, text);
        self.set_meta(key, raw)
    }

    /// Removes a member of `_meta`, where it is.
    #[must_use]
    pub fn remove_meta(self, key: &str) -> Self {
        let slot = self.meta_slot();
        self.change(slot, key, None)
    }

    /// Replaces `result` as a whole.
    #[must_use]
    pub fn set_result(self, raw: impl Into<Bytes>) -> Self {
        self.change(Slot::Root, "result", Some(raw.into()))
    }

    /// Sets a member of `result` to a raw JSON value.
    #[must_use]
    pub fn set_result_member(self, key: &str, raw: impl Into<Bytes>) -> Self {
        self.change(Slot::Result, key, Some(raw.into()))
    }

    /// Removes a member of `result`, where it is.
    #[must_use]
    pub fn remove_result_member(self, key: &str) -> Self {
        self.change(Slot::Result, key, None)
    }

    /// The edited bytes.
    ///
    /// # Errors
    /// An [`EditError`], with nothing done.
    pub fn into_bytes(mut self, limits: &Limits) -> Result<Bytes, EditError> {
        if self.changes.is_empty() {
            return Ok(self.message.bytes().clone());
        }
        for Change { key, value, .. } in &self.changes {
            if let Some(value) = value {
                scan_value(value, limits.depth_max).map_err(|_| EditError::BadValue { key: key.clone() })?;
            }
        }
        self.lift(Slot::ParamsMeta, Slot::Params, "_meta")?;
        self.lift(Slot::ResultMeta, Slot::Result, "_meta")?;
        self.lift(Slot::Params, Slot::Root, "params")?;
        self.lift(Slot::Result, Slot::Root, "result")?;
        let mut splices = Vec::new();
        for slot in [Slot::Root, Slot::Params, Slot::ParamsMeta, Slot::Result, Slot::ResultMeta] {
            self.splices_of(slot, &mut splices);
        }
        let edited = self.splice(splices);
        if edited.len() > limits.message_bytes_max {
            return Err(Refusal::from(ParseFault::TooLong { limit: limits.message_bytes_max }).into());
        }
        Ok(edited)
    }

    /// The edited message, checked like any other.
    ///
    /// # Errors
    /// An [`EditError`], with nothing done.
    pub fn finish(self, limits: &Limits) -> Result<Message, EditError> {
        Ok(Message::parse(self.into_bytes(limits)?, limits)?)
    }

    /// The last change of one key counts.
    fn change(mut self, slot: Slot, key: &str, value: Option<Bytes>) -> Self {
        self.changes.retain(|change| change.slot != slot || change.key != key);
        self.changes.push(Change { slot, key: key.to_owned(), value });
        self
    }

    fn meta_slot(&self) -> Slot {
        if self.message.method().is_some() { Slot::ParamsMeta } else { Slot::ResultMeta }
    }

    /// Turns changes of an object that does not exist into one change of the object that should hold it.
    fn lift(&mut self, slot: Slot, parent: Slot, key: &str) -> Result<(), EditError> {
        if !self.changes.iter().any(|change| change.slot == slot) {
            return Ok(());
        }
        if self.changes.iter().any(|change| change.slot == parent && change.key == key) {
            return Err(EditError::Overlap);
        }
        if self.message.object(slot).is_some() {
            return Ok(());
        }
        let holder = self.message.object(parent);
        if holder.is_some_and(|object| object.find(self.message.bytes(), key).is_some()) {
            return Err(EditError::NotAnObject { key: key.to_owned() });
        }
        let (mine, others) = std::mem::take(&mut self.changes).into_iter().partition(|change| change.slot == slot);
        self.changes = others;
        let mine: Vec<Change> = mine;
        let mut object = vec![b'{'];
        for (name, value) in mine.iter().filter_map(|change| Some((&change.key, change.value.as_ref()?))) {
            push_member(&mut object, name, value);
        }
        object.push(b'}');
        if object.len() > 2 {
            self.changes.push(Change { slot: parent, key: key.to_owned(), value: Some(object.into()) });
        }
        Ok(())
    }

    /// What to cut and what to put in its place, for the changes of one object.
    fn splices_of(&self, slot: Slot, splices: &mut Vec<(Span, Vec<u8>)>) {
        let Some(object) = self.message.object(slot) else { return };
        let bytes = self.message.bytes();
        let changes: Vec<&Change> = self.changes.iter().filter(|change| change.slot == slot).collect();
        if changes.is_empty() {
            return;
        }
        let change_of = |name: &[u8]| changes.iter().find(|change| change.key.as_bytes() == name);
        let mut kept = false;
        for (index, member) in object.members.iter().enumerate() {
            match change_of(member.name(bytes)).map(|change| &change.value) {
                None => kept = true,
                Some(Some(value)) => {
                    kept = true;
                    splices.push((member.value, value.to_vec()));
                }
                // With the comma before it, where a member before it stays; else with the comma after it.
                Some(None) if kept => {
                    let start = object.members[index - 1].value.end;
                    splices.push((Span { start, end: member.value.end }, Vec::new()));
                }
                Some(None) => {
                    let end = object.members.get(index + 1).map_or(member.value.end, |next| next.key.start);
                    splices.push((Span { start: member.key.start, end }, Vec::new()));
                }
            }
        }
        let mut added = if kept { vec![b','] } else { vec![b'{'] };
        let fresh = changes.iter().filter(|change| object.find(bytes, &change.key).is_none());
        for (key, value) in fresh.filter_map(|change| Some((&change.key, change.value.as_ref()?))) {
            push_member(&mut added, key, value);
        }
        if added.len() > 1 {
            let last = object.members.last().filter(|_| kept).map(|member| member.value.end);
            let at = last.unwrap_or(object.span.start + 1);
            // The opening brace stood in for the comma that a first member must not have.
            let text = if kept { added } else { added.split_off(1) };
            splices.push((Span { start: at, end: at }, text));
        }
    }

    fn splice(&self, mut splices: Vec<(Span, Vec<u8>)>) -> Bytes {
        splices.sort_by_key(|(span, _)| (span.start, span.end));
        let bytes = self.message.bytes();
        let grown: usize = splices.iter().map(|(_, text)| text.len()).sum();
        let mut out = Vec::with_capacity(bytes.len() + grown);
        let mut at = 0;
        for (span, text) in splices {
            out.extend_from_slice(&bytes[at..span.start]);
            out.extend_from_slice(&text);
            at = span.end;
        }
        out.extend_from_slice(&bytes[at..]);
        out.into()
    }
}

/// Appends `"key":value`, with a comma where a member stands before it.
fn push_member(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    if !matches!(out.last(), Some(b'{' | b',')) {
        out.push(b',');
    }
    quote_into(out, key);
    out.push(b':');
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests;
