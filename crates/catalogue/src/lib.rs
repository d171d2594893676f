//! What servers say that they offer: what in it is suspicious ([`alerts`]), and which definitions are approved ([`Book`]).
//!
//! A definition is a server's own word about itself, and a model reads it as instructions. So each one is looked at when it
//! is new, and where it changes after somebody relied on it, the one that was approved can be kept in its place. This
//! crate knows definitions as JSON and digests; it does not know how they are listed, and it never decides about a call.

mod alerts;
mod book;
mod instructions;
mod lookalike;

pub use alerts::{Alert, AlertName, alerts};
pub use book::{Approved, Book, BookError, Mode, Place, Seen, Standing};
pub use instructions::rules_version;
