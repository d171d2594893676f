//! The folder of packs: finding an object, and writing a pack again without what must go.
//!
//! A pack is written once, by one run of the writer; afterwards it is only replaced whole, by rename.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::{
    VaultError,
    pack::{self, Head, Next},
};

/// Files with that ending, in order of name.
pub(crate) fn files(folder: &Path, ending: &str) -> Result<Vec<PathBuf>, VaultError> {
    let listed = fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    let mut paths: Vec<PathBuf> = listed.map_err(VaultError::disk("list", folder))?;
    paths.retain(|path| path.extension().is_some_and(|found| found == ending));
    paths.sort();
    Ok(paths)
}

/// A pack's number.
pub(crate) fn number(path: &Path) -> Option<u64> {
    u64::from_str_radix(path.file_stem()?.to_str()?, 16).ok()
}

pub(crate) fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:08x}.pack"))
}

pub(crate) fn make_private(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).recursive(true).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

pub(crate) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, VaultError> {
    match fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(VaultError::disk("read", path)(error)),
    }
}

pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// Replaces a file whole; durable when it returns.
pub(crate) fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = File::options().create(true).write(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    sync_folder(path)
}

/// Calls `seen` with each frame of a pack until it says that it has enough.
pub(crate) fn scan(path: &Path, mut seen: impl FnMut(&Head, &[u8]) -> bool) -> Result<(), VaultError> {
    let failed = |error| VaultError::disk("read", path)(error);
    let mut from = BufReader::with_capacity(1 << 20, File::open(path).map_err(failed)?);
    loop {
        match pack::next(&mut from).map_err(failed)? {
            Next::Frame(head, frame) if seen(&head, &frame) => return Ok(()),
            Next::Frame(..) => {}
            Next::End | Next::Broken => return Ok(()),
        }
    }
}

/// What writing a pack again took out.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Removed {
    pub(crate) objects: u64,
    pub(crate) bytes: u64,
}

/// Writes a pack again without the frames that `keep` does not want; nothing is touched where it wants all.
pub(crate) fn rewrite(path: &Path, mut keep: impl FnMut(&Head) -> bool) -> Result<Removed, VaultError> {
    let mut removed = Removed::default();
    scan(path, |head, frame| {
        if !keep(head) {
            removed.objects += 1;
            removed.bytes += frame.len() as u64;
        }
        false
    })?;
    if removed.objects == 0 {
        return Ok(removed);
    }
    let fresh = path.with_extension("new");
    let written = (|| -> io::Result<u64> {
        let mut from = BufReader::with_capacity(1 << 20, File::open(path)?);
        let file = File::options().create(true).write(true).truncate(true).mode(0o600).open(&fresh)?;
        let mut to = BufWriter::with_capacity(1 << 20, file);
        let mut kept = 0;
        while let Next::Frame(head, frame) = pack::next(&mut from)? {
            if keep(&head) {
                to.write_all(&frame)?;
                kept += frame.len() as u64;
            }
        }
        to.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        Ok(kept)
    })();
    let failed = |error| VaultError::disk("write", &fresh)(error);
    let kept = written.map_err(failed)?;
    if kept == 0 {
        fs::remove_file(&fresh).and_then(|()| fs::remove_file(path)).map_err(VaultError::disk("remove", path))?;
    } else {
        fs::rename(&fresh, path).map_err(VaultError::disk("replace", path))?;
    }
    sync_folder(path).map_err(VaultError::disk("sync the folder of", path))?;
    Ok(removed)
}

/// The frame of that digest in a pack.
pub(crate) fn find(path: &Path, digest: &[u8; 32]) -> Result<Option<(Head, Vec<u8>)>, VaultError> {
    let mut found = None;
    scan(path, |head, frame| {
        if head.digest == *digest {
            found = Some((*head, frame.to_vec()));
        }
        found.is_some()
    })?;
    Ok(found)
}
