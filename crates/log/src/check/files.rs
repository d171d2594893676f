//! The write-ahead log as it lies on the disk, against its checksums and against what the store has. Called by `check`.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    CheckOptions, Checked, Finding, FindingKind, Judge,
    frames::{Frames, Place},
};
use crate::{OpenError, index::Index, wal::Segment, walk::walk};

const ASIDE: &str = "start cairn here once: it sets them aside; then cairn broker salvage shows them";
const AWAY: &str = "restore it from a copy, or move the folder away to go on with what the store has";

pub(super) fn check(
    options: &CheckOptions,
    folder: &Path,
    (index, reach): (Option<&Index>, u64),
    checked: &mut Checked,
    judge: &mut Judge<'_>,
) -> Result<(), OpenError> {
    let wal = folder.join("wal");
    let failed = |source| OpenError::Disk { path: wal.clone(), source };
    let paths: Vec<PathBuf> = match options.disk.list(&wal) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        listed => listed.map_err(failed)?,
    };
    // A broker that starts meanwhile would change what is read here.
    let _held = (!paths.is_empty()).then(|| options.disk.lock(folder)).transpose().map_err(failed)?;
    checked.files_checked = true;
    let mut segments = Vec::new();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|kind| kind == "wal")) {
        checked.files += 1;
        match Segment::open(options.disk.as_ref(), path, &options.at_rest)? {
            Some((segment, log)) => {
                let expected = *checked.log.get_or_insert(log);
                if log == expected {
                    segments.push(segment);
                    continue;
                }
                let what = format!("it is of log {log}, the object store of {expected}");
                let todo = "point folder and store at the same log";
                checked.found(Finding::new(FindingKind::FileMisplaced, shown(path), what, todo));
            }
            None => {
                let what = "the head is not one that this version writes";
                checked.found(Finding::new(FindingKind::FileDamaged, shown(path), what, AWAY));
            }
        }
    }
    segments.sort_by_key(|segment| segment.base);
    let covered = index.map_or(0, |index| index.covered);
    segments.retain(|segment| segment.end() > covered);
    Files { index, covered, reach, checked, judge }.check(&segments)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

struct Files<'c, 'j> {
    index: Option<&'c Index>,
    covered: u64,
    /// Position up to which the store has the log, in write-ahead objects too.
    reach: u64,
    checked: &'c mut Checked,
    judge: &'c mut Judge<'j>,
}

impl Files<'_, '_> {
    fn check(&mut self, segments: &[Segment]) -> Result<(), OpenError> {
        if let Some(first) = segments.first().filter(|first| self.index.is_some() && first.base > self.reach) {
            let what = format!("it begins at position {}, the object store ends at {}", first.base, self.reach);
            let todo = "bring the right store back, or copy its objects over";
            self.checked.found(Finding::new(FindingKind::FileMisplaced, shown(&first.path), what, todo));
        }
        for two in segments.windows(2).filter(|two| two[0].end() != two[1].base) {
            let what = format!("the file behind it begins at {:x}, it ends at {:x}", two[1].base, two[0].end());
            self.checked.found(Finding::new(FindingKind::FileDamaged, shown(&two[0].path), what, AWAY));
        }
        let (mut walked, mut synced) = (Vec::new(), 0);
        for segment in segments {
            let (path, covered) = (shown(&segment.path), self.covered);
            let log = self.checked.log.expect("a file of the log names it");
            let mut is_told = false;
            let place = Place { name: &path, damaged: FindingKind::FileDamaged, todo: AWAY, superseded: ASIDE };
            let mut frames =
                Frames { index: self.index, covered, checked: &mut *self.checked, judge: &mut *self.judge };
            let done = walk(segment, log, covered, &mut |header, body| {
                frames.look(place, header, body, &mut is_told);
            });
            match done {
                Ok(done) => {
                    synced = synced.max(done.synced);
                    walked.push((segment, done));
                }
                Err(OpenError::Damaged { at, what, .. }) => {
                    let what = format!("at byte {at}: {what}");
                    self.checked.found(Finding::new(FindingKind::FileDamaged, path, what, AWAY));
                }
                Err(error) => return Err(error),
            }
        }
        // What lies past every synced point was never acknowledged: the next start erases it.
        for (segment, done) in walked.into_iter().filter(|(_, done)| !done.is_left && done.end < synced) {
            let at = done.end - segment.base;
            let what =
                format!("at byte {at}: a frame that was synced is bad; the log was synced up to position {synced}");
            self.checked.found(Finding::new(FindingKind::FileDamaged, shown(&segment.path), what, AWAY));
        }
        Ok(())
    }
}
