//! What must hold of masking: nothing that a rule finds comes through, however it is written; twice is once.

use std::sync::LazyLock;

use base64::{Engine as _, engine::general_purpose::STANDARD, engine::general_purpose::URL_SAFE_NO_PAD};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const AWS: &str = "AKIAQ7XDEMO3CANARY22";

/// Made once: to compile the rules takes longer than to use them.
static SCREENER: LazyLock<Screener> = LazyLock::new(|| Screener::new(Rules::embedded()));

fn screener() -> &'static Screener {
    &SCREENER
}

fn masked(document: &str) -> (String, Masked) {
    let masked = screener().json(document.as_bytes(), &Classes::new());
    let text = masked.changed.clone().map_or_else(|| document.to_owned(), |text| String::from_utf8(text).unwrap());
    (text, masked)
}

/// One example for each rule that comes with Cairn, and what of it must go.
fn examples() -> Vec<(&'static str, String, String)> {
    let chance = "k3J9xQz81LmNp2RtUv7WyA4bC6dE8fG0hI1jK5lM";
    let hex = "0123456789abcdef0123456789abcdef";
    let own = |rule, text: &str| (rule, text.to_owned(), text.to_owned());
    let within = |rule, text: String, value: &str| (rule, text, value.to_owned());
    vec![
        own("private-key", "-----BEGIN RSA PRIVATE KEY-----\nMIIEabcdef\n-----END RSA PRIVATE KEY-----"),
        own("aws-access-key", AWS),
        within("aws-secret-key", format!("aws secret: {chance}"), chance),
        own("gcp-api-key", &format!("AIza{}", &chance[..35])),
        own("gcp-oauth-token", &format!("ya29.{chance}")),
        within("azure-storage-key", format!("AccountName=x;AccountKey={chance}{chance}=="), chance),
        within("azure-sas", format!("https://h.example/c?sv=1&sig={chance}"), chance),
        own("github-token", &format!("ghp_{}", &chance[..36])),
        own("gitlab-token", &format!("glpat-{}", &chance[..20])),
        own("slack-token", &format!("xoxb-{}", &chance[..20])),
        within("slack-webhook", format!("https://hooks.slack.com/services/T0AAAAAAA/B0AAAAAAA/{chance}"), chance),
        own("stripe-key", &format!("sk_live_{}", &chance[..24])),
        own("openai-key", &format!("sk-proj-{chance}")),
        own("huggingface-token", "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH"),
        own("npm-token", &format!("npm_{}", &chance[..36])),
        own("pypi-token", &format!("pypi-{chance}{chance}")),
        own("docker-token", &format!("dckr_pat_{}", &chance[..27])),
        own("sendgrid-key", &format!("SG.{}.{chance}", &chance[..22])),
        own("mailgun-key", &format!("key-{hex}")),
        own("telegram-token", &format!("123456789:AA{}", &chance[..33])),
        own("digitalocean-token", &format!("dop_v1_{hex}{hex}")),
        own("shopify-token", &format!("shpat_{hex}")),
        own("vault-token", &format!("hvs.{chance}")),
        own("databricks-token", &format!("dapi{hex}")),
        own("age-key", &format!("AGE-SECRET-KEY-1{}", "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7LQPZRY9X8GF2TVDW0S3JN54KHCE")),
        own("jwt", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NSJ9.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
        within("bearer", format!("authorization header Bearer {chance}"), chance),
        within("url-password", "postgres://app:hunter2secret@db.example/x".to_owned(), "hunter2secret"),
        within("assigned-secret", "the password is hunter2secret".to_owned(), "hunter2secret"),
        within("assigned-secret", "set DB_PASSWORD=hunter2secret".to_owned(), "hunter2secret"),
        within("assigned-token", format!("token={chance}"), chance),
        own("email", "ann.other@mail.example"),
        own("phone", "+44 20 7946 0958"),
        own("phone-nanp", "(415) 555-2671"),
        own("card", "4111 1111 1111 1111"),
        own("card", "378282246310005"),
        own("us-ssn", "123-45-6789"),
        own("ipv4", "203.0.113.77"),
        own("ipv6", "2001:db8:85a3::8a2e:370:7334"),
        own("iban", "GB82 WEST 1234 5698 7654 32"),
        own("iban", "DE89370400440532013000"),
    ]
}

/// All the ways in which a string may stand in a JSON document.
fn ways(text: &str) -> Vec<(&'static str, String)> {
    let escaped: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
    let first = format!("\\u{:04X}{}", text.encode_utf16().next().unwrap(), json_text(&text[1..]));
    let nested = Value::String(json!({ "inner": text, "n": 1 }).to_string()).to_string();
    let deeper = Value::String(json!({ "deep": serde_json::from_str::<String>(&nested).unwrap() }).to_string());
    let percent: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let uri = percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
    let long = format!("some words before {text} and some after");
    vec![
        ("plain", Value::String(long.clone()).to_string()),
        ("escaped", format!("\"{escaped}\"")),
        ("first letter escaped", format!("\"{first}\"")),
        ("JSON in a string", nested),
        ("JSON in JSON in a string", deeper.to_string()),
        ("percent-encoded", format!("\"https://h.example/p?q={percent}\"")),
        ("URI-encoded", format!("\"https://h.example/p?q={uri}\"")),
        ("base64", format!("\"{}\"", STANDARD.encode(&long))),
        ("base64 url", format!("\"{}\"", URL_SAFE_NO_PAD.encode(&long))),
        ("data URI", format!("\"data:text/plain;base64,{}\"", STANDARD.encode(&long))),
        ("base64 behind a path", format!("\"https://h.example/b/{}\"", URL_SAFE_NO_PAD.encode(&long))),
        ("base64 twice", format!("\"{}\"", STANDARD.encode(STANDARD.encode(&long)))),
        ("hexadecimal", format!("\"{}\"", hex::encode(&long))),
    ]
}

fn json_text(text: &str) -> String {
    let quoted = Value::String(text.to_owned()).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

fn needles(text: &str) -> Vec<String> {
    let percent: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let escaped: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
    let mut all = vec![text.to_owned(), json_text(text), percent, escaped, hex::encode(text)];
    // What of a text shows in base64 whatever stands before it.
    for lead in 0..3 {
        let encoded = STANDARD.encode([&vec![b'x'; lead], text.as_bytes()].concat());
        let start = if lead == 0 { 0 } else { 4 };
        let end = encoded.trim_end_matches('=').len() - 1;
        if end > start + 8 {
            all.push(encoded[start..end].to_owned());
            all.push(encoded[start..end].replace('+', "-").replace('/', "_"));
        }
    }
    all
}

#[test]
fn what_a_rule_finds_does_not_come_through_however_it_is_written() {
    for (rule, text, value) in examples() {
        for (way, written) in ways(&text) {
            for document in
                [written.clone(), format!("{{\"a\":1,\"text\":{written},\"b\":[]}}"), format!("[[{written}]]")]
            {
                let (shown, masked) = masked(&document);
                assert!(masked.count > 0, "{rule}, {way}: nothing found in {document}");
                serde_json::from_str::<Value>(&shown)
                    .unwrap_or_else(|e| panic!("{rule}, {way}: no JSON: {e}: {shown}"));
                for needle in needles(&value) {
                    assert!(!shown.contains(&needle), "{rule}, {way}: {needle} in {shown}");
                }
            }
        }
        let said = screener().text(&text).into_owned();
        assert!(said.contains("[masked:") && !said.contains(&value), "{rule}: {said}");
    }
}

#[test]
fn what_is_long_is_decoded_wherever_it_begins() {
    let words = "some words that say nothing at all, ".repeat(400);
    for lead in ["", "x", "xy", "xyz", "https://h.example/files/", "b/", "id_"] {
        for secret_first in [true, false] {
            let text = if secret_first { format!("{AWS} {words}") } else { format!("{words} {AWS}") };
            for encoded in [STANDARD.encode(&text), URL_SAFE_NO_PAD.encode(&text)] {
                let (shown, masked) = masked(&Value::from(format!("{lead}{encoded}")).to_string());
                assert!(masked.count > 0, "behind {lead:?}");
                for needle in needles(AWS) {
                    assert!(!shown.contains(&needle), "{needle} behind {lead:?}");
                }
            }
        }
    }
}

#[test]
fn hexadecimal_digits_are_decoded_behind_what_marks_them() {
    for lead in ["", "0x", "0X", "a", "key_", "sha256-", "https://h.example/0x", "id/"] {
        for tail in ["", "f", "_end", "zz"] {
            for digits in [hex::encode(AWS), hex::encode_upper(format!("the key is {AWS} as ever"))] {
                let (shown, masked) = masked(&Value::from(format!("{lead}{digits}{tail}")).to_string());
                // A digit before and one behind are nobody's habit, and every id would be decoded twice for it.
                if (lead, tail) == ("a", "f") {
                    continue;
                }
                assert!(masked.count > 0 && !shown.contains(&digits), "{lead:?}{digits}{tail:?}");
            }
        }
    }
}

#[test]
fn every_rule_has_an_example_that_it_finds_itself() {
    for (rule, text, _) in examples() {
        let found = screener().json(Value::String(text.clone()).to_string().as_bytes(), &Classes::new()).found;
        // Another rule may begin earlier or be longer; both are right.
        assert!(!found.is_empty(), "{rule}: {text}");
    }
}

#[test]
fn a_secret_is_masked_in_names_numbers_and_under_telling_names() {
    let (shown, found) = masked(&format!("{{\"{AWS}\":1,\"n\":4111111111111111,\"cvv\":123,\"pwd\":\"abc\"}}"));
    assert_eq!(
        shown,
        "{\"[masked:aws-access-key]\":1,\"n\":\"[masked:card]\",\"cvv\":\"[masked:named-secret]\",\"pwd\":\"[masked:named-secret]\"}"
    );
    assert!(!format!("{found:?}").replace(&format!("{:?}", found.changed), "").contains(AWS));
    let (shown, _) = masked(r#"{"passwords":[1],"password":["a",{"x":1},"b"],"p\u0061ssword":"c","apiKey":"d"}"#);
    assert_eq!(
        shown,
        r#"{"passwords":[1],"password":["[masked:named-secret]",{"x":1},"[masked:named-secret]"],"p\u0061ssword":"[masked:named-secret]","apiKey":"[masked:named-secret]"}"#
    );
}

#[test]
fn findings_say_where_and_by_which_rule_and_never_what() {
    let (_, found) = masked(&format!("{{\"a\":{{\"b/c\":[0,\"{AWS}\"]}},\"{AWS}\":{{\"password\":\"hunter2\"}}}}"));
    let said: Vec<String> = found.found.iter().map(|f| format!("{} {}", f.pointer, f.rule)).collect();
    assert_eq!(
        said,
        [
            "/a/b~1c/1 aws-access-key",
            "/[masked:aws-access-key] aws-access-key",
            "/[masked:aws-access-key]/password named-secret"
        ]
    );
}

#[test]
fn classes_come_first_and_a_schema_only_raises() {
    let mut classes = Classes::new();
    classes.rule("/open", Class::Public).unwrap();
    classes.rule("/who", Class::Personal).unwrap();
    classes.rule("/key", Class::Secret).unwrap();
    classes.raise_by_schema(&json!({ "properties": {
        "key": { "x-classification": "personal" }, "open2": { "x-classification": "public" }, "pin2": { "writeOnly": true }, "obj": { "format": "password" }
    } }));
    let document = format!(
        "{{\"open\":\"{AWS}\",\"open2\":\"{AWS}\",\"who\":{{\"n\":1}},\"pin2\":7,\"obj\":[{{}}],\"rest\":\"x\",\"key\":\"k\"}}"
    );
    let masked = screener().json(document.as_bytes(), &classes);
    assert_eq!(
        String::from_utf8(masked.changed.unwrap()).unwrap(),
        format!(
            "{{\"open\":\"{AWS}\",\"open2\":\"[masked:aws-access-key]\",\"who\":\"[masked:class-personal]\",\"pin2\":\"[masked:class-secret]\",\"obj\":\"[masked:class-secret]\",\"rest\":\"x\",\"key\":\"[masked:class-secret]\"}}"
        )
    );
}

#[test]
fn ordinary_json_stays_as_it_is() {
    let document = r#"{"id":"01996b5e-7c00-7000-8000-000000000001","time":"2026-03-01T12:30:45.123456Z","amount":1234.56,
        "path":"/srv/orders/2026-03-01/report.pdf","note":"Order 4711 was refunded: 12 items\nThank you.","ratio":0.333333333,
        "digest":"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","version":"1.90.2","n":17950000000001,
        "tokens_used":512,"key":"value","items":[1,2,3,40000],"url":"https://example.org/mcp?page=2&size=50","t":"12:30:45"}"#;
    let masked = screener().json(document.as_bytes(), &Classes::new());
    assert_eq!(masked.found, []);
    assert_eq!(masked.changed, None);
}

#[test]
fn what_cannot_be_looked_at_whole_does_not_pass() {
    let mut text = format!("a secret of mine {AWS}");
    for _ in 0..8 {
        text = STANDARD.encode(&text);
    }
    assert_eq!(screener().text(&text), "[masked:not-decodable]");
    let deep = format!("{}\"{AWS}\"{}", "[".repeat(400), "]".repeat(400));
    assert!(
        !String::from_utf8(screener().json(deep.as_bytes(), &Classes::new()).changed.unwrap()).unwrap().contains(AWS)
    );
}

#[test]
fn a_mask_of_somebody_elses_hides_nothing() {
    for text in [
        format!("password=[masked:a]{AWS}"),
        format!("[masked:{AWS}]"),
        "password=[masked:hunter2hunter2]".to_owned(),
        "password=[masked:x]hunter2hunter2".to_owned(),
    ] {
        let shown = screener().text(&text).into_owned();
        assert!(!shown.contains(AWS) && !shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn a_detector_can_be_added() {
    #[derive(Debug)]
    struct Word;
    impl Detector for Word {
        fn rules(&self) -> Vec<std::sync::Arc<str>> {
            vec!["zebra".into()]
        }

        fn find(&self, text: &[u8], _: Option<&str>, found: &mut Vec<Match>) {
            for at in memchr::memmem::find_iter(text, b"zebra") {
                found.push(Match { range: at..at + 5, rule: "zebra".into() });
            }
        }
    }
    let screener = screener().with(std::sync::Arc::new(Word));
    let masked = screener.json(
        format!("{{\"a\":\"a zebra\",\"b\":\"{}\"}}", STANDARD.encode("a striped zebra")).as_bytes(),
        &Classes::new(),
    );
    assert_eq!(String::from_utf8(masked.changed.unwrap()).unwrap(), r#"{"a":"a [masked:zebra]","b":"[masked:zebra]"}"#);
}

/// Texts out of pieces that rules look for, masks, escapes and anything.
fn texts() -> impl Strategy<Value = String> {
    let pieces = prop_oneof![
        3 => prop::sample::select(examples().into_iter().map(|(_, text, _)| text).collect::<Vec<_>>()),
        3 => prop::sample::select(
            ["[masked:email]", "[masked:", "]", "password=", "token: ", "\\", "\\u00", "%4", "%40", "@", "-----BEGIN", "Bearer ",
             "AKIA", ":", "é", "😀", "\"", "{\"pin\":\"1\"}", " ", "\n", "4111", "+1", ".", "=", "/"].map(str::to_owned).to_vec()
        ),
        1 => ".{0,12}",
        1 => examples_encoded(),
    ];
    prop::collection::vec(pieces, 0..7).prop_map(|pieces| pieces.concat())
}

fn examples_encoded() -> impl Strategy<Value = String> {
    let all: Vec<String> =
        examples().into_iter().flat_map(|(_, text, _)| ways(&text)).map(|(_, written)| written).collect();
    prop::sample::select(all)
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        texts().prop_map(Value::String),
        any::<i64>().prop_map(|n| json!(n)),
        Just(json!(4111111111111111_u64)),
        Just(Value::Null)
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let names = prop_oneof![
            texts(),
            prop::sample::select(vec!["password".to_owned(), "apiKey".to_owned(), "note".to_owned()])
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::vec((names, inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn masking_a_text_twice_is_masking_it_once(text in texts()) {
        let screener = screener();
        let once = screener.text(&text).into_owned();
        prop_assert_eq!(screener.text(&once).into_owned(), once.clone());
        prop_assert!(screener.is_clean(&once));
    }

    #[test]
    fn masking_json_twice_is_masking_it_once_and_stays_json(value in values()) {
        let screener = screener();
        let document = value.to_string();
        let masked = screener.json(document.as_bytes(), &Classes::new());
        let once = masked.changed.unwrap_or_else(|| document.clone().into_bytes());
        prop_assert!(serde_json::from_slice::<Value>(&once).is_ok());
        let again = screener.json(&once, &Classes::new());
        prop_assert_eq!(again.changed.map(|text| String::from_utf8(text).unwrap()), None, "{}", String::from_utf8_lossy(&once));
    }

    #[test]
    fn any_bytes_are_taken(document in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = screener().json(&document, &Classes::new());
    }
}

#[test]
fn what_is_classified_alone_leaves_all_else_as_it_is() {
    let screener = Screener::new(Rules::embedded());
    let mut classes = Classes::new();
    classes.rule("/a/*/b", Class::Secret).expect("a pointer");
    let document = br#"{"a":[{"b":{"x":1}},{"c":"ann@example.org","b":null}], "n": 1.50}"#;
    let masked = screener.classified(document, &classes);
    let expected = r#"{"a":[{"b":"[masked:class-secret]"},{"c":"ann@example.org","b":null}], "n": 1.50}"#;
    assert_eq!(masked.changed.as_deref(), Some(expected.as_bytes()));
    assert_eq!(screener.classified(br#"{"b":1}"#, &classes).changed, None);
    let broken = screener.classified(b"{\"a\":[{\"b\":\"s3cret", &classes).changed.expect("masked as a whole");
    assert_eq!(broken, b"\"[masked:class-secret]\"");
}

/// What a text with something in it is made of, and what only looks like that.
fn pieces() -> impl Strategy<Value = String> {
    const FIXED: [&str; 18] = [
        "01996b5e-7c00-7000-8000-000000000012",
        "2026-03-01T12:30:45Z",
        "left at the door",
        "4111 1111 1111 1111",
        "078-05-1120",
        "10.20.30.40",
        "a@b.example",
        "+49 151 23456789",
        "DE89 3704 0044 0532 0130 00",
        "2a00:1450::1",
        "70617373776f72643d68756e74657232",
        "cGFzc3dvcmQ9aHVudGVyMg==",
        "AKIAQ7XDEMO3CANARY22",
        "the/path/of/something/that/is/long",
        "%41",
        "{\"password\":\"x\"}",
        "\n",
        " ",
    ];
    prop_oneof![
        proptest::sample::select(&FIXED[..]).prop_map(str::to_owned),
        "[0-9a-f-]{1,40}",
        "[A-Za-z0-9 .:+/@_-]{0,30}"
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_text_that_is_passed_by_has_nothing_in_it(pieces in proptest::collection::vec(pieces(), 0..6)) {
        let text = pieces.concat();
        prop_assert!(!screener().rules().patterns.is_plain(text.as_bytes()) || screener().is_clean(&text), "{text:?}");
    }
}
