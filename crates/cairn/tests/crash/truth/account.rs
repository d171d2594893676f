//! What the generator itself knows: every request of every workflow, what came back, and what belongs together. An entry is made before
//! its request is sent.

use std::sync::Mutex;

use serde_json::Value;

use crate::upstream::ERROR_CODE;

/// What a request is, and with that what must become of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Act {
    /// A tool that does its work.
    Works,
    /// A tool whose result says that it failed.
    Fails,
    /// A tool that is answered with a JSON-RPC error.
    Errs,
    /// A tool that policy forbids.
    Forbidden,
    /// A tool that waits for a person.
    Held,
    /// A resource, relaxed.
    Read,
    /// A round of an operation, of so many; the last is answered for good.
    Round { number: u64, of: u64 },
    /// A tool that becomes a task.
    Begins,
    /// A look at a task.
    Looks,
    /// The result of a task.
    Fetches,
}

impl Act {
    pub(super) const fn tool(self) -> &'static str {
        match self {
            Self::Forbidden => "forbidden",
            Self::Held => "held",
            Self::Read | Self::Looks | Self::Fetches => "",
            _ => "act",
        }
    }

    pub(super) const fn method(self) -> &'static str {
        match self {
            Self::Read => "resources/read",
            Self::Looks => "tasks/get",
            Self::Fetches => "tasks/result",
            _ => "tools/call",
        }
    }

    pub(super) const fn how(self) -> &'static str {
        match self {
            Self::Fails => "fails",
            Self::Errs => "errs",
            Self::Round { .. } => "rounds",
            Self::Begins => "task",
            _ => "works",
        }
    }
}

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// Its JSON-RPC id, which stands in the server's journal too.
    pub(super) id: String,
    pub(super) workflow: String,
    pub(super) act: Act,
    /// The operation that it belongs to, by the id of its first request.
    pub(super) operation: Option<String>,
    /// The request of which it is a repeat, byte for byte.
    pub(super) repeats: Option<String>,
    /// Which start of Cairn took it.
    pub(super) life: usize,
    /// Requests of one workflow with the same number were under way at the same time.
    pub(super) step: usize,
    /// The answer; nothing where none came.
    pub(super) answer: Option<Value>,
}

impl Asked {
    /// The answer is what the server gave for it.
    pub(super) fn has_servers_answer(&self) -> bool {
        let Some(answer) = &self.answer else { return false };
        answer.get("result").is_some() || (self.act == Act::Errs && self.error() == Some(ERROR_CODE))
    }

    /// The client was told that the call was not taken: there is no place for it, or no room in the record.
    pub(super) fn is_turned_away(&self) -> bool {
        matches!(self.error(), Some(-31_004 | -31_005))
    }

    pub(super) fn error(&self) -> Option<i64> {
        self.answer.as_ref()?["error"]["code"].as_i64()
    }

    /// The task ended, as this answer says.
    pub(super) fn shows_end(&self) -> bool {
        let Some(answer) = &self.answer else { return false };
        match self.act {
            Act::Looks => answer["result"]["status"] == "completed",
            Act::Fetches => answer.get("result").is_some(),
            _ => false,
        }
    }
}

/// Everything that was asked.
#[derive(Default)]
pub(super) struct Account(Mutex<Vec<Asked>>);

impl Account {
    pub(super) fn ask(&self, asked: Asked) -> usize {
        let mut all = self.0.lock().expect("no holder panics");
        all.push(asked);
        all.len() - 1
    }

    pub(super) fn saw(&self, place: usize, answer: Value) {
        self.0.lock().expect("no holder panics")[place].answer = Some(answer);
    }

    pub(super) fn all(&self) -> Vec<Asked> {
        self.0.lock().expect("no holder panics").clone()
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().expect("no holder panics").len()
    }
}
