//! A compiled policy set: what decides, its version, and what is kept of its questions.
//!
//! The store holds one at a time and replaces it whole. The version is SHA-256 over the canonical JSON of every policy,
//! the entities, the schema and the engine's version, so that comments and layout do not change it, and everything that can change a
//! decision does.

use std::sync::Arc;

use cairn_clock::Timestamp;
use cairn_contract::{PolicyFile, canonical_value, sha256_text};
use cedar_policy::PolicySet;

use crate::{
    Nearest, Obligation, PolicyError, Question,
    annotations::Demands,
    compile::Reading,
    directory::Directory,
    files::SourceFile,
    question::{Asked, Known, Named},
    rules::Rules,
    subjects::Subjects,
};

/// The version without policy files: everything is permitted and recorded.
pub const OBSERVE: &str = "observe";

/// A policy set that decides.
#[derive(Debug)]
pub(crate) struct ActiveSet {
    pub(crate) version: Arc<str>,
    pub(crate) files: Vec<PolicyFile>,
    /// `None` where Cairn observes.
    rules: Option<Rules>,
    /// Goes with the set, so that nothing of an older one is ever used.
    subjects: Subjects,
}

/// What a set says of one request.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Said {
    pub(crate) permit: bool,
    pub(crate) determining: Vec<String>,
    pub(crate) obligations: Vec<Obligation>,
    /// What each of the policies demands, of those that demand something.
    pub(crate) demands: Vec<(String, Demands)>,
    pub(crate) errors: Vec<String>,
}

impl ActiveSet {
    /// The set of no policies at all.
    pub(crate) fn observe() -> Self {
        Self { version: Arc::from(OBSERVE), files: Vec::new(), rules: None, subjects: Subjects::default() }
    }

    /// Compiles files; no policies at all make the set that observes.
    pub(crate) fn compile(files: &[SourceFile]) -> Result<Self, PolicyError> {
        let digests: Vec<PolicyFile> = files.iter().map(SourceFile::digest).collect();
        let reading = Reading::of(files);
        if !reading.problems.is_empty() {
            return Err(PolicyError::Invalid { problems: reading.problems, files: digests });
        }
        if !files.iter().any(SourceFile::is_policies) {
            return Ok(Self { files: digests, ..Self::observe() });
        }
        Ok(Self::ruled_by(reading, digests))
    }

    pub(crate) fn ruled_by(reading: Reading, files: Vec<PolicyFile>) -> Self {
        let engine =
            format!("cedar-policy {} language {}", cedar_policy::get_sdk_version(), cedar_policy::get_lang_version());
        let (rules, mut counts) = reading.finish();
        counts["engine"] = engine.into();
        let version = Arc::from(sha256_text(canonical_value(&counts).as_bytes()));
        Self { version, files, rules: Some(rules), subjects: Subjects::default() }
    }

    /// A set that nobody held to the schema: evaluation must be right for such too.
    #[cfg(test)]
    pub(crate) fn unchecked(files: &[SourceFile]) -> Self {
        let reading = Reading::unchecked(files);
        assert!(reading.problems.is_empty(), "{:?}", reading.problems);
        Self::ruled_by(reading, Vec::new())
    }

    pub(crate) const fn is_observing(&self) -> bool {
        self.rules.is_none()
    }

    /// The question as Cedar takes it.
    pub(crate) fn ask(&self, question: &Question, now: Timestamp) -> Asked {
        question.ask(&self.subjects, now, |named| match &self.rules {
            Some(rules) => rules.known(&self.subjects, named),
            None => unruled(named),
        })
    }

    /// What a question depends on besides its context, kept under `key`.
    pub(crate) fn known(&self, key: &str, named: Named) -> Arc<Known> {
        self.subjects.of(key, || match &self.rules {
            Some(rules) => rules.known(&self.subjects, named),
            None => unruled(named),
        })
    }

    /// Decides. Where Cairn observes, everything is permitted and nothing demanded.
    pub(crate) fn decide(&self, asked: &Asked) -> Said {
        match &self.rules {
            None => Said {
                permit: true,
                determining: Vec::new(),
                obligations: Vec::new(),
                demands: Vec::new(),
                errors: Vec::new(),
            },
            Some(rules) => rules.decide(asked),
        }
    }

    /// The permit that came nearest to a question that nothing permits and nothing forbids.
    pub(crate) fn nearest(&self, asked: &Asked) -> Option<Nearest> {
        self.rules.as_ref().and_then(|rules| rules.nearest(asked))
    }

    #[cfg(test)]
    pub(crate) const fn subjects(&self) -> &Subjects {
        &self.subjects
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) const fn rules(&self) -> Option<&Rules> {
        self.rules.as_ref()
    }
}

/// What is asked where no policies are.
fn unruled(named: Named) -> Known {
    let entities = Directory::default().reach(&named.roots(), []);
    Known::new(named, &entities, Arc::new(PolicySet::new()))
}
