//! The HTTP status of a modern answer that came over a transport without one (2026-07-28, Streamable HTTP, Server
//! Validation and Protocol Version). Called by the gateway where it serves HTTP in front of a child. Legacy answers are
//! always 200. Must never change an answer of an HTTP server, which has a status of its own.

use serde_json::Value;

use crate::{Message, code, message::meta};

const OK: u16 = 200;
const BAD_REQUEST: u16 = 400;
const NOT_FOUND: u16 = 404;

/// The status that an HTTP server of the modern revision would have given to this answer to that request.
#[must_use]
pub fn status(request: &Message, answer: &Message) -> u16 {
    if !request.is_modern() {
        return OK;
    }
    match answer.error_code() {
        Some(code::METHOD_NOT_FOUND) => NOT_FOUND,
        Some(code::UNSUPPORTED_PROTOCOL_VERSION | code::MISSING_CLIENT_CAPABILITY | code::HEADER_MISMATCH) => {
            BAD_REQUEST
        }
        // Wrong parameters of a method are the method's own answer; a request that does not describe itself is a bad one.
        Some(code::INVALID_PARAMS) if !describes_itself(request) => BAD_REQUEST,
        _ => OK,
    }
}

/// Whether `_meta` holds what every request of the modern revision must say of its sender.
fn describes_itself(request: &Message) -> bool {
    let is_object = |key: &str| {
        let raw = request.meta_raw(key).unwrap_or_default();
        serde_json::from_slice::<Value>(&raw).is_ok_and(|value| value.is_object())
    };
    request.meta_str(meta::PROTOCOL_VERSION).is_some() && is_object(meta::CLIENT_CAPABILITIES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::message;

    fn request(capabilities: &str) -> Message {
        message(&format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{{"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28"{capabilities}}}}}}}"#
        ))
    }

    fn error(code: i64) -> Message {
        Message::error(None, code, "no", None).expect("an error")
    }

    #[test]
    fn errors_that_concern_the_transport_have_its_status() {
        let whole = request(r#","io.modelcontextprotocol/clientCapabilities":{}"#);
        for (code, wanted) in [(-32601, 404), (-32602, 200), (-32020, 400), (-32021, 400), (-32022, 400), (-32603, 200)]
        {
            assert_eq!(status(&whole, &error(code)), wanted, "{code}");
        }
        assert_eq!(status(&request(""), &error(-32602)), 400, "it does not say what the client can do");
        assert_eq!(status(&request(r#","io.modelcontextprotocol/clientCapabilities":7"#), &error(-32602)), 400);
    }

    #[test]
    fn a_legacy_answer_is_always_200() {
        let legacy = message(r#"{"jsonrpc":"2.0","id":1,"method":"m"}"#);
        assert_eq!(status(&legacy, &error(-32601)), 200);
    }
}
