//! Text within text: what JSON escapes, percent-encoding, base64 and hexadecimal digits stand for.
//!
//! Each decoder gives the decoded bytes, and maps a range of them back to the range of the text that stands for it.
//! Called by `find`; nothing here decides what is a secret.

use std::ops::Range;

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use crate::shapes::{RUN_BYTES_MIN, is_base64};

/// A way to write text as other text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// JSON's escapes: `\n`, `\u0041`.
    Escapes,
    /// `%41`.
    Percent,
}

/// How long the escape is that begins with the backslash at `at`.
pub(crate) fn escape_len(text: &[u8], at: usize) -> usize {
    match text.get(at + 1) {
        Some(b'u') if unit(text, at).is_some() => 6,
        Some(_) => 2,
        None => 1,
    }
}

fn hex4(text: &[u8]) -> Option<u16> {
    let digits = text.get(..4)?;
    digits.iter().try_fold(0_u16, |sum, digit| Some(sum << 4 | (*digit as char).to_digit(16)? as u16))
}

fn unit(text: &[u8], at: usize) -> Option<u16> {
    (text.get(at..at + 2)? == b"\\u").then(|| hex4(&text[at + 2..]))?
}

/// One step of decoding at `at`: how long what stands there is, and what it stands for.
fn step(way: Way, text: &[u8], at: usize, out: &mut Vec<u8>) -> usize {
    match (way, text[at]) {
        (Way::Escapes, b'\\') => {
            let len = escape_len(text, at);
            match text.get(at + 1) {
                Some(b'u') => match unit(text, at) {
                    Some(high @ 0xD800..0xDC00) => {
                        if let Some(low @ 0xDC00..0xE000) = unit(text, at + 6) {
                            let code = 0x10000 + ((u32::from(high) - 0xD800) << 10) + (u32::from(low) - 0xDC00);
                            push(code, out);
                            return 12;
                        }
                        push(0xFFFD, out);
                    }
                    Some(code) => push(u32::from(code), out),
                    None => out.push(b'u'),
                },
                Some(b'n') => out.push(b'\n'),
                Some(b'r') => out.push(b'\r'),
                Some(b't') => out.push(b'\t'),
                Some(b'b') => out.push(8),
                Some(b'f') => out.push(12),
                Some(other) => out.push(*other),
                None => out.push(b'\\'),
            }
            len
        }
        (Way::Percent, b'%') => {
            let digit = |at: usize| text.get(at).and_then(|byte| (*byte as char).to_digit(16));
            if let (Some(high), Some(low)) = (digit(at + 1), digit(at + 2)) {
                out.push((high << 4 | low) as u8);
                return 3;
            }
            out.push(b'%');
            1
        }
        (Way::Percent, b'+') => {
            out.push(b' ');
            1
        }
        (_, plain) => {
            out.push(plain);
            1
        }
    }
}

fn push(code: u32, out: &mut Vec<u8>) {
    let c = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

impl Way {
    const fn mark(self) -> u8 {
        match self {
            Self::Escapes => b'\\',
            Self::Percent => b'%',
        }
    }

    /// What the text stands for; nothing where it is plain.
    pub(crate) fn decode(self, text: &[u8]) -> Option<Vec<u8>> {
        let first = memchr::memchr(self.mark(), text)?;
        let mut out = Vec::with_capacity(text.len());
        out.extend_from_slice(&text[..first]);
        let mut at = first;
        // A '+' is a space in a query only: what comes before the first escape stays, which changes no secret.
        while at < text.len() {
            at += step(self, text, at, &mut out);
            if self == Self::Escapes {
                let next = memchr::memchr(b'\\', &text[at.min(text.len())..]).map_or(text.len(), |next| at + next);
                out.extend_from_slice(&text[at.min(text.len())..next]);
                at = next;
            }
        }
        (out != text).then_some(out)
    }

    /// The parts of the text that stand for those ranges of what it was decoded to.
    pub(crate) fn map_back(self, text: &[u8], ranges: &[Range<usize>]) -> Vec<Range<usize>> {
        let first = memchr::memchr(self.mark(), text).unwrap_or(text.len());
        let mut back = vec![None::<Range<usize>>; ranges.len()];
        let (mut at, mut done) = (0, 0);
        let mut scratch = Vec::with_capacity(4);
        while at < text.len() {
            scratch.clear();
            let len = if at < first {
                scratch.push(text[at]);
                1
            } else {
                step(self, text, at, &mut scratch)
            };
            for (range, back) in ranges.iter().zip(&mut back) {
                if range.start < done + scratch.len() && done < range.end {
                    let start = back.as_ref().map_or(at, |back| back.start);
                    *back = Some(start..(at + len).min(text.len()));
                }
            }
            done += scratch.len();
            at += len;
        }
        back.into_iter().flatten().collect()
    }
}

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Joins base64 lines: where a run is broken by a line end, and goes on behind it.
pub(crate) fn joined_lines(text: &[u8], mut run: Range<usize>, line: &mut Vec<u8>) -> Range<usize> {
    line.clear();
    line.extend_from_slice(&text[run.clone()]);
    loop {
        let mut next = run.end;
        while next < text.len() && next < run.end + 4 && matches!(text[next], b'\r' | b'\n' | b' ' | b'\t') {
            next += 1;
        }
        let mut end = next;
        while end < text.len() && is_base64(text[end]) {
            end += 1;
        }
        if next == run.end || end == next || !text[run.end..next].contains(&b'\n') || line.len() < 40 {
            return run;
        }
        line.extend_from_slice(&text[next..end]);
        run.end = end;
    }
}

/// Where decoding begins: what stands before may belong to the run by its looks only, as a path before what is encoded does.
const STARTS: [usize; 4] = [0, 1, 2, 3];

/// Calls `each` with everything that a run of base64 or hexadecimal characters may stand for, until one is enough; whether one was.
pub(crate) fn decodings(run: &[u8], mut each: impl FnMut(Vec<u8>) -> bool) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_hexdigit() || *byte == b'-';
    // Behind `0x`, a name or a path, too.
    for part in run.split(|byte| !is_digit(byte)).filter(|part| part.len() >= RUN_BYTES_MIN) {
        if hexadecimal(part, &mut each) {
            return true;
        }
    }
    // An id or a digest, most often. No text of sixteen characters comes out of base64's alphabet as these alone.
    if run.iter().all(is_digit) {
        return false;
    }
    let is_url = run.iter().any(|b| matches!(b, b'-' | b'_'));
    let is_standard = run.iter().any(|b| matches!(b, b'+' | b'/'));
    let mut pieces: Vec<&[u8]> = vec![run];
    if is_url && is_standard {
        // Both alphabets in one run: it is several, joined by what belongs to one of them.
        pieces.clear();
        pieces.extend(run.split(|b| matches!(b, b'-' | b'_')));
        pieces.extend(run.split(|b| matches!(b, b'+' | b'/')));
    }
    for piece in pieces {
        let url = piece.iter().any(|b| matches!(b, b'-' | b'_'));
        for start in STARTS {
            let Some(mut piece) = piece.get(start..).filter(|piece| piece.len() >= 8) else { continue };
            // One character too many makes no byte.
            if piece.len() % 4 == 1 {
                piece = &piece[..piece.len() - 1];
            }
            let decoded = if url { URL.decode(piece) } else { STANDARD.decode(piece) };
            if let Ok(bytes) = decoded
                && each(bytes)
            {
                return true;
            }
        }
    }
    false
}

/// What hexadecimal digits stand for; whether that was enough.
fn hexadecimal(part: &[u8], each: &mut impl FnMut(Vec<u8>) -> bool) -> bool {
    // Hexadecimal text has a digit of 2 to 7 first in each pair; few pairs of an id have. One digit too many may stand before or
    // behind, so digits are counted by whether they stand first or second.
    let (mut count, mut readable) = (0_usize, [0_usize; 2]);
    for digit in part.iter().filter(|byte| byte.is_ascii_hexdigit()) {
        readable[count % 2] += usize::from((b'2'..=b'7').contains(digit));
        count += 1;
    }
    let mut starts = 0..1 + count % 2;
    starts.any(|start| {
        if readable[start] < crate::find::READABLE_BYTES_MIN {
            return false;
        }
        let digits: Vec<u8> = part.iter().copied().filter(u8::is_ascii_hexdigit).skip(start).collect();
        hex::decode(&digits[..digits.len() & !1]).is_ok_and(&mut *each)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_and_mapped_back() {
        let text = br#"ab\u0041\n\ud83d\ude00z\/"#;
        let decoded = Way::Escapes.decode(text).expect("it has escapes");
        assert_eq!(String::from_utf8(decoded).expect("UTF-8"), "abA\n😀z/");
        assert_eq!(Way::Escapes.map_back(text, &[2..3, 4..8]), [2..8, 10..22]);
        assert_eq!(Way::Escapes.decode(b"plain"), None);
    }

    #[test]
    fn percents_are_decoded_and_mapped_back() {
        let text = b"a%41%4Z";
        assert_eq!(Way::Percent.decode(text).as_deref(), Some(&b"aA%4Z"[..]));
        assert_eq!(Way::Percent.map_back(text, &[1..2, 2..3]), [1..4, 4..5]);
    }

    #[test]
    fn a_run_is_decoded_wherever_it_begins() {
        for lead in ["", "x", "xy", "xyz", "ab/"] {
            let run = format!("{lead}{}", STANDARD.encode("the quick brown fox"));
            let mut seen = false;
            decodings(run.as_bytes(), |bytes| {
                seen |= bytes.windows(9).any(|part| part == b"quick bro");
                false
            });
            assert!(seen, "{lead}");
        }
    }
}
