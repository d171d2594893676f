//! What obligations say, beyond their names: which fields a mask hides, what a rewriting changes, how fresh is fresh,
//! what happens to a result with something in it.
//!
//! Each file reads one annotation and knows how several of the same kind combine. Called while a set is compiled, and by
//! the rules when they decide. Must never accept what cannot be carried out to the letter.

mod freshness;
mod mask;
mod output;
mod pointer;
mod rewrite;
mod rewritten;

pub use freshness::FreshnessDemand;
pub use mask::{KeptAs, Masking};
pub use output::OutputMode;
pub use rewrite::{RewriteFault, Rewriting};

pub(crate) use rewrite::Steps;

use std::time::Duration;

/// A time such as `90s`, `10m` or `2h`: at least a second, at most `most`. An error says what is wrong with it.
pub(crate) fn duration(text: &str, most: Duration) -> Result<Duration, String> {
    let wrong = || "is no time: write a whole number and a unit, such as \"90s\", \"10m\" or \"2h\"".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    match number.checked_mul(seconds).map(Duration::from_secs) {
        Some(time) if !time.is_zero() && time <= most => Ok(time),
        _ => Err(format!("must be at least 1s and at most {}d", most.as_secs() / 86_400)),
    }
}
