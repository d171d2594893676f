//! Why a policy set was not taken, with file and line.
//!
//! Printed at start, recorded as `policy.rejected` after a change.

use std::{fmt, path::PathBuf};

use cairn_contract::{PolicyFile, PolicyRejected};

/// Why a policy set was not taken. The last good one stays in force.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The folder or a file cannot be read.
    #[error("cannot read {path}: {source}; check that it exists and may be read, or leave the setting out to observe")]
    Read {
        /// The folder or file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A replacement of the files could not be written.
    #[error("cannot write {path}: {source}; check that this process may write there")]
    Write {
        /// The folder or file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// There is nothing to put in force.
    #[error("{path} holds no *.cedar file, so there is nothing to put in force")]
    Nothing {
        /// The folder.
        path: PathBuf,
    },
    /// No folder is read, so nothing can be replaced.
    #[error("no policies folder is in use: name one with --policies, or put policies/ beside the configuration")]
    NoFolder,
    /// The files are more than are read.
    #[error("{path} is too large: {what}; split or shorten it")]
    TooLarge {
        /// The folder or file.
        path: PathBuf,
        /// Which bound it breaks.
        what: String,
    },
    /// A folder that held policies holds none any more.
    #[error(
        "{path} held policies and holds no *.cedar file any more; restart to observe without policies, \
         or put a file with `permit (principal, action, resource);` there"
    )]
    Emptied {
        /// The folder.
        path: PathBuf,
    },
    /// Files were read, and hold mistakes.
    #[error("the policies do not compile: {}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid {
        /// Each mistake.
        problems: Vec<PolicyProblem>,
        /// The files as read.
        files: Vec<PolicyFile>,
    },
}

impl PolicyError {
    /// The event `policy.rejected`, where `version` stays in force and `who` tried.
    #[must_use]
    pub fn rejected(&self, version: &str, who: &str) -> PolicyRejected {
        let (files, errors) = match self {
            Self::Invalid { problems, files } => (files.clone(), problems.iter().map(ToString::to_string).collect()),
            other => (Vec::new(), vec![other.to_string()]),
        };
        PolicyRejected { version: version.to_owned(), files, who: who.to_owned(), errors }
    }
}

/// One mistake in a policy file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PolicyProblem {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1; 0 where there is none.
    pub line: usize,
    /// What is wrong and what to do.
    pub what: String,
}

impl fmt::Display for PolicyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": {}", self.what)
    }
}
