//! What waits for people: what an approval binds, who has said yes, and that it counts once.
//!
//! The gateway asks ([`Approvals::ask`]), operators vote ([`Approvals::count`]), and whoever goes on claims
//! ([`Approvals::claim`]), once. An approval is bound to one digest over everything that was looked at ([`binding`]): a
//! call that differs in anything finds nothing to claim. What waits lies sealed in the data folder, so that a restart
//! loses none, and is taken from there before it counts, so that no restart lets it count twice.
//!
//! This crate must not know what an event is, how calls live, or how clients hear of it.

mod approval;
mod binding;
mod register;
mod sealed;

pub use approval::{Approval, Need, Request, Standing, Vote};
pub use binding::{Bound, binding};
pub use register::{
    APPROVALS_BYTES_MAX, APPROVALS_MAX, APPROVALS_OF_ONE_MAX, Approvals, Asked, Ended, Full, Status, VoteError,
};
pub use sealed::KeepError;
