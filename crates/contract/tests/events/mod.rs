//! Two bodies of each event type: one with every key, one with none that may be absent. No literal uses `..`.

use cairn_contract::*;
use serde_json::{Map, Value, json};
use uuid::Uuid;

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn keyed(byte: &str) -> String {
    format!("hmac-sha256:k1:{}", byte.repeat(32))
}

fn sha(byte: &str) -> String {
    format!("sha256:{}", byte.repeat(32))
}

fn full_reference() -> Option<Reference> {
    Some(Reference {
        digest: keyed("3a"),
        bytes: 48,
        media_type: "application/json".into(),
        location: some("vault:1"),
        inline: some("{\"order\":7}"),
    })
}

fn minimal_reference() -> Reference {
    Reference { digest: keyed("3a"), bytes: 0, media_type: "application/json".into(), location: None, inline: None }
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn peer() -> Option<Implementation> {
    Some(Implementation { name: "peer".into(), version: some("1") })
}

fn files() -> Vec<PolicyFile> {
    vec![PolicyFile { name: "a.cedar".into(), digest: sha("9c") }]
}

pub(crate) fn full_common() -> Common {
    Common {
        workflow_id: "refund-4711".into(),
        call_id: Some(Uuid::from_u128(2)),
        causation_id: Some(Uuid::from_u128(3)),
        task: some("refund"),
        operation_id: some("op-1"),
        round: Some(1),
        linked_by: Some(LinkedBy::RequestState),
        direction: Some(Direction::ToServer),
        trace_id: some("4bf92f3577b34da6a3ce929d0e0e4736"),
        span_id: some("00f067aa0ba902b7"),
        tenant: some("acme"),
        principal: some("local"),
        agent: some("corp/agent"),
        agent_name: some("agent"),
        agent_version: some("1"),
        server: some("orders"),
        server_version: some("2"),
        era: Some(Era::Modern),
        mcp_protocol_version: some("2026-07-28"),
        network_transport: Some(Transport::Tcp),
        mcp_method_name: some("tools/call"),
        mcp_session_id: Some(keyed("5b")),
        jsonrpc_request_id: some("7"),
    }
}

pub(crate) fn minimal_common(topic: Topic) -> Common {
    if topic != Topic::Calls {
        return Common::default();
    }
    let full = full_common();
    Common {
        workflow_id: full.workflow_id,
        call_id: full.call_id,
        trace_id: full.trace_id,
        principal: full.principal,
        server: full.server,
        era: full.era,
        mcp_method_name: full.mcp_method_name,
        ..Common::default()
    }
}

pub(crate) fn full_bodies() -> Vec<Body> {
    let targets = [Target::tool("refund"), Target::resource("file:///a"), Target::prompt("summarise")];
    let mut bodies: Vec<Body> = Vec::new();
    for target in targets {
        bodies.push(full_decision(target.clone()).into());
        bodies.push(full_intent(target).into());
    }
    bodies.extend(full_rest_of_call());
    bodies.extend(full_context());
    bodies.extend(full_session_and_catalog());
    bodies.extend(full_policy());
    bodies.extend([checkpoint(Some(1), vec![ROOT.to_owned()]), rotated(), vouched()]);
    bodies.extend(full_models_and_actions());
    bodies
}

fn full_decision(target: Target) -> CallDecision {
    CallDecision {
        decision: Decision::Permit,
        policy_version: sha("9c"),
        determining_policies: vec!["p".into()],
        obligations: vec!["approval".into()],
        errors: vec!["e".into()],
        inputs: full_reference().unwrap(),
        elapsed_us: 1,
        target,
        arguments: full_reference(),
        tool_digest: Some(sha("1d")),
        freshness: vec![StoodOn {
            mcp_resource_uri: "file:///a".into(),
            state: Freshness::Stale,
            seen: some("v7"),
            known: some("v8"),
            age_ms: Some(1),
        }],
        nearest: Some(NearestPermit { policy: "p".into(), failed: "principal".into(), failing: 1 }),
        shadow: Some(ShadowDecision { policy_version: sha("9d"), decision: Decision::Deny, differs: true }),
        rewritten: full_rewritten(),
        outside: Some(Box::new(Outside {
            id: "pdp.example:8443".into(),
            decision: Some(Decision::Permit),
            elapsed_us: 1,
            policy_version: some("7"),
            determining_policies: vec!["p".into()],
            reason: some("r"),
            error_type: some("timed_out"),
        })),
        parent_span_id: some("00f067aa0ba902b6"),
    }
}

fn full_rewritten() -> Option<Rewritten> {
    Some(Rewritten { policies: vec!["p".into()], original: keyed("3a"), forwarded: keyed("3b") })
}

fn full_intent(target: Target) -> CallIntent {
    CallIntent {
        target,
        arguments: full_reference(),
        durability: Durability::Strict,
        forwarded: keyed("6d"),
        policy_version: sha("9c"),
        upstream: Some(Era::Legacy),
        upstream_protocol_version: some("2025-11-25"),
        upstream_network_transport: Some(Transport::Pipe),
        repeats: Some(Uuid::from_u128(9)),
        writes: vec!["file:///a".into()],
        invocation: Some(Invocation { claimed: Claimed, reason: some("r"), model: some("m"), turn: Some(3) }),
        rewritten: full_rewritten(),
    }
}

fn full_rest_of_call() -> Vec<Body> {
    vec![
        CallApproval {
            approvers: vec!["ann".to_owned()],
            quorum: Some(2),
            state: ApprovalState::Requested,
            approval_id: "a7f3k2".into(),
            binding: Some(keyed("4c")),
            approver: some("operator"),
            expires_at: some("2026-11-24T12:00:50.000000Z"),
            reason: some("checked"),
        }
        .into(),
        CallOutcome {
            outcome: Outcome::Completed,
            effect: Effect::Answered,
            http_response_status_code: Some(200),
            rpc_response_status_code: Some(-32602),
            is_error: Some(false),
            error_type: some("upstream_gone"),
            result: full_reference(),
            elapsed_us: Some(2),
            upstream_elapsed_us: Some(1),
            progress_notifications: Some(3),
            recovered: Some(false),
            screened: Some(Screened {
                action: ScreenAction::Redacted,
                policies: vec!["p".into()],
                found: 2,
                rules: vec!["email".into()],
                detectors: sha("5d"),
            }),
        }
        .into(),
        CallAnswered { written: false, error_type: some("client_gone"), elapsed_us: Some(1) }.into(),
        CallLate {
            http_response_status_code: Some(200),
            rpc_response_status_code: Some(1),
            is_error: Some(true),
            result: full_reference(),
            upstream_elapsed_us: Some(1),
        }
        .into(),
        CallSettled {
            state: SettledState::Completed,
            task_id: Some(keyed("7e")),
            is_error: Some(false),
            rpc_response_status_code: Some(1),
            result: full_reference(),
            observed_in: Some(Uuid::from_u128(4)),
        }
        .into(),
    ]
}

fn full_context() -> Vec<Body> {
    vec![
        ContextRead {
            mcp_resource_uri: "file:///a".into(),
            version: some("v7"),
            version_source: Some(VersionSource::Etag),
            content: full_reference(),
            ttl_ms: Some(1),
            cache_scope: Some(CacheScope::Private),
            asked_at: some("2026-11-24T09:03:00.000001Z"),
        }
        .into(),
        ContextChanged { mcp_resource_uri: "file:///a".into(), version: some("v8"), cause: ChangeCause::Notification }
            .into(),
        ContextListed {
            list_kind: ListKind::Tools,
            digests: vec![ListedItem { name: "refund".into(), digest: sha("1d") }],
            count: 1,
            more: Some(false),
            content: full_reference(),
        }
        .into(),
        ContextPrompt { prompt_name: "p".into(), arguments: full_reference(), messages: full_reference() }.into(),
    ]
}

fn full_session_and_catalog() -> Vec<Body> {
    vec![
        NoticePassed { belongs_to: some("call"), notice: full_reference() }.into(),
        SessionOpened {
            client_info: peer(),
            server_info: peer(),
            client_capabilities: Some(object(json!({"sampling": {}}))),
            server_capabilities: Some(object(json!({"tools": {}}))),
            requested_version: some("2025-11-25"),
            negotiated_version: some("2025-06-18"),
            reason: some("initialize"),
        }
        .into(),
        SessionClosed {
            reason: "idle".into(),
            elapsed_us: Some(1),
            client_info: peer(),
            server_info: peer(),
            negotiated_version: some("2025-06-18"),
        }
        .into(),
        CatalogDefined {
            kind: CatalogKind::Tool,
            name: "refund".into(),
            digest: sha("1d"),
            definition: json!({"name": "refund"}),
            annotations: Some(json!({"readOnlyHint": true})),
            alerts: vec!["hidden_text".into()],
            standing: some("unapproved"),
        }
        .into(),
        CatalogChanged {
            kind: CatalogKind::Tool,
            name: "refund".into(),
            digest: sha("1d"),
            previous_digest: sha("2e"),
            definition: Some(json!({"name": "refund"})),
            annotations: Some(json!({"readOnlyHint": true})),
            alerts: vec!["changed".into()],
            standing: some("changed"),
        }
        .into(),
        approved_definition(),
    ]
}

fn approved_definition() -> Body {
    let (kind, name) = (CatalogKind::Tool, "refund".to_owned());
    CatalogApproved { kind, name, digest: sha("1d"), approver: "ada".into() }.into()
}

fn full_policy() -> Vec<Body> {
    let (who, errors) = ("start".to_owned(), vec!["e".to_owned()]);
    vec![
        PolicyLoaded { version: sha("9c"), files: files(), who: who.clone(), errors: errors.clone() }.into(),
        PolicyActivated {
            version: sha("9c"),
            previous_version: some("observe"),
            cause: Some(PolicyCause::Promoted),
            files: files(),
            who: who.clone(),
            errors: errors.clone(),
        }
        .into(),
        PolicyRejected { version: "observe".into(), files: files(), who: who.clone(), errors: errors.clone() }.into(),
        AccessRefused {
            reason: "token_expired".into(),
            http_response_status_code: 401,
            credential: CredentialKind::Token,
            issuer: some("corp"),
            peer: some("192.0.2.7"),
            scopes_missing: vec!["a".into()],
            count: 2,
            within_ms: 10_000,
        }
        .into(),
        AlertRaised { alert: "look_alike".into(), about: "a/tool/b".into(), found: some("c/d") }.into(),
        LimitExceeded {
            limit: "refunds".into(),
            source: LimitSource::Policy,
            dimension: "rate".into(),
            allowed: "30/1m".into(),
            used: "30".into(),
            per: vec!["principal".into()],
            gen_ai_tool_name: some("refund"),
            retry_after_ms: Some(2_000),
            count: 2,
            within_ms: 10_000,
        }
        .into(),
        PolicyShadowed { version: sha("9c"), state: ShadowState::Tried, files: files(), who, errors }.into(),
        VaultRead {
            operator: "operator".into(),
            digest: format!("hmac-sha256:s-0123456789abcdef:{}", "3a".repeat(32)),
            subject: some("ann"),
            reason: some("case 12"),
        }
        .into(),
        SubjectErased {
            subject: "ann".into(),
            operator: "operator".into(),
            reason: some("she asked for it"),
            key_ids: vec!["s-0123456789abcdef".into()],
            objects: 2,
            bytes: 512,
        }
        .into(),
        SubjectHeld { subject: "ann".into(), operator: "operator".into(), reason: "case 12".into() }.into(),
        SubjectReleased { subject: "ann".into(), operator: "operator".into(), holds: 1 }.into(),
        OperatorActed {
            act_id: Uuid::from_u128(9).to_string(),
            operator: "ann".into(),
            role: some("erase"),
            act: "vault.erase".into(),
            about: some("ben"),
            via: ActVia::AdminApi,
            outcome: ActOutcome::Failed,
            reason: some("case 12"),
            error: some("409 it is under legal hold"),
            acted_at: some("2026-11-24T09:00:00.000000Z"),
        }
        .into(),
        EventRejected {
            rejected_type: "call.intent".into(),
            rejected_version: 2,
            rejected_id: Uuid::from_u128(7).to_string(),
            reason: "/ has no \"forwarded\"".into(),
            event: full_reference(),
        }
        .into(),
        ConsumerMoved {
            operator: "ann".into(),
            role: some("offsets"),
            consumer: "audit".into(),
            group: "cairn-audit".into(),
            change: ConsumerChange::Moved,
            to_time: some("2026-11-24T09:00:00.000000Z"),
            moves: vec![OffsetMove { topic: "mcp.calls".into(), partition: 3, from: Some(250), to: 100 }],
            reason: some("a fault was mended"),
        }
        .into(),
        ReplayStarted {
            replay_id: Uuid::from_u128(9).to_string(),
            operator: "ann".into(),
            role: some("offsets"),
            consumer: "audit".into(),
            group: "cairn-audit".into(),
            from_time: some("2026-11-24T09:00:00.000000Z"),
            to_time: some("2026-11-24T10:00:00.000000Z"),
            ranges: vec![OffsetRange { topic: "mcp.calls".into(), partition: 3, from: 100, to: 250 }],
            offsets: 150,
            rate_max: Some(1_000),
            reason: some("a fault was mended"),
        }
        .into(),
        ReplayEnded {
            replay_id: Uuid::from_u128(9).to_string(),
            operator: "ann".into(),
            role: some("offsets"),
            consumer: "audit".into(),
            group: "cairn-audit".into(),
            outcome: ReplayOutcome::Failed,
            records: 148,
            replaced: 148,
            changed: 3,
            dead_letters: 0,
            elapsed_ms: 1_200,
            error: some("the disk is full"),
        }
        .into(),
    ]
}

fn full_models_and_actions() -> Vec<Body> {
    vec![
        ModelCalled {
            reported_as: ReportedAs::Span,
            parent_span_id: some("00f067aa0ba902b6"),
            gen_ai_operation_name: some("chat"),
            gen_ai_provider_name: some("openai"),
            gen_ai_request_model: some("gpt-5-mini"),
            gen_ai_response_model: some("gpt-5-mini-2025-08-07"),
            gen_ai_response_id: some("chatcmpl-123"),
            gen_ai_response_finish_reasons: vec!["tool_calls".into()],
            gen_ai_usage_input_tokens: Some(412),
            gen_ai_usage_output_tokens: Some(31),
            gen_ai_conversation_id: some("conv-7"),
            prompt: full_reference(),
            output: full_reference(),
            tools: full_reference(),
            tools_offered: vec![ToolOffered { name: "refund".into(), digest: Some(sha("1d")) }],
            tools_offered_more: Some(3),
            tools_chosen: vec![ToolChosen {
                name: "refund".into(),
                gen_ai_tool_call_id: some("call_1"),
                call_id: Some(Uuid::from_u128(2)),
            }],
            error_type: some("timeout"),
            started_at: some("2026-11-24T09:00:00.000000Z"),
            elapsed_us: Some(840_000),
            instrumentation: some("opentelemetry.instrumentation.openai 0.49.0"),
        }
        .into(),
        ActionReported {
            gen_ai_tool_name: some("refund"),
            system: "zendesk".into(),
            kind: "ticket".into(),
            id: "T-4711".into(),
            state: "created".into(),
            reported_by: some("key/orders-server"),
            reported_by_tenant: some("acme"),
            occurred_at: some("2026-11-24T09:00:01.000000Z"),
        }
        .into(),
    ]
}

fn minimal_models_and_actions() -> Vec<Body> {
    vec![
        ModelCalled {
            reported_as: ReportedAs::Logs,
            parent_span_id: None,
            gen_ai_operation_name: None,
            gen_ai_provider_name: None,
            gen_ai_request_model: None,
            gen_ai_response_model: None,
            gen_ai_response_id: None,
            gen_ai_response_finish_reasons: vec![],
            gen_ai_usage_input_tokens: None,
            gen_ai_usage_output_tokens: None,
            gen_ai_conversation_id: None,
            prompt: None,
            output: None,
            tools: None,
            tools_offered: vec![],
            tools_offered_more: None,
            tools_chosen: vec![],
            error_type: None,
            started_at: None,
            elapsed_us: None,
            instrumentation: None,
        }
        .into(),
        ActionReported {
            gen_ai_tool_name: None,
            system: "zendesk".into(),
            kind: "ticket".into(),
            id: "T-4711".into(),
            state: "created".into(),
            reported_by: None,
            reported_by_tenant: None,
            occurred_at: None,
        }
        .into(),
    ]
}

/// In the order of [`EventType::ALL`].
pub(crate) fn minimal_bodies() -> Vec<Body> {
    let mut bodies = minimal_call();
    bodies.extend([
        NoticePassed::default().into(),
        ContextRead {
            mcp_resource_uri: "a".into(),
            version: None,
            version_source: None,
            content: None,
            ttl_ms: None,
            cache_scope: None,
            asked_at: None,
        }
        .into(),
        ContextChanged { mcp_resource_uri: "a".into(), version: None, cause: ChangeCause::Read }.into(),
        ContextListed { list_kind: ListKind::Roots, digests: vec![], count: 0, more: None, content: None }.into(),
        ContextPrompt { prompt_name: "p".into(), arguments: None, messages: None }.into(),
        SessionOpened::default().into(),
        SessionClosed { reason: "idle".into(), ..SessionClosed::default() }.into(),
        CatalogDefined {
            kind: CatalogKind::Prompt,
            name: "p".into(),
            digest: sha("1d"),
            definition: json!({}),
            annotations: None,
            alerts: vec![],
            standing: None,
        }
        .into(),
        CatalogChanged {
            kind: CatalogKind::Resource,
            name: "r".into(),
            digest: sha("1d"),
            previous_digest: sha("2e"),
            definition: None,
            annotations: None,
            alerts: vec![],
            standing: None,
        }
        .into(),
        approved_definition(),
        PolicyLoaded { version: "observe".into(), files: vec![], who: "start".into(), errors: vec![] }.into(),
        PolicyActivated {
            version: "observe".into(),
            previous_version: None,
            cause: None,
            files: vec![],
            who: "start".into(),
            errors: vec![],
        }
        .into(),
        PolicyRejected { version: "observe".into(), files: vec![], who: "start".into(), errors: vec![] }.into(),
        AccessRefused {
            reason: "no_credentials".into(),
            http_response_status_code: 401,
            credential: CredentialKind::None,
            issuer: None,
            peer: None,
            scopes_missing: vec![],
            count: 1,
            within_ms: 0,
        }
        .into(),
        AlertRaised { alert: "look_alike".into(), about: "a/tool/b".into(), found: None }.into(),
        LimitExceeded {
            limit: "refunds".into(),
            source: LimitSource::Configuration,
            dimension: "budget".into(),
            allowed: "500".into(),
            used: "0".into(),
            per: vec![],
            gen_ai_tool_name: None,
            retry_after_ms: None,
            count: 1,
            within_ms: 0,
        }
        .into(),
        PolicyShadowed {
            version: "observe".into(),
            state: ShadowState::Ended,
            files: vec![],
            who: "start".into(),
            errors: vec![],
        }
        .into(),
        checkpoint(None, vec![]),
        rotated(),
        vouched(),
        VaultRead {
            operator: "operator".into(),
            digest: format!("hmac-sha256:s-0123456789abcdef:{}", "3a".repeat(32)),
            subject: None,
            reason: None,
        }
        .into(),
        SubjectErased {
            subject: "ann".into(),
            operator: "operator".into(),
            reason: None,
            key_ids: vec![],
            objects: 2,
            bytes: 512,
        }
        .into(),
        SubjectHeld { subject: "ann".into(), operator: "operator".into(), reason: "case 12".into() }.into(),
        SubjectReleased { subject: "ann".into(), operator: "operator".into(), holds: 1 }.into(),
        OperatorActed {
            act_id: Uuid::from_u128(9).to_string(),
            operator: "ann".into(),
            role: None,
            act: "operator.add".into(),
            about: None,
            via: ActVia::Command,
            outcome: ActOutcome::Allowed,
            reason: None,
            error: None,
            acted_at: None,
        }
        .into(),
        EventRejected {
            rejected_type: "call.intent".into(),
            rejected_version: 2,
            rejected_id: Uuid::from_u128(7).to_string(),
            reason: "/ has no \"forwarded\"".into(),
            event: None,
        }
        .into(),
        ConsumerMoved {
            operator: "ann".into(),
            role: None,
            consumer: "audit".into(),
            group: "cairn-audit".into(),
            change: ConsumerChange::Paused,
            to_time: None,
            moves: vec![],
            reason: None,
        }
        .into(),
        ReplayStarted {
            replay_id: Uuid::from_u128(9).to_string(),
            operator: "ann".into(),
            role: None,
            consumer: "audit".into(),
            group: "cairn-audit".into(),
            from_time: None,
            to_time: None,
            ranges: vec![],
            offsets: 0,
            rate_max: None,
            reason: None,
        }
        .into(),
        ReplayEnded {
            replay_id: Uuid::from_u128(9).to_string(),
            operator: "ann".into(),
            role: None,
            consumer: "audit".into(),
            group: "cairn-audit".into(),
            outcome: ReplayOutcome::Completed,
            records: 0,
            replaced: 0,
            changed: 0,
            dead_letters: 0,
            elapsed_ms: 0,
            error: None,
        }
        .into(),
    ]);
    bodies.extend(minimal_models_and_actions());
    bodies
}

fn minimal_call() -> Vec<Body> {
    vec![
        CallDecision {
            decision: Decision::Deny,
            policy_version: "observe".into(),
            determining_policies: vec![],
            obligations: vec![],
            errors: vec![],
            inputs: minimal_reference(),
            elapsed_us: 0,
            target: Target::None,
            arguments: None,
            tool_digest: None,
            freshness: vec![],
            nearest: None,
            shadow: None,
            rewritten: None,
            outside: None,
            parent_span_id: None,
        }
        .into(),
        CallApproval {
            approvers: vec![],
            quorum: None,
            state: ApprovalState::Expired,
            approval_id: "a".into(),
            binding: None,
            approver: None,
            expires_at: None,
            reason: None,
        }
        .into(),
        CallIntent {
            target: Target::None,
            arguments: None,
            durability: Durability::Relaxed,
            forwarded: keyed("6d"),
            policy_version: "observe".into(),
            upstream: None,
            upstream_protocol_version: None,
            upstream_network_transport: None,
            repeats: None,
            writes: vec![],
            invocation: None,
            rewritten: None,
        }
        .into(),
        CallOutcome {
            outcome: Outcome::InDoubt,
            effect: Effect::Unknown,
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
        .into(),
        CallAnswered { written: true, error_type: None, elapsed_us: None }.into(),
        CallLate::default().into(),
        CallSettled {
            state: SettledState::Unknown,
            task_id: None,
            is_error: None,
            rpc_response_status_code: None,
            result: None,
            observed_in: None,
        }
        .into(),
    ]
}

const ROOT: &str = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";

fn checkpoint(previous_size: Option<u64>, consistency: Vec<String>) -> Body {
    EvidenceCheckpoint {
        note: format!("origin\n1\n{ROOT}\n\n\u{2014} key AAAAAA==\n"),
        topic: "mcp.calls".into(),
        topic_id: "01996b5e-7c00-7000-8000-000000000001".into(),
        partition: 3,
        size: 1,
        root: ROOT.into(),
        offset_next: 1,
        frontier: vec![ROOT.into()],
        previous_size,
        consistency,
    }
    .into()
}

fn rotated() -> Body {
    EvidenceRotated { note: "text\n\n\u{2014} key AAAAAA==\n".into(), old_key: "a".into(), new_key: "b".into() }.into()
}

fn vouched() -> Body {
    EvidenceProducer {
        note: "text\n\n\u{2014} key AAAAAA==\n".into(),
        producer_id: "gw-1".into(),
        epoch_first: 1,
        epoch_last: 2,
    }
    .into()
}
