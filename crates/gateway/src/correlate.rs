//! Which workflow a call belongs to and which trace it is part of (step 3 of the life of a call).
//!
//! The workflow id is, in this order: `_meta["io.cairn/workflow"]`, the header `Cairn-Workflow-Id`, the trace id of
//! `traceparent`, the session's keyed digest, the connection. An id that a client gives is kept unchanged or refused;
//! it is never shortened, because two ids must not become one.

use std::fmt;

use cairn_clock::Entropy;

/// A W3C trace context (`traceparent`, version 00).
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Trace {
    trace_id: String,
    parent_span: Option<String>,
    span_id: String,
    flags: String,
    state: Option<String>,
}

impl Trace {
    /// The trace that `traceparent` names, with a new span for this call; `None` where the value is not a valid one.
    #[must_use]
    pub(crate) fn continued(traceparent: &str, tracestate: Option<&str>, entropy: &Entropy) -> Option<Self> {
        let mut parts = traceparent.trim().split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex = |text: &str, len: usize| {
            text.len() == len && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let zero = |text: &str| text.bytes().all(|b| b == b'0');
        let whole = version != "00" || parts.next().is_none();
        if !hex(version, 2)
            || version == "ff"
            || !whole
            || !hex(trace, 32)
            || zero(trace)
            || !hex(span, 16)
            || zero(span)
            || !hex(flags, 2)
        {
            return None;
        }
        Some(Self {
            trace_id: trace.to_owned(),
            parent_span: Some(span.to_owned()),
            span_id: new_span(entropy),
            flags: flags.to_owned(),
            state: tracestate.filter(|state| state.len() <= 512).map(ToOwned::to_owned),
        })
    }

    /// A new trace.
    #[must_use]
    pub(crate) fn new(entropy: &Entropy) -> Self {
        let mut id = [0; 16];
        entropy.fill(&mut id);
        id[0] |= 1; // never all zeros, which the specification forbids
        Self {
            trace_id: hex::encode(id),
            parent_span: None,
            span_id: new_span(entropy),
            flags: "01".to_owned(),
            state: None,
        }
    }

    /// The trace id: 32 lower-case hexadecimal digits.
    #[must_use]
    pub(crate) fn trace_id(&self) -> &str {
        &self.trace_id
    }

    /// The same span within the trace of a workflow, where the client brought none: a workflow is one trace.
    #[must_use]
    pub(crate) fn of_workflow(self, digest: impl FnOnce() -> String) -> Self {
        if self.is_continued() {
            return self;
        }
        match digest().rsplit(':').next().and_then(|digits| digits.get(..32)) {
            Some(digits) => Self { trace_id: digits.to_owned(), ..self },
            None => self,
        }
    }

    /// The client's span, where it brought a trace.
    #[must_use]
    pub(crate) fn parent_span(&self) -> Option<&str> {
        self.parent_span.as_deref()
    }

    /// This call's span id: 16 lower-case hexadecimal digits.
    #[must_use]
    pub(crate) fn span_id(&self) -> &str {
        &self.span_id
    }

    /// The `traceparent` that the server gets: the same trace, this call's span as its parent.
    #[must_use]
    pub(crate) fn traceparent(&self) -> String {
        format!("00-{}-{}-{}", self.trace_id, self.span_id, self.flags)
    }

    /// The vendor state that came along, unchanged.
    #[must_use]
    pub(crate) fn tracestate(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// Whether the client brought this trace.
    #[must_use]
    pub(crate) const fn is_continued(&self) -> bool {
        self.parent_span.is_some()
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.traceparent())
    }
}

fn new_span(entropy: &Entropy) -> String {
    format!("{:016x}", entropy.next_u64() | 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_keeps_its_trace_and_gets_a_new_span() {
        let entropy = Entropy::seeded(1);
        let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace = Trace::continued(given, Some("a=b"), &entropy).expect("a valid traceparent");
        assert_eq!(trace.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_ne!(trace.span_id(), "00f067aa0ba902b7");
        assert!(trace.traceparent().starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"));
        assert_eq!(trace.tracestate(), Some("a=b"));
    }

    #[test]
    fn a_workflow_is_one_trace_unless_the_client_brings_one() {
        let entropy = Entropy::seeded(1);
        let digest = format!("hmac-sha256:k1:{}", "5b".repeat(32));
        let [one, two] = [Trace::new(&entropy), Trace::new(&entropy)].map(|trace| trace.of_workflow(|| digest.clone()));
        assert_eq!((one.trace_id(), one.trace_id().len()), (two.trace_id(), 32));
        assert_ne!(one.span_id(), two.span_id());
        let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let brought =
            Trace::continued(given, None, &entropy).expect("a valid traceparent").of_workflow(|| digest.clone());
        let its = ("4bf92f3577b34da6a3ce929d0e0e4736", Some("00f067aa0ba902b7"));
        assert_eq!((brought.trace_id(), brought.parent_span()), its);
    }

    #[test]
    fn what_is_not_a_traceparent_is_not_continued() {
        let entropy = Entropy::seeded(1);
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
        ] {
            assert!(Trace::continued(bad, None, &entropy).is_none(), "{bad}");
        }
    }
}
