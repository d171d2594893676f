//! API keys for machines: shown once, kept as salted hashes in `keys.json` of the data folder.
//!
//! | part of a key | what |
//! | --- | --- |
//! | `cairn-key-` | so that scanners for leaked secrets know it |
//! | 16 hexadecimal digits | its id, which is no secret: it finds the key's entry |
//! | `-` | |
//! | 64 hexadecimal digits | 256 random bits |
//!
//! With that much chance in a key a slow hash adds nothing, so it is SHA-256 over salt and key. The file is replaced whole,
//! by one writer at a time, and read again when it was, so that a new key and a revocation count at once.

use std::{
    fmt, fs,
    io::Write,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use cairn_clock::{Clock, Entropy, Timestamp};
use parking_lot::Mutex;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::{
    rejection::Reason,
    who::{Credential, Identity, Kind},
};

/// What every key begins with.
pub(crate) const KEY_PREFIX: &str = "cairn-key-";
const FILE: &str = "keys.json";
const ID_DIGITS: usize = 16;
const SECRET_DIGITS: usize = 64;
/// Keys in one store.
const KEYS_MAX: usize = 10_000;
/// Longest principal, tenant or scope, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// Why the store cannot be used, or a key not be made.
#[derive(Debug, thiserror::Error)]
pub enum ApiKeyError {
    /// The file cannot be read or written.
    #[error("the API keys {path:?}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what this version writes.
    #[error("the API keys {path:?} are damaged: restore the file, or remove it and make new keys")]
    Damaged {
        /// Where.
        path: PathBuf,
    },
    /// A name that cannot be used.
    #[error("{what} must have 1 to 256 printable characters, and a scope no space or quote")]
    Name {
        /// Which.
        what: &'static str,
    },
    /// The store is full.
    #[error("there are 10000 keys: remove expired and revoked ones with `cairn key prune`")]
    Full,
    /// No key of that id.
    #[error("there is no key {id}: `cairn key list` shows them")]
    Unknown {
        /// The id.
        id: String,
    },
}

/// What a new key is for.
#[derive(Clone, Debug, Default)]
pub struct NewKey {
    /// Who it makes of its bearer.
    pub principal: String,
    /// In which tenant.
    pub tenant: Option<String>,
    /// With which scopes.
    pub scopes: Vec<String>,
    /// Until when.
    pub expires_at: Option<Timestamp>,
}

/// A key, which shows itself only where it is asked to.
#[derive(Clone)]
pub struct ApiKey(String);

impl ApiKey {
    /// The key, to be printed once.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.0[KEY_PREFIX.len()..KEY_PREFIX.len() + ID_DIGITS]
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ApiKey").field(&self.id()).finish()
    }
}

/// A key as it may be shown.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct KeyView {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub principal: String,
    /// In which tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// With which scopes.
    pub scopes: Vec<String>,
    /// When it was made.
    pub created_at: String,
    /// Until when it is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// Since when it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<String>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    principal: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    scopes: Vec<String>,
    created_us: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_us: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revoked_us: Option<u64>,
    salt: String,
    sha256: String,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: u32,
    keys: Vec<Entry>,
}

/// What tells one state of the file from the next: it is replaced, so its inode or its times change.
type Stamp = (u64, i64, i64, u64);

/// What the file held when it was read last.
type Seen = (Stamp, Arc<Stored>);

/// The keys of a data folder. Cheap to clone.
#[derive(Clone)]
pub struct ApiKeys {
    path: PathBuf,
    read: Arc<Mutex<Option<Seen>>>,
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKeys").field("path", &self.path).finish_non_exhaustive()
    }
}

impl ApiKeys {
    /// The keys of a data folder; there need be none yet.
    #[must_use]
    pub fn of(data: &Path) -> Self {
        Self { path: data.join(FILE), read: Arc::default() }
    }

    /// Makes a key.
    ///
    /// # Errors
    /// Where a name cannot be used, or the file cannot be read or replaced.
    pub fn create(&self, new: NewKey, clock: &Clock, entropy: &Entropy) -> Result<ApiKey, ApiKeyError> {
        let printable =
            |text: &str| !text.is_empty() && text.len() <= NAME_BYTES_MAX && !text.chars().any(char::is_control);
        let is_scope = |scope: &String| printable(scope) && !scope.contains([' ', '"', '\\']) && scope.is_ascii();
        for (what, usable) in [
            ("a principal", printable(&new.principal)),
            ("a tenant", new.tenant.as_deref().is_none_or(printable)),
            ("a scope", new.scopes.iter().all(is_scope)),
        ] {
            if !usable {
                return Err(ApiKeyError::Name { what });
            }
        }
        self.change(|stored| {
            if stored.keys.len() >= KEYS_MAX {
                return Err(ApiKeyError::Full);
            }
            let digits = |count: usize| {
                let mut bytes = vec![0; count / 2];
                entropy.fill(&mut bytes);
                hex::encode(bytes)
            };
            let (id, salt) = (digits(ID_DIGITS), digits(32));
            let key = ApiKey(format!("{KEY_PREFIX}{id}-{}", digits(SECRET_DIGITS)));
            stored.keys.push(Entry {
                id,
                principal: new.principal,
                tenant: new.tenant,
                scopes: new.scopes,
                created_us: clock.now().as_micros(),
                expires_us: new.expires_at.map(Timestamp::as_micros),
                revoked_us: None,
                sha256: hex::encode(hash(&salt, key.reveal())),
                salt,
            });
            Ok(key)
        })
    }

    /// Every key, oldest first.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn list(&self) -> Result<Vec<KeyView>, ApiKeyError> {
        let text = |micros: u64| Timestamp::from_micros(micros).to_string();
        let view = |entry: &Entry| KeyView {
            id: entry.id.clone(),
            principal: entry.principal.clone(),
            tenant: entry.tenant.clone(),
            scopes: entry.scopes.clone(),
            created_at: text(entry.created_us),
            expires_at: entry.expires_us.map(text),
            revoked_at: entry.revoked_us.map(text),
        };
        Ok(self.current()?.keys.iter().map(view).collect())
    }

    /// Revokes a key: it is refused from here on.
    ///
    /// # Errors
    /// Where there is none of that id, or the file cannot be replaced.
    pub fn revoke(&self, id: &str, clock: &Clock) -> Result<(), ApiKeyError> {
        self.change(|stored| {
            let entry = stored.keys.iter_mut().find(|entry| entry.id == id);
            let entry = entry.ok_or_else(|| ApiKeyError::Unknown { id: id.to_owned() })?;
            entry.revoked_us.get_or_insert(clock.now().as_micros());
            Ok(())
        })
    }

    /// Removes the keys that are revoked or expired, and says how many.
    ///
    /// # Errors
    /// Where the file cannot be replaced.
    pub fn prune(&self, clock: &Clock) -> Result<usize, ApiKeyError> {
        let now = clock.now().as_micros();
        self.change(|stored| {
            let before = stored.keys.len();
            stored.keys.retain(|entry| entry.revoked_us.is_none() && entry.expires_us.is_none_or(|end| end > now));
            Ok(before - stored.keys.len())
        })
    }

    /// Who brings that key.
    pub(crate) fn admit(&self, key: &str, now: Timestamp) -> Result<Identity, Reason> {
        let (id, _) =
            key.strip_prefix(KEY_PREFIX).and_then(|rest| rest.split_once('-')).ok_or(Reason::ApiKeyUnknown)?;
        if key.len() != KEY_PREFIX.len() + ID_DIGITS + 1 + SECRET_DIGITS {
            return Err(Reason::ApiKeyUnknown);
        }
        let stored = self.current().map_err(|error| {
            tracing::warn!(%error, "nobody is let in by an API key");
            Reason::StoreUnreadable
        })?;
        let entry = stored.keys.iter().find(|entry| entry.id == id).ok_or(Reason::ApiKeyUnknown)?;
        let kept = hex::decode(&entry.sha256).map_err(|_| Reason::StoreUnreadable)?;
        if !bool::from(hash(&entry.salt, key).as_slice().ct_eq(&kept)) {
            return Err(Reason::ApiKeyUnknown);
        }
        if entry.revoked_us.is_some() {
            return Err(Reason::ApiKeyRevoked);
        }
        if entry.expires_us.is_some_and(|end| now.as_micros() >= end) {
            return Err(Reason::ApiKeyExpired);
        }
        Ok(Identity {
            tenant: entry.tenant.clone(),
            principal: format!("key/{}", entry.principal),
            kind: Kind::Workload,
            agent: None,
            scopes: Some(entry.scopes.clone().into()),
            credential: Credential::ApiKey,
        })
    }

    /// What the file holds now; nothing where it is not there yet.
    fn current(&self) -> Result<Arc<Stored>, ApiKeyError> {
        let stamp = match fs::metadata(&self.path) {
            Ok(now) => (now.ino(), now.mtime(), now.mtime_nsec(), now.len()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Arc::new(Stored { format: 1, keys: Vec::new() }));
            }
            Err(source) => return Err(ApiKeyError::Io { path: self.path.clone(), source }),
        };
        let mut read = self.read.lock();
        if let Some((seen, stored)) = read.as_ref()
            && *seen == stamp
        {
            return Ok(stored.clone());
        }
        let stored = Arc::new(self.load()?);
        *read = Some((stamp, stored.clone()));
        Ok(stored)
    }

    fn load(&self) -> Result<Stored, ApiKeyError> {
        match fs::read(&self.path) {
            Ok(text) => serde_json::from_slice::<Stored>(&text)
                .ok()
                .filter(|stored| stored.format == 1 && stored.keys.len() <= KEYS_MAX)
                .ok_or_else(|| ApiKeyError::Damaged { path: self.path.clone() }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Stored { format: 1, keys: Vec::new() }),
            Err(source) => Err(ApiKeyError::Io { path: self.path.clone(), source }),
        }
    }

    /// Changes the file: one process at a time, all of it or nothing.
    fn change<T>(&self, by: impl FnOnce(&mut Stored) -> Result<T, ApiKeyError>) -> Result<T, ApiKeyError> {
        let fault = |source: std::io::Error| ApiKeyError::Io { path: self.path.clone(), source };
        let lock = self.path.with_extension("lock");
        let lock =
            fs::File::options().create(true).truncate(false).write(true).mode(0o600).open(&lock).map_err(fault)?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).map_err(|error| fault(error.into()))?;
        let mut stored = self.load()?;
        let done = by(&mut stored)?;
        let text = serde_json::to_vec_pretty(&stored).expect("plain fields are JSON");
        self.replace(&text).map_err(fault)?;
        Ok(done)
    }

    fn replace(&self, text: &[u8]) -> std::io::Result<()> {
        let fresh = self.path.with_extension("new");
        let mut file = fs::File::options().create(true).write(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&fresh, &self.path)?;
        // Else power loss would bring a revoked key back.
        fs::File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()
    }
}

fn hash(salt: &str, key: &str) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(salt.as_bytes());
    context.update(&[0]);
    context.update(key.as_bytes());
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, time::Duration};

    use super::*;

    fn store() -> (tempfile::TempDir, ApiKeys, Clock, Entropy) {
        let folder = tempfile::tempdir().expect("a folder");
        let keys = ApiKeys::of(folder.path());
        let clock = Clock::manual(Timestamp::from_micros(1_795_521_600_000_000));
        (folder, keys, clock, Entropy::system())
    }

    fn key_of(principal: &str) -> NewKey {
        NewKey { principal: principal.to_owned(), ..NewKey::default() }
    }

    #[test]
    fn a_key_counts_at_once_and_until_it_is_revoked_or_expires() {
        let (folder, keys, clock, entropy) = store();
        // What a gateway has open.
        let gateway = ApiKeys::of(folder.path());
        assert_eq!(gateway.admit("cairn-key-x", clock.now()).unwrap_err(), Reason::ApiKeyUnknown);
        let end = clock.now().plus(Duration::from_secs(60));
        let new =
            NewKey { tenant: Some("acme".into()), scopes: vec!["a".into()], expires_at: Some(end), ..key_of("ci") };
        let (one, two) = (
            keys.create(new, &clock, &entropy).expect("a key"),
            keys.create(key_of("cd"), &clock, &entropy).expect("a key"),
        );
        let who = gateway.admit(one.reveal(), clock.now()).expect("let in");
        assert_eq!((who.principal.as_str(), who.tenant.as_deref()), ("key/ci", Some("acme")));
        assert_eq!(who.scopes.as_deref(), Some(&["a".to_owned()][..]));
        assert!(gateway.admit(two.reveal(), clock.now()).is_ok());
        keys.revoke(two.id(), &clock).expect("revoked");
        assert_eq!(gateway.admit(two.reveal(), clock.now()).unwrap_err(), Reason::ApiKeyRevoked);
        clock.advance(Duration::from_secs(60));
        assert_eq!(gateway.admit(one.reveal(), clock.now()).unwrap_err(), Reason::ApiKeyExpired);
        assert_eq!(keys.list().expect("a list").len(), 2);
        assert_eq!(keys.prune(&clock).expect("pruned"), 2);
        assert!(matches!(keys.revoke(two.id(), &clock), Err(ApiKeyError::Unknown { .. })));
    }

    #[test]
    fn no_other_key_opens_and_the_file_holds_none() {
        let (folder, keys, clock, entropy) = store();
        let (one, two) = (
            keys.create(key_of("a"), &clock, &entropy).expect("a key"),
            keys.create(key_of("b"), &clock, &entropy).expect("a key"),
        );
        // The secret of one under the id of the other.
        let crossed = format!("{KEY_PREFIX}{}-{}", two.id(), one.reveal().rsplit('-').next().expect("a secret"));
        for wrong in [
            crossed.as_str(),
            &one.reveal()[..one.reveal().len() - 1],
            &format!("{}0", one.reveal()),
            "cairn-key-",
            "cairn-key--",
        ] {
            assert_eq!(keys.admit(wrong, clock.now()).unwrap_err(), Reason::ApiKeyUnknown);
        }
        for entry in fs::read_dir(folder.path()).expect("a folder") {
            let path = entry.expect("an entry").path();
            let text = fs::read_to_string(&path).expect("text");
            assert!(!text.contains(&one.reveal()[KEY_PREFIX.len() + ID_DIGITS + 1..]));
            assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o077, 0, "{}", path.display());
        }
        assert!(!format!("{one:?}").contains(one.reveal()));
    }

    #[test]
    fn a_damaged_store_lets_nobody_in() {
        let (folder, keys, clock, entropy) = store();
        let key = keys.create(key_of("a"), &clock, &entropy).expect("a key");
        for damage in ["", "{}", "{\"format\":2,\"keys\":[]}", "[]"] {
            fs::write(folder.path().join(FILE), damage).expect("written");
            assert_eq!(keys.admit(key.reveal(), clock.now()).unwrap_err(), Reason::StoreUnreadable, "{damage}");
        }
    }

    #[test]
    fn names_that_could_be_read_as_something_else_are_refused() {
        let (_folder, keys, clock, entropy) = store();
        for bad in [
            key_of(""),
            key_of("a\nb"),
            NewKey { scopes: vec!["a b".into()], ..key_of("x") },
            NewKey { tenant: Some(String::new()), ..key_of("x") },
        ] {
            assert!(matches!(keys.create(bad, &clock, &entropy), Err(ApiKeyError::Name { .. })));
        }
    }
}
