//! Produce: batches in, offsets out. All partitions of one request ride in one group of the log.

mod growth;

use std::sync::Arc;

use bytes::BytesMut;
use cairn_log::Appended;
use kafka_protocol::{
    error::ResponseError,
    messages::{
        ProduceRequest, ProduceResponse,
        produce_request::{PartitionProduceData, TopicProduceData},
        produce_response::{BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse},
    },
};

use self::growth::Growth;
use super::{Session, codes, leaders, reason};
use crate::{
    batch::BatchError,
    broker::{Admitted, Broker, ProduceError},
    topics::Topic,
    turn::Turn,
    txn::TxnError,
};

/// One partition's place in the answer: refused at once, or the n-th of those that were admitted.
enum Place {
    Refused(Refusal),
    Admitted(usize),
}

/// Why a batch is refused.
#[derive(Debug, Clone)]
struct Refusal {
    code: i16,
    why: String,
    /// The records at fault, where it is some of them: a producer repeats the others (KIP-467).
    records: Vec<i32>,
}

impl Refusal {
    fn new(code: ResponseError, why: &str) -> Self {
        Self { code: code.code(), why: why.to_owned(), records: Vec::new() }
    }

    fn of(error: &ProduceError) -> Self {
        let records = match error {
            ProduceError::Batch(BatchError::Keyless { records }) | ProduceError::Timestamp { records, .. } => {
                records.clone()
            }
            _ => Vec::new(),
        };
        Self { code: codes::of_produce(error), why: error.to_string(), records }
    }
}

/// From this version on a transaction that a batch does not belong to can be aborted by its producer (KIP-890).
const ABORTABLE_FIRST: i16 = 11;
/// From this version on a batch makes its partition part of the transaction.
const ADDS_FIRST: i16 = 12;
/// From this version on a topic is named by its id.
const BY_ID_FIRST: i16 = 13;

pub(super) async fn answer(
    broker: &Broker,
    session: &Session,
    request: ProduceRequest,
    version: i16,
    turn: Turn,
) -> ProduceResponse {
    let mut growth = Growth::new(broker);
    let mut admitted = Vec::new();
    let mut topics = Vec::new();
    let acks_known = matches!(request.acks, -1..=1);
    for topic in request.topic_data {
        let mut partitions = Vec::new();
        let head = TopicProduceResponse::default().with_name(topic.name.clone()).with_topic_id(topic.topic_id);
        let found = find(broker, session, &topic, version >= BY_ID_FIRST);
        for partition in topic.partition_data {
            let index = partition.index;
            let admission = match &found {
                Ok(topic) => admit(broker, session, topic, partition, &mut growth).await,
                Err(refusal) => Err(refusal.clone()),
            };
            let place = match admission {
                _ if !acks_known => {
                    Place::Refused(Refusal::new(ResponseError::InvalidRequiredAcks, "acks is 0, 1 or -1"))
                }
                Ok(batch) if batch.place().is_some() && request.transactional_id.is_none() => {
                    let why = "a batch of a transaction comes with its transactional id";
                    Place::Refused(Refusal::new(ResponseError::TransactionalIdAuthorizationFailed, why))
                }
                Ok(batch) => {
                    admitted.push(batch);
                    Place::Admitted(admitted.len() - 1)
                }
                Err(refusal) => Place::Refused(refusal),
            };
            partitions.push((index, place));
        }
        topics.push((head, partitions));
    }
    let append_times: Vec<i64> = admitted.iter().map(|batch| batch.append_time_ms().unwrap_or(-1)).collect();
    let id = request.transactional_id.as_ref().map(|id| id.as_str());
    let results = broker.append_produced(id, version >= ADDS_FIRST, admitted, turn).await;
    let responses = topics.into_iter().map(|(head, partitions)| {
        let partitions = partitions.into_iter().map(|(index, place)| match place {
            Place::Refused(refusal) => refused(index, refusal),
            Place::Admitted(at) => match &results[at] {
                Ok(appended) => stored(index, appended, append_times[at]),
                Err(ProduceError::Transaction(TxnError::NotInTransaction)) if version >= ABORTABLE_FIRST => {
                    let why = TxnError::NotInTransaction.to_string();
                    refused(index, Refusal::new(ResponseError::TransactionAbortable, &why))
                }
                Err(error) => refused(index, Refusal::of(error)),
            },
        });
        head.with_partition_responses(partitions.collect())
    });
    let response = ProduceResponse::default().with_throttle_time_ms(session.throttle_ms());
    let mut response = response.with_responses(responses.collect());
    leaders::of_produce(broker, &mut response, version).await;
    response
}

/// The topic that a request names, or why there is nothing to be written there.
fn find(broker: &Broker, session: &Session, data: &TopicProduceData, by_id: bool) -> Result<Arc<Topic>, Refusal> {
    let topics = &broker.inner.topics;
    let found = if by_id { topics.get_by_id(data.topic_id) } else { topics.get(&data.name) };
    found.ok_or_else(|| {
        let topic = data.name.to_string();
        // Who may not write a protected topic is not told whether it exists.
        if !broker.may_write(&session.principal, &topic) {
            return Refusal::of(&ProduceError::Denied { topic });
        }
        let code = if by_id { ResponseError::UnknownTopicId } else { ResponseError::UnknownTopicOrPartition };
        Refusal::new(code, "the topic does not exist")
    })
}

async fn admit(
    broker: &Broker,
    session: &Session,
    topic: &Topic,
    data: PartitionProduceData,
    growth: &mut Growth,
) -> Result<Admitted, Refusal> {
    let batch = BytesMut::from(data.records.as_deref().unwrap_or_default());
    let admitted = broker.admit(&session.principal, topic, data.index, batch);
    let admitted = admitted.map_err(|error| Refusal::of(&error))?;
    growth.take(&admitted).await.map_err(|error| Refusal::of(&error))?;
    Ok(admitted)
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

fn refused(index: i32, Refusal { code, why, records }: Refusal) -> PartitionProduceResponse {
    let at_fault =
        |place: i32| BatchIndexAndErrorMessage::default().with_batch_index(place).with_batch_index_error_message(None);
    PartitionProduceResponse::default()
        .with_record_errors(records.into_iter().map(at_fault).collect())
        .with_index(index)
        .with_error_code(code)
        .with_base_offset(-1)
        .with_log_append_time_ms(-1)
        .with_log_start_offset(-1)
        .with_error_message(Some(reason(why)))
}

#[cfg(test)]
mod tests {
    use super::{BatchError, ProduceError, Refusal, refused};

    #[test]
    fn a_refusal_names_the_records_at_fault_where_it_is_some_of_them() {
        let keyless = ProduceError::Batch(BatchError::Keyless { records: vec![0, 10] });
        let answer = refused(3, Refusal::of(&keyless));
        let named: Vec<i32> = answer.record_errors.iter().map(|record| record.batch_index).collect();
        assert_eq!((answer.index, answer.error_code, named), (3, 87, vec![0, 10]));
        let other = refused(3, Refusal::of(&ProduceError::Control));
        assert!(other.error_code == 87 && other.record_errors.is_empty(), "all of the batch is at fault");
    }
}
