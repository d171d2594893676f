//! Tasks that servers make of calls: who looks at one goes on with the operation that the call began, and the task's end is one
//! `call.settled` under that call, when it is first seen.
//!
//! Seen it is in an answer to whoever asks for the task, in a list of tasks, or in a notification; a task of which nobody sees the
//! end before its time to live is over ends `unknown`. Ids of tasks are bearer secrets: they are remembered as keyed digests, of each
//! caller and server apart. Bounded: past the bound the oldest are forgotten, and so are all of them by a restart; then the call stays
//! `accepted`. Called where a call is accepted and concluded, and from time to time.

use std::time::Duration;

use cairn_backbone::Planned;
use cairn_clock::Timestamp;
use cairn_contract::{Body, CallOutcome, CallSettled, Common, LinkedBy, Outcome, Reference, SettledState};
use cairn_mcp::Message;
use parking_lot::Mutex;
use serde::Deserialize;
use uuid::Uuid;

use crate::{Gateway, call::Call, recent::Recent, session::Session};

/// Tasks that are remembered.
const TASKS_MAX: usize = 4_096;
/// What a server answers where it knows no such task: that is no end of one.
const INVALID_PARAMS: i64 = -32_602;

/// The tasks whose end nobody has seen yet.
#[derive(Debug)]
pub(crate) struct ServerTasks(Mutex<Recent<Begun>>);

impl Default for ServerTasks {
    fn default() -> Self {
        Self(Mutex::new(Recent::new(TASKS_MAX)))
    }
}

#[derive(Debug)]
struct Begun {
    operation_id: String,
    /// That it has ended, but for how.
    settled: Planned,
    /// When nobody will see it any more; never where the server names no time.
    forgotten_at: Option<Timestamp>,
    is_settled: bool,
}

/// How a task ended, as somebody saw it.
#[derive(Debug, Default)]
struct Seen {
    state: Option<SettledState>,
    is_error: Option<bool>,
    code: Option<i64>,
    result: Option<Reference>,
    observed_in: Option<Uuid>,
}

/// What is read of a task, in either era's words.
#[derive(Deserialize)]
struct Task {
    #[serde(rename = "taskId")]
    id: String,
    #[serde(default)]
    status: String,
    /// 2025-11-25; in milliseconds.
    ttl: Option<u64>,
    /// The extension of 2026-07-28.
    #[serde(rename = "ttlMs")]
    ttl_ms: Option<u64>,
}

impl Task {
    fn end(&self) -> Option<SettledState> {
        match self.status.as_str() {
            "completed" => Some(SettledState::Completed),
            "failed" => Some(SettledState::Failed),
            "cancelled" => Some(SettledState::Cancelled),
            _ => None,
        }
    }

    fn ttl(&self) -> Option<Duration> {
        self.ttl.or(self.ttl_ms).map(Duration::from_millis)
    }
}

/// A task that a call became.
pub(crate) struct Became(Task);

impl ServerTasks {
    fn begin(&self, key: String, begun: Begun) {
        self.0.lock().put(key, begun);
    }

    fn operation_of(&self, key: &str) -> Option<String> {
        self.0.lock().get(key).map(|begun| begun.operation_id.clone())
    }

    /// The event of its end, the first time that anybody sees it. The task stays known: it may be looked at again.
    fn settle(&self, key: &str) -> Option<Planned> {
        let mut known = self.0.lock();
        let begun = known.get_mut(key).filter(|begun| !begun.is_settled)?;
        begun.is_settled = true;
        Some(begun.settled.clone())
    }

    /// Forgets what nobody will see any more; the ends that nobody saw.
    fn overdue(&self, now: Timestamp) -> Vec<Planned> {
        let over = self.0.lock().take_where(|begun| begun.forgotten_at.is_some_and(|at| at < now));
        over.into_iter().filter(|begun| !begun.is_settled).map(|begun| begun.settled).collect()
    }
}

impl Gateway {
    /// A call ended with a task: it begins an operation, of which whoever asks for the task is a part.
    pub(crate) fn task_began(&self, call: &mut Call, outcome: Outcome, answer: Option<&Message>) -> Option<Became> {
        let answer = answer.filter(|_| outcome == Outcome::Accepted)?;
        let task: Task = match answer.result_member_raw("task") {
            Some(raw) => serde_json::from_slice(&raw).ok()?,
            None => serde_json::from_slice(&answer.result_raw()?).ok()?,
        };
        call.common.operation_id.get_or_insert_with(|| call.call_id.to_string());
        Some(Became(task))
    }

    /// Remembers the task that a call became, once its outcome is drafted.
    pub(crate) fn remember_task(&self, call: &Call, Became(task): Became) {
        let Some(operation_id) = call.common.operation_id.clone() else { return };
        let now = self.clock().now();
        let key = self.task_key(&call.session, &task.id);
        let body = CallSettled {
            state: SettledState::Unknown,
            task_id: Some(self.keys().secret.digest(task.id.as_bytes())),
            is_error: None,
            rpc_response_status_code: None,
            result: None,
            observed_in: None,
        };
        let settled = call.draft_for_later(self, Body::CallSettled(body));
        let forgotten_at = task.ttl().map(|ttl| now.plus(ttl));
        self.server_tasks().begin(key, Begun { operation_id, settled, forgotten_at, is_settled: false });
    }

    /// Joins a call that names a task to the operation of the call that became it.
    pub(crate) fn join_task(&self, session: &Session, message: &Message, common: &mut Common) {
        if !message.method().is_some_and(|method| method.starts_with("tasks/")) {
            return;
        }
        let Some(id) = message.param_str("taskId") else { return };
        if let Some(operation_id) = self.server_tasks().operation_of(&self.task_key(session, &id)) {
            common.operation_id = Some(operation_id);
            common.linked_by = Some(LinkedBy::TaskId);
        }
    }

    /// Looks for the ends of tasks in an answer.
    pub(crate) fn see_tasks(&self, call: &Call, outcome: &CallOutcome, answer: Option<&Message>) {
        let Some(answer) = answer.filter(|_| call.method.starts_with("tasks/")) else { return };
        let observed_in = Some(call.call_id);
        if call.method == "tasks/list" {
            let listed = answer.result_member_raw("tasks").and_then(|raw| serde_json::from_slice(&raw).ok());
            for task in listed.unwrap_or_else(Vec::<Task>::new) {
                self.settle_seen(&call.session, &task.id, Seen { state: task.end(), observed_in, ..Seen::default() });
            }
            return;
        }
        let Some(id) = call.message.param_str("taskId") else { return };
        let code = answer.error_code();
        let seen = match call.method.as_str() {
            // What it answers is what the call itself would have been answered.
            "tasks/result" => Seen {
                state: match code {
                    None => Some(SettledState::Completed),
                    Some(INVALID_PARAMS) => None,
                    Some(_) => Some(SettledState::Failed),
                },
                is_error: code.is_none().then(|| answer.is_error()),
                code,
                result: outcome.result.clone(),
                observed_in,
            },
            _ => {
                let task = answer.result_raw().and_then(|raw| serde_json::from_slice::<Task>(&raw).ok());
                Seen { state: task.as_ref().and_then(Task::end), observed_in, ..Seen::default() }
            }
        };
        self.settle_seen(&call.session, &id, seen);
    }

    /// A server tells how a task stands.
    pub(crate) fn task_noticed(&self, session: &Session, message: &Message) {
        if !message.method().is_some_and(|method| method.starts_with("notifications/tasks")) {
            return;
        }
        let task = message.params_raw().and_then(|raw| serde_json::from_slice::<Task>(&raw).ok());
        if let Some(task) = task {
            self.settle_seen(session, &task.id, Seen { state: task.end(), ..Seen::default() });
        }
    }

    /// Ends what nobody will see any more.
    pub(crate) fn tend_tasks(&self) {
        for settled in self.server_tasks().overdue(self.clock().now()) {
            self.recorder().relaxed(settled);
        }
    }

    fn settle_seen(&self, session: &Session, id: &str, seen: Seen) {
        let Some(state) = seen.state else { return };
        let Some(mut settled) = self.server_tasks().settle(&self.task_key(session, id)) else { return };
        let Seen { is_error, code, result, observed_in, .. } = seen;
        settled.draft.body = Body::CallSettled(CallSettled {
            state,
            task_id: Some(self.keys().secret.digest(id.as_bytes())),
            is_error,
            rpc_response_status_code: code,
            result,
            observed_in,
        });
        self.recorder().relaxed(settled);
    }

    fn task_key(&self, session: &Session, id: &str) -> String {
        let whose = ["task", &session.caller.text(), &session.server.name, id].join("\n");
        self.keys().secret.digest(whose.as_bytes())
    }
}
