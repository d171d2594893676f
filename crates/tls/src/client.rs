//! How Cairn's own commands and readers prove themselves to a listener with TLS, and whom they believe.
//!
//! Read once for each command. Where no authorities are named, Mozilla's are believed.

use std::{path::PathBuf, sync::Arc};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};

use crate::certificates::{TlsError, certificates, fault, roots};

/// Where a client's certificates lie.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ClientTls {
    /// Whose certificates of servers are believed; Mozilla's authorities where absent.
    pub authorities: Option<PathBuf>,
    /// The client's own certificate and its private key, where a listener asks for one.
    pub own: Option<(PathBuf, PathBuf)>,
}

impl ClientTls {
    /// Reads the files.
    ///
    /// # Errors
    /// Where they cannot be read or do not fit together.
    pub fn config(&self) -> Result<ClientConfig, TlsError> {
        let read = |path: &PathBuf| std::fs::read(path).map_err(|error| fault(path, &error.to_string()));
        let believed = match &self.authorities {
            Some(path) => roots(path, &read(path)?)?,
            None => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring offers the default protocol versions")
            .with_root_certificates(believed);
        let Some((certificate, key)) = &self.own else { return Ok(builder.with_no_client_auth()) };
        let chain = certificates(certificate, &read(certificate)?)?;
        let private =
            PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|_| fault(key, "there is no private key in it"))?;
        builder.with_client_auth_cert(chain, private).map_err(|error| fault(certificate, &error.to_string()))
    }
}
