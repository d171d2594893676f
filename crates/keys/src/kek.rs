//! The key-encryption key: what wraps a key, and lies outside of what is encrypted under that.
//!
//! From a file ([`FileKey`]), from wherever the caller has it ([`GivenKey`], for a key in the environment), or from a key
//! management service ([`crate::KmsKey`]). It is asked at the start and at a rotation, never on the path of a call.

use std::{
    fmt,
    fs::{self, File},
    io::Write,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use cairn_clock::Entropy;
use sha2::{Digest, Sha256};

use crate::Secret;

/// Why a key-encryption key could not be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyEncryptionError {
    /// Its file cannot be read or made.
    #[error("the key file {} cannot be used: {what}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why, and what to do.
        what: String,
    },
    /// It is no key.
    #[error(
        "{what} is no key: it is 32 bytes, as they are, in 64 hexadecimal digits or in base64 (`openssl rand -hex 32`)"
    )]
    Form {
        /// Where it came from; never what it is.
        what: String,
    },
    /// It did not wrap what it is to unwrap.
    #[error("{id} does not open what it is said to have wrapped: it is another key, or the file is damaged")]
    Wrong {
        /// Which key.
        id: String,
    },
    /// The service refused or is not there.
    #[error("the key management service: {what}")]
    Service {
        /// What it said; never a key.
        what: String,
    },
}

/// Wraps and unwraps keys. It MUST say the same id for the same key for ever: the id says which key to look for.
#[async_trait]
pub trait KeyEncryption: fmt::Debug + Send + Sync {
    /// Which key; shown to people, and says nothing of the key.
    fn id(&self) -> String;

    /// The key, so that only this can make it a key again.
    async fn wrap(&self, key: &Secret) -> Result<Vec<u8>, KeyEncryptionError>;

    /// The key that was wrapped.
    async fn unwrap(&self, wrapped: &[u8]) -> Result<Secret, KeyEncryptionError>;
}

/// What a key wraps keys for: what was wrapped for one opens nothing of the other.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Purpose {
    /// The vault's master key.
    #[default]
    Vault,
    /// The keys of files.
    AtRest,
}

impl Purpose {
    const fn about(self) -> &'static [u8] {
        match self {
            Self::Vault => b"cairn vault master key",
            Self::AtRest => b"cairn key of files",
        }
    }

    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Vault => "cairn-vault",
            Self::AtRest => "cairn-at-rest",
        }
    }
}

/// A key that the caller has, such as one from the environment. It wraps for the vault unless it is told otherwise.
#[derive(Clone, Debug)]
pub struct GivenKey {
    id: String,
    secret: Secret,
    purpose: Purpose,
}

impl GivenKey {
    /// The same key for another purpose.
    #[must_use]
    pub fn of(self, purpose: Purpose) -> Self {
        Self { purpose, ..self }
    }

    /// A key from `text`: 32 bytes as hexadecimal digits or base64. `kind` says where it comes from, in one word.
    ///
    /// # Errors
    /// It is no key.
    pub fn read(kind: &str, text: &[u8]) -> Result<Self, KeyEncryptionError> {
        let secret = parsed(text).ok_or_else(|| KeyEncryptionError::Form { what: format!("the {kind}") })?;
        // The id follows from the key one way, so that it can be recognized and says nothing of it.
        let named = secret.derive("id");
        Ok(Self {
            id: format!("{kind}:{}", &hex::encode(Sha256::digest(named.bytes()))[..16]),
            secret,
            purpose: Purpose::Vault,
        })
    }
}

fn parsed(text: &[u8]) -> Option<Secret> {
    if let Some(secret) = Secret::read(text) {
        return Some(secret);
    }
    let text = std::str::from_utf8(text).ok()?.trim();
    let bytes = hex::decode(text).ok().or_else(|| STANDARD.decode(text).ok())?;
    Secret::read(&bytes)
}

#[async_trait]
impl KeyEncryption for GivenKey {
    fn id(&self) -> String {
        self.id.clone()
    }

    async fn wrap(&self, key: &Secret) -> Result<Vec<u8>, KeyEncryptionError> {
        Ok(self.secret.seal(&Entropy::system(), self.purpose.about(), key.bytes()))
    }

    async fn unwrap(&self, wrapped: &[u8]) -> Result<Secret, KeyEncryptionError> {
        let opened = self.secret.open(self.purpose.about(), wrapped);
        opened.and_then(|key| Secret::read(&key)).ok_or_else(|| KeyEncryptionError::Wrong { id: self.id() })
    }
}

/// A key in a file that only its owner may read.
#[derive(Debug)]
pub struct FileKey;

impl FileKey {
    /// The key in that file.
    ///
    /// # Errors
    /// The file is missing, others may read it, or it holds no key.
    pub fn read(path: &Path) -> Result<GivenKey, KeyEncryptionError> {
        let refused = |what: String| KeyEncryptionError::File { path: path.to_owned(), what };
        let meta = fs::metadata(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => refused(
                "it is not there; without it nothing can be read that is encrypted under it: put it back from a backup"
                    .to_owned(),
            ),
            _ => refused(error.to_string()),
        })?;
        if meta.mode() & 0o077 != 0 {
            return Err(refused(format!("others may read it: chmod 600 {}", path.display())));
        }
        let text = fs::read(path).map_err(|error| refused(error.to_string()))?;
        GivenKey::read("file", &text)
            .map_err(|_| KeyEncryptionError::Form { what: format!("the content of {}", path.display()) })
    }

    /// Makes a key in a file that must not be there yet.
    ///
    /// # Errors
    /// The file is there, or cannot be written.
    pub fn make(path: &Path, entropy: &Entropy) -> Result<GivenKey, KeyEncryptionError> {
        let refused =
            |error: std::io::Error| KeyEncryptionError::File { path: path.to_owned(), what: error.to_string() };
        let text = hex::encode(Secret::draw(entropy).bytes()) + "\n";
        let mut file = File::options().create_new(true).write(true).mode(0o600).open(path).map_err(refused)?;
        file.write_all(text.as_bytes()).map_err(refused)?;
        file.sync_all().map_err(refused)?;
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(refused)?;
        Self::read(path)
    }
}
