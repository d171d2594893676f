//! Looks at a result before the client gets it, where policies oblige to (`@screen_output`).
//!
//! Called between the server's answer and its outcome, so that the outcome says what was found and what became of it,
//! durable before the client hears anything where the call is strict. Says which rules found something and how much, never
//! what. A redaction replaces what stands in texts and nothing else: where something is found anywhere else, or the
//! structured content would not fit its schema any more, the client gets an error.

use bytes::Bytes;
use cairn_contract::{CallOutcome, Outcome, ScreenAction, Screened};
use cairn_mcp::Message;
use cairn_policy::OutputMode;
use cairn_screen::Classes;
use serde_json::Value;

use crate::{Gateway, Refusal, call::Call, catalogue::OutputSchema, life::Answer};

/// What a client says back as it came: no text for anybody, and sealed by whoever made it.
const STATE: &str = "requestState";

/// Where the texts of a result stand; `**` is everything below.
const TEXTS: [&[&str]; 11] = [
    &["content", "*", "text"],
    &["content", "*", "resource", "text"],
    &["structuredContent", "**"],
    &["contents", "*", "text"],
    &["messages", "*", "content", "text"],
    &["messages", "*", "content", "resource", "text"],
    &["result", "content", "*", "text"],
    &["result", "content", "*", "resource", "text"],
    &["result", "structuredContent", "**"],
    &["result", "contents", "*", "text"],
    &["result", "messages", "*", "content", "text"],
];

impl Gateway {
    /// What the client gets, and what the outcome says of that.
    pub(crate) fn screen_answer(&self, call: &mut Call, record: &mut CallOutcome, answer: &mut Answer) {
        let Some((mode, policies)) = call.output.clone() else { return };
        let looked_at = match &*answer {
            Answer::Message { message, .. } => looked_at(message, self),
            Answer::Other { body, .. } => body.clone(),
            Answer::Nothing => return,
        };
        let screener = &self.keeping().screener;
        let masked = screener.json(&looked_at, &Classes::new());
        let mut rules: Vec<String> = masked.found.iter().map(|finding| finding.rule.clone()).collect();
        rules.sort_unstable();
        rules.dedup();
        let found = masked.count as u64;
        let redacted = masked.changed.filter(|_| mode == OutputMode::Redact);
        let action = match (found, mode) {
            (0, _) => ScreenAction::Passed,
            (_, OutputMode::Flag) => ScreenAction::Flagged,
            _ => match redacted.and_then(|bytes| self.redacted(call, answer, &looked_at, bytes)) {
                Some(message) => {
                    if let Answer::Message { message: shown, .. } = answer {
                        call.as_served = Some(std::mem::replace(shown, message));
                    }
                    ScreenAction::Redacted
                }
                None => {
                    self.block(call, record, answer, policies.clone(), rules.clone());
                    ScreenAction::Blocked
                }
            },
        };
        call.is_altered = matches!(action, ScreenAction::Redacted | ScreenAction::Blocked);
        let detectors = screener.rules().digest().to_owned();
        record.screened = Some(Screened { action, policies, found, rules, detectors });
    }

    fn block(
        &self,
        call: &Call,
        record: &mut CallOutcome,
        answer: &mut Answer,
        policies: Vec<String>,
        rules: Vec<String>,
    ) {
        let refusal = Refusal::OutputBlocked { policies, rules };
        self.metrics().refused(refusal.word());
        if matches!(record.outcome, Outcome::Completed | Outcome::InputRequired | Outcome::Accepted) {
            record.outcome = Outcome::Failed;
        }
        record.error_type = Some(refusal.word().to_owned());
        record.rpc_response_status_code = Some(refusal.code());
        let shown = refusal.response(Some(&call.id));
        match answer {
            Answer::Message { status, message, .. } => (*status, *message) = (200, shown),
            _ => *answer = Answer::Message { status: 200, session_id: None, event_id: None, message: shown },
        }
    }

    /// The answer with masks in its texts; nothing where that is not all that would change, or does not do.
    fn redacted(&self, call: &Call, answer: &Answer, before: &Bytes, after: Vec<u8>) -> Option<Message> {
        let Answer::Message { message, .. } = answer else { return None };
        message.result_raw()?; // an error has no texts that could be told apart
        let was: Value = serde_json::from_slice(before).ok()?;
        let is: Value = serde_json::from_slice(&after).ok()?;
        if !differs_in_texts_only(&was, &is, &mut Vec::new()) || !self.fits(call, &was, &is) {
            return None;
        }
        let state = message.result_member_raw(STATE);
        let limits = self.wire_limits();
        let edited = message.edit().set_result(after).finish(limits).ok()?;
        match state {
            Some(state) => edited.edit().set_result_member(STATE, state).finish(limits).ok(),
            None => Some(edited),
        }
    }

    /// Whether structured content that was changed still fits what its tool declares.
    fn fits(&self, call: &Call, was: &Value, is: &Value) -> bool {
        let content = |value: &Value| value.get("structuredContent").cloned();
        let (Some(changed), Some(tool)) = (content(is), call.target.name()) else {
            // A task's result belongs to a tool that is not named here.
            return content(is).is_none()
                && was.pointer("/result/structuredContent") == is.pointer("/result/structuredContent");
        };
        if content(was).as_ref() == Some(&changed) {
            return true;
        }
        match call.session.server.catalogue.output_schema(tool) {
            OutputSchema::None => true,
            OutputSchema::Unknown => false,
            OutputSchema::Is(schema) => valid(&schema, &changed),
        }
    }
}

/// What detectors look at: all of the result but the state, or the error.
fn looked_at(message: &Message, gateway: &Gateway) -> Bytes {
    let without_state = || {
        let edited = message.edit().remove_result_member(STATE).finish(gateway.wire_limits()).ok()?;
        edited.result_raw()
    };
    let result = match message.result_member_raw(STATE) {
        Some(_) => without_state().or_else(|| message.result_raw()),
        None => message.result_raw(),
    };
    result.or_else(|| message.error_raw()).unwrap_or_default()
}

/// Whether a value fits a server's schema. The schema is the server's: it may refer to nothing outside of itself, and its
/// patterns are matched in linear time. One that cannot be used fits nothing.
fn valid(schema: &Value, value: &Value) -> bool {
    let patterns = jsonschema::PatternOptions::regex();
    let validator = jsonschema::options().with_pattern_options(patterns).build(schema);
    validator.is_ok_and(|validator| validator.is_valid(value))
}

/// Whether two documents are the same but for strings in places where texts stand.
fn differs_in_texts_only<'v>(was: &'v Value, is: &'v Value, at: &mut Vec<&'v str>) -> bool {
    match (was, is) {
        (Value::Object(was), Value::Object(is)) => {
            was.len() == is.len()
                && was.iter().all(|(name, value)| {
                    at.push(name);
                    let same = is.get(name).is_some_and(|other| differs_in_texts_only(value, other, at));
                    at.pop();
                    same
                })
        }
        (Value::Array(was), Value::Array(is)) => {
            at.push("*");
            let same = was.len() == is.len() && was.iter().zip(is).all(|(was, is)| differs_in_texts_only(was, is, at));
            at.pop();
            same
        }
        (Value::String(_), Value::String(_)) if was != is => TEXTS.iter().any(|place| is_text(place, at)),
        _ => was == is,
    }
}

fn is_text(place: &[&str], at: &[&str]) -> bool {
    match place.split_last() {
        Some((&"**", before)) => at.len() >= before.len() && is_text(before, &at[..before.len()]),
        _ => place == at,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_texts_may_differ() {
        let differs = |was: &Value, is: &Value| differs_in_texts_only(was, is, &mut Vec::new());
        let result = |text: &str, deep: &Value, uri: &str| {
            json!({ "content": [{ "type": "text", "text": text }, { "type": "resource", "resource": { "uri": uri } }],
                    "structuredContent": { "a": [{ "b": deep }] } })
        };
        let before = result("x", &json!("y"), "u");
        assert!(differs(&before, &result("[m]", &json!("[m]"), "u")));
        assert!(!differs(&before, &result("x", &json!("y"), "[m]")), "an address is no text");
        assert!(!differs(&result("x", &json!(7), "u"), &result("x", &json!("[m]"), "u")), "a number is none");
        assert!(!differs(&json!({ "structuredContent": { "k": 1 } }), &json!({ "structuredContent": { "[m]": 1 } })));
        assert!(!differs(&json!({ "content": [{ "data": "a" }] }), &json!({ "content": [{ "data": "b" }] })));
        assert!(!differs(&json!({ "_meta": { "text": "a" } }), &json!({ "_meta": { "text": "b" } })));
    }

    #[test]
    fn a_schema_that_cannot_be_used_fits_nothing() {
        let value = json!({ "mail": "[masked:email]" });
        assert!(valid(&json!({ "properties": { "mail": { "type": "string" } } }), &value));
        assert!(!valid(&json!({ "properties": { "mail": { "enum": ["ann@example.org"] } } }), &value));
        assert!(!valid(&json!({ "properties": { "mail": { "pattern": "^[^\\[]*$" } } }), &value));
        assert!(!valid(&json!({ "$ref": "http://127.0.0.1:9/schema" }), &value), "nothing is fetched");
        assert!(!valid(&json!({ "properties": { "mail": { "pattern": "(?=x)y" } } }), &value));
    }
}
