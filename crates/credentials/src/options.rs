//! `[servers.NAME.auth]` as the credentials want it. Made by the wiring from the configuration. No secret stands here as a
//! text: each is a [`Secret`], read when it is needed.

use url::Url;

use crate::{OptionsError, Secret, challenge::is_scope};

/// How Cairn proves itself to one server.
#[derive(Clone, Debug)]
pub struct AuthOptions {
    /// Where the token comes from.
    pub kind: Kind,
    /// Scopes to ask for; those that the server names where none are given.
    pub scopes: Vec<String>,
    /// The `resource` of token requests (RFC 8707); the server's URL where absent.
    pub resource: Option<String>,
    /// The authorization server; the one that the server names where absent.
    pub issuer: Option<Url>,
    /// The token endpoint, where the authorization server publishes no metadata.
    pub token_endpoint: Option<Url>,
    /// Hosts that may be asked although they are inside.
    pub hosts: Vec<String>,
}

/// Where a token comes from.
#[derive(Clone, Debug)]
pub enum Kind {
    /// The configuration gives it, as it is.
    Bearer {
        /// The token.
        token: Secret,
    },
    /// A person logs in once: authorization code with PKCE.
    Oauth {
        /// A client that is registered already.
        client: Option<Client>,
        /// Where a client metadata document of this Cairn is published.
        client_metadata_url: Option<String>,
        /// Where the browser comes back to; `/oauth/callback` at the gateway's address where absent.
        redirect_uri: Option<Url>,
    },
    /// Cairn itself is the account (RFC 6749 section 4.4).
    ClientCredentials {
        /// The client.
        client: Client,
    },
    /// The caller's token is exchanged for one of this server (RFC 8693).
    TokenExchange {
        /// The client.
        client: Client,
        /// `audience` of the exchange.
        audience: Option<String>,
        /// What is exchanged.
        subject: Exchanged,
    },
    /// A statement of a workload's identity is the grant (RFC 7523 section 2.1).
    JwtBearer {
        /// The client.
        client: Client,
        /// The statement.
        assertion: Secret,
    },
    /// The identity provider of one's company says yes in a person's place (identity assertion grant, "ID-JAG").
    Enterprise {
        /// The client at the server's authorization server.
        client: Client,
        /// The token endpoint of the identity provider.
        provider: Url,
        /// The client at the identity provider.
        provider_client: Client,
        /// What is shown there.
        subject: Exchanged,
    },
}

/// What is exchanged for a token of the server.
#[derive(Clone, Debug)]
pub enum Exchanged {
    /// A token of the configuration, whoever calls.
    Given(Subject),
    /// The token that the caller came in with.
    Callers {
        /// Its type, such as `urn:ietf:params:oauth:token-type:access_token`.
        token_type: String,
    },
}

/// A token that stands for somebody, to be exchanged.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The token.
    pub token: Secret,
    /// Its type, such as `urn:ietf:params:oauth:token-type:access_token`.
    pub token_type: String,
}

/// A registered client.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its id.
    pub id: String,
    /// How it proves itself.
    pub proof: ClientProof,
}

/// How a client proves itself at a token endpoint.
#[derive(Clone, Debug)]
pub enum ClientProof {
    /// Not at all: a public client.
    None,
    /// By a secret.
    Secret {
        /// The secret.
        secret: Secret,
        /// How it is shown; as the authorization server says where absent.
        way: Option<ClientSecretWay>,
    },
    /// By statements signed with its key.
    PrivateKey {
        /// The key, as PEM.
        key: Secret,
        /// The name under which the other side knows it.
        key_id: Option<String>,
    },
}

/// How a client's secret is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientSecretWay {
    /// `client_secret_basic`.
    Basic,
    /// `client_secret_post`.
    Post,
}

impl AuthOptions {
    /// Finds what cannot work, before anything is asked.
    ///
    /// # Errors
    /// What to change.
    pub fn check(&self) -> Result<(), OptionsError> {
        let wrong = |words: &str| Err(OptionsError(words.to_owned()));
        if let Some(scope) = self.scopes.iter().find(|scope| !is_scope(scope)) {
            return wrong(&format!("scopes holds {scope:?}, which is no scope: write one word for each"));
        }
        if matches!(self.kind, Kind::Oauth { .. } | Kind::Bearer { .. }) && self.token_endpoint.is_some() {
            return wrong("token_endpoint is for kinds without a login: name the authorization server with issuer");
        }
        let urls = [&self.issuer, &self.token_endpoint];
        if urls.into_iter().flatten().any(|url| !matches!(url.scheme(), "http" | "https")) {
            return wrong("issuer and token_endpoint begin with https://");
        }
        match &self.kind {
            Kind::Oauth { client: Some(Client { proof: ClientProof::PrivateKey { .. }, .. }), .. } => {
                wrong("a login cannot use private_key: give client_secret, or neither")
            }
            Kind::Oauth { client_metadata_url: Some(url), .. } if !url.starts_with("https://") => {
                wrong("client_metadata_url begins with https://: the authorization server reads it")
            }
            Kind::Oauth { redirect_uri: Some(url), .. } if !url.path().ends_with("/oauth/callback") => {
                wrong("redirect_uri ends with /oauth/callback: the gateway takes the browser there and nowhere else")
            }
            Kind::TokenExchange { subject: Exchanged::Callers { .. }, .. }
                if self.issuer.is_none() && self.token_endpoint.is_none() =>
            {
                // Else the server's metadata would choose who is shown the caller's token.
                wrong(
                    "kind = \"token_exchange\" shows the caller's token to a token endpoint: name it with token_endpoint or issuer, or give subject_token",
                )
            }
            Kind::ClientCredentials { client: Client { proof: ClientProof::None, .. } } => {
                wrong("kind = \"client_credentials\" needs client_secret or private_key")
            }
            _ => Ok(()),
        }
    }

    /// Hosts that are named by being configured.
    pub(crate) fn named_hosts(&self) -> Vec<String> {
        let provider = match &self.kind {
            Kind::Enterprise { provider, .. } => Some(provider),
            _ => None,
        };
        let urls = [self.issuer.as_ref(), self.token_endpoint.as_ref(), provider];
        let named = urls.into_iter().flatten().filter_map(|url| url.host_str().map(str::to_owned));
        self.hosts.iter().cloned().chain(named).collect()
    }
}
