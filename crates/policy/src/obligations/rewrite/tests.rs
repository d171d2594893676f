//! What `@rewrite` does, and what it refuses to do.

use proptest::prelude::*;

use super::*;

fn rewriting(texts: &[(&str, &str)]) -> Result<Rewriting, [String; 2]> {
    let all: Vec<(String, Steps)> =
        texts.iter().map(|(policy, text)| ((*policy).to_owned(), Steps::parse(text).expect("steps"))).collect();
    Rewriting::joined(&all.iter().map(|(policy, steps)| (policy, steps)).collect::<Vec<_>>())
}

fn masks(value: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(value).expect("UTF-8");
    text.contains("s3cret").then(|| text.replace("s3cret", "[masked]").into_bytes())
}

fn applied(steps: &str, arguments: &str) -> Result<Option<String>, RewriteFault> {
    let done = rewriting(&[("p", steps)]).expect("no contradiction").apply(arguments.as_bytes(), &masks)?;
    Ok(done.map(|bytes| String::from_utf8(bytes.to_vec()).expect("UTF-8")))
}

#[test]
fn steps_do_what_they_say_and_leave_the_rest_as_it_was_written() {
    for (steps, before, after) in [
        ("remove /debug", r#"{"debug": 1, "n": 9007199254740993}"#, Some(r#"{"n":9007199254740993}"#)),
        ("remove /debug", r#"{ "n" : 1e2 }"#, None),
        ("remove /a/b", r#"{"a":{"b":1}}"#, Some(r#"{"a":{}}"#)),
        ("remove /list/*/x", r#"{"list":[{"x":1,"y":2},{"y":3}]}"#, Some(r#"{"list":[{"y":2},{"y":3}]}"#)),
        ("remove /list/0", r#"{"list":[1,2]}"#, Some(r#"{"list":[2]}"#)),
        ("set /limit = 100", "{}", Some(r#"{"limit":100}"#)),
        ("set /limit = 100", r#"{"limit":100}"#, None),
        ("set /limit=100;", r#"{"a":1,"limit":7}"#, Some(r#"{"a":1,"limit":100}"#)),
        ("replace /limit = 100", "{}", None),
        ("replace /limit = {\"a\": [1; 2]}", "{}", None),
        ("replace /*/n = null", r#"{"a":{"n":1},"b":{"n":2}}"#, Some(r#"{"a":{"n":null},"b":{"n":null}}"#)),
        ("set \"/odd name\" = \"a;b\"", r#"{"odd name":1}"#, Some(r#"{"odd name":"a;b"}"#)),
        ("set /a~1b = 1", r#"{"a/b":0}"#, Some(r#"{"a/b":1}"#)),
        ("redact /note", r#"{"note":"s3cret","other":"s3cret"}"#, Some(r#"{"note":"[masked]","other":"s3cret"}"#)),
        ("redact; set /a = \"s3cret\"", "{}", Some(r#"{"a":"[masked]"}"#)),
        ("redact", r#"{"a":"fine"}"#, None),
    ] {
        if steps.contains("[1; 2]") {
            assert!(Steps::parse(steps).is_err(), "{steps}");
            continue;
        }
        assert_eq!(applied(steps, before).expect(steps).as_deref(), after, "{steps} on {before}");
    }
}

#[test]
fn what_cannot_be_done_is_told_without_the_arguments() {
    for (steps, arguments) in [
        ("set /a/b = 1", r#"{"n":"s3cret"}"#),
        ("set /a/b = 1", r#"{"a":"s3cret"}"#),
        ("set /a/5 = 1", r#"{"a":["s3cret"]}"#),
        ("remove /a", r#"["s3cret"]"#),
    ] {
        let fault = applied(steps, arguments).expect_err(steps).to_string();
        assert!(fault.contains("policy p cannot") && !fault.contains("s3cret"), "{fault}");
    }
}

#[test]
fn policies_that_contradict_each_other_are_named() {
    let fine = [("a", "set /n = 1; redact /n"), ("b", "set /n = 1; remove /m"), ("c", "redact")];
    assert_eq!(rewriting(&fine).expect("all of it").policies(), ["a", "b", "c"]);
    for other in ["set /n = 2", "remove /n", "replace /n = 1", "set /n/x = 1", "remove /*", "replace /*/x = 1"] {
        let met = rewriting(&[("a", "set /n = 1"), ("b", other)]);
        assert_eq!(met, Err(["a".to_owned(), "b".to_owned()]), "{other}");
    }
    // One policy says in which order it means its own steps.
    assert_eq!(applied("set /n = {}; set /n/x = 1", "{}").expect("done").as_deref(), Some(r#"{"n":{"x":1}}"#));
}

#[test]
fn a_mistake_is_told_with_what_was_meant() {
    for (text, said) in [
        ("", "is no step"),
        ("remve /a", "did you mean remove?"),
        ("remove", "wants a JSON pointer"),
        ("remove a", "begin it with '/'"),
        ("set /a", "wants a value"),
        ("set /a = ", "no JSON value"),
        ("set /a = {", "no JSON value"),
        ("set /*/a = 1", "write replace"),
        ("set /a = 1 remove /b", "no JSON value"),
        ("remove /a remove /b", "put a ; between"),
        ("remove /a;;remove /b", "is no step"),
        ("remove /~2", "~0"),
    ] {
        let error = Steps::parse(text).expect_err(text);
        assert!(error.contains(said), "{text}: {error}");
    }
    assert!(Steps::parse(&format!("set /a = \"{}\"", "x".repeat(VALUE_BYTES_MAX))).is_err());
    assert!(Steps::parse(&"remove /a;".repeat(STEPS_MAX + 1)).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// What names no index comes to rest at once: done again it changes nothing.
    #[test]
    fn done_twice_is_done_once(
        steps in proptest::collection::vec(
            prop_oneof![
                Just("remove /a"), Just("set /b = [1]"), Just("replace /c = 2.50"), Just("redact /d"), Just("remove /e/*"),
                Just("redact"),
            ],
            1..5,
        ),
        values in proptest::collection::vec(("[a-f]", "[1-9][0-9]{0,2}|\"s3cret\"|\\[1, 2\\]|\\{\"x\": 1\\}"), 0..6),
    ) {
        let members: std::collections::BTreeMap<_, _> = values.into_iter().collect();
        let members: Vec<String> = members.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
        let before = format!("{{{}}}", members.join(", "));
        let steps = steps.join(";");
        if let Some(after) = applied(&steps, &before).expect("done") {
            prop_assert!(serde_json::from_str::<serde_json::Value>(&after).is_ok());
            prop_assert_eq!(applied(&steps, &after).expect("done"), None);
        }
    }
}
