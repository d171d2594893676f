//! Making rows again after a fault was mended: the files of a part of the table are replaced by what the trail gives now, in one commit.
//!
//! What is replaced are whole files, because Iceberg's files do not change: those with rows of the time that was asked for, and with
//! them every other that holds a part of the same offsets. Nobody sees a gap or a half: readers go on with the snapshot before until the
//! new one is whole. The writer may go on beside it. What the trail does not keep any more stays as it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use cairn_backbone::{group::Place, records::Records};
use cairn_consumers::Event;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    iceberg::{
        manifest::{DataFile, Entry},
        metadata::Operation,
    },
    near::{NEAR, Near},
    rows,
    sink::{Covered, Gathered},
    table::{Change, Table, TableError},
};

/// How often it is begun anew because what it would replace has changed.
const TRIES_MAX: u32 = 5;
const POLL: Duration = Duration::from_millis(100);
/// After so long without a record the backbone counts as away.
const SILENT_MAX: Duration = Duration::from_secs(60);

/// What shall be made again.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wanted {
    /// These topics; all where none is named.
    pub topics: Vec<String>,
    /// Events of this time or later, in microseconds since 1970.
    pub from_us: Option<i64>,
    /// Events before this time.
    pub to_us: Option<i64>,
}

/// What a replay did, or would do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Replayed {
    /// Files that are replaced.
    pub files: usize,
    /// Their rows.
    pub rows_before: i64,
    /// The rows that stand there now.
    pub rows_now: i64,
    /// Files that stay because the trail does not keep their offsets any more.
    pub kept: usize,
}

/// Why a replay did not come to its end; the table is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The table.
    #[error("{0}")]
    Table(#[from] TableError),
    /// The backbone.
    #[error(transparent)]
    Read(#[from] cairn_backbone::reader::ReaderError),
    /// No record came.
    #[error("the backbone has given nothing for {} s: see that it runs, and run the replay again", SILENT_MAX.as_secs())]
    Silent,
    /// It was asked to stop.
    #[error("the replay was stopped before its end: the table is as it was")]
    Stopped,
}

/// A file with the offsets that it holds.
#[derive(Clone, Debug)]
struct File {
    entry: Entry,
    covers: Vec<Covered>,
}

impl File {
    fn is_of(&self, wanted: &Wanted) -> bool {
        let time = self.entry.file.bounds.iter().find(|bound| bound.field == crate::events::TIME);
        let long = |bytes: &[u8]| bytes.try_into().map(i64::from_le_bytes).unwrap_or_default();
        let (first, last) = time.map_or((i64::MIN, i64::MAX), |bound| (long(&bound.lower), long(&bound.upper)));
        wanted.from_us.is_none_or(|from| last >= from) && wanted.to_us.is_none_or(|to| first < to)
    }
}

type Key = (String, String, u32);

fn key(covered: &Covered) -> Key {
    (covered.topic.clone(), covered.topic_id.clone(), covered.partition)
}

/// The offsets that some files hold together, by partition.
fn hull<'f>(files: impl Iterator<Item = &'f File>) -> BTreeMap<Key, (u64, u64)> {
    let mut hull: BTreeMap<Key, (u64, u64)> = BTreeMap::new();
    for covered in files.flat_map(|file| &file.covers) {
        let bounds = hull.entry(key(covered)).or_insert((covered.from, covered.to));
        *bounds = (bounds.0.min(covered.from), bounds.1.max(covered.to));
    }
    hull
}

/// Those files, and every other that holds a part of the same offsets.
fn closed(files: &[File], mut chosen: BTreeSet<usize>) -> BTreeSet<usize> {
    loop {
        let hull = hull(chosen.iter().map(|index| &files[*index]));
        let touches = |file: &File| {
            let within = |covered: &Covered| {
                hull.get(&key(covered)).is_some_and(|(from, to)| covered.from < *to && covered.to > *from)
            };
            file.covers.iter().any(within)
        };
        let more: BTreeSet<usize> =
            files.iter().enumerate().filter(|(_, file)| touches(file)).map(|(index, _)| index).collect();
        if more.is_subset(&chosen) {
            return chosen;
        }
        chosen.extend(more);
    }
}

/// What is replaced, and what stays because the trail does not keep it.
async fn plan(table: &mut Table, records: &Records, wanted: &Wanted) -> Result<(Vec<File>, usize), ReplayError> {
    let mut files = Vec::new();
    for entry in table.files().await? {
        if wanted.topics.is_empty() || wanted.topics.contains(&entry.file.topic) {
            let covers = rows::covered(table.rows_of(&entry.file.path).await?)?;
            files.push(File { entry, covers });
        }
    }
    let bounded = records.partitions(|topic| cairn_contract::Topic::of_anybody(topic).is_some())?;
    let ids = records.topic_ids();
    let is_kept = |file: &File| {
        file.covers.iter().all(|covered| {
            let id = ids.get(&covered.topic).map(ToString::to_string).unwrap_or_default();
            let now = bounded.iter().find(|now| now.topic == covered.topic && now.partition == covered.partition);
            id == covered.topic_id && now.is_some_and(|now| now.start <= covered.from && now.end >= covered.to)
        })
    };
    let chosen = files.iter().enumerate().filter(|(_, file)| file.is_of(wanted)).map(|(index, _)| index).collect();
    let chosen: Vec<File> = closed(&files, chosen).into_iter().map(|index| files[index].clone()).collect();
    let (again, kept): (Vec<File>, Vec<File>) = chosen.into_iter().partition(is_kept);
    Ok((again, kept.len()))
}

/// What a replay would replace.
///
/// # Errors
/// As [`ReplayError`] says.
pub async fn planned(table: &mut Table, records: &Records, wanted: &Wanted) -> Result<Replayed, ReplayError> {
    let (again, kept) = plan(table, records, wanted).await?;
    let rows_before = again.iter().map(|file| file.entry.file.rows).sum();
    Ok(Replayed { files: again.len(), rows_before, rows_now: 0, kept })
}

/// Replaces them.
///
/// # Errors
/// As [`ReplayError`] says; then the table is as it was.
pub async fn run(
    table: &mut Table,
    records: &Records,
    wanted: &Wanted,
    bounds: (usize, &CancellationToken),
) -> Result<Replayed, ReplayError> {
    for _ in 1..TRIES_MAX {
        match replaced(table, records, wanted, bounds).await {
            // The writer put some of these files together, or retention took one.
            Err(ReplayError::Table(TableError::Elsewhere { .. })) => {}
            done => return done,
        }
    }
    replaced(table, records, wanted, bounds).await
}

async fn replaced(
    table: &mut Table,
    records: &Records,
    wanted: &Wanted,
    (file_bytes, stop): (usize, &CancellationToken),
) -> Result<Replayed, ReplayError> {
    let (again, kept) = plan(table, records, wanted).await?;
    if again.is_empty() {
        return Ok(Replayed { kept, ..Replayed::default() });
    }
    let (nonce, mut added) = (table.nonce(), Vec::new());
    for (place, (from, to)) in hull(again.iter()) {
        let mut part = Part::new(place, (from, to));
        loop {
            // What a file holds ends where the next one begins.
            let end = part.read(records, (file_bytes, stop))?;
            for (file, bytes) in part.file(table, &nonce, (added.len(), end))? {
                put(table, &file, bytes).await?;
                added.push(file);
            }
            if end >= to {
                break;
            }
        }
    }
    let replayed = Replayed {
        files: again.len(),
        rows_before: again.iter().map(|file| file.entry.file.rows).sum(),
        rows_now: added.iter().map(|file| file.rows).sum(),
        kept,
    };
    let change = Change {
        id: nonce,
        operation: Operation::Overwrite,
        moved: Vec::new(),
        added,
        removed: again.into_iter().map(|file| file.entry.file.path).collect(),
        about: vec![("cairn.reason".to_owned(), "replay".to_owned())],
    };
    table.commit(&change).await?;
    Ok(replayed)
}

async fn put(table: &Table, file: &DataFile, bytes: Bytes) -> Result<(), TableError> {
    table.put_rows(&file.path, bytes).await
}

/// One partition's offsets that are read again, a file at a time.
struct Part {
    place: Place,
    topic_id: String,
    next: u64,
    to: u64,
    file_from: u64,
    gathered: Gathered,
    near: Near,
    is_assigned: bool,
    parked: Option<Event>,
}

impl Part {
    fn new((topic, topic_id, partition): Key, (from, to): (u64, u64)) -> Self {
        Self {
            place: Place { topic, partition },
            topic_id,
            next: from,
            to,
            file_from: from,
            gathered: Gathered::default(),
            near: Near::default(),
            is_assigned: false,
            parked: None,
        }
    }

    /// Reads until a file is full or the end has come; where it came to.
    fn read(&mut self, records: &Records, (file_bytes, stop): (usize, &CancellationToken)) -> Result<u64, ReplayError> {
        let Place { topic, partition } = self.place.clone();
        if !self.is_assigned {
            let (start, _) = records.bounds(&topic, partition)?;
            // What lies before is read for its ids alone.
            records.assign([(topic.as_str(), partition, self.next.saturating_sub(NEAR).max(start))])?;
            self.is_assigned = true;
        }
        if let Some(event) = self.parked.take() {
            self.gathered.add(&event, &self.topic_id);
        }
        let mut heard = Instant::now();
        while self.next < self.to {
            if stop.is_cancelled() {
                return Err(ReplayError::Stopped);
            }
            let Some(record) = records.poll(POLL)? else {
                // Behind the last record there may be offsets without one.
                if records.position(&topic, partition).is_some_and(|at| at >= self.to) {
                    break;
                }
                if heard.elapsed() > SILENT_MAX {
                    return Err(ReplayError::Silent);
                }
                continue;
            };
            heard = Instant::now();
            if record.topic != topic || record.partition != partition {
                continue;
            }
            let offset = record.offset;
            if offset >= self.to {
                break;
            }
            let event = Event::read(record).ok().filter(|event| self.near.is_new(offset, event.id));
            if offset < self.next {
                continue;
            }
            self.next = offset + 1;
            let Some(event) = event else { continue };
            if self.gathered.bytes() >= file_bytes {
                self.parked = Some(event);
                return Ok(offset);
            }
            self.gathered.add(&event, &self.topic_id);
        }
        self.next = self.to;
        Ok(self.to)
    }

    /// The file of what was read, up to `end`.
    fn file(
        &mut self,
        table: &Table,
        nonce: &str,
        (number, end): (usize, u64),
    ) -> Result<Vec<(DataFile, Bytes)>, TableError> {
        let covers = Covered {
            topic: self.place.topic.clone(),
            topic_id: self.topic_id.clone(),
            partition: self.place.partition,
            from: std::mem::replace(&mut self.file_from, end),
            to: end,
        };
        std::mem::take(&mut self.gathered).files(&[covers], |number| table.path_of(nonce, number), number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iceberg::manifest::Status;

    fn file(name: &str, covers: &[(u32, u64, u64)]) -> File {
        let data =
            DataFile { path: name.to_owned(), topic: "mcp.calls".to_owned(), rows: 1, bytes: 1, bounds: Vec::new() };
        let cover = |(partition, from, to): &(u32, u64, u64)| Covered {
            topic: "mcp.calls".to_owned(),
            topic_id: "one".to_owned(),
            partition: *partition,
            from: *from,
            to: *to,
        };
        let entry = Entry { status: Status::Existing, snapshot_id: 1, sequence: 1, file: data };
        File { entry, covers: covers.iter().map(cover).collect() }
    }

    #[test]
    fn files_that_hold_a_part_of_the_same_offsets_are_replaced_together() {
        // One commit, and a later replay that wrote a file for each partition.
        let files = [
            file("a", &[(0, 0, 10), (1, 0, 5)]),
            file("b", &[(0, 10, 20), (1, 5, 9)]),
            file("c", &[(0, 20, 30)]),
            file("d", &[(1, 9, 12)]),
        ];
        let of = |chosen: usize| closed(&files, BTreeSet::from([chosen])).into_iter().collect::<Vec<_>>();
        assert_eq!((of(0), of(1), of(2)), (vec![0], vec![1], vec![2]));
        let more = [files.as_slice(), &[file("e", &[(1, 4, 6)])]].concat();
        assert_eq!(closed(&more, BTreeSet::from([0])), BTreeSet::from([0, 1, 4]));
        // What lies between two that are chosen is replaced with them.
        assert_eq!(closed(&files, BTreeSet::from([0, 2])), BTreeSet::from([0, 1, 2]));
    }
}
