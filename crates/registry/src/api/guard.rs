//! Who may ask at all: `Host` and `Origin` as the admin address checks them, and a secret where one is set.
//!
//! A secret is sent as HTTP Basic, as Confluent's clients do with `basic.auth.user.info`, or as a bearer token. It is kept as
//! a digest and compared in constant time.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::Refusal;

/// What somebody must know.
#[derive(Clone)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Keeps a secret's digest.
    #[must_use]
    pub fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret).into())
    }

    fn is(&self, given: &str) -> bool {
        let given: [u8; 32] = Sha256::digest(given).into();
        self.0.ct_eq(&given).into()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// Whether a request's `Origin` and `Host` are let in, given its headers and the authority of its URI; in words why not.
pub type Names = Arc<dyn Fn(&HeaderMap, Option<&str>) -> Result<(), String> + Send + Sync>;

/// Who is let in.
#[derive(Clone)]
pub struct Guard {
    names: Names,
    users: Arc<BTreeMap<String, Secret>>,
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard").field("users", &self.users.len()).finish_non_exhaustive()
    }
}

impl Guard {
    /// Under these names; without users, everybody.
    #[must_use]
    pub fn new(names: Names, users: BTreeMap<String, Secret>) -> Self {
        Self { names, users: Arc::new(users) }
    }

    fn knows(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if let Some(token) = given.strip_prefix("Bearer ") {
            // All are compared, so that time does not tell whose it was.
            return self.users.values().filter(|secret| secret.is(token.trim())).count() > 0;
        }
        let Some(pair) = given.strip_prefix("Basic ").and_then(|pair| STANDARD.decode(pair.trim()).ok()) else {
            return false;
        };
        let pair = String::from_utf8_lossy(&pair).into_owned();
        let Some((name, secret)) = pair.split_once(':') else { return false };
        self.users.get(name).is_some_and(|known| known.is(secret))
    }
}

pub(super) async fn admit(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
    if let Err(fault) = (guard.names)(request.headers(), authority.as_deref()) {
        return Refusal { status: StatusCode::FORBIDDEN, code: 40301, message: fault }.into_response();
    }
    if !guard.users.is_empty() && !guard.knows(request.headers()) {
        let message = "User cannot be authenticated: send a name and its secret of [registry.users]".to_owned();
        let mut response = Refusal { status: StatusCode::UNAUTHORIZED, code: 40101, message }.into_response();
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"registry\""));
        return response;
    }
    next.run(request).await
}
