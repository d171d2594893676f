//! Canonical JSON: two documents have one form exactly where they mean the same, numbers as they were written.
//!
//! The input is one document, or two with a NUL between them. What an approval binds and what a catalogue pins rests on this.
#![no_main]

use cairn_approvals::{Bound, binding};
use cairn_contract::{CanonicalError, DigestKey, canonical_json};
use cairn_fuzz::reference::{NoTree, Tree};
use libfuzzer_sys::fuzz_target;

/// As many levels as canonical JSON reads.
const DEPTH_MAX: usize = 129;

fuzz_target!(|data: &[u8]| {
    let (one, two) = match data.iter().position(|byte| *byte == 0) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, data),
    };
    let (first, second) = (form(one), form(two));
    if let (Some((a, first)), Some((b, second))) = (&first, &second) {
        assert_eq!(a == b, first == second, "{first} and {second}");
        assert_eq!(first == second, bound(one) == bound(two), "the digest of an approval follows the form");
    }
});

/// The form of a document with what it means; both or none.
fn form(document: &[u8]) -> Option<(Tree, String)> {
    match (Tree::read(document), canonical_json(document)) {
        (Ok(tree), Ok(form)) => {
            assert!(!tree.has_duplicates() && tree.depth() <= DEPTH_MAX, "{form}");
            assert_eq!(canonical_json(form.as_bytes()).as_ref(), Ok(&form), "the form of a form is itself");
            let tree = tree.sorted();
            assert_eq!(Tree::read(form.as_bytes()).map(Tree::sorted).as_ref(), Ok(&tree), "{form}");
            Some((tree, form))
        }
        (Ok(tree), Err(CanonicalError::Duplicate { .. })) => {
            assert!(tree.has_duplicates());
            None
        }
        (Ok(_) | Err(NoTree::Depth), Err(CanonicalError::Depth { .. })) => None,
        (Err(NoTree::Syntax), Err(_)) => None,
        (Err(NoTree::Depth), Err(_)) => None,
        (tree, form) => panic!("read as {tree:?}, and its form is {form:?}"),
    }
}

fn bound(arguments: &[u8]) -> Option<String> {
    let key = DigestKey::new("k", &[7; 32]).expect("a key");
    let bound = Bound {
        tenant: None,
        principal: "ada",
        agent: None,
        server: "orders",
        method: "tools/call",
        target: "refund",
        arguments,
        policy_version: "observe",
        tool_digest: None,
    };
    binding(&key, &bound).ok()
}
