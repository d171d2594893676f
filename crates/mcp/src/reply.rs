//! Messages that Cairn itself writes: answers, errors, notifications and requests of its own; and the error codes that
//! the specifications give. Called by the gateway and the links. Must never build a message by hand-pasted text.

use bytes::Bytes;

use crate::{EditError, Limits, Message, RawId, scan::scan_value, scan_text::quote_into};

/// Error codes of JSON-RPC 2.0 and of the MCP specification (2026-07-28, basic, Error Codes).
pub mod code {
    /// The bytes are not JSON.
    pub const PARSE_ERROR: i64 = -32700;
    /// The JSON is no message.
    pub const INVALID_REQUEST: i64 = -32600;
    /// The method does not exist.
    pub const METHOD_NOT_FOUND: i64 = -32601;
    /// The parameters are wrong; since 2026-07-28 also a resource that does not exist.
    pub const INVALID_PARAMS: i64 = -32602;
    /// Something failed within.
    pub const INTERNAL_ERROR: i64 = -32603;
    /// HTTP headers disagree with the body.
    pub const HEADER_MISMATCH: i64 = -32020;
    /// The client lacks a capability that the server needs.
    pub const MISSING_CLIENT_CAPABILITY: i64 = -32021;
    /// The server does not speak the requested protocol version.
    pub const UNSUPPORTED_PROTOCOL_VERSION: i64 = -32022;
}

impl Message {
    /// A response with a raw JSON result.
    ///
    /// # Errors
    /// [`EditError::BadValue`] where the result is not JSON.
    pub fn result(id: &RawId, result: &[u8]) -> Result<Self, EditError> {
        built("result", &[("id", id.raw()), ("result", result)])
    }

    /// An error response; without an id it says `null`.
    ///
    /// # Errors
    /// [`EditError::BadValue`] where the data are not JSON.
    pub fn error(id: Option<&RawId>, code: i64, message: &str, data: Option<&[u8]>) -> Result<Self, EditError> {
        let mut error = format!("{{\"code\":{code},\"message\":").into_bytes();
        quote_into(&mut error, message);
        if let Some(data) = data {
            error.extend_from_slice(b",\"data\":");
            error.extend_from_slice(data);
        }
        error.push(b'}');
        let null = RawId::null();
        built("error", &[("id", id.unwrap_or(&null).raw()), ("error", &error)])
    }

    /// A request with raw JSON parameters.
    ///
    /// # Errors
    /// [`EditError::BadValue`] where the parameters are not JSON.
    pub fn request(id: &RawId, method: &str, params: Option<&[u8]>) -> Result<Self, EditError> {
        with_method(Some(id), method, params)
    }

    /// A notification with raw JSON parameters.
    ///
    /// # Errors
    /// [`EditError::BadValue`] where the parameters are not JSON.
    pub fn notification(method: &str, params: Option<&[u8]>) -> Result<Self, EditError> {
        with_method(None, method, params)
    }
}

fn with_method(id: Option<&RawId>, method: &str, params: Option<&[u8]>) -> Result<Message, EditError> {
    let mut name = Vec::new();
    quote_into(&mut name, method);
    let mut members: Vec<(&str, &[u8])> = Vec::with_capacity(3);
    members.extend(id.map(|id| ("id", &id.raw()[..])));
    members.push(("method", &name));
    members.extend(params.map(|params| ("params", params)));
    built("params", &members)
}

/// What Cairn writes is bounded by what it made it from, so only depth and form are checked.
fn built(free: &str, members: &[(&str, &[u8])]) -> Result<Message, EditError> {
    let limits = Limits { message_bytes_max: usize::MAX, ..Limits::default() };
    let mut text = b"{\"jsonrpc\":\"2.0\"".to_vec();
    for (key, value) in members {
        if *key == free {
            scan_value(value, limits.depth_max).map_err(|_| EditError::BadValue { key: free.to_owned() })?;
        }
        text.extend_from_slice(format!(",\"{key}\":").as_bytes());
        text.extend_from_slice(value);
    }
    text.push(b'}');
    Ok(Message::parse(Bytes::from(text), &limits)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_one_message_and_nothing_else() {
        let id = RawId::text("a\"b");
        let answer = Message::result(&id, br#"{"x":1}"#).expect("valid");
        assert_eq!(&answer.bytes()[..], br#"{"jsonrpc":"2.0","id":"a\"b","result":{"x":1}}"#);
        let error = Message::error(None, -31000, "no \"way\"", Some(b"[1]")).expect("valid");
        assert_eq!(error.error_code(), Some(-31000));
        assert_eq!(error.error_message().as_deref(), Some("no \"way\""));
        let notice = Message::notification("notifications/x", None).expect("valid");
        assert_eq!(&notice.bytes()[..], br#"{"jsonrpc":"2.0","method":"notifications/x"}"#);
    }

    #[test]
    fn a_value_cannot_smuggle_in_another_member() {
        let smuggled = Message::result(&RawId::integer(1), br#"1,"id":2"#);
        assert_eq!(smuggled.expect_err("not one value"), EditError::BadValue { key: "result".to_owned() });
        assert!(Message::error(None, 1, "x", Some(br#"1,"code":2"#)).is_err());
    }
}
