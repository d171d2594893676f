//! `[servers.NAME.auth]`: how Cairn proves itself to a server, from the configuration to what the credentials take.
//!
//! Secrets stay references (`${file:PATH}`, `${NAME}`) and are read when they are needed, so that a changed file counts
//! without a restart; each is read once at the start, so that one that is missing is said there. Must never show a value.

use anyhow::{Context, bail};
use cairn_credentials::{
    Secret,
    options::{AuthOptions, Client, ClientProof, ClientSecretWay, Exchanged, Kind, Subject},
};
use serde::Deserialize;
use url::Url;

use crate::config::filled;

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";

/// `[servers.NAME.auth]`
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuthSection {
    kind: KindName,
    #[serde(default)]
    scopes: Vec<String>,
    #[serde(default)]
    hosts: Vec<String>,
    resource: Option<String>,
    issuer: Option<String>,
    token_endpoint: Option<String>,
    redirect_uri: Option<String>,
    client_metadata_url: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
    client_secret_way: Option<Way>,
    private_key: Option<String>,
    key_id: Option<String>,
    token: Option<String>,
    audience: Option<String>,
    subject_token: Option<String>,
    subject_token_type: Option<String>,
    assertion: Option<String>,
    provider_token_endpoint: Option<String>,
    provider_client_id: Option<String>,
    provider_client_secret: Option<String>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum KindName {
    Bearer,
    Oauth,
    ClientCredentials,
    TokenExchange,
    JwtBearer,
    Enterprise,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Way {
    Basic,
    Post,
}

/// A secret that is read from its reference each time.
fn secret(reference: &str) -> anyhow::Result<Secret> {
    filled(reference)?;
    let reference = reference.to_owned();
    Ok(Secret::new(move || filled(&reference).map_err(|error| format!("{error:#}"))))
}

fn address(key: &str, value: Option<&str>) -> anyhow::Result<Option<Url>> {
    let Some(value) = value else { return Ok(None) };
    let url = Url::parse(&filled(value)?).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    url.with_context(|| format!("{key} is no URL: begin it with https:// and name a host")).map(Some)
}

impl AuthSection {
    /// What the credentials take.
    pub(crate) fn options(&self) -> anyhow::Result<AuthOptions> {
        self.refuse_what_is_not_for_this_kind()?;
        let kind = match self.kind {
            KindName::Bearer => Kind::Bearer { token: secret(self.needed("token", self.token.as_deref())?)? },
            KindName::Oauth => Kind::Oauth {
                client: self.client_id.is_some().then(|| self.client()).transpose()?,
                client_metadata_url: self.client_metadata_url.clone(),
                redirect_uri: address("redirect_uri", self.redirect_uri.as_deref())?,
            },
            KindName::ClientCredentials => Kind::ClientCredentials { client: self.client()? },
            KindName::TokenExchange => Kind::TokenExchange {
                client: self.client()?,
                audience: self.audience.clone(),
                subject: self.exchanged(ACCESS_TOKEN)?,
            },
            KindName::JwtBearer => Kind::JwtBearer {
                client: self.client()?,
                assertion: secret(self.needed("assertion", self.assertion.as_deref())?)?,
            },
            KindName::Enterprise => {
                let provider = self.needed("provider_token_endpoint", self.provider_token_endpoint.as_deref())?;
                let id = self.needed("provider_client_id", self.provider_client_id.as_deref())?.to_owned();
                let proof = match &self.provider_client_secret {
                    Some(reference) => ClientProof::Secret { secret: secret(reference)?, way: None },
                    None => ClientProof::None,
                };
                Kind::Enterprise {
                    client: self.client()?,
                    provider: address("provider_token_endpoint", Some(provider))?.expect("one was given"),
                    provider_client: Client { id, proof },
                    subject: self.exchanged(ID_TOKEN)?,
                }
            }
        };
        let options = AuthOptions {
            kind,
            scopes: self.scopes.clone(),
            resource: self.resource.clone(),
            issuer: address("issuer", self.issuer.as_deref())?,
            token_endpoint: address("token_endpoint", self.token_endpoint.as_deref())?,
            hosts: self.hosts.clone(),
        };
        options.check()?;
        Ok(options)
    }

    fn needed<'a>(&self, key: &str, value: Option<&'a str>) -> anyhow::Result<&'a str> {
        value.with_context(|| format!("kind = \"{}\" needs {key}", self.kind.name()))
    }

    fn client(&self) -> anyhow::Result<Client> {
        let id = filled(self.needed("client_id", self.client_id.as_deref())?)?;
        let proof = match (&self.client_secret, &self.private_key) {
            (Some(_), Some(_)) => bail!("client_secret and private_key are two ways to prove one client: keep one"),
            (Some(reference), None) => {
                let way = self.client_secret_way.map(|way| match way {
                    Way::Basic => ClientSecretWay::Basic,
                    Way::Post => ClientSecretWay::Post,
                });
                ClientProof::Secret { secret: secret(reference)?, way }
            }
            (None, Some(reference)) => ClientProof::PrivateKey { key: secret(reference)?, key_id: self.key_id.clone() },
            (None, None) => ClientProof::None,
        };
        Ok(Client { id, proof })
    }

    /// What is exchanged: `subject_token`, else the token that a caller came in with, which is an access token.
    fn exchanged(&self, given_type: &str) -> anyhow::Result<Exchanged> {
        let token_type = |default: &str| self.subject_token_type.clone().unwrap_or_else(|| default.to_owned());
        Ok(match self.subject_token.as_deref() {
            Some(token) => Exchanged::Given(Subject { token: secret(token)?, token_type: token_type(given_type) }),
            None => Exchanged::Callers { token_type: token_type(ACCESS_TOKEN) },
        })
    }

    /// A setting without effect is a mistake.
    fn refuse_what_is_not_for_this_kind(&self) -> anyhow::Result<()> {
        use KindName::{Bearer, ClientCredentials, Enterprise, JwtBearer, Oauth, TokenExchange};
        let exchanges = [TokenExchange, Enterprise];
        let clients = [Oauth, ClientCredentials, TokenExchange, JwtBearer, Enterprise];
        let set: [(&str, bool, &[KindName]); 15] = [
            ("token", self.token.is_some(), &[Bearer]),
            ("redirect_uri", self.redirect_uri.is_some(), &[Oauth]),
            ("client_metadata_url", self.client_metadata_url.is_some(), &[Oauth]),
            ("audience", self.audience.is_some(), &[TokenExchange]),
            ("subject_token", self.subject_token.is_some(), &exchanges),
            ("subject_token_type", self.subject_token_type.is_some(), &exchanges),
            ("assertion", self.assertion.is_some(), &[JwtBearer]),
            ("provider_token_endpoint", self.provider_token_endpoint.is_some(), &[Enterprise]),
            ("provider_client_id", self.provider_client_id.is_some(), &[Enterprise]),
            ("provider_client_secret", self.provider_client_secret.is_some(), &[Enterprise]),
            ("client_id", self.client_id.is_some(), &clients),
            ("client_secret", self.client_secret.is_some(), &clients),
            ("private_key", self.private_key.is_some(), &clients),
            ("scopes", !self.scopes.is_empty(), &clients),
            ("issuer", self.issuer.is_some(), &clients),
        ];
        match set.iter().find(|(_, is_set, kinds)| *is_set && !kinds.contains(&self.kind)) {
            Some((key, ..)) => bail!("{key} is not for kind = \"{}\": remove it", self.kind.name()),
            None if self.client_secret.is_some() && self.client_id.is_none() => bail!("client_secret needs client_id"),
            None => Ok(()),
        }
    }
}

impl KindName {
    const fn name(self) -> &'static str {
        match self {
            Self::Bearer => "bearer",
            Self::Oauth => "oauth",
            Self::ClientCredentials => "client_credentials",
            Self::TokenExchange => "token_exchange",
            Self::JwtBearer => "jwt_bearer",
            Self::Enterprise => "enterprise",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<AuthOptions> {
        toml::from_str::<AuthSection>(text).map_err(anyhow::Error::from).and_then(|section| section.options())
    }

    #[test]
    fn each_kind_says_what_it_needs_and_what_has_no_effect() {
        for (text, words) in [
            ("kind = \"bearer\"", "needs token"),
            ("kind = \"client_credentials\"\nclient_id = \"a\"", "needs client_secret or private_key"),
            ("kind = \"client_credentials\"\nclient_secret = \"a\"", "needs client_id"),
            ("kind = \"jwt_bearer\"\nclient_id = \"a\"", "needs assertion"),
            ("kind = \"enterprise\"\nclient_id = \"a\"", "needs provider_token_endpoint"),
            ("kind = \"oauth\"\ntoken = \"a\"", "token is not for kind = \"oauth\""),
            ("kind = \"oauth\"\nclient_metadata_url = \"http://a/b\"", "begins with https://"),
            ("kind = \"oauth\"\nredirect_uri = \"https://a/b\"", "ends with /oauth/callback"),
            ("kind = \"oauth\"\nscopes = [\"a b\"]", "is no scope"),
            ("kind = \"token_exchange\"\nclient_id = \"a\"", "name it with token_endpoint or issuer"),
            ("kind = \"oauth\"\nissuer = \"as.example\"", "issuer is no URL"),
            ("kind = \"bearer\"\ntoken = \"${CAIRN_TEST_NOT_SET}\"", "CAIRN_TEST_NOT_SET is not set"),
        ] {
            let error = format!("{:#}", read(text).expect_err(text));
            assert!(error.contains(words), "{text}: {error}");
        }
        assert!(read("kind = \"oauth\"").is_ok());
        let exchange = "kind = \"token_exchange\"\nclient_id = \"a\"\nclient_secret = \"s3cret\"";
        assert!(read(&format!("{exchange}\nissuer = \"https://as.example\"")).is_ok());
        assert!(read(&format!("{exchange}\nsubject_token = \"b\"")).is_ok());
    }

    #[test]
    fn a_secret_does_not_show_in_what_was_read() {
        let options = read("kind = \"bearer\"\ntoken = \"s3cret\"").expect("valid");
        assert!(!format!("{options:?}").contains("s3cret"));
    }
}
