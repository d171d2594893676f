//! Where the policy set in force lives, and how it is replaced.
//!
//! The gateway opens one at start, asks it for each call, and from time to time asks whether the files
//! [changed](PolicyStore::changed). A replacement is whole or not at all: a decision sees one set from beginning to end,
//! and a set that does not compile changes nothing (I9).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_clock::Clock;
use cairn_contract::{Body, PolicyActivated, PolicyFile, PolicyLoaded, sha256_text};
use parking_lot::{Mutex, RwLock};

use crate::{
    Permit, PolicyError, Question, Ruling, Verdict,
    files::{SourceFile, read_folder},
    set::ActiveSet,
};

/// The policy set in force. Cheap to clone; all clones see the same set.
#[derive(Clone, Debug)]
pub struct PolicyStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: Option<Folder>,
    clock: Clock,
    active: RwLock<Arc<ActiveSet>>,
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

impl Folder {
    fn read(&self) -> Result<Vec<SourceFile>, PolicyError> {
        match read_folder(&self.path) {
            Err(PolicyError::Read { path, source })
                if self.may_be_missing && path == self.path && source.kind() == std::io::ErrorKind::NotFound =>
            {
                Ok(Vec::new())
            }
            other => other,
        }
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
        let files = folder.as_ref().map_or_else(|| Ok(Vec::new()), Folder::read)?;
        let seen = fingerprint(&files);
        let looked = Mutex::new(seen.clone());
        let active = RwLock::new(Arc::new(ActiveSet::compile(&files)?));
        Ok(Self(Arc::new(Inner { folder, clock, active, seen: Mutex::new(seen), looked })))
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
        activated(&active, None, who)
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
            Ruling::Permit(Permit::grant(Arc::clone(&active.version), said.obligations.clone(), digest))
        } else {
            Ruling::Deny
        };
        let nothing = !said.permit && said.determining.is_empty();
        let nearest = if nothing { active.nearest(&asked) } else { None };
        let elapsed = self.0.clock.now().since(started);
        Verdict {
            outcome,
            policy_version: active.version.to_string(),
            determining: said.determining,
            obligations: said.obligations,
            errors: said.errors,
            nearest,
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
        let now = folder.read().map_or_else(|error| unreadable(&error), |files| fingerprint(&files));
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
        let files = match folder.read() {
            Ok(files) => files,
            Err(error) => {
                *seen = unreadable(&error);
                return Err(error);
            }
        };
        let read = fingerprint(&files);
        *self.0.looked.lock() = read.clone();
        *seen = read;
        let before = Arc::clone(&self.0.active.read());
        if !files.iter().any(SourceFile::is_policies) && !before.is_observing() {
            return Err(PolicyError::Emptied { path: folder.path.clone() });
        }
        let next = ActiveSet::compile(&files)?;
        if next.version == before.version {
            // Another layout or comment: the same decisions, under files with other digests.
            *self.0.active.write() = Arc::new(next);
            return Ok(Change::Unchanged);
        }
        let change = activated(&next, Some(&before), who);
        *self.0.active.write() = Arc::new(next);
        Ok(change)
    }

    /// The folder that is read, where there is one.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        self.0.folder.as_ref().map(|folder| folder.path.as_path())
    }
}

fn activated(set: &ActiveSet, before: Option<&ActiveSet>, who: &str) -> Change {
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
            files: set.files.clone(),
            who,
            errors: Vec::new(),
        },
    }
}

fn fingerprint(files: &[SourceFile]) -> Vec<PolicyFile> {
    files.iter().map(SourceFile::digest).collect()
}

/// A state of the folder that no readable one equals.
fn unreadable(error: &PolicyError) -> Vec<PolicyFile> {
    vec![PolicyFile { name: String::new(), digest: error.to_string() }]
}

#[cfg(test)]
mod tests;
