//! What putting objects together costs, and what it gives: bytes written to the store for each byte that came in, and in how many
//! pieces a stream lies.

use std::{num::NonZeroU32, path::PathBuf, sync::Arc, sync::atomic::Ordering};

use bytes::BytesMut;
use cairn_clock::{Clock, Entropy, Timestamp};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::*;
use crate::{
    Append, LeaderEpoch, LogOptions, Offset, PartitionIndex, Retention,
    frame::Entry,
    open::{self, Opened},
    sim::{disk::SimDisk, drive},
    store::memory::MemoryStore,
    writer::Call,
};

const UPLOAD_BYTES: u64 = 256 << 10;

fn stream(n: u32) -> StreamId {
    StreamId::new(Uuid::from_u128(1), PartitionIndex::new(n))
}

fn stamp(bytes: &mut [u8], base: Offset, _: LeaderEpoch) {
    bytes[..8].copy_from_slice(&base.get().to_be_bytes());
}

fn opened(streams: u32) -> Opened {
    let options = LogOptions {
        wal_segment_bytes: 1 << 20,
        upload_bytes: UPLOAD_BYTES,
        tail_bytes_max: 0,
        disk: Arc::new(SimDisk::new(4)),
        store: Arc::new(MemoryStore::new(3)),
        ..LogOptions::new(PathBuf::from("/log"), stamp)
    };
    let clock = Clock::manual(Timestamp::from_micros(1_000_000));
    let mut opened = drive(open::open(options, clock, Entropy::seeded(3))).expect("it opens");
    for n in 0..streams {
        let entry = Entry::Create(stream(n), Retention::default());
        call(&mut opened, |reply| Call::Change { entry, reply });
    }
    opened
}

fn call(opened: &mut Opened, call: impl FnOnce(oneshot::Sender<crate::writer::Results>) -> Call) {
    let (reply, mut answer) = oneshot::channel();
    opened.shared.counters.queued.store(1, Ordering::Relaxed);
    opened.writer.group(vec![call(reply)]).expect("the disk is good");
    answer.try_recv().expect("an answer").expect("nothing is refused");
}

/// Appends a batch of a kibibyte to each of these streams, in one call.
fn append(opened: &mut Opened, streams: impl Iterator<Item = u32>) {
    let batch = |n| Append {
        stream: stream(n),
        records: NonZeroU32::MIN,
        max_timestamp: 0,
        producer: None,
        transaction: crate::InTransaction::No,
        bytes: BytesMut::from(&[7; 1 << 10][..]),
    };
    let entries = streams.map(batch).collect();
    call(opened, |reply| Call::Append { entries, bytes: 0, reply });
}

/// Uploads what is enough for an object, and puts together what is due.
fn work(opened: &mut Opened, least: u64) {
    while opened.shared.state.read().depth() >= least && opened.uploader.gather().expect("it reads back") {
        drive(opened.uploader.settle()).expect("the store is good");
        while drive(opened.uploader.merge()).expect("the store is good") {
            drive(opened.uploader.settle()).expect("the store is good");
        }
    }
}

/// Bytes written to the store for each byte appended, by uploads, by merging, and in the index's files.
fn written(opened: &Opened) -> (f64, f64, f64) {
    let counters = &opened.shared.counters;
    let part = |counter: &std::sync::atomic::AtomicU64| {
        counter.load(Ordering::Relaxed) as f64 / counters.appended_bytes.load(Ordering::Relaxed) as f64
    };
    (part(&counters.uploaded_bytes), part(&counters.merged_bytes), part(&counters.index_bytes))
}

/// Pieces of one stream: a replay asks the store at least once for each.
fn pieces(opened: &Opened, n: u32) -> usize {
    opened.shared.state.read().streams[&stream(n)].ranges.len()
}

#[test]
fn of_many_streams_each_byte_is_written_twice_and_each_stream_lies_in_few_pieces() {
    // One stream has a third of all, two hundred share the rest.
    let mut opened = opened(201);
    let mut uploads = 0;
    for round in 0..320_u32 {
        let many = (0..20).map(|n| 1 + (round * 20 + n) % 200);
        append(&mut opened, std::iter::repeat_n(0, 10).chain(many));
        work(&mut opened, UPLOAD_BYTES);
        uploads = opened.shared.counters.uploads.load(Ordering::Relaxed);
    }
    let (uploaded, merged, index) = written(&opened);
    #[allow(clippy::print_stdout)] // a figure for docs/storage.md
    {
        println!(
            "bytes written to the store for each byte appended: uploads {uploaded:.2}, merging {merged:.2}, index {index:.2}"
        );
    }
    assert!(uploads >= 33, "{uploads}");
    assert!(merged > 0.5, "it was put together: {merged}");
    assert!(uploaded + merged <= 2.1, "{uploaded} + {merged}");
    let index = &opened.uploader.index;
    let own = index.objects.iter().filter(|(_, held)| held.ranges == 1 && held.bytes >= UPLOAD_BYTES / 4);
    assert!(own.count() >= 4, "the one has objects of its own");
    assert!(
        pieces(&opened, 0) < 16 + 10 && pieces(&opened, 9) < 16 + 2,
        "{} {}",
        pieces(&opened, 0),
        pieces(&opened, 9)
    );
    for n in [0, 9, 200] {
        let (mut at, end) = (0, opened.shared.state.read().streams[&stream(n)].durable_end().get());
        while at < end {
            let read = drive(opened.shared.read(stream(n), Offset::new(at), 1 << 20, crate::Isolation::Durable))
                .expect("readable");
            at += read.batches.len() as u64;
        }
    }
}

#[test]
fn what_comes_in_large_of_few_streams_is_written_once() {
    let mut opened = opened(3);
    for _ in 0..800 {
        append(&mut opened, (0..3).chain(0..3));
        work(&mut opened, UPLOAD_BYTES);
    }
    let (uploaded, merged, _) = written(&opened);
    assert!(uploaded < 1.05 && merged == 0.0, "{uploaded} {merged}");
}

#[test]
fn what_comes_in_by_little_is_put_together_once_and_never_again() {
    // An upload a round: of a few batches, of one, and of more for a while; half way a large one lies in between.
    for (streams, batches) in [(3, 2), (1, 1), (2, 16)] {
        let mut opened = opened(streams);
        let uploads: u32 = if batches > 8 { 400 } else { 1_200 };
        for round in 0..uploads {
            append(&mut opened, (0..batches).map(|n| (round + n) % streams));
            work(&mut opened, 1);
            if round == uploads / 2 {
                (0..40).for_each(|_| append(&mut opened, (0..8).map(|n| n % streams)));
                work(&mut opened, 1);
            }
        }
        let (uploaded, merged, index) = written(&opened);
        let objects = opened.uploader.index.objects.len();
        #[allow(clippy::print_stdout)] // a figure for docs/storage.md
        {
            println!(
                "uploads of {batches} KiB in {streams} streams: uploads {uploaded:.2}, putting together {merged:.2}, \
                 index {index:.2}; {objects} objects after {uploads} uploads"
            );
        }
        assert!((0.5..1.1).contains(&merged), "each byte once: {merged}");
        assert!(objects < 256 + 32, "{objects} objects");
        for n in 0..streams {
            assert!(pieces(&opened, n) <= objects);
            let (mut at, end) = (0, opened.shared.state.read().streams[&stream(n)].durable_end().get());
            while at < end {
                let read = drive(opened.shared.read(stream(n), Offset::new(at), 1 << 20, crate::Isolation::Durable));
                at += read.expect("readable").batches.len() as u64;
            }
        }
    }
}
