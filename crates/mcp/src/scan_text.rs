//! Strings and numbers of JSON (RFC 8259 sections 6 and 7), byte by byte. Called by the scanner, and by whoever reads
//! one string out of a document. Must never accept what the grammar does not: leniency here is two parsers disagreeing.

use std::borrow::Cow;

use memchr::memchr2;

/// What is wrong with a string or a number.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TextFault {
    Syntax { at: usize, expected: &'static str },
    Surrogate { at: usize },
}

const fn syntax(at: usize, expected: &'static str) -> TextFault {
    TextFault::Syntax { at, expected }
}

/// Reads the string whose opening quote is at `start`: the place past its closing quote, and whether it has escapes.
pub(crate) fn scan_string(bytes: &[u8], start: usize) -> Result<(usize, bool), TextFault> {
    let mut at = start + 1;
    let mut escaped = false;
    loop {
        let length = memchr2(b'"', b'\\', &bytes[at..]).ok_or(syntax(bytes.len(), "a closing quote"))?;
        // Without an early exit, so that the compiler makes one comparison of many bytes.
        if bytes[at..at + length].iter().fold(false, |bad, byte| bad | (*byte < 0x20)) {
            return Err(syntax(at, "an escape instead of a control character"));
        }
        at += length;
        if bytes[at] == b'"' {
            return Ok((at + 1, escaped));
        }
        escaped = true;
        at = scan_escape(bytes, at)?;
    }
}

/// Reads the escape whose backslash is at `at`: the place past it, a surrogate pair being one escape.
fn scan_escape(bytes: &[u8], at: usize) -> Result<usize, TextFault> {
    match bytes.get(at + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
        Some(b'u') => match hex4(bytes, at + 2)? {
            0xd800..=0xdbff => {
                if bytes.get(at + 6) != Some(&b'\\') || bytes.get(at + 7) != Some(&b'u') {
                    return Err(TextFault::Surrogate { at });
                }
                match hex4(bytes, at + 8)? {
                    0xdc00..=0xdfff => Ok(at + 12),
                    _ => Err(TextFault::Surrogate { at }),
                }
            }
            0xdc00..=0xdfff => Err(TextFault::Surrogate { at }),
            _ => Ok(at + 6),
        },
        _ => Err(syntax(at + 1, "an escape that JSON knows")),
    }
}

fn hex4(bytes: &[u8], at: usize) -> Result<u32, TextFault> {
    let digits = bytes.get(at..at + 4).ok_or(syntax(bytes.len(), "four hexadecimal digits"))?;
    digits.iter().try_fold(0, |sum, digit| {
        let value = char::from(*digit).to_digit(16).ok_or(syntax(at, "four hexadecimal digits"))?;
        Ok(sum * 16 + value)
    })
}

/// Reads the number at `start`: the place past it.
pub(crate) fn scan_number(bytes: &[u8], start: usize) -> Result<usize, TextFault> {
    let mut at = start + usize::from(bytes[start] == b'-');
    at = match bytes.get(at) {
        Some(b'0') => at + 1,
        Some(b'1'..=b'9') => digits(bytes, at)?,
        _ => return Err(syntax(at, "a digit")),
    };
    if bytes.get(at) == Some(&b'.') {
        at = digits(bytes, at + 1)?;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        at += 1;
        at += usize::from(matches!(bytes.get(at), Some(b'+' | b'-')));
        at = digits(bytes, at)?;
    }
    Ok(at)
}

fn digits(bytes: &[u8], start: usize) -> Result<usize, TextFault> {
    let count = bytes[start.min(bytes.len())..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    if count == 0 { Err(syntax(start, "a digit")) } else { Ok(start + count) }
}

/// The text of a string that [`scan_string`] has accepted, quotes included in `quoted`.
pub(crate) fn unescape(quoted: &[u8], escaped: bool) -> Cow<'_, str> {
    let inner = std::str::from_utf8(&quoted[1..quoted.len() - 1]).expect("the scanner has checked the encoding");
    if !escaped {
        return Cow::Borrowed(inner);
    }
    let mut text = String::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let (letter, length) = escaped_char(&rest.as_bytes()[at..]);
        text.push(letter);
        rest = &rest[at + length..];
    }
    text.push_str(rest);
    Cow::Owned(text)
}

/// The character of an accepted escape, and the escape's length.
fn escaped_char(escape: &[u8]) -> (char, usize) {
    let unit = |at: usize| hex4(escape, at).expect("the scanner has checked the digits");
    match escape[1] {
        b'b' => ('\u{8}', 2),
        b'f' => ('\u{c}', 2),
        b'n' => ('\n', 2),
        b'r' => ('\r', 2),
        b't' => ('\t', 2),
        b'u' => {
            let first = unit(2);
            let (code, length) = if (0xd800..0xdc00).contains(&first) {
                (0x1_0000 + ((first - 0xd800) << 10) + (unit(8) - 0xdc00), 12)
            } else {
                (first, 6)
            };
            (char::from_u32(code).expect("the scanner has refused lone surrogates"), length)
        }
        other => (char::from(other), 2),
    }
}

/// The text of a raw JSON value, where it is a string.
pub(crate) fn string_of(raw: &[u8]) -> Option<Cow<'_, str>> {
    (raw.len() >= 2 && raw[0] == b'"').then(|| unescape(raw, raw.contains(&b'\\')))
}

/// Appends `text` as a JSON string.
pub(crate) fn quote_into(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string always has a JSON form");
}
