//! Who a gateway is over restarts: a durable id and an epoch that only rises, in a folder.
//!
//! Called once at start, under the caller's lock on the folder: two processes with one folder would share a chain. Both
//! files are replaced by rename after fsync of file and folder, so that no crash leaves half a number.
//!
//! | file | content |
//! | --- | --- |
//! | `gateway-id` | a UUID and LF |
//! | `gateway-epoch` | the last epoch given, decimal, and LF |

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use cairn_clock::{Clock, Entropy};
use uuid::Uuid;

/// Why a gateway does not know who it is.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file system refused.
    #[error("{path} could not be read or written: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The file holds something else.
    #[error(
        "{path} holds no {what}: restore it from a copy; a gateway that forgets who it is cannot close its own calls"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
}

/// The durable id of the gateway whose folder this is; made at the first start.
///
/// # Errors
/// Where the file cannot be read or written, or holds no id.
pub fn gateway_id(folder: &Path, clock: &Clock, entropy: &Entropy) -> Result<String, IdentityError> {
    let path = folder.join("gateway-id");
    if let Some(text) = read(&path)? {
        let id = Uuid::parse_str(text.trim()).map_err(|_| IdentityError::Damaged { path, what: "gateway id" })?;
        return Ok(id.to_string());
    }
    let id = entropy.uuid_v7(clock.now()).to_string();
    replace(&path, format!("{id}\n").as_bytes())?;
    Ok(id)
}

/// The next epoch: durable before it is returned, so that none is given twice.
///
/// # Errors
/// Where the file cannot be read or written, or holds no number.
pub fn next_epoch(folder: &Path) -> Result<u64, IdentityError> {
    let path = folder.join("gateway-epoch");
    let last = match read(&path)? {
        Some(text) => {
            text.trim().parse::<u64>().map_err(|_| IdentityError::Damaged { path: path.clone(), what: "epoch" })?
        }
        None => 0,
    };
    let next = last.checked_add(1).ok_or_else(|| IdentityError::Damaged { path: path.clone(), what: "epoch" })?;
    replace(&path, format!("{next}\n").as_bytes())?;
    Ok(next)
}

fn read(path: &Path) -> Result<Option<String>, IdentityError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(IdentityError::Io { path: path.to_owned(), source }),
    }
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), IdentityError> {
    replace_file(path, bytes).map_err(|source| IdentityError::Io { path: path.to_owned(), source })
}

/// Writes a file whole: beside, fsync, rename, fsync of the folder.
pub(crate) fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let beside = path.with_extension("new");
    let mut file = fs::File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_lasts_and_an_epoch_rises() {
        let folder = tempfile::tempdir().expect("a folder");
        let (clock, entropy) = (Clock::system(), Entropy::seeded(7));
        let id = gateway_id(folder.path(), &clock, &entropy).expect("made");
        assert_eq!(gateway_id(folder.path(), &clock, &entropy).expect("read"), id);
        assert_eq!(next_epoch(folder.path()).expect("first"), 1);
        assert_eq!(next_epoch(folder.path()).expect("second"), 2);
    }

    #[test]
    fn a_damaged_epoch_is_refused_and_not_begun_again() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("gateway-epoch"), "x\n").expect("written");
        assert!(matches!(next_epoch(folder.path()), Err(IdentityError::Damaged { .. })));
    }
}
