//! One event's own keys, as a type for each event type.
//!
//! A draft holds one; a stored event gives one back where its type is known.

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::{
    AccessRefused, ActionReported, AlertRaised, CallAnswered, CallApproval, CallDecision, CallIntent, CallLate,
    CallOutcome, CallSettled, CatalogApproved, CatalogChanged, CatalogDefined, ConsumerMoved, ContextChanged,
    ContextListed, ContextPrompt, ContextRead, EventRejected, EventType, EvidenceCheckpoint, EvidenceProducer,
    EvidenceRotated, LimitExceeded, ModelCalled, NoticePassed, OperatorActed, PolicyActivated, PolicyLoaded,
    PolicyRejected, PolicyShadowed, ReplayEnded, ReplayStarted, SessionClosed, SessionOpened, SubjectErased,
    SubjectHeld, SubjectReleased, Target, VaultRead,
};

/// Why an event's keys could not be read as its type.
#[derive(Debug, thiserror::Error)]
#[error("the event is not a {event_type} as its contract says: {source}")]
pub struct BodyError {
    /// The type that the event says it has.
    pub event_type: EventType,
    /// What is wrong.
    #[source]
    pub source: serde_json::Error,
}

macro_rules! bodies {
    ($($variant:ident),* $(,)?) => {
        /// An event's own keys.
        #[derive(Clone, PartialEq, Debug)]
        pub enum Body {
            $(
                #[doc = concat!("See [`", stringify!($variant), "`].")]
                $variant($variant),
            )*
        }

        impl Body {
            /// The event's type.
            #[must_use]
            pub const fn event_type(&self) -> EventType {
                match self {
                    $(Self::$variant(_) => EventType::$variant,)*
                }
            }

            /// Reads the keys of `event_type` from an event's JSON object; keys that it does not know are ignored.
            ///
            /// # Errors
            /// A key that the type needs is missing or has another type.
            pub fn from_value(event_type: EventType, value: &Value) -> Result<Self, BodyError> {
                match event_type {
                    $(EventType::$variant => serde::Deserialize::deserialize(value).map(Self::$variant),)*
                }
                .map_err(|source| BodyError { event_type, source })
            }
        }

        impl Serialize for Body {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self {
                    $(Self::$variant(body) => body.serialize(serializer),)*
                }
            }
        }

        $(
            impl From<$variant> for Body {
                fn from(body: $variant) -> Self {
                    Self::$variant(body)
                }
            }
        )*
    };
}

bodies!(
    CallDecision,
    CallApproval,
    CallIntent,
    CallOutcome,
    CallAnswered,
    CallLate,
    CallSettled,
    NoticePassed,
    ContextRead,
    ContextChanged,
    ContextListed,
    ContextPrompt,
    SessionOpened,
    SessionClosed,
    CatalogDefined,
    CatalogChanged,
    CatalogApproved,
    PolicyLoaded,
    PolicyActivated,
    PolicyRejected,
    AccessRefused,
    AlertRaised,
    LimitExceeded,
    PolicyShadowed,
    EvidenceCheckpoint,
    EvidenceRotated,
    EvidenceProducer,
    VaultRead,
    SubjectErased,
    SubjectHeld,
    SubjectReleased,
    OperatorActed,
    EventRejected,
    ConsumerMoved,
    ReplayStarted,
    ReplayEnded,
    ModelCalled,
    ActionReported,
);

impl Body {
    /// What the event is about, where its type says so.
    #[must_use]
    pub const fn target(&self) -> Option<&Target> {
        match self {
            Self::CallDecision(CallDecision { target, .. }) | Self::CallIntent(CallIntent { target, .. }) => {
                Some(target)
            }
            _ => None,
        }
    }
}
