//! What the clients of one site share, and those that write: idempotent producers, and producers of transactions.
//!
//! They are told nothing of what becomes of the brokers. What they are told they write into the history, as they are told it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use cairn_clock::Entropy;
use parking_lot::Mutex;
use rdkafka::{
    ClientConfig, ClientContext,
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Message},
    producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer},
};

use super::{
    history::{Fate, History, Place, Sent, Topic},
    pause, until,
};

/// How long a client may wait for brokers that come back.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);
/// How long one call of a client may take; it is made again.
pub(super) const CALL: Duration = Duration::from_secs(10);

/// A producer of any kind.
pub(super) type Client = ThreadedProducer<Deliveries>;

/// What the clients of one site share.
pub(super) struct Load {
    pub(super) bootstrap: String,
    pub(super) seed: u64,
    /// Whether members stall for longer than they may.
    pub(super) stalls: bool,
    /// How the classic groups of the site assign.
    pub(super) strategy: &'static str,
    /// Whether those who follow do so by the consumer protocol (KIP-848).
    pub(super) is_new_protocol: bool,
    pub(super) history: Arc<Mutex<History>>,
    numbers: AtomicU64,
    pub(super) acknowledged: Arc<AtomicU64>,
    pub(super) commits: AtomicU64,
    pub(super) rebalances: AtomicU64,
    /// Whether new records are sent.
    pub(super) producing: AtomicBool,
    /// Whether everybody goes home.
    pub(super) done: AtomicBool,
}

/// Writes down what is delivered.
pub(super) struct Deliveries {
    history: Arc<Mutex<History>>,
    acknowledged: Arc<AtomicU64>,
    /// Whether a record that is given up is a trouble: it never is one in a transaction.
    must: bool,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<u64>;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Self::DeliveryOpaque) {
        let mut history = self.history.lock();
        match result {
            Ok(message) => {
                let topic = Topic::named(message.topic()).expect("a topic of ours");
                history.acknowledged.insert(*number, ((topic, message.partition()), message.offset()));
                self.acknowledged.fetch_add(1, Ordering::SeqCst);
            }
            Err((error, _)) if self.must => history.troubles.push(format!("record {number} was refused: {error}")),
            Err(_) => {}
        }
    }
}

impl Load {
    pub(super) fn new(bootstrap: String, seed: u64, stalls: bool) -> Self {
        Self {
            bootstrap,
            seed,
            stalls,
            strategy: if seed.is_multiple_of(2) { "range" } else { "cooperative-sticky" },
            is_new_protocol: seed % 8 >= 4,
            history: Arc::default(),
            numbers: AtomicU64::new(1),
            acknowledged: Arc::default(),
            commits: AtomicU64::new(0),
            rebalances: AtomicU64::new(0),
            producing: AtomicBool::new(true),
            done: AtomicBool::new(false),
        }
    }

    /// What every client is configured with.
    pub(super) fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap)
            .set("socket.timeout.ms", "8000")
            .set("socket.connection.setup.timeout.ms", "3000")
            .set("reconnect.backoff.max.ms", "400")
            .set("log_level", "0");
        config
    }

    pub(super) fn entropy(&self, who: u64) -> Entropy {
        Entropy::seeded(self.seed.wrapping_mul(1_000_003) ^ who)
    }

    pub(super) fn is_producing(&self) -> bool {
        self.producing.load(Ordering::SeqCst)
    }

    pub(super) fn is_done(&self) -> bool {
        self.done.load(Ordering::SeqCst)
    }

    pub(super) fn trouble(&self, words: String) {
        self.history.lock().troubles.push(words);
    }

    fn producer(&self, must: bool, more: &[(&str, &str)]) -> Client {
        let mut config = self.config();
        config.set("enable.idempotence", "true").set("linger.ms", "3").set("queue.buffering.max.messages", "2000");
        more.iter().for_each(|(key, value)| {
            config.set(*key, *value);
        });
        let context = Deliveries { history: self.history.clone(), acknowledged: self.acknowledged.clone(), must };
        config.create_with_context(context).expect("a producer")
    }

    /// A producer of transactions whose id is its own by now: what it had open before is over.
    pub(super) fn transactional(&self, id: &str) -> Client {
        let client = self.producer(false, &[("transactional.id", id), ("transaction.timeout.ms", "120000")]);
        until("a producer of transactions", || match client.init_transactions(CALL) {
            Ok(()) => Some(()),
            Err(error) if is_retriable(&error) => None,
            Err(error) => panic!("{id} cannot begin: {error}"),
        });
        client
    }

    pub(super) fn begin(&self) -> usize {
        let mut history = self.history.lock();
        history.transactions.push(Fate::Unknown);
        history.transactions.len() - 1
    }

    /// Sends one record; an error is one that ends the client or its transaction.
    pub(super) fn send(&self, client: &Client, sent: Sent) -> Result<(), KafkaError> {
        let number = self.numbers.fetch_add(1, Ordering::SeqCst);
        self.history.lock().sent.insert(number, sent);
        let value = format!("{number} {}", "x".repeat((number % 89) as usize * 7));
        let (topic, partition) = (sent.place.0.name(), sent.place.1);
        let mut record =
            BaseRecord::<(), _, _>::with_opaque_to(topic, Box::new(number)).payload(&value).partition(partition);
        loop {
            match client.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => record = back,
                Err((error, _)) => return Err(error),
            }
            pause(5);
        }
    }

    /// Ends a transaction as its producer wants it, or as it must; an error leaves its fate unknown.
    pub(super) fn end(&self, client: &Client, transaction: usize, commits: bool) -> Result<Fate, KafkaError> {
        let mut wants = commits;
        loop {
            let result = if wants { client.commit_transaction(CALL) } else { client.abort_transaction(CALL) };
            match result {
                Ok(()) => {
                    let fate = if wants { Fate::Committed } else { Fate::Aborted };
                    self.history.lock().transactions[transaction] = fate;
                    self.commits.fetch_add(u64::from(wants), Ordering::SeqCst);
                    return Ok(fate);
                }
                Err(error) if is_retriable(&error) && !self.is_done() => pause(20),
                Err(error) if wants && must_abort(&error) => wants = false,
                Err(error) => return Err(error),
            }
        }
    }
}

pub(super) fn is_retriable(error: &KafkaError) -> bool {
    matches!(error, KafkaError::Transaction(error) if error.is_retriable())
}

pub(super) fn must_abort(error: &KafkaError) -> bool {
    matches!(error, KafkaError::Transaction(error) if error.txn_requires_abort())
}

/// The number that a value begins with.
pub(super) fn number(value: Option<&[u8]>) -> u64 {
    let text = std::str::from_utf8(value.expect("a value")).expect("text");
    text.split(' ').next().and_then(|number| number.parse().ok()).expect("a number")
}

fn place(topic: Topic, entropy: &Entropy) -> Place {
    (topic, (entropy.next_u64() % topic.partitions() as u64) as i32)
}

/// An idempotent producer that gives up nothing.
pub(super) fn write(load: &Load, producer: u32, topic: Topic) {
    let entropy = load.entropy(u64::from(producer));
    let client = load.producer(true, &[("message.timeout.ms", "0"), ("batch.num.messages", "50")]);
    while load.is_producing() {
        for _ in 0..entropy.next_u64() % 20 {
            let sent = Sent { place: place(topic, &entropy), producer, transaction: None, source: None };
            if let Err(error) = load.send(&client, sent) {
                return load.trouble(format!("producer {producer} was refused for good: {error}"));
            }
        }
        pause(20 + entropy.next_u64() % 100);
    }
    if let Err(error) = client.flush(PATIENCE) {
        load.trouble(format!("producer {producer} could not send what it had: {error}"));
    }
    if let Some((code, words)) = client.client().fatal_error() {
        load.trouble(format!("producer {producer} was refused for good: {code}: {words}"));
    }
}

/// A producer of transactions over several partitions, one of four of which it aborts.
pub(super) fn transact(load: &Load, producer: u32) {
    let (entropy, id) = (load.entropy(u64::from(producer)), format!("ledger-{producer}"));
    while load.is_producing() {
        let client = load.transactional(&id);
        while load.is_producing() {
            if let Err(error) = transaction(load, &client, producer, &entropy) {
                load.trouble(format!("producer {producer} of transactions was refused for good: {error}"));
                break;
            }
            pause(entropy.next_u64() % 60);
        }
    }
}

fn transaction(load: &Load, client: &Client, producer: u32, entropy: &Entropy) -> Result<(), KafkaError> {
    client.begin_transaction()?;
    let transaction = load.begin();
    let mut is_whole = true;
    for _ in 0..=entropy.next_u64() % 8 {
        let place = place(Topic::Ledger, entropy);
        let sent = Sent { place, producer, transaction: Some(transaction), source: None };
        is_whole &= load.send(client, sent).is_ok();
        pause(entropy.next_u64() % 12);
    }
    // Where a kill comes between, librdkafka loses count of what it sent and then aborts: docs/reliability.md.
    let _ = client.flush(PATIENCE);
    load.end(client, transaction, is_whole && !entropy.next_u64().is_multiple_of(4)).map(drop)
}
