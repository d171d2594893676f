//! The syncs of the write-ahead log, and what must wait for them or keep its pieces as small. Used by `disk` alone.

use std::{mem, time::Duration};

use parking_lot::{Condvar, Mutex};
use tokio::time::Instant;

/// Bytes that are written to a file before it is synced, beside a write-ahead log that syncs little at a time and one that syncs much.
const SYNCED_BYTES_MIN: usize = 256 << 10;
pub(crate) const SYNCED_BYTES: usize = 1 << 20;

/// Who has not synced for so long is not writing.
const QUIET: Duration = Duration::from_millis(100);

/// How many syncs are under way, and how many have ended.
#[derive(Debug)]
pub(super) struct Syncs {
    counts: Mutex<Counts>,
    ended: Condvar,
}

#[derive(Debug)]
struct Counts {
    under_way: usize,
    ended: u64,
    last_at: Option<Instant>,
    /// Bytes that were written since the last sync began.
    written: usize,
    /// What a sync has to bring to the disk as a rule.
    usual: Option<usize>,
}

impl Syncs {
    pub(super) const fn new() -> Self {
        let none = Counts { under_way: 0, ended: 0, last_at: None, written: 0, usual: None };
        Self { counts: parking_lot::const_mutex(none), ended: Condvar::new() }
    }

    /// So many bytes wait for the next sync.
    pub(super) fn wrote(&self, bytes: usize) {
        self.counts.lock().written += bytes;
    }

    /// Does one.
    pub(super) fn during<T>(&self, sync: impl FnOnce() -> T) -> T {
        {
            let mut counts = self.counts.lock();
            counts.under_way += 1;
            let bytes = mem::take(&mut counts.written);
            counts.usual = Some(counts.usual.map_or(bytes, |usual| usual - usual / 8 + bytes / 8));
        }
        let done = sync();
        let mut counts = self.counts.lock();
        counts.under_way -= 1;
        counts.ended += 1;
        counts.last_at = Some(Instant::now());
        self.ended.notify_all();
        done
    }

    /// How much may be written beside the log and synced at once: as much as it brings to the disk itself. A log that writes little has
    /// somebody waiting for each sync; one that writes much needs its files back soon.
    pub(super) fn piece(&self) -> usize {
        self.counts.lock().usual.map_or(SYNCED_BYTES, |usual| usual.clamp(SYNCED_BYTES_MIN, SYNCED_BYTES))
    }

    /// Whether nobody has synced for a while, so that nobody is likely to wait for what is read now.
    pub(super) fn is_quiet(&self, now: Instant) -> bool {
        let counts = self.counts.lock();
        let since = |last: Instant| now.saturating_duration_since(last);
        counts.under_way == 0 && counts.last_at.is_none_or(|last| since(last) >= QUIET)
    }

    /// Waits until one of those that are under way has ended, not for the next.
    pub(super) fn settle(&self, most: Duration) {
        let mut counts = self.counts.lock();
        let before = counts.ended;
        while counts.under_way > 0 && counts.ended == before {
            if self.ended.wait_for(&mut counts, most).timed_out() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;

    /// Starts a sync that lasts until it is told to end.
    fn begin(syncs: &'static Syncs) -> (mpsc::SyncSender<()>, thread::JoinHandle<()>) {
        let ((begun, began), (end, ended)) = (mpsc::sync_channel(1), mpsc::sync_channel(1));
        let sync = thread::spawn(move || {
            syncs.during(|| {
                begun.send(()).expect("somebody waits for it");
                ended.recv().expect("somebody ends it");
            });
        });
        began.recv().expect("it begins");
        (end, sync)
    }

    #[test]
    fn a_read_waits_for_the_sync_that_is_under_way_and_not_for_the_next() {
        let syncs: &'static Syncs = Box::leak(Box::new(Syncs::new()));
        syncs.settle(Duration::MAX); // none is under way
        let (end_first, first) = begin(syncs);
        syncs.settle(Duration::from_millis(1)); // it gives up
        let (settled, seen) = mpsc::sync_channel(1);
        let read = thread::spawn(move || {
            syncs.settle(Duration::from_secs(60));
            settled.send(()).expect("somebody waits for it");
        });
        assert!(seen.recv_timeout(Duration::from_millis(100)).is_err(), "the sync is still under way");
        let (end_second, second) = begin(syncs);
        end_first.send(()).expect("it waits");
        seen.recv_timeout(Duration::from_secs(30)).expect("the first has ended");
        end_second.send(()).expect("it waits");
        for thread in [first, second, read] {
            thread.join().expect("no panic");
        }
    }

    #[test]
    fn it_is_quiet_where_nothing_is_synced_and_nothing_was_a_moment_ago() {
        let syncs: &'static Syncs = Box::leak(Box::new(Syncs::new()));
        let start = Instant::now();
        assert!(syncs.is_quiet(start), "no log syncs here");
        let (end, sync) = begin(syncs);
        assert!(!syncs.is_quiet(start + 100 * QUIET), "one is under way");
        end.send(()).expect("it waits");
        sync.join().expect("no panic");
        let ended = Instant::now();
        assert!(!syncs.is_quiet(start) && syncs.is_quiet(ended + QUIET));
    }

    #[test]
    fn what_is_written_beside_a_log_that_syncs_little_is_synced_little_by_little() {
        let syncs = Syncs::new();
        assert_eq!(syncs.piece(), SYNCED_BYTES, "no log syncs here");
        for (bytes, piece) in [(4 << 10, SYNCED_BYTES_MIN), (2 << 20, SYNCED_BYTES), (600 << 10, 600 << 10)] {
            for _ in 0..200 {
                syncs.wrote(bytes / 2);
                syncs.wrote(bytes / 2);
                syncs.during(|| ());
            }
            assert!(syncs.piece().abs_diff(piece) < 16, "{} beside syncs of {bytes}", syncs.piece());
        }
        syncs.wrote(4 << 10);
        syncs.during(|| ());
        assert!(syncs.piece() > SYNCED_BYTES_MIN, "one is not the rule");
    }
}
