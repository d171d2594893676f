//! schema-registry-client: its serializers in all three formats, and its registry client.

use std::collections::HashMap;

use anyhow::{Context, anyhow, bail, ensure};
use apache_avro::types::Value as Avro;
use prost_reflect::{
    DescriptorPool,
    prost_types::{
        DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
        field_descriptor_proto::{Label, Type},
    },
};
use schema_registry_client::{
    rest::{
        apis::Error,
        client_config::ClientConfig,
        models::{CompatibilityLevel, Metadata, Schema, SchemaReference, ServerConfig},
        schema_registry_client::{Client, SchemaRegistryClient},
    },
    serdes::{
        avro::{AvroDeserializer, AvroSerializer},
        config::{DeserializerConfig, SerializerConfig},
        json::{JsonDeserializer, JsonSerializer},
        protobuf::{ProtobufDeserializer, ProtobufSerializer},
        serde::{SerdeError, SerdeFormat, SerdeHeaders, SerdeType, SerializationContext, header_schema_id_serializer},
    },
};
use serde_json::json;

use crate::{AVRO, AVRO_BROKEN, AVRO_HOLDER, JSON, JSON_BROKEN, JSON_MISFIT, RECORDS, order};

pub(crate) async fn run(url: &str) -> anyhow::Result<()> {
    for by_guid in [false, true] {
        avro(url, by_guid).await.context("Avro")?;
        json_schema(url, by_guid).await.context("JSON Schema")?;
        protobuf(url, by_guid).await.context("Protobuf")?;
    }
    registry(&client(url)).await.context("the registry")
}

fn client(url: &str) -> SchemaRegistryClient {
    SchemaRegistryClient::new(ClientConfig::new(vec![url.to_owned()]))
}

fn schema(kind: &str, text: &str) -> Schema {
    Schema::new(Some(kind.to_owned()), text.to_owned())
}

fn refers(kind: &str, text: &str, to: &str) -> Schema {
    let reference = SchemaReference { name: Some(to.to_owned()), subject: Some(to.to_owned()), version: Some(1) };
    Schema { references: Some(vec![reference]), ..schema(kind, text) }
}

/// The crate's errors cannot go from one thread to another, as others can.
fn plain(error: SerdeError) -> anyhow::Error {
    anyhow!("{error}")
}

/// The id goes before the value, or the GUID into a header.
fn writes(by_guid: bool) -> SerializerConfig {
    let mut config = SerializerConfig { validate: true, ..SerializerConfig::default() };
    if by_guid {
        config.schema_id_serializer = header_schema_id_serializer;
    }
    config
}

fn context(name: &str, by_guid: bool, serde_format: SerdeFormat) -> SerializationContext {
    let topic = format!("registry.rust.{name}{}", if by_guid { ".header" } else { "" });
    let headers = Some(SerdeHeaders::new(Vec::new()));
    SerializationContext { topic, serde_type: SerdeType::Value, serde_format, headers }
}

fn carried(context: &SerializationContext) -> bool {
    context.headers.as_ref().is_some_and(|headers| headers.count() > 0)
}

/// Requires that a registration is refused with that status.
async fn refused(client: &SchemaRegistryClient, subject: &str, schema: &Schema) -> anyhow::Result<()> {
    match client.register_schema(subject, schema, false).await {
        Err(Error::ResponseError(said)) if said.status == 409 => Ok(()),
        Err(error) => bail!("{subject}: 409 was due, not {error}"),
        Ok(_) => bail!("{subject}: a change that breaks was registered"),
    }
}

async fn avro(url: &str, by_guid: bool) -> anyhow::Result<()> {
    let (writer, reader) = (client(url), client(url));
    let orders = schema("AVRO", AVRO);
    let to = AvroSerializer::new(&writer, Some(&orders), None, writes(by_guid)).map_err(plain)?;
    let from = AvroDeserializer::new(&reader, None, DeserializerConfig::default()).map_err(plain)?;
    for id in 0..RECORDS {
        let context = context("avro", by_guid, SerdeFormat::Avro);
        let bytes = to.serialize(&context, order(id)).await.map_err(plain)?;
        ensure!(carried(&context) == by_guid, "the schema's id is in the wrong place");
        let back = from.deserialize(&context, &bytes).await.map_err(plain)?.value;
        ensure!(back == order(id), "{back:?} came back for {id}");
    }
    let subject = format!("{}-value", context("avro", by_guid, SerdeFormat::Avro).topic);
    refused(&writer, &subject, &schema("AVRO", AVRO_BROKEN)).await?;
    // A named type of another subject.
    writer.register_schema("shop.Order", &orders, false).await?;
    let baskets = refers("AVRO", AVRO_HOLDER, "shop.Order");
    let to = AvroSerializer::new(&writer, Some(&baskets), None, writes(by_guid)).map_err(plain)?;
    let context = context("avro.reference", by_guid, SerdeFormat::Avro);
    let basket = Avro::Record(vec![("orders".to_owned(), Avro::Array(vec![order(1), order(2)]))]);
    let bytes = to.serialize(&context, basket.clone()).await.map_err(plain)?;
    ensure!(from.deserialize(&context, &bytes).await.map_err(plain)?.value == basket, "a basket differs");
    Ok(())
}

async fn json_schema(url: &str, by_guid: bool) -> anyhow::Result<()> {
    let (writer, reader) = (client(url), client(url));
    let orders = schema("JSON", JSON);
    let to = JsonSerializer::new(&writer, Some(&orders), None, writes(by_guid)).map_err(plain)?;
    let from = JsonDeserializer::new(&reader, None, DeserializerConfig::default()).map_err(plain)?;
    for id in 0..RECORDS {
        let context = context("json", by_guid, SerdeFormat::Json);
        let value = json!({"id": id, "note": format!("n{id}")});
        let bytes = to.serialize(&context, value.clone()).await.map_err(plain)?;
        ensure!(carried(&context) == by_guid, "the schema's id is in the wrong place");
        let back = from.deserialize(&context, &bytes).await.map_err(plain)?;
        ensure!(back == value, "{back} came back for {id}");
    }
    let misfit = serde_json::from_str(JSON_MISFIT)?;
    let written = to.serialize(&context("json", by_guid, SerdeFormat::Json), misfit).await;
    ensure!(written.is_err(), "a value that does not fit was written");
    let subject = format!("{}-value", context("json", by_guid, SerdeFormat::Json).topic);
    refused(&writer, &subject, &schema("JSON", JSON_BROKEN)).await?;
    writer.register_schema("order.json", &orders, false).await?;
    let holder = r#"{"type": "object", "properties": {"order": {"$ref": "order.json"}}}"#;
    let baskets = refers("JSON", holder, "order.json");
    let to = JsonSerializer::new(&writer, Some(&baskets), None, writes(by_guid)).map_err(plain)?;
    let context = context("json.reference", by_guid, SerdeFormat::Json);
    let basket = json!({"order": {"id": 1}});
    let bytes = to.serialize(&context, basket.clone()).await.map_err(plain)?;
    ensure!(from.deserialize(&context, &bytes).await.map_err(plain)? == basket, "a basket differs");
    Ok(())
}

#[derive(Clone, PartialEq, prost::Message)]
struct Money {
    #[prost(int64, tag = "1")]
    cents: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Order {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(string, tag = "2")]
    note: String,
    #[prost(message, optional, tag = "3")]
    price: Option<Money>,
}

fn field(name: &str, number: i32, of: Type) -> FieldDescriptorProto {
    FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        label: Some(Label::Optional as i32),
        r#type: Some(of as i32),
        json_name: Some(name.to_owned()),
        ..FieldDescriptorProto::default()
    }
}

fn file(name: &str, imports: &[&str], messages: Vec<DescriptorProto>) -> FileDescriptorProto {
    FileDescriptorProto {
        name: Some(name.to_owned()),
        package: Some("shop".to_owned()),
        syntax: Some("proto3".to_owned()),
        dependency: imports.iter().map(|name| (*name).to_owned()).collect(),
        message_type: messages,
        ..FileDescriptorProto::default()
    }
}

fn message(name: &str, fields: Vec<FieldDescriptorProto>) -> DescriptorProto {
    DescriptorProto { name: Some(name.to_owned()), field: fields, ..DescriptorProto::default() }
}

/// What protoc would have made of two files, the second of which imports the first.
fn files() -> FileDescriptorSet {
    let price = FieldDescriptorProto { type_name: Some(".shop.Money".to_owned()), ..field("price", 3, Type::Message) };
    let fields = vec![field("id", 1, Type::Int64), field("note", 2, Type::String), price];
    FileDescriptorSet {
        file: vec![
            file("shop/money.proto", &[], vec![message("Money", vec![field("cents", 1, Type::Int64)])]),
            file("shop/order.proto", &["shop/money.proto"], vec![message("Other", vec![]), message("Order", fields)]),
        ],
    }
}

async fn protobuf(url: &str, by_guid: bool) -> anyhow::Result<()> {
    let (writer, reader) = (client(url), client(url));
    let pool = DescriptorPool::from_file_descriptor_set(files())?;
    let descriptor = pool.get_message_by_name("shop.Order").context("the message")?;
    let to = ProtobufSerializer::new(&writer, None, writes(by_guid)).map_err(plain)?;
    let from = ProtobufDeserializer::new(&reader, None, DeserializerConfig::default()).map_err(plain)?;
    for id in 0..RECORDS {
        let context = context("protobuf", by_guid, SerdeFormat::Protobuf);
        let value = Order { id, note: format!("n{id}"), price: Some(Money { cents: 100 * id }) };
        let bytes = to.serialize_with_message_desc(&context, &value, &descriptor).await.map_err(plain)?;
        ensure!(carried(&context) == by_guid, "the schema's id is in the wrong place");
        let back: Order = from.deserialize(&context, &bytes).await.map_err(plain)?;
        ensure!(back == value, "{back:?} came back for {id}");
    }
    let subject = format!("{}-value", context("protobuf", by_guid, SerdeFormat::Protobuf).topic);
    let latest = writer.get_latest_version(&subject, None).await?;
    let text = latest.schema.context("a text")?;
    ensure!(text.contains("message Order"), "no text came back: {text}");
    let broken = Schema {
        references: latest.references,
        ..schema("PROTOBUF", &text.replace("int64 id = 1;", "string id = 1;"))
    };
    refused(&writer, &subject, &broken).await
}

async fn registry(client: &SchemaRegistryClient) -> anyhow::Result<()> {
    let properties = [("owner".to_owned(), "shop".to_owned())];
    let metadata = Metadata { properties: Some(properties.clone().into()), ..Metadata::new() };
    let described = Schema { metadata: Some(Box::new(metadata)), ..schema("AVRO", AVRO) };
    let made = client.register_schema("described-value", &described, false).await?;
    let (id, guid) = (made.id.context("an id")?, made.guid.context("a GUID")?);
    client.clear_caches();
    for found in [client.get_by_subject_and_id(None, id, None).await?, client.get_by_guid(&guid, None).await?] {
        ensure!(found.metadata == described.metadata, "{found:?}");
    }
    let owned = client.get_latest_with_metadata("described-value", &HashMap::from(properties), false, None).await?;
    ensure!(owned.version == Some(1), "{owned:?}");
    ensure!(client.get_by_schema("described-value", &described, false, false).await?.version == Some(1), "looked up");
    ensure!(client.get_version("described-value", 1, false, None).await?.id == Some(id), "a version");
    ensure!(client.get_all_versions("described-value").await? == [1], "versions");
    ensure!(client.get_all_subjects(false).await?.contains(&"described-value".to_owned()), "subjects");
    ensure!(
        client.get_default_config().await?.compatibility_level == Some(CompatibilityLevel::Backward),
        "the usual level"
    );
    let full = ServerConfig { compatibility: Some(CompatibilityLevel::Full), ..ServerConfig::new() };
    client.update_config("described-value", &full).await?;
    let config = client.get_config("described-value").await?;
    ensure!(config.compatibility_level == Some(CompatibilityLevel::Full), "{config:?}");
    // Its tests of compatibility are left out: 0.4.2 reads Confluent's answer, which is an object, as a boolean.
    ensure!(client.delete_subject_version("described-value", 1, false).await? == 1, "a version is deleted");
    ensure!(client.delete_subject_version("described-value", 1, true).await? == 1, "for good");
    client.register_schema("gone", &schema("AVRO", "\"int\""), false).await?;
    ensure!(client.delete_subject("gone", false).await? == [1], "a subject is deleted");
    ensure!(client.delete_subject("gone", true).await? == [1], "for good");
    client.clear_caches();
    let said = client.get_latest_version("gone", None).await;
    ensure!(matches!(&said, Err(Error::ResponseError(said)) if said.status == 404), "{said:?}");
    Ok(())
}
