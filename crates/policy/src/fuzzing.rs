//! What the fuzz targets ask of policies: compiled from any bytes, and the slice held against the whole.
//!
//! Built for tests and for `cargo xtask fuzz` alone; nothing of it is in Cairn.

use cairn_clock::Timestamp;
use cedar_policy::Entities;

use crate::{Question, compile::Reading, files::SourceFile, set::ActiveSet};

const NOW: Timestamp = Timestamp::from_micros(1_795_521_600_123_456);

/// A set that was compiled.
#[derive(Debug)]
pub struct Set(ActiveSet);

/// Compiles files, each with its name; nothing where it is refused. `is_checked` holds them to the schema, as a gateway does.
#[must_use]
pub fn compile(files: &[(&str, &[u8])], is_checked: bool) -> Option<Set> {
    let file = |(name, bytes): &(&str, &[u8])| SourceFile {
        path: name.into(),
        name: (*name).to_owned(),
        bytes: bytes.to_vec(),
    };
    let files: Vec<_> = files.iter().map(file).collect();
    if is_checked {
        return ActiveSet::compile(&files).ok().map(Set);
    }
    let reading = Reading::unchecked(&files);
    reading.problems.is_empty().then(|| Set(ActiveSet::ruled_by(reading, Vec::new())))
}

impl Set {
    /// Its version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.0.version
    }

    /// Decides twice: by the slice, and by every policy and entity. Both must be the same text.
    #[must_use]
    pub fn decisions(&self, question: &Question) -> Option<(String, String)> {
        let rules = self.0.rules()?;
        let asked = self.0.ask(question, NOW);
        let whole = rules.decide_whole(&asked, &all(&self.0, question));
        let _ = self.0.nearest(&asked);
        Some((format!("{:?}", rules.decide(&asked)), format!("{whole:?}")))
    }
}

/// Every entity of the file, and those that the question names besides.
pub(crate) fn all(set: &ActiveSet, question: &Question) -> Entities {
    let asked = set.ask(question, NOW);
    let whole = set.rules().expect("policies").directory.entities().clone();
    // Which templates a resource is in depends on the question, so the file alone does not say.
    let is_resource = |uid: &cedar_policy::EntityUid| *uid.type_name() == *crate::names::RESOURCE;
    let entities = asked.known.entities.iter();
    let missing = entities.filter(|entity| whole.get(&entity.uid()).is_none() || is_resource(&entity.uid()));
    let missing: Vec<_> = missing.cloned().collect();
    whole.upsert_entities(missing, None).expect("entities that were read once")
}
