//! `docs/policy.md`, held to the engine: each policy set in it compiles, and each call below it is decided as it says.

use cairn_contract::{Direction, Target};
use cairn_policy::{Obligation, PolicyStore, Question, Ruling};

const DOCUMENT: &str = include_str!("../../../docs/policy.md");

/// Policy sets with the rows of the table behind each.
fn examples() -> Vec<(String, Vec<Vec<String>>)> {
    let (_, examples) = DOCUMENT.split_once("\n## Examples\n").expect("the document has examples");
    let parts = examples.split("```cedar\n").skip(1);
    parts
        .map(|part| {
            let (policies, rest) = part.split_once("\n```\n").expect("a block has an end");
            let table = rest.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
            let rows = table.skip(2).map(|line| {
                let cells = line.trim_matches('|').split('|');
                cells.map(|cell| cell.trim().to_owned()).collect()
            });
            (policies.to_owned(), rows.collect())
        })
        .collect()
}

/// What stands between backticks.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect()
}

fn question(row: &[String]) -> Question {
    let cell = |at: usize| quoted(&row[at]).into_iter().next();
    let what = cell(2).expect("what the call is about");
    let (kind, id) = what.split_once("::").map_or(("Server", what.as_str()), |(kind, id)| (kind, id.trim_matches('"')));
    let (server, name) = id.split_once('/').map_or((id, None), |(server, name)| (server, Some(name)));
    let name = || name.expect("a name behind the server").to_owned();
    let target = match kind {
        "Tool" => Target::tool(name()),
        "Resource" => Target::resource(name()),
        "Prompt" => Target::prompt(name()),
        _ => Target::None,
    };
    let action = cell(1).expect("a method");
    let to_client = action.starts_with("sampling/") || action.starts_with("roots/");
    Question {
        principal: cell(0).expect("a user"),
        action,
        direction: if to_client { Direction::ToClient } else { Direction::ToServer },
        server: server.to_owned(),
        target,
        arguments: cell(3).map(|text| serde_json::from_str(&text).expect("arguments are JSON")),
        context: serde_json::Map::new(),
    }
}

#[test]
fn every_set_in_the_document_compiles() {
    let sets: Vec<&str> =
        DOCUMENT.split("```cedar\n").skip(1).filter_map(|part| part.split("\n```\n").next()).collect();
    assert!(sets.len() > examples().len(), "obligations have examples too");
    for set in sets {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("example.cedar"), set).expect("written");
        PolicyStore::open(Some(folder.path().to_owned())).expect("it compiles");
    }
}

#[test]
fn every_example_is_decided_as_the_document_says() {
    let examples = examples();
    assert!(examples.len() >= 3 && examples.iter().all(|(_, rows)| rows.len() >= 2), "{examples:?}");
    for (policies, rows) in examples {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("example.cedar"), &policies).expect("written");
        let store = PolicyStore::open(Some(folder.path().to_owned())).expect("it compiles");
        for row in rows {
            let verdict = store.decide(&question(&row));
            let asks = verdict.obligations.iter().any(|obligation| matches!(obligation, Obligation::Approval { .. }));
            let said = match (&verdict.outcome, asks) {
                (Ruling::Deny, _) => "denied",
                (Ruling::Permit(_), true) => "approval",
                (Ruling::Permit(_), false) => "permitted",
            };
            assert!(row[4].starts_with(said), "{row:?}: {verdict:?}");
            assert_eq!(verdict.determining, quoted(&row[4]), "{row:?}");
        }
    }
}
