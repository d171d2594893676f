//! Headers against body, and headers from body (2026-07-28, Streamable HTTP, Server Validation). Called by the gateway
//! before it decides, and by the HTTP link before it sends. Must never believe a header where there is a body.

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use super::{METHOD, NAME, PROTOCOL_VERSION, ParamAnnotation, decode, encode};
use crate::{Kind, Message, code, era::Era, message::meta};

/// Integers beyond this cannot be carried: JavaScript could not tell them apart.
const SAFE_INTEGER_MAX: u64 = (1 << 53) - 1;

/// How headers and body disagree. The HTTP status is 400 for each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    /// A header that must be there is not.
    #[error("header mismatch: {header} is missing")]
    Missing {
        /// The header.
        header: HeaderName,
    },
    /// A header is there more than once.
    #[error("header mismatch: {header} is there more than once")]
    Repeated {
        /// The header.
        header: HeaderName,
    },
    /// A header has characters that it may not have, or its base64 cannot be read.
    #[error("header mismatch: {header} has an invalid value")]
    Invalid {
        /// The header.
        header: HeaderName,
    },
    /// A header and the body say different things.
    #[error("header mismatch: {header} does not match the body")]
    Differs {
        /// The header.
        header: HeaderName,
    },
    /// The header names a modern version, and the body none.
    #[error("_meta lacks {}, which every request of this protocol version must have", meta::PROTOCOL_VERSION)]
    VersionNotInBody,
    /// A parameter's value cannot stand in a header.
    #[error("the parameter for {header} is no string, boolean or integer within 2^53")]
    Unfit {
        /// The header.
        header: HeaderName,
    },
}

impl HeaderFault {
    /// The JSON-RPC error code that the specification gives to this.
    #[must_use]
    pub const fn code(&self) -> i64 {
        match self {
            Self::VersionNotInBody | Self::Unfit { .. } => code::INVALID_PARAMS,
            _ => code::HEADER_MISMATCH,
        }
    }
}

/// Holds a request's headers to its body. `annotations` are those of the tool that is called. Legacy messages pass.
///
/// # Errors
/// [`HeaderFault`], with the code to answer with.
pub fn check(headers: &HeaderMap, message: &Message, annotations: &[ParamAnnotation]) -> Result<(), HeaderFault> {
    let version = single(headers, &PROTOCOL_VERSION)?;
    let Some(in_body) = message.meta_raw(meta::PROTOCOL_VERSION).filter(|_| message.method().is_some()) else {
        let names_modern = version.as_deref().is_some_and(|version| Era::of_version(version) == Era::Modern);
        return if names_modern && message.kind() == Kind::Request {
            Err(HeaderFault::VersionNotInBody)
        } else {
            Ok(())
        };
    };
    let in_body = crate::scan_text::string_of(&in_body).ok_or(HeaderFault::Differs { header: PROTOCOL_VERSION })?;
    // The revision defines no header of a notification, so none must be there; one that is there must agree.
    let must = message.kind() == Kind::Request;
    agree(version, &in_body, PROTOCOL_VERSION, must)?;
    agree(single(headers, &METHOD)?, message.method().unwrap_or_default(), METHOD, must)?;
    let name = single_decoded(headers, &NAME)?;
    let is_of_one = matches!(message.method(), Some("tools/call" | "resources/read" | "prompts/get"));
    match named(message) {
        Some(target) => agree(name, &target, NAME, must && is_of_one)?,
        // The header names something, and the body nothing.
        None if is_of_one && name.is_some() => return Err(HeaderFault::Differs { header: NAME }),
        None => {}
    }
    if must {
        for (header, value) in mirrored(message, annotations)? {
            let given = single_decoded(headers, &header)?;
            match (value, given) {
                (None, None) => {}
                (None, Some(_)) => return Err(HeaderFault::Differs { header }),
                (Some(_), None) => return Err(HeaderFault::Missing { header }),
                (Some(value), Some(given)) if same(&value, &given) => {}
                (Some(_), Some(_)) => return Err(HeaderFault::Differs { header }),
            }
        }
    }
    Ok(())
}

/// The headers that mirror a modern message; none for a legacy one.
///
/// # Errors
/// [`HeaderFault::Unfit`], where a parameter's value cannot be mirrored.
pub fn compute(message: &Message, annotations: &[ParamAnnotation]) -> Result<HeaderMap, HeaderFault> {
    let mut headers = HeaderMap::new();
    let Some(version) = message.meta_str(meta::PROTOCOL_VERSION).filter(|_| message.is_modern()) else {
        return Ok(headers);
    };
    let mut put = |header: HeaderName, text: &str| match HeaderValue::from_str(text) {
        Ok(value) => Ok(headers.insert(header, value)),
        Err(_) => Err(HeaderFault::Invalid { header }),
    };
    put(PROTOCOL_VERSION, &version)?;
    put(METHOD, message.method().unwrap_or_default())?;
    if let Some(target) = named(message) {
        put(NAME, &encode(&target))?;
    }
    for (header, value) in mirrored(message, annotations)? {
        if let Some(value) = value {
            let text = plain(&value).ok_or_else(|| HeaderFault::Unfit { header: header.clone() })?;
            put(header, &encode(&text))?;
        }
    }
    Ok(headers)
}

/// What `Mcp-Name` mirrors: the name, the URI, or the task id of the tasks extension, whichever the method is about. Another
/// member that happens to be there is not what the server acts on.
fn named(message: &Message) -> Option<String> {
    match message.method()? {
        "tools/call" | "prompts/get" => message.param_str("name"),
        method if method.starts_with("resources/") => message.param_str("uri"),
        method if method.starts_with("tasks/") => message.param_str("taskId"),
        _ => message.param_str("name").or_else(|| message.param_str("uri")),
    }
}

/// The value of each annotated parameter; none where it is absent or null.
fn mirrored(
    message: &Message,
    annotations: &[ParamAnnotation],
) -> Result<Vec<(HeaderName, Option<Value>)>, HeaderFault> {
    let Some(first) = annotations.first() else { return Ok(Vec::new()) };
    let raw = message.arguments_raw().unwrap_or_default();
    let arguments = if raw.is_empty() { Ok(Value::Null) } else { serde_json::from_slice::<Value>(&raw) };
    let arguments = arguments.map_err(|_| HeaderFault::Unfit { header: first.header.clone() })?;
    let found = annotations.iter().map(|annotation| {
        let value = annotation.path.iter().try_fold(&arguments, |at, key| at.as_object()?.get(key));
        (annotation.header.clone(), value.filter(|value| !value.is_null()).cloned())
    });
    Ok(found.collect())
}

/// The text of a value that may be mirrored.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => safe_integer(number).map(|number| number.to_string()),
        _ => None,
    }
}

/// `42.0` is the integer 42.
fn safe_integer(number: &serde_json::Number) -> Option<i64> {
    let value = match number.as_i64() {
        Some(value) => value,
        None => number.as_f64().filter(|value| value.fract() == 0.0 && value.abs() <= SAFE_INTEGER_MAX as f64)? as i64,
    };
    (value.unsigned_abs() <= SAFE_INTEGER_MAX).then_some(value)
}

/// Whether a decoded header says what a value says; integers are compared as numbers.
fn same(value: &Value, given: &str) -> bool {
    match value {
        Value::Number(number) => {
            let given = given.parse::<serde_json::Number>().ok();
            given.is_some_and(|given| safe_integer(&given).is_some() && safe_integer(&given) == safe_integer(number))
        }
        value => plain(value).is_some_and(|text| text == given),
    }
}

fn agree(given: Option<String>, body: &str, header: HeaderName, must: bool) -> Result<(), HeaderFault> {
    match given {
        Some(given) if given == body => Ok(()),
        Some(_) => Err(HeaderFault::Differs { header }),
        None if must => Err(HeaderFault::Missing { header }),
        None => Ok(()),
    }
}

/// A header that may be there once, as it stands.
fn single(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, HeaderFault> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(HeaderFault::Repeated { header: name.clone() });
    }
    let text = value.to_str().map_err(|_| HeaderFault::Invalid { header: name.clone() })?;
    Ok(Some(text.trim_matches([' ', '\t']).to_owned()))
}

/// A header that may be there once, after decoding.
fn single_decoded(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, HeaderFault> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(HeaderFault::Repeated { header: name.clone() });
    }
    decode(value.as_bytes()).map(Some).ok_or_else(|| HeaderFault::Invalid { header: name.clone() })
}
