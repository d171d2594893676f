//! Partitions checked on as many threads as there are processors, beside the one that reads.
//!
//! `cairn verify` hands records over in the order in which it reads them. Each partition belongs to one thread, so that its records
//! stay in their order. It guarantees that nothing is left out: a thread that panics ends the command. Bounded: so many handfuls
//! wait for a thread, then the reader waits.

use std::{
    collections::HashMap,
    panic::resume_unwind,
    sync::mpsc::{SyncSender, sync_channel},
    thread::{JoinHandle, available_parallelism, spawn},
};

use cairn_backbone::records::RawRecord;
use cairn_verify::{PartitionCheck, Record, Report};

/// Records that go to a thread together,
const HANDFUL_MAX: usize = 256;
/// and about their bytes.
const HANDFUL_BYTES_MAX: usize = 1 << 20;
/// Handfuls that wait for a thread.
const WAITING_MAX: usize = 4;
/// Threads, however many processors there are.
const THREADS_MAX: usize = 16;

/// Topic and partition.
pub(crate) type Place = (String, u32);
/// Records with the number of their partition within the thread.
type Handful = Vec<(usize, RawRecord)>;

/// Checks partitions.
pub(crate) struct Checkers {
    threads: Vec<Thread>,
    /// Which thread, and which of its partitions.
    places: HashMap<Place, (usize, usize)>,
}

struct Thread {
    sender: SyncSender<Handful>,
    handle: JoinHandle<Vec<Report>>,
    open: Handful,
    bytes: usize,
}

impl Checkers {
    /// Starts threads for these partitions, each with its end; `is_partial` says that the range ends before the partition may.
    pub(crate) fn start(checkers: Vec<(Place, PartitionCheck, u64)>, is_partial: bool) -> Self {
        let count = available_parallelism().map_or(1, usize::from).min(THREADS_MAX).min(checkers.len());
        let mut shares: Vec<Vec<(PartitionCheck, u64)>> = (0..count).map(|_| Vec::new()).collect();
        let mut places = HashMap::new();
        for (number, (place, checker, end)) in checkers.into_iter().enumerate() {
            let share = &mut shares[number % count];
            places.insert(place, (number % count, share.len()));
            share.push((checker, end));
        }
        let threads = shares.into_iter().map(|mut share| {
            let (sender, handfuls) = sync_channel::<Handful>(WAITING_MAX);
            let handle = spawn(move || {
                for (number, record) in handfuls.into_iter().flatten() {
                    with(&record, |record| share[number].0.record(record));
                }
                share.into_iter().map(|(checker, end)| checker.finish(end, is_partial)).collect()
            });
            Thread { sender, handle, open: Vec::new(), bytes: 0 }
        });
        Self { threads: threads.collect(), places }
    }

    /// Takes the next record; one of a partition that is not checked is passed over.
    pub(crate) fn take(&mut self, record: RawRecord) {
        let place = (record.topic, record.partition);
        let Some((thread, number)) = self.places.get(&place).copied() else { return };
        let record = RawRecord { topic: place.0, ..record };
        let thread = &mut self.threads[thread];
        thread.bytes += record.value.as_ref().map_or(0, |value| value.len());
        thread.open.push((number, record));
        if thread.open.len() >= HANDFUL_MAX || thread.bytes >= HANDFUL_BYTES_MAX {
            thread.hand_over();
        }
    }

    /// What all of them came to, when the last record was taken.
    pub(crate) fn finish(self) -> Vec<Report> {
        let mut reports = Vec::new();
        for mut thread in self.threads {
            thread.hand_over();
            drop(thread.sender);
            match thread.handle.join() {
                Ok(checked) => reports.extend(checked),
                Err(panic) => resume_unwind(panic),
            }
        }
        reports
    }
}

impl Thread {
    fn hand_over(&mut self) {
        self.bytes = 0;
        // Only one that panicked listens no more, and that is found when it is joined.
        let _ = self.sender.send(std::mem::take(&mut self.open));
    }
}

/// Shows a record to a check.
pub(crate) fn with(record: &RawRecord, check: impl FnOnce(&Record<'_>)) {
    let headers: Vec<_> = record.headers.iter().map(|(name, value)| (name.as_str(), value.as_ref())).collect();
    check(&Record {
        offset: record.offset,
        timestamp_ms: record.timestamp_ms,
        key: record.key.as_deref(),
        headers: &headers,
        value: record.value.as_deref(),
    });
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use cairn_verify::{Trail, Trust};

    use super::*;

    #[test]
    fn every_record_is_checked_in_the_order_of_its_partition() {
        const EACH: u64 = 1_000;
        let mut trail = Trail::new(Trust::default());
        let places = (0..5).map(|partition| ("mcp.calls".to_owned(), partition));
        let checkers =
            places.map(|(topic, at)| ((topic.clone(), at), trail.plan(&topic, at, None).checker(0, 0), EACH));
        let mut checkers = Checkers::start(checkers.collect(), false);
        for offset in 0..EACH {
            // The last partition is nobody's.
            for partition in 0..6 {
                let value = format!("{{\"producer\":{{\"id\":\"p\",\"epoch\":1,\"sequence\":{offset}}}}}");
                checkers.take(RawRecord {
                    topic: "mcp.calls".to_owned(),
                    partition,
                    offset,
                    timestamp_ms: 0,
                    key: None,
                    headers: Vec::new(),
                    value: Some(Bytes::from(value)),
                });
            }
        }
        let reports = checkers.finish();
        assert_eq!(reports.iter().map(|report| report.records).collect::<Vec<_>>(), [EACH; 5]);
        // None names the one before, and none lies in another order.
        let report = trail.finish("", reports);
        assert!(report.has(cairn_verify::Kind::Changed) && !report.has(cairn_verify::Kind::Swapped), "{report}");
    }
}
