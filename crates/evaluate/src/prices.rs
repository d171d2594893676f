//! What a model call costs, by a table of prices that somebody gives: Cairn knows no prices of its own.
//!
//! Prices and costs are decimal numbers in text, reckoned in whole numbers, so that the same table gives the same cost on every machine.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

/// Digits behind the point that a price may have.
const PRICE_DIGITS: usize = 9;
/// Tokens that a price is of, as a power of ten.
const TOKENS_DIGITS: usize = 6;
/// Digits before the point of a price, at most.
const WHOLE_DIGITS_MAX: usize = 9;

/// What a million tokens cost.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// A million tokens that are read, as a decimal number.
    pub input: String,
    /// A million tokens that are written.
    pub output: String,
}

/// Prices by the model's name.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Prices {
    /// What they are in, such as `USD`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// By model, as the provider names it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<String, Price>,
}

/// A price that is none.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "the price of {model:?} is {said:?}: write a number such as \"1.25\", for a million tokens, with at most {PRICE_DIGITS} digits behind the point"
)]
pub struct PriceError {
    /// Of which model.
    pub model: String,
    /// What stands there.
    pub said: String,
}

/// A whole number of billionths.
struct Billionths(u128);

impl Prices {
    /// Refuses a price that is no number.
    ///
    /// # Errors
    /// Which one.
    pub fn check(&self) -> Result<(), PriceError> {
        for (model, price) in &self.models {
            for said in [&price.input, &price.output] {
                if billionths(said).is_none() {
                    return Err(PriceError { model: model.clone(), said: said.clone() });
                }
            }
        }
        Ok(())
    }

    /// What so many tokens cost; nothing where the model has no price, or the tokens are not told.
    pub(crate) fn cost(&self, models: [Option<&str>; 2], read: Option<u64>, written: Option<u64>) -> Option<String> {
        let price = models.into_iter().flatten().find_map(|model| self.models.get(model))?;
        let (Billionths(input), Billionths(output)) = (billionths(&price.input)?, billionths(&price.output)?);
        if read.is_none() && written.is_none() {
            return None;
        }
        let of = |tokens: Option<u64>, price: u128| u128::from(tokens.unwrap_or_default()).checked_mul(price);
        Some(Parts(of(read, input)?.checked_add(of(written, output)?)?).to_string())
    }
}

/// `1.25` as billionths.
fn billionths(text: &str) -> Option<Billionths> {
    let (whole, parts) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let fits = (1..=WHOLE_DIGITS_MAX).contains(&whole.len()) && parts.len() <= PRICE_DIGITS;
    if !fits || !is_digits(whole) || !is_digits(parts) || text.ends_with('.') {
        return None;
    }
    format!("{whole}{parts:0<PRICE_DIGITS$}").parse().ok().map(Billionths)
}

/// A number of parts, each 10^-15.
struct Parts(u128);

impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: usize = PRICE_DIGITS + TOKENS_DIGITS;
        let one = 10_u128.pow(DIGITS as u32);
        let rest = format!("{:0DIGITS$}", self.0 % one);
        let rest = rest.trim_end_matches('0');
        if rest.is_empty() { write!(f, "{}", self.0 / one) } else { write!(f, "{}.{rest}", self.0 / one) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prices() -> Prices {
        let price = Price { input: "1.25".to_owned(), output: "10".to_owned() };
        Prices { currency: Some("USD".to_owned()), models: BTreeMap::from([("gpt".to_owned(), price)]) }
    }

    #[test]
    fn a_cost_is_exact_to_the_last_digit() {
        let cost = |read, written| prices().cost([None, Some("gpt")], read, written);
        assert_eq!(cost(Some(1_000_000), Some(0)).as_deref(), Some("1.25"));
        assert_eq!(cost(Some(1), None).as_deref(), Some("0.00000125"));
        assert_eq!(cost(Some(3), Some(7)).as_deref(), Some("0.00007375"));
        assert_eq!(cost(Some(u64::MAX), Some(u64::MAX)).as_deref(), Some("207525870829232.45566875"));
        assert_eq!(cost(None, None), None);
        assert_eq!(prices().cost([Some("other"), None], Some(1), Some(1)), None);
        assert_eq!(prices().cost([Some("gpt-2026-01-01"), Some("gpt")], Some(0), Some(0)).as_deref(), Some("0"));
    }

    #[test]
    fn what_is_no_price_is_refused_by_name() {
        for wrong in ["", "free", "-1", "1.", ".5", "1e3", "1,5", "0.0000000001", "10000000000"] {
            let mut prices = prices();
            prices.models.get_mut("gpt").expect("there").output = wrong.to_owned();
            assert!(prices.check().is_err_and(|error| error.model == "gpt"), "{wrong}");
        }
        assert_eq!(prices().check(), Ok(()));
    }
}
