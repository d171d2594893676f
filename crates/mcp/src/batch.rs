//! Batches of protocol version 2025-03-26: an array of messages, each of which lives its own call. Called by the
//! gateway for sessions of that version alone; every other array is refused by [`Message::parse`].

use bytes::Bytes;

use crate::{
    Limits, Message,
    refusal::{ParseFault, Refusal},
    scan::{begins_array, scan_envelope},
};

/// Whether a body is a batch.
#[must_use]
pub fn is_batch(bytes: &[u8]) -> bool {
    begins_array(bytes)
}

/// Splits a batch; each member is a message or its own refusal, in order, as slices of the batch's bytes.
///
/// # Errors
/// A [`Refusal`] where the whole array is unreadable, empty or too long.
pub fn parse_batch(bytes: &Bytes, limits: &Limits) -> Result<Vec<Result<Message, Refusal>>, Refusal> {
    if bytes.len() > limits.message_bytes_max {
        return Err(ParseFault::TooLong { limit: limits.message_bytes_max }.into());
    }
    if !begins_array(bytes) {
        return Err(ParseFault::NotAnObject.into());
    }
    let shape = scan_envelope(bytes, limits.depth_max.saturating_add(1)).map_err(ParseFault::Scan)?;
    match shape.elements.len() {
        0 => return Err(ParseFault::EmptyBatch.into()),
        count if count > limits.batch_members_max => {
            return Err(ParseFault::TooMany { limit: limits.batch_members_max }.into());
        }
        _ => {}
    }
    Ok(shape.elements.iter().map(|span| Message::parse(bytes.slice(span.start..span.end), limits)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &'static str) -> Result<Vec<Result<Message, Refusal>>, Refusal> {
        parse_batch(&Bytes::from_static(text.as_bytes()), &Limits::default())
    }

    #[test]
    fn each_member_is_a_message_of_its_own() {
        let members = split(
            r#" [ {"jsonrpc":"2.0","id":1,"method":"a"} , {"jsonrpc":"2.0","method":"b","params":{"x":[1]}},{"id":2,"id":3},7 ] "#,
        )
        .expect("a batch");
        assert_eq!(members.len(), 4);
        assert_eq!(&members[0].as_ref().expect("a request").bytes()[..], br#"{"jsonrpc":"2.0","id":1,"method":"a"}"#);
        assert_eq!(members[1].as_ref().expect("a notification").method(), Some("b"));
        assert!(members[2].is_err() && members[3].is_err());
    }

    #[test]
    fn empty_and_endless_batches_are_refused() {
        assert_eq!(split("[]").expect_err("empty").fault, ParseFault::EmptyBatch);
        let many = Bytes::from(format!("[{}1]", "1,".repeat(64)));
        let refused = parse_batch(&many, &Limits::default()).expect_err("65 members");
        assert_eq!(refused.fault, ParseFault::TooMany { limit: 64 });
    }

    #[test]
    fn a_nested_batch_is_no_member() {
        let members = split(r#"[[{"jsonrpc":"2.0","method":"a"}]]"#).expect("a batch");
        assert_eq!(members[0].as_ref().expect_err("an array").fault, ParseFault::UnexpectedArray);
    }
}
