//! Cairn's second binary: what takes Parquet and Iceberg, so that the first one stays quick to build.
//!
//! Two things: data sets as Parquet (`calls`), and the trail as an Iceberg table on an object store. Reading order: `columns` (rows as a
//! Parquet file), `calls`, `events` (the table's columns), `iceberg` (Iceberg's own files), `table` (commits and their fences), `rows` (reading
//! back), `near` (what lies twice), `sink` (the consumer's), `retention`, `joining` (small files), `replay`, `catalog` (what engines attach), `config`, and `commands`. This
//! crate must never slow a call, never change the trail, and never commit what another writer may have committed.

pub mod calls;
pub mod catalog;
pub mod columns;
pub mod commands;
pub mod config;
pub mod events;
pub mod iceberg;
pub mod joining;
pub mod near;
pub mod replay;
pub mod retention;
pub mod rows;
pub mod sink;
pub mod table;
