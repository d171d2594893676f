//! What a vault is opened with.

use std::{path::PathBuf, time::Duration};

/// How a vault keeps payloads.
#[derive(Clone, Debug)]
pub struct VaultOptions {
    /// Where it lies.
    pub folder: PathBuf,
    /// Largest payload that is kept; of a larger one the digest remains.
    pub object_bytes_max: usize,
    /// Payloads that wait for the disk, in bytes; past it a payload is not kept, and its reference says so.
    pub queue_bytes_max: usize,
    /// A pack that has grown to this is closed, and another begun.
    pub pack_bytes_max: u64,
    /// How long a subject's data key is used before it gets another.
    pub period: Duration,
    /// How long objects are kept, where no hold says longer.
    pub retention: Duration,
    /// How long a payload that nobody waits for may lie in memory.
    pub flush_interval: Duration,
}

impl VaultOptions {
    /// The defaults, for a folder.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self {
            folder: folder.into(),
            object_bytes_max: 4 << 20,
            queue_bytes_max: 64 << 20,
            pack_bytes_max: 64 << 20,
            period: 30 * DAY,
            retention: 400 * DAY,
            flush_interval: Duration::from_millis(50),
        }
    }
}
