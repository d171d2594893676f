//! The Merkle tree of RFC 6962: hashes, the growing edge, and proofs.
//!
//! The store keeps nodes, this file says which ones a proof needs and how they are hashed. Levels count from the leaves
//! (level 0); node `(level, index)` covers leaves `index << level .. (index + 1) << level`. It must never see a record.
//!
//! | hash | over |
//! | --- | --- |
//! | empty tree | nothing |
//! | leaf | `0x00`, entry |
//! | node | `0x01`, left, right |

use ring::digest::{Context, SHA256, digest};

/// A SHA-256 hash of the tree.
pub type Hash = [u8; 32];

/// SHA-256 of some bytes.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Hash {
    fixed(&digest(&SHA256, bytes))
}

/// The root of a tree without leaves.
#[must_use]
pub fn empty_root() -> Hash {
    sha256(&[])
}

/// The hash of a leaf that holds `entry`.
#[must_use]
pub fn leaf_hash(entry: &[u8]) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(&[0]);
    context.update(entry);
    fixed(&context.finish())
}

/// The hash of a node over two others.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut bytes = [1; 65];
    bytes[1..33].copy_from_slice(left);
    bytes[33..].copy_from_slice(right);
    sha256(&bytes)
}

fn fixed(digest: &ring::digest::Digest) -> Hash {
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// The growing edge of a tree: the roots of the complete subtrees that its leaves make, the largest first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// The edge of a tree of `size` leaves; `None` where there are too few or too many peaks for that.
    #[must_use]
    pub fn new(size: u64, peaks: Vec<Hash>) -> Option<Self> {
        (peaks.len() == size.count_ones() as usize).then_some(Self { size, peaks })
    }

    /// How many leaves there are.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The roots of the complete subtrees, the largest first.
    #[must_use]
    pub fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    /// Adds a leaf, and gives each node that became complete, with its level, to `complete`: the leaf first.
    pub fn push(&mut self, leaf: Hash, mut complete: impl FnMut(u32, Hash)) {
        let (mut node, mut level, mut left) = (leaf, 0, self.size);
        complete(0, node);
        while left & 1 == 1 {
            let peak = self.peaks.pop().expect("there is a peak for each bit of the size");
            node = node_hash(&peak, &node);
            level += 1;
            left >>= 1;
            complete(level, node);
        }
        self.peaks.push(node);
        self.size += 1;
    }

    /// The tree's root.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut from_the_right = self.peaks.iter().rev();
        let Some(last) = from_the_right.next() else { return empty_root() };
        from_the_right.fold(*last, |right, left| node_hash(left, &right))
    }
}

/// Whoever keeps complete nodes.
pub trait Nodes {
    /// Why a node cannot be given.
    type Error;

    /// The hash of a complete node.
    ///
    /// # Errors
    /// The node is gone or cannot be read.
    fn node(&self, level: u32, index: u64) -> Result<Hash, Self::Error>;
}

/// The peaks of the tree of the first `size` leaves.
///
/// # Errors
/// As [`Nodes::node`].
pub fn frontier<N: Nodes>(nodes: &N, size: u64) -> Result<Frontier, N::Error> {
    let peaks = complete_nodes(0, size).into_iter().map(|(level, index)| nodes.node(level, index));
    Ok(Frontier { size, peaks: peaks.collect::<Result<_, _>>()? })
}

/// The inclusion proof of leaf `index` in the tree of the first `size` leaves, from the leaf's sibling up (RFC 6962, 2.1.1).
/// `index` must be below `size`.
///
/// # Errors
/// As [`Nodes::node`].
pub fn inclusion<N: Nodes>(nodes: &N, index: u64, size: u64) -> Result<Vec<Hash>, N::Error> {
    let (mut begin, mut end) = (0, size);
    let mut siblings = Vec::new();
    while end - begin > 1 {
        let split = begin + largest_power_below(end - begin);
        if index < split {
            siblings.push((split, end));
            end = split;
        } else {
            siblings.push((begin, split));
            begin = split;
        }
    }
    siblings.into_iter().rev().map(|(begin, end)| range_root(nodes, begin, end)).collect()
}

/// The proof that the tree of the first `size` leaves extends the one of the first `old` (RFC 6962, 2.1.2). Empty where one
/// of them is empty or both are the same. `old` must not be above `size`.
///
/// # Errors
/// As [`Nodes::node`].
pub fn consistency<N: Nodes>(nodes: &N, old: u64, size: u64) -> Result<Vec<Hash>, N::Error> {
    if old == 0 || old == size {
        return Ok(Vec::new());
    }
    let (mut begin, mut end, mut ranges) = (0, size, Vec::new());
    let mut is_whole = true;
    while old != end {
        let split = begin + largest_power_below(end - begin);
        if old <= split {
            ranges.push((split, end));
            end = split;
        } else {
            ranges.push((begin, split));
            begin = split;
            is_whole = false;
        }
    }
    if !is_whole {
        ranges.push((begin, end));
    }
    ranges.into_iter().rev().map(|(begin, end)| range_root(nodes, begin, end)).collect()
}

/// The root over leaves `begin..end`, where `begin` is a multiple of a power of two that is at least `end - begin`.
fn range_root<N: Nodes>(nodes: &N, begin: u64, end: u64) -> Result<Hash, N::Error> {
    let mut from_the_right = complete_nodes(begin, end).into_iter().rev();
    let (level, index) = from_the_right.next().expect("a range of a proof is not empty");
    let last = nodes.node(level, index)?;
    from_the_right.try_fold(last, |right, (level, index)| Ok(node_hash(&nodes.node(level, index)?, &right)))
}

/// The largest complete nodes that cover leaves `begin..end`, from the left; `begin` as for [`range_root`].
fn complete_nodes(mut begin: u64, end: u64) -> Vec<(u32, u64)> {
    let mut found = Vec::new();
    while begin < end {
        let level = (end - begin).ilog2();
        found.push((level, begin >> level));
        begin += 1 << level;
    }
    found
}

/// The largest power of two that is less than `size`, which is at least 2.
const fn largest_power_below(size: u64) -> u64 {
    1 << (size - 1).ilog2()
}

#[cfg(test)]
mod tests;
