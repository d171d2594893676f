//! Where the events of a workflow lie, as `audit::index` tells it of a file: places, and never contents.

use std::{collections::BTreeMap, time::Duration};

use tokio_postgres::IsolationLevel;

use super::{
    copy::without_nul,
    link::{self, Fault},
    options::Options,
    query::fault,
    schema,
};
use crate::{
    audit::{
        index::Covered,
        query::{Limits, QueryError},
    },
    database::{REFUSED, place_of},
};

/// How long it may take.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Where the events of these workflows lie.
///
/// # Errors
/// There is no database, or it cannot be read in time.
pub fn find(options: &Options, workflows: &[&str]) -> Result<Vec<Covered>, QueryError> {
    let found = link::alone(link::within(TIME_MAX, look(options, workflows)));
    found.map_err(|error| fault(&error, options, &Limits::default()))
}

async fn look(options: &Options, workflows: &[&str]) -> Result<Vec<Covered>, Fault> {
    let mut connected = link::connect(options, options.asks(), "SET statement_timeout = '10s';").await?;
    // One view of all tables: the writer goes on meanwhile.
    let begun = connected.client.build_transaction().read_only(true).isolation_level(IsolationLevel::RepeatableRead);
    let begun = begun.start().await?;
    match schema::layout(begun.client()).await? {
        Some(layout) => schema::check(layout, options)?,
        None => return Ok(Vec::new()),
    }
    let mut covered = BTreeMap::new();
    for row in begun.query("SELECT place, topic, topic_id, partition, whole, next FROM places", &[]).await? {
        let number = |index: usize| row.get::<_, i64>(index);
        let place = Covered {
            topic: row.get(1),
            topic_id: row.get(2),
            partition: u32::try_from(number(3)).unwrap_or(u32::MAX),
            whole: number(4).unsigned_abs()..number(5).unsigned_abs(),
            offsets: Vec::new(),
        };
        covered.insert(number(0), place);
    }
    let workflows: Vec<String> = workflows.iter().map(|workflow| without_nul(workflow).into_owned()).collect();
    let mut rows = begun.query("SELECT seq FROM events WHERE workflow_id = ANY($1)", &[&workflows]).await?;
    // Events that a table did not take stand in no row of it.
    rows.extend(begun.query("SELECT seq FROM dead_letters WHERE reason = $1", &[&REFUSED]).await?);
    for row in rows {
        let (place, offset) = place_of(row.get(0));
        if let Some(covered) = covered.get_mut(&place) {
            covered.offsets.push(offset);
        }
    }
    let mut covered: Vec<Covered> = covered.into_values().collect();
    covered.iter_mut().for_each(|place| {
        place.offsets.sort_unstable();
        place.offsets.dedup();
    });
    Ok(covered)
}
