//! How long events stay on the server: what `database::retention` does to a file.

use std::collections::{HashMap, HashSet};

use cairn_clock::Timestamp;
use cairn_contract::Topic;
use tokio_postgres::Transaction;

use super::link::Fault;
use crate::database::{
    retention::{Kept, ROWS_MAX, Subject},
    seq,
};

/// How far the present round has come.
#[derive(Debug, Default)]
pub(super) struct Retention {
    /// The next row to look at in each place.
    cursors: HashMap<i64, i64>,
    kept: Kept,
}

impl Retention {
    /// Removes what is due among some rows; whether there are more to look at.
    pub(super) async fn expire(&mut self, begun: &Transaction<'_>, now: Timestamp) -> Result<bool, Fault> {
        let held = held(begun).await?;
        let places = begun.query("SELECT place, topic FROM places ORDER BY place", &[]).await?;
        let mut left = ROWS_MAX;
        for row in places {
            let (place, topic): (i64, String) = (row.get(0), row.get(1));
            let Some(topic) = Topic::of_anybody(&topic) else { continue };
            left -= self.expire_place(begun, (place, topic), &held, (now, left)).await?;
            if left <= 0 {
                return Ok(true);
            }
        }
        self.cursors.clear();
        Ok(false)
    }

    /// How many rows of it were looked at.
    async fn expire_place(
        &mut self,
        begun: &Transaction<'_>,
        (place, topic): (i64, Topic),
        held: &HashSet<Subject>,
        (now, rows_max): (Timestamp, i64),
    ) -> Result<i64, Fault> {
        let from = *self.cursors.entry(place).or_insert(seq(place, 0));
        let select = "SELECT seq, type, time_us, tenant, principal, subject FROM events
                      WHERE seq >= $1 AND seq < $2 ORDER BY seq LIMIT $3";
        let rows = begun.query(select, &[&from, &seq(place + 1, 0), &rows_max]).await?;
        let (mut due, mut seen) = (Vec::new(), 0);
        for row in rows {
            let (at, type_name, time_us): (i64, String, i64) = (row.get(0), row.get(1), row.get(2));
            let age = now.since(Timestamp::from_micros(time_us.unsigned_abs()));
            seen += 1;
            self.cursors.insert(place, at + 1);
            match self.kept.of(&type_name, topic) {
                Some(kept) if age > kept => {}
                // Those behind it are younger.
                _ => break,
            }
            let is_hold = matches!(type_name.as_str(), "subject.held" | "subject.released");
            let tenant: Option<String> = row.get(3);
            let mut whose = [row.get::<_, Option<String>>(4), row.get(5)].into_iter().flatten();
            if !is_hold && !whose.any(|name| held.contains(&(tenant.clone(), name))) {
                due.push(at);
            }
        }
        if let Some(last) = due.last() {
            begun.execute("DELETE FROM events WHERE seq = ANY($1)", &[&due]).await?;
            let lacks = "UPDATE places SET whole = greatest(whole, $1) WHERE place = $2";
            begun.execute(lacks, &[&(last + 1 - seq(place, 0)), &place]).await?;
        }
        Ok(seen)
    }
}

/// Who is under legal hold.
async fn held(begun: &Transaction<'_>) -> Result<HashSet<Subject>, Fault> {
    let select = "SELECT type, tenant, subject FROM events
        WHERE type IN ('subject.held', 'subject.released') AND subject IS NOT NULL ORDER BY time_us, seq";
    let mut held = HashSet::new();
    for row in begun.query(select, &[]).await? {
        let subject: Subject = (row.get(1), row.get(2));
        if row.get::<_, &str>(0) == "subject.held" {
            held.insert(subject);
        } else {
            held.remove(&subject);
        }
    }
    Ok(held)
}
