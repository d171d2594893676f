//! The registry: what is asked of it and what is registered in it, over the `_schemas` topic.
//!
//! Reading looks at the state and never waits. Writing is one at a time: it decides on the state, writes the records, and is
//! done once they were read back. Parsing and comparing run on threads that may be busy, so many at once, each within its
//! budget. The REST API, and `cairn up` for its own contracts, call this.

use std::{collections::HashMap, fmt, sync::Arc};

use cairn_clock::Entropy;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Mutex as Turn, Semaphore};

use crate::{
    Refusal, Subject,
    budget::Budget,
    digest::Digest,
    format::{Parsed, Resolved, parse_content},
    model::{Config, Content, Level, Mode, Policy, SchemaType},
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

    /// The references of a schema with theirs before them, and the versions that "latest" stood for filled in.
    fn resolve(&self, subject: &Subject, content: &mut Content) -> Result<Vec<Resolved>, Refusal> {
        let state = self.0.state.read();
        for reference in &mut content.references {
            let named = referenced(subject, reference);
            let found = match reference.version {
                -1 => state.latest(&named),
                version => u32::try_from(version).ok().and_then(|version| state.version(&named, version)),
            };
            let Some(found) = found else {
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
        let references = self.resolve(&version.subject, &mut content)?;
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
    fn prepare(&self, subject: &Subject, offer: &Offer) -> Result<Prepared, Refusal> {
        let mut content = offer.content.clone();
        if content.schema.len() > self.0.bounds.schema_bytes_max {
            return Err(Refusal::too_large(self.0.bounds.schema_bytes_max));
        }
        if let Some(rules) = &content.rule_set {
            rules.check()?;
        }
        let config = self.0.state.read().effective(subject);
        let references = self.resolve(subject, &mut content)?;
        let parsed = parse_content(&content, &references)?;
        let normalize = offer.normalize || config.normalize == Some(true);
        content.schema = if normalize { parsed.normal() } else { parsed.text() };
        let identity = if normalize { content.schema.clone() } else { parsed.identity() };
        if content.schema.len() > self.0.bounds.schema_bytes_max {
            return Err(Refusal::too_large(self.0.bounds.schema_bytes_max));
        }
        Ok(Prepared { content, identity, parsed, config })
    }

    /// The version of a subject that holds what was prepared: the same text, references, metadata and rules; where none of
    /// those last were sent, the latest with the same text and references.
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
            held.schema_type == offered.schema_type
                && held.references == offered.references
                && described
                && (held.schema == offered.schema
                    || self.parsed(version).is_ok_and(|parsed| parsed.identity() == prepared.identity))
        };
        versions.iter().find(alike).cloned()
    }

    /// Looks for a schema in a subject.
    ///
    /// # Errors
    /// No such subject, no such schema, or one that is none.
    pub async fn look_up(&self, subject: Subject, offer: Offer, deleted: bool) -> Result<Version, Refusal> {
        let subject = self.meant(subject);
        let present = self.0.state.read().versions(&subject).any(|value| deleted || !value.deleted);
        if !present {
            return Err(Refusal::no_subject(&subject.to_string()));
        }
        let found = self.busy(move |registry| {
            let prepared = registry.prepare(&subject, &offer)?;
            Ok(registry.same(&subject, &prepared, deleted))
        });
        let found: Result<Option<Version>, Refusal> = found.await;
        found?.ok_or_else(Refusal::no_schema)
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

    async fn register_under(&self, subject: Subject, offer: Offer, checks: bool) -> Result<Version, Refusal> {
        let subject = self.meant(subject);
        let _turn = self.0.turn.lock().await;
        let mode = self.0.state.read().effective_mode(&subject);
        if checks {
            may_write(&subject, mode)?;
        }
        let (given, asked) = (subject.clone(), offer.clone());
        let decided = self.busy(move |registry| {
            let mut prepared = registry.prepare(&given, &asked)?;
            prepared.inherit(registry.0.state.read().latest(&given).as_deref());
            if let Some(rules) = &prepared.content.rule_set {
                rules.check()?;
            }
            if let Some(found) = registry.same(&given, &prepared, false)
                && asked.id.is_none_or(|id| id == found.id)
                && asked.version.is_none_or(|version| version == found.version)
            {
                return Ok(Decided::There(found));
            }
            if (asked.id.is_some() || asked.version.is_some()) && mode != Mode::Import {
                return Err(Refusal::not_permitted(format_args!("Subject {given} is not in import mode")));
            }
            if checks && mode != Mode::Import {
                registry.must_fit(&given, &prepared)?;
            }
            Ok(Decided::New(Box::new(prepared)))
        });
        let prepared = match decided.await? {
            Decided::There(version) => return Ok(version),
            Decided::New(prepared) => prepared,
        };
        let value = self.place(&subject, prepared, &offer)?;
        let version = Version::from(&value);
        self.write(Record::Schema(Box::new(value))).await?;
        Ok(version)
    }

    /// Which id and version a new schema gets.
    fn place(&self, subject: &Subject, prepared: Box<Prepared>, offer: &Offer) -> Result<SchemaValue, Refusal> {
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
                        "Overwrite new schema with id {id} is not permitted."
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
        let holds_other = state.version(subject, version).is_some_and(|held| held.digest != digest && !held.deleted);
        if version == 0 || i32::try_from(version).is_err() || holds_other {
            return Err(Refusal::not_permitted(format_args!(
                "Version {version} is not one more than previous version {last}"
            )));
        }
        Ok(SchemaValue { subject: subject.clone(), version, id, digest, content: prepared.content, deleted: false })
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

    /// Whether a schema fits: with one version, or with those that the subject's level names. In words why not.
    ///
    /// # Errors
    /// No such version, or a schema that is none.
    pub async fn fits(&self, subject: Subject, against: Option<Version>, offer: Offer) -> Result<Vec<String>, Refusal> {
        let subject = self.meant(subject);
        self.busy(move |registry| {
            let mut prepared = registry.prepare(&subject, &offer)?;
            prepared.inherit(registry.0.state.read().latest(&subject).as_deref());
            match against {
                Some(version) => registry.misfits(&prepared, &[version], true),
                None => registry.misfits(&prepared, &registry.earlier(&subject, &prepared), false),
            }
        })
        .await
    }

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
            may_write(&subject, state.effective_mode(&subject))?;
            let name = subject.to_string();
            let value = state.version(&subject, version).ok_or_else(|| Refusal::no_version(version))?;
            match (permanent, value.deleted) {
                (false, true) => return Err(Refusal::version_soft_deleted(&name, version)),
                (true, false) => return Err(Refusal::version_not_soft_deleted(&name, version)),
                _ => {}
            }
            if state.referrers(&subject, version).iter().any(|value| permanent || !value.deleted) {
                return Err(Refusal::referenced(&name, version));
            }
            value
        };
        if permanent {
            self.keep_ids().await?;
            self.write(Record::SchemaGone { subject, version }).await?;
            self.0.parsed.lock().clear();
        } else {
            self.write(Record::Schema(Box::new(SchemaValue { deleted: true, ..(*value).clone() }))).await?;
        }
        Ok(version)
    }

    /// Before what tells which ids were handed out is compacted away, the claim tells it.
    async fn keep_ids(&self) -> Result<(), Refusal> {
        self.write(Record::Noop).await
    }

    /// Sets, changes or removes a configuration; gives the one before.
    ///
    /// # Errors
    /// A subject that may not be written, or a registry that cannot write.
    pub async fn configure(&self, subject: Option<Subject>, config: Option<Config>) -> Result<Option<Config>, Refusal> {
        let _turn = self.0.turn.lock().await;
        let (mode, before) = {
            let state = self.0.state.read();
            let everything = Subject::context_only(crate::DEFAULT_CONTEXT);
            let mode = state.effective_mode(subject.as_ref().unwrap_or(&everything));
            (mode, state.config(subject.as_ref()).cloned())
        };
        may_write(subject.as_ref().unwrap_or(&Subject::context_only(crate::DEFAULT_CONTEXT)), mode)?;
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
        let before = {
            let state = self.0.state.read();
            let within = |held: &Subject| match &subject {
                None => true,
                Some(subject) if subject.name().is_empty() => held.context() == subject.context(),
                Some(subject) => held == subject,
            };
            let before = state.mode(subject.as_ref());
            let enters = mode == Some(Mode::Import) && before != Some(Mode::Import);
            if enters && !force && state.subjects().any(|(held, present)| present && within(held)) {
                return Err(Refusal::not_permitted("Cannot import since found existing subjects"));
            }
            before
        };
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
            if !state.has_context(context) || context == crate::DEFAULT_CONTEXT {
                return Err(Refusal::no_subject(&format!(":{context}:")));
            }
            if state.subjects().any(|(subject, _)| subject.context() == context) {
                return Err(Refusal::context_not_empty(context));
            }
        }
        self.write(Record::Context { context: context.to_owned(), present: false }).await
    }
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
