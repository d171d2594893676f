//! `[decision_point]`: who is asked besides the policies, and what holds where there is no answer.
//!
//! Read with the rest of the configuration. The token is a secret: it is never shown.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use cairn_gateway::{DecisionPoint, DecisionPointOptions};
use serde::Deserialize;

use crate::config::filled;

/// How long an answer may take where nothing is said.
const TIMEOUT_MS: u64 = 500;
/// How many questions may be under way where nothing is said.
const CONCURRENT_MAX: usize = 64;

/// `[decision_point]`
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DecisionPointSection {
    url: String,
    token: Option<String>,
    ca: Option<PathBuf>,
    timeout_ms: Option<u64>,
    concurrent_max: Option<usize>,
    #[serde(default)]
    on_failure: OnFailure,
    #[serde(default)]
    methods: BTreeSet<String>,
}

/// What holds where there is no answer.
#[derive(Clone, Copy, Deserialize, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum OnFailure {
    /// The call is denied.
    #[default]
    Deny,
    /// The policies decide alone.
    Policies,
}

impl DecisionPointSection {
    /// Relative files lie beside the configuration.
    pub(crate) fn lie_in(&mut self, folder: &Path) {
        self.ca = self.ca.take().map(|path| folder.join(path));
    }

    /// The decision point; nothing is sent yet.
    pub(crate) fn open(&self) -> anyhow::Result<DecisionPoint> {
        let token = self.token.as_deref().map(filled).transpose().context("decision_point.token")?;
        let options = DecisionPointOptions {
            url: filled(&self.url).context("decision_point.url")?,
            token,
            authorities: self.ca.clone(),
            timeout: Duration::from_millis(self.timeout_ms.unwrap_or(TIMEOUT_MS)),
            concurrent_max: self.concurrent_max.unwrap_or(CONCURRENT_MAX),
            falls_back: self.on_failure == OnFailure::Policies,
            methods: self.methods.clone(),
        };
        Ok(DecisionPoint::new(options)?)
    }
}
