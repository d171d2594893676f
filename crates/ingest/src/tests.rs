//! The whole of ingest over a backbone in memory: what senders are answered, and what is in the topics then.

use std::{io::Write as _, sync::Arc};

use axum::{Router, body::Body as HttpBody, response::Response};
use cairn_backbone::{
    RecorderOptions,
    testing::{Fault as Broken, MemoryBackbone},
};
use cairn_clock::Timestamp;
use cairn_contract::{Common, StoredEvent, Topic};
use cairn_identity::{Options, Reason};
use cairn_keys::Secret;
use cairn_screen::Rules;
use cairn_vault::{GivenKey, VaultOptions};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tower_service::Service as _;
use uuid::Uuid;

use super::*;

#[derive(Debug, Default)]
struct Around {
    refused: Mutex<Vec<Reason>>,
}

impl Surroundings for Around {
    fn workflow_of(&self, who: &Identity, trace_id: &str) -> Option<String> {
        (who.principal == "me" && trace_id.starts_with("4b4b")).then(|| "refund-4711".to_owned())
    }

    fn not_let_in(&self, rejection: &Rejection, _: IpAddr) {
        self.refused.lock().push(rejection.reason);
    }

    fn named(&self, headers: &HeaderMap, _: Option<&str>) -> Result<(), String> {
        if headers.contains_key(header::ORIGIN) { Err("no page may".to_owned()) } else { Ok(()) }
    }
}

struct Bench {
    router: Router,
    backbone: MemoryBackbone,
    handles: CallHandles,
    around: Arc<Around>,
    clock: Clock,
    vault: Vault,
    recorder: Recorder,
    _folder: tempfile::TempDir,
}

impl Bench {
    async fn new(identity: Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let backbone = MemoryBackbone::new();
        let clock = Clock::manual(Timestamp::from_micros(1_795_521_600_000_000));
        let entropy = Entropy::seeded(1);
        let options = RecorderOptions::new("gw", 1, folder.path());
        let opened = Recorder::open(options, Arc::new(backbone.clone()), clock.clone(), entropy.clone()).await;
        let key = Arc::new(GivenKey::read("environment", "11".repeat(32).as_bytes()).unwrap());
        let options = VaultOptions::new(folder.path().join("vault"));
        let vault = Vault::open(options, key, &[], clock.clone(), entropy.clone()).await.unwrap();
        let handles = CallHandles::new(Secret::new([7; 32]), clock.clone(), entropy.clone());
        let digests = DigestKey::new("k", b"a secret of thirty-two bytes or more!").unwrap();
        let around = Arc::new(Around::default());
        let recorder = opened.unwrap().0;
        let parts = Parts {
            recorder: recorder.clone(),
            verifier: Arc::new(Verifier::new(identity, clock.clone()).unwrap()),
            scopes: Vec::new(),
            screener: Screener::new(Rules::embedded()),
            vault: Some(vault.clone()),
            payload_key: digests.clone(),
            secret: digests,
            prompts: Kept::Reference,
            outputs: Kept::Digest,
            handles: handles.clone(),
            surroundings: around.clone(),
            clock: clock.clone(),
            entropy,
            bounds: Bounds { body_bytes_max: 1 << 20, unpacked_bytes_max: 2 << 20, ..Bounds::default() },
            metrics: Metrics::default(),
        };
        Self { router: router(Ingest::new(parts)), backbone, handles, around, clock, vault, recorder, _folder: folder }
    }

    async fn local() -> Self {
        Self::new(Options::local_only("me")).await
    }

    async fn send(&self, path: &str, headers: &[(&str, &str)], body: impl Into<HttpBody>) -> Response {
        self.send_from("127.0.0.1", path, headers, body).await
    }

    async fn send_from(&self, ip: &str, path: &str, headers: &[(&str, &str)], body: impl Into<HttpBody>) -> Response {
        let mut request = Request::post(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(body.into()).unwrap();
        request.extensions_mut().insert(Peer { ip: ip.parse().unwrap(), certificate: None });
        self.router.clone().call(request).await.unwrap()
    }

    async fn spans(&self, spans: &[Value]) -> (StatusCode, Value) {
        let body = json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": spans }] }] }).to_string();
        let response = self.send("/v1/traces", &[("content-type", "application/json")], body).await;
        (response.status(), json_of(response).await)
    }

    async fn actions(&self, actions: Value) -> (StatusCode, Value) {
        let body = json!({ "actions": actions }).to_string();
        let response = self.send("/v1/actions", &[("content-type", "application/json")], body).await;
        (response.status(), json_of(response).await)
    }

    /// The events of a topic, once there are so many of them.
    async fn events(&self, topic: Topic, count: usize) -> Vec<StoredEvent> {
        for _ in 0..6_000 {
            let events = self.backbone.events(topic);
            if events.len() >= count {
                return events;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("waited in vain for {count} events of {topic}");
    }

    fn handle(&self, call: u128, tenant: Option<&str>) -> String {
        let common = Common {
            workflow_id: "refund-4711".into(),
            call_id: Some(Uuid::from_u128(call)),
            trace_id: Some("4b".repeat(16)),
            tenant: tenant.map(ToOwned::to_owned),
            principal: Some("ann".into()),
            server: Some("orders".into()),
            mcp_method_name: Some("tools/call".into()),
            ..Common::default()
        };
        self.handles.give(&common, Some("refund_order"))
    }
}

async fn bytes_of(response: Response) -> Vec<u8> {
    response.into_body().collect().await.unwrap().to_bytes().to_vec()
}

async fn json_of(response: Response) -> Value {
    serde_json::from_slice(&bytes_of(response).await).unwrap()
}

fn text(value: &str) -> Value {
    json!({ "stringValue": value })
}

/// A span of a model call.
fn asked(trace: &str, span: &str, more: &[(&str, &str)]) -> Value {
    let told = [
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.request.model", "gpt"),
        ("gen_ai.input.messages", r#"[{"role":"user","parts":[{"type":"text","content":"the secret plan"}]}]"#),
        (
            "gen_ai.output.messages",
            r#"[{"role":"assistant","parts":[{"type":"tool_call","id":"c","name":"get_order"}]}]"#,
        ),
        ("gen_ai.tool.definitions", r#"[{"name":"get_order","description":"Reads."}]"#),
    ];
    let attributes = told.iter().chain(more).map(|(key, value)| json!({ "key": key, "value": text(value) }));
    json!({ "traceId": trace.repeat(16), "spanId": span.repeat(8), "name": "chat", "attributes": attributes.collect::<Vec<_>>() })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_call_is_recorded_by_reference_under_the_workflow_of_its_trace() {
    let bench = Bench::local().await;
    let other = json!({ "traceId": "4b".repeat(16), "spanId": "09".repeat(8), "name": "GET /" });
    let spans =
        [asked("4b", "07", &[]), asked("5c", "08", &[("cairn.workflow", "named-1")]), asked("6d", "01", &[]), other];
    assert_eq!(bench.spans(&spans).await, (StatusCode::OK, json!({})));
    let mut events = bench.events(Topic::Models, 3).await;
    events.sort_by(|a, b| a.common.trace_id.cmp(&b.common.trace_id));
    let workflows: Vec<_> = events.iter().map(|event| event.common.workflow_id.as_str()).collect();
    assert_eq!(workflows, ["refund-4711", "named-1", &"6d".repeat(16)]);
    let event = &events[0];
    assert_eq!((event.type_name.as_str(), event.common.principal.as_deref()), ("model.called", Some("me")));
    assert_eq!(event.value["tools_chosen"], json!([{ "name": "get_order", "gen_ai_tool_call_id": "c" }]));
    let digest = cairn_contract::sha256_text(br#"{"description":"Reads.","name":"get_order"}"#);
    assert_eq!(event.value["tools_offered"], json!([{ "name": "get_order", "digest": digest }]));
    assert!(!event.value.to_string().contains("secret plan"), "messages are never inline");
    let prompt = event.value["prompt"]["digest"].as_str().unwrap();
    let kept = String::from_utf8(bench.vault.read(prompt).await.unwrap()).unwrap();
    assert!(kept.contains("the secret plan") && kept.starts_with("{\"messages\":["), "{kept}");
    assert!(event.value["output"]["location"].is_null(), "a digest is all that is kept of answers here");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_that_is_sent_again_has_the_same_event() {
    let bench = Bench::local().await;
    bench.spans(&[asked("4b", "07", &[])]).await;
    bench.spans(&[asked("4b", "07", &[]), asked("4b", "08", &[])]).await;
    let events = bench.events(Topic::Models, 2).await;
    assert_eq!(events.len(), 2, "what is sent again is not written again");
    // A later start does not remember, and the id says all the same that it is one.
    let later = Bench::local().await;
    later.spans(&[asked("4b", "07", &[])]).await;
    let again = later.events(Topic::Models, 1).await;
    assert!(events.iter().any(|event| event.id == again[0].id));
    // Somebody else's span of those ids is another event.
    let other = Bench::new(Options::local_only("you")).await;
    other.spans(&[asked("4b", "07", &[])]).await;
    let others = other.events(Topic::Models, 1).await;
    assert!(events.iter().all(|event| event.id != others[0].id));
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_are_screened_before_they_stand_in_an_event() {
    let bench = Bench::local().await;
    let more = [("gen_ai.provider.name", "ann@example.org\u{7}"), ("gen_ai.conversation.id", "ben@example.org")];
    bench.spans(&[asked("4b", "07", &more)]).await;
    let value = bench.events(Topic::Models, 1).await[0].value.to_string();
    assert!(!value.contains("ann@") && !value.contains("ben@") && value.contains("hmac-sha256"), "{value}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_told_in_the_form_of_the_request() {
    let bench = Bench::local().await;
    let bad = json!({ "traceId": "zz", "spanId": "" });
    let (status, answer) = bench.spans(&[asked("5c", "07", &[]), bad]).await;
    assert_eq!((status, &answer["partialSuccess"]["rejectedSpans"]), (StatusCode::OK, &json!("1")));
    assert!(answer["partialSuccess"]["errorMessage"].as_str().unwrap().contains("16 bytes"));
    let json = [("content-type", "application/json")];
    let protobuf = [("content-type", "application/x-protobuf")];
    for (headers, body, status, says) in [
        (&json[..], b"{".to_vec(), 400, "no export request"),
        (&protobuf, b"\x0a\x05abc".to_vec(), 400, "no export request"),
        (&[("content-type", "text/plain")], b"{}".to_vec(), 415, "application/x-protobuf"),
        (&[json[0], ("content-encoding", "br")], b"{}".to_vec(), 415, "gzip"),
        (&[json[0], ("content-encoding", "gzip")], b"{}".to_vec(), 400, "gzip"),
        (&[json[0], ("origin", "https://evil.example")], b"{}".to_vec(), 403, "no page may"),
        (&json, vec![b' '; (1 << 20) + 1], 413, "at most"),
        (&[json[0], ("content-encoding", "gzip")], packed(&vec![b' '; (2 << 20) + 1]), 413, "unpacked"),
    ] {
        let response = bench.send("/v1/traces", headers, body).await;
        assert_eq!(response.status(), status, "{says}");
        let body = bytes_of(response).await;
        assert!(String::from_utf8_lossy(&body).contains(says), "{says}: {body:?}");
    }
    let spans = crate::otlp::tests::request(&[crate::otlp::tests::span(&json!({ "gen_ai.operation.name": "chat" }))]);
    let response = bench.send("/v1/traces", &[protobuf[0], ("content-encoding", "gzip")], packed(&spans)).await;
    assert_eq!((response.status(), bytes_of(response).await), (StatusCode::OK, Vec::new()));
    assert_eq!(bench.events(Topic::Models, 2).await.len(), 2);
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_let_in_reports_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { local: None, api_keys: Some(folder.path().to_owned()), ..Options::local_only("me") };
    let bench = Bench::new(options).await;
    let (status, _) = bench.spans(&[asked("4b", "07", &[])]).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let wrong = [("content-type", "application/json"), ("authorization", "Bearer cairn_key_wrong")];
    let response = bench.send("/v1/traces", &wrong, "{}").await;
    assert!(response.status() == StatusCode::UNAUTHORIZED && response.headers().contains_key("www-authenticate"));
    assert_eq!(bench.around.refused.lock()[0], Reason::NoCredentials);
    // On this machine a handle is a credential for its call; elsewhere it is not enough.
    let action = json!([{ "call": bench.handle(1, None), "system": "s", "kind": "k", "id": "1", "state": "made" }]);
    let body = json!({ "actions": action }).to_string();
    let json = [("content-type", "application/json")];
    let elsewhere = bench.send_from("192.0.2.7", "/v1/actions", &json, body.clone()).await;
    assert_eq!(elsewhere.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(bench.backbone.events(Topic::Actions).len() + bench.backbone.events(Topic::Models).len(), 0);
    assert_eq!(bench.send("/v1/actions", &json, body).await.status(), StatusCode::OK);
    assert!(bench.backbone.events(Topic::Actions)[0].value.get("reported_by").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn actions_are_durable_when_they_are_answered_and_belong_to_the_call_of_their_handle() {
    let bench = Bench::local().await;
    let made = json!({ "call": bench.handle(1, Some("acme")), "system": "zendesk", "kind": "ticket", "id": "T-1", "state": "made",
                       "occurred_at": "2026-11-24T09:00:00Z" });
    let (status, answer) = bench.actions(json!([made, made])).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let events = bench.backbone.events(Topic::Actions);
    assert_eq!(events.len(), 1, "the same action twice is one");
    let event = &events[0];
    assert_eq!(event.common.call_id, Some(Uuid::from_u128(1)));
    let common = (&event.common.tenant, &event.common.principal, &event.common.server);
    assert_eq!(common, (&Some("acme".into()), &Some("ann".into()), &Some("orders".into())));
    assert_eq!((&event.value["id"], &event.value["reported_by"]), (&json!("T-1"), &json!("me")));
    assert_eq!(answer["actions"][0]["event_id"], json!(event.id));
    let (_, answer) = bench.actions(json!([made])).await;
    assert_eq!((&answer["actions"][0]["repeated"], bench.backbone.events(Topic::Actions).len()), (&json!(true), 1));
    let mut later = made.clone();
    later["state"] = json!("closed");
    bench.actions(json!([later])).await;
    assert_eq!(bench.backbone.events(Topic::Actions).len(), 2, "another state is another event");
    bench.clock.advance(Duration::from_secs(31 * 24 * 60 * 60));
    let (status, answer) = bench.actions(json!([later])).await;
    assert!(status == StatusCode::BAD_REQUEST && answer.to_string().contains("longer ago"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_stands_for_one_action_of_its_call() {
    let bench = Bench::local().await;
    let action = |call: u128, id: &str| json!({ "call": bench.handle(call, None), "system": "s", "kind": "k", "id": id, "state": "made", "idempotency_key": "1" });
    assert_eq!(bench.actions(json!([action(1, "a"), action(2, "b")])).await.0, StatusCode::OK);
    assert_eq!(bench.actions(json!([action(1, "a")])).await.1["actions"][0]["repeated"], true);
    let (status, answer) = bench.actions(json!([action(1, "c")])).await;
    assert!(status == StatusCode::CONFLICT && answer["error"].as_str().unwrap().contains("actions[0]"), "{answer}");
    assert_eq!(bench.actions(json!([action(3, "a"), action(3, "b")])).await.0, StatusCode::CONFLICT);
    assert_eq!(bench.backbone.events(Topic::Actions).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_action_keeps_all_of_its_request_out() {
    let bench = Bench::local().await;
    let good = json!({ "call": bench.handle(1, None), "system": "s", "kind": "k", "id": "1", "state": "made" });
    for (key, bad, says) in [
        ("call", json!("cairn-call.AAAA"), "io.cairn/call"),
        ("call", json!(Uuid::from_u128(1)), "io.cairn/call"),
        ("system", json!(""), "system"),
        ("kind", json!("x".repeat(65)), "kind"),
        ("id", json!("a\nb"), "id"),
        ("state", json!(7), "expected a string"),
        ("occurred_at", json!("yesterday"), "RFC 3339"),
        ("colour", json!("red"), "colour"),
    ] {
        let mut action = good.clone();
        action[key] = bad;
        let (status, answer) = bench.actions(json!([good, action])).await;
        assert!(status == StatusCode::BAD_REQUEST && answer.to_string().contains(says), "{key}: {answer}");
    }
    assert_eq!(bench.actions(json!([])).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(bench.actions(json!(vec![good; 101])).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(bench.backbone.events(Topic::Actions), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_answered_as_taken_that_is_not_recorded() {
    let bench = Bench::local().await;
    bench.backbone.set_fault(Broken::Fail);
    let action = json!([{ "call": bench.handle(1, None), "system": "s", "kind": "k", "id": "1", "state": "made" }]);
    let (status, answer) = bench.actions(action.clone()).await;
    assert!(status == StatusCode::SERVICE_UNAVAILABLE && answer.to_string().contains("again"), "{answer}");
    let (status, _) = bench.spans(&[asked("4b", "07", &[])]).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "the sender keeps it and sends it again");
    bench.backbone.set_fault(Broken::None);
    for _ in 0..6_000 {
        if bench.actions(action.clone()).await.0 == StatusCode::OK {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let ids: std::collections::BTreeSet<_> =
        bench.backbone.events(Topic::Actions).iter().map(|event| event.id).collect();
    assert_eq!(ids.len(), 1, "it may lie there twice, under one id");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_of_a_tenant_writes_into_its_own_and_no_other() {
    let bench = Bench::local().await;
    let ingest = Ingest::new(parts_of(&bench));
    let globex = Identity { tenant: Some("globex".into()), ..Identity::local("me") };
    let body = |tenant| {
        let action = json!({ "call": bench.handle(1, tenant), "system": "s", "kind": "k", "id": "1", "state": "made" });
        json!({ "actions": [action] }).to_string().into_bytes()
    };
    for tenant in [Some("acme"), None] {
        let refused = ingest.take_actions(Some(&globex), &body(tenant)).await.unwrap_err();
        assert_eq!(refused.status(), 403, "{refused:?}");
    }
    assert!(ingest.take_actions(Some(&globex), &body(Some("globex"))).await.is_ok());
    let report = conventions::Report { trace_id: "4b".repeat(16), span_id: "07".repeat(8), ..Default::default() };
    ingest.write(&globex, vec![report]);
    let events = bench.events(Topic::Models, 1).await;
    assert_eq!(events[0].common.tenant.as_deref(), Some("globex"));
}

/// The same surroundings, for what is not asked over HTTP.
fn parts_of(bench: &Bench) -> Parts {
    let digests = DigestKey::new("k", b"a secret of thirty-two bytes or more!").unwrap();
    Parts {
        recorder: bench.recorder.clone(),
        verifier: Arc::new(Verifier::new(Options::local_only("me"), bench.clock.clone()).unwrap()),
        scopes: Vec::new(),
        screener: Screener::new(Rules::embedded()),
        vault: None,
        payload_key: digests.clone(),
        secret: digests,
        prompts: Kept::Reference,
        outputs: Kept::None,
        handles: bench.handles.clone(),
        surroundings: bench.around.clone(),
        clock: bench.clock.clone(),
        entropy: Entropy::seeded(2),
        bounds: Bounds::default(),
        metrics: Metrics::default(),
    }
}
