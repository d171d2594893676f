package io.cairn.clients;

import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** The Java client of Apache Kafka while brokers take over from each other: clients/kafka/README.md says what it must do. */
public final class TakeOver {
    private static final int WAITING_MAX = 2000;
    private static final Map<String, String> options = new HashMap<>();
    private static String topic;
    private static int partitions;
    private static volatile boolean ended;

    private TakeOver() {}

    static synchronized void say(String line) {
        System.out.println(line);
        System.out.flush();
    }

    /** As docs/take-over.md says; `plain` leaves the library's own. */
    static Properties with(String... pairs) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", options.get("bootstrap"));
        if (!"plain".equals(options.get("settings"))) {
            properties.put("request.timeout.ms", "2000");
            properties.put("socket.connection.setup.timeout.ms", "1000");
            properties.put("socket.connection.setup.timeout.max.ms", "2000");
            properties.put("reconnect.backoff.ms", "500");
            properties.put("reconnect.backoff.max.ms", "500");
            properties.put("retry.backoff.max.ms", "200");
        }
        for (int at = 0; at < pairs.length; at += 2) {
            properties.put(pairs[at], pairs[at + 1]);
        }
        return properties;
    }

    static KafkaConsumer<byte[], byte[]> consumer(String... pairs) {
        Properties properties = with(pairs);
        properties.put("key.deserializer", ByteArrayDeserializer.class.getName());
        properties.put("value.deserializer", ByteArrayDeserializer.class.getName());
        return new KafkaConsumer<>(properties);
    }

    static void create() throws Exception {
        long deadline = System.nanoTime() + TimeUnit.MINUTES.toNanos(1);
        while (true) {
            try (Admin admin = Admin.create(with())) {
                admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1))).all().get();
                return;
            } catch (ExecutionException error) {
                if (error.getCause() instanceof TopicExistsException) {
                    return;
                }
                if (System.nanoTime() > deadline) {
                    throw error;
                }
            }
        }
    }

    static void write(long paceNanos, Path stop) throws Exception {
        Properties properties = with("acks", "all", "enable.idempotence", "true", "linger.ms", "5", "max.block.ms", "120000");
        properties.put("key.serializer", ByteArraySerializer.class.getName());
        properties.put("value.serializer", ByteArraySerializer.class.getName());
        Semaphore waiting = new Semaphore(WAITING_MAX);
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(properties)) {
            long due = System.nanoTime();
            for (int i = 0; !Files.exists(stop); i++) {
                int number = i;
                byte[] value = (number + " " + "x".repeat(number % 97 * 10)).getBytes(StandardCharsets.US_ASCII);
                waiting.acquire();
                producer.send(new ProducerRecord<>(topic, number % partitions, null, value), (done, error) -> {
                    waiting.release();
                    if (error == null) {
                        say("a " + done.partition() + " " + done.offset() + " " + number);
                    } else {
                        say("f " + number % partitions + " -1 " + number + " " + error);
                    }
                });
                due = Math.max(due + paceNanos, System.nanoTime() - 100_000_000);
                LockSupport.parkNanos(due - System.nanoTime());
            }
            producer.flush();
            say("e flushed");
        }
    }

    static void report(String kind, ConsumerRecord<byte[], byte[]> got) {
        String value = new String(got.value(), StandardCharsets.US_ASCII);
        say(kind + " " + got.partition() + " " + got.offset() + " " + value.substring(0, value.indexOf(' ')));
    }

    static void follow() {
        try (KafkaConsumer<byte[], byte[]> consumer = consumer("group.id", topic + ".group", "auto.offset.reset", "earliest",
                "enable.auto.commit", "false", "session.timeout.ms", "10000", "heartbeat.interval.ms", "1000")) {
            consumer.subscribe(List.of(topic));
            long committed = System.nanoTime();
            while (!ended) {
                for (ConsumerRecord<byte[], byte[]> got : consumer.poll(Duration.ofMillis(200))) {
                    report("r", got);
                }
                if (System.nanoTime() - committed > 1_000_000_000L) {
                    committed = System.nanoTime();
                    consumer.commitAsync((offsets, error) -> { });
                }
            }
        } catch (KafkaException error) {
            say("e the group's reader ended: " + error);
        }
    }

    static void readAll() {
        try (KafkaConsumer<byte[], byte[]> consumer = consumer("enable.auto.commit", "false")) {
            List<TopicPartition> places = new ArrayList<>();
            for (int p = 0; p < partitions; p++) {
                places.add(new TopicPartition(topic, p));
            }
            consumer.assign(places);
            consumer.seekToBeginning(places);
            Map<TopicPartition, Long> ends = consumer.endOffsets(places, Duration.ofSeconds(30));
            long deadline = System.nanoTime() + TimeUnit.MINUTES.toNanos(15);
            while (places.stream().anyMatch(place -> consumer.position(place) < ends.get(place))) {
                if (System.nanoTime() > deadline) {
                    say("e not all was read: " + ends);
                    return;
                }
                consumer.poll(Duration.ofMillis(500)).forEach(got -> report("v", got));
            }
            say("done");
        }
    }

    /** Begins. */
    public static void main(String[] arguments) throws Exception {
        for (int at = 0; at + 1 < arguments.length; at += 2) {
            options.put(arguments[at].substring(2), arguments[at + 1]);
        }
        topic = options.get("topic");
        partitions = Integer.parseInt(options.get("partitions"));
        create();
        Thread reader = new Thread(TakeOver::follow);
        reader.start();
        write((long) (Double.parseDouble(options.get("pace-ms")) * 1_000_000), Path.of(options.get("stop")));
        Thread.sleep(3000);
        ended = true;
        reader.join();
        readAll();
    }
}
