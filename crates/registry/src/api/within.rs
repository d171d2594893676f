//! A context in the path: `/contexts/{context}/…` is the rest of the path within that context.
//!
//! Clients are given such an address in the place of the registry's, and name contexts nowhere else. So the context goes before
//! each subject in the path that names none, and into `subject` and `subjectPrefix` where the path has no subject.

use axum::{
    Router,
    body::Body,
    http::{Request, Uri},
    response::Response,
};
use tower_service::Service;

use crate::Refusal;

/// Answers a request as one within its context.
pub(super) async fn serve(mut served: Router, request: Request<Body>) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let rewritten = rewritten(parts.uri.path(), parts.uri.query().unwrap_or_default());
    let uri = rewritten.and_then(|uri| uri.parse::<Uri>().ok()).ok_or_else(Refusal::no_route)?;
    // A new request: this one carries what the outer route found in its path.
    let mut inner = Request::new(body);
    (*inner.method_mut(), *inner.uri_mut(), *inner.headers_mut()) = (parts.method, uri, parts.headers);
    match served.call(inner).await {
        Ok(response) => Ok(response),
        Err(never) => match never {},
    }
}

/// The path and the parameters without the context, which is where it belongs.
fn rewritten(path: &str, query: &str) -> Option<String> {
    let mut segments = path.strip_prefix("/contexts/")?.split('/').filter(|segment| !segment.is_empty());
    let prefix = prefix(segments.next()?);
    let mut rest: Vec<String> = segments.map(str::to_owned).collect();
    let first = rest.first()?.clone();
    let is_setting = first == "config" || first == "mode";
    let subject = if is_setting { Some(0) } else { rest.iter().position(|segment| segment == "subjects") };
    match subject.map(|at| at + 1) {
        Some(at) if at < rest.len() => rest[at] = within(&prefix, &rest[at]),
        Some(_) if is_setting && !prefix.is_empty() => rest.push(prefix.clone()),
        _ => {}
    }
    let parameter = match (first.as_str(), rest.get(1).map(String::as_str), rest.len()) {
        ("schemas", Some("ids"), _) => Some("subject"),
        ("schemas" | "subjects", _, 1) => Some("subjectPrefix"),
        _ => None,
    };
    let mut pairs: Vec<String> = query.split('&').filter(|pair| !pair.is_empty()).map(str::to_owned).collect();
    if let Some(name) = parameter {
        let named = pairs.iter().position(|pair| pair.split('=').next() == Some(name));
        let value = named.map(|at| pairs.remove(at)).unwrap_or_default();
        let value = value.split_once('=').map(|(_, value)| value).unwrap_or_default();
        pairs.push(format!("{name}={}", within(&prefix, value)));
    }
    Some(format!("/{}?{}", rest.join("/"), pairs.join("&")))
}

/// What goes before the subjects of a context; nothing for the default one.
fn prefix(context: &str) -> String {
    let decoded = context.replace("%3A", ":").replace("%3a", ":");
    let bare = decoded.trim_matches(':');
    match bare.strip_prefix('.').unwrap_or(bare) {
        "" => String::new(),
        name => format!(":.{name}:"),
    }
}

/// A subject in a context, unless it names one itself.
fn within(prefix: &str, subject: &str) -> String {
    let lower = subject.to_ascii_lowercase().replace("%3a", ":").replace("%2e", ".").replace("%2a", "*");
    if lower.starts_with(":.") || lower.starts_with(":*:") { subject.to_owned() } else { format!("{prefix}{subject}") }
}

#[cfg(test)]
mod tests {
    use super::rewritten;

    #[test]
    fn a_context_goes_before_subjects_that_name_none() {
        for (path, query, becomes) in [
            ("/contexts/.eu/subjects/s/versions", "", "/subjects/:.eu:s/versions?"),
            ("/contexts/:.eu:/subjects/s%2Ft", "normalize=true", "/subjects/:.eu:s%2Ft?normalize=true"),
            ("/contexts/eu/subjects/%3A.us%3As", "", "/subjects/%3A.us%3As?"),
            ("/contexts/.eu/subjects", "deleted=true", "/subjects?deleted=true&subjectPrefix=:.eu:"),
            ("/contexts/.eu/subjects", "subjectPrefix=a", "/subjects?subjectPrefix=:.eu:a"),
            ("/contexts/.eu/schemas", "", "/schemas?subjectPrefix=:.eu:"),
            ("/contexts/.eu/schemas/ids/7", "subject=s", "/schemas/ids/7?subject=:.eu:s"),
            ("/contexts/.eu/schemas/ids/7/versions", "", "/schemas/ids/7/versions?subject=:.eu:"),
            ("/contexts/.eu/schemas/types", "", "/schemas/types?"),
            ("/contexts/.eu/config", "", "/config/:.eu:?"),
            ("/contexts/.eu/mode/s", "force=true", "/mode/:.eu:s?force=true"),
            (
                "/contexts/.eu/compatibility/subjects/subjects/versions/latest",
                "",
                "/compatibility/subjects/:.eu:subjects/versions/latest?",
            ),
            ("/contexts/:.:/subjects", "", "/subjects?subjectPrefix="),
            ("/contexts/:.:/config", "", "/config?"),
        ] {
            assert_eq!(rewritten(path, query).as_deref(), Some(becomes), "{path}?{query}");
        }
        assert_eq!(rewritten("/contexts/.eu", ""), None);
    }
}
