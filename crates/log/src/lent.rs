//! Memory for what is read in large pieces, used again once nobody holds what was in it. Used by `disk` and `read`.
//!
//! Memory that is new costs more than reading into it: the kernel gives it page by page, and zeros it, and it is zeroed once more for a
//! reader that may not see what was there. What comes back here was written before, so none of that is done again.
//!
//! It guarantees: nobody sees more of it than was asked for, and that only after it was read; a piece never keeps more than twice the
//! memory that it needs; what waits here is bounded.

use std::{io, mem, ops::Range};

use bytes::Bytes;
use parking_lot::Mutex;

/// Pieces below this many bytes have memory of their own: the allocator has it at hand.
const BYTES_MIN: usize = 128 << 10;
/// Memory of more than so many bytes is not kept.
const BYTES_MAX: usize = 2 << 20;
/// How many of them wait to be used again at most.
const WAITING_MAX: usize = 16;

/// What is read past the page cache begins and ends at such blocks, in the file and in memory (`O_DIRECT` in `open(2)`): a page, of which
/// the blocks of disks and file systems are parts.
pub(crate) const BLOCK_BYTES: usize = 4_096;

static MEMORY: Memory = Memory::new();

/// What waits to be used again, the piece that came back last at the end.
struct Memory(Mutex<Vec<Vec<u8>>>);

/// A piece that comes back when nobody holds it any more.
struct Lent {
    bytes: Vec<u8>,
    /// What was asked for.
    shown: Range<usize>,
    of: &'static Memory,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[self.shown.clone()]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if self.bytes.capacity() > BYTES_MAX {
            return;
        }
        let mut waiting = self.of.0.lock();
        if waiting.len() < WAITING_MAX {
            waiting.push(mem::take(&mut self.bytes));
        }
    }
}

impl Memory {
    const fn new() -> Self {
        Self(parking_lot::const_mutex(Vec::new()))
    }

    fn lend(&'static self, length: usize) -> Lent {
        let fits = |bytes: &Vec<u8>| (length..=2 * length).contains(&bytes.capacity());
        let found = {
            let mut waiting = self.0.lock();
            waiting.iter().rposition(fits).map(|at| waiting.remove(at))
        };
        let bytes = found.map_or_else(
            || vec![0; length],
            |mut bytes: Vec<u8>| {
                // Only what it never had is zeroed.
                bytes.resize(length, 0);
                bytes
            },
        );
        Lent { bytes, shown: 0..length, of: self }
    }

    fn filled(&'static self, length: usize, read: impl FnOnce(&mut [u8]) -> io::Result<()>) -> io::Result<Bytes> {
        if length < BYTES_MIN {
            let mut bytes = vec![0; length];
            return read(&mut bytes).map(|()| bytes.into());
        }
        let mut lent = self.lend(length);
        read(&mut lent.bytes)?;
        Ok(Bytes::from_owner(lent))
    }

    fn filled_by_blocks(
        &'static self,
        range: &Range<u64>,
        read: impl FnOnce(u64, &mut [u8]) -> io::Result<usize>,
    ) -> io::Result<Bytes> {
        const BLOCK: u64 = BLOCK_BYTES as u64;
        let too_long = |_| io::Error::from(io::ErrorKind::OutOfMemory);
        let at = range.start - range.start % BLOCK;
        let before = usize::try_from(range.start - at).map_err(too_long)?;
        let length = usize::try_from(range.end.saturating_sub(range.start)).map_err(too_long)?;
        let blocks = (before + length).next_multiple_of(BLOCK_BYTES);
        let mut lent = self.lend(blocks + BLOCK_BYTES);
        let first = lent.bytes.as_ptr().addr().wrapping_neg() % BLOCK_BYTES;
        let there = read(at, &mut lent.bytes[first..first + blocks])?;
        if there < before + length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        lent.shown = first + before..first + before + length;
        Ok(Bytes::from_owner(lent))
    }
}

/// So many bytes, as `read` fills them; it must fill all of them.
pub(crate) fn filled(length: usize, read: impl FnOnce(&mut [u8]) -> io::Result<()>) -> io::Result<Bytes> {
    MEMORY.filled(length, read)
}

/// A range of a file, as `read` fills the blocks that hold it, from the one that begins at the byte it is told on. It says how much it filled.
#[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "nothing is read past the page cache there"))]
pub(crate) fn filled_by_blocks(
    range: &Range<u64>,
    read: impl FnOnce(u64, &mut [u8]) -> io::Result<usize>,
) -> io::Result<Bytes> {
    MEMORY.filled_by_blocks(range, read)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> &'static Memory {
        Box::leak(Box::new(Memory::new()))
    }

    fn fill(with: u8) -> impl FnOnce(&mut [u8]) -> io::Result<()> {
        move |into| {
            into.fill(with);
            Ok(())
        }
    }

    #[test]
    fn memory_is_used_again_when_nobody_holds_it_and_shows_nothing_of_before() {
        let (memory, length) = (memory(), BYTES_MIN + 12_345);
        let first = memory.filled(length, fill(1)).expect("filled");
        let at = first.as_ptr();
        let part = first.slice(10..20);
        drop(first);
        let second = memory.filled(length, fill(2)).expect("filled");
        assert_ne!(second.as_ptr(), at, "part of it is still held");
        assert_eq!(part, [1; 10].as_slice());
        drop(part);
        let third = memory.filled(length - 5, fill(3)).expect("filled");
        assert_eq!(third.as_ptr(), at, "nobody holds it any more");
        assert!(third.len() == length - 5 && third.iter().all(|byte| *byte == 3), "no more than was asked for");
        drop(third);
        assert!(memory.filled(length, |_| Err(io::ErrorKind::UnexpectedEof.into())).is_err(), "it was not read");
        assert_eq!(memory.0.lock().len(), 1, "it came back all the same");
        let small = memory.lend(length / 3);
        assert!(small.bytes.capacity() < length / 2, "a small piece does not keep the memory of a large one");
    }

    #[test]
    fn what_waits_is_bounded() {
        let memory = memory();
        let many: Vec<_> = (0..3 * WAITING_MAX).map(|_| memory.filled(BYTES_MIN, fill(1)).expect("filled")).collect();
        drop(many);
        assert_eq!(memory.0.lock().len(), WAITING_MAX);
        memory.0.lock().clear();
        drop(memory.filled(BYTES_MAX + 1, fill(1)));
        drop(memory.filled(BYTES_MIN - 1, fill(1)));
        assert_eq!(memory.0.lock().len(), 0, "neither what is large nor what is small waits");
    }
}
