//! `[tenants]`: which tenants have topics of their own, and the recorder that writes each one's.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, bail};
use cairn_backbone::{OpenCall, Recorder, RecorderOptions};
use cairn_clock::{Clock, Entropy};
use cairn_contract::TopicPrefix;
use serde::Deserialize;

use crate::engine::Engine;

/// Most tenants with topics of their own: each has a set of topics and, towards a cluster, a spool and a producer.
const SEPARATE_MAX: usize = 64;

/// `[tenants]`
#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TenantsSection {
    separate: Vec<String>,
}

impl TenantsSection {
    /// What stands before the topics of each.
    pub(crate) fn prefixes(&self) -> anyhow::Result<BTreeMap<String, TopicPrefix>> {
        if self.separate.len() > SEPARATE_MAX {
            bail!("tenants.separate names {} tenants: {SEPARATE_MAX} are the most", self.separate.len());
        }
        let prefix = |name: &String| Ok((name.clone(), TopicPrefix::of(name).context("tenants.separate")?));
        self.separate.iter().map(prefix).collect()
    }
}

/// The recorder with one for each tenant, and the calls that their last run left open.
pub(crate) async fn recorders(
    common: (Recorder, Vec<OpenCall>),
    engine: &Engine,
    producer: &(String, u64),
    home: &Path,
    (clock, entropy): (&Clock, &Entropy),
) -> anyhow::Result<(Recorder, Vec<OpenCall>)> {
    let (recorder, mut open) = common;
    let mut tenants = BTreeMap::new();
    for (name, backbone) in engine.tenants() {
        let folder = home.join("tenants").join(&name);
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let options = RecorderOptions::new(producer.0.clone(), producer.1, folder);
        let opened = Recorder::open(options, backbone, clock.clone(), entropy.clone()).await;
        let (own, left) = opened.with_context(|| format!("cannot read the trail of the tenant {name} back"))?;
        tenants.insert(name, own);
        open.extend(left);
    }
    Ok((recorder.with_tenants(tenants), open))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_a_name_that_topics_can_have() {
        let section =
            |names: &[&str]| TenantsSection { separate: names.iter().map(|name| (*name).to_owned()).collect() };
        assert_eq!(section(&["acme", "globex"]).prefixes().expect("names").len(), 2);
        for names in [&["a.b"][..], &[""], &["mcp"], &["a/b"]] {
            let error = format!("{:#}", section(names).prefixes().expect_err("no such topic"));
            assert!(error.contains("tenants.separate") && error.contains("letters"), "{error}");
        }
        let many: Vec<String> = (0..65).map(|number| format!("t{number}")).collect();
        assert!(TenantsSection { separate: many }.prefixes().is_err());
    }
}
