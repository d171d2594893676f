//! Produce: batches in, offsets out. All partitions of one request ride in one group of the log.

use bytes::BytesMut;
use cairn_log::Appended;
use kafka_protocol::{
    error::ResponseError,
    messages::{
        ProduceRequest, ProduceResponse,
        produce_request::TopicProduceData,
        produce_response::{PartitionProduceResponse, TopicProduceResponse},
    },
};
use uuid::Uuid;

use super::{Session, codes, reason};
use crate::{
    broker::{Admitted, Broker, ProduceError},
    txn::TxnError,
};

/// One partition's place in the answer: refused at once, or the n-th of those that were admitted.
enum Place {
    Refused(i16, String),
    Admitted(usize),
}

/// From this version on a transaction that a batch does not belong to can be aborted by its producer (KIP-890).
const ABORTABLE_FIRST: i16 = 11;
/// From this version on a batch makes its partition part of the transaction.
const ADDS_FIRST: i16 = 12;

pub(super) async fn answer(
    broker: &Broker,
    session: &Session,
    request: ProduceRequest,
    version: i16,
) -> ProduceResponse {
    let mut admitted = Vec::new();
    let mut topics = Vec::new();
    let acks_known = matches!(request.acks, -1..=1);
    for topic in request.topic_data {
        let mut partitions = Vec::new();
        let head = TopicProduceResponse::default().with_name(topic.name.clone()).with_topic_id(topic.topic_id);
        for (index, admission) in admit(broker, session, topic) {
            let place = match admission {
                _ if !acks_known => {
                    Place::Refused(ResponseError::InvalidRequiredAcks.code(), "acks is 0, 1 or -1".to_owned())
                }
                Ok(batch) => {
                    admitted.push(batch);
                    Place::Admitted(admitted.len() - 1)
                }
                Err((code, why)) => Place::Refused(code, why),
            };
            partitions.push((index, place));
        }
        topics.push((head, partitions));
    }
    let append_times: Vec<i64> = admitted.iter().map(|batch| batch.append_time_ms().unwrap_or(-1)).collect();
    let id = request.transactional_id.as_ref().map(|id| id.as_str());
    let results = broker.append_produced(id, version >= ADDS_FIRST, admitted).await;
    let responses = topics.into_iter().map(|(head, partitions)| {
        let partitions = partitions.into_iter().map(|(index, place)| match place {
            Place::Refused(code, why) => refused(index, code, why),
            Place::Admitted(at) => match &results[at] {
                Ok(appended) => stored(index, appended, append_times[at]),
                Err(ProduceError::Transaction(TxnError::NotInTransaction)) if version >= ABORTABLE_FIRST => {
                    let code = ResponseError::TransactionAbortable.code();
                    refused(index, code, TxnError::NotInTransaction.to_string())
                }
                Err(error) => refused(index, codes::of_produce(error), error.to_string()),
            },
        });
        head.with_partition_responses(partitions.collect())
    });
    ProduceResponse::default().with_throttle_time_ms(session.throttle_ms()).with_responses(responses.collect())
}

type Admission = Result<Admitted, (i16, String)>;

fn admit(broker: &Broker, session: &Session, data: TopicProduceData) -> Vec<(i32, Admission)> {
    // From version 13 the topic is named by its id.
    let by_id = data.name.is_empty() && data.topic_id != Uuid::nil();
    let topic = if by_id { broker.inner.topics.get_by_id(data.topic_id) } else { broker.inner.topics.get(&data.name) };
    let admissions = data.partition_data.into_iter().map(|partition| {
        let Some(topic) = &topic else {
            let name = data.name.to_string();
            // Who may not write a protected topic is not told whether it exists.
            if !broker.may_write(&session.principal, &name) {
                let error = ProduceError::Denied { topic: name };
                return (partition.index, Err((codes::of_produce(&error), error.to_string())));
            }
            let code = if by_id { ResponseError::UnknownTopicId } else { ResponseError::UnknownTopicOrPartition };
            return (partition.index, Err((code.code(), "the topic does not exist".to_owned())));
        };
        let batch = BytesMut::from(partition.records.as_deref().unwrap_or_default());
        let admission = broker.admit(&session.principal, topic, partition.index, batch);
        (partition.index, admission.map_err(|error| (codes::of_produce(&error), error.to_string())))
    });
    admissions.collect()
}

fn stored(index: i32, appended: &Appended, append_time_ms: i64) -> PartitionProduceResponse {
    PartitionProduceResponse::default()
        .with_index(index)
        .with_base_offset(offset(appended.base_offset))
        .with_log_append_time_ms(append_time_ms)
        .with_log_start_offset(offset(appended.log_start))
}

fn offset(offset: cairn_log::Offset) -> i64 {
    i64::try_from(offset.get()).unwrap_or(i64::MAX)
}

fn refused(index: i32, code: i16, why: String) -> PartitionProduceResponse {
    PartitionProduceResponse::default()
        .with_index(index)
        .with_error_code(code)
        .with_base_offset(-1)
        .with_log_append_time_ms(-1)
        .with_log_start_offset(-1)
        .with_error_message(Some(reason(why)))
}
