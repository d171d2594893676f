"""One broker that is asked, and what it answered, in a form that can be compared with another's."""

import itertools
import socket
import struct
import time
import uuid

import records

# What differs between any two brokers.
FREE = {
    "throttleTimeMs", "host", "port", "rack", "clusterId", "errorMessage", "nodeId", "leaderId", "controllerId", "brokerId",
    "logStartTimestamp", "endpointType", "isrNodes", "replicaNodes", "clientHost", "offsetLag", "totalBytes", "usableBytes",
    "logDir", "batchIndexErrorMessage", "acquisitionLockTimeoutMs", "documentation",
}
# Made by a broker: the same one in two answers must be the same, and that is all.
MADE = {"topicId", "memberId", "producerId", "leader", "logId"}
TIMES = {"logAppendTimeMs", "timestamp", "lastTimestamp", "issueTimestampMs", "expiryTimestampMs", "maxTimestampMs",
         "transactionStartTimeMs"}
KEYS = ("name", "topic", "topicName", "partitionIndex", "partition", "index", "groupId", "transactionalId", "resourceType",
        "resourceName", "entityType", "mechanism", "groupInstanceId", "apiKey", "base", "memberId")
# Counted from what a new topic has: a broker that was never replaced may begin at any number.
EPOCHS = {"leaderEpoch", "currentLeaderEpoch"}
ANSWER_LIMIT = 15
CLOSED = "the connection was closed"


class Peer:
    """A broker, and the transcript of one scenario with it."""

    def __init__(self, definitions, address, run):
        host, _, port = address.rpartition(":")
        self.definitions, self.address, self.run = definitions, (host, int(port)), run
        self.socket, self.offered, self.both, self.epoch = None, {}, {}, 0
        self.begin("start")

    def begin(self, scenario):
        self.close()
        self.scenario, self.transcript, self.made, self.count = scenario, [], {}, itertools.count()
        self.correlation = itertools.count(1)

    def close(self):
        if self.socket is not None:
            self.socket.close()
        self.socket = None

    # Names that the other broker gets too, and that no other scenario uses.

    def name(self, what="topic"):
        return f"{what}-{self.run}-{self.scenario}-{next(self.count)}"

    # Requests.

    def send(self, data):
        if self.socket is None:
            self.socket = socket.create_connection(self.address, ANSWER_LIMIT)
            self.socket.settimeout(ANSWER_LIMIT)
        self.socket.sendall(data)

    def take(self, count):
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise ConnectionError(CLOSED)
            data += part
        return data

    def receive(self):
        return self.take(struct.unpack(">i", self.take(4))[0])

    def exchange(self, data):
        """The answer's bytes, or in words why there are none."""
        try:
            self.send(data)
            return self.receive()
        except TimeoutError:
            self.close()
            return f"no answer within {ANSWER_LIMIT} s"
        except OSError:
            self.close()
            return CLOSED

    def quietly(self, name, version=None, **body):
        """Asks, gives the answer and notes nothing."""
        version = self.both[name][1] if version is None else version
        correlation = next(self.correlation)
        data = self.exchange(self.definitions.request(name, version, correlation, "differential", body))
        if isinstance(data, str):
            return data
        got, answer = self.definitions.response(name, version, data)
        if got != correlation:
            return f"answer to {got} where {correlation} was asked"
        return answer

    def ask(self, name, version=None, note="", **body):
        """Asks and notes the answer."""
        version = self.both[name][1] if version is None else version
        try:
            answer = self.quietly(name, version, **body)
        except ValueError as error:
            answer = f"cannot be read: {error}"
            self.close()
        self.transcript.append((f"{name} {version} {note}".strip(), self.plain(answer)))
        return answer

    def each(self, name, note="", least=0, **body):
        """Asks in every version that both offer and that can say all this."""
        low, high = self.both[name]
        for version in range(max(low, least), high + 1):
            self.ask(name, version, note, **body)

    def raw(self, note, data):
        """Sends bytes with their length in front, and notes whether an answer comes."""
        answer = self.exchange(struct.pack(">i", len(data)) + data)
        self.transcript.append((note, answer if isinstance(answer, str) else "an answer"))

    def note(self, note, value):
        self.transcript.append((note, self.plain(value)))

    def ready(self):
        """Waits until it gives producer ids and coordinates; a node that was just started does not at once."""
        for _ in range(600):
            if self.quietly("InitProducerId", 2, transactionalId=None, transactionTimeoutMs=1000)["errorCode"] == 0:
                self.coordinator("ready")
                self.coordinator("ready", 1)
                return
            time.sleep(0.1)
        raise AssertionError("it does not get ready")

    def settle(self):
        """Waits until what was changed before is in force: Kafka answers first, and changes follow one another."""
        who = [{"entityType": "user", "entityName": "differential-settles"}]
        asked = [{"entityType": "user", "matchType": 0, "match": "differential-settles"}]
        for remove in (False, True):
            ops = [{"key": "consumer_byte_rate", "value": 1048576.0, "remove": remove}]
            self.quietly("AlterClientQuotas", entries=[{"entity": who, "ops": ops}], validateOnly=False)
            for _ in range(600):
                if bool(self.quietly("DescribeClientQuotas", components=asked, strict=True)["entries"]) != remove:
                    break
                time.sleep(0.02)
            else:
                raise AssertionError("a change does not come into force")

    # What most scenarios need first.

    def topic(self, partitions=1, **configs):
        name = self.name()
        wanted = [{"name": key.replace("_", "."), "value": value} for key, value in configs.items()]
        topic = {"name": name, "numPartitions": partitions, "replicationFactor": 1, "configs": wanted}
        answer = self.quietly("CreateTopics", topics=[topic], timeoutMs=10000)
        if isinstance(answer, str) or answer["topics"][0]["errorCode"] != 0:
            raise AssertionError(f"cannot create {name}: {answer}")
        for _ in range(200):
            answer = self.quietly("Metadata", topics=[{"name": name, "topicId": uuid.UUID(int=0)}])
            found = answer["topics"][0]
            if found["errorCode"] == 0 and len(found["partitions"]) == partitions and self.serves(name, partitions):
                return name
            time.sleep(0.05)
        raise AssertionError(f"{name} has no leader")

    def serves(self, topic, partitions):
        answer = self.quietly("ListOffsets", 7, replicaId=-1, topics=[{
            "name": topic, "partitions": [{"partitionIndex": number, "timestamp": -1} for number in range(partitions)]}])
        return all(partition["errorCode"] == 0 for partition in answer["topics"][0]["partitions"])

    def id_of(self, topic):
        answer = self.quietly("Metadata", topics=[{"name": topic, "topicId": uuid.UUID(int=0)}])
        return answer["topics"][0]["topicId"]

    def epoch_of(self, topic):
        return self.quietly("Metadata", 9, topics=[{"name": topic}])["topics"][0]["partitions"][0]["leaderEpoch"]

    def produce(self, topic, *batches, partition=0, version=9, acks=-1, transactional=None):
        """Writes and gives the partition's answer."""
        data = [{"index": partition, "records": b"".join(batches)}]
        answer = self.quietly(
            "Produce", version, acks=acks, timeoutMs=10000, transactionalId=transactional,
            topicData=[{"name": topic, "partitionData": data}],
        )
        return answer if isinstance(answer, str) else answer["responses"][0]["partitionResponses"][0]

    def filled(self, count=3, **configs):
        """A topic of one partition with so many records, each in a batch of its own."""
        topic = self.topic(**configs)
        for _ in range(count):
            self.produce(topic, records.batch())
        return topic

    def coordinator(self, group, kind=0):
        """Waits until there is a coordinator."""
        for _ in range(200):
            answer = self.quietly("FindCoordinator", 4, keyType=kind, coordinatorKeys=[group])
            if answer["coordinators"][0]["errorCode"] == 0:
                return group
            time.sleep(0.05)
        raise AssertionError(f"no coordinator for {group}")

    # The form that can be compared.

    def plain(self, value, name=""):
        if name in FREE:
            return "any"
        if name in EPOCHS and isinstance(value, int) and value >= 0:
            return value - self.epoch
        if name in TIMES and isinstance(value, int):
            return value if value < 0 or value == 1_700_000_000_000 else "a time"
        if name in MADE and value not in (None, "", -1) and value != uuid.UUID(int=0):
            return self.made.setdefault((name, value), f"{name} {len(self.made)}")
        if isinstance(value, dict):
            if value.get("errorCode") and "baseOffset" in value:
                # Where the log begins is told with some errors and not with others.
                value = {**value, "logStartOffset": "any"}
            return {key: self.plain(inner, key) for key, inner in value.items()}
        if isinstance(value, list):
            items = [self.plain(item) if not isinstance(item, dict) else self.plain(item) for item in value]
            return sorted(items, key=order)
        if name == "records" and value is not None:
            return self.plain(records.heads(value))
        if isinstance(value, bytes):
            return value.hex()
        return str(value) if isinstance(value, uuid.UUID) else value


def order(item):
    if not isinstance(item, dict):
        return (1, str(item))
    return (0, [(key, str(item[key]).rjust(12)) for key in KEYS if key in item])
