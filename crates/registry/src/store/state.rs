//! What a registry holds, built record by record from `_schemas`.
//!
//! The log feeds it in the order of offsets, and nothing else writes to it; so two registries that have read the same records
//! hold the same. Each record of Cairn's names the instance that wrote it. An instance claims the topic when it starts, with a
//! number above every earlier claim; from there on a record of any earlier instance is void: it changes nothing, whoever reads
//! it. That is how two registries on one topic cannot hand out one id twice.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::records::{Key, Record, SchemaValue};
use crate::{
    DEFAULT_CONTEXT, Subject,
    digest::Digest,
    model::{Config, Content, Level, Mode, Policy},
};

/// Who wrote a record, where it says so.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Origin {
    /// The instance; none where the writer is not Cairn.
    pub(crate) instance: Option<String>,
    /// In a claim: its number.
    pub(crate) claim: Option<u64>,
    /// In a claim: the highest id that was handed out in each context.
    pub(crate) ids: BTreeMap<String, u32>,
    /// When the record was written, in milliseconds since 1970.
    pub(crate) written_ms: Option<i64>,
}

/// What a record did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Applied {
    /// It counts.
    Effective,
    /// It is void: an instance wrote it that no longer owned the topic.
    Void,
}

/// A schema under an id.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) digest: Digest,
    pub(crate) content: Arc<Content>,
    /// The versions that have this id.
    pub(crate) versions: BTreeSet<(Subject, u32)>,
}

/// Schemas that are gone and whose ids are remembered, in each context; past that all are forgotten.
const GONE_MAX: usize = 10_000;

#[derive(Default, Debug)]
struct Ids {
    held: BTreeMap<u32, Held>,
    by_digest: HashMap<Digest, u32>,
    /// The ids of schemas that are gone: one that comes back gets its own again, as with other registries.
    gone: HashMap<Digest, u32>,
    highest: u32,
    declared: bool,
}

/// Everything that is registered.
#[derive(Default, Debug)]
pub(crate) struct State {
    contexts: BTreeMap<String, Ids>,
    subjects: BTreeMap<Subject, BTreeMap<u32, Arc<SchemaValue>>>,
    configs: BTreeMap<Option<Subject>, Config>,
    modes: BTreeMap<Option<Subject>, Mode>,
    guids: HashMap<Digest, BTreeSet<(String, u32)>>,
    schemas: usize,
    owner: Option<String>,
    claim: u64,
    /// The offset of a record that something else than Cairn wrote after the last claim.
    intruder: Option<u64>,
}

impl State {
    /// Takes in the record at that offset.
    pub(crate) fn apply(&mut self, offset: u64, origin: &Origin, record: Record) -> Applied {
        match (&origin.instance, origin.claim) {
            (Some(instance), Some(claim)) => {
                let same = self.owner.as_ref() == Some(instance) && claim == self.claim;
                if claim <= self.claim && !same {
                    return Applied::Void;
                }
                if !same {
                    self.intruder = None;
                }
                self.owner = Some(instance.clone());
                self.claim = claim;
                for (context, highest) in &origin.ids {
                    let ids = self.contexts.entry(context.clone()).or_default();
                    ids.highest = ids.highest.max(*highest);
                }
            }
            // Before any claim that is still kept, whatever an instance wrote was right when it was written, or was repaired.
            (Some(instance), None) if self.owner.as_ref().is_some_and(|owner| owner != instance) => {
                return Applied::Void;
            }
            (Some(_), None) => {}
            (None, _) if self.owner.is_some() => self.intruder = self.intruder.or(Some(offset)),
            (None, _) => {}
        }
        match record {
            Record::Schema(value) => self.put(SchemaValue { written_ms: origin.written_ms, ..*value }),
            Record::SchemaGone { subject, version } => self.remove(&subject, version),
            Record::DeleteSubject { subject, version } => self.soft_delete(&subject, version),
            Record::ClearSubject { subject } => {
                let gone: Vec<u32> = self.versions(&subject).filter(|value| value.deleted).map(|v| v.version).collect();
                gone.into_iter().for_each(|version| self.remove(&subject, version));
            }
            Record::Config { subject, config: Some(config) } => drop(self.configs.insert(subject, *config)),
            Record::Config { subject, config: None } => drop(self.configs.remove(&subject)),
            Record::Mode { subject, mode: Some(mode) } => drop(self.modes.insert(subject, mode)),
            Record::Mode { subject, mode: None } => drop(self.modes.remove(&subject)),
            Record::Context { context, present } => self.contexts.entry(context).or_default().declared = present,
            Record::Noop => {}
        }
        Applied::Effective
    }

    fn put(&mut self, value: SchemaValue) {
        self.remove(&value.subject, value.version);
        let context = value.subject.context().to_owned();
        let ids = self.contexts.entry(context.clone()).or_default();
        ids.highest = ids.highest.max(value.id);
        let content = Arc::new(value.content.clone());
        let held = ids.held.entry(value.id).or_insert_with(|| Held {
            digest: value.digest,
            content: content.clone(),
            versions: BTreeSet::new(),
        });
        if held.digest != value.digest {
            tracing::warn!(id = value.id, subject = %value.subject, "one id stands for two schemas in _schemas; the later one counts");
            held.digest = value.digest;
            held.content = content;
        }
        held.versions.insert((value.subject.clone(), value.version));
        ids.by_digest.entry(value.digest).or_insert(value.id);
        ids.gone.remove(&value.digest);
        self.guids.entry(value.digest).or_default().insert((context, value.id));
        self.schemas += 1;
        self.subjects.entry(value.subject.clone()).or_default().insert(value.version, Arc::new(value));
    }

    fn remove(&mut self, subject: &Subject, version: u32) {
        let Some(versions) = self.subjects.get_mut(subject) else { return };
        let Some(value) = versions.remove(&version) else { return };
        if versions.is_empty() {
            self.subjects.remove(subject);
        }
        self.schemas -= 1;
        let Some(ids) = self.contexts.get_mut(subject.context()) else { return };
        let Some(held) = ids.held.get_mut(&value.id) else { return };
        held.versions.remove(&(subject.clone(), version));
        if held.versions.is_empty() {
            ids.held.remove(&value.id);
            if ids.by_digest.get(&value.digest) == Some(&value.id) {
                ids.by_digest.remove(&value.digest);
                if ids.gone.len() >= GONE_MAX {
                    ids.gone.clear();
                }
                ids.gone.insert(value.digest, value.id);
            }
            if let Some(places) = self.guids.get_mut(&value.digest) {
                places.remove(&(subject.context().to_owned(), value.id));
                if places.is_empty() {
                    self.guids.remove(&value.digest);
                }
            }
        }
    }

    fn soft_delete(&mut self, subject: &Subject, until: u32) {
        let Some(versions) = self.subjects.get_mut(subject) else { return };
        for value in versions.range_mut(..=until).map(|(_, value)| value) {
            Arc::make_mut(value).deleted = true;
        }
    }

    /// Whether that instance owns the topic.
    pub(crate) fn is_owner(&self, instance: &str) -> bool {
        self.owner.as_deref() == Some(instance)
    }

    /// The number of the last claim.
    pub(crate) fn claim(&self) -> u64 {
        self.claim
    }

    /// The first record after the last claim that something else than Cairn wrote.
    pub(crate) fn intruder(&self) -> Option<u64> {
        self.intruder
    }

    /// The highest id that was handed out in each context.
    pub(crate) fn highest_ids(&self) -> BTreeMap<String, u32> {
        let handed = self.contexts.iter().filter(|(_, ids)| ids.highest > 0);
        handed.map(|(context, ids)| (context.clone(), ids.highest)).collect()
    }

    /// What the record of a key must say for others to see what this state holds.
    pub(crate) fn record_of(&self, key: &Key) -> Record {
        match key {
            Key::Schema { subject, version } => match self.version(subject, *version) {
                Some(value) => Record::Schema(Box::new((*value).clone())),
                None => Record::SchemaGone { subject: subject.clone(), version: *version },
            },
            // Versions above zero are none: nothing is deleted by it.
            Key::DeleteSubject { subject } => {
                let deleted =
                    self.versions(subject).take_while(|value| value.deleted).map(|value| value.version).last();
                Record::DeleteSubject { subject: subject.clone(), version: deleted.unwrap_or(0) }
            }
            Key::ClearSubject { subject } => Record::ClearSubject { subject: subject.clone() },
            Key::Config { subject } => {
                Record::Config { subject: subject.clone(), config: self.configs.get(subject).cloned().map(Box::new) }
            }
            Key::Mode { subject } => Record::Mode { subject: subject.clone(), mode: self.modes.get(subject).copied() },
            Key::Context { context } => Record::Context {
                context: context.clone(),
                present: self.contexts.get(context).is_some_and(|ids| ids.declared),
            },
            Key::Noop => Record::Noop,
        }
    }

    /// How many versions there are, soft-deleted ones counted.
    pub(crate) fn schemas(&self) -> usize {
        self.schemas
    }

    /// The contexts.
    pub(crate) fn contexts(&self) -> impl Iterator<Item = &str> {
        let used = self.contexts.iter().filter(|(_, ids)| ids.declared || !ids.held.is_empty());
        let others = used.map(|(context, _)| context.as_str()).filter(|context| *context != DEFAULT_CONTEXT);
        std::iter::once(DEFAULT_CONTEXT).chain(others)
    }

    /// Whether a context was named by a schema or a record of its own.
    pub(crate) fn has_context(&self, context: &str) -> bool {
        context == DEFAULT_CONTEXT || self.contexts.get(context).is_some_and(|ids| ids.declared || !ids.held.is_empty())
    }

    /// The subjects, each with whether some version of it is there.
    pub(crate) fn subjects(&self) -> impl Iterator<Item = (&Subject, bool)> {
        self.subjects.iter().map(|(subject, versions)| (subject, versions.values().any(|value| !value.deleted)))
    }

    /// A subject's versions in order, soft-deleted ones too.
    pub(crate) fn versions(&self, subject: &Subject) -> impl DoubleEndedIterator<Item = &Arc<SchemaValue>> + use<'_> {
        self.subjects.get(subject).into_iter().flat_map(BTreeMap::values)
    }

    /// One version, soft-deleted or not.
    pub(crate) fn version(&self, subject: &Subject, version: u32) -> Option<Arc<SchemaValue>> {
        self.subjects.get(subject)?.get(&version).cloned()
    }

    /// The latest version that is not deleted.
    pub(crate) fn latest(&self, subject: &Subject) -> Option<Arc<SchemaValue>> {
        self.versions(subject).rev().find(|value| !value.deleted).cloned()
    }

    /// Every version of every subject.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<SchemaValue>> {
        self.subjects.values().flat_map(BTreeMap::values)
    }

    /// What an id stands for in a context.
    pub(crate) fn held(&self, context: &str, id: u32) -> Option<&Held> {
        self.contexts.get(context)?.held.get(&id)
    }

    /// The id of a digest in a context; of one that is gone too, unless its id was brought for another since.
    pub(crate) fn id_of(&self, context: &str, digest: Digest) -> Option<u32> {
        let ids = self.contexts.get(context)?;
        let gone = || ids.gone.get(&digest).filter(|id| !ids.held.contains_key(id));
        ids.by_digest.get(&digest).or_else(gone).copied()
    }

    /// A subject of the default context, in each of the others.
    pub(crate) fn elsewhere(&self, subject: &Subject) -> Vec<Subject> {
        let others = self.contexts().filter(|context| subject.is_default() && *context != DEFAULT_CONTEXT);
        others.map(|context| subject.within(context)).collect()
    }

    /// An id that was never handed out in a context; none once they are used up.
    pub(crate) fn next_id(&self, context: &str) -> Option<u32> {
        let highest = self.contexts.get(context).map_or(0, |ids| ids.highest);
        Some(highest + 1).filter(|id| i32::try_from(*id).is_ok())
    }

    /// The contexts and ids of a digest.
    pub(crate) fn places_of(&self, digest: Digest) -> impl Iterator<Item = &(String, u32)> {
        self.guids.get(&digest).into_iter().flatten()
    }

    /// The versions that refer to that one.
    pub(crate) fn referrers(&self, subject: &Subject, version: u32) -> Vec<&Arc<SchemaValue>> {
        let refers = |value: &&Arc<SchemaValue>| {
            value.content.references.iter().any(|reference| {
                u32::try_from(reference.version) == Ok(version)
                    && super::referenced(&value.subject, reference) == *subject
            })
        };
        self.all().filter(refers).collect()
    }

    /// The configuration that was set exactly there.
    pub(crate) fn config(&self, subject: Option<&Subject>) -> Option<&Config> {
        self.configs.get(&subject.cloned())
    }

    /// The mode that was set exactly there.
    pub(crate) fn mode(&self, subject: Option<&Subject>) -> Option<Mode> {
        self.modes.get(&subject.cloned()).copied()
    }

    /// The subjects and contexts that have a mode of their own.
    pub(crate) fn modes(&self) -> impl Iterator<Item = &Subject> {
        self.modes.keys().flatten()
    }

    /// From the narrowest to the widest: the subject, its context, everything.
    fn scopes(subject: &Subject) -> impl Iterator<Item = Option<Subject>> {
        let own = (!subject.name().is_empty()).then(|| subject.clone());
        let context = (!subject.is_default()).then(|| Subject::context_only(subject.context()));
        own.into_iter().chain(context).map(Some).chain(std::iter::once(None))
    }

    /// What counts for a subject: each member from the narrowest scope that names it.
    pub(crate) fn effective(&self, subject: &Subject) -> Config {
        let mut effective = Config::default();
        for config in Self::scopes(subject).filter_map(|scope| self.configs.get(&scope)) {
            fill(&mut effective, config);
        }
        effective.compatibility_level.get_or_insert(Level::default());
        effective.compatibility_policy.get_or_insert(Policy::default());
        effective
    }

    /// The mode that counts for a subject.
    pub(crate) fn effective_mode(&self, subject: &Subject) -> Mode {
        if self.mode(None) == Some(Mode::ReadonlyOverride) {
            return Mode::ReadonlyOverride;
        }
        Self::scopes(subject).find_map(|scope| self.modes.get(&scope).copied()).unwrap_or_default()
    }
}

/// Takes what is absent from the wider configuration.
fn fill(narrow: &mut Config, wide: &Config) {
    macro_rules! take {
        ($($member:ident),+) => { $(if narrow.$member.is_none() { narrow.$member.clone_from(&wide.$member); })+ };
    }
    take!(normalize, validate_fields, validate_new_schemas, validate_rules, compatibility_level, compatibility_policy);
    take!(compatibility_group, default_metadata, override_metadata, default_rule_set, override_rule_set);
    take!(alias, alias_for_deks);
}
