//! Closes the epochs before this one where the store was their write-ahead log, and reads what they left in it. Called by
//! `open`, after the head was taken and before anything is written.
//!
//! Who had the store last may still be alive: stalled, or cut off. It appends by creating the next object of its epoch, so the
//! name that comes next decides: a fence put there first ends the epoch for good, and what the old writer put there first is
//! part of the log. No clock is asked. What lies beyond a fence was never acknowledged, because an object is acknowledged only
//! after all before it.
//!
//! An epoch that took the head and was replaced before it had committed its beginning has never written and needs no fence.

use bytes::Bytes;
use cairn_clock::Entropy;
use futures::{StreamExt, TryStreamExt};
use uuid::Uuid;

use crate::{
    StoreError,
    index::{Change, Delta, HeadRecord, Index, IndexName, Loaded},
    open::persistently,
    store::Store,
    wal::Segment,
    wal_object::{self, Found, WalId},
};

/// Objects that are read beside each other.
const READS_MAX: usize = 32;

/// What the epochs before left.
#[derive(Debug, Default)]
pub(crate) struct Closed {
    /// In order.
    pub(crate) segments: Vec<Segment>,
    /// What the index must know of it.
    pub(crate) changes: Vec<Change>,
}

/// Takes the head for the next epoch, with nothing else changed: from then on nobody else commits. Gives what it says now.
pub(crate) async fn take(
    store: &dyn Store,
    entropy: &Entropy,
    loaded: Loaded,
    owner: u32,
) -> Result<Loaded, StoreError> {
    let Loaded { version, head, mut index } = loaded;
    let (log, epoch, sequence) = (head.log, index.epoch + 1, index.sequence + 1);
    let delta = Delta { log, snapshot: false, epoch, sequence, covered: index.covered, changes: Vec::new() };
    let name = IndexName { epoch, sequence, nonce: entropy.next_u64() };
    let files = head.files.into_iter().chain([name]).collect();
    let head = HeadRecord { log, epoch, sequence, files, beat: 0, owner, is_closed: false };
    persistently(async || match store.put(&name.name(), delta.encode()).await {
        Err(StoreError::Exists { .. }) => Ok(()), // our own: the nonce is ours alone
        done => done,
    })
    .await?;
    let replaced = persistently(async || store.replace_head(Some(&version), head.encode()).await).await;
    let version = replaced.map_err(|error| match error {
        StoreError::HeadChanged => StoreError::Fenced { epoch },
        error => error,
    })?;
    index.apply(&delta);
    Ok(Loaded { version, head, index })
}

/// Closes what is open, and reads what is needed. `by` is the epoch that closes.
pub(crate) async fn close(store: &dyn Store, index: &Index, by: u32) -> Result<Closed, StoreError> {
    let mut closed = Closed::default();
    for (epoch, (from, to)) in &index.write_ahead {
        let from = WalId { epoch: *epoch, number: *from };
        let reader = Reader { store, log: index.log };
        let end = match to {
            Some(to) => reader.take(from, *to, &mut closed.segments).await?,
            None => reader.end(from, by, &mut closed.segments).await?,
        };
        if to.is_some_and(|to| to != end) {
            let what = "it is a fence, and the index says that records are there".to_owned();
            return Err(StoreError::Damaged { name: WalId { number: end, ..from }.name(), what });
        }
        closed.changes.push(Change::WriteAhead { epoch: *epoch, from: from.number, to: Some(end) });
    }
    Ok(closed)
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    store: &'a dyn Store,
    log: Uuid,
}

impl Reader<'_> {
    /// Ends an epoch at the first free name at or behind `from`, and takes what lies before. Returns the number of the fence.
    async fn end(self, from: WalId, by: u32, into: &mut Vec<Segment>) -> Result<u64, StoreError> {
        let listed = persistently(async || self.store.list(&WalId::folder(from.epoch)).await).await?;
        let numbers = listed.iter().filter_map(|listed| WalId::parse(&listed.name)).map(|id| id.number);
        let there = numbers.filter(|number| *number >= from.number).zip(from.number..);
        let there = there.take_while(|(number, expected)| number == expected).count() as u64;
        let mut at = WalId { number: self.take(from, from.number + there, into).await?, ..from };
        if at.number < from.number + there {
            return Ok(at.number); // somebody closed it before, and died
        }
        loop {
            let bytes = wal_object::fence(self.log, at, by);
            match persistently(async || self.store.put(&at.name(), bytes.clone()).await).await {
                Ok(()) => return Ok(at.number),
                // Its writer was first; or a fence is there: ours, with a lost answer, or another's that closes too.
                Err(StoreError::Exists { .. }) if self.take(at, at.number + 1, into).await? == at.number => {
                    return Ok(at.number);
                }
                Err(StoreError::Exists { .. }) => at = at.next(),
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes objects up to before `to`, or up to a fence. Returns where it ended.
    async fn take(self, from: WalId, to: u64, into: &mut Vec<Segment>) -> Result<u64, StoreError> {
        let reads = futures::stream::iter(from.number..to).map(|number| self.read(WalId { number, ..from }));
        let mut reads = std::pin::pin!(reads.buffered(READS_MAX));
        let mut at = from;
        while let Some((found, bytes)) = reads.try_next().await? {
            let Found::Frames(position) = found else { break };
            into.push(wal_object::segment(at, position, bytes));
            at = at.next();
        }
        Ok(at.number)
    }

    async fn read(self, id: WalId) -> Result<(Found, Bytes), StoreError> {
        let bytes = persistently(async || self.store.get_all(&id.name()).await).await?;
        let found = wal_object::inspect(&bytes, self.log, id);
        let found = found.ok_or_else(|| StoreError::Damaged {
            name: id.name(),
            what: "its head is not one that this version writes, or another log's".to_owned(),
        })?;
        Ok((found, bytes))
    }
}
