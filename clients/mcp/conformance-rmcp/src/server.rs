//! The server: each MCP method answered from the fixture.
//!
//! Who calls it: rmcp, once a message. It guarantees that a name not in the fixture is refused as the
//! specification says. It must never reach outside the fixture.
#![allow(deprecated, reason = "legacy sampling, logging and roots are what the older revision's scenarios exercise")]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rmcp::model::{
    CacheScope, CallToolRequestParams, CallToolResponse, CallToolResult, ClientCapabilities, CompleteRequestParams,
    CompleteResult, CompletionInfo, GetPromptRequestParams, GetPromptResponse, GetPromptResult, Implementation,
    ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, LoggingLevel,
    LoggingMessageNotificationParam, PaginatedRequestParams, ProgressNotificationParam, ReadResourceRequestParams,
    ReadResourceResponse, ReadResourceResult, RequestStateCodec, ServerCapabilities, ServerInfo, SetLevelRequestParams,
    SubscribeRequestParams, SubscriptionFilter, Tool, UnsubscribeRequestParams,
};
use rmcp::service::{RequestContext, SubscriptionContext, SubscriptionSink};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;

use crate::fixture::{Fixture, fill, without, words_of};
use crate::rounds::{Answered, collect_words, internal, next_round};

/// How long it pauses between two notifications, so that they arrive apart.
const PAUSE: Duration = Duration::from_millis(20);
/// Signs the state of rounds: a fixture for tests has no secret to keep.
const STATE_KEY: &[u8] = b"a conformance fixture has no secret to keep";

/// Answers from the fixture; cheap to clone, one for each session.
#[derive(Clone)]
pub(crate) struct FixtureServer {
    fixture: Fixture,
    codec: RequestStateCodec,
    listeners: Arc<Mutex<HashMap<u64, SubscriptionSink>>>,
    next_listener: Arc<AtomicU64>,
}

impl FixtureServer {
    /// Loads the fixture.
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            fixture: Fixture::load()?,
            codec: RequestStateCodec::new_unchecked(STATE_KEY),
            listeners: Arc::default(),
            next_listener: Arc::default(),
        })
    }

    async fn ask(&self, ask: &Value, context: &RequestContext<RoleServer>) -> Result<Value, ErrorData> {
        let params = ask["params"].clone();
        let answer = if ask["method"] == "sampling/createMessage" {
            let params = serde_json::from_value(params).map_err(internal)?;
            serde_json::to_value(context.peer.create_message(params).await.map_err(internal)?)
        } else {
            let params = serde_json::from_value(params).map_err(internal)?;
            serde_json::to_value(context.peer.create_elicitation(params).await.map_err(internal)?)
        };
        answer.map_err(internal)
    }

    /// Log lines and progress that a tool sends before it answers.
    async fn notify(&self, does: &Value, context: &RequestContext<RoleServer>) {
        for line in does["log"].as_array().into_iter().flatten() {
            self.log(LoggingLevel::Info, line.clone(), context).await;
            tokio::time::sleep(PAUSE).await;
        }
        if let (Some(level), Some(line)) = (context.meta.log_level(), does.get("logIfAsked")) {
            self.log(level, line.clone(), context).await;
        }
        let Some(token) = context.meta.get_progress_token() else { return };
        for progress in does["progress"].as_array().into_iter().flatten().filter_map(Value::as_f64) {
            let note = ProgressNotificationParam::new(token.clone(), progress).with_total(100.0);
            let _ = context.peer.notify_progress(note).await;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Tells every subscriber that a list changed.
    async fn trigger(&self, list: &Value) {
        let listeners: Vec<_> = self.listeners.lock().await.values().cloned().collect();
        for listener in listeners {
            let _ = if list == "tools" {
                listener.notify_tool_list_changed().await
            } else {
                listener.notify_prompt_list_changed().await
            };
        }
    }

    async fn log(&self, level: LoggingLevel, line: Value, context: &RequestContext<RoleServer>) {
        let note = LoggingMessageNotificationParam::new(level, line).with_logger(self.fixture.text("name"));
        let _ = context.peer.notify_logging_message(note).await;
    }
}

impl ServerHandler for FixtureServer {
    fn get_info(&self) -> ServerInfo {
        let capabilities = ServerCapabilities::builder()
            .enable_prompts()
            .enable_prompts_list_changed()
            .enable_resources()
            .enable_resources_subscribe()
            .enable_tools()
            .enable_tool_list_changed()
            .enable_completions()
            .enable_logging()
            .build();
        ServerInfo::new(capabilities)
            .with_server_info(Implementation::new(self.fixture.text("name"), self.fixture.text("version")))
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(requested.supported_by(&self.get_info().capabilities))
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let key = self.next_listener.fetch_add(1, Ordering::Relaxed);
        self.listeners.lock().await.insert(key, context.sink().clone());
        context.cancelled().await;
        self.listeners.lock().await.remove(&key);
        Ok(())
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let tools = serde_json::from_value(self.fixture.public("tools", &["does"]).into()).map_err(internal)?;
        let result = ListToolsResult { tools, ..Default::default() };
        Ok(result.with_ttl_ms(self.fixture.cache_ttl_ms()).with_cache_scope(CacheScope::Public))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        serde_json::from_value(without(self.fixture.find("tools", "name", name)?, &["does"])).ok()
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let unknown = || ErrorData::invalid_params(format!("unknown tool {}", request.name), None);
        let does = &self.fixture.find("tools", "name", &request.name).ok_or_else(unknown)?["does"];
        let mut words = request.arguments.clone().unwrap_or_default();
        let capabilities = context.meta.client_capabilities().unwrap_or_default();
        if does["requires"] == "sampling" && capabilities.sampling.is_none() {
            let needed = ClientCapabilities::builder().enable_sampling().build();
            return Err(ErrorData::missing_required_client_capability(needed));
        }
        self.notify(does, &context).await;
        if let Some(list) = does.get("trigger") {
            self.trigger(list).await;
        }
        if let Some(ask) = does.get("ask") {
            words_of(&self.ask(&fill(ask, &words), &context).await?, &mut words);
        }
        if does.get("rounds").is_some() {
            let (responses, state) = (request.input_responses.as_ref(), request.request_state.as_deref());
            if let Some(more) = next_round(does, &Answered { responses, state, capabilities }, &self.codec)? {
                return Ok(more.into());
            }
            collect_words(responses, &mut words);
        }
        let content = serde_json::from_value(fill(&does["reply"], &words)).map_err(internal)?;
        let failed = does["isError"] == true;
        Ok(if failed { CallToolResult::error(content) } else { CallToolResult::success(content) }.into())
    }

    async fn list_prompts(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        let listed = self.fixture.public("prompts", &["messages", "rounds"]);
        let result = ListPromptsResult {
            prompts: serde_json::from_value(listed.into()).map_err(internal)?,
            ..Default::default()
        };
        Ok(result.with_ttl_ms(self.fixture.cache_ttl_ms()).with_cache_scope(CacheScope::Public))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let unknown = || ErrorData::invalid_params(format!("unknown prompt {}", request.name), None);
        let prompt = self.fixture.find("prompts", "name", &request.name).ok_or_else(unknown)?;
        let mut words = Map::new();
        if let Value::Object(given) = serde_json::to_value(&request.arguments).map_err(internal)? {
            words.extend(given);
        }
        if prompt.get("rounds").is_some() {
            let (responses, state) = (request.input_responses.as_ref(), request.request_state.as_deref());
            let capabilities = context.meta.client_capabilities().unwrap_or_default();
            if let Some(more) = next_round(prompt, &Answered { responses, state, capabilities }, &self.codec)? {
                return Ok(more.into());
            }
            collect_words(responses, &mut words);
        }
        let messages = serde_json::from_value(fill(&prompt["messages"], &words)).map_err(internal)?;
        let description = prompt["description"].as_str().unwrap_or_default();
        Ok(GetPromptResult::new(messages).with_description(description).into())
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let listed = self.fixture.public("resources", &["text", "blob"]);
        let resources = serde_json::from_value(listed.into()).map_err(internal)?;
        let result = ListResourcesResult { resources, ..Default::default() };
        Ok(result.with_ttl_ms(self.fixture.cache_ttl_ms()).with_cache_scope(CacheScope::Public))
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let template = without(self.fixture.template(), &["text"]);
        let resource_templates = vec![serde_json::from_value(template).map_err(internal)?];
        let result = ListResourceTemplatesResult { resource_templates, ..Default::default() };
        Ok(result.with_ttl_ms(self.fixture.cache_ttl_ms()).with_cache_scope(CacheScope::Public))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let uri = request.uri.as_str();
        let id = uri.strip_prefix("test://template/").and_then(|rest| rest.strip_suffix("/data"));
        let contents = if let Some(resource) = self.fixture.find("resources", "uri", uri) {
            without(resource, &["name", "description"])
        } else if let Some(id) = id {
            let template = self.fixture.template();
            let words = Map::from_iter([("id".to_owned(), Value::from(id))]);
            json!({ "uri": uri, "mimeType": template["mimeType"], "text": fill(&template["text"], &words) })
        } else {
            return Err(ErrorData::resource_not_found(format!("no resource {uri}"), Some(json!({ "uri": uri }))));
        };
        let result = ReadResourceResult::new(vec![serde_json::from_value(contents).map_err(internal)?]);
        Ok(result.with_ttl_ms(self.fixture.cache_ttl_ms()).with_cache_scope(CacheScope::Public).into())
    }

    async fn subscribe(&self, _: SubscribeRequestParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn unsubscribe(&self, _: UnsubscribeRequestParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn complete(
        &self,
        _: CompleteRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        Ok(CompleteResult::new(CompletionInfo::new(Vec::new()).map_err(internal)?))
    }

    async fn set_level(&self, _: SetLevelRequestParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        Ok(())
    }
}
