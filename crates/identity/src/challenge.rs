//! How a refusal and the protected resource look on the wire: `WWW-Authenticate` and the resource's metadata.
//!
//! Sources: RFC 6750, section 3; RFC 9728; RFC 9449, section 7.1; MCP 2026-07-28, basic/authorization.

use serde_json::{Value, json};

use crate::{dpop, rejection::Rejection, verifier::Verifier};

/// Where a resource's metadata lies, before the resource's own path.
const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

impl Verifier {
    /// The URI of a server: what tokens for it must name as their audience.
    #[must_use]
    pub fn resource(&self, server: &str) -> String {
        format!("{}/mcp/{server}", self.options().base)
    }

    /// The metadata of the protected resource whose well-known path this is (RFC 9728). `scopes` are those of a server.
    /// None where the path is another one, no such server is there, or no issuer is configured that could be named.
    pub fn metadata(&self, path: &str, scopes: impl FnOnce(&str) -> Option<Vec<String>>) -> Option<Value> {
        let rest = path.strip_prefix(WELL_KNOWN)?;
        if self.options().issuers.is_empty() {
            return None;
        }
        let (resource, scopes) = match rest.strip_prefix("/mcp/") {
            Some(server) => (self.resource(server), scopes(server)?),
            None if matches!(rest, "" | "/") => (self.options().base.clone(), Vec::new()),
            None => return None,
        };
        let issuers: Vec<&str> = self.options().issuers.values().map(|issuer| issuer.issuer.as_str()).collect();
        let mut metadata = json!({
            "resource": resource,
            "authorization_servers": issuers,
            "bearer_methods_supported": ["header"],
            "dpop_signing_alg_values_supported": dpop::algorithms(),
            "tls_client_certificate_bound_access_tokens": true,
        });
        if !scopes.is_empty() {
            metadata["scopes_supported"] = scopes.into();
        }
        Some(metadata)
    }

    /// The values of `WWW-Authenticate` for a refusal at a server; `scopes` are those that the request needs. None where
    /// authorization would not help.
    #[must_use]
    pub fn challenges(&self, rejection: &Rejection, server: &str, scopes: &[String]) -> Vec<String> {
        if !matches!(rejection.reason.status(), 400 | 401 | 403) {
            return Vec::new();
        }
        let mut parameters = Vec::new();
        if self.options().issuers.is_empty() {
            parameters.push("realm=\"cairn\"".to_owned());
        } else {
            parameters.push(format!("resource_metadata=\"{}{WELL_KNOWN}/mcp/{server}\"", self.options().base));
        }
        // Scopes come from the configuration and are checked there to be words.
        if !scopes.is_empty() {
            parameters.push(format!("scope=\"{}\"", scopes.join(" ")));
        }
        if let Some(error) = rejection.reason.error() {
            parameters.push(format!("error=\"{error}\""));
            parameters.push(format!("error_description=\"{}\"", rejection.reason.says()));
        }
        let parameters = parameters.join(", ");
        if rejection.dpop {
            return vec![format!("DPoP {parameters}, algs=\"{}\"", dpop::algorithms().join(" "))];
        }
        vec![format!("Bearer {parameters}")]
    }
}
