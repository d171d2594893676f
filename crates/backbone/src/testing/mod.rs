//! A backbone in memory for tests of whoever records, and the suite that every backbone passes.
//!
//! [`MemoryBackbone`] can stall, fail, and store without saying so. It is exported so that other crates' tests can use it; no
//! product code may.

pub mod conformance;
mod memory;

pub use memory::{Fault, MemoryBackbone};
