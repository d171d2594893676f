//! A service's client between ours and a service, whose faults a seed decides: calls that do not arrive, answers that come late or never,
//! requests that are repeated below us after they succeeded, conflicts that left nothing, conditions that nobody heeds.
//! For tests, over object_store's store in memory or over a real server.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use cairn_clock::Entropy;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UpdateVersion,
    list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore},
    memory::InMemory,
    path::Path,
};

use super::{Client, Versions};

/// What is added to a version in memory to have a generation: none is the stranger of the probe.
const FIRST_GENERATION: u64 = 1_000_000;

/// How often things go wrong, in percent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    /// The call fails and nothing happened.
    pub(super) fails: u64,
    /// The call happened and its answer is lost.
    pub(super) loses: u64,
    /// The call gives way to others first.
    pub(super) delays: u64,
    /// A put is sent again after it succeeded, and the second answer is given.
    pub(super) repeats: u64,
    /// A put is answered with a conflict and nothing happened.
    pub(super) conflicts: u64,
}

/// Which conditions are heeded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Heeds {
    #[default]
    All,
    /// Creates replace what is there.
    NotCreate,
    /// Updates replace whatever is there.
    NotUpdate,
    /// No update is the right one.
    NoUpdate,
}

#[derive(Clone)]
pub(super) struct Losing {
    inner: Arc<dyn ObjectStore>,
    /// None for a store in memory, which gives no pages and names versions by tags.
    pages: Option<Arc<dyn PaginatedListStore>>,
    versions: Versions,
    faults: Faults,
    pub(super) heeds: Heeds,
    entropy: Entropy,
}

impl fmt::Debug for Losing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Losing").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl fmt::Display for Losing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "losing {}", self.inner)
    }
}

fn failed(why: &'static str) -> Error {
    Error::Generic { store: "losing", source: why.into() }
}

impl Losing {
    pub(super) fn in_memory(memory: &InMemory, versions: Versions, faults: Faults, seed: u64) -> Self {
        let (inner, heeds, entropy) = (Arc::new(memory.clone()), Heeds::All, Entropy::seeded(seed));
        Self { inner, pages: None, versions, faults, heeds, entropy }
    }

    pub(super) fn over(client: Arc<dyn Client>, faults: Faults, seed: u64) -> Self {
        let (inner, pages): (Arc<dyn ObjectStore>, Arc<dyn PaginatedListStore>) = (client.clone(), client);
        let (versions, heeds, entropy) = (Versions::Tag, Heeds::All, Entropy::seeded(seed));
        Self { inner, pages: Some(pages), versions, faults, heeds, entropy }
    }

    fn chance(&self, percent: u64) -> bool {
        percent > 0 && self.entropy.next_u64() % 100 < percent
    }

    async fn attempt<T>(&self, deed: impl Future<Output = Result<T>>) -> Result<T> {
        while self.chance(self.faults.delays) {
            tokio::task::yield_now().await;
        }
        if self.chance(self.faults.fails) {
            return Err(failed("the call did not arrive"));
        }
        let done = deed.await;
        if self.chance(self.faults.loses) {
            return Err(failed("the answer was lost"));
        }
        done
    }

    fn has_generations(&self) -> bool {
        self.pages.is_none() && self.versions == Versions::Generation
    }

    /// Says a version in memory as a service with generations does, where a tag says nothing.
    fn dress(&self, e_tag: &mut Option<String>, version: &mut Option<String>) {
        if self.has_generations() {
            let number: u64 = e_tag.take().and_then(|tag| tag.trim_matches('"').parse().ok()).expect("a tag");
            *version = Some((FIRST_GENERATION + number).to_string());
            *e_tag = Some("\"the same for all\"".to_owned());
        }
    }

    fn mode(&self, asked: PutMode) -> Result<PutMode> {
        match (asked, self.heeds) {
            (PutMode::Create, Heeds::NotCreate) | (PutMode::Update(_), Heeds::NotUpdate) => Ok(PutMode::Overwrite),
            (PutMode::Update(_), Heeds::NoUpdate) => {
                Err(Error::Precondition { path: String::new(), source: "never".into() })
            }
            (PutMode::Update(UpdateVersion { version, .. }), _) if self.has_generations() => {
                let generation: Option<u64> = version.and_then(|version| version.parse().ok());
                let number = generation.ok_or_else(|| failed("a generation is needed"))?.checked_sub(FIRST_GENERATION);
                let tag = number.map_or_else(|| "\"none\"".to_owned(), |number| format!("\"{number}\""));
                Ok(PutMode::Update(UpdateVersion { e_tag: Some(tag), version: None }))
            }
            (asked, _) => Ok(asked),
        }
    }
}

#[async_trait]
impl ObjectStore for Losing {
    async fn put_opts(&self, location: &Path, payload: PutPayload, mut options: PutOptions) -> Result<PutResult> {
        if self.chance(self.faults.conflicts) {
            return Err(Error::AlreadyExists { path: location.to_string(), source: "a conflict".into() });
        }
        options.mode = self.mode(options.mode)?;
        if self.chance(self.faults.repeats) {
            self.inner.put_opts(location, payload.clone(), options.clone()).await?;
        }
        let mut done = self.attempt(self.inner.put_opts(location, payload, options)).await?;
        self.dress(&mut done.e_tag, &mut done.version);
        Ok(done)
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(failed("nobody puts parts"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let mut got = self.attempt(self.inner.get_opts(location, options)).await?;
        self.dress(&mut got.meta.e_tag, &mut got.meta.version);
        Ok(got)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let deleted = move |location: Result<Path>| {
            let this = this.clone();
            async move {
                let location = location?;
                this.attempt(this.inner.delete(&location)).await?;
                Ok(location)
            }
        };
        locations.then(deleted).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(failed("nobody copies"))
    }
}

#[async_trait]
impl PaginatedListStore for Losing {
    async fn list_paginated(&self, prefix: Option<&str>, options: PaginatedListOptions) -> Result<PaginatedListResult> {
        if let Some(pages) = &self.pages {
            return self.attempt(pages.list_paginated(prefix, options)).await;
        }
        let folder = Path::from(prefix.unwrap_or_default());
        let mut all: Vec<ObjectMeta> = self.attempt(self.inner.list(Some(&folder)).try_collect()).await?;
        all.sort_by(|one, other| one.location.cmp(&other.location));
        let behind = options.page_token.unwrap_or_default();
        let mut objects: Vec<_> = all.into_iter().filter(|meta| *meta.location.as_ref() > *behind).collect();
        let limit = options.max_keys.expect("a bounded page");
        let is_cut = objects.len() > limit;
        objects.truncate(limit);
        let page_token = objects.last().filter(|_| is_cut).map(|last| last.location.to_string());
        let result = ListResult { common_prefixes: Vec::new(), objects, extensions: Default::default() };
        Ok(PaginatedListResult { result, page_token })
    }
}
