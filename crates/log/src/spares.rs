//! Files that the write-ahead log can go on in: used ones that the store has all of, and the next one, made before it is needed. Called by
//! `writer` and `upload`.
//!
//! A new file is filled with zeros and synced, so that writing to it later changes its bytes alone; that takes long. So it is made while the
//! file before it still has room, and nobody waits for it. It guarantees that no two files ever have one path.

use std::{io, sync::Arc};

use parking_lot::Mutex;

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
    /// Held while one is made.
    making: Mutex<()>,
}

impl Spares {
    pub(crate) const fn new(found: Vec<Spare>) -> Self {
        Self { files: Mutex::new(found), making: Mutex::new(()) }
    }

    #[cfg(test)]
    pub(crate) fn paths(&self) -> Vec<std::path::PathBuf> {
        self.files.lock().iter().map(|spare| spare.path.clone()).collect()
    }
}

impl Shared {
    /// Has a file waiting that can be the next one, at `base`: going on to it then takes neither time nor room that the disk may lack.
    pub(crate) fn have_spare(&self, base: u64) -> io::Result<()> {
        let (disk, bytes) = (self.options.disk.as_ref(), self.options.wal_segment_bytes);
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
        let made = Spare::create(disk, &self.folder, base, bytes)?;
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
