//! `cairn whatif`: recorded decisions made again under other policies, from their recorded inputs.
//!
//! Decisions are read from the trail, their inputs from the vault, in batches, and decided on all processors. A decision
//! whose inputs are gone is undecidable, never an agreement. Bounded: a batch, the results that are remembered for equal
//! inputs, and the flips that are listed.

use std::{collections::HashMap, sync::Arc, time::Duration};

use cairn_backbone::reader::{Entry, From, Reader, ReaderError, ReaderOptions};
use cairn_contract::{Body, CallDecision, EventType, StoredEvent};
use cairn_policy::{NotTried, Trial, Tried};
use cairn_vault::{Vault, VaultError};
use tokio::time::Instant;

use crate::{
    judge::{Compared, compare},
    report::{Counts, Flip, FlipKind, Part, Parts, Report},
};

/// Decisions that are made at a time.
const BATCH_MAX: usize = 4_096;
/// Results that are remembered for equal inputs.
const REMEMBERED_MAX: usize = 65_536;

/// What to decide again.
#[derive(Debug)]
pub struct WhatIf {
    /// How the trail is read; its topics are those with calls.
    pub reader: ReaderOptions,
    /// From when, in milliseconds since 1970.
    pub from_ms: i64,
    /// Until when, in milliseconds since 1970; the present end where absent.
    pub until_ms: Option<i64>,
    /// The policies.
    pub trial: Arc<Trial>,
    /// Where the inputs are.
    pub vault: Vault,
    /// Most flips that are listed; all are counted.
    pub listed_max: usize,
}

/// Why it cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum WhatIfError {
    /// The trail cannot be read.
    #[error(transparent)]
    Reader(#[from] ReaderError),
    /// The vault cannot be read.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

/// A decision as it was recorded.
struct Recorded {
    entry: Entry,
    event: StoredEvent,
    decision: CallDecision,
}

type Outcome = Result<Tried, NotTried>;

#[derive(Default)]
struct Tally {
    counts: Counts,
    by_tool: Parts,
    by_agent: Parts,
    by_tenant: Parts,
    listed: Vec<Flip>,
    remembered: HashMap<String, Arc<Outcome>>,
    deciding: Duration,
}

impl WhatIf {
    /// Decides again; `progress` hears how far it is after each batch.
    ///
    /// # Errors
    /// The trail or the vault cannot be read.
    pub async fn run(mut self, mut progress: impl FnMut(&Counts)) -> Result<Report, WhatIfError> {
        self.reader.from = From::Since(self.from_ms);
        self.reader.until_end = true;
        self.reader.look_every = None;
        let mut reader = Reader::open(self.reader.clone()).await?;
        let (mut tally, mut batch) = (Tally::default(), Vec::with_capacity(BATCH_MAX));
        while let Some(entry) = reader.next().await {
            let mut entry = entry?;
            if self.until_ms.is_some_and(|until| entry.timestamp_ms > until) {
                continue;
            }
            let not_here = Err(cairn_contract::StoredError::Header { header: "ce_id" });
            let Ok(event) = std::mem::replace(&mut entry.event, not_here) else { continue };
            if event.type_name != EventType::CallDecision.name() {
                continue;
            }
            tally.counts.decisions += 1;
            let Ok(Some(Body::CallDecision(decision))) = event.body() else {
                tally.counts.undecidable.unknown += 1;
                continue;
            };
            batch.push(Recorded { entry, event, decision });
            if batch.len() == BATCH_MAX {
                self.judge(&mut tally, std::mem::take(&mut batch)).await?;
                progress(&tally.counts);
            }
        }
        reader.close().await;
        self.judge(&mut tally, batch).await?;
        progress(&tally.counts);
        Ok(Report {
            policy_version: self.trial.version().to_owned(),
            counts: tally.counts,
            by_tool: tally.by_tool.sorted(),
            by_agent: tally.by_agent.sorted(),
            by_tenant: tally.by_tenant.sorted(),
            listed: tally.listed,
            deciding_us: u64::try_from(tally.deciding.as_micros()).unwrap_or(u64::MAX),
        })
    }

    async fn judge(&self, tally: &mut Tally, batch: Vec<Recorded>) -> Result<(), WhatIfError> {
        // Each inputs once, those of earlier batches not again.
        let mut wanted = Vec::new();
        let mut fresh: HashMap<&str, Option<Arc<Outcome>>> = HashMap::new();
        for Recorded { decision, .. } in &batch {
            let (digest, location) = (&decision.inputs.digest, decision.inputs.location.as_deref());
            let is_kept = location.is_some_and(|location| location.starts_with("vault:"));
            if is_kept && !tally.remembered.contains_key(digest) && fresh.insert(digest, None).is_none() {
                wanted.push((digest.clone(), location.unwrap_or_default().to_owned()));
            }
        }
        let digests: Vec<String> = wanted.iter().map(|(digest, _)| digest.clone()).collect();
        let found = self.vault.read_many(wanted).await?;
        let mut faults: HashMap<String, VaultError> = HashMap::new();
        let mut inputs = Vec::with_capacity(found.len());
        for (digest, found) in digests.into_iter().zip(found) {
            match found {
                Ok(payload) => inputs.push((digest, payload)),
                Err(fault) => drop(faults.insert(digest, fault)),
            }
        }
        let (decided, took) = self.decide(inputs).await;
        tally.deciding += took;
        let fresh = decided.len() as u64;
        if tally.remembered.len() + decided.len() > REMEMBERED_MAX {
            tally.remembered.clear();
        }
        let decided: HashMap<String, Arc<Outcome>> = decided.into_iter().collect();
        let mut used = 0;
        for recorded in &batch {
            let digest = &recorded.decision.inputs.digest;
            let outcome = decided.get(digest).or_else(|| tally.remembered.get(digest)).cloned();
            used += u64::from(outcome.is_some());
            let fault = faults.get(digest);
            tally.count(recorded, outcome.as_deref(), fault, self.listed_max);
        }
        tally.counts.fresh += fresh;
        tally.counts.repeated += used - fresh.min(used);
        tally.remembered.extend(decided);
        Ok(())
    }

    /// Decides on all processors.
    async fn decide(&self, inputs: Vec<(String, Vec<u8>)>) -> (Vec<(String, Arc<Outcome>)>, Duration) {
        let trial = self.trial.clone();
        let decided = tokio::task::spawn_blocking(move || {
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            let share = inputs.len().div_ceil(threads).max(1);
            let decide = |share: &[(String, Vec<u8>)]| {
                let started = Instant::now();
                let decide = |(digest, payload): &(String, Vec<u8>)| (digest.clone(), Arc::new(trial.decide(payload)));
                (share.iter().map(decide).collect::<Vec<_>>(), started.elapsed())
            };
            std::thread::scope(|scope| {
                let shares: Vec<_> = inputs.chunks(share).map(|share| scope.spawn(move || decide(share))).collect();
                let mut all = (Vec::with_capacity(inputs.len()), Duration::ZERO);
                for share in shares {
                    let (decided, took) = share.join().expect("deciding does not panic");
                    all.0.extend(decided);
                    all.1 += took;
                }
                all
            })
        });
        decided.await.expect("deciding does not panic")
    }
}

impl Tally {
    fn count(&mut self, recorded: &Recorded, outcome: Option<&Outcome>, fault: Option<&VaultError>, listed_max: usize) {
        let Recorded { event, decision, .. } = recorded;
        let compared = match (outcome, fault) {
            (Some(Ok(would)), _) => Some((compare(decision, would), would)),
            (Some(Err(NotTried::Hidden)), _) => self.undecidable(|all| &mut all.undecidable.hidden),
            (Some(Err(NotTried::NoInputs)), _) => self.undecidable(|all| &mut all.undecidable.damaged),
            (None, Some(VaultError::ErasedSubject { .. })) => self.undecidable(|all| &mut all.undecidable.erased),
            (None, Some(VaultError::Damaged { .. })) => self.undecidable(|all| &mut all.undecidable.damaged),
            (None, Some(_)) => self.undecidable(|all| &mut all.undecidable.missing),
            (None, None) => self.undecidable(|all| &mut all.undecidable.not_kept),
        };
        let target = target(event, decision);
        let common = &event.common;
        let agent = common.agent.as_deref().or(common.agent_name.as_deref()).unwrap_or("(none)");
        let tenant = common.tenant.as_deref().unwrap_or("(none)");
        let kind = match compared {
            Some((Compared::Flip(kind), _)) => Some(kind),
            _ => None,
        };
        let add = |part: &mut Part| {
            part.decisions += 1;
            part.to_deny += u64::from(kind == Some(FlipKind::ToDeny));
            part.to_permit += u64::from(kind == Some(FlipKind::ToPermit));
            part.other_demands += u64::from(kind == Some(FlipKind::OtherDemands));
            part.undecidable += u64::from(compared.is_none());
        };
        add(self.by_tool.of(&target));
        add(self.by_agent.of(agent));
        add(self.by_tenant.of(tenant));
        match compared {
            None => {}
            Some((Compared::Agree, _)) => self.counts.agree += 1,
            Some((Compared::DeniedElsewhere, _)) => self.counts.denied_elsewhere += 1,
            Some((Compared::Flip(kind), would)) => {
                self.counts.flips += 1;
                if self.listed.len() < listed_max {
                    self.listed.push(flip(recorded, kind, target, would));
                }
            }
        }
    }

    fn undecidable<T>(&mut self, which: impl FnOnce(&mut Counts) -> &mut u64) -> Option<T> {
        *which(&mut self.counts) += 1;
        None
    }
}

fn target(event: &StoredEvent, decision: &CallDecision) -> String {
    let server = event.common.server.as_deref().unwrap_or_default();
    let method = event.common.mcp_method_name.as_deref().unwrap_or_default();
    match decision.target.name() {
        Some(name) => format!("{server}/{name}"),
        None => format!("{server} {method}"),
    }
}

fn flip(recorded: &Recorded, kind: FlipKind, target: String, would: &Tried) -> Flip {
    let Recorded { entry, event, decision } = recorded;
    let common = &event.common;
    let mut demands_were = decision.obligations.clone();
    demands_were.sort();
    Flip {
        kind,
        topic: entry.topic.clone(),
        partition: entry.partition,
        offset: entry.offset,
        time: event.time.clone(),
        workflow_id: common.workflow_id.clone(),
        call_id: common.call_id.map(|id| id.to_string()),
        principal: common.principal.clone(),
        agent: common.agent.clone().or_else(|| common.agent_name.clone()),
        tenant: common.tenant.clone(),
        target,
        was: decision.determining_policies.clone(),
        would: would.determining.clone(),
        demands_were,
        demands_would: would.obligations.clone(),
        errors: would.errors.clone(),
    }
}
