//! What carries the events of this process: the embedded log with its Kafka port, or a cluster of somebody else's.
//!
//! [`crate::up`] opens one before the gateway, serves it once the gateway stands, and closes it last. With a cluster there is
//! no log and no Kafka port of our own: events go through the spool in `spool/` of the data folder.

use std::{collections::BTreeMap, path::PathBuf, pin::Pin, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use cairn_backbone::{Backbone, EmbeddedBackbone, KafkaBackbone, KafkaOptions, reader::ReaderOptions};
use cairn_broker::{Authorization, Broker, Port, SALT_BYTES, SecretHash, User};
use cairn_clock::{Clock, Entropy};
use cairn_contract::TopicPrefix;
use cairn_log::Log;
use cairn_tls::ServerTls;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    UpArguments,
    broker::recovered,
    config::{BackboneKind, Config},
    folder::{Folder, KafkaProtocol},
    kafka_section::KafkaSection,
    listen,
    measures::Measures,
    take_over::{self, Brokers},
    up,
};

/// A wait for the cluster that is longer than this is said.
const SILENT_MAX: Duration = Duration::from_secs(2);

/// Which parts run in this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// Gateway and backbone.
    Everything,
    /// The embedded log with its Kafka port.
    Broker,
    /// The gateway, against a cluster or a `cairn broker` elsewhere.
    Gateway,
}

/// How this process reads its own log. Where the Kafka port has TLS or rules, that is by a port of its own on 127.0.0.1 which lets
/// nobody in without a secret that this process alone knows, and that is another at each start: so reading needs neither a
/// client certificate nor a name that the port's certificate has.
pub(crate) struct Own {
    address: String,
    secret: Option<String>,
}

/// Who this process is at its own port.
const OWN_USER: &str = "cairn-up";

impl Own {
    async fn open(entropy: &Entropy) -> anyhow::Result<(Self, (TcpListener, Port))> {
        let (mut random, mut salt) = ([0; 32], [0; SALT_BYTES]);
        entropy.fill(&mut random);
        entropy.fill(&mut salt);
        let secret = hex::encode(random);
        let user = User { secret: SecretHash::of(salt, secret.as_bytes()), writes_protected: false };
        let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen on 127.0.0.1")?;
        let own = Self { address: listener.local_addr()?.to_string(), secret: Some(secret) };
        let only = Some([(OWN_USER, user)].into_iter().collect());
        Ok((own, (listener, Port { tls: None, only, is_inner: true })))
    }

    fn properties(&self) -> BTreeMap<String, String> {
        let Some(secret) = &self.secret else { return BTreeMap::new() };
        let pairs = [
            ("security.protocol", "sasl_plaintext"),
            ("sasl.mechanisms", "PLAIN"),
            ("sasl.username", OWN_USER),
            ("sasl.password", secret),
        ];
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}

async fn cluster_of(options: KafkaOptions) -> anyhow::Result<Arc<KafkaBackbone>> {
    let bootstrap = options.bootstrap.clone();
    let opening = KafkaBackbone::open(options);
    tokio::pin!(opening);
    let opened = tokio::select! {
        opened = &mut opening => opened,
        () = tokio::time::sleep(SILENT_MAX) => {
            eprintln!("cairn: waiting for the cluster at {bootstrap}");
            opening.await
        }
    };
    Ok(Arc::new(opened.context("cannot use the cluster")?))
}

/// The opened backbone.
pub(crate) enum Engine {
    Embedded {
        log: Log,
        broker: Broker,
        ports: Vec<(TcpListener, Port)>,
        address: String,
        own: Own,
        tls: Option<ServerTls>,
        tenants: BTreeMap<String, TopicPrefix>,
        /// Whether another broker takes over when this one is gone.
        is_replaceable: bool,
    },
    Cluster {
        backbone: Arc<KafkaBackbone>,
        bootstrap: String,
        properties: BTreeMap<String, String>,
        config: Option<PathBuf>,
        tenants: BTreeMap<String, Arc<KafkaBackbone>>,
    },
}

impl Engine {
    /// Opens what the configuration names.
    pub(crate) async fn open(
        arguments: &UpArguments,
        config: &Config,
        role: Role,
        folder: &Folder,
        clock: &Clock,
        entropy: &Entropy,
    ) -> anyhow::Result<Self> {
        let tenants = config.tenants.prefixes()?;
        let cluster = config.backbone.kind == BackboneKind::Kafka || arguments.bootstrap.is_some();
        match role {
            Role::Broker if cluster => {
                bail!("cairn broker is the embedded log itself: remove backbone.kind = \"kafka\", or run cairn gateway")
            }
            Role::Gateway if !cluster => bail!(
                "cairn gateway needs a cluster to write to: set [backbone] kind = \"kafka\" and bootstrap, or give --bootstrap HOST:PORT; cairn up brings a log of its own"
            ),
            _ => {}
        }
        if !cluster {
            let wanted = arguments.kafka.as_deref().or(config.kafka.listen.as_deref());
            let listener = up::bind("kafka", wanted, "127.0.0.1:9092", arguments.any_port).await?;
            let kafka = &config.kafka;
            let tls = listen::secured(
                "kafka",
                kafka.tls.as_ref(),
                listen::KAFKA,
                listener.local_addr()?,
                kafka.allow_plaintext,
            )?;
            let port = Port { tls: tls.clone().map(listen::handshakes), ..Port::default() };
            let brokers = Brokers::of(config)?;
            let log =
                up::open_log(arguments, config, folder, (brokers.as_ref(), &listener, &port), clock, entropy).await?;
            let broker = up::open_broker(config, folder, &listener, (&log, brokers.as_ref()), clock, entropy).await?;
            recovered::tell(&broker, folder.path())?;
            let address = listener.local_addr()?.to_string();
            let is_replaceable = brokers.is_some();
            let mut ports = vec![(listener, port)];
            let own = if tls.is_none() && kafka.authorization() == Authorization::Open {
                Own { address: address.clone(), secret: None }
            } else {
                let (own, port) = Own::open(entropy).await?;
                ports.push(port);
                own
            };
            return Ok(Self::Embedded { log, broker, ports, address, own, tls, tenants, is_replaceable });
        }
        let KafkaSection { listen: address, advertised, tls, .. } = &config.kafka;
        if arguments.kafka.is_some() || address.is_some() || advertised.is_some() || tls.is_some() {
            bail!("with a cluster as backbone Cairn has no Kafka port of its own: remove [kafka] and --kafka");
        }
        let mut options = config.backbone.kafka(arguments.bootstrap.as_deref(), folder.path().join("spool"))?;
        options.at_rest = config.encryption.open(folder.path(), clock, entropy).await?;
        let (bootstrap, properties) = (options.bootstrap.clone(), options.properties.clone());
        let backbone = cluster_of(options.clone()).await?;
        // Beside each other: where the cluster is away, each waits for it.
        let own = futures::future::try_join_all(tenants.into_iter().map(|(name, prefix)| {
            let spool = folder.path().join("tenants").join(&name).join("spool");
            let opening = cluster_of(KafkaOptions { prefix, spool, ..options.clone() });
            async move {
                let opened = opening.await.with_context(|| format!("the topics of the tenant {name}"))?;
                anyhow::Ok((name, opened))
            }
        }));
        let own = own.await?.into_iter().collect();
        let config =
            arguments.config.clone().or_else(|| Some(folder.path().join("cairn.toml")).filter(|path| path.is_file()));
        let config = config.map(|path| path.canonicalize()).transpose()?;
        Ok(Self::Cluster { backbone, bootstrap, properties, config, tenants: own })
    }

    /// Where events are appended.
    pub(crate) fn backbone(&self) -> Arc<dyn Backbone> {
        match self {
            Self::Embedded { broker, .. } => Arc::new(EmbeddedBackbone::new(broker.clone())),
            Self::Cluster { backbone, .. } => backbone.clone(),
        }
    }

    /// Where events of tenants with topics of their own are appended, by the tenant's name.
    pub(crate) fn tenants(&self) -> Vec<(String, Arc<dyn Backbone>)> {
        match self {
            Self::Embedded { broker, tenants, .. } => {
                let of = |prefix: &TopicPrefix| EmbeddedBackbone::new(broker.clone()).of_tenant(prefix.clone());
                tenants.iter().map(|(name, prefix)| (name.clone(), Arc::new(of(prefix)) as Arc<dyn Backbone>)).collect()
            }
            Self::Cluster { tenants, .. } => {
                tenants.iter().map(|(name, own)| (name.clone(), own.clone() as Arc<dyn Backbone>)).collect()
            }
        }
    }

    /// How this process reads its own events, by the Kafka protocol as anybody does.
    pub(crate) fn reading(&self) -> ReaderOptions {
        let (address, properties) = match self {
            Self::Embedded { own, .. } => (own.address.as_str(), own.properties()),
            Self::Cluster { bootstrap, properties, .. } => (bootstrap.as_str(), properties.clone()),
        };
        ReaderOptions { properties, ..ReaderOptions::all(address) }
    }

    /// Ends when another broker has taken over, or may have; never, where there is no other.
    pub(crate) fn lost(&self) -> Pin<Box<dyn Future<Output = String> + Send>> {
        match self {
            Self::Embedded { log, is_replaceable: true, .. } => Box::pin(take_over::lost(log)),
            _ => Box::pin(std::future::pending()),
        }
    }

    /// Ends when the disk of the log failed; never, where there is none.
    pub(crate) fn broken(&self) -> impl Future<Output = String> + Send + use<> {
        let log = match self {
            Self::Embedded { log, .. } => Some(log.clone()),
            Self::Cluster { .. } => None,
        };
        async move {
            loop {
                tokio::time::sleep(take_over::LOOK_INTERVAL).await;
                if let Some(why) = log.as_ref().and_then(Log::failure) {
                    return why;
                }
            }
        }
    }

    /// Whether the log is this process's own.
    pub(crate) fn is_embedded(&self) -> bool {
        matches!(self, Self::Embedded { .. })
    }

    /// What the Kafka port speaks, where there is one of our own.
    pub(crate) fn protocol(&self) -> Option<KafkaProtocol> {
        match self {
            Self::Embedded { tls: Some(_), .. } => Some(KafkaProtocol::Ssl),
            Self::Embedded { .. } => Some(KafkaProtocol::Plaintext),
            Self::Cluster { .. } => None,
        }
    }

    /// Where Kafka clients find the events.
    pub(crate) fn address(&self) -> &str {
        match self {
            Self::Embedded { address, .. } => address,
            Self::Cluster { bootstrap, .. } => bootstrap,
        }
    }

    /// The configuration that says how the cluster is reached.
    pub(crate) fn cluster_config(&self) -> Option<PathBuf> {
        match self {
            Self::Embedded { .. } => None,
            Self::Cluster { config, .. } => config.clone(),
        }
    }

    /// The words of the ready line.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Embedded { address, .. } => format!("kafka {address}"),
            Self::Cluster { bootstrap, .. } => format!("cluster {bootstrap}"),
        }
    }

    /// What `/metrics` shows of it; a cluster's spool is the recorder's to show.
    pub(crate) fn measures(&self) -> Measures {
        match self {
            Self::Embedded { log, broker, .. } => {
                Measures { log: Some(log.clone()), broker: Some(broker.clone()), ..Measures::default() }
            }
            Self::Cluster { .. } => Measures::default(),
        }
    }

    /// Begins to serve Kafka clients, where that is this process's work.
    pub(crate) fn serve(&mut self, stop: &CancellationToken, tasks: &TaskTracker) {
        let Self::Embedded { broker, ports, tls, .. } = self else { return };
        for (listener, port) in ports.drain(..) {
            let (broker, stop) = (broker.clone(), stop.clone());
            tasks.spawn(async move { broker.serve_port(listener, port, stop).await });
        }
        if let Some(tls) = tls {
            tasks.spawn(listen::follow_certificates("kafka", tls.clone(), stop.clone()));
        }
    }

    /// Ends it; everything that was acknowledged stays.
    pub(crate) async fn close(self) {
        match self {
            Self::Embedded { log, .. } => {
                log.close().await;
                let waiting = log.local_bytes();
                // Who was replaced has nothing to upload: the other one read what it acknowledged.
                if waiting > 0 && log.fenced_by().is_none() {
                    eprintln!(
                        "cairn: {waiting} bytes of the log are not in the object store and are uploaded at the next start"
                    );
                }
            }
            Self::Cluster { backbone, tenants, .. } => {
                let all = || std::iter::once(&backbone).chain(tenants.values());
                futures::future::join_all(all().map(|one| one.close())).await;
                let waiting: u64 = all().map(|one| one.stats().spool_events).sum();
                if waiting > 0 {
                    eprintln!("cairn: {waiting} events wait in the spool and are delivered at the next start");
                }
            }
        }
    }
}
