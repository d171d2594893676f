//! `cairn up` and `cairn broker`: wires log, broker, backbone, gateway and admin address into one process.
//!
//! Order matters: the folder is held first; the predecessor's calls are closed before anything is served; `ready` is
//! printed last. On SIGTERM the gateway ends first, so that every outcome finds its log.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use cairn_backbone::{Backbone, EmbeddedBackbone, Recorder, RecorderOptions, gateway_id, next_epoch};
use cairn_broker::{Broker, BrokerOptions};
use cairn_clock::{Clock, Entropy};
use cairn_contract::{Body, Common, Draft};
use cairn_gateway::{Gateway, GatewayOptions, Metrics, NoWitness, Parts, Step, Witness};
use cairn_log::Log;
use cairn_operators::{Admin, Credential, Probe};
use cairn_policy::PolicyStore;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    UpArguments,
    config::{BackboneKind, Config},
    folder::{self, Endpoints, Folder},
    wrap,
};

/// How often the policy folder is looked at.
const POLICY_EVERY: Duration = Duration::from_secs(1);

/// Runs until SIGTERM or SIGINT.
pub(crate) async fn run(arguments: UpArguments, with_gateway: bool) -> anyhow::Result<()> {
    let config = arguments.config.as_deref().map(Config::read).transpose()?.unwrap_or_default();
    let data = match arguments.data.clone().or_else(|| config.data.clone()) {
        Some(data) => data,
        None => folder::default_path()?,
    };
    let folder = Folder::hold(&data)?;
    let (clock, entropy) = (Clock::system(), Entropy::system());
    let stop = CancellationToken::new();
    if config.backbone.kind == BackboneKind::Kafka {
        bail!("backbone.kind = \"kafka\" is not wired into `up` yet: leave it out to use the embedded log");
    }

    let kafka = bind("kafka", arguments.kafka.as_deref().or(config.kafka.listen.as_deref()), "127.0.0.1:9092").await?;
    let admin = bind("admin", arguments.admin.as_deref().or(config.admin.listen.as_deref()), "127.0.0.1:7071").await?;
    let log = open_log(&folder, &clock, &entropy).await?;
    let broker = open_broker(&config, &kafka, &log, &clock, &entropy).await?;
    let ready = Arc::new(AtomicBool::new(false));
    let mut registry = Registry::default();
    let token = operator(&folder, &entropy)?;

    let mut parts = Running { gateway: None, recorder: None, gateway_address: None };
    let mut endpoints = Endpoints {
        pid: std::process::id(),
        kafka: kafka.local_addr()?.to_string(),
        gateway: String::new(),
        admin: admin.local_addr()?.to_string(),
        socket: wrap::socket_path(folder.path()),
    };
    if with_gateway {
        let listener =
            bind("gateway", arguments.gateway.as_deref().or(config.gateway.listen.as_deref()), "127.0.0.1:7070")
                .await?;
        endpoints.gateway = listener.local_addr()?.to_string();
        let (gateway, recorder) =
            open_gateway(&arguments, &config, &folder, &broker, &clock, &entropy, &mut registry).await?;
        tokio::spawn({
            let gateway = gateway.clone();
            async move { gateway.tend_sessions().await }
        });
        tokio::spawn({
            let (gateway, stop) = (gateway.clone(), stop.clone());
            async move { gateway.serve_http(listener, stop).await }
        });
        tokio::spawn(wrap::serve(gateway.clone(), endpoints.socket.clone(), arguments.idle_seconds, stop.clone()));
        parts = Running {
            gateway: Some(gateway),
            recorder: Some(recorder),
            gateway_address: Some(endpoints.gateway.clone()),
        };
    }
    let probe = Health { ready: ready.clone() };
    let holds = parts.gateway.as_ref().map(|gateway| gateway.holds().clone());
    let router = Admin::new(probe, registry, Credential::of(folder.path()), holds).router();
    tokio::spawn({
        let stop = stop.clone();
        async move { axum::serve(admin, router).with_graceful_shutdown(stop.cancelled_owned()).await }
    });
    tokio::spawn({
        let (broker, stop) = (broker.clone(), stop.clone());
        async move { broker.serve(kafka, stop).await }
    });
    ready.store(true, Ordering::Release);
    folder.announce(&endpoints)?;
    if let Some(token) = token {
        println!("operator token, shown once: {token}");
    }
    let gateway_words = parts
        .gateway_address
        .as_ref()
        .map(|address| format!(" gateway http://{address}/mcp/<server>"))
        .unwrap_or_default();
    println!("ready kafka {}{gateway_words} admin http://{}", endpoints.kafka, endpoints.admin);
    signalled(&stop).await?;
    shut_down(parts, &stop, log, &folder).await;
    Ok(())
}

struct Running {
    gateway: Option<Gateway>,
    recorder: Option<Recorder>,
    gateway_address: Option<String>,
}

async fn bind(what: &str, given: Option<&str>, default: &str) -> anyhow::Result<TcpListener> {
    let address = given.unwrap_or(default);
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address} for {what}: another process may use it; name another with --{what} HOST:PORT (port 0 takes a free one)")
    })
}

async fn open_log(folder: &Folder, clock: &Clock, entropy: &Entropy) -> anyhow::Result<Log> {
    let options = cairn_log::LogOptions::new(folder.path().join("log"), cairn_broker::batch::stamp);

    Log::open(options, clock.clone(), entropy.clone()).await.context("cannot open the embedded log")
}

async fn open_broker(
    config: &Config,
    kafka: &TcpListener,
    log: &Log,
    clock: &Clock,
    entropy: &Entropy,
) -> anyhow::Result<Broker> {
    let local = kafka.local_addr()?.to_string();
    let advertised = config.kafka.advertised.clone().unwrap_or(local);
    let advertised = advertised.parse().map_err(|error| anyhow::anyhow!("kafka.advertised: {error}"))?;
    let options = BrokerOptions { advertised: Some(advertised), ..BrokerOptions::default() };
    Ok(Broker::open(options, log.clone(), clock.clone(), entropy.clone()).await?)
}

/// The operator's token where it is new and must be shown.
fn operator(folder: &Folder, entropy: &Entropy) -> anyhow::Result<Option<String>> {
    let credential = Credential::of(folder.path());
    if let Ok(token) = std::env::var("CAIRN_OPERATOR_TOKEN") {
        credential.keep(&token, entropy)?;
        return Ok(None);
    }
    if credential.exists() {
        return Ok(None);
    }
    Ok(Some(credential.renew(entropy)?.reveal().to_owned()))
}

async fn open_gateway(
    arguments: &UpArguments,
    config: &Config,
    folder: &Folder,
    broker: &Broker,
    clock: &Clock,
    entropy: &Entropy,
    registry: &mut Registry,
) -> anyhow::Result<(Gateway, Recorder)> {
    let policy = Arc::new(policies(arguments)?);
    let home = folder.path().join("gateway");
    let id = gateway_id(&home, clock, entropy)?;
    let epoch = next_epoch(&home)?;
    let backbone: Arc<dyn Backbone> = Arc::new(EmbeddedBackbone::new(broker.clone()));
    let (recorder, open) =
        Recorder::open(RecorderOptions::new(id, epoch, home), backbone, clock.clone(), entropy.clone())
            .await
            .context("cannot read the trail back")?;
    let options = GatewayOptions {
        servers: config.server_specs()?,
        limits: config.limits()?,
        origins: config.gateway.origins.clone(),
        hosts: config.gateway.hosts.clone(),
        local_principal: std::env::var("USER").unwrap_or_else(|_| "local".to_owned()),
    };
    let metrics = Metrics::default();
    metrics.register(registry);
    let parts = Parts {
        recorder: recorder.clone(),
        policy: policy.clone(),
        keys: folder.keys(entropy)?,
        clock: clock.clone(),
        entropy: entropy.clone(),
        metrics,
        witness: witness()?,
    };
    let gateway = Gateway::new(options, parts)?;
    let closed = gateway.close_predecessor(open).await.context("cannot close what the last run left open")?;
    if closed > 0 {
        tracing::warn!(closed, "calls that the last run left open now have an outcome");
    }
    if policy.is_observing() {
        eprintln!("cairn: no policy files: everything is permitted and recorded (policy version observe)");
    }
    record_policies(&recorder, policy.activation("start").into_events());
    tokio::spawn(watch_policies(policy, recorder.clone()));
    Ok((gateway, recorder))
}

fn policies(arguments: &UpArguments) -> anyhow::Result<PolicyStore> {
    if let Some(folder) = &arguments.policies {
        return Ok(PolicyStore::open(Some(folder.clone()))?);
    }
    let beside = arguments.config.as_deref().map(|config| config.canonicalize()).transpose()?;
    match beside.as_deref().and_then(|config| config.parent()) {
        Some(folder) => Ok(PolicyStore::open_if_present(folder.join("policies"))?),
        None => Ok(PolicyStore::open(None)?),
    }
}

fn record_policies(recorder: &Recorder, events: Vec<Body>) {
    for body in events {
        let key = match &body {
            Body::PolicyLoaded(loaded) => loaded.version.clone(),
            Body::PolicyActivated(activated) => activated.version.clone(),
            _ => "rejected".to_owned(),
        };
        let draft = Draft { key, subject: None, traceparent: None, tracestate: None, common: Common::default(), body };
        recorder.relaxed(recorder.plan(draft));
    }
}

async fn watch_policies(policy: Arc<PolicyStore>, recorder: Recorder) {
    loop {
        tokio::time::sleep(POLICY_EVERY).await;
        if !policy.changed() {
            continue;
        }
        match policy.reload("file change") {
            Ok(change) => record_policies(&recorder, change.into_events()),
            Err(error) => {
                eprintln!("cairn: the new policies are not used, the old ones stay: {error}");
                record_policies(&recorder, vec![error.rejected(&policy.current_version(), "file change").into()]);
            }
        }
    }
}

struct Health {
    ready: Arc<AtomicBool>,
}

impl Probe for Health {
    fn ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    fn refresh(&self) {}
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

async fn signalled(stop: &CancellationToken) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
        () = stop.cancelled() => {}
    }
    Ok(())
}

async fn shut_down(parts: Running, stop: &CancellationToken, log: Log, folder: &Folder) {
    folder.withdraw();
    if let Some(gateway) = parts.gateway {
        gateway.close().await;
    }
    if let Some(recorder) = parts.recorder {
        let _ = recorder.close(Duration::from_secs(3)).await;
    }
    stop.cancel();
    let _ = tokio::time::timeout(Duration::from_secs(4), log.close()).await;
}

/// Where a process started by a wrap keeps its words.
pub(crate) fn log_file(data: &std::path::Path) -> PathBuf {
    data.join("up.log")
}
