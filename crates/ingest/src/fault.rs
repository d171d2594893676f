//! Why a request is refused, and what that is in HTTP and in gRPC.
//!
//! OTLP says which answers mean that the sender should send again: 429, 502, 503 and 504, and UNAVAILABLE of gRPC. Only what
//! passes is answered so.

use cairn_identity::Rejection;

/// Why a request is refused.
#[derive(Debug)]
pub(crate) enum Fault {
    /// It names this address as nobody may, or comes from a page.
    Named(String),
    /// Whoever sends it is not let in.
    NotLetIn(Box<Rejection>),
    /// It is in no form that is read.
    Media(String),
    /// It is too long.
    TooLarge(String),
    /// It did not come in time.
    Slow(String),
    /// It is not what it should be.
    Malformed(String),
    /// The sender may not report for that.
    Forbidden(String),
    /// It says something else than it said before.
    Conflict(String),
    /// There is no room for it now.
    Busy(String),
    /// It is not recorded now.
    NotRecorded(String),
}

impl Fault {
    /// The HTTP status.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Named(_) | Self::Forbidden(_) => 403,
            Self::NotLetIn(rejection) => rejection.reason.status(),
            Self::Media(_) => 415,
            Self::TooLarge(_) => 413,
            Self::Slow(_) => 408,
            Self::Malformed(_) => 400,
            Self::Conflict(_) => 409,
            Self::Busy(_) | Self::NotRecorded(_) => 503,
        }
    }

    /// The status code of gRPC, which answers over HTTP hold too.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Named(_) | Self::Forbidden(_) => 7,
            Self::NotLetIn(rejection) => match rejection.reason.status() {
                400 => 3,
                403 => 7,
                503 => 14,
                _ => 16,
            },
            Self::Media(_) | Self::Malformed(_) | Self::TooLarge(_) => 3,
            Self::Slow(_) => 4,
            Self::Conflict(_) => 6,
            Self::Busy(_) | Self::NotRecorded(_) => 14,
        }
    }

    /// What the sender is told.
    pub(crate) fn says(&self) -> &str {
        match self {
            Self::NotLetIn(rejection) => rejection.reason.says(),
            Self::Named(words)
            | Self::Media(words)
            | Self::TooLarge(words)
            | Self::Slow(words)
            | Self::Malformed(words)
            | Self::Forbidden(words)
            | Self::Conflict(words)
            | Self::Busy(words)
            | Self::NotRecorded(words) => words,
        }
    }

    /// The word in metrics.
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::Named(_) => "named_otherwise",
            Self::NotLetIn(_) => "not_let_in",
            Self::Media(_) => "media",
            Self::TooLarge(_) => "too_large",
            Self::Slow(_) => "slow",
            Self::Malformed(_) => "malformed",
            Self::Forbidden(_) => "forbidden",
            Self::Conflict(_) => "conflict",
            Self::Busy(_) => "busy",
            Self::NotRecorded(_) => "not_recorded",
        }
    }

    /// After how many seconds it may be sent again; nothing where that would not help.
    pub(crate) const fn retry_after(&self) -> Option<u8> {
        match self {
            Self::Busy(_) | Self::NotRecorded(_) => Some(2),
            _ => None,
        }
    }
}
