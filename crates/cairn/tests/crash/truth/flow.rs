//! One workflow: steps drawn at the beginning, walked one after another, over as many starts of Cairn as that takes. What is cut off by a
//! crash is left as it is; a call whose answer did not come is sometimes sent again, the same to the byte.

use std::{sync::Arc, time::Duration};

use cairn_clock::Entropy;
use serde_json::{Value, json};

use super::account::{Account, Act, Asked};
use crate::agent::{Era, Http};

/// What a workflow does next.
#[derive(Clone, Debug)]
enum Step {
    /// These, at the same time.
    Together(Vec<Act>),
    /// An operation of so many rounds.
    Rounds(u64),
    /// A call that becomes a task, which is looked at until it is done.
    Task,
    /// A call once more whose answer did not come, by its id.
    Again(String),
}

/// A workflow, and what is left of it.
pub(super) struct Flow {
    pub(super) workflow: String,
    era: Era,
    steps: Vec<Step>,
    entropy: Entropy,
    requests: usize,
    walked: usize,
}

/// Where a request goes.
pub(super) struct Way<'w> {
    pub(super) url: &'w str,
    pub(super) account: &'w Arc<Account>,
    pub(super) life: usize,
}

impl Flow {
    /// A workflow with steps of its own.
    pub(super) fn drawn(workflow: String, entropy: Entropy) -> Self {
        let era = if entropy.next_u64().is_multiple_of(2) { Era::Legacy } else { Era::Modern };
        let count = 2 + entropy.next_u64() % 5;
        let steps = (0..count).map(|_| step(era, &entropy)).collect();
        Self { workflow, era, steps, entropy, requests: 0, walked: 0 }
    }

    pub(super) fn is_done(&self) -> bool {
        self.steps.is_empty()
    }

    /// Goes on until its end, or until an answer does not come.
    pub(super) async fn walk(mut self, way: Way<'_>) -> Self {
        let Some(http) = self.open(&way).await else { return self };
        while !self.steps.is_empty() {
            let step = self.steps.remove(0);
            self.walked += 1;
            let went = match &step {
                Step::Together(acts) => self.together(&http, &way, acts).await,
                Step::Rounds(of) => self.rounds(&http, &way, *of).await,
                Step::Task => self.task(&http, &way).await,
                Step::Again(id) => self.again(&http, &way, id).await,
            };
            if !went {
                return self;
            }
        }
        self
    }

    async fn open(&self, way: &Way<'_>) -> Option<Http> {
        let mut http = Http::new(way.url.to_owned(), self.era);
        let id = format!("{}.hello", self.workflow);
        if self.era == Era::Modern {
            let probe =
                json!({ "jsonrpc": "2.0", "id": id, "method": "tools/list", "params": { "_meta": self.meta() } });
            http.send(&probe, "").await?;
            return Some(http);
        }
        let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "_meta": self.meta(),
            "clientInfo": { "name": "truth", "version": "1" } });
        let hello = json!({ "jsonrpc": "2.0", "id": id, "method": "initialize", "params": params });
        // It may be turned away as all calls are.
        while http.send(&hello, "").await?.get("result").is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        http.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }), "").await?;
        Some(http)
    }

    fn meta(&self) -> Value {
        let mut meta = json!({ "io.cairn/workflow": self.workflow });
        if self.era == Era::Modern {
            meta["io.modelcontextprotocol/protocolVersion"] = json!("2026-07-28");
            meta["io.modelcontextprotocol/clientInfo"] = json!({ "name": "truth", "version": "1" });
            meta["io.modelcontextprotocol/clientCapabilities"] = json!({ "elicitation": { "form": {} } });
        }
        meta
    }

    fn next_id(&mut self) -> String {
        self.requests += 1;
        format!("{}.{}", self.workflow, self.requests)
    }

    fn asked(&mut self, way: &Way<'_>, act: Act) -> Asked {
        let (id, workflow) = (self.next_id(), self.workflow.clone());
        Asked { id, workflow, act, operation: None, repeats: None, life: way.life, step: self.walked, answer: None }
    }

    /// Sends one request and notes its answer; nothing where none came.
    async fn send(&self, http: &Http, way: &Way<'_>, asked: Asked, params: Value) -> Option<Value> {
        let mut params = params;
        params["_meta"] = self.meta();
        params["_meta"]["test/request"] = json!(asked.id);
        let message = json!({ "jsonrpc": "2.0", "id": asked.id, "method": asked.act.method(), "params": params });
        let tool = asked.act.tool();
        let place = way.account.ask(asked);
        let (answer, _) = http.exchange(&message, tool).await?;
        way.account.saw(place, answer.clone());
        Some(answer)
    }

    async fn together(&mut self, http: &Http, way: &Way<'_>, acts: &[Act]) -> bool {
        let all: Vec<Asked> = acts.iter().map(|act| self.asked(way, *act)).collect();
        let sent = all.iter().map(|asked| self.send(http, way, asked.clone(), params_of(asked, self.ms())));
        let answers = futures::future::join_all(sent).await;
        let lost: Vec<&Asked> =
            all.iter().zip(&answers).filter(|(_, answer)| answer.is_none()).map(|(asked, _)| asked).collect();
        if let Some(lost) =
            lost.iter().find(|asked| asked.act == Act::Works).filter(|_| self.entropy.next_u64().is_multiple_of(2))
        {
            self.steps.insert(0, Step::Again(lost.id.clone()));
        }
        lost.is_empty()
    }

    fn ms(&self) -> u64 {
        self.entropy.next_u64() % 4
    }

    /// The same call as before: its arguments are, its id is not.
    async fn again(&mut self, http: &Http, way: &Way<'_>, id: &str) -> bool {
        let before = way.account.all().into_iter().find(|asked| asked.id == id).expect("it was asked");
        let first = before.repeats.clone().unwrap_or_else(|| before.id.clone());
        let asked = Asked { repeats: Some(first.clone()), ..self.asked(way, Act::Works) };
        let again = asked.id.clone();
        let params = params_of(&Asked { id: first, ..asked.clone() }, 0);
        let went = self.send(http, way, asked, params).await.is_some();
        if !went && self.entropy.next_u64().is_multiple_of(2) {
            self.steps.insert(0, Step::Again(again));
        }
        went
    }

    async fn rounds(&mut self, http: &Http, way: &Way<'_>, of: u64) -> bool {
        let mut operation: Option<String> = None;
        let mut state = Value::Null;
        for number in 1..=of {
            let mut asked = self.asked(way, Act::Round { number, of });
            let first = operation.get_or_insert_with(|| asked.id.clone()).clone();
            asked.operation = Some(first.clone());
            let mut params = json!({ "name": "act", "arguments": { "id": first, "how": "rounds", "rounds": of } });
            if number > 1 {
                params["requestState"] = state.clone();
                params["inputResponses"] = json!({ "more": { "action": "accept", "content": {} } });
            }
            let Some(answer) = self.send(http, way, asked, params).await else { return false };
            state = answer["result"]["requestState"].clone();
            if state.is_null() {
                break; // the last, or turned away
            }
        }
        true
    }

    async fn task(&mut self, http: &Http, way: &Way<'_>) -> bool {
        let mut begins = self.asked(way, Act::Begins);
        let operation = begins.id.clone();
        begins.operation = Some(operation.clone());
        let mut params = params_of(&begins, 0);
        params["task"] = json!({ "ttl": 600_000 });
        let Some(answer) = self.send(http, way, begins, params).await else { return false };
        let task = answer["result"]["task"]["taskId"].clone();
        if task.is_null() {
            return true; // turned away
        }
        let looks = if self.entropy.next_u64().is_multiple_of(4) { 1 } else { 2 };
        let mut rest = vec![Act::Looks; looks];
        if looks == 2 && self.entropy.next_u64().is_multiple_of(2) {
            rest.push(Act::Fetches);
        }
        for act in rest {
            let asked = Asked { operation: Some(operation.clone()), ..self.asked(way, act) };
            if self.send(http, way, asked, json!({ "taskId": task })).await.is_none() {
                return false;
            }
        }
        true
    }
}

fn params_of(asked: &Asked, ms: u64) -> Value {
    if asked.act == Act::Read {
        return json!({ "uri": format!("test://{}", asked.id) });
    }
    // What is sent again must be the same to the byte.
    let ms = if asked.act == Act::Works { 0 } else { ms };
    json!({ "name": asked.act.tool(), "arguments": { "id": asked.id, "how": asked.act.how(), "ms": ms } })
}

fn step(era: Era, entropy: &Entropy) -> Step {
    let dice = entropy.next_u64() % 10;
    match (dice, era) {
        (0 | 1, Era::Modern) => Step::Rounds(2 + entropy.next_u64() % 2),
        (0 | 1, Era::Legacy) => Step::Task,
        (2 | 3, _) => Step::Together((0..2 + entropy.next_u64() % 3).map(|_| act(entropy)).collect()),
        _ => Step::Together(vec![act(entropy)]),
    }
}

fn act(entropy: &Entropy) -> Act {
    match entropy.next_u64() % 12 {
        0 => Act::Fails,
        1 => Act::Errs,
        2 => Act::Forbidden,
        3 => Act::Held,
        4 | 5 => Act::Read,
        _ => Act::Works,
    }
}
