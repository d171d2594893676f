//! Where an HTTP server is, and what is sent to it with every request. Made from the configuration. Must never show a
//! header's value or a URL's query: either may be a secret.

use std::{fmt, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use super::Authorize;

/// An HTTP server.
#[derive(Clone)]
pub struct HttpTarget {
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    /// Gives the `Authorization` header of each request, in place of a configured one.
    pub(crate) authorize: Option<Arc<dyn Authorize>>,
}

/// Why an address or a header cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not an absolute http or https URL.
    #[error("the URL must begin with http:// or https:// and name a host")]
    Url,
    /// The URL holds credentials.
    #[error("the URL holds a user name or password; put them into an Authorization header instead")]
    Credentials,
    /// A header's name or value has characters that no header may have.
    #[error("the header {name:?} has a name or value that HTTP does not allow")]
    Header {
        /// Its name.
        name: String,
    },
}

impl HttpTarget {
    /// A server's URL, and headers for every request to it, credentials included.
    ///
    /// # Errors
    /// [`TargetError`], which never shows a value.
    pub fn new<N: AsRef<str>, V: AsRef<str>>(
        url: &str,
        headers: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, TargetError> {
        let uri: Uri = url.trim().parse().map_err(|_| TargetError::Url)?;
        let authority = uri.authority().ok_or(TargetError::Url)?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || authority.host().is_empty() {
            return Err(TargetError::Url);
        }
        if authority.as_str().contains('@') {
            return Err(TargetError::Credentials);
        }
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let wrong = || TargetError::Header { name: name.as_ref().to_owned() };
            let key = HeaderName::from_bytes(name.as_ref().as_bytes()).map_err(|_| wrong())?;
            let mut value = HeaderValue::from_str(value.as_ref()).map_err(|_| wrong())?;
            value.set_sensitive(true);
            map.append(key, value);
        }
        Ok(Self { uri, headers: map, authorize: None })
    }

    /// The same server, to which whoever uses this proves itself so.
    #[must_use]
    pub fn authorized_by(&self, authorize: Arc<dyn Authorize>) -> Self {
        Self { authorize: Some(authorize), ..self.clone() }
    }

    /// Waits for what is to be proven with, where anything is.
    pub(crate) async fn ready(&self) {
        if let Some(authorize) = &self.authorize {
            authorize.ready().await;
        }
    }

    /// What is proven with now.
    pub(crate) fn authorization(&self) -> Option<HeaderValue> {
        self.authorize.as_ref()?.authorization()
    }

    /// Scheme, host and port: what may stand in a message.
    #[must_use]
    pub fn origin(&self) -> String {
        let scheme = self.uri.scheme_str().unwrap_or("http");
        format!("{scheme}://{}", self.uri.authority().map_or("", http::uri::Authority::as_str))
    }
}

impl fmt::Debug for HttpTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTarget").field("origin", &self.origin()).field("headers", &self.headers.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [(&str, &str); 0] = [];

    #[test]
    fn an_address_is_checked_when_it_is_configured() {
        for wrong in ["", "/mcp", "ftp://host/x", "http://", "host:80/mcp"] {
            assert_eq!(HttpTarget::new(wrong, NONE).expect_err(wrong), TargetError::Url);
        }
        assert_eq!(HttpTarget::new("http://a:b@host/", NONE).expect_err("a password"), TargetError::Credentials);
        assert!(HttpTarget::new("http://h/", [("X", "a\nb")]).is_err());
    }

    #[test]
    fn secrets_are_not_shown() {
        let target =
            HttpTarget::new("https://h:1/mcp?key=s3cret", [("Authorization", "Bearer s3cret")]).expect("valid");
        assert!(!format!("{target:?}").contains("s3cret"));
    }
}
