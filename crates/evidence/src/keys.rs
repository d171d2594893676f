//! The key that signs checkpoints: made, kept, and handed on to the next one.
//!
//! Lies in `evidence/` of the data folder, readable by its owner only:
//!
//! | file | content |
//! | --- | --- |
//! | `key` | the signing key, `PRIVATE+KEY+…` on one line (or wherever the configuration says) |
//! | `key.next` | the next one, while a rotation is under way |
//! | `rotations/<n>.note` | each rotation, signed by the old and the new key |
//! | `producers/<id>.note` | who writes events, by the word of the key, and in which epochs |
//!
//! A rotation writes `key.next`, then its note, then renames: whatever a crash leaves is finished at the next load, so that
//! no note names a key that is lost. The key must never be written anywhere else.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use cairn_clock::{Clock, Entropy};

use crate::note::{NoteError, SigningKey, VerifierKey, epochs_of, producer_text, rotation_of, rotation_text};

/// Rotations that are kept and followed.
const ROTATIONS_MAX: usize = 1_000;
/// Producers that are vouched for.
pub const PRODUCERS_MAX: usize = 1_000;
const KEY_BYTES_MAX: u64 = 4_096;

/// Why the key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file cannot be read or written.
    #[error("cannot {what} {}: {source}", .path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{}: {source}", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: NoteError,
    },
    /// The rotations do not lead to the key.
    #[error(
        "the rotations in {} end in another key than the one in {}: put the right key file back",
        .rotations.display(), .key.display()
    )]
    Chain {
        /// The folder of the rotations.
        rotations: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// There have been too many.
    #[error("there are {ROTATIONS_MAX} rotations: begin with a new key and tell whoever verifies")]
    Many,
}

/// Where a signing key lies.
#[derive(Clone, Debug)]
pub struct KeyFolder {
    folder: PathBuf,
    key: PathBuf,
}

/// A key with the way that led to it.
#[derive(Debug)]
pub struct Keys {
    /// What signs.
    pub signing: SigningKey,
    /// Every rotation so far, the oldest first, as notes.
    pub rotations: Vec<String>,
}

impl Keys {
    /// The first key of all: who trusted that one can follow to the present one.
    #[must_use]
    pub fn first(&self) -> VerifierKey {
        let first = self.rotations.first().and_then(|note| rotation_of(note).ok());
        first.map_or_else(|| self.signing.public(), |(old, _)| old)
    }
}

impl KeyFolder {
    /// The key of the evidence folder, or the one in `key_file`.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>, key_file: Option<PathBuf>) -> Self {
        let folder = folder.into();
        let key = key_file.unwrap_or_else(|| folder.join("key"));
        Self { folder, key }
    }

    /// The key, made at first use.
    ///
    /// # Errors
    /// Files that cannot be read or written, or do not hold what they should.
    pub fn load_or_make(&self, name: Option<&str>, entropy: &Entropy) -> Result<Keys, KeyError> {
        if !self.key.exists() && !self.next().exists() {
            let mut random = [0; 8];
            entropy.fill(&mut random);
            let default = format!("cairn.evidence/{}", hex::encode(random));
            let made =
                SigningKey::generate(name.unwrap_or(&default), entropy).map_err(|source| self.content(source))?;
            make_private(&self.folder)?;
            write_private(&self.key, &made.reveal())?;
        }
        self.load()
    }

    /// The key as it is.
    ///
    /// # Errors
    /// There is none, or the files do not hold what they should.
    pub fn load(&self) -> Result<Keys, KeyError> {
        let mut seen = None;
        loop {
            let found = self.look();
            if !matches!(found, Err(KeyError::Chain { .. })) {
                return found;
            }
            // Another process rotates: its note came after we read the notes, and its key before we read the key.
            let count = Some(self.rotations()?.len());
            if seen == count {
                return found;
            }
            seen = count;
        }
    }

    fn look(&self) -> Result<Keys, KeyError> {
        let rotations = self.rotations()?;
        let last = rotations.last().map(|note| rotation_of(note)).transpose().map_err(|source| self.content(source))?;
        // A rotation whose note is written is done; the rename may be missing.
        if let Some((_, new)) = &last {
            match self.read(&self.next()) {
                Ok(next) if next.public() == *new => self.finish()?,
                Ok(_) => {}
                Err(KeyError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let signing = self.read(&self.key)?;
        match last {
            Some((_, new)) if new != signing.public() => {
                Err(KeyError::Chain { rotations: self.folder.join("rotations"), key: self.key.clone() })
            }
            _ => Ok(Keys { signing, rotations }),
        }
    }

    /// Makes the next key, which the old one vouches for; the note that says so.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn rotate(&self, clock: &Clock, entropy: &Entropy) -> Result<String, KeyError> {
        let keys = self.load()?;
        if keys.rotations.len() >= ROTATIONS_MAX {
            return Err(KeyError::Many);
        }
        let (old, name) = (&keys.signing, keys.signing.public().name);
        let new = SigningKey::generate(&name, entropy).map_err(|source| self.content(source))?;
        let text = rotation_text(&old.public(), &new.public(), clock.now().as_micros() / 1_000_000);
        let note = format!("{text}\n{}{}", old.sign(&text), new.sign(&text));
        write_private(&self.next(), &new.reveal())?;
        make_private(&self.folder.join("rotations"))?;
        write_private(&self.folder.join("rotations").join(format!("{:04}.note", keys.rotations.len() + 1)), &note)?;
        self.finish()?;
        Ok(note)
    }

    /// Vouches for a producer from the first of its epochs that was ever vouched for to this one; the note that says so.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn vouch(&self, id: &str, (first, last): (u64, u64), clock: &Clock) -> Result<String, KeyError> {
        let keys = self.load()?;
        let folder = self.folder.join("producers");
        let name: String = id.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
        let path = folder.join(format!("{name}.note"));
        let before = if path.exists() { epochs_of(&read_small(&path)?) } else { None };
        let (first, last) = before.map_or((first, last), |before| (first.min(before.0), last.max(before.1)));
        let text = producer_text(id, (first, last), clock.now().as_micros() / 1_000_000);
        let note = format!("{text}\n{}", keys.signing.sign(&text));
        make_private(&folder)?;
        write_private(&path, &note)?;
        Ok(note)
    }

    /// Every note that vouches for a producer.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn vouched(&self) -> Result<Vec<String>, KeyError> {
        let Ok(entries) = fs::read_dir(self.folder.join("producers")) else { return Ok(Vec::new()) };
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|end| end == "note"));
        paths.sort();
        paths.iter().take(PRODUCERS_MAX).map(|path| read_small(path)).collect()
    }

    /// Every rotation so far, the oldest first.
    fn rotations(&self) -> Result<Vec<String>, KeyError> {
        let mut notes = Vec::new();
        for number in 1..=ROTATIONS_MAX {
            let path = self.folder.join("rotations").join(format!("{number:04}.note"));
            if !path.exists() {
                break;
            }
            notes.push(read_small(&path)?);
        }
        Ok(notes)
    }

    fn next(&self) -> PathBuf {
        self.key.with_extension("next")
    }

    /// Whoever finds a rotation that is not finished finishes it; two may find it.
    fn finish(&self) -> Result<(), KeyError> {
        match fs::rename(self.next(), &self.key) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            renamed => renamed,
        }
        .and_then(|()| sync_parent(&self.key))
        .map_err(failed("replace", &self.key))
    }

    fn read(&self, path: &Path) -> Result<SigningKey, KeyError> {
        SigningKey::parse(&read_small(path)?).map_err(|source| KeyError::Content { path: path.to_owned(), source })
    }

    fn content(&self, source: NoteError) -> KeyError {
        KeyError::Content { path: self.key.clone(), source }
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> KeyError {
    let path = path.to_owned();
    move |source| KeyError::File { what, path, source }
}

fn read_small(path: &Path) -> Result<String, KeyError> {
    use std::io::Read;
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(KEY_BYTES_MAX).read_to_string(&mut text));
    read.map_err(failed("read", path)).map(|_| text)
}

pub(crate) fn make_private(path: &Path) -> Result<(), KeyError> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("make", path))
}

pub(crate) fn write_private(path: &Path, text: &str) -> Result<(), KeyError> {
    write_durably(path, text.as_bytes()).map_err(failed("write", path))
}

/// Replaces a file as a whole; afterwards it is there, whatever happens.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".writing");
    let fresh = PathBuf::from(fresh);
    // One that a crash left may have other rights.
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options().create_new(true).write(true).mode(0o600).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    sync_parent(path)
}

fn sync_parent(path: &Path) -> std::io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::PermissionsExt,
        sync::atomic::{AtomicBool, Ordering},
    };

    use super::*;

    #[test]
    fn a_reader_always_finds_a_key_while_another_process_rotates() {
        let home = tempfile::tempdir().unwrap();
        let (clock, entropy) = (Clock::system(), Entropy::seeded(4));
        let folder = KeyFolder::new(home.path().join("evidence"), None);
        folder.load_or_make(Some("example.com/audit"), &entropy).unwrap();
        let (done, mut last) = (AtomicBool::new(false), 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let rotated = (0..40).try_for_each(|_| folder.rotate(&clock, &entropy).map(drop));
                done.store(true, Ordering::SeqCst);
                rotated.unwrap();
            });
            while !done.load(Ordering::SeqCst) {
                let count = folder.load().map(|keys| keys.rotations.len());
                let count = count.inspect_err(|_| done.store(true, Ordering::SeqCst)).unwrap();
                assert!(count >= last);
                last = count;
            }
        });
        assert_eq!(folder.load().unwrap().rotations.len(), 40);
    }

    #[test]
    fn a_key_is_made_once_private_and_rotates_through_every_crash() {
        let home = tempfile::tempdir().unwrap();
        let (clock, entropy) = (Clock::system(), Entropy::seeded(3));
        let folder = KeyFolder::new(home.path().join("evidence"), None);
        let first = folder.load_or_make(Some("example.com/audit"), &entropy).unwrap().signing.public();
        assert_eq!(folder.load_or_make(None, &entropy).unwrap().signing.public(), first);
        let mode = fs::metadata(home.path().join("evidence/key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let old = fs::read(home.path().join("evidence/key")).unwrap();
        let note = folder.rotate(&clock, &entropy).unwrap();
        let keys = folder.load().unwrap();
        let (from, to) = rotation_of(&note).unwrap();
        assert_eq!((from, to, keys.first()), (first.clone(), keys.signing.public(), first.clone()));

        // A crash before the rename: the load finishes it. One before the note: the old key goes on.
        let new = fs::read(home.path().join("evidence/key")).unwrap();
        fs::write(home.path().join("evidence/key.next"), &new).unwrap();
        fs::write(home.path().join("evidence/key"), &old).unwrap();
        assert_eq!(folder.load().unwrap().signing.public(), keys.signing.public());
        let stray = SigningKey::generate("example.com/audit", &entropy).unwrap();
        fs::write(home.path().join("evidence/key.next"), stray.reveal()).unwrap();
        assert_eq!(folder.load().unwrap().signing.public(), keys.signing.public());
        // An old key put back would sign what nobody may follow.
        fs::remove_file(home.path().join("evidence/key.next")).unwrap();
        fs::write(home.path().join("evidence/key"), &old).unwrap();
        assert!(matches!(folder.load(), Err(KeyError::Chain { .. })));
    }
}
