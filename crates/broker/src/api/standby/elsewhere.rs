//! What a broker that stands by says to who takes it for a coordinator or a leader: that it is not, in the answer of that very request.
//!
//! Clients then ask who is. A connection that just ended would tell some of them nothing: they come back to the broker that they know.

use bytes::Bytes;
use kafka_protocol::{
    error::ResponseError,
    messages::{
        AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, ApiKey,
        ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, EndTxnRequest, EndTxnResponse, HeartbeatRequest,
        HeartbeatResponse, InitProducerIdRequest, InitProducerIdResponse, JoinGroupRequest, JoinGroupResponse,
        LeaveGroupRequest, LeaveGroupResponse, ListOffsetsRequest, ListOffsetsResponse, OffsetCommitRequest,
        OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse, OffsetForLeaderEpochRequest,
        OffsetForLeaderEpochResponse, ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse, SyncGroupRequest,
        SyncGroupResponse, TxnOffsetCommitRequest, TxnOffsetCommitResponse,
        add_partitions_to_txn_request::AddPartitionsToTxnTopic,
        add_partitions_to_txn_response::{
            AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
        },
        leave_group_response::MemberResponse,
        list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
        offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic},
        offset_fetch_response::{OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponseTopic},
        offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult},
        txn_offset_commit_response::{TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic},
    },
};

use crate::api::{Request, RequestError};

const NO_COORDINATOR: i16 = ResponseError::NotCoordinator.code();
const NO_LEADER: i16 = ResponseError::NotLeaderOrFollower.code();
/// The first version of OffsetFetch that asks for several groups.
const GROUPS_FIRST: i16 = 8;
/// The first version of AddPartitionsToTxn that names several transactions.
const TRANSACTIONS_FIRST: i16 = 4;

/// Its answer; nothing for a request that no answer of this kind fits.
pub(super) fn told(request: &Request) -> Result<Option<Bytes>, RequestError> {
    macro_rules! says {
        ($asked:ty, $told:expr) => {{
            let asked = request.decode::<$asked>()?.of_standby();
            #[allow(clippy::redundant_closure_call, reason = "the type of what was asked is named once")]
            let response = ($told)(asked);
            request.respond(&response)?
        }};
    }
    let frame = match request.key {
        ApiKey::JoinGroup => says!(JoinGroupRequest, |asked: JoinGroupRequest| {
            JoinGroupResponse::default().with_error_code(NO_COORDINATOR).with_member_id(asked.member_id)
        }),
        ApiKey::SyncGroup => {
            says!(SyncGroupRequest, |_| SyncGroupResponse::default().with_error_code(NO_COORDINATOR))
        }
        ApiKey::Heartbeat => {
            says!(HeartbeatRequest, |_| HeartbeatResponse::default().with_error_code(NO_COORDINATOR))
        }
        ApiKey::LeaveGroup => says!(LeaveGroupRequest, leaves),
        ApiKey::ConsumerGroupHeartbeat => says!(ConsumerGroupHeartbeatRequest, |_| {
            ConsumerGroupHeartbeatResponse::default().with_error_code(NO_COORDINATOR)
        }),
        ApiKey::ShareGroupHeartbeat => says!(ShareGroupHeartbeatRequest, |_| {
            ShareGroupHeartbeatResponse::default().with_error_code(NO_COORDINATOR)
        }),
        ApiKey::OffsetCommit => says!(OffsetCommitRequest, commits),
        ApiKey::OffsetFetch => says!(OffsetFetchRequest, |asked| fetches(asked, request.version)),
        ApiKey::InitProducerId => {
            let asked = request.decode::<InitProducerIdRequest>()?.of_standby();
            // Without a transaction there is no coordinator: any broker that has the log can do it, and this one has none.
            if asked.transactional_id.is_none() {
                return Ok(None);
            }
            let response = InitProducerIdResponse::default().with_error_code(NO_COORDINATOR);
            request.respond(&response.with_producer_id((-1).into()).with_producer_epoch(-1))?
        }
        ApiKey::AddPartitionsToTxn => says!(AddPartitionsToTxnRequest, |asked| adds(asked, request.version)),
        ApiKey::AddOffsetsToTxn => {
            says!(AddOffsetsToTxnRequest, |_| AddOffsetsToTxnResponse::default().with_error_code(NO_COORDINATOR))
        }
        ApiKey::EndTxn => says!(EndTxnRequest, |_| EndTxnResponse::default().with_error_code(NO_COORDINATOR)),
        ApiKey::TxnOffsetCommit => says!(TxnOffsetCommitRequest, commits_in_transaction),
        ApiKey::ListOffsets => says!(ListOffsetsRequest, lists),
        ApiKey::OffsetForLeaderEpoch => says!(OffsetForLeaderEpochRequest, epochs),
        _ => return Ok(None),
    };
    Ok(Some(frame))
}

fn leaves(asked: LeaveGroupRequest) -> LeaveGroupResponse {
    let members = asked.members.into_iter().map(|member| {
        let told = MemberResponse::default().with_error_code(NO_COORDINATOR);
        told.with_member_id(member.member_id).with_group_instance_id(member.group_instance_id)
    });
    LeaveGroupResponse::default().with_error_code(NO_COORDINATOR).with_members(members.collect())
}

fn commits(asked: OffsetCommitRequest) -> OffsetCommitResponse {
    let topics = asked.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let told = OffsetCommitResponsePartition::default().with_error_code(NO_COORDINATOR);
            told.with_partition_index(partition.partition_index)
        });
        let partitions = partitions.collect();
        let told = OffsetCommitResponseTopic::default().with_name(topic.name).with_topic_id(topic.topic_id);
        told.with_partitions(partitions)
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

fn fetches(asked: OffsetFetchRequest, version: i16) -> OffsetFetchResponse {
    if version >= GROUPS_FIRST {
        let groups = asked.groups.into_iter().map(|group| {
            OffsetFetchResponseGroup::default().with_group_id(group.group_id).with_error_code(NO_COORDINATOR)
        });
        return OffsetFetchResponse::default().with_groups(groups.collect());
    }
    let topics = asked.topics.unwrap_or_default().into_iter().map(|topic| {
        let partitions = topic.partition_indexes.iter().map(|index| {
            let told = OffsetFetchResponsePartition::default().with_error_code(NO_COORDINATOR);
            told.with_partition_index(*index).with_committed_offset(-1)
        });
        let partitions = partitions.collect();
        OffsetFetchResponseTopic::default().with_name(topic.name).with_partitions(partitions)
    });
    let response = OffsetFetchResponse::default().with_topics(topics.collect());
    // Version 1 has codes of partitions only, which every answer has.
    if version > 1 { response.with_error_code(NO_COORDINATOR) } else { response }
}

fn adds(asked: AddPartitionsToTxnRequest, version: i16) -> AddPartitionsToTxnResponse {
    let topics = |topics: Vec<AddPartitionsToTxnTopic>| {
        let told = topics.into_iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|index| {
                let told = AddPartitionsToTxnPartitionResult::default();
                told.with_partition_index(*index).with_partition_error_code(NO_COORDINATOR)
            });
            let partitions = partitions.collect();
            AddPartitionsToTxnTopicResult::default().with_name(topic.name).with_results_by_partition(partitions)
        });
        told.collect::<Vec<_>>()
    };
    if version < TRANSACTIONS_FIRST {
        let told = topics(asked.v3_and_below_topics);
        return AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(told);
    }
    let transactions = asked.transactions.into_iter().map(|one| {
        let told = AddPartitionsToTxnResult::default().with_transactional_id(one.transactional_id);
        told.with_topic_results(topics(one.topics))
    });
    AddPartitionsToTxnResponse::default().with_results_by_transaction(transactions.collect())
}

fn commits_in_transaction(asked: TxnOffsetCommitRequest) -> TxnOffsetCommitResponse {
    let topics = asked.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let told = TxnOffsetCommitResponsePartition::default().with_error_code(NO_COORDINATOR);
            told.with_partition_index(partition.partition_index)
        });
        let partitions = partitions.collect();
        TxnOffsetCommitResponseTopic::default().with_name(topic.name).with_partitions(partitions)
    });
    TxnOffsetCommitResponse::default().with_topics(topics.collect())
}

fn lists(asked: ListOffsetsRequest) -> ListOffsetsResponse {
    let topics = asked.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let told = ListOffsetsPartitionResponse::default().with_error_code(NO_LEADER);
            told.with_partition_index(partition.partition_index)
        });
        let partitions = partitions.collect();
        ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions)
    });
    ListOffsetsResponse::default().with_topics(topics.collect())
}

fn epochs(asked: OffsetForLeaderEpochRequest) -> OffsetForLeaderEpochResponse {
    let topics = asked.topics.into_iter().map(|topic| {
        let partitions = topic
            .partitions
            .iter()
            .map(|partition| EpochEndOffset::default().with_partition(partition.partition).with_error_code(NO_LEADER));
        let partitions = partitions.collect();
        OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions)
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}

/// Every request that a client sends to the coordinator or the leader that it knows, in every version.
#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::*,
        protocol::{Decodable, Encodable, Message, StrBytes},
    };

    use super::{
        super::{
            Told, answer,
            tests::{ACTIVE, name, peers, request, told, versions},
        },
        *,
    };

    /// What it says to a request that is made for each version. What the codec cannot write is made of the version before (`wire::newer`).
    fn said<Q: Message + Encodable, A: Decodable>(key: ApiKey, asked: impl Fn(i16) -> Q) -> Vec<(i16, A)> {
        let versions = versions(key).filter(|version| *version <= Q::VERSIONS.max);
        let said = versions.map(|version| {
            let said = answer(&peers(), ACTIVE, &request(key, version, &asked(version))).expect("answered");
            (version, told(key, version, said))
        });
        said.collect()
    }

    fn group() -> GroupId {
        GroupId(StrBytes::from_static_str("g"))
    }

    fn transaction() -> TransactionalId {
        TransactionalId(StrBytes::from_static_str("t"))
    }

    macro_rules! says {
        ($key:ident, $asked:expr, $answer:ty, |$said:ident| $code:expr, $wanted:expr) => {
            let answers: Vec<(i16, $answer)> = said(ApiKey::$key, $asked);
            assert!(!answers.is_empty());
            for (version, $said) in answers {
                assert_eq!($code, $wanted, "{:?} {version}", ApiKey::$key);
            }
        };
    }

    #[test]
    fn members_of_groups_are_told_that_it_is_not_their_coordinator() {
        let (no, one) = (NO_COORDINATOR, (3, NO_COORDINATOR));
        let asked = |_| JoinGroupRequest::default().with_group_id(group());
        says!(JoinGroup, asked, JoinGroupResponse, |said| said.error_code, no);
        let asked = |_| SyncGroupRequest::default().with_group_id(group());
        says!(SyncGroup, asked, SyncGroupResponse, |said| said.error_code, no);
        let asked = |_| HeartbeatRequest::default().with_group_id(group());
        says!(Heartbeat, asked, HeartbeatResponse, |said| said.error_code, no);
        let asked = |_| LeaveGroupRequest::default().with_group_id(group());
        says!(LeaveGroup, asked, LeaveGroupResponse, |said| said.error_code, no);
        let asked = |_| ConsumerGroupHeartbeatRequest::default().with_group_id(group());
        says!(ConsumerGroupHeartbeat, asked, ConsumerGroupHeartbeatResponse, |said| said.error_code, no);
        let asked = |_| ShareGroupHeartbeatRequest::default().with_group_id(group());
        says!(ShareGroupHeartbeat, asked, ShareGroupHeartbeatResponse, |said| said.error_code, no);
        let asked = |_| {
            let partition = offset_commit_request::OffsetCommitRequestPartition::default().with_partition_index(3);
            let topic = offset_commit_request::OffsetCommitRequestTopic::default().with_name(name());
            OffsetCommitRequest::default().with_topics(vec![topic.with_partitions(vec![partition])])
        };
        let first = |said: &OffsetCommitResponse| {
            let partition = &said.topics[0].partitions[0];
            (partition.partition_index, partition.error_code)
        };
        says!(OffsetCommit, asked, OffsetCommitResponse, |said| first(&said), one);
        let asked = |version| {
            let topic = offset_fetch_request::OffsetFetchRequestTopic::default().with_name(name());
            let many = offset_fetch_request::OffsetFetchRequestGroup::default().with_group_id(group());
            let asked = OffsetFetchRequest::default();
            if version < GROUPS_FIRST {
                asked.with_group_id(group()).with_topics(Some(vec![topic.with_partition_indexes(vec![3])]))
            } else {
                asked.with_groups(vec![many.with_topics(None)])
            }
        };
        for (version, said) in said::<_, OffsetFetchResponse>(ApiKey::OffsetFetch, asked) {
            let code = match version {
                1 => said.topics[0].partitions[0].error_code,
                2..GROUPS_FIRST => said.error_code,
                _ => said.groups[0].error_code,
            };
            assert_eq!(code, no, "{version}");
        }
    }

    #[test]
    fn producers_with_transactions_are_told_so_too_and_those_without_look_elsewhere() {
        let (no, one) = (NO_COORDINATOR, (3, NO_COORDINATOR));
        let asked = |_| InitProducerIdRequest::default().with_transactional_id(Some(transaction()));
        says!(InitProducerId, asked, InitProducerIdResponse, |said| (said.error_code, said.producer_id.0), (no, -1));
        let asked = |_| AddOffsetsToTxnRequest::default();
        says!(AddOffsetsToTxn, asked, AddOffsetsToTxnResponse, |said| said.error_code, no);
        says!(EndTxn, |_| EndTxnRequest::default(), EndTxnResponse, |said| said.error_code, no);
        let asked = |version| {
            let topic = AddPartitionsToTxnTopic::default().with_name(name()).with_partitions(vec![3]);
            let many = add_partitions_to_txn_request::AddPartitionsToTxnTransaction::default();
            let asked = AddPartitionsToTxnRequest::default();
            if version < TRANSACTIONS_FIRST {
                asked.with_v3_and_below_transactional_id(transaction()).with_v3_and_below_topics(vec![topic])
            } else {
                asked.with_transactions(vec![many.with_transactional_id(transaction()).with_topics(vec![topic])])
            }
        };
        let first = |said: &AddPartitionsToTxnResponse| {
            let topics = said.results_by_transaction.first().map(|one| &one.topic_results);
            let partition = &topics.unwrap_or(&said.results_by_topic_v3_and_below)[0].results_by_partition[0];
            (partition.partition_index, partition.partition_error_code)
        };
        says!(AddPartitionsToTxn, asked, AddPartitionsToTxnResponse, |said| first(&said), one);
        let asked = |_| {
            let partition = txn_offset_commit_request::TxnOffsetCommitRequestPartition::default();
            let topic = txn_offset_commit_request::TxnOffsetCommitRequestTopic::default().with_name(name());
            let topic = topic.with_partitions(vec![partition.with_partition_index(3)]);
            TxnOffsetCommitRequest::default().with_topics(vec![topic])
        };
        let first = |said: &TxnOffsetCommitResponse| {
            let partition = &said.topics[0].partitions[0];
            (partition.partition_index, partition.error_code)
        };
        says!(TxnOffsetCommit, asked, TxnOffsetCommitResponse, |said| first(&said), one);
        let asked = request(ApiKey::InitProducerId, 4, &InitProducerIdRequest::default().with_transactional_id(None));
        assert!(matches!(answer(&peers(), ACTIVE, &asked), Ok(Told::Nothing)), "no coordinator has it");
    }

    #[test]
    fn who_asks_a_leader_for_offsets_is_told_that_it_does_not_lead() {
        let asked = |_| {
            let partition = list_offsets_request::ListOffsetsPartition::default().with_partition_index(3);
            let topic = list_offsets_request::ListOffsetsTopic::default().with_name(name());
            ListOffsetsRequest::default().with_topics(vec![topic.with_partitions(vec![partition])])
        };
        let first = |said: &ListOffsetsResponse| {
            let partition = &said.topics[0].partitions[0];
            (partition.partition_index, partition.error_code, partition.offset)
        };
        says!(ListOffsets, asked, ListOffsetsResponse, |said| first(&said), (3, NO_LEADER, -1));
        let asked = |_| {
            let partition = offset_for_leader_epoch_request::OffsetForLeaderPartition::default().with_partition(3);
            let topic = offset_for_leader_epoch_request::OffsetForLeaderTopic::default().with_topic(name());
            OffsetForLeaderEpochRequest::default().with_topics(vec![topic.with_partitions(vec![partition])])
        };
        let first = |said: &OffsetForLeaderEpochResponse| {
            let partition = &said.topics[0].partitions[0];
            (partition.partition, partition.error_code)
        };
        says!(OffsetForLeaderEpoch, asked, OffsetForLeaderEpochResponse, |said| first(&said), (3, NO_LEADER));
    }
}
