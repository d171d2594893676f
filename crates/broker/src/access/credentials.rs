//! The SCRAM credentials of all users, and their records in the catalogue (KIP-554). Called by [`Access`](super::Access).
//!
//! | key | value |
//! | --- | --- |
//! | `scram` | `{"decoy":"<base64>"}`: what answers for users that there are not are made from, once for all |
//! | `scram/<mechanism>/<user>` | `{"iterations":…,"salt":"<base64>","stored_key":"<base64>","server_key":"<base64>"}`, or nothing when it was deleted |
//!
//! A user that there is not has a likeness: a salt of its own that is always the same, in the form that most credentials have.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use cairn_clock::Entropy;
use ring::hmac;
use serde::{Deserialize, Serialize};

use super::scram::{Credential, Mechanism};
use crate::topics::CatalogueError;

const DECOY_KEY: &str = "scram";
const PREFIX: &str = "scram/";
/// Kafka's bounds (`ScramMechanism`): fewer are searched too quickly, more make clients slow.
const ITERATIONS_MIN: i32 = 4_096;
const ITERATIONS_MAX: i32 = 16_384;
const SALT_BYTES_MAX: usize = 256;
const USER_BYTES_MAX: usize = 256;
/// Credentials in all.
const CREDENTIALS_MAX: usize = 10_000;

/// A record of the catalogue; without a value it is gone.
pub(crate) type Record = (String, Option<Vec<u8>>);

/// One change that is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) user: String,
    /// As Kafka numbers it; may be no mechanism at all.
    pub(crate) mechanism: i8,
    /// The new credential; none deletes it.
    pub(crate) set: Option<NewCredential>,
}

/// A password that was salted by whoever sets it.
#[derive(Debug, Clone)]
pub(crate) struct NewCredential {
    pub(crate) iterations: i32,
    pub(crate) salt: Bytes,
    pub(crate) salted_password: Bytes,
}

/// Why a user's credentials are not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChangeError {
    #[error("mechanism {code} is not known: 1 is SCRAM-SHA-256, 2 is SCRAM-SHA-512")]
    Mechanism { code: i8 },
    #[error("{reason}")]
    Unacceptable { reason: String },
    #[error("a credential of this user is named twice in one request")]
    Twice,
    #[error("there is no such credential")]
    Unknown,
    #[error("the catalogue cannot be written: {reason}")]
    Storage { reason: String },
}

#[derive(Serialize, Deserialize)]
struct StoredDecoy {
    decoy: String,
}

#[derive(Serialize, Deserialize)]
struct StoredCredential {
    iterations: u32,
    salt: String,
    stored_key: String,
    server_key: String,
}

/// How credentials look from outside: iterations, bytes of salt, and whether the salt is digits and small letters, as Kafka's
/// tools make it.
type Form = (u32, usize, bool);

/// The form of a credential where there is none to be like.
const FORM: Form = (ITERATIONS_MIN as u32, 25, true);

/// All credentials.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    all: BTreeMap<(String, Mechanism), Arc<Credential>>,
    forms: BTreeMap<Mechanism, Form>,
    decoy: hmac::Key,
}

impl Credentials {
    /// From what the catalogue kept; and a record to write where there was nothing yet.
    pub(super) fn restore(
        kept: &BTreeMap<String, Vec<u8>>,
        entropy: &Entropy,
    ) -> Result<(Self, Option<Record>), CatalogueError> {
        let (decoy, begun) = match kept.get(DECOY_KEY) {
            Some(value) => (bytes(DECOY_KEY, &read::<StoredDecoy>(DECOY_KEY, value)?.decoy)?, None),
            None => {
                let mut decoy = vec![0; 32];
                entropy.fill(&mut decoy);
                let stored = written(&StoredDecoy { decoy: STANDARD.encode(&decoy) });
                (decoy, Some((DECOY_KEY.to_owned(), Some(stored))))
            }
        };
        let mut all = BTreeMap::new();
        for (key, value) in kept {
            let Some((mechanism, user)) = named(key) else { continue };
            let stored = read::<StoredCredential>(key, value)?;
            let credential = Credential {
                iterations: stored.iterations,
                salt: bytes(key, &stored.salt)?,
                stored_key: bytes(key, &stored.stored_key)?,
                server_key: bytes(key, &stored.server_key)?,
            };
            all.insert((user.to_owned(), mechanism), Arc::new(credential));
        }
        let decoy = hmac::Key::new(hmac::HMAC_SHA512, &decoy);
        let mut credentials = Self { all, forms: BTreeMap::new(), decoy };
        credentials.look();
        Ok((credentials, begun))
    }

    /// What is kept of a user, and true; for one that there is not a likeness, and false.
    pub(crate) fn of(&self, user: &str, mechanism: Mechanism) -> (Arc<Credential>, bool) {
        match self.all.get(&(user.to_owned(), mechanism)) {
            Some(credential) => (Arc::clone(credential), true),
            None => (Arc::new(self.likeness(user, mechanism)), false),
        }
    }

    /// Users in order, each with its mechanisms and their iterations.
    pub(crate) fn users(&self) -> BTreeMap<&str, Vec<(Mechanism, u32)>> {
        let mut users: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for ((user, mechanism), credential) in &self.all {
            users.entry(user).or_default().push((*mechanism, credential.iterations()));
        }
        users
    }

    fn likeness(&self, user: &str, mechanism: Mechanism) -> Credential {
        let (iterations, length, is_text) = self.forms.get(&mechanism).copied().unwrap_or(FORM);
        let mut salt = Vec::with_capacity(length);
        let mut part = 0_u32;
        while salt.len() < length {
            let text = [mechanism.name().as_bytes(), &part.to_be_bytes(), user.as_bytes()].concat();
            salt.extend_from_slice(hmac::sign(&self.decoy, &text).as_ref());
            part += 1;
        }
        salt.truncate(length);
        if is_text {
            salt.iter_mut().for_each(|byte| *byte = b"0123456789abcdefghijklmnopqrstuvwxyz"[usize::from(*byte) % 36]);
        }
        let nothing = vec![0; mechanism.bytes()];
        Credential { iterations, salt, stored_key: nothing.clone(), server_key: nothing }
    }

    /// Makes the changes; one result for each user, and what of it is to be kept. What is refused for a user changes nothing of it.
    pub(super) fn change(&mut self, changes: Vec<Change>) -> (BTreeMap<String, Result<(), ChangeError>>, Vec<Record>) {
        let mut by_user: BTreeMap<String, Vec<Change>> = BTreeMap::new();
        for change in changes {
            by_user.entry(change.user.clone()).or_default().push(change);
        }
        let (mut results, mut records) = (BTreeMap::new(), Vec::new());
        for (user, changes) in by_user {
            let checked: Result<Vec<_>, ChangeError> = self.check(&changes);
            let result = checked.map(|made| {
                for (mechanism, credential) in made {
                    records.push((
                        key(mechanism, &user),
                        credential.as_ref().map(|c| written(&StoredCredential::from(c))),
                    ));
                    match credential {
                        Some(credential) => {
                            self.all.insert((user.clone(), mechanism), Arc::new(credential));
                        }
                        None => {
                            self.all.remove(&(user.clone(), mechanism));
                        }
                    }
                }
            });
            results.insert(user, result);
        }
        self.look();
        (results, records)
    }

    /// The credentials that a user's changes make, where all of them can be made.
    fn check(&self, changes: &[Change]) -> Result<Vec<(Mechanism, Option<Credential>)>, ChangeError> {
        let mut named = BTreeSet::new();
        let mut made = Vec::new();
        for change in changes {
            let mechanism = Mechanism::of_code(change.mechanism);
            let mechanism = mechanism.ok_or(ChangeError::Mechanism { code: change.mechanism })?;
            if !named.insert(mechanism) {
                return Err(ChangeError::Twice);
            }
            let user = &change.user;
            let Some(new) = &change.set else {
                if !self.all.contains_key(&(user.clone(), mechanism)) {
                    return Err(ChangeError::Unknown);
                }
                made.push((mechanism, None));
                continue;
            };
            let unacceptable = |reason: String| Err(ChangeError::Unacceptable { reason });
            if user.is_empty() || user.len() > USER_BYTES_MAX {
                return unacceptable(format!("a user's name has 1 to {USER_BYTES_MAX} bytes"));
            }
            if !(ITERATIONS_MIN..=ITERATIONS_MAX).contains(&new.iterations) {
                return unacceptable(format!("iterations are {ITERATIONS_MIN} to {ITERATIONS_MAX}"));
            }
            if new.salt.is_empty() || new.salt.len() > SALT_BYTES_MAX {
                return unacceptable(format!("a salt has 1 to {SALT_BYTES_MAX} bytes"));
            }
            // One that is too short or too long for its mechanism lets nobody in, and does no harm.
            if new.salted_password.is_empty() {
                return unacceptable("a salted password is not empty".to_owned());
            }
            if self.all.len() + made.len() >= CREDENTIALS_MAX {
                return unacceptable(format!("there are {CREDENTIALS_MAX} credentials already: delete some"));
            }
            let (iterations, salt) = (new.iterations.unsigned_abs(), new.salt.to_vec());
            made.push((mechanism, Some(Credential::new(mechanism, iterations, salt, &new.salted_password))));
        }
        Ok(made)
    }

    /// Finds the form that most credentials have.
    fn look(&mut self) {
        let mut counts: BTreeMap<(Mechanism, Form), usize> = BTreeMap::new();
        for ((_, mechanism), credential) in &self.all {
            let is_text = credential.salt.iter().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase());
            let form = (credential.iterations, credential.salt.len(), is_text);
            *counts.entry((*mechanism, form)).or_default() += 1;
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|(_, count)| *count);
        self.forms = counts.into_iter().map(|((mechanism, form), _)| (mechanism, form)).collect();
    }
}

impl From<&Credential> for StoredCredential {
    fn from(credential: &Credential) -> Self {
        Self {
            iterations: credential.iterations,
            salt: STANDARD.encode(&credential.salt),
            stored_key: STANDARD.encode(&credential.stored_key),
            server_key: STANDARD.encode(&credential.server_key),
        }
    }
}

fn key(mechanism: Mechanism, user: &str) -> String {
    format!("{PREFIX}{}/{user}", mechanism.name())
}

fn named(key: &str) -> Option<(Mechanism, &str)> {
    let (mechanism, user) = key.strip_prefix(PREFIX)?.split_once('/')?;
    Mechanism::ALL.into_iter().find(|known| known.name() == mechanism).map(|mechanism| (mechanism, user))
}

fn written<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("these types have string keys only")
}

fn read<'a, T: Deserialize<'a>>(key: &str, value: &'a [u8]) -> Result<T, CatalogueError> {
    serde_json::from_slice(value).map_err(|source| CatalogueError::Record { key: key.to_owned(), source })
}

fn bytes(key: &str, text: &str) -> Result<Vec<u8>, CatalogueError> {
    STANDARD.decode(text).map_err(|_| CatalogueError::Bytes { key: key.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(user: &str, mechanism: i8, iterations: i32, salt: &'static [u8], bytes: usize) -> Change {
        let salted_password = Bytes::from(vec![7; bytes]);
        let new = NewCredential { iterations, salt: Bytes::from_static(salt), salted_password };
        Change { user: user.to_owned(), mechanism, set: Some(new) }
    }

    fn delete(user: &str, mechanism: i8) -> Change {
        Change { user: user.to_owned(), mechanism, set: None }
    }

    fn fresh() -> Credentials {
        Credentials::restore(&BTreeMap::new(), &Entropy::seeded(1)).expect("nothing is readable").0
    }

    #[test]
    fn what_is_refused_for_a_user_changes_nothing_of_it_and_nothing_else() {
        let mut credentials = fresh();
        let (results, records) = credentials.change(vec![
            set("right", 1, 4_096, b"salt", 32),
            set("right", 2, 16_384, b"salt", 64),
            set("half", 1, 4_096, b"salt", 32),
            set("half", 2, 16_385, b"salt", 64),
            set("weak", 1, 4_095, b"salt", 32),
            set("bare", 1, 4_096, b"", 32),
            set("short", 2, 4_096, b"salt", 0),
            set("odd", 3, 4_096, b"salt", 32),
            set("twice", 1, 4_096, b"salt", 32),
            delete("twice", 1),
            delete("nobody", 1),
            set("", 1, 4_096, b"salt", 32),
        ]);
        let refused: Vec<_> =
            results.iter().filter(|(_, result)| result.is_err()).map(|(user, _)| user.as_str()).collect();
        assert_eq!(refused, ["", "bare", "half", "nobody", "odd", "short", "twice", "weak"]);
        assert_eq!(
            (results["twice"].clone(), results["nobody"].clone()),
            (Err(ChangeError::Twice), Err(ChangeError::Unknown))
        );
        assert_eq!(records.len(), 2);
        let both = vec![(Mechanism::Sha256, 4_096), (Mechanism::Sha512, 16_384)];
        assert_eq!(credentials.users(), BTreeMap::from([("right", both)]));
    }

    #[test]
    fn what_was_kept_is_read_back_and_what_was_deleted_is_not() {
        let (mut credentials, begun) = Credentials::restore(&BTreeMap::new(), &Entropy::seeded(1)).expect("read");
        let mut kept = BTreeMap::new();
        let mut keep = |records: Vec<Record>| {
            for (key, value) in records {
                match value {
                    Some(value) => kept.insert(key, value),
                    None => kept.remove(&key),
                };
            }
            kept.clone()
        };
        keep(begun.into_iter().collect());
        keep(credentials.change(vec![set("a/b", 2, 5_000, b"\0salt", 64), set("gone", 1, 4_096, b"s", 32)]).1);
        let kept = keep(credentials.change(vec![delete("gone", 1)]).1);
        let (again, begun) = Credentials::restore(&kept, &Entropy::seeded(2)).expect("read");
        assert_eq!((begun, again.all.clone()), (None, credentials.all.clone()));
        let nobody = again.of("nobody", Mechanism::Sha512).0;
        assert_eq!(nobody, credentials.of("nobody", Mechanism::Sha512).0, "the same likeness after a restart");
    }

    #[test]
    fn who_there_is_not_looks_like_who_there_is() {
        let mut credentials = fresh();
        let of = |credentials: &Credentials, user: &str| credentials.of(user, Mechanism::Sha256);
        let (first, is_known) = of(&credentials, "nobody");
        assert!(!is_known && first.iterations == 4_096 && first.salt.len() == 25);
        assert_eq!(first, of(&credentials, "nobody").0, "asked twice, it answers the same");
        assert_ne!(first.salt, of(&credentials, "nobody else").0.salt);
        credentials
            .change(vec![set("a", 1, 8_192, b"0123456789abcdef", 32), set("b", 1, 8_192, b"fedcba9876543210", 32)]);
        let (like, _) = of(&credentials, "nobody");
        assert_eq!((like.iterations, like.salt.len()), (8_192, 16));
        assert!(like.salt.iter().all(u8::is_ascii_alphanumeric), "as the salts that there are");
        assert!(of(&credentials, "a").1);
    }
}
