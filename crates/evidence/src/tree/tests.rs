//! The tree against a naive one that is written as RFC 6962 is, and against `ct-merkle`.

use std::convert::Infallible;

use ct_merkle::{RootHash, mem_backed_tree::MemoryBackedTree};
use proptest::prelude::*;
use sha2_11::Sha256;

use super::*;

/// MTH of RFC 6962, 2.1, word for word.
fn naive_root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => empty_root(),
        [leaf] => *leaf,
        _ => {
            let split = naive_split(leaves.len());
            node_hash(&naive_root(&leaves[..split]), &naive_root(&leaves[split..]))
        }
    }
}

fn naive_split(size: usize) -> usize {
    let mut split = 1;
    while split * 2 < size {
        split *= 2;
    }
    split
}

/// PATH of RFC 6962, 2.1.1.
fn naive_inclusion(index: usize, leaves: &[Hash]) -> Vec<Hash> {
    if leaves.len() == 1 {
        return vec![];
    }
    let split = naive_split(leaves.len());
    let (mut path, sibling) = if index < split {
        (naive_inclusion(index, &leaves[..split]), naive_root(&leaves[split..]))
    } else {
        (naive_inclusion(index - split, &leaves[split..]), naive_root(&leaves[..split]))
    };
    path.push(sibling);
    path
}

/// SUBPROOF of RFC 6962, 2.1.2.
fn naive_consistency(old: usize, leaves: &[Hash], is_whole: bool) -> Vec<Hash> {
    if old == leaves.len() {
        return if is_whole { vec![] } else { vec![naive_root(leaves)] };
    }
    let split = naive_split(leaves.len());
    let (mut proof, sibling) = if old <= split {
        (naive_consistency(old, &leaves[..split], is_whole), naive_root(&leaves[split..]))
    } else {
        (naive_consistency(old - split, &leaves[split..], false), naive_root(&leaves[..split]))
    };
    proof.push(sibling);
    proof
}

/// Keeps nothing: computes each node from the leaves.
struct Leaves(Vec<Hash>);

impl Nodes for Leaves {
    type Error = Infallible;

    fn node(&self, level: u32, index: u64) -> Result<Hash, Infallible> {
        let (begin, end) = ((index << level) as usize, ((index + 1) << level) as usize);
        Ok(naive_root(&self.0[begin..end]))
    }
}

fn entries(size: usize) -> Vec<Vec<u8>> {
    (0..size).map(|n| n.to_be_bytes().repeat(1 + n % 3)).collect()
}

fn leaves(size: usize) -> Leaves {
    Leaves(entries(size).iter().map(|entry| leaf_hash(entry)).collect())
}

#[test]
fn hashes_are_those_of_the_rfc() {
    assert_eq!(hex::encode(empty_root()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    // The well-known tree of the reference implementation of certificate transparency.
    let inputs = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
    let roots = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    let mut frontier = Frontier::default();
    for (input, root) in inputs.iter().zip(roots) {
        frontier.push(leaf_hash(&hex::decode(input).expect("hexadecimal")), |_, _| {});
        assert_eq!(hex::encode(frontier.root()), root);
    }
}

#[test]
fn small_trees_are_as_the_naive_ones_in_every_place() {
    for size in 1..=40 {
        let tree = leaves(size);
        let edge = frontier(&tree, size as u64).expect("it keeps all");
        assert_eq!(edge.root(), naive_root(&tree.0));
        for index in 0..size {
            let Ok(proof) = inclusion(&tree, index as u64, size as u64);
            assert_eq!(proof, naive_inclusion(index, &tree.0), "leaf {index} of {size}");
        }
        for old in 1..=size {
            let Ok(proof) = consistency(&tree, old as u64, size as u64);
            assert_eq!(proof, naive_consistency(old, &tree.0, true), "{old} to {size}");
        }
    }
}

proptest! {
    #[test]
    fn roots_and_proofs_are_those_of_another_implementation(size in 1_usize..700, at in any::<prop::sample::Index>(), before in any::<prop::sample::Index>()) {
        let (tree, index, old) = (leaves(size), at.index(size), 1 + before.index(size));
        let mut theirs = MemoryBackedTree::<Sha256, Vec<u8>>::new();
        let mut then = None;
        for (n, entry) in entries(size).into_iter().enumerate() {
            theirs.push(entry);
            if n + 1 == old {
                then = Some(theirs.root());
            }
        }
        let root = frontier(&tree, size as u64).expect("it keeps all").root();
        let their_root = theirs.root();
        prop_assert_eq!(root.as_slice(), their_root.as_bytes().as_slice());
        let Ok(proof) = inclusion(&tree, index as u64, size as u64);
        let their_proof = theirs.prove_inclusion(index);
        prop_assert_eq!(proof.concat(), their_proof.as_bytes());
        let Ok(proof) = consistency(&tree, old as u64, size as u64);
        let their_proof = theirs.prove_consistency(size - old);
        prop_assert_eq!(proof.concat(), their_proof.as_bytes());
        let old_root = frontier(&tree, old as u64).expect("it keeps all").root();
        let then: RootHash<Sha256> = then.expect("there were so many");
        prop_assert_eq!(old_root.as_slice(), then.as_bytes().as_slice());
    }

    #[test]
    fn an_edge_grows_as_the_whole_tree_does(size in 0_u64..600, more in 0_usize..300) {
        let tree = leaves(size as usize + more);
        let mut edge = frontier(&tree, size).expect("it keeps all");
        for leaf in &tree.0[size as usize..] {
            edge.push(*leaf, |_, _| {});
        }
        prop_assert_eq!(edge.root(), naive_root(&tree.0));
        prop_assert_eq!(edge, frontier(&tree, (size as usize + more) as u64).expect("it keeps all"));
    }
}
