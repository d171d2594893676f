//! What may be done to topics and their records.

use cairn_log::StreamId;
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse, DeleteRecordsRequest,
    DeleteRecordsResponse, DeleteTopicsRequest, DeleteTopicsResponse, DescribeProducersRequest,
    DescribeProducersResponse, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, FetchRequest,
    FetchResponse, ListOffsetsRequest, ListOffsetsResponse, MetadataRequest, MetadataResponse,
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, ProduceRequest, ProduceResponse,
    create_partitions_request::CreatePartitionsTopic,
    create_partitions_response::CreatePartitionsTopicResult,
    create_topics_request::CreatableTopic,
    create_topics_response::CreatableTopicResult,
    delete_records_request::DeleteRecordsTopic,
    delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult},
    delete_topics_response::DeletableTopicResult,
    describe_producers_request::TopicRequest,
    describe_producers_response::{PartitionResponse, TopicResponse},
    describe_topic_partitions_response::DescribeTopicPartitionsResponseTopic,
    list_offsets_request::ListOffsetsTopic,
    list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
    metadata_request::MetadataRequestTopic,
    metadata_response::MetadataResponseTopic,
    offset_for_leader_epoch_request::OffsetForLeaderTopic,
    offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult},
    produce_request::TopicProduceData,
    produce_response::{PartitionProduceResponse, TopicProduceResponse},
};
use uuid::Uuid;

use super::{Gate, Guarded, TOPIC_DENIED, TRANSACTION_DENIED, Verdict, WHY, listed, split, whole};
use crate::{
    access::{Kind, Operation},
    api::reason,
};

/// The first version of Metadata in which a client can forbid that topics are made for it.
const METADATA_CREATES_IF_ASKED: i16 = 4;
/// The first version of DeleteTopics that names topics by id too.
const DELETE_BY_ID_FIRST: i16 = 6;
/// The first version of CreateTopics whose answer shows configs.
const CREATE_SHOWS_CONFIGS: i16 = 5;

impl Guarded for ProduceRequest {
    type Answer = ProduceResponse;
    type Kept = Vec<TopicProduceResponse>;

    fn guard(mut self, gate: &Gate<'_>, _version: i16) -> Verdict<Self> {
        let refused = |code: i16| {
            move |topic: TopicProduceData| {
                let partitions = topic.partition_data.iter().map(|partition| {
                    PartitionProduceResponse::default()
                        .with_index(partition.index)
                        .with_error_code(code)
                        .with_base_offset(-1)
                        .with_log_append_time_ms(-1)
                        .with_log_start_offset(-1)
                        .with_error_message(Some(reason(WHY)))
                });
                let partitions = partitions.collect();
                let told = TopicProduceResponse::default().with_name(topic.name).with_topic_id(topic.topic_id);
                told.with_partition_responses(partitions)
            }
        };
        if self.transactional_id.as_ref().is_some_and(|id| !gate.transaction(Operation::Write, id)) {
            let all = self.topic_data.into_iter().map(refused(TRANSACTION_DENIED)).collect();
            return Verdict::None(ProduceResponse::default().with_responses(all));
        }
        let may = |topic: &TopicProduceData| gate.named(Operation::Write, &topic.name, topic.topic_id);
        let (some, others) = split(self.topic_data, may, refused(TOPIC_DENIED));
        self.topic_data = some;
        Verdict::Some(self, others)
    }

    fn complete(_gate: &Gate<'_>, refused: Self::Kept, answer: &mut Self::Answer) {
        answer.responses.extend(refused);
    }
}

/// A partition that whoever asks may read.
#[derive(Debug, Clone, Copy)]
pub(in crate::api) struct Readable(StreamId);

impl Readable {
    pub(in crate::api) const fn stream(self) -> StreamId {
        self.0
    }
}

impl Gate<'_> {
    /// Lets a partition of that topic be read, once `check` finds it right too. A topic without a name is one whose id there is not.
    pub(in crate::api) fn readable(
        &self,
        topic: &str,
        stream: Result<StreamId, i16>,
        check: impl FnOnce(StreamId) -> Result<StreamId, i16>,
    ) -> Result<Readable, i16> {
        if !topic.is_empty() && !self.topic(Operation::Read, topic) {
            return Err(TOPIC_DENIED);
        }
        stream.and_then(check).map(Readable)
    }
}

// A session may keep more than the request names, so that each partition is judged where it is found: nothing is read but
// through a `Readable`.
whole!(FetchRequest => FetchResponse, |_: &Gate<'_>, _: &_| true, |_, _| FetchResponse::default());

listed!(
    ListOffsetsRequest => ListOffsetsResponse { topics => topics: ListOffsetsTopicResponse },
    |gate: &Gate<'_>, topic: &ListOffsetsTopic| gate.topic(Operation::Describe, &topic.name),
    |topic: ListOffsetsTopic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let told = ListOffsetsPartitionResponse::default().with_partition_index(partition.partition_index);
            told.with_error_code(TOPIC_DENIED).with_offset(-1).with_timestamp(-1)
        });
        let partitions = partitions.collect();
        ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions)
    }
);

listed!(
    OffsetForLeaderEpochRequest => OffsetForLeaderEpochResponse { topics => topics: OffsetForLeaderTopicResult },
    |gate: &Gate<'_>, topic: &OffsetForLeaderTopic| gate.topic(Operation::Describe, &topic.topic),
    |topic: OffsetForLeaderTopic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let told = EpochEndOffset::default().with_partition(partition.partition).with_error_code(TOPIC_DENIED);
            told.with_leader_epoch(-1).with_end_offset(-1)
        });
        let partitions = partitions.collect();
        OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions)
    }
);

listed!(
    DeleteRecordsRequest => DeleteRecordsResponse { topics => topics: DeleteRecordsTopicResult },
    |gate: &Gate<'_>, topic: &DeleteRecordsTopic| gate.topic(Operation::Delete, &topic.name),
    |topic: DeleteRecordsTopic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let told = DeleteRecordsPartitionResult::default().with_partition_index(partition.partition_index);
            told.with_error_code(TOPIC_DENIED).with_low_watermark(-1)
        });
        let partitions = partitions.collect();
        DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(partitions)
    }
);

listed!(
    CreatePartitionsRequest => CreatePartitionsResponse { topics => results: CreatePartitionsTopicResult },
    |gate: &Gate<'_>, topic: &CreatePartitionsTopic| gate.topic(Operation::Alter, &topic.name),
    |topic: CreatePartitionsTopic| {
        let told = CreatePartitionsTopicResult::default().with_name(topic.name);
        told.with_error_code(TOPIC_DENIED).with_error_message(Some(reason(WHY)))
    }
);

listed!(
    DescribeProducersRequest => DescribeProducersResponse { topics => topics: TopicResponse },
    |gate: &Gate<'_>, topic: &TopicRequest| gate.topic(Operation::Read, &topic.name),
    |topic: TopicRequest| {
        let partitions = topic.partition_indexes.iter().map(|index| {
            let told = PartitionResponse::default().with_partition_index(*index).with_error_code(TOPIC_DENIED);
            told.with_error_message(Some(reason(WHY)))
        });
        let partitions = partitions.collect();
        TopicResponse::default().with_name(topic.name).with_partitions(partitions)
    }
);

/// What the answer to Metadata needs.
#[derive(Debug)]
pub(in crate::api) struct ToldTopics {
    refused: Vec<MetadataResponseTopic>,
    /// Whether all that was named was refused: an empty list means all topics to some versions.
    is_nothing_left: bool,
    tell_topic_operations: bool,
    tell_cluster_operations: bool,
}

impl Guarded for MetadataRequest {
    type Answer = MetadataResponse;
    type Kept = ToldTopics;

    fn guard(mut self, gate: &Gate<'_>, version: i16) -> Verdict<Self> {
        let is_made = version < METADATA_CREATES_IF_ASKED || self.allow_auto_topic_creation;
        let is_made = is_made && gate.broker.inner.options.auto_create_topics;
        let may = |topic: &MetadataRequestTopic| match &topic.name {
            None => gate.named(Operation::Describe, "", topic.topic_id),
            Some(name) => {
                let is_there = || gate.broker.inner.topics.get(name).is_some();
                gate.topic(Operation::Describe, name) && (!is_made || is_there() || gate.may_create(name))
            }
        };
        // An id tells nobody anything; that a topic has it does.
        let refused = |topic: MetadataRequestTopic| {
            let id = if topic.name.is_some() { Uuid::nil() } else { topic.topic_id };
            MetadataResponseTopic::default().with_error_code(TOPIC_DENIED).with_name(topic.name).with_topic_id(id)
        };
        let (some, others) = match self.topics.take() {
            None => (None, Vec::new()),
            Some(asked) => {
                let (some, others) = split(asked, may, refused);
                (Some(some), others)
            }
        };
        let kept = ToldTopics {
            is_nothing_left: some.as_ref().is_some_and(Vec::is_empty) && !others.is_empty(),
            refused: others,
            tell_topic_operations: self.include_topic_authorized_operations,
            tell_cluster_operations: self.include_cluster_authorized_operations,
        };
        self.topics = some;
        Verdict::Some(self, kept)
    }

    fn complete(gate: &Gate<'_>, kept: Self::Kept, answer: &mut Self::Answer) {
        if kept.is_nothing_left {
            answer.topics.clear();
        }
        let seen = |name: &str| gate.topic(Operation::Describe, name);
        answer.topics.retain(|topic| topic.name.as_ref().is_none_or(|name| topic.error_code != 0 || seen(name)));
        if kept.tell_topic_operations {
            for topic in answer.topics.iter_mut().filter(|topic| topic.error_code == 0) {
                let name = topic.name.as_deref().map(std::ops::Deref::deref).unwrap_or_default();
                topic.topic_authorized_operations = gate.operations(Kind::Topic, name);
            }
        }
        if kept.tell_cluster_operations {
            answer.cluster_authorized_operations = gate.cluster_operations();
        }
        answer.topics.extend(kept.refused);
    }
}

impl Guarded for DescribeTopicPartitionsRequest {
    type Answer = DescribeTopicPartitionsResponse;
    type Kept = (Vec<DescribeTopicPartitionsResponseTopic>, bool);

    fn guard(mut self, gate: &Gate<'_>, _version: i16) -> Verdict<Self> {
        let asked = !self.topics.is_empty();
        let (some, others) = split(
            self.topics,
            |topic| gate.topic(Operation::Describe, &topic.name),
            |topic| {
                let told = DescribeTopicPartitionsResponseTopic::default().with_name(Some(topic.name));
                told.with_error_code(TOPIC_DENIED)
            },
        );
        self.topics = some;
        // An empty list asks for all.
        let is_nothing_left = asked && self.topics.is_empty();
        Verdict::Some(self, (others, is_nothing_left))
    }

    fn complete(gate: &Gate<'_>, (refused, is_nothing_left): Self::Kept, answer: &mut Self::Answer) {
        if is_nothing_left {
            answer.topics.clear();
            answer.next_cursor = None;
        }
        let seen = |name: &str| gate.topic(Operation::Describe, name);
        answer.topics.retain(|topic| topic.name.as_ref().is_none_or(|name| topic.error_code != 0 || seen(name)));
        if answer.next_cursor.as_ref().is_some_and(|cursor| !seen(&cursor.topic_name)) {
            answer.next_cursor = None;
        }
        for topic in answer.topics.iter_mut().filter(|topic| topic.error_code == 0) {
            let name = topic.name.as_deref().map(std::ops::Deref::deref).unwrap_or_default();
            topic.topic_authorized_operations = gate.operations(Kind::Topic, name);
        }
        answer.topics.extend(refused);
    }
}

impl Gate<'_> {
    fn may_create(&self, topic: &str) -> bool {
        self.cluster(Operation::Create) || self.topic(Operation::Create, topic)
    }
}

impl Guarded for CreateTopicsRequest {
    type Answer = CreateTopicsResponse;
    type Kept = (Vec<CreatableTopicResult>, i16);

    fn guard(mut self, gate: &Gate<'_>, version: i16) -> Verdict<Self> {
        let refused = |topic: CreatableTopic| {
            let told = CreatableTopicResult::default().with_name(topic.name).with_error_code(TOPIC_DENIED);
            let told = told.with_error_message(Some(reason(WHY))).with_configs(None);
            told.with_num_partitions(-1).with_replication_factor(-1)
        };
        let (some, others) = split(self.topics, |topic| gate.may_create(&topic.name), refused);
        self.topics = some;
        Verdict::Some(self, (others, version))
    }

    fn complete(gate: &Gate<'_>, (refused, version): Self::Kept, answer: &mut Self::Answer) {
        if version >= CREATE_SHOWS_CONFIGS {
            // Who makes a topic and may not see configs sees none, as in Kafka.
            for topic in answer.topics.iter_mut().filter(|topic| topic.error_code == 0) {
                if !gate.topic(Operation::DescribeConfigs, &topic.name) {
                    topic.topic_config_error_code = TOPIC_DENIED;
                    (topic.num_partitions, topic.replication_factor, topic.configs) = (-1, -1, None);
                }
            }
        }
        answer.topics.extend(refused);
    }
}

impl Guarded for DeleteTopicsRequest {
    type Answer = DeleteTopicsResponse;
    type Kept = Vec<DeletableTopicResult>;

    fn guard(mut self, gate: &Gate<'_>, version: i16) -> Verdict<Self> {
        let may = |name: &str, id| gate.named(Operation::Describe, name, id) && gate.named(Operation::Delete, name, id);
        let told = |name, id| {
            let told = DeletableTopicResult::default().with_name(name).with_topic_id(id);
            told.with_error_code(TOPIC_DENIED).with_error_message(Some(reason(WHY)))
        };
        if version < DELETE_BY_ID_FIRST {
            let refused = |name| told(Some(name), Uuid::nil());
            let (some, others) = split(self.topic_names, |name| may(name, Uuid::nil()), refused);
            self.topic_names = some;
            return Verdict::Some(self, others);
        }
        let (some, others) = split(
            self.topics,
            |topic| may(topic.name.as_deref().map(std::ops::Deref::deref).unwrap_or_default(), topic.topic_id),
            // Whoever asked by id is not told the name.
            |topic| told(topic.name, topic.topic_id),
        );
        self.topics = some;
        Verdict::Some(self, others)
    }

    fn complete(_gate: &Gate<'_>, refused: Self::Kept, answer: &mut Self::Answer) {
        answer.responses.extend(refused);
    }
}
