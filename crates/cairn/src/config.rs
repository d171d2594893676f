//! The configuration: `cairn.toml`, or an MCP client's own `mcpServers` JSON as it is.
//!
//! Read once at start. Unknown keys and bad values are errors that name the file, the key and what to do. Values may
//! hold secrets, so nothing here prints one: `${NAME}` in a value is replaced by that environment variable.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use cairn_backbone::KafkaOptions;
use cairn_catalogue::Mode;
use cairn_credentials::options::AuthOptions;
use cairn_freshness::{Bounds, Declared, Dependence};
use cairn_gateway::{DecisionPoint, Limits, OriginPolicy, Reach, ScopeRules, ServerSpec};
use cairn_limits::Rule;
use cairn_operators::Webhook;
use serde::Deserialize;

use crate::{
    access::{IdentitySection, check_scopes},
    auth::AuthSection,
    client_file::{self, ClientServer},
    consumers::ConsumersSection,
    contracts::ContractsSection,
    dataset::EvaluateSection,
    decision_point::DecisionPointSection,
    encryption::EncryptionSection,
    evidence::EvidenceSection,
    faults,
    ingest::IngestSection,
    kafka_section::KafkaSection,
    limits::{self, LimitSection},
    listen::TlsSection,
    registry::RegistrySection,
    store::StoreSection,
    tenants::TenantsSection,
    trust::CommandsSection,
    vault::{ScreenSection, VaultSection},
};
/// A spool below this could not hold the outcomes of the calls that it lets through.
const SPOOL_BYTES_MIN: u64 = 1 << 20;

/// Fewer bytes than this cannot hold the heads that common clients send.
const HEADER_BYTES_MIN: usize = 8_192;

/// Everything that can be configured.
#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) data: Option<PathBuf>,
    pub(crate) gateway: GatewaySection,
    pub(crate) identity: Option<IdentitySection>,
    pub(crate) kafka: KafkaSection,
    pub(crate) admin: AdminSection,
    pub(crate) commands: CommandsSection,
    pub(crate) approvals: ApprovalsSection,
    pub(crate) backbone: BackboneSection,
    pub(crate) store: StoreSection,
    pub(crate) registry: RegistrySection,
    pub(crate) ingest: Option<IngestSection>,
    pub(crate) encryption: EncryptionSection,
    pub(crate) freshness: FreshnessSection,
    pub(crate) catalogue: CatalogueSection,
    pub(crate) credentials: CredentialsSection,
    pub(crate) decision_point: Option<DecisionPointSection>,
    pub(crate) evidence: EvidenceSection,
    pub(crate) consumers: ConsumersSection,
    pub(crate) evaluate: EvaluateSection,
    /// `[lake]`: for `cairn-lake` to read and to check.
    pub(crate) lake: serde::de::IgnoredAny,
    pub(crate) screen: ScreenSection,
    pub(crate) vault: VaultSection,
    pub(crate) limits: Vec<LimitSection>,
    pub(crate) tenants: TenantsSection,
    pub(crate) contracts: ContractsSection,
    pub(crate) servers: BTreeMap<String, ServerSection>,
}

/// `[gateway]`
#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct GatewaySection {
    pub(crate) listen: Option<String>,
    pub(crate) origins: Vec<String>,
    pub(crate) hosts: Vec<String>,
    pub(crate) limits: LimitsSection,
    pub(crate) tls: Option<TlsSection>,
}

/// `[gateway.limits]`; what is absent has its default.
#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LimitsSection {
    message_bytes_max: Option<usize>,
    header_bytes_max: Option<usize>,
    request_read_ms_max: Option<u64>,
    bodies_bytes_max: Option<usize>,
    client_stall_ms_max: Option<u64>,
    connections_max: Option<usize>,
    nesting_depth_max: Option<usize>,
    calls_per_client_max: Option<usize>,
    calls_max: Option<usize>,
    sessions_max: Option<usize>,
    call_timeout_ms: Option<u64>,
    server_connect_ms_max: Option<u64>,
    server_restart_ms_max: Option<u64>,
    hold_ms_max: Option<u64>,
    hold_progress_ms: Option<u64>,
    input_wait_ms_max: Option<u64>,
    keep_alive_ms: Option<u64>,
    client_queue_max: Option<usize>,
    session_idle_ms_max: Option<u64>,
}

/// `[admin]`
#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AdminSection {
    pub(crate) listen: Option<String>,
    url: Option<String>,
    hosts: Vec<String>,
    pub(crate) tls: Option<TlsSection>,
    /// Whether other machines may be served without TLS.
    pub(crate) allow_plaintext: bool,
}

impl AdminSection {
    /// Where people's browsers find the admin address, which listens at that URL.
    pub(crate) fn console(&self, listens: &str) -> String {
        self.url.as_deref().unwrap_or(listens).trim_end_matches('/').to_owned()
    }

    /// Under which names it may be asked, besides loopback: those that are listed, and that of its URL.
    pub(crate) fn origins(&self) -> OriginPolicy {
        let url = self.url.as_ref().map(|url| url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/"));
        let host = url.as_ref().and_then(|url| url.split_once("://")).map(|(_, host)| host.to_owned());
        OriginPolicy::new(url, self.hosts.iter().cloned().chain(host))
    }

    fn check(&self) -> anyhow::Result<()> {
        match &self.url {
            Some(url) if !url.starts_with("http://") && !url.starts_with("https://") => {
                bail!("admin.url is {url:?}: write http:// or https://, a host, and a port")
            }
            _ => Ok(()),
        }
    }
}

/// `[approvals]`: how people hear of what waits for them.
#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ApprovalsSection {
    webhook: Option<String>,
    webhook_secret: Option<String>,
}

impl ApprovalsSection {
    /// The approvers' own tool, where one is named.
    pub(crate) fn webhook(&self) -> anyhow::Result<Option<Webhook>> {
        match (&self.webhook, &self.webhook_secret) {
            (Some(url), Some(secret)) => Ok(Some(Webhook::new(&filled(url)?, &filled(secret)?)?)),
            (None, None) => Ok(None),
            _ => bail!("approvals.webhook and approvals.webhook_secret belong together: set both or none"),
        }
    }
}

/// `[credentials]`: what logins to servers gave.
#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CredentialsSection {
    /// Seals it on disk; without one it is kept in memory only.
    pub(crate) key: Option<String>,
}

/// `[backbone]`
#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct BackboneSection {
    pub(crate) kind: BackboneKind,
    pub(crate) bootstrap: Option<String>,
    properties: BTreeMap<String, Scalar>,
    spool_bytes_max: Option<u64>,
    replication: Option<i32>,
    min_insync_replicas: Option<u32>,
    ready_within_ms: Option<u64>,
}

/// A librdkafka property's value, as TOML may write it.
#[derive(Clone, Deserialize)]
#[serde(untagged, expecting = "a property is a text, a whole number, true or false")]
enum Scalar {
    Text(String),
    Number(i64),
    Flag(bool),
}

impl BackboneSection {
    /// librdkafka's properties; references to secrets in them are not resolved here.
    pub(crate) fn properties(&self) -> BTreeMap<String, String> {
        let text = |value: &Scalar| match value {
            Scalar::Text(text) => text.clone(),
            Scalar::Number(number) => number.to_string(),
            Scalar::Flag(flag) => flag.to_string(),
        };
        self.properties.iter().map(|(name, value)| (name.clone(), text(value))).collect()
    }

    /// Replicas of topics that are created.
    #[cfg(feature = "registry")]
    pub(crate) fn replication(&self) -> i32 {
        self.replication.unwrap_or(-1)
    }

    /// The cluster as the backbone wants it, with its spool in that folder; `bootstrap` goes before the configuration's.
    pub(crate) fn kafka(&self, bootstrap: Option<&str>, spool: PathBuf) -> anyhow::Result<KafkaOptions> {
        let bootstrap = bootstrap.or(self.bootstrap.as_deref()).filter(|list| !list.trim().is_empty());
        let bootstrap = bootstrap.context(
            "no cluster is named: set backbone.bootstrap = \"host:port\" beside backbone.kind = \"kafka\", or give --bootstrap",
        )?;
        let default = KafkaOptions::new(bootstrap, spool);
        let options = KafkaOptions {
            properties: self.properties(),
            spool_bytes_max: self.spool_bytes_max.unwrap_or(default.spool_bytes_max),
            replication: self.replication.unwrap_or(default.replication),
            min_insync_replicas: self.min_insync_replicas,
            ready_within: self.ready_within_ms.map_or(default.ready_within, Duration::from_millis),
            ..default
        };
        if options.spool_bytes_max < SPOOL_BYTES_MIN {
            bail!("backbone.spool_bytes_max is {}: set it to at least {SPOOL_BYTES_MIN}", options.spool_bytes_max);
        }
        if options.replication == 0 || options.replication < -1 || options.replication > i32::from(i16::MAX) {
            bail!(
                "backbone.replication is {}: set it to 1 or more, or leave it out for the cluster's default",
                options.replication
            );
        }
        if let Some(needed) = options.min_insync_replicas
            && (needed == 0 || (options.replication > 0 && needed > options.replication.unsigned_abs()))
        {
            bail!(
                "backbone.min_insync_replicas is {needed} and backbone.replication {}: nothing could be written; set it between 1 and replication",
                options.replication
            );
        }
        Ok(options)
    }

    /// Refuses what only a cluster has where the embedded log is used: a setting without effect is a mistake.
    fn check(&self) -> anyhow::Result<()> {
        let cluster = [
            ("bootstrap", self.bootstrap.is_some()),
            ("properties", !self.properties.is_empty()),
            ("spool_bytes_max", self.spool_bytes_max.is_some()),
            ("replication", self.replication.is_some()),
            ("min_insync_replicas", self.min_insync_replicas.is_some()),
            ("ready_within_ms", self.ready_within_ms.is_some()),
        ];
        if let (BackboneKind::Embedded, Some((name, _))) = (self.kind, cluster.iter().find(|(_, set)| *set)) {
            bail!("backbone.{name} is for a cluster: set backbone.kind = \"kafka\" too, or remove it");
        }
        Ok(())
    }
}

/// Which backbone carries the events.
#[derive(Clone, Copy, Deserialize, Default, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BackboneKind {
    /// The embedded log.
    #[default]
    Embedded,
    /// A Kafka-compatible cluster.
    Kafka,
}

/// `[servers.<name>]`, and a member of `mcpServers`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServerSection {
    command: Option<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    cwd: Option<PathBuf>,
    #[serde(rename = "type")]
    kind: Option<String>,
    url: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// `[servers.<name>.tools.<tool>]`: what its tools read, write and depend on.
    #[serde(default)]
    tools: BTreeMap<String, ToolSection>,
    /// The scopes that every request to it needs,
    #[serde(default)]
    scopes: Vec<String>,
    /// and those that a method needs besides.
    #[serde(default)]
    method_scopes: BTreeMap<String, Vec<String>>,
    auth: Option<AuthSection>,
    /// Whether it reports what it did downstream.
    #[serde(default)]
    actions: bool,
}

/// What a tool does with resources.
#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct ToolSection {
    reads: Vec<Dependence>,
    writes: Vec<Dependence>,
    depends: Vec<Dependence>,
}

impl ToolSection {
    fn declared(&self) -> anyhow::Result<Declared> {
        let mentions = |what: &str, all: &[Dependence]| {
            all.iter().map(Dependence::mention).collect::<Result<Vec<_>, _>>().with_context(|| what.to_owned())
        };
        let declared = Declared {
            reads: mentions("reads", &self.reads)?,
            writes: mentions("writes", &self.writes)?,
            depends: mentions("depends", &self.depends)?,
        };
        if declared.depends.iter().any(cairn_freshness::Mention::needs_result) {
            bail!("depends names the result, which there is none of when the call is decided: name {{arguments/…}}");
        }
        Ok(declared)
    }
}

/// `[catalogue]`: which definitions of servers may be relied on.
#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CatalogueSection {
    pub(crate) mode: Mode,
}

/// `[freshness]`: the guard against acting on what is known to be stale.
#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FreshnessSection {
    behind_ms_max: Option<u64>,
    skew_ms_max: Option<u64>,
    resources_max: Option<usize>,
    viewers_max: Option<usize>,
    history_ms: Option<u64>,
}

/// The type of a server of Cairn's own.
const OWN: &str = "cairn";

/// How far back the stream is read at the start, for what was read and changed before.
const HISTORY: Duration = Duration::from_secs(24 * 3600);

impl FreshnessSection {
    /// How much is remembered, and how far behind the guard may be.
    pub(crate) fn bounds(&self) -> anyhow::Result<Bounds> {
        let default = Bounds::default();
        let bounds = Bounds {
            resources_max: self.resources_max.unwrap_or(default.resources_max),
            viewers_max: self.viewers_max.unwrap_or(default.viewers_max),
            behind_max: self.behind_ms_max.map_or(default.behind_max, Duration::from_millis),
            skew_max: self.skew_ms_max.map_or(default.skew_max, Duration::from_millis),
        };
        if bounds.resources_max == 0 || bounds.viewers_max == 0 || bounds.behind_max < BEHIND_MIN {
            bail!(
                "[freshness]: resources_max and viewers_max are at least 1, behind_ms_max at least {}",
                BEHIND_MIN.as_millis()
            );
        }
        Ok(bounds)
    }

    /// How far back the stream is read at the start.
    pub(crate) fn history(&self) -> Duration {
        self.history_ms.map_or(HISTORY, Duration::from_millis)
    }
}

/// Below this nothing would ever be fresh: the guard looks how far it is that often.
const BEHIND_MIN: Duration = Duration::from_millis(1_000);

impl Config {
    /// Reads a file by what is in it: JSON where it begins with a brace, TOML otherwise.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let mut config = Self::parse(path)?;
        for (section, secrets) in [("writers", &mut config.kafka.writers), ("users", &mut config.kafka.users)] {
            for (name, secret) in secrets {
                *secret = filled(secret).with_context(|| format!("{}: kafka.{section}.{name}", path.display()))?;
            }
        }
        for value in config.store.values_mut() {
            *value = filled(value).with_context(|| format!("{}: [store]", path.display()))?;
        }
        if let Some(key) = &mut config.credentials.key {
            *key = filled(key).with_context(|| format!("{}: credentials.key", path.display()))?;
        }
        for value in config.encryption.values_mut() {
            *value = filled(value).with_context(|| format!("{}: [encryption]", path.display()))?;
        }
        for value in config.vault.values_mut() {
            *value = filled(value).with_context(|| format!("{}: [vault]", path.display()))?;
        }
        for (name, server) in &mut config.servers {
            server.fill().with_context(|| format!("{}: server {name:?}", path.display()))?;
        }
        let beside = path.parent().unwrap_or(Path::new("."));
        let sections = [&mut config.gateway.tls, &mut config.admin.tls, &mut config.kafka.tls];
        sections.into_iter().flatten().for_each(|tls| tls.lie_in(beside));
        if let Some(tokens) = &mut config.kafka.tokens {
            tokens.lie_in(beside);
        }
        config.commands.lie_in(beside);
        config.registry.lie_in(beside);
        if let Some(tls) = config.ingest.as_mut().and_then(|ingest| ingest.tls.as_mut()) {
            tls.lie_in(beside);
        }
        config.registry.fill().with_context(|| format!("{}", path.display()))?;
        if let Some(identity) = &mut config.identity {
            identity.lie_in(beside);
        }
        // What makes no sense is said here, where the file is known.
        if let Some(point) = &mut config.decision_point {
            point.lie_in(beside);
        }
        let identity = config.identity.as_ref().map_or(Ok(()), IdentitySection::check);
        identity.with_context(|| format!("{}", path.display()))?;
        config
            .server_specs()
            .and_then(|_| config.own_servers())
            .and_then(|_| config.auth())
            .and_then(|_| config.limits())
            .and_then(|_| config.rules())
            .and_then(|_| config.tenants.prefixes())
            .and_then(|_| config.freshness.bounds())
            .and_then(|_| config.admin.check())
            .and_then(|_| config.kafka.check())
            .and_then(|()| config.commands.check())
            .and_then(|()| config.registry.check())
            .and_then(|()| config.reporting())
            .and_then(|()| config.encryption.check())
            .and_then(|()| config.approvals.webhook())
            .and_then(|_| config.decision_point())
            .with_context(|| format!("{}", path.display()))?;
        Ok(config)
    }

    /// Who is asked besides the policies.
    pub(crate) fn decision_point(&self) -> anyhow::Result<Option<DecisionPoint>> {
        self.decision_point.as_ref().map(DecisionPointSection::open).transpose()
    }

    fn reporting(&self) -> anyhow::Result<()> {
        self.ingest.as_ref().map_or(Ok(()), IngestSection::check)
    }

    /// A server that reports what it did downstream.
    pub(crate) fn reports(&self) -> Option<&str> {
        self.servers.iter().find(|(_, server)| server.actions).map(|(name, _)| name.as_str())
    }

    /// Only the backbone of a file: what the servers of it need from the environment is not asked for.
    pub(crate) fn read_backbone(path: &Path) -> anyhow::Result<BackboneSection> {
        Ok(Self::parse(path)?.backbone)
    }

    /// Only which tenants of a file have topics of their own.
    pub(crate) fn read_tenants(path: &Path) -> anyhow::Result<TenantsSection> {
        Ok(Self::parse(path)?.tenants)
    }

    /// Only what a file says of consumers.
    pub(crate) fn read_consumers(path: &Path) -> anyhow::Result<ConsumersSection> {
        Ok(Self::parse(path)?.consumers)
    }

    /// Only what a file says of data sets.
    pub(crate) fn read_evaluate(path: &Path) -> anyhow::Result<EvaluateSection> {
        Ok(Self::parse(path)?.evaluate)
    }

    /// Only what a file says of evidence.
    pub(crate) fn read_evidence(path: &Path) -> anyhow::Result<EvidenceSection> {
        Ok(Self::parse(path)?.evidence)
    }

    fn parse(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration {}", path.display()))?;
        // A client's file may begin with a comment; in TOML neither a brace nor a slash can.
        let mut config: Self = if text.trim_start_matches('\u{feff}').trim_start().starts_with(['{', '/']) {
            Self::from_client(&text)
        } else {
            toml::from_str(&text).map_err(|error| anyhow::anyhow!("{}", faults::toml_words(&error, &text)))
        }
        .with_context(|| format!("{} is not a configuration that can be used", path.display()))?;
        config.consumers.origin = std::path::absolute(path).ok();
        config.backbone.check().with_context(|| format!("{}", path.display()))?;
        config.evidence.check().with_context(|| format!("{}", path.display()))?;
        config.consumers.check().with_context(|| format!("{}", path.display()))?;
        config.evaluate.check().with_context(|| format!("{}", path.display()))?;
        Ok(config)
    }

    fn from_client(text: &str) -> anyhow::Result<Self> {
        let sections = client_file::servers(text)?.into_iter().map(|(name, server)| {
            let ClientServer { command, args, env, cwd, kind, url, headers } = server;
            let (cwd, tools) = (cwd.map(PathBuf::from), BTreeMap::new());
            let (scopes, method_scopes, auth) = (Vec::new(), BTreeMap::new(), None);
            let actions = false;
            let section = ServerSection {
                command,
                args,
                env,
                cwd,
                kind,
                url,
                headers,
                tools,
                scopes,
                method_scopes,
                auth,
                actions,
            };
            (name, section)
        });
        Ok(Self { servers: sections.collect(), ..Self::default() })
    }

    /// The limits of calls.
    pub(crate) fn rules(&self) -> anyhow::Result<Vec<Rule>> {
        limits::rules(&self.limits, self.servers.keys().map(String::as_str))
    }

    /// The servers as the gateway wants them, without those of Cairn's own.
    pub(crate) fn server_specs(&self) -> anyhow::Result<Vec<ServerSpec>> {
        let others = self.servers.iter().filter(|(_, section)| !section.is_own());
        others.map(|(name, section)| section.spec(name)).collect()
    }

    /// The names of the servers of Cairn's own.
    pub(crate) fn own_servers(&self) -> anyhow::Result<Vec<String>> {
        let own = self.servers.iter().filter(|(_, section)| section.is_own());
        own.map(|(name, section)| section.check_own(name).map(|()| name.clone())).collect()
    }

    /// How Cairn proves itself to servers: name, URL, options.
    pub(crate) fn auth(&self) -> anyhow::Result<Vec<(&str, &str, AuthOptions)>> {
        let wanted = self.servers.iter().filter_map(|(name, server)| Some((name, server, server.auth.as_ref()?)));
        let read = wanted.map(|(name, server, auth)| {
            let url = server.url.as_deref().with_context(|| {
                format!("servers.{name}.auth is for servers with a url: a child gets its credentials by env")
            })?;
            if server.headers.keys().any(|header| header.eq_ignore_ascii_case("authorization")) {
                bail!("servers.{name} has both auth and an authorization header: keep one");
            }
            Ok((name.as_str(), url, auth.options().with_context(|| format!("servers.{name}.auth"))?))
        });
        read.collect()
    }

    /// The gateway's limits, defaults where nothing is set.
    pub(crate) fn limits(&self) -> anyhow::Result<Limits> {
        let set = &self.gateway.limits;
        let default = Limits::default();
        let ms = |value: Option<u64>, or: Duration| value.map_or(or, Duration::from_millis);
        let limits = Limits {
            message_bytes_max: set.message_bytes_max.unwrap_or(default.message_bytes_max),
            header_bytes_max: set.header_bytes_max.unwrap_or(default.header_bytes_max),
            request_read_max: ms(set.request_read_ms_max, default.request_read_max),
            bodies_bytes_max: set.bodies_bytes_max.unwrap_or(default.bodies_bytes_max),
            client_stall_max: ms(set.client_stall_ms_max, default.client_stall_max),
            connections_max: set.connections_max.unwrap_or(default.connections_max),
            nesting_depth_max: set.nesting_depth_max.unwrap_or(default.nesting_depth_max),
            calls_per_client_max: set.calls_per_client_max.unwrap_or(default.calls_per_client_max),
            calls_max: set.calls_max.unwrap_or(default.calls_max),
            sessions_max: set.sessions_max.unwrap_or(default.sessions_max),
            call_timeout: ms(set.call_timeout_ms, default.call_timeout),
            server_connect_max: ms(set.server_connect_ms_max, default.server_connect_max),
            server_restart_max: ms(set.server_restart_ms_max, default.server_restart_max),
            hold_max: ms(set.hold_ms_max, default.hold_max),
            hold_progress_every: ms(set.hold_progress_ms, default.hold_progress_every),
            input_wait_max: ms(set.input_wait_ms_max, default.input_wait_max),
            keep_alive_every: ms(set.keep_alive_ms, default.keep_alive_every),
            client_queue_max: set.client_queue_max.unwrap_or(default.client_queue_max),
            session_idle_max: ms(set.session_idle_ms_max, default.session_idle_max),
        };
        for (key, value) in [
            ("message_bytes_max", limits.message_bytes_max),
            ("nesting_depth_max", limits.nesting_depth_max),
            ("calls_per_client_max", limits.calls_per_client_max),
            ("calls_max", limits.calls_max),
            ("sessions_max", limits.sessions_max),
            ("client_queue_max", limits.client_queue_max),
            ("connections_max", limits.connections_max),
        ] {
            if value == 0 {
                bail!("gateway.limits.{key} is 0, so nothing could pass: set it to at least 1");
            }
        }
        for (key, value) in [
            ("request_read_ms_max", limits.request_read_max),
            ("client_stall_ms_max", limits.client_stall_max),
            ("call_timeout_ms", limits.call_timeout),
            ("server_connect_ms_max", limits.server_connect_max),
            ("server_restart_ms_max", limits.server_restart_max),
            ("hold_ms_max", limits.hold_max),
            ("hold_progress_ms", limits.hold_progress_every),
            ("input_wait_ms_max", limits.input_wait_max),
            ("keep_alive_ms", limits.keep_alive_every),
            ("session_idle_ms_max", limits.session_idle_max),
        ] {
            if value.is_zero() {
                bail!("gateway.limits.{key} is 0, so nothing could pass: set it to at least 1");
            }
        }
        if limits.header_bytes_max < HEADER_BYTES_MIN {
            bail!(
                "gateway.limits.header_bytes_max is {}: set it to at least {HEADER_BYTES_MIN}",
                limits.header_bytes_max
            );
        }
        if limits.bodies_bytes_max < limits.message_bytes_max {
            bail!("gateway.limits.bodies_bytes_max is less than message_bytes_max: one message must fit into it");
        }
        Ok(limits)
    }
}

impl ServerSection {
    fn fill(&mut self) -> anyhow::Result<()> {
        let single = self.command.iter_mut().chain(self.url.iter_mut());
        for value in self.env.values_mut().chain(self.headers.values_mut()).chain(self.args.iter_mut()).chain(single) {
            *value = filled(value)?;
        }
        Ok(())
    }

    /// The scopes that requests to it need.
    pub(crate) fn scope_rules(&self) -> ScopeRules {
        ScopeRules { server: self.scopes.clone(), methods: self.method_scopes.clone() }
    }

    /// Whether it is a server of Cairn's own.
    fn is_own(&self) -> bool {
        self.kind.as_deref() == Some(OWN)
    }

    /// Refuses what a server of Cairn's own has no use for, and what this build cannot do.
    fn check_own(&self, name: &str) -> anyhow::Result<()> {
        self.check_name(name)?;
        let set = [
            ("command", self.command.is_some()),
            ("url", self.url.is_some()),
            ("args", !self.args.is_empty()),
            ("env", !self.env.is_empty()),
            ("headers", !self.headers.is_empty()),
            ("tools", !self.tools.is_empty()),
            ("auth", self.auth.is_some()),
        ];
        if let Some((key, _)) = set.iter().find(|(_, is_set)| *is_set) {
            bail!("server {name:?} is Cairn's own (type = {OWN:?}) and has {key}: remove one of them");
        }
        if !cfg!(feature = "audit") {
            bail!("server {name:?} is Cairn's own (type = {OWN:?}), and {}", crate::consumers::NO_DATABASE);
        }
        Ok(())
    }

    fn check_name(&self, name: &str) -> anyhow::Result<()> {
        if name.is_empty() || name.len() > 64 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        {
            bail!(
                "the server name {name:?} must have 1 to 64 letters, digits, '-', '_' or '.', because it is part of a URL"
            );
        }
        check_scopes(self.scopes.iter().chain(self.method_scopes.values().flatten()))
            .with_context(|| format!("the scopes of server {name:?}"))
    }

    fn spec(&self, name: &str) -> anyhow::Result<ServerSpec> {
        self.check_name(name)?;
        let reach = match (&self.command, &self.url) {
            (Some(_), None) if self.kind.as_deref().is_some_and(|kind| !matches!(kind, "stdio" | "local")) => {
                bail!("server {name:?} has a command and another type than \"stdio\": leave the type out")
            }
            (Some(command), None) => Reach::Stdio {
                command: command.clone(),
                args: self.args.clone(),
                env: self.env.clone(),
                cwd: self.cwd.clone(),
                env_clear: false,
            },
            (None, Some(url)) => {
                let known = ["http", "streamable-http", "streamableHttp", "streamable_http", "sse"];
                if self.kind.as_deref().is_some_and(|kind| !known.contains(&kind)) {
                    bail!(
                        "server {name:?} has a url and another type than \"http\" (Streamable HTTP) or \"sse\": use one of these"
                    );
                }
                let (url, headers) = (url.clone(), self.headers.clone());
                if self.kind.as_deref() == Some("sse") {
                    Reach::Sse { url, headers }
                } else {
                    Reach::Http { url, headers }
                }
            }
            (Some(_), Some(_)) => bail!("server {name:?} has both command and url: keep one"),
            (None, None) => bail!("server {name:?} has neither command nor url: give one"),
        };
        let declared = self.tools.iter().map(|(tool, section)| {
            let declared = section.declared().with_context(|| format!("server {name:?}, tools.{tool}"))?;
            Ok((tool.clone(), declared))
        });
        let declared = declared.collect::<anyhow::Result<_>>()?;
        Ok(ServerSpec { name: name.to_owned(), reach, declared, reports: self.actions })
    }
}

/// A value with what it names from the environment and from files.
pub(crate) fn filled(text: &str) -> anyhow::Result<String> {
    Ok(cairn_keys::filled(text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("cairn.toml");
        std::fs::write(&path, text).expect("written");
        (folder, path)
    }

    fn fault(text: &str) -> String {
        let (_folder, path) = written(text);
        let config = Config::read(&path)
            .and_then(|config| config.server_specs().map(|_| config))
            .and_then(|c| c.limits().map(|_| ()));
        format!("{:#}", config.expect_err("it must not be accepted"))
    }

    #[test]
    fn an_unknown_key_names_its_line_and_itself() {
        let words = fault("[gateway]\nlisten = \"127.0.0.1:0\"\nlisen = 1\n");
        assert!(words.contains("line 3") && words.contains("lisen"), "{words}");
    }

    #[test]
    fn a_bad_value_never_shows_the_secret_beside_it() {
        let words = fault("[servers.a]\nurl = \"http://x\"\nheaders = { authorization = \"s3cret\", x = 7 }\n");
        assert!(!words.contains("s3cret"), "{words}");
    }

    #[test]
    fn a_server_has_one_way_to_be_reached() {
        assert!(fault("[servers.a]\n").contains("neither command nor url"));
        assert!(fault("[servers.a]\ncommand = \"x\"\nurl = \"http://x\"\n").contains("both command and url"));
        assert!(fault("[servers.\"a/b\"]\ncommand = \"x\"\n").contains("part of a URL"));
        assert!(fault("[gateway.limits]\ncalls_max = 0\n").contains("calls_max"));
    }

    #[test]
    fn a_cluster_is_described_whole_or_refused() {
        let (_folder, path) = written(
            "[backbone]\nkind = \"kafka\"\nbootstrap = \"a:1\"\nproperties = { \"linger.ms\" = 5, x = true, y = \"z\" }\n",
        );
        let section = Config::read(&path).expect("a configuration").backbone;
        let options = section.kafka(None, PathBuf::from("spool")).expect("a cluster");
        let pairs: Vec<_> = options.properties.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!((options.bootstrap.as_str(), pairs.join(" ")), ("a:1", "linger.ms=5 x=true y=z".to_owned()));
        assert!(fault("[backbone]\nbootstrap = \"a:1\"\n").contains("backbone.kind = \"kafka\""));
        let fault = |text: &str| {
            let (_folder, path) = written(&format!("[backbone]\nkind = \"kafka\"\n{text}"));
            let section = Config::read(&path).expect("a configuration").backbone;
            section.kafka(None, PathBuf::from("spool")).expect_err("it must not be accepted").to_string()
        };
        assert!(fault("").contains("backbone.bootstrap"));
        assert!(fault("bootstrap = \"a:1\"\nspool_bytes_max = 10\n").contains("spool_bytes_max"));
        assert!(fault("bootstrap = \"a:1\"\nreplication = 0\n").contains("replication"));
        assert!(fault("bootstrap = \"a:1\"\nreplication = 1\nmin_insync_replicas = 2\n").contains("min_insync"));
    }

    #[test]
    fn a_server_for_audit_is_named_or_refused_without_showing_it() {
        let audit = |text: &str| fault(&format!("[consumers.audit]\n{text}"));
        assert!(audit("password = \"s3cret\"\n").contains("consumers.audit.database"));
        let url = "database = \"postgres://ann:s3cret@db.example/audit\"\n";
        if cfg!(feature = "postgres") {
            assert!(audit("database = \"mysql://ann:s3cret@db\"\n").contains("postgres://USER@HOST"));
            let (_folder, path) = written(&format!("[consumers.audit]\n{url}"));
            assert!(Config::read(&path).is_ok());
        } else {
            assert!(audit(url).contains("this build has no PostgreSQL"), "{}", audit(url));
        }
        assert!(!audit("database = \"mysql://ann:s3cret@db\"\n").contains("s3cret"));
    }

    #[test]
    fn a_clients_file_is_read_as_it_is() {
        let (_folder, path) = written(
            r#"{"theme": "dark", "mcpServers": {"fs": {"command": "npx", "args": ["-y", "x"], "disabled": false},
               "web": {"type": "http", "url": "https://example.org/mcp", "headers": {"a": "b"}}}}"#,
        );
        let specs = Config::read(&path).and_then(|config| config.server_specs()).expect("a configuration");
        assert_eq!(specs.iter().map(|spec| spec.name.as_str()).collect::<Vec<_>>(), ["fs", "web"]);
    }

    #[test]
    fn the_document_is_a_configuration_and_names_every_key() {
        let document = include_str!("../../../docs/configuration.md");
        let blocks = document.split("```toml\n").skip(1).filter_map(|part| part.split("\n```").next());
        let read = |toml: &str| {
            let (_folder, path) = written(toml);
            Config::read(&path).expect("the document is accepted")
        };
        let configs: Vec<_> = blocks.map(read).collect();
        let config = configs.first().expect("the document shows a configuration");
        assert_eq!(config.server_specs().expect("its servers are right").len(), 3);
        assert_eq!(config.auth().expect("and how Cairn proves itself to them").len(), 1);
        let document = [
            document,
            include_str!("../../../docs/upstreams.md"),
            include_str!("../../../docs/vault.md"),
            include_str!("../../../docs/limits.md"),
            include_str!("../../../docs/observe.md"),
        ]
        .concat();
        let limits = format!("{:?}", config.limits().expect("limits"));
        assert_eq!(limits, format!("{:?}", Limits::default()), "what it calls defaults");
        let mut seen = 0;
        for section in [
            "",
            "[gateway]",
            "[gateway.limits]",
            "[gateway.tls]\ncertificate = \"y\"\nkey = \"y\"",
            "[identity]",
            "[identity.issuers.x]\nissuer = \"y\"",
            "[identity.certificates]\nprincipal = \"uri\"",
            "[kafka]",
            "[kafka.tls]\ncertificate = \"y\"\nkey = \"y\"",
            "[admin]",
            "[admin.tls]\ncertificate = \"y\"\nkey = \"y\"",
            "[commands]",
            "[approvals]",
            "[registry]",
            "[registry.tls]\ncertificate = \"y\"\nkey = \"y\"",
            "[ingest]",
            "[ingest.tls]\ncertificate = \"y\"\nkey = \"y\"",
            "[backbone]",
            "[store]",
            "[encryption]",
            "[consumers]",
            "[consumers.audit]",
            "[consumers.context]",
            "[evaluate]",
            "[evaluate.prices.x]\ninput = \"1\"\noutput = \"1\"",
            "[consumers.observe]",
            "[consumers.observe.alerts]",
            "[catalogue]",
            "[freshness]",
            "[credentials]",
            "[screen]",
            "[vault]",
            "[vault.kms]",
            "[[vault.rules]]",
            "[tenants]",
            "[[limits]]\nname = \"x\"",
            "[servers.x]\ncommand = \"y\"",
            "[servers.x.auth]\nkind = \"oauth\"",
        ] {
            // An unknown key makes the reader say which ones it knows.
            let error =
                toml::from_str::<Config>(&format!("{section}\nno-such-key = 1\n")).err().expect("unknown").to_string();
            let (_, known) = error.split_once("expected").expect("it says what it knows");
            for key in known.split('`').skip(1).step_by(2) {
                let names = [
                    format!("\n{key} = "),
                    format!("\n# {key} = "),
                    format!("[{key}]"),
                    format!("[{key}."),
                    format!(".{key}]"),
                    format!("`{key}`"),
                ];
                assert!(
                    names.iter().any(|name| document.contains(name)),
                    "{section} {key} is not in docs/configuration.md"
                );
                seen += 1;
            }
        }
        assert!(seen > 25, "{seen} keys were compared");
    }

    #[test]
    fn an_unknown_key_comes_with_the_one_that_was_meant() {
        assert!(fault("[gateway]\nlisen = \"x\"\n").contains("did you mean `listen`?"));
        assert!(fault("[gatway]\n").contains("did you mean `gateway`?"));
        assert!(fault("[servers.a]\ncomand = \"x\"\n").contains("did you mean `command`?"));
    }

    #[test]
    fn no_error_shows_a_value() {
        for text in [
            "[servers.a]\nheaders = \"s3cret\"\n",
            "[servers.a]\ncommand = 5\nenv = { K = [\"s3cret\"] }\n",
            "[servers.a]\nurl = \"http://me:s3cret@host/\"\ntype = \"s3cret\"\n",
            "[servers.a]\ncommand = \"s3cret\ntype\n",
            r#"{"mcpServers": {"a": {"command": "x", "env": "s3cret"}}}"#,
            r#"{"mcpServers": {"a": {"command": "x", "args": ["s3cret", null]}}}"#,
            r#"{"mcpServers": {"a": {"command": "x", "env": {"K": "s3cret ${NO_SUCH_VARIABLE_HERE}"}}}}"#,
            r#"{"mcpServers": {"a": "s3cret"}}"#,
        ] {
            let words = fault(text);
            assert!(!words.contains("s3cret"), "{words}");
        }
    }

    #[test]
    fn what_belongs_to_a_client_is_passed_over() {
        let (_folder, path) = written(
            r#"// VS Code
            { "inputs": [], "theme": "dark",
              "servers": {
                "one": { "type": "stdio", "command": "npx", "args": ["-y", 3], "env": { "PORT": 80 }, "alwaysAllow": ["x"],
                         "autoApprove": [], "timeout": 60, "description": "d", "gallery": true, },
                "two": { "type": "streamable-http", "url": "https://example.org/mcp", "headers": {} },
                "The Third (old)": { "command": "y" },
                "off": { "command": "x", "disabled": true },
              } }"#,
        );
        let config = Config::read(&path).expect("a configuration");
        let names: Vec<_> = config.server_specs().expect("servers").into_iter().map(|spec| spec.name).collect();
        assert_eq!(names, ["The-Third--old-", "one", "two"]);
        assert_eq!(config.servers["one"].args, ["-y", "3"]);
    }

    #[test]
    fn variables_are_filled_in() {
        assert_eq!(filled("a${NO_SUCH_VARIABLE_HERE:-b}c").expect("a default"), "abc");
        assert_eq!(filled("${env:NO_SUCH_VARIABLE_HERE:-}$${x}").expect("a default"), "${x}");
        assert!(filled("${input:token}").expect_err("the client's").to_string().contains("filled in by the client"));
        let (_folder, path) = written("s3cret\r\n");
        assert_eq!(filled(&format!("a${{file:{}}}c", path.display())).expect("a file"), "as3cretc");
        assert!(filled("${file:/no/such}").expect_err("no file").to_string().contains("/no/such"));
        assert!(filled("${PATH").is_err() && !filled("${PATH}").expect("set").is_empty());
    }
}
