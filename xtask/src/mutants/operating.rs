//! The mutants of what operators rely on: TLS on the listeners. Written like those of the table beside it.

use super::table::Mutant;

/// All of them.
pub(crate) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "a port for some answers anybody",
        file: "crates/broker/src/api/session.rs",
        before: "self.only.is_none() || matches!(self.principal, Principal::User(_))",
        after: "self.only.is_none() || !matches!(self.principal, Principal::Internal)",
        test: "-p cairn-broker --test protocol a_port_for_some",
    },
    Mutant {
        name: "certificates are read once",
        file: "crates/tls/src/certificates.rs",
        before: "if self.0.current.lock().1 == digest {",
        after: "if self.0.current.lock().1.len() == digest.len() {",
        test: "-p cairn-tls --lib new_files",
    },
    Mutant {
        name: "what other machines reach is served in the clear",
        file: "crates/cairn/src/listen.rs",
        before: "if tls.is_none() && !address.ip().is_loopback() && !is_plaintext_meant {",
        after: "if tls.is_none() && address.port() == 0 && !is_plaintext_meant {",
        test: "-p cairn --bin cairn listen",
    },
];
