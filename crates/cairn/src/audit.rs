//! Where the audit database is: a file of the data folder, or the PostgreSQL server that `[consumers.audit]` names.
//!
//! A server's password is no command's to keep: who applies to one leaves the path of the configuration in the data folder
//! (`consumers/audit.json`), and `cairn query` and `cairn trail` read that anew, with their own rights. No error shows a password.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::Context;
use cairn_consumers::audit::{self, Store};
use serde::{Deserialize, Serialize};

use crate::{config::Config, consumers::ConsumersSection};

/// What `consumers/audit.json` holds.
#[derive(Serialize, Deserialize)]
struct Pointer {
    /// The configuration that names the server.
    config: PathBuf,
}

fn pointer(data: &Path) -> PathBuf {
    audit::path(data).with_extension("json")
}

/// What is configured for that data folder: by the file that is named, or by that of whoever applies there.
pub(crate) fn section(data: &Path, config: Option<&Path>) -> anyhow::Result<ConsumersSection> {
    if let Some(config) = config {
        return Config::read_consumers(config);
    }
    let text = match fs::read(pointer(data)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ConsumersSection::default()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", pointer(data).display())),
    };
    let Pointer { config } = serde_json::from_slice(&text)
        .with_context(|| format!("{} is not what Cairn writes: remove it", pointer(data).display()))?;
    Config::read_consumers(&config).with_context(|| {
        "the audit database is on a server that this configuration names; ask a running `up` by --admin where you may not read it"
    })
}

/// The audit database of that data folder.
pub(crate) fn store(section: &ConsumersSection, data: &Path) -> anyhow::Result<Store> {
    #[cfg(feature = "postgres")]
    if let Some(options) = section.server()? {
        return Ok(Store::Postgres(Box::new(options)));
    }
    let _ = section;
    Ok(Store::File(audit::path(data)))
}

/// Leaves word where the audit database of a data folder is, for commands that are told nothing.
pub(crate) fn leave_word(section: &ConsumersSection, data: &Path) -> anyhow::Result<()> {
    let path = pointer(data);
    let left = match section.origin.as_ref().filter(|_| section.names_server()) {
        Some(config) => left(&path, &Pointer { config: config.clone() }),
        None => match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        },
    };
    left.with_context(|| format!("cannot write {}", path.display()))
}

fn left(path: &Path, pointer: &Pointer) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let beside = path.with_extension("json.new");
    let file = fs::File::options().create(true).write(true).truncate(true).mode(0o600).open(&beside)?;
    serde_json::to_writer(file, pointer)?;
    fs::rename(beside, path)
}
