"""The trail of a conformance run, read by an ordinary Kafka client and held to what the invariants say.

`trail.py --bootstrap HOST:PORT [--journal FILE --server NAME]` reads `mcp.calls` to its end and requires that

- every decided call ends in exactly one outcome, in one partition, after its decision;
- a call with an intent has a permit before it, and a denied one has none;
- nothing is inlined: arguments and results are references with a keyed digest;
- each producer's sequence in a partition has no gap;
- each tool call that a server wrote into its own journal has an intent of its own.

It prints `ok …`, or `FAILED …` for each finding.
"""

import argparse
import collections
import json
import sys
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

TOPIC = "mcp.calls"
SETTLE_S = 10
NEEDED = ("workflow_id", "call_id", "trace_id", "principal", "server", "era", "mcp_method_name", "hlc", "producer", "contract")


def read_all(bootstrap):
    """Every event of the topic: (partition, offset, type, data), in order within a partition."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "conformance-trail", "enable.auto.commit": False})
    partitions = consumer.list_topics(TOPIC, timeout=20).topics[TOPIC].partitions
    ends = {p: consumer.get_watermark_offsets(TopicPartition(TOPIC, p), timeout=20)[1] for p in partitions}
    consumer.assign([TopicPartition(TOPIC, p, OFFSET_BEGINNING) for p in partitions])
    at, events, deadline = {p: 0 for p in partitions}, [], time.monotonic() + 60
    while any(at[p] < ends[p] for p in partitions) and time.monotonic() < deadline:
        message = consumer.poll(0.5)
        if message is None or message.error():
            continue
        at[message.partition()] = message.offset() + 1
        headers = dict(message.headers() or [])
        kind = headers["ce_type"].decode().removeprefix("io.cairn.")
        events.append((message.partition(), message.offset(), kind, json.loads(message.value())))
    consumer.close()
    return events


def calls_of(events):
    """The events of each call, in order."""
    calls = collections.defaultdict(list)
    for partition, offset, kind, data in events:
        calls[data.get("call_id")].append((partition, offset, kind, data))
    return calls


def open_calls(events):
    return [call for call, its in calls_of(events).items() if not any(kind == "call.outcome" for _, _, kind, _ in its)]


def check_call(call, its):
    kinds = [kind for _, _, kind, _ in its]
    if len({partition for partition, _, _, _ in its}) != 1:
        yield f"call {call} lies in more than one partition"
    if kinds.count("call.outcome") != 1:
        yield f"call {call} ({its[0][3].get('mcp_method_name')} to {its[0][3].get('server')}) has {kinds.count('call.outcome')} outcomes: {kinds}"
    if kinds[0] != "call.decision":
        yield f"call {call} does not begin with its decision: {kinds}"
    decisions = [data["decision"] for _, _, kind, data in its if kind == "call.decision"]
    intent = kinds.index("call.intent") if "call.intent" in kinds else None
    if intent is not None and (decisions[-1:] != ["permit"] or "call.outcome" in kinds[:intent]):
        yield f"call {call} has an intent out of place: {kinds}, {decisions}"
    for _, offset, kind, data in its:
        missing = [key for key in NEEDED if key not in data]
        if missing:
            yield f"{kind} of call {call} lacks {missing}"
        for key in ("arguments", "result", "inputs"):
            if key in data and not (isinstance(data[key], dict) and str(data[key].get("digest", "")).startswith("hmac-sha256:")):
                yield f"{kind} of call {call}: `{key}` is not a reference"


def check_chain(events):
    last = {}
    for partition, offset, _, data in events:
        producer = data.get("producer") or {}
        key = (partition, producer.get("id"), producer.get("epoch"))
        if key in last and producer.get("sequence") != last[key] + 1:
            yield f"partition {partition} offset {offset}: sequence {producer.get('sequence')} after {last[key]}"
        last[key] = producer.get("sequence")


def check_journal(events, journal, server):
    reached = collections.Counter(json.loads(line)["name"] for line in open(journal, encoding="utf-8"))
    intents = collections.Counter(
        data.get("gen_ai_tool_name") for _, _, kind, data in events
        if kind == "call.intent" and data.get("server") == server and data.get("mcp_method_name") == "tools/call")
    for name, count in reached.items():
        if count > intents[name]:
            yield f"{server}: {name} reached the server {count} times with {intents[name]} intents"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--journal")
    parser.add_argument("--server")
    options = parser.parse_args()
    deadline = time.monotonic() + SETTLE_S
    events = read_all(options.bootstrap)
    while open_calls(events) and time.monotonic() < deadline:
        time.sleep(0.5)
        events = read_all(options.bootstrap)
    calls = calls_of(events)
    findings = [finding for call, its in calls.items() for finding in check_call(call, its)] + list(check_chain(events))
    if options.journal:
        findings += check_journal(events, options.journal, options.server)
    if not events:
        findings.append(f"{TOPIC} is empty")
    for finding in findings:
        print(f"FAILED {finding}")
    if not findings:
        print(f"ok {len(calls)} calls, {len(events)} events")
    sys.exit(1 if findings else 0)


main()
