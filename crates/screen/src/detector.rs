//! What finds things in plain text: the seam for detectors besides the built-in rules.

use std::{fmt, ops::Range, sync::Arc};

/// Something that must not stand in the record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Match {
    /// Where, in bytes of the text that was given.
    pub range: Range<usize>,
    /// Which rule says so: 1 to 40 lower-case letters, digits and `-`. It stands in the mask and in the event.
    pub rule: Arc<str>,
}

/// Finds what must not stand in the record.
///
/// A detector MUST be pure, MUST be bounded in time (linear in the text, or nearly), and MUST name no rule in a match that
/// [`rules`](Detector::rules) does not list. It sees text after every encoding has been taken off, one at a time.
pub trait Detector: fmt::Debug + Send + Sync {
    /// Every rule that a match of its can name.
    fn rules(&self) -> Vec<Arc<str>>;

    /// What is to be masked in `text`. `name` is the key under which it stands in JSON, where it does.
    fn find(&self, text: &[u8], name: Option<&str>, found: &mut Vec<Match>);
}
