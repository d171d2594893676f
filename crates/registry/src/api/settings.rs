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
    subjects::held,
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

/// The same where something is set: a name that is reserved or has control characters is none.
fn writable(text: &str) -> Result<Option<Subject>, Refusal> {
    let scope = scope(text);
    let fits = |subject: &Subject| !["__GLOBAL", "__EMPTY"].contains(&subject.name());
    if text.chars().any(char::is_control) || scope.as_ref().is_some_and(|subject| !fits(subject)) {
        return Err(Refusal::invalid_subject(&text.chars().take(64).collect::<String>()));
    }
    Ok(scope)
}

/// A configuration as it is answered: one that names no level has the usual one.
fn whole(config: &Config) -> Config {
    let compatibility_level = config.compatibility_level.or_else(|| Some(Level::default()));
    Config { compatibility_level, ..config.clone() }
}

fn global(registry: &Registry) -> Config {
    whole(registry.0.state.read().config(None).unwrap_or(&Config::default()))
}

async fn global_config(State(registry): Within) -> Answer {
    answer(&json!(global(&registry)))
}

async fn set_global_config(State(registry): Within, asked: Asked, body: Bytes) -> Answer {
    configured(&registry, None, &body, &asked).await
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
        Some(config) => answer(&json!(whole(config))),
        None => Err(Refusal::no_level(&scope.to_string())),
    }
}

async fn configured(registry: &Registry, scope: Option<Subject>, body: &[u8], asked: &Asked) -> Answer {
    let before = registry.0.state.read().config(scope.as_ref()).cloned();
    let config = bodies::config(body, before, asked)?;
    registry.configure(scope, Some(config.clone())).await?;
    // What counts now, in the words of a request.
    let mut shown = json!(config);
    if let Some(members) = shown.as_object_mut()
        && let Some(level) = members.remove("compatibilityLevel")
    {
        members.insert("compatibility".to_owned(), level);
    }
    answer(&shown)
}

async fn set_config(State(registry): Within, Path(subject): Path<String>, asked: Asked, body: Bytes) -> Answer {
    configured(&registry, writable(&subject)?, &body, &asked).await
}

async fn delete_config(State(registry): Within, Path(subject): Path<String>) -> Answer {
    let Some(scope) = scope(&subject) else { return delete_global_config(State(registry)).await };
    if registry.0.state.read().config(Some(&scope)).is_none() {
        return Err(Refusal::no_subject(&scope.to_string()));
    }
    answer(&json!(registry.configure(Some(scope), None).await?.as_ref().map(whole)))
}

fn of_mode(mode: impl Into<Option<Mode>>) -> Answer {
    answer(&json!({ "mode": mode.into() }))
}

async fn global_mode(State(registry): Within) -> Answer {
    of_mode(registry.0.state.read().mode(None).unwrap_or_default())
}

async fn set_global_mode(State(registry): Within, asked: Asked, body: Bytes) -> Answer {
    let mode = bodies::mode(&body)?;
    registry.set_mode(None, mode, asked.flag("force")).await?;
    of_mode(mode)
}

async fn delete_global_mode(State(registry): Within, asked: Asked) -> Answer {
    if asked.flag("recursive") {
        forget_modes(&registry, DEFAULT_CONTEXT).await?;
    }
    of_mode(registry.set_mode(None, None, true).await?.unwrap_or_default())
}

/// Removes the modes of every subject of a context.
async fn forget_modes(registry: &Registry, context: &str) -> Result<(), Refusal> {
    let within: Vec<Subject> = {
        let state = registry.0.state.read();
        state.modes().filter(|held| held.context() == context && !held.name().is_empty()).cloned().collect()
    };
    for subject in within {
        registry.set_mode(Some(subject), None, true).await?;
    }
    Ok(())
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
    registry.set_mode(writable(&subject)?, mode, asked.flag("force")).await?;
    of_mode(mode)
}

async fn delete_mode(State(registry): Within, Path(subject): Path<String>, asked: Asked) -> Answer {
    let Some(scope) = scope(&subject) else { return delete_global_mode(State(registry), asked).await };
    let before = registry.0.state.read().mode(Some(&scope));
    let recursive = asked.flag("recursive");
    if before.is_none() && !recursive {
        return Err(Refusal::no_subject(&scope.to_string()));
    }
    if recursive && scope.name().is_empty() {
        forget_modes(&registry, scope.context()).await?;
    }
    if before.is_some() {
        registry.set_mode(Some(scope), None, true).await?;
    }
    of_mode(before)
}

/// Whether it fits. Where words are wanted, a schema that is none does not, and the words say why.
fn verdict(found: Result<Vec<String>, Refusal>, asked: &Asked) -> Answer {
    let verbose = asked.flag("verbose");
    let messages = match found {
        Err(refusal) if verbose && refusal.code == 42201 => vec![refusal.message],
        found => found?,
    };
    let mut shown = json!({ "is_compatible": messages.is_empty() });
    if verbose {
        shown["messages"] = json!(messages);
    }
    answer(&shown)
}

async fn fits_all(State(registry): Within, Path(subject): Path<String>, asked: Asked, body: Bytes) -> Answer {
    let offer = bodies::offer(&body, &asked)?;
    verdict(registry.fits(Subject::parse(&subject), None, offer).await, &asked)
}

async fn fits(
    State(registry): Within,
    Path((subject, version)): Path<(String, String)>,
    asked: Asked,
    body: Bytes,
) -> Answer {
    let (subject, which) = (Subject::parse(&subject), Which::parse(&version)?);
    let offer = bodies::offer(&body, &asked)?;
    let meant = registry.meant(subject.clone());
    let against = held(&registry.0.state.read(), &meant, which, false);
    // With nothing there, everything fits with the latest.
    if let (None, Which::Number(number)) = (&against, which) {
        return Err(Refusal::no_version(number));
    }
    verdict(registry.fits(subject, Some(against.into_iter().collect()), offer).await, &asked)
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
