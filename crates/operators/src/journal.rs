//! What is done on the machine itself, by commands that change files of the data folder: kept in `acts/` until a running `up`
//! has recorded it on `mcp.operators`.
//!
//! A command writes what it is about to do, durably, and does it then; where it cannot be written it is not done. A running
//! `up` looks once a second, others at their next start. A crash between recording and forgetting records twice, with one
//! `act_id`. They are recorded in the order in which they were kept, whatever the clock said. It must never hold a token or
//! a secret.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use cairn_clock::{Clock, Entropy};
use cairn_contract::{ActOutcome, ActVia, OperatorActed};
use cairn_gateway::Gateway;

use crate::credential::replace;

/// Acts that wait to be recorded.
const WAITING_MAX: usize = 10_000;

/// Digits of an act's place among those that wait, in the name of its file: `<place>-<act_id>-<0, or 1 where it failed>.json`.
const PLACE_DIGITS: usize = 12;

/// The folder with what waits to be recorded.
#[derive(Clone, Debug)]
pub struct Journal {
    folder: PathBuf,
}

/// Why an act is not done.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It cannot be written.
    #[error("it is not done, because that it is cannot be kept in {}: {source}", folder.display())]
    Io {
        /// Where.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Too much waits.
    #[error("it is not done: {WAITING_MAX} acts wait in {} to be recorded; start `cairn up` with that data folder", folder.display())]
    Full {
        /// Where.
        folder: PathBuf,
    },
}

/// An act that is kept.
#[derive(Debug)]
pub struct Kept<'a> {
    journal: &'a Journal,
    place: u64,
    event: OperatorActed,
}

impl Journal {
    /// The acts of a data folder; nothing is read yet.
    #[must_use]
    pub fn of(data: &Path) -> Self {
        Self { folder: data.join("acts") }
    }

    /// Keeps what is about to be done, durably: `act` such as `operator.add`, `about` what it is done to.
    ///
    /// # Errors
    /// It cannot be written: then it must not be done.
    pub fn keep(
        &self,
        operator: &str,
        act: &str,
        about: Option<String>,
        (clock, entropy): (&Clock, &Entropy),
    ) -> Result<Kept<'_>, JournalError> {
        let failed = |source| JournalError::Io { folder: self.folder.clone(), source };
        let waiting = self.waiting().map_err(failed)?;
        if waiting.len() >= WAITING_MAX {
            return Err(JournalError::Full { folder: self.folder.clone() });
        }
        let place = waiting.last().map_or(0, |path| place_of(path)) + 1;
        let event = OperatorActed {
            act_id: entropy.uuid_v7(clock.now()).to_string(),
            operator: operator.to_owned(),
            role: None,
            act: act.to_owned(),
            about,
            via: ActVia::Command,
            outcome: ActOutcome::Allowed,
            reason: None,
            error: None,
            acted_at: Some(clock.now().to_string()),
        };
        self.write(place, &event).map_err(failed)?;
        Ok(Kept { journal: self, place, event })
    }

    fn write(&self, place: u64, event: &OperatorActed) -> io::Result<()> {
        if !self.folder.is_dir() {
            fs::DirBuilder::new().mode(0o700).create(&self.folder)?;
            fs::File::open(self.folder.parent().unwrap_or(Path::new(".")))?.sync_all()?;
        }
        let outcome = if event.outcome == ActOutcome::Allowed { "0" } else { "1" };
        let text = serde_json::to_vec(event).expect("plain words are JSON");
        replace(&self.folder.join(format!("{place:0PLACE_DIGITS$}-{}-{outcome}.json", event.act_id)), &text)
    }

    /// What waits, in the order in which it was kept.
    fn waiting(&self) -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == "json") {
                found.push(path);
            }
        }
        found.sort_by_cached_key(|path| (place_of(path), path.clone()));
        Ok(found)
    }

    /// Records what waits; what cannot be recorded stays.
    ///
    /// # Errors
    /// Why not all of it was recorded.
    pub async fn record(&self, gateway: &Gateway) -> Result<(), String> {
        for path in self.waiting().map_err(|error| error.to_string())? {
            let text = fs::read(&path).map_err(|error| error.to_string())?;
            match serde_json::from_slice::<OperatorActed>(&text) {
                Ok(event) => gateway.record_act(event).await.map_err(|error| error.to_string())?,
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "what was done on this machine cannot be read");
                    let _ = fs::rename(&path, path.with_extension("damaged"));
                    continue;
                }
            }
            fs::remove_file(&path).map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

/// An act's place among those that wait; 0 for one whose name begins with its id, as they once did.
fn place_of(path: &Path) -> u64 {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let digits = name.split('-').next().filter(|digits| digits.len() == PLACE_DIGITS);
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

impl Kept<'_> {
    /// It was to be done, and failed.
    pub fn failed(self, error: &dyn std::fmt::Display) {
        let event = OperatorActed { outcome: ActOutcome::Failed, error: Some(error.to_string()), ..self.event };
        // What it was about to do is kept already; that it failed is told as far as that goes.
        if let Err(error) = self.journal.write(self.place, &event) {
            tracing::warn!(%error, "that it failed could not be kept");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_about_to_be_done_is_kept_first_and_in_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = Journal::of(folder.path());
        let tools = (&Clock::system(), &Entropy::system());
        assert!(journal.waiting().expect("none yet").is_empty());
        journal.keep("ann", "operator.add", Some("ben view".to_owned()), tools).expect("kept");
        journal.keep("ann", "operator.remove", Some("cy".to_owned()), tools).expect("kept").failed(&"no such operator");
        let waiting = journal.waiting().expect("readable");
        let read =
            |path: &PathBuf| -> OperatorActed { serde_json::from_slice(&fs::read(path).expect("read")).expect("JSON") };
        let events: Vec<_> = waiting.iter().map(read).collect();
        let of = |n: usize| (events[n].act.as_str(), events[n].outcome);
        assert_eq!(of(0), ("operator.add", ActOutcome::Allowed));
        assert_eq!(of(1), ("operator.remove", ActOutcome::Allowed));
        assert_eq!(
            (of(2), events[2].error.as_deref()),
            (("operator.remove", ActOutcome::Failed), Some("no such operator"))
        );
        assert_eq!(events[1].act_id, events[2].act_id);
        // As many as in one millisecond, and some of a clock that was set back.
        let (clock, entropy) = (Clock::manual(Clock::system().now()), Entropy::system());
        let acts: Vec<_> = (0..40).map(|n| format!("act.{n}")).collect();
        for (n, act) in acts.iter().enumerate() {
            if n % 8 == 7 {
                clock.set_by(-1_000);
            }
            journal.keep("ann", act, None, (&clock, &entropy)).expect("kept");
        }
        // One that was kept when names began with the id came before all.
        let old = folder.path().join("acts").join(format!("{}-0.json", events[0].act_id));
        fs::copy(&waiting[0], &old).expect("copied");
        let waiting = journal.waiting().expect("readable");
        assert_eq!(waiting[0], old);
        let kept: Vec<_> = waiting[4..].iter().map(|path| read(path).act).collect();
        assert_eq!(kept, acts);
        // Where nothing can be kept, nothing may be done: no folder to keep it in, and one that is none.
        let file = folder.path().join("file");
        fs::write(&file, "").expect("written");
        for data in [folder.path().join("none"), file] {
            assert!(Journal::of(&data).keep("ann", "operator.add", None, tools).is_err(), "{}", data.display());
        }
    }
}
