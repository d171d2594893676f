//! Slice and whole agree: what a decision leaves out could not have changed it.

use cairn_clock::Timestamp;
use cairn_contract::{Direction, Target};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{Question, files::SourceFile, fuzzing::all, set::ActiveSet};

const NOW: Timestamp = Timestamp::from_micros(1_795_521_600_123_456);

fn file(name: &str, text: &str) -> SourceFile {
    SourceFile { path: name.into(), name: name.to_owned(), bytes: text.as_bytes().to_vec() }
}

fn scope(part: &'static str, kinds: &'static [(&'static str, &'static [&'static str])]) -> BoxedStrategy<String> {
    let kind = proptest::sample::select(kinds);
    let named = kind.prop_flat_map(move |(kind, ids)| {
        let id = proptest::sample::select(ids);
        (0..5_u8, id).prop_map(move |(how, id)| match how {
            0 => format!("{part} == {kind}::\"{id}\""),
            1 => format!("{part} in {kind}::\"{id}\""),
            2 => format!("{part} is {kind}"),
            3 => format!("{part} is {kind} in Group::\"{}\"", id.split('/').next().unwrap_or("g")),
            _ => part.to_owned(),
        })
    });
    prop_oneof![2 => Just(part.to_owned()), 5 => named].boxed()
}

const WHO: &[(&str, &[&str])] = &[("User", &["ann", "bob"]), ("Group", &["g", "h"])];
const WHAT: &[(&str, &[&str])] =
    &[("Tool", &["s/a", "s/b", "t/a"]), ("Server", &["s", "t"]), ("Group", &["g", "tools"]), ("Prompt", &["s/a"])];

fn policy() -> impl Strategy<Value = String> {
    let action = prop_oneof![
        Just("action".to_owned()),
        Just("action == Action::\"tools/call\"".to_owned()),
        Just("action == Action::\"ping\"".to_owned()),
        Just("action in [Action::\"tools/call\", Action::\"ping\", Action::\"tools/call\"]".to_owned()),
        Just("action in Action::\"to_server\"".to_owned()),
        Just("action in []".to_owned()),
    ];
    let condition = prop_oneof![
        3 => Just(String::new()),
        1 => Just("when { context.arguments.n > 3 }".to_owned()),
        1 => Just("when { context.arguments.nothing }".to_owned()),
        1 => Just("unless { principal.level > 1 }".to_owned()),
        1 => Just("when { principal.boss.level > 1 }".to_owned()),
        1 => Just("when { principal.boss in Group::\"h\" }".to_owned()),
        1 => Just("when { User::\"ann\" in Group::\"g\" && User::\"ann\".boss.boss.level > 0 }".to_owned()),
        1 => Just("when { resource.owner == principal }".to_owned()),
        1 => Just("when { resource.owner.level == 2 }".to_owned()),
        1 => Just("when { Server::\"s\" in Group::\"tools\" || resource in Server::\"t\" }".to_owned()),
    ];
    let effect = prop_oneof![2 => Just("permit"), 1 => Just("forbid")];
    (effect, scope("principal", WHO), action, scope("resource", WHAT), condition)
        .prop_map(|(effect, who, action, what, when)| format!("{effect}({who}, {action}, {what}) {when};\n"))
}

fn entity(
    kind: &'static str,
    id: &'static str,
    parents: &'static [(&'static str, &'static str)],
) -> BoxedStrategy<Vec<Value>> {
    let boss = proptest::option::of(proptest::sample::select(&["ann", "bob", "cat", "ann"][..]));
    let parents = proptest::sample::subsequence(parents, 0..=parents.len());
    let level = proptest::option::of(0..4_i64);
    (any::<bool>(), boss, parents, level)
        .prop_map(move |(is, boss, parents, level)| {
            let mut attrs = serde_json::Map::new();
            if let Some(level) = level {
                attrs.insert("level".to_owned(), json!(level));
            }
            if let Some(boss) = boss {
                let key = if kind == "User" { "boss" } else { "owner" };
                attrs.insert(key.to_owned(), json!({ "__entity": { "type": "User", "id": boss } }));
            }
            let parents: Vec<_> = parents.iter().map(|(kind, id)| json!({ "type": kind, "id": id })).collect();
            let entity = json!({ "uid": { "type": kind, "id": id }, "attrs": attrs, "parents": parents });
            if is { vec![entity] } else { Vec::new() }
        })
        .boxed()
}

fn entities() -> impl Strategy<Value = Vec<Value>> {
    (
        entity("User", "ann", &[("Group", "g"), ("Group", "h")]),
        entity("User", "bob", &[("Group", "g")]),
        entity("User", "cat", &[("Group", "h")]),
        entity("Group", "g", &[("Group", "h"), ("Group", "tools")]),
        entity("Tool", "s/a", &[("Group", "tools"), ("Group", "g")]),
        entity("Tool", "t/a", &[("Group", "h")]),
        entity("Server", "s", &[("Group", "tools")]),
        entity("Server", "t", &[("Group", "g")]),
    )
        .prop_map(|(a, b, c, d, e, f, g, h)| [a, b, c, d, e, f, g, h].concat())
}

fn question() -> impl Strategy<Value = Question> {
    let target = prop_oneof![
        Just(Target::tool("a")),
        Just(Target::tool("b")),
        Just(Target::None),
        Just(Target::Prompt { prompt_name: "a".to_owned() }),
    ];
    let (who, what) = (
        proptest::sample::select(&["ann", "bob", "dan"][..]),
        proptest::sample::select(&["tools/call", "ping", "roots/list", "x"][..]),
    );
    (who, what, proptest::sample::select(&["s", "t"][..]), target, proptest::option::of(0..6_i64)).prop_map(
        |(who, action, server, target, n)| Question {
            principal: who.to_owned(),
            action: action.to_owned(),
            direction: Direction::ToServer,
            server: server.to_owned(),
            target,
            arguments: n.map(|n| json!({ "n": n })),
            context: serde_json::Map::new(),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn slice_and_whole_agree(
        policies in proptest::collection::vec(policy(), 1..30),
        entities in entities(),
        questions in proptest::collection::vec(question(), 1..8),
    ) {
        let files = [file("a.cedar", &policies.concat()), file("entities.json", &json!(entities).to_string())];
        let set = ActiveSet::unchecked(&files);
        for question in questions {
            let asked = set.ask(&question, NOW);
            let rules = set.rules().expect("policies");
            prop_assert_eq!(rules.decide(&asked), rules.decide_whole(&asked, &all(&set, &question)), "{:?}", question);
        }
    }
}

#[test]
fn a_slice_holds_only_what_can_bear_on_the_question() {
    let policies: String = (0..1_000)
        .map(|i| format!("permit(principal, action == Action::\"tools/call\", resource == Tool::\"s/t{i}\");\n"))
        .collect();
    let people: Vec<_> = (0..10_000)
        .map(|i| json!({ "uid": { "type": "User", "id": format!("u{i}") }, "attrs": {}, "parents": [{ "type": "Group", "id": "g" }] }))
        .collect();
    let files = [file("a.cedar", &policies), file("entities.json", &json!(people).to_string())];
    let set = ActiveSet::compile(&files).expect("it compiles");
    let asked = set.ask(
        &Question {
            principal: "u77".to_owned(),
            action: "tools/call".to_owned(),
            direction: Direction::ToServer,
            server: "s".to_owned(),
            target: Target::tool("t500"),
            arguments: None,
            context: serde_json::Map::new(),
        },
        NOW,
    );
    assert_eq!(asked.known.slice.num_of_policies(), 1);
    assert_eq!(asked.known.entities.len(), 4);
    assert!(set.decide(&asked).permit);
}

#[test]
fn a_resource_is_in_every_template_that_is_named_and_fits_and_in_no_other() {
    let policies = r#"
        @id("orders") permit(principal, action == Action::"resources/read", resource in ResourceTemplate::"s/order://{id}");
        @id("grouped") permit(principal, action, resource in Group::"open");
        @id("never") forbid(principal, action, resource) when { resource in ResourceTemplate::"s/order://{id}/notes{?all}" };
        @id("named") permit(principal, action, resource is Tool) when { context.server == "s/order://{x}" };
    "#;
    let entities = json!([
        { "uid": { "type": "ResourceTemplate", "id": "s/file:///open/{+path}" }, "parents": [{ "type": "Group", "id": "open" }] },
        { "uid": { "type": "Resource", "id": "s/order://7" }, "parents": [{ "type": "Group", "id": "seven" }] },
    ]);
    let set = ActiveSet::compile(&[file("a.cedar", policies), file("entities.json", &entities.to_string())]);
    let set = set.expect("it compiles");
    let said = |server: &str, uri: &str| {
        let question = Question {
            principal: "ann".to_owned(),
            action: "resources/read".to_owned(),
            direction: Direction::ToServer,
            server: server.to_owned(),
            target: Target::resource(uri),
            arguments: None,
            context: serde_json::Map::new(),
        };
        let asked = set.ask(&question, NOW);
        let said = set.decide(&asked);
        assert_eq!(said, set.rules().expect("policies").decide_whole(&asked, &all(&set, &question)));
        (said.permit, said.determining)
    };
    assert_eq!(said("s", "order://1"), (true, vec!["orders".to_owned()]));
    assert_eq!(said("s", "order://7"), (true, vec!["orders".to_owned()]), "one that the file describes");
    assert_eq!(said("t", "order://1"), (false, vec![]), "another server's");
    assert_eq!(said("s", "order://1/2"), (false, vec![]));
    assert_eq!(said("s", "file:///open/a/b"), (true, vec!["grouped".to_owned()]));
    assert_eq!(said("s", "file:///shut/a"), (false, vec![]));
    assert_eq!(said("s", "order://1/notes?all=1"), (false, vec!["never".to_owned()]));
}

#[test]
fn a_template_that_cannot_be_matched_is_a_mistake_where_it_stands() {
    let policies = "\npermit(principal, action, resource in ResourceTemplate::\"s/order://{id:3}\");\n";
    let error = ActiveSet::compile(&[file("a.cedar", policies)]).expect_err("no template").to_string();
    assert!(error.contains("a.cedar:2") && error.contains("{id:3}"), "{error}");
    let entities = json!([{ "uid": { "type": "ResourceTemplate", "id": "s/x{" } }]);
    let error =
        ActiveSet::compile(&[file("entities.json", &entities.to_string())]).expect_err("no template").to_string();
    assert!(error.contains("never closed"), "{error}");
}
