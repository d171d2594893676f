//! Policies: any text is refused or makes a set, one text always the same set, and what a decision leaves out for speed
//! could not have changed it.
//!
//! The input is up to four parts between lines of `---`: policies, entities, actions, and a question as JSON.
#![no_main]

use cairn_contract::{Direction, Target};
use cairn_policy::{
    Question,
    fuzzing::{Set, compile},
};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(4, |byte| *byte == 0).map(<[u8]>::to_vec).collect::<Vec<_>>();
    if parts.len() == 1 {
        parts = split(data);
    }
    let part = |at: usize| parts.get(at).map(Vec::as_slice).filter(|part| !part.trim_ascii().is_empty());
    let mut files = vec![("a.cedar", part(0).unwrap_or_default())];
    files.extend(part(1).map(|part| ("entities.json", part)));
    files.extend(part(2).map(|part| ("actions.json", part)));
    let question = question(part(3).unwrap_or_default());
    for is_checked in [true, false] {
        let Some(set) = compile(&files, is_checked) else { continue };
        assert!(compile(&files, is_checked).is_some_and(|again| again.version() == set.version()));
        let commented = [part(0).unwrap_or_default(), b"\n// a word\n"].concat();
        files[0].1 = &commented;
        assert!(compile(&files, is_checked).is_some_and(|again| again.version() == set.version()), "a comment counts");
        files[0].1 = part(0).unwrap_or_default();
        agrees(&set, &question);
        agrees(&set, &Question { principal: "ann".to_owned(), server: "s".to_owned(), ..question.clone() });
    }
});

fn agrees(set: &Set, question: &Question) {
    if let Some((slice, whole)) = set.decisions(question) {
        assert_eq!(slice, whole, "{question:?}");
    }
}

fn split(data: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new()];
    for line in data.split_inclusive(|byte| *byte == b'\n') {
        match parts.last_mut() {
            Some(_) if line == b"---\n" && parts.len() < 4 => parts.push(Vec::new()),
            Some(part) => part.extend_from_slice(line),
            None => {}
        }
    }
    parts
}

fn question(text: &[u8]) -> Question {
    let asked: Map<String, Value> = serde_json::from_slice(text).unwrap_or_default();
    let word = |name: &str, otherwise: &str| asked.get(name).and_then(Value::as_str).unwrap_or(otherwise).to_owned();
    let target = match (asked.get("tool"), asked.get("uri"), asked.get("prompt")) {
        (Some(Value::String(name)), ..) => Target::tool(name),
        (_, Some(Value::String(uri)), _) => Target::resource(uri),
        (.., Some(Value::String(name))) => Target::Prompt { prompt_name: name.clone() },
        _ => Target::None,
    };
    Question {
        principal: word("principal", "ann"),
        action: word("action", "tools/call"),
        direction: if asked.contains_key("to_client") { Direction::ToClient } else { Direction::ToServer },
        server: word("server", "s"),
        target,
        arguments: asked.get("arguments").cloned(),
        context: asked.get("context").and_then(Value::as_object).cloned().unwrap_or_default(),
    }
}
