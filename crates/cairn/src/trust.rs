//! Whose certificates Cairn's own commands believe, and how they prove themselves: `--ca`, `--cert`, `--cert-key`, and
//! `[commands]` of the configuration, which a running `up` announces.
//!
//! Paths alone stand here and in `endpoints.json`; each command reads the files with its own rights.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::bail;
use cairn_tls::ClientTls;
use clap::Args;
use serde::{Deserialize, Serialize};

/// `[commands]`: what commands on this machine use towards listeners with TLS.
#[derive(Clone, Deserialize, Serialize, Default, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CommandsSection {
    #[serde(skip_serializing_if = "Option::is_none")]
    authorities: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<PathBuf>,
}

impl CommandsSection {
    /// Makes files that are named without their folder lie in this one, which is made absolute.
    pub(crate) fn lie_in(&mut self, folder: &Path) {
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let Self { authorities, certificate, key } = self;
        for path in [authorities, certificate, key].into_iter().flatten() {
            *path = folder.join(&path);
        }
    }

    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if self.certificate.is_some() != self.key.is_some() {
            bail!("commands.certificate and commands.key belong together: set both or none");
        }
        Ok(())
    }
}

/// The same from the command line.
#[derive(Args, Clone, Default, Debug)]
pub(crate) struct TrustArguments {
    /// Certificate authorities (PEM) to believe where TLS is spoken; those that the running `up` names, else the usual ones.
    #[arg(long, env = "CAIRN_CA", global = true, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// A client certificate (PEM), for listeners that ask for one.
    #[arg(long, env = "CAIRN_CERT", global = true, value_name = "FILE", requires = "cert_key")]
    cert: Option<PathBuf>,
    /// Its private key.
    #[arg(long, env = "CAIRN_CERT_KEY", global = true, value_name = "FILE")]
    cert_key: Option<PathBuf>,
}

impl TrustArguments {
    /// These, and where one is not given, what the running `up` announces.
    pub(crate) fn with(&self, announced: Option<&CommandsSection>) -> ClientTls {
        let announced = announced.cloned().unwrap_or_default();
        ClientTls {
            authorities: self.ca.clone().or(announced.authorities),
            own: self.cert.clone().zip(self.cert_key.clone()).or(announced.certificate.zip(announced.key)),
        }
    }
}

/// librdkafka's properties for a port with TLS.
pub(crate) fn kafka_properties(tls: &ClientTls) -> BTreeMap<String, String> {
    let own = tls.own.as_ref();
    let paths = [
        ("ssl.ca.location", tls.authorities.as_ref()),
        ("ssl.certificate.location", own.map(|(certificate, _)| certificate)),
        ("ssl.key.location", own.map(|(_, key)| key)),
    ];
    let files = paths.into_iter().filter_map(|(name, path)| Some((name.to_owned(), path?.display().to_string())));
    files.chain([("security.protocol".to_owned(), "ssl".to_owned())]).collect()
}
