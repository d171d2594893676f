//! TLS of the listeners: `[gateway.tls]`, `[admin.tls]`, `[kafka.tls]`, and what other machines may reach without it.
//!
//! Read with the configuration, opened by `up` before anything is served. Certificates are read again while it runs; a bad
//! new one changes nothing and is said once.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use cairn_tls::{Handshakes, PENDING_MAX, ServerTls, TlsFiles};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

/// How often the certificate files are looked at.
const TLS_EVERY: Duration = Duration::from_secs(1);
/// How long a handshake with the admin address or the Kafka port may take.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// What listeners of HTTP speak within TLS.
pub(crate) const HTTP: &[&[u8]] = &[b"http/1.1"];
/// Kafka's protocol has no name in ALPN.
pub(crate) const KAFKA: &[&[u8]] = &[];

/// `[gateway.tls]`, `[admin.tls]`, `[kafka.tls]`
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TlsSection {
    certificate: PathBuf,
    key: PathBuf,
    pub(crate) client_authorities: Option<PathBuf>,
    #[serde(default)]
    clients_required: bool,
}

impl TlsSection {
    /// Makes files that are named without their folder lie in this one.
    pub(crate) fn lie_in(&mut self, folder: &Path) {
        for path in [&mut self.certificate, &mut self.key].into_iter().chain(self.client_authorities.as_mut()) {
            *path = folder.join(&path);
        }
    }

    /// Reads the files; `section` is whose they are.
    pub(crate) fn open(&self, section: &str, protocols: &'static [&'static [u8]]) -> anyhow::Result<ServerTls> {
        let Self { certificate, key, client_authorities, clients_required } = self.clone();
        if clients_required && client_authorities.is_none() {
            bail!(
                "{section}.tls.clients_required needs {section}.tls.client_authorities: whose certificates are good?"
            );
        }
        let files = TlsFiles { certificate, key, client_authorities, clients_required };
        ServerTls::open(files, protocols).with_context(|| format!("{section}.tls"))
    }
}

/// The certificates of the admin address or the Kafka port. A listener that other machines reach and that has none is
/// refused, unless that is meant.
pub(crate) fn secured(
    section: &str,
    tls: Option<&TlsSection>,
    protocols: &'static [&'static [u8]],
    address: SocketAddr,
    is_plaintext_meant: bool,
) -> anyhow::Result<Option<ServerTls>> {
    if tls.is_none() && !address.ip().is_loopback() && !is_plaintext_meant {
        bail!(
            "{section} listens on {address}, which other machines reach, and all that is sent there would be in the clear: \
             set [{section}.tls] certificate and key, or listen on 127.0.0.1, or say that this is meant with \
             [{section}] allow_plaintext = true"
        );
    }
    tls.map(|tls| tls.open(section, protocols)).transpose()
}

/// The handshakes of a listener with these certificates.
pub(crate) fn handshakes(tls: ServerTls) -> Handshakes {
    Handshakes::new(tls, HANDSHAKE_WITHIN, PENDING_MAX)
}

/// Serves new connections with the newest certificates, until `stop`.
pub(crate) async fn follow_certificates(section: &'static str, tls: ServerTls, stop: CancellationToken) {
    let mut said = None;
    while tokio::time::timeout(TLS_EVERY, stop.cancelled()).await.is_err() {
        match tls.refresh() {
            Ok(true) => {
                said = None;
                eprintln!("cairn: the certificates of {section}.tls changed; new connections are served with them");
            }
            Ok(false) => said = None,
            Err(error) => {
                let words = error.to_string();
                if said.as_ref() != Some(&words) {
                    eprintln!("cairn: the new certificates of {section}.tls are not used, the old ones stay: {words}");
                    said = Some(words);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_reach_is_not_served_in_the_clear_by_mistake() {
        let at = |address: &str| address.parse().expect("an address");
        for section in ["admin", "kafka"] {
            for address in ["127.0.0.1:1", "[::1]:1", "127.8.8.8:1"] {
                assert!(secured(section, None, HTTP, at(address), false).expect("as ever").is_none());
            }
            for address in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1"] {
                let words = secured(section, None, HTTP, at(address), false).expect_err("others reach it").to_string();
                let says = [format!("[{section}.tls]"), format!("[{section}] allow_plaintext = true")];
                assert!(says.iter().all(|says| words.contains(says)), "{words}");
                assert!(secured(section, None, HTTP, at(address), true).expect("it is meant").is_none());
            }
        }
        let tls = |text: &str| toml::from_str::<TlsSection>(text).expect("a section");
        let lost = tls("certificate = \"no.pem\"\nkey = \"no.key\"");
        let words = format!("{:#}", secured("kafka", Some(&lost), KAFKA, at("0.0.0.0:1"), true).expect_err("no file"));
        assert!(words.contains("kafka.tls") && words.contains("no.pem"), "{words}");
        let whose = tls("certificate = \"no.pem\"\nkey = \"no.key\"\nclients_required = true");
        let words =
            format!("{:#}", secured("admin", Some(&whose), HTTP, at("127.0.0.1:1"), false).expect_err("whose?"));
        assert!(words.contains("admin.tls.client_authorities"), "{words}");
    }
}
