//! A whole trail, made by a writer of the test's own with other libraries, and every way to spoil it.

use base64::{Engine, engine::general_purpose::STANDARD};
use ct_merkle::mem_backed_tree::MemoryBackedTree;
use ed25519_dalek::{Signer, SigningKey};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::*;

mod who;

const TOPIC: &str = "mcp.calls";
const NAME: &str = "example.com/audit";

#[derive(Clone, Debug, PartialEq)]
struct Owned {
    offset: u64,
    timestamp_ms: i64,
    key: Vec<u8>,
    headers: Vec<(String, Vec<u8>)>,
    value: Vec<u8>,
}

impl Owned {
    fn with<T>(&self, use_it: impl FnOnce(&Record<'_>) -> T) -> T {
        let headers: Vec<_> = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        let (offset, timestamp_ms) = (self.offset, self.timestamp_ms);
        use_it(&Record { offset, timestamp_ms, key: Some(&self.key), headers: &headers, value: Some(&self.value) })
    }

    fn link(&self) -> Hash {
        self.with(|record| link(record, &mut Vec::new()))
    }

    fn leaf(&self, origin: &str) -> Vec<u8> {
        // The entry: what the tree hashes behind its zero byte.
        let commitment = self.with(|record| Commitment::of(record, &mut Vec::new()));
        let (offset, time) = (commitment.offset.to_be_bytes(), commitment.timestamp_ms.to_be_bytes());
        [&log_hash(origin), offset.as_slice(), &time, &[commitment.presence], &commitment.key, &commitment.link]
            .concat()
    }
}

/// A writer: events of some producers in turn, with offsets that have gaps, and a checkpoint now and then.
struct Writer {
    key: SigningKey,
    origin: String,
    records: Vec<Owned>,
    published: Vec<Value>,
    producers: Vec<(u64, Option<Hash>)>,
    tree: MemoryBackedTree<sha2_11::Sha256, Vec<u8>>,
    signed: usize,
}

impl Writer {
    fn new(id: &str) -> Self {
        Self {
            key: SigningKey::from_bytes(&[7; 32]),
            origin: format!("cairn/c/{TOPIC}/{id}/3"),
            records: vec![],
            published: vec![],
            producers: vec![(0, None); 2],
            tree: MemoryBackedTree::new(),
            signed: 0,
        }
    }

    fn event(&mut self, producer: usize, skips: u64) {
        let (sequence, previous) = self.producers[producer];
        let sequence = sequence + skips;
        let mut place = json!({ "id": format!("gw-{producer}"), "epoch": 1, "sequence": sequence });
        if let Some(previous) = previous {
            place["previous"] = previous.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
        }
        let n = self.records.len() as u64;
        let record = Owned {
            offset: n + n / 5,
            timestamp_ms: 1_000 + n as i64,
            key: format!("w{}", n % 3).into_bytes(),
            headers: vec![("ce_type".into(), b"io.cairn.call.intent".to_vec())],
            value: json!({ "n": n, "producer": place }).to_string().into_bytes(),
        };
        self.producers[producer] = (sequence + 1, Some(record.link()));
        self.tree.push(record.leaf(&self.origin));
        self.records.push(record);
    }

    fn sign(&self, text: &str) -> String {
        let public = self.key.verifying_key().to_bytes();
        let id = &sha2_of(&[NAME.as_bytes(), b"\n\x01", &public].concat())[..4];
        format!("\u{2014} {NAME} {}\n", STANDARD.encode([id, &self.key.sign(text.as_bytes()).to_bytes()].concat()))
    }

    fn note(&self) -> String {
        let root = STANDARD.encode(self.tree.root().as_bytes());
        let text = format!("{}\n{}\n{root}\n", self.origin, self.records.len());
        format!("{text}\n{}", self.sign(&text))
    }

    fn checkpoint(&mut self) {
        let size = self.records.len();
        // The peaks of a tree: the roots of its complete parts, from the left.
        let mut peaks = vec![];
        let mut begin = 0;
        while begin < size {
            let length = 1 << (size - begin).ilog2();
            let mut part = MemoryBackedTree::<sha2_11::Sha256, Vec<u8>>::new();
            self.records[begin..begin + length].iter().for_each(|record| part.push(record.leaf(&self.origin)));
            peaks.push(STANDARD.encode(part.root().as_bytes()));
            begin += length;
        }
        let path = if self.signed == 0 || self.signed == size {
            vec![]
        } else {
            let proof = self.tree.prove_consistency(size - self.signed);
            proof.as_bytes().chunks(32).map(|hash| STANDARD.encode(hash)).collect()
        };
        let id = self.origin.rsplit('/').nth(1).expect("an id");
        let mut event = json!({
            "note": self.note(), "topic": TOPIC, "topic_id": id, "partition": 3, "size": size,
            "root": STANDARD.encode(self.tree.root().as_bytes()),
            "offset_next": self.records.last().expect("a record").offset + 1,
            "frontier": peaks, "consistency": path,
        });
        if self.signed > 0 {
            event["previous_size"] = self.signed.into();
        }
        self.published.push(event);
        self.signed = size;
    }

    fn proof(&self, index: usize) -> String {
        let path = self.tree.prove_inclusion(index);
        let hashes: String = path.as_bytes().chunks(32).map(|hash| STANDARD.encode(hash) + "\n").collect();
        format!("c2sp.org/tlog-proof@v1\nindex {index}\n{hashes}\n{}", self.note())
    }

    fn bundle(&self, first: usize, shown: impl Fn(&Owned) -> bool, workflow: Option<&str>) -> Vec<String> {
        let head = match workflow {
            Some(workflow) => json!({ "version": 1, "workflow": workflow }),
            None => json!({ "version": 1, "what": "a range" }),
        };
        let mut lines = vec![json!({ "bundle": head })];
        lines.extend(self.published.iter().map(|event| json!({ "checkpoint": event })));
        let proofs = [self.proof(first), self.proof(self.records.len() - 1)];
        let count = self.records.len() - first;
        lines.push(
            json!({ "segment": { "topic": TOPIC, "partition": 3, "first": first, "count": count, "proofs": proofs } }),
        );
        for record in &self.records[first..] {
            let Owned { offset, timestamp_ms, .. } = record;
            if shown(record) {
                let headers: Vec<_> =
                    record.headers.iter().map(|(name, value)| json!([name, STANDARD.encode(value)])).collect();
                lines.push(json!({ "record": { "offset": offset, "timestamp_ms": timestamp_ms, "headers": headers,
                    "key": STANDARD.encode(&record.key), "value": STANDARD.encode(&record.value) } }));
            } else {
                let key = STANDARD.encode(sha2_of(&record.key));
                lines.push(json!({ "hidden": { "offset": offset, "timestamp_ms": timestamp_ms, "presence": 3,
                    "key_sha256": key, "link": STANDARD.encode(record.link()) } }));
            }
        }
        lines.push(json!({ "end": { "records": count } }));
        lines.iter().map(ToString::to_string).collect()
    }
}

fn sha2_of(bytes: &[u8]) -> Hash {
    use sha2_11::Digest;
    sha2_11::Sha256::digest(bytes).as_slice().try_into().expect("32 bytes")
}

fn key() -> Key {
    let public = SigningKey::from_bytes(&[7; 32]).verifying_key().to_bytes();
    let id = sha2_of(&[NAME.as_bytes(), b"\n\x01", &public].concat());
    let id: String = id[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    Key::parse(&format!("{NAME}+{id}+{}", STANDARD.encode([&[1], public.as_slice()].concat()))).expect("a key")
}

fn trust() -> Trust {
    Trust::new(vec![key()], vec![], 0)
}

/// What [`written`] makes, once: published checkpoints, records, and a bundle of all.
static WRITTEN: std::sync::LazyLock<(Vec<Value>, Vec<Owned>, Vec<String>)> = std::sync::LazyLock::new(|| {
    let writer = written();
    let bundle = writer.bundle(0, |_| true, None);
    (writer.published, writer.records, bundle)
});

/// 60 events, a checkpoint behind each 7, and one at the end.
fn written() -> Writer {
    let mut writer = Writer::new("t1");
    for n in 0..60 {
        writer.event(usize::from(n % 4 == 0), 0);
        if n % 7 == 6 {
            writer.checkpoint();
        }
    }
    writer.checkpoint();
    writer
}

fn check_from(published: &[Value], records: &[Owned], from: u64, kept: &[String], id: Option<&str>) -> Report {
    let mut trail = Trail::new(trust());
    kept.iter().for_each(|note| trail.keep(note));
    for event in published {
        trail.published(&serde_json::from_value(event.clone()).expect("a checkpoint"));
    }
    let plan = trail.plan(TOPIC, 3, id);
    let begin = plan.begin(from, 0);
    let mut checker = plan.checker(from, 0);
    for record in records.iter().filter(|record| record.offset >= begin) {
        record.with(|record| checker.record(record));
    }
    let end = records.last().map_or(0, |record| record.offset + 1);
    trail.finish("a trail", [checker.finish(end, false)])
}

fn check(published: &[Value], records: &[Owned]) -> Report {
    check_from(published, records, 0, &[], None)
}

fn check_lines(lines: &[String]) -> Report {
    check_bundle((lines.join("\n") + "\n").as_bytes(), trust(), &[]).expect("it is read")
}

#[test]
fn a_good_trail_verifies_whole_and_in_parts() {
    let writer = written();
    let report = check(&writer.published, &writer.records);
    assert!(report.ok, "{report}");
    assert_eq!((report.records, report.partitions[0].proven, report.checkpoints), (60, 60, 9));
    for from in [1, 9, 30, 69] {
        let report = check_from(&writer.published, &writer.records, from, &[], Some("t1"));
        assert!(report.ok && report.partitions[0].proven > 0, "{from}: {report}");
    }
    for first in [0, 1, 17, 32, 59] {
        let report = check_lines(&writer.bundle(first, |_| true, None));
        assert!(report.ok, "{first}: {report}");
        assert_eq!(report.partitions[0].proven, 60 - first as u64);
    }
    let report = check_lines(&writer.bundle(1, |record| record.key == b"w1", Some("w1")));
    assert!(report.ok, "{report}");
    assert_eq!((report.partitions[0].records, report.partitions[0].hidden), (20, 39));
}

#[test]
fn nothing_is_believed_that_no_trusted_key_signed() {
    let writer = written();
    let mut trail = Trail::new(Trust::default());
    for event in &writer.published {
        trail.published(&serde_json::from_value(event.clone()).unwrap());
    }
    let report = trail.finish("", []);
    assert!(report.has(Kind::Untrusted) && report.checkpoints == 0, "{report}");
    let mut forged = writer.published.clone();
    let note = forged[3]["note"].as_str().unwrap().replace("\n28\n", "\n29\n");
    forged[3]["note"] = note.into();
    assert!(check(&forged, &writer.records).has(Kind::Untrusted));
}

/// No checkpoint at all: what stands between two events of one producer is found by the chain alone.
#[test]
fn the_chain_alone_finds_what_lies_between_two_events() {
    let writer = written();
    assert!(check(&[], &writer.records).ok);
    for (how, kind) in [
        (Spoil::Byte(27), Kind::Changed),
        (Spoil::Remove, Kind::Removed),
        (Spoil::Swap, Kind::Swapped),
        (Spoil::Replay, Kind::Replayed),
    ] {
        let mut records = writer.records.clone();
        spoil(&mut records, 21, how);
        let report = check(&[], &records);
        assert!(report.has(kind), "{how:?}: {report}");
    }
}

#[test]
fn a_producer_that_skips_is_found_in_a_strict_topic() {
    let mut writer = Writer::new("t1");
    (0..10).for_each(|n| writer.event(0, if n == 5 { 2 } else { 0 }));
    writer.checkpoint();
    let report = check(&writer.published, &writer.records);
    assert!(report.has(Kind::Skipped) && report.findings.len() == 1, "{report}");
}

#[test]
fn a_fork_is_found_wherever_it_shows() {
    let (writer, mut other) = (written(), Writer::new("t1"));
    (0..14).for_each(|n| other.event(usize::from(n % 3 == 0), 0));
    other.checkpoint();
    // Two of one size; one that does not extend; one that the verifier kept, between two published ones and at one.
    let both = [writer.published.clone(), other.published.clone()].concat();
    assert!(check(&both, &writer.records).has(Kind::Forked));
    let mut shorter = Writer::new("t1");
    (0..10).for_each(|_| shorter.event(1, 0));
    shorter.checkpoint();
    let both = [shorter.published.clone(), writer.published[2..].to_vec()].concat();
    assert!(check(&both, &writer.records).has(Kind::Forked));
    for kept in [other.note(), shorter.note()] {
        let report = check_from(&writer.published, &writer.records, 0, std::slice::from_ref(&kept), None);
        assert!(report.has(Kind::Forked), "{report}");
        let bundle = writer.bundle(0, |_| true, None).join("\n") + "\n";
        let report = check_bundle(bundle.as_bytes(), trust(), &[kept]).unwrap();
        assert!(report.has(Kind::Forked), "{report}");
    }
    let mut good = Writer::new("t1");
    for n in 0..10 {
        good.event(usize::from(n % 4 == 0), 0);
    }
    assert!(check_from(&writer.published, &writer.records, 0, &[good.note()], None).ok);
}

#[test]
fn a_topic_that_was_made_anew_is_found() {
    let (writer, mut anew) = (written(), Writer::new("t2"));
    assert!(check_from(&writer.published, &writer.records, 0, &[], Some("t2")).has(Kind::Recreated));
    (0..9).for_each(|_| anew.event(0, 0));
    anew.checkpoint();
    let both = [writer.published.clone(), anew.published.clone()].concat();
    let report = check(&both, &anew.records);
    assert!(report.has(Kind::Recreated) && report.findings.len() == 1, "{report}");
    let report = check_from(&anew.published, &anew.records, 0, &[writer.note()], None);
    assert!(report.has(Kind::Recreated), "{report}");
}

#[test]
fn a_truncated_tail_is_found_even_where_its_checkpoints_went_with_it() {
    let writer = written();
    assert!(check(&writer.published, &writer.records[..59]).has(Kind::Truncated));
    assert!(check(&writer.published, &[]).has(Kind::Truncated));
    let report = check_from(&writer.published[..5], &writer.records[..35], 0, &[writer.note()], None);
    assert!(report.has(Kind::Truncated), "{report}");
    // What nobody outside kept is the operator's word.
    assert!(check(&writer.published[..5], &writer.records[..35]).ok);
}

#[test]
fn a_producers_first_event_may_be_another_workflows() {
    let writer = written();
    let report = check_lines(&writer.bundle(0, |record| record.key == b"w1", Some("w1")));
    assert!(report.ok, "{report}");
}

#[test]
fn a_workflows_bundle_that_leaves_an_event_out_is_found() {
    let writer = written();
    let hides_one = |record: &Owned| record.key == b"w1" && !record.value.starts_with(b"{\"n\":31,");
    assert!(check_lines(&writer.bundle(1, hides_one, Some("w1"))).has(Kind::Removed));
    // One that ends before the checkpoint.
    let mut short = written();
    short.records.truncate(50);
    let lines: Vec<_> = short.bundle(1, |record| record.key == b"w1", Some("w1"));
    let report = check_lines(&lines);
    assert!(!report.ok, "{report}");
}

/// How a trail is spoiled.
#[derive(Clone, Copy, Debug)]
enum Spoil {
    Byte(usize),
    Time,
    Remove,
    Insert,
    Copy,
    Swap,
    Replay,
    Cut,
}

fn spoil(records: &mut Vec<Owned>, at: usize, how: Spoil) -> &'static [Kind] {
    let last = records.len() - 1;
    match how {
        Spoil::Byte(n) => {
            let record = &mut records[at];
            let header = record.headers[0].1.len();
            let lengths = [record.key.len(), header, record.value.len()];
            let n = n % lengths.iter().sum::<usize>();
            match n {
                n if n < lengths[0] => record.key[n] ^= 1,
                n if n < lengths[0] + header => record.headers[0].1[n - lengths[0]] ^= 1,
                n => record.value[n - lengths[0] - header] ^= 1,
            }
            &[Kind::Changed]
        }
        Spoil::Time => {
            records[at].timestamp_ms += 1;
            &[Kind::Changed]
        }
        Spoil::Remove if at < last => {
            records.remove(at);
            &[Kind::Removed]
        }
        Spoil::Remove | Spoil::Cut => {
            records.truncate(at);
            &[Kind::Truncated]
        }
        // An event of a producer that nobody knows, in an offset that was free.
        Spoil::Insert => {
            let at = records.windows(2).position(|pair| pair[1].offset > pair[0].offset + 1).expect("there are gaps");
            let mut extra = records[at].clone();
            extra.offset += 1;
            extra.value =
                json!({ "producer": { "id": "stranger", "epoch": 1, "sequence": 0 } }).to_string().into_bytes();
            records.insert(at + 1, extra);
            &[Kind::Inserted]
        }
        // The same in a trail that was copied: what follows has other offsets.
        Spoil::Copy => {
            let mut extra = records[at].clone();
            extra.value =
                json!({ "producer": { "id": "stranger", "epoch": 1, "sequence": 0 } }).to_string().into_bytes();
            records[at..].iter_mut().for_each(|record| record.offset += 1);
            records.insert(at, extra);
            &[Kind::Inserted, Kind::Changed]
        }
        Spoil::Swap => {
            let (one, other) = (at.min(last - 1), at.min(last - 1) + 1);
            let (first, second) = (records[one].offset, records[other].offset);
            records.swap(one, other);
            (records[one].offset, records[other].offset) = (first, second);
            &[Kind::Swapped, Kind::Changed]
        }
        Spoil::Replay => {
            let mut again = records[at].clone();
            again.offset = records[last].offset + 1;
            records.push(again);
            &[Kind::Replayed]
        }
    }
}

fn spoils() -> impl Strategy<Value = Spoil> {
    prop_oneof![
        4 => any::<usize>().prop_map(Spoil::Byte),
        1 => Just(Spoil::Time),
        1 => Just(Spoil::Remove),
        1 => Just(Spoil::Insert),
        1 => Just(Spoil::Copy),
        1 => Just(Spoil::Swap),
        1 => Just(Spoil::Replay),
        1 => Just(Spoil::Cut),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_way_to_spoil_a_trail_is_found(at in 0_usize..60, how in spoils(), from in prop::option::of(0_u64..20)) {
        let (published, good, _) = &*WRITTEN;
        let mut records = good.clone();
        let kinds = spoil(&mut records, at, how);
        prop_assert_ne!(&records, good);
        let report = check(published, &records);
        prop_assert!(kinds.iter().any(|kind| report.has(*kind)), "{:?} at {}: {}", how, at, report);
        // A part is proven by itself: what was spoiled in it is found too.
        let first = (0..60).find(|n| records.get(*n) != good.get(*n)).unwrap_or(59);
        let offset = |records: &[Owned]| records.get(first).map_or(u64::MAX, |record| record.offset);
        let from = from.unwrap_or_default().min(offset(&records)).min(offset(good));
        let report = check_from(published, &records, from, &[], None);
        prop_assert!(!report.ok, "{:?} at {} from {}: {}", how, at, from, report);
    }

    #[test]
    fn every_way_to_spoil_a_bundle_is_found(line in 0_usize..60, how in 0_usize..6, byte in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let good = &WRITTEN.2;
        let first = good.iter().position(|line| line.starts_with("{\"record\"")).expect("records");
        let (mut lines, at) = (good.clone(), first + line);
        match how {
            0 => { lines.remove(at); }
            1 => { let again = lines[at].clone(); lines.insert(at + 1, again); }
            2 if line < 59 => lines.swap(at, at + 1),
            3 => lines.truncate(at),
            4 => {
                // A bit of the record itself, whatever its spelling is.
                let mut value: Value = serde_json::from_str(&lines[at]).expect("a line");
                let text = value["record"]["value"].as_str().expect("a value");
                let mut bytes = STANDARD.decode(text).expect("base64");
                let n = byte.index(bytes.len());
                bytes[n] ^= 1 << bit;
                value["record"]["value"] = STANDARD.encode(bytes).into();
                lines[at] = value.to_string();
            }
            _ => lines[at] = lines[at].replace("\"timestamp_ms\":1", "\"timestamp_ms\":2"),
        }
        prop_assert_ne!(&lines, good);
        let report = check_lines(&lines);
        prop_assert!(!report.ok, "{} at {}", how, line);
    }

    /// Nothing that stands in a file makes it panic or believe.
    #[test]
    fn arbitrary_bundles_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..2_000), cut in any::<prop::sample::Index>(), junk in "\\PC{0,40}") {
        prop_assert!(!check_bundle(bytes.as_slice(), trust(), &[]).expect("it is read").ok);
        // A good one with something else in the middle.
        let mut good = (WRITTEN.2.join("\n") + "\n").into_bytes();
        let at = cut.index(good.len());
        good.splice(at..at, [bytes.as_slice(), junk.as_bytes()].concat());
        let _ = check_bundle(good.as_slice(), trust(), &[]).expect("it is read");
    }
}

#[test]
fn a_line_without_end_costs_bounded_memory_and_a_deep_one_no_stack() {
    let endless = std::io::Read::take(std::io::repeat(b'['), 64 << 20);
    let report = check_bundle(std::io::BufReader::new(endless), trust(), &[]).unwrap();
    assert!(report.has(Kind::Unproven));
    let deep = format!("{{\"bundle\":{{\"version\":1}}}}\n{{\"record\":{}\n", "[".repeat(100_000));
    assert!(!check_bundle(deep.as_bytes(), trust(), &[]).unwrap().ok);
}

#[test]
fn a_rotation_is_followed_from_a_trusted_key_only() {
    let old = SigningKey::from_bytes(&[7; 32]);
    let new = SigningKey::from_bytes(&[8; 32]);
    let vkey = |key: &SigningKey| {
        let public = key.verifying_key().to_bytes();
        let id = sha2_of(&[NAME.as_bytes(), b"\n\x01", &public].concat());
        let hex: String = id[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        (format!("{NAME}+{hex}+{}", STANDARD.encode([&[1], public.as_slice()].concat())), id)
    };
    let sign = |key: &SigningKey, text: &str| {
        let id = vkey(key).1;
        format!("\u{2014} {NAME} {}\n", STANDARD.encode([&id[..4], &key.sign(text.as_bytes()).to_bytes()].concat()))
    };
    let text = format!("cairn.evidence.rotation.v1\n{}\n{}\n1\n", vkey(&old).0, vkey(&new).0);
    let note = format!("{text}\n{}{}", sign(&old, &text), sign(&new, &text));
    let mut later = written();
    later.key = new.clone();
    later.checkpoint();
    let mut trusting = trust();
    assert!(trusting.checkpoint(&later.note()).is_err());
    trusting.follow(&note).unwrap();
    assert!(trusting.checkpoint(&later.note()).is_ok());
    assert!(Trust::default().follow(&note).is_err(), "nobody trusted the old one");
    for lacking in [sign(&old, &text), sign(&new, &text)] {
        assert!(trust().follow(&format!("{text}\n{lacking}")).is_err());
    }
}
