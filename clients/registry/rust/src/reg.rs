//! schemreg: its encoders in all three formats, and its client of Confluent's registry.

use std::sync::Arc;

use anyhow::{Context, ensure};
use apache_avro::types::Value as Avro;
use prost_reflect_16::{
    DescriptorPool, DynamicMessage, Value,
    prost_types::{
        DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
        field_descriptor_proto::{Label, Type},
    },
};
use schemreg::{
    ConfluentSchemaRegistry, EncodeTarget, SchemaKey, SchemaReference, SchemaRegistryClient, SchemaType, SchemaVersion,
    avro::{AvroSchemaDecoder, AvroSchemaEncoder},
    decode_wire_format, encode_wire_format,
    json::{JsonSchemaDecoder, JsonSchemaEncoder},
    protobuf::{ProtobufSchemaDecoder, ProtobufSchemaEncoder},
};
use serde_json::json;

use crate::{AVRO, AVRO_BROKEN, AVRO_HOLDER, JSON, JSON_BROKEN, JSON_MISFIT, RECORDS, order};

/// The first message is not the one that is written.
const PROTOBUF: &str = "syntax = \"proto3\";\npackage shop;\n\nmessage Other {\n}\n\nmessage Order {\n  int64 id = 1;\n  string note = 2;\n}\n";

pub(crate) async fn run(url: &str) -> anyhow::Result<()> {
    let registry = client(url)?;
    avro(url).await.context("Avro")?;
    json_schema(url).await.context("JSON Schema")?;
    protobuf(url).await.context("Protobuf")?;
    asked(&registry).await.context("the registry")
}

fn client(url: &str) -> anyhow::Result<Arc<ConfluentSchemaRegistry>> {
    Ok(Arc::new(ConfluentSchemaRegistry::builder().url(url).build()?))
}

/// The same value behind the schema's GUID in the place of its id.
async fn by_guid(registry: &ConfluentSchemaRegistry, framed: &[u8]) -> anyhow::Result<Vec<u8>> {
    let (key, payload) = decode_wire_format(framed)?;
    let SchemaKey::Id(id) = key else { anyhow::bail!("{key} is no id") };
    let guid = registry.get_schema_by_id(id).await?.guid.context("the registry says no GUID")?;
    Ok(encode_wire_format(guid, payload).to_vec())
}

async fn refused(
    registry: &ConfluentSchemaRegistry,
    subject: &str,
    text: &str,
    kind: SchemaType,
) -> anyhow::Result<()> {
    let refused = registry.register_schema(subject, text, kind, &[]).await;
    let error = refused.err().context("a change that breaks was registered")?;
    // Its own word for it is 40901, as the newest of Confluent's registries say.
    ensure!(error.error_code() == Some(409), "{subject}: {error}");
    Ok(())
}

async fn avro(url: &str) -> anyhow::Result<()> {
    let (writer, reader) = (client(url)?, client(url)?);
    let to = AvroSchemaEncoder::builder().registry(writer.clone()).schema(AVRO).build()?;
    let from = AvroSchemaDecoder::new(reader.clone());
    for id in 0..RECORDS {
        let framed = to.encode(order(id), "schemreg.avro", EncodeTarget::Value).await?;
        ensure!(from.decode(framed.clone()).await? == order(id), "{id} differs");
        let guid = by_guid(&reader, &framed).await?;
        ensure!(from.decode(guid.into()).await? == order(id), "{id} differs behind its GUID");
    }
    refused(&writer, "schemreg.avro-value", AVRO_BROKEN, SchemaType::Avro).await?;
    // A named type of another subject.
    let reference = SchemaReference::new("shop.Order", "schemreg.avro-value", 1i32);
    let to = AvroSchemaEncoder::builder().registry(writer).schema(AVRO_HOLDER).dependencies([AVRO]);
    let to = to.references(vec![reference]).build()?;
    let basket = Avro::Record(vec![("orders".to_owned(), Avro::Array(vec![order(1), order(2)]))]);
    let framed = to.encode(basket.clone(), "schemreg.basket", EncodeTarget::Value).await?;
    ensure!(from.decode(framed).await? == basket, "a basket differs");
    Ok(())
}

async fn json_schema(url: &str) -> anyhow::Result<()> {
    let (writer, reader) = (client(url)?, client(url)?);
    let to = JsonSchemaEncoder::builder().registry(writer.clone()).schema(JSON).build()?;
    let from = JsonSchemaDecoder::with_validation(reader.clone());
    for id in 0..RECORDS {
        let value = json!({"id": id, "note": format!("n{id}")});
        let framed = to.encode(&value, "schemreg.json", EncodeTarget::Value).await?;
        ensure!(from.decode(framed.clone()).await? == value, "{id} differs");
        let guid = by_guid(&reader, &framed).await?;
        ensure!(from.decode(guid.into()).await? == value, "{id} differs behind its GUID");
    }
    let misfit: serde_json::Value = serde_json::from_str(JSON_MISFIT)?;
    ensure!(to.encode(&misfit, "schemreg.json", EncodeTarget::Value).await.is_err(), "what does not fit was written");
    refused(&writer, "schemreg.json-value", JSON_BROKEN, SchemaType::Json).await
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

/// What protoc would have made of [`PROTOBUF`].
fn pool() -> anyhow::Result<DescriptorPool> {
    let message =
        |name: &str, field| DescriptorProto { name: Some(name.to_owned()), field, ..DescriptorProto::default() };
    let fields = vec![field("id", 1, Type::Int64), field("note", 2, Type::String)];
    let file = FileDescriptorProto {
        name: Some("shop.proto".to_owned()),
        package: Some("shop".to_owned()),
        syntax: Some("proto3".to_owned()),
        message_type: vec![message("Other", vec![]), message("Order", fields)],
        ..FileDescriptorProto::default()
    };
    Ok(DescriptorPool::from_file_descriptor_set(FileDescriptorSet { file: vec![file] })?)
}

async fn protobuf(url: &str) -> anyhow::Result<()> {
    let (writer, reader) = (client(url)?, client(url)?);
    let descriptor = pool()?.get_message_by_name("shop.Order").context("the message")?;
    let to = ProtobufSchemaEncoder::builder().registry(writer.clone()).schema(PROTOBUF).descriptor(descriptor.clone());
    let to = to.build()?;
    let from = ProtobufSchemaDecoder::new(reader.clone());
    // From one on: a message that holds a zero is not equal to one that lacks it.
    for id in 1..=RECORDS {
        let mut value = DynamicMessage::new(descriptor.clone());
        value.set_field_by_name("id", Value::I64(id));
        value.set_field_by_name("note", Value::String(format!("n{id}")));
        let framed = to.encode(&value, "schemreg.protobuf", EncodeTarget::Value).await?;
        for framed in [framed.to_vec(), by_guid(&reader, &framed).await?] {
            let unframed = from.unframe(&framed.into())?;
            let back = DynamicMessage::decode(descriptor.clone(), unframed.payload.clone())?;
            ensure!(back == value && unframed.message_indexes == [1], "{id}: {back} {:?}", unframed.message_indexes);
        }
    }
    refused(&writer, "schemreg.protobuf-value", &PROTOBUF.replace("int64 id", "string id"), SchemaType::Protobuf).await
}

async fn asked(registry: &ConfluentSchemaRegistry) -> anyhow::Result<()> {
    let made = registry.register_schema("asked-value", AVRO, SchemaType::Avro, &[]).await?;
    let latest = registry.get_latest_schema("asked-value").await?;
    ensure!(latest.id == Some(made) && latest.version == Some(SchemaVersion::new(1)), "{latest:?}");
    let guid = latest.guid.context("a GUID")?;
    ensure!(registry.get_schema_by_guid(guid).await?.schema == latest.schema, "by its GUID");
    let found = registry.lookup_schema("asked-value", AVRO, SchemaType::Avro, &[]).await?.context("it is there")?;
    ensure!(found.version == latest.version, "{found:?}");
    ensure!(registry.lookup_schema("nothing", AVRO, SchemaType::Avro, &[]).await?.is_none(), "it is not there");
    let level = registry.get_compatibility("asked-value").await?;
    ensure!(level == schemreg::CompatibilityLevel::Backward, "{level:?}");
    ensure!(
        registry.delete_version("asked-value", SchemaVersion::new(1), false).await? == SchemaVersion::new(1),
        "deleted"
    );
    ensure!(
        registry.delete_version("asked-value", SchemaVersion::new(1), true).await? == SchemaVersion::new(1),
        "for good"
    );
    let error = registry.get_latest_schema("asked-value").await.err().context("it is gone")?;
    ensure!(error.is_not_found(), "{error}");
    Ok(())
}
