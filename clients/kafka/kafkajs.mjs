// KafkaJS: see README.md.

import kafkajs from 'kafkajs';
import { parseArgs } from 'node:util';

const { Kafka, CompressionTypes, logLevel } = kafkajs;
const { values: options } = parseArgs({
  options: { bootstrap: { type: 'string' }, topic: { type: 'string' }, partitions: { type: 'string' }, records: { type: 'string' } },
});
const records = Number(options.records);
const partitions = Number(options.partitions);
const { topic } = options;
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const keyOf = (i) => Buffer.from(`key-${i}`);
const valueOf = (i) => Buffer.from(Array.from({ length: 50 + (i % 200) }, (_, j) => (31 * i + 7 * j) & 255));
const lengthOf = (partition) => Math.floor((records - partition + partitions - 1) / partitions);
const killed = new Set();
const delivered = new Set();
let again = 0;

function need(holds, text) {
  if (!holds) {
    console.log(`FAILED ${text}`);
    process.exit(1);
  }
}

/** Asks the driver, once for each occasion, to kill the broker. */
function killOnce(when) {
  if (!killed.has(when)) console.log('kill');
  killed.add(when);
}

const kafka = new Kafka({
  brokers: [options.bootstrap], clientId: 'clients', logLevel: logLevel.NOTHING,
  retry: { initialRetryTime: 100, maxRetryTime: 2000, retries: 60 },
});

async function write() {
  const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 });
  await producer.connect();
  for (let start = 0; start < records; start += 400) {
    const messages = [];
    for (let i = start; i < Math.min(start + 400, records); i += 1) {
      messages.push({ key: keyOf(i), value: valueOf(i), headers: { n: String(i) }, partition: i % partitions });
    }
    const results = await producer.send({ topic, messages, acks: -1, compression: CompressionTypes.GZIP });
    for (const { partition, baseOffset } of results) {
      const first = Math.ceil((start - partition) / partitions);
      need(Number(baseOffset) === first, `partition ${partition} acknowledged at offset ${baseOffset}, not ${first}`);
    }
    if (start * 2 >= records) killOnce('written');
  }
  await producer.disconnect();
}

function deliver(partition, { offset, key, value, headers }) {
  const i = Number(offset) * partitions + partition;
  const where = `record ${i} (partition ${partition}, offset ${offset})`;
  need(i >= 0 && i < records, `partition ${partition} offset ${offset} was never written`);
  need(keyOf(i).equals(key), `${where}: key ${key}`);
  need(valueOf(i).equals(value), `${where}: value of ${value.length} bytes differs`);
  need(Object.keys(headers).length === 1 && String(headers.n) === String(i), `${where}: headers ${JSON.stringify(headers)}`);
  again += delivered.has(i) ? 1 : 0;
  delivered.add(i);
}

async function join(groupId) {
  const member = kafka.consumer({
    groupId, sessionTimeout: 10000, heartbeatInterval: 1000, rebalanceTimeout: 10000, maxWaitTimeInMs: 200,
    maxBytesPerPartition: 16384, retry: { initialRetryTime: 100, maxRetryTime: 2000, retries: 60 },
  });
  await member.connect();
  await member.subscribe({ topics: [topic], fromBeginning: true });
  await member.run({ partitionsConsumedConcurrently: 2, eachBatch: async ({ batch, resolveOffset, heartbeat }) => {
    // Half has come back and the kill that belongs there has not been asked for: however quick, it waits.
    while (delivered.size * 2 >= records && !killed.has('read')) await pause(5);
    for (const message of batch.messages) {
      deliver(batch.partition, message);
      resolveOffset(message.offset);
    }
    await heartbeat();
  } });
  return member;
}

async function read(groupId) {
  const members = await Promise.all([join(groupId), join(groupId)]);
  let count = 2;
  const deadline = Date.now() + 300000 + records * 10;
  while (delivered.size < records) {
    need(Date.now() < deadline, `only ${delivered.size} records came back`);
    if (count === 2 && delivered.size * 4 >= records) {
      count = 3;
      members.push(await join(groupId));
    }
    if (delivered.size * 2 >= records) {
      killOnce('read');
      if (members.length === 3) await members.shift().disconnect();
    }
    await pause(20);
  }
  return [members, count];
}

const admin = kafka.admin();
await admin.connect();
await admin.createTopics({ topics: [{ topic, numPartitions: partitions, replicationFactor: 1 }] });
await write();
const groupId = `${topic}.group`;
const [members, count] = await read(groupId);
const deadline = Date.now() + 60000;
let committed = [];
do {
  await pause(200);
  try {
    committed = (await admin.fetchOffsets({ groupId, topics: [topic] }))[0].partitions;
  } catch (error) {
    // The broker may be away still; the library looks for the group's coordinator once only.
    need(Date.now() < deadline, `offsets cannot be read: ${error.message}`);
  }
} while (Date.now() < deadline && !(committed.length === partitions && committed.every(({ partition, offset }) => Number(offset) === lengthOf(partition))));
need(committed.length === partitions, `${committed.length} partitions have a committed offset`);
for (const { partition, offset } of committed) need(Number(offset) === lengthOf(partition), `partition ${partition} is committed at ${offset}`);
for (const { partition, high } of await admin.fetchTopicOffsets(topic)) {
  need(Number(high) === lengthOf(partition), `partition ${partition} ends at ${high}`);
}
await Promise.all(members.map((member) => member.disconnect()));
await admin.disconnect();
console.log(`ok ${records} records, ${partitions} partitions, ${count} members, ${again} delivered again`);
// After a broker was away the library leaves timers behind that would hold the process.
process.exit(0);
