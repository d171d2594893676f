package io.cairn.clients;

import java.time.Duration;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ListShareGroupOffsetsSpec;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.AcknowledgeType;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** A share group (KIP-932), by two members and as an administrator: README.md says what. */
final class Shares {
    private static final int RECORDS = 200;
    private static final long PATIENCE_MS = 60_000;

    private final String topic;
    private final String group;
    private final Set<Integer> accepted = new HashSet<>();
    private final Set<Integer> rejected = new HashSet<>();
    private final Map<Integer, Integer> released = new HashMap<>();

    private Shares(String given) {
        topic = given + ".shared";
        group = given + ".share";
    }

    private KafkaShareConsumer<byte[], byte[]> member() {
        Properties properties = Client.with("group.id", group, "share.acknowledgement.mode", "explicit",
            "key.deserializer", ByteArrayDeserializer.class.getName(), "value.deserializer", ByteArrayDeserializer.class.getName());
        KafkaShareConsumer<byte[], byte[]> member = new KafkaShareConsumer<>(properties);
        member.subscribe(List.of(topic));
        return member;
    }

    private void write() throws Exception {
        Properties properties = Client.with("key.serializer", ByteArraySerializer.class.getName(),
            "value.serializer", ByteArraySerializer.class.getName());
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(properties)) {
            for (int i = 0; i < RECORDS; i++) {
                producer.send(new ProducerRecord<>(topic, i % 2, Client.key(i), Client.value(i)));
            }
        }
    }

    private void judge(KafkaShareConsumer<byte[], byte[]> member, ConsumerRecord<byte[], byte[]> record) {
        int i = Integer.parseInt(new String(record.key()).substring("key-".length()));
        int count = record.deliveryCount().orElse((short) 0);
        Client.need(java.util.Arrays.equals(record.value(), Client.value(i)), "record " + i + " has another value");
        Client.need(!accepted.contains(i) && !rejected.contains(i), "record " + i + " came again, for the time " + count);
        Client.need(count == released.getOrDefault(i, 0) + 1, "record " + i + " came for the time " + count);
        if (i % 50 == 7) {
            rejected.add(i);
            member.acknowledge(record, AcknowledgeType.REJECT);
        } else if (i % 10 == 3 && count < 3) {
            released.merge(i, 1, Integer::sum);
            member.acknowledge(record, AcknowledgeType.RELEASE);
        } else {
            accepted.add(i);
            member.acknowledge(record, AcknowledgeType.ACCEPT);
        }
    }

    private void read(Admin admin) throws Exception {
        try (KafkaShareConsumer<byte[], byte[]> one = member(); KafkaShareConsumer<byte[], byte[]> other = member()) {
            long deadline = System.currentTimeMillis() + PATIENCE_MS;
            while (accepted.size() + rejected.size() < RECORDS) {
                Client.need(System.currentTimeMillis() < deadline, accepted.size() + " accepted, " + rejected.size() + " rejected, no more come");
                for (KafkaShareConsumer<byte[], byte[]> member : List.of(one, other)) {
                    member.poll(Duration.ofMillis(300)).forEach(record -> judge(member, record));
                    member.commitSync().forEach((at, error) -> Client.need(error.isEmpty(), "an acknowledgement is refused: " + error));
                }
            }
            var described = admin.describeShareGroups(List.of(group)).all().get().get(group);
            Client.need(described.groupState() == GroupState.STABLE && described.members().size() == 2, "the group is " + described);
            Client.need(one.poll(Duration.ofMillis(500)).isEmpty() && other.poll(Duration.ofMillis(500)).isEmpty(), "what is done with came again");
        }
        Client.need(rejected.size() == 4 && released.size() == 20, rejected + " rejected, " + released + " released");
    }

    private long start(Admin admin, int partition) throws Exception {
        var all = admin.listShareGroupOffsets(Map.of(group, new ListShareGroupOffsetsSpec())).all().get().get(group);
        return all.get(new TopicPartition(topic, partition)).startOffset();
    }

    /** Reads what there is after the group was set back, with acknowledgement by the next poll. */
    private int again() {
        Properties properties = Client.with("group.id", group,
            "key.deserializer", ByteArrayDeserializer.class.getName(), "value.deserializer", ByteArrayDeserializer.class.getName());
        try (KafkaShareConsumer<byte[], byte[]> member = new KafkaShareConsumer<>(properties)) {
            member.subscribe(List.of(topic));
            int count = 0;
            long deadline = System.currentTimeMillis() + PATIENCE_MS;
            while (count < RECORDS / 4 && System.currentTimeMillis() < deadline) {
                count += member.poll(Duration.ofMillis(300)).count();
            }
            return count + member.poll(Duration.ofMillis(500)).count();
        }
    }

    private void leave(Admin admin) throws Exception {
        long deadline = System.currentTimeMillis() + PATIENCE_MS;
        while (admin.describeShareGroups(List.of(group)).all().get().get(group).groupState() != GroupState.EMPTY) {
            Client.need(System.currentTimeMillis() < deadline, "the members did not leave");
            Thread.sleep(100);
        }
    }

    static void share(Admin admin, String given) throws Exception {
        Shares shares = new Shares(given);
        admin.createTopics(List.of(new NewTopic(shares.topic, 2, (short) 1))).all().get();
        ConfigResource resource = new ConfigResource(ConfigResource.Type.GROUP, shares.group);
        AlterConfigOp earliest = new AlterConfigOp(new ConfigEntry("share.auto.offset.reset", "earliest"), AlterConfigOp.OpType.SET);
        admin.incrementalAlterConfigs(Map.of(resource, List.of(earliest))).all().get();
        shares.write();
        shares.read(admin);
        shares.leave(admin);
        Client.need(shares.start(admin, 0) == RECORDS / 2 && shares.start(admin, 1) == RECORDS / 2, "the group goes on elsewhere");
        admin.alterShareGroupOffsets(shares.group, Map.of(new TopicPartition(shares.topic, 1), RECORDS / 4L)).all().get();
        Client.need(shares.start(admin, 1) == RECORDS / 4, "the group was not set back");
        int again = shares.again();
        Client.need(again == RECORDS / 4, again + " records came after the group was set back");
        shares.leave(admin);
        admin.deleteShareGroupOffsets(shares.group, Set.of(shares.topic)).all().get();
        admin.deleteShareGroups(List.of(shares.group)).all().get();
        AlterConfigOp none = new AlterConfigOp(new ConfigEntry("share.auto.offset.reset", null), AlterConfigOp.OpType.DELETE);
        admin.incrementalAlterConfigs(Map.of(resource, List.of(none))).all().get();
        admin.deleteTopics(List.of(shares.topic)).all().get();
    }
}
