//! RFC 8785's own examples, the exception for numbers, and agreement of both ways.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

#[test]
fn members_are_sorted_by_utf_16() {
    // RFC 8785, section 3.2.3.
    let text = "{\"\\u20ac\": \"Euro Sign\", \"\\r\": \"Carriage Return\", \"\\ufb33\": \"Hebrew Letter Dalet With Dagesh\", \
                \"1\": \"One\", \"\\ud83d\\ude00\": \"Emoji: Grinning Face\", \"\\u0080\": \"Control\", \
                \"\\u00f6\": \"Latin Small Letter O With Diaeresis\"}";
    let canonical = canonical_json(text.as_bytes()).unwrap();
    let order: Vec<usize> = ["Carriage", "One", "Control", "Latin", "Euro", "Emoji", "Hebrew"]
        .iter()
        .map(|word| canonical.find(word).unwrap())
        .collect();
    assert!(order.is_sorted(), "{canonical}");
}

#[test]
fn strings_have_their_shortest_escapes() {
    // RFC 8785, section 3.2.2.2, the string member.
    let text = br#"{"string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/"}"#;
    assert_eq!(canonical_json(text).unwrap(), "{\"string\":\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}");
}

#[test]
fn numbers_stay_as_written() {
    let text = b"[333333333.33333329, 1E30, 4.50, 2e-3, 18446744073709551616, -0, 1.0]";
    assert_eq!(canonical_json(text).unwrap(), "[333333333.33333329,1E30,4.50,2e-3,18446744073709551616,-0,1.0]");
}

#[test]
fn what_is_no_json_is_refused() {
    for bad in [
        "",
        "{",
        "[1,]",
        "{\"a\":1,}",
        "{a:1}",
        "01",
        "1.",
        ".5",
        "+1",
        "1e",
        "nul",
        "\"\\x\"",
        "\"\\ud800\"",
        "\"\n\"",
        "1 2",
        "[1 2]",
        "{\"a\" 1}",
        "\"a",
        "\"\\",
    ] {
        assert!(matches!(canonical_json(bad.as_bytes()), Err(CanonicalError::Syntax { .. })), "{bad}");
    }
    assert!(canonical_json(b"\"\xff\"").is_err());
    assert!(matches!(canonical_json(br#"{"a":1,"\u0061":2}"#), Err(CanonicalError::Duplicate { .. })));
    assert!(matches!(canonical_json("[".repeat(10_000).as_bytes()), Err(CanonicalError::Depth { .. })));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::vec((any::<String>(), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn text_and_value_agree_and_layout_does_not_matter(value in any_json()) {
        let canonical = canonical_value(&value);
        let pretty = serde_json::to_vec_pretty(&value).unwrap();
        prop_assert_eq!(&canonical_json(&pretty).unwrap(), &canonical);
        prop_assert_eq!(&canonical_json(canonical.as_bytes()).unwrap(), &canonical);
        prop_assert_eq!(serde_json::from_str::<Value>(&canonical).unwrap(), value);
    }

    #[test]
    fn no_text_makes_it_panic(text in any::<Vec<u8>>()) {
        let _ = canonical_json(&text);
    }
}

#[test]
fn a_value_is_sorted_at_every_level() {
    assert_eq!(canonical_value(&json!({"b": [{"d": 1, "c": 2}], "a": null})), r#"{"a":null,"b":[{"c":2,"d":1}]}"#);
}
