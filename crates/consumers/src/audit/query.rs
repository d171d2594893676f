//! Questions to the audit database in SQL: read-only, and within limits of time, rows and memory.
//!
//! The file is opened read-only, an authorizer lets through what reads the database's own tables and nothing else, and SQLite itself
//! is bounded. It must never change anything, nor open another file.

use std::{path::Path, time::Duration};

use rusqlite::{
    Connection, ErrorCode, OpenFlags,
    hooks::{AuthAction, AuthContext, Authorization},
    limits::Limit,
    types::ValueRef,
};
use serde_json::Value;
use tokio::time::Instant;

/// Steps of SQLite's machine between two looks at the time.
const STEPS: i32 = 10_000;
/// How long the writer may keep a question waiting.
const BUSY_MAX: Duration = Duration::from_secs(2);
/// Functions that reach out of the database.
const FUNCTIONS_DENIED: [&str; 6] =
    ["load_extension", "readfile", "writefile", "edit", "fts3_tokenizer", "sqlite_dbpage"];
/// Pragmas that say what tables there are.
const PRAGMAS: [&str; 6] = ["table_info", "table_xinfo", "table_list", "index_list", "index_info", "user_version"];

/// How much a question may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Rows of the answer; what is past them is cut off.
    pub rows_max: usize,
    /// Bytes of the answer, likewise.
    pub bytes_max: usize,
    /// Time.
    pub time_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { rows_max: 10_000, bytes_max: 16 << 20, time_max: Duration::from_secs(10) }
    }
}

/// An answer.
#[derive(Clone, PartialEq, Debug)]
pub struct Answer {
    /// The columns' names.
    pub columns: Vec<String>,
    /// The rows, each with a value for each column.
    pub rows: Vec<Vec<Value>>,
    /// Whether there was more than the limits permit.
    pub is_cut: bool,
    /// How long it took.
    pub elapsed: Duration,
}

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum QueryError {
    /// Nothing was ever applied here.
    #[error(
        "there is no audit database at {path}: the consumer makes it, run `cairn up` with it or `cairn consume audit`"
    )]
    Missing {
        /// Where it would lie.
        path: String,
    },
    /// It does more than read the tables.
    #[error(
        "only reading is permitted: ask with one SELECT on events, calls, decisions, approvals, dead_letters or places ({reason})"
    )]
    Refused {
        /// What SQLite said.
        reason: String,
    },
    /// It is no SQL that can be run.
    #[error("{reason}")]
    Sql {
        /// What SQLite said.
        reason: String,
    },
    /// It took too long.
    #[error("it takes longer than {} s: narrow it by workflow_id, call_id, or time_us", .time_max.as_secs_f64())]
    Slow {
        /// The limit.
        time_max: Duration,
    },
    /// The database cannot be read at the moment.
    #[error("the audit database cannot be read: {reason}")]
    Away {
        /// What SQLite said.
        reason: String,
    },
}

/// Asks the database.
///
/// # Errors
/// It changes something, is no SQL, takes too long, or there is no database.
pub fn ask(path: &Path, sql: &str, limits: &Limits) -> Result<Answer, QueryError> {
    if !path.exists() {
        return Err(QueryError::Missing { path: path.display().to_string() });
    }
    let begun = Instant::now();
    let deadline = begun + limits.time_max;
    let said = |error: rusqlite::Error| fault(&error, limits);
    let mut connection = open(path).map_err(|error| QueryError::Away { reason: error.to_string() })?;
    connection.progress_handler(STEPS, Some(move || Instant::now() >= deadline)).map_err(said)?;
    connection.authorizer(Some(permitted)).map_err(said)?;
    let mut statement = connection.prepare(sql).map_err(said)?;
    if !statement.readonly() {
        return Err(QueryError::Refused { reason: "it writes".to_owned() });
    }
    let columns: Vec<String> = statement.column_names().map(ToOwned::to_owned).collect();
    if columns.is_empty() {
        return Err(QueryError::Refused { reason: "it asks for nothing".to_owned() });
    }
    let (mut rows, mut bytes, mut is_cut) = (Vec::new(), 0, false);
    let mut found = statement.raw_query();
    while let Some(row) = found.next().map_err(said)? {
        let values: Vec<Value> =
            (0..columns.len()).map(|index| row.get_ref(index).map(value)).collect::<Result<_, _>>().map_err(said)?;
        bytes += values.iter().map(size).sum::<usize>();
        if rows.len() >= limits.rows_max || bytes > limits.bytes_max {
            is_cut = true;
            break;
        }
        rows.push(values);
    }
    Ok(Answer { columns, rows, is_cut, elapsed: begun.elapsed() })
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_MAX)?;
    connection.pragma_update(None, "query_only", true)?;
    // Sorts that are larger go to a file.
    connection.pragma_update(None, "cache_size", -8_192)?;
    connection.pragma_update(None, "temp_store", "FILE")?;
    for (limit, most) in [
        (Limit::SQLITE_LIMIT_LENGTH, 4 << 20),
        (Limit::SQLITE_LIMIT_SQL_LENGTH, 64 << 10),
        (Limit::SQLITE_LIMIT_COLUMN, 256),
        (Limit::SQLITE_LIMIT_EXPR_DEPTH, 200),
        (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 32),
        (Limit::SQLITE_LIMIT_ATTACHED, 0),
        (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1_000),
        (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, 16),
        (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
    ] {
        connection.set_limit(limit, most)?;
    }
    Ok(connection)
}

fn permitted(context: AuthContext<'_>) -> Authorization {
    let is_good = match context.action {
        AuthAction::Select | AuthAction::Recursive | AuthAction::Read { .. } => true,
        AuthAction::Function { function_name } => {
            !FUNCTIONS_DENIED.iter().any(|denied| denied.eq_ignore_ascii_case(function_name))
        }
        AuthAction::Pragma { pragma_name, pragma_value } => {
            let asks = PRAGMAS.iter().any(|name| name.eq_ignore_ascii_case(pragma_name));
            asks && (pragma_value.is_none() || !pragma_name.eq_ignore_ascii_case("user_version"))
        }
        _ => false,
    };
    if is_good { Authorization::Allow } else { Authorization::Deny }
}

fn value(found: ValueRef<'_>) -> Value {
    match found {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => serde_json::Number::from_f64(number).map_or(Value::Null, Value::Number),
        ValueRef::Text(bytes) => String::from_utf8_lossy(bytes).into_owned().into(),
        ValueRef::Blob(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into(),
    }
}

fn size(value: &Value) -> usize {
    16 + value.as_str().map_or(0, str::len)
}

fn fault(error: &rusqlite::Error, limits: &Limits) -> QueryError {
    let reason = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::OperationInterrupted) => QueryError::Slow { time_max: limits.time_max },
        Some(ErrorCode::AuthorizationForStatementDenied | ErrorCode::ReadOnly) => QueryError::Refused { reason },
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::CannotOpen
            | ErrorCode::SystemIoFailure
            | ErrorCode::DatabaseCorrupt
            | ErrorCode::NotADatabase
            | ErrorCode::DiskFull,
        ) => QueryError::Away { reason },
        _ => QueryError::Sql { reason },
    }
}
