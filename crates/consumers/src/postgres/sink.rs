//! The sink: batches and positions on a PostgreSQL server, in one transaction.
//!
//! It connects when it is first asked, and again whenever the connection was lost; what became of a transaction that was cut off while it was
//! committed is found out by the positions. A consumer's transactions are not waited for until they are on the server's disk: after a crash
//! of the server the database is as after some earlier batch, positions included, and the rest is read again. Used by one thread,
//! which may block.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    time::Duration,
};

use cairn_backbone::group::Place;
use cairn_clock::{Entropy, Timestamp};
use futures::future::try_join_all;
use tokio::{runtime::Runtime, time::Instant};
use tokio_postgres::{Client, Statement, Transaction, error::SqlState};

use super::{
    copy::{self, Row},
    holder::{self, Claimant},
    link::{self, Connected, Fault},
    options::Options,
    retention, schema,
};
use crate::{
    Batch, Control, DeadLetter, Position, Replayed, Sink, SinkError,
    audit::Audit,
    database::{DEAD_LETTERS_MAX, REFUSED, integer, retention::Retention, seq},
};

/// How long one piece of work may take, a connection besides.
const WORK_MAX: Duration = Duration::from_secs(90);
/// After a server was away it is left alone so long, then twice as long, …
const AWAY_FIRST: Duration = Duration::from_millis(250);
/// … and this at most.
const AWAY_MAX: Duration = Duration::from_secs(5);

/// After an event that lay twice, each is looked up for so many batches.
const WARY_BATCHES: u32 = 16;

/// Fewer rows than this need not be counted.
const COUNTED_FROM: i64 = 10_000;

/// What a sink is opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// It is a consumer's: the tables are made where they lack, and it holds the database or stands by.
    Applies,
    /// It is an operator's, or a replay's: it writes beside whoever holds.
    Operates,
}

/// The audit database on a server, for writing.
pub struct PostgresSink {
    /// Ends without waiting, because it may be dropped where nobody may wait.
    runtime: Option<Runtime>,
    options: Options,
    role: Role,
    claimant: Claimant,
    has_claimed: bool,
    link: Option<Link>,
    away: Option<Away>,
    retention: Retention,
    audit: Audit,
}

impl fmt::Debug for PostgresSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresSink").field("options", &self.options).field("role", &self.role).finish_non_exhaustive()
    }
}

/// A connection that is set up.
struct Link {
    connected: Connected,
    /// As whom it writes, where it is a consumer's.
    epoch: Option<i64>,
    /// Batches of which each event is looked up before it is added, because it may be there already.
    wary: u32,
    /// Rows since the server counted them last, as far as this knows.
    added: i64,
    statements: Statements,
}

/// Until when a server is left alone, and how long the next time.
struct Away {
    until: Instant,
    next: Duration,
    said: SinkError,
}

impl Drop for PostgresSink {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl PostgresSink {
    /// A sink that connects when it is first asked.
    #[must_use]
    pub fn new(options: Options, entropy: &Entropy, role: Role) -> Self {
        let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let machine = if machine.trim().is_empty() { "a machine" } else { machine.trim() };
        let claimant = Claimant {
            token: format!("{:016x}{:016x}", entropy.next_u64(), entropy.next_u64()),
            who: format!("process {} on {machine}", std::process::id()),
        };
        Self {
            runtime: Some(link::runtime()),
            options,
            role,
            claimant,
            has_claimed: false,
            link: None,
            away: None,
            retention: Retention::default(),
            audit: Audit::default(),
        }
    }

    /// Whether anything was ever applied there.
    ///
    /// # Errors
    /// The server does not say.
    pub fn has_tables(&self) -> Result<bool, SinkError> {
        let looked = async {
            let connected = link::connect(&self.options, self.options.writes(), "").await?;
            Ok::<bool, Fault>(schema::layout(&connected.client).await?.is_some())
        };
        link::alone(link::within(WORK_MAX, looked)).map_err(|fault| fault.means(&self.options))
    }

    /// Does work on a connection that stands; one that failed is not used again.
    fn work<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Link, &mut Retention, &Audit) -> Result<T, Fault>,
    ) -> Result<T, SinkError> {
        if let Some(away) = self.away.as_ref().filter(|away| Instant::now() < away.until) {
            return Err(away.said.clone());
        }
        let Self { runtime, options, role, claimant, has_claimed, link, retention, audit, .. } = self;
        let Some(runtime) = runtime else { return Err(SinkError::Broken { reason: "it was closed".to_owned() }) };
        let done = runtime.block_on(link::within(WORK_MAX, async {
            if let Some(lost) = link.take_if(|link| link.connected.client.is_closed()) {
                lost.connected.close().await;
            }
            if link.is_none() {
                *link = Some(Link::set(options, *role, claimant, has_claimed).await?);
            }
            let link = link.as_mut().expect("it was set just now");
            let done = work(link, retention, audit).await;
            if done.as_ref().is_err_and(Fault::is_clean) {
                // What was begun is taken back now, and not when somebody asks the next time.
                link.connected.client.batch_execute("").await?;
            }
            done
        }));
        match done {
            Ok(done) => {
                self.away = None;
                Ok(done)
            }
            Err(fault) => {
                let said = fault.means(options);
                if !fault.is_clean() {
                    if let Some(failed) = link.take() {
                        runtime.block_on(failed.connected.close());
                    }
                    let next = self.away.take().map_or(AWAY_FIRST, |away| (away.next * 2).min(AWAY_MAX));
                    self.away = Some(Away { until: Instant::now() + next, next, said: said.clone() });
                }
                Err(said)
            }
        }
    }

    /// Writes a batch over whatever came of its offsets before. Where `moves`, the positions must be as it says and move on.
    fn write(&mut self, batch: &Batch, moves: bool) -> Result<Replayed, SinkError> {
        self.work(async |link, _, audit| {
            let rows = rows(batch, audit);
            let mut written = link.write(batch, &rows, moves).await;
            if let Err(Fault::Postgres(error)) = &written
                && error.code() == Some(&SqlState::UNIQUE_VIOLATION)
                && link.wary == 0
            {
                // An event lies in the log twice, and hardly ever alone.
                link.wary = WARY_BATCHES;
                written = link.write(batch, &rows, moves).await;
            }
            match written {
                Err(Fault::Postgres(error)) if link::is_of_data(&error) => {
                    let culprit = link.culprit(batch, &rows).await?;
                    // Its words may hold what the row holds.
                    Err(culprit.map_or(Fault::Postgres(error), |index| {
                        Fault::Said(SinkError::Refused { index, reason: REFUSED.to_owned() })
                    }))
                }
                written => written,
            }
        })
    }
}

/// Every event of a batch that has a row: its index, and what the row holds behind `seq`.
type Rows<'a> = Vec<(usize, Row<'a>)>;

/// An id that comes twice counts once; `seq` is filled in when the places are known.
fn rows<'a>(batch: &'a Batch, audit: &Audit) -> Rows<'a> {
    let mut seen = HashSet::with_capacity(batch.events.len());
    let events = batch.events.iter().enumerate().filter(|(_, event)| seen.insert(event.id));
    events.filter_map(|(index, event)| Some((index, (0, audit.cells(event)?)))).collect()
}

/// The statements of a batch.
struct Statements {
    stand: Statement,
    moved: Statement,
    remove: Statement,
    bury: Statement,
    known: Statement,
    copy: Statement,
    dead: Statement,
}

impl Statements {
    async fn prepare(client: &Client) -> Result<Self, tokio_postgres::Error> {
        let stand = "SELECT place, next FROM places WHERE topic = $1 AND partition = $2 AND topic_id = $3";
        let moved = "UPDATE places SET next = $1 WHERE place = $2";
        let remove = "DELETE FROM events WHERE seq >= $1 AND seq < $2";
        let bury = "DELETE FROM dead_letters WHERE seq >= $1 AND seq < $2";
        let known = "SELECT id FROM events WHERE id = ANY($1)";
        let dead = "INSERT INTO dead_letters (seq, topic, partition, \"offset\", time_us, bytes, reason)
            VALUES ($1, $2, $3, $4, $5, $6, $7)
            ON CONFLICT (seq) DO UPDATE SET topic = excluded.topic, partition = excluded.partition,
                \"offset\" = excluded.\"offset\", time_us = excluded.time_us, bytes = excluded.bytes, reason = excluded.reason";
        Ok(Self {
            stand: client.prepare(stand).await?,
            moved: client.prepare(moved).await?,
            remove: client.prepare(remove).await?,
            bury: client.prepare(bury).await?,
            known: client.prepare(known).await?,
            copy: client.prepare(&copy::statement()).await?,
            dead: client.prepare(dead).await?,
        })
    }
}

impl Link {
    async fn set(options: &Options, role: Role, claimant: &Claimant, has_claimed: &mut bool) -> Result<Self, Fault> {
        let mut connected = link::connect(options, options.writes(), "").await?;
        match begin(&mut connected.client, options, role, claimant, has_claimed).await {
            Ok((epoch, statements)) => Ok(Self { connected, epoch, wary: 0, added: 0, statements }),
            Err(fault) => {
                connected.close().await;
                Err(fault)
            }
        }
    }

    async fn write(&mut self, batch: &Batch, rows: &Rows<'_>, moves: bool) -> Result<Replayed, Fault> {
        let Self { connected, epoch, wary, added, statements } = self;
        let begun = connected.client.transaction().await?;
        holder::fenced(&begun, *epoch).await?;
        let stands = stands(&begun, statements, batch, moves).await?;
        let ranges: Vec<[i64; 2]> = batch
            .advances
            .iter()
            .map(|advance| {
                let number = stands.number(&advance.place.topic, advance.place.partition);
                [seq(number, advance.from.unwrap_or_default()), seq(number, advance.next)]
            })
            .collect();
        let before = if moves { HashMap::new() } else { digests(&begun, &ranges).await? };
        try_join_all(ranges.iter().map(async |[from, to]| {
            let range: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [from, to];
            futures::try_join!(begun.execute(&statements.remove, &range), begun.execute(&statements.bury, &range))
        }))
        .await?;
        let looks = *wary > 0 || !moves;
        insert(&begun, statements, batch, (rows, looks), &stands).await?;
        bury(&begun, statements, &batch.dead, &stands).await?;
        let mut done = Replayed::default();
        if !moves {
            done.records = batch.len() as u64;
            done.dead_letters = batch.dead.len() as u64;
            done.replaced = before.len() as u64;
            done.changed = changed(before, digests(&begun, &ranges).await?);
        }
        begun.commit().await?;
        *wary = wary.saturating_sub(1);
        *added = added.saturating_add_unsigned(rows.len() as u64);
        Ok(done)
    }

    /// Which event of a batch the server does not take; each try is taken back.
    async fn culprit(&mut self, batch: &Batch, rows: &Rows<'_>) -> Result<Option<usize>, Fault> {
        let Self { connected, epoch, .. } = self;
        let mut suspects = 0..rows.len();
        while !suspects.is_empty() {
            let half = suspects.start + suspects.len().div_ceil(2);
            let begun = connected.client.transaction().await?;
            holder::fenced(&begun, *epoch).await?;
            let tried: Vec<Row<'_>> =
                rows[suspects.start..half].iter().zip(i64::MIN..).map(|((_, (_, cells)), seq)| (seq, *cells)).collect();
            // What is there already is no fault of theirs: they are tried in an empty room.
            begun.batch_execute("CREATE TEMP TABLE trial (LIKE events INCLUDING ALL) ON COMMIT DROP").await?;
            let statement = copy::statement().replacen("COPY events", "COPY pg_temp.trial", 1);
            let statement = begun.prepare(&statement).await?;
            let fails = match copy::copy(&begun, &statement, tried.iter()).await {
                Ok(()) => false,
                Err(error) if link::is_of_data(&error) => true,
                Err(error) => return Err(error.into()),
            };
            begun.rollback().await?;
            match (fails, half - suspects.start) {
                (true, 1) => return Ok(Some(rows[suspects.start].0)),
                (true, _) => suspects.end = half,
                (false, _) => suspects.start = half,
            }
        }
        tracing::debug!(events = batch.events.len(), "no event alone is what the server refuses");
        Ok(None)
    }
}

/// What a sink finds when it has connected: as whom it writes, and the statements of a batch.
async fn begin(
    client: &mut Client,
    options: &Options,
    role: Role,
    claimant: &Claimant,
    has_claimed: &mut bool,
) -> Result<(Option<i64>, Statements), Fault> {
    let mut epoch = None;
    match role {
        Role::Applies => {
            schema::prepare(client, options).await?;
            epoch = Some(holder::claim(client, claimant, *has_claimed).await?);
            *has_claimed = true;
            // What a crash of the server forgets is read again.
            client.batch_execute("SET synchronous_commit = off").await?;
        }
        Role::Operates => match schema::layout(client).await? {
            Some(layout) => schema::check(layout, options)?,
            None => {
                let reason = format!("{} has no tables of Cairn's: nothing was applied there yet", options.shown());
                return Err(Fault::Said(SinkError::Broken { reason }));
            }
        },
    }
    Ok((epoch, Statements::prepare(client).await?))
}

/// The number of each place of a batch.
struct Stands<'a>(HashMap<(&'a str, u32), i64>);

impl Stands<'_> {
    fn number(&self, topic: &str, partition: u32) -> i64 {
        self.0.get(&(topic, partition)).copied().unwrap_or_default()
    }
}

/// Where the sink moves, it must stand where the batch begins, and stands at its end then.
async fn stands<'a>(
    begun: &Transaction<'_>,
    statements: &Statements,
    batch: &'a Batch,
    moves: bool,
) -> Result<Stands<'a>, Fault> {
    let found = try_join_all(batch.advances.iter().map(async |advance| {
        let partition = i64::from(advance.place.partition);
        begun.query_opt(&statements.stand, &[&advance.place.topic, &partition, &advance.topic_id]).await
    }));
    let mut stands = Stands(HashMap::new());
    let mut moved = Vec::new();
    for (advance, found) in batch.advances.iter().zip(found.await?) {
        let found: Option<(i64, i64)> = found.map(|row| (row.get(0), row.get(1)));
        if moves && found.map(|(_, next)| next) != advance.from.map(integer) {
            return Err(Fault::Said(SinkError::Moved));
        }
        let number = match found {
            Some((number, _)) => {
                moved.push((integer(advance.next), number));
                number
            }
            None if moves => {
                // It begins with the first record that is kept, so nothing is left out.
                let put = "INSERT INTO places (topic, partition, topic_id, next, whole) VALUES ($1, $2, $3, $4, 0) RETURNING place";
                let partition = i64::from(advance.place.partition);
                let next = integer(advance.next);
                begun.query_one(put, &[&advance.place.topic, &partition, &advance.topic_id, &next]).await?.get(0)
            }
            // Nothing came of a partition that the sink never saw.
            None => return Err(Fault::Said(SinkError::Moved)),
        };
        stands.0.insert((advance.place.topic.as_str(), advance.place.partition), number);
    }
    if moves {
        try_join_all(moved.iter().map(async |(next, place)| begun.execute(&statements.moved, &[next, place]).await))
            .await?;
    }
    Ok(stands)
}

/// Adds rows; where it looks, but for events that came before at another offset, and else it fails if there is one.
async fn insert(
    begun: &Transaction<'_>,
    statements: &Statements,
    batch: &Batch,
    (rows, looks): (&Rows<'_>, bool),
    stands: &Stands<'_>,
) -> Result<(), Fault> {
    if rows.is_empty() {
        return Ok(());
    }
    let ids: Vec<String> = rows.iter().map(|(index, _)| batch.events[*index].id.hyphenated().to_string()).collect();
    let known = if looks { begun.query(&statements.known, &[&ids]).await? } else { Vec::new() };
    let known: HashSet<&str> = known.iter().map(|row| row.get(0)).collect();
    let new = rows.iter().zip(&ids).filter(|(_, id)| !known.contains(id.as_str()));
    let new: Vec<Row<'_>> = new
        .map(|((index, (_, cells)), _)| {
            let event = &batch.events[*index];
            (seq(stands.number(&event.topic, event.partition), event.offset), *cells)
        })
        .collect();
    copy::copy(begun, &statements.copy, new.iter()).await?;
    Ok(())
}

async fn bury(
    begun: &Transaction<'_>,
    statements: &Statements,
    dead: &[DeadLetter],
    stands: &Stands<'_>,
) -> Result<(), Fault> {
    for letter in dead {
        let DeadLetter { topic, partition, offset, timestamp_ms, bytes, reason } = letter;
        let at = seq(stands.number(topic, *partition), *offset);
        let (partition, time_us) = (i64::from(*partition), timestamp_ms.saturating_mul(1_000));
        let reason = copy::without_nul(reason).into_owned();
        let row: [&(dyn tokio_postgres::types::ToSql + Sync); 7] =
            [&at, topic, &partition, &integer(*offset), &time_us, &integer(*bytes), &reason];
        begun.execute(&statements.dead, &row).await?;
    }
    Ok(())
}

/// Has the server count what is in the table, where much came: by what it counted when there was little, it would read all of it for one
/// workflow. It does so by itself, and not soon after a backlog was taken; it passes over what somebody else made.
async fn count(client: &Client, added: &mut i64) -> Result<(), Fault> {
    if *added < COUNTED_FROM {
        return Ok(());
    }
    let is_due = "SELECT $1 > c.reltuples::bigint / 5 FROM pg_class c WHERE c.oid = 'events'::regclass";
    if client.query_one(is_due, &[added]).await?.get(0) {
        client.batch_execute("ANALYZE events").await?;
        *added = 0;
    }
    Ok(())
}

/// A digest of each row of `events` in these ranges, by its `seq`.
async fn digests(begun: &Transaction<'_>, ranges: &[[i64; 2]]) -> Result<HashMap<i64, i64>, Fault> {
    let select = "SELECT seq, hashtextextended(e::text, 0) FROM events e WHERE seq >= $1 AND seq < $2";
    let mut all = HashMap::new();
    for [from, to] in ranges {
        let rows = begun.query(select, &[from, to]).await?;
        all.extend(rows.iter().map(|row| (row.get::<_, i64>(0), row.get::<_, i64>(1))));
    }
    Ok(all)
}

/// How many rows are other than before, new, or gone.
fn changed(mut before: HashMap<i64, i64>, after: HashMap<i64, i64>) -> u64 {
    let other = after.into_iter().filter(|(at, digest)| before.remove(at) != Some(*digest)).count();
    (other + before.len()) as u64
}

impl Sink for PostgresSink {
    fn positions(&mut self) -> Result<Vec<Position>, SinkError> {
        self.work(async |link, _, _| {
            let rows = link.connected.client.query("SELECT topic, partition, topic_id, next FROM places", &[]).await?;
            let read = |row: &tokio_postgres::Row| {
                let (partition, next): (i64, i64) = (row.get(1), row.get(3));
                let place = Place { topic: row.get(0), partition: u32::try_from(partition).unwrap_or(u32::MAX) };
                Position { place, topic_id: row.get(2), next: next.unsigned_abs() }
            };
            Ok(rows.iter().map(read).collect())
        })
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), SinkError> {
        self.write(batch, true).map(drop)
    }

    fn replace(&mut self, batch: &Batch) -> Result<Replayed, SinkError> {
        self.write(batch, false)
    }

    fn move_to(&mut self, positions: &[Position]) -> Result<(), SinkError> {
        self.work(async |link, _, _| {
            let begun = link.connected.client.transaction().await?;
            holder::fenced(&begun, link.epoch).await?;
            for Position { place, topic_id, next } in positions {
                // Forward leaves out what lies between; back, and all from there on comes anew.
                let put = "INSERT INTO places AS p (topic, partition, topic_id, next, whole) VALUES ($1, $2, $3, $4, $4)
                           ON CONFLICT (topic, partition, topic_id) DO UPDATE SET next = excluded.next,
                           whole = CASE WHEN excluded.next > p.next THEN excluded.next ELSE least(p.whole, excluded.next) END";
                begun
                    .execute(put, &[&place.topic, &i64::from(place.partition), topic_id, &integer(*next)])
                    .await?;
            }
            begun.execute("UPDATE state SET value = (value::bigint + 1)::text WHERE key = 'moves'", &[]).await?;
            begun.commit().await?;
            Ok(())
        })
    }

    fn control(&mut self) -> Result<Control, SinkError> {
        self.work(async |link, _, _| {
            if let Some(epoch) = link.epoch {
                holder::renew(&link.connected.client, epoch).await?;
            }
            let rows = link
                .connected
                .client
                .query("SELECT key, value FROM state WHERE key IN ('paused', 'moves')", &[])
                .await?;
            let of = |key: &str| rows.iter().find(|row| row.get::<_, &str>(0) == key).map(|row| row.get::<_, &str>(1));
            Ok(Control {
                is_paused: of("paused") == Some("1"),
                moves: of("moves").and_then(|moves| moves.parse().ok()).unwrap_or_default(),
            })
        })
    }

    fn pause(&mut self, is_paused: bool) -> Result<(), SinkError> {
        let value = if is_paused { "1" } else { "0" };
        self.work(async |link, _, _| {
            link.connected.client.execute("UPDATE state SET value = $1 WHERE key = 'paused'", &[&value]).await?;
            Ok(())
        })
    }

    fn tend(&mut self, now: Timestamp) -> Result<bool, SinkError> {
        self.work(async |link, retention, _| {
            let begun = link.connected.client.transaction().await?;
            holder::fenced(&begun, link.epoch).await?;
            let bound = "DELETE FROM dead_letters WHERE seq IN
                         (SELECT seq FROM dead_letters ORDER BY time_us DESC LIMIT 1000 OFFSET $1)";
            begun.execute(bound, &[&DEAD_LETTERS_MAX]).await?;
            let is_more = retention::expire(retention, &begun, now).await?;
            begun.commit().await?;
            count(&link.connected.client, &mut link.added).await?;
            Ok(is_more)
        })
    }
}
