//! Rounds of an `input_required` exchange.
//!
//! What it is: the step from what the client answered to what is asked next. Who calls it: `server`, for tools and
//! prompts alike. It guarantees that state which this process did not seal is refused. It must never keep anything
//! between two requests: all that survives travels in the sealed state.

use rmcp::ErrorData;
use rmcp::model::{ClientCapabilities, InputRequests, InputRequiredResult, InputResponses, RequestStateCodec};
use serde_json::{Map, Value, json};

use crate::fixture::words_of;

/// What the client sent back.
#[derive(Debug)]
pub(crate) struct Answered<'a> {
    pub(crate) responses: Option<&'a InputResponses>,
    pub(crate) state: Option<&'a str>,
    pub(crate) capabilities: ClientCapabilities,
}

/// Adds the words of every answer.
pub(crate) fn collect_words(responses: Option<&InputResponses>, words: &mut Map<String, Value>) {
    for answer in responses.into_iter().flat_map(|responses| responses.values()) {
        words_of(answer, words);
    }
}

/// The result that asks for more, or none when everything is there.
pub(crate) fn next_round(
    does: &Value,
    answered: &Answered<'_>,
    codec: &RequestStateCodec,
) -> Result<Option<InputRequiredResult>, ErrorData> {
    let stateful = does["state"] == true;
    let rounds = does["rounds"].as_array().map(Vec::as_slice).unwrap_or_default();
    let round = opened_round(answered.state, codec)?;
    let at = round.unwrap_or(0).min(rounds.len().saturating_sub(1));
    let wanted: Vec<_> = rounds[at]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, ask)| does["onlyCapable"] != true || is_capable(ask, &answered.capabilities))
        .collect();
    let is_answered =
        |key: &str| answered.responses.and_then(|responses| responses.get(key)).is_some_and(Value::is_object);
    let complete = (!stateful || round.is_some()) && wanted.iter().all(|(key, _)| is_answered(key));
    if complete && at + 1 >= rounds.len() {
        return Ok(None);
    }
    let next = if complete { at + 1 } else { at };
    let asks: Vec<_> = if complete { rounds[next].as_object().into_iter().flatten().collect() } else { wanted };
    let mut requests = InputRequests::new();
    for (key, ask) in asks {
        requests.insert(key.clone(), serde_json::from_value(ask.clone()).map_err(internal)?);
    }
    let state = if stateful { Some(codec.seal_json(&json!({ "round": next })).map_err(internal)?) } else { None };
    Ok(Some(InputRequiredResult::new(Some(requests), state)))
}

fn opened_round(state: Option<&str>, codec: &RequestStateCodec) -> Result<Option<usize>, ErrorData> {
    let Some(sealed) = state else { return Ok(None) };
    let refused = |_| ErrorData::invalid_params("the request state is not this server's", None);
    let opened: Value = codec.open_json(sealed).map_err(refused)?;
    Ok(Some(opened["round"].as_u64().and_then(|round| usize::try_from(round).ok()).unwrap_or(0)))
}

fn is_capable(ask: &Value, capabilities: &ClientCapabilities) -> bool {
    match ask["method"].as_str() {
        Some("elicitation/create") => capabilities.elicitation.is_some(),
        Some("sampling/createMessage") => capabilities.sampling.is_some(),
        _ => capabilities.roots.is_some(),
    }
}

/// An error of the fixture itself.
pub(crate) fn internal(error: impl std::fmt::Display) -> ErrorData {
    ErrorData::internal_error(error.to_string(), None)
}
