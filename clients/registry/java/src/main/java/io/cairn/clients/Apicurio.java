package io.cairn.clients;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.google.protobuf.Duration;
import io.apicurio.registry.serde.avro.AvroKafkaDeserializer;
import io.apicurio.registry.serde.avro.AvroKafkaSerializer;
import io.apicurio.registry.serde.jsonschema.JsonSchemaKafkaDeserializer;
import io.apicurio.registry.serde.jsonschema.JsonSchemaKafkaSerializer;
import io.apicurio.registry.serde.protobuf.ProtobufKafkaDeserializer;
import io.apicurio.registry.serde.protobuf.ProtobufKafkaSerializer;
import java.time.Instant;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.IntFunction;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericRecordBuilder;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serializer;

/** Apicurio's serializers against a registry with Confluent's API. See ../../README.md. */
public final class Apicurio {
    private static final int RECORDS = 50;
    private static final long PATIENCE_S = 60;
    private static final Schema ORDER = new Schema.Parser().parse("{\"type\": \"record\", \"name\": \"Order\", \"namespace\": \"shop\","
            + "\"fields\": [{\"name\": \"id\", \"type\": \"long\"}, {\"name\": \"note\", \"type\": \"string\"}]}");
    private static final Schema BROKEN = new Schema.Parser().parse("{\"type\": \"record\", \"name\": \"Order\", \"namespace\": \"shop\","
            + "\"fields\": [{\"name\": \"id\", \"type\": \"long\"}, {\"name\": \"must\", \"type\": \"string\"}]}");

    private final String bootstrap;
    private final String registry;

    private Apicurio(String bootstrap, String registry) {
        this.bootstrap = bootstrap;
        this.registry = registry;
    }

    public static void main(String[] arguments) throws Exception {
        Map<String, String> given = new HashMap<>();
        for (int at = 0; at + 1 < arguments.length; at += 2) {
            given.put(arguments[at], arguments[at + 1]);
        }
        new Apicurio(given.get("--bootstrap"), given.get("--registry")).run();
        System.out.println("ok Avro, JSON Schema and Protobuf, " + RECORDS + " values each, by id, with a resolver of ours in the place of Apicurio's");
        System.exit(0);
    }

    private void run() throws Exception {
        trip("avro", new AvroKafkaSerializer<>(), new AvroKafkaDeserializer<>(), Map.of(),
                number -> new GenericRecordBuilder(ORDER).set("id", (long) number).set("note", new org.apache.avro.util.Utf8("n" + number)).build());
        ObjectMapper json = new ObjectMapper();
        trip("json", new JsonSchemaKafkaSerializer<>(), new JsonSchemaKafkaDeserializer<>(),
                Map.of("apicurio.registry.artifact.schema.location", "order.json",
                        "apicurio.registry.deserializer.value.return-class", JsonNode.class.getName()),
                number -> (JsonNode) json.createObjectNode().put("id", number).put("note", "n" + number));
        trip("protobuf", new ProtobufKafkaSerializer<>(), new ProtobufKafkaDeserializer<>(),
                // The layout of Confluent's: which message of the file it is goes before the value.
                Map.of("apicurio.registry.serde.send-type-ref", "false", "apicurio.registry.serde.send-indexes", "true",
                        "apicurio.registry.serde.read-type-ref", "false", "apicurio.registry.serde.read-indexes", "true",
                        "apicurio.registry.deserializer.value.return-class", Duration.class.getName()),
                number -> Duration.newBuilder().setSeconds(number + 1).setNanos(7).build());
        refused();
    }

    private Map<String, Object> settings(Map<String, String> more) {
        Map<String, Object> settings = new HashMap<>(more);
        settings.put("apicurio.registry.url", registry);
        settings.put("apicurio.registry.schema-resolver", Resolver.class.getName());
        return settings;
    }

    /** Writes values by a serializer to a topic and reads them back by its deserializer. */
    private <T> void trip(String name, Serializer<T> to, Deserializer<T> from, Map<String, String> more, IntFunction<T> value)
            throws Exception {
        to.configure(settings(more), false);
        from.configure(settings(more), false);
        String topic = "registry.apicurio." + name;
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1))).all().get();
        }
        Map<String, Object> kafka = Map.of("bootstrap.servers", bootstrap);
        try (KafkaProducer<byte[], T> producer = new KafkaProducer<>(kafka, new ByteArraySerializer(), to)) {
            for (int number = 0; number < RECORDS; number++) {
                producer.send(new ProducerRecord<>(topic, value.apply(number))).get();
            }
        }
        List<T> back = new ArrayList<>();
        try (KafkaConsumer<byte[], T> consumer = new KafkaConsumer<>(kafka, new ByteArrayDeserializer(), from)) {
            List<TopicPartition> partitions = List.of(new TopicPartition(topic, 0));
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            Instant until = Instant.now().plusSeconds(PATIENCE_S);
            while (back.size() < RECORDS && Instant.now().isBefore(until)) {
                for (ConsumerRecord<byte[], T> found : consumer.poll(java.time.Duration.ofMillis(500))) {
                    back.add(found.value());
                }
            }
        }
        need(back.size() == RECORDS, name + ": " + back.size() + " values came back");
        for (int number = 0; number < RECORDS; number++) {
            need(back.get(number).equals(value.apply(number)), name + ": " + back.get(number) + " came back for " + number);
        }
    }

    private void refused() {
        try (Serializer<Object> to = new AvroKafkaSerializer<>()) {
            to.configure(settings(Map.of()), false);
            to.serialize("registry.apicurio.avro", new GenericRecordBuilder(BROKEN).set("id", 1L).set("must", "x").build());
        } catch (RuntimeException error) {
            need(error.toString().contains("409") || String.valueOf(error.getCause()).contains("409"), "409 was due, not " + error);
            return;
        }
        need(false, "a change that breaks was registered");
    }

    private static void need(boolean holds, String words) {
        if (!holds) {
            System.out.println("FAILED " + words);
            System.exit(1);
        }
    }
}
