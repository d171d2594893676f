//! Tests of what events make of rows.

use bytes::Bytes;
use cairn_backbone::records::RawRecord;
use serde_json::{Value, json};

use super::*;
use crate::{Filters, Price, Prices};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// An event of a call, in one place of its topic after the other.
#[derive(Default)]
pub(crate) struct Told {
    next: u64,
    events: Vec<Event>,
}

impl Told {
    fn tell(&mut self, topic: &str, kind: &str, second: u64, data: &Value) -> &mut Self {
        self.next += 1;
        self.tell_as(topic, kind, (second, self.next), data)
    }

    fn tell_as(&mut self, topic: &str, kind: &str, (second, id): (u64, u64), data: &Value) -> &mut Self {
        let mut data = data.clone();
        data["contract"] = json!({ "name": kind, "version": 1 });
        data["hlc"] = json!(format!("{:016}-00000", 1_795_521_600_000_000 + second * 1_000_000));
        let headers = [
            ("ce_id", uuid::Uuid::from_u128(id.into()).to_string()),
            ("ce_type", format!("io.cairn.{kind}")),
            ("ce_source", "cairn://gateway/gw-1".to_owned()),
            ("ce_time", at(second)),
        ];
        let record = RawRecord {
            topic: topic.to_owned(),
            partition: 0,
            offset: self.events.len() as u64,
            timestamp_ms: 0,
            key: None,
            headers: headers.map(|(name, value)| (name.to_owned(), Bytes::from(value))).to_vec(),
            value: Some(Bytes::from(data.to_string())),
        };
        self.events.push(Event::read(record).expect("an event"));
        self
    }

    /// A call from its decision to its outcome.
    fn call(&mut self, id: &str, tool: &str, second: u64) -> &mut Self {
        let mut decision = common(id);
        decision["decision"] = json!("permit");
        decision["policy_version"] = json!("sha256:aa");
        decision["determining_policies"] = json!(["all"]);
        decision["gen_ai_tool_name"] = json!(tool);
        decision["arguments"] = json!({ "digest": "hmac-sha256:k1:3a", "bytes": 9, "media_type": "application/json", "inline": "{\"n\":1}" });
        self.tell("mcp.calls", "call.decision", second, &decision);
        let mut outcome = common(id);
        outcome["outcome"] = json!("completed");
        outcome["effect"] = json!("answered");
        outcome["elapsed_us"] = json!(1_200);
        self.tell("mcp.calls", "call.outcome", second, &outcome)
    }

    fn model(&mut self, span: &str, second: u64, chosen: &[Value]) -> &mut Self {
        let report = json!({
            "trace_id": TRACE, "span_id": span, "principal": "ann", "reported_as": "span", "started_at": at(second),
            "gen_ai_request_model": "gpt", "gen_ai_usage_input_tokens": 1_000, "gen_ai_usage_output_tokens": 10,
            "tools_offered": [{ "name": "get", "digest": "sha256:01" }, { "name": "refund" }], "tools_chosen": chosen,
            "prompt": { "digest": "hmac-sha256:k1:3b", "bytes": 9, "media_type": "application/json" },
        });
        self.tell("mcp.models", "model.called", second, &report)
    }
}

fn at(second: u64) -> String {
    format!("2026-11-24T09:00:{second:02}.000000Z")
}

fn common(id: &str) -> Value {
    json!({
        "workflow_id": "w", "call_id": id, "trace_id": TRACE, "principal": "ann", "server": "orders",
        "mcp_method_name": "tools/call", "task": "refund 4711",
    })
}

fn rows_with(options: &Options, told: &Told) -> Vec<Row> {
    let mut gathering = Gathering::new(options);
    told.events.iter().for_each(|event| gathering.take(event).expect("taken"));
    gathering.rows()
}

fn rows(told: &Told) -> Vec<Row> {
    rows_with(&Options::default(), told)
}

fn choice(name: &str) -> Value {
    json!({ "name": name, "gen_ai_tool_call_id": "c1" })
}

/// The spans that chose each row's call.
fn spans(rows: &[Row]) -> Vec<Option<&str>> {
    rows.iter().map(|row| row.model.as_ref().and_then(|model| model.span_id.as_deref())).collect()
}

#[test]
fn a_call_is_one_row_with_what_led_to_it_and_what_became_of_it() {
    let mut told = Told::default();
    told.call("c", "refund", 5);
    let held =
        json!({ "call_id": "c", "state": "approved", "approval_id": "ap-1", "approver": "bob", "reason": "fine" });
    told.tell("mcp.calls", "call.approval", 6, &held);
    told.model("a1", 4, &[choice("orders_refund")]);
    told.tell(
        "mcp.actions",
        "action.reported",
        7,
        &json!({ "call_id": "c", "system": "erp", "kind": "refund", "id": "r-1", "state": "done" }),
    );
    let options = Options {
        prices: Prices {
            currency: Some("USD".to_owned()),
            models: [("gpt".to_owned(), Price { input: "1".to_owned(), output: "2".to_owned() })].into(),
        },
        ..Options::default()
    };
    let rows = rows_with(&options, &told);
    let row = &rows[0];
    assert_eq!((rows.len(), row.tool.as_deref(), row.outcome.as_deref()), (1, Some("refund"), Some("completed")));
    assert_eq!((row.decision.as_str(), row.approvals[0].approver.as_deref()), ("permit", Some("bob")));
    let model = row.model.as_ref().expect("a model call");
    assert_eq!((model.cost.as_deref(), model.currency.as_deref()), (Some("0.00102"), Some("USD")));
    assert_eq!((model.joined_by.as_str(), model.choice_id.as_deref()), ("trace and name", Some("c1")));
    assert_eq!(row.tools_offered.as_ref().expect("an offer")[0].digest.as_deref(), Some("sha256:01"));
    assert_eq!((row.actions[0].id.as_str(), row.events.len()), ("r-1", 5));
    let line = serde_json::to_string(row).expect("JSON");
    assert_eq!(serde_json::from_str::<Row>(&line).expect("a row"), *row, "a row is read as it was written");
}

#[test]
fn a_call_belongs_to_the_newest_choice_before_it_and_to_the_one_that_names_it() {
    let mut told = Told::default();
    told.call("c1", "get", 10).call("c2", "get", 11).call("c3", "get", 12).call("c4", "get", 13);
    told.model("a1", 1, &[choice("get"), choice("get")]);
    // The sender knows that c3 came of this one, however late it says so.
    told.model("a2", 50, &[json!({ "name": "anything", "call_id": "c3" })]);
    told.model("a3", 2, &[choice("forget"), choice("mcp__other__get")]);
    let rows = rows(&told);
    assert_eq!(spans(&rows), [Some("a1"), Some("a1"), Some("a2"), None]);
    assert_eq!(rows[2].model.as_ref().expect("joined").joined_by, "call id");
}

#[test]
fn nothing_is_joined_across_tenants_and_a_model_call_of_elsewhere_is_not_kept() {
    let mut told = Told::default();
    told.call("c1", "get", 10);
    let mut others = common("c2");
    others["tenant"] = json!("globex");
    others["decision"] = json!("permit");
    told.tell("mcp.calls", "call.decision", 9, &others);
    let mut elsewhere =
        json!({ "trace_id": TRACE, "span_id": "a1", "tenant": "globex", "tools_chosen": [choice("get")] });
    told.tell("mcp.models", "model.called", 1, &elsewhere);
    elsewhere["tenant"] = Value::Null;
    elsewhere["trace_id"] = json!("00000000000000000000000000000001");
    told.tell("mcp.models", "model.called", 1, &elsewhere);
    let foreign =
        json!({ "call_id": "c1", "tenant": "globex", "system": "erp", "kind": "refund", "id": "r-1", "state": "done" });
    told.tell("mcp.actions", "action.reported", 7, &foreign);
    let rows = rows(&told);
    assert_eq!((spans(&rows), rows[0].actions.len()), (vec![None], 0));
}

#[test]
fn an_event_that_lies_twice_counts_once_and_the_first_outcome_counts() {
    let mut told = Told::default();
    told.call("c", "get", 1);
    let mut late = common("c");
    late["outcome"] = json!("in_doubt");
    told.tell_as("mcp.calls", "call.outcome", (2, 99), &late);
    told.tell_as("mcp.calls", "call.outcome", (2, 99), &late);
    let options = Options::default();
    let mut gathering = Gathering::new(&options);
    told.events.iter().for_each(|event| gathering.take(event).expect("taken"));
    let rows = gathering.rows();
    assert_eq!((rows[0].outcome.as_deref(), rows[0].events.len()), (Some("completed"), 3));
    assert_eq!(gathering.counts.duplicates, 1);
}

#[test]
fn texts_stand_in_rows_only_where_they_may_and_never_of_the_erased() {
    let mut told = Told::default();
    told.call("c1", "get", 1);
    assert!(rows(&told)[0].arguments.as_ref().expect("a reference").get("inline").is_some());
    let bare = rows_with(&Options { inline: false, ..Options::default() }, &told);
    assert!(bare[0].arguments.as_ref().expect("a reference").get("inline").is_none() && bare[0].task.is_some());
    told.tell(
        "mcp.operators",
        "subject.erased",
        9,
        &json!({ "subject": "ann", "key_ids": [], "objects": 1, "bytes": 9 }),
    );
    // Who comes back is not erased for ever.
    told.call("c2", "get", 10);
    let rows = rows(&told);
    assert_eq!((rows[0].erased, rows[1].erased), (true, false));
    assert!(rows[0].arguments.as_ref().expect("a reference").get("inline").is_none() && rows[0].task.is_none());
    assert!(rows[1].arguments.as_ref().expect("a reference").get("inline").is_some());
    let mut anothers = Told::default();
    anothers.call("c1", "get", 1);
    anothers.tell("mcp.operators", "subject.erased", 9, &json!({ "subject": "ann", "tenant": "globex" }));
    assert!(!rows_with(&Options::default(), &anothers)[0].erased);
}

#[test]
fn only_what_is_wanted_is_chosen_and_what_has_not_ended_is_counted() {
    let mut told = Told::default();
    told.call("c1", "get", 1).call("c2", "refund", 2);
    let mut open = common("c3");
    open["decision"] = json!("permit");
    open["gen_ai_tool_name"] = json!("get");
    told.tell("mcp.calls", "call.decision", 3, &open);
    let mut resource = common("c4");
    resource["mcp_method_name"] = json!("resources/read");
    resource["decision"] = json!("permit");
    told.tell("mcp.calls", "call.decision", 4, &resource);
    let options =
        Options { filters: Filters { tool: Some("get".to_owned()), ..Filters::default() }, ..Options::default() };
    let mut gathering = Gathering::new(&options);
    told.events.iter().for_each(|event| gathering.take(event).expect("taken"));
    assert_eq!(gathering.rows().len(), 1);
    assert_eq!((gathering.counts.open, gathering.counts.left_out), (1, 1));
    let all = rows_with(&Options { open: true, ..Options::default() }, &told);
    assert_eq!(all.len(), 3);
    let at_ms = told.events[2].at.as_millis();
    let since = Filters { since_ms: Some(at_ms), until_ms: Some(at_ms + 1), ..Filters::default() };
    assert_eq!(rows_with(&Options { filters: since, ..Options::default() }, &told)[0].call_id, "c2");
    let few = Options { calls_max: 1, ..Options::default() };
    let mut gathering = Gathering::new(&few);
    let refused = told.events.iter().try_for_each(|event| gathering.take(event));
    assert!(matches!(refused, Err(MakeError::TooMany { what: "calls", most: 1 })), "{refused:?}");
}

#[test]
fn where_no_model_is_known_the_offer_is_what_the_client_was_told_last() {
    let listed = |names: &[&str], more: bool| {
        let digests: Vec<Value> = names.iter().map(|name| json!({ "name": name, "digest": "sha256:1d" })).collect();
        let mut data = common("l");
        data.as_object_mut().expect("an object").remove("call_id");
        data["list_kind"] = json!("tools");
        data["digests"] = json!(digests);
        data["more"] = json!(more);
        data
    };
    let mut told = Told::default();
    told.call("c", "get", 10);
    told.tell("mcp.context", "context.listed", 1, &listed(&["old"], false));
    told.tell("mcp.context", "context.listed", 2, &listed(&["get"], true));
    told.tell("mcp.context", "context.listed", 3, &listed(&["refund"], false));
    told.tell("mcp.context", "context.listed", 11, &listed(&["later"], false));
    let rows = rows(&told);
    let names: Vec<_> = rows[0].tools_offered.iter().flatten().map(|tool| tool.name.as_str()).collect();
    assert_eq!((names, rows[0].offered_by.as_deref()), (vec!["get", "refund"], Some("list")));
}
