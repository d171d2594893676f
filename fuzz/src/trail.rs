//! A small trail, made by other people's libraries: records, checkpoints, proofs and bundles that verify as they are.
//!
//! The same bytes in each run: the key is fixed, and Ed25519 signs without luck. What the verifier is held against shares no code
//! with it but the hash of one record.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use cairn_verify::{Commitment, Hash, Key, Record, Trust, log_hash};
use ct_merkle::mem_backed_tree::MemoryBackedTree;
use ed25519_dalek::{Signer, SigningKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The topic of the records.
pub const TOPIC: &str = "mcp.calls";
/// How many records there are,
pub const RECORDS: usize = 21;
const ORIGIN: &str = "cairn/c/mcp.calls/t1/0";
/// and how many the checkpoint before the last one covers.
const BEFORE: usize = 13;
const NAME: &str = "example.com/audit";

type Tree = MemoryBackedTree<Sha256, Vec<u8>>;

/// A record as it lies in the topic.
#[derive(Clone, Debug)]
struct Own {
    offset: u64,
    timestamp_ms: i64,
    key: String,
    value: String,
}

const HEADERS: [(&str, &[u8]); 1] = [("ce_type", b"io.cairn.call.intent")];

impl Own {
    fn commitment(&self) -> Commitment {
        let (offset, timestamp_ms) = (self.offset, self.timestamp_ms);
        let (key, value) = (Some(self.key.as_bytes()), Some(self.value.as_bytes()));
        Commitment::of(&Record { offset, timestamp_ms, key, headers: &HEADERS, value }, &mut Vec::new())
    }

    fn entry(&self) -> Vec<u8> {
        let Commitment { offset, timestamp_ms, presence, key, link } = self.commitment();
        let (offset, time) = (offset.to_be_bytes(), timestamp_ms.to_be_bytes());
        [&log_hash(ORIGIN), offset.as_slice(), &time, &[presence], &key, &link].concat()
    }
}

/// What there is to spoil.
#[derive(Debug)]
pub struct Written {
    key: SigningKey,
    records: Vec<Own>,
}

impl Default for Written {
    fn default() -> Self {
        let (mut records, mut previous) = (Vec::<Own>::new(), None::<String>);
        for n in 0..RECORDS as u64 {
            let mut producer = json!({ "id": "gw", "epoch": 1, "sequence": n });
            if let Some(previous) = &previous {
                producer["previous"] = previous.as_str().into();
            }
            let record = Own {
                offset: n + n / 5,
                timestamp_ms: 1_795_521_600_000 + n as i64,
                key: format!("w{}", n % 2),
                value: json!({ "n": n, "producer": producer }).to_string(),
            };
            previous = Some(record.commitment().link.iter().map(|byte| format!("{byte:02x}")).collect());
            records.push(record);
        }
        Self { key: SigningKey::from_bytes(&[7; 32]), records }
    }
}

impl Written {
    fn key_id(&self) -> (Hash, Vec<u8>) {
        let public = self.key.verifying_key().to_bytes();
        let hash = Sha256::digest([NAME.as_bytes(), b"\n\x01", &public].concat());
        (hash.as_slice().try_into().expect("SHA-256 has 32 bytes"), [&[1], public.as_slice()].concat())
    }

    /// Whom to believe: the key that signed.
    #[must_use]
    pub fn trust(&self) -> Trust {
        let (id, public) = self.key_id();
        let id: String = id[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        let key = Key::parse(&format!("{NAME}+{id}+{}", STANDARD.encode(public))).expect("a key");
        Trust::new(vec![key], Vec::new(), 0)
    }

    fn tree(&self, from: usize, to: usize) -> Tree {
        let mut tree = Tree::new();
        self.records[from..to].iter().for_each(|record| tree.push(record.entry()));
        tree
    }

    fn signed(&self, text: &str) -> String {
        let signature = self.key.sign(text.as_bytes()).to_bytes();
        let signature = STANDARD.encode([&self.key_id().0[..4], &signature].concat());
        format!("{text}\n\u{2014} {NAME} {signature}\n")
    }

    fn note(&self, size: usize) -> String {
        let root = STANDARD.encode(self.tree(0, size).root().as_bytes());
        self.signed(&format!("{ORIGIN}\n{size}\n{root}\n"))
    }

    /// The proof of a record in the tlog-proof form.
    #[must_use]
    pub fn proof(&self, index: usize) -> String {
        let path = self.tree(0, RECORDS).prove_inclusion(index);
        let path: String = path.as_bytes().chunks(32).map(|hash| STANDARD.encode(hash) + "\n").collect();
        let entry = STANDARD.encode(self.records[index].entry());
        format!("c2sp.org/tlog-proof@v1\nextra {entry}\nindex {index}\n{path}\n{}", self.note(RECORDS))
    }

    fn checkpoint(&self, size: usize, before: usize) -> Value {
        // The peaks of a tree: the roots of its complete parts, from the left.
        let (mut peaks, mut begin) = (Vec::new(), 0);
        while begin < size {
            let length = 1 << (size - begin).ilog2();
            peaks.push(STANDARD.encode(self.tree(begin, begin + length).root().as_bytes()));
            begin += length;
        }
        let tree = self.tree(0, size);
        let mut event = json!({
            "note": self.note(size), "topic": TOPIC, "topic_id": "t1", "partition": 0, "size": size,
            "root": STANDARD.encode(tree.root().as_bytes()), "offset_next": self.records[size - 1].offset + 1,
            "frontier": peaks, "consistency": [],
        });
        if before > 0 {
            let path = tree.prove_consistency(size - before);
            let path: Vec<_> = path.as_bytes().chunks(32).map(|hash| STANDARD.encode(hash)).collect();
            event["previous_size"] = before.into();
            event["consistency"] = path.into();
        }
        event
    }

    /// A bundle of the records from one on: of a workflow where one is named, whose records alone are shown then.
    #[must_use]
    pub fn bundle(&self, first: usize, workflow: Option<&str>) -> Vec<String> {
        let head = match workflow {
            Some(workflow) => json!({ "version": 1, "workflow": workflow }),
            None => json!({ "version": 1, "what": "a range" }),
        };
        let vouched = self.signed("cairn.evidence.producer.v1\ngw\n0\n9\n1795521600\n");
        let mut lines = vec![
            json!({ "bundle": head }),
            json!({ "producer": vouched }),
            json!({ "checkpoint": self.checkpoint(BEFORE, 0) }),
            json!({ "checkpoint": self.checkpoint(RECORDS, BEFORE) }),
            json!({ "segment": { "topic": TOPIC, "partition": 0, "first": first, "count": RECORDS - first,
                "proofs": [self.proof(first), self.proof(RECORDS - 1)] } }),
        ];
        for record in &self.records[first..] {
            let Own { offset, timestamp_ms, key, value } = record;
            if workflow.is_none_or(|workflow| workflow == key) {
                let headers: Vec<_> =
                    HEADERS.iter().map(|(name, value)| json!([name, STANDARD.encode(value)])).collect();
                lines.push(json!({ "record": { "offset": offset, "timestamp_ms": timestamp_ms, "headers": headers,
                    "key": STANDARD.encode(key), "value": STANDARD.encode(value) } }));
            } else {
                let Commitment { key, link, presence, .. } = record.commitment();
                lines.push(json!({ "hidden": { "offset": offset, "timestamp_ms": timestamp_ms, "presence": presence,
                    "key_sha256": STANDARD.encode(key), "link": STANDARD.encode(link) } }));
            }
        }
        lines.push(json!({ "end": { "records": RECORDS - first } }));
        lines.iter().map(ToString::to_string).collect()
    }
}
