//! The store in a folder of this machine: the default. Objects are files; heads are numbered files made by hard link.
//!
//! | path | what it is |
//! | --- | --- |
//! | `<name>` | an object |
//! | `head/<n>` | a head, sixteen hexadecimal digits; the highest number wins |
//! | `making/<nonce>` | a file that is being written; locked by its writer, removed at the next start if nobody holds it |
//!
//! A file is written and synced under `making/`, then linked to its name, which the file system does for one caller only;
//! then the folder is synced, and only then it counts. The highest head is never removed. A caller that slept between
//! looking and linking may link a number that was used and removed: so heads are listed again after each creation, and
//! only the highest is a success. Network file systems do not promise any of this and are refused.

use std::{
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use bytes::Bytes;
use cairn_clock::Entropy;

use crate::{
    Disk, StoreError, SystemDisk,
    disk::{read_file, sync_folder, write_evenly},
    store::{Head, HeadVersion, Listed, Store},
};

/// Old heads that are kept below the highest, for whoever wants to know what happened.
const HEADS_KEPT: u64 = 4;
/// How often a head may be replaced while it is being read, before reading gives up.
const HEAD_TRIES_MAX: usize = 64;

/// What `statfs` calls file systems on other machines (Linux, `statfs(2)`), where links and syncs promise too little.
const NETWORK_FILE_SYSTEMS: &[(u64, &str)] = &[
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xfe53_4d42, "SMB2"),
    (0xff53_4d42, "CIFS"),
    (0x564c, "NCP"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x7375_7245, "Coda"),
    (0x00c3_6400, "Ceph"),
    (0x0102_1997, "9P"),
    (0x0bd0_0bd0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x7461_636f, "OCFS2"),
    (0x0116_1970, "GFS2"),
];

/// A store in a folder.
#[derive(Debug, Clone)]
pub struct FolderStore {
    root: PathBuf,
}

impl FolderStore {
    /// A store in `root`; nothing is touched before [`Store::prepare`].
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        done.map_err(|error| StoreError::Failed { reason: error.to_string() })?
    }

    fn failed(&self, error: &io::Error) -> StoreError {
        StoreError::Failed { reason: format!("{}: {error}", self.root.display()) }
    }

    fn prepare_now(&self) -> Result<(), StoreError> {
        let fail = |error: io::Error| self.failed(&error);
        SystemDisk.create_folder(&self.root).map_err(fail)?;
        if let Some(kind) = network_file_system(&self.root) {
            let reason = format!(
                "{} is on a network file system ({kind}), which does not keep what was synced in the order in which it \
                 was: use a folder on a disk of this machine, or kind = \"s3\"",
                self.root.display()
            );
            return Err(StoreError::Unsupported { reason });
        }
        for folder in ["head", "making"] {
            SystemDisk.create_folder(&self.root.join(folder)).map_err(fail)?;
        }
        for entry in fs::read_dir(self.root.join("making")).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            // Its writer holds the lock; what nobody holds was left by a crash.
            if fs::File::open(&path).is_ok_and(|file| file.try_lock().is_ok()) {
                let _ = fs::remove_file(&path);
            }
        }
        self.probe()
    }

    /// Sees whether hard links are made here at all, and for one caller only.
    fn probe(&self) -> Result<(), StoreError> {
        let (path, _held) = self.make(b"probe").map_err(|error| self.failed(&error))?;
        let linked = path.with_extension("linked");
        let first = fs::hard_link(&path, &linked);
        let second = fs::hard_link(&path, &linked);
        let _ = fs::remove_file(&linked);
        let _ = fs::remove_file(&path);
        let exclusive = second.is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists);
        if first.is_ok() && exclusive {
            return Ok(());
        }
        let reason = format!(
            "{} is on a file system without hard links, which the object store needs to know its owner: use a folder on \
             a local disk, or kind = \"s3\"",
            self.root.display()
        );
        Err(StoreError::Unsupported { reason })
    }

    /// A synced file under `making/`, held until the guard is dropped.
    fn make(&self, bytes: &[u8]) -> io::Result<(PathBuf, fs::File)> {
        let path = self.root.join("making").join(format!("{:016x}", Entropy::system().next_u64()));
        let mut file = fs::File::options().write(true).create_new(true).open(&path)?;
        let written = file.lock().and_then(|()| write_evenly(&mut file, bytes)).and_then(|()| file.sync_all());
        match written {
            Ok(()) => Ok((path, file)),
            Err(error) => {
                let _ = fs::remove_file(&path);
                Err(error)
            }
        }
    }

    /// Gives synced bytes a name that nothing has; the name is durable when this returns, also where it was taken.
    fn link(&self, bytes: &[u8], to: &Path) -> io::Result<()> {
        let folder = to.parent().expect("every name lies in a folder");
        SystemDisk.create_folder(folder)?;
        let (made, _held) = self.make(bytes)?;
        let linked = fs::hard_link(&made, to);
        let _ = fs::remove_file(&made);
        match linked {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            // An epoch's folder may be of a process that was killed before it synced the one above.
            linked => folder.parent().map_or(Ok(()), sync_folder).and_then(|()| sync_folder(folder)).and(linked),
        }
    }

    fn heads(&self) -> io::Result<Vec<u64>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.root.join("head"))? {
            let name = entry?.file_name();
            found.extend(name.to_str().and_then(|name| u64::from_str_radix(name, 16).ok()));
        }
        found.sort_unstable();
        Ok(found)
    }

    fn head_path(&self, number: u64) -> PathBuf {
        self.root.join("head").join(format!("{number:016x}"))
    }

    fn head_now(&self) -> Result<Option<Head>, StoreError> {
        for _ in 0..HEAD_TRIES_MAX {
            let Some(highest) = self.heads().map_err(|error| self.failed(&error))?.pop() else { return Ok(None) };
            match fs::read(self.head_path(highest)) {
                Ok(bytes) => {
                    let version = HeadVersion::new(format!("{highest:016x}"));
                    return Ok(Some(Head { version, bytes: bytes.into() }));
                }
                // Replaced and removed since it was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(self.failed(&error)),
            }
        }
        Err(StoreError::Failed { reason: "the head changes faster than it can be read".to_owned() })
    }

    fn replace_head_now(&self, was: Option<&HeadVersion>, bytes: &[u8]) -> Result<HeadVersion, StoreError> {
        let fail = |error: io::Error| self.failed(&error);
        let before = was.map_or(Some(0), |was| u64::from_str_radix(was.as_str(), 16).ok());
        let number = before.and_then(|before| before.checked_add(1)).ok_or(StoreError::HeadChanged)?;
        let path = self.head_path(number);
        if let Err(error) = self.link(bytes, &path) {
            if error.kind() != io::ErrorKind::AlreadyExists {
                return Err(fail(error));
            }
            // Somebody's, or ours, whose answer was lost.
            if fs::read(&path).map_err(fail)? != bytes {
                return Err(StoreError::HeadChanged);
            }
        }
        let heads = self.heads().map_err(fail)?;
        if heads.last() != Some(&number) {
            return Err(StoreError::HeadChanged);
        }
        for old in heads.into_iter().filter(|old| old + HEADS_KEPT < number) {
            let _ = fs::remove_file(self.head_path(old));
        }
        Ok(HeadVersion::new(format!("{number:016x}")))
    }

    fn read(&self, name: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        let missing = || StoreError::Missing { name: name.to_owned() };
        let fail = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => missing(),
            io::ErrorKind::UnexpectedEof => {
                StoreError::Damaged { name: name.to_owned(), what: "it is shorter than it was".to_owned() }
            }
            _ => self.failed(&error),
        };
        // What is there does not change.
        read_file(&self.root.join(name), range).map_err(fail)
    }

    fn list_below(&self, folder: &Path, into: &mut Vec<Listed>) -> io::Result<()> {
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        for entry in entries {
            let path = entry?.path();
            let about = match fs::symlink_metadata(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            if about.is_dir() {
                self.list_below(&path, into)?;
            } else if let Some(name) = path.strip_prefix(&self.root).ok().and_then(Path::to_str) {
                into.push(Listed { name: name.to_owned(), bytes: about.len() });
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Store for FolderStore {
    async fn prepare(&self) -> Result<(), StoreError> {
        self.blocking(|store| {
            store.prepare_now().map_err(|error| match error {
                StoreError::Failed { reason } => StoreError::Unsupported {
                    reason: format!(
                        "{reason}: make it a folder that can be written, or name another (path in [store])"
                    ),
                },
                other => other,
            })
        })
        .await
    }

    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.blocking(move |store| {
            store.link(&bytes, &store.root.join(&name)).map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => StoreError::Exists { name },
                _ => store.failed(&error),
            })
        })
        .await
    }

    async fn get(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let name = name.to_owned();
        self.blocking(move |store| store.read(&name, Some(range))).await
    }

    async fn get_all(&self, name: &str) -> Result<Bytes, StoreError> {
        let name = name.to_owned();
        self.blocking(move |store| store.read(&name, None)).await
    }

    async fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        let folder = folder.to_owned();
        self.blocking(move |store| {
            let mut found = Vec::new();
            store.list_below(&store.root.join(folder), &mut found).map_err(|error| store.failed(&error))?;
            found.sort();
            Ok(found)
        })
        .await
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.blocking(move |store| {
            let path = store.root.join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(store.failed(&error)),
                _ => {}
            }
            // An epoch's folder goes with its last object; one that holds something stays by itself.
            if let Some(folder) = path.parent().filter(|folder| *folder != store.root) {
                let _ = fs::remove_dir(folder);
            }
            Ok(())
        })
        .await
    }

    async fn head(&self) -> Result<Option<Head>, StoreError> {
        self.blocking(Self::head_now).await
    }

    async fn replace_head(&self, was: Option<&HeadVersion>, bytes: Bytes) -> Result<HeadVersion, StoreError> {
        let was = was.cloned();
        self.blocking(move |store| store.replace_head_now(was.as_ref(), &bytes)).await
    }
}

/// The name of the network file system that holds `path`, if one does.
#[cfg(target_os = "linux")]
fn network_file_system(path: &Path) -> Option<&'static str> {
    let about = rustix::fs::statfs(path).ok()?;
    // The kernel's constants are 32 bits wide, whatever the width and sign of the field.
    named((about.f_type as u64) & 0xffff_ffff)
}

/// Elsewhere the probe of hard links has to do.
#[cfg(not(target_os = "linux"))]
fn network_file_system(_: &Path) -> Option<&'static str> {
    None
}

#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
fn named(kind: u64) -> Option<&'static str> {
    NETWORK_FILE_SYSTEMS.iter().find(|(known, _)| *known == kind).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_keeps_the_contract() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = FolderStore::new(folder.path().join("objects"));
        crate::store::conformance::run(&store, &FolderStore::new(folder.path().join("objects"))).await;
    }

    #[tokio::test]
    async fn a_head_number_that_was_used_and_removed_is_no_success() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = FolderStore::new(folder.path().to_owned());
        store.prepare().await.expect("prepared");
        let first = store.replace_head(None, Bytes::from_static(b"1")).await.expect("first");
        let mut last = first.clone();
        for n in 0..9_u8 {
            last = store.replace_head(Some(&last), Bytes::from(vec![b'n', n])).await.expect("next");
        }
        assert!(!store.head_path(2).exists(), "the second head is still there, so this test tests nothing");
        // A sleeper that read head 1 long ago: its link succeeds, and must count for nothing.
        let slept = store.replace_head(Some(&first), Bytes::from_static(b"slept")).await;
        assert!(matches!(slept, Err(StoreError::HeadChanged)), "{slept:?}");
        let head = store.head().await.expect("readable").expect("a head");
        assert_eq!((head.version, &head.bytes[..]), (last, &[b'n', 8][..]));
    }

    #[tokio::test]
    async fn what_a_crash_left_half_made_is_removed_and_what_is_being_made_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = FolderStore::new(folder.path().to_owned());
        store.prepare().await.expect("prepared");
        let (left, guard) = store.make(b"left").expect("made");
        drop(guard);
        let (held, _guard) = store.make(b"held").expect("made");
        store.prepare().await.expect("prepared again");
        assert_eq!((left.exists(), held.exists()), (false, true));
    }

    #[test]
    fn network_file_systems_are_known_by_name() {
        assert_eq!(named(0x6969), Some("NFS"));
        assert_eq!(named(0xff53_4d42), Some("CIFS"));
        assert_eq!(named(0xef53), None, "ext4 is a disk of this machine");
    }
}
