//! Files that do not lie in the clear: a key for each, which follows from one that the key-encryption key wraps.
//!
//! Whoever writes files asks for a [`FileSeal`] and puts the *envelope* that comes with it into the file's head; whoever
//! reads one gives the envelope back. So each file says by itself which key it needs, and moves to another machine as it is.
//! A key is drawn and wrapped once for each opening; the key of a file follows from it and from 32 random bytes of the
//! file's own. A service is asked at the opening, and for what an earlier opening wrapped the first time that it is read.
//!
//! | envelope, at | bytes | field |
//! | --- | --- | --- |
//! | 0 | 1 | version, 1 |
//! | 1 | 32 | the file's random bytes |
//! | 33 | 2 | length of the key-encryption key's id, little-endian |
//! | 35 | | the id, UTF-8 |
//! | | | to the end: the wrapped key |
//!
//! AES-256-GCM. A nonce is drawn for each text: at 2³² texts under one key chance becomes a risk, and no file holds as many.
//! Whoever can number the texts of a file that is written once numbers the nonces instead.

use std::{collections::HashMap, fmt, sync::Arc};

use cairn_clock::Entropy;
use parking_lot::Mutex;
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, KeyType, Salt},
};

use crate::{KeyEncryption, KeyEncryptionError, Secret};

/// What a sealed text has behind it: its nonce and its tag.
pub const TRAILER_BYTES: usize = NONCE_LEN + 16;
/// The longest envelope.
pub const ENVELOPE_BYTES_MAX: usize = 900;
const VERSION: u8 = 1;
const RANDOM_BYTES: usize = 32;
/// Unwrapped keys that are remembered: each opening brings one.
const KNOWN_MAX: usize = 4_096;

/// Why a file cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AtRestError {
    /// Its key is not there.
    #[error("it is encrypted under the key {id}, which [encryption] does not name: add it to old_keys, or put it back")]
    Missing {
        /// Which key.
        id: String,
    },
    /// The key does not open it.
    #[error("its key {id} cannot be used: {why}")]
    Unusable {
        /// Which key.
        id: String,
        /// Why.
        why: String,
        /// Whether that may be another time: a service was asked.
        may_pass: bool,
    },
    /// What says which key it needs is damaged.
    #[error("what says which key it is encrypted under is damaged")]
    Damaged,
}

/// What files are encrypted under. Cheap to clone.
#[derive(Clone)]
pub struct AtRest(Arc<Inner>);

struct Inner {
    current: Option<Run>,
    keys: Vec<Arc<dyn KeyEncryption>>,
    known: Mutex<HashMap<Vec<u8>, Secret>>,
    entropy: Entropy,
}

/// The key of one opening.
struct Run {
    id: String,
    wrapped: Vec<u8>,
    secret: Secret,
}

impl Default for AtRest {
    /// New files lie in the clear, and none that does not can be read.
    fn default() -> Self {
        let (keys, known) = (Vec::new(), Mutex::default());
        Self(Arc::new(Inner { current: None, keys, known, entropy: Entropy::system() }))
    }
}

impl fmt::Debug for AtRest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AtRest").field("current", &self.current()).finish_non_exhaustive()
    }
}

impl AtRest {
    /// New files are encrypted under `current`, where there is one; `others` may have been used for those that are there.
    ///
    /// # Errors
    /// `current` does not wrap a key.
    pub async fn open(
        current: Option<Arc<dyn KeyEncryption>>,
        others: Vec<Arc<dyn KeyEncryption>>,
        entropy: Entropy,
    ) -> Result<Self, KeyEncryptionError> {
        let run = match &current {
            None => None,
            Some(key) => {
                let secret = Secret::draw(&entropy);
                let wrapped = key.wrap(&secret).await?;
                let run = Run { id: key.id(), wrapped, secret };
                if run.envelope(&[0; RANDOM_BYTES]).len() > ENVELOPE_BYTES_MAX {
                    let what = format!("{} and what it wraps are too long for the head of a file", run.id);
                    return Err(KeyEncryptionError::Service { what });
                }
                Some(run)
            }
        };
        let keys = current.into_iter().chain(others).collect();
        Ok(Self(Arc::new(Inner { current: run, keys, known: Mutex::default(), entropy })))
    }

    /// The same for what was written before alone: new files lie in the clear. Nothing where no key is named.
    #[must_use]
    pub fn reading(&self) -> Option<Self> {
        let (keys, known, entropy) = (self.0.keys.clone(), Mutex::default(), self.0.entropy.clone());
        (!keys.is_empty()).then(|| Self(Arc::new(Inner { current: None, keys, known, entropy })))
    }

    /// The key that new files are encrypted under.
    #[must_use]
    pub fn current(&self) -> Option<&str> {
        self.0.current.as_ref().map(|run| run.id.as_str())
    }

    /// What a new file is encrypted with, and its envelope; nothing where it lies in the clear.
    #[must_use]
    pub fn new_file(&self) -> Option<(FileSeal, Vec<u8>)> {
        let run = self.0.current.as_ref()?;
        let mut random = [0; RANDOM_BYTES];
        self.0.entropy.fill(&mut random);
        Some((FileSeal::new(&run.id, &run.secret, &random), run.envelope(&random)))
    }

    /// What the file with that envelope was encrypted with. May ask a service, and blocks.
    ///
    /// # Errors
    /// [`AtRestError`]
    pub fn file(&self, envelope: &[u8]) -> Result<FileSeal, AtRestError> {
        let parsed = parse(envelope).ok_or(AtRestError::Damaged)?;
        let Parsed { random, id, wrapped } = parsed;
        if let Some(run) = self.0.current.as_ref().filter(|run| run.id == id && run.wrapped == wrapped) {
            return Ok(FileSeal::new(id, &run.secret, random));
        }
        // Id and wrapped key together: whoever changes the one is asked for the other.
        let named = &envelope[1 + RANDOM_BYTES..];
        if let Some(secret) = self.0.known.lock().get(named) {
            return Ok(FileSeal::new(id, secret, random));
        }
        let key = self.0.keys.iter().find(|key| key.id() == id);
        let key = key.ok_or_else(|| AtRestError::Missing { id: id.to_owned() })?;
        let secret = unwrap_now(key, wrapped).map_err(|error| AtRestError::Unusable {
            id: id.to_owned(),
            may_pass: matches!(error, KeyEncryptionError::Service { .. }),
            why: error.to_string(),
        })?;
        let mut known = self.0.known.lock();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        let seal = FileSeal::new(id, &secret, random);
        known.insert(named.to_owned(), secret);
        Ok(seal)
    }
}

impl Run {
    fn envelope(&self, random: &[u8; RANDOM_BYTES]) -> Vec<u8> {
        let length = u16::try_from(self.id.len()).unwrap_or(u16::MAX);
        let mut out = vec![VERSION];
        out.extend_from_slice(random);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(&self.wrapped);
        out
    }
}

struct Parsed<'a> {
    random: &'a [u8],
    id: &'a str,
    wrapped: &'a [u8],
}

fn parse(envelope: &[u8]) -> Option<Parsed<'_>> {
    let (version, rest) = envelope.split_first()?;
    let (random, rest) = rest.split_at_checked(RANDOM_BYTES)?;
    let (length, rest) = rest.split_first_chunk()?;
    let (id, wrapped) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    let id = std::str::from_utf8(id).ok()?;
    (*version == VERSION && envelope.len() <= ENVELOPE_BYTES_MAX).then_some(Parsed { random, id, wrapped })
}

/// Asks a key from code that blocks, whatever runtime it is called in: a service is asked on a runtime of this call's own.
fn unwrap_now(key: &Arc<dyn KeyEncryption>, wrapped: &[u8]) -> Result<Secret, KeyEncryptionError> {
    let failed = |what: String| KeyEncryptionError::Service { what };
    let (key, wrapped) = (key.clone(), wrapped.to_owned());
    let asked = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| KeyEncryptionError::Service { what: error.to_string() })?;
        runtime.block_on(key.unwrap(&wrapped))
    });
    asked.join().map_err(|_| failed("it could not be asked".to_owned()))?
}

/// The key of one file.
pub struct FileSeal {
    id: String,
    key: LessSafeKey,
}

impl fmt::Debug for FileSeal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSeal").field("id", &self.id).finish_non_exhaustive()
    }
}

impl FileSeal {
    fn new(id: &str, secret: &Secret, random: &[u8]) -> Self {
        struct Len;
        impl KeyType for Len {
            fn len(&self) -> usize {
                32
            }
        }
        let prk = Salt::new(HKDF_SHA256, random).extract(secret.bytes());
        let mut bytes = [0; 32];
        let okm = prk.expand(&[b"cairn file"], Len).expect("32 bytes are within what HKDF gives");
        okm.fill(&mut bytes).expect("the length is the one asked for");
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &bytes).expect("the key has 32 bytes"));
        bytes.fill(0);
        std::hint::black_box(&bytes);
        Self { id: id.to_owned(), key }
    }

    /// Under which key-encryption key.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.id
    }

    /// Seals `text` in place, bound to `about`; gives what must stand behind it.
    pub fn seal(&self, entropy: &Entropy, about: &[u8], text: &mut [u8]) -> [u8; TRAILER_BYTES] {
        let mut nonce = [0; NONCE_LEN];
        entropy.fill(&mut nonce);
        self.seal_with(nonce, about, text)
    }

    /// The same for the text of that number, in a file that is written once.
    pub fn seal_numbered(&self, number: u64, about: &[u8], text: &mut [u8]) -> [u8; TRAILER_BYTES] {
        let mut nonce = [0; NONCE_LEN];
        nonce[NONCE_LEN - 8..].copy_from_slice(&number.to_be_bytes());
        self.seal_with(nonce, about, text)
    }

    fn seal_with(&self, nonce: [u8; NONCE_LEN], about: &[u8], text: &mut [u8]) -> [u8; TRAILER_BYTES] {
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(about), text)
            .expect("a file's texts are far below the most that the cipher takes");
        let mut trailer = [0; TRAILER_BYTES];
        trailer[..NONCE_LEN].copy_from_slice(&nonce);
        trailer[NONCE_LEN..].copy_from_slice(tag.as_ref());
        trailer
    }

    /// What was sealed; nothing where text, trailer, key or `about` are not those.
    #[must_use]
    pub fn open(&self, about: &[u8], text: &[u8], trailer: &[u8]) -> Option<Vec<u8>> {
        let (nonce, tag) = trailer.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut whole = Vec::with_capacity(text.len() + tag.len());
        whole.extend_from_slice(text);
        whole.extend_from_slice(tag);
        let length = self.key.open_in_place(nonce, Aad::from(about), &mut whole).ok()?.len();
        whole.truncate(length);
        Some(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GivenKey, Purpose};

    fn key(byte: &str) -> Arc<dyn KeyEncryption> {
        Arc::new(GivenKey::read("test", byte.repeat(32).as_bytes()).expect("a key").of(Purpose::AtRest))
    }

    async fn opened(current: Option<&str>, others: &[&str]) -> AtRest {
        let others = others.iter().map(|byte| key(byte)).collect();
        AtRest::open(current.map(key), others, Entropy::seeded(1)).await.expect("it wraps")
    }

    #[tokio::test]
    async fn a_file_opens_with_its_key_and_says_which_one_it_lacks() {
        let first = opened(Some("11"), &[]).await;
        let (seal, envelope) = first.new_file().expect("it is on");
        let mut text = *b"text";
        let trailer = seal.seal(&Entropy::seeded(2), b"place 1", &mut text);
        assert_ne!(&text, b"text");
        let later = opened(Some("22"), &["11"]).await;
        let again = later.file(&envelope).expect("the old key is named");
        assert_eq!(again.open(b"place 1", &text, &trailer).as_deref(), Some(&b"text"[..]));
        assert_eq!(again.open(b"place 2", &text, &trailer), None, "another place");
        let off = opened(None, &["11"]).await;
        assert!(off.new_file().is_none() && off.file(&envelope).is_ok());
        let reading = first.reading().expect("it has a key");
        assert!(reading.new_file().is_none() && reading.file(&envelope).is_ok());
        assert!(AtRest::default().reading().is_none());
        let (other, _) = first.new_file().expect("it is on");
        assert_eq!(other.open(b"place 1", &text, &trailer), None, "another file's key");
        for without in [opened(Some("22"), &[]).await, AtRest::default()] {
            let error = without.file(&envelope).expect_err("its key is not there");
            assert!(matches!(&error, AtRestError::Missing { id } if id == seal.key_id()), "{error}");
            assert!(error.to_string().contains("old_keys"), "{error}");
        }
        for at in 0..envelope.len() {
            let mut bad = envelope.clone();
            bad[at] ^= 1;
            let opens = later.file(&bad).ok().and_then(|seal| seal.open(b"place 1", &text, &trailer));
            assert_eq!(opens, None, "a changed byte at {at}");
        }
        for cut in 0..envelope.len() {
            assert!(later.file(&envelope[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn what_was_wrapped_for_the_vault_is_no_key_of_a_file() {
        let vault = GivenKey::read("test", "11".repeat(32).as_bytes()).expect("a key");
        let wrapped = vault.wrap(&Secret::new([7; 32])).await.expect("wrapped");
        assert!(vault.of(Purpose::AtRest).unwrap(&wrapped).await.is_err());
    }
}
