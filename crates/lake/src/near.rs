//! Which events lie near: an event that a producer had to send again lies twice, shortly behind itself, and counts once.
//!
//! What is near follows from the log alone, so a table that is made again has the same rows: an event is a repetition if its id lies within
//! [`NEAR`] offsets before it in its partition. After a start the ids are read back from the newest files of the table.

use std::collections::{HashMap, HashSet, VecDeque};

use parquet::record::Field;
use uuid::Uuid;

use crate::{
    iceberg::metadata::Stand,
    rows,
    table::{Table, TableError},
};

/// How far back in its partition an event is known by its id.
pub const NEAR: u64 = 4_096;
/// Files of a topic that are read back at most.
const FILES_MAX: usize = 16;

/// The ids of the newest events of a partition.
#[derive(Debug, Default)]
pub struct Near {
    order: VecDeque<(u64, Uuid)>,
    ids: HashSet<Uuid>,
}

impl Near {
    /// Whether the event at that offset is there for the first time. Offsets only grow.
    pub fn is_new(&mut self, offset: u64, id: Uuid) -> bool {
        while let Some((known, id)) = self.order.front().copied() {
            if known + NEAR >= offset {
                break;
            }
            self.order.pop_front();
            self.ids.remove(&id);
        }
        let is_new = self.ids.insert(id);
        if is_new {
            self.order.push_back((offset, id));
        }
        is_new
    }
}

/// What is near the end of each partition of a table: topic, its id, partition.
///
/// # Errors
/// Files of the table cannot be read.
pub async fn read(table: &mut Table) -> Result<HashMap<(String, String, u32), Near>, TableError> {
    let mut found: HashMap<(String, String, u32), Vec<(u64, Uuid)>> = HashMap::new();
    let stands: HashMap<(String, String, u32), u64> = table
        .stands()
        .into_iter()
        .map(|Stand { topic, topic_id, partition, next }| ((topic, topic_id, partition), next))
        .collect();
    let mut files = table.files().await?;
    files.sort_by_key(|entry| std::cmp::Reverse(entry.sequence));
    let mut read: HashMap<String, usize> = HashMap::new();
    for entry in files {
        let topic = entry.file.topic.clone();
        let count = read.entry(topic.clone()).or_default();
        if *count >= FILES_MAX {
            continue;
        }
        *count += 1;
        let bytes = table.rows_of(&entry.file.path).await?;
        rows::each(bytes, &["id", "topic_id", "partition", "offset"], |row| {
            let [Field::Str(id), Field::Str(topic_id), Field::Int(partition), Field::Long(offset)] = row else {
                return;
            };
            let (Ok(id), Ok(partition), Ok(offset)) = (id.parse(), u32::try_from(*partition), u64::try_from(*offset))
            else {
                return;
            };
            let key = (topic.clone(), topic_id.clone(), partition);
            if stands.get(&key).is_some_and(|next| offset + NEAR >= *next) {
                found.entry(key).or_default().push((offset, id));
            }
        })?;
    }
    let near = |(key, mut ids): (_, Vec<(u64, Uuid)>)| {
        ids.sort_unstable();
        let mut near = Near::default();
        for (offset, id) in ids {
            near.is_new(offset, id);
        }
        (key, near)
    };
    Ok(found.into_iter().map(near).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_counts_once_within_reach_of_itself_whatever_lies_between() {
        let mut near = Near::default();
        let id = Uuid::from_u128;
        assert!(near.is_new(0, id(1)) && near.is_new(1, id(2)));
        assert!(!near.is_new(2, id(1)) && !near.is_new(NEAR, id(1)));
        assert!(near.is_new(NEAR + 1, id(1)), "far behind itself it is another row");
        assert!(!near.is_new(NEAR + 1, id(2)));
    }
}
