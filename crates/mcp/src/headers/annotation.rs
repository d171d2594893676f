//! Which parameters of a tool are mirrored into headers: `x-mcp-header` in its input schema (2026-07-28, Streamable HTTP,
//! Schema Extension). Called when a catalogue is read. A tool whose annotations break a rule is no valid tool.

use http::HeaderName;
use serde_json::Value;

const KEY: &str = "x-mcp-header";
/// More could not be sent anyway: servers bound the number of headers.
const ANNOTATIONS_MAX: usize = 64;

/// One parameter of a tool that is mirrored into `Mcp-Param-{name}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamAnnotation {
    /// The header's whole name, in lower case.
    pub header: HeaderName,
    /// The keys that lead to the value within `arguments`.
    pub path: Vec<String>,
}

/// Which rule an input schema's annotations break.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnnotationFault {
    /// Not a header name.
    #[error("x-mcp-header at {path:?} is no header name")]
    Name {
        /// Where.
        path: String,
    },
    /// Two annotations name one header.
    #[error("x-mcp-header {name:?} is used twice")]
    Twice {
        /// The header.
        name: String,
    },
    /// Not an integer, string or boolean.
    #[error("x-mcp-header at {path:?} is on a parameter that is no integer, string or boolean")]
    Type {
        /// Where.
        path: String,
    },
    /// Not reachable through `properties` alone.
    #[error("x-mcp-header stands where properties alone do not lead")]
    Unreachable,
    /// Too many annotations.
    #[error("more than {ANNOTATIONS_MAX} parameters have x-mcp-header")]
    TooMany,
}

/// The annotations of an input schema.
///
/// # Errors
/// [`AnnotationFault`]: the tool must be left out of what a client is shown.
pub fn annotations(schema: &Value) -> Result<Vec<ParamAnnotation>, AnnotationFault> {
    let mut found = Vec::new();
    // Parsed JSON is bounded in depth, so a list of what is still to visit cannot grow without end.
    let mut open: Vec<(&Value, Option<Vec<String>>)> = vec![(schema, Some(Vec::new()))];
    while let Some((at, path)) = open.pop() {
        match at {
            Value::Object(members) => {
                if let Some(name) = members.get(KEY) {
                    found.push(annotation(name, members.get("type"), path.as_deref())?);
                }
                for (key, value) in members.iter().filter(|(key, _)| *key != KEY) {
                    match value {
                        Value::Object(properties) if key == "properties" && path.is_some() => {
                            let reached = properties.iter().map(|(name, schema)| (schema, below(path.as_ref(), name)));
                            open.extend(reached);
                        }
                        // Data, not schemas: a default may well have this key.
                        _ if matches!(key.as_str(), "default" | "const" | "enum" | "examples") => {}
                        _ => open.push((value, None)),
                    }
                }
            }
            Value::Array(values) => open.extend(values.iter().map(|value| (value, None))),
            _ => {}
        }
    }
    if found.len() > ANNOTATIONS_MAX {
        return Err(AnnotationFault::TooMany);
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    let twice = found.iter().enumerate().find(|(at, one)| found[..*at].iter().any(|other| other.header == one.header));
    match twice {
        Some((_, one)) => Err(AnnotationFault::Twice { name: one.header.to_string() }),
        None => Ok(found),
    }
}

fn below(path: Option<&Vec<String>>, name: &str) -> Option<Vec<String>> {
    path.map(|path| path.iter().cloned().chain([name.to_owned()]).collect())
}

fn annotation(name: &Value, of: Option<&Value>, path: Option<&[String]>) -> Result<ParamAnnotation, AnnotationFault> {
    let path = path.filter(|path| !path.is_empty()).ok_or(AnnotationFault::Unreachable)?;
    let shown = path.join(".");
    let name = name.as_str().filter(|name| !name.is_empty());
    let header = name.and_then(|name| format!("{}{name}", super::PARAM_PREFIX).parse().ok());
    if !matches!(of.and_then(Value::as_str), Some("integer" | "string" | "boolean")) {
        return Err(AnnotationFault::Type { path: shown });
    }
    Ok(ParamAnnotation { header: header.ok_or(AnnotationFault::Name { path: shown })?, path: path.to_vec() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn annotated_parameters_are_found_through_properties() {
        let schema = json!({"type": "object", "properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "deep": {"type": "object", "properties": {"n": {"type": "integer", "x-mcp-header": "N"}}},
            "x-mcp-header": {"type": "object", "default": {"x-mcp-header": "not one"}},
        }});
        let found = annotations(&schema).expect("valid");
        let found: Vec<_> = found.iter().map(|one| (one.header.as_str(), one.path.join("."))).collect();
        assert_eq!(found, [("mcp-param-n", "deep.n".to_owned()), ("mcp-param-region", "region".to_owned())]);
    }

    #[test]
    fn each_rule_of_the_specification_is_kept() {
        let one = |schema: Value| json!({"properties": {"a": schema}});
        let two = json!({"properties": {"a": {"type": "string", "x-mcp-header": "X"}, "b": {"type": "string", "x-mcp-header": "x"}}});
        assert!(matches!(annotations(&two), Err(AnnotationFault::Twice { .. })));
        for name in [json!(""), json!("a b"), json!("a\r\n"), json!("ü"), json!(1)] {
            let schema = one(json!({"type": "string", "x-mcp-header": name}));
            assert!(matches!(annotations(&schema), Err(AnnotationFault::Name { .. })), "{schema}");
        }
        for kind in [json!("number"), json!("object"), json!(["string", "null"]), Value::Null] {
            let schema = one(json!({"type": kind, "x-mcp-header": "X"}));
            assert!(matches!(annotations(&schema), Err(AnnotationFault::Type { .. })), "{schema}");
        }
        let annotated = json!({"type": "string", "x-mcp-header": "X"});
        for schema in
            [one(json!({"items": annotated})), json!({"oneOf": [{"properties": {"a": annotated}}]}), annotated]
        {
            assert_eq!(annotations(&schema), Err(AnnotationFault::Unreachable), "{schema}");
        }
    }
}
