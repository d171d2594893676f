"""Groups of the classic protocol, their offsets and their administration."""


import time

RANGE = [{"name": "range", "metadata": b"one"}]
BOTH = [{"name": "range", "metadata": b"one"}, {"name": "roundrobin", "metadata": b"two"}]


def _join(peer, group, note="", member="", instance=None, version=7, kind="consumer", protocols=RANGE, session=10000,
          rebalance=10000, **more):
    answer = peer.ask(
        "JoinGroup", version, note, groupId=group, sessionTimeoutMs=session, rebalanceTimeoutMs=rebalance, memberId=member,
        **({"groupInstanceId": instance} if version >= 5 else {}), protocolType=kind, protocols=protocols, **more)
    return answer if isinstance(answer, dict) else {"memberId": "", "generationId": -1, "errorCode": -1}


def _sync(peer, group, generation, member, note="", assignments=(), version=5, instance=None, kind="consumer", name="range"):
    return peer.ask(
        "SyncGroup", version, note, groupId=group, generationId=generation, memberId=member, groupInstanceId=instance,
        assignments=[{"memberId": who, "assignment": data} for who, data in assignments], protocolType=kind, protocolName=name)


def _beat(peer, group, generation, member, note="", instance=None, version=4):
    return peer.ask("Heartbeat", version, note, groupId=group, generationId=generation, memberId=member, groupInstanceId=instance)


def _alone(peer, group, instance=None):
    """One member in a stable group; gives its id and generation."""
    first = peer.quietly("JoinGroup", 7, groupId=group, sessionTimeoutMs=30000, rebalanceTimeoutMs=30000, memberId="",
                         groupInstanceId=instance, protocolType="consumer", protocols=RANGE)
    if first["errorCode"] == 79:
        first = peer.quietly("JoinGroup", 7, groupId=group, sessionTimeoutMs=30000, rebalanceTimeoutMs=30000,
                             memberId=first["memberId"], groupInstanceId=instance, protocolType="consumer", protocols=RANGE)
    who, generation = first["memberId"], first["generationId"]
    peer.quietly("SyncGroup", 5, groupId=group, generationId=generation, memberId=who, groupInstanceId=instance,
                 protocolType="consumer", protocolName="range", assignments=[{"memberId": who, "assignment": b"all"}])
    return who, generation


def join_wrong(peer):
    for version in range(peer.both["JoinGroup"][0], 10):
        _join(peer, peer.name("g"), "session too short", version=version, session=1)
        _join(peer, peer.name("g"), "session too long", version=version, session=1 << 30)
        _join(peer, peer.name("g"), "session negative", version=version, session=-1)
        _join(peer, "", "empty group", version=version)
        _join(peer, peer.name("g"), "no protocols", version=version, protocols=[])
        _join(peer, peer.name("g"), "empty kind", version=version, kind="")
        _join(peer, peer.name("g"), "unknown member", member="nobody", version=version)
        if version >= 5:
            _join(peer, peer.name("g"), "unknown member with an instance", member="nobody", instance="i", version=version)
            _join(peer, peer.name("g"), "empty instance", instance="", version=version)
            _join(peer, peer.name("g"), "instance with a slash", instance="a/b", version=version)
            _join(peer, peer.name("g"), "long instance", instance="i" * 250, version=version)


def join_alone(peer):
    for version in range(peer.both["JoinGroup"][0], 10):
        group = peer.coordinator(peer.name("g"))
        first = _join(peer, group, "first", version=version)
        if first["errorCode"] == 79:
            first = _join(peer, group, "with its id", member=first["memberId"], version=version)
        who, generation = first["memberId"], first["generationId"]
        _beat(peer, group, generation, who, "before sync")
        _sync(peer, group, generation, who, "", [(who, b"all")])
        _beat(peer, group, generation, who, "")
        _sync(peer, group, generation, who, "again")
        _join(peer, group, "again", member=who, version=version)


def no_time_to_join(peer):
    """A rebalance timeout of nothing."""
    group = peer.coordinator(peer.name("g"))
    first = _join(peer, group, "first", version=4, rebalance=0)
    second = _join(peer, group, "with its id", member=first["memberId"], version=4, rebalance=0)
    time.sleep(0.3)
    _sync(peer, group, second["generationId"], second["memberId"], "", [(second["memberId"], b"all")], version=3)


def sync_wrong(peer):
    group = peer.coordinator(peer.name("g"))
    who, generation = _alone(peer, group)
    _sync(peer, peer.name("g"), 1, "x", "unknown group")
    _sync(peer, "", 1, "x", "empty group")
    _sync(peer, group, generation + 1, who, "generation to come")
    _sync(peer, group, generation - 1, who, "generation of before")
    _sync(peer, group, -1, who, "generation -1")
    _sync(peer, group, generation, "nobody", "unknown member")
    _sync(peer, group, generation, "", "no member")
    _sync(peer, group, generation, who, "other kind", kind="connect")
    _sync(peer, group, generation, who, "other protocol", name="roundrobin")
    _sync(peer, group, generation, who, "no kind", kind=None, name=None)
    _sync(peer, group, generation, who, "instance it has not", instance="i")
    _sync(peer, group, generation, who, "")


def beats(peer):
    group = peer.coordinator(peer.name("g"))
    who, generation = _alone(peer, group)
    for version in range(0, 5):
        _beat(peer, peer.name("g"), 1, "x", "unknown group", version=version)
        _beat(peer, "", 1, "x", "empty group", version=version)
        _beat(peer, group, generation + 1, who, "generation to come", version=version)
        _beat(peer, group, -1, who, "generation -1", version=version)
        _beat(peer, group, generation, "nobody", "unknown member", version=version)
        _beat(peer, group, generation, "", "no member", version=version)
        _beat(peer, group, generation, who, "", version=version)
    _beat(peer, group, generation, who, "instance it has not", instance="i")


def static_members(peer):
    group = peer.coordinator(peer.name("g"))
    first = _join(peer, group, "first", instance="i", version=7)
    who, generation = first["memberId"], first["generationId"]
    _sync(peer, group, generation, who, "", [(who, b"all")], instance="i")
    second = _join(peer, group, "its heir", instance="i", version=7)
    heir, generation_of_heir = second["memberId"], second["generationId"]
    _sync(peer, group, generation_of_heir, heir, "of the heir", [(heir, b"all")], instance="i")
    _beat(peer, group, generation_of_heir, who, "fenced", instance="i")
    _beat(peer, group, generation_of_heir, who, "fenced, without its instance")
    _beat(peer, group, generation_of_heir, heir, "of the heir", instance="i")
    _beat(peer, group, generation_of_heir, heir, "of the heir, without its instance")
    _beat(peer, group, generation_of_heir, heir, "of another instance", instance="j")
    _sync(peer, group, generation_of_heir, who, "fenced", instance="i")
    _join(peer, group, "fenced", member=who, instance="i")
    _join(peer, group, "fenced, without its instance", member=who)
    topic = peer.topic()
    for note, member, instance in (("fenced", who, "i"), ("heir", heir, "i"), ("heir without it", heir, None), ("other", heir, "j"), ("none", "", "i")):
        peer.ask("OffsetCommit", 8, note, groupId=group, generationIdOrMemberEpoch=generation_of_heir, memberId=member, groupInstanceId=instance,
                 topics=[{"name": topic, "partitions": [{"partitionIndex": 0, "committedOffset": 1}]}])
    for note, member, instance in (("fenced", who, "i"), ("unknown instance", "", "j"), ("by instance", "", "i"), ("again", "", "i")):
        peer.ask("LeaveGroup", 4, note, groupId=group, members=[{"memberId": member, "groupInstanceId": instance}])


def another_heir(peer):
    """One that brings other protocols."""
    group = peer.coordinator(peer.name("g"))
    who, generation = _alone(peer, group, "i")
    _join(peer, group, "other metadata", instance="i", protocols=[{"name": "range", "metadata": b"other"}], version=9)
    _join(peer, group, "other protocols", instance="i", protocols=[{"name": "sticky", "metadata": b"other"}], version=9)
    del who, generation


def leave(peer):
    group = peer.coordinator(peer.name("g"))
    who, _ = _alone(peer, group)
    for version in range(0, 3):
        peer.ask("LeaveGroup", version, "unknown group", groupId=peer.name("g"), memberId="x")
        peer.ask("LeaveGroup", version, "unknown member", groupId=group, memberId="x")
        peer.ask("LeaveGroup", version, "no member", groupId=group, memberId="")
        peer.ask("LeaveGroup", version, "empty group", groupId="", memberId="x")
    for version in range(3, 6):
        for note, name, members in (
            ("unknown group", peer.name("g"), [{"memberId": "x"}]),
            ("empty group", "", [{"memberId": "x"}]),
            ("unknown member", group, [{"memberId": "x"}]),
            ("none", group, []),
            ("none of an unknown group", peer.name("g"), []),
            ("no member", group, [{"memberId": ""}]),
            ("unknown instance", group, [{"memberId": "", "groupInstanceId": "i"}]),
            ("wrong instance", group, [{"memberId": who, "groupInstanceId": "i"}]),
        ):
            peer.ask("LeaveGroup", version, note, groupId=name, members=members)
    peer.ask("LeaveGroup", 5, "twice in one", groupId=group, members=[{"memberId": who}, {"memberId": who}])
    peer.ask("LeaveGroup", 5, "gone", groupId=group, members=[{"memberId": who}])
    peer.ask("DescribeGroups", 5, "empty", groups=[group])


def strangers(peer):
    """Members that do not fit the group."""
    group = peer.coordinator(peer.name("g"))
    _alone(peer, group)
    for version in (3, 4, 7, 9):
        _join(peer, group, "other kind", kind="connect", version=version)
        _join(peer, group, "other protocols", protocols=[{"name": "mine", "metadata": b""}], version=version)
        _join(peer, group, "no protocols", protocols=[], version=version)
        _join(peer, group, "empty kind", kind="", version=version)
        _join(peer, group, "unknown member", member="nobody", version=version)


def described(peer):
    group = peer.coordinator(peer.name("g"))
    who, _ = _alone(peer, group)
    del who
    for version in range(0, peer.both["DescribeGroups"][1] + 1):
        for note, groups in (("there", [group]), ("unknown", [peer.name("g")]), ("empty name", [""]), ("none", []), ("twice", [group, group])):
            peer.ask("DescribeGroups", version, note, groups=groups)
    peer.ask("DescribeGroups", 5, "operations", groups=[group], includeAuthorizedOperations=True)
    topic = peer.topic()
    only = peer.name("only-offsets")
    peer.quietly("OffsetCommit", 8, groupId=only, generationIdOrMemberEpoch=-1, topics=[
        {"name": topic, "partitions": [{"partitionIndex": 0, "committedOffset": 1}]}])
    for version in (4, 5, 6):
        peer.ask("DescribeGroups", version, "of offsets only", groups=[only])

    def listed(note, version, **more):
        answer = peer.quietly("ListGroups", version, **more)
        if isinstance(answer, dict):
            answer["groups"] = [entry for entry in answer["groups"] if entry["groupId"] in (group, only)]
        peer.note(f"listed {note} {version}", answer)

    for version in range(0, 6):
        listed("", version)
    for states in (["Stable"], ["Empty"], ["stable"], ["NoSuch"], ["Stable", "Empty"], [""], ["Dead"]):
        listed(f"in {states}", 5, statesFilter=states)
    for kinds in (["classic"], ["Classic"], ["consumer"], ["no such"], ["share"]):
        listed(f"of {kinds}", 5, typesFilter=kinds)


def removed(peer):
    group = peer.coordinator(peer.name("g"))
    who, _ = _alone(peer, group)
    for version in range(0, 3):
        peer.ask("DeleteGroups", version, "with members", groupsNames=[group])
        peer.ask("DeleteGroups", version, "unknown", groupsNames=[peer.name("g")])
        peer.ask("DeleteGroups", version, "empty name", groupsNames=[""])
        peer.ask("DeleteGroups", version, "none", groupsNames=[])
    peer.quietly("LeaveGroup", 3, groupId=group, members=[{"memberId": who}])
    peer.ask("DeleteGroups", 2, "twice", groupsNames=[group, group])
    peer.ask("DeleteGroups", 2, "again", groupsNames=[group])
    peer.ask("DescribeGroups", 5, "gone", groups=[group])


def coordinators(peer):
    for version in range(0, 4):
        for kind in (0, 1, 2, 9, -1):
            if kind == 0 or version:
                peer.ask("FindCoordinator", version, f"kind {kind}", key=peer.name("g"), **({"keyType": kind} if version else {}))
        peer.ask("FindCoordinator", version, "empty", key="")
    for version in range(4, 7):
        for note, kind, keys in (
            ("one", 0, [peer.name("g")]), ("none", 0, []), ("empty", 0, [""]), ("unknown kind", 9, ["a"]), ("a kind to come", 2, ["a"]),
            ("transactions", 1, ["a"]), ("twice", 0, ["a", "a"]), ("empty transaction", 1, [""]),
        ):
            peer.ask("FindCoordinator", version, note, keyType=kind, coordinatorKeys=keys)


def _commit(peer, group, note, topic, partition=0, offset=1, version=8, generation=-1, member="", metadata=None, epoch=-1, **more):
    part = {"partitionIndex": partition, "committedOffset": offset, "committedMetadata": metadata}
    if version >= 6:
        part["committedLeaderEpoch"] = epoch
    peer.ask("OffsetCommit", version, note, groupId=group, generationIdOrMemberEpoch=generation, memberId=member,
             topics=[{"name": topic, "partitions": [part]}], **more)


def _fetched(peer, group, note, topics, version=8, **more):
    """What is kept for a group; `topics` is None for all of it."""
    wanted = None if topics is None else [{"name": name, "partitionIndexes": list(parts)} for name, parts in topics]
    if version < 8:
        peer.ask("OffsetFetch", version, note, groupId=group, topics=wanted, **more)
    else:
        peer.ask("OffsetFetch", version, note, groups=[{"groupId": group, "topics": wanted}], **more)


def commits(peer):
    topic = peer.topic(2)
    for version in range(2, 10):
        group = peer.name("g")
        _commit(peer, group, "of a group that is not there", topic, version=version, generation=3, member="nobody")
        _commit(peer, group, "of none that is there", topic, version=version, generation=-1, member="nobody")
        _commit(peer, group, "alone", topic, version=version)
        _commit(peer, group, "unknown partition", topic, partition=8, version=version)
        _commit(peer, group, "partition -1", topic, partition=-1, version=version)
        _commit(peer, group, "unknown topic", peer.name(), version=version)
        _commit(peer, group, "invalid topic", "a/b", version=version)
        _commit(peer, group, "empty topic", "", version=version)
        _commit(peer, group, "with a generation", topic, version=version, generation=3, member="")
        _commit(peer, group, "with a member", topic, version=version, generation=3, member="nobody")
        _commit(peer, group, "with a member of none", topic, version=version, generation=-1, member="nobody")
        _commit(peer, group, "offset -1", topic, version=version, offset=-1)
        _commit(peer, group, "offset -5", topic, version=version, offset=-5)
        _commit(peer, group, "far away", topic, version=version, offset=1 << 50)
        _commit(peer, group, "metadata", topic, version=version, metadata="m" * 4096)
        _commit(peer, group, "too much metadata", topic, version=version, metadata="m" * 4097)
        _commit(peer, "", "empty group", topic, version=version)
        peer.ask("OffsetCommit", version, "none", groupId=group, generationIdOrMemberEpoch=-1, topics=[])
        peer.ask("OffsetCommit", version, "no partitions", groupId=group, generationIdOrMemberEpoch=-1, topics=[{"name": topic, "partitions": []}])
        twice = {"partitionIndex": 1, "committedOffset": 5}
        peer.ask("OffsetCommit", version, "twice", groupId=group, generationIdOrMemberEpoch=-1, topics=[
            {"name": topic, "partitions": [twice, {**twice, "committedOffset": 6}]}])
        peer.ask("OffsetCommit", version, "a topic twice", groupId=group, generationIdOrMemberEpoch=-1, topics=[
            {"name": topic, "partitions": [twice]}, {"name": topic, "partitions": [{**twice, "committedOffset": 7}]}])
        _fetched(peer, group, "what is kept", [(topic, [0, 1])])


def commits_of_members(peer):
    topic = peer.topic(2)
    group = peer.coordinator(peer.name("g"))
    who, generation = _alone(peer, group)
    for version in (2, 7, 9):
        _commit(peer, group, "its own", topic, version=version, generation=generation, member=who, epoch=5 if version > 5 else -1)
        _commit(peer, group, "generation to come", topic, version=version, generation=generation + 1, member=who)
        _commit(peer, group, "generation -1", topic, version=version, generation=-1, member=who)
        _commit(peer, group, "nobody's", topic, version=version, generation=-1, member="")
        _commit(peer, group, "unknown member", topic, version=version, generation=generation, member="x")
        _commit(peer, group, "no member", topic, version=version, generation=generation, member="")
    _fetched(peer, group, "kept", [(topic, [0])])
    peer.quietly("JoinGroup", 7, groupId=group, sessionTimeoutMs=30000, rebalanceTimeoutMs=30000, memberId=who,
                 protocolType="consumer", protocols=[{"name": "range", "metadata": b"other"}])
    _commit(peer, group, "before its sync", topic, generation=generation + 1, member=who)
    _commit(peer, group, "of the generation before", topic, generation=generation, member=who)


def fetched(peer):
    topic = peer.topic(2)
    group = peer.name("g")
    _commit(peer, group, "", topic, metadata="note", epoch=3)
    for version in range(1, 8):
        _fetched(peer, group, "", [(topic, [0, 1])], version)
        _fetched(peer, group, "unknown partition", [(topic, [9])], version)
        _fetched(peer, group, "unknown topic", [("no-such-topic", [0])], version)
        _fetched(peer, group, "twice", [(topic, [0, 0])], version)
        _fetched(peer, group, "no topics", [], version)
        _fetched(peer, group, "no partitions", [(topic, [])], version)
        _fetched(peer, "no-such-group", "unknown group", [(topic, [0])], version)
        _fetched(peer, "", "empty group", [(topic, [0])], version)
        if version >= 2:
            _fetched(peer, group, "all", None, version)
            _fetched(peer, "no-such-group", "all of an unknown group", None, version)
    for version in (8, 9):
        _fetched(peer, group, "", [(topic, [0, 1])], version)
        _fetched(peer, group, "all", None, version)
        _fetched(peer, "no-such-group", "unknown group", [(topic, [0])], version)
        _fetched(peer, "", "empty group", None, version)
        _fetched(peer, group, "stable", None, version, requireStable=True)
        peer.ask("OffsetFetch", version, "no groups", groups=[])
        peer.ask("OffsetFetch", version, "a group twice", groups=[{"groupId": group, "topics": None}] * 2)
    for note, member, epoch in (("a member", "x", 3), ("an epoch", None, 3), ("a member of none", "x", -1)):
        peer.ask("OffsetFetch", 9, note, groups=[{"groupId": group, "topics": None, "memberId": member, "memberEpoch": epoch}])


def offsets_removed(peer):
    topic = peer.topic(2)
    group = peer.name("g")
    _commit(peer, group, "", topic)

    def asked(note, name, topics):
        peer.ask("OffsetDelete", 0, note, groupId=name, topics=[
            {"name": each, "partitions": [{"partitionIndex": part} for part in parts]} for each, parts in topics])

    asked("unknown group", "no-such-group", [(topic, [0])])
    asked("empty group", "", [(topic, [0])])
    asked("unknown topic", group, [("no-such-topic", [0])])
    asked("unknown partition", group, [(topic, [7])])
    asked("nothing kept there", group, [(topic, [1])])
    asked("none", group, [])
    asked("no partitions", group, [(topic, [])])
    asked("twice", group, [(topic, [0, 0])])
    asked("again", group, [(topic, [0])])
    other = peer.coordinator(peer.name("g"))
    _alone(peer, other)
    asked("of a group with members", other, [(topic, [0])])


def topic_is_removed(peer):
    """What is kept for a topic that is made again is not the new one's."""
    topic = peer.topic()
    group = peer.name("g")
    _commit(peer, group, "", topic)
    peer.quietly("DeleteTopics", 4, topicNames=[topic], timeoutMs=5000)
    for _ in range(200):
        if peer.quietly("Metadata", 9, topics=[{"name": topic}], allowAutoTopicCreation=False)["topics"][0]["errorCode"] == 3:
            break
        time.sleep(0.05)
    for _ in range(100):
        kept = peer.quietly("OffsetFetch", 7, groupId=group, topics=[{"name": topic, "partitionIndexes": [0]}])
        if kept["topics"][0]["partitions"][0]["committedOffset"] == -1:
            break
        time.sleep(0.05)
    _fetched(peer, group, "gone", [(topic, [0])])
    _fetched(peer, group, "all", None)
