//! The runs of `cairn consumer check`: the stage, and what is shown on it but for freshness.

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use cairn_backbone::records::Records;
use cairn_clock::{Clock, Entropy};
use cairn_consumers::{
    Pace, Replay,
    audit::query::{self, Limits},
    database, plan,
};
use cairn_contract::{EventType, Topic, contracts};
use parking_lot::Mutex;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::{ClientContext, DefaultClientContext},
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext},
};
use serde_json::{Value, json};
use tokio::{runtime::Handle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    consumers::{self, AUDIT, CONTEXT, ConsumersSection, NAMES, OBSERVE, Purpose},
    ending::Ending,
    folder, say,
    writers::Writers,
};

/// How long one wait may take.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(120);
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(20);
const KILLS: u32 = 6;
/// How long each kind of traffic lasts.
pub(super) const TRAFFIC: Duration = Duration::from_secs(4);
/// The oldest event that waits under burst must not be older than this.
const LAG_MAX: Duration = Duration::from_secs(5);
pub(super) const BURST: u64 = 10;
/// A version that no contract has.
const NEWER: u32 = 9_999;
/// Acknowledgements of which the time is kept.
const ACKNOWLEDGED_MAX: usize = 1_000_000;
/// More than this `context` would not keep.
const CONTEXT_EVENTS_MAX: u64 = 300_000;

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// Events of the part in which it is killed.
    pub(crate) events: u64,
    /// Events a second of the normal traffic.
    pub(crate) rate: u64,
    /// How long the pause is from which it recovers.
    pub(crate) pause: Duration,
}

/// What one part found.
struct Found {
    what: &'static str,
    words: Result<String, String>,
}

/// Checks a consumer.
pub(crate) async fn run(name: String, size: Size, config: Option<PathBuf>, as_json: bool) -> anyhow::Result<()> {
    let Some(name) = NAMES.into_iter().find(|known| *known == name) else {
        bail!("there is no consumer {name:?}: {}", NAMES.join(", "));
    };
    if name == OBSERVE {
        bail!("what {name} makes lies with the collector, so nothing here can be compared: see docs/observe.md");
    }
    if name == CONTEXT && size.events > CONTEXT_EVENTS_MAX {
        bail!("{name} keeps a bounded number of events: give --events {CONTEXT_EVENTS_MAX} or fewer");
    }
    let section = match config {
        Some(path) if name == AUDIT => Config::read_consumers(&path)?,
        _ => ConsumersSection::default(),
    };
    let handle = Handle::current();
    let found = tokio::task::spawn_blocking(move || checked((name, &section), handle, size, as_json)).await??;
    let failed = found.iter().filter(|one| one.words.is_err()).count() as u64;
    if as_json {
        let list: Vec<Value> = found
            .iter()
            .map(|one| json!({ "check": one.what, "ok": one.words.is_ok(), "words": one.words.clone().unwrap_or_else(|words| words) }))
            .collect();
        say::line(format_args!("{}", json!({ "consumer": name, "ready": failed == 0, "checks": list })));
    } else if failed == 0 {
        say::line(format_args!("{name} is ready"));
    }
    if failed == 0 { Ok(()) } else { Err(Ending::NotReady(failed).into()) }
}

fn checked(
    (name, section): (&'static str, &ConsumersSection),
    handle: Handle,
    size: Size,
    is_quiet: bool,
) -> anyhow::Result<Vec<Found>> {
    let mut stage = Stage::set((name, section), handle)?;
    let mut all = Vec::new();
    let parts: [(&'static str, Part); 5] = [
        ("reads the current and every prior contract, and keeps newer ones", Stage::reads_contracts),
        ("killed anywhere it neither misses nor repeats", Stage::is_killed),
        ("a replay gives the same results", Stage::replays),
        ("its lag is bounded under ten times the traffic", Stage::bears_a_burst),
        ("it is fresh, and recovers from a pause beside live traffic", Stage::is_fresh),
    ];
    for (what, part) in parts {
        let words = part(&mut stage, size).map_err(|error| format!("{error:#}"));
        if !is_quiet {
            match &words {
                Ok(words) => say::line(format_args!("ok    {what}: {words}")),
                Err(words) => say::line(format_args!("FAIL  {what}: {words}")),
            }
        }
        all.push(Found { what, words });
    }
    Ok(all)
}

type Part = fn(&mut Stage, Size) -> anyhow::Result<String>;

/// A process that ends with this value, by its own pid.
struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> anyhow::Result<Self> {
        for variable in ["CAIRN_DATA", "CAIRN_OPERATOR_TOKEN"] {
            command.env_remove(variable);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Ok(Self(child.context("cannot start another cairn")?))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // On Unix this is SIGKILL.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How long the log took to acknowledge the newest records, in microseconds.
#[derive(Default)]
pub(super) struct Acknowledged(Mutex<Vec<u64>>);

impl Acknowledged {
    /// What came since this was asked last.
    pub(super) fn take(&self) -> Vec<u64> {
        std::mem::take(&mut *self.0.lock())
    }
}

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = Box<Instant>;

    fn delivery(&self, _: &DeliveryResult<'_>, sent: Self::DeliveryOpaque) {
        let mut micros = self.0.lock();
        if micros.len() < ACKNOWLEDGED_MAX {
            micros.push(u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX));
        }
    }
}

/// A throw-away log, who writes it, and where the consumer keeps its results.
pub(super) struct Stage {
    pub(super) name: &'static str,
    pub(super) handle: Handle,
    pub(super) kafka: String,
    pub(super) producer: BaseProducer<Acknowledged>,
    pub(super) data: PathBuf,
    pub(super) sent: u128,
    /// Where the results are, if not in the folder.
    pub(super) section: ConsumersSection,
    config: Option<PathBuf>,
    _broker: Process,
    _scratch: Option<Scratch>,
    _folder: tempfile::TempDir,
}

/// A schema on a server that is there for this run alone.
struct Scratch(#[cfg_attr(not(feature = "postgres"), allow(dead_code))] ConsumersSection);

impl Drop for Scratch {
    fn drop(&mut self) {
        #[cfg(feature = "postgres")]
        if let Ok(Some(server)) = self.0.server()
            && let Err(error) = cairn_consumers::postgres::remove(&server)
        {
            eprintln!("cairn: remove it by hand, it could not be: {}: {error}", server.shown());
        }
    }
}

impl Stage {
    fn set((name, section): (&'static str, &ConsumersSection), handle: Handle) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let (mut scratch, mut config) = (None, None);
        let mut section = section.clone();
        if section.names_server() {
            let (other, text) = section.in_schema(&format!("cairn_check_{}", std::process::id()));
            let path = folder.path().join("cairn.toml");
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            (section, scratch, config) = (other.clone(), Some(Scratch(other)), Some(path));
        }
        let log = folder::made(&folder.path().join("log"))?;
        let secret = Writers::of(&log).renew("check", &Entropy::system())?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["broker", "--kafka", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"]).arg(&log);
        let broker = Process::start(&mut command)?;
        let kafka = wait(&handle, "the log", || Ok(folder::endpoints(&log).map(|endpoints| endpoints.kafka)))?;
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", &kafka)
            .set("security.protocol", "sasl_plaintext")
            .set("sasl.mechanism", "PLAIN")
            .set("sasl.username", "check")
            .set("sasl.password", secret)
            .set("acks", "all")
            .set("linger.ms", "2")
            .set("queue.buffering.max.messages", "1000000");
        let admin: AdminClient<DefaultClientContext> = client.create()?;
        let topics: Vec<NewTopic<'_>> = Topic::ALL
            .iter()
            .map(|topic| {
                let partitions = i32::try_from(topic.spec().partitions).unwrap_or(1);
                NewTopic::new(topic.name(), partitions, TopicReplication::Fixed(1))
            })
            .collect();
        for made in handle.block_on(admin.create_topics(&topics, &AdminOptions::new()))? {
            made.map_err(|(topic, code)| anyhow::anyhow!("the topic {topic} could not be made: {code}"))?;
        }
        let data = folder.path().join("consumer");
        let producer = client.create_with_context(Acknowledged::default())?;
        let (_broker, _scratch, _folder) = (broker, scratch, folder);
        Ok(Self { name, handle, kafka, producer, data, sent: 0, section, config, _broker, _scratch, _folder })
    }

    fn consume(&self) -> anyhow::Result<Process> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["consume", self.name, "--bootstrap", &self.kafka, "--data"]).arg(&self.data);
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        Process::start(&mut command)
    }

    /// Sends a value as an event of that type; its `ce_id`.
    fn tell(&mut self, topic: Topic, name: &str, value: &str) -> anyhow::Result<String> {
        self.sent += 1;
        let id = uuid::Uuid::from_u128(self.sent).to_string();
        let time = Clock::system().now().to_string();
        let name = format!("io.cairn.{name}");
        let texts = [("ce_id", id.as_str()), ("ce_type", &name), ("ce_source", "cairn://check"), ("ce_time", &time)];
        let headers = texts.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value.as_bytes()) })
        });
        let partitions = u128::from(topic.spec().partitions);
        let partition = i32::try_from(self.sent % partitions).unwrap_or_default();
        let record = BaseRecord::with_opaque_to(topic.name(), Box::new(Instant::now()));
        let record = record.partition(partition).headers(headers).key("check").payload(value);
        self.producer.send(record).map_err(|(error, _)| error)?;
        self.producer.poll(Duration::ZERO);
        Ok(id)
    }

    /// One event of a call.
    pub(super) fn tell_one(&mut self) -> anyhow::Result<()> {
        let call = uuid::Uuid::from_u128(self.sent / 4);
        let value = json!({
            "workflow_id": format!("wf-{}", self.sent % 100), "call_id": call, "gen_ai_tool_name": "check",
            "contract": { "name": "call.intent", "version": 1 },
        });
        self.tell(Topic::Calls, "call.intent", &value.to_string()).map(drop)
    }

    pub(super) fn flush(&self) -> anyhow::Result<()> {
        Ok(self.producer.flush(WAIT_MAX)?)
    }

    fn ask(&self, sql: &str) -> anyhow::Result<Vec<Vec<Value>>> {
        let limits = Limits { rows_max: 2_000_000, bytes_max: 1 << 30, time_max: WAIT_MAX };
        if self.name == AUDIT {
            return Ok(crate::audit::store(&self.section, &self.data)?.ask(sql, &limits)?.rows);
        }
        Ok(query::ask(&database::path(&self.data, self.name), sql, &limits)?.rows)
    }

    fn number(&self, sql: &str) -> anyhow::Result<u64> {
        Ok(self.ask(sql)?.first().and_then(|row| row.first()).and_then(Value::as_u64).unwrap_or_default())
    }

    /// How many records it has come past; 0 while there is no database.
    pub(super) fn applied(&self) -> u64 {
        self.number("SELECT coalesce(sum(next), 0) FROM places").unwrap_or_default()
    }

    pub(super) fn wait_for_all(&self, records: u64) -> anyhow::Result<()> {
        let sum = "SELECT coalesce(sum(next), 0) FROM places";
        wait(&self.handle, "the consumer to apply everything", || {
            Ok(self.number(sum).ok().filter(|applied| *applied >= records).map(drop))
        })
    }

    fn reads_contracts(&mut self, _: Size) -> anyhow::Result<String> {
        let (mut told, mut versions) = (BTreeMap::new(), 0);
        for event_type in EventType::ALL {
            for contract in contracts(event_type) {
                versions += 1;
                let schema: Value = serde_json::from_str(contract.schema)?;
                for example in schema.get("examples").and_then(Value::as_array).into_iter().flatten() {
                    let text = example.to_string();
                    let id = self.tell(event_type.topic(), event_type.name(), &text)?;
                    if self.keeps(event_type) {
                        told.insert(id, (contract.version, 1, text));
                    }
                }
            }
            // What a later Cairn may write: another form of a known key, and a key that nobody knows.
            let (name, version) = (event_type.name(), NEWER);
            let text = json!({ "workflow_id": ["w"], "novel": 1, "contract": { "name": name, "version": version } });
            let id = self.tell(event_type.topic(), name, &text.to_string())?;
            if self.keeps(event_type) {
                told.insert(id, (NEWER, 0, text.to_string()));
            }
        }
        let unknown = json!({ "contract": { "name": "check.unheard", "version": 1 } }).to_string();
        let id = self.tell(Topic::Calls, "check.unheard", &unknown)?;
        told.insert(id, (1, 0, unknown));
        for poison in ["{\"broken\":", "[]", "{}"] {
            self.tell(Topic::Calls, "call.intent", poison)?;
        }
        self.flush()?;
        let _consumer = self.consume()?;
        self.wait_for_all(self.sent as u64)?;
        for row in self.ask("SELECT id, contract_version, known, data FROM events")? {
            let id = row[0].as_str().unwrap_or_default();
            let (version, known, text) = told.remove(id).with_context(|| format!("the event {id} is there twice"))?;
            let is_same = (row[1].as_u64(), row[2].as_u64()) == (Some(version.into()), Some(known));
            ensure!(is_same && row[3].as_str() == Some(&text), "the event {id} is not as it was written: {text}");
        }
        ensure!(told.is_empty(), "{} events are missing, such as {:?}", told.len(), told.values().next());
        let dead = self.number("SELECT count(*) FROM dead_letters")?;
        ensure!(dead == 3, "3 records are no events, and {dead} are dead letters");
        Ok(format!("{versions} versions of {} contracts, 3 dead letters", EventType::ALL.len()))
    }

    /// Whether the consumer has a row for events of that type.
    fn keeps(&self, event_type: EventType) -> bool {
        let is_hold = matches!(event_type.name(), "subject.held" | "subject.released");
        self.name != CONTEXT || is_hold || matches!(event_type.topic(), Topic::Calls | Topic::Context)
    }

    /// What came of all that was applied.
    fn results(&self) -> anyhow::Result<u64> {
        let all = "SELECT (SELECT count(*) FROM events) + (SELECT count(*) FROM dead_letters)";
        self.number(all)
    }

    fn is_killed(&mut self, Size { events, .. }: Size) -> anyhow::Result<String> {
        let before = self.sent as u64;
        let held = self.results()?;
        for _ in 0..events {
            self.tell_one()?;
        }
        let (mut seen, mut in_between) = (self.applied(), 0);
        for kill in 0..KILLS {
            let consumer = self.consume()?;
            let begun = Instant::now();
            // Each at another moment of its work.
            while begun.elapsed() < Duration::from_secs(10) && self.applied() <= seen {
                self.rest(Duration::from_millis(u64::from(3 + kill * 5)));
            }
            drop(consumer);
            let now = self.applied();
            in_between += u32::from(now > seen && now < before + events);
            seen = now;
        }
        self.flush()?;
        let _consumer = self.consume()?;
        self.wait_for_all(before + events)?;
        let came = self.results()?.saturating_sub(held);
        ensure!(came == events, "{events} events were sent, and {came} came");
        let rows = self.number("SELECT count(*) FROM events")?;
        let ids = self.number("SELECT count(DISTINCT id) FROM events")?;
        ensure!(ids == rows, "{} events are there twice", rows - ids);
        Ok(format!("{events} events, killed {KILLS} times, {in_between} of them in the middle"))
    }

    fn replays(&mut self, _: Size) -> anyhow::Result<String> {
        let before = self.all()?;
        let records = Records::open(&self.kafka, &BTreeMap::new())?;
        let which = (self.name, &self.section);
        let mut sink = consumers::open(which, &self.data, &Entropy::system(), Purpose::Operate)?.sink;
        let planned = plan(&records, &sink.positions()?, (None, None), &[])?;
        let replay = Replay::new(&records, planned.spans, Pace::default(), CancellationToken::new());
        let done = replay.run(&mut *sink, &mut |_, _| {})?;
        ensure!(done.changed == 0, "{} of {} results are others after it", done.changed, done.replaced);
        ensure!(self.all()? == before, "the database is not what it was");
        let rows = before[0].len();
        ensure!(done.replaced == rows as u64, "{} of {rows} results were replaced", done.replaced);
        Ok(format!("{} records, none of their results changed", done.records))
    }

    /// Every table of results, row by row.
    fn all(&self) -> anyhow::Result<Vec<Vec<Vec<Value>>>> {
        let more: &[&str] = if self.name == CONTEXT { &["resources", "views"] } else { &[] };
        let tables = std::iter::once("events").chain(more.iter().copied());
        tables.map(|table| self.ask(&format!("SELECT * FROM {table} ORDER BY 1, 2, 3, 4, 5"))).collect()
    }

    fn bears_a_burst(&mut self, Size { rate, .. }: Size) -> anyhow::Result<String> {
        let _consumer = self.consume()?;
        let before = self.sent as u64;
        self.wait_for_all(before)?;
        let normal = self.traffic(rate)?;
        let burst = self.traffic(rate * BURST)?;
        let begun = Instant::now();
        self.wait_for_all(self.sent as u64)?;
        let drained = begun.elapsed();
        ensure!(
            burst < LAG_MAX && drained < LAG_MAX,
            "at {} a second the oldest event waited {burst:.1?}, and it took {drained:.1?} to catch up",
            rate * BURST
        );
        Ok(format!(
            "{rate} a second: the oldest event waited {normal:.0?} at most; {} a second: {burst:.0?}, caught up after {drained:.0?}",
            rate * BURST
        ))
    }

    /// Sends at that rate for a while; the longest that an event waited.
    fn traffic(&mut self, rate: u64) -> anyhow::Result<Duration> {
        let (begun, before) = (Instant::now(), self.sent as u64);
        let mut waiting: VecDeque<(u64, Instant)> = VecDeque::new();
        let mut longest = Duration::ZERO;
        while begun.elapsed() < TRAFFIC {
            let due = (begun.elapsed().as_secs_f64() * rate as f64) as u64;
            while (self.sent as u64) < before + due {
                self.tell_one()?;
            }
            waiting.push_back((self.sent as u64, Instant::now()));
            self.producer.poll(Duration::ZERO);
            self.rest(LOOK_EVERY);
            let applied = self.applied();
            while waiting.front().is_some_and(|(number, _)| *number <= applied) {
                waiting.pop_front();
            }
            longest = longest.max(waiting.front().map_or(Duration::ZERO, |(_, since)| since.elapsed()));
        }
        self.flush()?;
        Ok(longest)
    }

    pub(super) fn rest(&self, time: Duration) {
        self.handle.block_on(tokio::time::sleep(time));
    }
}

fn wait<T>(handle: &Handle, what: &str, mut look: impl FnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let begun = Instant::now();
    while begun.elapsed() < WAIT_MAX {
        if let Some(found) = look()? {
            return Ok(found);
        }
        handle.block_on(tokio::time::sleep(LOOK_EVERY));
    }
    bail!("waited {} s in vain for {what}", WAIT_MAX.as_secs())
}
