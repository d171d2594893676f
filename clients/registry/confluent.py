"""confluent-kafka for Python: its serializers in all three formats, and its registry client. See README.md."""

import argparse
import json
import time

from confluent_kafka import Consumer, Producer, TopicPartition, OFFSET_BEGINNING
from confluent_kafka.admin import AdminClient, NewTopic
from confluent_kafka.schema_registry import (
    Metadata, MetadataProperties, MetadataTags, Rule, RuleKind, RuleMode, RuleSet, Schema, SchemaReference,
    SchemaRegistryClient, ServerConfig, header_schema_id_serializer,
)
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.schema_registry.json_schema import JSONDeserializer, JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer, ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2

RECORDS = 50


def need(holds, text):
    if not holds:
        raise SystemExit(f"FAILED {text}")


def refused(code, work):
    try:
        work()
    except SchemaRegistryError as error:
        need(error.error_code == code, f"the code is {error.error_code}, not {code}: {error}")
    else:
        need(False, f"nothing was refused where {code} was due")


AVRO = json.dumps({
    "type": "record", "name": "Order", "namespace": "shop",
    "fields": [{"name": "id", "type": "long"}, {"name": "note", "type": ["null", "string"], "default": None}],
})
JSON = json.dumps({
    "$schema": "http://json-schema.org/draft-07/schema#", "title": "Order", "type": "object",
    "properties": {"id": {"type": "integer"}, "note": {"type": ["string", "null"]}},
    "required": ["id"], "additionalProperties": False,
})


def message_class():
    """A message with an import of a well-known type and one of our own, as protoc would have made it."""
    pool = descriptor_pool.Default()
    pool.Add(descriptor_pb2.FileDescriptorProto.FromString(
        descriptor_pb2.FileDescriptorProto(
            name="shop/money.proto", package="shop", syntax="proto3",
            message_type=[descriptor_pb2.DescriptorProto(name="Money", field=[
                descriptor_pb2.FieldDescriptorProto(name="cents", number=1, label=1, type=3, json_name="cents")])],
        ).SerializeToString()))
    field = descriptor_pb2.FieldDescriptorProto
    pool.Add(descriptor_pb2.FileDescriptorProto.FromString(
        descriptor_pb2.FileDescriptorProto(
            name="shop/order.proto", package="shop", syntax="proto3",
            dependency=["shop/money.proto", timestamp_pb2.DESCRIPTOR.name],
            message_type=[
                descriptor_pb2.DescriptorProto(name="Other"),
                descriptor_pb2.DescriptorProto(name="Order", field=[
                    field(name="id", number=1, label=1, type=3, json_name="id"),
                    field(name="note", number=2, label=1, type=9, json_name="note"),
                    field(name="price", number=3, label=1, type=11, type_name=".shop.Money", json_name="price"),
                    field(name="at", number=4, label=1, type=11, type_name=".google.protobuf.Timestamp", json_name="at"),
                ])],
        ).SerializeToString()))
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("shop.Order"))


def round_trip(options, name, serializer, deserializer, values, headers=False):
    """Writes values by a serializer to a topic and reads them back by its deserializer."""
    topic = f"registry.python.{name}"
    admin = AdminClient({"bootstrap.servers": options.bootstrap})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(30)
    producer = Producer({"bootstrap.servers": options.bootstrap})
    for value in values:
        carried = []
        context = SerializationContext(topic, MessageField.VALUE, carried)
        payload = serializer(value, context)
        need(bool(carried) == headers, f"{name}: the schema's id is in the wrong place")
        producer.produce(topic, payload, headers=carried)
    need(producer.flush(30) == 0, f"{name}: records stayed in the queue")
    consumer = Consumer({"bootstrap.servers": options.bootstrap, "group.id": f"{topic}.reader"})
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    back, until = [], time.monotonic() + 60
    while len(back) < len(values) and time.monotonic() < until:
        message = consumer.poll(0.5)
        if message is None:
            continue
        need(message.error() is None, str(message.error()))
        back.append(deserializer(message.value(), SerializationContext(topic, MessageField.VALUE, message.headers())))
    consumer.close()
    need(back == values, f"{name}: {len(back)} of {len(values)} values came back, or they differ")
    return topic


def plain(_value, _context):
    return _value


def avro(options, client):
    values = [{"id": i, "note": None if i % 2 else f"n{i}"} for i in range(RECORDS)]
    topic = round_trip(options, "avro", AvroSerializer(client, AVRO), AvroDeserializer(client), values)
    guid = AvroSerializer(client, AVRO, conf={"schema.id.serializer": header_schema_id_serializer})
    # The library takes no value of five bytes or fewer, wherever the id is.
    longer = [{"id": i, "note": f"note {i}"} for i in range(RECORDS)]
    round_trip(options, "avro.header", guid, AvroDeserializer(client), longer, headers=True)
    # What an old schema wrote, a new one reads with its default.
    newer = json.loads(AVRO)
    newer["fields"].append({"name": "currency", "type": "string", "default": "EUR"})
    client.register_schema(f"{topic}-value", Schema(json.dumps(newer), "AVRO"))
    context = SerializationContext(topic, MessageField.VALUE)
    written = AvroSerializer(client, AVRO, conf={"auto.register.schemas": False})(values[0], context)
    read = AvroDeserializer(client, json.dumps(newer))(written, context)
    need(read == {**values[0], "currency": "EUR"}, f"avro: the newer schema read {read}")
    broken = json.loads(AVRO)
    broken["fields"].append({"name": "must", "type": "string"})
    refused(409, lambda: client.register_schema(f"{topic}-value", Schema(json.dumps(broken), "AVRO")))
    # A named type of another subject.
    client.register_schema("shop.Order", Schema(AVRO, "AVRO"))
    holder = json.dumps({"type": "record", "name": "Basket", "namespace": "shop",
                         "fields": [{"name": "orders", "type": {"type": "array", "items": "shop.Order"}}]})
    schema = Schema(holder, "AVRO", [SchemaReference("shop.Order", "shop.Order", 1)])
    baskets = [{"orders": values[:i]} for i in range(5)]
    round_trip(options, "avro.reference", AvroSerializer(client, schema), AvroDeserializer(client), baskets)


def json_schema(options, client):
    values = [{"id": i, "note": None if i % 2 else f"n{i}"} for i in range(RECORDS)]
    topic = round_trip(options, "json", JSONSerializer(JSON, client, plain), JSONDeserializer(JSON, schema_registry_client=client), values)
    try:
        JSONSerializer(JSON, client, plain)({"id": "x"}, SerializationContext(topic, MessageField.VALUE))
        need(False, "json: a value that does not fit was written")
    except Exception as error:
        need("x" in str(error) or "integer" in str(error), f"json: {error}")
    opened = json.loads(JSON)
    opened["properties"]["more"] = {"type": "string"}
    client.register_schema(f"{topic}-value", Schema(json.dumps(opened), "JSON"))
    del opened["properties"]["note"]
    refused(409, lambda: client.register_schema(f"{topic}-value", Schema(json.dumps(opened), "JSON")))
    client.register_schema("order.json", Schema(JSON, "JSON"))
    holder = json.dumps({"$schema": "http://json-schema.org/draft-07/schema#", "title": "Basket", "type": "object",
                         "properties": {"order": {"$ref": "order.json"}}})
    schema = Schema(holder, "JSON", [SchemaReference("order.json", "order.json", 1)])
    baskets = [{"order": value} for value in values[:5]]
    round_trip(options, "json.reference", JSONSerializer(schema, client, plain),
               JSONDeserializer(schema, schema_registry_client=client), baskets)


def protobuf(options, client):
    order = message_class()
    values = [order(id=i, note=f"n{i}", price={"cents": 100 * i}, at={"seconds": i}) for i in range(RECORDS)]
    conf = {"use.deprecated.format": False}
    topic = round_trip(options, "protobuf", ProtobufSerializer(order, client, conf),
                       ProtobufDeserializer(order, conf, client), values)
    latest = client.get_latest_version(f"{topic}-value")
    need("message Order" in latest.schema.schema_str, f"protobuf: no text came back: {latest.schema.schema_str}")
    need([ref.name for ref in latest.schema.references] == ["shop/money.proto"], f"protobuf: {latest.schema.references}")
    serialized = client.get_latest_version(f"{topic}-value", fmt="serialized").schema.schema_str
    found = client.lookup_schema(f"{topic}-value", Schema(serialized, "PROTOBUF", latest.schema.references))
    need(found.version == latest.version, "protobuf: text and descriptor are not one schema")
    broken = latest.schema.schema_str.replace("int64 id = 1;", "string id = 1;")
    refused(409, lambda: client.register_schema(f"{topic}-value", Schema(broken, "PROTOBUF", latest.schema.references)))


def registry(client):
    need(sorted(client.get_schema_types()) == ["AVRO", "JSON", "PROTOBUF"], "schema types")
    described = Schema(
        AVRO, "AVRO",
        metadata=Metadata(MetadataTags({"**.note": ["PII"]}), MetadataProperties({"owner": "shop", "major": "1"}), ["owner"]),
        rule_set=RuleSet(None, [Rule("positive", None, RuleKind.CONDITION, RuleMode.WRITE, "CEL", None, None,
                                     "message.id > 0", None, None, False)], None),
    )
    registered = client.register_schema_full_response("described-value", described)
    client.clear_caches()
    for found in [client.get_schema(registered.schema_id), client.get_schema_by_guid(registered.guid),
                  client.get_latest_with_metadata("described-value", {"owner": "shop"}).schema]:
        need(found.metadata == described.metadata, f"metadata: {found.metadata}")
        need(found.rule_set.domain_rules[0].expr == "message.id > 0", f"rules: {found.rule_set}")
    need(client.lookup_schema("described-value", described).version == 1, "looked up")
    need(client.get_versions("described-value") == [1], "versions")
    need(client.get_version("described-value", 1).schema_id == registered.schema_id, "a version")
    need("described-value" in client.get_subjects_by_schema_id(registered.schema_id), "subjects of an id")
    need(client.get_schema_versions(registered.schema_id)[0].version == 1, "versions of an id")
    need("described-value" in client.get_subjects(), "subjects")
    need(client.get_referenced_by("shop.Order", 1) != [], "who refers to it")
    need(client.get_compatibility() == "BACKWARD", "the level of everything")
    need(client.set_compatibility("described-value", "FULL") is not None, "a level is set")
    need(client.get_compatibility("described-value") == "FULL", "the level of a subject")
    config = ServerConfig(compatibility_group="major", compatibility=None)
    client.set_config("described-value", config)
    need(client.get_config("described-value").compatibility_group == "major", "a configuration")
    need(client.test_compatibility("described-value", Schema(AVRO, "AVRO")), "it fits")
    need(not client.test_compatibility("described-value", Schema('"string"', "AVRO")), "it does not fit")
    need(client.test_compatibility_all_versions("described-value", Schema(AVRO, "AVRO")), "it fits all")
    client.delete_config("described-value")
    need(client.get_global_mode() == "READWRITE", "the mode of everything")
    client.update_mode("described-value", "READONLY")
    need(client.get_mode("described-value") == "READONLY", "the mode of a subject")
    refused(42205, lambda: client.register_schema("described-value", Schema('"int"', "AVRO")))
    client.delete_mode("described-value")
    client.register_schema(":.python:s", Schema('"int"', "AVRO"))
    need(".python" in client.get_contexts(), "contexts")
    client.register_schema("gone", Schema('"int"', "AVRO"))
    need(client.delete_version("gone", 1) == 1, "a version is deleted")
    need(client.delete_version("gone", 1, permanent=True) == 1, "for good")
    need(client.delete_subject("described-value") == [1], "a subject is deleted")
    need(client.delete_subject("described-value", permanent=True) == [1], "for good")
    refused(40401, lambda: client.get_versions("described-value"))
    refused(40403, lambda: client.get_schema(10_000_000))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--registry", required=True)
    options = parser.parse_args()
    client = SchemaRegistryClient({"url": options.registry})
    avro(options, client)
    json_schema(options, client)
    protobuf(options, client)
    registry(client)
    print(f"ok Avro, JSON Schema and Protobuf, {RECORDS} values each, by prefix and by header, with references")


main()
