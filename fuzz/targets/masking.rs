//! Masking: a secret that was put in is nowhere in what comes out, however it was written; twice is once; JSON stays JSON.
//!
//! The first byte picks a secret and how it is written, and what follows stands around it: before it, a NUL, behind it. The
//! whole input is screened as it is, too, as a text and as a document.
#![no_main]

use std::sync::LazyLock;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use cairn_fuzz::reference::Tree;
use cairn_screen::{Classes, Rules, Screener};
use libfuzzer_sys::fuzz_target;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

static SCREENER: LazyLock<Screener> = LazyLock::new(|| Screener::new(Rules::embedded()));

/// None of them is anybody's.
const SECRETS: [&str; 6] = [
    "AKIAQ7XDEMO3CANARY22",
    "ghp_k3J9xQz81LmNp2RtUv7WyA4bC6dE8fG0hI1j",
    "hvs.k3J9xQz81LmNp2RtUv7WyA4bC6dE8fG0hI1jK5lM",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NSJ9.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
    "4111 1111 1111 1111",
    "ann.other@mail.example",
];

fuzz_target!(|data: &[u8]| {
    as_it_is(data);
    let Some((pick, around)) = data.split_first() else { return };
    let around = String::from_utf8_lossy(around);
    let (before, behind) = around.split_once('\0').unwrap_or((&around, ""));
    let secret = SECRETS[usize::from(*pick) % SECRETS.len()];
    let text = format!("{before} {secret} {behind}");
    let way = usize::from(*pick) / SECRETS.len() % 8;
    let said = SCREENER.text(&text);
    hidden(secret, &said, "text", &text);
    let written = match way {
        0 => Value::from(text.as_str()).to_string(),
        1 => {
            let units = text.encode_utf16().map(|unit| format!("\\u{unit:04x}"));
            format!("\"{}\"", units.collect::<String>())
        }
        2 => Value::from(json!({ "inner": text, "n": [1] }).to_string()).to_string(),
        3 => format!("\"https://h.example/p?q={}\"", utf8_percent_encode(&text, NON_ALPHANUMERIC)),
        4 => format!("\"{}\"", STANDARD.encode(&text)),
        5 => format!("\"https://h.example/b/{}\"", URL_SAFE_NO_PAD.encode(&text)),
        6 => json!({ text.as_str(): 1 }).to_string(),
        _ => Value::from(STANDARD.encode(STANDARD.encode(&text))).to_string(),
    };
    let document = format!("{{\"a\":[1,{written}],\"b\":{{}}}}");
    let masked = SCREENER.json(document.as_bytes(), &Classes::new());
    assert!(masked.count > 0 && !masked.found.is_empty(), "way {way}: nothing found in {document}");
    let out = masked.changed.expect("what is found is masked");
    let out = std::str::from_utf8(&out).expect("masks stand between characters");
    hidden(secret, out, "document", &document);
    hidden(secret, &format!("{:?}", masked.found), "findings", &document);
    again(out);
});

fn as_it_is(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let once = SCREENER.text(text).into_owned();
        assert_eq!(SCREENER.text(&once), once, "masking {text:?} twice");
        assert!(SCREENER.is_clean(&once), "what is masked is clean: {once:?}");
        let _ = SCREENER.text_under("password", text);
    }
    let masked = SCREENER.json(data, &Classes::new());
    let seen = SCREENER.look(data, &Classes::new());
    assert_eq!((seen.count, &seen.found, &seen.changed), (masked.count, &masked.found, &None));
    let tree = Tree::read(data);
    if let Some(out) = masked.changed {
        assert_eq!(tree.is_ok(), Tree::read(&out).is_ok() && tree.is_ok(), "JSON stays JSON");
        if let Ok(out) = std::str::from_utf8(&out) {
            again(out);
        }
    }
}

fn again(document: &str) {
    let twice = SCREENER.json(document.as_bytes(), &Classes::new()).changed;
    assert_eq!(twice.as_deref().map(String::from_utf8_lossy), None, "masking {document} twice");
}

/// Nothing of the secret stands in it, in any spelling.
fn hidden(secret: &str, out: &str, what: &str, document: &str) {
    let percent = utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string();
    let mut needles = vec![secret.to_owned(), percent];
    needles.push(secret.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect());
    for lead in 0..3 {
        let encoded = STANDARD.encode([&vec![b'x'; lead], secret.as_bytes()].concat());
        let (start, end) = (if lead == 0 { 0 } else { 4 }, encoded.trim_end_matches('=').len() - 1);
        needles.push(encoded[start..end].to_owned());
        needles.push(encoded[start..end].replace('+', "-").replace('/', "_"));
    }
    for needle in needles {
        assert!(!out.contains(&needle), "{needle} in the {what} {out:?} of {document:?}");
    }
}
