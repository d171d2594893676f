"""aiokafka: see README.md."""

import asyncio
import time

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from ledger import Ledger, arguments, header, key, need, value


async def write(options, ledger):
    producer = AIOKafkaProducer(
        bootstrap_servers=options.bootstrap, enable_idempotence=True, acks="all", compression_type="lz4",
        linger_ms=5, request_timeout_ms=30000)
    await producer.start()
    for start in range(0, options.records, 500):
        batch = range(start, min(start + 500, options.records))
        sent = [await producer.send(options.topic, value(i), key(i), ledger.partition(i), headers=header(i)) for i in batch]
        for i, future in zip(batch, sent):
            done = await asyncio.wait_for(future, 120)
            ledger.acknowledge(i, done.partition, done.offset)
    await producer.stop()
    ledger.check_acknowledged()


async def started(make):
    """Makes a consumer and starts it: the broker may be away just then, and the library gives up at the first refusal."""
    deadline = time.monotonic() + 120
    while True:
        consumer = make()
        try:
            await consumer.start()
            return consumer
        except KafkaError as error:
            await consumer.stop()
            need(time.monotonic() < deadline, repr(error))
            await asyncio.sleep(0.2)


class Member:
    """One consumer of the group, from its start to its leaving."""

    def __init__(self, options, ledger, group):
        self.ledger = ledger
        self.leaving = False
        self.make = lambda: AIOKafkaConsumer(
            options.topic, bootstrap_servers=options.bootstrap, group_id=group, auto_offset_reset="earliest",
            enable_auto_commit=False, session_timeout_ms=10000, heartbeat_interval_ms=1000)
        self.task = asyncio.create_task(self.run())

    async def run(self):
        self.consumer = await started(self.make)
        try:
            while not self.leaving:
                if self.ledger.waits():
                    await asyncio.sleep(0.01)
                else:
                    await self.take()
        finally:
            try:
                await self.consumer.stop()
            except asyncio.CancelledError:
                # While the broker is away the library's own fetch tasks end so.
                need(self.leaving, "a member was cancelled")

    async def take(self):
        try:
            batches = await self.consumer.getmany(timeout_ms=200, max_records=300)
        except KafkaError as error:
            need(error.retriable, repr(error))
            return
        for place, messages in batches.items():
            for m in messages:
                self.ledger.deliver(place.partition, m.offset, m.key, m.value, m.headers)
        if batches:
            try:
                await self.consumer.commit()
            except KafkaError:  # a rebalance or a broker that is away: what was not committed is delivered again
                pass


async def read(options, ledger, group):
    members = [Member(options, ledger, group), Member(options, ledger, group)]
    everyone = list(members)
    deadline = time.monotonic() + 300 + options.records / 100
    while not ledger.complete():
        need(time.monotonic() < deadline, f"only {len(ledger.delivered)} records came back")
        for member in everyone:
            if member.task.done():
                member.task.result()
        if len(everyone) == 2 and len(ledger.delivered) * 4 >= options.records:
            members.append(Member(options, ledger, group))
            everyone.append(members[-1])
        if len(ledger.delivered) * 2 >= options.records:
            ledger.kill_once("read")
            if len(members) == 3:
                members.pop(0).leaving = True
        await asyncio.sleep(0.02)
    return members, everyone


async def run():
    options = arguments()
    ledger = Ledger(options.records, options.partitions)
    admin = AIOKafkaAdminClient(bootstrap_servers=options.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(options.topic, options.partitions, 1)])
    await admin.close()
    await write(options, ledger)
    group = options.topic + ".group"
    members, everyone = await read(options, ledger, group)
    deadline = time.monotonic() + 120
    watcher = await started(
        lambda: AIOKafkaConsumer(bootstrap_servers=options.bootstrap, group_id=group, enable_auto_commit=False))
    places = [TopicPartition(options.topic, p) for p in range(options.partitions)]
    while True:
        done = {place.partition: await watcher.committed(place) for place in places}
        if all(done[p] == ledger.length(p) for p in done) or time.monotonic() > deadline:
            break
        await asyncio.sleep(0.2)
    ends = {place.partition: end for place, end in (await watcher.end_offsets(places)).items()}
    await watcher.stop()
    for member in everyone:
        member.leaving = True
        await asyncio.wait_for(member.task, 30)
    ledger.check_ends(ends, done)
    ledger.say_ok(len(everyone))


asyncio.run(run())
