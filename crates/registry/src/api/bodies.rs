//! Bodies of requests, read member by member: one that is not known is refused by name, as Confluent's registry does.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::query::Asked;
use crate::{
    Offer, Refusal,
    model::{Config, Content, Level, Mode, SchemaType},
};

/// Members that answers have, and that clients send back with what they got.
const PASSED_OVER: [&str; 8] = ["subject", "guid", "ts", "deleted", "schemaTags", "maxId", "ruleset", "subjectName"];
/// Members that change a schema's text, which is not done here.
const TAGS: [&str; 3] = ["schemaTagsToAdd", "schemaTagsToRemove", "propagateSchemaTags"];

fn members(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    let decoded = wide(body);
    let read = serde_json::from_slice::<Value>(decoded.as_deref().map_or(body, str::as_bytes));
    match read {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(Refusal::malformed("The request's body is no JSON object")),
        Err(error) => Err(Refusal::malformed(format_args!("The request's body is no JSON: {error}"))),
    }
}

/// A body in UTF-16 as text, known by its first two bytes: JSON may come so.
fn wide(body: &[u8]) -> Option<String> {
    let (to_unit, rest): (fn([u8; 2]) -> u16, _) = match body {
        [0xff, 0xfe, rest @ ..] => (u16::from_le_bytes, rest),
        [0xfe, 0xff, rest @ ..] => (u16::from_be_bytes, rest),
        _ => return None,
    };
    let units: Vec<u16> = rest.chunks_exact(2).map(|pair| to_unit([pair[0], pair[1]])).collect();
    String::from_utf16(&units).ok()
}

fn read<T: DeserializeOwned>(name: &str, value: Value) -> Result<T, Refusal> {
    serde_json::from_value(value).map_err(|error| Refusal::malformed(format_args!("{name}: {error}")))
}

/// A schema that is to be registered, looked up or compared. One without a text is for the registry to judge.
pub(super) fn offer(body: &[u8], asked: &Asked) -> Result<Offer, Refusal> {
    let mut offer = Offer { normalize: asked.flag("normalize"), force: asked.flag("force"), ..Offer::default() };
    let mut content = Content::default();
    let mut kind = SchemaType::Avro;
    for (name, value) in members(body)?.into_iter().filter(|(_, value)| !value.is_null()) {
        match name.as_str() {
            "schema" => content.schema = read(&name, value)?,
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
            _ => unknown(&name, asked)?,
        }
    }
    content.schema_type = kind;
    offer.content = content;
    Ok(offer)
}

/// A configuration as it is after a request: what is named is set, what is null is removed, the rest stays.
pub(super) fn config(body: &[u8], before: Option<Config>, asked: &Asked) -> Result<Config, Refusal> {
    let members = members(body)?;
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
            _ => unknown(&name, asked)?,
        }
    }
    Ok(config)
}

/// A member that is not known, refused unless the client says that it may be.
fn unknown(name: &str, asked: &Asked) -> Result<(), Refusal> {
    if asked.takes_unknown { Ok(()) } else { Err(Refusal::malformed(format_args!("Unrecognized field: {name}"))) }
}

/// The word of a mode; null is none.
pub(super) fn mode(body: &[u8]) -> Result<Option<Mode>, Refusal> {
    let mut members = members(body)?;
    let mode = members.remove("mode");
    if let Some(name) = members.keys().next() {
        return Err(Refusal::malformed(format_args!("Unrecognized field: {name}")));
    }
    match mode {
        Some(Value::Null) => Ok(None),
        mode => Mode::named(mode.as_ref().and_then(Value::as_str).unwrap_or_default()).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_client_sends_is_dropped_in_silence() {
        let body = |text: &str| offer(text.as_bytes(), &Asked::default());
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
            ("[", 422, "no JSON"),
            ("-1", 422, "no JSON object"),
        ] {
            let refusal = body(text).expect_err(text);
            assert!(refusal.code == code && refusal.message.contains(says), "{text}: {refusal:?}");
        }
        let lives_with_it = Asked { takes_unknown: true, ..Asked::default() };
        assert!(offer(br#"{"schema": "1", "schema_type": "AVRO"}"#, &lives_with_it).is_ok(), "the client says so");
    }

    #[test]
    fn a_configuration_keeps_what_a_request_does_not_name() {
        let asked = Asked::default();
        let before =
            Config { compatibility_group: Some("g".to_owned()), alias: Some("a".to_owned()), ..Config::default() };
        let after =
            config(br#"{"compatibility": "full", "alias": null}"#, Some(before), &asked).expect("a configuration");
        assert_eq!((after.compatibility_level, after.compatibility_group.as_deref()), (Some(Level::Full), Some("g")));
        assert!(after.alias.is_none());
        assert_eq!(
            config(br#"{"compatibility": "SIDEWAYS"}"#, None, &asked).map_err(|refusal| refusal.code).err(),
            Some(42203)
        );
        assert_eq!(config(br#"{"level": "FULL"}"#, None, &asked).map_err(|refusal| refusal.code).err(), Some(422));
        assert_eq!(mode(br#"{"mode": "OPEN"}"#).map_err(|refusal| refusal.code).err(), Some(42204));
        assert_eq!(mode(br#"{"mode": null}"#), Ok(None));
    }

    #[test]
    fn a_body_may_be_in_utf_16() {
        let units = || "{\"mode\": \"READONLY\"}".encode_utf16();
        let little: Vec<u8> = [0xff, 0xfe].into_iter().chain(units().flat_map(u16::to_le_bytes)).collect();
        let big: Vec<u8> = [0xfe, 0xff].into_iter().chain(units().flat_map(u16::to_be_bytes)).collect();
        assert_eq!((mode(&little), mode(&big)), (Ok(Some(Mode::Readonly)), Ok(Some(Mode::Readonly))));
    }
}
