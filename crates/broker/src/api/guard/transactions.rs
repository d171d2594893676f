//! What may be done with producer ids and transactions.

use bytes::Bytes;
use kafka_protocol::{
    error::ResponseError,
    messages::{
        AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
        DescribeTransactionsRequest, DescribeTransactionsResponse, EndTxnRequest, EndTxnResponse,
        InitProducerIdRequest, InitProducerIdResponse, ListTransactionsRequest, ListTransactionsResponse,
        TransactionalId, TxnOffsetCommitRequest, TxnOffsetCommitResponse, WriteTxnMarkersRequest,
        WriteTxnMarkersResponse,
        add_partitions_to_txn_request::AddPartitionsToTxnTopic,
        add_partitions_to_txn_response::{AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult},
        describe_transactions_response::TransactionState,
        txn_offset_commit_request::TxnOffsetCommitRequestTopic,
        txn_offset_commit_response::{TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic},
        write_txn_markers_response::{
            WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
        },
    },
};
use uuid::Uuid;

use super::{
    CLUSTER_DENIED, GROUP_DENIED, Gate, Guarded, TOPIC_DENIED, TRANSACTION_DENIED, Verdict, next_id, split, whole,
};
use crate::{
    access::{Kind, Operation},
    api::text,
};

impl Guarded for InitProducerIdRequest {
    type Answer = InitProducerIdResponse;
    type Kept = ();

    fn guard(self, gate: &Gate<'_>, _version: i16) -> Verdict<Self> {
        let (may, code) = match &self.transactional_id {
            Some(id) => (gate.transaction(Operation::Write, id), TRANSACTION_DENIED),
            // Whoever may write something may do so without writing it twice (KIP-679).
            None => {
                let may = gate.cluster(Operation::IdempotentWrite) || gate.may_any(Operation::Write, Kind::Topic);
                (may, CLUSTER_DENIED)
            }
        };
        if may {
            return Verdict::Some(self, ());
        }
        Verdict::None(InitProducerIdResponse::default().with_error_code(code).with_producer_id((-1).into()))
    }
}

/// The first version of AddPartitionsToTxn that names several transactions, which only brokers send.
const ADD_FOR_BROKERS_FIRST: i16 = 4;
/// What is told of partitions that could have been added, where others could not.
const NOT_ATTEMPTED: i16 = ResponseError::OperationNotAttempted.code();

impl Guarded for AddPartitionsToTxnRequest {
    type Answer = AddPartitionsToTxnResponse;
    type Kept = ();

    fn guard(self, gate: &Gate<'_>, version: i16) -> Verdict<Self> {
        let response = AddPartitionsToTxnResponse::default();
        if version >= ADD_FOR_BROKERS_FIRST {
            return if gate.cluster(Operation::ClusterAction) {
                Verdict::Some(self, ())
            } else {
                Verdict::None(response.with_error_code(CLUSTER_DENIED))
            };
        }
        let may = |topic: &AddPartitionsToTxnTopic| gate.topic(Operation::Write, &topic.name);
        let is_theirs = gate.transaction(Operation::Write, &self.v3_and_below_transactional_id);
        if is_theirs && self.v3_and_below_topics.iter().all(may) {
            return Verdict::Some(self, ());
        }
        let told = self.v3_and_below_topics.into_iter().map(|topic| {
            let code = match (is_theirs, may(&topic)) {
                (false, _) => TRANSACTION_DENIED,
                (true, false) => TOPIC_DENIED,
                (true, true) => NOT_ATTEMPTED,
            };
            let partitions = topic.partitions.into_iter().map(|index| {
                let told = AddPartitionsToTxnPartitionResult::default().with_partition_index(index);
                told.with_partition_error_code(code)
            });
            let told = AddPartitionsToTxnTopicResult::default().with_name(topic.name);
            told.with_results_by_partition(partitions.collect())
        });
        Verdict::None(response.with_results_by_topic_v3_and_below(told.collect()))
    }
}

whole!(
    WriteTxnMarkersRequest => WriteTxnMarkersResponse,
    // As in Kafka 4: brokers, and who may alter the cluster.
    |gate: &Gate<'_>, _: &_| gate.cluster(Operation::ClusterAction) || gate.cluster(Operation::Alter),
    |request: WriteTxnMarkersRequest, _| {
        let told = request.markers.into_iter().map(|marker| {
            let topics = marker.topics.into_iter().map(|topic| {
                let partitions = topic.partition_indexes.into_iter().map(|index| {
                    let told = WritableTxnMarkerPartitionResult::default().with_partition_index(index);
                    told.with_error_code(CLUSTER_DENIED)
                });
                WritableTxnMarkerTopicResult::default().with_name(topic.name).with_partitions(partitions.collect())
            });
            let topics = topics.collect();
            WritableTxnMarkerResult::default().with_producer_id(marker.producer_id).with_topics(topics)
        });
        WriteTxnMarkersResponse::default().with_markers(told.collect())
    }
);

impl Guarded for AddOffsetsToTxnRequest {
    type Answer = AddOffsetsToTxnResponse;
    type Kept = ();

    fn guard(self, gate: &Gate<'_>, _version: i16) -> Verdict<Self> {
        let refused = |code| Verdict::None(AddOffsetsToTxnResponse::default().with_error_code(code));
        if !gate.transaction(Operation::Write, &self.transactional_id) {
            refused(TRANSACTION_DENIED)
        } else if !gate.group(Operation::Read, &self.group_id) {
            refused(GROUP_DENIED)
        } else {
            Verdict::Some(self, ())
        }
    }
}

whole!(
    EndTxnRequest => EndTxnResponse,
    |gate: &Gate<'_>, request: &EndTxnRequest| gate.transaction(Operation::Write, &request.transactional_id),
    |_, _| EndTxnResponse::default().with_error_code(TRANSACTION_DENIED)
);

/// The first version of TxnOffsetCommit that names topics by their ids.
pub(in crate::api) const COMMIT_BY_ID_FIRST: i16 = 6;

/// The id that stands in the place of a name.
pub(in crate::api) fn id_in_name(name: &str) -> Uuid {
    name.parse().unwrap_or_default()
}

impl Guarded for TxnOffsetCommitRequest {
    type Answer = TxnOffsetCommitResponse;
    type Kept = Vec<TxnOffsetCommitResponseTopic>;

    /// The codec has no room for ids (KIP-1319): each is its topic's name until the answer is written.
    fn add(&mut self, rest: &mut Bytes) {
        self.topics.iter_mut().for_each(|topic| topic.name = text(next_id(rest).to_string()).into());
    }

    fn newer(answer: &Self::Answer) -> Vec<u8> {
        answer.topics.iter().flat_map(|topic| id_in_name(&topic.name).into_bytes()).collect()
    }

    fn guard(mut self, gate: &Gate<'_>, version: i16) -> Verdict<Self> {
        let refused = |code: i16| {
            move |topic: TxnOffsetCommitRequestTopic| {
                let partitions = topic.partitions.iter().map(|partition| {
                    let told = TxnOffsetCommitResponsePartition::default().with_error_code(code);
                    told.with_partition_index(partition.partition_index)
                });
                let partitions = partitions.collect();
                TxnOffsetCommitResponseTopic::default().with_name(topic.name).with_partitions(partitions)
            }
        };
        let of_all = if !gate.transaction(Operation::Write, &self.transactional_id) {
            Some(TRANSACTION_DENIED)
        } else {
            (!gate.group(Operation::Read, &self.group_id)).then_some(GROUP_DENIED)
        };
        if let Some(code) = of_all {
            let all = self.topics.into_iter().map(refused(code)).collect();
            return Verdict::None(TxnOffsetCommitResponse::default().with_topics(all));
        }
        let may = |topic: &TxnOffsetCommitRequestTopic| {
            if version >= COMMIT_BY_ID_FIRST {
                gate.named(Operation::Read, "", id_in_name(&topic.name))
            } else {
                gate.topic(Operation::Read, &topic.name)
            }
        };
        let (some, others) = split(self.topics, may, refused(TOPIC_DENIED));
        if some.is_empty() && !others.is_empty() {
            return Verdict::None(TxnOffsetCommitResponse::default().with_topics(others));
        }
        self.topics = some;
        Verdict::Some(self, others)
    }

    fn complete(_gate: &Gate<'_>, refused: Self::Kept, answer: &mut Self::Answer) {
        answer.topics.extend(refused);
    }
}

impl Guarded for DescribeTransactionsRequest {
    type Answer = DescribeTransactionsResponse;
    type Kept = Vec<TransactionState>;

    fn guard(mut self, gate: &Gate<'_>, _version: i16) -> Verdict<Self> {
        let (some, others) = split(
            self.transactional_ids,
            |id: &TransactionalId| gate.transaction(Operation::Describe, id),
            |id| TransactionState::default().with_transactional_id(id).with_error_code(TRANSACTION_DENIED),
        );
        self.transactional_ids = some;
        Verdict::Some(self, others)
    }

    fn complete(gate: &Gate<'_>, refused: Self::Kept, answer: &mut Self::Answer) {
        // Whoever sees a transaction sees of its topics those that they may.
        for transaction in &mut answer.transaction_states {
            transaction.topics.retain(|topic| gate.topic(Operation::Describe, &topic.topic));
        }
        answer.transaction_states.extend(refused);
    }
}

impl Guarded for ListTransactionsRequest {
    type Answer = ListTransactionsResponse;
    type Kept = ();

    fn guard(self, _gate: &Gate<'_>, _version: i16) -> Verdict<Self> {
        Verdict::Some(self, ())
    }

    fn complete(gate: &Gate<'_>, (): Self::Kept, answer: &mut Self::Answer) {
        answer.transaction_states.retain(|one| gate.transaction(Operation::Describe, &one.transactional_id));
    }
}
