//! Bodies of requests, read member by member: one that is not known is refused by name, as Confluent's registry does.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{
    Offer, Refusal,
    model::{Config, Content, Level, SchemaType},
};

/// Members that answers have, and that clients send back with what they got.
const PASSED_OVER: [&str; 8] = ["subject", "guid", "ts", "deleted", "schemaTags", "maxId", "ruleset", "subjectName"];
/// Members that change a schema's text, which is not done here.
const TAGS: [&str; 3] = ["schemaTagsToAdd", "schemaTagsToRemove", "propagateSchemaTags"];

fn members(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    let read = serde_json::from_slice::<Value>(body);
    match read {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(Refusal::malformed("The request's body is no JSON object")),
        Err(error) => Err(Refusal::malformed(format_args!("The request's body is no JSON: {error}"))),
    }
}

fn read<T: DeserializeOwned>(name: &str, value: Value) -> Result<T, Refusal> {
    serde_json::from_value(value).map_err(|error| Refusal::malformed(format_args!("{name}: {error}")))
}

/// A schema that is to be registered, looked up or compared.
pub(super) fn offer(body: &[u8], normalize: bool) -> Result<Offer, Refusal> {
    let mut offer = Offer { normalize, ..Offer::default() };
    let mut content = Content::default();
    let mut kind = SchemaType::Avro;
    let mut has_text = false;
    for (name, value) in members(body)?.into_iter().filter(|(_, value)| !value.is_null()) {
        match name.as_str() {
            "schema" => {
                content.schema = read(&name, value)?;
                has_text = true;
            }
            "schemaType" => kind = SchemaType::named(value.as_str().unwrap_or_default())?,
            "references" => content.references = read(&name, value)?,
            "metadata" => content.metadata = Some(read(&name, value)?),
            "ruleSet" => content.rule_set = Some(read(&name, value)?),
            // -1 and 0 stand for none.
            "id" => offer.id = u32::try_from(read::<i64>(&name, value)?).ok().filter(|id| *id > 0),
            "version" => offer.version = u32::try_from(read::<i64>(&name, value)?).ok().filter(|version| *version > 0),
            known if PASSED_OVER.contains(&known) => {}
            known if TAGS.contains(&known) => {
                if value != Value::Bool(false) && value != Value::Array(Vec::new()) {
                    return Err(Refusal::not_permitted(format_args!(
                        "{known} is not done by this registry: send the schema with its tags in it"
                    )));
                }
            }
            _ => return Err(Refusal::malformed(format_args!("Unrecognized field: {name}"))),
        }
    }
    if !has_text || content.schema.trim().is_empty() {
        return Err(Refusal::invalid_schema("Empty schema"));
    }
    content.schema_type = kind;
    offer.content = content;
    Ok(offer)
}

/// A configuration as it is after a request: what is named is set, what is null is removed, the rest stays.
pub(super) fn config(body: &[u8], before: Option<Config>) -> Result<(Config, Value), Refusal> {
    let members = members(body)?;
    let echoed = Value::Object(members.clone());
    let mut config = before.unwrap_or_default();
    for (name, value) in members {
        match name.as_str() {
            "compatibility" | "compatibilityLevel" => {
                config.compatibility_level = match value {
                    Value::Null => None,
                    Value::String(text) => Some(Level::named(&text)?),
                    _ => return Err(Refusal::invalid_level()),
                };
            }
            "alias" => config.alias = read(&name, value)?,
            "aliasForDeks" => config.alias_for_deks = read(&name, value)?,
            "normalize" => config.normalize = read(&name, value)?,
            "validateFields" => config.validate_fields = read(&name, value)?,
            "validateNewSchemas" => config.validate_new_schemas = read(&name, value)?,
            "validateRules" => config.validate_rules = read(&name, value)?,
            "compatibilityPolicy" => config.compatibility_policy = read(&name, value)?,
            "compatibilityGroup" => config.compatibility_group = read(&name, value)?,
            "defaultMetadata" => config.default_metadata = read(&name, value)?,
            "overrideMetadata" => config.override_metadata = read(&name, value)?,
            "defaultRuleSet" => config.default_rule_set = read(&name, value)?,
            "overrideRuleSet" => config.override_rule_set = read(&name, value)?,
            _ => return Err(Refusal::malformed(format_args!("Unrecognized field: {name}"))),
        }
    }
    Ok((config, echoed))
}

/// The word of a mode.
pub(super) fn mode(body: &[u8]) -> Result<crate::model::Mode, Refusal> {
    let mut members = members(body)?;
    let mode = members.remove("mode");
    if let Some(name) = members.keys().next() {
        return Err(Refusal::malformed(format_args!("Unrecognized field: {name}")));
    }
    crate::model::Mode::named(mode.as_ref().and_then(Value::as_str).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_client_sends_is_dropped_in_silence() {
        let body = |text: &str| offer(text.as_bytes(), false);
        let read = body(
            r#"{"schema": "\"int\"", "schemaType": "AVRO", "id": -1, "metadata": {"properties": {"owner": "me"}},
                "ruleSet": {"domainRules": [{"name": "r", "type": "CEL", "expr": "true"}]}}"#,
        )
        .expect("an offer");
        assert!(read.id.is_none() && read.content.metadata.is_some() && read.content.rule_set.is_some());
        for (text, code, says) in [
            (r#"{"schema": "1", "schema_type": "AVRO"}"#, 422, "Unrecognized field: schema_type"),
            (r#"{"schema": "1", "schemaType": "XML"}"#, 42201, "XML"),
            (r#"{"schema": "1", "metadata": {"labels": {}}}"#, 422, "labels"),
            (r#"{"schema": "1", "ruleSet": {"domainRules": [{"name": "r", "level": 1}]}}"#, 422, "level"),
            (r#"{"schema": "1", "schemaTagsToAdd": [{}]}"#, 42205, "schemaTagsToAdd"),
            (r#"{"schema": ""}"#, 42201, "Empty schema"),
            ("{}", 42201, "Empty schema"),
            ("[", 422, "no JSON"),
        ] {
            let refusal = body(text).expect_err(text);
            assert!(refusal.code == code && refusal.message.contains(says), "{text}: {refusal:?}");
        }
    }

    #[test]
    fn a_configuration_keeps_what_a_request_does_not_name() {
        let before =
            Config { compatibility_group: Some("g".to_owned()), alias: Some("a".to_owned()), ..Config::default() };
        let (after, echoed) =
            config(br#"{"compatibility": "full", "alias": null}"#, Some(before)).expect("a configuration");
        assert_eq!((after.compatibility_level, after.compatibility_group.as_deref()), (Some(Level::Full), Some("g")));
        assert!(after.alias.is_none() && echoed["compatibility"] == "full");
        assert_eq!(
            config(br#"{"compatibility": "SIDEWAYS"}"#, None).map_err(|refusal| refusal.code).err(),
            Some(42203)
        );
        assert_eq!(config(br#"{"level": "FULL"}"#, None).map_err(|refusal| refusal.code).err(), Some(422));
        assert_eq!(mode(br#"{"mode": "OPEN"}"#).map_err(|refusal| refusal.code).err(), Some(42204));
    }
}
