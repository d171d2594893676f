//! The commands as a user runs them: real processes over real folders, held to what the README says of them.
//!
//! One binary, because linking is what costs. Each module is one command; `support` starts and ends processes by their own
//! pid and waits for conditions, never for times.

mod adopt;
mod alone;
mod approvals;
mod approve;
mod at_rest;
mod bounds;
mod catalogue;
mod collector;
mod consumers;
mod context;
mod contracts;
mod crafted;
mod dataset;
mod demo;
mod evidence;
mod evidence_live;
mod exchange;
mod freshness;
mod guarded;
mod hostile;
mod identity;
mod inline;
mod inside;
mod limits;
mod models;
mod obligations;
mod observe;
mod operations;
mod operators;
mod outside;
mod played;
mod playing;
mod policy;
#[cfg(feature = "postgres")]
mod postgres;
mod proving;
mod rotation;
mod starting;
mod store;
mod support;
mod take_over;
mod tasks;
mod tenants;
mod tls;
mod trail;
mod transports;
mod up;
mod vault;
mod whatif;
mod wrap;
