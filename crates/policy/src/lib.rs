//! Decisions: Cedar policy sets, versions, obligations. Makes permits; reads policy files, and writes them only where
//! an operator promotes a shadow or rolls back.
//!
//! The gateway asks [`PolicyStore::decide`] before it does anything with a call, and forwards only with the [`Permit`]
//! that a permitting [`Verdict`] holds. This crate must never know how MCP looks on the wire, must never write anything,
//! and must never let a set of policies that does not compile change a decision.
//!
//! A permit is made here and nowhere else:
//!
//! ```compile_fail
//! let forged = cairn_policy::Permit { version: "observe".into(), obligations: Vec::new(), inputs_digest: String::new() };
//! ```
//!
//! and it is used once, because it cannot be copied:
//!
//! ```compile_fail
//! fn twice(permit: cairn_policy::Permit) -> (cairn_policy::Permit, cairn_policy::Permit) {
//!     (permit.clone(), permit)
//! }
//! ```

mod allowance;
mod annotations;
mod arguments;
mod asking;
mod compile;
mod directory;
mod error;
mod files;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod index;
mod journal;
mod names;
mod near;
mod nearest;
mod obligations;
mod question;
mod rules;
mod schema;
mod set;
mod shadow;
mod store;
mod subjects;
mod trial;
mod uri_template;
mod validate;
mod verdict;

#[cfg(test)]
mod slice_tests;

pub use arguments::{ARGUMENT_BYTES_MAX, ARGUMENT_DEPTH_MAX, ARGUMENT_VALUES_MAX};
pub use directory::ENTITIES_MAX;
pub use error::{PolicyError, PolicyProblem};
pub use files::{ENTITIES_BYTES_MAX, FILE_BYTES_MAX, FILES_MAX, folder_texts};
pub use nearest::Nearest;
pub use obligations::{FreshnessDemand, KeptAs, Masking, OutputMode, RewriteFault, Rewriting};
pub use question::Question;
pub use schema::SCHEMA;
pub use set::OBSERVE;
pub use shadow::Shadowed;
pub use store::{Change, PolicyStore};
pub use trial::{NotTried, Trial, Tried};
pub use verdict::{ApprovalDemand, ApprovalNeed, Obligation, Permit, PolicyDemand, Ruling, Verdict};
