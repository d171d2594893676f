//! Verifying the Merkle tree of RFC 6962 (the same in RFC 9162): growing from an edge, inclusion, consistency.
//!
//! Everything here only hashes what it is given and compares with a root that somebody signed. No input makes it panic, loop for
//! long or use memory: proofs have at most 64 hashes.

use crate::{
    lanes::Messages,
    record::{Hash, sha256},
};

/// The most hashes that a proof or an edge can have.
pub(crate) const PROOF_MAX: usize = 64;

/// The hash of a node over two others.
#[must_use]
pub(crate) fn node(left: &Hash, right: &Hash) -> Hash {
    sha256(&node_bytes(left, right))
}

fn node_bytes(left: &Hash, right: &Hash) -> [u8; 65] {
    let mut bytes = [1; 65];
    bytes[1..33].copy_from_slice(left);
    bytes[33..].copy_from_slice(right);
    bytes
}

/// The edge of a tree: enough to add leaves and to know the root.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Edge {
    size: u64,
    /// Roots of complete subtrees, the largest first: one for each bit of the size.
    peaks: Vec<Hash>,
}

impl Edge {
    /// The edge of a tree of `size` leaves; nothing where that has another number of peaks.
    #[must_use]
    pub(crate) fn new(size: u64, peaks: Vec<Hash>) -> Option<Self> {
        (u32::try_from(peaks.len()) == Ok(size.count_ones())).then_some(Self { size, peaks })
    }

    /// How many leaves there are.
    #[must_use]
    pub(crate) const fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf.
    pub(crate) fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        for _ in 0..self.size.trailing_ones() {
            let Some(left) = self.peaks.pop() else { break };
            hash = node(&left, &hash);
        }
        self.peaks.push(hash);
        self.size = self.size.saturating_add(1);
    }

    /// Adds leaves, as [`Self::push`] would one by one: level by level, so that the nodes of one are hashed together. Leaves
    /// `leaves` empty.
    pub(crate) fn extend(&mut self, leaves: &mut Vec<Hash>, messages: &mut Messages) {
        let (count, mut level, mut kept) = (leaves.len() as u64, 0, Vec::<Hash>::new());
        while !leaves.is_empty() {
            // What stood at this level until now goes left of what comes.
            if self.size >> level & 1 == 1
                && let Some(left) = self.peaks.pop()
            {
                leaves.insert(0, left);
            }
            let (pairs, alone) = leaves.as_chunks::<2>();
            kept.extend(alone);
            messages.clear();
            pairs.iter().for_each(|[left, right]| messages.add(&node_bytes(left, right)));
            let nodes = messages.hashes();
            leaves.clear();
            leaves.extend_from_slice(nodes);
            level += 1;
        }
        self.peaks.extend(kept.into_iter().rev());
        self.size = self.size.saturating_add(count);
    }

    /// The root.
    #[must_use]
    pub(crate) fn root(&self) -> Hash {
        match self.peaks.split_last() {
            None => sha256(&[]),
            Some((last, rest)) => rest.iter().rev().fold(*last, |right, left| node(left, &right)),
        }
    }
}

/// Verifies an inclusion proof (RFC 9162, 2.1.3.2). Where it holds, the edge of the tree of the leaves before this one: the
/// siblings on the left are its peaks.
#[must_use]
pub(crate) fn inclusion(leaf: &Hash, index: u64, size: u64, path: &[Hash], root: &Hash) -> Option<Edge> {
    if index >= size {
        return None;
    }
    let (mut at, mut last, mut hash) = (index, size - 1, *leaf);
    let mut peaks = Vec::new();
    for sibling in path {
        if last == 0 {
            return None;
        }
        if at & 1 == 1 || at == last {
            hash = node(sibling, &hash);
            peaks.push(*sibling);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node(&hash, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    peaks.reverse();
    if last == 0 && hash == *root { Edge::new(index, peaks) } else { None }
}

/// Verifies that a tree extends an older one (RFC 9162, 2.1.4.2).
#[must_use]
pub(crate) fn extends(old: (u64, &Hash), new: (u64, &Hash), path: &[Hash]) -> bool {
    let ((old_size, old_root), (new_size, new_root)) = (old, new);
    if old_size > new_size {
        return false;
    }
    if old_size == new_size {
        return path.is_empty() && old_root == new_root;
    }
    if old_size == 0 {
        return path.is_empty() && *old_root == sha256(&[]);
    }
    // Where the old tree is complete, its root is the first hash and is left out of the proof.
    let (first, rest) = match path.split_first() {
        _ if old_size.is_power_of_two() => (old_root, path),
        Some((first, rest)) => (first, rest),
        None => return false,
    };
    let (mut at, mut last) = (old_size - 1, new_size - 1);
    while at & 1 == 1 {
        at >>= 1;
        last >>= 1;
    }
    let (mut old_hash, mut new_hash) = (*first, *first);
    for sibling in rest {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            old_hash = node(sibling, &old_hash);
            new_hash = node(sibling, &new_hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            new_hash = node(&new_hash, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && old_hash == *old_root && new_hash == *new_root
}

#[cfg(test)]
mod tests {
    use ct_merkle::mem_backed_tree::MemoryBackedTree;
    use proptest::prelude::*;

    use super::*;

    type Tree = MemoryBackedTree<sha2_11::Sha256, Vec<u8>>;

    fn leaf(n: usize) -> Hash {
        sha256(&[&[0], n.to_be_bytes().as_slice()].concat())
    }

    fn hashes(bytes: &[u8]) -> Vec<Hash> {
        bytes.chunks(32).map(|chunk| chunk.try_into().expect("whole hashes")).collect()
    }

    fn root(tree: &Tree) -> Hash {
        tree.root().as_bytes().as_slice().try_into().expect("32 bytes")
    }

    proptest! {
        #[test]
        fn proofs_of_another_implementation_verify_and_changed_ones_do_not(
            size in 1_usize..500,
            at in any::<prop::sample::Index>(),
            before in any::<prop::sample::Index>(),
            bit in any::<prop::sample::Index>(),
        ) {
            let (index, old) = (at.index(size), 1 + before.index(size));
            let (mut tree, mut edge, mut roots) = (Tree::new(), Edge::default(), vec![]);
            let mut at_index = None;
            for n in 0..size {
                if n == index {
                    at_index = Some(edge.clone());
                }
                tree.push(n.to_be_bytes().to_vec());
                edge.push(leaf(n));
                roots.push(edge.root());
            }
            let now = root(&tree);
            prop_assert_eq!(edge.root(), now);
            let (n, m) = (index as u64, size as u64);
            let path = hashes(tree.prove_inclusion(index).as_bytes());
            prop_assert_eq!(inclusion(&leaf(index), n, m, &path, &now), at_index);
            prop_assert!(inclusion(&leaf(index + 1), n, m, &path, &now).is_none());
            prop_assert!(inclusion(&leaf(index), n, m, &[path.clone(), vec![now]].concat(), &now).is_none());
            let grown = hashes(tree.prove_consistency(size - old).as_bytes());
            let (old_size, old_root) = (old as u64, roots[old - 1]);
            prop_assert!(extends((old_size, &old_root), (m, &now), &grown));
            if old < size {
                prop_assert!(!extends((old_size, &now), (m, &now), &grown));
                prop_assert!(!extends((old_size, &old_root), (m, &old_root), &grown));
            }
            let broken = |proof: &[Hash]| {
                let mut changed = proof.to_vec();
                let bit = bit.index(changed.len() * 256);
                changed[bit / 256][bit % 256 / 8] ^= 1 << (bit % 8);
                [changed, proof[1..].to_vec(), proof[..proof.len() - 1].to_vec()]
            };
            if !path.is_empty() {
                prop_assert!(broken(&path).iter().all(|path| inclusion(&leaf(index), n, m, path, &now).is_none()));
            }
            if !grown.is_empty() {
                prop_assert!(!broken(&grown).iter().any(|path| extends((old_size, &old_root), (m, &now), path)));
            }
        }

        #[test]
        fn leaves_together_make_the_tree_that_they_make_one_by_one(before in 0_usize..70, more in prop::collection::vec(0_usize..70, 0..4)) {
            let (mut one, mut together, mut messages) = (Edge::default(), Edge::default(), Messages::default());
            let mut n = 0;
            for count in std::iter::once(before).chain(more) {
                let mut leaves: Vec<_> = (n..n + count).map(leaf).collect();
                leaves.iter().for_each(|leaf| one.push(*leaf));
                together.extend(&mut leaves, &mut messages);
                prop_assert!(leaves.is_empty());
                prop_assert_eq!(&together, &one);
                n += count;
            }
        }

        #[test]
        fn no_input_makes_it_panic(index: u64, size: u64, path in prop::collection::vec(any::<[u8; 32]>(), 0..80), hash: [u8; 32]) {
            prop_assert!(inclusion(&hash, index, size, &path, &hash).is_none() || (size == 1 && path.is_empty()));
            let _ = extends((index, &hash), (size, &hash), &path);
            let _ = Edge::new(size, path);
        }
    }
}
