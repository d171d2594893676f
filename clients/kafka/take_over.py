"""confluent-kafka for Python (librdkafka) while brokers take over from each other: see README.md."""

import argparse
import os
import sys
import threading
import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

# As docs/take-over.md says; `plain` leaves the library's own.
QUICK = {
    "socket.timeout.ms": 4000, "socket.connection.setup.timeout.ms": 3000, "reconnect.backoff.max.ms": 500,
}
WAITING_MAX = 2000

lock = threading.Lock()


def say(line):
    with lock:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def settings(options, **more):
    return {"bootstrap.servers": options.bootstrap, **(QUICK if options.settings == "quick" else {}), "log_level": 2, **more}


def create(options):
    deadline = time.monotonic() + 60
    while True:
        admin = AdminClient(settings(options))
        try:
            admin.create_topics([NewTopic(options.topic, options.partitions, 1)])[options.topic].result(20)
            return
        except KafkaException as error:
            if "ALREADY_EXISTS" in str(error):
                return
            if time.monotonic() > deadline:
                raise


def write(options):
    producer = Producer(settings(options, **{"enable.idempotence": True, "acks": "all", "linger.ms": 5}))

    def report(number):
        def on_delivery(error, message):
            if error is None:
                say(f"a {message.partition()} {message.offset()} {number}")
            else:
                say(f"f {message.partition()} -1 {number} {error}")
        return on_delivery

    number, due = 0, time.monotonic()
    while not os.path.exists(options.stop):
        if len(producer) < WAITING_MAX:
            value = b"%d %s" % (number, b"x" * (number % 97 * 10))
            producer.produce(options.topic, value, partition=number % options.partitions, on_delivery=report(number))
            number += 1
        due = max(due + options.pace_ms / 1000, time.monotonic() - 0.1)
        producer.poll(max(0, due - time.monotonic()))
    say(f"e {producer.flush(120)} records stay in the queue")


def number_of(message):
    return int(message.value().split(b" ", 1)[0])


def follow(options, ended):
    consumer = Consumer(settings(options, **{
        "group.id": options.topic + ".group", "auto.offset.reset": "earliest", "enable.auto.commit": False,
        "session.timeout.ms": 10000, "heartbeat.interval.ms": 1000,
    }))
    consumer.subscribe([options.topic])
    committed = time.monotonic()
    while not ended.is_set():
        for message in consumer.consume(500, 0.2):
            if message.error() is None:
                say(f"r {message.partition()} {message.offset()} {number_of(message)}")
        if time.monotonic() - committed > 1:
            committed = time.monotonic()
            try:
                consumer.commit(asynchronous=True)
            except KafkaException:
                pass  # nothing to commit yet
    consumer.close()


def read_all(options):
    consumer = Consumer(settings(options, **{"group.id": options.topic + ".end", "enable.auto.commit": False}))
    ends = {}
    for partition in range(options.partitions):
        ends[partition] = consumer.get_watermark_offsets(TopicPartition(options.topic, partition), timeout=30)[1]
    consumer.assign([TopicPartition(options.topic, partition, 0) for partition in ends])
    at, deadline = dict.fromkeys(ends, 0), time.monotonic() + 900
    while any(at[p] < ends[p] for p in ends) and time.monotonic() < deadline:
        for message in consumer.consume(1000, 0.5):
            if message.error() is None:
                say(f"v {message.partition()} {message.offset()} {number_of(message)}")
                at[message.partition()] = message.offset() + 1
    consumer.close()
    say("done" if all(at[p] >= ends[p] for p in ends) else f"e read up to {at} of {ends}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--partitions", type=int, required=True)
    parser.add_argument("--pace-ms", type=float, required=True)
    parser.add_argument("--stop", required=True)
    parser.add_argument("--settings", choices=["quick", "plain"], default="quick")
    options = parser.parse_args()
    create(options)
    ended = threading.Event()
    reader = threading.Thread(target=follow, args=(options, ended))
    reader.start()
    write(options)
    time.sleep(3)
    ended.set()
    reader.join()
    read_all(options)


main()
