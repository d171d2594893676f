//! `[consumers]`: which consumers run inside `up`, and what its admin address does to those of its data folder.
//!
//! The work is done in `cairn-consumers`; here it is wired. A consumer that cannot start or fails stops nothing else. What an
//! operator asks for is recorded before anything changes.

use std::path::{Path, PathBuf};

use anyhow::bail;
use cairn_backbone::{Recorder, reader::ReaderOptions};
use cairn_clock::{Clock, Entropy};
use cairn_consumers::{Consumer, Status};
use cairn_gateway::Gateway;
use serde::Deserialize;

use crate::{config::Config, engine::Role, observe::ObserveSection};

/// The consumers that there are.
pub(crate) const NAMES: [&str; 3] = [AUDIT, CONTEXT, OBSERVE];
pub(crate) const AUDIT: &str = "audit";
pub(crate) const CONTEXT: &str = "context";
pub(crate) const OBSERVE: &str = "observe";
const GROUP_BYTES_MAX: usize = 200;
/// Fewer events than this hold nothing of use.
const EVENTS_MIN: u64 = 1_000;

/// `[consumers]`
#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ConsumersSection {
    audit: AuditSection,
    context: ContextSection,
    observe: ObserveSection,
    /// The file that says so.
    #[serde(skip)]
    #[cfg_attr(not(feature = "audit"), allow(dead_code, reason = "this build has no database to leave word of"))]
    pub(crate) origin: Option<PathBuf>,
}

/// `[consumers.audit]`
#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct AuditSection {
    /// Whether it runs inside `up`; where nothing is said, with an embedded log that is not encrypted, or where a server is named.
    enabled: Option<bool>,
    group: Option<String>,
    /// A PostgreSQL server instead of a file: postgres://USER@HOST:PORT/DATABASE
    database: Option<String>,
    password: Option<String>,
    /// The schema on it.
    schema: Option<String>,
    /// Who asks questions, if another than who writes.
    query_user: Option<String>,
    query_password: Option<String>,
}

/// `[consumers.context]`
#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct ContextSection {
    /// As for `audit`.
    enabled: Option<bool>,
    group: Option<String>,
    /// Events that it keeps; the oldest go first.
    events_max: Option<u64>,
}

impl ConsumersSection {
    /// Refuses what makes no sense, and what this build cannot do.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        self.observe.check()?;
        self.audit.check()?;
        for (at, name) in NAMES.into_iter().enumerate() {
            if name != OBSERVE && self.enabled(name) == Some(true) && !cfg!(feature = "audit") {
                bail!("consumers.{name}.enabled is true, and {NO_DATABASE}");
            }
            let group = self.group(name);
            if group.is_empty() || group.len() > GROUP_BYTES_MAX || group.chars().any(char::is_control) {
                bail!("consumers.{name}.group: name a consumer group of 1 to {GROUP_BYTES_MAX} bytes");
            }
            if let Some(other) = NAMES[..at].iter().find(|other| self.group(other) == group) {
                bail!(
                    "consumers.{other}.group and consumers.{name}.group are the same: each would get a part of the trail"
                );
            }
        }
        if let Some(most) = self.context.events_max.filter(|most| *most < EVENTS_MIN) {
            bail!("consumers.context.events_max is {most}: set it to at least {EVENTS_MIN}");
        }
        Ok(())
    }

    fn enabled(&self, name: &str) -> Option<bool> {
        match name {
            CONTEXT => self.context.enabled,
            // Without a collector it has little to do.
            OBSERVE => self.observe.enabled.or(Some(self.observe.endpoint.is_some())),
            // Whoever names a server wants it there, whichever log it is.
            _ => self.audit.enabled.or(self.audit.database.is_some().then_some(true)),
        }
    }

    /// The consumer group of one.
    pub(crate) fn group(&self, name: &str) -> &str {
        match name {
            CONTEXT => self.context.group.as_deref().unwrap_or("cairn-context"),
            OBSERVE => self.observe.group.as_deref().unwrap_or("cairn-observe"),
            _ => self.audit.group.as_deref().unwrap_or("cairn-audit"),
        }
    }

    /// The consumer of that name or group.
    #[cfg(feature = "audit")]
    pub(crate) fn named(&self, text: &str) -> Option<&'static str> {
        NAMES.into_iter().find(|name| text == *name || text == self.group(name))
    }

    /// Whether one runs inside this `up`. On a cluster there may be many gateways and one trail, and an encrypted log must not get
    /// a copy in the clear: there somebody must want it.
    fn runs(&self, name: &str, config: &Config, role: Role, is_embedded: bool) -> bool {
        cfg!(feature = "audit")
            && (name != OBSERVE || cfg!(feature = "observe"))
            && role == Role::Everything
            && self.enabled(name).unwrap_or(is_embedded && !config.encryption.is_on())
    }
}

impl AuditSection {
    /// Refuses what makes no sense, and what this build cannot do; secrets are filled in where they are needed.
    fn check(&self) -> anyhow::Result<()> {
        let Some(database) = &self.database else {
            let beside = [
                ("password", &self.password),
                ("schema", &self.schema),
                ("query_user", &self.query_user),
                ("query_password", &self.query_password),
            ];
            if let Some((key, _)) = beside.iter().find(|(_, set)| set.is_some()) {
                bail!(
                    "consumers.audit.{key} is for a PostgreSQL server: name it in consumers.audit.database, or remove it"
                );
            }
            return Ok(());
        };
        if !cfg!(feature = "postgres") {
            bail!("consumers.audit.database names a server, and {NO_POSTGRES}");
        }
        // What is filled in is looked at when it is used.
        let is_server = ["postgres://", "postgresql://", "${"].iter().any(|head| database.starts_with(head));
        if !is_server {
            bail!(
                "consumers.audit.database is no server: write postgres://USER@HOST:PORT/DATABASE, or leave it out for a file"
            );
        }
        Ok(())
    }
}

#[cfg(feature = "audit")]
impl ConsumersSection {
    /// Whether `audit` is on a server.
    pub(crate) const fn names_server(&self) -> bool {
        self.audit.database.is_some()
    }

    /// The server of `audit`, with secrets filled in.
    #[cfg(feature = "postgres")]
    pub(crate) fn server(&self) -> anyhow::Result<Option<cairn_consumers::postgres::Options>> {
        use anyhow::Context;
        use cairn_consumers::postgres::{Options, Settings};

        let AuditSection { database, password, schema, query_user, query_password, .. } = &self.audit;
        let Some(url) = database else { return Ok(None) };
        let one =
            |key: &str, value: &str| crate::config::filled(value).with_context(|| format!("consumers.audit.{key}"));
        let maybe = |key: &str, value: &Option<String>| value.as_deref().map(|value| one(key, value)).transpose();
        let settings = Settings {
            url: one("database", url)?,
            password: maybe("password", password)?,
            schema: schema.clone(),
            query_user: maybe("query_user", query_user)?,
            query_password: maybe("query_password", query_password)?,
        };
        Options::read(&settings).map(Some).context("consumers.audit")
    }

    /// The same with another schema on that server, as a configuration of its own; references stay references.
    pub(crate) fn in_schema(&self, name: &str) -> (Self, String) {
        let audit = AuditSection { schema: Some(name.to_owned()), enabled: None, group: None, ..self.audit.clone() };
        let keys = [
            ("database", &audit.database),
            ("password", &audit.password),
            ("schema", &audit.schema),
            ("query_user", &audit.query_user),
            ("query_password", &audit.query_password),
        ];
        let mut text = "[consumers.audit]\n".to_owned();
        for (key, value) in keys {
            if let Some(value) = value {
                text += &format!("{key} = {}\n", toml::Value::String(value.clone()));
            }
        }
        (Self { audit, ..Self::default() }, text)
    }
}

/// What a consumer's database is opened for.
#[cfg(feature = "audit")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// To apply to it.
    Apply,
    /// To change it beside whoever applies.
    Operate,
}

/// What a build without PostgreSQL says.
pub(crate) const NO_POSTGRES: &str =
    "this build has no PostgreSQL (it leaves that out): cargo install --locked --path crates/cairn makes one that has";

/// What a build without databases says.
pub(crate) const NO_DATABASE: &str =
    "this build has no consumers (it leaves SQLite out): cargo install --locked --path crates/cairn makes one that has";

/// A running consumer, by name.
pub(crate) struct Running {
    pub(crate) consumer: Consumer,
    /// Of a file; a server knows by itself who holds it.
    #[cfg(feature = "audit")]
    _holder: Option<cairn_consumers::database::Holder>,
    #[cfg(feature = "observe")]
    observed: Option<crate::observe::Observed>,
}

impl Running {
    /// Applies what was read, and ends; what waits for a collector waits no longer.
    pub(crate) async fn close(self) {
        #[cfg(feature = "observe")]
        if let Some(observed) = &self.observed {
            observed.stop();
        }
        self.consumer.close().await;
    }
}

/// How a consumer of this process does, for `/metrics` and `GET /consumers`.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) name: &'static str,
    pub(crate) group: String,
    pub(crate) status: Status,
    /// What `observe` has beside it.
    #[cfg(feature = "observe")]
    pub(crate) observed: Option<crate::observe::Observed>,
}

/// Starts the consumers of this `up`; what is wrong with one is said, and the rest goes on.
pub(crate) fn start(
    config: &Config,
    role: Role,
    is_embedded: bool,
    data: &Path,
    reading: &ReaderOptions,
    (clock, entropy): (&Clock, &Entropy),
) -> Vec<(Running, Shown)> {
    let section = &config.consumers;
    let wanted = NAMES.into_iter().filter(|name| section.runs(name, config, role, is_embedded));
    let started = wanted.filter_map(|name| {
        let group = section.group(name).to_owned();
        let started = start_one((name, section), data, reading, group, (clock, entropy));
        started
            .inspect_err(|error| {
                eprintln!(
                    "cairn: the {name} consumer does not run here: {error:#}; calls go on, and nothing of the trail is lost"
                );
            })
            .ok()
    });
    started.collect()
}

#[cfg(feature = "audit")]
/// A consumer's database, for writing, and who it is in its group.
pub(crate) struct Opened {
    pub(crate) sink: Box<dyn cairn_consumers::Sink>,
    pub(crate) instance: String,
    #[cfg(feature = "observe")]
    observed: Option<crate::observe::Observed>,
}

#[cfg(feature = "audit")]
impl Opened {
    fn new(sink: impl cairn_consumers::Sink + 'static, instance: String) -> Self {
        Self {
            sink: Box::new(sink),
            instance,
            #[cfg(feature = "observe")]
            observed: None,
        }
    }
}

#[cfg(feature = "audit")]
/// Opens the database of that consumer in a data folder, or on its server; makes it where there is none, but for an operator on a server.
pub(crate) fn open(
    (name, section): (&str, &ConsumersSection),
    data: &Path,
    entropy: &Entropy,
    purpose: Purpose,
) -> Result<Opened, cairn_consumers::SinkError> {
    use cairn_consumers::{
        audit::AuditSink,
        context::{Context, ContextSink, EVENTS_MAX},
        database,
    };

    let path = database::path(data, name);
    if name == CONTEXT {
        let context = Context { events_max: section.context.events_max.unwrap_or(EVENTS_MAX) };
        let sink = ContextSink::open_for(&path, entropy, context)?;
        let instance = sink.instance().to_owned();
        return Ok(Opened::new(sink, instance));
    }
    if name == OBSERVE {
        return open_observe(&section.observe, &path, entropy);
    }
    #[cfg(feature = "postgres")]
    if let Some(options) = server(section)? {
        use cairn_consumers::postgres::{PostgresSink, Role};
        let role = if purpose == Purpose::Apply { Role::Applies } else { Role::Operates };
        let instance = options.instance();
        return Ok(Opened::new(PostgresSink::new(options, entropy, role), instance));
    }
    let _ = purpose;
    let sink = AuditSink::open(&path, entropy)?;
    let instance = sink.instance().to_owned();
    Ok(Opened::new(sink, instance))
}

#[cfg(feature = "postgres")]
fn server(
    section: &ConsumersSection,
) -> Result<Option<cairn_consumers::postgres::Options>, cairn_consumers::SinkError> {
    section.server().map_err(|error| cairn_consumers::SinkError::Broken { reason: format!("{error:#}") })
}

/// Whether anything was ever applied to that consumer's database.
#[cfg(feature = "audit")]
pub(crate) fn has_applied(
    (name, section): (&str, &ConsumersSection),
    data: &Path,
    entropy: &Entropy,
) -> Result<bool, cairn_consumers::SinkError> {
    #[cfg(feature = "postgres")]
    if let Some(options) = server(section)?.filter(|_| name == AUDIT) {
        use cairn_consumers::postgres::{PostgresSink, Role};
        return PostgresSink::new(options, entropy, Role::Operates).has_tables();
    }
    let _ = (section, entropy);
    Ok(cairn_consumers::database::path(data, name).exists())
}

/// Where that consumer's results are, for people.
#[cfg(feature = "audit")]
pub(crate) fn place((name, section): (&str, &ConsumersSection), data: &Path) -> String {
    #[cfg(feature = "postgres")]
    if let Ok(Some(options)) = server(section).map(|server| server.filter(|_| name == AUDIT)) {
        return options.shown().to_owned();
    }
    let _ = section;
    cairn_consumers::database::path(data, name).display().to_string()
}

#[cfg(feature = "observe")]
fn open_observe(
    section: &ObserveSection,
    path: &Path,
    entropy: &Entropy,
) -> Result<Opened, cairn_consumers::SinkError> {
    let (sink, observed) = crate::observe::open(section, path, entropy)?;
    let instance = sink.instance().to_owned();
    Ok(Opened { observed: Some(observed), ..Opened::new(sink, instance) })
}

#[cfg(all(feature = "audit", not(feature = "observe")))]
fn open_observe(_: &ObserveSection, _: &Path, _: &Entropy) -> Result<Opened, cairn_consumers::SinkError> {
    Err(cairn_consumers::SinkError::Broken { reason: crate::observe::NO_OBSERVE.to_owned() })
}

#[cfg(feature = "audit")]
/// Starts a consumer into its database in that data folder.
pub(crate) fn start_one(
    (name, section): (&'static str, &ConsumersSection),
    data: &Path,
    reading: &ReaderOptions,
    group: String,
    (clock, entropy): (&Clock, &Entropy),
) -> anyhow::Result<(Running, Shown)> {
    use anyhow::Context;
    use cairn_backbone::group::GroupOptions;
    use cairn_consumers::{
        ConsumerOptions,
        database::{self, Holder},
    };

    let path = database::path(data, name);
    let holder = if name == AUDIT && section.names_server() {
        None
    } else {
        match Holder::take(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                bail!("another process applies events to {} already", path.display())
            }
            taken => Some(taken.with_context(|| format!("cannot hold {}", path.display()))?),
        }
    };
    let opened = open((name, section), data, entropy, Purpose::Apply)?;
    if name == AUDIT {
        crate::audit::leave_word(section, data)?;
    }
    #[cfg(feature = "observe")]
    let observed = opened.observed;
    let Opened { sink, instance, .. } = opened;
    let options = ConsumerOptions {
        name: name.to_owned(),
        group: GroupOptions {
            bootstrap: reading.bootstrap.clone(),
            properties: reading.properties.clone(),
            group: group.clone(),
            instance,
        },
    };
    let status = Status::default();
    let consumer = Consumer::start(options, sink, clock.clone(), status.clone());
    #[cfg(feature = "observe")]
    if let Some(observed) = &observed {
        observed.begin();
    }
    let running = Running {
        consumer,
        _holder: holder,
        #[cfg(feature = "observe")]
        observed: observed.clone(),
    };
    let shown = Shown {
        name,
        group,
        status,
        #[cfg(feature = "observe")]
        observed,
    };
    Ok((running, shown))
}

#[cfg(not(feature = "audit"))]
/// There is none in this build.
pub(crate) fn start_one(
    _: (&'static str, &ConsumersSection),
    _: &Path,
    _: &ReaderOptions,
    _: String,
    _: (&Clock, &Entropy),
) -> anyhow::Result<(Running, Shown)> {
    bail!("{NO_DATABASE}")
}

/// The consumers of this data folder, as its admin address serves them.
#[derive(Clone)]
#[cfg_attr(not(feature = "audit"), allow(dead_code, reason = "there is nothing to serve in this build"))]
pub(crate) struct Desk {
    pub(crate) data: PathBuf,
    pub(crate) section: ConsumersSection,
    pub(crate) reading: ReaderOptions,
    pub(crate) recorder: Recorder,
    pub(crate) gateway: Gateway,
    pub(crate) shown: Vec<Shown>,
    pub(crate) entropy: Entropy,
    /// Questions to `audit` that are answered at once: each may take memory and a disk's time.
    pub(crate) asking: std::sync::Arc<tokio::sync::Semaphore>,
    /// And those to `context`, which are bounded: they wait for each other.
    pub(crate) asking_context: std::sync::Arc<tokio::sync::Semaphore>,
}

/// Questions to the audit database that are answered at once.
pub(crate) const QUERIES_MAX: usize = 2;
/// Questions to the context that are answered at once.
pub(crate) const CONTEXT_QUERIES_MAX: usize = 4;

#[cfg(feature = "audit")]
mod desk {
    //! What the admin address does to the consumers of this data folder.

    use std::sync::Arc;

    use cairn_backbone::records::{Bounded, Records};
    use cairn_consumers::{
        Position, Sink, SinkError,
        audit::query::{self, Limits, QueryError},
    };
    use cairn_contract::{
        Body, Common, ConsumerChange, ConsumerMoved, Draft, OffsetMove, ReplayEnded, ReplayOutcome, ReplayStarted,
        Topic,
    };
    use cairn_operators::{Answering, ConsumerChangeAsked, ConsumerFault, Consumers, DoneBy, ReplayBody};
    use serde_json::{Map, Value, json};

    use super::{Desk, NAMES, Purpose, Shown};
    use crate::context::{self, Answers};

    /// Rows that the admin address answers with at most.
    const ROWS_MAX: usize = 10_000;

    impl Desk {
        fn open(&self, name: &str) -> Result<Box<dyn Sink>, ConsumerFault> {
            if !NAMES.contains(&name) {
                return Err(ConsumerFault::NoSuch(format!("there is no consumer {name:?}: {}", NAMES.join(", "))));
            }
            let which = (name, &self.section);
            if !super::has_applied(which, &self.data, &self.entropy).map_err(|error| away(&error))? {
                let words = format!("{name} has applied nothing to {} yet", super::place(which, &self.data));
                return Err(ConsumerFault::NoSuch(words));
            }
            let opened = super::open(which, &self.data, &self.entropy, Purpose::Operate);
            opened.map(|opened| opened.sink).map_err(|error| away(&error))
        }

        fn group(&self, name: &str) -> String {
            self.section.group(name).to_owned()
        }

        async fn record(&self, key: String, body: impl Into<Body>) -> Result<(), ConsumerFault> {
            let body = body.into();
            let draft =
                Draft { key, subject: None, traceparent: None, tracestate: None, common: Common::default(), body };
            let recorded = self.recorder.strict(self.recorder.plan(draft)).await.map(drop);
            recorded
                .map_err(|error| ConsumerFault::Away(format!("it is not done, because it cannot be recorded: {error}")))
        }

        fn screened(&self, by: DoneBy) -> DoneBy {
            let reason = by.reason.map(|words| self.gateway.screen(&words)).filter(|words| !words.is_empty());
            DoneBy { operator: self.gateway.screen(&by.operator), reason, ..by }
        }

        async fn changed(self, name: String, how: ConsumerChangeAsked, by: DoneBy) -> Result<Value, ConsumerFault> {
            let here = self.clone();
            let planned = blocking(move || {
                let mut sink = here.open(&name)?;
                let stands = sink.positions().map_err(|error| away(&error))?;
                let to = match how {
                    ConsumerChangeAsked::Seek(to_ms) => here.positions_at(to_ms)?,
                    ConsumerChangeAsked::Pause | ConsumerChangeAsked::Resume => Vec::new(),
                };
                Ok((name, sink, stands, to))
            });
            let (name, mut sink, stands, to) = planned.await?;
            let from = |to: &Position| {
                let same = |stand: &&Position| stand.place == to.place && stand.topic_id == to.topic_id;
                stands.iter().find(same).map(|stand| stand.next)
            };
            let moves: Vec<OffsetMove> = to
                .iter()
                .map(|to| OffsetMove {
                    topic: to.place.topic.clone(),
                    partition: to.place.partition,
                    from: from(to),
                    to: to.next,
                })
                .filter(|one| one.from != Some(one.to))
                .collect();
            let DoneBy { operator, role, reason } = self.screened(by);
            let (change, to_time) = match how {
                ConsumerChangeAsked::Pause => (ConsumerChange::Paused, None),
                ConsumerChangeAsked::Resume => (ConsumerChange::Resumed, None),
                ConsumerChangeAsked::Seek(to_ms) => (ConsumerChange::Moved, Some(written(to_ms))),
            };
            let event = ConsumerMoved {
                operator,
                role: Some(role),
                group: self.group(&name),
                consumer: name,
                change,
                to_time,
                moves,
                reason,
            };
            let told = json!(event);
            self.record(event.group.clone(), event).await?;
            let done = blocking(move || {
                let done = match how {
                    ConsumerChangeAsked::Pause => sink.pause(true),
                    ConsumerChangeAsked::Resume => sink.pause(false),
                    ConsumerChangeAsked::Seek(_) => sink.move_to(&to),
                };
                done.map_err(|error| away(&error))
            });
            done.await.map(|()| told)
        }

        /// Where each partition has its first record that is not older than that.
        fn positions_at(&self, time_ms: i64) -> Result<Vec<Position>, ConsumerFault> {
            let said = |error: cairn_backbone::reader::ReaderError| ConsumerFault::Away(error.to_string());
            let records = Records::open(&self.reading.bootstrap, &self.reading.properties).map_err(said)?;
            let bounded = records.partitions(|topic| Topic::of_anybody(topic).is_some()).map_err(said)?;
            let at = records.offsets_at(&bounded, time_ms).map_err(said)?;
            let ids = records.topic_ids();
            let position = |(Bounded { topic, partition, .. }, next): (Bounded, u64)| Position {
                topic_id: ids.get(&topic).map(ToString::to_string).unwrap_or_default(),
                place: cairn_backbone::group::Place { topic, partition },
                next,
            };
            Ok(bounded.into_iter().zip(at).map(position).collect())
        }

        async fn started(self, name: String, body: ReplayBody, by: DoneBy) -> Result<Value, ConsumerFault> {
            let (here, named) = (self.clone(), name.clone());
            blocking(move || here.open(&named).map(drop)).await?;
            let DoneBy { operator, role, reason } = self.screened(by);
            let replay_id = self.gateway.new_id();
            let event = ReplayStarted {
                replay_id: replay_id.clone(),
                operator,
                role: Some(role),
                group: body.group.unwrap_or_else(|| self.group(&name)),
                consumer: name,
                from_time: body.from_time,
                to_time: body.to_time,
                offsets: body.ranges.iter().map(|range| range.to.saturating_sub(range.from)).sum(),
                ranges: body.ranges,
                rate_max: body.rate_max,
                reason,
            };
            self.record(event.group.clone(), event).await?;
            Ok(json!({ "replay_id": replay_id }))
        }

        async fn ended(self, name: String, body: ReplayBody, by: DoneBy) -> Result<Value, ConsumerFault> {
            let DoneBy { operator, role, .. } = self.screened(by);
            let no_id = || ConsumerFault::Refused("say which replay has ended: replay_id".to_owned());
            let event = ReplayEnded {
                replay_id: body.replay_id.filter(|id| !id.is_empty()).ok_or_else(no_id)?,
                operator,
                role: Some(role),
                group: body.group.unwrap_or_else(|| self.group(&name)),
                consumer: name,
                outcome: body.outcome.unwrap_or(ReplayOutcome::Failed),
                records: body.records,
                replaced: body.replaced,
                changed: body.changed,
                dead_letters: body.dead_letters,
                elapsed_ms: body.elapsed_ms,
                error: body.error.map(|words| self.gateway.screen(&words)),
            };
            let told = json!(event);
            self.record(event.group.clone(), event).await?;
            Ok(told)
        }

        async fn asked(self, sql: String, rows_max: Option<usize>) -> Result<Value, ConsumerFault> {
            let busy = || {
                ConsumerFault::Away(format!(
                    "{} questions are being answered already: ask again in a moment",
                    super::QUERIES_MAX
                ))
            };
            let _turn = self.asking.clone().try_acquire_owned().map_err(|_| busy())?;
            let limits = Limits { rows_max: rows_max.unwrap_or(ROWS_MAX).min(ROWS_MAX), ..Limits::default() };
            let store = crate::audit::store(&self.section, &self.data);
            let store = store.map_err(|error| ConsumerFault::Away(format!("{error:#}")))?;
            let answer = blocking(move || Ok(store.ask(&sql, &limits)));
            answer.await?.map(|answer| shown(&answer)).map_err(|error| {
                let words = error.to_string();
                match error {
                    QueryError::Missing { .. } => ConsumerFault::NoSuch(words),
                    QueryError::Away { .. } => ConsumerFault::Away(words),
                    QueryError::Refused { .. } | QueryError::Sql { .. } | QueryError::Slow { .. } => {
                        ConsumerFault::Refused(words)
                    }
                }
            })
        }
    }

    impl Desk {
        async fn answered(self, what: String, members: Map<String, Value>) -> Result<Value, ConsumerFault> {
            let closed = |_| ConsumerFault::Away("it is about to end".to_owned());
            let _turn = self.asking_context.clone().acquire_owned().await.map_err(closed)?;
            let gateway = self.gateway.clone();
            let answers =
                Answers::of(&self.data, Arc::new(move |what, text: &str| context::screen(&gateway, what, text)));
            blocking(move || answers.for_operator(&what, members)).await
        }
    }

    /// An answer as JSON.
    pub(crate) fn shown(answer: &query::Answer) -> Value {
        json!({
            "columns": answer.columns,
            "rows": answer.rows,
            "is_cut": answer.is_cut,
            "elapsed_ms": answer.elapsed.as_secs_f64() * 1e3,
        })
    }

    async fn blocking<T: Send + 'static>(
        work: impl FnOnce() -> Result<T, ConsumerFault> + Send + 'static,
    ) -> Result<T, ConsumerFault> {
        let ended = tokio::task::spawn_blocking(work).await;
        ended.unwrap_or_else(|_| Err(ConsumerFault::Away("it was cut off".to_owned())))
    }

    fn away(error: &SinkError) -> ConsumerFault {
        ConsumerFault::Away(error.to_string())
    }

    fn written(time_ms: i64) -> String {
        cairn_clock::Timestamp::from_micros(time_ms.max(0).unsigned_abs().saturating_mul(1_000)).to_string()
    }

    /// How one stands.
    pub(crate) fn standing(shown: &Shown) -> Value {
        let now = shown.status.snapshot();
        let freshness = shown.status.freshness();
        json!({
            "consumer": shown.name,
            "group": shown.group,
            "lag_records": now.behind(),
            "lag_seconds": now.lag.as_secs_f64(),
            "events": now.events,
            "dead_letters": now.dead_letters,
            "newer_contracts": now.newer,
            "is_paused": now.is_paused,
            "is_assigned": now.is_assigned,
            "failing": now.failing,
            "freshness_p50_ms": freshness.p50.as_secs_f64() * 1e3,
            "freshness_p99_ms": freshness.p99.as_secs_f64() * 1e3,
        })
    }

    impl Consumers for Desk {
        fn stand(&self) -> Value {
            json!({ "consumers": self.shown.iter().map(standing).collect::<Vec<_>>() })
        }

        fn change(&self, name: String, how: ConsumerChangeAsked, by: DoneBy) -> Answering {
            Box::pin(self.clone().changed(name, how, by))
        }

        fn replay_starts(&self, name: String, body: ReplayBody, by: DoneBy) -> Answering {
            Box::pin(self.clone().started(name, body, by))
        }

        fn replay_ends(&self, name: String, body: ReplayBody, by: DoneBy) -> Answering {
            Box::pin(self.clone().ended(name, body, by))
        }

        fn query(&self, sql: String, rows_max: Option<usize>) -> Answering {
            Box::pin(self.clone().asked(sql, rows_max))
        }

        fn context(&self, what: String, members: Map<String, Value>) -> Answering {
            Box::pin(self.clone().answered(what, members))
        }
    }

    /// The desk as the admin address wants it.
    pub(crate) fn serve(desk: Desk) -> Option<Arc<dyn Consumers>> {
        Some(Arc::new(desk))
    }
}

#[cfg(feature = "audit")]
pub(crate) use desk::{serve, shown};

/// There is nothing to serve in this build.
#[cfg(not(feature = "audit"))]
pub(crate) fn serve(_: Desk) -> Option<std::sync::Arc<dyn cairn_operators::Consumers>> {
    None
}
