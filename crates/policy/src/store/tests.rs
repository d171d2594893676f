//! What is denied stays denied, and a bad set changes nothing.

use std::fs;

use cairn_contract::{Direction, Target};

use super::*;

fn question(tool: &str) -> Question {
    Question {
        principal: "ada".to_owned(),
        action: "tools/call".to_owned(),
        direction: Direction::ToServer,
        server: "orders".to_owned(),
        target: Target::tool(tool),
        arguments: None,
        context: serde_json::Map::new(),
    }
}

fn store(text: &str) -> (tempfile::TempDir, PolicyStore) {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("a.cedar"), text).expect("written");
    let store = PolicyStore::open(Some(folder.path().to_owned())).expect("it compiles");
    (folder, store)
}

#[test]
fn without_files_everything_is_permitted_and_says_so() {
    let store = PolicyStore::open(None).expect("no files");
    let verdict = store.decide(&question("refund_order"));
    assert!(verdict.is_permit());
    assert_eq!(verdict.policy_version, "observe");
}

#[test]
fn with_files_what_no_policy_permits_is_denied() {
    let (_folder, store) = store(r#"permit(principal, action, resource == Tool::"orders/get_order");"#);
    assert!(store.decide(&question("get_order")).is_permit());
    assert!(!store.decide(&question("delete_order")).is_permit());
}

#[test]
fn a_forbid_wins_and_is_named() {
    let (_folder, store) = store(
        "permit(principal, action, resource);\n@id(\"never\")\nforbid(principal, action, resource == Tool::\"orders/delete_order\");",
    );
    let verdict = store.decide(&question("delete_order"));
    assert!(!verdict.is_permit());
    assert_eq!(verdict.determining, ["never"]);
    assert!(store.decide(&question("get_order")).is_permit());
}

#[test]
fn an_approval_is_demanded_by_annotation() {
    let (_folder, store) = store("@obligation(\"approval\")\npermit(principal == User::\"ada\", action, resource);");
    let verdict = store.decide(&question("get_order"));
    assert!(verdict.is_permit());
    assert!(matches!(verdict.obligations.as_slice(), [crate::Obligation::Approval { .. }]));
}

#[test]
fn a_set_that_does_not_compile_changes_nothing() {
    let (folder, store) = store("forbid(principal, action, resource);");
    let version = store.current_version();
    fs::write(folder.path().join("a.cedar"), "permit(principal, action, resource").expect("written");
    assert!(store.changed());
    assert!(store.reload("test").is_err());
    assert_eq!(store.current_version(), version);
    assert!(!store.decide(&question("get_order")).is_permit());
}
