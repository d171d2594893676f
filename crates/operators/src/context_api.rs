//! The admin address's part for the context: freshest versions, changes, who has seen what, workflows and refusals.
//!
//! | request | query | answer |
//! | --- | --- | --- |
//! | `GET /context/resources` | `server`, `uri`, `uri_prefix` | each resource with its freshest known version |
//! | `GET /context/changes` | `since` (needed), `server`, `uri`, `uri_prefix` | what changed, oldest first |
//! | `GET /context/seen` | `agent`, `server`, `uri`, `uri_prefix` | which version was seen last, and whether it is stale |
//! | `GET /context/workflows` | | the workflows that were decided about last |
//! | `GET /context/workflow` | `workflow_id` (needed) | one workflow's decision path |
//! | `GET /context/refusals` | `call_id` or `workflow_id` | why calls were refused |
//!
//! All take `tenant` and `principal` to narrow them down, and those that are lists `limit` and `cursor`. They want the role `view`.

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    routing::get,
};
use serde_json::{Map, Value, json};

use crate::{Admin, ConsumerFault};

/// Members of a query; a question has fewer.
const MEMBERS_MAX: usize = 32;

/// The routes.
pub(crate) fn routes() -> Router<Admin> {
    Router::new().route("/context/{what}", get(asked))
}

async fn asked(
    State(admin): State<Admin>,
    Path(what): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<Value>, ConsumerFault> {
    let Some(consumers) = admin.consumers().cloned() else {
        return Err(ConsumerFault::NoSuch("no gateway runs here, so nothing of its context is known".to_owned()));
    };
    consumers.context(what, members(query)?).await.map(Json)
}

/// A query as a question has it: what is named twice could mean either.
fn members(query: Vec<(String, String)>) -> Result<Map<String, Value>, ConsumerFault> {
    if query.len() > MEMBERS_MAX {
        return Err(ConsumerFault::Refused(format!("the query has more than {MEMBERS_MAX} members")));
    }
    let mut members = Map::new();
    for (key, value) in query {
        if members.insert(key.clone(), json!(value)).is_some() {
            return Err(ConsumerFault::Refused(format!("{key} is there twice: say it once")));
        }
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_twice_is_refused() {
        let query = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let read = members(query(&[("server", "orders"), ("uri", "order://1")])).expect("members");
        assert_eq!(Value::Object(read), json!({ "server": "orders", "uri": "order://1" }));
        let twice = members(query(&[("tenant", "a"), ("tenant", "b")])).expect_err("refused");
        let ConsumerFault::Refused(words) = twice else { panic!("refused") };
        assert!(words.contains("tenant is there twice"), "{words}");
    }
}
