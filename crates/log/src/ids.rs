//! The log's own numbers and names, each a type of its own so that none is taken for another. Used everywhere.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name($inner);

        impl $name {
            /// Wraps the number.
            #[must_use]
            pub const fn new(value: $inner) -> Self {
                Self(value)
            }

            /// The number.
            #[must_use]
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// The place of a record in its stream, from zero.
    Offset,
    u64
);
number!(
    /// Which leadership wrote a batch; rises each time the log is opened.
    LeaderEpoch,
    u32
);
number!(
    /// A partition of a topic, from zero.
    PartitionIndex,
    u32
);
number!(
    /// An idempotent producer.
    ProducerId,
    i64
);
number!(
    /// The incarnation of a producer id.
    ProducerEpoch,
    i16
);
number!(
    /// A record's number within its producer and stream; after 2^31 - 1 comes 0.
    Sequence,
    i32
);

impl Offset {
    /// The offset `by` records later, or nothing past the last number Kafka can say (2^63 - 1).
    #[must_use]
    pub fn checked_add(self, by: u64) -> Option<Self> {
        self.0.checked_add(by).filter(|sum| i64::try_from(*sum).is_ok()).map(Self)
    }
}

impl Sequence {
    /// The sequence `by` records later, wrapping to zero as Kafka's producers do.
    #[must_use]
    pub fn wrapping_plus(self, by: u32) -> Self {
        let sum = (i64::from(self.0) + i64::from(by)) & 0x7fff_ffff;
        Self(i32::try_from(sum).expect("the mask leaves 31 bits"))
    }
}

/// One stream: a partition of a topic by id, so that a topic that is created again is another stream.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct StreamId {
    /// Topic id.
    pub topic: Uuid,
    /// Partition.
    pub partition: PartitionIndex,
}

impl StreamId {
    /// Names a stream.
    #[must_use]
    pub const fn new(topic: Uuid, partition: PartitionIndex) -> Self {
        Self { topic, partition }
    }
}

impl std::fmt::Display for StreamId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}
