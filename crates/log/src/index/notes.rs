//! What the index keeps for the day on which a write-ahead log is lost: who has the store, how far it may run ahead, when something was
//! uploaded last, and which offsets a recovery has passed over. Used by `index` and `layout`; written by `open` and `upload`.
//!
//! | note | fields after its change's kind byte 12 |
//! | --- | --- |
//! | 0 taken | what its taker drew 8, offsets that it may give out beyond what the index has of a stream 8 |
//! | 1 skipped | stream, first 8, one past the last 8 |
//! | 2 uploaded | time, ms 8 |

use bytes::BufMut;

use crate::{Offset, StreamId, fields::Fields};

/// One note.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Note {
    /// Somebody took the store, drew `by`, and gives out no offset that lies `reserved` or more past what the index has of its stream.
    Taken { by: u64, reserved: u64 },
    /// Whoever went on without a lost write-ahead log gave none of these offsets: they may have been given out.
    Skipped { id: StreamId, from: Offset, to: Offset },
    /// Something was uploaded at this time, by the clock of who did it.
    Uploaded { at_ms: i64 },
}

/// What is known of who has the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Taken {
    /// What it drew: its folder knows it too.
    pub(crate) by: u64,
    /// The most that anybody since the beginning may have run ahead.
    pub(crate) reserved: u64,
}

pub(super) fn put(into: &mut Vec<u8>, note: &Note) {
    match note {
        Note::Taken { by, reserved } => {
            into.put_u8(0);
            into.put_u64_le(*by);
            into.put_u64_le(*reserved);
        }
        Note::Skipped { id, from, to } => {
            into.put_u8(1);
            into.put_slice(id.topic.as_bytes());
            into.put_u32_le(id.partition.get());
            into.put_u64_le(from.get());
            into.put_u64_le(to.get());
        }
        Note::Uploaded { at_ms } => {
            into.put_u8(2);
            into.put_i64_le(*at_ms);
        }
    }
}

pub(super) fn take(fields: &mut Fields<'_>) -> Option<Note> {
    Some(match fields.u8()? {
        0 => Note::Taken { by: fields.u64()?, reserved: fields.u64()? },
        1 => {
            let (id, from, to) = (fields.stream()?, fields.offset()?, fields.offset()?);
            (from < to).then_some(Note::Skipped { id, from, to })?
        }
        2 => Note::Uploaded { at_ms: fields.i64()? },
        _ => return None,
    })
}
