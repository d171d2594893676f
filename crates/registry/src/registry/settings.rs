//! Configurations, modes and contexts.
//!
//! A part of [`Registry`]. What is set on a context or on everything counts wherever nothing narrower does.

use super::{Registry, may_write};
use crate::{
    DEFAULT_CONTEXT, Refusal, Subject,
    model::{Config, Mode},
    store::records::Record,
};

/// Whether what is set on a scope counts for a subject.
pub(super) fn is_within(scope: Option<&Subject>, subject: &Subject) -> bool {
    match scope {
        None => true,
        Some(scope) if scope.name().is_empty() => subject.context() == scope.context(),
        Some(scope) => subject == scope,
    }
}

impl Registry {
    /// Sets, changes or removes a configuration; gives the one before.
    ///
    /// # Errors
    /// A subject that may not be written, or a registry that cannot write.
    pub async fn configure(&self, subject: Option<Subject>, config: Option<Config>) -> Result<Option<Config>, Refusal> {
        let _turn = self.0.turn.lock().await;
        let (mode, before) = {
            let state = self.0.state.read();
            let everything = Subject::context_only(DEFAULT_CONTEXT);
            let mode = state.effective_mode(subject.as_ref().unwrap_or(&everything));
            (mode, state.config(subject.as_ref()).cloned())
        };
        may_write(subject.as_ref().unwrap_or(&Subject::context_only(DEFAULT_CONTEXT)), mode)?;
        for rules in config.iter().flat_map(|config| [&config.default_rule_set, &config.override_rule_set]).flatten() {
            rules.check()?;
        }
        self.write(Record::Config { subject, config: config.map(Box::new) }).await?;
        Ok(before)
    }

    /// Sets the configuration of a subject of Cairn's own, which others may not write.
    pub(crate) async fn set_config_of_contracts(&self, subject: Subject, config: Config) -> Result<(), Refusal> {
        let _turn = self.0.turn.lock().await;
        self.write(Record::Config { subject: Some(subject), config: Some(Box::new(config)) }).await
    }

    /// Sets or removes a mode; gives the one before.
    ///
    /// # Errors
    /// Import mode where there are schemas already, unless `force`; a registry that cannot write.
    pub async fn set_mode(
        &self,
        subject: Option<Subject>,
        mode: Option<Mode>,
        force: bool,
    ) -> Result<Option<Mode>, Refusal> {
        let _turn = self.0.turn.lock().await;
        let (before, enters) = {
            let state = self.0.state.read();
            let everything = Subject::context_only(DEFAULT_CONTEXT);
            let in_scope = state.effective_mode(subject.as_ref().unwrap_or(&everything));
            let enters = mode == Some(Mode::Import) && in_scope != Mode::Import && !force;
            let mut present = state.subjects().filter(|(held, present)| *present && is_within(subject.as_ref(), held));
            if enters && present.next().is_some() {
                return Err(Refusal::not_permitted("Cannot import since found existing subjects"));
            }
            (state.mode(subject.as_ref()), enters)
        };
        if enters {
            self.purge(subject.as_ref()).await?;
        }
        self.write(Record::Mode { subject, mode }).await?;
        Ok(before)
    }

    /// Forgets a context that holds nothing any more.
    ///
    /// # Errors
    /// There is none, or it is not empty.
    pub async fn delete_context(&self, context: &str) -> Result<(), Refusal> {
        let _turn = self.0.turn.lock().await;
        {
            let state = self.0.state.read();
            if !state.has_context(context) || context == DEFAULT_CONTEXT {
                return Err(Refusal::no_subject(&format!(":{context}:")));
            }
            if state.subjects().any(|(subject, _)| subject.context() == context) {
                return Err(Refusal::context_not_empty(context));
            }
        }
        self.write(Record::Context { context: context.to_owned(), present: false }).await
    }
}
