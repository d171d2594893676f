//! Deleting: softly first, for good after it, and not what another schema refers to.
//!
//! A part of [`Registry`]. What goes for good leaves its id behind in the claim, so that it is not handed out for another
//! schema.

use std::collections::BTreeSet;

use super::{Registry, may_write, settings::is_within};
use crate::{
    Refusal, Subject,
    store::records::{Record, SchemaValue},
};

impl Registry {
    /// Soft-deletes a subject, or removes it for good. Gives its versions.
    ///
    /// # Errors
    /// What Confluent's registry refuses: nothing there, not soft-deleted before, referred to by others.
    pub async fn delete_subject(&self, subject: Subject, permanent: bool) -> Result<Vec<u32>, Refusal> {
        let subject = self.meant(subject);
        let _turn = self.0.turn.lock().await;
        let versions = {
            let state = self.0.state.read();
            may_write(&subject, state.effective_mode(&subject))?;
            let name = subject.to_string();
            if state.versions(&subject).next().is_none() {
                return Err(Refusal::no_subject(&name));
            }
            let present = state.latest(&subject).is_some();
            match (permanent, present) {
                (false, false) => return Err(Refusal::subject_soft_deleted(&name)),
                (true, true) => return Err(Refusal::subject_not_soft_deleted(&name)),
                _ => {}
            }
            let versions: Vec<u32> = state
                .versions(&subject)
                .filter(|value| permanent || !value.deleted)
                .map(|value| value.version)
                .collect();
            for version in &versions {
                let by = state.referrers(&subject, *version);
                if by.iter().any(|value| value.subject != subject && (permanent || !value.deleted)) {
                    return Err(Refusal::referenced(&name, *version));
                }
            }
            versions
        };
        if !permanent {
            let version = versions.last().copied().unwrap_or(0);
            self.write(Record::DeleteSubject { subject, version }).await?;
            return Ok(versions);
        }
        self.keep_ids().await?;
        // From the last one on: a version may refer to an earlier one of its own subject.
        for version in versions.iter().rev() {
            self.write(Record::SchemaGone { subject: subject.clone(), version: *version }).await?;
        }
        self.forget_settings(subject).await?;
        self.0.parsed.lock().clear();
        Ok(versions)
    }

    /// Soft-deletes one version, or removes it for good.
    ///
    /// # Errors
    /// As [`Self::delete_subject`].
    pub async fn delete_version(&self, subject: Subject, version: u32, permanent: bool) -> Result<u32, Refusal> {
        let subject = self.meant(subject);
        let _turn = self.0.turn.lock().await;
        let value = {
            let state = self.0.state.read();
            let name = subject.to_string();
            let value = state.version(&subject, version).ok_or_else(|| Refusal::no_version(version))?;
            match (permanent, value.deleted) {
                (false, true) => return Err(Refusal::version_soft_deleted(&name, version)),
                (true, false) => return Err(Refusal::version_not_soft_deleted(&name, version)),
                _ => {}
            }
            may_write(&subject, state.effective_mode(&subject))?;
            if state.referrers(&subject, version).iter().any(|value| permanent || !value.deleted) {
                return Err(Refusal::referenced(&name, version));
            }
            value
        };
        if permanent {
            self.keep_ids().await?;
            self.write(Record::SchemaGone { subject: subject.clone(), version }).await?;
            let is_last = self.0.state.read().versions(&subject).next().is_none();
            if is_last {
                self.forget_settings(subject).await?;
            }
            self.0.parsed.lock().clear();
        } else {
            self.write(Record::Schema(Box::new(SchemaValue { deleted: true, ..(*value).clone() }))).await?;
        }
        Ok(version)
    }

    /// A subject without any version has neither mode nor configuration.
    async fn forget_settings(&self, subject: Subject) -> Result<(), Refusal> {
        let (mode, config) = {
            let state = self.0.state.read();
            (state.mode(Some(&subject)).is_some(), state.config(Some(&subject)).is_some())
        };
        if mode {
            self.write(Record::Mode { subject: Some(subject.clone()), mode: None }).await?;
        }
        if config {
            self.write(Record::Config { subject: Some(subject), config: None }).await?;
        }
        Ok(())
    }

    /// Removes for good what was soft-deleted of the subjects that a mode is for: what is imported may have their versions.
    pub(super) async fn purge(&self, scope: Option<&Subject>) -> Result<(), Refusal> {
        let (gone, subjects) = {
            let state = self.0.state.read();
            let mut gone = Vec::new();
            for value in state.all().filter(|value| value.deleted && is_within(scope, &value.subject)) {
                if !state.referrers(&value.subject, value.version).is_empty() {
                    return Err(Refusal::referenced(&value.subject.to_string(), value.version));
                }
                gone.push((value.subject.clone(), value.version));
            }
            let subjects: BTreeSet<Subject> = gone.iter().map(|(subject, _)| subject.clone()).collect();
            (gone, subjects)
        };
        if gone.is_empty() {
            return Ok(());
        }
        self.keep_ids().await?;
        for (subject, version) in gone {
            self.write(Record::SchemaGone { subject, version }).await?;
        }
        for subject in subjects {
            self.write(Record::ClearSubject { subject }).await?;
        }
        self.0.parsed.lock().clear();
        Ok(())
    }

    /// Before what tells which ids were handed out is compacted away, the claim tells it.
    async fn keep_ids(&self) -> Result<(), Refusal> {
        self.write(Record::Noop).await
    }
}
