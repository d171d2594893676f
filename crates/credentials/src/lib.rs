//! How Cairn proves itself to upstream servers: tokens of its own, obtained, kept and renewed here.
//!
//! [`Credentials`] holds one [`Credential`] for each server that has `[servers.NAME.auth]`. The gateway asks a credential to
//! be [`Credential::ready`] before it records an intent, and gives its links a [`Proof`], which puts the token on each
//! request and hears what the server says of it. A token comes from a [`options::Kind`]: given by the configuration, from
//! a person who logs in once (`login.rs`), by client credentials, by exchange of the caller's token, or from an identity
//! provider of one's company (`sources/`). The OAuth client underneath is `rmcp`'s; it speaks through [`guarded`], which
//! alone opens connections, within bounds, and only to addresses that the server's configuration lets it reach.
//!
//! Must never pass a client's own token to an upstream (it may be shown to a configured token endpoint, in exchange), and never show a token or a secret: not in an error, an event, a
//! log line or `Debug`. What a server or an authorization server says of a failure is read, never repeated.

mod address;
mod assertion;
mod caller;
mod challenge;
mod credential;
mod error;
mod grant;
pub mod guarded;
mod login;
pub mod options;
mod person;
mod proof;
mod registry;
mod sealed;
mod secret;
mod sources;
mod token;

pub use address::Hosts;
pub use caller::CallerToken;
pub use credential::{Asker, Credential, Standing};
pub use error::{CredentialError, OptionsError};
pub use login::{Callback, Login, LoginState};
pub use proof::Proof;
pub use registry::{Credentials, Environment};
pub use sealed::SealKey;
pub use secret::Secret;
