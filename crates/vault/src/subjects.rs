//! Subjects and their keys: one record for each, encrypted under the master key, with who is under legal hold.
//!
//! | in a record | what it is |
//! | --- | --- |
//! | `id` | `s-` and 16 hexadecimal digits, drawn at random: it stands in every digest of the subject's payloads |
//! | `tenant`, `subject`, `holds` | in the clear: an operator must find them without a key |
//! | `master`, `sealed` | the digest key and the data keys by period, encrypted |
//! | `erased` | instead of all these, once the subject was erased |

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use cairn_clock::{Entropy, Timestamp};
use cairn_contract::DigestKey;
use serde::{Deserialize, Serialize};

use crate::{Secret, VaultError, master::Masters, packs};

/// Whose a payload is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Subject {
    /// The tenant, where tenants are separate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The principal.
    pub name: String,
}

/// A subject's name in digests and files: `s-` and 16 hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SubjectId(String);

impl SubjectId {
    /// From text.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("s-")?;
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        (digits.len() == 16 && digits.bytes().all(hex)).then(|| Self(text.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn bytes(&self) -> [u8; 8] {
        let mut bytes = [0; 8];
        hex::decode_to_slice(&self.0[2..], &mut bytes).expect("an id has 16 hexadecimal digits");
        bytes
    }

    pub(crate) fn of_bytes(bytes: [u8; 8]) -> Self {
        Self(format!("s-{}", hex::encode(bytes)))
    }
}

/// Why a subject must not be erased.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hold {
    /// Who says so.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Since when (RFC 3339).
    pub since: String,
}

/// What an erasure destroyed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Erased {
    /// Whose it was.
    pub subject: Subject,
    /// The ids of the keys that are gone: digests under them stay as they are, and nobody can tell any more of what.
    pub key_ids: Vec<String>,
    /// How many objects were removed.
    pub objects: u64,
    /// How many bytes they had, encrypted.
    pub bytes: u64,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pub(crate) id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) subject: Option<Subject>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) holds: Vec<Hold>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) master: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sealed: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) erased: Option<Tombstone>,
}

/// What is left of a subject.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tombstone {
    pub(crate) at: String,
    /// Whether its objects are removed too.
    pub(crate) scrubbed: bool,
    /// Until the erasure is recorded, what to record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) to_record: Option<Erased>,
}

#[derive(Serialize, Deserialize)]
struct KeysText {
    digest: String,
    data: BTreeMap<u64, String>,
}

/// A subject's keys, in memory.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) id: SubjectId,
    pub(crate) digest: DigestKey,
    digest_secret: Secret,
    pub(crate) data: BTreeMap<u64, Secret>,
}

impl Keys {
    fn draw(entropy: &Entropy) -> Self {
        let mut id = [0; 8];
        entropy.fill(&mut id);
        Self::of(SubjectId::of_bytes(id), Secret::draw(entropy), BTreeMap::new())
    }

    fn of(id: SubjectId, digest_secret: Secret, data: BTreeMap<u64, Secret>) -> Self {
        let digest =
            DigestKey::new(id.as_str(), digest_secret.bytes()).expect("the id is plain and the secret has 32 bytes");
        Self { id, digest, digest_secret, data }
    }

    fn with_period(&self, period: u64, entropy: &Entropy) -> Self {
        let mut data = self.data.clone();
        data.insert(period, Secret::draw(entropy));
        Self::of(self.id.clone(), self.digest_secret.clone(), data)
    }

    /// The ids of all of them, for people.
    pub(crate) fn key_ids(&self) -> Vec<String> {
        let data = self.data.keys().map(|period| format!("{}/{period}", self.id.as_str()));
        std::iter::once(self.id.as_str().to_owned()).chain(data).collect()
    }

    fn seal(&self, masters: &Masters, entropy: &Entropy, subject: &Subject) -> (String, String) {
        let hex_of = |secret: &Secret| hex::encode(secret.bytes());
        let text = KeysText {
            digest: hex_of(&self.digest_secret),
            data: self.data.iter().map(|(period, secret)| (*period, hex_of(secret))).collect(),
        };
        let plain = serde_json::to_vec(&text).expect("strings make JSON");
        let sealed = masters.current().seal(entropy, &about(self.id.as_str(), subject), &plain);
        (masters.current.clone(), hex::encode(sealed))
    }
}

/// What a record's keys are bound to: a record under another's name does not open.
fn about(id: &str, subject: &Subject) -> Vec<u8> {
    serde_json::to_vec(&(id, &subject.tenant, &subject.name)).expect("strings make JSON")
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) keys: Arc<Keys>,
    pub(crate) holds: Vec<Hold>,
}

/// Every subject of a vault.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) known: HashMap<Subject, Entry>,
    pub(crate) by_id: HashMap<SubjectId, Subject>,
    pub(crate) erased: HashSet<SubjectId>,
}

impl Table {
    /// Reads every record; with those whose erasure is not finished.
    pub(crate) fn read(folder: &Path, masters: &Masters) -> Result<(Self, Vec<Record>), VaultError> {
        let (mut table, mut unfinished) = (Self::default(), Vec::new());
        for path in packs::files(folder, "json")? {
            let text = std::fs::read(&path).map_err(VaultError::disk("read", &path))?;
            let damaged = |what: &str| VaultError::Damaged { path: path.clone(), what: what.to_owned() };
            let record: Record =
                serde_json::from_slice(&text).map_err(|_| damaged("it is not the JSON that it should be"))?;
            let id = SubjectId::read(&record.id).ok_or_else(|| damaged("its id is none"))?;
            if let Some(tombstone) = &record.erased {
                table.erased.insert(id);
                if !tombstone.scrubbed || tombstone.to_record.is_some() {
                    unfinished.push(record);
                }
                continue;
            }
            let (Some(subject), Some(master), Some(sealed)) = (&record.subject, &record.master, &record.sealed) else {
                return Err(damaged("keys are missing"));
            };
            let master = masters.get(master).ok_or_else(|| damaged("its master key is missing in master.json"))?;
            let sealed = hex::decode(sealed).map_err(|_| damaged("its keys are not hexadecimal"))?;
            let plain = master.open(&about(&record.id, subject), &sealed);
            let plain = plain.ok_or_else(|| damaged("its keys do not open under the master key"))?;
            let text: KeysText = serde_json::from_slice(&plain).map_err(|_| damaged("its keys are none"))?;
            let secret = |text: &str| hex::decode(text).ok().and_then(|bytes| Secret::read(&bytes));
            let digest = secret(&text.digest).ok_or_else(|| damaged("its digest key is none"))?;
            let data = text.data.iter().map(|(period, text)| Some((*period, secret(text)?))).collect::<Option<_>>();
            let keys = Keys::of(id.clone(), digest, data.ok_or_else(|| damaged("a data key is none"))?);
            table.by_id.insert(id, subject.clone());
            table.known.insert(subject.clone(), Entry { keys: Arc::new(keys), holds: record.holds });
        }
        Ok((table, unfinished))
    }

    /// The keys of a subject for a period; `true` where they are new and the record must be written.
    pub(crate) fn keys(&mut self, subject: &Subject, period: u64, entropy: &Entropy) -> (Arc<Keys>, bool) {
        if let Some(entry) = self.known.get_mut(subject) {
            if entry.keys.data.contains_key(&period) {
                return (entry.keys.clone(), false);
            }
            entry.keys = Arc::new(entry.keys.with_period(period, entropy));
            return (entry.keys.clone(), true);
        }
        let keys = Arc::new(Keys::draw(entropy).with_period(period, entropy));
        self.by_id.insert(keys.id.clone(), subject.clone());
        self.known.insert(subject.clone(), Entry { keys: keys.clone(), holds: Vec::new() });
        (keys, true)
    }

    /// A known subject's record as it is written.
    pub(crate) fn record(&self, subject: &Subject, masters: &Masters, entropy: &Entropy) -> Option<Record> {
        let entry = self.known.get(subject)?;
        let (master, sealed) = entry.keys.seal(masters, entropy, subject);
        Some(Record {
            id: entry.keys.id.as_str().to_owned(),
            subject: Some(subject.clone()),
            holds: entry.holds.clone(),
            master: Some(master),
            sealed: Some(sealed),
            erased: None,
        })
    }
}

impl Record {
    pub(crate) fn tombstone(erased: &Erased, id: &SubjectId, at: Timestamp) -> Self {
        Self {
            id: id.as_str().to_owned(),
            subject: None,
            holds: Vec::new(),
            master: None,
            sealed: None,
            erased: Some(Tombstone { at: at.to_string(), scrubbed: false, to_record: Some(erased.clone()) }),
        }
    }

    pub(crate) fn path(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}.json", self.id))
    }

    pub(crate) fn text(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("strings make JSON")
    }
}
