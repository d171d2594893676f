//! What is known of resources, and what each viewer knows of them.
//!
//! Two orders meet here. A **read** counts as of the moment when it was asked for, because the answer may be as old as
//! that. A **change** counts as of the moment when it was seen, because it may be as late as that. So a read that ran beside a
//! change is older than it, unless its version is the one that the change made: an error to the safe side.
//!
//! Bounded: past [`Bounds`] what was touched longest ago is forgotten, with everybody's views of it. Whoever asks then hears
//! `unknown`.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use cairn_clock::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;

/// A resource: whose, at which server, under which URI.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Resource {
    /// The tenant, where there are any. A resource of one is never one of another.
    pub tenant: Option<String>,
    /// The server's name.
    pub server: String,
    /// The URI, screened as in events.
    pub uri: String,
}

/// Who knows something. A workflow is no part of it: a new one resets nothing.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Viewer {
    /// The tenant, where there are any.
    pub tenant: Option<String>,
    /// Who, as Cairn verified it.
    pub principal: String,
    /// Which agent of theirs.
    pub agent: Option<String>,
}

/// A version as its server gives it.
pub type Version = Option<String>;

/// How a viewer's knowledge of a resource stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Read, and nothing newer is known.
    Fresh,
    /// Nothing newer is known, and the guard is too far behind the stream to say more.
    Behind,
    /// Never read by this viewer, or forgotten, or it cannot be said which resource it is.
    Unknown,
    /// A write to it has begun and has not ended.
    Changing,
    /// Something newer is known.
    Stale,
}

impl State {
    /// The name in events and policies.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Behind => "behind",
            Self::Unknown => "unknown",
            Self::Changing => "changing",
            Self::Stale => "stale",
        }
    }
}

/// How one resource stands for one viewer, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standing {
    /// The resource's URI; empty where it cannot be said.
    pub uri: String,
    /// How it stands.
    pub state: State,
    /// The version that the viewer has.
    pub seen: Version,
    /// The newest version that is known; `None` where it is only known that there is a newer one.
    pub known: Version,
    /// How long ago the viewer's read was asked for.
    pub age: Option<Duration>,
}

/// What a viewer has of a resource.
#[derive(Clone, PartialEq, Eq, Debug)]
struct View {
    version: Version,
    /// When the read was asked for, or the viewer's own write was done.
    at: Timestamp,
}

/// The newest that is known of a resource.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Known {
    /// Its version; `None` where it is only known that it changed.
    version: Version,
    /// When it was last seen to change.
    changed: Timestamp,
    /// When the newest read that gave a version was asked for.
    read: Timestamp,
}

impl Known {
    /// Whether a view is older. Versions that are equal are the same, whoever saw them when.
    fn outdates(&self, view: &View) -> bool {
        match (&self.version, &view.version) {
            (Some(known), Some(seen)) if known == seen => false,
            // Whatever of the two was newer would have become the known one.
            (Some(_), Some(_)) => self.changed.max(self.read) >= view.at,
            _ => self.changed > view.at,
        }
    }
}

/// A call that writes to a resource.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Write {
    call: String,
    /// Whether another one ran beside it: which of them came last, nobody knows.
    overlapped: bool,
}

/// Longest URI that is remembered; a longer one is unknown for ever.
const URI_BYTES_MAX: usize = 1_024;
/// Longest version that is remembered as it is; of a longer one a digest is.
const VERSION_BYTES_MAX: usize = 256;

/// How much is remembered.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Resources.
    pub resources_max: usize,
    /// Viewers of one resource.
    pub viewers_max: usize,
    /// How far the guard may be behind the stream before nothing is called fresh.
    pub behind_max: Duration,
    /// How much the clocks of two gateways may differ: a change elsewhere counts as that much later.
    pub skew_max: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            resources_max: 100_000,
            viewers_max: 1_000,
            behind_max: Duration::from_secs(2),
            skew_max: Duration::from_millis(250),
        }
    }
}

#[derive(Debug, Default)]
struct Held {
    /// The newest that is known.
    known: Known,
    /// Calls that write to it now.
    writing: Vec<Write>,
    views: HashMap<Viewer, View>,
    touched: u64,
}

#[derive(Debug, Default)]
struct Inner {
    resources: HashMap<Resource, Held>,
    by_touch: BTreeMap<u64, Resource>,
    touches: u64,
    /// When the guard last had everything that the stream held. `None`: it follows no stream, and sees all there is.
    caught_up: Option<Timestamp>,
}

/// All views. Cheap to clone; all clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Views {
    inner: Arc<Mutex<Inner>>,
    bounds: Bounds,
}

/// Writes that have begun. Dropped without a word about how they ended, they count as perhaps done.
#[derive(Debug)]
pub struct Writing {
    views: Views,
    call: String,
    viewer: Viewer,
    resources: Vec<Resource>,
}

impl Views {
    /// Views within bounds.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self { inner: Arc::default(), bounds }
    }

    /// `viewer` asked for a resource at `asked` and got `version`. Says whether that shows a change nobody had told of.
    #[must_use]
    pub fn read(&self, viewer: &Viewer, resource: &Resource, version: Version, asked: Timestamp) -> bool {
        let (viewers_max, version) = (self.bounds.viewers_max, bounded(version));
        self.with(resource, |held| {
            let known = &mut held.known;
            let is_newest = version.is_some() && asked >= known.changed && asked >= known.read;
            let shows_change = is_newest && known.version.is_some() && known.version != version;
            if is_newest {
                known.version.clone_from(&version);
                known.read = asked;
            }
            if shows_change {
                known.changed = asked;
            }
            // A slow answer does not take back what a quicker one taught.
            if held.views.get(viewer).is_none_or(|view| view.at <= asked) {
                make_room(&mut held.views, viewers_max);
                held.views.insert(viewer.clone(), View { version, at: asked });
            }
            shows_change
        })
    }

    /// A resource is known to have changed at `at`, to `version` where that is known. Whoever did it knows.
    pub fn changed(&self, resource: &Resource, version: Version, at: Timestamp, by: Option<&Viewer>) {
        let (viewers_max, version) = (self.bounds.viewers_max, bounded(version));
        self.with(resource, |held| {
            if at >= held.known.changed {
                held.known = Known { version: version.clone(), changed: at, read: held.known.read };
            }
            if let Some(viewer) = by {
                make_room(&mut held.views, viewers_max);
                held.views.insert(viewer.clone(), View { version, at });
            }
        });
    }

    /// A change that another gateway saw, by its clock.
    pub fn changed_elsewhere(&self, resource: &Resource, version: Version, at: Timestamp) {
        self.changed(resource, version, at.plus(self.bounds.skew_max), None);
    }

    /// A call is about to write to these.
    #[must_use = "the resources are changing until this says how the write ended"]
    pub fn writing(&self, viewer: &Viewer, resources: Vec<Resource>, call: &str) -> Writing {
        for resource in &resources {
            self.begins(resource, call);
        }
        Writing { views: self.clone(), call: call.to_owned(), viewer: viewer.clone(), resources }
    }

    /// A write that another gateway forwards has begun.
    pub fn begins(&self, resource: &Resource, call: &str) {
        self.with(resource, |held| {
            if held.writing.iter().any(|other| other.call == call) {
                return;
            }
            held.writing.push(Write { call: call.to_owned(), overlapped: false });
            if held.writing.len() > 1 {
                held.writing.iter_mut().for_each(|write| write.overlapped = true);
            }
        });
    }

    /// A write that another gateway forwarded has ended. Says whether another one ran beside it.
    pub fn ends(&self, resource: &Resource, call: &str) -> bool {
        self.with(resource, |held| {
            let overlapped = held.writing.iter().any(|write| write.call == call && write.overlapped);
            held.writing.retain(|write| write.call != call);
            overlapped
        })
    }

    /// How a resource stands for `viewer`. `declared` is the version that the call itself says it stands on.
    #[must_use]
    pub fn standing(&self, viewer: &Viewer, resource: &Resource, declared: Version, now: Timestamp) -> Standing {
        let declared = bounded(declared);
        let inner = self.inner.lock();
        let behind = inner.caught_up.is_some_and(|at| now.since(at) > self.bounds.behind_max);
        let held = inner.resources.get(resource);
        let view = held.and_then(|held| held.views.get(viewer));
        let newest = held.and_then(|held| held.known.version.clone());
        // What the call says that it stands on counts, not what else the viewer may have read since.
        let is_known = declared.is_some() && declared == newest;
        let is_stale = held.is_some_and(|held| match &declared {
            Some(_) => !is_known && (newest.is_some() || held.known.changed > Timestamp::default()),
            None => view.is_some_and(|view| held.known.outdates(view)),
        });
        let age = view.map(|view| now.since(view.at));
        let has_view = view.is_some();
        let seen = declared.or_else(|| view.and_then(|view| view.version.clone()));
        let state = if is_stale {
            State::Stale
        } else if held.is_some_and(|held| !held.writing.is_empty()) {
            State::Changing
        } else if !is_known && !has_view {
            State::Unknown
        } else if behind {
            State::Behind
        } else {
            State::Fresh
        };
        Standing { uri: resource.uri.clone(), state, seen, known: newest, age }
    }

    /// The guard had, at `at`, everything that the stream held.
    pub fn caught_up(&self, at: Timestamp) {
        let mut inner = self.inner.lock();
        inner.caught_up = Some(inner.caught_up.map_or(at, |before| before.max(at)));
    }

    /// From now on the guard follows a stream, and is behind until it says that it has caught up.
    pub fn follow(&self) {
        self.inner.lock().caught_up.get_or_insert_default();
    }

    /// How far the guard is behind the stream; nothing where it follows none.
    #[must_use]
    pub fn lag(&self, now: Timestamp) -> Option<Duration> {
        self.inner.lock().caught_up.map(|at| now.since(at))
    }

    /// How many resources are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.lock().resources.len()
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn with<T: Default>(&self, resource: &Resource, change: impl FnOnce(&mut Held) -> T) -> T {
        if resource.uri.len() > URI_BYTES_MAX {
            return T::default();
        }
        let mut inner = self.inner.lock();
        let Inner { resources, by_touch, touches, .. } = &mut *inner;
        *touches += 1;
        let held = resources.entry(resource.clone()).or_default();
        by_touch.remove(&held.touched);
        held.touched = *touches;
        by_touch.insert(*touches, resource.clone());
        let out = change(held);
        if resources.len() > self.bounds.resources_max {
            // What is being written to must not be forgotten: its end would come to nothing.
            let oldest = by_touch
                .iter()
                .take(64)
                .find(|(_, resource)| resources.get(*resource).is_some_and(|held| held.writing.is_empty()))
                .or_else(|| by_touch.iter().next())
                .map(|(touch, resource)| (*touch, resource.clone()));
            if let Some((touch, resource)) = oldest {
                by_touch.remove(&touch);
                resources.remove(&resource);
            }
        }
        out
    }
}

/// A version as it is kept. Of two long ones that differ the digests differ, so that none passes for the other.
fn bounded(version: Version) -> Version {
    version.map(|text| {
        if text.len() <= VERSION_BYTES_MAX {
            return text;
        }
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        format!("{} bytes, {:016x}", text.len(), hasher.finish())
    })
}

fn make_room(views: &mut HashMap<Viewer, View>, most: usize) {
    while views.len() >= most {
        let Some(oldest) = views.iter().min_by_key(|(_, view)| view.at).map(|(viewer, _)| viewer.clone()) else {
            return;
        };
        views.remove(&oldest);
    }
}

impl Writing {
    /// Nothing was changed: it was not sent, or the server refused it.
    pub fn undone(mut self) {
        for resource in std::mem::take(&mut self.resources) {
            self.views.ends(&resource, &self.call);
        }
    }

    /// The write is done. `versions` are those that it made, by URI, where they are known.
    pub fn done(mut self, versions: &HashMap<String, String>, at: Timestamp) {
        for resource in std::mem::take(&mut self.resources) {
            // Which of two writes that ran side by side came last, nobody knows: then everybody must look again.
            if self.views.ends(&resource, &self.call) {
                self.views.changed(&resource, None, at, None);
            } else {
                self.views.changed(&resource, versions.get(&resource.uri).cloned(), at, Some(&self.viewer));
            }
        }
    }

    /// Nobody can know whether it was done: something may be newer than every view, the writer's own included.
    pub fn unknown(mut self, at: Timestamp) {
        self.doubt(at);
    }

    /// The URIs that are written to.
    pub fn uris(&self) -> impl Iterator<Item = &str> {
        self.resources.iter().map(|resource| resource.uri.as_str())
    }

    fn doubt(&mut self, at: Timestamp) {
        for resource in std::mem::take(&mut self.resources) {
            self.views.changed(&resource, None, at, None);
            self.views.ends(&resource, &self.call);
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        // The call ended in a way that nobody thought of. What is written to last is the newest moment that is known.
        let at = self.resources.iter().filter_map(|resource| self.views.newest(resource)).max().unwrap_or_default();
        self.doubt(at.plus(Duration::from_micros(1)));
    }
}

impl Views {
    /// The newest moment that is known of a resource, its views included.
    fn newest(&self, resource: &Resource) -> Option<Timestamp> {
        let inner = self.inner.lock();
        let held = inner.resources.get(resource)?;
        held.views.values().map(|view| view.at).chain([held.known.changed, held.known.read]).max()
    }
}

#[cfg(test)]
mod tests;
