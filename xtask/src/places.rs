//! Where things lie: the checkout, and the cache folder outside it.
//!
//! Who calls it: every recipe. It guarantees that set-up goes to the cache folder, never into the checkout.

use std::path::{Path, PathBuf};

use anyhow::Context;

/// The root of the checkout.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies one folder below the root")
}

/// A folder of the cache, made if it is not there.
pub(crate) fn cache(name: &str) -> anyhow::Result<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let folder = base.or_else(home).context("set HOME or XDG_CACHE_HOME")?.join("cairn").join(name);
    std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    Ok(folder)
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Whether this is a CI run, where nothing may be skipped.
pub(crate) fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| !value.is_empty() && value != "false")
}

/// Copies a folder of sources to the cache, leaving out what a checkout collects.
pub(crate) fn copy_tree(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("create {}", to.display()))?;
    for entry in std::fs::read_dir(from).with_context(|| format!("list {}", from.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_str(), Some("target" | "node_modules" | "__pycache__" | ".git")) {
            continue;
        }
        let (source, copy) = (entry.path(), to.join(&name));
        if entry.file_type()?.is_dir() {
            copy_tree(&source, &copy)?;
        } else if std::fs::read(&copy).ok() != Some(std::fs::read(&source)?) {
            // An unchanged file keeps its time, so that builds in the copy stay quick.
            std::fs::copy(&source, &copy).with_context(|| format!("copy {}", source.display()))?;
        }
    }
    Ok(())
}

/// Removes from a copy what its original has no longer: a file that was moved would be there twice.
pub(crate) fn remove_gone(from: &Path, copy: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(copy).with_context(|| format!("list {}", copy.display()))? {
        let entry = entry?;
        let (source, path) = (from.join(entry.file_name()), entry.path());
        let is_folder = entry.file_type()?.is_dir();
        if source.is_dir() == is_folder && source.exists() {
            if is_folder {
                remove_gone(&source, &path)?;
            }
            continue;
        }
        let removed = if is_folder { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.with_context(|| format!("remove {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    #[test]
    fn a_copy_has_what_its_original_has_and_nothing_else() {
        let folder = std::env::temp_dir().join(format!("cairn-places-{}", std::process::id()));
        let (from, to) = (folder.join("from"), folder.join("to"));
        fs::create_dir_all(from.join("a/b")).expect("made");
        fs::write(from.join("a/one.rs"), "1").expect("written");
        fs::write(from.join("a/two.rs"), "2").expect("written");
        super::copy_tree(&from, &to).expect("copied");
        fs::remove_file(from.join("a/one.rs")).expect("removed");
        fs::create_dir(from.join("a/one.rs")).expect("a folder of that name");
        fs::remove_dir(from.join("a/b")).expect("removed");
        super::remove_gone(&from, &to).expect("removed");
        super::copy_tree(&from, &to).expect("copied");
        assert!(to.join("a/one.rs").is_dir() && to.join("a/two.rs").is_file() && !to.join("a/b").exists());
        fs::remove_dir_all(&folder).expect("removed");
    }
}
