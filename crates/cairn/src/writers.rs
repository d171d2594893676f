//! Who may write Cairn's topics through the Kafka port: gateways of other processes, by name and secret.
//!
//! `cairn writer` makes and removes them; the broker of the same data folder takes a change in within a second. A secret is
//! shown once and has 256 random bits; `writers.json` holds a salt and SHA-256 over salt and secret, which open nothing. A
//! configuration may bring secrets of its own, which are hashed in memory and never written. No secret is ever printed again.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context, bail};
use cairn_broker::{SALT_BYTES, SecretHash, User, Users};
use cairn_clock::Entropy;
use serde::{Deserialize, Serialize};

use crate::folder;

/// Shortest secret that a configuration may bring: what is shorter could be found by trying.
const SECRET_BYTES_MIN: usize = 16;
/// How often the file is looked at.
const RELOAD_EVERY: Duration = Duration::from_secs(1);

#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: u32,
    writers: BTreeMap<String, StoredHash>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredHash {
    salt: String,
    sha256: String,
}

/// The writers' file of a data folder.
#[derive(Clone, Debug)]
pub(crate) struct Writers {
    path: PathBuf,
}

impl Writers {
    /// The file of that folder; nothing is read yet.
    pub(crate) fn of(data: &Path) -> Self {
        Self { path: data.join("writers.json") }
    }

    /// Makes a writer, or gives one a new secret; returns the secret, to be shown once.
    pub(crate) fn renew(&self, name: &str, entropy: &Entropy) -> anyhow::Result<String> {
        check_name(name)?;
        let mut random = [0; 32];
        entropy.fill(&mut random);
        let secret = format!("cairn-wr-{}", hex::encode(random));
        let hash = salted(secret.as_bytes(), entropy);
        self.change(|writers| {
            let stored = StoredHash { salt: hex::encode(hash.salt()), sha256: hex::encode(hash.digest()) };
            writers.insert(name.to_owned(), stored);
            Ok(())
        })?;
        Ok(secret)
    }

    /// Takes a writer's right away.
    pub(crate) fn remove(&self, name: &str) -> anyhow::Result<()> {
        self.change(|writers| match writers.remove(name) {
            Some(_) => Ok(()),
            None => bail!("there is no writer {name:?}: `cairn writer list` shows those there are"),
        })
    }

    /// The names.
    pub(crate) fn names(&self) -> anyhow::Result<Vec<String>> {
        Ok(self.read()?.writers.into_keys().collect())
    }

    fn change(
        &self,
        change: impl FnOnce(&mut BTreeMap<String, StoredHash>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let lock = self.path.with_extension("lock");
        let lock = File::options().create(true).write(true).truncate(false).open(&lock);
        let lock = lock.with_context(|| format!("cannot write beside {}", self.path.display()))?;
        lock.lock()?; // two commands at once must not forget one another's writer
        let mut stored = self.read()?;
        change(&mut stored.writers)?;
        stored.format = 1;
        folder::replace(&self.path, &serde_json::to_vec_pretty(&stored)?)
            .with_context(|| format!("cannot write {}", self.path.display()))
    }

    fn read(&self) -> anyhow::Result<Stored> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Stored::default()),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", self.path.display())),
        };
        serde_json::from_slice(&text).with_context(|| {
            format!("{} is damaged: remove it and make the writers anew with `cairn writer new`", self.path.display())
        })
    }

    fn users(&self, configured: &BTreeMap<String, User>) -> anyhow::Result<BTreeMap<String, User>> {
        let mut users = configured.clone();
        for (name, stored) in self.read()?.writers {
            let parts = hex::decode(&stored.salt).ok().zip(hex::decode(&stored.sha256).ok());
            let parts = parts.and_then(|(salt, digest)| Some((salt.try_into().ok()?, digest.try_into().ok()?)));
            let Some((salt, digest)) = parts else {
                bail!(
                    "{}: the hash of writer {name:?} is damaged: make it anew with `cairn writer new {name}`",
                    self.path.display()
                )
            };
            users.entry(name).or_insert(User { secret: SecretHash::from_parts(salt, digest), writes_protected: true });
        }
        Ok(users)
    }

    fn changed_at(&self) -> Option<SystemTime> {
        fs::metadata(&self.path).and_then(|meta| meta.modified()).ok()
    }

    /// The broker's users: those of the configuration (writers, and others) and of the file, which is followed for as long as the
    /// process runs.
    pub(crate) fn follow(
        self,
        writers: &BTreeMap<String, String>,
        others: &BTreeMap<String, String>,
        entropy: &Entropy,
    ) -> anyhow::Result<Users> {
        let mut configured = BTreeMap::new();
        for (section, secrets, writes_protected) in [("writers", writers, true), ("users", others, false)] {
            for (name, secret) in secrets {
                check_name(name).with_context(|| format!("kafka.{section}"))?;
                if secret.len() < SECRET_BYTES_MIN {
                    bail!(
                        "kafka.{section}: the secret of {name:?} has fewer than {SECRET_BYTES_MIN} characters: take a random one"
                    );
                }
                let user = User { secret: salted(secret.as_bytes(), entropy), writes_protected };
                if configured.insert(name.clone(), user).is_some() {
                    bail!("{name:?} is in kafka.writers and in kafka.users: leave it in one of them");
                }
            }
        }
        let mut seen = self.changed_at();
        let users: Users = self.users(&configured)?.into_iter().collect();
        let followed = users.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(RELOAD_EVERY).await;
                let now = self.changed_at();
                if now == seen {
                    continue;
                }
                seen = now;
                match self.users(&configured) {
                    Ok(users) => followed.replace(users),
                    Err(error) => tracing::error!(error = format!("{error:#}"), "the writers stay as they were"),
                }
            }
        });
        Ok(users)
    }
}

fn salted(secret: &[u8], entropy: &Entropy) -> SecretHash {
    let mut salt = [0; SALT_BYTES];
    entropy.fill(&mut salt);
    SecretHash::of(salt, secret)
}

fn check_name(name: &str) -> anyhow::Result<()> {
    if name.is_empty() || name.len() > 64 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        bail!("a writer's name has 1 to 64 letters, digits, '-', '_' or '.', and {name:?} does not");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_on_no_disk_and_a_writer_can_be_taken_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let (writers, entropy) = (Writers::of(folder.path()), Entropy::system());
        let first = writers.renew("gateway-1", &entropy).expect("made");
        let second = writers.renew("gateway-2", &entropy).expect("made");
        let text = fs::read_to_string(folder.path().join("writers.json")).expect("written");
        assert!(!text.contains(&first) && !text.contains(&first[9..]) && !text.contains(&second[9..]));
        let users = writers.users(&BTreeMap::new()).expect("read");
        assert!(users["gateway-1"].secret.matches(first.as_bytes()) && users["gateway-1"].writes_protected);
        assert!(!users["gateway-1"].secret.matches(second.as_bytes()));
        let renewed = writers.renew("gateway-1", &entropy).expect("renewed");
        let users = writers.users(&BTreeMap::new()).expect("read");
        assert!(users["gateway-1"].secret.matches(renewed.as_bytes()));
        assert!(!users["gateway-1"].secret.matches(first.as_bytes()), "the old secret is no longer one");
        writers.remove("gateway-1").expect("removed");
        assert_eq!(writers.names().expect("read"), ["gateway-2"]);
        writers.remove("gateway-1").expect_err("it is gone");
        writers.renew("a b", &entropy).expect_err("no name");
    }

    #[tokio::test]
    async fn a_weak_secret_of_a_configuration_is_refused_and_not_printed() {
        let folder = tempfile::tempdir().expect("a folder");
        let secrets = BTreeMap::from([("gw".to_owned(), "hunter2".to_owned())]);
        let (writers, nobody) = (Writers::of(folder.path()), BTreeMap::new());
        for (as_writers, as_users) in [(&secrets, &nobody), (&nobody, &secrets)] {
            let refused = writers.clone().follow(as_writers, as_users, &Entropy::system());
            let words = format!("{:#}", refused.expect_err("it is short"));
            assert!(words.contains("gw") && !words.contains("hunter2"), "{words}");
        }
        let long = BTreeMap::from([("gw".to_owned(), "correct horse battery".to_owned())]);
        writers.clone().follow(&long, &long, &Entropy::system()).expect_err("a writer or not a writer");
        writers.follow(&nobody, &long, &Entropy::system()).expect("a user");
    }
}
