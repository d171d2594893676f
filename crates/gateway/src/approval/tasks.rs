//! The handles of tasks that wait for people (MCP's tasks extension, 2026-07-28).
//!
//! Cairn answers a call with a task of its own, and the call is made when its client asks for the task after the approval:
//! a client that never comes back makes nothing happen. That call is one of its own, in the same operation, decided anew;
//! its end is `call.settled` under the call that asked. A task that waits survives a restart with its approval; a result
//! is kept in memory, bounded in number, size and time.

use std::{collections::HashMap, time::Duration};

use cairn_approvals::{Approval, Ended, Status};
use cairn_clock::Timestamp;
use cairn_contract::{ApprovalState, Body, CallSettled, Outcome, SettledState};
use cairn_mcp::{Message, RawId, code};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{About, ways::Way};
use crate::{Gateway, Refusal, bridge::Within, call::Call, life::Answer};

/// What begins the id of every task of Cairn's own.
const PREFIX: &str = "cairn-task.";
/// How often a client should ask.
const POLL_MS: u64 = 2_000;
/// How long a result is kept.
const KEPT: Duration = Duration::from_secs(600);
/// Tasks that run or whose result is kept.
const TASKS_MAX: usize = 256;
/// What their results may hold in all.
const RESULTS_BYTES_MAX: usize = 64 << 20;

/// The tasks that run, and the results of those that have.
#[derive(Debug, Default)]
pub(crate) struct Tasks(Mutex<HashMap<String, Running>>);

#[derive(Debug)]
struct Running {
    caller: String,
    created: Timestamp,
    changed: Timestamp,
    /// The answer, once there is one.
    answer: Option<Message>,
}

impl Tasks {
    fn begin(&self, id: &str, caller: &str, created: Timestamp, now: Timestamp) -> bool {
        let mut all = self.0.lock();
        all.retain(|_, task| task.answer.is_none() || now.since(task.changed) < KEPT);
        if all.len() >= TASKS_MAX {
            return false;
        }
        let running = Running { caller: caller.to_owned(), created, changed: now, answer: None };
        all.insert(id.to_owned(), running);
        true
    }

    fn finish(&self, id: &str, answer: Message, now: Timestamp) {
        let mut all = self.0.lock();
        let kept: usize = all.values().filter_map(|task| task.answer.as_ref()).map(|kept| kept.bytes().len()).sum();
        let answer = if kept + answer.bytes().len() > RESULTS_BYTES_MAX {
            let reason = "the call has ended, and its result is too large to keep: look at the trail".to_owned();
            Refusal::TooLarge { reason }.response(None)
        } else {
            answer
        };
        if let Some(task) = all.get_mut(id) {
            (task.answer, task.changed) = (Some(answer), now);
        }
    }
}

impl Gateway {
    fn task_prefix(&self) -> String {
        format!("{PREFIX}{}.", self.keys().secret.id())
    }

    /// A task as MCP shows it.
    pub(super) fn task_result(&self, approval: &Approval, status: &str, words: Option<&str>, kind: &str) -> Value {
        let request = &approval.request;
        let ttl = request.expires_at.plus(KEPT).since(request.requested_at).as_millis() as u64;
        let id = request.id.trim_start_matches("ap-");
        let mut task = json!({
            "resultType": kind,
            "taskId": format!("{}{id}", self.task_prefix()),
            "status": status,
            "createdAt": request.requested_at.to_string(),
            "lastUpdatedAt": self.clock().now().to_string(),
            "ttlMs": ttl,
            "pollIntervalMs": POLL_MS,
        });
        if let Some(words) = words {
            task["statusMessage"] = words.into();
        }
        task
    }

    /// What Cairn says to a request about a task of its own; none where the task is the server's.
    pub(crate) async fn answer_own_task(&self, call: &mut Call) -> Option<Answer> {
        if !call.message.is_modern() || call.arrival.within.is_some() {
            return None;
        }
        let about_tasks = call.method.starts_with("tasks/");
        let named = about_tasks.then(|| call.message.param_str("taskId")).flatten()?;
        let id = format!("ap-{}", named.strip_prefix(&self.task_prefix())?);
        let said = match call.method.as_str() {
            "tasks/get" => self.task_now(call, &id, &named).await,
            "tasks/cancel" => self.cancel_task(call, &id),
            "tasks/update" => Ok(json!({ "resultType": "complete" })), // Cairn asks nothing within a task
            _ => Err("Method not found".to_owned()),
        };
        let (outcome, message) = match said {
            Ok(result) => (Outcome::Completed, Message::result(&call.id, result.to_string().as_bytes())),
            Err(words) => (Outcome::Failed, Message::error(Some(&call.id), code::INVALID_PARAMS, &words, None)),
        };
        Some(self.conclude_here(call, outcome, message.expect("an answer of ours is a message")).await)
    }

    async fn task_now(&self, call: &Call, id: &str, task_id: &str) -> Result<Value, String> {
        let caller = call.session.caller.text();
        if let Some(shown) = self.running_task(id, task_id, &caller) {
            return Ok(shown);
        }
        let unknown = || format!("no task {task_id}: it ended, or Cairn was started anew after its call was made");
        match self.approvals().status(id) {
            Status::Waiting | Status::Approved => {}
            Status::Ended(Ended::Denied { reason, .. }) => {
                return Ok(self.failed_task(task_id, &Refusal::ApprovalDenied { approval_id: id.to_owned(), reason }));
            }
            Status::Ended(Ended::Expired) => {
                return Ok(
                    self.failed_task(task_id, &Refusal::ApprovalExpired { approval_id: id.to_owned(), after_ms: 0 })
                );
            }
            Status::Ended(Ended::Withdrawn) => {
                return Ok(json!({ "resultType": "complete", "taskId": task_id, "status": "cancelled",
                    "createdAt": self.clock().now().to_string(), "lastUpdatedAt": self.clock().now().to_string(),
                    "ttlMs": 0 }));
            }
            Status::Ended(Ended::Claimed) | Status::Unknown => return Err(unknown()),
        }
        let approval = self.approvals().get(id).ok_or_else(unknown)?;
        let about = About::of(&approval).filter(|about| about.way == Way::Task && about.caller == caller);
        let about = about.filter(|_| approval.request.server == call.session.server.name).ok_or_else(unknown)?;
        if self.approvals().status(id) == Status::Approved {
            self.run_task(call, &approval, &about);
        }
        Ok(self.task_result(&approval, "working", None, "complete"))
    }

    fn running_task(&self, id: &str, task_id: &str, caller: &str) -> Option<Value> {
        let all = self.tasks().0.lock();
        let task = all.get(id).filter(|task| task.caller == caller)?;
        let mut shown = json!({
            "resultType": "complete",
            "taskId": task_id,
            "status": "working",
            "createdAt": task.created.to_string(),
            "lastUpdatedAt": task.changed.to_string(),
            "ttlMs": (task.changed.since(task.created) + KEPT).as_millis() as u64,
            "pollIntervalMs": POLL_MS,
        });
        let raw = |bytes: bytes::Bytes| serde_json::value::RawValue::from_string(super::asking::text(&bytes)).ok();
        let Some(answer) = &task.answer else { return Some(shown) };
        let (status, member, said) = match answer.result_raw() {
            Some(result) => ("completed", "result", raw(result)),
            None => ("failed", "error", answer.error_raw().and_then(raw)),
        };
        shown["status"] = status.into();
        shown[member] = said.and_then(|said| serde_json::to_value(said).ok()).unwrap_or_default();
        Some(shown)
    }

    /// Makes the call that was approved, once.
    fn run_task(&self, call: &Call, approval: &Approval, about: &About) {
        let request = &approval.request;
        let (id, now) = (request.id.clone(), self.clock().now());
        let message = about.message.as_deref().and_then(|text| {
            let bytes = bytes::Bytes::copy_from_slice(text.as_bytes());
            let parsed = Message::parse(bytes, self.wire_limits()).ok()?;
            let own = RawId::text(&format!("cairn-{}", self.new_secret()));
            parsed.edit().set_id(&own).finish(self.wire_limits()).ok()
        });
        let Some(message) = message else { return };
        if !self.tasks().begin(&id, &about.caller, request.requested_at, now) {
            return; // too many run: the next time the client asks
        }
        let operation_id =
            about.common.operation_id.clone().or_else(|| Some(about.common.call_id?.to_string())).unwrap_or_default();
        let cause = approval.votes.last().and_then(|vote| vote.event).or(about.cause);
        let within = Within { workflow_id: request.workflow_id.clone(), operation_id, cause };
        let (gateway, session, approval) = (self.clone(), call.session.clone(), approval.clone());
        tokio::spawn(async move {
            let answer = gateway.made_within(&session, message, within).await;
            gateway.settle_task(&approval, &answer);
            gateway.tasks().finish(&id, answer, gateway.clock().now());
        });
    }

    /// The end of a task, under the call that asked for it.
    fn settle_task(&self, approval: &Approval, answer: &Message) {
        let is_completed = answer.result_raw().is_some();
        let masking = About::of(approval).map(|about| about.masking).unwrap_or_default();
        let result = answer.result_raw().and_then(|raw| self.kept_of(&approval.request, &masking, &raw));
        let body = Body::CallSettled(CallSettled {
            state: if is_completed { SettledState::Completed } else { SettledState::Failed },
            task_id: Some(self.keys().secret.digest(approval.request.id.as_bytes())),
            is_error: is_completed.then(|| answer.is_error()),
            rpc_response_status_code: answer.error_code(),
            result,
            observed_in: None,
        });
        let planned = self.draft_about(approval, body);
        self.recorder().relaxed(planned);
    }

    /// A task that still waits for people is taken back; one that runs goes on.
    fn cancel_task(&self, call: &Call, id: &str) -> Result<Value, String> {
        let caller = call.session.caller.text();
        let own = |approval: &Approval| About::of(approval).is_some_and(|about| about.caller == caller);
        if self.approvals().get(id).is_some_and(|approval| own(&approval))
            && let Some(approval) = self.approvals().end(id, Ended::Withdrawn).map_err(|error| error.to_string())?
        {
            let reason = Some("the client cancelled the task".to_owned());
            self.record_about(&approval, ApprovalState::Denied, None, reason);
        }
        Ok(json!({ "resultType": "complete" }))
    }

    /// A task that ended without its call.
    fn failed_task(&self, task_id: &str, refusal: &Refusal) -> Value {
        let now = self.clock().now().to_string();
        json!({
            "resultType": "complete",
            "taskId": task_id,
            "status": "failed",
            "createdAt": now,
            "lastUpdatedAt": now,
            "ttlMs": 0,
            "error": { "code": refusal.code(), "message": refusal.message(), "data": refusal.data() },
        })
    }
}
