//! Who may send requests at all: `Origin` and `Host` (MCP, Streamable HTTP, Security). A web page that rebinds a name to
//! 127.0.0.1 gives itself away by either. Called by the gateway for every HTTP request, before its body is read.

use http::{HeaderMap, header};

/// Which origins and hosts are let in. The default is loopback only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginPolicy {
    origins: Vec<String>,
    hosts: Vec<String>,
}

/// Why a request is not let in; the HTTP status is 403.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginFault {
    /// The page that sends it is of another origin.
    #[error("requests from the origin {origin:?} are not allowed; add it to the allowed origins")]
    Origin {
        /// As sent, shortened.
        origin: String,
    },
    /// It asks for another host.
    #[error("requests for the host {host:?} are not allowed; add it to the allowed hosts")]
    Host {
        /// As sent, shortened.
        host: String,
    },
}

const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

impl Default for OriginPolicy {
    fn default() -> Self {
        Self::new(Vec::<String>::new(), Vec::<String>::new())
    }
}

impl OriginPolicy {
    /// Loopback, and what is listed: origins such as `https://app.example` (or `null`), hosts with or without a port. An
    /// entry without a port stands for every port. `*` stands for everything.
    #[must_use]
    pub fn new<O: Into<String>, H: Into<String>>(
        origins: impl IntoIterator<Item = O>,
        hosts: impl IntoIterator<Item = H>,
    ) -> Self {
        let lower = |text: String| text.trim().trim_end_matches('/').to_ascii_lowercase();
        let origins = origins.into_iter().map(|origin| lower(origin.into())).collect();
        Self { origins, hosts: hosts.into_iter().map(|host| lower(host.into())).collect() }
    }

    /// Whether a request is let in. `authority` is that of its URI, which HTTP/2 has instead of `Host`.
    ///
    /// # Errors
    /// [`OriginFault`].
    pub fn check(&self, headers: &HeaderMap, authority: Option<&str>) -> Result<(), OriginFault> {
        for origin in headers.get_all(header::ORIGIN) {
            let shown = String::from_utf8_lossy(origin.as_bytes());
            if !self.allows_origin(&shown.to_ascii_lowercase()) {
                return Err(OriginFault::Origin { origin: shown.chars().take(200).collect() });
            }
        }
        let hosts = headers.get_all(header::HOST).iter().map(|host| String::from_utf8_lossy(host.as_bytes()));
        let mut hosts = hosts.chain(authority.map(Into::into)).peekable();
        if hosts.peek().is_none() {
            return Err(OriginFault::Host { host: String::new() });
        }
        match hosts.find(|host| !self.allows_host(&host.to_ascii_lowercase())) {
            Some(host) => Err(OriginFault::Host { host: host.chars().take(200).collect() }),
            None => Ok(()),
        }
    }

    fn allows_origin(&self, origin: &str) -> bool {
        let listed = self.origins.iter().any(|allowed| allowed == "*" || matches_host(allowed, origin));
        let host = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        listed || host.is_some_and(|host| LOOPBACK.iter().any(|allowed| matches_host(allowed, host)))
    }

    fn allows_host(&self, host: &str) -> bool {
        let listed = self.hosts.iter().map(String::as_str).chain(LOOPBACK);
        listed.into_iter().any(|allowed| allowed == "*" || matches_host(allowed, host))
    }
}

/// Equal, or equal but for a port that the allowed one leaves open.
fn matches_host(allowed: &str, given: &str) -> bool {
    let Some(rest) = given.strip_prefix(allowed) else { return false };
    let port = rest.strip_prefix(':');
    rest.is_empty() || port.is_some_and(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(policy: &OriginPolicy, host: &str, origin: Option<&str>) -> Result<(), OriginFault> {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().expect("a value"));
        headers.extend(origin.map(|origin| (header::ORIGIN, origin.parse().expect("a value"))));
        policy.check(&headers, None)
    }

    #[test]
    fn loopback_is_let_in_and_nothing_else() {
        let policy = OriginPolicy::default();
        for (host, origin) in [
            ("127.0.0.1:8080", None),
            ("localhost", Some("http://localhost:3000")),
            ("LOCALHOST:1", Some("https://127.0.0.1")),
            ("[::1]:8080", Some("http://[::1]:5")),
        ] {
            assert_eq!(check(&policy, host, origin), Ok(()), "{host} {origin:?}");
        }
        for (host, origin) in [
            ("evil.example", None),
            ("localhost.evil.example", None),
            ("127.0.0.1.evil.example:80", None),
            ("127.0.0.1:", None),
            ("localhost", Some("http://evil.example")),
            ("localhost", Some("null")),
            ("localhost", Some("http://localhost.evil.example")),
            ("localhost", Some("http://localhost:1@evil.example")),
            ("localhost", Some("localhost")),
        ] {
            assert!(check(&policy, host, origin).is_err(), "{host} {origin:?}");
        }
        assert!(policy.check(&HeaderMap::new(), None).is_err(), "no host at all");
    }

    #[test]
    fn what_is_listed_is_let_in_too() {
        let policy = OriginPolicy::new(["https://App.example/"], ["cairn.example:8080"]);
        assert_eq!(check(&policy, "cairn.example:8080", Some("https://app.example")), Ok(()));
        assert!(check(&policy, "cairn.example", None).is_err(), "another port");
        assert!(check(&policy, "localhost", Some("http://app.example")).is_err(), "another scheme");
    }

    #[test]
    fn one_bad_header_among_good_ones_is_enough() {
        let mut headers = HeaderMap::new();
        headers.append(header::HOST, "localhost".parse().expect("a value"));
        headers.append(header::HOST, "evil.example".parse().expect("a value"));
        assert!(OriginPolicy::default().check(&headers, None).is_err());
        headers.clear();
        assert!(OriginPolicy::default().check(&headers, Some("evil.example")).is_err());
        assert!(OriginPolicy::default().check(&headers, Some("localhost:1")).is_ok());
    }
}
