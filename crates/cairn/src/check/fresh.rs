//! How fresh a consumer is: from an event until it is applied, with normal traffic and ten times that, and how fast it takes what came in a
//! pause while live traffic goes on. The consumer runs in this process, so that its own figures are read to the microsecond.

use std::time::Duration;

use anyhow::ensure;
use cairn_backbone::group::GroupOptions;
use cairn_clock::{Clock, Entropy};
use cairn_consumers::{Consumer, ConsumerOptions, Status};
use rdkafka::producer::Producer;
use tokio::time::Instant;

use super::runs::{BURST, LOOK_EVERY, Size, Stage, TRAFFIC, WAIT_MAX};
use crate::consumers::{self, Purpose};

/// How far the consumer may be behind where live traffic counts as caught up with, in seconds of it.
const CAUGHT_UP: Duration = Duration::from_millis(200);

impl Stage {
    pub(super) fn is_fresh(&mut self, size: Size) -> anyhow::Result<String> {
        let Size { rate, pause, .. } = size;
        let mut said = Vec::new();
        for (what, rate) in [("normal", rate), ("burst", rate * BURST)] {
            let (status, consumer) = self.begin()?;
            self.wait_for_all(self.sent as u64)?;
            // What came before it began is not of this traffic.
            let before = status.snapshot().events;
            self.send_at(rate, TRAFFIC)?;
            self.wait_for_all(self.sent as u64)?;
            ensure!(status.snapshot().events > before, "nothing was applied");
            let fresh = status.freshness();
            self.handle.block_on(consumer.close());
            said.push(format!("{what}, {rate} a second: p50 {:.1?}, p99 {:.1?}", fresh.p50, fresh.p99));
        }
        said.push(self.recovers(rate, pause)?);
        Ok(said.join("; "))
    }

    /// A consumer in this process; it has its partitions when this returns.
    fn begin(&self) -> anyhow::Result<(Status, Consumer)> {
        let which = (self.name, &self.section);
        let opened = consumers::open(which, &self.data, &Entropy::system(), Purpose::Apply)?;
        let group = GroupOptions {
            bootstrap: self.kafka.clone(),
            properties: std::collections::BTreeMap::new(),
            group: format!("cairn-{}", self.name),
            instance: opened.instance,
        };
        let options = ConsumerOptions { name: self.name.to_owned(), group };
        let status = Status::default();
        let _entered = self.handle.enter();
        let consumer = Consumer::start(options, opened.sink, Clock::system(), status.clone());
        let begun = Instant::now();
        while !status.snapshot().is_assigned {
            ensure!(begun.elapsed() < WAIT_MAX, "the consumer did not get its partitions");
            self.rest(LOOK_EVERY);
        }
        Ok((status, consumer))
    }

    /// Sends that many a second for that long.
    fn send_at(&mut self, rate: u64, time: Duration) -> anyhow::Result<()> {
        let (begun, before) = (Instant::now(), self.sent as u64);
        while begun.elapsed() < time {
            let due = (begun.elapsed().as_secs_f64() * rate as f64) as u64;
            while (self.sent as u64) < before + due {
                self.tell_one()?;
            }
            self.producer.poll(Duration::ZERO);
            self.rest(Duration::from_millis(1));
        }
        self.flush()
    }

    /// What came in a pause is taken while live traffic goes on: how much faster than it came, and what that costs the traffic.
    fn recovers(&mut self, rate: u64, pause: Duration) -> anyhow::Result<String> {
        // Undisturbed, for comparison.
        self.producer.context().take();
        self.send_at(rate, TRAFFIC)?;
        let alone = p99(self.producer.context().take());
        let backlog = (pause.as_secs_f64() * rate as f64) as u64;
        for number in 0..backlog {
            self.tell_one()?;
            if number.is_multiple_of(100_000) {
                self.flush()?;
            }
        }
        self.flush()?;
        self.producer.context().take();
        let target = self.sent as u64;
        let (status, consumer) = self.begin()?;
        let begun = Instant::now();
        let mut taken = None;
        while taken.is_none() {
            ensure!(begun.elapsed() < WAIT_MAX, "{backlog} events were not taken within {} s", WAIT_MAX.as_secs());
            self.send_at(rate, CAUGHT_UP)?;
            let snapshot = status.snapshot();
            let is_taken = snapshot.partitions.values().map(|partition| partition.next).sum::<u64>() >= target;
            taken = is_taken.then(|| begun.elapsed());
        }
        let took = taken.unwrap_or_default().max(Duration::from_millis(1));
        let beside = p99(self.producer.context().take());
        self.handle.block_on(consumer.close());
        Ok(format!(
            "a pause of {pause:.0?}: {backlog} events in {took:.1?}, {:.0} times real time, live traffic acknowledged with p99 {beside:.1?} meanwhile, {alone:.1?} without",
            pause.as_secs_f64() / took.as_secs_f64(),
        ))
    }
}

fn p99(mut micros: Vec<u64>) -> Duration {
    micros.sort_unstable();
    let index = (micros.len() * 99 / 100).min(micros.len().saturating_sub(1));
    Duration::from_micros(micros.get(index).copied().unwrap_or_default())
}
