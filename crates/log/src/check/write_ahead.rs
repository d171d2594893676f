//! The write-ahead log as it lies in the store, object by object, and the fences of the epochs that were replaced. Called by `check`.
//!
//! What the index needs must be there, whole, and one behind the other; each epoch that was closed must have its fence, or who still
//! holds it could go on. What nothing needs is counted: the owner removes it. Of an epoch that may still write, objects behind a
//! gap were never acknowledged: they are on their way.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::StreamExt;

use super::{
    Checked, Finding, FindingKind, Judge, OBJECTS_AHEAD,
    frames::{Frames, Place},
    persistently,
};
use crate::{
    OpenError, StoreError,
    index::{self, Index},
    store::{Listed, Store},
    upload::FENCE_BYTES_MAX,
    wal_object::{self, Found, WalId},
    walk::walk,
};

const RESTORE: &str = "restore it from a copy of the store; without one what it holds is lost, and a start is refused";
const RESTORE_FENCE: &str =
    "restore it from a copy of the store, and see that no broker of that epoch runs any more: nothing else stops it";

/// Objects of one epoch that were listed, by number, with their sizes.
type There = BTreeMap<u64, u64>;

/// Checks all of it against the newest index. Gives the position up to which the store has the log, in objects of either kind.
pub(super) async fn check(
    store: &dyn Store,
    index: &Index,
    listed: &[Listed],
    checked: &mut Checked,
    judge: &mut Judge<'_>,
) -> Result<u64, OpenError> {
    let mut by_epoch = BTreeMap::<u32, There>::new();
    // Higher epochs are another's business: it opens at this moment.
    for (id, bytes) in listed.iter().filter_map(|found| Some((WalId::parse(&found.name)?, found.bytes))) {
        if id.epoch <= index.epoch {
            by_epoch.entry(id.epoch).or_default().insert(id.number, bytes);
        }
    }
    let mut looking = Looking {
        store,
        index,
        checked: &mut *checked,
        judge: &mut *judge,
        reach: index.covered,
        end: Some(index.covered),
        missing: Vec::new(),
    };
    for (epoch, (from, to)) in &index.write_ahead {
        let there = by_epoch.remove(epoch).unwrap_or_default();
        let first_free = || (*from..).find(|number| !there.contains_key(number)).unwrap_or(*from);
        let end = to.unwrap_or_else(first_free);
        looking.needed(*epoch, *from, end).await?;
        if to.is_some() {
            looking.fence(WalId { epoch: *epoch, number: end }).await?;
        }
        let others = there.iter().filter(|(number, _)| !(*from..end).contains(*number) && Some(**number) != *to);
        let others: Vec<_> = others.map(|(number, bytes)| (WalId { epoch: *epoch, number: *number }, *bytes)).collect();
        looking.unneeded(&others).await?;
    }
    for (epoch, there) in by_epoch {
        let all: Vec<_> = there.iter().map(|(number, bytes)| (WalId { epoch, number: *number }, *bytes)).collect();
        if looking.unneeded(&all).await? > 0 || epoch == index.epoch {
            continue;
        }
        // It may have been closed since.
        let folder = WalId::folder(epoch);
        let again = persistently(async || store.list(&folder).await).await?;
        let again = again.iter().filter_map(|found| Some((WalId::parse(&found.name)?, found.bytes)));
        let newer: Vec<_> = again.filter(|(id, _)| !there.contains_key(&id.number)).collect();
        if looking.unneeded(&newer).await? == 0 {
            looking.no_fence(&folder, "none of its objects is a fence");
        }
    }
    let (reach, missing) = (looking.reach, looking.missing);
    if !missing.is_empty() {
        // Uploaded and removed meanwhile, perhaps.
        let newer = persistently(async || index::load(store).await).await?.map(|loaded| loaded.index);
        let newer = newer.as_ref().unwrap_or(index);
        for id in missing.into_iter().filter(|id| is_needed(newer, *id)) {
            let what = "the index needs it and it is not there";
            checked.found(Finding::new(FindingKind::WriteAheadMissing, id.name(), what, RESTORE));
        }
    }
    Ok(reach)
}

fn is_needed(index: &Index, id: WalId) -> bool {
    index.write_ahead.get(&id.epoch).is_some_and(|(from, to)| id.number >= *from && to.is_none_or(|to| id.number < to))
}

/// The bytes of an object, if there is one; none of them where they do not open.
async fn get(store: &dyn Store, id: WalId) -> Result<Option<Bytes>, OpenError> {
    match persistently(async || store.get_all(&id.name()).await).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(StoreError::Missing { .. }) => Ok(None),
        Err(StoreError::Damaged { .. }) => Ok(Some(Bytes::new())),
        Err(error) => Err(error.into()),
    }
}

struct Looking<'c, 'j> {
    store: &'c dyn Store,
    index: &'c Index,
    checked: &'c mut Checked,
    judge: &'c mut Judge<'j>,
    /// Position up to which the store has the log.
    reach: u64,
    /// Where the next needed object must begin; nothing where that cannot be told.
    end: Option<u64>,
    missing: Vec<WalId>,
}

impl Looking<'_, '_> {
    fn damaged(&mut self, id: WalId, what: impl Into<String>, todo: &str) {
        self.checked.found(Finding::new(FindingKind::WriteAheadDamaged, id.name(), what, todo));
    }

    fn no_fence(&mut self, name: &str, what: &str) {
        self.checked.found(Finding::new(FindingKind::FenceMissing, name, what, RESTORE_FENCE));
    }

    /// Objects whose records the store has nowhere else.
    async fn needed(&mut self, epoch: u32, from: u64, to: u64) -> Result<(), OpenError> {
        let store = self.store;
        let fetched = futures::stream::iter(from..to).map(|number| async move {
            let id = WalId { epoch, number };
            (id, persistently(async || store.get_all(&id.name()).await).await)
        });
        let mut fetched = std::pin::pin!(fetched.buffered(OBJECTS_AHEAD));
        while let Some((id, bytes)) = fetched.next().await {
            match bytes {
                Ok(bytes) => self.object(id, bytes)?,
                Err(StoreError::Missing { .. }) => {
                    self.missing.push(id);
                    self.end = None;
                }
                Err(StoreError::Damaged { what, .. }) => {
                    self.damaged(id, what, RESTORE);
                    self.end = None;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn object(&mut self, id: WalId, bytes: Bytes) -> Result<(), OpenError> {
        self.checked.wal_objects += 1;
        self.checked.wal_object_bytes += bytes.len() as u64;
        let (log, covered) = (self.index.log, self.index.covered);
        let expected = self.end.take();
        let position = match wal_object::inspect(&bytes, log, id) {
            Some(Found::Frames(position)) => position,
            Some(Found::Fence(_)) => {
                self.damaged(id, "it is a fence, and the index says that records are there", RESTORE);
                return Ok(());
            }
            None => {
                let what = "at byte 0: its head is not one that this version writes, or another log's or object's";
                self.damaged(id, what, RESTORE);
                return Ok(());
            }
        };
        let segment = wal_object::segment(id, position, bytes);
        // The first that is needed may begin before what the index covers; none behind it may.
        let is_first = expected == Some(covered);
        if let Some(end) = expected.filter(|end| if is_first { position > *end } else { position != *end }) {
            let what = format!("it begins at position {position}, what comes before it ends at {end}");
            self.checked.found(Finding::new(FindingKind::WriteAheadMisplaced, id.name(), what, RESTORE));
        }
        let name = id.name();
        let superseded = "stop every broker but the newest: one that was replaced went on";
        let place = Place { name: &name, damaged: FindingKind::WriteAheadDamaged, todo: RESTORE, superseded };
        let (mut is_told, mut stranger) = (false, None);
        let mut frames =
            Frames { index: Some(self.index), covered, checked: &mut *self.checked, judge: &mut *self.judge };
        let walked = walk(&segment, log, covered, &mut |header, body| {
            if header.epoch != id.epoch {
                stranger.get_or_insert((header.position, header.epoch));
            }
            frames.look(place, header, body, &mut is_told);
        });
        if let Some((position, epoch)) = stranger {
            self.damaged(id, format!("the frame at position {position} is of epoch {epoch}"), RESTORE);
        }
        match walked {
            Ok(walked) if walked.end == segment.end() => {
                self.end = Some(walked.end);
                self.reach = self.reach.max(walked.end);
            }
            Ok(walked) => {
                let what = format!("at byte {}: a frame does not match its checksum", walked.end - segment.base);
                self.damaged(id, what, RESTORE);
            }
            Err(OpenError::Damaged { at, what, .. }) => self.damaged(id, format!("at byte {at}: {what}"), RESTORE),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The end of an epoch that was closed.
    async fn fence(&mut self, id: WalId) -> Result<(), OpenError> {
        match get(self.store, id).await?.map(|bytes| wal_object::inspect(&bytes, self.index.log, id)) {
            Some(Some(Found::Fence(_))) => self.checked.fences += 1,
            None => self.no_fence(&id.name(), "it ended its epoch and is not there"),
            Some(Some(Found::Frames(_))) => {
                self.no_fence(&id.name(), "records are there, and the index says that the epoch ended before them");
            }
            Some(None) => {
                self.damaged(id, "it is the fence of its epoch, and does not match its checksum", RESTORE_FENCE)
            }
        }
        Ok(())
    }

    /// What the index does not need: fences, which stay, and what the owner removes. Gives how many fences there are.
    async fn unneeded(&mut self, objects: &[(WalId, u64)]) -> Result<u64, OpenError> {
        let mut fences = 0;
        for (id, bytes) in objects {
            if *bytes > FENCE_BYTES_MAX {
                self.checked.orphan(id.name(), *bytes);
                continue;
            }
            let Some(read) = get(self.store, *id).await? else { continue };
            match wal_object::inspect(&read, self.index.log, *id) {
                Some(Found::Fence(_)) => fences += 1,
                Some(Found::Frames(_)) => self.checked.orphan(id.name(), *bytes),
                None => {
                    // Not known to be none: it is told once, as damage.
                    fences += 1;
                    self.damaged(*id, "it may be a fence, and does not match its checksum", RESTORE_FENCE);
                }
            }
        }
        self.checked.fences += fences;
        Ok(fences)
    }
}

#[cfg(test)]
mod tests;
