//! Which protocol eras a server speaks: probed once, remembered, forgotten when the server ends or shows otherwise.
//!
//! The probe is Cairn's own (`server/discover`, and a handshake where a legacy client meets a server that answered it),
//! never a client's call, and leaves no `call.*`. A child is probed as a process of its own that ends before the first
//! real one starts, because some servers end, or settle on an era, with the first message. A server that refuses
//! connections is waited for, as it may still be starting. What cannot be found out (the server is slow, or broken) is
//! not remembered, and the client's messages are relayed as they are. Called by the doors before a session begins.

use std::{collections::HashMap, sync::Arc, time::Duration};

use cairn_mcp::{
    ForwardHeaders, LinkError, LinkFault, Message, RawId, Reach,
    bridge::{NotBridged, Offer},
    era::{self, Era, Probe},
};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{options::ServerSpec, session::Caller, upstream::Server};

/// How long a server may take to answer a probe, its start included.
const PROBE_WAIT: Duration = Duration::from_secs(10);
/// What is known of an HTTP server is probed again, in the background, when it is older than this.
const FRESH_FOR: Duration = Duration::from_secs(600);
/// Descriptions of wrapped servers whose eras are remembered; past it all are forgotten.
const REMEMBERED_MAX: usize = 256;
/// What Cairn calls itself.
const NAME: &str = "cairn";

/// How a client of one era is served.
#[derive(Clone, Debug)]
pub(crate) enum Plan {
    /// Client and server speak the same era, or nobody knows: messages pass as they are.
    Relay,
    /// A legacy client, a modern server.
    ToModern(Arc<Offer>),
    /// A modern client, a legacy server.
    ToLegacy,
    /// The eras differ and cannot be bridged.
    Impossible(NotBridged),
    /// Nobody listens there, and it was waited for long enough.
    Unreachable(LinkError),
}

/// What is known of one server.
#[derive(Debug, Default)]
pub(crate) struct Eras {
    known: Mutex<Option<Known>>,
    /// One probe at a time. Holds when the last one began that found nothing out: whoever waited for it, shares that.
    probing: tokio::sync::Mutex<Option<Instant>>,
}

#[derive(Clone, Debug)]
struct Known {
    /// What it offers to modern clients, where it has any.
    modern: Option<Result<Arc<Offer>, NotBridged>>,
    /// Whether it speaks the legacy era; none where nobody had to know yet.
    legacy: Option<bool>,
    at: Instant,
}

impl Known {
    fn plan(&self, client: Era) -> Option<Plan> {
        match (client, &self.modern, self.legacy) {
            (Era::Modern, Some(_), _) | (Era::Legacy, None, _) | (Era::Legacy, Some(_), Some(true)) => {
                Some(Plan::Relay)
            }
            (Era::Modern, None, _) => Some(Plan::ToLegacy),
            (Era::Legacy, Some(Ok(offer)), Some(false)) => Some(Plan::ToModern(offer.clone())),
            (Era::Legacy, Some(Err(why)), Some(false)) => Some(Plan::Impossible(why.clone())),
            (Era::Legacy, Some(_), None) => None,
        }
    }
}

impl Eras {
    fn plan(&self, client: Era) -> Option<Plan> {
        self.known.lock().as_ref()?.plan(client)
    }

    /// What was known holds no longer: the server ended, was lost, or answered like one of the other era.
    pub(crate) fn forget(&self) {
        *self.known.lock() = None;
    }
}

impl Server {
    /// How a client of this era is served. Waits only where it is not known yet.
    pub(crate) async fn plan(self: &Arc<Self>, client: Era, caller: &Caller) -> Plan {
        if let Some(plan) = self.eras.plan(client) {
            self.refresh_when_old(client, caller);
            return plan;
        }
        let arrived = Instant::now();
        let mut patience = self.patience();
        loop {
            let mut in_vain = self.eras.probing.lock().await;
            if let Some(plan) = self.eras.plan(client) {
                return plan;
            }
            if in_vain.is_some_and(|began| began >= arrived) {
                return Plan::Relay;
            }
            let (began, before) = (Instant::now(), self.eras.known.lock().clone());
            let error = match self.probe(client, before, caller).await {
                Ok(known) => return known.plan(client).unwrap_or(Plan::Relay),
                Err(error) => error,
            };
            if !matches!(error.cause(), LinkFault::Refused { .. }) {
                *in_vain = Some(began);
                return Plan::Relay;
            }
            drop(in_vain);
            if let Err(error) = patience.again(error).await {
                return Plan::Unreachable(error);
            }
        }
    }

    fn refresh_when_old(self: &Arc<Self>, client: Era, caller: &Caller) {
        let is_old = self.eras.known.lock().as_ref().is_some_and(|known| known.at.elapsed() > FRESH_FOR);
        if !is_old || !self.is_http() {
            return;
        }
        let (server, caller) = (self.clone(), caller.clone());
        tokio::spawn(async move {
            let Ok(_alone) = server.eras.probing.try_lock() else { return };
            // What is known holds until something else is found out.
            let _ = server.probe(client, None, &caller).await;
        });
    }

    /// Finds out what is missing, and remembers it.
    async fn probe(&self, client: Era, before: Option<Known>, caller: &Caller) -> Result<Known, LinkError> {
        let mut known = match before {
            Some(known) => known,
            None => self.discover(caller).await.inspect_err(|error| {
                tracing::debug!(server = %self.name, %error, "the server's era could not be probed");
            })?,
        };
        if client == Era::Legacy && known.modern.is_some() && known.legacy.is_none() {
            match self.greets(caller).await {
                Ok(greets) => known.legacy = Some(greets),
                // It answered the first probe, so it is well: it just does not speak that language.
                Err(error) if error.reach() == Reach::Lost && !(self.credential.is_some() && not_let_in(&error)) => {
                    known.legacy = Some(false)
                }
                Err(error) => tracing::debug!(server = %self.name, %error, "the server did not answer a handshake"),
            }
        }
        tracing::debug!(server = %self.name, modern = known.modern.is_some(), legacy = ?known.legacy, "probed");
        *self.eras.known.lock() = Some(known.clone());
        Ok(known)
    }

    async fn discover(&self, caller: &Caller) -> Result<Known, LinkError> {
        let known = |modern, legacy| Known { modern, legacy, at: Instant::now() };
        if self.is_legacy_by_transport() {
            return Ok(known(None, Some(true)));
        }
        let request = era::discover_request(&RawId::text("cairn-probe"), NAME, env!("CARGO_PKG_VERSION"));
        let mut found = self.asked(&request, caller).await;
        if self.was_not_let_in(&found) {
            found = self.asked(&request, caller).await; // with another token, if there is one
        }
        match found? {
            probe @ Probe::Modern { .. } => Ok(known(Some(Offer::of(&probe, &self.name).map(Arc::new)), None)),
            Probe::Legacy { answered: true } => Ok(known(None, Some(true))),
            // Silence is what a slow or broken server shows too; a legacy one answers the handshake.
            Probe::Legacy { answered: false } => match self.greets(caller).await {
                Ok(true) => Ok(known(None, Some(true))),
                Ok(false) => {
                    let reason = "the server answers neither server/discover nor initialize".to_owned();
                    Err(LinkError::lost(LinkFault::Unfit { reason }))
                }
                Err(error) => Err(error),
            },
        }
    }

    async fn asked(&self, request: &Message, caller: &Caller) -> Result<Probe, LinkError> {
        self.proven(caller).await?;
        let link = self.probe_link(caller).await?;
        let found = era::probe(&*link, request, &ForwardHeaders::default(), PROBE_WAIT).await;
        link.close().await;
        found
    }

    /// A token for a probe. Where there is none, the server is not asked: the call that comes next says why.
    async fn proven(&self, caller: &Caller) -> Result<(), LinkError> {
        let unfit = |error: cairn_credentials::CredentialError| {
            LinkError::not_sent(LinkFault::Unfit { reason: error.to_string() })
        };
        self.prove(caller).await.map_err(unfit)
    }

    fn was_not_let_in<T>(&self, found: &Result<T, LinkError>) -> bool {
        self.credential.is_some() && found.as_ref().is_err_and(not_let_in)
    }

    async fn greets(&self, caller: &Caller) -> Result<bool, LinkError> {
        let greets = self.greeted(caller).await;
        if self.was_not_let_in(&greets) { self.greeted(caller).await } else { greets }
    }

    async fn greeted(&self, caller: &Caller) -> Result<bool, LinkError> {
        self.proven(caller).await?;
        let link = self.probe_link(caller).await?;
        let greets = era::greets(&*link, NAME, env!("CARGO_PKG_VERSION"), PROBE_WAIT).await;
        link.close().await;
        greets
    }
}

/// A server that wants another token has said nothing of its era.
fn not_let_in(error: &LinkError) -> bool {
    matches!(error.cause(), LinkFault::Status { status: 401 | 403 })
}

/// What is known of wrapped servers, which are described anew by each wrap.
#[derive(Debug, Default)]
pub(crate) struct EraBook(Mutex<HashMap<String, Arc<Eras>>>);

impl EraBook {
    /// What is known of a server of this description. The description may hold secrets, so its digest is the key.
    pub(crate) fn of(&self, spec: &ServerSpec, digest: impl Fn(&[u8]) -> String) -> Arc<Eras> {
        let key = digest(&spec.reach.description());
        let mut book = self.0.lock();
        if book.len() >= REMEMBERED_MAX && !book.contains_key(&key) {
            book.clear();
        }
        book.entry(key).or_default().clone()
    }
}
