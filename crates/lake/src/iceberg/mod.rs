//! Iceberg's own files, version 2 of the format: table metadata, manifest lists, manifests. By the specification at
//! iceberg.apache.org/spec.
//!
//! They are written and read here with JSON and Avro alone. The crate `iceberg` is not used for it: its commit reloads the table and
//! applies an append again, so that a writer that was stalled would append twice. Knows no store and no catalog.

pub mod manifest;
pub mod metadata;
