//! Why the broker refuses: to open, topics, batches, reads. Each says what its caller should do.

use cairn_log::{AppendError, ErrorKind, ReadError};

use crate::{batch::BatchError, budget::Overloaded, topics::CatalogueError, txn::TxnError};

/// Why a broker does not open.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the broker: {reason}")]
pub struct OpenError {
    pub(super) reason: String,
}

/// Why a topic is not created or deleted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// The principal may not.
    #[error("topics beginning with `{prefix}` are written by Cairn only")]
    Denied {
        /// The protected prefix.
        prefix: String,
    },
    /// There is one of that name.
    #[error("topic `{name}` exists already")]
    Exists {
        /// Its name.
        name: String,
    },
    /// There is none of that name or id.
    #[error("topic `{name}` does not exist")]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// Not a name.
    #[error("`{name}` cannot be a topic's name: use 1 to 249 of the characters a-z A-Z 0-9 . _ -")]
    Name {
        /// What was asked for.
        name: String,
    },
    /// Another has the same name but for dots and underscores.
    #[error("`{name}` differs from topic `{other}` in dots and underscores only, which metrics do not tell apart")]
    Collides {
        /// What was asked for.
        name: String,
        /// The topic there is.
        other: String,
    },
    /// Too few or many partitions.
    #[error("{partitions} partitions are not between 1 and {most}")]
    Partitions {
        /// What was asked for.
        partitions: u32,
        /// The limit.
        most: u32,
    },
    /// A config that cannot be.
    #[error("{reason}")]
    Config {
        /// Which and why.
        reason: String,
    },
    /// There are as many topics as may be.
    #[error("there are {most} topics already: delete one, or raise the limit")]
    TooMany {
        /// The limit.
        most: usize,
    },
    /// There are as many partitions as may be.
    #[error("{asked} more partitions would make more than {most} in all: delete topics, or raise the limit")]
    TooManyPartitions {
        /// What was asked for.
        asked: u32,
        /// The limit.
        most: usize,
    },
    /// It has as many partitions already, or more.
    #[error("the topic has {partitions} partitions: ask for more than that, they cannot become fewer")]
    NotMore {
        /// What it has.
        partitions: u32,
    },
    /// The catalogue could not be made durable.
    #[error("the catalogue cannot be written: {reason}")]
    Storage {
        /// What the log said.
        reason: String,
    },
}

/// Why a batch is not stored.
#[derive(Debug, thiserror::Error)]
pub enum ProduceError {
    /// No such topic or partition.
    #[error("topic `{topic}` has no partition {partition}, or does not exist")]
    UnknownPartition {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// The principal may not.
    #[error("topic `{topic}` is written by Cairn only")]
    Denied {
        /// The topic.
        topic: String,
    },
    /// Bigger than `max.message.bytes`.
    #[error("batch has {bytes} bytes, `max.message.bytes` of the topic is {most}")]
    TooLarge {
        /// Its bytes.
        bytes: usize,
        /// The limit.
        most: usize,
    },
    /// Not a batch that may be stored.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A batch of a transaction where there can be none: from within the process, or into a topic that is written by Cairn only.
    #[error("no transaction may write here: produce without a transactional id")]
    Transactional,
    /// The transaction does not take it.
    #[error(transparent)]
    Transaction(#[from] TxnError),
    /// A record is older or newer than its topic takes.
    #[error("timestamp {timestamp} is more than `{config}` from the broker's time")]
    Timestamp {
        /// The timestamp, ms.
        timestamp: i64,
        /// The topic config that says how much.
        config: &'static str,
        /// The places in the batch of the first that are, at least one.
        records: Vec<i32>,
    },
    /// What topics want packed otherwise than it came has grown past what one request may bring.
    #[error(
        "the batches of this request come to more than {most} bytes more as their topics want them packed: send fewer at once"
    )]
    Grown {
        /// The limit in bytes.
        most: usize,
    },
    /// The broker holds as much for its clients as it may.
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
    /// Markers are the broker's.
    #[error("control batches are written by brokers only")]
    Control,
    /// The log refused or failed.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Why nothing is read.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No such topic or partition.
    #[error("topic `{topic}` has no partition {partition}, or does not exist")]
    UnknownPartition {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// Before the first or after the last.
    #[error("offset {asked} is not between {log_start} and {end}")]
    OutOfRange {
        /// What was asked for.
        asked: u64,
        /// First offset kept.
        log_start: u64,
        /// Durable end.
        end: u64,
    },
    /// The log failed.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl ProduceError {
    /// What the caller should do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownPartition { .. }
            | Self::TooLarge { .. }
            | Self::Grown { .. }
            | Self::Transactional
            | Self::Transaction(_)
            | Self::Control
            | Self::Timestamp { .. } => ErrorKind::Invalid,
            Self::Denied { .. } => ErrorKind::Denied,
            Self::Overloaded(_) => ErrorKind::Retry,
            Self::Batch(BatchError::Checksum { .. }) => ErrorKind::Corrupt,
            Self::Batch(_) => ErrorKind::Invalid,
            Self::Append(error) => error.kind(),
        }
    }
}

impl From<CatalogueError> for TopicError {
    fn from(error: CatalogueError) -> Self {
        match error {
            CatalogueError::Exists { name } => Self::Exists { name },
            CatalogueError::Unknown { name } => Self::Unknown { name },
            other => Self::Storage { reason: other.to_string() },
        }
    }
}
