//! Approvals on disk: one file for each, sealed, since they hold arguments.
//!
//! A file is a layout byte (1), twelve random bytes, and AES-256-GCM over the approval's JSON with its id as associated
//! data: a file under another name opens to nothing. A file is whole or not there (written beside, synced, renamed, the
//! folder synced). Called by the register under its lock; must never write an argument in the clear.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use cairn_clock::Entropy;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::Approval;

const LAYOUT: u8 = 1;

/// Why what waits cannot be kept on disk.
#[derive(Debug, thiserror::Error)]
#[error("approvals in {path:?}: {source}")]
pub struct KeepError {
    path: PathBuf,
    source: std::io::Error,
}

/// The folder of what waits.
#[derive(Debug)]
pub(crate) struct Sealed {
    folder: PathBuf,
    key: LessSafeKey,
    entropy: Entropy,
}

impl Sealed {
    /// Opens the folder, made where it lacks, and reads what waits. A file that does not open is set aside and told.
    pub(crate) fn open(folder: &Path, key: &[u8; 32], entropy: Entropy) -> Result<(Self, Vec<Approval>), KeepError> {
        let failed = |source| KeepError { path: folder.to_owned(), source };
        match fs::DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        if let Some(parent) = folder.parent() {
            File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed)?;
        }
        let key = UnboundKey::new(&AES_256_GCM, key).expect("the key has 32 bytes");
        let sealed = Self { folder: folder.to_owned(), key: LessSafeKey::new(key), entropy };
        let mut waiting = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if name.ends_with(".new") {
                fs::remove_file(&path).map_err(failed)?;
            } else if name.starts_with("ap-") && !name.ends_with(".damaged") {
                match sealed.unseal(name, fs::read(&path).map_err(failed)?) {
                    Some(approval) => waiting.push(approval),
                    None => {
                        tracing::error!(path = %path.display(), "an approval cannot be read and has to be asked for again");
                        fs::rename(&path, path.with_extension("damaged")).map_err(failed)?;
                    }
                }
            }
        }
        Ok((sealed, waiting))
    }

    fn unseal(&self, id: &str, mut bytes: Vec<u8>) -> Option<Approval> {
        let (head, _) = bytes.split_at_checked(1 + NONCE_LEN)?;
        if head[0] != LAYOUT {
            return None;
        }
        let nonce = Nonce::try_assume_unique_for_key(&head[1..]).ok()?;
        let sealed = &mut bytes[1 + NONCE_LEN..];
        let text = self.key.open_in_place(nonce, Aad::from(id.as_bytes()), sealed).ok()?;
        serde_json::from_slice::<Approval>(text).ok().filter(|approval| approval.request.id == id)
    }

    /// Makes an approval durable as it is now.
    pub(crate) fn put(&self, approval: &Approval) -> Result<(), KeepError> {
        let id = &approval.request.id;
        let path = self.folder.join(id);
        let mut nonce = [0; NONCE_LEN];
        self.entropy.fill(&mut nonce);
        let mut text = serde_json::to_vec(approval).expect("an approval is plain data");
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(id.as_bytes()), &mut text)
            .expect("an approval is far below what one nonce covers");
        let bytes = [&[LAYOUT][..], &nonce, &text].concat();
        self.replace(&path, &bytes).map_err(|source| KeepError { path, source })
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
        let fresh = path.with_extension("new");
        let mut file = File::options().create(true).write(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        File::open(&self.folder)?.sync_all()
    }

    /// Takes an approval away for good: after power loss, too.
    pub(crate) fn remove(&self, id: &str) -> Result<(), KeepError> {
        let path = self.folder.join(id);
        let removed = match fs::remove_file(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other,
        };
        removed.and_then(|()| File::open(&self.folder)?.sync_all()).map_err(|source| KeepError { path, source })
    }
}
