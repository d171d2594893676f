//! What a login gave, on disk: sealed by a key of the configuration, or not at all. An agent behind a filesystem server may
//! read the data folder, so nothing readable lies there.
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | `CAIRNSE1` |
//! | 12 | nonce |
//! | rest | ChaCha20-Poly1305 over JSON, with the server's name as associated data |

use std::{
    fmt, fs,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use cairn_clock::Entropy;
use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, Salt},
};

use crate::OptionsError;

const MAGIC: &[u8; 8] = b"CAIRNSE1";
/// Fewer characters than this can be guessed.
const KEY_CHARS_MIN: usize = 32;
/// Largest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The key that seals what logins gave.
#[derive(Clone)]
pub struct SealKey(Arc<LessSafeKey>);

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey(..)")
    }
}

impl SealKey {
    /// A key made from random text, such as `openssl rand -hex 32` prints.
    ///
    /// # Errors
    /// Where the text is too short to be one.
    pub fn new(text: &str) -> Result<Self, OptionsError> {
        let text = text.trim();
        if text.len() < KEY_CHARS_MIN {
            let words =
                format!("the key is shorter than {KEY_CHARS_MIN} characters: make one with `openssl rand -hex 32`");
            return Err(OptionsError(words));
        }
        let pseudo_random = Salt::new(HKDF_SHA256, b"cairn").extract(text.as_bytes());
        let key = pseudo_random.expand(&[b"credentials"], &CHACHA20_POLY1305).expect("the length is this algorithm's");
        Ok(Self(Arc::new(LessSafeKey::new(UnboundKey::from(key)))))
    }
}

/// One server's file.
#[derive(Clone, Debug)]
pub(crate) struct Sealed {
    path: PathBuf,
    server: String,
    key: SealKey,
    entropy: Entropy,
}

impl Sealed {
    pub(crate) fn new(folder: &Path, server: &str, key: SealKey, entropy: Entropy) -> Self {
        Self { path: folder.join(format!("{server}.sealed")), server: server.to_owned(), key, entropy }
    }

    /// What was kept; nothing where there is none, or another key sealed it.
    pub(crate) fn load(&self) -> Option<Vec<u8>> {
        let length = fs::metadata(&self.path).ok()?.len();
        let bytes = (length <= FILE_BYTES_MAX).then(|| fs::read(&self.path).ok()).flatten()?;
        let opened = self.open(&bytes);
        if opened.is_none() {
            tracing::warn!(server = %self.server, "what the last login gave cannot be opened with this key: somebody must log in again");
        }
        opened
    }

    fn open(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = bytes.strip_prefix(MAGIC)?.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut open = sealed.to_vec();
        let length = self.key.0.open_in_place(nonce, Aad::from(self.server.as_bytes()), &mut open).ok()?.len();
        open.truncate(length);
        Some(open)
    }

    /// Keeps it, whole or not at all.
    pub(crate) fn save(&self, open: &[u8]) -> std::io::Result<()> {
        let mut nonce = [0; NONCE_LEN];
        self.entropy.fill(&mut nonce);
        let mut sealed = open.to_vec();
        let (aad, unique) = (Aad::from(self.server.as_bytes()), Nonce::assume_unique_for_key(nonce));
        self.key
            .0
            .seal_in_place_append_tag(unique, aad, &mut sealed)
            .map_err(|_| std::io::Error::other("sealing failed"))?;
        let folder = self.path.parent().unwrap_or(Path::new("."));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let fresh = self.path.with_extension("new");
        let mut file = fs::File::options().create(true).write(true).truncate(true).mode(0o600).open(&fresh)?;
        for part in [&MAGIC[..], &nonce, &sealed] {
            file.write_all(part)?;
        }
        file.sync_all()?;
        fs::rename(&fresh, &self.path)?;
        fs::File::open(folder)?.sync_all()
    }

    /// Forgets it.
    pub(crate) fn clear(&self) {
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(server = %self.server, %error, "what a login gave could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(folder: &Path, server: &str, key: &str) -> Sealed {
        Sealed::new(folder, server, SealKey::new(key).expect("long enough"), Entropy::system())
    }

    #[test]
    fn only_the_same_key_and_server_open_it_and_the_file_does_not_show_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let (one, other) = ("k".repeat(32), "l".repeat(32));
        sealed(folder.path(), "a", &one).save(b"s3cret").expect("written");
        assert_eq!(sealed(folder.path(), "a", &one).load().as_deref(), Some(&b"s3cret"[..]));
        assert_eq!(sealed(folder.path(), "a", &other).load(), None);
        let bytes = fs::read(folder.path().join("a.sealed")).expect("a file");
        assert!(!bytes.windows(6).any(|part| part == b"s3cret"));
        fs::write(folder.path().join("b.sealed"), &bytes).expect("copied");
        assert_eq!(sealed(folder.path(), "b", &one).load(), None, "one server's login is not another's");
        let mut changed = bytes;
        *changed.last_mut().expect("a byte") ^= 1;
        fs::write(folder.path().join("a.sealed"), changed).expect("changed");
        assert_eq!(sealed(folder.path(), "a", &one).load(), None);
    }

    #[test]
    fn a_short_key_is_refused_and_none_shows_itself() {
        assert!(SealKey::new("hunter2").is_err());
        assert!(!format!("{:?}", SealKey::new(&"s3cret".repeat(8)).expect("long")).contains("s3cret"));
    }
}
