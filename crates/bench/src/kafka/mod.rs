//! Cairn's log beside other Kafkas: the same clients, the same disk, in one run, taking turns.
//!
//! Called by `cairn bench kafka`; `cargo xtask bench -- kafka` starts Apache Kafka beside it, once with its defaults, which
//! acknowledge what the page cache holds, and once told to sync each batch, as Cairn does. Each part has a Cairn of its own
//! over an empty folder, which goes with it, and deletes what it wrote to the others. A peer that cannot do what a part asks is
//! left out of that part, and the reason is said.

mod broker;
mod cost;
mod delay;
mod many;
mod process;
mod produce;
mod read;
mod transactions;
mod wire;

use std::{net::SocketAddr, path::Path};

use clap::ValueEnum;

use crate::{Effort, report::Report};

pub(crate) use broker::{Broker, peers};

/// One part of what is measured beside other Kafkas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Work {
    /// Records of 1 KiB into 1, 8 and 64 partitions.
    Produce,
    /// From producer to consumer, at 500 a second and at half of the maximum.
    Delay,
    /// Reading from the tail, the write-ahead log and the object store.
    Read,
    /// 1,000 connections, 10,000 partitions.
    Many,
    /// Transactions of 100 records over three partitions.
    Transactions,
    /// Processor time and requests to the object store for a GiB, and when idle.
    Cost,
}

/// What every part is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ground<'a> {
    /// Where data may be written.
    pub(crate) folder: &'a Path,
    pub(crate) peers: &'a [Broker],
    pub(crate) effort: Effort,
    pub(crate) quick: bool,
}

/// Measures what is wanted, one part after the other.
pub(crate) async fn measure(ground: Ground<'_>, only: &[Work], report: &mut Report) -> anyhow::Result<()> {
    let wanted = |work: Work| only.is_empty() || only.contains(&work);
    if wanted(Work::Produce) {
        produce::measure(ground, report).await?;
    }
    if wanted(Work::Delay) {
        delay::measure(ground, report).await?;
    }
    if wanted(Work::Read) {
        read::measure(ground, report).await?;
    }
    if wanted(Work::Many) {
        many::measure(ground, report).await?;
    }
    if wanted(Work::Transactions) {
        transactions::measure(ground, report).await?;
    }
    if wanted(Work::Cost) {
        cost::measure(ground, report).await?;
    }
    Ok(())
}

/// Whose turn it is in a round: forwards in the first, backwards in the second, and so on.
fn turns(count: usize, round: usize) -> Vec<usize> {
    let forwards = 0..count;
    if round.is_multiple_of(2) { forwards.rev().collect() } else { forwards.collect() }
}

/// Requests to the object store, kind by kind, as `/metrics` names them.
const REQUESTS: [&str; 4] = ["cairn_store_puts", "cairn_store_gets", "cairn_store_lists", "cairn_store_deletes"];

/// What Cairn itself counts.
#[derive(Clone, Debug)]
struct Counted(String);

impl Counted {
    async fn now(admin: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self(crate::gateway::metrics(admin).await?))
    }

    fn of(&self, name: &str) -> f64 {
        crate::gateway::value(&self.0, name).unwrap_or_default()
    }

    /// Requests to the object store, of every kind.
    fn requests(&self) -> f64 {
        REQUESTS.map(|name| self.of(name)).iter().sum()
    }

    /// How many of each kind, where there were any.
    fn kinds_since(&self, before: &Self) -> String {
        let more = REQUESTS.map(|name| (name, self.of(name) - before.of(name)));
        let told = more.iter().filter(|(_, more)| *more > 0.0).map(|(name, more)| format!("{more} {name}"));
        told.collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::{Counted, turns};

    #[test]
    fn who_came_first_comes_last_in_the_next_round() {
        assert_eq!((turns(3, 1), turns(3, 2)), (vec![0, 1, 2], vec![2, 1, 0]));
    }

    #[test]
    fn requests_of_all_kinds_are_added_up() {
        let text = "cairn_store_puts_total 3\ncairn_store_gets_total 4\nother_total 9\n";
        let now = Counted(text.to_owned());
        assert!((now.requests() - 7.0).abs() < f64::EPSILON);
        let before = Counted("cairn_store_puts_total 3\ncairn_store_gets_total 2\n".to_owned());
        assert_eq!(now.kinds_since(&before), "2 cairn_store_gets");
    }
}
