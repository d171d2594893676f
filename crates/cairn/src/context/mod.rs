//! What the context consumer knows, as answers: at the admin address, and to MCP clients (`cairn mcp`, `[servers.NAME] type =
//! "cairn"`).
//!
//! A [`question`] is read once, whoever asks; [`Answers`] has the answer from the consumer's database; [`server`] is how MCP
//! clients meet both. Every answer is bounded. No event holds a payload, so no answer does: there are digests and references alone.

mod question;
mod refusal;
mod server;
mod stdio;

use std::{fmt, path::PathBuf, sync::Arc};

use bytes::Bytes;
use cairn_consumers::context::{AskError, Kept, Page, Reader, Scope};
use cairn_contract::StoredEvent;
use cairn_gateway::Gateway;
use cairn_operators::ConsumerFault;
use serde_json::{Map, Value, json};

pub(crate) use stdio::run;

use crate::{
    path::{self, Signed},
    read::Placed,
};
use question::{Asked, Asker, Paging, Question, Which};

/// Bytes of one answer's list, about.
const LIST_BYTES_MAX: usize = 128 << 10;
/// Events of a workflow that belong to none of its calls, in one answer.
const BESIDE_MAX: usize = 50;
/// Workflows that are listed.
const RECENT_MAX: usize = 20;

/// How a URI or an id that a client names stands in events.
pub(crate) type Screened = Arc<dyn Fn(Named, &str) -> String + Send + Sync>;

/// What is named.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Named {
    Uri,
    Workflow,
}

/// How that gateway has it.
pub(crate) fn screen(gateway: &Gateway, what: Named, text: &str) -> String {
    match what {
        Named::Uri => gateway.screen_uri(text),
        Named::Workflow => gateway.screen_id(text.to_owned()),
    }
}

/// Answers from the database of one data folder.
#[derive(Clone)]
pub(crate) struct Answers {
    database: PathBuf,
    screened: Screened,
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").field("database", &self.database).finish_non_exhaustive()
    }
}

/// What is seen of a question's answer where the database says no.
pub(crate) fn fault(error: AskError) -> ConsumerFault {
    let words = error.to_string();
    match error {
        AskError::Missing { .. } => ConsumerFault::NoSuch(words),
        AskError::Refused { .. } | AskError::Slow => ConsumerFault::Refused(words),
        AskError::Away { .. } => ConsumerFault::Away(words),
    }
}

impl Answers {
    /// From the database of that data folder; `screened` says how what a client names stands in events.
    pub(crate) fn of(data: &std::path::Path, screened: Screened) -> Self {
        Self { database: cairn_consumers::context::path(data), screened }
    }

    /// The answer to an operator; it reads the disk.
    pub(crate) fn for_operator(&self, what: &str, members: Map<String, Value>) -> Result<Value, ConsumerFault> {
        let asked = Asked::read(what, members, &Asker::Operator).map_err(ConsumerFault::Refused)?;
        self.answer(asked)
    }

    fn answer(&self, asked: Asked) -> Result<Value, ConsumerFault> {
        let reader = Reader::open(&self.database).map_err(fault)?;
        let Asked { scope, question, paging } = asked;
        let page = (paging.cursor.as_deref(), paging.limit);
        let mut answer = match question {
            Question::Resources(mut of) => {
                of.uri = of.uri.map(|uri| (self.screened)(Named::Uri, &uri));
                listed("resources", reader.resources(&scope, &of, page).map_err(fault)?)
            }
            Question::Changes(mut of) => {
                of.of.uri = of.of.uri.map(|uri| (self.screened)(Named::Uri, &uri));
                listed("changes", reader.changes(&scope, &of, page).map_err(fault)?)
            }
            Question::Seen(mut of) => {
                of.of.uri = of.of.uri.map(|uri| (self.screened)(Named::Uri, &uri));
                listed("seen", reader.seen(&scope, &of, page).map_err(fault)?)
            }
            Question::Workflows => json!({ "workflows": reader.recent_workflows(&scope, RECENT_MAX).map_err(fault)? }),
            Question::Workflow(id) => self.workflow(&reader, &scope, &id, &paging)?,
            Question::Refusals(which) => self.refusals(&reader, &scope, which)?,
        };
        answer["as_of"] = json!(reader.as_of().map_err(fault)?);
        Ok(answer)
    }

    /// A workflow's events: by the id as the client names it, or as it stands in events.
    fn events(&self, reader: &Reader, scope: &Scope, id: &str) -> Result<(Vec<Kept>, bool), ConsumerFault> {
        let found = reader.workflow(scope, id).map_err(fault)?;
        let screened = (self.screened)(Named::Workflow, id);
        if found.0.is_empty() && screened != id {
            return reader.workflow(scope, &screened).map_err(fault);
        }
        Ok(found)
    }

    fn workflow(&self, reader: &Reader, scope: &Scope, id: &str, paging: &Paging) -> Result<Value, ConsumerFault> {
        let (events, is_cut) = self.events(reader, scope, id)?;
        if events.is_empty() {
            return Err(no_such("workflow", id));
        }
        let begin = match &paging.cursor {
            None => 0,
            Some(text) => text.parse::<usize>().map_err(|_| {
                ConsumerFault::Refused(
                    "the cursor is not one that this question gave: leave it out to begin".to_owned(),
                )
            })?,
        };
        let placed: Vec<Placed> = events.iter().filter_map(placed).collect();
        let mut whole = path::json(id, &placed, &Signed::default());
        let calls = whole["calls"].as_array_mut().map(std::mem::take).unwrap_or_default();
        let (total, mut shown, mut bytes) = (calls.len(), Vec::new(), 0);
        for mut call in calls.into_iter().skip(begin).take(paging.limit) {
            without_data(&mut call["events"]);
            bytes += call.to_string().len();
            if bytes > LIST_BYTES_MAX && !shown.is_empty() {
                break;
            }
            shown.push(call);
        }
        let next = begin + shown.len();
        let mut beside = whole["events"].take();
        if let Some(events) = beside.as_array_mut() {
            events.truncate(BESIDE_MAX);
        }
        without_data(&mut beside);
        let mut answer = json!({ "workflow_id": id, "calls": shown, "events": beside, "is_cut": is_cut });
        if next < total {
            answer["next"] = json!(next.to_string());
        }
        if is_cut {
            answer["words"] =
                json!(format!("it has more events than are read here: `cairn trail {id}` shows all of them"));
        }
        Ok(answer)
    }

    fn refusals(&self, reader: &Reader, scope: &Scope, which: Which) -> Result<Value, ConsumerFault> {
        let (events, is_cut) = match &which {
            Which::Call(id) => reader.call(scope, id).map_err(fault)?,
            Which::Workflow(id) => self.events(reader, scope, id)?,
        };
        if events.is_empty() {
            return Err(match &which {
                Which::Call(id) => no_such("call", id),
                Which::Workflow(id) => no_such("workflow", id),
            });
        }
        let (mut shown, mut bytes) = (Vec::new(), 0);
        let wants_all = matches!(which, Which::Call(_));
        for one in refusal::all(&events).into_iter().filter(|one| wants_all || one["is_refused"] == true) {
            bytes += one.to_string().len();
            if bytes > LIST_BYTES_MAX && !shown.is_empty() {
                return Ok(json!({ "refusals": shown, "is_cut": true }));
            }
            shown.push(one);
        }
        Ok(json!({ "refusals": shown, "is_cut": is_cut }))
    }
}

/// As if it were not there, whether it is not or is not this one's to see.
fn no_such(what: &str, id: &str) -> ConsumerFault {
    let id: String = id.chars().take(128).collect();
    ConsumerFault::NoSuch(format!(
        "there is no {what} {id:?} among what is kept and may be seen here; what was done a moment ago may not have come yet"
    ))
}

fn listed(name: &str, page: Page) -> Value {
    let Page { items, next } = page;
    let mut answer = json!({ name: items });
    if let Some(next) = next {
        answer["next"] = json!(next);
    }
    answer
}

/// Where events lie, without what they say: that stands above, in their call.
fn without_data(events: &mut Value) {
    for event in events.as_array_mut().into_iter().flatten() {
        if let Some(members) = event.as_object_mut() {
            members.shift_remove("data");
        }
    }
}

/// An event as `cairn trail` reads it.
fn placed(kept: &Kept) -> Option<Placed> {
    let mut headers = vec![
        ("ce_id".to_owned(), Bytes::from(kept.id.clone())),
        ("ce_type".to_owned(), Bytes::from(format!("io.cairn.{}", kept.type_name))),
        ("ce_source".to_owned(), Bytes::from(kept.source.clone())),
        ("ce_time".to_owned(), Bytes::from(kept.time.clone())),
    ];
    headers.extend(kept.about.clone().map(|about| ("ce_subject".to_owned(), Bytes::from(about))));
    let key = Bytes::from(kept.workflow_id.clone().unwrap_or_default());
    let event = StoredEvent::parse(key, &headers, kept.value.as_bytes()).ok()?;
    let (partition, offset) = (i32::try_from(kept.partition).ok()?, i64::try_from(kept.offset).ok()?);
    Some(Placed { topic: kept.topic.clone(), partition, offset, event })
}
