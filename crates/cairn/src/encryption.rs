//! `[encryption]`: under which key the files of the embedded log and of the spool are encrypted. Called by `config` and `engine`.
//!
//! Values may be secrets: nothing here prints a key.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail};
use cairn_clock::{Clock, Entropy};
use cairn_keys::{AtRest, FileKey, GivenKey, KeyEncryption, Purpose};
use serde::Deserialize;

use crate::vault::KmsSection;

/// `[encryption]`
#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EncryptionSection {
    /// Whether new files are encrypted; where a key is named they are.
    enabled: Option<bool>,
    /// A file with the key-encryption key.
    key_file: Option<PathBuf>,
    /// The key-encryption key itself, from the environment.
    key: Option<String>,
    kms: Option<KmsSection>,
    /// Keys that files of before may need.
    old_keys: Vec<String>,
    old_kms: Vec<KmsSection>,
}

/// Where a key may have come from when a file was written: its id says so.
const KINDS: [&str; 2] = ["file", "environment"];

impl EncryptionSection {
    /// Every value that may name environment variables or files.
    pub(crate) fn values_mut(&mut self) -> Vec<&mut String> {
        let Self { key, old_keys, kms, old_kms, .. } = self;
        let mut all: Vec<&mut String> = key.iter_mut().chain(old_keys).collect();
        all.extend(kms.iter_mut().chain(old_kms).flat_map(KmsSection::values_mut));
        all
    }

    /// Whether new files are encrypted.
    pub(crate) fn is_on(&self) -> bool {
        self.enabled != Some(false) && (self.key_file.is_some() || self.key.is_some() || self.kms.is_some())
    }

    /// Refuses what makes no sense.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let given = [self.key_file.is_some(), self.key.is_some(), self.kms.is_some()];
        match given.into_iter().filter(|given| *given).count() {
            0 if self.enabled == Some(true) => {
                bail!("encryption.enabled is true and there is no key: name one with key_file, key or kms")
            }
            0 | 1 => Ok(()),
            _ => bail!(
                "[encryption] names more than one key: keep one of key_file, key and kms, and list others in old_keys"
            ),
        }
    }

    /// What files are encrypted under. A service is asked here.
    pub(crate) async fn open(&self, data: &Path, clock: &Clock, entropy: &Entropy) -> anyhow::Result<AtRest> {
        let mut keys: Vec<Arc<dyn KeyEncryption>> = Vec::new();
        if let Some(kms) = &self.kms {
            keys.push(Arc::new(kms.key(clock)?.of(Purpose::AtRest)));
        }
        let mut texts = Vec::new();
        if let Some(path) = &self.key_file {
            let path = data.join(path);
            keys.push(Arc::new(FileKey::read(&path)?.of(Purpose::AtRest)));
            texts.push(std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
        }
        if let Some(key) = &self.key {
            keys.push(Arc::new(GivenKey::read("environment", key.as_bytes())?.of(Purpose::AtRest)));
            texts.push(key.clone().into_bytes());
        }
        let named = !keys.is_empty();
        // A key may have moved from a file to the environment, or back: files of before know it by its other name.
        texts.extend(self.old_keys.iter().map(|key| key.clone().into_bytes()));
        for (text, kind) in texts.iter().flat_map(|text| KINDS.map(|kind| (text, kind))) {
            keys.push(Arc::new(GivenKey::read(kind, text)?.of(Purpose::AtRest)));
        }
        for kms in &self.old_kms {
            keys.push(Arc::new(kms.key(clock)?.of(Purpose::AtRest)));
        }
        let is_on = named && self.enabled != Some(false);
        let current = is_on.then(|| keys.remove(0));
        AtRest::open(current, keys, entropy.clone()).await.context("[encryption]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn opened(text: &str, data: &Path) -> Result<AtRest, String> {
        let section: EncryptionSection = toml::from_str(text).expect("a section");
        section.check().map_err(|error| format!("{error:#}"))?;
        let opened = section.open(data, &Clock::system(), &Entropy::system()).await;
        opened.map_err(|error| format!("{error:#}"))
    }

    #[tokio::test]
    async fn new_files_are_encrypted_where_a_key_is_named_and_old_ones_are_known_by_either_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path();
        let (one, two) = ("11".repeat(32), "22".repeat(32));
        std::fs::write(data.join("kek"), format!("{one}\n")).expect("written");
        let said = opened("key_file = \"kek\"", data).await.expect_err("others may read it");
        assert!(said.contains("chmod 600") && !said.contains(&one), "{said}");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(data.join("kek"), mode).expect("its owner's alone");

        assert_eq!(opened("", data).await.expect("nothing is named").current(), None);
        let by_file = opened("key_file = \"kek\"", data).await.expect("a key");
        let (_, envelope) = by_file.new_file().expect("it is on");
        for text in [
            format!("key = \"{one}\""),
            "key_file = \"kek\"\nenabled = false".to_owned(),
            format!("key = \"{two}\"\nold_keys = [\"{one}\"]"),
            format!("old_keys = [\"{one}\"]"),
        ] {
            let at_rest = opened(&text, data).await.expect("keys");
            assert!(at_rest.file(&envelope).is_ok(), "{text}");
            let on = text.starts_with("key = ");
            assert_eq!(at_rest.current().is_some(), on, "{text}");
        }
        assert!(opened(&format!("key = \"{two}\""), data).await.expect("a key").file(&envelope).is_err());
        for text in ["enabled = true".to_owned(), format!("key = \"{one}\"\nkey_file = \"kek\""), "key = \"x\"".into()]
        {
            let said = opened(&text, data).await.expect_err("it makes no sense");
            assert!(!said.contains(&one), "{said}");
        }
    }
}
