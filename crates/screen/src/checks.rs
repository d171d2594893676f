//! What a value must satisfy besides its pattern: checksums, ranges, chance. Called by `patterns`; pure.

use std::net::{Ipv4Addr, Ipv6Addr};

/// A check, as a rule names it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Check {
    /// The digits of a card: ISO/IEC 7812.
    Luhn,
    /// ISO 13616, modulo 97.
    Iban,
    /// An address that belongs to somebody: not loopback, unspecified, broadcast or a version number's look-alike.
    Ipv4,
    /// The same for IPv6.
    Ipv6,
    /// A number that the United States' administration can have given.
    Ssn,
    /// So many bits for each character, at least.
    Entropy(f64),
}

impl Check {
    pub(crate) fn holds(self, value: &[u8]) -> bool {
        match self {
            Self::Luhn => luhn(value),
            Self::Iban => iban(value),
            Self::Ipv4 => ipv4(value),
            Self::Ipv6 => ipv6(value),
            Self::Ssn => ssn(value),
            Self::Entropy(least) => entropy(value) >= least,
        }
    }
}

fn digits(value: &[u8]) -> impl DoubleEndedIterator<Item = u32> + '_ {
    value.iter().filter(|b| b.is_ascii_digit()).map(|b| u32::from(b - b'0'))
}

fn luhn(value: &[u8]) -> bool {
    let sum: u32 = digits(value)
        .rev()
        .enumerate()
        .map(|(at, digit)| match (at % 2, digit * 2) {
            (0, _) => digit,
            (_, doubled) if doubled > 9 => doubled - 9,
            (_, doubled) => doubled,
        })
        .sum();
    sum.is_multiple_of(10) && digits(value).any(|digit| digit != 0)
}

fn iban(value: &[u8]) -> bool {
    let plain: Vec<u8> = value.iter().copied().filter(u8::is_ascii_alphanumeric).collect();
    if !(15..=34).contains(&plain.len()) {
        return false;
    }
    let mut rest: u32 = 0;
    for byte in plain[4..].iter().chain(&plain[..4]) {
        rest = match byte {
            b'0'..=b'9' => (rest * 10 + u32::from(byte - b'0')) % 97,
            b'A'..=b'Z' => (rest * 100 + u32::from(byte - b'A') + 10) % 97,
            _ => return false,
        };
    }
    rest == 1
}

fn text(value: &[u8]) -> &str {
    std::str::from_utf8(value).unwrap_or_default()
}

fn ipv4(value: &[u8]) -> bool {
    text(value).parse::<Ipv4Addr>().is_ok_and(|address| {
        let [first, second, third, fourth] = address.octets();
        // What looks like a version (1.2.3.4) is an address as much as any other: only what names nobody is let be.
        !(address.is_loopback() || address.is_unspecified() || address.is_broadcast())
            && (first, second, third, fourth) != (255, 255, 255, 0)
    })
}

fn ipv6(value: &[u8]) -> bool {
    text(value)
        .parse::<Ipv6Addr>()
        .is_ok_and(|address| !(address.is_loopback() || address.is_unspecified()) && value.len() > 4)
}

fn ssn(value: &[u8]) -> bool {
    let all: Vec<u32> = digits(value).collect();
    let number = |range: std::ops::Range<usize>| all[range].iter().fold(0, |sum, digit| sum * 10 + digit);
    if all.len() != 9 {
        return false;
    }
    let (area, group, serial) = (number(0..3), number(3..5), number(5..9));
    area != 0 && area != 666 && area < 900 && group != 0 && serial != 0
}

/// Bits for each byte, by the bytes' own frequencies.
pub(crate) fn entropy(value: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in value {
        counts[usize::from(*byte)] += 1;
    }
    let total = value.len() as f64;
    let bits = |count: u32| {
        let share = f64::from(count) / total;
        -share * share.log2()
    };
    counts.into_iter().filter(|count| *count > 0).map(bits).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_hold_for_real_numbers_and_no_others() {
        assert!(luhn(b"4111 1111 1111 1111") && luhn(b"378282246310005") && !luhn(b"4111111111111112"));
        assert!(!luhn(b"0000000000000000"));
        assert!(iban(b"GB82 WEST 1234 5698 7654 32") && iban(b"DE89370400440532013000"));
        assert!(!iban(b"DE89370400440532013001") && !iban(b"GB82"));
        assert!(ssn(b"123-45-6789") && !ssn(b"666-45-6789") && !ssn(b"123-00-6789") && !ssn(b"900-45-6789"));
        assert!(ipv4(b"93.184.216.34") && !ipv4(b"127.0.0.1") && !ipv4(b"256.1.1.1"));
        assert!(ipv6(b"2a00:1450:4001::200e") && !ipv6(b"::1") && !ipv6(b"12:30:45"));
        assert!(entropy(b"aaaaaaaa") < 0.1 && entropy(b"k3J9x_Qz81LmNp2R") > 3.9);
    }
}
