//! The audit consumer: the whole trail in one SQLite file that people can query.
//!
//! [`AuditSink`] is the sink of the consumer `audit`, [`query`] answers questions read-only and within limits, [`Holder`] sees that
//! one process applies at a time. The file can be made again from the trail as far back as that is kept. It holds what events hold:
//! references to payloads and masked texts, never a payload.

pub mod query;
mod retention;
mod schema;
mod sink;

#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

pub use sink::AuditSink;

/// The consumer's name.
pub const NAME: &str = "audit";
/// The group that it is in by default.
pub const GROUP: &str = "cairn-audit";

/// Where the database of a data folder lies.
#[must_use]
pub fn path(data: &Path) -> PathBuf {
    data.join("consumers").join("audit.sqlite")
}

/// Held by the process that applies events to a database, until it ends.
#[derive(Debug)]
pub struct Holder(#[allow(dead_code, reason = "the lock lasts as long as it is open")] File);

impl Holder {
    /// Takes the database for this process; makes its folder where it lacks.
    ///
    /// # Errors
    /// Another process has it (`WouldBlock`), or the folder cannot be made.
    pub fn take(database: &Path) -> io::Result<Self> {
        if let Some(folder) = database.parent() {
            make_private(folder)?;
        }
        let lock = open_private(&database.with_extension("lock"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self(lock)),
            Err(std::fs::TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

fn make_private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// A file that only its owner reads.
fn open_private(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().create(true).write(true).truncate(false).mode(0o600).open(path)
}
