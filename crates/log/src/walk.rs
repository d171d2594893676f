//! The frames of one write-ahead file, read without changing anything. Used by `check` and `salvage`; `recover` reads to go on writing.

use uuid::Uuid;

use crate::{
    OpenError,
    frame::{self, HEADER_BYTES, Header},
    recover::used_up_to,
    wal::Segment,
};

/// Where the frames of a file end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Walked {
    /// Position behind the last whole frame.
    pub(crate) end: u64,
    /// The log was left here on purpose, for the next file.
    pub(crate) is_left: bool,
    /// The highest position that a whole frame says was synced, frames behind a bad one included.
    pub(crate) synced: u64,
}

/// Gives every whole frame with its body to `each`, up to the first bad one that does not lie before `covered`.
pub(crate) fn walk(
    segment: &Segment,
    log: Uuid,
    covered: u64,
    each: &mut dyn FnMut(&Header, &[u8]),
) -> Result<Walked, OpenError> {
    let shape = segment.shape();
    let mut bytes = vec![0; usize::try_from(segment.bytes).expect("a file of the log is below 4 GiB")];
    let read = segment.file.read_at(0, &mut bytes);
    read.map_err(|source| OpenError::Disk { path: segment.path.clone(), source })?;
    let covered = usize::try_from(covered.saturating_sub(segment.base)).unwrap_or(usize::MAX);
    let (mut at, mut synced) = (segment.head_bytes(), 0);
    while at + HEADER_BYTES <= bytes.len() {
        let position = segment.base + at as u64;
        let Some(header) = frame::check(&bytes[at..], log, shape, position) else {
            if at < covered {
                // The store has what was here; the frames go on where it ends.
                at = covered.min(bytes.len());
                continue;
            }
            let used = used_up_to(&bytes, at);
            for place in (at..used.min(bytes.len().saturating_sub(HEADER_BYTES))).step_by(8) {
                if bytes[place] != 0
                    && let Some(header) = frame::check(&bytes[place..], log, shape, segment.base + place as u64)
                {
                    synced = synced.max(header.synced);
                }
            }
            return Ok(Walked { end: position, is_left: false, synced });
        };
        synced = synced.max(header.synced);
        let Some(body) = frame::body(&bytes[at..], &header, log, segment.seal.as_deref()) else {
            // Its checksum is right, so it was not torn.
            let what = "a frame was changed since it was encrypted".to_owned();
            return Err(OpenError::Damaged { path: segment.path.clone(), at: at as u64, what });
        };
        each(&header, &body);
        at += header.frame_bytes();
        if header.body_bytes == 0 {
            return Ok(Walked { end: segment.base + at as u64, is_left: true, synced });
        }
    }
    Ok(Walked { end: segment.base + at as u64, is_left: true, synced })
}
