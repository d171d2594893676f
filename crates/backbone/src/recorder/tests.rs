//! What the recorder promises, over a backbone that stalls, fails and loses acknowledgements.

use std::{sync::Arc, time::Duration};

use cairn_clock::{Clock, Entropy};
use cairn_contract::{
    ApprovalState, Body, CallApproval, CallDecision, CallIntent, CallOutcome, Common, Decision, DigestKey, Draft,
    Durability, Effect, Era, Outcome, StoredEvent, Target, Topic,
};
use cairn_keys::AtRest;
use uuid::Uuid;

use super::*;
use crate::testing::{Fault, MemoryBackbone, conformance};

struct Bench {
    backbone: MemoryBackbone,
    folder: tempfile::TempDir,
    entropy: Entropy,
}

impl Bench {
    fn new() -> Self {
        Self {
            backbone: MemoryBackbone::new(),
            folder: tempfile::tempdir().expect("a folder"),
            entropy: Entropy::seeded(1),
        }
    }

    fn options(&self, epoch: u64) -> RecorderOptions {
        RecorderOptions {
            stall_after: Duration::from_millis(100),
            ..RecorderOptions::new("gw", epoch, self.folder.path())
        }
    }

    async fn open(&self, options: RecorderOptions) -> (Recorder, Vec<OpenCall>) {
        let backbone = Arc::new(self.backbone.clone());
        Recorder::open(options, backbone, Clock::system(), self.entropy.clone()).await.expect("a recorder")
    }

    fn call(&self, workflow: &str) -> (Uuid, Common) {
        let call_id = self.entropy.uuid_v7(Clock::system().now());
        let common = Common {
            workflow_id: workflow.to_owned(),
            call_id: Some(call_id),
            trace_id: Some("0".repeat(32)),
            principal: Some("local".to_owned()),
            server: Some("orders".to_owned()),
            era: Some(Era::Modern),
            mcp_method_name: Some("tools/call".to_owned()),
            ..Common::default()
        };
        (call_id, common)
    }

    fn plan(&self, common: &Common, body: Body) -> Planned {
        let draft = Draft {
            key: common.workflow_id.clone(),
            subject: None,
            traceparent: None,
            tracestate: None,
            common: common.clone(),
            body,
        };
        Planned { id: self.entropy.uuid_v7(Clock::system().now()), draft }
    }
}

fn reference() -> cairn_contract::Reference {
    DigestKey::new("k", b"a secret of thirty-two bytes or more!").expect("a key").reference(b"{}", "application/json")
}

fn decision() -> Body {
    Body::CallDecision(CallDecision {
        decision: Decision::Permit,
        policy_version: "observe".to_owned(),
        determining_policies: Vec::new(),
        obligations: Vec::new(),
        errors: Vec::new(),
        inputs: reference(),
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
    })
}

fn intent() -> Body {
    Body::CallIntent(CallIntent {
        target: Target::tool("refund"),
        arguments: None,
        durability: Durability::Strict,
        forwarded: reference().digest,
        policy_version: "observe".to_owned(),
        upstream: None,
        upstream_protocol_version: None,
        upstream_network_transport: None,
        repeats: None,
        writes: Vec::new(),
        invocation: None,
        rewritten: None,
    })
}

fn approved() -> Body {
    Body::CallApproval(CallApproval {
        state: ApprovalState::Approved,
        approval_id: "ap-1".to_owned(),
        binding: None,
        approver: None,
        approvers: Vec::new(),
        quorum: None,
        expires_at: None,
        reason: None,
    })
}

fn outcome() -> Body {
    Body::CallOutcome(CallOutcome {
        outcome: Outcome::Completed,
        effect: Effect::Answered,
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
    })
}

/// Holds a partition's own events to I8: the chain of `previous`, sequences that rise, epochs that join.
fn check_chain(events: &[StoredEvent]) -> u64 {
    let (mut previous, mut place, mut gaps) = (None, (0, 0), 0);
    for event in events {
        assert_eq!(event.producer.previous, previous, "each event names the one before");
        if event.producer.epoch != place.0 {
            assert!(event.producer.epoch > place.0, "epochs rise");
            place = (event.producer.epoch, 0);
        }
        assert!(event.producer.sequence >= place.1, "no sequence twice");
        gaps += event.producer.sequence - place.1;
        place.1 = event.producer.sequence + 1;
        previous = Some(recovery::hexadecimal(&event.link));
    }
    gaps
}

fn partition_events(backbone: &MemoryBackbone, workflow: &str) -> Vec<StoredEvent> {
    let partition = partition_for(workflow.as_bytes(), 8);
    let parse = |record: cairn_contract::EventRecord| {
        StoredEvent::parse(record.key, &record.headers, &record.value).expect("an event")
    };
    backbone.records(Topic::Calls, partition).into_iter().map(parse).collect()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_and_its_intent_ride_one_append() {
    const CALLS: u64 = 500;
    let bench = Bench::new();
    let (recorder, _) = bench.open(bench.options(1)).await;
    for _ in 0..CALLS {
        let (_, common) = bench.call("w");
        let drafts = vec![bench.plan(&common, decision()), bench.plan(&common, intent())];
        recorder.strict_all(drafts).await.expect("recorded");
    }
    let stats = recorder.stats();
    assert_eq!((stats.recorded, stats.appends), (2 * CALLS, CALLS), "one append is one sync");
}

#[tokio::test]
async fn memory_is_a_backbone() {
    conformance::run(Arc::new(MemoryBackbone::new())).await;
}

#[tokio::test]
async fn strict_and_relaxed_events_of_a_workflow_keep_their_order() {
    let bench = Bench::new();
    let (recorder, _) = bench.open(bench.options(1)).await;
    let (_, common) = bench.call("w");
    let mut ids = Vec::new();
    for n in 0..30 {
        let planned = bench.plan(&common, if n % 3 == 2 { outcome() } else { decision() });
        ids.push(planned.id);
        if n % 3 == 2 {
            let recorded = recorder.strict(planned).await.expect("recorded");
            assert_eq!(recorded.offset, Some(n), "nothing queued before it comes after it");
        } else {
            recorder.relaxed(planned);
        }
    }
    let events = partition_events(&bench.backbone, "w");
    assert_eq!(events.iter().map(|event| event.id).collect::<Vec<_>>(), ids);
    assert_eq!(check_chain(&events), 0);
    assert!(events.windows(2).all(|pair| pair[0].hlc < pair[1].hlc), "clock readings rise");
    assert!(recorder.stats().appends < 30, "what is queued shares an append");
}

#[tokio::test]
async fn a_relaxed_event_is_flushed_without_company() {
    let bench = Bench::new();
    let (recorder, _) = bench.open(bench.options(1)).await;
    let (_, common) = bench.call("w");
    recorder.relaxed(bench.plan(&common, decision()));
    until("the event is there", || bench.backbone.events(Topic::Calls).len() == 1).await;
    assert_eq!(recorder.close(Duration::from_secs(1)).await, 0);
}

#[tokio::test]
async fn what_finds_no_room_leaves_a_gap_and_costs_no_memory() {
    let bench = Bench::new();
    let options = RecorderOptions { relaxed_events_max: 5, ..bench.options(1) };
    let (recorder, _) = bench.open(options).await;
    let (_, common) = bench.call("w");
    bench.backbone.set_fault(Fault::Stall);
    for _ in 0..50 {
        recorder.relaxed(bench.plan(&common, decision()));
    }
    assert_eq!((recorder.stats().dropped, recorder.stats().queued), (45, 5));
    bench.backbone.set_fault(Fault::None);
    until("the queue is empty", || recorder.stats().queued == 0).await;
    recorder.strict(bench.plan(&common, decision())).await.expect("recorded");
    let events = partition_events(&bench.backbone, "w");
    assert_eq!((events.len(), check_chain(&events)), (6, 45));
}

#[tokio::test]
async fn a_lost_or_torn_append_is_settled_without_gap_or_duplicate() {
    for fault in [Fault::LoseAcknowledgement, Fault::Tear, Fault::Fail] {
        let bench = Bench::new();
        let (recorder, _) = bench.open(bench.options(1)).await;
        let (_, common) = bench.call("w");
        recorder.strict(bench.plan(&common, decision())).await.expect("recorded");
        bench.backbone.set_fault(fault);
        let drafts = (0..5).map(|_| bench.plan(&common, decision())).collect();
        recorder.strict_all(drafts).await.expect_err("not acknowledged");
        bench.backbone.set_fault(Fault::None);
        until("recording works", || recorder.stats().failing.is_none()).await;
        recorder.strict(bench.plan(&common, decision())).await.expect("recorded");
        let events = partition_events(&bench.backbone, "w");
        assert_eq!((events.len(), check_chain(&events)), (7, 0), "{fault:?}");
    }
}

#[tokio::test]
async fn strict_calls_fail_fast_while_recording_does_not_work_and_outcomes_are_kept() {
    for fault in [Fault::Fail, Fault::Stall, Fault::Full] {
        let bench = Bench::new();
        let (recorder, _) = bench.open(bench.options(1)).await;
        let (_, common) = bench.call("w");
        recorder
            .strict_all(vec![bench.plan(&common, decision()), bench.plan(&common, intent())])
            .await
            .expect("recorded");
        let room = recorder.reserve(None).await.expect("room");
        bench.backbone.set_fault(fault);
        let executed = recorder.outcome(room, bench.plan(&common, outcome())).await;
        let error = executed.expect_err("not durable");
        assert_eq!(matches!(error, RecordError::Full { .. }), fault == Fault::Full, "{error}");
        let refused = recorder.strict(bench.plan(&common, intent())).await;
        assert!(refused.is_err() && recorder.reserve(None).await.is_err(), "strict calls stop");
        assert_eq!(recorder.stats().refused, 2);
        assert!(recorder.stats().failing.is_some());
        bench.backbone.set_fault(Fault::None);
        until("recording works", || recorder.stats().failing.is_none()).await;
        until("the outcome is recorded", || bench.backbone.events(Topic::Calls).len() == 3).await;
        recorder.strict(bench.plan(&common, decision())).await.expect("strict calls go on");
        assert_eq!(recorder.stats().outcomes_reserved, 0, "the room is free again");
        assert_eq!(check_chain(&partition_events(&bench.backbone, "w")), 0);
    }
}

#[tokio::test]
async fn no_intent_without_room_for_its_outcome() {
    let bench = Bench::new();
    let options = RecorderOptions { outcomes_max: 2, ..bench.options(1) };
    let (recorder, _) = bench.open(options).await;
    let first = recorder.reserve(None).await.expect("room");
    let second = recorder.reserve(None).await.expect("room");
    assert!(matches!(recorder.reserve(None).await, Err(RecordError::Full { .. })));
    drop(first);
    let third = recorder.reserve(None).await.expect("room given back");
    bench.backbone.set_headroom(Some(OUTCOME_BYTES * 2));
    let (_, common) = bench.call("w");
    let refused = recorder.strict(bench.plan(&common, intent())).await;
    assert!(matches!(refused, Err(RecordError::Full { .. })), "what is left is kept for outcomes");
    recorder.outcome(second, bench.plan(&common, outcome())).await.expect("an outcome has its room");
    recorder.outcome(third, bench.plan(&common, outcome())).await.expect("an outcome has its room");
}

#[tokio::test]
async fn a_successor_finds_open_calls_and_joins_the_chain() {
    for keep_hints in [true, false] {
        let bench = Bench::new();
        let (recorder, open) = bench.open(bench.options(1)).await;
        assert!(open.is_empty());
        let (ended, ended_common) = bench.call("w");
        let (decided, decided_common) = bench.call("w");
        let (forwarded, forwarded_common) = bench.call("w");
        recorder.strict_all(vec![bench.plan(&decided_common, decision())]).await.expect("recorded");
        for common in [&ended_common, &forwarded_common] {
            recorder
                .strict_all(vec![bench.plan(common, decision()), bench.plan(common, intent())])
                .await
                .expect("recorded");
        }
        recorder.strict(bench.plan(&ended_common, outcome())).await.expect("recorded");
        recorder.close(Duration::from_secs(1)).await;
        if !keep_hints {
            std::fs::remove_file(bench.folder.path().join("recorder-hints.json")).expect("there were hints");
        }
        let (recorder, open) = bench.open(bench.options(2)).await;
        let found: Vec<_> = open.iter().map(|call| (call.call_id, call.has_decision, call.has_intent)).collect();
        assert_eq!(found, [(decided, true, false), (forwarded, true, true)], "not {ended}");
        assert_eq!(open[1].durability, Some(Durability::Strict));
        assert_eq!(open[1].target, Target::tool("refund"));
        let closing = open[1].draft(Uuid::from_u128(1), outcome());
        assert_eq!(closing.draft.common.causation_id, Some(open[1].last_event_id));
        recorder.strict(closing).await.expect("recorded");
        assert_eq!(check_chain(&partition_events(&bench.backbone, "w")), 0);
        recorder.close(Duration::from_secs(1)).await;
        let (_, open) = bench.open(bench.options(3)).await;
        assert_eq!(open.len(), 1, "what was closed stays closed");
    }
}

#[tokio::test]
async fn a_hint_that_lies_is_not_believed() {
    let bench = Bench::new();
    let (recorder, _) = bench.open(bench.options(1)).await;
    let (_, common) = bench.call("w");
    recorder.strict(bench.plan(&common, decision())).await.expect("recorded");
    recorder.close(Duration::from_secs(1)).await;
    let partition = partition_for(b"w", 8);
    let lie = format!("{{\"gateway_id\":\"gw\",\"from\":[[\"mcp.calls\",{partition},1]]}}");
    std::fs::write(bench.folder.path().join("recorder-hints.json"), lie).expect("written");
    let (_, open) = bench.open(bench.options(2)).await;
    assert_eq!(open.len(), 1);
}

#[tokio::test]
async fn another_gateways_calls_are_left_alone_and_an_old_epoch_is_fenced() {
    let bench = Bench::new();
    let (recorder, _) = bench.open(bench.options(5)).await;
    let (_, common) = bench.call("w");
    recorder.strict(bench.plan(&common, decision())).await.expect("recorded");
    recorder.close(Duration::from_secs(1)).await;
    let other = RecorderOptions { gateway_id: "other".to_owned(), ..bench.options(1) };
    let (_, open) = bench.open(other).await;
    assert!(open.is_empty());
    let backbone = Arc::new(bench.backbone.clone());
    let fenced = Recorder::open(bench.options(5), backbone, Clock::system(), bench.entropy.clone()).await;
    assert!(matches!(fenced, Err(RecorderError::Fenced { found: 5, epoch: 5, .. })));
}

#[tokio::test]
async fn many_callers_share_appends_and_none_is_lost() {
    let bench = Bench::new();
    let (recorder, _) = bench.open(bench.options(1)).await;
    let mut tasks = tokio::task::JoinSet::new();
    let bench = Arc::new(bench);
    for workflow in 0..32 {
        let (bench, recorder) = (bench.clone(), recorder.clone());
        tasks.spawn(async move {
            let (_, common) = bench.call(&format!("w{workflow}"));
            for _ in 0..20 {
                let room = recorder.reserve(None).await.expect("room");
                recorder
                    .strict_all(vec![bench.plan(&common, decision()), bench.plan(&common, intent())])
                    .await
                    .expect("recorded");
                recorder.outcome(room, bench.plan(&common, outcome())).await.expect("recorded");
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(bench.backbone.events(Topic::Calls).len(), 32 * 60);
    for workflow in 0..32 {
        assert_eq!(check_chain(&partition_events(&bench.backbone, &format!("w{workflow}"))), 0);
    }
}

#[tokio::test]
async fn closing_records_what_is_queued_and_says_what_is_left() {
    let bench = Bench::new();
    let (recorder, _) = bench.open(bench.options(1)).await;
    let (_, common) = bench.call("w");
    for _ in 0..10 {
        recorder.relaxed(bench.plan(&common, decision()));
    }
    assert_eq!(recorder.close(Duration::from_secs(5)).await, 0);
    assert_eq!(bench.backbone.events(Topic::Calls).len(), 10);
    assert!(matches!(recorder.strict(bench.plan(&common, decision())).await, Err(RecordError::Closed)));

    let bench = Bench::new();
    let (recorder, _) = bench.open(bench.options(1)).await;
    bench.backbone.set_fault(Fault::Fail);
    recorder.relaxed(bench.plan(&common, decision()));
    assert_eq!(recorder.close(Duration::from_millis(50)).await, 1);
}

#[tokio::test]
async fn what_the_spool_kept_tells_a_start_the_same_as_the_log() {
    use crate::kafka::{frame::Frame, history::History};
    let bench = Bench::new();
    let (recorder, _) = bench.open(bench.options(1)).await;
    // Calls of three workflows: most end, every fifth stays open, some after a decision only.
    for n in 0..60 {
        let (_, common) = bench.call(&format!("w{}", n % 3));
        recorder.strict(bench.plan(&common, decision())).await.expect("recorded");
        if n % 10 != 0 {
            recorder.strict(bench.plan(&common, intent())).await.expect("recorded");
        }
        if n % 5 != 0 {
            recorder.strict(bench.plan(&common, outcome())).await.expect("recorded");
        }
        if n % 4 == 1 {
            // Of a call that has ended, it opens nothing.
            recorder.strict(bench.plan(&common, approved())).await.expect("recorded");
        }
    }
    recorder.close(Duration::from_secs(5)).await;
    let mut frames = Vec::new();
    for topic in Topic::ALL {
        for partition in 0..topic.spec().partitions {
            let records = bench.backbone.records(topic, partition);
            frames.extend(records.chunks(3).zip(0_u64..).map(|(records, nth)| Frame {
                topic,
                partition,
                floor: nth * 3,
                records: records.to_vec(),
            }));
        }
    }
    let (open, chains) = opened(&bench, None).await;
    assert_eq!(open.len(), 12);
    for cut in 0..frames.len() {
        // Saved somewhere, and some frames that the saved history holds already are folded in once more.
        let mut history = History::default();
        frames[..cut].iter().for_each(|frame| history.fold(frame));
        history.save(bench.folder.path(), &AtRest::default()).expect("saved");
        let mut history = History::load(bench.folder.path(), &AtRest::default()).expect("readable").expect("there");
        frames[cut / 2..].iter().for_each(|frame| history.fold(frame));
        assert_eq!(opened(&bench, Some(history.kept())).await, (open.clone(), chains.clone()), "cut at {cut}");
    }
}

/// What a start finds: the calls without outcome, and the link that each workflow's partition goes on from.
async fn opened(bench: &Bench, kept: Option<Vec<crate::Kept>>) -> (Vec<OpenCall>, Vec<Option<String>>) {
    let log = bench.backbone.clone();
    log.set_kept(kept);
    let (chains, mut open) =
        recovery::read_back(&bench.options(2), &log, &Hlc::new(), &Clock::system()).await.expect("read");
    log.set_kept(None);
    open.sort_by_key(|call| call.call_id);
    let previous = chains[&Topic::Calls].iter().map(|chain| chain.previous.clone()).collect();
    (open, previous)
}

#[tokio::test]
async fn events_of_a_tenant_with_topics_of_its_own_go_there_and_nowhere_else() {
    let (common, acme) = (Bench::new(), Bench::new());
    let (recorder, _) = common.open(common.options(1)).await;
    let (own, _) = acme.open(acme.options(1)).await;
    let recorder = recorder.with_tenants(std::collections::BTreeMap::from([("acme".to_owned(), own)]));
    let whose = |tenant: Option<&str>| Common { tenant: tenant.map(ToOwned::to_owned), ..common.call("w").1 };
    let tenants = [None, Some("acme"), Some("other")];
    for tenant in tenants {
        let of = whose(tenant);
        recorder.strict(common.plan(&of, decision())).await.expect("recorded");
        let room = recorder.reserve(tenant).await.expect("room");
        recorder.outcome(room, common.plan(&of, outcome())).await.expect("recorded");
        recorder.relaxed(common.plan(&of, intent()));
    }
    let both = vec![common.plan(&whose(None), decision()), common.plan(&whose(Some("acme")), decision())];
    assert!(recorder.strict_all(both).await.is_err(), "one call is not of two tenants");
    assert_eq!(recorder.close(Duration::from_secs(5)).await, 0);
    assert_eq!(recorder.stats().recorded, 9);
    for (bench, wanted) in [(&common, vec![None, Some("other")]), (&acme, vec![Some("acme")])] {
        let mut found: Vec<Option<String>> =
            bench.backbone.events(Topic::Calls).into_iter().map(|event| event.common.tenant).collect();
        found.sort();
        let mut expected: Vec<Option<String>> =
            wanted.into_iter().flat_map(|tenant| std::iter::repeat_n(tenant.map(ToOwned::to_owned), 3)).collect();
        expected.sort();
        assert_eq!(found, expected);
    }
}
