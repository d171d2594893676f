"""confluent-kafka for Python (librdkafka): see README.md."""

import os
import re
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding, AclBindingFilter, AclOperation, AclPermissionType, AdminClient, AlterConfigOpType, ConfigEntry,
    ConfigResource, NewPartitions, NewTopic, OffsetSpec, ResourcePatternType, ResourceType, ScramCredentialInfo,
    ScramMechanism, UserScramCredentialDeletion, UserScramCredentialUpsertion,
)

from kafka.admin import ConfigResource as KafkaConfigResource, ConfigResourceType as KafkaConfigResourceType, KafkaAdminClient

from ledger import Ledger, arguments, header, key, need, value


def write(options, ledger):
    producer = Producer({
        "bootstrap.servers": options.bootstrap, "enable.idempotence": True, "acks": "all", "compression.type": "zstd",
        "linger.ms": 5, "delivery.timeout.ms": 120000,
    })

    def report(i):
        def on_delivery(error, message):
            need(error is None, f"record {i}: {error}")
            ledger.acknowledge(i, message.partition(), message.offset())
        return on_delivery

    for i in range(options.records):
        while True:
            try:
                producer.produce(options.topic, value(i), key(i), ledger.partition(i), report(i), headers=header(i))
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
        if i % 500 == 499:
            producer.flush(60)
    need(producer.flush(120) == 0, "records stayed in the queue")
    ledger.check_acknowledged()


def member(options, group, by_pattern=False):
    classic = {"session.timeout.ms": 10000, "heartbeat.interval.ms": 1000, "partition.assignment.strategy": "range"}
    chosen = classic if options.protocol == "classic" else {"group.protocol": "consumer"}
    consumer = Consumer({
        "bootstrap.servers": options.bootstrap, "group.id": group, "auto.offset.reset": "earliest",
        "enable.auto.commit": False, **chosen,
    })
    # In the consumer protocol it is the broker that finds the topics of a pattern.
    pattern = "^" + re.escape(options.topic) + "$"
    consumer.subscribe([pattern if by_pattern and options.protocol == "consumer" else options.topic])
    return consumer


def take(consumer, ledger):
    messages = consumer.consume(500, 0.2)
    for message in messages:
        if message.error():
            need(message.error().retriable() or not message.error().fatal(), str(message.error()))
            continue
        ledger.deliver(message.partition(), message.offset(), message.key(), message.value(), message.headers())
    if messages:
        try:
            consumer.commit(asynchronous=False)
        except Exception:  # a rebalance or a broker that is away: what was not committed is delivered again
            pass


def read(options, ledger, group):
    members, count = [member(options, group), member(options, group)], 2
    deadline = time.monotonic() + 300 + options.records / 100
    while not ledger.complete():
        need(time.monotonic() < deadline, f"only {len(ledger.delivered)} records came back")
        for consumer in members:
            take(consumer, ledger)
        if count == 2 and len(ledger.delivered) * 4 >= options.records:
            members.append(member(options, group, by_pattern=True))
            count = 3
        if len(ledger.delivered) * 2 >= options.records:
            ledger.kill_once("read")
            if count == 3 and len(members) == 3:
                members.pop(0).close()
    return members, count


def committed(options, ledger, members, group):
    parts = [TopicPartition(options.topic, p) for p in range(options.partitions)]
    deadline = time.monotonic() + 60
    while True:
        found = {part.partition: part.offset for part in members[0].committed(parts, timeout=20)}
        if all(found[p] == ledger.length(p) for p in found) or time.monotonic() > deadline:
            return found
        for consumer in members:
            take(consumer, ledger)


def one(futures):
    """What the one thing that was asked for came to."""
    (future,) = futures.values()
    return future.result(30)


def administer(options, admin, group):
    topic = options.topic + ".admin"
    one(admin.create_topics([NewTopic(topic, 1, 1)]))
    one(admin.create_partitions([NewPartitions(topic, 3)]))

    def given(name, wanted):
        found = one(admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]))[name].value
        need(found == wanted, f"{name} is {found}, not {wanted}")

    change = ConfigEntry("retention.ms", "3600000", incremental_operation=AlterConfigOpType.SET)
    one(admin.incremental_alter_configs([ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[change])]))
    given("retention.ms", "3600000")
    one(admin.alter_configs([ConfigResource(ResourceType.TOPIC, topic, set_config={"max.message.bytes": "70000"})]))
    given("max.message.bytes", "70000")
    given("retention.ms", "604800000")
    producer = Producer({"bootstrap.servers": options.bootstrap})
    for i in range(10):
        producer.produce(topic, value(i), key(i), 0)
    need(producer.flush(60) == 0, "records stayed in the queue")
    place = TopicPartition(topic, 0, 4)
    need(one(admin.delete_records([place])).low_watermark == 4, "the topic begins elsewhere")
    place = TopicPartition(topic, 0)
    need(one(admin.list_offsets({place: OffsetSpec.earliest()})).offset == 4, "its first offset is another")
    need(one(admin.list_offsets({place: OffsetSpec.latest()})).offset == 10, "its last offset is another")
    need(one(admin.list_offsets({place: OffsetSpec.max_timestamp()})).offset >= 4, "the offset of its greatest timestamp is gone")
    node = str(next(iter(admin.list_topics(timeout=30).brokers)))
    broker = one(admin.describe_configs([ConfigResource(ResourceType.BROKER, node)]))
    need(broker["node.id"].is_read_only and not broker["message.max.bytes"].is_read_only, "the broker's configs are not told")
    metadata = admin.list_topics(topic, timeout=30)
    need(len(metadata.topics[topic].partitions) == 3, "it has not three partitions")
    need(one(admin.describe_consumer_groups([group])).group_id == group, "the group is not described")
    listed = admin.list_consumer_groups().result(30).valid
    need(any(found.group_id == group for found in listed), "the group is not listed")
    one(admin.delete_consumer_groups([group]))
    need(admin.describe_cluster().result(30).nodes, "no broker is described")
    one(admin.delete_topics([topic]))


def secure(options):
    secret = os.environ.get("KAFKA_OPS_SECRET")
    if not secret:
        return
    topic, user = options.topic + ".rules", options.topic + ".ada"

    def client(mechanism, name, password):
        return {"bootstrap.servers": options.bootstrap, "security.protocol": "sasl_plaintext",
                "sasl.mechanism": mechanism, "sasl.username": name, "sasl.password": password}

    def sent(mechanism):
        """The code of what a record came to that the user writes after such a login."""
        told, producer = [], Producer(client(mechanism, user, "pencil"))
        try:
            producer.produce(topic, value(0), key(0), 0, lambda error, _: told.append(error and error.code()))
        except KafkaException as error:  # the topic may not even be seen
            return error.args[0].code()
        need(producer.flush(60) == 0, "a record stayed in the queue")
        return told[0]

    ops = AdminClient(client("PLAIN", "ops", secret))
    one(ops.create_topics([NewTopic(topic, 1, 1)]))
    mechanisms = ((ScramMechanism.SCRAM_SHA_256, "SCRAM-SHA-256"), (ScramMechanism.SCRAM_SHA_512, "SCRAM-SHA-512"))
    for mechanism, name in mechanisms:
        info = ScramCredentialInfo(mechanism, 8192)
        one(ops.alter_user_scram_credentials([UserScramCredentialUpsertion(user, info, b"pencil")]))
        need(sent(name) is None, f"nothing is written after a login by {name}")
    known = one(ops.describe_user_scram_credentials([user])).scram_credential_infos
    need(sorted(info.iterations for info in known) == [8192, 8192], f"{user} has {known}")
    rule = AclBinding(ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, "User:" + user, "*",
                      AclOperation.WRITE, AclPermissionType.DENY)
    one(ops.create_acls([rule]))
    all_of_it = AclBindingFilter(ResourceType.TOPIC, topic, ResourcePatternType.ANY, None, None, AclOperation.ANY,
                                 AclPermissionType.ANY)
    need(ops.describe_acls(all_of_it).result(30) == [rule], "the rule is not described")
    need(sent("SCRAM-SHA-512") == KafkaError.TOPIC_AUTHORIZATION_FAILED, "what is denied was written")
    need(one(ops.delete_acls([all_of_it])) == [rule], "another rule was deleted")
    need(sent("SCRAM-SHA-512") is None, "what is denied no longer was refused")
    one(ops.alter_user_scram_credentials([UserScramCredentialDeletion(user, one_of) for one_of, _ in mechanisms]))
    one(ops.delete_topics([topic]))


def told(options, ours):
    """librdkafka follows subscriptions to metrics by itself, and cannot make them: kafka-python does that."""
    topic = options.topic + ".told"
    one(ours.create_topics([NewTopic(topic, 1, 1)]))
    resource = KafkaConfigResource(KafkaConfigResourceType.CLIENT_METRICS, topic, {
        "metrics": "*", "interval.ms": "300", "match": "client_software_name=.*(rdkafka|confluent).*"})
    admin = KafkaAdminClient(bootstrap_servers=options.bootstrap)
    admin.alter_configs([resource], raise_on_unknown=False)
    producer = Producer({"bootstrap.servers": options.bootstrap, "client.id": options.topic})
    until = time.monotonic() + 3
    while time.monotonic() < until:
        producer.produce(topic, value(0), key(0), 0)
        need(producer.flush(30) == 0, "a record stayed in the queue")
        time.sleep(0.1)
    gone = {name: ("DELETE", None) for name in ("metrics", "interval.ms", "match")}
    admin.alter_configs([KafkaConfigResource(resource.resource_type, resource.name, gone)], raise_on_unknown=False)
    admin.close()
    one(ours.delete_topics([topic]))


def transactional(options):
    producer = Producer({
        "bootstrap.servers": options.bootstrap, "transactional.id": options.topic + ".tx", "transaction.timeout.ms": 60000,
        "linger.ms": 5,
    })
    producer.init_transactions(60)
    return producer


def reader(options, topic, isolation):
    return Consumer({
        "bootstrap.servers": options.bootstrap, "group.id": topic + ".transform", "auto.offset.reset": "earliest",
        "enable.auto.commit": False, "isolation.level": isolation, "enable.partition.eof": True,
    })


def carry(options, producer, source, sink):
    """Begins a transaction that carries five records on; says how many there were."""
    consumer, taken = reader(options, source, "read_committed"), []
    place = TopicPartition(source, 0)
    begin = max(0, consumer.committed([place], timeout=30)[0].offset)
    consumer.assign([TopicPartition(source, 0, begin)])
    producer.begin_transaction()
    ended = False
    while len(taken) < 5 and not ended:
        message = consumer.poll(30)
        need(message is not None, f"{source} cannot be read")
        ended = message.error() is not None
        if not ended:
            taken.append(message.offset())
            producer.produce(sink, message.value(), message.key(), message.offset() % 2)
    if taken:
        place = TopicPartition(source, 0, taken[-1] + 1)
        producer.send_offsets_to_transaction([place], consumer.consumer_group_metadata(), 60)
    producer.flush(60)
    consumer.close()
    return len(taken)


def all_of(options, topic, isolation):
    consumer, found, ended = reader(options, topic, isolation), [], set()
    consumer.assign([TopicPartition(topic, p, 0) for p in range(2)])
    while len(ended) < 2:
        message = consumer.poll(30)
        need(message is not None, f"{topic} cannot be read")
        if message.error() is not None:
            ended.add(message.partition())
        else:
            found.append(message.key())
    consumer.close()
    return found


def transact(options, admin):
    source, sink = options.topic + ".in", options.topic + ".out"
    for future in admin.create_topics([NewTopic(source, 1, 1), NewTopic(sink, 2, 1)]).values():
        future.result(30)
    plain = Producer({"bootstrap.servers": options.bootstrap})
    for i in range(30):
        plain.produce(source, value(i), key(i), 0)
    need(plain.flush(60) == 0, "records stayed in the queue")
    producer, aborted, turn = transactional(options), 0, 0
    while True:
        count = carry(options, producer, source, sink)
        if count == 0:
            break
        if turn % 3 == 1:
            producer.abort_transaction(60)
            aborted += 1
        else:
            producer.commit_transaction(60)
        turn += 1
    need(aborted > 0, "nothing was aborted")
    producer.produce(sink, b"zombie", b"zombie", 0)
    producer.flush(60)
    transactional(options)
    try:
        producer.commit_transaction(60)
        need(False, "a producer whose id was taken committed")
    except KafkaException as error:
        need(error.args[0].fatal(), f"a producer whose id was taken may go on: {error}")
    found = all_of(options, sink, "read_committed")
    need(sorted(found) == sorted(key(i) for i in range(30)), f"{len(found)} records were carried on")
    need(len(all_of(options, sink, "read_uncommitted")) == 30 + 5 * aborted + 1, "what was aborted is gone")
    for future in admin.delete_topics([source, sink]).values():
        future.result(30)


def main():
    options = arguments()
    ledger = Ledger(options.records, options.partitions)
    admin = AdminClient({"bootstrap.servers": options.bootstrap})
    for future in admin.create_topics([NewTopic(options.topic, options.partitions, 1)]).values():
        future.result(30)
    write(options, ledger)
    group = options.topic + ".group"
    members, count = read(options, ledger, group)
    done = committed(options, ledger, members, group)
    ends = {p: members[0].get_watermark_offsets(TopicPartition(options.topic, p), timeout=20)[1] for p in range(options.partitions)}
    ledger.check_ends(ends, done)
    for consumer in members:
        consumer.close()
    administer(options, admin, group)
    secure(options)
    told(options, admin)
    transact(options, admin)
    ledger.say_ok(count)


main()
