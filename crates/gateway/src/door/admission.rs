//! The threshold of the HTTP door: who a request is from, and what those are answered who may not come in.
//!
//! Called by [`http`](super::http) before a body is read, and once more when the method is known. A refusal is counted and
//! recorded, and its words are the same whatever was in the credential.

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use cairn_credentials::CallerToken;
use cairn_identity::{Identity, PeerCertificate, Presented, Rejection};
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;

use super::http::{Body, json_bytes};
use crate::{Gateway, upstream::Server};

/// A client's connection.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// Names it: calls that nothing else joins share its workflow.
    pub(crate) name: Arc<str>,
    /// Where it comes from.
    pub(crate) peer: IpAddr,
    /// The certificate that its handshake verified.
    pub(crate) certificate: Option<PeerCertificate>,
}

/// Whoever sent a request, and was let in.
#[derive(Debug)]
pub(crate) struct Guest {
    who: Identity,
    /// Its token, where one of the server's is exchanged for it.
    pub(crate) brought: Option<Arc<CallerToken>>,
}

impl std::ops::Deref for Guest {
    type Target = Identity;

    fn deref(&self) -> &Identity {
        &self.who
    }
}

impl Gateway {
    /// Who sent a request to that server.
    pub(super) async fn admit_client(
        &self,
        client: &Client,
        server: &Server,
        head: &http::request::Parts,
    ) -> Result<Guest, Response<Body>> {
        let presented = Presented {
            method: head.method.as_str(),
            headers: &head.headers,
            certificate: client.certificate.as_ref(),
            peer: client.peer,
            server: &server.name,
        };
        let who = self.access().verifier.identify(&presented).await;
        let who = who.map_err(|rejection| self.not_let_in(client, server, &rejection, &[]))?;
        match self.hold_to_scopes(client, server, &who, &[]) {
            Some(response) => Err(response),
            None => Ok(Guest { brought: server.bring(&who, &head.headers), who }),
        }
    }

    /// The refusal of requests of these methods, where what was granted is not enough for them.
    pub(super) fn hold_to_scopes(
        &self,
        client: &Client,
        server: &Server,
        who: &Identity,
        methods: &[&str],
    ) -> Option<Response<Body>> {
        let rules = self.access().scopes.get(&server.name)?;
        let missing = who.lacks(&rules.needed(methods.iter().copied()));
        if missing.is_empty() {
            return None;
        }
        Some(self.not_let_in(client, server, &Rejection::lacking(missing, who), methods))
    }

    fn not_let_in(&self, client: &Client, server: &Server, rejection: &Rejection, methods: &[&str]) -> Response<Body> {
        self.note_refusal(rejection, &server.name, Some(client.peer));
        let status = StatusCode::from_u16(rejection.reason.status()).unwrap_or(StatusCode::UNAUTHORIZED);
        let mut says = json!({ "error": rejection.reason.says(), "reason": rejection.reason.word() });
        if !rejection.scopes_missing.is_empty() {
            says["scopes_missing"] = json!(rejection.scopes_missing);
        }
        let mut response = json_bytes(status, Bytes::from(says.to_string()));
        // All that the request needs in one challenge, so that one authorization is enough.
        let scopes = self.access().rules(&server.name).needed(methods.iter().copied());
        for challenge in self.access().verifier.challenges(rejection, &server.name, &scopes) {
            if let Ok(value) = HeaderValue::try_from(challenge) {
                response.headers_mut().append(header::WWW_AUTHENTICATE, value);
            }
        }
        response
    }

    /// The metadata of a protected resource, where the path is one of these.
    pub(super) fn resource_metadata(&self, path: &str) -> Option<Response<Body>> {
        let scopes = |server: &str| self.server(server).map(|_| self.access().rules(server).all());
        let metadata = self.access().verifier.metadata(path, scopes)?;
        Some(json_bytes(StatusCode::OK, Bytes::from(metadata.to_string())))
    }
}
