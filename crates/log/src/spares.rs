//! Files that the write-ahead log can go on in: used ones that the store has all of, and the next one, made before it is needed. Called by
//! `writer` and `upload`.
//!
//! A new file is filled with zeros and synced, so that writing to it later changes its bytes alone; that takes long, and each sync of the
//! log waits in the device for what is filled meanwhile. So it is made while the file before it still has room, no faster than it will be
//! needed, and nobody waits for it. It guarantees that no two files ever have one path.

use std::{io, sync::Arc};

use parking_lot::{Condvar, Mutex};

use crate::{
    open::Shared,
    wal::{Segment, Spare},
};

/// Used files of the write-ahead log that are kept to be used again.
const KEPT_MAX: usize = 2;

/// What waits to be used.
#[derive(Debug)]
pub(crate) struct Spares {
    files: Mutex<Vec<Spare>>,
    /// Held while one is made, and while one gets its new name: nobody makes another of the old name meanwhile.
    making: Mutex<()>,
    pub(crate) progress: Progress,
}

/// How far the file that is made ahead should be.
#[derive(Debug)]
pub(crate) struct Progress {
    /// Bytes; none once the log ends.
    wanted: Mutex<Option<u64>>,
    changed: Condvar,
}

impl Progress {
    const fn new() -> Self {
        Self { wanted: parking_lot::const_mutex(Some(0)), changed: Condvar::new() }
    }

    /// So many bytes should be there by now.
    pub(crate) fn want(&self, bytes: u64) {
        if let Some(wanted) = self.wanted.lock().as_mut() {
            *wanted = bytes;
        }
        self.changed.notify_all();
    }

    /// Nothing more is needed.
    pub(crate) fn end(&self) {
        *self.wanted.lock() = None;
        self.changed.notify_all();
    }

    /// Waits until more than so many bytes should be there.
    fn wait(&self, made: u64) -> io::Result<()> {
        let mut wanted = self.wanted.lock();
        while wanted.is_some_and(|wanted| wanted <= made) {
            self.changed.wait(&mut wanted);
        }
        wanted.map(|_| ()).ok_or_else(|| io::Error::new(io::ErrorKind::Interrupted, "the log has ended"))
    }
}

/// When a file is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Haste {
    Now,
    /// As [`Progress`] says.
    Ahead,
}

impl Spares {
    pub(crate) const fn new(found: Vec<Spare>) -> Self {
        Self { files: Mutex::new(found), making: Mutex::new(()), progress: Progress::new() }
    }

    #[cfg(test)]
    pub(crate) fn paths(&self) -> Vec<std::path::PathBuf> {
        self.files.lock().iter().map(|spare| spare.path.clone()).collect()
    }
}

impl Shared {
    /// Has a file waiting that can be the next one, at `base`: going on to it then takes neither time nor room that the disk may lack.
    pub(crate) fn have_spare(&self, base: u64, haste: Haste) -> io::Result<()> {
        let (disk, bytes) = (self.options.disk.as_ref(), self.options.wal_segment_bytes);
        if haste == Haste::Now {
            // Also for one that is being made.
            self.spares.progress.want(u64::MAX);
        }
        let _making = self.spares.making.lock();
        {
            let mut files = self.spares.files.lock();
            // What lies below one that is used would stay for ever.
            while let Some(at) = files.iter().position(|spare| !self.is_usable(spare)) {
                disk.remove(&files.swap_remove(at).path)?;
            }
            if !files.is_empty() {
                return Ok(());
            }
        }
        // Whoever frees a file meanwhile does not wait.
        let pace = |made| if haste == Haste::Now { Ok(()) } else { self.spares.progress.wait(made) };
        let made = Spare::create(disk, &self.folder, base, bytes, &pace)?;
        self.spares.files.lock().push(made);
        Ok(())
    }

    /// One of another size or in the clear is from before the options were changed.
    fn is_usable(&self, spare: &Spare) -> bool {
        let is_hidden = spare.is_sealed || self.options.at_rest.current().is_none();
        spare.bytes == self.options.wal_segment_bytes && is_hidden
    }

    /// The next write-ahead file: a spare where there is one.
    pub(crate) fn next_segment(&self, base: u64) -> io::Result<Segment> {
        let (disk, bytes) = (self.options.disk.as_ref(), self.options.wal_segment_bytes);
        let at_rest = &self.options.at_rest;
        self.spares.progress.want(u64::MAX);
        let _making = self.spares.making.lock();
        loop {
            let Some(spare) = self.spares.files.lock().pop() else {
                return Segment::create(disk, &self.folder, self.log, base, bytes, at_rest);
            };
            if self.is_usable(&spare) {
                return Segment::reuse(disk, &self.folder, self.log, base, spare, at_rest);
            }
            disk.remove(&spare.path)?;
        }
    }

    /// Keeps a file that nothing needs any more to be used again, or removes it.
    pub(crate) fn retire(&self, segment: Segment) {
        let (options, is_sealed) = (&self.options, segment.seal.is_some());
        let path = segment.path.with_extension("free");
        let mut files = self.spares.files.lock();
        // One in the clear would keep what it held beside what is encrypted.
        let fits = segment.bytes == options.wal_segment_bytes
            && files.len() < KEPT_MAX
            && (is_sealed || options.at_rest.current().is_none());
        let is_free = Arc::strong_count(&segment.file) == 1 && files.iter().all(|spare| spare.path != path);
        if fits && is_free {
            match options.disk.rename(&segment.path, &path) {
                Ok(()) => files.push(Spare { path, bytes: segment.bytes, file: segment.file, is_sealed }),
                Err(error) => tracing::warn!(%error, path = %segment.path.display(), "a used file stays"),
            }
        } else if let Err(error) = options.disk.remove(&segment.path) {
            // It is found again and removed at the next start.
            tracing::warn!(%error, path = %segment.path.display(), "a used file stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_makes_one_goes_as_far_as_is_wanted_and_no_further() {
        let progress = Progress::new();
        progress.want(10);
        assert!((0..10).all(|made| progress.wait(made).is_ok()));
        std::thread::scope(|scope| {
            let (further, seen) = std::sync::mpsc::sync_channel(1);
            let progress = &progress;
            scope.spawn(move || further.send(progress.wait(10).is_ok()));
            assert!(seen.recv_timeout(std::time::Duration::from_millis(100)).is_err(), "no more is wanted yet");
            progress.want(11);
            assert!(seen.recv().expect("it goes on"));
        });
        progress.end();
        assert!(progress.wait(0).is_err(), "nothing is wanted any more");
        progress.want(99);
        assert!(progress.wait(0).is_err(), "and never again");
    }
}
