"""Produce, with batches that are right, odd and wrong, and InitProducerId without a transactional id."""

import uuid

from records import batch, record


def _send(peer, topic, note, data, version=9, partition=0, acks=-1, transactional=None, wait=5000):
    return peer.ask("Produce", version, note, acks=acks, timeoutMs=wait, transactionalId=transactional, topicData=[
        {"name": topic, "partitionData": [{"index": partition, "records": data}]}])


def versions(peer):
    topic = peer.topic()
    for version in range(3, 13):
        _send(peer, topic, "", batch(), version)
    peer.ask("Produce", 13, acks=-1, timeoutMs=5000, topicData=[
        {"topicId": peer.id_of(topic), "partitionData": [{"index": 0, "records": batch()}]}])
    peer.ask("Produce", 13, "unknown id", acks=-1, timeoutMs=5000, topicData=[
        {"topicId": uuid.UUID("11111111-2222-3333-4444-555555555555"), "partitionData": [{"index": 0, "records": batch()}]}])
    peer.ask("Produce", 13, "no id", acks=-1, timeoutMs=5000, topicData=[
        {"topicId": uuid.UUID(int=0), "partitionData": [{"index": 0, "records": batch()}]}])


def acknowledgements(peer):
    topic = peer.topic()
    for acks in (-1, 1, 2, -2, 100):
        _send(peer, topic, f"acks {acks}", batch(), acks=acks)
    for wait in (0, -1):
        _send(peer, topic, f"wait {wait}", batch(), acks=1, wait=wait)


def unknown(peer):
    topic = peer.topic()
    for note, name, partition in (
        ("partition", topic, 5), ("partition -1", topic, -1),
        ("empty name", "", 0), ("invalid name", "a/b", 0), ("long name", "x" * 250, 0), ("two dots", "..", 0),
    ):
        _send(peer, name, note, batch(), partition=partition)


def empty(peer):
    topic = peer.topic()
    for version in (7, 9):
        peer.ask("Produce", version, "no topics", acks=-1, timeoutMs=5000, topicData=[])
        peer.ask("Produce", version, "no partitions", acks=-1, timeoutMs=5000, topicData=[{"name": topic, "partitionData": []}])
        _send(peer, topic, "empty records", b"", version)


def twice(peer):
    topic = peer.topic()
    part = {"index": 0, "records": batch()}
    peer.ask("Produce", 9, "a partition twice", acks=-1, timeoutMs=5000, topicData=[{"name": topic, "partitionData": [part, part]}])
    peer.ask("Produce", 9, "a topic twice", acks=-1, timeoutMs=5000, topicData=[
        {"name": topic, "partitionData": [part]}, {"name": topic, "partitionData": [part]}])
    peer.ask("ListOffsets", 7, replicaId=-1, topics=[{"name": topic, "partitions": [{"partitionIndex": 0, "timestamp": -1}]}])


def good_and_bad(peer):
    topic = peer.topic(2)
    peer.ask("Produce", 9, "one of two is wrong", acks=-1, timeoutMs=5000, topicData=[{"name": topic, "partitionData": [
        {"index": 0, "records": batch(crc=5)}, {"index": 1, "records": batch()}, {"index": 2, "records": batch()}]}])


def broken(peer):
    good = batch()
    for note, data in (
        ("crc", batch(crc=1)),
        ("magic 1", batch(magic=1)),
        ("magic 3", batch(magic=3)),
        ("cut", good[:-3]),
        ("only a head", good[:61]),
        ("ten bytes", good[:10]),
        ("half a head", good[:40]),
        ("bytes behind it", good + b"\0" * 5),
        ("length too small", batch(length=40)),
        ("length too great", batch(length=5000)),
        ("length negative", batch(length=-1)),
        ("two batches", good + good),
        ("count too great", batch(count=2)),
        ("count too small", batch([b"a", b"b"], count=1)),
        ("count negative", batch(count=-1)),
        ("count 0", batch(records=[], last_delta=0, count=0)),
        ("last delta too great", batch(last_delta=5)),
        ("last delta too small", batch([b"a", b"b"], last_delta=0)),
        ("last delta negative", batch(last_delta=-1)),
        ("base offset", batch(base=77)),
        ("base offset negative", batch(base=-5)),
        ("record deltas that jump", batch(records=[record(0, b"a"), record(2, b"b")], last_delta=2)),
        ("record deltas the wrong way", batch(records=[record(1, b"a"), record(0, b"b")])),
        ("record deltas all 0", batch(records=[record(0, b"a"), record(0, b"b")])),
        ("rubbish for records", batch(payload=b"\xff" * 20)),
        ("unknown compression", batch(attributes=7)),
        ("gzip that is none", batch(attributes=1)),
        ("snappy that is none", batch(attributes=2)),
        ("lz4 that is none", batch(attributes=3)),
        ("zstd that is none", batch(attributes=4)),
        ("control batch", batch(attributes=0x20)),
        ("transactional without an id", batch(attributes=0x10)),
        ("unknown attribute bits", batch(attributes=0x1000)),
        ("leader epoch", batch(epoch=5)),
        ("time of the broker", batch(attributes=8)),
        ("no time", batch(first_time=-1)),
        ("negative time", batch(first_time=-7)),
        ("far future", batch(first_time=1 << 60)),
        ("max time below first", batch(max_time=5)),
        ("headers", batch(records=[record(0, b"v", b"k", [(b"a", b"b"), (b"a", None), (b"", b"")])])),
        ("no value", batch([None], key=b"k")),
    ):
        _send(peer, peer.topic(), note, data)


def fetched_again(peer):
    """What the broker made of batches that it took."""
    topic = peer.topic()
    for data in (batch(epoch=5), batch([b"a", b"b", b"c"]), batch(max_time=1_700_000_000_005)):
        peer.produce(topic, data)
    peer.ask("Fetch", 11, maxWaitMs=0, minBytes=0, maxBytes=100000, topics=[
        {"topic": topic, "partitions": [{"partition": 0, "fetchOffset": 0, "partitionMaxBytes": 100000}]}])


def of_append_time(peer):
    topic = peer.topic(message_timestamp_type="LogAppendTime")
    for version in (3, 9):
        _send(peer, topic, "", batch([b"a", b"b"]), version)
    peer.ask("Fetch", 11, maxWaitMs=0, minBytes=0, maxBytes=100000, topics=[
        {"topic": topic, "partitions": [{"partition": 0, "fetchOffset": 0, "partitionMaxBytes": 100000}]}])


def too_large(peer):
    topic = peer.topic(max_message_bytes="200")
    for size in (50, 128, 129, 130, 131, 132, 133, 300):
        _send(peer, topic, f"{size} bytes", batch([b"x" * size]))
    _send(peer, topic, "two of them", batch([b"x" * 120]) + batch([b"x" * 120]))


def times_that_are_refused(peer):
    topic = peer.topic(message_timestamp_before_max_ms="1000", message_timestamp_after_max_ms="1000")
    _send(peer, topic, "old", batch([b"a"]))
    for version in (7, 8):
        _send(peer, topic, "old", batch([b"a", b"b"]), version)
    _send(peer, topic, "future", batch(first_time=1 << 50))
    _send(peer, topic, "none", batch(first_time=-1))


def compacted(peer):
    topic = peer.topic(cleanup_policy="compact")
    _send(peer, topic, "no key", batch())
    _send(peer, topic, "one without a key", batch(records=[record(0, b"v", b"k"), record(1, b"v"), record(2, b"v", b"k")]))
    _send(peer, topic, "a key", batch(key=b"k"))
    _send(peer, topic, "an empty key", batch(key=b""))


def _producer(peer, **more):
    answer = peer.quietly("InitProducerId", 4, transactionTimeoutMs=60000, producerId=-1, producerEpoch=-1, **more)
    return answer["producerId"], answer["producerEpoch"]


def idempotent(peer):
    topic = peer.topic()
    who, epoch = _producer(peer)

    def send(note, values=(b"v",), sequence=0, producer=who, producer_epoch=epoch, **more):
        _send(peer, topic, note, batch(values, producer=producer, producer_epoch=producer_epoch, sequence=sequence, **more))

    send("first", sequence=0)
    send("again", sequence=0)
    send("next", (b"a", b"b"), sequence=1)
    send("a gap", sequence=5)
    send("again, another length", (b"a", b"b", b"c"), sequence=1)
    send("a part of it", sequence=1)
    send("the other part of it", sequence=2)
    for sequence in range(3, 10):
        send("on", sequence=sequence)
    send("long past", sequence=0)
    send("five back", sequence=5)
    send("six back", sequence=4)
    send("epoch too great", sequence=0, producer_epoch=epoch + 1)
    send("epoch of before", sequence=10, producer_epoch=epoch)
    send("new epoch, wrong start", sequence=3, producer_epoch=epoch + 2)
    send("no sequence", sequence=-1)
    send("negative epoch", sequence=0, producer_epoch=-1)
    send("unknown producer", sequence=0, producer=987654321, producer_epoch=0)
    send("unknown producer in the middle", sequence=9, producer=987654322, producer_epoch=0)
    send("no producer but a sequence", sequence=4, producer=-1, producer_epoch=-1)


def two_idempotent_batches(peer):
    topic = peer.topic()
    who, epoch = _producer(peer)
    made = [batch([b"v"], producer=who, producer_epoch=epoch, sequence=number) for number in range(3)]
    _send(peer, topic, "two in one", made[0] + made[1])
    _send(peer, topic, "next", made[2])


def sequence_that_wraps(peer):
    topic = peer.topic()
    who, epoch = _producer(peer)
    top = (1 << 31) - 1
    for note, values, sequence in (
        ("first", [b"a"], top - 1), ("to the top", [b"a"], top), ("round", [b"a"], 0), ("on", [b"b"], 1),
    ):
        _send(peer, topic, note, batch(values, producer=who, producer_epoch=epoch, sequence=sequence))


def producer_ids(peer):
    def asked(note, version, **body):
        answer = peer.quietly("InitProducerId", version, **body)
        if isinstance(answer, dict):
            answer["producerId"] = min(answer["producerId"], 0)
        peer.note(f"InitProducerId {version} {note}", answer)

    for version in range(0, peer.both["InitProducerId"][1] + 1):
        for wait in (0, -1, 60000, 1 << 30):
            asked(f"wait {wait}", version, transactionalId=None, transactionTimeoutMs=wait)
        asked("empty id", version, transactionalId="", transactionTimeoutMs=60000)
        if version >= 3:
            for who, epoch in ((-1, -1), (-2, -2), (5, 0), (5, -1), (-1, 3)):
                asked(f"{who} {epoch}", version, transactionalId=None, transactionTimeoutMs=60000, producerId=who, producerEpoch=epoch)


def producers_of_a_topic(peer):
    topic = peer.topic()
    who, epoch = _producer(peer)
    _send(peer, topic, "", batch([b"v"], producer=who, producer_epoch=epoch, sequence=0))
    for note, topics in (
        ("there", [{"name": topic, "partitionIndexes": [0]}]),
        ("unknown partition", [{"name": topic, "partitionIndexes": [4]}]),
        ("twice", [{"name": topic, "partitionIndexes": [0, 0]}]),
        ("unknown topic", [{"name": peer.name(), "partitionIndexes": [0]}]),
        ("none", []),
        ("no partitions", [{"name": topic, "partitionIndexes": []}]),
        ("invalid name", [{"name": "a/b", "partitionIndexes": [0]}]),
    ):
        peer.ask("DescribeProducers", 0, note, topics=topics)
