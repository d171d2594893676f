//! Where two runs part: their calls side by side, in order, with the first thing in which each pair differs.
//!
//! By digest where no texts were read: digests are keyed for each subject, so equal ones of one subject mean equal payloads
//! as they were sent, and those of two subjects say nothing. What cannot be compared is never counted as equal.

use serde::Serialize;
use similar::{Algorithm, DiffOp, capture_diff_slices};

use crate::{
    difference::{Difference, differences},
    recording::{Payload, Place, RecordedCall, Recording},
};

/// Places in which payloads differ that are named.
const NAMED_MAX: usize = 10;
/// Pairs that are listed; all are counted.
const LISTED_MAX: usize = 1_000;

/// In what two calls differ, or cannot be held to each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Aspect {
    /// Only one run made the call.
    Call,
    /// What was sent.
    Arguments,
    /// What was decided.
    Decision,
    /// How it ended.
    Outcome,
    /// What came back.
    Result,
}

/// What is known of an aspect of two calls.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Parting {
    /// Which aspect.
    pub aspect: Aspect,
    /// Whether it is known that they differ; else nobody can say.
    pub known: bool,
    /// In words.
    pub words: String,
    /// Where payloads part, where they were read.
    pub differences: Vec<Difference>,
}

/// One call of a run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Side {
    /// Method, server and name.
    pub call: String,
    /// Its id.
    pub call_id: String,
    /// Where its first event is.
    pub at: Place,
}

/// Two calls that stand side by side, or one that stands alone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Pair {
    /// That of the first run.
    pub a: Option<Side>,
    /// That of the second.
    pub b: Option<Side>,
    /// In what they differ; empty where they are equal.
    pub parts: Vec<Parting>,
}

/// Two runs side by side.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Comparison {
    /// The first run.
    pub a: String,
    /// The second.
    pub b: String,
    /// Calls that are equal in everything.
    pub equal: u64,
    /// Calls that differ.
    pub different: u64,
    /// Calls of which it is not known.
    pub unknown: u64,
    /// Calls of the first run alone.
    pub only_a: u64,
    /// Calls of the second run alone.
    pub only_b: u64,
    /// The pairs that are not known to be equal, in order; the first is where the runs part.
    pub pairs: Vec<Pair>,
}

impl Comparison {
    /// Whether the runs are known to be equal.
    #[must_use]
    pub const fn is_equal(&self) -> bool {
        self.different == 0 && self.unknown == 0 && self.only_a == 0 && self.only_b == 0
    }
}

/// What is called, for the order of calls.
type Called<'r> = (&'r str, &'r str, Option<&'r str>);

fn called(call: &RecordedCall) -> Called<'_> {
    (&call.server, &call.method, call.target.as_deref())
}

/// The same with the digest of what was sent.
fn whole(call: &RecordedCall) -> (Called<'_>, Option<&str>) {
    (called(call), call.arguments.as_ref().map(|sent| sent.digest.as_str()))
}

/// Holds two runs to each other.
#[must_use]
pub fn compare(a: &Recording, b: &Recording) -> Comparison {
    let mut comparison = Comparison {
        a: a.workflow_id.clone(),
        b: b.workflow_id.clone(),
        equal: 0,
        different: 0,
        unknown: 0,
        only_a: 0,
        only_b: 0,
        pairs: Vec::new(),
    };
    // First by what is called and sent, so that a call left out does not shift all that follow; then, where that leaves
    // calls on both sides, by what is called alone.
    let (left, right): (Vec<_>, Vec<_>) = (a.calls.iter().map(whole).collect(), b.calls.iter().map(whole).collect());
    for op in capture_diff_slices(Algorithm::Myers, &left, &right) {
        let (of_a, of_b) = (&a.calls[op.old_range()], &b.calls[op.new_range()]);
        if matches!(op, DiffOp::Equal { .. }) {
            of_a.iter().zip(of_b).for_each(|(a, b)| comparison.pair(Some(a), Some(b)));
            continue;
        }
        let (left, right): (Vec<_>, Vec<_>) = (of_a.iter().map(called).collect(), of_b.iter().map(called).collect());
        for op in capture_diff_slices(Algorithm::Myers, &left, &right) {
            let (of_a, of_b) = (&of_a[op.old_range()], &of_b[op.new_range()]);
            if matches!(op, DiffOp::Equal { .. }) {
                of_a.iter().zip(of_b).for_each(|(a, b)| comparison.pair(Some(a), Some(b)));
            } else {
                of_a.iter().for_each(|a| comparison.pair(Some(a), None));
                of_b.iter().for_each(|b| comparison.pair(None, Some(b)));
            }
        }
    }
    comparison
}

impl Comparison {
    fn pair(&mut self, a: Option<&RecordedCall>, b: Option<&RecordedCall>) {
        let parts = match (a, b) {
            (Some(a), Some(b)) => partings(a, b),
            (a, _) => {
                let words = format!("only {} made this call", if a.is_some() { "A" } else { "B" });
                vec![Parting { aspect: Aspect::Call, known: true, words, differences: Vec::new() }]
            }
        };
        match (a.is_some() && b.is_some(), a.is_some()) {
            (false, true) => self.only_a += 1,
            (false, false) => self.only_b += 1,
            (true, _) if parts.is_empty() => self.equal += 1,
            (true, _) if parts.iter().any(|part| part.known) => self.different += 1,
            (true, _) => self.unknown += 1,
        }
        if !parts.is_empty() && self.pairs.len() < LISTED_MAX {
            let side =
                |call: &RecordedCall| Side { call: call.title(), call_id: call.call_id.clone(), at: call.at.clone() };
            self.pairs.push(Pair { a: a.map(side), b: b.map(side), parts });
        }
    }
}

/// In what two calls of the same tool differ.
fn partings(a: &RecordedCall, b: &RecordedCall) -> Vec<Parting> {
    let known = |aspect, words| Parting { aspect, known: true, words, differences: Vec::new() };
    let mut parts = Vec::new();
    parts.extend(payloads(Aspect::Arguments, a.arguments.as_ref(), b.arguments.as_ref()));
    let decided = |call: &RecordedCall| match &call.decision {
        None => "none".to_owned(),
        Some(decided) => {
            let mut obligations = decided.obligations.clone();
            obligations.sort();
            let wants =
                if obligations.is_empty() { String::new() } else { format!(", wants {}", obligations.join(", ")) };
            let by = if decided.policies.is_empty() { "no policy".to_owned() } else { decided.policies.join(", ") };
            format!("{:?} by {by}{wants}", decided.decision).to_lowercase()
        }
    };
    if decided(a) != decided(b) {
        parts.push(known(Aspect::Decision, format!("{} | {}", decided(a), decided(b))));
    }
    let ended = |call: &RecordedCall| match &call.outcome {
        None => "open".to_owned(),
        Some(ended) => {
            let word = serde_json::to_value(ended.outcome).expect("a word is JSON");
            let mut words = word.as_str().unwrap_or_default().to_owned();
            for more in [ended.error_type.clone(), ended.code.map(|code| code.to_string())].into_iter().flatten() {
                words = format!("{words} {more}");
            }
            words
        }
    };
    if ended(a) != ended(b) {
        parts.push(known(Aspect::Outcome, format!("{} | {}", ended(a), ended(b))));
    }
    let result = |call: &RecordedCall| call.outcome.as_ref().and_then(|ended| ended.result.clone());
    parts.extend(payloads(Aspect::Result, result(a).as_ref(), result(b).as_ref()));
    parts
}

/// `hmac-sha256:<key>`, where it is one.
fn key(payload: &Payload) -> &str {
    payload.digest.rsplit_once(':').map_or("", |(key, _)| key)
}

fn payloads(aspect: Aspect, a: Option<&Payload>, b: Option<&Payload>) -> Option<Parting> {
    let part = |known, words: String, differences| Some(Parting { aspect, known, words, differences });
    let (a, b) = match (a, b) {
        (None, None) => return None,
        (Some(a), Some(b)) => (a, b),
        (one, _) => return part(true, format!("only {} has any", if one.is_some() { "A" } else { "B" }), Vec::new()),
    };
    if a.digest == b.digest {
        return None;
    }
    if let (Some(left), Some(right)) = (&a.text, &b.text) {
        let found = differences(left, right, NAMED_MAX);
        let first = found.first()?;
        let at = if first.pointer.is_empty() { "the whole" } else { &first.pointer };
        let of = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
        let words = format!("at {at}: {} | {}", of(&first.recorded), of(&first.came));
        return part(true, words, found);
    }
    if key(a) == key(b) {
        let words = format!("{} | {}: other bytes, at least (--payloads tells where)", a.digest, b.digest);
        return part(true, words, Vec::new());
    }
    let gone: Vec<&str> = [a, b].into_iter().filter_map(|one| one.gone.map(|_| one.why_gone())).collect();
    let words = match gone.first() {
        Some(why) => format!("cannot be compared: digests of two keys, and a payload {why}"),
        None => "cannot be compared by digest: they are keyed for each subject, and these are of two (--payloads reads them)"
            .to_owned(),
    };
    part(false, words, Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::tests::{call, recording};

    fn run() -> Vec<RecordedCall> {
        vec![
            call(1, "get", r#"{"id":1}"#, r#"{"r":1}"#),
            call(2, "get", r#"{"id":2}"#, r#"{"r":2}"#),
            call(3, "put", r#"{"id":1}"#, r#"{"r":3}"#),
        ]
    }

    fn without_texts(calls: Vec<RecordedCall>, key: &str) -> Recording {
        let mut all = recording(calls);
        let bare = |payload: &mut Payload| {
            payload.text = None;
            payload.digest = payload.digest.replace(":k:", &format!(":{key}:"));
        };
        for call in &mut all.calls {
            call.arguments.iter_mut().for_each(bare);
            call.outcome.iter_mut().flat_map(|ended| &mut ended.result).for_each(bare);
        }
        all
    }

    #[test]
    fn equal_runs_are_equal_whatever_their_ids_and_policies_versions() {
        let mut again = run();
        for call in &mut again {
            call.call_id = "another".to_owned();
            call.decision.as_mut().expect("decided").policy_version = "sha256:9".to_owned();
        }
        let found = compare(&recording(run()), &recording(again.clone()));
        assert!(found.is_equal() && found.equal == 3 && found.pairs.is_empty(), "{found:?}");
        assert!(compare(&without_texts(run(), "k"), &without_texts(again, "k")).is_equal(), "by digest alone as well");
    }

    #[test]
    fn a_call_that_is_left_out_shifts_none_of_the_others() {
        for out in 0..3 {
            let mut less = run();
            less.remove(out);
            let found = compare(&recording(run()), &recording(less));
            assert_eq!((found.equal, found.only_a, found.only_b, found.different), (2, 1, 0, 0), "{found:?}");
            assert_eq!(found.pairs[0].a.as_ref().expect("A's").at.offset, out as u64 + 1);
        }
    }

    #[test]
    fn what_was_sent_decided_and_given_is_told_apart() {
        let mut other = run();
        other[1] = call(2, "get", r#"{"id":5}"#, r#"{"r":2}"#);
        other[2].outcome.as_mut().expect("it ended").outcome = cairn_contract::Outcome::Failed;
        other[2].decision.as_mut().expect("decided").policies = vec!["other".to_owned()];
        let found = compare(&recording(run()), &recording(other.clone()));
        assert_eq!((found.equal, found.different, found.is_equal()), (1, 2, false), "{found:?}");
        let aspects = |pair: &Pair| pair.parts.iter().map(|part| part.aspect).collect::<Vec<_>>();
        assert_eq!(aspects(&found.pairs[0]), [Aspect::Arguments]);
        assert_eq!(found.pairs[0].parts[0].differences[0].pointer, "/id");
        assert_eq!(aspects(&found.pairs[1]), [Aspect::Decision, Aspect::Outcome]);
        // By digest it is known that they differ, not where.
        let found = compare(&without_texts(run(), "k"), &without_texts(other, "k"));
        assert_eq!((found.different, found.unknown), (2, 0), "{found:?}");
        assert!(found.pairs[0].parts[0].differences.is_empty());
    }

    #[test]
    fn digests_of_two_subjects_are_no_agreement_and_no_difference() {
        let found = compare(&without_texts(run(), "ann"), &without_texts(run(), "bob"));
        assert_eq!((found.equal, found.different, found.unknown, found.is_equal()), (0, 0, 3, false), "{found:?}");
        assert!(found.pairs[0].parts[0].words.contains("subject"), "{found:?}");
        let mut other = recording(run());
        for call in &mut other.calls {
            let sent = call.arguments.as_mut().expect("sent");
            sent.digest = sent.digest.replace(":k:", ":bob:");
        }
        assert!(compare(&recording(run()), &other).is_equal(), "texts that were read are compared as texts");
    }
}
