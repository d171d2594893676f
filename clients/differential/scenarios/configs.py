"""DescribeConfigs, AlterConfigs, IncrementalAlterConfigs and their kin."""

SHOWN = ("retention.ms", "cleanup.policy", "max.message.bytes")


def _shown(peer, note, version=4, kind=2, name="", keys=SHOWN, **more):
    return peer.ask("DescribeConfigs", version, note, resources=[
        {"resourceType": kind, "resourceName": name, "configurationKeys": None if keys is None else list(keys)}], **more)


def describe(peer):
    topic = peer.topic(retention_ms="5000")
    low, high = peer.both["DescribeConfigs"]
    for version in range(low, high + 1):
        _shown(peer, "three", version, name=topic)
        answer = peer.quietly("DescribeConfigs", version, resources=[
            {"resourceType": 2, "resourceName": topic, "configurationKeys": []}])
        peer.note(f"DescribeConfigs {version} no keys", len(answer["results"][0]["configs"]) > 20)
        _shown(peer, "unknown key", version, name=topic, keys=("no.such",))
        _shown(peer, "a key twice", version, name=topic, keys=("retention.ms", "retention.ms"))
    _shown(peer, "unknown topic", name=peer.name())
    _shown(peer, "invalid topic", name="a/b")
    _shown(peer, "empty topic", name="")
    for kind in (0, 1, 3, 4, 5, 8, 16, 32, 64, 127, -1):
        for name in ("", "1x", "77"):
            if (kind, name) not in ((4, ""), (8, "")):
                _shown(peer, f"kind {kind} {name!r}", kind=kind, name=name)
    peer.ask("DescribeConfigs", 4, "no resources", resources=[])
    peer.ask("DescribeConfigs", 4, "twice", resources=[
        {"resourceType": 2, "resourceName": topic, "configurationKeys": ["retention.ms"]}] * 2)


def describe_all(peer):
    topic = peer.topic(retention_ms="5000")
    answer = peer.quietly("DescribeConfigs", 4, resources=[
        {"resourceType": 2, "resourceName": topic, "configurationKeys": None}])
    told = {config["name"]: config for config in answer["results"][0]["configs"]}
    for name, _ in VALUES:
        peer.note(name, told.pop(name, "absent"))
    peer.note("more of them", sorted(told))


def synonyms(peer):
    topic = peer.topic(retention_ms="5000")
    _shown(peer, "", name=topic, includeSynonyms=True)


def alter(peer):
    topic = peer.topic(retention_ms="5000")

    def asked(note, configs, version=None, kind=2, name=topic, **more):
        peer.ask("AlterConfigs", version, note, resources=[{"resourceType": kind, "resourceName": name, "configs": [
            {"name": key, "value": value} for key, value in configs]}], **more)
        if name == topic:
            peer.settle()
            _shown(peer, f"after {note}", name=topic)

    for version in range(peer.both["AlterConfigs"][0], peer.both["AlterConfigs"][1] + 1):
        asked("only tried", [("retention.ms", "7")], version, validateOnly=True)
        asked("set", [("max.message.bytes", "7000")], version)
        asked("none", [], version)
        asked("no value", [("retention.ms", None)], version)
        asked("unknown", [("no.such", "1")], version)
        asked("wrong", [("retention.ms", "x")], version)
        asked("one wrong of two", [("max.message.bytes", "9000"), ("retention.ms", "x")], version)
        asked("twice", [("retention.ms", "100000"), ("retention.ms", "200000")], version)
        asked("unknown topic", [("retention.ms", "1000")], version, name=peer.name())
        asked("invalid topic", [("retention.ms", "1000")], version, name="a/b")
        asked("empty topic", [("retention.ms", "1000")], version, name="")
        for kind in (0, 1, 3, 99):
            asked(f"kind {kind}", [("retention.ms", "1000")], version, kind=kind, name="x")
    peer.ask("AlterConfigs", None, "nothing", resources=[])


def alter_a_step(peer):
    topic = peer.topic(retention_ms="5000")

    def asked(note, configs, version=None, kind=2, name=topic, **more):
        peer.ask("IncrementalAlterConfigs", version, note, resources=[{"resourceType": kind, "resourceName": name, "configs": [
            {"name": key, "configOperation": operation, "value": value} for key, operation, value in configs]}], **more)
        if name == topic:
            peer.settle()
            _shown(peer, f"after {note}", name=topic)

    for version in range(peer.both["IncrementalAlterConfigs"][0], peer.both["IncrementalAlterConfigs"][1] + 1):
        asked("only tried", [("retention.ms", 0, "7")], version, validateOnly=True)
        asked("set", [("max.message.bytes", 0, "7000")], version)
        asked("unset", [("max.message.bytes", 1, None)], version)
        asked("unset again", [("max.message.bytes", 1, None)], version)
        asked("unset with a value", [("retention.ms", 1, "5")], version)
        asked("append", [("cleanup.policy", 2, "compact")], version)
        asked("append again", [("cleanup.policy", 2, "compact")], version)
        asked("subtract", [("cleanup.policy", 3, "delete")], version)
        asked("subtract again", [("cleanup.policy", 3, "delete")], version)
        asked("subtract the last", [("cleanup.policy", 3, "compact")], version)
        asked("back", [("cleanup.policy", 1, None)], version)
        asked("append to a number", [("retention.ms", 2, "5")], version)
        asked("subtract from a number", [("retention.ms", 3, "5")], version)
        asked("unknown operation", [("retention.ms", 9, "5")], version)
        asked("set nothing", [("retention.ms", 0, None)], version)
        asked("append nothing", [("cleanup.policy", 2, None)], version)
        asked("append empty", [("cleanup.policy", 2, "")], version)
        asked("unknown", [("no.such", 0, "5")], version)
        asked("unset unknown", [("no.such", 1, None)], version)
        asked("empty name", [("", 0, "5")], version)
        asked("wrong", [("retention.ms", 0, "x")], version)
        asked("one wrong of two", [("max.message.bytes", 0, "9000"), ("retention.ms", 0, "x")], version)
        asked("a config twice", [("retention.ms", 0, "1000"), ("retention.ms", 0, "2000")], version)
        asked("set and unset", [("retention.ms", 0, "1000"), ("retention.ms", 1, None)], version)
        asked("none", [], version)
        asked("unknown topic", [("retention.ms", 0, "1000")], version, name=peer.name())
        asked("invalid topic", [("retention.ms", 0, "1000")], version, name="a/b")
        for kind in (0, 3, 99):
            asked(f"kind {kind}", [("retention.ms", 0, "1000")], version, kind=kind, name="x")
    one = {"resourceType": 2, "resourceName": topic, "configs": [{"name": "retention.ms", "configOperation": 0, "value": "1000"}]}
    peer.ask("IncrementalAlterConfigs", None, "a topic twice", resources=[one, one])
    peer.ask("IncrementalAlterConfigs", None, "nothing", resources=[])


VALUES = (
    ("retention.ms", ("-1", "0", "-2", "9223372036854775807", "9223372036854775808", "1.5", "", " 7 ", "+7", "0x10", "1_000", "1L")),
    ("retention.bytes", ("-1", "0", "-2", "-9223372036854775808", "10")),
    ("max.message.bytes", ("0", "-1", "2147483647", "2147483648")),
    ("cleanup.policy", ("delete", "compact", "compact,delete", "delete,compact", "delete,delete", "", "Delete", " compact ", "compact, delete", ",", "none")),
    ("compression.type", ("producer", "gzip", "uncompressed", "none", "brotli")),
    ("message.timestamp.type", ("CreateTime", "LogAppendTime", "createtime", "x")),
    ("message.timestamp.before.max.ms", ("0", "-1", "1000", "9223372036854775807")),
    ("message.timestamp.after.max.ms", ("0", "-1", "1000")),
    ("min.insync.replicas", ("0", "1", "2", "-1")),
    ("segment.bytes", ("0", "13", "14", "1048575", "1048576", "1073741824", "2147483648")),
    ("segment.ms", ("0", "1", "-1")),
    ("segment.jitter.ms", ("0", "-1", "604800001")),
    ("segment.index.bytes", ("0", "3", "4", "-1")),
    ("min.cleanable.dirty.ratio", ("0", "1", "0.5", "1.1", "-0.1", "x", "NaN", ".5", "1e-1", "0.5d")),
    ("min.compaction.lag.ms", ("0", "-1", "5")),
    ("max.compaction.lag.ms", ("0", "1", "-1")),
    ("delete.retention.ms", ("0", "-1", "5")),
    ("file.delete.delay.ms", ("0", "-1")),
    ("flush.messages", ("0", "1", "-1")),
    ("flush.ms", ("0", "-1")),
    ("index.interval.bytes", ("0", "-1")),
    ("preallocate", ("true", "false", "True", "yes", "1", "")),
    ("unclean.leader.election.enable", ("true", "no")),
    ("remote.storage.enable", ("false", "x")),
    ("local.retention.ms", ("-2", "-1", "-3", "5")),
    ("local.retention.bytes", ("-2", "-3", "5")),
    ("remote.log.copy.disable", ("false", "x")),
    ("remote.log.delete.on.disable", ("false", "x")),
    ("leader.replication.throttled.replicas", ("*", "", "1:2", "1:2,3:4", "x", "1")),
    ("follower.replication.throttled.replicas", ("*", "1:x")),
    ("compression.gzip.level", ("1", "9", "10", "0", "-1", "-2")),
    ("compression.lz4.level", ("1", "17", "18", "0")),
    ("compression.zstd.level", ("-131072", "22", "23")),
    ("message.format.version", ("3.0", "2.1")),
    ("message.downconversion.enable", ("true", "false")),
    ("message.timestamp.difference.max.ms", ("5",)),
    ("internal.segment.bytes", ("100",)),
)


def values(peer):
    """What each config takes, and how it is told then."""
    topic = peer.topic()

    def change(key, operation, value):
        answer = peer.quietly("IncrementalAlterConfigs", resources=[{"resourceType": 2, "resourceName": topic, "configs": [
            {"name": key, "configOperation": operation, "value": value}]}])
        return answer["responses"][0]["errorCode"] if isinstance(answer, dict) else answer

    for key, tried in VALUES:
        for value in tried:
            code = change(key, 0, value)
            peer.settle()
            configs = peer.quietly("DescribeConfigs", 4, resources=[
                {"resourceType": 2, "resourceName": topic, "configurationKeys": [key]}])["results"][0]["configs"]
            # What is in force otherwise is asked elsewhere.
            held = [config["value"] for config in configs] if code == 0 else []
            peer.note(f"{key}={value!r}", {"errorCode": code, "held": "".join(str(one) for one in held)})
            change(key, 1, None)


def resources(peer):
    peer.ask("ListConfigResources", 0, "")
    for kinds in ([], [2], [99], [2, 2], [0]):
        answer = peer.quietly("ListConfigResources", 1, resourceTypes=kinds)
        if isinstance(answer, dict):
            answer["configResources"] = sorted({found["resourceType"] for found in answer["configResources"]})
        peer.note(f"kinds {kinds}", answer)


def quotas(peer):
    def set_to(note, entity, ops, **more):
        peer.ask("AlterClientQuotas", 1, note, entries=[{
            "entity": [{"entityType": kind, "entityName": name} for kind, name in entity],
            "ops": [{"key": key, "value": value, "remove": value is None and True} if value is not None else
                    {"key": key, "value": 0.0, "remove": True} for key, value in ops]}], **more)

    def shown(note, parts, strict=False):
        peer.ask("DescribeClientQuotas", 1, note, strict=strict, components=[
            {"entityType": kind, "matchType": how, "match": name} for kind, how, name in parts])

    user, client = peer.name("user"), peer.name("client")
    set_to("user", [("user", user)], [("producer_byte_rate", 1000.0)])
    set_to("user and client", [("user", user), ("client-id", client)], [("consumer_byte_rate", 1000.5)])
    set_to("only tried", [("user", user)], [("producer_byte_rate", 5.0)], validateOnly=True)
    set_to("unknown key", [("user", user)], [("no_such", 5.0)])
    set_to("zero", [("user", user)], [("producer_byte_rate", 0.0)])
    set_to("negative", [("user", user)], [("producer_byte_rate", -1.0)])
    set_to("a fraction of a byte", [("user", user)], [("producer_byte_rate", 0.5)])
    set_to("percentage", [("user", user)], [("request_percentage", 50.0)])
    set_to("key twice", [("user", user)], [("producer_byte_rate", 5.0), ("producer_byte_rate", 6.0)])
    set_to("unknown kind", [("group", user)], [("producer_byte_rate", 5.0)])
    set_to("kind twice", [("user", user), ("user", client)], [("producer_byte_rate", 5.0)])
    set_to("no entity", [], [("producer_byte_rate", 5.0)])
    set_to("empty name", [("user", "")], [("producer_byte_rate", 5.0)])
    set_to("no ops", [("user", user)], [])
    set_to("user and address", [("user", user), ("ip", "127.0.0.1")], [("connection_creation_rate", 5.0)])
    peer.ask("AlterClientQuotas", 1, "nothing", entries=[])
    shown("exact", [("user", 0, user)])
    shown("exact, strict", [("user", 0, user)], True)
    shown("both", [("user", 0, user), ("client-id", 0, client)])
    shown("any client of it", [("user", 0, user), ("client-id", 2, None)])
    shown("default client of it", [("user", 0, user), ("client-id", 1, None)])
    shown("unknown kind", [("group", 0, user)])
    shown("kind twice", [("user", 0, user), ("user", 0, user)])
    shown("unknown match", [("user", 7, user)])
    shown("exact of nothing", [("user", 0, None)])
    shown("default with a name", [("user", 1, user)])
    shown("empty kind", [("", 0, user)])
    shown("address and user", [("user", 0, user), ("ip", 0, "127.0.0.1")])
    set_to("removed", [("user", user)], [("producer_byte_rate", None)])
    set_to("removed again", [("user", user)], [("producer_byte_rate", None)])
    shown("after", [("user", 0, user)])


def scram(peer):
    user, other = peer.name("user"), peer.name("user")

    def alter(note, put=(), remove=()):
        peer.ask("AlterUserScramCredentials", 0, note,
                 deletions=[{"name": name, "mechanism": how} for name, how in remove],
                 upsertions=[{"name": name, "mechanism": how, "iterations": count, "salt": b"salt", "saltedPassword": b"s" * size}
                             for name, how, count, size in put])

    def shown(note, users):
        peer.ask("DescribeUserScramCredentials", 0, note, users=None if users is None else [{"name": name} for name in users])

    alter("sha 256", [(user, 1, 4096, 32)])
    alter("both at once", [(other, 1, 5000, 32), (other, 2, 5000, 64)])
    alter("sha 512", [(user, 2, 5000, 64)])
    alter("twice", [(user, 1, 5000, 32), (user, 1, 6000, 32)])
    alter("put and removed", [(user, 1, 5000, 32)], [(user, 1)])
    alter("few iterations", [(user, 1, 4095, 32)])
    alter("many iterations", [(user, 1, 16385, 32)])
    alter("unknown mechanism", [(user, 0, 4096, 32)])
    alter("mechanism 9", [(user, 9, 4096, 32)])
    alter("no name", [("", 1, 4096, 32)])
    alter("a password of another size", [(peer.name("user"), 2, 4096, 19)])
    alter("nothing")
    alter("remove unknown", [], [(peer.name("user"), 1)])
    alter("remove with an unknown mechanism", [], [(user, 7)])
    alter("one right, one wrong", [(peer.name("user"), 1, 4096, 32), (peer.name("user"), 1, 1, 32)])
    shown("there", [user])
    shown("unknown", [peer.name("user")])
    shown("twice", [user, user])
    shown("empty name", [""])
    alter("removed", [], [(user, 1)])
    shown("one left", [user])
    alter("removed too", [], [(user, 2)])
    shown("none left", [user])
    alter("removed again", [], [(user, 2)])


def rules(peer):
    topic = peer.name()

    def made(note, kind=2, name=topic, pattern=3, who="User:someone", host="*", operation=3, permission=3):
        peer.each("CreateAcls", note, creations=[{
            "resourceType": kind, "resourceName": name, "resourcePatternType": pattern, "principal": who, "host": host,
            "operation": operation, "permissionType": permission}])

    # Whoever asks goes on being allowed to.
    made("all of the cluster", kind=4, name="kafka-cluster", who="User:ANONYMOUS", operation=2)
    made("all topics", name="*", who="User:ANONYMOUS", operation=2)
    made("good")
    made("again")
    made("kind any", kind=1)
    made("kind unknown", kind=0)
    made("kind 99", kind=99)
    made("pattern any", pattern=1)
    made("pattern match", pattern=2)
    made("pattern 9", pattern=9)
    made("prefixed", pattern=4)
    made("operation any", operation=1)
    made("operation 99", operation=99)
    made("operation that a topic has not", operation=12)
    made("permission any", permission=1)
    made("permission 9", permission=9)
    made("no name", name="")
    made("no principal", who="")
    made("no type of principal", who="someone")
    made("a group of principals", name=peer.name(), who="Group:x")
    made("no host", name=peer.name(), host="")
    made("cluster with another name", kind=4, name="x", operation=8)
    made("cluster", kind=4, name="kafka-cluster", operation=8)
    made("wild card", name="*")
    peer.each("CreateAcls", "none", creations=[])

    def asked(api, note, kind=2, name=topic, pattern=3, who=None, host=None, operation=1, permission=1, version=3):
        given = {
            "principalFilter": who, "hostFilter": host, "operation": operation, "permissionType": permission,
        }
        if api == "DescribeAcls":
            peer.ask(api, version, note, resourceTypeFilter=kind, resourceNameFilter=name, patternTypeFilter=pattern, **given)
        else:
            peer.ask(api, version, note, filters=[
                {"resourceTypeFilter": kind, "resourceNameFilter": name, "patternTypeFilter": pattern, **given}])

    for api in ("DescribeAcls", "DeleteAcls"):
        for version in (1, 2, 3):
            asked(api, "unknown kind", kind=0, version=version)
            asked(api, "kind 99", kind=99, version=version)
            asked(api, "unknown pattern", pattern=0, version=version)
            asked(api, "pattern 9", pattern=9, version=version)
            asked(api, "unknown operation", operation=0, version=version)
            asked(api, "unknown permission", permission=0, version=version)
            asked(api, "nothing fits", name=peer.name(), version=version)
            asked(api, "literal", who="User:someone", operation=3, version=version)
            asked(api, "any pattern", pattern=1, version=version)
            asked(api, "match", pattern=2, who="User:someone", version=version)
    peer.ask("DeleteAcls", 3, "none", filters=[])
    asked("DeleteAcls", "what is left", pattern=1)
    asked("DeleteAcls", "of everything", name="*", pattern=1, who="User:someone")
    asked("DeleteAcls", "of the cluster", kind=4, name=None, pattern=1, who="User:someone")
    asked("DeleteAcls", "of everything, the last", name="*", pattern=1)
    asked("DeleteAcls", "of the cluster, the last", kind=4, name=None, pattern=1)
