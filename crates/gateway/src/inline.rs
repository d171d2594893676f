//! Payloads that stand in the event itself: where the operator wants it and the field's contract permits it.
//!
//! Called by `payloads.rs` alone. What is inline cannot be erased, so it is masked first: what the server's own schema calls
//! sensitive as a whole, and what the detectors find in the rest. Where Cairn does not know what a schema would say, because
//! nobody has listed the tool since the start, or where it cannot be applied (an error's words), nothing stands inline.

use std::sync::LazyLock;

use cairn_contract::{Direction, EventType, Target};
use cairn_screen::Classes;
use serde_json::Value;

use crate::{Gateway, call::Call, masking::Part};

/// Most that an event holds of one payload, whatever is configured; contracts say so too.
pub const INLINE_BYTES_MAX: usize = 65_536;

/// Whether the contract of the event permits it for what that part of a call stands under there.
fn is_permitted(event: EventType, part: Part) -> bool {
    static PERMITTED: LazyLock<Vec<(EventType, &str)>> = LazyLock::new(|| {
        let keys = ["arguments", "result", "content", "messages", "inputs"];
        let all = EventType::ALL.into_iter().flat_map(|event| keys.map(|key| (event, key)));
        all.filter(|(event, key)| event.contract().permits_inline(key)).collect()
    });
    let key = match (event, part) {
        (_, Part::Arguments | Part::WithAnswers) => "arguments",
        (_, Part::Inputs) => "inputs",
        (EventType::ContextRead | EventType::ContextListed, _) => "content",
        (EventType::ContextPrompt, _) => "messages",
        _ => "result",
    };
    PERMITTED.contains(&(event, key))
}

/// What a server says of the fields of a tool: it may raise their class, never lower it.
#[derive(Debug, Default)]
pub(crate) struct FieldClasses {
    arguments: Classes,
    /// The same beside answers, where the arguments are a member.
    with_answers: Classes,
    result: Classes,
}

impl FieldClasses {
    /// Of a tool's definition.
    pub(crate) fn of(definition: &Value) -> Self {
        let mut classes = Self::default();
        if let Some(schema) = definition.get("inputSchema") {
            classes.arguments.raise_by_schema(schema);
            classes.with_answers.raise_by_schema_under(&["arguments"], schema);
        }
        if let Some(schema) = definition.get("outputSchema") {
            classes.result.raise_by_schema_under(&["structuredContent"], schema);
            if !classes.result.is_empty() {
                // Tools say their structured content once more, as text.
                let said_twice = classes.result.rule("/content/*/text", cairn_screen::Class::Secret);
                said_twice.expect("what begins with a slash is a pointer");
            }
        }
        classes
    }

    /// What they take in memory, about.
    pub(crate) fn bytes(&self) -> usize {
        (self.arguments.len() + self.with_answers.len() + self.result.len()) * 64
    }

    /// Those of a part of a call; nothing where the part cannot be told field by field and has some.
    fn of_part(&self, part: Part) -> Option<&Classes> {
        static NONE: LazyLock<Classes> = LazyLock::new(Classes::new);
        match part {
            Part::Arguments => Some(&self.arguments),
            Part::WithAnswers => Some(&self.with_answers),
            Part::Result => Some(&self.result),
            Part::Inputs | Part::Member(_) | Part::Error => {
                let has_none = self.arguments.is_empty() && self.result.is_empty();
                has_none.then_some(&*NONE)
            }
        }
    }
}

impl Gateway {
    /// A payload as it may stand in that event; nothing where it may not, or is too long.
    pub(crate) fn inline(&self, call: &Call, event: EventType, part: Part, payload: &[u8]) -> Option<String> {
        let bytes_max = self.keeping().rules.inline_bytes_max.min(INLINE_BYTES_MAX);
        // What a server asks of a client is described by no schema that Cairn has.
        if payload.len() > bytes_max || call.direction == Direction::ToClient || !is_permitted(event, part) {
            return None;
        }
        let known = match &call.target {
            Target::Tool { gen_ai_tool_name } => call.session.server.catalogue.classes(gen_ai_tool_name)?,
            _ => std::sync::Arc::default(),
        };
        let masked = self.keeping().screener.json(payload, known.of_part(part)?).changed;
        let text = String::from_utf8(masked.unwrap_or_else(|| payload.to_vec())).ok()?;
        (text.len() <= bytes_max).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn contracts_say_what_may_stand_in_an_event() {
        assert!(is_permitted(EventType::CallIntent, Part::WithAnswers));
        assert!(is_permitted(EventType::CallOutcome, Part::Error));
        assert!(is_permitted(EventType::ContextRead, Part::Member("contents")));
        assert!(is_permitted(EventType::ContextPrompt, Part::Member("messages")));
        assert!(!is_permitted(EventType::CallDecision, Part::Inputs), "they hold what is known of a principal");
        assert!(!is_permitted(EventType::NoticePassed, Part::Result));
    }

    #[test]
    fn a_part_that_cannot_be_told_field_by_field_is_not_shown_where_there_are_sensitive_fields() {
        let secret = json!({ "inputSchema": { "properties": { "pin": { "type": "string", "format": "password" } } } });
        let classes = FieldClasses::of(&secret);
        assert!(classes.of_part(Part::Arguments).is_some_and(|classes| classes.len() == 1));
        assert!(classes.of_part(Part::Error).is_none());
        assert!(FieldClasses::of(&json!({})).of_part(Part::Error).is_some());
        let result = json!({ "outputSchema": { "properties": { "iban": { "x-classification": "personal" } } } });
        assert_eq!(FieldClasses::of(&result).of_part(Part::Result).map(Classes::len), Some(2), "it is said twice");
    }
}
