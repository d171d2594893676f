//! What a server asks of a client inside a result (`inputRequests`): each is a call of its own in the other direction.
//!
//! Decision and intent are recorded before the client sees the result; where policy denies one of them the client sees none
//! of it, and its call ends with the refusal. The outcome follows when the client comes back with its answers, or does not
//! within `call_timeout_ms`. Called where a call is concluded and where one is accepted. Between the eras the bridge plays
//! such requests one by one and this module has nothing to do. Bounded in what waits; states are kept as digests.

use std::collections::{BTreeMap, HashMap};

use cairn_contract::{CallOutcome, Direction, Outcome};
use cairn_mcp::{Message, RawId, bridge::INPUTS_MAX};
use parking_lot::Mutex;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use crate::{Gateway, Refusal, bridge::Bridge, call::Call, life::Answer};

/// Requests inside results that wait for a client to come back, in all.
const WAITING_MAX: usize = 4_096;

/// Requests inside results that clients have seen and not answered.
#[derive(Debug, Default)]
pub(crate) struct Inputs(Mutex<HashMap<String, Vec<Waits>>>);

#[derive(Debug)]
struct Waits {
    /// The server's name for it.
    key: String,
    answered: oneshot::Sender<Message>,
}

impl Inputs {
    /// What was asked there under the same names is not waited for any more: a task that is looked at again asks again.
    fn wait(&self, place: &str, new: Vec<Waits>) {
        let mut waiting = self.0.lock();
        let there = waiting.entry(place.to_owned()).or_default();
        there.retain(|waits| new.iter().all(|new| new.key != waits.key));
        there.extend(new);
    }

    /// Takes what waits there and is answered; what the client leaves out goes on waiting.
    fn take(&self, place: &str, keys: &BTreeMap<String, Box<RawValue>>) -> Vec<Waits> {
        let mut waiting = self.0.lock();
        let Some(there) = waiting.get_mut(place) else { return Vec::new() };
        let taken = there.extract_if(.., |waits| keys.contains_key(&waits.key)).collect();
        if there.is_empty() {
            waiting.remove(place);
        }
        taken
    }

    /// How many wait. Those whose time is over are forgotten first.
    fn len(&self) -> usize {
        let mut waiting = self.0.lock();
        waiting.retain(|_, there| {
            there.retain(|waits| !waits.answered.is_closed());
            !there.is_empty()
        });
        waiting.values().map(Vec::len).sum()
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
        let place = self.place(call, answer.request_state_raw().as_deref());
        if self.inputs().len() + requests.len() > WAITING_MAX {
            let reason = format!("{WAITING_MAX} requests of servers wait for clients already: try again later");
            return Err(Refusal::InputRefused { reason });
        }
        let mut waiting = Vec::with_capacity(requests.len());
        for (key, message) in requests {
            let (answered, comes) = oneshot::channel();
            let asking = self.begin_ask(&call.session, message, Some(call), comes, self.limits().call_timeout);
            let gone = || Refusal::InputRefused { reason: "the gateway stops".to_owned() };
            // One that is denied takes the others back with it: the client sees none of them.
            asking.opened.await.unwrap_or_else(|_| Err(gone()))?;
            waiting.push(Waits { key, answered });
        }
        self.inputs().wait(&place, waiting);
        Ok(())
    }

    /// A client comes back with answers: what they answer ends.
    pub(crate) fn answered_inside(&self, call: &Call) {
        let Some(raw) = call.message.input_responses_raw() else { return };
        let Ok(answers) = serde_json::from_slice::<BTreeMap<String, Box<RawValue>>>(&raw) else { return };
        let place = self.place(call, call.message.request_state_raw().as_deref());
        for waits in self.inputs().take(&place, &answers) {
            let answer = Message::result(&RawId::text(&waits.key), answers[&waits.key].get().as_bytes());
            if let Ok(answer) = answer {
                let _ = waits.answered.send(answer);
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
