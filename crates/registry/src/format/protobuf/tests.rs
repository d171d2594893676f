//! Protobuf: vectors written from the language guide's rules on updating a message, and the forms of a text.

use super::*;
use crate::{budget::Budget, model::SchemaType};

fn parse(text: &str) -> Schema {
    Schema::parse(text, &[]).unwrap_or_else(|why| panic!("{text}: {why}"))
}

fn three(body: &str) -> String {
    format!("syntax = \"proto3\"; package p; {body}")
}

fn two(body: &str) -> String {
    format!("syntax = \"proto2\"; package p; {body}")
}

fn kinds(reader: &str, writer: &str) -> Vec<&'static str> {
    let found = differences(&parse(reader), &parse(writer), &Budget::default()).expect("within the budget");
    found.iter().map(|one| one.kind).collect()
}

fn message(fields: &str) -> String {
    three(&format!("message M {{ {fields} }}"))
}

const NONE: [&str; 0] = [];

#[test]
fn scalars_meet_where_they_are_encoded_alike() {
    let groups: [&[&str]; 7] = [
        &["int32", "int64", "uint32", "uint64", "bool"],
        &["sint32", "sint64"],
        &["fixed32", "sfixed32"],
        &["fixed64", "sfixed64"],
        &["string", "bytes"],
        &["float"],
        &["double"],
    ];
    for (at, group) in groups.iter().enumerate() {
        for one in *group {
            for (other_at, other_group) in groups.iter().enumerate() {
                for other in *other_group {
                    let found = kinds(&message(&format!("{one} a = 1;")), &message(&format!("{other} a = 1;")));
                    let wanted: &[&str] = if at == other_at { &[] } else { &["FIELD_SCALAR_KIND_CHANGED"] };
                    assert_eq!(found, wanted, "{other} read as {one}");
                }
            }
        }
    }
    let listed = three("enum E { ZERO = 0; } message M { E a = 1; }");
    assert_eq!(kinds(&listed, &message("int32 a = 1;")), NONE, "an enum is a number on the wire");
}

#[test]
fn fields_meet_by_number_and_may_come_and_go() {
    assert_eq!(kinds(&message("string b = 1;"), &message("string a = 1;")), NONE);
    assert_eq!(kinds(&message("string a = 1; int32 b = 2;"), &message("string a = 1;")), NONE);
    assert_eq!(kinds(&message("string a = 1;"), &message("string a = 1; int32 b = 2;")), NONE);
    assert_eq!(kinds(&message("string a = 2;"), &message("int32 b = 2;")), ["FIELD_SCALAR_KIND_CHANGED"]);
    let of = |fields: &str| two(&format!("message M {{ {fields} }}"));
    assert_eq!(kinds(&of("required int32 a = 1;"), &of("")), ["REQUIRED_FIELD_ADDED"]);
    assert_eq!(kinds(&of("required int32 a = 1;"), &of("optional int32 a = 1;")), ["REQUIRED_FIELD_ADDED"]);
    assert_eq!(kinds(&of(""), &of("required int32 a = 1;")), NONE);
}

#[test]
fn repeated_numbers_are_packed_and_texts_are_not() {
    assert_eq!(kinds(&message("repeated int32 a = 1;"), &message("int32 a = 1;")), ["FIELD_NUMERIC_LABEL_CHANGED"]);
    assert_eq!(kinds(&message("int32 a = 1;"), &message("repeated int32 a = 1;")), ["FIELD_NUMERIC_LABEL_CHANGED"]);
    assert_eq!(kinds(&message("repeated string a = 1;"), &message("string a = 1;")), NONE);
    let entry =
        |field: &str| three(&format!("message M {{ {field} message E {{ string key = 1; int32 value = 2; }} }}"));
    assert_eq!(
        kinds(&entry("repeated E a = 1;"), &entry("map<string, int32> a = 1;")),
        NONE,
        "a map is a list of entries"
    );
    assert_eq!(
        kinds(&entry("map<string, string> a = 1;"), &entry("map<string, int32> a = 1;")),
        ["FIELD_SCALAR_KIND_CHANGED"]
    );
}

#[test]
fn messages_are_compared_within_and_by_name() {
    let of = |kind: &str, inner: &str| three(&format!("message M {{ {kind} a = 1; }} message {kind} {{ {inner} }}"));
    assert_eq!(kinds(&of("I", "string x = 1;"), &of("I", "int32 x = 1;")), ["FIELD_SCALAR_KIND_CHANGED"]);
    assert_eq!(kinds(&of("J", ""), &of("I", "")), ["FIELD_NAMED_TYPE_CHANGED", "MESSAGE_REMOVED"]);
    assert_eq!(kinds(&message("string a = 1;"), &of("I", "")), ["FIELD_KIND_CHANGED", "MESSAGE_REMOVED"]);
    assert_eq!(kinds("syntax = \"proto3\"; message M {}", &three("message M {}")), ["PACKAGE_CHANGED"]);
    let tree = |kind: &str| message(&format!("M left = 1; {kind} value = 2;"));
    assert_eq!(kinds(&tree("int64"), &tree("int32")), NONE);
}

#[test]
fn one_field_may_enter_a_new_oneof_and_none_may_leave_one_behind() {
    assert_eq!(kinds(&message("oneof o { string a = 1; }"), &message("string a = 1;")), NONE);
    assert_eq!(
        kinds(&message("oneof o { string a = 1; string b = 2; }"), &message("string a = 1; string b = 2;")),
        ["MULTIPLE_FIELDS_MOVED_TO_ONEOF"]
    );
    assert_eq!(
        kinds(&message("oneof o { string a = 1; string b = 2; }"), &message("oneof o { string a = 1; } string b = 2;")),
        ["FIELD_MOVED_TO_EXISTING_ONEOF"]
    );
    assert_eq!(
        kinds(&message("oneof o { string a = 1; }"), &message("oneof o { string a = 1; string b = 2; }")),
        ["ONEOF_FIELD_REMOVED"]
    );
    assert_eq!(kinds(&message("oneof o { string a = 1; string b = 2; }"), &message("oneof o { string a = 1; }")), NONE);
    assert_eq!(kinds(&message(""), &message("optional string a = 1;")), NONE, "that oneof is made up by the compiler");
}

const WHOLE: &str = r#"syntax = "proto2";
// A comment stays.
package shop.v1;
import "google/protobuf/timestamp.proto";
import "google/protobuf/descriptor.proto";
option java_package = "org.example";
extend google.protobuf.FieldOptions { optional string owner = 50001; optional Mark mark = 50002; }
message Mark { optional int32 level = 1; repeated string names = 2; }
message Order {
  option deprecated = true;
  reserved 5, 7 to 9, 1000 to max;
  reserved "gone";
  required string id = 1 [(owner) = "a \"team\"", (mark) = { level: 3 names: "x" }];
  optional int32 count = 2 [default = 4, json_name = "howMany"];
  repeated int64 parts = 3 [packed = true];
  map<string, Line> lines = 4;
  optional group Extra = 10 { optional string note = 1; }
  oneof paid { string card = 11; bool cash = 12; }
  optional google.protobuf.Timestamp at = 13;
  optional State state = 14 [default = OPEN];
  message Line { optional double price = 1; }
  enum State { option allow_alias = true; UNKNOWN = 0; OPEN = 1; ALSO = 1 [deprecated = true]; reserved 4 to 6; }
  extensions 100 to 199;
}
extend Order { optional string extra = 100; }
service Orders { rpc Get(Order) returns (stream Order) { option deprecated = true; } rpc Put(stream Order) returns (Mark); }
"#;

#[test]
fn a_text_is_kept_as_it_was_sent_and_its_printed_form_means_the_same() {
    let schema = parse(WHOLE);
    assert_eq!(schema.text(), WHOLE.trim_end());
    let printed = parse(&schema.printed());
    assert_eq!(printed.printed(), schema.printed());
    assert_eq!(printed.serialized(), schema.serialized(), "{}", schema.printed());
}

#[test]
fn a_descriptor_is_the_same_schema_as_its_text_and_keeps_custom_options() {
    let schema = parse(WHOLE);
    let sent = parse(&schema.serialized());
    assert_eq!(sent.printed(), schema.printed());
    assert!(sent.text().contains(r#"(shop.v1.owner) = "a \"team\"""#), "{}", sent.text());
    // As Confluent's registry lays it out: a line between the parts that there are.
    let small = parse(&three("message Key { int32 id = 1; } message Dog { string name = 1; } enum E { Z = 0; }"));
    let laid = "syntax = \"proto3\";\npackage p;\n\nmessage Key {\n  int32 id = 1;\n}\nmessage Dog {\n  string name = 1;\n}\nenum E {\n  Z = 0;\n}\n";
    assert_eq!(small.printed(), laid);
}

#[test]
fn the_normal_form_sorts_fields_and_leaves_messages() {
    let one = three("message B { int32 y = 2; int32 x = 1; } message A { enum E { Z = 0; B = 2; C = 1; } }");
    let other = three("message B { int32 x = 1; int32 y = 2; } message A { enum E { Z = 0; C = 1; B = 2; } }");
    assert_ne!(parse(&one).printed(), parse(&other).printed());
    assert_eq!(parse(&one).normal(), parse(&other).normal());
    let swapped = three("message A { enum E { Z = 0; C = 1; B = 2; } } message B { int32 x = 1; int32 y = 2; }");
    assert_ne!(parse(&swapped).normal(), parse(&other).normal(), "a value names its message by its place");
}

#[test]
fn imports_come_from_references_and_from_the_well_known_types() {
    let text = three(
        "import \"inner.proto\"; import \"google/protobuf/struct.proto\"; message M { inner.I a = 1; google.protobuf.Struct b = 2; }",
    );
    assert!(Schema::parse(&text, &[]).expect_err("no such file").contains("inner.proto"));
    let inner = |kind: &str| Resolved {
        name: "inner.proto".to_owned(),
        text: format!("syntax = \"proto3\"; package inner; message I {{ {kind} x = 1; }}"),
        kind: SchemaType::Protobuf,
    };
    let with = |kind: &str| Schema::parse(&text, &[inner(kind)]).expect("a schema");
    let found = differences(&with("int32"), &with("string"), &Budget::default()).expect("in time");
    assert_eq!(found.iter().map(|one| one.path.as_str()).collect::<Vec<_>>(), ["/inner.I/1"]);
    let serialized = Resolved { text: parse(&inner("int32").text).serialized(), ..inner("int32") };
    assert!(Schema::parse(&text, &[serialized]).is_ok(), "a reference may be a descriptor");
}

#[test]
fn what_confluent_and_google_declare_is_there_without_being_registered() {
    let text = three(
        "import \"google/type/postal_address.proto\"; import \"confluent/meta.proto\"; import \"confluent/type/decimal.proto\";
         message M { google.type.PostalAddress a = 1; confluent.type.Decimal b = 2 [(confluent.field_meta).tags = \"PII\"]; }",
    );
    let schema = parse(&text);
    assert!(schema.printed().contains("confluent.field_meta"), "{}", schema.printed());
    let own = Resolved {
        name: "google/type/postal_address.proto".to_owned(),
        text: "syntax = \"proto3\"; package google.type; message PostalAddress { int32 mine = 7; }".to_owned(),
        kind: SchemaType::Protobuf,
    };
    let own = Schema::parse(&text, &[own]).expect("a schema");
    assert!(!differences(&own, &schema, &Budget::default()).expect("in time").is_empty(), "what was registered counts");
}

#[test]
fn options_that_nothing_declares_are_kept_and_mean_nothing() {
    let with = |owner: &str, kind: &str| {
        three(&format!(
            "message M {{ option (owner) = \"{owner}\"; {kind} a = 1 [(mark) = 1]; oneof o {{ option (x) = true; int32 b = 2; }}
               enum E {{ option (y) = 1; Z = 0 [(z) = 2]; }} }} service S {{ option (s) = 1; rpc R (M) returns (M) {{ option (r) = 2; }} }}"
        ))
    };
    let (mine, yours, other) =
        (parse(&with("me", "int32")), parse(&with("you", "int32")), parse(&with("me", "string")));
    assert!(mine.text().contains("(owner) = \"me\""));
    assert_ne!((mine.printed(), mine.normal()), (yours.printed(), yours.normal()));
    let differ = |one: &Schema, other: &Schema| differences(one, other, &Budget::default()).expect("in time");
    assert!(differ(&mine, &yours).is_empty());
    assert_eq!(differ(&mine, &other).len(), 1);
    assert!(Schema::parse(&three("message M { option (owner) = 1; X a = 1; }"), &[]).is_err(), "the rest must compile");
}

#[test]
fn what_is_no_schema_is_refused() {
    for text in ["message", "syntax = \"proto3\"; message M { X a = 1; }", "AAAA"] {
        assert!(Schema::parse(text, &[]).is_err(), "{text:?}");
    }
}
