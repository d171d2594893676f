//! How long rows stay in the table: as long as the contracts say, and for as long as somebody in their file is under legal hold.
//!
//! A file holds rows of one topic, whose contracts all say the same, and goes when its youngest row is past that. A held subject keeps
//! the whole file. Who is held is what the table's own rows of operators say: the last of `subject.held` and `subject.released`.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use cairn_clock::Timestamp;
use cairn_contract::Topic;
use parquet::record::Field;

use crate::{
    iceberg::metadata::Operation,
    rows,
    table::{Change, Table, TableError},
};

/// Files that one piece of work looks at.
const FILES_MAX: usize = 64;

/// A tenant, where there is one, and a subject of it.
type Subject = (Option<String>, String);

/// Removes files that are due, in one commit; how many.
///
/// # Errors
/// As [`TableError`] says.
pub async fn expire(table: &mut Table, now: Timestamp) -> Result<usize, TableError> {
    let files = table.files().await?;
    let is_due = |topic: &str, newest_us: i64| {
        let kept = Topic::of_anybody(topic).and_then(|topic| topic.spec().retention);
        kept.is_some_and(|kept| now.since(Timestamp::from_micros(newest_us.unsigned_abs())) > kept)
    };
    let due = files.iter().filter(|entry| entry.file.newest_us().is_some_and(|at| is_due(&entry.file.topic, at)));
    let mut due: Vec<String> = due.map(|entry| entry.file.path.clone()).collect();
    if due.is_empty() {
        return Ok(0);
    }
    let operators = files.iter().filter(|entry| Topic::of_anybody(&entry.file.topic) == Some(Topic::Operators));
    let operators: Vec<String> = operators.map(|entry| entry.file.path.clone()).collect();
    // Who is held must not be forgotten.
    due.retain(|path| !operators.contains(path));
    due.truncate(FILES_MAX);
    let held = held(table, &operators).await?;
    let mut removed = BTreeSet::new();
    for path in due {
        if held.is_empty() || !names(table, &path, &held).await? {
            removed.insert(path);
        }
    }
    if removed.is_empty() {
        return Ok(0);
    }
    let count = removed.len();
    let change = Change {
        id: table.nonce(),
        operation: Operation::Delete,
        moved: Vec::new(),
        added: Vec::new(),
        removed,
        about: vec![("cairn.reason".to_owned(), "retention".to_owned())],
    };
    table.commit(&change).await?;
    Ok(count)
}

fn text(field: &Field) -> Option<String> {
    if let Field::Str(text) = field { Some(text.clone()) } else { None }
}

/// Who is under legal hold.
async fn held(table: &Table, operators: &[String]) -> Result<HashSet<Subject>, TableError> {
    let mut told: BTreeMap<(i64, i64), (bool, Subject)> = BTreeMap::new();
    for path in operators {
        rows::each(table.rows_of(path).await?, &["type", "tenant", "subject", "time", "offset"], |row| {
            let [Field::Str(kind), tenant, Field::Str(subject), time, Field::Long(offset)] = row else { return };
            let is_held = match kind.as_str() {
                "subject.held" => true,
                "subject.released" => false,
                _ => return,
            };
            let at = if let Field::TimestampMicros(at) | Field::Long(at) = time { *at } else { 0 };
            told.insert((at, *offset), (is_held, (text(tenant), subject.clone())));
        })?;
    }
    let mut held = HashSet::new();
    for (is_held, subject) in told.into_values() {
        if is_held {
            held.insert(subject)
        } else {
            held.remove(&subject)
        };
    }
    Ok(held)
}

/// Whether a row of a file is of somebody who is held.
async fn names(table: &Table, path: &str, held: &HashSet<Subject>) -> Result<bool, TableError> {
    let mut is_named = false;
    rows::each(table.rows_of(path).await?, &["tenant", "principal", "subject"], |row| {
        let tenant = text(&row[0]);
        let mut whose = row[1..].iter().filter_map(text);
        is_named |= whose.any(|name| held.contains(&(tenant.clone(), name)));
    })?;
    Ok(is_named)
}
