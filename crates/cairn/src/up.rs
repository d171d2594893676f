//! `cairn up`, `cairn broker` and `cairn gateway`: wires backbone, gateway and admin address into one process.
//!
//! Order matters: the folder is held first; the predecessor's calls are closed before anything is served; `ready` is
//! printed last. On SIGTERM the gateway ends first, so that every outcome finds its log, and all of it ends in bounded time.
//! The operator's token must never stay in this process's environment, nor reach a file by way of its output.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use cairn_backbone::{Recorder, RecorderOptions, gateway_id, next_epoch};
use cairn_broker::{Broker, BrokerOptions, Port};
use cairn_catalogue::Book;
use cairn_clock::{Clock, Entropy};
use cairn_credentials::{Credentials, Environment, SealKey};
use cairn_freshness::Views;
use cairn_gateway::{Access, Gateway, GatewayOptions, HandsCalls, Keeping, Metrics, NoWitness, Parts, Step, Witness};
use cairn_ingest::CallHandles;
use cairn_limits::Limits as Allowances;
use cairn_log::Log;
use cairn_operators::{Admin, Credential, Custody, People, Probe};
use cairn_vault::Vault;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    UpArguments, access, acts,
    config::{AdminSection, Config},
    consumers, contracts, door,
    ending::Ending,
    engine::{Engine, Role},
    evidence::Evidence,
    folder::{self, Endpoints, Folder},
    follow::Follow,
    ingest, listen,
    measures::{Measures, Policies},
    own::OwnServers,
    play, policies,
    registry::Bound,
    say,
    take_over::Brokers,
    tenants, token, whatif, wrap,
    writers::Writers,
};

/// How often payloads whose time is over are removed.
const EXPIRE_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// A wait for the embedded log that is longer than this is said.
const SILENT_MAX: Duration = Duration::from_secs(2);
/// How long everything may take to end after SIGTERM; a service manager waits longer than that.
const END_MAX: Duration = Duration::from_secs(13);
/// How long events that are queued may take to be recorded at the end.
const RECORDER_END_MAX: Duration = Duration::from_secs(3);
/// How long the last checkpoints may take.
const EVIDENCE_END_MAX: Duration = Duration::from_secs(5);
/// How long consumers may take to apply what they have read.
const CONSUMERS_END_MAX: Duration = Duration::from_secs(2);
/// How long connections may take to end.
const DOORS_END_MAX: Duration = Duration::from_secs(4);

/// Runs until SIGTERM or SIGINT.
pub(crate) async fn run(arguments: UpArguments, role: Role) -> anyhow::Result<()> {
    let (config, beside) = configuration(&arguments)?;
    let data = match arguments.data.clone().or_else(|| config.data.clone()) {
        Some(data) => data,
        None => folder::default_path()?,
    };
    let folder = Folder::hold(&data)?;
    let folder = token::taken_from_environment(folder)?;
    config.contracts.add(folder.path())?;
    let (clock, entropy) = (Clock::system(), Entropy::system());
    let stop = CancellationToken::new();

    let (admin, listener) = listeners(&arguments, &config, role).await?;
    let schemas = Bound::bind(&arguments, &config).await?;
    let reports = ingest::Bound::bind(&arguments, &config, role).await?;
    let AdminSection { tls, allow_plaintext, .. } = &config.admin;
    let admin_tls = listen::secured("admin", tls.as_ref(), listen::HTTP, admin.local_addr()?, *allow_plaintext)?;
    let user = std::env::var("USER").unwrap_or_else(|_| "local".to_owned());
    let access = match &listener {
        // Before anything else is begun: a gateway that would let everybody in must not start.
        Some(listener) => Some(access::access(&config, listener.local_addr()?, folder.path(), &user, &clock)?),
        None => None,
    };
    let mut signals = Signals::taken()?;
    let mut engine = tokio::select! {
        opened = Engine::open(&arguments, &config, role, &folder, &clock, &entropy) => opened?,
        // Who stands by may do so for months. A log that is just being opened is left as by any other end.
        () = signals.told() => return Ok(()),
    };
    let ready = Arc::new(AtomicBool::new(false));
    let mut registry = Registry::default();
    let tasks = TaskTracker::new();
    let mut endpoints = begun_at(&engine, &config, &folder);
    endpoints.ingest_url = reports.as_ref().map(|reports| reports.url.clone());
    endpoints.admin = admin.local_addr()?.to_string();
    endpoints.admin_url = here(admin_tls.is_some(), admin.local_addr()?);
    let ground = Ground {
        arguments: &arguments,
        config: &config,
        folder: &folder,
        clock: &clock,
        entropy: &entropy,
        tasks: &tasks,
        stop: &stop,
    };
    let (mut measures, evidence) = match listener.zip(access) {
        None => (engine.measures(), None),
        Some((listener, access)) => {
            let begins = (listener, access, beside, user, reports);
            begin_gateway(&ground, &engine, begins, &mut endpoints, &mut registry).await?
        }
    };
    let (running, shown): (Vec<_>, Vec<_>) =
        consumers::start(&config, role, engine.is_embedded(), folder.path(), &engine.reading(), (&clock, &entropy))
            .into_iter()
            .unzip();
    measures.consumers.clone_from(&shown);
    #[cfg(feature = "observe")]
    watch(&ground, &measures)?;
    registry.register_collector(Box::new(measures.clone()));
    let api = admin_api(&ground, &engine, (&measures, shown), registry, ready.clone())?;
    if let Some(tls) = &admin_tls {
        tasks.spawn(listen::follow_certificates("admin", tls.clone(), stop.clone()));
    }
    tasks.spawn(door::ADMIN.serve(api.router(), admin, admin_tls.map(listen::handshakes), stop.clone()));
    engine.serve(&stop, &tasks);
    let collector = evidence.map(Evidence::start);
    endpoints.registry_url = match schemas {
        Some(schemas) => schemas.open(&engine, &entropy, &tasks, &stop).await?,
        None => None,
    };
    tasks.close();
    ready.store(true, Ordering::Release);
    folder.announce(&endpoints)?;
    token::show_if_new(&folder, &entropy)?;
    say_ready(&engine, &endpoints);
    let lost = ended(signals, &engine, role, &stop).await;
    ready.store(false, Ordering::Release);
    folder.withdraw();
    let ending = shut_down(measures, (collector, running), &stop, &tasks, engine);
    if tokio::time::timeout(END_MAX, ending).await.is_err() {
        eprintln!("cairn: not everything ended within {} s; the next start closes what is open", END_MAX.as_secs());
    }
    match lost {
        Some(why) => Err(why.into()),
        None => Ok(()),
    }
}

/// Waits until it is told to end, or has lost its log, to another broker or with its disk; why, then. A gateway beside a log that failed
/// goes on: it refuses what must be recorded and says so, which no other answer would.
async fn ended(signals: Signals, engine: &Engine, role: Role, stop: &CancellationToken) -> Option<Ending> {
    let why = tokio::select! {
        () = signals.wait(stop) => return None,
        why = engine.lost() => Ending::Replaced(why),
        why = engine.broken(), if role == Role::Broker => Ending::Broken(why),
    };
    match &why {
        Ending::Replaced(why) => eprintln!("cairn: {why}: this one ends; start it again, and it stands by"),
        why => eprintln!("cairn: {why}: this one ends, because only a start can tell what the disk has"),
    }
    stop.cancel(); // its clients look for the other one at once
    Some(why)
}

/// Where the engine is; what else listens is told as it begins.
fn begun_at(engine: &Engine, config: &Config, folder: &Folder) -> Endpoints {
    Endpoints {
        pid: std::process::id(),
        kafka: engine.address().to_owned(),
        cluster_config: engine.cluster_config(),
        gateway: String::new(),
        admin: String::new(),
        kafka_protocol: engine.protocol(),
        gateway_url: None,
        registry_url: None,
        ingest_url: None,
        admin_url: String::new(),
        commands: config.commands.clone(),
        socket: wrap::socket_path(folder.path()),
    }
}

/// What everything that begins stands on.
struct Ground<'g> {
    arguments: &'g UpArguments,
    config: &'g Config,
    folder: &'g Folder,
    clock: &'g Clock,
    entropy: &'g Entropy,
    tasks: &'g TaskTracker,
    stop: &'g CancellationToken,
}

/// The gateway's listener, who may come in, the folder that the configuration lies in, the local user, and where reports are taken.
type Let = (TcpListener, Access, Option<PathBuf>, String, Option<ingest::Bound>);

/// Opens the gateway and begins everything that goes beside it; gives what is measured, and what makes evidence.
async fn begin_gateway(
    ground: &Ground<'_>,
    engine: &Engine,
    (listener, access, beside, user, reports): Let,
    endpoints: &mut Endpoints,
    registry: &mut Registry,
) -> anyhow::Result<(Measures, Option<Evidence>)> {
    let Ground { arguments, config, folder, clock, entropy, tasks, stop } = *ground;
    endpoints.gateway = listener.local_addr()?.to_string();
    let wraps = wrap::listen(&endpoints.socket)?;
    let policy = Policies { store: Arc::new(policies::open(arguments, beside, folder)?), refused: Arc::default() };
    let here = here(access.tls.is_some(), listener.local_addr()?);
    endpoints.gateway_url = Some(here.clone());
    if let Some(tls) = &access.tls {
        tasks.spawn(listen::follow_certificates("gateway", tls.clone(), stop.clone()));
    }
    let verifier = access.verifier.clone();
    let handles = CallHandles::new(folder.call_key(entropy)?, clock.clone(), entropy.clone());
    let told = match &reports {
        Some(reports) => {
            reports.may_listen(&verifier)?;
            Some((Arc::new(ingest::Hands(handles.clone())) as Arc<dyn HandsCalls>, reports.url.clone()))
        }
        None => None,
    };
    let credentials = open_credentials(config, folder, &here, clock, entropy)?;
    let keeping = config.vault.open(&config.screen, folder.path(), clock, entropy).await?;
    let vault = keeping.vault.clone();
    let parts = (engine, &policy, (user, access, credentials), keeping.clone(), told);
    let Opened { gateway, recorder, follow, evidence: prepared } =
        open_gateway(config, folder, parts, clock, entropy, registry).await?;
    if let Some(follow) = follow {
        tasks.spawn(follow.run(stop.clone()));
    }
    if let Some(vault) = &vault {
        recorder.keep_rejected(Arc::new(contracts::InVault(vault.clone())));
    }
    if let Some(reports) = reports {
        let (gateway, recorder, keeping, keys) = (&gateway, &recorder, &keeping, folder.keys(entropy)?);
        let on = ingest::Ground { gateway, recorder, verifier, keeping, keys, handles, clock, entropy };
        reports.serve(on, registry, tasks, stop);
    }
    let custody = vault.clone().map(|vault| Custody::new(vault, recorder.clone(), gateway.clone()));
    if let Some(custody) = &custody {
        custody.catch_up().await.context("cannot record what was erased")?;
        tasks.spawn(expire(custody.vault().clone(), stop.clone()));
    }
    tasks.spawn({
        let gateway = gateway.clone();
        async move { gateway.tend_sessions().await }
    });
    tasks.spawn(acts::follow(folder.path().to_owned(), gateway.clone(), stop.clone()));
    tasks.spawn({
        let (gateway, stop) = (gateway.clone(), stop.clone());
        async move { gateway.serve_http(listener, stop).await }
    });
    gateway.set_console(config.admin.console(&endpoints.admin_url));
    if let Some(webhook) = config.approvals.webhook()? {
        tasks.spawn(webhook.follow(gateway.clone(), clock.clone(), stop.clone()));
    }
    tasks.spawn(wrap::serve(gateway.clone(), wraps, arguments.idle_seconds, stop.clone()));
    let measures = Measures {
        evidence: prepared.as_ref().map(|evidence| (evidence.status(), clock.clone())),
        gateway: Some(gateway),
        recorder: Some(recorder),
        policy: Some(policy),
        vault,
        custody,
        ..engine.measures()
    };
    Ok((measures, prepared))
}

/// Raises alerts from what `observe` sees, where it runs here.
#[cfg(feature = "observe")]
fn watch(ground: &Ground<'_>, measures: &Measures) -> anyhow::Result<()> {
    let observed = measures.consumers.iter().find_map(|one| one.observed.clone());
    let (Some(observed), Some(recorder), Some(gateway)) = (observed, &measures.recorder, &measures.gateway) else {
        return Ok(());
    };
    let webhook = ground.config.approvals.webhook()?.filter(|_| observed.tells_webhook);
    if observed.tells_webhook && webhook.is_none() {
        anyhow::bail!("consumers.observe.alerts.webhook is true, and approvals.webhook names no tool: name one");
    }
    let watch = crate::alerts::Watch {
        observed,
        shown: measures.consumers.clone(),
        recorder: recorder.clone(),
        gateway: gateway.clone(),
        webhook,
        clock: ground.clock.clone(),
        data: ground.folder.path().to_owned(),
    };
    ground.tasks.spawn(watch.run());
    Ok(())
}

/// What operators reach: everything that there is in this process.
fn admin_api(
    ground: &Ground<'_>,
    engine: &Engine,
    (measures, shown): (&Measures, Vec<consumers::Shown>),
    registry: Registry,
    ready: Arc<AtomicBool>,
) -> anyhow::Result<Admin> {
    let Ground { config, folder, entropy, .. } = *ground;
    let probe = Health { ready };
    let credentials = (Credential::of(folder.path()), People::of(folder.path()));
    let mut api = Admin::new(probe, registry, credentials, measures.gateway.clone());
    if let (Some(policy), Some(recorder)) = (&measures.policy, &measures.recorder) {
        api = api.with_policies(Arc::new(policies::Replacer::new(policy.store.clone(), recorder.clone())));
    }
    if let Some(custody) = &measures.custody {
        let tenants = config.tenants.prefixes()?.into_values();
        let recordings = play::Opened::new(engine.reading(), tenants, custody.clone());
        api = api.with_custody(custody.clone()).with_recordings(Arc::new(recordings));
    }
    if let Some(vault) = &measures.vault {
        let tenants = config.tenants.prefixes()?.into_values();
        api = api.with_trials(Arc::new(whatif::Tried::new(engine.reading(), tenants, vault.clone())));
    }
    if let (Some(gateway), Some(recorder)) = (&measures.gateway, &measures.recorder) {
        let desk = consumers::Desk {
            data: folder.path().to_owned(),
            section: config.consumers.clone(),
            reading: engine.reading(),
            recorder: recorder.clone(),
            gateway: gateway.clone(),
            shown,
            entropy: entropy.clone(),
            asking: Arc::new(tokio::sync::Semaphore::new(consumers::QUERIES_MAX)),
            asking_context: Arc::new(tokio::sync::Semaphore::new(consumers::CONTEXT_QUERIES_MAX)),
        };
        if let Some(desk) = consumers::serve(desk) {
            api = api.with_consumers(desk);
        }
    }
    Ok(api.with_origins(config.admin.origins()))
}

/// The admin address, and the gateway's where one runs here.
async fn listeners(
    arguments: &UpArguments,
    config: &Config,
    role: Role,
) -> anyhow::Result<(TcpListener, Option<TcpListener>)> {
    let admin = arguments.admin.as_deref().or(config.admin.listen.as_deref());
    let admin = bind("admin", admin, "127.0.0.1:7071", arguments.any_port).await?;
    if role == Role::Broker {
        return Ok((admin, None));
    }
    let wanted = arguments.gateway.as_deref().or(config.gateway.listen.as_deref());
    Ok((admin, Some(bind("gateway", wanted, "127.0.0.1:7070", arguments.any_port).await?)))
}

fn say_ready(engine: &Engine, endpoints: &Endpoints) {
    let Endpoints { gateway, gateway_url, admin, admin_url, .. } = endpoints;
    let scheme = |url: &str| if url.starts_with("https:") { "https" } else { "http" };
    let gateway = match gateway_url {
        None => String::new(),
        Some(url) => format!(" gateway {}://{gateway}/mcp/<server>", scheme(url)),
    };
    let registry = endpoints.registry_url.as_ref().map_or(String::new(), |url| format!(" registry {url}"));
    let ingest = endpoints.ingest_url.as_ref().map_or(String::new(), |url| format!(" ingest {url}"));
    say::line(format_args!(
        "ready {}{gateway} admin {}://{admin}{registry}{ingest}",
        engine.words(),
        scheme(admin_url)
    ));
}

/// An address that is listened on as a URL that this machine reaches.
pub(crate) fn here(is_tls: bool, address: SocketAddr) -> String {
    let here = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port()),
        _ => address,
    };
    format!("{}://{here}", if is_tls { "https" } else { "http" })
}

/// The configuration, and the folder in which it lies: what is given, else `cairn.toml` in the data folder.
pub(crate) fn configuration(arguments: &UpArguments) -> anyhow::Result<(Config, Option<PathBuf>)> {
    let given = match &arguments.config {
        Some(given) => Some(given.clone()),
        None => {
            let data = arguments.data.clone().map_or_else(folder::default_path, Ok)?;
            Some(data.join("cairn.toml")).filter(|path| path.is_file())
        }
    };
    let Some(path) = given else { return Ok((Config::default(), None)) };
    let config = Config::read(&path)?;
    let folder = path.canonicalize()?.parent().map(ToOwned::to_owned);
    Ok((config, folder))
}

pub(crate) async fn bind(
    what: &str,
    given: Option<&str>,
    default: &str,
    any_port: bool,
) -> anyhow::Result<TcpListener> {
    let address = given.unwrap_or(default);
    if given.is_none() && any_port {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                return Ok(TcpListener::bind("127.0.0.1:0").await?);
            }
            bound => return bound.with_context(|| format!("cannot listen on {address} for {what}")),
        }
    }
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address} for {what}: another process may use it; name another with --{what} HOST:PORT (port 0 takes a free one)")
    })
}

pub(crate) async fn open_log(
    arguments: &UpArguments,
    config: &Config,
    folder: &Folder,
    (brokers, listener, port): (Option<&Brokers>, &TcpListener, &Port),
    clock: &Clock,
    entropy: &Entropy,
) -> anyhow::Result<Log> {
    let at_rest = config.encryption.open(folder.path(), clock, entropy).await?;
    let mut options = config.store.log_options(folder.path(), &at_rest)?;
    options.recover = arguments.recover;
    if let Some(brokers) = brokers {
        let open = async |options| Log::open(options, clock.clone(), entropy.clone()).await;
        return brokers.open(options, listener, port, open).await;
    }
    let mut opening = Box::pin(Log::open(options, clock.clone(), entropy.clone()));
    let opened = tokio::select! {
        opened = &mut opening => opened,
        () = tokio::time::sleep(SILENT_MAX) => {
            eprintln!("cairn: waiting for the embedded log: its object store, or what is to be read back");
            opening.await
        }
    };
    opened.context("cannot open the embedded log")
}

pub(crate) async fn open_broker(
    config: &Config,
    folder: &Folder,
    kafka: &TcpListener,
    (log, brokers): (&Log, Option<&Brokers>),
    clock: &Clock,
    entropy: &Entropy,
) -> anyhow::Result<Broker> {
    let local = kafka.local_addr()?.to_string();
    let advertised = config.kafka.advertised.clone().unwrap_or(local);
    let advertised = match brokers {
        Some(brokers) => brokers.address(),
        None => advertised.parse().map_err(|error| anyhow::anyhow!("kafka.advertised: {error}"))?,
    };
    let kafka = &config.kafka;
    let options = BrokerOptions {
        advertised: Some(advertised),
        node_id: kafka.node_id.unwrap_or(BrokerOptions::default().node_id),
        peers: brokers.map(|brokers| brokers.all.clone()).unwrap_or_default(),
        users: Writers::of(folder.path()).follow(&kafka.writers, &kafka.users, entropy)?,
        super_users: kafka.super_users.clone(),
        authorization: kafka.authorization(),
        tokens: kafka.tokens.as_ref().map(|tokens| tokens.open(clock)).transpose()?,
        certificate_names: kafka.certificate_names()?,
        login_age_max: kafka.login_seconds_max.map(Duration::from_secs),
        auto_create_topics: kafka.auto_create_topics.unwrap_or(BrokerOptions::default().auto_create_topics),
        default_partitions: kafka.partitions.unwrap_or(BrokerOptions::default().default_partitions),
        offsets_retention: kafka.offsets_retention(),
        ..BrokerOptions::default()
    };
    Ok(Broker::open(options, log.clone(), clock.clone(), entropy.clone()).await?)
}

/// A gateway with what goes beside it.
struct Opened {
    gateway: Gateway,
    recorder: Recorder,
    follow: Option<Follow>,
    evidence: Option<Evidence>,
}

/// Removes payloads whose time is over, once a day.
async fn expire(vault: Vault, stop: CancellationToken) {
    loop {
        if let Err(error) = vault.expire().await {
            tracing::warn!(%error, "payloads whose time is over could not be removed");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EXPIRE_EVERY) => {}
        }
    }
}

/// What the gateway is made of, beside what the configuration says.
type OpenParts<'a> = (
    &'a Engine,
    &'a Policies,
    (String, Access, Credentials),
    Keeping,
    // What makes handles of calls, and where servers report.
    Option<(Arc<dyn HandsCalls>, String)>,
);

async fn open_gateway(
    config: &Config,
    folder: &Folder,
    (engine, policy, (local_principal, access, credentials), keeping, told): OpenParts<'_>,
    clock: &Clock,
    entropy: &Entropy,
    registry: &mut Registry,
) -> anyhow::Result<Opened> {
    let home = folder.path().join("gateway");
    let id = gateway_id(&home, clock, entropy)?;
    let epoch = next_epoch(&home)?;
    let (recorder, open) = Recorder::open(
        RecorderOptions::new(id.clone(), epoch, home.clone()),
        engine.backbone(),
        clock.clone(),
        entropy.clone(),
    )
    .await
    .context("cannot read the trail back")?;
    let (recorder, open) =
        tenants::recorders((recorder, open), engine, &(id.clone(), epoch), &home, (clock, entropy)).await?;
    let tools = (clock.clone(), entropy.clone());
    let producer = (id.clone(), epoch);
    let evidence = config.evidence.prepare(folder.path(), engine.reading(), recorder.clone(), producer, tools)?;
    if let Some(evidence) = &evidence {
        evidence.vouch().await;
    }
    let allowances = Allowances::open(config.rules()?, &home, clock.clone())?;
    let own = OwnServers::of(config, folder)?;
    let mut servers: Vec<_> = config.server_specs()?.into_iter().chain(own.specs()).collect();
    if let Some((_, url)) = &told {
        ingest::tell_children(&mut servers, url);
    }
    let options = GatewayOptions {
        servers,
        limits: config.limits()?,
        origins: config.gateway.origins.clone(),
        hosts: config.gateway.hosts.clone(),
        local_principal,
        access,
        decision_point: config.decision_point()?,
    };
    let metrics = Metrics::default();
    metrics.register(registry);
    let views = Views::new(config.freshness.bounds()?);
    // Without a declared dependence nobody asks how fresh anything is.
    let declares = options.servers.iter().any(|server| !server.declared.is_empty());
    let prefixes = config.tenants.prefixes()?.into_values().collect();
    let follow = declares.then(|| Follow {
        views: views.clone(),
        clock: clock.clone(),
        options: engine.reading(),
        history: config.freshness.history(),
        own: (id.clone(), epoch),
        tenants: prefixes,
        metrics: metrics.clone(),
    });
    let parts = Parts {
        recorder: recorder.clone(),
        policy: policy.store.clone(),
        views,
        book: Book::open(config.catalogue.mode, Some(folder.path().join("catalogue.json")))?,
        approvals: folder.approvals(entropy)?,
        allowances,
        keys: folder.keys(entropy)?,
        keeping,
        clock: clock.clone(),
        entropy: entropy.clone(),
        credentials,
        metrics,
        hands: told.map(|(hands, _)| hands),
        witness: witness()?,
    };
    let gateway = Gateway::new(options, parts)?;
    own.begin(&gateway);
    let closed = gateway.close_predecessor(open).await.context("cannot close what the last run left open")?;
    if closed > 0 {
        tracing::warn!(closed, "calls that the last run left open now have an outcome");
    }
    if policy.store.is_observing() {
        eprintln!("cairn: no policy files: everything is permitted and recorded (policy version observe)");
    }
    policies::record_start(&policy.store, &recorder).await.context("cannot record which policies are in force")?;
    tokio::spawn(policies::watch(policy.clone(), recorder.clone()));
    Ok(Opened { gateway, recorder, follow, evidence })
}

/// How the gateway proves itself to its servers. Browsers that come back from a login reach it where it listens.
fn open_credentials(
    config: &Config,
    folder: &Folder,
    here: &str,
    clock: &Clock,
    entropy: &Entropy,
) -> anyhow::Result<Credentials> {
    let key = config.credentials.key.as_deref().map(SealKey::new).transpose().context("credentials.key")?;
    let environment = Environment {
        clock: clock.clone(),
        entropy: entropy.clone(),
        redirect_uri: format!("{here}/oauth/callback"),
        kept: key.map(|key| (folder.path().join("credentials"), key)),
    };
    Ok(Credentials::new(config.auth()?, &environment)?)
}

struct Health {
    ready: Arc<AtomicBool>,
}

impl Probe for Health {
    fn ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }
}

/// Stops this process at a step of a call, as a crash test asks by `CAIRN_CRASH_AT=<step>[:<n>]`.
#[derive(Debug)]
struct Crash {
    step: Step,
    left: std::sync::atomic::AtomicI64,
}

impl Witness for Crash {
    fn reached(&self, step: Step, method: &str) {
        if step == self.step && method == "tools/call" && self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            let me = rustix::process::getpid();
            let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
        }
    }
}

fn witness() -> anyhow::Result<Arc<dyn Witness>> {
    let Ok(text) = std::env::var("CAIRN_CRASH_AT") else { return Ok(Arc::new(NoWitness)) };
    let (name, count) = text.split_once(':').unwrap_or((&text, "1"));
    let step = Step::named(name).with_context(|| format!("CAIRN_CRASH_AT names no step: {name}"))?;
    Ok(Arc::new(Crash { step, left: count.parse::<i64>().context("CAIRN_CRASH_AT: <step>:<n>")?.into() }))
}

/// The signals that end this process in order.
pub(crate) struct Signals {
    term: tokio::signal::unix::Signal,
    int: tokio::signal::unix::Signal,
}

impl Signals {
    /// From here on a signal ends nothing by itself.
    pub(crate) fn taken() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    /// Waits for one, or for `stop`.
    pub(crate) async fn wait(mut self, stop: &CancellationToken) {
        tokio::select! {
            () = self.told() => {}
            () = stop.cancelled() => {}
        }
    }

    /// Waits for one.
    pub(crate) async fn told(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

/// Calls first, then what records them, then who reads, then the backbone.
async fn shut_down(
    parts: Measures,
    (evidence, consumers): (Option<cairn_evidence::Collector>, Vec<consumers::Running>),
    stop: &CancellationToken,
    tasks: &TaskTracker,
    engine: Engine,
) {
    if let Some(gateway) = parts.gateway {
        gateway.close().await;
    }
    // What was recorded is still signed, and the signature recorded.
    if let Some(evidence) = evidence
        && tokio::time::timeout(EVIDENCE_END_MAX, evidence.close()).await.is_err()
    {
        eprintln!("cairn: the last checkpoint is not signed or not recorded; the next start does that");
    }
    if let Some(recorder) = parts.recorder {
        let left = recorder.close(RECORDER_END_MAX).await;
        if left > 0 {
            eprintln!("cairn: {left} events could not be recorded before the end");
        }
    }
    // What they have not applied they apply at the next start.
    let closing = consumers.into_iter().map(consumers::Running::close);
    let _ = tokio::time::timeout(CONSUMERS_END_MAX, futures::future::join_all(closing)).await;
    if let Some(vault) = parts.vault {
        vault.close().await;
    }
    stop.cancel();
    let _ = tokio::time::timeout(DOORS_END_MAX, tasks.wait()).await;
    engine.close().await;
}
