//! Reading the gateway's own chain back: where it ends, and which calls it left open.
//!
//! Called once, before the first event of a new epoch is written. It reads each partition from the offset that the hints
//! file gives, else from its start; a hint under which no own event is found is not believed. Where the log cannot be read, what
//! the backbone kept takes its place. It must never skip an event that it cannot read as long as it is this gateway's, and
//! never look at other gateways' calls.

use std::collections::{BTreeMap, HashMap};

use cairn_clock::Clock;
use cairn_contract::{Body, Hlc, StoredEvent, Topic, topics};
use uuid::Uuid;

use super::{
    OpenCall, RecorderError, RecorderOptions,
    hints::{self, Places},
    lane::Chain,
    settles,
};
use crate::{Backbone, Kept};

const READ_BYTES: usize = 4 << 20;

/// Every lane's chain, and the calls without outcome in the order of their first event.
pub(super) async fn read_back(
    options: &RecorderOptions,
    backbone: &dyn Backbone,
    hlc: &Hlc,
    clock: &Clock,
) -> Result<(HashMap<Topic, Vec<Chain>>, Vec<OpenCall>), RecorderError> {
    let kept = backbone.kept();
    let hints = hints::load(&options.folder, &options.gateway_id);
    let mut chains = HashMap::new();
    let mut open_calls = Vec::new();
    for spec in topics() {
        let partitions = backbone.partitions(spec.topic).await?;
        let mut lanes = Vec::new();
        for partition in 0..partitions {
            let from = hints.get(&(spec.topic, partition)).copied();
            let mut scan = Scan::new(options, spec.topic, partition);
            if let Some(kept) = &kept {
                scan.replay(kept, hlc, clock)?;
                let (chain, open) = scan.end();
                lanes.push(chain);
                open_calls.extend(open);
                continue;
            }
            scan.run(backbone, from.unwrap_or(0), hlc, clock).await?;
            if scan.previous.is_none() && from.is_some_and(|from| from > 0) {
                scan = Scan::new(options, spec.topic, partition);
                scan.run(backbone, 0, hlc, clock).await?;
            }
            let (chain, open) = scan.end();
            lanes.push(chain);
            open_calls.extend(open);
        }
        chains.insert(spec.topic, lanes);
    }
    Ok((chains, open_calls))
}

struct Scan<'a> {
    options: &'a RecorderOptions,
    topic: Topic,
    partition: u32,
    previous: Option<String>,
    last: u64,
    end: u64,
    open: BTreeMap<Uuid, (u64, OpenCall)>,
}

impl<'a> Scan<'a> {
    fn new(options: &'a RecorderOptions, topic: Topic, partition: u32) -> Self {
        Self { options, topic, partition, previous: None, last: 0, end: 0, open: BTreeMap::new() }
    }

    async fn run(&mut self, backbone: &dyn Backbone, from: u64, hlc: &Hlc, clock: &Clock) -> Result<(), RecorderError> {
        let bounds = backbone.bounds(self.topic, self.partition).await?;
        let mut from = if from > bounds.end { bounds.start } else { from.max(bounds.start) };
        self.end = bounds.end;
        while from < self.end {
            let slice = backbone.read(self.topic, self.partition, from, READ_BYTES).await?;
            for (offset, record) in slice.records {
                let Ok(event) = StoredEvent::parse(record.key, &record.headers, &record.value) else { continue };
                self.take(offset, event, hlc, clock)?;
            }
            self.end = self.end.max(slice.end);
            if slice.next <= from {
                break;
            }
            from = slice.next;
        }
        Ok(())
    }

    /// Takes what the backbone kept of this partition. The places are lower bounds, as hints are.
    fn replay(&mut self, kept: &[Kept], hlc: &Hlc, clock: &Clock) -> Result<(), RecorderError> {
        let (topic, partition) = (self.topic, self.partition);
        for kept in kept.iter().filter(|kept| kept.topic == topic && kept.partition == partition) {
            let record = &kept.record;
            let Ok(event) = StoredEvent::parse(record.key.clone(), &record.headers, &record.value) else { continue };
            self.take(kept.floor, event, hlc, clock)?;
            self.end = self.end.max(kept.floor);
        }
        Ok(())
    }

    fn take(&mut self, offset: u64, event: StoredEvent, hlc: &Hlc, clock: &Clock) -> Result<(), RecorderError> {
        let RecorderOptions { gateway_id, epoch, .. } = self.options;
        if event.producer.id != *gateway_id {
            return Ok(());
        }
        if event.producer.epoch >= *epoch {
            let (gateway_id, epoch) = (gateway_id.clone(), *epoch);
            return Err(RecorderError::Fenced { gateway_id, found: event.producer.epoch, epoch });
        }
        if let Err(error) = hlc.observe(&event.hlc, clock) {
            tracing::warn!(%error, "an own event's clock reading was not taken over");
        }
        self.previous = Some(hexadecimal(&event.link));
        self.last = offset;
        let (Topic::Calls, Some(call_id)) = (self.topic, event.common.call_id) else { return Ok(()) };
        match event.body() {
            Ok(Some(Body::CallOutcome(_))) => {
                self.open.remove(&call_id);
            }
            // People may settle an approval whose call has ended: that opens nothing.
            Ok(Some(body)) if settles(&body) => {
                if let Some((_, call)) = self.open.get_mut(&call_id) {
                    call.take(&event, body);
                }
            }
            Ok(Some(body @ (Body::CallDecision(_) | Body::CallApproval(_) | Body::CallIntent(_)))) => {
                let (_, call) = self.open.entry(call_id).or_insert_with(|| (offset, OpenCall::new(&event, call_id)));
                call.take(&event, body);
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, offset, "an own event could not be read in full"),
        }
        Ok(())
    }

    fn end(self) -> (Chain, Vec<OpenCall>) {
        let places = Places::new(
            self.previous.as_ref().map(|_| self.last),
            self.open.iter().map(|(call, (offset, _))| (*call, *offset)),
        );
        let chain =
            Chain { topic: self.topic, partition: self.partition, previous: self.previous, floor: self.end, places };
        let mut open: Vec<_> = self.open.into_values().collect();
        open.sort_by_key(|(offset, _)| *offset);
        (chain, open.into_iter().map(|(_, call)| call).collect())
    }
}

pub(super) fn hexadecimal(link: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    link.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}
