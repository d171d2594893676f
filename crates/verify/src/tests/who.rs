//! Who signs and who writes: producers that are vouched for, several signers, proofs of single records.

use super::*;

/// What vouches for a producer.
fn vouching(key: &SigningKey, id: &str, first: u64, last: u64) -> String {
    let text = format!("cairn.evidence.producer.v1\n{id}\n{first}\n{last}\n1795521600\n");
    let public = key.verifying_key().to_bytes();
    let id = &sha2_of(&[NAME.as_bytes(), b"\n\x01", &public].concat())[..4];
    let signature = STANDARD.encode([id, &key.sign(text.as_bytes()).to_bytes()].concat());
    format!("{text}\n\u{2014} {NAME} {signature}\n")
}

fn check_vouched(writer: &Writer, notes: &[String]) -> Report {
    let mut trail = Trail::new(trust());
    notes.iter().for_each(|note| trail.producer(note));
    for event in &writer.published {
        trail.published(&serde_json::from_value(event.clone()).expect("a checkpoint"));
    }
    let mut checker = trail.plan(TOPIC, 3, None).checker(0, 0);
    for record in &writer.records {
        record.with(|record| checker.record(record));
    }
    let end = writer.records.last().map_or(0, |record| record.offset + 1);
    trail.finish("a trail", [checker.finish(end, false)])
}

#[test]
fn an_event_of_a_producer_that_nobody_vouches_for_is_foreign() {
    let writer = written();
    let own = || SigningKey::from_bytes(&[7; 32]);
    let both = [vouching(&own(), "gw-0", 1, 1), vouching(&own(), "gw-1", 1, 4)];
    assert!(check_vouched(&writer, &both).ok);
    assert!(check_vouched(&writer, &[]).ok, "before anybody was vouched for nothing is said");
    // Where it was signed all the same, its first event is named.
    let report = check_vouched(&writer, &both[1..]);
    let named: Vec<_> = report.findings.iter().map(|finding| (finding.kind, finding.offset)).collect();
    assert_eq!(named, [(Kind::Foreign, Some(1))], "{report}");
    // Evidence may have begun in a later epoch; one behind the last is nobody's.
    let later = [vouching(&own(), "gw-0", 2, 3), vouching(&own(), "gw-1", 1, 1)];
    assert!(check_vouched(&writer, &later).ok);
    let earlier = [vouching(&own(), "gw-0", 0, 0), vouching(&own(), "gw-1", 1, 1)];
    assert!(check_vouched(&writer, &earlier).has(Kind::Foreign));
    // Only the word of a trusted key counts.
    let stranger = SigningKey::from_bytes(&[9; 32]);
    let report = check_vouched(&writer, &[both[1].clone(), vouching(&stranger, "gw-0", 1, 1)]);
    assert!(report.has(Kind::Untrusted) && report.has(Kind::Foreign), "{report}");
}

#[test]
fn a_bundle_says_whose_events_it_holds() {
    let writer = written();
    let key = SigningKey::from_bytes(&[7; 32]);
    let with = |notes: &[String]| {
        let mut lines = writer.bundle(0, |_| true, None);
        lines.splice(1..1, notes.iter().map(|note| json!({ "producer": note }).to_string()));
        check_lines(&lines)
    };
    let both = [vouching(&key, "gw-0", 1, 1), vouching(&key, "gw-1", 1, 1)];
    assert!(with(&both).ok);
    assert!(with(&both[..1]).has(Kind::Foreign));
}

/// Two keys sign the trees of one trail, each at sizes of its own.
#[test]
fn two_signers_of_one_trail_agree_or_are_found() {
    let other_key = SigningKey::from_bytes(&[8; 32]);
    let vkey = {
        let public = other_key.verifying_key().to_bytes();
        let id = sha2_of(&[NAME.as_bytes(), b"\n\x01", &public].concat());
        let hex: String = id[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        Key::parse(&format!("{NAME}+{hex}+{}", STANDARD.encode([&[1], public.as_slice()].concat()))).expect("a key")
    };
    let signed_by_the_other = |every: u64, odd: u64| {
        let mut writer = Writer::new("t1");
        writer.key = other_key.clone();
        for n in 0..60 {
            writer.event(usize::from(n % 4 == odd), 0);
            if n % every == every - 1 {
                writer.checkpoint();
            }
        }
        writer.published
    };
    let writer = written();
    let check_both = |other: &[Value]| {
        let mut trail = Trail::new(Trust::new(vec![key(), vkey.clone()], vec![], 0));
        // In turns, as two collectors publish.
        let turns = writer.published.iter().zip(other).flat_map(|(one, other)| [one, other]);
        for event in turns.chain(&writer.published[other.len().min(writer.published.len())..]) {
            trail.published(&serde_json::from_value(event.clone()).expect("a checkpoint"));
        }
        let mut checker = trail.plan(TOPIC, 3, None).checker(0, 0);
        writer.records.iter().for_each(|record| record.with(|record| checker.record(record)));
        let end = writer.records.last().expect("records").offset + 1;
        trail.finish("a trail", [checker.finish(end, false)])
    };
    for every in [5, 7, 10, 30] {
        let report = check_both(&signed_by_the_other(every, 0));
        assert!(report.ok && report.partitions[0].proven == 60, "{every}: {report}");
    }
    // Trees of other records: at the size of another checkpoint, and between them.
    assert!(check_both(&signed_by_the_other(7, 1)).has(Kind::Forked));
    assert!(!check_both(&signed_by_the_other(10, 1)).ok);
    // And of one signer a smaller tree behind a larger one stays a fork: an old copy of its folder went on.
    let mut old = Writer::new("t1");
    (0..10).for_each(|n| old.event(usize::from(n % 4 == 0), 0));
    old.checkpoint();
    let both = [writer.published[..3].to_vec(), old.published].concat();
    assert!(check(&both, &writer.records).has(Kind::Forked));
}

#[test]
fn a_proof_says_which_record_it_proves_and_every_changed_byte_is_found() {
    let writer = written();
    let proof = |index: usize| {
        let extra = format!("@v1\nextra {}\n", STANDARD.encode(writer.records[index].leaf(&writer.origin)));
        writer.proof(index).replacen("@v1\n", &extra, 1)
    };
    let check = |text: &[u8], trust: Trust, kept: &[String]| check_file(text, trust, kept).expect("it is read");
    for index in [0, 31, 59] {
        let report = check(proof(index).as_bytes(), trust(), &[writer.note()]);
        let covered = &report.partitions[0];
        assert!(report.ok && covered.proven == 1, "{report}");
        assert_eq!((covered.topic.as_str(), covered.from), (TOPIC, Some(writer.records[index].offset)));
    }
    assert!(check(proof(3).as_bytes(), Trust::default(), &[]).has(Kind::Untrusted));
    assert!(check(writer.proof(3).as_bytes(), trust(), &[]).has(Kind::Unproven), "it says of no record");
    let mut other = Writer::new("t1");
    (0..60).for_each(|_| other.event(0, 0));
    assert!(check(proof(3).as_bytes(), trust(), &[other.note()]).has(Kind::Forked));
    let (good, trusting) = (proof(31).into_bytes(), trust());
    for at in 0..good.len() {
        for bit in [0, 1, 5] {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            let report = check(&bytes, trusting.clone(), &[]);
            assert!(!report.ok, "byte {at}, bit {bit}: {}", String::from_utf8_lossy(&bytes));
        }
    }
}

#[test]
fn what_is_not_shown_is_said() {
    let writer = written();
    let said = check(&writer.published, &writer.records).to_string();
    assert!(said.contains("evidence begins at capture") && said.contains("the operator's word"), "{said}");
    let said = check_from(&writer.published, &writer.records, 0, &[writer.note()], None).to_string();
    assert!(said.contains("behind the checkpoints that you kept it is the operator's word"), "{said}");
    let said = check(&writer.published[..5], &writer.records).to_string();
    assert!(said.contains("25 of the records lie behind the last signed checkpoint"), "{said}");
}
