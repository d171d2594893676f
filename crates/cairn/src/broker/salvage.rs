//! `cairn broker salvage`: shows what a write-ahead log holds that the object store lacks, as JSON lines, or sends it again.
//!
//! A write-ahead log is set aside by the broker that finds that another went on without it. It is only read here, never changed. What
//! is sent again gets new offsets, and a header that says what it was.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use cairn_broker::{
    Names,
    batch::{self, BatchHeader, Record},
};
use cairn_log::{SalvageOptions, SalvageReport, Salvaged, salvage, set_aside_in, stored};
use clap::Args;
use parking_lot::Mutex;
use rdkafka::{
    ClientContext,
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer, ProducerContext},
};
use serde_json::{Value, json};

use super::Place;
use crate::{ending::Ending, read::Source, say, trust::TrustArguments};

/// How long the cluster may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// How long the last records may take to be acknowledged.
const FLUSH_MAX: Duration = Duration::from_secs(300);
/// The header by which a record that was sent again is known.
const HEADER: &str = "cairn-salvaged";
/// Left in a folder whose records were sent again.
const SENT: &str = "salvaged.json";

/// What `salvage` is told.
#[derive(Args, Debug)]
pub(super) struct SalvageArguments {
    /// The folder of a write-ahead log; those that were set aside in the data folder where absent.
    folder: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
    /// Only this topic.
    #[arg(long)]
    topic: Option<String>,
    /// Every record as a JSON object on a line of its own.
    #[arg(long, conflicts_with = "to")]
    json: bool,
    /// Sends the records again, to the topics of their names and their partitions, at this Kafka address.
    #[arg(long, value_name = "HOST:PORT")]
    to: Option<String>,
    /// Sends them again although that was done before.
    #[arg(long, requires = "to")]
    again: bool,
    #[command(flatten)]
    tls: TrustArguments,
}

/// Reads, and shows or sends.
pub(super) async fn run(arguments: SalvageArguments) -> anyhow::Result<()> {
    let SalvageArguments { folder, place, topic, json, to, again, tls } = arguments;
    let config = place.config.clone();
    let (data, options) = place.find().await?;
    let folders = match folder {
        Some(folder) => vec![folder],
        None => set_aside_in(&options.folder).with_context(|| format!("cannot read {}", options.folder.display()))?,
    };
    if folders.is_empty() {
        let words = format!("no write-ahead log was set aside in {}", data.join("log").display());
        return Err(Ending::NoSuch(words).into());
    }
    let mut names = Names::default();
    // Without the store's own catalogue, topics have their ids for names; it may be away.
    let mut naming = |bytes: &[u8]| drop(names.judge(Names::stream(), bytes));
    if let Err(error) = stored(options.store.as_ref(), Names::stream(), &mut naming).await {
        eprintln!("cairn: the store's topics cannot be read: {error}");
    }
    for folder in &folders {
        let reading = SalvageOptions {
            folder: folder.clone(),
            disk: options.disk.clone(),
            at_rest: options.at_rest.clone(),
            store: options.store.clone(),
        };
        // A topic may be named behind its records: names first.
        let named = salvage(&reading, &mut |batch| names.judge(batch.stream, batch.bytes).map(drop)).await;
        let mut taking = Taking { names: &names, topic: topic.as_deref(), kept: Kept::default() };
        let mut sink = match &to {
            Some(to) => {
                if folder.join(SENT).exists() && !again {
                    bail!(
                        "the records of {} were sent again before: give --again to do it once more",
                        folder.display()
                    );
                }
                Sink::Cluster(Sender::to(&Source::find(Some(to.clone()), config.as_deref(), None, &tls)?)?)
            }
            None if json => Sink::Lines,
            None => Sink::Nothing,
        };
        let read = salvage(&reading, &mut |batch| taking.take(batch, &mut sink)).await;
        let report = named.and(read).with_context(|| format!("{} cannot be read", folder.display()))?;
        let kept = taking.kept;
        sink.end()?;
        tell(folder, &report, &kept, json);
        if to.is_some() {
            let text = json!({ "to": to, "records": kept.records(), "topic": topic }).to_string();
            let path = folder.join(SENT);
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(())
}

/// What was taken of one partition.
#[derive(Default)]
struct OfPartition {
    records: u64,
    first: Option<u64>,
    last: u64,
}

/// What was taken, by partition, and what was left out.
#[derive(Default)]
struct Kept {
    partitions: BTreeMap<String, OfPartition>,
    own: u64,
    transactional: u64,
    unnamed: BTreeSet<String>,
}

impl Kept {
    fn records(&self) -> u64 {
        self.partitions.values().map(|one| one.records).sum()
    }
}

/// Goes through the batches that the store lacks.
struct Taking<'t> {
    names: &'t Names,
    topic: Option<&'t str>,
    kept: Kept,
}

impl Taking<'_> {
    fn take(&mut self, batch: Salvaged<'_>, sink: &mut Sink) -> Result<(), String> {
        if !batch.is_lacking {
            return Ok(());
        }
        let shown = self.names.partition(batch.stream);
        let header = BatchHeader::parse(batch.bytes).map_err(|error| format!("{shown} at {}: {error}", batch.base))?;
        if header.is_control() || self.names.is_own(batch.stream) {
            self.kept.own += 1; // markers, committed offsets and topics are not records of anybody's
            return Ok(());
        }
        let Some(topic) = self.names.topic(batch.stream.topic) else {
            self.kept.unnamed.insert(shown);
            return Ok(());
        };
        if self.topic.is_some_and(|wanted| wanted != topic) {
            return Ok(());
        }
        if header.is_transactional() && matches!(sink, Sink::Cluster(_)) {
            // Whether its transaction was committed is not known here.
            self.kept.transactional += u64::try_from(header.record_count).unwrap_or_default();
            return Ok(());
        }
        let records = batch::decode(batch.bytes, batch::DECOMPRESSED_BYTES_MAX);
        for record in records.map_err(|error| format!("{shown} at {}: {error}", batch.base))? {
            let partition = batch.stream.partition.get();
            let of = Of { topic, partition, epoch: batch.epoch, is_transactional: header.is_transactional() };
            sink.put(&of, &record)?;
            let kept = self.kept.partitions.entry(shown.clone()).or_default();
            kept.records += 1;
            kept.first.get_or_insert(record.offset);
            kept.last = record.offset;
        }
        Ok(())
    }
}

/// Where a record was.
struct Of<'o> {
    topic: &'o str,
    partition: u32,
    epoch: u32,
    is_transactional: bool,
}

/// Where records go.
enum Sink {
    Nothing,
    Lines,
    Cluster(Sender),
}

impl Sink {
    fn put(&mut self, of: &Of<'_>, record: &Record) -> Result<(), String> {
        match self {
            Self::Nothing => Ok(()),
            Self::Lines => {
                let mut out = std::io::stdout().lock();
                writeln!(out, "{}", line(of, record)).map_err(|error| error.to_string())
            }
            Self::Cluster(sender) => sender.send(of, record),
        }
    }

    fn end(self) -> anyhow::Result<()> {
        match self {
            Self::Nothing | Self::Lines => Ok(()),
            Self::Cluster(sender) => sender.end(),
        }
    }
}

/// Text as it is, other bytes in hexadecimal.
fn shown(bytes: Option<&bytes::Bytes>) -> Value {
    match bytes {
        None => Value::Null,
        Some(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => json!(text),
            Err(_) => json!({ "hex": hex::encode(bytes) }),
        },
    }
}

fn line(of: &Of<'_>, record: &Record) -> Value {
    let headers: Vec<Value> =
        record.headers.iter().map(|(name, value)| json!({ "name": name, "value": shown(value.as_ref()) })).collect();
    json!({
        "topic": of.topic, "partition": of.partition, "offset": record.offset, "epoch": of.epoch,
        "timestamp_ms": record.timestamp, "key": shown(record.key.as_ref()), "value": shown(record.value.as_ref()),
        "headers": headers, "transactional": of.is_transactional,
    })
}

/// What became of what was sent.
#[derive(Clone, Default)]
struct Told {
    sent: Arc<AtomicU64>,
    failed: Arc<Mutex<Option<String>>>,
}

impl ClientContext for Told {}

impl ProducerContext for Told {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => drop(self.sent.fetch_add(1, Ordering::Relaxed)),
            Err((error, _)) => drop(self.failed.lock().get_or_insert_with(|| error.to_string())),
        }
    }
}

/// Sends records to a cluster.
struct Sender {
    producer: BaseProducer<Told>,
    told: Told,
    /// Partitions of its topics.
    topics: BTreeMap<String, usize>,
}

impl Sender {
    fn to(source: &Source) -> anyhow::Result<Self> {
        let mut config = cairn_backbone::kafka::client_config(&source.bootstrap, source.properties())?;
        config.set("enable.idempotence", "true").set("acks", "all").set("linger.ms", "5");
        let told = Told::default();
        let producer: BaseProducer<Told> =
            config.create_with_context(told.clone()).context("cannot make a producer")?;
        let found = producer.client().fetch_metadata(None, ANSWER_MAX).map_err(|error| {
            anyhow::Error::from(Ending::NobodyThere(format!("nobody answers at {}: {error}", source.bootstrap)))
        })?;
        let topics = found.topics().iter().map(|topic| (topic.name().to_owned(), topic.partitions().len())).collect();
        Ok(Self { producer, told, topics })
    }

    fn send(&mut self, of: &Of<'_>, record: &Record) -> Result<(), String> {
        let Of { topic, partition, epoch, .. } = of;
        let there = self.topics.get(*topic).copied().unwrap_or_default();
        if there <= *partition as usize {
            return Err(format!(
                "{topic} has {there} partitions where {} are needed: create it so, or leave it out with --topic",
                partition + 1
            ));
        }
        let was = format!("{topic}-{partition} offset {} of epoch {epoch}", record.offset);
        let mut headers = OwnedHeaders::new();
        for (name, value) in &record.headers {
            headers = headers.insert(Header { key: name, value: value.as_deref() });
        }
        headers = headers.insert(Header { key: HEADER, value: Some(&was) });
        let partition = i32::try_from(*partition).map_err(|error| error.to_string())?;
        let mut sending = BaseRecord::<[u8], [u8], ()>::to(topic).partition(partition).headers(headers);
        sending.key = record.key.as_deref();
        sending.payload = record.value.as_deref();
        sending = sending.timestamp(record.timestamp);
        while let Err((error, back)) = self.producer.send(sending) {
            if !matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) {
                return Err(error.to_string());
            }
            self.producer.poll(Duration::from_millis(50));
            sending = back;
        }
        self.producer.poll(Duration::ZERO);
        self.failed()
    }

    fn failed(&self) -> Result<(), String> {
        self.told.failed.lock().as_ref().map_or(Ok(()), |reason| Err(format!("a record was not taken: {reason}")))
    }

    fn end(self) -> anyhow::Result<()> {
        self.producer.flush(FLUSH_MAX).context("not everything was acknowledged")?;
        self.failed().map_err(anyhow::Error::msg)?;
        eprintln!("cairn: {} records were sent again", self.told.sent.load(Ordering::Relaxed));
        Ok(())
    }
}

/// A summary: on standard output, or, where records are there, on standard error.
fn tell(folder: &Path, report: &SalvageReport, kept: &Kept, as_lines: bool) {
    let line = |words: String| {
        let words = say::plain(&words);
        if as_lines { eprintln!("cairn: {words}") } else { say::line(format_args!("{words}")) }
    };
    let went_on =
        report.superseded_by.map_or_else(String::new, |epoch| format!("; epoch {epoch} went on without them"));
    line(format!(
        "{}: {} files, {} frames; {} batches with {} bytes that the store lacks{went_on}",
        folder.display(),
        report.files,
        report.frames,
        report.batches,
        report.bytes
    ));
    for (partition, OfPartition { records, first, last }) in &kept.partitions {
        let first = first.unwrap_or_default();
        line(format!("  {partition}: {records} records, offsets {first} to {last}"));
    }
    if kept.own > 0 {
        line(format!("  {} batches of committed offsets, topics and markers, which are left out", kept.own));
    }
    if kept.transactional > 0 {
        line(format!(
            "  {} records of transactions, which are not sent again: see them with --json",
            kept.transactional
        ));
    }
    for unnamed in &kept.unnamed {
        line(format!("  {unnamed}: no record names its topic, and it is left out"));
    }
    for place in &report.damaged {
        line(format!("  DAMAGE {place}: what was synced does not read back, and what lies behind it is not read"));
    }
}
