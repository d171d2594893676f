//! The operators' side: credential, approvals, health and metrics over HTTP.
//!
//! `/healthz` and `/metrics` are open; everything else wants an operator's token, of which only a salted hash is on disk,
//! and the role for it. `Origin` and `Host` are checked, bodies are bounded. Served by `cairn up` on the admin address.
//! Must never show a secret, and must never decide: it hands settlements to the gateway.

mod acts;
mod api;
mod approvals;
mod authzen;
mod console;
mod consumers_api;
mod context_api;
mod credential;
mod custody;
mod exposition;
mod journal;
mod limits_api;
mod logins;
mod people;
mod recording_api;
mod vault_api;
mod webhook;
mod whatif_api;

pub use api::{Admin, Policies, Probe, Replacement, Replacing};
pub use consumers_api::{Answering, ConsumerChangeAsked, ConsumerFault, Consumers, DoneBy, ReplayBody};
pub use credential::{Credential, CredentialError};
pub use custody::{Asked, Custody, CustodyError};
pub use journal::{Journal, JournalError, Kept};
pub use people::{OWNER, Operator, People, PeopleError, Role};
pub use recording_api::{RecordingAsked, RecordingFault, Recordings};
pub use webhook::{Webhook, WebhookError};
pub use whatif_api::{Running, TrialAsked, TrialFault, Trials};
