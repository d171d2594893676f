// confluent-kafka-go: its serializers in all three formats, and its registry client. See ../README.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"github.com/confluentinc/confluent-kafka-go/v2/schemaregistry"
	"github.com/confluentinc/confluent-kafka-go/v2/schemaregistry/serde"
	"github.com/confluentinc/confluent-kafka-go/v2/schemaregistry/serde/avrov2"
	"github.com/confluentinc/confluent-kafka-go/v2/schemaregistry/serde/jsonschema"
	"github.com/confluentinc/confluent-kafka-go/v2/schemaregistry/serde/protobuf"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/apipb"
	"google.golang.org/protobuf/types/known/typepb"
)

const records = 50

func need(holds bool, words string, values ...any) {
	if !holds {
		fmt.Printf("FAILED "+words+"\n", values...)
		os.Exit(1)
	}
}

func fine(err error, what string) {
	need(err == nil, "%s: %v", what, err)
}

// Order is written as Avro and as JSON.
type Order struct {
	ID   int64  `avro:"id" json:"id"`
	Note string `avro:"note" json:"note"`
}

const avroSchema = `{"type": "record", "name": "Order", "namespace": "shop", "fields": [{"name": "id", "type": "long"}, {"name": "note", "type": "string"}]}`

// roundTrip writes values by a serializer to a topic and reads them back by its deserializer.
func roundTrip(bootstrap, topic string, writer serde.Serializer, values []any, read func([]kafka.Header, []byte) (any, error)) {
	admin, err := kafka.NewAdminClient(&kafka.ConfigMap{"bootstrap.servers": bootstrap})
	fine(err, "admin")
	defer admin.Close()
	_, err = admin.CreateTopics(context.Background(), []kafka.TopicSpecification{{Topic: topic, NumPartitions: 1, ReplicationFactor: 1}})
	fine(err, "topic")
	producer, err := kafka.NewProducer(&kafka.ConfigMap{"bootstrap.servers": bootstrap})
	fine(err, "producer")
	go func() {
		for range producer.Events() {
		}
	}()
	for _, value := range values {
		headers, payload, err := writer.SerializeWithHeaders(topic, value)
		fine(err, topic+" serialize")
		fine(producer.Produce(&kafka.Message{TopicPartition: kafka.TopicPartition{Topic: &topic, Partition: 0}, Value: payload, Headers: headers}, nil), "produce")
	}
	need(producer.Flush(30000) == 0, "%s: records stayed in the queue", topic)
	producer.Close()
	consumer, err := kafka.NewConsumer(&kafka.ConfigMap{"bootstrap.servers": bootstrap, "group.id": topic + ".reader"})
	fine(err, "consumer")
	defer consumer.Close()
	fine(consumer.Assign([]kafka.TopicPartition{{Topic: &topic, Partition: 0, Offset: kafka.OffsetBeginning}}), "assign")
	deadline := time.Now().Add(time.Minute)
	for at := 0; at < len(values); {
		need(time.Now().Before(deadline), "%s: only %d values came back", topic, at)
		message, err := consumer.ReadMessage(500 * time.Millisecond)
		if err != nil {
			continue
		}
		value, err := read(message.Headers, message.Value)
		fine(err, topic+" deserialize")
		if wanted, ok := values[at].(proto.Message); ok {
			need(proto.Equal(wanted, value.(proto.Message)), "%s: %v is not %v", topic, value, wanted)
		} else {
			need(reflect.DeepEqual(value, values[at]), "%s: %v is not %v", topic, value, values[at])
		}
		at++
	}
}

func orders() []any {
	values := make([]any, records)
	for i := range values {
		values[i] = &Order{ID: int64(i), Note: fmt.Sprintf("n%d", i)}
	}
	return values
}

func avro(bootstrap string, client schemaregistry.Client) {
	for _, inHeader := range []bool{false, true} {
		topic := map[bool]string{false: "registry.go.avro", true: "registry.go.avro.header"}[inHeader]
		_, err := client.Register(topic+"-value", schemaregistry.SchemaInfo{Schema: avroSchema, SchemaType: "AVRO"}, true)
		fine(err, "register")
		conf := avrov2.NewSerializerConfig()
		conf.AutoRegisterSchemas = false
		conf.UseLatestVersion = true
		writer, err := avrov2.NewSerializer(client, serde.ValueSerde, conf)
		fine(err, "avro serializer")
		if inHeader {
			writer.SchemaIDSerializer = serde.HeaderSchemaIDSerializer
		}
		reader, err := avrov2.NewDeserializer(client, serde.ValueSerde, avrov2.NewDeserializerConfig())
		fine(err, "avro deserializer")
		roundTrip(bootstrap, topic, writer, orders(), func(headers []kafka.Header, payload []byte) (any, error) {
			value := &Order{}
			return value, reader.DeserializeWithHeadersInto(topic, headers, payload, value)
		})
	}
}

func json(bootstrap string, client schemaregistry.Client) {
	topic := "registry.go.json"
	writer, err := jsonschema.NewSerializer(client, serde.ValueSerde, jsonschema.NewSerializerConfig())
	fine(err, "json serializer")
	reader, err := jsonschema.NewDeserializer(client, serde.ValueSerde, jsonschema.NewDeserializerConfig())
	fine(err, "json deserializer")
	roundTrip(bootstrap, topic, writer, orders(), func(headers []kafka.Header, payload []byte) (any, error) {
		value := &Order{}
		return value, reader.DeserializeWithHeadersInto(topic, headers, payload, value)
	})
}

// A message of Google's own that imports two other files, which become references.
func protobufs(bootstrap string, client schemaregistry.Client) {
	topic := "registry.go.protobuf"
	writer, err := protobuf.NewSerializer(client, serde.ValueSerde, protobuf.NewSerializerConfig())
	fine(err, "protobuf serializer")
	reader, err := protobuf.NewDeserializer(client, serde.ValueSerde, protobuf.NewDeserializerConfig())
	fine(err, "protobuf deserializer")
	fine(reader.ProtoRegistry.RegisterMessage((&apipb.Api{}).ProtoReflect().Type()), "a message type")
	values := make([]any, records)
	for i := range values {
		values[i] = &apipb.Api{Name: fmt.Sprintf("n%d", i), Options: []*typepb.Option{{Name: "o"}}}
	}
	roundTrip(bootstrap, topic, writer, values, func(headers []kafka.Header, payload []byte) (any, error) {
		return reader.DeserializeWithHeaders(topic, headers, payload)
	})
	latest, err := client.GetLatestSchemaMetadata(topic + "-value")
	fine(err, "latest")
	need(strings.Contains(latest.Schema, "message Api") || len(latest.Schema) > 100, "protobuf: %s", latest.Schema)
}

func registry(client schemaregistry.Client) {
	subject := "registry.go.client"
	first := schemaregistry.SchemaInfo{Schema: avroSchema, SchemaType: "AVRO", Metadata: &schemaregistry.Metadata{Properties: map[string]string{"owner": "shop"}}}
	full, err := client.RegisterFullResponse(subject, first, false)
	fine(err, "register")
	need(full.ID > 0 && full.GUID != "", "no id or no GUID: %v", full)
	fine(client.ClearCaches(), "caches")
	byGUID, err := client.GetByGUID(full.GUID)
	fine(err, "by GUID")
	need(byGUID.Metadata != nil && byGUID.Metadata.Properties["owner"] == "shop", "metadata: %v", byGUID.Metadata)
	_, err = client.GetBySubjectAndID(subject, full.ID)
	fine(err, "by id")
	places, err := client.GetSubjectsAndVersionsByID(full.ID)
	need(err == nil && len(places) == 1 && places[0].Version == 1, "places: %v %v", places, err)
	id, err := client.GetID(subject, first, false)
	need(err == nil && id == full.ID, "look-up: %v %v", id, err)
	version, err := client.GetVersion(subject, first, false)
	need(err == nil && version == 1, "version: %v %v", version, err)
	_, err = client.GetLatestWithMetadata(subject, map[string]string{"owner": "shop"}, false)
	fine(err, "by metadata")
	_, err = client.UpdateCompatibility(subject, schemaregistry.Full)
	fine(err, "set a level")
	level, err := client.GetCompatibility(subject)
	need(err == nil && level == schemaregistry.Full, "level: %v %v", level, err)
	level, err = client.GetDefaultCompatibility()
	need(err == nil && level == schemaregistry.Backward, "default level: %v %v", level, err)
	fits, err := client.TestCompatibility(subject, 1, schemaregistry.SchemaInfo{Schema: `"string"`})
	need(err == nil && !fits, "fits: %v %v", fits, err)
	fits, err = client.TestSubjectCompatibility(subject, first)
	need(err == nil && fits, "fits: %v %v", fits, err)
	_, err = client.Register(subject, schemaregistry.SchemaInfo{Schema: `"string"`}, false)
	need(err != nil && strings.Contains(err.Error(), "incompatible"), "nothing was refused: %v", err)
	subjects, err := client.GetAllSubjects()
	need(err == nil && len(subjects) > 0, "subjects: %v", err)
	contexts, err := client.GetAllContexts()
	need(err == nil && contexts[0] == ".", "contexts: %v %v", contexts, err)
	versions, err := client.GetAllVersions(subject)
	need(err == nil && len(versions) == 1, "versions: %v %v", versions, err)
	_, err = client.DeleteSubjectVersion(subject, 1, false)
	fine(err, "delete a version")
	_, err = client.GetSchemaMetadataIncludeDeleted(subject, 1, true)
	fine(err, "a deleted version")
	_, err = client.DeleteSubject(subject, true)
	fine(err, "delete for good")
}

func main() {
	bootstrap := flag.String("bootstrap", "", "HOST:PORT")
	url := flag.String("registry", "", "URL")
	flag.Parse()
	client, err := schemaregistry.NewClient(schemaregistry.NewConfig(*url))
	fine(err, "client")
	avro(*bootstrap, client)
	json(*bootstrap, client)
	protobufs(*bootstrap, client)
	registry(client)
	fmt.Printf("ok Avro, JSON Schema and Protobuf, %d values each, by prefix and by header, with references\n", records)
}
