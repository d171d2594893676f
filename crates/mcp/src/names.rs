//! Keys that one parser takes for a protocol key and another does not: equal but for case, Unicode compatibility
//! folding or NUL. Called once for each message, after the scan.
//!
//! A key that folds to a protocol key without being it is refused beside that key in any envelope object; at the root,
//! in `_meta`, and in the parameters of methods that the protocol defines it is refused even alone, because a server
//! that folds would read a name there which no policy saw. Payloads (`arguments`, results' contents) are never looked at.

use unicode_normalization::UnicodeNormalization;

use crate::{
    message::meta,
    scan::{Object, Shape, Slot},
};

const ROOT: &[&str] = &["jsonrpc", "id", "method", "params", "result", "error"];
const PARAMS: &[&str] = &[
    "_meta",
    "name",
    "uri",
    "arguments",
    "taskId",
    "requestState",
    "inputResponses",
    "requestId",
    "progressToken",
    "protocolVersion",
    "capabilities",
    "clientInfo",
    "cursor",
    "task",
];
const META: &[&str] = &[
    meta::PROTOCOL_VERSION,
    meta::CLIENT_INFO,
    meta::CLIENT_CAPABILITIES,
    meta::LOG_LEVEL,
    meta::SUBSCRIPTION_ID,
    meta::PROGRESS_TOKEN,
    meta::TRACEPARENT,
    meta::TRACESTATE,
    meta::WORKFLOW,
];
const RESULT: &[&str] =
    &["_meta", "resultType", "isError", "requestState", "inputRequests", "content", "structuredContent"];
const ERROR: &[&str] = &["code", "message", "data"];

/// The methods whose parameters the protocol defines; elsewhere a lone `Name` is the extension's own business.
const KNOWN_PREFIXES: &[&str] = &[
    "tools/",
    "prompts/",
    "resources/",
    "tasks/",
    "notifications/",
    "sampling/",
    "elicitation/",
    "roots/",
    "completion/",
    "logging/",
    "subscriptions/",
    "server/",
    "initialize",
    "ping",
];

/// The first key that could be taken for a protocol key, shortened, with that key.
pub(crate) fn look_alike(shape: &Shape, bytes: &[u8], method: Option<&str>) -> Option<(String, &'static str)> {
    let known = method.is_some_and(|method| KNOWN_PREFIXES.iter().any(|prefix| method.starts_with(prefix)));
    [
        (Slot::Root, ROOT, true),
        (Slot::Params, PARAMS, known),
        (Slot::ParamsMeta, META, true),
        (Slot::Result, RESULT, false),
        (Slot::ResultMeta, META, true),
        (Slot::Error, ERROR, false),
    ]
    .into_iter()
    .find_map(|(slot, names, alone)| in_object(shape.object(slot)?, bytes, names, alone))
}

fn in_object(object: &Object, bytes: &[u8], names: &[&'static str], alone: bool) -> Option<(String, &'static str)> {
    object.members.iter().find_map(|member| {
        let key = std::str::from_utf8(member.name(bytes)).expect("the scanner has checked the encoding");
        if names.contains(&key) {
            return None;
        }
        let like = folds_to(key, names)?;
        (alone || object.find(bytes, like).is_some()).then(|| (key.chars().take(80).collect(), like))
    })
}

/// The protocol key that `key` folds to.
fn folds_to(key: &str, names: &[&'static str]) -> Option<&'static str> {
    if key.is_ascii() && !key.contains('\0') {
        return names.iter().copied().find(|name| name.eq_ignore_ascii_case(key));
    }
    // No protocol key is longer than 64 characters, and folding shortens a text to no less than an eighteenth.
    if key.len() > 4096 {
        return None;
    }
    let without_nul = fold(&key.replace('\0', ""));
    let before_nul = fold(key.split('\0').next().unwrap_or_default());
    names.iter().copied().find(|name| {
        let name = fold(name);
        name == without_nul || name == before_nul
    })
}

/// Compatibility normalisation and full case folding by way of upper case, without marks and characters that do not
/// show: what any lenient comparison of the common runtimes could make of a key.
fn fold(text: &str) -> String {
    text.nfkc().flat_map(char::to_uppercase).flat_map(char::to_lowercase).nfkc().filter(|c| !is_invisible(*c)).collect()
}

const fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{307}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_lenient_parser_would_take_for_a_key_is_found() {
        for key in ["Name", "NAME", "n\u{200b}ame", "ｎａｍｅ", "name\0", "na\0me", "name\0x"] {
            assert_eq!(folds_to(key, PARAMS), Some("name"), "{key:?}");
        }
        assert_eq!(folds_to("argument\u{17f}", PARAMS), Some("arguments"), "long s");
        assert_eq!(folds_to("ta\u{17f}\u{212a}id", PARAMS), Some("taskId"), "long s, kelvin");
        assert_eq!(folds_to("urı", PARAMS), Some("uri"), "dotless i");
        assert_eq!(folds_to("İd", ROOT), Some("id"), "dotted capital i");
    }

    #[test]
    fn other_keys_are_left_alone() {
        for key in ["names", "title", "nаme2", "", "\0", "ünïcode"] {
            assert_eq!(folds_to(key, PARAMS), None, "{key:?}");
        }
    }
}
