//! A log on disk against a tree in memory: growth, restarts, crashes, damage.

use cairn_clock::Entropy;
use proptest::prelude::*;

use super::*;
use crate::tree::leaf_hash;

fn identity() -> Identity {
    Identity { cluster_id: "c".into(), topic: "mcp.calls".into(), topic_id: "t".into(), partition: 3 }
}

fn key() -> SigningKey {
    SigningKey::generate("example.com/audit", &Entropy::seeded(1)).unwrap()
}

fn commitment(offset: u64) -> Commitment {
    Commitment { offset, timestamp_ms: 1, presence: 3, key: [1; 32], content: leaf_hash(&offset.to_be_bytes()) }
}

fn open(folder: &Path) -> LogStore {
    LogStore::open(folder.join("log"), identity()).unwrap()
}

/// Root of what a store signed, by itself.
fn root_of(offsets: &[u64]) -> String {
    let (mut edge, log) = (Frontier::default(), log_hash(&identity().origin()));
    offsets.iter().for_each(|offset| edge.push(commitment(*offset).leaf(&log), |_, _| {}));
    STANDARD.encode(edge.root())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Batches of any size, offsets with gaps, a restart before or after each commit: the root is that of all records.
    #[test]
    fn it_grows_the_same_through_restarts(batches in prop::collection::vec((0_u64..700, 1_u64..4, any::<bool>()), 1..6)) {
        let home = tempfile::tempdir().unwrap();
        let (key, mut offset, mut offsets) = (key(), 5, Vec::new());
        let mut store = open(home.path());
        for (records, step, is_lost) in batches {
            for _ in 0..records {
                store.push(&commitment(offset));
                offset += step;
                if !is_lost {
                    offsets.push(offset - step);
                }
            }
            if is_lost {
                // A crash before the commit: what waited is read again, here with other records.
                store = open(home.path());
            } else {
                store.commit(&key).unwrap();
                store = open(home.path());
                prop_assert_eq!(&store.state().root, &root_of(&offsets));
                prop_assert_eq!(store.offset_next(), store.state().offset_next);
            }
        }
        for (index, offset) in offsets.iter().enumerate().step_by(97) {
            prop_assert_eq!(store.index_at(*offset).unwrap(), index as u64);
            prop_assert_eq!(store.index_at(offset - 1).unwrap(), offsets.partition_point(|known| *known < offset - 1) as u64);
        }
    }
}

#[test]
fn what_was_pruned_is_gone_and_the_rest_is_still_proven() {
    let home = tempfile::tempdir().unwrap();
    let (key, size) = (key(), 2 * SEGMENT_LEAVES + 300);
    let mut store = open(home.path());
    for offset in 0..size {
        store.push(&commitment(offset));
        if store.waiting() == 100_000 {
            store.commit(&key).unwrap();
        }
    }
    store.commit(&key).unwrap();
    let before = (store.proof(SEGMENT_LEAVES).unwrap(), store.event().unwrap());
    store.prune(SEGMENT_LEAVES - 1).unwrap();
    assert_eq!(store.first_kept().unwrap(), 0, "one of its records is still kept");
    store.prune(SEGMENT_LEAVES + 10).unwrap();
    assert_eq!(store.first_kept().unwrap(), SEGMENT_LEAVES);
    let store = open(home.path());
    assert_eq!((store.proof(SEGMENT_LEAVES).unwrap(), store.event().unwrap()), before);
    assert!(matches!(store.proof(7), Err(StoreError::Gone)));
    assert!(store.extends(SEGMENT_LEAVES).is_ok());
}

#[test]
fn damage_is_found_at_the_next_open() {
    for (file, byte) in [("leaves-00000000", 40 * 256 + 12), ("nodes-8", 3), ("state.json", 0)] {
        let home = tempfile::tempdir().unwrap();
        let mut store = open(home.path());
        (0..257).for_each(|offset| store.push(&commitment(offset)));
        store.commit(&key()).unwrap();
        let path = home.path().join("log").join(file);
        let mut bytes = fs::read(&path).unwrap();
        if byte == 0 {
            bytes = String::from_utf8(bytes).unwrap().replace("\"size\": 257", "\"size\": 256").into_bytes();
        } else {
            bytes[byte] ^= 1;
        }
        fs::write(&path, &bytes).unwrap();
        let opened = LogStore::open(home.path().join("log"), identity());
        assert!(matches!(opened, Err(StoreError::Damaged { .. })), "{file}: {opened:?}");
    }
    let home = tempfile::tempdir().unwrap();
    let mut store = open(home.path());
    store.push(&commitment(0));
    store.commit(&key()).unwrap();
    let other = Identity { topic_id: "another".into(), ..identity() };
    assert!(LogStore::open(home.path().join("log"), other).is_err());
    fs::write(home.path().join("log/leaves-00000000"), [0; 20]).unwrap();
    assert!(LogStore::open(home.path().join("log"), identity()).is_err());
}
