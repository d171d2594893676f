//! What an operator does with a log and its store: checks them, goes on after a machine is lost, salvages what was on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde_json::Value;

use crate::{
    store::{
        Acknowledged, HASTY, PARTITIONS, configured, first_aside, first_records, read, records_until, some_load, start,
        start_with,
    },
    support::{cairn, files, run, text, wait_for},
    up::{metrics, value},
};

fn broker(what: &str, data: &Path, config: &Path, more: &[&str]) -> (i32, String, String) {
    let output = run(cairn().args(["broker", what, "--data"]).arg(data).arg("--config").arg(config).args(more));
    (output.status.code().expect("it ended by itself"), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_check_finds_nothing_in_a_whole_log_beside_its_broker_too_and_names_what_is_damaged() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, config) = (folder.path().join("data"), configured(folder.path(), HASTY));
    let (code, _, words) = broker("check", &data, &config, &[]);
    assert!(code != 0 && !data.exists(), "{code}: {words}");
    let up = start("broker", &data, &config);
    crate::support::create_topic(&up.kafka, "kept", PARTITIONS, &[]);
    let acknowledged = Acknowledged::default();
    for _ in 0..5 {
        // While objects come, are put together and go.
        some_load(&up.kafka, &acknowledged, 300);
        let (code, said, words) = broker("check", &data, &config, &[]);
        assert!(code == 0 && said.contains("all of it is whole"), "{said}{words}");
        assert!(said.contains("a process uses the folder"), "{said}");
    }
    wait_for("the uploads", || (value(&metrics(&up.admin), "cairn_log_wal_depth_bytes") == 0.0).then_some(()));
    let records = read(&up.kafka, "kept", &BTreeMap::new()).len();
    up.end();
    let (code, said, words) = broker("check", &data, &config, &["--json"]);
    let report: Value = serde_json::from_str(&said).expect("JSON");
    assert!(code == 0 && report["ok"] == true && report["files_checked"] == true, "{said}{words}");
    assert!(report["records"].as_u64().is_some_and(|all| all as usize > records), "{said}");

    let objects = files(&data.join("objects/data"));
    let path = objects.iter().max_by_key(|path| fs::metadata(path).expect("there").len()).expect("an object");
    let mut bytes = fs::read(path).expect("an object");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).expect("written");
    let name = path.strip_prefix(data.join("objects")).expect("below").to_str().expect("text");
    let (code, said, words) = broker("check", &data, &config, &[]);
    assert_eq!(code, 5, "{said}{words}");
    let line = said.lines().find(|line| line.starts_with("DAMAGE")).expect("a finding");
    // An object holds what came of both topics meanwhile.
    let is_placed = line.contains("(kept-") || line.contains("(passing-");
    assert!(line.contains(name) && is_placed && line.contains("restore it from a copy"), "{line}");
    assert!(words.contains("not as it was written"), "{words}");
}

/// Offsets that a recovery passes over.
const SKIPPED: i64 = 1 << 32;

#[test]
fn a_machine_that_is_lost_is_gone_on_without_when_asked_and_what_was_on_it_is_salvaged() {
    let folder = tempfile::tempdir().expect("a folder");
    let objects = folder.path().join("objects");
    let hasty = folder.path().join("hasty.toml");
    fs::write(&hasty, format!("[store]\npath = {objects:?}\n{HASTY}")).expect("written");
    let slow = configured(folder.path(), &format!("path = {objects:?}\nupload_interval_ms = 3600000\n"));
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    // It hears of an offset that is given twice, over all that follows.
    let acknowledged = Acknowledged::default();
    let up = start("broker", &one, &hasty);
    crate::support::create_topic(&up.kafka, "kept", PARTITIONS, &[]);
    some_load(&up.kafka, &acknowledged, 300);
    up.end();
    let mut up = start("broker", &one, &slow);
    let uploaded = read(&up.kafka, "kept", &BTreeMap::new());
    some_load(&up.kafka, &acknowledged, 200);
    up.process.signal("-KILL");
    up.process.wait();
    let known = acknowledged.0.lock().expect("whole").clone();
    let lost: BTreeMap<_, _> =
        known.into_iter().filter(|(place, _)| place.0 == "kept" && !uploaded.contains_key(place)).collect();
    assert!(lost.len() >= 50, "{}", lost.len());

    let refused =
        run(cairn().args(["broker", "--kafka", "127.0.0.1:0", "--data"]).arg(&two).arg("--config").arg(&hasty));
    let words = text(&refused.stderr);
    assert!(!refused.status.success() && words.contains("start once with --recover"), "{words}");
    let up = start_with("broker", &two, &hasty, &["--recover"]);
    let words = up.errors();
    assert!(words.contains("recovered: the write-ahead log of epoch 2 is lost"), "{words}");
    assert!(words.contains("kept-0: offsets 0 to ") && words.contains("groups, topics that were made"), "{words}");
    let report = fs::read(two.join("recovered-3.json")).expect("a report");
    let report: Value = serde_json::from_slice(&report).expect("JSON");
    let kept: Vec<&Value> =
        report["partitions"].as_array().expect("a list").iter().filter(|one| one["topic"] == "kept").collect();
    assert_eq!(kept.len(), PARTITIONS as usize, "{report}");
    assert!(report["last_upload"].is_string());
    for one in kept {
        let in_it = uploaded.keys().filter(|place| one["partition"] == place.1).count() as i64;
        assert_eq!((&one["stored_to"], &one["goes_on_at"]), (&in_it.into(), &(in_it + SKIPPED).into()), "{one}");
    }
    some_load(&up.kafka, &acknowledged, 100);
    let now = first_records(&up.kafka, "kept", uploaded.len() + 30);
    let of_two = |place: &(String, i32, i64)| !uploaded.contains_key(place);
    assert!(now.keys().filter(|place| of_two(place)).all(|place| place.2 >= SKIPPED), "they begin past the gap");

    // The machine comes back.
    let back = run(cairn().args(["broker", "--kafka", "127.0.0.1:0", "--data"]).arg(&one).arg("--config").arg(&hasty));
    let words = text(&back.stderr);
    assert!(
        !back.status.success() && words.contains("set aside in") && words.contains("cairn broker salvage"),
        "{words}"
    );
    assert!(first_aside(&one).is_some());
    let (code, said, words) = broker("salvage", &one, &hasty, &[]);
    assert!(code == 0 && said.contains("that the store lacks; epoch 3 went on without them"), "{said}{words}");
    assert!(said.contains("  kept-0: ") && said.contains(" records, offsets "), "{said}");
    let (code, said, words) = broker("salvage", &one, &hasty, &["--json", "--topic", "kept"]);
    assert_eq!(code, 0, "{words}");
    let mut found = BTreeMap::new();
    for line in said.lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let number = |name: &str| line[name].as_i64().expect("a number");
        let place = (line["topic"].as_str().expect("a name").to_owned(), number("partition") as i32, number("offset"));
        let value =
            line["value"].as_str().and_then(|value| value.split(' ').next()).and_then(|value| value.parse().ok());
        found.insert(place, value.expect("a number"));
    }
    for (place, number) in &lost {
        assert_eq!(found.get(place), Some(number), "{place:?} was acknowledged");
    }
    assert!(found.keys().all(|place| !uploaded.contains_key(place)), "only what the store lacks");

    let (code, said, words) = broker("salvage", &one, &hasty, &["--topic", "kept", "--to", &up.kafka]);
    assert!(code == 0 && words.contains("records were sent again"), "{said}{words}");
    // All of it is there again, or this waits in vain.
    records_until(&up.kafka, "kept", |read| {
        let numbers: BTreeSet<_> = read.values().collect();
        lost.values().all(|number| numbers.contains(number))
    });
    let (code, _, words) = broker("salvage", &one, &hasty, &["--to", &up.kafka]);
    assert!(code == 1 && words.contains("--again"), "{words}");
    up.end();
    let (code, said, words) = broker("check", &two, &hasty, &[]);
    assert!(code == 0, "what was passed over is no gap: {said}{words}");
    let (code, _, words) = broker("salvage", &two, &hasty, &[]);
    assert!(code == 3 && words.contains("was set aside"), "{words}");
}
