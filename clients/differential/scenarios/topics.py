"""Topics: making, finding, growing, emptying and removing them, and their configs."""

import uuid

from records import batch

NOBODY = uuid.UUID("11111111-2222-3333-4444-555555555555")


def _made(name, partitions=1, factor=1, assignments=(), configs=()):
    return {
        "name": name, "numPartitions": partitions, "replicationFactor": factor,
        "assignments": [{"partitionIndex": at, "brokerIds": list(ids)} for at, ids in assignments],
        "configs": [{"name": key, "value": value} for key, value in configs],
    }


def _create(peer, version, note, *topics, wait=5000, **more):
    """Which configs there are, and what they are, is asked elsewhere."""
    answer = peer.quietly("CreateTopics", version, topics=list(topics), timeoutMs=wait, **more)
    if isinstance(answer, dict):
        for topic in answer["topics"]:
            if topic.get("configs"):
                topic["configs"] = "some"
            if "topicId" in topic:
                topic["has an id"] = topic.pop("topicId") != uuid.UUID(int=0)
    peer.note(f"CreateTopics {version} {note}", answer)


def create_versions(peer):
    low, high = peer.both["CreateTopics"]
    for version in range(low, high + 1):
        name = peer.name()
        _create(peer, version, "only tried", _made(name), validateOnly=True)
        _create(peer, version, "made", _made(name))
        _create(peer, version, "again", _made(name))
        _create(peer, version, "again, only tried", _made(name), validateOnly=True)


def create_wrong(peer):
    for note, topic in (
        ("no partitions", _made(peer.name(), 0)),
        ("-1 partitions", _made(peer.name(), -1)),
        ("-2 partitions", _made(peer.name(), -2)),
        ("no copies", _made(peer.name(), 1, 0)),
        ("-1 copies", _made(peer.name(), 1, -1)),
        ("-2 copies", _made(peer.name(), 1, -2)),
        ("empty name", _made("")),
        ("dot", _made(".")),
        ("two dots", _made("..")),
        ("slash", _made("a/b")),
        ("blank", _made("a b")),
        ("long", _made("y" * 250)),
        ("unknown config", _made(peer.name(), configs=[("no.such", "1")])),
        ("wrong number", _made(peer.name(), configs=[("retention.ms", "soon")])),
        ("below the least", _made(peer.name(), configs=[("retention.ms", "-2")])),
        ("wrong word", _made(peer.name(), configs=[("cleanup.policy", "keep")])),
        ("no value", _made(peer.name(), configs=[("retention.ms", None)])),
        ("a blank in a number", _made(peer.name(), configs=[("retention.ms", " 5000 ")])),
        ("empty policy", _made(peer.name(), configs=[("cleanup.policy", "")])),
        ("both policies", _made(peer.name(), configs=[("cleanup.policy", "compact, delete")])),
        ("config twice", _made(peer.name(), configs=[("retention.ms", "5000"), ("retention.ms", "6000")])),
        ("max 0", _made(peer.name(), configs=[("max.message.bytes", "0")])),
        ("max -1", _made(peer.name(), configs=[("max.message.bytes", "-1")])),
        ("yes for a switch", _made(peer.name(), configs=[("preallocate", "yes")])),
        ("TRUE for a switch", _made(peer.name(), configs=[("preallocate", "TRUE")])),
        ("assignments and count", _made(peer.name(), 1, -1, [(0, [1])])),
        ("assignments and factor", _made(peer.name(), -1, 1, [(0, [1])])),
        ("assignments that jump", _made(peer.name(), -1, -1, [(0, [1]), (2, [1])])),
        ("assignments twice", _made(peer.name(), -1, -1, [(0, [1]), (0, [1])])),
        ("assignment to nobody", _made(peer.name(), -1, -1, [(0, [])])),
        ("assignment to a stranger", _made(peer.name(), -1, -1, [(0, [77])])),
    ):
        _create(peer, 6, note, topic)
    _create(peer, 6, "none")
    name = peer.name()
    _create(peer, 6, "twice", _made(name), _made(name))
    dotted = peer.name("a.b")
    _create(peer, 6, "a dot", _made(dotted))
    _create(peer, 6, "collides with it", _made(dotted.replace(".", "_")))
    for wait in (0, -1):
        _create(peer, 6, f"wait {wait}", _made(peer.name()), wait=wait)
    _create(peer, 6, "internal", _made("__consumer_offsets"))


def create_config_shown(peer):
    answer = peer.quietly("CreateTopics", 7, timeoutMs=5000, topics=[
        _made(peer.name(), configs=[("retention.ms", "5000"), ("cleanup.policy", "compact")])])
    wanted = ("retention.ms", "cleanup.policy", "max.message.bytes", "segment.bytes", "compression.type")
    peer.note("configs", [config for config in answer["topics"][0]["configs"] if config["name"] in wanted])


def remove(peer):
    for version in range(peer.both["DeleteTopics"][0], 6):
        topic = peer.topic()
        peer.ask("DeleteTopics", version, "", topicNames=[topic], timeoutMs=5000)
        peer.ask("DeleteTopics", version, "unknown", topicNames=[topic], timeoutMs=5000)
    topic = peer.topic()
    known = peer.id_of(topic)
    none = uuid.UUID(int=0)
    for note, topics in (
        ("none", []),
        ("unknown id", [{"name": None, "topicId": NOBODY}]),
        ("neither", [{"name": None, "topicId": none}]),
        ("both", [{"name": topic, "topicId": known}]),
        ("empty name", [{"name": "", "topicId": none}]),
        ("invalid name", [{"name": "a/b", "topicId": none}]),
        ("a name twice", [{"name": topic, "topicId": none}] * 2),
        ("name and id", [{"name": topic, "topicId": none}, {"name": None, "topicId": known}]),
        ("by id", [{"name": None, "topicId": known}]),
        ("by id again", [{"name": None, "topicId": known}]),
    ):
        peer.ask("DeleteTopics", 6, note, topics=topics, timeoutMs=5000)


def metadata(peer):
    topic = peer.topic(2)
    none = uuid.UUID(int=0)
    low, high = peer.both["Metadata"]
    for version in range(low, high + 1):
        peer.ask("Metadata", version, "there", topics=[{"name": topic, "topicId": none}], allowAutoTopicCreation=False)
        if version >= 4:
            peer.ask("Metadata", version, "unknown", topics=[{"name": peer.name(), "topicId": none}], allowAutoTopicCreation=False)
            peer.ask("Metadata", version, "twice", topics=[{"name": topic, "topicId": none}] * 2, allowAutoTopicCreation=False)
            peer.ask("Metadata", version, "none", topics=[], allowAutoTopicCreation=False)
        if version >= 10:
            known = peer.id_of(topic)
            for note, wanted in (
                ("by id", {"name": None, "topicId": known}),
                ("unknown id", {"name": None, "topicId": NOBODY}),
                ("neither", {"name": None, "topicId": none}),
                ("both", {"name": topic, "topicId": known}),
                ("name with another's id", {"name": topic, "topicId": NOBODY}),
            ):
                peer.ask("Metadata", version, note, topics=[wanted], allowAutoTopicCreation=False)
        for note, name in (("invalid", "a/b"), ("empty", ""), ("long", "z" * 250), ("dots", "..")):
            peer.ask("Metadata", version, note, topics=[{"name": name, "topicId": none}])
        if version in (8, 9, 10):
            for field in ("includeClusterAuthorizedOperations", "includeTopicAuthorizedOperations"):
                if field == "includeTopicAuthorizedOperations" or version <= 10:
                    peer.ask("Metadata", version, field, topics=[{"name": topic, "topicId": none}], **{field: True})


def metadata_makes_topics(peer):
    none = uuid.UUID(int=0)
    for version in (1, 4, 9, 12):
        name = peer.name()
        answer = peer.quietly("Metadata", version, topics=[{"name": name, "topicId": none}], allowAutoTopicCreation=True)
        peer.note("topics", len(answer["topics"]))
    peer.ask("Metadata", 9, "a dot", topics=[{"name": peer.name("a.b"), "topicId": none}], allowAutoTopicCreation=False)


def partitions_described(peer):
    topic = peer.topic(3)
    other = peer.topic(1)
    for note, body in (
        ("there", {"topics": [{"name": topic}]}),
        ("two", {"topics": [{"name": topic}, {"name": other}]}),
        ("twice", {"topics": [{"name": topic}, {"name": topic}]}),
        ("unknown", {"topics": [{"name": peer.name()}]}),
        ("invalid", {"topics": [{"name": "a/b"}]}),
        ("empty name", {"topics": [{"name": ""}]}),
        ("limit 2", {"topics": [{"name": topic}], "responsePartitionLimit": 2}),
        ("limit 0", {"topics": [{"name": topic}], "responsePartitionLimit": 0}),
        ("limit -1", {"topics": [{"name": topic}], "responsePartitionLimit": -1}),
        ("cursor", {"topics": [{"name": topic}], "cursor": {"topicName": topic, "partitionIndex": 1}}),
        ("cursor past it", {"topics": [{"name": topic}], "cursor": {"topicName": topic, "partitionIndex": 9}}),
        ("cursor below", {"topics": [{"name": topic}], "cursor": {"topicName": topic, "partitionIndex": -1}}),
        ("cursor elsewhere", {"topics": [{"name": topic}], "cursor": {"topicName": "zzz", "partitionIndex": 0}}),
    ):
        peer.ask("DescribeTopicPartitions", 0, note, **body)


def grow(peer):
    topic = peer.topic(2)
    low, high = peer.both["CreatePartitions"]
    for version in range(low, high + 1):
        for note, wanted in (
            ("same", {"name": topic, "count": 2, "assignments": None}),
            ("fewer", {"name": topic, "count": 1, "assignments": None}),
            ("none", {"name": topic, "count": 0, "assignments": None}),
            ("negative", {"name": topic, "count": -1, "assignments": None}),
            ("unknown", {"name": peer.name(), "count": 3, "assignments": None}),
            ("invalid name", {"name": "a/b", "count": 3, "assignments": None}),
            ("to a stranger", {"name": topic, "count": 3, "assignments": [{"brokerIds": [99]}]}),
            ("too few assignments", {"name": topic, "count": 4, "assignments": [{"brokerIds": [1]}]}),
            ("empty assignment", {"name": topic, "count": 3, "assignments": [{"brokerIds": []}]}),
            ("no assignments", {"name": topic, "count": 3, "assignments": []}),
        ):
            peer.ask("CreatePartitions", version, note, topics=[wanted], timeoutMs=5000, validateOnly=True)
        peer.ask("CreatePartitions", version, "no topics", topics=[], timeoutMs=5000)
        peer.ask("CreatePartitions", version, "twice", timeoutMs=5000, validateOnly=True,
                 topics=[{"name": topic, "count": 3, "assignments": None}] * 2)
    peer.ask("CreatePartitions", None, "grown", topics=[{"name": topic, "count": 4, "assignments": None}], timeoutMs=5000)


def empty(peer):
    topic = peer.filled(5)
    compacted = peer.topic(cleanup_policy="compact")
    peer.produce(compacted, batch(key=b"k"))

    def asked(note, name, parts, version=None):
        peer.ask("DeleteRecords", version, note, timeoutMs=5000, topics=[
            {"name": name, "partitions": [{"partitionIndex": number, "offset": offset} for number, offset in parts]}])

    for note, offset in (("0", 0), ("2", 2), ("2 again", 2), ("below", 1), ("past the end", 9), ("-2", -2), ("all", -1), ("all again", -1)):
        asked(note, topic, [(0, offset)])
    asked("unknown partition", topic, [(4, 1)])
    asked("unknown topic", peer.name(), [(0, 1)])
    asked("invalid name", "a/b", [(0, 1)])
    asked("twice", topic, [(0, 1), (0, 2)])
    asked("no partitions", topic, [])
    asked("compacted", compacted, [(0, 1)])
    asked("internal", "__consumer_offsets", [(0, 0)])
    peer.ask("DeleteRecords", None, "none", timeoutMs=5000, topics=[])
    peer.ask("Fetch", 11, "after it", maxWaitMs=0, minBytes=0, maxBytes=1000, topics=[
        {"topic": topic, "partitions": [{"partition": 0, "fetchOffset": 5, "partitionMaxBytes": 1000}]}])


def log_dirs(peer):
    topic = peer.filled(1)

    def asked(note, topics, version):
        answer = peer.quietly("DescribeLogDirs", version, topics=topics)
        for result in answer["results"]:
            for found in result["topics"]:
                for partition in found["partitions"]:
                    partition["partitionSize"] = "some" if partition["partitionSize"] else 0
        peer.note(f"{note} {version}", answer)

    for version in range(peer.both["DescribeLogDirs"][0], peer.both["DescribeLogDirs"][1] + 1):
        asked("there", [{"topic": topic, "partitions": [0]}], version)
        asked("unknown partition", [{"topic": topic, "partitions": [7]}], version)
        asked("unknown topic", [{"topic": peer.name(), "partitions": [0]}], version)
        asked("none", [], version)


def cluster(peer):
    low, high = peer.both["DescribeCluster"]
    for version in range(low, high + 1):
        peer.ask("DescribeCluster", version, "")
        peer.ask("DescribeCluster", version, "operations", includeClusterAuthorizedOperations=True)
        if version:
            for kind in (1, 2, 0, 5):
                peer.ask("DescribeCluster", version, f"endpoints {kind}", endpointType=kind)
