//! What an event holds, as SQLite takes it, without a copy.

use rusqlite::types::{ToSqlOutput, Value, ValueRef};

pub(crate) const NULL: ToSqlOutput<'static> = ToSqlOutput::Owned(Value::Null);

pub(crate) fn text(text: &str) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes()))
}

/// Nothing is NULL.
pub(crate) fn maybe(found: Option<&str>) -> ToSqlOutput<'_> {
    found.map_or(NULL, text)
}

pub(crate) const fn number(number: i64) -> ToSqlOutput<'static> {
    ToSqlOutput::Owned(Value::Integer(number))
}
