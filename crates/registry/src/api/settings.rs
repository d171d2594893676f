//! `/config`, `/mode`, `/compatibility` and `/contexts`.

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    response::IntoResponse,
    routing::get,
};
use serde_json::{Value, json};

use super::{
    Answer, Within, answer, bodies, posts,
    query::{Asked, Which},
    subjects::find,
};
use crate::{
    DEFAULT_CONTEXT, Refusal, Registry, Subject,
    model::{Config, Level, Mode},
    names::GLOBAL_CONTEXT,
};

pub(super) fn routes() -> Router<Registry> {
    Router::new()
        .route("/config", get(global_config).put(set_global_config).delete(delete_global_config))
        .route("/config/{subject}", get(config).put(set_config).delete(delete_config))
        .route("/mode", get(global_mode).put(set_global_mode).delete(delete_global_mode))
        .route("/mode/{subject}", get(mode).put(set_mode).delete(delete_mode))
        .route("/compatibility/subjects/{subject}/versions", posts(fits_all))
        .route("/compatibility/subjects/{subject}/versions/{version}", posts(fits))
        .route("/contexts", get(contexts))
        .route("/contexts/{context}", axum::routing::delete(delete_context))
}

/// What a path names: a subject, a context, or everything where it names the default or the global context.
fn scope(text: &str) -> Option<Subject> {
    let subject = Subject::parse(text);
    let everything = subject.name().is_empty() && [DEFAULT_CONTEXT, GLOBAL_CONTEXT].contains(&subject.context());
    (!everything && text != "__GLOBAL").then_some(subject)
}

fn global(registry: &Registry) -> Config {
    let state = registry.0.state.read();
    let mut config = state.config(None).cloned().unwrap_or_default();
    config.compatibility_level.get_or_insert(Level::default());
    config
}

async fn global_config(State(registry): Within) -> Answer {
    answer(&json!(global(&registry)))
}

async fn set_global_config(State(registry): Within, body: Bytes) -> Answer {
    configured(&registry, None, &body).await
}

async fn delete_global_config(State(registry): Within) -> Answer {
    let before = global(&registry);
    registry.configure(None, None).await?;
    answer(&json!(before))
}

async fn config(State(registry): Within, Path(subject): Path<String>, asked: Asked) -> Answer {
    let Some(scope) = scope(&subject) else { return answer(&json!(global(&registry))) };
    let state = registry.0.state.read();
    match state.config(Some(&scope)) {
        // What is wider is asked for whole.
        _ if asked.flag("defaultToGlobal") => {
            let mut effective = state.effective(&scope);
            effective.compatibility_policy =
                effective.compatibility_policy.filter(|policy| *policy != Default::default());
            answer(&json!(effective))
        }
        Some(config) => answer(&json!(config)),
        None => Err(Refusal::no_level(&scope.to_string())),
    }
}

async fn configured(registry: &Registry, scope: Option<Subject>, body: &[u8]) -> Answer {
    let before = registry.0.state.read().config(scope.as_ref()).cloned();
    let (config, echoed) = bodies::config(body, before)?;
    registry.configure(scope, Some(config)).await?;
    answer(&echoed)
}

async fn set_config(State(registry): Within, Path(subject): Path<String>, body: Bytes) -> Answer {
    configured(&registry, scope(&subject), &body).await
}

async fn delete_config(State(registry): Within, Path(subject): Path<String>) -> Answer {
    let Some(scope) = scope(&subject) else { return delete_global_config(State(registry)).await };
    if registry.0.state.read().config(Some(&scope)).is_none() {
        return Err(Refusal::no_subject(&scope.to_string()));
    }
    answer(&json!(registry.configure(Some(scope), None).await?))
}

fn of_mode(mode: Mode) -> Answer {
    answer(&json!({ "mode": mode }))
}

async fn global_mode(State(registry): Within) -> Answer {
    of_mode(registry.0.state.read().mode(None).unwrap_or_default())
}

async fn set_global_mode(State(registry): Within, asked: Asked, body: Bytes) -> Answer {
    let mode = bodies::mode(&body)?;
    registry.set_mode(None, Some(mode), asked.flag("force")).await?;
    of_mode(mode)
}

async fn delete_global_mode(State(registry): Within) -> Answer {
    of_mode(registry.set_mode(None, None, true).await?.unwrap_or_default())
}

async fn mode(State(registry): Within, Path(subject): Path<String>, asked: Asked) -> Answer {
    let Some(scope) = scope(&subject) else { return global_mode(State(registry)).await };
    let state = registry.0.state.read();
    match state.mode(Some(&scope)) {
        _ if asked.flag("defaultToGlobal") => of_mode(state.effective_mode(&scope)),
        Some(mode) => of_mode(mode),
        None => Err(Refusal::no_mode(&scope.to_string())),
    }
}

async fn set_mode(State(registry): Within, Path(subject): Path<String>, asked: Asked, body: Bytes) -> Answer {
    let mode = bodies::mode(&body)?;
    registry.set_mode(scope(&subject), Some(mode), asked.flag("force")).await?;
    of_mode(mode)
}

async fn delete_mode(State(registry): Within, Path(subject): Path<String>, asked: Asked) -> Answer {
    let Some(scope) = scope(&subject) else { return delete_global_mode(State(registry)).await };
    let within: Vec<Subject> = {
        let state = registry.0.state.read();
        let of_context = |held: &&Subject| held.context() == scope.context() && **held != scope;
        let whole = asked.flag("recursive") && scope.name().is_empty();
        state.modes().filter(of_context).filter(|_| whole).cloned().collect()
    };
    let before = registry.0.state.read().mode(Some(&scope));
    for subject in within {
        registry.set_mode(Some(subject), None, true).await?;
    }
    let before = before.ok_or_else(|| Refusal::no_subject(&scope.to_string()))?;
    registry.set_mode(Some(scope), None, true).await?;
    of_mode(before)
}

fn verdict(messages: Vec<String>, asked: &Asked) -> Answer {
    let mut shown = json!({ "is_compatible": messages.is_empty() });
    if asked.flag("verbose") && !messages.is_empty() {
        shown["messages"] = json!(messages);
    }
    answer(&shown)
}

async fn fits_all(State(registry): Within, Path(subject): Path<String>, asked: Asked, body: Bytes) -> Answer {
    let offer = bodies::offer(&body, asked.flag("normalize"))?;
    verdict(registry.fits(Subject::parse(&subject), None, offer).await?, &asked)
}

async fn fits(
    State(registry): Within,
    Path((subject, version)): Path<(String, String)>,
    asked: Asked,
    body: Bytes,
) -> Answer {
    let (subject, which) = (Subject::parse(&subject), Which::parse(&version)?);
    let offer = bodies::offer(&body, asked.flag("normalize"))?;
    let against = find(&registry, subject.clone(), which, false)?;
    verdict(registry.fits(subject, Some(against), offer).await?, &asked)
}

async fn contexts(State(registry): Within, asked: Asked) -> Answer {
    let prefix = asked.text("contextPrefix").unwrap_or_default();
    let state = registry.0.state.read();
    let names = state.contexts().filter(|context| context.starts_with(prefix)).map(|context| json!(context));
    answer(&Value::Array(asked.page(names)?))
}

async fn delete_context(State(registry): Within, Path(context): Path<String>) -> Answer {
    let context = context.trim_matches(':');
    registry.delete_context(context).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
