//! What policies hide of one call's record (`@mask`), beside what the configuration says of all calls.
//!
//! Called wherever a payload of a call is about to stand in an event. A mask is applied to a copy, before the digest is
//! made, so that what is hidden cannot be guessed from the reference either. Nothing here touches the traffic.

use std::borrow::Cow;

use cairn_contract::{EventType, Reference};
use cairn_mcp::Message;
use cairn_policy::{KeptAs, Masking, Obligation};
use cairn_screen::{Class, Classes};

use crate::{
    Gateway,
    call::{Call, payload_of},
    payloads::{PayloadField, PayloadMode},
};

/// A document of a call that is kept: which of its payloads, and how much of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    /// The arguments.
    Arguments,
    /// The arguments as the member of that name, beside the client's answers.
    WithAnswers,
    /// What policy decided on, the arguments among it.
    Inputs,
    /// The result.
    Result,
    /// The result's member of that name.
    Member(&'static str),
    /// An error in the result's place.
    Error,
}

impl Part {
    pub(crate) const fn field(self) -> PayloadField {
        match self {
            Self::Arguments | Self::WithAnswers => PayloadField::Arguments,
            Self::Inputs => PayloadField::Inputs,
            Self::Result | Self::Member(_) | Self::Error => PayloadField::Result,
        }
    }

    /// What the record holds at most.
    pub(crate) fn mode(self, masking: &Masking) -> PayloadMode {
        let said = match self.field() {
            PayloadField::Arguments | PayloadField::Inputs => masking.arguments,
            PayloadField::Result => masking.result,
        };
        match said {
            KeptAs::None => PayloadMode::None,
            KeptAs::Digest => PayloadMode::Digest,
            // An error may repeat what a result would have held, and has no fields that anybody could name.
            KeptAs::Configured if self == Self::Error && !masking.result_fields.is_empty() => PayloadMode::Digest,
            KeptAs::Configured => PayloadMode::Inline,
        }
    }

    /// Pointers into the document whose values are masked.
    fn fields(self, masking: &Masking) -> Vec<String> {
        let within = |before: &str| masking.argument_fields.iter().map(|field| format!("{before}{field}")).collect();
        match self {
            Self::Arguments => within(""),
            Self::WithAnswers => within("/arguments"),
            Self::Inputs => {
                // Policies see arrays as sets, so an index says nothing there.
                let any = |segment: &str| match segment.bytes().all(|byte| byte.is_ascii_digit()) {
                    true if !segment.is_empty() => "*".to_owned(),
                    _ => segment.to_owned(),
                };
                let field = |field: &String| field.split('/').map(any).collect::<Vec<_>>().join("/");
                let fields = masking.argument_fields.iter().map(field);
                fields.map(|field| format!("/context/arguments{field}")).collect()
            }
            Self::Result => {
                let mut fields: Vec<String> = masking.result_fields.iter().cloned().collect();
                // Tools say their structured content once more, as text.
                if fields.iter().any(|field| within_member(field, "structuredContent").is_some()) {
                    fields.push("/content/*/text".to_owned());
                }
                fields
            }
            Self::Member(name) => {
                masking.result_fields.iter().filter_map(|field| within_member(field, name).map(str::to_owned)).collect()
            }
            Self::Error => Vec::new(),
        }
    }
}

/// A pointer as it stands within a member of the document.
fn within_member<'f>(field: &'f str, member: &str) -> Option<&'f str> {
    let rest = field.strip_prefix('/')?;
    let (first, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    (first == member || first == "*").then_some(rest)
}

/// What a decision demands to hide.
pub(crate) fn demanded(obligations: &[Obligation]) -> Option<&Masking> {
    obligations.iter().find_map(|obligation| match obligation {
        Obligation::Mask { masking, .. } => Some(masking),
        _ => None,
    })
}

impl Gateway {
    /// A payload as it may be kept.
    pub(crate) fn masked<'p>(&self, masking: &Masking, part: Part, payload: &'p [u8]) -> Cow<'p, [u8]> {
        let fields = part.fields(masking);
        if fields.is_empty() && !masking.detected {
            return Cow::Borrowed(payload);
        }
        let mut classes = Classes::new();
        for field in &fields {
            // Pointers were read when the set was loaded.
            classes.rule(field, Class::Secret).expect("what begins with a slash is a pointer");
        }
        let screener = &self.keeping().screener;
        let masked =
            if masking.detected { screener.json(payload, &classes) } else { screener.classified(payload, &classes) };
        masked.changed.map_or(Cow::Borrowed(payload), Cow::Owned)
    }

    /// Takes what a decision demands to hide. A mask that was demanded once is never taken off again.
    pub(crate) fn mask(&self, call: &mut Call, obligations: &[Obligation]) {
        if demanded(obligations).is_some_and(|masking| call.masking.join(masking)) {
            call.arguments_kept = false;
        }
    }

    /// What stands for an answer in its outcome: a result, or an error in its place.
    pub(crate) fn kept_answer(&self, call: &mut Call, message: &Message) -> Option<Reference> {
        match (message.error_raw(), message.result_raw()) {
            (Some(error), _) => self.kept(call, EventType::CallOutcome, Part::Error, &error),
            (None, Some(result)) => self.kept(call, EventType::CallOutcome, Part::Result, &result),
            (None, None) => None,
        }
    }

    /// Makes what stands for the arguments in the call's events (in the intent and in the decision alike), under everything that policy demands by now.
    pub(crate) fn keep_arguments(&self, call: &mut Call) {
        if std::mem::replace(&mut call.arguments_kept, true) {
            return;
        }
        let answers = call.message.input_responses_raw().is_some();
        let part = match call.message.method() {
            Some("tools/call" | "prompts/get") if answers => Part::WithAnswers,
            _ => Part::Arguments,
        };
        let payload = payload_of(&call.message);
        call.arguments = payload.and_then(|payload| self.kept(call, EventType::CallIntent, part, &payload));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masking(arguments: &[&str], results: &[&str]) -> Masking {
        let all = |fields: &[&str]| fields.iter().map(|field| (*field).to_owned()).collect();
        Masking { argument_fields: all(arguments), result_fields: all(results), ..Masking::default() }
    }

    #[test]
    fn a_field_is_found_wherever_its_document_is_kept() {
        let masking = masking(&["/a/0/b"], &["/messages/*/content", "/*/0/text", "/structuredContent/iban"]);
        assert_eq!(Part::Arguments.fields(&masking), ["/a/0/b"]);
        assert_eq!(Part::WithAnswers.fields(&masking), ["/arguments/a/0/b"]);
        assert_eq!(Part::Inputs.fields(&masking), ["/context/arguments/a/*/b"]);
        assert!(Part::Result.fields(&masking).contains(&"/content/*/text".to_owned()), "it is said twice");
        assert_eq!(Part::Member("messages").fields(&masking), ["/0/text", "/*/content"]);
        assert_eq!(Part::Member("contents").fields(&masking), ["/0/text"]);
        assert_eq!(within_member("/messages", "messages"), Some(""));
        assert_eq!(Part::Error.mode(&masking), PayloadMode::Digest);
    }

    #[test]
    fn what_policy_decided_on_is_kept_as_little_as_the_arguments() {
        let masking = Masking { arguments: KeptAs::None, ..Masking::default() };
        assert_eq!(Part::Inputs.mode(&masking), PayloadMode::None);
        assert_eq!(Part::WithAnswers.mode(&masking), PayloadMode::None);
        assert_eq!(Part::Result.mode(&masking), PayloadMode::Inline, "as configured");
    }
}
