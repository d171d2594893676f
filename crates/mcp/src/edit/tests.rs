//! Tests of the module beside it.
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::testing::message;

fn edited(text: &str, edit: impl FnOnce(Editor<'_>) -> Editor<'_>) -> String {
    let message = message(text);
    let done = edit(message.edit()).finish(&Limits::default()).expect("valid");
    String::from_utf8(done.bytes().to_vec()).expect("text")
}

#[test]
fn only_what_is_named_changes() {
    let text = r#"{ "id" : 1.0, "jsonrpc":"2.0","method":"a" , "params": {"x" : 1.50 ,"y":2, "_meta":{ "k":1 }} }"#;
    assert_eq!(edited(text, |edit| edit), text);
    assert_eq!(edited(text, |edit| edit.set_id(&RawId::integer(9))), text.replacen("1.0", "9", 1));
    assert_eq!(edited(text, |edit| edit.set_meta("k", "[2]")), text.replace("\"k\":1", "\"k\":[2]"));
    assert_eq!(edited(text, |edit| edit.set_meta_str("l", "\"")), text.replace("\"k\":1", r#""k":1,"l":"\"""#));
    assert_eq!(edited(text, |edit| edit.remove_param("y")), text.replace(" ,\"y\":2", ""));
    assert_eq!(edited(text, |edit| edit.remove_param("x")), text.replace("\"x\" : 1.50 ,", ""));
    assert_eq!(edited(text, |edit| edit.remove_meta("k")), text.replace("\"k\":1", ""));
    assert_eq!(edited(text, |edit| edit.remove_meta("k").set_meta("m", "2")), text.replace(" \"k\":1", "\"m\":2 "));
}

#[test]
fn what_is_missing_is_made() {
    let bare = r#"{"jsonrpc":"2.0","id":1,"method":"a"}"#;
    let made = edited(bare, |edit| edit.set_meta("k", "1").set_meta("l", "2").set_param("x", "3"));
    assert_eq!(made, r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"x":3,"_meta":{"k":1,"l":2}}}"#);
    let empty = r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{ }}"#;
    assert_eq!(edited(empty, |edit| edit.set_meta("k", "1")), empty.replace("{ }", r#"{"_meta":{"k":1} }"#));
    assert_eq!(edited(bare, |edit| edit.remove_meta("k")), bare);
}

#[test]
fn what_would_break_the_message_is_refused() {
    let call = message(r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"_meta":{"k":1}}}"#);
    let limits = Limits::default();
    assert!(matches!(call.edit().set_meta("k", "1,2").into_bytes(&limits), Err(EditError::BadValue { .. })));
    let both = call.edit().set_param("_meta", "{}").set_meta("k", "2").into_bytes(&limits);
    assert_eq!(both, Err(EditError::Overlap));
    let list = message(r#"{"jsonrpc":"2.0","id":1,"method":"a","params":[1]}"#);
    assert!(matches!(list.edit().set_param("x", "1").into_bytes(&limits), Err(EditError::NotAnObject { .. })));
    assert!(matches!(call.edit().set_meta("ProgressToken", "1").finish(&limits), Err(EditError::Refused(_))));
}

proptest! {
    /// Against a model: the same edits on the parsed value.
    #[test]
    fn edits_do_what_they_say_and_nothing_else(
        members in proptest::collection::btree_map("[a-f]", -5i32..5, 0..5),
        edits in proptest::collection::vec(("[a-h]", proptest::option::of(0i32..9)), 0..6),
        space in "[ \n\t]{0,2}",
    ) {
        let inner: Vec<String> = members.iter().map(|(k, v)| format!("{space}\"{k}\"{space}:{space}{v}{space}")).collect();
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"a","params":{{{space}{}}}}}"#, inner.join(","));
        let original = message(&text);
        let mut edit = original.edit();
        let mut model: Value = serde_json::from_str(&text).expect("valid");
        for (key, value) in &edits {
            let params = model["params"].as_object_mut().expect("an object");
            match value {
                Some(value) => {
                    params.insert(key.clone(), (*value).into());
                    edit = edit.set_param(key, value.to_string());
                }
                None => {
                    params.shift_remove(key);
                    edit = edit.remove_param(key);
                }
            }
        }
        let done = edit.finish(&Limits::default()).expect("valid");
        let got: Value = serde_json::from_slice(done.bytes()).expect("valid");
        prop_assert_eq!(&got, &model);
        for key in members.keys().filter(|key| !edits.iter().any(|(edited, _)| edited == *key)) {
            let kept = format!("\"{key}\"{space}:{space}{}", members[key]);
            prop_assert!(String::from_utf8_lossy(done.bytes()).contains(&kept));
        }
    }
}
