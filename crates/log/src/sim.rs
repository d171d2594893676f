//! The log in a deterministic simulation: a seed decides appends, reads, uploads, retention, store faults, kills, power
//! losses and lost folders, and a model knows what must be true. Runs with `cargo test -p cairn-log sim`; with
//! `CAIRN_SIM_SEEDS=FROM..TO` for other seeds than the default ones.
//!
//! What it holds the log to: an acknowledged batch is read back byte for byte at its offset, whatever happens (I3); an
//! offset that was acknowledged or read never means anything else (I4); nothing is visible that is not durable (I3); a batch
//! that is sent again is known, also by what a bucket alone remembers; who reads what is committed sees exactly that, and a
//! transaction over several streams ends in all of them or in none; where a stream is compacted, the newest record of every key
//! stays, a tombstone stays its time, and every record has the offset it had.
//! Uploads are stepped poll by poll between the other
//! steps, so that each may meet each at every point where the uploader waits for the store.

pub(crate) mod disk;
pub(crate) mod keyed;
mod losing;
mod model;
mod transactions;
mod uploading;
mod world;

pub(crate) use world::drive;

use std::sync::{Arc, OnceLock};

use cairn_clock::Entropy;
use cairn_keys::{AtRest, GivenKey, KeyEncryption, Purpose};

use self::world::World;

/// Encryption under a key of that number (0: new files in the clear), with others that may have been used before. Made once
/// for the whole process, as the log's keys are.
pub(crate) fn at_rest(current: u8, others: &[u8]) -> AtRest {
    type Made = std::collections::BTreeMap<(u8, Vec<u8>), AtRest>;
    static MADE: OnceLock<parking_lot::Mutex<Made>> = OnceLock::new();
    let key = |number: u8| -> Arc<dyn KeyEncryption> {
        let text = hex::encode([number; 32]);
        Arc::new(GivenKey::read("test", text.as_bytes()).expect("a key").of(Purpose::AtRest))
    };
    let mut made = MADE.get_or_init(Default::default).lock();
    let made = made.entry((current, others.to_vec())).or_insert_with(|| {
        let (current, others) = ((current > 0).then(|| key(current)), others.iter().map(|n| key(*n)).collect());
        let opening = AtRest::open(current, others, Entropy::seeded(7));
        let made =
            std::thread::spawn(|| tokio::runtime::Builder::new_current_thread().build().map(|it| it.block_on(opening)));
        made.join().expect("no panic").expect("a runtime").expect("it wraps")
    });
    made.clone()
}

/// Steps of one run.
const STEPS: usize = 250;
/// Seeds of a default run: a few hundred in some seconds without optimisation.
const SEEDS: std::ops::Range<u64> = 0..300;
/// Seeds of a proof.
const SEEDS_PROOF: std::ops::Range<u64> = 0..5_000;

fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("CAIRN_SIM_SEEDS") else {
        return if std::env::var_os("CAIRN_PROOF").is_some() { SEEDS_PROOF } else { SEEDS };
    };
    let (from, to) = text.split_once("..").unwrap_or(("0", &text));
    let number = |text: &str| text.trim().parse::<u64>().expect("CAIRN_SIM_SEEDS is FROM..TO");
    number(from)..number(to)
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let mut runs = std::collections::BTreeSet::new();
    for seed in 0..12 {
        let (one, two) = (World::run(seed, STEPS), World::run(seed, STEPS));
        for (n, (a, b)) in one.iter().zip(&two).enumerate() {
            assert_eq!(a, b, "seed {seed} differs from itself at line {n}");
        }
        assert_eq!(one.len(), two.len(), "seed {seed}");
        runs.insert(one);
    }
    assert_eq!(runs.len(), 12, "the seed decides nothing");
}

#[test]
fn acknowledged_records_survive_and_offsets_never_mean_other_data() {
    let mut told = std::collections::BTreeMap::<String, usize>::new();
    for seed in seeds() {
        for line in World::run(seed, STEPS) {
            *told.entry(line.split(' ').next().unwrap_or_default().to_owned()).or_default() += 1;
        }
    }
    // A simulation in which nothing happens proves nothing.
    for what in [
        "append",
        "commit",
        "abort",
        "read",
        "committed",
        "power",
        "kill",
        "lost-folder",
        "lost-machine",
        "ended-well",
        "retention",
        "fenced",
        "collected",
        "merged",
        "put",
        "take-over",
        "compacted",
    ] {
        assert!(told.get(what).is_some_and(|times| *times > 10), "{what} hardly ever happens: {told:?}");
    }
}
