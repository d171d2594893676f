//! Tests of the module beside it.
use proptest::prelude::*;

use super::*;

/// JSON text with unusual spacing and escapes; may hold duplicate keys.
fn json() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        Just("null".to_owned()),
        Just(" true".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_filter("finite", |n| n.is_finite()).prop_map(|n| format!("{n:e}")),
        any::<String>().prop_map(|text| serde_json::to_string(&text).expect("a string")),
        Just(r#""\ud83d\ude00\u00e9\/\n""#.to_owned()),
    ];
    scalar.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(|all| format!("[ {} ]", all.join("\t,"))),
            proptest::collection::btree_map("[a-zé\"]{0,3}", inner, 0..5).prop_map(|all| {
                let members = all.iter().map(|(key, value)| format!("{} :\r\n{value}", serde_json::json!(key)));
                format!("{{{} }}", members.collect::<Vec<_>>().join(", "))
            }),
        ]
    })
}

fn agrees(text: &[u8]) -> bool {
    let ours = scan_value(text, 100);
    let theirs = serde_json::from_slice::<serde_json::Value>(text);
    match (ours, theirs) {
        (Ok(()), Ok(_)) | (Err(_), Err(_)) => true,
        // Stricter on purpose.
        (Err(ScanFault::DuplicateKey { .. } | ScanFault::TooDeep { .. }), Ok(_)) => true,
        // A number that is grammatical but beyond a double is the reader's business.
        (Ok(()), Err(error)) => error.to_string().contains("number out of range"),
        (Err(_), Ok(_)) => false,
    }
}

proptest! {
    #[test]
    fn ordinary_documents_are_accepted(text in json()) {
        prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
        prop_assert_eq!(scan_value(text.as_bytes(), 100), Ok(()));
    }

    #[test]
    fn damaged_documents_are_judged_as_serde_judges_them(text in json(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut damaged = text.into_bytes();
        let index = at.index(damaged.len());
        damaged[index] = byte;
        prop_assert!(agrees(&damaged), "{:?}", String::from_utf8_lossy(&damaged));
        damaged.truncate(index);
        prop_assert!(agrees(&damaged), "{:?}", String::from_utf8_lossy(&damaged));
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(agrees(&bytes));
    }

    #[test]
    fn json_like_bytes_never_panic(text in r#"[\[\]{}:,"\\ud8c0-9eE.+\-truefalsn ]{0,60}"#) {
        prop_assert!(agrees(text.as_bytes()), "{}", text);
        let _ = scan_envelope(text.as_bytes(), 10);
    }
}

#[test]
fn duplicate_keys_are_found_at_any_depth_and_however_they_are_written() {
    let wide = (0..1000).map(|n| format!("\"k{n}\":0,")).collect::<String>();
    for text in [
        r#"{"a":1,"a":2}"#.to_owned(),
        r#"[[{"x":{"a":1,"b":2,"\u0061":3}}]]"#.to_owned(),
        r#"{"/":1,"\/":2}"#.to_owned(),
        r#"{"😀":1,"\ud83d\ude00":2}"#.to_owned(),
        format!("{{{wide}\"k500\":1}}"),
    ] {
        assert!(matches!(scan_value(text.as_bytes(), 100), Err(ScanFault::DuplicateKey { .. })), "{text:.40}");
    }
    assert_eq!(scan_value(br#"{"a":{"a":{"a":[{"a":1},{"a":1}]}}}"#, 100), Ok(()));
}

#[test]
fn what_other_parsers_let_pass_is_refused() {
    for text in [
        &b"{\"a\":1}x"[..],
        b"{} {}",
        b"[1,]",
        b"{\"a\":1,}",
        b"{'a':1}",
        b"01",
        b"1.",
        b".5",
        b"+1",
        b"NaN",
        b"\"\\ud800\"",
        b"\"\\udc00\"",
        b"\"\\ud800\\u0041\"",
        b"\"\\x41\"",
        b"\"a\nb\"",
        b"\"\xff\"",
        b"\"\xed\xa0\x80\"",
        b"\xef\xbb\xbf{}",
        b"/**/{}",
        b"",
        b"\"",
        b"{\"a\"",
        b"[",
    ] {
        assert!(scan_value(text, 100).is_err(), "{:?}", String::from_utf8_lossy(text));
    }
}

#[test]
fn depth_is_bounded_without_recursion() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(scan_value(nested(100).as_bytes(), 100), Ok(()));
    assert_eq!(scan_value(nested(101).as_bytes(), 100), Err(ScanFault::TooDeep { limit: 100 }));
    assert!(scan_value("[".repeat(5_000_000).as_bytes(), 100).is_err());
}
