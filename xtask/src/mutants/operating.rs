//! The mutants of what operators rely on: TLS on the listeners, files that are encrypted, acts that are recorded. Written like those of the table beside it.

use super::table::Mutant;

/// All of them.
pub(crate) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "a port for some answers anybody",
        file: "crates/broker/src/api/session.rs",
        before: "self.only.is_some() && !matches!(self.principal, Principal::User(_))",
        after: "self.only.is_some() && matches!(self.principal, Principal::Internal)",
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
    Mutant {
        name: "an act that cannot be recorded is done",
        file: "crates/operators/src/acts.rs",
        before: "return problem(StatusCode::SERVICE_UNAVAILABLE, words);",
        after: "tracing::warn!(\"{words}\");",
        test: "-p cairn --test commands what_cannot_be_recorded",
    },
    Mutant {
        name: "a command does what it could not keep",
        file: "crates/operators/src/journal.rs",
        before: "self.write(place, &event).map_err(failed)?;",
        after: "let _ = self.write(place, &event).map_err(failed);",
        test: "-p cairn-operators --lib what_is_about_to_be_done",
    },
    Mutant {
        name: "what commands did is recorded by the clock",
        file: "crates/operators/src/journal.rs",
        before: "found.sort_by_cached_key(|path| (place_of(path), path.clone()));",
        after: "found.sort_by_cached_key(|path| path.to_string_lossy().split_once('-').map(|(_, id)| id.to_owned()));",
        test: "-p cairn-operators --lib what_is_about_to_be_done",
    },
    Mutant {
        name: "an encrypted frame is bound to no place",
        file: "crates/log/src/frame.rs",
        before: "about[20..40].copy_from_slice(&frame[12..HEADER_BYTES]);",
        after: "about[20..40].fill(0);",
        test: "-p cairn-log --lib what_was_spoiled",
    },
    Mutant {
        name: "what lay in the clear is used again",
        file: "crates/log/src/spares.rs",
        before: "&& (is_sealed || options.at_rest.current().is_none());",
        after: "&& (is_sealed || options.wal_bytes_max > 0);",
        test: "-p cairn-log --lib what_lay_in_the_clear",
    },
    Mutant {
        name: "new files go on in the clear once encryption is on",
        file: "crates/log/src/open.rs",
        before: "if writer.segment.as_ref().is_some_and(|segment| !segment.is_as_new(&shared.options.at_rest)) {",
        after: "if writer.next == 0 {",
        test: "-p cairn-log --lib at_rest_tests",
    },
    Mutant {
        name: "an encrypted chunk is bound to no object",
        file: "crates/log/src/sealed.rs",
        before: "[name.as_bytes(), &[0], &length.to_be_bytes(), &chunk.to_be_bytes()].concat()",
        after: "[&name.as_bytes()[..0], &[0], &length.to_be_bytes(), &chunk.to_be_bytes()].concat()",
        test: "-p cairn-log --lib sealed",
    },
    Mutant {
        name: "a spooled frame is bound to no place",
        file: "crates/backbone/src/kafka/sealed.rs",
        before: "about[8..].copy_from_slice(&at.to_be_bytes());",
        after: "let _ = at;",
        test: "-p cairn-backbone --lib of_an_encrypted_spool",
    },
];
