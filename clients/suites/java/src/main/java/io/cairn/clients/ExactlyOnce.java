package io.cairn.clients;

import java.time.Duration;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.LongDeserializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.state.KeyValueStore;

/**
 * A Kafka Streams application that counts records by key with exactly-once semantics, and the check of what it wrote.
 *
 * <p>It is killed while it runs, and started again. Each input must come out once: for each key the counts 1, 2, 3 … without a
 * gap and without a repetition, as a consumer with read_committed sees them.
 */
public final class ExactlyOnce {
    private static final String INPUT = "suite.words";
    private static final String OUTPUT = "suite.counts";
    private static final int PARTITIONS = 4;
    private static final int KEYS = 50;
    private static final Duration CHECK_LIMIT = Duration.ofSeconds(180);

    public static void main(String[] arguments) throws Exception {
        String bootstrap = arguments[1];
        switch (arguments[0]) {
            case "fill" -> fill(bootstrap, Integer.parseInt(arguments[2]));
            case "run" -> run(bootstrap, arguments[2]);
            case "check" -> check(bootstrap, Integer.parseInt(arguments[2]));
            default -> throw new IllegalArgumentException("fill, run or check");
        }
    }

    private static String key(int number) {
        return "key-" + number % KEYS;
    }

    private static void fill(String bootstrap, int records) throws Exception {
        Map<String, Object> properties = new HashMap<>();
        properties.put(ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
        try (Admin admin = Admin.create(properties)) {
            NewTopic input = new NewTopic(INPUT, PARTITIONS, (short) 1);
            NewTopic output = new NewTopic(OUTPUT, PARTITIONS, (short) 1);
            try {
                admin.createTopics(List.of(input, output)).all().get();
            } catch (java.util.concurrent.ExecutionException there) {
                if (!(there.getCause() instanceof org.apache.kafka.common.errors.TopicExistsException)) {
                    throw there;
                }
            }
        }
        try (var producer = new KafkaProducer<>(properties, new StringSerializer(), new StringSerializer())) {
            for (int number = 0; number < records; number++) {
                producer.send(new ProducerRecord<>(INPUT, key(number), "w" + number));
            }
            producer.flush();
        }
        System.out.println("ok " + records + " records");
    }

    private static void run(String bootstrap, String state) {
        Properties properties = new Properties();
        properties.put(StreamsConfig.APPLICATION_ID_CONFIG, "suite-exactly-once");
        properties.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
        properties.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        properties.put(StreamsConfig.STATE_DIR_CONFIG, state);
        properties.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 0);
        properties.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        properties.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 100);
        properties.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        properties.put(StreamsConfig.consumerPrefix(ConsumerConfig.SESSION_TIMEOUT_MS_CONFIG), 6000);
        properties.put(StreamsConfig.producerPrefix(ProducerConfig.TRANSACTION_TIMEOUT_CONFIG), 10000);
        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(INPUT, Consumed.with(Serdes.String(), Serdes.String()))
                .groupByKey(Grouped.with(Serdes.String(), Serdes.String()))
                .count(Materialized.<String, Long, KeyValueStore<Bytes, byte[]>>as("counts")
                        .withKeySerde(Serdes.String())
                        .withValueSerde(Serdes.Long()))
                .toStream()
                .to(OUTPUT, Produced.with(Serdes.String(), Serdes.Long()));
        KafkaStreams streams = new KafkaStreams(builder.build(), properties);
        streams.setStateListener((now, before) -> System.out.println("state " + now));
        streams.setUncaughtExceptionHandler(error -> {
            System.out.println("error " + error + " " + error.getCause());
            return org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse
                    .SHUTDOWN_CLIENT;
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(20))));
        streams.start();
    }

    private static void check(String bootstrap, int records) {
        Map<String, Object> properties = new HashMap<>();
        properties.put(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
        properties.put(ConsumerConfig.ISOLATION_LEVEL_CONFIG, "read_committed");
        Map<String, Long> last = new HashMap<>();
        long seen = 0;
        long deadline = System.nanoTime() + CHECK_LIMIT.toNanos();
        try (var consumer = new KafkaConsumer<>(properties, new StringDeserializer(), new LongDeserializer())) {
            List<TopicPartition> all =
                    IntStream.range(0, PARTITIONS).mapToObj(number -> new TopicPartition(OUTPUT, number)).toList();
            consumer.assign(all);
            consumer.seekToBeginning(all);
            // One more look past the last, so that a repetition at the end is seen.
            boolean after = false;
            while (!after && System.nanoTime() < deadline) {
                after = seen >= records;
                for (ConsumerRecord<String, Long> record : consumer.poll(Duration.ofSeconds(after ? 3 : 1))) {
                    long expected = last.getOrDefault(record.key(), 0L) + 1;
                    if (record.value() != expected) {
                        throw new IllegalStateException(record.key() + " counts " + record.value() + " after "
                                + (expected - 1) + " at offset " + record.offset() + " of partition "
                                + record.partition());
                    }
                    last.put(record.key(), expected);
                    seen++;
                }
            }
        }
        if (seen != records || !last.keySet().equals(wanted(records))) {
            throw new IllegalStateException(seen + " counts of " + records + " records, " + last.size() + " keys");
        }
        System.out.println("ok " + seen + " counts, each once");
    }

    private static java.util.Set<String> wanted(int records) {
        return records == 0
                ? Collections.emptySet()
                : new java.util.HashSet<>(
                        IntStream.range(0, Math.min(records, KEYS)).mapToObj(ExactlyOnce::key).toList());
    }
}
