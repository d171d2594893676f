//! Whether the ranges of a stream follow each other: no offset is missing, none is there twice. Called by `check`.

use super::{Checked, Finding, FindingKind, objects::RESTORE};
use crate::{Offset, StreamId, index::Indexed};

pub(super) fn check(id: StreamId, stream: &Indexed, checked: &mut Checked) {
    let mut tell = |kind, what: String, from: Offset, to: Offset| {
        checked.found(Finding::new(kind, format!("index of stream {id}"), what, RESTORE).about(id, from, to));
    };
    // What a recovery has passed over is no gap.
    let past = |next: Offset| {
        stream.skipped.iter().fold(next, |next, (from, to)| if (*from..*to).contains(&next) { *to } else { next })
    };
    let mut next = past(stream.start);
    for (n, range) in stream.ranges.iter().enumerate() {
        let object = range.object.name();
        if range.base > next {
            let what = format!("no object holds the offsets from {next} to {}, where {object} goes on", range.base);
            tell(FindingKind::Gap, what, next, range.base);
        } else if range.base < next && n > 0 {
            let what = format!("{object} begins at {}, and what comes before it ends at {next}", range.base);
            tell(FindingKind::Overlap, what, range.base, next);
        }
        next = past(next.max(range.next));
    }
    let end = stream.ledger.next;
    if next < end {
        tell(FindingKind::Gap, format!("no object holds the offsets from {next} to {end}"), next, end);
    } else if next > end {
        tell(FindingKind::Overlap, format!("objects hold offsets up to {next}, the stream ends at {end}"), end, next);
    }
}
