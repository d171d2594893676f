//! Which recorded call answers what a client asks, and what came of it all.
//!
//! Strict: the next call of the same tool, with equal arguments, or an error that says what was expected and what came.
//! Lenient: of the calls of the same tool that were not played yet the one whose arguments are nearest. A call is played
//! once. Knows nothing of how MCP is spoken: that is [`Stage`](crate::Stage).

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use cairn_contract::{Outcome, ScreenAction};
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json, value::RawValue};

use crate::{
    difference::{Difference, differences},
    recording::{Payload, RecordedCall, Recording},
};

/// The call is none that was recorded, or not the next one.
const NOT_AS_RECORDED: i64 = -31_050;
/// It was recorded, and what came back cannot be had any more.
const NOT_PLAYABLE: i64 = -31_051;
/// Nobody knows what became of it.
const IN_DOUBT: i64 = -31_052;
/// Places in which arguments differ that an error names.
const NAMED_MAX: usize = 10;
/// Places that are counted to find the nearest call.
const COUNTED_MAX: usize = 1_000;
/// Differences and calls that a report lists; all are counted.
const LISTED_MAX: usize = 100;
/// Calls of a client that a report lists; all are counted.
const HEARD_MAX: usize = 1_000;
/// Longest text that is shown of arguments, in characters.
const SHOWN_MAX: usize = 400;

/// Why a legacy client does not get what a modern one got.
const NO_ROUNDS: &str = "it asked its client for input inside a result, which clients of this revision do not know";

/// How much a call must be like the recorded one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Equal arguments, in the recorded order of each tool.
    Strict,
    /// The nearest one of the same tool.
    Lenient,
}

/// What a client asks.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Of which server.
    pub server: &'a str,
    /// With which method.
    pub method: &'a str,
    /// The tool, prompt or resource.
    pub target: Option<&'a str>,
    /// The arguments; beside answers where the server had asked; the parameters where there are no arguments.
    pub arguments: Option<&'a str>,
    /// Whether the client knows results that ask it for input.
    pub takes_rounds: bool,
}

/// What it gets.
#[derive(Clone, PartialEq, Debug)]
pub enum Given {
    /// A result, raw.
    Result(String),
    /// An error of the server's, raw.
    Error(String),
    /// An error of Cairn's: what it gave then, or gives now.
    Own {
        /// The code.
        code: i64,
        /// What to know and do.
        message: String,
        /// For machines.
        data: Value,
    },
}

/// Something that was not as it was recorded.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Differed {
    /// What was asked.
    pub asked: String,
    /// Where the recorded call is that it was held to.
    pub recorded: Option<String>,
    /// In words.
    pub words: String,
    /// Where the arguments part.
    pub differences: Vec<Difference>,
}

/// A call of the client's, and what became of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Heard {
    /// What was asked.
    pub asked: String,
    /// Where the recorded call is that it was held to.
    pub recorded: Option<String>,
    /// How it was answered.
    pub how: How,
}

/// How a call was answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// As it was recorded.
    AsRecorded,
    /// Otherwise, or not at all: it was none that was recorded, or not the next one.
    Differed,
    /// Not at all: what was recorded cannot be played.
    NotPlayable,
}

/// What came of a play.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Played {
    /// The workflow.
    pub workflow_id: String,
    /// How it was played.
    pub mode: Mode,
    /// Calls of the recording.
    pub recorded: u64,
    /// Calls that were asked for.
    pub asked: u64,
    /// Of these, played as recorded.
    pub as_recorded: u64,
    /// Of these, not as recorded: refused, or played leniently.
    pub differed: u64,
    /// Of these, recorded, and not to be played any more.
    pub not_playable: u64,
    /// Recorded calls that nobody asked for.
    pub never_asked: u64,
    /// The first calls, in the order in which they were asked.
    pub calls: Vec<Heard>,
    /// The first differences.
    pub differences: Vec<Differed>,
    /// The first calls that nobody asked for.
    pub unasked: Vec<String>,
}

impl Played {
    /// Whether all of the recording was played as it was recorded, and nothing else.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.differed == 0 && self.not_playable == 0 && self.never_asked == 0
    }
}

/// A recorded call that cannot be played.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct NotPlayable {
    /// The call and its place.
    pub call: String,
    /// Why.
    pub why: String,
}

type Key = (String, String, Option<String>);

/// A recording that is played to somebody. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Player(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    recording: Recording,
    mode: Mode,
    /// Calls by what is called, in their order.
    queues: HashMap<Key, Vec<usize>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: Vec<bool>,
    asked: u64,
    as_recorded: u64,
    differed: u64,
    not_playable: u64,
    calls: Vec<Heard>,
    differences: Vec<Differed>,
}

impl Player {
    /// Plays a recording.
    #[must_use]
    pub fn new(recording: Recording, mode: Mode) -> Self {
        let mut queues: HashMap<Key, Vec<usize>> = HashMap::new();
        for (index, call) in recording.calls.iter().enumerate() {
            queues.entry((call.server.clone(), call.method.clone(), target(call))).or_default().push(index);
        }
        let state = Mutex::new(State { used: vec![false; recording.calls.len()], ..State::default() });
        Self(Arc::new(Inner { recording, mode, queues, state }))
    }

    /// What is played.
    #[must_use]
    pub fn recording(&self) -> &Recording {
        &self.0.recording
    }

    /// The calls that cannot be played, with why.
    #[must_use]
    pub fn not_playable(&self) -> Vec<NotPlayable> {
        let strict = self.0.mode == Mode::Strict;
        let calls = self.0.recording.calls.iter();
        calls
            .filter_map(|call| {
                let unseen = call.arguments.as_ref().filter(|sent| strict && sent.text.is_none());
                let why = match (given(call), unseen) {
                    (Err(why), _) => why,
                    (Ok(_), Some(sent)) => no_arguments(sent),
                    (Ok(_), None) => return None,
                };
                Some(NotPlayable { call: format!("{} ({})", call.title(), call.at), why })
            })
            .collect()
    }

    /// Whether anything of that method was recorded at that server.
    #[must_use]
    pub fn knows(&self, server: &str, method: &str) -> bool {
        self.0.queues.keys().any(|(of, named, _)| of == server && named == method)
    }

    /// The answer to a call.
    #[must_use]
    pub fn play(&self, asked: Asked<'_>) -> Given {
        let inner = &*self.0;
        let title = title(asked);
        let mut state = inner.state.lock();
        state.asked += 1;
        let key = (asked.server.to_owned(), asked.method.to_owned(), asked.target.map(ToOwned::to_owned));
        let Some(queue) = inner.queues.get(&key) else {
            return state.refuse(
                title,
                None,
                format!("it was never called; {}", self.what_was(asked.server)),
                Vec::new(),
            );
        };
        let unused: Vec<usize> = queue.iter().copied().filter(|index| !state.used[*index]).collect();
        let came = asked.arguments.map_or(Cow::Borrowed("{}"), |sent| comparable(asked.method, sent));
        let Some(index) = inner.chosen(&unused, &came) else {
            let words = format!("it was called {} times, and now once more", queue.len());
            return state.refuse(title, None, words, Vec::new());
        };
        let call = &inner.recording.calls[index];
        let place = format!("{}", call.at);
        let parts = match (inner.parts(call, &came, NAMED_MAX), inner.mode) {
            (Err(why), Mode::Strict) => {
                state.used[index] = true;
                return state.cannot(title, &place, &why);
            }
            // Nobody can say how near they are: it is what is left.
            (Err(_), Mode::Lenient) => Vec::new(),
            (Ok(parts), _) => parts,
        };
        if let (Some(first), Mode::Strict) = (parts.first(), inner.mode) {
            let words = format!("expected its arguments as in {place}; {}", said(first));
            return state.refuse(title, Some(call), words, parts);
        }
        state.used[index] = true;
        let asks = call.outcome.as_ref().is_some_and(|ended| ended.outcome == Outcome::InputRequired);
        let given = if asks && !asked.takes_rounds { Err(NO_ROUNDS.to_owned()) } else { given(call) };
        match given {
            Err(why) => state.cannot(title, &place, &why),
            Ok(given) => {
                match parts.first() {
                    None => {
                        state.as_recorded += 1;
                        state.hear(title, Some(place), How::AsRecorded);
                    }
                    Some(first) => {
                        let words = format!("played {place}, the nearest; {}", said(first));
                        state.note(Differed { asked: title, recorded: Some(place), words, differences: parts });
                    }
                }
                given
            }
        }
    }

    /// Notes something that was asked and that no call of the recording could answer.
    pub fn note_unknown(&self, server: &str, method: &str) {
        let mut state = self.0.state.lock();
        state.asked += 1;
        let words = format!("nothing of this method was recorded; {}", self.what_was(server));
        let (asked, recorded) = (format!("{method} {server}"), None);
        state.note(Differed { asked, recorded, words, differences: Vec::new() });
    }

    /// What came of it so far.
    #[must_use]
    pub fn played(&self) -> Played {
        let state = self.0.state.lock();
        let calls = &self.0.recording.calls;
        let unasked = || calls.iter().zip(&state.used).filter(|(_, used)| !**used).map(|(call, _)| call);
        Played {
            workflow_id: self.0.recording.workflow_id.clone(),
            mode: self.0.mode,
            recorded: calls.len() as u64,
            asked: state.asked,
            as_recorded: state.as_recorded,
            differed: state.differed,
            not_playable: state.not_playable,
            never_asked: unasked().count() as u64,
            calls: state.calls.clone(),
            differences: state.differences.clone(),
            unasked: unasked().take(LISTED_MAX).map(|call| format!("{} ({})", call.title(), call.at)).collect(),
        }
    }

    fn what_was(&self, server: &str) -> String {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for call in self.0.recording.calls.iter().filter(|call| call.server == server) {
            *counts.entry(call.title()).or_default() += 1;
        }
        let named: Vec<String> =
            counts.iter().take(NAMED_MAX).map(|(title, count)| format!("{title} ({count} times)")).collect();
        if named.is_empty() {
            format!("nothing of {server} was recorded")
        } else {
            format!("recorded: {}", named.join(", "))
        }
    }
}

impl Inner {
    fn chosen(&self, unused: &[usize], came: &str) -> Option<usize> {
        if self.mode == Mode::Strict {
            return unused.first().copied();
        }
        let far = |index: &usize| {
            let parts = self.parts(&self.recording.calls[*index], came, COUNTED_MAX);
            parts.map_or(usize::MAX, |parts| parts.len())
        };
        // Of equally near ones the earliest.
        unused.iter().copied().min_by_key(far)
    }

    /// Where arguments part from those of a recorded call, or why nobody can say.
    fn parts(&self, call: &RecordedCall, came: &str, most: usize) -> Result<Vec<Difference>, String> {
        let recorded = match &call.arguments {
            None => Cow::Borrowed("{}"),
            Some(sent) => comparable(&call.method, sent.text.as_deref().ok_or_else(|| no_arguments(sent))?),
        };
        Ok(differences(&recorded, came, most))
    }
}

impl State {
    fn hear(&mut self, asked: String, recorded: Option<String>, how: How) {
        if self.calls.len() < HEARD_MAX {
            self.calls.push(Heard { asked, recorded, how });
        }
    }

    fn note(&mut self, differed: Differed) {
        self.differed += 1;
        self.hear(differed.asked.clone(), differed.recorded.clone(), How::Differed);
        if self.differences.len() < LISTED_MAX {
            self.differences.push(differed);
        }
    }

    fn refuse(
        &mut self,
        asked: String,
        expected: Option<&RecordedCall>,
        words: String,
        differences: Vec<Difference>,
    ) -> Given {
        let mut data = json!({ "cairn": "not_as_recorded" });
        if let Some(call) = expected {
            let sent = call.arguments.as_ref().and_then(|sent| sent.text.as_deref());
            let sent: Option<String> = sent.map(|text| text.chars().take(SHOWN_MAX).collect());
            data["expected"] = json!({ "call": call.title(), "at": call.at.to_string(), "arguments": sent });
            data["differences"] = json!(differences);
        }
        let message = format!("not as recorded: {asked}: {words}");
        let recorded = expected.map(|call| call.at.to_string());
        self.note(Differed { asked, recorded, words, differences });
        Given::Own { code: NOT_AS_RECORDED, message, data }
    }

    fn cannot(&mut self, asked: String, place: &str, why: &str) -> Given {
        self.not_playable += 1;
        self.hear(asked.clone(), Some(place.to_owned()), How::NotPlayable);
        let message = format!("{asked} was recorded ({place}) and cannot be played: {why}");
        if self.differences.len() < LISTED_MAX {
            let (recorded, words) = (Some(place.to_owned()), format!("cannot be played: {why}"));
            self.differences.push(Differed { asked, recorded, words, differences: Vec::new() });
        }
        Given::Own { code: NOT_PLAYABLE, message, data: json!({ "cairn": "not_playable", "at": place }) }
    }
}

fn title(asked: Asked<'_>) -> String {
    match asked.target {
        Some(name) => format!("{} {}/{name}", asked.method, asked.server),
        None => format!("{} {}", asked.method, asked.server),
    }
}

fn said(first: &Difference) -> String {
    let of = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
    let at = if first.pointer.is_empty() { "the whole" } else { &first.pointer };
    format!("at {at}: recorded {}, came {}", of(&first.recorded), of(&first.came))
}

fn no_arguments(sent: &Payload) -> String {
    format!("what was sent {}, so that nobody can compare it (lenient play does not need it)", sent.why_gone())
}

/// What a recorded call is about. A URI may stand in its event masked: what was sent has it whole.
fn target(call: &RecordedCall) -> Option<String> {
    let whole = || {
        let sent: Value = serde_json::from_str(call.arguments.as_ref()?.text.as_deref()?).ok()?;
        Some(sent.get("uri")?.as_str()?.to_owned())
    };
    if call.method.starts_with("resources/") { whole().or_else(|| call.target.clone()) } else { call.target.clone() }
}

/// Parameters without what belongs to one request alone: its metadata, and the state that a server gave.
fn comparable<'t>(method: &str, text: &'t str) -> Cow<'t, str> {
    if matches!(method, "tools/call" | "prompts/get") {
        return Cow::Borrowed(text);
    }
    let Ok(mut members) = serde_json::from_str::<BTreeMap<String, &RawValue>>(text) else { return Cow::Borrowed(text) };
    let had = members.len();
    members.retain(|name, _| name != "_meta" && name != "requestState");
    if members.len() == had {
        return Cow::Borrowed(text);
    }
    Cow::Owned(serde_json::to_string(&members).expect("raw values are JSON"))
}

/// What a recorded call gave its client, or why that cannot be had.
fn given(call: &RecordedCall) -> Result<Given, String> {
    let Some(ended) = &call.outcome else {
        return Err("it has no outcome in the trail: nobody knows what it would have given".to_owned());
    };
    if ended.outcome == Outcome::InDoubt {
        let message = format!(
            "in doubt when it was recorded ({}): nobody knows whether the server acted, and no answer came",
            call.at
        );
        return Ok(Given::Own { code: IN_DOUBT, message, data: json!({ "cairn": "in_doubt" }) });
    }
    match ended.screened {
        Some(ScreenAction::Blocked) => return Ok(refused(call)),
        Some(ScreenAction::Redacted) => {
            return Err("the client got its answer redacted, and only the whole one was recorded".to_owned());
        }
        Some(ScreenAction::Passed | ScreenAction::Flagged) | None => {}
    }
    match &ended.result {
        Some(result) => match &result.text {
            None => Err(format!("what came back {}", result.why_gone())),
            Some(text) if ended.code.is_some() => Ok(Given::Error(text.clone())),
            Some(text) => Ok(Given::Result(text.clone())),
        },
        None if ended.code.is_some() => Ok(refused(call)),
        None => match ended.http_status {
            Some(status) => Err(format!("the server answered HTTP {status} and no message, which is not recorded")),
            None => Err("what came back was not kept".to_owned()),
        },
    }
}

/// An error that Cairn gave in the server's place, in the words that it would have again as far as they are recorded.
fn refused(call: &RecordedCall) -> Given {
    let ended = call.outcome.as_ref().expect("it ended");
    let word = ended.error_type.as_deref().unwrap_or("failed");
    let mut data = json!({ "cairn": word });
    let approval = call.approval.as_ref().map(|approval| approval.approval_id.as_str()).unwrap_or_default();
    let message = match (word, &call.decision) {
        ("denied", Some(decided)) => {
            data["policy_version"] = json!(decided.policy_version);
            data["determining_policies"] = json!(decided.policies);
            match decided.policies.as_slice() {
                [] => format!(
                    "denied: no policy permits this call (policy version {}); ask for a permit",
                    decided.policy_version
                ),
                policies => {
                    format!("denied by policy {} (policy version {})", policies.join(", "), decided.policy_version)
                }
            }
        }
        ("approval_denied", _) => {
            data["approval_id"] = json!(approval);
            match call.approval.as_ref().and_then(|approval| approval.reason.as_deref()) {
                Some(reason) => format!("approval {approval} was denied: {reason}"),
                None => format!("approval {approval} was denied"),
            }
        }
        ("approval_expired", _) => {
            data["approval_id"] = json!(approval);
            format!("approval {approval} did not come in time; nothing was sent; call again to ask again")
        }
        ("timed_out", _) => "no answer came in time; whether the server acted is not known".to_owned(),
        ("cancelled", _) => "the client took this call back when it was recorded, and got no answer".to_owned(),
        (word, _) => format!("{word}, as it was recorded ({})", call.at),
    };
    Given::Own { code: ended.code.unwrap_or(NOT_PLAYABLE), message, data }
}

#[cfg(test)]
mod tests;
