//! What operators do with payloads: read one back, erase a subject, hold and release it, rotate the keys.
//!
//! Each is an event of `mcp.operators`. A payload is shown only after the event that says so is durable; an erasure that
//! could not be recorded is recorded at the next start. Called by `vault_api`.

use std::collections::BTreeMap;

use cairn_backbone::{Planned, RecordError, Recorded, Recorder};
use cairn_contract::{Body, Common, Draft, EventType, SubjectErased, SubjectHeld, SubjectReleased, VaultRead};
use cairn_gateway::Gateway;
use cairn_vault::{ErrorKind, Subject, Vault, VaultError};
use serde::Deserialize;
use serde_json::Value;

/// Why an operator did not get what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CustodyError {
    /// The vault says no.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// A hold without a reason.
    #[error("a hold needs its reason: say why in `reason`")]
    NoReason,
    /// It cannot be recorded, so it is not done.
    #[error("it is not done, because it cannot be recorded: {0}")]
    NotRecorded(RecordError),
    /// A refused event cannot be put back like that.
    #[error("it is not put back: {what}")]
    NotRepaired {
        /// What is wrong.
        what: String,
    },
    /// It is done, and not recorded yet.
    #[error("it is done, and will be recorded at the next start, because recording does not work now: {0}")]
    DoneNotRecorded(RecordError),
}

impl CustodyError {
    pub(crate) const fn kind(&self) -> ErrorKind {
        match self {
            Self::Vault(error) => error.kind(),
            Self::NoReason | Self::NotRepaired { .. } => ErrorKind::Invalid,
            Self::NotRecorded(_) | Self::DoneNotRecorded(_) => ErrorKind::Disk,
        }
    }
}

/// The vault as operators use it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Custody {
    vault: Vault,
    recorder: Recorder,
    gateway: Gateway,
}

/// Who asks, and why.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Who.
    pub operator: String,
    /// Why, as they say.
    pub reason: Option<String>,
}

impl Asked {
    /// Both as they may stand in an event.
    fn screened(&self, gateway: &Gateway) -> Self {
        Self {
            operator: gateway.screen(&self.operator),
            reason: self.reason.as_deref().map(|words| gateway.screen(words)).filter(|words| !words.is_empty()),
        }
    }
}

impl Custody {
    /// The vault with what records what is done with it.
    #[must_use]
    pub const fn new(vault: Vault, recorder: Recorder, gateway: Gateway) -> Self {
        Self { vault, recorder, gateway }
    }

    /// The vault.
    #[must_use]
    pub const fn vault(&self) -> &Vault {
        &self.vault
    }

    async fn record(&self, subject: &Subject, body: Body) -> Result<(), RecordError> {
        self.recorder.strict(self.planned(subject, body)).await.map(drop)
    }

    fn planned(&self, subject: &Subject, body: Body) -> Planned {
        let common = Common { tenant: subject.tenant.clone(), ..Common::default() };
        let (key, name) = (subject.name.clone(), Some(subject.name.clone()));
        self.recorder.plan(Draft { key, subject: name, traceparent: None, tracestate: None, common, body })
    }

    /// Records what an earlier run erased and could not record.
    ///
    /// # Errors
    /// The vault cannot be read, or recording does not work.
    pub async fn catch_up(&self) -> Result<(), CustodyError> {
        for erased in self.vault.unrecorded()? {
            let asked = Asked { operator: "an operator before this start".to_owned(), reason: None };
            self.record_erasure(&erased, &asked).await?;
        }
        Ok(())
    }

    async fn record_erasure(&self, erased: &cairn_vault::Erased, asked: &Asked) -> Result<(), CustodyError> {
        let Asked { operator, reason } = asked.screened(&self.gateway);
        let body = SubjectErased {
            subject: erased.subject.name.clone(),
            operator,
            reason,
            key_ids: erased.key_ids.clone(),
            objects: erased.objects,
            bytes: erased.bytes,
        };
        let recorded = self.record(&erased.subject, body.into()).await;
        recorded.map_err(CustodyError::DoneNotRecorded)?;
        Ok(self.vault.recorded(erased)?)
    }

    /// A payload, after the event that says who reads it is durable.
    ///
    /// # Errors
    /// It is not there, or reading it cannot be recorded: then it is not shown.
    pub async fn read(&self, digest: &str, asked: &Asked) -> Result<Vec<u8>, CustodyError> {
        let whose = self.vault.subject_of(digest);
        let payload = self.vault.read(digest).await?;
        let Asked { operator, reason } = asked.screened(&self.gateway);
        let subject = whose.as_ref().map(|subject| subject.name.clone());
        let body = VaultRead { operator, digest: digest.to_owned(), subject, reason };
        let whose = whose.unwrap_or_else(|| Subject { tenant: None, name: "nobody".to_owned() });
        self.record(&whose, body.into()).await.map_err(CustodyError::NotRecorded)?;
        Ok(payload)
    }

    /// Puts an event back that broke its contract, repaired, under the id that it would have had: whoever reads it twice knows
    /// it for one. What was refused is not shown.
    ///
    /// # Errors
    /// It is not there, a change cannot be made, or it still breaks its contract.
    pub async fn repair(&self, id: &str, digest: &str, changes: &[RefusedChange]) -> Result<Recorded, CustodyError> {
        let wrong = |what: String| CustodyError::NotRepaired { what };
        let id = id.parse().map_err(|_| wrong(format!("{id:?} is no event id")))?;
        let whole = self.vault.read(digest).await?;
        let mut whole: Value =
            serde_json::from_slice(&whole).map_err(|_| wrong("what lies there is no refused event".to_owned()))?;
        for change in changes {
            changed(&mut whole, change).map_err(wrong)?;
        }
        let text = |key: &str| whole[key].as_str().map(ToOwned::to_owned);
        let event_type = text("type").and_then(|name| EventType::named(&name));
        let event_type = event_type.ok_or_else(|| wrong("what lies there is no refused event".to_owned()))?;
        if event_type == EventType::CallIntent {
            let what = "an intent says that a call is about to be forwarded, and that one was not";
            return Err(wrong(what.to_owned()));
        }
        let data = &whole["data"];
        let body = Body::from_value(event_type, data).map_err(|error| wrong(error.to_string()))?;
        let common = Common::deserialize(data).map_err(|error| wrong(error.to_string()))?;
        // A key that this version has no place for would be lost in silence.
        let known = serde_json::to_value((&common, &body)).unwrap_or_default();
        let is_known =
            |key: &str| known.as_array().is_some_and(|parts| parts.iter().any(|part| part.get(key).is_some()));
        if let Some(key) = data.as_object().and_then(|members| members.keys().find(|key| !is_known(key))) {
            return Err(wrong(format!(
                "this version of Cairn writes no {key:?}: roll the contract back, or remove the key"
            )));
        }
        let draft = Draft {
            key: text("key").unwrap_or_default(),
            subject: text("subject"),
            traceparent: text("traceparent"),
            tracestate: text("tracestate"),
            common,
            body,
        };
        self.recorder.strict(Planned { id, draft }).await.map_err(|error| match error {
            RecordError::Invalid(why) => wrong(why.to_string()),
            error => CustodyError::NotRecorded(error),
        })
    }

    /// Many payloads, each by its digest and the location beside it, after the events that say who reads them are durable.
    /// In the order asked; what is wrong with a single one stands in its place.
    ///
    /// # Errors
    /// The vault cannot be read, or reading cannot be recorded: then none is shown.
    pub async fn read_many(
        &self,
        wanted: Vec<(String, String)>,
        asked: &Asked,
    ) -> Result<Vec<Result<Vec<u8>, VaultError>>, CustodyError> {
        let digests: Vec<String> = wanted.iter().map(|(digest, _)| digest.clone()).collect();
        let found = self.vault.read_many(wanted).await?;
        let Asked { operator, reason } = asked.screened(&self.gateway);
        // What is recorded at once is of one tenant.
        let mut by_tenant: BTreeMap<Option<String>, Vec<Planned>> = BTreeMap::new();
        for (digest, _) in digests.into_iter().zip(&found).filter(|(_, found)| found.is_ok()) {
            let whose = self.vault.subject_of(&digest);
            let subject = whose.as_ref().map(|subject| subject.name.clone());
            let body = VaultRead { operator: operator.clone(), digest, subject, reason: reason.clone() };
            let whose = whose.unwrap_or_else(|| Subject { tenant: None, name: "nobody".to_owned() });
            by_tenant.entry(whose.tenant.clone()).or_default().push(self.planned(&whose, body.into()));
        }
        for planned in by_tenant.into_values() {
            self.recorder.strict_all(planned).await.map_err(CustodyError::NotRecorded)?;
        }
        Ok(found)
    }

    /// Destroys a subject's keys and objects, and records it.
    ///
    /// # Errors
    /// The subject is unknown or under hold, or something refuses.
    pub async fn erase(&self, whose: &Subject, asked: &Asked) -> Result<cairn_vault::Erased, CustodyError> {
        let erased = self.vault.erase(whose).await?;
        self.record_erasure(&erased, asked).await?;
        Ok(erased)
    }

    /// Puts a subject under legal hold, and records it first.
    ///
    /// # Errors
    /// Something refuses.
    pub async fn hold(&self, whose: &Subject, asked: &Asked) -> Result<(), CustodyError> {
        let Asked { operator, reason } = asked.screened(&self.gateway);
        let reason = reason.ok_or(CustodyError::NoReason)?;
        let body = SubjectHeld { subject: whose.name.clone(), operator: operator.clone(), reason: reason.clone() };
        self.record(whose, body.into()).await.map_err(CustodyError::NotRecorded)?;
        self.vault.hold(whose, &operator, &reason).await?;
        Ok(())
    }

    /// Ends a subject's holds, and records it first.
    ///
    /// # Errors
    /// There is none, or something refuses.
    pub async fn release(&self, whose: &Subject, asked: &Asked) -> Result<usize, CustodyError> {
        let held = self.vault.held().into_iter().find(|(subject, _)| subject == whose);
        let holds = held.ok_or_else(|| VaultError::NotHeld { subject: whose.name.clone() })?.1.len();
        let body = SubjectReleased {
            subject: whose.name.clone(),
            operator: asked.screened(&self.gateway).operator,
            holds: holds as u64,
        };
        self.record(whose, body.into()).await.map_err(CustodyError::NotRecorded)?;
        Ok(self.vault.release(whose).await?)
    }
}

/// One change to a refused event.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefusedChange {
    /// JSON pointer: `/data/…`, `/key`, `/subject`.
    pub at: String,
    /// What is to stand there; nothing where it is to go.
    pub value: Option<Value>,
}

/// Makes a change. What the event is, and which one, cannot be changed.
fn changed(whole: &mut Value, change: &RefusedChange) -> Result<(), String> {
    let RefusedChange { at, value } = change;
    let is_allowed = at.starts_with("/data/") || at == "/key" || at == "/subject";
    let (parent, name) = at.rsplit_once('/').filter(|_| is_allowed).ok_or_else(|| {
        format!("{at:?} is no place that can be changed: write a pointer into /data, /key or /subject")
    })?;
    let name = name.replace("~1", "/").replace("~0", "~");
    let nothing = || format!("{parent:?} is not there");
    match (whole.pointer_mut(parent).ok_or_else(nothing)?, value) {
        (Value::Object(members), Some(value)) => drop(members.insert(name, value.clone())),
        (Value::Object(members), None) => drop(members.shift_remove(&name)),
        (Value::Array(items), value) => {
            let item = name.parse::<usize>().ok().filter(|place| *place < items.len());
            let place = item.ok_or_else(|| format!("{at:?} is not there"))?;
            match value {
                Some(value) => items[place] = value.clone(),
                None => drop(items.remove(place)),
            }
        }
        _ => return Err(format!("{parent:?} has no members")),
    }
    Ok(())
}
