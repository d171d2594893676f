//! The disk without Cairn: what one sync costs, and how fast synced bytes can be written one after the other.
//!
//! Both write into a file that was filled with zeros and synced before, as a write-ahead log does: then a sync carries data only,
//! and no metadata of the file system. Blocking; called through `spawn_blocking`.

use std::{fs::File, os::unix::fs::FileExt, path::Path, time::Duration};

use anyhow::Context;
use tokio::time::Instant;

use crate::samples::Samples;

/// Bytes of one small write.
const SMALL_BYTES: usize = 4 << 10;
/// Bytes of one large write.
const LARGE_BYTES: usize = 1 << 20;
/// Bytes of the file.
const FILE_BYTES: usize = 64 << 20;
/// Syncs in one measurement, at most.
const SYNCS_MAX: usize = 2_000;

/// A file of zeros whose blocks are allocated.
#[derive(Debug)]
pub(crate) struct Scratch(File);

impl Scratch {
    pub(crate) fn create(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("scratch");
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path);
        let file = file.with_context(|| format!("create {}", path.display()))?;
        let zeros = vec![0; LARGE_BYTES];
        for at in (0..FILE_BYTES).step_by(LARGE_BYTES) {
            file.write_all_at(&zeros, at as u64)?;
        }
        file.sync_all()?;
        Ok(Self(file))
    }

    /// How long one fdatasync takes after 4 KiB were written.
    pub(crate) fn syncs(&self, within: Duration) -> anyhow::Result<Samples> {
        let bytes = [0x5a; SMALL_BYTES];
        let mut samples = Samples::default();
        let began = Instant::now();
        while samples.len() < SYNCS_MAX && began.elapsed() < within {
            let at = (samples.len() * SMALL_BYTES) % FILE_BYTES;
            self.0.write_all_at(&bytes, at as u64)?;
            let started = Instant::now();
            self.0.sync_data()?;
            samples.push(started.elapsed());
        }
        Ok(samples)
    }

    /// How long what comes so many times a second waits for a sync of its own time: each covers all that came before it began. So what
    /// comes while the disk stands still waits as long as it does, as it would in any log.
    pub(crate) fn paced(&self, a_second: u32, within: Duration) -> anyhow::Result<Samples> {
        let bytes = [0x5a; SMALL_BYTES];
        let (pace, count) = (Duration::from_secs(1) / a_second, (within.as_secs_f64() * f64::from(a_second)) as u32);
        let mut samples = Samples::default();
        let (began, mut done) = (Instant::now(), 0);
        while done < count {
            std::thread::park_timeout((pace * done).saturating_sub(began.elapsed()));
            let due = ((began.elapsed().as_nanos() / pace.as_nanos()) as u32 + 1).min(count);
            self.0.write_all_at(&bytes, ((due as usize * SMALL_BYTES) % FILE_BYTES) as u64)?;
            self.0.sync_data()?;
            (done..due).for_each(|at| samples.push(began.elapsed().saturating_sub(pace * at)));
            done = due;
        }
        Ok(samples)
    }

    /// Megabytes a second of mebibytes written one after the other, each synced.
    pub(crate) fn rate(&self, within: Duration) -> anyhow::Result<f64> {
        self.rate_of(LARGE_BYTES, within)
    }

    /// Megabytes a second of writes of so many bytes, each synced.
    pub(crate) fn rate_of(&self, bytes: usize, within: Duration) -> anyhow::Result<f64> {
        let bytes = vec![0x5a; bytes.next_multiple_of(SMALL_BYTES).clamp(SMALL_BYTES, FILE_BYTES / 4)];
        let began = Instant::now();
        let (mut written, mut at) = (0, 0);
        while began.elapsed() < within {
            self.0.write_all_at(&bytes, at as u64)?;
            self.0.sync_data()?;
            written += bytes.len();
            at += bytes.len();
            if at + bytes.len() > FILE_BYTES {
                at = 0;
            }
        }
        Ok(written as f64 / 1e6 / began.elapsed().as_secs_f64())
    }
}
