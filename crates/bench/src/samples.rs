//! What was measured, and the one number that stands for it.
//!
//! Used by every part. A percentile is a value that was measured, never one between two; a median over rounds likewise.

use std::time::Duration;

/// Durations of one kind, in microseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn push(&mut self, took: Duration) {
        self.0.push(took.as_secs_f64() * 1e6);
    }

    pub(crate) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    /// The value that `share` (0 to 1) of the samples do not exceed; 0 where there is none.
    pub(crate) fn percentile(&self, share: f64) -> f64 {
        percentile(self.0.clone(), share)
    }
}

/// The middle one; the lower of the two where their number is even.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    percentile(values.into_iter().collect(), 0.5)
}

fn percentile(mut values: Vec<f64>, share: f64) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let rank = ((values.len() as f64 * share).ceil() as usize).clamp(1, values.len()) - 1;
    *values.select_nth_unstable_by(rank, f64::total_cmp).1
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Samples, median};

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let mut samples = Samples::default();
        (1..=100).rev().for_each(|us| samples.push(Duration::from_micros(us)));
        assert_eq!([0.5, 0.99, 1.0].map(|share| samples.percentile(share).round()), [50.0, 99.0, 100.0]);
    }

    #[test]
    fn a_median_of_none_is_zero_and_of_two_the_lower() {
        assert_eq!((median([]), median([3.0, 1.0]), median([9.0, 1.0, 5.0])), (0.0, 1.0, 5.0));
    }
}
