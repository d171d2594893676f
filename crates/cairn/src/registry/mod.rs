//! `[registry]` and `--registry`: a schema registry in this process, or one elsewhere that is told Cairn's contracts.
//!
//! Read with the configuration; bound by `up` before anything is served, opened once the backbone is, because it reads its
//! topic by the Kafka protocol as anybody does. A build without the feature `registry` says so where one is asked for.

#[cfg(feature = "registry")]
mod elsewhere;
#[cfg(feature = "registry")]
mod own;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use serde::Deserialize;

#[cfg(feature = "registry")]
pub(crate) use own::Bound;

use crate::{config::filled, listen::TlsSection};

/// Where a registry listens that was told nothing else.
#[cfg(feature = "registry")]
const DEFAULT_ADDRESS: &str = "127.0.0.1:8081";

/// `[registry]`
#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(not(feature = "registry"), allow(dead_code))]
pub(crate) struct RegistrySection {
    pub(crate) mode: Option<RegistryMode>,
    pub(crate) listen: Option<String>,
    topic: Option<String>,
    /// Whether Cairn's contracts are registered.
    contracts: Option<bool>,
    schema_bytes_max: Option<usize>,
    schemas_max: Option<usize>,
    hosts: Vec<String>,
    origins: Vec<String>,
    /// Secrets of those who may ask, by name. Without any everybody may.
    users: BTreeMap<String, String>,
    pub(crate) tls: Option<TlsSection>,
    /// Of a registry elsewhere: where it is,
    url: Option<String>,
    /// whose certificates it may show,
    authorities: Option<PathBuf>,
    /// and as whom it is asked.
    user: Option<String>,
    secret: Option<String>,
}

/// Whose registry it is.
#[derive(Clone, Copy, Deserialize, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RegistryMode {
    /// None.
    Off,
    /// One in this process.
    Embedded,
    /// Somebody else's.
    External,
}

impl RegistrySection {
    /// Makes files that are named without their folder lie in this one.
    pub(crate) fn lie_in(&mut self, folder: &Path) {
        if let Some(tls) = &mut self.tls {
            tls.lie_in(folder);
        }
        if let Some(path) = &mut self.authorities {
            *path = folder.join(&path);
        }
    }

    /// Fills in what values refer to.
    pub(crate) fn fill(&mut self) -> anyhow::Result<()> {
        for (name, secret) in &mut self.users {
            *secret = filled(secret).with_context(|| format!("registry.users.{name}"))?;
        }
        if let Some(secret) = &mut self.secret {
            *secret = filled(secret).context("registry.secret")?;
        }
        Ok(())
    }

    /// What is wanted, with `--registry` before the file.
    pub(crate) fn mode(&self, argument: Option<&str>) -> RegistryMode {
        let named = argument.is_some() || self.listen.is_some();
        self.mode.unwrap_or(match (named, &self.url) {
            (true, _) => RegistryMode::Embedded,
            (false, Some(_)) => RegistryMode::External,
            (false, None) => RegistryMode::Off,
        })
    }

    /// Refuses what would have no effect.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let own = [
            ("listen", self.listen.is_some()),
            ("topic", self.topic.is_some()),
            ("users", !self.users.is_empty()),
            ("tls", self.tls.is_some()),
        ];
        let elsewhere = [
            ("url", self.url.is_some()),
            ("authorities", self.authorities.is_some()),
            ("user", self.user.is_some()),
            ("secret", self.secret.is_some()),
        ];
        let (set, other) = match self.mode(None) {
            RegistryMode::External => (own.iter().find(|(_, set)| *set), "embedded"),
            RegistryMode::Embedded => (elsewhere.iter().find(|(_, set)| *set), "external"),
            RegistryMode::Off => (None, ""),
        };
        if let Some((name, _)) = set {
            bail!("registry.{name} is for mode = \"{other}\": change registry.mode, or remove it");
        }
        if self.mode == Some(RegistryMode::External) && self.url.is_none() {
            bail!("registry.mode is \"external\" and registry.url is missing: where is it?");
        }
        if self.user.is_some() && self.secret.is_none() {
            bail!("registry.user needs registry.secret");
        }
        if let Some((name, _)) = self.users.iter().find(|(name, secret)| secret.len() < 8 || name.contains(':')) {
            bail!("registry.users.{name}: a secret has at least 8 characters, and a name no colon");
        }
        Ok(())
    }
}

/// Stands where a build has none.
#[cfg(not(feature = "registry"))]
#[derive(Debug)]
pub(crate) struct Bound;

#[cfg(not(feature = "registry"))]
impl Bound {
    /// None is wanted, or it is refused.
    #[allow(clippy::unused_async, reason = "as where there is one")]
    pub(crate) async fn bind(
        arguments: &crate::UpArguments,
        config: &crate::config::Config,
    ) -> anyhow::Result<Option<Self>> {
        if config.registry.mode(arguments.registry.as_deref()) == RegistryMode::Off {
            return Ok(None);
        }
        bail!(
            "this build has no schema registry: cargo install --locked --path crates/cairn makes one that has; else remove [registry] and --registry"
        )
    }

    /// Never called: nothing was bound.
    #[allow(clippy::unused_async, reason = "as where there is one")]
    pub(crate) async fn open(
        self,
        _: &crate::engine::Engine,
        _: &cairn_clock::Entropy,
        _: &tokio_util::task::TaskTracker,
        _: &tokio_util::sync::CancellationToken,
    ) -> anyhow::Result<Option<String>> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        toml::from_str::<RegistrySection>(text).expect("a section").check().expect_err("it makes no sense").to_string()
    }

    #[test]
    fn the_mode_follows_from_what_is_set() {
        let mode = |text: &str, argument| toml::from_str::<RegistrySection>(text).expect("a section").mode(argument);
        assert_eq!(mode("", None), RegistryMode::Off);
        assert_eq!(mode("", Some("127.0.0.1:0")), RegistryMode::Embedded);
        assert_eq!(mode("listen = \"127.0.0.1:0\"", None), RegistryMode::Embedded);
        assert_eq!(mode("url = \"http://x\"", None), RegistryMode::External);
        assert_eq!(mode("mode = \"off\"\nlisten = \"127.0.0.1:0\"", None), RegistryMode::Off);
    }

    #[test]
    fn what_would_have_no_effect_is_refused() {
        assert!(fault("mode = \"external\"").contains("registry.url"));
        assert!(fault("mode = \"external\"\nurl = \"http://x\"\ntopic = \"t\"").contains("registry.topic"));
        assert!(fault("mode = \"embedded\"\nurl = \"http://x\"").contains("registry.url"));
        assert!(fault("url = \"http://x\"\nuser = \"u\"").contains("registry.secret"));
        assert!(fault("listen = \"127.0.0.1:0\"\nusers = { a = \"short\" }").contains("8 characters"));
    }
}
