//! The steps in the life of a call, by name, and a witness that is told of each.
//!
//! The running gateway's witness does nothing. A crash test's witness stops the process at one of them, so that every
//! place where a crash can land is a place where one did. A witness must never change what a step does.

use std::fmt;

/// A place in the life of a call, in order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Step {
    /// The message is parsed.
    Accepted,
    /// Policy has decided; nothing is recorded yet.
    Decided,
    /// The call waits for an approval.
    Held,
    /// The intent is about to be recorded.
    BeforeIntent,
    /// The intent is durable; nothing is forwarded yet.
    AfterIntent,
    /// The bytes have been handed to the upstream.
    Forwarded,
    /// The final response is here; its outcome is not recorded yet.
    Answered,
    /// The outcome is durable; the client has not been answered.
    AfterOutcome,
    /// The answer has been handed to the client's transport.
    Replied,
}

impl Step {
    /// Every step, in order.
    pub const ALL: [Self; 9] = [
        Self::Accepted,
        Self::Decided,
        Self::Held,
        Self::BeforeIntent,
        Self::AfterIntent,
        Self::Forwarded,
        Self::Answered,
        Self::AfterOutcome,
        Self::Replied,
    ];

    /// The name used by crash tests.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Decided => "decided",
            Self::Held => "held",
            Self::BeforeIntent => "before-intent",
            Self::AfterIntent => "after-intent",
            Self::Forwarded => "forwarded",
            Self::Answered => "answered",
            Self::AfterOutcome => "after-outcome",
            Self::Replied => "replied",
        }
    }

    /// The step of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.name() == name)
    }
}

/// Is told of each step of each call.
pub trait Witness: Send + Sync + fmt::Debug {
    /// A call of `method` has reached `step`.
    fn reached(&self, step: Step, method: &str);
}

/// The witness of a running gateway: it looks away.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoWitness;

impl Witness for NoWitness {
    fn reached(&self, _: Step, _: &str) {}
}
