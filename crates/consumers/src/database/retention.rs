//! How long events stay in a database: as long as their contracts say, and for as long as somebody is under legal hold.
//!
//! Each piece of work is bounded, and a partition's rows lie in order, so nothing is searched for. Who is held is what the trail
//! says: the last of `subject.held` and `subject.released`. Called from the sink's own work.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use cairn_clock::Timestamp;
use cairn_contract::{EventType, Topic};
use rusqlite::Transaction;

use super::sink::seq;

/// Rows that one piece of work looks at.
pub(crate) const ROWS_MAX: i64 = 2_000;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How far the present round has come. What is due is decided here, whatever the database.
#[derive(Debug, Default)]
pub(crate) struct Retention {
    /// The next row to look at in each place.
    cursors: HashMap<i64, i64>,
    kept: Kept,
}

/// What retention needs of a row.
#[derive(Debug)]
pub(crate) struct Looked {
    pub(crate) at: i64,
    pub(crate) type_name: String,
    pub(crate) time_us: i64,
    pub(crate) tenant: Option<String>,
    pub(crate) principal: Option<String>,
    pub(crate) subject: Option<String>,
}

/// How long each type is kept, as its contract says.
#[derive(Debug, Default)]
struct Kept(HashMap<String, Option<Duration>>);

impl Kept {
    /// How long events of a type are kept; `None` is for ever.
    fn of(&mut self, type_name: &str, topic: Topic) -> Option<Duration> {
        if let Some(kept) = self.0.get(type_name) {
            return *kept;
        }
        let kept = match EventType::named(type_name) {
            Some(event_type) => by_contract(event_type),
            None => topic.spec().retention,
        };
        // As many as there are types.
        if self.0.len() < 1_000 {
            self.0.insert(type_name.to_owned(), kept);
        }
        kept
    }
}

/// A tenant, where there is one, and a subject of it.
pub(crate) type Subject = (Option<String>, String);

impl Retention {
    /// The row of a place to go on with.
    pub(crate) fn cursor(&mut self, place: i64) -> i64 {
        *self.cursors.entry(place).or_insert(seq(place, 0))
    }

    /// The round is over: the next begins at the first rows.
    pub(crate) fn end_round(&mut self) {
        self.cursors.clear();
    }

    /// Which of a place's rows are due, and how many were looked at. They come in order, from its cursor on.
    pub(crate) fn due<E>(
        &mut self,
        (place, topic): (i64, Topic),
        rows: impl IntoIterator<Item = Result<Looked, E>>,
        held: &HashSet<Subject>,
        now: Timestamp,
    ) -> Result<(Vec<i64>, i64), E> {
        let (mut due, mut seen) = (Vec::new(), 0);
        for row in rows {
            let Looked { at, type_name, time_us, tenant, principal, subject } = row?;
            let age = now.since(Timestamp::from_micros(time_us.unsigned_abs()));
            seen += 1;
            self.cursors.insert(place, at + 1);
            match self.kept.of(&type_name, topic) {
                Some(kept) if age > kept => {}
                // Those behind it are younger.
                _ => break,
            }
            let is_hold = matches!(type_name.as_str(), HELD | RELEASED);
            let mut whose = [principal, subject].into_iter().flatten();
            if !is_hold && !whose.any(|name| held.contains(&(tenant.clone(), name))) {
                due.push(at);
            }
        }
        Ok((due, seen))
    }

    /// Removes from a file what is due among some rows; whether there are more to look at.
    pub(super) fn expire(&mut self, begun: &Transaction<'_>, now: Timestamp) -> rusqlite::Result<bool> {
        let mut holds = begun.prepare_cached(HOLDS)?;
        let held = held(holds.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?)?;
        drop(holds);
        let places: Vec<(i64, String)> = begun
            .prepare_cached("SELECT place, topic FROM places")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        let mut left = ROWS_MAX;
        for (place, topic) in places {
            let Some(topic) = Topic::of_anybody(&topic) else { continue };
            left -= self.expire_place(begun, (place, topic), &held, (now, left))?;
            if left <= 0 {
                return Ok(true);
            }
        }
        self.end_round();
        Ok(false)
    }

    /// How many rows of it were looked at.
    fn expire_place(
        &mut self,
        begun: &Transaction<'_>,
        (place, topic): (i64, Topic),
        held: &HashSet<Subject>,
        (now, rows_max): (Timestamp, i64),
    ) -> rusqlite::Result<i64> {
        let mut select = begun.prepare_cached(
            "SELECT seq, type, time_us, tenant, principal, subject FROM events WHERE seq >= ?1 AND seq < ?2 ORDER BY seq LIMIT ?3",
        )?;
        let rows = select.query_map([self.cursor(place), seq(place + 1, 0), rows_max], |row| {
            Ok(Looked {
                at: row.get(0)?,
                type_name: row.get(1)?,
                time_us: row.get(2)?,
                tenant: row.get(3)?,
                principal: row.get(4)?,
                subject: row.get(5)?,
            })
        })?;
        let (due, seen) = self.due((place, topic), rows, held, now)?;
        let mut remove = begun.prepare_cached("DELETE FROM events WHERE seq = ?1")?;
        for at in &due {
            remove.execute([at])?;
        }
        if let Some(last) = due.last() {
            let mut lacks = begun.prepare_cached("UPDATE places SET whole = max(whole, ?1) WHERE place = ?2")?;
            lacks.execute([last + 1 - seq(place, 0), place])?;
        }
        Ok(seen)
    }
}

/// What `x-retention` says: `P<days>D`, or `forever`.
fn by_contract(event_type: EventType) -> Option<Duration> {
    let schema: serde_json::Value = serde_json::from_str(event_type.contract().schema).ok()?;
    let days = schema.get("x-retention")?.as_str()?.strip_prefix('P')?.strip_suffix('D')?;
    days.parse::<u32>().ok().map(|days| DAY * days)
}

/// What says who is under legal hold: type, tenant, subject.
pub(crate) const HOLDS: &str = "SELECT type, tenant, subject FROM events
    WHERE type IN ('subject.held', 'subject.released') AND subject IS NOT NULL ORDER BY time_us, seq";
const HELD: &str = "subject.held";
const RELEASED: &str = "subject.released";

/// Who is under legal hold, from the rows of [`HOLDS`].
pub(crate) fn held<E>(rows: impl IntoIterator<Item = Result<(String, Subject), E>>) -> Result<HashSet<Subject>, E> {
    let mut held = HashSet::new();
    for row in rows {
        let (type_name, subject) = row?;
        if type_name == HELD {
            held.insert(subject);
        } else {
            held.remove(&subject);
        }
    }
    Ok(held)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_contract_says_how_long() {
        for event_type in EventType::ALL {
            assert_eq!(by_contract(event_type), event_type.topic().spec().retention, "{event_type}");
        }
    }
}
