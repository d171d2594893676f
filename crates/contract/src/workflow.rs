//! The workflow id that a client gives: kept unchanged, or refused.
//!
//! The gateway calls this on `_meta["io.cairn/workflow"]` and `Cairn-Workflow-Id`. An id is never shortened or cleaned,
//! because then two ids could become one.

/// Longest workflow id that a client may give, in bytes.
pub const WORKFLOW_ID_BYTES_MAX: usize = 128;

/// Why a workflow id was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WorkflowIdError {
    /// Empty, or longer than an id may be.
    #[error("a workflow id has 1 to {WORKFLOW_ID_BYTES_MAX} bytes, this one has {bytes}: give a shorter one or none")]
    Length {
        /// Its length.
        bytes: usize,
    },
    /// It holds a character that an id may not.
    #[error(
        "a workflow id holds visible ASCII characters other than quote and backslash, this one holds {character:?}: \
         leave it out"
    )]
    Character {
        /// The first such character.
        character: char,
    },
}

/// The id itself, where it is 1 to 128 visible ASCII characters other than `"` and `\`.
///
/// # Errors
/// Says which bound the id breaks.
pub fn given_workflow_id(id: &str) -> Result<&str, WorkflowIdError> {
    if id.is_empty() || id.len() > WORKFLOW_ID_BYTES_MAX {
        return Err(WorkflowIdError::Length { bytes: id.len() });
    }
    match id.chars().find(|c| !c.is_ascii_graphic() || matches!(c, '"' | '\\')) {
        Some(character) => Err(WorkflowIdError::Character { character }),
        None => Ok(id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_id_is_kept_unchanged_or_refused() {
        let longest = "x".repeat(128);
        for id in ["order-4711/refund", "a", "{[<~!", &longest] {
            assert_eq!(given_workflow_id(id), Ok(id));
        }
        assert_eq!(given_workflow_id(""), Err(WorkflowIdError::Length { bytes: 0 }));
        assert_eq!(given_workflow_id(&"x".repeat(129)), Err(WorkflowIdError::Length { bytes: 129 }));
        for (id, character) in
            [("a b", ' '), ("a\"b", '"'), ("a\\b", '\\'), ("caf\u{e9}", '\u{e9}'), ("a\n", '\n'), ("\0", '\0')]
        {
            assert_eq!(given_workflow_id(id), Err(WorkflowIdError::Character { character }));
        }
    }
}
