//! A store in memory whose faults a seed decides: it fails before or after the deed, and answers late.
//! Used by tests and the simulation. What it holds outlives the log that wrote it, as a bucket does.

use std::{
    collections::BTreeMap,
    ops::Range,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use async_trait::async_trait;
use bytes::Bytes;
use cairn_clock::Entropy;
use parking_lot::Mutex;

use crate::{
    StoreError,
    store::{Head, HeadVersion, Listed, Store},
};

/// How often things go wrong, in percent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// The call fails and nothing happened.
    pub(crate) fails: u64,
    /// The call happened and its answer is lost.
    pub(crate) loses: u64,
    /// The call gives way to others first, up to three times.
    pub(crate) delays: u64,
}

#[derive(Debug, Default)]
struct Held {
    objects: BTreeMap<String, Bytes>,
    head: Option<(u64, Bytes)>,
    heads: u64,
}

/// The store; clones share what it holds.
#[derive(Clone, Debug)]
pub(crate) struct MemoryStore {
    held: Arc<Mutex<Held>>,
    faults: Arc<Mutex<Faults>>,
    away: Arc<AtomicBool>,
    refused: Arc<Mutex<Option<&'static str>>>,
    entropy: Entropy,
}

impl MemoryStore {
    pub(crate) fn new(seed: u64) -> Self {
        let (held, faults, away, refused) = (Arc::default(), Arc::default(), Arc::default(), Arc::default());
        Self { held, faults, away, refused, entropy: Entropy::seeded(seed) }
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        *self.faults.lock() = faults;
    }

    /// While it is away, nothing works.
    pub(crate) fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    /// No object is put in this folder.
    pub(crate) fn refuse(&self, folder: Option<&'static str>) {
        *self.refused.lock() = folder;
    }

    /// Every object's name, for assertions.
    pub(crate) fn names(&self) -> Vec<String> {
        self.held.lock().objects.keys().cloned().collect()
    }

    /// Flips one bit of an object.
    pub(crate) fn damage(&self, name: &str, at: usize) {
        let mut held = self.held.lock();
        let bytes = held.objects.get_mut(name).expect("the object is there");
        let mut damaged = bytes.to_vec();
        damaged[at] ^= 1;
        *bytes = damaged.into();
    }

    fn chance(&self, percent: u64) -> bool {
        percent > 0 && self.entropy.next_u64() % 100 < percent
    }

    /// Does `deed`, or fails before it, or after it.
    async fn attempt<T>(&self, deed: impl FnOnce(&mut Held) -> Result<T, StoreError> + Send) -> Result<T, StoreError> {
        let faults = *self.faults.lock();
        while self.chance(faults.delays) {
            GiveWay(false).await;
        }
        let failed = |reason: &str| Err(StoreError::Failed { reason: reason.to_owned() });
        if self.away.load(Ordering::SeqCst) {
            return failed("the store is away");
        }
        if self.chance(faults.fails) {
            return failed("the call did not arrive");
        }
        let done = deed(&mut self.held.lock());
        if self.chance(faults.loses) {
            return failed("the answer was lost");
        }
        done
    }
}

/// Lets others run once.
struct GiveWay(bool);

impl Future for GiveWay {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.0 {
            return Poll::Ready(());
        }
        self.0 = true;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

fn missing(name: &str) -> StoreError {
    StoreError::Missing { name: name.to_owned() }
}

#[async_trait]
impl Store for MemoryStore {
    async fn prepare(&self) -> Result<(), StoreError> {
        self.attempt(|_| Ok(())).await
    }

    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        if self.refused.lock().is_some_and(|folder| name.starts_with(folder)) {
            return Err(StoreError::Failed { reason: format!("{name} is refused") });
        }
        self.attempt(|held| {
            if held.objects.contains_key(name) {
                return Err(StoreError::Exists { name: name.to_owned() });
            }
            held.objects.insert(name.to_owned(), bytes);
            Ok(())
        })
        .await
    }

    async fn get(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.attempt(|held| {
            let bytes = held.objects.get(name).ok_or_else(|| missing(name))?;
            let (start, end) = (range.start as usize, range.end as usize);
            if start > end || end > bytes.len() {
                return Err(StoreError::Damaged { name: name.to_owned(), what: "it is shorter".to_owned() });
            }
            Ok(bytes.slice(start..end))
        })
        .await
    }

    async fn get_all(&self, name: &str) -> Result<Bytes, StoreError> {
        self.attempt(|held| held.objects.get(name).cloned().ok_or_else(|| missing(name))).await
    }

    async fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        self.attempt(|held| {
            let below = held.objects.iter().filter(|(name, _)| name.starts_with(folder));
            Ok(below.map(|(name, bytes)| Listed { name: name.clone(), bytes: bytes.len() as u64 }).collect())
        })
        .await
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.attempt(|held| {
            held.objects.remove(name);
            Ok(())
        })
        .await
    }

    async fn head(&self) -> Result<Option<Head>, StoreError> {
        self.attempt(|held| {
            let head = held.head.as_ref();
            Ok(head.map(|(n, bytes)| Head { version: HeadVersion::new(n.to_string()), bytes: bytes.clone() }))
        })
        .await
    }

    async fn replace_head(&self, was: Option<&HeadVersion>, bytes: Bytes) -> Result<HeadVersion, StoreError> {
        self.attempt(|held| {
            let now = held.head.as_ref().map(|(n, _)| HeadVersion::new(n.to_string()));
            if held.head.as_ref().is_some_and(|(_, there)| *there == bytes) {
                return Ok(now.expect("there is a head"));
            }
            if now.as_ref() != was {
                return Err(StoreError::HeadChanged);
            }
            held.heads += 1;
            held.head = Some((held.heads, bytes));
            Ok(HeadVersion::new(held.heads.to_string()))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_keeps_the_contract_also_when_calls_fail_and_answers_are_lost() {
        for seed in 0..50 {
            let store = MemoryStore::new(seed);
            if seed > 0 {
                store.set_faults(Faults { fails: 20, loses: 20, delays: 20 });
            }
            crate::store::conformance::run(&store, &store.clone()).await;
        }
    }
}
