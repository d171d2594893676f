//! Delivery: carries spooled frames to the cluster, in order, each event once.
//!
//! One task. It begins by reading back what of the spool the topics already hold, waiting until their ends stand still, and
//! sends only the rest; it does so again whenever the producer had to be made anew. Topics that this run has not seen yet are
//! checked first. It must never send past an event that was not acknowledged, and never forget one.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use cairn_contract::{EventRecord, Link, Topic, TopicPrefix, link};
use rdkafka::{
    config::FromClientConfigAndContext,
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer, future_producer::Delivery},
};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    Shared,
    cluster::Watch,
    frame::Frame,
    spool::{self, Position},
};
use crate::{ReadError, TopicError};

/// Frames' bytes that are under way at once.
const WINDOW_BYTES: usize = 4 << 20;
/// Events under way at once.
const WINDOW_EVENTS: usize = 2_000;
/// How long a partition's end must stand still before it is believed.
const STILL: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// After so long without an acknowledgement the cluster counts as away.
const AWAY_AFTER: Duration = Duration::from_secs(2);
/// How often a cluster that is away is asked whether it is back, while nothing waits for delivery.
const PROBE_EVERY: Duration = Duration::from_secs(1);

type Sender = FutureProducer<Watch>;

/// Why delivery stopped for now.
#[derive(Debug, thiserror::Error)]
enum DeliveryError {
    #[error(transparent)]
    Spool(#[from] spool::SpoolError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Topics(#[from] TopicError),
    #[error("the cluster refused an event: {0}")]
    Kafka(#[from] KafkaError),
    #[error("the cluster dropped an answer")]
    Lost,
}

/// Runs until the backbone is closed.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut backoff = Duration::from_millis(100);
    loop {
        let before = shared.delivered();
        let ended = tokio::select! {
            () = shared.closed.cancelled() => return,
            ended = session(&shared) => ended,
        };
        let Err(error) = ended else { return };
        shared.away.store(true, Ordering::Relaxed);
        *shared.stopped.lock() = Some(error.to_string());
        tracing::warn!(%error, "delivery to the cluster stopped; events stay in the spool and delivery begins again");
        if shared.delivered() > before {
            backoff = Duration::from_millis(100);
        }
        tokio::select! {
            () = shared.closed.cancelled() => return,
            () = sleep(backoff) => {}
        }
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

/// One producer's life: settle, then send what the topics lack.
async fn session(shared: &Arc<Shared>) -> Result<(), DeliveryError> {
    if !shared.topics_checked.load(Ordering::Relaxed)
        && (shared.kept.is_some() || shared.delivered() < *shared.grown.borrow())
    {
        shared.check_topics().await?;
    }
    let mut already = settle(shared).await?;
    shared.away.store(false, Ordering::Relaxed);
    let mut config = shared.config.clone();
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        // Never given up: order and completeness hang on it. The spool bounds what waits.
        .set("message.timeout.ms", "0")
        .set("queue.buffering.max.messages", "100000");
    if config.get("linger.ms").is_none() {
        config.set("linger.ms", "1");
    }
    let watch = Watch::default();
    let producer = Sender::from_config_and_context(&config, watch.clone())?;
    let mut window = Window::new();
    let mut sent = shared.delivered();
    let mut grown = shared.grown.subscribe();
    loop {
        let end = *grown.borrow_and_update();
        if sent < end && window.has_room() {
            let frames = read(shared, sent, end).await?;
            if frames.is_empty() {
                sent = end; // a new file was begun, and nothing is in it yet
            }
            for (frame, after) in frames {
                window.send((&producer, &shared.prefix), frame, after, &mut already)?;
                sent = after;
                while !window.has_room() {
                    window.settle_first_or_notice(shared, &watch).await?;
                }
            }
            continue;
        }
        if window.frames.is_empty() {
            shared.advance(sent);
            if watch.took_down() {
                shared.away.store(true, Ordering::Relaxed);
            }
            tokio::select! {
                changed = grown.changed() => if changed.is_err() { return Ok(()) },
                () = sleep(PROBE_EVERY) => if shared.away.load(Ordering::Relaxed) && shared.answers(PROBE_EVERY).await {
                    shared.away.store(false, Ordering::Relaxed);
                },
            }
        } else {
            tokio::select! {
                settled = window.settle_first_or_notice(shared, &watch) => settled?,
                changed = grown.changed(), if window.has_room() => if changed.is_err() { return Ok(()) },
            }
        }
    }
}

async fn read(shared: &Arc<Shared>, from: Position, end: Position) -> Result<Vec<(Frame, Position)>, DeliveryError> {
    let (folder, at_rest) = (shared.folder.clone(), shared.at_rest.clone());
    let frames = tokio::task::spawn_blocking(move || spool::read(&folder, &at_rest, from, end, spool::READ_BYTES));
    Ok(frames.await.map_err(|_| DeliveryError::Lost)??)
}

/// Which spooled events the topics already hold.
async fn settle(shared: &Arc<Shared>) -> Result<HashSet<Link>, DeliveryError> {
    let mut floors: HashMap<(Topic, u32), u64> = HashMap::new();
    let mut spooled = HashSet::new();
    let (mut from, end) = (shared.delivered(), *shared.grown.borrow());
    while from < end {
        let frames = read(shared, from, end).await?;
        let Some((_, after)) = frames.last() else { break };
        from = *after;
        for (frame, _) in &frames {
            floors.entry((frame.topic, frame.partition)).or_insert(frame.floor);
            spooled.extend(frame.records.iter().map(link));
        }
    }
    let mut already = HashSet::new();
    let mut places: Vec<_> = floors.into_iter().map(|(place, floor)| (place, floor, None)).collect();
    let mut moved = !places.is_empty();
    // A request of a producer that died may still land: the ends must stand still before they are believed.
    while moved {
        moved = false;
        for ((topic, partition), at, still) in &mut places {
            loop {
                let slice = shared.read(*topic, *partition, *at, spool::READ_BYTES).await?;
                let links = slice.records.iter().map(|(_, record)| link(record));
                already.extend(links.filter(|link| spooled.contains(link)));
                *at = slice.next;
                if *at >= slice.end {
                    moved |= *still != Some(slice.end);
                    *still = Some(slice.end);
                    break;
                }
            }
        }
        if moved {
            sleep(STILL).await;
        }
    }
    if !already.is_empty() {
        tracing::info!(events = already.len(), "spooled events that the cluster already holds are not sent again");
    }
    Ok(already)
}

/// What is under way, in order.
struct Window {
    frames: VecDeque<UnderWay>,
    events: usize,
    bytes: usize,
    /// When something was acknowledged last, or the first was sent.
    moved: Instant,
}

struct UnderWay {
    frame: Frame,
    after: Position,
    bytes: usize,
    answers: VecDeque<DeliveryFuture>,
}

impl Window {
    fn new() -> Self {
        Self { frames: VecDeque::new(), events: 0, bytes: 0, moved: Instant::now() }
    }

    fn has_room(&self) -> bool {
        self.events < WINDOW_EVENTS && self.bytes < WINDOW_BYTES
    }

    fn send(
        &mut self,
        (producer, prefix): (&Sender, &TopicPrefix),
        frame: Frame,
        after: Position,
        already: &mut HashSet<Link>,
    ) -> Result<(), DeliveryError> {
        let (mut answers, mut bytes) = (VecDeque::new(), 0);
        let name = prefix.name(frame.topic);
        for record in &frame.records {
            if !already.is_empty() && already.remove(&link(record)) {
                continue;
            }
            bytes += record.value.len();
            answers.push_back(send(producer, &name, frame.partition, record)?);
        }
        self.events += answers.len();
        self.bytes += bytes;
        if self.frames.is_empty() {
            self.moved = Instant::now();
        }
        self.frames.push_back(UnderWay { frame, after, bytes, answers });
        Ok(())
    }

    /// Waits for the first frame's acknowledgements. Safe to drop and call again.
    async fn settle_first(&mut self, shared: &Shared) -> Result<(), DeliveryError> {
        let Some(first) = self.frames.front_mut() else { return Ok(()) };
        while let Some(answer) = first.answers.front_mut() {
            let answer = answer.await;
            first.answers.pop_front();
            self.events -= 1;
            let Delivery { partition, offset, .. } =
                answer.map_err(|_| DeliveryError::Lost)?.map_err(|(error, _)| DeliveryError::Kafka(error))?;
            shared.reached(first.frame.topic, partition as u32, offset as u64 + 1);
            self.moved = Instant::now();
            shared.away.store(false, Ordering::Relaxed);
        }
        self.bytes -= first.bytes;
        shared.waiting_events.fetch_sub(first.frame.records.len() as u64, Ordering::Relaxed);
        shared.history.lock().fold(&first.frame);
        let after = first.after;
        self.frames.pop_front();
        shared.advance(after);
        Ok(())
    }

    /// The same, and says that the cluster is away where nothing comes for long. Safe to drop and call again.
    async fn settle_first_or_notice(&mut self, shared: &Shared, watch: &Watch) -> Result<(), DeliveryError> {
        let late = self.moved + AWAY_AFTER;
        if !shared.away.load(Ordering::Relaxed) {
            tokio::select! {
                settled = self.settle_first(shared) => return settled,
                () = sleep_until(late) => {
                    shared.away.store(true, Ordering::Relaxed);
                    let reason = watch.said().unwrap_or_else(|| "no acknowledgement comes".to_owned());
                    tracing::warn!(reason, "the cluster is away; events stay in the spool until it is back");
                }
            }
        }
        self.settle_first(shared).await
    }
}

fn send(producer: &Sender, name: &str, partition: u32, record: &EventRecord) -> Result<DeliveryFuture, DeliveryError> {
    let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
    for (key, value) in &record.headers {
        headers = headers.insert(Header { key, value: Some(value.as_ref()) });
    }
    let message = FutureRecord::<[u8], [u8]>::to(name)
        .partition(partition as i32)
        .key(record.key.as_ref())
        .payload(record.value.as_ref())
        .timestamp(record.timestamp_ms)
        .headers(headers);
    match producer.send_result(message) {
        Ok(answer) => Ok(answer),
        Err((error, _)) => {
            if let Some((code, reason)) = producer.client().fatal_error() {
                tracing::error!(%code, reason, "the producer cannot go on and is made anew");
            } else if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) {
                tracing::warn!("the producer's queue is full although fewer events are under way than it holds");
            }
            Err(error.into())
        }
    }
}
