//! What an operator does with a log and its store: checks them.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::Value;

use crate::{
    store::{Acknowledged, HASTY, PARTITIONS, configured, read, some_load, start},
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
    assert!(line.contains(name) && line.contains("(kept-") && line.contains("restore it from a copy"), "{line}");
    assert!(words.contains("not as it was written"), "{words}");
}
