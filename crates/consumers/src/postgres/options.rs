//! Where the server is, who asks it, and in which schema the tables lie.
//!
//! Read from the configuration; it may hold passwords, so nothing here shows one, not even what cannot be read.

use std::{fmt, fs, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use rustls::ClientConfig;
use tokio_postgres::{
    Config,
    config::{Host, SslMode},
};

use super::tls;

/// How long it may take until a server has answered.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// After so long without a word it is looked whether the other end is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// The schema where none is named.
const SCHEMA: &str = "cairn";
/// PostgreSQL cuts longer names.
const NAME_BYTES_MAX: usize = 63;
/// What a URL may say behind its question mark.
const PARAMETERS: [&str; 10] = [
    "sslmode",
    "sslrootcert",
    "application_name",
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "tcp_user_timeout",
    "target_session_attrs",
    "load_balance_hosts",
];

/// What a configuration says, with secrets filled in.
#[derive(Clone, Default)]
pub struct Settings {
    /// `postgres://USER@HOST:PORT/DATABASE?…`
    pub url: String,
    /// The password, where the URL has none.
    pub password: Option<String>,
    /// The schema; `cairn` where absent.
    pub schema: Option<String>,
    /// Who asks questions, if another than who writes.
    pub query_user: Option<String>,
    /// And that one's password.
    pub query_password: Option<String>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("schema", &self.schema).finish_non_exhaustive()
    }
}

/// Why settings cannot be used. No value is shown: it may be a password.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OptionsError {
    /// It is no such URL.
    #[error(
        "it is no PostgreSQL URL that can be read: write postgres://USER@HOST:PORT/DATABASE, and the password by itself as `password` (in a URL it must be percent-encoded)"
    )]
    Url,
    /// It names no user, no host or no database.
    #[error("the URL names no {what}: write postgres://USER@HOST:PORT/DATABASE")]
    Lacks {
        /// What lacks.
        what: &'static str,
    },
    /// It says something else behind the question mark.
    #[error("the URL has a parameter that is not known; known are {}", PARAMETERS.join(", "))]
    Parameter,
    /// TLS in a way that protects nothing, or that is not known.
    #[error(
        "sslmode must be disable, require or verify-full: the last two both check the certificate and the name, and what falls back to no TLS is not done"
    )]
    SslMode,
    /// A password in two places.
    #[error("the URL has a password, and there is `password` besides: keep one of them")]
    TwoPasswords,
    /// Half of a pair.
    #[error("query_password is set, and no query_user")]
    NobodyAsks,
    /// A schema that would have to be quoted.
    #[error("the schema's name has 1 to 63 small letters, digits and underscores, and no digit or pg_ in front")]
    Schema,
    /// The authorities cannot be read.
    #[error("sslrootcert: {path}: {reason}")]
    Roots {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
}

/// A database that can be reached.
#[derive(Clone)]
pub struct Options {
    writes: Config,
    asks: Config,
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) schema: String,
    shown: String,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Options").field(&self.shown).finish()
    }
}

impl Options {
    /// Reads settings.
    ///
    /// # Errors
    /// As [`OptionsError`] says.
    pub fn read(settings: &Settings) -> Result<Self, OptionsError> {
        let (url, tls) = parameters(&settings.url)?;
        let mut writes: Config = url.parse().map_err(|_| OptionsError::Url)?;
        let lacks = [
            ("user", writes.get_user().is_none_or(str::is_empty)),
            ("host", writes.get_hosts().is_empty()),
            ("database", writes.get_dbname().is_none_or(str::is_empty)),
        ];
        if let Some((what, _)) = lacks.iter().find(|(_, lacks)| *lacks) {
            return Err(OptionsError::Lacks { what });
        }
        match &settings.password {
            Some(_) if writes.get_password().is_some() => return Err(OptionsError::TwoPasswords),
            Some(password) => {
                writes.password(password);
            }
            None => {}
        }
        let schema = settings.schema.as_deref().unwrap_or(SCHEMA).to_owned();
        let is_name = schema.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        let is_odd = schema.starts_with("pg_") || schema.starts_with(|first: char| first.is_ascii_digit());
        if !is_name || is_odd || schema.is_empty() || schema.len() > NAME_BYTES_MAX {
            return Err(OptionsError::Schema);
        }
        let is_tls = tls.mode.unwrap_or_else(|| writes.get_hosts().iter().any(is_far));
        writes.ssl_mode(if is_tls { SslMode::Require } else { SslMode::Disable });
        if writes.get_connect_timeout().is_none() {
            writes.connect_timeout(CONNECT_MAX);
        }
        writes.keepalives_idle(KEEPALIVE_IDLE);
        if writes.get_application_name().is_none() {
            writes.application_name("cairn audit");
        }
        let mut asks = writes.clone();
        match (&settings.query_user, &settings.query_password) {
            (None, Some(_)) => return Err(OptionsError::NobodyAsks),
            (Some(user), password) => {
                asks.user(user);
                // Never the writer's: where none is given, the server asks for none.
                asks.password(password.as_deref().unwrap_or_default());
            }
            (None, None) => {}
        }
        asks.application_name("cairn query");
        let shown = shown(&writes, &schema);
        let tls = if is_tls { Some(tls::config(tls.roots.as_deref())?) } else { None };
        Ok(Self { writes, asks, tls, schema, shown })
    }

    pub(super) const fn writes(&self) -> &Config {
        &self.writes
    }

    pub(super) const fn asks(&self) -> &Config {
        &self.asks
    }

    /// Where it is, for people: without users and passwords.
    #[must_use]
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Who this database is in its consumer group: the same for each process that is set up for it.
    #[must_use]
    pub fn instance(&self) -> String {
        let name: String = self
            .shown
            .trim_start_matches("postgres://")
            .chars()
            .map(|one| if one.is_ascii_alphanumeric() || "._".contains(one) { one } else { '-' })
            .take(200)
            .collect();
        format!("{}-{name}", crate::audit::NAME)
    }
}

fn shown(config: &Config, schema: &str) -> String {
    let ports = config.get_ports();
    let hosts = config.get_hosts().iter().enumerate().map(|(index, host)| {
        let port = ports.get(index).or_else(|| ports.first()).copied().unwrap_or(5432);
        match host {
            Host::Tcp(name) => format!("{name}:{port}"),
            #[cfg(unix)]
            Host::Unix(path) => format!("{}:{port}", path.display()),
        }
    });
    let hosts: Vec<String> = hosts.collect();
    format!("postgres://{}/{} (schema {schema})", hosts.join(","), config.get_dbname().unwrap_or_default())
}

/// Whether the way there leaves this machine.
fn is_far(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            let bare = name.trim_start_matches('[').trim_end_matches(']');
            name != "localhost" && !bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        #[cfg(unix)]
        Host::Unix(_) => false,
    }
}

/// What a URL says of TLS.
struct Tls {
    mode: Option<bool>,
    roots: Option<PathBuf>,
}

/// The URL without what it says of TLS, and that.
fn parameters(url: &str) -> Result<(String, Tls), OptionsError> {
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(OptionsError::Url);
    }
    let (head, query) = url.split_once('?').unwrap_or((url, ""));
    let (mut rest, mut tls) = (Vec::new(), Tls { mode: None, roots: None });
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or(OptionsError::Url)?;
        if !PARAMETERS.contains(&name) {
            return Err(OptionsError::Parameter);
        }
        match name {
            "sslmode" => {
                tls.mode = Some(match value {
                    "disable" => false,
                    "require" | "verify-full" => true,
                    _ => return Err(OptionsError::SslMode),
                });
            }
            "sslrootcert" => tls.roots = Some(PathBuf::from(decoded(value).ok_or(OptionsError::Url)?)),
            _ => rest.push(pair),
        }
    }
    let url = if rest.is_empty() { head.to_owned() } else { format!("{head}?{}", rest.join("&")) };
    Ok((url, tls))
}

fn decoded(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, more @ ..] = rest {
        rest = more;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, more) = more.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = more;
    }
    String::from_utf8(bytes).ok()
}

/// The authorities of a PEM file.
pub(super) fn roots(path: &std::path::Path) -> Result<Vec<u8>, OptionsError> {
    fs::read(path).map_err(|error| OptionsError::Roots { path: path.display().to_string(), reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> Settings {
        Settings { url: url.to_owned(), ..Settings::default() }
    }

    fn fault(settings: &Settings) -> OptionsError {
        Options::read(settings).expect_err("it must not be accepted")
    }

    #[test]
    fn a_url_says_where_and_nothing_shows_its_password() {
        let options = Options::read(&settings("postgres://ann:s3cret@db.example:6543/audit")).expect("options");
        assert_eq!(options.shown(), "postgres://db.example:6543/audit (schema cairn)");
        assert_eq!(options.instance(), "audit-db.example-6543-audit--schema-cairn-");
        assert!(!format!("{options:?}").contains("s3cret"));
        assert_eq!(options.writes.get_ssl_mode(), SslMode::Require, "another machine is reached by TLS");
        for near in ["localhost", "127.0.0.1", "[::1]"] {
            let options = Options::read(&settings(&format!("postgres://ann@{near}/audit"))).expect("options");
            assert_eq!(options.writes.get_ssl_mode(), SslMode::Disable, "{near}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_without_showing_it() {
        let url = "postgres://ann:s3cret@db.example";
        assert_eq!(fault(&settings("mysql://ann:s3cret@x/y")), OptionsError::Url);
        assert_eq!(fault(&settings("postgres://ann:s3cret@x:port/y")), OptionsError::Url);
        assert_eq!(fault(&settings(&format!("{url}/"))), OptionsError::Lacks { what: "database" });
        assert_eq!(fault(&settings("postgres://db.example/audit")), OptionsError::Lacks { what: "user" });
        assert_eq!(fault(&settings(&format!("{url}/audit?sslmode=prefer"))), OptionsError::SslMode);
        assert_eq!(fault(&settings(&format!("{url}/audit?s3cret=1"))), OptionsError::Parameter);
        let both = Settings { password: Some("s3cret".to_owned()), ..settings(&format!("{url}/audit")) };
        assert_eq!(fault(&both), OptionsError::TwoPasswords);
        for schema in ["", "Audit", "a b", "pg_x", "1a", "a\";--"] {
            let odd = Settings { schema: Some(schema.to_owned()), ..settings(&format!("{url}/audit")) };
            assert_eq!(fault(&odd), OptionsError::Schema, "{schema}");
        }
        let missing = fault(&settings(&format!("{url}/audit?sslrootcert=/no/such%20file")));
        assert!(matches!(&missing, OptionsError::Roots { path, .. } if path == "/no/such file"), "{missing:?}");
    }
}
