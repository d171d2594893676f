//! Raises alerts: asks the rules each second, records what is over its bound, and tells others only then.
//!
//! Runs beside the consumer `observe` inside `up`, which has a recorder. What was raised lies in the data folder, so that one that still
//! holds after a restart is not raised again. Must never hold up anything: it waits for nobody but the recorder.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use cairn_backbone::{Planned, Recorder};
use cairn_clock::Clock;
use cairn_consumers::observe::alerts::{Alert, Episodes, Seen};
use cairn_contract::{AlertRaised, Common, Draft};
use cairn_gateway::Gateway;
use cairn_operators::Webhook;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{consumers::Shown, observe::Observed};

/// How often the rules are asked.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Alerts that wait for the approvers' tool.
const WAITING_MAX: usize = 64;
/// How often one alert is told to a tool that does not take it.
const TRIES_MAX: u32 = 6;

/// What alerts are raised from, and into.
pub(crate) struct Watch {
    pub(crate) observed: Observed,
    /// The consumers of this process.
    pub(crate) shown: Vec<Shown>,
    pub(crate) recorder: Recorder,
    pub(crate) gateway: Gateway,
    pub(crate) webhook: Option<Webhook>,
    pub(crate) clock: Clock,
    pub(crate) data: PathBuf,
}

impl Watch {
    /// Until the consumer ends.
    pub(crate) async fn run(self) {
        let stop = self.observed.stopped();
        let path = self.data.join("consumers").join("alerts.json");
        let mut episodes = read(&path);
        episodes.go_on(self.clock.now());
        let told = self.webhook.clone().map(|webhook| telling(webhook, self.clock.clone(), stop.clone()));
        while tokio::time::timeout(ASK_EVERY, stop.cancelled()).await.is_err() {
            let alerts = self.alerts();
            let mut changed = episodes.hold(&alerts, self.clock.now());
            if changed && !kept(&path, &episodes) {
                // Without it the same alert could be raised under another id after a kill.
                continue;
            }
            for (id, alert) in episodes.due(&alerts) {
                if let Err(error) = self.record(id, &alert).await {
                    tracing::warn!(%error, alert = alert.alert, "an alert is not raised yet, because it cannot be recorded");
                    break;
                }
                tracing::warn!(alert = alert.alert, about = %alert.about, found = %alert.found, "an alert is raised");
                episodes.recorded(&alert);
                changed = true;
                if told.as_ref().is_some_and(|told| told.try_send((id, alert)).is_err()) {
                    tracing::warn!(
                        "the approvers' tool takes too few alerts, and is not told of one: it is in the trail"
                    );
                }
            }
            if changed {
                kept(&path, &episodes);
            }
        }
    }

    /// What is over its bound, in words that may stand in an event.
    fn alerts(&self) -> Vec<Alert> {
        let lags = self.shown.iter().map(|one| (one.name.to_owned(), one.status.snapshot().lag));
        let seen = Seen::of(&self.observed.figures, &self.observed.rules, lags);
        let mut alerts = self.observed.rules.broken(&seen);
        for alert in &mut alerts {
            alert.found = self.gateway.screen(&alert.found);
        }
        alerts
    }

    async fn record(&self, id: Uuid, alert: &Alert) -> anyhow::Result<()> {
        let Alert { alert, about, found } = alert;
        let (alert, found) = ((*alert).to_owned(), Some(found.clone()));
        let draft = Draft {
            key: about.clone(),
            subject: Some(format!("{alert}/{about}")),
            traceparent: None,
            tracestate: None,
            common: Common::default(),
            body: AlertRaised { alert, about: about.clone(), found }.into(),
        };
        Ok(self.recorder.strict(Planned { id, draft }).await.map(drop)?)
    }
}

/// Tells the approvers' tool, one alert after the other.
fn telling(webhook: Webhook, clock: Clock, stop: CancellationToken) -> mpsc::Sender<(Uuid, Alert)> {
    let (sender, mut waiting) = mpsc::channel::<(Uuid, Alert)>(WAITING_MAX);
    tokio::spawn(async move {
        while let Some((id, alert)) = waiting.recv().await {
            let id = id.hyphenated().to_string();
            let Alert { alert, about, found } = &alert;
            let data = serde_json::json!({ "event_id": id, "alert": alert, "about": about, "found": found });
            for tried in 0..TRIES_MAX {
                let Err(reason) = webhook.post(&id, "alert.raised", &data, &clock).await else { break };
                tracing::warn!(%reason, alert, "the approvers' tool was not told of an alert");
                let pause = Duration::from_secs(1 << tried);
                if tokio::time::timeout(pause, stop.cancelled()).await.is_ok() {
                    return;
                }
            }
        }
    });
    sender
}

/// What was raised before; nothing where that cannot be read.
fn read(path: &Path) -> Episodes {
    let text = std::fs::read(path).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Whether what was raised is on disk.
fn kept(path: &Path, episodes: &Episodes) -> bool {
    let written = || {
        let beside = path.with_extension("new");
        let mut file = std::fs::File::create(&beside)?;
        file.write_all(&serde_json::to_vec(episodes)?)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    let done = written();
    if let Err(error) = &done {
        tracing::warn!(%error, "which alerts were raised cannot be kept: make room in the data folder");
    }
    done.is_ok()
}
