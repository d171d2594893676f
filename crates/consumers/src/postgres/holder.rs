//! Who applies: one process at a time, whoever else is set up for the same database.
//!
//! The table `holder` has one row. A process claims it when it connects, and every transaction of a consumer renews it by its epoch:
//! one that was stalled while another took over finds another epoch there, and commits nothing. Whoever comes while the holder
//! lives stands by. Moves, pauses and replays take the row's lock too, so that writers come one after the other.

use tokio_postgres::{Client, GenericClient, Transaction};

use super::link::Fault;
use crate::SinkError;

/// A holder that said nothing for so long has none of the rights of one, even if its connection stands.
const SILENT_S_MAX: &str = "15 s";
/// How often a holder that applies nothing says that it is there.
const RENEW_EVERY_S: &str = "3 s";

/// Who claims.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Claimant {
    /// Tells this process from every other one, and from itself as it was before.
    pub(super) token: String,
    /// Its name, for people.
    pub(super) who: String,
}

/// Takes the database for this process, or says who has it.
pub(super) async fn claim(client: &mut Client, claimant: &Claimant, has_claimed: bool) -> Result<i64, Fault> {
    let begun = client.transaction().await?;
    // A claim that a crash of the server forgot would let two believe that they hold.
    begun.batch_execute("SET LOCAL synchronous_commit = on").await?;
    let found = begun
        .query_opt(
            "SELECT h.token, h.who, h.seen > clock_timestamp() - $1::text::interval AND EXISTS (
                 SELECT 1 FROM pg_stat_activity a
                 WHERE a.pid = h.backend AND (a.backend_start IS NULL OR a.backend_start = h.since))
             FROM holder h FOR UPDATE",
            &[&SILENT_S_MAX],
        )
        .await?;
    let Some(found) = found else { return Err(Fault::Said(taken_apart())) };
    let (token, who, lives): (String, String, bool) = (found.get(0), found.get(1), found.get(2));
    if token != claimant.token {
        if has_claimed {
            return Err(Fault::Said(taken()));
        }
        if lives {
            let reason =
                format!("another process applies to it ({who}): this one stands by, and takes over when that one ends");
            return Err(Fault::Said(SinkError::Away { reason }));
        }
    }
    let epoch = begun
        .query_one(
            "UPDATE holder SET epoch = epoch + 1, token = $1, who = $2, backend = pg_backend_pid(), seen = clock_timestamp(),
                 since = (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid())
             RETURNING epoch",
            &[&claimant.token, &claimant.who],
        )
        .await?
        .get(0);
    begun.commit().await?;
    Ok(epoch)
}

/// What a transaction of a consumer begins with: it holds, and nobody else writes until the end of it.
pub(super) const FENCE: &str = "UPDATE holder SET seen = clock_timestamp() WHERE epoch = $1";

/// Begins a transaction as the holder of that epoch, or as somebody who only waits for its turn.
pub(super) async fn fenced(begun: &Transaction<'_>, epoch: Option<i64>) -> Result<(), Fault> {
    match epoch {
        Some(epoch) => match begun.execute(FENCE, &[&epoch]).await? {
            0 => Err(Fault::Said(taken())),
            _ => Ok(()),
        },
        None => begun.execute("SELECT 1 FROM holder FOR UPDATE", &[]).await.map(|_| ()).map_err(Fault::from),
    }
}

/// Says that the holder is there, where it was not said for a while.
pub(super) async fn renew(client: &impl GenericClient, epoch: i64) -> Result<(), Fault> {
    let renewed = "WITH h AS (SELECT epoch, seen FROM holder),
        r AS (UPDATE holder SET seen = clock_timestamp()
              WHERE epoch = $1 AND seen < clock_timestamp() - $2::text::interval)
        SELECT h.epoch = $1 FROM h";
    let found = client.query_opt(renewed, &[&epoch, &RENEW_EVERY_S]).await?;
    if found.is_some_and(|row| row.get(0)) { Ok(()) } else { Err(Fault::Said(taken())) }
}

pub(super) fn taken() -> SinkError {
    SinkError::Taken { reason: "another process applies to the database in its place".to_owned() }
}

fn taken_apart() -> SinkError {
    let reason = "its table `holder` has no row: drop its schema, and it is made again from the trail".to_owned();
    SinkError::Broken { reason }
}
