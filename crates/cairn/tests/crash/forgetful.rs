//! A disk below the real process that forgets what was not synced: builds the layer in forgetful.c, hands a process its
//! variables, and after the kill undoes what no fsync had covered.
//!
//! kill -9 keeps the page cache; this takes it away as power loss may. Nothing here may touch a folder other than the one
//! that it was made for, and it must undo only when the process is gone. Power loss is harsher than a kill in the order of
//! what survives too: [`Loss::Some`] keeps an arbitrary part of what was not covered, sector by sector.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use cairn_clock::Entropy;

const HEAD_BYTES: usize = 56;
const MAGIC: u32 = 0x464f_5247;
/// What a disk writes whole.
const SECTOR_BYTES: u64 = 512;

/// How much of what was not synced is lost.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Loss {
    /// All of it.
    All,
    /// What a seed says: later names, and any sectors.
    Some(u64),
}

/// The layer over one folder.
pub(crate) struct Forgetful {
    below: PathBuf,
    journal: PathBuf,
}

#[derive(Debug)]
struct Entry {
    kind: u8,
    inode: u64,
    folder: u64,
    offset: u64,
    length: u64,
    path: PathBuf,
    other: String,
    data: Vec<u8>,
    at: u64,
}

/// The compiled layer; built once for a run, with the C compiler that building Cairn needs anyway.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crash/forgetful.c");
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("forgetful-{}.so", std::process::id()));
        let output = Command::new(std::env::var("CC").unwrap_or_else(|_| "cc".to_owned()))
            .args(["-O1", "-shared", "-fPIC", "-o"])
            .arg(&library)
            .arg(&source)
            .args(["-ldl", "-lpthread"])
            .output()
            .expect("a C compiler, which building Cairn needs too");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        library
    })
}

impl Forgetful {
    /// A layer over `below`, its journal in `journal` beside it.
    pub(crate) fn new(below: &Path, journal: &Path) -> Self {
        fs::create_dir_all(journal.join("grave")).expect("a folder");
        let below = below
            .parent()
            .expect("a parent")
            .canonicalize()
            .expect("it is there")
            .join(below.file_name().expect("a name"));
        Self { below, journal: journal.canonicalize().expect("it is there") }
    }

    /// What a process below which the layer lies is started with.
    pub(crate) fn env(&self) -> Vec<(&'static str, String)> {
        let text = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
        vec![
            ("LD_PRELOAD", text(library())),
            ("FORGETFUL_BELOW", text(&self.below)),
            ("FORGETFUL_JOURNAL", text(&self.journal)),
        ]
    }

    /// Makes the disk full, stalled or broken, or lets it be again.
    pub(crate) fn fault(&self, name: &str, is_on: bool) {
        let path = self.journal.join(name);
        if is_on {
            fs::write(path, "").expect("written");
        } else {
            fs::remove_file(path).expect("it was on");
        }
    }

    /// Takes the power away: undoes what no sync covered. The process must be gone. Gives how many changes were undone.
    pub(crate) fn lose(&self, loss: Loss) -> usize {
        let entries = self.read();
        let mut synced: BTreeMap<u64, u64> = BTreeMap::new();
        for entry in entries.iter().filter(|entry| entry.kind == b'S') {
            let upto = synced.entry(entry.inode).or_default();
            *upto = entry.offset.max(*upto);
        }
        let open: Vec<_> = entries
            .iter()
            .filter(|entry| {
                let by = if matches!(entry.kind, b'W' | b'T') { entry.inode } else { entry.folder };
                entry.kind != b'S' && synced.get(&by).is_none_or(|upto| entry.at >= *upto)
            })
            .collect();
        let coins = match loss {
            Loss::All => None,
            Loss::Some(seed) => Some(seed),
        };
        self.lose_bytes(&open, coins);
        self.lose_names(&open, coins);
        let _ = fs::remove_file(self.journal.join("journal"));
        for kept in fs::read_dir(self.journal.join("grave")).expect("a folder").flatten() {
            fs::remove_file(kept.path()).expect("removed");
        }
        open.len()
    }

    /// Bytes and lengths, newest change first, whatever the names are by now.
    fn lose_bytes(&self, open: &[&Entry], coins: Option<u64>) {
        let mut paths = BTreeMap::new();
        gather(&self.below, &mut paths);
        gather(&self.journal.join("grave"), &mut paths);
        for entry in open.iter().rev().filter(|entry| matches!(entry.kind, b'W' | b'T')) {
            let Some(path) = paths.get(&entry.inode) else { continue };
            let file = File::options().read(true).write(true).open(path).expect("a file of the folder");
            let lost = |place: u64| coins.is_none_or(|seed| toss(seed, entry.inode, place));
            let size = file.metadata().expect("a size").len();
            if lost(u64::MAX) {
                file.set_len(entry.length).expect("a length");
            }
            let mut done = 0;
            while done < entry.data.len() {
                let at = entry.offset + done as u64;
                let some = ((SECTOR_BYTES - at % SECTOR_BYTES) as usize).min(entry.data.len() - done);
                if lost(at / SECTOR_BYTES) && (size > at || lost(u64::MAX)) {
                    file.write_all_at(&entry.data[done..done + some], at).expect("old bytes");
                }
                done += some;
            }
        }
    }

    /// Names, newest change first; a part of the journal of names survives from its beginning, never from its middle.
    fn lose_names(&self, open: &[&Entry], coins: Option<u64>) {
        let names: Vec<_> = open.iter().filter(|entry| matches!(entry.kind, b'C' | b'R' | b'U' | b'M')).collect();
        let kept = coins.map_or(0, |seed| Entropy::seeded(seed).next_u64() as usize % (names.len() + 1));
        for entry in names[kept..].iter().rev() {
            match entry.kind {
                b'C' => drop(fs::remove_file(&entry.path)),
                b'M' => drop(fs::remove_dir_all(&entry.path)),
                b'R' => {
                    let (to, grave) = entry.other.split_once('\n').expect("two names");
                    // The rename itself may not have happened before the kill.
                    if fs::metadata(to).is_ok_and(|found| found.ino() == entry.inode) {
                        fs::rename(to, &entry.path).expect("its old name");
                        if !grave.is_empty() {
                            fs::rename(grave, to).expect("what stood there");
                        }
                    }
                }
                _ => drop(fs::rename(&entry.other, &entry.path)),
            }
        }
    }

    fn read(&self) -> Vec<Entry> {
        let bytes = fs::read(self.journal.join("journal")).unwrap_or_default();
        let (mut entries, mut at) = (Vec::new(), 0);
        while at + HEAD_BYTES <= bytes.len() {
            let u32_at = |place: usize| u32::from_ne_bytes(bytes[at + place..at + place + 4].try_into().expect("four"));
            let u64_at =
                |place: usize| u64::from_ne_bytes(bytes[at + place..at + place + 8].try_into().expect("eight"));
            assert_eq!(u32_at(0), MAGIC, "the layer's journal is not understood at {at}");
            let (path, other, data) = (u32_at(40) as usize, u32_at(44) as usize, u64_at(48) as usize);
            let body = at + HEAD_BYTES;
            let end = body + path + other + data;
            if end > bytes.len() {
                break; // killed while it wrote this one: then the change was not made
            }
            let text = |from: usize, some: usize| String::from_utf8_lossy(&bytes[from..from + some]).into_owned();
            entries.push(Entry {
                kind: u32_at(4) as u8,
                inode: u64_at(8),
                folder: u64_at(16),
                offset: u64_at(24),
                length: u64_at(32),
                path: text(body, path).into(),
                other: text(body + path, other),
                data: bytes[body + path + other..end].to_vec(),
                at: at as u64,
            });
            at = end;
        }
        entries
    }
}

fn gather(folder: &Path, paths: &mut BTreeMap<u64, PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(found) = entry.metadata() else { continue };
        if found.is_dir() {
            gather(&entry.path(), paths);
        } else {
            paths.insert(found.ino(), entry.path());
        }
    }
}

/// A coin that falls the same way each time for one place of one file.
fn toss(seed: u64, inode: u64, place: u64) -> bool {
    Entropy::seeded(seed ^ inode.rotate_left(32) ^ place).next_u64().is_multiple_of(2)
}

/// The files below a folder, by their names from there, with their contents.
fn contents(folder: &Path) -> BTreeMap<String, String> {
    let mut paths = BTreeMap::new();
    gather(folder, &mut paths);
    let name = |path: &PathBuf| path.strip_prefix(folder).expect("below").to_string_lossy().into_owned();
    paths
        .values()
        .map(|path| (name(path), String::from_utf8_lossy(&fs::read(path).expect("read")).into_owned()))
        .collect()
}

/// Not a test of its own: the process that the next test runs above the layer.
#[test]
fn above_the_layer() {
    let Some(folder) = std::env::var_os("FORGETFUL_EXERCISE").map(PathBuf::from) else { return };
    let folder_is_synced = || File::open(&folder).expect("a folder").sync_all().expect("synced");
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).expect("written");
    fs::create_dir(&folder).expect("made");
    File::open(folder.parent().expect("a parent")).expect("a folder").sync_all().expect("synced");
    for name in ["kept", "changed", "replaced", "removed"] {
        let file = File::create(folder.join(name)).expect("created");
        std::io::Write::write_all(&mut &file, b"first").expect("written");
        file.sync_all().expect("synced");
    }
    folder_is_synced();
    let file = File::options().write(true).open(folder.join("changed")).expect("opened");
    file.write_all_at(b"SECOND and longer", 0).expect("written");
    write("new", "never synced");
    write("beside", "second");
    File::open(folder.join("beside")).expect("opened").sync_all().expect("synced");
    fs::rename(folder.join("beside"), folder.join("replaced")).expect("renamed");
    fs::remove_file(folder.join("removed")).expect("removed");
    fs::create_dir(folder.join("inner")).expect("made");
    write("inner/deep", "synced in a folder that was not");
    File::open(folder.join("inner/deep")).expect("opened").sync_all().expect("synced");
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).expect("killed");
}

#[test]
fn the_layer_forgets_what_was_not_synced_and_nothing_else() {
    let scratch = tempfile::tempdir().expect("a folder");
    let below = scratch.path().join("below");
    let layer = Forgetful::new(&below, &scratch.path().join("journal"));
    let status = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "forgetful::above_the_layer"])
        .env("FORGETFUL_EXERCISE", &below)
        .envs(layer.env())
        .output()
        .expect("it runs")
        .status;
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status}");
    assert_eq!(contents(&below)["replaced"], "second", "before the loss the change shows");
    assert!(layer.lose(Loss::All) > 0);
    let first = |name: &str| (name.to_owned(), "first".to_owned());
    let expected: BTreeMap<_, _> = ["kept", "changed", "replaced", "removed"].map(first).into();
    // `beside` had its bytes synced and its name not: as a name it is lost.
    assert_eq!(contents(&below), expected);
    assert_eq!(contents(&scratch.path().join("journal")).keys().collect::<BTreeSet<_>>(), BTreeSet::new());
}
