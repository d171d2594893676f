//! A registry in this process.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use cairn_clock::Entropy;
use cairn_gateway::OriginPolicy;
use cairn_registry::{Bounds, Guard, Names, Registry, Secret, TopicOptions, publish_contracts, router};
use cairn_tls::ServerTls;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{DEFAULT_ADDRESS, RegistryMode, RegistrySection, elsewhere::Elsewhere};
use crate::{UpArguments, config::Config, door, engine::Engine, listen, up};

/// How long the start waits for the topic to be read.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long to wait before a cluster that was away is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
/// Where schemas are kept.
const DEFAULT_TOPIC: &str = "_schemas";

/// A registry that is wanted, before the backbone serves.
pub(crate) enum Bound {
    Own { listener: TcpListener, tls: Option<Box<ServerTls>>, section: Box<RegistrySection>, replication: i32 },
    Elsewhere(Box<Elsewhere>),
}

impl Bound {
    /// Takes the address, and refuses one that other machines reach without TLS and a secret.
    pub(crate) async fn bind(arguments: &UpArguments, config: &Config) -> anyhow::Result<Option<Self>> {
        let (section, argument) = (&config.registry, arguments.registry.as_deref());
        match section.mode(argument) {
            RegistryMode::Off => return Ok(None),
            RegistryMode::External => {
                return Elsewhere::open(section).map(|found| Some(Self::Elsewhere(Box::new(found))));
            }
            RegistryMode::Embedded => {}
        }
        let wanted = argument.or(section.listen.as_deref());
        let listener = up::bind("registry", wanted, DEFAULT_ADDRESS, arguments.any_port).await?;
        let address = listener.local_addr()?;
        may_listen(section, address)?;
        let tls = listen::secured("registry", section.tls.as_ref(), listen::HTTP, address, false)?;
        let replication = config.backbone.replication();
        Ok(Some(Self::Own { listener, tls: tls.map(Box::new), section: Box::new(section.clone()), replication }))
    }

    /// Reads the topic, registers Cairn's contracts and serves. Gives the address as a URL, where it is one of this process.
    pub(crate) async fn open(
        self,
        engine: &Engine,
        entropy: &Entropy,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> anyhow::Result<Option<String>> {
        let (listener, tls, section, replication) = match self {
            Self::Own { listener, tls, section, replication } => (listener, tls.map(|tls| *tls), section, replication),
            Self::Elsewhere(elsewhere) => {
                // One that is away must not keep Cairn from recording.
                tasks.spawn(elsewhere.publish(stop.clone()));
                return Ok(None);
            }
        };
        let reading = engine.reading();
        let options = TopicOptions {
            bootstrap: reading.bootstrap,
            properties: reading.properties,
            name: section.topic.clone().unwrap_or_else(|| DEFAULT_TOPIC.to_owned()),
            replication,
            ready_within: READY_WITHIN,
        };
        let default = Bounds::default();
        let bounds = Bounds {
            schema_bytes_max: section
                .schema_bytes_max
                .unwrap_or(default.schema_bytes_max)
                .min(default.schema_bytes_max),
            schemas_max: section.schemas_max.unwrap_or(default.schemas_max),
            ..default
        };
        let users = section.users.iter().map(|(name, secret)| (name.clone(), Secret::of(secret)));
        let origins = OriginPolicy::new(section.origins.clone(), section.hosts.clone());
        let names: Names =
            Arc::new(move |headers, authority| origins.check(headers, authority).map_err(|fault| fault.to_string()));
        let guard = Guard::new(names, users.collect::<BTreeMap<_, _>>());
        let url = up::here(tls.is_some(), listener.local_addr()?);
        if let Some(tls) = &tls {
            tasks.spawn(listen::follow_certificates("registry", tls.clone(), stop.clone()));
        }
        let handshakes = tls.map(listen::handshakes);
        let opening =
            Opening { options, bounds, contracts: section.contracts.unwrap_or(true), entropy: entropy.clone() };
        let opened = match engine {
            Engine::Embedded { .. } => Some(opening.once().await?),
            // A cluster that is away must not keep Cairn from recording.
            Engine::Cluster { .. } => None,
        };
        let stop = stop.clone();
        tasks.spawn(async move {
            let Some(registry) = (match opened {
                Some(registry) => Some(registry),
                None => opening.until(&stop).await,
            }) else {
                return;
            };
            door::REGISTRY.serve(router(registry, guard), listener, handshakes, stop).await;
        });
        Ok(Some(url))
    }
}

/// A registry that is being opened.
struct Opening {
    options: TopicOptions,
    bounds: Bounds,
    contracts: bool,
    entropy: Entropy,
}

impl Opening {
    async fn once(&self) -> anyhow::Result<Registry> {
        let registry = Registry::open(self.options.clone(), self.bounds, self.entropy.clone());
        let registry = registry.await.context("cannot open the registry")?;
        if self.contracts {
            publish_contracts(&registry).await.context("cannot register Cairn's own contracts")?;
        }
        Ok(registry)
    }

    /// Again until it opens; none once everything ends.
    async fn until(&self, stop: &CancellationToken) -> Option<Registry> {
        let mut said = None;
        loop {
            let tried = tokio::select! {
                () = stop.cancelled() => return None,
                tried = self.once() => tried,
            };
            let words = match tried {
                Ok(registry) => return Some(registry),
                Err(error) => format!("{error:#}"),
            };
            if said.as_ref() != Some(&words) {
                eprintln!("cairn: the registry does not serve yet: {words}; it is tried again");
                said = Some(words);
            }
            if tokio::time::timeout(AGAIN_AFTER, stop.cancelled()).await.is_ok() {
                return None;
            }
        }
    }
}

fn may_listen(section: &RegistrySection, address: SocketAddr) -> anyhow::Result<()> {
    if !address.ip().is_loopback() && (section.tls.is_none() || section.users.is_empty()) {
        bail!(
            "registry listens on {address}, which other machines reach, and whoever comes could register and delete schemas: \
             set [registry.tls] certificate and key and a secret in [registry.users], or listen on 127.0.0.1"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_reach_needs_tls_and_a_secret() {
        let address = |text: &str| text.parse().expect("an address");
        let section = |text: &str| toml::from_str::<RegistrySection>(text).expect("a section");
        let tls = "[tls]\ncertificate = \"a\"\nkey = \"b\"\n";
        let users = "[users]\nme = \"s3cret-enough\"\n";
        assert!(may_listen(&section(""), address("127.0.0.1:1")).is_ok());
        for text in [String::new(), tls.to_owned(), users.to_owned()] {
            let words = may_listen(&section(&text), address("0.0.0.0:1")).expect_err("others reach it").to_string();
            assert!(words.contains("[registry.tls]") && words.contains("[registry.users]"), "{words}");
        }
        assert!(may_listen(&section(&format!("{tls}{users}")), address("0.0.0.0:1")).is_ok());
    }
}
