//! Removing on the server what is due: what that is, `database::retention` says, as for a file.

use std::collections::HashSet;

use cairn_clock::Timestamp;
use cairn_contract::Topic;
use tokio_postgres::Transaction;

use super::link::Fault;
use crate::database::{
    retention::{HOLDS, Looked, ROWS_MAX, Retention, Subject, held},
    seq,
};

/// Removes what is due among some rows; whether there are more to look at.
pub(super) async fn expire(retention: &mut Retention, begun: &Transaction<'_>, now: Timestamp) -> Result<bool, Fault> {
    let holds = begun.query(HOLDS, &[]).await?;
    let held = held(holds.iter().map(|row| Ok::<_, Fault>((row.get(0), (row.get(1), row.get(2))))))?;
    let places = begun.query("SELECT place, topic FROM places ORDER BY place", &[]).await?;
    let mut left = ROWS_MAX;
    for row in places {
        let (place, topic): (i64, String) = (row.get(0), row.get(1));
        let Some(topic) = Topic::of_anybody(&topic) else { continue };
        left -= expire_place(retention, begun, (place, topic), &held, (now, left)).await?;
        if left <= 0 {
            return Ok(true);
        }
    }
    retention.end_round();
    Ok(false)
}

/// How many rows of it were looked at.
async fn expire_place(
    retention: &mut Retention,
    begun: &Transaction<'_>,
    (place, topic): (i64, Topic),
    held: &HashSet<Subject>,
    (now, rows_max): (Timestamp, i64),
) -> Result<i64, Fault> {
    let select = "SELECT seq, type, time_us, tenant, principal, subject FROM events
                  WHERE seq >= $1 AND seq < $2 ORDER BY seq LIMIT $3";
    let rows = begun.query(select, &[&retention.cursor(place), &seq(place + 1, 0), &rows_max]).await?;
    let rows = rows.iter().map(|row| {
        Ok::<_, Fault>(Looked {
            at: row.get(0),
            type_name: row.get(1),
            time_us: row.get(2),
            tenant: row.get(3),
            principal: row.get(4),
            subject: row.get(5),
        })
    });
    let (due, seen) = retention.due((place, topic), rows, held, now)?;
    if let Some(last) = due.last() {
        begun.execute("DELETE FROM events WHERE seq = ANY($1)", &[&due]).await?;
        let lacks = "UPDATE places SET whole = greatest(whole, $1) WHERE place = $2";
        begun.execute(lacks, &[&(last + 1 - seq(place, 0)), &place]).await?;
    }
    Ok(seen)
}
