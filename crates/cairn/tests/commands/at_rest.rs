//! A log whose files are encrypted: nothing of an event lies in them in the clear, a start without the key says which one it
//! wants, and with it everything is there.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::json;

use crate::{
    bounds::configured,
    support::{Agent, Up, cairn, events, files, run, text},
};

/// A workflow's id: the key of its events, and a member of each.
const CANARY: &str = "canary-workflow-7f3a91";

fn in_the_clear(folder: &Path) -> Vec<std::path::PathBuf> {
    let has = |path: &std::path::PathBuf| {
        let bytes = fs::read(path).expect("readable");
        bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes())
    };
    files(folder).into_iter().filter(has).collect()
}

fn contents(folder: &Path) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
    files(folder).into_iter().map(|path| (path.clone(), fs::read(path).expect("readable"))).collect()
}

#[test]
fn a_log_that_is_encrypted_shows_nothing_on_the_disk_and_opens_with_its_key_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let (here, data) = (folder.path(), folder.path().join("data"));
    let calls = |up: &Up| {
        let agent = Agent::connect_in(CANARY, &up.gateway, "orders");
        assert!(agent.call("get_order", &json!({ "order_id": "order-1" })).get("result").is_some());
    };
    let start = |section: &str| {
        let config = configured(here, "", section);
        Up::start(&data, &["--config", &config.display().to_string()])
    };
    let (one, two) = ("11".repeat(32), "22".repeat(32));
    let up = start(&format!("[encryption]\nkey = \"{one}\"\n"));
    calls(&up);
    let (log, objects) = (data.join("log"), data.join("objects"));
    assert_eq!(in_the_clear(&log), [] as [&Path; 0]);
    // A clean end uploads everything.
    up.end();
    assert_eq!((in_the_clear(&log), in_the_clear(&objects)), (vec![], vec![]));
    assert!(files(&objects.join("data")).len() == 1, "nothing was uploaded, so this tests nothing");

    let before = (contents(&log), contents(&objects));
    for section in ["", &format!("[encryption]\nkey = \"{two}\"\n")] {
        let config = configured(here, "", section);
        let output = run(cairn()
            .args(["up", "--kafka", "127.0.0.1:0", "--gateway", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--config"])
            .arg(&config)
            .arg("--data")
            .arg(&data));
        let says = text(&output.stderr);
        assert!(!output.status.success(), "{says}");
        assert!(says.contains("key environment:") && says.contains("nothing was changed"), "{says}");
        assert!(!says.contains(&one) && !says.contains(&two));
        assert!((contents(&log), contents(&objects)) == before, "it was changed");
    }

    let up = start(&format!("[encryption]\nkey = \"{two}\"\nold_keys = [\"{one}\"]\n"));
    let of = |event: &serde_json::Value| event["data"]["workflow_id"] == CANARY;
    let seen = events(&data).iter().filter(|event| of(event)).count();
    assert!(seen >= 3, "decision, intent, outcome: {seen}");
    calls(&up);
    assert!(events(&data).iter().filter(|event| of(event)).count() > seen);
    up.end();
    assert_eq!((in_the_clear(&log), in_the_clear(&objects)), (vec![], vec![]));

    // Off again: what was encrypted is read, and this search would find what lies in the clear.
    let up = start(&format!("[encryption]\nenabled = false\nkey = \"{two}\"\nold_keys = [\"{one}\"]\n"));
    calls(&up);
    assert!(!in_the_clear(&log).is_empty());
    up.end();
}
