//! How a text stands in a header: as it is where it is plain, else in base64 between `=?base64?` and `?=`
//! (2026-07-28, Streamable HTTP, Value Encoding). Called by both directions of the agreement.

use base64::{Engine, engine::general_purpose::STANDARD};

const BEGIN: &str = "=?base64?";
const END: &str = "?=";

/// The header value for a text.
#[must_use]
pub fn encode(text: &str) -> String {
    let is_plain = text.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
    let is_padded = text.starts_with([' ', '\t']) || text.ends_with([' ', '\t']);
    let is_marked = text.starts_with(BEGIN) && text.ends_with(END);
    if is_plain && !is_padded && !is_marked {
        return text.to_owned();
    }
    format!("{BEGIN}{}{END}", STANDARD.encode(text))
}

/// The text of a header value; none where it has characters that no value may have, or is no base64 of UTF-8.
#[must_use]
pub fn decode(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| matches!(b, b'\t' | b' '..=b'~')))?;
    let text = text.trim_matches([' ', '\t']);
    match text.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END)) {
        Some(inner) => String::from_utf8(STANDARD.decode(inner).ok()?).ok(),
        None => Some(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_examples_of_the_specification_hold() {
        for (text, value) in [
            ("us-west1", "us-west1"),
            ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
            (" padded ", "=?base64?IHBhZGRlZCA=?="),
            ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
            ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
        ] {
            assert_eq!(encode(text), value);
            assert_eq!(decode(value.as_bytes()).as_deref(), Some(text));
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for wrong in [&b"a\x7f"[..], b"caf\xc3\xa9", b"=?base64?***?=", b"=?base64?/w==?=", b"a\nb"] {
            assert_eq!(decode(wrong), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn every_text_survives(text in any::<String>()) {
            let value = encode(&text);
            prop_assert!(http::HeaderValue::from_str(&value).is_ok());
            prop_assert_eq!(decode(value.as_bytes()), Some(text));
        }
    }
}
