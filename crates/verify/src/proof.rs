//! One record's proof, in the tlog-proof form, checked without any network.
//!
//! The entry of the leaf stands in the line `extra`, so that the file says by itself what is proven: where a record lies, when it was
//! taken, and the hashes of its key and content. It may come from anybody: nothing in it makes this code panic.

use crate::{
    checkpoint::Trail,
    finding::{Covered, Finding, Kind, Report},
    merkle::inclusion,
    note::{Proof, Trust},
    record::{Commitment, log_hash},
};

/// Checks a proof. `kept` are checkpoints that came by another way; one of the same size must have the same root.
pub(crate) fn check_proof(text: &str, trust: Trust, kept: &[String]) -> Report {
    let mut trail = Trail::new(trust);
    kept.iter().for_each(|note| trail.keep(note));
    let Some(proof) = Proof::parse(text) else {
        trail.report.general(Kind::Unproven, "this is no proof in the tlog-proof form");
        return trail.finish("a proof", []);
    };
    let signed = match trail.trust().checkpoint(&proof.checkpoint) {
        Ok(signed) => signed,
        Err(text) => {
            trail.report.general(Kind::Untrusted, text);
            return trail.finish("a proof", []);
        }
    };
    let Some((topic, _, partition)) = signed.place() else {
        trail.report.general(Kind::Unproven, "the proof's checkpoint is of no log of Cairn's");
        return trail.finish("a proof", []);
    };
    let topic = topic.to_owned();
    trail.report.checkpoints += 1;
    let log = log_hash(&signed.origin);
    let entry = proof.extra.as_deref().and_then(|entry| Commitment::of_entry(entry, &log));
    let Some(commitment) = entry else {
        trail.report.general(
            Kind::Unproven,
            "the proof does not say which record it is of: its line `extra` holds no entry of the log that signed",
        );
        return trail.finish("a proof", []);
    };
    let is_proven = inclusion(&commitment.leaf(&log), proof.index, signed.size, &proof.path, &signed.root).is_some();
    let offset = commitment.offset;
    let plan = trail.plan(&topic, partition, None);
    let place = |kind, text: String| Finding {
        kind,
        topic: Some(topic.clone()),
        partition: Some(partition),
        offset: Some(offset),
        text,
    };
    if !is_proven {
        trail.report.add(place(Kind::Changed, "no such record is in the tree that was signed".to_owned()));
    }
    if plan.kept.iter().any(|kept| kept.size == signed.size && kept.root != signed.root) {
        let text = "a checkpoint that you keep has another root than this proof's, and both are signed".to_owned();
        trail.report.add(place(Kind::Forked, text));
    }
    let proven = u64::from(is_proven);
    let report = Report {
        partitions: vec![Covered {
            topic: topic.clone(),
            partition,
            hidden: 1,
            proven,
            from: Some(offset),
            to: Some(offset),
            proven_to: Some(offset).filter(|_| is_proven),
            witnessed_to: Some(offset).filter(|_| is_proven && signed.is_witnessed),
            ..Covered::default()
        }],
        ..Report::default()
    };
    let hex = |hash: &[u8; 32]| hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (key, link) = (hex(&commitment.key), hex(&commitment.link));
    trail.finish(
        format!(
            "record {topic}/{partition} offset {offset}, {} ms since 1970, SHA-256 of its key {key}, its link {link}",
            commitment.timestamp_ms
        ),
        [report],
    )
}
