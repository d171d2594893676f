//! A listener's certificates: from PEM files, read again when these change.
//!
//! Called by each listener. A new connection is served with what the files held last and could be used; connections that are open live on. Files
//! that do not fit together, as while they are replaced one by one, change nothing.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use ring::digest::{Context, SHA256};
use rustls::{
    RootCertStore, ServerConfig,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// Where a listener's certificates lie.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    /// The server's certificate and those between it and its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities of clients' certificates; none are asked for where absent.
    pub client_authorities: Option<PathBuf>,
    /// Whether a client without a certificate is refused in the handshake.
    pub clients_required: bool,
}

/// Why a listener's certificates cannot be used. Says nothing of a key.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{path}: {why}")]
pub struct TlsError {
    /// Which file.
    pub path: String,
    /// What is wrong with it.
    pub why: String,
}

/// The certificates of a listener. Cheap to clone.
#[derive(Clone)]
pub struct ServerTls(Arc<Inner>);

struct Inner {
    files: TlsFiles,
    protocols: &'static [&'static [u8]],
    current: Mutex<(Arc<ServerConfig>, [u8; 32])>,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("files", &self.0.files).finish_non_exhaustive()
    }
}

impl ServerTls {
    /// Reads the files. `protocols` are those of ALPN that the listener speaks; none for a protocol without a name there.
    ///
    /// # Errors
    /// Where they cannot be read or do not fit together.
    pub fn open(files: TlsFiles, protocols: &'static [&'static [u8]]) -> Result<Self, TlsError> {
        let read = Read::of(&files)?;
        let (config, digest) = (read.config(&files, protocols)?, read.digest());
        Ok(Self(Arc::new(Inner { files, protocols, current: Mutex::new((config, digest)) })))
    }

    /// What the next connection is served with.
    #[must_use]
    pub fn current(&self) -> Arc<ServerConfig> {
        self.0.current.lock().0.clone()
    }

    /// Reads the files again; says whether what they hold is new, and used from here on.
    ///
    /// # Errors
    /// Where they cannot be used: the old ones stay.
    pub fn refresh(&self) -> Result<bool, TlsError> {
        let read = Read::of(&self.0.files)?;
        let digest = read.digest();
        if self.0.current.lock().1 == digest {
            return Ok(false);
        }
        let config = read.config(&self.0.files, self.0.protocols)?;
        *self.0.current.lock() = (config, digest);
        Ok(true)
    }
}

/// What the files hold.
struct Read {
    certificate: Vec<u8>,
    key: Vec<u8>,
    authorities: Option<Vec<u8>>,
}

impl Read {
    fn of(files: &TlsFiles) -> Result<Self, TlsError> {
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|error| TlsError { path: path.display().to_string(), why: error.to_string() })
        };
        Ok(Self {
            certificate: read(&files.certificate)?,
            key: read(&files.key)?,
            authorities: files.client_authorities.as_ref().map(read).transpose()?,
        })
    }

    fn digest(&self) -> [u8; 32] {
        let mut context = Context::new(&SHA256);
        for part in [&self.certificate, &self.key, self.authorities.as_ref().unwrap_or(&Vec::new())] {
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
        context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    fn config(&self, files: &TlsFiles, protocols: &[&[u8]]) -> Result<Arc<ServerConfig>, TlsError> {
        let chain = certificates(&files.certificate, &self.certificate)?;
        let key =
            PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| fault(&files.key, "there is no private key in it"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("ring offers the default protocol versions");
        let builder = match (&files.client_authorities, &self.authorities) {
            (Some(path), Some(text)) => {
                let roots = Arc::new(roots(path, text)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                let verifier = if files.clients_required { verifier } else { verifier.allow_unauthenticated() };
                let verifier: Arc<dyn ClientCertVerifier> =
                    verifier.build().map_err(|error| fault(path, &error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config =
            builder.with_single_cert(chain, key).map_err(|error| fault(&files.certificate, &error.to_string()))?;
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(Arc::new(config))
    }
}

pub(crate) fn fault(path: &Path, why: &str) -> TlsError {
    TlsError { path: path.display().to_string(), why: why.to_owned() }
}

/// The certificates of a PEM text; at least one.
pub(crate) fn certificates(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(text).collect();
    match read {
        Ok(list) if !list.is_empty() => Ok(list),
        Ok(_) => Err(fault(path, "there is no certificate in it")),
        Err(_) => Err(fault(path, "it is not PEM")),
    }
}

/// The authorities of a PEM text.
pub(crate) fn roots(path: &Path, text: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, text)? {
        roots.add(certificate).map_err(|error| fault(path, &error.to_string()))?;
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn pair() -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let made = CertificateParams::new(vec!["localhost".to_owned()]).expect("names").self_signed(&key);
        (made.expect("a certificate").pem(), key.serialize_pem())
    }

    #[test]
    fn new_files_are_used_once_they_fit_together() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let write = |name: &str, text: &str| std::fs::write(at(name), text).expect("written");
        let files = TlsFiles {
            certificate: at("c.pem"),
            key: at("k.pem"),
            client_authorities: Some(at("ca.pem")),
            clients_required: false,
        };
        assert!(ServerTls::open(files.clone(), &[]).expect_err("nothing there").to_string().contains("c.pem"));
        let ((certificate, key), (newer, newer_key), (authority, _)) = (pair(), pair(), pair());
        write("c.pem", &certificate);
        write("k.pem", &key);
        write("ca.pem", &authority);
        let tls = ServerTls::open(files, &[]).expect("they fit");
        assert_eq!(tls.refresh(), Ok(false));
        let first = tls.current();
        write("c.pem", &newer);
        assert!(tls.refresh().is_err(), "a certificate of another key");
        assert!(Arc::ptr_eq(&first, &tls.current()), "the old ones stay");
        write("k.pem", &newer_key);
        assert_eq!(tls.refresh(), Ok(true));
        assert!(!Arc::ptr_eq(&first, &tls.current()));
        write("k.pem", "no key");
        let error = tls.refresh().expect_err("no key").to_string();
        assert!(error.contains("k.pem") && !error.contains("no key\n"), "{error}");
        write("k.pem", &newer_key);
        write("ca.pem", &newer);
        assert_eq!(tls.refresh(), Ok(true), "another authority counts too");
    }
}
