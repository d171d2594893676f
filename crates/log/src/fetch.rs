//! Reading from objects: block by block, each checked, with read-ahead and a bounded cache. Called by `log`.
//!
//! It guarantees: no more than [`READS_MAX`] calls for readers are on their way to the store, so that many replays neither fill the
//! memory nor take the threads that a sync or an upload needs; two readers of one block fetch it once; what one reads once pushes out
//! nothing that others read again ([`cache`]). The tail lies elsewhere and nothing here can touch it.
//!
//! A block that is being fetched comes whether its reader still waits or not: who gives up and asks again finds it, whatever the cache
//! holds ([`Left`]).

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::Semaphore};

mod block;
mod cache;
mod left;
mod pins;
mod small;

pub(crate) use self::pins::{Pinned, Pins};
use self::{
    block::{BLOCK_BYTES, Block, Part},
    cache::{Cache, Cached, Place},
    left::Left,
    small::{Section, Whole},
};
use crate::{
    Offset, ReadError, Readers, StoreError, StreamId,
    index::Range,
    object::{ObjectId, Stored},
    store::Store,
};

/// Calls to the store for readers that are on their way at once; the others wait for their turn. Each holds a block.
pub(crate) const READS_MAX: usize = 16;
/// Blocks that a reader is ahead of itself at most, or as many bytes in small objects.
const AHEAD_MAX: usize = 4;
/// Readers whose places are remembered, to tell those who go on from those who look something up.
const CURSORS_MAX: usize = 1_024;
/// What a reader takes of a block is copied where it is less than this part of it: it would hold all of the block.
const HELD_PART: u64 = 4;

/// Something that is being fetched; where readers have no threads of their own, whoever waits for it brings it on.
type Load = Shared<BoxFuture<'static, Result<Cached, StoreError>>>;

/// Reads objects.
#[derive(Debug)]
pub(crate) struct Fetcher {
    core: Arc<Core>,
    /// Where readers have come to, and in how many reads; the one that was there longest ago first.
    cursors: Mutex<VecDeque<(StreamId, Offset, usize)>>,
    pub(crate) reads: AtomicU64,
    pub(crate) pins: Pins,
    /// What was said last of a read that failed.
    told: Mutex<String>,
}

/// What is shared with what is on its way.
struct Core {
    store: Arc<dyn Store>,
    readers: Readers,
    /// Objects up to so many bytes come whole.
    small_bytes: u64,
    held: Mutex<Held>,
    turns: Semaphore,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("store", &self.store).finish_non_exhaustive()
    }
}

struct Held {
    cache: Cache,
    /// What came when nobody waited for it any more.
    left: Left,
    on_their_way: HashMap<Place, Coming>,
}

/// Something that is on its way.
struct Coming {
    load: WeakShared<BoxFuture<'static, Result<Cached, StoreError>>>,
    /// Readers who wait for it, or did and gave up.
    wanted: usize,
    given_up: usize,
}

impl Coming {
    fn is_left(&self) -> bool {
        self.wanted > 0 && self.wanted == self.given_up
    }
}

impl Held {
    fn coming(&self, place: Place) -> Option<Load> {
        self.on_their_way.get(&place).and_then(|coming| coming.load.upgrade())
    }
}

/// A reader that waits for something, until it has it or gives up.
struct Waiter<'a> {
    core: &'a Core,
    place: Place,
    is_served: bool,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if self.is_served {
            return;
        }
        if let Some(coming) = self.core.held.lock().on_their_way.get_mut(&self.place) {
            coming.given_up += 1;
        }
    }
}

/// What is to be fetched.
enum Wanted {
    Part(StreamId, Arc<Range>),
    Block(Arc<Part>, usize),
    /// A small object, of so many bytes at least.
    Whole(ObjectId, u64),
}

impl Wanted {
    fn place(&self) -> (Place, std::ops::Range<u64>) {
        match self {
            Self::Part(_, range) => Part::place(range),
            Self::Block(part, block) => {
                let bytes = part.bytes_of(*block);
                ((part.object, bytes.start), bytes)
            }
            Self::Whole(object, bytes) => (Whole::place(*object), 0..*bytes),
        }
    }

    async fn read(&self, store: &dyn Store) -> Result<Cached, StoreError> {
        let ((object, _), range) = self.place();
        let bytes = match self {
            Self::Whole(..) => store.get_all(&object.name()).await?,
            Self::Part(..) | Self::Block(..) => store.get(&object.name(), range).await?,
        };
        Ok(match self {
            Self::Part(id, range) => Cached::Part(Arc::new(Part::read(range.object, range.part.at, &bytes, *id)?)),
            Self::Block(part, block) => Cached::Block(Arc::new(Block::read(part, *block, &bytes))),
            Self::Whole(object, _) => Cached::Whole(Arc::new(Whole::read(*object, &bytes)?)),
        })
    }
}

impl Core {
    /// What is wanted: from the cache, from who fetches it already, or from the store.
    async fn get(self: &Arc<Self>, wanted: Wanted) -> Result<Cached, StoreError> {
        let (place, _) = wanted.place();
        let load = {
            let mut held = self.held.lock();
            if let Some(cached) = held.cache.get(place).or_else(|| held.left.get(place)) {
                return Ok(cached);
            }
            let load = held.coming(place).unwrap_or_else(|| self.begin(&mut held, wanted, 0));
            if let Some(coming) = held.on_their_way.get_mut(&place) {
                coming.wanted += 1;
            }
            load
        };
        let mut waiter = Waiter { core: self, place, is_served: false };
        let fetched = load.await;
        waiter.is_served = true;
        fetched
    }

    /// Begins to fetch something; `ahead` bytes of the cache are reserved for it.
    fn begin(self: &Arc<Self>, held: &mut Held, wanted: Wanted, ahead: u64) -> Load {
        let (core, (place, _)) = (self.clone(), wanted.place());
        let load = self.readers.take(async move {
            let fetched = core.fetch(&wanted).await;
            let mut held = core.held.lock();
            let coming = held.on_their_way.remove(&place);
            let is_left = coming.as_ref().is_some_and(Coming::is_left);
            // What somebody waited for is not ahead of its readers any more.
            let is_ahead = coming.is_none_or(|coming| coming.wanted == 0);
            if !is_ahead {
                held.cache.release_ahead(ahead);
            }
            let ahead = if is_ahead { ahead } else { 0 };
            match &fetched {
                // What is damaged may only have been damaged on its way.
                Ok(cached) if !cached.is_whole() => held.cache.release_ahead(ahead),
                Ok(cached) => {
                    if is_left {
                        held.left.put(place, cached.clone());
                    }
                    held.cache.put(place, cached.clone(), ahead);
                }
                Err(_) => held.cache.release_ahead(ahead),
            }
            drop(held);
            fetched
        });
        let load = load.shared();
        held.on_their_way.extend(load.downgrade().map(|load| (place, Coming { load, wanted: 0, given_up: 0 })));
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(load.clone());
        }
        load
    }

    async fn fetch(&self, wanted: &Wanted) -> Result<Cached, StoreError> {
        let _turn = self.turns.acquire().await.expect("nobody closes it");
        wanted.read(&*self.store).await
    }

    /// The same for what nobody waits for yet. Says whether it is there or will be.
    fn begin_ahead(self: &Arc<Self>, wanted: Wanted) -> bool {
        let (place, bytes) = wanted.place();
        let mut held = self.held.lock();
        if held.cache.has(place) || held.coming(place).is_some() {
            return true;
        }
        let bytes = bytes.end - bytes.start;
        // Half of the turns are for who waits.
        if self.turns.available_permits() <= READS_MAX / 2 || !held.cache.reserve_ahead(bytes) {
            return false;
        }
        // It comes by itself.
        drop(self.begin(&mut held, wanted, bytes));
        true
    }

    async fn part(self: &Arc<Self>, id: StreamId, range: &Arc<Range>) -> Result<Arc<Part>, StoreError> {
        match self.get(Wanted::Part(id, range.clone())).await? {
            Cached::Part(part) => Ok(part),
            Cached::Block(_) | Cached::Whole(_) => Err(misplaced(range)),
        }
    }

    /// All of the object that holds a range, where it is small.
    fn whole(&self, range: &Range) -> Option<Wanted> {
        let bytes = Whole::bytes_min(range);
        (bytes <= self.small_bytes).then_some(Wanted::Whole(range.object, bytes))
    }

    /// What a stream has in an object.
    async fn open(self: &Arc<Self>, id: StreamId, range: &Arc<Range>) -> Result<Opened, StoreError> {
        if let Some(wanted) = self.whole(range) {
            match self.get(wanted).await {
                Ok(Cached::Whole(whole)) => {
                    if let Some(section) = whole.section(id, range) {
                        return Ok(Opened::Small(section));
                    }
                }
                // What is bad may be another stream's.
                Ok(_) | Err(StoreError::Damaged { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.part(id, range).await.map(Opened::Large)
    }

    /// Fetches what comes from `at` on: so many blocks, or as many bytes.
    async fn read_ahead(self: Arc<Self>, id: StreamId, ranges: Vec<Arc<Range>>, at: Offset, blocks: usize) {
        let mut left = blocks as u64 * BLOCK_BYTES;
        let mut begin = |wanted: Wanted| {
            let (_, bytes) = wanted.place();
            let is_begun = left > 0 && self.begin_ahead(wanted);
            left = left.saturating_sub(bytes.end - bytes.start);
            is_begun
        };
        for range in ranges.iter().filter(|range| range.next > at) {
            if let Some(wanted) = self.whole(range) {
                if !begin(wanted) {
                    return;
                }
                continue;
            }
            // Who comes to what cannot be read hears of it then.
            let Ok(part) = self.part(id, range).await else { return };
            for block in part.block_of(part.chunk_of(at))..part.blocks() {
                if !begin(Wanted::Block(part.clone(), block)) {
                    return;
                }
            }
        }
    }
}

/// What a stream has in an object: its index, and all that it names where that came as well.
enum Opened {
    Large(Arc<Part>),
    Small(Arc<Section>),
}

impl Opened {
    fn part(&self) -> &Arc<Part> {
        match self {
            Self::Large(part) => part,
            Self::Small(section) => &section.part,
        }
    }
}

/// An index that names one place for two things.
fn misplaced(range: &Range) -> StoreError {
    let what = format!("byte {} is named as an index and as batches", range.part.at);
    StoreError::Damaged { name: range.object.name(), what }
}

impl Fetcher {
    pub(crate) fn new(store: Arc<dyn Store>, bytes_max: u64, small_bytes: u64, readers: Readers) -> Self {
        let held =
            Mutex::new(Held { cache: Cache::new(bytes_max), left: Left::default(), on_their_way: HashMap::new() });
        Self {
            core: Arc::new(Core { store, readers, small_bytes, held, turns: Semaphore::new(READS_MAX) }),
            cursors: Mutex::default(),
            reads: AtomicU64::new(0),
            pins: Pins::default(),
            told: Mutex::default(),
        }
    }

    /// Says why a read failed, once for each reason: whoever reads asks again and again.
    pub(crate) fn tell(&self, id: StreamId, error: &ReadError) {
        let words = error.to_string();
        let mut told = self.told.lock();
        if *told != words {
            tracing::error!(stream = %id, "a read failed: {words}");
            *told = words;
        }
    }

    /// Batches of one range from the one that holds `from` on: one at least, else up to `max_bytes`.
    pub(crate) async fn read(
        &self,
        id: StreamId,
        range: &Arc<Range>,
        from: Offset,
        max_bytes: usize,
    ) -> Result<Vec<Stored>, StoreError> {
        let opened = self.core.open(id, range).await?;
        let part = opened.part();
        let (mut found, mut bytes, mut at) = (Vec::new(), 0, part.chunk_of(from));
        while at < part.chunks.len() && (found.is_empty() || bytes < max_bytes) {
            let block = match self.block(&opened, at).await {
                Err(_) if !found.is_empty() => break,
                block => block?,
            };
            let first = found.len();
            for chunk in at..part.chunks_of(part.block_of(at)).end {
                let batches = match block.chunk(part, chunk) {
                    Err(_) if !found.is_empty() => &[],
                    batches => batches?,
                };
                // Behind what is damaged nothing is given out: who comes to it hears of it.
                let is_damaged = batches.is_empty();
                let mut is_full = is_damaged || (bytes >= max_bytes && !found.is_empty());
                for stored in batches.iter().filter(|stored| stored.next() > from) {
                    is_full |= !found.is_empty() && bytes + stored.bytes.len() > max_bytes;
                    if is_full {
                        break;
                    }
                    bytes += stored.bytes.len();
                    found.push(stored.clone());
                }
                if is_full {
                    part_with(&mut found[first..], &block);
                    return Ok(self.counted(found));
                }
            }
            part_with(&mut found[first..], &block);
            at = part.chunks_of(part.block_of(at)).end;
        }
        Ok(self.counted(found))
    }

    fn counted(&self, found: Vec<Stored>) -> Vec<Stored> {
        self.reads.fetch_add(found.len() as u64, Ordering::Relaxed);
        found
    }

    /// The block that holds a chunk.
    async fn block(&self, opened: &Opened, chunk: usize) -> Result<Arc<Block>, StoreError> {
        let part = match opened {
            Opened::Small(section) => return Ok(section.blocks[section.part.block_of(chunk)].clone()),
            Opened::Large(part) => part,
        };
        match self.core.get(Wanted::Block(part.clone(), part.block_of(chunk))).await? {
            Cached::Block(block) => Ok(block),
            Cached::Part(_) | Cached::Whole(_) => Err(part.damaged(chunk)),
        }
    }

    /// Says that these ranges will be read one after the other, up to so many bytes: of those in small objects, which are many, all begin
    /// to come.
    pub(crate) fn expect(&self, ranges: &[Arc<Range>], max_bytes: usize) {
        if Handle::try_current().is_err() {
            return;
        }
        let mut bytes = 0;
        // The first one is asked for anyway.
        for two in ranges.windows(2) {
            bytes += two[0].bytes;
            let wanted = self.core.whole(&two[1]).filter(|_| bytes < max_bytes as u64);
            if !wanted.is_some_and(|wanted| self.core.begin_ahead(wanted)) {
                return;
            }
        }
    }

    /// Says that a reader has come from one offset to another, through these ranges. Who came there by such a step before is read
    /// ahead for, further each time.
    pub(crate) fn follow(&self, id: StreamId, ranges: &[Arc<Range>], from: Offset, to: Offset) {
        let steps = {
            let mut cursors = self.cursors.lock();
            let known = cursors.iter().position(|(stream, at, _)| (*stream, *at) == (id, from));
            let steps = known.and_then(|at| cursors.remove(at)).map_or(0, |(.., steps)| steps + 1);
            cursors.push_back((id, to, steps.min(AHEAD_MAX)));
            if cursors.len() > CURSORS_MAX {
                cursors.pop_front();
            }
            steps
        };
        if steps > 0
            && let Ok(runtime) = Handle::try_current()
        {
            let blocks = (2 * steps).min(AHEAD_MAX);
            runtime.spawn(self.core.clone().read_ahead(id, ranges.to_vec(), to, blocks));
        }
    }

    /// The first batch at or past `start` that `is` right, in a chunk whose newest record could be in it.
    pub(crate) async fn find(
        &self,
        id: StreamId,
        range: &Arc<Range>,
        start: Offset,
        is: impl Fn(i64) -> bool,
    ) -> Result<Option<Offset>, StoreError> {
        let opened = self.core.open(id, range).await?;
        let part = opened.part();
        for at in part.chunk_of(start)..part.chunks.len() {
            if !is(part.chunks[at].max_timestamp) {
                continue;
            }
            let block = self.block(&opened, at).await?;
            let batches = block.chunk(part, at)?;
            if let Some(hit) = batches.iter().find(|stored| stored.next() > start && is(stored.max_timestamp)) {
                return Ok(Some(hit.base.max(start)));
            }
        }
        Ok(None)
    }

    /// The greatest timestamp of the batches at or past `start`, and the first of them that has it.
    pub(crate) async fn latest(
        &self,
        id: StreamId,
        range: &Arc<Range>,
        start: Offset,
    ) -> Result<Option<(i64, Offset)>, StoreError> {
        let opened = self.core.open(id, range).await?;
        let part = opened.part();
        let first = part.chunk_of(start);
        let block = self.block(&opened, first).await?;
        // Of the chunk that begins before the start, its greatest timestamp may lie there too; the others say theirs.
        let mut most = None;
        for stored in block.chunk(part, first)?.iter().filter(|stored| stored.next() > start) {
            if most.is_none_or(|most| stored.max_timestamp > most) {
                most = Some(stored.max_timestamp);
            }
        }
        let most = part.chunks[first + 1..].iter().map(|chunk| chunk.max_timestamp).chain(most).max();
        let Some(most) = most else { return Ok(None) };
        let found = self.find(id, range, start, |max| max >= most).await?;
        Ok(found.map(|base| (most, base)))
    }

    /// Bytes in the cache, and calls that are on their way.
    #[cfg(test)]
    pub(crate) fn weight(&self) -> (u64, usize) {
        (self.core.held.lock().cache.bytes(), READS_MAX - self.core.turns.available_permits())
    }

    /// Bytes that were read ahead, or are on their way, and that nobody has asked for.
    #[cfg(test)]
    pub(crate) fn ahead(&self) -> u64 {
        self.core.held.lock().cache.ahead_bytes()
    }
}

/// Copies what a reader takes of a block where it is little: else it would hold all of the block for as long as it sends.
fn part_with(taken: &mut [Stored], block: &Block) {
    let bytes: usize = taken.iter().map(|stored| stored.bytes.len()).sum();
    if (bytes as u64) < block.bytes / HELD_PART {
        for stored in taken {
            stored.bytes = Bytes::copy_from_slice(&stored.bytes);
        }
    }
}

#[cfg(test)]
mod small_tests;
#[cfg(test)]
mod tests;
