//! What comparing two schemas may cost: time, steps and depth.
//!
//! Comparing unions of unions can take exponential time, and a reference can lead back to itself. Whoever compares asks here
//! at every step; once it is used up, the comparison ends and the schema is not registered: what could not be compared is
//! never called compatible.

use std::{cell::Cell, time::Duration};

use tokio::time::Instant;

/// Longest time that one comparison or parse may take.
pub const COMPARE_MAX: Duration = Duration::from_secs(5);
/// Steps of one comparison.
const STEPS_MAX: u64 = 2_000_000;
/// How deep schemas may be nested in each other, references counted.
pub const DEPTH_MAX: usize = 200;
/// Steps between two looks at the time.
const LOOK_EVERY: u64 = 256;

/// A comparison took too much.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Exhausted {
    /// Too long.
    #[error("comparing the schemas took too long: simplify combined types, or register with compatibility NONE")]
    Time,
    /// Too deep.
    #[error("the schema is nested deeper than {DEPTH_MAX} levels")]
    Depth,
}

/// What is left of the allowance.
#[derive(Debug)]
pub struct Budget {
    until: Instant,
    steps: Cell<u64>,
    depth: Cell<usize>,
}

impl Default for Budget {
    fn default() -> Self {
        Self::lasting(COMPARE_MAX, STEPS_MAX)
    }
}

impl Budget {
    /// That much time and that many steps.
    #[must_use]
    pub fn lasting(time: Duration, steps: u64) -> Self {
        Self { until: Instant::now() + time, steps: Cell::new(steps), depth: Cell::new(0) }
    }

    /// One level deeper, until what is given back is dropped.
    ///
    /// # Errors
    /// The allowance is used up.
    pub fn deeper(&self) -> Result<Level<'_>, Exhausted> {
        let left = self.steps.get().checked_sub(1).ok_or(Exhausted::Time)?;
        self.steps.set(left);
        if left % LOOK_EVERY == 0 && Instant::now() > self.until {
            self.steps.set(0);
            return Err(Exhausted::Time);
        }
        let depth = self.depth.get() + 1;
        if depth > DEPTH_MAX {
            return Err(Exhausted::Depth);
        }
        self.depth.set(depth);
        Ok(Level(self))
    }
}

/// A level of nesting.
#[derive(Debug)]
#[must_use]
pub struct Level<'a>(&'a Budget);

impl Drop for Level<'_> {
    fn drop(&mut self) {
        self.0.depth.set(self.0.depth.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_and_steps_end() {
        let budget = Budget::default();
        let mut held = Vec::new();
        while let Ok(level) = budget.deeper() {
            held.push(level);
        }
        assert_eq!((held.len(), budget.deeper().err()), (DEPTH_MAX, Some(Exhausted::Depth)));
        held.clear();
        assert!(budget.deeper().is_ok(), "a level that was left is there again");
        let short = Budget::lasting(COMPARE_MAX, 2);
        assert!(short.deeper().is_ok() && short.deeper().is_ok());
        assert_eq!(short.deeper().err(), Some(Exhausted::Time));
    }
}
