//! Avro: vectors written from the specification's "Schema Resolution", and the forms of a text.

use super::*;
use crate::{budget::Budget, model::SchemaType};

fn parse(text: &str) -> Schema {
    Schema::parse(text, &[]).unwrap_or_else(|why| panic!("{text}: {why}"))
}

/// The kinds of differences between a reader and a writer.
fn kinds(reader: &str, writer: &str) -> Vec<&'static str> {
    let found = differences(&parse(reader), &parse(writer), &Budget::default()).expect("within the budget");
    found.iter().map(|one| one.kind).collect()
}

fn record(fields: &str) -> String {
    format!(r#"{{"type": "record", "name": "R", "fields": [{fields}]}}"#)
}

#[test]
fn numbers_and_bytes_are_promoted_one_way() {
    for (writer, readers) in [
        ("int", &["int", "long", "float", "double"][..]),
        ("long", &["long", "float", "double"]),
        ("float", &["float", "double"]),
        ("double", &["double"]),
        ("string", &["string", "bytes"]),
        ("bytes", &["bytes", "string"]),
        ("boolean", &["boolean"]),
        ("null", &["null"]),
    ] {
        for reader in node::PRIMITIVES {
            let found = kinds(&format!("\"{reader}\""), &format!("\"{writer}\""));
            let wanted: &[&str] = if readers.contains(&reader) { &[] } else { &["TYPE_MISMATCH"] };
            assert_eq!(found, wanted, "{writer} read as {reader}");
        }
    }
}

#[test]
fn a_reader_needs_a_default_for_what_is_not_written() {
    let one = record(r#"{"name": "a", "type": "int"}"#);
    let two = record(r#"{"name": "a", "type": "int"}, {"name": "b", "type": "string"}"#);
    let defaulted = record(r#"{"name": "a", "type": "int"}, {"name": "b", "type": "string", "default": ""}"#);
    assert_eq!(kinds(&two, &one), ["READER_FIELD_MISSING_DEFAULT_VALUE"]);
    assert_eq!(kinds(&defaulted, &one), [""; 0]);
    assert_eq!(kinds(&one, &two), [""; 0], "what a reader does not know it passes over");
    let renamed = record(r#"{"name": "c", "aliases": ["a"], "type": "long"}"#);
    assert_eq!(kinds(&renamed, &one), [""; 0], "an alias is the writer's name");
    assert_eq!(kinds(&one, &renamed), ["READER_FIELD_MISSING_DEFAULT_VALUE"]);
}

#[test]
fn names_meet_without_their_namespaces_or_by_alias() {
    let of = |name: &str, more: &str| format!(r#"{{"type": "fixed", "name": "{name}", "size": 4 {more}}}"#);
    assert_eq!(kinds(&of("x.F", ""), &of("y.F", "")), [""; 0]);
    assert_eq!(kinds(&of("G", ""), &of("F", "")), ["NAME_MISMATCH"]);
    assert_eq!(kinds(&of("G", r#", "aliases": ["F"]"#), &of("F", "")), [""; 0]);
    let larger = of("F", "").replace('4', "8");
    assert_eq!(kinds(&larger, &of("F", "")), ["FIXED_SIZE_MISMATCH"]);
}

#[test]
fn an_enum_must_know_every_symbol_or_have_a_default() {
    let of = |symbols: &str, more: &str| format!(r#"{{"type": "enum", "name": "E", "symbols": [{symbols}] {more}}}"#);
    let (few, many) = (of(r#""A""#, ""), of(r#""A", "B""#, ""));
    assert_eq!(kinds(&few, &many), ["MISSING_ENUM_SYMBOLS"]);
    assert_eq!(kinds(&many, &few), [""; 0]);
    assert_eq!(kinds(&of(r#""A""#, r#", "default": "A""#), &many), [""; 0]);
}

#[test]
fn every_branch_that_is_written_must_be_read() {
    assert_eq!(kinds(r#"["null", "string"]"#, r#""string""#), [""; 0]);
    assert_eq!(kinds(r#""string""#, r#"["null", "string"]"#), ["TYPE_MISMATCH"]);
    assert_eq!(kinds(r#""string""#, r#"["string"]"#), [""; 0]);
    assert_eq!(kinds(r#"["null", "long"]"#, r#"["null", "int"]"#), [""; 0], "a branch may be promoted");
    assert_eq!(kinds(r#"["null", "int"]"#, r#"["null", "long"]"#), ["MISSING_UNION_BRANCH"]);
    let records = |fields: &str| format!(r#"["null", {}]"#, record(fields));
    let (one, two) = (r#"{"name": "a", "type": "int"}"#, r#"{"name": "b", "type": "int"}"#);
    assert_eq!(kinds(&records(two), &records(one)), ["MISSING_UNION_BRANCH"]);
}

#[test]
fn containers_and_recursive_types_are_compared_within() {
    let array = |items: &str| format!(r#"{{"type": "array", "items": "{items}"}}"#);
    let map = |values: &str| format!(r#"{{"type": "map", "values": "{values}"}}"#);
    assert_eq!(kinds(&array("long"), &array("int")), [""; 0]);
    assert_eq!(kinds(&map("int"), &map("long")), ["TYPE_MISMATCH"]);
    assert_eq!(kinds(&map("int"), &array("int")), ["TYPE_MISMATCH"]);
    let list = |value: &str| {
        record(&format!(r#"{{"name": "v", "type": "{value}"}}, {{"name": "next", "type": ["null", "R"]}}"#))
    };
    assert_eq!(kinds(&list("long"), &list("int")), [""; 0]);
    assert_eq!(kinds(&list("int"), &list("long")), ["TYPE_MISMATCH"]);
}

#[test]
fn decimals_meet_where_precision_and_scale_do() {
    let of = |precision: u32, scale: u32| {
        format!(r#"{{"type": "bytes", "logicalType": "decimal", "precision": {precision}, "scale": {scale}}}"#)
    };
    assert_eq!(kinds(&of(9, 2), &of(9, 2)), [""; 0]);
    assert_eq!(kinds(&of(9, 3), &of(9, 2)), ["DECIMAL_MISMATCH"]);
    assert_eq!(kinds(r#""bytes""#, &of(9, 2)), [""; 0]);
}

#[test]
fn the_kept_form_has_javas_order_and_no_layout() {
    let schema = parse(
        r#"{ "fields": [ { "type": {"type": "string"}, "name": "a", "order": "ascending", "x": 1, "doc": "d" },
                         { "name": "b", "type": "n.E2", "aliases": ["c"] } ],
             "name": "n.R", "type": "record", "aliases": [], "extra": {"k": [1, 2]} }"#
            .replace("n.E2", "long")
            .as_str(),
    );
    assert_eq!(
        schema.text(),
        r#"{"type":"record","name":"R","namespace":"n","fields":[{"name":"a","type":"string","doc":"d","x":1},{"name":"b","type":"long","aliases":["c"]}],"extra":{"k":[1,2]}}"#
    );
    let swapped = parse(r#"{"b": 1, "a": 2, "type": "string"}"#);
    assert_eq!(
        (swapped.text().as_str(), swapped.normal().as_str()),
        (r#"{"type":"string","b":1,"a":2}"#, r#"{"type":"string","a":2,"b":1}"#,)
    );
}

#[test]
fn references_define_names_and_are_filled_in_where_that_is_asked() {
    let inner = r#"{"type": "record", "name": "n.Inner", "fields": [{"name": "x", "type": "int"}]}"#;
    let outer = r#"{"type": "record", "name": "n.Outer", "fields": [{"name": "a", "type": "n.Inner"}, {"name": "b", "type": "Inner"}]}"#;
    assert!(Schema::parse(outer, &[]).expect_err("not defined").contains("n.Inner"));
    let reference = Resolved { name: "n.Inner".to_owned(), text: inner.to_owned(), kind: SchemaType::Avro };
    let schema = Schema::parse(outer, std::slice::from_ref(&reference)).expect("a schema");
    assert!(!schema.text().contains("\"x\""));
    let resolved = schema.resolved(&Budget::default()).expect("within the budget");
    assert!(
        resolved.contains(r#""name":"a","type":{"type":"record","name":"Inner","fields":[{"name":"x""#),
        "{resolved}"
    );
    assert_eq!(resolved.matches("\"x\"").count(), 1, "defined once, then named: {resolved}");
    parse(&resolved);
}

#[test]
fn what_is_no_schema_is_refused() {
    for text in [
        r#""strin""#,
        r#"{"type": "record", "name": "R"}"#,
        r#"{"type": "enum", "name": "E"}"#,
        r#"{"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}, {"name": "a", "type": "int"}]}"#,
        "{",
        "5",
    ] {
        assert!(Schema::parse(text, &[]).is_err(), "{text}");
    }
    let deep = format!("{}\"int\"{}", r#"{"type":"array","items":"#.repeat(200), "}".repeat(200));
    assert!(Schema::parse(&deep, &[]).is_err());
}
