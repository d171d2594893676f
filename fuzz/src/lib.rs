//! What the fuzz targets share: a second reader of JSON, memory that ends, and a trail to spoil.
//!
//! Each file in `targets/` is one target: bytes in, a panic where something that must hold does not. They run on stable
//! Rust by `cargo xtask fuzz`. Nothing here may depend on time, luck or the network: a file of bytes repeats a finding.

pub mod memory;
pub mod reference;
#[cfg(feature = "proofs")]
pub mod trail;
