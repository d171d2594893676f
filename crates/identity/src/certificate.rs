//! A client certificate that the listener has verified: its thumbprint and the names in it.
//!
//! Whether it is to be trusted was decided in the TLS handshake, by the certificate authorities of the listener. Here it is read.

use std::sync::Arc;

use x509_parser::{extensions::GeneralName, parse_x509_certificate};

use crate::{
    base64url,
    options::{CertificateName, CertificateOptions},
    rejection::Reason,
    who::{Credential, Identity, Kind},
};

/// Longest name, in bytes.
const NAME_BYTES_MAX: usize = 512;

/// A verified client certificate. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PeerCertificate(Arc<Names>);

#[derive(Debug)]
struct Names {
    thumbprint: String,
    uris: Vec<String>,
    dns: Vec<String>,
    subject: String,
}

impl PeerCertificate {
    /// Reads the certificate that a handshake has verified; none where it cannot be read after all.
    #[must_use]
    pub fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = parse_x509_certificate(der).ok()?;
        let (mut uris, mut dns) = (Vec::new(), Vec::new());
        if let Ok(Some(names)) = certificate.subject_alternative_name() {
            for name in &names.value.general_names {
                match name {
                    GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                    GeneralName::DNSName(name) => dns.push(name.to_ascii_lowercase()),
                    _ => {}
                }
            }
        }
        let subject = certificate.subject().to_string();
        Some(Self(Arc::new(Names { thumbprint: base64url::sha256(der), uris, dns, subject })))
    }

    /// SHA-256 of the certificate, as `x5t#S256` has it.
    pub(crate) fn thumbprint(&self) -> &str {
        &self.0.thumbprint
    }

    /// Whom it names. More than one name of a kind is nobody: which one counts would be a guess.
    pub(crate) fn identity(&self, options: &CertificateOptions) -> Result<Identity, Reason> {
        let name = match (options.principal, self.0.uris.as_slice(), self.0.dns.as_slice()) {
            (CertificateName::Uri, [uri], _) => uri,
            (CertificateName::Dns, _, [name]) => name,
            (CertificateName::Subject, ..) => &self.0.subject,
            (CertificateName::Uri | CertificateName::Dns, ..) => return Err(Reason::CertificateUnusable),
        };
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            return Err(Reason::CertificateUnusable);
        }
        Ok(Identity {
            tenant: options.tenant.clone(),
            principal: format!("cert/{name}"),
            kind: Kind::Workload,
            agent: None,
            scopes: Some(options.scopes.clone().into()),
            credential: Credential::Certificate,
        })
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(common: &str, names: Vec<SanType>) -> PeerCertificate {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common);
        params.subject_alt_names = names;
        let made = params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate");
        PeerCertificate::read(made.der()).expect("it can be read")
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().expect("ASCII"))
    }

    fn named(certificate: &PeerCertificate, principal: CertificateName) -> Result<String, Reason> {
        let options = CertificateOptions { principal, tenant: None, scopes: Vec::new() };
        certificate.identity(&options).map(|identity| identity.principal)
    }

    #[test]
    fn a_certificate_names_exactly_one_principal_or_none() {
        let dns = |name: &str| SanType::DnsName(name.try_into().expect("ASCII"));
        let one = certificate("agent", vec![uri("spiffe://prod/agent"), dns("Agent.example")]);
        assert_eq!(named(&one, CertificateName::Uri).as_deref(), Ok("cert/spiffe://prod/agent"));
        assert_eq!(named(&one, CertificateName::Dns).as_deref(), Ok("cert/agent.example"));
        assert_eq!(named(&one, CertificateName::Subject).as_deref(), Ok("cert/CN=agent"));
        let two = certificate("agent", vec![uri("spiffe://prod/agent"), uri("spiffe://prod/admin")]);
        assert_eq!(named(&two, CertificateName::Uri), Err(Reason::CertificateUnusable));
        assert_eq!(named(&certificate("x", Vec::new()), CertificateName::Uri), Err(Reason::CertificateUnusable));
        assert_eq!(named(&certificate("x", Vec::new()), CertificateName::Dns), Err(Reason::CertificateUnusable));
        assert_ne!(one.thumbprint(), two.thumbprint());
    }

    #[test]
    fn what_is_no_certificate_is_none() {
        for bytes in [&b""[..], b"0", b"\x30\x82\xff\xff", &[0x30; 4096]] {
            assert!(PeerCertificate::read(bytes).is_none());
        }
    }
}
