package io.cairn.clients;

import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.LockSupport;
import java.util.regex.Pattern;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ListConfigResourcesOptions;
import org.apache.kafka.clients.admin.NewPartitionReassignment;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TransactionState;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionReplica;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.ElectionNotNeededException;
import org.apache.kafka.common.errors.GroupSubscribedToTopicException;
import org.apache.kafka.common.errors.InvalidProducerEpochException;
import org.apache.kafka.common.errors.InvalidReplicaAssignmentException;
import org.apache.kafka.common.errors.LogDirNotFoundException;
import org.apache.kafka.common.errors.ProducerFencedException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.quota.ClientQuotaAlteration;
import org.apache.kafka.common.quota.ClientQuotaEntity;
import org.apache.kafka.common.quota.ClientQuotaFilter;
import org.apache.kafka.common.quota.ClientQuotaFilterComponent;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** The Java client of Apache Kafka: clients/kafka/README.md says what it must do. */
public final class Client {
    private static String bootstrap;
    private static String topic;
    private static int partitions;
    private static int records;
    /** Whether the groups are those of KIP-848. */
    private static boolean assignedByBroker;
    private static final Set<Integer> delivered = ConcurrentHashMap.newKeySet();
    private static final Set<String> killed = ConcurrentHashMap.newKeySet();
    private static final AtomicInteger again = new AtomicInteger();

    private Client() {}

    static void need(boolean holds, String text) {
        if (!holds) {
            System.out.println("FAILED " + text);
            Runtime.getRuntime().halt(1);
        }
    }

    static byte[] key(int i) {
        return ("key-" + i).getBytes();
    }

    static byte[] value(int i) {
        byte[] bytes = new byte[50 + i % 200];
        for (int j = 0; j < bytes.length; j++) {
            bytes[j] = (byte) (31 * i + 7 * j);
        }
        return bytes;
    }

    static long length(int partition) {
        return (records - partition + partitions - 1) / partitions;
    }

    /** Asks the driver, once for each occasion, to kill the broker. */
    static void killOnce(String when) {
        if (killed.add(when)) {
            System.out.println("kill");
            System.out.flush();
        }
    }

    static Properties with(Object... pairs) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        for (int at = 0; at < pairs.length; at += 2) {
            properties.put(pairs[at], pairs[at + 1]);
        }
        return properties;
    }

    static void write() throws Exception {
        Properties properties = with("acks", "all", "enable.idempotence", "true", "compression.type", "zstd",
            "linger.ms", "5", "delivery.timeout.ms", "120000", "max.block.ms", "60000",
            "key.serializer", ByteArraySerializer.class.getName(), "value.serializer", ByteArraySerializer.class.getName());
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(properties)) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (int i = 0; i < records; i++) {
                ProducerRecord<byte[], byte[]> record = new ProducerRecord<>(topic, i % partitions, key(i), value(i));
                record.headers().add("n", Integer.toString(i).getBytes());
                sent.add(producer.send(record));
                if (sent.size() == 500 || i + 1 == records) {
                    for (int at = 0; at < sent.size(); at++) {
                        int which = i + 1 - sent.size() + at;
                        RecordMetadata done = sent.get(at).get(120, TimeUnit.SECONDS);
                        need(done.offset() == which / partitions, "record " + which + " was acknowledged at offset " + done.offset());
                    }
                    sent.clear();
                    if (i * 2 >= records) {
                        killOnce("written");
                    }
                }
            }
        }
    }

    static void deliver(ConsumerRecord<byte[], byte[]> got) {
        long number = got.offset() * partitions + got.partition();
        need(number >= 0 && number < records, "partition " + got.partition() + " offset " + got.offset() + " was never written");
        int i = (int) number;
        need(Arrays.equals(got.key(), key(i)), "record " + i + ": its key differs");
        need(Arrays.equals(got.value(), value(i)), "record " + i + ": its value differs");
        Header[] headers = got.headers().toArray();
        need(headers.length == 1 && headers[0].key().equals("n") && new String(headers[0].value()).equals(Integer.toString(i)),
            "record " + i + ": its headers differ");
        if (!delivered.add(i)) {
            again.incrementAndGet();
        }
    }

    /** One consumer of the group, from its first poll to its leaving. */
    static final class Member extends Thread {
        private final KafkaConsumer<byte[], byte[]> consumer;
        private volatile boolean leaving;

        private final boolean byPattern;

        Member(String group, boolean byPattern) {
            this.byPattern = byPattern && assignedByBroker;
            Properties properties = with("group.id", group, "auto.offset.reset", "earliest", "enable.auto.commit", "false",
                "max.poll.records", "300", "default.api.timeout.ms", "20000",
                "key.deserializer", ByteArrayDeserializer.class.getName(), "value.deserializer", ByteArrayDeserializer.class.getName());
            if (assignedByBroker) {
                properties.put("group.protocol", "consumer");
            } else {
                properties.put("session.timeout.ms", "10000");
                properties.put("heartbeat.interval.ms", "1000");
            }
            consumer = new KafkaConsumer<>(properties);
            setDaemon(true);
            start();
        }

        @Override
        public void run() {
            if (byPattern) {
                consumer.subscribe(new SubscriptionPattern(Pattern.quote(topic)));
            } else {
                consumer.subscribe(List.of(topic));
            }
            while (!leaving) {
                if (delivered.size() * 2 >= records && !killed.contains("read")) {
                    // The kill that belongs at half has not been asked for: however quick, it waits.
                    LockSupport.parkNanos(5_000_000);
                    continue;
                }
                ConsumerRecords<byte[], byte[]> found = consumer.poll(Duration.ofMillis(200));
                found.forEach(Client::deliver);
                if (!found.isEmpty()) {
                    try {
                        consumer.commitSync();
                    } catch (KafkaException rebalanceOrAway) {
                        // What was not committed is delivered again.
                    }
                }
            }
            consumer.close();
        }

        void leave() {
            leaving = true;
        }
    }

    static List<Member> read(String group) throws Exception {
        List<Member> members = new ArrayList<>(List.of(new Member(group, false), new Member(group, false)));
        boolean third = false;
        long deadline = System.currentTimeMillis() + 300_000 + 10L * records;
        while (delivered.size() < records) {
            need(System.currentTimeMillis() < deadline, "only " + delivered.size() + " records came back");
            if (!third && delivered.size() * 4 >= records) {
                members.add(new Member(group, true));
                third = true;
            }
            if (delivered.size() * 2 >= records) {
                killOnce("read");
                if (members.size() == 3) {
                    members.remove(0).leave();
                }
            }
            Thread.sleep(20);
        }
        return members;
    }

    static void checkEnds(Admin admin, String group) throws Exception {
        Map<TopicPartition, OffsetSpec> asked = new HashMap<>();
        for (int p = 0; p < partitions; p++) {
            asked.put(new TopicPartition(topic, p), OffsetSpec.latest());
        }
        long deadline = System.currentTimeMillis() + 60_000;
        Map<TopicPartition, OffsetAndMetadata> committed;
        do {
            Thread.sleep(200);
            committed = admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
        } while (System.currentTimeMillis() < deadline && !allCommitted(committed, asked));
        need(allCommitted(committed, asked), "not everything is committed: " + committed);
        admin.listOffsets(asked).all().get().forEach((place, end) ->
            need(end.offset() == length(place.partition()), place + " ends at " + end.offset()));
    }

    private static boolean allCommitted(Map<TopicPartition, OffsetAndMetadata> committed, Map<TopicPartition, OffsetSpec> asked) {
        return asked.keySet().stream().allMatch(place ->
            committed.get(place) != null && committed.get(place).offset() == length(place.partition()));
    }

    static void administer(Admin admin, String group) throws Exception {
        String own = topic + ".admin";
        admin.createTopics(List.of(new NewTopic(own, 1, (short) 1))).all().get();
        admin.createPartitions(Map.of(own, NewPartitions.increaseTo(3))).all().get();
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, own);
        AlterConfigOp set = new AlterConfigOp(new ConfigEntry("retention.ms", "3600000"), AlterConfigOp.OpType.SET);
        AlterConfigOp add = new AlterConfigOp(new ConfigEntry("cleanup.policy", "compact"), AlterConfigOp.OpType.APPEND);
        admin.incrementalAlterConfigs(Map.of(resource, List.of(set, add))).all().get();
        var configs = admin.describeConfigs(List.of(resource)).all().get().get(resource);
        need(configs.get("retention.ms").value().equals("3600000"), "retention.ms is " + configs.get("retention.ms"));
        need(configs.get("cleanup.policy").value().equals("delete,compact"), "cleanup.policy is " + configs.get("cleanup.policy"));
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(with(
            "key.serializer", ByteArraySerializer.class.getName(), "value.serializer", ByteArraySerializer.class.getName()))) {
            for (int i = 0; i < 10; i++) {
                producer.send(new ProducerRecord<>(own, 0, key(i), value(i))).get();
            }
        }
        TopicPartition place = new TopicPartition(own, 0);
        long begins = admin.deleteRecords(Map.of(place, RecordsToDelete.beforeOffset(4))).lowWatermarks().get(place).get().lowWatermark();
        need(begins == 4, "the topic begins at " + begins);
        long earliest = admin.listOffsets(Map.of(place, OffsetSpec.earliest())).all().get().get(place).offset();
        need(earliest == 4, "its first offset is " + earliest);
        int count = admin.describeTopics(List.of(own)).allTopicNames().get().get(own).partitions().size();
        need(count == 3, "it has " + count + " partitions");
        need(admin.describeConsumerGroups(List.of(group)).all().get().get(group).groupId().equals(group), "the group is not described");
        need(admin.listGroups().all().get().stream().anyMatch(found -> found.groupId().equals(group)), "the group is not listed");
        TopicPartition written = new TopicPartition(topic, 0);
        // A member whose leaving met a broker that was away stays for its session.
        for (int tries = 0; ; tries++) {
            try {
                admin.deleteConsumerGroupOffsets(group, Set.of(written)).all().get();
                break;
            } catch (ExecutionException error) {
                need(tries < 120 && error.getCause() instanceof GroupSubscribedToTopicException, "offsets cannot be deleted: " + error);
                Thread.sleep(500);
            }
        }
        need(!admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().containsKey(written),
            "an offset that was deleted is committed still");
        admin.deleteConsumerGroups(List.of(group)).all().get();
        need(!admin.describeCluster().nodes().get().isEmpty(), "no broker is described");
        describe(admin, own);
        quotas(admin, own);
        telemetry(admin, own);
        pace(admin, group);
        admin.deleteTopics(List.of(own)).all().get();
    }

    /** What the topic holds, where it begins and ends, and what has configs. */
    static void describe(Admin admin, String own) throws Exception {
        TopicPartition place = new TopicPartition(own, 0);
        for (OffsetSpec spec : List.of(OffsetSpec.maxTimestamp(), OffsetSpec.latest(), OffsetSpec.earliestLocal())) {
            long offset = admin.listOffsets(Map.of(place, spec)).all().get().get(place).offset();
            need(offset >= 4 && offset <= 10, spec + " is " + offset);
        }
        long pending = admin.listOffsets(Map.of(place, OffsetSpec.earliestPendingUpload())).all().get().get(place).offset();
        need(pending >= 4 && pending <= 10, "the first that the store has not is " + pending);
        long tiered = admin.listOffsets(Map.of(place, OffsetSpec.latestTiered())).all().get().get(place).offset();
        need(tiered >= -1 && tiered < 10, "the store has up to " + tiered);
        int node = admin.describeCluster().nodes().get().iterator().next().id();
        long size = admin.describeLogDirs(List.of(node)).allDescriptions().get().get(node).values().stream()
            .mapToLong(dir -> dir.replicaInfos().get(place).size()).sum();
        need(size > 0, "the topic has " + size + " bytes");
        place(admin, place, node);
        ConfigResource broker = new ConfigResource(ConfigResource.Type.BROKER, Integer.toString(node));
        ConfigEntry itself = admin.describeConfigs(List.of(broker)).all().get().get(broker).get("node.id");
        need(itself != null && itself.isReadOnly(), "node.id is " + itself);
        told(admin, broker, own);
        boolean listed = admin.listConfigResources(Set.of(ConfigResource.Type.TOPIC), new ListConfigResourcesOptions()).all().get()
            .stream().anyMatch(found -> found.name().equals(own));
        need(listed, "the topic is not among what has configs");
    }

    /** What a broker is told while it runs stands for a topic that does not say. */
    static void told(Admin admin, ConfigResource broker, String own) throws Exception {
        ConfigResource topic = new ConfigResource(ConfigResource.Type.TOPIC, own);
        ConfigEntry before = admin.describeConfigs(List.of(topic)).all().get().get(topic).get("delete.retention.ms");
        AlterConfigOp set = new AlterConfigOp(new ConfigEntry("log.cleaner.delete.retention.ms", "7654321"), AlterConfigOp.OpType.SET);
        admin.incrementalAlterConfigs(Map.of(broker, List.of(set))).all().get();
        ConfigEntry now = admin.describeConfigs(List.of(topic)).all().get().get(topic).get("delete.retention.ms");
        need(now.value().equals("7654321") && now.source() == ConfigEntry.ConfigSource.DYNAMIC_BROKER_CONFIG, "the topic has " + now);
        AlterConfigOp back = new AlterConfigOp(new ConfigEntry("log.cleaner.delete.retention.ms", ""), AlterConfigOp.OpType.DELETE);
        admin.incrementalAlterConfigs(Map.of(broker, List.of(back))).all().get();
        now = admin.describeConfigs(List.of(topic)).all().get().get(topic).get("delete.retention.ms");
        need(now.equals(before), "the topic has " + now + " and had " + before);
    }

    /** A partition has the leader that it should have, and stays where it is. */
    static void place(Admin admin, TopicPartition place, int node) throws Exception {
        refused(ElectionNotNeededException.class, admin.electLeaders(ElectionType.PREFERRED, Set.of(place)).all());
        admin.alterPartitionReassignments(Map.of(place, Optional.of(new NewPartitionReassignment(List.of(node))))).all().get();
        refused(InvalidReplicaAssignmentException.class,
            admin.alterPartitionReassignments(Map.of(place, Optional.of(new NewPartitionReassignment(List.of(node + 1))))).all());
        need(admin.listPartitionReassignments().reassignments().get().isEmpty(), "something is on its way");
        String folder = admin.describeLogDirs(List.of(node)).allDescriptions().get().get(node).keySet().iterator().next();
        TopicPartitionReplica replica = new TopicPartitionReplica(place.topic(), place.partition(), node);
        admin.alterReplicaLogDirs(Map.of(replica, folder)).all().get();
        refused(LogDirNotFoundException.class, admin.alterReplicaLogDirs(Map.of(replica, folder + "-elsewhere")).all());
    }

    static void refused(Class<? extends Exception> why, KafkaFuture<Void> done) throws Exception {
        try {
            done.get();
            throw new IllegalStateException("done, and should have been refused with " + why.getSimpleName());
        } catch (ExecutionException error) {
            need(why.isInstance(error.getCause()), "refused with " + error.getCause());
        }
    }

    /** A quota that is set, told, felt and taken back. */
    static void quotas(Admin admin, String own) throws Exception {
        ClientQuotaEntity slow = new ClientQuotaEntity(Map.of(ClientQuotaEntity.CLIENT_ID, "slow"));
        ClientQuotaFilter asked = ClientQuotaFilter.containsOnly(List.of(ClientQuotaFilterComponent.ofEntity(ClientQuotaEntity.CLIENT_ID, "slow")));
        admin.alterClientQuotas(List.of(new ClientQuotaAlteration(slow, List.of(
            new ClientQuotaAlteration.Op("producer_byte_rate", 2000.0), new ClientQuotaAlteration.Op("consumer_byte_rate", 5000.0))))).all().get();
        Map<String, Double> told = admin.describeClientQuotas(asked).entities().get().get(slow);
        need(told != null && told.get("producer_byte_rate") == 2000.0, "the quota is " + told);
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(with("client.id", "slow",
            "key.serializer", ByteArraySerializer.class.getName(), "value.serializer", ByteArraySerializer.class.getName()))) {
            producer.send(new ProducerRecord<>(own, 1, key(1), new byte[4000])).get();
            double waited = producer.metrics().entrySet().stream()
                .filter(one -> one.getKey().name().equals("produce-throttle-time-max"))
                .mapToDouble(one -> (Double) one.getValue().metricValue()).max().orElse(0);
            need(waited >= 1000, "who sent twice its quota was told to wait " + waited + " ms");
        }
        admin.alterClientQuotas(List.of(new ClientQuotaAlteration(slow, List.of(
            new ClientQuotaAlteration.Op("producer_byte_rate", null), new ClientQuotaAlteration.Op("consumer_byte_rate", null))))).all().get();
        need(admin.describeClientQuotas(asked).entities().get().isEmpty(), "a quota that was taken back is told");
        busy(admin, own);
    }

    /** How much of a core the requests of a client may take: it is told to wait for what they took. */
    static void busy(Admin admin, String own) throws Exception {
        ClientQuotaEntity entity = new ClientQuotaEntity(Map.of(ClientQuotaEntity.CLIENT_ID, "busy"));
        admin.alterClientQuotas(List.of(new ClientQuotaAlteration(entity, List.of(
            new ClientQuotaAlteration.Op("request_percentage", 0.001))))).all().get();
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(with("client.id", "busy",
            "key.serializer", ByteArraySerializer.class.getName(), "value.serializer", ByteArraySerializer.class.getName()))) {
            for (int i = 0; i < 3; i++) {
                producer.send(new ProducerRecord<>(own, 1, key(i), value(i))).get();
            }
            double waited = producer.metrics().entrySet().stream()
                .filter(one -> one.getKey().name().equals("produce-throttle-time-max"))
                .mapToDouble(one -> (Double) one.getValue().metricValue()).max().orElse(0);
            need(waited > 0 && waited <= 1000, "whose requests took more than their time was told to wait " + waited + " ms");
        }
        admin.alterClientQuotas(List.of(new ClientQuotaAlteration(entity, List.of(
            new ClientQuotaAlteration.Op("request_percentage", null))))).all().get();
    }

    static void alter(Admin admin, ConfigResource resource, String... pairs) throws Exception {
        List<AlterConfigOp> ops = new ArrayList<>();
        for (int at = 0; at < pairs.length; at += 2) {
            AlterConfigOp.OpType type = pairs[at + 1] == null ? AlterConfigOp.OpType.DELETE : AlterConfigOp.OpType.SET;
            ops.add(new AlterConfigOp(new ConfigEntry(pairs[at], pairs[at + 1]), type));
        }
        admin.incrementalAlterConfigs(Map.of(resource, ops)).all().get();
    }

    static boolean isListed(Admin admin, ConfigResource resource) throws Exception {
        return admin.listConfigResources(Set.of(resource.type()), new ListConfigResourcesOptions()).all().get().contains(resource);
    }

    /** A subscription to metrics of clients: kept, told, followed by a producer, and taken back. */
    static void telemetry(Admin admin, String own) throws Exception {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.CLIENT_METRICS, own);
        alter(admin, resource, "metrics", "org.apache.kafka.producer.", "interval.ms", "500", "match", "client_id=told.*");
        var configs = admin.describeConfigs(List.of(resource)).all().get().get(resource);
        need(configs.get("interval.ms").value().equals("500"), "interval.ms is " + configs.get("interval.ms"));
        need(isListed(admin, resource), "the subscription is not listed");
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(with("client.id", "told-" + own,
            "key.serializer", ByteArraySerializer.class.getName(), "value.serializer", ByteArraySerializer.class.getName()))) {
            need(producer.clientInstanceId(Duration.ofSeconds(30)) != null, "the producer has no id");
            long until = System.currentTimeMillis() + 2_000;
            while (System.currentTimeMillis() < until) {
                producer.send(new ProducerRecord<>(own, 0, key(1), value(1))).get();
                Thread.sleep(100);
            }
        }
        alter(admin, resource, "metrics", null, "interval.ms", null, "match", null);
        need(!isListed(admin, resource), "the subscription is listed still");
    }

    /** How long members of a group may be silent, for that group alone. */
    static void pace(Admin admin, String group) throws Exception {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.GROUP, group);
        alter(admin, resource, "consumer.session.timeout.ms", "50000");
        var configs = admin.describeConfigs(List.of(resource)).all().get().get(resource);
        need(configs.get("consumer.session.timeout.ms").value().equals("50000"), "the session is " + configs.get("consumer.session.timeout.ms"));
        need(configs.get("consumer.heartbeat.interval.ms").value().equals("5000"), "the interval is " + configs.get("consumer.heartbeat.interval.ms"));
        need(isListed(admin, resource), "the group is not among what has configs");
        alter(admin, resource, "consumer.session.timeout.ms", null);
        need(!isListed(admin, resource), "the group is among what has configs still");
    }

    static KafkaProducer<byte[], byte[]> transactional() {
        KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(with("transactional.id", topic + ".tx",
            "key.serializer", ByteArraySerializer.class.getName(), "value.serializer", ByteArraySerializer.class.getName()));
        producer.initTransactions();
        return producer;
    }

    static KafkaConsumer<byte[], byte[]> reader(String of, String isolation) {
        return new KafkaConsumer<>(with("group.id", of + ".transform", "auto.offset.reset", "earliest", "enable.auto.commit", "false",
            "isolation.level", isolation, "max.poll.records", "5",
            "key.deserializer", ByteArrayDeserializer.class.getName(), "value.deserializer", ByteArrayDeserializer.class.getName()));
    }

    /** Begins a transaction that carries up to five records on; says how many there were. */
    static int carry(KafkaProducer<byte[], byte[]> producer, String source, String sink) {
        try (KafkaConsumer<byte[], byte[]> consumer = reader(source, "read_committed")) {
            TopicPartition place = new TopicPartition(source, 0);
            consumer.assign(List.of(place));
            long end = consumer.endOffsets(List.of(place)).get(place);
            producer.beginTransaction();
            int count = 0;
            while (count < 5 && consumer.position(place) < end) {
                for (ConsumerRecord<byte[], byte[]> got : consumer.poll(Duration.ofMillis(200))) {
                    producer.send(new ProducerRecord<>(sink, (int) (got.offset() % 2), got.key(), got.value()));
                    count++;
                }
            }
            if (count > 0) {
                producer.sendOffsetsToTransaction(Map.of(place, new OffsetAndMetadata(consumer.position(place))), consumer.groupMetadata());
            }
            return count;
        }
    }

    /** How often each key is in a topic. */
    static Map<String, Integer> keys(String of, String isolation) {
        try (KafkaConsumer<byte[], byte[]> consumer = reader(of, isolation)) {
            List<TopicPartition> places = List.of(new TopicPartition(of, 0), new TopicPartition(of, 1));
            consumer.assign(places);
            consumer.seekToBeginning(places);
            Map<TopicPartition, Long> ends = consumer.endOffsets(places);
            Map<String, Integer> found = new HashMap<>();
            while (places.stream().anyMatch(place -> consumer.position(place) < ends.get(place))) {
                consumer.poll(Duration.ofMillis(200)).forEach(got -> found.merge(new String(got.key()), 1, Integer::sum));
            }
            return found;
        }
    }

    static void transact(Admin admin) throws Exception {
        String source = topic + ".in";
        String sink = topic + ".out";
        admin.createTopics(List.of(new NewTopic(source, 1, (short) 1), new NewTopic(sink, 2, (short) 1))).all().get();
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(with(
            "key.serializer", ByteArraySerializer.class.getName(), "value.serializer", ByteArraySerializer.class.getName()))) {
            for (int i = 0; i < 30; i++) {
                producer.send(new ProducerRecord<>(source, 0, key(i), value(i))).get();
            }
        }
        KafkaProducer<byte[], byte[]> producer = transactional();
        int aborted = 0;
        for (int turn = 0; ; turn++) {
            int count = carry(producer, source, sink);
            if (turn == 0) {
                var described = admin.describeTransactions(List.of(topic + ".tx")).description(topic + ".tx").get();
                need(described.state() == TransactionState.ONGOING, "the transaction is " + described.state());
                need(admin.listTransactions().all().get().stream().anyMatch(one -> one.transactionalId().equals(topic + ".tx")),
                    "the transaction is not listed");
                producer.flush();
                TopicPartition place = new TopicPartition(sink, 0);
                var producers = admin.describeProducers(List.of(place)).partitionResult(place).get().activeProducers();
                need(producers.stream().anyMatch(one -> one.currentTransactionStartOffset().isPresent()), "no producer has one open");
            }
            if (count == 0) {
                producer.commitTransaction();
                break;
            }
            if (turn % 3 == 1) {
                producer.abortTransaction();
                aborted += count;
            } else {
                producer.commitTransaction();
            }
        }
        need(aborted > 0, "nothing was aborted");
        producer.beginTransaction();
        producer.send(new ProducerRecord<>(sink, 0, "zombie".getBytes(), null)).get();
        try (KafkaProducer<byte[], byte[]> late = transactional()) {
            try {
                producer.commitTransaction();
                need(false, "a producer whose id was taken committed");
            } catch (ProducerFencedException | InvalidProducerEpochException fenced) {
                producer.close();
            }
        }
        Map<String, Integer> found = keys(sink, "read_committed");
        for (int i = 0; i < 30; i++) {
            need(Integer.valueOf(1).equals(found.get("key-" + i)), "record " + i + " was carried on " + found.get("key-" + i) + " times");
        }
        need(found.size() == 30, found.size() + " keys were carried on");
        int all = keys(sink, "read_uncommitted").values().stream().mapToInt(Integer::intValue).sum();
        need(all == 31 + aborted, "of " + (31 + aborted) + " records there are " + all);
        admin.deleteTopics(List.of(source, sink)).all().get();
    }

    public static void main(String[] arguments) throws Exception {
        Map<String, String> given = new HashMap<>();
        for (int at = 0; at + 1 < arguments.length; at += 2) {
            given.put(arguments[at], arguments[at + 1]);
        }
        bootstrap = given.get("--bootstrap");
        topic = given.get("--topic");
        partitions = Integer.parseInt(given.get("--partitions"));
        records = Integer.parseInt(given.get("--records"));
        assignedByBroker = "consumer".equals(given.get("--protocol"));
        String group = topic + ".group";
        try (Admin admin = Admin.create(with())) {
            admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1))).all().get();
            write();
            List<Member> members = read(group);
            checkEnds(admin, group);
            for (Member member : members) {
                member.leave();
                member.join(20_000);
            }
            administer(admin, group);
            transact(admin);
            if (assignedByBroker) {
                Shares.share(admin, topic);
            }
        }
        if (System.getenv("KAFKA_OPS_SECRET") != null) {
            Secured.administer(topic, System.getenv("KAFKA_OPS_SECRET"));
        }
        System.out.printf("ok %d records, %d partitions, 3 members, %d delivered again%n", records, partitions, again.get());
    }
}
