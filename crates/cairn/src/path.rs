//! One workflow's decision path, from its events: as a tree for people, as JSON for machines.
//!
//! A call is one JSON-RPC request with all that became of it. Rounds of one operation stand together under the first;
//! what a server asks of the client within a call stands under that call; the model call that chose it is named, and what its server did
//! downstream stands among its events. Called by `cairn trail` with events that a Kafka
//! consumer read; knows no broker.

mod models;
mod page;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Write,
};

use serde_json::{Map, Value, json};

use crate::{read::Placed, say};

pub(crate) use models::traces;
pub(crate) use page::page;

use models::{Model, joined};

/// Longest text of an id that the tree shows; the JSON has it whole.
const SHOWN_MAX: usize = 19;

/// What is said of an event that a published checkpoint covers.
const SIGNED: &str = "signed";

/// How far each partition is covered by a published checkpoint: the offset behind the last record that its tree holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Signed(pub(crate) HashMap<(String, i32), i64>);

impl Signed {
    /// `signed` where a checkpoint covers the event, `unsigned` where those of its partition do not yet, nothing where there
    /// is none that one knows of.
    fn of(&self, placed: &Placed) -> Option<&'static str> {
        let until = self.0.get(&(placed.topic.clone(), placed.partition))?;
        Some(if placed.offset < *until { SIGNED } else { "unsigned" })
    }
}

/// The events of one call, in order.
#[derive(Debug)]
struct Call<'e> {
    id: String,
    events: Vec<&'e Placed>,
    /// The calls below it, by index.
    below: Vec<usize>,
    /// Whether it stands below another.
    is_below: bool,
}

/// A workflow's calls, the model calls beside them, and the events that belong to none.
#[derive(Debug)]
struct Path<'e> {
    calls: Vec<Call<'e>>,
    models: Vec<Model<'e>>,
    beside: Vec<&'e Placed>,
}

/// A key of an event, as text.
pub(crate) fn text<'v>(placed: &'v Placed, key: &str) -> Option<&'v str> {
    placed.event.value.get(key).and_then(Value::as_str)
}

fn kind(placed: &Placed) -> &str {
    &placed.event.type_name
}

impl<'e> Path<'e> {
    /// Orders events by the clock that all of a workflow's events share, and gathers them by call.
    fn of(events: &'e [Placed]) -> Self {
        let mut ordered: Vec<&Placed> = events.iter().collect();
        ordered.sort_by(|a, b| a.event.hlc.cmp(&b.event.hlc));
        // What was sent twice may lie twice, and counts once.
        let mut seen = HashSet::new();
        ordered.retain(|placed| seen.insert(placed.event.id));
        let mut path = Self { calls: Vec::new(), models: Vec::new(), beside: Vec::new() };
        let mut reports = Vec::new();
        let mut at: HashMap<&str, usize> = HashMap::new();
        for placed in ordered {
            let Some(id) = text(placed, "call_id") else {
                if kind(placed) == "model.called" {
                    reports.push(placed)
                } else {
                    path.beside.push(placed)
                }
                continue;
            };
            let index = *at.entry(id).or_insert_with(|| {
                path.calls.push(Call { id: id.to_owned(), events: Vec::new(), below: Vec::new(), is_below: false });
                path.calls.len() - 1
            });
            path.calls[index].events.push(placed);
        }
        path.nest();
        path.models = joined(&reports, &path.calls);
        path
    }

    fn nest(&mut self) {
        let of_event: HashMap<String, usize> = self
            .calls
            .iter()
            .enumerate()
            .flat_map(|(index, call)| call.events.iter().map(move |placed| (placed.event.id.to_string(), index)))
            .collect();
        let mut operations: HashMap<String, usize> = HashMap::new();
        for index in 0..self.calls.len() {
            let first = self.calls[index].events[0];
            let asked_within = text(first, "causation_id").and_then(|cause| of_event.get(cause)).copied();
            let operation = self.calls[index].said("operation_id").and_then(Value::as_str).map(ToOwned::to_owned);
            let begun_by = operation.map(|operation| *operations.entry(operation).or_insert(index));
            // Causes come earlier, so there is no way round in a circle.
            if let Some(above) = asked_within.or(begun_by).filter(|above| *above < index) {
                self.calls[above].below.push(index);
                self.calls[index].is_below = true;
            }
        }
    }

    /// The model call that chose a call.
    fn chooser(&self, call: &Call<'_>) -> Option<(usize, &Model<'e>)> {
        let index = self.calls.iter().position(|other| other.id == call.id)?;
        let chose = |model: &&Model<'_>| model.chosen.iter().any(|choice| choice.call == Some(index));
        self.models.iter().find(chose).map(|model| (index, model))
    }

    fn roots(&self) -> impl Iterator<Item = &Call<'e>> {
        self.calls.iter().filter(|call| !call.is_below)
    }
}

impl<'e> Call<'e> {
    /// Whether anything of the call itself is there. What is relaxed may be lost with its gateway, and what came with it in another topic not.
    fn is_recorded(&self) -> bool {
        self.events.iter().any(|placed| kind(placed).starts_with("call."))
    }

    /// What the first event says that says it: that a call begins an operation is known when it ends.
    fn said(&self, key: &str) -> Option<&'e Value> {
        self.events.iter().find_map(|placed| placed.event.value.get(key))
    }

    fn last(&self, name: &str) -> Option<&'e Placed> {
        self.events.iter().rfind(|placed| kind(placed) == name).copied()
    }

    fn all<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'e Placed> + 's {
        self.events.iter().copied().filter(move |placed| kind(placed) == name)
    }

    /// The outcome that counts: the first in the order of the partition.
    fn outcome(&self) -> Option<&'e Placed> {
        self.events.iter().find(|placed| kind(placed) == "call.outcome").copied()
    }

    fn title(&self) -> String {
        let first = self.events[0];
        let method = text(first, "mcp_method_name").unwrap_or("-");
        let subject = first.event.subject.as_deref().unwrap_or_default();
        let asks = if text(first, "direction") == Some("to_client") { " (the server asks the client)" } else { "" };
        let round = self.said("round").and_then(Value::as_u64);
        let round = round.map(|round| format!(" (round {round})")).unwrap_or_default();
        let end = match self.outcome() {
            None if !self.is_recorded() => {
                "none of its own events is in the trail: they were lost with their gateway".to_owned()
            }
            None => "open: it has no outcome yet".to_owned(),
            Some(outcome) if text(outcome, "outcome") == Some("in_doubt") => {
                "IN DOUBT: nobody can know whether the server acted".to_owned()
            }
            Some(outcome) => text(outcome, "outcome").unwrap_or_default().to_owned(),
        };
        say::plain(&format!("{method} {subject}{asks}{round} · {end}  call {}", self.id))
    }
}

/// The tree for people.
pub(crate) fn tree(workflow: &str, events: &[Placed], signed: &Signed) -> String {
    let path = Path::of(events);
    let principal = events.iter().find_map(|placed| text(placed, "principal")).unwrap_or("nobody");
    let calls = path.calls.len();
    let calls = if calls == 1 { "1 call".to_owned() } else { format!("{calls} calls") };
    let mut out = say::plain(&format!("workflow {workflow}  {calls} of {principal}"));
    out.push('\n');
    for model in &path.models {
        let _ = writeln!(out, "├─ {:<10} {}  [{}]", "model", say::plain(&model.words(principal)), model.place());
    }
    let roots: Vec<_> = path.roots().collect();
    for (index, call) in roots.iter().enumerate() {
        let is_last = index + 1 == roots.len() && path.beside.is_empty();
        branch((&path, signed), call, "", is_last, &mut out);
    }
    for (index, placed) in path.beside.iter().enumerate() {
        leaf((placed, None, signed), "", index + 1 == path.beside.len(), &mut out);
    }
    out
}

fn branch((path, signed): (&Path<'_>, &Signed), call: &Call<'_>, indent: &str, is_last: bool, out: &mut String) {
    let _ = writeln!(out, "{indent}{} {}", if is_last { "└─" } else { "├─" }, call.title());
    let below = format!("{indent}{}", if is_last { "   " } else { "│  " });
    if let Some((_, model)) = path.chooser(call) {
        let _ = writeln!(out, "{below}├─ {:<10} by {}  [{}]", "chosen", say::plain(&model.chose()), model.place());
    }
    let mut before = None;
    for (index, placed) in call.events.iter().enumerate() {
        leaf((placed, before, signed), &below, index + 1 == call.events.len() && call.below.is_empty(), out);
        before = Some(*placed);
    }
    for (index, child) in call.below.iter().enumerate() {
        branch((path, signed), &path.calls[*child], &below, index + 1 == call.below.len(), out);
    }
}

/// An event, the one before it in its call, and what is signed.
type Leaf<'l> = (&'l Placed, Option<&'l Placed>, &'l Signed);

fn leaf((placed, before, signed): Leaf<'_>, indent: &str, is_last: bool, out: &mut String) {
    let _ = writeln!(
        out,
        "{indent}{} {:<10} {}  [{}{}]",
        if is_last { "└─" } else { "├─" },
        kind(placed).strip_prefix("call.").unwrap_or(kind(placed)),
        say::plain(&words(placed, before)),
        place(placed),
        signed.of(placed).filter(|word| *word == SIGNED).map(|word| format!(" {word}")).unwrap_or_default()
    );
}

/// Topic, partition and offset.
pub(crate) fn place(placed: &Placed) -> String {
    format!("{}/{}@{}", placed.topic, placed.partition, placed.offset)
}

fn short(id: &str) -> String {
    if id.chars().count() <= SHOWN_MAX { id.to_owned() } else { id.chars().take(SHOWN_MAX).chain(['…']).collect() }
}

fn millis(micros: u64) -> String {
    format!("{}.{:03} ms", micros / 1_000, micros % 1_000)
}

/// What an event says, in a few words. `before` is the one before it in its call.
pub(crate) fn words(placed: &Placed, before: Option<&Placed>) -> String {
    let value = &placed.event.value;
    let of = |key: &str| text(placed, key).unwrap_or_default();
    let took = |key: &str| value.get(key).and_then(Value::as_u64).map(millis);
    let list = |key: &str| {
        let items = value.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        items.collect::<Vec<_>>().join(", ")
    };
    let with = |before: &str, words: String| if words.is_empty() { words } else { format!("{before}{words}") };
    match kind(placed) {
        "call.decision" => format!(
            "{}{}{}, policy {}{}{}{}{}",
            of("decision"),
            with(" by ", list("determining_policies")),
            with(", wants ", list("obligations")),
            short(of("policy_version")),
            with(", nearest: ", nearest(placed)),
            with(", stood on ", stood_on(placed).join(", ")),
            with(", errors: ", list("errors")),
            with(", in ", took("elapsed_us").unwrap_or_default())
        ),
        "call.approval" => {
            let waited = before.and_then(|before| clock_us(placed)?.checked_sub(clock_us(before)?)).map(millis);
            let waited =
                if of("state") == "requested" { String::new() } else { with(" after ", waited.unwrap_or_default()) };
            let until =
                if of("state") == "requested" { with(", until ", of("expires_at").to_owned()) } else { String::new() };
            let (who, why) = (with(" by ", of("approver").to_owned()), with(": ", of("reason").to_owned()));
            format!("{}{who}{waited}{why}, {}{until}", of("state"), of("approval_id"))
        }
        "call.intent" => format!(
            "{}, sends {}, policy {}{}",
            of("durability"),
            of("forwarded").rsplit(':').next().map(short).unwrap_or_default(),
            short(of("policy_version")),
            with(", repeats call ", of("repeats").to_owned())
        ),
        "call.outcome" => format!(
            "{}, effect {}{}{}{}{}",
            of("outcome"),
            of("effect"),
            with(", ", of("error_type").to_owned()),
            with(", after ", took("elapsed_us").unwrap_or_default()),
            with(" (server ", took("upstream_elapsed_us").map(|us| format!("{us})")).unwrap_or_default()),
            if value.get("recovered").and_then(Value::as_bool) == Some(true) {
                ", closed by a later start"
            } else {
                ""
            }
        ),
        "call.answered" => {
            let written = value.get("written").and_then(Value::as_bool) == Some(true);
            let words = if written { "the client has its answer" } else { "the client did not get the answer" };
            format!("{words}{}", with(", after ", took("elapsed_us").unwrap_or_default()))
        }
        "call.late" => format!(
            "an answer came after the outcome{}",
            with(", server ", took("upstream_elapsed_us").unwrap_or_default())
        ),
        "call.settled" => format!("the task ended: {}", of("state")),
        "session.opened" => with("", format!("{} {}", of("agent_name"), of("mcp_protocol_version"))),
        "session.closed" => of("reason").to_owned(),
        "notice.passed" => of("mcp_method_name").to_owned(),
        "policy.activated" | "policy.loaded" => short(of("version")),
        "policy.rejected" => list("errors"),
        "catalog.defined" | "catalog.changed" => {
            format!("{} {}{}", of("kind"), of("name"), with(", alerts: ", list("alerts")))
        }
        "context.listed" => {
            let count = value.get("count").and_then(Value::as_u64).unwrap_or_default();
            format!("{}: {count}", of("list_kind"))
        }
        "context.read" | "context.changed" => of("mcp_resource_uri").to_owned(),
        "model.called" => joined(&[placed], &[]).first().map(|model| model.words(of("principal"))).unwrap_or_default(),
        "action.reported" => format!(
            "{} {} {} {}{}",
            of("system"),
            of("kind"),
            of("id"),
            of("state"),
            with(", as ", of("reported_by").to_owned() + if of("reported_by").is_empty() { "" } else { " reports" })
        ),
        _ => String::new(),
    }
}

/// What a decision stood on: which resource, how it stood, in which version, how old what was read was.
fn stood_on(decision: &Placed) -> Vec<String> {
    let list = decision.event.value.get("freshness").and_then(Value::as_array).into_iter().flatten();
    let told = list.map(|one| {
        let of = |key: &str| one.get(key).and_then(Value::as_str);
        let versions = match (of("seen"), of("known")) {
            (Some(seen), Some(known)) if seen != known => format!(", seen {}, newest {}", short(seen), short(known)),
            (Some(seen), _) => format!(", seen {}", short(seen)),
            (None, Some(known)) => format!(", newest {}", short(known)),
            (None, None) => String::new(),
        };
        let age = one.get("age_ms").and_then(Value::as_u64).map(|age| format!(", read {age} ms before"));
        let (uri, state) = (of("mcp_resource_uri").unwrap_or_default(), of("state").unwrap_or_default());
        format!("{uri} ({state}{versions}{})", age.unwrap_or_default())
    });
    told.collect()
}

/// The permit that came nearest, where none permitted.
fn nearest(decision: &Placed) -> String {
    let Some(near) = decision.event.value.get("nearest") else { return String::new() };
    let of = |key: &str| near.get(key).and_then(Value::as_str).unwrap_or_default();
    format!("{} failed on {}", of("policy"), of("failed"))
}

/// When an event was made, in microseconds of its day; enough for how long a person took.
fn clock_us(placed: &Placed) -> Option<u64> {
    let (_, time) = placed.event.time.split_once('T')?;
    let mut parts = time.trim_end_matches('Z').split([':', '.']);
    let mut next = || parts.next()?.parse::<u64>().ok();
    let (hours, minutes, seconds, micros) = (next()?, next()?, next()?, next()?);
    Some(((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros)
}

/// An event with its place, as `cairn tail --json` prints it too.
pub(crate) fn json_of(placed: &Placed) -> Value {
    json!({
        "topic": placed.topic, "partition": placed.partition, "offset": placed.offset,
        "type": kind(placed), "id": placed.event.id.to_string(), "time": placed.event.time,
        "subject": placed.event.subject, "data": placed.event.value,
    })
}

fn json_with(placed: &Placed, signed: &Signed) -> Value {
    let mut value = json_of(placed);
    if let Some(word) = signed.of(placed) {
        value["proof"] = json!(word);
    }
    value
}

/// The path for machines: for each call its decisions, approval, intent, outcome and durations, with the place of each.
pub(crate) fn json(workflow: &str, events: &[Placed], signed: &Signed) -> Value {
    let path = Path::of(events);
    let calls = path.calls.iter().map(|call| call_json(&path, call, signed)).collect::<Vec<_>>();
    let mut operations: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for call in &path.calls {
        if let Some(operation) = call.said("operation_id").and_then(Value::as_str) {
            operations.entry(operation).or_default().push(&call.id);
        }
    }
    let beside = path.beside.iter().map(|placed| json_with(placed, signed)).collect::<Vec<_>>();
    let models = path.models.iter().map(|model| model.json(&path.calls, signed)).collect::<Vec<_>>();
    json!({ "workflow_id": workflow, "calls": calls, "models": models, "operations": operations, "events": beside })
}

fn call_json(path: &Path<'_>, call: &Call<'_>, signed: &Signed) -> Value {
    let first = call.events[0];
    let mut out = Map::new();
    out.insert("call_id".to_owned(), json!(call.id));
    for key in ["mcp_method_name", "server", "direction", "principal", "operation_id", "round", "linked_by"] {
        if let Some(value) = call.said(key) {
            out.insert(key.to_owned(), value.clone());
        }
    }
    out.insert("subject".to_owned(), json!(first.event.subject));
    out.insert("is_recorded".to_owned(), json!(call.is_recorded()));
    let one = |placed: Option<&Placed>| placed.map_or(Value::Null, brief);
    out.insert("decision".to_owned(), one(call.last("call.decision")));
    out.insert("decisions".to_owned(), call.all("call.decision").map(brief).collect());
    out.insert("approval".to_owned(), one(call.last("call.approval")));
    out.insert("intent".to_owned(), one(call.last("call.intent")));
    out.insert("outcome".to_owned(), one(call.outcome()));
    out.insert("late".to_owned(), call.all("call.late").map(brief).collect());
    out.insert("settled".to_owned(), one(call.last("call.settled")));
    out.insert("actions".to_owned(), call.all("action.reported").map(brief).collect());
    let chosen_by = path.chooser(call).map_or(Value::Null, |(index, model)| model.chose_json(index));
    out.insert("chosen_by".to_owned(), chosen_by);
    let us = |placed: Option<&Placed>, key: &str| placed.and_then(|placed| placed.event.value.get(key)).cloned();
    let durations = json!({
        "decision_us": us(call.last("call.decision"), "elapsed_us"),
        "upstream_us": us(call.outcome(), "upstream_elapsed_us"),
        "call_us": us(call.outcome(), "elapsed_us"),
        "answered_us": us(call.last("call.answered"), "elapsed_us"),
    });
    out.insert("durations".to_owned(), durations);
    out.insert("calls_within".to_owned(), call.below.iter().map(|at| json!(path.calls[*at].id)).collect());
    out.insert("events".to_owned(), call.events.iter().map(|placed| json_with(placed, signed)).collect());
    Value::Object(out)
}

/// An event's own keys with its place; what all events of the call share is said once, above.
fn brief(placed: &Placed) -> Value {
    const SHARED: [&str; 23] = [
        "workflow_id",
        "call_id",
        "causation_id",
        "task",
        "operation_id",
        "round",
        "linked_by",
        "direction",
        "trace_id",
        "span_id",
        "tenant",
        "principal",
        "agent_name",
        "agent_version",
        "server",
        "server_version",
        "era",
        "mcp_protocol_version",
        "network_transport",
        "mcp_method_name",
        "mcp_session_id",
        "jsonrpc_request_id",
        "contract",
    ];
    let mut out = Map::new();
    for (key, value) in [
        ("topic", json!(placed.topic)),
        ("partition", json!(placed.partition)),
        ("offset", json!(placed.offset)),
        ("time", json!(placed.event.time)),
    ] {
        out.insert(key.to_owned(), value);
    }
    for (key, value) in placed.event.value.as_object().into_iter().flatten() {
        if !SHARED.contains(&key.as_str()) && key != "hlc" && key != "producer" {
            out.insert(key.clone(), value.clone());
        }
    }
    Value::Object(out)
}

#[cfg(test)]
pub(crate) mod tests {
    use bytes::Bytes;
    use cairn_contract::StoredEvent;

    use super::*;

    /// An event as a consumer reads it; `id` also orders it.
    pub(crate) fn placed(id: u32, kind: &str, call: u32, more: &Value) -> Placed {
        let uuid = |number: u32| format!("01920000-0000-7000-8000-{number:012}");
        let mut value = json!({
            "workflow_id": "w", "call_id": uuid(call), "principal": "ada", "server": "s", "hlc": format!("{id:020}-00000"),
            "producer": { "id": uuid(900), "epoch": 1, "sequence": id }, "contract": { "name": kind, "version": 1 },
        });
        value.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        if let Some(cause) = value.get("causation_id").and_then(Value::as_u64) {
            value["causation_id"] = json!(uuid(u32::try_from(cause).expect("small")));
        }
        let headers = [
            ("ce_id", uuid(id)),
            ("ce_type", format!("io.cairn.{kind}")),
            ("ce_source", "test".to_owned()),
            ("ce_time", format!("2026-11-24T09:00:{id:02}.000000Z")),
            ("ce_subject", "s/t".to_owned()),
        ];
        let headers: Vec<_> = headers.into_iter().map(|(key, value)| (key.to_owned(), Bytes::from(value))).collect();
        let event = StoredEvent::parse(Bytes::from("w"), &headers, value.to_string().as_bytes()).expect("an event");
        Placed { topic: "mcp.calls".to_owned(), partition: 2, offset: i64::from(id), event }
    }

    pub(crate) fn workflow() -> Vec<Placed> {
        let call = |more: Value| {
            let mut all = json!({ "mcp_method_name": "tools/call", "direction": "to_server" });
            all.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            all
        };
        vec![
            placed(
                1,
                "call.decision",
                500,
                &call(json!({ "decision": "permit", "policy_version": "observe", "elapsed_us": 1500 })),
            ),
            placed(2, "call.intent", 500, &call(json!({ "durability": "strict", "causation_id": 1 }))),
            placed(
                3,
                "call.decision",
                501,
                &json!({ "mcp_method_name": "sampling/createMessage", "direction": "to_client", "causation_id": 2, "decision": "deny", "policy_version": "v2", "determining_policies": ["no-sampling"] }),
            ),
            placed(
                4,
                "call.outcome",
                501,
                &json!({ "mcp_method_name": "sampling/createMessage", "direction": "to_client", "outcome": "denied", "effect": "none" }),
            ),
            placed(
                5,
                "call.outcome",
                500,
                &call(json!({ "outcome": "input_required", "effect": "answered", "operation_id": "o", "round": 1 })),
            ),
            placed(
                6,
                "call.decision",
                502,
                &call(json!({ "decision": "permit", "policy_version": "observe", "operation_id": "o", "round": 2 })),
            ),
            placed(
                7,
                "call.outcome",
                502,
                &call(json!({ "outcome": "timed_out", "effect": "unknown", "operation_id": "o", "round": 2 })),
            ),
            placed(
                8,
                "call.late",
                502,
                &call(json!({ "operation_id": "o", "round": 2, "upstream_elapsed_us": 61_000_000 })),
            ),
            placed(
                9,
                "call.outcome",
                503,
                &call(json!({ "outcome": "in_doubt", "effect": "unknown", "recovered": true })),
            ),
            placed(10, "call.decision", 504, &call(json!({ "decision": "permit", "policy_version": "observe" }))),
        ]
    }

    /// A checkpoint covers all events but the last.
    pub(crate) fn signed() -> Signed {
        Signed(HashMap::from([(("mcp.calls".to_owned(), 2), 10)]))
    }

    #[test]
    fn rounds_and_what_a_server_asks_stand_below_the_call_that_began_them() {
        let mut events = workflow();
        events.reverse(); // partitions of several topics are read in any order
        let shown = tree("w", &events, &signed());
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0], "workflow w  5 calls of ada");
        assert!(lines[1].starts_with("├─ tools/call s/t (round 1) · input_required"), "{shown}");
        let asked =
            lines.iter().find(|line| line.contains("the server asks the client")).expect("the sampling request");
        assert!(asked.starts_with("│  ├─ sampling/createMessage") && asked.contains("· denied"), "{shown}");
        let second = lines.iter().find(|line| line.contains("(round 2)")).expect("the second round");
        assert!(second.starts_with("│  └─ tools/call"), "{shown}");
        assert!(shown.contains("an answer came after the outcome, server 61000.000 ms"), "{shown}");
        assert!(shown.contains("IN DOUBT: nobody can know") && shown.contains("closed by a later start"), "{shown}");
        assert!(
            shown.contains("open: it has no outcome yet")
                && shown.contains("[mcp.calls/2@10]")
                && shown.contains("[mcp.calls/2@9 signed]"),
            "{shown}"
        );
    }

    #[test]
    fn the_json_gives_each_step_with_its_place() {
        let value = json("w", &workflow(), &signed());
        let calls = value["calls"].as_array().expect("calls");
        assert_eq!(calls.len(), 5);
        assert_eq!(calls[0]["decision"]["policy_version"], "observe");
        assert_eq!(
            (calls[0]["decision"]["partition"].as_u64(), calls[0]["decision"]["offset"].as_u64()),
            (Some(2), Some(1))
        );
        assert_eq!(calls[0]["durations"]["decision_us"], 1500);
        assert_eq!(calls[0]["calls_within"].as_array().expect("a list").len(), 2);
        assert_eq!(calls[1]["direction"], "to_client");
        assert_eq!(calls[2]["late"][0]["offset"], 8);
        assert_eq!(calls[3]["outcome"]["outcome"], "in_doubt");
        assert!(calls[4]["outcome"].is_null());
        assert_eq!(
            (&calls[0]["events"][0]["proof"], &calls[4]["events"][0]["proof"]),
            (&json!("signed"), &json!("unsigned"))
        );
        assert_eq!(value["operations"]["o"].as_array().expect("a list").len(), 2);
    }

    #[test]
    fn what_came_with_a_call_that_was_lost_is_no_open_call() {
        let mut events = workflow();
        events.push(placed(11, "session.opened", 505, &json!({ "mcp_method_name": "initialize" })));
        let shown = tree("w", &events, &signed());
        let line = shown.lines().find(|line| line.contains("initialize")).expect("it is shown");
        assert!(line.contains("lost with their gateway") && !line.contains("open"), "{shown}");
        let value = json("w", &events, &signed());
        assert_eq!(
            (&value["calls"][5]["is_recorded"], &value["calls"][4]["is_recorded"]),
            (&json!(false), &json!(true))
        );
        assert!(page("w", &events, &signed()).contains("1 open, "), "the one that is");
    }
}
