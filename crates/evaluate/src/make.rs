//! Making a data set, and making it again.
//!
//! Files are written beside each other under other names and renamed when whole, the manifest last: a folder with a manifest is a whole
//! data set. [`rebuild`] never touches the data set that it compares with.

use std::{
    collections::BTreeMap,
    fs, io,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use cairn_backbone::{reader::ReaderError, records::Records};
use cairn_clock::Timestamp;
use cairn_consumers::Event;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{
    FileOf, LAYOUT, MANIFEST, Manifest, Options, PriceError, Range, Row,
    gather::Gathering,
    manifest::Masking,
    reading::{self, Lost},
};

/// Bytes of a manifest, at most.
const MANIFEST_BYTES_MAX: u64 = 16 << 20;

/// Why a data set was not made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// The backbone.
    #[error(transparent)]
    Read(#[from] ReaderError),
    /// No record came.
    #[error("the backbone has given nothing for a minute: see that it runs, and make the data set again")]
    Silent,
    /// There is nothing to make it of.
    #[error("there are no calls at that address: has a gateway written to it yet?")]
    NoTopics,
    /// It would be larger than it may.
    #[error(
        "there are more than {most} {what}: choose fewer by time, server, tool, tenant or workflow, or allow more with --calls-max"
    )]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        most: usize,
    },
    /// A price is none.
    #[error(transparent)]
    Price(#[from] PriceError),
    /// There is a data set already.
    #[error("{} is a data set already: name another folder, or remove it", folder.display())]
    Exists {
        /// Where.
        folder: PathBuf,
    },
    /// A manifest cannot be used.
    #[error("{}: {reason}", path.display())]
    Manifest {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A form in which rows are written. The same rows MUST give the same bytes.
pub trait Format {
    /// Its name, and what the file's ends in.
    fn name(&self) -> &'static str;

    /// Writes all rows.
    ///
    /// # Errors
    /// The file cannot be written.
    fn write(&self, rows: &[Row], to: &mut dyn Write) -> io::Result<()>;
}

/// One JSON object a line.
#[derive(Clone, Copy, Debug)]
pub struct Jsonl;

impl Format for Jsonl {
    fn name(&self) -> &'static str {
        "jsonl"
    }

    fn write(&self, rows: &[Row], to: &mut dyn Write) -> io::Result<()> {
        for row in rows {
            serde_json::to_writer(&mut *to, row)?;
            to.write_all(b"\n")?;
        }
        Ok(())
    }
}

/// A data set that was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Made {
    /// Where its manifest lies.
    pub manifest_path: PathBuf,
    /// What it says.
    pub manifest: Manifest,
}

/// Why, or in what, a rebuilt data set differs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Difference {
    /// The topic is gone, or another one has its name.
    TopicGone {
        /// What is not there any more.
        range: Range,
    },
    /// Retention removed records.
    Removed {
        /// What is not there any more.
        range: Range,
    },
    /// The partition ends before: the log has lost its end, or is another one.
    Ended {
        /// What is not there.
        range: Range,
    },
    /// Subjects were erased since: so many more rows are without texts.
    Erased {
        /// How many.
        rows: u64,
    },
    /// Another version of the program makes it.
    Program {
        /// That made it.
        then: String,
        /// That makes it again.
        now: String,
    },
    /// A file is not the same.
    File {
        /// Which.
        name: String,
        /// The digest that the manifest names.
        then: String,
        /// What it is now.
        now: String,
    },
    /// Rows are not the same, as far as the old file is there to compare.
    Rows {
        /// So many are not there any more.
        missing: u64,
        /// So many are new.
        new: u64,
        /// So many are there and other.
        changed: u64,
        /// Some of the calls.
        calls: Vec<String>,
    },
    /// A file of a format that this program does not write was not made again.
    NotMade {
        /// Which.
        name: String,
    },
}

/// What rebuilding gave.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Rebuilt {
    /// Whether every file that was made again is the same, to the byte.
    pub is_identical: bool,
    /// Rows now.
    pub rows: u64,
    /// What differs, and what may be why.
    pub differences: Vec<Difference>,
}

/// Makes a data set in a folder, `calls.<format>` for each format, and its manifest.
///
/// # Errors
/// As [`MakeError`] says; then the folder has no manifest.
pub fn make(
    records: &Records,
    options: &Options,
    formats: &[&dyn Format],
    folder: &Path,
    (program, now): ((&str, &str), Timestamp),
) -> Result<Made, MakeError> {
    options.prices.check()?;
    let manifest_path = folder.join(MANIFEST);
    if manifest_path.exists() {
        return Err(MakeError::Exists { folder: folder.to_owned() });
    }
    let ranges = reading::ranges(records, &options.filters)?;
    if ranges.is_empty() {
        return Err(MakeError::NoTopics);
    }
    let mut gathering = Gathering::new(options);
    let rows = gathered(records, &ranges, &mut gathering)?;
    fs::create_dir_all(folder).map_err(|source| MakeError::File { path: folder.to_owned(), source })?;
    let files = formats.iter().map(|format| written(*format, &rows, folder)).collect::<Result<_, _>>()?;
    let texts = if options.inline { "as recorded" } else { "no texts" };
    let manifest = Manifest {
        layout: LAYOUT,
        program: program.0.to_owned(),
        program_version: program.1.to_owned(),
        made_at: now.to_string(),
        cluster_id: records.cluster_id(),
        options: options.clone(),
        ranges,
        masking: Masking { texts: texts.to_owned(), detectors: gathering.detectors.into_iter().collect() },
        contracts: gathering.contracts.into_iter().map(|(name, of)| (name, of.into_iter().collect())).collect(),
        counts: gathering.counts,
        files,
    };
    manifest.save(&manifest_path)?;
    Ok(Made { manifest_path, manifest })
}

/// Makes the files of a manifest again, into `into`, and says what differs from it.
///
/// # Errors
/// As [`MakeError`] says. A data set that differs is no error.
pub fn rebuild(
    records: &Records,
    manifest_path: &Path,
    formats: &[&dyn Format],
    into: &Path,
    version: &str,
) -> Result<Rebuilt, MakeError> {
    let manifest = Manifest::read(manifest_path)?;
    let mut differences = Vec::new();
    if manifest.program_version != version {
        differences.push(Difference::Program { then: manifest.program_version.clone(), now: version.to_owned() });
    }
    let (ranges, lost) = reading::still(records, &manifest.ranges)?;
    differences.extend(lost.into_iter().map(|lost| match lost {
        Lost::Topic(range) => Difference::TopicGone { range },
        Lost::Removed(range) => Difference::Removed { range },
        Lost::Ended(range) => Difference::Ended { range },
    }));
    let mut gathering = Gathering::new(&manifest.options);
    let rows = gathered(records, &ranges, &mut gathering)?;
    let erased = gathering.counts.erased.saturating_sub(manifest.counts.erased);
    if erased > 0 {
        differences.push(Difference::Erased { rows: erased });
    }
    fs::create_dir_all(into).map_err(|source| MakeError::File { path: into.to_owned(), source })?;
    let mut is_identical = true;
    for file in &manifest.files {
        let Some(format) = formats.iter().find(|format| format.name() == file.format) else {
            differences.push(Difference::NotMade { name: file.name.clone() });
            continue;
        };
        let made = written(*format, &rows, into)?;
        if made.digest != file.digest {
            is_identical = false;
            let (name, then) = (file.name.clone(), file.digest.clone());
            differences.push(Difference::File { name, then, now: made.digest });
        }
    }
    if !is_identical {
        let beside = manifest_path.parent().unwrap_or(Path::new("."));
        differences.extend(compared(&beside.join("calls.jsonl"), &manifest, &rows));
    }
    Ok(Rebuilt { is_identical, rows: rows.len() as u64, differences })
}

fn gathered(records: &Records, ranges: &[Range], gathering: &mut Gathering<'_>) -> Result<Vec<Row>, MakeError> {
    reading::read(records, ranges, |record| {
        gathering.counts.records += 1;
        match Event::read(record) {
            Ok(event) => gathering.take(&event),
            Err(_) => {
                gathering.counts.no_events += 1;
                Ok(())
            }
        }
    })?;
    Ok(gathering.rows())
}

/// Bytes on their way to a file, with their digest.
struct Digesting<W> {
    inner: W,
    digest: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.digest.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Writes one file of rows, whole or not at all.
fn written(format: &dyn Format, rows: &[Row], folder: &Path) -> Result<FileOf, MakeError> {
    let name = format!("calls.{}", format.name());
    let (path, making) = (folder.join(&name), folder.join(format!("{name}.making")));
    let write = || {
        let file = fs::File::create(&making)?;
        let mut out = Digesting { inner: BufWriter::new(file), digest: Sha256::new(), bytes: 0 };
        format.write(rows, &mut out)?;
        out.flush()?;
        out.inner.get_ref().sync_all()?;
        fs::rename(&making, &path)?;
        Ok(FileOf {
            name,
            format: format.name().to_owned(),
            bytes: out.bytes,
            digest: format!("sha256:{}", hex::encode(out.digest.finalize())),
        })
    };
    write().map_err(|source| MakeError::File { path: path.clone(), source })
}

/// The rows of a data set's `calls.jsonl`, which must be as its manifest says.
///
/// # Errors
/// It is not there, or another.
pub fn rows_of(manifest: &Manifest, folder: &Path) -> Result<Vec<Row>, MakeError> {
    let path = folder.join("calls.jsonl");
    let failed = |source| MakeError::File { path: path.clone(), source };
    let bytes = fs::read(&path).map_err(failed)?;
    let digest = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
    if !manifest.files.iter().any(|file| file.format == "jsonl" && file.digest == digest) {
        let reason = "it is not the file that the manifest names: its digest is another".to_owned();
        return Err(MakeError::Manifest { path, reason });
    }
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(serde_json::from_slice).collect::<Result<_, _>>().map_err(|error| failed(error.into()))
}

/// How the rows differ from those in the old file, where that is still the one of the manifest.
fn compared(path: &Path, manifest: &Manifest, rows: &[Row]) -> Option<Difference> {
    const CALLS_NAMED_MAX: usize = 10;
    let then = rows_of(manifest, path.parent()?).ok()?;
    let mut then: BTreeMap<&str, &Row> = then.iter().map(|row| (row.call_id.as_str(), row)).collect();
    let (mut new, mut changed, mut calls) = (0, 0, Vec::new());
    for row in rows {
        match then.remove(row.call_id.as_str()) {
            Some(was) if was == row => continue,
            Some(_) => changed += 1,
            None => new += 1,
        }
        calls.push(row.call_id.clone());
    }
    let missing = then.len() as u64;
    calls.extend(then.into_keys().map(str::to_owned));
    calls.truncate(CALLS_NAMED_MAX);
    Some(Difference::Rows { missing, new, changed, calls })
}

impl Manifest {
    /// Reads one.
    ///
    /// # Errors
    /// It is none, or a newer program's.
    pub fn read(path: &Path) -> Result<Self, MakeError> {
        let failed = |source| MakeError::File { path: path.to_owned(), source };
        let said = |reason: String| MakeError::Manifest { path: path.to_owned(), reason };
        if fs::metadata(path).map_err(failed)?.len() > MANIFEST_BYTES_MAX {
            return Err(said("it is too large to be a manifest".to_owned()));
        }
        let bytes = fs::read(path).map_err(failed)?;
        let value: serde_json::Value = serde_json::from_slice(&bytes)
            .map_err(|error| said(format!("it is no manifest of a data set: {error}")))?;
        match value.get("layout").and_then(serde_json::Value::as_u64) {
            Some(layout) if layout == u64::from(LAYOUT) => {}
            Some(layout) => {
                return Err(said(format!(
                    "it has layout {layout}, and this program knows {LAYOUT}: use the one that made it"
                )));
            }
            None => return Err(said("it is no manifest of a data set".to_owned())),
        }
        serde_json::from_value(value).map_err(|error| said(format!("it is no manifest of a data set: {error}")))
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), MakeError> {
        let making = path.with_extension("json.making");
        let write = || {
            let mut text = serde_json::to_string_pretty(self)?;
            text.push('\n');
            let mut file = fs::File::create(&making)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&making, path)
        };
        write().map_err(|source| MakeError::File { path: path.to_owned(), source })
    }

    /// Adds a file of another format, made of the rows of `calls.jsonl`, and saves.
    ///
    /// # Errors
    /// As [`rows_of`], or it cannot be written.
    pub fn add(&mut self, format: &dyn Format, path: &Path) -> Result<FileOf, MakeError> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let rows = rows_of(self, folder)?;
        let file = written(format, &rows, folder)?;
        self.files.retain(|other| other.name != file.name);
        self.files.push(file.clone());
        self.save(path)?;
        Ok(file)
    }
}
