//! A recording: what one workflow's calls asked, what was decided, and what came back, each payload by its digest and, where
//! somebody may read it, with its text.
//!
//! Made from events ([`Gathering`](crate::Gathering)) or read from a file that `cairn play --export` wrote. Played by
//! [`Player`](crate::Player), compared by [`compare`](crate::compare). A file carries a digest of its own, so that a spoiled
//! one is not taken for what was recorded.

use std::collections::BTreeMap;

use cairn_contract::{
    ApprovalState, Decision, Effect, Era, ListKind, Outcome, Reference, ScreenAction, canonical_value, sha256_text,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The form of the file.
const FORMAT: &str = "cairn-recording/1";
/// Largest file that is read, in bytes.
pub const FILE_BYTES_MAX: u64 = 512 << 20;
/// What stands in the place of something that was masked begins with it.
const MASKED: &str = "[masked:";

/// One workflow, recorded.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recording {
    format: String,
    /// The workflow.
    pub workflow_id: String,
    /// Its tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The servers that it called, by name.
    pub servers: BTreeMap<String, RecordedServer>,
    /// Its calls, in the order in which they were made.
    pub calls: Vec<RecordedCall>,
    /// Over everything else in the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
}

/// A server, as far as the workflow met it.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecordedServer {
    /// The name that it gives itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The version that it gives itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What it can do, as it declared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Map<String, Value>>,
    /// Its answer to `initialize` or `server/discover`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub greeting: Option<Payload>,
    /// The lists that were fetched, in order; where none of a kind was, what the catalogue held.
    pub lists: Vec<RecordedList>,
    /// Kinds of list whose next page follows, while events are read.
    #[serde(skip)]
    pub(crate) goes_on: std::collections::BTreeSet<u8>,
}

/// A list that was fetched, all its pages together.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedList {
    /// Of what.
    pub kind: ListKind,
    /// The pages as they came.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pages: Vec<Payload>,
    /// What was listed, as the catalogue has it.
    pub items: Vec<RecordedItem>,
}

/// One entry of a list.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedItem {
    /// Its name or URI.
    pub name: String,
    /// Digest of its definition.
    pub digest: String,
    /// The definition, where the catalogue has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<Value>,
}

/// Where an event is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}@{}", self.topic, self.partition, self.offset)
    }
}

/// One call.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedCall {
    /// Its id.
    pub call_id: String,
    /// Where its first event is.
    pub at: Place,
    /// When that was made, RFC 3339.
    pub time: String,
    /// The server.
    pub server: String,
    /// The method.
    pub method: String,
    /// The tool, prompt or resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Who called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// The era of the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub era: Option<Era>,
    /// What was sent: the arguments, beside answers where the server had asked; the parameters where there are no arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Payload>,
    /// What was decided last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decided>,
    /// How an approval ended, where one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approved>,
    /// How it ended; absent where it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Ended>,
}

/// A decision.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decided {
    /// What.
    pub decision: Decision,
    /// The policies that were asked.
    pub policy_version: String,
    /// Those that decided.
    pub policies: Vec<String>,
    /// What they demanded.
    pub obligations: Vec<String>,
}

/// An approval.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approved {
    /// How it stands.
    pub state: ApprovalState,
    /// Which.
    pub approval_id: String,
    /// Why, in the approver's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How a call ended.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ended {
    /// How.
    pub outcome: Outcome,
    /// What that says about the server.
    pub effect: Effect,
    /// A short stable name of what went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_type: Option<String>,
    /// The JSON-RPC error's code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i64>,
    /// The status of a server that speaks HTTP, where it was not 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// Whether the tool itself failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_error: Option<bool>,
    /// The result, or the error in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Payload>,
    /// What became of a result that was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub screened: Option<ScreenAction>,
}

/// A payload: what stands for it, and the text where it was read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payload {
    /// The keyed digest in the event.
    pub digest: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// The text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Why there is no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<Gone>,
    /// Where it lies in a vault, while it is not read.
    #[serde(skip)]
    pub location: Option<String>,
}

/// Why a payload cannot be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gone {
    /// Its subject was erased.
    Erased,
    /// Only a digest was kept.
    NotKept,
    /// It is not in this vault: another gateway's, or too old.
    Missing,
    /// The vault's file is damaged.
    Damaged,
}

impl Gone {
    /// In words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Erased => "was erased",
            Self::NotKept => "was not kept, only its digest",
            Self::Missing => "is not in this vault: another gateway's, or past its time",
            Self::Damaged => "is damaged in the vault",
        }
    }
}

/// Why a file is no recording.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// It cannot be read as one.
    #[error("it is no recording: {0}; make one with `cairn play --workflow ID --export FILE`")]
    Form(#[from] serde_json::Error),
    /// It is of another form.
    #[error("it is of the form {format:?}, and this Cairn reads {FORMAT:?}: export it again")]
    Format {
        /// Which.
        format: String,
    },
    /// It is not what was written.
    #[error(
        "it is not what was exported: export it again, or take its last member `digest` out if the change is meant"
    )]
    Changed,
}

impl Payload {
    /// What an event says of it.
    #[must_use]
    pub fn of(reference: &Reference) -> Self {
        let Reference { digest, bytes, location, inline, .. } = reference.clone();
        let location = location.filter(|location| location.starts_with("vault:"));
        let gone = (location.is_none() && inline.is_none()).then_some(Gone::NotKept);
        Self { digest, bytes, text: inline, gone, location }
    }

    /// Whether something in its text was masked, so that it is not what was sent.
    #[must_use]
    pub fn is_masked(&self) -> bool {
        self.text.as_deref().is_some_and(|text| text.contains(MASKED))
    }

    /// Why there is no text, in words.
    #[must_use]
    pub fn why_gone(&self) -> &'static str {
        self.gone.map_or("was not read", Gone::words)
    }
}

impl RecordedCall {
    /// What is called: `server/name`, or server and method.
    #[must_use]
    pub fn title(&self) -> String {
        match &self.target {
            Some(name) => format!("{} {}/{name}", self.method, self.server),
            None => format!("{} {}", self.method, self.server),
        }
    }
}

impl Recording {
    /// Of these parts.
    #[must_use]
    pub fn new(
        workflow_id: String,
        tenant: Option<String>,
        servers: BTreeMap<String, RecordedServer>,
        calls: Vec<RecordedCall>,
    ) -> Self {
        Self { format: FORMAT.to_owned(), workflow_id, tenant, servers, calls, digest: None }
    }

    fn payloads_mut(&mut self) -> impl Iterator<Item = &mut Payload> {
        let of_calls = self.calls.iter_mut().flat_map(|call| {
            let result = call.outcome.as_mut().and_then(|ended| ended.result.as_mut());
            call.arguments.iter_mut().chain(result)
        });
        let of_servers = self.servers.values_mut().flat_map(|server| {
            server.greeting.iter_mut().chain(server.lists.iter_mut().flat_map(|list| &mut list.pages))
        });
        of_calls.chain(of_servers)
    }

    /// The payloads that are still to be read: digest, location and size, each once.
    #[must_use]
    pub fn unread(&mut self) -> Vec<(String, String, u64)> {
        let mut unread: Vec<_> = self
            .payloads_mut()
            .filter(|payload| payload.text.is_none() && payload.gone.is_none())
            .filter_map(|payload| Some((payload.digest.clone(), payload.location.clone()?, payload.bytes)))
            .collect();
        unread.sort();
        unread.dedup_by(|a, b| a.0 == b.0);
        unread
    }

    /// Puts in what was read, by digest.
    pub fn fill(&mut self, mut read: impl FnMut(&str) -> Option<Result<String, Gone>>) {
        for payload in self.payloads_mut().filter(|payload| payload.text.is_none() && payload.gone.is_none()) {
            match read(&payload.digest) {
                Some(Ok(text)) => payload.text = Some(text),
                Some(Err(gone)) => payload.gone = Some(gone),
                None => {}
            }
        }
    }

    /// The file's bytes, with its digest.
    #[must_use]
    pub fn to_file(&self) -> Vec<u8> {
        let mut whole = Self { digest: None, ..self.clone() };
        whole.digest = Some(whole.own_digest());
        let mut bytes = serde_json::to_vec_pretty(&whole).expect("a recording is JSON");
        bytes.push(b'\n');
        bytes
    }

    /// Reads a file.
    ///
    /// # Errors
    /// It is no recording, or not the one that was written.
    pub fn from_file(bytes: &[u8]) -> Result<Self, RecordingError> {
        let mut recording: Self = serde_json::from_slice(bytes)?;
        if recording.format != FORMAT {
            return Err(RecordingError::Format { format: recording.format.chars().take(64).collect() });
        }
        if recording.digest.take().is_some_and(|digest| digest != recording.own_digest()) {
            return Err(RecordingError::Changed);
        }
        Ok(recording)
    }

    fn own_digest(&self) -> String {
        let value = serde_json::to_value(self).expect("a recording is JSON");
        sha256_text(canonical_value(&value).as_bytes())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A payload of that text.
    pub(crate) fn payload(text: &str) -> Payload {
        let digest = format!("hmac-sha256:k:{}", sha256_text(text.as_bytes()).rsplit(':').next().expect("hex"));
        Payload { digest, bytes: text.len() as u64, text: Some(text.to_owned()), gone: None, location: None }
    }

    /// A call that was permitted and completed.
    pub(crate) fn call(number: u64, tool: &str, arguments: &str, result: &str) -> RecordedCall {
        RecordedCall {
            call_id: format!("01920000-0000-7000-8000-{number:012}"),
            at: Place { topic: "mcp.calls".to_owned(), partition: 0, offset: number },
            time: "2026-11-24T09:00:00.000000Z".to_owned(),
            server: "orders".to_owned(),
            method: "tools/call".to_owned(),
            target: Some(tool.to_owned()),
            principal: Some("ada".to_owned()),
            era: Some(Era::Legacy),
            arguments: Some(payload(arguments)),
            decision: Some(Decided {
                decision: Decision::Permit,
                policy_version: "sha256:1".to_owned(),
                policies: vec!["all".to_owned()],
                obligations: Vec::new(),
            }),
            approval: None,
            outcome: Some(Ended {
                outcome: Outcome::Completed,
                effect: Effect::Answered,
                error_type: None,
                code: None,
                http_status: None,
                is_error: None,
                result: Some(payload(result)),
                screened: None,
            }),
        }
    }

    pub(crate) fn recording(calls: Vec<RecordedCall>) -> Recording {
        let servers = calls.iter().map(|call| (call.server.clone(), RecordedServer::default())).collect();
        Recording::new("w".to_owned(), None, servers, calls)
    }

    #[test]
    fn a_file_is_what_was_written_or_is_refused() {
        let recording = recording(vec![call(1, "get", r#"{"n":9007199254740993}"#, r#"{"x":1}"#)]);
        let file = recording.to_file();
        assert_eq!(Recording::from_file(&file).expect("it is one"), recording);
        let text = String::from_utf8(file).expect("text");
        let changed = text.replace("9007199254740993", "9007199254740992");
        assert!(matches!(Recording::from_file(changed.as_bytes()), Err(RecordingError::Changed)));
        let mut meant: Value = serde_json::from_str(&changed).expect("JSON");
        meant.as_object_mut().expect("an object").shift_remove("digest");
        assert!(Recording::from_file(meant.to_string().as_bytes()).is_ok(), "whoever takes the digest out means it");
        let other = text.replace("cairn-recording/1", "cairn-recording/2");
        assert!(matches!(Recording::from_file(other.as_bytes()), Err(RecordingError::Format { .. })));
        assert!(matches!(Recording::from_file(b"{}"), Err(RecordingError::Form(_))));
    }

    #[test]
    fn each_payload_is_asked_for_once_and_what_stands_inline_never() {
        let reference = |location: Option<&str>, inline: Option<&str>| Reference {
            digest: "hmac-sha256:k:00".to_owned(),
            bytes: 2,
            media_type: "application/json".to_owned(),
            location: location.map(ToOwned::to_owned),
            inline: inline.map(ToOwned::to_owned),
        };
        let mut one = call(1, "get", "{}", "{}");
        one.arguments = Some(Payload::of(&reference(Some("vault:k/1"), None)));
        let mut two = one.clone();
        two.outcome.as_mut().expect("it ended").result = Some(Payload::of(&reference(Some("not-kept:busy"), None)));
        let mut three = one.clone();
        three.arguments = Some(Payload::of(&reference(None, Some("{}"))));
        let mut all = recording(vec![one, two, three]);
        assert_eq!(all.unread(), [("hmac-sha256:k:00".to_owned(), "vault:k/1".to_owned(), 2)]);
        all.fill(|_| Some(Err(Gone::Erased)));
        assert!(all.unread().is_empty());
        let gone: Vec<_> = all.calls.iter().map(|call| call.arguments.as_ref().and_then(|found| found.gone)).collect();
        assert_eq!(gone, [Some(Gone::Erased), Some(Gone::Erased), None]);
        let result = all.calls[1].outcome.as_ref().and_then(|ended| ended.result.as_ref()).expect("a result");
        assert_eq!(result.gone, Some(Gone::NotKept));
    }
}
