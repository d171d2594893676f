//! AddPartitionsToTxn, AddOffsetsToTxn, EndTxn and TxnOffsetCommit: the codec's values to the transaction coordinator's and back.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
        EndTxnRequest, EndTxnResponse, TxnOffsetCommitRequest, TxnOffsetCommitResponse,
        add_partitions_to_txn_request::AddPartitionsToTxnTopic,
        add_partitions_to_txn_response::{
            AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
        },
        txn_offset_commit_response::{TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic},
    },
};

use super::{
    Session, codes,
    guard::{COMMIT_BY_ID_FIRST, id_in_name},
};
use crate::{
    broker::Broker,
    group::{GroupError, Identity, records::OffsetValue},
    topics::OFFSETS_TOPIC,
    txn::{Place, TxnError, VERSION_BUMPS},
};

/// The first version of AddPartitionsToTxn that names several transactions; brokers speak it.
const BATCHED_FIRST: i16 = 4;
/// The first version of it that may say that a transaction can be aborted and gone on from (KIP-890).
const ADD_ABORTABLE_FIRST: i16 = 5;
/// The first version of AddPartitionsToTxn, AddOffsetsToTxn and EndTxn that can say that somebody else has the id (KIP-588).
const FENCED_FIRST: i16 = 2;
/// The first version of EndTxn that bumps the epoch.
const END_BUMPS_FIRST: i16 = 5;
/// The first version of TxnOffsetCommit that knows of transactions that can be aborted and gone on from.
const COMMIT_ABORTABLE_FIRST: i16 = 4;
/// The first version of TxnOffsetCommit that makes the group's partition part of the transaction.
const COMMIT_ADDS_FIRST: i16 = 5;

/// What a client without bumps is taken for.
const VERSION_OLD: i16 = 0;

/// Topics with partitions, each with what came of it.
type Results = Vec<(kafka_protocol::messages::TopicName, Vec<(i32, i16)>)>;

pub(super) async fn add_partitions(
    broker: &Broker,
    session: &Session,
    request: AddPartitionsToTxnRequest,
    version: i16,
) -> AddPartitionsToTxnResponse {
    if version < BATCHED_FIRST {
        let id = &*request.v3_and_below_transactional_id;
        let producer = (request.v3_and_below_producer_id.0, request.v3_and_below_producer_epoch);
        let results = add(broker, session, id, producer, request.v3_and_below_topics, false, version).await;
        return AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(told(results));
    }
    let mut all = Vec::new();
    for one in request.transactions {
        let producer = (one.producer_id.0, one.producer_epoch);
        let id = &*one.transactional_id;
        let results = add(broker, session, id, producer, one.topics, one.verify_only, version).await;
        let result = AddPartitionsToTxnResult::default().with_topic_results(told(results));
        all.push(result.with_transactional_id(one.transactional_id));
    }
    AddPartitionsToTxnResponse::default().with_results_by_transaction(all)
}

/// Adds all partitions of one transaction, or none; or says which are part of it.
async fn add(
    broker: &Broker,
    session: &Session,
    id: &str,
    producer: (i64, i16),
    topics: Vec<AddPartitionsToTxnTopic>,
    verify_only: bool,
    version: i16,
) -> Results {
    let check = |name: &str, partition: i32| {
        let topic = broker.inner.topics.get(name);
        if !broker.may_write(&session.principal, name)
            || broker.is_protected(name)
            || topic.as_ref().is_some_and(|topic| topic.is_internal())
        {
            return ResponseError::TopicAuthorizationFailed.code();
        }
        let known = topic.and_then(|topic| topic.stream(partition));
        known.map_or(ResponseError::UnknownTopicOrPartition.code(), |_| codes::NONE)
    };
    let checked = topics.into_iter().map(|topic| {
        let partitions: Vec<_> = topic.partitions.iter().map(|index| (*index, check(&topic.name, *index))).collect();
        (topic.name, partitions)
    });
    let mut results: Results = checked.collect();
    let codes = || results.iter().flat_map(|(_, partitions)| partitions.iter().map(|(_, code)| *code));
    if codes().any(|code| code != codes::NONE) {
        let not_tried = ResponseError::OperationNotAttempted.code();
        let untried = results.iter_mut().flat_map(|(_, partitions)| partitions);
        untried.filter(|(_, code)| *code == codes::NONE).for_each(|(_, code)| *code = not_tried);
        return results;
    }
    let place = |name: &str, index: i32| -> Place { (name.to_owned(), index) };
    let places = results.iter().flat_map(|(name, all)| all.iter().map(move |(index, _)| place(name, *index)));
    let places: Vec<Place> = places.collect();
    let found = if verify_only {
        broker.verify_in_transaction(id, producer, &places).await
    } else {
        let added = broker.add_to_transaction(id, producer, places, VERSION_OLD).await;
        added.map(|()| Vec::new())
    };
    let all = results.iter_mut().flat_map(|(_, partitions)| partitions.iter_mut().map(|(_, code)| code));
    match found {
        Err(error) => {
            let code = codes::of_transaction(error, version >= FENCED_FIRST);
            all.for_each(|of_partition| *of_partition = code);
        }
        Ok(parts) => {
            let code = missing(version >= ADD_ABORTABLE_FIRST);
            all.zip(parts).filter(|(_, is_part)| !is_part).for_each(|(of_partition, _)| *of_partition = code);
        }
    }
    results
}

fn missing(knows_abortable: bool) -> i16 {
    if knows_abortable {
        ResponseError::TransactionAbortable.code()
    } else {
        codes::of_transaction(TxnError::NotInTransaction, true)
    }
}

fn told(results: Results) -> Vec<AddPartitionsToTxnTopicResult> {
    let topics = results.into_iter().map(|(name, partitions)| {
        let partitions = partitions.into_iter().map(|(index, code)| {
            AddPartitionsToTxnPartitionResult::default().with_partition_index(index).with_partition_error_code(code)
        });
        AddPartitionsToTxnTopicResult::default().with_name(name).with_results_by_partition(partitions.collect())
    });
    topics.collect()
}

pub(super) async fn add_offsets(
    broker: &Broker,
    request: AddOffsetsToTxnRequest,
    version: i16,
) -> AddOffsetsToTxnResponse {
    let partition = broker.inner.groups.stream_of(&request.group_id).partition.get();
    let place = (OFFSETS_TOPIC.to_owned(), i32::try_from(partition).unwrap_or(i32::MAX));
    let producer = (request.producer_id.0, request.producer_epoch);
    let added = broker.add_to_transaction(&request.transactional_id, producer, vec![place], VERSION_OLD).await;
    let code = added.map_or_else(|error| codes::of_transaction(error, version >= FENCED_FIRST), |()| codes::NONE);
    AddOffsetsToTxnResponse::default().with_error_code(code)
}

pub(super) async fn end(broker: &Broker, request: EndTxnRequest, version: i16) -> EndTxnResponse {
    let producer = (request.producer_id.0, request.producer_epoch);
    let speaks = if version >= END_BUMPS_FIRST { VERSION_BUMPS } else { VERSION_OLD };
    let ended = broker.end_transaction(&request.transactional_id, producer, request.committed, speaks).await;
    match ended {
        Ok((producer, epoch)) if version >= END_BUMPS_FIRST => {
            EndTxnResponse::default().with_producer_id(producer.into()).with_producer_epoch(epoch)
        }
        Ok(_) => EndTxnResponse::default(),
        Err(error) => EndTxnResponse::default().with_error_code(codes::of_transaction(error, version >= FENCED_FIRST)),
    }
}

pub(super) async fn commit_offsets(
    broker: &Broker,
    request: TxnOffsetCommitRequest,
    version: i16,
) -> TxnOffsetCommitResponse {
    let now_ms = broker.inner.clock.now().as_millis();
    let most = broker.inner.options.limits.offset_metadata_bytes_max;
    let (mut accepted, mut topics) = (Vec::new(), Vec::new());
    let by_id = version >= COMMIT_BY_ID_FIRST;
    for topic in request.topics {
        let known = if by_id {
            broker.inner.topics.get_by_id(id_in_name(&topic.name))
        } else {
            broker.inner.topics.get(&topic.name)
        };
        let mut partitions = Vec::new();
        for partition in topic.partitions {
            let index = partition.partition_index;
            let metadata = partition.committed_metadata.map(|text| text.to_string()).unwrap_or_default();
            let code = match &known {
                None if by_id => ResponseError::UnknownTopicId.code(),
                Some(known) if known.stream(index).is_some() && metadata.len() > most => {
                    ResponseError::OffsetMetadataTooLarge.code()
                }
                Some(known) if known.stream(index).is_some() => {
                    let (offset, leader_epoch) = (partition.committed_offset, partition.committed_leader_epoch);
                    let value = OffsetValue { offset, leader_epoch, metadata, committed_ms: now_ms };
                    accepted.push((known.name.clone(), index, value));
                    codes::NONE
                }
                _ => ResponseError::UnknownTopicOrPartition.code(),
            };
            partitions.push((index, code));
        }
        topics.push((topic.name, partitions));
    }
    let who = Identity {
        member: request.member_id.to_string(),
        instance: request.group_instance_id.map(|instance| instance.to_string()),
    };
    let (group, generation) = (request.group_id.to_string(), request.generation_id);
    let producer = (request.producer_id.0, request.producer_epoch);
    let prepared = match group.as_str() {
        "" => Err(GroupError::InvalidGroupId),
        _ => broker.inner.groups.prepare_pending(group, who, generation, producer, accepted).await,
    };
    let all = match prepared {
        // Of a member of the new group protocol too, older versions know a generation only.
        Err(GroupError::StaleEpoch) if !by_id => ResponseError::IllegalGeneration.code(),
        // As they do of a group that is not there.
        Err(GroupError::GroupNotFound) => ResponseError::IllegalGeneration.code(),
        Err(error) => codes::of_group(error),
        Ok(None) => codes::NONE,
        Ok(Some(prepared)) => {
            let adds = version >= COMMIT_ADDS_FIRST;
            match broker.commit_in_transaction(&request.transactional_id, producer, adds, prepared).await {
                Ok(()) => codes::NONE,
                Err(TxnError::NotInTransaction) => missing(version >= COMMIT_ABORTABLE_FIRST),
                // This request never had the newer code for it.
                Err(error) => codes::of_transaction(error, false),
            }
        }
    };
    let topics = topics.into_iter().map(|(name, partitions)| {
        let partitions = partitions.into_iter().map(|(index, code)| {
            let code = if code == codes::NONE { all } else { code };
            TxnOffsetCommitResponsePartition::default().with_partition_index(index).with_error_code(code)
        });
        TxnOffsetCommitResponseTopic::default().with_name(name).with_partitions(partitions.collect())
    });
    TxnOffsetCommitResponse::default().with_topics(topics.collect())
}
