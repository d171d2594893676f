//! Each predicate is shown a trail that holds and the smallest trail that does not.

use bytes::Bytes;
use cairn_clock::Timestamp;

use super::*;
use crate::{
    Body, CallAnswered, CallDecision, CallIntent, CallOutcome, Common, Decision, Draft, Effect, Era, EventRecord,
    Outcome, Producer, Reference, Stamp, Target, link,
};

/// Seals bodies into one producer's chain, as a recorder does.
struct Trail {
    events: Vec<StoredEvent>,
    epoch: u64,
    sequence: u64,
    previous: Option<String>,
}

impl Trail {
    fn new() -> Self {
        Self { events: Vec::new(), epoch: 1, sequence: 0, previous: None }
    }

    fn with(mut self, call: u128, body: impl Into<Body>) -> Self {
        let draft = draft(call, body.into());
        let n = self.events.len() as u64;
        let stamp = Stamp {
            source: "cairn://gateway/gw-1".into(),
            producer: Producer {
                id: "gw-1".into(),
                epoch: self.epoch,
                sequence: self.sequence,
                previous: self.previous.clone(),
            },
            hlc: format!("{n:016}-00000"),
            id: Uuid::from_u128(1_000 + u128::from(n)),
            time: Timestamp::from_micros(n),
        };
        let record = draft.seal(&stamp).unwrap();
        self.previous = Some(hex::encode(link(&record)));
        self.sequence += 1;
        self.events.push(stored(&record));
        self
    }

    fn restarted(mut self) -> Self {
        (self.epoch, self.sequence) = (self.epoch + 1, 0);
        self
    }
}

fn stored(record: &EventRecord) -> StoredEvent {
    StoredEvent::parse(record.key.clone(), &record.headers, &record.value).unwrap()
}

fn draft(call: u128, body: Body) -> Draft {
    let common = Common {
        workflow_id: "w".into(),
        call_id: Some(Uuid::from_u128(call)),
        trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736".into()),
        principal: Some("local".into()),
        server: Some("orders".into()),
        era: Some(Era::Modern),
        mcp_method_name: Some("tools/call".into()),
        ..Common::default()
    };
    Draft { key: "w".into(), subject: None, traceparent: None, tracestate: None, common, body }
}

fn digest() -> String {
    format!("hmac-sha256:k1:{}", "3a".repeat(32))
}

fn decision(decision: Decision) -> CallDecision {
    let inputs =
        Reference { digest: digest(), bytes: 0, media_type: "application/json".into(), location: None, inline: None };
    CallDecision {
        decision,
        policy_version: "observe".into(),
        determining_policies: vec![],
        obligations: vec![],
        errors: vec![],
        inputs,
        elapsed_us: 1,
        target: Target::tool("refund"),
        arguments: None,
        tool_digest: None,
        freshness: Vec::new(),
        nearest: None,
        shadow: None,
        rewritten: None,
        outside: None,
        parent_span_id: None,
    }
}

fn intent() -> CallIntent {
    CallIntent {
        target: Target::tool("refund"),
        arguments: None,
        durability: Durability::Strict,
        forwarded: digest(),
        policy_version: "observe".into(),
        upstream: None,
        upstream_protocol_version: None,
        upstream_network_transport: None,
        repeats: None,
        writes: Vec::new(),
        invocation: None,
        rewritten: None,
    }
}

fn outcome(outcome: Outcome, effect: Effect) -> CallOutcome {
    CallOutcome {
        outcome,
        effect,
        http_response_status_code: None,
        rpc_response_status_code: None,
        is_error: None,
        error_type: None,
        result: None,
        elapsed_us: None,
        upstream_elapsed_us: None,
        progress_notifications: None,
        recovered: None,
        screened: None,
    }
}

fn completed() -> CallOutcome {
    outcome(Outcome::Completed, Effect::Answered)
}

fn answered() -> CallAnswered {
    CallAnswered { written: true, error_type: None, elapsed_us: None }
}

fn open() -> BTreeSet<Uuid> {
    BTreeSet::new()
}

#[test]
fn a_good_trail_has_no_findings() {
    let trail = Trail::new()
        .with(1, decision(Decision::Permit))
        .with(2, decision(Decision::Deny))
        .with(1, intent())
        .with(2, outcome(Outcome::Denied, Effect::None))
        .with(1, completed())
        .with(1, answered())
        .restarted()
        .with(3, decision(Decision::Permit))
        .with(3, intent())
        .with(3, outcome(Outcome::InDoubt, Effect::Unknown));
    assert_eq!(check_calls(&trail.events, &open()), []);
    assert_eq!(chain_unbroken(&trail.events, Start::Beginning), Ok(()));
    assert_eq!(strict_calls(&trail.events), BTreeSet::from([Uuid::from_u128(1), Uuid::from_u128(3)]));
}

#[test]
fn a_second_intent_is_found() {
    let trail = Trail::new().with(1, decision(Decision::Permit)).with(1, intent()).with(1, intent());
    assert_eq!(forwarded_at_most_once(&trail.events).unwrap_err().event, trail.events[2].id);
}

#[test]
fn a_missing_and_a_second_outcome_are_found() {
    let missing = Trail::new().with(1, decision(Decision::Permit)).with(1, intent());
    assert!(exactly_one_outcome(&missing.events, &open()).is_err());
    assert_eq!(exactly_one_outcome(&missing.events, &BTreeSet::from([Uuid::from_u128(1)])), Ok(()));
    let twice = missing.with(1, completed()).with(1, completed());
    assert_eq!(exactly_one_outcome(&twice.events, &open()).unwrap_err().event, twice.events[3].id);
}

#[test]
fn an_event_out_of_order_is_found() {
    let no_decision = Trail::new().with(1, intent());
    let intent_last = Trail::new().with(1, decision(Decision::Permit)).with(1, completed()).with(1, intent());
    let decision_late =
        Trail::new().with(1, decision(Decision::Permit)).with(1, intent()).with(1, decision(Decision::Permit));
    let outcome_alone = Trail::new().with(1, completed());
    let answered_early = Trail::new().with(1, decision(Decision::Permit)).with(1, answered());
    for trail in [no_decision, intent_last, decision_late, outcome_alone, answered_early] {
        assert!(decision_before_intent_before_outcome(&trail.events).is_err());
    }
    let held = Trail::new().with(1, decision(Decision::Permit)).with(1, decision(Decision::Permit)).with(1, intent());
    assert_eq!(decision_before_intent_before_outcome(&held.events), Ok(()));
}

#[test]
fn a_denied_call_with_an_intent_is_found() {
    let by_policy = Trail::new().with(1, decision(Decision::Deny)).with(1, intent());
    let by_outcome = Trail::new()
        .with(1, decision(Decision::Permit))
        .with(1, intent())
        .with(1, outcome(Outcome::Denied, Effect::None));
    let with_effect = Trail::new().with(1, decision(Decision::Deny)).with(1, outcome(Outcome::Denied, Effect::Unknown));
    let otherwise = Trail::new().with(1, decision(Decision::Deny)).with(1, outcome(Outcome::Failed, Effect::None));
    for trail in [by_policy, by_outcome, with_effect, otherwise] {
        assert!(denied_has_no_intent(&trail.events).is_err());
    }
}

#[test]
fn an_effect_that_disagrees_is_found() {
    let no_intent = Trail::new().with(1, decision(Decision::Permit)).with(1, completed());
    let sure = Trail::new()
        .with(1, decision(Decision::Permit))
        .with(1, intent())
        .with(1, outcome(Outcome::InDoubt, Effect::Answered));
    assert!(effect_agrees_with_intent(&no_intent.events).is_err());
    assert!(effect_agrees_with_intent(&sure.events).is_err());
    let not_sent = Trail::new()
        .with(1, decision(Decision::Permit))
        .with(1, intent())
        .with(1, outcome(Outcome::Failed, Effect::None));
    assert_eq!(effect_agrees_with_intent(&not_sent.events), Ok(()));
}

#[test]
fn only_a_relaxed_call_that_a_start_closed_may_be_in_doubt_without_an_intent() {
    let closed = CallOutcome { recovered: Some(true), ..outcome(Outcome::InDoubt, Effect::Unknown) };
    let of = |method: &str, decided: CallDecision, ended: &CallOutcome| {
        let mut trail = Trail::new().with(1, decided).with(1, ended.clone());
        for event in &mut trail.events {
            event.common.mcp_method_name = Some(method.to_owned());
        }
        effect_agrees_with_intent(&trail.events)
    };
    assert_eq!(of("resources/read", decision(Decision::Permit), &closed), Ok(()));
    let demanding = CallDecision { obligations: vec!["durability".into()], ..decision(Decision::Permit) };
    assert!(of("resources/read", demanding, &closed).is_err(), "a policy made it strict");
    assert!(of("tools/call", decision(Decision::Permit), &closed).is_err(), "its method is strict");
    let alive = outcome(Outcome::InDoubt, Effect::Unknown);
    assert!(of("resources/read", decision(Decision::Permit), &alive).is_err(), "no start closed it");
    let sure = CallOutcome { recovered: Some(true), ..completed() };
    assert!(of("resources/read", decision(Decision::Permit), &sure).is_err(), "what answered was forwarded");
}

#[test]
fn a_clock_that_stands_is_found() {
    let mut trail = Trail::new().with(1, decision(Decision::Permit)).with(1, intent());
    trail.events[1].hlc = trail.events[0].hlc.clone();
    assert!(clock_rises(&trail.events).is_err());
}

#[test]
fn a_change_a_removal_a_reorder_and_an_insertion_break_the_chain() {
    let build = || {
        Trail::new()
            .with(1, decision(Decision::Permit))
            .with(1, intent())
            .with(1, completed())
            .with(1, answered())
            .events
    };
    assert_eq!(chain_unbroken(&build(), Start::Beginning), Ok(()));

    let mut changed = build();
    let key = Bytes::from_static(b"w");
    let text = changed[1].value.to_string().replace("refund", "rescue");
    let headers = [
        ("ce_id".to_owned(), Bytes::from(changed[1].id.to_string())),
        ("ce_type".to_owned(), Bytes::from_static(b"io.cairn.call.intent")),
        ("ce_source".to_owned(), Bytes::from_static(b"cairn://gateway/gw-1")),
        ("ce_time".to_owned(), Bytes::from(changed[1].time.clone())),
    ];
    changed[1] = StoredEvent::parse(key, &headers, text.as_bytes()).unwrap();
    assert_eq!(chain_unbroken(&changed, Start::Beginning).unwrap_err().event, changed[2].id);

    let mut removed = build();
    removed.remove(1);
    let mut reordered = build();
    reordered.swap(1, 2);
    let mut inserted = build();
    inserted.insert(1, inserted[0].clone());
    for events in [removed, reordered, inserted] {
        assert!(chain_unbroken(&events, Start::Beginning).is_err());
    }
    let tail = &build()[2..];
    assert!(chain_unbroken(tail, Start::Beginning).is_err());
    assert_eq!(chain_unbroken(tail, Start::Anywhere), Ok(()));
}

#[test]
fn an_epoch_that_forgets_the_one_before_is_found() {
    let mut trail = Trail::new().with(1, decision(Decision::Permit)).restarted();
    trail.previous = None;
    let trail = trail.with(1, outcome(Outcome::Cancelled, Effect::None));
    assert!(chain_unbroken(&trail.events, Start::Beginning).is_err());
}
