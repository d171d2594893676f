//! The sink: spans to the collector first, then events of open calls and positions into the database, in one transaction.
//!
//! A kill in between sends spans again, and they have the same ids. Calls without an outcome are kept within bounds, and go out as open past
//! them. Called by the consumer's own thread; no call waits for it.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::atomic::Ordering,
    time::Duration,
};

use cairn_clock::{Entropy, Timestamp};
use tokio_util::sync::CancellationToken;

use super::{
    attributes::Include,
    calls::{Call, Told},
    chains::Chains,
    delivery::{Delivery, SPANS_MAX},
    exporter::Exporter,
    figures::Figures,
    kept::{self, Kept, OpenCall, Sent},
    moments,
    observed::Observed,
    otlp::Resource,
    span::{Link, Span},
};
use crate::{Batch, Control, DeadLetter, Event, Position, Replayed, Sink, SinkError, database::Database};

/// How `observe` is set up.
#[derive(Clone, Debug)]
pub struct ObserveOptions {
    /// Where spans go; without one there are figures and alerts alone.
    pub exporter: Option<Exporter>,
    /// Who sends.
    pub resource: Resource,
    /// Which keys go out besides.
    pub include: Include,
    /// Whether model calls have spans: their agents may have sent these already.
    pub with_models: bool,
    /// Open calls that are kept; the oldest go out as open.
    pub open_calls_max: usize,
    /// How long a call is kept open.
    pub open_max: Duration,
    /// What is older than this is passed over by a database that is made: a collector has no use for years of traces.
    pub begin_at: Timestamp,
}

impl Default for ObserveOptions {
    fn default() -> Self {
        Self {
            exporter: None,
            resource: Resource::default(),
            include: Include::default(),
            with_models: false,
            open_calls_max: 10_000,
            open_max: Duration::from_secs(24 * 60 * 60),
            begin_at: Timestamp::from_micros(0),
        }
    }
}

/// Where `observe` keeps what it needs, and what it sends by.
#[derive(Debug)]
pub struct ObserveSink {
    database: Database<Kept>,
    kept: Kept,
    options: ObserveOptions,
    figures: Figures,
    open: BTreeMap<String, OpenCall>,
    chains: Chains,
    delivery: Delivery,
}

/// What a batch comes to.
#[derive(Debug, Default)]
struct Planned {
    /// Each with the event of the batch that it came of.
    spans: Vec<(usize, Span)>,
    sent: Vec<Sent>,
    /// Where in `sent` a call is.
    at: HashMap<String, usize>,
    observed: Vec<Observed>,
    open: BTreeMap<String, OpenCall>,
}

impl Planned {
    fn send(&mut self, sent: Option<Sent>) {
        let Some(sent) = sent else { return };
        self.at.insert(sent.call_id.clone(), self.sent.len());
        self.sent.push(sent);
    }

    fn sent(&self, call_id: &str) -> Option<&Sent> {
        self.sent.get(*self.at.get(call_id)?)
    }
}

impl ObserveSink {
    /// Opens the database, and makes it where there is none; must be called within a runtime. `stop` cuts off what waits for the collector.
    ///
    /// # Errors
    /// It cannot be opened, or was made by a newer Cairn.
    pub fn open(
        path: &Path,
        entropy: &Entropy,
        options: ObserveOptions,
        figures: Figures,
        stop: CancellationToken,
    ) -> Result<Self, SinkError> {
        let kept = Kept::default();
        let mut database = Database::open_for(path, entropy, kept.clone())?;
        let begin_us = database.within(|begun| kept::begins(begun, options.begin_at.as_micros()))?;
        kept.begin_us.store(begin_us, Ordering::Relaxed);
        let open = database.read(kept::open_calls)?.into_iter().collect();
        figures.stand(&open);
        let delivery = Delivery::new(options.exporter.clone(), options.resource.clone(), figures.clone(), stop);
        Ok(Self { database, kept, options, figures, open, chains: Chains::default(), delivery })
    }

    /// Who this database is in its group.
    #[must_use]
    pub fn instance(&self) -> &str {
        self.database.instance()
    }

    /// What a batch comes to. Where it is given `again`, only what it holds whole.
    fn plan(&self, batch: &Batch, again: bool) -> Result<Planned, SinkError> {
        let mut planned = Planned::default();
        let mut calls: HashMap<String, Vec<Told>> = HashMap::new();
        // Whoever replays a part of the trail wants that part.
        let begin_us = self.kept.begin_us.load(Ordering::Relaxed);
        let is_wanted = |event: &Event| again || event.at.as_micros() >= begin_us;
        for (index, event) in batch.events.iter().enumerate().filter(|(_, event)| is_wanted(event)) {
            if kept::is_of_call(event) {
                self.plan_call(&mut planned, &mut calls, (index, event), again)?;
            } else if moments::is_told(&event.type_name) {
                self.plan_moment(&mut planned, (index, event))?;
            } else {
                planned.observed.extend(Observed::of_other(event));
            }
        }
        if !again {
            self.plan_surplus(&mut planned, &calls)?;
        }
        Ok(planned)
    }

    fn plan_call(
        &self,
        planned: &mut Planned,
        calls: &mut HashMap<String, Vec<Told>>,
        (index, event): (usize, &Event),
        again: bool,
    ) -> Result<(), SinkError> {
        let call_id = event.fields.call_id.clone().unwrap_or_default();
        if !calls.contains_key(&call_id) {
            let held = if again { Vec::new() } else { self.database.read(|db| kept::events_of(db, &call_id))? };
            calls.insert(call_id.clone(), held);
        }
        let events = calls.entry(call_id.clone()).or_default();
        let told = told(event);
        // It came twice, or lies in the database already, because somebody moved the consumer back.
        let is_new = !events.iter().any(|known| known.id == told.id);
        if is_new {
            events.push(told.clone());
        }
        if event.type_name != "call.outcome" {
            planned.observed.extend(is_new.then(|| Observed::of_call_event(&told)).flatten());
            let since_us = events.first().map_or(told.at_us, |first| first.at_us);
            let mut open = planned.open.remove(&call_id).or_else(|| self.open.get(&call_id).cloned());
            let open = open.get_or_insert(OpenCall { since_us, waits: None });
            if event.type_name == "call.approval" {
                let id = told.text("approval_id").unwrap_or_default().to_owned();
                open.waits = (told.text("state") == Some("requested")).then_some((id, told.at_us));
            }
            planned.open.insert(call_id, open.clone());
            return Ok(());
        }
        let call = Call(events);
        let before = self.database.read(|db| kept::sent(db, &call_id))?;
        let has_ended = before.is_some_and(|sent| sent.has_ended) || planned.sent(&call_id).is_some();
        // Of two outcomes the first counts; and what is not there whole must not stand in the place of what was.
        if call.decision().is_none() && (again || has_ended) {
            calls.remove(&call_id);
            return Ok(());
        }
        let links = self.links(call, &call_id, planned)?;
        planned.spans.extend(call.spans(&self.options.include, links).into_iter().map(|span| (index, span)));
        planned.observed.extend(Observed::of_outcome(call));
        planned.send(sent(call, &call_id, true));
        planned.open.remove(&call_id);
        calls.remove(&call_id);
        Ok(())
    }

    /// The other rounds of its operation, and the call that it repeats.
    fn links(&self, call: Call<'_>, call_id: &str, planned: &Planned) -> Result<Vec<Link>, SinkError> {
        let mut links = Vec::new();
        if let Some(operation) = call.text("operation_id") {
            let by = call.text("linked_by").unwrap_or("operation").to_owned();
            let is_of = |sent: &&Sent| sent.operation_id.as_deref() == Some(operation) || sent.call_id == operation;
            let here: Vec<&Sent> = planned.sent.iter().filter(is_of).filter(|sent| sent.call_id != call_id).collect();
            let before = self.database.read(|db| kept::rounds(db, operation, call_id))?;
            let others = before.iter().filter(|sent| here.iter().all(|one| one.call_id != sent.call_id));
            let all = here.iter().copied().chain(others);
            links.extend(all.map(|sent| Link { trace_id: sent.trace_id, span_id: sent.span_id, by: by.clone() }));
        }
        if let Some(repeated) = call.repeats() {
            let here = planned.sent(repeated).cloned();
            let found =
                here.map_or_else(|| self.database.read(|db| kept::sent(db, repeated)), |sent| Ok(Some(sent)))?;
            links.extend(found.map(|sent| Link {
                trace_id: sent.trace_id,
                span_id: sent.span_id,
                by: "repeats".to_owned(),
            }));
        }
        Ok(links)
    }

    fn plan_moment(&self, planned: &mut Planned, (index, event): (usize, &Event)) -> Result<(), SinkError> {
        let told = told(event);
        planned.observed.extend(Observed::of_other(event));
        if event.type_name == "model.called" && !self.options.with_models {
            return Ok(());
        }
        let mut call = None;
        if let Some(call_id) = told.text("call_id") {
            let here = planned.sent(call_id).cloned();
            let found = match here {
                Some(sent) => Some(sent),
                None => self.database.read(|db| kept::sent(db, call_id))?,
            };
            call = found.map(|sent| (sent.trace_id, sent.span_id));
            if call.is_none() {
                call = Call(&self.database.read(|db| kept::events_of(db, call_id))?).ids();
            }
        }
        planned.spans.extend(moments::of(&told, call, &self.options.include).map(|span| (index, span)));
        Ok(())
    }

    /// More calls are open than are kept: the oldest go out as they are.
    fn plan_surplus(&self, planned: &mut Planned, calls: &HashMap<String, Vec<Told>>) -> Result<(), SinkError> {
        let ended = |id: &String| planned.sent(id).is_some();
        let more = planned.open.keys().filter(|id| !self.open.contains_key(*id)).count();
        let held = self.open.len() + more;
        if held <= self.options.open_calls_max {
            return Ok(());
        }
        let mut oldest: Vec<(u64, String)> = self
            .open
            .iter()
            .filter(|(id, _)| !ended(id) && !planned.open.contains_key(*id))
            .chain(&planned.open)
            .map(|(id, open)| (open.since_us, id.clone()))
            .collect();
        oldest.sort_unstable();
        let surplus = oldest.len().saturating_sub(self.options.open_calls_max);
        for (_, call_id) in oldest.into_iter().take(surplus) {
            self.plan_open(planned, &call_id, calls.get(&call_id).cloned())?;
        }
        Ok(())
    }

    /// A call that is kept no longer goes out as open, unless it had ended before.
    fn plan_open(&self, planned: &mut Planned, call_id: &str, events: Option<Vec<Told>>) -> Result<(), SinkError> {
        let events = match events {
            Some(events) => events,
            None => self.database.read(|db| kept::events_of(db, call_id))?,
        };
        let before = self.database.read(|db| kept::sent(db, call_id))?;
        planned.open.remove(call_id);
        if let Some(before) = before.filter(|sent| sent.has_ended) {
            planned.send(Some(before));
            return Ok(());
        }
        let call = Call(&events);
        let spans = call.spans(&self.options.include, Vec::new());
        planned.spans.extend(spans.into_iter().map(|span| (0, span)));
        planned.send(sent(call, call_id, false));
        planned.observed.push(Observed::GivenUp);
        Ok(())
    }

    /// What the next commit remembers, and lets go of.
    fn due(&self, sent: Vec<Sent>) {
        *self.kept.due.lock() = sent;
    }

    fn changed(&mut self, planned: Planned) {
        for sent in &planned.sent {
            self.open.remove(&sent.call_id);
        }
        self.open.extend(planned.open);
        self.figures.stand(&self.open);
        self.figures.observe(planned.observed);
    }
}

impl Sink for ObserveSink {
    fn positions(&mut self) -> Result<Vec<Position>, SinkError> {
        self.database.positions()
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), SinkError> {
        let planned = self.plan(batch, false)?;
        let lost = self.delivery.deliver(&planned.spans, &batch.advances)?;
        self.due(planned.sent.clone());
        if lost.is_empty() {
            self.database.apply(batch)?;
        } else {
            self.database.apply(&with_lost(batch, &planned.spans, lost))?;
        }
        self.due(Vec::new());
        self.figures.missing(&self.chains.follow(batch));
        self.changed(planned);
        Ok(())
    }

    fn replace(&mut self, batch: &Batch) -> Result<Replayed, SinkError> {
        let mut planned = self.plan(batch, true)?;
        let lost = self.delivery.deliver(&planned.spans, &batch.advances)?;
        // Calls that ended in another batch have let go of their events, and do so again.
        for call_id in planned.open.keys() {
            planned.sent.extend(self.database.read(|db| kept::sent(db, call_id))?.filter(|sent| sent.has_ended));
        }
        self.due(planned.sent);
        let replayed = self.database.replace(&with_lost(batch, &planned.spans, lost));
        self.due(Vec::new());
        replayed
    }

    fn move_to(&mut self, positions: &[Position]) -> Result<(), SinkError> {
        // Whoever moves it back wants what lies there.
        self.database.within(kept::begin_anew)?;
        self.kept.begin_us.store(0, Ordering::Relaxed);
        self.database.move_to(positions)
    }

    fn control(&mut self) -> Result<Control, SinkError> {
        self.database.control()
    }

    fn pause(&mut self, is_paused: bool) -> Result<(), SinkError> {
        self.database.pause(is_paused)
    }

    fn tend(&mut self, now: Timestamp) -> Result<bool, SinkError> {
        let mut planned = Planned::default();
        let is_old = |open: &OpenCall| now.since(Timestamp::from_micros(open.since_us)) > self.options.open_max;
        let old = self.open.iter().filter(|(_, open)| is_old(open)).map(|(id, _)| id.clone()).take(SPANS_MAX);
        let old: Vec<String> = old.collect();
        for call_id in &old {
            self.plan_open(&mut planned, call_id, None)?;
        }
        match self.delivery.deliver(&planned.spans, &[]) {
            Ok(_) => {
                self.due(planned.sent.clone());
                let is_more = self.database.tend(now)?;
                self.due(Vec::new());
                self.changed(planned);
                Ok(self.database.within(kept::forget)? | is_more | (old.len() == SPANS_MAX))
            }
            // They are kept until the collector is back.
            Err(_) => self.database.tend(now),
        }
    }
}

fn told(event: &Event) -> Told {
    Told {
        id: event.id,
        type_name: event.type_name.clone(),
        at_us: event.at.as_micros(),
        data: serde_json::from_str(&event.value).unwrap_or_default(),
    }
}

fn sent(call: Call<'_>, call_id: &str, has_ended: bool) -> Option<Sent> {
    let (trace_id, span_id) = call.ids()?;
    let at_us = call.0.last().map_or(0, |told| told.at_us);
    let operation_id = call.text("operation_id").map(ToOwned::to_owned);
    Some(Sent { call_id: call_id.to_owned(), trace_id, span_id, operation_id, has_ended, at_us })
}

/// The batch with a dead letter for each span that the collector will never take.
fn with_lost(batch: &Batch, spans: &[(usize, Span)], lost: Vec<(usize, String)>) -> Batch {
    let mut batch = batch.clone();
    for (at, reason) in lost {
        let Some(event) = spans.get(at).and_then(|(index, _)| batch.events.get(*index)) else { continue };
        let Event { topic, partition, offset, value, .. } = event;
        let dead = DeadLetter {
            topic: topic.clone(),
            partition: *partition,
            offset: *offset,
            timestamp_ms: event.at.as_millis(),
            bytes: value.len() as u64,
            reason,
        };
        batch.dead.push(dead);
    }
    batch
}
