//! Replacing the policies of a folder whole: what a promotion or a rollback writes, so that a crash leaves the old or the new.
//!
//! | file | what |
//! | --- | --- |
//! | `.journal.json` | there while a replacement is under way: `{"format": 1, "live": {…}, "shadow": {…}, "previous": {…}}`, texts by file name |
//! | `*.cedar`, `shadow/*.cedar`, `.previous/*.cedar` | what decides, what is tried, what decided before |
//!
//! The journal is written beside, synced and renamed: that is the moment of change. From then on whoever reads the folder
//! takes the policies from the journal; the files follow, each by rename, and the journal goes last. Opening a folder with a
//! journal finishes what was begun. Must never touch a file that is no `*.cedar`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io, io::Write};

use serde::{Deserialize, Serialize};

use crate::{PolicyError, files::SourceFile, shadow::SHADOW_FOLDER};

const JOURNAL_FILE: &str = ".journal.json";
/// What decided before the last replacement.
pub(crate) const PREVIOUS_FOLDER: &str = ".previous";
/// Largest journal, in bytes.
const JOURNAL_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Policy texts by file name.
pub(crate) type Texts = BTreeMap<String, String>;

/// What the three places hold once a replacement is done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Journal {
    format: u32,
    pub(crate) live: Texts,
    pub(crate) shadow: Texts,
    pub(crate) previous: Texts,
}

impl Journal {
    pub(crate) const fn new(live: Texts, shadow: Texts, previous: Texts) -> Self {
        Self { format: 1, live, shadow, previous }
    }

    /// The journal of a folder, where a replacement is under way.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>, PolicyError> {
        let path = folder.join(JOURNAL_FILE);
        let failed = |source| PolicyError::Read { path: path.clone(), source };
        let text = match fs::metadata(&path) {
            Ok(found) if found.len() > JOURNAL_BYTES_MAX => {
                let what = format!("a journal has at most {JOURNAL_BYTES_MAX} bytes");
                return Err(PolicyError::TooLarge { path, what });
            }
            Ok(_) => fs::read(&path).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))
    }

    /// The moment of change: afterwards this is what the folder says, whatever happens.
    pub(crate) fn commit(&self, folder: &Path) -> Result<(), PolicyError> {
        let text = serde_json::to_vec(self).expect("texts by name are JSON");
        replace(&folder.join(JOURNAL_FILE), &text).and_then(|()| sync(folder)).map_err(wrote(folder))
    }

    /// Lets the files follow, and ends the replacement.
    pub(crate) fn apply(&self, folder: &Path) -> Result<(), PolicyError> {
        let places = [
            (folder.join(PREVIOUS_FOLDER), &self.previous),
            (folder.to_owned(), &self.live),
            (folder.join(SHADOW_FOLDER), &self.shadow),
        ];
        for (place, texts) in places {
            fill(&place, texts).map_err(wrote(&place))?;
        }
        fs::remove_file(folder.join(JOURNAL_FILE)).and_then(|()| sync(folder)).map_err(wrote(folder))
    }

    /// The live or shadow texts as files of the folder.
    pub(crate) fn files(texts: &Texts, folder: &Path) -> Vec<SourceFile> {
        let file = |(name, text): (&String, &String)| SourceFile {
            path: folder.join(name),
            name: name.clone(),
            bytes: text.clone().into_bytes(),
        };
        texts.iter().map(file).collect()
    }
}

/// What decided before the last replacement.
pub(crate) fn previous(folder: &Path) -> Result<Vec<SourceFile>, PolicyError> {
    let place = folder.join(PREVIOUS_FOLDER);
    if place.is_dir() { crate::files::read_folder(&place) } else { Ok(Vec::new()) }
}

/// The texts of policy files.
pub(crate) fn texts(files: &[SourceFile]) -> Result<Texts, PolicyError> {
    let policies = files.iter().filter(|file| file.is_policies());
    policies
        .map(|file| {
            let invalid = |error| PolicyError::Read {
                path: file.path.clone(),
                source: io::Error::new(io::ErrorKind::InvalidData, error),
            };
            Ok((file.name.clone(), String::from_utf8(file.bytes.clone()).map_err(invalid)?))
        })
        .collect()
}

fn fill(place: &Path, texts: &Texts) -> io::Result<()> {
    if texts.is_empty() && !place.exists() {
        return Ok(());
    }
    fs::create_dir_all(place)?;
    for (name, text) in texts {
        replace(&place.join(name), text.as_bytes())?;
    }
    for entry in fs::read_dir(place)? {
        let path = entry?.path();
        let is_policies = path.extension().is_some_and(|extension| extension == "cedar");
        let is_named = path.file_name().is_some_and(|name| texts.contains_key(&*name.to_string_lossy()));
        if is_policies && !is_named && path.is_file() {
            fs::remove_file(path)?;
        }
    }
    sync(place)
}

fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let mut file = fs::File::create(&beside)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(beside, path)
}

fn sync(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

fn wrote(path: &Path) -> impl FnOnce(io::Error) -> PolicyError {
    let path = path.to_owned();
    move |source| PolicyError::Write { path, source }
}
