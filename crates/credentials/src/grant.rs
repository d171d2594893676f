//! One request to a token endpoint (RFC 6749 section 4.4, RFC 8693, RFC 7523): how the client proves itself there, and what
//! comes back. Called by `sources/`. The flow with a person is `rmcp`'s (`person.rs`).
//!
//! A request is sent once. Must never repeat a word of the answer but OAuth's own error codes.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use cairn_clock::{Clock, Entropy};
use http::{
    HeaderValue, Request,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use serde::Deserialize;
use url::{Url, form_urlencoded};

use crate::{
    CredentialError, Secret,
    assertion::assertion,
    guarded::GuardedClient,
    options::{ClientProof, ClientSecretWay},
    token::Token,
};

/// The error codes that OAuth and its extensions define for token endpoints: nothing else of an answer is shown.
const CODES: [&str; 12] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "invalid_target",
    "access_denied",
    "interaction_required",
    "insufficient_user_authentication",
    "temporarily_unavailable",
    "server_error",
];

/// Where tokens are given, and what is known of it.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) url: Url,
    /// The issuer, whose audience a signed statement is for.
    pub(crate) issuer: Option<String>,
    /// Ways to prove a client that it says it takes; none where it says nothing.
    pub(crate) methods: Option<Vec<String>>,
}

/// What a token endpoint gave.
#[derive(Deserialize)]
pub(crate) struct Granted {
    access_token: String,
    token_type: Option<String>,
    expires_in: Option<u64>,
    scope: Option<String>,
    issued_token_type: Option<String>,
}

#[derive(Deserialize)]
struct Denied {
    error: Option<String>,
}

impl Granted {
    /// The token for `Authorization`; what was asked for is what it is good for where the answer does not say.
    pub(crate) fn into_token(self, asked: &[String]) -> Result<Token, CredentialError> {
        let kind = self.token_type.as_deref().unwrap_or("Bearer");
        if !kind.eq_ignore_ascii_case("bearer") {
            let reason = "the token is of a kind that Cairn cannot use: only Bearer is supported";
            return Err(CredentialError::unavailable(reason));
        }
        let scopes = match &self.scope {
            Some(scope) => scope.split_whitespace().map(str::to_owned).collect(),
            None => asked.to_vec(),
        };
        Token::new(&self.access_token, self.expires_in.map(Duration::from_secs), scopes)
    }

    /// The same, that lives so long where the answer does not say.
    pub(crate) fn living_if_unsaid(self, life: Duration) -> Self {
        Self { expires_in: self.expires_in.or(Some(life.as_secs())), ..self }
    }

    /// The token as something that is exchanged further, if it is of that type.
    pub(crate) fn into_subject(self, wanted_type: &str) -> Result<String, CredentialError> {
        match self.issued_token_type.as_deref() {
            Some(found) if found == wanted_type => Ok(self.access_token),
            _ => {
                Err(CredentialError::unavailable("the identity provider gave another type of token than was asked for"))
            }
        }
    }
}

/// Who asks, with what they stand on.
#[derive(Debug)]
pub(crate) struct Grants {
    pub(crate) client: GuardedClient,
    pub(crate) clock: Clock,
    pub(crate) entropy: Entropy,
}

impl Grants {
    /// Asks for a token.
    pub(crate) async fn ask(
        &self,
        endpoint: &Endpoint,
        client_id: &str,
        proof: &ClientProof,
        parameters: &[(&str, String)],
    ) -> Result<Granted, CredentialError> {
        let mut form: Vec<(&str, String)> = parameters.to_vec();
        let mut basic = None;
        match proof {
            ClientProof::None => form.push(("client_id", client_id.to_owned())),
            ClientProof::Secret { secret, way } => {
                let secret = secret.reveal().await?;
                match way.unwrap_or_else(|| preferred(endpoint.methods.as_deref())) {
                    ClientSecretWay::Basic => basic = Some(basic_header(client_id, &secret)?),
                    ClientSecretWay::Post => {
                        form.extend([("client_id", client_id.to_owned()), ("client_secret", secret)]);
                    }
                }
            }
            ClientProof::PrivateKey { key, key_id } => {
                let statement = self.statement(endpoint, client_id, key, key_id.as_deref()).await?;
                let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer".to_owned();
                form.extend([("client_assertion_type", kind), ("client_assertion", statement)]);
            }
        }
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let mut request = Request::post(endpoint.url.as_str())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json")
            .body(Bytes::from(body))
            .map_err(|_| CredentialError::untrusted("its token endpoint is no URL"))?;
        if let Some(basic) = basic {
            request.headers_mut().insert(AUTHORIZATION, basic);
        }
        let answer = self.client.send(request).await?;
        if answer.status().is_success() {
            let unread =
                |_| CredentialError::unavailable("the token endpoint answered with something that is no token");
            return serde_json::from_slice(answer.body()).map_err(unread);
        }
        if answer.status().is_server_error() || answer.status() == http::StatusCode::TOO_MANY_REQUESTS {
            return Err(CredentialError::unavailable(format!(
                "the token endpoint answered with HTTP {}",
                answer.status()
            )));
        }
        let said = serde_json::from_slice::<Denied>(answer.body()).ok().and_then(|denied| denied.error);
        let code = said.as_deref().and_then(known_code).map(ToOwned::to_owned);
        let code = code.unwrap_or_else(|| format!("HTTP {}", answer.status().as_u16()));
        Err(CredentialError::Refused { by: "the authorization server", code })
    }

    async fn statement(
        &self,
        endpoint: &Endpoint,
        client_id: &str,
        key: &Secret,
        key_id: Option<&str>,
    ) -> Result<String, CredentialError> {
        let audience = endpoint.issuer.as_deref().unwrap_or(endpoint.url.as_str());
        assertion(&key.reveal().await?, key_id, client_id, audience, &self.clock, &self.entropy)
    }
}

/// A code of OAuth's own; whatever else stands there may be an echo of what was sent.
pub(crate) fn known_code(said: &str) -> Option<&'static str> {
    CODES.iter().find(|&&code| code == said).copied()
}

/// How a secret is shown where the configuration does not say: by `Basic`, which every server must take, unless this one
/// says that it takes only the other.
fn preferred(methods: Option<&[String]>) -> ClientSecretWay {
    let takes = |method: &str| methods.is_some_and(|methods| methods.iter().any(|known| known == method));
    if takes("client_secret_post") && !takes("client_secret_basic") {
        ClientSecretWay::Post
    } else {
        ClientSecretWay::Basic
    }
}

/// RFC 6749 section 2.3.1: both parts are form-encoded before they are joined.
fn basic_header(client_id: &str, secret: &str) -> Result<HeaderValue, CredentialError> {
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let joined = STANDARD.encode(format!("{}:{}", encoded(client_id), encoded(secret)));
    let mut header = HeaderValue::from_str(&format!("Basic {joined}"))
        .map_err(|_| CredentialError::unavailable("the client's credential cannot stand in a header"))?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_codes_of_oauth_are_shown() {
        assert_eq!(known_code("invalid_grant"), Some("invalid_grant"));
        assert_eq!(known_code("s3cret"), None);
    }

    #[test]
    fn a_secret_is_shown_as_the_server_takes_it() {
        let methods = |list: &[&str]| list.iter().map(|&method| method.to_owned()).collect::<Vec<_>>();
        assert_eq!(preferred(None), ClientSecretWay::Basic);
        assert_eq!(preferred(Some(&methods(&["client_secret_post"]))), ClientSecretWay::Post);
        let both = methods(&["client_secret_post", "client_secret_basic"]);
        assert_eq!(preferred(Some(&both)), ClientSecretWay::Basic);
        let header = basic_header("a:b", "c d/e").expect("a header");
        assert!(header.is_sensitive());
        assert_eq!(header, format!("Basic {}", STANDARD.encode("a%3Ab:c+d%2Fe")));
    }

    #[test]
    fn another_kind_of_token_is_not_taken_for_a_bearer_token() {
        let granted = |text: &str| serde_json::from_str::<Granted>(text).expect("an answer");
        assert!(granted(r#"{"access_token":"a","token_type":"DPoP"}"#).into_token(&[]).is_err());
        assert!(granted(r#"{"access_token":"a","token_type":"bearer"}"#).into_token(&[]).is_ok());
        let other = granted(r#"{"access_token":"a","token_type":"N_A","issued_token_type":"urn:x"}"#);
        assert!(other.into_subject("urn:ietf:params:oauth:token-type:id-jag").is_err());
    }
}
