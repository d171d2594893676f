//! The shapes of the requests that this broker answers, from Kafka's message schemas. Called by the walk only.

use kafka_protocol::messages::ApiKey;

use super::shape::{Field, Shape};
use Shape::{Blob, Each, Fixed, List, Maybe, Structure, Text};

const LAST: i16 = i16::MAX;
const BYTE: Shape = Fixed(1);
const SHORT: Shape = Fixed(2);
const INT: Shape = Fixed(4);
const LONG: Shape = Fixed(8);
const UUID: Shape = Fixed(16);
const INTS: Shape = List(&INT);
const TEXTS: Shape = List(&Text);

/// The fields of a request, in order; `None` for one that this broker does not answer.
pub(super) const fn of(key: ApiKey) -> Option<&'static [Field]> {
    Some(match key {
        ApiKey::Produce => PRODUCE,
        ApiKey::Fetch => FETCH,
        ApiKey::ListOffsets => LIST_OFFSETS,
        ApiKey::Metadata => METADATA,
        ApiKey::OffsetCommit => OFFSET_COMMIT,
        ApiKey::OffsetFetch => OFFSET_FETCH,
        ApiKey::FindCoordinator => FIND_COORDINATOR,
        ApiKey::JoinGroup => JOIN_GROUP,
        ApiKey::Heartbeat => HEARTBEAT,
        ApiKey::LeaveGroup => LEAVE_GROUP,
        ApiKey::SyncGroup => SYNC_GROUP,
        ApiKey::DescribeGroups => DESCRIBE_GROUPS,
        ApiKey::ListGroups => LIST_GROUPS,
        ApiKey::SaslHandshake => SASL_HANDSHAKE,
        ApiKey::ApiVersions => API_VERSIONS,
        ApiKey::CreateTopics => CREATE_TOPICS,
        ApiKey::DeleteTopics => DELETE_TOPICS,
        ApiKey::InitProducerId => INIT_PRODUCER_ID,
        ApiKey::OffsetForLeaderEpoch => OFFSET_FOR_LEADER_EPOCH,
        ApiKey::AddPartitionsToTxn => ADD_PARTITIONS_TO_TXN,
        ApiKey::AddOffsetsToTxn => ADD_OFFSETS_TO_TXN,
        ApiKey::EndTxn => END_TXN,
        ApiKey::WriteTxnMarkers => WRITE_TXN_MARKERS,
        ApiKey::TxnOffsetCommit => TXN_OFFSET_COMMIT,
        ApiKey::DescribeProducers => DESCRIBE_PRODUCERS,
        ApiKey::DescribeTransactions => DESCRIBE_TRANSACTIONS,
        ApiKey::ListTransactions => LIST_TRANSACTIONS,
        ApiKey::DescribeConfigs => DESCRIBE_CONFIGS,
        ApiKey::SaslAuthenticate => SASL_AUTHENTICATE,
        ApiKey::DescribeCluster => DESCRIBE_CLUSTER,
        ApiKey::DeleteGroups => DELETE_GROUPS,
        ApiKey::DeleteRecords => DELETE_RECORDS,
        ApiKey::CreatePartitions => CREATE_PARTITIONS,
        ApiKey::AlterConfigs => ALTER_CONFIGS,
        ApiKey::IncrementalAlterConfigs => INCREMENTAL_ALTER_CONFIGS,
        ApiKey::DescribeAcls => DESCRIBE_ACLS,
        ApiKey::CreateAcls => CREATE_ACLS,
        ApiKey::DeleteAcls => DELETE_ACLS,
        ApiKey::DescribeUserScramCredentials => DESCRIBE_USER_SCRAM_CREDENTIALS,
        ApiKey::AlterUserScramCredentials => ALTER_USER_SCRAM_CREDENTIALS,
        ApiKey::ConsumerGroupHeartbeat => CONSUMER_GROUP_HEARTBEAT,
        ApiKey::ConsumerGroupDescribe => CONSUMER_GROUP_DESCRIBE,
        ApiKey::DescribeLogDirs => DESCRIBE_LOG_DIRS,
        ApiKey::ElectLeaders => ELECT_LEADERS,
        ApiKey::AlterPartitionReassignments => ALTER_PARTITION_REASSIGNMENTS,
        ApiKey::ListPartitionReassignments => LIST_PARTITION_REASSIGNMENTS,
        ApiKey::AlterReplicaLogDirs => ALTER_REPLICA_LOG_DIRS,
        ApiKey::ListConfigResources => LIST_CONFIG_RESOURCES,
        ApiKey::DescribeTopicPartitions => DESCRIBE_TOPIC_PARTITIONS,
        ApiKey::OffsetDelete => OFFSET_DELETE,
        ApiKey::DescribeClientQuotas => DESCRIBE_CLIENT_QUOTAS,
        ApiKey::AlterClientQuotas => ALTER_CLIENT_QUOTAS,
        ApiKey::GetTelemetrySubscriptions => GET_TELEMETRY_SUBSCRIPTIONS,
        ApiKey::PushTelemetry => PUSH_TELEMETRY,
        ApiKey::ShareGroupHeartbeat => SHARE_GROUP_HEARTBEAT,
        ApiKey::ShareGroupDescribe => CONSUMER_GROUP_DESCRIBE,
        ApiKey::ShareFetch => SHARE_FETCH,
        ApiKey::ShareAcknowledge => SHARE_ACKNOWLEDGE,
        ApiKey::DescribeShareGroupOffsets => DESCRIBE_SHARE_GROUP_OFFSETS,
        ApiKey::AlterShareGroupOffsets => ALTER_SHARE_GROUP_OFFSETS,
        ApiKey::DeleteShareGroupOffsets => DELETE_SHARE_GROUP_OFFSETS,
        _ => return None,
    })
}

/// The fields of an answer that is given in versions which the codec does not know, where they differ.
pub(super) const fn of_answer(key: ApiKey) -> Option<&'static [Field]> {
    Some(match key {
        ApiKey::TxnOffsetCommit => TXN_OFFSET_COMMIT_ANSWER,
        ApiKey::DescribeLogDirs => DESCRIBE_LOG_DIRS_ANSWER,
        ApiKey::DeleteGroups => DELETE_GROUPS_ANSWER,
        ApiKey::ShareAcknowledge => SHARE_ACKNOWLEDGE_ANSWER,
        _ => return None,
    })
}

const TXN_OFFSET_COMMIT_ANSWER: &[Field] = &[
    Field(0, LAST, INT),
    Field(
        0,
        LAST,
        Each(&[
            Field(0, 5, Text),
            Field(6, LAST, UUID),
            Field(0, LAST, Each(&[Field(0, LAST, INT), Field(0, LAST, SHORT)])),
        ]),
    ),
];

const DESCRIBE_LOG_DIRS_ANSWER: &[Field] = &[
    Field(0, LAST, INT),
    Field(3, LAST, SHORT),
    Field(
        0,
        LAST,
        Each(&[
            Field(0, LAST, SHORT),
            Field(0, LAST, Text),
            Field(
                0,
                LAST,
                Each(&[
                    Field(0, LAST, Text),
                    Field(
                        0,
                        LAST,
                        Each(&[Field(0, LAST, INT), Field(0, LAST, LONG), Field(0, LAST, LONG), Field(0, LAST, BYTE)]),
                    ),
                ]),
            ),
            Field(4, LAST, LONG),
            Field(4, LAST, LONG),
            Field(5, LAST, BYTE),
        ]),
    ),
];

const DELETE_GROUPS_ANSWER: &[Field] =
    &[Field(0, LAST, INT), Field(0, LAST, Each(&[Field(0, LAST, Text), Field(0, LAST, SHORT), Field(3, LAST, Text)]))];

const SHARE_ACKNOWLEDGE_ANSWER: &[Field] = &[
    Field(0, LAST, INT),
    Field(0, LAST, SHORT),
    Field(0, LAST, Text),
    Field(2, LAST, INT),
    Field(
        0,
        LAST,
        Each(&[
            Field(0, LAST, UUID),
            Field(
                0,
                LAST,
                Each(&[
                    Field(0, LAST, INT),
                    Field(0, LAST, SHORT),
                    Field(0, LAST, Text),
                    Field(0, LAST, Structure(&[Field(0, LAST, INT), Field(0, LAST, INT)])),
                ]),
            ),
        ]),
    ),
    Field(0, LAST, Each(&[Field(0, LAST, INT), Field(0, LAST, Text), Field(0, LAST, INT), Field(0, LAST, Text)])),
];

const SHARE_GROUP_HEARTBEAT: &[Field] =
    &[Field(0, LAST, Text), Field(0, LAST, Text), Field(0, LAST, INT), Field(0, LAST, Text), Field(0, LAST, TEXTS)];

/// First and last offset, and what became of them.
const ACKNOWLEDGED: Shape = Each(&[Field(0, LAST, LONG), Field(0, LAST, LONG), Field(0, LAST, List(&BYTE))]);
/// Topics by id, and their partitions with what became of records.
const SHARED_TOPICS: Shape =
    Each(&[Field(0, LAST, UUID), Field(0, LAST, Each(&[Field(0, LAST, INT), Field(0, LAST, ACKNOWLEDGED)]))]);

const SHARE_FETCH: &[Field] = &[
    Field(0, LAST, Text),
    Field(0, LAST, Text),
    Field(0, LAST, INT),
    Field(0, LAST, INT),
    Field(0, LAST, INT),
    Field(0, LAST, INT),
    Field(1, LAST, INT),
    Field(1, LAST, INT),
    Field(2, LAST, BYTE),
    Field(2, LAST, BYTE),
    Field(0, LAST, SHARED_TOPICS),
    Field(0, LAST, Each(&[Field(0, LAST, UUID), Field(0, LAST, INTS)])),
];

const SHARE_ACKNOWLEDGE: &[Field] = &[
    Field(0, LAST, Text),
    Field(0, LAST, Text),
    Field(0, LAST, INT),
    Field(2, LAST, BYTE),
    Field(0, LAST, SHARED_TOPICS),
];

const DESCRIBE_SHARE_GROUP_OFFSETS: &[Field] = &[Field(
    0,
    LAST,
    Each(&[Field(0, LAST, Text), Field(0, LAST, Each(&[Field(0, LAST, Text), Field(0, LAST, INTS)]))]),
)];

const ALTER_SHARE_GROUP_OFFSETS: &[Field] = &[
    Field(0, LAST, Text),
    Field(0, LAST, Each(&[Field(0, LAST, Text), Field(0, LAST, Each(&[Field(0, LAST, INT), Field(0, LAST, LONG)]))])),
];

const DELETE_SHARE_GROUP_OFFSETS: &[Field] = &[Field(0, LAST, Text), Field(0, LAST, Each(&[Field(0, LAST, Text)]))];

const GET_TELEMETRY_SUBSCRIPTIONS: &[Field] = &[Field(0, LAST, UUID)];

const PUSH_TELEMETRY: &[Field] =
    &[Field(0, LAST, UUID), Field(0, LAST, INT), Field(0, LAST, BYTE), Field(0, LAST, BYTE), Field(0, LAST, Blob)];

const PRODUCE: &[Field] = &[
    Field(3, LAST, Text),
    Field(0, LAST, SHORT),
    Field(0, LAST, INT),
    Field(
        0,
        LAST,
        Each(&[
            Field(0, 12, Text),
            Field(13, LAST, UUID),
            Field(0, LAST, Each(&[Field(0, LAST, INT), Field(0, LAST, Blob)])),
        ]),
    ),
];

const FETCH: &[Field] = &[
    Field(0, 14, INT),
    Field(0, LAST, INT),
    Field(0, LAST, INT),
    Field(3, LAST, INT),
    Field(4, LAST, BYTE),
    Field(7, LAST, INT),
    Field(7, LAST, INT),
    Field(
        0,
        LAST,
        Each(&[
            Field(0, 12, Text),
            Field(13, LAST, UUID),
            Field(
                0,
                LAST,
                Each(&[
                    Field(0, LAST, INT),
                    Field(9, LAST, INT),
                    Field(0, LAST, LONG),
                    Field(12, LAST, INT),
                    Field(5, LAST, LONG),
                    Field(0, LAST, INT),
                ]),
            ),
        ]),
    ),
    Field(7, LAST, Each(&[Field(7, 12, Text), Field(13, LAST, UUID), Field(7, LAST, INTS)])),
    Field(11, LAST, Text),
];

const LIST_OFFSETS: &[Field] = &[
    Field(0, LAST, INT),
    Field(2, LAST, BYTE),
    Field(
        0,
        LAST,
        Each(&[
            Field(0, LAST, Text),
            Field(0, LAST, Each(&[Field(0, LAST, INT), Field(4, LAST, INT), Field(0, LAST, LONG)])),
        ]),
    ),
    Field(10, LAST, INT),
];

const OFFSET_FOR_LEADER_EPOCH: &[Field] = &[
    Field(3, LAST, INT),
    Field(
        0,
        LAST,
        Each(&[
            Field(0, LAST, Text),
            Field(0, LAST, Each(&[Field(0, LAST, INT), Field(2, LAST, INT), Field(0, LAST, INT)])),
        ]),
    ),
];

const METADATA: &[Field] = &[
    Field(0, LAST, Each(&[Field(10, LAST, UUID), Field(0, LAST, Text)])),
    Field(4, LAST, BYTE),
    Field(8, 10, BYTE),
    Field(8, LAST, BYTE),
];

const OFFSET_COMMIT: &[Field] = &[
    Field(0, LAST, Text),
    Field(1, LAST, INT),
    Field(1, LAST, Text),
    Field(7, LAST, Text),
    Field(2, 4, LONG),
    Field(
        0,
        LAST,
        Each(&[
            Field(0, 9, Text),
            Field(10, LAST, UUID),
            Field(
                0,
                LAST,
                Each(&[Field(0, LAST, INT), Field(0, LAST, LONG), Field(6, LAST, INT), Field(0, LAST, Text)]),
            ),
        ]),
    ),
];

const TOPIC_PARTITIONS: Shape = Each(&[Field(0, LAST, Text), Field(0, LAST, INTS)]);

const OFFSET_FETCH: &[Field] = &[
    Field(0, 7, Text),
    Field(0, 7, TOPIC_PARTITIONS),
    Field(
        8,
        LAST,
        Each(&[
            Field(8, LAST, Text),
            Field(9, LAST, Text),
            Field(9, LAST, INT),
            Field(8, LAST, Each(&[Field(8, 9, Text), Field(10, LAST, UUID), Field(8, LAST, INTS)])),
        ]),
    ),
    Field(7, LAST, BYTE),
];

const FIND_COORDINATOR: &[Field] = &[Field(0, 3, Text), Field(1, LAST, BYTE), Field(4, LAST, TEXTS)];

const JOIN_GROUP: &[Field] = &[
    Field(0, LAST, Text),
    Field(0, LAST, INT),
    Field(1, LAST, INT),
    Field(0, LAST, Text),
    Field(5, LAST, Text),
    Field(0, LAST, Text),
    Field(0, LAST, Each(&[Field(0, LAST, Text), Field(0, LAST, Blob)])),
    Field(8, LAST, Text),
];

const HEARTBEAT: &[Field] = &[Field(0, LAST, Text), Field(0, LAST, INT), Field(0, LAST, Text), Field(3, LAST, Text)];

const LEAVE_GROUP: &[Field] = &[
    Field(0, LAST, Text),
    Field(0, 2, Text),
    Field(3, LAST, Each(&[Field(3, LAST, Text), Field(3, LAST, Text), Field(5, LAST, Text)])),
];

const SYNC_GROUP: &[Field] = &[
    Field(0, LAST, Text),
    Field(0, LAST, INT),
    Field(0, LAST, Text),
    Field(3, LAST, Text),
    Field(5, LAST, Text),
    Field(5, LAST, Text),
    Field(0, LAST, Each(&[Field(0, LAST, Text), Field(0, LAST, Blob)])),
];

const DESCRIBE_GROUPS: &[Field] = &[Field(0, LAST, TEXTS), Field(3, LAST, BYTE)];

const LIST_GROUPS: &[Field] = &[Field(4, LAST, TEXTS), Field(5, LAST, TEXTS)];

const SASL_HANDSHAKE: &[Field] = &[Field(0, LAST, Text)];

const API_VERSIONS: &[Field] = &[Field(3, LAST, Text), Field(3, LAST, Text), Field(5, LAST, Text), Field(5, LAST, INT)];

const CREATE_TOPICS: &[Field] = &[
    Field(
        0,
        LAST,
        Each(&[
            Field(0, LAST, Text),
            Field(0, LAST, INT),
            Field(0, LAST, SHORT),
            Field(0, LAST, Each(&[Field(0, LAST, INT), Field(0, LAST, INTS)])),
            Field(0, LAST, Each(&[Field(0, LAST, Text), Field(0, LAST, Text)])),
        ]),
    ),
    Field(0, LAST, INT),
    Field(1, LAST, BYTE),
];

const DELETE_TOPICS: &[Field] =
    &[Field(6, LAST, Each(&[Field(6, LAST, Text), Field(6, LAST, UUID)])), Field(0, 5, TEXTS), Field(0, LAST, INT)];

const INIT_PRODUCER_ID: &[Field] =
    &[Field(0, LAST, Text), Field(0, LAST, INT), Field(3, LAST, LONG), Field(3, LAST, SHORT)];

const ADD_PARTITIONS_TO_TXN: &[Field] = &[
    Field(
        4,
        LAST,
        Each(&[
            Field(4, LAST, Text),
            Field(4, LAST, LONG),
            Field(4, LAST, SHORT),
            Field(4, LAST, BYTE),
            Field(4, LAST, TOPIC_PARTITIONS),
        ]),
    ),
    Field(0, 3, Text),
    Field(0, 3, LONG),
    Field(0, 3, SHORT),
    Field(0, 3, TOPIC_PARTITIONS),
];

const ADD_OFFSETS_TO_TXN: &[Field] =
    &[Field(0, LAST, Text), Field(0, LAST, LONG), Field(0, LAST, SHORT), Field(0, LAST, Text)];

const END_TXN: &[Field] = &[Field(0, LAST, Text), Field(0, LAST, LONG), Field(0, LAST, SHORT), Field(0, LAST, BYTE)];

const WRITE_TXN_MARKERS: &[Field] = &[Field(
    0,
    LAST,
    Each(&[
        Field(0, LAST, LONG),
        Field(0, LAST, SHORT),
        Field(0, LAST, BYTE),
        Field(0, LAST, TOPIC_PARTITIONS),
        Field(0, LAST, INT),
        Field(2, LAST, BYTE),
    ]),
)];

const TXN_OFFSET_COMMIT: &[Field] = &[
    Field(0, LAST, Text),
    Field(0, LAST, Text),
    Field(0, LAST, LONG),
    Field(0, LAST, SHORT),
    Field(3, LAST, INT),
    Field(3, LAST, Text),
    Field(3, LAST, Text),
    Field(
        0,
        LAST,
        Each(&[
            Field(0, 5, Text),
            Field(6, LAST, UUID),
            Field(
                0,
                LAST,
                Each(&[Field(0, LAST, INT), Field(0, LAST, LONG), Field(2, LAST, INT), Field(0, LAST, Text)]),
            ),
        ]),
    ),
];

const DESCRIBE_PRODUCERS: &[Field] = &[Field(0, LAST, TOPIC_PARTITIONS)];

const DESCRIBE_TRANSACTIONS: &[Field] = &[Field(0, LAST, TEXTS)];

const LIST_TRANSACTIONS: &[Field] =
    &[Field(0, LAST, TEXTS), Field(0, LAST, List(&LONG)), Field(1, LAST, LONG), Field(2, LAST, Text)];

const DESCRIBE_CONFIGS: &[Field] = &[
    Field(0, LAST, Each(&[Field(0, LAST, BYTE), Field(0, LAST, Text), Field(0, LAST, TEXTS)])),
    Field(1, LAST, BYTE),
    Field(3, LAST, BYTE),
];

const SASL_AUTHENTICATE: &[Field] = &[Field(0, LAST, Blob)];

const DESCRIBE_CLUSTER: &[Field] = &[Field(0, LAST, BYTE), Field(1, LAST, BYTE), Field(2, LAST, BYTE)];

const DELETE_GROUPS: &[Field] = &[Field(0, LAST, TEXTS)];

const DELETE_RECORDS: &[Field] = &[
    Field(0, LAST, Each(&[Field(0, LAST, Text), Field(0, LAST, Each(&[Field(0, LAST, INT), Field(0, LAST, LONG)]))])),
    Field(0, LAST, INT),
];

const CREATE_PARTITIONS: &[Field] = &[
    Field(0, LAST, Each(&[Field(0, LAST, Text), Field(0, LAST, INT), Field(0, LAST, Each(&[Field(0, LAST, INTS)]))])),
    Field(0, LAST, INT),
    Field(0, LAST, BYTE),
];

const ALTER_CONFIGS: &[Field] = &[
    Field(
        0,
        LAST,
        Each(&[
            Field(0, LAST, BYTE),
            Field(0, LAST, Text),
            Field(0, LAST, Each(&[Field(0, LAST, Text), Field(0, LAST, Text)])),
        ]),
    ),
    Field(0, LAST, BYTE),
];

const INCREMENTAL_ALTER_CONFIGS: &[Field] = &[
    Field(
        0,
        LAST,
        Each(&[
            Field(0, LAST, BYTE),
            Field(0, LAST, Text),
            Field(0, LAST, Each(&[Field(0, LAST, Text), Field(0, LAST, BYTE), Field(0, LAST, Text)])),
        ]),
    ),
    Field(0, LAST, BYTE),
];

const DESCRIBE_USER_SCRAM_CREDENTIALS: &[Field] = &[Field(0, LAST, Each(&[Field(0, LAST, Text)]))];

const ALTER_USER_SCRAM_CREDENTIALS: &[Field] = &[
    Field(0, LAST, Each(&[Field(0, LAST, Text), Field(0, LAST, BYTE)])),
    Field(
        0,
        LAST,
        Each(&[
            Field(0, LAST, Text),
            Field(0, LAST, BYTE),
            Field(0, LAST, INT),
            Field(0, LAST, Blob),
            Field(0, LAST, Blob),
        ]),
    ),
];

const CONSUMER_GROUP_HEARTBEAT: &[Field] = &[
    Field(0, LAST, Text),
    Field(0, LAST, Text),
    Field(0, LAST, INT),
    Field(0, LAST, Text),
    Field(0, LAST, Text),
    Field(0, LAST, INT),
    Field(0, LAST, TEXTS),
    Field(1, LAST, Text),
    Field(0, LAST, Text),
    Field(0, LAST, Each(&[Field(0, LAST, UUID), Field(0, LAST, INTS)])),
];

const CONSUMER_GROUP_DESCRIBE: &[Field] = &[Field(0, LAST, TEXTS), Field(0, LAST, BYTE)];

const OFFSET_DELETE: &[Field] = &[
    Field(0, LAST, Text),
    Field(0, LAST, Each(&[Field(0, LAST, Text), Field(0, LAST, Each(&[Field(0, LAST, INT)]))])),
];

const DESCRIBE_LOG_DIRS: &[Field] = &[Field(0, LAST, TOPIC_PARTITIONS)];

const ELECT_LEADERS: &[Field] = &[Field(1, LAST, BYTE), Field(0, LAST, TOPIC_PARTITIONS), Field(0, LAST, INT)];

const ALTER_PARTITION_REASSIGNMENTS: &[Field] = &[
    Field(0, LAST, INT),
    Field(1, LAST, BYTE),
    Field(0, LAST, Each(&[Field(0, LAST, Text), Field(0, LAST, Each(&[Field(0, LAST, INT), Field(0, LAST, INTS)]))])),
];

const LIST_PARTITION_REASSIGNMENTS: &[Field] = &[Field(0, LAST, INT), Field(0, LAST, TOPIC_PARTITIONS)];

const ALTER_REPLICA_LOG_DIRS: &[Field] =
    &[Field(0, LAST, Each(&[Field(0, LAST, Text), Field(0, LAST, TOPIC_PARTITIONS)]))];

const LIST_CONFIG_RESOURCES: &[Field] = &[Field(1, LAST, List(&BYTE))];

const DESCRIBE_TOPIC_PARTITIONS: &[Field] = &[
    Field(0, LAST, Each(&[Field(0, LAST, Text)])),
    Field(0, LAST, INT),
    Field(0, LAST, Maybe(&[Field(0, LAST, Text), Field(0, LAST, INT)])),
];

const DESCRIBE_CLIENT_QUOTAS: &[Field] =
    &[Field(0, LAST, Each(&[Field(0, LAST, Text), Field(0, LAST, BYTE), Field(0, LAST, Text)])), Field(0, LAST, BYTE)];

const ALTER_CLIENT_QUOTAS: &[Field] = &[
    Field(
        0,
        LAST,
        Each(&[
            Field(0, LAST, Each(&[Field(0, LAST, Text), Field(0, LAST, Text)])),
            Field(0, LAST, Each(&[Field(0, LAST, Text), Field(0, LAST, LONG), Field(0, LAST, BYTE)])),
        ]),
    ),
    Field(0, LAST, BYTE),
];

const DESCRIBE_ACLS: &[Field] = &[
    Field(0, LAST, BYTE),
    Field(0, LAST, Text),
    Field(1, LAST, BYTE),
    Field(0, LAST, Text),
    Field(0, LAST, Text),
    Field(0, LAST, BYTE),
    Field(0, LAST, BYTE),
];

const CREATE_ACLS: &[Field] = &[Field(0, LAST, Each(DESCRIBE_ACLS))];

const DELETE_ACLS: &[Field] = &[Field(0, LAST, Each(DESCRIBE_ACLS))];
