//! From our errors to Kafka's codes: one exhaustive `match` for each. Called by the request files.

use cairn_log::ErrorKind;
use kafka_protocol::error::ResponseError;

use crate::{
    access::{AclError, ChangeError},
    batch::BatchError,
    broker::{FetchError, ProduceError, TopicError},
    group::GroupError,
    txn::TxnError,
};

pub(super) const NONE: i16 = 0;

pub(super) fn of_topic(error: &TopicError) -> i16 {
    match error {
        TopicError::Denied { .. } => ResponseError::TopicAuthorizationFailed,
        TopicError::Exists { .. } => ResponseError::TopicAlreadyExists,
        TopicError::Unknown { .. } => ResponseError::UnknownTopicOrPartition,
        TopicError::Name { .. } | TopicError::Collides { .. } => ResponseError::InvalidTopicException,
        TopicError::Partitions { .. } | TopicError::NotMore { .. } => ResponseError::InvalidPartitions,
        TopicError::Config { .. } => ResponseError::InvalidConfig,
        TopicError::TooMany { .. } | TopicError::TooManyPartitions { .. } => ResponseError::PolicyViolation,
        TopicError::Storage { .. } => ResponseError::KafkaStorageError,
    }
    .code()
}

pub(super) fn of_produce(error: &ProduceError) -> i16 {
    match error {
        ProduceError::UnknownPartition { .. } => ResponseError::UnknownTopicOrPartition,
        ProduceError::Denied { .. } => ResponseError::TopicAuthorizationFailed,
        ProduceError::TooLarge { .. } | ProduceError::Grown { .. } => ResponseError::MessageTooLarge,
        ProduceError::Overloaded(_) => return of_kind(error.kind()),
        ProduceError::Transactional => ResponseError::InvalidTxnState,
        // Produce never had the newer code for it (KIP-588).
        ProduceError::Transaction(error) => return of_transaction(*error, false),
        ProduceError::Control => ResponseError::InvalidRecord,
        ProduceError::Timestamp { .. } => ResponseError::InvalidTimestamp,
        ProduceError::Batch(error) => return of_batch(error),
        ProduceError::Append(error) => return of_append(error),
    }
    .code()
}

/// `knows_fenced`: the version of the request has the code that says so (KIP-588).
pub(super) fn of_transaction(error: TxnError, knows_fenced: bool) -> i16 {
    match error {
        TxnError::Id | TxnError::HalfNamed => ResponseError::InvalidRequest,
        TxnError::Timeout => ResponseError::InvalidTransactionTimeout,
        TxnError::Mapping => ResponseError::InvalidProducerIdMapping,
        TxnError::Fenced if knows_fenced => ResponseError::ProducerFenced,
        TxnError::Fenced => ResponseError::InvalidProducerEpoch,
        TxnError::State | TxnError::NotInTransaction => ResponseError::InvalidTxnState,
        TxnError::Full => ResponseError::PolicyViolation,
        TxnError::Unavailable => ResponseError::CoordinatorNotAvailable,
    }
    .code()
}

fn of_batch(error: &BatchError) -> i16 {
    match error {
        BatchError::OldFormat { magic: 0 | 1 } => ResponseError::UnsupportedForMessageFormat,
        // What may have come to harm on the way is sent again.
        BatchError::OldFormat { .. } | BatchError::Checksum { .. } | BatchError::Length { .. } => {
            ResponseError::CorruptMessage
        }
        BatchError::TooLarge { .. } => ResponseError::MessageTooLarge,
        BatchError::Short { .. }
        | BatchError::Header { .. }
        | BatchError::Record { .. }
        | BatchError::Keyless { .. }
        | BatchError::Compressed { .. }
        | BatchError::Trailing { .. } => ResponseError::InvalidRecord,
    }
    .code()
}

pub(super) fn of_append(error: &cairn_log::AppendError) -> i16 {
    use cairn_log::AppendError;
    match error {
        AppendError::OutOfOrderSequence { .. } => ResponseError::OutOfOrderSequenceNumber.code(),
        AppendError::StaleProducerEpoch { .. } => ResponseError::InvalidProducerEpoch.code(),
        AppendError::UnknownStream { .. } => ResponseError::UnknownTopicOrPartition.code(),
        // Whether it was stored shows after the restart, when the producer sends it again.
        AppendError::Failed { .. } => ResponseError::KafkaStorageError.code(),
        other => of_kind(other.kind()),
    }
}

fn of_kind(kind: ErrorKind) -> i16 {
    match kind {
        ErrorKind::Retry => ResponseError::NotEnoughReplicas,
        ErrorKind::Fenced => ResponseError::NotLeaderOrFollower,
        ErrorKind::Invalid => ResponseError::InvalidRecord,
        ErrorKind::Denied => ResponseError::TopicAuthorizationFailed,
        ErrorKind::Corrupt => ResponseError::CorruptMessage,
        ErrorKind::Full | ErrorKind::Closed => ResponseError::KafkaStorageError,
        ErrorKind::Internal => ResponseError::UnknownServerError,
    }
    .code()
}

pub(super) fn of_fetch(error: &FetchError) -> i16 {
    match error {
        FetchError::UnknownPartition { .. } => ResponseError::UnknownTopicOrPartition.code(),
        FetchError::OutOfRange { .. } => ResponseError::OffsetOutOfRange.code(),
        FetchError::Read(error) => of_read(error),
    }
}

pub(super) fn of_read(error: &cairn_log::ReadError) -> i16 {
    use cairn_log::ReadError;
    match error {
        ReadError::UnknownStream { .. } => ResponseError::UnknownTopicOrPartition.code(),
        // Retention was quicker than the reader.
        ReadError::OutOfRange { .. } => ResponseError::OffsetOutOfRange.code(),
        other => of_kind(other.kind()),
    }
}

pub(super) fn of_group(error: GroupError) -> i16 {
    match error {
        GroupError::InvalidGroupId => ResponseError::InvalidGroupId,
        GroupError::InvalidSessionTimeout => ResponseError::InvalidSessionTimeout,
        GroupError::InconsistentProtocol => ResponseError::InconsistentGroupProtocol,
        GroupError::UnknownMember => ResponseError::UnknownMemberId,
        GroupError::FencedInstance => ResponseError::FencedInstanceId,
        GroupError::IllegalGeneration => ResponseError::IllegalGeneration,
        GroupError::RebalanceInProgress => ResponseError::RebalanceInProgress,
        GroupError::GroupFull => ResponseError::GroupMaxSizeReached,
        GroupError::NotEmpty => ResponseError::NonEmptyGroup,
        GroupError::Subscribed => ResponseError::GroupSubscribedToTopic,
        GroupError::GroupNotFound => ResponseError::GroupIdNotFound,
        GroupError::InvalidRequest => ResponseError::InvalidRequest,
        GroupError::FencedEpoch => ResponseError::FencedMemberEpoch,
        GroupError::StaleEpoch => ResponseError::StaleMemberEpoch,
        GroupError::UnreleasedInstance => ResponseError::UnreleasedInstanceId,
        GroupError::UnsupportedAssignor => ResponseError::UnsupportedAssignor,
        GroupError::InvalidRegex => ResponseError::InvalidRegularExpression,
        GroupError::UnsupportedVersion => ResponseError::UnsupportedVersion,
        GroupError::OffsetsFull => ResponseError::InvalidCommitOffsetSize,
        GroupError::Unavailable => ResponseError::CoordinatorNotAvailable,
    }
    .code()
}

pub(super) fn of_credential(error: &ChangeError) -> i16 {
    match error {
        ChangeError::Mechanism { .. } => ResponseError::UnsupportedSaslMechanism,
        ChangeError::Unacceptable { .. } => ResponseError::UnacceptableCredential,
        ChangeError::Twice => ResponseError::DuplicateResource,
        ChangeError::Unknown => ResponseError::ResourceNotFound,
        ChangeError::Storage { .. } => ResponseError::KafkaStorageError,
    }
    .code()
}

pub(super) fn of_acl(error: &AclError) -> i16 {
    match error {
        AclError::Off => ResponseError::SecurityDisabled,
        AclError::Full => ResponseError::PolicyViolation,
        AclError::Storage { .. } => ResponseError::KafkaStorageError,
    }
    .code()
}
