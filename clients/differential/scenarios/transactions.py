"""Transactional producers, step by step."""

import time

from records import batch


def _init(peer, who, note="", version=4, wait=60000, producer=-1, epoch=-1, **more):
    given = {"producerId": producer, "producerEpoch": epoch} if version >= 3 else {}
    for _ in range(100):
        answer = peer.quietly("InitProducerId", version, transactionalId=who, transactionTimeoutMs=wait, **given, **more)
        if not isinstance(answer, dict) or answer["errorCode"] not in (14, 15, 51):
            break
        time.sleep(0.05)
    peer.note(f"init {note} {version}", answer)
    return (answer["producerId"], answer["producerEpoch"]) if isinstance(answer, dict) else (-1, -1)


def _again(peer, api, version, note, **body):
    """Asks until nothing of before is under way any more."""
    for _ in range(200):
        answer = peer.quietly(api, version, **body)
        if "51" not in str(answer):
            break
        time.sleep(0.05)
    peer.note(f"{api} {version} {note}", answer)
    return answer


def _add(peer, who, producer, epoch, topics, note="", version=3):
    return _again(peer, "AddPartitionsToTxn", version, note, v3AndBelowTransactionalId=who, v3AndBelowProducerId=producer, v3AndBelowProducerEpoch=epoch,
                  v3AndBelowTopics=[{"name": name, "partitions": list(parts)} for name, parts in topics])


def _end(peer, who, producer, epoch, commit, note="", version=3):
    return _again(peer, "EndTxn", version, note, transactionalId=who, producerId=producer, producerEpoch=epoch, committed=commit)


def _write(peer, who, producer, epoch, topic, note="", sequence=0, attributes=0x10, version=9, partition=0):
    _again(peer, "Produce", version, note, transactionalId=who, acks=-1, timeoutMs=5000, topicData=[{"name": topic, "partitionData": [
        {"index": partition, "records": batch(producer=producer, producer_epoch=epoch, sequence=sequence, attributes=attributes,
                                       # Markers have the time of day: further apart, a segment ends between them.
                                       first_time=int(time.time() * 1000))}]}])


def _offsets(peer, topic, note):
    """Ends for both kinds of readers; a marker may still be under way."""
    def ends():
        return [peer.quietly("ListOffsets", 7, replicaId=-1, isolationLevel=level, topics=[
            {"name": topic, "partitions": [{"partitionIndex": 0, "timestamp": -1}]}])["topics"][0]["partitions"][0]["offset"] for level in (0, 1)]

    held, calm = ends(), 0
    for _ in range(40):
        time.sleep(0.05)
        now = ends()
        calm = calm + 1 if now == held else 0
        held = now
        if calm > 6:
            break
    peer.note(f"ends {note}", held)


def initialised(peer):
    for version in range(0, peer.both["InitProducerId"][1] + 1):
        who = peer.name("t")
        _init(peer, who, "first", version)
        _init(peer, who, "again", version)
    for wait in (0, -1, 900_000, 900_001, 1 << 30):
        _init(peer, peer.name("t"), f"wait {wait}", wait=wait)
    _init(peer, "", "empty")
    who = peer.name("t")
    producer, epoch = _init(peer, who, "")
    for version in (3, 4):
        _init(peer, who, "its own", version, producer=producer, epoch=epoch)
        _init(peer, who, "its own before", version, producer=producer, epoch=epoch)
        _init(peer, who, "too old", version, producer=producer, epoch=max(epoch - 1, 0))
        _init(peer, who, "to come", version, producer=producer, epoch=epoch + 9)
        _init(peer, who, "another producer", version, producer=producer + 1000, epoch=0)
        _init(peer, who, "no epoch", version, producer=producer, epoch=-1)
        _init(peer, who, "no producer", version, producer=-1, epoch=0)
        _init(peer, peer.name("t"), "unknown id", version, producer=producer, epoch=epoch)


def committed(peer):
    topic = peer.topic()
    who = peer.name("t")
    producer, epoch = _init(peer, who)
    _write(peer, who, producer, epoch, topic, "before it is added")
    _add(peer, who, producer, epoch, [(topic, [0])])
    _add(peer, who, producer, epoch, [(topic, [0])], "again")
    _write(peer, who, producer, epoch, topic)
    _offsets(peer, topic, "open")
    _end(peer, who, producer, epoch, True)
    _offsets(peer, topic, "committed")
    _end(peer, who, producer, epoch, True, "again")
    _end(peer, who, producer, epoch, False, "aborted after it")
    _write(peer, who, producer, epoch, topic, "after it", 1)
    _add(peer, who, producer, epoch, [(topic, [0])], "next")
    _write(peer, who, producer, epoch, topic, "next", 1)
    _end(peer, who, producer, epoch, False, "next")
    _end(peer, who, producer, epoch, False, "next again")
    _end(peer, who, producer, epoch, True, "next committed")
    _offsets(peer, topic, "aborted")
    for level in (0, 1):
        peer.ask("Fetch", 11, f"level {level}", maxWaitMs=0, minBytes=0, maxBytes=100000, isolationLevel=level, topics=[
            {"topic": topic, "partitions": [{"partition": 0, "fetchOffset": 0, "partitionMaxBytes": 100000}]}])


def ended_wrong(peer):
    who = peer.name("t")
    producer, epoch = _init(peer, who)
    for version in range(0, 6):
        for commit in (True, False):
            _end(peer, who, producer, epoch, commit, f"nothing to end {commit}", version if version < 5 else 3)
    for version in (1, 3):
        _end(peer, peer.name("t"), producer, epoch, True, "unknown id", version)
        _end(peer, who, producer + 1000, epoch, True, "another producer", version)
        _end(peer, who, producer, epoch + 1, True, "epoch to come", version)
        _end(peer, who, producer, -1, True, "epoch -1", version)
        _end(peer, "", producer, epoch, True, "empty id", version)
    _init(peer, who)
    for version in (1, 3):
        _end(peer, who, producer, epoch, True, "fenced", version)
        _add(peer, who, producer, epoch, [("x", [0])], "fenced", version)


def added_wrong(peer):
    topic = peer.topic(2)
    who = peer.name("t")
    producer, epoch = _init(peer, who)
    for version in (0, 1, 2, 3):
        _add(peer, who, producer, epoch, [(peer.name(), [0])], "unknown topic", version)
        _add(peer, who, producer, epoch, [(topic, [7])], "unknown partition", version)
        _add(peer, who, producer, epoch, [(topic, [0]), (peer.name(), [0])], "one of two", version)
        _add(peer, who, producer, epoch, [], "none", version)
        _add(peer, who, producer, epoch, [(topic, [])], "no partitions", version)
        _add(peer, who, producer, epoch, [(topic, [0, 0])], "twice", version)
        _add(peer, who, producer, epoch, [(topic, [0]), (topic, [1])], "a topic twice", version)
        _add(peer, peer.name("t"), producer, epoch, [(topic, [0])], "unknown id", version)
        _add(peer, "", producer, epoch, [(topic, [0])], "empty id", version)
        _add(peer, who, producer + 1000, epoch, [(topic, [0])], "another producer", version)
        _add(peer, who, producer, epoch + 1, [(topic, [0])], "epoch to come", version)
        _add(peer, who, producer, epoch, [("a/b", [0])], "invalid name", version)
        _end(peer, who, producer, epoch, False, "", min(version, 3))


def offsets(peer):
    topic = peer.topic()
    who, group = peer.name("t"), peer.coordinator(peer.name("g"))
    producer, epoch = _init(peer, who)

    def added(note, name=group, version=3, transaction=who, of=producer, at=epoch):
        _again(peer, "AddOffsetsToTxn", version, note, transactionalId=transaction, producerId=of, producerEpoch=at, groupId=name)

    def commit(note, name=group, version=3, transaction=who, of=producer, at=epoch, generation=-1, member="", where=topic, part=0, metadata=""):
        given = {"generationId": generation, "memberId": member} if version >= 3 else {}
        _again(peer, "TxnOffsetCommit", version, note, transactionalId=transaction, groupId=name, producerId=of, producerEpoch=at, topics=[
            {"name": where, "partitions": [{"partitionIndex": part, "committedOffset": 5, "committedMetadata": metadata}]}], **given)

    for version in range(0, 4):
        added("", version=version)
        added("unknown id", version=version, transaction=peer.name("t"))
        added("another producer", version=version, of=producer + 1000)
        added("epoch to come", version=version, at=epoch + 1)
        added("empty group", "", version)
        added("empty id", version=version, transaction="")
    for version in range(0, 4):
        commit("", version=version)
        commit("unknown topic", version=version, where=peer.name())
        commit("unknown partition", version=version, part=8)
        commit("epoch to come", version=version, at=epoch + 1)
        commit("another producer", version=version, of=producer + 1000)
        commit("epoch of nobody", version=version, at=-1)
        commit("too much metadata", version=version, metadata="m" * 4097)
        commit("empty group", "", version)
    commit("unknown member", member="x", generation=3)
    commit("generation only", generation=3)
    for stable in (False, True):
        peer.ask("OffsetFetch", 7, f"open, stable {stable}", groupId=group, requireStable=stable, topics=[{"name": topic, "partitionIndexes": [0]}])
    _end(peer, who, producer, epoch, True)
    for _ in range(100):
        if peer.quietly("OffsetFetch", 7, groupId=group, requireStable=True, topics=[{"name": topic, "partitionIndexes": [0]}])["topics"][0]["partitions"][0]["errorCode"] == 0:
            break
        time.sleep(0.05)
    peer.ask("OffsetFetch", 7, "committed", groupId=group, requireStable=True, topics=[{"name": topic, "partitionIndexes": [0]}])
    peer.ask("DescribeGroups", 5, "", groups=[group])


def written_wrong(peer):
    topic = peer.topic(2)
    who = peer.name("t")
    producer, epoch = _init(peer, who)
    _add(peer, who, producer, epoch, [(topic, [0])])
    _write(peer, who, producer, epoch, topic, "not transactional", attributes=0)
    _write(peer, None, producer, epoch, topic, "without its id")
    _write(peer, peer.name("t"), producer, epoch, topic, "another id")
    _write(peer, who, producer, epoch + 1, topic, "epoch to come")
    _write(peer, who, producer + 1000, epoch, topic, "another producer")
    _write(peer, who, producer, epoch, topic, "partition that was not added", partition=1)
    _write(peer, who, producer, epoch, topic, "right")
    _write(peer, who, producer, epoch, topic, "again")
    _write(peer, who, producer, epoch, topic, "a gap", 7)
    heir, new = _init(peer, who, "heir")
    _write(peer, who, producer, epoch, topic, "fenced", 1)
    _offsets(peer, topic, "after")
    del heir, new


def second_version(peer):
    """KIP-890: a write adds its partition, an end gives a new epoch."""
    topic = peer.topic()
    who = peer.name("t")
    producer, epoch = _init(peer, who, version=5)
    _write(peer, who, producer, epoch, topic, version=12)
    answer = _end(peer, who, producer, epoch, True, version=5)
    _end(peer, who, producer, epoch, True, "again", 5)
    _end(peer, who, producer, epoch, False, "aborted", 5)
    new = answer["producerEpoch"] if isinstance(answer, dict) else -1
    _write(peer, who, producer, epoch, topic, "old epoch", 1, version=12)
    _write(peer, who, producer, new, topic, "new epoch, old sequence", 1, version=12)
    _write(peer, who, producer, new, topic, "new epoch", 0, version=12)
    _end(peer, who, producer, new, False, "", 5)
    _end(peer, who, producer, new + 1, True, "nothing", 5)
    _end(peer, who, producer, new + 1, False, "nothing", 5)
    _offsets(peer, topic, "")


def described(peer):
    topic = peer.topic()
    who = peer.name("t")
    producer, epoch = _init(peer, who)
    peer.ask("DescribeTransactions", 0, "empty", transactionalIds=[who])
    _add(peer, who, producer, epoch, [(topic, [0])])
    _write(peer, who, producer, epoch, topic)
    peer.ask("DescribeTransactions", 0, "open", transactionalIds=[who])
    peer.ask("DescribeTransactions", 0, "unknown", transactionalIds=[peer.name("t")])
    peer.ask("DescribeTransactions", 0, "empty name", transactionalIds=[""])
    peer.ask("DescribeTransactions", 0, "none", transactionalIds=[])
    peer.ask("DescribeTransactions", 0, "twice", transactionalIds=[who, who])
    peer.ask("DescribeProducers", 0, "open", topics=[{"name": topic, "partitionIndexes": [0]}])

    def listed(note, version, **more):
        answer = peer.quietly("ListTransactions", version, **more)
        if isinstance(answer, dict):
            answer["transactionStates"] = [entry for entry in answer["transactionStates"] if entry["transactionalId"] == who]
        peer.note(f"listed {note} {version}", answer)

    for version in range(0, peer.both["ListTransactions"][1] + 1):
        listed("", version)
    for states in (["Ongoing"], ["Empty"], ["ongoing"], ["NoSuch"], ["NoSuch", "Ongoing"]):
        listed(f"in {states}", 1, stateFilters=states)
    listed("of it", 1, producerIdFilters=[producer])
    listed("of another", 1, producerIdFilters=[producer + 1000])
    for least in (0, -1, 1_000_000):
        listed(f"for {least}", 1, durationFilter=least)
    if peer.both["ListTransactions"][1] >= 2:
        for pattern in (who, "no-such.*", "", "(", None, ".*"):
            listed(f"like {'itself' if pattern == who else pattern}", 2, transactionalIdPattern=pattern)
    _end(peer, who, producer, epoch, True)
    for _ in range(100):
        found = peer.quietly("DescribeTransactions", 0, transactionalIds=[who])["transactionStates"][0]
        if found["transactionState"] == "CompleteCommit":
            break
        time.sleep(0.05)
    peer.ask("DescribeTransactions", 0, "ended", transactionalIds=[who])
    peer.ask("DescribeProducers", 0, "ended", topics=[{"name": topic, "partitionIndexes": [0]}])
