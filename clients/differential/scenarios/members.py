"""Groups of KIP-848."""

import time


def _beat(peer, group, member, epoch, note="", version=1, **more):
    return peer.ask("ConsumerGroupHeartbeat", version, note, groupId=group, memberId=member, memberEpoch=epoch, **more)


def _name(peer, number):
    return f"{peer.name('m')}-{number}"


def wrong(peer):
    topic = peer.topic()
    group, member = peer.coordinator(peer.name("g")), _name(peer, 1)
    full = {"rebalanceTimeoutMs": 30000, "subscribedTopicNames": [topic], "topicPartitions": []}
    for note, body in (
        ("empty group", {"groupId": "", "memberId": member, "memberEpoch": 0, **full}),
        ("no member", {"groupId": group, "memberId": "", "memberEpoch": 0, **full}),
        ("epoch -3", {"groupId": group, "memberId": member, "memberEpoch": -3, **full}),
        ("no wait", {"groupId": group, "memberId": member, "memberEpoch": 0, "subscribedTopicNames": [topic], "topicPartitions": []}),
        ("no topics", {"groupId": group, "memberId": member, "memberEpoch": 0, "rebalanceTimeoutMs": 1000, "topicPartitions": []}),
        ("no partitions", {"groupId": group, "memberId": member, "memberEpoch": 0, "rebalanceTimeoutMs": 1000, "subscribedTopicNames": [topic], "topicPartitions": None}),
        ("partitions at once", {"groupId": group, "memberId": member, "memberEpoch": 0, "rebalanceTimeoutMs": 1000, "subscribedTopicNames": [topic],
                                "topicPartitions": [{"topicId": peer.id_of(topic), "partitions": [0]}]}),
        ("empty instance", {"groupId": group, "memberId": member, "memberEpoch": 0, "instanceId": "", **full}),
        ("empty rack", {"groupId": group, "memberId": member, "memberEpoch": 0, "rackId": "", **full}),
        ("unknown assignor", {"groupId": group, "memberId": member, "memberEpoch": 0, "serverAssignor": "mine", **full}),
        ("epoch 5 of nobody", {"groupId": group, "memberId": member, "memberEpoch": 5, **full}),
        ("leaves without having come", {"groupId": group, "memberId": member, "memberEpoch": -1}),
        ("goes for a while without instance", {"groupId": group, "memberId": member, "memberEpoch": -2}),
        ("expression that is none", {"groupId": group, "memberId": member, "memberEpoch": 0, "rebalanceTimeoutMs": 1000,
                                     "subscribedTopicRegex": "(", "topicPartitions": []}),
        ("negative wait", {"groupId": peer.name("g"), "memberId": member, "memberEpoch": 0, "rebalanceTimeoutMs": -5, "subscribedTopicNames": [topic], "topicPartitions": []}),
    ):
        peer.ask("ConsumerGroupHeartbeat", 1, note, **body)
    peer.ask("ConsumerGroupHeartbeat", 0, "no member", groupId=group, memberId="", memberEpoch=0, **full)


def life(peer):
    topic = peer.topic(2)
    group, member = peer.coordinator(peer.name("g")), _name(peer, 1)
    first = _beat(peer, group, member, 0, "joins", rebalanceTimeoutMs=30000, subscribedTopicNames=[topic], topicPartitions=[])
    epoch = first["memberEpoch"]
    for _ in range(50):
        if first["assignment"] is not None and first["assignment"]["topicPartitions"]:
            break
        time.sleep(0.05)
        first = peer.quietly("ConsumerGroupHeartbeat", 1, groupId=group, memberId=member, memberEpoch=epoch)
        epoch = max(epoch, first["memberEpoch"])
    own = [{"topicId": peer.id_of(topic), "partitions": [0, 1]}]
    _beat(peer, group, member, epoch, "has them", topicPartitions=own)
    _beat(peer, group, member, epoch, "nothing new")
    _beat(peer, group, member, epoch + 1, "epoch to come")
    _beat(peer, group, member, epoch - 1, "epoch before")
    _beat(peer, group, "nobody", epoch, "unknown member")
    _beat(peer, group, member, epoch, "still there")
    for version in (0, 1):
        peer.ask("ConsumerGroupDescribe", version, "", groupIds=[group])
        peer.ask("ConsumerGroupDescribe", version, "unknown", groupIds=["no-such-group"])
        peer.ask("ConsumerGroupDescribe", version, "empty name", groupIds=[""])
        peer.ask("ConsumerGroupDescribe", version, "none", groupIds=[])
        peer.ask("ConsumerGroupDescribe", version, "twice", groupIds=[group, group])
    peer.ask("DescribeGroups", 5, "the classic way", groups=[group])
    peer.ask("DescribeGroups", 6, "the classic way", groups=[group])
    for version in (7, 8, 9):
        for note, who, at in (("its own", member, epoch), ("epoch to come", member, epoch + 1), ("epoch before", member, epoch - 1), ("nobody", "x", epoch), ("none", "", -1)):
            peer.ask("OffsetCommit", version, note, groupId=group, memberId=who, generationIdOrMemberEpoch=at, topics=[
                {"name": topic, "partitions": [{"partitionIndex": 0, "committedOffset": 1}]}])
    for note, who, at in (("its own", member, epoch), ("epoch to come", member, epoch + 1), ("epoch before", member, epoch - 1), ("nobody", "x", epoch), ("none", None, -1)):
        peer.ask("OffsetFetch", 9, note, groups=[{"groupId": group, "memberId": who, "memberEpoch": at, "topics": None}])
    peer.ask("Heartbeat", 4, "the classic way", groupId=group, generationId=epoch, memberId=member)
    peer.ask("OffsetDelete", 0, "of what it reads", groupId=group, topics=[{"name": topic, "partitions": [{"partitionIndex": 0}]}])
    peer.ask("DeleteGroups", 2, "with a member", groupsNames=[group])
    _beat(peer, group, member, -1, "leaves")
    _beat(peer, group, member, -1, "leaves again")
    _beat(peer, group, member, epoch, "gone")
    peer.ask("ConsumerGroupDescribe", 1, "empty", groupIds=[group])
    peer.ask("DeleteGroups", 2, "", groupsNames=[group])


def static_members(peer):
    topic = peer.topic(2)
    group = peer.coordinator(peer.name("g"))
    one, other = _name(peer, 1), _name(peer, 2)
    full = {"rebalanceTimeoutMs": 30000, "subscribedTopicNames": [topic], "topicPartitions": [], "instanceId": "i"}
    first = _beat(peer, group, one, 0, "joins", **full)
    epoch = first["memberEpoch"]
    _beat(peer, group, other, 0, "while it is there", **full)
    _beat(peer, group, one, epoch, "still there", instanceId="i")
    _beat(peer, group, one, epoch, "with another instance", instanceId="j")
    _beat(peer, group, other, -2, "another goes for a while", instanceId="i")
    _beat(peer, group, one, -2, "goes for a while", instanceId="i")
    _beat(peer, group, other, 0, "its heir", **full)
    _beat(peer, group, one, epoch, "back too late", instanceId="i")
    _beat(peer, group, one, -1, "leaves too late", instanceId="i")
    _beat(peer, group, other, -1, "heir leaves", instanceId="i")


def other_protocol(peer):
    """A classic member in a group of this kind, and the other way round."""
    topic = peer.topic()
    group, member = peer.coordinator(peer.name("g")), _name(peer, 1)
    _beat(peer, group, member, 0, "joins", rebalanceTimeoutMs=30000, subscribedTopicNames=[topic], topicPartitions=[])
    peer.ask("JoinGroup", 7, "what it cannot read", groupId=group, sessionTimeoutMs=10000, rebalanceTimeoutMs=10000, protocolType="consumer",
             protocols=[{"name": "range", "metadata": b"rubbish"}])
    peer.ask("JoinGroup", 7, "another kind", groupId=group, sessionTimeoutMs=10000, rebalanceTimeoutMs=10000, protocolType="connect",
             protocols=[{"name": "range", "metadata": b""}])
    peer.ask("SyncGroup", 5, "", groupId=group, generationId=1, memberId=member, protocolType="consumer", protocolName="range")
    peer.ask("LeaveGroup", 4, "the classic way", groupId=group, members=[{"memberId": member}])


def expressions(peer):
    topic = peer.topic()
    group = peer.coordinator(peer.name("g"))
    for number, pattern in enumerate(("", topic, "no-such-.*", "[", "(?i)x", "a{1001}", "\\p{Greek}", "(?<name>x)", "x" * 300)):
        member = _name(peer, number)
        answer = peer.quietly("ConsumerGroupHeartbeat", 1, groupId=group, memberId=member, memberEpoch=0, rebalanceTimeoutMs=30000,
                              subscribedTopicRegex=pattern, topicPartitions=[])
        peer.note(f"expression {number}", answer if isinstance(answer, str) else answer["errorCode"])
        peer.quietly("ConsumerGroupHeartbeat", 1, groupId=group, memberId=member, memberEpoch=-1)
