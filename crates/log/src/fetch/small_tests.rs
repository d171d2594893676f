//! Small objects are asked for once, for all their streams, and what is bad in one stream is bad for no other.

use super::{
    tests::{Place, stream, until},
    *,
};

const STREAMS: usize = 24;
const OBJECTS: u64 = 40;
const BATCH_BYTES: usize = 4 << 10;
const MIB: u64 = 1 << 20;

/// Many objects, in each a batch of every stream.
async fn place(cache_bytes: u64) -> Place {
    let mut place = Place::empty(cache_bytes);
    let streams: Vec<_> = (0..STREAMS).collect();
    for at in 0..OBJECTS {
        place.put(&streams, at..at + 1, BATCH_BYTES).await;
    }
    place
}

/// A stream's ranges, in order.
fn ranges(place: &Place, n: usize) -> Vec<Arc<Range>> {
    place.ranges.iter().skip(n).step_by(STREAMS).cloned().collect()
}

/// Reads a stream as a client does, eight ranges at a time.
async fn replay(place: &Place, n: usize) {
    let ranges = ranges(place, n);
    let mut at = 0;
    while let Some(range) = ranges.get(at) {
        let from = range.base;
        let now = &ranges[at..ranges.len().min(at + 8)];
        place.fetcher.expect(now, MIB as usize);
        for range in now {
            let read = place.fetcher.read(stream(n), range, range.base, MIB as usize).await.expect("readable");
            assert_eq!((read.len(), read[0].base), (1, range.base));
            assert_eq!(read[0].bytes, vec![(range.base.get() / 2) as u8; BATCH_BYTES]);
        }
        at += now.len();
        place.fetcher.follow(stream(n), &ranges[at..], from, now[now.len() - 1].next);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_streams_of_a_small_object_ask_for_it_once() {
    let place = Arc::new(place(64 * MIB).await);
    let replay = |n| {
        let place = place.clone();
        tokio::spawn(async move { replay(&place, n).await })
    };
    for replay in (0..STREAMS).map(replay).collect::<Vec<_>>() {
        replay.await.expect("each reads all of its own");
    }
    assert_eq!(place.reads() as u64, OBJECTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stream_asks_for_each_small_object_once_however_small_the_cache_is() {
    let place = place(0).await;
    replay(&place, 5).await;
    assert_eq!(place.reads() as u64, OBJECTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_reader_will_need_of_many_small_objects_comes_at_once_and_takes_no_room_once_it_is_asked_for() {
    // All of them have room for all that is ahead twice over.
    let place = Arc::new(place(2 * MIB).await);
    for shut in 0..2 {
        place.gate.send_replace(false);
        let reader = tokio::spawn({
            let place = place.clone();
            let ranges = ranges(&place, 0)[8 * shut..8 * shut + 8].to_vec();
            async move {
                place.fetcher.expect(&ranges, MIB as usize);
                for range in &ranges {
                    place.fetcher.read(stream(0), range, range.base, MIB as usize).await.expect("readable");
                }
            }
        });
        // A quarter of the cache is for what comes ahead: five of these, and one is asked for.
        until(|| place.fetcher.weight().1 >= 5).await;
        place.gate.send_replace(true);
        reader.await.expect("no panic");
        assert_eq!(place.fetcher.ahead(), 0, "all of it was asked for");
    }
    for n in 0..STREAMS {
        replay(&place, n).await;
    }
    until(|| place.fetcher.weight().1 == 0).await;
    assert!(place.fetcher.weight().0 <= 2 * MIB);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_bad_of_one_stream_is_bad_for_no_other_and_is_asked_for_again() {
    let place = place(64 * MIB).await;
    let range = |n: usize| place.ranges[n].clone();
    let read = async |n: usize| place.fetcher.read(stream(n), &range(n), Offset::new(0), MIB as usize).await;
    let object = range(0).object.name();
    // Within the batch of the fourth stream, and within the index of the seventh.
    let in_batch = 8 + 3 * (24 + BATCH_BYTES) + 100;
    let in_index = range(6).part.at as usize + 30;
    for (at, bad) in [(in_batch, 3), (in_index, 6)] {
        place.store.store.damage(&object, at);
        for n in 0..STREAMS {
            let found = read(n).await;
            if n == bad {
                assert!(matches!(found, Err(StoreError::Damaged { .. })), "{found:?}");
            } else {
                assert_eq!(found.expect("its own is whole").len(), 1);
            }
        }
        place.store.store.damage(&object, at);
        assert_eq!(read(bad).await.expect("it was damaged on its way").len(), 1);
        place.fetcher.core.held.lock().cache = Cache::new(64 * MIB);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_a_small_object_does_not_hold_all_of_it() {
    let place = place(64 * MIB).await;
    let read = place.fetcher.read(stream(3), &place.ranges[3], Offset::new(0), MIB as usize).await.expect("readable");
    assert!(read[0].bytes.is_unique(), "it is a copy");
}
