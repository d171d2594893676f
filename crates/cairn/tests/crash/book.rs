//! What the clients asked and what they saw: the third witness beside the trail and the upstream's journal.
//!
//! Agents write into it as they go; [`crate::verdict`] reads it. An entry is made before its request is sent, so that
//! nothing can reach a server that the book does not know.

use std::sync::Mutex;

/// What a client asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A tool with a side effect: strict.
    Act,
    /// A tool that policy forbids.
    Forbidden,
    /// A tool that waits for a person.
    Held,
    /// A read: relaxed.
    Read,
}

impl Kind {
    pub(crate) const fn tool(self) -> &'static str {
        match self {
            Self::Act => "act",
            Self::Forbidden => "forbidden",
            Self::Held => "held",
            Self::Read => "",
        }
    }

    pub(crate) const fn is_strict(self) -> bool {
        !matches!(self, Self::Read)
    }
}

/// What a client saw of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Saw {
    /// No answer.
    Nothing,
    /// A result of the server's.
    Result,
    /// A JSON-RPC error.
    Error {
        /// Its code.
        code: i64,
        /// Its words.
        message: String,
    },
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The id that the client chose: argument, JSON-RPC id, and line of the upstream's journal.
    pub(crate) id: String,
    pub(crate) workflow: String,
    pub(crate) kind: Kind,
    pub(crate) saw: Saw,
}

/// All requests, in the order in which they were sent (of one workflow; across workflows in no order).
#[derive(Debug, Default)]
pub(crate) struct Book(Mutex<Vec<Entry>>);

impl Book {
    /// Notes a request that is about to be sent; gives its place.
    pub(crate) fn ask(&self, id: &str, workflow: &str, kind: Kind) -> usize {
        let mut entries = self.0.lock().expect("no holder panics");
        entries.push(Entry { id: id.to_owned(), workflow: workflow.to_owned(), kind, saw: Saw::Nothing });
        entries.len() - 1
    }

    /// Notes what the client saw.
    pub(crate) fn saw(&self, place: usize, saw: Saw) {
        self.0.lock().expect("no holder panics")[place].saw = saw;
    }

    /// Everything so far.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.0.lock().expect("no holder panics").clone()
    }
}
