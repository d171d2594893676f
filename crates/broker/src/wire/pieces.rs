//! A frame in pieces, as they lie in memory: written to a socket together, and none of them copied for it. Made where frames are written.

use std::{collections::VecDeque, io::IoSlice};

use bytes::{Buf, Bytes};

/// Bytes one after the other; none is empty.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    /// What is shown at most at once, where not all is.
    at_once: Option<usize>,
}

impl Pieces {
    pub(crate) fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.bytes += piece.len();
            self.pieces.push_back(piece);
        }
    }

    /// Puts something before all.
    pub(crate) fn push_front(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.bytes += piece.len();
            self.pieces.push_front(piece);
        }
    }

    /// Shows no more than so many bytes at once, so that no call that writes them takes long.
    pub(crate) const fn by(mut self, bytes: usize) -> Self {
        self.at_once = Some(bytes);
        self
    }

    pub(crate) const fn len(&self) -> usize {
        self.bytes
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

impl From<Bytes> for Pieces {
    fn from(only: Bytes) -> Self {
        let mut pieces = Self::default();
        pieces.push(only);
        pieces
    }
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.bytes
    }

    fn chunk(&self) -> &[u8] {
        let first: &[u8] = self.pieces.front().map_or(&[], |piece| piece);
        self.at_once.and_then(|most| first.get(..most)).unwrap_or(first)
    }

    fn chunks_vectored<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        let (mut filled, mut left) = (0, self.at_once.unwrap_or(self.bytes));
        for (slice, piece) in into.iter_mut().zip(&self.pieces) {
            if left == 0 {
                break;
            }
            let shown = piece.get(..left).unwrap_or(piece);
            *slice = IoSlice::new(shown);
            left -= shown.len();
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, count: usize) {
        assert!(count <= self.bytes, "no more is written than there is");
        self.bytes -= count;
        let mut left = count;
        while left > 0 {
            let first = self.pieces.front_mut().expect("their lengths come to the sum");
            if left < first.len() {
                return first.advance(left);
            }
            left -= first.len();
            // What is written is no longer held.
            self.pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_written_in_order_whatever_is_taken_at_once() {
        let whole: Vec<u8> = (0..=255).collect();
        for step in [1, 7, 64, 255, 256] {
            let mut pieces = Pieces::from(Bytes::new());
            for piece in [&whole[..10], &[], &whole[10..11], &whole[11..]] {
                pieces.push(Bytes::copy_from_slice(piece));
            }
            let mut written = Vec::new();
            while pieces.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 8];
                let filled = pieces.chunks_vectored(&mut slices);
                let shown: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.iter().copied()).collect();
                assert_eq!(shown, &whole[written.len()..], "all is shown");
                let taken = step.min(shown.len());
                written.extend_from_slice(&shown[..taken]);
                pieces.advance(taken);
                assert_eq!((pieces.len(), pieces.is_empty()), (whole.len() - written.len(), !pieces.has_remaining()));
            }
            assert_eq!(written, whole);
        }
    }

    #[test]
    fn no_more_is_shown_at_once_than_is_said() {
        let whole: Vec<u8> = (0..=255).collect();
        let mut pieces = Pieces::default().by(100);
        for piece in [&whole[..60], &whole[60..70], &whole[70..]] {
            pieces.push(Bytes::copy_from_slice(piece));
        }
        let mut written = Vec::new();
        for expected in [100, 100, 56] {
            let mut slices = [IoSlice::new(&[]); 8];
            let filled = pieces.chunks_vectored(&mut slices);
            let shown: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.iter().copied()).collect();
            assert_eq!(shown.len(), expected);
            assert!(pieces.chunk().len() <= 100 && shown.starts_with(pieces.chunk()));
            pieces.advance(expected);
            written.extend(shown);
        }
        assert_eq!((written, pieces.is_empty()), (whole, true));
    }
}
