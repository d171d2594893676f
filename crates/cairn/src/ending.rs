//! What an exit code says: 0 done, 1 failed, 2 wrong usage, 3 no such thing, 4 nobody answers,
//! 5 what was verified, checked, played or compared is not as it should be, 6 another broker has taken over,
//! 7 the disk of the write-ahead log failed.
//!
//! A command gives its errors a kind where a script would want to tell them apart; `main` turns it into the code.

use std::{fmt, process::ExitCode};

/// Why a command did not do what it was asked, where that is worth a code of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    /// What was named does not exist.
    NoSuch(String),
    /// Nobody answers at the address.
    NobodyThere(String),
    /// A verification found so much.
    NotVerified(u64),
    /// What was played or compared is not as recorded.
    Differs(String),
    /// Another broker has the log now.
    Replaced(String),
    /// The disk of the write-ahead log failed.
    Broken(String),
    /// A consumer did not do so many of the things that it must.
    #[cfg_attr(not(feature = "audit"), expect(dead_code, reason = "there is no consumer to check"))]
    NotReady(u64),
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuch(words) | Self::NobodyThere(words) | Self::Differs(words) | Self::Replaced(words) => {
                f.write_str(words)
            }
            Self::Broken(why) => write!(f, "the write-ahead log failed: {why}"),
            Self::NotReady(findings) => write!(f, "the consumer is not ready: {findings} of what it must do failed"),
            Self::NotVerified(findings) => {
                write!(f, "the trail is not as it was signed and chained: {findings} findings")
            }
        }
    }
}

impl std::error::Error for Ending {}

/// The code of a command's error.
pub(crate) fn code(error: &anyhow::Error) -> ExitCode {
    match error.downcast_ref::<Ending>() {
        Some(Ending::NoSuch(_)) => ExitCode::from(3),
        Some(Ending::NobodyThere(_)) => ExitCode::from(4),
        Some(Ending::NotVerified(_) | Ending::NotReady(_) | Ending::Differs(_)) => ExitCode::from(5),
        Some(Ending::Replaced(_)) => ExitCode::from(6),
        Some(Ending::Broken(_)) => ExitCode::from(7),
        None => ExitCode::FAILURE,
    }
}
