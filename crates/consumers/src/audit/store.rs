//! Where the audit database is: a file of the data folder, or a server. What both can do is asked for here.

use std::path::PathBuf;

use super::{
    index::{self, Covered},
    query::{self, Answer, Limits, QueryError},
};

/// The audit database, for whoever reads it.
#[derive(Clone, Debug)]
pub enum Store {
    /// A SQLite file.
    File(PathBuf),
    /// A PostgreSQL server.
    #[cfg(feature = "postgres")]
    Postgres(Box<crate::postgres::Options>),
}

impl Store {
    /// Asks it.
    ///
    /// # Errors
    /// It changes something, is no SQL, takes too long, or there is no database.
    pub fn ask(&self, sql: &str, limits: &Limits) -> Result<Answer, QueryError> {
        match self {
            Self::File(path) => query::ask(path, sql, limits),
            #[cfg(feature = "postgres")]
            Self::Postgres(options) => crate::postgres::ask(options, sql, limits),
        }
    }

    /// Where the events of these workflows lie.
    ///
    /// # Errors
    /// There is no database, or it cannot be read in time.
    pub fn find(&self, workflows: &[&str]) -> Result<Vec<Covered>, QueryError> {
        match self {
            Self::File(path) => index::find(path, workflows),
            #[cfg(feature = "postgres")]
            Self::Postgres(options) => crate::postgres::find(options, workflows),
        }
    }
}
