//! Why a message was refused before anything was decided, and which JSON-RPC error says so. Called by the parser;
//! the gateway answers with it. Must never hold a payload.

use crate::{RawId, scan::ScanFault};

/// A message that was refused, with its id where the scanner could read it without doubt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub struct Refusal {
    /// Why.
    pub fault: ParseFault,
    /// To answer under; none means that the answer's id is `null`.
    pub id: Option<RawId>,
}

impl From<ParseFault> for Refusal {
    fn from(fault: ParseFault) -> Self {
        Self { fault, id: None }
    }
}

impl Refusal {
    /// The JSON-RPC error code that the specification gives to this; limits have none there, and return `None`.
    #[must_use]
    pub const fn code(&self) -> Option<i64> {
        match &self.fault {
            ParseFault::TooLong { .. } | ParseFault::TooMany { .. } | ParseFault::Scan(ScanFault::TooDeep { .. }) => {
                None
            }
            ParseFault::Scan(ScanFault::DuplicateKey { .. }) => Some(crate::code::INVALID_REQUEST),
            ParseFault::Scan(_) => Some(crate::code::PARSE_ERROR),
            _ => Some(crate::code::INVALID_REQUEST),
        }
    }
}

/// Why a message was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseFault {
    /// The scanner refused the document.
    #[error(transparent)]
    Scan(#[from] ScanFault),
    /// The message is longer than the bound.
    #[error("the message is longer than {limit} bytes")]
    TooLong {
        /// The bound.
        limit: usize,
    },
    /// A batch has more members than the bound.
    #[error("the batch has more than {limit} members")]
    TooMany {
        /// The bound.
        limit: usize,
    },
    /// An array where no batch may come.
    #[error("a message is one object; batches exist in protocol version 2025-03-26 only")]
    UnexpectedArray,
    /// A batch without members.
    #[error("an empty batch is no message")]
    EmptyBatch,
    /// Not an object.
    #[error("a message is a JSON object")]
    NotAnObject,
    /// `jsonrpc` is not `"2.0"`.
    #[error("jsonrpc must be \"2.0\"")]
    Version,
    /// `id` is no string or integer, or lacks where it must be.
    #[error("id must be a string or an integer")]
    Id,
    /// `method` is no string.
    #[error("method must be a string")]
    Method,
    /// None or several of method, result and error.
    #[error("a message has exactly one of method, result and error")]
    Kind,
    /// A key that another parser could take for a protocol key.
    #[error("the key {key:?} could be taken for {like:?}; send only the latter")]
    LookAlike {
        /// The key, shortened.
        key: String,
        /// The protocol's key.
        like: &'static str,
    },
}
