//! An issuer's keys: found by its metadata or at a given address, kept, and asked for again when they may have changed.
//!
//! A token with a key that is not known makes the issuer be asked, at most so often as its options say, and by one
//! request at a time: those who wait share the answer of a request that began after they came. So a rotated key loses no
//! call, and a flood of made-up keys costs the issuer next to nothing. Keys that are there are used while the issuer is
//! away, for a bounded time.

use std::{fs::File, io::Read, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use cairn_clock::{Clock, Moment};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::{
    fetch::{Fetch, FetchError, check_url},
    jwk::{Key, KeySet},
    jws::Algorithm,
    object::object,
    options::{IssuerOptions, KeySource},
    rejection::Reason,
};

/// How long the address of the keys is taken from metadata that was read before.
const METADATA_AGE_MAX: Duration = Duration::from_secs(3_600);

/// Longest file of keys, in bytes.
const FILE_BYTES_MAX: u64 = 256 * 1_024;

/// An issuer whose keys are kept.
#[derive(Debug)]
pub(crate) struct Issuer {
    pub(crate) name: String,
    pub(crate) options: IssuerOptions,
    fetch: Arc<dyn Fetch>,
    clock: Clock,
    kept: Mutex<Kept>,
    /// Held by whoever asks.
    asking: Arc<tokio::sync::Mutex<()>>,
    waiting: Semaphore,
}

#[derive(Debug)]
struct Kept {
    keys: Arc<KeySet>,
    /// When the keys were asked for that are here.
    asked_at: Option<Moment>,
    /// The address of the keys, and when the metadata was read.
    address: Option<(String, Moment)>,
    /// Requests that have begun, and the newest that has ended, well or not.
    begun: u64,
    ended: u64,
    error: Option<FetchError>,
    budget: Budget,
}

/// How often the issuer may still be asked.
#[derive(Debug)]
struct Budget {
    left: u32,
    since: Moment,
}

impl Budget {
    /// Takes one, or says how long to wait for it.
    fn take(&mut self, options: &IssuerOptions, now: Moment) -> Result<(), Duration> {
        let every = options.refresh_every.max(Duration::from_millis(1));
        let passed = now.since(self.since);
        let earned = u32::try_from(passed.as_micros() / every.as_micros()).unwrap_or(u32::MAX);
        if earned > 0 {
            self.left = self.left.saturating_add(earned).min(options.refreshes_max.max(1));
            self.since = self.since.plus(every.saturating_mul(earned));
        }
        if self.left == 0 {
            return Err(every.saturating_sub(now.since(self.since)));
        }
        self.left -= 1;
        Ok(())
    }
}

impl Issuer {
    pub(crate) fn new(name: &str, options: IssuerOptions, fetch: Arc<dyn Fetch>, clock: Clock) -> Arc<Self> {
        let budget = Budget { left: options.refreshes_max.max(1), since: clock.moment() };
        let kept =
            Kept { keys: Arc::default(), asked_at: None, address: None, begun: 0, ended: 0, error: None, budget };
        Arc::new(Self {
            name: name.to_owned(),
            waiting: Semaphore::new(options.waiting_max),
            options,
            fetch,
            clock,
            kept: Mutex::new(kept),
            asking: Arc::default(),
        })
    }

    /// The key that checks a token which names `kid`.
    pub(crate) async fn key(self: &Arc<Self>, kid: Option<&str>, algorithm: Algorithm) -> Result<Key, Reason> {
        let (keys, age, begun) = self.now();
        let is_fresh = age.is_some_and(|age| age <= self.options.keys_age_max);
        if is_fresh {
            if let Some(key) = keys.find(kid, algorithm) {
                if age.is_some_and(|age| age > self.options.refresh_after) {
                    self.refresh_behind();
                }
                return Ok(key.clone());
            }
            // A key of that name that does not do this algorithm will not do it later either.
            if kid.is_some_and(|kid| keys.names(kid)) {
                return Err(Reason::AlgorithmRefused);
            }
        }
        let _place = self.waiting.try_acquire().map_err(|_| Reason::Busy)?;
        if let Err(error) = self.asked_since(begun).await {
            tracing::warn!(issuer = self.name, %error, "the keys of an issuer cannot be had");
            return Err(Reason::IssuerUnavailable);
        }
        let (keys, ..) = self.now();
        match keys.find(kid, algorithm) {
            Some(key) => Ok(key.clone()),
            None if kid.is_some_and(|kid| keys.names(kid)) => Err(Reason::AlgorithmRefused),
            None => Err(Reason::KeyUnknown),
        }
    }

    /// The keys, how old they are, and how many requests had begun.
    fn now(&self) -> (Arc<KeySet>, Option<Duration>, u64) {
        let kept = self.kept.lock();
        (kept.keys.clone(), kept.asked_at.map(|at| self.clock.moment().since(at)), kept.begun)
    }

    /// Asks while others go on with what is there.
    fn refresh_behind(self: &Arc<Self>) {
        let Ok(asking) = self.asking.clone().try_lock_owned() else { return };
        if self.kept.lock().budget.take(&self.options, self.clock.moment()).is_err() {
            return;
        }
        let issuer = self.clone();
        tokio::spawn(async move {
            let _asking = asking;
            if let Err(error) = issuer.ask().await {
                tracing::warn!(issuer = issuer.name, %error, "the keys of an issuer cannot be refreshed; the old ones are used");
            }
        });
    }

    /// Waits for the end of a request that began after `begun` of them had; makes it where nobody else does.
    async fn asked_since(&self, begun: u64) -> Result<(), FetchError> {
        let _asking = self.asking.lock().await;
        loop {
            let wait = {
                let mut kept = self.kept.lock();
                if kept.ended > begun {
                    return kept.error.clone().map_or(Ok(()), Err);
                }
                kept.budget.take(&self.options, self.clock.moment())
            };
            match wait {
                Ok(()) => return self.ask().await,
                Err(wait) => tokio::time::sleep(wait.max(Duration::from_millis(1))).await,
            }
        }
    }

    /// Asks. Whoever calls holds `asking`.
    async fn ask(&self) -> Result<(), FetchError> {
        let (number, asked_at) = {
            let mut kept = self.kept.lock();
            kept.begun += 1;
            (kept.begun, self.clock.moment())
        };
        let answer = self.read().await;
        let mut kept = self.kept.lock();
        kept.ended = number;
        kept.error = answer.as_ref().err().cloned();
        match answer {
            Ok(keys) => {
                kept.keys = Arc::new(keys);
                kept.asked_at = Some(asked_at);
                Ok(())
            }
            Err(error) => {
                // The keys may have moved.
                kept.address = None;
                Err(error)
            }
        }
    }

    async fn read(&self) -> Result<KeySet, FetchError> {
        let bytes = match &self.options.keys {
            KeySource::File(path) => file(path)?,
            _ => self.fetch.get(&self.address().await?).await?,
        };
        KeySet::read(&bytes).map_err(|why| FetchError(why.to_owned()))
    }

    async fn address(&self) -> Result<String, FetchError> {
        if let KeySource::Url(url) = &self.options.keys {
            return Ok(url.clone());
        }
        let now = self.clock.moment();
        if let Some((address, at)) = &self.kept.lock().address
            && now.since(*at) <= METADATA_AGE_MAX
        {
            return Ok(address.clone());
        }
        let mut fault = FetchError("it has no metadata".to_owned());
        for url in metadata_addresses(&self.options.issuer)? {
            match self.fetch.get(&url).await.and_then(|bytes| self.keys_address(&bytes)) {
                Ok(address) => {
                    self.kept.lock().address = Some((address.clone(), now));
                    return Ok(address);
                }
                Err(error) => fault = error,
            }
        }
        Err(fault)
    }

    /// Where metadata says the keys are; it must be this issuer's own.
    fn keys_address(&self, metadata: &[u8]) -> Result<String, FetchError> {
        let metadata = object(metadata).ok_or_else(|| FetchError("its metadata is not a JSON object".to_owned()))?;
        if metadata.get("issuer").and_then(Value::as_str) != Some(&self.options.issuer) {
            return Err(FetchError("its metadata is that of another issuer (RFC 8414, section 3.3)".to_owned()));
        }
        let address = metadata.get("jwks_uri").and_then(Value::as_str);
        let address = address.ok_or_else(|| FetchError("its metadata has no jwks_uri".to_owned()))?;
        check_url(address).map_err(|error| FetchError(format!("its jwks_uri: {error}")))?;
        Ok(address.to_owned())
    }
}

/// What is in a file of keys.
fn file(path: &Path) -> Result<Bytes, FetchError> {
    let fault = |why: String| FetchError(format!("{}: {why}", path.display()));
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| fault(error.to_string()))?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| fault(error.to_string()))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(fault(format!("it is longer than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes.into())
}

/// Where an issuer's metadata may lie, in the order in which MCP's authorization pages ask.
fn metadata_addresses(issuer: &str) -> Result<Vec<String>, FetchError> {
    let uri = check_url(issuer)?;
    let path = uri.path().trim_end_matches('/');
    let scheme = uri.scheme_str().unwrap_or("https");
    let authority = uri.authority().map_or("", http::uri::Authority::as_str);
    let root = format!("{scheme}://{authority}");
    let mut addresses = vec![
        format!("{root}/.well-known/oauth-authorization-server{path}"),
        format!("{root}/.well-known/openid-configuration{path}"),
    ];
    if !path.is_empty() {
        addresses.push(format!("{root}{path}/.well-known/openid-configuration"));
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_looked_for_where_mcp_says() {
        let with_path = metadata_addresses("https://auth.example.com/tenant1").expect("an issuer");
        assert_eq!(
            with_path,
            [
                "https://auth.example.com/.well-known/oauth-authorization-server/tenant1",
                "https://auth.example.com/.well-known/openid-configuration/tenant1",
                "https://auth.example.com/tenant1/.well-known/openid-configuration",
            ]
        );
        assert_eq!(metadata_addresses("https://auth.example.com/").expect("an issuer").len(), 2);
    }

    #[test]
    fn the_budget_never_gives_more_than_it_earns() {
        let options = IssuerOptions {
            refreshes_max: 2,
            refresh_every: Duration::from_secs(10),
            ..IssuerOptions::new("https://i")
        };
        let start = Moment::from_micros(1_000_000_000);
        let mut budget = Budget { left: 2, since: start };
        let mut given = 0;
        for second in 0..60 {
            for _ in 0..50 {
                given += u32::from(budget.take(&options, start.plus(Duration::from_secs(second))).is_ok());
            }
        }
        assert_eq!(given, 2 + 5, "two at once and one every ten seconds");
    }
}
