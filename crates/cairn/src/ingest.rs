//! `[ingest]` and `--ingest`: where agents report model calls and servers what they did downstream.
//!
//! Read with the configuration; bound by `up` before anything is served, opened with the gateway, whose identities, screening and record it
//! shares. Off unless it is asked for: an address for telemetry may belong to a collector already.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use cairn_backbone::Recorder;
use cairn_clock::{Clock, Entropy};
use cairn_contract::{Common, EventType, Target};
use cairn_gateway::{Gateway, HandsCalls, Keeping, Keys, OriginPolicy, PayloadField, PayloadMode, Reach, ServerSpec};
use cairn_identity::{Identity, Rejection, Verifier};
use cairn_ingest::{Bounds, CallHandles, Ingest, Kept, Metrics, Parts, RESOURCE, Surroundings, router};
use cairn_tls::ServerTls;
use http::HeaderMap;
use prometheus_client::registry::Registry;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    UpArguments,
    access::check_scopes,
    config::Config,
    door,
    engine::Role,
    listen::{self, TlsSection},
    up,
};

/// Where exporters of OTLP over HTTP send to that were told nothing else.
const DEFAULT_ADDRESS: &str = "127.0.0.1:4318";
/// What the listener speaks within TLS.
const PROTOCOLS: &[&[u8]] = if cfg!(feature = "grpc") { &[b"h2", b"http/1.1"] } else { listen::HTTP };
/// Where a child that reports finds the address. No child gets variables with Cairn's own prefix.
const URL_VARIABLE: &str = "MCP_ACTIONS_URL";
/// Longest body that may be configured, in bytes.
const BODY_BYTES_MAX: usize = 64 << 20;

/// `[ingest]`
#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct IngestSection {
    listen: Option<String>,
    /// Scopes that every sender needs.
    scopes: Vec<String>,
    hosts: Vec<String>,
    origins: Vec<String>,
    body_bytes_max: Option<usize>,
    /// For how many days after a call actions are taken for it.
    actions_days_max: Option<u32>,
    pub(crate) tls: Option<TlsSection>,
    /// Whether other machines may be served without TLS.
    allow_plaintext: bool,
}

impl IngestSection {
    /// What makes no sense wherever it listens.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        check_scopes(&self.scopes).context("ingest.scopes")?;
        if self.body_bytes_max.is_some_and(|bytes| bytes == 0 || bytes > BODY_BYTES_MAX) {
            bail!("ingest.body_bytes_max must be 1 to {BODY_BYTES_MAX}");
        }
        if self.actions_days_max == Some(0) {
            bail!("ingest.actions_days_max is 0, so no action would be taken: set it to at least 1");
        }
        Ok(())
    }

    fn bounds(&self) -> Bounds {
        let default = Bounds::default();
        let body_bytes_max = self.body_bytes_max.unwrap_or(default.body_bytes_max);
        let days = |days: u32| Duration::from_secs(u64::from(days) * 24 * 60 * 60);
        Bounds {
            body_bytes_max,
            unpacked_bytes_max: default.unpacked_bytes_max.max(body_bytes_max),
            bodies_bytes_max: default.bodies_bytes_max.max(body_bytes_max + 16),
            handle_age_max: self.actions_days_max.map_or(default.handle_age_max, days),
            ..default
        }
    }
}

/// An address for reports that is wanted, before anything is served.
pub(crate) struct Bound {
    listener: TcpListener,
    tls: Option<ServerTls>,
    section: IngestSection,
    /// The same as a URL that this machine reaches.
    pub(crate) url: String,
}

/// What the address stands on.
pub(crate) struct Ground<'g> {
    pub(crate) gateway: &'g Gateway,
    pub(crate) recorder: &'g Recorder,
    pub(crate) verifier: Arc<Verifier>,
    pub(crate) keeping: &'g Keeping,
    pub(crate) keys: Keys,
    pub(crate) handles: CallHandles,
    pub(crate) clock: &'g Clock,
    pub(crate) entropy: &'g Entropy,
}

impl Bound {
    /// Takes the address where one is wanted.
    pub(crate) async fn bind(arguments: &UpArguments, config: &Config, role: Role) -> anyhow::Result<Option<Self>> {
        let argument = arguments.ingest.as_deref();
        if role == Role::Broker {
            return Ok(None);
        }
        if argument.is_none() && config.ingest.is_none() {
            if let Some(name) = config.reports() {
                bail!("servers.{name}.actions needs [ingest], or --ingest: where would it report what it did?");
            }
            return Ok(None);
        }
        let section = config.ingest.clone().unwrap_or_default();
        let wanted = argument.or(section.listen.as_deref());
        let listener = up::bind(RESOURCE, wanted, DEFAULT_ADDRESS, arguments.any_port).await?;
        let address = listener.local_addr()?;
        let tls = listen::secured(RESOURCE, section.tls.as_ref(), PROTOCOLS, address, section.allow_plaintext)?;
        let url = up::here(tls.is_some(), address);
        Ok(Some(Self { listener, tls, section, url }))
    }

    /// Refuses an address that other machines reach while whoever comes would be the local user.
    pub(crate) fn may_listen(&self, verifier: &Verifier) -> anyhow::Result<()> {
        may_listen(self.listener.local_addr()?, verifier.is_local_only())
    }

    /// Serves until `stop`.
    pub(crate) fn serve(
        self,
        ground: Ground<'_>,
        registry: &mut Registry,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) {
        let Self { listener, tls, section, .. } = self;
        let Ground { gateway, recorder, verifier, keeping, keys, handles, clock, entropy } = ground;
        let metrics = Metrics::default();
        metrics.register(registry);
        let mode = |field| match keeping.rules.mode_of(field, EventType::ModelCalled) {
            PayloadMode::None => Kept::None,
            PayloadMode::Digest => Kept::Digest,
            PayloadMode::Reference | PayloadMode::Inline => Kept::Reference,
        };
        let origins = OriginPolicy::new(section.origins.clone(), section.hosts.clone());
        let ingest = Ingest::new(Parts {
            recorder: recorder.clone(),
            verifier,
            scopes: section.scopes.clone(),
            screener: keeping.screener.clone(),
            vault: keeping.vault.clone(),
            payload_key: keys.payload,
            secret: keys.secret,
            prompts: mode(PayloadField::Arguments),
            outputs: mode(PayloadField::Result),
            handles,
            surroundings: Arc::new(Around { gateway: gateway.clone(), origins }),
            clock: clock.clone(),
            entropy: entropy.clone(),
            bounds: section.bounds(),
            metrics,
        });
        if let Some(tls) = &tls {
            tasks.spawn(listen::follow_certificates(RESOURCE, tls.clone(), stop.clone()));
        }
        let stop = stop.clone();
        let handshakes = tls.map(listen::handshakes);
        tasks.spawn(async move { door::INGEST.serve(router(ingest), listener, handshakes, stop).await });
    }
}

fn may_listen(address: SocketAddr, is_nobody_known: bool) -> anyhow::Result<()> {
    if !address.ip().is_loopback() && is_nobody_known {
        bail!(
            "ingest listens on {address}, which other machines reach, and whoever comes could write into the trail: \
             configure [identity] (docs/identity.md), or listen on 127.0.0.1"
        );
    }
    Ok(())
}

/// The gateway, as ingest asks it.
#[derive(Debug)]
struct Around {
    gateway: Gateway,
    origins: OriginPolicy,
}

impl Surroundings for Around {
    fn workflow_of(&self, who: &Identity, trace_id: &str) -> Option<String> {
        self.gateway.workflow_of_trace(who, trace_id)
    }

    fn not_let_in(&self, rejection: &Rejection, peer: IpAddr) {
        self.gateway.note_refused_at(RESOURCE, rejection, peer);
    }

    fn named(&self, headers: &HeaderMap, authority: Option<&str>) -> Result<(), String> {
        self.origins.check(headers, authority).map_err(|fault| format!("{fault} (ingest.hosts, ingest.origins)"))
    }
}

/// Handles, as the gateway gives them.
#[derive(Debug)]
pub(crate) struct Hands(pub(crate) CallHandles);

impl HandsCalls for Hands {
    fn handle(&self, common: &Common, target: &Target) -> String {
        let tool = match target {
            Target::Tool { gen_ai_tool_name } => Some(gen_ai_tool_name.as_str()),
            _ => None,
        };
        self.0.give(common, tool)
    }
}

/// Tells children that report where they do.
pub(crate) fn tell_children(servers: &mut [ServerSpec], url: &str) {
    for server in servers.iter_mut().filter(|server| server.reports) {
        if let Reach::Stdio { env, .. } = &mut server.reach {
            env.entry(URL_VARIABLE.to_owned()).or_insert_with(|| url.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_reach_needs_somebody_who_is_known() {
        let address = |text: &str| text.parse().expect("an address");
        for here in ["127.0.0.1:1", "[::1]:1"] {
            assert!(may_listen(address(here), true).is_ok());
        }
        let words = may_listen(address("0.0.0.0:1"), true).expect_err("anybody could").to_string();
        assert!(words.contains("[identity]"), "{words}");
        assert!(may_listen(address("0.0.0.0:1"), false).is_ok());
    }

    #[test]
    fn bounds_follow_what_is_configured() {
        let section = |text: &str| toml::from_str::<IngestSection>(text).expect("a section");
        let bounds = section("body_bytes_max = 67108864\nactions_days_max = 2").bounds();
        assert!(bounds.bodies_bytes_max > bounds.body_bytes_max && bounds.unpacked_bytes_max >= bounds.body_bytes_max);
        assert_eq!(bounds.handle_age_max, Duration::from_secs(2 * 86_400));
        for bad in ["body_bytes_max = 0", "body_bytes_max = 67108865", "actions_days_max = 0", "scopes = [\"a b\"]"] {
            assert!(section(bad).check().is_err(), "{bad}");
        }
    }
}
