//! The operator's token: shown once, kept as a salted hash.
//!
//! An agent behind the gateway may read files, so what is on disk must not open anything: a token has 256 random bits,
//! and the file holds a salt and SHA-256 over salt and token. With that much chance in the token a slow hash adds nothing.

use std::{
    fmt, fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use cairn_clock::Entropy;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Shortest token that an operator may bring.
const TOKEN_BYTES_MIN: usize = 16;

/// The credential file of a data folder.
#[derive(Clone, Debug)]
pub struct Credential {
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    salt: String,
    sha256: String,
}

/// Why a credential cannot be made or checked.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The file cannot be read or written.
    #[error("the operator credential {path:?}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Nobody has made one, as where `cairn wrap` started the `up`.
    #[error("there is no operator token yet: make one with `cairn operator new --data {}`", data.display())]
    Missing {
        /// The data folder.
        data: PathBuf,
    },
    /// The file is not what this version writes.
    #[error("the operator credential {path:?} is damaged: make a new one with `cairn operator new`")]
    Damaged {
        /// Where.
        path: PathBuf,
    },
    /// The token is too short to be safe.
    #[error("an operator token has at least {TOKEN_BYTES_MIN} characters; leave CAIRN_OPERATOR_TOKEN unset to get one")]
    Short,
}

/// A token, which shows itself only where it is asked to.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// A new one.
    pub(crate) fn random(entropy: &Entropy) -> Self {
        let mut secret = [0; 32];
        entropy.fill(&mut secret);
        Self(format!("cairn-op-{}", hex::encode(secret)))
    }

    /// The token, to be printed once.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Credential {
    /// The credential of a data folder; nothing is read yet.
    #[must_use]
    pub fn of(data: &Path) -> Self {
        Self { path: data.join("operator.json") }
    }

    /// Whether there is one.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.path.exists()
    }

    /// Makes a new token, replacing any other.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn renew(&self, entropy: &Entropy) -> Result<Token, CredentialError> {
        let token = Token::random(entropy);
        self.keep(token.reveal(), entropy)?;
        Ok(token)
    }

    /// Keeps the hash of a token that the operator brought.
    ///
    /// # Errors
    /// Where the token is too short or the file cannot be written.
    pub fn keep(&self, token: &str, entropy: &Entropy) -> Result<(), CredentialError> {
        if token.len() < TOKEN_BYTES_MIN {
            return Err(CredentialError::Short);
        }
        let mut salt = [0; 16];
        entropy.fill(&mut salt);
        let salt = hex::encode(salt);
        let stored = Stored { format: 1, sha256: hex::encode(hash(&salt, token)), salt };
        let text = serde_json::to_vec(&stored).expect("three plain fields are JSON");
        replace(&self.path, &text).map_err(|source| CredentialError::Io { path: self.path.clone(), source })
    }

    /// Whether `token` is the operator's. The file is read each time, so that a new token counts at once.
    ///
    /// # Errors
    /// Where the file cannot be read: then nobody is let in.
    pub fn admits(&self, token: &str) -> Result<bool, CredentialError> {
        let text = fs::read(&self.path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => {
                CredentialError::Missing { data: self.path.parent().unwrap_or(Path::new(".")).to_owned() }
            }
            _ => CredentialError::Io { path: self.path.clone(), source },
        })?;
        let damaged = || CredentialError::Damaged { path: self.path.clone() };
        let stored: Stored = serde_json::from_slice(&text).map_err(|_| damaged())?;
        let kept = hex::decode(&stored.sha256).map_err(|_| damaged())?;
        Ok(hash(&stored.salt, token).ct_eq(kept.as_slice()).into())
    }
}

/// Replaces a file whole; after power loss it is the new one.
pub(crate) fn replace(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = fs::File::options().create(true).write(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    // Else power loss would bring the old token back.
    fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

pub(crate) fn hash(salt: &str, token: &str) -> [u8; 32] {
    Sha256::new().chain_update(salt).chain_update([0]).chain_update(token).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_token_is_admitted_and_no_file_holds_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let credential = Credential::of(folder.path());
        let entropy = Entropy::system();
        let old = credential.renew(&entropy).expect("written");
        let new = credential.renew(&entropy).expect("written");
        assert!(credential.admits(new.reveal()).expect("readable"));
        assert!(!credential.admits(old.reveal()).expect("readable"));
        assert!(!credential.admits("").expect("readable"));
        for entry in fs::read_dir(folder.path()).expect("a folder") {
            let text = fs::read_to_string(entry.expect("an entry").path()).expect("text");
            assert!(!text.contains(new.reveal()) && !text.contains(&new.reveal()[9..]));
        }
    }

    #[test]
    fn where_there_is_none_the_error_says_how_to_make_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = Credential::of(folder.path()).admits("cairn-op-anything").expect_err("nobody is let in");
        let says = format!("`cairn operator new --data {}`", folder.path().display());
        assert!(error.to_string().contains(&says), "{error}");
    }

    #[test]
    fn a_short_token_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let short = Credential::of(folder.path()).keep("hunter2", &Entropy::system());
        assert!(matches!(short, Err(CredentialError::Short)));
    }
}
