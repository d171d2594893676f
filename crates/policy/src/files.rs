//! Reads the files of a policies folder, within bounds: `*.cedar`, `entities.json` and `actions.json`.
//!
//! The store calls it at start, at each reload and at each look for changes. Files are ordered by name. It must never
//! follow into folders below, and never read more than its bounds.

use std::{collections::BTreeMap, fs, io::Read, path::Path, path::PathBuf};

use cairn_contract::{PolicyFile, sha256_text};

use crate::{PolicyError, PolicyProblem, directory::ENTITIES_FILE, schema::ACTIONS_FILE};

/// Most policy files that a folder may hold.
pub const FILES_MAX: usize = 256;
/// Largest policy file, in bytes.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Largest file of entities, in bytes.
pub const ENTITIES_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// A policy file as read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SourceFile {
    pub(crate) path: PathBuf,
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

impl SourceFile {
    pub(crate) fn digest(&self) -> PolicyFile {
        PolicyFile { name: self.name.clone(), digest: sha256_text(&self.bytes) }
    }

    /// Whether it holds policies.
    pub(crate) fn is_policies(&self) -> bool {
        self.name != ENTITIES_FILE && self.name != ACTIONS_FILE
    }
}

/// The texts of a folder's files that count, by name.
///
/// # Errors
/// One cannot be read, or there is more than a set may have.
pub fn folder_texts(folder: &Path) -> Result<BTreeMap<String, String>, PolicyError> {
    let text = |file: SourceFile| match String::from_utf8(file.bytes) {
        Ok(text) => Ok((file.name, text)),
        Err(_) => {
            let what = "is not UTF-8: save it as UTF-8".to_owned();
            let problems = vec![PolicyProblem { file: file.path, line: 0, what }];
            Err(PolicyError::Invalid { problems, files: Vec::new() })
        }
    };
    read_folder(folder)?.into_iter().map(text).collect()
}

/// Every file directly in `folder` that counts, ordered by name.
pub(crate) fn read_folder(folder: &Path) -> Result<Vec<SourceFile>, PolicyError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| PolicyError::Read { path, source }
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed(folder))? {
        let path = entry.map_err(failed(folder))?.path();
        let is = |wanted: &str| path.file_name().is_some_and(|name| name == wanted);
        let is_entities = is(ENTITIES_FILE);
        if !is_entities && !is(ACTIONS_FILE) && path.extension().is_none_or(|extension| extension != "cedar") {
            continue;
        }
        if !fs::metadata(&path).map_err(failed(&path))?.is_file() {
            continue;
        }
        if files.len() == FILES_MAX {
            let what = format!("it holds more than {FILES_MAX} policy files");
            return Err(PolicyError::TooLarge { path: folder.to_owned(), what });
        }
        let bytes_max = if is_entities { ENTITIES_BYTES_MAX } else { FILE_BYTES_MAX };
        let mut bytes = Vec::new();
        let file = fs::File::open(&path).map_err(failed(&path))?;
        file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(failed(&path))?;
        if bytes.len() as u64 > bytes_max {
            return Err(PolicyError::TooLarge { path, what: format!("this file has at most {bytes_max} bytes") });
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        files.push(SourceFile { path, name, bytes });
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}
