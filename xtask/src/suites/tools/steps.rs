//! What each tool is asked, and what it must say.
//!
//! `BROKER` stands for the address, `INPUT` for a file with the step's input; `--bootstrap-server` is put before arguments that
//! name no `BROKER`.

/// One start of one tool.
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) class: &'static str,
    pub(super) arguments: &'static str,
    /// Each must be in what it says.
    pub(super) says: &'static [&'static str],
    pub(super) input: &'static str,
    /// Whether the input comes by its standard input.
    pub(super) reads_lines: bool,
    /// Whether CI runs it.
    pub(super) in_slice: bool,
}

const fn step(name: &'static str, class: &'static str, arguments: &'static str, says: &'static [&'static str]) -> Step {
    Step { name, class, arguments, says, input: "", reads_lines: false, in_slice: false }
}

const fn slice(step: Step) -> Step {
    Step { in_slice: true, ..step }
}

const ACLS: &str = "org.apache.kafka.tools.AclCommand";
const CONFIGS: &str = "kafka.admin.ConfigCommand";
const GROUPS: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
const OFFSETS: &str = "org.apache.kafka.tools.GetOffsetShell";
const PRODUCER_PERF: &str = "org.apache.kafka.tools.ProducerPerformance";
const SHARE_GROUPS: &str = "org.apache.kafka.tools.consumer.group.ShareGroupCommand";
const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
const TRANSACTIONS: &str = "org.apache.kafka.tools.TransactionsCommand";
const COPIER: &str = "org.apache.kafka.tools.TransactionalMessageCopier";
const VERIFIABLE_CONSUMER: &str = "org.apache.kafka.tools.VerifiableConsumer";
const CONSOLE_CONSUMER: &str = "org.apache.kafka.tools.consumer.ConsoleConsumer";

/// All of them, in order.
pub(super) const STEPS: &[Step] = &[
    slice(step(
        "kafka-topics --create",
        TOPICS,
        "--create --topic suite --partitions 3 --replication-factor 1 --config retention.ms=3600000",
        &["Created topic suite."],
    )),
    slice(step(
        "kafka-topics --describe",
        TOPICS,
        "--describe --topic suite",
        &["PartitionCount: 3", "ReplicationFactor: 1", "retention.ms=3600000", "Leader: "],
    )),
    slice(step("kafka-topics --alter --partitions", TOPICS, "--alter --topic suite --partitions 4", &[])),
    slice(step(
        "kafka-topics --create, one partition",
        TOPICS,
        "--create --topic console --partitions 1",
        &["Created topic console."],
    )),
    step("kafka-topics --list", TOPICS, "--list", &["suite", "console"]),
    slice(step(
        "kafka-verifiable-producer",
        "org.apache.kafka.tools.VerifiableProducer",
        "--topic suite --max-messages 5000",
        &["\"sent\":5000,\"acked\":5000", "shutdown_complete"],
    )),
    slice(step(
        "kafka-verifiable-consumer, classic groups",
        VERIFIABLE_CONSUMER,
        "--topic suite --group-id classic --max-messages 5000",
        &["partitions_assigned", "records_consumed", "\"success\":true", "partitions_revoked", "shutdown_complete"],
    )),
    step(
        "kafka-verifiable-consumer, consumer groups (KIP-848)",
        VERIFIABLE_CONSUMER,
        "--topic suite --group-id next --max-messages 5000 --group-protocol consumer",
        &["partitions_assigned", "records_consumed", "\"success\":true", "partitions_revoked", "shutdown_complete"],
    ),
    step(
        "kafka-verifiable-share-consumer",
        "org.apache.kafka.tools.VerifiableShareConsumer",
        "--topic suite --group-id share --max-messages 100 --offset-reset-strategy earliest",
        &["records_consumed", "offsets_acknowledged", "shutdown_complete"],
    ),
    slice(step(
        "kafka-producer-perf-test",
        PRODUCER_PERF,
        "--topic perf --num-records 20000 --record-size 1000 --throughput -1 --producer-props bootstrap.servers=BROKER acks=all",
        &["20000 records sent"],
    )),
    slice(step(
        "kafka-consumer-perf-test",
        "org.apache.kafka.tools.ConsumerPerformance",
        "--topic perf --messages 20000 --timeout 20000",
        &[" 20000, "],
    )),
    step(
        "kafka-e2e-latency",
        "org.apache.kafka.tools.EndToEndLatency",
        "BROKER latency 500 all 100",
        &["Avg latency", "99.9th"],
    ),
    Step {
        input: "key-1:value-1\nkey-2:value-2\n",
        reads_lines: true,
        in_slice: true,
        ..step(
            "kafka-console-producer",
            "org.apache.kafka.tools.ConsoleProducer",
            "--topic console --property parse.key=true --property key.separator=:",
            &[],
        )
    },
    step(
        "kafka-console-consumer",
        CONSOLE_CONSUMER,
        "--topic console --from-beginning --max-messages 2 --timeout-ms 30000 --property print.key=true",
        &["key-1\tvalue-1", "key-2\tvalue-2", "Processed a total of 2 messages"],
    ),
    step(
        "kafka-topics --create, compression.type=snappy",
        TOPICS,
        "--create --topic packed --partitions 1 --config compression.type=snappy",
        &["Created topic packed."],
    ),
    step(
        "kafka-producer-perf-test, zstd into snappy",
        PRODUCER_PERF,
        "--topic packed --num-records 1000 --record-size 1000 --throughput -1 --producer-props bootstrap.servers=BROKER \
         compression.type=zstd",
        &["1000 records sent"],
    ),
    step(
        "kafka-configs --alter, compression.type=lz4",
        CONFIGS,
        "--alter --entity-type topics --entity-name packed --add-config compression.type=lz4",
        &["Completed updating config for topic packed."],
    ),
    step(
        "kafka-producer-perf-test, nothing into lz4",
        PRODUCER_PERF,
        "--topic packed --num-records 1000 --record-size 1000 --throughput -1 --producer-props bootstrap.servers=BROKER",
        &["1000 records sent"],
    ),
    step(
        "kafka-console-consumer, what brokers packed",
        CONSOLE_CONSUMER,
        "--topic packed --from-beginning --max-messages 2000 --timeout-ms 30000",
        &["Processed a total of 2000 messages"],
    ),
    slice(step("kafka-get-offsets, latest", OFFSETS, "--topic console --time latest", &["console:0:2"])),
    step("kafka-get-offsets, earliest", OFFSETS, "--topic console --time earliest", &["console:0:0"]),
    step("kafka-get-offsets, greatest timestamp", OFFSETS, "--topic console --time max-timestamp", &["console:0:"]),
    step("kafka-get-offsets, earliest local", OFFSETS, "--topic console --time earliest-local", &["console:0:0"]),
    Step {
        input: r#"{"version":1,"partitions":[{"topic":"console","partition":0,"offset":1}]}"#,
        ..step(
            "kafka-delete-records",
            "org.apache.kafka.tools.DeleteRecordsCommand",
            "--offset-json-file INPUT",
            &["low_watermark: 1"],
        )
    },
    slice(step(
        "kafka-configs, topic: --alter",
        CONFIGS,
        "--alter --entity-type topics --entity-name suite --add-config max.message.bytes=200000",
        &["Completed updating config for topic suite."],
    )),
    slice(step(
        "kafka-configs, topic: --describe",
        CONFIGS,
        "--describe --entity-type topics --entity-name suite",
        &["max.message.bytes=200000", "DYNAMIC_TOPIC_CONFIG", "DEFAULT_CONFIG"],
    )),
    step(
        "kafka-configs, topic: --delete-config",
        CONFIGS,
        "--alter --entity-type topics --entity-name suite --delete-config max.message.bytes",
        &["Completed updating config for topic suite."],
    ),
    step(
        "kafka-configs, broker: --describe --all",
        CONFIGS,
        "--describe --all --entity-type brokers --entity-name 1",
        &["message.max.bytes="],
    ),
    step(
        "kafka-configs, group: --alter",
        CONFIGS,
        "--alter --entity-type groups --entity-name next --add-config consumer.session.timeout.ms=50000",
        &["Completed updating config for group next."],
    ),
    step(
        "kafka-configs, client quota: --alter",
        CONFIGS,
        "--alter --entity-type clients --entity-name a --add-config producer_byte_rate=1000000",
        &["Completed updating config for client a."],
    ),
    step(
        "kafka-configs, client quota: --describe",
        CONFIGS,
        "--describe --entity-type clients --entity-name a",
        &["producer_byte_rate=1000000"],
    ),
    step(
        "kafka-configs, SCRAM credentials: --alter",
        CONFIGS,
        "--alter --entity-type users --entity-name alice --add-config SCRAM-SHA-256=[password=alice-secret]",
        &["Completed updating config for user alice."],
    ),
    step(
        "kafka-configs, SCRAM credentials: --describe",
        CONFIGS,
        "--describe --entity-type users --entity-name alice",
        &["SCRAM-SHA-256=iterations="],
    ),
    step("kafka-consumer-groups --list", GROUPS, "--list", &["classic"]),
    step(
        "kafka-consumer-groups --describe",
        GROUPS,
        "--describe --group classic",
        &["CURRENT-OFFSET", "LOG-END-OFFSET", "classic"],
    ),
    step(
        "kafka-consumer-groups --describe --state",
        GROUPS,
        "--describe --group classic --state",
        &["COORDINATOR", "Empty"],
    ),
    step(
        "kafka-consumer-groups --describe --members",
        GROUPS,
        "--describe --group classic --members",
        &["#PARTITIONS"],
    ),
    step(
        "kafka-consumer-groups --describe, consumer group (KIP-848)",
        GROUPS,
        "--describe --group next --verbose --state",
        &["COORDINATOR", "Empty"],
    ),
    step(
        "kafka-consumer-groups --reset-offsets",
        GROUPS,
        "--reset-offsets --group classic --topic suite --to-earliest --execute",
        &["NEW-OFFSET"],
    ),
    step(
        "kafka-consumer-groups --delete-offsets",
        GROUPS,
        "--delete-offsets --group classic --topic suite",
        &["Successful"],
    ),
    step(
        "kafka-consumer-groups --delete",
        GROUPS,
        "--delete --group classic",
        &["Deletion of requested consumer groups ('classic') was successful."],
    ),
    step(
        "kafka-configs, share group: --alter",
        CONFIGS,
        "--alter --entity-type groups --entity-name sharing --add-config share.auto.offset.reset=earliest",
        &["Completed updating config for group sharing."],
    ),
    step(
        "kafka-console-share-consumer",
        "org.apache.kafka.tools.consumer.ConsoleShareConsumer",
        "--topic console --group sharing --max-messages 1 --timeout-ms 30000",
        &["value-2", "Processed a total of 1 messages"],
    ),
    step("kafka-share-groups --list", SHARE_GROUPS, "--list", &["sharing"]),
    step(
        "kafka-share-groups --describe",
        SHARE_GROUPS,
        "--describe --group sharing",
        &["START-OFFSET", "sharing         console         0          2"],
    ),
    step("kafka-share-groups --describe --state", SHARE_GROUPS, "--describe --group sharing --state", &["Empty"]),
    step(
        "kafka-share-groups --delete-offsets",
        SHARE_GROUPS,
        "--delete-offsets --group sharing --topic console",
        &["Successful"],
    ),
    step(
        "kafka-share-groups --delete",
        SHARE_GROUPS,
        "--delete --group sharing",
        &["Deletion of requested share groups ('sharing') was successful."],
    ),
    step("kafka-groups --list", "org.apache.kafka.tools.GroupsCommand", "--list", &["PROTOCOL", "perf-consumer"]),
    step(
        "kafka-producer-perf-test, in transactions",
        PRODUCER_PERF,
        "--topic transactions --num-records 5000 --record-size 100 --throughput -1 --transactional-id perf \
         --transaction-duration-ms 100 --producer-props bootstrap.servers=BROKER",
        &["5000 records sent"],
    ),
    step(
        "kafka-transactional-message-copier",
        COPIER,
        "--input-topic console --input-partition 0 --output-topic copied --broker-list BROKER --transactional-id copier \
         --consumer-group copier --transaction-size 1 --max-messages 1",
        &["\"remaining\":0", "ShutdownComplete"],
    ),
    step(
        "kafka-console-consumer, read_committed",
        CONSOLE_CONSUMER,
        "--topic copied --from-beginning --max-messages 1 --timeout-ms 30000 --isolation-level read_committed",
        &["value-2", "Processed a total of 1 messages"],
    ),
    step(
        "kafka-transactions list",
        TRANSACTIONS,
        "--bootstrap-server BROKER list",
        &["TransactionalId", "copier", "CompleteCommit"],
    ),
    step(
        "kafka-transactions describe",
        TRANSACTIONS,
        "--bootstrap-server BROKER describe --transactional-id copier",
        &["copier", "CompleteCommit"],
    ),
    step(
        "kafka-transactions describe-producers",
        TRANSACTIONS,
        "--bootstrap-server BROKER describe-producers --topic transactions --partition 0",
        &["ProducerId", "LatestCoordinatorEpoch"],
    ),
    step(
        "kafka-transactions find-hanging",
        TRANSACTIONS,
        "--bootstrap-server BROKER find-hanging --broker-id 1",
        &["Topic"],
    ),
    step(
        "kafka-acls --add",
        ACLS,
        "--add --allow-principal User:alice --operation Read --topic suite",
        &["principal=User:alice, host=*, operation=READ, permissionType=ALLOW"],
    ),
    step("kafka-acls --list", ACLS, "--list --topic suite", &["principal=User:alice"]),
    step(
        "kafka-acls --remove",
        ACLS,
        "--remove --force --allow-principal User:alice --operation Read --topic suite",
        &[],
    ),
    step(
        "kafka-log-dirs --describe",
        "org.apache.kafka.tools.LogDirsCommand",
        "--describe --topic-list suite",
        &["\"logDirs\"", "\"suite-0\""],
    ),
    slice(step(
        "kafka-broker-api-versions",
        "org.apache.kafka.tools.BrokerApiVersionsCommand",
        "",
        &["Produce(0): 0 to 13", "Fetch(1): 4 to "],
    )),
    step(
        "kafka-cluster cluster-id",
        "org.apache.kafka.tools.ClusterTool",
        "cluster-id --bootstrap-server BROKER",
        &["Cluster ID: "],
    ),
    step(
        "kafka-cluster list-endpoints",
        "org.apache.kafka.tools.ClusterTool",
        "list-endpoints --bootstrap-server BROKER",
        &["unfenced", "broker"],
    ),
    step("kafka-features describe", "org.apache.kafka.tools.FeatureCommand", "--bootstrap-server BROKER describe", &[]),
    slice(step(
        "client-compatibility-test",
        "org.apache.kafka.tools.ClientCompatibilityTest",
        "--topic compatibility --bootstrap-server BROKER --offsets-for-times-supported True --cluster-id-supported True \
         --expect-record-too-large-exception False --num-cluster-nodes 1 --create-topics-supported True \
         --describe-acls-supported True --describe-configs-supported True --idempotent-producer-supported True",
        &["SUCCESS."],
    )),
    step("kafka-client-metrics --list", "org.apache.kafka.tools.ClientMetricsCommand", "--list", &[]),
    step(
        "kafka-leader-election",
        "org.apache.kafka.tools.LeaderElectionCommand",
        "--election-type PREFERRED --topic suite --partition 0",
        &["Valid replica already elected for partitions"],
    ),
    step(
        "kafka-reassign-partitions --list",
        "org.apache.kafka.tools.reassign.ReassignPartitionsCommand",
        "--list",
        &["No partition reassignments found."],
    ),
    step(
        "kafka-metadata-quorum describe",
        "org.apache.kafka.tools.MetadataQuorumCommand",
        "--bootstrap-server BROKER describe --status",
        &["LeaderId"],
    ),
    step("kafka-topics --delete", TOPICS, "--delete --topic console", &[]),
];
