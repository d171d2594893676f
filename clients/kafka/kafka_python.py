"""kafka-python: see README.md. One thread a member, as the library wants it."""

import os
import threading
import time

from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.admin import (
    ACL, ACLFilter, ACLOperation, ACLPermissionType, ConfigResource, ConfigResourceType, KafkaAdminClient, NewPartitions,
    NewTopic, ResourcePattern, ResourceType, ScramMechanism, UserScramCredentialDeletion, UserScramCredentialUpsertion)
from kafka.errors import KafkaError, TopicAuthorizationFailedError

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


def secure(options):
    secret = os.environ.get("KAFKA_OPS_SECRET")
    if not secret:
        return
    topic, user = options.topic + ".rules", options.topic + ".ada"

    def login(mechanism, name, password):
        return {"bootstrap_servers": options.bootstrap, "security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": mechanism,
                "sasl_plain_username": name, "sasl_plain_password": password}

    def sent(mechanism):
        """Whether the user may write a record after such a login."""
        producer = KafkaProducer(**login(mechanism, user, "pencil"), max_block_ms=30000)
        try:
            producer.send(topic, value(0), key(0), partition=0).get(60)
            return True
        except TopicAuthorizationFailedError:
            return False
        finally:
            producer.close(timeout=5)

    ops = KafkaAdminClient(**login("PLAIN", "ops", secret))
    ops.create_topics([NewTopic(topic, 1, 1)])
    mechanisms = ((ScramMechanism.SCRAM_SHA_256, "SCRAM-SHA-256"), (ScramMechanism.SCRAM_SHA_512, "SCRAM-SHA-512"))
    for mechanism, name in mechanisms:
        done = ops.alter_user_scram_credentials([UserScramCredentialUpsertion(user, mechanism, "pencil", 8192)])
        need(done == {user: None}, f"the user is not made: {done}")
        need(sent(name), f"nothing is written after a login by {name}")
    known = ops.describe_user_scram_credentials([user])[user]["credential_infos"]
    need(sorted(one["iterations"] for one in known) == [8192, 8192], f"{user} has {known}")
    pattern = ResourcePattern(ResourceType.TOPIC, topic)
    rule = ACL("User:" + user, "*", ACLOperation.WRITE, ACLPermissionType.DENY, pattern)
    all_of_it = ACLFilter(None, None, ACLOperation.ANY, ACLPermissionType.ANY, pattern)
    need(ops.create_acls([rule])["succeeded"] == [rule], "the rule is not made")
    need(ops.describe_acls(all_of_it)[0] == [rule], "the rule is not described")
    need(not sent("SCRAM-SHA-512"), "what is denied was written")
    deleted = ops.delete_acls([all_of_it])[0][1]
    need(deleted == [rule], f"another rule was deleted: {deleted}")
    need(sent("SCRAM-SHA-512"), "what is denied no longer was refused")
    ops.alter_user_scram_credentials([UserScramCredentialDeletion(user, mechanism) for mechanism, _ in mechanisms])
    ops.delete_topics([topic])
    ops.close()


def transactional(options):
    producer = KafkaProducer(
        bootstrap_servers=options.bootstrap, transactional_id=options.topic + ".tx", transaction_timeout_ms=60000,
        linger_ms=5, max_block_ms=60000)
    producer.init_transactions()
    return producer


def reader(options, topic, isolation):
    return KafkaConsumer(
        bootstrap_servers=options.bootstrap, group_id=topic + ".transform", auto_offset_reset="earliest",
        enable_auto_commit=False, isolation_level=isolation, max_poll_records=5)


def carry(options, producer, source, sink):
    """Begins a transaction that carries up to five records on; says how many there were."""
    consumer, place, taken = reader(options, source, "read_committed"), TopicPartition(source, 0), 0
    consumer.assign([place])
    end = consumer.end_offsets([place])[place]
    producer.begin_transaction()
    while taken < 5 and consumer.position(place) < end:
        for m in consumer.poll(timeout_ms=200).get(place, []):
            producer.send(sink, m.value, m.key, partition=m.offset % 2)
            taken += 1
    if taken:
        offsets = {place: OffsetAndMetadata(consumer.position(place), "", -1)}
        producer.send_offsets_to_transaction(offsets, source + ".transform")
    consumer.close(autocommit=False)
    return taken


def keys(options, topic, isolation):
    consumer, found = reader(options, topic, isolation), []
    places = [TopicPartition(topic, p) for p in range(2)]
    consumer.assign(places)
    consumer.seek_to_beginning(*places)
    ends = consumer.end_offsets(places)
    while any(consumer.position(place) < ends[place] for place in places):
        for batch in consumer.poll(timeout_ms=200).values():
            found.extend(m.key for m in batch)
    consumer.close(autocommit=False)
    return found


def transact(options):
    admin = KafkaAdminClient(bootstrap_servers=options.bootstrap)
    source, sink = options.topic + ".in", options.topic + ".out"
    admin.create_topics([NewTopic(source, 1, 1), NewTopic(sink, 2, 1)])
    plain = KafkaProducer(bootstrap_servers=options.bootstrap)
    for i in range(30):
        plain.send(source, value(i), key(i), partition=0)
    plain.flush(60)
    plain.close()
    producer, aborted, turn = transactional(options), 0, 0
    while True:
        count = carry(options, producer, source, sink)
        if count == 0:
            producer.abort_transaction()
            break
        if turn % 3 == 1:
            producer.flush(60)
            producer.abort_transaction()
            aborted += count
        else:
            producer.commit_transaction()
        turn += 1
    need(aborted > 0, "nothing was aborted")
    producer.begin_transaction()
    producer.send(sink, b"zombie", b"zombie", partition=0)
    producer.flush(60)
    late = transactional(options)
    try:
        producer.commit_transaction()
        need(False, "a producer whose id was taken committed")
    except KafkaError:
        pass
    found = keys(options, sink, "read_committed")
    need(sorted(found) == sorted(key(i) for i in range(30)), f"{len(found)} records were carried on")
    need(len(keys(options, sink, "read_uncommitted")) == 30 + aborted + 1, "what was aborted is gone")
    late.close()
    producer.close(timeout=5)
    admin.delete_topics([source, sink])
    admin.close()


def subscribe(options):
    """A subscription to metrics of clients, and the pace of a group: kept, told and taken back."""
    admin = KafkaAdminClient(bootstrap_servers=options.bootstrap)
    for kind, name, config, given in (
            (ConfigResourceType.CLIENT_METRICS, options.topic + ".told", "interval.ms", "60000"),
            (ConfigResourceType.GROUP, options.topic + ".group", "consumer.heartbeat.interval.ms", "6000")):
        admin.alter_configs([ConfigResource(kind, name, {config: given})], raise_on_unknown=False)
        listed = admin.list_config_resources([kind])
        need(any(name in names for names in listed.values()), f"{name} is not among what has configs: {listed}")
        admin.alter_configs([ConfigResource(kind, name, {config: ("DELETE", None)})], raise_on_unknown=False)
        listed = admin.list_config_resources([kind])
        need(not any(name in names for names in listed.values()), f"{name} is among what has configs still: {listed}")
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
    subscribe(options)
    secure(options)
    transact(options)
    ledger.say_ok(count)


main()
