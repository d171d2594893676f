//! Feeds the freshness guard from the stream: what other gateways saw, and what was seen before this start.
//!
//! A reader without a group, by the Kafka protocol, so that it is the same on any backbone. What this gateway itself saw
//! counts at once and is passed over here. While the stream cannot be read the guard falls behind, and says so by
//! calling nothing fresh. Must never hold up a call.

use std::{collections::HashMap, time::Duration};

use cairn_backbone::reader::{From, Reader, ReaderOptions, Said};
use cairn_clock::{Clock, Timestamp};
use cairn_contract::{
    Body, CallIntent, CallOutcome, ChangeCause, ContextChanged, ContextRead, Effect, EventType, Outcome, StoredEvent,
    Topic, TopicPrefix,
};
use cairn_freshness::{Resource, Viewer, Views};
use cairn_gateway::Metrics;
use tokio_util::sync::CancellationToken;

/// How often the guard looks how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Before the stream is opened again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Writes of other gateways that are remembered while they run.
const WRITES_MAX: usize = 10_000;

/// What the guard follows.
pub(crate) struct Follow {
    pub(crate) views: Views,
    pub(crate) clock: Clock,
    pub(crate) options: ReaderOptions,
    /// How far back it reads at the start.
    pub(crate) history: Duration,
    /// This gateway and its epoch: what it wrote, it knows.
    pub(crate) own: (String, u64),
    /// Tenants with topics of their own.
    pub(crate) tenants: Vec<TopicPrefix>,
    pub(crate) metrics: Metrics,
}

impl Follow {
    /// Follows until `stop`. A stream that cannot be opened or breaks is opened again, from where it was.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        self.views.follow();
        let topics = [Topic::Context, Topic::Calls];
        let prefixes = || std::iter::once(TopicPrefix::default()).chain(self.tenants.iter().cloned());
        let names = prefixes().flat_map(|prefix| topics.map(|topic| prefix.name(topic).into_owned()));
        self.options.topics = names.collect();
        self.options.until_end = false;
        self.options.look_every = Some(LOOK_EVERY);
        let mut since = self.clock.now().as_millis().saturating_sub(self.history.as_millis() as i64);
        let mut writes = HashMap::new();
        loop {
            let options = ReaderOptions { from: From::Since(since), ..self.options.clone() };
            let read = async {
                let mut reader = Reader::open(options).await?;
                while let Some(said) = reader.next_said().await {
                    match said? {
                        Said::CaughtUp(at) => self.views.caught_up(at),
                        Said::Entry(entry) => {
                            since = since.max(entry.timestamp_ms);
                            if let Ok(event) = entry.event {
                                self.take(&event, &mut writes);
                            }
                        }
                    }
                }
                Ok::<_, cairn_backbone::reader::ReaderError>(())
            };
            tokio::select! {
                () = stop.cancelled() => return,
                read = read => {
                    if let Err(error) = read {
                        tracing::warn!(%error, "the freshness guard cannot follow the stream; nothing is called fresh meanwhile");
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(AGAIN_AFTER) => {}
            }
        }
    }

    fn take(&self, event: &StoredEvent, writes: &mut HashMap<String, Vec<Resource>>) {
        let Ok(Some((at, body))) = body_of(event) else { return };
        if (event.producer.id.as_str(), event.producer.epoch) == (self.own.0.as_str(), self.own.1) {
            if matches!(body, Body::ContextChanged(_)) {
                self.metrics.guard_delayed(self.clock.now().since(at));
            }
            return;
        }
        let common = &event.common;
        let Some(server) = &common.server else { return };
        let resource =
            |uri: &str| Resource { tenant: common.tenant.clone(), server: server.clone(), uri: uri.to_owned() };
        let viewer = Viewer {
            tenant: common.tenant.clone(),
            principal: common.principal.clone().unwrap_or_default(),
            agent: common.agent.clone().or_else(|| common.agent_name.clone()),
        };
        let call = common.call_id.map(|id| id.to_string()).unwrap_or_default();
        match body {
            Body::ContextRead(ContextRead { mcp_resource_uri, version, asked_at, .. }) => {
                let asked = asked_at.and_then(|text| text.parse().ok()).unwrap_or(at);
                let _ = self.views.read(&viewer, &resource(&mcp_resource_uri), version, asked);
            }
            Body::ContextChanged(ContextChanged { mcp_resource_uri, version, cause }) => {
                self.metrics.guard_delayed(self.clock.now().since(at));
                let resource = resource(&mcp_resource_uri);
                match cause {
                    ChangeCause::Write => self.views.changed(&resource, version, at, Some(&viewer)),
                    _ => self.views.changed_elsewhere(&resource, version, at),
                }
            }
            Body::CallIntent(CallIntent { writes: uris, .. }) if !uris.is_empty() && writes.len() < WRITES_MAX => {
                let resources: Vec<_> = uris.iter().map(|uri| resource(uri)).collect();
                resources.iter().for_each(|resource| self.views.begins(resource, &call));
                writes.insert(call, resources);
            }
            Body::CallOutcome(CallOutcome { outcome, effect, .. }) => {
                for resource in writes.remove(&call).unwrap_or_default() {
                    self.views.ends(&resource, &call);
                    match (outcome, effect) {
                        // Its `context.changed` follows, with the version where one is known.
                        (Outcome::Completed, Effect::Answered) | (Outcome::Accepted, _) | (_, Effect::Unknown) => {
                            self.views.changed_elsewhere(&resource, None, at);
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
}

/// When an event happened, and what it says, if that is of use here.
fn body_of(event: &StoredEvent) -> Result<Option<(Timestamp, Body)>, cairn_contract::BodyError> {
    let wanted = [EventType::ContextRead, EventType::ContextChanged, EventType::CallIntent, EventType::CallOutcome];
    let Some(event_type) = wanted.into_iter().find(|wanted| wanted.name() == event.type_name) else { return Ok(None) };
    let Some(micros) = event.hlc.split('-').next().and_then(|micros| micros.parse().ok()) else { return Ok(None) };
    Ok(Some((Timestamp::from_micros(micros), Body::from_value(event_type, &event.value)?)))
}
