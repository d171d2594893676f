//! JSON Schema: vectors written from the specification's content models, and the forms of a text.

use serde_json::json;

use super::*;
use crate::{
    budget::Budget,
    model::{Policy, SchemaType},
};

fn parse(value: &Value) -> Schema {
    Schema::parse(&value.to_string(), &[]).unwrap_or_else(|why| panic!("{value}: {why}"))
}

fn modern(mut value: Value) -> Value {
    if let Some(members) = value.as_object_mut() {
        members.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    }
    value
}

fn under(policy: Policy, reader: Value, writer: Value) -> Vec<&'static str> {
    let found = differences(&parse(&modern(reader)), &parse(&modern(writer)), policy, &Budget::default());
    found.expect("within the budget").iter().map(|one| one.kind).collect()
}

fn kinds(reader: Value, writer: Value) -> Vec<&'static str> {
    under(Policy::Strict, reader, writer)
}

const NONE: [&str; 0] = [];

#[test]
fn types_may_grow_and_not_shrink() {
    assert_eq!(kinds(json!({}), json!({"type": "string"})), NONE);
    assert_eq!(kinds(json!({"type": "string"}), json!({})), ["TYPE_NARROWED"]);
    assert_eq!(kinds(json!({"type": ["string", "null"]}), json!({"type": "string"})), NONE);
    assert_eq!(kinds(json!({"type": "string"}), json!({"type": ["string", "null"]})), ["TYPE_NARROWED"]);
    assert_eq!(kinds(json!({"type": "number"}), json!({"type": "integer"})), NONE, "an integer is a number");
    assert_eq!(kinds(json!({"type": "integer"}), json!({"type": "number"})), ["TYPE_CHANGED"]);
    assert_eq!(kinds(json!({"type": "integer"}), json!({"type": "string"})), ["TYPE_CHANGED"]);
    let within = |kind| json!({"properties": {"a": {"type": kind}}, "additionalProperties": false, "type": "object"});
    assert_eq!(kinds(within("string"), within("boolean")), ["TYPE_CHANGED"]);
    assert_eq!(
        kinds(
            json!({"type": "object", "properties": {"a": false}}),
            json!({"type": "object", "properties": {"a": true}})
        ),
        ["SCHEMA_REMOVED"]
    );
}

#[test]
fn bounds_may_widen_and_not_tighten() {
    for (keyword, low, high, wide, kind) in [
        ("maxLength", 3, 5, "high", "MAX_LENGTH"),
        ("minLength", 3, 5, "low", "MIN_LENGTH"),
        ("maximum", 3, 5, "high", "MAXIMUM"),
        ("minimum", 3, 5, "low", "MINIMUM"),
        ("exclusiveMaximum", 3, 5, "high", "MAXIMUM"),
        ("maxItems", 3, 5, "high", "MAX_ITEMS"),
        ("minItems", 3, 5, "low", "MIN_ITEMS"),
        ("maxProperties", 3, 5, "high", "MAX_PROPERTIES"),
        ("minProperties", 3, 5, "low", "MIN_PROPERTIES"),
    ] {
        let of = |value| json!({ keyword: value });
        let (wide, tight) = if wide == "high" { (high, low) } else { (low, high) };
        assert_eq!(kinds(of(wide), of(tight)), NONE, "{keyword}");
        let tighter = kinds(of(tight), of(wide));
        assert!(tighter.len() == 1 && tighter[0].starts_with(kind), "{keyword}: {tighter:?}");
        assert!(kinds(of(tight), json!({}))[0].ends_with("_ADDED"), "{keyword}");
        assert_eq!(kinds(json!({}), of(tight)), NONE, "{keyword}");
    }
    assert_eq!(kinds(json!({"exclusiveMaximum": 5}), json!({"maximum": 5})), ["MAXIMUM_DECREASED"]);
    assert_eq!(kinds(json!({"maximum": 5}), json!({"exclusiveMaximum": 5})), NONE);
    assert_eq!(kinds(json!({"multipleOf": 2}), json!({"multipleOf": 4})), NONE);
    assert_eq!(kinds(json!({"multipleOf": 4}), json!({"multipleOf": 2})), ["MULTIPLE_OF_CHANGED"]);
    assert_eq!(kinds(json!({"type": "string", "maximum": 1}), json!({"type": "string"})), NONE, "no number is written");
}

#[test]
fn patterns_and_listed_values_must_cover_what_is_written() {
    assert_eq!(kinds(json!({"pattern": "^a"}), json!({})), ["PATTERN_ADDED"]);
    assert_eq!(kinds(json!({"pattern": "^a"}), json!({"pattern": "^b"})), ["PATTERN_CHANGED"]);
    assert_eq!(kinds(json!({"pattern": "^a"}), json!({"enum": ["ab", "ac"]})), NONE, "each listed value was tried");
    assert_eq!(kinds(json!({"enum": ["a", "b"]}), json!({"enum": ["a"]})), NONE);
    assert_eq!(kinds(json!({"enum": ["a"]}), json!({"enum": ["a", "b"]})), ["ENUM_ARRAY_NARROWED"]);
    assert_eq!(kinds(json!({"const": 1}), json!({"const": 1.0})), NONE, "one number");
    assert_eq!(kinds(json!({"const": 1}), json!({"const": 2})), ["ENUM_ARRAY_NARROWED"]);
    assert_eq!(kinds(json!({"enum": [1]}), json!({"type": "integer"})), ["ENUM_ARRAY_CHANGED"]);
    assert_eq!(
        kinds(json!({"enum": [true, false, null]}), json!({"type": ["boolean", "null"]})),
        NONE,
        "those are all"
    );
    assert_eq!(kinds(json!({"type": "string"}), json!({"enum": ["a"]})), NONE);
}

fn object(properties: Value, more: Value) -> Value {
    let mut whole = json!({ "type": "object", "properties": properties });
    whole.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    whole
}

#[test]
fn open_objects_may_lose_properties_and_closed_ones_may_gain_them() {
    let (open, closed) = (json!({}), json!({"additionalProperties": false}));
    let one = json!({"a": {"type": "string"}});
    let two = json!({"a": {"type": "string"}, "b": {"type": "integer"}});
    assert_eq!(kinds(object(one.clone(), open.clone()), object(two.clone(), open.clone())), NONE);
    assert_eq!(
        kinds(object(two.clone(), open.clone()), object(one.clone(), open.clone())),
        ["PROPERTY_ADDED_TO_OPEN_CONTENT_MODEL"]
    );
    assert_eq!(kinds(object(two.clone(), closed.clone()), object(one.clone(), closed.clone())), NONE);
    assert_eq!(
        kinds(object(one.clone(), closed.clone()), object(two.clone(), closed.clone())),
        ["PROPERTY_REMOVED_FROM_CLOSED_CONTENT_MODEL"]
    );
    assert_eq!(kinds(object(one.clone(), open.clone()), object(one.clone(), closed.clone())), NONE);
    assert_eq!(kinds(object(one.clone(), closed), object(one, open)), ["ADDITIONAL_PROPERTIES_REMOVED"]);
    let anything = json!({"a": {"type": "string"}, "b": true});
    assert_eq!(kinds(object(anything, json!({})), object(json!({"a": {"type": "string"}}), json!({}))), NONE);
}

#[test]
fn partly_open_objects_are_compared_by_what_they_let_in() {
    let texts = json!({"additionalProperties": {"type": "string"}});
    let of = |kind: &str| json!({"a": {"type": kind}});
    assert_eq!(kinds(object(of("string"), texts.clone()), object(json!({}), texts.clone())), NONE);
    assert_eq!(
        kinds(object(of("integer"), texts.clone()), object(json!({}), texts.clone())),
        ["PROPERTY_ADDED_NOT_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL"]
    );
    assert_eq!(kinds(object(json!({}), texts.clone()), object(of("string"), texts.clone())), NONE);
    assert_eq!(
        kinds(object(json!({}), texts.clone()), object(of("integer"), texts.clone())),
        ["PROPERTY_REMOVED_NOT_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL"]
    );
    let wider = json!({"additionalProperties": {"type": ["string", "null"]}});
    assert_eq!(kinds(object(json!({}), wider.clone()), object(json!({}), texts.clone())), NONE);
    assert_eq!(kinds(object(json!({}), texts), object(json!({}), wider)), ["ADDITIONAL_PROPERTIES_NARROWED"]);
    let named = json!({"patternProperties": {"^x": {"type": "string"}}, "additionalProperties": false});
    assert_eq!(
        kinds(
            object(json!({}), named.clone()),
            object(json!({"xa": {"type": "string"}}), json!({"additionalProperties": false}))
        ),
        NONE
    );
    assert_eq!(
        kinds(
            object(json!({}), named),
            object(json!({"ya": {"type": "string"}}), json!({"additionalProperties": false}))
        ),
        ["PROPERTY_REMOVED_FROM_CLOSED_CONTENT_MODEL"]
    );
}

#[test]
fn what_is_required_must_be_written_or_have_a_default() {
    let closed = |more: Value| {
        let mut more = more;
        more.as_object_mut().expect("an object").insert("additionalProperties".to_owned(), json!(false));
        more
    };
    let one = json!({"a": {"type": "string"}});
    let plain = object(one.clone(), closed(json!({})));
    let needed = object(one.clone(), closed(json!({"required": ["a"]})));
    assert_eq!(kinds(plain.clone(), needed.clone()), NONE);
    assert_eq!(kinds(needed, plain.clone()), ["REQUIRED_ATTRIBUTE_ADDED"]);
    let defaulted = object(json!({"a": {"type": "string", "default": ""}}), closed(json!({"required": ["a"]})));
    assert_eq!(kinds(defaulted, plain.clone()), NONE);
    let depends = object(one, closed(json!({"dependentRequired": {"a": ["b"]}})));
    assert_eq!(kinds(depends.clone(), plain.clone()), ["DEPENDENCY_ARRAY_EXTENDED"]);
    assert_eq!(kinds(plain, depends), NONE);
}

#[test]
fn lenient_readers_pass_over_optional_properties_and_nothing_else() {
    let lenient = |reader, writer| under(Policy::Lenient, reader, writer);
    let closed = json!({"additionalProperties": false});
    let one = json!({"a": {"type": "string"}});
    let two = json!({"a": {"type": "string"}, "b": {"type": "integer"}});
    for more in [json!({}), closed] {
        assert_eq!(lenient(object(two.clone(), more.clone()), object(one.clone(), more.clone())), NONE);
        assert_eq!(lenient(object(one.clone(), more.clone()), object(two.clone(), more.clone())), NONE);
    }
    let required = object(two, json!({"required": ["b"]}));
    assert_eq!(lenient(required, object(one, json!({}))), ["REQUIRED_ATTRIBUTE_ADDED"]);
    assert_eq!(
        lenient(
            object(json!({"a": {"type": "integer"}}), json!({})),
            object(json!({"a": {"type": "string"}}), json!({}))
        ),
        ["TYPE_CHANGED"]
    );
}

#[test]
fn items_follow_the_same_models() {
    let array = |more: Value| {
        let mut whole = json!({ "type": "array" });
        whole.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        whole
    };
    let texts = array(json!({"items": {"type": "string"}}));
    assert_eq!(kinds(array(json!({})), texts.clone()), NONE);
    assert_eq!(kinds(texts.clone(), array(json!({}))), ["ITEM_ADDED_TO_OPEN_CONTENT_MODEL"]);
    assert_eq!(kinds(texts, array(json!({"items": {"type": "integer"}}))), ["TYPE_CHANGED"]);
    let first = array(json!({"prefixItems": [{"type": "string"}], "items": false}));
    let both = array(json!({"prefixItems": [{"type": "string"}, {"type": "integer"}], "items": false}));
    assert_eq!(kinds(both.clone(), first.clone()), NONE);
    assert_eq!(kinds(first, both), ["ITEM_REMOVED_FROM_CLOSED_CONTENT_MODEL"]);
    assert_eq!(kinds(array(json!({"uniqueItems": true})), array(json!({}))), ["UNIQUE_ITEMS_ADDED"]);
    assert_eq!(kinds(array(json!({"contains": {"type": "string"}})), array(json!({}))), ["CONTAINS_ADDED"]);
    assert_eq!(kinds(array(json!({"contains": {}})), array(json!({"contains": {"type": "string"}}))), NONE);
    // Draft-07 writes tuples otherwise.
    let old = |reader: Value, writer: Value| {
        let found = differences(&parse(&reader), &parse(&writer), Policy::Strict, &Budget::default());
        found.expect("within the budget").iter().map(|one| one.kind).collect::<Vec<_>>()
    };
    let tuple = json!({"type": "array", "items": [{"type": "string"}], "additionalItems": false});
    assert_eq!(
        old(json!({"type": "array", "items": [{"type": "integer"}], "additionalItems": false}), tuple),
        ["TYPE_CHANGED"]
    );
}

#[test]
fn combined_schemas_are_tried_branch_by_branch() {
    let (text, number) = (json!({"type": "string"}), json!({"type": "integer"}));
    let any = |branches: &[&Value]| json!({ "anyOf": branches });
    assert_eq!(kinds(any(&[&text, &number]), any(&[&number])), NONE);
    assert_eq!(kinds(any(&[&text, &number]), text.clone()), NONE);
    assert_eq!(kinds(any(&[&text, &number]), json!({"type": ["string", "integer"]})), NONE, "one branch for each type");
    assert_eq!(kinds(any(&[&text]), any(&[&text, &number])), ["SUM_TYPE_NARROWED"]);
    assert_eq!(kinds(text.clone(), any(&[&text, &number])), ["TYPE_CHANGED"]);
    let one = json!({"oneOf": [text, {"type": "null"}]});
    assert_eq!(kinds(one.clone(), json!({"type": ["string", "null"]})), NONE);
    assert_eq!(kinds(json!({"type": ["string", "null"]}), one), NONE);
    let both = json!({"allOf": [{"minimum": 3}, {"maximum": 9}]});
    assert_eq!(kinds(both.clone(), json!({"minimum": 4, "maximum": 5})), NONE);
    assert_eq!(kinds(json!({"minimum": 3}), both.clone()), NONE);
    assert_eq!(kinds(both, json!({"minimum": 4})), ["MAXIMUM_ADDED"]);
    assert_eq!(kinds(json!({"not": {"type": "null"}}), json!({"type": "string"})), NONE);
    assert_eq!(kinds(json!({"not": {"type": "null"}}), json!({})), ["NOT_TYPE_EXTENDED"]);
    assert_eq!(kinds(json!({"not": {"const": 1}}), json!({"not": {"enum": [1, 2]}})), NONE);
}

#[test]
fn references_are_followed_even_in_circles() {
    let tree = |leaf: &str| {
        json!({
            "$ref": "#/$defs/node",
            "$defs": { "node": { "type": "object", "additionalProperties": false,
                "properties": { "value": { "type": leaf }, "next": { "$ref": "#/$defs/node" } } } }
        })
    };
    assert_eq!(kinds(tree("string"), tree("string")), NONE);
    assert_eq!(kinds(tree("number"), tree("integer")), NONE);
    let found = kinds(tree("integer"), tree("number"));
    assert!(!found.is_empty() && found.iter().all(|kind| *kind == "TYPE_CHANGED"), "{found:?}");
    assert_eq!(kinds(json!({"$ref": "#"}), json!({"$ref": "#"})), NONE, "says nothing");
}

#[test]
fn a_combination_that_explodes_ends_in_time() {
    fn nested(depth: usize, kind: &str) -> Value {
        if depth == 0 {
            return json!({ "type": kind, "properties": { depth.to_string(): { "const": kind } } });
        }
        let branch =
            |at: usize| json!({ "properties": { format!("p{at}"): nested(depth - 1, kind) }, "minProperties": at });
        json!({ "anyOf": (0..6).map(branch).collect::<Vec<_>>() })
    }
    let (reader, writer) = (parse(&modern(nested(5, "string"))), parse(&modern(nested(5, "object"))));
    let budget = Budget::lasting(std::time::Duration::from_secs(30), 4_000);
    assert!(differences(&reader, &writer, Policy::Strict, &budget).is_err(), "no verdict is not a good one");
}

#[test]
fn the_normal_form_sorts_what_has_no_order() {
    let text = r#"{ "required": ["b", "a"], "type": "object", "properties": { "required": { "enum": [2, 1] }, "b": { "default": {"z": 1, "a": 2} } } }"#;
    let schema = Schema::parse(text, &[]).expect("a schema");
    assert_eq!(schema.text(), text.replace(' ', ""));
    assert_eq!(
        schema.normal(),
        r#"{"properties":{"b":{"default":{"z":1,"a":2}},"required":{"enum":[1,2]}},"required":["a","b"],"type":"object"}"#
    );
}

#[test]
fn references_of_the_registry_are_found_and_can_be_bundled() {
    let text =
        r#"{"$schema": "https://json-schema.org/draft/2020-12/schema", "properties": {"a": {"$ref": "other.json"}}}"#;
    assert!(Schema::parse(text, &[]).is_err(), "it leads nowhere");
    let other = |kind: &str| Resolved {
        name: "other.json".to_owned(),
        text: format!(r#"{{"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "{kind}"}}"#),
        kind: SchemaType::Json,
    };
    let with = |kind: &str| Schema::parse(text, &[other(kind)]).expect("a schema");
    let found = differences(&with("string"), &with("integer"), Policy::Strict, &Budget::default()).expect("in time");
    assert_eq!(
        found.iter().map(|one| (one.kind, one.path.as_str())).collect::<Vec<_>>(),
        [("TYPE_CHANGED", "#/properties/a")]
    );
    let bundled: Value = serde_json::from_str(&with("string").resolved()).expect("JSON");
    assert_eq!(bundled["$defs"]["other.json"]["$id"], "other.json");
}

#[test]
fn what_is_no_schema_is_refused() {
    for text in [
        r#"{"type": "strin"}"#,
        r#"{"type": 5}"#,
        "[]",
        "{",
        r##"{"$ref": "#/nowhere"}"##,
        r#"{"$schema": "https://e.org/mine"}"#,
    ] {
        assert!(Schema::parse(text, &[]).is_err(), "{text}");
    }
    assert!(Schema::parse(&format!("{}{{}}{}", r#"{"not":"#.repeat(300), "}".repeat(300)), &[]).is_err());
}

#[test]
fn cairns_own_contracts_follow_each_other_leniently() {
    for event_type in cairn_contract::EventType::ALL {
        let all = cairn_contract::contracts(event_type);
        // Which version it is differs in every version, and is no part of what it says.
        let marked = |schema: &str| {
            let mut value: Value = serde_json::from_str(schema).expect("JSON");
            for mark in ["name", "version"] {
                if let Some(mark) = value.pointer_mut(&format!("/properties/contract/properties/{mark}")) {
                    *mark = json!({});
                }
            }
            parse(&value)
        };
        for (old, new) in all.iter().zip(all.iter().skip(1)) {
            let (old, new) = (marked(old.schema), marked(new.schema));
            let found = |reader, writer| {
                let found = differences(reader, writer, Policy::Lenient, &Budget::default()).expect("in time");
                found.iter().map(|one| one.kind).collect::<Vec<_>>()
            };
            assert_eq!(found(&new, &old), NONE, "{event_type}");
            // Listed values may be added: readers take one that they do not know as it is.
            let added = found(&old, &new);
            assert!(added.iter().all(|kind| *kind == "ENUM_ARRAY_NARROWED"), "{event_type}: {added:?}");
        }
    }
}
