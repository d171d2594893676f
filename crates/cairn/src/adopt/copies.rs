//! The copies that `cairn adopt` keeps beside a file, and how they come back.
//!
//! `<file>.before-cairn` (a number behind it where there is one already) is the file as it was, with its permissions;
//! `<file>.cairn-adopted` lists the copies with digests of the file before and after. Files are replaced whole: a crash
//! leaves the old one or the new one. Must never lose what somebody else wrote meanwhile.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use cairn_contract::sha256_text;
use serde::{Deserialize, Serialize};

/// Copies that may pile up beside one file.
const COPIES_MAX: usize = 64;

#[derive(Serialize, Deserialize, Default)]
struct Note {
    copies: Vec<Copy>,
}

#[derive(Serialize, Deserialize)]
struct Copy {
    copy: PathBuf,
    before: String,
    after: String,
}

fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    file.with_file_name(name)
}

fn note_of(file: &Path) -> PathBuf {
    beside(file, ".cairn-adopted")
}

fn read_note(file: &Path) -> anyhow::Result<Note> {
    let path = note_of(file);
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text)
            .with_context(|| format!("{} is damaged: restore by hand from the copy beside it", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Note::default()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Keeps a copy of `before`, then puts `after` in its place. Returns where the copy is.
pub(crate) fn replace(file: &Path, before: &[u8], after: &[u8]) -> anyhow::Result<PathBuf> {
    let mut note = read_note(file)?;
    let (copy, mut out) = free_name(file)?;
    out.set_permissions(fs::metadata(file)?.permissions())?;
    out.write_all(before)?;
    out.sync_all()?;
    note.copies.push(Copy { copy: copy.clone(), before: sha256_text(before), after: sha256_text(after) });
    write(&note_of(file), &serde_json::to_vec_pretty(&note)?, file)?;
    if fs::read(file)? != before {
        bail!("{} was changed while the difference was shown: run it again", file.display());
    }
    write(file, after, file).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(copy)
}

fn free_name(file: &Path) -> anyhow::Result<(PathBuf, File)> {
    for number in 1..=COPIES_MAX {
        let suffix = if number == 1 { ".before-cairn".to_owned() } else { format!(".before-cairn-{number}") };
        let path = beside(file, &suffix);
        match File::options().create_new(true).write(true).open(&path) {
            Ok(out) => return Ok((path, out)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("cannot keep a copy as {}", path.display())),
        }
    }
    bail!("{COPIES_MAX} copies lie beside {}: remove some", file.display())
}

/// Puts the newest copy back. Returns where what it replaced was kept, if it was not what `adopt` had written.
pub(crate) fn undo(file: &Path, force: bool) -> anyhow::Result<Option<PathBuf>> {
    let mut note = read_note(file)?;
    let Some(newest) = note.copies.pop() else {
        bail!("{} was not adopted: there is no {} beside it", file.display(), note_of(file).display());
    };
    let before = fs::read(&newest.copy).with_context(|| format!("cannot read the copy {}", newest.copy.display()))?;
    if sha256_text(&before) != newest.before {
        bail!("the copy {} is not what was kept: restore by hand", newest.copy.display());
    }
    let now = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let changed = sha256_text(&now) != newest.after && now != before;
    if changed && !force {
        bail!(
            "{} was changed since it was adopted, and undoing would lose that: take over by hand what you need from {}, or use --force",
            file.display(),
            newest.copy.display()
        );
    }
    let kept = beside(file, ".replaced-by-undo");
    if changed {
        write(&kept, &now, file)?;
    }
    write(file, &before, file).with_context(|| format!("cannot write {}", file.display()))?;
    if note.copies.is_empty() {
        fs::remove_file(note_of(file))?;
    } else {
        write(&note_of(file), &serde_json::to_vec_pretty(&note)?, file)?;
    }
    fs::remove_file(&newest.copy)?;
    Ok(changed.then_some(kept))
}

/// Replaces a file whole, with the permissions of `like`.
fn write(path: &Path, bytes: &[u8], like: &Path) -> anyhow::Result<()> {
    let fresh = beside(path, &format!(".cairn-new-{}", std::process::id()));
    let mut out = File::options().create(true).write(true).truncate(true).open(&fresh)?;
    out.set_permissions(fs::metadata(like)?.permissions())?;
    out.write_all(bytes)?;
    out.sync_all()?;
    fs::rename(&fresh, path)?;
    Ok(())
}
