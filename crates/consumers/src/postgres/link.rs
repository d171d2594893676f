//! A connection, and what its errors mean for whoever waits for it.

use std::{error::Error as _, time::Duration};

use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, error::SqlState};

use super::{options::Options, tls::Connect};
use crate::SinkError;

/// What every session is set to: the same whatever the server's own settings are, and nothing waits for ever.
const SESSION: &str = "SET standard_conforming_strings = on; SET client_min_messages = warning; SET timezone = 'UTC';
    SET datestyle = 'ISO, YMD'; SET bytea_output = 'hex'; SET jit = off; SET lock_timeout = '10s';
    SET statement_timeout = '60s'; SET idle_in_transaction_session_timeout = '30s';";

/// How long the end of a connection may take.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// Why something was not done.
#[derive(Debug)]
pub(super) enum Fault {
    /// The server, or the way there.
    Postgres(tokio_postgres::Error),
    /// No answer came in time.
    Late,
    /// What the sink itself says.
    Said(SinkError),
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

impl From<SinkError> for Fault {
    fn from(error: SinkError) -> Self {
        Self::Said(error)
    }
}

impl Fault {
    /// Whether the connection may be used again.
    pub(super) const fn is_clean(&self) -> bool {
        matches!(self, Self::Said(SinkError::Moved | SinkError::Refused { .. }))
    }

    /// What it means for the consumer.
    pub(super) fn means(&self, options: &Options) -> SinkError {
        match self {
            Self::Postgres(error) => meaning(error, options),
            Self::Late => SinkError::Away { reason: format!("{} does not answer in time", options.shown()) },
            Self::Said(said) => said.clone(),
        }
    }
}

/// A connection, and what carries it.
pub(super) struct Connected {
    pub(super) client: Client,
    task: JoinHandle<()>,
}

impl Connected {
    /// Closes it, so that the server gives up what it holds for it: nothing of this happens by itself where nobody drives the runtime.
    pub(super) async fn close(self) {
        let Self { client, mut task } = self;
        drop(client);
        if tokio::time::timeout(CLOSE_MAX, &mut task).await.is_err() {
            task.abort();
            let _ = task.await;
        }
    }
}

/// Connects and sets the session up; `more` is said to it besides.
pub(super) async fn connect(
    options: &Options,
    config: &Config,
    more: &str,
) -> Result<Connected, tokio_postgres::Error> {
    let (client, connection) = config.connect(Connect(options.tls.clone())).await?;
    let task = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to PostgreSQL has ended");
        }
    });
    let path = format!("SET search_path TO \"{}\", pg_temp; {SESSION} {more}", options.schema);
    client.batch_execute(&path).await?;
    Ok(Connected { client, task })
}

/// Does work within a time.
pub(super) async fn within<T, E: From<Fault>>(
    limit: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(Fault::Late.into()))
}

/// Whether what a row holds is to blame.
pub(super) fn is_of_data(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| ["22", "23", "54"].iter().any(|class| code.code().starts_with(class)))
}

/// What the server said, or what became of the way there.
pub(super) fn words(error: &tokio_postgres::Error) -> String {
    if let Some(said) = error.as_db_error() {
        return format!("{} ({})", said.message(), said.code().code());
    }
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(deeper) = source {
        let more = deeper.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        source = deeper.source();
    }
    words
}

fn meaning(error: &tokio_postgres::Error, options: &Options) -> SinkError {
    let (at, words) = (options.shown(), words(error));
    let Some(code) = error.code() else {
        if words.contains("TLS") {
            let hint =
                "see sslmode and sslrootcert in consumers.audit.database (sslmode=disable where the way there is safe)";
            return SinkError::Broken { reason: format!("{at}: {words}: {hint}") };
        }
        return SinkError::Away { reason: format!("{at}: {words}") };
    };
    let broken = |hint: &str| SinkError::Broken { reason: format!("{at}: {words}: {hint}") };
    match code {
        code if *code == SqlState::INVALID_PASSWORD => {
            broken("see the user in consumers.audit.database, and consumers.audit.password")
        }
        code if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION && options.tls.is_none() => {
            broken("let the user in (pg_hba.conf); where the server wants TLS, write sslmode=verify-full")
        }
        code if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION => broken("let the user in (pg_hba.conf)"),
        code if *code == SqlState::INVALID_CATALOG_NAME => {
            broken("make it (CREATE DATABASE), or name another in consumers.audit.database")
        }
        code if *code == SqlState::INSUFFICIENT_PRIVILEGE => broken(
            "have its owner run what `cairn consumer schema audit` prints, or give the user the right to CREATE in the database",
        ),
        code if *code == SqlState::READ_ONLY_SQL_TRANSACTION => {
            SinkError::Away { reason: format!("{at}: it takes no writes at the moment: is it a standby?") }
        }
        code if *code == SqlState::DISK_FULL => {
            SinkError::Away { reason: format!("{at}: {words}: make room on its disk") }
        }
        // Connections, resources, locks, time-outs, shut-downs, the system beneath.
        code if ["08", "40", "53", "55", "57", "58"].iter().any(|class| code.code().starts_with(class)) => {
            SinkError::Away { reason: format!("{at}: {words}") }
        }
        _ => broken("drop its schema, and it is made again from the trail"),
    }
}

/// Does work on a thread of its own, wherever it is asked from.
pub(super) fn alone<T: Send, E: Send>(work: impl Future<Output = Result<T, E>> + Send) -> Result<T, E> {
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| runtime().block_on(work));
        worker.join().unwrap_or_else(|panicked| std::panic::resume_unwind(panicked))
    })
}

/// What one connection runs on.
pub(super) fn runtime() -> tokio::runtime::Runtime {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.expect("a runtime without threads needs nothing but a file descriptor")
}
