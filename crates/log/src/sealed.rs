//! Objects that do not lie in the clear: stands before another store. Called by `upload` and `fetch`, as any store.
//!
//! | at | bytes | an encrypted object, little-endian |
//! | --- | --- | --- |
//! | 0 | 8 | magic and format version `COBJE001` |
//! | 8 | 2 | length of the envelope |
//! | 10 | 8 | bytes of what was put |
//! | 18 | | envelope: which key the object is encrypted under (`cairn-keys`) |
//! | | | chunks of 64 KiB, the last one shorter; each with its tag (16 bytes) behind it |
//!
//! Each object has a key of its own and is written once, so a chunk's number is its nonce. A chunk is bound to the object's
//! name, the length of the whole and its number: chunks cannot be swapped, left out or moved to another object. Objects that
//! were put in the clear are read as they are. The head says who owns the store and names files; it holds no record, and
//! stays in the clear, because two callers must be able to tell whose it is.

use std::{collections::BTreeMap, fmt, ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use cairn_keys::{AtRest, AtRestError, FileSeal, TRAILER_BYTES};
use parking_lot::Mutex;

use crate::{Head, HeadVersion, Listed, Store, StoreError, step_aside};

const MAGIC: [u8; 8] = *b"COBJE001";
const FIXED_BYTES: u64 = 18;
const CHUNK_BYTES: u64 = 64 << 10;
const TAG_BYTES: u64 = 16;
const NONCE_BYTES: usize = TRAILER_BYTES - TAG_BYTES as usize;
/// Objects whose heads are remembered.
const KNOWN_MAX: usize = 4_096;

/// A store whose new objects are encrypted, where there is a key for them.
pub struct SealedStore {
    inner: Arc<dyn Store>,
    at_rest: AtRest,
    known: Mutex<BTreeMap<String, Form>>,
}

impl fmt::Debug for SealedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedStore")
            .field("inner", &self.inner)
            .field("at_rest", &self.at_rest)
            .finish_non_exhaustive()
    }
}

/// How one object lies in the store.
#[derive(Clone, Debug)]
enum Form {
    Plain,
    Sealed { seal: Arc<FileSeal>, head: u64, length: u64 },
}

impl SealedStore {
    /// Stands before `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, at_rest: AtRest) -> Self {
        Self { inner, at_rest, known: Mutex::default() }
    }

    async fn form(&self, name: &str) -> Result<Form, StoreError> {
        if let Some(known) = self.known.lock().get(name) {
            return Ok(known.clone());
        }
        let form = match self.inner.get(name, 0..FIXED_BYTES).await {
            // Shorter than any encrypted one.
            Err(StoreError::Damaged { .. }) => Form::Plain,
            fixed => self.read_form(name, &fixed?).await?,
        };
        let mut known = self.known.lock();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(name.to_owned(), form.clone());
        Ok(form)
    }

    async fn read_form(&self, name: &str, fixed: &[u8]) -> Result<Form, StoreError> {
        if fixed[..8] != MAGIC {
            return Ok(Form::Plain);
        }
        let envelope = u64::from(u16::from_le_bytes(fixed[8..10].try_into().expect("two bytes")));
        let length = u64::from_le_bytes(fixed[10..18].try_into().expect("eight bytes"));
        let head = FIXED_BYTES + envelope;
        let envelope = self.inner.get(name, FIXED_BYTES..head).await?;
        let at_rest = self.at_rest.clone();
        let seal = apart(move || at_rest.file(&envelope)).await?.map_err(|error| refused(name, &error))?;
        Ok(Form::Sealed { seal: Arc::new(seal), head, length })
    }

    /// The chunks that hold `range`, opened.
    async fn open(&self, name: &str, form: &Form, range: Range<u64>) -> Result<Bytes, StoreError> {
        let damaged = |what: &str| StoreError::Damaged { name: name.to_owned(), what: what.to_owned() };
        let Form::Sealed { seal, head, length } = form else { return self.inner.get(name, range).await };
        if range.end > *length || range.start > range.end {
            return Err(damaged("it is shorter than it was"));
        }
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let (first, last) = (range.start / CHUNK_BYTES, (range.end - 1) / CHUNK_BYTES);
        let at = |chunk: u64| head + chunk * (CHUNK_BYTES + TAG_BYTES);
        let end_of = |chunk: u64| length.saturating_sub(chunk * CHUNK_BYTES).min(CHUNK_BYTES);
        let mut sealed = self.inner.get(name, at(first)..at(last) + end_of(last) + TAG_BYTES).await?;
        let mut opened = BytesMut::new();
        for chunk in first..=last {
            step_aside();
            let text = sealed.split_to(usize_of(end_of(chunk)));
            let tag = sealed.split_to(usize_of(TAG_BYTES));
            let mut trailer = [0; TRAILER_BYTES];
            trailer[NONCE_BYTES - 8..NONCE_BYTES].copy_from_slice(&chunk.to_be_bytes());
            trailer[NONCE_BYTES..].copy_from_slice(&tag);
            let plain = seal.open(&about(name, *length, chunk), &text, &trailer);
            opened.extend_from_slice(&plain.ok_or_else(|| damaged("it was changed since it was encrypted"))?);
        }
        let from = usize_of(range.start - first * CHUNK_BYTES);
        Ok(opened.freeze().slice(from..from + usize_of(range.end - range.start)))
    }
}

/// Work that takes a while, on a thread where it holds up nobody; here, where there is no runtime.
pub(crate) async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
    if tokio::runtime::Handle::try_current().is_err() {
        return Ok(work());
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| StoreError::Failed { reason: error.to_string() })
}

fn usize_of(bytes: u64) -> usize {
    usize::try_from(bytes).expect("an object is below 4 GiB")
}

fn about(name: &str, length: u64, chunk: u64) -> Vec<u8> {
    [name.as_bytes(), &[0], &length.to_be_bytes(), &chunk.to_be_bytes()].concat()
}

fn refused(name: &str, error: &AtRestError) -> StoreError {
    let reason = format!("cannot read object {name}: {error}; nothing was changed");
    match error {
        AtRestError::Unusable { may_pass: true, .. } => StoreError::Failed { reason },
        AtRestError::Damaged => StoreError::Damaged { name: name.to_owned(), what: error.to_string() },
        AtRestError::Missing { .. } | AtRestError::Unusable { .. } => StoreError::Unsupported { reason },
    }
}

/// An object as it lies in the store.
fn seal(name: &str, bytes: &[u8], (seal, envelope): &(FileSeal, Vec<u8>)) -> Bytes {
    let length = bytes.len() as u64;
    let chunks = bytes.len().div_ceil(usize_of(CHUNK_BYTES));
    let whole = usize_of(FIXED_BYTES) + envelope.len() + bytes.len() + chunks * usize_of(TAG_BYTES);
    let mut out = BytesMut::with_capacity(whole);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&u16::try_from(envelope.len()).expect("an envelope is short").to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(envelope);
    for (chunk, text) in (0..).zip(bytes.chunks(usize_of(CHUNK_BYTES))) {
        step_aside();
        let at = out.len();
        out.extend_from_slice(text);
        let trailer = seal.seal_numbered(chunk, &about(name, length, chunk), &mut out[at..]);
        out.extend_from_slice(&trailer[NONCE_BYTES..]);
    }
    out.freeze()
}

#[async_trait]
impl Store for SealedStore {
    async fn prepare(&self) -> Result<(), StoreError> {
        self.inner.prepare().await
    }

    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        let bytes = match self.at_rest.new_file() {
            None => bytes,
            Some(file) => {
                let name = name.to_owned();
                apart(move || seal(&name, &bytes, &file)).await?
            }
        };
        self.inner.put(name, bytes).await
    }

    async fn get(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let form = self.form(name).await?;
        self.open(name, &form, range).await
    }

    async fn get_all(&self, name: &str) -> Result<Bytes, StoreError> {
        match self.form(name).await? {
            Form::Plain => self.inner.get_all(name).await,
            form @ Form::Sealed { length, .. } => self.open(name, &form, 0..length).await,
        }
    }

    async fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        self.inner.list(folder).await
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.known.lock().remove(name);
        self.inner.delete(name).await
    }

    async fn head(&self) -> Result<Option<Head>, StoreError> {
        self.inner.head().await
    }

    async fn replace_head(&self, was: Option<&HeadVersion>, bytes: Bytes) -> Result<HeadVersion, StoreError> {
        self.inner.replace_head(was, bytes).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        FolderStore, asked,
        sim::{at_rest, drive},
        store::memory::MemoryStore,
    };

    fn store(folder: &std::path::Path, at_rest: AtRest) -> SealedStore {
        SealedStore::new(Arc::new(FolderStore::new(folder.join("objects"))), at_rest)
    }

    #[tokio::test]
    async fn it_keeps_the_contract() {
        let folder = tempfile::tempdir().expect("a folder");
        let (one, two) = (store(folder.path(), at_rest(1, &[])), store(folder.path(), at_rest(2, &[1])));
        crate::store::conformance::run(&one, &two).await;
    }

    #[tokio::test]
    async fn whatever_is_asked_for_is_what_was_put_and_nothing_of_it_lies_in_the_clear() {
        let folder = tempfile::tempdir().expect("a folder");
        let on = store(folder.path(), at_rest(1, &[]));
        on.prepare().await.expect("prepared");
        for length in [0, 1, 65_535, 65_536, 65_537, 200_000] {
            let bytes: Bytes = (0..length).map(|n: u32| (n % 251) as u8).collect::<Vec<_>>().into();
            let name = format!("data/1/{length}");
            on.put(&name, bytes.clone()).await.expect("put");
            assert_eq!(on.get_all(&name).await.expect("readable"), bytes);
            for (from, to) in [(0_u32, 1), (65_535, 65_537), (65_536, 131_072), (0, length), (70_000, 199_999), (5, 5)]
            {
                let got = on.get(&name, u64::from(from)..u64::from(to)).await;
                match bytes.get(from as usize..to as usize) {
                    Some(wanted) => assert_eq!(got.expect("readable"), wanted, "{from}..{to} of {length}"),
                    None => assert!(got.is_err(), "{from}..{to} of {length}"),
                }
            }
            let raw = std::fs::read(folder.path().join("objects").join(&name)).expect("there");
            let clear = bytes.get(..16).is_some_and(|begin| raw.windows(16).any(|window| window == begin));
            assert!(raw.starts_with(&MAGIC) && !clear, "{length}");
        }
    }

    #[test]
    fn who_encrypts_or_decrypts_much_steps_aside_at_each_chunk() {
        let on = SealedStore::new(Arc::new(MemoryStore::new(1)), at_rest(1, &[]));
        let bytes = Bytes::from(vec![7; 5 * 65_536]);
        let before = asked();
        drive(on.put("data/1/a", bytes.clone())).expect("put");
        assert_eq!(asked() - before, 5);
        assert_eq!(drive(on.get("data/1/a", 65_535..65_537)).expect("readable"), bytes.slice(65_535..65_537));
        assert_eq!(asked() - before, 5 + 2);
    }

    #[tokio::test]
    async fn chunks_cannot_be_changed_swapped_cut_or_moved_and_old_objects_stay_readable() {
        let folder = tempfile::tempdir().expect("a folder");
        let off = store(folder.path(), AtRest::default());
        off.prepare().await.expect("prepared");
        let bytes: Bytes = (0..200_000_u32).map(|n| (n % 251) as u8).collect::<Vec<_>>().into();
        off.put("data/1/old", bytes.clone()).await.expect("put");
        let on = store(folder.path(), at_rest(1, &[]));
        on.put("data/1/a", bytes.clone()).await.expect("put");
        let at = |name: &str| folder.path().join("objects/data/1").join(name);
        let raw = std::fs::read(at("a")).expect("there");
        let head = raw.len() - bytes.len() - 4 * 16;
        let chunk = 65_536 + 16;
        let mut swapped = raw.clone();
        swapped[head..head + chunk].copy_from_slice(&raw[head + chunk..head + 2 * chunk]);
        swapped[head + chunk..head + 2 * chunk].copy_from_slice(&raw[head..head + chunk]);
        let mut flipped = raw.clone();
        flipped[head + 70_000] ^= 1;
        let mut shorter = raw[..head + 2 * chunk].to_vec();
        shorter[10..18].copy_from_slice(&131_072_u64.to_le_bytes());
        for (name, spoiled) in [("swapped", swapped), ("flipped", flipped), ("shorter", shorter), ("moved", raw)] {
            std::fs::write(at(name), spoiled).expect("written");
            let got = on.get_all(&format!("data/1/{name}")).await;
            assert!(matches!(got, Err(StoreError::Damaged { .. })), "{name}: {got:?}");
        }
        let newer = store(folder.path(), at_rest(2, &[1]));
        for reader in [&on, &newer, &store(folder.path(), at_rest(0, &[1]))] {
            assert_eq!(reader.get_all("data/1/old").await.expect("in the clear"), bytes);
            assert_eq!(reader.get_all("data/1/a").await.expect("its key is named"), bytes);
        }
        for without in [&off, &store(folder.path(), at_rest(2, &[]))] {
            let error = without.get_all("data/1/a").await.expect_err("no key");
            let words = error.to_string();
            assert!(matches!(error, StoreError::Unsupported { .. }), "{words}");
            assert!(words.contains("data/1/a") && words.contains("key test:") && words.contains("old_keys"), "{words}");
        }
    }
}
