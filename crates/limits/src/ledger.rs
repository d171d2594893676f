//! What was spent, on disk: one small file that a thread of its own writes.
//!
//! Whoever spends waits for the write that holds it; while one write is under way the next ones gather. The file is a
//! `redb` database: a write is whole or it is not there. Must never say that something is written before it is.

use std::{path::PathBuf, sync::Arc, thread::JoinHandle, time::Duration};

use parking_lot::{Condvar, Mutex};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError};
use tokio::sync::watch;

use crate::counters::{Counters, Row, Spend};

const SPEND: TableDefinition<'_, &str, (u64, u64, u64, u64, bool)> = TableDefinition::new("spend");
/// The cache that the database may use, in bytes.
const CACHE_BYTES: usize = 4 << 20;
/// How long after a write that failed the next one is tried, unless somebody waits.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long whoever spends waits for the disk.
const DURABLE_WITHIN: Duration = Duration::from_secs(5);

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot use the file of what was spent, {path}: {reason}; restore it, or move it away to begin with nothing spent"
)]
pub struct OpenError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

/// What was spent could not be written.
#[derive(Clone, Debug, thiserror::Error)]
#[error("what was spent is not written: {reason}")]
pub struct LedgerError {
    /// Why.
    pub reason: Arc<str>,
}

/// How far the file is.
#[derive(Clone, Debug, Default)]
struct Written {
    generation: u64,
    /// The latest generation that could not be written, and why.
    failed: Option<(u64, Arc<str>)>,
}

#[derive(Debug, Default)]
struct Wake {
    wanted: u64,
    ends: bool,
}

/// The writer.
#[derive(Debug)]
pub(crate) struct Ledger {
    wake: Arc<(Mutex<Wake>, Condvar)>,
    written: watch::Receiver<Written>,
    thread: Option<JoinHandle<()>>,
}

impl Ledger {
    /// What the file holds; nothing where there is none yet.
    pub(crate) fn read(path: &std::path::Path) -> Result<Vec<(String, Spend)>, OpenError> {
        if !path.exists() {
            return Ok(Vec::new());
        }
        rows(path).map_err(|error| OpenError { path: path.to_owned(), reason: error.to_string() })
    }

    /// Begins to write what changes in the counters.
    pub(crate) fn start(path: PathBuf, counters: Arc<Mutex<Counters>>) -> std::io::Result<Self> {
        let wake = Arc::new((Mutex::new(Wake::default()), Condvar::new()));
        let (tell, written) = watch::channel(Written::default());
        let writer = Writer { path, counters, wake: wake.clone(), tell, database: None };
        let thread = std::thread::Builder::new().name("spend".into()).spawn(move || writer.run())?;
        Ok(Self { wake, written, thread: Some(thread) })
    }

    /// Has everything up to that generation written.
    pub(crate) fn want(&self, generation: u64) {
        let (lock, changed) = &*self.wake;
        let mut wake = lock.lock();
        wake.wanted = wake.wanted.max(generation);
        changed.notify_one();
    }

    /// Returns when everything up to that generation is on disk.
    pub(crate) fn durable(&self, generation: u64) -> impl Future<Output = Result<(), LedgerError>> + Send + use<> {
        let mut written = self.written.clone();
        async move {
            let done = written.wait_for(|written| {
                written.generation >= generation
                    || written.failed.as_ref().is_some_and(|(failed, _)| *failed >= generation)
            });
            let failed = |reason: &str| Err(LedgerError { reason: reason.into() });
            match tokio::time::timeout(DURABLE_WITHIN, done).await {
                Ok(Ok(written)) if written.generation >= generation => Ok(()),
                Ok(Ok(written)) => failed(written.failed.as_ref().map_or("", |(_, reason)| reason)),
                Ok(Err(_)) => failed("the gateway is stopping"),
                Err(_) => failed(&format!("the disk has not taken it within {} s", DURABLE_WITHIN.as_secs())),
            }
        }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.wake.0.lock().ends = true;
        self.wake.1.notify_one();
        if let Some(thread) = self.thread.take() {
            // A writer that panicked has said so; there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

struct Writer {
    path: PathBuf,
    counters: Arc<Mutex<Counters>>,
    wake: Arc<(Mutex<Wake>, Condvar)>,
    tell: watch::Sender<Written>,
    database: Option<Database>,
}

impl Writer {
    fn run(mut self) {
        let (mut tried, mut failed) = (0, false);
        loop {
            let ends = {
                let (lock, changed) = &*self.wake;
                let mut wake = lock.lock();
                while wake.wanted <= tried && !wake.ends {
                    if !failed {
                        changed.wait(&mut wake);
                    } else if changed.wait_for(&mut wake, AGAIN_AFTER).timed_out() {
                        break;
                    }
                }
                wake.ends
            };
            let (generation, rows) = self.counters.lock().drain();
            tried = generation;
            let said = if rows.is_empty() { Ok(()) } else { self.write(&rows) };
            failed = said.is_err();
            match said {
                Ok(()) => self.tell.send_modify(|written| *written = Written { generation, failed: None }),
                Err(error) => {
                    // What failed once is opened anew: a database does not go on after an error of the disk.
                    self.database = None;
                    self.counters.lock().put_back(rows.into_iter().map(|(key, _)| key));
                    tracing::warn!(%error, path = %self.path.display(), "what was spent is not written yet");
                    let reason: Arc<str> = error.to_string().into();
                    self.tell.send_modify(|written| written.failed = Some((generation, reason)));
                }
            }
            if ends {
                return;
            }
        }
    }

    fn write(&mut self, rows: &[Row]) -> Result<(), redb::Error> {
        let database = match &mut self.database {
            Some(database) => database,
            none => none.insert(opened(&self.path)?),
        };
        let write = database.begin_write()?;
        {
            let mut table = write.open_table(SPEND)?;
            for (key, spend) in rows {
                match spend {
                    Some(spend) => {
                        let Spend { window_us, window, spent, at_us, fades } = *spend;
                        table.insert(&**key, (window_us, window, spent, at_us, fades))?;
                    }
                    None => drop(table.remove(&**key)?),
                }
            }
        }
        write.commit()?;
        Ok(())
    }
}

fn opened(path: &std::path::Path) -> Result<Database, redb::Error> {
    Ok(Database::builder().set_cache_size(CACHE_BYTES).create(path)?)
}

fn rows(path: &std::path::Path) -> Result<Vec<(String, Spend)>, redb::Error> {
    // Opened to be written: a file that a crash left is mended first.
    let database = opened(path)?;
    let read = database.begin_read()?;
    let table = match read.open_table(SPEND) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut rows = Vec::new();
    for row in table.iter()? {
        let (key, value) = row?;
        let (window_us, window, spent, at_us, fades) = value.value();
        rows.push((key.value().to_owned(), Spend { window_us, window, spent, at_us, fades }));
    }
    Ok(rows)
}
