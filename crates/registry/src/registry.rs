//! The registry: what is asked of it and what is registered in it, over the `_schemas` topic.
//!
//! Reading looks at the state and never waits. Writing is one at a time: it decides on the state, writes the records, and is
//! done once they were read back. Parsing and comparing run on threads that may be busy, so many at once, each within its
//! budget. The REST API, and `cairn up` for its own contracts, call this. [`deleting`] takes away, [`settings`] configures.

mod deleting;
mod settings;

use std::{collections::HashMap, fmt, sync::Arc};

use cairn_clock::Entropy;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Mutex as Turn, Semaphore};

use crate::{
    Refusal, Subject,
    budget::Budget,
    digest::Digest,
    format::{Form, Parsed, Resolved, parse_content},
    model::{Content, Level, Mode, Policy, SchemaType},
    prepared::Prepared,
    store::{
        records::{Key, Record, SchemaValue},
        referenced,
        state::State,
        topic::{OpenError, Topic, TopicOptions, WriteError},
    },
};

/// What a registry may hold, and what one request may bring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Bytes of a schema's text.
    pub schema_bytes_max: usize,
    /// Versions of all subjects together.
    pub schemas_max: usize,
    /// References of a schema, those of its references counted.
    pub references_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { schema_bytes_max: 400_000, schemas_max: 100_000, references_max: 1_000 }
    }
}

/// Parsed schemas that are kept for the next comparison.
const PARSED_MAX: usize = 512;
/// Schemas that are parsed or compared at once; more wait.
const BUSY_MAX: usize = 4;

/// What is asked to be registered or looked for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Offer {
    /// The schema, with the versions of references as they were sent.
    pub content: Content,
    /// The id that it must get; in import mode only.
    pub id: Option<u32>,
    /// The version that it must get; in import mode only.
    pub version: Option<u32>,
    /// Whether its normal form is registered.
    pub normalize: bool,
    /// Whether it is registered though it does not fit with those before it.
    pub force: bool,
}

/// A registered version, as it is answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Version {
    /// The subject.
    pub subject: Subject,
    /// The version.
    pub version: u32,
    /// The id in the subject's context.
    pub id: u32,
    /// The digest, which is the GUID.
    pub digest: Digest,
    /// The schema.
    pub content: Arc<Content>,
    /// Whether it was soft-deleted.
    pub deleted: bool,
    /// When its record was written, in milliseconds since 1970; none before it was read back.
    pub written_ms: Option<i64>,
}

impl From<&SchemaValue> for Version {
    fn from(value: &SchemaValue) -> Self {
        Self {
            subject: value.subject.clone(),
            version: value.version,
            id: value.id,
            digest: value.digest,
            content: Arc::new(value.content.clone()),
            deleted: value.deleted,
            written_ms: value.written_ms,
        }
    }
}

/// The registry; clones are the same one.
#[derive(Clone)]
pub struct Registry(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) state: Arc<RwLock<State>>,
    topic: Topic,
    /// Whose turn it is to write.
    turn: Turn<()>,
    parsed: Mutex<HashMap<Digest, Parsed>>,
    busy: Semaphore,
    pub(crate) bounds: Bounds,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("topic", &self.0.topic).finish_non_exhaustive()
    }
}

impl From<WriteError> for Refusal {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Kafka(_) | WriteError::Reader(_) => Self::store(error),
            WriteError::TooLarge { .. } => Self::too_large(crate::store::topic::RECORD_BYTES_MAX),
            WriteError::NotReadBack => Self::timed_out(error),
            WriteError::TakenOver | WriteError::Intruder(_) => Self::not_leader(error),
        }
    }
}

impl Registry {
    /// Reads the topic, which is created where it is missing, and takes it.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(options: TopicOptions, bounds: Bounds, entropy: Entropy) -> Result<Self, OpenError> {
        let state = Arc::new(RwLock::new(State::default()));
        let (topic, mut to_repair) = Topic::open(options, state.clone(), entropy).await?;
        let registry = Self(Arc::new(Inner {
            state,
            topic,
            turn: Turn::new(()),
            parsed: Mutex::default(),
            busy: Semaphore::new(BUSY_MAX),
            bounds,
        }));
        let weak = Arc::downgrade(&registry.0);
        tokio::spawn(async move {
            while let Some(key) = to_repair.recv().await {
                let Some(inner) = weak.upgrade() else { return };
                let registry = Self(inner);
                if let Err(error) = registry.put_right(&key).await {
                    tracing::warn!(?key, %error, "a void record of another registry is not put right");
                }
            }
        });
        Ok(registry)
    }

    /// Writes over a void record, so that registries which know nothing of claims read the same.
    async fn put_right(&self, key: &Key) -> Result<(), WriteError> {
        let _turn = self.0.turn.lock().await;
        let record = self.0.state.read().record_of(key);
        self.0.topic.write(&record).await
    }

    /// Whether this registry may write, as far as it knows.
    #[must_use]
    pub fn is_owner(&self) -> bool {
        self.0.topic.is_owner()
    }

    async fn write(&self, record: Record) -> Result<(), Refusal> {
        Ok(self.0.topic.write(&record).await?)
    }

    /// Runs what takes time where it hurts nobody.
    pub(crate) async fn busy<T: Send + 'static>(&self, work: impl FnOnce(&Self) -> T + Send + 'static) -> T {
        let _place = self.0.busy.acquire().await.expect("nobody closes this semaphore");
        let registry = self.clone();
        tokio::task::spawn_blocking(move || work(&registry)).await.expect("parsing and comparing do not panic")
    }

    /// A subject, where an alias stands for another one.
    #[must_use]
    pub fn meant(&self, subject: Subject) -> Subject {
        let state = self.0.state.read();
        match state.config(Some(&subject)).and_then(|config| config.alias.as_deref()) {
            Some(alias) if !alias.is_empty() => {
                let other = Subject::parse(alias);
                if alias.starts_with(":.") { other } else { other.within(subject.context()) }
            }
            _ => subject,
        }
    }

    /// The references of a schema with theirs before them, and the versions that "latest" stood for filled in. A new schema
    /// may not refer to what was soft-deleted.
    fn resolve(&self, subject: &Subject, content: &mut Content, is_new: bool) -> Result<Vec<Resolved>, Refusal> {
        let state = self.0.state.read();
        for reference in &mut content.references {
            let named = referenced(subject, reference);
            let found = match reference.version {
                -1 => state.latest(&named),
                version => u32::try_from(version).ok().and_then(|version| state.version(&named, version)),
            };
            let Some(found) = found.filter(|found| !is_new || !found.deleted) else {
                return Err(Refusal::invalid_schema(format_args!(
                    "Invalid schema: no schema reference found for subject \"{}\" and version {}",
                    reference.subject, reference.version
                )));
            };
            reference.version = i32::try_from(found.version).unwrap_or(i32::MAX);
        }
        let mut resolved = Vec::new();
        gather(&state, subject, content, &mut resolved, &mut Vec::new(), self.0.bounds.references_max)?;
        Ok(resolved)
    }

    /// A registered schema, parsed.
    pub(crate) fn parsed(&self, version: &Version) -> Result<Parsed, Refusal> {
        if let Some(parsed) = self.0.parsed.lock().get(&version.digest) {
            return Ok(parsed.clone());
        }
        let mut content = (*version.content).clone();
        let references = self.resolve(&version.subject, &mut content, false)?;
        let parsed = parse_content(&content, &references)?;
        let mut kept = self.0.parsed.lock();
        if kept.len() >= PARSED_MAX {
            kept.clear();
        }
        // References are by name within a context, so what one digest means is kept for schemas without any.
        if content.references.is_empty() {
            kept.insert(version.digest, parsed.clone());
        }
        Ok(parsed)
    }

    /// What was offered, with its references resolved, in the form that is kept.
    fn prepare(&self, subject: &Subject, offer: &Offer, purpose: Purpose) -> Result<Prepared, Refusal> {
        let mut content = offer.content.clone();
        if content.schema.trim().is_empty() {
            return Err(Refusal::invalid_schema("Empty schema"));
        }
        if content.schema.len() > self.0.bounds.schema_bytes_max {
            return Err(Refusal::too_large(self.0.bounds.schema_bytes_max));
        }
        if let Some(rules) = &content.rule_set {
            rules.check()?;
        }
        let config = self.0.state.read().effective(subject);
        let references = self.resolve(subject, &mut content, purpose == Purpose::Register)?;
        let parsed = parse_content(&content, &references)?;
        // What is imported is kept as it was where it comes from.
        let normalize = purpose != Purpose::Import && (offer.normalize || config.normalize == Some(true));
        if normalize {
            content.references.sort();
            content.references.dedup();
        }
        content.schema = if normalize { parsed.normal() } else { parsed.text() };
        let identity = if normalize { content.schema.clone() } else { parsed.identity() };
        if content.schema.len() > self.0.bounds.schema_bytes_max {
            return Err(Refusal::too_large(self.0.bounds.schema_bytes_max));
        }
        Ok(Prepared { content, identity, parsed, config })
    }

    /// The version of a subject that holds what was prepared: the same text, references, metadata and rules; where none of
    /// those last were sent, the latest with the same text and references. A text that holds what another refers to is the
    /// same too.
    fn same(&self, subject: &Subject, prepared: &Prepared, deleted: bool) -> Option<Version> {
        let versions: Vec<Version> = {
            let state = self.0.state.read();
            state
                .versions(subject)
                .rev()
                .filter(|value| deleted || !value.deleted)
                .map(|value| (&**value).into())
                .collect()
        };
        let offered = &prepared.content;
        let digest = prepared.digest();
        if let Some(exact) = versions.iter().find(|version| version.digest == digest) {
            return Some(exact.clone());
        }
        let alike = |version: &&Version| {
            let held = &version.content;
            let described = offered.metadata.is_none() && offered.rule_set.is_none()
                || (held.metadata == offered.metadata && held.rule_set == offered.rule_set);
            if held.schema_type != offered.schema_type || !described {
                return false;
            }
            if offered.references.is_empty() && !held.references.is_empty() {
                let whole = self.parsed(version).map(|parsed| parsed.formed(Form::Resolved, &Budget::default()));
                return whole.is_ok_and(|whole| whole.is_ok_and(|whole| whole.as_ref() == Some(&offered.schema)));
            }
            held.references == offered.references
                && (held.schema == offered.schema
                    || self.parsed(version).is_ok_and(|parsed| parsed.identity() == prepared.identity))
        };
        versions.iter().find(alike).cloned()
    }

    /// Looks for a schema in a subject; one that names no context is looked for in the others too.
    ///
    /// # Errors
    /// No such subject, no such schema, or one that is none.
    pub async fn look_up(&self, subject: Subject, offer: Offer, deleted: bool) -> Result<Version, Refusal> {
        let subject = self.meant(subject);
        let given = subject.clone();
        let found = self.busy(move |registry| {
            if offer.content.schema.trim().is_empty() {
                return Ok(None);
            }
            let prepared = registry.prepare(&given, &offer, Purpose::Compare)?;
            let found = registry.same(&given, &prepared, deleted);
            Ok(found.or_else(|| {
                let elsewhere = registry.0.state.read().elsewhere(&given);
                elsewhere.into_iter().find_map(|other| {
                    let prepared = registry.prepare(&other, &offer, Purpose::Compare).ok()?;
                    registry.same(&other, &prepared, deleted)
                })
            }))
        });
        let found: Result<Option<Version>, Refusal> = found.await;
        found?.ok_or_else(|| {
            let present = self.0.state.read().versions(&subject).any(|value| deleted || !value.deleted);
            if present { Refusal::no_schema() } else { Refusal::no_subject(&subject.to_string()) }
        })
    }

    /// Registers a schema, or finds the version that it has already.
    ///
    /// # Errors
    /// A schema that is none or not compatible, a subject that may not be written, a registry that is full or cannot write.
    pub async fn register(&self, subject: Subject, offer: Offer) -> Result<Version, Refusal> {
        self.register_under(subject, offer, true).await
    }

    /// Registers one of Cairn's own contracts, whatever mode the subject is in and whatever it was compared with: a contract
    /// was compared with those before it when it was built.
    pub(crate) async fn publish(&self, subject: Subject, offer: Offer) -> Result<Version, Refusal> {
        self.register_under(subject, offer, false).await
    }

    async fn register_under(&self, subject: Subject, mut offer: Offer, checks: bool) -> Result<Version, Refusal> {
        let subject = self.meant(subject);
        let _turn = self.0.turn.lock().await;
        let (mode, latest) = {
            let state = self.0.state.read();
            (state.effective_mode(&subject), state.latest(&subject))
        };
        if checks {
            may_register(&subject, mode, offer.id.is_some())?;
        }
        let imports = mode == Mode::Import;
        if let Some(latest) = latest.as_ref().filter(|_| !imports && offer.content.schema.trim().is_empty()) {
            // Only what is said about the schema changes.
            offer.content.schema.clone_from(&latest.content.schema);
            offer.content.schema_type = latest.content.schema_type;
            offer.content.references.clone_from(&latest.content.references);
        }
        let (given, asked) = (subject.clone(), offer.clone());
        let decided = self.busy(move |registry| {
            let purpose = if imports { Purpose::Import } else { Purpose::Register };
            let mut prepared = registry.prepare(&given, &asked, purpose)?;
            if !imports {
                prepared.inherit(latest.as_deref());
            }
            if let Some(rules) = &prepared.content.rule_set {
                rules.check()?;
            }
            if let Some(found) = registry.same(&given, &prepared, false)
                && asked.id.is_none_or(|id| id == found.id)
                && asked.version.is_none_or(|version| version == found.version)
            {
                return Ok(Decided::There(found));
            }
            if checks && !imports && !asked.force {
                registry.must_fit(&given, &prepared)?;
            }
            Ok(Decided::New(Box::new(prepared)))
        });
        let decided: Result<Decided, Refusal> = decided.await;
        let prepared = match decided? {
            Decided::There(version) => return Ok(version),
            Decided::New(prepared) => prepared,
        };
        let value = self.place(&subject, prepared, &offer, imports)?;
        let version = Version::from(&value);
        let replaced = self.replaced(&value);
        self.write(Record::Schema(Box::new(value))).await?;
        for old in replaced {
            self.write(Record::SchemaGone { subject: subject.clone(), version: old }).await?;
        }
        Ok(version)
    }

    /// The soft-deleted versions of a subject that a new one with their id stands for; those that somebody refers to stay.
    fn replaced(&self, value: &SchemaValue) -> Vec<u32> {
        let state = self.0.state.read();
        let old = state.versions(&value.subject).filter(|held| held.deleted && held.id == value.id);
        let old = old.map(|held| held.version).filter(|version| *version < value.version);
        old.filter(|version| state.referrers(&value.subject, *version).is_empty()).collect()
    }

    /// Which id and version a new schema gets.
    fn place(
        &self,
        subject: &Subject,
        prepared: Box<Prepared>,
        offer: &Offer,
        imports: bool,
    ) -> Result<SchemaValue, Refusal> {
        let state = self.0.state.read();
        if state.schemas() >= self.0.bounds.schemas_max {
            let most = self.0.bounds.schemas_max;
            return Err(Refusal::full(format_args!(
                "the registry holds {most} versions, its most: delete some permanently"
            )));
        }
        let digest = prepared.digest();
        let id = match (offer.id, state.id_of(subject.context(), digest)) {
            (Some(id), _) => match state.held(subject.context(), id) {
                Some(held) if held.digest != digest => {
                    return Err(Refusal::not_permitted(format_args!(
                        "Overwrite new schema with id {id} in context {} is not permitted.",
                        subject.context()
                    )));
                }
                _ => id,
            },
            (None, Some(id)) => id,
            (None, None) => state
                .next_id(subject.context())
                .ok_or_else(|| Refusal::full("every id of this context was handed out"))?,
        };
        let last = state.versions(subject).map(|value| value.version).max().unwrap_or(0);
        let version = offer.version.unwrap_or(last + 1);
        if !imports && version != last + 1 {
            return Err(Refusal::invalid_schema(format_args!(
                "Version is not one more than previous version: {version} was asked for, and the last is {last}"
            )));
        }
        let holds_other = state.version(subject, version).is_some_and(|held| held.digest != digest && !held.deleted);
        if version == 0 || i32::try_from(version).is_err() || holds_other {
            return Err(Refusal::not_permitted(format_args!("Overwrite of version {version} is not permitted.")));
        }
        let (subject, content) = (subject.clone(), prepared.content);
        Ok(SchemaValue { subject, version, id, digest, content, deleted: false, written_ms: None })
    }

    /// 409 where the subject's level is not kept.
    fn must_fit(&self, subject: &Subject, prepared: &Prepared) -> Result<(), Refusal> {
        let earlier = self.earlier(subject, prepared);
        let messages = self.misfits(prepared, &earlier, false)?;
        if messages.is_empty() { Ok(()) } else { Err(Refusal::incompatible(&subject.to_string(), messages.join(", "))) }
    }

    /// The versions that a new one is compared with, the latest first.
    fn earlier(&self, subject: &Subject, prepared: &Prepared) -> Vec<Version> {
        let group = prepared.config.compatibility_group.as_deref();
        let group_of = |content: &Content| {
            let properties = content.metadata.as_ref()?.properties.as_ref()?;
            properties.get(group?).cloned()
        };
        let own = group_of(&prepared.content);
        let state = self.0.state.read();
        let present = state.versions(subject).rev().filter(|value| !value.deleted);
        present.map(|value| Version::from(&**value)).filter(|version| group_of(&version.content) == own).collect()
    }

    /// In words, why a schema does not fit with those before it; the latest first.
    fn misfits(&self, prepared: &Prepared, earlier: &[Version], only_those: bool) -> Result<Vec<String>, Refusal> {
        let level = prepared.config.compatibility_level.unwrap_or_default();
        let policy = prepared.config.compatibility_policy.unwrap_or_default();
        if level == Level::None {
            return Ok(Vec::new());
        }
        let budget = Budget::default();
        let most = if level.is_transitive() || only_those { earlier.len() } else { 1 };
        for version in earlier.iter().take(most) {
            let old = self.parsed(version)?;
            let found = compare(level, policy, &prepared.parsed, &old, &budget)?;
            if !found.is_empty() {
                let mut messages = found;
                messages.push(format!("{{oldSchemaVersion: {}}}", version.version));
                messages.push(format!("{{oldSchema: '{}'}}", version.content.schema));
                messages.push(format!("{{compatibility: '{}'}}", level.name()));
                return Ok(messages);
            }
        }
        Ok(Vec::new())
    }

    /// Whether a schema fits: with these versions, or with those that the subject's level names. In words why not.
    ///
    /// # Errors
    /// A schema that is none.
    pub async fn fits(
        &self,
        subject: Subject,
        against: Option<Vec<Version>>,
        offer: Offer,
    ) -> Result<Vec<String>, Refusal> {
        let subject = self.meant(subject);
        self.busy(move |registry| {
            let mut prepared = registry.prepare(&subject, &offer, Purpose::Compare)?;
            prepared.inherit(registry.0.state.read().latest(&subject).as_deref());
            match against {
                Some(versions) => registry.misfits(&prepared, &versions, true),
                None => registry.misfits(&prepared, &registry.earlier(&subject, &prepared), false),
            }
        })
        .await
    }
}

/// What a schema is prepared for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Purpose {
    Register,
    Import,
    Compare,
}

/// What a registration comes to.
enum Decided {
    There(Version),
    New(Box<Prepared>),
}

fn may_write(subject: &Subject, mode: Mode) -> Result<(), Refusal> {
    if mode.is_read_only() {
        let context = subject.context();
        return Err(Refusal::not_permitted(format_args!(
            "Subject {subject} in context {context} is in read-only mode"
        )));
    }
    Ok(())
}

fn may_register(subject: &Subject, mode: Mode, has_id: bool) -> Result<(), Refusal> {
    may_write(subject, mode)?;
    let wanted = if has_id { (Mode::Import, "import") } else { (Mode::Readwrite, "read-write") };
    if mode == wanted.0 {
        return Ok(());
    }
    let (context, wanted) = (subject.context(), wanted.1);
    Err(Refusal::not_permitted(format_args!("Subject {subject} in context {context} is not in {wanted} mode")))
}

/// Both directions as the level wants them.
fn compare(level: Level, policy: Policy, new: &Parsed, old: &Parsed, budget: &Budget) -> Result<Vec<String>, Refusal> {
    let mut messages = Vec::new();
    let refused = |error| Refusal::invalid_schema(format_args!("{error}"));
    if level.is_backward() {
        let found = crate::format::differences(new, old, policy, budget).map_err(refused)?;
        messages.extend(found.iter().map(|one| format!("{one} (the new schema as reader)")));
    }
    if level.is_forward() {
        let found = crate::format::differences(old, new, policy, budget).map_err(refused)?;
        messages.extend(found.iter().map(|one| format!("{one} (the old schema as reader)")));
    }
    Ok(messages)
}

fn gather(
    state: &State,
    by: &Subject,
    content: &Content,
    resolved: &mut Vec<Resolved>,
    above: &mut Vec<(Subject, i32)>,
    most: usize,
) -> Result<(), Refusal> {
    for reference in &content.references {
        let named = (referenced(by, reference), reference.version);
        if above.contains(&named) || resolved.iter().any(|known| known.name == reference.name) {
            continue;
        }
        let version = u32::try_from(named.1).ok().and_then(|version| state.version(&named.0, version));
        let Some(value) = version else {
            return Err(Refusal::invalid_schema(format_args!(
                "Invalid schema: no schema reference found for subject \"{}\" and version {}",
                reference.subject, reference.version
            )));
        };
        above.push(named.clone());
        gather(state, &named.0, &value.content, resolved, above, most)?;
        above.pop();
        if resolved.len() >= most {
            return Err(Refusal::invalid_schema(format_args!("Invalid schema: it stands on more than {most} others")));
        }
        let (text, kind): (String, SchemaType) = (value.content.schema.clone(), value.content.schema_type);
        resolved.push(Resolved { name: reference.name.clone(), text, kind });
    }
    Ok(())
}
