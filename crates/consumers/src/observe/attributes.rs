//! Which keys of events go out as attributes, and under which names.
//!
//! Names are those of OpenTelemetry's conventions for MCP and generative AI where these have one, else `cairn.*`. Without being asked for, a
//! key goes out only where its contract calls it public or internal; what a contract calls confidential, personal or secret goes where somebody
//! named it ([`Include`]). Keys that hold a reference, a payload or free text that nobody screened stand in neither table.

use serde_json::Value as Json;

use super::span::{Attributes, Value, held};

/// Keys of events, and what they are called outside.
pub(super) type Table = &'static [(&'static str, &'static str)];

/// Keys that all events share.
pub(super) const COMMON: Table = &[
    ("mcp_method_name", "mcp.method.name"),
    ("mcp_protocol_version", "mcp.protocol.version"),
    ("jsonrpc_request_id", "jsonrpc.request.id"),
    ("network_transport", "network.transport"),
    ("gen_ai_tool_name", "gen_ai.tool.name"),
    ("prompt_name", "gen_ai.prompt.name"),
    ("workflow_id", "cairn.workflow"),
    ("call_id", "cairn.call"),
    ("operation_id", "cairn.operation"),
    ("round", "cairn.operation.round"),
    ("linked_by", "cairn.operation.linked_by"),
    ("direction", "cairn.direction"),
    ("tenant", "cairn.tenant"),
    ("agent", "cairn.agent"),
    ("agent_name", "cairn.agent.name"),
    ("agent_version", "cairn.agent.version"),
    ("server", "cairn.server"),
    ("server_version", "cairn.server.version"),
    ("era", "cairn.era"),
];

/// Keys of decisions.
pub(super) const DECISION: Table = &[
    ("decision", "cairn.decision"),
    ("policy_version", "cairn.policy.version"),
    ("determining_policies", "cairn.policy.determining"),
    ("obligations", "cairn.policy.obligations"),
];

/// Keys of intents.
pub(super) const INTENT: Table = &[
    ("durability", "cairn.durability"),
    ("upstream", "cairn.upstream.era"),
    ("upstream_protocol_version", "cairn.upstream.protocol.version"),
    ("upstream_network_transport", "cairn.upstream.network.transport"),
];

/// Keys of outcomes, and of what comes after them.
pub(super) const OUTCOME: Table = &[
    ("outcome", "cairn.outcome"),
    ("effect", "cairn.effect"),
    ("error_type", "error.type"),
    ("rpc_response_status_code", "rpc.response.status_code"),
    ("http_response_status_code", "http.response.status_code"),
    ("is_error", "cairn.tool.is_error"),
    ("elapsed_us", "cairn.elapsed_us"),
    ("upstream_elapsed_us", "cairn.upstream.elapsed_us"),
    ("progress_notifications", "cairn.progress_notifications"),
    ("recovered", "cairn.recovered"),
];

/// Keys of approvals.
pub(super) const APPROVAL: Table =
    &[("state", "cairn.approval.state"), ("approval_id", "cairn.approval.id"), ("quorum", "cairn.approval.quorum")];

/// Keys of other events, by type.
pub(super) const OTHERS: &[(&str, Table)] = &[
    ("call.answered", &[("written", "cairn.answer.written"), ("error_type", "error.type")]),
    (
        "call.late",
        &[
            ("rpc_response_status_code", "rpc.response.status_code"),
            ("http_response_status_code", "http.response.status_code"),
            ("is_error", "cairn.tool.is_error"),
            ("upstream_elapsed_us", "cairn.upstream.elapsed_us"),
        ],
    ),
    (
        "call.settled",
        &[
            ("state", "cairn.task.state"),
            ("is_error", "cairn.tool.is_error"),
            ("observed_in", "cairn.task.observed_in"),
        ],
    ),
    ("notice.passed", &[]),
    (
        "action.reported",
        &[("system", "cairn.action.system"), ("kind", "cairn.action.kind"), ("state", "cairn.action.state")],
    ),
    (
        "limit.exceeded",
        &[
            ("limit", "cairn.limit"),
            ("dimension", "cairn.limit.dimension"),
            ("allowed", "cairn.limit.allowed"),
            ("used", "cairn.limit.used"),
            ("count", "cairn.limit.count"),
        ],
    ),
    (
        "model.called",
        &[
            ("gen_ai_operation_name", "gen_ai.operation.name"),
            ("gen_ai_provider_name", "gen_ai.provider.name"),
            ("gen_ai_request_model", "gen_ai.request.model"),
            ("gen_ai_response_model", "gen_ai.response.model"),
            ("gen_ai_response_id", "gen_ai.response.id"),
            ("gen_ai_response_finish_reasons", "gen_ai.response.finish_reasons"),
            ("gen_ai_usage_input_tokens", "gen_ai.usage.input_tokens"),
            ("gen_ai_usage_output_tokens", "gen_ai.usage.output_tokens"),
            ("error_type", "error.type"),
        ],
    ),
];

/// Keys that go out only where somebody names them.
pub(super) const ASKED_FOR: Table = &[
    ("principal", "cairn.principal"),
    ("task", "cairn.task"),
    ("mcp_session_id", "mcp.session.id"),
    ("mcp_resource_uri", "mcp.resource.uri"),
    ("approver", "cairn.approval.approver"),
    ("reason", "cairn.approval.reason"),
    ("id", "cairn.action.id"),
    ("reported_by", "cairn.action.reported_by"),
    ("gen_ai_conversation_id", "gen_ai.conversation.id"),
];

/// Which keys go out besides those that always do.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Include(Vec<(&'static str, &'static str)>);

impl Include {
    /// These keys.
    ///
    /// # Errors
    /// The first that may not go out, or does so anyhow.
    pub fn named<'k>(keys: impl IntoIterator<Item = &'k str>) -> Result<Self, String> {
        let find = |key: &'k str| {
            let known = ASKED_FOR.iter().find(|(known, _)| *known == key).copied();
            known.ok_or_else(|| {
                let keys: Vec<&str> = ASKED_FOR.iter().map(|(key, _)| *key).collect();
                format!("{key:?} cannot be asked for: name some of {}", keys.join(", "))
            })
        };
        keys.into_iter().map(find).collect::<Result<_, _>>().map(Self)
    }

    /// What stands in an event under keys of these tables.
    pub(super) fn of(&self, data: &Json, tables: &[Table]) -> Attributes {
        let all = tables.iter().flat_map(|table| table.iter()).chain(&self.0);
        all.filter_map(|(key, name)| Some((*name, stands(data, key)?))).collect()
    }
}

/// A status code of JSON-RPC is a text in the conventions.
fn stands(data: &Json, key: &str) -> Option<Value> {
    let found = data.get(key)?;
    match (key, found.as_i64()) {
        ("rpc_response_status_code", Some(code)) => Some(Value::Text(code.to_string())),
        _ => held(found),
    }
}

#[cfg(test)]
mod tests {
    use cairn_contract::{EventType, contracts};
    use serde_json::json;

    use super::*;

    fn sensitivity(event_type: EventType, key: &str) -> Vec<String> {
        let of = |contract: &cairn_contract::Contract| {
            let schema: Json = serde_json::from_str(contract.schema).expect("a schema");
            let key = schema["properties"].get(key)?.clone();
            assert_ne!(key["x-inline"], "reference", "a payload");
            assert_ne!(key["x-inline"], "permitted", "a payload that may stand inline");
            Some(key["x-sensitivity"].as_str().expect("a word").to_owned())
        };
        contracts(event_type).iter().filter_map(of).collect()
    }

    #[test]
    fn nothing_that_a_contract_keeps_close_goes_out_unasked() {
        let types = |names: &[&str]| -> Vec<EventType> {
            names.iter().map(|name| EventType::named(name).expect("a type")).collect()
        };
        let calls = ["call.decision", "call.approval", "call.intent", "call.outcome", "call.late", "call.settled"];
        let mut tables = vec![
            (types(&calls), COMMON),
            (types(&["notice.passed", "action.reported", "model.called", "limit.exceeded"]), COMMON),
            (types(&["call.decision"]), DECISION),
            (types(&["call.intent"]), INTENT),
            (types(&["call.outcome"]), OUTCOME),
            (types(&["call.approval"]), APPROVAL),
        ];
        tables.extend(OTHERS.iter().map(|(name, keys)| (types(&[name]), *keys)));
        for (types, keys) in tables {
            for (key, _) in keys {
                let found: Vec<String> = types.iter().flat_map(|of| sensitivity(*of, key)).collect();
                let is_shared = COMMON.iter().any(|(shared, _)| shared == key);
                assert!(is_shared || !found.is_empty(), "{key} is in no contract of {types:?}");
                let is_open = |word: &String| matches!(word.as_str(), "public" | "internal");
                assert!(found.iter().all(is_open), "{key} of {types:?} is {found:?}");
            }
        }
    }

    #[test]
    fn what_may_be_asked_for_is_what_contracts_keep_close_and_no_payload() {
        for (key, _) in ASKED_FOR {
            let found: Vec<String> = EventType::ALL.into_iter().flat_map(|of| sensitivity(of, key)).collect();
            assert!(found.iter().any(|word| word != "public" && word != "internal"), "{key}: {found:?}");
        }
    }

    #[test]
    fn keys_go_out_where_they_are_named() {
        let data = json!({ "principal": "ann", "server": "orders", "rpc_response_status_code": -32602, "arguments": { "digest": "x" } });
        let of = |include: &Include| include.of(&data, &[COMMON, OUTCOME]);
        let server = ("cairn.server", Value::Text("orders".to_owned()));
        let code = ("rpc.response.status_code", Value::Text("-32602".to_owned()));
        assert_eq!(of(&Include::default()), [server.clone(), code.clone()]);
        let asked = Include::named(["principal"]).expect("it may be");
        assert_eq!(of(&asked), [server, code, ("cairn.principal", Value::Text("ann".to_owned()))]);
        assert!(Include::named(["arguments"]).expect_err("a payload").contains("principal, task"));
    }
}
