//! Spans as instrumentations write them: each form says the same of one model call.

use serde_json::json;

use super::*;

fn attributes(value: Value) -> Attributes {
    value.as_object().expect("an object").clone().into_iter().collect()
}

fn span(of: Value) -> Span {
    Span {
        trace_id: [0x4b; 16],
        span_id: [7; 8],
        parent_span_id: Some([6; 8]),
        start_ns: 1_795_521_600_000_000_000,
        end_ns: 1_795_521_600_840_000_000,
        attributes: attributes(of),
        ..Span::default()
    }
}

fn source() -> Source {
    Source {
        resource: attributes(json!({ "service.name": "refunds" })),
        scope: "instrumentation".into(),
        scope_version: "1.0".into(),
    }
}

fn read(of: Value) -> Report {
    of_span(&source(), &span(of)).expect("it is a model call")
}

fn document(bytes: Option<&Vec<u8>>) -> Value {
    serde_json::from_slice(bytes.expect("there is one")).expect("JSON")
}

/// As OpenLLMetry's instrumentation of OpenAI 0.62 writes it.
fn present() -> Value {
    json!({
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-5-mini",
        "gen_ai.input.messages": r#"[{"role": "user", "parts": [{"content": "how is order-1?", "type": "text"}]}]"#,
        "gen_ai.tool.definitions": r#"[{"type": "function", "name": "get_order", "description": "Reads an order.", "parameters": {"type": "object", "properties": {"order_id": {"type": "string"}}}}]"#,
        "gen_ai.response.model": "gpt-5-mini-2025-08-07", "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.response.finish_reasons": ["tool_call"], "gen_ai.usage.total_tokens": 17,
        "gen_ai.usage.input_tokens": 12, "gen_ai.usage.output_tokens": 5,
        "gen_ai.output.messages": r#"[{"role": "assistant", "parts": [{"type": "tool_call", "name": "get_order", "id": "call_1", "arguments": {"order_id": "order-1"}}], "finish_reason": "tool_call"}]"#,
    })
}

/// As it was written as numbered attributes.
fn numbered() -> Value {
    json!({
        "llm.request.type": "chat", "gen_ai.system": "OpenAI", "gen_ai.request.model": "gpt-5-mini",
        "gen_ai.prompt.0.role": "system", "gen_ai.prompt.0.content": "be kind",
        "gen_ai.prompt.10.role": "user", "gen_ai.prompt.10.content": "last",
        "gen_ai.prompt.2.role": "user", "gen_ai.prompt.2.content": "how is order-1?",
        "llm.request.functions.0.name": "get_order", "llm.request.functions.0.description": "Reads an order.",
        "llm.request.functions.0.parameters": r#"{"type": "object", "properties": {"order_id": {"type": "string"}}}"#,
        "gen_ai.completion.0.role": "assistant", "gen_ai.completion.0.finish_reason": "tool_calls",
        "gen_ai.completion.0.tool_calls.0.id": "call_1", "gen_ai.completion.0.tool_calls.0.name": "get_order",
        "gen_ai.completion.0.tool_calls.0.arguments": "{\"order_id\":\"order-1\"}",
        "gen_ai.usage.prompt_tokens": 12, "gen_ai.usage.completion_tokens": 5,
    })
}

fn inference() -> Value {
    json!({
        "openinference.span.kind": "LLM", "llm.model_name": "gpt-5-mini", "llm.provider": "openai",
        "llm.input_messages.0.message.role": "user", "llm.input_messages.0.message.content": "how is order-1?",
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.tool_calls.0.tool_call.id": "call_1",
        "llm.output_messages.0.message.tool_calls.0.tool_call.function.name": "get_order",
        "llm.tools.0.tool.json_schema": r#"{"type": "function", "function": {"name": "get_order", "description": "Reads an order.", "parameters": {"type": "object", "properties": {"order_id": {"type": "string"}}}}}"#,
        "llm.token_count.prompt": 12, "llm.token_count.completion": 5,
    })
}

#[test]
fn every_convention_says_the_same_of_one_call() {
    let definition = json!({
        "name": "get_order", "description": "Reads an order.",
        "inputSchema": { "type": "object", "properties": { "order_id": { "type": "string" } } },
    });
    for (name, told) in [("present", present()), ("numbered", numbered()), ("inference", inference())] {
        let report = read(told);
        assert_eq!(report.request_model.as_deref(), Some("gpt-5-mini"), "{name}");
        assert_eq!(report.provider.as_deref().map(str::to_lowercase).as_deref(), Some("openai"), "{name}");
        assert_eq!((report.input_tokens, report.output_tokens), (Some(12), Some(5)), "{name}");
        assert_eq!(report.chosen, [Chosen { name: "get_order".into(), id: Some("call_1".into()) }], "{name}");
        assert_eq!(
            report.offered,
            [Offered { name: "get_order".into(), definition: Some(definition.clone()) }],
            "{name}"
        );
        assert!(document(report.prompt.as_ref()).to_string().contains("how is order-1?"), "{name}");
        assert!(document(report.output.as_ref())["messages"].is_array() && report.definitions.is_some(), "{name}");
        assert_eq!(report.agent_name.as_deref(), Some("refunds"));
        assert_eq!(report.instrumentation, "instrumentation 1.0");
        assert_eq!((report.started_us, report.elapsed_us), (1_795_521_600_000_000, Some(840_000)));
        assert_eq!(report.parent_span_id.as_deref(), Some("0606060606060606"));
    }
    assert_eq!(read(numbered()).finish_reasons, ["tool_calls"]);
    let messages = document(read(numbered()).prompt.as_ref());
    assert_eq!(messages["messages"][2]["content"], "last", "numbers are ordered as numbers");
}

#[test]
fn other_spans_are_no_model_calls() {
    for told in [
        json!({ "http.request.method": "POST" }),
        json!({ "gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "get_order" }),
        json!({ "gen_ai.operation.name": "invoke_agent", "gen_ai.request.model": "gpt" }),
        json!({ "gen_ai.operation.name": "embeddings", "gen_ai.request.model": "e" }),
        json!({ "openinference.span.kind": "TOOL", "llm.model_name": "gpt" }),
        json!({ "llm.request.type": "embedding", "gen_ai.request.model": "e" }),
        json!({ "traceloop.span.kind": "workflow" }),
    ] {
        assert_eq!(of_span(&source(), &span(told.clone())), None, "{told}");
    }
}

#[test]
fn messages_as_events_of_a_span_are_read() {
    let event = |name: &str, of: Value| Event { name: name.into(), attributes: attributes(of), body: Value::Null };
    let mut before =
        span(json!({ "gen_ai.system": "openai", "gen_ai.request.model": "gpt", "gen_ai.operation.name": "chat" }));
    before.events = vec![
        event("gen_ai.content.prompt", json!({ "gen_ai.prompt": r#"[{"role":"user","content":"hi"}]"# })),
        event(
            "gen_ai.content.completion",
            json!({ "gen_ai.completion": r#"[{"message":{"role":"assistant","tool_calls":[{"id":"c","function":{"name":"f"}}]}}]"# }),
        ),
    ];
    let report = of_span(&source(), &before).expect("a model call");
    assert_eq!(report.chosen, [Chosen { name: "f".into(), id: Some("c".into()) }]);
    assert_eq!(document(report.prompt.as_ref()), json!({ "messages": [{ "role": "user", "content": "hi" }] }));
    before.events = vec![event(DETAILS, present())];
    let report = of_span(&source(), &before).expect("a model call");
    assert_eq!((report.chosen.len(), report.offered.len(), report.input_tokens), (1, 1, Some(12)));
}

#[test]
fn log_records_of_one_span_are_one_report() {
    let record = |name: &str, body: Value| LogRecord {
        trace_id: [0x4b; 16],
        span_id: [7; 8],
        time_ns: 5_000,
        event: Event { name: name.into(), attributes: attributes(json!({ "gen_ai.system": "openai" })), body },
    };
    let choice = json!({ "index": 0, "finish_reason": "tool_calls", "message": { "role": "assistant",
        "tool_calls": [{ "id": "c", "type": "function", "function": { "name": "f", "arguments": "{}" } }] } });
    let records = [
        record("gen_ai.system.message", json!({ "content": "be kind" })),
        record("gen_ai.user.message", json!({ "content": "hi" })),
        record("gen_ai.choice", choice),
    ];
    assert!(records.iter().all(is_of_model_call) && !is_of_model_call(&record("exception", Value::Null)));
    let report = of_logs(&source(), &records).expect("a report");
    assert!(report.is_of_logs && report.provider.as_deref() == Some("openai"));
    assert_eq!(report.chosen, [Chosen { name: "f".into(), id: Some("c".into()) }]);
    assert_eq!(report.finish_reasons, ["tool_calls"]);
    assert_eq!(document(report.prompt.as_ref())["messages"][0], json!({ "content": "be kind", "role": "system" }));
    assert_eq!(of_logs(&source(), &[]), None);
}

#[test]
fn what_is_no_json_stays_a_text_and_odd_forms_do_no_harm() {
    let told = json!({
        "gen_ai.operation.name": "chat", "gen_ai.input.messages": "[broken", "gen_ai.output.messages": "{}",
        "gen_ai.tool.definitions": ["{\"name\":\"a\"}", "{\"function\":{\"name\":\"b\",\"description\":\"d\"}}", "7", "x"],
    });
    let report = read(told);
    assert_eq!(document(report.prompt.as_ref()), json!({ "messages": "[broken" }));
    assert_eq!(report.chosen, []);
    assert_eq!(report.offered.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert!(report.offered[0].definition.is_none() && report.offered[1].definition.is_some());
    let many: Vec<Value> = (0..300).map(|n| json!({ "name": n.to_string() })).collect();
    let report = read(json!({ "gen_ai.operation.name": "chat", "gen_ai.tool.definitions": many }));
    assert_eq!((report.offered.len(), report.offered_more), (256, 44));
    let odd = json!({ "gen_ai.operation.name": "chat", "gen_ai.prompt.0": "a", "gen_ai.prompt.0.role": "b", "gen_ai.prompt.x.y": 1 });
    assert!(read(odd).prompt.is_none());
}
