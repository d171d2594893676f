//! Media types: bodies are JSON, and answers are called what the client asked for.
//!
//! A body of another type is refused with 415, an answer of another type with 406, as Confluent's registry does. The root and
//! the paths of probes answer whatever is asked for.

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::Refusal;

/// What answers are called; the first is preferred.
const MEDIA: [&str; 3] =
    ["application/vnd.schemaregistry.v1+json", "application/vnd.schemaregistry+json", "application/json"];
/// Paths that probes and people ask.
const FOR_ALL: [&str; 2] = ["/", "/master_available"];

/// Takes bodies that are JSON only, and calls answers what the client asked for.
pub(super) async fn negotiate(request: Request, next: Next) -> Response {
    let chosen = chosen(request.headers());
    let has_body = [Method::POST, Method::PUT].contains(request.method());
    let mut response = if has_body && !is_json(request.headers()) {
        refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, "HTTP 415 Unsupported Media Type")
    } else if chosen.is_none() && !FOR_ALL.contains(&request.uri().path()) {
        refused(StatusCode::NOT_ACCEPTABLE, "HTTP 406 Not Acceptable")
    } else {
        next.run(request).await
    };
    let kind = response.headers().get(header::CONTENT_TYPE);
    if kind.is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain")) {
        let chosen = HeaderValue::from_static(chosen.unwrap_or(MEDIA[0]));
        response.headers_mut().insert(header::CONTENT_TYPE, chosen);
    }
    // What axum itself refuses has no code of Confluent's.
    if response.status() == StatusCode::PAYLOAD_TOO_LARGE {
        *response.body_mut() =
            Body::from(json!({ "error_code": 413, "message": "The request's body is too large" }).to_string());
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    response
}

fn refused(status: StatusCode, message: &str) -> Response {
    Refusal { status, code: status.as_u16().into(), message: message.to_owned() }.into_response()
}

/// Whether a body may be JSON: one that says nothing may.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(sent) = headers.get(header::CONTENT_TYPE) else { return true };
    let sent = sent.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    MEDIA.contains(&sent.as_str()) || ["application/octet-stream", "*/*", ""].contains(&sent.as_str())
}

/// What an answer is called: of the types that are accepted with the highest weight the first of ours; none where none is.
fn chosen(headers: &HeaderMap) -> Option<&'static str> {
    let accepted: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let ranges: Vec<(String, f32)> = accepted.iter().flat_map(|value| value.split(',')).filter_map(range).collect();
    if ranges.is_empty() {
        return Some(MEDIA[0]);
    }
    let weight = |media: &str| {
        let of = ranges.iter().filter(|(range, _)| takes(range, media)).map(|(_, weight)| *weight);
        of.fold(0.0, f32::max)
    };
    let most = MEDIA.iter().map(|media| weight(media)).fold(0.0, f32::max);
    MEDIA.into_iter().find(|media| most > 0.0 && weight(media) >= most)
}

/// A range of media types with its weight.
fn range(text: &str) -> Option<(String, f32)> {
    let mut parts = text.split(';').map(str::trim);
    let range = parts.next().filter(|range| !range.is_empty())?.to_ascii_lowercase();
    let weight = parts.find_map(|part| part.strip_prefix("q=")).and_then(|weight| weight.trim().parse().ok());
    Some((range, weight.unwrap_or(1.0)))
}

fn takes(range: &str, media: &str) -> bool {
    range.starts_with('*') || range == media || range == "application/*"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_called_what_is_accepted_with_the_highest_weight() {
        let chosen = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().expect("a value"));
            chosen(&headers)
        };
        let [v1, plain, json] = MEDIA;
        for (accept, called) in [
            ("", Some(v1)),
            ("*/*", Some(v1)),
            ("*", Some(v1)),
            ("application/*", Some(v1)),
            ("application/json", Some(json)),
            ("application/json, text/plain, */*", Some(v1)),
            ("text/html, image/gif; q=.2, */*; q=.2", Some(v1)),
            ("application/vnd.schemaregistry.v2+json; q=0.1, application/vnd.schemaregistry+json; q=0.9", Some(plain)),
            ("application/json;q=0.9, application/vnd.schemaregistry.v1+json;q=0.2", Some(json)),
            ("application/vnd.schemaregistry.v2+json", None),
            ("text/*", None),
            ("application/octet-stream", None),
            ("application/json;q=0", None),
        ] {
            assert_eq!(chosen(accept), called, "{accept}");
        }
    }
}
