//! Reading the trail by the Kafka protocol: `cairn tail` and `cairn trail`, on any backbone.
//!
//! Partitions are assigned by hand, without a group, so that reading leaves nothing behind on the cluster.

use std::{
    collections::{BTreeMap, HashMap},
    io::Write,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, bail};
use bytes::Bytes;
use cairn_contract::{StoredEvent, topics};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::Headers,
};
use serde_json::{Value, json};

use crate::folder;

/// How long a cluster may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Workflows that `cairn trail` lists.
const WORKFLOWS_MAX: usize = 20;

/// One event with its place on the backbone.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) event: StoredEvent,
}

/// The bootstrap address: given, else that of the running `up`, else the default.
pub(crate) fn bootstrap(given: Option<String>, data: Option<PathBuf>) -> anyhow::Result<String> {
    if let Some(given) = given {
        return Ok(given);
    }
    let data = data.map_or_else(folder::default_path, Ok)?;
    Ok(folder::endpoints(&data).map_or_else(|| "127.0.0.1:9092".to_owned(), |endpoints| endpoints.kafka))
}

fn consumer(bootstrap: &str, properties: &[(String, String)]) -> anyhow::Result<BaseConsumer> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "cairn-read")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "false")
        .set("fetch.wait.max.ms", "100")
        .set("log_level", "3");
    for (key, value) in properties {
        config.set(key, value);
    }
    config.create().context("cannot make a Kafka consumer")
}

/// Every partition of the trail's topics with its first and next offset.
fn partitions(consumer: &BaseConsumer, bootstrap: &str) -> anyhow::Result<Vec<(String, i32, i64, i64)>> {
    let metadata = consumer.fetch_metadata(None, ANSWER_MAX).with_context(|| {
        format!("no Kafka broker answers at {bootstrap}: start `cairn up`, or name another with --bootstrap")
    })?;
    let names: Vec<_> = topics().iter().map(|spec| spec.name.to_owned()).collect();
    let mut found = Vec::new();
    for topic in metadata.topics().iter().filter(|topic| names.iter().any(|name| name == topic.name())) {
        for partition in topic.partitions() {
            let (low, high) = consumer
                .fetch_watermarks(topic.name(), partition.id(), ANSWER_MAX)
                .with_context(|| format!("cannot ask for the offsets of {}", topic.name()))?;
            found.push((topic.name().to_owned(), partition.id(), low, high));
        }
    }
    if found.is_empty() {
        bail!("the broker at {bootstrap} has none of Cairn's topics: has a gateway written to it yet?");
    }
    Ok(found)
}

fn placed(message: &rdkafka::message::BorrowedMessage<'_>) -> Option<Placed> {
    let headers: Vec<(String, Bytes)> = message.headers().map(|headers| {
        headers.iter().map(|h| (h.key.to_owned(), Bytes::copy_from_slice(h.value.unwrap_or_default()))).collect()
    })?;
    let key = Bytes::copy_from_slice(message.key().unwrap_or_default());
    match StoredEvent::parse(key, &headers, message.payload().unwrap_or_default()) {
        Ok(event) => Some(Placed {
            topic: message.topic().to_owned(),
            partition: message.partition(),
            offset: message.offset(),
            event,
        }),
        Err(error) => {
            tracing::warn!(topic = message.topic(), offset = message.offset(), %error, "a record is no event of ours");
            None
        }
    }
}

/// Reads everything that is in the trail now, in the order of each partition.
pub(crate) fn all(bootstrap: &str) -> anyhow::Result<Vec<Placed>> {
    let consumer = consumer(bootstrap, &[])?;
    let found = partitions(&consumer, bootstrap)?;
    let mut assignment = TopicPartitionList::new();
    let mut left: HashMap<(String, i32), i64> = HashMap::new();
    for (topic, partition, low, high) in found {
        if high > low {
            assignment.add_partition_offset(&topic, partition, Offset::Offset(low))?;
            left.insert((topic, partition), high);
        }
    }
    let mut events = Vec::new();
    if left.is_empty() {
        return Ok(events);
    }
    consumer.assign(&assignment)?;
    while !left.is_empty() {
        let message =
            consumer.poll(ANSWER_MAX).context("the broker stopped answering in the middle of the trail")??;
        let key = (message.topic().to_owned(), message.partition());
        let done = left.get(&key).is_some_and(|end| message.offset() + 1 >= *end);
        events.extend(placed(&message));
        if done {
            left.remove(&key);
        }
    }
    consumer.unassign()?;
    Ok(events)
}

/// Prints events as they come, until interrupted or `count` are printed.
pub(crate) fn tail(bootstrap: &str, from_start: bool, as_json: bool, count: Option<u64>) -> anyhow::Result<()> {
    let consumer = consumer(bootstrap, &[])?;
    let mut assignment = TopicPartitionList::new();
    for (topic, partition, low, high) in partitions(&consumer, bootstrap)? {
        assignment.add_partition_offset(&topic, partition, Offset::Offset(if from_start { low } else { high }))?;
    }
    consumer.assign(&assignment)?;
    let mut printed = 0;
    let mut out = std::io::stdout().lock();
    while count.is_none_or(|count| printed < count) {
        let Some(message) = consumer.poll(Duration::from_millis(500)) else { continue };
        let Some(placed) = placed(&message?) else { continue };
        let line = if as_json { json_of(&placed).to_string() } else { line_of(&placed) };
        // A closed pipe ends the reading, quietly.
        if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
            break;
        }
        printed += 1;
    }
    Ok(())
}

fn text<'v>(placed: &'v Placed, key: &str) -> Option<&'v str> {
    placed.event.value.get(key).and_then(Value::as_str)
}

fn short_type(placed: &Placed) -> &str {
    &placed.event.type_name
}

/// What an event says, in a few words.
fn words_of(placed: &Placed) -> String {
    let value = &placed.event.value;
    let of = |key: &str| text(placed, key).unwrap_or_default();
    let elapsed = value.get("elapsed_us").and_then(Value::as_u64);
    let took = elapsed.map(|us| format!(" after {}.{:03} ms", us / 1000, us % 1000)).unwrap_or_default();
    match short_type(placed) {
        "call.decision" => {
            let policies: Vec<_> = value
                .get("determining_policies")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            let by = if policies.is_empty() { String::new() } else { format!(" by {}", policies.join(", ")) };
            format!("{}{by}, policy {}", of("decision"), of("policy_version"))
        }
        "call.approval" => {
            let who = text(placed, "approver").map(|who| format!(" by {who}")).unwrap_or_default();
            format!("{}{who}, {}", of("state"), of("approval_id"))
        }
        "call.intent" => {
            format!("{}, forwarded {}", of("durability"), of("forwarded").chars().take(40).collect::<String>())
        }
        "call.outcome" => {
            let error = text(placed, "error_type").map(|error| format!(", {error}")).unwrap_or_default();
            format!("{}, effect {}{error}{took}", of("outcome"), of("effect"))
        }
        _ => String::new(),
    }
}

fn place_of(placed: &Placed) -> String {
    format!("{}/{}@{}", placed.topic, placed.partition, placed.offset)
}

fn line_of(placed: &Placed) -> String {
    let subject = placed.event.subject.as_deref().unwrap_or_default();
    format!(
        "{}  {:<17} {:<28} {}  [{}]",
        placed.event.time,
        short_type(placed),
        subject,
        words_of(placed),
        place_of(placed)
    )
}

fn json_of(placed: &Placed) -> Value {
    json!({
        "topic": placed.topic, "partition": placed.partition, "offset": placed.offset,
        "type": short_type(placed), "id": placed.event.id.to_string(), "time": placed.event.time,
        "subject": placed.event.subject, "data": placed.event.value,
    })
}

/// The newest workflows, one a line.
pub(crate) fn workflows(bootstrap: &str, as_json: bool) -> anyhow::Result<String> {
    let mut found: BTreeMap<String, (String, usize, usize)> = BTreeMap::new();
    for placed in all(bootstrap)? {
        if placed.topic != "mcp.calls" {
            continue;
        }
        let entry = found.entry(placed.event.common.workflow_id.clone()).or_default();
        let time = placed.event.time.clone();
        if time > entry.0 {
            entry.0 = time;
        }
        entry.1 += usize::from(short_type(&placed) == "call.outcome");
        entry.2 += 1;
    }
    let mut newest: Vec<_> = found.into_iter().collect();
    newest.sort_by(|a, b| b.1.0.cmp(&a.1.0));
    newest.truncate(WORKFLOWS_MAX);
    if as_json {
        let list = newest.iter().map(
            |(id, (time, calls, events))| json!({ "workflow_id": id, "last": time, "calls": calls, "events": events }),
        );
        return Ok(Value::from(list.collect::<Vec<_>>()).to_string());
    }
    let lines =
        newest.iter().map(|(id, (time, calls, events))| format!("{time}  {id}  {calls} calls, {events} events"));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// One workflow's decision path.
pub(crate) fn workflow(bootstrap: &str, id: &str, as_json: bool) -> anyhow::Result<String> {
    let mut events: Vec<_> =
        all(bootstrap)?.into_iter().filter(|placed| placed.event.common.workflow_id == id).collect();
    if events.is_empty() {
        bail!("no event of workflow {id} is in the trail at {bootstrap}: `cairn trail` lists recent workflows");
    }
    events.sort_by(|a, b| text(a, "hlc").cmp(&text(b, "hlc")));
    Ok(if as_json { json!({ "workflow_id": id, "calls": calls_json(&events) }).to_string() } else { tree(id, &events) })
}

/// Events by call, in the order in which the calls began; what belongs to no call stands under none.
fn by_call(events: &[Placed]) -> Vec<(String, Vec<&Placed>)> {
    let mut calls: Vec<(String, Vec<&Placed>)> = Vec::new();
    for placed in events {
        let call = text(placed, "call_id").unwrap_or_default().to_owned();
        match calls.iter_mut().find(|(id, _)| *id == call) {
            Some((_, list)) => list.push(placed),
            None => calls.push((call, vec![placed])),
        }
    }
    calls
}

fn calls_json(events: &[Placed]) -> Value {
    let calls = by_call(events).into_iter().map(
        |(call_id, list)| json!({ "call_id": call_id, "events": list.into_iter().map(json_of).collect::<Vec<_>>() }),
    );
    calls.collect::<Vec<_>>().into()
}

fn tree(id: &str, events: &[Placed]) -> String {
    let mut out = format!("workflow {id}\n");
    for (call, list) in by_call(events) {
        let first = list[0];
        let method = text(first, "mcp_method_name").unwrap_or("-");
        let subject = first.event.subject.as_deref().unwrap_or_default();
        out.push_str(&format!("├─ {method} {subject}  call {call}\n"));
        let last = list.len() - 1;
        for (index, placed) in list.into_iter().enumerate() {
            let branch = if index == last { "└─" } else { "├─" };
            out.push_str(&format!(
                "│  {branch} {:<14} {}  [{}]\n",
                short_type(placed),
                words_of(placed),
                place_of(placed)
            ));
        }
    }
    out
}
