//! Proofs and bundles: whatever is done to one, the verifier does not panic, and what it still calls verified is what was
//! written.
//!
//! The first byte says what is spoiled, the rest how: steps of five bytes. Or the rest is a file of its own.
#![no_main]

use std::{collections::BTreeSet, sync::LazyLock};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use cairn_fuzz::trail::{RECORDS, Written};
use cairn_verify::{Note, Proof, Report, check_file};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const STEPS_MAX: usize = 24;

/// A record as a bundle shows it.
type Shown = (u64, i64, Option<Vec<u8>>, Vec<(String, Vec<u8>)>, Option<Vec<u8>>);

struct Good {
    written: Written,
    /// What a proof says that it proves, by record.
    proofs: Vec<(String, String)>,
    bundles: Vec<Vec<String>>,
    shown: BTreeSet<Shown>,
}

static GOOD: LazyLock<Good> = LazyLock::new(|| {
    let written = Written::default();
    let proofs = (0..RECORDS).map(|index| written.proof(index));
    let proofs: Vec<_> = proofs.map(|proof| (said(&checked(&written, proof.as_bytes())), proof)).collect();
    let bundles = vec![written.bundle(0, None), written.bundle(9, None), written.bundle(0, Some("w1"))];
    for bundle in &bundles {
        let report = checked(&written, (bundle.join("\n") + "\n").as_bytes());
        assert!(report.ok && report.records > 0, "{report}");
    }
    let shown = bundles.iter().flatten().filter_map(|line| shown(line)).collect();
    Good { written, proofs, bundles, shown }
});

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    let good = &*GOOD;
    match kind % 4 {
        0 => {
            let (_, proof) = &good.proofs[usize::from(kind / 4) % good.proofs.len()];
            let mut bytes = proof.clone().into_bytes();
            rest.chunks_exact(5).take(STEPS_MAX).for_each(|step| spoil(&mut bytes, step));
            held(&bytes);
        }
        1 => {
            let mut lines = good.bundles[usize::from(kind / 4) % good.bundles.len()].clone();
            rest.chunks_exact(5).take(STEPS_MAX).for_each(|step| rearranged(&mut lines, step));
            held((lines.join("\n") + "\n").as_bytes());
        }
        2 => {
            let bundle = &good.bundles[usize::from(kind / 4) % good.bundles.len()];
            let mut bytes = (bundle.join("\n") + "\n").into_bytes();
            rest.chunks_exact(5).take(STEPS_MAX).for_each(|step| spoil(&mut bytes, step));
            held(&bytes);
        }
        _ => {
            held(rest);
            let text = String::from_utf8_lossy(rest);
            let _ = (Note::parse(&text), Proof::parse(&text));
            held(&[b"{\"bundle\":{\"version\":1}}\n", rest].concat());
        }
    }
});

fn checked(written: &Written, file: &[u8]) -> Report {
    check_file(file, written.trust(), &[]).expect("memory can be read")
}

fn said(report: &Report) -> String {
    assert!(report.ok, "{report}");
    report.what.clone().unwrap_or_default()
}

/// What is called verified is what was written.
fn held(file: &[u8]) {
    let good = &*GOOD;
    let report = checked(&good.written, file);
    let _ = report.to_string();
    if !report.ok || report.partitions.is_empty() {
        return;
    }
    if file.starts_with(b"c2sp.org") {
        let what = report.what.clone().unwrap_or_default();
        assert!(good.proofs.iter().any(|(proves, _)| *proves == what), "{what} is called proven");
        return;
    }
    let text = String::from_utf8_lossy(file);
    let records: Vec<_> = text.lines().filter_map(shown).collect();
    assert_eq!(records.len() as u64, report.records, "every record that was counted is shown");
    for record in records {
        assert!(good.shown.contains(&record), "{record:?} is called verified");
    }
    let proven: u64 = report.partitions.iter().map(|covered| covered.proven).sum();
    assert!(proven >= report.records, "what is shown is proven");
}

fn shown(line: &str) -> Option<Shown> {
    let line: Value = serde_json::from_str(line).ok()?;
    let record = line.get("record")?;
    let bytes = |value: &Value| value.as_str().and_then(|text| STANDARD.decode(text).ok());
    let headers = record.get("headers").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let header = |pair: &Value| Some((pair.get(0)?.as_str()?.to_owned(), bytes(pair.get(1)?)?));
    Some((
        record.get("offset")?.as_u64()?,
        record.get("timestamp_ms")?.as_i64()?,
        record.get("key").and_then(bytes),
        headers.iter().filter_map(header).collect(),
        record.get("value").and_then(bytes),
    ))
}

/// One step on bytes: what, where (two bytes), and with what.
fn spoil(bytes: &mut Vec<u8>, step: &[u8]) {
    let [what, high, low, one, other] = *step else { return };
    let at = usize::from(u16::from_be_bytes([high, low])) % (bytes.len() + 1);
    match what % 6 {
        0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= one.max(1)),
        1 => bytes.insert(at, one),
        2 => drop(bytes.drain(at..(at + 1 + usize::from(one)).min(bytes.len()))),
        3 => bytes.truncate(at),
        4 => {
            let end = (at + usize::from(one)).min(bytes.len());
            let copy = bytes[at..end].to_vec();
            let to = usize::from(other) * bytes.len() / 256;
            bytes.splice(to..to, copy);
        }
        _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = one),
    }
}

/// One step on lines: removed, doubled, swapped, taken from another bundle, or a part of JSON replaced.
fn rearranged(lines: &mut Vec<String>, step: &[u8]) {
    let [what, high, low, one, other] = *step else { return };
    if lines.is_empty() {
        return;
    }
    let (at, to) = (usize::from(high) % lines.len(), usize::from(low) % lines.len());
    match what % 5 {
        0 => drop(lines.remove(at)),
        1 => lines.insert(to, lines[at].clone()),
        2 => lines.swap(at, to),
        3 => {
            let from = &GOOD.bundles[usize::from(one) % GOOD.bundles.len()];
            lines[at].clone_from(&from[usize::from(other) % from.len()]);
        }
        _ => {
            let Ok(mut line) = serde_json::from_str::<Value>(&lines[at]) else { return };
            let Ok(donor) = serde_json::from_str::<Value>(&lines[to]) else { return };
            let leaf = |value: &Value| leaves(value, String::new());
            let (own, others) = (leaf(&line), leaf(&donor));
            let (Some(place), Some(source)) = (pick(&own, one), pick(&others, other)) else { return };
            if let (Some(value), Some(slot)) = (donor.pointer(source).cloned(), line.pointer_mut(place)) {
                *slot = value;
                lines[at] = line.to_string();
            }
        }
    }
}

fn pick(places: &[String], at: u8) -> Option<&str> {
    places.get(usize::from(at) % places.len().max(1)).map(String::as_str)
}

/// Pointers to everything in a value.
fn leaves(value: &Value, at: String) -> Vec<String> {
    let inside: Vec<_> = match value {
        Value::Object(members) => {
            members.iter().flat_map(|(name, value)| leaves(value, format!("{at}/{name}"))).collect()
        }
        Value::Array(items) => {
            items.iter().enumerate().flat_map(|(n, value)| leaves(value, format!("{at}/{n}"))).collect()
        }
        _ => Vec::new(),
    };
    [vec![at], inside].concat()
}
