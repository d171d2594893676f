"""kafka-python: see README.md. One thread a member, as the library wants it."""

import threading
import time

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, NewPartitions, NewTopic
from kafka.errors import KafkaError

from ledger import Ledger, arguments, header, key, need, value


def write(options, ledger):
    producer = KafkaProducer(
        bootstrap_servers=options.bootstrap, enable_idempotence=True, acks="all", compression_type="gzip",
        linger_ms=5, delivery_timeout_ms=120000, max_block_ms=60000)
    sent = []
    for i in range(options.records):
        sent.append(producer.send(options.topic, value(i), key(i), headers=header(i), partition=ledger.partition(i)))
        if len(sent) == 500 or i + 1 == options.records:
            producer.flush(120)
            for at, future in enumerate(sent, i + 1 - len(sent)):
                done = future.get(60)
                ledger.acknowledge(at, done.partition, done.offset)
            sent = []
    producer.close()
    ledger.check_acknowledged()


class Member(threading.Thread):
    """One consumer of the group, from its first poll to its leaving."""

    def __init__(self, options, ledger, group):
        super().__init__(daemon=True)
        self.ledger = ledger
        self.leave = threading.Event()
        self.failure = None
        self.consumer = KafkaConsumer(
            options.topic, bootstrap_servers=options.bootstrap, group_id=group, auto_offset_reset="earliest",
            enable_auto_commit=False, session_timeout_ms=10000, heartbeat_interval_ms=1000, max_poll_records=300)
        self.start()

    def run(self):
        try:
            while not self.leave.is_set():
                if self.ledger.waits():
                    time.sleep(0.01)
                else:
                    self.take()
            self.consumer.close(autocommit=False)
        except (Exception, SystemExit) as failure:
            self.failure = failure

    def take(self):
        try:
            batches = self.consumer.poll(timeout_ms=200)
        except KafkaError as error:
            need(error.retriable, repr(error))
            return
        for place, messages in batches.items():
            for m in messages:
                self.ledger.deliver(place.partition, m.offset, m.key, m.value, m.headers)
        if batches:
            try:
                self.consumer.commit()
            except KafkaError:  # a rebalance or a broker that is away: what was not committed is delivered again
                pass


def read(options, ledger, group):
    members, everyone = [], []

    def join():
        members.append(Member(options, ledger, group))
        everyone.append(members[-1])

    join()
    join()
    deadline = time.monotonic() + 300 + options.records / 100
    while not ledger.complete():
        need(time.monotonic() < deadline, f"only {len(ledger.delivered)} records came back")
        for member in everyone:
            need(member.failure is None, repr(member.failure))
        if len(everyone) == 2 and len(ledger.delivered) * 4 >= options.records:
            join()
        if len(ledger.delivered) * 2 >= options.records:
            ledger.kill_once("read")
            if len(members) == 3:
                members.pop(0).leave.set()
        time.sleep(0.02)
    return members, len(everyone)


def administer(options, group):
    admin = KafkaAdminClient(bootstrap_servers=options.bootstrap)
    topic = options.topic + ".admin"
    admin.create_topics([NewTopic(topic, 1, 1)])
    admin.create_partitions({topic: NewPartitions(3)})
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": "3600000"})])
    producer = KafkaProducer(bootstrap_servers=options.bootstrap)
    for i in range(10):
        producer.send(topic, value(i), key(i), partition=0)
    producer.flush(60)
    producer.close()
    place = TopicPartition(topic, 0)
    admin.delete_records({place: 4})
    reader = KafkaConsumer(bootstrap_servers=options.bootstrap)
    begins, ends = reader.beginning_offsets([place])[place], reader.end_offsets([place])[place]
    need((begins, ends) == (4, 10), f"the topic has offsets {begins} to {ends}")
    need(len(reader.partitions_for_topic(topic)) == 3, "it has not three partitions")
    reader.close()
    told = admin.describe_topic_partitions([topic], response_partition_limit=2)
    need(told, "its partitions are not described")
    need(admin.describe_log_dirs({topic: [0]}), "what it holds is not described")
    listed = admin.list_config_resources([ConfigResourceType.TOPIC])
    need(any(topic in names for names in listed.values()), f"it is not among what has configs: {listed}")
    places = [TopicPartition(options.topic, 0)]
    done = admin.delete_group_offsets(group, places)
    need(not any(error.errno for error in done.values()), f"the group's offset is not deleted: {done}")
    admin.delete_topics([topic])
    admin.close()


def main():
    options = arguments()
    ledger = Ledger(options.records, options.partitions)
    admin = KafkaAdminClient(bootstrap_servers=options.bootstrap)
    admin.create_topics([NewTopic(options.topic, options.partitions, 1)])
    admin.close()
    write(options, ledger)
    group = options.topic + ".group"
    members, count = read(options, ledger, group)
    places = [TopicPartition(options.topic, p) for p in range(options.partitions)]
    watcher, done = None, {}
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            watcher = watcher or KafkaConsumer(bootstrap_servers=options.bootstrap, group_id=group, enable_auto_commit=False)
            done = {place.partition: watcher.committed(place) for place in places}
        except KafkaError:  # the broker may be away still
            pass
        if done and all(done[p] == ledger.length(p) for p in done):
            break
        time.sleep(0.2)
    need(done, "committed offsets cannot be read")
    ends = {place.partition: end for place, end in watcher.end_offsets(places).items()}
    watcher.close()
    for member in members:
        member.leave.set()
        member.join(30)
    ledger.check_ends(ends, done)
    administer(options, group)
    ledger.say_ok(count)


main()
