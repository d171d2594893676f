// @confluentinc/schemaregistry: its serializers in all three formats over KafkaJS, and its registry client. See README.md.
import assert from 'node:assert/strict';
import { parseArgs } from 'node:util';
import { create, createMutableRegistry, equals } from '@bufbuild/protobuf';
import { ApiSchema } from '@bufbuild/protobuf/wkt';
import confluent from '@confluentinc/schemaregistry';
import kafkajs from 'kafkajs';

const {
  AvroDeserializer, AvroSerializer, HeaderSchemaIdSerializer, JsonDeserializer, JsonSerializer,
  ProtobufDeserializer, ProtobufSerializer, SchemaRegistryClient, SerdeType,
} = confluent;
const RECORDS = 50;
const { values: options } = parseArgs({ options: { bootstrap: { type: 'string' }, registry: { type: 'string' } } });
const kafka = new kafkajs.Kafka({ brokers: [options.bootstrap], logLevel: kafkajs.logLevel.ERROR });
const client = SchemaRegistryClient.newClient({ baseURLs: [options.registry] });

const AVRO = JSON.stringify({
  type: 'record', name: 'Order', namespace: 'shop',
  fields: [{ name: 'id', type: 'long' }, { name: 'note', type: 'string' }],
});
const SCHEMA = JSON.stringify({
  $schema: 'http://json-schema.org/draft-07/schema#', title: 'Order', type: 'object', additionalProperties: false,
  properties: { id: { type: 'integer' }, note: { type: 'string' } }, required: ['id'],
});

/** Writes values by a serializer to a topic and reads them back by its deserializer. */
async function roundTrip(topic, serializer, deserializer, values, same, inHeader = false) {
  const admin = kafka.admin();
  await admin.connect();
  await admin.createTopics({ topics: [{ topic, numPartitions: 1, replicationFactor: 1 }] });
  await admin.disconnect();
  const producer = kafka.producer();
  await producer.connect();
  const messages = [];
  for (const value of values) {
    const headers = {};
    const payload = await serializer.serialize(topic, value, headers);
    assert.equal(Object.keys(headers).length > 0, inHeader, `${topic}: the schema's id is in the wrong place`);
    messages.push({ value: payload, headers, partition: 0 });
  }
  await producer.send({ topic, messages });
  await producer.disconnect();
  const consumer = kafka.consumer({ groupId: `${topic}.reader` });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  const back = [];
  await new Promise((done, failed) => {
    const late = setTimeout(() => failed(new Error(`${topic}: only ${back.length} values came back`)), 60_000);
    consumer.run({
      eachMessage: async ({ message }) => {
        try {
          back.push(await deserializer.deserialize(topic, message.value, message.headers));
        } catch (error) {
          clearTimeout(late);
          failed(error);
        }
        if (back.length === values.length) {
          clearTimeout(late);
          done();
        }
      },
    }).catch(failed);
  });
  await consumer.disconnect();
  values.forEach((value, i) => same(back[i], value, `${topic}: value ${i}`));
}

async function refused(code, work) {
  await assert.rejects(work, (error) => error.errorCode === code || assert.fail(`${error.errorCode} ${error.message}`));
}

const orders = Array.from({ length: RECORDS }, (_, i) => ({ id: i, note: `n${i}` }));
const plain = (one, other, words) => assert.deepEqual({ ...one }, other, words);

async function avro() {
  const topic = 'registry.node.avro';
  await client.register(`${topic}-value`, { schemaType: 'AVRO', schema: AVRO }, true);
  const conf = { useLatestVersion: true };
  await roundTrip(topic, new AvroSerializer(client, SerdeType.VALUE, conf), new AvroDeserializer(client, SerdeType.VALUE, {}), orders, plain);
  const headed = `${topic}.header`;
  await client.register(`${headed}-value`, { schemaType: 'AVRO', schema: AVRO });
  const serializer = new AvroSerializer(client, SerdeType.VALUE, { ...conf, schemaIdSerializer: HeaderSchemaIdSerializer });
  await roundTrip(headed, serializer, new AvroDeserializer(client, SerdeType.VALUE, {}), orders, plain, true);
  const broken = JSON.parse(AVRO);
  broken.fields.push({ name: 'must', type: 'string' });
  await refused(409, () => client.register(`${topic}-value`, { schemaType: 'AVRO', schema: JSON.stringify(broken) }));
}

async function json() {
  const topic = 'registry.node.json';
  await client.register(`${topic}-value`, { schemaType: 'JSON', schema: SCHEMA });
  const serializer = new JsonSerializer(client, SerdeType.VALUE, { useLatestVersion: true, validate: true });
  await roundTrip(topic, serializer, new JsonDeserializer(client, SerdeType.VALUE, { validate: true }), orders, plain);
  await assert.rejects(() => serializer.serialize(topic, { id: 'x' }), 'a value that does not fit was written');
  await client.register('order.json', { schemaType: 'JSON', schema: SCHEMA });
  const holder = JSON.stringify({ $schema: 'http://json-schema.org/draft-07/schema#', type: 'object', properties: { order: { $ref: 'order.json' } } });
  const references = [{ name: 'order.json', subject: 'order.json', version: 1 }];
  const basket = `${topic}.reference`;
  await client.register(`${basket}-value`, { schemaType: 'JSON', schema: holder, references });
  const baskets = orders.slice(0, 5).map((order) => ({ order }));
  await roundTrip(basket, new JsonSerializer(client, SerdeType.VALUE, { useLatestVersion: true, validate: true }), new JsonDeserializer(client, SerdeType.VALUE, {}), baskets, plain);
}

/** A message of Google's own that imports two other files, which become references. */
async function protobuf() {
  const registry = createMutableRegistry(ApiSchema);
  const values = orders.map(({ note }) => create(ApiSchema, { name: note, options: [{ name: 'o' }] }));
  const serializer = new ProtobufSerializer(client, SerdeType.VALUE, { registry, autoRegisterSchemas: true });
  const deserializer = new ProtobufDeserializer(client, SerdeType.VALUE, {});
  const same = (one, other, words) => assert(one.name === other.name && one.options[0].name === 'o', words);
  await roundTrip('registry.node.protobuf', serializer, deserializer, values, same);
}

async function registry() {
  const subject = 'registry.node.client';
  const schema = {
    schemaType: 'AVRO', schema: AVRO, metadata: { properties: { owner: 'shop' } },
    ruleSet: { domainRules: [{ name: 'positive', kind: 'CONDITION', mode: 'WRITE', type: 'CEL', expr: 'message.id > 0' }] },
  };
  const full = await client.registerFullResponse(subject, schema, false);
  assert(full.id > 0 && full.guid, 'an id and a GUID');
  client.clearCaches();
  const found = await client.getByGuid(full.guid);
  assert.equal(found.metadata.properties.owner, 'shop');
  assert.equal(found.ruleSet.domainRules[0].expr, 'message.id > 0');
  assert.equal((await client.getBySubjectAndId(subject, full.id)).schema, found.schema);
  assert.equal(await client.getId(subject, schema, false), full.id);
  assert.equal(await client.getVersion(subject, schema, false, false), 1);
  assert.equal((await client.getLatestSchemaMetadata(subject)).version, 1);
  assert.equal((await client.getLatestWithMetadata(subject, { owner: 'shop' }, false)).version, 1);
  await client.updateCompatibility(subject, 'FULL');
  assert.equal(await client.getCompatibility(subject), 'FULL');
  assert.equal(await client.getDefaultCompatibility(), 'BACKWARD');
  assert.equal(await client.testCompatibility(subject, 1, { schemaType: 'AVRO', schema: '"string"' }), false);
  assert.equal(await client.testSubjectCompatibility(subject, schema), true);
  assert((await client.getAllSubjects()).includes(subject));
  assert.deepEqual(await client.getAllVersions(subject), [1]);
  assert.deepEqual(await client.deleteSubject(subject, false), [1]);
  assert.deepEqual(await client.deleteSubject(subject, true), [1]);
  await refused(40401, () => client.getAllVersions(subject));
}

await avro();
await json();
await protobuf();
await registry();
console.log(`ok Avro, JSON Schema and Protobuf, ${RECORDS} values each, by prefix and by header, with references`);
process.exit(0);
