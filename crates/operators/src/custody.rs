//! What operators do with payloads: read one back, erase a subject, hold and release it, rotate the keys.
//!
//! Each is an event of `mcp.operators`. A payload is shown only after the event that says so is durable; an erasure that
//! could not be recorded is recorded at the next start. Called by `vault_api`.

use cairn_backbone::{RecordError, Recorder};
use cairn_contract::{Body, Common, Draft, SubjectErased, SubjectHeld, SubjectReleased, VaultRead};
use cairn_gateway::Gateway;
use cairn_vault::{ErrorKind, Subject, Vault, VaultError};

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
    /// It is done, and not recorded yet.
    #[error("it is done, and will be recorded at the next start, because recording does not work now: {0}")]
    DoneNotRecorded(RecordError),
}

impl CustodyError {
    pub(crate) const fn kind(&self) -> ErrorKind {
        match self {
            Self::Vault(error) => error.kind(),
            Self::NoReason => ErrorKind::Invalid,
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
        let common = Common { tenant: subject.tenant.clone(), ..Common::default() };
        let (key, name) = (subject.name.clone(), Some(subject.name.clone()));
        let draft = Draft { key, subject: name, traceparent: None, tracestate: None, common, body };
        self.recorder.strict(self.recorder.plan(draft)).await.map(drop)
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
