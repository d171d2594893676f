//! Event types, schemas, canonical JSON, digests and the producer chain.
//!
//! Whoever leaves a trace builds a [`Draft`], whoever writes it seals the draft with a [`Stamp`] into an [`EventRecord`],
//! and whoever reads it back sees a [`StoredEvent`]. Names are those that consumers rely on: they are held to the schemas
//! in `contracts/` by this crate's tests. This crate must never do I/O, and must never know where events are stored, how
//! MCP looks on the wire, or how policy decides.

mod access;
mod action;
mod body;
mod call;
mod canonical;
mod catalog;
mod chain;
mod common;
mod compatibility;
mod consumer;
mod context;
mod digest;
mod draft;
mod event_type;
mod evidence;
mod hlc;
pub mod invariants;
mod model;
mod operator;
mod partition;
mod policy;
mod rejected;
mod schema;
mod session;
mod stored;
mod topic;
mod validator;
mod vault;
mod workflow;

pub use access::{AccessRefused, AlertRaised, CredentialKind, LimitExceeded, LimitSource};
pub use action::ActionReported;
pub use body::{Body, BodyError};
pub use call::{
    ApprovalState, CallAnswered, CallApproval, CallDecision, CallIntent, CallLate, CallOutcome, CallSettled, Claimed,
    Decision, Durability, Effect, Freshness, Invocation, NearestPermit, Outcome, Outside, Rewritten, ScreenAction,
    Screened, SettledState, ShadowDecision, StoodOn,
};
pub use canonical::{CanonicalError, canonical_json, canonical_value, write_canonical};
pub use catalog::{CatalogApproved, CatalogChanged, CatalogDefined, CatalogKind};
pub use chain::{Link, link, link_parts};
pub use common::{Common, Direction, Era, LinkedBy, Target, Transport};
pub use compatibility::{Difference, Readers, differences};
pub use consumer::{ConsumerChange, ConsumerMoved, OffsetMove, OffsetRange, ReplayEnded, ReplayOutcome, ReplayStarted};
pub use context::{
    CacheScope, ChangeCause, ContextChanged, ContextListed, ContextPrompt, ContextRead, ListKind, ListedItem,
    VersionSource,
};
pub use digest::{DigestKey, DigestKeyError, Location, Reference, sha256_text};
pub use draft::{Draft, EVENT_BYTES_MAX, EventRecord, Producer, Refused, SealError, Stamp, Written};
pub use event_type::EventType;
pub use evidence::{EvidenceCheckpoint, EvidenceProducer, EvidenceRotated};
pub use hlc::{Hlc, HlcError};
pub use model::{ModelCalled, ReportedAs, ToolChosen, ToolOffered};
pub use operator::{ActOutcome, ActVia, OperatorActed};
pub use partition::{murmur2, partition_for};
pub use policy::{PolicyActivated, PolicyCause, PolicyFile, PolicyLoaded, PolicyRejected, PolicyShadowed, ShadowState};
pub use rejected::EventRejected;
pub use schema::{AddError, Contract, add_contracts, contract, contracts, embedded};
pub use session::{Implementation, NoticePassed, SessionClosed, SessionOpened};
pub use stored::{ContractName, StoredError, StoredEvent};
pub use topic::{Topic, TopicPrefix, TopicPrefixError, TopicSpec, topics};
pub use validator::{CompileError, Fault, Validator};
pub use vault::{SubjectErased, SubjectHeld, SubjectReleased, VaultRead};
pub use workflow::{WORKFLOW_ID_BYTES_MAX, WorkflowIdError, given_workflow_id};
