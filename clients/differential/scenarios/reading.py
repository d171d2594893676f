"""Fetch, ListOffsets and OffsetForLeaderEpoch."""

import uuid

from records import batch, record

NOBODY = uuid.UUID("11111111-2222-3333-4444-555555555555")


def _fetch(peer, topic, note="", version=None, partition=0, offset=0, limit=1 << 20, whole=1 << 20, session=0, epoch=-1,
          wait=0, least=0, isolation=0, current=-1, start=-1, **more):
    version = version or 12
    current += peer.epoch if current >= 0 else 0
    what = {"partition": partition, "fetchOffset": offset, "partitionMaxBytes": limit, "currentLeaderEpoch": current}
    what["logStartOffset"] = start
    named = {"topic": topic} if version < 13 else {"topicId": topic}
    return peer.ask(
        "Fetch", version, note, maxWaitMs=wait, minBytes=least, maxBytes=whole, isolationLevel=isolation, sessionId=session,
        sessionEpoch=epoch, topics=[{**named, "partitions": [what]}], **more,
    )


def fetch_what_is_there(peer):
    topic = peer.filled(3)
    for version in range(4, 13):
        _fetch(peer, topic, version=version)
    for version in range(13, peer.both["Fetch"][1] + 1):
        _fetch(peer, peer.id_of(topic), version=version)


def fetch_unknown(peer):
    topic = peer.filled(1)
    _fetch(peer, peer.name(), "no such topic")
    _fetch(peer, topic, "no such partition", partition=7)
    _fetch(peer, topic, "partition -1", partition=-1)
    _fetch(peer, "", "empty name")
    _fetch(peer, "no/such", "invalid name")
    for version in (13, 16):
        _fetch(peer, NOBODY, "no such id", version)
        _fetch(peer, uuid.UUID(int=0), "no id", version)
        _fetch(peer, peer.id_of(topic), "no such partition", version, partition=7)


def fetch_offsets(peer):
    topic = peer.filled(3)
    for offset in (0, 2, 3, 4, -1, -2, 1 << 40, -(1 << 40)):
        _fetch(peer, topic, f"offset {offset}", offset=offset)


def fetch_below_the_start(peer):
    topic = peer.filled(5)
    peer.quietly("DeleteRecords", timeoutMs=5000,
                 topics=[{"name": topic, "partitions": [{"partitionIndex": 0, "offset": 3}]}])
    for offset in (0, 2, 3, 5):
        _fetch(peer, topic, f"offset {offset}", offset=offset)


def fetch_limits(peer):
    topic = peer.filled(4)
    for limit in (0, 1, 69, 100, 140, -1):
        _fetch(peer, topic, f"partition at most {limit}", limit=limit)
        _fetch(peer, topic, f"all at most {limit}", whole=limit)
    _fetch(peer, topic, "both 0", limit=0, whole=0)
    _fetch(peer, topic, "in the middle of nothing", limit=0, offset=4)


def fetch_inside_a_batch(peer):
    topic = peer.topic()
    peer.produce(topic, batch([b"a", b"b", b"c", b"d"]))
    peer.produce(topic, batch([b"e", b"f"]))
    for offset in range(7):
        _fetch(peer, topic, f"offset {offset}", offset=offset)
        _fetch(peer, topic, f"offset {offset}, one byte", offset=offset, limit=1)


def fetch_two_partitions_with_little_room(peer):
    topic = peer.topic(2)
    for partition in (0, 1):
        for _ in range(2):
            peer.produce(topic, batch(), partition=partition)
    for whole, limit in ((1, 1), (100, 100), (140, 1000), (200, 70), (1000, 70)):
        parts = [{"partition": number, "fetchOffset": 0, "partitionMaxBytes": limit} for number in (0, 1)]
        peer.ask("Fetch", 11, f"{whole} and {limit}", maxWaitMs=0, minBytes=0, maxBytes=whole,
                 topics=[{"topic": topic, "partitions": parts}])


def fetch_twice_in_one_request(peer):
    topic = peer.filled(2)
    twice = {"partition": 0, "fetchOffset": 0, "partitionMaxBytes": 1000}
    for version in (11, 12):
        peer.ask("Fetch", version, "a partition twice", maxWaitMs=0, minBytes=0, maxBytes=1000, sessionEpoch=-1,
                 topics=[{"topic": topic, "partitions": [twice, {**twice, "fetchOffset": 1}]}])
        peer.ask("Fetch", version, "a topic twice", maxWaitMs=0, minBytes=0, maxBytes=1000, sessionEpoch=-1,
                 topics=[{"topic": topic, "partitions": [twice]}, {"topic": topic, "partitions": [twice]}])


def fetch_nothing(peer):
    for version in (4, 7, 12, 16):
        peer.ask("Fetch", version, "no topics", maxWaitMs=0, minBytes=1, maxBytes=1000, sessionEpoch=-1, topics=[])
    topic = peer.filled(1)
    peer.ask("Fetch", 12, "no partitions", maxWaitMs=0, minBytes=0, maxBytes=1000, sessionEpoch=-1,
             topics=[{"topic": topic, "partitions": []}])


def fetch_waits(peer):
    topic = peer.filled(1)
    _fetch(peer, topic, "negative wait", wait=-5, least=1, offset=1)
    _fetch(peer, topic, "negative bytes", wait=100, least=-1, offset=1)
    _fetch(peer, topic, "a wait that is over", wait=100, least=1, offset=1)
    _fetch(peer, topic, "an error does not wait", wait=14000, least=1, offset=99)


def fetch_leader_epochs(peer):
    topic = peer.filled(1)
    for current in (-1, 0, 1, 5, -2):
        _fetch(peer, topic, f"epoch {current}", current=current)
    peer.ask("Fetch", 12, "last fetched epoch", maxWaitMs=0, minBytes=0, maxBytes=1000, sessionEpoch=-1, topics=[{
        "topic": topic,
        "partitions": [{"partition": 0, "fetchOffset": 1, "partitionMaxBytes": 1000, "lastFetchedEpoch": peer.epoch}],
    }])
    peer.ask("Fetch", 12, "last fetched epoch from the future", maxWaitMs=0, minBytes=0, maxBytes=1000, sessionEpoch=-1, topics=[{
        "topic": topic,
        "partitions": [{"partition": 0, "fetchOffset": 1, "partitionMaxBytes": 1000, "lastFetchedEpoch": peer.epoch + 9}],
    }])


def fetch_isolation(peer):
    topic = peer.filled(1)
    for level in (0, 1, 2, -1):
        _fetch(peer, topic, f"isolation {level}", isolation=level)


def fetch_as_a_replica(peer):
    topic = peer.filled(1)
    for replica in (-1, -2, 1, 77):
        peer.ask("Fetch", 11, f"replica {replica}", replicaId=replica, maxWaitMs=0, minBytes=0, maxBytes=1000, topics=[
            {"topic": topic, "partitions": [{"partition": 0, "fetchOffset": 0, "partitionMaxBytes": 1000}]}])


def fetch_sessions(peer):
    topic = peer.topic(2)
    peer.produce(topic, batch())

    def asked(note, session, epoch, parts, forgotten=(), version=11):
        answer = peer.quietly(
            "Fetch", version, maxWaitMs=0, minBytes=0, maxBytes=100000, sessionId=session, sessionEpoch=epoch,
            topics=[{"topic": topic, "partitions": [
                {"partition": number, "fetchOffset": offset, "partitionMaxBytes": 1000} for number, offset in parts]}] if parts else [],
            forgottenTopicsData=[{"topic": topic, "partitions": list(forgotten)}] if forgotten else [],
        )
        if isinstance(answer, dict):
            given = answer["sessionId"]
            peer.note(note, {**answer, "sessionId": "none" if given == 0 else "the same" if given == session else "another"})
            return given
        peer.note(note, answer)
        return 0

    session = asked("a full one", 0, 0, [(0, 0), (1, 0)])
    asked("nothing new at the same place", session, 1, [])
    asked("moved", session, 2, [(0, 1)])
    asked("nothing", session, 3, [])
    peer.produce(topic, batch(), partition=1)
    asked("one has something", session, 4, [])
    asked("wrong epoch", session, 9, [])
    asked("epoch 0 with a session", session, 0, [(0, 0)])
    asked("a session that is not there", 12345, 1, [])
    session = asked("another", 0, 0, [(0, 0)])
    asked("unknown partition in it", session, 1, [(9, 0)])
    asked("still unknown", session, 2, [])
    asked("forgotten", session, 3, [], [9])
    asked("forgotten twice", session, 4, [], [9, 9])
    asked("forget the last", session, 5, [], [0])
    asked("empty session", session, 6, [])
    asked("epoch -1 ends it", session, -1, [(0, 0)])
    asked("ended", session, 7, [])
    asked("negative epoch", 0, -2, [(0, 0)])
    asked("session with epoch of none", 0, 5, [(0, 0)])
    asked("a full one without partitions", 0, 0, [])


def _of(peer, epoch):
    return epoch + peer.epoch if epoch >= 0 else epoch


def list_offsets_specials(peer):
    topic = peer.filled(3)
    for time in (-1, -2, -3, -4, -5, -6, -7, 0, 1_699_999_999_999, 1_700_000_000_000, 1_700_000_000_001, 1 << 62, -100):
        peer.each("ListOffsets", f"time {time}", replicaId=-1, topics=[
            {"name": topic, "partitions": [{"partitionIndex": 0, "timestamp": time}]}])


def list_offsets_of_nothing(peer):
    topic = peer.topic()
    for time in (-1, -2, -3, -4, -5, 0):
        peer.ask("ListOffsets", 9, f"time {time}", replicaId=-1, topics=[
            {"name": topic, "partitions": [{"partitionIndex": 0, "timestamp": time}]}])


def list_offsets_wrong(peer):
    topic = peer.filled(2)
    one = {"partitionIndex": 0, "timestamp": -1}
    for note, topics in (
        ("no topics", []),
        ("no partitions", [{"name": topic, "partitions": []}]),
        ("unknown topic", [{"name": peer.name(), "partitions": [one]}]),
        ("unknown partition", [{"name": topic, "partitions": [{"partitionIndex": 5, "timestamp": -1}]}]),
        ("partition -1", [{"name": topic, "partitions": [{"partitionIndex": -1, "timestamp": -1}]}]),
        ("twice", [{"name": topic, "partitions": [one, one]}]),
        ("twice, other times", [{"name": topic, "partitions": [one, {"partitionIndex": 0, "timestamp": -2}]}]),
        ("a topic twice", [{"name": topic, "partitions": [one]}, {"name": topic, "partitions": [one]}]),
        ("empty name", [{"name": "", "partitions": [one]}]),
        ("invalid name", [{"name": "a/b", "partitions": [one]}]),
    ):
        peer.each("ListOffsets", note, replicaId=-1, topics=topics)
    for epoch in (-1, 0, 1, 7, -2):
        peer.each("ListOffsets", f"epoch {epoch}", 4, replicaId=-1, topics=[
            {"name": topic, "partitions": [{**one, "currentLeaderEpoch": _of(peer, epoch)}]}])
    for replica in (-2, -3, 1, 55):
        peer.ask("ListOffsets", 7, f"replica {replica}", replicaId=replica, topics=[{"name": topic, "partitions": [one]}])
    for level in (0, 1, 2, -1):
        peer.ask("ListOffsets", 7, f"isolation {level}", replicaId=-1, isolationLevel=level,
                 topics=[{"name": topic, "partitions": [one]}])


def list_offsets_by_time_out_of_order(peer):
    topic = peer.topic()
    for time in (1000, 3000, 2000, 5000, 4000):
        peer.produce(topic, batch([b"x"], first_time=time))
    peer.produce(topic, batch(records=[
        record(0, b"a", delta=0), record(1, b"b", delta=5000),
        record(2, b"c", delta=1000)], first_time=3500, max_time=8500))
    for time in (-3, 0, 999, 1000, 1001, 2000, 3000, 3001, 3500, 4500, 4501, 5000, 5001, 8499, 8500, 8501):
        peer.ask("ListOffsets", 7, f"time {time}", replicaId=-1, topics=[
            {"name": topic, "partitions": [{"partitionIndex": 0, "timestamp": time}]}])


def list_offsets_after_delete_records(peer):
    topic = peer.topic()
    for time in (1000, 2000, 3000, 4000):
        peer.produce(topic, batch([b"x"], first_time=time))
    peer.quietly("DeleteRecords", timeoutMs=5000,
                 topics=[{"name": topic, "partitions": [{"partitionIndex": 0, "offset": 2}]}])
    for time in (-1, -2, -3, -4, 0, 1500, 2000, 3500, 4000):
        peer.ask("ListOffsets", 8, f"time {time}", replicaId=-1, topics=[
            {"name": topic, "partitions": [{"partitionIndex": 0, "timestamp": time}]}])


def epochs(peer):
    topic = peer.filled(3)
    for epoch in (-1, 0, 1, 5, -2):
        for current in (-1, 0, 4, -2):
            peer.ask("OffsetForLeaderEpoch", None, f"{epoch} of {current}", replicaId=-2, topics=[
                {"topic": topic, "partitions": [{"partition": 0, "currentLeaderEpoch": _of(peer, current), "leaderEpoch": _of(peer, epoch)}]}])
    one = {"partition": 0, "currentLeaderEpoch": -1, "leaderEpoch": peer.epoch}
    for note, topics in (
        ("none", []),
        ("unknown topic", [{"topic": peer.name(), "partitions": [one]}]),
        ("unknown partition", [{"topic": topic, "partitions": [{**one, "partition": 8}]}]),
        ("twice", [{"topic": topic, "partitions": [one, one]}]),
        ("no partitions", [{"topic": topic, "partitions": []}]),
        ("invalid name", [{"topic": "a/b", "partitions": [one]}]),
    ):
        peer.each("OffsetForLeaderEpoch", note, 2, topics=topics)
