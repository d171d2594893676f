//! Where a browser comes back to after somebody logged in to a server: `/oauth/callback`.
//!
//! The state that it brings is the only thing that opens anything here: Cairn gave it to an operator within the URL of a
//! login, so nobody else's browser can bring one that counts (login CSRF). The page says how it went, in words of Cairn's
//! own; must never repeat what came in, and never show a token.

use bytes::Bytes;
use cairn_credentials::Callback;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};

use super::http::Body;
use crate::Gateway;

/// The path.
pub(super) const PATH: &str = "/oauth/callback";
/// Longest value that is taken.
const VALUE_BYTES_MAX: usize = 4_096;

/// Finishes the login that this request belongs to.
pub(super) async fn answer(gateway: &Gateway, method: &Method, query: Option<&str>) -> Response<Body> {
    if method != Method::GET {
        return page(StatusCode::METHOD_NOT_ALLOWED, "A browser comes here with GET.");
    }
    let Some(callback) = callback(query.unwrap_or_default()) else {
        return page(StatusCode::BAD_REQUEST, "This is no answer to a login. Begin one with: cairn login NAME");
    };
    match gateway.credentials().finish(callback).await {
        Ok(server) => {
            tracing::info!(%server, "somebody logged in to the server");
            page(StatusCode::OK, &format!("Cairn is logged in to {server}. You can close this page."))
        }
        Err(error) => {
            tracing::warn!(%error, "a login failed");
            page(StatusCode::BAD_REQUEST, "The login failed. The terminal that began it says why.")
        }
    }
}

/// What an authorization server adds to the address (RFC 6749 section 4.1.2, RFC 9207). A name that comes twice is refused.
fn callback(query: &str) -> Option<Callback> {
    let mut found = Callback { state: String::new(), code: None, issuer: None };
    let mut seen = Vec::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if !matches!(&*name, "state" | "code" | "iss") {
            continue;
        }
        if value.len() > VALUE_BYTES_MAX || seen.contains(&name) {
            return None;
        }
        match &*name {
            "state" => found.state = value.into_owned(),
            "code" => found.code = Some(value.into_owned()),
            _ => found.issuer = Some(value.into_owned()),
        }
        seen.push(name);
    }
    (!found.state.is_empty()).then_some(found)
}

fn page(status: StatusCode, words: &str) -> Response<Body> {
    let body = Full::new(Bytes::from(format!("{words}\n"))).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    for (name, value) in [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        // The address holds a code: it must not go on to another page.
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_a_state_or_with_two_is_none() {
        assert!(callback("code=a").is_none());
        assert!(callback("code=a&state=").is_none());
        assert!(callback("code=a&state=b&state=c").is_none());
        assert!(callback(&format!("state={}", "x".repeat(5_000))).is_none());
        let found = callback("code=a%20b&state=c&iss=https%3A%2F%2Fas.example&other=1&other=2").expect("an answer");
        assert_eq!((found.code.as_deref(), found.state.as_str()), (Some("a b"), "c"));
        assert_eq!(found.issuer.as_deref(), Some("https://as.example"));
        assert!(callback("error=access_denied&state=c").expect("a no is an answer").code.is_none());
    }
}
