//! One pass over bytes that finds where text has the shape of something: digits in groups, an `@`, escapes, encoded runs.
//!
//! Called by `patterns` and `json` before anything costly. Says too much rather than too little.

/// The shape of text at a place.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Shape {
    /// An `@` between two characters that can stand in an address.
    At,
    /// A `+` before a digit.
    Plus,
    /// Groups of digits: how many digits they have, how many dots stand between them, the first digit, and whether they
    /// stand apart from what is before them.
    Digits { digits: u8, dots: u8, lead: u8, apart: bool },
    /// Hexadecimal digits and colons, two colons at least.
    Colons,
    /// Two capital letters before two digits.
    Country,
}

const PLAIN: u8 = 0;
const DIGIT: u8 = 1;
const AT: u8 = 2;
const PLUS: u8 = 3;
const COLON: u8 = 4;

const CLASS: [u8; 256] = {
    let mut class = [PLAIN; 256];
    let mut digit = b'0';
    while digit <= b'9' {
        class[digit as usize] = DIGIT;
        digit += 1;
    }
    class[b'@' as usize] = AT;
    class[b'+' as usize] = PLUS;
    class[b':' as usize] = COLON;
    class
};

/// Longest run of digits and separators that is taken as one.
const GROUPS_BYTES_MAX: usize = 40;

/// Whether a byte can be where something with a shape begins.
#[inline(always)]
pub(crate) const fn may_begin(byte: u8) -> bool {
    CLASS[byte as usize] != PLAIN
}

/// The shapes that begin at `at`, whose byte may begin one.
pub(crate) fn shapes_at(text: &[u8], i: usize, mut seen: impl FnMut(Shape)) {
    let at = |i: usize| text.get(i).copied().unwrap_or(b' ');
    match CLASS[usize::from(text[i])] {
        DIGIT => {
            if let Some(group) = group_at(text, i) {
                digits(text, i, group, &mut seen);
            }
        }
        AT if i > 0 && !at(i - 1).is_ascii_whitespace() && at(i + 1).is_ascii_alphanumeric() => seen(Shape::At),
        PLUS if at(i + 1).is_ascii_digit() => seen(Shape::Plus),
        COLON if at(i + 1) == b':' || (i > 0 && at(i - 1).is_ascii_hexdigit() && at(i + 1).is_ascii_hexdigit()) => {
            let hex = |byte: &u8| byte.is_ascii_hexdigit() || *byte == b':';
            let run = text[i..].iter().take(ADDRESS_BYTES_MAX).take_while(|byte| hex(byte));
            let (mut colons, mut double, mut last) = (0, false, b' ');
            for byte in run {
                double |= *byte == b':' && last == b':';
                colons += u8::from(*byte == b':');
                last = *byte;
            }
            // A time of day has two colons, apart.
            if double || colons >= 5 {
                seen(Shape::Colons);
            }
        }
        _ => {}
    }
}

/// Whether groups of digits begin at `at`, and whether they stand apart from what is before them; where two capital letters stand
/// there, they may be of a country.
pub(crate) fn group_at(text: &[u8], at: usize) -> Option<Group> {
    let before = |back: usize| at.checked_sub(back).map(|at| text[at]);
    if !text[at].is_ascii_digit() || before(1).is_some_and(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let is_capital = |back: usize| before(back).is_some_and(|byte| byte.is_ascii_uppercase());
    Some(Group {
        is_apart: before(1).is_none_or(|byte| !byte.is_ascii_alphanumeric() && byte != b'-' && byte != b'_'),
        is_country: is_capital(1) && is_capital(2),
    })
}

/// What stands before groups of digits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Group {
    pub(crate) is_apart: bool,
    pub(crate) is_country: bool,
}

/// Longest IPv6 address.
const ADDRESS_BYTES_MAX: usize = 45;

/// Measures the groups of digits that begin at `start`.
fn digits(text: &[u8], start: usize, group: Group, seen: &mut impl FnMut(Shape)) {
    let (mut i, mut digits, mut dots, mut last) = (start, 0_u8, 0_u8, start);
    let end = text.len().min(start + GROUPS_BYTES_MAX);
    while i < end {
        match text[i] {
            b'0'..=b'9' => {
                digits += 1;
                last = i;
            }
            b'.' => dots += 1,
            b' ' | b'-' | b'(' | b')' => {}
            _ => break,
        }
        // Two separators in a row belong together (") "), three end the groups.
        if i > last + 2 {
            break;
        }
        i += 1;
    }
    if digits >= 4 {
        seen(Shape::Digits { digits, dots, lead: text[start], apart: group.is_apart });
    }
    if digits >= 2 && group.is_country {
        seen(Shape::Country);
    }
}

/// Shortest run of base64 or hexadecimal characters that is decoded: 12 bytes.
pub(crate) const RUN_BYTES_MIN: usize = 16;

#[inline(always)]
pub(crate) const fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_')
}

/// Calls `seen` with each run of base64 characters that is long enough, in rising order.
pub(crate) fn runs(text: &[u8], mut seen: impl FnMut(std::ops::Range<usize>)) {
    // A long enough run covers a multiple of its least length.
    let mut at = RUN_BYTES_MIN - 1;
    while at < text.len() {
        if !is_base64(text[at]) {
            at += RUN_BYTES_MIN;
            continue;
        }
        let mut start = at;
        while start > 0 && is_base64(text[start - 1]) {
            start -= 1;
        }
        let mut end = at + 1;
        while end < text.len() && is_base64(text[end]) {
            end += 1;
        }
        if end - start >= RUN_BYTES_MIN {
            seen(start..end);
        }
        at = end + RUN_BYTES_MIN;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(text: &str) -> Vec<(Shape, usize)> {
        let mut all = Vec::new();
        for at in (0..text.len()).filter(|at| may_begin(text.as_bytes()[*at])) {
            shapes_at(text.as_bytes(), at, |shape| all.push((shape, at)));
        }
        all
    }

    #[test]
    fn shapes_are_seen_where_they_begin() {
        assert_eq!(seen("mail a@b.example"), [(Shape::At, 6)]);
        assert_eq!(
            seen("ip 10.20.30.40"),
            [
                (Shape::Digits { digits: 8, dots: 3, lead: b'1', apart: true }, 3),
                (Shape::Digits { digits: 6, dots: 2, lead: b'2', apart: true }, 6),
                (Shape::Digits { digits: 4, dots: 1, lead: b'3', apart: true }, 9)
            ]
        );
        assert!(seen("DE89 3704").contains(&(Shape::Country, 2)));
        assert!(seen("x 2a00:1450::1").iter().any(|(shape, _)| *shape == Shape::Colons));
        assert!(seen("{\"a\":1,\"b\":\"c\",\"t\":\"12:30:45\"}").is_empty());
    }

    #[test]
    fn a_run_is_found_wherever_it_begins() {
        for lead in 0..40 {
            let text = format!("{}{}.", " ".repeat(lead), "A".repeat(16));
            let mut all = Vec::new();
            runs(text.as_bytes(), |run| all.push(run));
            assert!(all.len() == 1 && all[0] == (lead..lead + 16), "{lead}: {all:?}");
        }
    }
}
