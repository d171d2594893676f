//! What a server asks of a client inside a result (`inputRequests`): each is a call of its own in the other direction.
//!
//! Decision, intent and outcome are recorded before the client sees the result: `accepted`, because the answer comes with another
//! call or never. Where policy denies one of them the client sees none of it: its call ends with the refusal, and the others are
//! `cancelled`. Once the client comes back with its answers, `call.settled` says so. Called where a call is concluded and where
//! one is accepted. Between the eras the bridge plays such requests one by one and this module has nothing to do. Bounded in
//! what is remembered; states are kept as digests.

use std::collections::BTreeMap;

use cairn_backbone::Planned;
use cairn_contract::{Body, CallOutcome, CallSettled, Direction, Effect, Outcome, SettledState};
use cairn_mcp::{Message, RawId, bridge::INPUTS_MAX};
use parking_lot::Mutex;
use serde_json::value::RawValue;

use crate::{
    Gateway, Refusal,
    bridge::{Bridge, Within},
    call::Call,
    life::Answer,
    recent::Recent,
};

/// Places where requests inside results are remembered until the client comes back; past it the oldest are forgotten.
const PLACES_MAX: usize = 1_024;

/// Requests inside results that clients have seen and not answered: of each only what is recorded once it is answered, so that
/// nothing that waits keeps a session or room for an outcome.
#[derive(Debug)]
pub(crate) struct Inputs(Mutex<Recent<Vec<Waits>>>);

impl Default for Inputs {
    fn default() -> Self {
        Self(Mutex::new(Recent::new(PLACES_MAX)))
    }
}

#[derive(Debug)]
struct Waits {
    /// The server's name for it.
    key: String,
    /// That it has ended.
    settled: Planned,
}

impl Inputs {
    /// What was asked there before is not waited for any more: a task that is looked at again asks again.
    fn wait(&self, place: String, new: Vec<Waits>) {
        self.0.lock().put(place, new);
    }

    fn take(&self, place: &str) -> Vec<Waits> {
        self.0.lock().take(place).unwrap_or_default()
    }
}

impl Gateway {
    /// Decides on what the server asks inside its answer. Where the client must not see one of it, the answer becomes the
    /// refusal, and the record says so.
    pub(crate) async fn ask_inside(&self, call: &mut Call, record: &mut CallOutcome, answer: &mut Answer) {
        let Answer::Message { message, status, .. } = answer else { return };
        let is_native = matches!(call.session.bridge, Bridge::None) && call.message.is_modern();
        if !is_native || call.direction != Direction::ToServer {
            return;
        }
        let Err(refusal) = self.asks_inside(call, message).await else { return };
        self.metrics().refused(refusal.word());
        if matches!(record.outcome, Outcome::Completed | Outcome::InputRequired | Outcome::Accepted) {
            record.outcome = Outcome::Failed;
        }
        record.error_type = Some(refusal.word().to_owned());
        record.rpc_response_status_code = Some(refusal.code());
        call.is_altered = true;
        (*status, *message) = (200, refusal.response(Some(&call.id)));
    }

    async fn asks_inside(&self, call: &Call, answer: &Message) -> Result<(), Refusal> {
        let Some(raw) = answer.input_requests_raw() else { return Ok(()) };
        let requests = requests_in(&raw)?;
        let mut opened: Vec<(String, Call)> = Vec::with_capacity(requests.len());
        for (key, message) in requests {
            match self.open_ask(&call.session, message, Some(Within::of(call))).await {
                Ok(asked) => opened.push((key, asked)),
                Err(refusal) => {
                    // It takes the others back with it: the client sees none of them.
                    for (_, mut asked) in opened {
                        self.end_inside(&mut asked, Outcome::Cancelled, Effect::None).await;
                    }
                    return Err(refusal);
                }
            }
        }
        let mut waits = Vec::with_capacity(opened.len());
        for (key, mut asked) in opened {
            self.end_inside(&mut asked, Outcome::Accepted, Effect::Unknown).await;
            waits.push(Waits { key, settled: asked.draft(self, Body::CallSettled(settled_in(None))) });
        }
        if !waits.is_empty() {
            self.inputs().wait(self.place(call, answer.request_state_raw().as_deref()), waits);
        }
        Ok(())
    }

    async fn end_inside(&self, call: &mut Call, outcome: Outcome, effect: Effect) {
        let draft = self.asked_outcome(call, outcome, effect, None);
        if let Err(error) = self.record(call, draft).await {
            tracing::warn!(%error, call_id = %call.call_id, "the outcome of a request inside a result is not recorded");
        }
    }

    /// A client comes back with answers: the requests that they answer have ended.
    pub(crate) fn answered_inside(&self, call: &Call) {
        let Some(raw) = call.message.input_responses_raw() else { return };
        let Ok(answers) = serde_json::from_slice::<BTreeMap<String, Box<RawValue>>>(&raw) else { return };
        for Waits { key, mut settled } in
            self.inputs().take(&self.place(call, call.message.request_state_raw().as_deref()))
        {
            if answers.contains_key(&key) {
                settled.draft.body = settled_in(Some(call.call_id)).into();
                self.recorder().relaxed(settled);
            }
        }
    }

    /// Where a client comes back to: with the server's state; where there is none, to the same task or target.
    fn place(&self, call: &Call, state: Option<&[u8]>) -> String {
        let to = match (state, call.message.param_str("taskId")) {
            (Some(state), _) => {
                let meant = serde_json::from_slice::<String>(state).map_or_else(|_| state.to_vec(), String::into_bytes);
                [b"state\n", &meant[..]].concat()
            }
            (None, Some(task)) => format!("task\n{task}").into_bytes(),
            (None, None) => format!("call\n{}\n{}", call.method, call.target.name().unwrap_or_default()).into_bytes(),
        };
        let whose = format!("inputs\n{}\n{}\n", call.session.caller.text(), call.session.server.name);
        self.keys().secret.digest(&[whose.as_bytes(), &to].concat())
    }
}

/// A request inside a result has ended: what the client answered stands in the arguments of the call that brought it.
const fn settled_in(call_id: Option<uuid::Uuid>) -> CallSettled {
    CallSettled {
        state: SettledState::Completed,
        task_id: None,
        is_error: None,
        rpc_response_status_code: None,
        result: None,
        observed_in: call_id,
    }
}

/// Each request with the server's name for it, which is also its id.
fn requests_in(raw: &[u8]) -> Result<Vec<(String, Message)>, Refusal> {
    let refused = |reason: &str| Refusal::InputRefused { reason: format!("the server's inputRequests {reason}") };
    let asked: BTreeMap<String, Box<RawValue>> =
        serde_json::from_slice(raw).map_err(|_| refused("is no object of requests"))?;
    if asked.len() > INPUTS_MAX {
        return Err(refused(&format!("asks for more than {INPUTS_MAX} things at once")));
    }
    let request = |(key, raw): (String, Box<RawValue>)| {
        let members: BTreeMap<String, Box<RawValue>> =
            serde_json::from_str(raw.get()).map_err(|_| refused("holds something that is no request"))?;
        let method = members.get("method").and_then(|method| serde_json::from_str::<String>(method.get()).ok());
        let method = method.ok_or_else(|| refused("holds a request without a method"))?;
        let params = members.get("params").map(|params| params.get().as_bytes());
        let message = Message::request(&RawId::text(&key), &method, params)
            .map_err(|error| Refusal::TooLarge { reason: error.to_string() })?;
        Ok((key, message))
    };
    asked.into_iter().map(request).collect()
}

#[cfg(test)]
mod tests {
    use cairn_contract::{Common, Draft};

    use super::*;

    fn waits(key: &str) -> Vec<Waits> {
        let draft = Draft {
            key: "w".to_owned(),
            subject: None,
            traceparent: None,
            tracestate: None,
            common: Common::default(),
            body: settled_in(None).into(),
        };
        vec![Waits { key: key.to_owned(), settled: Planned { id: uuid::Uuid::nil(), draft } }]
    }

    fn keys(found: &[Waits]) -> Vec<&str> {
        found.iter().map(|waits| waits.key.as_str()).collect()
    }

    #[test]
    fn what_waits_is_bounded_and_taken_once() {
        let inputs = Inputs::default();
        for at in 0..PLACES_MAX + 10 {
            inputs.wait(at.to_string(), waits("a"));
        }
        assert!(inputs.take("9").is_empty(), "the oldest are forgotten");
        assert_eq!(keys(&inputs.take("10")), ["a"]);
        assert!(inputs.take("10").is_empty());
        inputs.wait("11".to_owned(), waits("b"));
        assert_eq!(keys(&inputs.take("11")), ["b"], "who is asked again was not asked before");
    }
}
