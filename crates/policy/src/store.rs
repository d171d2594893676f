//! Where the policy set in force lives, and how it is replaced.
//!
//! The gateway opens one at start, asks it for each call, and from time to time asks whether the files
//! [changed](PolicyStore::changed). A replacement is whole or not at all: a decision sees one set from beginning to end,
//! and a set that does not compile changes nothing (I9).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_clock::Clock;
use cairn_contract::{
    Body, PolicyActivated, PolicyCause, PolicyFile, PolicyLoaded, PolicyShadowed, ShadowState, sha256_text,
};
use parking_lot::{Mutex, RwLock};

use crate::{
    Permit, PolicyDemand, PolicyError, Question, Ruling, Verdict,
    files::{SourceFile, read_folder},
    journal::{Journal, PREVIOUS_FOLDER, Texts, previous, texts},
    set::ActiveSet,
    shadow::SHADOW_FOLDER,
};

/// The policy set in force. Cheap to clone; all clones see the same set.
#[derive(Clone, Debug)]
pub struct PolicyStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: Option<Folder>,
    clock: Clock,
    active: RwLock<Arc<ActiveSet>>,
    /// What is tried beside it.
    shadow: RwLock<Option<Arc<ActiveSet>>>,
    /// What was last read, good or bad: only a difference to it is a change. Held over a whole reload, so that two
    /// cannot overtake each other.
    seen: Mutex<Vec<PolicyFile>>,
    /// What the last look found: a file that is still being written looks different each time.
    looked: Mutex<Vec<PolicyFile>>,
}

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    may_be_missing: bool,
}

/// What a folder says now.
#[derive(Debug, Default)]
struct Sources {
    live: Vec<SourceFile>,
    /// The shadow's policies, with the live entities and actions; empty where there is no shadow.
    shadow: Vec<SourceFile>,
}

impl Folder {
    fn read(&self) -> Result<Sources, PolicyError> {
        let mut live = match read_folder(&self.path) {
            Err(PolicyError::Read { path, source })
                if self.may_be_missing && path == self.path && source.kind() == std::io::ErrorKind::NotFound =>
            {
                return Ok(Sources::default());
            }
            other => other?,
        };
        let place = self.path.join(SHADOW_FOLDER);
        let mut shadow = if place.is_dir() { read_folder(&place)? } else { Vec::new() };
        // While a replacement is under way, the files may be of the old and the new.
        if let Some(journal) = Journal::read(&self.path)? {
            live.retain(|file| !file.is_policies());
            live.extend(Journal::files(&journal.live, &self.path));
            shadow = Journal::files(&journal.shadow, &place);
        }
        shadow.retain(SourceFile::is_policies);
        if !shadow.is_empty() {
            shadow.extend(live.iter().filter(|file| !file.is_policies()).cloned());
        }
        Ok(Sources { live, shadow })
    }
}

/// What a reload did.
#[derive(Clone, PartialEq, Debug)]
#[allow(clippy::large_enum_variant, reason = "one is made for each reload and consumed at once")]
pub enum Change {
    /// The files say what they said before.
    Unchanged,
    /// Another set is in force.
    Activated {
        /// The set was read and compiles.
        loaded: PolicyLoaded,
        /// Decisions from here on are made by it.
        activated: PolicyActivated,
    },
}

impl Change {
    /// The events to record, in order.
    #[must_use]
    pub fn into_events(self) -> Vec<Body> {
        match self {
            Self::Unchanged => Vec::new(),
            Self::Activated { loaded, activated } => vec![loaded.into(), activated.into()],
        }
    }
}

impl PolicyStore {
    /// Opens the policies in `folder`, which must exist; without a folder, or without `*.cedar` files in it, Cairn
    /// observes.
    ///
    /// # Errors
    /// The folder or a file cannot be read, or the set does not compile: a first set has no last good one to fall back on.
    pub fn open(folder: Option<PathBuf>) -> Result<Self, PolicyError> {
        Self::open_with(folder.map(|path| Folder { path, may_be_missing: false }), Clock::system())
    }

    /// Opens the policies in `folder` if there is such a folder, now or later.
    ///
    /// # Errors
    /// As [`PolicyStore::open`], but a missing folder is none.
    pub fn open_if_present(folder: PathBuf) -> Result<Self, PolicyError> {
        Self::open_with(Some(Folder { path: folder, may_be_missing: true }), Clock::system())
    }

    fn open_with(folder: Option<Folder>, clock: Clock) -> Result<Self, PolicyError> {
        if let Some(folder) = &folder
            && let Some(begun) = Journal::read(&folder.path)?
        {
            begun.apply(&folder.path)?;
        }
        let sources = folder.as_ref().map_or_else(|| Ok(Sources::default()), Folder::read)?;
        let seen = fingerprint(&sources);
        let looked = Mutex::new(seen.clone());
        let active = RwLock::new(Arc::new(ActiveSet::compile(&sources.live)?));
        // A shadow that does not compile must not keep the gateway from starting; the next look reports it.
        let shadow = RwLock::new(compiled_shadow(&sources).unwrap_or_default());
        Ok(Self(Arc::new(Inner { folder, clock, active, shadow, seen: Mutex::new(seen), looked })))
    }

    /// The version in force: `sha256:<hex>`, or `observe`.
    #[must_use]
    pub fn current_version(&self) -> String {
        self.0.active.read().version.to_string()
    }

    /// Whether Cairn only observes: everything is permitted.
    #[must_use]
    pub fn is_observing(&self) -> bool {
        self.0.active.read().is_observing()
    }

    /// The set in force as a change that `who` made: what to record at start.
    #[must_use]
    pub fn activation(&self, who: &str) -> Change {
        let active = Arc::clone(&self.0.active.read());
        activated(&active, None, who, PolicyCause::Start)
    }

    /// Decides. Never fails: what goes wrong in a policy is in the verdict's `errors`, and the default denies.
    #[must_use]
    pub fn decide(&self, question: &Question) -> Verdict {
        let started = self.0.clock.now();
        let active = Arc::clone(&self.0.active.read());
        let asked = active.ask(question, started);
        let said = active.decide(&asked);
        let outcome = if said.permit {
            let digest = sha256_text(&asked.inputs);
            Ruling::Permit(Permit::grant(
                Arc::clone(&active.version),
                said.obligations.clone(),
                digest,
                said.demands.clone(),
            ))
        } else {
            Ruling::Deny
        };
        let shadow = self.0.shadow.read().clone();
        let shadow = shadow.and_then(|shadow| crate::shadow::ask(&shadow, question, started, &said));
        let nothing = !said.permit && said.determining.is_empty();
        let nearest = if nothing { active.nearest(&asked) } else { None };
        let elapsed = self.0.clock.now().since(started);
        Verdict {
            outcome,
            policy_version: active.version.to_string(),
            determining: said.determining,
            obligations: said.obligations,
            demands: said
                .demands
                .into_iter()
                .map(|(policy, demands)| PolicyDemand { policy, annotations: demands.said })
                .collect(),
            errors: said.errors,
            nearest,
            shadow,
            inputs: asked.inputs,
            elapsed_us: u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX),
        }
    }

    /// Whether the files differ from those last read, good or bad, and have been the same in two looks in a row: the
    /// beginning of a file that is being written may compile, and lack the forbid at its end. Reads them: call it about
    /// once a second, off the path of calls. A folder that cannot be read any more counts as changed until a reload has
    /// reported it.
    #[must_use]
    pub fn changed(&self) -> bool {
        let Some(folder) = &self.0.folder else { return false };
        let now = folder.read().map_or_else(|error| unreadable(&error), |sources| fingerprint(&sources));
        let before = std::mem::replace(&mut *self.0.looked.lock(), now.clone());
        before == now && *self.0.seen.lock() != now
    }

    /// Reads the files again and puts them in force, if they compile.
    ///
    /// # Errors
    /// The set is not taken, and the last good one stays; [`PolicyError::rejected`] makes the event. The same bad files
    /// are no [change](PolicyStore::changed) any more.
    pub fn reload(&self, who: &str) -> Result<Change, PolicyError> {
        let Some(folder) = &self.0.folder else { return Ok(Change::Unchanged) };
        let mut seen = self.0.seen.lock();
        let sources = match folder.read() {
            Ok(sources) => sources,
            Err(error) => {
                *seen = unreadable(&error);
                return Err(error);
            }
        };
        *seen = fingerprint(&sources);
        self.0.looked.lock().clone_from(&seen);
        let before = Arc::clone(&self.0.active.read());
        if !sources.live.iter().any(SourceFile::is_policies) && !before.is_observing() {
            return Err(PolicyError::Emptied { path: folder.path.clone() });
        }
        let next = ActiveSet::compile(&sources.live)?;
        if next.version == before.version {
            // Another layout or comment: the same decisions, under files with other digests.
            *self.0.active.write() = Arc::new(next);
            return Ok(Change::Unchanged);
        }
        let change = activated(&next, Some(&before), who, PolicyCause::FileChange);
        *self.0.active.write() = Arc::new(next);
        Ok(change)
    }

    /// Reads the shadow's files again and tries them from here on, if they compile. Gives the event where what is tried is
    /// another set than before, or nothing is tried any more.
    ///
    /// # Errors
    /// The shadow is not taken: nothing is tried, and the live set is as it was.
    pub fn reload_shadow(&self, who: &str) -> Result<Option<PolicyShadowed>, PolicyError> {
        let Some(folder) = &self.0.folder else { return Ok(None) };
        let _seen = self.0.seen.lock();
        let compiled = folder.read().and_then(|sources| compiled_shadow(&sources));
        let (next, failed) = match compiled {
            Ok(next) => (next, None),
            Err(error) => (None, Some(error)),
        };
        let before = std::mem::replace(&mut *self.0.shadow.write(), next.clone());
        let version = |set: &Option<Arc<ActiveSet>>| set.as_ref().map(|set| Arc::clone(&set.version));
        match failed {
            Some(error) => Err(error),
            None if version(&before) == version(&next) => Ok(None),
            None => Ok(match (next, before) {
                (Some(next), _) => Some(shadowed(&next, ShadowState::Tried, who)),
                (None, before) => before.map(|before| shadowed(&before, ShadowState::Ended, who)),
            }),
        }
    }

    /// The set that is tried, as an event: what to record at start.
    #[must_use]
    pub fn shadowing(&self, who: &str) -> Option<PolicyShadowed> {
        self.0.shadow.read().as_ref().map(|shadow| shadowed(shadow, ShadowState::Tried, who))
    }

    /// The version that is tried beside the one in force.
    #[must_use]
    pub fn shadow_version(&self) -> Option<String> {
        self.0.shadow.read().as_ref().map(|shadow| shadow.version.to_string())
    }

    /// Puts the shadow in force, and keeps what decided before for [`PolicyStore::rollback`]. Whole or not at all, also where
    /// the process ends in between.
    ///
    /// # Errors
    /// There is no shadow, it does not compile, or the change cannot be written.
    pub fn promote(&self, who: &str) -> Result<Change, PolicyError> {
        self.put_in_force(who, PolicyCause::Promoted)
    }

    /// Puts in force what decided before the last promotion, and makes what decided until now the shadow.
    ///
    /// # Errors
    /// As [`PolicyStore::promote`].
    pub fn rollback(&self, who: &str) -> Result<Change, PolicyError> {
        self.put_in_force(who, PolicyCause::RolledBack)
    }

    fn put_in_force(&self, who: &str, cause: PolicyCause) -> Result<Change, PolicyError> {
        let Some(folder) = &self.0.folder else { return Err(PolicyError::NoFolder) };
        let mut seen = self.0.seen.lock();
        let sources = folder.read()?;
        let live = texts(&sources.live)?;
        let journal = if cause == PolicyCause::Promoted {
            Journal::new(texts(&sources.shadow)?, Texts::new(), live)
        } else {
            Journal::new(texts(&previous(&folder.path)?)?, live, Texts::new())
        };
        if journal.live.is_empty() {
            let place = if cause == PolicyCause::Promoted { SHADOW_FOLDER } else { PREVIOUS_FOLDER };
            return Err(PolicyError::Nothing { path: folder.path.join(place) });
        }
        let mut files = Journal::files(&journal.live, &folder.path);
        files.extend(sources.live.into_iter().filter(|file| !file.is_policies()));
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let next = Arc::new(ActiveSet::compile(&files)?);
        journal.commit(&folder.path)?;
        let before = std::mem::replace(&mut *self.0.active.write(), Arc::clone(&next));
        let sources = folder.read()?;
        *self.0.shadow.write() = compiled_shadow(&sources).unwrap_or_default();
        *seen = fingerprint(&sources);
        self.0.looked.lock().clone_from(&seen);
        // What is not applied now is applied at the next start; until then the journal is what is read.
        journal.apply(&folder.path)?;
        Ok(activated(&next, Some(&before), who, cause))
    }

    /// The folder that is read, where there is one.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        self.0.folder.as_ref().map(|folder| folder.path.as_path())
    }
}

fn activated(set: &ActiveSet, before: Option<&ActiveSet>, who: &str, cause: PolicyCause) -> Change {
    let (version, who) = (set.version.to_string(), who.to_owned());
    Change::Activated {
        loaded: PolicyLoaded {
            version: version.clone(),
            files: set.files.clone(),
            who: who.clone(),
            errors: Vec::new(),
        },
        activated: PolicyActivated {
            version,
            previous_version: before.map(|before| before.version.to_string()),
            cause: Some(cause),
            files: set.files.clone(),
            who,
            errors: Vec::new(),
        },
    }
}

fn shadowed(set: &ActiveSet, state: ShadowState, who: &str) -> PolicyShadowed {
    let (version, files) = (set.version.to_string(), set.files.clone());
    PolicyShadowed { version, state, files, who: who.to_owned(), errors: Vec::new() }
}

fn compiled_shadow(sources: &Sources) -> Result<Option<Arc<ActiveSet>>, PolicyError> {
    if sources.shadow.is_empty() {
        return Ok(None);
    }
    ActiveSet::compile(&sources.shadow).map(|set| Some(Arc::new(set)))
}

fn fingerprint(sources: &Sources) -> Vec<PolicyFile> {
    let shadow = sources.shadow.iter().map(|file| {
        let PolicyFile { name, digest } = file.digest();
        PolicyFile { name: format!("{SHADOW_FOLDER}/{name}"), digest }
    });
    sources.live.iter().map(SourceFile::digest).chain(shadow).collect()
}

/// A state of the folder that no readable one equals.
fn unreadable(error: &PolicyError) -> Vec<PolicyFile> {
    vec![PolicyFile { name: String::new(), digest: error.to_string() }]
}

#[cfg(test)]
mod tests;
