//! DescribeProducers, DescribeTransactions, ListTransactions, and WriteTxnMarkers as operators use it: to abort a transaction that
//! hangs (KIP-664, 994).

use kafka_protocol::{
    error::ResponseError,
    messages::{
        DescribeProducersRequest, DescribeProducersResponse, DescribeTransactionsRequest, DescribeTransactionsResponse,
        ListTransactionsRequest, ListTransactionsResponse, WriteTxnMarkersRequest, WriteTxnMarkersResponse,
        describe_producers_response::{PartitionResponse, ProducerState, TopicResponse},
        describe_transactions_response::{TopicData, TransactionState},
        list_transactions_response::TransactionState as ListedState,
        write_txn_markers_response::{
            WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
        },
    },
};
use regex::bytes::RegexBuilder;

use super::{Session, codes, text};
use crate::{
    broker::Broker,
    topics::is_topic_name,
    txn::{AbortError, Status},
};

/// Bytes that the pattern of a ListTransactions may take when it is compiled.
const PATTERN_BYTES_MAX: usize = 256 << 10;
/// Kafka's names of the states that never come to be here: a filter may name them, and finds nothing.
const OTHER_STATES: [&str; 4] = ["PrepareCommit", "PrepareAbort", "Dead", "PrepareEpochFence"];

pub(super) async fn describe(broker: &Broker, request: DescribeProducersRequest) -> DescribeProducersResponse {
    let mut topics = Vec::new();
    for asked in request.topics {
        let topic = broker.inner.topics.get(&asked.name);
        let unknown = if is_topic_name(&asked.name) {
            ResponseError::UnknownTopicOrPartition
        } else {
            ResponseError::InvalidTopicException
        };
        let mut partitions = Vec::new();
        for index in asked.partition_indexes {
            let response = PartitionResponse::default().with_partition_index(index);
            let found = match topic.as_ref().and_then(|topic| topic.stream(index)) {
                None => Err(unknown.code()),
                Some(stream) => broker.describe_producers(stream).await.map_err(|error| codes::of_read(&error)),
            };
            partitions.push(match found {
                Err(code) => response.with_error_code(code),
                Ok(producers) => {
                    let states = producers.into_iter().map(|found| {
                        let offset = found.open_since.and_then(|since| i64::try_from(since.get()).ok());
                        ProducerState::default()
                            .with_producer_id(found.id.get().into())
                            .with_producer_epoch(i32::from(found.epoch.get()))
                            .with_last_sequence(found.last_sequence.map_or(-1, |sequence| sequence.get()))
                            .with_last_timestamp(found.last_timestamp)
                            .with_current_txn_start_offset(offset.unwrap_or(-1))
                    });
                    response.with_active_producers(states.collect())
                }
            });
        }
        topics.push(TopicResponse::default().with_name(asked.name).with_partitions(partitions));
    }
    DescribeProducersResponse::default().with_topics(topics)
}

pub(super) async fn describe_transactions(
    broker: &Broker,
    request: DescribeTransactionsRequest,
) -> DescribeTransactionsResponse {
    let mut states = Vec::new();
    for id in request.transactional_ids {
        let state = match broker.describe_transaction(&id).await {
            _ if id.is_empty() => TransactionState::default().with_error_code(ResponseError::InvalidRequest.code()),
            None => TransactionState::default().with_error_code(ResponseError::TransactionalIdNotFound.code()),
            Some(known) => {
                let mut topics: Vec<TopicData> = Vec::new();
                for (topic, partition) in known.partitions {
                    match topics.last_mut() {
                        Some(last) if **last.topic == *topic => last.partitions.push(partition),
                        _ => {
                            let data = TopicData::default().with_topic(text(topic).into());
                            topics.push(data.with_partitions(vec![partition]));
                        }
                    }
                }
                let started = if known.status == Status::Ongoing { known.started_ms } else { -1 };
                TransactionState::default()
                    .with_transaction_state(text(known.status.name()))
                    .with_transaction_timeout_ms(known.timeout_ms)
                    .with_transaction_start_time_ms(started)
                    .with_producer_id(known.producer.into())
                    .with_producer_epoch(known.epoch)
                    .with_topics(topics)
            }
        };
        states.push(state.with_transactional_id(id));
    }
    DescribeTransactionsResponse::default().with_transaction_states(states)
}

pub(super) async fn list_transactions(broker: &Broker, request: ListTransactionsRequest) -> ListTransactionsResponse {
    let response = ListTransactionsResponse::default();
    let pattern = request.transactional_id_pattern.as_ref().filter(|pattern| !pattern.is_empty());
    let pattern = pattern.map(|pattern| {
        let whole = format!("^(?:{})$", &**pattern);
        RegexBuilder::new(&whole).size_limit(PATTERN_BYTES_MAX).unicode(false).build()
    });
    let Ok(pattern) = pattern.transpose() else {
        return response.with_error_code(ResponseError::InvalidRegularExpression.code());
    };
    let known = |name: &str| Status::ALL.iter().any(|status| status.name() == name) || OTHER_STATES.contains(&name);
    let unknown = request.state_filters.iter().filter(|name| !known(name)).cloned().collect();
    let now_ms = broker.inner.clock.now().as_millis();
    let found = broker.list_transactions(|id, known| {
        let by_state = |name: &&str| *name == known.status.name();
        let in_state = request.state_filters.is_empty() || request.state_filters.iter().any(|name| by_state(&&**name));
        let of_producer = request.producer_id_filters.is_empty()
            || request.producer_id_filters.iter().any(|producer| producer.0 == known.producer);
        let runs_long = request.duration_filter < 0
            || (known.status == Status::Ongoing && now_ms - known.started_ms > request.duration_filter);
        in_state && of_producer && runs_long && pattern.as_ref().is_none_or(|pattern| pattern.is_match(id.as_bytes()))
    });
    let states = found.await.into_iter().map(|(id, producer, status)| {
        let state = ListedState::default().with_transactional_id(text(id).into());
        state.with_producer_id(producer.into()).with_transaction_state(text(status.name()))
    });
    response.with_unknown_state_filters(unknown).with_transaction_states(states.collect())
}

/// Only an abort, and only of what is open and belongs to no transaction that goes on: brokers write their own markers.
pub(super) async fn abort(
    broker: &Broker,
    session: &Session,
    request: WriteTxnMarkersRequest,
) -> WriteTxnMarkersResponse {
    let mut results = Vec::new();
    for marker in request.markers {
        let producer = (marker.producer_id.0, marker.producer_epoch);
        let mut topics = Vec::new();
        for asked in marker.topics {
            let topic = broker.inner.topics.get(&asked.name);
            let mut partitions = Vec::new();
            for index in asked.partition_indexes {
                let code = if marker.transaction_result {
                    ResponseError::InvalidRequest.code()
                } else if !broker.may_write(&session.principal, &asked.name) {
                    ResponseError::ClusterAuthorizationFailed.code()
                } else {
                    match topic.as_ref().and_then(|topic| topic.stream(index)) {
                        None => ResponseError::UnknownTopicOrPartition.code(),
                        Some(stream) => {
                            let place = (asked.name.to_string(), index);
                            of_abort(broker.abort_hanging(stream, &place, producer).await)
                        }
                    }
                };
                let result = WritableTxnMarkerPartitionResult::default().with_partition_index(index);
                partitions.push(result.with_error_code(code));
            }
            topics.push(WritableTxnMarkerTopicResult::default().with_name(asked.name).with_partitions(partitions));
        }
        results.push(WritableTxnMarkerResult::default().with_producer_id(marker.producer_id).with_topics(topics));
    }
    WriteTxnMarkersResponse::default().with_markers(results)
}

fn of_abort(done: Result<(), AbortError>) -> i16 {
    match done {
        Ok(()) => codes::NONE,
        Err(AbortError::Nothing | AbortError::Alive) => ResponseError::InvalidTxnState.code(),
        Err(AbortError::Read(error)) => codes::of_read(&error),
        Err(AbortError::Append(error)) => codes::of_append(&error),
    }
}
