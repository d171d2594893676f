//! Several brokers on one bucket, of which one is active: who stands by, and when an active one ends. Called by `engine` and `up`.
//!
//! Safety is the log's: who takes the head and fences has it, and whoever had it before is refused. This is about time: a broker that
//! stands by tells clients who is active, and opens the log when that one has ended or is silent; an active one that cannot reach the
//! store, or was replaced, ends, so that its clients look for the other. A service manager starts it again, and it stands by.

mod sight;

use std::{future::Future, time::Duration};

use anyhow::{Context, bail};
use cairn_broker::{Active, Authorization, HostPort, Peer, Port, Standby};
use cairn_log::{BEAT_INTERVAL, Log, LogOptions, OpenError, Sight, StoreError, TAKE_OVER_AFTER, Takes};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::{config::Config, say};

/// How often an active broker looks whether it still is, and whether its disk still works.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// The brokers of one bucket, and which of them this is.
#[derive(Debug, Clone)]
pub(crate) struct Brokers {
    pub(crate) own: Peer,
    pub(crate) all: Vec<Peer>,
    /// Whether they answer whoever asks.
    are_open: bool,
    /// Whether their ports speak TLS.
    have_tls: bool,
}

impl Brokers {
    /// What the configuration names; nothing where this broker is the only one.
    pub(crate) fn of(config: &Config) -> anyhow::Result<Option<Self>> {
        let kafka = &config.kafka;
        if kafka.brokers.is_empty() {
            if kafka.node_id.is_some_and(|id| id < 0) {
                bail!("kafka.node_id must be 0 or more");
            }
            return Ok(None);
        }
        if !config.store.is_shared() {
            bail!(
                "kafka.brokers names brokers that take over from each other, and that needs a bucket that all of them reach and \
                 that is the write-ahead log: set [store] kind = \"s3\", \"gcs\" or \"azure\" and wal = \"object\", or leave kafka.brokers out"
            );
        }
        let peers =
            kafka.brokers.iter().map(|text| text.parse().map_err(|error| anyhow::anyhow!("kafka.brokers: {error}")));
        let all = peers.collect::<anyhow::Result<Vec<Peer>>>()?;
        for (n, peer) in all.iter().enumerate() {
            if all[..n].iter().any(|before| before.id == peer.id) {
                bail!("kafka.brokers has two brokers with id {}: give each its own", peer.id);
            }
        }
        let id =
            kafka.node_id.context("kafka.brokers is set and kafka.node_id is not: say which of them this one is")?;
        let own = all.iter().find(|peer| peer.id == id).cloned();
        let own = own.with_context(|| {
            format!("kafka.brokers does not name this broker, kafka.node_id = {id}: add {id}@HOST:PORT")
        })?;
        if kafka.advertised.is_some() {
            bail!(
                "kafka.advertised and kafka.brokers both say how clients reach this broker: leave kafka.advertised out"
            );
        }
        let are_open = kafka.tls.is_none() && kafka.authorization() == Authorization::Open;
        Ok(Some(Self { own, all, are_open, have_tls: kafka.tls.is_some() }))
    }

    /// The address by which clients reach this one.
    pub(crate) fn address(&self) -> HostPort {
        self.own.address.clone()
    }

    /// What the log must know: who this is, and that others watch.
    pub(crate) fn watched(&self, options: LogOptions) -> LogOptions {
        LogOptions { owner: self.own.id.unsigned_abs(), beat_interval: Some(BEAT_INTERVAL), ..options }
    }

    /// Stands by on the Kafka port until it is this broker's turn and the log is open.
    pub(crate) async fn open(
        &self,
        options: LogOptions,
        listener: &TcpListener,
        port: &Port,
        open: impl AsyncFn(LogOptions) -> Result<Log, OpenError>,
    ) -> anyhow::Result<Log> {
        let (active, told) = watch::channel(None);
        let stop = CancellationToken::new();
        let (sees, sight) = watch::channel(Sight::Open);
        let looking = sight::follow(&self.all, told.clone(), sees, !self.have_tls);
        let standby = Standby::new(self.all.clone(), told, self.are_open);
        let serving = standby.serve(listener, port, stop.clone());
        let turn = async {
            let turn = self.take_turn(options, &active, sight, open);
            let opened = tokio::select! {
                opened = turn => opened,
                never = looking => match never {},
            };
            stop.cancel();
            opened
        };
        let ((), opened) = tokio::join!(serving, turn);
        opened.context("cannot open the embedded log")
    }

    async fn take_turn(
        &self,
        options: LogOptions,
        active: &watch::Sender<Option<Active>>,
        sight: watch::Receiver<Sight>,
        open: impl AsyncFn(LogOptions) -> Result<Log, OpenError>,
    ) -> Result<Log, OpenError> {
        let (own, options) = (self.own.id.unsigned_abs(), self.watched(options));
        loop {
            let store = options.store.clone();
            let before = cairn_log::await_turn(store.as_ref(), own, sight.clone(), |owner| {
                let id = i32::try_from(owner.owner).unwrap_or_default();
                active.send_replace(Some(Active { id, epoch: owner.epoch }));
                say::line(format_args!("standing by: broker {id} is active (epoch {})", owner.epoch));
            })
            .await;
            if let Some(silent) = before.filter(|before| !before.is_closed && before.owner != own) {
                eprintln!("cairn: broker {} is silent; this one takes over", silent.owner);
            }
            active.send_replace(None);
            let takes = Takes::From(before.map(|before| before.epoch));
            match open(LogOptions { takes, ..options.clone() }).await {
                // Another one was quicker.
                Err(OpenError::Store(StoreError::Fenced { .. })) => {}
                opened => return opened,
            }
        }
    }
}

/// Ends when this broker is not the active one any more, or cannot tell. Says why.
pub(crate) fn lost(log: &Log) -> impl Future<Output = String> + use<> {
    let log = log.clone();
    async move {
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            if let Some(epoch) = log.fenced_by() {
                return format!("another broker has taken over (epoch {epoch})");
            }
            let silent = log.unseen_for();
            if silent >= TAKE_OVER_AFTER {
                return format!(
                    "the object store did not answer for {} s, and another broker may have taken over",
                    silent.as_secs()
                );
            }
        }
    }
}
