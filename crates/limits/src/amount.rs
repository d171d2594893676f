//! What a budget is counted in: a decimal number of at least zero, exact to the millionth.
//!
//! Numbers come as they are written in JSON, so that nothing is rounded on the way but what lies below a millionth, which
//! counts as a whole one: a limit may be met early, never late.

use std::fmt;

/// An amount in millionths.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Amount(u64);

/// Why a text is no amount.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AmountError {
    /// It is no number.
    #[error("it is no number")]
    NotANumber,
    /// It is below zero, so it would give something back.
    #[error("it is below zero")]
    Negative,
    /// It is beyond what can be counted.
    #[error("it is more than 18446744073709")]
    TooLarge,
}

const DECIMALS: i64 = 6;
/// Longest number that is looked at.
const DIGITS_MAX: usize = 400;

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// One.
    pub const ONE: Self = Self(1_000_000);

    /// Of so many millionths.
    #[must_use]
    pub const fn from_millionths(millionths: u64) -> Self {
        Self(millionths)
    }

    /// In millionths.
    #[must_use]
    pub const fn millionths(self) -> u64 {
        self.0
    }

    /// Both together, or the most that there is.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// What is left of it without the other.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// Reads a number as JSON writes it.
    ///
    /// # Errors
    /// Where it is none, is below zero, or is too large.
    pub fn parse(text: &str) -> Result<Self, AmountError> {
        let (negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent_of(exponent)?),
            None => (rest, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
        let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !all_digits(whole) || !all_digits(fraction) || whole.len() + fraction.len() > DIGITS_MAX {
            return Err(AmountError::NotANumber);
        }
        let digits = [whole, fraction].concat();
        let digits = digits.trim_start_matches('0');
        if digits.is_empty() {
            return Ok(Self::ZERO);
        }
        if negative {
            return Err(AmountError::Negative);
        }
        // The number is `digits` times ten to the power of this, counted in millionths.
        let power = exponent - fraction.len() as i64 + DECIMALS;
        let kept = digits.len() as i64 + power;
        if kept <= 0 {
            return Ok(Self(1));
        }
        if kept > 20 {
            return Err(AmountError::TooLarge);
        }
        let kept = usize::try_from(kept).expect("at most 20");
        let (head, tail) = digits.split_at(kept.min(digits.len()));
        let zeros = u32::try_from(kept - head.len()).expect("at most 20");
        let head: u128 = head.parse().map_err(|_| AmountError::TooLarge)?;
        let rounded = head * 10_u128.pow(zeros) + u128::from(tail.bytes().any(|digit| digit != b'0'));
        u64::try_from(rounded).map(Self).map_err(|_| AmountError::TooLarge)
    }
}

fn exponent_of(text: &str) -> Result<i64, AmountError> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(AmountError::NotANumber);
    }
    // Beyond this it is zero or too large, whatever the digits before it.
    let size = digits.parse::<i64>().unwrap_or(i64::MAX).min(10_000);
    Ok(if text.starts_with('-') { -size } else { size })
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 1_000_000, self.0 % 1_000_000);
        if rest == 0 {
            return write!(f, "{whole}");
        }
        let rest = format!("{rest:06}");
        write!(f, "{whole}.{}", rest.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_exact_and_what_is_below_a_millionth_counts_as_one() {
        for (text, millionths) in [
            ("0", 0),
            ("-0.0", 0),
            ("1", 1_000_000),
            ("12.5", 12_500_000),
            ("1e3", 1_000_000_000),
            ("1.5E+2", 150_000_000),
            ("25e-1", 2_500_000),
            ("0.000001", 1),
            ("0.0000001", 1),
            ("1e-9999999999999999999", 1),
            ("1.0000001", 1_000_001),
            ("18446744073709.551615", u64::MAX),
        ] {
            assert_eq!(Amount::parse(text), Ok(Amount(millionths)), "{text}");
        }
    }

    #[test]
    fn what_is_no_amount_is_told() {
        use AmountError::{Negative, NotANumber, TooLarge};
        for (text, error) in [
            ("", NotANumber),
            ("-", NotANumber),
            ("1.", NotANumber),
            (".5", NotANumber),
            ("1e", NotANumber),
            ("1e+", NotANumber),
            ("0x1", NotANumber),
            ("NaN", NotANumber),
            (" 1", NotANumber),
            ("-1", Negative),
            ("-1e-30", Negative),
            ("18446744073709.551616", TooLarge),
            ("1e400", TooLarge),
            ("1e99999999999999999999", TooLarge),
        ] {
            assert_eq!(Amount::parse(text), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(millionths in any::<u64>()) {
            let amount = Amount(millionths);
            prop_assert_eq!(Amount::parse(&amount.to_string()), Ok(amount));
        }

        #[test]
        fn nothing_that_is_written_breaks_it(text in "[-+.eE0-9]{0,40}") {
            let _ = Amount::parse(&text);
        }
    }
}
