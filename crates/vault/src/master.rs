//! The master keys: they encrypt the records of subjects, and are wrapped by the key-encryption key.
//!
//! There is one, and while a rotation is under way two. `master.json` is replaced whole and synced before anything is
//! encrypted under a new one.

use std::{collections::HashMap, path::Path, sync::Arc};

use cairn_clock::Entropy;
use serde::{Deserialize, Serialize};

use crate::{KeyEncryption, Secret, VaultError, packs};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    current: String,
    keys: Vec<Entry>,
}

#[derive(Serialize, Deserialize, Clone)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    /// Which key-encryption key wraps it.
    kek: String,
    wrapped: String,
}

/// The master keys, in memory.
#[derive(Debug)]
pub(crate) struct Masters {
    pub(crate) current: String,
    keys: HashMap<String, Secret>,
}

impl Masters {
    pub(crate) fn current(&self) -> &Secret {
        self.keys.get(&self.current).expect("the current key is among the keys, which opening checks")
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Secret> {
        self.keys.get(id)
    }

    /// Reads or makes the master keys of a vault.
    pub(crate) async fn open(
        path: &Path,
        kek: &Arc<dyn KeyEncryption>,
        old: &[Arc<dyn KeyEncryption>],
        entropy: &Entropy,
    ) -> Result<Self, VaultError> {
        let damaged = |what: &str| VaultError::Damaged { path: path.to_owned(), what: what.to_owned() };
        let Some(text) = packs::read_if_there(path)? else {
            let mut masters = Self { current: String::new(), keys: HashMap::new() };
            masters.add(entropy);
            masters.save(path, kek).await?;
            return Ok(masters);
        };
        let file: File = serde_json::from_slice(&text).map_err(|_| damaged("it is not the JSON that it should be"))?;
        if file.version != 1 {
            return Err(damaged("another version of Cairn wrote it"));
        }
        let mut keys = HashMap::new();
        let mut moves = false;
        for entry in &file.keys {
            let wraps = std::iter::once(kek).chain(old).find(|candidate| candidate.id() == entry.kek);
            let Some(wraps) = wraps else {
                return Err(VaultError::OtherKey { wanted: entry.kek.clone(), given: kek.id() });
            };
            moves |= wraps.id() != kek.id();
            let wrapped = hex::decode(&entry.wrapped).map_err(|_| damaged("a wrapped key is not hexadecimal"))?;
            keys.insert(entry.id.clone(), wraps.unwrap(&wrapped).await?);
        }
        if !keys.contains_key(&file.current) {
            return Err(damaged("its current key is missing"));
        }
        let masters = Self { current: file.current, keys };
        if moves {
            masters.save(path, kek).await?;
        }
        Ok(masters)
    }

    /// Makes another master key the current one; the others stay until [`keep_current`](Self::keep_current).
    pub(crate) fn add(&mut self, entropy: &Entropy) {
        let id = format!("m-{:016x}", entropy.next_u64());
        self.keys.insert(id.clone(), Secret::draw(entropy));
        self.current = id;
    }

    pub(crate) fn keep_current(&mut self) {
        let current = self.current.clone();
        self.keys.retain(|id, _| *id == current);
    }

    /// A copy to work on, so that what could not be saved is not used.
    pub(crate) fn copy(&self) -> Self {
        Self { current: self.current.clone(), keys: self.keys.clone() }
    }

    pub(crate) async fn save(&self, path: &Path, kek: &Arc<dyn KeyEncryption>) -> Result<(), VaultError> {
        let mut entries = Vec::new();
        for (id, key) in &self.keys {
            entries.push(Entry { id: id.clone(), kek: kek.id(), wrapped: hex::encode(kek.wrap(key).await?) });
        }
        entries.sort_by(|a, b| a.id.cmp(&b.id));
        let file = File { version: 1, current: self.current.clone(), keys: entries };
        let text = serde_json::to_vec_pretty(&file).expect("strings make JSON");
        packs::replace(path, &text).map_err(VaultError::disk("write", path))
    }
}
