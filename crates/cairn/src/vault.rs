//! `[vault]` and `[screen]` of the configuration, and opening what they name. Called by `config` and `up`.
//!
//! Values may be secrets: nothing here prints a key.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use cairn_clock::{Clock, Entropy};
use cairn_contract::EventType;
use cairn_gateway::{INLINE_BYTES_MAX, Keeping, PayloadField, PayloadMode, PayloadRule, PayloadRules};
use cairn_screen::{Rules, Screener};
use cairn_vault::{FileKey, GivenKey, KeyEncryption, KmsKey, KmsOptions, Vault, VaultOptions};
use serde::Deserialize;

/// Events in which something stands for a payload.
const HOLD_PAYLOADS: [EventType; 9] = [
    EventType::CallDecision,
    EventType::CallIntent,
    EventType::CallOutcome,
    EventType::CallLate,
    EventType::CallSettled,
    EventType::ContextRead,
    EventType::ContextListed,
    EventType::ContextPrompt,
    EventType::ModelCalled,
];
/// Longest payload that stands in an event itself, in bytes, where nothing else is said.
const INLINE_BYTES: usize = 4_096;

/// `[screen]`
#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ScreenSection {
    /// The rules file, in the place of the built-in one.
    rules: Option<PathBuf>,
}

/// `[vault]`
#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct VaultSection {
    mode: Option<ModeName>,
    required: Option<bool>,
    path: Option<PathBuf>,
    /// A file with the key-encryption key.
    key_file: Option<PathBuf>,
    /// The key-encryption key itself, from the environment.
    key: Option<String>,
    /// Keys that may still wrap the vault's.
    old_keys: Vec<String>,
    kms: Option<KmsSection>,
    object_bytes_max: Option<usize>,
    inline_bytes_max: Option<usize>,
    retention_days: Option<u64>,
    period_days: Option<u64>,
    rules: Vec<RuleSection>,
}

/// `[vault.kms]`, `[encryption.kms]`
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KmsSection {
    key_id: String,
    region: String,
    endpoint: Option<String>,
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
}

impl KmsSection {
    /// Every value that may name environment variables or files.
    pub(crate) fn values_mut(&mut self) -> Vec<&mut String> {
        let Self { key_id, region, endpoint, access_key_id, secret_access_key, session_token } = self;
        let mut all = vec![key_id, region, access_key_id, secret_access_key];
        all.extend(endpoint.iter_mut().chain(session_token));
        all
    }

    /// The key that is named.
    pub(crate) fn key(&self, clock: &Clock) -> anyhow::Result<KmsKey> {
        let Self { key_id, region, endpoint, access_key_id, secret_access_key, session_token } = self.clone();
        let options = KmsOptions { key_id, region, endpoint, access_key_id, secret_access_key, session_token };
        Ok(KmsKey::new(options, clock.clone())?)
    }
}

/// `[[vault.rules]]`
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleSection {
    server: Option<String>,
    name: Option<String>,
    field: Option<String>,
    contract: Option<String>,
    mode: ModeName,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum ModeName {
    None,
    Digest,
    Reference,
    Inline,
}

impl ModeName {
    const fn mode(self) -> PayloadMode {
        match self {
            Self::None => PayloadMode::None,
            Self::Digest => PayloadMode::Digest,
            Self::Reference => PayloadMode::Reference,
            Self::Inline => PayloadMode::Inline,
        }
    }
}

impl VaultSection {
    /// Every value that may name environment variables or files.
    pub(crate) fn values_mut(&mut self) -> Vec<&mut String> {
        let Self { key, old_keys, kms, .. } = self;
        let mut all: Vec<&mut String> = key.iter_mut().chain(old_keys).collect();
        all.extend(kms.iter_mut().flat_map(KmsSection::values_mut));
        all
    }

    fn payload_rules(&self) -> anyhow::Result<PayloadRules> {
        let mode = self.mode.map_or(PayloadMode::Reference, ModeName::mode);
        let rule = |rule: &RuleSection| {
            let field = match rule.field.as_deref() {
                None => None,
                Some(name) => Some(PayloadField::named(name).with_context(|| {
                    format!("vault.rules: there is no field {name:?}: it is arguments, result or inputs")
                })?),
            };
            let contract = match rule.contract.as_deref() {
                None => None,
                Some(name) => {
                    let event = HOLD_PAYLOADS.into_iter().find(|event| event.name() == name);
                    Some(event.with_context(|| {
                        let known = HOLD_PAYLOADS.map(EventType::name).join(", ");
                        format!("vault.rules: no event {name:?} holds payloads: those that do are {known}")
                    })?)
                }
            };
            if rule.mode == ModeName::Inline && field == Some(PayloadField::Inputs) {
                bail!(
                    "vault.rules: what policy decided on (inputs) never stands in an event: take reference, digest or none"
                );
            }
            let (server, name) = (rule.server.clone(), rule.name.clone());
            Ok(PayloadRule { server, name, field, contract, mode: rule.mode.mode() })
        };
        let inline_bytes_max = self.inline_bytes_max.unwrap_or(INLINE_BYTES);
        if inline_bytes_max > INLINE_BYTES_MAX {
            bail!("vault.inline_bytes_max is {inline_bytes_max}: contracts permit {INLINE_BYTES_MAX}");
        }
        let rules = self.rules.iter().map(rule).collect::<anyhow::Result<_>>()?;
        Ok(PayloadRules { mode, rules, inline_bytes_max })
    }

    fn key(
        &self,
        data: &Path,
        is_new: bool,
        clock: &Clock,
        entropy: &Entropy,
    ) -> anyhow::Result<Arc<dyn KeyEncryption>> {
        let given = [self.key_file.is_some(), self.key.is_some(), self.kms.is_some()];
        if given.into_iter().filter(|given| *given).count() > 1 {
            bail!("[vault] names more than one key: keep one of key_file, key and kms");
        }
        if let Some(kms) = &self.kms {
            return Ok(Arc::new(kms.key(clock)?));
        }
        if let Some(key) = &self.key {
            return Ok(Arc::new(GivenKey::read("environment", key.as_bytes())?));
        }
        let path = data.join(self.key_file.as_deref().unwrap_or(Path::new("keys/vault")));
        if is_new && !path.exists() {
            return Ok(Arc::new(FileKey::make(&path, entropy)?));
        }
        Ok(Arc::new(FileKey::read(&path)?))
    }

    /// Opens the vault of a data folder, and what masks.
    pub(crate) async fn open(
        &self,
        screen: &ScreenSection,
        data: &Path,
        clock: &Clock,
        entropy: &Entropy,
    ) -> anyhow::Result<Keeping> {
        let rules = match &screen.rules {
            None => Rules::embedded(),
            Some(path) => {
                let path = data.join(path);
                let text = std::fs::read_to_string(&path)
                    .with_context(|| format!("cannot read screen.rules {}", path.display()))?;
                Rules::read(&text).with_context(|| format!("screen.rules {}", path.display()))?
            }
        };
        let rules_of_payloads = self.payload_rules()?;
        let mut options = VaultOptions::new(data.join(self.path.as_deref().unwrap_or(Path::new("vault"))));
        let days = |days: u64| Duration::from_secs(days.max(1) * 24 * 60 * 60);
        options.object_bytes_max = self.object_bytes_max.unwrap_or(options.object_bytes_max).min(64 << 20);
        options.retention = self.retention_days.map_or(options.retention, days);
        options.period = self.period_days.map_or(options.period, days);
        let is_new = !options.folder.join("master.json").exists();
        let key = self.key(data, is_new, clock, entropy)?;
        let mut old: Vec<Arc<dyn KeyEncryption>> = Vec::new();
        for text in &self.old_keys {
            // A key that was in a file has another id than the same key from the environment, so both are tried.
            for kind in ["file", "environment"] {
                old.push(Arc::new(GivenKey::read(kind, text.as_bytes())?));
            }
        }
        let vault =
            Vault::open(options, key, &old, clock.clone(), entropy.clone()).await.context("cannot open the vault")?;
        Ok(Keeping {
            screener: Screener::new(rules),
            vault: Some(vault),
            required: self.required.unwrap_or(true),
            rules: rules_of_payloads,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(text: &str) -> VaultSection {
        toml::from_str(text).expect("a section")
    }

    #[tokio::test]
    async fn a_vault_is_made_with_its_key_and_opens_again_only_with_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path();
        std::fs::create_dir(data.join("keys")).expect("a folder");
        let open = async |text: &str| {
            let (clock, entropy) = (Clock::system(), Entropy::system());
            let keeping = section(text).open(&ScreenSection::default(), data, &clock, &entropy).await;
            match keeping {
                Ok(keeping) => {
                    keeping.vault.expect("there is one").close().await;
                    Ok(())
                }
                Err(error) => Err(format!("{error:#}")),
            }
        };
        open("").await.expect("it is made");
        open("").await.expect("it opens");
        let hex_key = "11".repeat(32);
        let said = open(&format!("key = \"{hex_key}\"")).await.expect_err("another key");
        assert!(said.contains("old_keys") && !said.contains(&hex_key), "{said}");
        let file = std::fs::read_to_string(data.join("keys/vault")).expect("the key");
        open(&format!("key = \"{hex_key}\"\nold_keys = [\"{}\"]", file.trim())).await.expect("both keys");
        open(&format!("key = \"{hex_key}\"")).await.expect("the new one is enough");
        std::fs::remove_file(data.join("keys/vault")).expect("it was there");
        let said = open("").await.expect_err("the key is lost");
        assert!(said.contains("backup") && !data.join("keys/vault").exists(), "{said}");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert!(section("[[rules]]\nfield = \"x\"\nmode = \"digest\"").payload_rules().is_err());
        assert!(section("[[rules]]\nfield = \"inputs\"\nmode = \"inline\"").payload_rules().is_err());
        assert!(section("inline_bytes_max = 65537").payload_rules().is_err());
        let said = section("[[rules]]\ncontract = \"session.opened\"\nmode = \"digest\"").payload_rules();
        assert!(said.is_err_and(|said| said.to_string().contains("context.read")));
        let two = section("key = \"a\"\nkey_file = \"b\"");
        assert!(two.key(Path::new("/"), false, &Clock::system(), &Entropy::system()).is_err());
    }
}
