//! What a registry refuses, with the codes and words that Confluent's serializers know.
//!
//! One value carries the HTTP status, Confluent's error code and a sentence. The first words of a sentence are those that
//! clients and test suites look for; what to do follows where there is something to do.

use std::fmt;

use http::StatusCode;

/// Why a request was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The HTTP status.
    pub status: StatusCode,
    /// Confluent's error code.
    pub code: u32,
    /// What is wrong, and what to do.
    pub message: String,
}

impl Refusal {
    fn new(status: StatusCode, code: u32, message: impl fmt::Display) -> Self {
        Self { status, code, message: message.to_string() }
    }

    fn missing(code: u32, message: impl fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    fn unprocessable(code: u32, message: impl fmt::Display) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
    }

    /// 40401
    #[must_use]
    pub fn no_subject(subject: &str) -> Self {
        Self::missing(40401, format_args!("Subject '{subject}' not found."))
    }

    /// 40402
    #[must_use]
    pub fn no_version(version: impl fmt::Display) -> Self {
        Self::missing(40402, format_args!("Version {version} not found."))
    }

    /// 40403
    #[must_use]
    pub fn no_schema() -> Self {
        Self::missing(40403, "Schema not found")
    }

    /// 40403, of an id or a GUID.
    #[must_use]
    pub fn no_schema_of(id: impl fmt::Display) -> Self {
        Self::missing(40403, format_args!("Schema {id} not found"))
    }

    /// 40404
    #[must_use]
    pub fn subject_soft_deleted(subject: &str) -> Self {
        let words = format_args!("Subject '{subject}' was soft deleted.Set permanent=true to delete permanently");
        Self::missing(40404, words)
    }

    /// 40405
    #[must_use]
    pub fn subject_not_soft_deleted(subject: &str) -> Self {
        let words = format_args!("Subject '{subject}' was not deleted first before being permanently deleted");
        Self::missing(40405, words)
    }

    /// 40406
    #[must_use]
    pub fn version_soft_deleted(subject: &str, version: u32) -> Self {
        let words = format_args!(
            "Subject '{subject}' Version {version} was soft deleted.Set permanent=true to delete permanently"
        );
        Self::missing(40406, words)
    }

    /// 40407
    #[must_use]
    pub fn version_not_soft_deleted(subject: &str, version: u32) -> Self {
        let words = format_args!(
            "Subject '{subject}' Version {version} was not deleted first before being permanently deleted"
        );
        Self::missing(40407, words)
    }

    /// 40408
    #[must_use]
    pub fn no_level(subject: &str) -> Self {
        Self::missing(40408, format_args!("Subject '{subject}' does not have subject-level compatibility configured"))
    }

    /// 40409
    #[must_use]
    pub fn no_mode(subject: &str) -> Self {
        Self::missing(40409, format_args!("Subject '{subject}' does not have subject-level mode configured"))
    }

    /// 404: nothing is served there.
    #[must_use]
    pub fn no_route() -> Self {
        Self::missing(404, "HTTP 404 Not Found")
    }

    /// 409
    #[must_use]
    pub fn incompatible(subject: &str, details: impl fmt::Display) -> Self {
        let words = format_args!(
            "Schema being registered is incompatible with an earlier schema for subject \"{subject}\", details: [{details}]"
        );
        Self::new(StatusCode::CONFLICT, 409, words)
    }

    /// 42201
    #[must_use]
    pub fn invalid_schema(why: impl fmt::Display) -> Self {
        Self::unprocessable(42201, why)
    }

    /// 42202
    #[must_use]
    pub fn invalid_version(version: impl fmt::Display) -> Self {
        let words = format_args!(
            "The specified version '{version}' is not a valid version id. Allowed values are between [1, 2^31-1] and the string \"latest\""
        );
        Self::unprocessable(42202, words)
    }

    /// 42203
    #[must_use]
    pub fn invalid_level() -> Self {
        let words = "Invalid compatibility level. Valid values are none, backward, forward, full, backward_transitive, forward_transitive, and full_transitive";
        Self::unprocessable(42203, words)
    }

    /// 42204
    #[must_use]
    pub fn invalid_mode() -> Self {
        Self::unprocessable(42204, "Invalid mode. Valid values are READWRITE, READONLY, READONLY_OVERRIDE and IMPORT")
    }

    /// 42205
    #[must_use]
    pub fn not_permitted(why: impl fmt::Display) -> Self {
        Self::unprocessable(42205, why)
    }

    /// 42206
    #[must_use]
    pub fn referenced(subject: &str, version: u32) -> Self {
        let words = format_args!(
            "One or more references exist to the schema {{magic=1,keytype=SCHEMA,subject={subject},version={version}}}."
        );
        Self::unprocessable(42206, words)
    }

    /// 42207
    #[must_use]
    pub fn id_does_not_match(id: i64) -> Self {
        Self::unprocessable(42207, format_args!("Schema already registered with id {id} instead of input id"))
    }

    /// 42208
    #[must_use]
    pub fn invalid_subject(subject: &str) -> Self {
        Self::unprocessable(42208, format_args!("The specified subject '{subject}' is not a valid."))
    }

    /// 42209
    #[must_use]
    pub fn too_large(bytes_max: usize) -> Self {
        let words = format_args!("Schema too large: at most {bytes_max} bytes are kept");
        Self::unprocessable(42209, words)
    }

    /// 42210
    #[must_use]
    pub fn invalid_rules(why: impl fmt::Display) -> Self {
        Self::unprocessable(42210, format_args!("Invalid ruleSet: {why}"))
    }

    /// 42211
    #[must_use]
    pub fn context_not_empty(context: &str) -> Self {
        Self::unprocessable(42211, format_args!("The specified context '{context}' is not empty."))
    }

    /// 422 without a code of its own: the request is not what it should be.
    #[must_use]
    pub fn malformed(why: impl fmt::Display) -> Self {
        Self::unprocessable(422, why)
    }

    /// 413
    #[must_use]
    pub fn body_too_large(bytes_max: usize) -> Self {
        let words = format_args!("The request's body is larger than {bytes_max} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, 413, words)
    }

    /// 503: something else of its kind is full.
    #[must_use]
    pub fn full(why: impl fmt::Display) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, 50001, why)
    }

    /// 50001
    #[must_use]
    pub fn store(why: impl fmt::Display) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, 50001, format_args!("Error in the backend data store: {why}"))
    }

    /// 50002
    #[must_use]
    pub fn timed_out(why: impl fmt::Display) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, 50002, format_args!("Operation timed out: {why}"))
    }

    /// 50004: this one may not write any more.
    #[must_use]
    pub fn not_leader(why: impl fmt::Display) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, 50004, why)
    }
}
