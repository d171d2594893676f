//! Requests to the object store, counted by kind: what a bill goes by. Stands before any other store; put there by `open`.
//!
//! A request is counted when it is made, whatever comes of it, and what a backend tries again within it is one. The head is read by a
//! get and written by a put, as S3 has it.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Head, HeadVersion, Listed, Store};
use crate::StoreError;

/// How many of each kind since the log was opened.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    pub(crate) puts: AtomicU64,
    pub(crate) gets: AtomicU64,
    pub(crate) lists: AtomicU64,
    pub(crate) deletes: AtomicU64,
}

/// A store that counts what is asked of it.
#[derive(Debug)]
pub(crate) struct Counted {
    store: Arc<dyn Store>,
    requests: Arc<Requests>,
}

impl Counted {
    pub(crate) fn new(store: Arc<dyn Store>, requests: Arc<Requests>) -> Self {
        Self { store, requests }
    }
}

fn one_more(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[async_trait]
impl Store for Counted {
    async fn prepare(&self) -> Result<(), StoreError> {
        self.store.prepare().await
    }

    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        one_more(&self.requests.puts);
        self.store.put(name, bytes).await
    }

    async fn get(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        one_more(&self.requests.gets);
        self.store.get(name, range).await
    }

    async fn get_all(&self, name: &str) -> Result<Bytes, StoreError> {
        one_more(&self.requests.gets);
        self.store.get_all(name).await
    }

    async fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        one_more(&self.requests.lists);
        self.store.list(folder).await
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        one_more(&self.requests.deletes);
        self.store.delete(name).await
    }

    async fn head(&self) -> Result<Option<Head>, StoreError> {
        one_more(&self.requests.gets);
        self.store.head().await
    }

    async fn replace_head(&self, was: Option<&HeadVersion>, bytes: Bytes) -> Result<HeadVersion, StoreError> {
        one_more(&self.requests.puts);
        self.store.replace_head(was, bytes).await
    }
}
