//! One frame of the write-ahead log, in a file or in an object, and what is in it. Used by `files` and `write_ahead`.

use super::{Checked, Finding, FindingKind, Judge};
use crate::{
    frame::{self, Entry, Header},
    index::Index,
};

/// What frames are held against.
pub(super) struct Frames<'c, 'j> {
    pub(super) index: Option<&'c Index>,
    pub(super) covered: u64,
    pub(super) checked: &'c mut Checked,
    pub(super) judge: &'c mut Judge<'j>,
}

/// The file or object that frames lie in, and what to do where it is wrong.
#[derive(Clone, Copy)]
pub(super) struct Place<'p> {
    pub(super) name: &'p str,
    pub(super) damaged: FindingKind,
    pub(super) todo: &'static str,
    /// What to do with what another owner went on without.
    pub(super) superseded: &'static str,
}

impl Frames<'_, '_> {
    /// Looks at one; `is_told` remembers for a place that it holds what another owner went on without.
    pub(super) fn look(&mut self, place: Place<'_>, header: &Header, body: &[u8], is_told: &mut bool) {
        let checked = &mut *self.checked;
        checked.frames += 1;
        if header.position < self.covered {
            return; // the store has it, and was looked at
        }
        if let Some(epoch) = self.index.and_then(|index| index.superseded(header.epoch, header.position))
            && !std::mem::replace(is_told, true)
        {
            let what = format!(
                "records from position {} on were never uploaded, and epoch {epoch} went on without them",
                header.position
            );
            checked.found(Finding::new(FindingKind::Superseded, place.name, what, place.superseded));
        }
        let Some(entries) = frame::entries(body) else {
            let what = format!("the frame at position {} is not one that this version writes", header.position);
            checked.found(Finding::new(place.damaged, place.name, what, "use a newer version of cairn"));
            return;
        };
        for entry in entries {
            let Entry::Batch(batch) = entry else { continue };
            let bytes = &body[batch.at as usize..batch.at as usize + batch.length as usize];
            checked.waiting_batches += 1;
            checked.waiting_bytes += bytes.len() as u64;
            let wrong = match (self.judge)(batch.stream, bytes) {
                Err(what) => Some(what),
                Ok(span) if span.base == batch.base => None,
                Ok(span) => Some(format!("it says that it begins at offset {}", span.base)),
            };
            if let Some(what) = wrong {
                let what = format!("the batch at offset {}: {what}", batch.base);
                let next = batch.base.checked_add(u64::from(batch.records)).unwrap_or(batch.base);
                let finding = Finding::new(FindingKind::BatchDamaged, place.name, what, place.todo);
                checked.found(finding.about(batch.stream, batch.base, next));
            }
        }
    }
}
