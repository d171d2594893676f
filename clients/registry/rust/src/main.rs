//! Two crates that serialize by a registry of Confluent's kind, against Cairn's: see ../README.md. Neither speaks Kafka, so
//! their values stay in memory, and are read back by a client of their own that remembers nothing.

mod client;
mod reg;

use anyhow::{Context, bail};

/// Values of each format.
const RECORDS: i64 = 50;
const AVRO: &str = r#"{"type": "record", "name": "Order", "namespace": "shop", "fields": [
    {"name": "id", "type": "long"}, {"name": "note", "type": ["null", "string"], "default": null}]}"#;
const AVRO_BROKEN: &str = r#"{"type": "record", "name": "Order", "namespace": "shop", "fields": [
    {"name": "id", "type": "long"}, {"name": "must", "type": "string"}]}"#;
const AVRO_HOLDER: &str = r#"{"type": "record", "name": "Basket", "namespace": "shop", "fields": [
    {"name": "orders", "type": {"type": "array", "items": "shop.Order"}}]}"#;
const JSON: &str = r#"{"$schema": "http://json-schema.org/draft-07/schema#", "title": "Order", "type": "object",
    "properties": {"id": {"type": "integer"}, "note": {"type": "string"}}, "required": ["id"], "additionalProperties": false}"#;
const JSON_BROKEN: &str = r#"{"$schema": "http://json-schema.org/draft-07/schema#", "title": "Order", "type": "object",
    "properties": {"id": {"type": "string"}}, "required": ["id"], "additionalProperties": false}"#;
/// What the library may not write by [`JSON`].
const JSON_MISFIT: &str = r#"{"id": "no number"}"#;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let after = |name: &str| arguments.iter().skip_while(|given| *given != name).nth(1).map(String::as_str);
    let url = after("--registry").context("--registry URL is missing")?;
    match after("--library") {
        Some("schema-registry-client") => client::run(url).await?,
        Some("schemreg") => reg::run(url).await?,
        other => bail!("--library is schema-registry-client or schemreg, not {other:?}"),
    }
    println!("ok Avro, JSON Schema and Protobuf, {RECORDS} values each, by id and by GUID, in memory");
    Ok(())
}

/// An order of that number, as Avro has it.
fn order(id: i64) -> apache_avro::types::Value {
    use apache_avro::types::Value;
    let note = if id % 2 == 0 {
        Value::Union(1, Value::String(format!("n{id}")).into())
    } else {
        Value::Union(0, Value::Null.into())
    };
    Value::Record(vec![("id".to_owned(), Value::Long(id)), ("note".to_owned(), note)])
}
